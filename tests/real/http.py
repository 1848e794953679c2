"""A raw HTTP/1.1 client for tests: sends exactly the bytes it is given and shows exactly what came back."""

from __future__ import annotations

import json
import socket
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

Pairs = Iterable[tuple[str, str]]


@dataclass(frozen=True, slots=True)
class Answer:
    """One response; header names in lower case."""

    status: int
    headers: tuple[tuple[str, str], ...]
    body: bytes

    def all(self, name: str) -> list[str]:
        return [value for key, value in self.headers if key == name]

    def one(self, name: str) -> str:
        values = self.all(name)
        assert len(values) == 1, f"{name}: {values}"
        return values[0]

    @property
    def json(self) -> Any:
        return json.loads(self.body)


class Connection:
    """One connection, kept open between requests."""

    def __init__(self, port: int, timeout_s: float = 10.0) -> None:
        self.socket = socket.create_connection(("127.0.0.1", port), timeout=timeout_s)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._rest = b""

    def __enter__(self) -> Connection:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        self.socket.close()

    def send(self, data: bytes) -> None:
        self.socket.sendall(data)

    def _more(self) -> None:
        piece = self.socket.recv(65536)
        if not piece:
            raise ConnectionError(f"closed after {self._rest[:200]!r}")
        self._rest += piece

    def read_head(self) -> tuple[int, tuple[tuple[str, str], ...]]:
        while b"\r\n\r\n" not in self._rest:
            self._more()
        head, _, self._rest = self._rest.partition(b"\r\n\r\n")
        first, *lines = head.decode("latin-1").split("\r\n")
        pairs = tuple((name.lower(), value.strip()) for name, _, value in (line.partition(":") for line in lines))
        return int(first.split(" ")[1]), pairs

    def read_exactly(self, count: int) -> bytes:
        while len(self._rest) < count:
            self._more()
        data, self._rest = self._rest[:count], self._rest[count:]
        return data

    def read_line(self) -> bytes:
        while b"\r\n" not in self._rest:
            self._more()
        line, _, self._rest = self._rest.partition(b"\r\n")
        return line

    def read_chunk(self) -> bytes:
        """Read one chunk of a chunked body; b"" at its end."""
        size = int(self.read_line().split(b";")[0], 16)
        data = self.read_exactly(size)
        while size == 0 and self.read_line():
            pass
        if size:
            assert self.read_line() == b""
        return data

    def read_to_end(self) -> bytes:
        try:
            while True:
                self._more()
        except ConnectionError:
            data, self._rest = self._rest, b""
            return data

    def read_answer(self, method: str = "GET") -> Answer:
        status, pairs = self.read_head()
        headers = dict(pairs)
        body = b""
        if method == "HEAD" or status in {204, 304}:
            pass
        elif headers.get("transfer-encoding") == "chunked":
            while chunk := self.read_chunk():
                body += chunk
        elif "content-length" in headers:
            body = self.read_exactly(int(headers["content-length"]))
        else:
            body = self.read_to_end()
        return Answer(status, pairs, body)

    def request(
        self,
        method: str,
        target: str,
        headers: Pairs | Mapping[str, str] = (),
        body: bytes = b"",
        host: str = "app.test",
    ) -> Answer:
        self.send(request_bytes(method, target, headers, body, host))
        return self.read_answer(method)


def request_bytes(
    method: str, target: str, headers: Pairs | Mapping[str, str] = (), body: bytes = b"", host: str = "app.test"
) -> bytes:
    """Write a request; `host` "" leaves the Host header out."""
    pairs = headers.items() if isinstance(headers, Mapping) else headers
    lines = [f"{method} {target} HTTP/1.1"]
    if host:
        lines.append(f"Host: {host}")
    lines += [f"{name}: {value}" for name, value in pairs]
    if body:
        lines.append(f"Content-Length: {len(body)}")
    return "\r\n".join(lines).encode("latin-1") + b"\r\n\r\n" + body


def ask(
    port: int,
    method: str,
    target: str,
    headers: Pairs | Mapping[str, str] = (),
    body: bytes = b"",
    host: str = "app.test",
) -> Answer:
    """Make one request on a connection of its own."""
    with Connection(port) as connection:
        return connection.request(method, target, headers, body, host)
