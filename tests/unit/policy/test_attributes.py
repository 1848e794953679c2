"""Entities are fetched when a decision needs them, once for all who wait, and whatever goes wrong denies."""

from __future__ import annotations

import asyncio
import gc
import json
import logging
import random
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import pytest

from gateway._native.uid import EntityUid
from gateway.errors import BulkheadFullError, StoreUnavailable
from gateway.policy import Engine, Entities, PolicySet
from gateway.policy.attribute_reading import ABSENT_TTL_S
from gateway.policy.attributes import (
    ROUNDS_MAX,
    UNAVAILABLE,
    AttributePrefetcher,
    AttributeUnavailable,
    SourcedTypes,
)
from gateway.policy.plans import Question
from gateway.stores.attributes import READ_MAX, AttributeBatch
from tests.policy import differential, generate
from tests.unit.policy.attribute_world import VIEW, LoggedSource, PlainSource, body, engine_of
from tests.unit.policy.relation_world import ManualClock, uid

ALICE, BOB, CAROL, DOC = uid("User:alice"), uid("User:bob"), uid("User:carol"), uid("Doc:1")
STAFF, ALL = uid("Group:staff"), uid("Group:all")
LEVEL = "permit (principal, action, resource) when { principal.level > 1 };"
CHAIN = "permit (principal, action, resource) when { principal.manager.manager.level > 1 };"
MEMBER = 'permit (principal in Group::"all", action, resource);'


class World:
    """A prefetcher over a source without a log, for people and groups, and one with a log, for documents."""

    def __init__(self, **limits: Any) -> None:
        self.clock: ManualClock = ManualClock()
        self.people = PlainSource("people")
        self.docs = LoggedSource(self.clock, "docs")
        self.prefetcher = AttributePrefetcher(
            [
                SourcedTypes(self.people, frozenset(("User", "Group")), ttl_s=10.0),
                SourcedTypes(self.docs, frozenset(("Doc",))),
            ],
            clock=self.clock,
            uniform=lambda low, high: high,
            **limits,
        )

    async def allows(self, engine: Engine, principal: EntityUid = ALICE, context: dict[str, Any] | None = None) -> bool:
        answer = await self.prefetcher.authorize(engine, principal, VIEW, DOC, context)
        assert not answer.faults
        return answer.allowed

    async def refused(self, engine: Engine) -> AttributeUnavailable:
        """Ask, and give why it could not be had."""
        judged = await self.prefetcher.judge(engine, Question(ALICE, VIEW, DOC))
        assert judged.failure is not None
        assert (judged.answer.allowed, judged.answer.faults) == (False, (UNAVAILABLE,))
        assert not judged.answer.reasons
        return judged.failure


@pytest.fixture
async def world() -> World:
    world = World()
    await world.prefetcher.follow()
    return world


# --- fetching


async def test_what_a_decision_needs_is_fetched_and_then_here(world: World) -> None:
    engine = engine_of(LEVEL)
    world.people.keep(ALICE, {"level": 2})
    assert await world.allows(engine)
    assert await world.allows(engine)
    assert world.people.asked == [[ALICE]]
    stats = world.prefetcher.stats()
    assert (stats.with_io, stats.without_io, stats.rounds, stats.reads, stats.fetched) == (1, 1, 1, 1, 1)
    assert (stats.resident, stats.bytes) == (1, len(world.people.bodies[ALICE]))


async def test_each_level_is_a_round_and_each_source_is_read_once_in_it(world: World) -> None:
    engine = engine_of(CHAIN + 'permit (principal in Group::"all", action, resource) when { resource.open };')
    world.people.keep(ALICE, {"manager": BOB}, [STAFF])
    world.people.keep(BOB, {"manager": CAROL})
    world.people.keep(CAROL, {"level": 2})
    world.people.keep(STAFF, {}, [ALL])
    await world.docs.keep(DOC, {"open": False})
    assert await world.allows(engine)
    assert [set(each) for each in world.people.asked] == [{ALICE}, {BOB, STAFF}, {CAROL, ALL}]
    assert world.docs.asked == [[DOC]]
    assert world.prefetcher.stats().rounds == 3


