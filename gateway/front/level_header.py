"""The degradation level as a header, on what our own endpoints answer while it is not 0."""

from __future__ import annotations

from collections.abc import Callable

from gateway.front.asgi import App, Message, Receive, Scope, Send

LEVEL_HEADER = b"x-portcullis-degradation"  # 1 to 3


class LevelHeader:
    """Adds the header to every answer of an application, those to errors included."""

    __slots__ = ("_app", "_level")

    def __init__(self, app: App, level: Callable[[], int]) -> None:
        self._app = app
        self._level = level

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        level = self._level() if scope["type"] == "http" else 0
        if level == 0:
            await self._app(scope, receive, send)
            return

        async def send_with_level(message: Message) -> None:
            if message["type"] == "http.response.start":
                message = {**message, "headers": [*message["headers"], (LEVEL_HEADER, b"%d" % level)]}
            await send(message)

        await self._app(scope, receive, send_with_level)
