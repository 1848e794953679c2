"""The scanner holds its own laws on every input, and equals the oracle on a share of them."""

from __future__ import annotations

import json
import zlib
from collections.abc import Iterable

from gateway._native import json_scan
from tests.oracle import json_scan as oracle

NAMES = (b"iss", b"sub", b"aud", b"exp", b"iat", b"nbf", b"jti", b"scope", b"client_id", b"cnf", b"")
ORACLE_SHARE = 8  # one input in so many: the oracle is a hundred times slower
LENGTH_MAX = 2000
WORDS = (
    b'"exp":', b'"\\u0065xp":', b"1e308", b"1.7976931348623159e308", b"-0", b"9223372036854775807", b"true", b"false",
    b"null", b"\\ud83d\\ude00", b"\\ud800", b"\\u0000", b"[[[[[[[[", b"]]]]]]]]", b'{"a":', b"}}}}", b"\xed\xa0\x80",
    b"\xf0\x9f\x98\x80", b"\xc3\xa9", b'""', b'":"', b'","', b" \t\r\n", b"\\\\", b'\\"',
)  # fmt: skip


def seeds() -> Iterable[bytes]:
    claims = {
        "iss": "https://issuer.example",
        "sub": "a\u00e9/\U0001f600",
        "aud": ["x", {"y": []}],
        "exp": 1798765432,
        "nbf": 1.5,
        "jti": None,
        "cnf": {"jkt": "x", "deep": [[[{"exp": True}]]]},
        "big": 10**19,
        "tiny": 5e-324,
    }
    yield json.dumps(claims).encode()
    yield json.dumps(claims, ensure_ascii=False, indent=1).encode()
    yield b'{"alg":"RS256","kid":"2026-01","typ":"at+jwt"}'
    yield b"{" + b",".join(b'"m%d":%d' % (i, i) for i in range(140)) + b"}"
    yield b'{"a":' * 32 + b"1" + b"}" * 32
    yield b'{"exp":1,"\\u0065xp":2}'
    yield b"[1,2,3]"
    yield b"{}"


def native(text: bytes) -> tuple[tuple[str, object], ...] | str:
    try:
        return json_scan.scan(text, NAMES)
    except json_scan.JsonRefused as refusal:
        return refusal.code


def slow(text: bytes) -> tuple[tuple[str, object], ...] | str:
    try:
        return oracle.scan(text, NAMES)
    except oracle.Refused as refusal:
        return refusal.code


def target(data: bytes) -> object:
    found = native(data)
    inside = native(b'{"exp":' + data + b"}")
    try:
        unescaped: bytes | None = json_scan.unescape(data)
    except json_scan.JsonRefused:
        unescaped = None
    assert unescaped is None or len(unescaped) <= len(data)
    if not isinstance(found, str):
        for kind, value in found:
            if kind == "array":
                assert isinstance(value, bytes)
                assert all(item_kind != "absent" for item_kind, _ in json_scan.items(value))
            if kind == "object":
                assert isinstance(value, bytes)
                assert not isinstance(native(value), str)
            if kind == "string":
                assert isinstance(value, bytes)
                value.decode()
    draw = zlib.crc32(data) % ORACLE_SHARE
    if draw == 0:
        assert repr(found) == repr(slow(data))
    elif draw == 1:
        assert repr(inside) == repr(slow(b'{"exp":' + data + b"}"))
    kinds = found if isinstance(found, str) else tuple(kind for kind, _ in found)
    return (kinds, inside if isinstance(inside, str) else inside[3][0], unescaped is None)
