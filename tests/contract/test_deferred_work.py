"""The laws of DeferredWork, held by every backend."""

from __future__ import annotations

import asyncio
import os
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from gateway.stores import Connections, open_deferred_work
from gateway.stores.deferred import ATTEMPTS_MAX, CLAIMED_MAX, DONE_KEPT_S, Backlog, DeferredWork, Job
from tests.contract.test_session_store import NOW_S, ManualClock
from tests.real.pools import SMALL

HOLD_S = 0.2  # servers measure holds by their own clocks

Opener = Callable[[], DeferredWork]


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture(params=["sqlite", "redis", "cluster"])
def url(request: pytest.FixtureRequest) -> str:
    if request.param == "sqlite":
        return ""
    server = request.getfixturevalue(request.param)
    server.forget()
    found: str = server.url
    return found


@pytest.fixture
async def open_another(url: str, tmp_path: Path, clock: ManualClock) -> AsyncIterator[Opener]:
    """Open one more handle to the same jobs."""
    opened: list[DeferredWork] = []

    def opener() -> DeferredWork:
        opened.append(open_deferred_work(url, tmp_path, clock, connections=Connections(SMALL)))
        return opened[-1]

    yield opener
    for work in opened:
        await work.close()


@pytest.fixture
def work(open_another: Opener) -> DeferredWork:
    return open_another()


async def claim_lost(work: DeferredWork, clock: ManualClock, hold_s: float = 60.0) -> list[Job]:
    """Claim what another one held for too long."""
    clock.now_s += HOLD_S + 0.1
    deadline_s = time.monotonic() + 5.0
    while time.monotonic() < deadline_s:
        jobs = list(await work.claim(10, hold_s))
        if jobs:
            return jobs
    raise AssertionError("nothing was lost")


async def test_a_job_is_put_claimed_and_completed_once(work: DeferredWork, open_another: Opener) -> None:
    other = open_another()
    assert await work.claim(5, 60.0) == []
    assert await work.put("metadata", "login-1", {"user": "usr_1", "n": [1, "zwei"]})
    assert await work.backlog() == Backlog(1, 0, NOW_S)
    (job,) = await other.claim(5, 60.0)
    assert (job.key, job.kind, job.attempt, job.put_s) == ("login-1", "metadata", 1, NOW_S)
    assert job.body == {"user": "usr_1", "n": [1, "zwei"]}
    assert await work.claim(5, 60.0) == []
    assert await other.complete(job)
    assert not await other.complete(job)
    assert not await work.retry(job, 0.0, "late")
    assert await work.backlog() == Backlog(0, 0, None)


async def test_a_key_is_one_job_while_it_waits_and_after_it_was_done(work: DeferredWork) -> None:
    assert await work.put("k", "one", {})
    assert not await work.put("k", "one", {"other": True})
    (job,) = await work.claim(5, 60.0)
    assert not await work.put("k", "one", {})
    assert await work.complete(job)
    assert not await work.put("k", "one", {})
    assert await work.claim(5, 60.0) == []


async def test_jobs_come_oldest_first_and_each_to_one_claimer(
    work: DeferredWork, open_another: Opener, clock: ManualClock
) -> None:
    for number in range(30):
        clock.now_s += 1
        await work.put("k", f"j{number:02}", {})
    assert (await work.backlog()).oldest_s == NOW_S + 1
    works = [work, open_another(), open_another()]
    claims = await asyncio.gather(*(works[n % 3].claim(4, 60.0) for n in range(9)))
    keys = [job.key for jobs in claims for job in jobs]
    assert sorted(keys) == [f"j{number:02}" for number in range(30)]
    for jobs in claims:
        assert [job.key for job in jobs] == sorted(job.key for job in jobs)
    outcomes = await asyncio.gather(*(works[0].complete(job) for jobs in claims for job in jobs))
    assert all(outcomes)


async def test_who_holds_a_job_for_too_long_loses_it(
    work: DeferredWork, open_another: Opener, clock: ManualClock
) -> None:
    other = open_another()
    await work.put("k", "one", {"a": 1})
    await work.put("k", "two", {"a": 2})
    first = await work.claim(2, HOLD_S)
    again = await claim_lost(other, clock, HOLD_S)
    while len(again) < 2:
        again += await other.claim(2, HOLD_S)
    assert [(job.key, job.attempt, job.body) for job in again] == [("one", 2, {"a": 1}), ("two", 2, {"a": 2})]
    assert not await work.complete(first[0])
    assert not await work.retry(first[0], 0.0, "late")
    assert not await work.give_up(first[0], "late")
    assert await other.complete(again[0])
    assert await other.complete(again[1])
    assert await work.backlog() == Backlog(0, 0, None)


async def test_a_job_that_is_not_due_waits(work: DeferredWork, clock: ManualClock) -> None:
    assert await work.put("k", "later", {}, NOW_S + 100.0)
    assert not await work.put("k", "later", {})
    assert await work.claim(5, 60.0) == []
    clock.now_s += 100
    (job,) = await work.claim(5, 60.0)
    assert await work.retry(job, NOW_S + 150.0, "the directory is away")
    assert await work.claim(5, 60.0) == []
    assert (await work.backlog()).waiting == 1
    clock.now_s += 50
    (job,) = await work.claim(5, 60.0)
    assert job.attempt == 2
    assert await work.complete(job)


