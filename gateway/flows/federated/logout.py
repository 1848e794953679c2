"""Sessions that end because a provider says so: OpenID Connect Back-Channel Logout 1.0."""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Final

from gateway.errors import AlreadyExists
from gateway.flows.federated.accounts import Accounts
from gateway.flows.federated.bindings import hash_of, text_of
from gateway.flows.federated.errors import SSORefused
from gateway.flows.federated.provider import Provider
from gateway.flows.sessions import Sessions
from gateway.flows.trail import Caller
from gateway.stores.directory import User
from gateway.stores.grants import Grant, TokenStore
from gateway.types import Clock, Subject

PROVIDER: Final = "idp"  # attribute of a session: the id of the provider
PROVIDER_SESSION: Final = "idp_sid"  # and what stands for its session there
LOGOUT_EVENT: Final = "http://schemas.openid.net/event/backchannel-logout"
LOGOUT_AGE_S_MAX: Final = 300  # of a logout token


class ProviderLogouts:
    """Knows whose a provider's sessions are, and ends those that began there."""

    def __init__(
        self, *, accounts: Accounts, sessions: Sessions, grants: TokenStore, clock: Clock, session_s: int
    ) -> None:
        """`session_s`: how long our sessions last at most."""
        self._accounts = accounts
        self._sessions = sessions
        self._grants = grants
        self._clock = clock
        self._session_s = session_s

    def check(self, provider: Provider, claims: Mapping[str, Any]) -> None:
        """Raise SSORefused for verified claims that are none of a logout token, or are old."""
        events, now_s = claims.get("events"), self._clock.wall_s()
        if not isinstance(events, dict) or not isinstance(events.get(LOGOUT_EVENT), dict) or "nonce" in claims:
            raise SSORefused("token_kind")
        if not isinstance(claims.get("sub", ""), str) or not isinstance(claims.get("sid", ""), str):
            raise SSORefused("token_subject")
        if not claims.get("sub") and not claims.get("sid"):
            raise SSORefused("token_subject")
        issued_s, token_id = claims.get("iat"), claims.get("jti")
        leeway_s = provider.config.leeway_s
        if not isinstance(issued_s, int | float) or abs(now_s - issued_s) > LOGOUT_AGE_S_MAX + leeway_s:
            raise SSORefused("token_age")
        if not isinstance(token_id, str) or not token_id:
            raise SSORefused("token_id")

    async def use(self, provider: Provider, claims: Mapping[str, Any]) -> None:
        """Note that a logout token was here. Raises SSORefused where it was before."""
        now_s, leeway_s, token_id = self._clock.wall_s(), provider.config.leeway_s, claims["jti"]
        used = Grant(
            kind="assertion",
            key=hash_of(f"logout\0{provider.id}\0{provider.issuer}\0{token_id}"),
            tenant=provider.config.tenant,
            expires_s=int(now_s) + 2 * (LOGOUT_AGE_S_MAX + leeway_s),
            body={"by": secrets.token_bytes(8)},  # a store takes the very same grant twice, for a call that is repeated
        )
        try:
            await self._grants.keep(used)
        except AlreadyExists:
            raise SSORefused("token_replayed") from None

    async def end(
        self, provider: Provider, claims: Mapping[str, Any], caller: Caller, *, before_s: float | None = None
    ) -> int:
        """End the sessions that a logout token names, but those that were begun after `before_s`."""
        sid, subject = claims.get("sid", ""), await self._subject_of(provider, claims)
        if subject is None:
            return 0
        wanted = short_of(sid) if sid else ""
        ended = 0
        for session in await self._sessions.list_of(subject):
            attributes = session.attributes
            if before_s is not None and session.created_s > before_s:
                continue
            if attributes.get(PROVIDER) == provider.id and wanted in ("", attributes.get(PROVIDER_SESSION)):
                gone = await self._sessions.end_hash(
                    session.id_hash, reason="back_channel_logout", actor=provider.issuer, caller=caller
                )
                ended += gone is not None
        return ended

    async def remember(self, provider: Provider, claims: Mapping[str, Any], user: User) -> None:
        """Keep whose the provider's session is: a logout token may name the session alone."""
        sid = claims.get("sid")
        if not isinstance(sid, str) or not sid:
            return
        key = _key(provider, sid)
        grant = Grant(
            kind="sso_state",
            key=key,
            tenant=provider.config.tenant,
            expires_s=int(self._clock.wall_s()) + self._session_s,
            subject=Subject(user.tenant, user.id),
        )
        try:
            await self._grants.keep(grant)
        except AlreadyExists:  # the same session there, another log-in here
            former = await self._grants.look("sso_state", key)
            if former is not None and former.subject == grant.subject:
                await self._grants.change(replace(grant, version=former.version + 1), former.version)

    async def _subject_of(self, provider: Provider, claims: Mapping[str, Any]) -> Subject | None:
        if claims.get("sub"):
            user = await self._accounts.linked(provider.config, claims["sub"])
            return None if user is None else Subject(user.tenant, user.id)
        grant = await self._grants.look("sso_state", _key(provider, claims["sid"]))
        return None if grant is None else grant.subject


def _key(provider: Provider, sid: str) -> bytes:
    return hash_of(f"sid\0{provider.id}\0{provider.issuer}\0{sid}")


def short_of(sid: str) -> str:
    """Return what stands for a session there in a session here, which has little room."""
    return text_of(hash_of(sid)[:16])
