"""The policy engine beside its peers: `python -m bench policy`.

Every engine proves its answers against cedarpy's before its time counts. Questions are ready objects of each engine;
times are the thread's CPU time, but for what the Rust core says of itself (wall time in whole microseconds, rounded
down, so in its favour).
"""

from __future__ import annotations

import importlib.util
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from bench import load, machine, policy_doors, policy_relations, zipf
from bench.bars import POLICY_BARS, Verdicts
from bench.deciders import CEDARPY, OURS, OURS_ARGUMENTS, PEERS, CedarpyDecider, OurDecider
from bench.load import WrongAnswer
from bench.material import make_issuer
from bench.measure import Contestant, calling, race, ratio
from bench.policy_conformance import conformance
from bench.policy_growth import asking, more_entities, more_policies
from bench.process import ServerFailed
from bench.table import Cell, Part, Progress, Table
from bench.workloads import Workload, abac, gdrive, github, mix, rbac, rebac, tinytodo

CEDAR_PAPER: tuple[Callable[..., Workload], ...] = (gdrive, github, tinytodo)
WORKLOADS: tuple[Callable[..., Workload], ...] = (*CEDAR_PAPER, mix, rbac, abac, rebac)
CORE = "cedarpy's own timer"


@dataclass(frozen=True, slots=True)
class Effort:
    """How hard to try."""

    rounds: int
    asks: int  # questions of a workload
    sizes: tuple[int, ...]  # entities of each kind in the workloads of the Cedar paper; the last holds for all
    policies: tuple[int, ...]
    entities: tuple[int, ...]
    tokens: int  # at the doors
    http_bursts: int  # of a second, for each door and workload
    relations: policy_relations.RelationSet
    generated: int  # requests that are compared with cedarpy
    zipf: zipf.Effort


FULL = Effort(
    rounds=9,
    asks=1000,
    sizes=(5, 10, 20, 30, 40, 50),
    policies=(10, 100, 1_000, 10_000),
    entities=(100, 10_000, 1_000_000),
    tokens=10_000,
    http_bursts=9,
    relations=policy_relations.RelationSet(),
    generated=100_000,
    zipf=zipf.FULL,
)
QUICK = Effort(
    rounds=3,
    asks=300,
    sizes=(5, 50),
    policies=(10, 1_000),
    entities=(100, 10_000),
    tokens=500,
    http_bursts=3,
    relations=policy_relations.RelationSet(users=3000, groups=400, folders=600, docs=4000, direct_grants=1000),
    generated=5_000,
    zipf=zipf.QUICK,
)


