"""What the metrics say of the connections of stores."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from itertools import chain

from gateway.observability.catalogue import STORE_SERVERS
from gateway.observability.metrics import Metrics
from gateway.stores.pools import Pooled


class StoreFigures:
    """A sampler: moves the state of all pools into the metrics."""

    def __init__(self, metrics: Metrics, stores: Sequence[object]) -> None:
        """`stores`: whichever there are; those without connections to servers count for nothing."""
        self._stores = [store for store in stores if isinstance(store, Pooled)]
        self._gauges = {
            (server, state): metrics.gauge("store_connections", server=server, state=state)
            for server in STORE_SERVERS
            for state in ("open", "busy", "waiting")
        }
        self._limits = {server: metrics.gauge("store_connections_max", server=server) for server in STORE_SERVERS}

    def __call__(self) -> None:
        counts: Counter[tuple[str, str]] = Counter()
        limits: Counter[str] = Counter()
        for pool in chain.from_iterable(store.pools() for store in self._stores):
            counts[pool.store, "open"] += pool.open
            counts[pool.store, "busy"] += pool.busy
            counts[pool.store, "waiting"] += pool.waiting
            limits[pool.store] += pool.connections_max
        for key, gauge in self._gauges.items():
            gauge.set(counts[key])
        for server, limit in self._limits.items():
            limit.set(limits[server])
