"""A policy that asks for a relation, decided: schema, entities, tuples and policies together."""

from __future__ import annotations

import json

import cedarpy
import pytest

from gateway._native.uid import EntityUid
from gateway.policy.engine import Engine
from gateway.policy.entities import Entities, Entity
from gateway.policy.faults import EntityError
from gateway.policy.policy_set import PolicySet
from gateway.policy.related_entities import RelatedEntities
from gateway.policy.relation_rules import RelationRules
from gateway.policy.schema import Schema
from tests.unit.policy.relation_world import SCHEMA, added, removed, uid

POLICIES = """
permit (principal, action == Action::"view", resource) when { principal in resource.viewers };
forbid (principal, action, resource is Doc) when { principal in resource.blocked };
"""
VIEW = EntityUid("Action", "view")
JSON = [
    {"uid": {"type": "User", "id": "alice"}, "attrs": {}, "parents": []},
    {"uid": {"type": "Folder", "id": "a"}, "attrs": {}, "parents": []},
    {"uid": {"type": "Folder", "id": "b"}, "attrs": {"parent": {"type": "Folder", "id": "a"}}, "parents": []},
    {"uid": {"type": "Doc", "id": "1"}, "attrs": {"title": "x"}, "parents": []},
]


@pytest.fixture
def entities() -> RelatedEntities:
    return RelatedEntities.from_json(JSON, schema=Schema.parse(SCHEMA))


@pytest.fixture
def engine(entities: RelatedEntities) -> Engine:
    schema = Schema.parse(SCHEMA)
    derived = RelationRules(schema).for_policies(schema)
    policies = PolicySet.parse(POLICIES)
    report = policies.validate(derived)
    assert report.ok, report.errors
    assert not report.warnings
    return Engine(policies, entities, derived)


def test_a_policy_over_a_relation_decides_by_tuples(engine: Engine, entities: RelatedEntities) -> None:
    alice, bob, doc = uid("User:alice"), uid("User:bob"), uid("Doc:1")
    assert engine.authorize(alice, VIEW, doc).errors == frozenset()
    assert not engine.allows(alice, VIEW, doc)
    entities.graph.apply(added("Doc:1#home@Folder:b", "Folder:a#viewers@Group:g#members", "Group:g#members@User:alice"))
    assert engine.allows(alice, VIEW, doc)
    assert engine.allows(alice, VIEW, uid("Folder:b"))
    assert not engine.allows(bob, VIEW, doc)
    entities.graph.apply(added("Doc:1#blocked@User:alice"))
    assert engine.authorize(alice, VIEW, doc).reasons == {"policy1"}
    entities.graph.apply(removed("Doc:1#blocked@User:alice", "Group:g#members@User:alice"))
    assert not engine.allows(alice, VIEW, doc)


def test_entities_that_come_later_have_their_relations_at_once(engine: Engine, entities: RelatedEntities) -> None:
    entities.graph.apply(added("Folder:a#owners@User:alice"))
    entities.upsert([Entity(uid("Folder:c"), {"parent": uid("Folder:b")}, (), {})])
    assert engine.allows(uid("User:alice"), VIEW, uid("Folder:c"))
    entities.upsert([Entity(uid("Folder:c"))])
    assert not engine.allows(uid("User:alice"), VIEW, uid("Folder:c"))
    entities.remove([uid("Folder:a")])
    assert engine.allows(uid("User:alice"), VIEW, uid("Folder:a"))  # the tuple still says so
    assert uid("Folder:c") in entities


def test_the_reference_decides_the_same_from_the_entities_that_are_made(
    engine: Engine, entities: RelatedEntities
) -> None:
    entities.graph.apply(
        added(
            *("Doc:1#home@Folder:b", "Folder:a#viewers@Group:g#members", "Group:g#members@Group:h#members"),
            *("Group:h#members@User:alice", "Doc:2#viewers@Doc:1#viewers", "Doc:2#blocked@User:carol"),
            *("Doc:1#viewers@User:carol", "Folder:b#owners@User:dave"),
        )
    )
    made = json.dumps(entities.to_json())
    for who in ("alice", "bob", "carol", "dave"):
        for target in ("Doc:1", "Doc:2", "Folder:a", "Folder:b"):
            request = {
                "principal": str(uid(f"User:{who}")),
                "action": str(VIEW),
                "resource": str(uid(target)),
                "context": {},
            }
            expected = cedarpy.is_authorized(request, POLICIES, made).allowed
            assert engine.allows(uid(f"User:{who}"), VIEW, uid(target)) is expected, (who, target)


def test_entities_may_not_be_written_with_what_relations_make(entities: RelatedEntities) -> None:
    before = len(entities)
    for entity in (
        Entity(uid("Doc:9"), {"viewers": uid("Relation::Doc::viewers:1")}),
        Entity(uid("User:eve"), {}, (uid("Relation::Doc::viewers:1"),)),
    ):
        with pytest.raises(EntityError) as refused:
            entities.upsert([entity])
        assert refused.value.faults[0].code == "relation_written"
    hostile = [{"uid": {"type": "Doc", "id": "9"}, "attrs": {"viewers": []}, "parents": []}]
    with pytest.raises(EntityError):
        RelatedEntities.from_json(hostile, schema=Schema.parse(SCHEMA))
    assert len(entities) == before


def test_entities_that_would_be_in_themselves_are_refused_as_ever(entities: RelatedEntities) -> None:
    with pytest.raises(EntityError) as refused:
        entities.upsert([Entity(uid("Role:a"), {}, (uid("Role:b"),)), Entity(uid("Role:b"), {}, (uid("Role:a"),))])
    assert refused.value.faults[0].code == "entity_cycle"


def test_without_relations_they_are_entities_like_all_others() -> None:
    data = [{"uid": {"type": "User", "id": "alice"}, "attrs": {"level": 3}, "parents": [{"type": "Role", "id": "r"}]}]
    assert RelatedEntities.from_json(data).to_json() == Entities.from_json(data).to_json()
