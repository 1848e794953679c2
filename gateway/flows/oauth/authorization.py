"""Authorization requests: read, judged, and pushed ahead (RFC 6749 §4.1.1, RFC 7636, RFC 9126, OIDC Core §3.1.2.1)."""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final
from urllib.parse import urlencode, urlsplit, urlunsplit

from gateway.flows.oauth.errors import OAuthRefused, RequestUnsafe
from gateway.flows.oauth.parties import Client, Parties, matches_redirect, take_resources, take_scopes

Parameters = Sequence[tuple[str, str]]

PARAMETERS_MAX: Final = 64
VALUE_BYTES_MAX: Final = 4096  # of `state`, `nonce` and every other parameter
PROMPTS: Final = frozenset({"none", "login", "consent", "select_account"})
REQUEST_URI_PREFIX: Final = "urn:ietf:params:oauth:request_uri:"

_CHALLENGE: Final = re.compile(r"[A-Za-z0-9_-]{43}")  # RFC 7636 §4.2: BASE64URL(SHA256(…))
_VERIFIER: Final = re.compile(r"[A-Za-z0-9._~-]{43,128}")  # RFC 7636 §4.1
_JKT: Final = re.compile(r"[A-Za-z0-9_-]{43}")
_MANY: Final = frozenset({"resource"})  # RFC 8707 §2: may stand there several times


@dataclass(frozen=True, slots=True, kw_only=True)
class AuthorizationRequest:
    """A request that may be answered by a redirect to `redirect_uri`."""

    client: Client
    redirect_uri: str
    redirect_given: bool  # whether the request named it: then the token request must, too (RFC 6749 §4.1.3)
    state: str | None
    parameters: Parameters = field(repr=False)  # as they came, for the way through login and consent
    scopes: tuple[str, ...] = ()
    resources: tuple[str, ...] = ()
    challenge: str = ""
    nonce: str = ""
    prompts: frozenset[str] = frozenset()
    max_age_s: int | None = None
    acr_values: tuple[str, ...] = ()
    login_hint: str = ""
    ui_locales: str = ""
    id_token_hint: str = ""
    dpop_jkt: str = ""
    pushed: bytes = b""  # key of the pushed request that it came by


class AuthorizationRequests:
    """Read authorization requests."""

    def __init__(self, parties: Parties, issuer: str) -> None:
        self._parties = parties
        self._issuer = issuer

    async def target(self, parameters: Parameters) -> tuple[Client, str, bool]:
        """Return the client, its redirect URI, and whether the request named that. Raises RequestUnsafe."""
        if len(parameters) > PARAMETERS_MAX or any(len(value.encode()) > VALUE_BYTES_MAX for _, value in parameters):
            raise RequestUnsafe("the request is too long", reason="request_too_long")
        counts = Counter(name for name, _ in parameters)
        if counts["client_id"] != 1 or counts["redirect_uri"] > 1:
            raise RequestUnsafe("client_id is missing, or stands there twice", reason="client_id")
        given = dict(parameters)
        client = await self._parties.find(given["client_id"])
        if client is None:
            raise RequestUnsafe("the application that sent you here is not known", reason="client_unknown")
        if "redirect_uri" not in given:
            if len(client.redirect_uris) != 1:
                raise RequestUnsafe("the application does not say where to go back to", reason="redirect_missing")
            return client, client.redirect_uris[0], False
        redirect_uri = given["redirect_uri"]
        if not any(matches_redirect(registered, redirect_uri) for registered in client.redirect_uris):
            raise RequestUnsafe("the address to go back to is not the application's", reason="redirect_unknown")
        return client, redirect_uri, True

    async def read(self, parameters: Parameters, *, pushed: bytes = b"") -> AuthorizationRequest:
        """Judge a whole request. Raises RequestUnsafe, or OAuthRefused for what its redirect URI may be told."""
        client, redirect_uri, redirect_given = await self.target(parameters)
        repeated = [name for name, count in Counter(name for name, _ in parameters).items() if count > 1]
        if set(repeated) - _MANY:
            # RFC 6749 §3.1: "Request and response parameters MUST NOT be included more than once."
            raise OAuthRefused("invalid_request", "a parameter stands there more than once", reason="repeated")
        given = {name: value for name, value in parameters if value}  # §3.1: without a value means: not sent
        if "request" in given:
            raise OAuthRefused("request_not_supported", "request objects are not supported; push the request instead")
        if given.get("response_type") != "code":
            error = OAuthRefused("unsupported_response_type", "only response_type=code is supported")
            raise error if "response_type" in given else OAuthRefused("invalid_request", "response_type is missing")
        if given.get("response_mode", "query") != "query":
            raise OAuthRefused("invalid_request", "only response_mode=query is supported", reason="response_mode")
        if "authorization_code" not in client.grant_types:
            raise OAuthRefused("unauthorized_client", "the client may not ask for codes")
        if client.needs_par and not pushed:
            raise OAuthRefused("invalid_request", "the client must push its requests", reason="par_needed")
        return AuthorizationRequest(
            client=client,
            redirect_uri=redirect_uri,
            redirect_given=redirect_given,
            state=given.get("state"),
            parameters=tuple(parameters),
            scopes=take_scopes(given.get("scope", ""), client),
            resources=take_resources(
                tuple(value for name, value in parameters if name == "resource" and value), client, self._parties
            ),
            challenge=_challenge(given.get("code_challenge", ""), given.get("code_challenge_method", "")),
            nonce=given.get("nonce", ""),
            prompts=_prompts(given.get("prompt", "")),
            max_age_s=_max_age(given.get("max_age", "")),
            acr_values=tuple(given.get("acr_values", "").split()),
            login_hint=given.get("login_hint", ""),
            ui_locales=given.get("ui_locales", ""),
            id_token_hint=given.get("id_token_hint", ""),
            dpop_jkt=_jkt(given.get("dpop_jkt", "")),
            pushed=pushed,
        )

    def answer(self, redirect_uri: str, state: str | None, **members: str) -> str:
        """Return the address that carries an answer: `state` as it came, and `iss` (RFC 9207 §2)."""
        return with_query(redirect_uri, {**members, **({} if state is None else {"state": state}), "iss": self._issuer})

    def refusal(self, redirect_uri: str, state: str | None, refused: OAuthRefused) -> str:
        """Return the address that tells the client of an error (RFC 6749 §4.1.2.1)."""
        return self.answer(redirect_uri, state, error=refused.error, error_description=str(refused))


