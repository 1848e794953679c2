"""All decoders on this machine agree with each other, and with the standard library made strict."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Iterable

from gateway._native import base64url

WORDS = (b"=", b"==", b"-", b"_", b"+", b"/", b"\n", b"A" * 32, b"_" * 64)
LENGTH_MAX = 400


def seeds() -> Iterable[bytes]:
    for length in (0, 1, 2, 3, 23, 24, 25, 47, 48, 49, 50, 96, 150, 199):
        yield base64.urlsafe_b64encode(bytes(i * 37 & 0xFF for i in range(length))).rstrip(b"=")


def strict_reference(data: bytes) -> bytes | None:
    """Decode leniently, and accept only what encodes back to the same text."""
    try:
        decoded = base64.b64decode(data + b"=" * (-len(data) % 4), altchars=b"-_", validate=True)
    except (binascii.Error, ValueError):
        return None
    return decoded if base64.urlsafe_b64encode(decoded).rstrip(b"=") == data else None


def target(data: bytes) -> object:
    expected = strict_reference(data)
    for way in base64url.IMPLEMENTATIONS:
        try:
            decoded: bytes | None = base64url.decode_with(way, data)
        except ValueError:
            decoded = None
        assert decoded == expected, way
    return (expected is None, len(data))
