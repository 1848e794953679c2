"""Servers under measurement: started on one core, watched through /proc, ended for certain."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

TICKS_PER_S = os.sysconf("SC_CLK_TCK")
PAGE_BYTES = os.sysconf("SC_PAGESIZE")
STOP_TIMEOUT_S = 5.0


@dataclass(frozen=True, slots=True)
class Usage:
    """What a tree of processes has used so far."""

    cpu_s: float
    rss_bytes: int  # of all together; shared pages count each time
    largest_rss_bytes: int  # of the largest: the worker


def free_port() -> int:
    """Give a loopback port that nobody listens on now."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port: int = listener.getsockname()[1]
        return port


def _stat(pid: int) -> list[str] | None:
    """Give the fields of /proc/PID/stat from the third on (proc(5)), or None for a process that has gone."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return None
    return text[text.rindex(")") + 2 :].split()


def tree_of(root: int) -> list[int]:
    """List a process and all that descend from it."""
    children: dict[int, list[int]] = {}
    for entry in os.listdir("/proc"):
        if entry.isdigit() and (fields := _stat(int(entry))) is not None:
            children.setdefault(int(fields[1]), []).append(int(entry))
    found, waiting = [], [root]
    while waiting:
        pid = waiting.pop()
        found.append(pid)
        waiting += children.get(pid, [])
    return found


def usage_of(root: int) -> Usage:
    """Sum CPU time and memory over a process and its descendants."""
    ticks, resident = 0, [0]
    for pid in tree_of(root):
        fields = _stat(pid)
        if fields is not None:
            ticks += int(fields[11]) + int(fields[12])  # utime, stime
            resident.append(int(fields[21]) * PAGE_BYTES)
    return Usage(ticks / TICKS_PER_S, sum(resident), max(resident))


class ServerFailed(Exception):
    """A server did not come up; the message ends with what it last said."""


class Server:
    """One running server."""

    def __init__(self, process: subprocess.Popen[bytes], log: Path) -> None:
        self._process = process
        self._log = log

    def usage(self) -> Usage:
        return usage_of(self._process.pid)

    def require_alive(self) -> None:
        if self._process.poll() is not None:
            raise ServerFailed(f"ended with {self._process.returncode}: {self._tail()}")

    def wait_until_listening(self, port: int, timeout_s: float = 20.0) -> None:
        deadline_s = time.monotonic() + timeout_s
        while True:
            self.require_alive()
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1.0):
                return
            if time.monotonic() > deadline_s:
                raise ServerFailed(f"does not listen on port {port}: {self._tail()}")
            time.sleep(0.02)

    def _tail(self) -> str:
        return " / ".join(self._log.read_text(errors="replace").strip().splitlines()[-6:])


@contextlib.contextmanager
def serving(
    command: Sequence[str], folder: Path, *, core: int, environment: Mapping[str, str] | None = None
) -> Iterator[Server]:
    """Run a server on one core, in a process group of its own; end the whole group afterwards."""
    log = folder / "output.log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            ["taskset", "-c", str(core), *command],
            cwd=folder,
            env={**os.environ, **(environment or {})},
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    try:
        yield Server(process, log)
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGTERM)
        try:
            process.wait(STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            pass
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
