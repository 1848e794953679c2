"""One thread that does what it is given, in order; work in bulk waits until nobody else does.

A file has one thread, and a queue before it is shared by all pools: without an order of its own, a flood of
provisioning would stand before every log-in, whatever its pool says.
"""

from __future__ import annotations

import asyncio
import heapq
import itertools
import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, TypeVar

from gateway.resilience.pools import BULK, current_pool

T = TypeVar("T")


class WorkThread:
    """The thread begins with the first work. `run` belongs to event loops, what it is given to the thread."""

    def __init__(self, name: str) -> None:
        self._executor = ThreadPoolExecutor(1, thread_name_prefix=name)
        self._lock = threading.Lock()
        self._numbers = itertools.count()
        self._waiting: list[tuple[bool, int, Future[Any], Callable[[], Any]]] = []  # a heap: the next one first

    async def run(self, work: Callable[[], T]) -> T:
        """Return what `work()` gives; who is cancelled while it waits has it not done.

        Raises RuntimeError after `close`, and what `work` raises.
        """
        future: Future[T] = Future()
        place = (current_pool() in BULK, next(self._numbers), future, work)
        with self._lock:
            heapq.heappush(self._waiting, place)
        try:
            self._executor.submit(self._next)
        except RuntimeError:  # closed
            future.cancel()
            raise
        return await asyncio.wrap_future(future)

    def close(self) -> None:
        """Take no more work; what was taken is done."""
        self._executor.shutdown(wait=False)

    def _next(self) -> None:
        """Do the most urgent piece of work: there is one for each call."""
        with self._lock:
            _, _, future, work = heapq.heappop(self._waiting)
        if not future.set_running_or_notify_cancel():
            return
        try:
            result = work()
        except BaseException as error:
            future.set_exception(error)
        else:
            future.set_result(result)


__all__ = ["WorkThread"]
