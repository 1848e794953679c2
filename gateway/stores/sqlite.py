"""Stores in one SQLite file, shared by the workers of a machine."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from gateway.stores.base import ORIGIN, PURGE_SLACK_S, Revision, RevocationBatch, RevocationKind, RevocationRow
from gateway.stores.sqlite_file import SQLiteFile, Watch

PURGE_ROWS_MAX = 10_000  # deleted in one transaction, so that no append waits long

_SCHEMA = """
CREATE TABLE IF NOT EXISTS revocations (
  number INTEGER PRIMARY KEY AUTOINCREMENT, -- never given twice, also after a purge
  kind TEXT NOT NULL,
  issuer BLOB NOT NULL,
  value BLOB NOT NULL,
  until_s INTEGER NOT NULL,
  issued_before_s INTEGER NOT NULL
) STRICT;
CREATE INDEX IF NOT EXISTS revocations_until ON revocations (until_s);
"""


class SQLiteRevocationStore:
    """A log in a table; the number of a row is its place.

    Readers look for news every `poll_ms`; one look costs some tens of microseconds.
    """

    shared = "machine"

    def __init__(self, path: Path, *, poll_ms: int = 200) -> None:
        self._file = SQLiteFile(path, _SCHEMA, "revocations")
        self._watch = Watch(self._file, poll_ms / 1000, self._has_news)

    async def append(self, rows: Sequence[RevocationRow]) -> Revision:
        revision = await self._file.call(lambda db: self._append(db, rows))
        self._watch.wrote()
        return revision

    async def read_after(self, revision: Revision, limit: int) -> RevocationBatch:
        return await self._file.call(lambda db: self._read_after(db, revision, limit))

    async def wait(self, revision: Revision, timeout_s: float) -> None:
        await self._watch.wait(revision, timeout_s)

    async def purge(self, now_s: float) -> int:
        total = 0
        while True:
            count = await self._file.call(lambda db: self._purge(db, int(now_s - PURGE_SLACK_S)))
            total += count
            if count < PURGE_ROWS_MAX:
                return total

    async def close(self) -> None:
        await self._file.close()

    # -- in the thread

    def _append(self, db: sqlite3.Connection, rows: Sequence[RevocationRow]) -> Revision:
        db.execute("BEGIN IMMEDIATE")
        try:
            number = 0
            for row in rows:
                cursor = db.execute(
                    "INSERT INTO revocations (kind, issuer, value, until_s, issued_before_s) VALUES (?, ?, ?, ?, ?)",
                    (row.kind, row.issuer, row.value, row.until_s, row.issued_before_s),
                )
                number = cursor.lastrowid or 0
            db.execute("COMMIT")
        except BaseException:
            with suppress(sqlite3.Error):
                db.execute("ROLLBACK")
            raise
        return self._revision(number or self._file.last_number(db))

    def _read_after(self, db: sqlite3.Connection, revision: Revision, limit: int) -> RevocationBatch:
        after, restarted = self._place(revision)
        found = _page(db, after, limit)
        if not found and after > self._file.last_number(db):
            # The log is one that we know, with less in it than we saw: a copy of earlier days was put in its place.
            after, restarted = 0, True
            found = _page(db, after, limit)
        page = found[:limit]
        rows = []
        for number, kind, issuer, value, until_s, issued_before_s in page:
            after = number
            with suppress(ValueError):
                rows.append(RevocationRow(kind, issuer, value, until_s, issued_before_s))
        return RevocationBatch(
            rows=tuple(rows),
            revision=self._revision(after),
            more=len(found) > limit,
            restarted=restarted,
            damaged=len(page) - len(rows),
        )

    def _has_news(self, db: sqlite3.Connection, revision: Revision) -> bool:
        after, restarted = self._place(revision)
        return restarted or after > self._file.last_number(db) or bool(_page(db, after, 0))

    def _purge(self, db: sqlite3.Connection, before_s: int) -> int:
        cursor = db.execute(
            "DELETE FROM revocations WHERE number IN (SELECT number FROM revocations WHERE until_s < ? LIMIT ?)",
            (before_s, PURGE_ROWS_MAX),
        )
        return cursor.rowcount

    def _revision(self, number: int) -> Revision:
        return f"{self._file.log_id}:{number}"

    def _place(self, revision: Revision) -> tuple[int, bool]:
        """Return the number that `revision` stands for, and whether it belongs to another log."""
        log, _, number = revision.partition(":")
        if revision == ORIGIN:
            return 0, False
        return (int(number), False) if log == self._file.log_id else (0, True)


def _page(db: sqlite3.Connection, after: int, limit: int) -> list[tuple[int, RevocationKind, bytes, bytes, int, int]]:
    """Return the rows after a number, one more than `limit` where there are more."""
    query = (
        "SELECT number, kind, issuer, value, until_s, issued_before_s FROM revocations"
        " WHERE number > ? ORDER BY number LIMIT ?"
    )
    return db.execute(query, (after, limit + 1)).fetchall()
