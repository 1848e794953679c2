"""Following sources on real servers that are frozen, killed and emptied: how soon trust ends, what is told after."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Iterator
from functools import partial
from pathlib import Path

import pytest

from gateway._native.uid import EntityUid
from gateway.policy.attribute_follower import HEARTBEAT_S, LEASE_S, AttributeFollower
from gateway.stores import open_attribute_source
from gateway.stores.attributes import FollowedSource
from gateway.types import SystemClock
from tests.real.postgres import RealPostgres
from tests.real.redis import RealRedis

SLACK_S = 0.4  # for a busy machine

Server = RealRedis | RealPostgres


def open_source(server: Server, folder: Path) -> FollowedSource:
    source = open_attribute_source(server.url, folder, name="people")
    assert isinstance(source, FollowedSource)
    return source


class Running:
    """A follower that runs, and what it told."""

    def __init__(self, source: FollowedSource) -> None:
        self.source = source
        self.told: list[str] = []
        self.trust: list[tuple[float, bool]] = []
        self.follower = AttributeFollower(
            source,
            clock=SystemClock(),
            on_change=lambda uids: self.told.extend(uid.id for uid in uids),
            on_lost=lambda: self.told.append("LOST"),
            on_trust=lambda: self.trust.append((time.monotonic(), self.follower.trusted)),
        )

    async def put(self, name: str) -> None:
        await self.source.write([(EntityUid("User", name), b"{}")])

    async def until(self, condition: Callable[[], bool], seconds: float = 10) -> float:
        """Wait for a condition; give the seconds that it took."""
        started = time.monotonic()
        while not condition():
            assert time.monotonic() - started < seconds, (self.told, self.follower.state())
            await asyncio.sleep(0.005)
        return time.monotonic() - started


@pytest.fixture(params=["redis", "postgres"])
def server(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Server]:
    server = RealRedis(tmp_path) if request.param == "redis" else RealPostgres(tmp_path)
    yield server
    server.stop()


@pytest.fixture
async def running(server: Server, tmp_path: Path) -> AsyncIterator[Running]:
    running = Running(open_source(server, tmp_path))
    await running.follower.start()
    await running.until(lambda: running.follower.trusted)
    assert running.told == ["LOST"]
    running.told.clear()
    yield running
    server.thaw()
    await running.follower.stop()
    await running.source.close()


async def test_trust_ends_a_second_after_a_server_froze_and_comes_back_with_what_changed(
    server: Server, running: Running
) -> None:
    await running.put("before")
    await running.until(lambda: running.told == ["before"])
    server.freeze()
    frozen_at_s = time.monotonic()
    await running.until(lambda: not running.follower.trusted)
    assert time.monotonic() - frozen_at_s < LEASE_S + SLACK_S
    await running.until(lambda: len(running.trust) == 2, SLACK_S)  # told as soon as it is so
    server.thaw()
    await running.until(lambda: running.follower.trusted)
    await running.put("after")
    await running.until(lambda: "after" in running.told)
    assert running.told == ["before", "after"]


async def test_a_change_elsewhere_is_told_within_a_quarter_of_a_second(
    server: Server, running: Running, tmp_path: Path
) -> None:
    other = open_source(server, tmp_path)
    await other.write([(EntityUid("User", "warm"), b"{}")])
    await running.until(lambda: "warm" in running.told)
    for name in ("a", "b", "c"):
        await other.write([(EntityUid("User", name), b"{}")])
        assert await running.until(partial(running.told.__contains__, name)) < HEARTBEAT_S
    await other.close()


async def test_a_server_that_was_killed_tells_what_changed_or_that_nobody_knows(
    server: Server, running: Running
) -> None:
    await running.put("before")
    await running.until(lambda: running.told == ["before"])
    server.kill()
    await running.until(lambda: not running.follower.trusted)
    server.start()
    await running.until(lambda: running.follower.trusted)
    # PostgreSQL came back as it was, and says so; of a Redis that came back nobody can tell what it has lost.
    assert running.told == (["before"] if isinstance(server, RealPostgres) else ["before", "LOST"])
    await running.put("after")
    await running.until(lambda: running.told[-1] == "after")


async def test_an_emptied_server_is_another_log_and_all_that_was_read_is_void(server: Server, running: Running) -> None:
    await running.put("before")
    await running.until(lambda: running.told == ["before"])
    server.forget()
    await running.until(lambda: "LOST" in running.told)
    await running.until(lambda: running.follower.trusted)
    await running.put("after")
    await running.until(lambda: running.told[-1] == "after")
    assert running.told == ["before", "LOST", "after"]
