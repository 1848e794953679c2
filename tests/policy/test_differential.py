"""The machine decides as Cedar and as its slow twin do: decision, reasons and errors, over generated cases."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.policy.evaluation import EvaluationError, evaluate
from gateway.policy.language.statements import parse_expression
from tests.oracle import policy as oracle
from tests.policy import differential, generate

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
    store = differential.store_of(known)
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
