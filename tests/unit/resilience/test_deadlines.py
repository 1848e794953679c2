"""Deadlines are inherited, only ever come nearer, and hold whatever the awaited call does."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Awaitable, Callable

import pytest

from gateway.errors import DeadlineExceededError, ResourceExhaustedError
from gateway.resilience import deadlines
from gateway.resilience.deadlines import (
    GRACE_S,
    abandoned_calls,
    check_deadline,
    current_deadline,
    deadline,
    remaining_s,
    within,
)
from gateway.stores.redis_server import RedisServer
from tests.virtual_time import LoopClock, run_virtual

CLOCK = LoopClock()


def now_s() -> float:
    return CLOCK.monotonic_s()


async def swallow_for(seconds: float, log: list[str] | None = None) -> str:
    """Run for `seconds`, whoever cancels, as some drivers do."""
    end_s = now_s() + seconds
    while now_s() < end_s:
        try:
            await asyncio.sleep(end_s - now_s())
        except asyncio.CancelledError:
            if log is not None:
                log.append("cancelled")
    return "late"


def test_without_a_deadline_there_is_no_end() -> None:
    async def main() -> None:
        assert current_deadline() is None
        assert remaining_s() == math.inf
        check_deadline()

    run_virtual(main())


def test_a_nested_deadline_never_lasts_longer_than_the_one_around_it() -> None:
    async def main() -> None:
        async with deadline(2.0, clock=CLOCK):
            async with deadline(10.0, clock=CLOCK):
                assert remaining_s() == pytest.approx(2.0)
            async with deadline(0.5, clock=CLOCK):
                assert remaining_s() == pytest.approx(0.5)
            assert remaining_s() == pytest.approx(2.0)
            await asyncio.sleep(1.5)
            assert remaining_s() == pytest.approx(0.5)
        assert current_deadline() is None

    run_virtual(main())


def test_a_block_is_cancelled_when_its_time_is_over() -> None:
    async def main() -> None:
        began_s = now_s()
        with pytest.raises(DeadlineExceededError):
            async with deadline(2.0, clock=CLOCK):
                await asyncio.sleep(100)
        assert now_s() - began_s == pytest.approx(2.0)
        assert current_deadline() is None

    run_virtual(main())


def test_the_outer_deadline_ends_an_inner_block_that_has_time_left() -> None:
    async def main() -> None:
        began_s = now_s()
        with pytest.raises(DeadlineExceededError):
            async with deadline(1.0, clock=CLOCK), deadline(50.0, clock=CLOCK):
                await asyncio.sleep(100)
        assert now_s() - began_s == pytest.approx(1.0)

    run_virtual(main())


def test_a_timeout_of_somebody_else_stays_what_it_is() -> None:
    async def main() -> None:
        with pytest.raises(TimeoutError):
            async with deadline(9.0, clock=CLOCK):
                async with asyncio.timeout(1.0):
                    await asyncio.sleep(100)

    run_virtual(main())


def test_nothing_begins_when_no_time_is_left() -> None:
    begun: list[str] = []

    async def operation() -> None:
        begun.append("operation")

    async def main() -> None:
        with pytest.raises(DeadlineExceededError):
            async with deadline(1.0, clock=CLOCK):
                clock_end = now_s() + 1.0
                with pytest.raises(asyncio.CancelledError):
                    await asyncio.sleep(5)
                assert now_s() == pytest.approx(clock_end)
                with pytest.raises(DeadlineExceededError):
                    check_deadline()
                with pytest.raises(DeadlineExceededError):
                    await within(1.0, operation, clock=CLOCK)
                with pytest.raises(DeadlineExceededError):
                    async with deadline(1.0, clock=CLOCK):
                        begun.append("block")
                raise asyncio.CancelledError

    run_virtual(main())
    assert begun == []


def test_a_call_within_its_time_gives_its_result_or_its_error() -> None:
    async def answer() -> float:
        await asyncio.sleep(0.2)
        return remaining_s()

    async def fail() -> None:
        raise ValueError("no")

    async def main() -> None:
        assert await within(1.0, answer, clock=CLOCK) == pytest.approx(0.8)
        with pytest.raises(ValueError, match="no"):
            await within(1.0, fail, clock=CLOCK)

    run_virtual(main())


def test_a_call_that_swallows_its_cancellation_is_left_behind_in_time() -> None:
    log: list[str] = []

    async def main() -> None:
        began_s = now_s()
        with pytest.raises(DeadlineExceededError):
            await within(2.0, lambda: swallow_for(60.0, log), clock=CLOCK)
        assert now_s() - began_s <= 2.0 + GRACE_S + 0.001
        assert abandoned_calls() == 1
        assert log == ["cancelled"]
        await asyncio.sleep(60.0)
        assert abandoned_calls() == 0

    run_virtual(main())


def test_the_hard_deadline_holds_inside_a_polite_one() -> None:
    async def main() -> None:
        began_s = now_s()
        with pytest.raises(DeadlineExceededError):
            async with deadline(1.0, clock=CLOCK):
                await within(50.0, lambda: swallow_for(60.0), clock=CLOCK)
        assert now_s() - began_s <= 1.0 + GRACE_S + 0.001
        await asyncio.sleep(60.0)

    run_virtual(main())


def test_a_caller_that_is_cancelled_is_free_at_once_and_its_call_is_cancelled_too() -> None:
    log: list[str] = []

    async def main() -> None:
        caller = asyncio.create_task(within(30.0, lambda: swallow_for(60.0, log), clock=CLOCK))
        await asyncio.sleep(1.0)
        began_s = now_s()
        caller.cancel()
        with pytest.raises(asyncio.CancelledError):
            await caller
        assert now_s() - began_s <= GRACE_S + 0.001
        assert log == ["cancelled"]
        await asyncio.sleep(60.0)
        assert abandoned_calls() == 0

    run_virtual(main())


def test_a_call_that_cleans_up_when_cancelled_has_done_so_before_the_caller_goes_on() -> None:
    log: list[str] = []

    async def tidy() -> None:
        try:
            await asyncio.sleep(100)
        finally:
            await asyncio.sleep(GRACE_S / 2)
            log.append("clean")

    async def main() -> None:
        with pytest.raises(DeadlineExceededError):
            await within(1.0, tidy, clock=CLOCK)
        assert log == ["clean"]
        assert abandoned_calls() == 0

    run_virtual(main())


def test_an_error_of_a_call_that_was_left_behind_disturbs_nobody() -> None:
    async def fail_late() -> None:
        await swallow_for(10.0)
        raise OSError("too late to matter")

    async def main() -> None:
        faults: list[object] = []
        asyncio.get_running_loop().set_exception_handler(lambda _loop, context: faults.append(context))
        with pytest.raises(DeadlineExceededError):
            await within(1.0, fail_late, clock=CLOCK)
        await asyncio.sleep(20.0)
        assert faults == []
        assert abandoned_calls() == 0

    run_virtual(main())


def test_only_so_many_calls_are_left_behind(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(deadlines, "ABANDONED_MAX", 3)

    async def hang() -> str:
        return await swallow_for(60.0)

    async def attempt() -> str:
        try:
            await within(1.0, hang, clock=CLOCK)
        except (DeadlineExceededError, ResourceExhaustedError) as error:
            return error.code
        return "done"

    async def main() -> None:
        assert [await attempt() for _ in range(5)] == [
            *["deadline_exceeded"] * 3,
            *["resource_exhausted"] * 2,
        ]
        await asyncio.sleep(60.0)
        assert await attempt() == "deadline_exceeded"
        await asyncio.sleep(60.0)

    run_virtual(main())


@pytest.mark.parametrize("steps", range(8))
def test_cancellation_at_any_step_leaves_nothing_behind(steps: int) -> None:
    async def call() -> None:
        for _ in range(3):
            await asyncio.sleep(0)

    async def main() -> None:
        caller = asyncio.create_task(within(5.0, call, clock=CLOCK))
        for _ in range(steps):
            await asyncio.sleep(0)
        caller.cancel()
        await asyncio.gather(caller, return_exceptions=True)
        await asyncio.sleep(1.0)
        assert abandoned_calls() == 0
        assert asyncio.all_tasks() == {asyncio.current_task()}

    run_virtual(main())


def test_tasks_made_inside_inherit_the_deadline() -> None:
    async def left() -> float:
        return remaining_s()

    async def main() -> None:
        async with deadline(3.0, clock=CLOCK):
            assert await asyncio.create_task(left()) == pytest.approx(3.0)

    run_virtual(main())


def test_a_deadline_is_not_seen_by_what_runs_beside_it() -> None:
    seen: list[float] = []

    async def beside(began: asyncio.Event) -> None:
        await began.wait()
        seen.append(remaining_s())

    async def holder(began: asyncio.Event) -> None:
        async with deadline(3.0, clock=CLOCK):
            began.set()
            await asyncio.sleep(1)

    async def main() -> None:
        began = asyncio.Event()
        work: list[Awaitable[None]] = [beside(began), holder(began)]
        await asyncio.gather(*work)

    run_virtual(main())
    assert seen == [math.inf]


def test_an_operation_that_is_no_coroutine_function_is_awaited_too() -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        future: asyncio.Future[int] = loop.create_future()
        loop.call_later(0.1, future.set_result, 7)
        operation: Callable[[], Awaitable[int]] = lambda: future  # noqa: E731
        assert await within(1.0, operation, clock=CLOCK) == 7

    run_virtual(main())


def test_an_endless_limit_is_none() -> None:
    async def main() -> None:
        async with deadline(math.inf, clock=CLOCK):
            assert await within(math.inf, lambda: asyncio.sleep(1000.0, "done"), clock=CLOCK) == "done"

    run_virtual(main())


def test_a_store_s_own_deadline_gives_way_to_a_nearer_one_of_the_request() -> None:
    async def main() -> None:
        server = RedisServer("redis://127.0.0.1:1")
        began_s = now_s()
        with pytest.raises(DeadlineExceededError):
            async with deadline(0.1, clock=CLOCK), server.bounded(5.0):
                await asyncio.sleep(60)
        assert now_s() - began_s == pytest.approx(0.1)
        assert not server.suspect  # the request was in a hurry; the server did nothing wrong

    run_virtual(main())
