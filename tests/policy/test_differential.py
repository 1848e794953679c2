"""The machine decides as Cedar and as its slow twin do: decision, reasons and errors, over generated cases."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway._native.uid import EntityUid
from gateway.policy.evaluation import EvaluationError, evaluate
from gateway.policy.language.statements import parse_expression
from tests.oracle import policy as oracle
from tests.policy import differential, generate
from tests.policy.machine import decider_of, store_of

SEED = 20_241
REQUESTS = 20_000


def test_decides_as_cedar() -> None:
    sums = list(differential.compare(SEED, REQUESTS))
    done, allowed, erring = sums[-1]
    assert done >= REQUESTS
    assert done // 10 < allowed < done // 2, "the generator lost its balance"
    assert erring > done // 10


@given(st.randoms(use_true_random=False))
def test_decides_as_the_slow_twin(chooser: random.Random) -> None:
    case = generate.case(chooser, policies_max=4, requests=3)
    assert differential.verdicts_of_machine(case) == differential.verdicts_of_oracle(case)


@pytest.mark.parametrize("seed", range(40))
def test_decides_as_the_slow_twin_with_many_policies(seed: int) -> None:
    case = generate.case(random.Random(f"twin {seed}"), policies_max=60, requests=20)
    assert differential.verdicts_of_machine(case) == differential.verdicts_of_oracle(case)


@pytest.mark.parametrize("seed", range(40))
def test_the_index_leaves_no_policy_out(seed: int) -> None:
    case = generate.case(random.Random(f"index {seed}"), policies_max=80, requests=30)
    assert differential.verdicts_of_machine(case) == differential.verdicts_without_index(case)


@given(st.randoms(use_true_random=False), st.sampled_from(generate.KINDS))
def test_an_expression_has_the_value_and_the_error_of_the_slow_twin(chooser: random.Random, kind: str) -> None:
    expression = parse_expression(generate.Writer(chooser).of(kind, generate.DEPTH_MAX))
    known, request = generate.entities(chooser), generate.request(chooser)
    store = store_of(known)
    slow: object
    try:
        slow = oracle.evaluate(expression, request, known)
    except oracle.EvaluationError as error:
        slow = error
    try:
        fast = evaluate(
            expression,
            principal=request.principal,
            action=request.action,
            resource=request.resource,
            context=dict(request.context),
            store=store,
        )
    except EvaluationError as error:
        assert isinstance(slow, oracle.EvaluationError), (slow, error)
        assert error.code == slow.code
    else:
        assert not isinstance(slow, oracle.EvaluationError), (slow.code, fast)
        assert oracle.same(fast, slow)
        assert oracle.kind(fast) != "set" or len(fast) == len(oracle.distinct(fast))


@pytest.mark.parametrize("seed", range(60))
def test_entities_that_a_request_defines_are_as_if_the_store_had_them(seed: int) -> None:
    """By whatever way they are reached. Nothing is in these two: what the store has below an entity stays there."""
    chooser = random.Random(f"overlay {seed}")
    case = generate.case(chooser, policies_max=10, requests=10)
    principal, resource = chooser.choice(generate.USERS), chooser.choice(generate.DOCS)
    for uid, entity in case.entities.items():
        case.entities[uid] = oracle.Entity(entity.attributes, entity.parents - {principal, resource}, entity.tags)
    policies = differential.read_policies(case)
    decider = decider_of(store_of(case.entities), policies)
    containers = [*generate.GROUPS, *generate.FOLDERS, EntityUid("Group", "new")]
    for asked in case.requests:
        request = oracle.Request(principal, asked.action, resource, asked.context)
        overlays, merged = {}, dict(case.entities)
        for uid in (principal, resource):
            if generate.chance(chooser, 70):
                attributes = generate.fields(chooser, generate.FIELDS, 40)
                parents = frozenset(each for each in containers if generate.chance(chooser, 25))
                stored = case.entities.get(uid, oracle.Entity())
                overlays[uid] = attributes, parents
                merged[uid] = oracle.Entity({**stored.attributes, **attributes}, stored.parents | parents, stored.tags)
        ready = decider.prepare(principal, request.action, resource, dict(request.context), overlays=dict(overlays))
        answer = decider.answer(ready)
        slow = oracle.authorize(policies.policies, request, merged)
        assert (answer.allowed, answer.reasons, answer.errors) == (slow.allowed, slow.reasons, slow.errors)


SOURCED = ["User", "Group", "Doc", "Folder"]
ROUNDS_MAX = 100


@pytest.mark.parametrize("seed", range(60))
def test_a_decision_over_entities_that_are_fetched_when_they_are_missed_is_the_right_one(seed: int) -> None:
    chooser = random.Random(f"sourced {seed}")
    case = generate.case(chooser, policies_max=10, requests=10)
    sourced = [name for name in SOURCED if generate.chance(chooser, 70)]
    policies = differential.read_policies(case)
    here = store_of({uid: entity for uid, entity in case.entities.items() if uid.type not in sourced})
    decider = decider_of(here, policies)
    for name in sourced:
        decider.store.source_type(name)
    for request in case.requests:
        asked = request.principal, request.action, request.resource, dict(request.context)
        slow = oracle.authorize(policies.policies, request, case.entities)
        fetched: set[EntityUid] = set()
        for _ in range(ROUNDS_MAX):
            assert slow.allowed or not decider.allows(*asked)
            answer = decider.authorize(*asked)
            uid = answer.missing
            if uid is None:
                break
            assert (answer.allowed, answer.faults) == (False, ("entity_not_resident",))
            assert uid.type in sourced
            assert uid not in fetched
            fetched.add(uid)
            entity = case.entities.get(uid)
            if entity is None:
                decider.store.settle([uid])
            else:
                decider.store.put(uid, entity.attributes, list(entity.parents), entity.tags)
        assert (answer.allowed, answer.reasons, answer.errors) == (slow.allowed, slow.reasons, slow.errors)
        if generate.chance(chooser, 30):
            decider.store.evict(fetched)
            assert not any(decider.store.resident(uid) for uid in fetched)


@pytest.mark.parametrize("seed", range(20))
def test_decisions_follow_the_entities_as_they_change(seed: int) -> None:
    chooser = random.Random(f"change {seed}")
    case = generate.case(chooser, policies_max=10, requests=10)
    policies = differential.read_policies(case)
    decider = decider_of(store_of(case.entities), policies)
    prepared = [decider.prepare(r.principal, r.action, r.resource, dict(r.context)) for r in case.requests]
    for _ in range(6):
        changed = generate.entities(chooser)
        decider.store.apply(
            [(uid, entity.attributes, list(entity.parents), entity.tags) for uid, entity in changed.items()],
            [uid for uid in decider.store if uid not in changed],
        )
        for request, ready in zip(case.requests, prepared, strict=True):
            slow = oracle.authorize(policies.policies, request, changed)
            answer = decider.answer(ready)
            assert (answer.allowed, answer.reasons, answer.errors) == (slow.allowed, slow.reasons, slow.errors)
            assert (
                decider.authorize(request.principal, request.action, request.resource, dict(request.context)) == answer
            )


@pytest.mark.parametrize("seed", range(20))
def test_the_slow_twin_decides_as_cedar(seed: int) -> None:
    case = generate.case(random.Random(f"cedar {seed}"), requests=50)
    assert differential.verdicts_of_oracle(case) == differential.verdicts_of_cedar(case)