async def test_sources_are_read_side_by_side(world: World) -> None:
    engine = engine_of("permit (principal, action, resource) when { principal.level > resource.level };")
    world.people.keep(ALICE, {"level": 2})
    await world.docs.keep(DOC, {"level": 1})
    for source in (world.people, world.docs):
        source.gate.clear()
    asked = asyncio.create_task(world.allows(engine))
    await world.people.waiting.wait()
    await world.docs.waiting.wait()  # while the other one has not answered
    for source in (world.people, world.docs):
        source.gate.set()
    assert await asked


async def test_what_is_found_only_while_deciding_is_fetched_by_what_the_machine_says(world: World) -> None:
    text = "permit (principal, action, resource) when { (if context.a then principal else resource.owner).level > 1 };"
    engine = engine_of(text)
    world.people.keep(ALICE, {"level": 0})
    world.people.keep(BOB, {"level": 2})
    await world.docs.keep(DOC, {"owner": BOB})
    assert not await world.allows(engine, context={"a": True})
    assert await world.allows(engine, context={"a": False})


async def test_many_who_need_one_entity_wait_for_one_read(world: World) -> None:
    engine = engine_of(LEVEL)
    world.people.keep(ALICE, {"level": 2})
    world.people.gate.clear()
    many = [asyncio.create_task(world.allows(engine)) for _ in range(50)]
    await world.people.waiting.wait()
    world.people.gate.set()
    assert await asyncio.gather(*many) == [True] * 50
    assert world.people.asked == [[ALICE]]


async def test_one_who_gives_up_leaves_the_others_waiting(world: World) -> None:
    engine = engine_of(LEVEL)
    world.people.keep(ALICE, {"level": 2})
    world.people.gate.clear()
    first, second = (asyncio.create_task(world.allows(engine)) for _ in range(2))
    await world.people.waiting.wait()
    first.cancel()
    with pytest.raises(asyncio.CancelledError):
        await first
    world.people.gate.set()
    assert await second
    assert len(world.people.asked) == 1


async def test_an_entity_unknown_to_its_source_is_here_and_undefined(world: World) -> None:
    engine = engine_of("permit (principal, action, resource) unless { principal has level };")
    assert await world.allows(engine)
    assert await world.allows(engine)
    assert world.people.asked == [[ALICE]]
    assert world.prefetcher.stats().absent == 1


async def test_more_entities_than_one_read_may_ask_for_are_read_in_several(world: World) -> None:
    groups = [EntityUid("Group", str(number)) for number in range(READ_MAX + 5)]
    engine = engine_of(MEMBER)
    world.people.keep(ALICE, {}, groups)
    assert not await world.allows(engine)
    assert sorted(map(len, world.people.asked)) == [1, 5, READ_MAX]


async def test_what_a_request_defines_itself_is_seen(world: World) -> None:
    engine = engine_of(MEMBER + LEVEL)
    world.people.keep(STAFF, {}, [ALL])
    answer = await world.prefetcher.authorize(engine, ALICE, VIEW, DOC, overlays={ALICE: ({"level": 0}, (STAFF,))})
    assert answer.allowed
    assert answer.reasons == {"policy0"}


async def test_prefetching_makes_resident_without_deciding(world: World) -> None:
    engine = engine_of(CHAIN)
    world.people.keep(ALICE, {"manager": BOB})
    world.people.keep(BOB, {"manager": CAROL})
    world.people.keep(CAROL, {"level": 2})
    await world.prefetcher.prefetch(engine, [Question(ALICE, VIEW, DOC)])
    assert engine.allows(ALICE, VIEW, DOC)
    await world.prefetcher.prefetch(engine, [Question(ALICE, VIEW, DOC, {"no value": 1.5})])
    world.people.failure = StoreUnavailable("away")
    with pytest.raises(AttributeUnavailable):
        await world.prefetcher.prefetch(engine, [Question(EntityUid("User", "x"), VIEW, DOC)])


