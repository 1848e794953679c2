"""Relations in one SQLite file, shared by the workers of a machine."""

from __future__ import annotations

import json
import sqlite3
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from gateway.errors import StoreUnavailable
from gateway.stores.base import ORIGIN, PURGE_SLACK_S, Revision
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
from gateway.stores.sqlite_file import SQLiteFile, Watch

PURGE_ROWS_MAX = 10_000  # deleted in one transaction, so that no write waits long

_KEY = "object_type, object_id, relation, subject_type, subject_id, subject_relation"
_SCHEMA = f"""
CREATE TABLE IF NOT EXISTS relations (
  object_type TEXT NOT NULL,
  object_id TEXT NOT NULL,
  relation TEXT NOT NULL,
  subject_type TEXT NOT NULL,
  subject_id TEXT NOT NULL,
  subject_relation TEXT NOT NULL, -- '' where the subject is the entity itself
  expires_at_s INTEGER,
  PRIMARY KEY ({_KEY})
) STRICT, WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS relations_expiry ON relations (expires_at_s) WHERE expires_at_s IS NOT NULL;
CREATE TABLE IF NOT EXISTS relation_changes (
  number INTEGER PRIMARY KEY AUTOINCREMENT, -- never given twice, also after a purge
  at_s INTEGER NOT NULL,
  removed INTEGER NOT NULL,
  object_type TEXT NOT NULL,
  object_id TEXT NOT NULL,
  relation TEXT NOT NULL,
  subject_type TEXT NOT NULL,
  subject_id TEXT NOT NULL,
  subject_relation TEXT NOT NULL,
  expires_at_s INTEGER
) STRICT;
CREATE TABLE IF NOT EXISTS relation_floor (number INTEGER NOT NULL) STRICT; -- changes up to the highest were purged
"""


def _sql(text: str) -> str:
    return " ".join(text.split()).replace("KEY", _KEY)


_ADD = _sql(
    """INSERT INTO relations VALUES (?, ?, ?, ?, ?, ?, ?)
    ON CONFLICT (KEY) DO UPDATE SET expires_at_s = excluded.expires_at_s"""
)
_REMOVE = _sql("DELETE FROM relations WHERE (KEY) = (?, ?, ?, ?, ?, ?)")
_REMOVE_EXPIRED = _sql("DELETE FROM relations WHERE (KEY) = (?, ?, ?, ?, ?, ?) AND expires_at_s < ?")
_LOG = _sql("INSERT INTO relation_changes (at_s, removed, KEY, expires_at_s) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)")
_PAGE = _sql("SELECT number, removed, KEY, expires_at_s FROM relation_changes WHERE number > ? ORDER BY number LIMIT ?")
_ALL = _sql("SELECT KEY, expires_at_s FROM relations WHERE (KEY) > (?, ?, ?, ?, ?, ?) ORDER BY KEY LIMIT ?")
_EXPIRED = _sql("SELECT KEY FROM relations WHERE expires_at_s < ? LIMIT ?")


