from __future__ import annotations

import asyncio
import ssl
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import uvloop

from gateway._native.upstream import FAULT_KINDS, UpstreamFault, UpstreamPool
from tests.native.upstreams import (
    FOREVER_S,
    OK,
    Client,
    Talk,
    Upstream,
    answering,
    ask,
    pieces,
    scope_of,
    until,
    upstream,
)
from tests.real.recorder import recorder

IDENTITY = ((b"x-auth-subject", b"alice"), (b"x-auth-scopes", b"read"))
DROP = frozenset((b"x-auth-subject", b"x-auth-scopes", b"x-auth-issuer"))


@asynccontextmanager
async def pool_to(made: Upstream, **options: Any) -> AsyncIterator[UpstreamPool]:
    """A pool whose clock stands still, so that only the test moves it."""
    options.setdefault("tick_s", FOREVER_S)
    pool = UpstreamPool("127.0.0.1", made.port, **options)
    try:
        yield pool
    finally:
        await pool.aclose()
        stats = pool.stats()
        assert (stats["open"], stats["idle"], stats["waiting"], stats["opening"]) == (0, 0, 0, 0)


def lines_of(head: bytes) -> list[bytes]:
    assert head.endswith(b"\r\n\r\n")
    return head[:-4].split(b"\r\n")


def values_of(head: bytes, name: bytes) -> list[bytes]:
    pairs = [line.split(b": ", 1) for line in lines_of(head)[1:]]
    return [value for found, value in pairs if found.lower() == name]


async def sent_head(scope: dict[str, Any], client: Client | None = None, **options: Any) -> bytes:
    """Return the head that an upstream sees for one request."""
    forward = {name: options.pop(name) for name in ("extra_headers", "drop", "trusted", "target") if name in options}
    async with upstream(answering(OK)) as made, pool_to(made, **options) as pool:
        await ask(pool, scope, client, **forward)
        return made.received[0]


async def fault_of(pool: UpstreamPool, *arguments: Any, **options: Any) -> UpstreamFault:
    with pytest.raises(UpstreamFault) as caught:
        await ask(pool, *arguments, **options)
    assert caught.value.kind in FAULT_KINDS
    return caught.value


# -- what goes out ----------------------------------------------------------------------------------------------------


async def test_a_request_is_framed_anew_with_host_first() -> None:
    scope = scope_of(headers=[(b"accept", b"*/*"), (b"host", b"app.example"), (b"x-a", b"1"), (b"x-a", b"2")])
    head = await sent_head(scope, target=b"/a/b?c=d", extra_headers=IDENTITY, drop=DROP)
    assert lines_of(head) == [
        b"GET /a/b?c=d HTTP/1.1",
        b"host: app.example",
        b"accept: */*",
        b"x-a: 1",
        b"x-a: 2",
        b"x-forwarded-for: 192.0.2.7",
        b"x-forwarded-proto: http",
        b"x-forwarded-host: app.example",
        b"x-forwarded-port: 8080",
        b'forwarded: for=192.0.2.7;proto=http;host="app.example"',
        b"x-auth-subject: alice",
        b"x-auth-scopes: read",
    ]


@pytest.mark.parametrize(
    "name",
    [
        b"connection",
        b"keep-alive",
        b"proxy-connection",
        b"proxy-authorization",
        b"proxy-authenticate",
        b"te",
        b"trailer",
        b"upgrade",
        b"http2-settings",
        b"proxy",
        b"proxy-anything",
        b"transfer_encoding",
        b"content_length",
        b"keep_alive",
    ],
)
async def test_hop_by_hop_headers_stay_here(name: bytes) -> None:
    head = await sent_head(scope_of(headers=[(b"host", b"a"), (name, b"x"), (b"x-after", b"1")]))
    assert values_of(head, name) == []
    assert values_of(head, b"x-after") == [b"1"]


async def test_connection_takes_away_what_it_names_but_not_what_the_app_needs() -> None:
    """RFC 9110 §7.6.1; the hop-by-hop trick that hides a field from the app behind a proxy."""
    named = b"close, X-Hop, Authorization, Cookie, X-Auth-Subject, X-Forwarded-For, Host, Content-Length"
    headers = [
        (b"host", b"a"),
        (b"connection", named),
        (b"x-hop", b"1"),
        (b"authorization", b"Bearer t"),
        (b"cookie", b"c=1"),
    ]
    scope = scope_of("POST", [*headers, (b"content-length", b"1")])
    head = await sent_head(scope, Client(pieces(b"x")), extra_headers=IDENTITY, drop=DROP)
    assert values_of(head, b"x-hop") == []
    assert values_of(head, b"connection") == []
    for name in (b"authorization", b"cookie", b"x-auth-subject", b"x-forwarded-for", b"host", b"content-length"):
        assert len(values_of(head, name)) == 1


@pytest.mark.parametrize(
    "name", [b"x-auth-subject", b"X-Auth-Subject", b"x_auth_subject", b"X_AUTH-subject", b"x-auth-issuer"]
)
@pytest.mark.parametrize("times", [1, 3])
async def test_identity_comes_from_the_gateway_only_in_any_spelling(name: bytes, times: int) -> None:
    """CVE-2025-64484 (underscores), design §13 law 3."""
    scope = scope_of(headers=[(b"host", b"a"), *[(name, b"mallory")] * times])
    for head in (
        await sent_head(scope, extra_headers=IDENTITY, drop=DROP),
        await sent_head(scope, extra_headers=(), drop=DROP),
    ):
        assert b"mallory" not in head
    assert values_of(await sent_head(scope, extra_headers=IDENTITY, drop=DROP), b"x-auth-subject") == [b"alice"]


async def test_a_header_of_ours_replaces_a_namesake_that_nobody_listed() -> None:
    scope = scope_of(headers=[(b"host", b"a"), (b"x-team", b"evil"), (b"x_team", b"evil"), (b"X-TEAM", b"evil")])
    head = await sent_head(scope, extra_headers=((b"x-team", b"red"),))
    assert values_of(head, b"x-team") == [b"red"]
    assert b"evil" not in head


