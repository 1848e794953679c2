"""A part of a worker that a config describes: made for it, kept over reloads that ask for the same, else replaced."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any, Final, Generic, Protocol, TypeVar

FIRST_LOOK_S: Final = 5.0  # a start waits this long for the first look; then it goes on, and what is unknown refuses


class Running(Protocol):
    """Something with a life of its own in the event loop."""

    async def start(self) -> None:
        """Begin; may wait for a first look at what it depends on, but never for ever."""

    async def stop(self) -> None:
        """End everything that was begun."""


Wish = TypeVar("Wish")
Part = TypeVar("Part", bound=Running)


async def first_look(start: Coroutine[Any, Any, None]) -> None:
    """Run what begins a following and waits for its first look; end the waiting, not the following, at FIRST_LOOK_S."""
    _, pending = await asyncio.wait((asyncio.ensure_future(start),), timeout=FIRST_LOOK_S)
    for waiting in pending:
        waiting.cancel()


class InForce(Generic[Wish, Part]):
    """Which part is in force, by the wish that it was made for. Belongs to one event loop; made before it runs."""

    def __init__(self, make: Callable[[Wish], Part]) -> None:
        """`make` raises ValueError for a wish that cannot be fulfilled; it connects to nothing."""
        self._make = make
        self._now: tuple[Wish, Part] | None = None
        self._planned: tuple[Wish, Part] | None = None
        self._is_running = False
        self._tasks: set[asyncio.Task[None]] = set()

    @property
    def now(self) -> Part | None:
        """The part in force; None: there is none."""
        return None if self._now is None else self._now[1]

    def of(self, wish: Wish) -> Part:
        """Give the part for a wish: the one in force or planned last where that is equal, else a new one."""
        for known in (self._now, self._planned):
            if known is not None and known[0] == wish:
                return known[1]
        self._planned = wish, self._make(wish)
        return self._planned[1]

    def take(self, part: Part | None) -> None:
        """Put a part that `of` gave in force, or none; the former one is let go."""
        former = self.now
        if part is None:
            self._now = None
        elif part is not former:
            assert self._planned is not None and self._planned[1] is part
            self._now, self._planned = self._planned, None
        if not self._is_running or former is part:
            return
        if part is not None:
            self._spawn(part.start())
        if former is not None:
            self._spawn(former.stop())

    async def start(self) -> None:
        """Start what is in force, once."""
        if not self._is_running:
            self._is_running = True
            if self._now is not None:
                await self._now[1].start()

    async def stop(self) -> None:
        """End everything."""
        self._is_running = False
        now, self._now = self._now, None
        if now is not None:
            await now[1].stop()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
