"""The embedded store: its file, its other processes, and what may happen to both."""

from __future__ import annotations

import asyncio
import shutil
import sqlite3
import stat
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from gateway.errors import StoreUnavailable
from gateway.stores import ORIGIN, RevocationRow
from gateway.stores import sqlite_file as module
from gateway.stores.sqlite import SQLiteRevocationStore

ROOT = Path(__file__).parents[3]
FAR_S = 2_000_000_000

APPEND = """
import asyncio, sys
from pathlib import Path
from gateway.stores import RevocationRow, open_store

async def main():
    store = open_store("", Path(sys.argv[1]))
    for name in sys.argv[2:]:
        await store.append([RevocationRow("jti", b"i", name.encode(), 2_000_000_000)])
    await store.close()

asyncio.run(main())
"""


def row(name: str) -> RevocationRow:
    return RevocationRow("jti", b"i", name.encode(), FAR_S)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "run" / "revocations.sqlite3"


@pytest.fixture
async def store(path: Path) -> AsyncIterator[SQLiteRevocationStore]:
    store = SQLiteRevocationStore(path, poll_ms=50)
    yield store
    await store.close()


async def names(store: SQLiteRevocationStore) -> list[bytes]:
    return [row.value for row in (await store.read_after(ORIGIN, 1000)).rows]


async def test_only_this_user_can_read_the_files(store: SQLiteRevocationStore, path: Path) -> None:
    await store.append([row("a")])
    modes = {file.name: stat.S_IMODE(file.stat().st_mode) for file in path.parent.iterdir()}
    assert modes[path.name] == 0o600
    assert set(modes.values()) == {0o600}
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700


@pytest.mark.parametrize("mode", [0o644, 0o660, 0o602])
async def test_a_file_that_others_may_open_is_refused(store: SQLiteRevocationStore, path: Path, mode: int) -> None:
    path.parent.mkdir()
    path.touch()
    path.chmod(mode)
    with pytest.raises(StoreUnavailable):
        await store.append([row("a")])


async def test_a_link_is_refused(store: SQLiteRevocationStore, path: Path, tmp_path: Path) -> None:
    path.parent.mkdir()
    path.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(StoreUnavailable):
        await store.append([row("a")])


async def test_rows_survive_and_pass_between_processes(store: SQLiteRevocationStore, path: Path) -> None:
    revision = (await store.read_after(ORIGIN, 10)).revision
    waiting = asyncio.create_task(store.wait(revision, 20))
    await asyncio.to_thread(
        subprocess.run, [sys.executable, "-c", APPEND, str(path.parent), "a", "b"], check=True, cwd=ROOT
    )
    started = time.monotonic()
    await waiting
    assert time.monotonic() - started < 1
    assert (await names(store))[0] == b"a"


async def test_many_processes_may_open_a_new_file_at_once(path: Path) -> None:
    path.parent.mkdir(mode=0o700)
    writers = [
        await asyncio.create_subprocess_exec(
            sys.executable, "-c", APPEND, str(path.parent), *(f"{number}.{part}" for part in range(5)), cwd=ROOT
        )
        for number in range(6)
    ]
    assert [await writer.wait() for writer in writers] == [0] * 6
    store = SQLiteRevocationStore(path)
    assert len(set(await names(store))) == 30
    await store.close()


async def test_a_deleted_file_is_a_new_log(store: SQLiteRevocationStore, path: Path) -> None:
    revision = await store.append([row("a")])
    for file in path.parent.iterdir():
        file.unlink()
    other = SQLiteRevocationStore(path)
    await other.append([row("b")])
    batch = await store.read_after(revision, 10)
    assert (batch.restarted, [row.value for row in batch.rows]) == (True, [b"b"])
    await other.close()


