"""Does what was put off: takes jobs from the durable queue, one after the other, and again when they fail.

A job whose worker dies is taken by another one after HOLD_S. Handlers must be harmless to run twice.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable, Mapping
from typing import Final

from gateway.errors import GatewayError, StoreUnavailable
from gateway.stores.deferred import DeferredWork, Job
from gateway.types import Clock

_log = logging.getLogger("portcullis.deferred")

POLL_S: Final = 1.0  # between two looks at an empty queue; a job that was put here is looked for at once
BATCH: Final = 20
HOLD_S: Final = 20.0  # a handler has half of it; what a worker held that died is taken up after it
RETRY_S: Final = 5.0  # before the second attempt; doubled each time
RETRY_S_MAX: Final = 3600.0
PURGE_S: Final = 3600.0  # between two looks for what was done long ago

Handle = Callable[[Job], Awaitable[None]]
"""Does one job. Raises GaveUp for one that cannot be done, and whatever else for one to be tried again."""


class GaveUp(Exception):
    """It cannot be done, now or later: it is set aside for a person to look at."""


class DeferredRunner:
    """Runs the jobs of one worker. Belongs to one event loop."""

    def __init__(
        self,
        work: DeferredWork,
        handlers: Mapping[str, Handle],
        clock: Clock,
        *,
        ready: Callable[[], bool] = lambda: True,
    ) -> None:
        """`handlers` by kind of job; jobs of other kinds are left to who knows them, for RETRY_S_MAX at a time.

        While `ready()` is false, as when what the jobs need is down, none is taken: to fail would count against them.
        """
        self._work = work
        self._ready = ready
        self._handlers = dict(handlers)
        self._purged_s = float("-inf")
        self._clock = clock
        self._wanted = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self.done = self.failed = 0  # since the start

    async def put(self, kind: str, key: str, body: Mapping[str, object], due_s: float = 0.0) -> bool:
        """Promise a job; it is durable when this returns. Raises StoreUnavailable."""
        new = await self._work.put(kind, key, body, due_s)
        self._wanted.set()
        return new

    def handle(self, kind: str, handle: Handle) -> None:
        """Have one more kind of jobs done."""
        self._handlers[kind] = handle

    async def start(self) -> None:
        """Begin."""
        self._task = asyncio.get_running_loop().create_task(self._run_for_ever(), name="deferred work")

    async def stop(self) -> None:
        """End; what is under way is taken by another worker later."""
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task

    async def _run_for_ever(self) -> None:
        while True:
            try:
                found = await self.run_once()
            except StoreUnavailable as error:
                _log.warning("deferred work cannot be looked for: %s", error)
                found = 0
            if found < BATCH:
                self._wanted.clear()
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(POLL_S):
                        await self._wanted.wait()

    async def run_once(self) -> int:
        """Do what is due, at most BATCH; return how many there were. Raises StoreUnavailable."""
        if not self._ready():
            return 0
        if self._clock.monotonic_s() - self._purged_s >= PURGE_S:
            self._purged_s = self._clock.monotonic_s()
            await self._work.purge()
        jobs = await self._work.claim(BATCH, HOLD_S)
        await asyncio.gather(*(self._do(job) for job in jobs))
        return len(jobs)

    async def _do(self, job: Job) -> None:
        handle = self._handlers.get(job.kind)
        try:
            if handle is None:
                await self._work.retry(job, self._clock.wall_s() + RETRY_S_MAX, f"nobody here knows `{job.kind}`")
                return
            async with asyncio.timeout(HOLD_S / 2):
                await handle(job)
            is_ours = await self._work.complete(job)  # awaited first: others count meanwhile
            self.done += is_ours
        except GaveUp as error:
            self.failed += 1
            _log.error("`%s` of `%s` is given up: %s", job.kind, job.key, error)
            await self._work.give_up(job, str(error))
        except Exception as error:
            self.failed += 1
            if not isinstance(error, (GatewayError, OSError, TimeoutError, ValueError)):
                _log.exception("`%s` of `%s` is at fault", job.kind, job.key)
            pause_s = min(RETRY_S_MAX, RETRY_S * 2 ** (job.attempt - 1))
            _log.warning("`%s` failed, and is tried again in %.0f s: %s", job.kind, pause_s, error or "no answer")
            with contextlib.suppress(StoreUnavailable):  # then its hold runs out, which comes to the same
                await self._work.retry(job, self._clock.wall_s() + pause_s, str(error))
