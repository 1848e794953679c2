"""An app that is down, late, busy, dying or talking nonsense: what clients get from the whole gateway, and what is
logged and counted."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.real.gateway import Gateway, gateway, issuer_toml
from tests.real.http import Answer, Connection, request_bytes
from tests.real.lines import lines_of, logged, metric
from tests.real.process import free_port, wait_until
from tests.real.recorder import OK, Recorder, Request, Talk, recorder, respond

pytestmark = pytest.mark.journey

RESPONSE_TIMEOUT_S = 0.5
CONNECTIONS_MAX = 2


@pytest.fixture(scope="module")
def app() -> Iterator[Recorder]:
    with recorder() as running:
        yield running


@pytest.fixture(scope="module", params=["off", "-"], ids=["plain", "access-log"])
def running(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, app: Recorder
) -> Iterator[Gateway]:
    """Relayed without a coroutine, and with the one that an access log needs."""
    folder = tmp_path_factory.mktemp("gateway")
    config = f"""#server
{issuer_toml(folder)}
[log]
access = "{request.param}"

[[routes]]
path = "/gone/{{*rest}}"
auth = "none"
upstream = "http://127.0.0.1:{free_port()}"

[[routes]]
path = "/narrow/{{*rest}}"
auth = "none"
upstream = "{app.url}"
connections_max = {CONNECTIONS_MAX}

[[routes]]
path = "/small/{{*rest}}"
auth = "none"
upstream = "{app.url}"
body_bytes_max = 1000

