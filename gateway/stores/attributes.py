"""What the gateway asks of a source of attributes: entities as their source knows them, and every change of them.

The comments are laws: `tests/contract/test_attribute_source.py` holds every backend to each of them.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, NoReturn, Protocol, runtime_checkable

from gateway._native.uid import EntityUid
from gateway.stores.base import Revision
from gateway.stores.rows import LOG_KEPT_S, check_size, check_text

READ_MAX: Final = 1000  # entities asked for at once
BODY_BYTES_MAX: Final = 256 * 1024  # of one entity: some thousand parents
WRITE_BYTES_MAX: Final = 4 * 1024 * 1024  # of all bodies in one write: it holds up all others for as long as it lasts

MEMBERS: Final = frozenset(("attrs", "parents", "tags"))  # of a body


@dataclass(frozen=True, slots=True)
class AttributeBatch:
    """Those of the entities asked for that the source knows; the others it does not have.

    A body is the JSON of a Cedar entity without its uid: {"attrs": {…}, "parents": […], "tags": {…}}, each optional. It
    was written by others: whoever reads it checks it. `revision`: a place in the log of which the bodies show every
    change before it; ORIGIN where the source has no log.
    """

    found: Mapping[EntityUid, bytes]
    revision: Revision


@dataclass(frozen=True, slots=True)
class AttributeChanges:
    """Which entities were written or removed, in that order, and the place after the last of them."""

    uids: tuple[EntityUid, ...]  # the same one may stand in it several times
    revision: Revision
    more: bool = False  # further changes follow at once
    lost: bool = False  # what follows the given revision is not known any more: all that was read may be old
    damaged: int = 0  # entries that cannot be read, by whomever they were written


@dataclass(frozen=True, slots=True)
class AttributePage:
    """A part of all entities. `revision`: of the log before the first page; `cursor`: "" after the last page."""

    entities: tuple[tuple[EntityUid, bytes], ...]
    revision: Revision
    cursor: str
    damaged: int = 0


class AttributeSource(Protocol):
    """Entities, by their uids.

    Every method ends within a deadline of the backend's own, also while the server behind it is stopped, and raises
    StoreUnavailable for anything that went wrong there: no error of a driver passes. Methods may be called from many
    tasks of one event loop at once; cancelling a call leaves the source usable.
    """

    @property
    def name(self) -> str:
        """What the configuration calls it; for messages and metrics."""

    @property
    def shared(self) -> str:
        """Who sees the same entities: "process", "machine" or "network"."""

    async def read(self, uids: Sequence[EntityUid]) -> AttributeBatch:
        """Return what the source knows of `uids`, in one round trip; of one state where the source is followed.

        What was written before this began is seen. Raises ValueError for more than READ_MAX of them.
        """

    async def close(self) -> None:
        """Release everything; the source is not used afterwards. Never raises."""


@runtime_checkable
class FollowedSource(AttributeSource, Protocol):
    """A source that can be written through the gateway and logs every change: nothing read from it has to grow old.

    Cancelling a call leaves it usable; whether a cancelled or failed `write` took place is unknown, and writing the
    same again is harmless.
    """

    async def write(self, upserts: Sequence[tuple[EntityUid, bytes]], removals: Sequence[EntityUid] = ()) -> Revision:
        """Remove `removals`, then put `upserts` in place of what was there, and log each: all at once, or nothing.

        Returns the place after the last change. What is not there is no fault. The changes are visible to every read
        that begins, anywhere, after this has returned. Raises ValueError for more than CHANGES_MAX of them, for bodies
        of more than WRITE_BYTES_MAX, and for what `check_entity` refuses.
        """

    async def read_after(self, revision: Revision, limit: int) -> AttributeChanges:
        """Return which entities changed after `revision`, oldest change first, at most `limit` (≥ 1) of them.

        Each change comes on the way to the end, in one order that all readers share, also while others write. With
        nothing new: no uids, and `revision`. Where changes after `revision` may be missing (they were purged; the log
        is another one, or an earlier state of it; another server took over that may not have seen all of it) there are
        no uids and `lost`. An entry that cannot be read counts as `damaged` and never hides the next one.
        """

    async def read_all(self, cursor: str, limit: int) -> AttributePage:
        """Return a page of all entities, from the first ("") or from where the last page said; about `limit` of them.

        Every entity that is there from the first page to the last comes at least once. A cursor of a log that is gone
        raises StoreUnavailable.
        """

    async def wait(self, revision: Revision, timeout_s: float) -> None:
        """Return when there may be changes after `revision`: soon after such a write, at the latest after `timeout_s`.

        May return too early, for no reason. Raises StoreUnavailable where writes could not be noticed.
        """

    async def purge(self, now_s: float, log_kept_s: float = LOG_KEPT_S) -> int:
        """Forget what was logged more than `log_kept_s` before `now_s`; return 0: no entity ever goes by itself."""


def check_read(uids: Sequence[EntityUid]) -> None:
    """Raise ValueError for more entities than are asked for at once."""
    if len(uids) > READ_MAX:
        raise ValueError(f"more than {READ_MAX} entities in one read")


def check_write(upserts: Sequence[tuple[EntityUid, bytes]], removals: Sequence[EntityUid]) -> None:
    """Raise ValueError for a write that is too large, or holds what is no entity."""
    check_size(upserts, removals)
    if sum(len(body) for _, body in upserts) > WRITE_BYTES_MAX:
        raise ValueError(f"more than {WRITE_BYTES_MAX} bytes in one write")
    for uid in removals:
        check_uid(uid)
    for uid, body in upserts:
        check_entity(uid, body)


def check_uid(uid: EntityUid) -> None:
    """Raise ValueError for an uid that not every backend can keep."""
    if not uid.type:
        raise ValueError("an entity has a type")
    for text in (uid.type, uid.id):
        check_text(text, "an entity")


def can_be_kept(uid: EntityUid) -> bool:
    """Tell whether a uid can be anywhere: a backend might fail at others, which anybody may ask for."""
    try:
        check_uid(uid)
    except ValueError:
        return False
    return True


def check_entity(uid: EntityUid, body: bytes) -> None:
    """Raise ValueError for what is certainly no entity. Whether it fits a schema is for whoever has one."""
    check_uid(uid)
    if len(body) > BODY_BYTES_MAX:
        raise ValueError(f"`{uid}` has more than {BODY_BYTES_MAX} bytes")
    try:
        value = load_json(body)
    except ValueError as error:
        raise ValueError(f"the body of `{uid}` is no JSON: {error}") from error
    if not isinstance(value, dict) or not MEMBERS.issuperset(value):
        raise ValueError(f"the body of `{uid}` is no object of `attrs`, `parents` and `tags`")


def load_json(text: bytes) -> Any:
    """Read a JSON text strictly: UTF-8, every name once in its object, integers as they are. Raises ValueError."""
    try:
        return json.loads(text.decode(), object_pairs_hook=_object, parse_constant=_constant)
    except RecursionError as error:
        raise ValueError("nested too deeply") from error


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    made = dict(pairs)
    if len(made) != len(pairs):
        raise ValueError("a name stands twice in an object")
    return made


def _constant(name: str) -> NoReturn:
    raise ValueError(f"`{name}` is no number")
