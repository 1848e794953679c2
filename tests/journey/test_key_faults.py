"""Keys that are missing, late, rotated or taken back: what a real gateway with all its workers tells its clients."""

from __future__ import annotations

import asyncio
import contextlib
import json
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from signal import SIGHUP
from typing import Any

import pytest

from gateway.stores.base import RevocationRow
from gateway.stores.sqlite import SQLiteRevocationStore
from tests.conftest import ROOT
from tests.real.gateway import AUDIENCE, ISSUER, Gateway, bearer, gateway, issuer_toml, jwks_file, mint, public_jwk
from tests.real.http import Connection
from tests.real.issuer_thread import IssuerThread
from tests.real.lines import lines_of, logged, metric
from tests.real.process import free_port, wait_until

pytestmark = pytest.mark.journey

MIN_REFRESH_S = 0.3
ROUTES = '[[routes]]\npath = "/orders/{id}"\n\n[[routes]]\npath = "/open/{id}"\nauth = "none"\n'


def fetched(issuer: str, **settings: float) -> str:
    """Write an issuer whose keys are discovered."""
    lines = "".join(f"{name} = {value}\n" for name, value in settings.items())
    return (
        f'[[issuers]]\nissuer = "{issuer}"\naudiences = ["{AUDIENCE}"]\nmin_refresh_s = {MIN_REFRESH_S}\n'
        f"fetch_timeout_s = 1.0\n{lines}"
    )


# --------------------------------------------------------------------------------------------------------------- files


def test_a_key_file_that_is_missing_ends_the_start_with_its_place(tmp_path: Path) -> None:
    """Status 2, and one line with the config's file, line and key."""
    config = tmp_path / "portcullis.toml"
    config.write_text(
        f'[server]\nlisten = "127.0.0.1:{free_port()}"\nadmin_listen = ""\nrun_dir = "{tmp_path / "run"}"\n\n'
        f'[[issuers]]\nissuer = "{ISSUER}"\naudiences = ["a"]\njwks_file = "absent.json"\n'
    )
    command = [sys.executable, "-m", "gateway", "serve", "-c", str(config)]
    ended = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=20, check=False)
    assert ended.returncode == 2
    output = ended.stdout + ended.stderr
    assert f"{config}:9: issuers[0].jwks_file: `absent.json` is no file" in output
    assert "Traceback" not in output


@pytest.mark.parametrize("content", ["", '{"keys": [', "[]", '{"keys": []}', '{"keys": [{"kty": "RSA", "n": "AQAB"}]}'])
def test_a_key_file_without_a_usable_key_is_a_503_until_it_is_repaired(tmp_path: Path, content: str) -> None:
    config = issuer_toml(tmp_path) + ROUTES
    (tmp_path / "jwks.json").write_text(content)
    with gateway(tmp_path, config) as running:
        answer = running.ask("GET", "/auth/envoy/orders/1", bearer())
        assert (answer.status, answer.json["code"]) == (503, "keys_unavailable")
        assert running.ask("GET", "/auth/envoy/open/1").status == 200
        shown = running.admin("/readyz").json["dependencies"][f"issuer {ISSUER}"]
        assert shown["state"] == "unavailable"
        assert shown["keys"] == 0
        complaints = [line for line in lines_of(running.server) if line.get("logger") == "gateway.tokens.jwks"]
        assert any(ISSUER in line["message"] and line["level"] == "error" for line in complaints)
        jwks_file(tmp_path)
        running.server.signal(SIGHUP)
        wait_until(lambda: running.ask("GET", "/auth/envoy/orders/1", bearer()).status == 200, "the keys", 5)


# ------------------------------------------------------------------------------------------------- unreachable issuers