[[routes]]
path = "/{{*rest}}"
auth = "none"
upstream = "{app.url}"
response_timeout_s = {RESPONSE_TIMEOUT_S}
"""
    with gateway(folder, config) as started:
        yield started


@pytest.fixture(autouse=True)
def clean(app: Recorder, running: Gateway) -> Iterator[None]:
    """Whatever a test does: no connection stays in use, nothing is logged as our own fault."""
    app.acts.clear()
    app.raw = None
    yield
    app.take()
    wait_until(lambda: metric_of(running, "upstream_connections", state="busy") == 0, "no busy connection", 5)
    assert metric_of(running, "requests_in_flight") == 0
    assert [line for line in lines_of(running.server) if line.get("level") == "error"] == []


def metric_of(running: Gateway, name: str, **labels: str) -> float:
    return metric(running.admin("/metrics").body.decode(), f"portcullis_{name}", **labels)


def assert_fault(running: Gateway, answer: Answer, status: int, code: str, kind: str, route: str = "/{*rest}") -> None:
    """Check status, problem document and log line of one fault."""
    assert (answer.status, answer.one("content-type")) == (status, "application/problem+json")
    problem = answer.json
    assert (problem["code"], problem["status"], problem["type"]) == (code, status, f"urn:portcullis:error:{code}")
    assert problem["request_id"] == answer.one("x-request-id")
    assert answer.one("cache-control") == "no-store"
    line = logged(running.server, logger="portcullis.proxy", request_id=problem["request_id"])
    assert (line["level"], line["route"]) == ("warning", route)
    assert line["message"].startswith(f"upstream {kind}: ")


# ------------------------------------------------------------------------------------------------------ before the head


def test_an_app_that_is_not_there_is_a_502(running: Gateway) -> None:
    before = metric_of(running, "upstream_faults_total", kind="unreachable")
    answer = running.ask("GET", "/gone/1")
    assert_fault(running, answer, 502, "upstream_unreachable", "unreachable", "/gone/{*rest}")
    assert metric_of(running, "upstream_faults_total", kind="unreachable") == before + 1


def test_a_browser_gets_a_page(running: Gateway) -> None:
    answer = running.ask("GET", "/gone/1", ("Accept", "text/html,*/*"))
    assert (answer.status, answer.one("content-type")) == (502, "text/html; charset=utf-8")
    assert answer.one("x-request-id") in answer.body.decode()


def test_an_app_that_does_not_answer_is_a_504(running: Gateway, app: Recorder) -> None:
    before = metric_of(running, "upstream_faults_total", kind="timeout")
    app.acts["/late"] = lambda talk, _: talk.wait_for_end()
    started = time.monotonic()
    answer = running.ask("GET", "/late")
    assert RESPONSE_TIMEOUT_S <= time.monotonic() - started < RESPONSE_TIMEOUT_S + 2
    assert_fault(running, answer, 504, "upstream_timeout", "timeout")
    assert metric_of(running, "upstream_faults_total", kind="timeout") == before + 1


GARBAGE = {
    "another protocol": b"SSH-2.0-OpenSSH_9.2\r\n\r\n",
    "nothing": b"",
    "half a head": b"HTTP/1.1 200 OK\r\ncontent-le",
    "no status": b"HTTP/1.1 OK\r\n\r\n",
    "HTTP/2": b"HTTP/2.0 200 OK\r\ncontent-length: 2\r\n\r\nok",
    "two lengths": b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\ncontent-length: 3\r\n\r\nok!",
    "length and coding": b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
    "a bad chunk": b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nnonsense\r\n",
    "length with a sign": b"HTTP/1.1 200 OK\r\ncontent-length: +2\r\n\r\nok",
    "folded header": b"HTTP/1.1 200 OK\r\nx: a\r\n b\r\ncontent-length: 2\r\n\r\nok",
    "NUL in a header": b"HTTP/1.1 200 OK\r\nx: a\0b\r\ncontent-length: 2\r\n\r\nok",
    "endless head": b"HTTP/1.1 200 OK\r\n" + b"x: y\r\n" * 100_000,
    "101 unasked": b"HTTP/1.1 101 Switching Protocols\r\nupgrade: x\r\nconnection: upgrade\r\n\r\n",
}


@pytest.mark.parametrize("name", GARBAGE)
def test_an_answer_that_is_none_is_a_502(running: Gateway, app: Recorder, name: str) -> None:
    def garble(talk: Talk, _request: Request) -> None:
        talk.send(GARBAGE[name])
        talk.link.close()

    app.acts["/garbage"] = garble
    answer = running.ask("GET", "/garbage")
    assert_fault(running, answer, 502, "upstream_protocol_error", "protocol")


def test_a_request_that_had_an_effect_is_not_sent_twice(running: Gateway, app: Recorder) -> None:
    """An app that closes a kept connection: a GET is repeated on a fresh one, a POST is a 502."""
    deaths: list[str] = []

    def die_once(talk: Talk, request: Request) -> None:
        if not deaths:
            deaths.append(request.method)
            talk.link.close()
        else:
            talk.send(OK)

    assert running.ask("GET", "/warm").status == 200
    app.acts["/once"] = die_once
    assert running.ask("GET", "/once").status == 200
    deaths.clear()
    assert running.ask("GET", "/warm").status == 200
    app.take()
    assert_fault(running, running.ask("POST", "/once", body=b"x"), 502, "upstream_protocol_error", "protocol")
    assert [request.target for request in app.take()] == ["/once"]


def test_a_body_that_is_too_long_is_a_413_with_and_without_a_length(running: Gateway, app: Recorder) -> None:
    route = "/small/{*rest}"
    assert running.ask("POST", "/small/1", body=b"x" * 1000).status == 200
    app.only()
    assert_fault(
        running, running.ask("POST", "/small/1", body=b"x" * 1001), 413, "body_too_large", "body_too_large", route
    )
    with Connection(running.port) as connection:
        connection.send(request_bytes("POST", "/small/1", [("Transfer-Encoding", "chunked")]))
        connection.send(b"3e9\r\n" + b"x" * 1001 + b"\r\n0\r\n\r\n")
        assert_fault(running, connection.read_answer(), 413, "body_too_large", "body_too_large", route)
    assert app.take() == []


# ---------------------------------------------------------------------------------------------------------------- busy


def test_when_every_connection_is_in_use_others_wait_briefly_and_are_told_to_come_again(
    running: Gateway, app: Recorder
) -> None:
    let_go = threading.Event()

    def hold(talk: Talk, _request: Request) -> None:
        let_go.wait(10)
        talk.send(OK)

    app.acts["/narrow/hold"] = hold
    holders = [Connection(running.port) for _ in range(CONNECTIONS_MAX)]
    try:
        for holder in holders:
            holder.send(request_bytes("GET", "/narrow/hold"))
        app.wait_for_requests(CONNECTIONS_MAX)
        answer = running.ask("GET", "/narrow/1")
        assert_fault(running, answer, 503, "upstream_busy", "busy", "/narrow/{*rest}")
        assert answer.one("retry-after") == "1"
        assert metric_of(running, "upstream_connections", state="busy") == CONNECTIONS_MAX
        assert running.ask("GET", "/other").status == 200, "another route has connections of its own"
        with Connection(running.port) as waiter:
            waiter.send(request_bytes("GET", "/narrow/1"))
            let_go.set()
            assert waiter.read_answer().status == 200
        assert [holder.read_answer().status for holder in holders] == [200] * CONNECTIONS_MAX
    finally:
        let_go.set()
        for holder in holders:
            holder.close()


# --------------------------------------------------------------------------------------------------------------- dying


LENGTH = b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\n"
CHUNKED = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n"
PIECES = [(LENGTH, b"half"), (CHUNKED, b"4\r\nhalf\r\n"), (CHUNKED, b"8\r\nhalf"), (CHUNKED, b"4\r\nhalf\r\n0\r\n")]


ENDS = ["close", "reset", "stop", "nonsense"]


@pytest.mark.parametrize(
    ("head", "piece", "end"),
    [(*piece, end) for piece in PIECES for end in ENDS if (piece[0], end) != (LENGTH, "nonsense")],  # which is a body
)
def test_an_app_that_dies_in_its_body_cuts_the_clients_connection(
    running: Gateway, app: Recorder, head: bytes, piece: bytes, end: str
) -> None:
    """Never a response that looks whole: the client must see that something is missing."""
    arrived = threading.Event()

    def die(talk: Talk, _request: Request) -> None:
        talk.send(head + piece)
        assert arrived.wait(5)
        if end == "reset":
            talk.reset()
        elif end == "close":
            talk.link.close()
        else:
            talk.send(b"\xff\0\r\n" * (end == "nonsense") * 50)
            talk.wait_for_end()

    app.acts["/die"] = die
    seen = len(proxy_lines(running))
    with Connection(running.port) as connection:
        connection.send(request_bytes("GET", "/die"))
        assert connection.read_head()[0] == 200
        if head is CHUNKED:
            assert connection.read_chunk() == b"half"
        else:
            assert connection.read_exactly(4) == b"half"
        arrived.set()
        rest = connection.read_to_end()
    assert rest == b""
    wait_until(lambda: len(proxy_lines(running)) > seen, "a line about it")
    line = proxy_lines(running)[-1]
    assert (line["level"], line["route"]) == ("warning", "/{*rest}")
    assert line["message"].startswith("upstream timeout: " if end == "stop" else "upstream protocol: ")


def proxy_lines(running: Gateway) -> list[dict[str, Any]]:
    return [line for line in lines_of(running.server) if line.get("logger") == "portcullis.proxy"]


def test_others_on_the_gateway_do_not_notice(running: Gateway, app: Recorder) -> None:
    def die(talk: Talk, _request: Request) -> None:
        talk.send(CHUNKED + b"4\r\nhalf\r\n")
        talk.reset()

    app.acts["/die"] = die
    with Connection(running.port) as steady:
        for _ in range(20):
            with Connection(running.port) as unlucky:
                unlucky.send(request_bytes("GET", "/die"))
                assert steady.request("GET", "/fine").status == 200
                assert not unlucky.read_to_end().endswith(b"0\r\n\r\n")


def test_an_app_that_comes_back_is_used_at_once(running: Gateway, app: Recorder) -> None:
    app.raw = lambda talk: talk.reset()
    with Connection(running.port) as connection:
        statuses = {connection.request("POST", "/fine", body=b"x").status for _ in range(5)}
        app.raw = None
        assert statuses <= {200, 502}
        assert connection.request("POST", "/fine", body=b"x").status == 200


# ----------------------------------------------------------------------------------------------- what must simply work


def test_each_event_of_a_stream_arrives_before_the_next_is_made(running: Gateway, app: Recorder) -> None:
    go_on = threading.Semaphore(0)

    def events(talk: Talk, _request: Request) -> None:
        talk.send(b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n")
        for number in range(5):
            event = b"data: %d\n\n" % number
            talk.send(b"%x\r\n%b\r\n" % (len(event), event))
            assert go_on.acquire(timeout=5)
        talk.send(b"0\r\n\r\n")

    app.acts["/events"] = events
    with Connection(running.port) as connection:
        connection.send(request_bytes("GET", "/events", [("Accept", "text/event-stream")]))
        assert dict(connection.read_head()[1])["content-type"] == "text/event-stream"
        for number in range(5):
            assert connection.read_chunk() == b"data: %d\n\n" % number
            go_on.release()
        assert connection.read_chunk() == b""


def test_an_expectation_is_met_once_the_app_wants_the_body(running: Gateway, app: Recorder) -> None:
    with Connection(running.port) as connection:
        connection.send(request_bytes("POST", "/upload", [("Expect", "100-continue"), ("Content-Length", "5")]))
        assert connection.read_line() == b"HTTP/1.1 100 Continue"
        assert connection.read_line() == b""
        connection.send(b"hello")
        assert connection.read_answer().json["body"] == "hello"
    app.only()


def test_an_expectation_of_a_request_that_is_refused_is_not_met(running: Gateway, app: Recorder) -> None:
    with Connection(running.port) as connection:
        headers = [("Expect", "100-continue"), ("Content-Length", "5")]
        connection.send(request_bytes("POST", "/a/../b", headers))
        assert connection.read_answer().status == 400
    assert app.take() == []


@pytest.mark.parametrize(
    ("method", "head", "status", "length"),
    [
        ("HEAD", b"HTTP/1.1 200 OK\r\ncontent-length: 1000\r\n\r\n", 200, ["1000"]),
        ("GET", b"HTTP/1.1 204 No Content\r\n\r\n", 204, []),
        ("GET", b"HTTP/1.1 204 No Content\r\ncontent-length: 0\r\n\r\n", 204, []),
        ("GET", b"HTTP/1.1 304 Not Modified\r\ncontent-length: 1000\r\netag: x\r\n\r\n", 304, []),
        ("GET", b"HTTP/1.1 103 Early Hints\r\nlink: </a>\r\n\r\nHTTP/1.1 204 No Content\r\n\r\n", 204, []),
    ],
)
def test_answers_without_a_body_leave_the_connection_in_step(
    running: Gateway, app: Recorder, method: str, head: bytes, status: int, length: list[str]
) -> None:
    app.acts["/bodiless"] = lambda talk, _: talk.send(head)
    with Connection(running.port) as connection:
        for _ in range(3):
            answer = connection.request(method, "/bodiless")
            assert (answer.status, answer.body, answer.all("content-length")) == (status, b"", length)
            assert connection.request("GET", "/next").json["target"] == "/next"


def test_trailers_of_the_app_end_at_the_gateway(running: Gateway, app: Recorder) -> None:
    app.acts["/trailers"] = lambda talk, _: talk.send(
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\ntrailer: x-sum\r\n\r\n2\r\nok\r\n0\r\nx-sum: 1\r\n\r\n"
    )
    with Connection(running.port) as connection:
        answer = connection.request("GET", "/trailers")
        assert (answer.body, answer.all("trailer"), answer.all("x-sum")) == (b"ok", [], [])
        assert connection.request("GET", "/next").status == 200


def test_what_an_app_says_behind_its_answer_is_nobodys(running: Gateway, app: Recorder) -> None:
    """Response splitting: the next client must not get what the last one's app appended."""
    app.acts["/more"] = lambda talk, _: talk.send(OK + b"HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\nevil")
    for _ in range(5):
        with Connection(running.port) as connection:
            assert connection.request("GET", "/more").body == b"ok"
            assert connection.request("GET", "/next").json["target"] == "/next"


