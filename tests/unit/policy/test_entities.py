"""Entities: read, checked, changed all or nothing, and every fault with its code and pointer."""

from __future__ import annotations

import json
from typing import Any

import pytest

from gateway._native.extensions import Decimal
from gateway._native.uid import EntityUid
from gateway.policy import entities as module
from gateway.policy.entities import Entities, Entity
from gateway.policy.faults import EntityError
from gateway.policy.schema import Schema
from tests.unit.policy.schema.documents import action, entity, holding

ALICE, BOB, STAFF, ALL = (EntityUid(*each) for each in (("User", "a"), ("User", "b"), ("Group", "s"), ("Group", "all")))
BLUE = {"type": "Colour", "id": "blue"}
SCHEMA = Schema.parse("""
    entity User in Group { name: String, rate?: decimal, boss?: User } tags Long;
    entity Group in Group; entity Colour enum ["red", "green"]; entity Car { colour: Colour };
    action view in read; action read in any; action any;
""")


def user(name: str = "a", **more: Any) -> dict[str, Any]:
    return entity({"type": "User", "id": name}, {"name": name, **more})


def faults(document: Any, schema: Schema | None = None) -> list[tuple[str, str | None]]:
    with pytest.raises(EntityError) as caught:
        Entities.from_json(document, schema=schema)
    return [(fault.code, fault.pointer) for fault in caught.value.faults]


def test_entities_are_read_with_what_they_are_in() -> None:
    document = [
        entity({"type": "User", "id": "a"}, {"age": 7}, [{"type": "Group", "id": "s"}], tags={"t": [1, 1]}),
        entity({"type": "Group", "id": "s"}, parents=[{"__entity": {"type": "Group", "id": "all"}}]),
    ]
    for data in (document, json.dumps(document), json.dumps(document).encode()):
        read = Entities.from_json(data)
        assert len(read) == 2 and ALICE in read and ALL not in read
        assert read.get(ALICE) == Entity(ALICE, {"age": 7}, (STAFF,), {"t": (1,)})
        assert read.get(BOB) is None
        assert set(read) == {ALICE, STAFF} and list(read.of_type("User")) == [ALICE]
        assert read.store.is_in(ALICE, ALL)


def test_a_schema_guides_the_reading_and_brings_its_actions() -> None:
    read = Entities.from_json([user(rate="1.5", boss={"type": "User", "id": "b"})], schema=SCHEMA)
    found = read.get(ALICE)
    assert found is not None
    assert found.attributes == {"name": "a", "rate": Decimal.parse("1.5"), "boss": BOB}
    view, anything = EntityUid("Action", "view"), EntityUid("Action", "any")
    assert view in read and read.store.is_in(view, anything)
    read.validate(SCHEMA)


@pytest.mark.parametrize(
    ("code", "pointer", "document"),
    [
        ("ill_typed", "/0", [1]),
        ("missing_member", "/0", [{"uid": {"type": "A", "id": "x"}, "attrs": {}}]),
        ("unknown_member", "/0/tag", [{**entity(), "tag": {}}]),
        ("no_entity", "/0/uid", [entity('A::"x"')]),
        ("no_type_name", "/0/uid/type", [entity({"type": "a b", "id": "x"})]),
        ("ill_typed", "/0/attrs", [{**entity(), "attrs": []}]),
        ("ill_typed", "/0/tags", [entity(tags=None)]),
        ("ill_typed", "/0/parents", [{**entity(), "parents": {}}]),
        ("no_entity", "/0/parents/1", [entity(parents=[{"type": "A", "id": "y"}, "z"])]),
        ("no_value", "/0/attrs/v", holding(None)),
        ("no_value", "/1/attrs/v", [entity({"type": "A", "id": "y"}), *holding(1.5)]),
        ("duplicate_entity", "/1", holding(1) + holding(True)),
        ("wrong_parent", "/0/parents/0", [entity({"type": "Action", "id": "a"}, parents=[{"type": "B", "id": "b"}])]),
    ],
)
def test_a_fault_is_told_with_its_code_and_pointer(code: str, pointer: str, document: Any) -> None:
    assert faults(document) == faults(json.dumps(document)) == [(code, pointer)]


@pytest.mark.parametrize(
    ("code", "pointer", "document"),
    [
        ("undeclared_type", "/0/uid", [entity({"type": "Usr", "id": "x"})]),
        ("missing_attribute", "/0/attrs", [entity({"type": "User", "id": "x"})]),
        ("undeclared_attribute", "/0/attrs/age", [user(age=1)]),
        ("wrong_type", "/0/attrs/boss", [user(boss={"type": "Group", "id": "s"})]),
        ("extension_value", "/0/attrs/rate", [user(rate="1.23456")]),
        ("wrong_type", "/0/tags/t", [{**user(), "tags": {"t": "x"}}]),
        ("undeclared_tags", "/0/tags", [entity({"type": "Group", "id": "s"}, tags={"t": 1})]),
        ("wrong_parent", "/0/parents/0", [{**user(), "parents": [{"type": "User", "id": "b"}]}]),
        ("unknown_choice", "/0/uid", [entity({"type": "Colour", "id": "blue"})]),
        ("unknown_choice", "/0/attrs/colour", [entity({"type": "Car", "id": "c"}, {"colour": BLUE})]),
        ("undeclared_action", "/0/uid", [action("nope")]),
        ("action_differs", "/0", [action("view", "read")]),
        ("action_differs", "/0", [action("any", attrs={"a": 1})]),
        ("duplicate_entity", "/1", [action("view", "read", "any"), action("view", "read")]),
    ],
)  # fmt: skip
def test_what_does_not_fit_the_schema_is_told_with_its_pointer(code: str, pointer: str, document: Any) -> None:
    found = faults(document, SCHEMA)
    assert found == faults(json.dumps(document), SCHEMA)
    assert found[0] == (code, pointer)


