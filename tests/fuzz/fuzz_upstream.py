"""What an upstream may answer: heads, chunked bodies, and a whole relayed response over a transport in memory.

An input is one byte of choices (bit 0: the request was a HEAD; the others: how the bytes are cut) and the upstream's
bytes, after which it closes the connection.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from contextvars import Context
from dataclasses import dataclass, field
from typing import Any, TypeVarTuple, Unpack

from gateway._native import http1
from gateway._native.upstream import UpstreamFault, UpstreamPool
from tests.oracle import http1 as oracle

Ts = TypeVarTuple("Ts")
LENGTH_MAX = 3000
INTERIM_MAX = 16
WORDS = (
    b"HTTP/1.1 200 OK\r\n", b"HTTP/1.0 200 OK\r\n", b"HTTP/1.1 204 No Content\r\n", b"HTTP/1.1 304 Not Modified\r\n",
    b"HTTP/1.1 100 Continue\r\n\r\n", b"HTTP/1.1 101 Switching Protocols\r\n", b"HTTP/1.1 103 Early Hints\r\n",
    b"Content-Length: 5\r\n", b"content-length: 0\r\n", b"Transfer-Encoding: chunked\r\n", b"Connection: close\r\n",
    b"Transfer-Encoding: gzip\r\n", b"Connection: keep-alive\r\n", b"\r\n", b"\n", b"\r", b"\r\n\r\n", b"0\r\n\r\n",
    b"5\r\nhello\r\n", b"0\r\nx: y\r\n\r\n", b"5;ext=1\r\n", b"ffffffffffffffff\r\n", b"-1", b"+5", b"0x5", b" ", b"\t",
    b": ", b"\x00", b"\xff",
)  # fmt: skip


def seeds() -> Iterable[bytes]:
    for choice in (b"\x00", b"\x01", b"\x02", b"\x0e", b"\xfe"):
        yield choice + b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello"
        yield choice + b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5;x\r\nhello\r\n0\r\nTrailer: t\r\n\r\n"
        yield choice + b"HTTP/1.0 200 OK\r\nX: y\r\n\r\nuntil the end"
        yield choice + b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 204 No Content\r\nConnection: close\r\n\r\n"
        yield choice + b"HTTP/1.1 200\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"
        yield choice + b"5\r\nhello\r\n0\r\n\r\n"


def cut(data: bytes, choice: int) -> list[bytes]:
    """Cut the upstream's bytes into pieces of one size, or not at all."""
    size = (choice >> 1) or len(data) or 1
    return [data[at : at + size] for at in range(0, len(data), size)]


# ---- the parsers on their own ----


def check_parsers(data: bytes, pieces: list[bytes], to_head: bool) -> oracle.Head | str | None:
    try:
        expected: oracle.Head | str | None = oracle.parse_response_head(data, to_head)
    except oracle.Refused:
        expected = "refused"
    try:
        found: oracle.Head | str | None = http1.parse_response_head(data, to_head)
    except http1.Malformed:
        found = "refused"
    assert found == expected
    try:
        body: tuple[bytes, int, bool] | str = oracle.decode_chunked(data)
    except oracle.Refused:
        body = "refused"
    decoder = http1.ChunkedDecoder()
    decoded, used = b"", 0
    try:
        for piece in pieces:
            out, count = decoder.feed(piece)
            decoded, used = decoded + out, used + count
        assert (decoded, used, decoder.finished) == body
    except http1.Malformed:
        assert body == "refused"
    return found


# ---- a relayed response ----


class Transport(asyncio.Transport):
    """A connection in memory. It answers the first request with `pieces`, then closes."""

    def __init__(self, loop: asyncio.AbstractEventLoop, protocol: asyncio.Protocol, pieces: list[bytes]) -> None:
        super().__init__()
        self.loop = loop
        self.protocol = protocol
        self.pieces = pieces
        self.written = b""
        self.aborted = False
        self.kept = False  # alive when the upstream had said all

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        return default

    def is_closing(self) -> bool:
        return self.aborted

    def write(self, data: bytes | bytearray | memoryview) -> None:
        self.written += data
        if self.written.endswith(b"\r\n\r\n"):
            self.loop.call_soon(self.answer)

    def get_write_buffer_size(self) -> int:
        return 0

    def pause_reading(self) -> None:
        raise AssertionError("no answer here is long enough to pause for")

    def resume_reading(self) -> None:
        pass

    def abort(self) -> None:
        if not self.aborted:
            self.aborted = True
            self.loop.call_soon(self.protocol.connection_lost, None)

    close = abort

    def answer(self) -> None:
        for piece in self.pieces:
            if self.aborted:
                return
            self.protocol.data_received(piece)
        self.kept = not self.aborted
        if self.kept:
            self.protocol.eof_received()
            self.abort()


