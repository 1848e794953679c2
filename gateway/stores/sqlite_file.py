"""One SQLite file, shared by the workers of a machine, and the one thread of this process that uses it."""

from __future__ import annotations

import asyncio
import os
import secrets
import sqlite3
import stat
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import TypeVar

from gateway.errors import StoreUnavailable
from gateway.stores.work_thread import WorkThread

T = TypeVar("T")

CALL_TIMEOUT_S = 2.0  # of one call, the wait for another worker's write included
BUSY_TIMEOUT_MS = 1000  # SQLite's own share of it

_making = threading.Lock()  # whoever finds a file made by another thread finds it closed


class SQLiteFile:
    """Runs work on a connection, in a thread of its own: the event loop never waits for a disk.

    The file is private to its user, in WAL mode, and holds a log: a table whose rows are numbered by AUTOINCREMENT, and
    a name that tells it from any other log. SQLite lets one writer in at a time, so that rows become visible in the
    order of their numbers.
    """

    def __init__(
        self,
        path: Path,
        schema: str,
        log_table: str,
        prepare: Callable[[sqlite3.Connection], None] | None = None,
    ) -> None:
        """`log_table` may be "" for a file without a log. `prepare` is called in the thread with each connection."""
        self.path = path
        self._prepare = prepare
        self.log_id = ""  # which log it is; known in the thread
        self.thread = WorkThread(f"sqlite-{path.stem}")
        self._schema = schema
        self._log_table = log_table
        self._connection: sqlite3.Connection | None = None  # used and closed by the thread only
        self._inode = (0, 0)  # which file is open

    async def call(self, work: Callable[[sqlite3.Connection], T], timeout_s: float | None = None) -> T:
        """Run `work` in the thread. One that hangs in the disk costs callers their deadline, no more."""
        timeout_s = CALL_TIMEOUT_S if timeout_s is None else timeout_s
        try:
            async with asyncio.timeout(timeout_s):
                return await self.thread.run(lambda: self._work(work))
        except TimeoutError as error:
            raise StoreUnavailable(f"`{self.path}` did not answer within {timeout_s:g} s") from error
        except (sqlite3.Error, OSError, RuntimeError) as error:
            raise StoreUnavailable(f"`{self.path}` cannot be used: {error}") from error

    async def close(self) -> None:
        """Close the file; never raises."""
        with suppress(RuntimeError, TimeoutError):
            async with asyncio.timeout(CALL_TIMEOUT_S):
                await self.thread.run(self._disconnect)
        self.thread.close()

    # -- in the thread

    def last_number(self, db: sqlite3.Connection) -> int:
        """Return the highest number that the log ever gave; rows that were purged count."""
        row = db.execute("SELECT seq FROM sqlite_sequence WHERE name = ?", (self._log_table,)).fetchone()
        return int(row[0]) if row else 0

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
        self.path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._inode = _made(self.path)
        connection = sqlite3.connect(
            self.path, timeout=BUSY_TIMEOUT_MS / 1000, isolation_level=None, check_same_thread=True
        )
        try:
            _enter_wal(connection)
            connection.execute("PRAGMA synchronous = FULL")  # what was acknowledged survives a power cut
            if self._prepare is not None:
                self._prepare(connection)
            connection.executescript(self._schema)
            if self._log_table:
                self.log_id = _log_id(connection, self._log_table)
        except BaseException:
            connection.close()
            raise
        self._connection = connection
        return connection

    def _is_our_file(self) -> bool:
        """Say whether the path still names the file that is open: a deleted log would swallow what is appended."""
        try:
            status = self.path.stat()
        except OSError:
            return False
        return (status.st_dev, status.st_ino) == self._inode

    def _disconnect(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()


class Watch:
    """Looks for news every `poll_s`, and at once where this process wrote itself."""

    def __init__(self, file: SQLiteFile, poll_s: float, has_news: Callable[[sqlite3.Connection, str], bool]) -> None:
        self._file = file
        self._poll_s = poll_s
        self._has_news = has_news  # whether anything follows a revision; asked only when somebody wrote
        self._written = asyncio.Event()
        self._quiet: tuple[sqlite3.Connection, int, str] | None = None  # nothing followed this revision, as of then

    def wrote(self) -> None:
        """Wake those who wait: this process wrote, and SQLite's `data_version` counts only what others write."""
        self._quiet = None
        self._written.set()
        self._written = asyncio.Event()

    async def wait(self, revision: str, timeout_s: float) -> None:
        """Return when something follows `revision`, at the latest after `timeout_s`."""
        loop = asyncio.get_running_loop()
        deadline_s = loop.time() + timeout_s
        written = self._written
        while await self._file.call(lambda db: self._is_quiet(db, revision)):
            rest_s = deadline_s - loop.time()
            if rest_s <= 0:
                return
            with suppress(TimeoutError):
                async with asyncio.timeout(min(self._poll_s, rest_s)):
                    await written.wait()
                    return

    def _is_quiet(self, db: sqlite3.Connection, revision: str) -> bool:
        (version,) = db.execute("PRAGMA data_version").fetchone()
        if self._quiet == (db, version, revision):
            return True
        if self._has_news(db, revision):
            return False
        self._quiet = (db, version, revision)
        return True


def _log_id(db: sqlite3.Connection, table: str) -> str:
    """Return the log's name, giving it one when it is new."""
    db.execute("CREATE TABLE IF NOT EXISTS log (name TEXT PRIMARY KEY, id TEXT NOT NULL) STRICT")
    query = "SELECT id FROM log WHERE name = ?"
    row = db.execute(query, (table,)).fetchone()
    if row is None:
        db.execute("INSERT OR IGNORE INTO log VALUES (?, ?)", (table, secrets.token_hex(8)))
        row = db.execute(query, (table,)).fetchone()
    found: str = row[0]
    return found


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


def _made(path: Path) -> tuple[int, int]:
    """Return which file it is, making it where there is none. Raises OSError where others than this user may write it.

    What exists is never opened here: with any close of a file POSIX drops all locks that the process has on it, those
    of SQLite's own connections too, and another process would take itself for the last and remove the journal
    (sqlite.org/howtocorrupt.html §2.2).
    """
    with _making:
        try:
            status = path.lstat()
        except FileNotFoundError:
            # SQLite would create the file with the process's umask; its -wal and -shm take the mode of the file.
            with suppress(FileExistsError):
                os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600))
            status = path.lstat()
    if not stat.S_ISREG(status.st_mode) or status.st_uid != os.geteuid() or status.st_mode & 0o077:
        raise PermissionError(f"`{path}` is not a file of this user alone")
    return status.st_dev, status.st_ino
