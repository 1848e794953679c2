"""Redis and PostgreSQL die under people: who is logged in goes on, nobody else gets in, and all comes back alone."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.journey.test_login import COOKIE, forwarded, logged_in
from tests.real.browser import Browser
from tests.real.gateway import Gateway, gateway, issuer_toml
from tests.real.people import add_user
from tests.real.postgres import RealPostgres
from tests.real.process import wait_until
from tests.real.redis import RealRedis

pytestmark = pytest.mark.journey

KEY = "k" * 32
CONFIG = """
[sessions]
url = "REDIS"
key = "env:KEY"

[directory]
url = "env:DATABASE"
encryption_key = "env:KEY"

[login]
enabled = true
url = "https://app.test"
store_url = "REDIS"

[forward_auth]
login_hosts = ["app.test"]

[[routes]]
path = "/app/{*rest}"
auth = "session"

[resilience.health]
fall_s = 0.5

[resilience.breaker]
recovery_s = 0.5
recovery_s_max = 1.0
"""


@pytest.fixture
def redis(tmp_path: Path) -> Iterator[RealRedis]:
    server = RealRedis(tmp_path)
    yield server
    server.stop()


@pytest.fixture
def postgres(tmp_path: Path) -> Iterator[RealPostgres]:
    server = RealPostgres(tmp_path, options=("max_connections=120",))
    yield server
    server.stop()


def level_of(running: Gateway) -> int:
    level: int = running.admin("/readyz").json["degradation"]["level"]
    return level


def is_refused(running: Gateway) -> bool:
    """Whether a new browser is told on a page, with a number of seconds, that nobody can log in now."""
    page = Browser(running.port).get("/login")
    return page.status == 503 and "Nobody can log in" in page.text and bool(page.answer.one("retry-after"))


@pytest.mark.parametrize("fault", ["kill", "freeze"])
def test_who_is_logged_in_goes_on_and_nobody_else_gets_in(
    tmp_path: Path, redis: RealRedis, postgres: RealPostgres, fault: str
) -> None:
    config = issuer_toml(tmp_path) + CONFIG.replace("REDIS", redis.url)
    env = {"KEY": KEY, "DATABASE": postgres.url}
    with gateway(tmp_path, config, env=env) as running:
        wait_until(lambda: "database" in running.admin("/readyz").json["dependencies"], "the directory", 20)
        wait_until(lambda: level_of(running) == 0, "level 0", 20)
        user_id = add_user(running, "alice", env=env)
        known, _ = logged_in(running)
        assert forwarded(running, known).one("x-auth-subject") == user_id

        for server, level in ((postgres, 2), (redis, 3)):
            server.kill() if fault == "kill" else server.freeze()
            wait_until(lambda level=level: level_of(running) == level, f"level {level}", 10)  # type: ignore[misc]
            time.sleep(1.1)  # longer than anything is kept without news
            assert forwarded(running, known).one("x-auth-subject") == user_id
            wait_until(lambda: is_refused(running), "a page that refuses", 5)
            stranger = Browser(running.port)
            assert forwarded(running, stranger).status == 302
            assert COOKIE not in stranger.cookies

        for server in (redis, postgres):
            server.start() if fault == "kill" else server.thaw()
        wait_until(lambda: level_of(running) == 0, "level 0", 30)
        wait_until(lambda: COOKIE in logged_in(running)[0].cookies, "a log-in", 20)
        assert forwarded(running, known).status in (200, 302)  # 302: Redis lost it with its memory
        told = "".join(path.read_text("utf-8", "replace") for path in tmp_path.rglob("audit*/**/*") if path.is_file())
        assert "degradation.change" in told