class MemoryLoop(asyncio.SelectorEventLoop):
    """An event loop whose connections are Transports, and in which time stands still: a timer never rings."""

    pieces: list[bytes]
    transport: Transport | None = None

    def call_at(
        self, when: float, callback: Callable[[Unpack[Ts]], object], *args: *Ts, context: Context | None = None
    ) -> asyncio.TimerHandle:
        return asyncio.TimerHandle(when, callback, args, self, context)

    async def create_connection(self, protocol_factory: Callable[[], Any], *_: Any, **__: Any) -> Any:
        protocol = protocol_factory()
        self.transport = Transport(self, protocol, self.pieces)
        protocol.connection_made(self.transport)
        return self.transport, protocol


@dataclass(slots=True)
class Told:
    """What the client was told: `fault` is set where the response broke off, `kept` where the connection lives on."""

    status: int = 0
    body: bytes = b""
    whole: bool = False
    fault: str = ""
    kept: bool = False
    sent: list[dict[str, Any]] = field(default_factory=list, compare=False)


def expected_of(data: bytes, to_head: bool) -> Told:
    """Say what must be told of a response that consists of `data` and the connection's end."""
    told = Told(fault="protocol")
    interim = 0
    while True:
        try:
            head = oracle.parse_response_head(data, to_head)
        except oracle.Refused:
            return told
        if head is None:
            told.kept = True  # until its end comes
            return told
        status, _, framing, length, keep_alive, size = head
        data = data[size:]
        if status >= 200:
            break
        interim += 1
        if status == 101 or interim > INTERIM_MAX:
            return told
    told.status = status
    used = 0
    if framing == "chunked":
        try:
            told.body, used, told.whole = oracle.decode_chunked(data)
        except oracle.Refused:
            return told
    elif framing == "close":
        told.body, told.whole = data, True
    else:
        used = length if framing == "length" else 0
        told.body, told.whole = data[:used], len(data) >= used
    told.fault = "" if told.whole else "protocol"
    told.kept = not told.whole or framing == "close" or (keep_alive and used == len(data))
    return told


LOOP = MemoryLoop()
POOL = UpstreamPool("upstream.test", 80, connect_timeout_s=5.0)
SCOPE = {
    "type": "http",
    "http_version": "1.1",
    "scheme": "http",
    "headers": [(b"host", b"app.test")],
    "client": ("192.0.2.1", 5),
    "server": ("127.0.0.1", 80),
}


async def relay(pieces: list[bytes], to_head: bool) -> Told:
    told = Told()

    async def send(message: dict[str, Any]) -> None:
        told.sent.append(message)

    async def receive() -> dict[str, Any]:
        await asyncio.sleep(3600)
        return {"type": "http.disconnect"}

    LOOP.pieces = pieces
    scope = {**SCOPE, "method": "HEAD" if to_head else "GET"}
    try:
        await POOL.forward(scope, receive, send, b"/")
    except UpstreamFault as fault:
        told.fault = fault.kind
        assert fault.started == bool(told.sent)
    if told.sent:
        told.status = told.sent[0]["status"]
        told.body = b"".join(message["body"] for message in told.sent[1:])
        told.whole = len(told.sent) > 1 and not told.sent[-1]["more_body"]
    assert LOOP.transport is not None
    told.kept = LOOP.transport.kept
    LOOP.transport.abort()
    while POOL.stats()["open"]:
        await asyncio.sleep(0)
    return told


def target(data: bytes) -> object:
    choice = data[0] if data else 0
    to_head = bool(choice & 1)
    pieces = cut(data[1:], choice)
    head = check_parsers(data[1:], pieces, to_head)
    told, expected = LOOP.run_until_complete(relay(pieces, to_head)), expected_of(data[1:], to_head)
    if expected.fault and expected.status and told.status in (0, expected.status):
        # How much of a response with a broken body is told depends on the cuts; none, where it broke at once.
        assert not told.whole
        told.status = expected.status
        told.body = expected.body
        told.kept = expected.kept
    assert told == expected
    return told.status, told.fault, told.kept, head if isinstance(head, str) else head is None
