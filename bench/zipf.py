"""Decisions without I/O, and stale ones: `python -m bench zipf`.

All entities are kept in a source. Several workers, each a process with nothing in memory, decide 1,000,000 requests by
Zipf's law, and as many again; rights of the users who ask most are taken away and given back meanwhile. Counted is how
many decisions did not have to wait for the source, and which allows were decided after a revocation was written.
"""

from __future__ import annotations

import asyncio
import bisect
import contextlib
import itertools
import json
import random
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from bench import machine
from bench.bars import ZIPF_BARS, Verdicts
from bench.process import free_port, serving
from bench.table import Cell, Part, Progress, Table
from bench.zipf_worker import Log, Phase, Task
from bench.zipf_world import Right, World
from gateway.policy.attribute_follower import LEASE_S
from gateway.stores import open_attribute_source
from gateway.stores.attributes import FollowedSource
from gateway.stores.rows import CHANGES_MAX

STALE_FROM_S = 0.25  # from so long after a revocation was written on, no allow may be decided
HELD_S = 0.8  # for which a right stays taken away
WRITERS = 10  # that take rights away at once
_ROOT = Path(__file__).resolve().parents[1]


@dataclass(frozen=True, slots=True)
class Effort:
    """How hard to try."""

    world: World
    requests: int  # of each worker, twice
    workers: int
    leases_s: tuple[float, ...]


# Under a lease of STALE_FROM_S, what was last looked at longer ago decides nothing, whatever the machine does. Under
# the usual one changes are followed as fast, and a machine that is slow for a moment denies nothing.
FULL = Effort(World(), requests=1_000_000, workers=2, leases_s=(LEASE_S,))
QUICK = Effort(World(users=2_000, objects=5_000), requests=100_000, workers=2, leases_s=(LEASE_S, STALE_FROM_S))


@dataclass(frozen=True, slots=True)
class Revocation:
    """A right that was away for certain between two moments of the machine's monotonic clock."""

    user: int
    written_s: float  # the write that took it had returned
    restoring_s: float  # the write that gives it back had not begun


@dataclass(slots=True)
class Staleness:
    """What one worker decided about users without their right."""

    longest_s: float = 0.0  # after a revocation was written, of the last allow
    stale: int = 0  # allows later than STALE_FROM_S
    denied: int = 0  # denials later than that: what shows that it was looked for
    met: int = 0  # revocations with any decision later than that

    def add(self, other: Staleness) -> None:
        self.longest_s = max(self.longest_s, other.longest_s)
        self.stale += other.stale
        self.denied += other.denied
        self.met += other.met


def staleness(log: Log, revocations: Sequence[Revocation]) -> Staleness:
    """Hold a worker's decisions against what was written."""
    found = Staleness()
    by_user: dict[int, list[Revocation]] = {}
    for each in sorted(revocations, key=lambda each: each.written_s):
        by_user.setdefault(each.user, []).append(each)
    starts = {user: [each.written_s for each in they] for user, they in by_user.items()}
    met: set[Revocation] = set()
    for user, when_s, allowed in zip(log.users, log.times_s, log.allowed, strict=True):
        at = bisect.bisect_left(starts.get(user, ()), when_s) - 1
        if at < 0:
            continue
        revocation = by_user[user][at]
        if when_s >= revocation.restoring_s:
            continue
        after_s = when_s - revocation.written_s
        is_late = after_s > STALE_FROM_S
        if allowed:
            found.longest_s = max(found.longest_s, after_s)
            found.stale += is_late
        else:
            found.denied += is_late
        if is_late:
            met.add(revocation)
    found.met = len(met)
    return found


# -- writing ----------------------------------------------------------------------------------------------------------


async def fill(source: FollowedSource, world: World) -> None:
    """Write the whole world."""
    entities = world.entities()
    while part := list(itertools.islice(entities, CHANGES_MAX)):
        await source.write(part)


async def _revoke(source: FollowedSource, world: World, writer: int, made: list[Revocation]) -> None:
    """Take rights away and give them back, one user of this writer's share after the other."""
    chooser = random.Random(writer)
    users = range(writer, world.watched, WRITERS)
    ways: tuple[Right, ...] = ("inactive", "no member")
    for number in itertools.count():
        user = chooser.choice(users)
        uid = world.user(user)
        await source.write([(uid, world.user_body(user, ways[number % 2]))])
        written_s = time.monotonic()
        await asyncio.sleep(HELD_S)
        restoring_s = time.monotonic()
        await source.write([(uid, world.user_body(user))])
        made.append(Revocation(user, written_s, restoring_s))
        await asyncio.sleep(chooser.uniform(0.1, 0.3))


# -- running ----------------------------------------------------------------------------------------------------------


@dataclass(slots=True)
class Round:
    """What the workers of one round did."""

    cold: list[Phase] = field(default_factory=list)
    steady: list[Phase] = field(default_factory=list)
    staleness: list[Staleness] = field(default_factory=list)
    revocations: int = 0
    details: list[Any] = field(default_factory=list)


async def _round(effort: Effort, url: str, folder: Path, lease_s: float, *, first: bool) -> Round:
    source = open_attribute_source(url, folder, name="directory")
    assert isinstance(source, FollowedSource)
    try:
        if first:
            await fill(source, effort.world)
        return await _run_workers(effort, source, url, folder, lease_s)
    finally:
        await source.close()


async def _ends(processes: Sequence[asyncio.subprocess.Process]) -> set[int]:
    return {await process.wait() for process in processes}


