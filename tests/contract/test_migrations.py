"""The history of the tables, forward and back, on both databases."""

from __future__ import annotations

import asyncio
import concurrent.futures
import itertools
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from gateway.errors import StoreUnavailable
from gateway.stores import open_directory
from gateway.stores.directory import Tenant
from gateway.stores.migrations import BASE, HEAD, HISTORY, VERSION_TABLE, _config, _engine, current, downgrade, upgrade
from tests.contract.test_directory import Rot
from tests.real.postgres import RealPostgres
from tests.real.postgres_replicas import OPTIONS


@pytest.fixture(scope="module")
def postgres(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RealPostgres]:
    server = RealPostgres(tmp_path_factory.mktemp("postgres"), options=OPTIONS)
    yield server
    server.stop()


@pytest.fixture(params=["sqlite", "postgres"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "sqlite":
        return f"sqlite:{tmp_path / 'directory.sqlite3'}"
    server: RealPostgres = request.getfixturevalue("postgres")
    server.forget()
    return server.url


def tables(url: str) -> set[str]:
    from sqlalchemy import inspect

    with _engine(url) as engine:
        return set(inspect(engine).get_table_names()) - {VERSION_TABLE}


def test_the_history_is_that_of_the_files() -> None:
    from alembic.script import ScriptDirectory

    scripts = ScriptDirectory.from_config(_config())
    assert tuple(script.revision for script in reversed(list(scripts.walk_revisions()))) == HISTORY
    assert scripts.get_current_head() == HEAD


def test_forward_makes_what_the_code_describes(url: str) -> None:
    from alembic.autogenerate import compare_metadata
    from alembic.migration import MigrationContext

    from gateway.stores.schema import METADATA

    assert current(url) == BASE
    assert upgrade(url) == BASE
    assert current(url) == HEAD
    assert upgrade(url) == HEAD, "once more changes nothing"
    assert tables(url) == set(METADATA.tables)
    with _engine(url) as engine, engine.connect() as connection:
        context = MigrationContext.configure(
            connection, opts={"version_table": VERSION_TABLE, "compare_type": True, "compare_server_default": True}
        )
        differences: list[Any] = compare_metadata(context, METADATA)
    assert differences == []


def test_back_and_forward_step_by_step(url: str) -> None:
    seen = []
    for revision in HISTORY:
        upgrade(url, revision)
        seen.append(tables(url))
    assert all(before < after for before, after in itertools.pairwise(seen))
    for revision, expected in zip(reversed(HISTORY[:-1]), reversed(seen[:-1]), strict=True):
        downgrade(url, revision)
        assert (current(url), tables(url)) == (revision, expected)
    downgrade(url, BASE)
    assert (current(url), tables(url)) == (BASE, set())
    upgrade(url)
    assert tables(url) == seen[-1]


def test_what_an_older_migration_made_survives_one_step_forward(url: str) -> None:
    upgrade(url, HISTORY[0])
    with _engine(url) as engine, engine.begin() as connection:
        connection.exec_driver_sql("INSERT INTO portcullis_tenants VALUES ('acme', 'Acme', '1', '{}')")
    upgrade(url)
    downgrade(url, HISTORY[0])
    with _engine(url) as engine, engine.begin() as connection:
        assert connection.exec_driver_sql("SELECT id FROM portcullis_tenants").fetchall() == [("acme",)]


def test_many_who_migrate_at_once_do_it_once(url: str) -> None:
    with concurrent.futures.ThreadPoolExecutor(4) as threads:
        before = list(threads.map(lambda _: upgrade(url), range(4)))
    assert sorted(before) == sorted([BASE, *[HEAD] * 3])


def test_a_revision_that_nobody_knows_is_refused(url: str) -> None:
    with pytest.raises(StoreUnavailable, match="cannot be migrated"):
        upgrade(url, "9999")
    assert current(url) == BASE


def test_of_several_servers_the_one_that_can_be_written_to_is_migrated(postgres: RealPostgres) -> None:
    postgres.forget()
    several = postgres.url.replace("@", "@127.0.0.1:1,")
    assert upgrade(several) == BASE
    assert current(postgres.url) == current(several.replace("postgresql", "postgres")) == HEAD


async def test_an_old_file_is_brought_forward_when_it_is_opened(url: str, tmp_path: Path) -> None:
    await asyncio.to_thread(upgrade, url, HISTORY[0])
    if url.startswith("sqlite:"):
        Path(url.removeprefix("sqlite:")).chmod(0o600)
    directory = open_directory(url, tmp_path, Rot())
    try:
        await directory.put_tenant(Tenant("acme", "Acme"))
        assert await directory.get_tenant("acme") == Tenant("acme", "Acme")
    finally:
        await directory.close()
    assert await asyncio.to_thread(current, url) == HEAD
