"""Real proxies with rendered configs before a real gateway: what clients get, and what apps see."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from gateway._native.routes import canonical_path
from tests.real.gateway import AUDIENCE, ISSUER, Gateway, bearer, gateway, issuer_toml, mint
from tests.real.http import Connection, request_bytes
from tests.real.process import free_port
from tests.real.proxies import PROXIES, Questions, RealProxy, rendered_proxy
from tests.real.recorder import Recorder, Request, Talk, recorder, respond

pytestmark = pytest.mark.journey

Header = tuple[str, str]

IDENTITY = ("x-auth-subject", "x-auth-issuer", "x-auth-scopes", "x-email")
DECISION = "x-auth-decision-id"
ALICE = {"x-auth-subject": "alice", "x-auth-issuer": ISSUER, "x-auth-scopes": "orders:read", "x-email": "a@b.test"}
GONE_ISSUER = "https://gone.test"
LOGIN = "https://login.test/start"
CANARY = "root-of-all-evil"
BROWSER = ("Accept", "text/html,application/xhtml+xml,*/*;q=0.8")


def config_of(folder: Path, legacy: Recorder) -> str:
    return f"""
{issuer_toml(folder)}
[[issuers]]
issuer = "{GONE_ISSUER}"
audiences = ["{AUDIENCE}"]
algorithms = ["RS256"]
jwks_uri = "http://127.0.0.1:{free_port()}/jwks"

[forward_auth]
login_url = "{LOGIN}"
login_hosts = ["app.test"]

[identity.headers]
X-Email = "email"

[[routes]]
path = "/orders/{{id}}"
scopes = ["orders:read"]

[[routes]]
path = "/files/{{*rest}}"
methods = ["GET", "HEAD", "POST", "DELETE"]

[[routes]]
path = "/public/{{*rest}}"
auth = "none"

[[routes]]
path = "/legacy/{{*rest}}"
strip_prefix = "/legacy"
upstream = "{legacy.url}"

[[routes]]
path = "/hosts/{{*rest}}"
host = "open.test"
auth = "none"

[[routes]]
path = "/hosts/{{*rest}}"
host = "closed.test"

[[routes]]
path = "/{{*rest}}"
host = "split.test"
auth = "none"

[[routes]]
path = "/api/{{*rest}}"
host = "split.test"
upstream = "{legacy.url}"

[[routes]]
path = "/admin"
host = "split.test"
upstream = "{legacy.url}"

[[routes]]
path = "/users/{{id}}/keys"
host = "split.test"
upstream = "{legacy.url}"

[[routes]]
path = "/{{*rest}}"
host = "odd.test"
auth = "none"

[[routes]]
path = "/o'd%20@($1),~.+%C3%A9/{{*rest}}"
host = "odd.test"
upstream = "{legacy.url}"

[[routes]]
path = "/own/{{*rest}}"
host = "part.test"
upstream = "{legacy.url}"

[[routes]]
path = "/{{*rest}}"
host = "*.wild.test"
auth = "none"
upstream = "{legacy.url}"
"""


@pytest.fixture(scope="module")
def site_app() -> Iterator[Recorder]:
    with recorder() as running:
        yield running


@pytest.fixture(scope="module")
def site_legacy() -> Iterator[Recorder]:
    with recorder() as running:
        yield running


@pytest.fixture(scope="module")
def judge(tmp_path_factory: pytest.TempPathFactory, site_legacy: Recorder) -> Iterator[Gateway]:
    folder = tmp_path_factory.mktemp("gateway")
    with gateway(folder, config_of(folder, site_legacy)) as started:
        yield started


@pytest.fixture(scope="module")
def site_questions(judge: Gateway) -> Iterator[Questions]:
    running = Questions(judge)
    yield running
    running.recorder.close()


@pytest.fixture(scope="module", params=PROXIES)
def proxy(
    request: pytest.FixtureRequest,
    tmp_path_factory: pytest.TempPathFactory,
    judge: Gateway,
    site_questions: Questions,
    site_app: Recorder,
) -> Iterator[RealProxy]:
    folder = tmp_path_factory.mktemp(request.param)
    port = site_questions.recorder.port
    running = rendered_proxy(request.param, judge.path, folder, app=site_app.url, gateway_port=port)
    try:
        running.wait_until_it_serves("/public/ready")
        yield running
    finally:
        running.stop()


@pytest.fixture
def app(proxy: RealProxy, site_app: Recorder) -> Recorder:
    site_app.take()
    return site_app


@pytest.fixture
def legacy(proxy: RealProxy, site_legacy: Recorder) -> Recorder:
    site_legacy.take()
    return site_legacy


@pytest.fixture
def questions(proxy: RealProxy, site_questions: Questions) -> Questions:
    site_questions.take()
    return site_questions


def alice() -> Header:
    return bearer(mint(email="a@b.test"))


def assert_named_by_the_gateway(request: Request, expected: dict[str, str]) -> None:
    """Each identity header stands there once with our value, or not at all; nothing of the client's is left."""
    for name in IDENTITY:
        assert request.all(name) in ([[expected[name]]] if name in expected else [[], [""]]), name
    assert len(request.one(DECISION)) == 32
    assert CANARY not in request.head.decode("latin-1")


