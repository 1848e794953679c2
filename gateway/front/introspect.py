"""The introspection endpoint (RFC 7662): the engine's verdict on a token, for resource servers that authenticate."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping
from typing import Any, Protocol
from urllib.parse import parse_qsl

from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response

from gateway.config import KIB
from gateway.front.clients import KnownClients, basic_credentials
from gateway.front.responses import ProblemResponse, json_response
from gateway.resilience import Resilience
from gateway.types import Secret

_log = logging.getLogger("portcullis.introspection")

BODY_BYTES_MAX = 32 * KIB
ASKS_MAX = 3  # what can be learned about one token: its opaque form, its issuer's keys, its key

# What a resource server may learn of a token (RFC 7662 §2.2); everything else in it stays with its issuer.
_SHOWN = ("scope", "client_id", "username", "exp", "iat", "nbf", "sub", "aud", "iss", "jti")
_RETRYABLE = frozenset({"keys_unavailable", "introspection_unavailable"})


class TokenJudge(Protocol):
    """The engine, as this endpoint sees it."""

    async def judge(self, token: bytes) -> tuple[Mapping[str, Any] | None, str]:
        """Give the claims of a valid token and "ok", or None and the reason. Never raises."""


class Introspection:
    """Answer RFC 7662 requests of known clients."""

    __slots__ = ("_body_timeout_s", "_clients", "_judge", "_resilience")

    def __init__(
        self, judge: TokenJudge, clients: Mapping[str, Secret], *, body_timeout_s: float, resilience: Resilience
    ) -> None:
        """`body_timeout_s` bounds the reading of a whole form: anybody may begin to send one."""
        self._judge = judge
        self._resilience = resilience
        self._body_timeout_s = body_timeout_s
        self._clients = KnownClients(clients)

    async def endpoint(self, request: Request) -> Response:
        """Serve `POST /oauth2/introspect`."""
        form = await _read_form(request, self._body_timeout_s)
        if isinstance(form, Response):
            return form
        if not self._clients.knows(_credentials(request, form)):
            refusal = ProblemResponse(
                401,
                "invalid_client",
                "Client authentication failed",
                "authenticate with client_secret_basic or client_secret_post",
                {"www-authenticate": 'Basic realm="introspection"'},
            )
            request_id = refusal.headers["x-request-id"]
            _log.warning("a client did not prove itself at introspection", extra={"request_id": request_id})
            return refusal
        token = form.get("token", "")
        if not token:
            return ProblemResponse(400, "invalid_request", "Token missing", "the form field `token` is needed")
        # Resource servers wait for this with requests of their own: it goes before what merely refreshes.
        async with self._resilience.serving("token_validation", critical=True):
            claims, reason = await self._judge.judge(token.encode("utf-8", "surrogateescape"))
        if reason in _RETRYABLE:
            return ProblemResponse(
                503, reason, "Cannot judge", "what is needed to judge the token cannot be had now", {"retry-after": "5"}
            )
        if claims is None:
            return json_response({"active": False})
        return json_response(describe(claims))


def describe(claims: Mapping[str, Any]) -> dict[str, Any]:
    """Give the introspection response for a valid token's claims (RFC 7662 §2.2)."""
    answer: dict[str, Any] = {"active": True, "token_type": "Bearer"}
    for name in _SHOWN:
        if name in claims:
            answer[name] = claims[name]
    if "scope" not in answer and "scp" in claims:
        scopes = claims["scp"]
        answer["scope"] = scopes if isinstance(scopes, str) else " ".join(map(str, scopes))
    return answer


async def _read_form(request: Request, timeout_s: float) -> dict[str, str] | Response:
    """Read the form, or give the refusal: fields may stand there once only (RFC 6749 §3.2)."""
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind != "application/x-www-form-urlencoded":
        return ProblemResponse(415, "unsupported_media_type", "Form expected", "send application/x-www-form-urlencoded")
    body = bytearray()
    try:
        async with asyncio.timeout(timeout_s):
            async for piece in request.stream():
                body += piece
                if len(body) > BODY_BYTES_MAX:
                    return ProblemResponse(413, "body_too_large", "Content too large", "the form is too long")
    except TimeoutError:
        return ProblemResponse(408, "request_timeout", "Request timeout", "the form did not arrive in time")
    except ClientDisconnect:
        return ProblemResponse(400, "invalid_request", "Form incomplete", "the connection broke off")
    try:
        pairs = parse_qsl(body.decode("ascii"), keep_blank_values=True, strict_parsing=bool(body), max_num_fields=16)
    except (UnicodeDecodeError, ValueError):
        return ProblemResponse(400, "invalid_request", "Malformed form", "the form cannot be read")
    form = dict(pairs)
    if len(form) != len(pairs):
        return ProblemResponse(400, "invalid_request", "Malformed form", "a field stands there more than once")
    return form


def _credentials(request: Request, form: Mapping[str, str]) -> tuple[str, str] | None:
    """Find the client's id and secret: client_secret_basic or client_secret_post, not both (RFC 6749 §2.3.1)."""
    headers = request.headers.getlist("authorization")
    posted = form.get("client_id"), form.get("client_secret")
    if not headers:
        return (posted[0], posted[1]) if posted[0] and posted[1] is not None else None
    if len(headers) != 1 or posted[1] is not None:
        return None
    return basic_credentials(headers[0])