async def test_a_copy_of_earlier_days_is_read_from_its_origin(
    store: SQLiteRevocationStore, path: Path, tmp_path: Path
) -> None:
    await store.append([row("a")])
    await store.close()
    shutil.copy(path, tmp_path / "backup")
    later = SQLiteRevocationStore(path, poll_ms=50)
    revision = await later.append([row("b"), row("c")])
    for file in path.parent.iterdir():
        file.unlink()
    shutil.copy(tmp_path / "backup", path)
    await later.wait(revision, 5)
    batch = await later.read_after(revision, 10)
    assert (batch.restarted, [row.value for row in batch.rows]) == (True, [b"a"])
    await later.append([row("d")])
    assert [row.value for row in (await later.read_after(batch.revision, 10)).rows] == [b"d"]
    await later.close()


async def test_a_file_that_is_no_database_is_unavailable_and_works_again_when_mended(
    store: SQLiteRevocationStore, path: Path
) -> None:
    path.parent.mkdir()
    path.write_bytes(b"not a database, " * 1000)
    path.chmod(0o600)
    with pytest.raises(StoreUnavailable):
        await store.read_after(ORIGIN, 10)
    with pytest.raises(StoreUnavailable):
        await store.wait(ORIGIN, 0.1)
    path.unlink()
    await store.append([row("a")])
    assert await names(store) == [b"a"]


async def test_a_writer_that_holds_the_lock_costs_the_deadline_and_no_more(
    store: SQLiteRevocationStore, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "BUSY_TIMEOUT_MS", 100)
    await store.append([row("a")])
    await store.close()
    store = SQLiteRevocationStore(path)
    assert await names(store) == [b"a"]
    rude = sqlite3.connect(path, isolation_level=None)
    rude.execute("BEGIN IMMEDIATE")
    started = time.monotonic()
    with pytest.raises(StoreUnavailable):
        await store.append([row("b")])
    assert time.monotonic() - started < 1
    assert await names(store) == [b"a"]  # readers are not held up
    rude.execute("ROLLBACK")
    rude.close()
    await store.append([row("b")])
    assert await names(store) == [b"a", b"b"]
    await store.close()


async def test_a_thread_that_hangs_in_the_disk_costs_the_deadline(
    store: SQLiteRevocationStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "CALL_TIMEOUT_S", 0.2)
    await store.append([row("a")])
    sleeping = asyncio.ensure_future(store._file.thread.run(lambda: time.sleep(0.6)))
    await asyncio.sleep(0)
    started = time.monotonic()
    with pytest.raises(StoreUnavailable):
        await store.read_after(ORIGIN, 10)
    assert time.monotonic() - started < 0.3
    await sleeping
    assert await names(store) == [b"a"]


async def test_a_row_that_cannot_be_read_hides_no_other(store: SQLiteRevocationStore, path: Path) -> None:
    await store.append([row("a")])
    stranger = sqlite3.connect(path)
    for kind, value, until_s in (("aud", b"x", FAR_S), ("jti", b"", FAR_S), ("jti", b"x", -1)):
        stranger.execute(
            "INSERT INTO revocations (kind, issuer, value, until_s, issued_before_s) VALUES (?, ?, ?, ?, 0)",
            (kind, b"i", value, until_s),
        )
    stranger.commit()
    stranger.close()
    await store.append([row("b")])
    batch = await store.read_after(ORIGIN, 100)
    assert ([row.value for row in batch.rows], batch.damaged) == ([b"a", b"b"], 3)


async def test_the_event_loop_never_waits_for_the_disk(store: SQLiteRevocationStore) -> None:
    await store.append([row("a")])
    longest_s = 0.0
    done = asyncio.Event()

    async def watch() -> None:
        nonlocal longest_s
        while not done.is_set():
            before = time.perf_counter()
            await asyncio.sleep(0)
            longest_s = max(longest_s, time.perf_counter() - before)

    watcher = asyncio.create_task(watch())
    sleeping = asyncio.ensure_future(store._file.thread.run(lambda: time.sleep(0.5)))  # a disk that takes its time
    await asyncio.sleep(0)
    await store.append([row("b")])
    assert sleeping.done()
    done.set()
    await watcher
    assert longest_s < 0.4
