"""Who there is: tenants, users and their credentials, groups; and the laws of a directory of them.

`tests/contract/test_directory.py` holds every backend to each. Times are Unix seconds. Secrets never lie here as they
are: passwords as argon2id hashes, recovery codes and devices as SHA-256, TOTP secrets sealed by an Encrypter.
"""

from __future__ import annotations

import base64
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Literal, Protocol

from gateway.stores.base import Revision

NAME_BYTES_MAX: Final = 512  # of a user's or group's name, an address, an issuer, a subject at one
ATTRIBUTES_BYTES_MAX: Final = 64 * 1024  # of a user or group, as JSON
EMAILS_MAX: Final = 32
MEMBERS_MAX: Final = 10_000  # changed in one call
PAGE_MAX: Final = 1000
LOGINS_MAX: Final = 20  # of one user that are kept
LOGIN_S_MAX: Final = 90 * 86_400  # that one is kept
CREDENTIALS_MAX: Final = 64  # passkeys, TOTP devices, remembered devices or codes of one user, of each kind


def new_id(prefix: str) -> str:
    """Make the id of a user (`usr_`) or group (`grp_`): 128 random bits that nobody had or will have."""
    return prefix + base64.b32encode(secrets.token_bytes(16)).rstrip(b"=").decode().lower()


class Encrypter(Protocol):
    """Seals what must not be readable in a copy of the database."""

    def encrypt(self, plain: bytes, context: bytes) -> bytes:
        """Seal `plain`; `context` says what it is for, and opening it for anything else fails."""

    def decrypt(self, sealed: bytes, context: bytes) -> bytes:
        """Open what `encrypt` sealed. Raises ValueError for what was changed, or sealed for something else."""


