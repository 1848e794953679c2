"""Records in Redis, one server or a cluster. Redis 7 or newer; see `redis_nodes.py` for how it has to be run.

Each record is one string, a head that scripts read and the body, so that a session takes less than 1 KB. It lies in a
slot of its own, its tags in others; each step is one script in one slot. The order of steps makes them safe: a tag
tells of a record before there is one, and whoever ends all records of a tag leaves tombstones also where there is
nothing yet, so that a record whose making is under way cannot come through.
"""

from __future__ import annotations

import hashlib
import secrets
import struct
from base64 import urlsafe_b64encode
from collections.abc import Mapping, Sequence
from typing import Any, Final

from gateway.errors import StoreUnavailable
from gateway.stores.base import ORIGIN, Revision
from gateway.stores.pools import PoolState
from gateway.stores.records import (
    FOUND_MAX,
    LOG_KEPT_S,
    PURGE_SLACK_S,
    Burial,
    Record,
    RecordChange,
    RecordChanges,
    RecordKind,
    check_tags,
    same,
)
from gateway.stores.redis_nodes import BLOCK_S_MAX, Command, RedisNodes, Word, script

# The head of a record, here and in the scripts: buried, version, expires_s, seen_s, idle_s.
_HEAD: Final = struct.Struct(">BQQQI")
_LUA_HEAD: Final = f"local HEAD, SIZE, SLACK = '>BI8I8I8I4', {_HEAD.size}, {PURGE_SLACK_S}\n"
_LUA_KEEP: Final = (
    _LUA_HEAD
    + """
local function keep(key, buried, version, expires, seen, idle, body)
  local until_s = expires
  if buried == 0 and idle > 0 and seen + idle < until_s then until_s = seen + idle end
  local value = struct.pack(HEAD, buried, version, expires, seen, idle) .. body
  redis.call('SET', key, value, 'EXAT', string.format('%d', until_s + SLACK))
  return value
end
"""
)
# ARGV: head and body.
_CREATE: Final = (
    _LUA_KEEP
    + """
local held = redis.call('GET', KEYS[1])
if held then return held end
local buried, version, expires, seen, idle = struct.unpack(HEAD, ARGV[1])
keep(KEYS[1], buried, version, expires, seen, idle, string.sub(ARGV[1], SIZE + 1))
return false
"""
)
# ARGV: head and body, the version to replace. Answers with what is there then.
_SWAP: Final = (
    _LUA_KEEP
    + """
local held = redis.call('GET', KEYS[1])
if not held then return false end
local is_buried, is_version, _, is_seen = struct.unpack(HEAD, held)
local buried, version, expires, seen, idle = struct.unpack(HEAD, ARGV[1])
if is_buried ~= 0 or is_version ~= tonumber(ARGV[2]) or version <= is_version then return held end
return keep(KEYS[1], buried, version, expires, math.max(seen, is_seen), idle, string.sub(ARGV[1], SIZE + 1))
"""
)
# ARGV: when it was seen.
_TOUCH: Final = (
    _LUA_KEEP
    + """
local held = redis.call('GET', KEYS[1])
if not held then return false end
local buried, version, expires, seen, idle = struct.unpack(HEAD, held)
if buried ~= 0 or seen >= tonumber(ARGV[1]) then return held end
return keep(KEYS[1], buried, version, expires, tonumber(ARGV[1]), idle, string.sub(held, SIZE + 1))
"""
)
# ARGV: until when, the only version to bury or '', until when a tombstone is left where there is nothing or ''.
_BURY: Final = (
    _LUA_KEEP
    + f"local VERSION_LAST = {(1 << 53) - 1}\n"
    + """
local held = redis.call('GET', KEYS[1])
if not held then
  if ARGV[3] ~= '' then keep(KEYS[1], 1, 1, tonumber(ARGV[3]), 0, 0, '') end
  return {'absent', false}
end
local buried, version, expires, seen = struct.unpack(HEAD, held)
if buried ~= 0 then return {'buried', held} end
if ARGV[2] ~= '' and version ~= tonumber(ARGV[2]) then return {'version', held} end
keep(KEYS[1], 1, math.min(version + 1, VERSION_LAST), math.max(expires, tonumber(ARGV[1])), seen, 0, '')
return {'live', held}
"""
)
# ARGV: head and body. The law of `merged` in records.py.
_MERGE: Final = (
    _LUA_KEEP
    + """
local buried, version, expires, seen, idle = struct.unpack(HEAD, ARGV[1])
local body = string.sub(ARGV[1], SIZE + 1)
local held = redis.call('GET', KEYS[1])
if not held then return {1, keep(KEYS[1], buried, version, expires, seen, idle, body)} end
local is_buried, is_version, is_expires, is_seen, is_idle = struct.unpack(HEAD, held)
local stays = is_version >= version
if is_buried ~= buried then stays = is_buried == 1
elseif buried == 1 and is_version == version then stays = is_expires >= expires end
local news = 1
if stays then
  news = 0
  buried, version, idle, body = is_buried, is_version, is_idle, string.sub(held, SIZE + 1)
  if buried == 0 then expires = is_expires end
end
if buried == 0 then seen = math.max(seen, is_seen)
else
  expires = math.max(expires, is_expires)
  if stays then seen = is_seen end
end
return {news, keep(KEYS[1], buried, version, expires, seen, idle, body)}
"""
)
# KEYS: the tag's index and bar. ARGV: key, until when, when it was begun or ''.
_INDEX: Final = """
if ARGV[3] ~= '' then
  local bar = redis.call('GET', KEYS[2])
  if bar and tonumber(ARGV[3]) < tonumber(bar) then return 0 end
end
redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', '(' .. redis.call('TIME')[1])
redis.call('ZADD', KEYS[1], 'GT', ARGV[2], ARGV[1])
if redis.call('EXPIRETIME', KEYS[1]) < tonumber(ARGV[2]) then redis.call('EXPIREAT', KEYS[1], ARGV[2]) end
return 1
"""
# ARGV: the bar, until when.
_BAR: Final = """
local bar = redis.call('GET', KEYS[2])
local until_s = math.max(tonumber(ARGV[2]), bar and redis.call('EXPIRETIME', KEYS[2]) or 0)
local before = math.max(tonumber(ARGV[1]), bar and tonumber(bar) or 0)
redis.call('SET', KEYS[2], string.format('%d', before), 'EXAT', string.format('%d', until_s))
return redis.call('ZRANGE', KEYS[1], 0, -1)
"""
# KEYS: the log and its name. ARGV: a name for a new log, how much is kept, then triples: key, version, buried.
_NOTE: Final = """
redis.call('SET', KEYS[2], ARGV[1], 'NX')
local oldest = string.format('%d-0', (tonumber(redis.call('TIME')[1]) - tonumber(ARGV[2])) * 1000)
for i = 3, #ARGV, 3 do
  redis.call('XADD', KEYS[1], 'MINID', '~', oldest, '*', 'key', ARGV[i], 'version', ARGV[i + 1], 'buried', ARGV[i + 2])
end
return 1
"""
# ARGV: a name for a new log.
_END: Final = """
redis.call('SET', KEYS[2], ARGV[1], 'NX')
local last, first = '0-0', '0-0'
if redis.call('EXISTS', KEYS[1]) == 1 then
  local told, is = redis.call('XINFO', 'STREAM', KEYS[1]), {}
  for i = 1, #told, 2 do is[told[i]] = told[i + 1] end
  last = is['last-generated-id']
  if is['entries-added'] > is['length'] then
    local oldest = redis.call('XRANGE', KEYS[1], '-', '+', 'COUNT', 1)
    first = #oldest > 0 and oldest[1][1] or last
  end
end
return {redis.call('GET', KEYS[2]), last, first}
"""
PAGE: Final = 200  # records in one go