@pytest.mark.parametrize("inline", ["true", "false"])
def test_the_gateway_starts_without_its_issuer_and_is_good_when_it_comes(tmp_path: Path, inline: str) -> None:
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    with gateway(tmp_path, f"inline = {inline}\n#server\n" + fetched(url) + ROUTES) as running:
        header = bearer(mint(iss=url))
        answer = running.ask("GET", "/auth/envoy/orders/1", header)
        assert (answer.status, answer.json["code"]) == (503, "keys_unavailable")
        assert answer.one("retry-after") == "5"
        assert answer.all("www-authenticate") == [], "the token may well be good"
        logged(running.server, event="denied", reason="keys_unavailable", door="envoy", status=503)
        original = [("X-Original-Method", "GET"), ("X-Original-URL", "http://app.test/orders/1")]
        answer = running.ask("GET", "/auth/request", header, *original)
        assert (answer.status, answer.one("x-auth-status")) == (403, "503")
        assert running.ask("GET", "/orders/1", header).status == 503
        assert running.ask("GET", "/auth/envoy/open/1").status == 200, "what needs no key is served"
        assert running.ask("GET", "/auth/envoy/orders/1", bearer()).status == 401, "another issuer is nobody's outage"
        ready = running.admin("/readyz")
        assert (ready.status, ready.json["status"]) == (200, "degraded")
        assert ready.json["dependencies"][f"issuer {url}"]["state"] == "unavailable"
        complaints = [line for line in lines_of(running.server) if line.get("logger") == "gateway.tokens.jwks"]
        assert any(url in line["message"] and line["level"] in {"warning", "error"} for line in complaints)
        with IssuerThread(port, [public_jwk()]):
            wait_until(lambda: running.ask("GET", "/auth/envoy/orders/1", header).status == 200, "the issuer's keys", 5)
            assert running.admin("/readyz").json["status"] == "ok"
        assert running.ask("GET", "/auth/envoy/orders/1", header).status == 200, "an outage later on is bridged"
        assert running.ask("GET", "/auth/envoy/orders/1", bearer(mint(iss=url, jti="new"))).status == 200


@pytest.mark.parametrize("mode", ["hang", "500", "bad_json", "garbage", "huge", "reset"])
def test_an_issuer_that_misbehaves_from_the_start_is_a_503_in_time(tmp_path: Path, mode: Any) -> None:
    port = free_port()
    with IssuerThread(port, [public_jwk()]) as thread:
        thread.issuer.mode = mode
        with gateway(tmp_path, fetched(thread.issuer.issuer) + ROUTES) as running:
            header = bearer(mint(iss=thread.issuer.issuer))
            started = time.monotonic()
            answer = running.ask("GET", "/auth/envoy/orders/1", header)
            assert (answer.status, answer.json["code"]) == (503, "keys_unavailable")
            assert time.monotonic() - started < 3
            thread.issuer.mode = "ok"
            wait_until(lambda: running.ask("GET", "/auth/envoy/orders/1", header).status == 200, "the keys", 5)


def test_waiting_for_an_issuer_stops_nobody_else(tmp_path: Path) -> None:
    """Many clients ask about tokens of an issuer that hangs; others are answered meanwhile."""
    with IssuerThread(free_port(), [public_jwk()]) as thread, contextlib.ExitStack() as held:
        thread.issuer.mode = "hang"
        url = thread.issuer.issuer
        with gateway(tmp_path, fetched(url) + issuer_toml(tmp_path) + ROUTES) as running:
            waiting = [held.enter_context(Connection(running.port)) for _ in range(50)]
            slow = f"Authorization: Bearer {mint(iss=url)}".encode()
            for connection in waiting:
                connection.send(b"GET /auth/envoy/orders/1 HTTP/1.1\r\nHost: app.test\r\n" + slow + b"\r\n\r\n")
            started = time.monotonic()
            for _ in range(20):
                assert running.ask("GET", "/auth/envoy/orders/1", bearer()).status == 200
            assert time.monotonic() - started < 2
            assert {connection.read_answer().status for connection in waiting} == {503}
            assert thread.issuer.total <= 3, "one attempt for all of them"


# ------------------------------------------------------------------------------------------------------------- rotation


@contextlib.contextmanager
def held_open(running: Gateway, count: int) -> Iterator[list[Connection]]:
    """Connections to all workers: so many that the kernel spreads them."""
    with contextlib.ExitStack() as stack:
        yield [stack.enter_context(Connection(running.port)) for _ in range(count)]


def statuses(connections: list[Connection], header: tuple[str, str]) -> list[int]:
    return [connection.request("GET", "/auth/envoy/orders/1", [header]).status for connection in connections]


def test_keys_rotate_through_the_whole_gateway(tmp_path: Path) -> None:
    """A new key is found when its first token comes; a key that is gone is dropped by the next refresh, also hot."""
    with IssuerThread(free_port(), [public_jwk("one")]) as thread:
        url = thread.issuer.issuer
        config = fetched(url, jwks_refresh_s=1.0) + ROUTES
        with gateway(tmp_path, config, workers=2) as running, held_open(running, 20) as connections:
            old, new = bearer(mint("one", iss=url)), bearer(mint("two", iss=url))
            wait_until(lambda: statuses(connections, old) == [200] * 20, "the first key")
            assert set(statuses(connections, new)) == {401}
            time.sleep(MIN_REFRESH_S)
            thread.issuer.keys = [public_jwk("one"), public_jwk("two")]
            wait_until(lambda: set(statuses(connections, new)) == {200}, "the second key", 4)
            assert set(statuses(connections, old)) == {200}
            thread.issuer.keys = [public_jwk("two")]
            wait_until(lambda: set(statuses(connections, old)) == {401}, "the end of the first key", 4)
            assert set(statuses(connections, new)) == {200}
            assert metric(running.admin("/metrics").body.decode(), "portcullis_jwks_keys", issuer=url) >= 1


