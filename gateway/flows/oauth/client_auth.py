"""How clients prove who they are: by their secret, by an assertion that they sign, or not at all."""

from __future__ import annotations

import hashlib
import hmac
from dataclasses import dataclass
from typing import Any, Final

import orjson

from gateway._native import base64url
from gateway._native.json_scan import JsonRefused, scan
from gateway.flows.oauth.dpop import FirstUse
from gateway.flows.oauth.errors import OAuthRefused
from gateway.flows.oauth.parties import Client, Parties
from gateway.tokens.jws import verify_jws
from gateway.types import Clock

ASSERTION_TYPE: Final = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"
ASSERTION_BYTES_MAX: Final = 8 * 1024
ASSERTION_S_MAX: Final = 600  # until its `exp`: its `jti` has to be remembered for as long
LEEWAY_S: Final = 30
ASSERTION_ALGORITHMS: Final = (
    "ES256", "ES384", "ES512", "EdDSA", "PS256", "PS384", "PS512", "RS256", "RS384", "RS512"
)  # fmt: skip
_DECOY_HASH: Final = hashlib.sha256(b"no such client").digest()


@dataclass(frozen=True, slots=True, kw_only=True)
class ClientProof:
    """What a request says of its client. None: it says nothing of the kind."""

    basic: tuple[str, str] | None = None  # of an Authorization header
    id: str | None = None  # these are fields of the form
    secret: str | None = None
    assertion_type: str | None = None
    assertion: str | None = None


class ClientAuthentication:
    """Tell which client sends a request, and that it is that client."""

    def __init__(self, parties: Parties, first_use: FirstUse, clock: Clock, *, audiences: tuple[str, ...]) -> None:
        """`audiences`: whom an assertion may be made out to, that is our issuer or the endpoint it is sent to."""
        self._parties = parties
        self._first_use = first_use
        self._clock = clock
        self._audiences = audiences

    async def identify(self, proof: ClientProof) -> Client:
        """Return the client. Raises OAuthRefused `invalid_client`; what is missing is not told (RFC 6749 §5.2)."""
        if sum(each is not None for each in (proof.basic, proof.secret, proof.assertion)) > 1:
            # RFC 6749 §2.3: "The client MUST NOT use more than one authentication method in each request."
            raise OAuthRefused("invalid_request", "more than one way of authentication", reason="client_auth_twice")
        if proof.assertion is not None or proof.assertion_type is not None:
            return await self._by_assertion(proof)
        given = proof.basic or (proof.id or "", proof.secret or "")
        if proof.basic is not None and proof.id not in (None, proof.basic[0]):
            raise OAuthRefused("invalid_request", "client_id names another client", reason="client_id_twice")
        client = await self._parties.find(given[0])
        if client is None:
            _burn(given[1])
            raise _unknown("client_unknown")
        if client.auth == "none":
            if given[1]:
                raise _unknown("client_secret_of_public")
            return client
        if client.auth != "secret" or not client.knows(given[1]):
            raise _unknown("client_secret" if client.auth == "secret" else "client_auth_method")
        return client

    async def _by_assertion(self, proof: ClientProof) -> Client:
        """RFC 7523 §2.2, §3; the audience is the issuer, as its revision asks, or the endpoint's address."""
        if proof.assertion_type != ASSERTION_TYPE or proof.assertion is None:
            raise OAuthRefused("invalid_request", "the client assertion is of an unknown type", reason="assertion_type")
        if len(proof.assertion) > ASSERTION_BYTES_MAX:
            raise _unknown("assertion_malformed")
        claims = _claims_of(proof.assertion)
        client_id = claims.get("sub")
        if not isinstance(client_id, str) or claims.get("iss") != client_id or proof.id not in (None, client_id):
            raise _unknown("assertion_subject")
        client = await self._parties.find(client_id)
        if client is None or client.auth != "private_key_jwt" or client.jwks is None:
            raise _unknown("client_unknown" if client is None else "client_auth_method")
        if not verify_jws(proof.assertion, client.jwks, ASSERTION_ALGORITHMS):
            raise _unknown("assertion_signature")
        expires_s = self._check_claims(claims)
        used = hashlib.sha256(f"{client.id}\0{claims['jti']}".encode()).digest()
        if not await self._first_use(used, expires_s + LEEWAY_S + 1):
            raise _unknown("assertion_replayed")
        return client

    def _check_claims(self, claims: dict[str, Any]) -> int:
        now_s = self._clock.wall_s()
        audience = claims.get("aud")
        named = audience if isinstance(audience, list) else [audience]
        if len(named) != 1 or named[0] not in self._audiences:
            raise _unknown("assertion_audience")
        times = {name: claims.get(name, now_s) for name in ("exp", "nbf", "iat")}
        if any(isinstance(time, bool) or not isinstance(time, int | float) for time in times.values()):
            raise _unknown("assertion_times")
        if "exp" not in claims or not now_s - LEEWAY_S < times["exp"] <= now_s + ASSERTION_S_MAX + LEEWAY_S:
            raise _unknown("assertion_times")
        if max(times["nbf"], times["iat"]) > now_s + LEEWAY_S:
            raise _unknown("assertion_times")
        if not isinstance(claims.get("jti"), str) or not 0 < len(claims["jti"]) <= 256:
            raise _unknown("assertion_jti")
        return int(times["exp"])


def _claims_of(assertion: str) -> dict[str, Any]:
    """Read the claims of what may be no JWT at all; nothing is verified yet."""
    try:
        payload = base64url.decode(assertion.encode("ascii").split(b".")[1])
        scan(payload, (b"sub",))  # refuses members that stand there twice
        claims: dict[str, Any] = orjson.loads(payload)
    except (ValueError, IndexError, JsonRefused):
        raise _unknown("assertion_malformed") from None
    return claims


def _burn(secret: str) -> None:
    """Compare as for a client that there is."""
    hmac.compare_digest(_DECOY_HASH, hashlib.sha256(secret.encode("utf-8", "surrogateescape")).digest())


def _unknown(reason: str) -> OAuthRefused:
    return OAuthRefused("invalid_client", "client authentication failed", reason=reason)
