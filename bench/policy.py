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
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from bench import machine
from bench.bars import POLICY_BARS, Verdicts
from bench.deciders import CEDARPY, OURS, OURS_ARGUMENTS, PEERS, CedarpyDecider, OurDecider
from bench.measure import Contestant, calling, race, ratio
from bench.table import Cell, Progress, print_table
from bench.workloads import Workload, abac, gdrive, github, mix, rbac, rebac, tinytodo

if TYPE_CHECKING:
    from gateway.policy import PolicySet

WORKLOADS: tuple[Callable[..., Workload], ...] = (gdrive, github, tinytodo, mix, rbac, abac, rebac)
CORE = "cedarpy's own timer"


@dataclass(frozen=True, slots=True)
class Effort:
    """How hard to try."""

    rounds: int
    asks: int  # questions of a workload
    size: int  # entities of each kind in a workload
    policies: tuple[int, ...]
    entities: tuple[int, ...]


FULL = Effort(rounds=9, asks=1000, size=50, policies=(10, 100, 1_000, 10_000), entities=(100, 10_000, 1_000_000))
QUICK = Effort(rounds=3, asks=300, size=50, policies=(10, 1_000), entities=(100, 10_000))


def _rss_bytes() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096


def _asking(call: Callable[..., object], arguments: Sequence[tuple[Any, ...]]) -> Callable[[int], int]:
    """Make a `run` that calls with four arguments: the harness's own calls have one."""

    def run(count: int) -> int:
        plan = list(arguments) * (count // len(arguments))
        started_ns = time.thread_time_ns()
        for principal, action, resource, context in plan:
            call(principal, action, resource, context)
        return time.thread_time_ns() - started_ns

    return run


class PolicyBench:
    """One run; collects what the tables, the bars and the JSON file need."""

    def __init__(self, effort: Effort) -> None:
        self.effort = effort
        self.progress = Progress(len(WORKLOADS) + len(effort.policies) + len(effort.entities) + 2)
        self.bars: dict[str, float] = {}
        self.result: dict[str, Any] = {}
        self.peers = [name for name in PEERS if importlib.util.find_spec(name) is not None]

    # -- decisions ------------------------------------------------------------------------------------------------

    def decisions(self) -> None:
        """Every workload: our engine in its two ways, and the peers."""
        self._rows: list[list[Cell]] = []
        for make in WORKLOADS:
            workload = make(self.effort.size, self.effort.asks)
            self.progress.step(f"{workload.name}: {len(workload.entities)} entities")
            self._decide(workload)

    def _decide(self, workload: Workload) -> None:
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
            OURS_ARGUMENTS: Contestant(OURS_ARGUMENTS, _asking(ours.engine.allows, arguments), count * 10),
            "machine": Contestant("machine", self._batch(ours, prepared), count * 10),
        }
        for name in self.peers:
            peer = PEERS[name](workload)
            questions = [peer.prepared(ask) for ask in workload.asks]
            assert [peer.decide(each) for each in questions] == expected, name
            contestants[name] = Contestant(name, calling(peer.decide, questions), count // 3)
        race(list(contestants.values()), self.effort.rounds)
        core_us = statistics.mean(reference.core_us(each) for each in asked)
        single = contestants[OURS_ARGUMENTS]
        name = workload.name
        self.bars[f"{name}: cedarpy / ours"] = ratio(contestants[CEDARPY], single)
        self.bars[f"{name}: core / ours"] = core_us / single.median_us
        self.bars[f"{name}: machine µs"] = contestants["machine"].median_us
        allowed = f"{sum(expected) * 100 // count} %"
        times = [contestants[each].median_us for each in (OURS, OURS_ARGUMENTS, "machine", *self.peers)]
        self._rows.append([name, allowed, *times, core_us])
        self.result.setdefault("decisions", {})[name] = {
            **{each.name: each.per_op_ns for each in contestants.values()},
            CORE: core_us * 1000,
        }

    @staticmethod
    def _batch(ours: OurDecider, prepared: list[Any]) -> Callable[[int], int]:
        def run(count: int) -> int:
            batch = prepared * (count // len(prepared))
            started_ns = time.thread_time_ns()
            ours.engine.decide_all(batch)
            return time.thread_time_ns() - started_ns

        return run

    # -- more policies --------------------------------------------------------------------------------------------

    def policies(self) -> None:
        """The same questions while policies about others become more; and what compiling them takes."""
        from gateway.policy import Engine, Entities, Entity, EntityUid, PolicySet
        from gateway.policy.compiler.bundle import bundle_key

        view = EntityUid("Action", "view")
        entities = Entities()
        roles = [EntityUid("Role", f"role{i}") for i in range(max(self.effort.policies))]
        users = [Entity(EntityUid("User", f"user{i}"), {"department": "d1"}, (roles[i],)) for i in range(10)]
        documents = [Entity(EntityUid("Document", f"doc{i}"), {"department": f"d{i % 2}"}) for i in range(10)]
        entities.upsert([*users, *documents])
        rows: list[list[Cell]] = []
        costs: list[Contestant] = []
        for count in self.effort.policies:
            self.progress.step(f"{count:,} policies")
            text = "\n".join(_policy(number) for number in range(count))
            started_s = time.perf_counter()
            policies = PolicySet.parse(text)
            engine = Engine(policies, entities)
            cold_ms = (time.perf_counter() - started_s) * 1000
            started_s = time.perf_counter()
            other = engine.with_policies(policies.with_policy("policy5", _policy(5, "x")))
            one_ms = (time.perf_counter() - started_s) * 1000
            assert len(other.policies) == count
            key = bundle_key([text.encode()])
            image = engine.to_bytes(key)
            started_s = time.perf_counter()
            warm = Engine.from_bytes(image, key, partial(_same, policies), entities)
            warm_ms = (time.perf_counter() - started_s) * 1000
            asks = [engine.prepare(user.uid, view, document.uid) for user in users for document in documents]
            answers = [engine.decide(each) for each in asks]
            assert sum(answers) == 50 and [warm.decide(each) for each in asks] == answers
            contestant = Contestant(f"{count:,}", calling(cast(Any, engine.decide), asks), 10_000)
            race([contestant], self.effort.rounds)
            costs.append(contestant)
            rows.append([f"{count:,}", contestant.median_us, cold_ms, one_ms, warm_ms])
            self.result.setdefault("policies", {})[count] = {
                "decide_ns": contestant.per_op_ns, "cold_ms": cold_ms, "one_changed_ms": one_ms, "warm_ms": warm_ms,
            }  # fmt: skip
        self._policy_rows = rows
        self.bars["policies: most / fewest"] = costs[-1].median_us / costs[0].median_us
        if self.effort.policies[-1] == 10_000:
            self.bars["10,000 policies cold ms"], self.bars["one of 10,000 changed ms"] = cold_ms, one_ms
            self.bars["10,000 policies warm ms"] = warm_ms

    # -- more entities --------------------------------------------------------------------------------------------

    def entities(self) -> None:
        """1,000 questions among more and more entities, as they lie in the store; and what an entity takes."""
        from gateway.policy import Engine, Entities, Entity, EntityUid, PolicySet

        view = EntityUid("Action", "view")
        policies = PolicySet.parse(
            'permit (principal in Group::"group1", action == Action::"view", resource is Document)'
            " when { principal.department == resource.department && principal.level >= 3 };"
        )
        rows: list[list[Cell]] = []
        costs: list[float] = []
        for count in self.effort.entities:
            self.progress.step(f"{count:,} entities")
            before_bytes, started_s = _rss_bytes(), time.perf_counter()
            entities = Entities()
            groups = max(3, count // 100)
            entities.upsert(
                Entity(EntityUid("Group", f"group{i}"), {}, (EntityUid("Group", f"group{(i - 1) // 8}"),) if i else ())
                for i in range(groups)
            )
            for start in range(0, count, 50_000):
                entities.upsert(
                    Entity(
                        EntityUid("User", f"user{i}"),
                        {"department": f"d{i % 20}", "level": i % 9, "region": f"r{i % 5}", "active": i % 3 > 0},
                        (EntityUid("Group", f"group{i % groups}"),),
                    )
                    for i in range(start, min(count, start + 50_000))
                )
            load_s, used = time.perf_counter() - started_s, _rss_bytes() - before_bytes
            entities.upsert(Entity(EntityUid("Document", f"doc{i}"), {"department": f"d{i % 20}"}) for i in range(100))
            engine = Engine(policies, entities)
            step = max(1, count // 1000)
            users = [EntityUid("User", f"user{i}") for i in range(0, count, step)][:1000]
            asks = [
                engine.prepare(user, view, EntityUid("Document", f"doc{index % 100}"))
                for index, user in enumerate(users)
            ]
            for user, ask, index in zip(users, asks, range(len(asks)), strict=True):
                known = entities.get(user)
                assert known is not None
                below = entities.store.is_in(user, EntityUid("Group", "group1"))
                wanted = (
                    below
                    and known.attributes["department"] == f"d{index % 100 % 20}"
                    and known.attributes["level"] >= 3
                )
                assert engine.decide(ask) == wanted
            contestant = Contestant(f"{count:,}", calling(cast(Any, engine.decide), asks), 10 * len(asks))
            race([contestant], self.effort.rounds)
            costs.append(contestant.median_us)
            rows.append([f"{count:,}", contestant.median_us, used / count, load_s])
            self.result.setdefault("entities", {})[count] = {
                "decide_ns": contestant.per_op_ns, "bytes_an_entity": used / count, "load_s": load_s,
            }  # fmt: skip
        self._entity_rows = rows
        self.bars["entities: most / fewest"] = costs[-1] / costs[0]
        if self.effort.entities[-1] == 1_000_000:
            self.bars["bytes an entity"] = used / count

    # -- a principal from claims ----------------------------------------------------------------------------------

    def claims(self) -> None:
        """A principal that only the request knows, defined by its claims, beside one in the store."""
        from gateway.policy import EntityUid

        self.progress.step("a principal from claims")
        workload = abac(self.effort.size, self.effort.asks)
        ours = OurDecider(workload)
        stored, claimed = [], []
        for ask in workload.asks:
            principal, action, resource, context = ours.arguments(ask)
            entity = ours.entities.get(principal)
            assert entity is not None
            guest = EntityUid("User", f"token-{principal.id}")
            overlay = {guest: (dict(entity.attributes), tuple(entity.parents))}
            stored.append(ours.engine.prepare(principal, action, resource, context))
            claimed.append(ours.engine.prepare(guest, action, resource, context, overlays=overlay))
        assert [ours.decide(each) for each in stored] == [ours.decide(each) for each in claimed]
        pair = [
            Contestant("in the store", calling(ours.decide, stored), 10 * len(stored)),
            Contestant("from claims", calling(ours.decide, claimed), 10 * len(claimed)),
        ]
        race(pair, self.effort.rounds)
        self._claim_rows: list[list[Cell]] = [[each.name, each.median_us] for each in pair]
        self.bars["a principal from claims costs µs more"] = pair[1].median_us - pair[0].median_us
        self.result["claims"] = {each.name: each.per_op_ns for each in pair}

    # -- report ---------------------------------------------------------------------------------------------------

    def report(self) -> dict[str, Any]:
        self.progress.end()
        described = machine.describe()
        print(machine.headline(described))
        print(", ".join(f"{name} {machine.package_version(name)}" for name in self.peers))
        print(f"CPU time of one thread, medians of {self.effort.rounds} rounds; questions are ready objects")
        columns = (
            "µs a decision",
            "allowed",
            "ours, prepared",
            "ours, four arguments",
            "ours, batch",
            *self.peers,
            CORE,
        )
        print_table("decisions", columns, self._rows)
        columns = ("policies", "µs a decision", "cold ms", "one changed ms", "warm ms")
        print_table("more policies", columns, self._policy_rows)
        print_table("more entities", ("entities", "µs a decision", "bytes each", "load s"), self._entity_rows)
        print_table("the principal", ("", "µs a decision"), self._claim_rows)
        verdicts = Verdicts(POLICY_BARS, self.bars)
        verdicts.print()
        return {
            "kind": "policy",
            "machine": described,
            "effort": asdict(self.effort),
            "measured": self.result,
            "bars": verdicts.as_json(),
        }


def _policy(number: int, change: str = "") -> str:
    return (
        f'permit (principal in Role::"role{number}{change}", action == Action::"view", resource is Document)\n'
        "when { principal.department == resource.department && !(context has blocked) };"
    )


def _same(policies: PolicySet) -> PolicySet:
    return policies


def run(effort: Effort) -> dict[str, Any]:
    """Measure and report."""
    bench = PolicyBench(effort)
    bench.decisions()
    bench.policies()
    bench.entities()
    bench.claims()
    return bench.report()
