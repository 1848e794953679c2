"""What the gateway asks of a store. The comments are laws: `tests/contract` holds every backend to each of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Literal, Protocol, get_args

RevocationKind = Literal["jti", "sub", "sid"]
KINDS: Final = frozenset(get_args(RevocationKind))

VALUE_BYTES_MAX = 1024  # of an issuer or a value in a revocation
UNTIL_S_MAX = 253_402_300_799  # 9999-12-31
PURGE_SLACK_S = 300.0  # leeway of tokens and difference of clocks: rows stay this much longer than they say

Revision = str
"""A place in one log, opaque to callers. Those of one log are totally ordered by `read_after` alone."""

ORIGIN: Final[Revision] = ""
"""The place before every row of every log."""


@dataclass(frozen=True, slots=True)
class RevocationRow:
    """Tokens of `issuer` whose `kind` claim is `value` are refused.

    `until_s`: Unix time of the latest `exp` that such a token can have; after it the row may be forgotten.
    `issued_before_s`: for `sub` and `sid`, tokens issued at or after this are spared; 0 spares none.
    Raises ValueError for a row that could never be honoured.
    """

    kind: RevocationKind
    issuer: bytes
    value: bytes
    until_s: int
    issued_before_s: int = 0

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise ValueError(f"unknown kind of revocation `{self.kind}`")
        for name, text in (("issuer", self.issuer), ("value", self.value)):
            if not 0 < len(text) <= VALUE_BYTES_MAX:
                raise ValueError(f"the {name} of a revocation has 1 to {VALUE_BYTES_MAX} bytes")
        if not 0 < self.until_s <= UNTIL_S_MAX or not 0 <= self.issued_before_s <= UNTIL_S_MAX:
            raise ValueError("a revocation holds until a time between 1970 and 9999")


@dataclass(frozen=True, slots=True)
class RevocationBatch:
    """Rows in the order in which they were appended, and the place after the last of them."""

    rows: tuple[RevocationRow, ...]
    revision: Revision
    more: bool = False  # further rows follow at once
    restarted: bool = False  # the log of the given revision is gone; the rows begin at the origin of another
    damaged: int = 0  # rows that cannot be read, by whomever they were written


class RevocationStore(Protocol):
    """An append-only log of revocations, shared by the workers of a machine, or by all gateways.

    The log is the truth; `wait` is only a hint. Every method ends within a deadline of the backend's own, also while
    the server behind it is stopped, and raises StoreUnavailable for anything that went wrong there: no error of a
    driver passes. Methods may be called from many tasks of one event loop at once. Cancelling a call leaves the store
    usable; whether a cancelled or failed `append` took place is unknown, and appending the same row again is harmless.
    """

    @property
    def shared(self) -> str:
        """Who sees the same log: "process", "machine" or "network"."""

    async def append(self, rows: Sequence[RevocationRow]) -> Revision:
        """Add rows at the end, durably as far as the backend is durable; return the place after the last.

        All of `rows` or none. A row is visible to every `read_after` that begins, anywhere, after this has returned.
        """

    async def read_after(self, revision: Revision, limit: int) -> RevocationBatch:
        """Return the rows after `revision`, oldest first, at most `limit` (≥ 1) of them.

        Each row that was appended and not purged comes on the way from ORIGIN to the end, in one order that all
        readers share, also while others append; once, or after a fault perhaps again. With nothing new: no rows, and
        `revision`. A revision of a log that does not exist any more (its file deleted, its server emptied) reads as
        ORIGIN and says `restarted`. A row that cannot be read counts as `damaged` and never hides the next one.
        """

    async def wait(self, revision: Revision, timeout_s: float) -> None:
        """Return when there may be rows after `revision`: soon after such an append, at the latest after `timeout_s`.

        May return too early, for no reason. Raises StoreUnavailable where appends could not be noticed.
        """

    async def purge(self, now_s: float) -> int:
        """Forget rows whose `until_s` is more than PURGE_SLACK_S before `now_s`; return how many went.

        Never touches a row that still holds. Readers in the middle of the log lose nothing by it.
        """

    async def close(self) -> None:
        """Release everything; the store is not used afterwards. Never raises."""


def covers(have: Revision, want: Revision) -> bool:
    """Tell whether all changes up to `want` are certainly among those up to `have`. False also means: nobody knows."""
    log, _, place = have.rpartition(":")
    other_log, _, other_place = want.rpartition(":")
    if want == ORIGIN:
        return True
    try:
        return log == other_log and _order(place) >= _order(other_place)
    except ValueError:
        return False


def _order(place: str) -> tuple[int, ...]:
    return tuple(int(part) for part in place.split("-"))
