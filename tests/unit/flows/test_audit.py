"""The way of events into the audit log: nothing is lost on a clean stop, what is dropped is counted and told."""

from __future__ import annotations

import ast
import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from pathlib import Path

import pytest

from gateway.errors import StoreUnavailable
from gateway.flows.audit import ACTIONS, DROPPED, TEXT_BYTES_MAX, AuditQueue, recordable
from gateway.stores.audit_log import BATCH_MAX, ORIGIN_HASH, AuditEntry, AuditHead, AuditVerdict
from gateway.stores.audit_log_files import FileAuditLog
from gateway.types import AuditEvent, SystemClock
from tests.conftest import ROOT
from tests.virtual_time import LoopClock, run_virtual

TELLERS = {"tell", "_tell", "_told"}


class ListedLog:
    """An audit log in a list, which can be away."""

    shared = "process"

    def __init__(self) -> None:
        self.events: list[AuditEvent] = []
        self.batches: list[int] = []
        self.away = False
        self.hangs = False
        self.loses_answers = 0  # of so many calls that took place
        self.is_closed = False

    async def append(self, events: Sequence[AuditEvent]) -> AuditHead:
        assert not self.is_closed
        await asyncio.sleep(0)
        if self.hangs:
            await asyncio.sleep(3600)
        if self.away:
            raise StoreUnavailable("it is away")
        known = {event.id for event in self.events}
        self.events += [event for event in events if event.id not in known]
        self.batches.append(len(events))
        if self.loses_answers:
            self.loses_answers -= 1
            raise StoreUnavailable("nobody knows whether it took place")
        return AuditHead("test", len(self.events), ORIGIN_HASH)

    async def read(self, chain: str = "", after: int = 0) -> AsyncIterator[AuditEntry]:
        nothing: tuple[AuditEntry, ...] = ()
        for entry in nothing:
            yield entry

    async def verify(self, known: Sequence[AuditHead] = (), told: Callable[[int], None] | None = None) -> AuditVerdict:
        return AuditVerdict(len(self.events), (), ())

    async def close(self) -> None:
        self.is_closed = True


def event(number: int = 0, action: str = "session.begin", **changes: str) -> AuditEvent:
    return AuditEvent(id=f"{number:032x}", at_s=float(number), action=action, outcome="success", **changes)  # type: ignore[arg-type]


def ids(events: Sequence[AuditEvent]) -> list[int]:
    return [int(each.id, 16) for each in events if each.action != DROPPED]


def test_what_was_told_is_in_the_log_after_a_clean_stop_in_its_order() -> None:
    async def main() -> None:
        log = ListedLog()
        queue = AuditQueue(log, clock=LoopClock())
        queue.tell(event(0))  # before anything runs
        await queue.start()
        for number in range(1, 2 * BATCH_MAX + 10):
            queue.tell(event(number))
        await queue.stop()
        assert ids(log.events) == list(range(2 * BATCH_MAX + 10))
        assert max(log.batches) <= BATCH_MAX
        assert log.is_closed
        figures = queue.figures()
        assert (figures.written, figures.dropped, figures.waiting) == (2 * BATCH_MAX + 10, 0, 0)

    run_virtual(main())


def test_while_the_log_is_away_events_wait_and_none_is_written_twice() -> None:
    async def main() -> None:
        log = ListedLog()
        log.away = True
        queue = AuditQueue(log, clock=LoopClock())
        await queue.start()
        queue.tell(event(1))
        await asyncio.sleep(60)
        queue.tell(event(2))
        assert log.events == []
        assert queue.figures().failures > 5
        assert queue.figures().waiting == 2
        log.away = False
        log.loses_answers = 1
        await asyncio.sleep(10)
        assert ids(log.events) == [1, 2]
        await queue.stop()
        assert ids(log.events) == [1, 2]

    run_virtual(main())


def test_what_finds_the_queue_full_is_counted_and_the_log_tells_of_the_gap() -> None:
    async def main() -> None:
        log = ListedLog()
        log.away = True
        queue = AuditQueue(log, clock=LoopClock(), size_max=3)
        await queue.start()
        for number in range(5):
            queue.tell(event(number))
            await asyncio.sleep(1)
        assert queue.figures().dropped == 2
        log.away = False
        await asyncio.sleep(10)
        queue.tell(event(9))
        await queue.stop()
        assert ids(log.events) == [0, 1, 2, 9]
        assert [dict(each.details) for each in log.events if each.action == DROPPED] == [{"events": 2}]
        assert queue.figures().dropped == 2

    run_virtual(main())


@pytest.mark.parametrize("fault", ["away", "hangs"])
def test_a_stop_waits_for_the_log_no_longer_than_it_may_and_counts_what_is_lost(fault: str) -> None:
    async def main() -> None:
        log = ListedLog()
        setattr(log, fault, True)
        queue = AuditQueue(log, clock=LoopClock(), flush_s=2.0)
        await queue.start()
        queue.tell(event(1))
        queue.tell(event(2))
        begun_s = LoopClock().monotonic_s()
        await queue.stop()
        assert LoopClock().monotonic_s() - begun_s <= 2.1
        assert queue.figures().dropped == 2
        assert log.is_closed

    run_virtual(main())


def test_a_log_that_comes_back_during_the_stop_takes_everything() -> None:
    async def main() -> None:
        log = ListedLog()
        log.away = True
        queue = AuditQueue(log, clock=LoopClock(), flush_s=5.0)
        await queue.start()
        queue.tell(event(1))
        asyncio.get_running_loop().call_later(1.0, setattr, log, "away", False)
        await queue.stop()
        assert ids(log.events) == [1]
        assert queue.figures().dropped == 0

    run_virtual(main())


def test_an_action_that_nobody_knows_is_recorded_all_the_same(caplog: pytest.LogCaptureFixture) -> None:
    async def main() -> None:
        log = ListedLog()
        queue = AuditQueue(log, clock=LoopClock())
        await queue.start()
        queue.tell(event(1, "weather.change"))
        await queue.stop()
        assert [each.action for each in log.events] == ["weather.change"]

    run_virtual(main())
    assert "`weather.change` is no known action" in caplog.text


def test_texts_of_clients_are_made_to_fit() -> None:
    made = recordable(event(1, target="x" * 5000, actor="\ud800", reason="é" * TEXT_BYTES_MAX))
    assert len(made.target) == TEXT_BYTES_MAX
    assert made.actor == "?"
    assert made.reason == "é" * (TEXT_BYTES_MAX // 2)
    same = event(2, target="usr_1")
    assert recordable(same) is same


async def test_the_real_log_holds_after_many_events(tmp_path: Path) -> None:
    log = FileAuditLog(tmp_path, "worker-0")
    queue = AuditQueue(log, clock=SystemClock())
    await queue.start()
    for number in range(3000):
        queue.tell(event(number, target="\ud800"))
    await queue.stop()
    reader = FileAuditLog(tmp_path, "reader")
    verdict = await reader.verify()
    await reader.close()
    assert (verdict.whole, verdict.entries) == (True, 3000)


def test_every_action_in_the_code_is_in_the_closed_list() -> None:
    found = set()
    for path in (ROOT / "gateway").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and node.args and isinstance(node.args[0], ast.Constant):
                name = node.func.attr if isinstance(node.func, ast.Attribute) else ""
                if name in TELLERS and isinstance(node.args[0].value, str):
                    found.add(node.args[0].value)
    assert len(found) > 10
    assert found <= ACTIONS