async def test_forwarding_headers_of_an_untrusted_peer_are_replaced() -> None:
    spoofed = [
        b"x-forwarded-for",
        b"x-forwarded-proto",
        b"x-forwarded-host",
        b"x-forwarded-port",
        b"x-forwarded-prefix",
    ]
    spoofed += [b"x-forwarded-user", b"forwarded", b"x-real-ip", b"x-original-url", b"x-rewrite-url", b"true-client-ip"]
    scope = scope_of(headers=[(b"host", b"a"), *((name, b"evil") for name in spoofed)])
    head = await sent_head(scope, trusted=False)
    assert b"evil" not in head
    assert values_of(head, b"x-forwarded-for") == [b"192.0.2.7"]


async def test_forwarding_headers_of_a_trusted_peer_are_continued() -> None:
    headers = [
        (b"host", b"a"),
        (b"x-forwarded-for", b"198.51.100.1"),
        (b"x-forwarded-for", b"198.51.100.2"),
        (b"x-forwarded-proto", b"https"),
        (b"x-forwarded-host", b"public.example"),
        (b"x-forwarded-port", b"443"),
        (b"forwarded", b"for=198.51.100.1"),
        (b"x-real-ip", b"198.51.100.1"),
    ]
    head = await sent_head(scope_of(headers=headers, client=("2001:db8::1", 1)), trusted=True)
    assert values_of(head, b"x-forwarded-for") == [b"198.51.100.1, 198.51.100.2, 2001:db8::1"]
    assert values_of(head, b"x-forwarded-proto") == [b"https"]
    assert values_of(head, b"x-forwarded-host") == [b"public.example"]
    assert values_of(head, b"x-forwarded-port") == [b"443"]
    assert values_of(head, b"x-real-ip") == [b"198.51.100.1"]
    assert values_of(head, b"forwarded") == [b'for=198.51.100.1, for="[2001:db8::1]";proto=http;host="a"']


async def test_the_upstream_may_get_its_own_host_and_a_via() -> None:
    head = await sent_head(scope_of(), host_header=b"inner:9000", via=b"1.1 gate", forwarded=False)
    assert values_of(head, b"host") == [b"inner:9000"]
    assert values_of(head, b"x-forwarded-host") == [b"app.example"]
    assert values_of(head, b"via") == [b"1.1 gate"]
    assert values_of(head, b"forwarded") == []


async def test_a_client_without_host_gets_the_upstreams() -> None:
    async with upstream(answering(OK)) as made, pool_to(made) as pool:
        await ask(pool, scope_of(headers=[(b"host", b"")], client=None, server=None))
        assert values_of(made.received[0], b"host") == [b"127.0.0.1:%d" % made.port]
        assert values_of(made.received[0], b"x-forwarded-for") == [b"unknown"]


BAD_REQUESTS: list[tuple[str, dict[str, Any], dict[str, Any]]] = [
    ("value with CRLF", {"headers": [(b"host", b"a"), (b"x", b"1\r\nx-auth-subject: root")]}, {}),
    ("value with NUL", {"headers": [(b"host", b"a"), (b"x", b"1\x00")]}, {}),
    ("name with a space", {"headers": [(b"host", b"a"), (b"x y", b"1")]}, {}),
    ("name with a colon", {"headers": [(b"host", b"a"), (b"x:", b"1")]}, {}),
    ("empty name", {"headers": [(b"host", b"a"), (b"", b"1")]}, {}),
    ("two hosts", {"headers": [(b"host", b"a"), (b"host", b"a")]}, {}),
    ("host with a space", {"headers": [(b"host", b"a b")]}, {}),
    ("method with a space", {"method": "GET /x"}, {}),
    ("empty method", {"method": ""}, {}),
    ("connect", {"method": "CONNECT"}, {}),
    ("target with a space", {}, {"target": b"/ HTTP/1.1"}),
    ("target with CRLF", {}, {"target": b"/\r\nx: y"}),
    ("target that is no path", {}, {"target": b"http://evil/"}),
    ("star for GET", {}, {"target": b"*"}),
    ("empty target", {}, {"target": b""}),
    ("identity with CRLF", {}, {"extra_headers": ((b"x-auth-subject", b"a\r\nx-admin: 1"),)}),
    ("identity name with a space", {}, {"extra_headers": ((b"x auth", b"a"),)}),
    ("two lengths", {"headers": [(b"host", b"a"), (b"content-length", b"1"), (b"content-length", b"1")]}, {}),
    ("odd length", {"headers": [(b"host", b"a"), (b"content-length", b"+1")]}, {}),
    ("length list", {"headers": [(b"host", b"a"), (b"content-length", b"1, 1")]}, {}),
    ("both framings", {"headers": [(b"content-length", b"1"), (b"transfer-encoding", b"chunked")]}, {}),
    ("odd coding", {"headers": [(b"host", b"a"), (b"transfer-encoding", b"gzip, chunked")]}, {}),
    ("two codings", {"headers": [(b"transfer-encoding", b"chunked"), (b"transfer-encoding", b"chunked")]}, {}),
    ("header of text", {"headers": [("x", "y")]}, {}),
]


@pytest.mark.parametrize(("scope", "options"), [row[1:] for row in BAD_REQUESTS], ids=[row[0] for row in BAD_REQUESTS])
async def test_what_could_be_read_in_two_ways_is_not_sent_at_all(
    scope: dict[str, Any], options: dict[str, Any]
) -> None:
    async with upstream(answering(OK)) as made, pool_to(made) as pool:
        fault = await fault_of(pool, scope_of(**scope), **options)
        assert (fault.kind, fault.started) == ("bad_request", False)
        assert made.connections == 0


async def test_options_star_is_relayed() -> None:
    assert (await sent_head(scope_of("OPTIONS"), target=b"*")).startswith(b"OPTIONS * HTTP/1.1\r\n")


async def test_forwarded_lines_max() -> None:
    lines = [(b"x-forwarded-for", b"192.0.2.1")] * 16
    assert await sent_head(scope_of(headers=[(b"host", b"a"), *lines]), trusted=True)
    async with upstream(answering(OK)) as made, pool_to(made) as pool:
        fault = await fault_of(pool, scope_of(headers=[(b"host", b"a"), *lines, *lines[:1]]), trusted=True)
        assert fault.kind == "bad_request"


async def test_request_head_bytes_max() -> None:
    async with upstream(answering(OK), limit=1 << 20) as made, pool_to(made) as pool:
        await ask(pool, scope_of(headers=[(b"host", b"a")]))
        room = 262_144 - len(made.received[0]) - len(b"x: \r\n")
        await ask(pool, scope_of(headers=[(b"host", b"a"), (b"x", b"y" * room)]))
        assert len(made.received[1]) == 262_144
        fault = await fault_of(pool, scope_of(headers=[(b"host", b"a"), (b"x", b"y" * (room + 1))]))
        assert fault.kind == "bad_request"


