"""Retries that cannot become a storm: few, spread out, within the deadline, and paid for from a budget.

A dependency that fails for everybody would get three times its load from three attempts each. The budget allows a tenth
of the calls to be repeated, and a few a second where there are few calls. Only what may be repeated is: an operation
says so, and a code exchange or any other one-time proof never does.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import TypeVar

from gateway.errors import StoreUnavailable
from gateway.resilience.deadlines import remaining_s
from gateway.resilience.window import SlidingCounts
from gateway.types import Clock

T = TypeVar("T")

RETRY_AFTER_JITTER = 0.2  # or all that were refused come again in the same second

_CALL, _RETRY = 0, 1

_uniform = random.SystemRandom().uniform

Uniform = Callable[[float, float], float]


@dataclass(frozen=True, slots=True)
class RetryLimits:
    """`retries_max` a call, `budget_share` of all calls, `budget_per_s` in any case; pauses of a call, in seconds."""

    retries_max: int = 2
    pause_s: float = 0.05
    pause_s_max: float = 2.0
    budget_share: float = 0.1
    budget_per_s: float = 1.0
    budget_s: float = 10.0  # the time over which both are counted


class RetryBudget:
    """Lets retries of the last `budget_s` be a share of the calls in that time, and a few besides.

    Belongs to one event loop.
    """

    __slots__ = ("_clock", "_counts", "_limits", "denied", "spent")

    def __init__(self, limits: RetryLimits, *, clock: Clock) -> None:
        self._clock = clock
        self._limits = limits
        self._counts = SlidingCounts(2, limits.budget_s, clock=clock)
        self.spent = 0  # retries since the start
        self.denied = 0

    def relimit(self, limits: RetryLimits) -> None:
        """Have other limits from now on; what was counted counts no more."""
        self._counts = SlidingCounts(2, limits.budget_s, clock=self._clock)
        self._limits = limits

    def deposit(self) -> None:
        """Take note of a first attempt, which pays for a part of a retry."""
        self._counts.add(_CALL)

    def withdraw(self) -> bool:
        """Pay for one retry, or say that there is nothing left to pay with."""
        limits = self._limits
        allowed = limits.budget_share * self._counts.total(_CALL) + limits.budget_per_s * limits.budget_s
        if self._counts.total(_RETRY) + 1 > allowed:
            self.denied += 1
            return False
        self._counts.add(_RETRY)
        self.spent += 1
        return True


class Retry:
    """Repeats an operation that failed by its dependency's fault."""

    __slots__ = ("_limits", "_sleep", "_uniform", "budget")

    def __init__(
        self,
        limits: RetryLimits,
        *,
        clock: Clock,
        uniform: Uniform = _uniform,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._limits = limits
        self._uniform = uniform
        self._sleep = sleep
        self.budget = RetryBudget(limits, clock=clock)

    def relimit(self, limits: RetryLimits) -> None:
        """Have other limits from the next failure on."""
        self._limits = limits
        self.budget.relimit(limits)

    async def call(
        self,
        operation: Callable[[], Awaitable[T]],
        *,
        idempotent: bool,
        worth: Callable[[Exception], bool] | None = None,
        attempt_s: float = 0.0,
    ) -> T:
        """Await `operation()`, again where it failed, is `idempotent`, and the error is `worth` it.

        By default only a fault on the way is worth it: StoreUnavailable, or a connection that broke or timed out.
        Refusals of our own (pool full, circuit open, deadline) never are: repeating them is what they guard against.
        `attempt_s` is what one more attempt needs; with less left of the deadline there is none. Raises the last
        error.
        """
        self.budget.deposit()
        judge = is_transient if worth is None else worth
        attempt = 0
        while True:
            try:
                return await operation()
            except Exception as error:
                if not idempotent or attempt >= self._limits.retries_max or not judge(error):
                    raise
                pause_s = backoff_s(attempt, self._limits.pause_s, self._limits.pause_s_max, self._uniform)
                if pause_s + attempt_s >= remaining_s() or not self.budget.withdraw():
                    raise
            attempt += 1
            await self._sleep(pause_s)


def is_transient(error: Exception) -> bool:
    """Tell whether an error is a fault on the way to a dependency, which may be gone at the next attempt."""
    return isinstance(error, StoreUnavailable | ConnectionError | TimeoutError)


def backoff_s(attempt: int, first_s: float, most_s: float, uniform: Uniform = _uniform) -> float:
    """Give the pause after attempt number `attempt` (from 0): doubling, with half of it left to chance."""
    whole_s = min(most_s, first_s * 2.0 ** min(attempt, 32))
    return uniform(0.5, 1.0) * whole_s


def jittered(base_s: float, uniform: Uniform = _uniform) -> Callable[[], float]:
    """Return what gives `Retry-After`s around `base_s` seconds."""
    return lambda: base_s * uniform(1 - RETRY_AFTER_JITTER, 1 + RETRY_AFTER_JITTER)
