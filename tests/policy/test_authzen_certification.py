"""What AuthZEN's certification scenario for the Authorization API 1.0 tests, all levels, by policies of ours.

The test ids are those of the scenario (openid/authzen, `certification/authorization-api-1_0-scenario.md`).
"""

from __future__ import annotations

from functools import cache
from typing import Any

import pytest

from tests.policy.decision_api import JSON, Pdp, certification

ALICE = {"type": "user", "id": "alice"}
BOB = {"type": "user", "id": "bob"}
ADMIN_BOB = {**BOB, "properties": {"role": "admin"}}
USER, RECORD = {"type": "user"}, {"type": "record"}
ONE, TWO = {"type": "record", "id": "record-1"}, {"type": "record", "id": "record-2"}
ACTIVE = {**ONE, "properties": {"status": "active"}}
ARCHIVED = {**TWO, "properties": {"status": "archived"}}
READ, WRITE = {"name": "read"}, {"name": "write"}
WHEN = {"time": "2026-03-01T10:30+01:00", "ip": "192.0.2.7"}
GOOD = {"subject": ALICE, "action": READ, "resource": ONE}


def delete(soft: bool) -> dict[str, Any]:
    return {"name": "delete", "properties": {"soft": soft}}


def asked(subject: Any, action: Any, resource: Any, **more: Any) -> dict[str, Any]:
    return {"subject": subject, "action": action, "resource": resource, **more}


def without(name: str, data: dict[str, Any] = GOOD) -> dict[str, Any]:
    return {key: value for key, value in data.items() if key != name}


BASIC = [
    ("c-2-2-1", GOOD, True),
    ("c-2-2-2", asked(BOB, WRITE, ONE), False),
    ("c-2-2-3", asked(ALICE, READ, ONE, context=WHEN), True),
    ("c-2-2-4", asked(ALICE, WRITE, ARCHIVED), False),
    ("c-2-2-5", asked(ADMIN_BOB, WRITE, ARCHIVED), True),
    ("c-2-2-6", asked(ALICE, delete(True), ONE), True),
    ("c-2-2-7", asked(ALICE, delete(False), ONE), False),
    (
        "c-2-2-8",
        asked(
            {**ALICE, "properties": {"department": "Sales", "role": "manager"}},
            {**READ, "properties": {"method": "GET"}},
            {**ONE, "properties": {"status": "active", "owner": "bob"}},
        ),
        True,
    ),
    ("c-2-2-9", {**GOOD, "more": 1, "later": {"deep": [True, None, 0.123456789]}}, True),
    ("c-1-4 rule 2", asked(ALICE, WRITE, ONE), True),
    ("c-1-4 rule 3", asked(BOB, READ, ONE), True),
]

BATCH = [
    (
        "c-3-2-1",
        {"subject": ALICE, "action": READ, "evaluations": [{"resource": ONE}, {"resource": TWO}]},
        [True, True],
    ),
    ("c-3-2-2", {"subject": BOB, "resource": ONE, "evaluations": [{"action": READ}, {"action": WRITE}]}, [True, False]),
    (
        "c-3-2-3",
        {"subject": ALICE, "action": WRITE, "evaluations": [{"resource": ACTIVE}, {"resource": ARCHIVED}]},
        [True, False],
    ),
    (
        "c-3-2-4",
        {"action": WRITE, "resource": ARCHIVED, "evaluations": [{"subject": ALICE}, {"subject": ADMIN_BOB}]},
        [False, True],
    ),
    ("c-3-2-5", {"evaluations": [GOOD, asked(BOB, WRITE, ONE)]}, [True, False]),
    (
        "c-3-2-6",
        {
            "subject": ALICE,
            "action": READ,
            "context": WHEN,
            "evaluations": [{"resource": ONE}, {"resource": TWO, "context": {**WHEN, "source": "item"}}],
        },
        [True, True],
    ),
    (
        "c-3-2-7",
        {
            "subject": ALICE,
            "action": WRITE,
            "resource": {"type": "record"},
            "evaluations": [{"resource": without("type", ACTIVE)}, {"resource": ARCHIVED}],
        },
        [True, False],
    ),
    ("c-3-4-1", {"subject": ALICE, "action": READ, "evaluations": [{"resource": ONE}, {}]}, [True, False]),
]

