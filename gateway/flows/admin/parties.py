"""Administrators, and how they come by their roles."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

from gateway.flows.trail import NOBODY, Caller
from gateway.stores.directory import Directory, User


@dataclass(frozen=True, slots=True, kw_only=True)
class Administrator:
    """Who asks. Programs have no proof that could be too old: their secret comes with every request."""

    id: str
    kind: Literal["program", "user", "client"]
    roles: frozenset[str]
    where: Caller = NOBODY
    authenticated_s: float | None = None  # when a user last proved who they are
    acr: str = ""
    is_doubtful: bool = False  # a session that was given provisionally, or that needs a new proof


@dataclass(frozen=True, slots=True)
class RoleOf:
    """Who has a role."""

    role: str
    groups: frozenset[str] = frozenset()  # ids; direct members
    users: frozenset[str] = frozenset()
    clients: frozenset[str] = frozenset()


class RoleAssignments:
    """Gives roles to the people and clients of one tenant."""

    def __init__(self, roles: Sequence[RoleOf], directory: Directory, tenant: str) -> None:
        self._roles = tuple(roles)
        self._directory = directory
        self._needs_groups = any(each.groups for each in roles)
        self.tenant = tenant

    async def user(self, user_id: str) -> User | None:
        """Give a user that may log in: who is inactive administers nothing."""
        user = await self._directory.get_user(self.tenant, user_id)
        return user if user is not None and user.active else None

    async def of_user(self, user_id: str) -> frozenset[str]:
        """Give the roles of a user, by name and by group."""
        groups: Iterable[str] = ()
        if self._needs_groups:
            groups = [group.id for group in await self._directory.groups_of(self.tenant, user_id)]
        return frozenset(each.role for each in self._roles if user_id in each.users or each.groups.intersection(groups))

    def of_client(self, client_id: str) -> frozenset[str]:
        """Give the roles of an OAuth client that acts for itself."""
        return frozenset(each.role for each in self._roles if client_id in each.clients)
