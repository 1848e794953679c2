"""What callers send is read exactly: each fault names its member, and unknown members are ignored."""

from __future__ import annotations

from typing import Any

import pytest

from gateway.front.authzen.messages import (
    ActionName,
    AtLeast,
    BadRequest,
    Batch,
    Party,
    Question,
    parse_batch,
    parse_body,
    parse_question,
    parse_search,
)

SUBJECT, ACTION, RESOURCE = {"type": "user", "id": "a"}, {"name": "read"}, {"type": "doc", "id": "1"}
GOOD = {"subject": SUBJECT, "action": ACTION, "resource": RESOURCE}


def fault_of(call: Any, *arguments: Any, **options: Any) -> tuple[str, str]:
    with pytest.raises(BadRequest) as caught:
        call(*arguments, **options)
    return caught.value.pointer, str(caught.value)


def test_a_question_is_read_and_what_is_unknown_ignored() -> None:
    data = {**GOOD, "context": {"ip": "1.2.3.4", "at_least": 7}, "foo": 1, "subject": {**SUBJECT, "x": None}}
    assert parse_question(data) == Question(
        Party("user", "a"), ActionName("read"), Party("doc", "1"), {"ip": "1.2.3.4"}, AtLeast(7)
    )


@pytest.mark.parametrize(
    ("change", "pointer", "text"),
    [
        ({"subject": None}, "/subject", "`/subject`: must be an object"),
        ({"subject": {"id": "a"}}, "/subject/type", "`/subject/type`: is missing"),
        ({"subject": {"type": "user", "id": 1}}, "/subject/id", "`/subject/id`: must be a string"),
        ({"action": {}}, "/action/name", "`/action/name`: is missing"),
        ({"action": {"name": None}}, "/action/name", "`/action/name`: must be a string"),
        ({"resource": {**RESOURCE, "id": ""}}, "/resource/id", "must have 1 to 1024 characters"),
        ({"resource": {**RESOURCE, "id": "x" * 1025}}, "/resource/id", "must have 1 to 1024 characters"),
        ({"resource": {**RESOURCE, "properties": 1}}, "/resource/properties", "must be an object"),
        ({"context": None}, "/context", "must be an object"),
        ({"context": {"at_least": True}}, "/context/at_least", "must be a revision"),
        ({"context": {"at_least": -1}}, "/context/at_least", "must be a revision"),
        ({"context": {"at_least": 2**63}}, "/context/at_least", "must be a revision"),
        ({"context": {"at_least": "7"}}, "/context/at_least", "must be a revision"),
        ({"context": {"at_least": ""}}, "/context/at_least", "must be a revision"),
        ({"context": {"at_least": "~a:1"}}, "/context/at_least", "must be a revision"),
        ({"context": {"at_least": "-1~a:1"}}, "/context/at_least", "must be a revision"),
        ({"context": {"at_least": f"{2**63}~a:1"}}, "/context/at_least", "must be a revision"),
        ({"context": {"at_least": "1~2~a:1"}}, "/context/at_least", "must be a revision"),
        ({"context": {"at_least": "a:" + "1" * 255}}, "/context/at_least", "must be a revision"),
        ({"context": {"at_least": 1.0}}, "/context/at_least", "must be a revision"),
    ],
)
def test_a_malformed_member_is_named(change: dict[str, Any], pointer: str, text: str) -> None:
    found = fault_of(parse_question, {**GOOD, **change})
    assert found[0] == pointer
    assert text in found[1]


def test_a_body_has_one_meaning() -> None:
    assert parse_body(b'{"a": {"b": 1}}') == {"a": {"b": 1}}
    for body in (
        b"",
        b"[]",
        b"1",
        b"null",
        b"{",
        b'{"a":1,"a":1}',
        b'{"a":{"b":1,"b":2}}',
        b'{"a":Infinity}',
        b"\xff{}",
    ):
        fault_of(parse_body, body)


def test_evaluations_take_whole_objects_from_the_top_and_names_one_by_one() -> None:
    data = {
        "subject": {**SUBJECT, "properties": {"top": 1}},
        "action": ACTION,
        "resource": {"type": "doc", "properties": {"top": 1}},
        "context": {"top": 1},
        "evaluations": [
            {"resource": {"id": "1"}},
            {"resource": {"id": "2", "type": "pic"}, "subject": {"id": "b"}, "context": {}},
        ],
    }
    batch = parse_batch(data, items_max=9)
    assert isinstance(batch, Batch)
    assert batch.semantic == "execute_all"
    assert batch.items == (
        Question(Party("user", "a", {"top": 1}), ActionName("read"), Party("doc", "1"), {"top": 1}),
        Question(Party("user", "b"), ActionName("read"), Party("pic", "2"), {}),
    )


