"""Requests at a given rate, whether answers come or not: what an open loop shows of queues, a closed one hides.

Each request has a time at which it is due, and its latency counts from then on: a server that stands still for a
second is charged for all that came due meanwhile (no coordinated omission). Connections are kept alive and taken by
whoever is due; there are more of them when all are busy, up to `connections_max`, and then requests wait for one.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import math
import random
from collections import Counter, deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

_LINE_END = b"\r\n"
_HEAD_END = b"\r\n\r\n"


@dataclass(slots=True)
class Answers:
    """What came back: `latencies_s` by status, from the time a request was due; 0 = no answer at all."""

    latencies_s: dict[int, list[float]] = field(default_factory=dict)
    without_retry_after: int = 0  # 503 that do not say when to come again
    elapsed_s: float = 0.0

    def take(self, status: int, latency_s: float, head: bytes) -> None:
        self.latencies_s.setdefault(status, []).append(latency_s)
        if status == 503 and b"\r\nretry-after:" not in head.lower():
            self.without_retry_after += 1

    @property
    def counts(self) -> Counter[int]:
        return Counter({status: len(found) for status, found in self.latencies_s.items()})

    def in_time(self, status: int, within_s: float) -> int:
        """Count the answers of this status that were no later than that."""
        return sum(1 for each in self.latencies_s.get(status, ()) if each <= within_s)

    def quantile_s(self, share: float, status: int | None = None) -> float:
        """Give a quantile of the latencies (nearest rank), of one status or of all."""
        found = [each for of, all_of in self.latencies_s.items() if status in (None, of) for each in all_of]
        if not found:
            return math.nan
        return sorted(found)[min(len(found) - 1, math.ceil(share * len(found)) - 1)]


class _Connection(asyncio.Protocol):
    """One kept-alive connection with at most one request on it."""

    def __init__(self, load: Load) -> None:
        self._load = load
        self._buffer = bytearray()
        self._due_s = 0.0
        self._busy = False
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: Any) -> None:
        self._transport = transport

    def send(self, request: bytes, due_s: float) -> None:
        assert self._transport is not None
        self._busy, self._due_s = True, due_s
        self._transport.write(request)

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        end = self._buffer.find(_HEAD_END)
        if end < 0:
            return
        head = bytes(self._buffer[: end + 2])
        length = _length(head)
        if len(self._buffer) < end + 4 + length:
            return
        del self._buffer[: end + 4 + length]
        self._busy = False
        is_kept = b"\r\nconnection: close" not in head.lower()
        if not is_kept and self._transport is not None:
            self._transport.close()
        self._load.answered(self, int(head[9:12]), self._due_s, head, is_kept=is_kept)

    def connection_lost(self, exc: Exception | None) -> None:
        if self._busy:
            self._busy = False
            self._load.answered(self, 0, self._due_s, b"", is_kept=False)
        else:
            self._load.lost(self)

    def close(self) -> None:
        if self._transport is not None:
            self._transport.abort()


def _length(head: bytes) -> int:
    """Give the length of a body: the gateway says it for all that are measured here (RFC 9112 §6.2)."""
    at = head.lower().find(b"\r\ncontent-length:")
    if at < 0:
        return 0
    return int(head[at + 17 : head.index(_LINE_END, at + 2)])


class Load:
    """Sends `requests` in turn to a port of loopback. Belongs to one event loop; close it in the end."""

    def __init__(self, port: int, requests: Iterator[bytes], *, connections_max: int = 1000) -> None:
        self.answers = Answers()
        self.on_answer: Callable[[float], None] = lambda due_s: None
        self._port = port
        self._requests = requests
        self._connections_max = connections_max
        self._idle: deque[_Connection] = deque()
        self._waiting: deque[float] = deque()
        self._open = 0
        self._asked = 0
        self._answered = 0
        self._last: asyncio.Event | None = None  # set with the last answer, once nothing more is asked
        self._clock = asyncio.get_running_loop().time
        self._opening: set[asyncio.Task[None]] = set()

    def ask(self, due_s: float) -> None:
        """Send the next request now; it was due then."""
        self._asked += 1
        if self._idle:
            self._idle.pop().send(next(self._requests), due_s)
        else:
            self._waiting.append(due_s)
            if self._open < self._connections_max:
                self._open += 1
                task = asyncio.create_task(self._connect())
                self._opening.add(task)
                task.add_done_callback(self._opening.discard)

    async def _connect(self) -> None:
        loop = asyncio.get_running_loop()
        try:
            _, made = await loop.create_connection(lambda: _Connection(self), "127.0.0.1", self._port)
        except OSError:
            self._open -= 1
            if self._waiting:
                self._finish(0, self._waiting.popleft(), b"")
            return
        self._free(made)

    def _free(self, connection: _Connection) -> None:
        if self._waiting:
            connection.send(next(self._requests), self._waiting.popleft())
        else:
            self._idle.append(connection)

    def _finish(self, status: int, due_s: float, head: bytes) -> None:
        self._answered += 1
        self.answers.take(status, self._clock() - due_s, head)
        self.on_answer(due_s)
        if self._last is not None and self._answered == self._asked:
            self._last.set()

    def answered(self, connection: _Connection, status: int, due_s: float, head: bytes, *, is_kept: bool) -> None:
        """Take an answer; the connection serves whoever is next."""
        self._finish(status, due_s, head)
        if is_kept:
            self._free(connection)
        else:
            self._open -= 1

    def lost(self, connection: _Connection) -> None:
        """Forget a connection that the server closed while nothing was on it."""
        if connection in self._idle:
            self._idle.remove(connection)
            self._open -= 1

    async def at_rate(self, per_s: float, seconds: float, *, chance: random.Random | None = None) -> Answers:
        """Ask at a rate, with exponential gaps where `chance` is given, else evenly; wait for what is under way."""
        start_s = self._clock()
        due_s = start_s
        while due_s < start_s + seconds:
            pause_s = due_s - self._clock()
            if pause_s > 0:
                await asyncio.sleep(pause_s)
            self.ask(due_s)
            due_s += chance.expovariate(per_s) if chance is not None else 1 / per_s
        self.answers.elapsed_s = self._clock() - start_s
        await self.settle()
        return self.answers

    async def in_circle(self, askers: int, seconds: float) -> Answers:
        """Have so many askers, each of which asks again as soon as it has its answer (a closed loop)."""
        start_s = self._clock()

        def again(_due_s: float) -> None:
            if self._clock() < start_s + seconds:
                self.ask(self._clock())

        self.on_answer = again
        for _ in range(askers):
            self.ask(self._clock())
        await asyncio.sleep(seconds)
        self.answers.elapsed_s = self._clock() - start_s
        await self.settle()
        return self.answers

    async def settle(self, timeout_s: float = 20.0) -> None:
        """Wait for what is under way, and close all; what is not answered by then has no answer."""
        self._last = asyncio.Event()
        if self._answered < self._asked:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(timeout_s):
                    await self._last.wait()
        for _ in range(self._asked - self._answered):
            self.answers.take(0, timeout_s, b"")
        for connection in self._idle:
            connection.close()


def request_bytes(
    method: str, target: str, headers: dict[str, str], body: bytes = b"", *, host: str = "app.bench.example"
) -> bytes:
    """Spell a request of HTTP/1.1."""
    lines = [f"{method} {target} HTTP/1.1", f"Host: {host}", *(f"{name}: {value}" for name, value in headers.items())]
    if body or method == "POST":
        lines.append(f"Content-Length: {len(body)}")
    return "\r\n".join([*lines, "", ""]).encode() + body


def in_turn(requests: list[bytes]) -> Iterator[bytes]:
    """Give requests again and again."""
    return itertools.cycle(requests)
