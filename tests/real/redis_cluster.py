"""A real Redis Cluster of six nodes, three primaries and three replicas, on free ports."""

from __future__ import annotations

import contextlib
import signal
import socket
import subprocess
from pathlib import Path

from tests.real.process import ServerProcess, find_binary, free_port, wait_until

NODES = 6
NODE_TIMEOUT_MS = 1000


class ClusterNode:
    """One server of the cluster, which keeps its data in `folder`."""

    def __init__(self, folder: Path, port: int) -> None:
        self.binary = find_binary("redis-server")
        self.folder = folder
        self.port = port
        self.process: ServerProcess | None = None
        self.start()

    def start(self) -> None:
        """Start it on its port, with whatever data it left."""
        self.process = ServerProcess(
            [
                *(self.binary, "--port", str(self.port), "--bind", "127.0.0.1", "--dir", str(self.folder)),
                *("--cluster-port", str(_bus_port(self.port))),
                *("--cluster-enabled", "yes", "--cluster-node-timeout", str(NODE_TIMEOUT_MS)),
                *("--save", "", "--appendonly", "yes", "--appendfsync", "everysec"),
                *("--maxmemory-policy", "noeviction", "--repl-diskless-sync-delay", "0"),
            ],
            self.folder / "redis.log",
        )
        try:
            self.process.wait_for(lambda: self.command("PING") == b"+PONG\r\n", "redis-server")
        except BaseException:
            self.process.stop()
            raise

    def command(self, *words: str) -> bytes:
        """Send one command on a connection of its own; return what comes at first, b"" for nothing."""
        try:
            with socket.create_connection(("127.0.0.1", self.port), timeout=0.5) as connection:
                parts = "".join(f"${len(word.encode())}\r\n{word}\r\n" for word in words)
                connection.sendall(f"*{len(words)}\r\n{parts}".encode())
                return connection.recv(65536)
        except OSError:
            return b""

    @property
    def role(self) -> str:
        """Give "master", "slave", or "" where it does not answer."""
        for line in self.command("INFO", "replication").decode().splitlines():
            if line.startswith("role:"):
                return line.removeprefix("role:")
        return ""

    def kill(self) -> None:
        """End it as a crash would."""
        assert self.process is not None
        self.process.signal(signal.SIGKILL)
        self.process.stop()

    def freeze(self) -> None:
        """Stop it without closing anything."""
        assert self.process is not None
        self.process.signal(signal.SIGSTOP)

    def thaw(self) -> None:
        assert self.process is not None
        self.process.signal(signal.SIGCONT)


class RealRedisCluster:
    """The six of them."""

    def __init__(self, folder: Path) -> None:
        self.nodes: list[ClusterNode] = []
        try:
            for number in range(NODES):
                place = folder / f"node{number}"
                place.mkdir()
                self.nodes.append(ClusterNode(place, _two_free_ports()))
            addresses = [f"127.0.0.1:{node.port}" for node in self.nodes]
            command = [find_binary("redis-cli"), "--cluster", "create", *addresses]
            command += ["--cluster-replicas", "1", "--cluster-yes"]
            subprocess.run(command, check=True, stdout=subprocess.DEVNULL, timeout=60)
            self.wait_until_whole()
        except BaseException:
            self.stop()
            raise

    @property
    def url(self) -> str:
        return "redis://" + ",".join(f"127.0.0.1:{node.port}" for node in self.nodes) + "/0"

    @property
    def primaries(self) -> list[ClusterNode]:
        return [node for node in self.nodes if node.role == "master"]

    def wait_until_whole(self) -> None:
        """Wait until all agree, and each primary has a replica that has caught up."""
        wait_until(self._whole, "a whole Redis Cluster", 30)

    def _whole(self) -> bool:
        linked = 0
        for node in self.nodes:
            if b"cluster_state:ok" not in node.command("CLUSTER", "INFO"):
                return False
            if b"fail" in node.command("CLUSTER", "NODES"):
                return False
            replication = node.command("INFO", "replication")
            if b"role:slave" in replication:
                if b"master_link_status:up" not in replication or b"master_sync_in_progress:1" in replication:
                    return False
                linked += 1
        return linked == NODES // 2 and len(self.primaries) == NODES // 2

    def forget(self) -> None:
        """Lose all data."""
        for node in self.primaries:
            assert node.command("FLUSHALL").startswith(b"+OK")

    def stop(self) -> None:
        for node in self.nodes:
            if node.process is not None:
                node.process.stop()


def _bus_port(port: int) -> int:
    """Give the port on which a node talks with the others."""
    return port + 10_000 if port < 55_000 else port - 10_000


def _two_free_ports() -> int:
    """Give a port that is free, as is the one for the bus that goes with it."""
    while True:
        port = free_port()
        with contextlib.suppress(OSError), socket.create_server(("127.0.0.1", _bus_port(port))):
            return port
