"""Rows in PostgreSQL, shared by all gateways. PostgreSQL 12 or newer."""

from __future__ import annotations

import asyncio
import json
import secrets
from collections.abc import Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Any, LiteralString

from gateway.errors import StoreUnavailable
from gateway.stores.base import ORIGIN, PURGE_SLACK_S, Revision
from gateway.stores.postgres_server import CALL_TIMEOUT_S, PostgresServer
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

if TYPE_CHECKING:
    from psycopg import AsyncConnection

PURGE_ROWS_MAX = 10_000  # deleted in one transaction, so that no write waits long
BLOCK_S_MAX = 1.0  # then the server is asked again: one that is frozen, or deaf, is noticed this late

# Texts compare by their bytes (collation "C"): an order that is the same on every server, for paging.
_SCHEMA: LiteralString = """
CREATE TABLE IF NOT EXISTS portcullis_{many} ({sorted_columns}, {value} {type}{required}, PRIMARY KEY ({key}));
CREATE TABLE IF NOT EXISTS portcullis_{one}_changes (
  number bigint PRIMARY KEY,
  at_s double precision NOT NULL,
  removed boolean NOT NULL,
  {columns}{logged_column}
);
-- One row. Whoever writes changes it first and so holds all other writers up until its commit: changes become visible
-- in the order of their numbers, which those of a sequence would not.
CREATE TABLE IF NOT EXISTS portcullis_{one}_log (
  one boolean PRIMARY KEY DEFAULT true CHECK (one),
  id text NOT NULL,
  last bigint NOT NULL,
  floor bigint NOT NULL -- changes up to this number were purged
);
"""
_EXPIRY_INDEX: LiteralString = """
CREATE INDEX IF NOT EXISTS portcullis_{many}_expiry ON portcullis_{many} (expires_at_s) WHERE expires_at_s IS NOT NULL;
"""
# The timeline changes when another server takes over, which may lack what was acknowledged last.
_LOG_ID: LiteralString = "log.id || '.' || substr(pg_walfile_name(pg_current_wal_lsn()), 1, 8)"
# A gateway that is frozen in the middle of a write would hold up all others.
_LIMITS: LiteralString = """
SET LOCAL statement_timeout = 2000;
SET LOCAL idle_in_transaction_session_timeout = 2000;
"""


class _Statements:
    """The SQL for one layout. Rows are given as one array for each column."""

    def __init__(self, layout: RowLayout) -> None:
        value: LiteralString = "expires_at_s" if layout.expires else "body"
        kind: LiteralString = "bigint" if layout.expires else "text"
        key: LiteralString = ", ".join(layout.key)
        arrays: LiteralString = ", ".join(["%s::text[]"] * len(layout.key))
        words: dict[str, LiteralString] = {
            "one": layout.one,
            "many": layout.many,
            "key": key,
            "value": value,
            "type": kind,
            "required": "" if layout.expires else " NOT NULL",
            "columns": ", ".join([name + " text NOT NULL" for name in layout.key]),
            "sorted_columns": ", ".join([name + ' text COLLATE "C" NOT NULL' for name in layout.key]),
            "marks": ", ".join(["%s"] * len(layout.key)),
            "same_key": " AND ".join(["row." + name + " = asked." + name for name in layout.key]),
            "asked_key": ", ".join(["asked." + name for name in layout.key]),
            "first": layout.key[0],
            "asked": "unnest(" + arrays + ") AS asked (" + key + ")",
            "rows": "unnest("
            + arrays
            + ", %s::"
            + kind
            + "[]) WITH ORDINALITY AS row ("
            + key
            + ", "
            + value
            + ", place)",
            "logged": ", expires_at_s" if layout.expires else "",
            "logged_column": ", expires_at_s bigint" if layout.expires else "",
            "log_id": _LOG_ID,
        }

        def made(text: LiteralString) -> LiteralString:
            return text.format(**words)

        self.channel = made("portcullis_{many}")
        self.schema = made(_SCHEMA + (_EXPIRY_INDEX if layout.expires else ""))
        self.is_made = made(
            "SELECT EXISTS (SELECT FROM pg_tables WHERE schemaname = ANY (current_schemas(false))"
            " AND tablename = 'portcullis_{one}_log')"
        )
        self.has_log = made("SELECT 1 FROM portcullis_{one}_log")
        self.make_log = made(
            "INSERT INTO portcullis_{one}_log (id, last, floor) VALUES (%s, 0, 0) ON CONFLICT DO NOTHING"
        )
        self.log = made("SELECT {log_id}, last, floor FROM portcullis_{one}_log AS log")
        self.take = made("UPDATE portcullis_{one}_log SET last = last + %s")
        self.remove = made("DELETE FROM portcullis_{many} WHERE ({key}) IN (SELECT {key} FROM {asked})")
        self.put = made(
            "INSERT INTO portcullis_{many} SELECT DISTINCT ON ({key}) {key}, {value} FROM {rows}"
            " ORDER BY {key}, place DESC ON CONFLICT ({key}) DO UPDATE SET {value} = excluded.{value}"
        )
        self.changed = made(
            "INSERT INTO portcullis_{one}_changes"
            " SELECT %s + place, extract(epoch FROM clock_timestamp()), %s, {key}{logged} FROM {rows}"
        )
        # One statement sees one state. Each key that is asked for gives a row, which so tells of the log, too.
        self.find = made(
            "SELECT {log_id}, log.last, row.{first} IS NOT NULL, row.{value}, {asked_key}"
            " FROM portcullis_{one}_log AS log CROSS JOIN {asked} LEFT JOIN portcullis_{many} AS row ON {same_key}"
        )
        self.changes = made(
            "SELECT number, removed, {key}{logged} FROM portcullis_{one}_changes"
            " WHERE number > %s ORDER BY number LIMIT %s"
        )
        self.all = made(
            "SELECT {key}, {value} FROM portcullis_{many} WHERE ({key}) > ({marks}) ORDER BY {key} LIMIT %s"
        )
        self.purge = made(
            "DELETE FROM portcullis_{many} WHERE expires_at_s < %s"
            " AND ctid = ANY (ARRAY(SELECT ctid FROM portcullis_{many} WHERE expires_at_s < %s LIMIT %s))"
        )
        self.old = made(
            "SELECT max(number) FROM (SELECT number FROM portcullis_{one}_changes WHERE number < coalesce("
            "(SELECT number FROM portcullis_{one}_changes WHERE at_s >= %s ORDER BY number LIMIT 1), 1::bigint << 62"
            ") ORDER BY number LIMIT %s) AS old"
        )
        self.raise_floor = made("UPDATE portcullis_{one}_log SET floor = greatest(floor, %s)")
        self.forget = made("DELETE FROM portcullis_{one}_changes WHERE number <= %s")


