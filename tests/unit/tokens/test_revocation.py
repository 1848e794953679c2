"""Following the log of revocations: what is in force, when it can be trusted, and how a gap closes."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Callable, Iterable, Sequence

import pytest

from gateway.errors import StoreUnavailable
from gateway.stores.base import ORIGIN, PURGE_SLACK_S, Revision, RevocationBatch, RevocationRow
from gateway.stores.memory import MemoryRevocationStore
from gateway.tokens import revocation
from gateway.tokens.revocation import RevocationList
from tests.unit.tokens.fakes import MovedClock, middle

ISSUER = "https://idp.example.com"


class Sink:
    """A validator's table of revocations, with room for `room` rows."""

    def __init__(self, room: int = 1_000_000) -> None:
        self.rows: set[tuple[str, bytes, bytes, int, int]] = set()
        self.room = room
        self.calls = 0

    def revoke_many(self, rows: Iterable[tuple[str, bytes, bytes, int, int]]) -> None:
        self.calls += 1
        for row in rows:
            if row not in self.rows and len(self.rows) >= self.room:
                raise OverflowError("full")
            self.rows.add(row)

    @property
    def values(self) -> set[bytes]:
        return {row[2] for row in self.rows}


class FragileStore(MemoryRevocationStore):
    """A memory store that can be unreachable."""

    def __init__(self) -> None:
        super().__init__()
        self.down = False
        self.error: Callable[[], Exception] = lambda: StoreUnavailable("down")

    async def append(self, rows: Sequence[RevocationRow]) -> Revision:
        self._check()
        return await super().append(rows)

    async def read_after(self, revision: Revision, limit: int) -> RevocationBatch:
        self._check()
        return await super().read_after(revision, limit)

    async def wait(self, revision: Revision, timeout_s: float) -> None:
        self._check()
        await super().wait(revision, timeout_s)

    async def purge(self, now_s: float) -> int:
        self._check()
        return await super().purge(now_s)

    def _check(self) -> None:
        if self.down:
            raise self.error()


class World:
    def __init__(self) -> None:
        self.clock = MovedClock()
        self.store = FragileStore()
        self.sink, self.second_sink = Sink(), Sink()
        self.trust: list[bool] = []
        self.list = self.make()

    def make(self, behind_s_max: float = float("inf")) -> RevocationList:
        self.list = RevocationList(
            self.store,
            (self.sink, self.second_sink),
            clock=self.clock,
            on_trust=lambda: self.trust.append(self.list.trusted),
            behind_s_max=behind_s_max,
            uniform=middle,
        )
        return self.list

    @property
    def status(self) -> str:
        return self.list.state().status

    def row(self, value: str, after_s: float = 1000) -> RevocationRow:
        return RevocationRow("jti", ISSUER.encode(), value.encode(), int(self.clock.wall_s() + after_s))

    async def until(self, condition: Callable[[], bool]) -> None:
        deadline = time.monotonic() + 5
        while not condition():
            assert time.monotonic() < deadline, self.list.state()
            await asyncio.sleep(0.005)


@pytest.fixture
async def world() -> AsyncIterator[World]:
    world = World()
    yield world
    await world.list.stop()
    await world.store.close()


async def test_nothing_is_trusted_before_the_log_was_read_whole(world: World) -> None:
    assert (world.status, world.list.trusted) == ("starting", False)
    world.store.down = True
    await world.list.start()
    assert (world.status, world.list.trusted, world.trust) == ("unavailable", False, [])
    world.store.down = False
    await world.until(lambda: world.list.trusted)
    assert (world.status, world.trust) == ("ok", [True])


async def test_what_was_revoked_before_the_start_is_in_force(world: World) -> None:
    await world.store.append([world.row("a"), world.row("b")])
    await world.list.start()
    assert world.sink.values == world.second_sink.values == {b"a", b"b"}
    assert world.list.state().learned == {"jti": 2, "sub": 0, "sid": 0}


