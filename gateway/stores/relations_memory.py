"""Relations that live in this process alone: for tests, and for one worker that loads them anew at each start."""

from __future__ import annotations

import asyncio
import itertools
import secrets
from collections.abc import Sequence
from contextlib import suppress

from gateway.errors import StoreUnavailable
from gateway.stores.base import ORIGIN, PURGE_SLACK_S, Revision
from gateway.stores.relations import (
    LOG_KEPT_S,
    Relation,
    RelationBatch,
    RelationChange,
    RelationPage,
    Subject,
    check_size,
)
from gateway.types import Clock, SystemClock

Key = tuple[object, str, Subject]


class MemoryRelationStore:
    """Relations in a dict, their log in another. Everything is forgotten with the process."""

    shared = "process"

    def __init__(self, *, clock: Clock | None = None) -> None:
        self._clock = clock or SystemClock()
        self._log = secrets.token_hex(4)
        self._relations: dict[Key, tuple[int, Relation]] = {}  # with the number of the last change
        self._changes: dict[int, tuple[float, RelationChange]] = {}  # number -> when and what, oldest first
        self._last = 0
        self._floor = 0  # the last number that was purged
        self._news = asyncio.Event()

    async def write(self, adds: Sequence[Relation], removes: Sequence[Relation] = ()) -> Revision:
        check_size(adds, removes)
        for relation in removes:
            self._relations.pop(relation.key, None)
            self._append(RelationChange(relation, removed=True))
        for relation in adds:
            self._append(RelationChange(relation))
            self._relations.pop(relation.key, None)  # to the end: pages go by the number
            self._relations[relation.key] = (self._last, relation)
        self._news.set()
        self._news = asyncio.Event()
        return self._revision(self._last)

    async def read_after(self, revision: Revision, limit: int) -> RelationBatch:
        log, _, number = revision.partition(":")
        after = 0 if revision == ORIGIN else int(number)
        if (revision != ORIGIN and log != self._log) or not self._floor <= after <= self._last:
            return RelationBatch((), revision, lost=True)
        found = [(at, self._changes[at][1]) for at in range(after + 1, min(after + limit, self._last) + 1)]
        end = found[-1][0] if found else after
        return RelationBatch(tuple(change for _, change in found), self._revision(end), more=end < self._last)

    async def read_all(self, cursor: str, limit: int) -> RelationPage:
        log, start, after = cursor.split(":") if cursor else (self._log, str(self._last), "0")
        if log != self._log:
            raise StoreUnavailable("the relations are others than those that were begun to be read")
        later = (pair for pair in self._relations.values() if pair[0] > int(after))
        found = list(itertools.islice(later, limit + 1))
        page = found[:limit]
        return RelationPage(
            relations=tuple(relation for _, relation in page),
            revision=self._revision(int(start)),
            cursor=f"{log}:{start}:{page[-1][0]}" if len(found) > limit else "",
        )

    async def wait(self, revision: Revision, timeout_s: float) -> None:
        if revision != self._revision(self._last):
            return
        with suppress(TimeoutError):
            async with asyncio.timeout(timeout_s):
                await self._news.wait()

    async def purge(self, now_s: float, log_kept_s: float = LOG_KEPT_S) -> int:
        over_s = now_s - PURGE_SLACK_S
        dead = [
            key
            for key, (_, relation) in self._relations.items()
            if relation.expires_at_s is not None and relation.expires_at_s < over_s
        ]
        for key in dead:
            del self._relations[key]
        old = itertools.takewhile(lambda number: self._changes[number][0] < now_s - log_kept_s, list(self._changes))
        for number in old:
            del self._changes[number]
            self._floor = number
        return len(dead)

    async def close(self) -> None:
        self._relations.clear()
        self._changes.clear()
        self._floor = self._last

    def _append(self, change: RelationChange) -> None:
        self._last += 1
        self._changes[self._last] = (self._clock.wall_s(), change)

    def _revision(self, number: int) -> Revision:
        return f"{self._log}:{number}"
