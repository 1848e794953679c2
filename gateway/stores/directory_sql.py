"""The directory in SQL: one implementation for SQLite and PostgreSQL, each call one transaction."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import zip_longest
from typing import Any, Final, TypeVar

import orjson
from sqlalchemy import ColumnElement, Table, bindparam, delete, exists, func, literal, or_, select, update

from gateway.errors import AlreadyExists, VersionConflict
from gateway.stores.base import ORIGIN, Revision
from gateway.stores.directory import (
    ATTRIBUTES_BYTES_MAX,
    CREDENTIALS_MAX,
    EMAILS_MAX,
    LOGIN_S_MAX,
    LOGINS_MAX,
    MEMBERS_MAX,
    NAME_BYTES_MAX,
    PAGE_MAX,
    Condition,
    Device,
    Encrypter,
    Group,
    GroupPage,
    Identity,
    KeptFactors,
    Member,
    Passkey,
    PasswordHash,
    PastLogin,
    Tenant,
    Throttle,
    TOTPDevice,
    User,
    UserPage,
)
from gateway.stores.pools import PoolState
from gateway.stores.schema import (
    DEVICES,
    EMAILS,
    GROUPS,
    IDENTITIES,
    LOGINS,
    MEMBERS,
    PASSKEYS,
    PASSWORDS,
    RECOVERY_CODES,
    TENANTS,
    THROTTLES,
    TOTPS,
    USERS,
    folded,
)
from gateway.stores.sql import Ask, Program, SQLDatabase, ask, ask_once

T = TypeVar("T")

CHUNK: Final = 500  # values in one statement


def _insert(table: Table) -> str:
    """Return an INSERT that does nothing where a row collides. Core has it for each database by itself only."""
    names = [column.name for column in table.columns]
    marks = ", ".join(f":{name}" for name in names)
    return f"INSERT INTO {table.name} ({', '.join(names)}) VALUES ({marks}) ON CONFLICT DO NOTHING"  # noqa: S608


_INSERT: Final = {table: _insert(table) for table in USERS.metadata.tables.values()}

_USER: Final = select(USERS).where(USERS.c.tenant == bindparam("tenant"), USERS.c.id == bindparam("user_id"))
_USER_LOCKED: Final = _USER.with_for_update()
_USER_BY_ID: Final = select(USERS.c.id).where(USERS.c.id == bindparam("user_id")).with_for_update()
_USER_BY_NAME: Final = select(USERS).where(
    USERS.c.tenant == bindparam("tenant"), USERS.c.user_name_key == bindparam("name")
)
_USER_LINKED: Final = (
    select(USERS)
    .join(IDENTITIES, IDENTITIES.c.user_id == USERS.c.id)
    .where(
        IDENTITIES.c.tenant == bindparam("tenant"),
        IDENTITIES.c.issuer == bindparam("issuer"),
        IDENTITIES.c.subject == bindparam("subject"),
        USERS.c.tenant == bindparam("tenant"),
    )
)
_TENANT: Final = select(TENANTS).where(TENANTS.c.id == bindparam("tenant"))
_TENANTS: Final = select(TENANTS).order_by(TENANTS.c.id)
_IDENTITY: Final = select(IDENTITIES).where(
    IDENTITIES.c.tenant == bindparam("tenant"),
    IDENTITIES.c.issuer == bindparam("issuer"),
    IDENTITIES.c.subject == bindparam("subject"),
)
_IDENTITIES_OF: Final = select(IDENTITIES).where(
    IDENTITIES.c.tenant == bindparam("tenant"), IDENTITIES.c.user_id == bindparam("user_id")
)
_PASSWORD: Final = select(PASSWORDS).where(PASSWORDS.c.user_id == bindparam("user_id"))
_PASSKEY: Final = select(PASSKEYS).where(PASSKEYS.c.credential_id == bindparam("credential_id"))
_PASSKEYS_OF: Final = select(PASSKEYS).where(PASSKEYS.c.user_id == bindparam("user_id")).order_by(PASSKEYS.c.created_s)
_USE_PASSKEY: Final = (
    update(PASSKEYS)
    .where(
        PASSKEYS.c.credential_id == bindparam("id"),
        or_(
            PASSKEYS.c.sign_count < bindparam("count"),
            (PASSKEYS.c.sign_count == 0) & (literal(0) == bindparam("count")),
        ),
    )
    .values(sign_count=bindparam("count"), used_s=bindparam("at_s"))
)
_TOTPS_OF: Final = select(TOTPS).where(TOTPS.c.user_id == bindparam("user_id")).order_by(TOTPS.c.created_s)
_USE_TOTP: Final = (
    update(TOTPS)
    .where(
        TOTPS.c.user_id == bindparam("owner"), TOTPS.c.id == bindparam("device"), TOTPS.c.last_step < bindparam("step")
    )
    .values(last_step=bindparam("step"), confirmed=True)
)
_USE_CODE: Final = (
    update(RECOVERY_CODES)
    .where(
        RECOVERY_CODES.c.user_id == bindparam("owner"),
        RECOVERY_CODES.c.code_hash == bindparam("hash"),
        RECOVERY_CODES.c.used_s.is_(None),
    )
    .values(used_s=bindparam("at_s"))
)
_FACTOR_COUNTS: Final = select(
    select(func.count()).where(PASSKEYS.c.user_id == bindparam("user_id")).scalar_subquery(),
    select(func.count())
    .where(RECOVERY_CODES.c.user_id == bindparam("user_id"), RECOVERY_CODES.c.used_s.is_(None))
    .scalar_subquery(),
)
_DEVICE: Final = select(DEVICES).where(DEVICES.c.tenant == bindparam("tenant"), DEVICES.c.id == bindparam("id"))
_DEVICES_OF: Final = (
    select(DEVICES)
    .where(DEVICES.c.tenant == bindparam("tenant"), DEVICES.c.user_id == bindparam("user_id"))
    .order_by(DEVICES.c.seen_s.desc())
)
_LOGINS_OF: Final = select(LOGINS).where(LOGINS.c.user_id == bindparam("user_id")).order_by(LOGINS.c.at_s.desc())
_FORGET_LOGINS: Final = (
    "DELETE FROM portcullis_logins WHERE user_id = :user_id AND at_s NOT IN "
    "(SELECT at_s FROM portcullis_logins WHERE user_id = :user_id ORDER BY at_s DESC LIMIT :keep)"
)
_GROUP: Final = select(GROUPS).where(GROUPS.c.tenant == bindparam("tenant"), GROUPS.c.id == bindparam("group_id"))
_GROUP_LOCKED: Final = _GROUP.with_for_update()
_MEMBERS_OF: Final = (
    select(MEMBERS.c.member_id, MEMBERS.c.kind)
    .where(MEMBERS.c.group_id == bindparam("group_id"))
    .order_by(MEMBERS.c.member_id)
)
_GROUPS_OF: Final = (
    select(GROUPS)
    .join(MEMBERS, MEMBERS.c.group_id == GROUPS.c.id)
    .where(GROUPS.c.tenant == bindparam("tenant"), MEMBERS.c.member_id == bindparam("member_id"))
    .order_by(GROUPS.c.id)
)
_THROTTLE_LOCKED: Final = select(THROTTLES).where(THROTTLES.c.key == bindparam("key")).with_for_update()
_TWO_THROTTLES: Final = select(THROTTLES).where(THROTTLES.c.key.in_((bindparam("one"), bindparam("other"))))
_SET_THROTTLE: Final = (
    update(THROTTLES)
    .where(THROTTLES.c.key == bindparam("of"))
    .values(
        count=bindparam("failures"),
        since_s=bindparam("since"),
        blocked_until_s=bindparam("until"),
        expires_s=bindparam("end"),
    )
)
_FORGET_THROTTLE: Final = delete(THROTTLES).where(THROTTLES.c.key == bindparam("of"))


class SQLDirectory:
    """The laws of `Directory`, as programs for a database."""

    def __init__(self, database: SQLDatabase, encrypter: Encrypter, after: Revision = ORIGIN) -> None:
        self._database = database
        self._encrypter = encrypter
        self._after = after
        self._closed = False

    @property
    def revision(self) -> Revision:
        return self._database.revision

    def after(self, revision: Revision) -> SQLDirectory:
        view = SQLDirectory(self._database, self._encrypter, revision)
        view._closed = True  # it has nothing of its own to release
        return view

    def pools(self) -> Sequence[PoolState]:
        return self._database.pools()

    async def close(self) -> None:
        if not self._closed:
            self._closed = True  # others may use the same connections
            await self._database.close()

    # -- tenants

    async def put_tenant(self, tenant: Tenant) -> None:
        _check_names(tenant.id, tenant.name)
        values = {"name": tenant.name, "active": tenant.active, "settings": _json(tenant.settings)}

        def program() -> Program[None]:
            if not (yield ask(_INSERT[TENANTS], id=tenant.id, **values)).count:
                yield ask_once(update(TENANTS).where(TENANTS.c.id == tenant.id).values(values))

        await self._write(program)

    async def get_tenant(self, tenant: str) -> Tenant | None:
        return await self._one(ask(_TENANT, tenant=tenant), _tenant)

    async def list_tenants(self) -> Sequence[Tenant]:
        return await self._all(ask(_TENANTS), _tenant)

    # -- users

    async def add_user(self, user: User) -> User:
        kept = replace(user, version=1)
        values = _user_values(kept)

        def program() -> Program[User]:
            if (yield ask(_TENANT, tenant=user.tenant)).row is None:
                raise ValueError(f"there is no tenant `{user.tenant}`")
            if not (yield ask(_INSERT[USERS], **values)).count:
                taken = (yield ask(_USER_BY_ID, user_id=user.id)).row is not None
                field = "id" if taken else "user_name"
                raise AlreadyExists(f"there is a user with the {field} `{getattr(user, field)}`", field=field)
            yield from self._put_emails(kept)
            return kept

        return await self._write(program)

    async def get_user(self, tenant: str, user_id: str) -> User | None:
        return await self._one(ask(_USER, tenant=tenant, user_id=user_id), _user)

    async def find_user(self, tenant: str, user_name: str) -> User | None:
        return await self._one(ask(_USER_BY_NAME, tenant=tenant, name=folded(user_name)), _user)

    async def find_users(
        self, tenant: str, conditions: Sequence[Condition] = (), offset: int = 0, limit: int = 100
    ) -> UserPage:
        where = [USERS.c.tenant == tenant, *(_user_condition(condition) for condition in conditions)]
        users, total = await self._page(USERS, where, offset, limit, _user)
        return UserPage(users, total)

    async def change_user(self, user: User, version: int | None = None) -> User | None:
        def program() -> Program[User | None]:
            row = (yield ask(_USER_LOCKED, tenant=user.tenant, user_id=user.id)).row
            if row is None:
                return None
            held = _user(row)
            _check_version(held.version, version)
            kept = replace(user, version=held.version + 1, created_s=held.created_s)
            if folded(kept.user_name) != folded(held.user_name):
                other = (yield ask(_USER_BY_NAME, tenant=user.tenant, name=folded(user.user_name))).row
                if other is not None:
                    raise AlreadyExists(f"there is a user with the user_name `{user.user_name}`", field="user_name")
            yield ask_once(update(USERS).where(USERS.c.id == user.id).values(_user_values(kept)))
            yield ask_once(delete(EMAILS).where(EMAILS.c.user_id == user.id))
            yield from self._put_emails(kept)
            return kept

        return await self._write(program)

    async def remove_user(self, tenant: str, user_id: str, version: int | None = None) -> bool:
        def program() -> Program[bool]:
            row = (yield ask(_USER_LOCKED, tenant=tenant, user_id=user_id)).row
            if row is None:
                return False
            _check_version(_user(row).version, version)
            yield ask_once(delete(MEMBERS).where(MEMBERS.c.member_id == user_id))
            yield ask_once(delete(USERS).where(USERS.c.id == user_id))  # what else is the user's goes with it
            return True

        return await self._write(program)

    async def link(self, identity: Identity) -> None:
        _check_names(identity.issuer, identity.subject)
        where = {"tenant": identity.tenant, "issuer": identity.issuer, "subject": identity.subject}

        def program() -> Program[None]:
            if (yield ask(_USER, tenant=identity.tenant, user_id=identity.user_id)).row is None:
                raise ValueError("there is no such user")
            values = where | {"user_id": identity.user_id, "linked_s": identity.linked_s}
            if not (yield ask(_INSERT[IDENTITIES], **values)).count:
                held = (yield ask(_IDENTITY, **where)).row
                if held is None or _identity(held).user_id != identity.user_id:
                    raise AlreadyExists("this identity is linked to another user", field="subject")

        await self._write(program)

    async def unlink(self, tenant: str, issuer: str, subject: str) -> bool:
        where = (IDENTITIES.c.tenant == tenant, IDENTITIES.c.issuer == issuer, IDENTITIES.c.subject == subject)
        return await self._remove(IDENTITIES, *where) > 0

    async def find_linked(self, tenant: str, issuer: str, subject: str) -> User | None:
        return await self._one(ask(_USER_LINKED, tenant=tenant, issuer=issuer, subject=subject), _user)

    async def identities_of(self, tenant: str, user_id: str) -> Sequence[Identity]:
        return await self._all(ask(_IDENTITIES_OF, tenant=tenant, user_id=user_id), _identity)

    # -- passwords

    async def get_password(self, user_id: str) -> PasswordHash | None:
        return await self._one(ask(_PASSWORD, user_id=user_id), _password)

    async def set_password(self, password: PasswordHash, replaces: str | None = None) -> bool:
        values = {"hash": password.hash, "changed_s": password.changed_s, "must_change": password.must_change}

        def program() -> Program[bool]:
            yield from self._lock_user(password.user_id)
            if replaces is None and (yield ask(_INSERT[PASSWORDS], user_id=password.user_id, **values)).count:
                return True
            change = update(PASSWORDS).where(PASSWORDS.c.user_id == password.user_id)
            if replaces is not None:
                change = change.where(PASSWORDS.c.hash == replaces)
            return (yield ask_once(change.values(values))).count > 0

        return await self._write(program)

    async def remove_password(self, user_id: str) -> bool:
        return await self._remove(PASSWORDS, PASSWORDS.c.user_id == user_id) > 0

    # -- passkeys

    async def add_passkey(self, passkey: Passkey) -> None:
        _check_names(passkey.name, passkey.aaguid)
        values = {
            "credential_id": passkey.credential_id,
            "user_id": passkey.user_id,
            "public_key": passkey.public_key,
            "sign_count": passkey.sign_count,
            "name": passkey.name,
            "transports": _json(list(passkey.transports)),
            "aaguid": passkey.aaguid,
            "discoverable": passkey.discoverable,
            "backed_up": passkey.backed_up,
            "created_s": passkey.created_s,
            "used_s": passkey.used_s,
        }

        def program() -> Program[None]:
            yield from self._room_for(passkey.user_id, PASSKEYS)
            if not (yield ask(_INSERT[PASSKEYS], **values)).count:
                raise AlreadyExists("this passkey is registered already", field="credential_id")

        await self._write(program)

    async def get_passkey(self, credential_id: bytes) -> Passkey | None:
        return await self._one(ask(_PASSKEY, credential_id=credential_id), _passkey)

    async def passkeys_of(self, user_id: str) -> Sequence[Passkey]:
        return await self._all(ask(_PASSKEYS_OF, user_id=user_id), _passkey)

    async def use_passkey(self, credential_id: bytes, sign_count: int, used_s: float) -> bool:
        return await self._change(ask(_USE_PASSKEY, id=credential_id, count=sign_count, at_s=used_s)) > 0

    async def rename_passkey(self, user_id: str, credential_id: bytes, name: str) -> bool:
        _check_names(name)
        where = (PASSKEYS.c.user_id == user_id, PASSKEYS.c.credential_id == credential_id)
        return await self._change(ask_once(update(PASSKEYS).where(*where).values(name=name))) > 0

    async def remove_passkey(self, user_id: str, credential_id: bytes) -> bool:
        where = (PASSKEYS.c.user_id == user_id, PASSKEYS.c.credential_id == credential_id)
        return await self._remove(PASSKEYS, *where) > 0

    # -- second factors

    async def add_totp(self, device: TOTPDevice) -> None:
        _check_names(device.id, device.name)
        values = {
            "user_id": device.user_id,
            "id": device.id,
            "sealed": self._encrypter.encrypt(device.secret, _totp_context(device.user_id, device.id)),
            "name": device.name,
            "confirmed": device.confirmed,
            "last_step": device.last_step,
            "created_s": device.created_s,
        }

        def program() -> Program[None]:
            yield from self._room_for(device.user_id, TOTPS)
            if not (yield ask(_INSERT[TOTPS], **values)).count:
                raise AlreadyExists("there is an authenticator of this id", field="id")

        await self._write(program)

    async def totps_of(self, user_id: str) -> Sequence[TOTPDevice]:
        return await self._all(ask(_TOTPS_OF, user_id=user_id), self._totp)

    async def factors_of(self, user_id: str) -> KeptFactors:
        def program() -> Program[KeptFactors]:
            totps = yield ask(_TOTPS_OF, user_id=user_id)
            counts = (yield ask(_FACTOR_COUNTS, user_id=user_id)).rows[0]
            return KeptFactors(tuple(self._totp(row) for row in totps.rows), *counts)

        return await self._database.read(program, self._after)

    async def use_totp(self, user_id: str, device_id: str, step: int) -> bool:
        return await self._change(ask(_USE_TOTP, owner=user_id, device=device_id, step=step)) > 0

    async def remove_totp(self, user_id: str, device_id: str) -> bool:
        return await self._remove(TOTPS, TOTPS.c.user_id == user_id, TOTPS.c.id == device_id) > 0

    async def set_recovery_codes(self, user_id: str, code_hashes: Sequence[bytes]) -> None:
        if len(code_hashes) > CREDENTIALS_MAX:
            raise ValueError(f"a user has at most {CREDENTIALS_MAX} recovery codes")

        def program() -> Program[None]:
            yield from self._lock_user(user_id)
            yield ask_once(delete(RECOVERY_CODES).where(RECOVERY_CODES.c.user_id == user_id))
            for code_hash in code_hashes:
                yield ask(_INSERT[RECOVERY_CODES], user_id=user_id, code_hash=code_hash, used_s=None)

        await self._write(program)

    async def use_recovery_code(self, user_id: str, code_hash: bytes, used_s: float) -> bool:
        return await self._change(ask(_USE_CODE, owner=user_id, hash=code_hash, at_s=used_s)) > 0

    # -- remembered devices

    async def add_device(self, device: Device) -> None:
        _check_names(device.id, device.name)
        values = {
            "tenant": device.tenant,
            "id": device.id,
            "user_id": device.user_id,
            "secret_hash": device.secret_hash,
            "public_key": device.public_key,
            "name": device.name,
            "created_s": device.created_s,
            "seen_s": device.seen_s,
            "expires_s": device.expires_s,
        }

        def program() -> Program[None]:
            if (yield ask(_USER_LOCKED, tenant=device.tenant, user_id=device.user_id)).row is None:
                raise ValueError("there is no such user")
            held = (yield ask(_DEVICES_OF, tenant=device.tenant, user_id=device.user_id)).rows
            for row in held[CREDENTIALS_MAX - 1 :]:
                gone = (DEVICES.c.tenant == device.tenant, DEVICES.c.id == _device(row).id)
                yield ask_once(delete(DEVICES).where(*gone))
            if not (yield ask(_INSERT[DEVICES], **values)).count:
                raise AlreadyExists("there is a device of this id", field="id")

        await self._write(program)

    async def get_device(self, tenant: str, device_id: str) -> Device | None:
        return await self._one(ask(_DEVICE, tenant=tenant, id=device_id), _device)

    async def devices_of(self, tenant: str, user_id: str) -> Sequence[Device]:
        return await self._all(ask(_DEVICES_OF, tenant=tenant, user_id=user_id), _device)

    async def touch_device(self, tenant: str, device_id: str, seen_s: float) -> bool:
        where = (DEVICES.c.tenant == tenant, DEVICES.c.id == device_id)
        return await self._change(ask_once(update(DEVICES).where(*where).values(seen_s=seen_s))) > 0

    async def remove_device(self, tenant: str, user_id: str, device_id: str) -> bool:
        where = (DEVICES.c.tenant == tenant, DEVICES.c.user_id == user_id, DEVICES.c.id == device_id)
        return await self._remove(DEVICES, *where) > 0

    async def remove_devices(self, tenant: str, user_id: str) -> int:
        return await self._remove(DEVICES, DEVICES.c.tenant == tenant, DEVICES.c.user_id == user_id)

    # -- past log-ins

    async def note_login(self, login: PastLogin, keep: int) -> bool:
        _check_names(login.country)
        if not 1 <= keep <= LOGINS_MAX:
            raise ValueError(f"1 to {LOGINS_MAX} log-ins of a user are kept")
        values = {
            "user_id": login.user_id,
            "at_s": login.at_s,
            "network": login.network,
            "country": login.country,
            "latitude": login.latitude,
            "longitude": login.longitude,
        }

        def program() -> Program[bool]:
            if (yield ask(_USER_BY_ID, user_id=login.user_id)).row is None:
                return False
            is_new = (yield ask(_INSERT[LOGINS], **values)).count > 0
            yield ask(_FORGET_LOGINS, user_id=login.user_id, keep=keep)
            return is_new

        return await self._write(program, durable=False)

    async def logins_of(self, user_id: str) -> Sequence[PastLogin]:
        return await self._all(ask(_LOGINS_OF, user_id=user_id), _login)

    # -- groups

    async def add_group(self, group: Group, members: Sequence[Member] = ()) -> Group:
        kept = replace(group, version=1)
        values = _group_values(kept)
        _check_members(members)

        def program() -> Program[Group]:
            if (yield ask(_TENANT, tenant=group.tenant)).row is None:
                raise ValueError(f"there is no tenant `{group.tenant}`")
            if not (yield ask(_INSERT[GROUPS], **values)).count:
                taken = (yield ask_once(select(GROUPS.c.id).where(GROUPS.c.id == group.id))).row is not None
                field = "id" if taken else "display_name"
                raise AlreadyExists(f"there is a group with the {field} `{getattr(group, field)}`", field=field)
            yield from self._put_members(kept, members)
            return kept

        return await self._write(program)

    async def get_group(self, tenant: str, group_id: str) -> Group | None:
        return await self._one(ask(_GROUP, tenant=tenant, group_id=group_id), _group)

    async def find_groups(
        self, tenant: str, conditions: Sequence[Condition] = (), offset: int = 0, limit: int = 100
    ) -> GroupPage:
        where = [GROUPS.c.tenant == tenant, *(_group_condition(condition) for condition in conditions)]
        groups, total = await self._page(GROUPS, where, offset, limit, _group)
        return GroupPage(groups, total)

    async def change_group(
        self, group: Group, version: int | None = None, members: Sequence[Member] | None = None
    ) -> Group | None:
        _check_members(members or ())

        def program() -> Program[Group | None]:
            held = yield from self._locked_group(group.tenant, group.id, version)
            if held is None:
                return None
            kept = replace(group, version=held.version + 1, created_s=held.created_s)
            if folded(kept.display_name) != folded(held.display_name):
                same_name = (GROUPS.c.tenant == group.tenant, GROUPS.c.display_name_key == folded(group.display_name))
                if (yield ask_once(select(GROUPS.c.id).where(*same_name))).row is not None:
                    problem = f"there is a group with the display_name `{group.display_name}`"
                    raise AlreadyExists(problem, field="display_name")
            yield ask_once(update(GROUPS).where(GROUPS.c.id == group.id).values(_group_values(kept)))
            if members is not None:
                yield ask_once(delete(MEMBERS).where(MEMBERS.c.group_id == group.id))
                yield from self._put_members(kept, members)
            return kept

        return await self._write(program)

    async def change_members(
        self,
        tenant: str,
        group_id: str,
        adds: Sequence[Member] = (),
        removes: Sequence[Member] = (),
        version: int | None = None,
    ) -> Group | None:
        _check_members([*adds, *removes])

        def program() -> Program[Group | None]:
            held = yield from self._locked_group(tenant, group_id, version)
            if held is None:
                return None
            kept = replace(held, version=held.version + 1)
            for chunk in _chunks([member.id for member in removes]):
                where = (MEMBERS.c.group_id == group_id, MEMBERS.c.member_id.in_(chunk))
                yield ask_once(delete(MEMBERS).where(*where))
            yield from self._put_members(kept, adds)
            yield ask_once(update(GROUPS).where(GROUPS.c.id == group_id).values(version=kept.version))
            return kept

        return await self._write(program)

    async def remove_group(self, tenant: str, group_id: str, version: int | None = None) -> bool:
        def program() -> Program[bool]:
            if (yield from self._locked_group(tenant, group_id, version)) is None:
                return False
            yield ask_once(delete(MEMBERS).where(MEMBERS.c.member_id == group_id))
            yield ask_once(delete(GROUPS).where(GROUPS.c.id == group_id))
            return True

        return await self._write(program)

    async def members_of(self, tenant: str, group_id: str) -> Sequence[Member]:
        def program() -> Program[Sequence[Member]]:
            if (yield ask(_GROUP, tenant=tenant, group_id=group_id)).row is None:
                return []
            found = yield ask(_MEMBERS_OF, group_id=group_id)
            return [Member(id=member_id, kind=kind) for member_id, kind in found.rows]

        return await self._database.read(program, self._after)

    async def groups_of(self, tenant: str, member_id: str) -> Sequence[Group]:
        return await self._all(ask(_GROUPS_OF, tenant=tenant, member_id=member_id), _group)

    # -- throttling

    async def note_failure(
        self, key: str, now_s: float, *, window_s: float, block_from: int, block_s: float, expires_s: float
    ) -> Throttle:
        def program() -> Program[Throttle]:
            fresh = {"key": key, "count": 0, "since_s": now_s, "blocked_until_s": 0.0, "expires_s": expires_s}
            yield ask(_INSERT[THROTTLES], **fresh)
            _, count, since_s, blocked_until_s, _ = (yield ask(_THROTTLE_LOCKED, key=key)).rows[0]
            if now_s >= since_s + window_s:
                count, since_s = 0, now_s
            count += 1
            if count >= block_from:
                pause_s = min(block_s * 2.0 ** min(count - block_from, 32), window_s)
                blocked_until_s = max(blocked_until_s, now_s + pause_s)
            end_s = max(expires_s, blocked_until_s)
            yield ask(_SET_THROTTLE, of=key, failures=count, since=since_s, until=blocked_until_s, end=end_s)
            return Throttle(count, since_s, blocked_until_s)

        return await self._write(program, durable=False)

    async def get_throttles(self, keys: Sequence[str]) -> Mapping[str, Throttle]:
        def program() -> Program[Mapping[str, Throttle]]:
            found = {}
            for one, other in zip_longest(keys[::2], keys[1::2]):
                for key, count, since_s, blocked_until_s, _ in (yield ask(_TWO_THROTTLES, one=one, other=other)).rows:
                    found[key] = Throttle(count, since_s, blocked_until_s)
            return found

        return await self._database.read(program, self._after)

    async def forget_failures(self, key: str) -> None:
        await self._change(ask(_FORGET_THROTTLE, of=key), durable=False)

    async def purge(self, now_s: float) -> int:
        devices = await self._remove(DEVICES, DEVICES.c.expires_s < now_s)
        logins = await self._remove(LOGINS, LOGINS.c.at_s < now_s - LOGIN_S_MAX)
        return devices + logins + await self._remove(THROTTLES, THROTTLES.c.expires_s < now_s)

    # -- parts

    async def _write(self, program: Callable[[], Program[T]], *, durable: bool = True) -> T:
        return await self._database.write(program, durable=durable)

    async def _one(self, asked: Ask, read: Callable[[Any], T]) -> T | None:
        def program() -> Program[T | None]:
            row = (yield asked).row
            return None if row is None else read(row)

        return await self._database.read(program, self._after)

    async def _all(self, asked: Ask, read: Callable[[Any], T]) -> list[T]:
        def program() -> Program[list[T]]:
            return [read(row) for row in (yield asked).rows]

        return await self._database.read(program, self._after)

    async def _page(
        self, table: Table, where: Sequence[ColumnElement[bool]], offset: int, limit: int, read: Callable[[Any], T]
    ) -> tuple[tuple[T, ...], int]:
        if offset < 0 or not 0 <= limit <= PAGE_MAX:
            raise ValueError(f"a page begins at 0 or later and has at most {PAGE_MAX} entries")

        def program() -> Program[tuple[tuple[T, ...], int]]:
            total = (yield ask_once(select(func.count()).select_from(table).where(*where))).rows[0][0]
            if not limit or offset >= total:
                return (), total
            page = yield ask_once(select(table).where(*where).order_by(table.c.id).limit(limit).offset(offset))
            return tuple(read(row) for row in page.rows), total

        return await self._database.read(program, self._after)

    async def _change(self, asked: Ask, *, durable: bool = True) -> int:
        def program() -> Program[int]:
            return (yield asked).count

        return await self._write(program, durable=durable)

    async def _remove(self, table: Table, *where: ColumnElement[bool]) -> int:
        return await self._change(ask_once(delete(table).where(*where)))

    def _lock_user(self, user_id: str) -> Program[None]:
        """Let nobody else change what is the user's until the end. Raises ValueError where there is no such user."""
        if (yield ask(_USER_BY_ID, user_id=user_id)).row is None:
            raise ValueError("there is no such user")

    def _room_for(self, user_id: str, table: Table) -> Program[None]:
        yield from self._lock_user(user_id)
        count = (yield ask_once(select(func.count()).where(table.c.user_id == user_id))).rows[0][0]
        if count >= CREDENTIALS_MAX:
            raise ValueError(f"a user has at most {CREDENTIALS_MAX} credentials of a kind")

    def _put_emails(self, user: User) -> Program[None]:
        for email in dict.fromkeys(folded(email) for email in user.emails):
            yield ask(_INSERT[EMAILS], user_id=user.id, email_key=email)

    def _locked_group(self, tenant: str, group_id: str, version: int | None) -> Program[Group | None]:
        row = (yield ask(_GROUP_LOCKED, tenant=tenant, group_id=group_id)).row
        if row is None:
            return None
        group = _group(row)
        _check_version(group.version, version)
        return group

    def _put_members(self, group: Group, members: Sequence[Member]) -> Program[None]:
        """Add members. Raises ValueError for one that is not in the tenant, or the group itself."""
        for kind, table in (("user", USERS), ("group", GROUPS)):
            wanted = list(dict.fromkeys(member.id for member in members if member.kind == kind))
            if kind == "group" and group.id in wanted:
                raise ValueError("a group is no member of itself")
            for chunk in _chunks(wanted):
                where = (table.c.tenant == group.tenant, table.c.id.in_(chunk))
                there = {row[0] for row in (yield ask_once(select(table.c.id).where(*where))).rows}
                for missing in set(chunk) - there:
                    raise ValueError(f"there is no {kind} `{missing}`")
                names = {f"member_{number}": member for number, member in enumerate(chunk)}
                rows = ", ".join(f"(:group_id, :{name}, :kind)" for name in names)
                insert = f"INSERT INTO {MEMBERS.name} (group_id, member_id, kind) VALUES {rows} ON CONFLICT DO NOTHING"  # noqa: S608
                yield ask(insert, group_id=group.id, kind=kind, **names)

    def _totp(self, row: Sequence[Any]) -> TOTPDevice:
        user_id, device_id, sealed, name, confirmed, last_step, created_s = row
        return TOTPDevice(
            id=device_id,
            user_id=user_id,
            secret=self._encrypter.decrypt(bytes(sealed), _totp_context(user_id, device_id)),
            name=name,
            confirmed=bool(confirmed),
            last_step=last_step,
            created_s=created_s,
        )


