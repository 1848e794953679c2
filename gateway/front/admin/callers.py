"""Who administers: programs by tokens of the config, people by their session or an access token."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from starlette.requests import Request

from gateway.errors import GatewayError
from gateway.flows.admin import Administrator, RoleAssignments
from gateway.flows.sessions import Sessions
from gateway.flows.trail import AuditTrail, Caller
from gateway.front.bearers import RETRYABLE, FailureNotes, Judge, KnownTokens, bearer_token, judged, scopes_of
from gateway.stores.directory import Directory

GUARD: Final = "x-portcullis-admin"  # a header that no page of another site can send: it is not asked for by CORS
_SAME_SITE: Final = ("", "same-origin", "none")


class NobodyKnown(GatewayError):
    """No administrator: nothing was sent, or what was sent does not count."""

    code = "invalid_token"
    status = 401


class TokenUnjudged(GatewayError):
    """What is needed to judge an access token cannot be had now."""

    code = "keys_unavailable"
    status = 503
    retry_after_s = 5.0


class AdminCallers:
    """Tells who asks."""

    def __init__(
        self,
        tokens: KnownTokens,
        program_roles: Mapping[str, frozenset[str]],
        roles: RoleAssignments,
        *,
        directory: Directory,
        sessions: Sessions | None,
        cookie: str,
        judge: Judge,
        issuers: frozenset[str],
        own_issuer: str,
        scope: str,
        trail: AuditTrail,
        failures: FailureNotes,
    ) -> None:
        """`issuers`: whose access tokens count, where they have `scope`; `cookie`: the one that sessions have."""
        self._tokens = tokens
        self._program_roles = program_roles
        self._roles = roles
        self._directory = directory
        self._sessions = sessions
        self._cookie = cookie
        self._judge = judge
        self._issuers = issuers
        self._own_issuer = own_issuer
        self._scope = scope
        self._trail = trail
        self._failures = failures

    async def who(self, request: Request, where: Caller) -> Administrator:
        """Give who asks. Raises NobodyKnown, TokenUnjudged and StoreUnavailable."""
        token = bearer_token(request)
        if token is not None:
            name = self._tokens.owner(token)
            if name is not None:
                return Administrator(id=name, kind="program", roles=self._program_roles[name], where=where)
            return await self._of_token(token, where)
        if "authorization" in request.headers:
            raise self._nobody(where, "malformed")
        value = request.cookies.get(self._cookie, "")
        if not value or self._sessions is None:
            raise self._nobody(where, "missing")
        if GUARD not in request.headers or request.headers.get("sec-fetch-site", "") not in _SAME_SITE:
            raise self._nobody(where, "cross_site")
        return await self._of_session(value, where)

    async def _of_session(self, value: str, where: Caller) -> Administrator:
        assert self._sessions is not None
        session = await self._sessions.find(value)
        subject = None if session is None else session.subject
        if session is None or subject is None or subject.tenant != self._roles.tenant or subject.kind != "user":
            raise self._nobody(where, "session")
        if await self._roles.user(subject.id) is None:
            raise self._nobody(where, "inactive", subject.id)
        return Administrator(
            id=subject.id,
            kind="user",
            roles=await self._roles.of_user(subject.id),
            where=where,
            authenticated_s=session.authenticated_s,
            acr=session.acr,
            is_doubtful=session.provisional or session.requires_reauth,
        )

    async def _of_token(self, token: str, where: Caller) -> Administrator:
        claims, reason = await judged(self._judge, token, self._issuers)
        if claims is None and reason in RETRYABLE:
            raise TokenUnjudged("what is needed to judge the token cannot be had now")
        if claims is None:
            raise self._nobody(where, reason)
        if self._scope not in scopes_of(claims):
            raise self._nobody(where, "scope", str(claims.get("sub", "")))
        return await self._of_claims(claims, where)

    async def _of_claims(self, claims: Mapping[str, Any], where: Caller) -> Administrator:
        issuer, subject = str(claims.get("iss", "")), str(claims.get("sub", ""))
        if issuer == self._own_issuer and not subject.startswith("usr_"):
            return Administrator(id=subject, kind="client", roles=self._roles.of_client(subject), where=where)
        if issuer != self._own_issuer:
            user = await self._directory.find_linked(self._roles.tenant, issuer, subject)
        else:
            is_here = claims.get("tenant", "") == self._roles.tenant
            user = await self._roles.user(subject) if is_here else None
        if user is None or not user.active:
            raise self._nobody(where, "inactive", subject)
        auth_time = claims.get("auth_time")
        return Administrator(
            id=user.id,
            kind="user",
            roles=await self._roles.of_user(user.id),
            where=where,
            authenticated_s=float(auth_time) if isinstance(auth_time, int | float) else None,
            acr=str(claims.get("acr", "")),
            is_doubtful=bool(claims.get("provisional") or claims.get("requires_reauth")),
        )

    def _nobody(self, where: Caller, reason: str, actor: str = "") -> NobodyKnown:
        if self._failures.is_due(where.address):
            self._trail.tell("admin.authenticate", "refused", caller=where, actor=actor, reason=reason)
        return NobodyKnown("nobody that administers")