# -- request bodies ---------------------------------------------------------------------------------------------------


def reading_bodies(answer: bytes = OK) -> Callable[[Upstream], Talk]:
    """Read each request with its body; `received` gets head and raw body."""

    def talk_of(made: Upstream) -> Talk:
        async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                body = b""
                for value in values_of(head, b"content-length"):
                    body = await reader.readexactly(int(value))
                if values_of(head, b"transfer-encoding"):
                    while not body.endswith(b"\r\n0\r\n\r\n"):
                        body += await reader.readuntil(b"\r\n")
                made.received.append(head + body)
                writer.write(answer)

        return talk

    return talk_of


async def test_a_body_of_known_length_keeps_its_length() -> None:
    async with upstream(reading_bodies()) as made, pool_to(made) as pool:
        scope = scope_of("POST", [(b"host", b"a"), (b"content-length", b"11")])
        for _ in range(2):
            client = await ask(pool, scope, Client(pieces(b"hello", b" ", b"world", b"")))
            assert client.body == b"ok"
        assert made.received[0].endswith(b"content-length: 11\r\n\r\nhello world")
        assert made.received == made.received[:1] * 2
        assert made.connections == 1


async def test_a_body_of_unknown_length_is_chunked_anew() -> None:
    async with upstream(reading_bodies()) as made, pool_to(made) as pool:
        scope = scope_of("POST", [(b"host", b"a"), (b"transfer-encoding", b"Chunked")])
        await ask(pool, scope, Client(pieces(b"hello", b"", b"0\r\nx", b"")))
        assert made.received[0].endswith(b"transfer-encoding: chunked\r\n\r\n5\r\nhello\r\n4\r\n0\r\nx\r\n0\r\n\r\n")


@pytest.mark.parametrize(("length", "together"), [(65_536, True), (65_537, False)])
async def test_the_head_of_a_short_body_waits_for_its_first_piece(length: int, together: bool) -> None:
    """Two packets for one small request would cost both sides a system call more."""
    async with upstream(reading_bodies()) as made, pool_to(made, response_timeout_s=9 * FOREVER_S) as pool:
        steps: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
        client = Client()
        client.receive = steps.get  # type: ignore[method-assign]
        first_bytes = asyncio.Event()
        serve = made.talk

        async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await until(lambda: reader._buffer)  # type: ignore[attr-defined]
            first_bytes.set()
            await serve(reader, writer)

        made.talk = talk
        headers = [(b"host", b"a"), (b"content-length", b"%d" % length)]
        relaying = asyncio.ensure_future(ask(pool, scope_of("POST", headers), client))
        await until(lambda: made.connections)
        await asyncio.sleep(0.02)
        assert first_bytes.is_set() is not together
        for piece in pieces(b"x" * 5, b"x" * (length - 5)):
            steps.put_nowait(piece)
        await relaying
        assert made.received[0].endswith(b"\r\n\r\n" + b"x" * length)


async def test_a_length_of_zero_is_said_and_nothing_is_read() -> None:
    client = Client()
    head = await sent_head(scope_of("POST", [(b"host", b"a"), (b"content-length", b"0")]), client)
    assert values_of(head, b"content-length") == [b"0"]
    assert client.asked == 0


async def test_an_http_2_post_without_length_is_chunked() -> None:
    async with upstream(reading_bodies()) as made, pool_to(made) as pool:
        await ask(pool, scope_of("POST", http_version="2"), Client(pieces(b"hello")))
        assert made.received[0].endswith(b"transfer-encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n")


@pytest.mark.parametrize("parts", [(b"123456",), (b"1234", b"56"), (b"1234",), (b"12", b"3", b"")])
async def test_a_body_of_another_length_than_announced_is_never_completed(parts: tuple[bytes, ...]) -> None:
    """Request smuggling by a wrong length ends at the gateway: the upstream's connection is closed."""
    async with upstream(reading_bodies()) as made, pool_to(made) as pool:
        scope = scope_of("POST", [(b"host", b"a"), (b"content-length", b"5")])
        fault = await fault_of(pool, scope, Client(pieces(*parts)))
        assert fault.kind == "bad_request"
        await until(lambda: made.closed == made.connections == 1)
        assert made.received == []


async def test_nothing_is_read_of_a_client_beyond_the_length_that_it_announced() -> None:
    async with upstream(reading_bodies()) as made, pool_to(made) as pool:
        client = Client(pieces(b"12345", b"GET /admin HTTP/1.1\r\n\r\n"))
        await ask(pool, scope_of("POST", [(b"host", b"a"), (b"content-length", b"5")]), client)
        assert client.asked == 1
        await ask(pool)
        assert made.received[0].endswith(b"\r\n\r\n12345")
        assert made.received[1].startswith(b"GET / HTTP/1.1\r\n")


async def test_body_bytes_max_is_held_with_and_without_a_length() -> None:
    async with upstream(reading_bodies()) as made, pool_to(made, body_bytes_max=5) as pool:
        exact = scope_of("POST", [(b"host", b"a"), (b"content-length", b"5")])
        chunked = scope_of("POST", [(b"host", b"a"), (b"transfer-encoding", b"chunked")])
        assert (await ask(pool, exact, Client(pieces(b"12345")))).body == b"ok"
        assert (await ask(pool, chunked, Client(pieces(b"123", b"45")))).body == b"ok"
        seen = len(made.received)
        longer = scope_of("POST", [(b"host", b"a"), (b"content-length", b"6")])
        for scope in (longer, chunked):
            fault = await fault_of(pool, scope, Client(pieces(b"123", b"456")))
            assert (fault.kind, fault.started) == ("body_too_large", False)
        assert len(made.received) == seen


async def test_a_client_that_leaves_in_the_middle_of_its_body_closes_the_upstream() -> None:
    async with upstream(reading_bodies()) as made, pool_to(made) as pool:
        client = Client([{"type": "http.request", "body": b"12", "more_body": True}, {"type": "http.disconnect"}])
        fault = await fault_of(pool, scope_of("POST", [(b"host", b"a"), (b"content-length", b"5")]), client)
        assert fault.kind == "client_gone"
        await until(lambda: made.closed == 1)
        assert made.received == []


