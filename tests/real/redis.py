"""A real redis-server on a free port, which can be killed, frozen and started again."""

from __future__ import annotations

import signal
import socket
from pathlib import Path

from tests.real.process import ServerProcess, find_binary, free_port


class RealRedis:
    """One redis-server that keeps its data in `folder`, durably."""

    def __init__(self, folder: Path) -> None:
        self.binary = find_binary("redis-server")
        self.folder = folder
        self.port = free_port()
        self.process: ServerProcess | None = None
        self.start()

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}/0"

    def start(self) -> None:
        """Start it on its port, with whatever data it left."""
        self.process = ServerProcess(
            [
                *(self.binary, "--port", str(self.port), "--bind", "127.0.0.1", "--dir", str(self.folder)),
                *("--save", "", "--appendonly", "yes", "--appendfsync", "always", "--maxmemory-policy", "noeviction"),
            ],
            self.folder / "redis.log",
        )
        self.process.wait_for(self.answers, "redis-server")

    def answers(self) -> bool:
        """Say whether it answers PING."""
        return self.command("PING") == b"+PONG\r\n"

    def command(self, *words: str) -> bytes:
        """Send one command on a connection of its own; return the first piece of the answer, b"" for none."""
        try:
            with socket.create_connection(("127.0.0.1", self.port), timeout=0.5) as connection:
                parts = "".join(f"${len(word.encode())}\r\n{word}\r\n" for word in words)
                connection.sendall(f"*{len(words)}\r\n{parts}".encode())
                return connection.recv(65536)
        except OSError:
            return b""

    def kill(self) -> None:
        """End it as a crash would."""
        assert self.process is not None
        self.process.signal(signal.SIGKILL)
        self.process.stop()

    def freeze(self) -> None:
        """Stop it without closing anything: its peers see nothing but silence."""
        assert self.process is not None
        self.process.signal(signal.SIGSTOP)

    def thaw(self) -> None:
        assert self.process is not None
        self.process.signal(signal.SIGCONT)

    def forget(self) -> None:
        """Lose all data, as a server without a disk does when it is restarted."""
        assert self.command("FLUSHALL").startswith(b"+OK")

    def stop(self) -> None:
        if self.process is not None:
            self.process.stop()
