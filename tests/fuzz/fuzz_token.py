"""Tokens of a stranger: raw ones, and ones that we sign, so that the fuzzer gets past the signature.

An input is one byte, then a raw token (even byte), or header, 0xFF and payload (odd byte), which get base64url and an
HMAC. The judge must agree with itself, new, known and in a batch, and with the oracle on a share of the inputs.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import zlib
from collections.abc import Iterable
from typing import Any

from gateway._native.token import Identity, IssuerRules, KeySnapshot, TokenValidator
from gateway._native.verify import KeyHandle
from tests.oracle import token as oracle

NOW_S = 1_800_000_000
HOME = "https://idp.example.com"
AWAY = "https://other.example.com/ü"
SECRET = b"k" * 64
MAPPED = ("name", "roles", "deep")
ORACLE_SHARE = 4
LENGTH_MAX = 9000
EXPIRY_SHOWN_MAX_S = 2**60  # Identity.expires_at_s shows a later `exp` as this
WORDS = (
    b"none", b"HS256", b"RS256", b'"alg":', b'"kid":', b'"typ":', b'"crit":["b64"]', b'"b64":false', b'"zip":"DEF"',
    b'"jku":', b'"exp":', b'"nbf":', b'"iat":', b'"iss":', b'"aud":', b'"sub":', b'"cnf":{}', b'"jti":', b'"scope":',
    b'"scp":[]', b"1800000000", b"1799999970", b"1e400", b"-1", b"null", b"true", b"[]", b"{}", b"\xff", b".",
    b"..", b"=", b"eyJ", b"\\u0000", b"\\n", b'"a b"',
)  # fmt: skip


def _check(signed: bytes, signature: bytes) -> bool:
    return hmac.new(SECRET, signed, hashlib.sha256).digest() == signature


KEY = oracle.Key("one", "HS256", _check)
WORLD = oracle.World(
    (
        oracle.Issuer(HOME, ("api",), keys=(KEY,)),
        oracle.Issuer(AWAY, any_audience=True, required_claims=("sub",), allow_sender_constrained=True, opaque=True),
    ),
    MAPPED,
)


def _validator() -> TokenValidator:
    headers = [(b"x-claim-%d" % i, name.encode()) for i, name in enumerate(MAPPED)]
    validator = TokenValidator(entries=64, structures=16, header_claims=headers)
    rules = [
        IssuerRules(
            issuer.name.encode(),
            audiences=[one.encode() for one in issuer.audiences],
            any_audience=issuer.any_audience,
            algorithms=issuer.algorithms,
            required_claims=[one.encode() for one in issuer.required_claims],
            allow_sender_constrained=issuer.allow_sender_constrained,
            opaque=issuer.opaque,
        )
        for issuer in WORLD.issuers
    ]
    handle = KeyHandle(KEY.kid.encode(), KEY.algorithm, secret=SECRET)
    validator.publish(KeySnapshot(rules, [[handle], []], [issuer.usable_until_s for issuer in WORLD.issuers]))
    return validator


VALIDATOR = _validator()


def b64(data: bytes) -> bytes:
    return base64.urlsafe_b64encode(data).rstrip(b"=")


def sign(header: bytes, payload: bytes) -> bytes:
    signed = b64(header) + b"." + b64(payload)
    return signed + b"." + b64(hmac.digest(SECRET, signed, "sha256"))


def seeds() -> Iterable[bytes]:
    header = b'{"alg":"HS256","kid":"one","typ":"JWT"}'
    claims: dict[str, Any] = {
        "iss": HOME,
        "sub": "alice",
        "aud": ["api"],
        "exp": NOW_S + 300,
        "iat": NOW_S - 5,
        "jti": "1",
    }
    more: list[dict[str, Any]] = [
        {},
        {"scope": "a b", "name": "é", "roles": ["x", {"y": 1}], "deep": {"a": [1.5, None]}},
        {"aud": "api", "nbf": NOW_S, "sid": "s", "exp": NOW_S + 0.5},
        {"iss": AWAY, "cnf": {"jkt": "x"}},
        {"exp": NOW_S - 31},
        {"cnf": {}},
    ]
    for change in more:
        payload = json.dumps({**claims, **change}).encode()
        yield b"\x01" + header + b"\xff" + payload
        yield b"\x00" + sign(header, payload)
    yield b"\x01" + b'{"alg":"none"}' + b"\xff" + json.dumps(claims).encode()
    yield b"\x00opaque-token"
    yield b"\x00a.b.c.d.e"


def as_verdict(identity: Identity | None, reason: str) -> oracle.Verdict:
    if identity is None:
        return oracle.Verdict(reason)
    return oracle.Verdict(
        reason,
        identity.issuer.decode(),
        identity.subject.decode(),
        tuple(scope.decode() for scope in identity.scopes),
        tuple(value for _, value in identity.headers[3:]),
        identity.expires_at_s,
    )


def target(data: bytes) -> object:
    token = data[1:]
    if data[:1] and data[0] & 1:
        header, _, payload = token.partition(b"\xff")
        token = sign(header, payload)
    new = as_verdict(*VALIDATOR.judge_token(token, NOW_S))
    known = as_verdict(*VALIDATOR.judge_token(token, NOW_S))
    assert new == known
    assert VALIDATOR.judge_batch([token], NOW_S) == [new.reason]
    if zlib.crc32(data) % ORACLE_SHARE == 0:
        slow = oracle.judge(WORLD, token, NOW_S)
        slow.expires_at_s = min(slow.expires_at_s, EXPIRY_SHOWN_MAX_S)
        assert new == slow
    return new.reason, bool(new.scopes), tuple(bool(value) for value in new.mapped)
