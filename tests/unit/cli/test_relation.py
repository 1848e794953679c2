"""`portcullis relation`: what is written is in the store, checked before, and told again."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from gateway.cli.policy import policy as policy_group
from gateway.cli.relation import relation as group
from gateway.stores import RELATIONS_FILE
from tests.real.gateway import issuer_toml

SCHEMA = """
entity User;
entity Team { @relation("Team.members") members: Set<User> };
entity Folder { @relation("Team.members") viewers: Set<User> };
entity Doc { folder: Folder, @relation("Team.members") @inherits("folder.viewers") viewers: Set<User> };
action read appliesTo { principal: User, resource: Doc };
"""
POLICIES = "permit (principal, action, resource) when { principal in resource.viewers };"
DOC = {"uid": {"type": "Doc", "id": "1"}, "attrs": {"folder": {"type": "Folder", "id": "top"}}, "parents": []}
TOP, ENG, EVE = 'Folder::"top"#viewers@Team::"eng"#members', 'Team::"eng"#members', 'Team::"eng"#members@User::"eve"'
ASKED = 'Doc::"1"#viewers@User::"eve"'


@pytest.fixture
def config(tmp_path: Path) -> Path:
    (tmp_path / "policies").mkdir()
    (tmp_path / "policies" / "s.cedarschema").write_text(SCHEMA)
    (tmp_path / "policies" / "p.cedar").write_text(POLICIES)
    (tmp_path / "entities.json").write_text(json.dumps([DOC]))
    return write(tmp_path, 'url = "embedded"')


def write(folder: Path, relations: str) -> Path:
    path = folder / "portcullis.toml"
    path.write_text(
        f'[server]\nrun_dir = "{folder / "run"}"\n{issuer_toml(folder)}'
        f'[policy]\npath = "policies"\nentities = "entities.json"\n[policy.relations]\n{relations}\n'
    )
    return path


def run(config: Path, verb: str, *arguments: str, stdin: str = "") -> Result:
    return CliRunner().invoke(group, [verb, "-c", str(config), *arguments], input=stdin)


def document(config: Path, verb: str, *arguments: str, status: int = 0, stdin: str = "") -> Any:
    result = run(config, verb, "--json", *arguments, stdin=stdin)
    assert result.exit_code == status, result.output
    return json.loads(result.output)


def listed(config: Path, *arguments: str) -> list[str]:
    return run(config, "list", *arguments).output.splitlines()


def test_what_is_added_is_listed_and_what_is_removed_is_not(config: Path) -> None:
    added = document(config, "add", TOP, EVE)
    assert (added["ok"], added["added"]) == (True, 2)
    assert listed(config) == [TOP, EVE]
    assert document(config, "list")["relations"][1] == {
        "relation": EVE,
        "object": 'Team::"eng"',
        "name": "members",
        "subject": 'User::"eve"',
        "expires_at": None,
    }
    removed = document(config, "remove", TOP, 'Gone::"1"#was@Nobody::"1"')
    assert removed["revision"] != added["revision"]
    assert listed(config) == [EVE]


def test_the_list_can_be_narrowed(config: Path) -> None:
    document(config, "add", TOP, EVE)
    assert listed(config, "--object", 'Folder::"top"') == [TOP]
    assert listed(config, "--relation", "members") == [EVE]
    assert listed(config, "--subject", 'User::"eve"') == [EVE]
    assert listed(config, "--subject", ENG) == [TOP]
    assert listed(config, "--subject", 'User::"nobody"') == []
    assert run(config, "list", "--subject", "eve").exit_code == 1


def test_a_list_can_be_added_again_elsewhere(config: Path, tmp_path: Path) -> None:
    expiring = 'Doc::"1"#viewers@User::"guest" until 2999-12-31T00:00:00Z'
    document(config, "add", TOP, EVE, expiring)
    text = run(config, "list").output
    other = write(tmp_path, 'url = "sqlite:other.db"')
    assert document(other, "add", "-", stdin=text + "\n\n")["added"] == 3
    assert run(other, "list").output == text
    assert expiring in text


def test_many_are_written_in_steps(config: Path) -> None:
    text = "".join(f'Doc::"{number}"#viewers@User::"eve"\n' for number in range(2500))
    assert document(config, "add", "-", stdin=text)["added"] == 2500
    assert len(listed(config)) == 2500
    assert document(config, "remove", "-", stdin=text)["removed"] == 2500
    assert listed(config) == []


def test_a_relation_can_end_by_itself(config: Path) -> None:
    before_s = int(time.time())
    document(config, "add", "--for", "60", EVE)
    [found] = document(config, "list")["relations"]
    assert before_s + 60 <= found["expires_at"] <= int(time.time()) + 60
    document(config, "add", f"{EVE} until 1999-12-31T00:00:00Z")
    assert listed(config) == []


@pytest.mark.parametrize(
    ("relation", "problem"),
    [
        ('Doc::"1"#owners@User::"eve"', "`Doc` has no relation `owners`"),
        ('Paper::"1"#viewers@User::"eve"', "`Paper` has no relation `viewers`"),
        ('Doc::"1"#viewers@Team::"eng"', "`Team` cannot stand in `Doc.viewers`"),
        ('Doc::"1"#viewers@Folder::"top"#viewers', "`Folder.viewers` cannot stand in `Doc.viewers`"),
        ("Doc:1#viewers@User:eve", "is no relation"),
        ('Relation::Doc::viewers::"1"#x@User::"eve"', "`Relation::Doc::viewers` has no relation `x`"),
    ],
)
def test_what_the_schema_does_not_allow_is_refused_and_nothing_written(
    config: Path, relation: str, problem: str
) -> None:
    assert problem in document(config, "add", TOP, relation, status=1)["error"]
    result = run(config, "add", TOP, relation)
    assert (result.exit_code, problem in result.output) == (1, True)
    assert listed(config) == []


def test_whether_somebody_stands_in_a_relation_is_told_with_the_way(config: Path) -> None:
    denied = run(config, "check", ASKED)
    assert (denied.exit_code, denied.output) == (1, '✗ User::"eve" does not stand in Doc::"1"#viewers\n')
    document(config, "add", TOP, EVE)
    assert run(config, "check", ASKED).output == (
        '✓ User::"eve" stands in Doc::"1"#viewers\n'
        '  User::"eve" in Team::"eng"#members (relation)\n'
        '  Team::"eng"#members in Folder::"top"#viewers (relation)\n'
        '  Folder::"top"#viewers in Doc::"1"#viewers (inherits folder.viewers)\n'
    )
    told = document(config, "check", ASKED)
    assert told["stands"] is True
    assert told["path"][0] == {"lower": 'User::"eve"', "upper": 'Team::"eng"#members', "how": "relation"}
    assert document(config, "check", f'Doc::"1"#viewers@{ENG}')["stands"] is True
    assert (
        document(config, "check", 'Doc::"1"#owners@User::"eve"', status=1)["error"] == "`Doc` has no relation `owners`"
    )


@pytest.mark.parametrize(
    ("relations", "problem"),
    [
        ('url = ""', "the config keeps no relations"),
        ('url = "memory:"', "`memory:` is inside the running gateway"),
        ('url = "redis://127.0.0.1:1/0"', "redis://127.0.0.1:1/0"),
    ],
)
@pytest.mark.parametrize("verb", ["add", "remove", "list", "check"])
def test_a_store_that_cannot_be_written_is_told(
    tmp_path: Path, config: Path, verb: str, relations: str, problem: str
) -> None:
    write(tmp_path, relations)
    arguments = [] if verb == "list" else [ASKED]
    assert problem in document(config, verb, *arguments, status=1)["error"]


def test_a_broken_config_or_schema_is_told_with_its_place(config: Path, tmp_path: Path) -> None:
    (tmp_path / "policies" / "s.cedarschema").write_text("entity User;")
    assert document(config, "add", ASKED, status=1)["faults"][0]["code"] == "no_relations"
    (tmp_path / "policies" / "s.cedarschema").write_text("entity User")
    result = run(config, "add", ASKED)
    assert (result.exit_code, "s.cedarschema:1:" in result.output) == (1, True)
    config.write_text("[policy]\nrelations = 1\n")
    assert document(config, "add", ASKED, status=1)["faults"][0]["key"] == "policy.relations"


def test_every_verb_is_described() -> None:
    shown = CliRunner().invoke(group, ["--help"]).output
    for verb in ("add", "remove", "list", "check"):
        assert f"  {verb} " in shown
        assert "RELATION" in CliRunner().invoke(group, [verb, "--help"]).output or verb == "list"
    assert CliRunner().invoke(group, ["rename"]).exit_code == 2


# --- `policy explain`


def explain(folder: Path, *arguments: str) -> Result:
    asked = ("--principal", 'User::"eve"', "--action", 'Action::"read"', "--resource", 'Doc::"1"')
    entities = ("--entities", str(folder / "entities.json"))
    return CliRunner().invoke(policy_group, ["explain", str(folder / "policies"), *asked, *entities, *arguments])


WAY = """\
✓ allow: by policy0
  policy0 (permit): ✓ holds
      principal in resource.viewers: User::"eve" stands in Doc::"1"#viewers
        User::"eve" in Team::"eng"#members (relation)
        Team::"eng"#members in Folder::"top"#viewers (relation)
        Folder::"top"#viewers in Doc::"1"#viewers (inherits folder.viewers)
