"""Rows in one SQLite file, shared by the workers of a machine."""

from __future__ import annotations

import json
import sqlite3
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from gateway.stores.base import ORIGIN, PURGE_SLACK_S, Revision
from gateway.stores.rows import (
    LOG_KEPT_S,
    Key,
    Row,
    RowBatch,
    RowChange,
    RowLayout,
    RowPage,
    RowsFound,
    another_log,
    check_size,
)
from gateway.stores.sqlite_file import SQLiteFile, Watch

PURGE_ROWS_MAX = 10_000  # deleted in one transaction, so that no write waits long

_SCHEMA = """
CREATE TABLE IF NOT EXISTS {many} ({columns}, {value} {type}, PRIMARY KEY ({key})) STRICT, WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS {one}_changes (
  number INTEGER PRIMARY KEY AUTOINCREMENT, -- never given twice, also after a purge
  at_s INTEGER NOT NULL,
  removed INTEGER NOT NULL,
  {columns}{logged_column}
) STRICT;
CREATE TABLE IF NOT EXISTS {one}_floor (number INTEGER NOT NULL) STRICT; -- changes up to the highest were purged
"""
_EXPIRY_INDEX = """
CREATE INDEX IF NOT EXISTS {many}_expiry ON {many} (expires_at_s) WHERE expires_at_s IS NOT NULL;
"""


class _Statements:
    """The SQL for one layout."""

    def __init__(self, layout: RowLayout) -> None:
        words = {
            "one": layout.one,
            "many": layout.many,
            "key": ", ".join(layout.key),
            "columns": ", ".join(f"{name} TEXT NOT NULL" for name in layout.key),
            "marks": ", ".join("?" * len(layout.key)),
            "value": "expires_at_s" if layout.expires else "body",
            "type": "INTEGER" if layout.expires else "TEXT NOT NULL",
            "logged": ", expires_at_s" if layout.expires else "",
            "logged_column": ", expires_at_s INTEGER" if layout.expires else "",
            "logged_mark": ", ?" if layout.expires else "",
        }

        def made(text: str) -> str:
            return text.format_map(words)

        self.schema = made(_SCHEMA + (_EXPIRY_INDEX if layout.expires else ""))
        self.put = made(
            "INSERT INTO {many} VALUES ({marks}, ?) ON CONFLICT ({key}) DO UPDATE SET {value} = excluded.{value}"
        )
        self.remove = made("DELETE FROM {many} WHERE ({key}) = ({marks})")
        self.log = made("INSERT INTO {one}_changes (at_s, removed, {key}{logged}) VALUES (?, ?, {marks}{logged_mark})")
        self.find = made("SELECT {value} FROM {many} WHERE ({key}) = ({marks})")
        self.changes = made(
            "SELECT number, removed, {key}{logged} FROM {one}_changes WHERE number > ? ORDER BY number LIMIT ?"
        )
        self.all = made("SELECT {key}, {value} FROM {many} WHERE ({key}) > ({marks}) ORDER BY {key} LIMIT ?")
        self.expired = made("SELECT {key} FROM {many} WHERE expires_at_s < ? LIMIT ?")
        self.remove_expired = made("DELETE FROM {many} WHERE ({key}) = ({marks}) AND expires_at_s < ?")
        self.kept = made("SELECT number FROM {one}_changes WHERE at_s >= ? ORDER BY number LIMIT 1")
        self.old = made("SELECT number FROM {one}_changes WHERE number < ? ORDER BY number LIMIT ?")
        self.forget = made("DELETE FROM {one}_changes WHERE number <= ?")
        self.floor = made("SELECT max(number) FROM {one}_floor")
        self.lower_floor = made("DELETE FROM {one}_floor")
        self.raise_floor = made("INSERT INTO {one}_floor VALUES (?)")


