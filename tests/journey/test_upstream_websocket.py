"""WebSockets through the relay under a real granian: a real client in front, real and raw upstreams behind."""

from __future__ import annotations

import contextlib
import socket
import struct
import threading
from collections.abc import Iterator
from typing import Any

import pytest
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.frames import Frame, Opcode
from websockets.protocol import State
from websockets.server import ServerProtocol
from websockets.sync.client import ClientConnection, connect

from tests.journey.raw_upstream import Request, Talk, raw_upstream, saying
from tests.journey.relay_door import DEADLINE_S, Door, relay_door, until
from tests.real.http import Connection

pytestmark = pytest.mark.journey

UPGRADE = {
    "Connection": "Upgrade",
    "Upgrade": "websocket",
    "Sec-WebSocket-Version": "13",
    "Sec-WebSocket-Key": "AAAAAAAAAAAAAAAAAAAAAA==",
}
MESSAGE_BYTES_MAX = 100_000  # of the relay's limits


class Socket:
    """An upstream's side of one WebSocket, over a raw connection, so that it can also do wrong."""

    def __init__(self, talk: Talk, request: Request) -> None:
        self.talk = talk
        self.request = request
        self.protocol = ServerProtocol(subprotocols=None, max_size=None, extensions=None)
        self.protocol.receive_data(request.raw)

    def accept(self, *headers: tuple[str, str], also: bytes = b"") -> None:
        (request,) = self.protocol.events_received()
        response = self.protocol.accept(request)  # type: ignore[arg-type]
        for name, value in headers:
            response.headers[name] = value
        self.protocol.send_response(response)
        self.talk.say(b"".join(self.protocol.data_to_send()) + also)

    def flush(self) -> None:
        for data in self.protocol.data_to_send():
            if data:
                self.talk.say(data)

    def read(self) -> Frame | None:
        """Return the next frame, None when the relay closed; pings are answered on the way."""
        while True:
            for event in self.protocol.events_received():
                assert isinstance(event, Frame)
                self.flush()
                if event.opcode not in (Opcode.PING, Opcode.PONG):
                    return event
            self.flush()
            data = self.talk.socket.recv(1 << 16)
            if not data:
                return None
            self.protocol.receive_data(data)


def echo(talk: Talk, request: Request) -> None:
    made = Socket(talk, request)
    made.accept()
    while (frame := made.read()) is not None:
        if frame.opcode is Opcode.TEXT:
            made.protocol.send_text(frame.data)
        elif frame.opcode is Opcode.BINARY:
            made.protocol.send_binary(frame.data)
        else:
            talk.upstream.closes.append(bytes(frame.data))  # type: ignore[attr-defined]
        made.flush()
    talk.upstream.ends.release()
    raise ConnectionError


def choose_subprotocol(talk: Talk, request: Request) -> None:
    made = Socket(talk, request)
    made.accept(("Sec-WebSocket-Protocol", "chat.v2"))
    while made.read() is not None:
        pass


def speak_at_once(talk: Talk, request: Request) -> None:
    """The first frames come with the handshake, one message in three fragments with a ping between them."""
    made = Socket(talk, request)
    made.accept(also=b"\x01\x02he" + b"\x89\x01p" + b"\x00\x01l" + b"\x80\x02lo" + b"\x82\x01b")
    while made.read() is not None:
        pass


def close_with(code: int | None, reason: str = "") -> object:
    def behave(talk: Talk, request: Request) -> None:
        made = Socket(talk, request)
        made.accept()
        made.protocol.send_close(code, reason)
        made.flush()
        while made.read() is not None:
            pass
        raise ConnectionError

    return behave


def say_frames(frames: bytes, close: bool = False) -> object:
    def behave(talk: Talk, request: Request) -> None:
        made = Socket(talk, request)
        made.accept(also=frames)
        if not close:
            talk.wait_for_the_end()
        raise ConnectionError

    return behave


def answer_no_ping(talk: Talk, request: Request) -> None:
    Socket(talk, request).accept()
    talk.wait_for_the_end()
    raise ConnectionError


