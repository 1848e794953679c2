"""An SQLite file with the tables of `schema.py`, shared by the workers of a machine: WAL, one writer at a time.

Reads have a connection and a thread of their own: in WAL mode they need not wait until what is written is on the disk.
"""

from __future__ import annotations

import asyncio
import importlib
import sqlite3
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Final, TypeVar

from gateway.errors import GatewayError, StoreUnavailable
from gateway.stores.base import ORIGIN, Revision
from gateway.stores.migrations import VERSION_TABLE, is_old, upgrade
from gateway.stores.pools import PoolState
from gateway.stores.sql import Answer, Compiler, Program
from gateway.stores.sqlite_file import SQLiteFile

if TYPE_CHECKING:
    from sqlalchemy.engine import Dialect

T = TypeVar("T")

OPEN_TIMEOUT_S: Final = 30.0  # the imports, and the migrations of an old file


class SQLiteDatabase:
    """The tables are made, or brought forward, when the file is opened."""

    shared = "machine"

    def __init__(self, path: Path) -> None:
        self._file = SQLiteFile(path, "", "", self._prepare)
        self._reading = SQLiteFile(path, "", "", self._prepare_reading)
        self._compiler = Compiler(_dialect, lambda text: text)
        self._hasty: sqlite3.Connection | None = None  # that does not wait for the disk
        self._opened = False
        self._opening = asyncio.Lock()

    @property
    def revision(self) -> Revision:
        return ORIGIN  # all see what was committed

    async def read(self, program: Callable[[], Program[T]], after: Revision = "") -> T:
        return await self._run(self._reading, lambda db: self._drive(db, program, "BEGIN"))

    async def write(self, program: Callable[[], Program[T]], *, durable: bool = True) -> T:
        return await self._run(self._file, lambda db: self._write(db, program, durable=durable))

    def pools(self) -> Sequence[PoolState]:
        return ()

    async def close(self) -> None:
        await self._reading.close()
        await self._file.close()

    async def _run(self, file: SQLiteFile, work: Callable[[sqlite3.Connection], T | _Raised]) -> T:
        if not self._opened:
            async with self._opening:
                if not self._opened:
                    await self._open()
                    self._opened = True
        outcome = await file.call(work)
        if isinstance(outcome, _Raised):
            raise outcome.error
        return outcome

    async def _open(self) -> None:
        try:
            await asyncio.to_thread(importlib.import_module, "sqlalchemy")
        except ImportError as error:
            raise StoreUnavailable(
                "the tables need SQLAlchemy, which is not installed; remedy: pip install 'portcullis-gateway[sqlite]'"
            ) from error
        await self._file.call(lambda db: None, OPEN_TIMEOUT_S)

    # -- in the threads

    def _prepare(self, db: sqlite3.Connection) -> None:
        """Bring the tables to what this code works with."""
        if is_old(_version(db)):
            upgrade(f"sqlite:{self._file.path}")
        db.execute("PRAGMA foreign_keys = ON")

    def _prepare_reading(self, db: sqlite3.Connection) -> None:
        self._prepare(db)  # the file may have been taken away since
        db.execute("PRAGMA query_only = ON")

    def _write(self, db: sqlite3.Connection, program: Callable[[], Program[T]], *, durable: bool) -> T | _Raised:
        if durable == (self._hasty is db):
            # With NORMAL a commit is in the journal, but not yet on the disk; the next one with FULL takes it there.
            db.execute(f"PRAGMA synchronous = {'FULL' if durable else 'NORMAL'}")
            self._hasty = None if durable else db
        return self._drive(db, program, "BEGIN IMMEDIATE")

    def _drive(self, db: sqlite3.Connection, program: Callable[[], Program[T]], begin: str) -> T | _Raised:
        db.execute(begin)
        try:
            result = self._answered(db, program())
        except (GatewayError, ValueError) as error:  # the program's own: the connection is as good as before
            db.execute("ROLLBACK")
            return _Raised(error)
        except BaseException:
            with suppress(sqlite3.Error):
                db.execute("ROLLBACK")
            raise
        db.execute("COMMIT")
        return result

    def _answered(self, db: sqlite3.Connection, running: Program[T]) -> T:
        try:
            asked = next(running)
            while True:
                text, parameters = self._compiler.compile(asked)
                cursor = db.execute(text, parameters)
                rows = cursor.fetchall()
                asked = running.send(Answer(rows, max(cursor.rowcount, 0)))
        except StopIteration as stop:
            result: T = stop.value
            return result


class _Raised:
    """What a program raised."""

    def __init__(self, error: Exception) -> None:
        self.error = error


def _version(db: sqlite3.Connection) -> str | None:
    query = "SELECT name FROM sqlite_master WHERE type = 'table' AND name = ?"
    if db.execute(query, (VERSION_TABLE,)).fetchone() is None:
        return None
    row = db.execute(f"SELECT version_num FROM {VERSION_TABLE}").fetchone()  # noqa: S608 - a constant of ours
    return row[0] if row else None


def _dialect() -> Dialect:
    from sqlalchemy.dialects import sqlite

    made: Dialect = sqlite.dialect(paramstyle="named")
    return made
