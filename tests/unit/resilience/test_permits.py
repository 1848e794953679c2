"""Permits of what all pools share: each pool has its share, and none is lost or held in the wrong order."""

from __future__ import annotations

import asyncio

import pytest

from gateway.config import WAITING_PER_PERMIT_MAX
from gateway.errors import DeadlineExceededError, ResourceExhaustedError
from gateway.resilience.bulkhead import BulkheadManager, PoolLimits
from gateway.resilience.deadlines import deadline
from gateway.resilience.permits import ResourceName, ResourceSemaphores
from gateway.resilience.pools import PoolName, ShareName
from tests.unit.resilience.parts import CLOCK, RETRY_AFTER_S, new_bulkheads, new_permits
from tests.virtual_time import run_virtual

LIMITS = PoolLimits(size=100, running_max=100, reserved=10)


def new_world(db: dict[ShareName, int]) -> BulkheadManager:
    shares: dict[ShareName, int] = {"background": 1, **db}
    permits = new_permits(
        {
            "external_calls": dict.fromkeys(shares, 2),
            "db_connections": shares,
            "redis_connections": dict.fromkeys(shares, 2),
        }
    )
    pools: dict[PoolName, PoolLimits] = {"user_auth": LIMITS, "scim_provisioning": LIMITS}
    return new_bulkheads(pools, permits=permits)


def in_use(permits: ResourceSemaphores, resource: ResourceName = "db_connections") -> dict[str, int]:
    return {share.pool: share.in_use for share in permits.state() if share.resource == resource and share.in_use}


async def hold(bulkheads: BulkheadManager, pool: PoolName, seconds: float = 10.0) -> str:
    try:
        async with bulkheads.pool(pool), bulkheads.acquire_resource("db_connections"):
            await asyncio.sleep(seconds)
    except ResourceExhaustedError as error:
        assert error.retry_after_s == RETRY_AFTER_S
        return "refused"
    return "done"


async def settle() -> None:
    for _ in range(6):
        await asyncio.sleep(0)


def test_a_pool_that_uses_up_its_share_leaves_those_of_others() -> None:
    async def main() -> None:
        bulkheads = new_world({"user_auth": 3, "scim_provisioning": 2})
        flood = [asyncio.create_task(hold(bulkheads, "scim_provisioning")) for _ in range(20)]
        await settle()
        assert in_use(bulkheads.permits) == {"scim_provisioning": 2}
        began_s = CLOCK.monotonic_s()
        assert await hold(bulkheads, "user_auth", 0.0) == "done"
        assert CLOCK.monotonic_s() == began_s
        outcomes = await asyncio.gather(*flood)
        assert (outcomes.count("done"), outcomes.count("refused")) == (2, 18)

    run_virtual(main())


def test_as_many_wait_for_a_permit_as_can_hope_for_it() -> None:
    async def main() -> None:
        bulkheads = new_world({"user_auth": 2, "scim_provisioning": 1})
        works = [asyncio.create_task(hold(bulkheads, "user_auth", 0.04)) for _ in range(20)]
        await settle()
        share = next(s for s in bulkheads.permits.state() if s.pool == "user_auth" and s.resource == "db_connections")
        assert (share.permits, share.in_use, share.waiting) == (2, 2, 2 * WAITING_PER_PERMIT_MAX)
        outcomes = await asyncio.gather(*works)
        assert (outcomes.count("done"), outcomes.count("refused")) == (10, 10)

    run_virtual(main())


def test_work_outside_of_the_pools_has_a_share_of_its_own() -> None:
    async def take(bulkheads: BulkheadManager) -> None:
        async with bulkheads.acquire_resource("db_connections"):
            await asyncio.sleep(10)

    async def main() -> None:
        bulkheads = new_world({"user_auth": 1, "scim_provisioning": 1})
        holder = asyncio.create_task(take(bulkheads))
        await settle()
        assert in_use(bulkheads.permits) == {"background": 1}
        with pytest.raises(ResourceExhaustedError, match="pool `background` has no permit left"):
            await take(bulkheads)
        assert await hold(bulkheads, "user_auth", 0.0) == "done"
        await holder

    run_virtual(main())


def test_a_pool_without_a_share_gets_nothing() -> None:
    async def main() -> None:
        bulkheads = new_world({"user_auth": 0, "scim_provisioning": 1})
        began_s = CLOCK.monotonic_s()
        assert await hold(bulkheads, "user_auth") == "refused"
        assert CLOCK.monotonic_s() == began_s

    run_virtual(main())


