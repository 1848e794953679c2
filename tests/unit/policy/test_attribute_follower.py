"""Following a source of attributes: what is told of, until when it is trusted, and what a lost log means."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Sequence
from pathlib import Path

import pytest

from gateway._native.uid import EntityUid
from gateway.errors import StoreUnavailable
from gateway.policy import attribute_follower as module
from gateway.policy.attribute_follower import HEARTBEAT_S, AttributeFollower
from gateway.stores import Revision, open_attribute_source
from gateway.stores.attributes import AttributeBatch, AttributeChanges, FollowedSource
from gateway.stores.attributes_rows import LAYOUT, RowAttributeSource
from gateway.stores.rows_memory import MemoryRowStore
from gateway.types import Clock
from tests.unit.policy.relation_world import ManualClock


def user(name: str) -> EntityUid:
    return EntityUid("User", name)


class TroubledSource(RowAttributeSource):
    """A source that can be made to fail, and that can lose its log."""

    down = False
    damaged = 0

    def __init__(self, clock: Clock) -> None:
        self.rows = MemoryRowStore(LAYOUT, clock=clock)
        super().__init__(self.rows, "people")

    async def put(self, *names: str) -> Revision:
        return await self.write([(user(name), b"{}") for name in names])

    async def read(self, uids: Sequence[EntityUid]) -> AttributeBatch:
        self._check()
        return await super().read(uids)

    async def read_after(self, revision: Revision, limit: int) -> AttributeChanges:
        self._check()
        batch = await super().read_after(revision, limit)
        damaged, self.damaged = self.damaged, 0
        return AttributeChanges(batch.uids, batch.revision, batch.more, batch.lost, damaged)

    async def wait(self, revision: Revision, timeout_s: float) -> None:
        self._check()
        await super().wait(revision, timeout_s)

    def _check(self) -> None:
        if self.down:
            raise StoreUnavailable("away")


class Watched:
    """A follower, all around it, and what it told, in order."""

    def __init__(self, source: FollowedSource | None = None) -> None:
        self.clock = ManualClock()
        self.troubled = TroubledSource(self.clock)
        self.source: FollowedSource = source or self.troubled
        self.told: list[str] = []
        self.follower = AttributeFollower(
            self.source,
            clock=self.clock,
            on_change=lambda uids: self.told.extend(uid.id for uid in uids),
            on_lost=lambda: self.told.append("LOST"),
            on_trust=lambda: self.told.append("trusted" if self.follower.trusted else "not trusted"),
        )

    def heard(self) -> list[str]:
        told, self.told = self.told, []
        return told


@pytest.fixture
def watched() -> Watched:
    return Watched()


async def test_what_changes_after_the_beginning_is_told_once_and_nothing_before_it(watched: Watched) -> None:
    await watched.troubled.put("before")
    assert watched.follower.state().status == "starting"
    await watched.follower.follow()
    assert watched.heard() == ["LOST", "trusted"]
    await watched.troubled.put("a", "b", "a")
    revision = await watched.source.write([], [user("before")])
    await watched.follower.follow()
    await watched.follower.follow()
    assert watched.heard() == ["a", "b", "before"]
    state = watched.follower.state()
    assert (state.name, state.status, state.revision, state.changes) == ("people", "ok", revision, 4)
    assert (state.losses, state.error, state.shared, state.behind_s) == (0, "", "process", 0)


async def test_more_changes_than_a_page_are_all_told_in_order(watched: Watched) -> None:
    await watched.follower.follow()
    watched.heard()
    names = [str(number) for number in range(2 * module.PAGE + 7)]
    for first in range(0, len(names), 700):
        await watched.troubled.put(*names[first : first + 700])
    await watched.follower.follow()
    assert watched.heard() == names


async def test_a_source_whose_log_was_never_seen_is_not_trusted(watched: Watched) -> None:
    watched.troubled.down = True
    await watched.follower.follow()
    state = watched.follower.state()
    assert (state.status, state.trusted, state.behind_s, state.error) == ("unavailable", False, None, "away")
    assert watched.heard() == []


async def test_the_lease_is_lost_when_the_log_was_not_seen_for_a_second(watched: Watched) -> None:
    await watched.follower.follow()
    watched.troubled.down = True
    watched.clock.move(1.0)
    await watched.follower.follow()
    assert (watched.follower.state().status, watched.follower.trusted) == ("degraded", True)
    watched.clock.move(0.01)
    assert not watched.follower.trusted  # also before anybody noticed
    await watched.follower.follow()
    assert watched.follower.state().status == "unavailable"
    watched.troubled.down = False
    await watched.troubled.put("meanwhile")
    await watched.follower.follow()
    assert watched.heard() == ["LOST", "trusted", "not trusted", "meanwhile", "trusted"]


@pytest.mark.parametrize("lost", ["another log", "purged"])
async def test_a_lost_log_is_told_and_followed_from_its_end(watched: Watched, lost: str) -> None:
    await watched.follower.follow()
    await watched.troubled.put("unheard")
    if lost == "purged":
        watched.clock.move(0.5)
        await watched.source.purge(watched.clock.wall_s() + 10, log_kept_s=0)
    else:
        watched.troubled.rows._log = "f00d"
    await watched.follower.follow()
    assert watched.heard() == ["LOST", "trusted", "not trusted", "LOST", "trusted"]
    assert watched.follower.state().losses == 1
    await watched.troubled.put("heard")
    await watched.follower.follow()
    assert watched.heard() == ["heard"]


async def test_a_change_that_cannot_be_read_may_have_been_any(
    watched: Watched, caplog: pytest.LogCaptureFixture
) -> None:
    await watched.follower.follow()
    watched.heard()
    watched.troubled.damaged = 2
    await watched.troubled.put("a")
    await watched.follower.follow()
    assert watched.heard() == ["LOST"]
    assert (watched.follower.state().damaged, watched.follower.state().losses) == (2, 1)
    assert "2 changes of `people` cannot be read" in caplog.text


async def test_what_was_read_before_a_change_was_told_is_not_covered_and_what_was_read_after_it_is(
    watched: Watched,
) -> None:
    assert not watched.follower.covers((await watched.source.read([user("a")])).revision)  # nothing is heard of yet
    await watched.follower.follow()
    early = await watched.source.read([user("a")])
    assert watched.follower.covers(early.revision)
    await watched.troubled.put("a")
    assert watched.follower.covers(early.revision)  # the change will be told
    late = await watched.source.read([user("a")])
    assert watched.follower.covers(late.revision)
    await watched.follower.follow()
    assert not watched.follower.covers(early.revision)
    assert watched.follower.covers(late.revision)
    watched.troubled.rows._log = "f00d"
    assert not watched.follower.covers((await watched.source.read([])).revision)  # of a log that is not followed yet
    await watched.follower.follow()
    assert not watched.follower.covers(late.revision)
    assert watched.follower.covers((await watched.source.read([])).revision)


async def test_a_reader_of_changes_that_fails_is_told_again(watched: Watched, caplog: pytest.LogCaptureFixture) -> None:
    await watched.follower.follow()
    watched.heard()
    fails = [True]

    def hear(uids: Sequence[EntityUid]) -> None:
        if fails:
            fails.pop()
            raise KeyError("a bug")
        watched.told.extend(uid.id for uid in uids)

    watched.follower._on_change = hear
    await watched.troubled.put("a")
    await watched.follower.follow()
    assert watched.follower.state().error == "internal fault"
    assert "could not be read" in caplog.text
    await watched.follower.follow()
    assert watched.heard() == ["a"]
    assert watched.follower.state().error == ""


async def test_at_least_waits_for_what_it_is_asked_for(watched: Watched) -> None:
    await watched.follower.follow()
    watched.heard()
    revision = await watched.troubled.put("a")
    await watched.follower.at_least(revision)
    assert watched.heard() == ["a"]
    watched.troubled.down = True
    await watched.follower.at_least(revision)
    for asked in ("another:1", "nonsense"):
        with pytest.raises(StoreUnavailable):
            await watched.follower.at_least(asked)
    watched.troubled.down = False
    await watched.troubled.put("b")
    await watched.follower.at_least("another:1")
    assert watched.heard() == ["b"]


@pytest.fixture
async def running(tmp_path: Path) -> AsyncIterator[Watched]:
    source = open_attribute_source("", tmp_path / "run", name="people")
    assert isinstance(source, FollowedSource)
    watched = Watched(source)
    await watched.follower.start()
    yield watched
    await watched.follower.stop()
    await source.close()


async def test_a_change_by_another_process_is_told_within_a_quarter_of_a_second(
    running: Watched, tmp_path: Path
) -> None:
    other = open_attribute_source("", tmp_path / "run", name="people")
    assert isinstance(other, FollowedSource)
    await other.write([(user("warm"), b"{}")])
    for name in ("a", "b", "c"):
        await other.write([(user(name), b"{}")])
        started = time.monotonic()
        while name not in running.told and time.monotonic() - started < 5:
            await asyncio.sleep(0.005)
        assert time.monotonic() - started < HEARTBEAT_S
    await other.close()


async def test_a_lease_shorter_than_the_heartbeat_is_still_kept(watched: Watched) -> None:
    follower = AttributeFollower(
        watched.source, clock=watched.clock, on_change=lambda uids: None, on_lost=lambda: None, lease_s=0.2
    )
    assert follower._following._heartbeat_s == pytest.approx(0.05)
