"""The pools behind the proxy door: one for each upstream and set of limits, kept over reloads that do not change it."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Mapping
from dataclasses import dataclass
from urllib.parse import urlsplit

from gateway._native.upstream import UpstreamPool
from gateway.config import RouteConfig, ServerConfig


@dataclass(frozen=True, slots=True)
class UpstreamKey:
    """Everything that makes two pools different."""

    upstream: str
    preserve_host: bool
    connect_timeout_s: float
    response_timeout_s: float
    keepalive_s: float
    connections_max: int
    body_bytes_max: int
    body_timeout_s: float


@dataclass(frozen=True, slots=True)
class Address:
    """Where an upstream listens."""

    scheme: str  # http | https | unix
    host: str
    port: int
    path: str = ""  # of a unix socket


def parse_upstream(url: str) -> Address:
    """Read `http://host:port`, `https://host:port` or `unix:/path`. Raises ValueError for anything else."""
    if url.startswith("unix:"):
        return Address("unix", "localhost", 80, url.removeprefix("unix:").removeprefix("//"))
    parts = urlsplit(url)
    if parts.scheme not in {"http", "https"} or not parts.hostname:
        raise ValueError(f"`{url}` is no upstream address")
    return Address(parts.scheme, parts.hostname, parts.port or (443 if parts.scheme == "https" else 80))


def _authority(address: Address) -> bytes:
    host = f"[{address.host}]" if ":" in address.host else address.host
    default = {"http": 80, "https": 443}.get(address.scheme, 80)
    return (host if address.port == default else f"{host}:{address.port}").encode()


def _new_pool(key: UpstreamKey) -> UpstreamPool:
    address = parse_upstream(key.upstream)
    tls = ssl.create_default_context() if address.scheme == "https" else None
    return UpstreamPool(
        address.host,
        address.port,
        tls=tls,
        server_name=address.host if tls else None,
        unix_path=address.path or None,
        connections_max=key.connections_max,
        connect_timeout_s=key.connect_timeout_s,
        response_timeout_s=key.response_timeout_s,
        keepalive_s=key.keepalive_s,
        body_timeout_s=key.body_timeout_s,
        body_bytes_max=key.body_bytes_max,
        host_header=None if key.preserve_host else _authority(address),
    )


class PoolPlan:
    """The pools that one config asks for: those in use that fit, and new ones."""

    def __init__(self, server: ServerConfig, in_use: Mapping[UpstreamKey, UpstreamPool]) -> None:
        self._server = server
        self._in_use = in_use
        self.drain_timeout_s = server.drain_timeout_s  # for pools that this plan does without
        self.pools: dict[UpstreamKey, UpstreamPool] = {}

    def pool_of(self, route: RouteConfig) -> UpstreamPool:
        """Give the pool of a route, the same one for the same upstream and limits."""
        key = UpstreamKey(
            route.upstream,
            route.preserve_host,
            route.connect_timeout_s,
            route.response_timeout_s,
            route.keepalive_s,
            route.connections_max,
            route.body_bytes_max,
            self._server.body_timeout_s,
        )
        pool = self.pools.get(key) or self._in_use.get(key) or _new_pool(key)
        self.pools[key] = pool
        return pool


class Upstreams:
    """All pools of one worker. Belongs to one event loop."""

    def __init__(self) -> None:
        self._pools: dict[UpstreamKey, UpstreamPool] = {}
        self._closing: set[asyncio.Task[None]] = set()
        self._draining = False

    def plan(self, server: ServerConfig) -> PoolPlan:
        """Begin to collect the pools that a config asks for."""
        return PoolPlan(server, self._pools)

    def commit(self, plan: PoolPlan) -> None:
        """Keep what a plan asked for; what it did not ask for ends when its requests do."""
        gone = [pool for key, pool in self._pools.items() if plan.pools.get(key) is not pool]
        self._pools = plan.pools
        for pool in gone:
            task = asyncio.get_running_loop().create_task(pool.aclose(grace_s=plan.drain_timeout_s))
            self._closing.add(task)
            task.add_done_callback(self._closing.discard)
        if self._draining:
            self.drain()

    def drain(self) -> None:
        """Have relayed answers tell clients to close their connections."""
        self._draining = True
        for pool in self._pools.values():
            pool.draining = True

    def pools(self) -> list[UpstreamPool]:
        return list(self._pools.values())

    async def aclose(self) -> None:
        """Close every pool."""
        await asyncio.gather(*(pool.aclose() for pool in self._pools.values()), *self._closing)
        self._pools = {}
