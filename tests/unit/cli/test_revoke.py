"""`portcullis token revoke`: what the command line means, and that the store has it afterwards."""

from __future__ import annotations

import asyncio
import json
import time
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from gateway.cli.token import token as token_group
from gateway.stores import ORIGIN, RevocationRow
from gateway.stores.sqlite import SQLiteRevocationStore
from tests.real.gateway import ISSUER, issuer_toml, mint


@pytest.fixture
def config(tmp_path: Path) -> Path:
    path = tmp_path / "portcullis.toml"
    path.write_text(f'[server]\nrun_dir = "{tmp_path / "run"}"\n' + issuer_toml(tmp_path))
    return path


def revoke(config: Path, *arguments: str, stdin: str = "") -> Result:
    command = ["revoke", "-c", str(config), "--json", *arguments]
    return CliRunner().invoke(token_group, command, input=stdin)


def rows_of(config: Path) -> list[RevocationRow]:
    async def read() -> list[RevocationRow]:
        store = SQLiteRevocationStore(config.parent / "run" / "revocations.sqlite3", poll_ms=50)
        try:
            return list((await store.read_after(ORIGIN, 100)).rows)
        finally:
            await store.close()

    return asyncio.run(read())


def test_a_token_is_revoked_by_its_id_until_it_expires(config: Path) -> None:
    expires_s = int(time.time()) + 300
    result = revoke(config, "-", stdin=mint(jti="one", exp=expires_s))
    assert result.exit_code == 0, result.output
    assert rows_of(config) == [RevocationRow("jti", ISSUER.encode(), b"one", expires_s + 3600)]


def test_a_subject_is_revoked_for_tokens_issued_until_now(config: Path) -> None:
    before_s = int(time.time())
    result = revoke(config, "--sub", "alice", "--lifetime", "60")
    assert result.exit_code == 0, result.output
    [row] = rows_of(config)
    assert (row.kind, row.value) == ("sub", b"alice")
    assert before_s < row.issued_before_s <= int(time.time()) + 1
    assert row.until_s <= int(time.time()) + 60


def test_a_session_can_be_revoked_for_ever(config: Path) -> None:
    result = revoke(config, "--sid", "s1", "--iss", "https://other.test", "--also-later")
    assert result.exit_code == 0, result.output
    [row] = rows_of(config)
    assert (row.kind, row.issuer, row.issued_before_s) == ("sid", b"https://other.test", 0)


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        ([], "name one of"),
        (["--jti", "a", "--sub", "b"], "name one of"),
        (["not-a-token"], "no JWT"),
        ([mint()], "has no `jti`"),
    ],
)
def test_an_unclear_wish_changes_nothing(config: Path, arguments: list[str], problem: str) -> None:
    result = revoke(config, *arguments)
    assert result.exit_code == 1
    assert problem in json.loads(result.output)["error"]
    assert not (config.parent / "run" / "revocations.sqlite3").exists()


def test_a_store_in_memory_cannot_be_reached_from_outside(config: Path) -> None:
    config.write_text(config.read_text() + '[store]\nurl = "memory:"\n')
    result = revoke(config, "--sub", "alice")
    assert result.exit_code == 1
    assert "memory:" in json.loads(result.output)["error"]
