"""docs/policy.md and docs/decision-api.md are true: what they show is typed in, run and compared."""

from __future__ import annotations

import contextlib
import io
import json
import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from gateway.config import Config, load_config
from tests.unit.cli.conftest import Run

DOCS = Path(__file__).parents[3] / "docs"
_BLOCK = re.compile(r"^```(\w+)\n(.*?)^```$", re.DOTALL | re.MULTILINE)
_VOLATILE = (
    (re.compile(r"\d+\.\d ms"), "TIME"),
    (re.compile(r"\b[0-9a-f]{16}:\d+"), "REVISION"),
    (re.compile(r"\b(?:DIGEST|[0-9a-f]{12}) now"), "DIGEST now"),
    (re.compile(r"\b(?:RATE|[\d,]+) a second"), "RATE a second"),
    (re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ"), "MOMENT"),
)


@dataclass(frozen=True)
class Section:
    """What one heading of a page shows, by language, in order."""

    blocks: list[tuple[str, str]]

    def of(self, language: str) -> list[str]:
        return [text for kind, text in self.blocks if kind == language]


def sections(page: str) -> dict[str, Section]:
    """Give the sections of a page by their headings."""
    pieces = re.split(r"^#+ (.*)$", (DOCS / page).read_text(encoding="utf-8"), flags=re.MULTILINE)
    return {heading: Section(_BLOCK.findall(text)) for heading, text in zip(pieces[1::2], pieces[2::2], strict=True)}


PAGE = sections("policy.md")


def commands(console: str) -> Iterator[tuple[list[str], str]]:
    """Give the commands of a console, each with what it is said to print."""
    for piece in re.split(r"^\$ ", console, flags=re.MULTILINE)[1:]:
        lines = piece.splitlines()
        count = 1
        while lines[count - 1].endswith("\\"):
            count += 1
        words = shlex.split("\n".join(lines[:count]).replace("\\\n", " "))
        assert words[0] == "portcullis"
        yield words[1:], "\n".join(lines[count:])


def steady(text: str) -> str:
    """Leave out what is another each time."""
    for pattern, word in _VOLATILE:
        text = pattern.sub(word, text)
    return "\n".join(line.rstrip() for line in text.strip().splitlines())


def check(run: Run, console: str, status: int | None = None) -> None:
    """Run a console's commands, and compare what they print; what they fail with begins with its mark."""
    for words, expected in commands(console):
        failing = expected.startswith("✗ ") and words[1] != "explain"
        result = run(*words, status=int(failing) if status is None else status)
        assert steady(result.output) == steady(expected), words


def printed(program: str) -> str:
    """Run a program of the page in the working folder."""
    out = io.StringIO()
    with contextlib.redirect_stdout(out):
        exec(compile(program, "docs/policy.md", "exec"), {"__name__": "page"})
    return out.getvalue()


@pytest.fixture
def reports(folder: Path) -> Path:
    """The folder that the page begins with."""
    section = PAGE["A folder of policies"]
    (folder / "policies").mkdir()
    schema, policies = section.of("cedar")
    (folder / "policies" / "schema.cedarschema").write_text(schema)
    (folder / "policies" / "reports.cedar").write_text(policies)
    (folder / "entities.json").write_text(section.of("json")[0])
    (folder / "policies" / "reports.test.toml").write_text(PAGE["Tests"].of("toml")[0])
    return folder


@pytest.fixture
def shared(folder: Path) -> Path:
    """The folder of the section about relations."""
    section = PAGE["Relations"]
    (folder / "policies").mkdir()
    schema, policies = section.of("cedar")
    (folder / "policies" / "schema.cedarschema").write_text(schema)
    (folder / "policies" / "docs.cedar").write_text(policies)
    (folder / "entities.json").write_text(section.of("json")[0])
    (folder / "portcullis.toml").write_text(section.of("toml")[0])
    return folder


def test_the_folder_is_checked_tested_explained_and_compiled_as_shown(run: Run, reports: Path) -> None:
    good, mistaken = PAGE["A folder of policies"].of("console")
    for console in (good, *PAGE["Tests"].of("console"), *PAGE["Why?"].of("console")):
        check(run, console)
    check(run, PAGE["What the machine runs"].of("console")[0])
    policies = reports / "policies" / "reports.cedar"
    policies.write_text(policies.read_text().replace("principal.department", "principal.departmnt"))
    check(run, mistaken)


def test_logged_decisions_are_explained_and_replayed_as_shown(run: Run, reports: Path) -> None:
    section = PAGE["Decisions that were logged"]
    [line], [policies] = section.of("json"), section.of("cedar")
    (reports / "decisions.log").write_text(json.dumps(json.loads(line)) + "\n")
    (reports / "next").mkdir()
    (reports / "next" / "reports.cedar").write_text(policies)
    for console in section.of("console"):
        check(run, console, status=1 if "replay" in console else 0)


def test_the_library_decides_as_shown(reports: Path) -> None:
    assert printed(PAGE["From Python"].of("python")[0]) == "True\n['owners']\n"


def test_relations_are_added_listed_and_explained_as_shown(run: Run, shared: Path) -> None:
    for console in PAGE["Relations"].of("console"):
        check(run, console)
    assert len(PAGE["Relations"].of("console")) == 2


def test_the_library_follows_relations_as_shown(shared: Path) -> None:
    assert printed(PAGE["From Python"].of("python")[1]) == 'True\nUser::"ann" in Doc::"2027"#viewers (relation)\n'


def test_the_library_fetches_what_decisions_need_as_shown(folder: Path) -> None:
    expected = "True 2\nTrue 2\nforbid unsatisfied\npermit satisfied\n"
    assert printed(PAGE["From Python"].of("python")[2]) == expected


def test_entities_are_written_to_their_sources_as_shown(run: Run, folder: Path) -> None:
    section = PAGE["Entities in sources"]
    (folder / "policies").mkdir()
    (folder / "policies" / "a.cedar").write_text("permit (principal, action, resource);\n")
    (folder / "directory.token").write_text("secret\n")
    (folder / "portcullis.toml").write_text(
        '[server]\nrun_dir = "run"\n[policy]\npath = "policies"\n' + section.of("toml")[0]
    )
    [console] = section.of("console")
    eve = next(expected for words, expected in commands(console) if "get" in words)
    (folder / "entities.json").write_text(
        f'[{eve}, {{"uid": {{"type": "User", "id": "bob"}}, "attrs": {{"level": 1}}, "parents": []}},'
        ' {"uid": {"type": "Team", "id": "design"}, "attrs": {}, "parents": []}]'
    )
    check(run, console)


def loaded(folder: Path, text: str) -> Config:
    (folder / "policies").mkdir(exist_ok=True)
    (folder / "policies" / "a.cedar").write_text("permit (principal, action, resource);\n")
    (folder / "entities.json").write_text("[]")
    (folder / "portcullis.toml").write_text(text)
    return load_config(folder / "portcullis.toml", env={"ORDERS_API_SECRET": "x"}).config


@pytest.mark.parametrize("heading", ["At the doors", "What the token says"])
def test_the_configs_of_the_doors_are_ones(folder: Path, heading: str) -> None:
    [text] = PAGE[heading].of("toml")
    [route] = loaded(folder, text).routes
    assert route.action


def test_the_config_of_the_decision_api_is_one(folder: Path) -> None:
    [text] = sections("decision-api.md")["The decision API"].of("toml")
    assert [client.id for client in loaded(folder, text).authzen.clients] == ["orders-api"]
