"""At most so much work at once, a bounded queue before it, and a bounded wait in the queue.

One event loop's thread owns a limiter: between two awaits nobody else changes it, so running and waiting work is
counted together without a lock, and a check cannot grow stale before what it allowed has happened.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from gateway.resilience.deadlines import remaining_s
from gateway.types import Clock

Refusal = Literal["full", "waited"]

SERVICE_WEIGHT = 0.1  # of the newest piece of work in the running mean of how long work takes


@dataclass(frozen=True, slots=True)
class WaitLimits:
    """How long work may wait for a place or a permit, in seconds."""

    wait_s: float = 0.25
    wait_s_max: float = 5.0  # the source's number: what anybody may be made to wait at most

    def allowed_s(self, service_s: float, asked_s: float | None = None) -> float:
        """Give the wait in force: with less than `service_s` left after it, the work itself would be cut."""
        wanted_s = self.wait_s if asked_s is None else min(asked_s, self.wait_s)
        return max(0.0, min(self.wait_s_max, wanted_s, remaining_s() - service_s))


class LimiterRefused(Exception):
    """The work was not let in: `full` at once, or `waited` as long as it might."""

    def __init__(self, why: Refusal) -> None:
        super().__init__(why)
        self.why: Refusal = why


class Limiter:
    """`running_max` pieces of work at once; `admitted_max` running and waiting, of which `reserved` for the critical.

    INVARIANT: work waits only while `running_max` runs. Who waits gets its turn in the order of arrival, the critical
    before the rest. Belongs to one event loop.
    """

    __slots__ = (
        "_clock",
        "_critical",
        "_normal",
        "_on_delay",
        "admitted_max",
        "entered",
        "refused_full",
        "refused_waited",
        "reserved",
        "running",
        "running_max",
        "service_s",
    )

    def __init__(
        self,
        *,
        running_max: int,
        admitted_max: int,
        reserved: int = 0,
        clock: Clock,
        on_delay: Callable[[float, float], None] | None = None,
    ) -> None:
        """`on_delay` is told how long each piece of work waited, as soon as that is known, and how long work takes as a
        rule; both in seconds.
        """
        self._clock = clock
        self._on_delay = on_delay
        self._critical: dict[asyncio.Future[bool], None] = {}  # oldest first; True = its turn, False = waited enough
        self._normal: dict[asyncio.Future[bool], None] = {}
        self.running = 0
        self.entered = 0  # since the start
        self.refused_full = 0
        self.refused_waited = 0
        self.service_s = 0.0  # running mean of how long work stays in
        self.resize(running_max=running_max, admitted_max=admitted_max, reserved=reserved)

    @property
    def waiting(self) -> int:
        return len(self._critical) + len(self._normal)

    def resize(self, *, running_max: int, admitted_max: int, reserved: int = 0) -> None:
        """Have other limits from now on. Work that is in stays in; what waits gets the places that are new."""
        if not 0 <= running_max <= admitted_max or not 0 <= reserved <= admitted_max:
            raise ValueError("running work is part of what is admitted, and so is what is reserved")
        self.running_max = running_max
        self.admitted_max = admitted_max
        self.reserved = reserved
        self._hand_on()

    def is_full(self, *, critical: bool = False) -> bool:
        """Tell whether whoever comes now is refused at once."""
        limit = self.admitted_max if critical else self.admitted_max - self.reserved
        return self.running + self.waiting >= limit

    async def enter(self, wait_s: float, *, critical: bool = False) -> float:
        """Take a place, waiting for at most `wait_s`; return the time at which it was had, for `leave`.

        Raises LimiterRefused. A caller that is cancelled has taken nothing.
        """
        if self.is_full(critical=critical):
            self.refused_full += 1
            raise LimiterRefused("full")
        if self.running < self.running_max:
            self.running += 1
            if self._on_delay is not None:
                self._on_delay(0.0, self.service_s)
        elif wait_s <= 0:
            self.refused_waited += 1
            raise LimiterRefused("waited")
        else:
            await self._wait(wait_s, self._critical if critical else self._normal)
        self.entered += 1
        return self._clock.monotonic_s()

    def leave(self, entered_s: float) -> None:
        """Give a place back; the next who waits has it at once."""
        self.service_s += SERVICE_WEIGHT * (self._clock.monotonic_s() - entered_s - self.service_s)
        self._release()

    def _release(self) -> None:
        self.running -= 1
        self._hand_on()

    def _hand_on(self) -> None:
        while self.running < self.running_max:
            queue = self._critical or self._normal
            if not queue:
                return
            turn = next(iter(queue))
            del queue[turn]
            if not turn.done():  # one that is done was cancelled a moment ago, and its task does not know it yet
                self.running += 1
                turn.set_result(True)

    async def _wait(self, wait_s: float, queue: dict[asyncio.Future[bool], None]) -> None:
        loop = asyncio.get_running_loop()
        turn: asyncio.Future[bool] = loop.create_future()
        queue[turn] = None
        began_s = self._clock.monotonic_s()
        timer = loop.call_later(wait_s, _expire, turn)
        try:
            has_place = await turn
        except asyncio.CancelledError:
            # The place may have been given in the same round of the loop in which the task was cancelled.
            if turn.done() and not turn.cancelled() and turn.result():
                self._release()
            raise
        finally:
            timer.cancel()
            queue.pop(turn, None)
            if self._on_delay is not None:
                self._on_delay(self._clock.monotonic_s() - began_s, self.service_s)
        if not has_place:
            self.refused_waited += 1
            raise LimiterRefused("waited")


def _expire(turn: asyncio.Future[bool]) -> None:
    if not turn.done():
        turn.set_result(False)
