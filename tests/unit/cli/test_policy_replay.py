"""`portcullis policy replay`, and `policy explain` of logged decisions."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from gateway.policy.folder import read_folder
from tests.unit.cli.conftest import Run
from tests.unit.policy.logged_lines import BLOCKED, POLICIES, admin, line

SCHEMA = """
entity Role;
entity User in [Role] = { level?: Long };
entity Order = { owner: User };
action read appliesTo { principal: User, resource: Order, context: { tenant?: String } };
"""
ENTITIES = '[{"uid": {"type": "Order", "id": "1"}, "attrs": {"owner": {"type": "User", "id": "alice"}}, "parents": []}]'
OPTIONS = ("--entities", "entities.json")

RunJson = Callable[..., Any]


@pytest.fixture(autouse=True)
def world(folder: Path) -> Path:
    """Policies that decided, others that decide now, and a log."""
    for name, text in (("policies", POLICIES), ("next", POLICIES.replace("admin", "root") + BLOCKED)):
        (folder / name).mkdir()
        (folder / name / "p.cedar").write_text(text)
    (folder / "policies" / "s.cedarschema").write_text(SCHEMA)
    (folder / "entities.json").write_text(ENTITIES)
    lines = [
        line(id="id-1"),
        line(id="id-2", context={"tenant": "x"}),
        line("bob", "deny", id="id-3"),
        line("carol", id="id-4", given=admin(), policies=["admins"]),
    ]
    (folder / "decisions.log").write_bytes(b"".join(lines))
    return folder


def test_the_same_policies_differ_in_nothing(run: Run, run_json: RunJson) -> None:
    told = run("policy", "replay", "decisions.log", "--policies", "policies", *OPTIONS).output
    assert "✓ 0 of 4 decisions differ" in told
    document = run_json("policy", "replay", "decisions.log", "--policies", "policies", *OPTIONS)
    assert (document["ok"], document["same"], document["differences"]) == (True, 4, [])


def test_differences_are_a_table_and_a_document_and_exit_status_1(run: Run, run_json: RunJson) -> None:
    arguments = ("policy", "replay", "decisions.log", "--policies", "next", "--schema", "policies", *OPTIONS)
    told = run(*arguments, status=1).output
    rows = [row.split() for row in told.splitlines()]
    assert rows[1][:7] == ['User::"alice"', "/orders/{id}", 'Action::"read"', "allow", "→", "deny", "1"]
    assert rows[1][-2:] == ["id-2", "tenant"]
    assert rows[2][0] == 'User::"carol"' and told.count("no longer admins") == 1
    assert "2 of 4 decisions differ: 0 would be allowed, 2 denied" in told
    document = run_json(*arguments, status=1)
    assert (document["different"], document["denied_now"], document["digests_then"]) == (2, 2, ["abc"])
    assert document["differences"][0]["examples"][0] == {
        "line": 2,
        "id": "id-2",
        "resource": 'Order::"1"',
        "policies_then": ["own"],
        "policies_now": ["tenant"],
        "errors_now": [],
        "faults_now": [],
    }
    assert "1 more kind of difference" in run(*arguments, "--limit", "1", status=1).output


def test_damaged_lines_are_named_and_fail(folder: Path, run: Run, run_json: RunJson) -> None:
    with (folder / "decisions.log").open("ab") as log:
        log.write(b'{"id": \n' + line(redacted=["context.a"]))
    arguments = ("policy", "replay", "decisions.log", "--policies", "policies", *OPTIONS)
    told = run(*arguments, status=1).output
    assert "✗ line 5: no JSON" in told
    assert "1 decision not made again: values of the line were blanked" in told
    document = run_json(*arguments, status=1)
    assert (document["damaged"], document["damaged_lines"][0]["line"]) == (1, 5)
    assert document["not_made_again"] == {"redacted": 1}


def test_the_config_says_what_the_options_do_not(folder: Path, run: Run, run_json: RunJson) -> None:
    (folder / "portcullis.toml").write_text('[policy]\npath = "policies"\nentities = "entities.json"\n')
    assert run_json("policy", "replay", "decisions.log")["same"] == 4
    (folder / "next" / "p.cedar").write_text("permit (principal, action, resource) when { principal.lvl > 1 };")
    # The schema of the config's policies is that of others, which have none of their own.
    assert run_json("policy", "replay", "decisions.log", "--policies", "next", status=1)["same"] == 1


def test_without_config_and_option_the_policies_are_asked_for(run: Run) -> None:
    assert "say which policies decide" in run("policy", "replay", "decisions.log", status=2).output


def test_a_logged_decision_is_explained_by_the_policies_as_they_are(folder: Path, run: Run, run_json: RunJson) -> None:
    arguments = ("policy", "explain", "next", "--log", "decisions.log", *OPTIONS)
    told = run(*arguments, "--id", "id-2").output
    assert "✓ then allow: by own" in told
    assert "policies, schema or entities are others now (digest abc then" in told
    assert "✗ deny: by tenant" in told
    document = run_json(*arguments, "--id", "id-4")
    assert (document["decision"], document["logged"]["decision"], document["logged"]["same_policies"]) == (
        "deny",
        "allow",
        False,
    )
    # What claims defined then is defined now.
    assert run_json("policy", "explain", "--log", "decisions.log", "--id", "id-4", *OPTIONS)["reasons"] == ["admins"]
    single = folder / "one.log"
    single.write_bytes(line(id="id-9"))
    for decision in ("one.log", line(id="id-9").decode().strip()):
        assert run_json("policy", "explain", "--decision", decision, *OPTIONS)["logged"]["id"] == "id-9"


def test_the_digest_is_the_same_wherever_the_policies_lie(folder: Path, run_json: RunJson, run: Run) -> None:
    digest = read_folder((folder / "policies").resolve(), entities=(folder / "entities.json").resolve()).digest
    text = line(digest=digest).decode()
    assert run_json("policy", "explain", "--decision", text, *OPTIONS)["logged"]["same_policies"]
    (folder / "policies").rename(folder / "moved")
    assert run_json("policy", "explain", "moved", "--decision", text, *OPTIONS)["logged"]["same_policies"]
    other = line(digest=digest, decision="deny", policies=[]).decode()
    assert "the policies are the same" in run("policy", "explain", "moved", "--decision", other, *OPTIONS).output


def test_the_config_gives_schema_and_entities_of_its_own_policies(folder: Path, run_json: RunJson) -> None:
    (folder / "portcullis.toml").write_text('[policy]\npath = "policies"\nentities = "entities.json"\n')
    assert run_json("policy", "explain", "--log", "decisions.log", "--id", "id-1")["reasons"] == ["own"]


def test_entities_of_sources_are_known_to_be_away(folder: Path, run: Run, run_json: RunJson) -> None:
    (folder / "portcullis.toml").write_text(
        '[policy]\npath = "policies"\n[[policy.sources]]\nname = "orders"\ntypes = ["Order"]\nurl = "sqlite:o.db"\n'
    )
    document = run_json("policy", "replay", "decisions.log")
    assert (document["different"], document["not_made_again"]) == (0, {"away": 4})
    told = run("policy", "explain", "--log", "decisions.log", "--id", "id-1").output
    assert "when [entity_not_resident]: resource.owner" in told
    assert '✗ deny: entity_not_resident (Order::"1")' in told


def test_a_forbid_that_cannot_be_evaluated_is_told_to_deny(folder: Path, run: Run) -> None:
    (folder / "next" / "p.cedar").write_text(
        POLICIES + '@id("b") forbid (principal, action, resource) when { resource.x };'
    )
    arguments = ("--log", "decisions.log", "--id", "id-1", "--schema", "policies", *OPTIONS)
    told = run("policy", "explain", "next", *arguments).output
    assert "✗ deny: b cannot be evaluated, and might forbid it" in told


@pytest.mark.parametrize(
    ("arguments", "status", "problem"),
    [
        ((), 2, "say --principal, --action and --resource, or name a logged decision"),
        (("--principal", 'User::"a"'), 2, "say --principal, --action and --resource"),
        (("--log", "decisions.log"), 2, "by --log and --id"),
        (("--id", "id-1"), 2, "by --log and --id"),
        (("--decision", "x", "--log", "decisions.log", "--id", "id-1"), 2, "by --log and --id"),
        (("--log", "decisions.log", "--id", "id-1", "--principal", 'User::"a"'), 2, "or name a logged decision"),
        (("--log", "decisions.log", "--id", "id-7"), 1, "has no decision `id-7`"),
        (("--decision", "decisions.log"), 1, "has 4 lines"),
        (("--decision", "missing.log"), 1, "no such file"),
        (("--decision", '{"id": 1}'), 1, "no logged decision"),
        (("--decision", json.dumps({"redacted": ["a"]})), 1, "values of the line were blanked"),
    ],
)
def test_what_names_no_decision_is_told(arguments: tuple[str, ...], status: int, problem: str, run: Run) -> None:
    assert problem in run("policy", "explain", *arguments, status=status).output


def test_a_log_may_come_from_another_program(folder: Path, run: Run) -> None:
    text = (folder / "decisions.log").read_text()
    assert (
        "0 of 4 decisions differ" in run("policy", "replay", "-", "--policies", "policies", *OPTIONS, stdin=text).output
    )
    assert "then allow" in run("policy", "explain", "--decision", "-", *OPTIONS, stdin=line().decode()).output


def test_a_line_beyond_all_bounds_is_damaged_and_the_rest_goes_on(
    folder: Path, run_json: RunJson, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gateway.policy.logged.LINE_BYTES_MAX", 4096)
    with (folder / "decisions.log").open("ab") as log:
        log.write(line(context={"tenant": "y" * 6000}) + line())
    document = run_json("policy", "replay", "decisions.log", "--policies", "policies", *OPTIONS, status=1)
    assert (document["same"], document["damaged"]) == (5, 2)


def test_people_at_a_terminal_see_how_far_it_is(folder: Path, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    (folder / "decisions.log").write_bytes(line() * 20_000)
    monkeypatch.setattr("gateway.cli.policy.replay.PROGRESS_S", 0.0)
    with monkeypatch.context() as patch:
        patch.setattr("gateway.cli.policy.replay._is_watched", lambda: True)
        told = run("policy", "replay", "decisions.log", "--policies", "policies", *OPTIONS).output
    assert "decisions.log: 10,000 lines" in told
    assert told.count("\r") == 3  # the last one wipes it out
    assert "a second, " not in run("policy", "replay", "decisions.log", "--policies", "policies", *OPTIONS).output
