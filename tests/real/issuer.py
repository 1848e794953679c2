"""An identity provider of our own on loopback: honest by default, and able to misbehave in every way we know of."""

from __future__ import annotations

import asyncio
import base64
import json
import ssl
import struct
import zlib
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from functools import cache
from types import TracebackType
from typing import Literal, Self
from urllib.parse import parse_qs, unquote_plus

Mode = Literal[
    "ok",
    "hang",  # takes the request and says nothing
    "drip",  # sends its body one byte at a time, for ever
    "drip_head",  # the same before the head is complete
    "huge",  # a body without an end
    "bomb",  # a gzip body that grows a thousandfold
    "gzip",  # a fair gzip body that nobody asked for
    "brotli",  # claims an encoding that cannot be bounded
    "reset",  # RST instead of an answer
    "cut",  # closes in the middle of the body
    "garbage",  # not HTTP
    "500",
    "404",
    "bad_json",
    "not_object",
    "redirect_away",  # to another host
    "redirect_here",  # once, to itself
    "redirect_loop",
]


class RealIssuer:
    """Serve discovery, a key set and introspection. Use as `async with`; `fetches` counts requests by path."""

    def __init__(self, keys: list[dict[str, object]] | None = None, *, tls: ssl.SSLContext | None = None) -> None:
        self.keys = keys or []
        self.mode: Mode = "ok"
        self.modes: dict[str, Mode] = {}  # by path, before `mode`
        self.fetches: Counter[str] = Counter()
        self.issuer = ""
        self.metadata: dict[str, object] = {}  # merged over the honest metadata
        self.introspect: Callable[[str], dict[str, object]] = lambda token: {"active": False}
        self.forms: list[dict[str, str]] = []
        self.credentials: list[tuple[str, str]] = []
        self.accepts_credentials: Callable[[str, str], bool] = lambda name, password: True
        self.gate: asyncio.Event | None = None  # when set to an event, answers wait for it
        self.headers: list[dict[str, str]] = []
        self._tls = tls
        self._server: asyncio.Server | None = None
        self._tasks: set[asyncio.Task[None]] = set()

    @property
    def port(self) -> int:
        assert self._server is not None
        port: int = self._server.sockets[0].getsockname()[1]
        return port

    @property
    def jwks_uri(self) -> str:
        return f"{self.issuer}/jwks"

    @property
    def total(self) -> int:
        return sum(self.fetches.values())

    async def __aenter__(self) -> Self:
        _bomb()
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0, ssl=self._tls)
        self.issuer = f"http{'s' if self._tls else ''}://127.0.0.1:{self.port}"
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.stop()

    async def stop(self) -> None:
        """Close the listener and cut every connection, so that the next request is refused."""
        if self._server is None:
            return
        self._server.close()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._server.wait_closed()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        try:
            with suppress(OSError, asyncio.IncompleteReadError):
                while await self._answer(reader, writer):
                    pass
        except asyncio.CancelledError:
            writer.transport.abort()
        finally:
            self._tasks.discard(task)
            writer.close()

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
        request_line, *lines = head.rstrip().split("\r\n")
        _, target, _ = request_line.split(" ")
        path = target.partition("?")[0]
        headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
        body = await reader.readexactly(int(headers.get("content-length", "0")))
        self.fetches[path] += 1
        self.headers.append(headers)
        if self.gate is not None:
            await self.gate.wait()
        return await self._act(self.modes.get(path, self.mode), path, headers, body, writer)

    async def _act(
        self, mode: Mode, path: str, headers: dict[str, str], body: bytes, writer: asyncio.StreamWriter
    ) -> bool:
        match mode:
            case "hang":
                await asyncio.Event().wait()
            case "drip" | "drip_head":
                writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 100000\r\n")
                writer.write(b"\r\n" if mode == "drip" else b"x-slow: ")
                while True:
                    writer.write(b" " if mode == "drip" else b"x")
                    await writer.drain()
                    await asyncio.sleep(0.02)
            case "huge":
                writer.write(b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\n\r\n")
                while True:
                    writer.write(b" " * 65536)
                    await writer.drain()
            case "reset":
                sock = writer.get_extra_info("socket")
                sock.setsockopt(1, 13, struct.pack("ii", 1, 0))  # SOL_SOCKET, SO_LINGER: close sends RST
                writer.transport.abort()
            case "cut":
                writer.write(b'HTTP/1.1 200 OK\r\ncontent-length: 1000\r\n\r\n{"keys": [')
            case "garbage":
                writer.write(b"SSH-2.0-OpenSSH_9.2\r\n\r\n")
            case "500" | "404":
                await _send(writer, int(mode), b'{"error": "server_error"}')
                return True
            case "bad_json":
                await _send(writer, 200, b'{"keys": [')
            case "not_object":
                await _send(writer, 200, b'[{"keys": []}]')
            case "redirect_away":
                await _send(writer, 302, b"", location=f"http://127.0.0.2:{self.port}{path}")
            case "redirect_loop":
                await _send(writer, 302, b"", location=path)
                return True
            case "redirect_here" if not path.endswith("/"):
                await _send(writer, 308, b"", location=f"{path}/")
                return True
            case "bomb":
                await _send(writer, 200, _bomb(), content_encoding="gzip")
            case "brotli":
                await _send(writer, 200, b"\x0b\x02\x80{}\x03", content_encoding="br")
            case _:
                return await self._honest(mode, path.rstrip("/"), headers, body, writer)
        return False

    async def _honest(
        self, mode: Mode, path: str, headers: dict[str, str], body: bytes, writer: asyncio.StreamWriter
    ) -> bool:
        status, document = self._document(path, headers, body)
        answer = json.dumps(document).encode()
        if mode == "gzip":
            deflated = zlib.compressobj(wbits=31)
            await _send(writer, status, deflated.compress(answer) + deflated.flush(), content_encoding="gzip")
        else:
            await _send(writer, status, answer)
        return True

    def _document(self, path: str, headers: dict[str, str], body: bytes) -> tuple[int, object]:
        if path.endswith("/jwks"):
            return 200, {"keys": self.keys}
        if "/.well-known/" in path:
            return 200, {"issuer": self.issuer, "jwks_uri": self.jwks_uri} | self.metadata
        if path == "/introspect":
            scheme, _, encoded = headers.get("authorization", "").partition(" ")
            name, _, password = base64.b64decode(encoded).decode().partition(":") if scheme == "Basic" else ("",) * 3
            name, password = unquote_plus(name), unquote_plus(password)
            self.credentials.append((name, password))
            if not self.accepts_credentials(name, password):
                return 401, {"error": "invalid_client"}
            form = {key: values[0] for key, values in parse_qs(body.decode()).items()}
            self.forms.append(form)
            return 200, self.introspect(form.get("token", ""))
        return 404, {}


@cache
def _bomb() -> bytes:
    """64 MB of blanks in 62 kB of gzip, made before anybody counts the time."""
    deflated = zlib.compressobj(9, wbits=31)
    return deflated.compress(b" " * 64_000_000) + deflated.flush()


async def _send(writer: asyncio.StreamWriter, status: int, body: bytes, **headers: str) -> None:
    lines = "".join(f"{name.replace('_', '-')}: {value}\r\n" for name, value in headers.items())
    head = f"HTTP/1.1 {status} Status\r\ncontent-type: application/json\r\ncontent-length: {len(body)}\r\n{lines}\r\n"
    writer.write(head.encode() + body)
    await writer.drain()
