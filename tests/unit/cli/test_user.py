"""`portcullis user`: what operators do is in the directory, and in the audit log."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from gateway.flows.breached import LeakFilter
from tests.unit.cli.conftest import Run

PASSWORD = "correct horse battery staple\n"
CONFIG = """
[server]
run_dir = "run"

[sessions]
url = "embedded"

[directory]
url = "embedded"

[login]
enabled = true
url = "https://auth.example.com/"
leaked_passwords = "leaked.bin"
argon2_memory_kib = 8192
argon2_passes = 1
"""

RunJSON = Callable[..., Any]


@pytest.fixture
def config(folder: Path, run: Run) -> Path:
    (folder / "leaks.txt").write_text("password12345\n")
    run("user", "leaked", "leaks.txt", "leaked.bin")
    path = folder / "portcullis.toml"
    path.write_text(CONFIG)
    return path


def told(run: Run) -> list[tuple[str, str, str]]:
    """Give what the audit log holds of the operators."""
    lines = run("audit", "show", "--json").stdout.splitlines()
    events = [json.loads(line) for line in lines if line]
    return [(each["action"], each.get("actor", ""), each.get("target", "")) for each in events]


@pytest.mark.usefixtures("config")
def test_a_user_is_added_listed_disabled_and_enabled(run: Run, run_json: RunJSON) -> None:
    added = run_json("user", "add", "alice", "--email", "alice@example.com", stdin=PASSWORD)["user"]
    assert added["id"].startswith("usr_")
    assert (added["active"], added["emails"]) == (True, ["alice@example.com"])
    run("user", "add", "bob", "--no-password")
    assert [each["user_name"] for each in run_json("user", "list", "--name", "li")["users"]] == ["alice"]
    assert {each["user_name"] for each in run_json("user", "list")["users"]} == {"alice", "bob"}
    assert run_json("user", "disable", "ALICE")["user"]["active"] is False
    assert [each["user_name"] for each in run_json("user", "list", "--disabled")["users"]] == ["alice"]
    assert run_json("user", "enable", added["id"])["user"]["active"] is True
    assert "alice@example.com" in run("user", "list").stdout
    acts = told(run)
    assert ("admin.user.create", "operator", added["id"]) in acts
    assert ("admin.user.deactivate", "operator", added["id"]) in acts
    assert ("admin.user.reactivate", "operator", added["id"]) in acts
    run("audit", "verify")


@pytest.mark.usefixtures("config")
def test_a_name_is_there_once_in_a_tenant(run: Run, run_json: RunJSON) -> None:
    run("user", "add", "alice", stdin=PASSWORD)
    refused = run_json("user", "add", "Alice", stdin=PASSWORD, status=1)
    assert refused["error"] == "there is a user `Alice` in tenant `` already"
    run("user", "add", "alice", "--tenant", "other", stdin=PASSWORD)
    assert len(run_json("user", "list", "--tenant", "other")["users"]) == 1


@pytest.mark.usefixtures("config")
@pytest.mark.parametrize(
    ("password", "problem"), [("brief pw\n", "too short"), ("password12345\n", "leaked"), ("alice alice alice\n", "")]
)
def test_a_password_is_held_to_the_rules_and_no_user_is_left_behind(
    run: Run, run_json: RunJSON, password: str, problem: str
) -> None:
    if not problem:
        run("user", "add", "bob", stdin=password)
        return
    refused = run_json("user", "add", "alice", stdin=password, status=1)
    assert problem in refused["error"]
    assert password.strip() not in refused["error"]
    assert run_json("user", "list")["users"] == []


@pytest.mark.usefixtures("config")
def test_a_password_is_set_and_a_link_is_printed(run: Run, run_json: RunJSON) -> None:
    run("user", "add", "alice", "--no-password")
    assert run_json("user", "passwd", "alice", stdin="seven wet otters in a boat\n")["sessions_ended"] == 0
    link = run("user", "reset", "alice").stdout.strip()
    assert link.startswith("https://auth.example.com/login/reset?token=")
    assert run("user", "reset", "alice").stdout.strip() != link
    actions = [action for action, _, _ in told(run)]
    assert actions.count("password.reset_link") == 2
    assert "password.change" in actions


@pytest.mark.usefixtures("config")
@pytest.mark.parametrize("verb", ["disable", "enable", "reset", "passwd"])
def test_who_is_not_there_is_said_so(run_json: RunJSON, verb: str) -> None:
    refused = run_json("user", verb, "nobody", stdin=PASSWORD, status=1)
    assert refused["error"] == "there is no user `nobody` in tenant ``"


@pytest.mark.usefixtures("config")
def test_no_password_at_all_is_wrong_usage(run_json: RunJSON) -> None:
    assert run_json("user", "add", "alice", stdin="\n", status=2)["error"] == "no password was given"


def test_without_a_directory_the_remedy_is_told(folder: Path, run_json: RunJSON) -> None:
    (folder / "portcullis.toml").write_text('[server]\nrun_dir = "run"\n')
    assert "[directory]" in run_json("user", "list", status=1)["error"]


def test_a_list_of_leaked_passwords_is_made_of_what_has_leaked_often(folder: Path, run_json: RunJSON) -> None:
    digest = hashlib.sha1(b"hunter2").hexdigest().upper()
    rare = hashlib.sha1(b"rarely seen").hexdigest().upper()
    (folder / "hashes.txt").write_text(f"{digest}:37\n{rare}:1\n")
    made = run_json("user", "leaked", "hashes.txt", "leaked.bin", "--seen", "10")
    assert made["passwords"] == 1
    leaked = LeakFilter(folder / "leaked.bin")
    assert "hunter2" in leaked
    assert "rarely seen" not in leaked


def test_an_empty_list_is_refused(folder: Path, run_json: RunJSON) -> None:
    (folder / "none.txt").write_text("\n")
    assert "1 to" in run_json("user", "leaked", "none.txt", "leaked.bin", status=1)["error"]
    assert not (folder / "leaked.bin").exists()
