"""Real servers of relations that are killed, frozen, emptied and put back: what is told, how soon, and what is lost."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from gateway._native.uid import EntityUid
from gateway.errors import StoreUnavailable
from gateway.stores import ORIGIN, open_relation_store, postgres_server, redis_server, relations_postgres
from gateway.stores.relations import Relation, RelationStore
from tests.real.postgres import RealPostgres
from tests.real.redis import RealRedis

SLACK_S = 0.4  # for a busy machine
CALL_S = max(postgres_server.CALL_TIMEOUT_S, redis_server.CALL_TIMEOUT_S)
WAIT_S = max(redis_server.BLOCK_S_MAX, relations_postgres.BLOCK_S_MAX)


def relation(name: str) -> Relation:
    return Relation(EntityUid("Doc", name), "viewers", EntityUid("User", "alice"))


@pytest.fixture(params=["redis", "postgres"])
def server(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[RealRedis | RealPostgres]:
    server = RealRedis(tmp_path) if request.param == "redis" else RealPostgres(tmp_path)
    yield server
    server.stop()


@pytest.fixture
async def store(server: RealRedis | RealPostgres, tmp_path: Path) -> AsyncIterator[RelationStore]:
    store = open_relation_store(server.url, tmp_path)
    yield store
    await store.close()


async def names(store: RelationStore) -> set[str]:
    page = await store.read_all("", 1000)
    assert page.cursor == ""
    return {relation.object.id for relation in page.relations}


async def fails_within(seconds: float, store: RelationStore) -> None:
    """Hold each call to its deadline and to the one error that may leave it, all of them at once."""

    async def fails(call: asyncio.Future[object], extra_s: float) -> None:
        started = time.monotonic()
        with pytest.raises(StoreUnavailable) as failed:
            await call
        assert time.monotonic() - started < seconds + extra_s + SLACK_S
        assert failed.value.__cause__ is not None

    await asyncio.gather(
        fails(asyncio.ensure_future(store.write([relation("lost?")])), 0),
        fails(asyncio.ensure_future(store.read_after(ORIGIN, 10)), 0),
        fails(asyncio.ensure_future(store.read_all("", 10)), 0),
        fails(asyncio.ensure_future(store.purge(1.0)), 0),
        fails(asyncio.ensure_future(store.wait("x:9999999999999-0", 10)), WAIT_S),
    )


async def test_a_frozen_server_costs_the_deadline_and_no_more(
    server: RealRedis | RealPostgres, store: RelationStore
) -> None:
    await store.write([relation("a")])
    server.freeze()
    await fails_within(CALL_S, store)
    server.thaw()
    await store.write([relation("b")])
    assert {"a", "b"} <= await names(store)


async def test_a_server_that_is_frozen_from_the_start_costs_the_same(
    server: RealRedis | RealPostgres, tmp_path: Path
) -> None:
    server.freeze()
    store = open_relation_store(server.url, tmp_path)
    await fails_within(CALL_S, store)
    started = time.monotonic()
    await store.close()
    assert time.monotonic() - started < CALL_S + SLACK_S
    server.thaw()


async def test_a_server_that_freezes_while_a_reader_follows_is_noticed(
    server: RealRedis | RealPostgres, store: RelationStore
) -> None:
    revision = await store.write([relation("a")])
    await store.wait(revision, 0.1)

    async def follow() -> None:
        place = revision
        while True:
            await store.wait(place, 1.0)
            place = (await store.read_after(place, 10)).revision

    following = asyncio.create_task(follow())
    await asyncio.sleep(0.3)
    server.freeze()
    started = time.monotonic()
    with pytest.raises(StoreUnavailable):
        await following
    assert time.monotonic() - started < WAIT_S + CALL_S + SLACK_S
    server.thaw()


async def test_a_killed_server_fails_and_what_it_acknowledged_is_there_when_it_is_back(
    server: RealRedis | RealPostgres, store: RelationStore
) -> None:
    revision = await store.write([relation(str(number)) for number in range(100)])
    await store.write([relation("late")], [relation("0")])
    following = asyncio.create_task(store.wait(revision, 10))
    await following
    server.kill()
    await fails_within(CALL_S, store)
    server.start()
    assert await names(store) == {*(str(number) for number in range(1, 100)), "late"}
    batch = await store.read_after(revision, 10)
    if isinstance(server, RealPostgres):  # it came back as it was, and says so
        assert [change.removed for change in batch.changes] == [True, False]
    else:  # nobody can tell what a Redis that came back has lost
        assert batch.lost
    await store.write([relation("b")])
    assert "b" in await names(store)


async def test_news_is_heard_again_after_the_server_was_away(
    server: RealRedis | RealPostgres, store: RelationStore, tmp_path: Path
) -> None:
    await store.wait(await store.write([relation("a")]), 0.1)
    server.kill()
    with pytest.raises(StoreUnavailable):
        await store.write([relation("b")])
    server.start()
    revision = (await store.read_all("", 10)).revision
    for _ in range(3):
        await store.wait(revision, 0.1)
    writer = open_relation_store(server.url, tmp_path)
    await writer.read_all("", 1)
    waiting = asyncio.create_task(store.wait(revision, 0.9))
    await asyncio.sleep(0.1)
    assert not waiting.done()
    started = time.monotonic()
    await writer.write([relation("c")])
    await waiting
    assert time.monotonic() - started < 0.5
    await writer.close()


async def test_an_emptied_server_has_another_log(server: RealRedis | RealPostgres, store: RelationStore) -> None:
    revision = await store.write([relation("a")])
    server.forget()
    if isinstance(server, RealPostgres):  # the tables are missed once, and made anew
        with pytest.raises(StoreUnavailable):
            await store.read_after(revision, 10)
    batch = await store.read_after(revision, 10)
    assert (batch.lost, batch.changes) == (True, ())
    assert await names(store) == set()
    await store.write([relation("b")])
    assert await names(store) == {"b"}


async def test_an_abandoned_call_leaves_no_connection_behind(tmp_path: Path) -> None:
    server = RealPostgres(tmp_path)
    store = open_relation_store(server.url, tmp_path)
    for _ in range(20):
        call = asyncio.ensure_future(store.write([relation("a")]))
        for _ in range(30):
            await asyncio.sleep(0)
        call.cancel()
        await asyncio.gather(call, return_exceptions=True)
    await store.write([relation("b")])
    count = "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'portcullis'"
    deadline_s = time.monotonic() + 5
    while server.query(count) != [(1,)] and time.monotonic() < deadline_s:
        await asyncio.sleep(0.02)
    assert server.query(count) == [(1,)]
    await store.close()
    while server.query(count) != [(0,)] and time.monotonic() < deadline_s:
        await asyncio.sleep(0.02)
    assert server.query(count) == [(0,)]
    server.stop()


async def test_a_writer_that_is_frozen_in_the_middle_does_not_hold_up_the_others_for_ever(tmp_path: Path) -> None:
    import psycopg

    server = RealPostgres(tmp_path)
    store = open_relation_store(server.url, tmp_path)
    await store.write([relation("a")])
    frozen = await psycopg.AsyncConnection.connect(server.url)
    await frozen.execute(relations_postgres._LIMITS)
    await frozen.execute(relations_postgres._TAKE, (1,))
    deadline_s = time.monotonic() + 10
    while True:
        try:
            await store.write([relation("b")])
            break
        except StoreUnavailable:
            assert time.monotonic() < deadline_s
    assert await names(store) == {"a", "b"}
    await frozen.close()
    await store.close()
    server.stop()


async def test_a_server_that_took_over_is_another_log(tmp_path: Path) -> None:
    """Its timeline says so. Here one that was recovered to its end, as a standby is when it is promoted."""
    server = RealPostgres(tmp_path)
    store = open_relation_store(server.url, tmp_path)
    revision = await store.write([relation("a")])
    server.kill()
    (server.folder / "standby.signal").touch()
    server.start()
    with pytest.raises(StoreUnavailable):  # it only reads
        await store.write([relation("b")])
    server.query("SELECT pg_promote(true, 10)")
    assert (await store.read_after(revision, 10)).lost
    assert await names(store) == {"a"}
    await store.close()
    server.stop()


async def test_no_password_is_shown(tmp_path: Path) -> None:
    pytest.importorskip("psycopg", reason="psycopg is not installed")
    for scheme in ("redis", "postgresql"):
        store = open_relation_store(f"{scheme}://user:hunter2@127.0.0.1:1/0", tmp_path)
        with pytest.raises(StoreUnavailable) as failed:
            await store.read_all("", 10)
        assert "hunter2" not in str(failed.value)
        assert "hunter2" not in repr(store)
        await store.close()


async def test_a_missing_driver_is_named_with_its_remedy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "psycopg", None)
    store = open_relation_store("postgresql://127.0.0.1:1/x", tmp_path)
    with pytest.raises(StoreUnavailable, match=r"pip install 'portcullis-gateway\[postgres\]'"):
        await store.read_all("", 10)
    await store.close()
