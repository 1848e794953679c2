"""`portcullis tables show` and `migrate`."""

from __future__ import annotations

import json
import sqlite3
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from gateway.cli import portcullis
from gateway.cli.tables.databases import _shown
from gateway.stores.migrations import BASE, HEAD, HISTORY


@pytest.fixture
def config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("OAUTH_KEY", "k" * 64)
    path = tmp_path / "portcullis.toml"
    path.write_text(
        f'[server]\nrun_dir = "{tmp_path / "run"}"\n'
        '[directory]\nurl = "embedded"\n[sessions]\nurl = "sqlite:people.sqlite3"\n'
        '[oauth]\nissuer = "https://auth.example.com"\nencryption_key = "env:OAUTH_KEY"\n'
    )
    return path


def run(config: Path, *words: str) -> Result:
    return CliRunner().invoke(portcullis, ["tables", *words, "-c", str(config)])


def revisions(config: Path) -> dict[str, str]:
    result = run(config, "show", "--json")
    assert result.exit_code == 0, result.output
    return {",".join(each["holds"]): each["revision"] for each in json.loads(result.stdout)["databases"]}


def test_tables_are_made_shown_and_brought_back(config: Path, tmp_path: Path) -> None:
    assert revisions(config) == dict.fromkeys(("users", "sessions", "clients and tokens"), BASE)
    assert not (tmp_path / "run" / "directory.sqlite3").exists(), "to look makes nothing"
    assert run(config, "migrate").exit_code == 0
    assert set(revisions(config).values()) == {HEAD}
    assert f"this version works with {HEAD}" in run(config, "show").stdout
    for file in ("run/directory.sqlite3", "people.sqlite3", "run/grants.sqlite3"):
        assert (tmp_path / file).stat().st_mode & 0o777 == 0o600
    refused = run(config, "migrate", "--to", HISTORY[0])
    assert refused.exit_code == 1
    assert "--lose-data" in refused.stderr
    assert set(revisions(config).values()) == {HEAD}
    back = run(config, "migrate", "--to", HISTORY[0], "--lose-data", "--json")
    assert {each["revision_before"] for each in json.loads(back.stdout)["databases"]} == {HEAD}
    assert set(revisions(config).values()) == {HISTORY[0]}
    assert "is of" in run(config, "migrate", "--to", HISTORY[0]).stdout


def test_what_nobody_knows_is_refused(config: Path, tmp_path: Path) -> None:
    unknown = run(config, "migrate", "--to", "9999")
    assert (unknown.exit_code, "there is no revision `9999`" in unknown.stderr) == (1, True)
    run(config, "migrate")
    with sqlite3.connect(tmp_path / "run" / "directory.sqlite3") as db:
        db.execute("UPDATE portcullis_schema SET version_num = '7777'")
    db.close()
    newer = run(config, "migrate")
    assert newer.exit_code == 1
    assert "a newer gateway made" in newer.stderr


def test_a_config_without_tables_says_so(tmp_path: Path) -> None:
    path = tmp_path / "portcullis.toml"
    path.write_text(f'[server]\nrun_dir = "{tmp_path / "run"}"\nworkers = 1\n[sessions]\nurl = "memory:"\n')
    assert "no store of this config has tables" in run(path, "show").stdout


def test_no_password_is_shown() -> None:
    assert _shown("postgresql://user:secret@one:5,two/users?sslmode=require") == "postgresql://one:5,two/users"
