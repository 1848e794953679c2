"""Refuse early what would only wait: shedding by the time that work spends in queues, after CoDel (RFC 8289).

As in CoDel a queue is bad when it *stands*: when even the least delay seen within an interval was above the target. A
burst that drains is none; nor is who waits for the one before them: where a piece of work takes long, the target is
longer, too (RFC 8289 §4.4). CoDel's own law, to drop at shrinking distances, assumes senders that slow down when they
are dropped; clients that log in do not, and at ten times the load it would take minutes to drop enough. So the share
that is refused is steered directly: in each interval it grows by how long the queue is, unless that shrinks already,
and it shrinks when the queue is gone. (Simulated: with 10 servers of 20 ms, useful answers stay at 95 to 100 % of
capacity from once to ten times the load; growth and decay twice as fast or slow give 90 %.)

Each queue is watched by itself, so that a flood in one pool sheds nothing of another: those before the pools and their
permits, and one that all share, the loop's own, by how late its timers run.
"""

from __future__ import annotations

import asyncio
import random
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal

from gateway.errors import OverloadedError
from gateway.resilience.pools import BULK
from gateway.types import Clock

Urgency = Literal["exempt", "critical", "normal"]
"""`exempt`: probes and admin, never shed. `critical`: shed only when more than half of the rest is."""

# Where the loop itself stands nobody's queue shows whose work it is; bulk work gives way first, and people wait for the
# rest. By the time that the loop's share is a third, all of it has.
SHED_FIRST = BULK
SHED_FIRST_UNTIL = 1 / 3

SHARE_MAX = 0.95  # something always gets through, or nothing would tell that the queue is gone
GROWTH = 0.1  # of what is still let in, in a bad interval, for each target that the delay is long
GROWTH_MAX = 0.5
DECAY = 0.8  # of what is refused stays so after a good interval
SHARE_MIN = 0.01  # below it nothing is refused any more
WORK_AHEAD = 2.0  # pieces of work that one may wait for, whatever the target says
TARGETS = 2.0  # that an interval is long at least: what must wait a while may do so once
LOOKS_MIN = 2  # in an interval; fewer tell of one that waited, not of a queue
OUR_SHARE = 0.5
LAGS_KEPT = 200  # of the last seconds: five at four looks an interval
LAG_SAMPLES = 4  # looks at the loop in an interval, and how many of them in a row tell that it stands

_random = random.SystemRandom().random


@dataclass(frozen=True, slots=True)
class SheddingLimits:
    """`target_s`: a queue whose least delay is above this stands. `interval_s`: how long it must, to count."""

    target_s: float = 0.05
    interval_s: float = 0.1


class QueueWatch:
    """One queue, and the share of new work that it lets be refused."""

    __slots__ = ("_clock", "_ends_s", "_former_s", "_least_s", "_looks", "_looks_min", "_share", "_target_s", "limits")

    def __init__(self, limits: SheddingLimits, clock: Clock, *, looks_min: int = LOOKS_MIN) -> None:
        """`looks_min`: with fewer in an interval nothing is concluded."""
        self.limits = limits
        self._looks_min = looks_min
        self._clock = clock
        self._least_s: float | None = None  # in this interval
        self._looks = 0  # in this interval
        self._target_s = limits.target_s
        self._former_s = 0.0  # the least of the interval before; 0 where it was a good one
        self._ends_s = clock.monotonic_s() + limits.interval_s
        self._share = 0.0

    def observe(self, delay_s: float, service_s: float = 0.0) -> None:
        """Take note that something waited for `delay_s` seconds, where work takes `service_s` as a rule."""
        self._turn()
        self._looks += 1
        self._target_s = max(self.limits.target_s, WORK_AHEAD * service_s)
        if self._least_s is None or delay_s < self._least_s:
            self._least_s = delay_s

    def share(self) -> float:
        """Give the share of new work to refuse: 0 to SHARE_MAX."""
        self._turn()
        return self._share

    def _turn(self) -> None:
        """Judge the interval that is over, if one is."""
        now_s = self._clock.monotonic_s()
        if now_s < self._ends_s:
            return
        if self._least_s is not None and self._least_s > self._target_s:
            if self._looks >= self._looks_min:
                if self._least_s >= self._former_s:
                    growth = min(GROWTH_MAX, GROWTH * self._least_s / self._target_s)
                    self._share = min(SHARE_MAX, self._share + growth * (1 - self._share))
                self._former_s = self._least_s
        else:
            self._former_s = 0.0
            passed = 1 + int((now_s - self._ends_s) / self.limits.interval_s)  # those in which nobody came are good
            self._share *= DECAY ** min(passed, 100)
            self._share = 0.0 if self._share < SHARE_MIN else self._share
        self._least_s = None
        self._looks = 0
        self._ends_s = now_s + max(self.limits.interval_s, TARGETS * self._target_s)


