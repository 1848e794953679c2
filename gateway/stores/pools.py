"""How many connections a store may hold, and how many it holds. The numbers are those of the source design."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final, Protocol, runtime_checkable


@dataclass(frozen=True, slots=True)
class PoolLimits:
    """The limits of the connections to one server."""

    connections_min: int  # opened with the first call, and kept
    connections_max: int  # whoever comes then waits, within the deadline of the call
    idle_s_max: float | None  # a connection that was idle for longer is closed, down to the minimum; None: never
    connect_timeout_s: float  # TCP, TLS and the log-in; never beyond the deadline of the call
    call_timeout_s: float  # of one exchange with the server
    statements_max: int = 0  # prepared statements kept on each connection

    def __post_init__(self) -> None:
        if not 0 <= self.connections_min <= self.connections_max or self.connections_max < 1:
            raise ValueError(
                f"at least {self.connections_min} connections and at most {self.connections_max} exclude each other"
            )


@dataclass(frozen=True, slots=True)
class PoolState:
    """The connections to one server, at this moment, for the metrics."""

    store: str  # one of STORE_SERVERS in `gateway.observability.catalogue`
    server: str  # host and port
    open: int
    busy: int
    waiting: int
    connections_max: int


@runtime_checkable
class Pooled(Protocol):
    """A store with connections to servers."""

    def pools(self) -> Sequence[PoolState]:
        """Return how many connections there are to each server."""


REDIS_NODE: Final = PoolLimits(10, 50, None, connect_timeout_s=1.0, call_timeout_s=0.5)
POSTGRES_PRIMARY: Final = PoolLimits(20, 100, 300.0, connect_timeout_s=5.0, call_timeout_s=2.0, statements_max=100)
POSTGRES_REPLICA: Final = PoolLimits(10, 50, 120.0, connect_timeout_s=5.0, call_timeout_s=2.0, statements_max=100)


@dataclass(frozen=True, slots=True)
class Pools:
    """The limits for each kind of server; those of the source design are for a whole gateway."""

    redis_node: PoolLimits = REDIS_NODE
    postgres_primary: PoolLimits = POSTGRES_PRIMARY
    postgres_replica: PoolLimits = POSTGRES_REPLICA

    def shared_by(self, processes: int) -> Pools:
        """Return what each of the workers of one gateway may have: together they keep within these limits."""

        def share(limits: PoolLimits) -> PoolLimits:
            most = max(2, limits.connections_max // processes)
            return replace(limits, connections_min=min(most, limits.connections_min // processes), connections_max=most)

        return Pools(share(self.redis_node), share(self.postgres_primary), share(self.postgres_replica))


DEFAULT: Final = Pools()
