"""The degradation level is told by a header, and only while it is not 0."""

from __future__ import annotations

import pytest

from gateway.front.asgi import Message, Receive, Scope, Send
from gateway.front.level_header import LevelHeader


async def app(_scope: Scope, _receive: Receive, send: Send) -> None:
    await send({"type": "http.response.start", "status": 503, "headers": [(b"a", b"b")]})
    await send({"type": "http.response.body", "body": b"x"})


async def receive() -> Message:
    return {"type": "http.request"}


async def answered(level: int, kind: str = "http") -> list[Message]:
    sent: list[Message] = []

    async def send(message: Message) -> None:
        sent.append(message)

    await LevelHeader(app, lambda: level)({"type": kind}, receive, send)
    return sent


@pytest.mark.parametrize("level", [1, 2, 3])
async def test_a_level_is_told(level: int) -> None:
    start, body = await answered(level)
    assert start["headers"] == [(b"a", b"b"), (b"x-portcullis-degradation", str(level).encode())]
    assert (start["status"], body["body"]) == (503, b"x")


async def test_level_0_is_not_worth_a_header() -> None:
    start, _ = await answered(0)
    assert start["headers"] == [(b"a", b"b")]


async def test_what_is_no_http_is_left_alone() -> None:
    start, _ = await answered(3, "websocket")
    assert start["headers"] == [(b"a", b"b")]