async def test_a_job_that_fails_too_often_is_set_aside_and_can_be_revived(
    work: DeferredWork, clock: ManualClock
) -> None:
    await work.put("k", "bad", {"a": 1})
    for attempt in range(1, ATTEMPTS_MAX + 1):
        (job,) = await work.claim(5, 60.0)
        assert job.attempt == attempt
        assert await work.retry(job, clock.now_s, f"failed {attempt}")
    assert await work.claim(5, 60.0) == []
    (dead,) = await work.dead()
    assert (dead.key, dead.kind, dead.body, dead.put_s) == ("bad", "k", {"a": 1}, NOW_S)
    assert dead.error == f"failed {ATTEMPTS_MAX}"
    assert await work.backlog() == Backlog(0, 1, None)
    assert not await work.put("k", "bad", {})
    assert await work.revive("bad")
    assert not await work.revive("bad")
    (job,) = await work.claim(5, 60.0)
    assert job.attempt == 1
    assert await work.give_up(job, "cannot be done")
    assert [each.error for each in await work.dead()] == ["cannot be done"]


async def test_what_does_not_fit_is_refused(work: DeferredWork) -> None:
    for kind, key, body in (
        ("k", "", {}),
        ("", "key", {}),
        ("k", "x" * 200, {}),
        ("k", "nul\0", {}),
        ("k", "key", {"big": "x" * 70_000}),
        ("k", "key", {"object": object()}),
    ):
        with pytest.raises(ValueError, match="job"):
            await work.put(kind, key, body)
    for limit, hold_s in ((0, 1.0), (CLAIMED_MAX + 1, 1.0), (1, 0.0)):
        with pytest.raises(ValueError, match="claimed"):
            await work.claim(limit, hold_s)


async def test_what_was_done_long_ago_is_forgotten(work: DeferredWork, clock: ManualClock, url: str) -> None:
    await work.put("k", "one", {})
    (job,) = await work.claim(5, 60.0)
    await work.complete(job)
    assert await work.purge() == 0
    clock.now_s += DONE_KEPT_S + 1
    if not url:
        assert await work.purge() == 1
        assert await work.put("k", "one", {})


WORKER = """
import asyncio, os, sqlite3, sys
from pathlib import Path
from gateway.errors import StoreUnavailable
from gateway.stores import Connections, open_deferred_work
from gateway.types import SystemClock
from tests.real.pools import SMALL

async def main():
    url, folder, name = sys.argv[1:]
    work = open_deferred_work(url, Path(folder), SystemClock(), connections=Connections(SMALL))
    effects = sqlite3.connect(Path(folder) / "effects.sqlite3", timeout=10, isolation_level=None)
    while True:
        for job in await work.claim(3, 0.5):
            effects.execute("INSERT INTO begun VALUES (?)", (job.key,))
            effects.execute("INSERT OR IGNORE INTO effects VALUES (?)", (job.key,))
            if await work.complete(job):
                effects.execute("INSERT INTO completed VALUES (?)", (job.key,))

asyncio.run(main())
"""


async def test_jobs_survive_workers_that_are_killed_and_are_done_exactly_once(
    work: DeferredWork, url: str, tmp_path: Path
) -> None:
    """Two workers at a time are killed again and again; what each job does has taken place once at the end."""
    effects = sqlite3.connect(tmp_path / "effects.sqlite3", isolation_level=None)
    effects.execute("PRAGMA journal_mode = WAL")
    effects.execute("CREATE TABLE begun (key TEXT)")
    effects.execute("CREATE TABLE effects (key TEXT PRIMARY KEY)")
    effects.execute("CREATE TABLE completed (key TEXT PRIMARY KEY)")
    jobs = 150
    for number in range(jobs):
        assert await work.put("k", f"job-{number}", {"n": number})
    script = tmp_path / "worker.py"
    script.write_text(WORKER)
    root = Path(__file__).resolve().parents[2]
    environment = {**os.environ, "PYTHONPATH": str(root)}

    def start(name: str) -> subprocess.Popen[bytes]:
        return subprocess.Popen([sys.executable, script, url, tmp_path, name], env=environment)

    workers = [start("a"), start("b")]
    kills = 0
    deadline_s = time.monotonic() + 60
    done = 0
    try:
        while (await work.backlog()).waiting and time.monotonic() < deadline_s:
            await asyncio.sleep(0.02)
            (now,) = effects.execute("SELECT count(*) FROM effects").fetchone()
            if kills < 4 and now >= done + 20:
                done = now
                victim = workers[kills % 2]
                victim.send_signal(signal.SIGKILL)
                victim.wait()
                workers[kills % 2] = start(f"n{kills}")
                kills += 1
        assert (await work.backlog()) == Backlog(0, 0, None)
    finally:
        for worker in workers:
            worker.kill()
            worker.wait()
    counts = [effects.execute(f"SELECT count(*) FROM {name}").fetchone()[0] for name in ("effects", "begun")]
    effects.close()
    assert kills == 4
    assert counts[0] == jobs
    assert counts[1] >= jobs, "some may have been begun twice"
