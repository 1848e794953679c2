"""The Zipf run in small, without its processes and its clock: what is decided, what is counted, and what is stale."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import cast

import pytest

from bench.bars import ZIPF_BARS, Verdicts
from bench.zipf import Revocation, Round, Staleness, fill, part, staleness
from bench.zipf_worker import Log, Phase, Task, Worker
from bench.zipf_world import READ, STAFF, TYPES, Right, World, engine
from gateway.policy.attributes import AttributePrefetcher, SourcedTypes
from gateway.policy.plans import Question
from gateway.policy.residency import Residency
from gateway.stores import open_attribute_source
from gateway.stores.attributes import FollowedSource
from tests.unit.policy.relation_world import ManualClock

SMALL = World(users=60, objects=150, groups=8, watched=10)
ASKS = 3_000


@pytest.fixture
async def source(tmp_path: Path) -> AsyncIterator[FollowedSource]:
    opened = cast(FollowedSource, open_attribute_source("memory:", tmp_path, name="directory"))
    await fill(opened, SMALL)
    yield opened
    await opened.close()


@pytest.fixture
async def prefetcher(source: FollowedSource) -> AsyncIterator[AttributePrefetcher]:
    made = AttributePrefetcher([SourcedTypes(source, TYPES)], clock=ManualClock())
    await made.start()
    yield made
    await made.stop()


async def test_decisions_are_those_of_all_entities_and_few_wait_for_them(prefetcher: AttributePrefetcher) -> None:
    whole = engine()
    reader = Residency(whole, TYPES, 1_000)
    whole.entities.upsert(reader.entity(uid, body) for uid, body in SMALL.entities())
    worker = Worker(SMALL, prefetcher)
    cold, steady = await worker.phase(ASKS, "cold"), await worker.phase(ASKS, "steady")
    expected = [
        whole.allows(SMALL.user(user), READ, SMALL.thing(thing))
        for seed in ("cold", "steady")
        for user, thing in SMALL.asks(ASKS, seed)
    ]
    assert cold.allowed + steady.allowed == sum(expected)
    assert 0 < sum(expected) < len(expected)
    assert (cold.requests, steady.requests, cold.unavailable + steady.unavailable) == (ASKS, ASKS, 0)
    assert cold.without_io < ASKS, "something was fetched"
    assert steady.percent_without_io > cold.percent_without_io
    # No entity is fetched twice.
    assert prefetcher.stats().fetched == prefetcher.stats().resident
    assert all(worker.log.allowed), "a watched user may read everything"
    assert len(worker.log.users) == sum(
        user < SMALL.watched for seed in ("cold", "steady") for user, _ in SMALL.asks(ASKS, seed)
    )


@pytest.mark.parametrize("way", ["inactive", "no member"])
async def test_a_right_that_was_taken_denies_once_the_log_was_read(
    source: FollowedSource, prefetcher: AttributePrefetcher, way: Right
) -> None:
    worker = Worker(SMALL, prefetcher)
    await worker.phase(ASKS, "before")
    asked = [Question(SMALL.user(3), READ, SMALL.thing(number)) for number in range(SMALL.objects)]
    assert all([(await prefetcher.judge(worker.engine, each)).answer.allowed for each in asked])
    await source.write([(SMALL.user(3), SMALL.user_body(3, way))])
    await prefetcher.follow()
    assert not any([(await prefetcher.judge(worker.engine, each)).answer.allowed for each in asked])
    assert worker.engine.store.is_in(SMALL.user(3), STAFF) == (way == "inactive")
    await source.write([(SMALL.user(3), SMALL.user_body(3))])
    await prefetcher.follow()
    assert all([(await prefetcher.judge(worker.engine, each)).answer.allowed for each in asked])


def test_an_allow_is_stale_later_than_250_ms_after_the_write_and_before_the_right_is_back() -> None:
    log = Log()
    for when_s, allowed in ((9.9, True), (10.1, True), (10.2, False), (10.3, True), (10.9, False), (11.1, True)):
        log.note(1, when_s, allowed=allowed)
    log.note(2, 10.5, allowed=True)  # nobody took this one's right
    log.note(1, 20.9, allowed=True)  # between the two revocations of the first
    log.note(1, 21.1, allowed=True)
    found = staleness(log, [Revocation(1, 21.0, 22.0), Revocation(1, 10.0, 11.0), Revocation(3, 1.0, 99.0)])
    assert (found.stale, found.denied, found.met) == (1, 1, 1)
    assert found.longest_s == pytest.approx(0.3)


def test_a_log_and_a_task_come_back_as_they_were(tmp_path: Path) -> None:
    log = Log()
    log.note(7, 1.5, allowed=True)
    log.note(8, 2.5, allowed=False)
    log.write(tmp_path / "log")
    assert Log.read(tmp_path / "log") == log
    text = '{"requests": 5, "seed": "a", "lease_s": 0.25, "world": {"users": 6}}'
    assert Task.from_json(text) == Task(5, "a", 0.25, World(users=6))


def test_few_users_ask_most_and_the_draw_is_the_same_each_time() -> None:
    asks = list(SMALL.asks(10_000, "x"))
    assert asks == list(SMALL.asks(10_000, "x"))
    assert asks != list(SMALL.asks(10_000, "y"))
    counts = [sum(user == number for user, _ in asks) for number in range(SMALL.users)]
    assert counts[0] > 5 * counts[20] > 0
    assert {thing for _, thing in asks} <= set(range(SMALL.objects))


def test_the_worst_worker_counts() -> None:
    def phase(without_io: int) -> Phase:
        return Phase(requests=1000, without_io=without_io)

    good = Round([phase(950)], [phase(999)], [Staleness(denied=5)], revocations=3)
    bad = Round([phase(940)], [phase(995)], [Staleness(denied=1, stale=2)], revocations=3)
    found = part({"SQLite": {0.25: good, 1.0: good}, "Redis": {0.25: good, 1.0: bad}}, whole=True)
    assert [row["measured"] for row in Verdicts(ZIPF_BARS, found.bars).as_json()] == [94.0, 99.5, 2, 1]
    assert len(found.tables[0].rows) == 4
    assert part({"SQLite": {1.0: good}}, whole=False).bars == {}