# -- conditions


def _user_condition(condition: Condition) -> ColumnElement[bool]:
    """Return what a condition is in SQL. Raises ValueError for one that is none."""
    field, operator, value = condition.field, condition.operator, condition.value
    match field:
        case "user_name":
            return _text_condition(USERS.c.user_name_key, condition)
        case "email":
            mails = select(EMAILS.c.user_id).where(EMAILS.c.user_id == USERS.c.id)
            if operator == "pr":
                return exists(mails)
            if operator != "ne":
                return exists(mails.where(_text_condition(EMAILS.c.email_key, condition)))
        case "active" if isinstance(value, bool) and operator in ("eq", "ne"):
            return USERS.c.active.is_(value if operator == "eq" else not value)
        case "group" if operator == "eq":
            return exists().where(MEMBERS.c.member_id == USERS.c.id, MEMBERS.c.group_id == str(value))
        case _:
            return _common_condition(USERS, condition)
    raise _unknown(condition)


def _group_condition(condition: Condition) -> ColumnElement[bool]:
    match condition.field:
        case "display_name":
            return _text_condition(GROUPS.c.display_name_key, condition)
        case "member" if condition.operator == "eq":
            return exists().where(MEMBERS.c.group_id == GROUPS.c.id, MEMBERS.c.member_id == str(condition.value))
        case _:
            return _common_condition(GROUPS, condition)


