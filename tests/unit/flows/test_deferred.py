"""What was put off is done, again when it fails, and by another worker when this one dies."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from gateway.errors import StoreUnavailable
from gateway.flows.deferred import HOLD_S, RETRY_S, DeferredRunner, GaveUp
from gateway.stores import open_deferred_work
from gateway.stores.deferred import ATTEMPTS_MAX, DeferredWork, Job
from tests.unit.tokens.fakes import MovedClock


class World:
    """A queue, a clock, and jobs that do as they are told."""

    def __init__(self, folder: Path) -> None:
        self.clock = MovedClock()
        self.work: DeferredWork = open_deferred_work("", folder, self.clock)
        self.faults: list[BaseException] = []
        self.done: list[str] = []
        self.runner = self.new_runner()

    def new_runner(self) -> DeferredRunner:
        return DeferredRunner(self.work, {"tell": self.tell}, self.clock)

    async def tell(self, job: Job) -> None:
        if self.faults:
            raise self.faults.pop(0)
        self.done.append(str(job.body["who"]))


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    made = World(tmp_path)
    yield made
    await made.work.close()


async def test_a_job_is_done_once_however_often_it_is_put(world: World) -> None:
    assert await world.runner.put("tell", "one", {"who": "shop"})
    assert not await world.runner.put("tell", "one", {"who": "shop"})
    assert await world.runner.run_once() == 1
    assert not await world.runner.put("tell", "one", {"who": "shop"})
    assert await world.runner.run_once() == 0
    assert world.done == ["shop"]


@pytest.mark.parametrize("fault", [StoreUnavailable("away"), OSError("refused"), TimeoutError(), ValueError("bad")])
async def test_what_fails_is_tried_again_later_and_later(world: World, fault: BaseException) -> None:
    world.faults = [fault, fault]
    await world.runner.put("tell", "one", {"who": "shop"})
    await world.runner.run_once()
    assert await world.runner.run_once() == 0
    world.clock.move(RETRY_S)
    await world.runner.run_once()
    world.clock.move(RETRY_S)
    assert await world.runner.run_once() == 0
    world.clock.move(RETRY_S)
    await world.runner.run_once()
    assert (world.done, world.runner.done, world.runner.failed) == (["shop"], 1, 2)


async def test_what_fails_for_ever_is_set_aside(world: World) -> None:
    world.faults = [OSError("refused")] * ATTEMPTS_MAX
    await world.runner.put("tell", "one", {"who": "shop"})
    for _ in range(ATTEMPTS_MAX + 2):
        await world.runner.run_once()
        world.clock.move(3600)
    assert [dead.key for dead in await world.work.dead()] == ["one"]


async def test_what_cannot_be_done_is_given_up_at_once(world: World) -> None:
    world.faults = [GaveUp("the client is gone")]
    await world.runner.put("tell", "one", {"who": "shop"})
    await world.runner.run_once()
    assert [(dead.key, dead.error) for dead in await world.work.dead()] == [("one", "the client is gone")]


async def test_a_worker_that_dies_leaves_its_jobs_to_another(world: World) -> None:
    await world.runner.put("tell", "one", {"who": "shop"})
    assert len(await world.work.claim(1, HOLD_S)) == 1  # and is never heard of again
    other = world.new_runner()
    assert await other.run_once() == 0
    world.clock.move(HOLD_S + 1)
    await other.run_once()
    assert world.done == ["shop"]


async def test_what_nobody_here_knows_is_left_to_others(world: World) -> None:
    await world.runner.put("write", "one", {})
    await world.runner.run_once()
    assert (await world.work.backlog()).waiting == 1
    assert await world.work.dead() == []


async def test_a_job_is_begun_as_soon_as_it_is_put(world: World) -> None:
    await world.runner.start()
    await world.runner.put("tell", "one", {"who": "shop"})
    async with asyncio.timeout(5):
        while not world.done:
            await asyncio.sleep(0)
    await world.runner.stop()
