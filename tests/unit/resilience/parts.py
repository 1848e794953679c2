"""Pools, permits and a shedder with the numbers that a test wants, on the virtual loop's clock."""

from __future__ import annotations

from collections.abc import Mapping

from gateway.resilience.bulkhead import BulkheadManager, PoolLimits
from gateway.resilience.limiter import WaitLimits
from gateway.resilience.permits import ResourceName, ResourceSemaphores
from gateway.resilience.pools import PoolName, ShareName
from gateway.resilience.shedding import LoadShedder, SheddingLimits
from tests.virtual_time import LoopClock

CLOCK = LoopClock()
NEVER = SheddingLimits(target_s=1e9)
RETRY_AFTER_S = 5.0


def retry_after_s() -> float:
    return RETRY_AFTER_S


def new_shedder(limits: SheddingLimits = NEVER, random_share: float = 0.5) -> LoadShedder:
    return LoadShedder(limits, clock=CLOCK, retry_after_s=retry_after_s, random_share=lambda: random_share)


def new_permits(
    shares: Mapping[ResourceName, Mapping[ShareName, int]] | None = None,
    *,
    waits: WaitLimits | None = None,
    shedder: LoadShedder | None = None,
) -> ResourceSemaphores:
    return ResourceSemaphores(
        shares or {},
        waits=waits or WaitLimits(),
        shedder=shedder or new_shedder(),
        retry_after_s=retry_after_s,
        clock=CLOCK,
    )


def new_bulkheads(
    pools: Mapping[PoolName, PoolLimits],
    *,
    permits: ResourceSemaphores | None = None,
    waits: WaitLimits | None = None,
    shedder: LoadShedder | None = None,
) -> BulkheadManager:
    shedder = shedder or new_shedder()
    return BulkheadManager(
        pools,
        permits=permits or new_permits(shedder=shedder),
        waits=waits or WaitLimits(),
        shedder=shedder,
        retry_after_s=retry_after_s,
        clock=CLOCK,
    )