# ------------------------------------------------------------------------------------------------- what clients get


def test_a_good_token_passes_and_the_app_learns_who_it_is(proxy: RealProxy, app: Recorder) -> None:
    decisions = set()
    for _ in range(3):
        assert proxy.ask("GET", "/orders/1", alice()).status == 200
        request = app.only()
        assert (request.method, request.target) == ("GET", "/orders/1")
        assert_named_by_the_gateway(request, ALICE)
        decisions.add(request.one(DECISION))
    assert len(decisions) == 3


def test_no_token_is_challenged_without_an_error_code(proxy: RealProxy, app: Recorder) -> None:
    answer = proxy.ask("GET", "/orders/1")
    assert answer.status == 401
    challenge = answer.one("www-authenticate")
    assert challenge.startswith("Bearer realm=")
    assert "error" not in challenge
    assert app.take() == []


@pytest.mark.parametrize(
    "token",
    [
        pytest.param(lambda: mint(exp=1), id="expired"),
        pytest.param(lambda: mint(aud="other-api"), id="audience"),
        pytest.param(lambda: mint(iss="https://evil.test"), id="issuer"),
        pytest.param(lambda: mint("stranger"), id="unknown-key"),
        pytest.param(lambda: mint()[:-8] + "AAAAAAAA", id="signature"),
        pytest.param(lambda: "garbage", id="garbage"),
    ],
)
def test_a_bad_token_is_challenged_as_invalid(proxy: RealProxy, app: Recorder, token: object) -> None:
    assert callable(token)
    answer = proxy.ask("GET", "/orders/1", bearer(token()))
    assert answer.status == 401
    assert 'error="invalid_token"' in answer.one("www-authenticate")
    assert app.take() == []


def test_a_missing_scope_is_named(proxy: RealProxy, app: Recorder) -> None:
    answer = proxy.ask("GET", "/orders/1", bearer(mint(scope="other")))
    assert answer.status == 403
    challenge = answer.one("www-authenticate")
    assert 'error="insufficient_scope"' in challenge
    assert 'scope="orders:read"' in challenge
    assert app.take() == []


@pytest.mark.parametrize(("method", "target"), [("GET", "/nowhere"), ("GET", "/"), ("PUT", "/files/1")])
def test_where_no_route_leads_nobody_goes(proxy: RealProxy, app: Recorder, method: str, target: str) -> None:
    assert proxy.ask(method, target, alice()).status == 403
    assert app.take() == []


@pytest.mark.parametrize("value", ["Bearer", "Bearer a b", "Bearer a, Bearer b"])
def test_malformed_credentials_are_a_bad_request(proxy: RealProxy, app: Recorder, value: str) -> None:
    answer = proxy.ask("GET", "/orders/1", ("Authorization", value))
    assert answer.status == 400
    assert app.take() == []


def test_two_credentials_are_a_bad_request(proxy: RealProxy, app: Recorder) -> None:
    assert proxy.ask("GET", "/orders/1", alice(), bearer("x")).status == 400
    assert app.take() == []


def test_keys_that_were_never_there_are_a_fault_of_ours_and_not_of_the_token(proxy: RealProxy, app: Recorder) -> None:
    answer = proxy.ask("GET", "/orders/1", bearer(mint(iss=GONE_ISSUER)))
    assert (answer.status, answer.one("retry-after")) == (503, "5")
    assert app.take() == []


