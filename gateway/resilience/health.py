"""Whether a dependency is well: what asking it says, and what the calls of requests say.

One bad sample is noise, and one good one is no recovery: two of the last three that are bad make a dependency
unhealthy, several good ones in a row make it healthy again, and each relapse within five minutes doubles their number.
A dependency that flaps would otherwise drag everybody through two changes of behaviour a second.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Literal, get_args

from gateway.errors import DeadlineExceededError, GatewayError
from gateway.resilience.deadlines import within
from gateway.types import Clock

_log = logging.getLogger("portcullis.resilience")

DependencyName = Literal["database", "cache", "external_idp", "policy_engine"]
DEPENDENCIES: tuple[DependencyName, ...] = get_args(DependencyName)
HealthStatus = Literal["ok", "slow", "down"]

SAMPLES = 3  # that are looked at
BAD_SAMPLES = 2  # of them, for a change to the worse
RELAPSE_WINDOW_S = 300.0
RELAPSES_MAX = 6  # counted: 64 times as many good samples are asked for at most
CALLS_MIN = 3  # of requests between two samples, for their failures to say anything
FAILURE_RATE = 0.5
EXCUSED_MAX = 8  # samples in a row: a dependency that is gone as well must be noticed in the end
QUIET_S = 30.0  # what nobody asks any more, and nothing probes, is taken for well again after this

Probe = Callable[[], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class HealthLimits:
    """`slow_s`: a latency above this is slow. `good_samples`: in a row, to be well again.

    With half a second between samples and 0.4 s for each, a dependency that hangs is known after 1.4 s at most.
    """

    interval_s: float = 0.5
    probe_timeout_s: float = 0.4
    slow_s: float = 0.25
    good_samples: int = 3


@dataclass(frozen=True, slots=True)
class HealthState:
    """How a dependency stands, for levels, metrics and `/readyz`."""

    name: DependencyName
    status: HealthStatus
    latency_s: float  # of the last sample
    error: str  # code or class of the last fault; "" after a good sample
    changes: int  # of status, since the start


class _Verdict:
    """One yes-or-no that is slow to believe: bad by two samples of three, good by several in a row."""

    __slots__ = ("bad", "good_row", "recent")

    def __init__(self) -> None:
        self.recent: deque[bool] = deque(maxlen=SAMPLES)  # True = bad
        self.good_row = 0
        self.bad = False

    def sample(self, bad: bool, good_samples: int) -> bool:
        """Take one more sample; return whether the verdict changed."""
        before = self.bad
        self.recent.append(bad)
        self.good_row = 0 if bad else self.good_row + 1
        if not self.bad and sum(self.recent) >= BAD_SAMPLES:
            self.bad = True
        elif self.bad and self.good_row >= good_samples:
            self.bad = False
            self.recent.clear()
        return self.bad != before


class DependencyHealth:
    """The health of one dependency. Belongs to one event loop."""

    def __init__(
        self,
        name: DependencyName,
        *,
        probe: Probe | None = None,
        limits: HealthLimits | None = None,
        clock: Clock,
        is_ours: Callable[[float], bool] = lambda _began_s: False,
    ) -> None:
        """`probe` asks the dependency for something that needs all of it (an idle connection that answers proves
        little); it raises where the answer is wrong or does not come. None: only the calls of requests tell. A probe
        that fails while `is_ours(began_s)` says nothing: this process was too busy to hear the answer.
        """
        self.name = name
        self.limits = limits or HealthLimits()  # may be replaced
        self._probe = probe
        self._is_ours = is_ours
        self._excused = 0  # in a row
        self._clock = clock
        self._down = _Verdict()
        self._slow = _Verdict()
        self._relapses: deque[float] = deque(maxlen=RELAPSES_MAX + 1)
        self._calls = 0  # of requests, since the last sample
        self._failures = 0
        self._elapsed_s = 0.0
        self._failed_at_s = float("-inf")
        self._latency_s = 0.0
        self._error = ""
        self._changes = 0

    @property
    def status(self) -> HealthStatus:
        return "down" if self._down.bad else "slow" if self._slow.bad else "ok"

    def state(self) -> HealthState:
        """Say how it stands."""
        return HealthState(self.name, self.status, self._latency_s, self._error, self._changes)

    def observe(self, ok: bool, elapsed_s: float) -> None:
        """Take note of a call that a request made; `ok` where the dependency did its part, whatever it answered."""
        self._calls += 1
        self._failures += not ok
        self._elapsed_s += elapsed_s

    async def sample(self) -> None:
        """Ask the dependency, and judge by that and by the calls since the last time. Never raises."""
        began_s = self._clock.monotonic_s()
        error = ""
        if self._probe is not None:
            try:
                await within(self.limits.probe_timeout_s, self._probe, clock=self._clock)
            except DeadlineExceededError:
                error = "timeout"
            except Exception as fault:
                error = fault.code if isinstance(fault, GatewayError) else type(fault).__name__
        if error and self._excused < EXCUSED_MAX and self._is_ours(began_s):
            self._excused += 1
            return
        self._excused = 0
        self._judge(error, self._clock.monotonic_s() - began_s)

    def _judge(self, error: str, probe_s: float) -> None:
        now_s = self._clock.monotonic_s()
        calls, failures, elapsed_s = self._calls, self._failures, self._elapsed_s
        self._calls = self._failures = 0
        self._elapsed_s = 0.0
        if calls >= CALLS_MIN and failures >= FAILURE_RATE * calls:
            error = error or "calls_fail"
        if self._probe is None and calls == 0 and now_s - self._failed_at_s < QUIET_S:
            return  # nobody asked: nothing is known
        if error:
            self._failed_at_s = now_s
        self._error = error
        self._latency_s = max(probe_s, elapsed_s / calls if calls else 0.0)
        before = self.status
        if self._down.sample(bool(error), self._good_samples(now_s)) and self._down.bad:
            self._relapses.append(now_s)
        self._slow.sample(not error and self._latency_s > self.limits.slow_s, self.limits.good_samples)
        if self.status != before:
            self._changes += 1
            _log.warning(
                "`%s` is %s %s", self.name, self.status, f"({error})" if error else f"({self._latency_s * 1e3:.0f} ms)"
            )

    def _good_samples(self, now_s: float) -> int:
        while self._relapses and now_s - self._relapses[0] > RELAPSE_WINDOW_S:
            self._relapses.popleft()
        return int(self.limits.good_samples * 2 ** max(0, len(self._relapses) - 1))
