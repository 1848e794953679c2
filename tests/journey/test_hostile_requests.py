"""Requests that mean to be read in two ways, and clients that are slow, silent or gone: what reaches the app, and what
everybody is told."""

from __future__ import annotations

import contextlib
import socket
import struct
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import unquote

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.conftest import ROOT
from tests.oracle.routes import canonical_path
from tests.real.gateway import Gateway, bearer, gateway, issuer_toml, mint
from tests.real.http import Answer, Connection, request_bytes
from tests.real.lines import lines_of, logged, metric
from tests.real.process import ServerProcess, wait_until
from tests.real.recorder import Recorder, Request, Talk, recorder, respond

pytestmark = pytest.mark.journey

BODY_TIMEOUT_S = 0.5
HEADER_TIMEOUT_S = 0.5

ACCESS = pytest.mark.parametrize("running", ["off", "-"], ids=["plain", "access-log"], indirect=True)


@pytest.fixture(scope="module")
def app() -> Iterator[Recorder]:
    with recorder() as running:
        yield running


def config_of(folder: Path, app: Recorder, server: str = "", access: str = "off") -> str:
    return f"""body_timeout_s = {BODY_TIMEOUT_S}
{server}
#server
{issuer_toml(folder)}
[log]
access = "{access}"

[[introspection.clients]]
id = "rs"
secret = "env:PORTCULLIS_TEST_SECRET"

[[routes]]
path = "/admin/{{*rest}}"
scopes = ["orders:read"]
upstream = "{app.url}"

[[routes]]
path = "/read-only"
methods = ["GET"]
auth = "none"
upstream = "{app.url}"

[[routes]]
path = "/open/{{*rest}}"
auth = "none"
upstream = "{app.url}"
"""


SECRETS = {"PORTCULLIS_TEST_SECRET": "s3cret"}


@pytest.fixture(scope="module")
def running(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, app: Recorder
) -> Iterator[Gateway]:
    access = getattr(request, "param", "off")
    folder = tmp_path_factory.mktemp("gateway")
    with gateway(folder, config_of(folder, app, access=access), env=SECRETS) as started:
        yield started


@pytest.fixture(scope="module")
def narrow(tmp_path_factory: pytest.TempPathFactory, app: Recorder) -> Iterator[Gateway]:
    """A gateway with small limits."""
    folder = tmp_path_factory.mktemp("narrow")
    server = "header_bytes_max = 1000\nheader_count_max = 20"
    with gateway(folder, config_of(folder, app, server), env=SECRETS) as started:
        yield started


# -------------------------------------------------------------------------------------------------------------- framing

SMUGGLED = b"GET /admin/smuggled HTTP/1.1\r\nHost: app.test\r\n\r\n"
HI = b"2\r\nhi\r\n0\r\n\r\n"
NO_BODY = b"0\r\n\r\n"


def post(*lines: bytes, body: bytes = b"") -> bytes:
    return b"".join(line + b"\r\n" for line in (b"POST /open/1 HTTP/1.1", b"Host: app.test", *lines)) + b"\r\n" + body


def get(*lines: bytes, target: bytes = b"/open/1", version: bytes = b"HTTP/1.1") -> bytes:
    return b"".join(line + b"\r\n" for line in (b"GET " + target + b" " + version, *lines)) + b"\r\n"


HOST = b"Host: app.test"
CHUNKED = b"Transfer-Encoding: chunked"

# What is sent; the statuses that come back; method and content of what the app sees.
Sent = tuple[bytes, list[int], list[tuple[str, bytes]]]

