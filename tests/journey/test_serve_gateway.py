"""The whole gateway under its parent: what test_serve.py shows with a stub holds for the real application."""

from __future__ import annotations

import os
import signal
import threading
import time
from pathlib import Path

import pytest

from tests.conftest import ROOT
from tests.journey.test_serve import children_of
from tests.real.gateway import Gateway, bearer, gateway, issuer_toml
from tests.real.http import Answer, Connection
from tests.real.process import ServerProcess, accepts, wait_until

pytestmark = pytest.mark.journey


def route_toml(path: str) -> str:
    return f'[[routes]]\npath = "{path}"\nscopes = ["orders:read"]\n'


def forwarded(connection: Connection, path: str, token: tuple[str, str]) -> Answer:
    headers = [token, ("X-Forwarded-Method", "GET"), ("X-Forwarded-Uri", path), ("X-Forwarded-Host", "app.test")]
    return connection.request("GET", "/auth/forward", headers)


class Load(threading.Thread):
    """A client that keeps its connection, opens the next one where it is told to close, and counts what it gets."""

    def __init__(self, running: Gateway, path: str, *, stop_when_sent_away: bool = False) -> None:
        super().__init__()
        self.statuses: dict[int, int] = {}
        self.error: Exception | None = None
        self.sent_away = False
        self._port, self._path, self._token = running.port, path, bearer()
        self._stop_when_sent_away = stop_when_sent_away
        self._done = threading.Event()

    def run(self) -> None:
        try:
            while not self._done.is_set() and not (self.sent_away and self._stop_when_sent_away):
                self._converse()
        except Exception as error:
            self.error = error

    def _converse(self) -> None:
        with Connection(self._port) as connection:
            while not self._done.is_set():
                answer = forwarded(connection, self._path, self._token)
                self.statuses[answer.status] = self.statuses.get(answer.status, 0) + 1
                if "close" in answer.all("connection"):
                    self.sent_away = True
                    return

    def stop(self) -> None:
        self._done.set()
        self.join(20)
        assert not self.is_alive()


@pytest.mark.parametrize("inline", ["true", "false"])
def test_reload_under_load_loses_no_request_and_changes_the_routes(tmp_path: Path, inline: str) -> None:
    issuer = issuer_toml(tmp_path)
    start = f"inline = {inline}\n#server\n{issuer}"
    with gateway(tmp_path, start + route_toml("/orders/{id}"), workers=2) as running:
        loads = [Load(running, "/orders/7") for _ in range(3)]
        for load in loads:
            load.start()
        for round_number in range(1, 4):
            running.write_config(start + route_toml("/orders/{id}") + route_toml(f"/round-{round_number}/{{*rest}}"))
            running.server.signal(signal.SIGHUP)
            wait_until(lambda n=round_number: running.server.output.count("reloaded: generation") == n, "the reload")  # type: ignore[misc]
            for _ in range(10):
                with Connection(running.port) as connection:
                    assert forwarded(connection, f"/round-{round_number}/x", bearer()).status == 200
                    assert forwarded(connection, f"/round-{round_number - 1}/x", bearer()).status != 200
        for load in loads:
            load.stop()
        assert [load.error for load in loads] == [None] * 3
        assert all(set(load.statuses) == {200} and load.statuses[200] > 20 for load in loads)


def test_a_broken_config_leaves_the_running_one(tmp_path: Path) -> None:
    config = issuer_toml(tmp_path) + route_toml("/orders/{id}")
    with gateway(tmp_path, config, workers=2) as running:
        running.write_config(config + '[[routes]]\npath = "/x"\nscope = "y"\n')
        running.server.signal(signal.SIGHUP)
        wait_until(lambda: "the running config stays" in running.server.output, "the refusal")
        assert f"{running.path}:" in running.server.output
        for _ in range(10):
            with Connection(running.port) as connection:
                assert forwarded(connection, "/orders/7", bearer()).status == 200


@pytest.mark.parametrize("inline", ["true", "false"])
def test_sigterm_under_load_breaks_no_client_and_readiness_goes_first(tmp_path: Path, inline: str) -> None:
    config = f"inline = {inline}\n#server\n" + issuer_toml(tmp_path) + route_toml("/orders/{id}")
    with gateway(tmp_path, config, workers=2) as running:
        loads = [Load(running, "/orders/7", stop_when_sent_away=True) for _ in range(4)]
        for load in loads:
            load.start()
        wait_until(lambda: all(load.statuses.get(200, 0) > 20 for load in loads), "traffic")
        assert running.admin("/readyz").status == 200
        running.server.signal(signal.SIGTERM)
        wait_until(lambda: running.admin("/readyz").status == 503, "not ready")
        for load in loads:
            load.join(20)
        assert [load.error for load in loads] == [None] * 4
        assert all(load.sent_away and set(load.statuses) == {200} for load in loads)
        assert running.server.process.wait(10) == 0


def test_a_killed_worker_is_replaced_and_counts_on(tmp_path: Path) -> None:
    with gateway(tmp_path, issuer_toml(tmp_path) + route_toml("/orders/{id}")) as running:
        os.kill(children_of(running.server.process.pid)[0], signal.SIGKILL)
        with Connection(running.port) as connection:
            assert forwarded(connection, "/orders/7", bearer()).status == 200
        metrics = running.admin("/metrics").body.decode()
        assert "portcullis_worker_starts_total 2" in metrics


def test_sigterm_during_the_start_of_the_whole_gateway_ends_it_quickly(tmp_path: Path) -> None:
    with gateway(tmp_path, issuer_toml(tmp_path) + route_toml("/x"), workers=2) as first:
        command = first.server.process.args
    assert isinstance(command, list)
    for delay_s in (0.1, 0.25, 0.4, 0.5, 0.6, 0.8):
        again = ServerProcess(command, tmp_path / "again.log", cwd=ROOT)
        try:
            time.sleep(delay_s)
            again.signal(signal.SIGTERM)
            assert again.process.wait(5) in (0, -signal.SIGTERM)
        finally:
            again.stop()
        assert not accepts(first.port)
