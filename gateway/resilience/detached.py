"""Work that outlives the request that began it.

A task inherits the context of whoever makes it: the deadline, the pool and the permits of a request. For a part of the
request that is right. A fetch that others wait for as well, or a loop that is started at first use, would end with the
deadline of one of them, and count against its pool for ever.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from contextvars import Context, copy_context
from typing import Any, TypeVar

from gateway.resilience.deadlines import forget_deadline
from gateway.resilience.permits import forget_permits
from gateway.resilience.pools import BACKGROUND, enter_pool

T = TypeVar("T")


def detached(work: Coroutine[Any, Any, T], *, name: str | None = None, keep_pool: bool = False) -> asyncio.Task[T]:
    """Run `work` as a task without the deadline and the permits of who makes it, and in no pool; return the task.

    `keep_pool`: it belongs to the pool that it was begun in, whose share of the permits it uses. The caller holds the
    task, as with `asyncio.create_task`.
    """
    return asyncio.get_running_loop().create_task(work, name=name, context=_context(keep_pool))


def _context(keep_pool: bool) -> Context:
    context = copy_context()
    context.run(forget_deadline)
    context.run(forget_permits)
    if not keep_pool:
        context.run(enter_pool, BACKGROUND)
    return context
