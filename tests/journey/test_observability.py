"""Metrics and logs of a running gateway with two workers: right sums, right lines, no token anywhere."""

from __future__ import annotations

import json
import os
import re
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.journey.test_serve import children_of
from tests.real.gateway import Gateway, bearer, gateway, issuer_toml, mint
from tests.real.process import wait_until

pytestmark = pytest.mark.journey

OPAQUE = "canary0opaque7secret"
ROUTES = '[[routes]]\npath = "/orders/{id}"\nscopes = ["orders:read"]\n'


@pytest.fixture
def running(tmp_path: Path) -> Iterator[Gateway]:
    logs = f'[log]\nlevel = "debug"\naccess = "{tmp_path / "access.log"}"\naudit = "{tmp_path / "audit.log"}"\n'
    with gateway(tmp_path, issuer_toml(tmp_path) + ROUTES + logs, workers=2) as started:
        wait_until(lambda: '"message":"ready after' in started.server.output, "both workers")
        yield started


def ask_about(running: Gateway, path: str, *headers: tuple[str, str]) -> int:
    original = (("X-Forwarded-Method", "GET"), ("X-Forwarded-Uri", path), ("X-Forwarded-Host", "app.test"))
    return running.ask("GET", "/auth/forward", *original, *headers).status


def lines_of(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def sample(running: Gateway, series: str) -> float:
    """Give a sample of the exposition by its name and labels as they stand there."""
    for line in running.admin("/metrics").body.decode().splitlines():
        if line.startswith(f"portcullis_{series} "):
            return float(line.rpartition(" ")[2])
    raise AssertionError(f"no {series} in the exposition")


def test_requests_of_all_workers_are_counted_and_logged_once(running: Gateway, tmp_path: Path) -> None:
    good, expired = bearer(), bearer(mint(exp=int(time.time()) - 3600))
    for _ in range(20):
        assert ask_about(running, "/orders/7", good) == 200
        assert ask_about(running, "/orders/7?q=1", expired) == 401
    allowed = 'decisions_total{door="forward",decision="allow",reason="ok"}'
    denied = 'decisions_total{door="forward",decision="deny",reason="expired"}'
    assert sample(running, allowed) == sample(running, denied) == 20
    assert sample(running, 'request_duration_seconds_count{door="forward"}') == 40
    assert sample(running, 'worker_up{worker="0"}') == sample(running, 'worker_up{worker="1"}') == 1
    wait_until(lambda: len(lines_of(tmp_path / "access.log")) >= 40, "all access lines")
    access, audit = lines_of(tmp_path / "access.log"), lines_of(tmp_path / "audit.log")
    judged = [line for line in access if line["door"] == "forward"]
    assert [line["status"] for line in judged].count(200) == [line["reason"] for line in judged].count("expired") == 20
    assert {line["path"] for line in judged} == {"/orders/7"}
    assert {line["route"] for line in judged} == {"/orders/{id}"}
    assert len({line["request_id"] for line in judged}) == 40
    wait_until(lambda: len(lines_of(tmp_path / "audit.log")) == 20, "all audit lines")
    assert {line["event"] for line in audit} == {"denied"}
    (subject,) = {line["subject"] for line in judged if line["decision"] == "allow"}
    assert re.fullmatch("~[0-9a-f]{32}", subject)
    wait_until(lambda: sample(running, 'log_lines_total{log="access"}') == len(access), "the count of written lines")


def test_a_worker_that_dies_leaves_its_counts_behind(running: Gateway) -> None:
    series = 'decisions_total{door="forward",decision="allow",reason="ok"}'
    good = bearer()
    for _ in range(20):
        assert ask_about(running, "/orders/7", good) == 200
    assert sample(running, series) == 20
    for pid in children_of(running.server.process.pid):
        os.kill(pid, signal.SIGKILL)

    def counts_on() -> bool:
        try:
            return ask_about(running, "/orders/7", good) == 200 and sample(running, series) >= 21
        except OSError:
            return False

    wait_until(counts_on, "the next workers")
    wait_until(lambda: sample(running, "worker_starts_total") == 4, "both workers' second start")


def test_no_token_is_in_any_log_or_metric(running: Gateway, tmp_path: Path) -> None:
    token, other = mint(), mint(exp=1)
    tampered = token[:-10] + "AAAAAAAAAA"
    for header in (
        bearer(token),
        bearer(other),
        bearer(tampered),
        bearer(token.rpartition(".")[0]),
        bearer(OPAQUE),
        ("Authorization", f"Basic {OPAQUE}"),
        ("Authorization", token),
        ("Cookie", f"session={token}"),
        ("X-Request-Id", token),
    ):
        paths = ("/orders/7", f"/orders/{token}", f"/orders/7?access_token={token}", f"/{tampered}/{other}", "/a/../b")
        for path in paths:
            ask_about(running, path, header)
            running.ask("GET", path, header)
    wait_until(lambda: len(lines_of(tmp_path / "access.log")) >= 90, "all access lines")
    metrics = running.admin(f"/metrics?token={token}").body.decode()
    running.server.stop()
    texts = {"metrics": metrics, **{path.name: path.read_text() for path in tmp_path.glob("*.log")}}
    assert {"access.log", "audit.log", "gateway.log"} <= set(texts)
    for name, text in texts.items():
        for secret in (OPAQUE, *token.split("."), *other.split("."), *tampered.split(".")[2:]):
            assert secret not in text, f"{name} holds a part of a token"


def test_logs_are_opened_anew_by_a_reload(running: Gateway, tmp_path: Path) -> None:
    good = bearer()
    ask_about(running, "/orders/7", good)
    wait_until(lambda: (tmp_path / "access.log").stat().st_size > 0, "the first line")
    (tmp_path / "access.log").rename(tmp_path / "access.log.1")
    os.kill(running.server.process.pid, signal.SIGHUP)
    wait_until((tmp_path / "access.log").exists, "the new file")

    def is_written_to() -> bool:
        ask_about(running, "/orders/8", good)
        return "/orders/8" in (tmp_path / "access.log").read_text()

    wait_until(is_written_to, "a line in the new file")
