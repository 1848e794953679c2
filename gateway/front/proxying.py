"""The proxy door's way to the app behind it: identity added, spoofed headers removed, faults as problem+json."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from gateway._native.front import FrontDoor, Verdict
from gateway._native.upstream import UpstreamFault
from gateway.front.answers import nginx_status, page_body, problem_body
from gateway.front.asgi import Message, Receive, Scope, Send

__all__ = ["Relay", "fault_answer", "upstream_target"]

_FAULTS: dict[str, tuple[int, str, str, str]] = {
    "unreachable": (502, "upstream_unreachable", "Bad gateway", "the app behind the gateway cannot be reached"),
    "protocol": (502, "upstream_protocol_error", "Bad gateway", "the app behind the gateway gave no valid answer"),
    "timeout": (504, "upstream_timeout", "Gateway timeout", "the app behind the gateway did not answer in time"),
    "busy": (503, "upstream_busy", "Service unavailable", "all connections to the app behind the gateway are in use"),
    "body_too_large": (413, "body_too_large", "Content too large", "the request's body is longer than is accepted"),
}

