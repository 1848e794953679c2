"""Real servers of rows that are killed, frozen, emptied and put back: what is told, how soon, and what is lost."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Coroutine, Iterator, Sequence
from pathlib import Path
from typing import Any, Protocol

import pytest

from gateway._native.uid import EntityUid
from gateway.errors import StoreUnavailable
from gateway.stores import (
    ORIGIN,
    Revision,
    open_attribute_source,
    open_relation_store,
    postgres_server,
    redis_server,
    rows_postgres,
    rows_redis,
)
from gateway.stores.attributes import FollowedSource
from gateway.stores.relations import Relation
from gateway.stores.relations_rows import LAYOUT
from tests.real.postgres import RealPostgres
from tests.real.redis import RealRedis

SLACK_S = 0.4  # for a busy machine
CALL_S = max(postgres_server.CALL_TIMEOUT_S, redis_server.CALL_TIMEOUT_S)
WAIT_S = max(redis_server.BLOCK_S_MAX, rows_postgres.BLOCK_S_MAX)


Server = RealRedis | RealPostgres


class Kept(Protocol):
    """A store of things that go by their names, whatever they are."""

    async def write(self, added: Sequence[str], removed: Sequence[str] = ()) -> Revision: ...

    async def names(self) -> set[str]: ...

    async def after(self, revision: Revision) -> tuple[bool, int]:
        """Say whether what follows `revision` is lost, and how many changes it is."""

    def reads(self) -> list[Coroutine[Any, Any, object]]:
        """Begin each kind of read once."""

    async def wait(self, revision: Revision, timeout_s: float) -> None: ...

    async def purge(self, now_s: float) -> int: ...

    async def close(self) -> None: ...


class KeptRelations:
    """Relations of one user to documents that go by names."""

    def __init__(self, url: str, folder: Path) -> None:
        self.store = open_relation_store(url, folder)
        self.wait, self.purge, self.close = self.store.wait, self.store.purge, self.store.close

    async def write(self, added: Sequence[str], removed: Sequence[str] = ()) -> Revision:
        def made(name: str) -> Relation:
            return Relation(EntityUid("Doc", name), "viewers", EntityUid("User", "alice"))

        return await self.store.write([made(name) for name in added], [made(name) for name in removed])

    async def names(self) -> set[str]:
        page = await self.store.read_all("", 1000)
        assert page.cursor == ""
        return {relation.object.id for relation in page.relations}

    async def after(self, revision: Revision) -> tuple[bool, int]:
        batch = await self.store.read_after(revision, 10)
        return batch.lost, len(batch.changes)

    def reads(self) -> list[Coroutine[Any, Any, object]]:
        return [self.store.read_after(ORIGIN, 10), self.store.read_all("", 10)]


class KeptEntities:
    """Users that go by names, without attributes."""

    def __init__(self, url: str, folder: Path) -> None:
        source = open_attribute_source(url, folder, name="people")
        assert isinstance(source, FollowedSource)
        self.source = source
        self.wait, self.purge, self.close = source.wait, source.purge, source.close

    async def write(self, added: Sequence[str], removed: Sequence[str] = ()) -> Revision:
        upserts = [(EntityUid("User", name), b"{}") for name in added]
        return await self.source.write(upserts, [EntityUid("User", name) for name in removed])

    async def names(self) -> set[str]:
        page = await self.source.read_all("", 1000)
        assert page.cursor == ""
        found = await self.source.read([uid for uid, _ in page.entities])
        assert found.found.keys() == {uid for uid, _ in page.entities}
        return {uid.id for uid, _ in page.entities}

    async def after(self, revision: Revision) -> tuple[bool, int]:
        batch = await self.source.read_after(revision, 10)
        return batch.lost, len(batch.uids)

    def reads(self) -> list[Coroutine[Any, Any, object]]:
        users = [EntityUid("User", "alice")]
        return [self.source.read_after(ORIGIN, 10), self.source.read_all("", 10), self.source.read(users)]


Kind = type[KeptRelations | KeptEntities]


@pytest.fixture(params=["redis", "postgres"])
def server(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Server]:
    server = RealRedis(tmp_path) if request.param == "redis" else RealPostgres(tmp_path)
    yield server
    server.stop()


@pytest.fixture(params=[KeptRelations, KeptEntities], ids=["relations", "entities"])
def kind(request: pytest.FixtureRequest) -> Kind:
    kind: Kind = request.param
    return kind


@pytest.fixture
async def store(server: Server, kind: Kind, tmp_path: Path) -> AsyncIterator[Kept]:
    store = kind(server.url, tmp_path)
    yield store
    await store.close()


async def fails_within(seconds: float, store: Kept) -> None:
    """Hold each call to its deadline and to the one error that may leave it, all of them at once."""

    async def fails(call: asyncio.Future[object], extra_s: float) -> None:
        started = time.monotonic()
        with pytest.raises(StoreUnavailable) as failed:
            await call
        assert time.monotonic() - started < seconds + extra_s + SLACK_S
        assert failed.value.__cause__ is not None

    await asyncio.gather(
        fails(asyncio.ensure_future(store.write(["lost?"])), 0),
        *(fails(asyncio.ensure_future(read), 0) for read in store.reads()),
        fails(asyncio.ensure_future(store.purge(1.0)), 0),
        fails(asyncio.ensure_future(store.wait("x:9999999999999-0", 10)), WAIT_S),
    )


async def test_a_frozen_server_costs_the_deadline_and_no_more(server: Server, store: Kept) -> None:
    await store.write(["a"])
    server.freeze()
    await fails_within(CALL_S, store)
    server.thaw()
    await store.write(["b"])
    assert {"a", "b"} <= await store.names()


async def test_a_server_that_is_frozen_from_the_start_costs_the_same(
    server: Server, kind: Kind, tmp_path: Path
) -> None:
    server.freeze()
    store = kind(server.url, tmp_path)
    await fails_within(CALL_S, store)
    started = time.monotonic()
    await store.close()
    assert time.monotonic() - started < CALL_S + SLACK_S
    server.thaw()


async def test_a_server_that_freezes_while_a_reader_follows_is_noticed(server: Server, store: Kept) -> None:
    revision = await store.write(["a"])
    await store.wait(revision, 0.1)

    async def follow() -> None:
        while True:
            await store.wait(revision, 1.0)
            await store.after(revision)

    following = asyncio.create_task(follow())
    await asyncio.sleep(0.3)
    server.freeze()
    started = time.monotonic()
    with pytest.raises(StoreUnavailable):
        await following
    assert time.monotonic() - started < WAIT_S + CALL_S + SLACK_S
    server.thaw()


async def test_a_killed_server_fails_and_what_it_acknowledged_is_there_when_it_is_back(
    server: Server, store: Kept
) -> None:
    revision = await store.write([str(number) for number in range(100)])
    await store.write(["late"], ["0"])
    following = asyncio.create_task(store.wait(revision, 10))
    await following
    server.kill()
    await fails_within(CALL_S, store)
    server.start()
    assert await store.names() == {*(str(number) for number in range(1, 100)), "late"}
    if isinstance(server, RealPostgres):  # it came back as it was, and says so
        assert await store.after(revision) == (False, 2)
    else:  # nobody can tell what a Redis that came back has lost
        assert await store.after(revision) == (True, 0)
    await store.write(["b"])
    assert "b" in await store.names()


async def test_news_is_heard_again_after_the_server_was_away(
    server: Server, store: Kept, kind: Kind, tmp_path: Path
) -> None:
    await store.wait(await store.write(["a"]), 0.1)
    server.kill()
    with pytest.raises(StoreUnavailable):
        await store.write(["b"])
    server.start()
    revision = await store.write([])
    for _ in range(3):
        await store.wait(revision, 0.1)
    writer = kind(server.url, tmp_path)
    await writer.names()
    waiting = asyncio.create_task(store.wait(revision, 0.9))
    await asyncio.sleep(0.1)
    assert not waiting.done()
    started = time.monotonic()
    await writer.write(["c"])
    await waiting
    assert time.monotonic() - started < 0.5
    await writer.close()


async def test_an_emptied_server_has_another_log(server: Server, store: Kept) -> None:
    revision = await store.write(["a"])
    server.forget()
    if isinstance(server, RealPostgres):  # the tables are missed once, and made anew
        with pytest.raises(StoreUnavailable):
            await store.after(revision)
    assert await store.after(revision) == (True, 0)
    assert await store.names() == set()
    await store.write(["b"])
    assert await store.names() == {"b"}


async def test_an_abandoned_call_leaves_no_connection_behind(tmp_path: Path) -> None:
    server = RealPostgres(tmp_path)
    store = KeptRelations(server.url, tmp_path)
    for _ in range(20):
        call = asyncio.ensure_future(store.write(["a"]))
        for _ in range(30):
            await asyncio.sleep(0)
        call.cancel()
        await asyncio.gather(call, return_exceptions=True)
    await store.write(["b"])
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


async def test_who_follows_does_not_wait_behind_who_reads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rows_redis, "CALL_TIMEOUT_S", 0.05)
    server = RealRedis(tmp_path)
    rows = rows_redis.RedisRowStore(LAYOUT, server.url)
    try:
        await rows.write([(("Doc", "a", "viewers", "User", "alice", ""), None)])
        pool: Any = (await rows._server.open()).connection_pool
        busy = [await pool.get_connection() for _ in range(redis_server.CONNECTIONS_MAX)]
        with pytest.raises(StoreUnavailable):
            await rows.read([])
        assert len((await rows.read_after(ORIGIN, 10)).changes) == 1
        for connection in busy:
            await pool.release(connection)
        await rows.read([])
    finally:
        await rows.close()
        server.stop()


async def test_a_writer_that_is_frozen_in_the_middle_does_not_hold_up_the_others_for_ever(tmp_path: Path) -> None:
    import psycopg

    server = RealPostgres(tmp_path)
    store = KeptRelations(server.url, tmp_path)
    await store.write(["a"])
    frozen = await psycopg.AsyncConnection.connect(server.url)
    await frozen.execute(rows_postgres._LIMITS)
    await frozen.execute(rows_postgres._Statements(LAYOUT).take, (1,))
    deadline_s = time.monotonic() + 10
    while True:
        try:
            await store.write(["b"])
            break
        except StoreUnavailable:
            assert time.monotonic() < deadline_s
    assert await store.names() == {"a", "b"}
    await frozen.close()
    await store.close()
    server.stop()


async def test_a_server_that_took_over_is_another_log(tmp_path: Path) -> None:
    """Its timeline says so. Here one that was recovered to its end, as a standby is when it is promoted."""
    server = RealPostgres(tmp_path)
    store = KeptRelations(server.url, tmp_path)
    revision = await store.write(["a"])
    server.kill()
    (server.folder / "standby.signal").touch()
    server.start()
    with pytest.raises(StoreUnavailable):  # it only reads
        await store.write(["b"])
    server.query("SELECT pg_promote(true, 10)")
    assert await store.after(revision) == (True, 0)
    assert await store.names() == {"a"}
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
