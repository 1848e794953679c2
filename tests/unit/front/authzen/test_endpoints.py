"""Who may ask, whose word counts, what a batch stops at, and what limits say."""

from __future__ import annotations

import base64
import contextlib
from pathlib import Path
from typing import Any

import pytest

from gateway.errors import BulkheadFullError
from gateway.front.authzen.search import SearchLimits
from tests.policy.decision_api import JSON, Pdp, caller, certification

POLICIES = """
@id("own") permit (principal, action == Action::"read", resource) when { resource.owner == principal };
@id("boss") permit (principal, action, resource) when { principal has boss && principal.boss };
@id("shut") forbid (principal, action, resource) when { resource.shut };
@id("soft") permit (principal, action == Action::"drop", resource) when { context.action.soft };
"""
ENTITIES = """[
  {"uid": {"type": "user", "id": "a"}, "attrs": {}, "parents": []},
  {"uid": {"type": "user", "id": "b"}, "attrs": {"boss": true}, "parents": []},
  {"uid": {"type": "doc", "id": "1"}, "attrs": {"owner": {"__entity": {"type": "user", "id": "a"}}, "shut": false},
   "parents": []},
  {"uid": {"type": "doc", "id": "2"}, "attrs": {"owner": {"__entity": {"type": "user", "id": "b"}}, "shut": true},
   "parents": []},
  {"uid": {"type": "doc", "id": "3"}, "attrs": {"owner": {"__entity": {"type": "user", "id": "a"}}}, "parents": []}
]"""
A, B = {"type": "user", "id": "a"}, {"type": "user", "id": "b"}
ONE, TWO, THREE = ({"type": "doc", "id": number} for number in "123")
READ = {"name": "read"}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "p.cedar").write_text(POLICIES)
    (tmp_path / "entities.json").write_text(ENTITIES)
    return tmp_path


def pdp(folder: Path, **options: Any) -> Pdp:
    return Pdp(folder, entities=folder / "entities.json", **options)


def asked(subject: Any, action: Any, resource: Any, **more: Any) -> dict[str, Any]:
    return {"subject": subject, "action": action, "resource": resource, **more}


def test_the_answer_says_why_and_how_new_it_is(folder: Path) -> None:
    answer = pdp(folder).post("evaluation", asked(A, READ, ONE)).json
    assert answer["decision"] is True
    assert answer["context"]["reasons"] == ["own"]
    assert len(answer["context"]["decision_id"]) == 32
    assert answer["context"]["revision"] > 0
    denied = pdp(folder).post("evaluation", asked(B, READ, TWO)).json
    assert (denied["decision"], denied["context"]["reasons"]) == (False, ["shut"])


def test_a_forbid_that_cannot_be_evaluated_denies(folder: Path) -> None:
    answer = pdp(folder).post("evaluation", asked(A, READ, THREE)).json
    assert answer["decision"] is False
    assert answer["context"]["code"] == "forbid_not_evaluated"
    assert answer["context"]["policy_errors"] == ["shut"]
    found = pdp(folder).post("search/resource", asked(A, READ, {"type": "doc"})).json
    assert [one["id"] for one in found["results"]] == ["1"]


@pytest.mark.parametrize(
    ("trust", "subject", "resource", "expected"),
    [
        ("none", {**A, "properties": {"boss": True}}, ONE, False),
        ("none", B, {**TWO, "properties": {"shut": False}}, False),
        ("resource", {**A, "properties": {"boss": True}}, ONE, False),
        ("resource", B, {**TWO, "properties": {"shut": False}}, True),
        ("all", {**A, "properties": {"boss": True}}, ONE, True),
        ("all", B, {**TWO, "properties": {"shut": False}}, True),
        # The subject as its own resource is still the subject.
        ("resource", A, {**A, "properties": {"boss": True, "shut": False}}, False),
        ("all", A, {**A, "properties": {"boss": True, "shut": False}}, True),
    ],
)
def test_properties_count_where_the_caller_is_trusted(
    folder: Path, trust: Any, subject: Any, resource: Any, expected: bool
) -> None:
    answer = pdp(folder, open_trust=trust).post("evaluation", asked(subject, {"name": "change"}, resource))
    assert answer.json["decision"] is expected


