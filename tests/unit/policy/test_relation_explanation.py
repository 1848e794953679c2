"""An explanation names the relations that a policy asks for, and the way over which somebody stands in them."""

from __future__ import annotations

from gateway._native.uid import EntityUid
from gateway.policy.engine import Engine
from gateway.policy.entities import Entities, Entity
from gateway.policy.policy_set import PolicySet
from gateway.policy.related_entities import RelatedEntities
from gateway.policy.relation_explanation import RelationTest, relation_tests
from gateway.policy.relation_rules import RelationRules
from gateway.policy.schema import Schema
from gateway.stores.relations import RelationChange, Userset
from tests.unit.policy.relation_world import SCHEMA, relation, uid

ALICE, VIEW, DOC = uid("User:alice"), uid("Action:view"), uid("Doc:1")


def asked_by(policy: str, *relations: str, context: dict[str, object] | None = None) -> tuple[RelationTest, ...]:
    schema = Schema.parse(SCHEMA)
    entities = RelatedEntities.over(Entities(), RelationRules(schema))
    entities.upsert([Entity(uid("Folder:top")), Entity(uid("Folder:low"), {"parent": uid("Folder:top")})])
    entities.graph.apply([RelationChange(relation(each)) for each in relations])
    engine = Engine(PolicySet.parse(policy), entities, entities.graph.rules.for_policies(schema))
    request = engine.prepare(ALICE, VIEW, DOC, context)
    return relation_tests(engine, engine.policies.policies["policy0"], request)


def test_the_way_is_told_step_by_step() -> None:
    [found] = asked_by(
        "permit (principal, action, resource) when { principal in resource.viewers };",
        "Doc:1#home@Folder:low", "Folder:top#viewers@Group:eng#members", "Group:eng#members@User:alice",
    )  # fmt: skip
    assert (found.text, found.subject, found.asked) == ("principal in resource.viewers", ALICE, Userset(DOC, "viewers"))
    assert [str(step) for step in found.path or ()] == [
        'User::"alice" in Group::"eng"#members (relation)',
        'Group::"eng"#members in Folder::"top"#viewers (relation)',
        'Folder::"top"#viewers in Folder::"low"#viewers (inherits parent.viewers)',
        'Folder::"low"#viewers in Doc::"1"#viewers (inherits home.viewers)',
    ]


def test_a_relation_in_which_nobody_stands_is_told_too() -> None:
    found = asked_by(
        "permit (principal, action, resource)"
        "when { principal in resource.viewers } unless { principal in resource.blocked };",
        "Doc:1#blocked@User:alice",
    )
    assert [(each.asked.relation, each.path is None) for each in found] == [("viewers", True), ("blocked", False)]


def test_sets_types_and_branches_are_looked_into_and_the_same_question_once() -> None:
    found = asked_by(
        "permit (principal, action, resource) when {"
        "  if principal is User in resource.viewers then true"
        "  else principal in [resource.viewers, resource.blocked] };",
        "Doc:1#viewers@User:alice",
    )
    assert [(each.text.split()[1], each.asked.relation) for each in found] == [("is", "viewers"), ("in", "blocked")]


def test_what_asks_for_no_relation_is_left_out() -> None:
    policy = (
        'permit (principal, action, resource) when { principal in Role::"a" || principal in context.nobody.viewers'
        " || principal in resource.title };"
    )
    assert asked_by(policy, "Doc:1#viewers@User:alice") == ()
    plain = Engine(PolicySet.parse(policy), Entities())
    assert (
        relation_tests(plain, plain.policies.policies["policy0"], plain.prepare(ALICE, VIEW, EntityUid("A", ""))) == ()
    )