def _common_condition(table: Table, condition: Condition) -> ColumnElement[bool]:
    field, operator, value = condition.field, condition.operator, condition.value
    if field in ("id", "external_id"):
        column = table.c[field]
        match operator:
            case "eq":
                return column == str(value)
            case "ne":
                return column != str(value)
            case "pr":
                return column != ""
    elif field in ("created_s", "changed_s") and isinstance(value, int | float) and not isinstance(value, bool):
        column = table.c[field]
        compared: dict[str, ColumnElement[bool]] = {
            "eq": column == value,
            "ne": column != value,
            "gt": column > value,
            "ge": column >= value,
            "lt": column < value,
            "le": column <= value,
        }
        if operator in compared:
            return compared[operator]
    raise _unknown(condition)


def _text_condition(column: ColumnElement[str], condition: Condition) -> ColumnElement[bool]:
    """Compare a column of folded texts."""
    if condition.operator == "pr":
        return column != ""
    if not isinstance(condition.value, str):
        raise _unknown(condition)
    value = folded(condition.value)
    match condition.operator:
        case "eq":
            return column == value
        case "ne":
            return column != value
        case "co":
            return column.contains(value, autoescape=True)
        case "sw":
            return column.startswith(value, autoescape=True)
        case "ew":
            return column.endswith(value, autoescape=True)
        case "gt":
            return column > value
        case "ge":
            return column >= value
        case "lt":
            return column < value
        case "le":
            return column <= value
    raise _unknown(condition)


