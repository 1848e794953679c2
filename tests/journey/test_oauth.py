"""The token service in the real gateway: its tokens pass its own doors, and end everywhere within a second."""

from __future__ import annotations

import base64
import json
import time
from collections.abc import Iterator
from pathlib import Path
from signal import SIGHUP
from urllib.parse import urlencode

import pytest

from tests.real.gateway import Gateway, bearer, gateway
from tests.real.http import Answer, Connection
from tests.real.lines import metric
from tests.real.process import wait_until

pytestmark = pytest.mark.journey

ENV = {"SEALING": "s" * 32, "JOB_SECRET": "j" * 32}
CONFIG = """
[oauth]
issuer = "https://auth.test"
encryption_key = "env:SEALING"
key_announce_s = 60

[[oauth.clients]]
id = "job"
secret = "env:JOB_SECRET"
grant_types = ["client_credentials"]
scopes = ["orders:read"]

[[oauth.resources]]
id = "https://orders.test/api"
scopes = ["orders:read"]

[[routes]]
path = "/orders/{id}"
scopes = ["orders:read"]
"""
WITHIN_S = 1.0


def basic(name: str, secret: str) -> tuple[str, str]:
    return "authorization", "Basic " + base64.b64encode(f"{name}:{secret}".encode()).decode()


def post(running: Gateway, path: str, **form: str) -> Answer:
    kind = ("content-type", "application/x-www-form-urlencoded")
    return running.ask("POST", path, basic("job", ENV["JOB_SECRET"]), kind, body=urlencode(form).encode())


def new_token(running: Gateway, **form: str) -> str:
    """Get a token; a busy machine may be told to come again."""
    answers: list[Answer] = []

    def given() -> bool:
        answers.append(post(running, "/oauth2/token", grant_type="client_credentials", **form))
        assert answers[-1].status in (200, 503), answers[-1].body
        return answers[-1].status == 200

    wait_until(given, "a token is given", 10.0)
    return str(json.loads(answers[-1].body)["access_token"])


def door(running: Gateway, token: str) -> int:
    return running.ask("GET", "/auth/envoy/orders/1", bearer(token)).status


def test_own_tokens_pass_own_doors_and_end_on_every_worker_within_a_second(tmp_path: Path) -> None:
    with gateway(tmp_path, CONFIG, workers=2, env=ENV) as running:
        token, other = new_token(running), new_token(running, resource="https://orders.test/api")
        assert [door(running, token) for _ in range(20)] == [200] * 20
        assert door(running, other) == 200
        answer = post(running, "/oauth2/introspect", token=token)
        assert json.loads(answer.body)["active"] is True
        began_s = time.monotonic()
        assert post(running, "/oauth2/revoke", token=token).status == 200
        wait_until(
            lambda: [door(running, token) for _ in range(20)] == [401] * 20, "the token is refused everywhere", WITHIN_S
        )
        assert time.monotonic() - began_s < WITHIN_S + 0.5
        assert door(running, other) == 200
        answer = post(running, "/oauth2/introspect", token=token)
        assert json.loads(answer.body) == {"active": False}
        metrics = running.admin("/metrics").body.decode()
        assert metric(metrics, "portcullis_token_requests_total", grant="client_credentials", outcome="success") == 2


def test_who_has_no_token_is_told_where_to_learn_who_gives_one(tmp_path: Path) -> None:
    with gateway(tmp_path, CONFIG, env=ENV) as running:
        challenge = running.ask("GET", "/orders/1").all("www-authenticate")[0]
        address = "https://orders.test/.well-known/oauth-protected-resource/api"
        assert challenge == f'Bearer realm="portcullis", resource_metadata="{address}"'
        answer = running.ask("GET", "/.well-known/oauth-protected-resource/api", host="orders.test")
        assert answer.json["resource"] == "https://orders.test/api"
        assert answer.json["authorization_servers"] == ["https://auth.test"]


def test_keys_are_replaced_by_their_schedule_and_no_token_is_ever_refused(tmp_path: Path) -> None:
    config = CONFIG.replace("key_announce_s = 60", "key_announce_s = 1\nkey_rotation_s = 3")
    with gateway(tmp_path, config, workers=2, env=ENV) as running:
        seen, first = set[str](), new_token(running)
        until_s = time.monotonic() + 10.0
        while time.monotonic() < until_s:
            token = new_token(running)
            seen.add(token.split(".")[0])
            assert [door(running, token) for _ in range(4)] == [200] * 4
        assert len(seen) >= 3  # keys that signed
        assert running.server.output.count('"event":"key.rotate"') >= 3
        assert door(running, first) == 200  # whose key retired three times over, but for its longest token


