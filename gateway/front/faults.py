"""What a client gets when the app behind the proxy door cannot be reached, or does not answer as it should."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

from gateway.front.answers import page_body, problem_body

_log = logging.getLogger("portcullis.proxy")

# kind of fault -> status, code, title, detail, Retry-After in seconds
_FAULTS: dict[str, tuple[int, str, str, str, int]] = {
    "unreachable": (502, "upstream_unreachable", "Bad gateway", "the app behind the gateway cannot be reached", 0),
    "protocol": (502, "upstream_protocol_error", "Bad gateway", "the app behind the gateway gave no valid answer", 0),
    "timeout": (504, "upstream_timeout", "Gateway timeout", "the app behind the gateway did not answer in time", 0),
    "busy": (
        503,
        "upstream_busy",
        "Service unavailable",
        "every connection to the app behind the gateway is in use",
        1,
    ),
    "body_too_large": (413, "body_too_large", "Content too large", "the request's body is longer than is accepted", 0),
    "bad_request": (400, "request_unsendable", "Bad request", "the request cannot be passed on as it is", 0),
    "body_timeout": (408, "request_timeout", "Request timeout", "the request's body did not arrive in time", 0),
}
_UNKNOWN = (502, "upstream_error", "Bad gateway", "the app behind the gateway could not be used", 0)

Messages = tuple[dict[str, Any], dict[str, Any]]


class FaultAnswers:
    """Make the answer to an upstream's fault, and tell log and metrics about it. Callable."""

    __slots__ = ("_count",)

    def __init__(self, count: Callable[[str], None]) -> None:
        self._count = count

    def __call__(  # noqa: PLR0917  (called from compiled code, where names cost)
        self, kind: str, message: str, request_id: str, route: str, html: bool, started: bool
    ) -> Messages | None:
        """Give the two ASGI messages, or None where an answer is under way or nobody is there to read one."""
        self._count(kind)
        if kind == "client_gone":
            _log.debug("client went away", extra={"request_id": request_id, "route": route})
            return None
        _log.warning("upstream %s: %s", kind, message, extra={"request_id": request_id, "route": route})
        if started:
            return None
        status, code, title, detail, retry_after_s = _FAULTS.get(kind, _UNKNOWN)
        headers = [(b"cache-control", b"no-store"), (b"x-request-id", request_id.encode())]
        if retry_after_s:
            headers.append((b"retry-after", str(retry_after_s).encode()))
        if html:
            headers.append((b"content-type", b"text/html; charset=utf-8"))
            body = page_body(status, code, title, detail, request_id)
        else:
            headers.append((b"content-type", b"application/problem+json"))
            body = problem_body(status, code, title, detail, request_id)
        start = {"type": "http.response.start", "status": status, "headers": headers}
        return start, {"type": "http.response.body", "body": body}