def _unknown(condition: Condition) -> ValueError:
    return ValueError(f"`{condition.field}` cannot be looked for by `{condition.operator}`")


# -- rows


def _tenant(row: Sequence[Any]) -> Tenant:
    identifier, name, active, settings = row
    return Tenant(identifier, name, bool(active), orjson.loads(settings))


def _user(row: Sequence[Any]) -> User:
    identifier, tenant, name, _, active, external_id, emails, attributes, created_s, changed_s, version = row
    return User(
        id=identifier,
        tenant=tenant,
        user_name=name,
        active=bool(active),
        external_id=external_id,
        emails=tuple(orjson.loads(emails)),
        attributes=orjson.loads(attributes),
        created_s=created_s,
        changed_s=changed_s,
        version=version,
    )


def _user_values(user: User) -> dict[str, Any]:
    """Return a row. Raises ValueError for a user that does not fit."""
    _check_names(user.id, user.user_name, user.external_id, *user.emails)
    if not user.user_name or not folded(user.user_name):
        raise ValueError("a user has a name")
    if len(user.emails) > EMAILS_MAX:
        raise ValueError(f"a user has at most {EMAILS_MAX} addresses")
    return {
        "id": user.id,
        "tenant": user.tenant,
        "user_name": user.user_name,
        "user_name_key": folded(user.user_name),
        "active": user.active,
        "external_id": user.external_id,
        "emails": _json(list(user.emails)),
        "attributes": _json(user.attributes),
        "created_s": user.created_s,
        "changed_s": user.changed_s,
        "version": user.version,
    }