@dataclass(frozen=True, slots=True)
class Tenant:
    """Who shares nothing with anybody else."""

    id: str
    name: str
    active: bool = True
    settings: Mapping[str, Any] = field(default_factory=dict, hash=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class User:
    """A user of one tenant. `attributes` are those of SCIM that have no field here, as JSON."""

    id: str  # `usr_` and 128 random bits; never used again
    tenant: str
    user_name: str  # unique in the tenant, without regard to case and Unicode form
    active: bool = True
    external_id: str = ""
    emails: tuple[str, ...] = ()
    attributes: Mapping[str, Any] = field(default_factory=dict, hash=False)
    created_s: float = 0.0
    changed_s: float = 0.0
    version: int = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Member:
    """A user or group that belongs to a group."""

    id: str
    kind: Literal["user", "group"] = "user"


@dataclass(frozen=True, slots=True, kw_only=True)
class Group:
    """A group of one tenant; its members are asked for by themselves."""

    id: str  # `grp_` and 128 random bits
    tenant: str
    display_name: str  # unique in the tenant, as user names are
    external_id: str = ""
    attributes: Mapping[str, Any] = field(default_factory=dict, hash=False)
    created_s: float = 0.0
    changed_s: float = 0.0
    version: int = 1


Operator = Literal["eq", "ne", "co", "sw", "ew", "pr", "gt", "ge", "lt", "le"]


@dataclass(frozen=True, slots=True)
class Condition:
    """What users or groups are looked for by; of several conditions all have to hold. Operators: RFC 7644 §3.4.2.

    Fields of users: "id", "user_name", "external_id", "email", "active", "created_s", "changed_s", "group" (the id of
    a group of which they are direct members); of groups: "id", "display_name", "external_id", "created_s",
    "changed_s", "member" (the id of a direct member). Texts compare without regard to case, but ids exactly.
    """

    field: str
    operator: Operator
    value: str | bool | float | None = None


@dataclass(frozen=True, slots=True)
class UserPage:
    """Some of the users that were looked for, in the order of their ids, and how many there are in all."""

    users: tuple[User, ...]
    total: int


@dataclass(frozen=True, slots=True)
class GroupPage:
    """Some of the groups that were looked for, in the order of their ids, and how many there are in all."""

    groups: tuple[Group, ...]
    total: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Identity:
    """What an identity provider calls a user."""

    tenant: str
    issuer: str
    subject: str
    user_id: str
    linked_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class PasswordHash:
    """The argon2id hash of a user's password, in PHC form."""

    user_id: str
    hash: str = field(repr=False)
    changed_s: float
    must_change: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Passkey:
    """A WebAuthn credential of a user."""

    credential_id: bytes
    user_id: str
    public_key: bytes = field(repr=False)  # COSE
    sign_count: int
    name: str = ""
    transports: tuple[str, ...] = ()
    aaguid: str = ""
    discoverable: bool = False
    backed_up: bool = False
    created_s: float = 0.0
    used_s: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class TOTPDevice:
    """An authenticator app of a user. `secret` is in the clear here and sealed in the database."""

    id: str
    user_id: str
    secret: bytes = field(repr=False)
    name: str = ""
    confirmed: bool = False  # it counts as a factor once a code of it was seen
    last_step: int = 0  # the last time step of which a code was taken: no code counts twice
    created_s: float = 0.0


@dataclass(frozen=True, slots=True)
class KeptFactors:
    """What a user may show beside a password: apps, also unconfirmed ones, and how many passkeys and unused codes."""

    totps: tuple[TOTPDevice, ...]
    passkeys: int
    recovery_codes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Device:
    """A device that a user let be remembered, known by a secret or by a key that it holds."""

    id: str
    tenant: str
    user_id: str
    secret_hash: bytes = field(repr=False)  # SHA-256
    public_key: str = ""  # a JWK, where it is bound to a key
    name: str = ""
    created_s: float = 0.0
    seen_s: float = 0.0
    expires_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class PastLogin:
    """Where and when a user once logged in, no finer than a journey shows by. The address is not kept."""

    user_id: str
    at_s: float
    network: bytes = field(default=b"", repr=False)  # a keyed hash of the address's network and the user
    country: str = ""  # ISO 3166-1, two letters, where a map of addresses says it
    latitude: float | None = None  # rounded to some 10 km; likewise
    longitude: float | None = None


@dataclass(frozen=True, slots=True)
class Throttle:
    """How often something failed of late."""

    count: int  # within the window that began at `since_s`
    since_s: float
    blocked_until_s: float  # 0 where it is not


class Directory(Protocol):
    """Tenants, users, credentials and groups, shared by the workers of a machine, or by all gateways.

    Every method ends within a deadline and raises StoreUnavailable for whatever goes wrong in the store. Whether a
    change that failed so took place is unknown; a change that returned is durable, where there are replicas on as many
    as the server waits for. Reads may come from a replica; they show all that was changed through this object, and
    through another one whose `revision` was handed to `after`, and otherwise no state older than a second or so.

    Nothing of another tenant is ever touched: ids are looked for together with the tenant. Who adds what is there
    raises AlreadyExists, whose `field` says what collides; who changes another version than is there, VersionConflict.
    None, or False, means: there is no such thing.
    """

    @property
    def revision(self) -> Revision:
        """A place after all that was changed through this object."""

    def after(self, revision: Revision) -> Directory:
        """Return this directory, whose reads also show all changes before `revision`, of another worker or gateway.

        It is closed with this one. A read raises ValueError for what is no revision.
        """

    # -- tenants

    async def put_tenant(self, tenant: Tenant) -> None:
        """Add a tenant, or put it in place of what has its id."""

    async def get_tenant(self, tenant: str) -> Tenant | None: ...

    async def list_tenants(self) -> Sequence[Tenant]: ...

    # -- users

    async def add_user(self, user: User) -> User:
        """Add a user, in version 1; return it. Collides by `id`, `user_name`. ValueError without such a tenant."""

    async def get_user(self, tenant: str, user_id: str) -> User | None: ...

    async def find_user(self, tenant: str, user_name: str) -> User | None:
        """Return the user of that name, without regard to case and Unicode form."""

    async def find_users(
        self, tenant: str, conditions: Sequence[Condition] = (), offset: int = 0, limit: int = 100
    ) -> UserPage:
        """Return users for which all `conditions` hold, from number `offset` (from 0), at most PAGE_MAX."""

    async def change_user(self, user: User, version: int | None = None) -> User | None:
        """Put `user` in place of what has its id, one version up; with `version`, only of that one."""

    async def remove_user(self, tenant: str, user_id: str, version: int | None = None) -> bool:
        """Remove a user, with all credentials, devices, past log-ins, identities and memberships."""

    async def link(self, identity: Identity) -> None:
        """Let an identity provider's subject be a user. Collides where it is another one."""

    async def unlink(self, tenant: str, issuer: str, subject: str) -> bool: ...

    async def find_linked(self, tenant: str, issuer: str, subject: str) -> User | None: ...

    async def identities_of(self, tenant: str, user_id: str) -> Sequence[Identity]: ...

    # -- passwords

    async def get_password(self, user_id: str) -> PasswordHash | None: ...

    async def set_password(self, password: PasswordHash, replaces: str | None = None) -> bool:
        """Keep a hash; with `replaces`, only in place of that one, as a rehash at log-in does."""

    async def remove_password(self, user_id: str) -> bool: ...

    # -- passkeys

    async def add_passkey(self, passkey: Passkey) -> None:
        """Collides by `credential_id`, of whichever user. ValueError beyond CREDENTIALS_MAX."""

    async def get_passkey(self, credential_id: bytes) -> Passkey | None: ...

    async def passkeys_of(self, user_id: str) -> Sequence[Passkey]: ...

    async def use_passkey(self, credential_id: bytes, sign_count: int, used_s: float) -> bool:
        """Note a log-in. False where the counter did not rise, unless it always was 0 (WebAuthn §6.1.1): a copy."""

    async def rename_passkey(self, user_id: str, credential_id: bytes, name: str) -> bool: ...

    async def remove_passkey(self, user_id: str, credential_id: bytes) -> bool: ...

    # -- second factors

    async def add_totp(self, device: TOTPDevice) -> None:
        """Add a device, its secret sealed. ValueError beyond CREDENTIALS_MAX."""

    async def totps_of(self, user_id: str) -> Sequence[TOTPDevice]: ...

    async def factors_of(self, user_id: str) -> KeptFactors: ...

    async def use_totp(self, user_id: str, device_id: str, step: int) -> bool:
        """Take the code of a time step, and confirm the device. False where that step or a later one was taken."""

    async def remove_totp(self, user_id: str, device_id: str) -> bool: ...

    async def set_recovery_codes(self, user_id: str, code_hashes: Sequence[bytes]) -> None:
        """Put these codes in place of all that there were."""

    async def use_recovery_code(self, user_id: str, code_hash: bytes, used_s: float) -> bool:
        """Take a code, once: of many who take it at the same time one is told True."""

    # -- remembered devices

    async def add_device(self, device: Device) -> None:
        """Add a device; the ones that were seen longest ago give way beyond CREDENTIALS_MAX."""

    async def get_device(self, tenant: str, device_id: str) -> Device | None: ...

    async def devices_of(self, tenant: str, user_id: str) -> Sequence[Device]: ...

    async def touch_device(self, tenant: str, device_id: str, seen_s: float) -> bool: ...

    async def remove_device(self, tenant: str, user_id: str, device_id: str) -> bool: ...

    async def remove_devices(self, tenant: str, user_id: str) -> int: ...

    # -- past log-ins

    async def note_login(self, login: PastLogin, keep: int) -> bool:
        """Note a log-in, and forget all but the user's last `keep`, of 1 to LOGINS_MAX. A power cut may take the note.

        False where one of that moment was noted before, or there is no such user.
        """

    async def logins_of(self, user_id: str) -> Sequence[PastLogin]:
        """Return what was noted of a user, the last one first."""

    # -- groups

    async def add_group(self, group: Group, members: Sequence[Member] = ()) -> Group:
        """Add a group, in version 1; return it. Collides by `id`, `display_name`."""

    async def get_group(self, tenant: str, group_id: str) -> Group | None: ...

    async def find_groups(
        self, tenant: str, conditions: Sequence[Condition] = (), offset: int = 0, limit: int = 100
    ) -> GroupPage:
        """Return groups for which all `conditions` hold, from number `offset` (from 0), at most PAGE_MAX."""

    async def change_group(
        self, group: Group, version: int | None = None, members: Sequence[Member] | None = None
    ) -> Group | None:
        """Put `group` in place of what has its id, one version up; where given, `members` for all that it has."""

    async def change_members(
        self,
        tenant: str,
        group_id: str,
        adds: Sequence[Member] = (),
        removes: Sequence[Member] = (),
        version: int | None = None,
    ) -> Group | None:
        """Remove `removes`, then add `adds`; return the group, one version up. What is so already is no fault."""

    async def remove_group(self, tenant: str, group_id: str, version: int | None = None) -> bool: ...

    async def members_of(self, tenant: str, group_id: str) -> Sequence[Member]: ...

    async def groups_of(self, tenant: str, member_id: str) -> Sequence[Group]:
        """Return the groups of which it is a direct member."""

    # -- throttling

    async def note_failure(
        self, key: str, now_s: float, *, window_s: float, block_from: int, block_s: float, expires_s: float
    ) -> Throttle:
        """Count one more failure under `key`, atomically; beyond a window of `window_s` counting begins anew.

        From the `block_from`th within a window it is blocked for `block_s`, doubled with each further one up to the
        window's length. It may be forgotten after `expires_s`, and a power cut may take it.
        """

    async def get_throttles(self, keys: Sequence[str]) -> Mapping[str, Throttle]: ...

    async def forget_failures(self, key: str) -> None: ...

    async def purge(self, now_s: float) -> int:
        """Forget devices and throttles that are over, and log-ins older than LOGIN_S_MAX; return how many."""

    async def close(self) -> None:
        """Release everything; the directory is not used afterwards. Never raises."""
