"""A pytest plugin under which PyJWT's own tests judge our verifier: its classes give their answers, ours the verdicts.

What a token says is handed back as PyJWT read it; whether it may be believed is decided by `gateway._native` alone.
PyJWT judges tokens without `iss` and `exp`, which we never do: where the tests leave these out (and do not ask for
them), they are added to the payload that our judge reads, and the signature is checked over what was really signed.

Used by test_pyjwt_suite.py in a process of its own; never imported elsewhere.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import time
from collections.abc import Callable, Container, Iterable
from datetime import timedelta
from typing import Any

import jwt
import jwt.api_jws
import jwt.api_jwt
import pytest
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from jwt import exceptions

from gateway._native import base64url
from gateway._native.token import IssuerRules, KeySnapshot, TokenValidator
from gateway._native.verify import ALGORITHMS, KeyHandle

SOMEBODY = "https://somebody.example.com"
NOBODY = b"nobody"
EXCEPTIONS: dict[str, type[Exception]] = {
    "malformed": exceptions.DecodeError,
    "too_large": exceptions.DecodeError,
    "header_invalid": exceptions.InvalidTokenError,
    "algorithm": exceptions.InvalidAlgorithmError,
    "kid_unknown": exceptions.InvalidAlgorithmError,
    "type": exceptions.InvalidTokenError,
    "issuer_unknown": exceptions.InvalidIssuerError,
    "expired": exceptions.ExpiredSignatureError,
    "issued_in_future": exceptions.ImmatureSignatureError,
    "not_yet_valid": exceptions.ImmatureSignatureError,
    "audience": exceptions.InvalidAudienceError,
    "sender_constrained": exceptions.InvalidTokenError,
    "signature": exceptions.InvalidSignatureError,
}
BY_CLAIM: dict[str, type[Exception]] = {
    "exp": exceptions.DecodeError,
    "nbf": exceptions.DecodeError,
    "iat": exceptions.InvalidIssuedAtError,
    "iss": exceptions.InvalidIssuerError,
    "aud": exceptions.InvalidAudienceError,
    "sub": exceptions.InvalidSubjectError,
    "jti": exceptions.InvalidJTIError,
}


def key_handle(key: Any, algorithm: str) -> KeyHandle:
    """Return our handle of a key as PyJWT prepared it. Secrets that are too short for us go through hmac."""
    if isinstance(key, bytes):
        try:
            return KeyHandle(b"", algorithm, secret=key)
        except ValueError:
            digest = getattr(hashlib, f"sha{algorithm[2:]}")
            return KeyHandle(
                b"",
                algorithm,
                python_verify=lambda signature, signed: hmac.compare_digest(
                    hmac.new(key, signed, digest).digest(), signature
                ),
            )
    public = key.public_key() if hasattr(key, "public_key") else key
    return KeyHandle(b"", algorithm, spki=public.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo))


def reason_of(
    jws: jwt.PyJWS, token: str | bytes, key: Any, algorithms: Iterable[str] | None, payload: bytes | None, **rules: Any
) -> str:
    """Judge `token`, with `payload` in the place of its own (None: its own)."""
    text = token.encode() if isinstance(token, str) else token
    segments = text.split(b".")
    handles: list[KeyHandle] = []
    if len(segments) == 3:
        signed = segments[0] + b"." + segments[1]
        if payload is not None:
            try:
                base64url.decode(segments[1])
            except ValueError:
                return "malformed"
            segments[1] = base64.urlsafe_b64encode(payload).rstrip(b"=")
        name = algorithm_named(segments[0])
        if isinstance(key, jwt.PyJWK):
            algorithms = algorithms or [key.algorithm_name]
            if name == key.algorithm_name and name in ALGORITHMS:
                handles = [bridge(key_handle(key.key, name), signed)]
        elif name in ALGORITHMS and name in (algorithms or ()):
            handles = [bridge(key_handle(jws.get_algorithm_by_name(name).prepare_key(key), name), signed)]
    known = [one for one in algorithms or () if one in ALGORITHMS[1:]]
    if not known:
        return "algorithm"
    issuers = rules.pop("issuers", (SOMEBODY,))
    validator = TokenValidator(entries=0, token_bytes_max=1 << 20)
    validator.publish(
        KeySnapshot(
            [IssuerRules(issuer.encode(), algorithms=known, **rules) for issuer in issuers],
            [handles for _ in issuers],
            [2**61 for _ in issuers],
        )
    )
    return validator.judge_token(b".".join(segments), int(time.time()))[1]


def algorithm_named(header: bytes) -> str | None:
    try:
        name = json.loads(base64url.decode(header))["alg"]
    except (ValueError, LookupError, TypeError, RecursionError):
        return None
    return name if isinstance(name, str) else None


def bridge(handle: KeyHandle, signed: bytes) -> KeyHandle:
    """Return a handle that verifies what was really signed, whatever payload the judge reads."""
    return KeyHandle(b"", handle.algorithm, python_verify=lambda signature, _: handle.verify(signed, signature))


def verdict(theirs: Any, told: Any, ours: Exception | None) -> Any:
    """Return or raise what our verdict means. Where both refuse by the same class, PyJWT's own text is raised."""
    if ours is None:
        return told
    raise theirs if type(theirs) is type(ours) else ours


