"""Work on threads: bounded, in order, never begun for nobody, and never leaving a thread taken."""

from __future__ import annotations

import asyncio
import contextlib
import os
import threading
import time
from collections.abc import AsyncIterator, Callable

import pytest

from gateway.errors import DeadlineExceededError, ResourceExhaustedError
from gateway.resilience.deadlines import deadline
from gateway.resilience.limiter import WaitLimits
from gateway.resilience.threads import WorkThreads
from gateway.types import SystemClock

MakeThreads = Callable[..., WorkThreads]


class Gate:
    """Work that runs until it is let go."""

    def __init__(self) -> None:
        self.opened = threading.Event()
        self.begun: list[str] = []

    def work(self, name: str) -> Callable[[], str]:
        def run() -> str:
            self.begun.append(name)
            assert self.opened.wait(30)
            return name

        return run


@pytest.fixture
async def new_threads() -> AsyncIterator[MakeThreads]:
    made: list[WorkThreads] = []

    def make(threads: int = 1, waiting_max: int = 10, wait_s: float = 5.0) -> WorkThreads:
        made.append(
            WorkThreads(
                "hashing",
                threads=threads,
                waiting_max=waiting_max,
                waits=WaitLimits(wait_s=wait_s),
                retry_after_s=lambda: 5.0,
                clock=SystemClock(),
            )
        )
        return made[-1]

    yield make
    for threads in made:
        threads.close()


async def spared(threads: WorkThreads, within_s: float = 0.0) -> bool:
    """Tell whether there is a thread to spare; the time is that of waiting for one."""
    began_s = asyncio.get_running_loop().time()
    await threads.spare(within_s or 30.0)
    return asyncio.get_running_loop().time() - began_s < (within_s or 30.0)


async def until(holds: Callable[[], bool]) -> None:
    async with asyncio.timeout(30):
        while not holds():
            await asyncio.sleep(0)


async def test_work_is_done_on_another_thread_and_its_error_is_the_callers(new_threads: MakeThreads) -> None:
    threads = new_threads()
    assert await threads.run(threading.get_ident) != threading.get_ident()
    with pytest.raises(ZeroDivisionError):
        await threads.run(lambda: 1 // 0)
    assert threads.state().busy == 0


async def test_there_are_as_many_threads_as_cores(new_threads: MakeThreads) -> None:
    assert new_threads(threads=0).state().threads == len(os.sched_getaffinity(0))


async def test_only_so_much_runs_and_waits(new_threads: MakeThreads) -> None:
    threads, gate = new_threads(threads=2, waiting_max=1), Gate()
    works = [asyncio.create_task(threads.run(gate.work(name))) for name in "abc"]
    await until(lambda: len(gate.begun) == 2 and threads.state().waiting == 1)
    with pytest.raises(ResourceExhaustedError, match="no thread for `hashing` came free"):
        await threads.run(gate.work("d"))
    assert sorted(gate.begun) == ["a", "b"]
    gate.opened.set()
    assert await asyncio.gather(*works) == ["a", "b", "c"]
    state = threads.state()
    assert (state.busy, state.waiting, state.refused) == (0, 0, 1)


async def test_who_has_waited_long_enough_is_refused(new_threads: MakeThreads) -> None:
    threads, gate = new_threads(wait_s=0.01), Gate()
    first = asyncio.create_task(threads.run(gate.work("a")))
    await until(lambda: gate.begun == ["a"])
    with pytest.raises(ResourceExhaustedError):
        await threads.run(gate.work("b"))
    gate.opened.set()
    assert await first == "a"


async def test_work_that_nobody_waits_for_any_more_is_not_begun(new_threads: MakeThreads) -> None:
    threads, gate = new_threads(), Gate()
    first, second = (asyncio.create_task(threads.run(gate.work(name))) for name in "ab")
    await until(lambda: gate.begun == ["a"] and threads.state().waiting == 1)
    second.cancel()
    with pytest.raises(asyncio.CancelledError):
        await second
    gate.opened.set()
    assert await first == "a"
    assert await threads.run(gate.work("c")) == "c"
    assert gate.begun == ["a", "c"]


async def test_work_that_has_begun_keeps_its_thread_until_it_ends(new_threads: MakeThreads) -> None:
    threads, gate = new_threads(), Gate()
    with pytest.raises(DeadlineExceededError):
        async with deadline(0.05):
            await threads.run(gate.work("a"))
    assert threads.state().busy == 1
    gate.opened.set()
    await until(lambda: threads.state().busy == 0)
    assert await threads.run(gate.work("b")) == "b"


async def test_closed_threads_take_nothing_and_keep_nothing(new_threads: MakeThreads) -> None:
    threads = new_threads()
    threads.close()
    with pytest.raises(RuntimeError):
        await threads.run(lambda: 1)
    assert threads.state().busy == 0


async def test_bulk_waits_until_a_thread_is_free_and_no_longer_than_it_may(new_threads: MakeThreads) -> None:
    threads, gate, other = new_threads(threads=2, waiting_max=1), Gate(), Gate()
    assert await spared(threads, 0.1)
    one = asyncio.create_task(threads.run(gate.work("one")))
    await until(lambda: gate.begun == ["one"])
    assert await spared(threads, 0.1)  # a core is free
    two = asyncio.create_task(threads.run(other.work("two")))
    await until(lambda: other.begun == ["two"])
    assert not await spared(threads, 0.1)
    three = asyncio.create_task(threads.run(gate.work("three")))
    waiting = asyncio.create_task(spared(threads))
    await asyncio.sleep(0)
    gate.opened.set()
    await asyncio.gather(one, three)
    assert await waiting
    other.opened.set()
    await two
    assert await spared(threads, 0.1)


async def test_who_would_wait_for_longer_than_they_may_is_told_before_they_wait(new_threads: MakeThreads) -> None:
    threads, gate = new_threads(threads=1, waiting_max=100, wait_s=0.25), Gate()
    for _ in range(30):  # it learns that each takes 50 ms
        await threads.run(lambda: time.sleep(0.05))
    running = [asyncio.create_task(threads.run(gate.work("first")))]
    await until(lambda: gate.begun == ["first"])
    for _ in range(3):
        threads.check()
        running.append(asyncio.create_task(threads.run(lambda: "next")))
        await asyncio.sleep(0)
    refused = 0
    for _ in range(5):
        try:
            threads.check()
        except ResourceExhaustedError as error:
            assert error.retry_after_s == 5.0
            refused += 1
        else:
            running.append(asyncio.create_task(threads.run(lambda: "next")))
            await asyncio.sleep(0)
    assert refused >= 3
    assert threads.state().refused == refused
    gate.opened.set()
    await asyncio.gather(*running)
    threads.check()


async def test_many_who_look_at_a_short_queue_at_once_do_not_make_it_a_long_one(new_threads: MakeThreads) -> None:
    threads, gate = new_threads(threads=1, waiting_max=100, wait_s=0.25), Gate()
    for _ in range(30):
        await threads.run(lambda: time.sleep(0.05))
    running = asyncio.create_task(threads.run(gate.work("first")))
    await until(lambda: gate.begun == ["first"])
    coming = []
    for _ in range(20):
        with contextlib.suppress(ResourceExhaustedError):
            coming.append(threads.announce())
    assert 2 <= len(coming) <= 6  # what a quarter of a second is enough for
    for each in coming:
        each.arrive()
        each.arrive()
    threads.check()
    gate.opened.set()
    await running
