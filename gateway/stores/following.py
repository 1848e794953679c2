"""The following of a store's log: read to its end again and again, and what may be believed meanwhile.

    starting ──read──▶ ok ──fault──▶ degraded ──read again──▶ ok
        └────fault────▶ unavailable ◀──behind for too long─┘

The log is the truth, `wait` is only a hint; a look at the log's end each `heartbeat_s` is the lease under which what
was read is believed. It is lost when the last one began more than `behind_s_max` ago: `trusted` is False then. A fault
never ends the following: after it the log is read on from where it was, so that a gap closes by itself.
"""

from __future__ import annotations

import asyncio
import logging
import math
import random
from collections.abc import Awaitable, Callable
from typing import Final, Literal

from gateway.errors import StoreUnavailable
from gateway.resilience import backoff_s
from gateway.types import Clock

logger = logging.getLogger(__name__)
uniform_random = random.SystemRandom().uniform

BACKOFF_MIN_S: Final = 0.1  # after a fault; doubled up to the maximum, with jitter
BACKOFF_MAX_S: Final = 2.0
PURGE_PAUSE_S: Final = 3600.0  # between two clean-ups by this process, with jitter
WATCH_PAUSE_S: Final = 0.01  # between two looks at the clock at least

Status = Literal["starting", "ok", "degraded", "unavailable"]


class NoRoom(Exception):
    """What the log tells of cannot all be kept: nobody may decide by a part of it. Raised by `read`; says why."""


class Following:
    """Runs the reading of one log, and says how it stands. Belongs to one event loop.

    `whole`: everything up to where the log was read is in force. A successful `read` makes it so, NoRoom ends it, and
    so may the owner, who finds that something is missing.
    """

    def __init__(
        self,
        what: str,
        *,
        read: Callable[[], Awaitable[float]],
        wait: Callable[[float], Awaitable[None]],
        purge: Callable[[float], Awaitable[int]],
        clock: Clock,
        on_trust: Callable[[], None],
        heartbeat_s: float,
        behind_s_max: float,
        uniform: Callable[[float, float], float] = uniform_random,
    ) -> None:
        """`what`: its name in messages, in the plural.

        `read` reads to the log's end and returns when, on the monotonic clock, it began the look that found no more.
        `wait` returns when there may be more, after so many seconds at the latest. `purge` lets the store forget what
        was over before a Unix time and returns how much that was. All raise StoreUnavailable for what the store cannot
        do now. `on_trust` is called each time that `trusted` has changed.
        """
        self.whole = False
        self.error = ""  # of the last attempt, "" after a success
        self._what = what
        self._read = read
        self._wait = wait
        self._purge = purge
        self._clock = clock
        self._on_trust = on_trust
        self._heartbeat_s = heartbeat_s
        self._behind_s_max = behind_s_max
        self._uniform = uniform
        self._reading = asyncio.Lock()
        self._read_at_s: float | None = None  # monotonic, when the look began that found the end
        self._failures = 0
        self._told: tuple[Status, bool] = ("starting", False)
        self._attempted = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []

    @property
    def trusted(self) -> bool:
        """Whether what was read is whole, and no older than `behind_s_max`."""
        behind_s = self.behind_s
        return self.whole and behind_s is not None and behind_s <= self._behind_s_max

    @property
    def behind_s(self) -> float | None:
        """Since the end of the log was last seen; None: never."""
        return None if self._read_at_s is None else max(0.0, self._clock.monotonic_s() - self._read_at_s)

    @property
    def status(self) -> Status:
        if self.trusted:
            return "degraded" if self.error else "ok"
        return "unavailable" if self._attempted.is_set() or self.error else "starting"

    async def start(self) -> None:
        """Begin to follow; return after the first attempt to read the log, whether or not it succeeded."""
        loops = {"follow": self._follow_for_ever(), "purge": self._purge_for_ever()}
        if self._behind_s_max < math.inf:
            loops["lease"] = self._watch_lease()
        self._tasks = [asyncio.create_task(loop, name=f"{self._what}: {name}") for name, loop in loops.items()]
        await self._attempted.wait()

    async def stop(self) -> None:
        """Stop following. What was learned stays; the store stays open."""
        tasks, self._tasks = self._tasks, []
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def follow(self) -> None:
        """Read to the end of the log once, and take note of how that went."""
        async with self._reading:
            if await self._attempt(self._read_once()):
                self.error, self._failures = "", 0
        self.tell()
        self._attempted.set()

    async def look(self, timeout_s: float) -> None:
        """Read to the end of the log once. Raises StoreUnavailable where that did not succeed within `timeout_s`."""
        try:
            async with asyncio.timeout(timeout_s):
                await self.follow()
        except TimeoutError as error:
            raise StoreUnavailable(f"the {self._what} are not as new as was asked for") from error
        if self.error:
            raise StoreUnavailable(self.error)

    async def purge(self) -> None:
        """Let the store forget what is over; a store that cannot is tried again later."""
        try:
            count = await self._purge(self._clock.wall_s())
        except StoreUnavailable as error:
            logger.warning("%s that are over could not be removed: %s", self._what, error)
        else:
            logger.info("%d %s were over and are removed", count, self._what)

    def tell(self) -> None:
        """Tell the log and the owner what changed since they were last told."""
        told, self._told = self._told, (self.status, self.trusted)
        if told[0] != self._told[0]:
            level = logging.INFO if self._told[0] == "ok" else logging.ERROR
            logger.log(level, "%s are %s%s", self._what, self._told[0], f" ({self.error})" if self.error else "")
        if told[1] != self._told[1]:
            self._on_trust()

    # --- the loops

    async def _follow_for_ever(self) -> None:
        while True:
            await self.follow()
            if not self.error:
                await self._attempt(self._wait(self._heartbeat_s))
                self.tell()
            if self.error:
                await asyncio.sleep(backoff_s(self._failures, BACKOFF_MIN_S, BACKOFF_MAX_S, self._uniform))

    async def _watch_lease(self) -> None:
        """Tell that the lease is lost when it is: a store that is frozen takes longer to fail."""
        while True:
            behind_s = self.behind_s
            rest_s = self._behind_s_max - behind_s if behind_s is not None and self.trusted else self._heartbeat_s
            await asyncio.sleep(max(WATCH_PAUSE_S, rest_s))
            self.tell()

    async def _purge_for_ever(self) -> None:
        while True:
            await asyncio.sleep(self._uniform(0.5, 1.5) * PURGE_PAUSE_S)
            await self.purge()

    async def _read_once(self) -> None:
        self._read_at_s = await self._read()
        self.whole = True

    async def _attempt(self, work: Awaitable[None]) -> bool:
        """Await `work` and say whether it succeeded; a fault is remembered and never ends the following."""
        try:
            await work
        except StoreUnavailable as error:
            self.error = str(error)
        except NoRoom as error:
            logger.error("the %s do not fit: %s", self._what, error)
            self.error, self.whole = str(error), False
        except Exception:  # our own mistake
            logger.exception("the %s could not be read", self._what)
            self.error = "internal fault"
        else:
            return True
        self._failures += 1
        return False
