"""An app behind the gateway that notes every byte it gets and misbehaves exactly as a test says."""

from __future__ import annotations

import contextlib
import json
import socket
import struct
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

from tests.real.process import wait_until

OK = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok"


@dataclass(frozen=True, slots=True)
class Request:
    """One request as it stood on the wire; header names and values as they came."""

    head: bytes
    method: str
    target: str
    headers: tuple[tuple[str, str], ...]
    body: bytes
    wire_body: bytes  # with its chunks
    connection: int  # number of the connection that it came on

    def all(self, name: str) -> list[str]:
        """Give a header's values, whatever its case and whether it is written with `-` or `_`."""
        return [value for key, value in self.headers if key.lower().replace("_", "-") == name]

    def one(self, name: str) -> str:
        values = self.all(name)
        assert len(values) == 1, f"{name}: {values}"
        return values[0]


class Talk:
    """One connection, from the app's side."""

    def __init__(self, link: socket.socket, number: int) -> None:
        self.link = link
        self.number = number
        self.begun = False  # bytes of a request came
        self._rest = b""

    def send(self, data: bytes) -> None:
        self.link.sendall(data)

    def reset(self) -> None:
        """End with RST instead of FIN."""
        self.link.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.link.close()

    def wait_for_end(self) -> None:
        """Return when the gateway has closed its side."""
        with contextlib.suppress(OSError):
            while self.link.recv(65536):
                pass

    def more(self) -> None:
        piece = self.link.recv(65536)
        if not piece:
            raise ConnectionError("the gateway closed the connection")
        self.begun = True
        self._rest += piece

    def line(self, mark: bytes = b"\r\n") -> bytes:
        while mark not in self._rest:
            self.more()
        line, _, self._rest = self._rest.partition(mark)
        return line

    def exactly(self, count: int) -> bytes:
        while len(self._rest) < count:
            self.more()
        data, self._rest = self._rest[:count], self._rest[count:]
        return data

    def body_of(self, headers: tuple[tuple[str, str], ...]) -> tuple[bytes, bytes]:
        """Read a body by the headers' framing: (content, as on the wire). Fails for framing that has two readings."""
        named = [(name.lower(), value) for name, value in headers]
        lengths = [value for name, value in named if name == "content-length"]
        codings = [value for name, value in named if name == "transfer-encoding"]
        assert len(lengths) + len(codings) <= 1, f"ambiguous framing: {headers}"
        if lengths:
            body = self.exactly(int(lengths[0]))
            return body, body
        if not codings:
            return b"", b""
        assert codings == ["chunked"]
        body = wire = b""
        while True:
            size = self.line()
            data = self.exactly(int(size, 16))
            assert self.line() == b""
            wire += size + b"\r\n" + data + b"\r\n"
            body += data
            if not data:
                return body, wire

    def request(self) -> Request:
        """Read one request with its body."""
        head = self.line(b"\r\n\r\n") + b"\r\n\r\n"
        first, *lines = head[:-4].decode("latin-1").split("\r\n")
        method, target, version = first.split(" ")
        assert version == "HTTP/1.1"
        headers = tuple((name, value.strip()) for name, _, value in (line.partition(":") for line in lines))
        if any(name.lower() == "expect" for name, _ in headers):
            self.send(b"HTTP/1.1 100 Continue\r\n\r\n")
        body, wire = self.body_of(headers)
        return Request(head, method, target, headers, body, wire, self.number)


Act = Callable[[Talk, Request], None]


def respond(talk: Talk, status: int, body: bytes, *lines: str) -> None:
    """Send a response with a length."""
    head = "".join(f"{line}\r\n" for line in (f"HTTP/1.1 {status} Status", f"content-length: {len(body)}", *lines))
    talk.send(head.encode() + b"\r\n" + body)


def echo(talk: Talk, request: Request) -> None:
    """Answer with what came."""
    seen: dict[str, Any] = {"method": request.method, "target": request.target, "body": request.body.decode("latin-1")}
    respond(talk, 200, json.dumps(seen).encode(), "content-type: application/json")


@dataclass
class Recorder:
    """Listens on a loopback port; `acts` says by path what to do with a request that was read, else it is echoed."""

    acts: dict[str, Act] = field(default_factory=dict)
    raw: Callable[[Talk], None] | None = None  # instead of reading requests
    requests: list[Request] = field(default_factory=list)
    faults: list[BaseException] = field(default_factory=list)  # what the tests must not overlook
    connections: int = 0
    open: int = 0

    def __post_init__(self) -> None:
        self._lock = threading.Lock()
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=512)
        self._links: set[socket.socket] = set()
        self.port: int = self._listener.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def take(self) -> list[Request]:
        """Give the requests that came since the last time, and forget them. Fails when one was not readable."""
        assert self.faults == []
        with self._lock:
            taken, self.requests = self.requests, []
        return taken

    def only(self) -> Request:
        """Give the single request that came."""
        taken = self.take()
        assert len(taken) == 1, taken
        return taken[0]

    def wait_for_requests(self, count: int) -> None:
        wait_until(lambda: len(self.requests) >= count, f"{count} requests at the upstream")

    def wait_until_idle(self, connections: int) -> None:
        """Wait until no more than `connections` are open."""
        wait_until(lambda: self.open <= connections, f"at most {connections} upstream connections")

    def close(self) -> None:
        """Stop listening and cut every connection."""
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for link in list(self._links):
            with contextlib.suppress(OSError):
                link.shutdown(socket.SHUT_RDWR)

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                link, _ = self._listener.accept()
                link.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                with self._lock:
                    self.connections += 1
                    self.open += 1
                    talk = Talk(link, self.connections)
                    self._links.add(link)
                threading.Thread(target=self._serve, args=(talk,), daemon=True).start()

    def _serve(self, talk: Talk) -> None:
        try:
            if self.raw is not None:
                self.raw(talk)
                return
            while True:
                talk.begun = False
                request = talk.request()
                with self._lock:
                    self.requests.append(request)
                self.acts.get(request.target.partition("?")[0], echo)(talk, request)
        except OSError:
            pass  # the gateway, or a fault that is being played, ended the connection
        except Exception as error:  # what is not HTTP as we know it: the test must hear of it
            self.faults.append(error)
        finally:
            with self._lock:
                self.open -= 1
                self._links.discard(talk.link)
            talk.link.close()


@contextlib.contextmanager
def recorder() -> Iterator[Recorder]:
    """Run a recording app for the time of a test."""
    running = Recorder()
    try:
        yield running
    finally:
        running.close()
