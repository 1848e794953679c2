"""Values that cross chapters."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Final, Literal, Protocol

ATTRIBUTES_MAX: Final = 16  # of one session
ATTRIBUTES_BYTES_MAX: Final = 256  # names and values of one session's attributes together: a session fits into 1 KB
NAMES_MAX: Final = 16  # authentication methods of a session
NAME_BYTES_MAX: Final = 64  # of each short name in a session
DETAILS_MAX: Final = 32  # of one audit event
DETAIL_BYTES_MAX: Final = 1024  # of each of them

NO_ATTRIBUTES: Final[Mapping[str, str]] = MappingProxyType({})


class Clock(Protocol):
    """Where time comes from. Durations use `monotonic_s`; only `exp`, `iat` and logs use `wall_s`."""

    def monotonic_s(self) -> float: ...

    def wall_s(self) -> float: ...


class SystemClock:
    """The machine's own clocks."""

    __slots__ = ()

    def monotonic_s(self) -> float:
        return time.monotonic()

    def wall_s(self) -> float:
        return time.time()


class Secret:
    """A password, key or token that must not be shown: its `repr` and `str` are blank, `reveal` gives the bytes."""

    __slots__ = ("_value",)

    def __init__(self, value: bytes | str) -> None:
        self._value = value.encode() if isinstance(value, str) else value

    def reveal(self) -> bytes:
        return self._value

    def __repr__(self) -> str:
        return "Secret(…)"

    __str__ = __repr__

    def __bool__(self) -> bool:
        return bool(self._value)

    def __eq__(self, other: object) -> bool:
        import hmac

        return isinstance(other, Secret) and hmac.compare_digest(self._value, other._value)

    def __hash__(self) -> int:
        return hash(self._value)


@dataclass(frozen=True, slots=True)
class WorkerContext:
    """What one worker process knows about itself and the processes that it serves with."""

    index: int  # 0 … worker_count - 1; a worker that is started anew keeps the index of the one that died
    worker_count: int
    control_path: Path  # shared by the parent and all workers: reloads, draining, states (gateway/cli/control.py)
    metrics_path: Path  # shared by all workers: metrics; made by the parent
    run_dir: Path  # private to this user, outlives the process: snapshots of keys, embedded stores


@dataclass(frozen=True, slots=True)
class Subject:
    """Who acts: a user, or a client that acts for itself. Two tenants never share a subject."""

    tenant: str
    id: str  # of a user `usr_…`, of a client its client id
    kind: Literal["user", "client"] = "user"

    def __post_init__(self) -> None:
        for text in (self.tenant, self.id):
            if len(text.encode()) > 2 * NAME_BYTES_MAX or "\0" in text:
                raise ValueError("the texts of a subject have at most 128 bytes and no NUL")
        if not self.id:
            raise ValueError("a subject has an id")


@dataclass(frozen=True, slots=True, kw_only=True)
class Session:
    """One login of one subject on one device. All times are Unix seconds.

    The id itself is known to the browser alone; here and in every store there is its SHA-256. Raises ValueError for
    a session that would not fit into a store.
    """

    id_hash: bytes = field(repr=False)  # 32 bytes
    subject: Subject
    home_region: str  # the region that owns the session and is the only one to write it
    created_s: int
    last_seen_s: int
    idle_timeout_s: int  # it ends when it was not seen for so long; 0: no such limit
    expires_s: int  # it ends then, however much it is used
    authenticated_s: int  # when a credential was last verified: `auth_time`
    csrf_secret: bytes = field(repr=False)
    amr: tuple[str, ...] = ()  # RFC 8176
    acr: str = ""
    device_id: str = ""  # of a remembered device; "" for none
    version: int = 1  # rises with each change; SESSION_EPOCH × epoch + counter
    requires_reauth: bool = False  # nothing of weight before a credential was verified anew
    provisional: bool = False  # given while something needed for the full judgement was out of reach
    attributes: Mapping[str, str] = field(default_factory=lambda: NO_ATTRIBUTES, hash=False)

    def __post_init__(self) -> None:
        if len(self.id_hash) != 32:
            raise ValueError("a session is kept under the SHA-256 of its id")
        if len(self.csrf_secret) > 64:
            raise ValueError("the CSRF secret of a session has at most 64 bytes")
        if not 0 < self.version < VERSION_MAX:
            raise ValueError(f"the version of a session is between 1 and {VERSION_MAX}")
        names = (self.home_region, self.acr, self.device_id, *self.amr)
        if len(self.amr) > NAMES_MAX or any(len(name.encode()) > NAME_BYTES_MAX for name in names):
            raise ValueError(f"the names in a session have at most {NAME_BYTES_MAX} bytes each")
        size = sum(len(name.encode()) + len(value.encode()) for name, value in self.attributes.items())
        if len(self.attributes) > ATTRIBUTES_MAX or size > ATTRIBUTES_BYTES_MAX:
            raise ValueError(
                f"a session has at most {ATTRIBUTES_MAX} attributes, of {ATTRIBUTES_BYTES_MAX} bytes altogether"
            )

    @property
    def ends_s(self) -> int:
        """The time at which it is over, unless it is seen again before."""
        if not self.idle_timeout_s:
            return self.expires_s
        return min(self.expires_s, self.last_seen_s + self.idle_timeout_s)

    def ended(self, now_s: float) -> bool:
        return now_s >= self.ends_s


SESSION_EPOCH: Final = 1 << 32  # the epoch rises when another region takes over: its versions are above all former ones
VERSION_MAX: Final = 1 << 53  # what Redis' scripts still count exactly


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditEvent:
    """One act that matters for security: who did what to whom, and how it ended. Never holds a secret.

    `id` is unique: an event that is told twice is recorded once.
    """

    id: str
    at_s: float  # Unix time
    action: str  # `login.password`, `session.revoke`, …: one of a closed list in `gateway.flows.audit`
    outcome: Literal["success", "failure", "refused", "degraded"]
    tenant: str = ""
    actor: str = ""  # the id of the user or client that acts; "" where nobody was identified
    target: str = ""  # what it was done to: a user, session, client or group
    address: str = ""  # of the client, as far as trusted proxies tell
    request_id: str = ""
    reason: str = ""  # a stable code for what is not a success
    details: Mapping[str, str | int | bool] = field(default_factory=dict, hash=False)

    def __post_init__(self) -> None:
        if len(self.details) > DETAILS_MAX:
            raise ValueError(f"an audit event has at most {DETAILS_MAX} details")
        for value in (*self.details, *self.details.values()):
            if isinstance(value, str) and len(value.encode()) > DETAIL_BYTES_MAX:
                raise ValueError(f"the details of an audit event have at most {DETAIL_BYTES_MAX} bytes each")
