"""Responses of our own endpoints."""

from __future__ import annotations

import secrets
from collections.abc import Mapping

import orjson
from starlette.responses import Response

from gateway.front.answers import problem_body


def json_response(body: object, status: int = 200, headers: Mapping[str, str] | None = None) -> Response:
    """Answer with JSON that nobody may store."""
    merged = {"cache-control": "no-store", **(headers or {})}
    return Response(orjson.dumps(body), status, merged, "application/json")


class ProblemResponse(Response):
    """A problem+json answer (RFC 9457) with a request id of its own."""

    def __init__(
        self, status: int, code: str, title: str, detail: str, headers: Mapping[str, str] | None = None
    ) -> None:
        request_id = secrets.token_hex(16)
        merged = {"cache-control": "no-store", "x-request-id": request_id, **(headers or {})}
        body = problem_body(status, code, title, detail, request_id)
        super().__init__(body, status, merged, "application/problem+json")
