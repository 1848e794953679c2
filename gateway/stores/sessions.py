"""Sessions, and the laws of a store of them. `tests/contract/test_session_store.py` holds every backend to each."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Protocol

from gateway.stores.base import Revision
from gateway.types import Session, Subject

LIFETIME_S_MAX: Final = 400 * 86_400  # of a session; a tombstone outlives every message about it
LISTED_MAX: Final = 1000  # sessions of one subject or client


@dataclass(frozen=True, slots=True)
class SessionChange:
    """What changed: the session under this hash is now of `version`, or revoked. What was read of it before is void."""

    id_hash: bytes
    version: int
    revoked: bool


@dataclass(frozen=True, slots=True)
class SessionChanges:
    """Changes in the order in which they were made, and the place after the last of them."""

    changes: tuple[SessionChange, ...]
    revision: Revision
    more: bool = False
    lost: bool = False  # changes may be missing: whoever keeps sessions forgets them all


class SessionStore(Protocol):
    """Sessions under the SHA-256 of their ids, shared by the workers of a machine, or by all gateways.

    A session that was revoked never comes back, whatever message about it comes late: a tombstone stays for as long
    as one could. Every method ends within a deadline of its own and raises StoreUnavailable for whatever goes wrong
    in the store; whether a failed or cancelled change took place is unknown, and making it again is harmless. May be
    called from many tasks of one event loop at once.
    """

    @property
    def shared(self) -> str:
        """Who sees the same sessions: "process", "machine" or "network"."""

    async def create(self, session: Session) -> None:
        """Keep a new session.

        Raises AlreadyExists where its id was ever used, and where its subject was logged out everywhere
        (`revoke_subject`) after the credential was verified on which the session rests. Raises ValueError for one that
        lives longer than LIFETIME_S_MAX.
        """

    async def get(self, id_hash: bytes) -> Session | None:
        """Return the session; None where there is none, or it ended or was revoked. One round trip."""

    async def touch(self, session: Session, now_s: float) -> Session | None:
        """Note that the session was seen, and return it as it is now; None where it is over. Its version stays."""

    async def replace(self, session: Session, version: int) -> bool:
        """Put `session` in place of the one of `version` that has its id; `session.version` is higher.

        False where another version is there, or none: somebody else was faster.
        """

    async def rotate(self, old: Session, new: Session) -> bool:
        """Let `new` go on where `old`, in exactly this version, ends: at a login or step-up the id changes.

        False where `old` was changed, rotated or revoked meanwhile; then neither is `new` kept. Of many who rotate
        one session at once, one succeeds. Raises as `create` does.
        """

    async def join(self, id_hash: bytes, tenant: str, client_id: str) -> bool:
        """Note that a client was given tokens within a session, for `revoke_client`. False where it is over."""

    async def revoke(self, id_hash: bytes) -> Session | None:
        """End a session for good; return it where it was this call that ended it, None where it was over."""

    async def revoke_subject(self, subject: Subject, before_s: int) -> int:
        """End all sessions of a subject; return how many. Credentials verified before `before_s` start no new one."""

    async def revoke_client(self, tenant: str, client_id: str) -> int:
        """End all sessions within which a client was given tokens; return how many."""

    async def list_of(self, subject: Subject) -> Sequence[Session]:
        """Return the sessions of a subject that are not over, the latest first, at most LISTED_MAX."""

    async def apply(self, session: Session) -> bool:
        """Take what another region says of a session. True: this is what is here now.

        The higher version stays, and what was revoked stays revoked, in whatever order and however often messages come.
        """

    async def apply_revoked(self, id_hash: bytes, version: int, expires_s: int) -> bool:
        """Take another region's word that a session was revoked; also one that is not here yet. True: news here."""

    async def read_after(self, revision: Revision, limit: int) -> SessionChanges:
        """Return what changed after `revision`, at most `limit` changes; ORIGIN is the end of the log.

        A revocation, rotation or replacement is in it as soon as it has returned; that a session is new, or was seen,
        is not.
        """

    async def wait(self, revision: Revision, timeout_s: float) -> None:
        """Return when there may be changes after `revision`, at the latest after `timeout_s`; or earlier."""

    async def purge(self, now_s: float) -> int:
        """Forget what is over; return how much, where the backend does not do it itself."""

    async def close(self) -> None:
        """Release everything; the store is not used afterwards. Never raises."""
