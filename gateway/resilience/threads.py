"""Work that computes, such as password hashing, on threads of its own: the loop goes on, and no core is shared by ten.

As many threads as cores: more would make each hash slower and none of them sooner. What waits for a thread waits in the
loop, in order and for a bounded time, so that work which nobody waits for any more is never begun.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from contextvars import ContextVar
from dataclasses import dataclass
from typing import TypeVar

from gateway.errors import ResourceExhaustedError
from gateway.resilience.deadlines import check_deadline
from gateway.resilience.limiter import Limiter, LimiterRefused, WaitLimits
from gateway.types import Clock

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class ThreadsState:
    """How the threads stand. Totals since the start."""

    threads: int
    busy: int
    waiting: int
    refused: int


class Coming:
    """One piece of work that is on its way to the threads, and counts as waiting there already."""

    __slots__ = ("_is_there", "_threads")

    def __init__(self, threads: WorkThreads) -> None:
        self._threads = threads
        self._is_there = False

    def arrive(self) -> None:
        """Count it no more: it is there, or does not come. May be told twice."""
        if not self._is_there:
            self._is_there = True
            self._threads._coming -= 1

    def is_for(self, threads: WorkThreads) -> bool:
        return self._threads is threads


_announced: ContextVar[Coming | None] = ContextVar("portcullis_coming", default=None)


class WorkThreads:
    """Threads for one kind of work. Belongs to one event loop; the threads begin with the first work."""

    def __init__(
        self,
        name: str,
        *,
        threads: int = 0,
        waiting_max: int,
        waits: WaitLimits,
        retry_after_s: Callable[[], float],
        clock: Clock,
        on_delay: Callable[[float, float], None] | None = None,
    ) -> None:
        """`threads`: 0 = one a core that this process may use."""
        count = threads or len(os.sched_getaffinity(0))
        self._name = name
        self.waits = waits  # may be replaced
        self._retry_after_s = retry_after_s
        self._limiter = Limiter(running_max=count, admitted_max=count + waiting_max, clock=clock, on_delay=on_delay)
        self._executor = ThreadPoolExecutor(count, thread_name_prefix=name)
        self._coming = 0
        self._spare = asyncio.Event()
        self._spare.set()

    async def run(self, work: Callable[[], T]) -> T:
        """Return what `work()` gives, computed on a thread; context variables are not seen there.

        Raises ResourceExhaustedError where no thread comes free in time, DeadlineExceededError, and what `work`
        raises. Work that has begun goes on when the caller is cancelled, and keeps its thread until it ends.
        """
        check_deadline()
        coming = _announced.get()
        if coming is not None and coming.is_for(self):
            coming.arrive()
        self.check()
        try:
            entered_s = await self._limiter.enter(self.waits.allowed_s(self._limiter.service_s))
        except LimiterRefused:
            check_deadline()
            raise self._refusal() from None
        self._look()
        try:
            future = asyncio.get_running_loop().run_in_executor(self._executor, work)
        except BaseException:  # the threads are closed
            self._limiter.leave(entered_s)
            self._look()
            raise
        future.add_done_callback(lambda done: self._leave(done, entered_s))
        return await asyncio.shield(future)

    def announce(self) -> Coming:
        """Have one piece of work of this context counted before it comes; its `arrive` must be called in the end.

        To be asked before what comes before the work: whoever waits in vain has cost as much as one that did not, and
        many who look at a short queue at once would find a long one. Raises as `check` does.
        """
        self.check()
        self._coming += 1
        coming = Coming(self)
        _announced.set(coming)
        return coming

    def check(self) -> None:
        """Raise ResourceExhaustedError where new work would wait for longer than it may, as far as can be told."""
        limiter = self._limiter
        ahead = limiter.running + limiter.waiting + self._coming + 1 - limiter.running_max
        if ahead * limiter.service_s / limiter.running_max > self.waits.allowed_s(limiter.service_s):
            limiter.refused_full += 1
            raise self._refusal()

    def _refusal(self) -> ResourceExhaustedError:
        return ResourceExhaustedError(f"no thread for `{self._name}` came free", retry_after_s=self._retry_after_s())

    def _leave(self, done: asyncio.Future[T], entered_s: float) -> None:
        self._limiter.leave(entered_s)
        self._look()
        if not done.cancelled():
            done.exception()  # whoever waited may be gone; then nobody is left to tell

    async def spare(self, within_s: float) -> None:
        """Return once one of the threads has nothing to do, so that a core is free, or after `within_s` seconds.

        For work in bulk on the loop: where every core hashes for somebody at a screen, it would slow them all down.
        """
        if not self._spare.is_set():
            with suppress(TimeoutError):
                async with asyncio.timeout(within_s):
                    await self._spare.wait()

    def _look(self) -> None:
        if self._limiter.running < self._limiter.running_max:
            self._spare.set()
        else:
            self._spare.clear()

    def state(self) -> ThreadsState:
        """Say how the threads stand."""
        limiter = self._limiter
        refused = limiter.refused_full + limiter.refused_waited
        return ThreadsState(limiter.running_max, limiter.running, limiter.waiting, refused)

    def close(self) -> None:
        """Take no more work; what runs goes on to its end."""
        self._executor.shutdown(wait=False)
