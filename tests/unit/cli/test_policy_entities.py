"""`portcullis policy entities`: what is written is in the config's sources, checked before, and shown again."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from gateway._native.uid import EntityUid
from gateway.cli.policy import policy as group
from gateway.cli.policy.entities import import_
from gateway.cli.policy.entities.import_ import Progress, steps
from gateway.policy.entities import FAULTS_MAX, Entities
from gateway.stores import open_attribute_source
from gateway.stores.attributes import FollowedSource
from tests.real.gateway import issuer_toml

SCHEMA = """
entity Team;
entity User in [Team] { level: Long, joined?: datetime } tags String;
entity Doc { owner: User };
entity Folder;
action read appliesTo { principal: User, resource: Doc };
"""
SOURCES = """
[[policy.sources]]
name = "people"
types = ["User", "Team"]
url = "embedded"
[[policy.sources]]
name = "documents"
types = ["Doc"]
url = "sqlite:documents.sqlite3"
"""
EVE = 'User::"eve"'


@pytest.fixture
def config(tmp_path: Path) -> Path:
    (tmp_path / "policies").mkdir()
    (tmp_path / "policies" / "s.cedarschema").write_text(SCHEMA)
    (tmp_path / "policies" / "p.cedar").write_text("permit (principal, action, resource);")
    return write(tmp_path, SOURCES)


def write(folder: Path, sources: str) -> Path:
    path = folder / "portcullis.toml"
    path.write_text(
        f'[server]\nrun_dir = "{folder / "run"}"\n{issuer_toml(folder)}[policy]\npath = "policies"\n{sources}'
    )
    return path


def run(config: Path, verb: str, *arguments: str, stdin: str = "") -> Result:
    return CliRunner().invoke(group, ["entities", verb, "-c", str(config), *arguments], input=stdin)


def document(config: Path, verb: str, *arguments: str, status: int = 0, stdin: str = "") -> Any:
    result = run(config, verb, "--json", *arguments, stdin=stdin)
    assert result.exit_code == status, result.output
    return json.loads(result.stdout)


def user(name: str, level: int = 1, **members: object) -> dict[str, object]:
    return {"uid": {"type": "User", "id": name}, "attrs": {"level": level}, "parents": [], **members}


def doc(name: str, owner: str = "eve") -> dict[str, object]:
    return {
        "uid": {"type": "Doc", "id": name},
        "attrs": {"owner": {"__entity": {"type": "User", "id": owner}}},
        "parents": [],
    }


def listed(config: Path, *arguments: str) -> list[dict[str, object]]:
    result = run(config, "list", *arguments)
    assert result.exit_code == 0, result.output
    found: list[dict[str, object]] = json.loads(result.stdout)
    return sorted(found, key=lambda each: json.dumps(each["uid"]))


def uids(config: Path) -> list[str]:
    return sorted(run(config, "list", "--uids").stdout.split())


def test_what_is_put_is_shown_and_what_is_removed_is_not(config: Path) -> None:
    put = document(config, "put", "-", stdin=json.dumps([user("eve"), user("bob", 2), doc("1")]))
    assert (put["ok"], put["written"], sorted(put["revisions"])) == (True, 3, ["documents", "people"])
    assert listed(config) == [doc("1"), user("bob", 2), user("eve")]
    again = document(config, "put", "-", stdin=json.dumps([user("eve", 7)]))
    assert list(again["revisions"]) == ["people"]
    assert document(config, "get", EVE) == {"ok": True, "entities": [user("eve", 7)], "missing": []}
    removed = document(config, "remove", EVE, 'Doc::"1"', 'User::"never there"')
    assert (removed["removed"], sorted(removed["revisions"])) == (3, ["documents", "people"])
    assert listed(config) == [user("bob", 2)]


def test_each_type_lies_in_its_own_source(config: Path, tmp_path: Path) -> None:
    document(config, "put", "-", stdin=json.dumps([user("eve"), doc("1")]))

    async def kept(url: str) -> list[EntityUid]:
        source = open_attribute_source(url, tmp_path / "run", name="x")
        assert isinstance(source, FollowedSource)
        page = await source.read_all("", 10)
        await source.close()
        return [uid for uid, _ in page.entities]

    assert asyncio.run(kept("")) == [EntityUid("User", "eve")]
    assert asyncio.run(kept(f"sqlite:{tmp_path / 'documents.sqlite3'}")) == [EntityUid("Doc", "1")]


def test_values_are_kept_in_forms_that_need_no_schema(config: Path) -> None:
    implicit = user("eve", parents=[{"type": "Team", "id": "a"}], tags={"desk": "4"})
    implicit["attrs"] = {"level": 1, "joined": "2024-01-01"}
    document(config, "put", "-", stdin=json.dumps([implicit, doc("1") | {"attrs": {"owner": implicit["uid"]}}]))
    text = run(config, "list").stdout
    assert len(Entities.from_json(text)) == 2  # read without a schema
    [kept] = document(config, "get", EVE)["entities"]
    assert kept["attrs"]["joined"] == {"__extn": {"fn": "datetime", "arg": "2024-01-01T00:00:00.000Z"}}
    assert (kept["parents"], kept["tags"]) == ([{"type": "Team", "id": "a"}], {"desk": "4"})


def test_what_is_missing_is_told_and_the_status_says_so(config: Path) -> None:
    document(config, "put", "-", stdin=json.dumps([user("eve")]))
    result = run(config, "get", "-", 'User::"x y"', stdin=f"{EVE}\n\n")
    assert result.exit_code == 1
    assert json.loads(result.stdout) == user("eve")
    assert '`User::"x y"` is not there' in result.stderr
    assert document(config, "get", 'User::"x"', status=1)["missing"] == ['User::"x"']


def test_a_list_can_be_narrowed_and_read_again(config: Path) -> None:
    assert listed(config) == []
    team = {"uid": {"type": "Team", "id": "a"}, "attrs": {}, "parents": []}
    document(config, "put", "-", stdin=json.dumps([user("eve"), team, doc("1")]))
    assert listed(config, "--source", "documents") == [doc("1")]
    assert listed(config, "--type", "Team") == [team]
    assert document(config, "list", "--type", "Team") == {"ok": True, "entities": [team]}
    assert document(config, "list", "--uids", "--source", "documents") == {"ok": True, "entities": ['Doc::"1"']}
    assert run(config, "list", "--type", "Nobody").exit_code == 1
    assert run(config, "list", "--source", "nobody").exit_code == 1
    text = run(config, "list").stdout
    assert run(config, "remove", "-", stdin=run(config, "list", "--uids").stdout).exit_code == 0
    assert listed(config) == []
    assert run(config, "import", "-", stdin=text).exit_code == 0
    assert listed(config) == [doc("1"), team, user("eve")]


def test_an_import_of_many_is_whole_and_can_remove_the_others(config: Path) -> None:
    first = [user(f"old {number}") for number in range(700)] + [doc("1")]
    assert document(config, "import", "-", stdin=json.dumps(first)) == {"ok": True, "written": 701, "removed": 0}
    second = [user(f"new {number}") for number in range(1200)] + [user("old 3", 9)]
    kept = document(config, "import", "-", stdin=json.dumps(second))
    assert kept == {"ok": True, "written": 1201, "removed": 0}
    assert len(listed(config)) == 1901
    replaced = document(config, "import", "--replace", "-", stdin=json.dumps(second))
    assert replaced == {"ok": True, "written": 1201, "removed": 699}
    assert len(listed(config, "--type", "User")) == 1201
    assert listed(config, "--type", "Doc") == [doc("1")]  # of a type that the file has not
    told = run(config, "import", "--replace", "-", stdin=json.dumps([user("a")])).stdout
    assert "wrote 1 entity, removed 1,201" in told


@pytest.mark.parametrize("verb", ["put", "import"])
@pytest.mark.parametrize(
    ("items", "code"),
    [
        ([user("good"), user("bad", level="high")], "wrong_type"),  # type: ignore[arg-type]
        ([user("good"), user("bad", attrs={})], "missing_attribute"),
        ([user("good"), user("bad", parents=[{"type": "Doc", "id": "1"}])], "wrong_parent"),
        ([user("good"), {"uid": {"type": "User", "id": "bad"}}], "missing_member"),
        ([user("good"), {"uid": {"type": "Folder", "id": "1"}, "attrs": {}, "parents": []}], "no_source"),
        ([user("good"), {"uid": {"type": "Nobody", "id": "1"}, "attrs": {}, "parents": []}], "no_source"),
        ([user("good"), user("bad\0")], "not_kept"),
        ([user("good"), user("good", 2)], "duplicate_entity"),
    ],
)
def test_one_entity_that_does_not_fit_keeps_all_from_being_written(
    config: Path, verb: str, items: list[object], code: str
) -> None:
    told = document(config, verb, "-", status=1, stdin=json.dumps(items))
    assert [(fault["code"], fault["pointer"][:2]) for fault in told["faults"]] == [(code, "/1")]
    assert uids(config) == []


def test_everything_that_is_wrong_is_told_up_to_a_limit(config: Path) -> None:
    items = [user(str(number), attrs={}) for number in range(FAULTS_MAX + 5)]
    assert len(document(config, "put", "-", status=1, stdin=json.dumps(items))["faults"]) == FAULTS_MAX
    for text in ("", "{}", "[", '[{"uid":1,"uid":2}]', "[1]", "nonsense"):
        assert document(config, "put", "-", status=1, stdin=text)["faults"], text


def test_without_a_schema_entities_are_taken_as_they_are(config: Path, tmp_path: Path) -> None:
    (tmp_path / "policies" / "s.cedarschema").unlink()
    document(config, "put", "-", stdin=json.dumps([user("eve", attrs={"any": [1, "x"]})]))
    assert document(config, "get", EVE)["entities"] == [user("eve", attrs={"any": [1, "x"]})]


def test_too_many_for_one_transaction_are_for_import(config: Path) -> None:
    many = json.dumps([user(str(number)) for number in range(1001)])
    assert "`import` takes them in steps" in document(config, "put", "-", status=1, stdin=many)["error"]
    assert uids(config) == []


@pytest.mark.parametrize(
    ("sources", "verb", "problem"),
    [
        ("", "list", "keeps no entities in sources"),
        ('[[policy.sources]]\nname = "p"\ntypes = ["User"]\nurl = "memory:"\n', "get", "inside the running gateway"),
        ('[[policy.sources]]\nname = "p"\ntypes = ["User"]\nurl = "http://127.0.0.1:1/"\n', "put", "over HTTP"),
        ('[[policy.sources]]\nname = "p"\ntypes = ["User"]\nurl = "http://127.0.0.1:1/"\n', "remove", "over HTTP"),
        ('[[policy.sources]]\nname = "p"\ntypes = ["User"]\nurl = "http://127.0.0.1:1/"\n', "get", "127.0.0.1:1"),
        ('[[policy.sources]]\nname = "p"\ntypes = ["Doc"]\nurl = "embedded"\n', "get", "no source has entities"),
        ('[[policy.sources]]\nname = "p"\ntypes = ["User"]\nurl = "redis://127.0.0.1:1/0"\n', "list", "127.0.0.1:1"),
    ],
)
def test_a_source_that_cannot_be_reached_or_written_is_told(
    config: Path, sources: str, verb: str, problem: str
) -> None:
    write(config.parent, sources)
    arguments = {"put": ["-"], "list": [], "get": [EVE], "remove": [EVE]}[verb]
    result = run(config, verb, "--json", *arguments, stdin=json.dumps([user("eve")]))
    assert result.exit_code == 1
    assert problem in result.output


def test_uids_that_are_none_are_all_told(config: Path) -> None:
    told = document(config, "remove", "eve", EVE, "User::eve", status=1)["error"]
    assert "`eve` is no entity" in told
    assert "`User::eve` is no entity" in told


def test_an_import_that_breaks_off_says_how_far_it_came(config: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from gateway.errors import StoreUnavailable
    from gateway.stores.attributes_rows import RowAttributeSource

    original: Callable[..., Any] = RowAttributeSource.write
    writes = []

    async def write_twice(*arguments: Any) -> Any:
        writes.append(1)
        if len(writes) == 3:
            raise StoreUnavailable("away")
        return await original(*arguments)

    monkeypatch.setattr(RowAttributeSource, "write", write_twice)
    monkeypatch.setattr(import_, "PAGE", 10)
    told = document(config, "import", "-", status=1, stdin=json.dumps([user(str(number)) for number in range(35)]))
    assert told["error"] == "20 of 35 were written: away"
    assert len(uids(config)) == 20


def test_steps_are_bounded_by_number_and_by_size(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(import_, "PAGE", 3)
    monkeypatch.setattr(import_, "STEP_BYTES", 100)
    sizes = [10, 10, 10, 10, 95, 10, 300, 1, 99]
    bodies = [(EntityUid("User", str(number)), b"x" * size) for number, size in enumerate(sizes)]
    assert [[len(body) for _, body in step] for step in steps(bodies)] == [
        [10, 10, 10],
        [10],
        [95],
        [10],
        [300],
        [1, 99],
    ]
    assert list(steps([])) == []


def test_progress_is_shown_on_a_terminal_alone(capsys: pytest.CaptureFixture[str]) -> None:
    hidden, shown = Progress(2000, shown=False), Progress(2000, shown=True)
    for progress in (hidden, shown):
        progress.add(500)
        progress.add(1500)
        progress.end()
        assert progress.done == 2000
    assert capsys.readouterr().err == "\r500 of 2,000 entities (25 %)\r2,000 of 2,000 entities (100 %)\n"
