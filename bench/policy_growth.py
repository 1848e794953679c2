"""What more policies, more entities and a principal from claims cost a decision; and what compiling takes."""

from __future__ import annotations

import random
import statistics
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, cast

from bench.measure import Contestant, calling, race
from bench.table import Cell, Part, Table
from gateway.policy import Engine, Entities, Entity, EntityUid, PolicySet
from gateway.policy.compiler.bundle import bundle_key

VIEW = EntityUid("Action", "view")
MOST_POLICIES, MOST_ENTITIES = 10_000, 1_000_000  # what the bars speak of
COMPILED = 3  # times, each way
RECURRING = 1_000  # questions that are asked again and again
ANY = 100_000  # questions about any entities: most of them in no cache of the processor


def asking(call: Callable[..., object], arguments: Sequence[tuple[Any, ...]]) -> Callable[[int], int]:
    """Make a `run` that calls with four arguments: the harness's own calls have one."""

    def run(count: int) -> int:
        plan = list(arguments) * (count // len(arguments))
        started_ns = time.thread_time_ns()
        for principal, action, resource, context in plan:
            call(principal, action, resource, context)
        return time.thread_time_ns() - started_ns

    return run


# -- more policies ----------------------------------------------------------------------------------------------------


def _policy(number: int, change: str = "") -> str:
    return (
        f'permit (principal in Role::"role{number}{change}", action == Action::"view", resource is Document)\n'
        "when { principal.department == resource.department && !(context has blocked) };"
    )


def _same(policies: PolicySet) -> PolicySet:
    return policies


def more_policies(counts: Sequence[int], rounds: int, step: Callable[[str], None]) -> Part:
    """Ask the same questions while policies about others become more; compile them in each way."""
    entities = Entities()
    roles = [EntityUid("Role", f"role{i}") for i in range(max(counts))]
    users = [Entity(EntityUid("User", f"user{i}"), {"department": "d1"}, (roles[i],)) for i in range(10)]
    documents = [Entity(EntityUid("Document", f"doc{i}"), {"department": f"d{i % 2}"}) for i in range(10)]
    entities.upsert([*users, *documents])
    rows: list[list[Cell]] = []
    measured: dict[int, Any] = {}
    costs: list[Contestant] = []
    for count in counts:
        step(f"{count:,} policies")
        spent: list[tuple[float, float, float]] = []
        for turn in reversed(range(COMPILED)):  # each with names of its own, so that nothing is known already
            text = "\n".join(_policy(number, "x" * turn) for number in range(count))
            key = bundle_key([text.encode()])
            begun_s = time.perf_counter()
            policies = PolicySet.parse(text)
            engine = Engine(policies, entities)
            cold_s = time.perf_counter()
            other = engine.with_policies(policies.with_policy("policy5", _policy(5, f"y{turn}")))
            one_s = time.perf_counter()
            image = engine.to_bytes(key)
            read_s = time.perf_counter()
            warm = Engine.from_bytes(image, key, partial(_same, policies), entities)
            spent.append((cold_s - begun_s, one_s - cold_s, time.perf_counter() - read_s))
            assert len(other.policies) == len(warm.policies.policies) == count
        cold_ms, one_ms, warm_ms = (statistics.median(each) * 1000 for each in zip(*spent, strict=True))
        asks = [engine.prepare(user.uid, VIEW, document.uid) for user in users for document in documents]
        answers = [engine.decide(each) for each in asks]
        assert sum(answers) == 50 and [warm.decide(each) for each in asks] == answers
        contestant = Contestant(f"{count:,}", calling(cast(Any, engine.decide), asks), 10_000)
        race([contestant], rounds)
        costs.append(contestant)
        rows.append([f"{count:,}", contestant.median_us, cold_ms, one_ms, warm_ms])
        measured[count] = {
            "decide_ns": contestant.per_op_ns, "cold_ms": cold_ms, "one_changed_ms": one_ms, "warm_ms": warm_ms,
        }  # fmt: skip
    bars: dict[str, float] = {}
    if counts[-1] == MOST_POLICIES:
        bars = {
            "policies: most / fewest": costs[-1].median_us / costs[0].median_us,
            "10,000 policies cold ms": cold_ms,
            "one of 10,000 changed ms": one_ms,
            "10,000 policies warm ms": warm_ms,
        }
    columns = ("policies", "µs a decision", "cold ms", "one changed ms", "warm ms")
    return Part([Table("more policies", columns, rows)], bars, {"policies": measured})


# -- more entities ----------------------------------------------------------------------------------------------------

_DEPARTMENT = (
    'permit (principal in Group::"group1", action == Action::"view", resource is Document)'
    " when { principal.department == resource.department && principal.level >= 3 };"
)


def _rss_bytes() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096


def _people(count: int) -> Entities:
    """Make `count` users with four attributes, in groups of which eight are in one above."""
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
    return entities


def _asks_of(engine: Engine, users: Sequence[int], documents: int) -> list[tuple[Any, ...]]:
    """Make four arguments for each user, and prove the answers against what the entities say."""
    store, asks = engine.entities.store, []
    group = EntityUid("Group", "group1")
    for index, user in enumerate(users):
        uid, number = EntityUid("User", f"user{user}"), index % documents
        asks.append((uid, VIEW, EntityUid("Document", f"doc{number}"), None))
        wanted = store.is_in(uid, group) and user % 20 == number % 20 and user % 9 >= 3
        assert engine.allows(*asks[-1]) == wanted
    return asks


def _claimed(engine: Engine, users: Sequence[int], asks: Sequence[tuple[Any, ...]]) -> list[Any]:
    """Prepare the same questions of principals that only the request knows, with the same attributes and groups."""
    made = []
    for user, (uid, action, resource, context) in zip(users, asks, strict=True):
        known = engine.entities.get(uid)
        assert known is not None
        guest = EntityUid("User", f"token{user}")
        overlay = {guest: (dict(known.attributes), tuple(known.parents))}
        made.append(engine.prepare(guest, action, resource, context, overlays=overlay))
        assert engine.decide(made[-1]) == engine.allows(uid, action, resource, context)
    return made


def more_entities(counts: Sequence[int], rounds: int, step: Callable[[str], None]) -> Part:
    """Ask among more and more entities: about 1,000 of them in turn, drawn from all; and about any.

    The first are the decisions whose cost is held to a bar: of those that recur. Of any among a million, each reads
    memory that was in no cache of the processor, which takes longer than all the rest. A principal from claims was
    made from them when its token was met first, as the doors do.
    """
    rows: list[list[Cell]] = []
    measured: dict[int, Any] = {}
    costs: list[list[float]] = []
    for count in counts:
        step(f"{count:,} entities")
        before_bytes, started_s = _rss_bytes(), time.perf_counter()
        entities = _people(count)
        load_s, used = time.perf_counter() - started_s, _rss_bytes() - before_bytes
        entities.upsert(Entity(EntityUid("Document", f"doc{i}"), {"department": f"d{i % 20}"}) for i in range(100))
        engine = Engine(PolicySet.parse(_DEPARTMENT), entities)
        chooser = random.Random(7)
        users = [chooser.randrange(count) for _ in range(RECURRING)]
        recurring = _asks_of(engine, users, 100)
        whatever = _asks_of(engine, [chooser.randrange(count) for _ in range(ANY)], 100)
        prepared, claimed = [engine.prepare(*each) for each in recurring], _claimed(engine, users, recurring)
        contestants = [
            Contestant("prepared", calling(cast(Any, engine.decide), prepared), 10_000),
            Contestant("from claims", calling(cast(Any, engine.decide), claimed), 10_000),
            Contestant("four arguments", asking(engine.allows, recurring), 10_000),
            Contestant("any of them", asking(engine.allows, whatever), ANY),
        ]
        race(contestants, rounds)
        costs.append([each.median_us for each in contestants])
        rows.append([f"{count:,}", *costs[-1], used / count, load_s])
        measured[count] = {
            **{each.name: each.per_op_ns for each in contestants}, "bytes_an_entity": used / count, "load_s": load_s,
        }  # fmt: skip
    bars = {"a principal from claims costs µs more": max(claimed - stored for stored, claimed, *_ in costs)}
    if counts[-1] == MOST_ENTITIES:
        bars |= {
            "entities: most / fewest": costs[-1][0] / costs[0][0],
            "entities: most / fewest, four arguments": costs[-1][2] / costs[0][2],
            "bytes an entity": used / count,
        }
    columns = ("entities", "prepared", "from claims", "four arguments", f"any, of {ANY:,}", "bytes each", "load s")
    title = f"more entities, µs a decision of {RECURRING:,} that recur"
    return Part([Table(title, columns, rows)], bars, {"entities": measured})
