"""Who may provision: clients of the config by tokens of their own, and whoever has an access token with the scope."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from starlette.requests import Request

from gateway.flows.scim import ScimCaller
from gateway.flows.trail import AuditTrail, Caller
from gateway.front.bearers import RETRYABLE, FailureNotes, Judge, KnownTokens, bearer_token, judged, scopes_of

_INVALID: Final = 'Bearer realm="scim", error="invalid_token"'


@dataclass(frozen=True, slots=True)
class Client:
    """A client of the config."""

    tenant: str
    is_reader: bool


class CallerRefused(Exception):
    """Nobody that may call; `challenge` is the value of WWW-Authenticate."""

    def __init__(self, status: int, detail: str, challenge: str = "") -> None:
        super().__init__(detail)
        self.status = status
        self.challenge = challenge


class ScimCallers:
    """Tells who calls."""

    def __init__(
        self,
        tokens: KnownTokens,
        clients: Mapping[str, Client],
        *,
        judge: Judge,
        issuers: frozenset[str],
        scope: str,
        read_scope: str,
        tenant: str,
        trail: AuditTrail,
        failures: FailureNotes,
    ) -> None:
        """`issuers`: whose access tokens count, where they have a scope; `tenant`: for whom they act."""
        self._tokens = tokens
        self._clients = clients
        self._judge = judge
        self._issuers = issuers
        self._scope = scope
        self._read_scope = read_scope
        self._tenant = tenant
        self._trail = trail
        self._failures = failures

    async def who(self, request: Request, where: Caller) -> ScimCaller:
        """Give who calls. Raises CallerRefused."""
        token = bearer_token(request)
        if token is None:
            raise self._refused(where, "missing", "send a bearer token", 'Bearer realm="scim"')
        name = self._tokens.owner(token)
        if name is not None:
            client = self._clients[name]
            return ScimCaller(name, client.tenant, where, client.is_reader)
        claims, reason = await judged(self._judge, token, self._issuers)
        if claims is None and reason in RETRYABLE:
            raise CallerRefused(503, "what is needed to judge the token cannot be had now")
        if claims is None:
            raise self._refused(where, reason, "the token does not count here", _INVALID)
        return self._of_token(claims, where)

    def _of_token(self, claims: Mapping[str, Any], where: Caller) -> ScimCaller:
        name = str(claims.get("client_id") or claims.get("azp") or claims.get("sub", ""))
        scopes = scopes_of(claims)
        if self._scope in scopes:
            return ScimCaller(name, self._tenant, where)
        if self._read_scope in scopes:
            return ScimCaller(name, self._tenant, where, is_reader=True)
        self._note(where, "scope", name)
        challenge = f'Bearer realm="scim", error="insufficient_scope", scope="{self._scope}"'
        raise CallerRefused(403, f"the token needs the scope `{self._scope}`", challenge)

    def _refused(self, where: Caller, reason: str, detail: str, challenge: str) -> CallerRefused:
        self._note(where, reason, "")
        return CallerRefused(401, detail, challenge)

    def _note(self, where: Caller, reason: str, actor: str) -> None:
        if self._failures.is_due(where.address):
            self._trail.tell("scim.authenticate", "refused", caller=where, actor=actor, reason=reason)
