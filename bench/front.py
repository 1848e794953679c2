"""A front door without a server, as the bench asks it: scopes in, statuses out."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NoReturn

from bench.load import COMMON_HEADERS, FORWARD_HEADERS
from gateway._native.front import Engine, FrontDoor
from gateway._native.metrics import MetricsBlock
from gateway._native.route_policy import DeciderCell
from gateway._native.token import TokenValidator
from gateway.config import Config, RouteConfig
from gateway.front.answers import deny_answers
from gateway.front.routing import PolicyOf, plan_routes


class Protocol:
    """Stands for granian's: its bound `send` completes at once and keeps the status that was sent."""

    def __init__(self) -> None:
        self.status = 0

    def send(self, message: dict[str, Any]) -> None:
        if "status" in message:
            self.status = message["status"]


class FrontDoorAsked:
    """Forward-auth from scope to answer. Whatever would leave the compiled path is an error."""

    def __init__(
        self,
        validator: TokenValidator,
        routes: Sequence[RouteConfig],
        *,
        policies: DeciderCell | None = None,
        policy_of: PolicyOf | None = None,
    ) -> None:
        plan = plan_routes(Config(routes=tuple(routes)), lambda _: None, policy_of)
        self._protocol = Protocol()
        door = FrontDoor(
            Engine(validator, plan.snapshot, policies=policies),
            app=_unexpected,
            ask=_unexpected,
            websocket=_unexpected,
            fault=_unexpected,
            is_trusted=lambda _: True,
            answers=deny_answers("bench"),
            forward_answers=deny_answers("bench", forward=True),
            metrics=MetricsBlock(bytearray(8 * 100), 0, 100),
            decision_slot=lambda _door, _reason: 0,
            duration_slot=lambda _door: 1,
            sync_send=Protocol,
        )
        send = self._protocol.send
        self.call: Callable[[Any], object] = lambda scope: door(scope, _unexpected, send)  # type: ignore[arg-type]

    def status(self, scope: dict[str, Any]) -> int:
        """Give the status of the answer."""
        self._protocol.status = 0
        self.call(scope)
        return self._protocol.status


def _unexpected(*_: object) -> NoReturn:
    raise AssertionError("a request left the hot path")


def forward_scope(token: bytes) -> dict[str, Any]:
    """Give what granian makes of the load's requests to the forward-auth endpoint."""
    headers = {**COMMON_HEADERS, **FORWARD_HEADERS, "Authorization": f"Bearer {token.decode()}"}
    return {
        "type": "http",
        "http_version": "1.1",
        "method": "GET",
        "scheme": "http",
        "path": "/auth/forward",
        "raw_path": b"/auth/forward",
        "query_string": b"",
        "client": ("127.0.0.1", 50_000),
        "server": ("127.0.0.1", 8080),
        "headers": [(name.lower().encode(), value.encode()) for name, value in headers.items()],
    }