async def test_a_body_that_does_not_go_on_is_given_up() -> None:
    async with upstream(reading_bodies()) as made, pool_to(made, body_timeout_s=2 * FOREVER_S) as pool:
        client = Client([{"type": "http.request", "body": b"12", "more_body": True}])
        relaying = asyncio.ensure_future(
            fault_of(pool, scope_of("POST", [(b"host", b"a"), (b"content-length", b"5")]), client)
        )
        await until(lambda: client.asked == 2)
        pool.tick()
        pool.tick()
        await asyncio.sleep(0)
        assert not relaying.done()
        pool.tick()
        assert (await relaying).kind == "body_timeout"
        await until(lambda: made.closed == 1)


async def test_expect_100_continue_asks_the_upstream_before_the_client() -> None:
    """RFC 9110 §10.1.1: the expectation is forwarded; the client's body is read when the upstream wants it."""
    go_on = asyncio.Event()

    def talk_of(made: Upstream) -> Talk:
        async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await made.read_request(reader)
            await go_on.wait()
            writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
            made.received.append(await reader.readexactly(5))
            writer.write(OK)

        return talk

    async with upstream(talk_of) as made, pool_to(made) as pool:
        client = Client(pieces(b"hello"))
        headers = [(b"host", b"a"), (b"content-length", b"5"), (b"expect", b"100-Continue")]
        relaying = asyncio.ensure_future(ask(pool, scope_of("POST", headers), client))
        await until(lambda: made.received)
        assert values_of(made.received[0], b"expect") == [b"100-continue"]
        assert client.asked == 0
        go_on.set()
        await relaying
        assert made.received[1] == b"hello"
        assert client.body == b"ok"


async def test_an_upstream_that_refuses_an_expectation_gets_no_body() -> None:
    refusal = b"HTTP/1.1 413 No\r\ncontent-length: 3\r\n\r\nbig"
    async with upstream(answering(refusal)) as made, pool_to(made) as pool:
        client = Client(pieces(b"hello"))
        headers = [(b"host", b"a"), (b"content-length", b"5"), (b"expect", b"100-continue")]
        await ask(pool, scope_of("POST", headers), client)
        assert (client.status, client.body, client.asked) == (413, b"big", 0)
        await until(lambda: made.closed == 1)  # its half-finished request makes the connection useless
        assert len(made.received) == 1


async def test_an_upstream_that_ignores_an_expectation_gets_the_body_after_a_while() -> None:
    async with (
        upstream(reading_bodies()) as made,
        pool_to(made, expect_timeout_s=FOREVER_S, response_timeout_s=9 * FOREVER_S) as pool,
    ):
        headers = [(b"host", b"a"), (b"content-length", b"5"), (b"expect", b"100-continue")]
        client = Client(pieces(b"hello"))
        relaying = asyncio.ensure_future(ask(pool, scope_of("POST", headers), client))
        await until(lambda: pool.stats()["active"] == 1)
        await asyncio.sleep(0.02)
        assert client.asked == 0
        pool.tick()
        pool.tick()
        await relaying
        assert made.received[0].endswith(b"expect: 100-continue\r\n\r\nhello")


def test_a_continue_that_comes_before_the_upload_has_begun_counts() -> None:
    """Regression: it was dropped, and the body waited for expect_timeout_s. uvloop reads before it runs new tasks."""

    async def run() -> None:
        with recorder() as app:
            pool = UpstreamPool("127.0.0.1", app.port, tick_s=FOREVER_S, expect_timeout_s=FOREVER_S)
            await ask(pool)  # so that there is a connection
            headers = [(b"host", b"a"), (b"content-length", b"5"), (b"expect", b"100-continue")]
            relaying = asyncio.ensure_future(ask(pool, scope_of("POST", headers), Client(pieces(b"hello"))))
            asyncio.get_running_loop().call_soon(time.sleep, 0.1)  # the head is out, and the answer comes meanwhile
            await relaying
            assert app.take()[-1].body == b"hello"
            await pool.aclose()

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(run())


async def test_an_early_answer_ends_an_upload_and_its_connection() -> None:
    async with upstream(answering(b"HTTP/1.1 401 No\r\ncontent-length: 0\r\n\r\n")) as made, pool_to(made) as pool:
        client = Client([{"type": "http.request", "body": b"12", "more_body": True}])
        await ask(pool, scope_of("POST", [(b"host", b"a"), (b"content-length", b"5")]), client)
        assert (client.status, client.whole) == (401, True)
        await until(lambda: made.closed == 1)
        assert pool.stats()["idle"] == 0


