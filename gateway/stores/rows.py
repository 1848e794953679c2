"""Rows under keys, with an append-only log of their changes: what stores of relations and of attributes are made of.

A layout says what the rows are called and what they hold; each backend keeps any layout. The comments are laws, the
ground of those in `relations.py` and `attributes.py`; by these `tests/contract` holds every backend to them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final, LiteralString, Protocol

from gateway.errors import StoreUnavailable
from gateway.stores.base import Revision

TEXT_BYTES_MAX: Final = 1024  # of each text of a key
CHANGES_MAX: Final = 1000  # of one write: it holds up all others for as long as it lasts
LOG_KEPT_S: Final = 86_400.0  # changes older than this may be forgotten: who is behind by more reads everything anew

Key = tuple[str, ...]
"""The texts that make a row the same row; as many as the layout names."""

Value = int | str | None
"""What a row holds: a text, or the Unix time at which it expires, None for never."""

Row = tuple[Key, Value]


@dataclass(frozen=True, slots=True)
class RowLayout:
    """What rows are called, for tables and keys, and what they hold.

    Where `expires`, a row's value is the time of its expiry and stands in the log too. Otherwise it is a text, and the
    log says only which row changed: whoever wants to know how reads the row.
    """

    one: LiteralString  # "relation"; goes into SQL
    many: LiteralString  # "relations"
    key: tuple[LiteralString, ...]  # names of a key's texts
    expires: bool


@dataclass(frozen=True, slots=True)
class RowChange:
    """One entry of the log. `value`: what was written, for rows that expire; None otherwise, and where removed."""

    key: Key
    removed: bool
    value: Value = None


@dataclass(frozen=True, slots=True)
class RowBatch:
    """Changes in the order in which they were made, and the place after the last of them."""

    changes: tuple[RowChange, ...]
    revision: Revision
    more: bool = False  # further changes follow at once
    lost: bool = False  # what follows the given revision is not known any more: all has to be read anew
    damaged: int = 0  # entries that cannot be read, by whomever they were written


@dataclass(frozen=True, slots=True)
class RowPage:
    """A part of all rows. `revision`: of the log before the first page; `cursor`: "" after the last page."""

    rows: tuple[Row, ...]
    revision: Revision
    cursor: str
    damaged: int = 0


@dataclass(frozen=True, slots=True)
class RowsFound:
    """Those of the rows asked for that are there, and a place in the log of which they show every change before it."""

    rows: Mapping[Key, Value]
    revision: Revision


class RowStore(Protocol):
    """Rows of one layout, and the log of their changes. Shared by the workers of a machine, or by all gateways.

    Every method ends within a deadline of the backend's own, also while the server behind it is stopped, and raises
    StoreUnavailable for anything that went wrong there: no error of a driver passes. Methods may be called from many
    tasks of one event loop at once. Cancelling a call leaves the store usable; whether a cancelled or failed `write`
    took place is unknown, and writing the same again is harmless.
    """

    @property
    def shared(self) -> str:
        """Who sees the same rows: "process", "machine" or "network"."""

    @property
    def layout(self) -> RowLayout: ...

    async def write(self, puts: Sequence[Row], removes: Sequence[Key] = ()) -> Revision:
        """Remove `removes`, then put `puts` in place of what was under their keys, and log each change: all or nothing.

        Returns the place after the last change. What is not there is no fault. The changes are visible to every read
        that begins, anywhere, after this has returned. Raises ValueError for more than CHANGES_MAX of them.
        """

    async def read(self, keys: Sequence[Key]) -> RowsFound:
        """Return those of `keys` that are there, of one state, in one round trip. Rows that have expired may come."""

    async def read_after(self, revision: Revision, limit: int) -> RowBatch:
        """Return the changes after `revision`, oldest first, at most `limit` (≥ 1) of them.

        Each change comes on the way to the end, in one order that all readers share, also while others write. With
        nothing new: no changes, and `revision`. Where changes after `revision` may be missing (they were purged; the
        log is another one, or an earlier state of it; another server took over that may not have seen all of it) the
        batch is empty and `lost`. An entry that cannot be read counts as `damaged` and never hides the next one.
        """

    async def read_all(self, cursor: str, limit: int) -> RowPage:
        """Return a page of all rows, from the first ("") or from where the last page said; about `limit` of them.

        Every row that is there from the first page to the last comes at least once. Those that come, and then all
        changes after the first page's `revision`, give the state at the end of the log. Rows that have expired may
        come. A cursor of a log that is gone raises StoreUnavailable.
        """

    async def wait(self, revision: Revision, timeout_s: float) -> None:
        """Return when there may be changes after `revision`: soon after such a write, at the latest after `timeout_s`.

        May return too early, for no reason. Raises StoreUnavailable where writes could not be noticed.
        """

    async def purge(self, now_s: float, log_kept_s: float = LOG_KEPT_S) -> int:
        """Forget rows that have expired more than PURGE_SLACK_S before `now_s`, and what was logged more than
        `log_kept_s` ago; return how many rows went. Nothing is logged: all readers know when rows expire.
        """

    async def close(self) -> None:
        """Release everything; the store is not used afterwards. Never raises."""


def check_size(puts: Sequence[object], removes: Sequence[object]) -> None:
    """Raise ValueError for a write that is too large."""
    if len(puts) + len(removes) > CHANGES_MAX:
        raise ValueError(f"more than {CHANGES_MAX} changes in one write")


def check_text(text: str, owner: str) -> None:
    """Raise ValueError for a text of a key that not every backend can keep. `owner`: whose, as "a relation"."""
    if "\0" in text:
        raise ValueError(f"{owner} has no NUL in its texts")
    try:
        size = len(text.encode())
    except UnicodeEncodeError as error:
        raise ValueError(f"the texts of {owner} are Unicode") from error
    if size > TEXT_BYTES_MAX:
        raise ValueError(f"the texts of {owner} have at most {TEXT_BYTES_MAX} bytes each")


def another_log(layout: RowLayout) -> StoreUnavailable:
    """Make the error for a cursor whose log is gone."""
    return StoreUnavailable(f"the {layout.many} are others than those that were begun to be read")
