"""Rows in Redis, shared by all gateways. See `redis_server.py` for how Redis has to be run. Redis 7 or newer."""

from __future__ import annotations

import json
import secrets
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any

from gateway.stores.base import ORIGIN, PURGE_SLACK_S, Revision
from gateway.stores.redis_server import BLOCK_S_MAX, CALL_TIMEOUT_S, RedisServer, answer
from gateway.stores.redis_stream import START, last_id, log_name, order
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

PURGE_PAGE = 1000  # rows or changes in one call

# ARGV: a name for a new log, then for each change: "+" or "-", key, value.
_WRITE_EXPIRING = """
redis.call('SET', KEYS[1], ARGV[1], 'NX')
local last = ''
for i = 2, #ARGV, 3 do
  local key, expiry = ARGV[i + 1], ARGV[i + 2]
  redis.call('ZREM', KEYS[4], key)
  if ARGV[i] == '+' then
    redis.call('HSET', KEYS[2], key, expiry)
    if expiry ~= '' then redis.call('ZADD', KEYS[4], expiry, key) end
  else
    redis.call('HDEL', KEYS[2], key)
  end
  last = redis.call('XADD', KEYS[3], '*', 'do', ARGV[i], 'key', key, 'expiry', expiry)
end
return {redis.call('GET', KEYS[1]), last}
"""
_WRITE = """
redis.call('SET', KEYS[1], ARGV[1], 'NX')
local last = ''
for i = 2, #ARGV, 3 do
  local key = ARGV[i + 1]
  if ARGV[i] == '+' then
    redis.call('HSET', KEYS[2], key, ARGV[i + 2])
  else
    redis.call('HDEL', KEYS[2], key)
  end
  last = redis.call('XADD', KEYS[3], '*', 'do', ARGV[i], 'key', key)
end
return {redis.call('GET', KEYS[1]), last}
"""
# ARGV: what expired before this goes; how many at most.
_PURGE = """
local dead = redis.call('ZRANGE', KEYS[2], '-inf', '(' .. ARGV[1], 'BYSCORE', 'LIMIT', 0, ARGV[2])
for _, key in ipairs(dead) do
  redis.call('HDEL', KEYS[1], key)
  redis.call('ZREM', KEYS[2], key)
end
return #dead
"""
# ARGV: what was logged before this millisecond goes; how many at most.
_PURGE_LOG = """
local old = redis.call('XRANGE', KEYS[1], '-', '(' .. ARGV[1] .. '-0', 'COUNT', ARGV[2])
if #old == 0 then return 0 end
local last = old[#old][1]
redis.call('SET', KEYS[2], last)
for _, entry in ipairs(old) do redis.call('XDEL', KEYS[1], entry[1]) end
return #old
"""


