"""The proxy door behind nginx and HAProxy as plain reverse proxies: they hand on, the gateway judges and hands on."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest

from tests.real.gateway import ISSUER, Gateway, bearer, gateway, issuer_toml
from tests.real.http import Connection
from tests.real.process import free_port
from tests.real.proxies import NGINX_HEAD, RealProxy, find_proxy
from tests.real.recorder import Recorder, Request, Talk, recorder

pytestmark = pytest.mark.journey

CANARY = "root-of-all-evil"

NGINX = """
    server {
        listen 127.0.0.1:@PORT@;
        location / {
            proxy_pass http://127.0.0.1:@GATEWAY@;
            proxy_http_version 1.1;
            proxy_buffering off;
            proxy_request_buffering off;
            proxy_set_header Connection "";
            proxy_set_header Host $host;
            proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for;
            proxy_set_header X-Forwarded-Host $host;
            proxy_set_header X-Forwarded-Proto $scheme;
        }
    }
}
"""

HAPROXY = """
defaults
    mode http
    timeout connect 2s
    timeout client 20s
    timeout server 20s
frontend web
    bind 127.0.0.1:@PORT@
    option forwardfor
    http-request set-header X-Forwarded-Host %[req.fhdr(host)]
    http-request set-header X-Forwarded-Proto http
    default_backend gateway
backend gateway
    server gateway 127.0.0.1:@GATEWAY@
"""

FILES = {"nginx": ("nginx.conf", NGINX_HEAD + NGINX), "haproxy": ("haproxy.cfg", HAPROXY)}


@pytest.fixture(scope="module")
def site_app() -> Iterator[Recorder]:
    with recorder() as running:
        yield running


@pytest.fixture(scope="module")
def judge(tmp_path_factory: pytest.TempPathFactory, site_app: Recorder) -> Iterator[Gateway]:
    folder = tmp_path_factory.mktemp("gateway")
    routes = f"""
[[routes]]
path = "/api/{{*rest}}"
scopes = ["orders:read"]
upstream = "{site_app.url}"

[[routes]]
path = "/open/{{*rest}}"
auth = "none"
upstream = "{site_app.url}"
"""
    with gateway(folder, issuer_toml(folder) + routes) as started:
        yield started


@pytest.fixture(scope="module", params=FILES)
def proxy(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, judge: Gateway
) -> Iterator[RealProxy]:
    find_proxy(request.param)
    folder = tmp_path_factory.mktemp(request.param)
    name, text = FILES[request.param]
    port = free_port()
    (folder / name).write_text(text.replace("@PORT@", str(port)).replace("@GATEWAY@", str(judge.port)))
    running = RealProxy(request.param, folder, port)
    try:
        running.wait_until_it_serves("/open/ready")
        yield running
    finally:
        running.stop()


@pytest.fixture
def app(proxy: RealProxy, site_app: Recorder) -> Recorder:
    site_app.take()
    return site_app


def addresses(request: Request) -> list[str]:
    return [address.strip() for value in request.all("x-forwarded-for") for address in value.split(",")]


def test_a_good_token_passes_and_others_do_not(proxy: RealProxy, app: Recorder) -> None:
    assert proxy.ask("GET", "/api/1?x=1", bearer(), ("X-Auth-Subject", CANARY)).status == 200
    request = app.only()
    assert request.target == "/api/1?x=1"
    assert (request.one("x-auth-subject"), request.one("x-auth-issuer")) == ("alice", ISSUER)
    assert len(request.one("x-auth-decision-id")) == 32
    assert CANARY not in request.head.decode()
    refused = proxy.ask("GET", "/api/1")
    assert (refused.status, "error" in refused.one("www-authenticate")) == (401, False)
    assert proxy.ask("GET", "/nowhere", bearer()).status == 404
    assert app.take() == []


def test_every_hop_stands_in_the_chain_of_addresses(proxy: RealProxy, app: Recorder) -> None:
    assert proxy.ask("GET", "/open/1").status == 200
    request = app.only()
    assert addresses(request) == ["127.0.0.1", "127.0.0.1"]
    assert (request.one("x-forwarded-host"), request.one("x-forwarded-proto")) == ("app.test", "http")


def test_what_a_client_claims_stays_left_of_what_is_known(proxy: RealProxy, app: Recorder) -> None:
    claimed = [("X-Forwarded-For", "203.0.113.9"), ("X-Forwarded-Host", "evil.test"), ("X-Forwarded-Proto", "https")]
    assert proxy.ask("GET", "/open/1", *claimed).status == 200
    request = app.only()
    assert addresses(request) == ["203.0.113.9", "127.0.0.1", "127.0.0.1"]
    assert (request.one("x-forwarded-host"), request.one("x-forwarded-proto")) == ("app.test", "http")


@pytest.mark.parametrize(
    "target", ["/open/../api/1", "/open/%2e%2e/api/1", "/open/..%2fapi/1", "/open//1", "/open/1;x"]
)
def test_paths_with_two_readings_do_not_pass(proxy: RealProxy, app: Recorder, target: str) -> None:
    assert proxy.ask("GET", target, bearer()).status == 400
    assert app.take() == []


def test_a_response_flows_through_piece_by_piece(proxy: RealProxy, app: Recorder) -> None:
    """The second piece is sent when the client has the first."""
    go_on = threading.Event()

    def drip(talk: Talk, request: Request) -> None:
        talk.send(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nfirst\r\n")
        assert go_on.wait(10)
        talk.send(b"6\r\nsecond\r\n0\r\n\r\n")

    app.acts["/api/drip"] = drip
    with Connection(proxy.port) as connection:
        try:
            connection.send(f"GET /api/drip HTTP/1.1\r\nHost: app.test\r\n{': '.join(bearer())}\r\n\r\n".encode())
            status, headers = connection.read_head()
            assert (status, dict(headers)["transfer-encoding"]) == (200, "chunked")
            assert connection.read_chunk() == b"first"
        finally:
            go_on.set()
        assert connection.read_chunk() == b"second"
        assert connection.read_chunk() == b""


def test_a_request_flows_through_piece_by_piece(proxy: RealProxy, app: Recorder) -> None:
    with Connection(proxy.port) as connection:
        connection.send(b"POST /open/1 HTTP/1.1\r\nHost: app.test\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nfirst\r\n")
        connection.send(b"6\r\nsecond\r\n0\r\n\r\n")
        assert connection.read_answer().status == 200
    assert app.only().body == b"firstsecond"


def test_one_connection_carries_many_answers(proxy: RealProxy, app: Recorder) -> None:
    with Connection(proxy.port) as connection:
        for _ in range(10):
            assert connection.request("GET", "/api/1", [bearer()]).status == 200
            assert connection.request("GET", "/api/1").status == 401
            assert connection.request("GET", "/open/1").status == 200
    assert len(app.take()) == 20
