"""A real redis-server that is killed, frozen, emptied and put back to an earlier state."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from gateway.errors import StoreUnavailable
from gateway.stores import ORIGIN, RevocationRow
from gateway.stores.redis import LOG, STREAM, RedisRevocationStore
from gateway.stores.redis_server import BLOCK_S_MAX, CALL_TIMEOUT_S
from tests.real.redis import RealRedis

FAR_S = 2_000_000_000
SLACK_S = 0.2  # for a busy machine


def row(name: str) -> RevocationRow:
    return RevocationRow("jti", b"i", name.encode(), FAR_S)


@pytest.fixture
def server(tmp_path: Path) -> Iterator[RealRedis]:
    server = RealRedis(tmp_path)
    yield server
    server.stop()


@pytest.fixture
async def store(server: RealRedis) -> AsyncIterator[RedisRevocationStore]:
    store = RedisRevocationStore(server.url)
    yield store
    await store.close()


async def names(store: RedisRevocationStore, revision: str = ORIGIN) -> list[bytes]:
    return [row.value for row in (await store.read_after(revision, 1000)).rows]


async def fails_within(seconds: float, store: RedisRevocationStore) -> None:
    """Hold each call to its deadline and to the one error that may leave it."""
    for call, extra_s in (
        (store.append([row("lost?")]), 0.0),
        (store.read_after(ORIGIN, 10), 0.0),
        (store.wait(ORIGIN + "x:9999999999999-0", 10), BLOCK_S_MAX),
        (store.purge(1.0), 0.0),
    ):
        started = time.monotonic()
        with pytest.raises(StoreUnavailable) as failed:
            await call
        assert time.monotonic() - started < seconds + extra_s + SLACK_S
        assert failed.value.__cause__ is not None


async def test_a_frozen_server_costs_the_deadline_and_no_more(server: RealRedis, store: RedisRevocationStore) -> None:
    await store.append([row("a")])
    server.freeze()
    await fails_within(CALL_TIMEOUT_S, store)
    server.thaw()
    await store.append([row("b")])
    assert {b"a", b"b"} <= set(await names(store))


async def test_a_server_that_is_frozen_from_the_start_costs_the_same(server: RealRedis) -> None:
    server.freeze()
    store = RedisRevocationStore(server.url)
    await fails_within(CALL_TIMEOUT_S, store)
    started = time.monotonic()
    await store.close()
    assert time.monotonic() - started < 3 * CALL_TIMEOUT_S
    server.thaw()


async def test_a_server_that_freezes_during_a_wait_is_noticed(server: RealRedis, store: RedisRevocationStore) -> None:
    revision = await store.append([row("a")])
    waiting = asyncio.create_task(store.wait(revision, 10))
    await asyncio.sleep(0.1)
    server.freeze()
    started = time.monotonic()
    with pytest.raises(StoreUnavailable):
        await waiting
    assert time.monotonic() - started < BLOCK_S_MAX + CALL_TIMEOUT_S + SLACK_S
    server.thaw()


async def test_a_killed_server_fails_at_once_and_its_rows_are_there_when_it_is_back(
    server: RealRedis, store: RedisRevocationStore
) -> None:
    revision = await store.append([row("a")])
    waiting = asyncio.create_task(store.wait(revision, 10))
    await asyncio.sleep(0.1)
    server.kill()
    with pytest.raises(StoreUnavailable):
        await waiting
    await fails_within(CALL_TIMEOUT_S, store)
    server.start()
    batch = await store.read_after(revision, 10)
    assert not batch.restarted
    assert set(await names(store)) == {b"a"}
    await store.append([row("b")])
    assert await names(store, batch.revision) == [b"b"]


async def test_an_emptied_server_is_a_new_log(server: RealRedis, store: RedisRevocationStore) -> None:
    revision = await store.append([row("a")])
    server.forget()
    batch = await store.read_after(revision, 10)
    assert (batch.restarted, batch.rows) == (True, ())
    await store.append([row("b")])
    assert await names(store, batch.revision) == [b"b"]


async def test_an_earlier_state_is_read_from_its_origin(server: RealRedis, store: RedisRevocationStore) -> None:
    await store.append([row("a")])
    dump = server.command("XRANGE", STREAM, "-", "+").split(b"\r\n")[3].decode()  # the id of the only entry
    revision = await store.append([row("b"), row("c")])
    server.command("DEL", STREAM)
    fields = ("kind", "jti", "issuer", "i", "value", "a", "until_s", str(FAR_S), "issued_before_s", "0")
    server.command("XADD", STREAM, dump, *fields)
    batch = await store.read_after(revision, 10)
    assert (batch.restarted, [row.value for row in batch.rows]) == (True, [b"a"])


async def test_after_a_fault_the_last_minute_is_read_again(server: RealRedis, store: RedisRevocationStore) -> None:
    """A replica that takes over may give ids below those that its primary gave."""
    revision = await store.append([row("a")])
    assert await names(store, revision) == []
    server.kill()
    with pytest.raises(StoreUnavailable):
        await store.read_after(revision, 10)
    server.start()
    batch = await store.read_after(revision, 10)
    assert ([row.value for row in batch.rows], batch.restarted) == ([b"a"], False)
    assert await names(store, batch.revision) == []


async def test_an_entry_that_is_no_revocation_hides_no_other(server: RealRedis, store: RedisRevocationStore) -> None:
    await store.append([row("a")])
    good = ("issuer", "i", "value", "v", "until_s", str(FAR_S), "issued_before_s", "0")
    for fields in (("x", "y"), ("kind", "aud", *good), ("kind", "jti", *good[:4], "until_s", "soon", *good[6:])):
        assert server.command("XADD", STREAM, "*", *fields).startswith(b"$")
    await store.append([row("b")])
    batch = await store.read_after(ORIGIN, 100)
    assert ([row.value for row in batch.rows], batch.damaged) == ([b"a", b"b"], 3)
    assert await store.purge(FAR_S * 2) == 2


async def test_a_key_of_another_type_is_a_fault_of_the_store(server: RealRedis, store: RedisRevocationStore) -> None:
    server.command("SET", STREAM, "x")
    server.command("SET", LOG, "y")
    with pytest.raises(StoreUnavailable):
        await store.append([row("a")])
    with pytest.raises(StoreUnavailable):
        await store.read_after(ORIGIN, 10)


async def test_a_server_without_room_refuses_instead_of_forgetting(
    server: RealRedis, store: RedisRevocationStore
) -> None:
    await store.append([row("a")])
    server.command("CONFIG", "SET", "maxmemory", "1")
    with pytest.raises(StoreUnavailable):
        await store.append([row("b")])
    server.command("CONFIG", "SET", "maxmemory", "0")
    assert await names(store) == [b"a"]


async def test_a_cancellation_is_never_swallowed(store: RedisRevocationStore) -> None:
    """redis-py with a socket_timeout lost one in six on Python 3.11, and a worker never ended."""

    async def follow() -> None:
        revision = ORIGIN
        while True:
            revision = (await store.read_after(revision, 1000)).revision
            task = asyncio.current_task()
            assert task is not None
            assert not task.cancelling()
            await store.wait(revision, 1.0)

    for number in range(200):
        task = asyncio.create_task(follow())
        await asyncio.sleep(0.005)
        await store.append([row("a")])
        for _ in range(number % 12):
            await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task


async def test_no_password_is_shown(server: RealRedis) -> None:
    store = RedisRevocationStore(f"redis://user:hunter2@127.0.0.1:{server.port}/0")
    with pytest.raises(StoreUnavailable) as failed:
        await store.read_after(ORIGIN, 10)
    assert "hunter2" not in str(failed.value)
    assert "hunter2" not in repr(store)
    await store.close()


async def test_a_purge_of_more_than_a_page_reaches_the_end(store: RedisRevocationStore) -> None:
    for _ in range(5):
        await store.append([RevocationRow("jti", b"i", b"over", 1)] * 500)
        await store.append([row("kept")])
    assert await store.purge(1_000_000) == 2500
    assert await names(store) == [b"kept"] * 5