def flood(talk: Talk, request: Request) -> None:
    """Send for as long as somebody takes it; `sent` counts."""
    made = Socket(talk, request)
    made.accept()
    frame = b"\x82\x7e" + struct.pack("!H", 60_000) + b"x" * 60_000
    talk.socket.settimeout(3)
    for _ in range(2000):
        talk.say(frame)
        talk.upstream.sent += len(frame)  # type: ignore[attr-defined]


def take_nothing(talk: Talk, request: Request) -> None:
    Socket(talk, request).accept()
    talk.upstream.gate.wait(DEADLINE_S)
    talk.wait_for_the_end()
    raise ConnectionError


def hang(talk: Talk, request: Request) -> None:
    talk.wait_for_the_end()
    raise ConnectionError


BEHAVIOURS = {
    "/echo": echo,
    "/subprotocol": choose_subprotocol,
    "/at-once": speak_at_once,
    "/close/1000": close_with(1000, "done"),
    "/close/4321": close_with(4321, "ours"),
    "/close/none": close_with(None),
    "/die": say_frames(b"\x81\x02hi", close=True),
    "/bad/utf8": say_frames(b"\x81\x02\xff\xff"),
    "/bad/opcode": say_frames(b"\x83\x00"),
    "/bad/reserved": say_frames(b"\xc1\x00"),
    "/bad/masked": say_frames(b"\x81\x81\x00\x00\x00\x00a"),
    "/bad/continuation": say_frames(b"\x80\x00"),
    "/big/at": say_frames(b"\x82\x7f" + struct.pack("!Q", MESSAGE_BYTES_MAX) + b"x" * MESSAGE_BYTES_MAX),
    "/big/over": say_frames(b"\x82\x7f" + struct.pack("!Q", MESSAGE_BYTES_MAX + 1)),
    "/no-pong": answer_no_ping,
    "/flood": flood,
    "/take-nothing": take_nothing,
    "/hang": hang,
    "/refuse": saying(b"HTTP/1.1 418 Tea\r\nX-Why: pot\r\nContent-Length: 5\r\n\r\nshort"),
    "/redirect": saying(b"HTTP/1.1 302 Go\r\nLocation: /login\r\nContent-Length: 0\r\n\r\n"),
    "/bad/accept": saying(
        b"HTTP/1.1 101 Up\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: x\r\n\r\n"
    ),
    "/bad/no-http": saying(b"SSH-2.0-x\r\n"),
    "/bad/gone": saying(b""),
}


@pytest.fixture(scope="module")
def door(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Door]:
    with raw_upstream(BEHAVIOURS) as upstream:  # type: ignore[arg-type]
        upstream.closes = []  # type: ignore[attr-defined]
        upstream.sent = 0  # type: ignore[attr-defined]
        with relay_door(tmp_path_factory.mktemp("relay"), upstream) as started:
            yield started


@contextlib.contextmanager
def client(door: Door, path: str, **options: Any) -> Iterator[ClientConnection]:
    url = f"ws://127.0.0.1:{door.port}{path}"
    with connect(url, open_timeout=DEADLINE_S, close_timeout=DEADLINE_S, **options) as connection:
        yield connection


def close_of(connection: ClientConnection) -> tuple[int, str]:
    """Read until the other side closes; return its code and reason."""
    with pytest.raises(ConnectionClosed) as caught:
        while True:
            connection.recv(DEADLINE_S)
    received = caught.value.rcvd
    return (received.code, received.reason) if received is not None else (1006, "")