class RedisRowStore:
    """A hash of what is there and a stream of what changed; one script writes both.

    A revision is the log's name, the replication id of the server, and the id of an entry. The replication id changes
    when another server takes over, or the same one comes back from a crash: either may have lost what was acknowledged
    last, so that everything is read anew.
    """

    shared = "network"

    def __init__(self, layout: RowLayout, url: str) -> None:
        self.layout = layout
        self._server = RedisServer(url)
        self._follower = RedisServer(url)  # connections of its own: whoever follows never waits behind whoever reads
        tag = "portcullis:{" + layout.many + "}"  # one hash tag, so that a cluster keeps all in one slot
        self._log = f"{tag}:log"  # a name: a server that was emptied gets another
        self._held = f"{tag}:held"  # hash: key as JSON -> text, or time of expiry or ""
        self._changes = f"{tag}:changes"  # stream
        self._expiry = f"{tag}:expiry"  # sorted set of the keys that expire, by when
        self._floor = f"{tag}:floor"  # the last change that was purged

    async def write(self, puts: Sequence[Row], removes: Sequence[Key] = ()) -> Revision:
        check_size(puts, removes)
        arguments: list[str | int] = [secrets.token_hex(8)]
        for key in removes:
            arguments += ["-", _field(key), ""]
        for key, value in puts:
            arguments += ["+", _field(key), "" if value is None else value]
        script = _WRITE_EXPIRING if self.layout.expires else _WRITE
        keys = (self._log, self._held, self._changes, self._expiry)
        client = await self._server.open()
        async with self._server.bounded(CALL_TIMEOUT_S):
            async with client.pipeline(transaction=True) as pipe:
                pipe.eval(script, len(keys), *keys, *arguments)
                pipe.info("replication")
                (log, last), information = await pipe.execute()
            if not last:
                last = await last_id(client, self._changes)
            return _revision(log, information, last)

    async def read(self, keys: Sequence[Key]) -> RowsFound:
        client = await self._server.open()
        async with self._server.bounded(CALL_TIMEOUT_S):
            async with client.pipeline(transaction=True) as pipe:
                pipe.get(self._log)
                pipe.info("replication")
                pipe.get(self._floor)
                pipe.xrevrange(self._changes, count=1)
                if keys:
                    pipe.hmget(self._held, [_field(key) for key in keys])
                log, information, floor, newest, *found = await pipe.execute()
            if log is None:
                log = await log_name(client, self._log)
        rows = {
            key: self._value(held) for key, held in zip(keys, found[0] if keys else (), strict=True) if held is not None
        }
        return RowsFound(rows, _revision(log, information, newest[0][0] if newest else floor or START))

    async def read_after(self, revision: Revision, limit: int) -> RowBatch:
        client = await self._follower.open()
        after = START if revision == ORIGIN else revision.rpartition(":")[2]
        async with self._follower.bounded(CALL_TIMEOUT_S):
            async with client.pipeline(transaction=True) as pipe:
                pipe.get(self._log)
                pipe.info("replication")
                pipe.get(self._floor)
                pipe.xrange(self._changes, min=f"({after}", max="+", count=limit + 1)
                log, information, floor, found = await pipe.execute()
            if log is None:
                log = await log_name(client, self._log)
            last = found[-1][0].decode() if found else await last_id(client, self._changes)
        here = _revision(log, information, after)
        if (revision not in (ORIGIN, here)) or not order(_text(floor or START)) <= order(after) <= order(last):
            return RowBatch((), revision, lost=True)
        page = found[:limit]
        changes = []
        for _, fields in page:
            with suppress(ValueError, KeyError):
                changes.append(self._change(fields))
        return RowBatch(
            changes=tuple(changes),
            revision=_revision(log, information, page[-1][0]) if page else here,
            more=len(found) > limit,
            damaged=len(page) - len(changes),
        )

    async def read_all(self, cursor: str, limit: int) -> RowPage:
        client = await self._server.open()
        async with self._server.bounded(CALL_TIMEOUT_S):
            if cursor:
                begun, at = json.loads(cursor)
                last = begun.rpartition(":")[2]
            else:
                await log_name(client, self._log)
                begun, at, last = (
                    "",
                    0,
                    await last_id(client, self._changes),
                )  # before the first page: what comes then is logged
            async with client.pipeline(transaction=True) as pipe:
                pipe.get(self._log)
                pipe.info("replication")
                pipe.hscan(self._held, at, count=limit)
                log, information, (following, found) = await pipe.execute()
        here = "" if log is None else _revision(log, information, last)
        if here != (begun or here) or not here:
            raise another_log(self.layout)
        rows = []
        for field, held in found.items():
            with suppress(ValueError):
                rows.append((_key(field), self._value(held)))
        return RowPage(
            rows=tuple(rows),
            revision=here,
            cursor=json.dumps([here, following]) if following else "",
            damaged=len(found) - len(rows),
        )

    async def wait(self, revision: Revision, timeout_s: float) -> None:
        block_s = min(timeout_s, BLOCK_S_MAX)
        if block_s <= 0:
            return
        after = revision.rpartition(":")[2] or START
        client = await self._follower.open()
        async with self._follower.bounded(block_s + CALL_TIMEOUT_S):
            await client.xread({self._changes: after}, count=1, block=max(1, int(block_s * 1000)))

    async def purge(self, now_s: float, log_kept_s: float = LOG_KEPT_S) -> int:
        over_s, old_ms = now_s - PURGE_SLACK_S, max(0, int((now_s - log_kept_s) * 1000))
        total = await self._repeat(_PURGE, (self._held, self._expiry), str(over_s)) if self.layout.expires else 0
        await self._repeat(_PURGE_LOG, (self._changes, self._floor), str(old_ms))
        return total

    async def close(self) -> None:
        await self._server.close()
        await self._follower.close()

    async def _repeat(self, script: str, keys: Sequence[str], argument: str) -> int:
        """Run a script that works off PURGE_PAGE things until it finds no more; return how many there were."""
        client = await self._server.open()
        total, count = 0, PURGE_PAGE
        while count == PURGE_PAGE:
            async with self._server.bounded(CALL_TIMEOUT_S):
                count = int(await answer(client.eval(script, len(keys), *keys, argument, str(PURGE_PAGE))))
            total += count
        return total

    def _change(self, fields: Mapping[bytes, bytes]) -> RowChange:
        """Read an entry of the stream. Raises KeyError and ValueError for one that is none."""
        if fields[b"do"] not in (b"+", b"-"):
            raise ValueError("neither put nor removed")
        value = self._value(fields[b"expiry"]) if self.layout.expires else None
        return RowChange(_key(fields[b"key"]), fields[b"do"] == b"-", value)

    def _value(self, held: bytes) -> Value:
        """Read what a row holds. Raises ValueError for what is none."""
        if not self.layout.expires:
            return held.decode()
        return int(held) if held else None


def _field(key: Key) -> str:
    return json.dumps(key, ensure_ascii=False, separators=(",", ":"))


def _key(field: bytes) -> Key:
    """Read what `_field` spelled. Raises ValueError for what is no key."""
    texts = json.loads(field)
    if not isinstance(texts, list) or not all(isinstance(text, str) for text in texts):
        raise ValueError("not a key")
    return tuple(texts)


def _revision(log: bytes | str, information: Mapping[str, Any], identifier: bytes | str) -> Revision:
    return f"{_text(log)}:{information['master_replid']}:{_text(identifier)}"


def _text(value: bytes | str) -> str:
    return value.decode() if isinstance(value, bytes) else value
