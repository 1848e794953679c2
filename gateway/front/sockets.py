"""WebSocket handshakes: judged like any request, refused with the same answers, passed through when allowed."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from gateway._native.front import FrontDoor, Verdict
from gateway.front.answers import challenge_of, problem_body, refusal_of
from gateway.front.asgi import Receive, Scope, Send
from gateway.front.asking import Asking

RelaySocket = Callable[[Verdict, Scope, Receive, Send], Awaitable[None]]

POLICY_VIOLATION = 1008  # RFC 6455 §7.4.1


class SocketDoor:
    """Answer WebSocket handshakes for a FrontDoor."""

    __slots__ = ("_asking", "_realm", "_relay")

    def __init__(self, asking: Asking, relay: RelaySocket, realm: str) -> None:
        self._asking = asking
        self._relay = relay
        self._realm = realm

    async def __call__(self, door: FrontDoor, verdict: Verdict, scope: Scope, receive: Receive, send: Send) -> None:
        reason = verdict.reason
        if verdict.kind == "ask":
            learned = await self._asking.learn(verdict)
            verdict = door.judge_scope(scope, final=True)
            reason = learned or verdict.reason
            if learned is not None:
                await self._refuse(reason, verdict, scope, receive, send)
                return
        if verdict.kind == "allow" and verdict.door == "proxy" and verdict.route is not None and verdict.route.upstream:
            await self._relay(verdict, scope, receive, send)
            return
        if verdict.kind in {"allow", "native"}:
            reason = "no_upstream"
        await self._refuse(reason, verdict, scope, receive, send)

    async def _refuse(self, reason: str, verdict: Verdict, scope: Scope, receive: Receive, send: Send) -> None:
        """Refuse the handshake with a status where the server can send one, else by closing (403)."""
        refusal = refusal_of(reason)
        await receive()
        if "websocket.http.response" not in scope.get("extensions", {}):
            await send({"type": "websocket.close", "code": POLICY_VIOLATION})
            return
        headers = [
            (b"content-type", b"application/problem+json"),
            (b"cache-control", b"no-store"),
            (b"x-request-id", verdict.request_id.encode()),
        ]
        if refusal.challenge:
            headers.append((b"www-authenticate", challenge_of(self._realm, refusal.challenge, refusal.detail)))
        body = problem_body(refusal.status, refusal.code, refusal.title, refusal.detail, verdict.request_id)
        await send({"type": "websocket.http.response.start", "status": refusal.status, "headers": headers})
        await send({"type": "websocket.http.response.body", "body": body})
