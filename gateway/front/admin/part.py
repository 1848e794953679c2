"""The admin API as a part of a worker: made for a config, kept over reloads that do not change it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from starlette.requests import Request
from starlette.responses import Response

from gateway.config import AdminConfig, AuditConfig, DirectoryConfig, OAuthConfig, SessionsConfig, resolve_secret
from gateway.flows.admin import AdminActs, Granted, RoleAssignments, RoleOf
from gateway.flows.admin.acts import ReadAudit
from gateway.flows.admin.rules import read_rules
from gateway.flows.devices import RememberedDevices
from gateway.flows.leaving import Leaving, Revoke
from gateway.flows.sessions import Sessions
from gateway.flows.trail import Auditor, AuditTrail, Caller
from gateway.front.admin.callers import AdminCallers
from gateway.front.admin.endpoints import AdminEndpoints
from gateway.front.bearers import FailureNotes, Judge, KnownTokens
from gateway.resilience import Resilience
from gateway.stores.directory import Directory
from gateway.types import Clock, Subject

if TYPE_CHECKING:
    from gateway.flows.oauth.grants import Family
    from gateway.flows.oauth.parties import Client
    from gateway.flows.oauth.service import OAuthService


@dataclass(frozen=True, slots=True)
class AdminWish:
    """What the admin API is made for."""

    config: AdminConfig
    directory: DirectoryConfig
    sessions: SessionsConfig
    oauth: OAuthConfig
    audit: AuditConfig
    digest: str  # of the whole config
    trusted_proxies: tuple[str, ...]
    around: AdminNeighbours = field(compare=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class AdminNeighbours:
    """What the admin API uses of its worker."""

    resilience: Resilience
    clock: Clock
    auditor: Auditor
    directory: Directory
    leaving: Leaving
    revoke: Revoke
    judge: Judge
    where: Callable[[Request], Caller]
    state: Callable[[], Mapping[str, Any]]
    sessions: Sessions | None = None
    granted: Granted | None = None
    read_audit: ReadAudit | None = None


class OpenedAdmin:
    """The admin API of one config."""

    def __init__(self, wish: AdminWish, *, base_dir: Path) -> None:
        """Raises ValueError for tokens and policies that cannot be used."""
        config, around = wish.config, wish.around
        trail = AuditTrail(around.auditor, around.clock)
        roles = RoleAssignments(
            [
                RoleOf(one.role, frozenset(one.groups), frozenset(one.users), frozenset(one.clients))
                for one in config.roles
            ],
            around.directory,
            config.tenant,
        )
        acts = AdminActs(
            read_rules(config.policies),
            roles,
            directory=around.directory,
            leaving=around.leaving,
            # None is remembered here, and whatever was given to one that is forgotten is ended.
            devices=RememberedDevices(around.directory, around.clock, trail, lifetime_s=0, revoke=around.revoke),
            sessions=around.sessions,
            granted=around.granted,
            read_audit=around.read_audit,
            state=lambda: {**around.state(), "config": wish.digest},
            trail=trail,
            clock=around.clock,
            step_up_s=config.step_up_s,
            acr_values=config.acr_values,
        )
        callers = AdminCallers(
            KnownTokens({one.id: resolve_secret(one.token, base_dir) for one in config.tokens}),
            {one.id: frozenset(one.roles) for one in config.tokens},
            roles,
            directory=around.directory,
            sessions=around.sessions,
            cookie=wish.sessions.cookie,
            judge=around.judge,
            issuers=frozenset(config.issuers or ((wish.oauth.issuer,) if wish.oauth.issuer else ())),
            own_issuer=wish.oauth.issuer,
            scope=config.scope,
            trail=trail,
            failures=FailureNotes(around.clock),
        )
        self._endpoints = AdminEndpoints(
            acts,
            callers,
            resilience=around.resilience,
            where=around.where,
            step_up_s=config.step_up_s,
            acr_values=config.acr_values,
        )

    async def endpoint(self, request: Request) -> Response:
        """Answer a request below `/admin/v1`."""
        return await self._endpoints.endpoint(request)

    async def start(self) -> None:
        """Nothing runs beside requests."""

    async def stop(self) -> None:
        """Nothing runs beside requests."""


class GrantedByUs:
    """What the token service of this gateway tells administrators."""

    def __init__(self, service: OAuthService) -> None:
        self._service = service

    async def clients(self) -> Sequence[Client]:
        """Give the clients of the config, then those that registered themselves."""
        return await self._service.listed_clients()

    async def families_of(self, subject: Subject) -> Sequence[Family]:
        return await self._service.granted_by(subject)

    async def end_family(self, family_id: str) -> bool:
        return await self._service.endings.end_family(family_id)
