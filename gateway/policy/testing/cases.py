"""The test file: TOML with the policies to load, the entities, and requests with the answers that are expected.

policies = "."                     # a folder or a file, from this file's folder; "." when it is left out
schema = "schema.cedarschema"      # else what lies in the folder
entities = "entities.json"         # of all tests of this file
relations = ['Folder::"a"#viewers@User::"eve"']  # of all tests, where the schema has relations

[[tests]]
name = "editors change reports"
principal = 'User::"eve"'
action = 'Action::"edit"'
resource = 'Report::"q1"'
context = { mfa = true }           # Cedar's JSON, also `__entity` and `__extn`
decision = "allow"                 # or "deny"
reasons = ["policy0"]              # left out: not looked at
errors = []                        # left out: none may happen
relations = []                     # besides the file's

[[tests.entities]]                 # besides the file's entities, and in their place
uid = { type = "User", id = "eve" }
attrs = {}
parents = [{ type = "Role", id = "editor" }]
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from gateway.config.toml_lines import TomlLines
from gateway.policy.faults import Fault, PolicyFault
from gateway.policy.relation_text import parse_relation
from gateway.stores.relations import Relation

CASES_MAX: Final = 10_000  # of one file
FILE_BYTES_MAX: Final = 10 * 1024 * 1024
SUFFIX: Final = ".test.toml"

_FILE_KEYS: Final = frozenset(("policies", "schema", "entities", "relations", "tests"))
_CASE_KEYS: Final = frozenset(
    ("name", "principal", "action", "resource", "context", "decision", "reasons", "errors", "entities", "relations")
)


class CaseFileError(PolicyFault):
    """A test file that cannot be used."""

    code = "test_file_invalid"


@dataclass(frozen=True, slots=True)
class Case:
    """One request, and the answer that is expected. `reasons` None: not looked at."""

    name: str
    principal: str  # Cedar's spelling
    action: str
    resource: str
    context: Mapping[str, Any]  # Cedar's JSON
    allowed: bool
    reasons: frozenset[str] | None
    errors: frozenset[str]
    entities: tuple[Mapping[str, Any], ...]  # Cedar's entity JSON, besides those of the file
    relations: tuple[Relation, ...]  # besides those of the file
    line: int


@dataclass(frozen=True, slots=True)
class CaseFile:
    """All of a file; paths are absolute or from the working folder."""

    path: Path
    policies: Path
    schema: Path | None
    entities: Path | None
    relations: tuple[Relation, ...]  # of all cases
    cases: tuple[Case, ...]


def load_cases(path: Path) -> CaseFile:
    """Read a test file. Raises CaseFileError with everything that is wrong with it."""
    try:
        if path.stat().st_size > FILE_BYTES_MAX:
            raise _refusal(path, "too_large", f"the file has more than {FILE_BYTES_MAX} bytes")
        text = path.read_text(encoding="utf-8")
        document = tomllib.loads(text)
    except OSError as error:
        raise _refusal(path, "unreadable", (error.strerror or "cannot be read").lower()) from error
    except UnicodeDecodeError as error:
        raise _refusal(path, "unreadable", "is no UTF-8 text") from error
    except tomllib.TOMLDecodeError as error:
        raise _refusal(path, "no_toml", f"is no TOML: {error}") from error
    return _Reader(path, document, TomlLines(text)).read()


def _refusal(path: Path, code: str, message: str) -> CaseFileError:
    return CaseFileError([Fault(code, message, file=str(path))])


class _Reader:
    """Turns a document into a CaseFile; collects faults on the way."""

    def __init__(self, path: Path, document: dict[str, Any], lines: TomlLines) -> None:
        self._path = path
        self._document = document
        self._lines = lines
        self._faults: list[Fault] = []

    def read(self) -> CaseFile:
        document = self._document
        self._no_others(document, _FILE_KEYS, ())
        tests = document.get("tests", [])
        if not _is_tables(tests):
            self._fault((), "tests", "ill_typed", "is no array of tables", "write each test as [[tests]]")
            tests = []
        if not tests:
            self._fault((), "tests", "no_tests", "the file has no tests", "write each test as [[tests]]")
        elif len(tests) > CASES_MAX:
            self._fault((), "tests", "too_many", f"more than {CASES_MAX} tests in one file")
            tests = []
        cases = tuple(self._case(index, test) for index, test in enumerate(tests))
        made = CaseFile(
            self._path,
            self._beside(self._text((), document, "policies", ".")),
            self._optional("schema"),
            self._optional("entities"),
            self._relations((), document),
            cases,
        )
        if self._faults:
            raise CaseFileError(self._faults)
        return made

    def _case(self, index: int, test: dict[str, Any]) -> Case:
        at = ("tests", index)
        self._no_others(test, _CASE_KEYS, at)
        decision = self._text(at, test, "decision", None)
        if decision not in ("allow", "deny", ""):
            self._fault(at, "decision", "ill_typed", f"`{decision}` is no decision", "write allow or deny")
        context = test.get("context", {})
        if not isinstance(context, dict):
            self._fault(at, "context", "ill_typed", "is no table")
            context = {}
        entities = test.get("entities", [])
        if not _is_tables(entities):
            self._fault(at, "entities", "ill_typed", "is no array of tables", "write each as [[tests.entities]]")
            entities = []
        reasons = self._names(at, test, "reasons") if "reasons" in test else None
        return Case(
            self._text(at, test, "name", f"test {index + 1}"),
            self._text(at, test, "principal", None),
            self._text(at, test, "action", None),
            self._text(at, test, "resource", None),
            context,
            decision == "allow",
            reasons,
            self._names(at, test, "errors"),
            tuple(entities),
            self._relations(at, test),
            self._lines.find(at) or 1,
        )

    def _beside(self, name: str) -> Path:
        return self._path.parent / name

    def _optional(self, key: str) -> Path | None:
        name = self._text((), self._document, key, "")
        return self._beside(name) if name else None

    def _text(self, at: tuple[str | int, ...], table: dict[str, Any], key: str, default: str | None) -> str:
        value = table.get(key, default)
        if value is None:
            self._fault(at, key, "missing", f"`{key}` is missing")
            return ""
        if not isinstance(value, str):
            self._fault(at, key, "ill_typed", f"`{key}` is no text")
            return ""
        return value

    def _names(self, at: tuple[str | int, ...], table: dict[str, Any], key: str) -> frozenset[str]:
        value = table.get(key, [])
        if not isinstance(value, list) or not all(isinstance(name, str) for name in value):
            self._fault(at, key, "ill_typed", f"`{key}` is no array of policy ids")
            return frozenset()
        return frozenset(value)

    def _relations(self, at: tuple[str | int, ...], table: dict[str, Any]) -> tuple[Relation, ...]:
        value = table.get("relations", [])
        if not isinstance(value, list) or not all(isinstance(text, str) for text in value):
            self._fault(at, "relations", "ill_typed", "`relations` is no array of texts")
            return ()
        found = []
        for text in value:
            try:
                found.append(parse_relation(text))
            except ValueError as error:
                self._fault(at, "relations", "no_relation", str(error))
        return tuple(found)

    def _no_others(self, table: dict[str, Any], known: frozenset[str], at: tuple[str | int, ...]) -> None:
        import difflib

        for key in table:
            if key not in known:
                near = difflib.get_close_matches(key, known, n=1)
                hint = f"did you mean `{near[0]}`?" if near else f"known: {', '.join(sorted(known))}"
                self._fault(at, key, "unknown_key", f"unknown key `{key}`", hint)

    def _fault(self, at: tuple[str | int, ...], key: str, code: str, message: str, hint: str = "") -> None:
        line = self._lines.find((*at, key))
        column = None if line is None else 1
        self._faults.append(Fault(code, message, hint, file=str(self._path), line=line, column=column))


def _is_tables(value: object) -> bool:
    return isinstance(value, Sequence) and not isinstance(value, str) and all(isinstance(each, dict) for each in value)
