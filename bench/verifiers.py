"""Every library that validates tokens, behind one call: token bytes in, "ok" or "no" out.

Each is set up as its documentation advises for a service that knows its issuer: the key is loaded once; algorithm,
issuer and audience are given; exp is checked.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from typing import Any

import joserfc.jwk
import joserfc.jwt
import jwt
from joserfc.errors import JoseError

from bench.material import AUDIENCE, ISSUER, SECRET, Issuer
from gateway._native.token import IssuerRules, KeySnapshot, TokenValidator
from gateway.tokens.keys import load_jwk

Verifier = Callable[[Any], str]

OURS, PYJWT, JOSERFC, WEBTOKEN, JWTOXIDE = "portcullis", "PyJWT", "joserfc", "webtoken", "jwtoxide"
RUST_BACKED = (WEBTOKEN, JWTOXIDE)


def our_validator(*issuers: Issuer, entries: int = 16_384) -> TokenValidator:
    """Make the compiled validator that the doors use."""
    validator = TokenValidator(entries=entries, ttl_s=3600.0)
    algorithms = tuple(issuer.algorithm for issuer in issuers)
    handles = tuple(handle for issuer in issuers for handle in load_jwk(issuer.jwk, algorithms))
    rules = IssuerRules(ISSUER.encode(), audiences=(AUDIENCE.encode(),), algorithms=algorithms)
    validator.publish(KeySnapshot((rules,), (handles,), (2**40,)))
    return validator


def ours(validator: TokenValidator) -> Verifier:
    """Judge as the doors do, from Python bytes to identity and reason."""
    judge = validator.judge_token
    return lambda token: judge(token)[1]


def pyjwt(issuer: Issuer) -> Verifier:
    """Decode with a prebuilt key."""
    key = jwt.PyJWK(issuer.jwk)
    algorithms = [issuer.algorithm]

    def verify(token: Any) -> str:
        try:
            jwt.decode(token, key, algorithms=algorithms, audience=AUDIENCE, issuer=ISSUER)
        except jwt.InvalidTokenError:
            return "no"
        return "ok"

    return verify


def pyjwt_by_kid(issuer: Issuer) -> Verifier:
    """Find the key by `kid` first, as services with a key set do."""
    keys = {issuer.kid: jwt.PyJWK(issuer.jwk)}
    algorithms = [issuer.algorithm]

    def verify(token: Any) -> str:
        try:
            key = keys.get(jwt.get_unverified_header(token).get("kid", ""))
            if key is None:
                return "no"
            jwt.decode(token, key, algorithms=algorithms, audience=AUDIENCE, issuer=ISSUER)
        except jwt.InvalidTokenError:
            return "no"
        return "ok"

    return verify


def joserfc_verifier(issuer: Issuer) -> Verifier:
    key: Any = joserfc.jwk.import_key(issuer.jwk)  # type: ignore[arg-type]
    algorithms = [issuer.algorithm]
    claims = joserfc.jwt.JWTClaimsRegistry(
        iss={"essential": True, "value": ISSUER}, aud={"essential": True, "value": AUDIENCE}, exp={"essential": True}
    )

    def verify(token: Any) -> str:
        try:
            claims.validate(joserfc.jwt.decode(token.decode(), key, algorithms=algorithms).claims)
        except (JoseError, ValueError):
            return "no"
        return "ok"

    return verify


def webtoken_verifier(issuer: Issuer) -> Verifier:
    import webtoken  # type: ignore[import-untyped,import-not-found,unused-ignore]

    key: Any = SECRET if issuer.private_pem is None else webtoken.PyJWK(issuer.jwk)
    algorithms = [issuer.algorithm]

    def verify(token: Any) -> str:
        try:
            webtoken.decode(token.decode(), key, algorithms=algorithms, audience=AUDIENCE, issuer=ISSUER)
        except webtoken.PyJWTError:
            return "no"
        return "ok"

    return verify


def jwtoxide_verifier(issuer: Issuer) -> Verifier:
    import jwtoxide  # type: ignore[import-not-found,unused-ignore]

    if issuer.private_pem is None:
        key: Any = jwtoxide.DecodingKey.from_secret(SECRET)
    else:
        pem = issuer.public_pem.decode()
        load = {"ES256": "from_ec_pem", "EdDSA": "from_ed_pem"}.get(issuer.algorithm, "from_rsa_pem")
        key = getattr(jwtoxide.DecodingKey, load)(pem)
    options = jwtoxide.ValidationOptions(
        aud={AUDIENCE}, iss={ISSUER}, required_spec_claims={"exp"}, algorithms=[issuer.algorithm]
    )

    def verify(token: Any) -> str:
        try:
            jwtoxide.decode(token.decode(), key, options)
        except jwtoxide.InvalidTokenError:
            return "no"
        return "ok"

    return verify


def others(issuer: Issuer) -> dict[str, Verifier]:
    """Make the verifiers of all other libraries that are installed."""
    found = {PYJWT: pyjwt(issuer), JOSERFC: joserfc_verifier(issuer)}
    if importlib.util.find_spec("webtoken") is not None:
        found[WEBTOKEN] = webtoken_verifier(issuer)
    if importlib.util.find_spec("jwtoxide") is not None:
        found[JWTOXIDE] = jwtoxide_verifier(issuer)
    return found