def test_refusals_tell_their_reason(proxy: RealProxy) -> None:
    """nginx hands on no body of the gateway's."""
    answer = proxy.ask("GET", "/nowhere")
    if proxy.name != "nginx":
        assert (answer.one("content-type"), answer.json["code"]) == ("application/problem+json", "no_route")
    assert answer.all("x-auth-status") == []


def test_browsers_are_sent_to_the_login(proxy: RealProxy, app: Recorder) -> None:
    answer = proxy.ask("GET", "/orders/1?x=1", BROWSER)
    assert answer.status == 302
    assert answer.one("location") == f"{LOGIN}?rd=http%3A%2F%2Fapp.test%2Forders%2F1%3Fx%3D1"
    assert len(answer.all("www-authenticate")) <= 1
    assert proxy.ask("GET", "/orders/1", BROWSER, ("Sec-Fetch-Mode", "navigate")).status == 302
    assert proxy.ask("GET", "/orders/1", BROWSER, bearer("garbage")).status == 302
    assert app.take() == []


def test_only_who_can_come_back_is_sent_to_the_login(proxy: RealProxy) -> None:
    assert proxy.ask("GET", "/orders/1", BROWSER, ("Sec-Fetch-Mode", "cors")).status == 401
    assert proxy.ask("POST", "/orders/1", BROWSER).status == 401
    assert proxy.ask("GET", "/orders/1", BROWSER, host="other.test").one("location") == LOGIN


# ------------------------------------------------------------------------------------- what clients say of themselves

TARGETS = [("/orders/1", ALICE), ("/public/1", dict[str, str]())]


def credentials(target: str) -> list[Header]:
    return [alice()] if target == "/orders/1" else []


@pytest.mark.parametrize(("target", "expected"), TARGETS)
def test_identity_never_comes_from_the_client(
    proxy: RealProxy, app: Recorder, target: str, expected: dict[str, str]
) -> None:
    for name in (*IDENTITY, DECISION):
        for spelling in (name, name.upper(), name.title()):
            spoofed = (spelling, CANARY)
            assert proxy.ask("GET", target, spoofed, *credentials(target), spoofed).status == 200
            assert_named_by_the_gateway(app.only(), expected)


@pytest.mark.parametrize(("target", "expected"), TARGETS)
@pytest.mark.parametrize("mark", ["_", "."])
def test_names_that_an_app_may_read_as_ours_do_not_pass(
    proxy: RealProxy, app: Recorder, target: str, expected: dict[str, str], mark: str
) -> None:
    for name in (*IDENTITY, DECISION):
        words = name.split("-")
        for spelling in (
            mark.join(words),
            "-".join(words[:-1]) + mark + words[-1],
            words[0] + mark + "-".join(words[1:]),
        ):
            answer = proxy.ask("GET", target, (spelling.title(), CANARY), *credentials(target))
            for request in app.take():
                assert_named_by_the_gateway(request, expected)
            assert answer.status in {200, 400}


@pytest.mark.parametrize("listed", [", ".join(IDENTITY), "close, X-Auth-Subject", "X-AUTH-SUBJECT, keep-alive"])
def test_connection_does_not_take_the_identity_away(proxy: RealProxy, app: Recorder, listed: str) -> None:
    """CVE-2025-48865: a client names our header as hop-by-hop, and the proxy removes it."""
    assert proxy.ask("GET", "/orders/1", alice(), ("Connection", listed)).status in {200, 400}
    for request in app.take():
        assert_named_by_the_gateway(request, ALICE)


CLAIMED = [
    ("X-Forwarded-Uri", "/public/1"),
    ("X-Forwarded-Method", "OPTIONS"),
    ("X-Forwarded-Host", "open.test"),
    ("X-Forwarded-Proto", "https"),
    ("X-Forwarded-For", "203.0.113.9"),
    ("X-Forwarded-Port", "8443"),
    ("X-Forwarded-Prefix", "/public"),
    ("X-Original-URL", "http://open.test/public/1"),
    ("X-Original-Method", "OPTIONS"),
    ("X-Rewrite-URL", "/public/1"),
    ("X-Real-IP", "203.0.113.9"),
    ("Forwarded", "for=203.0.113.9;host=open.test;proto=https"),
]


