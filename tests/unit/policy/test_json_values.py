"""Values in JSON: explicit and implicit forms, faults with their pointers, and back."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway._native.entities import DEPTH_MAX
from gateway._native.extensions import Datetime, Decimal, Duration, IPAddr
from gateway._native.uid import EntityUid
from gateway.policy.json_values import (
    Misfit,
    check_type,
    frozen,
    is_type_name,
    near,
    uid_from_json,
    value_from_json,
    value_to_json,
)
from gateway.policy.schema import Schema
from gateway.policy.schema.model import (
    Attribute,
    BoolType,
    EntityType,
    ExtensionType,
    LongType,
    RecordType,
    SetType,
    StringType,
    Type,
)

ALICE = EntityUid("User", "alice")
DAY = {"__extn": {"fn": "datetime", "arg": "2024-01-02T03:04:05Z"}}
SPAN = {"__extn": {"fn": "duration", "arg": "1h"}}
SCHEMA = Schema.parse('entity User; entity Colour enum ["red"]; action view;')


def call(function: str, *arguments: Any) -> dict[str, Any]:
    return {"__extn": {"fn": function, "args": list(arguments)}}


def deep(levels: int) -> Any:
    value: Any = 1
    for _ in range(levels):
        value = [value]
    return value


@pytest.mark.parametrize(
    ("data", "value"),
    [
        (True, True),
        (2**63 - 1, 2**63 - 1),
        ("0.6", "0.6"),
        ({"__entity": {"type": "User", "id": "alice"}}, ALICE),
        ({"type": "User", "id": "alice"}, {"type": "User", "id": "alice"}),
        ({"__extn": {"fn": "ip", "arg": "10.0.0.1"}}, IPAddr("10.0.0.1")),
        (call("decimal", "1.5"), Decimal.parse("1.5")),
        (call("offset", DAY, SPAN), Datetime.parse("2024-01-02T04:04:05Z")),
        (call("durationSince", DAY, DAY), Duration(0)),
        (call("toDate", DAY), Datetime.parse("2024-01-02")),
        (call("toTime", DAY), Duration.parse("3h4m5s")),
        ([1, [True]], [1, [True]]),
        ((1, {2}), [1, [2]]),
        (ALICE, ALICE),
        ({"a": Decimal.parse("1.0")}, {"a": Decimal.parse("1.0")}),
    ],
)
def test_a_value_is_read_without_a_type(data: Any, value: Any) -> None:
    assert value_from_json(data, None, "") == value


@pytest.mark.parametrize(
    ("wanted", "data", "value"),
    [
        (ExtensionType("decimal"), "0.6", Decimal.parse("0.6")),
        (ExtensionType("ipaddr"), {"fn": "ip", "arg": "::1"}, IPAddr("::1")),
        (ExtensionType("datetime"), call("offset", "2024-01-01", "1h"), Datetime.parse("2024-01-01T01:00:00Z")),
        (EntityType("User"), {"type": "User", "id": "alice"}, ALICE),
        (SetType(ExtensionType("duration")), ["1h"], [Duration.parse("1h")]),
        (RecordType({"d": Attribute(ExtensionType("decimal"))}), {"d": "1.0"}, {"d": Decimal.parse("1.0")}),
        (RecordType({"__entity": Attribute(LongType())}), {"__entity": 1}, {"__entity": 1}),
        (StringType(), "0.6", "0.6"),
    ],
)
def test_a_type_guides_the_reading(wanted: Type, data: Any, value: Any) -> None:
    assert value_from_json(data, wanted, "") == value


@pytest.mark.parametrize(
    ("code", "pointer", "data"),
    [
        ("no_value", "/v/a", {"a": None}),
        ("no_value", "/v/1", [1, 1.5]),
        ("no_value", "/v/a~1b~0", {"a/b~": 0.0}),
        ("no_value", "/v", object()),
        ("no_value", "/v", {1: 2}),
        ("number_too_large", "/v/0", [2**63]),
        ("number_too_large", "/v", -(2**63) - 1),
        ("too_deep", "/v" + "/0" * (DEPTH_MAX + 1), deep(DEPTH_MAX + 1)),
        ("no_value", "/v", {"__expr": "1"}),
        ("no_value", "/v", {"__entity": {"type": "A", "id": "b"}, "c": 1}),
        ("no_entity", "/v/__entity", {"__entity": {"type": "A"}}),
        ("no_type_name", "/v/__entity/type", {"__entity": {"type": "a b", "id": "c"}}),
        ("no_value", "/v/__extn", {"__extn": None}),
        ("no_value", "/v/__extn", {"__extn": {"fn": "ip"}}),
        ("unknown_function", "/v/__extn/fn", call("isIpv4", "::1")),
        ("wrong_arguments", "/v/__extn", call("ip", "::1", "::1")),
        ("wrong_arguments", "/v/__extn/args/0", call("ip", 1)),
        ("wrong_arguments", "/v/__extn/args/0", call("offset", "2024-01-01", "1h")),
        ("extension_value", "/v/__extn", call("ip", "300.0.0.1")),
        ("extension_value", "/v/__extn", call("offset", DAY, {"__extn": {"fn": "duration", "arg": "106751991167d"}})),
    ],
)
def test_what_is_no_value_is_told_with_its_pointer(code: str, pointer: str, data: Any) -> None:
    with pytest.raises(Misfit) as caught:
        value_from_json(data, None, "/v")
    assert (caught.value.code, caught.value.pointer) == (code, pointer)


@pytest.mark.parametrize(
    ("code", "wanted", "value"),
    [
        ("wrong_type", BoolType(), 1),
        ("wrong_type", LongType(), True),
        ("wrong_type", StringType(), 1),
        ("wrong_type", ExtensionType("decimal"), "1.0"),
        ("wrong_type", ExtensionType("ipaddr"), Decimal.parse("1.0")),
        ("wrong_type", EntityType("Colour"), ALICE),
        ("wrong_type", SetType(LongType()), {"a": 1}),
        ("wrong_type", SetType(LongType()), [1, "a"]),
        ("wrong_type", RecordType(), []),
        ("unknown_choice", EntityType("Colour"), EntityUid("Colour", "blue")),
        ("undeclared_action", EntityType("Action"), EntityUid("Action", "edit")),
        ("missing_attribute", RecordType({"a": Attribute(LongType())}), {}),
        ("undeclared_attribute", RecordType({"a": Attribute(LongType(), required=False)}), {"b": 1}),
    ],
)
def test_a_value_of_another_type_is_refused(code: str, wanted: Type, value: Any) -> None:
    with pytest.raises(Misfit) as caught:
        check_type(value, wanted, SCHEMA, "")
    assert caught.value.code == code


@pytest.mark.parametrize(
    ("wanted", "value"),
    [
        (EntityType("Colour"), EntityUid("Colour", "red")),
        (EntityType("Action"), EntityUid("Action", "view")),
        (SetType(LongType()), (1, 2)),
        (RecordType({"a": Attribute(LongType(), required=False)}), {}),
        (ExtensionType("duration"), Duration(1)),
    ],
)
def test_a_value_of_its_type_is_accepted(wanted: Type, value: Any) -> None:
    check_type(value, wanted, SCHEMA, "")


def test_an_entity_of_an_undeclared_type_is_refused() -> None:
    with pytest.raises(Misfit) as caught:
        check_type(EntityUid("Ghost", "g"), EntityType("Ghost"), SCHEMA, "/x")
    assert (caught.value.code, caught.value.pointer) == ("undeclared_type", "/x")


@pytest.mark.parametrize("name", ["User", "A::B::C", "_", "a1"])
def test_a_type_name_is_known(name: str) -> None:
    assert is_type_name(name)
    assert uid_from_json({"type": name, "id": ""}, "") == EntityUid(name, "")


@pytest.mark.parametrize("name", ["", "1a", "a b", "A:B", "A::", "::A", "if", "A::in", "__cedar::A", "Ä", "A\n"])
def test_what_is_no_type_name_is_refused(name: str) -> None:
    assert not is_type_name(name)
    with pytest.raises(Misfit):
        uid_from_json({"type": name, "id": ""}, "")


def test_near_names_are_guessed_and_far_ones_are_not() -> None:
    assert near("Usr", ["User", "Group"]) == "did you mean `User`?"
    assert near("zzz", ["User", "Group"]) == ""


def test_frozen_values_are_equal_as_cedar_has_it() -> None:
    assert frozen([1, 2, 2]) == frozen((2, 1))
    assert frozen({"a": [1]}) == frozen({"a": {1}})
    assert frozen([]) != frozen({})
    assert frozen(True) != frozen(1)
    assert frozen([True]) != frozen([1])
    assert frozen(Decimal.parse("1.0")) == frozen(Decimal.parse("1.00"))


longs = st.integers(-(2**63), 2**63 - 1)
leaves = st.one_of(
    st.booleans(),
    longs,
    st.text(),
    st.builds(EntityUid, st.sampled_from(["User", "A::B"]), st.text()),
    longs.map(Decimal),
    longs.map(Datetime),
    longs.map(Duration),
    st.ip_addresses().map(str).map(IPAddr),
)
names = st.text(max_size=8).filter(lambda name: name not in {"__entity", "__extn", "__expr"})
values = st.recursive(leaves, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(names, inner, max_size=4))


@given(values)
def test_a_value_is_written_and_read_the_same(value: Any) -> None:
    import json

    written = json.loads(json.dumps(value_to_json(value)))
    assert frozen(value_from_json(written, None, "")) == frozen(value)
