"""A real gateway whose Redis or PostgreSQL dies, or freezes: the right level in time, and known sessions go on."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from gateway.flows.sessions import Proof, SessionNames, Sessions
from gateway.flows.trail import AuditTrail
from gateway.stores import open_session_store
from gateway.types import AuditEvent, Secret, Subject, SystemClock
from tests.real.gateway import Gateway, bearer, gateway, issuer_toml
from tests.real.http import Answer
from tests.real.lines import metric
from tests.real.postgres import RealPostgres
from tests.real.process import wait_until
from tests.real.redis import RealRedis

pytestmark = pytest.mark.journey

LEVEL_WITHIN_S = 2.0
SLACK_S = 1.5  # of a machine that does other work meanwhile
KEY = "k" * 32
CONFIG = """
[sessions]
url = "REDIS"
key = "env:SESSION_KEY"

[[routes]]
path = "/app/{*rest}"
auth = "session"

[[routes]]
path = "/api/{*rest}"

[resilience.health]
fall_s = 0.5

[resilience.breaker]
recovery_s = 0.5
recovery_s_max = 1.0
"""


class Nobody:
    def tell(self, event: AuditEvent) -> None:
        """Take no note."""


@pytest.fixture
def redis(tmp_path: Path) -> Iterator[RealRedis]:
    server = RealRedis(tmp_path)
    yield server
    server.stop()


@pytest.fixture
def running(tmp_path: Path, redis: RealRedis) -> Iterator[Gateway]:
    with gateway(
        tmp_path, issuer_toml(tmp_path) + CONFIG.replace("REDIS", redis.url), env={"SESSION_KEY": KEY}
    ) as made:
        yield made


def begin(redis: RealRedis, run_dir: Path) -> str:
    """Begin a session as a log-in would; give the cookie's value."""

    async def run() -> str:
        clock = SystemClock()
        store = open_session_store(redis.url, run_dir, clock)
        try:
            names = SessionNames("local", Secret(KEY))
            sessions = Sessions(store, names, clock=clock, trail=AuditTrail(Nobody(), clock))
            return (await sessions.begin(Subject("", "usr_alice"), Proof(amr=("pwd",)))).value
        finally:
            await store.close()

    return asyncio.run(run())


def by_session(running: Gateway, value: str) -> Answer:
    return running.ask("GET", "/auth/envoy/app/x", ("Cookie", f"__Host-portcullis={value}"))


def level_of(running: Gateway) -> int:
    answer = running.admin("/readyz")
    assert answer.status == 200  # a worker stays ready at every level
    level: int = answer.json["degradation"]["level"]
    assert answer.all("x-portcullis-degradation") == ([str(level)] if level else [])
    return level


@pytest.mark.parametrize("fault", ["kill", "freeze"])
def test_redis_that_is_gone_is_level_2_and_known_sessions_go_on(
    running: Gateway, redis: RealRedis, tmp_path: Path, fault: str
) -> None:
    known, unknown = begin(redis, tmp_path / "run"), begin(redis, tmp_path / "run")
    assert by_session(running, known).status == 200
    assert level_of(running) == 0

    redis.kill() if fault == "kill" else redis.freeze()
    gone_s = time.monotonic()
    wait_until(lambda: level_of(running) == 2, "level 2", 10)
    assert time.monotonic() - gone_s < LEVEL_WITHIN_S + SLACK_S
    shown = running.admin("/readyz").json
    assert shown["degradation"]["reasons"] == ["cache down"]
    assert shown["dependencies"]["cache"]["state"] == "unavailable"

    # Longer than the hot path keeps anything without news of revocations: each answer is asked for anew.
    for _ in range(3):
        time.sleep(1.1)
        asked_s = time.monotonic()
        assert by_session(running, known).status == 200
        assert time.monotonic() - asked_s < SLACK_S  # nobody waits for what is known to be down
        refused = by_session(running, unknown)
        assert (refused.status, refused.json["code"]) == (503, "session_unavailable")
        assert by_session(running, known[:-1] + ("a" if known[-1] != "a" else "b")).status == 401
        assert running.ask("GET", "/auth/envoy/api/x", bearer()).status == 200
    metrics = running.admin("/metrics").body.decode()
    assert metric(metrics, "portcullis_degradation_level") == 2
    assert metric(metrics, "portcullis_dependency_down", dependency="cache") == 1

    redis.start() if fault == "kill" else redis.thaw()
    wait_until(lambda: by_session(running, unknown).status == 200, "sessions to be looked up again", 15)
    wait_until(lambda: level_of(running) == 0, "level 0", 15)
    assert by_session(running, known).status == 200


@pytest.fixture
def postgres(tmp_path: Path) -> Iterator[RealPostgres]:
    server = RealPostgres(tmp_path, options=("max_connections=120",))
    yield server
    server.stop()


@pytest.mark.parametrize("fault", ["kill", "freeze"])
def test_a_database_that_is_gone_is_level_2_and_with_redis_level_3(
    redis: RealRedis, postgres: RealPostgres, tmp_path: Path, fault: str
) -> None:
    directory = '[directory]\nurl = "env:DATABASE"\nencryption_key = "env:SESSION_KEY"\n'
    config = issuer_toml(tmp_path) + CONFIG.replace("REDIS", redis.url) + directory
    with gateway(tmp_path, config, env={"SESSION_KEY": KEY, "DATABASE": postgres.url}) as running:
        known, unknown, late = (begin(redis, tmp_path / "run") for _ in range(3))
        wait_until(lambda: "database" in running.admin("/readyz").json["dependencies"], "the directory", 20)
        wait_until(lambda: level_of(running) == 0, "level 0", 20)
        assert by_session(running, known).status == 200

        postgres.kill() if fault == "kill" else postgres.freeze()
        gone_s = time.monotonic()
        wait_until(lambda: level_of(running) == 2, "level 2", 10)
        assert time.monotonic() - gone_s < LEVEL_WITHIN_S + SLACK_S
        assert running.admin("/readyz").json["degradation"]["reasons"] == ["database down"]
        assert by_session(running, unknown).status == 200  # sessions are elsewhere

        redis.kill() if fault == "kill" else redis.freeze()
        gone_s = time.monotonic()
        wait_until(lambda: level_of(running) == 3, "level 3", 10)
        assert time.monotonic() - gone_s < LEVEL_WITHIN_S + SLACK_S
        time.sleep(1.1)
        assert by_session(running, known).status == 200
        assert by_session(running, late).status == 503
        assert running.ask("GET", "/auth/envoy/api/x", bearer()).status == 200

        for server in (postgres, redis):
            server.start() if fault == "kill" else server.thaw()
        wait_until(lambda: level_of(running) == 0, "level 0", 30)
        assert by_session(running, late).status == 200
