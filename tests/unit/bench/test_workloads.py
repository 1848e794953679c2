"""The workloads of the policy benchmark ask what they say they ask, and every engine gives the same answers."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable

import pytest

from bench.deciders import CEDARPY, PEERS, CedarpyDecider
from bench.workloads import Workload, abac, gdrive, github, mix, rbac, rebac, tinytodo

WORKLOADS: tuple[Callable[..., Workload], ...] = (gdrive, github, tinytodo, rbac, abac, rebac, mix)
# Peers of the benchmark alone are not installed for the tests, except where `make bench` was set up too.
OTHERS = [name for name in PEERS if name != CEDARPY and importlib.util.find_spec(name) is not None]


def answers(decider: CedarpyDecider, workload: Workload) -> list[bool]:
    return [decider.decide(decider.prepared(ask)) for ask in workload.asks]


@pytest.mark.parametrize("make", WORKLOADS, ids=lambda make: make.__name__)
def test_questions_are_allowed_and_denied(make: Callable[..., Workload]) -> None:
    workload = make(20, 200)
    allowed = sum(answers(CedarpyDecider(workload), workload))
    assert 10 <= allowed <= 190


@pytest.mark.parametrize("make", WORKLOADS, ids=lambda make: make.__name__)
@pytest.mark.parametrize("size", [5, 20])
def test_all_peers_agree(make: Callable[..., Workload], size: int) -> None:
    workload = make(size, 60, seed=size)
    expected = answers(CedarpyDecider(workload), workload)
    for name in OTHERS:
        peer = PEERS[name](workload)
        assert [peer.decide(peer.prepared(ask)) for ask in workload.asks] == expected, name


def test_the_same_seed_gives_the_same_workload() -> None:
    assert mix(10, 30, seed=3) == mix(10, 30, seed=3)
    assert mix(10, 30, seed=3) != mix(10, 30, seed=4)
