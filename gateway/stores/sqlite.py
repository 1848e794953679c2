"""Stores in one SQLite file, shared by the workers of a machine."""

from __future__ import annotations

import asyncio
import os
import secrets
import sqlite3
import stat
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import TypeVar

from gateway.errors import StoreUnavailable
from gateway.stores.base import ORIGIN, PURGE_SLACK_S, Revision, RevocationBatch, RevocationKind, RevocationRow

T = TypeVar("T")

CALL_TIMEOUT_S = 2.0  # of one call, the wait for another worker's write included
BUSY_TIMEOUT_MS = 1000  # SQLite's own share of it
PURGE_ROWS_MAX = 10_000  # deleted in one transaction, so that no append waits long

_SCHEMA = """
CREATE TABLE IF NOT EXISTS log (name TEXT PRIMARY KEY, id TEXT NOT NULL) STRICT;
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
    """A log in a table. Readers look for news every `poll_ms`; one look costs some tens of microseconds.

    All of SQLite runs in one thread of the store's own: the event loop never waits for a disk. The number of a row is
    its place: SQLite lets one writer in at a time, so that rows become visible in the order of their numbers.
    """

    shared = "machine"

    def __init__(self, path: Path, *, poll_ms: int = 200) -> None:
        self._path = path
        self._poll_s = poll_ms / 1000
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="sqlite-revocations")
        self._connection: sqlite3.Connection | None = None  # used and closed by the thread only
        self._log = ""  # which file it is; known once connected
        self._inode = (0, 0)  # which file is open
        self._quiet: tuple[int, int] | None = None  # SQLite's data_version at which nothing followed this number
        self._appended = asyncio.Event()

    async def append(self, rows: Sequence[RevocationRow]) -> Revision:
        revision = await self._call(lambda db: self._append(db, rows))
        self._appended.set()
        self._appended = asyncio.Event()
        return revision

    async def read_after(self, revision: Revision, limit: int) -> RevocationBatch:
        return await self._call(lambda db: self._read_after(db, revision, limit))

    async def wait(self, revision: Revision, timeout_s: float) -> None:
        loop = asyncio.get_running_loop()
        deadline_s = loop.time() + timeout_s
        appended = self._appended
        while await self._call(lambda db: self._is_quiet(db, revision)):
            rest_s = deadline_s - loop.time()
            if rest_s <= 0:
                return
            with suppress(TimeoutError):
                async with asyncio.timeout(min(self._poll_s, rest_s)):
                    await appended.wait()
                    return

    async def purge(self, now_s: float) -> int:
        total = 0
        while True:
            count = await self._call(lambda db: self._purge(db, int(now_s - PURGE_SLACK_S)))
            total += count
            if count < PURGE_ROWS_MAX:
                return total

    async def close(self) -> None:
        with suppress(RuntimeError, TimeoutError):
            async with asyncio.timeout(CALL_TIMEOUT_S):
                await asyncio.get_running_loop().run_in_executor(self._thread, self._disconnect)
        self._thread.shutdown(wait=False)

    async def _call(self, work: Callable[[sqlite3.Connection], T]) -> T:
        """Run `work` in the store's thread. A thread that hangs in the disk costs callers their deadline, no more."""
        try:
            async with asyncio.timeout(CALL_TIMEOUT_S):
                return await asyncio.get_running_loop().run_in_executor(self._thread, self._work, work)
        except TimeoutError as error:
            raise StoreUnavailable(f"`{self._path}` did not answer within {CALL_TIMEOUT_S:g} s") from error
        except (sqlite3.Error, OSError, RuntimeError) as error:
            raise StoreUnavailable(f"`{self._path}` cannot be used: {error}") from error

    # -- in the thread

    def _work(self, work: Callable[[sqlite3.Connection], T]) -> T:
        try:
            return work(self._connect())
        except BaseException:
            self._disconnect()
            raise

    def _connect(self) -> sqlite3.Connection:
        if self._connection is not None and self._is_our_file():
            return self._connection
        self._disconnect()
        self._path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        # SQLite would create the file with the process's umask; its -wal and -shm take the mode of the file.
        handle = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600)
        try:
            self._inode = _check(handle, self._path)
        finally:
            os.close(handle)
        connection = sqlite3.connect(
            self._path, timeout=BUSY_TIMEOUT_MS / 1000, isolation_level=None, check_same_thread=True
        )
        try:
            _enter_wal(connection)
            connection.execute("PRAGMA synchronous = FULL")  # what was acknowledged survives a power cut
            connection.executescript(_SCHEMA)
            self._log = _log_id(connection)
        except BaseException:
            connection.close()
            raise
        self._connection, self._quiet = connection, None
        return connection

    def _is_our_file(self) -> bool:
        """Say whether the path still names the file that is open: a deleted log would swallow what is appended."""
        try:
            status = self._path.stat()
        except OSError:
            return False
        return (status.st_dev, status.st_ino) == self._inode

    def _disconnect(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()

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
            self._quiet = None  # our own commits do not change data_version
        except BaseException:
            with suppress(sqlite3.Error):
                db.execute("ROLLBACK")
            raise
        return self._revision(number or _last_number(db))

    def _read_after(self, db: sqlite3.Connection, revision: Revision, limit: int) -> RevocationBatch:
        after, restarted = self._place(revision)
        found = _page(db, after, limit)
        if not found and after > _last_number(db):
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

    def _is_quiet(self, db: sqlite3.Connection, revision: Revision) -> bool:
        """Say that nothing follows `revision`; without a look at tables while nobody else wrote (`data_version`)."""
        after, restarted = self._place(revision)
        if restarted:
            return False
        (version,) = db.execute("PRAGMA data_version").fetchone()
        if self._quiet == (version, after):
            return True
        if after > _last_number(db) or _page(db, after, 0):
            return False
        self._quiet = (version, after)
        return True

    def _purge(self, db: sqlite3.Connection, before_s: int) -> int:
        cursor = db.execute(
            "DELETE FROM revocations WHERE number IN (SELECT number FROM revocations WHERE until_s < ? LIMIT ?)",
            (before_s, PURGE_ROWS_MAX),
        )
        return cursor.rowcount

    def _revision(self, number: int) -> Revision:
        return f"{self._log}:{number}"

    def _place(self, revision: Revision) -> tuple[int, bool]:
        """Return the number that `revision` stands for, and whether it belongs to another log."""
        log, _, number = revision.partition(":")
        if revision == ORIGIN:
            return 0, False
        return (int(number), False) if log == self._log else (0, True)


def _log_id(db: sqlite3.Connection) -> str:
    """Return the log's name, giving it one when it is new."""
    query = "SELECT id FROM log WHERE name = 'revocations'"
    row = db.execute(query).fetchone()
    if row is None:
        db.execute("INSERT OR IGNORE INTO log VALUES ('revocations', ?)", (secrets.token_hex(8),))
        row = db.execute(query).fetchone()
    found: str = row[0]
    return found


def _last_number(db: sqlite3.Connection) -> int:
    """Return the highest number ever given; rows that were purged count."""
    row = db.execute("SELECT seq FROM sqlite_sequence WHERE name = 'revocations'").fetchone()
    return int(row[0]) if row else 0


def _page(db: sqlite3.Connection, after: int, limit: int) -> list[tuple[int, RevocationKind, bytes, bytes, int, int]]:
    """Return the rows after a number, one more than `limit` where there are more."""
    query = (
        "SELECT number, kind, issuer, value, until_s, issued_before_s FROM revocations"
        " WHERE number > ? ORDER BY number LIMIT ?"
    )
    return db.execute(query, (after, limit + 1)).fetchall()


def _enter_wal(connection: sqlite3.Connection) -> None:
    """Switch the journal. SQLite's busy timeout does not hold here: where two processes do it at once, one fails."""
    deadline_s = time.monotonic() + BUSY_TIMEOUT_MS / 1000
    while True:
        try:
            connection.execute("PRAGMA journal_mode = WAL")
            return
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode & 0xFF != sqlite3.SQLITE_BUSY or time.monotonic() > deadline_s:
                raise
            time.sleep(0.005)


def _check(handle: int, path: Path) -> tuple[int, int]:
    """Return which file it is. Raises OSError where others than this user may write it."""
    status = os.fstat(handle)
    if not stat.S_ISREG(status.st_mode) or status.st_uid != os.geteuid() or status.st_mode & 0o077:
        raise PermissionError(f"`{path}` is not a file of this user alone")
    return status.st_dev, status.st_ino
