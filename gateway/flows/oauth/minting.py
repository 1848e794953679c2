"""What our tokens say: access tokens by RFC 9068, id tokens by OpenID Connect Core."""

from __future__ import annotations

import base64
import hashlib
import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import orjson

from gateway._native import base64url
from gateway.flows.oauth.context import LevelOf
from gateway.flows.oauth.grants import Approval
from gateway.flows.oauth.parties import Client
from gateway.tokens.issuer_keys import IssuerKeys
from gateway.tokens.jws import verify_jws
from gateway.tokens.own import SIGNING_ALGORITHMS
from gateway.types import Clock

_HASHES: Final[Mapping[str, str]] = {"256": "sha256", "384": "sha384", "512": "sha512"}


@dataclass(frozen=True, slots=True)
class AccessToken:
    """An access token, and what a response says beside it."""

    text: str
    lifetime_s: int
    dpop: bool

    @property
    def type(self) -> str:
        return "DPoP" if self.dpop else "Bearer"


@dataclass(frozen=True, slots=True)
class IdTokenHint:
    """What an id token says of whom it was given to. `sid`: the session, "" = none."""

    subject: str
    client_id: str
    sid: str


class Mint:
    """Make tokens of our issuer."""

    def __init__(
        self,
        issuer: str,
        keys: IssuerKeys,
        clock: Clock,
        *,
        default_audience: str,
        id_token_s: int,
        level: LevelOf = lambda: 0,
    ) -> None:
        """`level`: the degradation level; tokens that are made above 0 say so."""
        self.issuer = issuer
        self._keys = keys
        self._clock = clock
        self._default_audience = default_audience
        self._id_token_s = id_token_s
        self._level = level

    def access_token(
        self, approval: Approval, client: Client, *, family_id: str = "", resources: tuple[str, ...] = (), jkt: str = ""
    ) -> AccessToken:
        """Make an access token (RFC 9068 §2.2). `resources`: a part of those approved; none stands for all of them."""
        now_s = int(self._clock.wall_s())
        audience = resources or approval.resources or (self._default_audience,)
        claims: dict[str, Any] = {
            "iss": self.issuer,
            "sub": approval.subject.id,
            "aud": audience[0] if len(audience) == 1 else list(audience),
            "client_id": client.id,
            "iat": now_s,
            "exp": now_s + client.access_token_s,
            "jti": secrets.token_urlsafe(16),
        }
        if approval.scopes:
            claims["scope"] = " ".join(approval.scopes)
        if family_id:
            claims["sid"] = family_id  # by which the doors refuse all tokens of a family at once
        if approval.subject.tenant:
            claims["tenant"] = approval.subject.tenant
        if jkt:
            claims["cnf"] = {"jkt": jkt}  # RFC 9449 §6.1
        claims |= _authentication(approval)
        level = self._level()
        if level:
            claims["degradation_level"] = level
        return AccessToken(self._keys.sign(claims, typ="at+jwt"), client.access_token_s, bool(jkt))

    def id_token(
        self, approval: Approval, client: Client, access_token: str, profile: Mapping[str, object], *, nonce: str = ""
    ) -> str:
        """Make an id token (OIDC Core §2) for the client of `approval`."""
        now_s = int(self._clock.wall_s())
        claims: dict[str, Any] = {
            **profile,
            "iss": self.issuer,
            "sub": approval.subject.id,
            "aud": client.id,
            "iat": now_s,
            "exp": now_s + self._id_token_s,
            "at_hash": self._half_hash(access_token),
        }
        if approval.session:
            claims["sid"] = public_sid(approval.session)
        if nonce:
            claims["nonce"] = nonce
        return self._keys.sign(claims | _authentication(approval), typ="JWT")

    def read_hint(self, token: str) -> IdTokenHint | None:
        """Read an id token that we once gave, also an old one; None for any other.

        OIDC Core §3.1.2.1 on `id_token_hint`: an id token that "has been issued by the OP", whatever its `exp`.
        """
        if not token or not verify_jws(token, self._keys.jwks(), SIGNING_ALGORITHMS):
            return None
        claims = orjson.loads(base64url.decode(token.encode("ascii").split(b".")[1]))
        if not isinstance(claims, dict) or claims.get("iss") != self.issuer or "at_hash" not in claims:
            return None
        return IdTokenHint(str(claims["sub"]), str(claims["aud"]), str(claims.get("sid", "")))

    def _half_hash(self, text: str) -> str:
        """OIDC Core §3.1.3.6: the left half of the hash that the signature uses; SHA-512 for Ed25519."""
        name = _HASHES.get(self._keys.algorithm[-3:], "sha512")
        digest = hashlib.new(name, text.encode()).digest()
        return _b64(digest[: len(digest) // 2])


def public_sid(origin: bytes) -> str:
    """Return the name by which clients know a session (`sid` of id tokens), of no use to get at it."""
    return _b64(hashlib.sha256(b"portcullis sid\0" + origin).digest()[:16])


def _authentication(approval: Approval) -> dict[str, Any]:
    claims: dict[str, Any] = {}
    if approval.auth_time_s:
        claims["auth_time"] = approval.auth_time_s
    if approval.acr:
        claims["acr"] = approval.acr
    if approval.amr:
        claims["amr"] = list(approval.amr)
    if approval.requires_reauth:
        claims["requires_reauth"] = True
    if approval.provisional:
        claims["provisional"] = True
    return claims


def _b64(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()
