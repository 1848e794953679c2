"""What takes long is told by the fastest of several, for one engine, and for a bounded number of types."""

from __future__ import annotations

import gc

import pytest

from gateway._native.uid import EntityUid
from gateway.policy.decision_costs import DEAR_NS, SAMPLES, DecisionCosts
from gateway.policy.engine import Engine
from gateway.policy.plans import Question
from tests.unit.policy.attribute_world import VIEW, engine_of

ENGINE = engine_of("permit (principal, action, resource);")


def question(kind: str = "User") -> Question:
    return Question(EntityUid(kind, "a"), VIEW, EntityUid("Doc", "1"))


def noted(costs: DecisionCosts, *taken_ns: int, engine: Engine = ENGINE, kind: str = "User") -> bool:
    for each in taken_ns:
        costs.note(engine, question(kind), each)
    return costs.are_dear(engine, question(kind))


def test_the_fastest_of_several_decides() -> None:
    assert not noted(DecisionCosts(), *[DEAR_NS] * (SAMPLES - 1))
    assert noted(DecisionCosts(), *[DEAR_NS] * SAMPLES)
    assert not noted(DecisionCosts(), *[10**9] * (SAMPLES - 1), DEAR_NS - 1)
    costs = DecisionCosts()
    assert noted(costs, *[DEAR_NS] * SAMPLES)
    assert noted(costs, *[1] * (SAMPLES - 1))  # until the next round of samples is whole
    assert not noted(costs, 1)


def test_each_type_and_action_has_its_own() -> None:
    costs = DecisionCosts()
    assert noted(costs, *[DEAR_NS] * SAMPLES)
    assert not noted(costs, *[1] * SAMPLES, kind="Robot")
    assert costs.are_dear(ENGINE, question())


def test_another_engine_begins_anew_and_the_former_is_not_kept() -> None:
    costs, other = DecisionCosts(), engine_of("permit (principal, action, resource);")
    assert noted(costs, *[DEAR_NS] * SAMPLES)
    assert not noted(costs, DEAR_NS, engine=other)
    assert not costs.are_dear(ENGINE, question())
    assert noted(costs, *[DEAR_NS] * SAMPLES, engine=other)
    del other
    gc.collect()
    assert costs._engine is not None
    assert costs._engine() is None


def test_made_up_types_push_nobody_out_for_good(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gateway.policy.decision_costs.COSTS_MAX", 10)
    costs = DecisionCosts()
    for number in range(100):
        noted(costs, DEAR_NS, kind=f"T{number}")
    assert len(costs._fastest) == 10
    assert noted(costs, *[DEAR_NS] * SAMPLES)
