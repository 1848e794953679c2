"""What is asked about a token that is out already: whether it holds, whose it is, and that it end."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from gateway.flows.oauth.context import Profiles
from gateway.flows.oauth.dpop import DPoPChecker
from gateway.flows.oauth.endings import Endings
from gateway.flows.oauth.errors import OAuthRefused
from gateway.flows.oauth.families import PREFIX, Families, RefreshRefused
from gateway.flows.oauth.parties import Client
from gateway.flows.trail import AuditTrail, Caller
from gateway.tokens.own import OwnTokens
from gateway.types import Subject


class TokenQuestions:
    """Introspection, revocation and userinfo, of tokens that we made."""

    def __init__(
        self,
        *,
        own: OwnTokens,
        families: Families,
        endings: Endings,
        profiles: Profiles,
        dpop: DPoPChecker,
        trail: AuditTrail,
        issuer: str,
    ) -> None:
        """`dpop` checks proofs that come with access tokens, without a nonce of the token endpoint."""
        self._own = own
        self._families = families
        self._endings = endings
        self._profiles = profiles
        self._dpop = dpop
        self._trail = trail
        self._issuer = issuer

    async def describe(self, token: str, client: Client | None = None) -> Mapping[str, Any] | None:
        """Return the claims of one of our tokens that holds, None for one that does not or is not ours.

        `client`: who may learn only of its own tokens. Of a refresh token the claims are few. Raises StoreUnavailable,
        and OAuthRefused `temporarily_unavailable` while it is not known what is revoked.
        """
        if token.startswith(PREFIX):
            return await self._describe_refresh_token(token, client)
        claims, reason = self._own.judge(token)
        if reason == "keys_unavailable":
            raise OAuthRefused("temporarily_unavailable", "it is not known what is revoked", retry_after_s=5.0)
        if claims is None or (client is not None and claims.get("client_id") != client.id):
            return None
        return {**claims, "token_type": "DPoP" if "cnf" in claims else "Bearer"}

    async def _describe_refresh_token(self, token: str, client: Client | None) -> Mapping[str, Any] | None:
        try:
            family, generation = await self._families.read(token)
        except RefreshRefused:
            return None
        approval = family.approval
        if not self._families.is_current(family, generation) or (client and approval.client_id != client.id):
            return None
        return {
            "iss": self._issuer,
            "sub": approval.subject.id,
            "client_id": approval.client_id,
            "scope": " ".join(approval.scopes),
            "exp": family.ends_s,
            "iat": family.rotated_s,
            "token_type": "refresh_token",  # no bearer token: whoever would take it for one must not
        }

    async def revoke(self, token: str, client: Client, caller: Caller) -> None:
        """End a token of `client` (RFC 7009); one that is over, or nobody's, is ended already. Raises OAuthRefused."""
        if token.startswith(PREFIX):
            try:
                family, _ = await self._families.read(token)
            except RefreshRefused:
                return
            self._check_owner(family.approval.client_id, client, caller)
            await self._endings.end_family(family.id)
            self._tell(client, caller, family.approval.subject.id, "refresh_token")
            return
        claims, reason = self._own.judge(token)
        if reason == "keys_unavailable":
            raise OAuthRefused("temporarily_unavailable", "it is not known what is revoked", retry_after_s=5.0)
        if claims is None:
            return
        self._check_owner(str(claims.get("client_id")), client, caller)
        await self._endings.end_access_token(str(claims["jti"]), int(claims["exp"]))
        self._tell(client, caller, str(claims["sub"]), "access_token")

    async def userinfo(
        self, scheme: str, token: str, proofs: Sequence[str], method: str, url: str
    ) -> Mapping[str, object]:
        """Return what the token's scopes tell of its user (OIDC Core §5.3). Raises OAuthRefused.

        A token that is bound to a key comes under the scheme DPoP, with a proof (RFC 9449 §7.1).
        """
        claims, reason = self._own.judge(token)
        if claims is None:
            if reason == "keys_unavailable":
                raise OAuthRefused("temporarily_unavailable", "it is not known what is revoked", retry_after_s=5.0)
            raise OAuthRefused("invalid_token", "the access token does not hold", reason=reason)
        jkt = key_of(claims)
        if jkt or scheme == "dpop":
            if not jkt or scheme != "dpop":
                raise OAuthRefused("invalid_token", "the token is used under another scheme than its own")
            await self._dpop.check(proofs, method, url, token=token, jkt=jkt)
        scopes = tuple(str(claims.get("scope", "")).split())
        if "openid" not in scopes:
            raise OAuthRefused("insufficient_scope", "the token was not given for `openid`")
        subject = Subject(str(claims.get("tenant", "")), str(claims["sub"]))
        profile = await self._profiles.claims_of(subject, scopes)
        if profile is None:
            raise OAuthRefused("invalid_token", "the user is gone", reason="user_inactive")
        return {**profile, "sub": subject.id}

    def _check_owner(self, client_id: str, client: Client, caller: Caller) -> None:
        if client_id != client.id:
            self._trail.tell("oauth.revoke", "refused", caller=caller, actor=client.id, reason="token_client")
            # RFC 7009 §2.1: "the request is refused and the client is informed of the error".
            raise OAuthRefused("unauthorized_client", "the token was given to another client", reason="token_client")

    def _tell(self, client: Client, caller: Caller, target: str, kind: str) -> None:
        self._trail.tell(
            "oauth.revoke", "success", caller=caller, tenant=client.tenant, actor=client.id, target=target, kind=kind
        )


def key_of(claims: Mapping[str, Any]) -> str:
    """Return the thumbprint of the key that a token is bound to, "" for a bearer token."""
    confirmation = claims.get("cnf")
    return str(confirmation.get("jkt", "")) if isinstance(confirmation, dict) else ""
