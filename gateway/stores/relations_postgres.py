"""Relations in PostgreSQL, shared by all gateways. PostgreSQL 12 or newer."""

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
from gateway.stores.relations import (
    LOG_KEPT_S,
    Relation,
    RelationBatch,
    RelationChange,
    RelationPage,
    check_size,
    relation_of,
    texts_of,
)

if TYPE_CHECKING:
    from psycopg import AsyncConnection

PURGE_ROWS_MAX = 10_000  # deleted in one transaction, so that no write waits long
BLOCK_S_MAX = 1.0  # then the server is asked again: one that is frozen, or deaf, is noticed this late
CHANNEL: LiteralString = "portcullis_relations"

# Texts compare by their bytes (collation "C"): an order that is the same on every server, for paging.
_SCHEMA: LiteralString = """
CREATE TABLE IF NOT EXISTS portcullis_relations (
  object_type text COLLATE "C" NOT NULL,
  object_id text COLLATE "C" NOT NULL,
  relation text COLLATE "C" NOT NULL,
  subject_type text COLLATE "C" NOT NULL,
  subject_id text COLLATE "C" NOT NULL,
  subject_relation text COLLATE "C" NOT NULL, -- '' where the subject is the entity itself
  expires_at_s bigint,
  PRIMARY KEY (object_type, object_id, relation, subject_type, subject_id, subject_relation)
);
CREATE INDEX IF NOT EXISTS portcullis_relations_expiry ON portcullis_relations (expires_at_s)
  WHERE expires_at_s IS NOT NULL;
CREATE TABLE IF NOT EXISTS portcullis_relation_changes (
  number bigint PRIMARY KEY,
  at_s double precision NOT NULL,
  removed boolean NOT NULL,
  object_type text NOT NULL,
  object_id text NOT NULL,
  relation text NOT NULL,
  subject_type text NOT NULL,
  subject_id text NOT NULL,
  subject_relation text NOT NULL,
  expires_at_s bigint
);
-- One row. Whoever writes changes it first and so holds all other writers up until its commit: changes become visible
-- in the order of their numbers, which those of a sequence would not.
CREATE TABLE IF NOT EXISTS portcullis_relation_log (
  one boolean PRIMARY KEY DEFAULT true CHECK (one),
  id text NOT NULL,
  last bigint NOT NULL,
  floor bigint NOT NULL -- changes up to this number were purged
);
"""
_KEY: LiteralString = "object_type, object_id, relation, subject_type, subject_id, subject_relation"
_ROWS: LiteralString = """
  unnest(%s::text[], %s::text[], %s::text[], %s::text[], %s::text[], %s::text[], %s::bigint[])
  WITH ORDINALITY AS row (KEY, expires_at_s, place)
"""


def _sql(text: LiteralString) -> LiteralString:
    return text.replace("ROWS", _ROWS).replace("KEY", _KEY)


