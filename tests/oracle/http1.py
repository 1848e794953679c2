"""Response heads and chunked bodies of HTTP/1.1, with regular expressions on whole texts (RFC 9112 §2–§7)."""

from __future__ import annotations

import re

HEAD_BYTES_MAX = 65536
HEADERS_MAX = 256
EXTENSION_BYTES_MAX = 4096
TRAILER_BYTES_MAX = 16384

TOKEN = rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+"
TEXT = rb"[\t\x20-\x7e\x80-\xff]*"

Head = tuple[int, list[tuple[bytes, bytes]], str, int, bool, int]


class Refused(Exception):
    """The oracle's word for what is no message, or one of two meanings."""


def parse_response_head(data: bytes, to_head_request: bool = False) -> Head | None:
    """Return what `gateway._native.http1.parse_response_head` must; None while incomplete; raise Refused."""
    size = head_size(data)
    if size is None:
        return None
    status_line, *lines = data[: size - 4].split(b"\r\n")
    status_match = re.fullmatch(rb"HTTP/1\.([01]) ([1-5][0-9][0-9])( " + TEXT + rb")?", status_line)
    if status_match is None:
        raise Refused
    minor, status = int(status_match[1]), int(status_match[2])
    headers = []
    for line in lines:
        match = re.fullmatch(rb"(" + TOKEN + rb"):(" + TEXT + rb")", line)
        if match is None:
            raise Refused
        headers.append((match[1].lower(), match[2].strip(b" \t")))
    if len(headers) > HEADERS_MAX:
        raise Refused
    lengths = [value for name, value in headers if name == b"content-length"]
    codings = [value for name, value in headers if name == b"transfer-encoding"]
    options = [
        option.strip(b" \t").lower() for name, value in headers if name == b"connection" for option in value.split(b",")
    ]
    if len(lengths) + len(codings) > 1:
        raise Refused
    if lengths and re.fullmatch(rb"[0-9]{1,18}", lengths[0]) is None:
        raise Refused
    if codings and (codings[0].lower() != b"chunked" or minor == 0):
        raise Refused
    length = int(lengths[0]) if lengths else 0
    keep_alive = b"close" not in options and (minor == 1 or b"keep-alive" in options)
    if to_head_request or status < 200 or status in (204, 304):
        framing = "none"
    elif codings:
        framing = "chunked"
    elif lengths:
        framing = "length" if length else "none"
    else:
        framing, keep_alive = "close", False
    return status, headers, framing, length, keep_alive, size


def head_size(data: bytes) -> int | None:
    """Return where the head ends, None while it may still come."""
    head = data[:HEAD_BYTES_MAX]
    if not head.startswith(b"HTTP/1.") and not b"HTTP/1.".startswith(head):
        raise Refused
    end = head.find(b"\r\n\r\n")
    size = None if end < 0 else end + 4
    if re.search(rb"(?<!\r)\n", head[:size]):
        raise Refused
    if size is None and len(data) >= HEAD_BYTES_MAX:
        raise Refused
    return size


def decode_chunked(data: bytes) -> tuple[bytes, int, bool]:
    """Return (decoded bytes, bytes used, finished) for a body that begins at `data`, whole or cut anywhere."""
    decoded = b""
    extensions = 0
    at = 0
    while True:
        digits = re.match(rb"[0-9A-Fa-f]*", data[at:])
        assert digits is not None
        if len(digits[0]) > 15:
            raise Refused
        at += len(digits[0])
        if at == len(data):
            return decoded, at, False
        if not digits[0] or data[at : at + 1] not in (b";", b"\r"):
            raise Refused
        line = re.match(rb"(?:;([\t\x20-\x7e\x80-\xff]*))?", data[at:])
        assert line is not None
        extensions += len(line[1] or b"")
        if extensions > EXTENSION_BYTES_MAX:
            raise Refused
        at += len(line[0])
        if not expect(data, at, b"\r\n"):
            return decoded, len(data), False
        at += 2
        size = int(digits[0], 16)
        if size == 0:
            used, finished = skip_trailers(data, at)
            return decoded, used, finished
        decoded += data[at : at + size]
        if len(data) < at + size:
            return decoded, len(data), False
        at += size
        if not expect(data, at, b"\r\n"):
            return decoded, len(data), False
        at += 2


def skip_trailers(data: bytes, at: int) -> tuple[int, bool]:
    """Return where the trailer section that begins at `at` ends, and whether it does."""
    counted = 0
    while True:
        line = re.match(rb"[^\r\n]*", data[at:])
        assert line is not None
        rest = data[at:]
        if rest[:1] == b"\r":
            return (at + 2, True) if expect(data, at, b"\r\n") else (len(data), False)
        counted += len(line[0]) + len(expected_end(data, at + len(line[0])))
        complete = rest[len(line[0]) : len(line[0]) + 1] != b""
        form = TOKEN + rb":" + TEXT if complete else rb"(?:" + TOKEN + rb"(?::" + TEXT + rb")?)?"
        if counted > TRAILER_BYTES_MAX or re.fullmatch(form, line[0]) is None:
            raise Refused
        at += len(line[0])
        if not expect(data, at, b"\r\n"):
            return len(data), False
        at += 2


def expected_end(data: bytes, at: int) -> bytes:
    """Return as much of a CRLF as is there."""
    return data[at : at + 2]


def expect(data: bytes, at: int, wanted: bytes) -> bool:
    """True if `wanted` is at `at`; False if `data` ends before it is whole; Refused for anything else."""
    there = data[at : at + len(wanted)]
    if not wanted.startswith(there):
        raise Refused
    return there == wanted