SEARCHES = [
    ("c-4-2-1", "subject", {"subject": USER, "action": READ, "resource": ONE}, ["alice", "bob"]),
    ("c-4-2-2", "subject", {"subject": USER, "action": READ, "resource": ONE, "context": WHEN}, ["alice", "bob"]),
    ("c-4-2-3", "subject", {"subject": {**USER, "id": "any"}, "action": READ, "resource": ONE}, ["alice", "bob"]),
    ("c-4-2-4", "subject", {"subject": USER, "action": WRITE, "resource": ARCHIVED}, ["bob"]),
    ("c-4-3-1", "resource", {"subject": ALICE, "action": READ, "resource": RECORD}, ["record-1", "record-2"]),
    ("c-4-3-2", "resource", {"subject": ALICE, "action": READ, "resource": ONE}, ["record-1", "record-2"]),
    ("c-4-3-3", "resource", {"subject": ADMIN_BOB, "action": WRITE, "resource": RECORD}, ["record-2"]),
    ("c-4-4-1", "action", {"subject": ALICE, "resource": ONE}, ["read", "write"]),
    ("c-4-4-2", "action", {"subject": ALICE, "resource": ONE, "context": WHEN}, ["read", "write"]),
    ("c-4-4-3", "action", {"subject": ADMIN_BOB, "resource": ARCHIVED}, ["read", "write"]),
    ("c-4-6-1", "action", {"subject": {"type": "user", "id": "nobody"}, "resource": ONE}, []),
    ("c-4-6-2", "subject", {"subject": {"type": "spaceship"}, "action": READ, "resource": ONE}, []),
    ("c-4-6-2", "subject", {"subject": {"type": "no such type!"}, "action": READ, "resource": ONE}, []),
    ("c-4-6-2", "resource", {"subject": ALICE, "action": READ, "resource": {"type": "spaceship"}}, []),
]

MALFORMED = [
    ("c-2-4-1", "evaluation", without("subject")),
    ("c-2-4-1", "evaluation", without("action")),
    ("c-2-4-1", "evaluation", without("resource")),
    ("c-2-4-2", "evaluation", {**GOOD, "subject": {"id": "alice"}}),
    ("c-2-4-2", "evaluation", {**GOOD, "subject": USER}),
    ("c-2-4-2", "evaluation", {**GOOD, "action": {}}),
    ("c-2-4-2", "evaluation", {**GOOD, "resource": {"id": "record-1"}}),
    ("c-2-4-2", "evaluation", {**GOOD, "resource": RECORD}),
    ("c-2-4-6", "evaluation", {**GOOD, "subject": "alice"}),
    ("c-2-4-6", "evaluation", {**GOOD, "action": {"name": 123}}),
    ("c-2-4-6", "evaluation", {**GOOD, "context": []}),
    ("c-4-7-1", "search/subject", {"subject": USER, "resource": ONE}),
    ("c-4-7-1", "search/resource", {"action": READ, "resource": RECORD}),
    ("c-4-7-1", "search/action", {"subject": ALICE}),
    ("c-4-7-2", "search/subject", {"subject": USER, "action": READ, "resource": RECORD}),
    ("c-4-7-2", "search/resource", {"subject": USER, "action": READ, "resource": RECORD}),
]


@cache
def pdp() -> Pdp:
    return certification()


def named(cases: list[tuple[Any, ...]]) -> list[str]:
    return [str(case[0]) for case in cases]


@pytest.mark.parametrize("case", BASIC, ids=named(BASIC))
def test_a_single_question_is_answered(case: tuple[str, dict[str, Any], bool]) -> None:
    answers = [pdp().post("evaluation", case[1]) for _ in range(3)]  # c-2-6: each time the same
    for answer in answers:
        assert (answer.status, answer.json["decision"]) == (200, case[2])
        assert answer.headers["content-type"] == "application/json"
        assert isinstance(answer.json["context"], dict)  # c-2-3


@pytest.mark.parametrize("case", BATCH, ids=named(BATCH))
def test_a_batch_is_answered_in_its_order(case: tuple[str, dict[str, Any], list[bool]]) -> None:
    answer = pdp().post("evaluations", case[1])
    assert answer.status == 200
    assert "decision" not in answer.json  # c-3-3-4
    assert [one["decision"] for one in answer.json["evaluations"]] == case[2]


