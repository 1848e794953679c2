"""Which worker of a running server holds a connection: by the kernel's own lists."""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Iterator
from pathlib import Path

from tests.real.http import Connection

CONNECTIONS_MAX = 200
SECONDS_MAX = 10.0
ACCEPTED_S = 0.5  # a worker that runs has accepted and answered by then


def worker_of(connection: Connection) -> int:
    """Give the process at the other end of a connection over 127.0.0.1; 0 until one has accepted it."""
    own, other = connection.socket.getsockname()[1], connection.socket.getpeername()[1]
    for line in Path("/proc/net/tcp").read_text().splitlines()[1:]:
        fields = line.split()
        ports = int(fields[1].rpartition(":")[2], 16), int(fields[2].rpartition(":")[2], 16)
        if ports == (other, own):
            return _holder(f"socket:[{fields[9]}]")
    return 0


def _holder(link: str) -> int:
    for process in Path("/proc").iterdir():
        if process.name.isdecimal() and int(process.name) != os.getpid():
            with contextlib.suppress(OSError):
                if any(_target(descriptor) == link for descriptor in (process / "fd").iterdir()):
                    return int(process.name)
    return 0


def _target(descriptor: Path) -> str:
    try:
        return os.readlink(descriptor)
    except OSError:
        return ""


@contextlib.contextmanager
def one_to_each(port: int, count: int) -> Iterator[list[Connection]]:
    """Open connections until `count` workers hold one, and give one to each. Fails where they are not spread.

    The kernel may hand all connections to the worker that waits last, which would be the same one each time. So those
    that hold one already are stopped while the next one is opened.
    """
    found: dict[int, Connection] = {}
    opened: list[Connection] = []
    try:
        while len(found) < count:
            assert len(opened) < CONNECTIONS_MAX, f"{len(found)} of {count} workers took connections"
            with _stopped(list(found)):
                opened.append(Connection(port))
                opened[-1].socket.settimeout(ACCEPTED_S)
                try:
                    opened[-1].request("GET", "/livez")  # answered: so it was accepted
                except TimeoutError:
                    continue  # it waits for one that is stopped
            opened[-1].socket.settimeout(SECONDS_MAX)
            holder = worker_of(opened[-1])
            if holder:
                found.setdefault(holder, opened[-1])
        yield list(found.values())
    finally:
        for connection in opened:
            connection.close()


@contextlib.contextmanager
def _stopped(processes: list[int]) -> Iterator[None]:
    for process in processes:
        os.kill(process, signal.SIGSTOP)
    try:
        yield
    finally:
        for process in processes:
            os.kill(process, signal.SIGCONT)
