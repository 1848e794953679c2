"""Contexts are read from JSON and Python; requests that the schema does not foresee are refused with a pointer."""

from __future__ import annotations

import json
from typing import Any

import pytest

from gateway._native.extensions import Datetime, Decimal, IPAddr
from gateway._native.uid import EntityUid
from gateway.policy import requests as module
from gateway.policy.faults import RequestError
from gateway.policy.requests import parse_context, validate_request
from gateway.policy.schema import Schema

SCHEMA = Schema.parse("""
    entity User, Ghost; entity Doc; entity Colour enum ["red"];
    action view appliesTo { principal: [User, Colour], resource: Doc,
      context: { at: datetime, ip?: ipaddr, by?: User } };
    action group;
""")
USER, DOC, VIEW = EntityUid("User", "u"), EntityUid("Doc", "d"), EntityUid("Action", "view")
NOW = Datetime.parse("2024-01-01")


def test_a_context_is_read_from_json_and_python() -> None:
    document = {"a": [1, {"b": True}], "c": {"__entity": {"type": "User", "id": "u"}}}
    wanted = {"a": [1, {"b": True}], "c": USER}
    assert parse_context(document) == parse_context(json.dumps(document)) == wanted
    assert parse_context(json.dumps(document).encode()) == wanted
    assert parse_context({"a": (1, USER), "d": Decimal.parse("1.5")}) == {"a": [1, USER], "d": Decimal.parse("1.5")}


def test_the_type_of_an_actions_context_guides_the_reading() -> None:
    document = {"at": "2024-01-01", "ip": "10.0.0.1", "by": {"type": "User", "id": "u"}, "other": "2024-01-01"}
    wanted = {"at": NOW, "ip": IPAddr("10.0.0.1"), "by": USER, "other": "2024-01-01"}
    assert parse_context(document, SCHEMA, VIEW) == wanted
    assert parse_context(document, SCHEMA)["at"] == "2024-01-01"


@pytest.mark.parametrize(
    ("code", "pointer", "context"),
    [
        ("ill_typed", "/", []),
        ("ill_typed", "/", "[]"),
        ("no_json", None, "{"),
        ("duplicate_name", None, '{"a": 1, "a": 2}'),
        ("no_value", "/a~1b", {"a/b": None}),
        ("no_value", "/a/0", {"a": [1.5]}),
        ("no_value", "/", {1: 2}),
        ("number_too_large", "/a", {"a": 2**63}),
        ("extension_value", "/at", {"at": "yesterday"}),
    ],
)
def test_what_is_no_context_is_refused(code: str, pointer: str | None, context: Any) -> None:
    with pytest.raises(RequestError) as caught:
        parse_context(context, SCHEMA, VIEW)
    assert [(fault.code, fault.pointer) for fault in caught.value.faults] == [(code, pointer)]


def test_a_context_is_never_an_entity_as_a_whole() -> None:
    with pytest.raises(RequestError):
        parse_context({"__entity": {"type": "User", "id": "u"}}, SCHEMA, EntityUid("Action", "nope"))
    assert isinstance(parse_context({"type": "User", "id": "u"}), dict)


def test_a_context_of_an_undeclared_action_is_refused() -> None:
    with pytest.raises(RequestError) as caught:
        parse_context({}, SCHEMA, EntityUid("Action", "vieww"))
    (fault,) = caught.value.faults
    assert (fault.code, fault.pointer) == ("undeclared_action", "/action")
    assert "view" in fault.hint


def test_a_context_beyond_the_limit_is_refused() -> None:
    with pytest.raises(RequestError) as caught:
        parse_context(" " * (module.CONTEXT_BYTES_MAX + 1))
    assert caught.value.faults[0].code == "too_large"


def test_a_request_that_the_schema_foresees_is_accepted() -> None:
    validate_request(SCHEMA, USER, VIEW, DOC, {"at": NOW, "by": USER})
    validate_request(SCHEMA, EntityUid("Colour", "red"), VIEW, DOC, {"at": NOW})


@pytest.mark.parametrize(
    ("found", "principal", "action", "resource", "context"),
    [
        ([("undeclared_action", "/action")], USER, EntityUid("Action", "edit"), DOC, {}),
        ([("undeclared_action", "/action")], USER, USER, DOC, {}),
        ([("undeclared_type", "/principal")], EntityUid("Usr", "u"), VIEW, DOC, {"at": NOW}),
        ([("undeclared_type", "/resource")], USER, VIEW, VIEW, {"at": NOW}),
        ([("wrong_type", "/principal")], EntityUid("Ghost", "g"), VIEW, DOC, {"at": NOW}),
        ([("wrong_type", "/principal"), ("wrong_type", "/resource")], DOC, VIEW, USER, {"at": NOW}),
        ([("wrong_type", "/principal"), ("wrong_type", "/resource")], USER, EntityUid("Action", "group"), DOC, {}),
        ([("unknown_choice", "/principal")], EntityUid("Colour", "blue"), VIEW, DOC, {"at": NOW}),
        ([("missing_attribute", "/context")], USER, VIEW, DOC, None),
        ([("wrong_type", "/context/at")], USER, VIEW, DOC, {"at": "2024-01-01"}),
        ([("undeclared_attribute", "/context/x")], USER, VIEW, DOC, {"at": NOW, "x": 1}),
    ],
)
def test_a_request_that_the_schema_does_not_foresee_is_refused(
    found: list[tuple[str, str]], principal: EntityUid, action: EntityUid, resource: EntityUid, context: Any
) -> None:
    with pytest.raises(RequestError) as caught:
        validate_request(SCHEMA, principal, action, resource, context)
    assert [(fault.code, fault.pointer) for fault in caught.value.faults] == found
    assert all(fault.message[0] in "`abcdefghijklmnopqrstuvwxyz" for fault in caught.value.faults)
