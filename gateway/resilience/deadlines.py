"""How much time a request has, and deadlines that hold whatever the awaited call does with them.

A deadline is a point in time that everything inside inherits through a context variable; a nested one can only bring it
nearer. `deadline` is the polite form: it cancels the block and waits until the block has ended. `within` is the hard
form, for calls to peers: some drivers swallow a cancellation, or answer it by asking the very peer that hangs
(psycopg: 12 s, measured), so the call runs in a task of its own, which is left behind when its time is over.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Awaitable, Callable
from contextvars import ContextVar
from dataclasses import dataclass
from types import TracebackType
from typing import Any, TypeVar

from gateway.errors import DeadlineExceededError, ResourceExhaustedError
from gateway.types import Clock, SystemClock

T = TypeVar("T")

GRACE_S = 0.05  # a cancelled call may clean up for this long before it is left behind
ABANDONED_MAX = 1000  # calls left behind that still run; each holds a socket, so there must be an end to it

_SYSTEM = SystemClock()
_current: ContextVar[Deadline | None] = ContextVar("portcullis_deadline", default=None)
# The loop holds tasks weakly, and these have nobody else. Each goes when it ends.
_abandoned: set[asyncio.Task[Any]] = set()


@dataclass(frozen=True, slots=True)
class Deadline:
    """A point in monotonic time, and the clock that tells how far away it is."""

    at_s: float
    clock: Clock

    def remaining_s(self) -> float:
        """Give the seconds that are left; below 0 when it has passed."""
        return self.at_s - self.clock.monotonic_s()


def current_deadline() -> Deadline | None:
    """Return the deadline that holds here, or None where there is none."""
    return _current.get()


def remaining_s() -> float:
    """Give the seconds that this request has left, 0 at least; infinity where there is no deadline."""
    found = _current.get()
    return math.inf if found is None else max(0.0, found.remaining_s())


def check_deadline() -> None:
    """Raise DeadlineExceededError where no time is left: to be asked before work that nobody would wait for."""
    if remaining_s() <= 0:
        raise _exceeded()


def forget_deadline() -> None:
    """Have no deadline in this context any more: for work that outlives the request that began it."""
    _current.set(None)


def abandoned_calls() -> int:
    """Tell how many calls were left behind and have not ended yet."""
    return len(_abandoned)


class deadline:
    """Give the block `limit_s` seconds, or what the deadline around it leaves, whichever is less: `async with`, once.

    Raises DeadlineExceededError at once where nothing is left, and when the time is over, after the block has ended. A
    class rather than a generator: it is entered for every request, and this takes half the time.
    """

    __slots__ = ("_clock", "_limit_s", "_timer", "_token")

    def __init__(self, limit_s: float, *, clock: Clock = _SYSTEM) -> None:
        self._limit_s = limit_s
        self._clock = clock

    async def __aenter__(self) -> Deadline:
        inner = _nested(self._limit_s, self._clock)
        self._timer = asyncio.timeout(_timer_s(_require_time(inner)))
        await self._timer.__aenter__()
        self._token = _current.set(inner)
        return inner

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            await self._timer.__aexit__(kind, error, trace)
        except TimeoutError as over:  # the timer's own; a timeout of somebody inside goes its way without this
            raise _exceeded() from over
        finally:
            _current.reset(self._token)


async def within(limit_s: float, operation: Callable[[], Awaitable[T]], *, clock: Clock = _SYSTEM) -> T:
    """Await `operation()`, and be back within `limit_s` seconds (or what is left) + GRACE_S, whatever it does.

    The operation runs in a task of its own, with the nearer deadline as its own. When the time is over, or the caller
    is cancelled, it is cancelled too; if it does not end within GRACE_S it is left behind, and its result is dropped.
    What it did by then is unknown. Raises DeadlineExceededError, ResourceExhaustedError where too many calls were left
    behind, and whatever the operation raises.
    """
    inner = _nested(limit_s, clock)
    left_s = _require_time(inner)
    if len(_abandoned) >= ABANDONED_MAX:
        raise ResourceExhaustedError("too many calls that were given up have not ended")
    token = _current.set(inner)
    try:
        task = asyncio.ensure_future(_started(operation))
    finally:
        _current.reset(token)
    try:
        await asyncio.wait((task,), timeout=_timer_s(left_s))
        if task.done():
            return task.result()
    finally:
        if not task.done():
            await _end(task)
    raise _exceeded()


async def _started(operation: Callable[[], Awaitable[T]]) -> T:
    return await operation()


async def _end(task: asyncio.Task[Any]) -> None:
    task.cancel()
    # From here on somebody holds the task, also when this waiting is itself cancelled.
    _abandoned.add(task)
    task.add_done_callback(_forget)
    await asyncio.wait((task,), timeout=GRACE_S)


def _forget(task: asyncio.Task[Any]) -> None:
    _abandoned.discard(task)
    if not task.cancelled():
        task.exception()  # whoever waited has been told; nobody is left to tell


def _nested(limit_s: float, clock: Clock) -> Deadline:
    outer = _current.get()
    own = Deadline(clock.monotonic_s() + limit_s, clock)
    if outer is None or own.remaining_s() <= outer.remaining_s():
        return own
    return outer


def _require_time(inner: Deadline) -> float:
    left_s = inner.remaining_s()
    if left_s <= 0:
        raise _exceeded()
    return left_s


def _timer_s(left_s: float) -> float | None:
    return None if left_s == math.inf else left_s


def _exceeded() -> DeadlineExceededError:
    return DeadlineExceededError("the time for this request is over")