@pytest.fixture(scope="module")
def hostile(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    config = f"body_timeout_s = 1.0\n#server\n{CONFIG}"
    with gateway(tmp_path_factory.mktemp("hostile"), config, env=ENV) as running:
        yield running


FORM = ("content-type", "application/x-www-form-urlencoded")


@pytest.mark.parametrize(
    ("headers", "body", "status", "error"),
    [
        ((("content-type", "application/json"),), b"{}", 415, "invalid_request"),
        ((), b"a=b", 415, "invalid_request"),
        ((FORM,), b"a=" + b"x" * 40_000, 413, "invalid_request"),
        ((FORM,), b"a=%ff", 400, "invalid_request"),
        ((FORM,), b"grant_type=x&grant_type=y", 400, "invalid_request"),
        ((FORM,), b"grant_type=password&client_id=job", 400, "invalid_client"),
        ((FORM, basic("job", "wrong")), b"grant_type=client_credentials", 401, "invalid_client"),
        ((FORM, basic("nobody", "wrong")), b"grant_type=client_credentials", 401, "invalid_client"),
        ((FORM, ("authorization", "Basic !")), b"grant_type=client_credentials", 401, "invalid_client"),
        ((FORM, basic("job", ENV["JOB_SECRET"])), b"grant_type=password", 400, "unsupported_grant_type"),
        ((FORM, basic("job", ENV["JOB_SECRET"])), b"grant_type=refresh_token", 400, "unauthorized_client"),
        (
            (FORM, basic("job", ENV["JOB_SECRET"])),
            b"grant_type=client_credentials&scope=admin",
            400,
            "invalid_scope",
        ),
        (
            (FORM, basic("job", ENV["JOB_SECRET"])),
            b"grant_type=client_credentials&resource=https://evil.test",
            400,
            "invalid_target",
        ),
        (
            (FORM, ("dpop", "x"), basic("job", ENV["JOB_SECRET"])),
            b"grant_type=client_credentials",
            400,
            "invalid_dpop_proof",
        ),
    ],
)
def test_the_token_endpoint_tells_a_client_what_rfc_6749_says(
    hostile: Gateway, headers: tuple[tuple[str, str], ...], body: bytes, status: int, error: str
) -> None:
    answer = hostile.ask("POST", "/oauth2/token", *headers, body=body)
    assert (answer.status, answer.json["error"]) == (status, error)
    assert answer.one("cache-control") == "no-store"


def test_who_stops_in_a_form_is_told_so(hostile: Gateway) -> None:
    with Connection(hostile.port) as connection:
        connection.send(
            b"POST /oauth2/token HTTP/1.1\r\nHost: auth.test\r\nContent-Type: application/x-www-form-urlencoded\r\n"
            b"Content-Length: 100\r\n\r\ngrant_type="
        )
        assert connection.read_answer().status == 408


@pytest.mark.parametrize(
    "query",
    [
        "",
        "client_id=nobody",
        "client_id=job&client_id=job",
        "client_id=%ff",
        "client_id=job&redirect_uri=https://evil.test",
    ],
)
def test_a_browser_is_sent_nowhere_by_a_request_that_nobody_vouches_for(hostile: Gateway, query: str) -> None:
    answer = hostile.ask("GET", f"/oauth2/authorize?{query}")
    assert answer.status == 400
    assert not answer.all("location")
    assert answer.one("content-type").startswith("text/html")


def test_the_first_key_is_made_once_for_all_workers_and_lies_sealed(tmp_path: Path) -> None:
    with gateway(tmp_path, CONFIG, workers=2, env=ENV) as running:
        sets = {running.ask("GET", "/.well-known/jwks.json").body for _ in range(10)}
        assert len(sets) == 1
        (key,) = json.loads(sets.pop())["keys"]
        assert "d" not in key
        folder = tmp_path / "run" / "oauth-keys"
        sealed = folder / f"{key['kid']}.sealed"
        assert sorted(each.name for each in folder.iterdir()) == sorted(["jwks.json", sealed.name])
        assert sealed.stat().st_mode & 0o077 == 0
        assert b"kty" not in sealed.read_bytes()


def test_clients_and_their_tokens_outlive_a_restart(tmp_path: Path) -> None:
    with gateway(tmp_path, CONFIG, env=ENV) as running:
        token = new_token(running)
    with gateway(tmp_path, CONFIG, env=ENV) as running:
        assert door(running, token) == 200


def test_another_client_appears_with_a_reload(tmp_path: Path) -> None:
    with gateway(tmp_path, CONFIG, env=ENV) as running:
        token = new_token(running)
        running.write_config(CONFIG.replace('scopes = ["orders:read"]\n\n[[oauth.res', "scopes = []\n\n[[oauth.res"))
        running.server.signal(SIGHUP)
        wait_until(
            lambda: "scope" not in json.loads(post(running, "/oauth2/token", grant_type="client_credentials").body),
            "the client has no scopes any more",
            5.0,
        )
        assert door(running, token) == 200


def test_a_gateway_whose_keys_were_sealed_by_another_secret_does_not_start(tmp_path: Path) -> None:
    with gateway(tmp_path, CONFIG, env=ENV) as running:
        new_token(running)
    wrong = {**ENV, "SEALING": "t" * 32}
    with pytest.raises(pytest.fail.Exception, match="sealed by another key"), gateway(tmp_path, CONFIG, env=wrong):
        pass
