"""SCIM over a real directory, with a clock that tests move."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from scim2_models import Error

from gateway.errors import GatewayError
from gateway.flows.scim import Asked, BulkService, Reply, ScimCaller, ScimLimits, ScimService
from gateway.flows.scim.filters import Kind
from tests.unit.flows.people_world import PeopleWorld

BASE = "https://auth.test/scim/v2"
USER = "urn:ietf:params:scim:schemas:core:2.0:User"
GROUP = "urn:ietf:params:scim:schemas:core:2.0:Group"
ENTERPRISE = "urn:ietf:params:scim:schemas:extension:enterprise:2.0:User"
PATCH = "urn:ietf:params:scim:api:messages:2.0:PatchOp"
BULK = "urn:ietf:params:scim:api:messages:2.0:BulkRequest"
HR = ScimCaller("hr", "")


class Passwords:
    """Keeps passwords as they are."""

    def __init__(self) -> None:
        self.kept: dict[str, str] = {}

    async def prepare(self, password: str, user_name: str) -> str:
        if len(password) < 8:
            raise ValueError("it is too short")
        return f"hash of {password}"

    async def keep(self, user_id: str, made: str) -> None:
        self.kept[user_id] = made


class ScimWorld(PeopleWorld):
    """A service with small limits."""

    def __init__(self, folder: Path, limits: ScimLimits | None = None) -> None:
        super().__init__(folder)
        self.limits = limits or ScimLimits()
        self.passwords = Passwords()
        self.service = ScimService(
            self.directory,
            self.leaving,
            base_url=BASE,
            limits=self.limits,
            clock=self.clock,
            trail=self.trail,
            passwords=self.passwords,
        )
        self.turns = 0
        self.bulk = BulkService(
            self.service, limits=self.limits, clock=self.clock, refusal=_refusal, turn=self._take_turn
        )

    async def _take_turn(self) -> None:
        self.turns += 1

    async def user(self, name: str, **more: Any) -> dict[str, Any]:
        """Add a user; give it as it was answered."""
        reply = await self.service.create("User", {"schemas": [USER], "userName": name, **more}, HR)
        assert reply.body is not None
        return reply.body

    async def group(self, name: str, *members: str) -> dict[str, Any]:
        payload = {"schemas": [GROUP], "displayName": name, "members": [{"value": each} for each in members]}
        reply = await self.service.create("Group", payload, HR)
        assert reply.body is not None
        return reply.body

    async def get(self, kind: Kind, resource_id: str, **parameters: str) -> dict[str, Any]:
        reply = await self.service.get(kind, resource_id, HR, Asked(parameters))
        assert reply.body is not None
        return reply.body

    async def patch(self, kind: Kind, resource_id: str, *operations: dict[str, Any], if_match: str = "") -> Reply:
        payload = {"schemas": [PATCH], "Operations": list(operations)}
        return await self.service.patch(kind, resource_id, payload, HR, Asked(if_match=if_match))

    async def search(self, kind: Kind, **parameters: Any) -> dict[str, Any]:
        reply = await self.service.reader.search(kind, parameters, HR)
        assert reply.body is not None
        return reply.body

    async def found(self, kind: Kind, text: str) -> list[str]:
        """Give the names of what a filter finds, in order."""
        page = await self.search(kind, filter=text)
        name = "userName" if kind == "User" else "displayName"
        return sorted(each[name] for each in page["Resources"])


def _refusal(error: GatewayError) -> Error:
    return Error(status=error.status, detail=error.code)
