"""The laws of ReplicationQueue, held by every backend."""

from __future__ import annotations

import asyncio
import random
import signal
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from gateway.errors import StoreUnavailable
from gateway.stores import Connections, open_replication_queue
from gateway.stores.replication import BODY_BYTES_MAX, Lag, Message, ReplicationQueue
from gateway.stores.replication_memory import MemoryReplicationQueue
from gateway.stores.replication_redis import RedisReplicationQueue
from gateway.types import SystemClock
from tests.real.kafka import MockKafka
from tests.real.pools import SMALL
from tests.real.redis import RealRedis

Opener = Callable[[], ReplicationQueue]
CLOCK = SystemClock()


@pytest.fixture(params=["memory", "redis", "cluster", "kafka_mock", "kafka"])
async def opener(request: pytest.FixtureRequest) -> AsyncIterator[Opener]:
    url, opened = "memory:", list[ReplicationQueue]()
    if request.param != "memory":
        server = request.getfixturevalue(request.param)
        server.forget()
        url = server.url

    def open_one() -> ReplicationQueue:
        if url == "memory:" and opened:
            return opened[0]
        opened.append(open_replication_queue(url, "sessions", CLOCK, connections=Connections(SMALL)))
        return opened[-1]

    yield open_one
    for queue in opened:
        await queue.close()


def message(number: int, key: str = "", at_s: float | None = None) -> Message:
    return Message(key or f"key{number % 7}", number, b"state\n%d" % number, CLOCK.wall_s() if at_s is None else at_s)


async def everything(queue: ReplicationQueue, group: str, limit: int = 100) -> list[Message]:
    """Receive and do until there is no more."""
    found: list[Message] = []
    while True:
        batch = await queue.receive(group, limit)
        assert not batch.lost
        if not batch.messages:
            return found
        found += batch.messages
        await queue.done(batch)


def in_order(found: list[Message], published: list[Message]) -> bool:
    """Tell whether all is there once, and what belongs together in its order."""
    keys = {each.key for each in published}
    by_key = {key: [each for each in found if each.key == key] for key in keys}
    return len(found) == len(published) and all(
        by_key[key] == [each for each in published if each.key == key] for key in keys
    )


async def test_every_group_receives_everything_in_the_order_of_each_key(opener: Opener) -> None:
    queue, published = opener(), [message(number) for number in range(250)]
    for start in range(0, 250, 50):
        await queue.publish(published[start : start + 50])
    for group in ("eu", "us"):
        assert in_order(await everything(opener(), group, limit=33), published)
    await queue.publish([message(999)])
    assert [each.version for each in await everything(queue, "eu")] == [999]


async def test_what_was_not_done_comes_again_to_whoever_asks_next(opener: Opener) -> None:
    queue = opener()
    await queue.publish([message(number, "one") for number in range(5)])
    first = await queue.receive("eu", limit=3)  # or fewer, where fewer are there at once
    assert first.messages
    for reader in (queue, opener()):
        again = await reader.receive("eu", limit=3)
        both = min(len(again.messages), len(first.messages))
        assert again.messages[:both] == first.messages[:both] != ()
    await queue.done(first)
    rest = list(range(len(first.messages), 5))
    assert [each.version for each in await everything(opener(), "eu")] == rest
    await queue.done(first)  # an old one, again: the place moves forward only
    await opener().publish([message(9, "one")])
    assert [each.version for each in (await opener().receive("eu")).messages] == [9]


async def test_nothing_is_received_where_nothing_is_and_news_end_the_waiting(opener: Opener) -> None:
    queue = opener()
    await queue.publish([message(1)])
    await everything(queue, "eu")
    began_s = time.monotonic()
    assert (await queue.receive("eu", wait_s=0.3)).messages == ()
    assert time.monotonic() - began_s < 2.0
    waiting = asyncio.create_task(queue.receive("eu", wait_s=10.0))
    await asyncio.sleep(0.1)
    began_s = time.monotonic()
    await opener().publish([message(2)])
    assert [each.version for each in (await waiting).messages] == [2]
    assert time.monotonic() - began_s < 3.0


