"""Following a store's log: what is told when it is away, behind, lost or damaged, and that nothing is missed."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from gateway.errors import StoreUnavailable
from gateway.policy import relation_follower as module
from gateway.policy.relation_follower import HEARTBEAT_S, RelationFollower
from gateway.policy.relations import RelationGraph
from gateway.stores import Revision, following, open_relation_store
from gateway.stores.relations import Relation, RelationBatch, RelationPage, RelationStore
from gateway.stores.relations_rows import LAYOUT, RowRelationStore
from gateway.stores.rows_memory import MemoryRowStore
from gateway.types import Clock
from tests.unit.policy.relation_world import NOW_S, ManualClock, new_graph, relation, uid


class TroubledStore(RowRelationStore):
    """A store that can be made to fail, and that can lose its log."""

    down = False
    damaged = 0

    def __init__(self, clock: Clock) -> None:
        self.rows = MemoryRowStore(LAYOUT, clock=clock)
        super().__init__(self.rows)

    def lose(self) -> None:
        """Become another log, with the same relations."""
        self.rows._log = f"{random.getrandbits(32):x}"

    async def read_after(self, revision: Revision, limit: int) -> RelationBatch:
        if self.down:
            raise StoreUnavailable("away")
        batch = await super().read_after(revision, limit)
        damaged, self.damaged = self.damaged, 0
        return RelationBatch(batch.changes, batch.revision, batch.more, batch.lost, damaged)

    async def read_all(self, cursor: str, limit: int) -> RelationPage:
        if self.down:
            raise StoreUnavailable("away")
        return await super().read_all(cursor, limit)

    async def wait(self, revision: Revision, timeout_s: float) -> None:
        if self.down:
            raise StoreUnavailable("away")
        await super().wait(revision, timeout_s)


class Watched:
    """A follower, all around it, and what it told."""

    def __init__(self, store: RelationStore | None = None) -> None:
        self.clock = ManualClock()
        self.troubled = TroubledStore(clock=self.clock)
        self.store: RelationStore = store or self.troubled
        self.graph: RelationGraph = new_graph(self.clock)
        self.trust: list[bool] = []
        self.changes = 0
        self.follower = RelationFollower(
            self.store,
            self.graph,
            clock=self.clock,
            on_change=self._changed,
            on_trust=lambda: self.trust.append(self.follower.trusted),
        )

    def _changed(self) -> None:
        self.changes += 1

    def stands(self, who: str, target: str) -> bool:
        object, _, name = target.partition("#")
        return self.graph.store.is_in(uid(who), self.graph.node(uid(object), name))


@pytest.fixture
def watched() -> Watched:
    return Watched()


async def test_everything_is_read_and_then_what_changes(watched: Watched) -> None:
    await watched.store.write([relation("Doc:1#viewers@User:alice")])
    assert watched.follower.state().status == "starting"
    await watched.follower.follow()
    assert watched.follower.trusted
    assert watched.stands("User:alice", "Doc:1#viewers")
    revision = await watched.store.write([relation("Doc:1#viewers@User:bob")], [relation("Doc:1#viewers@User:alice")])
    await watched.follower.follow()
    assert watched.stands("User:bob", "Doc:1#viewers")
    assert not watched.stands("User:alice", "Doc:1#viewers")
    state = watched.follower.state()
    assert (state.status, state.revision, state.changes, state.resyncs, state.error) == ("ok", revision, 2, 1, "")
    assert watched.trust == [True]


async def test_a_store_that_was_never_read_is_not_trusted(watched: Watched) -> None:
    watched.troubled.down = True
    await watched.follower.follow()
    state = watched.follower.state()
    assert (state.status, state.trusted, state.behind_s, state.error) == ("unavailable", False, None, "away")


async def test_the_lease_is_lost_when_the_log_was_not_seen_for_too_long(watched: Watched) -> None:
    await watched.store.write([relation("Doc:1#viewers@User:alice")])
    await watched.follower.follow()
    watched.troubled.down = True
    await watched.follower.follow()
    assert (watched.follower.state().status, watched.follower.trusted) == ("degraded", True)
    watched.clock.move(1.01)
    await watched.follower.follow()
    assert (watched.follower.state().status, watched.follower.trusted) == ("unavailable", False)
    assert watched.stands("User:alice", "Doc:1#viewers")  # it is for whoever decides to heed `trusted`
    watched.troubled.down = False
    await watched.follower.follow()
    assert watched.follower.trusted
    assert watched.trust == [True, False, True]


async def test_a_reading_of_everything_may_take_longer_than_the_lease(watched: Watched) -> None:
    """The last look at the log counts: all that was read before is brought up to it."""
    await watched.store.write([relation(f"Doc:{number}#viewers@User:alice") for number in range(1000)])
    following = asyncio.create_task(watched.follower.follow())
    while not following.done():
        await asyncio.sleep(0)
        if watched.graph.revision == "":  # not read whole yet
            watched.clock.move(0.9)
    assert watched.clock.now_s > NOW_S + 1.5
    assert watched.follower.trusted


async def test_a_log_that_is_lost_is_read_whole_and_what_went_meanwhile_goes(watched: Watched) -> None:
    kept = [relation(f"Doc:{number}#viewers@User:alice") for number in range(700)]
    await watched.store.write(kept)
    await watched.store.write([relation("Doc:x#viewers@User:alice"), relation("Doc:x#viewers@Folder:a#viewers")])
    await watched.follower.follow()
    await watched.store.write([relation("Doc:new#viewers@User:bob")], [relation("Doc:x#viewers@User:alice"), *kept[:5]])
    await watched.store.write([], [relation("Doc:x#viewers@Folder:a#viewers")])
    watched.troubled.lose()
    await watched.follower.follow()
    assert set(watched.graph.relations()) == {*kept[5:], relation("Doc:new#viewers@User:bob")}
    state = watched.follower.state()
    assert (state.status, state.resyncs) == ("ok", 2)
    assert watched.trust == [True, False, True]


async def test_a_log_that_was_purged_is_read_whole(watched: Watched) -> None:
    await watched.follower.follow()
    await watched.store.write([relation("Doc:1#viewers@User:alice")])
    watched.clock.move(10)
    await watched.store.purge(watched.clock.now_s, log_kept_s=0)
    await watched.follower.follow()
    assert watched.stands("User:alice", "Doc:1#viewers")
    assert watched.follower.state().resyncs == 2


async def test_what_comes_while_all_is_read_is_not_missed(watched: Watched) -> None:
    await watched.store.write([relation(f"Doc:{number}#viewers@User:alice") for number in range(900)])
    await watched.store.write([relation(f"Doc:{number}#blocked@User:alice") for number in range(900)])
    following = asyncio.create_task(watched.follower.follow())
    expected = {relation(f"Doc:{number}#{name}@User:alice") for number in range(900) for name in ("viewers", "blocked")}
    number = 0
    while not following.done():
        gone, new = relation(f"Doc:{number}#viewers@User:alice"), relation(f"Doc:{number}#viewers@User:bob")
        await watched.store.write([new], [gone])
        expected = expected - {gone} | {new}
        number += 1
        await asyncio.sleep(0)
    assert number > 3
    await watched.follower.follow()
    assert set(watched.graph.relations()) == expected


async def test_at_least_waits_for_what_it_is_asked_for(watched: Watched) -> None:
    await watched.follower.follow()
    revision = await watched.store.write([relation("Doc:1#viewers@User:alice")])
    await watched.follower.at_least(revision)
    assert watched.stands("User:alice", "Doc:1#viewers")
    watched.troubled.down = True
    await watched.follower.at_least(revision)  # it is here already
    log, _, place = revision.partition(":")
    for token in (f"{log}:{int(place) + 1}", "another:1", "nonsense"):
        with pytest.raises(StoreUnavailable):
            await watched.follower.at_least(token)
    watched.troubled.down = False
    await watched.store.write([relation("Doc:2#viewers@User:alice")])
    await watched.follower.at_least("another:1")  # whoever has it got it before this look at the log's end
    assert watched.stands("User:alice", "Doc:2#viewers")


async def test_at_least_ends_in_time_where_a_look_takes_too_long(watched: Watched) -> None:
    await watched.follower.follow()
    async with watched.follower._following._reading:
        started = time.monotonic()
        with pytest.raises(StoreUnavailable, match="not as new"):
            await watched.follower.at_least("another:1")
        assert time.monotonic() - started < 0.5


async def test_a_write_counts_here_when_it_returns_and_is_held_to_the_schema(watched: Watched) -> None:
    await watched.follower.follow()
    await watched.follower.write([relation("Doc:1#viewers@User:alice")], [])
    assert watched.stands("User:alice", "Doc:1#viewers")
    await watched.follower.write([], [relation("Doc:1#viewers@User:alice"), relation("Doc:1#gone@User:alice")])
    assert not watched.stands("User:alice", "Doc:1#viewers")
    with pytest.raises(ValueError, match="no relation `editors`"):
        await watched.follower.write([relation("Doc:1#viewers@User:bob"), relation("Doc:1#editors@User:bob")], [])
    assert not watched.stands("User:bob", "Doc:1#viewers")


async def test_what_cannot_be_read_or_placed_is_counted(watched: Watched, caplog: pytest.LogCaptureFixture) -> None:
    await watched.follower.follow()
    watched.troubled.damaged = 2
    await watched.store.write([relation("Doc:1#editors@User:alice"), relation("Doc:1#viewers@User:alice")])
    await watched.follower.follow()
    state = watched.follower.state()
    assert (state.damaged, state.ignored, state.changes) == (2, 1, 2)
    assert "2 relations cannot be read" in caplog.text


async def test_nobody_is_to_decide_by_a_part_of_the_relations(
    watched: Watched, monkeypatch: pytest.MonkeyPatch
) -> None:
    await watched.follower.follow()
    monkeypatch.setattr("gateway.policy.relations.PARENTS_MAX", 1)
    await watched.store.write([relation("Doc:1#viewers@User:alice"), relation("Doc:2#viewers@User:alice")])
    await watched.follower.follow()
    assert not watched.follower.state().trusted
    assert "directly" in watched.follower.state().error
    monkeypatch.undo()
    await watched.follower.follow()
    assert watched.follower.state().trusted
    assert watched.stands("User:alice", "Doc:2#viewers")


async def test_what_expires_ends_without_the_store(watched: Watched) -> None:
    await watched.store.write([relation("Doc:1#viewers@User:alice", NOW_S + 5)])
    await watched.follower.follow()
    watched.troubled.down = True
    watched.clock.move(5)
    before = watched.changes
    watched.follower.expire()
    assert not watched.stands("User:alice", "Doc:1#viewers")
    assert (watched.changes, watched.follower.state().expired) == (before + 1, 1)


@pytest.fixture
async def running(tmp_path: Path) -> AsyncIterator[Watched]:
    watched = Watched(open_relation_store("", tmp_path / "run"))
    watched.clock = ManualClock()
    await watched.follower.start()
    yield watched
    await watched.follower.stop()
    await watched.store.close()


async def test_which_relations_count_is_told_by_revision_and_by_what_has_ended(watched: Watched) -> None:
    """Decisions are shared by that name: nothing made before a relation ended may be found after it."""
    soon = int(watched.clock.now_s) + 5
    revision = await watched.store.write([relation("Doc:1#viewers@User:alice", soon)])
    await watched.follower.follow()
    assert watched.follower.standing == f"{revision} 0"
    watched.clock.move(5.0)
    watched.follower.expire()
    assert watched.follower.standing == f"{revision} {soon}"
    late = Watched(watched.store)  # begins after the end: it read the same, and says the same
    late.clock.now_s = watched.clock.now_s
    await late.follower.follow()
    assert late.follower.standing == watched.follower.standing
    last = await watched.store.write([relation("Doc:2#viewers@User:alice")])
    await watched.follower.follow()
    assert watched.follower.standing == f"{last} {soon}"


async def test_a_change_by_another_process_counts_within_a_quarter_of_a_second(
    running: Watched, tmp_path: Path
) -> None:
    other = open_relation_store("", tmp_path / "run")
    one: list[Relation] = [relation("Doc:1#viewers@User:alice")]
    await other.write(one)
    for adds, removes in (([], one), (one, []), ([], one)):
        before = running.stands("User:alice", "Doc:1#viewers")
        await other.write(adds, removes)
        started = time.monotonic()
        while running.stands("User:alice", "Doc:1#viewers") is bool(removes) and time.monotonic() - started < 5:
            await asyncio.sleep(0.005)
        assert time.monotonic() - started < HEARTBEAT_S, before
    await other.close()


async def test_following_goes_on_after_faults_and_ends_when_told(
    watched: Watched, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(following, "BACKOFF_MIN_S", 0.001)
    monkeypatch.setattr(following, "BACKOFF_MAX_S", 0.001)
    monkeypatch.setattr(module, "HEARTBEAT_S", 0.01)
    watched.troubled.down = True
    await watched.follower.start()
    assert watched.follower.state().status == "unavailable"
    watched.troubled.down = False
    await watched.store.write([relation("Doc:1#viewers@User:alice", NOW_S + 1)])
    async with asyncio.timeout(5):
        while not watched.stands("User:alice", "Doc:1#viewers"):
            await asyncio.sleep(0.001)
        watched.clock.move(1)
        while watched.stands("User:alice", "Doc:1#viewers"):
            await asyncio.sleep(0.001)
    assert watched.follower.state().status == "ok"
    await watched.follower.stop()
    await watched.follower.stop()
