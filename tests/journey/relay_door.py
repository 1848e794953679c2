"""Starts `relay_app` under a real granian."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.journey.raw_upstream import RawUpstream
from tests.real.http import Answer, ask

DEADLINE_S = 20.0


@dataclass
class Door:
    """A running relay and the upstream behind it."""

    port: int
    upstream: RawUpstream

    def told(self) -> dict[str, Any]:
        return dict(ask(self.port, "GET", "/-/stats").json)

    @property
    def faults(self) -> list[list[Any]]:
        return list(self.told()["faults"])

    def get(self, path: str) -> Answer:
        return ask(self.port, "GET", path)

    def memory_bytes(self) -> int:
        pid = self.told()["pid"]
        for line in Path(f"/proc/{pid}/status").read_text().splitlines():
            if line.startswith("VmRSS:"):
                return int(line.split()[1]) * 1024
        raise AssertionError("no VmRSS")


@contextlib.contextmanager
def relay_door(folder: Path, upstream: RawUpstream) -> Iterator[Door]:
    """Run the relay on a free port until the block ends."""
    with socket.create_server(("127.0.0.1", 0)) as chooser:
        port = int(chooser.getsockname()[1])
    command = [sys.executable, "-m", "granian", "--interface", "asgi", "--loop", "uvloop", "--http", "1"]
    command += ["--runtime-mode", "st", "--host", "127.0.0.1", "--port", str(port), "--no-access-log"]
    command += ["--workers-kill-timeout", "3", "tests.journey.relay_app:app"]
    log_path = folder / "granian.log"
    with log_path.open("wb") as log:
        process = subprocess.Popen(
            command,
            env=os.environ | {"UPSTREAM_PORT": str(upstream.port)},
            cwd=Path(__file__).resolve().parents[2],
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    try:
        until(lambda: answers(port) or process.poll() is not None, "the relay did not start")
        assert process.poll() is None, log_path.read_text()
        yield Door(port, upstream)
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def answers(port: int) -> bool:
    try:
        ask(port, "GET", "/-/stats")
    except OSError:
        return False
    return True


def until(condition: Callable[[], object], what: str) -> None:
    """Wait for what other processes bring about."""
    deadline = time.monotonic() + DEADLINE_S
    while not condition():
        assert time.monotonic() < deadline, what
        time.sleep(0.01)