FRAMING: dict[str, Sent] = {
    # Length and coding at once: the coding counts (RFC 9112 §6.3), what follows is never a request.
    "length and coding": (post(b"Content-Length: 4", CHUNKED, body=NO_BODY + SMUGGLED), [200], [("POST", b"")]),
    "coding and length": (post(CHUNKED, b"Content-Length: 4", body=NO_BODY + SMUGGLED), [200], [("POST", b"")]),
    "length twice, the same": (post(*[b"Content-Length: 2"] * 2, body=b"hi"), [200], [("POST", b"hi")]),
    "length twice": (post(b"Content-Length: 2", b"Content-Length: 49", body=b"hi" + SMUGGLED), [400], []),
    "length in a list": (post(b"Content-Length: 2, 2", body=b"hi" + SMUGGLED), [400], []),
    "length with a sign": (post(b"Content-Length: +2", body=b"hi" + SMUGGLED), [400], []),
    "length below zero": (post(b"Content-Length: -2", body=b"hi" + SMUGGLED), [400], []),
    "length in hex": (post(b"Content-Length: 0x2", body=b"hi" + SMUGGLED), [400], []),
    "length empty": (post(b"Content-Length: ", body=SMUGGLED), [400], []),
    "length beyond 64 bits": (post(b"Content-Length: 18446744073709551618", body=b"hi" + SMUGGLED), [400], []),
    "length with a zero before it": (post(b"Content-Length: 02", body=b"hi"), [200], [("POST", b"hi")]),
    # Two requests for the server; ours refuses the first as unclear, and the second has no token.
    "coding twice": (post(CHUNKED, CHUNKED, body=NO_BODY + SMUGGLED), [400, 401], []),
    "coding in a list": (post(b"Transfer-Encoding: gzip, chunked", body=NO_BODY + SMUGGLED), [400, 401], []),
    "coding identity": (post(b"Transfer-Encoding: identity", body=NO_BODY + SMUGGLED), [400], []),
    "coding not last": (post(b"Transfer-Encoding: chunked, identity", body=NO_BODY + SMUGGLED), [400], []),
    "coding unknown": (post(b"Transfer-Encoding: xchunked", body=NO_BODY + SMUGGLED), [400], []),
    "coding in quotes": (post(b'Transfer-Encoding: "chunked"', body=NO_BODY + SMUGGLED), [400], []),
    "coding in upper case": (post(b"TRANSFER-ENCODING: CHUNKED", body=HI), [200], [("POST", b"hi")]),
    "coding after a tab": (post(b"Transfer-Encoding:\tchunked", body=HI), [200], [("POST", b"hi")]),
    "coding after a vertical tab": (post(b"Transfer-Encoding:\x0bchunked", body=NO_BODY + SMUGGLED), [400], []),
    "coding before a space": (post(b"Transfer-Encoding : chunked", body=NO_BODY + SMUGGLED), [400], []),
    "coding folded": (post(b"Transfer-Encoding:", b" chunked", body=NO_BODY + SMUGGLED), [400], []),
    "coding with an underscore": (post(b"Transfer_Encoding: chunked", body=b""), [400], []),
    "length with an underscore": (post(b"Content_Length: 2", body=b""), [400], []),
    "coding in HTTP/1.0": (b"POST /open/1 HTTP/1.0\r\nHost: app.test\r\n" + CHUNKED + b"\r\n\r\n" + HI, [400], []),
    "chunk size with a sign": (post(CHUNKED, body=b"+2\r\nhi\r\n0\r\n\r\n"), [400], []),
    "chunk size with 0x": (post(CHUNKED, body=b"0x2\r\nhi\r\n0\r\n\r\n"), [400], []),
    "chunk size beyond 64 bits": (post(CHUNKED, body=b"10000000000000002\r\nhi\r\n0\r\n\r\n"), [400], []),
    "chunk longer than its size": (post(CHUNKED, body=b"2\r\nhiXX0\r\n\r\n"), [400], []),
    "chunk ends with a bare LF": (post(CHUNKED, body=b"2\nhi\n0\n\n"), [400], []),
    "chunk extension": (post(CHUNKED, body=b"2;a=b\r\nhi\r\n0;c\r\n\r\n"), [200], [("POST", b"hi")]),
    # RFC 9112 §2.2 lets a server take a bare LF; the app gets CRLF.
    "bare LF": (b"GET /open/1 HTTP/1.1\nHost: app.test\n\n", [200], [("GET", b"")]),
    "bare CR": (get(HOST, b"X: y\rTransfer-Encoding: chunked"), [400], []),
    "NUL in a value": (get(HOST, b"X: a\0b"), [400], []),
    "NUL in a name": (get(HOST, b"X\0: ab"), [400], []),
    "folded value": (get(HOST, b"X: a", b" b"), [400], []),
    "space in a name": (get(HOST, b"X y: a"), [400], []),
    "space before the first name": (get(b" Host: app.test"), [400], []),
    "no Host": (get(), [400], []),
    "no Host in HTTP/1.0": (get(version=b"HTTP/1.0"), [400], []),
    "two Hosts": (get(HOST, b"Host: other.test"), [400], []),
    "two equal Hosts": (get(HOST, HOST), [400], []),
    "empty Host": (get(b"Host:"), [400], []),
    "Host with a path": (get(b"Host: a/b?x="), [400], []),
    "Host with user information": (get(b"Host: a@app.test"), [400], []),
    "list of Hosts": (get(b"Host: a.test, b.test"), [400], []),
    # RFC 9112 §3.2.2. The address counts for its path alone: the Host that was judged is the one that goes upstream.
    "absolute form": (get(HOST, target=b"http://evil.test/open/1"), [200], [("GET", b"")]),
    "absolute form of another place": (get(HOST, target=b"http://app.test/admin/1"), [401], []),
    "absolute form with dots": (get(HOST, target=b"http://app.test/open/../admin/1"), [400], []),
    "authority form": (b"CONNECT app.test:443 HTTP/1.1\r\nHost: app.test\r\n\r\n", [400], []),
    "authority form of GET": (get(HOST, target=b"app.test:443"), [400], []),
    "asterisk form": (b"OPTIONS * HTTP/1.1\r\nHost: app.test\r\n\r\n", [400], []),
    "asterisk form of GET": (get(HOST, target=b"*"), [400], []),
    "HTTP/0.9": (b"GET /open/1\r\n\r\n", [400], []),
    "HTTP/1.2": (get(HOST, version=b"HTTP/1.2"), [400], []),
    "HTTP/2.0 as text": (get(HOST, version=b"HTTP/2.0"), [400], []),
    "preface of HTTP/2": (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", [], []),
    "TLS": (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n", [400], []),
    "method in lower case": (b"get /read-only HTTP/1.1\r\nHost: app.test\r\n\r\n", [405], []),
    "two spaces in the first line": (b"GET  /open/1 HTTP/1.1\r\nHost: app.test\r\n\r\n", [400], []),
    "tab in the first line": (b"GET\t/open/1 HTTP/1.1\r\nHost: app.test\r\n\r\n", [400], []),
    "request in a body": (
        get(HOST, b"Content-Length: %d" % len(SMUGGLED))[:-4] + b"\r\n\r\n" + SMUGGLED,
        [200],
        [("GET", SMUGGLED)],
    ),
    "request behind a body": (post(b"Content-Length: 2", body=b"hi" + SMUGGLED), [200, 401], [("POST", b"hi")]),
    "upgrade to HTTP/2": (
        get(HOST, b"Connection: Upgrade, HTTP2-Settings", b"Upgrade: h2c", b"HTTP2-Settings: AAMAAABk"),
        [200],
        [("GET", b"")],
    ),
    "address of 70 kB": (get(HOST, target=b"/open/" + b"a" * 70_000), [414], []),
    "path of 9 kB": (get(HOST, target=b"/open/" + b"a" * 9_000), [400], []),
    "query of 60 kB": (get(HOST, target=b"/open/1?" + b"a" * 60_000), [200], [("GET", b"")]),
    "header of 33 kB": (get(HOST, b"X: " + b"a" * 33_000), [431], []),
    "header of 500 kB": (get(HOST, b"X: " + b"a" * 500_000), [431], []),
    "100 headers": (get(HOST, *[b"X: a"] * 99), [200], [("GET", b"")]),
    "101 headers": (get(HOST, *[b"X: a"] * 100), [431], []),
}


@pytest.mark.parametrize("name", FRAMING)
def test_the_app_sees_what_was_judged_and_in_one_reading(running: Gateway, app: Recorder, name: str) -> None:
    sent, statuses, seen = FRAMING[name]
    with Connection(running.port) as connection:
        with contextlib.suppress(ConnectionError):  # refused before all of it was read
            connection.send(sent)
        answers = [connection.read_answer() for _ in statuses]
    assert [answer.status for answer in answers] == statuses
    requests = app.take()
    assert [(request.method, request.body) for request in requests] == seen
    for request in requests:
        assert_framed_anew(request)


def assert_framed_anew(request: Request) -> None:
    """One line an end, one Host, at most one length or coding, nothing between hops (RFC 9112 §6, RFC 9110 §7.6.1)."""
    lines = request.head[:-4].split(b"\r\n")
    assert not any(mark in line for line in lines for mark in (b"\r", b"\n", b"\0"))
    assert request.one("host") == "app.test"
    assert request.target.startswith("/open/1")
    assert len(request.all("content-length")) + len(request.all("transfer-encoding")) == (
        1 if request.body or request.method == "POST" else 0
    )
    assert set(request.all("transfer-encoding")) <= {"chunked"}
    for name in ("connection", "upgrade", "http2-settings", "te", "trailer", "keep-alive", "expect"):
        assert request.all(name) == []


def test_as_many_requests_reach_the_app_as_were_authorised(running: Gateway, app: Recorder) -> None:
    """All of the corpus on one gateway, counted by both sides. Two are authorised and then found to be unsendable."""
    before = metric(running.admin("/metrics").body.decode(), "portcullis_decisions_total", decision="allow")
    app.take()
    for sent, statuses, _ in FRAMING.values():
        with Connection(running.port) as connection:
            with contextlib.suppress(ConnectionError):
                connection.send(sent)
            for _ in statuses:
                connection.read_answer()
    expected = sum(len(seen) for _, _, seen in FRAMING.values())
    assert len(app.take()) == expected
    broken = sum(name.startswith(("chunk size", "chunk longer", "chunk ends")) for name in FRAMING)  # in their body
    unsendable = sum(name in {"coding twice", "coding in a list"} for name in FRAMING)
    after = metric(running.admin("/metrics").body.decode(), "portcullis_decisions_total", decision="allow")
    assert after - before == expected + unsendable + broken
    assert [line for line in lines_of(running.server) if line.get("level") == "error"] == []


def test_a_bare_lf_before_a_coding_is_read_as_the_server_reads_it(running: Gateway, app: Recorder) -> None:
    """granian takes a bare LF for the end of a line. The app must get the same reading, not the raw bytes."""
    with Connection(running.port) as connection:
        connection.send(b"POST /open/1 HTTP/1.1\r\nHost: app.test\r\nX: y\nTransfer-Encoding: chunked\r\n\r\n" + HI)
        assert connection.read_answer().status == 200
    request = app.only()
    assert (request.body, request.wire_body) == (b"hi", HI)
    assert_framed_anew(request)


@ACCESS
def test_pipelined_requests_get_their_own_answers_in_their_order(running: Gateway, app: Recorder) -> None:
    """Refusals are ready at once, on a thread of the server; they must not overtake what the app still works on."""

    def late(talk: Talk, _request: Request) -> None:
        time.sleep(0.2)
        respond(talk, 200, b"late")

    app.acts["/open/late"] = late
    header = f"{':'.join(bearer())}".encode()
    with Connection(running.port) as connection:
        connection.send(
            get(HOST, target=b"/open/late")
            + get(HOST, target=b"/admin/1")
            + get(HOST, header, target=b"/admin/1")
            + get(HOST, target=b"/auth/envoy/admin/1")
            + post(b"Content-Length: 2", body=b"hi")
        )
        answers = [connection.read_answer() for _ in range(5)]
    assert [answer.status for answer in answers] == [200, 401, 200, 401, 200]
    assert answers[0].body == b"late"
    assert [request.one("x-auth-subject") for request in app.take()] == ["", "alice", ""]


def test_a_refusal_of_head_has_no_body_and_leaves_the_connection_in_step(running: Gateway, app: Recorder) -> None:
    with Connection(running.port) as connection:
        for target, status in (("/admin/1", 401), ("/open/../1", 400), ("/nowhere", 404), ("/auth/envoy/admin/1", 401)):
            assert connection.request("HEAD", target).status == status
        assert connection.request("GET", "/open/1").json["method"] == "GET"
    app.only()


def test_unsendable_requests_are_told_to_client_and_log(running: Gateway) -> None:
    with Connection(running.port) as connection:
        connection.send(post(CHUNKED, CHUNKED, body=NO_BODY))
        answer = connection.read_answer()
    assert answer.json["code"] == "request_unsendable"
    line = logged(running.server, logger="portcullis.proxy", request_id=answer.json["request_id"])
    assert line["level"] == "warning"
    assert "transfer-encoding" in line["message"]


# --------------------------------------------------------------------------------------------------------------- limits


@pytest.mark.parametrize(("size", "status"), [(1000 - 13, 200), (1000 - 13 + 1, 431)])
def test_header_bytes_max(narrow: Gateway, app: Recorder, size: int, status: int) -> None:
    """`Host: app.test` counts 12 bytes, and the name of this header one."""
    answer = narrow.ask("GET", "/open/1", ("X", "a" * size))
    assert answer.status == status
    assert len(app.take()) == (status == 200)
    if status == 431:
        assert answer.json["code"] == "headers_too_large"
        logged(narrow.server, event="denied", reason="headers_too_large", request_id=answer.json["request_id"])


@pytest.mark.parametrize(("count", "status"), [(19, 200), (20, 431)])
def test_header_count_max(narrow: Gateway, app: Recorder, count: int, status: int) -> None:
    narrow.ask("DELETE", "/admin/before?canary-query")
    answer = narrow.ask("GET", "/open/1", *[("X", "a")] * count)
    assert answer.status == status
    assert len(app.take()) == (status == 200)
    if status == 431:
        line = logged(narrow.server, event="denied", reason="headers_too_large", request_id=answer.json["request_id"])
        assert line["method"] == "GET"


def test_too_many_headers_reach_nginx_as_a_status_that_it_can_pass_on(narrow: Gateway) -> None:
    answer = narrow.ask("GET", "/auth/request", *[("X", "a")] * 20)
    assert (answer.status, answer.one("x-auth-status")) == (403, "431")


# ---------------------------------------------------------------------------------------------------------------- doors


def ask_all_doors(running: Gateway, path: str, *headers: tuple[str, str]) -> dict[str, Answer]:
    """Ask about GET `path` at every door."""
    forward = [("X-Forwarded-Method", "GET"), ("X-Forwarded-Uri", path), ("X-Forwarded-Host", "app.test")]
    nginx = [("X-Original-Method", "GET"), ("X-Original-URL", f"http://app.test{path}")]
    return {
        "proxy": running.ask("GET", path, *headers),
        "forward": running.ask("GET", "/auth/forward", *forward, *headers),
        "nginx": running.ask("GET", "/auth/request", *nginx, *headers),
        "envoy": running.ask("GET", f"/auth/envoy{path}", *headers),
    }


def statuses(answers: dict[str, Answer]) -> set[int]:
    """Give the status that each door means; nginx cannot pass most of them on."""
    meant = {name: answer.status for name, answer in answers.items()}
    if answers["nginx"].all("x-auth-status"):  # else it passes, or the server itself refused
        meant["nginx"] = int(answers["nginx"].one("x-auth-status"))
    return set(meant.values())


def test_two_authorizations_are_refused_at_every_door(running: Gateway, app: Recorder) -> None:
    good = bearer()
    for pair in (
        [good, good],
        [good, bearer("x.y.z")],
        [("Authorization", "Basic YTpi"), good],
        [good, ("AUTHORIZATION", "")],
    ):
        for path in ("/admin/1", "/open/1"):
            answers = ask_all_doors(running, path, *pair)
            assert statuses(answers) == {400}
            for answer in answers.values():
                assert answer.json["code"] == "invalid_request"
                assert 'error="invalid_request"' in answer.one("www-authenticate")
    assert app.take() == []
    logged(running.server, event="denied", reason="authorization_repeated", door="proxy", status=400)


@pytest.mark.parametrize(
    ("value", "status"),
    [
        ("Bearer", 400),
        ("Bearer ", 400),
        ("Bearer  ", 400),
        ("Bearer a b", 400),
        ("Bearer {token} ", 200),  # trailing white space is not part of a value (RFC 9110 §5.5)
        ("Bearer {token},", 400),
        ("Bearer {token}, Bearer {token}", 400),
        ("bearer {token}", 200),
        ("Bearer\t{token}", 400),
        ("Basic {token}", 401),
        ("{token}", 401),
        ("Bearer {token}=", 401),
        ("Bearer {token}.x", 401),
        ("Bearer .{token}", 401),
        ("Bearer \xe9{token}", 401),
    ],
)
def test_credentials_are_read_alike_at_every_door(running: Gateway, app: Recorder, value: str, status: int) -> None:
    answers = ask_all_doors(running, "/admin/1", ("Authorization", value.replace("{token}", mint())))
    assert statuses(answers) == {status}
    assert len(app.take()) == (status == 200)


AMBIGUOUS = [
    "/open/../admin/1",
    "/open/%2e%2e/admin/1",
    "/open/.%2e/admin/1",
    "/open/./1",
    "/open//admin/1",
    "//admin/1",
    "/open/..;/admin/1",
    "/open;x/1",
    "/open/%2fadmin",
    "/open/%2Fadmin",
    "/open/%5c..%5cadmin",
    "/open/..\\admin",
    "/open/%00",
    "/open/%0d%0aX-Auth-Subject:%20root",
    "/open/%252e%252e/admin",
    "/open/%ff",
    "/open/%c0%ae%c0%ae/admin",
    "/open/%ed%a0%80",
    "/open/%",
    "/open/%2",
    "/open/%zz",
    "/open/\x7f",
    "/open/\xe9",
]


@pytest.mark.parametrize("path", AMBIGUOUS)
def test_an_ambiguous_path_is_refused_at_every_door_also_with_a_token(
    running: Gateway, app: Recorder, path: str
) -> None:
    for headers in ([], [bearer()]):
        assert statuses(ask_all_doors(running, path, *headers)) == {400}
    assert app.take() == []


def test_ambiguous_paths_are_told_by_code_and_log(running: Gateway) -> None:
    answer = running.ask("GET", "/open/../admin/1")
    assert answer.json["code"] == "path_refused"
    line = logged(running.server, event="denied", reason="path_refused", request_id=answer.json["request_id"])
    assert (line["path"], line["route"]) == ("", None)


QUERIES = ["", "?", "?a=/../b", "?a=%2e%2e%2f", "?a=b?c", "?%ff%00", "?a//b;c\\d", "?a=%", "?'{}|`^[]\\"]


@pytest.mark.parametrize("query", ['?a="', "?a=<", "?a=>", "?a=\xe9", "?a=\x7f", "? b", "?\tb"])
def test_a_query_that_is_none_is_refused(running: Gateway, app: Recorder, query: str) -> None:
    assert running.ask("GET", f"/open/1{query}").status == 400
    assert app.take() == []


@pytest.mark.parametrize("query", QUERIES)
def test_a_query_goes_upstream_as_it_came(running: Gateway, app: Recorder, query: str) -> None:
    answer = running.ask("GET", f"/open/a%20b{query}")
    assert answer.status == 200
    assert app.only().target == f"/open/a%20b{query}".removesuffix("?")


PIECES = st.sampled_from(
    [
        *"/%._-~a;\\",
        "%2e",
        "%2E",
        "%2f",
        "%5c",
        "%61",
        "%41",
        "%00",
        "%25",
        "%25%32e",
        "%ff",
        "%c3%a9",
        "..",
        "//",
        "admin",
        "open",
    ]
)


@given(tail=st.lists(PIECES, max_size=10).map("".join), query=st.sampled_from(QUERIES[2:]))
@settings(max_examples=150)
def test_the_app_gets_the_form_that_was_judged_or_nothing(
    running: Gateway, app: Recorder, tail: str, query: str
) -> None:
    """Also: without a token nothing gets there that any app could read as `/admin`."""
    path = f"/open/{tail}"
    canonical = canonical_path(path.encode())
    answers = ask_all_doors(running, path + query)
    requests = app.take()
    if not isinstance(canonical, bytes):
        assert statuses(answers) == {400}
        assert requests == []
        return
    assert statuses(answers) == {200}
    assert [request.target for request in requests] == [canonical.decode() + query]
    assert canonical_path(canonical) == canonical
    read = canonical.decode()
    for _ in range(3):
        read = unquote(read)
        assert ".." not in read.split("/")
        assert "\\" not in read
    assert read.startswith("/open/")


# --------------------------------------------------------------------------------------------------------- slow clients


class Impatient(Gateway):
    """A gateway that waits HEADER_TIMEOUT_S for a head, instead of half a minute."""

    def _start(self) -> ServerProcess:
        patched = (
            f"import runpy, gateway.cli.supervisor as supervisor; supervisor.HEADER_TIMEOUT_S = {HEADER_TIMEOUT_S}; "
            "runpy.run_module('gateway', run_name='__main__', alter_sys=True)"
        )
        command = [sys.executable, "-c", patched, "serve", "-c", str(self.path)]
        server = ServerProcess(command, self.folder / "gateway.log", cwd=ROOT, env=SECRETS)
        server.wait_for(self._is_live, "the gateway")
        return server


@pytest.fixture(scope="module")
def impatient(tmp_path_factory: pytest.TempPathFactory, app: Recorder) -> Iterator[Gateway]:
    folder = tmp_path_factory.mktemp("impatient")
    started = Impatient(folder, config_of(folder, app))
    yield started
    started.server.stop()


@pytest.mark.parametrize("begun", [b"", b"GET /open/1 HTTP/1.1\r\nHost: app", request_bytes("GET", "/open/1")])
def test_who_sends_no_head_in_time_is_cut(impatient: Gateway, app: Recorder, begun: bytes) -> None:
    """Silent from the start, in the middle of a head, and after an answer."""
    with Connection(impatient.port) as connection:
        connection.send(begun)
        if begun.endswith(b"\r\n\r\n"):
            assert connection.read_answer().status == 200
        started = time.monotonic()
        assert connection.read_to_end() == b""
        assert time.monotonic() - started < HEADER_TIMEOUT_S + 2
    app.take()


def test_a_head_that_drips_is_cut_although_it_goes_on(impatient: Gateway, app: Recorder) -> None:
    with Connection(impatient.port) as connection:
        started = time.monotonic()
        with pytest.raises(ConnectionError):
            for piece in request_bytes("GET", "/open/1", [("X", "a" * 1000)]):
                connection.send(bytes([piece]))
                time.sleep(0.02)
        assert time.monotonic() - started < HEADER_TIMEOUT_S + 2
    assert app.take() == []


def test_a_head_byte_by_byte_is_a_request_like_any_other(running: Gateway, app: Recorder) -> None:
    with Connection(running.port) as connection:
        for piece in request_bytes("GET", "/admin/1", [bearer()]):
            connection.send(bytes([piece]))
        assert connection.read_answer().status == 200
    assert app.only().one("x-auth-subject") == "alice"


def test_silent_and_slow_clients_do_not_stop_others(running: Gateway, app: Recorder) -> None:
    with contextlib.ExitStack() as held:
        for begun in (b"", b"GET /open/1 HT", post(b"Content-Length: 10", body=b"abc"), post(CHUNKED, body=b"5\r\nab")):
            for _ in range(60):
                held.enter_context(Connection(running.port)).send(begun)
        started = time.monotonic()
        header = bearer()
        for _ in range(50):
            assert running.ask("GET", "/admin/1", header).status == 200
            assert running.ask("GET", "/auth/envoy/admin/1", header).status == 200
        assert time.monotonic() - started < 5
        assert running.admin("/readyz").status == 200
    assert_nothing_is_left(running)
    app.take()


@ACCESS
@pytest.mark.parametrize("begun", [post(b"Content-Length: 10", body=b"abc"), post(CHUNKED, body=b"3\r\nabc\r\n")])
def test_a_body_that_stops_is_given_up(running: Gateway, app: Recorder, begun: bytes) -> None:
    with Connection(running.port) as connection:
        connection.send(begun)
        started = time.monotonic()
        answer = connection.read_answer()
        assert BODY_TIMEOUT_S <= time.monotonic() - started < BODY_TIMEOUT_S + 2
        assert (answer.status, answer.json["code"]) == (408, "request_timeout")
        assert connection.read_to_end() == b""
    line = logged(running.server, logger="portcullis.proxy", request_id=answer.json["request_id"])
    assert (line["level"], line["route"]) == ("warning", "/open/{*rest}")
    assert "body_timeout" in line["message"]
    assert app.take() == []
    assert_nothing_is_left(running)


def test_a_body_that_goes_on_slowly_has_all_the_time_it_needs(running: Gateway, app: Recorder) -> None:
    """The limit is between two pieces, so that a slow line can upload a large file."""
    with Connection(running.port) as connection:
        connection.send(post(b"Content-Length: 5"))
        for piece in b"slow!":
            time.sleep(BODY_TIMEOUT_S * 0.3)
            connection.send(bytes([piece]))
        assert connection.read_answer().status == 200
    assert app.only().body == b"slow!"


@pytest.mark.parametrize("target", ["/admin/1", "/open/../1", "/nowhere", "/read-only"])
def test_a_refusal_waits_for_no_body(running: Gateway, app: Recorder, target: str) -> None:
    with Connection(running.port) as connection:
        connection.send(request_bytes("POST", target, [("Content-Length", "1000000000")]))
        assert connection.read_answer().status in {400, 401, 404, 405}
    assert app.take() == []


def test_a_form_that_stops_holds_no_place(running: Gateway) -> None:
    """Anybody may begin a request to the introspection endpoint."""
    with Connection(running.port) as connection:
        connection.send(
            request_bytes(
                "POST",
                "/oauth2/introspect",
                [("Content-Type", "application/x-www-form-urlencoded"), ("Content-Length", "100")],
            )
            + b"token="
        )
        started = time.monotonic()
        answer = connection.read_answer()
        assert (answer.status, answer.json["code"]) == (408, "request_timeout")
        assert time.monotonic() - started < BODY_TIMEOUT_S + 2


# ------------------------------------------------------------------------------------------------ clients that are gone


def leave(connection: Connection, how: str) -> None:
    if how == "reset":
        connection.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    connection.close()


def busy(running: Gateway) -> float:
    return metric(running.admin("/metrics").body.decode(), "portcullis_upstream_connections", state="busy")


def assert_nothing_is_left(running: Gateway) -> None:
    wait_until(lambda: busy(running) == 0, "no busy connection to the app", 5)
    assert metric(running.admin("/metrics").body.decode(), "portcullis_requests_in_flight") == 0
    assert [line for line in lines_of(running.server) if line.get("level") == "error"] == []


@ACCESS
@pytest.mark.parametrize("how", ["close", "reset"])
def test_a_client_that_leaves_before_the_answer_frees_the_app(running: Gateway, app: Recorder, how: str) -> None:
    ended = threading.Event()

    def hold(talk: Talk, _request: Request) -> None:
        talk.wait_for_end()
        ended.set()

    app.acts["/open/hold"] = hold
    connection = Connection(running.port)
    connection.send(request_bytes("GET", "/open/hold"))
    app.wait_for_requests(1)
    leave(connection, how)
    assert ended.wait(5)
    app.take()
    assert running.ask("GET", "/open/1").status == 200
    app.only()
    assert_nothing_is_left(running)


@ACCESS
@pytest.mark.parametrize("how", ["close", "reset"])
def test_a_client_that_leaves_in_its_body_leaves_the_app_no_whole_request(
    running: Gateway, app: Recorder, how: str
) -> None:
    for begun in (post(b"Content-Length: 10", body=b"abc"), post(CHUNKED, body=b"3\r\nabc\r\n")):
        connection = Connection(running.port)
        connection.send(begun)
        wait_until(lambda: busy(running) == 1, "a connection to the app that is busy")
        leave(connection, how)
        wait_until(lambda: busy(running) == 0, "its end")
    assert app.take() == []
    assert_nothing_is_left(running)


@ACCESS
@pytest.mark.parametrize("how", ["close", "reset"])
def test_a_client_that_leaves_in_the_answer_stops_the_app(running: Gateway, app: Recorder, how: str) -> None:
    ended = threading.Event()

    def stream(talk: Talk, _request: Request) -> None:
        talk.send(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n")
        try:
            while True:
                talk.send(b"5\r\nevent\r\n")
                time.sleep(0.01)
        except OSError:
            ended.set()
            raise

    app.acts["/open/stream"] = stream
    connection = Connection(running.port)
    connection.send(request_bytes("GET", "/open/stream"))
    assert connection.read_head()[0] == 200
    assert connection.read_chunk().startswith(b"event")
    leave(connection, how)
    assert ended.wait(5)
    app.take()
    assert_nothing_is_left(running)


@ACCESS
def test_a_client_that_leaves_during_an_endless_answer_to_others_costs_them_nothing(
    running: Gateway, app: Recorder
) -> None:
    def slowly(talk: Talk, _request: Request) -> None:
        talk.send(b"HTTP/1.1 200 OK\r\ncontent-length: 40\r\n\r\n")
        for _ in range(8):
            talk.send(b"piece")
            time.sleep(0.05)

    app.acts["/open/slowly"] = slowly
    app.acts["/open/empty"] = lambda talk, _: respond(talk, 200, b"")
    with Connection(running.port) as patient:
        patient.send(request_bytes("GET", "/open/slowly"))
        for number in range(20):
            hasty = Connection(running.port)
            hasty.send(request_bytes("GET", "/open/slowly" if number % 2 else "/open/empty"))
            leave(hasty, "reset" if number % 3 else "close")
        answer = patient.read_answer()
    assert (answer.status, answer.body) == (200, b"piece" * 8)
    assert_nothing_is_left(running)
    app.take()