@pytest.mark.parametrize("claimed", [CLAIMED, [*CLAIMED, *CLAIMED], [CLAIMED[0]], [CLAIMED[7]]])
def test_another_request_cannot_be_claimed(proxy: RealProxy, app: Recorder, claimed: list[Header]) -> None:
    """CVE-2026-40575: an address that needs no token is claimed for one that does."""
    assert proxy.ask("GET", "/orders/1", *claimed).status == 401
    assert proxy.ask("PUT", "/files/1", alice(), *claimed).status == 403
    assert app.take() == []


def test_apps_learn_the_real_address_of_a_request(proxy: RealProxy, app: Recorder) -> None:
    assert proxy.ask("GET", "/orders/1", alice(), *CLAIMED, *CLAIMED).status == 200
    request = app.only()
    assert_named_by_the_gateway(request, ALICE)
    assert request.all("x-forwarded-host") in ([], ["app.test"])
    assert request.one("x-forwarded-proto") == "http"
    assert "203.0.113.9" not in request.head.decode()
    for name in ("x-original-url", "x-rewrite-url", "x-original-method", "x-forwarded-prefix", "forwarded"):
        assert request.all(name) == []
    assert "8443" not in request.all("x-forwarded-port")


def test_the_way_back_from_the_login_cannot_be_claimed(proxy: RealProxy) -> None:
    answer = proxy.ask("GET", "/orders/1", BROWSER, *CLAIMED, host="evil.test")
    assert (answer.status, answer.one("location")) == (302, LOGIN)
    answer = proxy.ask("GET", "/orders/1", BROWSER, *CLAIMED)
    assert answer.one("location") == f"{LOGIN}?rd=http%3A%2F%2Fapp.test%2Forders%2F1"


# ------------------------------------------------------------------------------------------------------- odd paths

ODD_PATHS = [
    "/public/../orders/1",
    "/public/%2e%2e/orders/1",
    "/public/%2E%2E%2Forders/1",
    "/public/..%2forders/1",
    "/public/..%5corders/1",
    "/public/..\\orders\\1",
    "/public/..;/orders/1",
    "/public/;x/../../orders/1",
    "/public//../orders/1",
    "/public/./../orders/1",
    "/public/%252e%252e/orders/1",
    "/public/%00/../../orders/1",
    "/public/\x80/../../orders/1",
    "//orders/1",
    "/orders//1",
    "/orders/1;x",
    "/orders/1/..;/1",
    "/./orders/1",
    "\\orders\\1",
    "/public/..",
    "/../orders/1",
    "/orders/1#/public/x",
    "/public/x#/../orders/1",
    "/public/%zz/../orders/1",
    "/%6frders/1",
    "/%70ublic/1",
    "/ORDERS/1",
    "*",
    "http://app.test/public/../orders/1",
    "http://app.test//orders/1",
    "//app.test/orders/1",
    "public/../orders/1",
]


@pytest.mark.parametrize("target", ODD_PATHS)
def test_no_path_reaches_the_app_that_was_not_judged(proxy: RealProxy, app: Recorder, target: str) -> None:
    """What comes through without a token is one plain way below `/public/`; with one it has one reading still."""
    for headers in ([], [alice()], CLAIMED):
        with Connection(proxy.port) as connection:
            head = "".join(f"{name}: {value}\r\n" for name, value in headers)
            connection.send(
                f"GET {target} HTTP/1.1\r\nHost: app.test\r\nConnection: close\r\n{head}\r\n".encode("latin-1")
            )
            assert connection.read_answer().status in {200, 400, 401, 403, 404}
        for request in app.take():
            path = canonical_path(request.target.encode("latin-1"))
            assert path.startswith(b"/public/") or (request.one("x-auth-subject") and path == b"/orders/1")


@pytest.mark.parametrize(
    ("line", "host"),
    [
        ("http://open.test/hosts/1", "closed.test"),
        ("http://closed.test/hosts/1", "open.test"),
        ("/hosts/1", "open.test@closed.test"),
        ("/hosts/1", "open.test:80@closed.test"),
        ("/hosts/1", "closed.test\r\nHost: open.test"),
        ("/hosts/1", "open.test\r\nHost: closed.test"),
        ("/hosts/1", "open.test\r\n , closed.test"),
        ("/hosts/1", "open.test, closed.test"),
        ("/hosts/1", "closed.test, open.test"),
        ("/hosts/1", "closed.test."),
        ("/hosts/1", "CLOSED.test:80"),
        ("/hosts/1", "closed.test\r\nX-Forwarded-Host: open.test"),
        ("/hosts/1", ""),
    ],
)
def test_no_host_reaches_the_app_that_was_not_judged(proxy: RealProxy, app: Recorder, line: str, host: str) -> None:
    with Connection(proxy.port) as connection:
        connection.send(f"GET {line} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n".encode())
        assert connection.read_answer().status in {200, 400, 401, 403}
    for request in app.take():
        assert request.one("host") == "open.test"
        assert request.all("x-forwarded-host") in ([], ["open.test"])


