"""`portcullis policy`: the verbs over a folder of policies, with their answers for people and for programs."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.unit.cli.conftest import Run

SCHEMA = """
entity Role;
entity User in [Role] = { department: String, level: Long };
entity Report = { department: String };
action view, edit appliesTo { principal: [User], resource: [Report], context: { mfa: Bool } };
"""
POLICIES = """
// Editors change reports, with a second factor.
@id("editors")
permit (principal in Role::"editor", action == Action::"edit", resource)
when { context.mfa && principal.level >= 3 };

@id("department")
permit (principal, action == Action::"view", resource)
when { principal.department == resource.department };
"""
ENTITIES = [
    {"uid": {"type": "User", "id": "eve"}, "attrs": {"department": "sales", "level": 5},
     "parents": [{"type": "Role", "id": "editor"}]},
    {"uid": {"type": "User", "id": "bob"}, "attrs": {"department": "sales", "level": 1}, "parents": []},
    {"uid": {"type": "Role", "id": "editor"}, "attrs": {}, "parents": []},
    {"uid": {"type": "Report", "id": "q1"}, "attrs": {"department": "sales"}, "parents": []},
]  # fmt: skip
TESTS = """
policies = "."
entities = "entities.json"

[[tests]]
name = "editors edit with a second factor"
principal = 'User::"eve"'
action = 'Action::"edit"'
resource = 'Report::"q1"'
context = { mfa = true }
decision = "allow"
reasons = ["editors"]

[[tests]]
name = "editors do not edit without"
principal = 'User::"eve"'
action = 'Action::"edit"'
resource = 'Report::"q1"'
context = { mfa = false }
decision = "deny"

[[tests]]
name = "a report of another department"
principal = 'User::"bob"'
action = 'Action::"view"'
resource = 'Report::"own"'
context = { mfa = false }
decision = "deny"

