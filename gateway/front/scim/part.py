"""SCIM as a part of a worker: made for a config, kept over reloads that do not change it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from starlette.requests import Request
from starlette.routing import Route

from gateway.config import DirectoryConfig, LoginConfig, ScimConfig, SessionsConfig, resolve_secret
from gateway.flows.leaving import Leaving
from gateway.flows.password import PasswordHasher
from gateway.flows.scim import BulkService, Discovery, ScimLimits, ScimService
from gateway.flows.scim.passwords import DirectoryPasswords
from gateway.flows.scim.reading import warm_up
from gateway.flows.trail import Auditor, AuditTrail, Caller
from gateway.front.bearers import FailureNotes, Judge, KnownTokens
from gateway.front.login.part import hash_parameters, password_rules
from gateway.front.scim.callers import Client, ScimCallers
from gateway.front.scim.endpoints import PREFIX, ScimEndpoints, refusal_of
from gateway.front.scim.pace import Pace
from gateway.resilience import Resilience
from gateway.stores.directory import Directory
from gateway.types import Clock

HASHING_S: Final = 0.25  # that an operation waits at most while every core computes a hash for somebody who logs in


@dataclass(frozen=True, slots=True)
class ScimWish:
    """What SCIM is made for."""

    config: ScimConfig
    login: LoginConfig  # what passwords have to be
    directory: DirectoryConfig
    sessions: SessionsConfig
    issuer: str  # of our own tokens; "" = there are none
    trusted_proxies: tuple[str, ...]
    body_timeout_s: float
    around: ScimNeighbours = field(compare=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class ScimNeighbours:
    """What SCIM uses of its worker."""

    resilience: Resilience
    clock: Clock
    auditor: Auditor
    directory: Directory
    leaving: Leaving
    judge: Judge
    where: Callable[[Request], Caller]


class OpenedScim:
    """SCIM of one config: its endpoints."""

    def __init__(self, wish: ScimWish, *, base_dir: Path) -> None:
        """Raises ValueError for a token that cannot be used."""
        config, around = wish.config, wish.around
        warm_up()
        limits = limits_of(config)
        trail = AuditTrail(around.auditor, around.clock)
        base_url = config.base_url.rstrip("/") + PREFIX
        hasher = PasswordHasher(around.resilience.hashing.run, hash_parameters(wish.login))
        passwords = DirectoryPasswords(around.directory, hasher, password_rules(wish.login, base_dir), around.clock)
        service = ScimService(
            around.directory,
            around.leaving,
            base_url=base_url,
            limits=limits,
            clock=around.clock,
            trail=trail,
            passwords=passwords,
        )
        callers = ScimCallers(
            KnownTokens({client.id: resolve_secret(client.token, base_dir) for client in config.clients}),
            {one.id: Client(one.tenant or config.tenant, one.read_only) for one in config.clients},
            judge=around.judge,
            issuers=frozenset(config.issuers or ((wish.issuer,) if wish.issuer else ())),
            scope=config.scope,
            read_scope=config.read_scope,
            tenant=config.tenant,
            trail=trail,
            failures=FailureNotes(around.clock),
        )
        pace = Pace(config.per_second, around.clock)

        async def turn() -> None:
            await asyncio.sleep(pace.take())
            await around.resilience.hashing.spare(HASHING_S)

        self._endpoints = ScimEndpoints(
            service,
            BulkService(service, limits=limits, clock=around.clock, refusal=refusal_of, turn=turn),
            Discovery(limits, base_url=base_url, passwords=service.keeps_passwords),
            callers,
            limits=limits,
            resilience=around.resilience,
            pace=pace,
            turn=turn,
            where=around.where,
            body_timeout_s=wish.body_timeout_s,
        )

    def routes(self) -> list[Route]:
        """Return the routes."""
        return self._endpoints.routes()

    async def start(self) -> None:
        """Nothing runs beside requests."""

    async def stop(self) -> None:
        """Nothing runs beside requests."""


def limits_of(config: ScimConfig) -> ScimLimits:
    """Give what a config lets one request ask for."""
    return ScimLimits(
        body_bytes=config.body_bytes_max,
        bulk_operations=config.bulk_max,
        page=config.page_max,
        filter_bytes=config.filter_bytes_max,
        filter_terms=config.filter_terms_max,
        filter_depth=config.filter_depth_max,
        scan=config.scan_max,
    )
