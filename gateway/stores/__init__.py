"""Where state lies. `base` holds the laws; each backend is a module of its own and is imported when it is asked for."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from gateway.stores.base import ORIGIN, Revision, RevocationBatch, RevocationRow, RevocationStore

if TYPE_CHECKING:
    from gateway.stores.relations import RelationStore

__all__ = [
    "ORIGIN",
    "Revision",
    "RevocationBatch",
    "RevocationRow",
    "RevocationStore",
    "open_relation_store",
    "open_store",
]

REVOCATIONS_FILE = "revocations.sqlite3"
RELATIONS_FILE = "relations.sqlite3"


def open_store(url: str, run_dir: Path, *, poll_ms: int = 200) -> RevocationStore:
    """Return the store that `url` names; nothing is connected yet.

    "" is the embedded default, a SQLite file in `run_dir`. "sqlite:PATH" is another file, relative to `run_dir`.
    "memory:" forgets with the process. "redis://", "rediss://" and "unix://" are shared by all gateways.
    Raises ValueError for anything else. Belongs to the event loop that first uses it.
    """
    scheme, _, rest = url.partition(":")
    if url == "" or (scheme == "sqlite" and rest):
        from gateway.stores.sqlite import SQLiteRevocationStore

        return SQLiteRevocationStore(run_dir / (rest or REVOCATIONS_FILE), poll_ms=poll_ms)
    if url == "memory:":
        from gateway.stores.memory import MemoryRevocationStore

        return MemoryRevocationStore()
    if url.startswith(("redis://", "rediss://", "unix://")):
        from gateway.stores.redis import RedisRevocationStore

        return RedisRevocationStore(url)
    raise ValueError(f"unknown kind of store `{scheme}`")


def open_relation_store(url: str, run_dir: Path, *, poll_ms: int = 50) -> RelationStore:
    """Return the store of relations that `url` names, as `open_store` does; also "postgresql://" and "postgres://"."""
    scheme, _, rest = url.partition(":")
    if url == "" or (scheme == "sqlite" and rest):
        from gateway.stores.relations_sqlite import SQLiteRelationStore

        return SQLiteRelationStore(run_dir / (rest or RELATIONS_FILE), poll_ms=poll_ms)
    if url == "memory:":
        from gateway.stores.relations_memory import MemoryRelationStore

        return MemoryRelationStore()
    if url.startswith(("redis://", "rediss://", "unix://")):
        from gateway.stores.relations_redis import RedisRelationStore

        return RedisRelationStore(url)
    if url.startswith(("postgresql://", "postgres://")):
        from gateway.stores.relations_postgres import PostgresRelationStore

        return PostgresRelationStore(url)
    raise ValueError(f"unknown kind of store `{scheme}`")
