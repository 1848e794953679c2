"""Upstreams that say exactly what a test tells them to, and a client side of ASGI that notes what it is told."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from gateway._native.upstream import UpstreamPool

Message = dict[str, Any]
Talk = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]

OK = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok"
FOREVER_S = 3600.0  # tick_s of a pool whose clock only the test moves
DEADLINE_S = 10.0


@dataclass
class Upstream:
    """A listening socket that gives each connection to `talk`, and remembers the bytes that came."""

    talk: Talk
    port: int = 0
    connections: int = 0
    closed: int = 0
    received: list[bytes] = field(default_factory=list)
    server: asyncio.Server | None = None

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        try:
            await self.talk(reader, writer)
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        finally:
            self.closed += 1
            writer.close()

    async def read_request(self, reader: asyncio.StreamReader) -> bytes:
        """Return one request's head and note it; IncompleteReadError at the end of the connection."""
        head = await reader.readuntil(b"\r\n\r\n")
        self.received.append(head)
        return head


@asynccontextmanager
async def upstream(talk: Callable[[Upstream], Talk], **options: Any) -> AsyncIterator[Upstream]:
    """Run an upstream on a free port (or a unix socket: `path`)."""
    made = Upstream(talk=lambda reader, writer: asyncio.sleep(0))
    made.talk = talk(made)
    path = options.pop("path", None)
    if path is not None:
        server = await asyncio.start_unix_server(made.serve, path, **options)
    else:
        server = await asyncio.start_server(made.serve, "127.0.0.1", 0, **options)
        made.port = server.sockets[0].getsockname()[1]
    made.server = server
    try:
        yield made
    finally:
        server.close()


def answering(*answers: bytes, close: bool = False) -> Callable[[Upstream], Talk]:
    """Make an upstream that answers the requests of a connection with these bytes in turn, the last one for ever."""

    def talk_of(made: Upstream) -> Talk:
        async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            turn = 0
            while True:
                await made.read_request(reader)
                writer.write(answers[min(turn, len(answers) - 1)])
                await writer.drain()
                turn += 1
                if close:
                    return

        return talk

    return talk_of


@dataclass
class Client:
    """The server's side of one ASGI request: gives `messages` to `receive`, keeps what `send` is told."""

    messages: list[Message] = field(default_factory=list)
    sent: list[Message] = field(default_factory=list)
    asked: int = 0
    gone: asyncio.Event = field(default_factory=asyncio.Event)
    reads: asyncio.Event = field(default_factory=asyncio.Event)

    def __post_init__(self) -> None:
        self.reads.set()

    async def receive(self) -> Message:
        self.asked += 1
        if self.messages:
            return self.messages.pop(0)
        await self.gone.wait()
        return {"type": "http.disconnect"}

    async def send(self, message: Message) -> None:
        await self.reads.wait()
        self.sent.append(message)

    @property
    def status(self) -> int:
        return int(self.sent[0]["status"])

    @property
    def headers(self) -> list[tuple[bytes, bytes]]:
        return list(self.sent[0]["headers"])

    @property
    def body(self) -> bytes:
        return b"".join(message["body"] for message in self.sent[1:])

    @property
    def whole(self) -> bool:
        return bool(self.sent) and self.sent[-1].get("more_body") is False


def scope_of(
    method: str = "GET", headers: Iterable[tuple[bytes, bytes]] = ((b"host", b"app.example"),), **other: Any
) -> dict[str, Any]:
    return {
        "type": "http",
        "method": method,
        "http_version": "1.1",
        "scheme": "http",
        "headers": list(headers),
        "client": ("192.0.2.7", 4711),
        "server": ("127.0.0.1", 8080),
    } | other


def pieces(*parts: bytes) -> list[Message]:
    """Return a request body as ASGI messages."""
    return [
        {"type": "http.request", "body": part, "more_body": number < len(parts) - 1}
        for number, part in enumerate(parts)
    ]


async def ask(
    pool: UpstreamPool, scope: dict[str, Any] | None = None, client: Client | None = None, **options: Any
) -> Client:
    """Relay one request and return what the server was told."""
    client = client if client is not None else Client(pieces(b""))
    target = options.pop("target", b"/")
    async with asyncio.timeout(DEADLINE_S):
        await pool.forward(scope or scope_of(), client.receive, client.send, target, **options)
    return client


async def until(condition: Callable[[], object]) -> None:
    """Wait for something that another task or the kernel brings about."""
    async with asyncio.timeout(DEADLINE_S):
        while not condition():
            await asyncio.sleep(0.002)
