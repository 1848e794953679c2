"""The endpoints of the token service: they read requests, ask the flows, and write answers; they decide nothing."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Final
from urllib.parse import parse_qsl

from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from starlette.routing import Route

from gateway.errors import GatewayError
from gateway.flows.oauth import (
    AskConsent,
    AskLogout,
    ClientProof,
    LoggedOut,
    OAuthRefused,
    OAuthService,
    Redirect,
    RequestUnsafe,
    TokenRequest,
)
from gateway.flows.oauth.metadata import RESOURCE_METADATA
from gateway.flows.oauth.service import AUTHORIZE_PATH, LOGOUT_PATH, PAR_PATH, TOKEN_PATH, USERINFO_PATH
from gateway.flows.trail import Caller
from gateway.front.clients import basic_credentials
from gateway.front.forms import FIELDS_MAX, BodyRefused, Pairs, once, read_form, read_json
from gateway.front.login.cookies import forget_session
from gateway.front.oauth.answers import challenged, granted, preflight, published, refused
from gateway.front.oauth.pages import OAuthPages
from gateway.front.refusals import refusal_of
from gateway.front.responses import ProblemResponse, json_response

_log = logging.getLogger("portcullis.oauth")

CONSENT_PATH: Final = "/oauth2/consent"
CONFIRM_LOGOUT_PATH: Final = "/oauth2/logout/confirm"
METADATA_S: Final = 300  # how long metadata may be kept
JWKS_S: Final = 300  # how long the key set may be kept: far less than keys are announced ahead
QUERY_BYTES_MAX: Final = 16 * 1024

CallerOf = Callable[[Request], Caller]


class OAuthEndpoints:
    """All endpoints of one OAuthService."""

    def __init__(
        self,
        service: OAuthService,
        *,
        pages: OAuthPages,
        body_timeout_s: float,
        caller_of: CallerOf,
        session_cookie: str,
    ) -> None:
        self._service = service
        self._pages = pages
        self._session_cookie = session_cookie
        self._body_timeout_s = body_timeout_s
        self._caller_of = caller_of

    def routes(self) -> list[Route]:
        """Return the routes; every path in them is exact."""
        post = ["POST", "OPTIONS"]
        both = ["GET", "POST"]
        found = [
            Route(AUTHORIZE_PATH, self.authorize, methods=both),
            Route(CONSENT_PATH, self.consent, methods=["POST"]),
            Route(TOKEN_PATH, self.token, methods=post),
            Route(PAR_PATH, self.push, methods=post),
            Route("/oauth2/revoke", self.revoke, methods=post),
            Route(USERINFO_PATH, self.userinfo, methods=[*both, "OPTIONS"]),
            Route("/.well-known/openid-configuration", self.metadata, methods=["GET", "OPTIONS"]),
            Route("/.well-known/oauth-authorization-server", self.metadata, methods=["GET", "OPTIONS"]),
            Route("/.well-known/jwks.json", self.jwks, methods=["GET", "OPTIONS"]),
        ]
        if self._service.logs_out:
            found.append(Route(LOGOUT_PATH, self.logout, methods=both))
            found.append(Route(CONFIRM_LOGOUT_PATH, self.confirm_logout, methods=["POST"]))
        if self._service.registers:
            found.append(Route("/oauth2/register", self.register, methods=post))
        found += [
            Route(path, self.resource, methods=["GET", "OPTIONS"])
            for path in sorted({RESOURCE_METADATA, *self._service.resource_documents()})
            if self._service.resource_documents()
        ]
        return found

    # -- browsers -----------------------------------------------------------------------------------------------------

    async def authorize(self, request: Request) -> Response:
        """Serve `/oauth2/authorize` (RFC 6749 §3.1)."""

        async def answer(caller: Caller) -> Response:
            parameters = await self._parameters(request)
            return self._shown(request, await self._service.authorize(parameters, request.cookies, caller))

        return await self._for_browser(request, answer)

    async def consent(self, request: Request) -> Response:
        """Serve what the page that asks for consent posts."""

        async def answer(caller: Caller) -> Response:
            form = once(await read_form(request, self._body_timeout_s))
            decided = await self._service.decide(
                _pairs(form.get("request", "")),
                form.get("csrf", ""),
                allowed=form.get("decision") == "allow",
                cookies=request.cookies,
                caller=caller,
            )
            return self._shown(request, decided)

        return await self._for_browser(request, answer)

    async def logout(self, request: Request) -> Response:
        """Serve `/oauth2/logout` (OpenID Connect RP-Initiated Logout 1.0 §2)."""

        async def answer(caller: Caller) -> Response:
            parameters, posted = await self._parameters(request), request.method == "POST"
            return self._shown(request, await self._service.leave(parameters, request.cookies, caller, posted=posted))

        return await self._for_browser(request, answer)

    async def confirm_logout(self, request: Request) -> Response:
        """Serve what the page that asks before a log-out posts."""

        async def answer(caller: Caller) -> Response:
            form = once(await read_form(request, self._body_timeout_s))
            parameters = _pairs(form.get("request", ""))
            decided = await self._service.decide_leaving(parameters, form.get("csrf", ""), request.cookies, caller)
            return self._shown(request, decided)

        return await self._for_browser(request, answer)

    async def _for_browser(self, request: Request, answer: Callable[[Caller], Awaitable[Response]]) -> Response:
        """Answer a browser; what nobody else may be told it is shown."""
        caller = self._caller_of(request)
        try:
            return await answer(caller)
        except BodyRefused as fault:
            return self._pages.unsafe(request, str(fault), caller.request_id, fault.status)
        except RequestUnsafe as unsafe:
            path, request_id = request.url.path, caller.request_id
            _log.warning("`%s` was refused: %s", path, unsafe.reason, extra={"request_id": request_id})
            return self._pages.unsafe(request, str(unsafe), request_id)

    async def _parameters(self, request: Request) -> Pairs:
        return await read_form(request, self._body_timeout_s) if request.method == "POST" else _query(request)

    def _shown(self, request: Request, answer: Redirect | AskConsent | AskLogout | LoggedOut) -> Response:
        match answer:
            case AskConsent():
                return self._pages.consent(request, answer, CONSENT_PATH)
            case AskLogout():
                return self._pages.ask_logout(request, answer, CONFIRM_LOGOUT_PATH)
            case LoggedOut():
                location = answer.location
                response = _sent(location) if location else self._pages.logged_out(request)
                forget_session(request, response, self._session_cookie)
                return response
        return _sent(answer.location)

    # -- clients ------------------------------------------------------------------------------------------------------

    async def token(self, request: Request) -> Response:
        """Serve `/oauth2/token` (RFC 6749 §3.2)."""
        return await self._for_client(request, self._service.token)

    async def push(self, request: Request) -> Response:
        """Serve `/oauth2/par` (RFC 9126 §2)."""
        return await self._for_client(request, self._service.push, status=201)

    async def revoke(self, request: Request) -> Response:
        """Serve `/oauth2/revoke` (RFC 7009 §2)."""

        async def end(asked: TokenRequest) -> dict[str, Any]:
            token = dict(asked.form).get("token", "")
            if not token:
                raise OAuthRefused("invalid_request", "token is missing")
            await self._service.revoke(token, asked.proof, asked.caller)
            return {}

        return await self._for_client(request, end)

    async def _for_client(
        self, request: Request, work: Callable[[TokenRequest], Awaitable[dict[str, Any]]], *, status: int = 200
    ) -> Response:
        if request.method == "OPTIONS":
            return preflight()
        basic = bool(request.headers.getlist("authorization"))
        try:
            form = await read_form(request, self._body_timeout_s)
            asked = TokenRequest(
                form=form,
                proof=_proof(request, form),
                dpop=request.headers.getlist("dpop"),
                method=request.method,
                url=self._service.issuer + request.url.path,
                caller=self._caller_of(request),
            )
            return granted(await work(asked), self._service.nonce(), status)
        except BodyRefused as fault:
            return _unread(fault)
        except OAuthRefused as error:
            return refused(error, self._service.nonce(), basic=basic)
        except GatewayError as error:
            return _faulty(error)

    async def register(self, request: Request) -> Response:
        """Serve `/oauth2/register` (RFC 7591 §3)."""
        if request.method == "OPTIONS":
            return preflight()
        try:
            metadata = await read_json(request, self._body_timeout_s)
            _, bearer = _credentials(request)
            return granted(await self._service.register(metadata, bearer, self._caller_of(request)), "", 201)
        except BodyRefused as fault:
            return _unread(fault)
        except OAuthRefused as error:
            return challenged(error, "bearer") if error.error == "invalid_token" else refused(error)
        except GatewayError as error:
            return _faulty(error)

    async def userinfo(self, request: Request) -> Response:
        """Serve `/oauth2/userinfo` (OIDC Core §5.3)."""
        if request.method == "OPTIONS":
            return preflight()
        scheme, token = _credentials(request)
        if scheme not in ("bearer", "dpop") or not token:
            return challenged(None, scheme)
        try:
            proofs = request.headers.getlist("dpop")
            return granted(await self._service.userinfo(scheme, token, proofs, request.method), "")
        except OAuthRefused as error:
            return challenged(error, scheme)
        except GatewayError as error:
            return _faulty(error)

    async def introspect(
        self, request: Request, form: Mapping[str, str], *, known: bool
    ) -> Mapping[str, Any] | Response | None:
        """Serve `/oauth2/introspect` for our own tokens (RFC 7662); see `gateway.front.introspect.OwnIssuer`."""
        token = form["token"]
        if known:
            try:
                return await self._service.describe(token)
            except OAuthRefused as error:
                return refused(error)
        basic = bool(request.headers.getlist("authorization"))
        try:
            client = await self._service.identify(_proof(request, list(form.items())))
            if client.is_public:
                raise OAuthRefused("invalid_client", "client authentication failed", reason="introspection_public")
            claims = await self._service.describe(token, client)
        except OAuthRefused as error:
            return refused(error, basic=True) if error.error == "invalid_client" else refused(error, basic=basic)
        return json_response({"active": False}) if claims is None else claims

    # -- everybody ----------------------------------------------------------------------------------------------------

    async def metadata(self, request: Request) -> Response:
        """Serve the metadata of the server, for OAuth and OpenID alike."""
        return preflight() if request.method == "OPTIONS" else published(self._service.metadata(), METADATA_S)

    async def jwks(self, request: Request) -> Response:
        """Serve the public keys."""
        return preflight() if request.method == "OPTIONS" else published(self._service.keys.jwks(), JWKS_S)

    async def resource(self, request: Request) -> Response:
        """Serve the metadata of the resource whose host was asked (RFC 9728 §3)."""
        if request.method == "OPTIONS":
            return preflight()
        documents = self._service.resource_documents().get(request.url.path, [])
        host = request.headers.get("host", "").lower()
        for document in documents:
            if document["resource"].partition("://")[2].partition("/")[0].lower() == host:
                return published(document, METADATA_S)
        return ProblemResponse(404, "not_found", "Not found", "there is no such resource at this host")


def _proof(request: Request, form: Pairs) -> ClientProof:
    """Read what a request says of its client. Raises OAuthRefused for a header that says nothing."""
    fields = dict(form)
    headers = request.headers.getlist("authorization")
    basic = None
    if headers:
        basic = basic_credentials(headers[0]) if len(headers) == 1 else None
        if basic is None:
            raise OAuthRefused("invalid_client", "client authentication failed", reason="client_auth_header")
    return ClientProof(
        basic=basic,
        id=fields.get("client_id"),
        secret=fields.get("client_secret"),
        assertion_type=fields.get("client_assertion_type"),
        assertion=fields.get("client_assertion"),
    )


def _credentials(request: Request) -> tuple[str, str]:
    """Return scheme (lower case) and value of the one Authorization header; blank where there is none, or several."""
    headers = request.headers.getlist("authorization")
    if len(headers) != 1:
        return "", ""
    scheme, _, value = headers[0].partition(" ")
    return scheme.lower(), value.strip(" ")


def _query(request: Request) -> Pairs:
    raw: bytes = request.scope["query_string"]
    if len(raw) > QUERY_BYTES_MAX:
        raise BodyRefused(414, "query_too_long", "Query too long", "the request is too long")
    return _pairs(raw.decode("latin-1"))


def _pairs(text: str) -> Pairs:
    try:
        return parse_qsl(text, keep_blank_values=True, errors="strict", max_num_fields=FIELDS_MAX)
    except ValueError:
        raise BodyRefused(400, "invalid_request", "Malformed query", "the request cannot be read") from None


def _sent(location: str) -> Response:
    return RedirectResponse(location, 303, {"cache-control": "no-store", "referrer-policy": "no-referrer"})


def _unread(fault: BodyRefused) -> Response:
    """RFC 6749 §5.2: an error of the request's form is `invalid_request`; the status says more."""
    answer = refused(OAuthRefused("invalid_request", str(fault), reason=fault.code))
    answer.status_code = fault.status
    return answer


def _faulty(error: GatewayError) -> Response:
    """Answer what is wrong with us, also in the words of OAuth, so that clients come again."""
    response = refusal_of(error)
    if response.status_code < 500:
        return response
    code = "temporarily_unavailable" if response.status_code in (503, 504) else "server_error"
    headers = {name: response.headers[name] for name in ("retry-after", "x-request-id") if name in response.headers}
    body = {"error": code, "error_description": "the service cannot answer now", "code": error.code}
    _log.warning("a client was refused: %s: %s", error.code, error, extra={"request_id": headers["x-request-id"]})
    return json_response(body, response.status_code, {**headers, "access-control-allow-origin": "*"})
