"""What the metrics say of the connections of stores."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from gateway._native.metrics import MetricsBlock
from gateway.observability.catalogue import Layout, catalogue
from gateway.observability.exposition import exposition
from gateway.observability.metrics import Metrics, create_map
from gateway.stores import Connections, open_session_store
from gateway.stores.figures import StoreFigures
from gateway.stores.pools import DEFAULT, Pooled, PoolLimits, PoolState
from gateway.types import SystemClock


class Held(Connections):
    """Connections to servers that there are not."""

    replica_lag_bytes = 4096
    unreplicated = 3

    def __init__(self, *states: PoolState) -> None:
        super().__init__()
        self.states = states

    def pools(self) -> Sequence[PoolState]:
        return self.states


@pytest.fixture
def metrics(tmp_path: Path) -> Iterator[Metrics]:
    layout = Layout(catalogue((), ()))
    create_map(tmp_path / "metrics", layout, 1)
    made = Metrics(tmp_path / "metrics", layout, MetricsBlock)
    yield made
    made.close()


def test_connections_of_all_servers_are_added_up(metrics: Metrics) -> None:
    held = Held(
        PoolState("redis", "a:1", 10, 2, 1, 50),
        PoolState("redis", "b:1", 12, 0, 0, 50),
        PoolState("postgres_primary", "c:1", 20, 5, 3, 100),
        PoolState("redis", "c:1", 3, 3, 3, 50),
    )
    StoreFigures(metrics, held)()
    text = exposition(metrics.map, {})
    for line in (
        'portcullis_store_connections{server="redis",state="open"} 25',
        'portcullis_store_connections{server="redis",state="busy"} 5',
        'portcullis_store_connections{server="redis",state="waiting"} 4',
        'portcullis_store_connections{server="postgres_primary",state="open"} 20',
        'portcullis_store_connections{server="postgres_replica",state="open"} 0',
        'portcullis_store_connections_max{server="redis"} 150',
        'portcullis_store_connections_max{server="postgres_primary"} 100',
        "portcullis_store_replica_lag_bytes 4096",
        "portcullis_store_unreplicated_total 3",
    ):
        assert line in text.splitlines()


async def test_a_store_without_servers_has_no_connections(tmp_path: Path) -> None:
    for url in ("memory:", ""):
        store = open_session_store(url, tmp_path, SystemClock())
        assert isinstance(store, Pooled)
        assert list(store.pools()) == []
        await store.close()


@pytest.mark.parametrize("workers", [1, 3, 4, 16, 1000])
def test_workers_keep_within_the_limits_of_a_gateway_together(workers: int) -> None:
    each = DEFAULT.shared_by(workers)
    for share, whole in (
        (each.postgres_primary, DEFAULT.postgres_primary),
        (each.postgres_replica, DEFAULT.postgres_replica),
        (each.redis_node, DEFAULT.redis_node),
    ):
        assert share.connections_max >= 2
        assert share.connections_max * workers <= max(whole.connections_max, 2 * workers)
        assert share.connections_min * workers <= whole.connections_min
    assert DEFAULT.shared_by(1) == DEFAULT


@pytest.mark.parametrize(("least", "most"), [(5, 4), (-1, 4), (0, 0)])
def test_limits_that_exclude_each_other_are_refused(least: int, most: int) -> None:
    with pytest.raises(ValueError, match="exclude"):
        PoolLimits(least, most, None, 1.0, 1.0)