def test_the_caller_may_wait_less_but_not_more_than_is_configured() -> None:
    async def main() -> None:
        bulkheads = new_world({"user_auth": 1, "scim_provisioning": 1})
        holder = asyncio.create_task(hold(bulkheads, "user_auth"))
        await settle()
        for asked_s, waited_s in ((0.1, 0.1), (5.0, 0.25)):
            began_s = CLOCK.monotonic_s()
            with pytest.raises(ResourceExhaustedError):
                async with bulkheads.pool("user_auth"), bulkheads.acquire_resource("db_connections", asked_s):
                    pass
            assert CLOCK.monotonic_s() - began_s == pytest.approx(waited_s)
        holder.cancel()
        await asyncio.gather(holder, return_exceptions=True)

    run_virtual(main())


def test_the_deadline_ends_the_wait_as_what_it_is() -> None:
    async def main() -> None:
        bulkheads = new_world({"user_auth": 1, "scim_provisioning": 1})
        holder = asyncio.create_task(hold(bulkheads, "user_auth"))
        await settle()
        with pytest.raises(DeadlineExceededError):
            async with (
                deadline(0.1, clock=CLOCK),
                bulkheads.pool("user_auth"),
                bulkheads.acquire_resource("db_connections"),
            ):
                pass
        holder.cancel()
        await asyncio.gather(holder, return_exceptions=True)
        assert in_use(bulkheads.permits) == {}

    run_virtual(main())


@pytest.mark.parametrize("steps", range(14))
def test_cancellation_at_any_step_gives_the_permit_back(steps: int) -> None:
    async def main() -> None:
        bulkheads = new_world({"user_auth": 1, "scim_provisioning": 1})
        holder = asyncio.create_task(hold(bulkheads, "user_auth"))
        await settle()

        async def work() -> None:
            async with bulkheads.pool("user_auth"), bulkheads.acquire_resource("db_connections"):
                for _ in range(4):
                    await asyncio.sleep(0)

        task = asyncio.create_task(work())
        for step in range(steps):
            if step == 4:
                holder.cancel()
            await asyncio.sleep(0)
        task.cancel()
        holder.cancel()
        await asyncio.gather(task, holder, return_exceptions=True)
        assert in_use(bulkheads.permits) == {}
        assert all(share.waiting == 0 for share in bulkheads.permits.state())
        assert all(pool.running == 0 for pool in bulkheads.state())
        assert await hold(bulkheads, "user_auth", 0.0) == "done"

    run_virtual(main())


def test_a_permit_that_is_given_back_early_is_given_back_once() -> None:
    async def main() -> None:
        bulkheads = new_world({"user_auth": 1, "scim_provisioning": 1})
        async with bulkheads.acquire_resource("db_connections") as guard:
            guard.release()
            guard.release()
            assert in_use(bulkheads.permits) == {}
        assert in_use(bulkheads.permits) == {}
        with pytest.raises(RuntimeError, match="once"):
            await guard.__aenter__()

    run_virtual(main())


@pytest.mark.parametrize(
    ("held", "asked", "is_allowed"),
    [
        ("external_calls", "db_connections", True),
        ("external_calls", "redis_connections", True),
        ("db_connections", "redis_connections", True),
        ("db_connections", "db_connections", False),
        ("redis_connections", "db_connections", False),
        ("db_connections", "external_calls", False),
    ],
)
def test_permits_are_taken_in_one_order_so_that_nobody_waits_in_a_circle(
    held: ResourceName, asked: ResourceName, is_allowed: bool
) -> None:
    async def main() -> None:
        bulkheads = new_world({"user_auth": 2, "scim_provisioning": 2})
        async with bulkheads.pool("user_auth"), bulkheads.acquire_resource(held):
            if is_allowed:
                async with bulkheads.acquire_resource(asked):
                    pass
            else:
                with pytest.raises(RuntimeError, match="comes after"):
                    async with bulkheads.acquire_resource(asked):
                        pass
        async with bulkheads.acquire_resource(asked):
            pass  # nothing is held any more

    run_virtual(main())


def test_a_resource_that_nobody_made_is_a_mistake() -> None:
    async def main() -> None:
        with pytest.raises(ValueError, match="unknown resource `ink`"):
            new_permits().guard("ink")  # type: ignore[arg-type]

    run_virtual(main())


def test_shares_can_change_while_permits_are_out() -> None:
    async def main() -> None:
        bulkheads = new_world({"user_auth": 1, "scim_provisioning": 1})
        works = [asyncio.create_task(hold(bulkheads, "user_auth", 0.1)) for _ in range(3)]
        await settle()
        bulkheads.permits.resize({"db_connections": {"user_auth": 3}})
        await settle()
        assert in_use(bulkheads.permits) == {"user_auth": 3}
        assert await asyncio.gather(*works) == ["done"] * 3
        assert in_use(bulkheads.permits) == {}

    run_virtual(main())
