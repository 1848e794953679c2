"""Work that outlives its request has nothing of the request: no deadline, no permit, no pool."""

from __future__ import annotations

import asyncio
import math

import pytest

from gateway.config import Config
from gateway.resilience.assembly import Resilience
from gateway.resilience.deadlines import remaining_s
from gateway.resilience.detached import detached
from gateway.resilience.pools import current_pool
from tests.unit.resilience.parts import CLOCK
from tests.virtual_time import run_virtual


@pytest.mark.parametrize(("keep_pool", "pool"), [(False, "background"), (True, "user_auth")])
def test_it_goes_on_when_the_request_is_over(keep_pool: bool, pool: str) -> None:
    async def main() -> None:
        resilience = Resilience(Config().resilience, clock=CLOCK)

        async def shared() -> tuple[float, str]:
            await asyncio.sleep(60.0)
            async with resilience.permits.guard("db_connections"):  # that of the request is not held here
                return remaining_s(), current_pool()

        async with resilience.serving("user_auth", limit_s=1.0), resilience.permits.guard("redis_connections"):
            task = detached(shared(), name="shared", keep_pool=keep_pool)
            assert remaining_s() == 1.0
        assert task.get_name() == "shared"
        assert await task == (math.inf, pool)

    run_virtual(main())