def with_query(uri: str, members: Mapping[str, str]) -> str:
    """Return an address with more in its query: what it has there "MUST be retained" (RFC 6749 §3.1.2)."""
    parts = urlsplit(uri)
    merged = "&".join(part for part in (parts.query, urlencode(members)) if part)
    return urlunsplit((parts.scheme, parts.netloc, parts.path, merged, ""))


def verifies(challenge: str, verifier: str) -> bool:
    """Tell whether `verifier` is what S256 made `challenge` of (RFC 7636 §4.6)."""
    if not _VERIFIER.fullmatch(verifier):
        return False
    made = base64.urlsafe_b64encode(hashlib.sha256(verifier.encode("ascii")).digest()).rstrip(b"=")
    return hmac.compare_digest(made, challenge.encode())


def _challenge(challenge: str, method: str) -> str:
    """RFC 9700 §2.1.1: every client uses PKCE; `plain` (the method that is meant where none stands) is refused."""
    if not challenge:
        raise OAuthRefused("invalid_request", "code_challenge is missing: PKCE is required", reason="pkce_missing")
    if method != "S256":
        raise OAuthRefused("invalid_request", "code_challenge_method must be S256", reason="pkce_method")
    try:
        if not _CHALLENGE.fullmatch(challenge) or len(base64.urlsafe_b64decode(challenge + "=")) != 32:
            raise OAuthRefused("invalid_request", "code_challenge is no SHA-256 in base64url", reason="pkce_challenge")
    except binascii.Error:
        raise OAuthRefused("invalid_request", "code_challenge is no base64url", reason="pkce_challenge") from None
    return challenge


def _prompts(text: str) -> frozenset[str]:
    prompts = frozenset(text.split())
    if not prompts <= PROMPTS or ("none" in prompts and len(prompts) > 1):
        raise OAuthRefused("invalid_request", "prompt asks for what does not exist or go together", reason="prompt")
    return prompts


def _max_age(text: str) -> int | None:
    if not text:
        return None
    if not text.isascii() or not text.isdecimal() or len(text) > 9:
        raise OAuthRefused("invalid_request", "max_age is no number of seconds", reason="max_age")
    return int(text)


def _jkt(text: str) -> str:
    if text and not _JKT.fullmatch(text):
        raise OAuthRefused("invalid_request", "dpop_jkt is no thumbprint", reason="dpop_jkt")
    return text
