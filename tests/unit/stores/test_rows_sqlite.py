"""Rows in a SQLite file whose writers are killed or stopped in the middle: what is there, and who waits how long."""

from __future__ import annotations

import asyncio
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from gateway.errors import StoreUnavailable
from gateway.stores import ORIGIN
from gateway.stores.attributes_rows import LAYOUT
from gateway.stores.rows_sqlite import SQLiteRowStore
from gateway.stores.sqlite_file import CALL_TIMEOUT_S

SLACK_S = 0.4  # for a busy machine

# Writes pairs for ever, and says each number when it is acknowledged; with "hold", stops inside a transaction.
WRITER = """
import asyncio, os, signal, sys
from pathlib import Path
from gateway.stores.attributes_rows import LAYOUT
from gateway.stores.rows_sqlite import SQLiteRowStore

async def main():
    store = SQLiteRowStore(LAYOUT, Path(sys.argv[1]))
    if sys.argv[2] == "hold":
        def hold(db):
            db.execute("BEGIN IMMEDIATE")
            print("held", flush=True)
            os.kill(os.getpid(), signal.SIGSTOP)
        await store._file.call(hold)
    number = 0
    while True:
        await store.write([(("a", str(number)), "{}"), (("b", str(number)), "{}")])
        print(number, flush=True)
        number += 1

asyncio.run(main())
"""


class Writer:
    """A process that writes, and what it said."""

    def __init__(self, path: Path, mode: str) -> None:
        command = [sys.executable, "-c", WRITER, str(path), mode]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, cwd=Path(__file__).parents[3])

    def line(self) -> str:
        assert self.process.stdout is not None
        return self.process.stdout.readline().decode().strip()

    def end(self) -> list[str]:
        """Kill it; give the rest of what it said. Harmless where it has ended."""
        if self.process.poll() is not None:
            return []
        self.process.send_signal(signal.SIGKILL)
        rest, _ = self.process.communicate()
        return rest.decode().split()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "rows.sqlite3"


@pytest.fixture
async def store(path: Path) -> AsyncIterator[SQLiteRowStore]:
    store = SQLiteRowStore(LAYOUT, path)
    yield store
    await store.close()


@pytest.fixture
def held(path: Path, store: SQLiteRowStore) -> Iterator[Writer]:
    """A writer that is frozen while it keeps all others out."""
    writer = Writer(path, "hold")
    assert writer.line() == "held"
    yield writer
    writer.end()


async def test_what_a_killed_writer_was_told_is_there_and_nothing_is_there_by_half(
    path: Path, store: SQLiteRowStore
) -> None:
    last = -1
    for _ in range(3):
        writer = Writer(path, "write")
        said = [writer.line() for _ in range(20)] + writer.end()
        last = int(said[-1])
        page = await store.read_all("", 10_000)
        kinds: dict[str, set[str]] = {"a": set(), "b": set()}
        for (kind, name), _ in page.rows:
            kinds[kind].add(name)
        assert kinds["a"] == kinds["b"]
        assert {str(number) for number in range(last + 1)} <= kinds["a"]
    assert last >= 19
    batch = await store.read_after(ORIGIN, 10_000)
    assert not batch.lost
    names = [change.key for change in batch.changes]
    assert all(first[1] == second[1] for first, second in zip(names[::2], names[1::2], strict=True))


async def test_a_frozen_writer_holds_up_no_reader_and_writers_for_their_deadline(
    store: SQLiteRowStore, held: Writer
) -> None:
    started = time.monotonic()
    assert dict((await store.read([("a", "0")])).rows) == {}
    assert (await store.read_after(ORIGIN, 10)).changes == ()
    await store.wait((await store.read_all("", 10)).revision, 0)
    assert time.monotonic() - started < SLACK_S
    with pytest.raises(StoreUnavailable):
        await store.write([(("a", "0"), "{}")])
    assert time.monotonic() - started < CALL_TIMEOUT_S + 2 * SLACK_S
    await asyncio.to_thread(held.end)
    await store.write([(("a", "0"), "{}")])
    assert dict((await store.read([("a", "0")])).rows) == {("a", "0"): "{}"}
