"""All operations of SCIM on single users and groups, and the search for them.

A change reads a resource, makes what it should be, and writes that in place of the version that was read; where
somebody else was faster it begins anew, unless the client has said which version it means. A user that a change leaves
inactive, or that is gone, loses all sessions and tokens before the client gets its answer; a client that got none asks
again, and that is done again.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import Any, Final, Protocol, TypeVar

from scim2_models import (
    Context,
    InvalidValueException,
    PatchOp,
    PreconditionFailedException,
    ResponseParameters,
    UniquenessException,
)

from gateway.errors import AlreadyExists, VersionConflict
from gateway.flows.leaving import Leaving
from gateway.flows.scim.filters import Kind, check_text
from gateway.flows.scim.limits import ScimLimits
from gateway.flows.scim.members import MembersChange, members_change
from gateway.flows.scim.quirks import plain_patch, plain_resource
from gateway.flows.scim.reader import ScimReader, not_found
from gateway.flows.scim.reading import MODELS, made_of, names_version, over, read, said, shown_of
from gateway.flows.scim.resources import (
    GROUPS,
    POLICY,
    USERS,
    GroupResource,
    etag_of,
    group_of,
    members_in,
    user_of,
)
from gateway.flows.scim.values import PLAINLY, Asked, Reply, ScimCaller
from gateway.flows.trail import AuditTrail
from gateway.stores.directory import Directory, Group, Tenant, User
from gateway.types import Clock, Subject

T = TypeVar("T")

ATTEMPTS: Final = 5  # at a change that somebody else was faster with
_PLACES: Final[dict[Kind, str]] = {"User": USERS, "Group": GROUPS}


class PasswordSetter(Protocol):
    """Keeps passwords that a provisioning service sets."""

    async def prepare(self, password: str, user_name: str) -> str:
        """Give the hash to keep. Raises ValueError for a password that nobody may have."""

    async def keep(self, user_id: str, made: str) -> None:
        """Let a hash that `prepare` made be the user's."""


