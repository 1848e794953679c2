"""What is decided while nobody knows the relations is what would be decided whatever they are."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.policy.engine import Engine
from gateway.policy.entities import Entities
from gateway.policy.policy_set import PolicySet
from gateway.policy.relation_reads import RelationReads, reads_relations
from gateway.policy.relation_rules import RelationRules
from gateway.policy.schema import Schema
from tests.unit.policy.relation_world import SCHEMA, uid
from tests.unit.policy.test_relation_candidates import POLICIES, TUPLES, VIEW, engine_of

RULES = RelationRules(Schema.parse(SCHEMA))
SCOPED = st.builds(
    lambda effect, who, condition: f"{effect} ({who}, action, resource) when {{ {condition} }};",
    st.sampled_from(["permit", "forbid"]),
    st.sampled_from(
        ["principal", 'principal in Role::"r"', 'principal == User::"a"', 'principal in Relation::Doc::viewers::"1"']
    ),
    st.sampled_from(["true", "resource has title", "principal in resource.viewers", "resource has viewers"]),
)
WHO, WHAT = [uid(f"User:{name}") for name in "abcd"], [uid(text) for text in ("Doc:1", "Doc:4", "Folder:f")]


@pytest.mark.parametrize(
    ("policy", "reads"),
    [
        ("permit (principal, action, resource);", False),
        ('permit (principal in Role::"r", action, resource) when { resource has title };', False),
        ("permit (principal, action, resource) when { principal in resource.viewers };", True),
        ("forbid (principal, action, resource) unless { resource has home };", True),
        ("permit (principal, action, resource) when { resource has a.viewers };", True),
        ('permit (principal, action, resource) when { if true then principal == Relation::X::"1" else false };', False),
        ('permit (principal, action, resource) when { principal in Relation::Doc::viewers::"1" };', True),
        ('permit (principal in Relation::Doc::viewers::"1", action, resource);', True),
        (
            'permit (principal, action, resource) when { (if true then resource else resource)["viewers"] like "x" };',
            True,
        ),
    ],
)
def test_a_policy_reads_relations_where_it_names_one(policy: str, reads: bool) -> None:
    assert reads_relations(PolicySet.parse(policy).policies["policy0"], RULES) is reads


@given(
    st.lists(POLICIES | SCOPED, min_size=1, max_size=3),
    st.lists(st.lists(st.sampled_from(TUPLES), unique=True), min_size=2, max_size=2),
)
def test_what_is_allowed_without_relations_is_allowed_with_any(policies: list[str], tuples: list[list[str]]) -> None:
    engines = [engine_of(policies, each) for each in tuples]
    reads = RelationReads(engines[0])
    assert all(reads.concern(who, VIEW, what) for who in WHO for what in WHAT)  # nobody has looked yet
    reads.prepare()
    assert reads.cautious is not None
    for who in WHO:
        for what in WHAT:
            answers = {engine.allows(who, VIEW, what) for engine in engines}
            if reads.cautious.allows(who, VIEW, what):
                assert answers == {True}
            if not reads.concern(who, VIEW, what):
                assert answers == {reads.cautious.allows(who, VIEW, what)}


def test_what_no_policy_about_relations_applies_to_is_decided() -> None:
    engine = engine_of(
        [
            'permit (principal in Role::"r", action, resource is Folder);',
            "permit (principal, action, resource is Doc) when { principal in resource.viewers };",
        ],
        ["Doc:1#viewers@User:d"],
    )
    reads = RelationReads(engine)
    assert reads.policies == {"policy1"}
    reads.prepare()
    assert reads.cautious is not None
    dora, folder, doc = uid("User:d"), uid("Folder:f"), uid("Doc:1")
    assert (reads.concern(dora, VIEW, folder), reads.cautious.allows(dora, VIEW, folder)) == (False, True)
    assert (reads.concern(dora, VIEW, doc), reads.cautious.allows(dora, VIEW, doc)) == (True, False)
    assert engine.allows(dora, VIEW, doc)


def test_policies_that_read_no_relations_are_the_same_engine() -> None:
    for engine in (
        engine_of(["permit (principal, action, resource);"], []),
        Engine(
            PolicySet.parse("permit (principal, action, resource) when { principal in resource.viewers };"), Entities()
        ),
    ):
        reads = RelationReads(engine)
        reads.prepare()
        assert reads.cautious is engine