_LOG_ROW: LiteralString = (
    "INSERT INTO portcullis_relation_log (id, last, floor) VALUES (%s, 0, 0) ON CONFLICT DO NOTHING"
)
# The timeline changes when another server takes over, which may lack what was acknowledged last.
_LOG: LiteralString = (
    "SELECT id || '.' || substr(pg_walfile_name(pg_current_wal_lsn()), 1, 8), last, floor FROM portcullis_relation_log"
)
# A gateway that is frozen in the middle of a write would hold up all others.
_LIMITS: LiteralString = """
SET LOCAL statement_timeout = 2000;
SET LOCAL idle_in_transaction_session_timeout = 2000;
"""
_TAKE: LiteralString = "UPDATE portcullis_relation_log SET last = last + %s"
_REMOVE = _sql("DELETE FROM portcullis_relations WHERE (KEY) IN (SELECT KEY FROM ROWS)")
_ADD = _sql("""
INSERT INTO portcullis_relations SELECT DISTINCT ON (KEY) KEY, expires_at_s FROM ROWS ORDER BY KEY, place DESC
ON CONFLICT (KEY) DO UPDATE SET expires_at_s = excluded.expires_at_s
""")
_CHANGED = _sql("""
INSERT INTO portcullis_relation_changes
SELECT %s + place, extract(epoch FROM clock_timestamp()), %s, KEY, expires_at_s FROM ROWS
""")
_PAGE = _sql("""
SELECT number, removed, KEY, expires_at_s FROM portcullis_relation_changes WHERE number > %s ORDER BY number LIMIT %s
""")
_ALL = _sql("""
SELECT KEY, expires_at_s FROM portcullis_relations WHERE (KEY) > (%s, %s, %s, %s, %s, %s) ORDER BY KEY LIMIT %s
""")
_PURGE: LiteralString = """
DELETE FROM portcullis_relations WHERE expires_at_s < %s
AND ctid = ANY (ARRAY(SELECT ctid FROM portcullis_relations WHERE expires_at_s < %s LIMIT %s))
"""
_OLD: LiteralString = """
SELECT max(number) FROM (
  SELECT number FROM portcullis_relation_changes WHERE number < coalesce(
    (SELECT number FROM portcullis_relation_changes WHERE at_s >= %s ORDER BY number LIMIT 1), 1::bigint << 62
  ) ORDER BY number LIMIT %s
) AS old
"""


class PostgresRelationStore:
    """Two tables: what holds, and what changed. A notification tells of news; the log is the truth.

    A revision is the log's name, the server's timeline, and the number of a change.
    """

    shared = "network"

    def __init__(self, url: str) -> None:
        self._server = PostgresServer(url, _prepare)
        self._news = asyncio.Event()
        self._listening: asyncio.Task[None] | None = None

    async def write(self, adds: Sequence[Relation], removes: Sequence[Relation] = ()) -> Revision:
        check_size(adds, removes)

        async def work(db: AsyncConnection[Any]) -> Revision:
            async with db.transaction():
                await db.execute(_LIMITS)
                await db.execute(_TAKE, (len(adds) + len(removes),))
                log, last, _ = await _row(db, _LOG)
                first = last - len(adds) - len(removes)
                if removes:
                    await db.execute(_REMOVE, _columns(removes))
                    await db.execute(_CHANGED, (first, True, *_columns(removes)))
                if adds:
                    await db.execute(_ADD, _columns(adds))
                    await db.execute(_CHANGED, (first + len(removes), False, *_columns(adds)))
                await db.execute(f"NOTIFY {CHANNEL}")
            return f"{log}:{last}"

        return await self._server.call(work)

    async def read_after(self, revision: Revision, limit: int) -> RelationBatch:
        async def work(db: AsyncConnection[Any]) -> tuple[tuple[str, int, int], list[tuple[Any, ...]]]:
            # The rows first: by then the log has at least them, and a purge after them shows in its floor.
            found = await (await db.execute(_PAGE, (_number(revision), limit + 1))).fetchall()
            return await _row(db, _LOG), found

        (log, last, floor), found = await self._server.call(work)
        after = _number(revision)
        if revision not in (ORIGIN, f"{log}:{after}") or not floor <= after <= last:
            return RelationBatch((), revision, lost=True)
        page = found[:limit]
        changes = []
        for _, removed, *texts, expires_at_s in page:
            with suppress(ValueError):
                changes.append(RelationChange(relation_of(texts, expires_at_s), removed))
        return RelationBatch(
            changes=tuple(changes),
            revision=f"{log}:{page[-1][0] if page else after}",
            more=len(found) > limit,
            damaged=len(page) - len(changes),
        )

    async def read_all(self, cursor: str, limit: int) -> RelationPage:
        begun, after = json.loads(cursor) if cursor else ("", [""] * 6)

        async def work(db: AsyncConnection[Any]) -> tuple[Revision, list[tuple[Any, ...]]]:
            log, last, _ = await _row(db, _LOG)  # before the first page: what comes then is logged
            found = await (await db.execute(_ALL, (*after, limit + 1))).fetchall()
            return f"{log}:{last}", found

        here, found = await self._server.call(work)
        begun = begun or here
        if here.rpartition(":")[0] != begun.rpartition(":")[0]:
            raise StoreUnavailable("the relations are others than those that were begun to be read")
        page = found[:limit]
        relations = []
        for *texts, expires_at_s in page:
            with suppress(ValueError):
                relations.append(relation_of(texts, expires_at_s))
        return RelationPage(
            relations=tuple(relations),
            revision=begun,
            cursor=json.dumps([begun, page[-1][:6]]) if len(found) > limit else "",
            damaged=len(page) - len(relations),
        )

    async def wait(self, revision: Revision, timeout_s: float) -> None:
        if self._listening is None or self._listening.done():
            self._listening = asyncio.create_task(self._listen(), name="relations-listen")
        news = self._news

        async def work(db: AsyncConnection[Any]) -> tuple[str, int, int]:
            return await _row(db, _LOG)

        log, last, _ = await self._server.call(work)
        if revision != f"{log}:{last}":
            return
        with suppress(TimeoutError):
            async with asyncio.timeout(min(timeout_s, BLOCK_S_MAX)):
                await news.wait()

    async def purge(self, now_s: float, log_kept_s: float = LOG_KEPT_S) -> int:
        over_s, old_s = int(now_s - PURGE_SLACK_S), now_s - log_kept_s

        async def relations(db: AsyncConnection[Any]) -> int:
            return (await db.execute(_PURGE, (over_s, over_s, PURGE_ROWS_MAX))).rowcount

        async def changes(db: AsyncConnection[Any]) -> bool:
            async with db.transaction():
                await db.execute(_LIMITS)
                (number,) = await _row(db, _OLD, old_s, PURGE_ROWS_MAX)
                if number is None:
                    return False
                await db.execute("UPDATE portcullis_relation_log SET floor = greatest(floor, %s)", (number,))
                await db.execute("DELETE FROM portcullis_relation_changes WHERE number <= %s", (number,))
            return True

        total, count = 0, PURGE_ROWS_MAX
        while count == PURGE_ROWS_MAX:
            count = await self._server.call(relations)
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
            await self._server.listen(CHANNEL, self._hear)

    def _hear(self) -> None:
        self._news.set()
        self._news = asyncio.Event()


