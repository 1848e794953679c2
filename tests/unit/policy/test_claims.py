"""Claims as values: what each declared type takes, and that nothing else is taken for one."""

from __future__ import annotations

from typing import Any

import pytest

from gateway._native.extensions import Datetime, Decimal, Duration, IPAddr
from gateway.policy import EntityUid, Schema
from gateway.policy.claims import IDS_MAX, find_claim, ids_of_claim, text_of_claim, value_of_claim
from gateway.policy.json_values import Misfit
from gateway.policy.schema import model

LONG, BOOL, TEXT = model.LongType(), model.BoolType(), model.StringType()
ROLE = model.EntityType("Role")
UNIT = model.RecordType({"id": model.Attribute(TEXT), "floor": model.Attribute(LONG, required=False)})
SCHEMA = Schema.parse('entity Role enum ["a", "b"];')


def extension(name: str) -> model.ExtensionType:
    return model.ExtensionType(name)


@pytest.mark.parametrize(
    ("name", "found"),
    [
        ("a", {"b": {"c": 1}}),
        ("a.b", {"c": 1}),
        ("a.b.c", 1),
        ("a.b.d", None),
        ("a.x.y", None),
        ("s.t", None),
        ("https://id.test/roles", ["r"]),
        ("x.y", "whole"),
        ("missing", None),
    ],
)
def test_a_claim_is_found_by_its_very_name_then_by_its_dots(name: str, found: object) -> None:
    claims = {"a": {"b": {"c": 1}}, "s": "t", "https://id.test/roles": ["r"], "x.y": "whole", "x": {"y": "part"}}
    assert find_claim(claims, name) == found


@pytest.mark.parametrize(
    ("claim", "declared", "value"),
    [
        (3, LONG, 3),
        (-(2**63), LONG, -(2**63)),
        (True, BOOL, True),
        ("", TEXT, ""),
        (1704067200, extension("datetime"), Datetime(1704067200000)),
        (0.5, extension("datetime"), Datetime(500)),
        ("2024-01-01", extension("datetime"), Datetime(1704067200000)),
        (1, extension("decimal"), Decimal.parse("1.0")),
        (1.25, extension("decimal"), Decimal.parse("1.25")),
        ("1.25", extension("decimal"), Decimal.parse("1.25")),
        ("10.0.0.0/8", extension("ipaddr"), IPAddr.parse("10.0.0.0/8")),
        ("1h", extension("duration"), Duration.parse("1h")),
        ("a", ROLE, EntityUid("Role", "a")),
        ({"type": "Role", "id": "a"}, ROLE, EntityUid("Role", "a")),
        (["a", None, "b"], model.SetType(TEXT), ["a", "b"]),
        ("a  b", model.SetType(TEXT), ["a", "b"]),
        ("a b", model.SetType(ROLE), [EntityUid("Role", "a"), EntityUid("Role", "b")]),
        ([[1], []], model.SetType(model.SetType(LONG)), [[1], []]),
        ({"id": "x", "floor": None, "more": 1.5}, UNIT, {"id": "x"}),
        ({"id": "x", "floor": 2}, UNIT, {"id": "x", "floor": 2}),
        ({"a": [1, "x", None], "b": None}, None, {"a": [1, "x"]}),
        (1.5, None, Decimal.parse("1.5")),
        ({"__entity": {"type": "Role", "id": "a"}}, None, {"__entity": {"type": "Role", "id": "a"}}),
    ],
)
def test_a_claim_becomes_a_value_of_its_type(claim: Any, declared: model.Type | None, value: object) -> None:
    made = value_of_claim(claim, declared, SCHEMA)
    assert (made, type(made)) == (value, type(value))


@pytest.mark.parametrize(
    ("claim", "declared"),
    [
        ("3", LONG),
        (True, LONG),
        (3.0, LONG),
        (2**63, LONG),
        (1, BOOL),
        ("true", BOOL),
        (1, TEXT),
        (["a"], TEXT),
        (True, extension("datetime")),
        (2**60, extension("datetime")),
        ("yesterday", extension("datetime")),
        (0.00001, extension("decimal")),
        (1e300, extension("decimal")),
        ("1", extension("decimal")),
        ("010.0.0.1", extension("ipaddr")),
        (1, extension("ipaddr")),
        (5, extension("duration")),
        (1, ROLE),
        ("c", ROLE),
        ({"type": "User", "id": "a"}, ROLE),
        ({"type": "Role", "id": 1}, ROLE),
        ({"type": "Role", "id": "a", "more": 1}, ROLE),
        ({"a": 1}, model.SetType(LONG)),
        (["a", 1], model.SetType(TEXT)),
        ("a c", model.SetType(ROLE)),
        ("x", UNIT),
        ({"floor": 1}, UNIT),
        ({"id": "x", "floor": "2"}, UNIT),
        (2**63, None),
        (1e-9, None),
    ],
)
def test_what_is_not_of_the_type_is_refused_without_telling_what_it_is(claim: Any, declared: model.Type | None) -> None:
    with pytest.raises(Misfit) as caught:
        value_of_claim(claim, declared, SCHEMA)
    for secret in ("yesterday", "010.0.0.1", "1e300", "true"):
        assert secret not in caught.value.message or secret == "true"


def test_depth_is_bounded() -> None:
    deep: Any = 1
    for _ in range(500):
        deep = [deep]
    with pytest.raises(Misfit, match="nested"):
        value_of_claim(deep, None, None)


def test_texts_are_made_of_texts_whole_numbers_and_truth_values() -> None:
    assert [text_of_claim(claim) for claim in ("a b", 7, -1, True, False)] == ["a b", "7", "-1", "true", "false"]
    for claim in (1.5, ["a"], {"a": 1}):
        with pytest.raises(Misfit):
            text_of_claim(claim)


def test_ids_are_an_array_or_the_words_of_a_text() -> None:
    assert ids_of_claim(["a b", "c", "a b"]) == ("a b", "c")
    assert ids_of_claim(" a  b ") == ("a", "b")
    assert ids_of_claim([]) == ids_of_claim("") == ()
    for claim in (["a", 1], 5, True, {"a": "b"}, ["x" + str(number) for number in range(IDS_MAX + 1)]):
        with pytest.raises(Misfit):
            ids_of_claim(claim)