BIG = 24 << 20


def memory_kib(running: Gateway) -> int:
    """Add up what the gateway's processes hold."""
    total = 0
    parent = running.server.process.pid
    children = Path(f"/proc/{parent}/task/{parent}/children").read_text().split()
    for pid in [str(parent), *children]:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
        total += sum(int(line.split()[1]) for line in lines if line.startswith("VmRSS"))
    return total


def test_long_bodies_pass_both_ways_in_bounded_memory(running: Gateway, app: Recorder) -> None:
    piece = bytes(range(256)) * 256

    def swallow(talk: Talk, request: Request) -> None:
        respond(talk, 200, b"%d" % len(request.body))

    def flood(talk: Talk, _request: Request) -> None:
        talk.send(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n" % BIG)
        for _ in range(BIG // len(piece)):
            talk.send(piece)

    app.acts["/swallow"], app.acts["/flood"] = swallow, flood
    with Connection(running.port) as connection:
        before = memory_kib(running)
        connection.send(request_bytes("GET", "/flood"))
        time.sleep(0.2)  # nobody reads: what the gateway takes in meanwhile must have a bound
        assert memory_kib(running) - before < 8 << 10
        assert connection.read_head()[0] == 200
        for _ in range(BIG // len(piece)):
            assert connection.read_exactly(len(piece)) == piece
    with Connection(running.port) as connection:
        connection.send(request_bytes("POST", "/swallow", [("Content-Length", str(4 << 20))]))
        for _ in range((4 << 20) // len(piece)):
            connection.send(piece)
        assert connection.read_answer().body == b"%d" % (4 << 20)
    assert memory_kib(running) - before < 8 << 10
    app.take()