@pytest.mark.parametrize("more", [{}, {"evaluations": []}], ids=["c-3-4-2", "c-3-4-3"])
def test_a_batch_of_nothing_is_a_single_question(more: dict[str, Any]) -> None:
    answer = pdp().post("evaluations", {**GOOD, **more})
    assert (answer.status, answer.json["decision"]) == (200, True)
    assert "evaluations" not in answer.json


@pytest.mark.parametrize("case", SEARCHES, ids=named(SEARCHES))
def test_a_search_gives_all_that_would_be_allowed(case: tuple[str, str, dict[str, Any], list[str]]) -> None:
    _, target, data, expected = case
    answer = pdp().post(f"search/{target}", data)
    assert answer.status == 200
    key = "name" if target == "action" else "id"
    assert [one[key] for one in answer.json["results"]] == expected
    if target != "action":
        assert {one["type"] for one in answer.json["results"]} <= {data[target]["type"]}


def test_a_search_comes_in_pages() -> None:
    """Tests c-4-5: a later page needs no more than the token beside the same question."""
    question = {"subject": USER, "action": READ, "resource": ONE}
    first = pdp().post("search/subject", {**question, "page": {"limit": 1}}).json
    assert [one["id"] for one in first["results"]] == ["alice"]
    assert first["page"]["count"] == 1
    assert first["page"]["next_token"]
    second = pdp().post("search/subject", {**question, "page": {"token": first["page"]["next_token"]}}).json
    assert [one["id"] for one in second["results"]] == ["bob"]
    assert second["page"]["next_token"] == ""


@pytest.mark.parametrize("case", MALFORMED, ids=named(MALFORMED))
def test_what_is_malformed_is_a_400(case: tuple[str, str, Any]) -> None:
    answer = pdp().post(case[1], case[2])
    assert (answer.status, answer.json["code"]) == (400, "invalid_request")


@pytest.mark.parametrize("path", ["evaluation", "evaluations", "search/subject", "search/resource", "search/action"])
def test_what_is_no_json_is_a_400(path: str) -> None:
    """Tests c-2-4-3 to c-2-4-5."""
    for headers, body in (
        ([("content-type", "text/plain")], b"{}"),
        ([], b"{}"),
        ([JSON], b"{"),
        ([JSON], b""),
        ([JSON], b"[]"),
        ([JSON], b'{"a": NaN}'),
        ([JSON], b'{"a": 1, "a": 2}'),
        ([JSON], b'{"a": "\\ud800"}'),
        ([JSON], b"\xff"),
        ([JSON], b'{"a":' + b"[" * 5000 + b"]" * 5000 + b"}"),
    ):
        answer = pdp().send("POST", f"/access/v1/{path}", body, *headers)
        assert (answer.status, answer.json["code"]) == (400, "invalid_request")


@pytest.mark.parametrize("path", ["evaluation", "evaluations", "search/action"])
def test_the_callers_request_id_comes_back(path: str) -> None:
    """Tests c-2-5, for refusals too."""
    for data in (GOOD, {}):
        answer = pdp().post(path, data, ("x-request-id", "bfe9eb29-ab87-4ca3-be83-a1d5d8305716"))
        assert answer.headers["x-request-id"] == "bfe9eb29-ab87-4ca3-be83-a1d5d8305716"
    assert pdp().post(path, GOOD).status == 200


def test_the_metadata_names_this_decision_point() -> None:
    """Tests c-6."""
    answer = pdp().send("GET", "/.well-known/authzen-configuration", b"")
    assert (answer.status, answer.headers["content-type"]) == (200, "application/json")
    base = "https://pdp.example.com"
    assert answer.json == {
        "policy_decision_point": base,
        "access_evaluation_endpoint": f"{base}/access/v1/evaluation",
        "access_evaluations_endpoint": f"{base}/access/v1/evaluations",
        "search_subject_endpoint": f"{base}/access/v1/search/subject",
        "search_resource_endpoint": f"{base}/access/v1/search/resource",
        "search_action_endpoint": f"{base}/access/v1/search/action",
    }
