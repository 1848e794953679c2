"""Deferred work in Redis, shared by all gateways. See `redis_nodes.py` for how Redis has to be run. Redis 7 or newer.

A stream and one group of consumers, `workers`: whoever reads an entry holds it, and one that is held for too long is
claimed by the next who asks. What is not due yet waits in a sorted set. A hold is an entry's id, how often it was
handed out, and the name of the claim.
"""

from __future__ import annotations

import secrets
from collections.abc import Mapping, Sequence
from typing import Any, Final

import orjson

from gateway.stores.deferred import (
    ATTEMPTS_MAX,
    DONE_KEPT_S,
    ERROR_BYTES_MAX,
    LISTED_MAX,
    Backlog,
    DeadJob,
    Job,
    check_claim,
    check_job,
    spelled,
)
from gateway.stores.pools import PoolState
from gateway.stores.redis_nodes import Command, RedisNodes, Word, script
from gateway.types import Clock

_SLOT: Final = "portcullis:{deferred}"
# The stream of what is due, the sorted set of what is not, the hash of the dead, and by key what became of it:
# "waiting", "dead" or "done".
_STREAM, _LATER, _DEAD, _STATE = f"{_SLOT}:due", f"{_SLOT}:later", f"{_SLOT}:dead", f"{_SLOT}:state:"
_KEYS: Final = (_STREAM, _LATER, _DEAD)

# ARGV: key, the job as JSON, when it is due, the time now.
_PUT: Final = """
if not redis.call('SET', KEYS[4], 'waiting', 'NX') then return 0 end
if tonumber(ARGV[3]) > tonumber(ARGV[4]) then
  redis.call('ZADD', KEYS[2], ARGV[3], ARGV[2])
else
  redis.call('XADD', KEYS[1], '*', 'job', ARGV[2])
end
return 1
"""
# ARGV: the time now, how many, hold in ms, the name of this claim. Answers with triples: id, times handed out, job.
_CLAIM: Final = """
pcall(redis.call, 'XGROUP', 'CREATE', KEYS[1], 'workers', '0', 'MKSTREAM')
for _, job in ipairs(redis.call('ZRANGE', KEYS[2], '-inf', ARGV[1], 'BYSCORE', 'LIMIT', 0, 100)) do
  redis.call('XADD', KEYS[1], '*', 'job', job)
  redis.call('ZREM', KEYS[2], job)
end
local found = {}
local lost = redis.call('XAUTOCLAIM', KEYS[1], 'workers', ARGV[4], ARGV[3], '0', 'COUNT', ARGV[2])[2]
for _, entry in ipairs(lost) do found[#found + 1] = entry end
if #found < tonumber(ARGV[2]) then
  local read = redis.call('XREADGROUP', 'GROUP', 'workers', ARGV[4], 'COUNT', ARGV[2] - #found, 'STREAMS', KEYS[1], '>')
  if read then for _, entry in ipairs(read[1][2]) do found[#found + 1] = entry end end
end
local answer = {}
for _, entry in ipairs(found) do
  local pending = redis.call('XPENDING', KEYS[1], 'workers', entry[1], entry[1], 1)
  answer[#answer + 1] = {entry[1], pending[1][4], entry[2][2]}
end
if #answer == 0 then redis.call('XGROUP', 'DELCONSUMER', KEYS[1], 'workers', ARGV[4]) end
return answer
"""
# KEYS 4: the state of the key. ARGV: id, times handed out, name of the claim, then 'done' and how long that is kept;
# or 'dead', the key and what is written of it; or 'later', when it is due, and the job.
_END: Final = """
local pending = redis.call('XPENDING', KEYS[1], 'workers', ARGV[1], ARGV[1], 1)
if #pending == 0 or pending[1][2] ~= ARGV[3] or pending[1][4] ~= tonumber(ARGV[2]) then return 0 end
redis.call('XACK', KEYS[1], 'workers', ARGV[1])
redis.call('XDEL', KEYS[1], ARGV[1])
if #redis.call('XPENDING', KEYS[1], 'workers', '-', '+', 1, ARGV[3]) == 0 then
  redis.call('XGROUP', 'DELCONSUMER', KEYS[1], 'workers', ARGV[3])
end
if ARGV[4] == 'done' then
  redis.call('SET', KEYS[4], 'done', 'EX', ARGV[5])
elseif ARGV[4] == 'dead' then
  redis.call('SET', KEYS[4], 'dead')
  redis.call('HSET', KEYS[3], ARGV[5], ARGV[6])
else
  redis.call('ZADD', KEYS[2], ARGV[5], ARGV[6])
end
return 1
"""
# ARGV: key.
_REVIVE: Final = """
local dead = redis.call('HGET', KEYS[3], ARGV[1])
if not dead then return 0 end
redis.call('HDEL', KEYS[3], ARGV[1])
redis.call('SET', KEYS[4], 'waiting')
local job = cjson.decode(dead)['job']
redis.call('XADD', KEYS[1], '*', 'job', job)
return 1
"""
_COUNT: Final = """
local first = redis.call('XRANGE', KEYS[1], '-', '+', 'COUNT', 1)
local later = redis.call('ZRANGE', KEYS[2], 0, 99)
local oldest = later
if #first > 0 then oldest[#oldest + 1] = first[1][2][2] end
return {redis.call('XLEN', KEYS[1]) + redis.call('ZCARD', KEYS[2]), redis.call('HLEN', KEYS[3]), oldest}
"""


