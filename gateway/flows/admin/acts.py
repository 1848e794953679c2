"""All that administrators do. Each act is decided by the rules, then done, then told to the audit log."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any, Final, Protocol

from gateway.errors import VersionConflict
from gateway.flows.admin.parties import Administrator, RoleAssignments
from gateway.flows.admin.refusals import AdminRefused, NothingThere, StepUpNeeded
from gateway.flows.admin.rules import ACTIONS, CHANGES, AdminRules
from gateway.flows.admin.shapes import (
    audit_shape,
    client_shape,
    device_shape,
    family_shape,
    session_shape,
    user_shape,
)
from gateway.flows.devices import RememberedDevices
from gateway.flows.leaving import Leaving
from gateway.flows.oauth.grants import Family
from gateway.flows.oauth.parties import Client
from gateway.flows.sessions import Sessions
from gateway.flows.strength import meets
from gateway.flows.trail import AuditTrail
from gateway.stores.audit_log import AuditEntry
from gateway.stores.directory import Condition, Directory, User
from gateway.types import Clock, Session, Subject

ATTEMPTS: Final = 5  # at a change that somebody else was faster with
AUDIT_LOOKED_AT_MAX: Final = 50_000  # entries for one answer
ENTRIES_MAX: Final = 1000  # of one answer


class Granted(Protocol):
    """What the token service tells administrators, and ends for them."""

    async def clients(self) -> Sequence[Client]:
        """Give the clients that registered, and those of the config."""

    async def families_of(self, subject: Subject) -> Sequence[Family]:
        """Give what a user has granted and what is not over."""

    async def end_family(self, family_id: str) -> bool:
        """End what a client was granted; tell whether it was this call."""


ReadAudit = Callable[[str, int], AsyncIterator[AuditEntry]]
"""Reads the audit log: entries of a chain, or of all, from the one after a number on."""


class AdminActs:
    """Raises AdminRefused, StepUpNeeded, NothingThere, and StoreUnavailable where a store cannot be asked."""

    def __init__(
        self,
        rules: AdminRules,
        roles: RoleAssignments,
        *,
        directory: Directory,
        leaving: Leaving,
        devices: RememberedDevices,
        sessions: Sessions | None,
        granted: Granted | None,
        read_audit: ReadAudit | None,
        state: Callable[[], Mapping[str, Any]],
        trail: AuditTrail,
        clock: Clock,
        step_up_s: int = 900,
        acr_values: tuple[str, ...] = (),
    ) -> None:
        """`step_up_s`: people change things so long after a proof; 0: however long."""
        self._rules = rules
        self._roles = roles
        self._directory = directory
        self._leaving = leaving
        self._devices = devices
        self._sessions = sessions
        self._granted = granted
        self._read_audit = read_audit
        self._state = state
        self._trail = trail
        self._clock = clock
        self._step_up_s = step_up_s
        self._acr_values = acr_values

    # -- the whole

    async def me(self, admin: Administrator) -> dict[str, Any]:
        """Say who asks, and what they may do to a user who is no administrator, or to the whole."""
        allowed = [
            action
            for action in ACTIONS
            if self._rules.allows_at_gateway(admin, action)
            or self._rules.allows_at_user(admin, action, "", is_active=True, is_admin=False)
        ]
        return {"id": admin.id, "kind": admin.kind, "roles": sorted(admin.roles), "actions": allowed}

    async def state(self, admin: Administrator) -> dict[str, Any]:
        """Say how the gateway stands: level of degradation, what it depends on, which config it has."""
        self._at_gateway(admin, "state.read")
        self._tell("admin.state.read", admin)
        return dict(self._state())

    async def audit(
        self,
        admin: Administrator,
        *,
        chain: str = "",
        after: int = 0,
        limit: int = 100,
        wanted: Mapping[str, str] | None = None,
    ) -> dict[str, Any]:
        """Give entries of the audit log, the latest last. `wanted`: what their fields are; an action may end in `.`."""
        self._at_gateway(admin, "audit.read")
        self._tell("admin.audit.read", admin)
        if self._read_audit is None:
            raise NothingThere("there is no audit log")
        found: list[AuditEntry] = []
        looked_at = 0
        async for entry in self._read_audit(chain, after):
            looked_at += 1
            if looked_at > AUDIT_LOOKED_AT_MAX:
                break
            if _is_wanted(entry, wanted or {}):
                found.append(entry)
                if len(found) > 2 * limit:
                    del found[:-limit]
        found.sort(key=lambda entry: entry.event.at_s)
        return {"entries": [audit_shape(each) for each in found[-limit:]], "whole": looked_at <= AUDIT_LOOKED_AT_MAX}

    # -- users

    async def users(
        self, admin: Administrator, conditions: Sequence[Condition], offset: int, limit: int
    ) -> dict[str, Any]:
        """Look for users."""
        self._at_gateway(admin, "user.read")
        page = await self._directory.find_users(self._roles.tenant, conditions, offset, limit)
        self._tell("admin.user.read", admin, found=page.total)
        return {"users": [user_shape(each) for each in page.users], "total": page.total, "offset": offset}

    async def user(self, admin: Administrator, user_id: str) -> dict[str, Any]:
        """Give a user, with groups, roles, and the kinds of credentials that they have."""
        user = await self._at_user(admin, "user.read", user_id)
        self._tell("admin.user.read", admin, user_id)
        factors = await self._directory.factors_of(user.id)
        groups = await self._directory.groups_of(user.tenant, user.id)
        return {
            **user_shape(user),
            "groups": [{"id": group.id, "name": group.display_name} for group in groups],
            "roles": sorted(await self._roles.of_user(user.id)),
            "has_password": await self._directory.get_password(user.id) is not None,
            "passkeys": factors.passkeys,
            "totp_devices": sum(1 for each in factors.totps if each.confirmed),
            "recovery_codes": factors.recovery_codes,
        }

    async def deactivate(self, admin: Administrator, user_id: str) -> dict[str, Any]:
        """Let a user log in no more, and end everything that they have."""
        await self._at_user(admin, "user.deactivate", user_id)
        user = await self._set_active(user_id, False)
        ended = await self._leaving.end_all(
            self._subject(user_id), reason="admin_deactivated", actor=admin.id, caller=admin.where
        )
        self._tell("admin.user.deactivate", admin, user_id, sessions=ended)
        return {**user_shape(user), "ended_sessions": ended}

    async def reactivate(self, admin: Administrator, user_id: str) -> dict[str, Any]:
        """Let a user log in again."""
        await self._at_user(admin, "user.reactivate", user_id)
        user = await self._set_active(user_id, True)
        self._tell("admin.user.reactivate", admin, user_id)
        return user_shape(user)

    # -- sessions

    async def sessions(self, admin: Administrator, user_id: str) -> dict[str, Any]:
        """List the sessions of a user that are not over."""
        await self._at_user(admin, "session.read", user_id)
        found = await self._sessions_of(user_id)
        self._tell("admin.session.read", admin, user_id)
        return {"sessions": [session_shape(each) for each in found]}

    async def end_session(self, admin: Administrator, user_id: str, session_id: str) -> None:
        """End one session of a user, and what was granted in it."""
        await self._at_user(admin, "session.end", user_id)
        for each in await self._sessions_of(user_id):
            if each.id_hash.hex() == session_id and self._sessions is not None:
                await self._sessions.end_hash(each.id_hash, reason="admin", actor=admin.id, caller=admin.where)
                self._tell("admin.session.end", admin, user_id, session=session_id[:16])
                return
        raise NothingThere("there is no such session")

    async def end_sessions(self, admin: Administrator, user_id: str) -> dict[str, Any]:
        """Log a user out everywhere, tokens and all."""
        await self._at_user(admin, "session.end_all", user_id)
        ended = await self._leaving.end_all(self._subject(user_id), reason="admin", actor=admin.id, caller=admin.where)
        self._tell("admin.session.end_all", admin, user_id, sessions=ended)
        return {"ended_sessions": ended}

    # -- devices

    async def devices(self, admin: Administrator, user_id: str) -> dict[str, Any]:
        """List the devices of a user that are remembered."""
        await self._at_user(admin, "device.read", user_id)
        found = await self._devices.list_of(self._roles.tenant, user_id)
        self._tell("admin.device.read", admin, user_id)
        return {"devices": [device_shape(each) for each in found]}

    async def forget_device(self, admin: Administrator, user_id: str, device_id: str) -> None:
        """Forget a device of a user: it spares nobody a code any more. Sessions that began on it go on."""
        await self._at_user(admin, "device.forget", user_id)
        tenant = self._roles.tenant
        if not await self._devices.forget(tenant, user_id, device_id, admin.where, actor=admin.id):
            raise NothingThere("there is no such device")
        self._tell("admin.device.forget", admin, user_id, device=device_id)

    # -- clients and grants

    async def clients(self, admin: Administrator) -> dict[str, Any]:
        """List OAuth clients."""
        self._at_gateway(admin, "client.read")
        found = () if self._granted is None else await self._granted.clients()
        self._tell("admin.client.read", admin)
        return {"clients": [client_shape(each) for each in found]}

    async def client(self, admin: Administrator, client_id: str) -> dict[str, Any]:
        """Give an OAuth client."""
        if not self._rules.allows_at_client(admin, "client.read", client_id):
            raise self._refused(admin, "client.read", client_id)
        self._tell("admin.client.read", admin, client_id)
        for each in () if self._granted is None else await self._granted.clients():
            if each.id == client_id:
                return client_shape(each)
        raise NothingThere("there is no such client")

    async def grants(self, admin: Administrator, user_id: str) -> dict[str, Any]:
        """List what a user has granted to clients."""
        await self._at_user(admin, "grant.read", user_id)
        found = () if self._granted is None else await self._granted.families_of(self._subject(user_id))
        self._tell("admin.grant.read", admin, user_id)
        return {"grants": [family_shape(each) for each in found]}

    async def revoke_grant(self, admin: Administrator, user_id: str, grant_id: str) -> None:
        """End what a user has granted to a client, and its tokens."""
        await self._at_user(admin, "grant.revoke", user_id)
        if self._granted is not None:
            for each in await self._granted.families_of(self._subject(user_id)):
                if each.id == grant_id:
                    await self._granted.end_family(each.id)
                    self._tell("admin.grant.revoke", admin, user_id, client=each.approval.client_id)
                    return
        raise NothingThere("there is no such grant")

    # -- parts

    async def _at_user(self, admin: Administrator, action: str, user_id: str) -> User:
        """Give the user that something is done to. Whoever may not look for users is not told whether there is one."""
        user = await self._directory.get_user(self._roles.tenant, user_id)
        if user is None:
            self._at_gateway(admin, "user.read", action)
            raise NothingThere("there is no such user")
        is_admin = bool(await self._roles.of_user(user_id))
        if not self._rules.allows_at_user(admin, action, user_id, is_active=user.active, is_admin=is_admin):
            raise self._refused(admin, action, user_id)
        if action in CHANGES or admin.is_doubtful:
            self._check_proof(admin, action, user_id)
        return user

    def _at_gateway(self, admin: Administrator, action: str, told: str = "") -> None:
        if not self._rules.allows_at_gateway(admin, action):
            raise self._refused(admin, told or action)
        if admin.is_doubtful:  # what was given while the directory was away is no administrator's, whatever is asked
            self._check_proof(admin, action, told)

    def _check_proof(self, admin: Administrator, action: str, target: str) -> None:
        """People change things only soon after they proved who they are, and strongly enough."""
        if admin.kind != "user":
            return
        now_s = self._clock.wall_s()
        is_old = self._step_up_s and (admin.authenticated_s is None or now_s - admin.authenticated_s > self._step_up_s)
        if is_old or admin.is_doubtful or not meets(admin.acr, self._acr_values):
            self._trail.tell(
                "admin.authorize",
                "refused",
                caller=admin.where,
                tenant=self._roles.tenant,
                actor=admin.id,
                target=target,
                reason="step_up",
                wanted=action,
            )
            raise StepUpNeeded("prove again who you are")

    def _refused(self, admin: Administrator, action: str, target: str = "") -> AdminRefused:
        self._trail.tell(
            "admin.authorize",
            "refused",
            caller=admin.where,
            tenant=self._roles.tenant,
            actor=admin.id,
            target=target,
            reason="policy",
            wanted=action,
        )
        return AdminRefused(f"none of your roles may `{action}` here")

    async def _set_active(self, user_id: str, active: bool) -> User:
        for attempt in range(ATTEMPTS):
            user = await self._directory.get_user(self._roles.tenant, user_id)
            if user is None:
                break
            if user.active == active:
                return user
            try:
                changed = replace(user, active=active, changed_s=self._clock.wall_s())
                made = await self._directory.change_user(changed, user.version)
            except VersionConflict:
                if attempt == ATTEMPTS - 1:
                    raise
                continue
            if made is not None:
                return made
        raise NothingThere("there is no such user")

    async def _sessions_of(self, user_id: str) -> Sequence[Session]:
        return () if self._sessions is None else await self._sessions.list_of(self._subject(user_id))

    def _subject(self, user_id: str) -> Subject:
        return Subject(self._roles.tenant, user_id)

    def _tell(self, action: str, admin: Administrator, target: str = "", **details: str | int) -> None:
        self._trail.tell(
            action,
            "success",
            caller=admin.where,
            tenant=self._roles.tenant,
            actor=admin.id,
            target=target,
            reason="",
            **details,
        )


def _is_wanted(entry: AuditEntry, wanted: Mapping[str, str]) -> bool:
    event = entry.event
    for name, value in wanted.items():
        said = getattr(event, name)
        if said != value and not (name == "action" and value.endswith(".") and said.startswith(value)):
            return False
    return True
