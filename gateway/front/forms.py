"""Forms and JSON that clients post to our own endpoints: bounded in size and time, read in one way only."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any, Final
from urllib.parse import parse_qsl

from starlette.requests import ClientDisconnect, Request

from gateway._native.json_scan import JsonRefused, scan
from gateway.config import KIB

BODY_BYTES_MAX: Final = 32 * KIB
FIELDS_MAX: Final = 64

Pairs = list[tuple[str, str]]


class BodyRefused(Exception):
    """A body that is not read; `status`, `code`, `title` and the message are for who sent it."""

    def __init__(self, status: int, code: str, title: str, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.code = code
        self.title = title


async def read_form(request: Request, timeout_s: float) -> Pairs:
    """Read the fields of a posted form, in their order. Raises BodyRefused.

    `timeout_s` bounds the reading of all of it: anybody may begin to send one.
    """
    if _media_type(request) != "application/x-www-form-urlencoded":
        raise BodyRefused(415, "unsupported_media_type", "Form expected", "send application/x-www-form-urlencoded")
    body = await _read(request, timeout_s, "form")
    try:
        text = body.decode("ascii")
        return parse_qsl(
            text, keep_blank_values=True, strict_parsing=bool(text), errors="strict", max_num_fields=FIELDS_MAX
        )
    except (UnicodeDecodeError, ValueError):
        raise BodyRefused(400, "invalid_request", "Malformed form", "the form cannot be read") from None


async def read_json(
    request: Request,
    timeout_s: float,
    *,
    bytes_max: int = BODY_BYTES_MAX,
    media_types: Sequence[str] = ("application/json",),
) -> dict[str, Any]:
    """Read a posted JSON object. Raises BodyRefused."""
    import orjson

    if _media_type(request) not in media_types:
        raise BodyRefused(415, "unsupported_media_type", "JSON expected", f"send {' or '.join(media_types)}")
    body = await _read(request, timeout_s, "JSON", bytes_max)
    try:
        scan(body, (b"",))  # refuses what no two readers understand in the same way
        document: dict[str, Any] = orjson.loads(body)
    except (JsonRefused, ValueError):
        raise BodyRefused(400, "invalid_request", "Malformed JSON", "the JSON object cannot be read") from None
    return document


def once(pairs: Pairs) -> dict[str, str]:
    """Return fields each of which may stand there once only (RFC 6749 §3.2). Raises BodyRefused."""
    form = dict(pairs)
    if len(form) != len(pairs):
        raise BodyRefused(400, "invalid_request", "Malformed form", "a field stands there more than once")
    return form


def _media_type(request: Request) -> str:
    return request.headers.get("content-type", "").partition(";")[0].strip().lower()


async def _read(request: Request, timeout_s: float, noun: str, bytes_max: int = BODY_BYTES_MAX) -> bytes:
    body = bytearray()
    try:
        async with asyncio.timeout(timeout_s):
            async for piece in request.stream():
                body += piece
                if len(body) > bytes_max:
                    raise BodyRefused(413, "body_too_large", "Content too large", f"the {noun} is too long")
    except TimeoutError:
        raise BodyRefused(408, "request_timeout", "Request timeout", f"the {noun} did not arrive in time") from None
    except ClientDisconnect:
        raise BodyRefused(400, "invalid_request", "Body incomplete", "the connection broke off") from None
    return bytes(body)
