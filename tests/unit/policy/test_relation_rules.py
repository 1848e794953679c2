"""What the annotations of a schema say, what is wrong with some, and the schemas that come of them."""

from __future__ import annotations

import json

import cedarpy
import pytest

from gateway.policy.faults import SchemaError
from gateway.policy.relation_rules import Inheritance, RelationRules
from gateway.policy.schema import Schema, model
from tests.unit.policy.relation_world import SCHEMA, uid


def rules_of(text: str) -> RelationRules:
    return RelationRules(Schema.parse(text))


def test_annotations_say_who_may_stand_in_a_relation_and_what_it_inherits() -> None:
    rules = rules_of(SCHEMA)
    rule = rules.find("Folder", "viewers")
    assert rule is not None
    assert rule.node("a") == uid("Relation::Folder::viewers:a")
    assert rule.subjects == {"User", "Role"}
    assert rule.usersets == {("Group", "members"), ("Folder", "viewers")}
    assert rule.inherits == (
        Inheritance("", "owners"),
        Inheritance("parent", "viewers"),
        Inheritance("shared", "viewers"),
    )
    assert rules.find("Folder", "parent") is None
    assert set(rules.of_type("Doc")) == {"home", "viewers", "blocked"}
    assert len(rules) == 6


def test_types_are_found_in_the_namespace_of_the_declaration_first() -> None:
    rules = rules_of(
        """
        namespace A { entity User; entity Team { @relation members: Set<User> };
          entity Doc { @relation("Team, Team.members, B::Bot") viewers: Set<User> }; }
        namespace B { entity Bot; entity Team; }
        """
    )
    rule = rules.find("A::Doc", "viewers")
    assert rule is not None
    assert rule.node_type == "Relation::A::Doc::viewers"
    assert rule.subjects == {"A::User", "A::Team", "B::Bot"}
    assert rule.usersets == {("A::Team", "members")}


def test_groups_are_closed_and_what_hangs_on_resources_is_walked() -> None:
    rules = rules_of(SCHEMA)
    walked = {f"{rule.object_type}.{rule.relation}" for rule in rules if rule.walked}
    assert walked == {"Folder.viewers", "Folder.owners", "Doc.home", "Doc.viewers", "Doc.blocked"}


def test_nothing_that_is_walked_may_stand_in_what_is_closed() -> None:
    """A group that takes in the viewers of a folder is walked too, and so is a group that takes in that one."""
    rules = rules_of(
        """
        entity User;
        entity Folder { parent?: Folder, @relation @inherits("parent.viewers") viewers: Set<User> };
        entity Group { @relation("Folder.viewers, Group.members") members: Set<User> };
        entity Team { @relation("Group.members, Crew.members") members: Set<User> };
        entity Crew { @relation members: Set<User> };
        entity Doc { @relation("Team.members, Crew.members") viewers: Set<User> };
        """
    )
    assert {rule.object_type for rule in rules if not rule.walked} == {"Crew"}


@pytest.mark.parametrize(
    ("declarations", "code", "message"),
    [
        ("entity D { @relation r: User };", "relation_type", "`D.r` is not a set of entities"),
        ("entity D { @relation r: Set<String> };", "relation_type", "`D.r` is not a set of entities"),
        ('entity D { @relation("Nobody") r: Set<User> };', "relation_subject", "`Nobody` in `@relation` of `D.r`"),
        ('entity D { @relation("Nobody.r") r: Set<User> };', "relation_subject", "`Nobody.r` in `@relation` of `D.r`"),
        ('entity D { @relation("User.r") r: Set<User> };', "relation_subject", "`User` has no relation `r`"),
        ('entity D { @relation @inherits("s") r: Set<User> };', "relation_inherits", "inherits from `s`"),
        ('entity D { @relation @inherits("r") r: Set<User> };', "relation_inherits", "`D.r` inherits from itself"),
        ('entity D { @relation @inherits("u.r") r: Set<User>, u: User };', "relation_inherits", "inherits from `u.r`"),
        ('entity D { @relation @inherits("n.r") r: Set<User>, n: Long };', "relation_inherits", "inherits from `n.r`"),
        ('entity D { @relation @inherits("no.r") r: Set<User> };', "relation_inherits", "inherits from `no.r`"),
        ('entity D { @relation @inherits("") r: Set<User> };', "relation_inherits", "names nothing"),
        ('entity D { @inherits("r") s: Set<User> };', "relation_inherits", "`D.s` inherits but is no relation"),
        (
            "entity D { @relation r: Set<User> }; namespace Relation::D { entity r; }",
            "relation_namespace",
            "`Relation::D::r` is in the namespace of relations",
        ),
    ],
)
def test_what_cannot_be_meant_is_refused_with_its_place(declarations: str, code: str, message: str) -> None:
    with pytest.raises(SchemaError) as refused:
        rules_of(f"entity User; {declarations}")
    assert [fault.code for fault in refused.value.faults] == [code]
    assert message in refused.value.faults[0].message


def test_a_schema_without_relations_may_use_any_name() -> None:
    assert len(rules_of("namespace Relation { entity viewers; }")) == 0


def test_policies_see_nodes_that_subjects_may_be_in() -> None:
    schema = Schema.parse(SCHEMA)
    derived = RelationRules(schema).for_policies(schema)
    assert isinstance(derived, Schema)
    attribute = derived.entities["Doc"].attributes.attributes["viewers"]
    assert (attribute.type, attribute.required) == (model.EntityType("Relation::Doc::viewers"), True)
    assert derived.entities["User"].ancestors >= {"Role", "Relation::Group::members", "Relation::Doc::viewers"}
    assert "Relation::Group::members" in derived.entities["Relation::Group::members"].ancestors  # groups in groups
    assert "Relation::Doc::viewers" in derived.entities["Relation::Folder::owners"].ancestors
    assert "Relation::Doc::viewers" not in derived.entities["Relation::Doc::blocked"].ancestors
    assert derived.actions == schema.actions


def test_entities_are_written_without_their_relations() -> None:
    schema = Schema.parse(SCHEMA)
    plain = RelationRules(schema).for_entities(schema)
    assert set(plain.entities["Folder"].attributes.attributes) == {"parent", "shared"}
    assert set(plain.entities) == set(schema.entities)


POLICY = """
permit (principal, action == Action::"view", resource is Doc) when { principal in resource.viewers }
unless { principal in resource.blocked };
"""


@pytest.mark.parametrize("which", ["as written", "for policies"])
def test_the_policy_that_asks_for_a_relation_is_valid_cedar_before_and_after(which: str) -> None:
    schema = Schema.parse(SCHEMA)
    if which == "for policies":
        schema = RelationRules(schema).for_policies(schema)
    result = cedarpy.validate_policies(POLICY, json.dumps(schema.to_json()))
    assert result.validation_passed, result.errors
