"""Where state lies. `base` holds the laws; each backend is a module of its own and is imported when it is asked for."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from gateway.stores.base import ORIGIN, Revision, RevocationBatch, RevocationRow, RevocationStore
from gateway.stores.connections import Connections

if TYPE_CHECKING:
    from gateway.stores.attributes import AttributeSource
    from gateway.stores.audit_log import AuditLog
    from gateway.stores.decisions import DecisionStore
    from gateway.stores.deferred import DeferredWork
    from gateway.stores.directory import Directory, Encrypter
    from gateway.stores.grants import TokenStore
    from gateway.stores.records import RecordKind, RecordStore
    from gateway.stores.relations import RelationStore
    from gateway.stores.replication import ReplicationQueue
    from gateway.stores.rows import RowLayout, RowStore
    from gateway.stores.sessions import SessionStore
    from gateway.types import Clock, Secret

__all__ = [
    "ORIGIN",
    "Connections",
    "Revision",
    "RevocationBatch",
    "RevocationRow",
    "RevocationStore",
    "open_attribute_source",
    "open_audit_log",
    "open_decision_store",
    "open_deferred_work",
    "open_directory",
    "open_relation_store",
    "open_replication_queue",
    "open_session_store",
    "open_store",
    "open_token_store",
]

REVOCATIONS_FILE = "revocations.sqlite3"
RELATIONS_FILE = "relations.sqlite3"
AUDIT_FOLDER = "audit"
DEFERRED_FILE = "deferred.sqlite3"
DIRECTORY_FILE = "directory.sqlite3"
GRANTS_FILE = "grants.sqlite3"
SESSIONS_FILE = "sessions.sqlite3"
ENTITIES_FILE = "entities.sqlite3"


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
    from gateway.stores.relations_rows import LAYOUT, RowRelationStore

    return RowRelationStore(_open_rows(LAYOUT, url, run_dir / RELATIONS_FILE, poll_ms))


def open_attribute_source(
    url: str,
    run_dir: Path,
    *,
    name: str,
    secret: Secret | None = None,
    timeout_s: float | None = None,
    poll_ms: int = 50,
) -> AttributeSource:
    """Return the source of attributes that `url` names, as `open_relation_store` does: these are all FollowedSources.

    "https://", and "http://" to loopback, is a service that is asked with `secret` as a bearer token, for `timeout_s`
    at most; it is not followed. `name` is what the source is called.
    """
    if url.startswith(("https://", "http://")):
        from gateway.stores.attributes_http import CALL_TIMEOUT_S, HTTPAttributeSource

        return HTTPAttributeSource(url, name, secret=secret, timeout_s=timeout_s or CALL_TIMEOUT_S)
    if secret is not None or timeout_s is not None:
        raise ValueError("only a source over HTTP has a secret and a deadline of its own")
    from gateway.stores.attributes_rows import LAYOUT, RowAttributeSource

    return RowAttributeSource(_open_rows(LAYOUT, url, run_dir / ENTITIES_FILE, poll_ms), name)


def open_decision_store(url: str) -> DecisionStore:
    """Return the store of decisions that `url` names: "" for none, "memory:", "redis://", "rediss://" or "unix://".

    Nothing is connected yet. Raises ValueError for anything else. Belongs to the event loop that first uses it.
    """
    if url == "":
        from gateway.stores.decisions import NoDecisionStore

        return NoDecisionStore()
    if url == "memory:":
        from gateway.stores.decisions_memory import MemoryDecisionStore

        return MemoryDecisionStore()
    if url.startswith(("redis://", "rediss://", "unix://")):
        from gateway.stores.decisions_redis import RedisDecisionStore

        return RedisDecisionStore(url)
    raise ValueError(f"unknown kind of store `{url.partition(':')[0]}`")


def _open_rows(layout: RowLayout, url: str, file: Path, poll_ms: int) -> RowStore:
    """Return the rows that `url` names; `file` is the embedded default, and other files are relative to its folder."""
    scheme, _, rest = url.partition(":")
    if url == "" or (scheme == "sqlite" and rest):
        from gateway.stores.rows_sqlite import SQLiteRowStore

        return SQLiteRowStore(layout, file.parent / rest if rest else file, poll_ms=poll_ms)
    if url == "memory:":
        from gateway.stores.rows_memory import MemoryRowStore

        return MemoryRowStore(layout)
    if url.startswith(("redis://", "rediss://", "unix://")):
        from gateway.stores.rows_redis import RedisRowStore

        return RedisRowStore(layout, url)
    if url.startswith(("postgresql://", "postgres://")):
        from gateway.stores.rows_postgres import PostgresRowStore

        return PostgresRowStore(layout, url)
    raise ValueError(f"unknown kind of store `{scheme}`")


def open_session_store(
    url: str, run_dir: Path, clock: Clock, *, poll_ms: int = 50, connections: Connections | None = None
) -> SessionStore:
    """Return the store of sessions that `url` names; nothing is connected yet. Belongs to one event loop.

    "" is the embedded default, a SQLite file in `run_dir`; "sqlite:PATH" another, relative to it. "memory:" forgets
    with the process. "redis://", "rediss://" and "unix://" are a server, with several `host:port`, comma between, a
    cluster. Raises ValueError for anything else.
    """
    from gateway.stores.sessions_records import KIND, RecordSessionStore

    return RecordSessionStore(_open_records(KIND, url, run_dir / SESSIONS_FILE, poll_ms, connections), clock)


def open_token_store(
    url: str, run_dir: Path, clock: Clock, *, poll_ms: int = 50, connections: Connections | None = None
) -> TokenStore:
    """Return the store of clients, grants and refresh tokens that `url` names, as `open_session_store` does.

    Also "postgresql://" and "postgres://".
    """
    from gateway.stores.grants_records import KIND, RecordTokenStore

    return RecordTokenStore(_open_records(KIND, url, run_dir / GRANTS_FILE, poll_ms, connections), clock)


def open_audit_log(
    url: str, run_dir: Path, chain: str, key: Secret | None = None, *, connections: Connections | None = None
) -> AuditLog:
    """Return the audit log that `url` names, to write its chain `chain` and to read all; nothing is opened yet.

    "" is the embedded default, files below `run_dir`; "file:PATH" another folder, relative to it. "redis://",
    "rediss://" and "unix://" are streams, "kafka://HOST/TOPIC" and "kafkas://" a topic. With `key` the hashes are
    HMACs. Raises ValueError for anything else.
    """
    scheme, _, rest = url.partition(":")
    if url == "" or (scheme == "file" and rest):
        from gateway.stores.audit_log_files import FileAuditLog

        return FileAuditLog(run_dir / (rest or AUDIT_FOLDER), chain, key)
    if url.startswith(("redis://", "rediss://", "unix://")):
        from gateway.stores.audit_log_redis import RedisAuditLog

        return RedisAuditLog((connections or Connections()).redis(url), chain, key)
    if scheme in ("kafka", "kafkas"):
        from gateway.stores.audit_log_kafka import KafkaAuditLog

        return KafkaAuditLog(url, chain, key)
    raise ValueError(f"unknown kind of store `{scheme}`")


def open_deferred_work(
    url: str, run_dir: Path, clock: Clock, *, connections: Connections | None = None
) -> DeferredWork:
    """Return the store of deferred work that `url` names; nothing is connected yet. Belongs to one event loop.

    "" is the embedded default, a SQLite file in `run_dir`; "sqlite:PATH" another, relative to it. "redis://",
    "rediss://" and "unix://" are shared by all gateways. Raises ValueError for anything else.
    """
    scheme, _, rest = url.partition(":")
    if url == "" or (scheme == "sqlite" and rest):
        from gateway.stores.deferred_sqlite import SQLiteDeferredWork

        return SQLiteDeferredWork(run_dir / (rest or DEFERRED_FILE), clock)
    if url.startswith(("redis://", "rediss://", "unix://")):
        from gateway.stores.deferred_redis import RedisDeferredWork

        return RedisDeferredWork((connections or Connections()).redis(url), clock)
    raise ValueError(f"unknown kind of store `{scheme}`")


def open_replication_queue(
    url: str, topic: str, clock: Clock, *, connections: Connections | None = None
) -> ReplicationQueue:
    """Return the queue between regions that `url` names; nothing is opened yet. Belongs to one event loop.

    "memory:" is one process alone. "redis://", "rediss://" and "unix://" hold a stream of the name `topic`, "kafka://"
    and "kafkas://" name their topic themselves. Raises ValueError for anything else.
    """
    scheme = url.partition(":")[0]
    if url == "memory:":
        from gateway.stores.replication_memory import MemoryReplicationQueue

        return MemoryReplicationQueue(clock)
    if url.startswith(("redis://", "rediss://", "unix://")):
        from gateway.stores.replication_redis import RedisReplicationQueue

        return RedisReplicationQueue((connections or Connections()).redis(url), topic, clock)
    if scheme in ("kafka", "kafkas"):
        from gateway.stores.replication_kafka import KafkaReplicationQueue

        return KafkaReplicationQueue(url, clock)
    raise ValueError(f"unknown kind of store `{scheme}`")


def open_directory(
    url: str, run_dir: Path, encrypter: Encrypter, *, connections: Connections | None = None
) -> Directory:
    """Return the directory that `url` names; nothing is connected yet. Belongs to one event loop.

    "" is the embedded default, a SQLite file in `run_dir`; "sqlite:PATH" another, relative to it. "postgresql://" and
    "postgres://" name a server, with several hosts, comma between, a primary and its replicas, in any order.
    """
    from gateway.stores.directory_sql import SQLDirectory

    return SQLDirectory((connections or Connections()).database(url, run_dir / DIRECTORY_FILE), encrypter)


def _open_records(kind: RecordKind, url: str, file: Path, poll_ms: int, connections: Connections | None) -> RecordStore:
    """Return the records that `url` names, in a database or elsewhere. Raises ValueError for anything else."""
    if url == "memory:":
        from gateway.stores.records_memory import MemoryRecordStore

        return MemoryRecordStore(kind)
    connections = connections or Connections()
    if url.startswith(("redis://", "rediss://", "unix://")):
        from gateway.stores.records_redis import RedisRecordStore

        return RedisRecordStore(kind, connections.redis(url))
    from gateway.stores.records_sql import SQLRecordStore

    return SQLRecordStore(kind, connections.database(url, file), poll_ms=poll_ms)
