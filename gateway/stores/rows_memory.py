"""Rows that live in this process alone: for tests, and for one worker that loads them anew at each start."""

from __future__ import annotations

import asyncio
import itertools
import secrets
from collections.abc import Sequence
from contextlib import suppress

from gateway.stores.base import ORIGIN, PURGE_SLACK_S, Revision
from gateway.stores.rows import (
    LOG_KEPT_S,
    Key,
    Row,
    RowBatch,
    RowChange,
    RowLayout,
    RowPage,
    RowsFound,
    Value,
    another_log,
    check_size,
)
from gateway.types import Clock, SystemClock


class MemoryRowStore:
    """Rows in a dict, their log in another. Everything is forgotten with the process."""

    shared = "process"

    def __init__(self, layout: RowLayout, *, clock: Clock | None = None) -> None:
        self.layout = layout
        self._clock = clock or SystemClock()
        self._log = secrets.token_hex(4)
        self._rows: dict[Key, tuple[int, Value]] = {}  # with the number of the last change
        self._changes: dict[int, tuple[float, RowChange]] = {}  # number -> when and what, oldest first
        self._last = 0
        self._floor = 0  # the last number that was purged
        self._news = asyncio.Event()

    async def write(self, puts: Sequence[Row], removes: Sequence[Key] = ()) -> Revision:
        check_size(puts, removes)
        for key in removes:
            self._rows.pop(key, None)
            self._append(RowChange(key, removed=True))
        for key, value in puts:
            self._append(RowChange(key, removed=False, value=value if self.layout.expires else None))
            self._rows.pop(key, None)  # to the end: pages go by the number
            self._rows[key] = (self._last, value)
        self._news.set()
        self._news = asyncio.Event()
        return self._revision(self._last)

    async def read(self, keys: Sequence[Key]) -> RowsFound:
        found = {key: self._rows[key][1] for key in keys if key in self._rows}
        return RowsFound(found, self._revision(self._last))

    async def read_after(self, revision: Revision, limit: int) -> RowBatch:
        log, _, number = revision.partition(":")
        after = 0 if revision == ORIGIN else int(number)
        if (revision != ORIGIN and log != self._log) or not self._floor <= after <= self._last:
            return RowBatch((), revision, lost=True)
        end = min(after + limit, self._last)
        changes = tuple(self._changes[number][1] for number in range(after + 1, end + 1))
        return RowBatch(changes, self._revision(end), more=end < self._last)

    async def read_all(self, cursor: str, limit: int) -> RowPage:
        log, start, after = cursor.split(":") if cursor else (self._log, str(self._last), "0")
        if log != self._log:
            raise another_log(self.layout)
        later = ((key, pair) for key, pair in self._rows.items() if pair[0] > int(after))
        found = list(itertools.islice(later, limit + 1))
        page = found[:limit]
        return RowPage(
            rows=tuple((key, value) for key, (_, value) in page),
            revision=self._revision(int(start)),
            cursor=f"{log}:{start}:{page[-1][1][0]}" if len(found) > limit else "",
        )

    async def wait(self, revision: Revision, timeout_s: float) -> None:
        if revision != self._revision(self._last):
            return
        with suppress(TimeoutError):
            async with asyncio.timeout(timeout_s):
                await self._news.wait()

    async def purge(self, now_s: float, log_kept_s: float = LOG_KEPT_S) -> int:
        dead = [key for key, (_, value) in self._rows.items() if self._is_over(value, now_s - PURGE_SLACK_S)]
        for key in dead:
            del self._rows[key]
        old = itertools.takewhile(lambda number: self._changes[number][0] < now_s - log_kept_s, list(self._changes))
        for number in old:
            del self._changes[number]
            self._floor = number
        return len(dead)

    async def close(self) -> None:
        self._rows.clear()
        self._changes.clear()
        self._floor = self._last

    def _is_over(self, value: Value, before_s: float) -> bool:
        return self.layout.expires and isinstance(value, int) and value < before_s

    def _append(self, change: RowChange) -> None:
        self._last += 1
        self._changes[self._last] = (self._clock.wall_s(), change)

    def _revision(self, number: int) -> Revision:
        return f"{self._log}:{number}"
