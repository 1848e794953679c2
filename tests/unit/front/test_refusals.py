"""What clients are told of errors: status, stable code, when to come again, and nothing of what is inside."""

from __future__ import annotations

import json

import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from gateway.errors import (
    BulkheadFullError,
    CircuitOpenError,
    ConfigError,
    DeadlineExceededError,
    GatewayError,
    OverloadedError,
    ResourceExhaustedError,
    StoreUnavailable,
    TokenRejected,
)
from gateway.front.refusals import gateway_error, refusal_of


@pytest.mark.parametrize(
    ("error", "status", "code", "retry_after"),
    [
        (BulkheadFullError("pool `user_auth` is full", retry_after_s=4.2), 503, "pool_full", "5"),
        (OverloadedError(), 503, "overloaded", "5"),
        (ResourceExhaustedError("pool `x` has no permit"), 503, "resource_exhausted", "5"),
        (CircuitOpenError("`database`", retry_after_s=0.1), 503, "circuit_open", "1"),
        (StoreUnavailable("`redis://inner:6379` did not answer"), 503, "store_unavailable", "5"),
        (DeadlineExceededError(), 504, "deadline_exceeded", "5"),
        (ConfigError([]), 500, "config_invalid", None),
        (TokenRejected("the token is of no use"), 401, "invalid_token", None),
    ],
)
def test_an_error_has_its_status_and_code(error: GatewayError, status: int, code: str, retry_after: str | None) -> None:
    response = refusal_of(error)
    body = json.loads(bytes(response.body))
    assert (response.status_code, body["code"], response.headers.get("retry-after")) == (status, code, retry_after)
    assert response.headers["content-type"] == "application/problem+json"
    if status >= 500:
        assert "inner" not in bytes(response.body).decode()
        assert "`" not in bytes(response.body).decode()
    else:
        assert body["detail"] == str(error)


@pytest.mark.parametrize(
    ("error", "level"),
    [
        (BulkheadFullError(), "DEBUG"),
        (OverloadedError(), "DEBUG"),
        (CircuitOpenError(), "DEBUG"),
        (StoreUnavailable(), "WARNING"),
        (TokenRejected(), "INFO"),
    ],
)
async def test_a_flood_of_refusals_is_no_flood_of_lines(
    error: GatewayError, level: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("DEBUG", "portcullis.endpoints")
    await gateway_error(Request({"type": "http", "path": "/x", "headers": []}), error)
    assert [record.levelname for record in caplog.records] == [level]


async def test_starlette_hands_errors_over() -> None:
    async def endpoint(_request: Request) -> Response:
        raise BulkheadFullError

    app = Starlette(routes=[Route("/x", endpoint)], exception_handlers={GatewayError: gateway_error})
    sent: list[dict[str, object]] = []

    async def receive() -> dict[str, object]:
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(message: object) -> None:
        assert isinstance(message, dict)
        sent.append(message)

    scope = {"type": "http", "method": "GET", "path": "/x", "headers": [], "query_string": b"", "app": app}
    await app(scope, receive, send)
    assert sent[0]["status"] == 503
