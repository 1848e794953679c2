"""What an app learns about its caller comes from the gateway alone, whatever the caller writes."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.real.gateway import ISSUER, Gateway, bearer, gateway, issuer_toml, mint
from tests.real.http import Connection
from tests.real.lines import logged
from tests.real.recorder import Recorder, Request, recorder

pytestmark = pytest.mark.journey

Header = tuple[str, str]

IDENTITY = ("x-auth-subject", "x-auth-issuer", "x-auth-scopes", "x-email", "x-tenant-id")
CANARY = "root-of-all-evil"


@pytest.fixture(scope="module")
def app() -> Iterator[Recorder]:
    with recorder() as running:
        yield running


def config_of(folder: Path, app: Recorder, access: str = "off") -> str:
    return f"""#server
{issuer_toml(folder)}
[identity.headers]
X-Email = "email"
X-Tenant-Id = "tenant"

[log]
access = "{access}"

[[routes]]
path = "/api/{{*rest}}"
scopes = ["orders:read"]
upstream = "{app.url}"

[[routes]]
path = "/open/{{*rest}}"
auth = "none"
upstream = "{app.url}"
"""


@pytest.fixture(scope="module", params=["off", "-"], ids=["plain", "access-log"])
def running(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, app: Recorder
) -> Iterator[Gateway]:
    """Relayed without a coroutine, and with the one that an access log needs."""
    folder = tmp_path_factory.mktemp("gateway")
    with gateway(folder, config_of(folder, app, request.param)) as started:
        yield started


@pytest.fixture(scope="module")
def stranger(tmp_path_factory: pytest.TempPathFactory, app: Recorder) -> Iterator[Gateway]:
    """A gateway to which nobody here is a trusted proxy."""
    folder = tmp_path_factory.mktemp("stranger")
    with gateway(folder, 'trusted_proxies = ["192.0.2.0/24"]\n' + config_of(folder, app)) as started:
        yield started


def assert_named_by_the_gateway(request: Request, expected: dict[str, str]) -> None:
    """Each identity header stands there once, with our value; no other spelling of it, and no value of the client's."""
    for name in IDENTITY:
        assert request.one(name) == expected.get(name, "")
    assert len(request.one("x-auth-decision-id")) == 32
    assert CANARY not in request.head.decode("latin-1")


ALICE = {"x-auth-subject": "alice", "x-auth-issuer": ISSUER, "x-auth-scopes": "orders:read", "x-email": "a@example.com"}
ROUTES = [("/api/1", ALICE), ("/open/1", dict[str, str]())]


def credentials(target: str) -> list[Header]:
    return [bearer(mint(email="a@example.com"))] if target.startswith("/api") else []


def spellings(name: str) -> list[str]:
    return [name, name.upper(), name.title(), "".join(c.upper() if i % 2 else c for i, c in enumerate(name))]


@pytest.mark.parametrize(("target", "expected"), ROUTES)
@pytest.mark.parametrize("name", [*IDENTITY, "x-auth-decision-id"])
def test_a_spoofed_identity_never_arrives(
    running: Gateway, app: Recorder, target: str, expected: dict[str, str], name: str
) -> None:
    with Connection(running.port) as connection:
        for spelled, repeats in itertools.product(spellings(name), (1, 3)):
            spoofed = [(spelled, CANARY)] * repeats
            answer = connection.request("GET", target, [*credentials(target), *spoofed])
            assert answer.status == 200
            assert_named_by_the_gateway(app.only(), expected)


@pytest.mark.parametrize(("target", "expected"), ROUTES)
def test_connection_does_not_take_the_identity_away(
    running: Gateway, app: Recorder, target: str, expected: dict[str, str]
) -> None:
    """CVE-2025-48865: a client names our header as hop-by-hop, and a later hop removes it."""
    for listed in (", ".join(IDENTITY), "close, X-Auth-Subject", "X-AUTH-SUBJECT", "authorization, x-auth-scopes"):
        for spoofed in ([], [("X-Auth-Subject", CANARY)]):
            answer = running.ask("GET", target, *credentials(target), ("Connection", listed), *spoofed)
            assert answer.status == 200
            request = app.only()
            assert_named_by_the_gateway(request, expected)
            assert request.all("connection") == []


@pytest.mark.parametrize("target", ["/api/1", "/open/1"])
def test_an_underscore_is_refused_before_anything_else(running: Gateway, app: Recorder, target: str) -> None:
    names = ("X_Auth_Subject", "x_auth_subject", "X-Auth_Subject", "X_Email", "x_forwarded_for", "_", "a_b")
    answers = [running.ask("GET", target, *credentials(target), (name, CANARY)) for name in names]
    assert {(answer.status, answer.json["code"]) for answer in answers} == {(400, "header_refused")}
    assert app.take() == []
    for answer in reversed(answers):
        logged(
            running.server, event="denied", reason="header_refused", request_id=answer.json["request_id"], status=400
        )


@given(data=st.data())
@settings(max_examples=40)
def test_no_mixture_of_headers_becomes_an_identity(running: Gateway, app: Recorder, data: st.DataObject) -> None:
    """Any case, any repetition, any order, with and without Connection options and a good token."""
    target, expected = data.draw(st.sampled_from(ROUTES))
    name = st.sampled_from([*IDENTITY, "x-auth-decision-id", "x-auth-user", "accept", "cookie"]).flatmap(
        lambda text: st.lists(st.booleans(), min_size=len(text), max_size=len(text)).map(
            lambda flips: "".join(c.upper() if flip else c for c, flip in zip(text, flips, strict=True))
        )
    )
    value = st.sampled_from(["root", "", "alice, root", "root\t", "a=b; c", "\xe9"])
    pairs = data.draw(st.lists(st.tuples(name, value), max_size=8))
    options = data.draw(st.lists(st.sampled_from([*IDENTITY, "keep-alive", "te", "x-auth-user"]), max_size=3))
    if options:
        pairs.append(("Connection", ", ".join(options)))
    pairs = data.draw(st.permutations([*credentials(target), *pairs]))
    assert running.ask("GET", target, *pairs).status == 200
    request = app.only()
    for header in IDENTITY:
        assert request.one(header) == expected.get(header, "")
    assert request.one("x-auth-decision-id") != "root"


