"""One pool of connections for each server, however many stores use it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from gateway.errors import StoreUnavailable
from gateway.stores import (
    Connections,
    open_deferred_work,
    open_directory,
    open_session_store,
    open_token_store,
)
from gateway.types import SystemClock
from tests.contract.test_directory import Rot
from tests.contract.test_session_store import id_hash
from tests.real.pools import SMALL
from tests.real.redis import RealRedis

POSTGRES = "postgresql://nobody@127.0.0.1:1/none"


@pytest.fixture(scope="module")
def redis(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RealRedis]:
    server = RealRedis(tmp_path_factory.mktemp("redis"))
    yield server
    server.stop()


async def test_stores_of_one_server_share_its_pool_until_the_last_is_closed(redis: RealRedis, tmp_path: Path) -> None:
    connections = Connections(SMALL)
    sessions = open_session_store(redis.url, tmp_path, SystemClock(), connections=connections)
    grants = open_token_store(redis.url, tmp_path, SystemClock(), connections=connections)
    work = open_deferred_work(redis.url, tmp_path, SystemClock(), connections=connections)
    assert await sessions.get(id_hash("a")) is None
    assert await grants.get_client("acme", "app") is None
    assert await work.claim(1, 1.0) == []
    (pool,) = connections.pools()
    assert (pool.store, pool.connections_max) == ("redis", 8)
    await sessions.close()
    assert await grants.get_client("acme", "app") is None
    await grants.close()
    await work.close()
    with pytest.raises(StoreUnavailable, match="closed"):
        await work.claim(1, 1.0)
    again = open_session_store(redis.url, tmp_path, SystemClock(), connections=connections)
    assert await again.get(id_hash("a")) is None
    await again.close()


async def test_directory_and_grants_of_one_database_are_one_pool(tmp_path: Path) -> None:
    connections = Connections(SMALL)
    database = connections.database(POSTGRES, tmp_path / "unused")
    assert connections.database(POSTGRES, tmp_path / "unused") is database
    assert connections.database(POSTGRES.replace("none", "other"), tmp_path / "unused") is not database
    await database.close()
    await database.close()
    assert connections.database(POSTGRES, tmp_path / "unused") is not database


@pytest.mark.parametrize("url", ["mysql://here", "sqlite:", "redis://one,two/3", "nonsense"])
def test_an_address_of_no_store_is_refused(url: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"unknown kind of store|only the database 0"):
        open_session_store(url, tmp_path, SystemClock())
    if not url.startswith("redis"):
        with pytest.raises(ValueError, match="unknown kind of store"):
            open_directory(url, tmp_path, Rot())
