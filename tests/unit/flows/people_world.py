"""A directory in a file, sessions in memory, and what ends them: the ground on which SCIM and administration stand."""

from __future__ import annotations

from pathlib import Path

from gateway.flows.leaving import Leaving
from gateway.flows.trail import AuditTrail
from gateway.stores import open_directory
from gateway.stores.base import RevocationKind
from gateway.stores.directory import Tenant
from gateway.types import Subject
from tests.contract.test_directory import Rot
from tests.unit.flows.test_sessions import World

ISSUER = "https://auth.test"


class PeopleWorld(World):
    """What both have in common; `close` at the end."""

    def __init__(self, folder: Path) -> None:
        super().__init__()
        self.directory = open_directory("", folder, Rot())
        self.revoked: list[tuple[str, str, str]] = []
        self.ended: list[Subject] = []
        self.trail = AuditTrail(self, self.clock)
        self.leaving = Leaving(
            self.directory,
            self._revoke,
            clock=self.clock,
            sessions=self.sessions,
            end_grants=self._end_grants,
            issuer=ISSUER,
        )

    async def open(self, tenant: str = "") -> None:
        await self.directory.put_tenant(Tenant(tenant, tenant))

    async def close(self) -> None:
        await self.directory.close()

    async def _revoke(
        self, kind: RevocationKind, issuer: str, value: str, *, until_s: int, issued_before_s: int = 0
    ) -> None:
        assert until_s > issued_before_s > self.clock.wall_s()
        self.revoked.append((kind, issuer, value))

    async def _end_grants(self, subject: Subject) -> int:
        self.ended.append(subject)
        return 0