def test_properties_last_for_one_request(folder: Path) -> None:
    point = pdp(folder)
    loud = asked({**A, "properties": {"boss": True}}, {"name": "change"}, ONE)
    assert point.post("evaluation", loud).json["decision"] is True
    assert point.post("evaluation", asked(A, {"name": "change"}, ONE)).json["decision"] is False


def test_action_properties_are_in_the_context(folder: Path) -> None:
    for soft in (True, False):
        data = asked(A, {"name": "drop", "properties": {"soft": soft}}, ONE, context={"action": {"soft": not soft}})
        assert pdp(folder).post("evaluation", data).json["decision"] is soft


@pytest.mark.parametrize(
    ("semantic", "expected"),
    [
        ("execute_all", [True, False, True, False]),
        ("deny_on_first_deny", [True, False]),
        ("permit_on_first_permit", [True]),
    ],
)
def test_a_batch_ends_where_its_semantics_says(folder: Path, semantic: str, expected: list[bool]) -> None:
    items = [{"resource": ONE}, {"resource": TWO}, {"resource": ONE}, {"resource": {"type": "doc"}}]
    data = {"subject": A, "action": READ, "evaluations": items, "options": {"evaluations_semantic": semantic}}
    answer = pdp(folder).post("evaluations", data).json["evaluations"]
    assert [one["decision"] for one in answer] == expected


def test_an_evaluation_that_cannot_be_asked_denies_and_ends_a_strict_batch(folder: Path) -> None:
    items: list[dict[str, Any]] = [{"resource": {**ONE, "properties": {"size": 0.12345}}}, {"resource": ONE}]
    data = {"subject": A, "action": READ, "evaluations": items}
    found = pdp(folder).post("evaluations", data).json["evaluations"]
    assert [one["decision"] for one in found] == [False, True]
    assert found[0]["context"]["error"]["status"] == 400
    assert "/evaluations/0/resource/properties/size" in found[0]["context"]["error"]["message"]
    data["options"] = {"evaluations_semantic": "deny_on_first_deny"}
    assert len(pdp(folder).post("evaluations", data).json["evaluations"]) == 1


def test_values_that_cedar_does_not_have_are_refused_and_nulls_are_absent(folder: Path) -> None:
    refused: list[Any] = [0.12345, 2**63, [1.23456], {"deep": 1e300}]
    for value in refused:
        assert pdp(folder).post("evaluation", asked(A, READ, ONE, context={"v": value})).status == 400
    taken: list[Any] = [None, 1.5, [None, 1], {"deep": None}]
    for value in taken:
        assert pdp(folder).post("evaluation", asked(A, READ, ONE, context={"v": value})).json["decision"] is True


def test_limits_are_kept(folder: Path) -> None:
    point = pdp(folder, evaluations=2)
    assert point.post("evaluations", {**asked(A, READ, ONE), "evaluations": [{}] * 2}).status == 200
    assert point.post("evaluations", {**asked(A, READ, ONE), "evaluations": [{}] * 3}).status == 400
    body = b'{"x": "' + b"y" * 70_000 + b'"}'
    answer = point.send("POST", "/access/v1/evaluation", body, JSON)
    assert (answer.status, answer.json["code"]) == (413, "body_too_large")


@pytest.mark.parametrize("page", [1, 2, 3])
def test_a_search_is_whole_over_its_pages_however_little_is_looked_at(folder: Path, page: int) -> None:
    point = pdp(folder, search=SearchLimits(page, 1, 5.0))
    question = asked(B, READ, {"type": "doc"}) | {"subject": {**B, "properties": {"boss": True}}}
    found, token, pages = [], "", 0
    while True:
        answer = point.post("search/resource", {**question, "page": {"token": token}}).json
        found += [one["id"] for one in answer["results"]]
        token, pages = answer["page"]["next_token"], pages + 1
        if not token:
            break
    assert found == ["1"]
    assert pages == 4  # one candidate each, and the end