async def test_many_questions_are_one_read_a_source_and_round(world: World) -> None:
    engine = engine_of("permit (principal, action, resource) when { principal.manager.level > resource.level };")
    people = [EntityUid("User", str(number)) for number in range(20)]
    for number, one in enumerate(people):
        world.people.keep(one, {"manager": BOB if number % 2 else CAROL})
    world.people.keep(BOB, {"level": 1})
    world.people.keep(CAROL, {"level": 5})
    await world.docs.keep(DOC, {"level": 3})
    await world.prefetcher.prefetch(engine, [Question(one, VIEW, DOC) for one in people])
    assert [set(each) for each in world.people.asked] == [set(people), {BOB, CAROL}]
    assert world.docs.asked == [[DOC]]
    assert [engine.allows(one, VIEW, DOC) for one in people[:2]] == [True, False]
    await world.prefetcher.prefetch(engine, [])
    assert world.prefetcher.stats().rounds == 2


@pytest.mark.parametrize("seed", range(40))
async def test_decides_as_if_everything_were_here(seed: int) -> None:
    case = generate.case(random.Random(f"prefetching {seed}"), policies_max=6, requests=10)
    types = frozenset(("User", "Shop::Buyer", "Group", "Doc", "Folder", "Ghost"))
    whole = Engine(differential.read_policies(case), Entities())
    rows = [(one, each.attributes, list(each.parents), each.tags or None) for one, each in case.entities.items()]
    whole.store.apply(rows)
    engine = Engine(whole.policies, Entities())
    engine.store.apply([row for row in rows if row[0].type not in types])
    source = PlainSource()
    for entity in (whole.entities.get(one) for one in whole.entities.store):
        assert entity is not None
        made = entity.to_json()
        del made["uid"]
        source.bodies[entity.uid] = json.dumps(made).encode()
    prefetcher = AttributePrefetcher([SourcedTypes(source, types)], clock=ManualClock(), budget_s=10.0)
    for each in case.requests:
        asked = (each.principal, each.action, each.resource, dict(each.context))
        judged = await prefetcher.judge(engine, Question(*asked))
        if judged.failure is None:
            assert judged.answer == whole.authorize(*asked)
        else:
            assert judged.failure.reason == "too_deep"


async def test_as_long_as_there_is_no_plan_the_machine_says_what_to_fetch(world: World) -> None:
    others = "".join(f"permit (principal is Robot, action, resource) when {{ context.n{n} > 1 }};" for n in range(1000))
    engine = engine_of(CHAIN + others)
    world.people.keep(ALICE, {"manager": BOB})
    world.people.keep(BOB, {"manager": CAROL})
    world.people.keep(CAROL, {"level": 2})
    assert await world.allows(engine)
    assert world.people.asked == [[ALICE], [BOB], [CAROL]]


# --- what goes wrong


@pytest.mark.parametrize(
    ("failure", "reason"),
    [
        (StoreUnavailable("away"), "unavailable"),
        (BulkheadFullError("busy"), "unavailable"),
        (RuntimeError("a slip"), "internal"),
    ],
)
async def test_a_source_that_fails_denies_and_is_asked_again_by_the_next(
    world: World, failure: Exception, reason: str
) -> None:
    engine = engine_of(LEVEL)
    world.people.keep(ALICE, {"level": 2})
    world.people.failure = failure
    refused = await world.refused(engine)
    assert (refused.source, refused.reason) == ("people", reason)
    assert world.prefetcher.stats().failures == {("people", reason): 1}
    world.people.failure = None
    assert await world.allows(engine)


async def test_a_source_that_is_away_denies_nothing_that_does_not_rest_on_it(world: World) -> None:
    engine = engine_of("permit (principal, action, resource) when { principal.level > 1 || resource.open };")
    world.people.keep(ALICE, {"level": 2})
    world.people.keep(BOB, {"level": 1})
    world.docs.failure = StoreUnavailable("away")
    assert await world.allows(engine)
    answer = await world.prefetcher.authorize(engine, BOB, VIEW, DOC)
    assert (answer.allowed, answer.faults) == (False, (UNAVAILABLE,))
    assert world.prefetcher.stats().failures == {("docs", "unavailable"): 1}
    await world.prefetcher.fetch(engine, [])


