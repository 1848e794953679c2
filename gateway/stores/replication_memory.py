"""The replication queue in the memory of one process: for tests, and for a gateway that has no other region."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Sequence

from gateway.stores.replication import KEPT, Batch, Lag, Message, check_group, check_messages
from gateway.types import Clock


class MemoryReplicationQueue:
    """Belongs to one event loop."""

    shared = "process"

    def __init__(self, clock: Clock, kept: int = KEPT) -> None:
        self._clock = clock
        self._messages: deque[Message] = deque(maxlen=kept)
        self._published = 0  # since the beginning: the number of the last message
        self._places: dict[str, int] = {}
        self._news = asyncio.Event()

    async def publish(self, messages: Sequence[Message]) -> None:
        check_messages(messages)
        self._messages.extend(messages)
        self._published += len(messages)
        self._news.set()
        self._news = asyncio.Event()

    async def receive(self, group: str, limit: int = 100, wait_s: float = 0.0) -> Batch:
        check_group(group)
        if self._places.get(group, 0) >= self._published and wait_s > 0:
            try:
                async with asyncio.timeout(wait_s):
                    await self._news.wait()
            except TimeoutError:
                pass
        first = self._published - len(self._messages)
        place = self._places.get(group, first)
        begin = max(place, first)
        at = begin - first
        found = tuple(self._messages[index] for index in range(at, min(at + limit, len(self._messages))))
        return Batch(group, found, str(begin + len(found)), lost=begin > place)

    async def done(self, batch: Batch) -> None:
        self._places[batch.group] = max(self._places.get(batch.group, 0), int(batch.place))

    async def lag(self, group: str) -> Lag:
        check_group(group)
        first = self._published - len(self._messages)
        place = max(self._places.get(group, first), first)
        if place >= self._published:
            return Lag(0, 0.0)
        return Lag(self._published - place, max(0.0, self._clock.wall_s() - self._messages[place - first].at_s))

    async def close(self) -> None:
        """Nothing is held."""


__all__ = ["MemoryReplicationQueue"]
