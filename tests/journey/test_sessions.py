"""Sessions of a real gateway: known to every worker, over within a second, and no token."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import TypeVar

import pytest

from gateway.flows.sessions import Begun, Proof, SessionNames, Sessions
from gateway.flows.trail import AuditTrail
from gateway.front.own_keys import own_key
from gateway.front.sessions import KEY_FILE
from gateway.stores import open_session_store
from gateway.types import AuditEvent, Secret, Subject, SystemClock
from tests.real.gateway import Gateway, bearer, gateway, issuer_toml
from tests.real.http import Answer, Connection
from tests.real.workers import one_to_each

pytestmark = pytest.mark.journey

CONFIG = """
[sessions]
url = "embedded"

[forward_auth]
login_url = "https://auth.test/login"
login_hosts = ["app.test"]

[[routes]]
path = "/app/{*rest}"
auth = "session"

[[routes]]
path = "/api/{*rest}"
"""
T = TypeVar("T")
NAME = "__Host-portcullis"
WITHIN_S = 1.0


class Nobody:
    def tell(self, event: AuditEvent) -> None:
        """Take no note."""


@pytest.fixture
def running(tmp_path: Path) -> Iterator[Gateway]:
    with gateway(tmp_path, issuer_toml(tmp_path) + CONFIG, workers=2) as made:
        yield made


def with_sessions(run_dir: Path, work: Callable[[Sessions], Awaitable[T]]) -> T:
    """Do something with a gateway's sessions from another process, as its login page would."""

    async def run() -> T:
        clock = SystemClock()
        store = open_session_store("", run_dir, clock)
        try:
            names = SessionNames("local", Secret(own_key(run_dir, KEY_FILE)))
            return await work(Sessions(store, names, clock=clock, trail=AuditTrail(Nobody(), clock)))
        finally:
            await store.close()

    return asyncio.run(run())


def begun(run_dir: Path) -> Begun:
    return with_sessions(run_dir, lambda sessions: sessions.begin(Subject("", "usr_alice"), Proof(amr=("pwd",))))


def asked(connection: Connection, *headers: tuple[str, str], path: str = "/app/x", method: str = "GET") -> Answer:
    told = [("X-Forwarded-Method", method), ("X-Forwarded-Uri", path), ("X-Forwarded-Host", "app.test")]
    return connection.request("GET", "/auth/forward", [*told, ("X-Forwarded-Proto", "https"), *headers])


def cookie(value: str) -> tuple[str, str]:
    return ("Cookie", f"theme=dark; {NAME}={value}")


def test_a_session_is_known_to_every_worker_and_over_within_a_second(running: Gateway, tmp_path: Path) -> None:
    session = begun(tmp_path / "run")
    with one_to_each(running.port, 2) as connections:
        for connection in connections:
            answer = asked(connection, cookie(session.value))
            assert (answer.status, answer.one("x-auth-subject"), answer.one("x-auth-issuer")) == (
                200,
                "usr_alice",
                "portcullis",
            )
        with_sessions(tmp_path / "run", lambda sessions: sessions.end(session.value))
        ended_s = time.monotonic()
        for connection in connections:
            while asked(connection, cookie(session.value)).status == 200:
                assert time.monotonic() - ended_s < 10 * WITHIN_S
        assert time.monotonic() - ended_s < 4 * WITHIN_S  # the machine of a test may be busy with something else
        refused = asked(connections[0], cookie(session.value))
        assert (refused.status, refused.json["code"]) == (401, "session_invalid")


def test_browsers_without_a_session_are_sent_to_log_in(running: Gateway) -> None:
    with Connection(running.port) as connection:
        answer = asked(connection, ("Accept", "text/html"), ("Sec-Fetch-Mode", "navigate"))
        assert (answer.status, answer.one("location")) == (
            302,
            "https://auth.test/login?rd=https%3A%2F%2Fapp.test%2Fapp%2Fx",
        )
        assert asked(connection).json["code"] == "no_credentials"


def test_no_token_is_a_session_and_no_session_a_token(running: Gateway, tmp_path: Path) -> None:
    session = begun(tmp_path / "run")
    with Connection(running.port) as connection:
        assert asked(connection, bearer(), path="/api/x").status == 200
        assert asked(connection, bearer()).status == 401
        assert asked(connection, cookie(bearer()[1].split()[1])).status == 401
        assert asked(connection, ("Authorization", f"Bearer {session.value}"), path="/api/x").status == 401
        assert asked(connection, cookie(session.value), path="/api/x").status == 401


def test_another_site_cannot_make_the_browser_change_anything(running: Gateway, tmp_path: Path) -> None:
    session = cookie(begun(tmp_path / "run").value)
    with Connection(running.port) as connection:
        refused = asked(connection, session, ("Sec-Fetch-Site", "cross-site"), method="POST")
        assert (refused.status, refused.json["code"]) == (403, "cross_site")
        assert asked(connection, session, ("Sec-Fetch-Site", "same-origin"), method="POST").status == 200
