"""A decision ends as soon as it is known: forbids first, heads before conditions, and only what the index picks."""

from __future__ import annotations

import random

import pytest

from gateway._native.uid import EntityUid
from gateway.policy import Engine, Entities, Entity, PolicySet
from gateway.policy.short_circuit import Evaluation, Look, ShortCircuitEvaluator
from tests.policy import differential, generate
from tests.unit.policy.attribute_world import VIEW
from tests.unit.policy.relation_world import uid

ALICE, DOC, STAFF = uid("User:alice"), uid("Doc:1"), uid("Group:staff")
ANY = "(principal, action, resource)"


def evaluation_of(text: str, context: dict[str, object] | None = None) -> Evaluation:
    engine = Engine(PolicySet.parse(text), Entities([Entity(ALICE, {}, (STAFF,))]))
    made = ShortCircuitEvaluator(engine).evaluate(ALICE, VIEW, DOC, context)
    assert made.allowed == ShortCircuitEvaluator(engine).allows(ALICE, VIEW, DOC, context)
    return made


def test_a_forbid_that_is_satisfied_ends_it_before_any_permit() -> None:
    text = f"permit {ANY}; permit {ANY} when {{ context.a }}; forbid {ANY} when {{ context.a }};"
    made = evaluation_of(text, {"a": True})
    assert not made.allowed
    assert made.looks == (Look("policy2", "forbid", "satisfied"),)
    assert made.decided_by == "policy2"


def test_all_forbids_come_before_the_first_permit_and_that_ends_it() -> None:
    made = evaluation_of(
        f"permit {ANY}; permit {ANY}; forbid {ANY} when {{ false }}; forbid {ANY} when {{ context.a }};"
    )
    assert made.allowed
    assert [look.effect for look in made.looks] == ["forbid", "forbid", "permit"]
    assert {look.outcome for look in made.looks[:2]} == {"unsatisfied", "error"}
    assert made.decided_by == made.looks[-1].policy_id


def test_where_nothing_is_satisfied_everything_picked_was_looked_at() -> None:
    made = evaluation_of(f"permit {ANY} when {{ false }}; forbid {ANY} when {{ false }};")
    assert (made.allowed, made.decided_by, len(made.looks)) == (False, None, 2)


@pytest.mark.parametrize(
    "head",
    [
        "principal is Robot, action, resource",
        'principal == User::"bob", action, resource',
        'principal in Group::"guests", action, resource',
        'principal, action == Action::"edit", resource',
        "principal, action, resource is Folder",
        'principal, action, resource in Folder::"f"',
    ],
)
def test_conditions_are_not_run_where_the_head_does_not_hold(head: str) -> None:
    made = evaluation_of(f"forbid ({head}) when {{ context.missing }}; permit {ANY};")
    assert made.allowed
    assert made.run == ("policy1",)
    assert all(look.outcome == "head" for look in made.looks[:-1])


def test_roles_are_asked_before_attributes_whatever_the_order_of_the_text() -> None:
    dear = " && ".join(f"context.n{number} == {number}" for number in range(20))
    text = f'permit {ANY} when {{ {dear} }}; permit (principal in Group::"staff", action, resource);'
    made = evaluation_of(text, {f"n{number}": number for number in range(20)})
    assert made.allowed
    assert made.looks == (Look("policy1", "permit", "satisfied"),)


def test_cheap_policies_are_run_before_dear_ones() -> None:
    dear = " || ".join(f"context.a{number}" for number in range(20))
    made = evaluation_of(f"permit {ANY} when {{ {dear} }}; permit {ANY} when {{ context.b }};", {"a0": True, "b": True})
    assert made.run == ("policy1",)


def test_only_what_the_index_picks_is_looked_at() -> None:
    others = "".join(
        f'forbid (principal == User::"{n}", action, resource); permit (principal, action == Action::"{n}", resource);'
        for n in range(500)
    )
    made = evaluation_of(others + 'permit (principal in Group::"staff", action == Action::"view", resource);')
    assert made.allowed
    assert made.policies == 1001
    assert made.looks == (Look("policy1000", "permit", "satisfied"),)


def test_what_is_not_here_is_named() -> None:
    engine = Engine(PolicySet.parse(f"permit {ANY} when {{ principal.a }};"), Entities())
    engine.store.source_type("User")
    made = ShortCircuitEvaluator(engine).evaluate(ALICE, VIEW, DOC)
    assert (made.allowed, made.fault) == (False, "entity_not_resident")
    assert made.looks == (Look("policy0", "permit", "fault"),)
    claims = ShortCircuitEvaluator(engine).evaluate(ALICE, VIEW, DOC, overlays={ALICE: ({"a": True}, ())})
    assert claims.decided_by == "policy0"


@pytest.mark.parametrize("seed", range(60))
def test_the_answer_is_that_of_running_every_policy(seed: int) -> None:
    case = generate.case(random.Random(f"short circuit {seed}"), policies_max=30, requests=15)
    engine = Engine(differential.read_policies(case), Entities())
    engine.store.apply(
        [(one, each.attributes, list(each.parents), each.tags or None) for one, each in case.entities.items()]
    )
    evaluator = ShortCircuitEvaluator(engine)
    naive = differential.verdicts_without_index(case)
    for request, verdict in zip(case.requests, naive, strict=True):
        asked = request.principal, request.action, request.resource, dict(request.context)
        made = evaluator.evaluate(*asked)
        assert made.allowed == evaluator.allows(*asked) == verdict.allowed
        check_way(engine, asked, made)
        if made.decided_by is not None:
            assert made.decided_by in verdict.reasons


def check_way(
    engine: Engine, asked: tuple[EntityUid, EntityUid, EntityUid, dict[str, object]], made: Evaluation
) -> None:
    """Hold the looks to what each policy does when it is run alone."""
    effects = [look.effect for look in made.looks]
    assert effects == sorted(effects)  # forbid, then permit
    assert [look.outcome for look in made.looks].count("satisfied") <= 1
    assert "satisfied" not in [look.outcome for look in made.looks[:-1]]
    alone = dict(zip(engine.ids, engine.run_each(engine.prepare(*asked)), strict=True))
    for look in made.looks:
        head, _, satisfied, _ = alone[look.policy_id]
        assert (look.outcome == "head") == (head is not None)
        assert (look.outcome == "satisfied") == satisfied
    unseen = alone.keys() - {look.policy_id for look in made.looks}
    for policy_id in unseen:
        if made.decided_by is None:
            assert not alone[policy_id][2]