[[tests.entities]]
uid = { type = "Report", id = "own" }
attrs = { department = "research" }
parents = []
"""


@pytest.fixture
def policies(folder: Path) -> Path:
    """A folder `policies` with a schema, policies, entities and tests."""
    path = folder / "policies"
    path.mkdir()
    (path / "schema.cedarschema").write_text(SCHEMA)
    (path / "reports.cedar").write_text(POLICIES)
    (path / "entities.json").write_text(json.dumps(ENTITIES))
    (path / "reports.test.toml").write_text(TESTS)
    return path


RunJson = Callable[..., Any]


def test_check_counts_what_it_read(policies: Path, run_json: RunJson) -> None:
    document = run_json("policy", "check")
    assert (document["ok"], document["policies"], document["validated"]) == (True, 2, True)


def test_check_tells_file_line_and_caret(policies: Path, run: Run) -> None:
    (policies / "reports.cedar").write_text("permit (principal, action, resource)\nwhen { principal.level = 3 };\n")
    output = run("policy", "check", status=1).stderr
    assert "reports.cedar:2:24" in output
    assert "^" in output and "`==` compares" in output


def test_check_finds_what_the_schema_does_not_know(policies: Path, run_json: RunJson) -> None:
    (policies / "more.cedar").write_text('permit (principal, action == Action::"delete", resource);')
    document = run_json("policy", "check", status=1)
    assert document["faults"][0]["policy_id"] == "more/policy0"
    assert document["faults"][0]["file"].endswith("more.cedar")


def test_a_folder_without_policies_is_a_fault(folder: Path, run_json: RunJson) -> None:
    (folder / "policies").mkdir()
    assert run_json("policy", "check", status=1)["faults"][0]["code"] == "no_policies"


def test_tests_pass_with_their_coverage(policies: Path, run_json: RunJson) -> None:
    document = run_json("policy", "test")
    [file] = document["files"]
    assert [each["passed"] for each in file["tests"]] == [True, True, True]
    covered = {each["policy"]: each["covered"] for each in file["coverage"]}
    assert covered == {"editors": True, "department": False}


def test_a_test_that_fails_says_what_was_decided(policies: Path, run: Run) -> None:
    path = policies / "reports.test.toml"
    path.write_text(TESTS.replace('decision = "allow"', 'decision = "deny"'))
    output = run("policy", "test", status=1).stderr
    assert "editors edit with a second factor: deny is expected, allow was decided" in output


def test_own_entities_of_a_test_are_taken_back(policies: Path, run_json: RunJson) -> None:
    path = policies / "reports.test.toml"
    again = TESTS[TESTS.index('[[tests]]\nname = "a report') :].split("[[tests.entities]]", maxsplit=1)[0]
    path.write_text(TESTS + again.replace('decision = "deny"', 'decision = "deny"\nerrors = ["department"]'))
    assert run_json("policy", "test")["ok"]


def test_what_is_not_covered_can_be_a_fault(policies: Path, run: Run) -> None:
    assert "department" in run("policy", "test").stdout
    run("policy", "test", "--fail-uncovered", status=1)


def test_a_test_file_with_unknown_keys_is_refused(policies: Path, run_json: RunJson) -> None:
    (policies / "reports.test.toml").write_text(TESTS.replace("decision", "decison", 1))
    faults = run_json("policy", "test", status=1)["faults"]
    assert {fault["code"] for fault in faults} == {"unknown_key", "missing"}
    assert faults[0]["hint"] == "did you mean `decision`?"


def explain(context: str) -> tuple[str, ...]:
    request = ("--principal", 'User::"eve"', "--action", 'Action::"edit"', "--resource", 'Report::"q1"')
    return ("policy", "explain", *request, "--context", context, "--entities", "policies/entities.json")


def test_explain_names_the_policy_that_decided(policies: Path, run_json: RunJson) -> None:
    document = run_json(*explain('{"mfa": true}'))
    assert (document["decision"], document["reasons"]) == ("allow", ["editors"])


def test_explain_shows_the_clause_that_failed(policies: Path, run: Run, run_json: RunJson) -> None:
    document = run_json(*explain('{"mfa": false}'))
    assert document["decision"] == "deny"
    [failed] = document["policies"]
    assert (failed["policy"], failed["clause"], failed["text"]) == ("editors", "when", "context.mfa")
    assert "context.mfa" in run(*explain('{"mfa": false}')).stdout


def test_explain_refuses_a_request_that_the_schema_does_not_foresee(policies: Path, run_json: RunJson) -> None:
    document = run_json(*explain('{"mfa": 1}'), status=1)
    assert (document["code"], document["faults"][0]["pointer"]) == ("request_invalid", "/context/mfa")


def test_fmt_changes_once_and_keeps_comments(policies: Path, run: Run, run_json: RunJson) -> None:
    file = policies / "reports.cedar"
    file.write_text(POLICIES.replace(" && ", "   &&\n  "))
    assert run_json("policy", "fmt", "--check", status=1)["changed"] == ["policies/reports.cedar"]
    run("policy", "fmt")
    text = file.read_text()
    assert "// Editors change reports" in text
    assert run_json("policy", "fmt")["changed"] == []
    assert file.read_text() == text


def test_fmt_shows_a_difference_and_changes_nothing(policies: Path, run: Run) -> None:
    file = policies / "reports.cedar"
    file.write_text(before := "permit(principal,action,resource);")
    assert "+permit (principal, action, resource);" in run("policy", "fmt", "--diff").stdout
    assert file.read_text() == before


def test_compile_lists_the_instructions(policies: Path, run: Run, run_json: RunJson) -> None:
    document = run_json("policy", "compile", "--listing", "--policy", "editors")
    assert "CLAUSE" in document["listings"]["editors"]
    assert document["instructions"] > 0
    assert "editors (permit)" in run("policy", "compile", "--listing").stdout


def test_compile_of_a_policy_that_is_not_there_is_wrong_usage(policies: Path, run: Run) -> None:
    assert "no policy `nobody`" in run("policy", "compile", "--policy", "nobody", status=2).output
