"""WebSocket pass-through: two handshakes, two framings, one conversation (RFC 6455).

The server in front speaks frames with the client and messages with us; `websockets`' sans-I/O protocol speaks frames
with the upstream. So nothing of one side's framing reaches the other: extensions are negotiated with neither, fragments
are joined, pings are answered on each side by itself. Messages, subprotocols and close codes pass through.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass

from websockets.client import ClientProtocol
from websockets.exceptions import InvalidStatus, PayloadTooBig
from websockets.frames import Frame, Opcode
from websockets.http11 import Response
from websockets.protocol import Event, State
from websockets.typing import Subprotocol
from websockets.uri import WebSocketURI

from gateway._native.upstream import UpstreamFault, UpstreamPool
from gateway.front.asgi import Message, Receive, Scope, Send

__all__ = ["SocketLimits", "relay_websocket"]

READ_BYTES = 65536
REFUSAL_BODY_BYTES_MAX = 65536  # of an upstream's answer that refuses the handshake; a longer one is left out

# RFC 6455 §7.4.1, and the IANA registry for 1014.
NORMAL, GOING_AWAY, PROTOCOL_ERROR, NO_STATUS, ABNORMAL = 1000, 1001, 1002, 1005, 1006
INVALID_DATA, TOO_BIG, INTERNAL_ERROR, BAD_GATEWAY = 1007, 1009, 1011, 1014

_HOP_BY_HOP = frozenset(
    (
        "connection",
        "content-length",
        "keep-alive",
        "proxy-authenticate",
        "te",
        "trailer",
        "transfer-encoding",
        "upgrade",
    )
)


@dataclass(frozen=True, slots=True)
class SocketLimits:
    """What one WebSocket may take."""

    message_bytes_max: int = 1024 * 1024  # of one message, either way; a longer one closes with 1009
    handshake_timeout_s: float = 10.0  # the upstream's answer to the handshake
    ping_interval_s: float = 20.0  # between two pings to the upstream
    ping_timeout_s: float = 20.0  # for its answer; a client that takes nothing for both together is cut
    close_timeout_s: float = 5.0  # for the upstream's close frame after the client's


DEFAULT_LIMITS = SocketLimits()


@dataclass(frozen=True, slots=True)
class Ending:
    """Why a conversation ends, in the words of a close frame."""

    code: int
    reason: str = ""
    by_client: bool = False


GONE = Ending(ABNORMAL, by_client=True)


async def relay_websocket(
    scope: Scope,
    receive: Receive,
    send: Send,
    *,
    pool: UpstreamPool,
    target: bytes,
    extra_headers: Sequence[tuple[bytes, bytes]] = (),
    drop: frozenset[bytes] | None = None,
    trusted: bool = False,
    limits: SocketLimits = DEFAULT_LIMITS,
    stop: asyncio.Event | None = None,
) -> None:
    """Pass one ASGI websocket through to the upstream until either side ends it.

    Headers are treated as by `UpstreamPool.forward`. Raises UpstreamFault only before anything was received from or
    sent to the server, so that the caller can refuse the handshake in its own words. An upstream that refuses is
    quoted: its status, headers and body where the server knows `websocket.http.response`, else the server's 403.
    `stop`: when it is set (the gateway drains), both sides are closed with 1001. Cookies of the upstream's 101 go into
    `websocket.accept`; granian 2.8 sends none of its headers.
    """
    bridge = _Bridge(scope, receive, send, limits)
    reader, writer = await pool.open_stream(READ_BYTES)
    try:
        head = pool.request_head(scope, target, (*extra_headers, *bridge.handshake_headers()), drop, trusted)
        response = await bridge.shake_hands(reader, writer, head)
        if (await receive())["type"] != "websocket.connect":
            return
        if response.status_code != 101:
            await bridge.refuse(response)
            return
        await bridge.accept(response)
        await bridge.converse(reader, writer, stop)
    finally:
        pool.close_stream(writer)


class _Bridge:
    """One conversation. Not to be used twice."""

    def __init__(self, scope: Scope, receive: Receive, send: Send, limits: SocketLimits) -> None:
        self.scope = scope
        self.receive = receive
        self.send = send
        self.limits = limits
        self.subprotocols = [Subprotocol(name) for name in scope.get("subprotocols") or ()]
        self.protocol = ClientProtocol(
            WebSocketURI(False, "upstream", 80, "/", ""),
            subprotocols=self.subprotocols or None,
            max_size=limits.message_bytes_max,
        )
        self.fragments: list[bytes] = []
        self.fragments_are_text = False
        self.delivering_since: float | None = None  # the client has not taken a message yet
        self.heard = asyncio.Event()  # a pong came
        self.pings = 0
        self.early: list[Event] = []  # frames that came right behind the upstream's handshake

    # -- the handshakes -----------------------------------------------------------------------------------------------

    def handshake_headers(self) -> tuple[tuple[bytes, bytes], ...]:
        """Return our own handshake (RFC 6455 §4.1): the client's key and extensions are between it and the server."""
        headers = [
            (b"connection", b"Upgrade"),
            (b"upgrade", b"websocket"),
            (b"sec-websocket-version", b"13"),
            (b"sec-websocket-key", self.protocol.key.encode()),
        ]
        if self.subprotocols:
            headers.append((b"sec-websocket-protocol", ", ".join(self.subprotocols).encode("latin-1", "replace")))
        return tuple(headers)

    async def shake_hands(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, head: bytes) -> Response:
        """Ask the upstream; return its answer, 101 or a refusal. Raises UpstreamFault for anything else."""
        try:
            async with asyncio.timeout(self.limits.handshake_timeout_s):
                writer.write(head)
                await writer.drain()
                while True:
                    data = await reader.read(READ_BYTES)
                    if data:
                        self.protocol.receive_data(data)
                    else:
                        self.protocol.receive_eof()
                    # Not the state: what lies behind the upstream's answer may have closed the protocol already.
                    self.early += self.protocol.events_received()
                    if self.early or self.protocol.handshake_exc is not None:
                        break
        except TimeoutError:
            raise UpstreamFault("timeout", "the upstream did not answer the handshake in time") from None
        except OSError as error:
            raise UpstreamFault("protocol", f"the connection broke: {type(error).__name__}") from error
        refusal = self.protocol.handshake_exc
        if refusal is None:
            response = self.early.pop(0)
            assert isinstance(response, Response)
            return response
        if isinstance(refusal, InvalidStatus) and 200 <= refusal.response.status_code <= 599:
            return refusal.response
        raise UpstreamFault("protocol", f"the upstream's handshake is invalid: {type(refusal).__name__}")

    async def accept(self, response: Response) -> None:
        cookies = [(b"set-cookie", value.encode("latin-1")) for value in response.headers.get_all("Set-Cookie")]
        await self.send({"type": "websocket.accept", "subprotocol": self.protocol.subprotocol, "headers": cookies})

    async def refuse(self, response: Response) -> None:
        """Hand on the upstream's refusal, as far as the server can say it."""
        if "websocket.http.response" not in (self.scope.get("extensions") or {}):
            await self.send({"type": "websocket.close", "code": NORMAL})
            return
        body = bytes(response.body or b"")
        if len(body) > REFUSAL_BODY_BYTES_MAX:
            body = b""
        headers = [
            (name.lower().encode("latin-1"), value.encode("latin-1", "replace"))
            for name, value in response.headers.raw_items()
            if name.lower() not in _HOP_BY_HOP
        ]
        headers.append((b"content-length", b"%d" % len(body)))
        start: Message = {
            "type": "websocket.http.response.start",
            "status": response.status_code,
            "headers": headers,
        }
        await self.send(start)
        await self.send({"type": "websocket.http.response.body", "body": body})

    # -- the conversation ---------------------------------------------------------------------------------------------

    async def converse(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, stop: asyncio.Event | None
    ) -> None:
        """Carry messages both ways until one side ends, then end the other."""
        down = asyncio.ensure_future(self.pump_down(reader, writer))
        up = asyncio.ensure_future(self.pump_up(writer))
        others = [asyncio.ensure_future(self.keep_alive(writer))]
        if stop is not None:
            others.append(asyncio.ensure_future(self.wait_for_stop(stop)))
        running: list[asyncio.Future[Ending]] = [down, up, *others]
        try:
            done, _ = await asyncio.wait(running, return_when=asyncio.FIRST_COMPLETED)
            ending = next(future for future in running if future in done).result()
            if not ending.by_client:
                up.cancel()
            await self.close_upstream(ending, down, writer)
            if not ending.by_client:
                await self.close_client(ending)
        finally:
            for future in running:
                future.cancel()
            await asyncio.wait(running)

    async def pump_down(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> Ending:
        """Upstream to client. Reads no more while the client does not take what was read."""
        events = self.early
        while True:
            for event in events:
                assert isinstance(event, Frame)
                message = self.join(event)
                if message is not None and not await self.deliver(message):
                    return GONE
            await self.flush(writer)
            if self.protocol.close_rcvd is not None:
                code = self.protocol.close_rcvd.code
                return Ending(NORMAL if code == NO_STATUS else code, self.protocol.close_rcvd.reason)
            if self.protocol.parser_exc is not None:
                too_big = isinstance(self.protocol.parser_exc, PayloadTooBig)
                return Ending(TOO_BIG, "message too big") if too_big else Ending(BAD_GATEWAY, "upstream misbehaved")
            try:
                data = await reader.read(READ_BYTES)
            except OSError:
                data = b""
            if not data:
                return Ending(BAD_GATEWAY, "upstream went away")
            self.protocol.receive_data(data)
            events = self.protocol.events_received()

    def join(self, frame: Frame) -> Message | None:
        """Return a whole message once its last fragment is there; a text that is not UTF-8 fails the connection."""
        if frame.opcode is Opcode.PONG:
            self.heard.set()
        if frame.opcode not in (Opcode.TEXT, Opcode.BINARY, Opcode.CONT):
            return None
        if frame.opcode is not Opcode.CONT:
            self.fragments_are_text = frame.opcode is Opcode.TEXT
        self.fragments.append(bytes(frame.data))
        if not frame.fin:
            return None
        data = b"".join(self.fragments)
        self.fragments.clear()
        if not self.fragments_are_text:
            return {"type": "websocket.send", "bytes": data}
        try:
            return {"type": "websocket.send", "text": data.decode()}
        except UnicodeDecodeError as error:
            self.protocol.fail(INVALID_DATA, "text is not UTF-8")
            self.protocol.parser_exc = error
            return None

    async def deliver(self, message: Message) -> bool:
        """Hand a message to the server; False when the client is gone."""
        self.delivering_since = asyncio.get_running_loop().time()
        try:
            await self.send(message)
        except OSError:
            return False
        self.delivering_since = None
        return True

    async def pump_up(self, writer: asyncio.StreamWriter) -> Ending:
        """Client to upstream. Asks for no more while the upstream does not take what was sent."""
        while True:
            try:
                message = await self.receive()
            except RuntimeError:  # what granian says of a transport that is closed already
                return GONE
            if message["type"] != "websocket.receive":
                code = message.get("code") or NO_STATUS
                return Ending(code, message.get("reason") or "", by_client=True)
            text = message.get("text")
            data = text.encode() if text is not None else message["bytes"]
            if len(data) > self.limits.message_bytes_max:
                return Ending(TOO_BIG, "message too big")
            if self.protocol.state is not State.OPEN:
                continue  # the upstream is closing; what the client still says has no receiver
            if text is not None:
                self.protocol.send_text(data)
            else:
                self.protocol.send_binary(data)
            await self.flush(writer)

    async def keep_alive(self, writer: asyncio.StreamWriter) -> Ending:
        """Ping the upstream; end when it does not answer, or the client takes nothing."""
        clock = asyncio.get_running_loop().time
        patience_s = self.limits.ping_interval_s + self.limits.ping_timeout_s
        while True:
            await asyncio.sleep(self.limits.ping_interval_s)
            if self.delivering_since is not None:
                # We do not read while the client is slow, so a pong could not be seen.
                if clock() - self.delivering_since > patience_s:
                    return Ending(INTERNAL_ERROR, "client takes nothing")
                continue
            if self.protocol.state is not State.OPEN:
                continue
            self.heard.clear()
            self.pings += 1
            self.protocol.send_ping(b"%d" % self.pings)
            try:
                async with asyncio.timeout(self.limits.ping_timeout_s):
                    await self.flush(writer)
                    await self.heard.wait()
            except TimeoutError:
                if self.delivering_since is None:
                    return Ending(INTERNAL_ERROR, "upstream timed out")

    async def wait_for_stop(self, stop: asyncio.Event) -> Ending:
        await stop.wait()
        return Ending(GOING_AWAY, "gateway stops")

    async def flush(self, writer: asyncio.StreamWriter) -> None:
        """Write what the protocol has for the upstream, and wait while its buffer is full."""
        for data in self.protocol.data_to_send():
            if data:
                writer.write(data)
        try:
            await writer.drain()
        except OSError:
            return  # the reading side notices and ends the conversation

    async def close_upstream(self, ending: Ending, down: asyncio.Future[Ending], writer: asyncio.StreamWriter) -> None:
        """Say goodbye to the upstream, and give it a while to answer (RFC 6455 §7.1.1)."""
        if self.protocol.state is State.OPEN and not down.done():
            code = sendable(ending.code)
            if code is None:
                self.protocol.send_close()
            else:
                self.protocol.send_close(code, ending.reason)
        try:
            async with asyncio.timeout(self.limits.close_timeout_s):
                await self.flush(writer)
                if not down.done() and ending.code != INTERNAL_ERROR:
                    await asyncio.wait([down])
        except TimeoutError:
            return  # it had its time; the connection is cut

    async def close_client(self, ending: Ending) -> None:
        code = sendable(ending.code) or NORMAL
        try:
            async with asyncio.timeout(self.limits.close_timeout_s):
                await self.send({"type": "websocket.close", "code": code, "reason": ending.reason})
        except (OSError, RuntimeError, TimeoutError):
            return  # a client that is gone needs no goodbye


def sendable(code: int) -> int | None:
    """Return the code to put in a close frame for a code that was received; None for a frame without one.

    RFC 6455 §7.4.1: 1005, 1006 and 1015 "MUST NOT be set as a status code in a Close control frame".
    """
    if code == NO_STATUS:
        return None
    if 1000 <= code <= 1014 and code not in (1004, ABNORMAL):
        return code
    return code if 3000 <= code <= 4999 else GOING_AWAY