class OurPyJWS(jwt.PyJWS):
    def decode_complete(  # type: ignore[override]
        self, token: Any, key: Any = "", algorithms: Any = None, options: Any = None, *rest: Any, **named: Any
    ) -> Any:
        theirs = outcome(super().decode_complete, token, key, algorithms, options, *rest, **named)
        merged = {**self.options, **(options or {})} if options is None or isinstance(options, dict) else {}
        if not merged.get("verify_signature") or (not algorithms and not isinstance(key, jwt.PyJWK)):
            return answered(theirs)
        if not isinstance(token, str | bytes):  # a mistake of the caller, not of a token
            return answered(theirs)
        if "detached_payload" in named:
            rest = (named["detached_payload"],)
        told = outcome(super().decode_complete, token, key, algorithms, {**merged, "verify_signature": False}, *rest)
        claims = json.dumps({"iss": SOMEBODY, "exp": int(time.time()) + 60}).encode()
        reason = reason_of(self, token, key, algorithms, claims, audiences=(), any_audience=True)
        ours = None if reason == "ok" else EXCEPTIONS[reason](f"refused by us: {reason}")
        return answered(verdict(theirs, told, ours))


class OurPyJWT(jwt.PyJWT):
    def decode_complete(  # type: ignore[override]
        self,
        token: Any,
        key: Any = "",
        algorithms: Any = None,
        options: Any = None,
        verify: Any = None,
        detached_payload: Any = None,
        audience: Any = None,
        issuer: Any = None,
        subject: Any = None,
        leeway: Any = 0,
        **named: Any,
    ) -> Any:
        given = (token, key, algorithms, options, verify, detached_payload, audience, issuer, subject, leeway)
        theirs = outcome(super().decode_complete, *given, **named)
        if isinstance(theirs, TypeError) or not isinstance(token, str | bytes):
            return answered(theirs)  # a mistake of the caller, not of a token
        if any(not isinstance(one, str) for one in audience or ()):
            return answered(theirs)
        merged: Any = self._merge_options(options)
        if not merged["verify_signature"] or (not algorithms and not isinstance(key, jwt.PyJWK)):
            return answered(theirs)
        unverified: Any = {**merged, "verify_signature": False, "require": []}
        unverified |= {name: False for name in merged if name.startswith("verify_")}
        told = answered(outcome(super().decode_complete, token, key, algorithms, unverified, None, detached_payload))
        claims = told["payload"]
        seen, rules = translated(claims, merged, audience, issuer, leeway)
        reason = reason_of(self._jws, token, key, algorithms, seen, **rules)
        ours = None if reason == "ok" else self.exception(reason, claims, merged)
        if ours is None and merged["verify_sub"] and subject is not None and claims.get("sub", subject) != subject:
            ours = exceptions.InvalidSubjectError("the caller's own wish")
        if ours is None and merged.get("strict_aud") and not (isinstance(audience, str) and claims["aud"] == audience):
            ours = exceptions.InvalidAudienceError("the caller's own wish")
        return verdict(theirs, told, ours)

    def exception(self, reason: str, claims: dict[str, Any], merged: Any) -> Exception:
        if reason == "audience" and not claims.get("aud"):
            return exceptions.MissingRequiredClaimError("aud")
        if reason == "claim_missing":
            missing = [name for name in (*merged["require"], "iss", "exp") if claims.get(name) is None]
            return exceptions.MissingRequiredClaimError(missing[0])
        if reason == "claim_invalid":
            return BY_CLAIM[self.odd_claim(claims)]("refused by us: claim_invalid")
        return EXCEPTIONS[reason](f"refused by us: {reason}")

    def odd_claim(self, claims: dict[str, Any]) -> str:
        """Return which claim is of the wrong type: for the exception's class only."""
        for name in ("exp", "iat", "nbf"):
            if name in claims and (isinstance(claims[name], bool) or not isinstance(claims[name], int | float)):
                return name
        for name in ("iss", "sub", "jti"):
            if name in claims and not isinstance(claims[name], str):
                return name
        return "aud"


