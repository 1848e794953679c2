"""The proxy door's relay under a real granian, with upstreams that do right and wrong on raw sockets."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Iterator

import pytest

from tests.journey.raw_upstream import CHUNKED, STREAM, Request, Talk, raw_upstream, saying
from tests.journey.relay_door import DEADLINE_S, Door, relay_door, until
from tests.native.test_upstream import BAD_RESPONSES
from tests.real.http import Connection

pytestmark = pytest.mark.journey

MIB = 1024 * 1024
BIG_BYTES = 48 * MIB


def hang(talk: Talk, request: Request) -> None:
    talk.wait_for_the_end()
    raise ConnectionError


def stop_in_the_body(talk: Talk, request: Request) -> None:
    talk.say(STREAM % 10 + b"hello")
    hang(talk, request)


def stream_big(talk: Talk, request: Request) -> None:
    talk.say(STREAM % BIG_BYTES)
    block = b"x" * MIB
    for _ in range(BIG_BYTES // MIB):
        talk.say(block)


def swallow_slowly(talk: Talk, request: Request) -> None:
    """Read the head, then nothing until the gate opens; answer with the number of body bytes."""
    left = int(request.all("content-length")[0])
    talk.upstream.gate.wait(DEADLINE_S)
    while left > len(talk.rest):
        left -= len(talk.rest)
        talk.rest = b""
        talk.more()
    talk.rest = talk.rest[left:]
    talk.say(STREAM % 8 + b"swallowd")


def send_events(talk: Talk, request: Request) -> None:
    """Server-sent events; each waits until the one before it was seen."""
    talk.say(CHUNKED + b"content-type: text/event-stream\r\n\r\n")
    for number in range(4):
        event = b"data: %d\n\n" % number
        talk.say(b"%x\r\n%b\r\n" % (len(event), event))
        assert talk.upstream.gate.wait(DEADLINE_S)
        talk.upstream.gate.clear()
    talk.say(b"0\r\n\r\n")


def drip(talk: Talk, request: Request) -> None:
    for byte in STREAM % 5 + b"hello":
        talk.say(bytes([byte]))


def answer_early(talk: Talk, request: Request) -> None:
    talk.say(b"HTTP/1.1 401 No\r\ncontent-length: 2\r\n\r\nno")
    hang(talk, request)


def die_idle(talk: Talk, request: Request) -> None:
    talk.say(STREAM % 2 + b"ok")
    raise ConnectionError


BEHAVIOURS = {
    "/chunked": saying(CHUNKED + b"\r\n3\r\nabc\r\n4;x=y\r\ndefg\r\n0\r\nT: 1\r\n\r\n", close=False),
    "/no-length": saying(b"HTTP/1.1 200 OK\r\n\r\nuntil the end"),
    "/old": saying(b"HTTP/1.0 200 OK\r\n\r\nold"),
    "/interim": saying(b"HTTP/1.1 103 Early\r\nlink: x\r\n\r\n" + STREAM % 2 + b"ok", close=False),
    "/nothing": saying(b"HTTP/1.1 204 No\r\n\r\n", close=False),
    "/same": saying(b"HTTP/1.1 304 Same\r\netag: x\r\ncontent-length: 7\r\n\r\n", close=False),
    "/die/length": saying(STREAM % 10 + b"hello"),
    "/die/chunk": saying(CHUNKED + b"\r\n5\r\nhello\r\n"),
    "/die/chunk-data": saying(CHUNKED + b"\r\n9\r\nhello"),
    "/die/chunk-framing": saying(CHUNKED + b"\r\n5\r\nhello!!"),
    "/die/head": saying(b"HTTP/1.1 200 OK\r\ncontent-le"),
    "/die/silent": saying(b""),
    "/die/idle": die_idle,
    "/hang": hang,
    "/stop": stop_in_the_body,
    "/big": stream_big,
    "/early": answer_early,
    "/early/slow": swallow_slowly,
    "/events": send_events,
    "/drip": drip,
    "/odd-headers": saying(STREAM[:-2] % 0 + b"server: me\r\nset-cookie: a\r\nset-cookie: b\r\n\r\n"),
} | {f"/bad/{number}": saying(answer) for number, answer in enumerate(BAD_RESPONSES)}


@pytest.fixture(scope="module")
def door(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Door]:
    with raw_upstream(BEHAVIOURS) as upstream, relay_door(tmp_path_factory.mktemp("relay"), upstream) as started:
        yield started


# -- what goes right --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("bare", ["", "/bare"])
def test_requests_and_responses_pass_whole(door: Door, bare: str) -> None:
    with Connection(door.port) as connection:
        for number in range(5):
            answer = connection.request("GET", f"{bare}/echo?n={number}", {"X-A": "1", "X-Auth-Subject": "root"})
            assert answer.status == 200
            lines = answer.body.decode().split("\r\n")
            assert lines[0] == f"GET {bare}/echo?n={number} HTTP/1.1"
            assert lines[1] == "host: app.test"
            assert "x-a: 1" in lines
            assert [line for line in lines if "auth-subject" in line] == ["x-auth-subject: alice"]
            assert "x-forwarded-for: 127.0.0.1" in lines


def test_a_kept_connection_serves_many(door: Door) -> None:
    before = door.told()["stats"]
    with Connection(door.port) as connection:
        for _ in range(50):
            assert connection.request("GET", "/echo").status == 200
    after = door.told()["stats"]
    assert after["connects"] - before["connects"] <= 1
    assert after["reuses"] - before["reuses"] >= 49


@pytest.mark.parametrize(
    ("path", "status", "body"),
    [
        ("/chunked", 200, b"abcdefg"),
        ("/no-length", 200, b"until the end"),
        ("/old", 200, b"old"),
        ("/interim", 200, b"ok"),
        ("/nothing", 204, b""),
        ("/drip", 200, b"hello"),
    ],
)
@pytest.mark.parametrize("bare", ["", "/bare"])
def test_each_framing_arrives(door: Door, bare: str, path: str, status: int, body: bytes) -> None:
    answer = door.get(bare + path)
    assert (answer.status, answer.body) == (status, body)


def test_not_modified_keeps_its_length_and_has_no_body(door: Door) -> None:
    with Connection(door.port) as connection:
        for _ in range(2):
            answer = connection.request("GET", "/same")
            assert (answer.status, answer.all("etag"), answer.body) == (304, ["x"], b"")


def test_head_has_the_length_of_the_body_that_get_would_have(door: Door) -> None:
    with Connection(door.port) as connection:
        for _ in range(2):
            answer = connection.request("HEAD", "/echo")
            assert answer.status == 200
            assert int(answer.one("content-length")) > 100
        assert connection.request("GET", "/echo").status == 200


def test_headers_of_the_response_are_the_upstreams(door: Door) -> None:
    answer = door.get("/odd-headers")
    assert answer.all("server") == ["me"]
    assert answer.all("set-cookie") == ["a", "b"]


@pytest.mark.parametrize("size", [1, 1000, 300_000])
def test_bodies_pass_with_and_without_a_length(door: Door, size: int) -> None:
    with Connection(door.port) as connection:
        body = os.urandom(size)
        for _ in range(2):
            answer = connection.request("POST", "/echo", body=body)
            assert answer.body.endswith(b"\r\n\r\n%d" % size)
            assert b"content-length: %d\r\n" % size in answer.body
            half = size // 2
            chunks = b"".join(b"%x\r\n%b\r\n" % (len(part), part) for part in (body[:half], body[half:]) if part)
            connection.send(
                b"POST /echo HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n" + chunks + b"0\r\nT: 1\r\n\r\n"
            )
            answer = connection.read_answer()
            assert answer.body.endswith(b"transfer-encoding: chunked\r\n\r\n%d" % size)
    assert door.upstream.requests[-1].body == body


def test_expect_100_continue_reaches_upstream_and_client(door: Door) -> None:
    with Connection(door.port) as connection:
        connection.send(b"POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nExpect: 100-continue\r\n\r\n")
        assert connection.read_head()[0] == 100  # the upstream says nothing: after expect_timeout_s
        connection.send(b"hello")
        answer = connection.read_answer()
        assert answer.body.endswith(b"expect: 100-continue\r\n\r\n5")


def test_an_expectation_that_is_refused_asks_for_no_body(door: Door) -> None:
    with Connection(door.port) as connection:
        connection.send(b"POST /early HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nExpect: 100-continue\r\n\r\n")
        assert connection.read_head()[0] == 401
    assert door.upstream.ends.acquire(timeout=DEADLINE_S)


def test_each_event_arrives_before_the_next_is_made(door: Door) -> None:
    with Connection(door.port) as connection:
        connection.send(b"GET /events HTTP/1.1\r\nHost: a\r\n\r\n")
        status, headers = connection.read_head()
        assert (status, dict(headers)["content-type"]) == (200, "text/event-stream")
        for number in range(4):
            assert connection.read_chunk() == b"data: %d\n\n" % number
            door.upstream.gate.set()
        assert connection.read_chunk() == b""


def test_a_long_response_to_a_slow_client_stays_in_bounded_memory(door: Door) -> None:
    with Connection(door.port) as connection:
        connection.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65536)
        before = door.memory_bytes()
        connection.send(b"GET /big HTTP/1.1\r\nHost: a\r\n\r\n")
        assert connection.read_head()[0] == 200
        time.sleep(0.5)  # the client sleeps, and is meant to
        peak = door.memory_bytes()
        read = len(connection._rest)
        while read < BIG_BYTES:
            read += len(connection.socket.recv(MIB))
            if read % 64 == 0:
                peak = max(peak, door.memory_bytes())
        assert read == BIG_BYTES
        assert max(peak, door.memory_bytes()) - before < 16 * MIB


def test_a_long_request_to_a_slow_upstream_stays_in_bounded_memory(door: Door) -> None:
    door.upstream.gate.clear()
    with Connection(door.port) as connection:
        before = door.memory_bytes()
        connection.send(b"POST /early/slow HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n" % BIG_BYTES)
        connection.socket.setblocking(False)
        block = memoryview(b"x" * MIB)
        sent = 0
        stuck_s = 0.0
        while stuck_s < 0.3:
            try:
                sent += connection.socket.send(block)
                stuck_s = 0.0
            except BlockingIOError:
                time.sleep(0.02)
                stuck_s += 0.02
        assert sent < BIG_BYTES  # the upstream's slowness reached the client
        assert door.memory_bytes() - before < 16 * MIB
        door.upstream.gate.set()
        connection.socket.setblocking(True)
        while sent < BIG_BYTES:
            sent += connection.socket.send(block[: BIG_BYTES - sent])
        assert connection.read_answer().body == b"swallowd"
        assert door.memory_bytes() - before < 16 * MIB


# -- what goes wrong --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("number", range(len(BAD_RESPONSES)))
def test_a_malformed_response_is_a_502(door: Door, number: int) -> None:
    answer = door.get(f"/bad/{number}")
    assert (answer.status, answer.body) == (502, b"protocol")


@pytest.mark.parametrize("path", ["/die/head", "/die/silent", "/die/chunk-framing"])
def test_an_upstream_that_dies_before_it_said_something_useful_is_a_502(door: Door, path: str) -> None:
    assert door.get(path).status == 502


@pytest.mark.parametrize("path", ["/die/length", "/die/chunk", "/die/chunk-data"])
@pytest.mark.parametrize("bare", ["", "/bare"])
def test_an_upstream_that_dies_in_its_body_is_never_completed_for_the_client(door: Door, bare: str, path: str) -> None:
    """A response that was cut must look cut: its length is short, or its last chunk is missing."""
    with Connection(door.port) as connection:
        connection.send(f"GET {bare}{path} HTTP/1.1\r\nHost: a\r\n\r\n".encode())
        _, headers = connection.read_head()
        rest = connection.read_to_end()
        if path == "/die/length":
            assert dict(headers)["content-length"] == "10"
            assert rest in {b"", b"hello"}
        else:
            assert dict(headers)["transfer-encoding"] == "chunked"
            assert not rest.endswith(b"0\r\n\r\n")
    if not bare:
        assert door.faults[-1] == ["protocol", True]


def test_an_upstream_that_dies_idle_is_not_noticed_by_clients(door: Door) -> None:
    with Connection(door.port) as connection:
        for _ in range(20):
            assert connection.request("GET", "/die/idle").body == b"ok"


def test_an_upstream_that_never_answers_is_a_504(door: Door) -> None:
    assert door.get("/hang").status == 504
    assert door.upstream.ends.acquire(timeout=DEADLINE_S)


def test_an_upstream_that_stops_in_its_body_is_cut(door: Door) -> None:
    with Connection(door.port) as connection:
        connection.send(b"GET /stop HTTP/1.1\r\nHost: a\r\n\r\n")
        connection.read_head()
        assert connection.read_to_end() == b"hello"
    assert door.faults[-1] == ["timeout", True]
    assert door.upstream.ends.acquire(timeout=DEADLINE_S)


@pytest.mark.parametrize("path", ["/hang", "/bare/hang"])
def test_a_client_that_goes_away_frees_the_upstream(door: Door, path: str) -> None:
    with Connection(door.port) as connection:
        seen = len(door.upstream.requests)
        connection.send(f"GET {path} HTTP/1.1\r\nHost: a\r\n\r\n".encode())
        until(lambda: len(door.upstream.requests) > seen, "the request did not arrive")
    assert door.upstream.ends.acquire(timeout=DEADLINE_S)
    until(lambda: door.told()["stats"]["active"] == 0, "the connection is still in use")


def test_a_client_that_goes_away_in_its_body_frees_the_upstream(door: Door) -> None:
    connections = door.told()["stats"]["open"]
    with Connection(door.port) as connection:
        connection.send(b"POST /early/slow HTTP/1.1\r\nHost: a\r\nContent-Length: 100\r\n\r\n12345")
        until(lambda: door.told()["stats"]["active"] == 1, "the request did not arrive")
    until(lambda: door.told()["stats"]["active"] == 0, "the connection is still in use")
    assert door.told()["stats"]["open"] <= connections


def test_a_body_that_stops_is_given_up(door: Door) -> None:
    with Connection(door.port) as connection:
        connection.send(b"POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 100\r\n\r\n12345")
        answer = connection.read_answer()
        assert (answer.status, answer.body) == (400, b"body_timeout")


def test_a_body_over_the_limit_is_a_413(door: Door) -> None:
    with Connection(door.port) as connection:
        connection.send(b"POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 100000001\r\n\r\n")
        assert connection.read_answer().status == 413


# -- smuggling --------------------------------------------------------------------------------------------------------

EVIL = b"GET /evil HTTP/1.1\r\nHost: a\r\nX-Auth-Subject: root\r\n\r\n"


def smuggling_corpus() -> dict[str, bytes]:
    """Requests whose end two readers may see at two places; most hide one for /evil in what one takes for a body."""
    corpus: dict[str, bytes] = {}
    start = b"POST /echo HTTP/1.1\r\nHost: a\r\n"
    short = b"0\r\n\r\n" + EVIL
    codings = [b"chunked", b"Chunked", b"xchunked", b" chunked", b"chunked ", b"\x0bchunked", b"chunked, identity"]
    codings += [
        b"identity, chunked",
        b"gzip",
        b"identity",
        b"",
        b"chunked\r\nTransfer-Encoding: identity",
        b"chunked;q=1",
    ]
    for coding in codings:
        for order in (0, 1):
            lines = [b"Content-Length: %d" % len(short), b"Transfer-Encoding: " + coding]
            head = start + b"\r\n".join(lines[::-1] if order else lines)
            corpus[f"cl-te {coding!r} {order}"] = head + b"\r\n\r\n" + short
    lengths = [b"5\r\nContent-Length: 0", b"0\r\nContent-Length: 5", b"5\r\nContent-Length: 5", b"5, 5", b"+5", b"-1"]
    lengths += [b"0x5", b"5 ", b"5\x00", b"5e0", b"", b"18446744073709551616", b"00005", b"5.0"]
    for length in lengths:
        corpus[f"length {length!r}"] = start + b"Content-Length: " + length + b"\r\n\r\n12345" + EVIL
    for spelling in (b"Content_Length: 5", b"Content-Length : 5", b" Content-Length: 5", b"Content-Length\t: 5"):
        corpus[f"spelling {spelling!r}"] = start + spelling + b"\r\n\r\n12345" + EVIL
    chunk_bodies = [
        b"5\nhello\r\n0\r\n\r\n",
        b"5\r\nhello0\r\n\r\n",
        b"-5\r\nhello\r\n0\r\n\r\n",
        b"0x5\r\nhello\r\n0\r\n\r\n",
    ]
    chunk_bodies += [b"5;\nx\r\nhello\r\n0\r\n\r\n", b"5\r\nhello\r\n0\n\n", b"fffffffffffffffff\r\nhello"]
    chunk_bodies += [
        b"5 \r\nhello\r\n0\r\n\r\n",
        b"0\r\nX: y\r\n" + EVIL,
        b"5\r\nhello\r\n0;" + b"x" * 100 + b"\r\n\r\n",
        b"\r\n0\r\n\r\n",
    ]
    for body in chunk_bodies:
        corpus[f"chunks {body[:24]!r}"] = start + b"Transfer-Encoding: chunked\r\n\r\n" + body + EVIL
    odd_lines = [
        b"X: a\nX-B: c",
        b"X: a\rX-B: c",
        b"X: a\r\n X-Auth-Subject: root",
        b"X\x00: a",
        b"X: a\x00b",
        b": a",
        b"X",
    ]
    for line in odd_lines:
        corpus[f"line {line!r}"] = b"GET /echo HTTP/1.1\r\nHost: a\r\n" + line + b"\r\n\r\n"
    for options in (b"X-Auth-Subject", b"Content-Length", b"Transfer-Encoding, X-Auth-Decision-Id", b"Host, close"):
        corpus[f"connection {options!r}"] = start + b"Connection: " + options + b"\r\nContent-Length: 5\r\n\r\nhello"
    corpus["get with a body"] = b"GET /echo HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n" % len(EVIL) + EVIL
    corpus["two hosts"] = b"GET /echo HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n"
    corpus["upgrade to h2c"] = (
        b"GET /echo HTTP/1.1\r\nHost: a\r\nConnection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\n"
        b"HTTP2-Settings: AAA\r\n\r\n" + EVIL
    )
    corpus["pipelined"] = b"GET /echo HTTP/1.1\r\nHost: a\r\n\r\n" * 3
    return corpus


CORPUS = smuggling_corpus()


@pytest.mark.parametrize("name", CORPUS)
def test_the_upstream_sees_exactly_the_requests_that_were_relayed(door: Door, name: str) -> None:
    """Whatever granian makes of the bytes: each request upstream was framed and marked by us, none hides in another."""
    seen = len(door.upstream.requests)
    before = door.told()["stats"]["requests"]
    with Connection(door.port, timeout_s=0.25) as connection:
        connection.send(CORPUS[name])
        try:
            connection.socket.shutdown(socket.SHUT_WR)
            while connection.socket.recv(65536):
                pass
        except (TimeoutError, OSError):
            pass
    told = door.told()
    until(lambda: door.told()["stats"]["active"] == 0, "a request is still running")
    new = door.upstream.requests[seen:]
    assert len(new) <= told["stats"]["requests"] - before
    decisions = [request.all("x-auth-decision-id") for request in new]
    assert all(len(decision) == 1 for decision in decisions)
    assert len({decision[0] for decision in decisions}) == len(new)
    for request in new:
        assert request.all("x-auth-subject") == ["alice"]
        assert len(request.all("content-length")) + len(request.all("transfer-encoding")) <= 1
        assert len(request.all("host")) == 1
        names = [name for name, _ in request.headers]
        assert not {"connection", "upgrade", "http2-settings", "te"} & set(names)
    assert door.get("/echo").status == 200
    assert door.upstream.trouble == []


def test_no_connection_is_left_in_use(door: Door) -> None:
    """Last: after everything above nothing is leaked."""
    until(lambda: door.told()["stats"]["active"] == 0, "a connection is still in use")
    stats = door.told()["stats"]
    assert (stats["waiting"], stats["opening"], stats["open"]) == (0, 0, stats["idle"])