async def _prepare(db: AsyncConnection[Any]) -> None:
    """Make what is missing. Where nothing is, no lock is taken: those of DDL would cross with those of writers."""
    if await _is_made(db):
        return
    async with db.transaction():
        await db.execute("SELECT pg_advisory_xact_lock(7236187012345678)")
        if not await _is_made(db):
            await db.execute(_SCHEMA)
            await db.execute(_LOG_ROW, (secrets.token_hex(8),))


async def _is_made(db: AsyncConnection[Any]) -> bool:
    """Tell whether what is made last is there, with its row. The catalog is read as a table: a server process may
    remember for as long as its transaction lasts that a name was none."""
    (there,) = await _row(
        db,
        "SELECT EXISTS (SELECT FROM pg_tables WHERE schemaname = ANY (current_schemas(false))"
        " AND tablename = 'portcullis_relation_log')",
    )
    return there and (await (await db.execute("SELECT 1 FROM portcullis_relation_log")).fetchone()) is not None


async def _row(db: AsyncConnection[Any], query: LiteralString, *parameters: object) -> tuple[Any, ...]:
    row = await (await db.execute(query, parameters or None)).fetchone()
    assert row is not None
    found: tuple[Any, ...] = row
    return found


def _columns(relations: Sequence[Relation]) -> tuple[list[Any], ...]:
    texts = [texts_of(relation) for relation in relations]
    return (*(list(column) for column in zip(*texts, strict=True)), [relation.expires_at_s for relation in relations])


def _number(revision: Revision) -> int:
    return 0 if revision == ORIGIN else int(revision.rpartition(":")[2])
