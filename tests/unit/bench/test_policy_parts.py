"""The parts of `python -m bench policy`: what they ask is answered rightly, and their figures have the bars' names."""

from __future__ import annotations

from pathlib import Path

import pytest

from bench import policy_doors, policy_growth, policy_relations
from bench.bars import DOOR_POLICY_BARS, POLICY_BARS, Verdicts
from bench.door_policies import subject_of
from bench.journey import DISTINCT, SAME, Figures
from bench.material import make_issuer
from bench.measure import Spread, median_spread
from bench.peers.base import Door
from bench.policy_conformance import _passed_percent
from bench.policy_doors import HTTP_PEERS, DoorFigures
from bench.policy_relations import RelationFigures


def test_a_door_with_policies_is_asked_and_passes_the_subjects_of_the_tokens() -> None:
    issuer = make_issuer("ES256")
    tokens = issuer.tokens(3)
    assert len({subject_of(token) for token in tokens}) == 3
    figures = policy_doors.in_process(issuer, tokens, rounds=1, count=10)
    assert list(figures.more_us) == [1, 500, 3]
    assert [row[0] for row in figures.rows] == ["1 tokens in turn", "500 tokens in turn", "3 tokens in turn"]


def test_whole_requests_are_compared_for_each_door_and_workload() -> None:
    doors: tuple[Door, ...] = ("forward", "proxy")
    figures = [
        Figures(peer.name, door, workload, [100.0], [cpu_us], [1.0], [1.0], [9.0], [9.0])
        for peer, cpu_us in zip(HTTP_PEERS, (2.0, 4.0), strict=True)
        for door in doors
        for workload in (SAME, DISTINCT)
    ]
    part = policy_doors.http_part(figures)
    assert [row[1:] for row in part.tables[0].rows] == [[100.0, 100.0, 2.0, 4.0]] * 4
    assert [(row["measured"], row["by_cpu"]) for row in Verdicts(DOOR_POLICY_BARS, part.bars).as_json()] == [
        (1.0, 0.5)
    ] * 4


def test_more_policies_and_entities_are_asked_with_right_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(policy_growth, "ANY", 500)
    steps: list[str] = []
    policies = policy_growth.more_policies((10, 30), 1, steps.append)
    entities = policy_growth.more_entities((100, 400), 1, steps.append)
    assert steps == ["10 policies", "30 policies", "100 entities", "400 entities"]
    assert [row[0] for part in (policies, entities) for row in part.tables[0].rows] == ["10", "30", "100", "400"]
    assert list(entities.bars) == ["a principal from claims costs µs more"], "the bars speak of larger numbers"


def test_a_run_of_the_bars_sizes_has_a_verdict_on_each_of_its_bars(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(policy_growth, "ANY", 500)
    monkeypatch.setattr(policy_growth, "MOST_POLICIES", 20)
    monkeypatch.setattr(policy_growth, "MOST_ENTITIES", 200)
    relations = RelationFigures(1, 1, 1.0, 1.0, 0.5, Spread(1.0, 2.0, 3.0), Spread(1.0, 2.0, 3.0), 1.0)
    parts = [
        policy_growth.more_policies((10, 20), 1, lambda _: None),
        policy_growth.more_entities((100, 200), 1, lambda _: None),
        policy_relations.part(relations, whole=True),
        policy_doors.part(DoorFigures([], {1: 0.1, 500: 0.2, 10_000: 0.3})),
    ]
    bars = {name: value for part in parts for name, value in part.bars.items()}
    verdicts = [row for row in Verdicts(POLICY_BARS, bars).as_json() if row["measured"] is not None]
    assert len(verdicts) == len(bars)


def test_what_is_skipped_or_fails_has_not_passed(tmp_path: Path) -> None:
    suite = tmp_path / "test_four.py"
    suite.write_text(
        "import pytest\n"
        "def test_a(): pass\n"
        "def test_b(): assert False\n"
        "def test_c(): pytest.skip('no')\n"
        "def test_d(): pass\n"
    )
    assert _passed_percent(str(suite)) == 50.0


def test_spreads_have_medians_of_each_figure() -> None:
    rounds = [Spread(1.0, 9.0, 10.0), Spread(2.0, 3.0, 90.0), Spread(3.0, 4.0, 20.0)]
    assert median_spread(rounds) == Spread(2.0, 4.0, 20.0)
