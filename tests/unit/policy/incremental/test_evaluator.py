"""Residuals answer as the whole set does, are kept while nothing that they read changes, and dropped when it does."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.policy import Engine, Entities, Entity, EntityUid, PolicySet
from gateway.policy.incremental import IncrementalEvaluator
from gateway.policy.language.printer import print_expression
from tests.policy import differential, generate

ALICE, BOB = EntityUid("User", "alice"), EntityUid("User", "bob")
VIEW, EDIT = EntityUid("Action", "view"), EntityUid("Action", "edit")
DOCUMENT, STAFF, GUESTS = EntityUid("Document", "1"), EntityUid("Group", "staff"), EntityUid("Group", "guests")


def evaluator_of(text: str, **limits: int) -> IncrementalEvaluator:
    entities = Entities(
        [
            Entity(ALICE, {"level": 7, "manager": BOB, "active": True}, (STAFF,)),
            Entity(BOB, {"level": 9}, (STAFF,)),
            Entity(DOCUMENT, {"level": 5, "owner": ALICE}),
            Entity(STAFF),
        ]
    )
    return IncrementalEvaluator(Engine(PolicySet.parse(text), entities), **limits)


def bodies(evaluator: IncrementalEvaluator) -> dict[str, list[str]]:
    left = evaluator.residual(ALICE, VIEW).policies.policies
    return {name: [print_expression(each.body) for each in one.statement.conditions] for name, one in left.items()}


def agree(case: generate.Case) -> None:
    engine = Engine(differential.read_policies(case), Entities())
    engine.store.apply(
        [(uid, each.attributes, list(each.parents), each.tags or None) for uid, each in case.entities.items()]
    )
    evaluator = IncrementalEvaluator(engine)
    for request in case.requests:
        asked = (request.principal, request.action, request.resource, dict(request.context))
        whole = engine.authorize(*asked)
        assert evaluator.authorize(*asked) == whole
        assert evaluator.allows(*asked) == whole.allowed
        decided = evaluator.residual(request.principal, request.action).decided
        assert decided is None or decided == whole.allowed


@given(st.randoms(use_true_random=False))
def test_answers_as_the_whole_set(chooser: random.Random) -> None:
    agree(generate.case(chooser, policies_max=4, requests=3))


@pytest.mark.parametrize("seed", range(30))
def test_answers_as_the_whole_set_of_many_policies(seed: int) -> None:
    agree(generate.case(random.Random(f"residual {seed}"), policies_max=40, requests=15))


@pytest.mark.parametrize(
    ("condition", "left"),
    [
        ("principal.level >= resource.level", ["7 >= resource.level"]),
        ("principal.manager.level > 8 && resource.open", ["resource.open"]),
        ('principal in Group::"staff" && context.mfa == true', ["context.mfa == true"]),
        ('principal in Group::"guests" || resource.open == true', ["resource.open == true"]),
        ("if principal.active then resource.a else resource.b", ["resource.a"]),
        ("principal has nobody.deep || resource has x", ["resource has x"]),
        ("[principal.level, 1].contains(resource.level)", ["[7, 1].contains(resource.level)"]),
    ],
)
def test_what_is_known_is_computed(condition: str, left: list[str]) -> None:
    text = f"permit (principal, action, resource) when {{ {condition} }};"
    assert bodies(evaluator_of(text)) == {"policy0": left}


def test_policies_of_others_are_left_out() -> None:
    evaluator = evaluator_of(
        'permit (principal == User::"bob", action, resource);'
        'permit (principal in Group::"guests", action, resource);'
        'permit (principal, action == Action::"edit", resource);'
        "permit (principal, action, resource) when { principal.level < 3 };"
        'permit (principal is User in Group::"staff", action, resource) when { resource.open };'
    )
    assert list(bodies(evaluator)) == ["policy4"]


def test_what_fails_stays_and_fails_again() -> None:
    evaluator = evaluator_of("permit (principal, action, resource) when { principal.missing > 1 && resource.open };")
    assert bodies(evaluator) == {"policy0": ["principal.missing > 1 && resource.open".replace("principal", str(ALICE))]}
    assert evaluator.authorize(ALICE, VIEW, DOCUMENT).errors == {"policy0"}


def test_false_behind_what_may_fail_stays() -> None:
    evaluator = evaluator_of("permit (principal, action, resource) when { resource.open && principal.level > 8 };")
    assert evaluator.authorize(ALICE, VIEW, DOCUMENT).errors == {"policy0"}


def test_true_before_what_is_no_boolean_stays() -> None:
    evaluator = evaluator_of("permit (principal, action, resource) when { (principal.active && resource.level) == 5 };")
    assert evaluator.authorize(ALICE, VIEW, DOCUMENT).errors == {"policy0"}


@pytest.mark.parametrize(
    ("text", "decided"),
    [
        ("permit (principal, action, resource);", True),
        ("permit (principal, action, resource) when { principal.level == 7 };", True),
        ("permit (principal, action, resource) when { principal.level == 8 };", False),
        (
            "permit (principal, action, resource); forbid (principal, action, resource) when { principal.active };",
            False,
        ),
        ("permit (principal, action, resource); forbid (principal, action, resource) when { resource.a };", None),
        ('permit (principal, action, resource == Document::"1");', None),
    ],
)
def test_says_when_the_answer_is_the_same_for_all(text: str, decided: bool | None) -> None:
    assert evaluator_of(text).residual(ALICE, VIEW).decided is decided


def test_a_residual_is_kept_while_nothing_that_it_read_changes() -> None:
    evaluator = evaluator_of("permit (principal, action, resource) when { principal.level > resource.level };")
    first = evaluator.residual(ALICE, VIEW)
    evaluator.engine.entities.upsert([Entity(DOCUMENT, {"level": 6}), Entity(BOB, {"level": 1})])
    assert evaluator.residual(ALICE, VIEW) is first
    assert (evaluator.computed, evaluator.reused) == (1, 1)
    assert evaluator.allows(ALICE, VIEW, DOCUMENT)


@pytest.mark.parametrize(
    "change",
    [
        Entity(ALICE, {"level": 4}, (STAFF,)),
        Entity(BOB, {"level": 1}, (STAFF,)),
    ],
    ids=["the principal", "an entity on the way"],
)
def test_a_change_of_what_it_read_drops_it(change: Entity) -> None:
    evaluator = evaluator_of(
        "permit (principal, action, resource) when { principal.level > 6 && principal.manager.level > resource.level };"
    )
    assert evaluator.allows(ALICE, VIEW, DOCUMENT)
    evaluator.engine.entities.upsert([change])
    assert not evaluator.allows(ALICE, VIEW, DOCUMENT)
    assert evaluator.computed == 2


def test_a_membership_far_above_drops_it() -> None:
    evaluator = evaluator_of('permit (principal in Group::"guests", action, resource);')
    assert not evaluator.allows(ALICE, VIEW, DOCUMENT)
    evaluator.engine.entities.upsert([Entity(STAFF, {}, (GUESTS,))])
    assert evaluator.allows(ALICE, VIEW, DOCUMENT)


def test_an_entity_that_comes_into_being_drops_it() -> None:
    nobody = EntityUid("User", "carol")
    evaluator = evaluator_of(
        "permit (principal, action, resource) when { principal has level && principal.level > 1 };"
    )
    assert not evaluator.allows(nobody, VIEW, DOCUMENT)
    evaluator.engine.entities.upsert([Entity(nobody, {"level": 2})])
    assert evaluator.allows(nobody, VIEW, DOCUMENT)


def test_other_policies_drop_all() -> None:
    evaluator = evaluator_of("permit (principal, action, resource);")
    assert evaluator.allows(ALICE, VIEW, DOCUMENT)
    evaluator.publish(evaluator.engine.with_policies(PolicySet.parse("forbid (principal, action, resource);")))
    assert not evaluator.allows(ALICE, VIEW, DOCUMENT)


def test_the_one_not_asked_for_longest_goes_first() -> None:
    evaluator = evaluator_of("permit (principal, action, resource);", capacity=2)
    kept = evaluator.residual(ALICE, VIEW)
    evaluator.residual(BOB, VIEW)
    evaluator.residual(ALICE, VIEW)
    evaluator.residual(ALICE, EDIT)
    assert evaluator.residual(ALICE, VIEW) is kept
    assert evaluator.computed == 3
    evaluator.residual(BOB, VIEW)
    assert evaluator.computed == 4


def test_the_store_does_not_grow_by_residuals_that_went() -> None:
    """A hundred thousand principals that nobody else names, one after the other."""
    evaluator = evaluator_of(
        "permit (principal, action, resource) when { principal == resource.owner || [principal].contains(context.a) };",
        capacity=10,
    )
    sizes = []
    for number in range(100_000, 200_000):
        assert not evaluator.allows(EntityUid("User", f"{number}"), VIEW, DOCUMENT)
        if number % 1_000 == 0:
            sizes.append(evaluator.engine.store.memory_bytes)
    assert evaluator.computed == 100_000
    assert max(sizes[10:]) == max(sizes[1:10])


def test_what_has_to_be_fetched_is_left_open_until_it_is_here() -> None:
    entities = Entities([Entity(DOCUMENT, {"level": 5})])
    entities.store.source_type("User")
    policies = PolicySet.parse(
        "permit (principal, action, resource);"
        'forbid (principal in Group::"guests", action, resource);'
        "forbid (principal, action, resource) when { principal.level > resource.level };"
    )
    evaluator = IncrementalEvaluator(Engine(policies, entities))
    assert evaluator.residual(ALICE, VIEW).decided is None
    assert evaluator.authorize(ALICE, VIEW, DOCUMENT).faults == ("entity_not_resident",)
    assert not evaluator.allows(ALICE, VIEW, DOCUMENT)
    entities.upsert([Entity(ALICE, {"level": 1})])
    assert evaluator.allows(ALICE, VIEW, DOCUMENT)
    assert list(evaluator.residual(ALICE, VIEW).policies.policies) == ["policy0", "policy2"]
    entities.upsert([Entity(ALICE, {"level": 1}, (GUESTS,))])
    assert evaluator.residual(ALICE, VIEW).decided is False


def test_a_group_that_has_to_be_fetched_leaves_heads_open() -> None:
    entities = Entities([Entity(ALICE, {}, (STAFF,)), Entity(DOCUMENT)])
    entities.store.source_type("Group")
    policies = PolicySet.parse(
        "permit (principal, action, resource);"
        'forbid (principal is User in Group::"guests", action in [Action::"view"], resource);'
    )
    evaluator = IncrementalEvaluator(Engine(policies, entities))
    assert evaluator.authorize(ALICE, VIEW, DOCUMENT).missing == STAFF
    entities.upsert([Entity(STAFF)])
    assert evaluator.residual(ALICE, VIEW).decided is True
    entities.upsert([Entity(STAFF, {}, (GUESTS,))])
    assert not evaluator.allows(ALICE, VIEW, DOCUMENT)
