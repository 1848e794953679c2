"""The servers that stores are held to their laws on: each is started once for a module that asks for it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.real.kafka import MockKafka, RealKafka
from tests.real.redis import RealRedis
from tests.real.redis_cluster import RealRedisCluster


@pytest.fixture(scope="module")
def redis(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RealRedis]:
    server = RealRedis(tmp_path_factory.mktemp("redis"))
    yield server
    server.stop()


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RealRedisCluster]:
    servers = RealRedisCluster(tmp_path_factory.mktemp("cluster"))
    yield servers
    servers.stop()


@pytest.fixture(scope="module")
def kafka_mock(tmp_path_factory: pytest.TempPathFactory) -> Iterator[MockKafka]:
    servers = MockKafka(tmp_path_factory.mktemp("kafka-mock"))
    yield servers
    servers.stop()


@pytest.fixture(scope="module")
def kafka(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RealKafka]:
    server = RealKafka(tmp_path_factory.mktemp("kafka"))
    yield server
    server.stop()