def test_a_flood_of_unknown_keys_is_not_passed_on_to_the_issuer(tmp_path: Path) -> None:
    with IssuerThread(free_port(), [public_jwk("one")]) as thread:
        url = thread.issuer.issuer
        with gateway(tmp_path, fetched(url) + ROUTES) as running, Connection(running.port) as connection:
            wait_until(lambda: statuses([connection], bearer(mint(iss=url))) == [200], "the key")
            fetched_before = thread.issuer.total
            started = time.monotonic()
            token = mint("stranger", iss=url)
            for _ in range(200):
                assert statuses([connection], bearer(token)) == [401]
            elapsed_s = time.monotonic() - started
            assert thread.issuer.total - fetched_before <= 2 * (1 + elapsed_s / MIN_REFRESH_S)


# ----------------------------------------------------------------------------------------------------------- revocation


def revoke(running: Gateway, kind: Any, value: str) -> float:
    """Append to the gateway's log of revocations as another process; give the moment when that was done."""

    async def append() -> None:
        store = SQLiteRevocationStore(running.folder / "run" / "revocations.sqlite3")
        await store.append([RevocationRow(kind, ISSUER.encode(), value.encode(), int(time.time()) + 600)])
        await store.close()

    asyncio.run(append())
    return time.monotonic()


@pytest.mark.parametrize("inline", ["true", "false"])
def test_a_revocation_reaches_every_worker_and_door_within_a_second(tmp_path: Path, inline: str) -> None:
    (tmp_path / "secret").write_text("s3cret")
    client = f'[[introspection.clients]]\nid = "rs"\nsecret = "file:{tmp_path / "secret"}"\n'
    config = f"inline = {inline}\n#server\n" + issuer_toml(tmp_path) + client + ROUTES
    with gateway(tmp_path, config, workers=2) as running, held_open(running, 30) as connections:
        stolen, spared = mint(jti="stolen"), mint(jti="spared")
        tokens = {
            ("jti", "stolen"): bearer(stolen),
            ("sub", "mallory"): bearer(mint(sub="mallory", jti="m")),
            ("sid", "session-1"): bearer(mint(sid="session-1", jti="s")),
        }
        for header in (*tokens.values(), bearer(spared)):
            assert set(statuses(connections, header)) == {200}
        for (kind, value), header in tokens.items():
            revoked_s = revoke(running, kind, value)
            while set(statuses(connections, header)) != {401}:
                assert time.monotonic() - revoked_s < 1.0
            assert set(statuses(connections, bearer(spared))) == {200}
        logged(running.server, event="denied", reason="revoked", status=401)
        form = f"token={stolen}&client_id=rs&client_secret=s3cret".encode()
        kind_header = ("Content-Type", "application/x-www-form-urlencoded")
        assert running.ask("POST", "/oauth2/introspect", kind_header, body=form).json == {"active": False}
        answer = running.ask("GET", "/auth/envoy/orders/1", bearer(stolen))
        assert answer.json["code"] == "invalid_token", "a client learns nothing of the reason"


def test_a_revocation_outlives_a_restart(tmp_path: Path) -> None:
    with gateway(tmp_path, issuer_toml(tmp_path) + ROUTES) as running:
        stolen = bearer(mint(jti="stolen"))
        assert running.ask("GET", "/auth/envoy/orders/1", stolen).status == 200
        revoke(running, "jti", "stolen")
        running.restart()
        assert running.ask("GET", "/auth/envoy/orders/1", stolen).status in {401, 503}
        wait_until(lambda: running.ask("GET", "/auth/envoy/orders/1", stolen).status == 401, "the log")
        assert running.ask("GET", "/auth/envoy/orders/1", bearer()).status == 200


def test_keys_are_kept_over_a_restart_while_the_issuer_is_down(tmp_path: Path) -> None:
    thread = IssuerThread(free_port(), [public_jwk()])
    url = thread.issuer.issuer
    with thread, gateway(tmp_path, fetched(url) + ROUTES) as running:
        header = bearer(mint(iss=url))
        wait_until(lambda: running.ask("GET", "/auth/envoy/orders/1", header).status == 200, "the key")
    with gateway(tmp_path, fetched(url) + ROUTES) as running:
        assert running.ask("GET", "/auth/envoy/orders/1", header).status == 200
        state = json.loads(running.admin("/readyz").body)["dependencies"][f"issuer {url}"]["state"]
        assert state in {"ok", "stale"}