async def test_how_far_a_group_is_behind_is_told_in_messages_and_seconds(opener: Opener) -> None:
    queue, now_s = opener(), CLOCK.wall_s()
    assert await queue.lag("eu") == Lag(0, 0.0)
    await queue.publish([message(number, "one", at_s=now_s - 60 + number) for number in range(10)])
    lag = await queue.lag("eu")
    assert (lag.messages, 59.0 < lag.seconds < 90.0) == (10, True)
    batch = await queue.receive("eu", limit=4)
    assert (await queue.lag("eu")).messages == 10
    await queue.done(batch)
    lag, done = await queue.lag("eu"), len(batch.messages)
    assert 0 < done <= 4
    assert (lag.messages, 59.0 - done < lag.seconds < 90.0 - done) == (10 - done, True)
    await everything(queue, "eu")
    assert await queue.lag("eu") == Lag(0, 0.0)


async def test_bodies_are_bytes_and_have_limits(opener: Opener) -> None:
    queue = opener()
    wild = Message("schlüssel", 1 << 60, bytes(random.Random(1).randbytes(50_000)), 1.25)
    await queue.publish([wild, Message("empty", 1, b"", 2.0)])
    assert sorted(await everything(queue, "eu"), key=lambda each: each.key) == [Message("empty", 1, b"", 2.0), wild]
    for bad in (Message("", 1, b""), Message("k" * 600, 1, b""), Message("k", 1, bytes(BODY_BYTES_MAX + 1))):
        with pytest.raises(ValueError, match="a message has a key"):
            await queue.publish([bad])
    with pytest.raises(ValueError, match="at most"):
        await queue.publish([message(1)] * 1001)
    with pytest.raises(ValueError, match="group"):
        await queue.receive("a b")


async def test_what_is_not_kept_any_more_is_told_and_never_passed_over(redis: RealRedis) -> None:
    redis.forget()
    nodes = Connections(SMALL).redis(redis.url)
    for queue in (MemoryReplicationQueue(CLOCK, kept=10), RedisReplicationQueue(nodes, "sessions", CLOCK, kept=10)):
        await queue.publish([message(number, "one") for number in range(5)])
        await queue.done(await queue.receive("eu", limit=2))
        await queue.publish([message(number, "one") for number in range(5, 30)])
        batch = await queue.receive("eu")
        assert (batch.lost, [each.version for each in batch.messages]) == (True, list(range(20, 30)))
        await queue.done(batch)
        assert not (await queue.receive("eu")).lost
        new = await queue.receive("late")  # a group that was never there has missed nothing
        assert (new.lost, len(new.messages)) == (False, 10)
        await queue.close()


@pytest.mark.parametrize("kind", ["redis", "kafka"])
async def test_a_server_that_stands_still_costs_a_deadline_and_nothing_acknowledged(tmp_path: Path, kind: str) -> None:
    server = RealRedis(tmp_path) if kind == "redis" else MockKafka(tmp_path)
    queue = open_replication_queue(server.url, "sessions", CLOCK, connections=Connections(SMALL))
    acknowledged = [message(number) for number in range(20)]
    try:
        await queue.publish(acknowledged)
        process = server.server if isinstance(server, MockKafka) else server.process
        assert process is not None
        process.signal(signal.SIGSTOP)
        for call in (queue.publish([message(20)]), queue.receive("eu")):
            began_s = time.monotonic()
            with pytest.raises(StoreUnavailable):
                await call
            assert time.monotonic() - began_s < 8.0
        process.signal(signal.SIGCONT)
        found: list[Message] = []
        async with asyncio.timeout(40):
            while len(found) < 20:
                try:
                    found += await everything(queue, "eu")
                except StoreUnavailable:
                    await asyncio.sleep(0.2)
        # What was not acknowledged may be there or not; what was is.
        assert in_order([each for each in found if each.version < 20], acknowledged)
    finally:
        await queue.close()
        server.stop()


@pytest.mark.parametrize("url", ["", "sqlite:x", "postgresql://host/x", "kafka://host", "ftp://x"])
def test_other_addresses_are_refused(url: str) -> None:
    with pytest.raises(ValueError):
        open_replication_queue(url, "sessions", CLOCK)
