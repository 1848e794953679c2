"""`portcullis serve` before there is anything to serve: what is wrong with a config, and how every verb says it."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from gateway.cli import VERBS
from tests.conftest import ROOT


def portcullis(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "gateway", *arguments]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)


@pytest.fixture
def faulty(tmp_path: Path) -> Path:
    path = tmp_path / "portcullis.toml"
    path.write_text('[server]\nlistn = "127.0.0.1:0"\n')
    return path


def test_faults_go_to_standard_error_with_file_line_and_remedy(faulty: Path) -> None:
    finished = portcullis("serve", "-c", str(faulty))
    assert (finished.returncode, finished.stdout) == (2, "")
    assert f"{faulty}:2: server.listn:" in finished.stderr
    assert "listen" in finished.stderr


def test_faults_as_json_are_one_document(faulty: Path) -> None:
    finished = portcullis("serve", "--json", "-c", str(faulty))
    assert finished.returncode == 2
    document = json.loads(finished.stdout)
    assert [(fault["line"], fault["key"]) for fault in document["faults"]] == [(2, "server.listn")]


GROUPS = {
    "audit": ["show", "verify"],
    "bench": ["micro"],
    "keys": ["new", "list", "rotate"],
    "policy": ["check", "test", "explain", "fmt", "compile", "replay"],
    "relation": ["add", "remove", "list", "check"],
    "tables": ["show", "migrate"],
    "token": ["mint", "inspect", "verify", "revoke"],
    "user": ["add", "list", "disable", "enable", "passwd", "reset", "leaked"],
}
WAYS = [[verb, *([below] if below else [])] for verb in VERBS for below in GROUPS.get(verb, [""])]


@pytest.mark.parametrize("way", WAYS, ids=" ".join)
def test_every_verb_speaks_json(way: list[str]) -> None:
    assert "--json" in portcullis(*way, "--help").stdout
