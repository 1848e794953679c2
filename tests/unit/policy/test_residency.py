"""What is resident of sourced types: marked in the store, ended by time, bounded, and refused where it cannot be."""

from __future__ import annotations

import gc

import pytest

from gateway._native.uid import EntityUid
from gateway.policy import Engine, Entities, Entity, EntityError, PolicySet, Schema
from gateway.policy.related_entities import RelatedEntities
from gateway.policy.relation_rules import RelationRules
from gateway.policy.residency import Residency, SourcesMisfit
from tests.unit.policy.attribute_world import body, engine_of
from tests.unit.policy.relation_world import SCHEMA, uid

ALICE, BOB, STAFF = uid("User:alice"), uid("User:bob"), uid("Group:staff")
TEXT = "permit (principal, action, resource) when { principal.level > 1 };"


def residency_of(engine: Engine, capacity: int = 10) -> Residency:
    return Residency(engine, ("User", "Group"), capacity)


def put(residency: Residency, *names: str, until_s: float | None = None, absent: tuple[EntityUid, ...] = ()) -> None:
    entities = [Entity(EntityUid("User", name), {"level": 1}) for name in names]
    assert residency.put("people", entities, absent, now_s=0.0, ends=lambda _: until_s) == {}


def test_types_are_marked_and_what_was_there_of_them_goes() -> None:
    engine = engine_of(TEXT)
    engine.entities.upsert([Entity(ALICE, {"level": 9}), Entity(uid("Doc:1"))])
    residency_of(engine)
    assert engine.store.is_sourced("User")
    assert not engine.store.resident(ALICE)
    assert uid("Doc:1") in engine.entities
    assert not engine.allows(ALICE, uid("Action:view"), uid("Doc:1"))


def test_what_has_no_end_is_nothing_for_the_collector_to_look_through() -> None:
    residency = residency_of(engine_of(TEXT), capacity=2_000)
    gc.collect()
    before = len(gc.get_objects())
    put(residency, *(f"user{number}" for number in range(1_000)), absent=(BOB, STAFF))
    residency.touch([uid(f"User:user{number}") for number in range(1_000)])
    gc.collect()
    assert len(residency) == 1_002
    assert len(gc.get_objects()) - before < 50


WITH_TEAMS = SCHEMA + "entity Team;"
RELATED = RelationRules(Schema.parse(WITH_TEAMS))


def related_engine() -> Engine:
    entities = RelatedEntities.over(Entities(), RELATED)
    return Engine(PolicySet(), entities, RELATED.for_policies(Schema.parse(WITH_TEAMS)))


@pytest.mark.parametrize(
    ("name", "code"),
    [
        ("Action", "sourced_action"),
        ("NS::Action", "sourced_action"),
        ("Usr", "undeclared_type"),
        ("User", "sourced_relation"),  # a subject
        ("Doc", "sourced_relation"),  # an object
    ],
)
def test_types_that_cannot_be_kept_elsewhere_are_refused_before_anything_is_marked(name: str, code: str) -> None:
    engine = related_engine()
    with pytest.raises(SourcesMisfit) as refused:
        Residency(engine, (name, "Team"), 10)
    assert [fault.code for fault in refused.value.faults] == [code]
    assert not engine.store.is_sourced("Team")
    assert Residency(engine, ("Team",), 10).store.is_sourced("Team")


def test_no_source_puts_anything_into_relations() -> None:
    residency = Residency(related_engine(), ("Team",), 10)
    node = RELATED.find("Doc", "viewers")
    assert node is not None
    with pytest.raises(EntityError):
        residency.entity(uid("Team:a"), body({}, [node.node("1")]))


def test_what_is_over_goes_and_what_was_used_is_told_before() -> None:
    engine = engine_of(TEXT)
    residency = residency_of(engine)
    put(residency, "alice", "bob", until_s=10.0)
    residency.touch([ALICE, BOB])  # what it was read for
    assert residency.expire(4.0) == (0, {})
    residency.touch([ALICE, uid("User:nobody")])
    assert residency.expire(7.9) == (0, {})
    assert residency.expire(8.0) == (0, {"people": [ALICE]})
    assert residency.next_s == 10.0
    assert residency.end_s([ALICE, BOB, STAFF]) == 10.0
    assert residency.expire(10.0) == (2, {})
    assert not residency._due
    assert len(residency) == 0
    assert not engine.store.resident(ALICE)


def test_what_was_read_again_ends_by_its_new_time() -> None:
    residency = residency_of(engine_of(TEXT))
    put(residency, "alice", until_s=10.0)
    put(residency, "alice", until_s=20.0)
    assert residency.expire(10.0) == (0, {})
    assert len(residency) == 1
    put(residency, "alice")
    assert residency.expire(100.0) == (0, {})
    assert residency.end_s([ALICE]) is None


def test_the_times_of_what_is_gone_do_not_pile_up() -> None:
    residency = residency_of(engine_of(TEXT))
    for number in range(5000):
        put(residency, "alice", until_s=10.0 + number)
    assert len(residency._due) < 2000