def test_an_older_state_than_asked_for_is_a_503(folder: Path) -> None:
    point = pdp(folder)
    revision = point.post("evaluation", asked(A, READ, ONE)).json["context"]["revision"]
    assert point.post("evaluation", asked(A, READ, ONE, context={"at_least": revision})).status == 200
    point.clock.now_s += 1
    real = point.clock.monotonic_s
    ticks = iter(range(10_000))
    point.clock.monotonic_s = lambda: real() + next(ticks)  # type: ignore[method-assign]
    answer = point.post("evaluation", asked(A, READ, ONE, context={"at_least": revision + 1}))
    assert (answer.status, answer.json["code"]) == (503, "revision_unavailable")
    assert answer.headers["retry-after"] == "1"


def test_nobody_is_served_without_proof_unless_that_is_said(folder: Path) -> None:
    point = pdp(folder, open_trust=None, callers={"pep": caller("secret")})

    def basic(text: str) -> tuple[str, str]:
        return ("authorization", f"Basic {base64.b64encode(text.encode()).decode()}")

    assert point.post("evaluation", asked(A, READ, ONE), basic("pep:secret")).json["decision"] is True
    proofs: list[list[tuple[str, str]]] = [
        [],
        [basic("pep:wrong")],
        [basic("nobody:secret")],
        [basic("pep")],
        [("authorization", "Bearer x")],
        [basic("pep:secret"), basic("pep:secret")],
    ]
    for proof in proofs:
        answer = point.post("evaluation", asked(A, READ, ONE), *proof)
        assert (answer.status, answer.json["code"]) == (401, "invalid_client")
    # A wrong proof is refused even where none is needed.
    assert pdp(folder).post("evaluation", asked(A, READ, ONE), basic("pep:wrong")).status == 401


def test_the_schema_says_which_questions_there_are() -> None:
    point = certification()
    alice, record = {"type": "user", "id": "alice"}, {"type": "record", "id": "record-1"}
    for question, code in (
        (asked(alice, {"name": "fly"}, record), "undeclared_action"),
        (asked({"type": "ship", "id": "1"}, READ, record), "undeclared_type"),
        (asked({"type": "a b", "id": "1"}, READ, record), "type_unknown"),
        (asked(record, READ, record), "wrong_type"),
    ):
        answer = point.post("evaluation", question)
        assert (answer.status, answer.json["decision"], answer.json["context"]["code"]) == (200, False, code)
    wrong = asked({**alice, "properties": {"role": 1}}, READ, record)
    assert point.post("evaluation", wrong).status == 400


def test_without_a_base_address_there_is_no_metadata(folder: Path) -> None:
    point = pdp(folder, base_url="")
    assert point.send("GET", "/.well-known/authzen-configuration", b"").status == 404


def test_a_request_id_that_cannot_stand_in_a_header_is_not_given_back(folder: Path) -> None:
    for given in ("x" * 257, "é"):
        answer = pdp(folder).post("evaluation", asked(A, READ, ONE), ("x-request-id", given))
        assert answer.status == 200
        assert "x-request-id" not in answer.headers


def test_a_full_pool_is_a_503_and_no_decision(folder: Path) -> None:
    place = pdp(folder)

    class Full(contextlib.AbstractAsyncContextManager[None]):
        async def __aenter__(self) -> None:
            raise BulkheadFullError("pool `token_validation` is full", retry_after_s=4.5)

        async def __aexit__(self, *_: object) -> None:
            pass

    place.api._serving = Full
    reply = place.post("evaluation", asked(A, READ, ONE))
    assert (reply.status, reply.json["code"], reply.headers["retry-after"]) == (503, "pool_full", "5")
    assert "decision" not in reply.json


def test_how_long_a_decision_took_is_told(folder: Path) -> None:
    place = pdp(folder)
    told: list[float] = []
    place.api._observe = told.append
    place.post("evaluation", asked(A, READ, ONE))
    place.post("evaluations", asked(A, READ, ONE, evaluations=[{"resource": ONE}, {"resource": TWO}]))
    assert len(told) == 3
    assert all(0.0 <= elapsed_s < 60.0 for elapsed_s in told)
