"""Lines of the decision log: values as policies saw them, and no credential in any."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from gateway.observability.decisions import DecisionLog
from gateway.observability.line_writer import LineWriter
from gateway.observability.redaction import REDACTED
from tests.unit.observability.test_logs import NOON_S, TOKEN, FixedClock


def written(path: Path, fields: dict[str, Any], *names: str) -> dict[str, Any]:
    writer = LineWriter(str(path), name="decisions")
    log = DecisionLog(writer, names, FixedClock(NOON_S))
    log.write(fields, log.blanked("given", fields["given"]))
    writer.close()
    (line,) = path.read_bytes().splitlines()
    read: dict[str, Any] = json.loads(line)
    return read


def fields_of(context: dict[str, Any], given: dict[str, Any] | None = None, resource: str = "1") -> dict[str, Any]:
    return {
        "id": "6f1c",
        "principal": {"type": "User", "id": "alice"},
        "action": {"type": "Action", "id": "read"},
        "resource": {"type": "Order", "id": resource},
        "context": context,
        "given": given or {},
    }


def test_a_line_is_what_was_given_with_its_time(tmp_path: Path) -> None:
    fields = fields_of({"tenant": "acme", "n": 3, "ok": True, "from": {"__extn": {"fn": "ip", "arg": "10.0.0.1"}}})
    assert written(tmp_path / "log", fields) == {"ts": "2026-11-23T12:00:00.250000Z", **fields}


def test_what_the_operator_names_is_blanked_at_any_depth_and_said_to_be(tmp_path: Path) -> None:
    context = {"tenant": "acme", "who": {"email": "a@b", "all": [{"email": "c@d"}]}}
    given = {"principal": {"attrs": {"email": "e@f", "level": 3}, "parents": []}}
    line = written(tmp_path / "log", fields_of(context, given), "email", "tenant")
    assert line["context"] == {"tenant": REDACTED, "who": {"email": REDACTED, "all": [{"email": REDACTED}]}}
    assert line["given"]["principal"]["attrs"] == {"email": REDACTED, "level": 3}
    assert line["redacted"] == [
        "given.principal.attrs.email",
        "context.tenant",
        "context.who.email",
        "context.who.all.email",
    ]


@pytest.mark.parametrize(
    "context",
    [
        {"authorization": "x"},
        {"access_token": "x"},
        {"Password": "x"},
        {"sso_cookie": "x"},
        {"a": TOKEN},
        {"a": f"text around {TOKEN} it"},
        {"a": ["b", {"c": TOKEN}]},
        {"a": "Bearer abc"},
        {"a": "basic%20YTpi"},
        {"a": " DPoP+abc"},
    ],
)
def test_credentials_are_never_written(context: dict[str, Any], tmp_path: Path) -> None:
    line = written(tmp_path / "log", fields_of(context))
    assert len(line["redacted"]) == 1
    text = json.dumps(line)
    assert REDACTED in text
    assert TOKEN not in text
    assert "abc" not in text


def test_a_token_within_an_id_is_not_written(tmp_path: Path) -> None:
    line = written(tmp_path / "log", fields_of({}, resource=f"doc-{TOKEN}"))
    assert line["resource"] == {"type": "Order", "id": REDACTED}
    assert line["redacted"] == ["resource"]


@pytest.mark.parametrize("text", ["eye", "new", "the bearer of news", "basics", "eyJ", "keyed"])
def test_ordinary_words_stay(text: str, tmp_path: Path) -> None:
    line = written(tmp_path / "log", fields_of({"a": text}))
    assert (line["context"], "redacted" in line) == ({"a": text}, False)


def test_entities_that_are_missing_stay_missing(tmp_path: Path) -> None:
    fields = {**fields_of({}), "resource": None}
    assert written(tmp_path / "log", fields)["resource"] is None
