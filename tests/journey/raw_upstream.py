"""An upstream made of raw sockets and threads, which does right or wrong by the path that it is asked for."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

CHUNKED = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n"
STREAM = b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n"


@dataclass(frozen=True, slots=True)
class Request:
    method: str
    target: str
    headers: tuple[tuple[str, str], ...]
    body: bytes
    raw: bytes

    def all(self, name: str) -> list[str]:
        return [value for found, value in self.headers if found.lower() == name]


class Talk:
    """One connection from the gateway."""

    def __init__(self, upstream: RawUpstream, connection: socket.socket) -> None:
        self.upstream = upstream
        self.socket = connection
        self.rest = b""

    def more(self) -> None:
        piece = self.socket.recv(1 << 16)
        if not piece:
            raise ConnectionError
        self.rest += piece

    def until(self, end: bytes) -> bytes:
        while end not in self.rest:
            self.more()
        data, _, self.rest = self.rest.partition(end)
        return data + end

    def exactly(self, count: int) -> bytes:
        while len(self.rest) < count:
            self.more()
        data, self.rest = self.rest[:count], self.rest[count:]
        return data

    def read(self, with_body: bool = True) -> Request:
        """Read one request, strictly as its framing says."""
        head = self.until(b"\r\n\r\n")
        first, *lines = head[:-4].decode("latin-1").split("\r\n")
        method, target, _ = first.split(" ")
        headers = tuple((line.partition(": ")[0], line.partition(": ")[2]) for line in lines)
        request = Request(method, target, headers, b"", head)
        body = b""
        if with_body and request.all("content-length"):
            body = self.exactly(int(request.all("content-length")[0]))
        elif with_body and request.all("transfer-encoding"):
            while size := int(self.until(b"\r\n"), 16):
                body += self.exactly(size)
                assert self.exactly(2) == b"\r\n"
            assert self.exactly(2) == b"\r\n"
        return Request(method, target, headers, body, head)

    def say(self, data: bytes) -> None:
        self.socket.sendall(data)

    def wait_for_the_end(self) -> None:
        """Block until the gateway closes the connection, then say so."""
        with contextlib.suppress(ConnectionError):
            while True:
                self.more()
        self.upstream.ends.release()


Behaviour = Callable[[Talk, Request], None]


@dataclass
class RawUpstream:
    behaviours: dict[str, Behaviour]
    requests: list[Request] = field(default_factory=list)
    connections: int = 0
    ends: threading.Semaphore = field(default_factory=lambda: threading.Semaphore(0))
    gate: threading.Event = field(default_factory=threading.Event)
    trouble: list[BaseException] = field(default_factory=list)
    listener: socket.socket = field(default_factory=lambda: socket.create_server(("127.0.0.1", 0), backlog=256))

    @property
    def port(self) -> int:
        return int(self.listener.getsockname()[1])

    def run(self) -> None:
        while True:
            try:
                connection, _ = self.listener.accept()
            except OSError:
                return
            self.connections += 1
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            threading.Thread(target=self.serve, args=(connection,), daemon=True).start()

    def serve(self, connection: socket.socket) -> None:
        talk = Talk(self, connection)
        try:
            while True:
                request = talk.read("/early" not in self.peek(talk))
                self.requests.append(request)
                path = request.target.removeprefix("/bare").partition("?")[0]
                self.behaviours.get(path, answer_echo)(talk, request)
        except (ConnectionError, TimeoutError):
            pass
        except Exception as error:  # a test looks at it: an upstream that fails must not look like a gateway that does
            self.trouble.append(error)
        finally:
            connection.close()

    @staticmethod
    def peek(talk: Talk) -> str:
        while b"\r\n" not in talk.rest:
            talk.more()
        return talk.rest.partition(b"\r\n")[0].decode("latin-1")


def answer_echo(talk: Talk, request: Request) -> None:
    """Answer with the request as it came: head, then the length of its body."""
    body = request.raw + b"%d" % len(request.body)
    talk.say(STREAM % len(body) + (b"" if request.method == "HEAD" else body))


def saying(data: bytes, close: bool = True) -> Behaviour:
    def behave(talk: Talk, request: Request) -> None:
        talk.say(data)
        if close:
            raise ConnectionError

    return behave


@contextlib.contextmanager
def raw_upstream(behaviours: dict[str, Behaviour]) -> Iterator[RawUpstream]:
    upstream = RawUpstream(behaviours)
    threading.Thread(target=upstream.run, daemon=True).start()
    try:
        yield upstream
    finally:
        upstream.gate.set()
        upstream.listener.shutdown(socket.SHUT_RDWR)
        upstream.listener.close()
    assert upstream.trouble == []