def test_actions_in_data_may_say_what_the_schema_says_in_steps_or_at_once() -> None:
    for document in ([action("view", "read"), action("read", "any")], [action("view", "read", "any")], [action("any")]):
        assert len(Entities.from_json(document, schema=SCHEMA)) == 3


def test_faults_of_several_entities_are_told_at_once_up_to_the_limit() -> None:
    found = faults([entity(attrs={"v": None}), 1, entity(), *holding(1.5)])
    assert found == [("no_value", "/0/attrs/v"), ("ill_typed", "/1"), ("no_value", "/3/attrs/v")]
    assert len(faults([1] * 100)) == module.FAULTS_MAX


def test_a_slip_of_json_is_told_behind_the_faults_before_it() -> None:
    assert [code for code, _ in faults("[1, {]")] == ["ill_typed", "no_json"]
    assert [code for code, _ in faults('{"uid": 1}')] == ["ill_typed"]
    assert [code for code, _ in faults(b"\xff")] == ["no_unicode"]
    with pytest.raises(EntityError):
        Entities.from_json({"uid": 1})  # type: ignore[arg-type]


def test_an_entity_may_stand_twice_if_it_is_the_same() -> None:
    read = Entities.from_json(holding([1, 2]) + holding([2, 1, 2]))
    assert len(read) == 1


def test_entities_that_stand_twice_are_compared_across_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_BATCH", 2)
    others = [entity({"type": "A", "id": str(index)}) for index in range(5)]
    assert len(Entities.from_json(holding(1) + others + holding(1))) == 6
    assert faults(holding(1) + others + holding(2)) == [("duplicate_entity", "/6")]


def test_a_circle_is_refused_within_a_batch_and_across_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    circle = [
        entity({"type": "A", "id": name}, parents=[{"type": "A", "id": above}]) for name, above in ("xy", "yz", "zx")
    ]
    assert [code for code, _ in faults(circle)] == ["entity_cycle"]
    monkeypatch.setattr(module, "_BATCH", 1)
    assert [code for code, _ in faults(circle)] == ["entity_cycle"]


def test_too_many_entities_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "ENTITIES_MAX", 3)
    assert [code for code, _ in faults([entity({"type": "A", "id": str(index)}) for index in range(4)])] == [
        "too_many_entities"
    ]


def test_changes_are_all_or_nothing() -> None:
    held = Entities([Entity(ALICE, {"a": 1}, (STAFF,))])
    with pytest.raises(EntityError) as caught:
        held.upsert([Entity(BOB), Entity(ALICE, {"a": None})])
    assert caught.value.faults[0].code == "no_value"
    with pytest.raises(EntityError) as caught:
        held.upsert([Entity(BOB), Entity(STAFF, parents=(ALICE,))])
    assert caught.value.faults[0].code == "entity_cycle"
    assert set(held) == {ALICE} and held.get(ALICE) == Entity(ALICE, {"a": 1}, (STAFF,))
    before = held.store.revision
    assert held.upsert([Entity(BOB)]) > before
    held.remove([ALICE, EntityUid("Ghost", "g")])
    assert set(held) == {BOB}


def test_entities_are_written_in_the_explicit_form() -> None:
    document = [
        {
            "uid": {"type": "User", "id": "a"},
            "attrs": {
                "boss": {"__entity": {"type": "User", "id": "b"}},
                "rate": {"__extn": {"fn": "decimal", "arg": "1.5"}},
            },
            "parents": [{"type": "Group", "id": "all"}, {"type": "Group", "id": "s"}],
            "tags": {"t": 1},
        },
        {"uid": {"type": "User", "id": "b"}, "attrs": {}, "parents": []},
    ]  # fmt: skip
    written = Entities.from_json(document).to_json()
    assert sorted(written, key=lambda each: str(each["uid"]["id"])) == document


def test_validation_names_the_entity() -> None:
    held = Entities(
        [Entity(ALICE, {"name": 1}), Entity(BOB, {"name": "b"}), Entity(EntityUid("Action", "view"), {"a": 1})]
    )
    with pytest.raises(EntityError) as caught:
        held.validate(SCHEMA)
    found = {(fault.code, fault.message.partition(":")[0]) for fault in caught.value.faults}
    assert {code for code, _ in found} == {"wrong_type", "action_differs"}
    assert str(ALICE) in str(caught.value) and str(BOB) not in str(caught.value)


def test_the_store_holds_the_only_copy() -> None:
    held = Entities.from_json(
        [entity({"type": "User", "id": str(index)}, {"name": f"user {index}"}) for index in range(20_000)]
    )
    assert held.store.memory_bytes / len(held) <= 400