def test_a_body_and_its_trailers_bring_no_identity(running: Gateway, app: Recorder) -> None:
    """Trailers are headers to some servers; ours end here."""
    with Connection(running.port) as connection:
        connection.send(
            b"POST /open/1 HTTP/1.1\r\nHost: app.test\r\nTransfer-Encoding: chunked\r\nTrailer: X-Auth-Subject\r\n\r\n"
            b"2\r\nhi\r\n0\r\nX-Auth-Subject: " + CANARY.encode() + b"\r\n\r\n"
        )
        assert connection.read_answer().status == 200
    request = app.only()
    assert (request.body, request.wire_body) == (b"hi", b"2\r\nhi\r\n0\r\n\r\n")
    assert_named_by_the_gateway(request, {})


def test_claims_that_a_header_cannot_carry_do_not_split_it(running: Gateway, app: Recorder) -> None:
    for evil in ("a\r\nX-Auth-Subject: root", "a\nb", "a\0b"):
        answer = running.ask("GET", "/api/1", bearer(mint(email=evil)))
        assert (answer.status, answer.json["code"]) == (401, "invalid_token"), app.take()
        logged(running.server, event="denied", reason="claim_invalid", request_id=answer.json["request_id"])
    assert app.take() == []


def test_forward_auth_answers_name_the_caller_once_and_blank_what_is_absent(running: Gateway) -> None:
    """The proxy overwrites with what we send, so an absent claim must be an empty header and not a missing one."""
    described = [("X-Forwarded-Method", "GET"), ("X-Forwarded-Uri", "/open/1"), ("X-Forwarded-Host", "app.test")]
    answer = running.ask("GET", "/auth/forward", *described, ("X-Auth-Subject", CANARY), ("x-email", CANARY))
    assert answer.status == 200
    assert {name: answer.one(name) for name in IDENTITY} == dict.fromkeys(IDENTITY, "")
    answer = running.ask("GET", "/auth/envoy/api/1", *credentials("/api/1"), ("X-Auth-Subject", CANARY))
    assert {name: answer.one(name) for name in IDENTITY} == {**dict.fromkeys(IDENTITY, ""), **ALICE}


# --------------------------------------------------------------------------------------------------- forwarding headers

CLAIMED = [
    ("X-Forwarded-For", "203.0.113.9"),
    ("X-Forwarded-Proto", "https"),
    ("X-Forwarded-Host", "shop.example.com"),
    ("X-Forwarded-Port", "8443"),
    ("X-Forwarded-Prefix", "/evil"),
    ("X-Real-IP", "203.0.113.9"),
    ("Forwarded", "for=203.0.113.9;proto=https"),
]


def test_forwarding_headers_of_a_stranger_are_replaced(stranger: Gateway, app: Recorder) -> None:
    assert stranger.ask("GET", "/open/1", *CLAIMED, *CLAIMED).status == 200
    request = app.only()
    assert request.one("x-forwarded-for") == "127.0.0.1"
    assert request.one("x-forwarded-proto") == "http"
    assert request.one("x-forwarded-host") == "app.test"
    assert request.one("x-forwarded-port") == str(stranger.port)
    assert request.one("forwarded") == 'for=127.0.0.1;proto=http;host="app.test"'
    assert request.all("x-forwarded-prefix") == request.all("x-real-ip") == []


def test_forwarding_headers_of_a_trusted_proxy_are_continued(running: Gateway, app: Recorder) -> None:
    assert running.ask("GET", "/open/1", *CLAIMED).status == 200
    request = app.only()
    assert request.one("x-forwarded-for") == "203.0.113.9, 127.0.0.1"
    assert request.one("x-forwarded-proto") == "https"
    assert request.one("x-forwarded-host") == "shop.example.com"
    assert request.one("x-real-ip") == "203.0.113.9"
    assert request.one("forwarded").startswith("for=203.0.113.9;proto=https, for=127.0.0.1;")


@pytest.mark.parametrize(
    ("target", "headers"),
    [
        ("/auth/forward", [("X-Forwarded-Method", "GET"), ("X-Forwarded-Uri", "/open/1")]),
        ("/auth/request", [("X-Original-Method", "GET"), ("X-Original-URL", "/open/1")]),
        ("/auth/envoy/open/1", []),
    ],
)
def test_a_stranger_may_not_ask_about_others_requests(stranger: Gateway, target: str, headers: list[Header]) -> None:
    answer = stranger.ask("GET", target, *headers)
    assert (answer.status, answer.json["code"]) == (403, "proxy_untrusted")
    logged(stranger.server, event="denied", reason="proxy_untrusted", request_id=answer.json["request_id"], status=403)


def test_a_forwarding_header_decides_nothing_at_the_proxy_door(running: Gateway, app: Recorder) -> None:
    """CVE-2026-40575: an address that needs no token is claimed for one that does."""
    claimed = [("X-Forwarded-Uri", "/open/1"), ("X-Original-URL", "/open/1"), ("X-Rewrite-URL", "/open/1")]
    assert running.ask("GET", "/api/1", *claimed, ("X-Forwarded-Method", "OPTIONS")).status == 401
    assert app.take() == []
