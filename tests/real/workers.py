"""Which worker of a running server holds a connection: by the kernel's own lists."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

from tests.real.http import Connection

CONNECTIONS_MAX = 200


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
    """Open connections until `count` workers hold one, and give one to each. Fails where they are not spread."""
    found: dict[int, Connection] = {}
    opened: list[Connection] = []
    try:
        while len(found) < count:
            assert len(opened) < CONNECTIONS_MAX, f"{len(found)} of {count} workers took connections"
            opened.append(Connection(port))
            opened[-1].request("GET", "/livez")  # answered: so it was accepted
            holder = worker_of(opened[-1])
            if holder:
                found.setdefault(holder, opened[-1])
        yield list(found.values())
    finally:
        for connection in opened:
            connection.close()
