"""Pools that keep the kinds of work apart: one that is flooded, or waits for a dead dependency, takes nothing of the
others.

A pool counts running and waiting work together. At `soft_limit` (90 %) of its size it refuses, at once; the last tenth
is for the `critical` class alone (refresh, introspection, break-glass). Who may wait does so for the least of the
source's 5 s, what the request's deadline leaves after the work itself, and 250 ms: with waits of 5 s, twice the load
leaves 112 useful answers a second of 500, with 250 ms it leaves 504 (measured).
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from contextvars import ContextVar, Token
from dataclasses import dataclass
from typing import Self, TypeVar

from gateway.errors import BulkheadFullError
from gateway.resilience.deadlines import check_deadline
from gateway.resilience.limiter import Limiter, LimiterRefused, WaitLimits
from gateway.resilience.permits import WAIT_S_MAX, ResourceGuard, ResourceName, ResourceSemaphores
from gateway.resilience.pools import PoolName, ShareName, current_pool, enter_pool, leave_pool
from gateway.resilience.shedding import LoadShedder, Urgency
from gateway.types import Clock

T = TypeVar("T")

# For which pool work was let in before it came there: chance decides once about each.
_admitted: ContextVar[PoolName | None] = ContextVar("portcullis_admitted", default=None)


@dataclass(frozen=True, slots=True)
class PoolLimits:
    """`size`: running and waiting work. `running_max`: of it, at once. `reserved`: places for the critical class."""

    size: int
    running_max: int
    reserved: int


@dataclass(frozen=True, slots=True)
class PoolState:
    """How a pool stands, for metrics and `/readyz`. Totals since the start."""

    name: PoolName
    size: int
    running: int
    waiting: int
    entered: int
    refused_full: int
    refused_waited: int
    shed: int
    share_shed: float  # of new normal work, now
    service_s: float  # running mean


class PoolPlace:
    """One piece of work's place in a pool: `async with`, once.

    Work that is in the pool already has its place, and takes no second one.
    """

    __slots__ = ("_critical", "_entered_s", "_is_used", "_manager", "_name", "_token")

    def __init__(self, manager: BulkheadManager, name: PoolName, critical: bool) -> None:
        self._manager = manager
        self._name = name
        self._critical = critical
        self._is_used = False
        self._entered_s: float | None = None  # None: the place is that of the work around it
        self._token: Token[ShareName] | None = None

    async def __aenter__(self) -> Self:
        if self._is_used:
            raise RuntimeError("a place in a pool is taken once")
        self._is_used = True
        if current_pool() == self._name:
            return self
        self._entered_s = await self._manager._enter(self._name, self._critical)
        self._token = enter_pool(self._name)
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._entered_s is not None:
            self._manager._limiters[self._name].leave(self._entered_s)
        if self._token is not None:
            leave_pool(self._token)


class BulkheadManager:
    """The pools of one worker, and the permits for what they share. Belongs to one event loop."""

    def __init__(
        self,
        pools: Mapping[PoolName, PoolLimits],
        *,
        permits: ResourceSemaphores,
        waits: WaitLimits,
        shedder: LoadShedder,
        retry_after_s: Callable[[], float],
        clock: Clock,
    ) -> None:
        self.permits = permits
        self._waits = waits
        self._shedder = shedder
        self._retry_after_s = retry_after_s
        self._limiters: dict[PoolName, Limiter] = {
            name: Limiter(
                running_max=limits.running_max,
                admitted_max=limits.size,
                reserved=limits.reserved,
                clock=clock,
                on_delay=shedder.watch(name).observe,
            )
            for name, limits in pools.items()
        }

    def pool(self, name: PoolName, *, critical: bool = False) -> PoolPlace:
        """Return a place in a pool, to be taken by `async with`; what runs inside belongs to the pool.

        Entering raises BulkheadFullError, OverloadedError or DeadlineExceededError; who is cancelled while waiting has
        taken nothing. `critical` is for the few kinds of work that hold others up. Raises ValueError for an unknown
        pool.
        """
        if name not in self._limiters:
            raise ValueError(f"unknown pool `{name}`")
        return PoolPlace(self, name, critical)

    def admit(self, name: PoolName) -> None:
        """Decide now whether normal work of this context may come to a pool; it is not asked again when it enters.

        Takes no place. Raises BulkheadFullError and OverloadedError.
        """
        self.check(name)
        self._shedder.admit(name)
        _admitted.set(name)

    def check(self, name: PoolName) -> None:
        """Raise BulkheadFullError where new normal work would find no place now. Takes none: it may be gone again."""
        limiter = self._limiters[name]
        if limiter.is_full():
            limiter.refused_full += 1
            raise self._full(name)

    async def execute(self, pool_name: PoolName, operation: Callable[[], Awaitable[T]], *, critical: bool = False) -> T:
        """Await `operation()` in a pool; see `pool`."""
        async with self.pool(pool_name, critical=critical):
            return await operation()

    def acquire_resource(self, resource: ResourceName, timeout_s: float = WAIT_S_MAX) -> ResourceGuard:
        """Return a permit for a shared resource, to be taken by `async with`; see `ResourceSemaphores.guard`."""
        return self.permits.guard(resource, timeout_s)

    def resize(self, pools: Mapping[PoolName, PoolLimits], waits: WaitLimits | None = None) -> None:
        """Have other limits from now on; work that is in stays in, and what waits does so as it began."""
        self._waits = waits or self._waits
        for name, limits in pools.items():
            self._limiters[name].resize(
                running_max=limits.running_max, admitted_max=limits.size, reserved=limits.reserved
            )

    def state(self) -> tuple[PoolState, ...]:
        """Say how each pool stands."""
        return tuple(
            PoolState(
                name=name,
                size=limiter.admitted_max,
                running=limiter.running,
                waiting=limiter.waiting,
                entered=limiter.entered,
                refused_full=limiter.refused_full,
                refused_waited=limiter.refused_waited,
                shed=self._shedder.shed.get(name, 0),
                share_shed=self._shedder.share(name),
                service_s=limiter.service_s,
            )
            for name, limiter in self._limiters.items()
        )

    async def _enter(self, name: PoolName, critical: bool) -> float:
        check_deadline()
        if _admitted.get() != name:
            self._shedder.admit(name, _urgency(name, critical))
        limiter = self._limiters[name]
        try:
            return await limiter.enter(self._waits.allowed_s(limiter.service_s), critical=critical)
        except LimiterRefused as refusal:
            check_deadline()
            if refusal.why == "full":
                raise self._full(name) from None
            problem = f"no place in pool `{name}` came free"
            raise BulkheadFullError(problem, retry_after_s=self._retry_after_s()) from None

    def _full(self, name: PoolName) -> BulkheadFullError:
        return BulkheadFullError(f"pool `{name}` is full", retry_after_s=self._retry_after_s())


def _urgency(name: PoolName, critical: bool) -> Urgency:
    if name == "admin_auth":
        return "exempt"  # who is to end the overload must get in
    return "critical" if critical else "normal"