def outcome(call: Callable[..., Any], *given: Any, **named: Any) -> Any:
    """Return what `call` returns or raises."""
    try:
        return call(*given, **named)
    except Exception as error:
        return error


def answered(theirs: Any) -> Any:
    if isinstance(theirs, Exception):
        raise theirs
    return theirs


def translated(
    claims: dict[str, Any], merged: Any, audience: Any, issuer: Any, leeway: float | timedelta
) -> tuple[bytes | None, dict[str, Any]]:
    """Return the payload that our judge reads (None: the token's own), and the rules that PyJWT's arguments mean."""
    seen = {name: value for name, value in claims.items() if merged.get(f"verify_{name}", True)}
    required = [name for name in merged["require"] if name not in ("exp", "iss")]
    if "exp" not in seen and ("exp" not in merged["require"] or "exp" in claims):
        seen["exp"] = int(time.time()) + 3600
    issuers: tuple[str, ...]
    if issuer is None or not merged["verify_iss"]:
        issuers = (SOMEBODY,)
        if "iss" not in merged["require"] or "iss" in claims:
            seen["iss"] = SOMEBODY
    elif isinstance(issuer, str):
        issuers = (issuer,)
    elif isinstance(issuer, Iterable):
        issuers = tuple(issuer)
    elif isinstance(issuer, Container) and claims.get("iss") in issuer:
        issuers = (claims["iss"],)
    else:
        issuers = (SOMEBODY,)
    if isinstance(leeway, timedelta):
        leeway = leeway.total_seconds()
    wanted = (audience,) if isinstance(audience, str) else tuple(audience or ())
    rules = {
        "issuers": issuers,
        "audiences": tuple(one.encode() for one in wanted) or (NOBODY,),
        "any_audience": not merged["verify_aud"] or (audience is None and not claims.get("aud")),
        "leeway_s": int(leeway),
        "required_claims": tuple(name.encode() for name in required),
    }
    return None if seen == claims else json.dumps(seen).encode(), rules


def pytest_configure(config: pytest.Config) -> None:
    jwt.api_jws.PyJWS = OurPyJWS  # type: ignore[misc]
    jwt.api_jwt.PyJWT = OurPyJWT  # type: ignore[misc]
    jwt.PyJWS = OurPyJWS  # type: ignore[misc]
    jwt.PyJWT = OurPyJWT  # type: ignore[misc]
