"""Records in SQL: SQLite or PostgreSQL, each call one transaction."""

from __future__ import annotations

import asyncio
import hashlib
import secrets
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any, Final, TypeVar

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
    merged,
    same,
)
from gateway.stores.sql import Program, SQLDatabase, ask, ask_once

T = TypeVar("T")

PURGE_ROWS_MAX: Final = 10_000  # in one transaction, so that no write waits long
LOG_NAME: Final = b"log"  # the key of the record that names the log, under a kind of its own
SERVER_POLL_S: Final = 0.2  # between two looks for news at a server that all workers of all gateways ask
NEVER_S: Final = 253_402_300_799  # 9999-12-31

_COLUMNS: Final = ("key", "version", "body", "expires_s", "seen_s", "idle_s", "buried")
_GET: Final = (
    "SELECT key, version, body, expires_s, seen_s, idle_s, buried FROM portcullis_records"
    " WHERE kind = :kind AND key = :key"
)
_INSERT: Final = (
    "INSERT INTO portcullis_records (kind, kept_until_s, key, version, body, expires_s, seen_s, idle_s, buried)"
    " VALUES (:kind, :kept_until_s, :key, :version, :body, :expires_s, :seen_s, :idle_s, :buried)"
    " ON CONFLICT DO NOTHING"
)
_PUT: Final = (
    "UPDATE portcullis_records SET version = :version, body = :body, expires_s = :expires_s, seen_s = :seen_s,"
    " idle_s = :idle_s, buried = :buried, kept_until_s = :kept_until_s WHERE kind = :kind AND key = :key"
)
_TAG: Final = "INSERT INTO portcullis_record_tags (kind, tag, key) VALUES (:kind, :tag, :key) ON CONFLICT DO NOTHING"
_BAR: Final = "SELECT before_s FROM portcullis_record_bars WHERE kind = :kind AND tag = :tag"
_SET_BAR: Final = (
    "INSERT INTO portcullis_record_bars (kind, tag, before_s, until_s) VALUES (:kind, :tag, :before_s, :until_s)"
    " ON CONFLICT (kind, tag) DO UPDATE SET"
    " before_s = CASE WHEN excluded.before_s > portcullis_record_bars.before_s"
    " THEN excluded.before_s ELSE portcullis_record_bars.before_s END,"
    " until_s = CASE WHEN excluded.until_s > portcullis_record_bars.until_s"
    " THEN excluded.until_s ELSE portcullis_record_bars.until_s END"
)
_TAGGED: Final = (
    "SELECT r.key, r.version, r.body, r.expires_s, r.seen_s, r.idle_s, r.buried"
    " FROM portcullis_record_tags AS t JOIN portcullis_records AS r ON r.kind = t.kind AND r.key = t.key"
    " WHERE t.kind = :kind AND t.tag = :tag AND NOT r.buried ORDER BY r.seen_s DESC LIMIT :most"
)
_UNTAG: Final = "DELETE FROM portcullis_record_tags WHERE kind = :kind AND tag = :tag"
_NOTE: Final = (
    "INSERT INTO portcullis_record_changes (kind, key, version, buried, at_s)"
    " VALUES (:kind, :key, :version, :buried, :at_s)"
)
# The log's name, and as what it was seen the number of the last entry that was forgotten.
_LOG_NAME: Final = "SELECT body, seen_s FROM portcullis_records WHERE kind = :kind AND key = :key"
_FORGOT: Final = "UPDATE portcullis_records SET seen_s = :number WHERE kind = :kind AND key = :key"
_END: Final = "SELECT max(number) FROM portcullis_record_changes WHERE kind = :kind"
_CHANGES: Final = (
    "SELECT number, key, version, buried FROM portcullis_record_changes"
    " WHERE kind = :kind AND number > :after ORDER BY number LIMIT :most"
)
_PURGE: Final = (
    "DELETE FROM portcullis_records WHERE kind = :kind AND key IN"
    " (SELECT key FROM portcullis_records WHERE kind = :kind AND kept_until_s < :now_s LIMIT :most)"
)
_PURGE_TAGS: Final = (
    "DELETE FROM portcullis_record_tags WHERE kind = :kind AND NOT EXISTS (SELECT 1 FROM portcullis_records AS r"
    " WHERE r.kind = portcullis_record_tags.kind AND r.key = portcullis_record_tags.key)"
)
_PURGE_BARS: Final = "DELETE FROM portcullis_record_bars WHERE kind = :kind AND until_s < :now_s"
_OLD: Final = "SELECT max(number) FROM portcullis_record_changes WHERE kind = :kind AND at_s < :before_s"
_PURGE_LOG: Final = "DELETE FROM portcullis_record_changes WHERE kind = :kind AND number <= :number"
_LOCK: Final = "SELECT pg_advisory_xact_lock(:number)"


