"""What relations narrow a list question to is never less than what asking about everybody would find."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway._native.uid import EntityUid
from gateway.policy.engine import Engine
from gateway.policy.entities import Entities, Entity
from gateway.policy.policy_set import PolicySet
from gateway.policy.related_entities import RelatedEntities
from gateway.policy.relation_candidates import related_ids
from gateway.policy.relation_rules import RelationRules
from gateway.policy.schema import Schema
from gateway.policy.search import Lister
from gateway.stores.relations import RelationChange
from tests.unit.policy.relation_world import SCHEMA, relation, uid

VIEW = uid("Action:view")
ROLES = Schema.parse(SCHEMA)
TUPLES = [
    *(f"Doc:{doc}#viewers@User:{who}" for doc in "123" for who in ("a", "b")),
    *("Doc:1#viewers@Group:g#members", "Doc:2#viewers@Doc:1#viewers", "Doc:3#viewers@Folder:f#viewers"),
    *("Doc:1#home@Folder:f", "Doc:2#home@Folder:g", "Folder:f#viewers@Group:h#members", "Folder:g#owners@User:c"),
    *("Group:g#members@User:a", "Group:g#members@Group:h#members", "Group:h#members@User:c", "Group:h#members@User:b"),
    *("Doc:1#blocked@User:a", "Doc:4#blocked@User:c", "Folder:f#viewers@Role:r"),
]
ATOMS = [
    "principal in resource.viewers",
    "principal is User in resource.viewers",
    "principal in [resource.viewers, resource.blocked]",
    'User::"c" in resource.viewers',
    "resource has title",
    "principal in resource.blocked",
    'principal in Role::"r"',
    "!(principal in resource.viewers)",
    "false",
]
CONDITIONS = st.recursive(
    st.sampled_from(ATOMS),
    lambda inner: st.builds(lambda a, op, b: f"({a}) {op} ({b})", inner, st.sampled_from(["&&", "||"]), inner),
    max_leaves=4,
)
POLICIES = st.builds(
    lambda effect, kind, condition: f"{effect} (principal, action, resource) {kind} {{ {condition} }};",
    st.sampled_from(["permit", "permit", "permit", "forbid"]),
    st.sampled_from(["when", "when", "when", "unless"]),
    CONDITIONS,
)


def engine_of(policies: list[str], tuples: list[str]) -> Engine:
    entities = RelatedEntities.over(Entities(), RelationRules(ROLES))
    entities.upsert([Entity(uid("User:d"), {}, (uid("Role:r"),)), Entity(uid("Doc:4"), {"title": "x"})])
    entities.upsert([Entity(uid("User:a")), Entity(uid("Folder:g"), {"parent": uid("Folder:f")})])
    entities.graph.apply([RelationChange(relation(text)) for text in tuples])
    return Engine(PolicySet.parse("\n".join(policies)), entities, entities.graph.rules.for_policies(ROLES))


@given(st.lists(POLICIES, min_size=1, max_size=3), st.lists(st.sampled_from(TUPLES), unique=True))
def test_lists_are_what_asking_about_each_gives(policies: list[str], tuples: list[str]) -> None:
    engine = engine_of(policies, tuples)
    lister = Lister(engine, clock=lambda: 0.0)
    for who in map(uid, ("User:a", "User:b", "User:c", "User:d")):
        for kind in ("Doc", "Folder"):
            wanted = {each.id for each in engine.store.uids(kind) if engine.allows(who, VIEW, each)}
            found = {each.id for each in lister.resources(who, VIEW, kind)[0] if engine.allows(who, VIEW, each)}
            assert found == wanted
            again = {each.id for each in lister.entities("resource", kind, VIEW, who) if engine.allows(who, VIEW, each)}
            assert again == wanted
    for what in map(uid, ("Doc:1", "Doc:2", "Doc:4", "Folder:f")):
        wanted = {each.id for each in engine.store.uids("User") if engine.allows(each, VIEW, what)}
        subjects = lister.entities("principal", "User", VIEW, what)
        assert {each.id for each in subjects if engine.allows(each, VIEW, what)} == wanted


@pytest.mark.parametrize(
    ("condition", "objects", "subjects"),
    [
        ("principal in resource.viewers", {"1", "2"}, {"a", "b"}),
        ("resource has title && principal in resource.viewers", {"1", "2"}, {"a", "b"}),
        ("principal in resource.viewers || principal in resource.blocked", {"1", "2", "4"}, {"a", "b"}),
        ("principal in [resource.viewers, resource.blocked]", {"1", "2", "4"}, {"a", "b"}),
        ("principal in resource.viewers || resource has title", None, None),
        ("!(principal in resource.viewers)", None, None),
        ("principal in resource.home.viewers", None, None),
        ("principal == resource.viewers", None, None),
        ("false", set(), set()),
    ],
)
def test_only_who_stands_in_what_is_asked_is_looked_at(
    condition: str, objects: set[str] | None, subjects: set[str] | None
) -> None:
    tuples = ["Doc:1#viewers@User:a", "Doc:1#viewers@User:b", "Doc:2#viewers@Doc:1#viewers", "Doc:4#blocked@User:a"]
    engine = engine_of([f"permit (principal, action, resource) when {{ {condition} }};"], tuples)
    policy = engine.policies.policies["policy0"]
    assert related_ids(engine.entities, policy, "resource", "Doc", uid("User:a")) == objects
    assert related_ids(engine.entities, policy, "principal", "User", uid("Doc:1")) == subjects
    assert related_ids(Entities(), policy, "resource", "Doc", uid("User:a")) is None


def test_candidates_follow_every_change_of_relations() -> None:
    engine = engine_of(["permit (principal, action, resource) when { principal in resource.viewers };"], [])
    assert isinstance(engine.entities, RelatedEntities)
    lister = Lister(engine, clock=lambda: 0.0)
    alice = uid("User:a")

    def candidates() -> list[EntityUid]:
        return list(lister.entities("resource", "Doc", VIEW, alice))

    assert candidates() == []
    engine.entities.graph.apply([RelationChange(relation("Doc:1#viewers@Group:g#members"))])
    assert candidates() == []
    engine.entities.graph.apply([RelationChange(relation("Group:g#members@User:a"))])
    assert candidates() == [uid("Doc:1")]
    engine.entities.graph.apply([RelationChange(relation("Group:g#members@User:a"), removed=True)])
    assert candidates() == []


def test_where_entities_are_kept_elsewhere_nobody_is_left_out() -> None:
    engine = engine_of(["permit (principal, action, resource) when { principal in resource.viewers };"], [])
    engine.store.source_type("Elsewhere")
    policy = engine.policies.policies["policy0"]
    assert related_ids(engine.entities, policy, "resource", "Doc", uid("User:a")) is None
