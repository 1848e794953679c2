from __future__ import annotations

import asyncio
import subprocess
import sys
import threading
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from gateway.resilience.pools import ShareName, enter_pool, leave_pool
from gateway.stores.sql import ask
from gateway.stores.sql_sqlite import SQLiteDatabase
from gateway.stores.work_thread import WorkThread
from tests.conftest import ROOT


@pytest.fixture
async def thread() -> AsyncIterator[WorkThread]:
    made = WorkThread("test")
    yield made
    made.close()


class Gate:
    """Holds the thread until it is opened."""

    def __init__(self, thread: WorkThread) -> None:
        self._open = threading.Event()
        self._task = asyncio.ensure_future(thread.run(self._open.wait))

    async def open(self) -> None:
        self._open.set()
        await self._task


def begun(thread: WorkThread, pool: ShareName, done: list[str], name: str) -> asyncio.Future[None]:
    """Give the thread work from a pool."""
    token = enter_pool(pool)
    try:
        return asyncio.ensure_future(thread.run(lambda: done.append(name)))
    finally:
        leave_pool(token)


async def test_bulk_waits_for_all_others_and_the_rest_keeps_its_order(thread: WorkThread) -> None:
    gate, done = Gate(thread), list[str]()
    waiting = [
        begun(thread, "scim_provisioning", done, "bulk 1"),
        begun(thread, "user_auth", done, "person 1"),
        begun(thread, "scim_provisioning", done, "bulk 2"),
        begun(thread, "background", done, "lease"),
        begun(thread, "user_auth", done, "person 2"),
    ]
    await asyncio.sleep(0)
    await gate.open()
    await asyncio.gather(*waiting)
    assert done == ["person 1", "lease", "person 2", "bulk 1", "bulk 2"]


async def test_who_is_cancelled_while_it_waits_has_nothing_done(thread: WorkThread) -> None:
    gate, done = Gate(thread), list[str]()
    first, second = (begun(thread, "user_auth", done, name) for name in ("first", "second"))
    await asyncio.sleep(0)
    first.cancel()
    await gate.open()
    await second
    assert done == ["second"]
    assert first.cancelled()


async def test_what_work_raises_is_its_callers_and_the_thread_goes_on(thread: WorkThread) -> None:
    with pytest.raises(ZeroDivisionError):
        await thread.run(lambda: 1 // 0)
    assert await thread.run(lambda: 1) == 1


async def test_a_closed_thread_takes_no_work_and_ends_what_it_has(thread: WorkThread) -> None:
    gate, done = Gate(thread), list[str]()
    waiting = begun(thread, "user_auth", done, "taken")
    await asyncio.sleep(0)
    thread.close()
    with pytest.raises(RuntimeError):
        await thread.run(lambda: None)
    await gate.open()
    await waiting
    assert done == ["taken"]


async def test_reads_of_a_database_do_not_wait_for_its_writes(tmp_path: Path) -> None:
    database = SQLiteDatabase(tmp_path / "run" / "tables.sqlite3")

    def counted():  # type: ignore[no-untyped-def]
        return (yield ask("SELECT count(*) FROM portcullis_tenants")).row[0]

    def written():  # type: ignore[no-untyped-def]
        yield ask("INSERT INTO portcullis_tenants VALUES ('a', 'a', 1, '{}')")

    try:
        assert await database.read(counted) == 0
        gate = Gate(database._file.thread)
        assert await database.read(counted) == 0
        writing = asyncio.ensure_future(database.write(written))
        assert await database.read(counted) == 0
        await gate.open()
        await writing
        assert await database.read(counted) == 1  # whoever has written sees it
    finally:
        await database.close()


async def test_reading_cannot_write(tmp_path: Path) -> None:
    from gateway.errors import StoreUnavailable

    database = SQLiteDatabase(tmp_path / "run" / "tables.sqlite3")

    def written():  # type: ignore[no-untyped-def]
        yield ask("INSERT INTO portcullis_tenants VALUES ('a', 'a', 1, '{}')")

    try:
        with pytest.raises(StoreUnavailable, match="readonly"):
            await database.read(written)
    finally:
        await database.close()


ADD_TENANT = """
import asyncio, sys
from pathlib import Path
from gateway.stores.sql import ask
from gateway.stores.sql_sqlite import SQLiteDatabase

def written():
    yield ask("INSERT INTO portcullis_tenants VALUES (:id, 'a', 1, '{}')", id=sys.argv[2])

async def main():
    database = SQLiteDatabase(Path(sys.argv[1]))
    await database.write(written)
    await database.close()

asyncio.run(main())
"""


async def test_what_a_process_wrote_that_has_ended_is_seen_by_all_who_had_the_file_open(tmp_path: Path) -> None:
    """The last to close a file removes its journal: it must not take itself for the last while others go on."""
    path = tmp_path / "run" / "tables.sqlite3"
    early, late = SQLiteDatabase(path), SQLiteDatabase(path)

    def counted():  # type: ignore[no-untyped-def]
        return (yield ask("SELECT count(*) FROM portcullis_tenants")).row[0]

    def written():  # type: ignore[no-untyped-def]
        yield ask("INSERT INTO portcullis_tenants VALUES ('ours', 'a', 1, '{}')")

    try:
        for database in (early, late):
            assert await database.read(counted) == 0
        for number in range(3):
            command = [sys.executable, "-c", ADD_TENANT, str(path), f"theirs {number}"]
            await asyncio.to_thread(subprocess.run, command, cwd=ROOT, check=True)
            for database in (early, late):
                assert await database.read(counted) == number + 1
        await early.write(written)
        assert await late.read(counted) == 4
    finally:
        await early.close()
        await late.close()