def _group(row: Sequence[Any]) -> Group:
    identifier, tenant, name, _, external_id, attributes, created_s, changed_s, version = row
    return Group(
        id=identifier,
        tenant=tenant,
        display_name=name,
        external_id=external_id,
        attributes=orjson.loads(attributes),
        created_s=created_s,
        changed_s=changed_s,
        version=version,
    )


def _group_values(group: Group) -> dict[str, Any]:
    _check_names(group.id, group.display_name, group.external_id)
    if not group.display_name:
        raise ValueError("a group has a name")
    return {
        "id": group.id,
        "tenant": group.tenant,
        "display_name": group.display_name,
        "display_name_key": folded(group.display_name),
        "external_id": group.external_id,
        "attributes": _json(group.attributes),
        "created_s": group.created_s,
        "changed_s": group.changed_s,
        "version": group.version,
    }


def _identity(row: Sequence[Any]) -> Identity:
    tenant, issuer, subject, user_id, linked_s = row
    return Identity(tenant=tenant, issuer=issuer, subject=subject, user_id=user_id, linked_s=linked_s)


def _password(row: Sequence[Any]) -> PasswordHash:
    user_id, text, changed_s, must_change = row
    return PasswordHash(user_id=user_id, hash=text, changed_s=changed_s, must_change=bool(must_change))


