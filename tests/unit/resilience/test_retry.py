"""Retries are few, spread out, within the deadline, paid for, and only of what may be repeated."""

from __future__ import annotations

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.errors import BulkheadFullError, CircuitOpenError, DeadlineExceededError, StoreUnavailable
from gateway.resilience.deadlines import deadline
from gateway.resilience.retry import Retry, RetryBudget, RetryLimits, backoff_s, is_transient, jittered
from tests.unit.resilience.parts import CLOCK
from tests.unit.tokens.fakes import MovedClock
from tests.virtual_time import run_virtual


class Flaky:
    """Fails `failures` times with `error`, then gives "fine"; writes down when it was called."""

    def __init__(self, failures: int, error: Exception | None = None) -> None:
        self.failures = failures
        self.error = error or StoreUnavailable("down")
        self.called_s: list[float] = []

    async def __call__(self) -> str:
        self.called_s.append(CLOCK.monotonic_s())
        if len(self.called_s) <= self.failures:
            raise self.error
        return "fine"


def new_retry(limits: RetryLimits | None = None) -> Retry:
    return Retry(limits or RetryLimits(), clock=CLOCK, uniform=lambda low, high: high)


def test_a_fault_that_passes_is_not_seen() -> None:
    async def main() -> None:
        flaky = Flaky(2)
        assert await new_retry().call(flaky, idempotent=True) == "fine"
        pauses_s = [after - before for before, after in zip(flaky.called_s, flaky.called_s[1:], strict=False)]
        assert pauses_s == [pytest.approx(0.05), pytest.approx(0.1)]

    run_virtual(main())


def test_after_two_retries_the_last_error_is_raised() -> None:
    async def main() -> None:
        flaky = Flaky(9)
        with pytest.raises(StoreUnavailable):
            await new_retry().call(flaky, idempotent=True)
        assert len(flaky.called_s) == 3

    run_virtual(main())


def test_what_may_not_be_repeated_is_done_once() -> None:
    async def main() -> None:
        flaky = Flaky(1)
        with pytest.raises(StoreUnavailable):
            await new_retry().call(flaky, idempotent=False)
        assert len(flaky.called_s) == 1

    run_virtual(main())


@pytest.mark.parametrize(
    "error", [BulkheadFullError(), CircuitOpenError(), DeadlineExceededError(), ValueError("ours"), KeyError("ours")]
)
def test_refusals_of_our_own_and_mistakes_are_not_repeated(error: Exception) -> None:
    async def main() -> None:
        flaky = Flaky(1, error)
        with pytest.raises(type(error)):
            await new_retry().call(flaky, idempotent=True)
        assert len(flaky.called_s) == 1

    run_virtual(main())
    assert not is_transient(error)


def test_the_caller_can_say_what_is_worth_a_retry() -> None:
    async def main() -> None:
        flaky = Flaky(1, ValueError("passes"))
        assert await new_retry().call(flaky, idempotent=True, worth=lambda e: isinstance(e, ValueError)) == "fine"

    run_virtual(main())


def test_there_is_no_retry_that_the_deadline_would_cut() -> None:
    async def main() -> None:
        flaky = Flaky(1)
        with pytest.raises(StoreUnavailable):
            async with deadline(1.0, clock=CLOCK):
                await new_retry().call(flaky, idempotent=True, attempt_s=0.96)
        assert len(flaky.called_s) == 1
        async with deadline(1.0, clock=CLOCK):
            assert await new_retry().call(Flaky(1), idempotent=True, attempt_s=0.94) == "fine"

    run_virtual(main())


def test_cancellation_while_pausing_ends_it() -> None:
    async def main() -> None:
        flaky = Flaky(1)
        task = asyncio.create_task(new_retry().call(flaky, idempotent=True))
        await asyncio.sleep(0.01)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert len(flaky.called_s) == 1

    run_virtual(main())


def test_when_everything_fails_retries_are_a_tenth_of_the_calls_and_a_few() -> None:
    clock = MovedClock()
    budget = RetryBudget(RetryLimits(budget_share=0.1, budget_per_s=1.0, budget_s=10.0), clock=clock)
    for _ in range(1000):
        budget.deposit()
        budget.withdraw()
    assert budget.spent == 10 + 100
    assert budget.denied == 1000 - 110
    clock.move(20.0)
    assert sum(budget.withdraw() for _ in range(50)) == 10


@given(
    st.lists(st.tuples(st.booleans(), st.sampled_from([0.0, 0.1, 1.0, 4.0])), max_size=300),
    st.floats(0.0, 1.0),
)
def test_the_budget_holds_over_every_window(events: list[tuple[bool, float]], share: float) -> None:
    clock = MovedClock()
    budget = RetryBudget(RetryLimits(budget_share=share, budget_per_s=0.5, budget_s=10.0), clock=clock)
    calls: list[int] = []
    retries: list[int] = []
    for is_call, pause_s in events:
        clock.move(pause_s)
        slice_ = int(clock.now_s)
        if is_call:
            budget.deposit()
            calls.append(slice_)
            continue
        recent_calls = sum(at > slice_ - 10 for at in calls)
        recent_retries = sum(at > slice_ - 10 for at in retries)
        assert budget.withdraw() == (recent_retries + 1 <= share * recent_calls + 5.0)
        if budget.spent > len(retries):
            retries.append(slice_)


def test_pauses_double_up_to_their_bound_and_differ() -> None:
    assert [backoff_s(n, 0.05, 2.0, lambda low, high: high) for n in range(8)] == [
        *(pytest.approx(0.05 * 2**n) for n in range(6)),
        2.0,
        2.0,
    ]
    assert backoff_s(10**6, 0.05, 2.0) <= 2.0
    assert len({backoff_s(3, 0.05, 2.0) for _ in range(20)}) > 1
    assert {jittered(10.0, lambda low, high: low)(), jittered(10.0, lambda low, high: high)()} == {8.0, 12.0}
