"""A Redis of decisions that freezes, dies, forgets or evicts: it costs what it held, and nearly no time."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from gateway.stores import decisions_redis as module
from gateway.stores.decisions import NO_EPOCH
from gateway.stores.decisions_redis import CALL_S, RedisDecisionStore
from tests.real.redis import RealRedis

SLACK_S = 0.1  # for a busy machine


@pytest.fixture
def server(tmp_path: Path) -> Iterator[RealRedis]:
    server = RealRedis(tmp_path)
    yield server
    server.stop()


@pytest.fixture(autouse=True)
def short_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "PAUSE_MIN_S", 0.02)
    monkeypatch.setattr(module, "PAUSE_MAX_S", 0.02)


@pytest.fixture
async def store(server: RealRedis) -> AsyncIterator[RedisDecisionStore]:
    """A store with a deadline that a busy machine keeps."""
    store = RedisDecisionStore(server.url, call_s=5)
    await ready(store)
    yield store
    await store.close()


@pytest.fixture
async def hasty(server: RealRedis) -> AsyncIterator[RedisDecisionStore]:
    """A store with the deadline that it has in service."""
    store = RedisDecisionStore(server.url)
    await ready(store)
    yield store
    await store.close()


async def ready(store: RedisDecisionStore) -> str:
    async with asyncio.timeout(10):
        while (await store.get_many([])).epoch == NO_EPOCH:
            await asyncio.sleep(0.005)
    return (await store.get_many([])).epoch


async def put(store: RedisDecisionStore, key: bytes, value: bytes = b"allow") -> str:
    """Put a decision and wait until it is there."""
    epoch = await ready(store)
    async with asyncio.timeout(5):
        while (await store.get_many([key])).values != (value,):
            store.put(key, value, 60, await ready(store))
            await asyncio.sleep(0.002)
    return epoch


async def costs(store: RedisDecisionStore) -> float:
    """Ask once, in vain; give the seconds that it took."""
    started = time.monotonic()
    assert await store.get_many([b"a"]) == ((None,), NO_EPOCH)
    return time.monotonic() - started


async def test_a_frozen_server_costs_one_small_deadline_and_then_nothing(
    server: RealRedis, hasty: RedisDecisionStore
) -> None:
    await put(hasty, b"a")
    server.freeze()
    together = await asyncio.gather(*(costs(hasty) for _ in range(50)))
    assert max(together) < CALL_S + SLACK_S
    started = time.monotonic()
    for _ in range(1000):
        await costs(hasty)
        hasty.put(b"a", b"allow", 60, "any")
    assert time.monotonic() - started < SLACK_S
    state = hasty.state()
    assert (state.status, state.faults, state.dropped) == ("away", 1, 1000)
    assert "did not answer" in state.error
    server.thaw()
    await put(hasty, b"b")
    assert hasty.state().status == "ok"


async def test_a_dead_server_costs_nothing_and_its_decisions_do_not_come_back(
    server: RealRedis, hasty: RedisDecisionStore
) -> None:
    epoch = await put(hasty, b"a")
    server.kill()
    assert await costs(hasty) < CALL_S + SLACK_S
    assert min([await costs(hasty) for _ in range(5)]) < CALL_S / 5
    server.start()
    assert await ready(hasty) != epoch  # what changed meanwhile may not have been told
    assert (await hasty.get_many([b"a"])).values == (None,)


async def test_a_server_that_is_away_from_the_start_is_waited_for_by_nobody(server: RealRedis) -> None:
    server.freeze()
    store = RedisDecisionStore(server.url)
    assert await costs(store) < SLACK_S
    started = time.monotonic()
    await store.invalidate()
    assert time.monotonic() - started < SLACK_S
    server.thaw()
    await put(store, b"a")
    await store.close()


async def test_another_epoch_that_the_server_did_not_see_begin_begins_when_it_is_back(
    server: RealRedis, hasty: RedisDecisionStore
) -> None:
    epoch = await put(hasty, b"a")
    server.freeze()
    started = time.monotonic()
    await hasty.invalidate()
    assert time.monotonic() - started < CALL_S + SLACK_S
    server.thaw()
    assert await ready(hasty) != epoch
    assert (await hasty.get_many([b"a"])).values == (None,)


async def test_an_evicted_epoch_ends_what_was_put_under_it(server: RealRedis, store: RedisDecisionStore) -> None:
    epoch = await put(store, b"a")
    assert server.command("DEL", "portcullis:{decisions:default}:epoch") == b":1\r\n"
    assert (await store.get_many([b"a"])).values == (None,)
    assert await ready(store) != epoch
    assert (await store.get_many([b"a"])).values == (None,)
    assert store.state().faults == 0


async def test_a_start_begins_another_epoch(server: RealRedis, store: RedisDecisionStore) -> None:
    """Whoever ran before may have ended between a change and the telling of it."""
    epoch = await put(store, b"a")
    other = RedisDecisionStore(server.url)
    assert await ready(other) != epoch
    assert (await other.get_many([b"a"])).values == (None,)
    assert (await store.get_many([b"a"])).values == (None,)
    await other.close()


async def test_tenants_have_epochs_and_decisions_of_their_own(server: RealRedis, store: RedisDecisionStore) -> None:
    other = RedisDecisionStore(server.url, tenant="other")
    await ready(other)
    await put(store, b"a")
    assert (await other.get_many([b"a"])).values == (None,)
    await other.invalidate()
    assert (await store.get_many([b"a"])).values == (b"allow",)
    await other.close()


async def test_decisions_end_by_themselves(server: RealRedis, store: RedisDecisionStore) -> None:
    epoch = await put(store, b"long")
    store.put(b"short", b"x", 0.001, epoch)
    store.put(b"end", b"x", 60, epoch)
    name = f"portcullis:{{decisions:default}}:{epoch}:"
    async with asyncio.timeout(5):
        while (await store.get_many([b"end"])).values == (None,) or server.command(
            "EXISTS", f"{name}short"
        ) == b":1\r\n":
            await asyncio.sleep(0.005)
    assert (await store.get_many([b"short", b"long"])).values == (None, b"allow")
    assert 50_000 < int(server.command("PTTL", f"{name}long")[1:]) <= 60_000


async def test_a_thousand_questions_at_once_need_few_connections_and_round_trips(
    server: RealRedis, store: RedisDecisionStore
) -> None:
    await put(store, b"a")

    def commands() -> int:
        return int(server.command("INFO", "stats").split(b"total_commands_processed:")[1].split(b"\r\n")[0])

    before = commands()
    answers = await asyncio.gather(*(store.get_many([b"a"]) for _ in range(1000)))
    assert all(found.values == (b"allow",) for found in answers)
    assert commands() - before < 20
    assert int(server.command("INFO", "clients").split(b"connected_clients:")[1].split(b"\r\n")[0]) <= 3
    assert store.state().faults == 0


async def test_more_than_can_be_sent_is_dropped_and_counted(store: RedisDecisionStore) -> None:
    epoch = await put(store, b"a")
    for number in range(module.PUTS_MAX + 7):
        store.put(b"%d" % number, b"x", 60, epoch)
    assert store.state().dropped == 7
    async with asyncio.timeout(5):
        while (await store.get_many([b"%d" % (module.PUTS_MAX - 1)])).values == (None,):
            await asyncio.sleep(0.005)


async def test_no_password_is_shown(server: RealRedis) -> None:
    store = RedisDecisionStore(f"redis://user:hunter2@127.0.0.1:{server.port}/0")
    await store.get_many([b"a"])
    async with asyncio.timeout(5):
        while store.state().status != "away":
            await asyncio.sleep(0.005)
    assert "hunter2" not in f"{store!r} {store.state()}"
    await store.close()
