"""The introspection endpoint (RFC 7662): the engine's verdict on a token, for resource servers that authenticate."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any, Protocol

from starlette.requests import Request
from starlette.responses import Response

from gateway.front.clients import KnownClients, basic_credentials
from gateway.front.forms import BodyRefused, once, read_form
from gateway.front.responses import ProblemResponse, json_response
from gateway.resilience import Resilience
from gateway.types import Secret

_log = logging.getLogger("portcullis.introspection")

ASKS_MAX = 3  # what can be learned about one token: its opaque form, its issuer's keys, its key

# What a resource server may learn of a token (RFC 7662 §2.2, RFC 9449 §6.2, RFC 9470 §6.2); the rest stays with its
# issuer.
_SHOWN = ("scope", "client_id", "username", "exp", "iat", "nbf", "sub", "aud", "iss", "jti", "cnf", "acr", "auth_time")
_RETRYABLE = frozenset({"keys_unavailable", "introspection_unavailable"})


class TokenJudge(Protocol):
    """The engine, as this endpoint sees it."""

    async def judge(self, token: bytes) -> tuple[Mapping[str, Any] | None, str]:
        """Give the claims of a valid token and "ok", or None and the reason. Never raises."""


class OwnIssuer(Protocol):
    """The token service of this gateway, as this endpoint sees it."""

    async def introspect(
        self, request: Request, form: Mapping[str, str], *, known: bool
    ) -> Mapping[str, Any] | Response | None:
        """Give the claims of a token of ours that holds, None for any other, or the answer to the whole request.

        `known`: the caller proved itself here. Otherwise it has to be a client of the token service, which learns of
        its own tokens alone and gets its answer at once. Raises GatewayError.
        """


class Introspection:
    """Answer RFC 7662 requests of known clients."""

    __slots__ = ("_body_timeout_s", "_clients", "_judge", "_own", "_resilience")

    def __init__(
        self,
        judge: TokenJudge,
        clients: Mapping[str, Secret],
        *,
        body_timeout_s: float,
        resilience: Resilience,
        own: OwnIssuer | None = None,
    ) -> None:
        """`body_timeout_s` bounds the reading of a whole form: anybody may begin to send one."""
        self._judge = judge
        self._resilience = resilience
        self._body_timeout_s = body_timeout_s
        self._clients = KnownClients(clients)
        self._own = own

    async def endpoint(self, request: Request) -> Response:
        """Serve `POST /oauth2/introspect`."""
        try:
            form = once(await read_form(request, self._body_timeout_s))
        except BodyRefused as refused:
            return ProblemResponse(refused.status, refused.code, refused.title, str(refused))
        known = self._clients.knows(_credentials(request, form))
        if self._own is not None and form.get("token"):
            found = await self._own.introspect(request, form, known=known)
            if isinstance(found, Response):
                return found
            if found is not None:
                return json_response(describe(found))
        if not known:
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
    answer: dict[str, Any] = {"active": True, "token_type": claims.get("token_type", "Bearer")}
    for name in _SHOWN:
        if name in claims:
            answer[name] = claims[name]
    if "scope" not in answer and "scp" in claims:
        scopes = claims["scp"]
        answer["scope"] = scopes if isinstance(scopes, str) else " ".join(map(str, scopes))
    return answer


def _credentials(request: Request, form: Mapping[str, str]) -> tuple[str, str] | None:
    """Find the client's id and secret: client_secret_basic or client_secret_post, not both (RFC 6749 §2.3.1)."""
    headers = request.headers.getlist("authorization")
    posted = form.get("client_id"), form.get("client_secret")
    if not headers:
        return (posted[0], posted[1]) if posted[0] and posted[1] is not None else None
    if len(headers) != 1 or posted[1] is not None:
        return None
    return basic_credentials(headers[0])
