"""One pool of connections for each server, however many stores use it."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING

from gateway.stores.pools import DEFAULT, Pooled, Pools, PoolState

if TYPE_CHECKING:
    from gateway.stores.redis_nodes import RedisNodes
    from gateway.stores.sql import SQLDatabase
    from gateway.stores.sql_postgres import PostgresDatabase


class Connections:
    """What the stores of one process share. Belongs to one event loop.

    Each store closes what it was given; a pool closes with the last store that uses it.
    """

    def __init__(self, pools: Pools = DEFAULT) -> None:
        self._limits = pools
        self._redis: dict[str, RedisNodes] = {}
        self._postgres: dict[str, PostgresDatabase] = {}

    def redis(self, url: str) -> RedisNodes:
        """Return the connections to a server or cluster. Raises ValueError for what is no URL of one."""
        from gateway.stores.redis_nodes import RedisNodes

        nodes = self._redis.get(url)
        if nodes is None or not nodes.use():
            nodes = self._redis[url] = RedisNodes(url, self._limits.redis_node)
        return nodes

    def database(self, url: str, file: Path) -> SQLDatabase:
        """Return the database that `url` names; `file` is the embedded default, others are relative to its folder.

        Raises ValueError for anything else.
        """
        scheme, _, rest = url.partition(":")
        if url == "" or (scheme == "sqlite" and rest):
            from gateway.stores.sql_sqlite import SQLiteDatabase

            return SQLiteDatabase(file.parent / rest if rest else file)
        if url.startswith(("postgresql://", "postgres://")):
            from gateway.stores.sql_postgres import PostgresDatabase

            database = self._postgres.get(url)
            if database is None or not database.use():
                limits = self._limits.postgres_primary, self._limits.postgres_replica
                database = self._postgres[url] = PostgresDatabase(url, *limits)
            return database
        raise ValueError(f"unknown kind of store `{scheme}`")

    @property
    def replica_lag_bytes(self) -> int:
        """What the PostgreSQL replica that is most behind lacks of its primary's log, as of the last look."""
        return max((database.lag_bytes for database in self._postgres.values()), default=0)

    @property
    def unreplicated(self) -> int:
        """How many commands no replica of a Redis Cluster confirmed in time."""
        return sum(nodes.unreplicated for nodes in self._redis.values())

    def pools(self) -> Sequence[PoolState]:
        """Return how many connections there are to each server."""
        kept: list[Pooled] = [*self._redis.values(), *self._postgres.values()]
        return list(chain.from_iterable(each.pools() for each in kept))