class LoadShedder:
    """Refuses a share of a pool's new work while one of its queues, or the loop's, stands. Belongs to one loop."""

    def __init__(
        self,
        limits: SheddingLimits,
        *,
        clock: Clock,
        retry_after_s: Callable[[], float],
        random_share: Callable[[], float] = _random,
    ) -> None:
        self.limits = limits
        self._clock = clock
        self._retry_after_s = retry_after_s
        self._random_share = random_share
        self._loop_watch = QueueWatch(limits, clock, looks_min=1)  # a loop that is late looks seldom
        self._watches: dict[str, list[QueueWatch]] = {}
        self._lag: asyncio.Task[None] | None = None
        self._lags: deque[tuple[float, float]] = deque(maxlen=LAGS_KEPT)  # when, and how late the loop was
        self._shed: dict[str, int] = {}

    def watch(self, pool: str) -> QueueWatch:
        """Return the watch of one more queue in which work of `pool` can wait."""
        made = QueueWatch(self.limits, self._clock)
        self._watches.setdefault(pool, []).append(made)
        return made

    def relimit(self, limits: SheddingLimits) -> None:
        """Have other limits from now on."""
        self.limits = limits
        for watch in (self._loop_watch, *(each for watches in self._watches.values() for each in watches)):
            watch.limits = limits

    def share(self, pool: str) -> float:
        """Give the share of a pool's normal work that is refused now."""
        loop = self._loop_watch.share()
        if pool in SHED_FIRST:
            loop = min(SHARE_MAX, loop / SHED_FIRST_UNTIL)
        else:
            loop = max(0.0, (loop - SHED_FIRST_UNTIL) / (1 - SHED_FIRST_UNTIL))
        return max((loop, *(watch.share() for watch in self._watches.get(pool, ()))))

    @property
    def shed(self) -> Mapping[str, int]:
        """How much work was refused since the start, by pool."""
        return self._shed

    def admit(self, pool: str, urgency: Urgency = "normal") -> None:
        """Return where new work may go on; raises OverloadedError for the share that is refused."""
        if urgency == "exempt":
            return
        share = self.share(pool)
        if urgency == "critical":
            share = 2 * share - 1
        if share > 0 and self._random_share() < share:
            self._shed[pool] = self._shed.get(pool, 0) + 1
            raise OverloadedError("there is more work than can be done", retry_after_s=self._retry_after_s())

    # -- the loop's own queue

    def is_ours(self, began_s: float) -> bool:
        """Tell whether most of the time since `began_s` was this loop's own: then no timeout says anything of a peer.

        Its answer may have lain in the socket while the loop did other things. Overload must not look like an outage.
        """
        elapsed_s = self._clock.monotonic_s() - began_s
        worst_s = max((lag_s for at_s, lag_s in self._lags if at_s >= began_s), default=0.0)
        return worst_s > 0.0 and worst_s >= OUR_SHARE * elapsed_s

    def start(self) -> None:
        """Begin to watch how late the running loop is."""
        self._lag = asyncio.create_task(self._watch_lag(), name="loop-lag")

    async def stop(self) -> None:
        """End the watching."""
        lag, self._lag = self._lag, None
        if lag is not None:
            lag.cancel()
            await asyncio.gather(lag, return_exceptions=True)

    async def _watch_lag(self) -> None:
        while True:
            pause_s = self.limits.interval_s / LAG_SAMPLES
            due_s = self._clock.monotonic_s() + pause_s
            await asyncio.sleep(pause_s)
            now_s = self._clock.monotonic_s()
            lag_s = max(0.0, now_s - due_s)
            self._lags.append((now_s, lag_s))
            self._loop_watch.observe(self._standing_lag_s())

    def _standing_lag_s(self) -> float:
        """Give the least of the last looks: who was late once or twice had something to do at once, and has done it.

        An interval alone would not tell: a late loop looks once in it, at best.
        """
        if len(self._lags) < LAG_SAMPLES:
            return 0.0
        return min(self._lags[-look][1] for look in range(1, LAG_SAMPLES + 1))