class PostgresRowStore:
    """Two tables: what is there, and what changed. A notification tells of news; the log is the truth.

    A revision is the log's name, the server's timeline, and the number of a change.
    """

    shared = "network"

    def __init__(self, layout: RowLayout, url: str) -> None:
        self.layout = layout
        self._sql = _Statements(layout)
        self._server = PostgresServer(url, self._prepare)
        self._news = asyncio.Event()
        self._listening: asyncio.Task[None] | None = None

    async def write(self, puts: Sequence[Row], removes: Sequence[Key] = ()) -> Revision:
        check_size(puts, removes)
        logged = [value if self.layout.expires else None for _, value in puts]

        async def work(db: AsyncConnection[Any]) -> Revision:
            async with db.transaction():
                await db.execute(_LIMITS)
                await db.execute(self._sql.take, (len(puts) + len(removes),))
                log, last, _ = await _row(db, self._sql.log)
                first = last - len(puts) - len(removes)
                if removes:
                    columns = _columns(removes)
                    await db.execute(self._sql.remove, columns)
                    await db.execute(self._sql.changed, (first, True, *columns, [None] * len(removes)))
                if puts:
                    columns = _columns([key for key, _ in puts])
                    await db.execute(self._sql.put, (*columns, [value for _, value in puts]))
                    await db.execute(self._sql.changed, (first + len(removes), False, *columns, logged))
                await db.execute("NOTIFY " + self._sql.channel)
            return f"{log}:{last}"

        return await self._server.call(work)

    async def read(self, keys: Sequence[Key]) -> RowsFound:
        async def work(db: AsyncConnection[Any]) -> RowsFound:
            if not keys:
                log, last, _ = await _row(db, self._sql.log)
                return RowsFound({}, f"{log}:{last}")
            found = await (await db.execute(self._sql.find, _columns(keys))).fetchall()
            rows: dict[Key, Value] = {tuple(key): value for _, _, there, value, *key in found if there}
            return RowsFound(rows, f"{found[0][0]}:{found[0][1]}")

        return await self._server.call(work)

    async def read_after(self, revision: Revision, limit: int) -> RowBatch:
        async def work(db: AsyncConnection[Any]) -> tuple[tuple[str, int, int], list[tuple[Any, ...]]]:
            # The rows first: by then the log has at least them, and a purge after them shows in its floor.
            found = await (await db.execute(self._sql.changes, (_number(revision), limit + 1))).fetchall()
            return await _row(db, self._sql.log), found

        (log, last, floor), found = await self._server.call(work)
        after = _number(revision)
        if revision not in (ORIGIN, f"{log}:{after}") or not floor <= after <= last:
            return RowBatch((), revision, lost=True)
        page, width = found[:limit], len(self.layout.key)
        changes = tuple(
            RowChange(tuple(rest[:width]), removed, rest[width] if self.layout.expires else None)
            for _, removed, *rest in page
        )
        return RowBatch(changes, f"{log}:{page[-1][0] if page else after}", more=len(found) > limit)

    async def read_all(self, cursor: str, limit: int) -> RowPage:
        width = len(self.layout.key)
        begun, after = json.loads(cursor) if cursor else ("", [""] * width)

        async def work(db: AsyncConnection[Any]) -> tuple[Revision, list[tuple[Any, ...]]]:
            log, last, _ = await _row(db, self._sql.log)  # before the first page: what comes then is logged
            found = await (await db.execute(self._sql.all, (*after, limit + 1))).fetchall()
            return f"{log}:{last}", found

        here, found = await self._server.call(work)
        begun = begun or here
        if here.rpartition(":")[0] != begun.rpartition(":")[0]:
            raise another_log(self.layout)
        page = found[:limit]
        return RowPage(
            rows=tuple((tuple(key), value) for *key, value in page),
            revision=begun,
            cursor=json.dumps([begun, page[-1][:width]]) if len(found) > limit else "",
        )

    async def wait(self, revision: Revision, timeout_s: float) -> None:
        if self._listening is None or self._listening.done():
            self._listening = asyncio.create_task(self._listen(), name=f"{self.layout.many}-listen")
        news = self._news

        async def work(db: AsyncConnection[Any]) -> tuple[str, int, int]:
            return await _row(db, self._sql.log)

        log, last, _ = await self._server.call(work)
        if revision != f"{log}:{last}":
            return
        with suppress(TimeoutError):
            async with asyncio.timeout(min(timeout_s, BLOCK_S_MAX)):
                await news.wait()

    async def purge(self, now_s: float, log_kept_s: float = LOG_KEPT_S) -> int:
        over_s, old_s = int(now_s - PURGE_SLACK_S), now_s - log_kept_s

        async def rows(db: AsyncConnection[Any]) -> int:
            return (await db.execute(self._sql.purge, (over_s, over_s, PURGE_ROWS_MAX))).rowcount

        async def changes(db: AsyncConnection[Any]) -> bool:
            async with db.transaction():
                await db.execute(_LIMITS)
                (number,) = await _row(db, self._sql.old, old_s, PURGE_ROWS_MAX)
                if number is None:
                    return False
                await db.execute(self._sql.raise_floor, (number,))
                await db.execute(self._sql.forget, (number,))
            return True

        total, count = 0, PURGE_ROWS_MAX if self.layout.expires else 0
        while count == PURGE_ROWS_MAX:
            count = await self._server.call(rows)
            total += count
        while await self._server.call(changes):
            pass
        return total

    async def close(self) -> None:
        listening, self._listening = self._listening, None
        if listening is not None:
            listening.cancel()
            await asyncio.wait([listening], timeout=CALL_TIMEOUT_S)
        await self._server.close()

    async def _listen(self) -> None:
        """Hear of news until that fails; the next `wait` begins anew, and meanwhile asks by itself."""
        with suppress(StoreUnavailable):
            await self._server.listen(self._sql.channel, self._hear)

    def _hear(self) -> None:
        self._news.set()
        self._news = asyncio.Event()

    async def _prepare(self, db: AsyncConnection[Any]) -> None:
        """Make what is missing. Where nothing is, no lock is taken: those of DDL would cross with those of writers."""
        if await self._is_made(db):
            return
        async with db.transaction():
            await db.execute("SELECT pg_advisory_xact_lock(7236187012345678)")
            if not await self._is_made(db):
                await db.execute(self._sql.schema)
                await db.execute(self._sql.make_log, (secrets.token_hex(8),))

    async def _is_made(self, db: AsyncConnection[Any]) -> bool:
        """Tell whether what is made last is there, with its row. The catalog is read as a table: a server process may
        remember for as long as its transaction lasts that a name was none."""
        (there,) = await _row(db, self._sql.is_made)
        return there and (await (await db.execute(self._sql.has_log)).fetchone()) is not None


async def _row(db: AsyncConnection[Any], query: LiteralString, *parameters: object) -> tuple[Any, ...]:
    row = await (await db.execute(query, parameters or None)).fetchone()
    assert row is not None
    found: tuple[Any, ...] = row
    return found


def _columns(keys: Sequence[Key]) -> tuple[list[str], ...]:
    return tuple(list(column) for column in zip(*keys, strict=True))


def _number(revision: Revision) -> int:
    return 0 if revision == ORIGIN else int(revision.rpartition(":")[2])