# ------------------------------------------------------------------------------------------- what else passes through


@pytest.mark.parametrize("method", ["GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"])
def test_every_method_is_judged_as_itself(proxy: RealProxy, app: Recorder, questions: Questions, method: str) -> None:
    assert proxy.ask(method, "/orders/1", alice()).status == 200
    request = app.only()
    assert (request.method, request.body) == (method, b"")
    assert_named_by_the_gateway(request, ALICE)
    assert proxy.ask(method, "/files/1", alice()).status == (200 if method in {"GET", "POST", "DELETE"} else 403)
    app.take()


def test_head_is_answered_without_a_body(proxy: RealProxy, app: Recorder) -> None:
    app.acts["/orders/head"] = lambda talk, request: talk.send(b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\n")
    with Connection(proxy.port) as connection:
        for headers, status in (([alice()], 200), ([], 401), ([alice()], 200)):
            answer = connection.request("HEAD", "/orders/head", headers)
            assert (answer.status, answer.body) == (status, b"")
    assert [request.method for request in app.take()] == ["HEAD", "HEAD"]


def test_query_strings_arrive_as_they_were_sent(proxy: RealProxy, app: Recorder) -> None:
    for query in ("a=1&a=2", "next=%2F..%2Forders%2F1&x=%00", "?", "q=a+b%20c&d=/..//x", ""):
        target = f"/orders/1?{query}"
        assert proxy.ask("GET", target, alice()).status == 200
        assert app.only().target in {target, target.removesuffix("?") if not query else target}


@pytest.mark.parametrize("size", [1, 300_000])
@pytest.mark.parametrize("chunked", [False, True])
def test_a_body_reaches_the_app_and_not_the_gateway(
    proxy: RealProxy, app: Recorder, questions: Questions, size: int, chunked: bool
) -> None:
    body = bytes(range(256)) * (size // 256) + b"x" * (size % 256)
    app.acts["/orders/body"] = lambda talk, request: respond(talk, 200, b"")
    with Connection(proxy.port) as connection:
        head = [alice(), ("Content-Type", "application/octet-stream")]
        if chunked:
            lines = "".join(f"{name}: {value}\r\n" for name, value in head)
            connection.send(
                f"POST /orders/body HTTP/1.1\r\nHost: app.test\r\nTransfer-Encoding: chunked\r\n{lines}\r\n".encode()
            )
            for piece in (body[: size // 2], body[size // 2 :]):
                if piece:
                    connection.send(f"{len(piece):x}\r\n".encode() + piece + b"\r\n")
            connection.send(b"0\r\n\r\n")
            answer = connection.read_answer()
        else:
            answer = connection.request("POST", "/orders/body", head, body)
    assert answer.status == 200
    assert app.only().body == body
    (question,) = questions.take()
    assert question.wire_body in {b"", b"0\r\n\r\n"}
    assert question.all("content-length") in ([], ["0"])


def test_a_refused_body_does_not_reach_the_app(proxy: RealProxy, app: Recorder) -> None:
    with Connection(proxy.port) as connection:
        assert connection.request("POST", "/orders/1", [("Connection", "close")], b"x" * 1000).status == 401
    assert app.take() == []


def test_one_connection_carries_many_answers(proxy: RealProxy, app: Recorder) -> None:
    with Connection(proxy.port) as connection:
        for _ in range(5):
            assert connection.request("GET", "/orders/1", [alice()]).status == 200
            assert_named_by_the_gateway(app.only(), ALICE)
            assert connection.request("GET", "/orders/1").status == 401
            assert connection.request("GET", "/public/1", [("X-Auth-Subject", CANARY)]).status == 200
            assert_named_by_the_gateway(app.only(), {})


def test_large_headers_pass_and_huge_ones_are_refused(proxy: RealProxy, app: Recorder) -> None:
    assert proxy.ask("GET", "/orders/1", alice(), ("Cookie", "a=" + "x" * 6000)).status == 200
    assert app.only().one("cookie") == "a=" + "x" * 6000
    assert proxy.ask("GET", "/orders/1", alice(), *[("X-Much", "x" * 7000)] * 10).status in {400, 431}
    assert app.take() == []


def test_each_route_leads_to_its_upstream_under_the_path_that_it_expects(
    proxy: RealProxy, app: Recorder, legacy: Recorder
) -> None:
    for target, expected in [
        ("/legacy/a/b?x=1", "/a/b?x=1"),
        ("/legacy/a%20b", "/a%20b"),
        ("/legacy/%C3%BC", "/%C3%BC"),
        ("/legacy/legacy/a", "/legacy/a"),
    ]:
        assert proxy.ask("GET", target, alice()).status == 200
        request = legacy.only()
        assert request.target == expected
        assert_named_by_the_gateway(request, ALICE)
    if proxy.name != "envoy":  # whose snippet refuses needless escapes there
        assert proxy.ask("GET", "/le%67acy/a%20b", alice()).status == 200
        assert legacy.only().target == "/a%20b"
    assert proxy.ask("GET", "/legacy/a").status == 401
    assert legacy.take() == app.take() == []


def test_a_websocket_handshake_is_judged_and_passes(proxy: RealProxy, app: Recorder, questions: Questions) -> None:
    def echo_frames(talk: Talk, request: Request) -> None:
        talk.send(
            b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
            b"Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n"  # RFC 6455 §1.3, for the key below
        )
        talk.send(talk.exactly(4)[::-1])

    app.acts["/orders/socket"] = echo_frames
    handshake = [
        *(("Connection", "Upgrade, X-Auth-Subject"), ("Upgrade", "websocket"), ("Sec-WebSocket-Version", "13")),
        ("Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ=="),
    ]
    assert proxy.ask("GET", "/orders/socket", *handshake).status == 401
    assert app.take() == []
    with Connection(proxy.port) as connection:
        connection.send(request_bytes("GET", "/orders/socket", [alice(), *handshake]))
        assert connection.read_head()[0] == 101
        connection.send(b"ping")
        assert connection.read_exactly(4) == b"gnip"
    request = app.only()
    assert request.one("upgrade").lower() == "websocket"
    assert_named_by_the_gateway(request, ALICE)
    assert [question.all("upgrade") for question in questions.take()] == [[], []]


@pytest.mark.parametrize("target", ["/auth/forward", "/auth/request", "/auth/envoy/public/1", "/portcullis-auth"])
def test_the_gateways_own_addresses_are_not_the_clients(proxy: RealProxy, app: Recorder, target: str) -> None:
    answer = proxy.ask("GET", target, alice(), *CLAIMED)
    assert answer.status in {403, 404}
    assert answer.all("x-auth-subject") == []
    assert app.take() == []


@pytest.mark.parametrize(
    ("host", "target", "status", "upstream"),
    [
        ("split.test", "/x", 200, "app"),
        ("split.test", "/api/x", 401, ""),
        ("split.test", "/API/x", 200, "app"),
        ("split.test", "/apix", 200, "app"),
        ("split.test", "/api", 200, "app"),
        ("split.test", "/admin", 401, ""),
        ("split.test", "/adminx", 200, "app"),
        ("split.test", "/admin/", 200, "app"),
        ("split.test", "/users/1/keys", 401, ""),
        ("split.test", "/users/1/2/keys", 200, "app"),
        ("split.test", "/users/1/keys/2", 200, "app"),
        ("split.test", "/a%40b", 200, "app"),
        ("SPLIT.test.", "/api/x", 401, ""),
        ("split.test.:80", "/adminx", 200, "app"),
        ("part.test", "/own/x", 401, ""),
        ("part.test", "/public/x", 200, "app"),
        ("part.test.", "/public/x", 200, "app"),
        ("x.wild.test", "/x", 200, "legacy"),
        ("x.wild.test.", "/x", 200, "legacy"),
        ("x.y.wild.test", "/x", 200, "legacy"),
        ("wild.test", "/x", 403, ""),
        ("notwild.test", "/x", 403, ""),
    ],
)
def test_the_app_that_is_reached_is_the_one_that_was_judged(
    proxy: RealProxy, app: Recorder, legacy: Recorder, host: str, target: str, status: int, upstream: str
) -> None:
    """Without a token: what an app behind a token gets here, it gets from anybody."""
    assert proxy.ask("GET", target, host=host).status == status
    reached = ["app"] * len(app.take()) + ["legacy"] * len(legacy.take())
    assert reached == ([upstream] if upstream else [])


@pytest.mark.parametrize("target", ["/%61pi/x", "/ap%69/x", "/%61%70%69/x", "/adm%69n", "/users/1/%6beys"])
def test_no_spelling_of_a_path_reaches_another_app(
    proxy: RealProxy, app: Recorder, legacy: Recorder, target: str
) -> None:
    """Envoy compares raw paths, and its snippet refuses these."""
    assert proxy.ask("GET", target, host="split.test").status in {400, 401}
    assert legacy.take() == app.take() == []
    answer = proxy.ask("GET", target, alice(), host="split.test")
    assert answer.status == (400 if proxy.name == "envoy" else 200)
    assert len(legacy.take()) == (proxy.name != "envoy")
    assert app.take() == []


@pytest.mark.parametrize(
    ("target", "is_needless"),
    [
        ("/o'd%20@($1),~.+%C3%A9/x", False),
        ("/o'd%20@($1),~.+%c3%a9/x", False),
        ("/o%27d%20%40(%241)%2C%7E%2E%2B%C3%A9/x", True),
        ("/%6F'd%20@($1),~.+%C3%A9/x", True),
    ],
)
def test_odd_characters_of_a_route_are_compared_as_themselves(
    proxy: RealProxy, app: Recorder, legacy: Recorder, target: str, is_needless: bool
) -> None:
    assert proxy.ask("GET", target, host="odd.test").status in {400, 401}
    refused = proxy.name == "envoy" and is_needless
    assert proxy.ask("GET", target, alice(), host="odd.test").status == (400 if refused else 200)
    assert len(legacy.take()) == (not refused)
    assert app.take() == []
    assert proxy.ask("GET", "/o'd%20@(X1),~.+%C3%A9/x", host="odd.test").status == 200
    assert (len(app.take()), legacy.take()) == (1, [])


@pytest.mark.parametrize("status", [302, 401, 403, 404, 500, 503])
def test_what_the_app_answers_is_not_the_gateways(proxy: RealProxy, app: Recorder, status: int) -> None:
    """`error_page` of nginx is for the gateway's refusals only."""
    app.acts["/orders/own"] = lambda talk, request: respond(
        talk, status, b"the app's", 'WWW-Authenticate: Basic realm="app"', "Location: /elsewhere"
    )
    answer = proxy.ask("GET", "/orders/own", alice())
    assert (answer.status, answer.body, answer.one("www-authenticate")) == (status, b"the app's", 'Basic realm="app"')


# ------------------------------------------------------------------------------------- when the gateway is not well


@pytest.mark.parametrize(
    "given",
    [
        pytest.param(b"", id="closed"),
        pytest.param(b"HTTP/1.1 500 Fault\r\ncontent-length: 0\r\n\r\n", id="500"),
        pytest.param(b"HTTP/1.1 503 Fault\r\ncontent-length: 0\r\n\r\n", id="503"),
        pytest.param(b"SSH-2.0-OpenSSH_9.2\r\n\r\n", id="garbage"),
    ],
)
def test_who_cannot_ask_lets_nobody_through(
    proxy: RealProxy, app: Recorder, questions: Questions, given: bytes
) -> None:
    with questions.answered(given):
        assert proxy.ask("GET", "/orders/1", alice()).status in {500, 502, 503}
        assert proxy.ask("GET", "/public/1").status in {500, 502, 503}
    assert app.take() == []
    assert proxy.ask("GET", "/orders/1", alice()).status == 200


def test_the_snippet_strips_by_itself(proxy: RealProxy, app: Recorder, questions: Questions) -> None:
    """An answer that names nobody leaves the client nameless, too."""
    with questions.answered(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n"):
        assert proxy.ask("GET", "/orders/1", alice(), *[(name, CANARY) for name in (*IDENTITY, DECISION)]).status == 200
    request = app.only()
    assert CANARY not in request.head.decode()
