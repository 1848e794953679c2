"""Every order in which calls to a store can take place: requests are held before each call, and let go one by one."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Awaitable, Callable, Iterator, Sequence
from typing import Any, TypeVar, cast

from gateway.stores.records import RecordStore

T = TypeVar("T")

SETTLE_TURNS = 60  # of the loop, after which whoever can go on without the store has


class Stepwise:
    """Looks like the store that it holds, but each call waits for its turn while `is_held`."""

    def __init__(self, store: object) -> None:
        self._store = store
        self.is_held = False
        self.waiting: list[asyncio.Future[None]] = []

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._store, name)
        if not inspect.iscoroutinefunction(found):
            return found

        async def call(*args: Any, **kwargs: Any) -> Any:
            if self.is_held:
                turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
                self.waiting.append(turn)
                await turn
            return await found(*args, **kwargs)

        return call

    @property
    def as_records(self) -> RecordStore:
        return cast(RecordStore, self)


async def run(stepwise: Stepwise, works: Sequence[Callable[[], Awaitable[T]]], order: Callable[[int], int]) -> list[T]:
    """Run `works` beside one another; `order(n)` chooses which of the `n` calls that wait goes next."""
    stepwise.is_held = True
    tasks = [asyncio.ensure_future(work()) for work in works]
    try:
        while True:
            for _ in range(SETTLE_TURNS):
                await asyncio.sleep(0)
            if not stepwise.waiting:
                break
            stepwise.waiting.pop(order(len(stepwise.waiting))).set_result(None)
    finally:
        stepwise.is_held = False
    return await asyncio.gather(*tasks)


def every_order() -> Iterator[Callable[[int], int]]:
    """Give one `order` after another, until each sequence of choices was made once. Depth first."""
    path: list[tuple[int, int]] = []  # what was chosen, of how many
    while True:
        at = 0

        def order(count: int) -> int:
            nonlocal at
            if at == len(path):
                path.append((0, count))
            chosen, known = path[at]
            assert known == count, "the same choices must lead to the same place"
            at += 1
            return chosen

        yield order
        while path and path[-1][0] + 1 == path[-1][1]:
            path.pop()
        if not path:
            return
        path[-1] = path[-1][0] + 1, path[-1][1]