def _passkey(row: Sequence[Any]) -> Passkey:
    identifier, user_id, key, count, name, transports, aaguid, discoverable, backed_up, created_s, used_s = row
    return Passkey(
        credential_id=bytes(identifier),
        user_id=user_id,
        public_key=bytes(key),
        sign_count=count,
        name=name,
        transports=tuple(orjson.loads(transports)),
        aaguid=aaguid,
        discoverable=bool(discoverable),
        backed_up=bool(backed_up),
        created_s=created_s,
        used_s=used_s,
    )


def _device(row: Sequence[Any]) -> Device:
    tenant, identifier, user_id, secret_hash, public_key, name, created_s, seen_s, expires_s = row
    return Device(
        id=identifier,
        tenant=tenant,
        user_id=user_id,
        secret_hash=bytes(secret_hash),
        public_key=public_key,
        name=name,
        created_s=created_s,
        seen_s=seen_s,
        expires_s=expires_s,
    )


def _login(row: Sequence[Any]) -> PastLogin:
    user_id, at_s, network, country, latitude, longitude = row
    return PastLogin(
        user_id=user_id, at_s=at_s, network=bytes(network), country=country, latitude=latitude, longitude=longitude
    )


def _totp_context(user_id: str, device_id: str) -> bytes:
    return f"totp:{len(user_id)}:{user_id}:{device_id}".encode()


