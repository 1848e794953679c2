"""An identity provider that is good, or misbehaves; a process of its own, so that its work is not the load's."""

from __future__ import annotations

import asyncio
import contextlib
import json
import multiprocessing
import re
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from multiprocessing.connection import Connection
from socket import SO_LINGER, SOL_SOCKET
from typing import Final, Literal, get_args

from bench.process import free_port

Mode = Literal["hangs", "drips", "sends 1 GB", "resets"]
MODES: Final[tuple[Mode, ...]] = get_args(Mode)
_CHUNK: Final = b" " * 65_536
_GB: Final = 1 << 30
_DRIP_S: Final = 0.05


@dataclass(frozen=True, slots=True)
class Provider:
    """Where it is, and how it is told what to do."""

    issuer: str
    _pipe: Connection

    def behave(self, mode: Mode | Literal["is good"]) -> None:
        """Have it be so from now on."""
        self._pipe.send(mode)
        self._pipe.recv()


@contextlib.contextmanager
def provider() -> Iterator[Provider]:
    """Run one, good at first."""
    port = free_port()
    ours, theirs = multiprocessing.Pipe()
    process = multiprocessing.get_context("spawn").Process(target=_serve, args=(port, theirs), daemon=True)
    process.start()
    try:
        ours.recv()
        yield Provider(f"http://127.0.0.1:{port}", ours)
    finally:
        process.kill()
        process.join()


def _serve(port: int, pipe: Connection) -> None:
    asyncio.run(_Server(port, pipe).run())


class _Server:
    def __init__(self, port: int, pipe: Connection) -> None:
        self._issuer = f"http://127.0.0.1:{port}"
        self._port = port
        self._pipe = pipe
        self._mode: str = "is good"
        self._pushed = 0

    async def run(self) -> None:
        server = await asyncio.start_server(self._answer, "127.0.0.1", self._port)
        asyncio.get_running_loop().add_reader(self._pipe.fileno(), self._told)
        self._pipe.send("ready")
        await server.serve_forever()

    def _told(self) -> None:
        self._mode = self._pipe.recv()
        self._pipe.send("done")

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError, asyncio.IncompleteReadError):
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                length = re.search(rb"content-length: *(\d+)", head, re.IGNORECASE)
                await reader.readexactly(int(length[1]) if length else 0)
                await self._one(head, writer)
        writer.close()

    async def _one(self, head: bytes, writer: asyncio.StreamWriter) -> None:
        if self._mode == "hangs":
            await asyncio.sleep(3600)
        elif self._mode == "resets":
            writer.get_extra_info("socket").setsockopt(SOL_SOCKET, SO_LINGER, struct.pack("ii", 1, 0))
            writer.transport.abort()
            raise OSError
        elif self._mode == "drips":
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 100000\r\n\r\n")
            for _ in range(100_000):
                writer.write(b" ")
                await writer.drain()
                await asyncio.sleep(_DRIP_S)
        elif self._mode == "sends 1 GB":
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n" % _GB)
            for _ in range(_GB // len(_CHUNK)):
                writer.write(_CHUNK)
                await writer.drain()
        else:
            status, document = self._good(head.partition(b"\r\n")[0])
            body = json.dumps(document).encode()
            writer.write(b"HTTP/1.1 %s\r\nContent-Type: application/json\r\n" % status)
            writer.write(b"Content-Length: %d\r\n\r\n" % len(body) + body)
            await writer.drain()

    def _good(self, request_line: bytes) -> tuple[bytes, dict[str, object]]:
        if b" /par " in request_line:
            self._pushed += 1
            return b"201 Created", {"request_uri": f"urn:bench:{self._pushed}", "expires_in": 60}
        return b"200 OK", {"keys": []} if b" /keys " in request_line else self._metadata()

    def _metadata(self) -> dict[str, object]:
        return {
            "issuer": self._issuer,
            "authorization_endpoint": f"{self._issuer}/authorize",
            "token_endpoint": f"{self._issuer}/token",
            "pushed_authorization_request_endpoint": f"{self._issuer}/par",
            "jwks_uri": f"{self._issuer}/keys",
            "response_types_supported": ["code"],
            "subject_types_supported": ["public"],
            "id_token_signing_alg_values_supported": ["RS256"],
            "code_challenge_methods_supported": ["S256"],
        }
