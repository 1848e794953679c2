"""What the metrics say of the connections of stores."""

from __future__ import annotations

from collections import Counter

from gateway.observability.catalogue import STORE_SERVERS
from gateway.observability.metrics import Metrics
from gateway.stores.connections import Connections


class StoreFigures:
    """A sampler: moves the state of all pools into the metrics."""

    def __init__(self, metrics: Metrics, connections: Connections) -> None:
        self._connections = connections
        self._lag = metrics.gauge("store_replica_lag_bytes")
        self._unreplicated = metrics.counter("store_unreplicated_total")
        self._gauges = {
            (server, state): metrics.gauge("store_connections", server=server, state=state)
            for server in STORE_SERVERS
            for state in ("open", "busy", "waiting")
        }
        self._limits = {server: metrics.gauge("store_connections_max", server=server) for server in STORE_SERVERS}

    def __call__(self) -> None:
        counts: Counter[tuple[str, str]] = Counter()
        limits: Counter[str] = Counter()
        for pool in self._connections.pools():
            counts[pool.store, "open"] += pool.open
            counts[pool.store, "busy"] += pool.busy
            counts[pool.store, "waiting"] += pool.waiting
            limits[pool.store] += pool.connections_max
        for key, gauge in self._gauges.items():
            gauge.set(counts[key])
        for server, limit in self._limits.items():
            limit.set(limits[server])
        self._lag.set(self._connections.replica_lag_bytes)
        self._unreplicated.follow(self._connections.unreplicated)
