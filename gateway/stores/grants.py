"""What the token service keeps: clients, things that are good for one use, families of refresh tokens; and the laws.

`tests/contract/test_token_store.py` holds every backend to each. Times are Unix seconds. No token, code or secret lies
here as it is: callers hand in and look for SHA-256 hashes, 32 bytes each.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Literal, Protocol

from gateway.types import Subject

BODY_BYTES_MAX: Final = 48 * 1024  # of what a grant, family or client holds beside its fields
LIFETIME_S_MAX: Final = 400 * 86_400  # of a grant or a family; a tombstone outlives every late message
LISTED_MAX: Final = 1000

GrantKind = Literal[
    "authorization_code",
    "pushed_request",  # RFC 9126
    "device_code",  # RFC 8628; what the device polls for
    "user_code",  # what the user types; its body names the device code
    "sso_state",  # OIDC, towards an identity provider
    "challenge",  # WebAuthn
    "access_token",  # opaque ones
    "assertion",  # the `jti` of a client's assertion: keeping it twice is a replay
    "proof",  # the `jti` of a DPoP proof: likewise
    "login",  # a login of several steps that is under way
    "consent",  # what a user has once allowed a client
    "session_parties",  # the clients that hear of a session's end
]


@dataclass(frozen=True, slots=True, kw_only=True)
class Client:
    """An OAuth client of one tenant. Its id is never given to another one, also after it was removed."""

    tenant: str
    client_id: str
    name: str = ""
    secret_hashes: tuple[bytes, ...] = field(default=(), repr=False)  # SHA-256; several while one is replaced
    redirect_uris: tuple[str, ...] = ()
    grant_types: tuple[str, ...] = ()
    scopes: tuple[str, ...] = ()
    auth_method: str = "none"  # `token_endpoint_auth_method` of RFC 7591
    active: bool = True
    metadata: Mapping[str, Any] = field(default_factory=dict, hash=False)  # the rest of RFC 7591, settings; JSON
    created_s: float = 0.0
    version: int = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Grant:
    """Something that is good for a while, and mostly for one use."""

    kind: GrantKind
    key: bytes = field(repr=False)  # SHA-256 of the code, state, token … that its holder has
    tenant: str
    expires_s: int
    subject: Subject | None = None
    client_id: str = ""
    session: bytes = field(default=b"", repr=False)  # the hash of the id of the session in which it was given
    family: str = ""  # of refresh tokens with which it ends
    body: Mapping[str, Any] = field(default_factory=dict, hash=False, repr=False)  # JSON, and bytes
    version: int = 1


@dataclass(frozen=True, slots=True)
class Taken:
    """What came of taking: "first" for exactly one who takes it, "spent" for all others, "absent"."""

    found: Literal["first", "spent", "absent"]
    grant: Grant | None = None  # only for the first


@dataclass(frozen=True, slots=True, kw_only=True)
class RefreshFamily:
    """All refresh tokens that came from one authorization, of which one is good at a time."""

    id: str  # random; part of each of its tokens
    tenant: str
    subject: Subject
    client_id: str
    current: bytes = field(repr=False)  # SHA-256 of the token that is good
    previous: bytes = field(default=b"", repr=False)  # of the one before
    rotated_s: float = 0.0  # when `previous` was replaced
    generation: int = 1  # rises with each rotation
    sealed: bytes = field(default=b"", repr=False)  # the current token, sealed by the caller, to give it again
    session: bytes = field(default=b"", repr=False)
    code: bytes = field(default=b"", repr=False)  # the hash of the authorization code from which it came
    scopes: tuple[str, ...] = ()
    resources: tuple[str, ...] = ()  # RFC 8707
    authenticated_s: int = 0
    created_s: float = 0.0
    expires_s: int
    idle_timeout_s: int = 0  # 0: no such limit
    body: Mapping[str, Any] = field(default_factory=dict, hash=False, repr=False)  # JSON, and bytes: claims, `jkt` …
    version: int = 1


@dataclass(frozen=True, slots=True)
class Rotation:
    """What came of a refresh.

    "rotated": the presented token was the current one, and the successor is it now. "grace": it was replaced less
    than the grace ago and its successor was not used yet: a refresh that runs beside another; `family` is that of the
    one that was faster, to give the same token again. "reused": it was used up before; the whole family is ended.
    "unknown": there is no such family, or it is over, or no token of it looks like this.
    """

    outcome: Literal["rotated", "grace", "reused", "unknown"]
    family: RefreshFamily | None = None


class TokenStore(Protocol):
    """Clients, grants and refresh families, shared by the workers of a machine, or by all gateways.

    Every method ends within a deadline and raises StoreUnavailable for whatever goes wrong in the store; whether a
    failed or cancelled change took place is unknown. What is over is not found. Who keeps what is there raises
    AlreadyExists; ValueError for what does not fit.
    """

    @property
    def shared(self) -> str:
        """Who sees the same: "process", "machine" or "network"."""

    # -- clients

    async def add_client(self, client: Client) -> None:
        """Keep a new client, in version 1."""

    async def get_client(self, tenant: str, client_id: str) -> Client | None: ...

    async def change_client(self, client: Client, version: int) -> Client | None:
        """Put `client` in place of what has its id; return it, one version up. Raises VersionConflict."""

    async def remove_client(self, tenant: str, client_id: str) -> bool:
        """Remove a client for good, and end all that it was given."""

    async def list_clients(self, tenant: str) -> Sequence[Client]:
        """Return the clients of a tenant in the order of their ids, at most LISTED_MAX."""

    # -- grants

    async def keep(self, grant: Grant) -> None:
        """Keep a new grant. Raises AlreadyExists where its key was ever used, or its subject was revoked since."""

    async def look(self, kind: GrantKind, key: bytes) -> Grant | None:
        """Return a grant without using it."""

    async def change(self, grant: Grant, version: int) -> bool:
        """Put `grant` in place of the one of `version`, which is lower; False where that is not there any more."""

    async def take(self, kind: GrantKind, key: bytes) -> Taken:
        """Use a grant, atomically: however many take it, and wherever, one is the first. It is not tried again
        inside: after StoreUnavailable nobody has it, or one whose answer was lost."""

    # -- refresh tokens

    async def add_family(self, family: RefreshFamily) -> None:
        """Keep a new family. Raises AlreadyExists as `keep` does, and where its code's families were revoked."""

    async def get_family(self, family_id: str) -> RefreshFamily | None: ...

    async def families_of(self, subject: Subject) -> Sequence[RefreshFamily]:
        """Return the families of a subject that are not over, at most LISTED_MAX."""

    async def rotate(
        self,
        family_id: str,
        presented: bytes,
        successor: bytes,
        now_s: float,
        *,
        grace_s: float = 0.0,
        sealed: bytes = b"",
        body: Mapping[str, Any] | None = None,
    ) -> Rotation:
        """Let `successor` follow the presented token, atomically: of many refreshes at once one rotates.

        All three tokens are hashes. Where the presented one was used up before and is out of its grace, the family
        ends here. `sealed` goes with the successor; `body` takes the place of the family's, where given.
        """

    # -- ending

    async def revoke_family(self, family_id: str) -> bool:
        """End a family and all grants with it. False where it was over."""

    async def revoke_subject(self, subject: Subject, before_s: int) -> int:
        """End all that a subject was given; return how much. What rests on a proof from before `before_s` stays out."""

    async def revoke_client(self, tenant: str, client_id: str) -> int: ...

    async def revoke_session(self, session: bytes) -> int:
        """End all that was given within a session."""

    async def revoke_code(self, code: bytes) -> int:
        """End the families that came from an authorization code, which was presented twice; none comes any more."""

    async def purge(self, now_s: float) -> int:
        """Forget what is over; return how much, where the backend does not do it itself."""

    async def close(self) -> None:
        """Release everything. Never raises."""
