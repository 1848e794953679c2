"""The forward-auth doors of a real gateway process, as the proxies in front of it see them."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.real.gateway import Gateway, bearer, gateway, issuer_toml, mint
from tests.real.http import Connection, request_bytes

pytestmark = pytest.mark.journey

ROUTES = """
[[routes]]
path = "/orders/{id}"
scopes = ["orders:read"]

[[routes]]
path = "/public/{*rest}"
auth = "none"
"""


@pytest.fixture(scope="module", params=["inline", "public"])
def running(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    """A gateway that answers on the server's own thread, and one that answers over the event loop."""
    folder = tmp_path_factory.mktemp("gateway")
    inline = "true" if request.param == "inline" else "false"
    config = f"inline = {inline}\n#server\n" + issuer_toml(folder) + ROUTES
    with gateway(folder, config) as started:
        yield started


def forward(running: Gateway, uri: str, *headers: tuple[str, str], method: str = "GET") -> tuple[int, str]:
    described = [("X-Forwarded-Method", method), ("X-Forwarded-Uri", uri), ("X-Forwarded-Host", "app.test")]
    answer = running.ask("GET", "/auth/forward", *described, *headers)
    return answer.status, answer.all("x-auth-subject")[0] if answer.all("x-auth-subject") else ""


def test_good_token_passes_first_and_again(running: Gateway) -> None:
    header = bearer()
    assert [forward(running, "/orders/1", header) for _ in range(3)] == [(200, "alice")] * 3


def test_bad_tokens_do_not_pass(running: Gateway) -> None:
    assert forward(running, "/orders/1")[0] == 401
    assert forward(running, "/orders/1", bearer(mint(exp=1)))[0] == 401
    assert forward(running, "/orders/1", bearer(mint()[:-6] + "AAAAAA"))[0] == 401
    assert forward(running, "/orders/1", bearer(mint(scope="other")))[0] == 403


def test_unknown_kid_is_asked_about_and_refused(running: Gateway) -> None:
    assert forward(running, "/orders/1", bearer(mint("stranger")))[0] == 401


def test_route_without_auth_passes_with_blank_identity(running: Gateway) -> None:
    assert forward(running, "/public/x", ("X-Auth-Subject", "root")) == (200, "")


def test_raw_paths_reach_the_engine_as_sent(running: Gateway) -> None:
    for uri in ("/public/../orders/1", "/public/%2e%2e/orders/1", "/public//x", "/public/a%2fb"):
        assert forward(running, uri)[0] == 400


def test_one_connection_carries_many_answers(running: Gateway) -> None:
    header = bearer()
    with Connection(running.port) as connection:
        for _ in range(20):
            assert connection.request("GET", "/auth/envoy/orders/1", [header]).status == 200
            assert connection.request("GET", "/auth/envoy/orders/1").status == 401


def test_pipelined_requests_get_their_own_answers(running: Gateway) -> None:
    header = bearer()
    with Connection(running.port) as connection:
        connection.send(
            request_bytes("GET", "/auth/envoy/orders/1", [header])
            + request_bytes("GET", "/auth/envoy/orders/1")
            + request_bytes("GET", "/auth/envoy/public/1")
        )
        assert [connection.read_answer().status for _ in range(3)] == [200, 401, 200]


def test_duplicate_host_and_authorization_are_refused(running: Gateway) -> None:
    with Connection(running.port) as connection:
        connection.send(b"GET /auth/envoy/public/x HTTP/1.1\r\nHost: a.test\r\nHost: b.test\r\n\r\n")
        assert connection.read_answer().status == 400
    twice = [bearer(), bearer()]
    with Connection(running.port) as connection:
        assert connection.request("GET", "/auth/envoy/orders/1", twice).status == 400


def test_request_without_host_is_refused(running: Gateway) -> None:
    with Connection(running.port) as connection:
        connection.send(request_bytes("GET", "/auth/envoy/public/x", host=""))
        assert connection.read_answer().status == 400


def test_probes_answer_on_both_listeners_and_metrics_on_the_admin_one_only(running: Gateway) -> None:
    assert running.ask("GET", "/livez").status == 200
    assert running.ask("GET", "/readyz").status == 200
    assert running.admin("/readyz").json["status"] == "ok"
    assert "portcullis_" in running.admin("/metrics").body.decode()
    assert running.ask("GET", "/metrics").status == 404


def test_no_token_is_in_any_log(running: Gateway) -> None:
    token = mint(sub="canary-subject")
    forward(running, "/orders/1", bearer(token))
    forward(running, "/orders/1", bearer(token[:-8] + "AAAAAAAA"))
    assert token.split(".")[1] not in running.server.output
