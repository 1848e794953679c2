"""What the tests of the verbs share: running one, in a folder of its own."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from gateway.cli import portcullis
from gateway.tokens.key_folder import KeyFolder
from gateway.tokens.signing import new_key

Run = Callable[..., Result]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working folder of the verb."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def run(folder: Path) -> Run:
    """Run a verb in the folder, with its status checked."""

    def running(*arguments: str, status: int = 0, stdin: str | None = None) -> Result:
        result = CliRunner().invoke(portcullis, arguments, input=stdin, catch_exceptions=False)
        assert result.exit_code == status, result.output
        return result

    return running


@pytest.fixture
def run_json(run: Run) -> Callable[..., Any]:
    """Run a verb with `--json`; give what it printed."""

    def running(*arguments: str, status: int = 0, stdin: str | None = None) -> Any:
        return json.loads(run(*arguments, "--json", status=status, stdin=stdin).stdout)

    return running


@pytest.fixture
def issuer_config(folder: Path) -> Path:
    """A config whose issuer's key lies in the folder `keys`."""
    KeyFolder(folder / "keys").add(new_key("ES256"), now_s=1)
    path = folder / "portcullis.toml"
    path.write_text(
        '[[issuers]]\nissuer = "https://idp.example.com"\naudiences = ["api", "other"]\nalgorithms = ["ES256"]\n'
        'jwks_file = "keys/jwks.json"\n[[routes]]\npath = "/{*rest}"\n'
    )
    return path