class SQLiteRowStore:
    """Two tables: what is there, and what changed; the number of a change is its place.

    Readers look for news every `poll_ms`; one look costs some tens of microseconds.
    """

    shared = "machine"

    def __init__(self, layout: RowLayout, path: Path, *, poll_ms: int = 50) -> None:
        self.layout = layout
        self._sql = _Statements(layout)
        self._file = SQLiteFile(path, self._sql.schema, f"{layout.one}_changes")
        self._watch = Watch(self._file, poll_ms / 1000, self._has_news)

    async def write(self, puts: Sequence[Row], removes: Sequence[Key] = ()) -> Revision:
        check_size(puts, removes)
        revision = await self._file.call(lambda db: self._write(db, puts, removes))
        self._watch.wrote()
        return revision

    async def read(self, keys: Sequence[Key]) -> RowsFound:
        return await self._file.call(lambda db: self._read(db, keys))

    async def read_after(self, revision: Revision, limit: int) -> RowBatch:
        return await self._file.call(lambda db: self._read_after(db, revision, limit))

    async def read_all(self, cursor: str, limit: int) -> RowPage:
        return await self._file.call(lambda db: self._read_all(db, cursor, limit))

    async def wait(self, revision: Revision, timeout_s: float) -> None:
        await self._watch.wait(revision, timeout_s)

    async def purge(self, now_s: float, log_kept_s: float = LOG_KEPT_S) -> int:
        total, count = 0, PURGE_ROWS_MAX if self.layout.expires else 0
        while count == PURGE_ROWS_MAX:
            count = await self._file.call(lambda db: self._purge_rows(db, int(now_s - PURGE_SLACK_S)))
            total += count
        while await self._file.call(lambda db: self._purge_log(db, int(now_s - log_kept_s))) == PURGE_ROWS_MAX:
            pass
        return total

    async def close(self) -> None:
        await self._file.close()

    # -- in the thread

    def _write(self, db: sqlite3.Connection, puts: Sequence[Row], removes: Sequence[Key]) -> Revision:
        with _transaction(db, "IMMEDIATE"):
            at_s, number = int(time.time()), 0
            for key in removes:
                db.execute(self._sql.remove, key)
                number = db.execute(self._sql.log, (at_s, 1, *key, *self._logged(None))).lastrowid or 0
            for key, value in puts:
                db.execute(self._sql.put, (*key, value))
                number = db.execute(self._sql.log, (at_s, 0, *key, *self._logged(value))).lastrowid or 0
        return self._revision(number or self._file.last_number(db))

    def _logged(self, value: Any) -> tuple[Any, ...]:
        return (value,) if self.layout.expires else ()

    def _read(self, db: sqlite3.Connection, keys: Sequence[Key]) -> RowsFound:
        rows = {}
        with _transaction(db):
            for key in keys:
                found = db.execute(self._sql.find, key).fetchone()
                if found is not None:
                    rows[key] = found[0]
            return RowsFound(rows, self._revision(self._file.last_number(db)))

    def _read_after(self, db: sqlite3.Connection, revision: Revision, limit: int) -> RowBatch:
        with _transaction(db):
            after = self._place(db, revision)
            if after is None:
                return RowBatch((), revision, lost=True)
            found = db.execute(self._sql.changes, (after, limit + 1)).fetchall()
        page, width = found[:limit], len(self.layout.key)
        changes = tuple(
            RowChange(tuple(rest[:width]), bool(removed), rest[width] if self.layout.expires else None)
            for _, removed, *rest in page
        )
        return RowBatch(changes, self._revision(page[-1][0] if page else after), more=len(found) > limit)

    def _read_all(self, db: sqlite3.Connection, cursor: str, limit: int) -> RowPage:
        width = len(self.layout.key)
        with _transaction(db):
            begun = (self._revision(self._file.last_number(db)), [""] * width)
            revision, after = json.loads(cursor) if cursor else begun
            if self._place(db, revision) is None:
                raise another_log(self.layout)
            found = db.execute(self._sql.all, (*after, limit + 1)).fetchall()
        page = found[:limit]
        return RowPage(
            rows=tuple((tuple(key), value) for *key, value in page),
            revision=revision,
            cursor=json.dumps([revision, page[-1][:width]]) if len(found) > limit else "",
        )

    def _has_news(self, db: sqlite3.Connection, revision: Revision) -> bool:
        after = self._place(db, revision)
        return after is None or self._file.last_number(db) > after

    def _purge_rows(self, db: sqlite3.Connection, before_s: int) -> int:
        dead: list[Any] = db.execute(self._sql.expired, (before_s, PURGE_ROWS_MAX)).fetchall()
        with _transaction(db, "IMMEDIATE"):
            # Expiry is asked again: it may have been put off since.
            return sum(db.execute(self._sql.remove_expired, (*key, before_s)).rowcount for key in dead)

    def _purge_log(self, db: sqlite3.Connection, before_s: int) -> int:
        """Forget the oldest changes; what stands after one that is kept is kept, whatever the clocks said."""
        with _transaction(db, "IMMEDIATE"):
            kept = db.execute(self._sql.kept, (before_s,)).fetchone()
            old = db.execute(self._sql.old, (kept[0] if kept else 1 << 62, PURGE_ROWS_MAX)).fetchall()
            if old:
                db.execute(self._sql.forget, old[-1])
                db.execute(self._sql.lower_floor)
                db.execute(self._sql.raise_floor, old[-1])
        return len(old)

    def _revision(self, number: int) -> Revision:
        return f"{self._file.log_id}:{number}"

    def _place(self, db: sqlite3.Connection, revision: Revision) -> int | None:
        """Return the number that `revision` stands for; None where changes after it may be missing."""
        log, _, number = revision.partition(":")
        after = 0 if revision == ORIGIN else int(number)
        (floor,) = db.execute(self._sql.floor).fetchone()
        known = revision == ORIGIN or log == self._file.log_id
        return after if known and (floor or 0) <= after <= self._file.last_number(db) else None


@contextmanager
def _transaction(db: sqlite3.Connection, kind: str = "") -> Iterator[None]:
    """Hold one state for all that is read inside; nothing of what is written inside stays where that fails."""
    db.execute(f"BEGIN {kind}")
    try:
        yield
        db.execute("COMMIT")
    except BaseException:
        with suppress(sqlite3.Error):
            db.execute("ROLLBACK")
        raise
