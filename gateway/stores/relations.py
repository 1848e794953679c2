"""What the gateway asks of a store of relations: who stands in which relation to what, and every change of it.

The comments are laws: `tests/contract/test_relation_store.py` holds every backend to each of them.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from gateway._native.uid import EntityUid
from gateway.stores.base import UNTIL_S_MAX, Revision
from gateway.stores.rows import LOG_KEPT_S, check_text

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


@dataclass(frozen=True, slots=True)
class Userset:
    """All who stand in `relation` to `object`: the members of a group, the viewers of a folder."""

    object: EntityUid
    relation: str

    def __str__(self) -> str:
        return f"{self.object}#{self.relation}"


Subject = EntityUid | Userset


@dataclass(frozen=True, slots=True)
class Relation:
    """`subject` stands in `relation` to `object`, until the Unix time `expires_at_s` where there is one.

    A store holds one of the same object, relation and subject; the one that was added last says until when.
    Raises ValueError for texts that not every backend can keep.
    """

    object: EntityUid
    relation: str
    subject: Subject
    expires_at_s: int | None = None

    def __post_init__(self) -> None:
        subject = self.subject.object if isinstance(self.subject, Userset) else self.subject
        names = [self.relation] if isinstance(self.subject, EntityUid) else [self.relation, self.subject.relation]
        for text in (self.object.type, self.object.id, subject.type, subject.id, *names):
            check_text(text, "a relation")
        for name in names:
            if not _NAME.fullmatch(name):
                raise ValueError(f"`{name}` is not the name of a relation")
        if self.expires_at_s is not None and not 0 < self.expires_at_s <= UNTIL_S_MAX:
            raise ValueError("a relation expires between 1970 and 9999")

    @property
    def key(self) -> tuple[EntityUid, str, Subject]:
        """What makes it the same relation, whenever it expires."""
        return self.object, self.relation, self.subject

    def __str__(self) -> str:
        return f"{self.object}#{self.relation}@{self.subject}"


@dataclass(frozen=True, slots=True)
class RelationChange:
    """One entry of the log: the relation was added (or given another expiry), or removed."""

    relation: Relation
    removed: bool = False


@dataclass(frozen=True, slots=True)
class RelationBatch:
    """Changes in the order in which they were made, and the place after the last of them."""

    changes: tuple[RelationChange, ...]
    revision: Revision
    more: bool = False  # further changes follow at once
    lost: bool = False  # what follows the given revision is not known any more: all has to be read anew
    damaged: int = 0  # entries that cannot be read, by whomever they were written


@dataclass(frozen=True, slots=True)
class RelationPage:
    """A part of all relations. `revision`: of the log before the first page; `cursor`: "" after the last page."""

    relations: tuple[Relation, ...]
    revision: Revision
    cursor: str
    damaged: int = 0


class RelationStore(Protocol):
    """Relations, and an append-only log of their changes. Shared by the workers of a machine, or by all gateways.

    Every method ends within a deadline of the backend's own, also while the server behind it is stopped, and raises
    StoreUnavailable for anything that went wrong there: no error of a driver passes. Methods may be called from many
    tasks of one event loop at once. Cancelling a call leaves the store usable; whether a cancelled or failed `write`
    took place is unknown, and writing the same again is harmless.
    """

    @property
    def shared(self) -> str:
        """Who sees the same relations: "process", "machine" or "network"."""

    async def write(self, adds: Sequence[Relation], removes: Sequence[Relation] = ()) -> Revision:
        """Remove `removes`, then add `adds`, and log each change: all in one transaction, or nothing.

        Returns the place after the last change. Of `removes` only the key counts; what is not there is no fault. The
        changes are visible to every read that begins, anywhere, after this has returned. Raises ValueError for more
        than CHANGES_MAX of them.
        """

    async def read_after(self, revision: Revision, limit: int) -> RelationBatch:
        """Return the changes after `revision`, oldest first, at most `limit` (≥ 1) of them.

        Each change comes on the way to the end, in one order that all readers share, also while others write. With
        nothing new: no changes, and `revision`. Where changes after `revision` may be missing (they were purged; the
        log is another one, or an earlier state of it; another server took over that may not have seen all of it) the
        batch is empty and `lost`. An entry that cannot be read counts as `damaged` and never hides the next one.
        """

    async def read_all(self, cursor: str, limit: int) -> RelationPage:
        """Return a page of all relations, from the first ("") or from where the last page said; about `limit` of them.

        Every relation that is there from the first page to the last comes at least once. Those that come, and then all
        changes after the first page's `revision`, give the state at the end of the log. Relations that have expired
        may come. A cursor of a log that is gone raises StoreUnavailable.
        """

    async def wait(self, revision: Revision, timeout_s: float) -> None:
        """Return when there may be changes after `revision`: soon after such a write, at the latest after `timeout_s`.

        May return too early, for no reason. Raises StoreUnavailable where writes could not be noticed.
        """

    async def purge(self, now_s: float, log_kept_s: float = LOG_KEPT_S) -> int:
        """Forget relations that have expired more than PURGE_SLACK_S before `now_s`, and what was logged more than
        `log_kept_s` ago; return how many relations went. Nothing is logged: all readers know when relations expire.
        """

    async def close(self) -> None:
        """Release everything; the store is not used afterwards. Never raises."""