class ScimService:
    """Users and groups by SCIM. Raises SCIMException for what a client did wrong, and GatewayError."""

    def __init__(
        self,
        directory: Directory,
        leaving: Leaving,
        *,
        base_url: str,
        limits: ScimLimits,
        clock: Clock,
        trail: AuditTrail,
        passwords: PasswordSetter | None = None,
    ) -> None:
        """`base_url`: where clients find `/Users` and `/Groups`."""
        self.reader = ScimReader(directory, base_url=base_url, limits=limits)
        self._directory = directory
        self._leaving = leaving
        self._base_url = base_url
        self._limits = limits
        self._clock = clock
        self._trail = trail
        self._passwords = passwords
        self._tenants: set[str] = set()  # that are known to exist

    @property
    def keeps_passwords(self) -> bool:
        return self._passwords is not None

    # -- one resource

    async def create(self, kind: Kind, payload: Any, caller: ScimCaller, asked: Asked = PLAINLY) -> Reply:
        """Add a resource (RFC 7644 §3.3)."""
        shown = shown_of(kind, asked.parameters)
        resource = read(MODELS[kind], plain_resource(payload), Context.RESOURCE_CREATION_REQUEST)
        made = await (self._create_user if kind == "User" else self._create_group)(resource, caller)
        body = (await self.reader.resource(kind, made, shown)).model_dump(
            scim_ctx=Context.RESOURCE_CREATION_RESPONSE, response_parameters=shown
        )
        return Reply(201, body, {"location": self.location(kind, made.id), "etag": etag_of(made.version)})

    async def get(self, kind: Kind, resource_id: str, caller: ScimCaller, asked: Asked = PLAINLY) -> Reply:
        """Give a resource (RFC 7644 §3.4.1); 304 where the client has it as it is."""
        shown = shown_of(kind, asked.parameters)
        held = await self.reader.held(kind, resource_id, caller)
        etag = etag_of(held.version)
        if asked.if_none_match and names_version(asked.if_none_match, held.version):
            return Reply(304, None, {"etag": etag})
        resource = await self.reader.resource(kind, held, shown)
        body = resource.model_dump(scim_ctx=Context.RESOURCE_QUERY_RESPONSE, response_parameters=shown)
        return Reply(200, body, {"etag": etag})

    async def replace(
        self,
        kind: Kind,
        resource_id: str,
        payload: Any,
        caller: ScimCaller,
        asked: Asked = PLAINLY,
    ) -> Reply:
        """Put a resource in place of the one that is there (RFC 7644 §3.5.1)."""
        wanted = read(MODELS[kind], plain_resource(payload), Context.RESOURCE_REPLACEMENT_REQUEST)

        def replaced(former: Any) -> tuple[Any, bool]:
            made = wanted.model_copy(deep=True)
            return made, made.replace(former)

        return await self._change(kind, resource_id, replaced, caller, asked)

    async def patch(
        self,
        kind: Kind,
        resource_id: str,
        payload: Any,
        caller: ScimCaller,
        asked: Asked = PLAINLY,
    ) -> Reply:
        """Change parts of a resource (RFC 7644 §3.5.2)."""
        payload = plain_patch(payload)
        self._check_paths(payload)
        operations = read(over(PatchOp, MODELS[kind]), payload, Context.RESOURCE_PATCH_REQUEST)
        if kind == "Group":
            change = members_change(operations)
            if change is not None:
                return await self._change_members(resource_id, change, caller, asked)

        def patched(former: Any) -> tuple[Any, bool]:
            made = former.model_copy(deep=True)
            return made, operations.patch(made, POLICY)

        return await self._change(kind, resource_id, patched, caller, asked)

    async def delete(self, kind: Kind, resource_id: str, caller: ScimCaller, asked: Asked = PLAINLY) -> Reply:
        """Remove a resource (RFC 7644 §3.6)."""
        held = await self.reader.held(kind, resource_id, caller)
        version = self._wanted(held.version, asked.if_match) if asked.if_match else None
        try:
            if kind == "User":
                # Its identities, by which tokens of other issuers are found, go with it: so everything ends before it
                # goes, and it is made inactive before that, so that nothing begins meanwhile.
                inactive = replace(held, active=False, changed_s=self._clock.wall_s())
                await self._directory.change_user(inactive, version)
                await self._end(Subject(caller.tenant, resource_id), "deleted", caller)
                is_gone = await self._directory.remove_user(caller.tenant, resource_id)
            else:
                is_gone = await self._directory.remove_group(caller.tenant, resource_id, version)
        except VersionConflict:
            raise PreconditionFailedException(detail="it was changed meanwhile") from None
        if not is_gone:
            raise not_found(resource_id)
        self._tell("scim.user.delete" if kind == "User" else "scim.group.delete", caller, resource_id)
        return Reply(204)

    # -- parts: changes

    async def _create_user(self, resource: Any, caller: ScimCaller) -> User:
        await self._found_tenant(caller.tenant)
        user = self._user(resource, None, caller)
        made = await self._prepared(resource, user)
        with said():
            added = await self._adding(lambda: self._directory.add_user(user))
        if made is not None:
            assert self._passwords is not None
            await self._passwords.keep(added.id, made)
        self._tell("scim.user.create", caller, added.id, active=added.active)
        return added

    async def _create_group(self, resource: GroupResource, caller: ScimCaller) -> Group:
        await self._found_tenant(caller.tenant)
        with said():
            group = group_of(resource, None, caller.tenant, self._clock.wall_s())
            members = members_in(resource)
            added = await self._adding(lambda: self._directory.add_group(group, members))
        self._tell("scim.group.create", caller, added.id, members=len(members))
        return added

    async def _found_tenant(self, tenant: str) -> None:
        """Make the tenant that the config names, where it does not exist yet."""
        if tenant not in self._tenants:
            if await self._directory.get_tenant(tenant) is None:
                await self._directory.put_tenant(Tenant(tenant, tenant))
            self._tenants.add(tenant)

    @staticmethod
    async def _adding(add: Callable[[], Awaitable[T]]) -> T:
        try:
            return await add()
        except AlreadyExists as error:
            raise UniquenessException(detail=f"the {_attribute(error.field)} is taken") from None

    async def _change(
        self,
        kind: Kind,
        resource_id: str,
        make: Callable[[Any], tuple[Any, bool]],
        caller: ScimCaller,
        asked: Asked,
    ) -> Reply:
        """Have `make` give a resource from the former one, and whether it differs, until nobody else was faster."""
        shown = shown_of(kind, asked.parameters)
        for attempt in range(ATTEMPTS):
            held = await self.reader.held(kind, resource_id, caller)
            version = self._wanted(held.version, asked.if_match)
            former = await self.reader.resource(kind, held, ResponseParameters())
            resource, differs = made_of(make, former)
            try:
                changed: User | Group
                if kind == "User":
                    changed = await self._keep_user(held, resource, differs, version, caller)
                else:
                    changed = await self._keep_group(held, resource, differs, version, caller)
                break
            except VersionConflict:
                if asked.if_match or attempt == ATTEMPTS - 1:
                    raise PreconditionFailedException(detail="it was changed meanwhile") from None
        body = (await self.reader.resource(kind, changed, shown)).model_dump(
            scim_ctx=Context.RESOURCE_REPLACEMENT_RESPONSE, response_parameters=shown
        )
        headers = {"etag": etag_of(changed.version), "location": self.location(kind, changed.id)}
        return Reply(200, body, headers)

    async def _keep_user(self, held: User, resource: Any, differs: bool, version: int, caller: ScimCaller) -> User:
        user = self._user(resource, held, caller)
        made = await self._prepared(resource, user)
        changed: User | None = held
        if differs:
            with said():
                changed = await self._adding(lambda: self._directory.change_user(user, version))
        if changed is None:
            raise not_found(held.id)
        if made is not None:
            assert self._passwords is not None
            await self._passwords.keep(held.id, made)
        if differs or made is not None:
            self._tell("scim.user.change", caller, held.id, password=made is not None)
        if not changed.active:
            if held.active:
                self._tell("scim.user.deactivate", caller, held.id)
            await self._end(Subject(caller.tenant, held.id), "deactivated", caller)
        elif not held.active:
            self._tell("scim.user.reactivate", caller, held.id)
        elif made is not None:
            await self._end(Subject(caller.tenant, held.id), "password_changed", caller)
        return changed

    async def _keep_group(
        self, held: Group, resource: GroupResource, differs: bool, version: int, caller: ScimCaller
    ) -> Group:
        if not differs:
            return held
        with said():
            group = group_of(resource, held, caller.tenant, self._clock.wall_s())
            members = members_in(resource)
            changed: Group | None = await self._adding(lambda: self._directory.change_group(group, version, members))
        if changed is None:
            raise not_found(held.id)
        self._tell("scim.group.change", caller, held.id, members=len(members))
        return changed

    async def _change_members(self, group_id: str, change: MembersChange, caller: ScimCaller, asked: Asked) -> Reply:
        """Add and remove members without reading all that there are."""
        shown = shown_of("Group", asked.parameters)
        version: int | None = None
        if asked.if_match:
            version = self._wanted((await self.reader.held("Group", group_id, caller)).version, asked.if_match)
        try:
            with said():
                changed = await self._directory.change_members(
                    caller.tenant, group_id, change.adds, change.removes, version
                )
        except VersionConflict:
            raise PreconditionFailedException(detail="it was changed meanwhile") from None
        if changed is None:
            raise not_found(group_id)
        self._tell("scim.group.change", caller, group_id, added=len(change.adds), removed=len(change.removes))
        headers = {"etag": etag_of(changed.version)}
        if not shown.attributes and not shown.excluded_attributes:
            return Reply(204, None, headers)  # groups may be large, and who changes members seldom wants to see them
        resource = await self.reader.resource("Group", changed, shown)
        body = resource.model_dump(scim_ctx=Context.RESOURCE_PATCH_RESPONSE, response_parameters=shown)
        return Reply(200, body, headers)

    def _user(self, resource: Any, held: User | None, caller: ScimCaller) -> User:
        return user_of(resource, held, caller.tenant, self._clock.wall_s())

    async def _prepared(self, resource: Any, user: User) -> str | None:
        """Give the hash of the password that a client sets, None where it sets none."""
        if resource.password is None:
            return None
        if self._passwords is None:
            raise InvalidValueException(detail="passwords are not set here")
        with said():
            return await self._passwords.prepare(resource.password, user.user_name)

    async def _end(self, subject: Subject, reason: str, caller: ScimCaller) -> None:
        await self._leaving.end_all(subject, reason=f"scim_{reason}", actor=caller.id, caller=caller.where)

    def _wanted(self, version: int, if_match: str) -> int:
        """Give the version that a change is of. Raises PreconditionFailedException where the client means another."""
        if if_match and not names_version(if_match, version):
            raise PreconditionFailedException(detail="it is of another version")
        return version

    def _check_paths(self, payload: Any) -> None:
        operations = payload.get("Operations") if isinstance(payload, dict) else None
        for operation in operations if isinstance(operations, list) else ():
            path = operation.get("path") if isinstance(operation, dict) else None
            if isinstance(path, str):
                check_text(path, self._limits)

    def location(self, kind: Kind, resource_id: str) -> str:
        """Give the address of a resource."""
        return f"{self._base_url}/{_PLACES[kind]}/{resource_id}"

    def _tell(self, action: str, caller: ScimCaller, target: str, **details: int | bool) -> None:
        self._trail.tell(
            action,
            "success",
            caller=caller.where,
            tenant=caller.tenant,
            actor=caller.id,
            target=target,
            reason="",
            **details,
        )


def _attribute(field: str) -> str:
    return {"user_name": "userName", "display_name": "displayName"}.get(field, field)