async def test_a_log_of_many_pages_is_read_to_its_end_before_it_is_trusted(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(revocation, "PAGE_ROWS", 3)
    await world.store.append([world.row(str(number)) for number in range(10)])
    seen: list[int] = []
    world.list._following._on_trust = lambda: seen.append(len(world.sink.rows))
    await world.list.start()
    assert seen == [10]


async def test_rows_that_are_over_take_no_room(world: World) -> None:
    await world.store.append([world.row("over", -PURGE_SLACK_S - 1), world.row("barely", -PURGE_SLACK_S + 1)])
    await world.list.start()
    assert world.sink.values == {b"barely"}


async def test_news_arrives_within_a_moment(world: World) -> None:
    await world.list.start()
    started = time.monotonic()
    await world.store.append([world.row("a")])
    await world.until(lambda: bool(world.sink.rows))
    assert time.monotonic() - started < 0.5


async def test_revoking_takes_effect_here_before_the_others_are_told(world: World) -> None:
    await world.list.start()
    world.store.down = True
    with pytest.raises(StoreUnavailable):
        await world.list.revoke("sub", ISSUER, "alice", until_s=2_000_000_000, issued_before_s=1_700_000_000)
    assert world.sink.rows == {("sub", ISSUER.encode(), b"alice", 2_000_000_000, 1_700_000_000)}
    world.store.down = False
    await world.list.revoke("sub", ISSUER, "alice", until_s=2_000_000_000, issued_before_s=1_700_000_000)
    batch = await world.store.read_after(ORIGIN, 10)
    assert [row.value for row in batch.rows] == [b"alice"]


async def test_a_revocation_that_could_never_be_honoured_is_refused(world: World) -> None:
    await world.list.start()
    with pytest.raises(ValueError, match="value"):
        await world.list.revoke("jti", ISSUER, "", until_s=2_000_000_000)
    assert (await world.store.read_after(ORIGIN, 10)).rows == ()


async def test_an_outage_is_shown_and_leaves_the_known_in_force(world: World) -> None:
    await world.store.append([world.row("a")])
    await world.list.start()
    world.store.down = True
    world.clock.move(7)
    await world.until(lambda: world.status == "degraded")
    state = world.list.state()
    assert (state.trusted, state.error, state.behind_s) == (True, "down", 7)
    assert world.sink.values == {b"a"}
    assert world.trust == [True]


async def test_a_gap_closes_from_the_last_place_seen(world: World) -> None:
    await world.store.append([world.row("a")])
    await world.list.start()
    world.store.down = True
    await world.until(lambda: world.status == "degraded")
    await MemoryRevocationStore.append(world.store, [world.row("b")])  # another gateway still reaches the store
    calls = world.sink.calls
    world.store.down = False
    await world.until(lambda: world.status == "ok")
    assert world.sink.values == {b"a", b"b"}
    assert world.sink.calls == calls + 1


async def test_a_bound_on_being_behind_ends_trust_and_reading_again_restores_it(world: World) -> None:
    world.make(behind_s_max=5)
    await world.list.start()
    world.store.down = True
    await world.until(lambda: world.status == "degraded")
    world.clock.move(5)
    await world.list.follow()
    assert world.list.trusted
    world.clock.move(1)
    await world.list.follow()
    assert (world.status, world.list.trusted, world.trust) == ("unavailable", False, [True, False])
    world.store.down = False
    await world.until(lambda: world.list.trusted)
    assert world.trust == [True, False, True]


async def test_a_row_without_room_ends_trust_and_is_read_again(world: World) -> None:
    await world.list.start()
    world.sink.room = 2
    await world.store.append([world.row("a"), world.row("b"), world.row("c")])
    await world.until(lambda: not world.list.trusted)
    assert world.status == "unavailable"
    assert world.list.state().overflows >= 1
    world.sink.room = 3
    await world.until(lambda: world.list.trusted)
    assert world.sink.values == {b"a", b"b", b"c"}


async def test_revoking_without_room_here_still_tells_the_others(world: World) -> None:
    await world.list.start()
    world.sink.room = 0
    await world.list.revoke("jti", ISSUER, "a", until_s=2_000_000_000)
    assert not world.list.trusted
    assert [row.value for row in (await world.store.read_after(ORIGIN, 10)).rows] == [b"a"]


async def test_a_log_that_was_lost_is_noticed_and_the_known_stays_in_force(world: World) -> None:
    await world.store.append([world.row("a")])
    await world.list.start()
    other = MemoryRevocationStore()
    await other.append([world.row("b")])
    world.store._log, world.store._rows, world.store._last = other._log, other._rows, other._last
    await world.until(lambda: len(world.sink.rows) == 2)
    assert world.list.state().restarts == 1
    assert world.sink.values == {b"a", b"b"}


async def test_a_fault_of_our_own_does_not_end_the_following(world: World, caplog: pytest.LogCaptureFixture) -> None:
    await world.list.start()
    world.store.error = lambda: KeyError("a bug")
    world.store.down = True
    await world.list.follow()
    assert (world.status, world.list.state().error) == ("degraded", "internal fault")
    assert "could not be read" in caplog.text
    await asyncio.sleep(0.05)  # the follower itself meets the fault, in its wait or its reading
    world.store.down = False
    await world.list.follow()
    assert world.status == "ok"


async def test_an_outage_is_logged_once_and_not_at_each_attempt(world: World, caplog: pytest.LogCaptureFixture) -> None:
    await world.list.start()
    world.store.down = True
    with caplog.at_level(logging.INFO):
        for _ in range(10):
            await world.list.follow()
    assert len(caplog.records) == 1


async def test_purging_removes_what_is_over_and_survives_an_outage(world: World) -> None:
    await world.store.append([world.row("a", -PURGE_SLACK_S - 10), world.row("b")])
    await world.list.purge()
    assert [row.value for row in (await world.store.read_after(ORIGIN, 10)).rows] == [b"b"]
    world.store.down = True
    await world.list.purge()
