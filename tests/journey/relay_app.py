"""A proxy door and nothing else: relays every request to `UPSTREAM_PORT`, and tells what it did at `/-/stats`."""

from __future__ import annotations

import asyncio
import itertools
import json
import os
from collections.abc import Awaitable
from typing import Any

from gateway._native.upstream import UpstreamFault, UpstreamPool
from gateway.front.websocket import SocketLimits, relay_websocket

IDENTITY = frozenset((b"x-auth-subject", b"x-auth-decision-id"))
STATUS = {"unreachable": 502, "protocol": 502, "timeout": 504, "busy": 503, "body_too_large": 413}

LIMITS = SocketLimits(
    message_bytes_max=100_000, handshake_timeout_s=1.0, ping_interval_s=0.2, ping_timeout_s=1.0, close_timeout_s=1.0
)


class RelayApp:
    def __init__(self) -> None:
        self.pool: UpstreamPool | None = None
        self.faults: list[tuple[str, bool]] = []
        self.decision = itertools.count()
        self.stop = asyncio.Event()

    def __call__(self, scope: dict[str, Any], receive: Any, send: Any) -> Awaitable[None]:
        if self.pool is None:
            self.pool = UpstreamPool(
                "127.0.0.1",
                int(os.environ["UPSTREAM_PORT"]),
                response_timeout_s=1.0,
                body_timeout_s=1.0,
                stall_timeout_s=20.0,
                tick_s=0.05,
                body_bytes_max=100_000_000,
            )
        if scope["type"] == "websocket":
            return self.websocket(scope, receive, send)
        if scope["type"] == "lifespan":
            return self.live(receive, send)
        if scope["raw_path"] == b"/-/stop":
            self.stop.set()
        if scope["raw_path"].startswith(b"/-/"):
            return self.tell(send)
        awaitable = self.relay(scope, receive, send)
        return awaitable if scope["raw_path"].startswith(b"/bare/") else self.answer(awaitable, send)

    def extra(self) -> tuple[tuple[bytes, bytes], ...]:
        return ((b"x-auth-subject", b"alice"), (b"x-auth-decision-id", b"%d" % next(self.decision)))

    def relay(self, scope: dict[str, Any], receive: Any, send: Any) -> Awaitable[None]:
        assert self.pool is not None
        query = b"?" + scope["query_string"] if scope["query_string"] else b""
        return self.pool.forward(scope, receive, send, scope["raw_path"] + query, self.extra(), IDENTITY)

    async def answer(self, relayed: Awaitable[None], send: Any) -> None:
        try:
            await relayed
        except UpstreamFault as fault:
            self.faults.append((fault.kind, fault.started))
            if not fault.started:
                body = fault.kind.encode()
                headers = [(b"content-length", b"%d" % len(body))]
                status = STATUS.get(fault.kind, 400)
                await send({"type": "http.response.start", "status": status, "headers": headers})
                await send({"type": "http.response.body", "body": body})

    async def tell(self, send: Any) -> None:
        assert self.pool is not None
        told = {"pid": os.getpid(), "faults": self.faults, "stats": self.pool.stats()}
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": json.dumps(told).encode()})

    async def websocket(self, scope: dict[str, Any], receive: Any, send: Any) -> None:
        assert self.pool is not None
        try:
            await relay_websocket(
                scope,
                receive,
                send,
                pool=self.pool,
                target=scope["raw_path"],
                extra_headers=self.extra(),
                drop=IDENTITY,
                limits=LIMITS,
                stop=self.stop,
            )
        except UpstreamFault as fault:
            self.faults.append((fault.kind, fault.started))
            await receive()
            start = {"type": "websocket.http.response.start", "status": STATUS.get(fault.kind, 400), "headers": []}
            await send(start)
            await send({"type": "websocket.http.response.body", "body": fault.kind.encode()})

    async def live(self, receive: Any, send: Any) -> None:
        while True:
            message = await receive()
            if message["type"] == "lifespan.shutdown" and self.pool is not None:
                await self.pool.aclose()
            await send({"type": message["type"] + ".complete"})
            if message["type"] == "lifespan.shutdown":
                return


app = RelayApp()
