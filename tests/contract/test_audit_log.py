"""The laws of AuditLog, held by every backend."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest

from gateway.errors import StoreUnavailable
from gateway.stores import Connections, open_audit_log
from gateway.stores.audit_log import ORIGIN_HASH, AuditEntry, AuditHead, AuditLog
from gateway.stores.audit_log_files import FileAuditLog
from gateway.types import AuditEvent, Secret
from tests.real.pools import SMALL
from tests.real.process import wait_until

KEY = Secret("a key that only the gateway has")

Opener = Callable[..., AuditLog]


@pytest.fixture(params=["files", "redis", "cluster", "kafka_mock", "kafka"])
def url(request: pytest.FixtureRequest) -> str:
    if request.param == "files":
        return ""
    server = request.getfixturevalue(request.param)
    server.forget()
    found: str = server.url
    return found


@pytest.fixture
async def opener(url: str, tmp_path: Path) -> AsyncIterator[Opener]:
    opened: list[AuditLog] = []

    def open_one(chain: str = "w0", key: Secret | None = KEY) -> AuditLog:
        opened.append(open_audit_log(url, tmp_path, chain, key, connections=Connections(SMALL)))
        return opened[-1]

    yield open_one
    for log in opened:
        await log.close()


def event(number: int, **changes: Any) -> AuditEvent:
    said: dict[str, Any] = {
        "id": f"e{number}",
        "at_s": 1_700_000_000.25 + number,
        "action": "login.password",
        "outcome": "refused",
        "tenant": "acme",
        "actor": "usr_ä",
        "target": "usr_b",
        "address": "192.0.2.1",
        "request_id": "r1",
        "reason": "bad_credentials",
        "details": {"risk": 12, "new_device": True, "agent": "Firefox"},
    }
    return AuditEvent(**(said | changes))


async def entries(log: AuditLog, chain: str = "", after: int = 0) -> list[AuditEntry]:
    return [entry async for entry in log.read(chain, after)]


async def test_events_come_back_in_their_order_and_chained(opener: Opener) -> None:
    log = opener()
    assert await log.append([]) == AuditHead("w0", 0, ORIGIN_HASH)
    await log.append([event(1), event(2)])
    head = await log.append([event(3, actor="", details={})])
    found = await entries(opener("reader"))
    assert [entry.event for entry in found] == [event(1), event(2), event(3, actor="", details={})]
    assert [entry.number for entry in found] == [1, 2, 3]
    assert [entry.before for entry in found] == [ORIGIN_HASH, found[0].hash, found[1].hash]
    assert head == AuditHead("w0", 3, found[2].hash)
    assert [entry.number for entry in await entries(log, "w0", after=2)] == [3]
    verdict = await log.verify()
    assert (verdict.entries, verdict.heads, verdict.faults) == (3, (head,), ())
    assert verdict.whole


async def test_an_event_that_is_told_twice_is_recorded_once(opener: Opener) -> None:
    log = opener()
    await log.append([event(1), event(1), event(2)])
    await log.append([event(2), event(3)])
    await log.close()
    again = opener()
    await again.append([event(1), event(3), event(4)])
    assert [entry.event.id for entry in await entries(again)] == ["e1", "e2", "e3", "e4"]
    assert (await again.verify()).whole


async def test_chains_are_written_side_by_side(opener: Opener) -> None:
    logs = [opener(f"w{number}") for number in range(3)]

    async def write(number: int) -> None:
        for turn in range(10):
            await logs[number].append([event(100 * number + turn)])

    await asyncio.gather(*(write(number) for number in range(3)))
    verdict = await logs[0].verify()
    assert (verdict.entries, verdict.faults) == (30, ())
    assert sorted((head.chain, head.number) for head in verdict.heads) == [("w0", 10), ("w1", 10), ("w2", 10)]
    assert [entry.event.id for entry in await entries(logs[2], "w1")] == [f"e{100 + turn}" for turn in range(10)]


async def test_many_events_are_read_page_by_page(opener: Opener) -> None:
    log = opener()
    for start in range(0, 1200, 400):
        await log.append([event(number) for number in range(start, start + 400)])
    assert [entry.event.id for entry in await entries(log)] == [f"e{number}" for number in range(1200)]
    assert (await log.verify()).whole


async def test_another_key_verifies_nothing(opener: Opener) -> None:
    head = await opener().append([event(1)])
    assert not (await opener("reader", Secret("guess")).verify()).whole
    assert not (await opener("reader", None).verify()).whole
    assert (await opener("reader").verify([head])).whole


async def test_an_end_that_was_kept_elsewhere_shows_that_entries_are_missing_or_others(opener: Opener) -> None:
    log = opener()
    head = await log.append([event(1), event(2)])
    assert (await log.verify([head])).whole
    (missing,) = (await log.verify([AuditHead("w0", 5, head.hash)])).faults
    assert (missing.number, missing.problem) == (5, "this entry was there once and is missing")
    (other,) = (await log.verify([AuditHead("w0", 2, "ff" * 32)])).faults
    assert other.problem == "another entry was here when its hash was kept"


@pytest.mark.parametrize("name", ["", "../up", "a/b", "a b", "ä", "x" * 100])
def test_the_name_of_a_chain_is_plain(tmp_path: Path, name: str) -> None:
    with pytest.raises(ValueError, match="chain"):
        open_audit_log("", tmp_path, name)


async def test_an_event_that_is_too_large_is_refused_and_nothing_is_written(opener: Opener) -> None:
    log = opener()
    large = event(1, actor="x" * 200_000)
    with pytest.raises(ValueError, match="at most"):
        await log.append([event(2), large])
    assert (await log.append([event(3)])).number == 1


# -- files


def segments(folder: Path, chain: str = "w0") -> list[Path]:
    return sorted((folder / "audit" / chain).glob("*.jsonl"))


async def written(folder: Path, count: int = 6, segment_bytes: int = 900) -> list[Path]:
    log = FileAuditLog(folder / "audit", "w0", KEY, segment_bytes=segment_bytes)
    for number in range(count):
        await log.append([event(number)])
    await log.close()
    return segments(folder)


async def verdict_of(folder: Path) -> list[tuple[int, str]]:
    log = FileAuditLog(folder / "audit", "reader", KEY)
    found = await log.verify()
    await log.close()
    return [(fault.number, fault.problem) for fault in found.faults]


async def test_segments_follow_each_other(tmp_path: Path) -> None:
    files = await written(tmp_path)
    assert len(files) > 2
    assert all(file.stat().st_mode & 0o777 == 0o600 for file in files)
    assert await verdict_of(tmp_path) == []


def swap_lines(file: Path) -> None:
    first, second, *rest = file.read_bytes().splitlines(keepends=True)
    file.write_bytes(b"".join([second, first, *rest]))


def edit(file: Path) -> None:
    file.write_bytes(file.read_bytes().replace(b"refused", b"success", 1))


def drop_first_line(file: Path) -> None:
    file.write_bytes(b"".join(file.read_bytes().splitlines(keepends=True)[1:]))


def double_line(file: Path) -> None:
    lines = file.read_bytes().splitlines(keepends=True)
    file.write_bytes(b"".join([lines[0], *lines]))


def put_in(file: Path) -> None:
    file.write_bytes(b'{"chain":"w0"}\n' + file.read_bytes())


def cut_off(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:-20])


@pytest.mark.parametrize("meddle", [swap_lines, edit, drop_first_line, double_line, put_in, cut_off, Path.unlink])
async def test_whatever_is_changed_in_the_files_breaks_the_chain(
    tmp_path: Path, meddle: Callable[[Path], None]
) -> None:
    files = await written(tmp_path)
    meddle(files[1])
    assert await verdict_of(tmp_path) != []


async def test_what_a_crash_tore_is_put_aside_and_the_chain_goes_on(tmp_path: Path) -> None:
    files = await written(tmp_path, 3, 10_000)
    with files[-1].open("ab") as file:
        file.write(b'{"chain":"w0","n":4,"befo')
    assert await verdict_of(tmp_path) == []
    log = FileAuditLog(tmp_path / "audit", "w0", KEY)
    assert (await log.append([event(9)])).number == 4
    await log.close()
    assert await verdict_of(tmp_path) == []
    (torn,) = (tmp_path / "audit" / "w0").glob("*.torn")
    assert torn.read_bytes() == b'{"chain":"w0","n":4,"befo\n'


async def test_one_process_at_a_time_writes_a_chain(tmp_path: Path) -> None:
    first, second = (FileAuditLog(tmp_path, "w0", KEY) for _ in range(2))
    await first.append([event(1)])
    with pytest.raises(StoreUnavailable, match="another process"):
        await second.append([event(2)])
    await first.close()
    assert (await second.append([event(2)])).number == 2
    await second.close()


WRITER = """
import asyncio, sys
from pathlib import Path
from gateway.stores.audit_log_files import FileAuditLog
from gateway.types import AuditEvent, Secret