async def test_a_source_that_is_too_slow_denies_and_what_comes_late_serves_the_next() -> None:
    world = World(budget_s=0.02)
    engine = engine_of(LEVEL)
    world.people.keep(ALICE, {"level": 2})
    world.people.gate.clear()
    refused = await world.refused(engine)
    assert (refused.source, refused.reason) == ("people", "too_slow")
    world.people.gate.set()
    assert await world.allows(engine)


async def test_the_budget_is_one_for_all_rounds(world: World) -> None:
    engine = engine_of(CHAIN)
    world.people.keep(ALICE, {"manager": BOB})

    class Slow(PlainSource):
        async def read(self, uids: Sequence[EntityUid]) -> AttributeBatch:
            world.clock.move(0.3)
            return await super().read(uids)

    slow = Slow("slow")
    slow.bodies = world.people.bodies
    prefetcher = AttributePrefetcher([SourcedTypes(slow, frozenset(("User",)))], clock=world.clock)
    judged = await prefetcher.judge(engine, Question(ALICE, VIEW, DOC))
    assert judged.failure is not None
    assert judged.failure.reason == "too_slow"
    assert slow.asked == [[ALICE]]


async def test_a_forbid_that_cannot_be_evaluated_for_want_of_attributes_denies(world: World) -> None:
    text = "permit (principal, action, resource); forbid (principal, action, resource) when { principal.bad };"
    engine = engine_of(text)
    world.people.failure = StoreUnavailable("away")
    await world.refused(engine)


async def test_a_way_that_is_too_long_denies(world: World) -> None:
    path = ".".join(["manager"] * (ROUNDS_MAX + 1))
    engine = engine_of(f"permit (principal, action, resource) when {{ principal.{path}.level > 1 }};")
    people = [EntityUid("User", str(number)) for number in range(ROUNDS_MAX + 2)]
    world.people.keep(ALICE, {"manager": people[0]})
    for one, other in pairwise(people):
        world.people.keep(one, {"manager": other})
    refused = await world.refused(engine)
    assert (refused.source, refused.reason) == ("", "too_deep")
    assert len(world.people.asked) == ROUNDS_MAX


