"""Permits for what all pools share: connections to the database and to Redis, and calls to others.

Each pool has a share of its own. Were there one heap for all, a pool that waits for a dead dependency would hold all of
it, and the pools would keep nothing apart. The shares of a resource add up to its number at most (a check of the
config), and that number is at most what its connections allow.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextvars import ContextVar, Token
from dataclasses import dataclass
from typing import Literal, Self, get_args

from gateway.config import WAITING_PER_PERMIT_MAX
from gateway.errors import ResourceExhaustedError
from gateway.resilience.deadlines import check_deadline
from gateway.resilience.limiter import Limiter, LimiterRefused, WaitLimits
from gateway.resilience.pools import ShareName, current_pool
from gateway.resilience.shedding import LoadShedder
from gateway.types import Clock

# ORDER RESOURCE: who holds a permit may ask only for one that comes later here. Two that ask in different orders would
# hold what the other waits for.
ResourceName = Literal["external_calls", "db_connections", "redis_connections"]
RESOURCES: tuple[ResourceName, ...] = get_args(ResourceName)
_RANK: Mapping[str, int] = {name: rank for rank, name in enumerate(RESOURCES)}

WAIT_S_MAX = 5.0  # the source's number

_held: ContextVar[int] = ContextVar("portcullis_permit_held", default=-1)  # rank of the last permit that was taken


def forget_permits() -> None:
    """Hold no permit in this context any more: for work that outlives the request that began it."""
    _held.set(-1)


Shares = Mapping[ResourceName, Mapping[ShareName, int]]


@dataclass(frozen=True, slots=True)
class PermitState:
    """How one pool's share of one resource stands. Totals since the start."""

    resource: ResourceName
    pool: ShareName
    permits: int
    in_use: int
    waiting: int
    refused: int


class ResourceGuard:
    """One permit: taken by `async with`, once, and given back at the block's end, or earlier by `release`."""

    __slots__ = ("_entered_s", "_is_kept", "_limiter", "_resource", "_semaphores", "_timeout_s", "_token")

    def __init__(self, semaphores: ResourceSemaphores, resource: ResourceName, timeout_s: float) -> None:
        self._semaphores = semaphores
        self._resource = resource
        self._timeout_s = timeout_s
        self._limiter: Limiter | None = None
        self._entered_s = 0.0
        self._is_kept = False
        self._token: Token[int] | None = None

    async def __aenter__(self) -> Self:
        if self._token is not None:
            raise RuntimeError("a guard is used once")
        rank = _RANK[self._resource]
        if _held.get() >= rank:
            raise RuntimeError(f"a permit for `{self._resource}` was asked for while holding one that comes after it")
        limiter = self._semaphores._limiter_of(self._resource)
        self._entered_s = await self._semaphores._enter(self._resource, limiter, self._timeout_s)
        self._limiter = limiter
        self._token = _held.set(rank)
        return self

    async def __aexit__(self, *_: object) -> None:
        if not self._is_kept:
            self.release()
        assert self._token is not None
        _held.reset(self._token)

    def keep(self) -> None:
        """Have the permit outlive the block, until `release`: for who goes on using the resource after it was left."""
        self._is_kept = True

    def release(self) -> None:
        """Give the permit back now. What follows in the block must not use the resource; again does nothing."""
        limiter, self._limiter = self._limiter, None
        if limiter is not None:
            limiter.leave(self._entered_s)


class ResourceSemaphores:
    """The permits of one worker, by resource and pool. Belongs to one event loop."""

    def __init__(
        self,
        shares: Shares,
        *,
        waits: WaitLimits,
        shedder: LoadShedder,
        retry_after_s: Callable[[], float],
        clock: Clock,
    ) -> None:
        self._waits = waits
        self._retry_after_s = retry_after_s
        self._limiters: dict[tuple[ResourceName, ShareName], Limiter] = {
            (resource, pool): Limiter(
                running_max=permits,
                admitted_max=_admitted_max(permits),
                clock=clock,
                on_delay=shedder.watch(pool).observe,
            )
            for resource, by_pool in shares.items()
            for pool, permits in by_pool.items()
        }

    def guard(self, resource: ResourceName, timeout_s: float = WAIT_S_MAX) -> ResourceGuard:
        """Return a permit of the share of the pool that the caller runs in, to be taken by `async with`.

        Entering waits for the least of `timeout_s`, the configured wait and what the deadline leaves, and raises
        ResourceExhaustedError or DeadlineExceededError; who is cancelled while waiting has taken nothing. Raises
        ValueError for an unknown resource, and RuntimeError where a permit that comes later is held already.
        """
        if resource not in _RANK:
            raise ValueError(f"unknown resource `{resource}`")
        return ResourceGuard(self, resource, timeout_s)

    def resize(self, shares: Shares, waits: WaitLimits | None = None) -> None:
        """Have other shares from now on; permits that are out stay out, and what waits does so as it began."""
        self._waits = waits or self._waits
        for resource, by_pool in shares.items():
            for pool, permits in by_pool.items():
                self._limiters[resource, pool].resize(running_max=permits, admitted_max=_admitted_max(permits))

    def state(self) -> tuple[PermitState, ...]:
        """Say how each share stands."""
        return tuple(
            PermitState(
                resource=resource,
                pool=pool,
                permits=limiter.running_max,
                in_use=limiter.running,
                waiting=limiter.waiting,
                refused=limiter.refused_full + limiter.refused_waited,
            )
            for (resource, pool), limiter in self._limiters.items()
        )

    def _limiter_of(self, resource: ResourceName) -> Limiter:
        return self._limiters[resource, current_pool()]

    async def _enter(self, resource: ResourceName, limiter: Limiter, timeout_s: float) -> float:
        check_deadline()
        try:
            return await limiter.enter(self._waits.allowed_s(limiter.service_s, timeout_s))
        except LimiterRefused:
            check_deadline()
            raise ResourceExhaustedError(
                f"pool `{current_pool()}` has no permit left for `{resource}`", retry_after_s=self._retry_after_s()
            ) from None


def _admitted_max(permits: int) -> int:
    return permits * (1 + WAITING_PER_PERMIT_MAX)