class SQLRecordStore:
    """Records of one kind. Several kinds may lie in one database."""

    def __init__(self, kind: RecordKind, database: SQLDatabase, *, poll_ms: int = 50) -> None:
        self.kind = kind
        self._database = database
        self._locks = database.shared == "network"  # SQLite has one writer anyway
        self._poll_s = max(poll_ms / 1000, SERVER_POLL_S if self._locks else 0.0)
        self._wrote = asyncio.Event()
        self._closed = False

    @property
    def shared(self) -> str:
        return self._database.shared

    def pools(self) -> Sequence[PoolState]:
        return self._database.pools()

    async def create(self, record: Record, tags: Sequence[str] = (), begun_s: int | None = None) -> bool:
        check_tags(tags)
        return await self._database.write(lambda: self._create(record, tags, begun_s))

    async def get(self, keys: Sequence[bytes]) -> Mapping[bytes, Record]:
        return await self._database.read(lambda: self._get(keys))

    async def swap(self, record: Record, version: int, tags: Sequence[str] = ()) -> bool:
        check_tags(tags)
        return self._told(await self._database.write(lambda: self._swap(record, version, tags)))

    async def touch(self, key: bytes, seen_s: int, tags: Sequence[str] = ()) -> Record | None:
        check_tags(tags)
        return await self._database.write(lambda: self._touch(key, seen_s, tags))

    async def bury(self, key: bytes, expires_s: int, *, version: int | None = None, absent: bool = False) -> Burial:
        return self._told(await self._database.write(lambda: self._bury(key, expires_s, version, absent)))

    async def bury_all(self, tag: str, barred_before_s: int, expires_s: int) -> int:
        check_tags((tag,))
        total, more = 0, True
        while more:
            count = await self._database.write(lambda: self._bury_all(tag, barred_before_s, expires_s))
            total, more = total + count, count == FOUND_MAX
        return self._told(total)

    async def find(self, tag: str, limit: int = FOUND_MAX) -> Sequence[Record]:
        check_tags((tag,))
        return await self._database.read(lambda: self._find(tag, limit))

    async def merge(self, record: Record, tags: Sequence[str] = (), begun_s: int | None = None) -> bool:
        check_tags(tags)
        return self._told(await self._database.write(lambda: self._merge(record, tags, begun_s)))

    async def read_after(self, revision: Revision, limit: int) -> RecordChanges:
        if not self._locks:  # a replica could lack what has returned already
            found = await self._database.read(lambda: self._changes_after(revision, limit))
            if found is not None:
                return found
        return await self._database.write(lambda: self._read_after(revision, limit))

    async def wait(self, revision: Revision, timeout_s: float) -> None:
        loop = asyncio.get_running_loop()
        deadline_s = loop.time() + timeout_s
        while True:
            wrote = self._wrote
            batch = await self._database.read(lambda: self._changes_after(revision, 1))
            rest_s = deadline_s - loop.time()
            if batch is None or batch.changes or batch.lost or rest_s <= 0:
                return
            with suppress(TimeoutError):
                async with asyncio.timeout(min(self._poll_s, rest_s)):
                    await wrote.wait()

    async def purge(self, now_s: float) -> int:
        total, more = 0, True
        while more:
            count = await self._database.write(lambda: self._purge(int(now_s)))
            total, more = total + count, count == PURGE_ROWS_MAX
        return total

    async def close(self) -> None:
        if not self._closed:
            self._closed = True  # others may use the same connections
            await self._database.close()

    # -- programs

    def _create(self, record: Record, tags: Sequence[str], begun_s: int | None) -> Program[bool]:
        if (yield from self._barred(tags, begun_s)):
            return False
        if not (yield ask(_INSERT, **self._values(record))).count:
            held = yield from self._held(record.key)
            if held is None or not same(held, record):
                return False
        yield from self._tag(record.key, tags)
        return True

    def _get(self, keys: Sequence[bytes]) -> Program[Mapping[bytes, Record]]:
        if len(keys) == 1:
            answer = yield ask(_GET, kind=self.kind.name, key=keys[0])
        else:
            from sqlalchemy import select

            from gateway.stores.schema import RECORDS

            columns = [RECORDS.c[name] for name in _COLUMNS]
            query = select(*columns).where(RECORDS.c.kind == self.kind.name, RECORDS.c.key.in_(keys))
            answer = yield ask_once(query)
        return {record.key: record for record in map(_record, answer.rows)}

    def _swap(self, record: Record, version: int, tags: Sequence[str]) -> Program[bool]:
        yield from self._lock_log()
        held = yield from self._held(record.key, lock=True)
        if held is None or held.buried:
            return False
        if same(held, record):
            yield from self._tag(record.key, tags)
            return True
        if held.version != version or record.version <= version:
            return False
        seen_s = max(held.seen_s, record.seen_s)
        yield ask(_PUT, **self._values(_seen(record, seen_s)))
        yield from self._tag(record.key, tags)
        yield from self._note(record)
        return True

    def _touch(self, key: bytes, seen_s: int, tags: Sequence[str]) -> Program[Record | None]:
        held = yield from self._held(key, lock=True)
        if held is None or held.buried:
            return held
        if seen_s > held.seen_s:
            held = _seen(held, seen_s)
            yield ask(_PUT, **self._values(held))
        yield from self._tag(key, tags)
        return held

    def _bury(self, key: bytes, expires_s: int, version: int | None, absent: bool) -> Program[Burial]:
        yield from self._lock_log()
        held = yield from self._held(key, lock=True)
        if held is None and absent:
            stone = Record(key, 1, b"", expires_s, buried=True)
            if (yield ask(_INSERT, **self._values(stone))).count:
                yield from self._note(stone)
                return Burial("absent")
            held = yield from self._held(key, lock=True)  # made meanwhile
        if held is None:
            return Burial("absent")
        if held.buried:
            return Burial("buried", held)
        if version is not None and held.version != version:
            return Burial("version", held)
        stone = held.entombed(expires_s)
        yield ask(_PUT, **self._values(stone))
        yield from self._note(stone)
        return Burial("live", held)

    def _bury_all(self, tag: str, barred_before_s: int, expires_s: int) -> Program[int]:
        yield from self._lock_log()
        yield from self._lock(tag)
        yield ask(_SET_BAR, kind=self.kind.name, tag=tag, before_s=barred_before_s, until_s=expires_s + PURGE_SLACK_S)
        found = yield ask(_TAGGED, kind=self.kind.name, tag=tag, most=FOUND_MAX)
        count = 0
        for key in sorted(_record(row).key for row in found.rows):  # in one order: no two wait for each other
            burial = yield from self._bury(key, 1, None, False)
            count += burial.found == "live"
        if len(found.rows) < FOUND_MAX:
            yield ask(_UNTAG, kind=self.kind.name, tag=tag)
        return len(found.rows) if len(found.rows) == FOUND_MAX else count

    def _find(self, tag: str, limit: int) -> Program[Sequence[Record]]:
        answer = yield ask(_TAGGED, kind=self.kind.name, tag=tag, most=limit)
        return [_record(row) for row in answer.rows]

    def _merge(self, record: Record, tags: Sequence[str], begun_s: int | None) -> Program[bool]:
        yield from self._lock_log()
        if not record.buried and (yield from self._barred(tags, begun_s)):
            yield from self._bury(record.key, record.expires_s, None, True)
            return False
        if (yield ask(_INSERT, **self._values(record))).count:
            yield from self._tag(record.key, () if record.buried else tags)
            yield from self._note(record)
            return True
        held = yield from self._held(record.key, lock=True)
        outcome = merged(held, record)
        yield from self._tag(record.key, () if outcome.buried else tags)
        if outcome != held:
            yield ask(_PUT, **self._values(outcome))
            if held is None or not same(held, outcome):
                yield from self._note(outcome)
        return same(outcome, record)

    def _read_after(self, revision: Revision, limit: int) -> Program[RecordChanges]:
        yield from self._name_log()
        found = yield from self._changes_after(revision, limit)
        if found is None:
            raise StoreUnavailable("the log of changes has no name")
        return found

    def _changes_after(self, revision: Revision, limit: int) -> Program[RecordChanges | None]:
        """Return what follows; None where the log has no name yet."""
        named = (yield ask(_LOG_NAME, kind=f"{self.kind.name}-log", key=LOG_NAME)).row
        if named is None:
            return None
        name, forgotten = bytes(named[0]).decode(), named[1]
        last = (yield ask(_END, kind=self.kind.name)).rows[0][0] or forgotten
        log, _, place = revision.partition(":")
        if revision == ORIGIN:
            return RecordChanges((), f"{name}:{last}")
        after = int(place) if log == name else -1
        if not forgotten <= after <= last:
            return RecordChanges((), f"{name}:{last}", lost=True)
        rows = (yield ask(_CHANGES, kind=self.kind.name, after=after, most=limit + 1)).rows
        page = rows[:limit]
        changes = tuple(RecordChange(bytes(key), version, bool(buried)) for _, key, version, buried in page)
        return RecordChanges(changes, f"{name}:{page[-1][0] if page else after}", more=len(rows) > limit)

    def _purge(self, now_s: int) -> Program[int]:
        over = yield ask(_PURGE, kind=self.kind.name, now_s=now_s, most=PURGE_ROWS_MAX)
        if over.count:
            yield ask(_PURGE_TAGS, kind=self.kind.name)
        yield ask(_PURGE_BARS, kind=self.kind.name, now_s=now_s)
        if self.kind.logged:
            yield from self._lock_log()
            yield from self._name_log()
            number = (yield ask(_OLD, kind=self.kind.name, before_s=time.time() - LOG_KEPT_S)).rows[0][0]
            if number is not None:
                yield ask(_FORGOT, kind=f"{self.kind.name}-log", key=LOG_NAME, number=number)
                yield ask(_PURGE_LOG, kind=self.kind.name, number=number)
        return over.count

    def _name_log(self) -> Program[None]:
        name = Record(LOG_NAME, 1, secrets.token_hex(8).encode(), NEVER_S)
        yield ask(_INSERT, **(self._values(name) | {"kind": f"{self.kind.name}-log"}))

    # -- parts of programs

    def _held(self, key: bytes, *, lock: bool = False) -> Program[Record | None]:
        text = f"{_GET} FOR UPDATE" if lock and self._locks else _GET
        row = (yield ask(text, kind=self.kind.name, key=key)).row
        return None if row is None else _record(row)

    def _tag(self, key: bytes, tags: Sequence[str]) -> Program[None]:
        for tag in tags:
            yield ask(_TAG, kind=self.kind.name, tag=tag, key=key)

    def _barred(self, tags: Sequence[str], begun_s: int | None) -> Program[bool]:
        for tag in sorted(tags):
            yield from self._lock(tag)
            bar = (yield ask(_BAR, kind=self.kind.name, tag=tag)).row
            if begun_s is not None and bar is not None and begun_s < bar[0]:
                return True
        return False

    def _note(self, record: Record) -> Program[None]:
        if not self.kind.logged:
            return
        values = self._values(record)
        yield ask(_NOTE, at_s=time.time(), **{name: values[name] for name in ("kind", "key", "version", "buried")})

    def _lock_log(self) -> Program[None]:
        """Let changes become visible in the order of their numbers. Always the first lock, or two would wait."""
        if self.kind.logged:
            yield from self._lock("")

    def _lock(self, tag: str) -> Program[None]:
        """Let those who add to a tag, and those who end all that has it, come one after the other."""
        if self._locks:
            digest = hashlib.sha256(f"{self.kind.name}:{tag}".encode()).digest()
            yield ask(_LOCK, number=int.from_bytes(digest[:8], "big", signed=True))

    def _values(self, record: Record) -> dict[str, Any]:
        return {
            "kind": self.kind.name,
            "key": record.key,
            "version": record.version,
            "body": record.body,
            "expires_s": record.expires_s,
            "seen_s": record.seen_s,
            "idle_s": record.idle_s,
            "buried": record.buried,
            "kept_until_s": record.kept_until_s,
        }

    def _told(self, result: T) -> T:
        """Wake those who wait in this process; the others look by themselves."""
        self._wrote.set()
        self._wrote = asyncio.Event()
        return result


def _seen(record: Record, seen_s: int) -> Record:
    return Record(record.key, record.version, record.body, record.expires_s, seen_s, record.idle_s, record.buried)


def _record(row: Sequence[Any]) -> Record:
    key, version, body, expires_s, seen_s, idle_s, buried = row
    try:
        return Record(bytes(key), version, bytes(body), expires_s, seen_s, idle_s, bool(buried))
    except ValueError as error:
        raise StoreUnavailable("a record in the database cannot be read") from error
