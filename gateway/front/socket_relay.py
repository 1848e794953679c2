"""Allowed WebSocket handshakes on their way to the app behind the gateway."""

from __future__ import annotations

import asyncio

from gateway._native.front import RouteSettings, Verdict
from gateway._native.upstream import UpstreamPool
from gateway.front.asgi import Receive, Scope, Send
from gateway.front.routing import DECISION_HEADER
from gateway.observability.metrics import Gauge

Headers = tuple[tuple[bytes, bytes], ...]


class SocketRelay:
    """Pass one WebSocket through to its route's upstream, with identity headers of ours and none of the client's."""

    __slots__ = ("_blank", "_decision_id", "_drop", "_open", "_stop")

    def __init__(
        self, drop: frozenset[bytes], blank: Headers, *, decision_id: bool, stop: asyncio.Event, open_sockets: Gauge
    ) -> None:
        """`stop` is set when the gateway drains; `open_sockets` counts the conversations."""
        self._drop = drop
        self._blank = blank
        self._decision_id = decision_id
        self._stop = stop
        self._open = open_sockets

    async def __call__(self, verdict: Verdict, scope: Scope, receive: Receive, send: Send) -> None:
        """Relay until either side ends it. Raises UpstreamFault where nothing was said to the client yet."""
        from gateway.front.websocket import relay_websocket  # only who uses it loads a WebSocket library

        assert verdict.route is not None
        settings = verdict.route.extra
        assert isinstance(settings, RouteSettings) and isinstance(settings.pool, UpstreamPool)
        headers: Headers = self._blank if verdict.identity is None else verdict.identity.headers
        if self._decision_id:
            headers = (*headers, (DECISION_HEADER, verdict.request_id.encode()))
        self._open.add(1)
        try:
            await relay_websocket(
                scope,
                receive,
                send,
                pool=settings.pool,
                target=verdict.target,
                extra_headers=headers,
                drop=self._drop,
                trusted=verdict.peer_trusted,
                stop=self._stop,
            )
        finally:
            self._open.add(-1)
