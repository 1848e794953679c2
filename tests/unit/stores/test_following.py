"""Following a log: how it stands, what faults do to that, and when the owner is told."""

from __future__ import annotations

import asyncio
import logging
import time

import pytest

from gateway.errors import StoreUnavailable
from gateway.stores.following import Following, NoRoom


class MovedClock:
    def __init__(self) -> None:
        self.now_s = 1000.0

    def monotonic_s(self) -> float:
        return self.now_s

    def wall_s(self) -> float:
        return 1_700_000_000.0 + self.now_s


class Log:
    """A log that is read by command, and what its follower told."""

    def __init__(self, *, behind_s_max: float = 1.0) -> None:
        self.clock = MovedClock()
        self.fault: Exception | None = None
        self.gate: asyncio.Event | None = None
        self.reads = 0
        self.trust: list[bool] = []
        self.following = Following(
            "rows",
            read=self._read,
            wait=self._wait,
            purge=self._purge,
            clock=self.clock,
            on_trust=lambda: self.trust.append(self.following.trusted),
            heartbeat_s=0.01,
            behind_s_max=behind_s_max,
            uniform=lambda low, high: (low + high) / 2,
        )

    async def _read(self) -> float:
        self.reads += 1
        asked_at_s = self.clock.now_s
        if self.gate is not None:
            await self.gate.wait()
        if self.fault is not None:
            raise self.fault
        return asked_at_s

    async def _wait(self, timeout_s: float) -> None:
        await asyncio.sleep(timeout_s)

    async def _purge(self, now_s: float) -> int:
        if self.fault is not None:
            raise self.fault
        return int(now_s)

    def stands(self) -> tuple[str, bool, float | None, str]:
        return self.following.status, self.following.trusted, self.following.behind_s, self.following.error


async def test_it_goes_from_starting_by_ok_and_degraded_to_unavailable_and_back() -> None:
    log = Log()
    assert log.stands() == ("starting", False, None, "")
    await log.following.follow()
    assert log.stands() == ("ok", True, 0, "")
    log.fault = StoreUnavailable("away")
    log.clock.now_s += 1
    await log.following.follow()
    assert log.stands() == ("degraded", True, 1, "away")
    log.clock.now_s += 0.5
    await log.following.follow()
    assert log.stands() == ("unavailable", False, 1.5, "away")
    log.fault = None
    await log.following.follow()
    assert log.stands() == ("ok", True, 0, "")
    assert log.trust == [True, False, True]


async def test_the_age_counts_from_the_beginning_of_the_look_that_found_the_end() -> None:
    log = Log()
    log.gate = asyncio.Event()
    look = asyncio.create_task(log.following.follow())
    await asyncio.sleep(0)
    log.clock.now_s += 0.7
    log.gate.set()
    await look
    assert log.following.behind_s == pytest.approx(0.7)


async def test_what_finds_no_room_ends_trust_at_once_and_a_later_success_restores_it() -> None:
    log = Log()
    await log.following.follow()
    log.fault = NoRoom("full")
    await log.following.follow()
    assert log.stands() == ("unavailable", False, 0, "full")
    log.fault = None
    await log.following.follow()
    assert log.stands() == ("ok", True, 0, "")


async def test_a_fault_of_our_own_is_shown_and_logged(caplog: pytest.LogCaptureFixture) -> None:
    log = Log()
    log.fault = KeyError("a bug")
    await log.following.follow()
    assert log.stands() == ("unavailable", False, None, "internal fault")
    assert "the rows could not be read" in caplog.text


async def test_states_are_logged_when_they_change_and_not_at_each_attempt(caplog: pytest.LogCaptureFixture) -> None:
    log = Log()
    log.fault = StoreUnavailable("away")
    with caplog.at_level(logging.INFO):
        for _ in range(5):
            await log.following.follow()
        log.fault = None
        await log.following.follow()
    assert [record.getMessage() for record in caplog.records] == ["rows are unavailable (away)", "rows are ok"]


async def test_the_loss_of_the_lease_is_told_while_the_store_hangs() -> None:
    log = Log(behind_s_max=0.05)
    await log.following.start()
    assert log.trust == [True]
    log.gate = asyncio.Event()
    async with asyncio.timeout(5):
        reads = log.reads
        while log.reads == reads:
            await asyncio.sleep(0.001)
        log.clock.now_s += 1
        while log.trust != [True, False]:
            await asyncio.sleep(0.001)
    log.gate.set()
    async with asyncio.timeout(5):
        while log.trust != [True, False, True]:
            await asyncio.sleep(0.001)
    await log.following.stop()


async def test_faults_are_tried_again_ever_less_often_up_to_a_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    log = Log()
    log.fault = StoreUnavailable("away")
    pauses: list[float] = []
    enough = asyncio.Event()

    async def sleep(seconds: float) -> None:
        if asyncio.current_task() in log.following._tasks[:1]:
            pauses.append(seconds)
            if len(pauses) == 7:
                enough.set()
                await asyncio.Event().wait()
        else:
            await asyncio.Event().wait()

    monkeypatch.setattr(asyncio, "sleep", sleep)
    await log.following.start()
    await enough.wait()
    monkeypatch.undo()
    await log.following.stop()
    assert pauses == [pytest.approx(0.75 * seconds) for seconds in (0.2, 0.4, 0.8, 1.6, 2.0, 2.0, 2.0)]


async def test_a_look_ends_in_time_and_says_when_it_failed() -> None:
    log = Log()
    await log.following.look(1)
    log.fault = StoreUnavailable("away")
    with pytest.raises(StoreUnavailable, match="away"):
        await log.following.look(1)
    log.gate = asyncio.Event()
    started = time.monotonic()
    with pytest.raises(StoreUnavailable, match="the rows are not as new as was asked for"):
        await log.following.look(0.05)
    assert time.monotonic() - started < 0.5


async def test_a_purge_that_fails_is_a_warning(caplog: pytest.LogCaptureFixture) -> None:
    log = Log()
    with caplog.at_level(logging.INFO):
        await log.following.purge()
        log.fault = StoreUnavailable("away")
        await log.following.purge()
    assert [record.getMessage() for record in caplog.records] == [
        "1700001000 rows were over and are removed",
        "rows that are over could not be removed: away",
    ]