class PolicyBench:
    """One run; collects its parts."""

    def __init__(self, effort: Effort) -> None:
        self.effort = effort
        steps = len(WORKLOADS) + (len(effort.sizes) - 1) * len(CEDAR_PAPER)
        self.progress = Progress(steps + len(effort.policies) + len(effort.entities) + 4 + len(effort.zipf.leases_s))
        self.peers = [name for name in PEERS if importlib.util.find_spec(name) is not None]
        self.parts: list[Part] = []

    # -- decisions ------------------------------------------------------------------------------------------------

    def decisions(self) -> None:
        """Every workload: our engine in its three ways, and the peers; those of the Cedar paper in several sizes."""
        effort = self.effort
        bars: dict[str, list[float]] = {}
        rows: list[list[Cell]] = []
        sized: list[list[Cell]] = []
        measured: dict[str, Any] = {}
        for make in WORKLOADS:
            for size in effort.sizes if make in CEDAR_PAPER else effort.sizes[-1:]:
                workload = make(size, effort.asks)
                self.progress.step(f"{workload.name}: {len(workload.entities)} entities")
                full = size == effort.sizes[-1]
                allowed, core_us, found = self._decide(workload, self.peers if full else [CEDARPY])
                single = found[OURS_ARGUMENTS]
                rates = (ratio(found[CEDARPY], single), core_us / single.median_us, found["machine"].median_us)
                for name, value in zip(("cedarpy / ours", "core / ours", "machine µs"), rates, strict=True):
                    bars.setdefault(f"{workload.name}: {name}", []).append(value)
                if make in CEDAR_PAPER:
                    three = (OURS, OURS_ARGUMENTS, "machine")
                    cells = [found[name].median_us for name in (*three, CEDARPY)]
                    sized.append([f"{workload.name}, {size} of each kind", len(workload.entities), *cells, *rates[:2]])
                if full:
                    rows.append([workload.name, allowed, *(each.median_us for each in found.values()), core_us])
                measured[f"{workload.name}, {size}"] = {
                    **{each.name: each.per_op_ns for each in found.values()},
                    CORE: core_us * 1000,
                }
        ways = ("ours, prepared", "ours, four arguments", "ours, batch")
        columns = ("µs a decision", "allowed", *ways, *self.peers, CORE)
        size_columns = ("the Cedar paper's, by size", "entities", *ways, CEDARPY, "cedarpy / ours", "core / ours")
        # The worst size counts.
        worst = {name: max(each) if name.endswith("µs") else min(each) for name, each in bars.items()}
        tables = [Table("decisions", columns, rows), Table("sizes", size_columns, sized)]
        self.parts.append(Part(tables, worst, {"decisions": measured}))

    def _decide(self, workload: Workload, peers: Sequence[str]) -> tuple[str, float, dict[str, Contestant]]:
        """Time one workload: the share that is allowed, the core's time of cedarpy, and the contestants."""
        reference, ours = CedarpyDecider(workload), OurDecider(workload)
        asked = [reference.prepared(ask) for ask in workload.asks]
        expected = [reference.decide(each) for each in asked]
        prepared = [ours.prepared(ask) for ask in workload.asks]
        arguments = [ours.arguments(ask) for ask in workload.asks]
        assert [ours.decide(each) for each in prepared] == expected
        assert [ours.engine.allows(*each) for each in arguments] == expected
        assert ours.engine.decide_all(prepared) == expected
        count = len(prepared)
        contestants = {
            OURS: Contestant(OURS, calling(ours.decide, prepared), count * 10),
            OURS_ARGUMENTS: Contestant(OURS_ARGUMENTS, asking(ours.engine.allows, arguments), count * 10),
            "machine": Contestant("machine", self._batch(ours, prepared), count * 10),
        }
        for name in peers:
            peer = PEERS[name](workload)
            questions = [peer.prepared(ask) for ask in workload.asks]
            assert [peer.decide(each) for each in questions] == expected, name
            contestants[name] = Contestant(name, calling(peer.decide, questions), count // 3)
        race(list(contestants.values()), self.effort.rounds)
        # The least of five: its clock is the wall's, and counts what else the machine did.
        core_us = statistics.mean(min(reference.core_us(each) for _ in range(5)) for each in asked)
        return f"{sum(expected) * 100 // count} %", core_us, contestants

    @staticmethod
    def _batch(ours: OurDecider, prepared: list[Any]) -> Callable[[int], int]:
        def run(count: int) -> int:
            batch = prepared * (count // len(prepared))
            started_ns = time.thread_time_ns()
            ours.engine.decide_all(batch)
            return time.thread_time_ns() - started_ns

        return run

    # -- all else -------------------------------------------------------------------------------------------------

    def growth(self) -> None:
        """More policies, more entities, principals from claims."""
        effort, step = self.effort, self.progress.step
        self.parts.append(more_policies(effort.policies, effort.rounds, step))
        self.parts.append(more_entities(effort.entities, effort.rounds, step))

    def relations(self) -> None:
        """675,000 relations over four and five steps."""
        self.progress.step("relations")
        found = policy_relations.measure(self.effort.relations, rounds=3)
        self.parts.append(policy_relations.part(found, whole=self.effort.relations == policy_relations.RelationSet()))

    def doors(self) -> None:
        """What asking policies adds to a request: within one process, and over HTTP."""
        effort = self.effort
        self.progress.step("the front door")
        issuer = make_issuer("RS256")
        tokens = issuer.tokens(effort.tokens)
        inside = policy_doors.in_process(issuer, tokens, rounds=effort.rounds, count=5_000)
        self.parts.append(policy_doors.part(inside))
        self.progress.step("forward-auth and proxy door over HTTP")
        lacking = load.missing()
        if lacking is not None:
            print(f"left out: over HTTP: {lacking}")
            return
        try:
            figures = policy_doors.over_http(bursts=effort.http_bursts, seconds=1)
        except (ServerFailed, WrongAnswer, OSError) as error:
            print(f"left out: over HTTP: {error}")
        else:
            self.parts.append(policy_doors.http_part(figures))

    def sourced(self) -> None:
        """Entities that are kept in a source, here in SQLite; `python -m bench zipf` has the others."""
        self.parts.append(zipf.measure(self.effort.zipf, self.progress.step, ["SQLite"]))

    def right(self) -> None:
        """Whether what is so fast is also right."""
        self.progress.step("the corpus, AuthZEN's Todo, generated requests")
        self.parts.append(conformance(self.effort.generated))

    # -- report ---------------------------------------------------------------------------------------------------

    def report(self) -> dict[str, Any]:
        self.progress.end()
        described = machine.describe()
        print(machine.headline(described))
        print(", ".join(f"{name} {machine.package_version(name)}" for name in self.peers))
        print(f"CPU time of one thread, medians of {self.effort.rounds} rounds; questions are ready objects")
        bars: dict[Any, Any] = {}
        measured: dict[str, Any] = {}
        for part in self.parts:
            for table in part.tables:
                table.print()
            bars |= part.bars
            measured |= part.measured
        verdicts = Verdicts(POLICY_BARS, bars)
        verdicts.print()
        return {
            "kind": "policy",
            "machine": described,
            "effort": asdict(self.effort),
            "measured": measured,
            "bars": verdicts.as_json(),
        }


def run(effort: Effort) -> dict[str, Any]:
    """Measure and report."""
    bench = PolicyBench(effort)
    bench.right()
    bench.decisions()
    bench.growth()
    bench.doors()
    bench.relations()
    bench.sourced()
    return bench.report()
