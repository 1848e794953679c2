"""One worker of the Zipf run, a process of its own: `python -m bench.zipf_worker URL OUT TASK`.

It decides as a gateway's worker does, over a store that is empty at first, and writes down every decision about a
watched user. It says `ready` when it follows the source's log, and begins when a line comes in.
"""

from __future__ import annotations

import asyncio
import gc
import json
import sys
import time
from array import array
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from bench.zipf_world import READ, TYPES, World, engine
from gateway.policy.attributes import AttributePrefetcher, SourcedTypes
from gateway.policy.plans import Question
from gateway.stores import open_attribute_source
from gateway.types import SystemClock

AT_ONCE = 16  # askers
TURN = 5  # requests that one asker makes before the loop does other things: a server's loop turns about as often
REST_S = 0.02  # before an asker who was refused asks for something else


@dataclass(slots=True)
class Phase:
    """What came of a number of requests."""

    requests: int = 0
    without_io: int = 0
    unavailable: int = 0  # denied because attributes could not be had
    allowed: int = 0
    seconds: float = 0.0
    cpu_s: float = 0.0

    @property
    def percent_without_io(self) -> float:
        return 100 * self.without_io / self.requests


@dataclass(slots=True)
class Log:
    """Decisions about watched users, in the order in which they were made."""

    users: array[int] = field(default_factory=lambda: array("i"))
    times_s: array[float] = field(default_factory=lambda: array("d"))  # on the machine's monotonic clock
    allowed: array[int] = field(default_factory=lambda: array("b"))

    def note(self, user: int, when_s: float, *, allowed: bool) -> None:
        self.users.append(user)
        self.times_s.append(when_s)
        self.allowed.append(allowed)

    def write(self, path: Path) -> None:
        with path.open("wb") as file:
            file.write(len(self.users).to_bytes(8, "little"))
            for column in (self.users, self.times_s, self.allowed):
                file.write(column.tobytes())

    @classmethod
    def read(cls, path: Path) -> Log:
        made = cls()
        with path.open("rb") as file:
            count = int.from_bytes(file.read(8), "little")
            for column in (made.users, made.times_s, made.allowed):
                column.frombytes(file.read(count * column.itemsize))
        return made


class Worker:
    """Decides with what an `AttributePrefetcher` fetches."""

    def __init__(self, world: World, prefetcher: AttributePrefetcher) -> None:
        self.engine = engine()
        prefetcher.adopt(self.engine)
        self.log = Log()
        self._world = world
        self._judge = prefetcher.judge
        self._users = [world.user(number) for number in range(world.users)]
        self._objects = [world.thing(number) for number in range(world.objects)]

    async def phase(self, requests: int, seed: object) -> Phase:
        """Decide so many requests, AT_ONCE of them at once: while one waits for the source, others go on."""
        phase = Phase()
        asks = self._world.asks(requests, seed)
        started_s, started_cpu_s = time.monotonic(), time.process_time()
        await asyncio.gather(*(self._ask(asks, phase) for _ in range(AT_ONCE)))
        phase.seconds, phase.cpu_s = time.monotonic() - started_s, time.process_time() - started_cpu_s
        return phase

    async def _ask(self, asks: Iterator[tuple[int, int]], phase: Phase) -> None:
        clock, watched = time.monotonic, self._world.watched
        for turn, (user, thing) in enumerate(asks, 1):
            begun_s = clock()
            made = await self._judge(self.engine, Question(self._users[user], READ, self._objects[thing]))
            phase.requests += 1
            phase.without_io += not made.with_io
            phase.unavailable += made.failure is not None
            phase.allowed += made.answer.allowed
            if user < watched:
                # What was decided at once, was so after it was asked; what had to wait, until it was answered.
                self.log.note(user, clock() if made.with_io else begun_s, allowed=made.answer.allowed)
            if made.failure is not None:
                await asyncio.sleep(REST_S)
            elif turn % TURN == 0:
                await asyncio.sleep(0)


@dataclass(frozen=True, slots=True)
class Task:
    """What a worker has to do."""

    requests: int  # from a cold start, and as many again
    seed: str
    lease_s: float
    world: World

    @classmethod
    def from_json(cls, text: str) -> Task:
        made = json.loads(text)
        return cls(**{**made, "world": World(**made["world"])})


async def _main(url: str, out: Path, task: Task) -> dict[str, Any]:
    source = open_attribute_source(url, out.parent, name="directory")
    prefetcher = AttributePrefetcher([SourcedTypes(source, TYPES, lease_s=task.lease_s)], clock=SystemClock())
    worker = Worker(task.world, prefetcher)
    await prefetcher.start()
    print("ready", flush=True)
    await asyncio.to_thread(sys.stdin.readline)
    gc.collect()
    gc.freeze()  # as a worker does when it enters service
    cold = await worker.phase(task.requests, f"{task.seed} cold")
    steady = await worker.phase(task.requests, f"{task.seed} steady")
    stats = asdict(prefetcher.stats())
    stats["failures"] = {f"{name}: {reason}": count for (name, reason), count in stats["failures"].items()}
    states: list[Any] = [asdict(state) for state in prefetcher.states()]
    await prefetcher.stop()
    await source.close()
    worker.log.write(out.with_suffix(".log"))
    return {"cold": asdict(cold), "steady": asdict(steady), "stats": stats, "states": states}


if __name__ == "__main__":
    _url, _out, _task = sys.argv[1:]
    _done = asyncio.run(_main(_url, Path(_out), Task.from_json(_task)))
    Path(_out).write_text(json.dumps(_done, default=str))