async def main():
    folder, begin = sys.argv[1:]
    log = FileAuditLog(Path(folder) / "audit", "w0", Secret("a key that only the gateway has"), segment_bytes=20_000)
    number = int(begin)
    while True:
        batch = [AuditEvent(id=f"e{n}", at_s=1.0, action="a", outcome="success") for n in range(number, number + 5)]
        await log.append(batch)
        number += 5
        print(number, flush=True)

asyncio.run(main())
"""


async def test_nothing_that_was_acknowledged_is_lost_by_kill_9(tmp_path: Path) -> None:
    script = tmp_path / "writer.py"
    script.write_text(WRITER)
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).resolve().parents[2])}
    acknowledged = 0
    for _ in range(4):
        with (tmp_path / "out").open("wb") as out:
            writer = subprocess.Popen(
                [sys.executable, script, tmp_path, str(acknowledged)], stdout=out, env=environment
            )
        try:
            target = acknowledged + 100

            def told(target: int = target) -> bool:
                lines = (tmp_path / "out").read_text().split("\n")[:-1]
                return bool(lines) and int(lines[-1]) >= target

            await asyncio.to_thread(wait_until, told, "some entries")
        finally:
            writer.send_signal(signal.SIGKILL)
            writer.wait()
        acknowledged = int((tmp_path / "out").read_text().split("\n")[:-1][-1])
    assert await verdict_of(tmp_path) == []
    log = FileAuditLog(tmp_path / "audit", "reader", KEY)
    ids = [entry.event.id for entry in await entries(log)]
    await log.close()
    assert ids[:acknowledged] == [f"e{number}" for number in range(acknowledged)]
    assert len(ids) == len(set(ids))