class SQLiteRelationStore:
    """Two tables: what holds, and what changed; the number of a change is its place.

    Readers look for news every `poll_ms`; one look costs some tens of microseconds.
    """

    shared = "machine"

    def __init__(self, path: Path, *, poll_ms: int = 50) -> None:
        self._file = SQLiteFile(path, _SCHEMA, "relation_changes")
        self._watch = Watch(self._file, poll_ms / 1000, self._has_news)

    async def write(self, adds: Sequence[Relation], removes: Sequence[Relation] = ()) -> Revision:
        check_size(adds, removes)
        revision = await self._file.call(lambda db: self._write(db, adds, removes))
        self._watch.wrote()
        return revision

    async def read_after(self, revision: Revision, limit: int) -> RelationBatch:
        return await self._file.call(lambda db: self._read_after(db, revision, limit))

    async def read_all(self, cursor: str, limit: int) -> RelationPage:
        return await self._file.call(lambda db: self._read_all(db, cursor, limit))

    async def wait(self, revision: Revision, timeout_s: float) -> None:
        await self._watch.wait(revision, timeout_s)

    async def purge(self, now_s: float, log_kept_s: float = LOG_KEPT_S) -> int:
        total = 0
        while True:
            count = await self._file.call(lambda db: _purge_relations(db, int(now_s - PURGE_SLACK_S)))
            total += count
            if count < PURGE_ROWS_MAX:
                break
        while await self._file.call(lambda db: _purge_log(db, int(now_s - log_kept_s))) == PURGE_ROWS_MAX:
            pass
        return total

    async def close(self) -> None:
        await self._file.close()

    # -- in the thread

    def _write(self, db: sqlite3.Connection, adds: Sequence[Relation], removes: Sequence[Relation]) -> Revision:
        db.execute("BEGIN IMMEDIATE")
        try:
            at_s, number = int(time.time()), 0
            for relation in removes:
                texts = texts_of(relation)
                db.execute(_REMOVE, texts)
                number = db.execute(_LOG, (at_s, 1, *texts, None)).lastrowid or 0
            for relation in adds:
                texts = texts_of(relation)
                db.execute(_ADD, (*texts, relation.expires_at_s))
                number = db.execute(_LOG, (at_s, 0, *texts, relation.expires_at_s)).lastrowid or 0
            db.execute("COMMIT")
        except BaseException:
            with suppress(sqlite3.Error):
                db.execute("ROLLBACK")
            raise
        return self._revision(number or self._file.last_number(db))

    def _read_after(self, db: sqlite3.Connection, revision: Revision, limit: int) -> RelationBatch:
        db.execute("BEGIN")  # one state for all that follows
        try:
            after = self._place(db, revision)
            if after is None:
                return RelationBatch((), revision, lost=True)
            found = db.execute(_PAGE, (after, limit + 1)).fetchall()
        finally:
            db.execute("COMMIT")
        page = found[:limit]
        changes = []
        for _, removed, *texts, expires_at_s in page:
            with suppress(ValueError):
                changes.append(RelationChange(relation_of(texts, expires_at_s), bool(removed)))
        return RelationBatch(
            changes=tuple(changes),
            revision=self._revision(page[-1][0] if page else after),
            more=len(found) > limit,
            damaged=len(page) - len(changes),
        )

    def _read_all(self, db: sqlite3.Connection, cursor: str, limit: int) -> RelationPage:
        revision, after = json.loads(cursor) if cursor else (self._revision(self._file.last_number(db)), [""] * 6)
        if self._place(db, revision) is None:
            raise StoreUnavailable("the relations are others than those that were begun to be read")
        query = (
            f"SELECT {_KEY}, expires_at_s FROM relations WHERE ({_KEY}) > (?, ?, ?, ?, ?, ?) ORDER BY {_KEY} LIMIT ?"  # noqa: S608 — constants
        )
        found = db.execute(query, (*after, limit + 1)).fetchall()
        page = found[:limit]
        relations = []
        for *texts, expires_at_s in page:
            with suppress(ValueError):
                relations.append(relation_of(texts, expires_at_s))
        return RelationPage(
            relations=tuple(relations),
            revision=revision,
            cursor=json.dumps([revision, page[-1][:6]]) if len(found) > limit else "",
            damaged=len(page) - len(relations),
        )

    def _has_news(self, db: sqlite3.Connection, revision: Revision) -> bool:
        after = self._place(db, revision)
        return after is None or self._file.last_number(db) > after

    def _revision(self, number: int) -> Revision:
        return f"{self._file.log_id}:{number}"

    def _place(self, db: sqlite3.Connection, revision: Revision) -> int | None:
        """Return the number that `revision` stands for; None where changes after it may be missing."""
        log, _, number = revision.partition(":")
        after = 0 if revision == ORIGIN else int(number)
        known = revision == ORIGIN or log == self._file.log_id
        return after if known and _floor(db) <= after <= self._file.last_number(db) else None


def _floor(db: sqlite3.Connection) -> int:
    (number,) = db.execute("SELECT max(number) FROM relation_floor").fetchone()
    return int(number or 0)


def _purge_relations(db: sqlite3.Connection, before_s: int) -> int:
    dead: list[Any] = db.execute(_EXPIRED, (before_s, PURGE_ROWS_MAX)).fetchall()
    db.execute("BEGIN IMMEDIATE")
    try:
        # Expiry is asked again: it may have been put off since.
        count = sum(db.execute(_REMOVE_EXPIRED, (*key, before_s)).rowcount for key in dead)
        db.execute("COMMIT")
    except BaseException:
        with suppress(sqlite3.Error):
            db.execute("ROLLBACK")
        raise
    return count


def _purge_log(db: sqlite3.Connection, before_s: int) -> int:
    """Forget the oldest changes; what stands after one that is kept is kept, whatever the clocks said."""
    db.execute("BEGIN IMMEDIATE")
    try:
        query = "SELECT number FROM relation_changes WHERE at_s >= ? ORDER BY number LIMIT 1"
        kept = db.execute(query, (before_s,)).fetchone()
        rows = db.execute(
            "SELECT number FROM relation_changes WHERE number < ? ORDER BY number LIMIT ?",
            (kept[0] if kept else 1 << 62, PURGE_ROWS_MAX),
        ).fetchall()
        if rows:
            db.execute("DELETE FROM relation_changes WHERE number <= ?", (rows[-1][0],))
            db.execute("DELETE FROM relation_floor")
            db.execute("INSERT INTO relation_floor VALUES (?)", (rows[-1][0],))
        db.execute("COMMIT")
    except BaseException:
        with suppress(sqlite3.Error):
            db.execute("ROLLBACK")
        raise
    return len(rows)
