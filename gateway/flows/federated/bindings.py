"""What ties an answer of a provider to the browser that asked: hashes, and texts made of the browser's secret."""

from __future__ import annotations

import base64
import hashlib
import hmac


def derived(browser: str, state: str, use: str) -> str:
    """Return what only the browser with this secret can bring back, or use, with this `state`."""
    return text_of(hmac.digest(browser.encode(), f"{use}\0{state}".encode(), "sha256"))


def hash_of(text: str) -> bytes:
    """Return what stores know a text by."""
    return hashlib.sha256(text.encode()).digest()


def text_of(data: bytes) -> str:
    """Return bytes as base64url, without padding."""
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()