"""


def test_an_explanation_shows_the_way_by_the_configs_store(config: Path, tmp_path: Path) -> None:
    document(config, "add", TOP, EVE)
    assert explain(tmp_path, "-c", str(config)).output == WAY
    told = json.loads(explain(tmp_path, "-c", str(config), "--json").output)
    assert told["relations"] == f"the store of {config}"
    [test] = told["policies"][0]["relations"]
    assert (test["subject"], test["asked"], test["stands"]) == ('User::"eve"', 'Doc::"1"#viewers', True)
    assert [step["how"] for step in test["path"]] == ["relation", "relation", "folder.viewers"]


def test_an_explanation_takes_relations_out_of_a_file_or_a_store(config: Path, tmp_path: Path) -> None:
    (tmp_path / "tuples.txt").write_text(f"{TOP}\n\n{EVE}\n")
    assert explain(tmp_path, "--relations", str(tmp_path / "tuples.txt")).output == WAY
    document(config, "add", TOP, EVE)
    store = f"sqlite:{tmp_path / 'run' / RELATIONS_FILE}"
    assert explain(tmp_path, "--relations", store).output == WAY


def test_an_explanation_without_relations_says_so(tmp_path: Path, config: Path) -> None:
    shown = explain(tmp_path).output
    assert 'principal in resource.viewers: User::"eve" does not stand in Doc::"1"#viewers\n' in shown
    assert shown.endswith("· no relations were read (--relations says from where)\n")


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("\nnonsense\n", "tuples.txt:2: `nonsense` is no relation"),
        ('Doc::"1"#owners@User::"eve"', "`Doc` has no relation `owners`"),
        (None, "no such file or directory"),
    ],
)
def test_an_explanation_refuses_what_are_no_relations(
    config: Path, tmp_path: Path, text: str | None, problem: str
) -> None:
    if text is not None:
        (tmp_path / "tuples.txt").write_text(text)
    result = explain(tmp_path, "--relations", str(tmp_path / "tuples.txt"))
    assert (result.exit_code, problem in result.output) == (1, True)


def test_a_schema_without_relations_has_none_to_read(config: Path, tmp_path: Path) -> None:
    (tmp_path / "policies" / "s.cedarschema").write_text(SCHEMA.replace("@relation", "@rel").replace("@inherits", "@i"))
    (tmp_path / "entities.json").write_text("[]")
    assert "the schema has no relations" in explain(tmp_path, "--relations", "tuples.txt").output


# --- `policy test`


TESTS = """
entities = "../entities.json"
relations = ['Folder::"top"#viewers@Team::"eng"#members']

