"""WebSocket handshakes: judged like any request, refused with the same answers, passed through when allowed."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from gateway._native.front import FrontDoor, RouteSettings, Verdict
from gateway._native.upstream import UpstreamFault
from gateway.front.answers import Refusal, challenge_of, problem_body, refusal_of
from gateway.front.asgi import Receive, Scope, Send
from gateway.front.asking import Asking
from gateway.front.faults import fault_refusal

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
        refusal = refusal_of(verdict.reason)
        if verdict.kind == "ask":
            learned = await self._asking.learn(door, verdict, scope)
            verdict = door.judge_scope(scope, True, learned.refusal, learned.fetched)
            refusal = refusal_of(verdict.reason)
        if verdict.kind == "allow" and verdict.door == "proxy" and verdict.route is not None and verdict.route.upstream:
            try:
                await self._relay(verdict, scope, receive, send)
                return
            except UpstreamFault as fault:
                if fault.started:
                    raise
                refusal = fault_refusal(fault.kind)
        elif verdict.kind in {"allow", "native"}:
            refusal = refusal_of("no_upstream")
        await self._refuse(refusal, verdict, scope, receive, send)

    async def _refuse(self, refusal: Refusal, verdict: Verdict, scope: Scope, receive: Receive, send: Send) -> None:
        """Refuse the handshake with a status where the server can send one, else by closing (403)."""
        await receive()
        if "websocket.http.response" not in scope.get("extensions", {}):
            await send({"type": "websocket.close", "code": POLICY_VIOLATION})
            return
        headers = [
            (b"content-type", b"application/problem+json"),
            (b"cache-control", b"no-store"),
            (b"x-request-id", verdict.request_id.encode()),
        ]
        if refusal.retry_after_s:
            headers.append((b"retry-after", str(refusal.retry_after_s).encode()))
        if refusal.code == "insufficient_scope" and verdict.route is not None:
            settings = verdict.route.extra
            assert isinstance(settings, RouteSettings)
            headers.append((b"www-authenticate", settings.scope_challenge))
        elif refusal.challenge:
            headers.append((b"www-authenticate", challenge_of(self._realm, refusal.challenge, refusal.detail)))
        body = problem_body(refusal.status, refusal.code, refusal.title, refusal.detail, verdict.request_id)
        await send({"type": "websocket.http.response.start", "status": refusal.status, "headers": headers})
        await send({"type": "websocket.http.response.body", "body": body})