def _json(value: Any) -> str:
    """Spell what SCIM and settings hold. Raises ValueError for what is no JSON, or too much."""
    try:
        text = orjson.dumps(value if isinstance(value, list) else dict(value)).decode()
    except TypeError as error:
        raise ValueError("attributes are JSON") from error
    if len(text) > ATTRIBUTES_BYTES_MAX or "\\u0000" in text:
        raise ValueError(f"attributes have at most {ATTRIBUTES_BYTES_MAX} bytes and no NUL")
    return text


def _check_names(*names: str) -> None:
    for name in names:
        try:
            size = len(name.encode())
        except UnicodeEncodeError as error:
            raise ValueError("names are Unicode") from error
        if size > NAME_BYTES_MAX or "\0" in name:
            raise ValueError(f"names have at most {NAME_BYTES_MAX} bytes and no NUL")


def _check_members(members: Sequence[Member]) -> None:
    if len(members) > MEMBERS_MAX:
        raise ValueError(f"at most {MEMBERS_MAX} members in one call")


def _check_version(held: int, wanted: int | None) -> None:
    if wanted is not None and held != wanted:
        raise VersionConflict(f"it is of version {held}, not {wanted}")


def _chunks(values: Sequence[str]) -> Iterator[list[str]]:
    for start in range(0, len(values), CHUNK):
        yield list(values[start : start + CHUNK])
