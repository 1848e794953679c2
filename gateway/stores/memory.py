"""Stores that live in this process alone: for tests, and for one worker that may forget."""

from __future__ import annotations

import asyncio
import itertools
import secrets
from collections.abc import Sequence
from contextlib import suppress

from gateway.stores.base import ORIGIN, PURGE_SLACK_S, Revision, RevocationBatch, RevocationRow


class MemoryRevocationStore:
    """A log in a dict. Everything that is revoked is forgotten with the process."""

    shared = "process"

    def __init__(self) -> None:
        self._log = secrets.token_hex(4)
        self._rows: dict[int, RevocationRow] = {}  # number -> row, oldest first
        self._last = 0
        self._news = asyncio.Event()

    async def append(self, rows: Sequence[RevocationRow]) -> Revision:
        for row in rows:
            self._last += 1
            self._rows[self._last] = row
        self._news.set()
        self._news = asyncio.Event()
        return self._revision(self._last)

    async def read_after(self, revision: Revision, limit: int) -> RevocationBatch:
        log, _, number = revision.partition(":")
        restarted = revision != ORIGIN and log != self._log
        after = int(number) if revision != ORIGIN and not restarted else 0
        found = list(itertools.islice((pair for pair in self._rows.items() if pair[0] > after), limit + 1))
        page = found[:limit]
        return RevocationBatch(
            rows=tuple(row for _, row in page),
            revision=self._revision(page[-1][0] if page else after),
            more=len(found) > limit,
            restarted=restarted,
        )

    async def wait(self, revision: Revision, timeout_s: float) -> None:
        if revision != self._revision(self._last):
            return
        with suppress(TimeoutError):
            async with asyncio.timeout(timeout_s):
                await self._news.wait()

    async def purge(self, now_s: float) -> int:
        dead = [number for number, row in self._rows.items() if row.until_s + PURGE_SLACK_S < now_s]
        for number in dead:
            del self._rows[number]
        return len(dead)

    async def close(self) -> None:
        self._rows.clear()

    def _revision(self, number: int) -> Revision:
        return f"{self._log}:{number}"