async def test_entities_without_end_are_not_fetched(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gateway.policy.attributes.WANTED_MAX", 10)
    engine = engine_of(MEMBER)
    world.people.keep(ALICE, {}, [EntityUid("Group", str(number)) for number in range(11)])
    assert (await world.refused(engine)).reason == "too_many"


async def test_a_type_that_no_source_of_ours_has_denies(world: World) -> None:
    engine = engine_of("permit (principal, action, resource) when { context.team.open };")
    engine.store.source_type("Team")
    judged = await world.prefetcher.judge(engine, Question(ALICE, VIEW, DOC, {"team": EntityUid("Team", "a")}))
    assert judged.failure is not None
    assert (judged.answer.allowed, judged.failure.reason) == (False, "no_source")


async def test_stopping_ends_those_who_wait(world: World) -> None:
    engine = engine_of(LEVEL)
    world.people.gate.clear()
    asked = asyncio.create_task(world.refused(engine))
    await world.people.waiting.wait()
    await world.prefetcher.stop()
    assert (await asked).reason == "unavailable"


SCHEMA = """
entity User in [Group] { level: Long, since?: __cedar::datetime };
entity Group in [Group];
entity Doc;
action view appliesTo { principal: User, resource: Doc };
"""
MISFITS = {
    "no JSON": b"{",
    "no object": b"[]",
    "a member of its own": b'{"attrs": {"level": 2}, "uid": {"type": "User", "id": "alice"}}',
    "a missing attribute": body({}),
    "another type": body({"level": "2"}),
    "an undeclared attribute": body({"level": 2, "x": 1}),
    "a wrong parent": body({"level": 2}, [DOC]),
    "itself as a parent": b'{"attrs": {"level": 2}, "parents": [{"type": "User", "id": "alice"}]}',
    "a name twice": b'{"attrs": {"level": 2, "level": 3}}',
}


@pytest.mark.parametrize("name", MISFITS)
async def test_an_entity_that_does_not_fit_denies_and_is_told_once(
    world: World, caplog: pytest.LogCaptureFixture, name: str
) -> None:
    engine = engine_of(LEVEL, SCHEMA)
    world.people.bodies[ALICE] = MISFITS[name]
    with caplog.at_level(logging.ERROR):
        for _ in range(3):
            refused = await world.refused(engine)
            assert (refused.source, refused.reason) == ("people", "invalid")
    assert len(caplog.records) == 1
    assert "alice" in caplog.text
    assert world.prefetcher.stats().invalid == 3
    world.people.keep(ALICE, {"level": 2})
    assert await world.allows(engine)


async def test_an_entity_that_does_not_fit_harms_no_other(world: World) -> None:
    engine = engine_of(
        "permit (principal, action, resource) when { context.who.level > 1 || principal.level > 1 };", SCHEMA
    )
    world.people.bodies[BOB] = b"{"
    world.people.keep(ALICE, {"level": 2})
    judged = await world.prefetcher.judge(engine, Question(ALICE, VIEW, DOC, {"who": BOB}))
    assert judged.failure is not None
    assert engine.store.resident(ALICE)
    assert not engine.store.resident(BOB)


async def test_values_are_read_as_the_schema_says(world: World) -> None:
    text = 'permit (principal, action, resource) when { principal.since < datetime("2025-01-01") };'
    engine = engine_of(text, SCHEMA)
    world.people.bodies[ALICE] = b'{"attrs": {"level": 1, "since": "2024-01-01"}}'
    assert await world.allows(engine)


async def test_circles_among_entities_of_a_source_deny(world: World) -> None:
    engine = engine_of(MEMBER)
    world.people.keep(ALICE, {}, [STAFF])
    world.people.keep(STAFF, {}, [EntityUid("Group", "x")])
    world.people.keep(EntityUid("Group", "x"), {}, [STAFF])
    assert (await world.refused(engine)).reason == "invalid"


# --- time: a source without a log


async def test_what_a_source_without_a_log_said_is_believed_for_its_time(world: World) -> None:
    engine = engine_of(LEVEL)
    world.people.keep(ALICE, {"level": 2})
    assert await world.allows(engine)
    world.people.keep(ALICE, {"level": 0})
    world.clock.move(7.9)
    assert await world.allows(engine)
    world.clock.move(2.1)
    assert not await world.allows(engine)
    assert world.prefetcher.stats().expired == 1


async def test_not_found_is_believed_for_a_few_seconds_only(world: World) -> None:
    engine = engine_of(LEVEL)
    judged = await world.prefetcher.judge(engine, Question(ALICE, VIEW, DOC))
    assert judged.answer.errors == {"policy0"}
    world.people.keep(ALICE, {"level": 2})
    world.clock.move(ABSENT_TTL_S)
    assert await world.allows(engine)


async def test_what_is_in_use_is_read_again_before_its_time_is_over(world: World) -> None:
    engine = engine_of(LEVEL)
    world.people.keep(ALICE, {"level": 2})
    assert await world.allows(engine)
    world.people.keep(ALICE, {"level": 0})
    world.clock.move(8.0)
    assert await world.allows(engine)  # nobody waits
    await settled(world)
    assert not await world.allows(engine)
    assert len(world.people.asked) == 2
    stats = world.prefetcher.stats()
    assert (stats.with_io, stats.refreshed) == (1, 1)


async def test_what_is_read_again_and_the_same_keeps_its_version(world: World) -> None:
    engine = engine_of(LEVEL)
    world.people.keep(ALICE, {"level": 2, "names": {"b": 1, "a": [2, 1]}})
    assert await world.allows(engine)
    version = engine.store.version(ALICE)
    world.clock.move(8.0)
    world.prefetcher.sweep()
    await settled(world)
    assert len(world.people.asked) == 2
    assert engine.store.version(ALICE) == version
    world.clock.move(7.0)
    assert await world.allows(engine)
    assert world.prefetcher.stats().with_io == 1


async def test_a_refresh_that_fails_leaves_what_is_there_until_its_time_is_over(world: World) -> None:
    engine = engine_of(LEVEL)
    world.people.keep(ALICE, {"level": 2})
    assert await world.allows(engine)
    world.people.failure = StoreUnavailable("away")
    world.clock.move(8.0)
    world.prefetcher.sweep()
    await settled(world)
    assert await world.allows(engine)
    world.clock.move(2.0)
    await world.refused(engine)


async def test_what_does_not_fit_any_more_when_it_is_read_again_goes(world: World) -> None:
    engine = engine_of(LEVEL, SCHEMA)
    world.people.keep(ALICE, {"level": 2})
    assert await world.allows(engine)
    world.people.bodies[ALICE] = b"{"
    world.clock.move(8.0)
    world.prefetcher.sweep()
    await settled(world)
    assert not engine.store.resident(ALICE)


async def settled(world: World) -> None:
    """Let reads in the background end."""
    while tasks := [task for task in world.prefetcher._reading._tasks if not task.done()]:
        await asyncio.wait(tasks)
        await asyncio.sleep(0)


# --- changes: a source with a log

OPEN = "permit (principal, action, resource) when { resource.open };"


async def test_a_change_counts_as_soon_as_it_is_told_and_is_read_ahead(world: World) -> None:
    engine = engine_of(OPEN)
    await world.docs.keep(DOC, {"open": True})
    await world.prefetcher.follow()
    assert await world.allows(engine)
    await world.docs.keep(DOC, {"open": False})
    await world.prefetcher.follow()
    assert not engine.allows(ALICE, VIEW, DOC)  # also for whoever decides without asking here
    await settled(world)
    assert not await world.allows(engine)
    stats = world.prefetcher.stats()
    assert (stats.with_io, stats.changed, len(world.docs.asked)) == (1, 1, 2)


async def test_what_its_source_did_not_know_is_seen_when_it_comes_into_being(world: World) -> None:
    engine = engine_of(OPEN)
    answer = await world.prefetcher.authorize(engine, ALICE, VIEW, DOC)
    assert answer.errors == {"policy0"}
    world.clock.move(3600)
    await world.prefetcher.follow()
    await world.docs.keep(DOC, {"open": True})
    await world.prefetcher.follow()
    assert await world.allows(engine)


async def test_a_change_between_the_read_and_the_store_is_not_lost(world: World) -> None:
    engine = engine_of(OPEN)
    await world.docs.keep(DOC, {"open": True})
    await world.prefetcher.follow()
    world.docs.late = True
    world.docs.gate.clear()
    asked = asyncio.create_task(world.allows(engine))
    await world.docs.waiting.wait()
    await world.docs.keep(DOC, {"open": False})  # after the old state was read, before it arrives
    await world.prefetcher.follow()
    world.docs.gate.set()
    assert not await asked
    assert len(world.docs.asked) == 2


async def test_without_its_log_nothing_of_a_source_counts(world: World) -> None:
    engine = engine_of(OPEN)
    await world.docs.keep(DOC, {"open": True})
    assert await world.allows(engine)
    world.docs.log_is_away = True
    world.clock.move(1.1)
    assert (await world.refused(engine)).reason == "untrusted"
    assert not engine.store.resident(DOC)
    world.docs.log_is_away = False
    await world.prefetcher.follow()
    assert await world.allows(engine)


async def test_a_source_whose_log_was_never_read_denies() -> None:
    world = World()
    engine = engine_of(OPEN)
    await world.docs.keep(DOC, {"open": True})
    assert (await world.refused(engine)).reason == "untrusted"


async def test_a_lost_log_makes_everything_go(world: World) -> None:
    engine = engine_of(OPEN)
    await world.docs.keep(DOC, {"open": True})
    assert await world.allows(engine)
    world.docs._rows._log = "f00d"  # type: ignore[attr-defined]
    await world.prefetcher.follow()
    assert not engine.store.resident(DOC)
    assert await world.allows(engine)


async def test_a_source_without_a_log_is_opened_at_the_start_also_where_it_is_away() -> None:
    world = World()
    world.people.failure = StoreUnavailable("away")
    await world.prefetcher.start()
    assert world.people.asked == [[]]
    await world.prefetcher.stop()


async def test_the_loops_follow_and_sweep_until_they_are_stopped(world: World) -> None:
    engine = engine_of(OPEN)
    await world.docs.keep(DOC, {"open": True})
    await world.prefetcher.start()
    assert await world.allows(engine)
    await world.docs.keep(DOC, {"open": False})
    async with asyncio.timeout(5):
        while await world.allows(engine):
            await asyncio.sleep(0)
    assert [state.status for state in world.prefetcher.states()] == ["ok"]
    assert world.prefetcher.revisions().keys() == {"docs"}
    await world.prefetcher.stop()
    assert not world.prefetcher._reading._tasks


# --- bounds and engines


async def test_the_coldest_go_when_there_are_too_many() -> None:
    world = World(capacity=READ_MAX)
    engine = engine_of(LEVEL)
    world.people.keep(ALICE, {"level": 2})
    assert await world.allows(engine)
    for number in range(READ_MAX):
        await world.prefetcher.authorize(engine, EntityUid("User", str(number)), VIEW, DOC)
        if number % 100 == 0:
            assert await world.allows(engine)  # stays warm
    stats = world.prefetcher.stats()
    assert stats.resident <= READ_MAX
    assert stats.evicted > 0
    assert engine.store.resident(ALICE)
    assert not engine.store.resident(EntityUid("User", "0"))


async def test_another_engine_over_the_same_entities_finds_them_there(world: World) -> None:
    engine = engine_of(LEVEL)
    world.people.keep(ALICE, {"level": 2})
    assert await world.allows(engine)
    other = engine.with_policies(PolicySet.parse(LEVEL.replace("> 1", "> 5")))
    assert not await world.allows(other)
    assert len(world.people.asked) == 1


async def test_engines_over_other_entities_are_kept_apart_and_both_hear_of_changes(world: World) -> None:
    first, second = engine_of(OPEN), engine_of(OPEN)
    await world.docs.keep(DOC, {"open": True})
    await world.prefetcher.follow()
    assert await world.allows(first)
    assert await world.allows(second)
    await world.docs.keep(DOC, {"open": False})
    await world.prefetcher.follow()
    assert not await world.allows(first)
    assert not await world.allows(second)


async def test_what_an_engine_needed_goes_with_it(world: World) -> None:
    await world.prefetcher.start()
    engine = engine_of(OPEN)
    world.prefetcher.adopt(engine)
    assert len(world.prefetcher._residencies) == 1
    del engine
    gc.collect()
    async with asyncio.timeout(5):
        while world.prefetcher._residencies:
            await asyncio.sleep(0.01)
    await world.prefetcher.stop()


def test_sources_are_told_apart() -> None:
    clock = ManualClock()
    one, other = PlainSource("a"), PlainSource("b")
    with pytest.raises(ValueError, match="`User` is kept in two sources"):
        AttributePrefetcher(
            [SourcedTypes(one, frozenset(("User",))), SourcedTypes(other, frozenset(("User",)))], clock=clock
        )
    with pytest.raises(ValueError, match="one name"):
        AttributePrefetcher(
            [SourcedTypes(one, frozenset(("User",))), SourcedTypes(PlainSource("a"), frozenset(("Doc",)))], clock=clock
        )
    with pytest.raises(ValueError, match="capacity"):
        AttributePrefetcher([], clock=clock, capacity=1)
    with pytest.raises(ValueError, match="above 0"):
        AttributePrefetcher([SourcedTypes(one, frozenset(("User",)), ttl_s=0)], clock=clock)
