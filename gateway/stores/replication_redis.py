"""The replication queue in Redis: one stream a topic. See `redis_nodes.py` for how Redis has to be run.

Entries are numbered, so that how far a group is behind, and what it has missed, is a subtraction.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any, Final

import orjson

from gateway.stores.pools import PoolState
from gateway.stores.redis_nodes import Command, RedisNodes, script
from gateway.stores.replication import KEPT, Batch, Lag, Message, check_group, check_messages
from gateway.types import Clock

POLL_S: Final = 0.05  # between two looks of who waits

# KEYS: the stream, the number of its last entry. ARGV: how many are kept, then pairs: what goes before the body, body.
_PUBLISH: Final = """
for i = 2, #ARGV, 2 do
  local number = redis.call('INCR', KEYS[2])
  redis.call('XADD', KEYS[1], 'MAXLEN', ARGV[1], string.format('%d-0', number), 'head', ARGV[i], 'body', ARGV[i + 1])
end
return 1
"""
# KEYS: the stream, the number of its last entry, the places. ARGV: the group, how many.
# Answers with the group's place (empty: it has none), the number of the last entry, and entries.
_RECEIVE: Final = """
local place = redis.call('HGET', KEYS[3], ARGV[1]) or ''
local from = place == '' and '-' or string.format('(%d-0', tonumber(place))
local found = redis.call('XRANGE', KEYS[1], from, '+', 'COUNT', ARGV[2])
local answer = {}
for i, entry in ipairs(found) do answer[i] = {entry[1], entry[2][2], entry[2][4]} end
return {place, redis.call('GET', KEYS[2]) or '0', answer}
"""
# ARGV: the group, its new place.
_DONE: Final = """
local place = tonumber(redis.call('HGET', KEYS[3], ARGV[1]) or '0')
if tonumber(ARGV[2]) > place then redis.call('HSET', KEYS[3], ARGV[1], ARGV[2]) end
return 1
"""


class RedisReplicationQueue:
    """Each call is one script in one slot."""

    shared = "network"

    def __init__(self, nodes: RedisNodes, topic: str, clock: Clock, kept: int = KEPT) -> None:
        """Raises ValueError for a topic that is no name."""
        check_group(topic)
        slot = f"portcullis:{{replication:{topic}}}"
        self._keys = (f"{slot}:messages", f"{slot}:last", f"{slot}:places")
        self._nodes = nodes
        self._clock = clock
        self._kept = kept
        self._closed = False

    def pools(self) -> Sequence[PoolState]:
        return self._nodes.pools()

    async def publish(self, messages: Sequence[Message]) -> None:
        check_messages(messages)
        words: list[bytes] = []
        for each in messages:
            words += [orjson.dumps([each.key, each.version, each.at_s]), each.body]
        if words:
            await self._one(script(_PUBLISH, self._keys, self._kept, *words, replicated=True))

    async def receive(self, group: str, limit: int = 100, wait_s: float = 0.0) -> Batch:
        check_group(group)
        loop = asyncio.get_running_loop()
        ends_s = loop.time() + wait_s
        while True:
            batch = await self._look(group, limit)
            left_s = ends_s - loop.time()
            if batch.messages or left_s <= 0:
                return batch
            await asyncio.sleep(min(POLL_S, left_s))

    async def done(self, batch: Batch) -> None:
        await self._one(script(_DONE, self._keys, batch.group, batch.place, replicated=True))

    async def lag(self, group: str) -> Lag:
        check_group(group)
        place, last, found = await self._asked(group, 1)
        if not found:
            return Lag(0, 0.0)
        number, message = found[0]
        behind = last - (number - 1 if place is None else max(place, number - 1))
        return Lag(behind, max(0.0, self._clock.wall_s() - message.at_s))

    async def close(self) -> None:
        if not self._closed:
            self._closed = True  # others may use the same connections
            await self._nodes.close()

    async def _look(self, group: str, limit: int) -> Batch:
        place, last, found = await self._asked(group, limit)
        if not found:
            # Where all that followed was removed, the place is behind it now, and that is told.
            lost = place is not None and last > place
            return Batch(group, (), str(last if lost else place or 0), lost)
        lost = place is not None and found[0][0] > place + 1
        return Batch(group, tuple(message for _, message in found), str(found[-1][0]), lost)

    async def _asked(self, group: str, limit: int) -> tuple[int | None, int, list[tuple[int, Message]]]:
        told, last, entries = await self._one(script(_RECEIVE, self._keys, group, limit))
        found = []
        for identifier, head, body in entries:
            key, version, at_s = orjson.loads(head)
            found.append((int(identifier.partition(b"-")[0]), Message(key, version, body, at_s)))
        return int(told) if told else None, int(last), found

    async def _one(self, command: Command) -> Any:
        (answer,) = await self._nodes.ask((command,))
        return answer


__all__ = ["RedisReplicationQueue"]
