"""Records of this process alone: for tests, and for one worker that may forget."""

from __future__ import annotations

import asyncio
import secrets
from collections import defaultdict, deque
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import replace

from gateway.stores.base import ORIGIN, Revision
from gateway.stores.pools import PoolState
from gateway.stores.records import (
    FOUND_MAX,
    PURGE_SLACK_S,
    Burial,
    Record,
    RecordChange,
    RecordChanges,
    RecordKind,
    check_tags,
    merged,
    same,
)

LOG_MAX = 10_000  # changes kept


class MemoryRecordStore:
    """Records in a dict. Nothing in it awaits, so that every method is atomic."""

    shared = "process"

    def __init__(self, kind: RecordKind) -> None:
        self.kind = kind
        self._records: dict[bytes, Record] = {}
        self._tagged: defaultdict[str, set[bytes]] = defaultdict(set)
        self._bars: dict[str, tuple[int, int]] = {}  # tag -> (not begun before, until)
        self._log_id = secrets.token_hex(4)
        self._log: deque[tuple[int, RecordChange]] = deque(maxlen=LOG_MAX)
        self._last = 0
        self._news = asyncio.Event()

    def pools(self) -> Sequence[PoolState]:
        return ()

    async def create(self, record: Record, tags: Sequence[str] = (), begun_s: int | None = None) -> bool:
        check_tags(tags)
        if self._barred(tags, begun_s):
            return False
        held = self._records.get(record.key)
        if held is not None and not same(held, record):
            return False
        self._keep(held or record, tags)
        return True

    async def get(self, keys: Sequence[bytes]) -> Mapping[bytes, Record]:
        return {key: self._records[key] for key in keys if key in self._records}

    async def swap(self, record: Record, version: int, tags: Sequence[str] = ()) -> bool:
        check_tags(tags)
        held = self._records.get(record.key)
        if held is None or held.buried:
            return False
        if same(held, record):
            self._keep(held, tags)
            return True
        if held.version != version or record.version <= version:
            return False
        self._keep(replace(record, seen_s=max(held.seen_s, record.seen_s)), tags)
        self._note(record)
        return True

    async def touch(self, key: bytes, seen_s: int, tags: Sequence[str] = ()) -> Record | None:
        check_tags(tags)
        held = self._records.get(key)
        if held is not None and not held.buried:
            held = replace(held, seen_s=max(held.seen_s, seen_s))
            self._keep(held, tags)
        return held

    async def bury(self, key: bytes, expires_s: int, *, version: int | None = None, absent: bool = False) -> Burial:
        held = self._records.get(key)
        if held is None:
            if absent:
                self._keep(Record(key, 1, b"", expires_s, buried=True))
                self._note(self._records[key])
            return Burial("absent")
        if held.buried:
            return Burial("buried", held)
        if version is not None and held.version != version:
            return Burial("version", held)
        self._keep(held.entombed(expires_s))
        self._note(self._records[key])
        return Burial("live", held)

    async def bury_all(self, tag: str, barred_before_s: int, expires_s: int) -> int:
        check_tags((tag,))
        before_s, until_s = self._bars.get(tag, (0, 0))
        self._bars[tag] = max(before_s, barred_before_s), max(until_s, expires_s)
        count = 0
        for key in self._tagged.pop(tag, ()):
            count += (await self.bury(key, 1)).found == "live"
        return count

    async def find(self, tag: str, limit: int = FOUND_MAX) -> Sequence[Record]:
        keys = self._tagged.get(tag, ())
        return [held for key in keys if (held := self._records.get(key)) is not None and not held.buried][:limit]

    async def merge(self, record: Record, tags: Sequence[str] = (), begun_s: int | None = None) -> bool:
        check_tags(tags)
        if not record.buried and self._barred(tags, begun_s):
            await self.bury(record.key, record.expires_s, absent=True)
            return False
        held = self._records.get(record.key)
        outcome = merged(held, record)
        self._keep(outcome, () if outcome.buried else tags)
        if held is None or not same(held, outcome):
            self._note(outcome)
        return same(outcome, record)

    async def read_after(self, revision: Revision, limit: int) -> RecordChanges:
        log, _, place = revision.partition(":")
        if revision == ORIGIN:
            return RecordChanges((), self._revision(self._last))
        after = int(place) if log == self._log_id else -1
        oldest = self._log[0][0] if self._log else self._last + 1
        if not oldest - 1 <= after <= self._last:
            return RecordChanges((), self._revision(self._last), lost=True)
        found = [entry for entry in self._log if entry[0] > after]
        page = found[:limit]
        return RecordChanges(
            tuple(change for _, change in page),
            self._revision(page[-1][0] if page else after),
            more=len(found) > limit,
        )

    async def wait(self, revision: Revision, timeout_s: float) -> None:
        if revision != self._revision(self._last):
            return
        with suppress(TimeoutError):
            async with asyncio.timeout(timeout_s):
                await self._news.wait()

    async def purge(self, now_s: float) -> int:
        over = [key for key, held in self._records.items() if held.kept_until_s < now_s]
        for key in over:
            del self._records[key]
        for tag in list(self._tagged):
            self._tagged[tag] = {key for key in self._tagged[tag] if key in self._records}
            if not self._tagged[tag]:
                del self._tagged[tag]
        self._bars = {tag: bar for tag, bar in self._bars.items() if bar[1] + PURGE_SLACK_S >= now_s}
        return len(over)

    async def close(self) -> None:
        self._news.set()

    def _barred(self, tags: Sequence[str], begun_s: int | None) -> bool:
        return begun_s is not None and any(begun_s < self._bars.get(tag, (0, 0))[0] for tag in tags)

    def _keep(self, record: Record, tags: Sequence[str] = ()) -> None:
        self._records[record.key] = record
        for tag in tags:
            self._tagged[tag].add(record.key)

    def _note(self, record: Record) -> None:
        if not self.kind.logged:
            return
        self._last += 1
        self._log.append((self._last, RecordChange(record.key, record.version, record.buried)))
        self._news.set()
        self._news = asyncio.Event()

    def _revision(self, place: int) -> Revision:
        return f"{self._log_id}:{place}"