class RedisDeferredWork:
    """Each call is one script in one slot."""

    shared = "network"

    def __init__(self, nodes: RedisNodes, clock: Clock) -> None:
        self._nodes = nodes
        self._closed = False
        self._clock = clock

    def pools(self) -> list[PoolState]:
        return self._nodes.pools()

    async def put(self, kind: str, key: str, body: Mapping[str, Any], due_s: float = 0.0) -> bool:
        check_job(kind, key)
        now_s = self._clock.wall_s()
        job = _spelled(kind, key, spelled(body), 1, now_s)
        keys = (*_KEYS, _STATE + key)
        # Not made twice by itself: the second would find what the first has put, and say that it was known.
        (answer,) = await self._nodes.ask((script(_PUT, keys, key, job, due_s, now_s, replicated=True),), attempts=1)
        return bool(answer)

    async def claim(self, limit: int, hold_s: float) -> Sequence[Job]:
        check_claim(limit, hold_s)
        name = secrets.token_hex(8)
        hold_ms = max(1, int(hold_s * 1000))
        # Once only: what a lost answer had claimed comes again when it was held for too long.
        call = script(_CLAIM, _KEYS, self._clock.wall_s(), limit, hold_ms, name)
        (found,) = await self._nodes.ask((call,), attempts=1)
        jobs = []
        for identifier, count, text in found:
            said = orjson.loads(text)
            hold = f"{identifier.decode()} {count} {name}"
            attempt = said["attempt"] + count - 1
            jobs.append(Job(said["key"], said["kind"], orjson.loads(said["body"]), attempt, said["put_s"], hold))
        return jobs

    async def complete(self, job: Job) -> bool:
        return await self._end(job, "done", int(DONE_KEPT_S))

    async def retry(self, job: Job, due_s: float, error: str) -> bool:
        if job.attempt >= ATTEMPTS_MAX:
            return await self.give_up(job, error)
        return await self._end(job, "later", due_s, _again(job, job.attempt + 1))

    async def give_up(self, job: Job, error: str) -> bool:
        dead = orjson.dumps({"job": _again(job, 1).decode(), "error": error[:ERROR_BYTES_MAX]})
        return await self._end(job, "dead", job.key, dead)

    async def dead(self) -> Sequence[DeadJob]:
        (answer,) = await self._nodes.ask((Command(_DEAD, ("HVALS", _DEAD)),))
        jobs = []
        for text in answer:
            said = orjson.loads(text)
            job = orjson.loads(said["job"])
            jobs.append(DeadJob(job["key"], job["kind"], orjson.loads(job["body"]), said["error"], job["put_s"]))
        return sorted(jobs, key=lambda job: (job.put_s, job.key))[:LISTED_MAX]

    async def revive(self, key: str) -> bool:
        (answer,) = await self._nodes.ask((script(_REVIVE, (*_KEYS, _STATE + key), key, replicated=True),), attempts=1)
        return bool(answer)

    async def backlog(self) -> Backlog:
        ((waiting, dead, oldest),) = await self._nodes.ask((script(_COUNT, _KEYS),))
        return Backlog(waiting, dead, min((orjson.loads(job)["put_s"] for job in oldest), default=None))

    async def purge(self) -> int:
        return 0  # the server forgets by itself

    async def close(self) -> None:
        if not self._closed:
            self._closed = True  # others may use the same connections
            await self._nodes.close()

    async def _end(self, job: Job, outcome: str, *words: Word) -> bool:
        identifier, count, name = job.hold.split(" ")
        keys = (*_KEYS, _STATE + job.key)
        call = script(_END, keys, identifier, count, name, outcome, *words, replicated=True)
        (answer,) = await self._nodes.ask((call,), attempts=1)
        return bool(answer)


def _spelled(kind: str, key: str, body: bytes, attempt: int, put_s: float) -> bytes:
    said = {"key": key, "kind": kind, "body": body.decode(), "attempt": attempt, "put_s": put_s}
    return orjson.dumps(said)


def _again(job: Job, attempt: int) -> bytes:
    return _spelled(job.kind, job.key, spelled(job.body), attempt, job.put_s)