def test_a_malformed_evaluation_spoils_no_other() -> None:
    batch = parse_batch({**GOOD, "evaluations": [{}, {"action": {"name": 1}}, {"subject": "a"}]}, items_max=9)
    assert isinstance(batch, Batch)
    assert isinstance(batch.items[0], Question)
    pointers = [item.pointer for item in batch.items[1:] if isinstance(item, BadRequest)]
    assert pointers == ["/evaluations/1/action/name", "/evaluations/2/subject"]


def test_the_newest_revision_that_any_evaluation_asks_for_counts() -> None:
    wishes = [3, 9, "5~a:1", "a:1", "a:2"]
    data = {**GOOD, "evaluations": [*({"context": {"at_least": wish}} for wish in wishes), {}]}
    batch = parse_batch(data, items_max=9)
    assert isinstance(batch, Batch)
    assert batch.at_least == AtLeast(9, ("a:1", "a:2"))


@pytest.mark.parametrize(
    ("given", "read"),
    [
        (0, AtLeast(0)),
        ("17~ab:12", AtLeast(17, ("ab:12",))),
        ("17~", AtLeast(17)),  # of relations that nobody ever wrote
        ("ab:12", AtLeast(0, ("ab:12",))),
        ("ab:170-3", AtLeast(0, ("ab:170-3",))),
    ],
)
def test_a_revision_is_a_number_or_what_a_store_of_relations_gave(given: object, read: AtLeast) -> None:
    assert parse_question({**GOOD, "context": {"at_least": given}}).at_least == read


@pytest.mark.parametrize(
    ("change", "pointer"),
    [
        ({"evaluations": None}, "/evaluations"),
        ({"evaluations": {}}, "/evaluations"),
        ({"evaluations": [1]}, "/evaluations/0"),
        ({"evaluations": [{}] * 4}, "/evaluations"),
        ({"evaluations": [{}], "subject": "a"}, "/subject"),
        ({"evaluations": [{}], "context": []}, "/context"),
        ({"evaluations": [{}], "options": []}, "/options"),
        ({"evaluations": [{}], "options": {"evaluations_semantic": "some"}}, "/options/evaluations_semantic"),
        ({"evaluations": [{}], "options": {"evaluations_semantic": []}}, "/options/evaluations_semantic"),
        ({"evaluations": [], "action": 1}, "/action"),
    ],
)
def test_a_batch_that_is_malformed_as_a_whole_is_refused(change: dict[str, Any], pointer: str) -> None:
    assert fault_of(parse_batch, {**GOOD, **change}, items_max=3)[0] == pointer


def test_a_search_leaves_out_what_it_asks_for() -> None:
    question = parse_search({**GOOD, "page": {"limit": 5000}}, "subject", limit_max=100)
    assert (question.subject.id, question.limit, question.token) == ("", 100, "")
    assert parse_search({"subject": SUBJECT, "resource": RESOURCE}, "action", limit_max=9).action is None


@pytest.mark.parametrize(
    ("target", "change", "pointer"),
    [
        ("subject", {"subject": {}}, "/subject/type"),
        ("subject", {"resource": {"type": "doc"}}, "/resource/id"),
        ("resource", {"subject": {"type": "user"}}, "/subject/id"),
        ("action", {"resource": {"type": "doc"}}, "/resource/id"),
        ("subject", {"page": 1}, "/page"),
        ("subject", {"page": {"limit": 0}}, "/page/limit"),
        ("subject", {"page": {"limit": True}}, "/page/limit"),
        ("subject", {"page": {"limit": None}}, "/page/limit"),
        ("subject", {"page": {"limit": 1.5}}, "/page/limit"),
        ("subject", {"page": {"token": 1}}, "/page/token"),
    ],
)
def test_a_malformed_search_is_refused(target: Any, change: dict[str, Any], pointer: str) -> None:
    assert fault_of(parse_search, {**GOOD, **change}, target, limit_max=9)[0] == pointer
