"""AuthZEN's public Todo decisions, by Cedar policies of ours (`tests/policy/todo`): all of them."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from typing import Any

from tests.policy.decision_api import Pdp, todo

FILE = "vectors/authzen/todo/decisions-authorization-api-1_0-02.json"
DRAFT = "vectors/authzen/todo/decisions.json"
REQUEST_SCHEMA = "vectors/authzen/spec/evaluation-request.schema.json"
RESPONSE_SCHEMA = "vectors/authzen/spec/evaluation-response.schema.json"


@cache
def pdp() -> Pdp:
    return todo()


def cases(shared: Path, kind: str, file: str = FILE) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads((shared / file).read_text())[kind]
    return found


def of_the_draft(request: dict[str, Any]) -> dict[str, Any]:
    """Write a request of the first draft as 1.0 has it.

    There a subject's `identity` was what is its `id` now, and properties stood beside `type` and `id`.
    """
    written: dict[str, Any] = {}
    for name, entity in request.items():
        own = {"type", "id", "name", "identity"}
        written[name] = {key: value for key, value in entity.items() if key in own - {"identity"}}
        written[name]["properties"] = {key: value for key, value in entity.items() if key not in own}
    written["subject"]["id"] = request["subject"].get("identity", request["subject"]["id"])
    return written


def test_every_single_decision_is_that_of_the_public_scenario(shared: Path) -> None:
    asked = cases(shared, "evaluation")
    wrong = [
        case["request"]
        for case in asked
        if pdp().post("evaluation", case["request"]).json["decision"] is not case["expected"]
    ]
    assert wrong == []
    assert len(asked) == 40


def test_every_batch_is_decided_as_in_the_public_scenario(shared: Path) -> None:
    asked = cases(shared, "evaluations")
    for case in asked:
        found = pdp().post("evaluations", case["request"]).json["evaluations"]
        assert [{"decision": one["decision"]} for one in found] == case["expected"]
    assert len(asked) == 3


def test_every_decision_of_the_draft_is_the_same_once_its_requests_are_written_as_1_0_has_them(shared: Path) -> None:
    asked = cases(shared, "decisions", DRAFT)
    wrong = [
        case["request"]
        for case in asked
        if pdp().post("evaluation", of_the_draft(case["request"])).json["decision"] is not case["expected"]
    ]
    assert wrong == []
    assert len(asked) == 40


def test_the_draft_as_it_stands_is_answered_and_allows_no_more(shared: Path) -> None:
    """Its subjects have other ids, and owners stand where 1.0 (§5) has us ignore them."""
    for case in cases(shared, "decisions", DRAFT):
        reply = pdp().post("evaluation", case["request"])
        assert reply.status == 200
        assert reply.json["decision"] <= case["expected"]


def test_every_public_file_has_a_test_here(shared: Path) -> None:
    folder = shared / "vectors"
    found = {path.relative_to(shared).as_posix() for path in (folder / "authzen").rglob("*") if path.is_file()}
    assert found == {FILE, DRAFT, REQUEST_SCHEMA, RESPONSE_SCHEMA}


def test_answers_and_requests_fit_the_public_schemas(shared: Path) -> None:
    request_schema = json.loads((shared / REQUEST_SCHEMA).read_text())
    response_schema = json.loads((shared / RESPONSE_SCHEMA).read_text())
    for case in cases(shared, "evaluation"):
        assert misfits(case["request"], request_schema) == []
        assert misfits(pdp().post("evaluation", case["request"]).json, response_schema) == []


def test_what_the_public_schema_refuses_is_a_400(shared: Path) -> None:
    schema = json.loads((shared / REQUEST_SCHEMA).read_text())
    good = cases(shared, "evaluation")[0]["request"]
    for name in ("subject", "action", "resource"):
        for bad in (
            {key: value for key, value in good.items() if key != name},
            {**good, name: "text"},
            {**good, name: {}},
            {**good, name: {**good[name], "properties": []}},
            *({**good, name: {**good[name], key: 1}} for key in good[name] if key != "properties"),
        ):
            assert misfits(bad, schema) != []
            assert pdp().post("evaluation", bad).status == 400


def misfits(value: Any, schema: dict[str, Any], place: str = "") -> list[str]:
    """Give where a value does not fit a JSON Schema: the four keywords that the public ones use, and no others."""
    unknown = schema.keys() - {"type", "required", "properties", "description", "title", "example", "examples"}
    assert not {key for key in unknown if not key.startswith("$")}
    kinds: dict[str, type] = {"object": dict, "string": str, "boolean": bool}
    if type(value) is not kinds[schema["type"]]:
        return [place]
    if not isinstance(value, dict):
        return []
    found = [f"{place}/{name}" for name in schema.get("required", ()) if name not in value]
    for name, inner in schema.get("properties", {}).items():
        if name in value:
            found += misfits(value[name], inner, f"{place}/{name}")
    return found