async def _run_workers(effort: Effort, source: FollowedSource, url: str, folder: Path, lease_s: float) -> Round:
    outs = [folder / f"worker-{lease_s}-{number}.json" for number in range(effort.workers)]
    tasks = [Task(effort.requests, out.name, lease_s, effort.world) for out in outs]
    processes = [
        await asyncio.create_subprocess_exec(
            sys.executable, "-m", "bench.zipf_worker", url, str(out), json.dumps(asdict(task)),
            cwd=_ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
        )
        for out, task in zip(outs, tasks, strict=True)
    ]  # fmt: skip
    revocations: list[Revocation] = []
    writers: list[asyncio.Task[None]] = []
    try:
        for process in processes:
            assert process.stdout is not None
            assert await process.stdout.readline() == b"ready\n", "a worker did not begin"
        for process in processes:
            assert process.stdin is not None
            process.stdin.write(b"go\n")
        writers = [asyncio.create_task(_revoke(source, effort.world, n, revocations)) for n in range(WRITERS)]
        ended = asyncio.ensure_future(_ends(processes))
        await asyncio.wait([ended, *writers], return_when=asyncio.FIRST_COMPLETED)
        for writer in writers:
            if writer.done():
                writer.result()  # writing failed
        assert await ended == {0}, "a worker failed"
    finally:
        for writer in writers:
            writer.cancel()
        await asyncio.gather(*writers, return_exceptions=True)
        for process in processes:
            with contextlib.suppress(ProcessLookupError):
                process.kill()
    found = Round(revocations=len(revocations))
    for out in outs:
        result = json.loads(out.read_text())
        found.cold.append(Phase(**result["cold"]))
        found.steady.append(Phase(**result["steady"]))
        found.staleness.append(staleness(Log.read(out.with_suffix(".log")), revocations))
        found.details.append(result)
    return found


@contextlib.contextmanager
def _sqlite(folder: Path) -> Iterator[str]:
    yield f"sqlite:{folder / 'directory.sqlite3'}"


@contextlib.contextmanager
def _redis(folder: Path) -> Iterator[str]:
    own, port = folder / "redis", free_port()
    own.mkdir()
    command = ["redis-server", "--port", str(port), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no"]
    with serving(command, own, core=1) as server:
        server.wait_until_listening(port)
        yield f"redis://127.0.0.1:{port}/0"


BACKENDS = {"SQLite": _sqlite, "Redis": _redis}


def measure(effort: Effort, step: Callable[[str], None], backends: Iterable[str] = tuple(BACKENDS)) -> Part:
    """Run every backend that is here, under each lease."""
    rounds: dict[str, dict[float, Round]] = {}
    for name in backends:
        if name == "Redis" and shutil.which("redis-server") is None:
            print("left out: Redis: redis-server is not installed")
            continue
        with tempfile.TemporaryDirectory(prefix="portcullis-bench-") as text, BACKENDS[name](Path(text)) as url:
            for lease_s in effort.leases_s:
                step(f"Zipf over {name}, a lease of {lease_s:g} s")
                first = lease_s == effort.leases_s[0]
                made = asyncio.run(_round(effort, url, Path(text), lease_s, first=first))
                rounds.setdefault(name, {})[lease_s] = made
    return part(rounds, whole=effort.world == World() and effort.requests >= FULL.requests)


def part(rounds: Mapping[str, Mapping[float, Round]], *, whole: bool) -> Part:
    """Give one row for each worker, and the figures of the worst one for the bars."""
    rows: list[list[Cell]] = []
    for name, by_lease in rounds.items():
        for lease_s, made in by_lease.items():
            for worker, (cold, steady, stale) in enumerate(zip(made.cold, made.steady, made.staleness, strict=True)):
                rows.append([
                    f"{name}, lease {lease_s:g} s, worker {worker + 1}",
                    cold.percent_without_io, steady.percent_without_io,
                    cold.cpu_s / cold.requests * 1e6, steady.cpu_s / steady.requests * 1e6,
                    cold.unavailable + steady.unavailable,
                    f"{stale.met} of {made.revocations}", stale.denied, stale.stale, stale.longest_s * 1000,
                ])  # fmt: skip
    bars: dict[str, float] = {}
    if whole:
        every = [made for by_lease in rounds.values() for made in by_lease.values()]
        bars = {
            "zipf: cold %": min(phase.percent_without_io for made in every for phase in made.cold),
            "zipf: steady %": min(phase.percent_without_io for made in every for phase in made.steady),
            "zipf: stale": sum(stale.stale for made in every for stale in made.staleness),
            "zipf: denied": min(stale.denied for made in every for stale in made.staleness),
        }
    columns = (
        "each with nothing in memory", "% without I/O, cold", "% steady", "CPU µs a decision, cold", "steady",
        "unavailable", "revocations met", "denied by them", "stale allows", "last allow after, ms",
    )  # fmt: skip
    measured = {name: {lease_s: asdict(made) for lease_s, made in each.items()} for name, each in rounds.items()}
    return Part([Table("Zipf 1.05, all entities in a source", columns, rows)], bars, {"zipf": measured})


def run(effort: Effort) -> dict[str, Any]:
    """Measure and report."""
    progress = Progress(len(effort.leases_s) * len(BACKENDS))
    found = measure(effort, progress.step)
    progress.end()
    described = machine.describe()
    print(machine.headline(described))
    print(
        f"{effort.workers} workers; {effort.requests:,} requests each from a cold start, and as many again;"
        f" {effort.world.users:,} users, {effort.world.objects:,} objects"
    )
    for table in found.tables:
        table.print()
    verdicts = Verdicts(ZIPF_BARS, found.bars)
    verdicts.print()
    return {
        "kind": "zipf",
        "machine": described,
        "effort": asdict(effort),
        "measured": found.measured,
        "bars": verdicts.as_json(),
    }