[[tests]]
name = "nobody is in the team"
principal = 'User::"eve"'
action = 'Action::"read"'
resource = 'Doc::"1"'
decision = "deny"

[[tests]]
name = "eve is, in this test"
principal = 'User::"eve"'
action = 'Action::"read"'
resource = 'Doc::"1"'
relations = ['Team::"eng"#members@User::"eve"', 'Folder::"top"#viewers@Team::"eng"#members']
decision = "allow"

[[tests]]
name = "and not in another one"
principal = 'User::"eve"'
action = 'Action::"read"'
resource = 'Doc::"2"'
relations = ['Team::"eng"#members@User::"bob"']
decision = "deny"

[[tests.entities]]
uid = { type = "Doc", id = "2" }
attrs = { folder = { type = "Folder", id = "top" } }
parents = []

[[tests]]
name = "what a test brings is gone after it, and what it replaced is back"
principal = 'User::"eve"'
action = 'Action::"read"'
resource = 'Doc::"1"'
relations = ['Doc::"1"#viewers@User::"eve"']
decision = "allow"

[[tests.entities]]
uid = { type = "Doc", id = "1" }
attrs = { folder = { type = "Folder", id = "other" } }
parents = []

[[tests]]
name = "so bob is in the folder again"
principal = 'User::"bob"'
action = 'Action::"read"'
resource = 'Doc::"1"'
relations = ['Team::"eng"#members@User::"bob"']
decision = "allow"
"""


def policy_test(folder: Path, text: str) -> Any:
    file = folder / "policies" / "p.test.toml"
    file.write_text(text)
    return json.loads(CliRunner().invoke(policy_group, ["test", "--json", str(file)]).output)


def test_tests_of_policies_bring_relations(config: Path, tmp_path: Path) -> None:
    told = policy_test(tmp_path, TESTS)
    assert [test["problems"] for test in told["files"][0]["tests"]] == [[]] * 5
    assert told["ok"] is True


def test_a_test_with_relations_that_cannot_be_is_told(config: Path, tmp_path: Path) -> None:
    told = policy_test(tmp_path, TESTS.replace('#members@User::"bob"', '#leaders@User::"bob"'))
    problems = [test["problems"] for test in told["files"][0]["tests"]]
    assert problems[2:] == [["`Team` has no relation `leaders`"], [], ["`Team` has no relation `leaders`"]]
    told = policy_test(tmp_path, TESTS.replace('Folder::"top"#viewers@', "Folder:top#viewers@"))
    assert {(fault["code"], fault["line"]) for fault in told["faults"]} == {("no_relation", 3), ("no_relation", 17)}
    told = policy_test(tmp_path, TESTS.replace("relations = [", "relations = 1 # [", 1))
    assert told["faults"][0]["code"] == "ill_typed"
    (tmp_path / "policies" / "s.cedarschema").write_text(SCHEMA.replace("@relation", "@rel").replace("@inherits", "@i"))
    (tmp_path / "entities.json").write_text("[]")
    assert policy_test(tmp_path, TESTS)["faults"][0]["code"] == "no_relations"
