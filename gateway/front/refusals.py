"""What a client is told when an endpoint of ours cannot answer: no place, no time, or a dependency that is down."""

from __future__ import annotations

import logging
import math

from starlette.requests import Request
from starlette.responses import Response

from gateway.errors import GatewayError
from gateway.front.responses import ProblemResponse

_log = logging.getLogger("portcullis.endpoints")

# Title and detail by code. Messages of errors name stores and pools, which are nobody's business outside.
_BUSY = ("Service busy", "there is more work than can be done now; come again in a while")
_PUBLIC = {
    "pool_full": _BUSY,
    "resource_exhausted": _BUSY,
    "overloaded": _BUSY,
    "circuit_open": ("Dependency unavailable", "something that is needed for this cannot be asked now"),
    "store_unavailable": ("Dependency unavailable", "something that is needed for this cannot be asked now"),
    "deadline_exceeded": ("Gateway timeout", "this took longer than it may; whether it took place is not known"),
}
# Counted by metrics; in a flood a line for each would be work that nobody has time for.
_COUNTED = frozenset({"pool_full", "resource_exhausted", "overloaded", "circuit_open"})
_INTERNAL = ("Internal error", "the gateway could not answer this")


def told_of(error: GatewayError) -> str:
    """Give what a client may know of an error."""
    if error.status < 500:
        return str(error)  # meant for the client, as all of these are
    return _PUBLIC.get(error.code, _INTERNAL)[1]


def refusal_of(error: GatewayError, detail: str = "") -> Response:
    """Give the answer to an error: its status, its stable code, and when to come again.

    `detail`: what people are told in their language; "" for what there is in English.
    """
    title = _PUBLIC.get(error.code, _INTERNAL)[0] if error.status >= 500 else "Request refused"
    headers = {}
    if error.retry_after_s is not None and error.status >= 429:
        headers["retry-after"] = str(max(1, math.ceil(error.retry_after_s)))
    return ProblemResponse(error.status, error.code or "internal_error", title, detail or told_of(error), headers)


async def gateway_error(request: Request, error: Exception) -> Response:
    """Answer what an endpoint raised; Starlette's handler for GatewayError."""
    assert isinstance(error, GatewayError)
    response = refusal_of(error)
    level = logging.WARNING if error.status >= 500 else logging.INFO
    if error.code in _COUNTED:
        level = logging.DEBUG
    request_id = response.headers["x-request-id"]
    text = "%s was refused: %s: %s"
    _log.log(level, text, request.scope["path"], error.code, error, extra={"request_id": request_id})
    return response
