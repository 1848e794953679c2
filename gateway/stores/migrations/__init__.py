"""The history of the tables, forward and back, run by alembic. Whoever runs it waits for nobody: one at a time.

A migration and the note that it was made are one transaction, on both databases: it is made whole or not at all, also
by a process that is killed in its middle.
"""

from __future__ import annotations

import logging
import sqlite3
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeVar

from gateway.errors import StoreUnavailable

if TYPE_CHECKING:
    from alembic.config import Config
    from sqlalchemy import Connection, Engine

T = TypeVar("T")

HISTORY: Final = ("0001", "0002", "0003")  # all of them, oldest first; a test compares them with the files
HEAD: Final = HISTORY[-1]  # what the code in this package works with
BASE: Final = "base"  # before the first: no tables
VERSION_TABLE: Final = "portcullis_schema"
LOCK: Final = 7_310_593_858_137_419  # PostgreSQL's advisory lock for this: a number of our own
CONNECT_TIMEOUT_S: Final = 5
BUSY_TIMEOUT_S: Final = 30.0  # for another process's migration

_TURN: Final = threading.Lock()  # alembic keeps what it works at in its module: two threads get each other's, or none

logger = logging.getLogger(__name__)


def current(url: str) -> str:
    """Return the revision of the tables, BASE where there are none. Raises StoreUnavailable.

    `url`: "sqlite:PATH", "postgresql://" or "postgres://", the latter also with several hosts.
    """
    return _run(url, lambda connection: _version(connection) or BASE)


def upgrade(url: str, revision: str = HEAD) -> str:
    """Bring the tables forward to `revision`; return the one at which they were. Raises StoreUnavailable."""
    return _run(url, lambda connection: _migrate(connection, revision, forward=True))


def downgrade(url: str, revision: str) -> str:
    """Bring the tables back to `revision`; what only newer ones can hold is lost. Return where they were."""
    return _run(url, lambda connection: _migrate(connection, revision, forward=False))


def is_old(version: str | None) -> bool:
    """Tell whether tables of this version are to be brought forward.

    Those of a version that is not known here were made by a newer gateway: while an upgrade rolls on, both work, for
    a migration only adds what the former version does not need.
    """
    return version is None or version in HISTORY[:-1]


def _migrate(connection: Connection, revision: str, *, forward: bool) -> str:
    from alembic import command

    config = _config()
    config.attributes["connection"] = connection
    before = _version(connection) or BASE
    with _TURN:
        (command.upgrade if forward else command.downgrade)(config, revision)
    after = _version(connection) or BASE
    if after != before:
        logger.info("the tables were brought from revision %s to %s", before, after)
    return before


def _version(connection: Connection) -> str | None:
    from alembic.migration import MigrationContext

    context = MigrationContext.configure(connection, opts={"version_table": VERSION_TABLE})
    return context.get_current_revision()


def _config() -> Config:
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent).replace("%", "%%"))
    return config


def _run(url: str, work: Callable[[Connection], T]) -> T:
    """Run `work` in one transaction, while nobody else migrates."""
    from alembic.util import CommandError
    from sqlalchemy.exc import SQLAlchemyError

    try:
        with _engine(url) as engine, engine.begin() as connection:
            if connection.dialect.name == "postgresql":
                connection.exec_driver_sql(f"SELECT pg_advisory_xact_lock({LOCK})")
            return work(connection)
    except (SQLAlchemyError, CommandError, ImportError, OSError, sqlite3.Error) as error:
        if url.startswith("sqlite:"):
            raise StoreUnavailable(f"`{url}` cannot be migrated: {error}") from error
        # The driver's text may hold the connection's parameters.
        cause = getattr(error, "orig", None) or error
        code = getattr(cause, "sqlstate", None)
        reason = f"{type(cause).__name__} {code}" if code else type(cause).__name__
        raise StoreUnavailable(f"the tables in PostgreSQL cannot be migrated: {reason}") from error


@contextmanager
def _engine(url: str) -> Iterator[Engine]:
    from sqlalchemy import NullPool, create_engine, event

    if url.startswith("sqlite:"):
        path = url.removeprefix("sqlite:")
        engine = create_engine(
            "sqlite://",
            creator=lambda: sqlite3.connect(path, timeout=BUSY_TIMEOUT_S, isolation_level=None),
            poolclass=NullPool,
        )
        # The driver's own transactions would end with the first CREATE TABLE; these hold the whole migration.
        event.listen(engine, "begin", lambda connection: connection.exec_driver_sql("BEGIN IMMEDIATE"))
    else:
        import psycopg

        # Of several servers the one that can be written to.
        options: dict[str, Any] = {"connect_timeout": CONNECT_TIMEOUT_S, "target_session_attrs": "read-write"}
        engine = create_engine(
            "postgresql+psycopg://", creator=lambda: psycopg.connect(url, **options), poolclass=NullPool
        )
    try:
        yield engine
    finally:
        engine.dispose()
