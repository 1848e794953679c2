"""The life of the token service: what is under way when it ends comes to its end."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from tests.unit.flows.oauth.world import World


async def test_a_request_that_is_under_way_is_not_cut_off(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    world = World(tmp_path)
    code = await world.code()
    take, begun, goes_on = world.store.take, asyncio.Event(), asyncio.Event()

    async def slow(*words: object) -> object:
        begun.set()
        await goes_on.wait()
        return await take(*words)  # type: ignore[arg-type]

    monkeypatch.setattr(world.store, "take", slow)
    redeeming = asyncio.create_task(world.redeem(code))
    await begun.wait()
    stopping = asyncio.create_task(world.service.stop())
    await asyncio.sleep(0)
    assert not stopping.done()
    goes_on.set()
    assert (await redeeming).status_code == 200
    await stopping


async def test_one_that_never_ends_holds_nothing_up_for_ever(tmp_path: Path) -> None:
    world = World(tmp_path)
    world.resilience.config = type(world.resilience.config)(request_timeout_s=0.01, wait_s=0.005)

    async def hangs() -> None:
        async with world.service._serving("user_auth"):
            await asyncio.Event().wait()

    hanging = asyncio.create_task(hangs())
    await asyncio.sleep(0)
    await world.service.stop()
    assert not hanging.done() or hanging.exception() is not None
    hanging.cancel()
    await asyncio.gather(hanging, return_exceptions=True)


async def test_a_service_that_does_nothing_stops_at_once(tmp_path: Path) -> None:
    world = World(tmp_path)
    world.service.start()
    await world.service.stop()
    await world.service.stop()
