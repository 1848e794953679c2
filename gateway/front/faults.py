"""What a client gets when the app behind the proxy door cannot be reached, or does not answer as it should."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

from gateway.front.answers import Refusal, page_body, problem_body

_log = logging.getLogger("portcullis.proxy")

_REFUSALS = {
    "unreachable": Refusal(502, "upstream_unreachable", "Bad gateway", "the app behind the gateway cannot be reached"),
    "protocol": Refusal(
        502, "upstream_protocol_error", "Bad gateway", "the app behind the gateway gave no valid answer"
    ),
    "timeout": Refusal(504, "upstream_timeout", "Gateway timeout", "the app behind the gateway did not answer in time"),
    "busy": Refusal(
        503,
        "upstream_busy",
        "Service unavailable",
        "every connection to the app behind the gateway is in use",
        retry_after_s=1,
    ),
    "body_too_large": Refusal(
        413, "body_too_large", "Content too large", "the request's body is longer than is accepted"
    ),
    "bad_request": Refusal(400, "request_unsendable", "Bad request", "the request cannot be passed on as it is"),
    "client_gone": Refusal(400, "request_incomplete", "Bad request", "the request's body broke off or is malformed"),
    "body_timeout": Refusal(408, "request_timeout", "Request timeout", "the request's body did not arrive in time"),
}
_UNKNOWN = Refusal(502, "upstream_error", "Bad gateway", "the app behind the gateway could not be used")

Messages = tuple[dict[str, Any], dict[str, Any]]


def fault_refusal(kind: str) -> Refusal:
    """Give the public side of an upstream's fault."""
    return _REFUSALS.get(kind, _UNKNOWN)


class FaultAnswers:
    """Make the answer to an upstream's fault, and tell log and metrics about it. Callable."""

    __slots__ = ("_count",)

    def __init__(self, count: Callable[[str], None]) -> None:
        self._count = count

    def __call__(  # noqa: PLR0917  (called from compiled code, where names cost)
        self, kind: str, message: str, request_id: str, route: str, html: bool, started: bool
    ) -> Messages | None:
        """Give the two ASGI messages, or None where an answer is under way.

        A client that is gone is answered like one whose body could not be read: the server does not tell these two.
        """
        self._count(kind)
        level = logging.DEBUG if kind == "client_gone" else logging.WARNING
        _log.log(level, "upstream %s: %s", kind, message, extra={"request_id": request_id, "route": route})
        if started:
            return None
        refusal = fault_refusal(kind)
        headers = [(b"cache-control", b"no-store"), (b"x-request-id", request_id.encode())]
        if refusal.retry_after_s:
            headers.append((b"retry-after", str(refusal.retry_after_s).encode()))
        if html:
            headers.append((b"content-type", b"text/html; charset=utf-8"))
            body = page_body(refusal.status, refusal.code, refusal.title, refusal.detail, request_id)
        else:
            headers.append((b"content-type", b"application/problem+json"))
            body = problem_body(refusal.status, refusal.code, refusal.title, refusal.detail, request_id)
        start = {"type": "http.response.start", "status": refusal.status, "headers": headers}
        return start, {"type": "http.response.body", "body": body}