async def test_response_and_request_stream_at_the_same_time() -> None:
    def talk_of(made: Upstream) -> Talk:
        async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await made.read_request(reader)
            writer.write(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n")
            while (size := int(await reader.readline(), 16)) > 0:
                data = await reader.readexactly(size + 2)
                writer.write(b"%x\r\n%b" % (size, data))
            writer.write(b"0\r\n\r\n")

        return talk

    async with upstream(talk_of) as made, pool_to(made) as pool:
        steps: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
        client = Client()
        client.receive = steps.get  # type: ignore[method-assign]
        scope = scope_of("POST", [(b"host", b"a"), (b"transfer-encoding", b"chunked")])
        relaying = asyncio.ensure_future(ask(pool, scope, client))
        for number in range(3):
            part = b"part %d" % number
            steps.put_nowait({"type": "http.request", "body": part, "more_body": True})
            await until(lambda: client.body.endswith(part))  # noqa: B023 - awaited before the next round
        steps.put_nowait({"type": "http.request", "body": b"", "more_body": False})
        await relaying
        assert client.body == b"part 0part 1part 2"
        assert client.whole


# -- responses --------------------------------------------------------------------------------------------------------

RESPONSES = [
    (b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello", b"hello", True),
    (b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", b"", True),
    (
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhe\r\n3;x\r\nllo\r\n0\r\nT: x\r\n\r\n",
        b"hello",
        True,
    ),
    (b"HTTP/1.1 200\r\nContent-Length: 5\r\nConnection: close\r\n\r\nhello", b"hello", False),
    (b"HTTP/1.0 200 OK\r\nContent-Length: 5\r\n\r\nhello", b"hello", False),
    (b"HTTP/1.0 200 OK\r\nContent-Length: 5\r\nConnection: Keep-Alive\r\n\r\nhello", b"hello", True),
    (b"HTTP/1.1 204 None\r\nContent-Length: 3\r\n\r\n", b"", True),
    (b"HTTP/1.1 304 Same\r\nContent-Length: 3\r\n\r\n", b"", True),
    (
        b"HTTP/1.1 103 Hints\r\nLink: x\r\n\r\nHTTP/1.1 100 Go\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok",
        b"ok",
        True,
    ),
    (b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nokHTTP/1.1 200 OK\r\n", b"ok", False),
]


def dripping(answer: bytes, size: int) -> Callable[[Upstream], Talk]:
    def talk_of(made: Upstream) -> Talk:
        async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            while True:
                await made.read_request(reader)
                for start in range(0, len(answer), size):
                    writer.write(answer[start : start + size])
                    await asyncio.sleep(0)

        return talk

    return talk_of


@pytest.mark.parametrize(("answer", "body", "reused"), RESPONSES, ids=[str(number) for number in range(len(RESPONSES))])
@pytest.mark.parametrize("size", [1, 7, 10_000])
async def test_responses_of_each_framing_arrive_whole_however_they_are_cut(
    answer: bytes, body: bytes, reused: bool, size: int
) -> None:
    if not reused:
        size = max(size, 10_000 if answer.endswith(b"OK\r\n") else 1)
    async with upstream(dripping(answer, size)) as made, pool_to(made) as pool:
        for _ in range(2):
            client = await ask(pool)
            assert client.body == body
            assert client.whole
            names = {name for name, _ in client.headers}
            assert not names & {b"connection", b"transfer-encoding"}
        if reused or size == 10_000:
            assert made.connections == (1 if reused else 2)


async def test_a_response_to_head_has_its_length_and_no_body() -> None:
    async with upstream(answering(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n")) as made, pool_to(made) as pool:
        for _ in range(2):
            client = await ask(pool, scope_of("HEAD"))
            assert (client.headers, client.body, client.whole) == ([(b"content-length", b"5")], b"", True)
        assert made.connections == 1


async def test_a_body_without_length_ends_with_the_connection() -> None:
    async with upstream(answering(b"HTTP/1.1 200 OK\r\n\r\nhello", close=True)) as made, pool_to(made) as pool:
        client = await ask(pool)
        assert (client.body, client.whole) == (b"hello", True)


async def test_hop_by_hop_headers_of_a_response_stay_here() -> None:
    answer = (
        b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: X-Hop, Set-Cookie\r\nX-Hop: 1\r\n"
        b"Keep-Alive: timeout=5\r\n"
        b"Upgrade: h2c\r\nProxy-Authenticate: Basic\r\nTrailer: x\r\nSet-Cookie: a=1\r\n"
        b"Set-Cookie: b=2\r\nX_Odd: 1\r\n\r\nok"
    )
    async with upstream(answering(answer)) as made, pool_to(made) as pool:
        client = await ask(pool)
        wanted = [(b"content-length", b"2"), (b"set-cookie", b"a=1"), (b"set-cookie", b"b=2"), (b"x_odd", b"1")]
        assert client.headers == wanted
        pool.draining = True
        assert (await ask(pool)).headers == [*wanted, (b"connection", b"close")]


BAD_RESPONSES = [
    b"HTTP/1.1 200 OK\nContent-Length: 2\n\nok",
    b"HTTP/1.1 200 OK\r\nContent-Length : 2\r\n\r\nok",
    b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\nok",
    b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 2\r\n\r\nok",
    b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n",
    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\n\r\nok",
    b"HTTP/1.1 200 OK\r\nX: a\r\n b\r\n\r\n",
    b"HTTP/1.1 200 OK\r\nX: a\rb\r\n\r\n",
    b"HTTP/1.1 200 OK\r\nX: a\x00b\r\n\r\n",
    b"HTTP/1.1 200 OK\r\nnocolon\r\n\r\n",
    b"HTTP/1.1 99 OK\r\n\r\n",
    b"HTTP/2 200 OK\r\n\r\n",
    b"220 mail ESMTP\r\n",
    b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\n\r\n",
    b"HTTP/1.1 100 Continue\r\n\r\n" * 17 + OK,
    b"HTTP/1.1 200 OK\r\nX: " + b"y" * 65536 + b"\r\n\r\n",
]


@pytest.mark.parametrize("answer", BAD_RESPONSES, ids=[str(number) for number in range(len(BAD_RESPONSES))])
@pytest.mark.parametrize("size", [1, 100_000])
async def test_a_malformed_head_is_a_fault_before_anything_is_answered(answer: bytes, size: int) -> None:
    size = 97 if size == 1 and len(answer) > 1000 else size
    async with upstream(dripping(answer, size)) as made, pool_to(made) as pool:
        client = Client()
        fault = await fault_of(pool, None, client)
        assert (fault.kind, fault.started, client.sent) == ("protocol", False, [])
        await until(lambda: made.closed == 1)


async def test_sixteen_interim_responses_are_borne() -> None:
    async with upstream(answering(b"HTTP/1.1 102 Wait\r\n\r\n" * 16 + OK)) as made, pool_to(made) as pool:
        assert (await ask(pool)).body == b"ok"


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhel",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nhel\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nhel\r\n0\r\n",
    ],
)
async def test_an_upstream_that_dies_in_its_body_cuts_the_response(answer: bytes) -> None:
    async with upstream(answering(answer, close=True)) as made, pool_to(made) as pool:
        client = Client()
        fault = await fault_of(pool, None, client)
        assert (fault.kind, fault.started) == ("protocol", True)
        assert not client.whole


async def test_a_body_that_is_malformed_from_the_start_is_a_fault_before_the_response() -> None:
    answer = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nhelX"
    async with upstream(answering(answer)) as made, pool_to(made) as pool:
        client = Client()
        fault = await fault_of(pool, None, client)
        assert (fault.kind, fault.started, client.sent) == ("protocol", False, [])


async def test_an_upstream_that_dies_in_its_head_is_a_fault_before_the_response() -> None:
    async with upstream(answering(b"HTTP/1.1 200 OK\r\nConte", close=True)) as made, pool_to(made) as pool:
        fault = await fault_of(pool)
        assert (fault.kind, fault.started) == ("protocol", False)
        assert made.connections == 1


async def test_each_event_of_a_stream_arrives_before_the_next_is_made() -> None:
    more = asyncio.Event()

    def talk_of(made: Upstream) -> Talk:
        async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await made.read_request(reader)
            writer.write(b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n")
            for number in range(5):
                event = b"data: %d\n\n" % number
                writer.write(b"%x\r\n%b\r\n" % (len(event), event))
                await more.wait()
                more.clear()
            writer.write(b"0\r\n\r\n")

        return talk

    async with upstream(talk_of) as made, pool_to(made) as pool:
        client = Client()
        relaying = asyncio.ensure_future(ask(pool, None, client))
        for number in range(5):
            await until(lambda: client.body.endswith(b"data: %d\n\n" % number))  # noqa: B023
            more.set()
        await relaying
        assert client.body.count(b"data") == 5
        assert client.whole


# -- the pool ---------------------------------------------------------------------------------------------------------


async def test_the_connection_used_last_is_used_next() -> None:
    turn = asyncio.Event()

    def talk_of(made: Upstream) -> Talk:
        async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            number = made.connections
            while True:
                await made.read_request(reader)
                await turn.wait()
                writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 1\r\n\r\n%d" % number)

        return talk

    async with upstream(talk_of) as made, pool_to(made) as pool:
        first = [asyncio.ensure_future(ask(pool)) for _ in range(3)]
        await until(lambda: len(made.received) == 3)
        assert pool.stats()["active"] == 3
        turn.set()
        await asyncio.gather(*first)
        assert pool.stats()["idle"] == 3
        bodies = {(await ask(pool)).body for _ in range(5)}
        assert len(bodies) == 1
        assert (made.connections, pool.stats()["reuses"]) == (3, 5)


async def test_an_idle_connection_that_the_upstream_closes_is_dropped() -> None:
    async with upstream(answering(OK, close=True)) as made, pool_to(made) as pool:
        for number in range(1, 4):
            assert (await ask(pool)).body == b"ok"
            await until(lambda: pool.stats()["open"] == 0)
            assert made.connections == number
        assert pool.stats()["retries"] == 0


async def test_an_idle_connection_that_speaks_unasked_is_dropped() -> None:
    """What comes unasked must not become the next request's answer."""

    def talk_of(made: Upstream) -> Talk:
        async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await made.read_request(reader)
            writer.write(OK)
            await until(lambda: pool.stats()["idle"] == 1)
            writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\nevil")
            await reader.read()

        return talk

    async with upstream(talk_of) as made, pool_to(made) as pool:
        await ask(pool)
        await until(lambda: pool.stats()["open"] == 0)
        assert (await ask(pool)).body == b"ok"
        assert made.connections == 2


def dying_on_the_second(made: Upstream) -> Talk:
    """Answer the first request of each connection, and close at the second without a word."""

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await made.read_request(reader)
        writer.write(OK)
        await made.read_request(reader)

    return talk


@pytest.mark.parametrize("method", ["GET", "HEAD", "OPTIONS", "PUT", "DELETE"])
async def test_a_kept_connection_that_dies_before_a_byte_costs_one_retry(method: str) -> None:
    async with upstream(dying_on_the_second) as made, pool_to(made) as pool:
        await ask(pool)
        await ask(pool, scope_of(method))
        assert (made.connections, len(made.received), pool.stats()["retries"]) == (2, 3, 1)


@pytest.mark.parametrize(
    "scope",
    [
        scope_of("POST"),
        scope_of("PATCH"),
        scope_of("POST", [(b"host", b"a"), (b"content-length", b"1")]),
        scope_of("PUT", [(b"host", b"a"), (b"content-length", b"1")]),
    ],
)
async def test_what_may_have_had_an_effect_is_not_sent_twice(scope: dict[str, Any]) -> None:
    """RFC 9110 §9.2.2: a proxy MUST NOT automatically retry non-idempotent requests."""
    async with upstream(dying_on_the_second) as made, pool_to(made) as pool:
        await ask(pool)
        fault = await fault_of(pool, scope, Client(pieces(b"x")))
        assert (fault.kind, len(made.received), pool.stats()["retries"]) == ("protocol", 2, 0)


async def test_a_fresh_connection_that_dies_is_not_tried_again() -> None:
    def talk_of(made: Upstream) -> Talk:
        async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await made.read_request(reader)

        return talk

    async with upstream(talk_of) as made, pool_to(made) as pool:
        assert (await fault_of(pool)).kind == "protocol"
        assert made.connections == 1


async def test_connections_max_holds_and_the_rest_waits_in_turn() -> None:
    go_on = asyncio.Semaphore(0)

    def talk_of(made: Upstream) -> Talk:
        async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            while True:
                await made.read_request(reader)
                await go_on.acquire()
                writer.write(OK)

        return talk

    async with upstream(talk_of) as made, pool_to(made, connections_max=2, queue_max=3) as pool:
        relaying = [asyncio.ensure_future(ask(pool, target=b"/%d" % number)) for number in range(5)]
        await until(lambda: len(made.received) == 2)
        assert pool.stats() | {"waiting": 3, "active": 2, "open": 2} == pool.stats()
        fault = await fault_of(pool)  # a sixth finds the queue full
        assert fault.kind == "busy"
        for _ in range(5):
            go_on.release()
        await asyncio.gather(*relaying)
        assert made.connections == 2
        assert [lines_of(head)[0].split()[1] for head in made.received][2:] == [b"/2", b"/3", b"/4"]


async def test_who_waits_too_long_for_a_connection_is_told_that_it_is_busy() -> None:
    def talk_of(made: Upstream) -> Talk:
        async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await made.read_request(reader)
            await reader.read()

        return talk

    async with upstream(talk_of) as made, pool_to(made, connections_max=1, response_timeout_s=9 * FOREVER_S) as pool:
        first = asyncio.ensure_future(fault_of(pool))
        await until(lambda: made.received)
        second = asyncio.ensure_future(fault_of(pool))
        await until(lambda: pool.stats()["waiting"] == 1)
        pool.tick()
        pool.tick()
        assert (await second).kind == "busy"
        assert pool.stats()["waiting"] == 0
        first.cancel()


async def test_an_upstream_that_is_not_there_is_unreachable() -> None:
    async with upstream(answering(OK)) as made:
        port = made.port
    pool = UpstreamPool("127.0.0.1", port, tick_s=FOREVER_S)
    faults = await asyncio.gather(*[fault_of(pool) for _ in range(5)])
    assert {fault.kind for fault in faults} == {"unreachable"}
    assert pool.stats()["faults"] == 5
    await pool.aclose()


async def test_a_connection_that_cannot_be_opened_in_time_is_unreachable() -> None:
    """A listener whose backlog is full does not answer a SYN."""
    import socket

    listener = socket.socket()
    listener.bind(("127.0.0.1", 0))
    listener.listen(0)
    fillers = []
    for _ in range(4):
        filler = socket.socket()
        filler.setblocking(False)
        filler.connect_ex(listener.getsockname())
        fillers.append(filler)
    pool = UpstreamPool("127.0.0.1", listener.getsockname()[1], connect_timeout_s=0.05, tick_s=FOREVER_S)
    try:
        assert (await fault_of(pool)).kind == "unreachable"
        assert pool.stats()["opening"] == 0
    finally:
        await pool.aclose()
        for each in (listener, *fillers):
            each.close()


async def test_an_upstream_that_does_not_answer_times_out() -> None:
    def talk_of(made: Upstream) -> Talk:
        async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await made.read_request(reader)
            await reader.read()

        return talk

    async with upstream(talk_of) as made, pool_to(made, response_timeout_s=3 * FOREVER_S) as pool:
        relaying = asyncio.ensure_future(fault_of(pool))
        await until(lambda: made.received)
        for _ in range(3):
            pool.tick()
        await asyncio.sleep(0.01)
        assert not relaying.done()
        pool.tick()
        fault = await relaying
        assert (fault.kind, fault.started) == ("timeout", False)
        await until(lambda: made.closed == 1)


async def test_a_body_that_stops_times_out_after_its_last_piece() -> None:
    step = asyncio.Event()

    def talk_of(made: Upstream) -> Talk:
        async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await made.read_request(reader)
            writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\n")
            for _ in range(3):
                await step.wait()
                step.clear()
                writer.write(b"abc")
            await reader.read()

        return talk

    async with upstream(talk_of) as made, pool_to(made, response_timeout_s=FOREVER_S) as pool:
        client = Client()
        relaying = asyncio.ensure_future(fault_of(pool, None, client))
        for number in range(2):
            pool.tick()  # one tick between two pieces is borne, however many there are
            step.set()
            await until(lambda: len(client.body) == 3 * number + 3)  # noqa: B023
        pool.tick()
        await asyncio.sleep(0)
        assert not relaying.done()
        pool.tick()
        fault = await relaying
        assert (fault.kind, fault.started, client.whole) == ("timeout", True, False)


async def test_an_idle_connection_is_closed_after_keepalive_s() -> None:
    async with upstream(answering(OK)) as made, pool_to(made, keepalive_s=2 * FOREVER_S) as pool:
        await ask(pool)
        pool.tick()
        assert pool.stats()["idle"] == 1
        pool.tick()
        assert pool.stats()["open"] == 0
        await until(lambda: made.closed == 1)


async def test_the_pool_moves_its_own_clock_while_it_has_work() -> None:
    async with upstream(answering(OK)) as made, pool_to(made, keepalive_s=0.02, tick_s=0.01) as pool:
        await ask(pool)
        await until(lambda: pool.stats()["open"] == 0)


async def test_a_client_that_goes_away_closes_the_upstreams_connection() -> None:
    def talk_of(made: Upstream) -> Talk:
        async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await made.read_request(reader)
            await reader.read()

        return talk

    async with upstream(talk_of) as made, pool_to(made, response_timeout_s=9 * FOREVER_S) as pool:
        client = Client(pieces(b""))
        relaying = asyncio.ensure_future(fault_of(pool, None, client))
        await until(lambda: made.received)
        assert client.asked == 0  # nobody listens for the end of a request that is answered at once
        pool.tick()
        pool.tick()
        await until(lambda: client.asked == 2)
        client.gone.set()
        assert (await relaying).kind == "client_gone"
        await until(lambda: made.closed == 1)


async def test_a_cancelled_request_closes_the_upstreams_connection() -> None:
    def talk_of(made: Upstream) -> Talk:
        async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await made.read_request(reader)
            await reader.read()

        return talk

    async with upstream(talk_of) as made, pool_to(made) as pool:
        relaying = asyncio.ensure_future(ask(pool))
        await until(lambda: made.received)
        relaying.cancel()
        with pytest.raises(asyncio.CancelledError):
            await relaying
        await until(lambda: made.closed == 1)


async def test_a_send_that_fails_closes_the_upstreams_connection() -> None:
    async with upstream(answering(b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nabc")) as made, pool_to(made) as pool:
        client = Client()

        async def refuse(message: dict[str, Any]) -> None:
            raise BrokenPipeError

        client.send = refuse  # type: ignore[method-assign]
        assert (await fault_of(pool, None, client)).kind == "client_gone"
        await until(lambda: made.closed == 1)


async def test_a_slow_client_stops_the_upstream_and_memory_stays_bounded() -> None:
    total = 64 * 1024 * 1024
    written = 0

    def talk_of(made: Upstream) -> Talk:
        async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            nonlocal written
            await made.read_request(reader)
            writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n" % total)
            block = b"x" * 65536
            while written < total:
                writer.write(block)
                written += len(block)
                await writer.drain()

        return talk

    async with upstream(talk_of) as made, pool_to(made) as pool:
        client = Client()
        client.reads.clear()
        relaying = asyncio.ensure_future(ask(pool, None, client))
        await until(lambda: written > 0)
        before = -1
        while before != written:  # until the upstream finds no more room
            before = written
            await asyncio.sleep(0.05)
        assert written < 16 * 1024 * 1024  # the kernel's buffers, and ours of 64 KiB and one read
        counted = 0

        async def count(message: dict[str, Any]) -> None:
            nonlocal counted
            counted += len(message.get("body", b""))

        client.send = count  # type: ignore[method-assign]
        client.reads.set()
        relaying.cancel()
        with pytest.raises(asyncio.CancelledError):
            await relaying
        written = 0
        await ask(pool, None, client)
        assert counted == total


async def test_a_slow_upstream_stops_the_client() -> None:
    go_on = asyncio.Event()
    total = 32 * 1024 * 1024

    def talk_of(made: Upstream) -> Talk:
        async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await made.read_request(reader)
            await go_on.wait()
            left = total
            while left:
                left -= len(await reader.read(1 << 20))
            writer.write(OK)

        return talk

    async with upstream(talk_of) as made, pool_to(made) as pool:
        block = b"x" * 65536
        client = Client(pieces(*[block] * (total // len(block))))
        scope = scope_of("POST", [(b"host", b"a"), (b"content-length", b"%d" % total)])
        relaying = asyncio.ensure_future(ask(pool, scope, client))
        await until(lambda: client.asked > 0)
        before = -1
        while before != client.asked:
            before = client.asked
            await asyncio.sleep(0.05)
        assert client.asked * len(block) < 16 * 1024 * 1024
        go_on.set()
        await relaying
        assert client.body == b"ok"


async def test_a_closed_pool_takes_no_request_and_lets_running_ones_finish() -> None:
    go_on = asyncio.Event()

    def talk_of(made: Upstream) -> Talk:
        async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await made.read_request(reader)
            await go_on.wait()
            writer.write(OK)
            await reader.read()

        return talk

    async with upstream(talk_of) as made, pool_to(made) as pool:
        relaying = asyncio.ensure_future(ask(pool))
        await until(lambda: made.received)
        closing = asyncio.ensure_future(pool.aclose(grace_s=10))
        await asyncio.sleep(0)
        assert (await fault_of(pool)).kind == "unreachable"
        go_on.set()
        assert (await relaying).body == b"ok"
        await closing
        assert pool.stats()["open"] == 0


async def test_a_pool_that_closes_at_once_cuts_what_runs() -> None:
    def talk_of(made: Upstream) -> Talk:
        async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await made.read_request(reader)
            await reader.read()

        return talk

    async with upstream(talk_of) as made, pool_to(made) as pool:
        relaying = asyncio.ensure_future(fault_of(pool))
        await until(lambda: made.received)
        await pool.aclose()
        assert (await relaying).kind == "unreachable"


async def test_a_unix_socket_can_be_the_upstream(tmp_path: Path) -> None:
    path = str(tmp_path / "app.sock")
    async with upstream(answering(OK), path=path) as made:
        pool = UpstreamPool("app", 80, unix_path=path, tick_s=FOREVER_S)
        for _ in range(2):
            assert (await ask(pool)).body == b"ok"
        assert made.connections == 1
        await pool.aclose()


def waiting_for_the_end(made: Upstream) -> Talk:
    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()

    return talk


async def test_streams_max_holds_and_streams_end_with_the_pool() -> None:
    async with upstream(waiting_for_the_end) as made:
        async with pool_to(made, streams_max=2) as pool:
            first = await pool.open_stream()
            await pool.open_stream()
            assert pool.stats()["streams"] == 2
            with pytest.raises(UpstreamFault) as caught:
                await pool.open_stream()
            assert caught.value.kind == "busy"
            pool.close_stream(first[1])
            await pool.open_stream()
        assert pool.stats()["streams"] == 0
        await until(lambda: made.closed == 3)
        with pytest.raises(UpstreamFault) as caught:
            await pool.open_stream()
        assert caught.value.kind == "unreachable"


async def test_a_stream_to_nowhere_is_unreachable() -> None:
    async with upstream(answering(OK)) as made:
        port = made.port
    pool = UpstreamPool("127.0.0.1", port, tick_s=FOREVER_S)
    with pytest.raises(UpstreamFault) as caught:
        await pool.open_stream()
    assert (caught.value.kind, pool.stats()["streams"]) == ("unreachable", 0)


def test_the_head_of_a_handshake_is_filtered_like_any_other() -> None:
    pool = UpstreamPool("127.0.0.1", 80)
    scope = scope_of(
        headers=[(b"host", b"a"), (b"x-auth-subject", b"evil"), (b"sec-websocket-key", b"theirs")], scheme="wss"
    )
    scope["type"] = "websocket"
    del scope["method"]
    ours = (*IDENTITY, (b"connection", b"Upgrade"), (b"sec-websocket-key", b"ours"))
    head = pool.request_head(scope, b"/chat", ours, DROP)
    assert head.startswith(b"GET /chat HTTP/1.1\r\nhost: a\r\n")
    assert values_of(head, b"x-auth-subject") == [b"alice"]
    assert values_of(head, b"sec-websocket-key") == [b"ours"]
    assert values_of(head, b"x-forwarded-proto") == [b"https"]
    assert values_of(head, b"connection") == [b"Upgrade"]
    for line in ((b"content-length", b"1"), (b"transfer-encoding", b"chunked")):
        with pytest.raises(UpstreamFault):
            pool.request_head(scope_of(headers=[(b"host", b"a"), line]), b"/")


def test_settings_that_make_no_sense_are_refused() -> None:
    for options in (
        {"connections_max": 0},
        {"queue_max": -1},
        {"response_timeout_s": 0.0},
        {"tick_s": 0.0},
        {"host_header": b"a b"},
        {"via": b"a\r\nb"},
    ):
        with pytest.raises(ValueError, match=r".+"):
            UpstreamPool("127.0.0.1", 80, **options)
    with pytest.raises(ValueError, match="port"):
        UpstreamPool("127.0.0.1", 65536)


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A certificate for `upstream.test`, and its key."""
    import datetime

    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "upstream.test")])
    now = datetime.datetime.now(datetime.UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("upstream.test")]), False)
        .sign(key, hashes.SHA256())
    )
    folder = tmp_path_factory.mktemp("tls")
    (folder / "cert.pem").write_bytes(made.public_bytes(serialization.Encoding.PEM))
    (folder / "key.pem").write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    return folder / "cert.pem", folder / "key.pem"


async def test_an_upstream_over_tls_is_verified_by_its_name(certificate: tuple[Path, Path]) -> None:
    serving = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    serving.load_cert_chain(*certificate)
    trusting = ssl.create_default_context(cafile=str(certificate[0]))
    async with upstream(reading_bodies(), ssl=serving) as made:
        async with pool_to(made, tls=trusting, server_name="upstream.test") as pool:
            scope = scope_of("POST", [(b"host", b"a"), (b"content-length", b"5")])
            for _ in range(3):
                assert (await ask(pool, scope, Client(pieces(b"hello")))).body == b"ok"
            assert pool.stats()["connects"] == 1
        async with pool_to(made, tls=trusting, server_name="another.test") as pool:
            assert (await fault_of(pool)).kind == "unreachable"
        async with pool_to(made, tls=ssl.create_default_context(), server_name="upstream.test") as pool:
            assert (await fault_of(pool)).kind == "unreachable"