# -- what goes right --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [0, 1, 125, 126, 65_535, 65_536, MESSAGE_BYTES_MAX])
def test_messages_pass_both_ways_in_their_kind(door: Door, size: int) -> None:
    with client(door, "/echo", max_size=None) as connection:
        for message in ("é" * (size // 2), b"x" * size, "last"):
            connection.send(message)
            assert connection.recv(DEADLINE_S) == message


def test_the_handshake_is_ours_with_identity_and_without_extensions(door: Door) -> None:
    headers = {"X-Auth-Subject": "root", "X_Auth_Subject": "root", "Cookie": "c=1", "Sec-WebSocket-Extensions": "evil"}
    with client(door, "/echo?", additional_headers=headers, origin="https://app.test") as connection:
        connection.send("x")
        connection.recv(DEADLINE_S)
    request = door.upstream.requests[-1]
    assert request.method == "GET"
    assert request.all("x-auth-subject") == ["alice"]
    assert request.all("x_auth_subject") == []
    assert request.all("cookie") == ["c=1"]
    assert request.all("origin") == ["https://app.test"]
    assert request.all("sec-websocket-extensions") == []
    assert request.all("sec-websocket-version") == ["13"]
    assert request.all("x-forwarded-proto") == ["http"]
    assert len(request.all("sec-websocket-key")) == len(request.all("host")) == 1


def test_the_upstream_chooses_among_the_clients_subprotocols(door: Door) -> None:
    with client(door, "/subprotocol", subprotocols=["chat.v1", "chat.v2"]) as connection:
        assert connection.subprotocol == "chat.v2"
    assert door.upstream.requests[-1].all("sec-websocket-protocol") == ["chat.v1, chat.v2"]


def test_an_upstream_that_chooses_what_nobody_offered_is_a_502(door: Door) -> None:
    with pytest.raises(InvalidStatus) as caught, client(door, "/subprotocol"):
        pass
    assert caught.value.response.status_code == 502


def test_fragments_are_joined_and_frames_behind_the_handshake_are_kept(door: Door) -> None:
    with client(door, "/at-once") as connection:
        assert connection.recv(DEADLINE_S) == "hello"
        assert connection.recv(DEADLINE_S) == b"b"


@pytest.mark.parametrize(
    ("path", "code", "reason"),
    [("/close/1000", 1000, "done"), ("/close/4321", 4321, "ours"), ("/close/none", 1000, "")],
)
def test_the_upstreams_close_reaches_the_client(door: Door, path: str, code: int, reason: str) -> None:
    with client(door, path) as connection:
        assert close_of(connection) == (code, reason)


@pytest.mark.parametrize(("code", "wanted"), [(1000, 1000), (1001, 1001), (4999, 4999), (3000, 3000)])
def test_the_clients_close_reaches_the_upstream(door: Door, code: int, wanted: int) -> None:
    door.upstream.closes.clear()  # type: ignore[attr-defined]
    with client(door, "/echo") as connection:
        connection.close(code)
    assert door.upstream.ends.acquire(timeout=DEADLINE_S)
    assert [struct.unpack("!H", data[:2])[0] for data in door.upstream.closes] == [wanted]  # type: ignore[attr-defined]


def test_a_client_that_vanishes_frees_the_upstream(door: Door) -> None:
    with client(door, "/echo") as connection:
        connection.send("x")
        connection.recv(DEADLINE_S)
        connection.socket.shutdown(socket.SHUT_RDWR)
    assert door.upstream.ends.acquire(timeout=DEADLINE_S)
    until(lambda: door.told()["stats"]["streams"] == 0, "a stream is left open")


def test_pings_of_the_client_are_answered_and_ours_keep_the_upstream_alive(door: Door) -> None:
    with client(door, "/echo") as connection:
        assert connection.ping().wait(DEADLINE_S)
        threading.Event().wait(1.5)  # several ping intervals of the relay, and more than its ping timeout
        connection.send("still there")
        assert connection.recv(DEADLINE_S) == "still there"


# -- what goes wrong --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("path", "status", "header", "body"),
    [("/refuse", 418, ("x-why", "pot"), b"short"), ("/redirect", 302, ("location", "/login"), b"")],
)
def test_an_upstream_that_refuses_is_quoted(
    door: Door, path: str, status: int, header: tuple[str, str], body: bytes
) -> None:
    with Connection(door.port) as connection:
        answer = connection.request("GET", path, UPGRADE)
        assert (answer.status, answer.all(header[0]), answer.body) == (status, [header[1]], body)


@pytest.mark.parametrize(
    ("path", "status"), [("/bad/accept", 502), ("/bad/no-http", 502), ("/bad/gone", 502), ("/hang", 504)]
)
def test_a_handshake_that_fails_is_refused_with_its_fault(door: Door, path: str, status: int) -> None:
    with pytest.raises(InvalidStatus) as caught, client(door, path, proxy=None):
        pass
    assert caught.value.response.status_code == status
    until(lambda: door.told()["stats"]["streams"] == 0, "a stream is left open")


def test_an_upstream_that_dies_is_a_1014_after_what_it_said(door: Door) -> None:
    with client(door, "/die") as connection:
        assert connection.recv(DEADLINE_S) == "hi"
        assert close_of(connection)[0] == 1014


@pytest.mark.parametrize("path", ["/bad/utf8", "/bad/opcode", "/bad/reserved", "/bad/masked", "/bad/continuation"])
def test_an_upstream_that_breaks_the_protocol_is_a_1014(door: Door, path: str) -> None:
    with client(door, path) as connection:
        assert close_of(connection)[0] == 1014
    assert door.upstream.ends.acquire(timeout=DEADLINE_S)


def test_message_bytes_max_holds_from_the_upstream(door: Door) -> None:
    with client(door, "/big/at", max_size=None) as connection:
        assert len(connection.recv(DEADLINE_S)) == MESSAGE_BYTES_MAX
    with client(door, "/big/over", max_size=None) as connection:
        assert close_of(connection)[0] == 1009


def test_message_bytes_max_holds_from_the_client(door: Door) -> None:
    with client(door, "/echo") as connection:
        connection.send(b"x" * (MESSAGE_BYTES_MAX + 1))
        assert close_of(connection)[0] == 1009


def test_an_upstream_that_answers_no_ping_is_cut(door: Door) -> None:
    with client(door, "/no-pong") as connection:
        assert close_of(connection)[0] == 1011
    assert door.upstream.ends.acquire(timeout=DEADLINE_S)


def test_a_slow_client_stops_the_upstream_in_bounded_memory(door: Door) -> None:
    before = door.memory_bytes()
    with client(door, "/flood", max_size=None, max_queue=1) as connection:
        sent = -1
        while sent != door.upstream.sent:  # type: ignore[attr-defined]
            sent = door.upstream.sent  # type: ignore[attr-defined]
            threading.Event().wait(0.3)
        assert sent < 60_000 * 1000
        assert door.memory_bytes() - before < 16 * 1024 * 1024
        connection.socket.shutdown(socket.SHUT_RDWR)
    until(lambda: door.told()["stats"]["streams"] == 0, "a stream is left open")


def test_a_slow_upstream_stops_the_client(door: Door) -> None:
    door.upstream.gate.clear()
    with client(door, "/take-nothing", ping_interval=None) as connection:
        connection.socket.settimeout(0.5)
        sent = 0
        with pytest.raises((TimeoutError, ConnectionClosed, BlockingIOError)):
            while sent < 64 * 1024 * 1024:
                connection.send(b"x" * 50_000)
                sent += 50_000
        assert sent < 32 * 1024 * 1024
        door.upstream.gate.set()
        connection.protocol.state = State.CLOSED
        connection.socket.close()
    until(lambda: door.told()["stats"]["streams"] == 0, "a stream is left open")


def test_a_gateway_that_stops_says_so_to_both_sides(door: Door) -> None:
    """Last: the relay does not go on after it."""
    door.upstream.closes.clear()  # type: ignore[attr-defined]
    with client(door, "/echo") as connection:
        connection.send("x")
        connection.recv(DEADLINE_S)
        door.get("/-/stop")
        assert close_of(connection)[0] == 1001
    assert door.upstream.ends.acquire(timeout=DEADLINE_S)
    assert [struct.unpack("!H", data[:2])[0] for data in door.upstream.closes] == [1001]  # type: ignore[attr-defined]