def test_the_coldest_go_first() -> None:
    engine = engine_of(TEXT)
    residency = residency_of(engine, capacity=3)
    put(residency, "a", "b", "c")
    residency.touch([uid("User:a")])
    put(residency, "d")
    assert [name for name in "abcd" if engine.store.resident(EntityUid("User", name))] == ["a", "c", "d"]
    assert residency.evicted == 1


VIEW, DOC = uid("Action:view"), uid("Doc:1")


def test_what_decisions_elsewhere_are_about_stays_with_its_groups() -> None:
    engine = engine_of(TEXT)
    residency = residency_of(engine, capacity=6)
    assert residency.put("people", [Entity(STAFF)], [], now_s=0.0, ends=lambda _: None) == {}
    assert residency.put("people", [Entity(ALICE, {"level": 2}, (STAFF,))], [], now_s=0.0, ends=lambda _: None) == {}
    put(residency, "a", "b", "c", "d")
    assert engine.allows(ALICE, VIEW, DOC)  # as a door does, which asks nobody else
    put(residency, "e")
    here = residency.held_of([STAFF, ALICE, *(EntityUid("User", name) for name in "abcde")], "people")
    assert here == [STAFF, ALICE, *(EntityUid("User", name) for name in "bcde")]
    put(residency, "f", "g", "h", "i", "j", "k")  # nobody asked again: now it is their turn
    assert not engine.store.resident(ALICE)


def test_what_decisions_elsewhere_are_about_is_read_again_with_what_it_leads_to() -> None:
    engine = engine_of(TEXT)
    residency = residency_of(engine)
    alice = Entity(ALICE, {"level": 2, "manager": BOB}, (STAFF,))
    others = [Entity(BOB, {"level": 1}), Entity(STAFF), Entity(uid("User:carol"))]
    assert residency.put("people", [alice], [], now_s=0.0, ends=lambda _: 10.0) == {}
    assert residency.put("people", others, [], now_s=0.0, ends=lambda _: 11.0) == {}
    assert engine.allows(ALICE, VIEW, DOC)
    assert residency.expire(4.4) == (0, {})
    assert engine.allows(ALICE, VIEW, DOC)
    assert residency.expire(8.0) == (0, {"people": [ALICE]})
    assert residency.expire(8.9) == (0, {"people": [BOB, STAFF]})


def test_what_was_needed_once_is_not_read_again() -> None:
    engine = engine_of(TEXT)
    residency = residency_of(engine)
    put(residency, "alice", until_s=10.0)
    engine.allows(ALICE, VIEW, DOC)
    residency.touch([ALICE])
    assert residency.expire(4.1) == (0, {})
    assert residency.expire(8.1) == (0, {})
    assert residency.expire(10.0) == (1, {})


def test_one_that_the_store_refuses_spoils_no_other() -> None:
    engine = engine_of(TEXT)
    residency = residency_of(engine)
    bad = Entity(BOB, {"level": 2**70})
    good = Entity(ALICE, {"level": 1})
    assert residency.put("people", [good, bad], [], now_s=0.0, ends=lambda _: None).keys() == {BOB}
    assert engine.store.resident(ALICE)
    assert not engine.store.resident(BOB)


def test_what_says_the_same_keeps_its_version() -> None:
    engine = engine_of(TEXT)
    residency = residency_of(engine)
    put(residency, "alice", absent=(BOB,))
    versions = engine.store.version(ALICE), engine.store.version(BOB)
    put(residency, "alice", absent=(BOB,))
    assert (engine.store.version(ALICE), engine.store.version(BOB)) == versions
    put(residency, "bob", absent=(ALICE,))
    assert engine.store.version(ALICE) > versions[0]
    assert engine.store.version(BOB) > versions[1]
    assert ALICE not in engine.entities


def test_an_entity_is_read_whole_or_not_at_all() -> None:
    residency = residency_of(engine_of(TEXT))
    assert residency.entity(ALICE, b"{}") == Entity(ALICE)
    found = residency.entity(
        ALICE, b'{"attrs": {"a": 1}, "parents": [{"type": "Group", "id": "staff"}], "tags": {"t": 2}}'
    )
    assert found == Entity(ALICE, {"a": 1}, (STAFF,), {"t": 2})
    with pytest.raises(EntityError) as refused:
        residency.entity(ALICE, b'{"attrs": {"a": 1.5}}')
    assert refused.value.faults[0].pointer == "/attrs/a"


def test_everything_of_a_source_goes_and_nothing_of_another() -> None:
    engine = engine_of(TEXT)
    residency = residency_of(engine)
    put(residency, "alice", "alice")
    assert residency.put("groups", [Entity(STAFF)], [], now_s=0.0, ends=lambda _: None) == {}
    assert residency.evict_origin("people") == 1
    assert residency.evict_origin("people") == 0
    assert [engine.store.resident(uid) for uid in (ALICE, STAFF)] == [False, True]
    assert residency.held_of([ALICE, STAFF], "groups") == [STAFF]