class RedisRecordStore:
    """Records of one kind."""

    shared = "network"

    def __init__(self, kind: RecordKind, nodes: RedisNodes) -> None:
        self.kind = kind
        self._nodes = nodes
        self._closed = False
        self._prefix = f"portcullis:{kind.name}:"
        log = f"{self._prefix}{{changes}}"  # one slot for the log and its name
        self._log = (f"{log}:log", f"{log}:name")

    def pools(self) -> list[PoolState]:
        return self._nodes.pools()

    async def create(self, record: Record, tags: Sequence[str] = (), begun_s: int | None = None) -> bool:
        # Looked at first, or tags of ours would tell of what somebody else has under this key.
        there = (await self.get((record.key,))).get(record.key)
        if there is not None and not same(there, record):
            return False
        if not await self._index(record, tags, begun_s):
            return False
        held = await self._one(self._on(record.key, _CREATE, _value(record)))
        return held is None or same(_record(record.key, held), record)

    async def get(self, keys: Sequence[bytes]) -> Mapping[bytes, Record]:
        found: dict[bytes, Record] = {}
        for start in range(0, len(keys), PAGE):
            page = keys[start : start + PAGE]
            answers = await self._nodes.ask([Command(self._key(key), ("GET", self._key(key))) for key in page])
            found |= {key: _record(key, held) for key, held in zip(page, answers, strict=True) if held is not None}
        return found

    async def swap(self, record: Record, version: int, tags: Sequence[str] = ()) -> bool:
        check_tags(tags)
        held = await self._one(self._on(record.key, _SWAP, _value(record), version))
        if held is None or not same(_record(record.key, held), record):
            return False
        await self._index(record, tags, None)
        await self._note(record)
        return True

    async def touch(self, key: bytes, seen_s: int, tags: Sequence[str] = ()) -> Record | None:
        held = await self._one(self._on(key, _TOUCH, seen_s))
        if held is None:
            return None
        record = _record(key, held)
        if not record.buried:
            await self._index(record, tags, None)
        return record

    async def bury(self, key: bytes, expires_s: int, *, version: int | None = None, absent: bool = False) -> Burial:
        only = "" if version is None else version
        # Not made twice by itself: the second would find its own tombstone and hide who buried it.
        command = self._on(key, _BURY, expires_s, only, expires_s if absent else "", replicated=True)
        (found, held), *_ = await self._nodes.ask((command,), attempts=1)
        burial = _burial(key, found, held)
        # A tombstone that is there already is told again: whoever made it may have failed before telling.
        if burial.found in ("live", "buried") or (absent and burial.found == "absent"):
            await self._note(_tombstone(key, burial, expires_s))
        return burial

    async def bury_all(self, tag: str, barred_before_s: int, expires_s: int) -> int:
        check_tags((tag,))
        slot = self._tag(tag)
        until_s = expires_s + PURGE_SLACK_S
        bar = script(_BAR, slot, barred_before_s, until_s, replicated=True)
        keys: list[bytes] = await self._one(bar)
        count = 0
        for start in range(0, len(keys), PAGE):
            page = keys[start : start + PAGE]
            commands = [self._on(key, _BURY, 1, "", expires_s, replicated=True) for key in page]
            burials = [
                _burial(key, found, held)
                for key, (found, held) in zip(page, await self._nodes.ask(commands), strict=True)
            ]
            count += sum(burial.found == "live" for burial in burials)
            await self._note(*(_tombstone(key, each, expires_s) for key, each in zip(page, burials, strict=True)))
            await self._one(Command(slot[0], ("ZREM", slot[0], *page)))
        return count

    async def find(self, tag: str, limit: int = FOUND_MAX) -> Sequence[Record]:
        check_tags((tag,))
        index, _ = self._tag(tag)
        found: list[Record] = []
        ends: list[bytes] = []
        start = 0
        while len(found) < limit:
            words: tuple[Word, ...] = ("ZRANGE", index, "+inf", "-inf", "BYSCORE", "REV", "LIMIT", start, PAGE)
            keys: list[bytes] = await self._one(Command(index, words))
            records = await self.get(keys)
            found += [record for key in keys if (record := records.get(key)) is not None and not record.buried]
            ends += [key for key, record in records.items() if record.buried]
            if len(keys) < PAGE:
                break
            start += PAGE
        if ends:  # a tombstone stays one: nothing is lost by forgetting that it had the tag
            await self._one(Command(index, ("ZREM", index, *ends)))
        return found[:limit]

    async def merge(self, record: Record, tags: Sequence[str] = (), begun_s: int | None = None) -> bool:
        if not record.buried and not await self._index(record, tags, begun_s):
            await self.bury(record.key, record.expires_s, absent=True)
            return False
        news, held = await self._one(self._on(record.key, _MERGE, _value(record), replicated=record.buried))
        now = _record(record.key, held)
        if news or now.buried:
            await self._note(now)
        return same(now, record)

    async def read_after(self, revision: Revision, limit: int) -> RecordChanges:
        log, last, first = await self._end()
        name, _, after = revision.partition(":")
        end = f"{log}:{last}"
        if revision == ORIGIN:
            return RecordChanges((), end)
        if name != log or not _order(first) <= _order(after) <= _order(last):
            return RecordChanges((), end, lost=True)
        stream, _ = self._log
        words: tuple[Word, ...] = ("XRANGE", stream, f"({after}", "+", "COUNT", limit + 1)
        entries: list[tuple[bytes, Mapping[bytes, bytes]]] = await self._one(Command(stream, words))
        changes = tuple(_change(entry) for _, entry in entries[:limit])
        place = entries[:limit][-1][0].decode() if entries else after
        return RecordChanges(changes, f"{log}:{place}", more=len(entries) > limit)

    async def wait(self, revision: Revision, timeout_s: float) -> None:
        block_s = min(timeout_s, BLOCK_S_MAX)
        if block_s <= 0:
            return
        stream, _ = self._log
        after = revision.rpartition(":")[2] or "$"
        block_ms = max(1, int(block_s * 1000))
        await self._nodes.block(stream, ("XREAD", "COUNT", 1, "BLOCK", block_ms, "STREAMS", stream, after), block_s)

    async def purge(self, now_s: float) -> int:
        return 0  # the server forgets by itself

    async def close(self) -> None:
        if not self._closed:
            self._closed = True  # others may use the same connections
            await self._nodes.close()

    # --

    async def _one(self, command: Command) -> Any:
        (answer,) = await self._nodes.ask((command,))
        return answer

    async def _index(self, record: Record, tags: Sequence[str], begun_s: int | None) -> bool:
        """Let tags tell of a record. False where it was begun before the bar of one of them."""
        check_tags(tags)
        until_s = record.expires_s + PURGE_SLACK_S
        begun: Word = "" if begun_s is None else begun_s
        commands = [script(_INDEX, self._tag(tag), record.key, until_s, begun) for tag in tags]
        return not commands or all(await self._nodes.ask(commands))

    async def _note(self, *records: Record) -> None:
        if not self.kind.logged or not records:
            return
        words: list[Word] = []
        for record in records:
            words += [record.key, record.version, int(record.buried)]
        await self._one(script(_NOTE, self._log, secrets.token_hex(8), int(LOG_KEPT_S), *words, replicated=True))

    async def _end(self) -> tuple[str, str, str]:
        """Return the log's name, the highest id that it ever gave, and where what it still has begins."""
        name, last, first = await self._one(script(_END, self._log, secrets.token_hex(8)))
        return name.decode(), last.decode(), first.decode()

    def _on(self, key: bytes, text: str, *arguments: Word, replicated: bool = False) -> Command:
        return script(text, (self._key(key),), *arguments, replicated=replicated)

    def _key(self, key: bytes) -> str:
        return self._prefix + urlsafe_b64encode(key).decode().rstrip("=")

    def _tag(self, tag: str) -> tuple[str, str]:
        """Return the keys of a tag's index and bar, in one slot."""
        name = urlsafe_b64encode(hashlib.sha256(tag.encode()).digest()[:18]).decode()
        slot = f"{self._prefix}{{tag:{name}}}"
        return f"{slot}:index", f"{slot}:bar"


