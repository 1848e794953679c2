"""Records that end: what stores of sessions and of grants are made of.

A record lies under a key that is used once. It ends by being buried: what stays is a tombstone, which no late message
brings back to life. Until then each change raises its version, and whoever changes it says which version was read.
Tags, short texts like the subject of a session, find many records at once. The comments are laws, by which
`tests/contract` holds every backend; sizes and times are those of the whole system, so that any backend can take over.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final, Literal, LiteralString, Protocol

from gateway.stores.base import Revision
from gateway.stores.pools import PoolState
from gateway.types import VERSION_MAX

KEY_BYTES_MAX: Final = 64
BODY_BYTES_MAX: Final = 64 * 1024
TAG_BYTES_MAX: Final = 512
TAGS_MAX: Final = 64  # added in one call
FOUND_MAX: Final = 1000  # records that one tag gives at once
TIME_S_MAX: Final = 253_402_300_799  # 9999-12-31
PURGE_SLACK_S: Final = 300  # clocks differ: records and tombstones stay this much longer than they say
LOG_KEPT_S: Final = 3600.0  # changes older than this are forgotten: no reader trusts what it read so long ago


@dataclass(frozen=True, slots=True)
class RecordKind:
    """What records of one kind are called, for tables and keys, and whether their changes are logged."""

    name: LiteralString  # "session"; goes into keys
    logged: bool = False


@dataclass(frozen=True, slots=True)
class Record:
    """What lies under a key. Raises ValueError for what not every backend can keep."""

    key: bytes
    version: int  # of the content; `seen_s` moves without it
    body: bytes  # b"" once it is buried
    expires_s: int  # Unix time; after it nobody needs the record, or its tombstone
    seen_s: int = 0
    idle_s: int = 0  # where not 0, the record may be forgotten when it was not seen for so long
    buried: bool = False

    def __post_init__(self) -> None:
        if not 0 < len(self.key) <= KEY_BYTES_MAX:
            raise ValueError(f"the key of a record has 1 to {KEY_BYTES_MAX} bytes")
        if not 0 < self.version < VERSION_MAX:
            raise ValueError(f"the version of a record is between 1 and {VERSION_MAX}")
        if len(self.body) > BODY_BYTES_MAX:
            raise ValueError(f"a record has at most {BODY_BYTES_MAX} bytes")
        if not 0 < self.expires_s <= TIME_S_MAX or not 0 <= self.seen_s <= TIME_S_MAX:
            raise ValueError("a record ends at a time between 1970 and 9999")
        if not 0 <= self.idle_s < 1 << 31:
            raise ValueError("the idle time of a record is between 0 and 2**31 seconds")

    @property
    def kept_until_s(self) -> int:
        """Until when a backend keeps it."""
        end_s = self.expires_s
        if self.idle_s and not self.buried:
            end_s = min(end_s, self.seen_s + self.idle_s)
        return end_s + PURGE_SLACK_S

    def entombed(self, expires_s: int) -> Record:
        """Return the tombstone that takes its place."""
        return replace(
            self,
            version=min(self.version + 1, VERSION_MAX - 1),
            body=b"",
            expires_s=max(self.expires_s, expires_s),
            idle_s=0,
            buried=True,
        )


@dataclass(frozen=True, slots=True)
class Burial:
    """What `bury` found: a live record that it buried, another version of it, a tombstone, or nothing."""

    found: Literal["live", "version", "buried", "absent"]
    record: Record | None = None  # as it was before; None where absent


@dataclass(frozen=True, slots=True)
class RecordChange:
    """One entry of the log: what lies under `key` is now of `version`, or buried."""

    key: bytes
    version: int
    buried: bool


@dataclass(frozen=True, slots=True)
class RecordChanges:
    """Changes in the order in which they were made, and the place after the last of them."""

    changes: tuple[RecordChange, ...]
    revision: Revision
    more: bool = False  # further changes follow at once
    lost: bool = False  # what follows the given revision is not known: nothing that was read may be trusted further


class RecordStore(Protocol):
    """Records of one kind. Shared by the workers of a machine, or by all gateways.

    Every method ends within a deadline of the backend's own, also while a server behind it is stopped, and raises
    StoreUnavailable for anything that went wrong there: no error of a driver passes. Methods may be called from many
    tasks of one event loop at once. Cancelling a call leaves the store usable; whether a cancelled or failed call
    took place is unknown, and making it again with the same arguments is harmless and gives the answer that the first
    would have given, except `bury`, which then finds its own tombstone.
    """

    @property
    def shared(self) -> str:
        """Who sees the same records: "process", "machine" or "network"."""

    @property
    def kind(self) -> RecordKind: ...

    def pools(self) -> Sequence[PoolState]:
        """Return how many connections there are to each server behind it."""

    async def create(self, record: Record, tags: Sequence[str] = (), begun_s: int | None = None) -> bool:
        """Put a record where there never was one, findable by `tags`. False: there is another, or a tombstone.

        False too where `begun_s` is given and before the bar of any of the tags (`bury_all`).
        """

    async def get(self, keys: Sequence[bytes]) -> Mapping[bytes, Record]:
        """Return those of `keys` that are there, tombstones too, in one round trip. Ended ones may come."""

    async def swap(self, record: Record, version: int, tags: Sequence[str] = ()) -> bool:
        """Put `record` in place of the live one of `version`, which is lower. False: there is none of that version.

        Tags are added to those that it has. `seen_s` never goes back.
        """

    async def touch(self, key: bytes, seen_s: int, tags: Sequence[str] = ()) -> Record | None:
        """Note that a live record was seen, unless it was seen later; return what is there then, also a tombstone.

        Tags are written anew: a server that lost them in a failover has them again.
        """

    async def bury(self, key: bytes, expires_s: int, *, version: int | None = None, absent: bool = False) -> Burial:
        """End a live record, atomically: of many that bury it at once exactly one finds it "live".

        With `version`, only that one. The tombstone is kept until `expires_s` or the record's own time, whichever is
        later; where `absent`, one is left also where there was nothing.
        """

    async def bury_all(self, tag: str, barred_before_s: int, expires_s: int) -> int:
        """End every live record that has `tag`; return how many. Whatever begun before `barred_before_s` stays out.

        A `create` with the tag that runs at the same time is either among them or begins after this. Tombstones are
        kept for the records' own time, the bar until `expires_s`; it never goes back.
        """

    async def find(self, tag: str, limit: int = FOUND_MAX) -> Sequence[Record]:
        """Return live records that have `tag`, at most `limit`. Ended ones may come."""

    async def merge(self, record: Record, tags: Sequence[str] = (), begun_s: int | None = None) -> bool:
        """Take what another region says: the higher version stays, a tombstone stays for ever, `seen_s` only grows.

        In whatever order, and however often, messages come, the outcome is the same. True: `record` is what is there
        now. False where something newer is, and where a bar keeps it out: then a tombstone is left.
        """

    async def read_after(self, revision: Revision, limit: int) -> RecordChanges:
        """Return the changes after `revision`, oldest first, at most `limit` (≥ 1); only for a kind that is logged.

        ORIGIN stands for the end of the log: nothing, and its place. Every `swap`, `bury`, `bury_all` and `merge`
        that has returned true, anywhere, before this begins is in the log. Where changes may be missing the answer is
        empty and `lost`, and its revision is the end of the log.
        """

    async def wait(self, revision: Revision, timeout_s: float) -> None:
        """Return when there may be changes after `revision`, at the latest after `timeout_s`; or earlier."""

    async def purge(self, now_s: float) -> int:
        """Forget what is over by more than PURGE_SLACK_S; return how much, where the backend does not do it itself."""

    async def close(self) -> None:
        """Release everything; the store is not used afterwards. Never raises."""


def check_tags(tags: Sequence[str]) -> None:
    """Raise ValueError for tags that not every backend can keep."""
    if len(tags) > TAGS_MAX:
        raise ValueError(f"at most {TAGS_MAX} tags at once")
    for tag in tags:
        if not 0 < len(tag.encode()) <= TAG_BYTES_MAX or "\0" in tag:
            raise ValueError(f"a tag has 1 to {TAG_BYTES_MAX} bytes and no NUL")


def same(one: Record, other: Record) -> bool:
    """Tell whether two live records have the same content."""
    return (one.version, one.body, one.buried) == (other.version, other.body, other.buried)


def merged(held: Record | None, said: Record) -> Record:
    """Return what is there after `said` came to `held`: the law of `merge`, once, for backends that run it here."""
    if held is None:
        return said
    if held.buried or said.buried:
        top = held if held.buried else said
        if held.buried and said.buried and (said.version, said.expires_s) > (held.version, held.expires_s):
            top = said
        return replace(top, expires_s=max(held.expires_s, said.expires_s))
    newer = said if said.version > held.version else held
    return replace(newer, seen_s=max(held.seen_s, said.seen_s))
