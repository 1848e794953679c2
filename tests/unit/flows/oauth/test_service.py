"""The life of the token service: what is under way when it ends comes to its end."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from gateway.errors import StoreUnavailable
from tests.unit.flows.oauth.world import SECRET, World


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


async def test_what_came_of_each_request_for_tokens_is_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    world = World(tmp_path)
    code = await world.code()
    assert (await world.redeem(code)).status_code == 200
    assert (await world.redeem(code)).status_code == 400
    job = {"grant_type": "client_credentials"}
    assert (await world.token(job, auth=("job", SECRET))).status_code == 200
    assert (await world.token(job, auth=("job", "wrong"))).status_code == 401
    assert (await world.token({"grant_type": "password", "client_id": "app"})).status_code == 400
    assert (await world.token({"client_id": "app"})).status_code == 400

    async def down(*_: object) -> object:
        raise StoreUnavailable("down")

    monkeypatch.setattr(world.store, "take", down)
    assert (await world.redeem(code)).status_code == 503
    assert world.counted == {
        ("authorization_code", "success"): 1,
        ("authorization_code", "refused"): 1,
        ("authorization_code", "error"): 1,
        ("client_credentials", "success"): 1,
        ("client_credentials", "refused"): 1,
        ("other", "refused"): 2,
    }