def _value(record: Record) -> bytes:
    head = _HEAD.pack(record.buried, record.version, record.expires_s, record.seen_s, record.idle_s)
    return head + record.body


def _record(key: bytes, held: bytes) -> Record:
    try:
        buried, version, expires_s, seen_s, idle_s = _HEAD.unpack_from(held)
        return Record(key, version, held[_HEAD.size :], expires_s, seen_s, idle_s, bool(buried))
    except (struct.error, ValueError) as error:
        raise StoreUnavailable("a record in Redis cannot be read") from error


def _burial(key: bytes, found: bytes, held: bytes | None) -> Burial:
    record = None if held is None else _record(key, held)
    match found:
        case b"live":
            return Burial("live", record)
        case b"version":
            return Burial("version", record)
        case b"buried":
            return Burial("buried", record)
        case _:
            return Burial("absent")


def _tombstone(key: bytes, burial: Burial, expires_s: int) -> Record:
    """Return what lies there after a burial."""
    before = burial.record
    if before is None:
        return Record(key, 1, b"", expires_s, buried=True)
    return before if before.buried else before.entombed(expires_s)


def _change(said: Mapping[bytes, bytes]) -> RecordChange:
    try:
        return RecordChange(said[b"key"], int(said[b"version"]), said[b"buried"] != b"0")
    except (KeyError, ValueError) as error:
        raise StoreUnavailable("an entry in the log of changes cannot be read") from error


def _order(identifier: str) -> tuple[int, int]:
    milliseconds, _, sequence = identifier.partition("-")
    return int(milliseconds), int(sequence or 0)
