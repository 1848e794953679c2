"""Clients that nobody configured: they register themselves (RFC 7591), or their id is the address of their metadata.

Both are off unless the config says otherwise. What such a client may have is bounded by the config, its users are
always asked for consent, and it is never more than it says it is: an address of its own to go back to.
"""

from __future__ import annotations

import asyncio
import hashlib
import secrets
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import urlsplit

from gateway.errors import GatewayError, KeyInvalid
from gateway.flows.oauth.client_auth import ASSERTION_ALGORITHMS
from gateway.flows.oauth.errors import OAuthRefused
from gateway.flows.oauth.grants import Grants
from gateway.flows.oauth.parties import Client, ClientAuth, GrantType, Source
from gateway.flows.oauth.rate_limit import RateLimit
from gateway.flows.trail import AuditTrail, Caller
from gateway.resilience import detached
from gateway.tokens.keys import load_jwks
from gateway.types import Clock, Secret

REDIRECTS_MAX: Final = 16
TEXT_BYTES_MAX: Final = 1024  # of a redirect URI, a name, an address
JWKS_BYTES_MAX: Final = 16 * 1024
DOCUMENT_S_MAX: Final = 3600.0  # a document is fetched again after this
DOCUMENT_FAULT_S: Final = 30.0  # and one that could not be had after this
DOCUMENTS_MAX: Final = 1000

_METHODS: Final[Mapping[str, ClientAuth]] = {
    "none": "none",
    "client_secret_basic": "secret",
    "client_secret_post": "secret",
    "private_key_jwt": "private_key_jwt",
}
_GRANTS: Final[Mapping[str, GrantType]] = {"authorization_code": "authorization_code", "refresh_token": "refresh_token"}
_DANGEROUS_SCHEMES: Final = frozenset({"javascript", "data", "vbscript", "file", "about", "blob", "ws", "wss", "ftp"})
_LOOPBACK: Final = frozenset({"localhost", "127.0.0.1", "::1"})


@dataclass(frozen=True, slots=True, kw_only=True)
class StrangerLimits:
    """What a client may have that the operator does not know."""

    scopes: frozenset[str]
    access_token_s: int
    refresh_idle_s: int
    refresh_max_s: int
    schemes: frozenset[str] = frozenset()  # of apps, besides those that are a domain name in reverse


def client_of(client_id: str, metadata: Mapping[str, Any], limits: StrangerLimits, source: Source) -> Client:
    """Judge a client's metadata (RFC 7591 §2). Raises OAuthRefused."""
    method = metadata.get("token_endpoint_auth_method", "client_secret_basic" if source == "registered" else "none")
    if method not in _METHODS:
        raise _invalid("token_endpoint_auth_method is not supported")
    auth = _METHODS[method]
    grants = _texts(metadata, "grant_types", ("authorization_code",))
    # A grant that is not ours is left out, and the answer says which are in force (RFC 7591 §3.2.1).
    grant_types = frozenset(_GRANTS[grant] for grant in grants if grant in _GRANTS)
    if "authorization_code" not in grant_types:
        raise _invalid("grant_types must hold authorization_code")
    if "code" not in _texts(metadata, "response_types", ("code",)):
        raise _invalid("response_types must hold code")
    redirect_uris = _texts(metadata, "redirect_uris", ())
    if not 0 < len(redirect_uris) <= REDIRECTS_MAX:
        raise OAuthRefused("invalid_redirect_uri", f"a client has 1 to {REDIRECTS_MAX} redirect_uris")
    for uri in redirect_uris:
        check_redirect(uri, limits.schemes)
    after_logout = _texts(metadata, "post_logout_redirect_uris", ())
    if len(after_logout) > REDIRECTS_MAX:
        raise OAuthRefused("invalid_redirect_uri", f"a client has at most {REDIRECTS_MAX} post_logout_redirect_uris")
    for uri in after_logout:
        check_redirect(uri, limits.schemes)
    scope = _text(metadata, "scope")
    asked = frozenset(scope.split()) if scope else limits.scopes
    uri = _text(metadata, "client_uri")
    if uri and urlsplit(uri).scheme not in ("https", "http"):
        raise _invalid("client_uri is no address of a page")
    return Client(
        id=client_id,
        name=_text(metadata, "client_name") or client_id,
        auth=auth,
        jwks=_jwks(metadata) if auth == "private_key_jwt" else None,
        secret_hash=bytes.fromhex(_text(metadata, "secret_sha256")) if source == "registered" else b"",
        grant_types=grant_types,
        scopes=asked & limits.scopes,
        redirect_uris=redirect_uris,
        access_token_s=limits.access_token_s,
        refresh_idle_s=limits.refresh_idle_s,
        refresh_max_s=limits.refresh_max_s,
        post_logout_redirect_uris=after_logout,
        needs_dpop=metadata.get("dpop_bound_access_tokens") is True,
        needs_par=metadata.get("require_pushed_authorization_requests") is True,
        source=source,
        uri=uri,
    )


def check_redirect(uri: str, schemes: Collection[str] = ()) -> None:
    """Raise OAuthRefused for a redirect URI that a client must not have (RFC 8252 §7, §8.4; RFC 9700 §4.1).

    `schemes`: those of apps that are allowed although they are no domain name in reverse.
    """
    try:
        parts = urlsplit(uri)
        port = parts.port
    except ValueError:
        raise OAuthRefused("invalid_redirect_uri", "a redirect URI cannot be read") from None
    problem = ""
    if not parts.scheme or "#" in uri or not uri.isascii() or not uri.isprintable() or " " in uri or port == 0:
        problem = "a redirect URI is absolute, plain ASCII and has no fragment"
    elif parts.username is not None or "*" in uri or "\\" in uri:
        problem = "a redirect URI has no user, wildcard or backslash"
    elif parts.scheme in _DANGEROUS_SCHEMES:
        problem = "a redirect URI must not be of this scheme"
    elif parts.scheme in ("https", "http") and not parts.hostname:
        problem = "a redirect URI names its host"
    elif parts.scheme == "http" and parts.hostname not in _LOOPBACK:
        problem = "a redirect URI is https, but on the user's own machine"
    elif parts.scheme not in ("https", "http", *schemes) and "." not in parts.scheme:
        # RFC 8252 §7.1: a reversed domain name, which is the app's own.
        problem = "a scheme of an app's own is its domain name in reverse"
    if problem:
        raise OAuthRefused("invalid_redirect_uri", problem)


class Registration:
    """Let clients register themselves, and find those that did."""

    def __init__(
        self,
        grants: Grants,
        limits: StrangerLimits,
        trail: AuditTrail,
        clock: Clock,
        *,
        rate: RateLimit,
        initial_token: Secret | None,
    ) -> None:
        """`initial_token`: without it nobody registers (RFC 7591 §3); None lets everybody."""
        self._grants = grants
        self._limits = limits
        self._trail = trail
        self._clock = clock
        self._rate = rate
        self._initial_token = initial_token

    async def register(self, metadata: Mapping[str, Any], bearer: str, caller: Caller) -> dict[str, Any]:
        """Return the client information response (RFC 7591 §3.2.1). Raises OAuthRefused."""
        if not self._rate.take(caller.address):
            raise OAuthRefused("slow_down", "too many registrations; come again later", retry_after_s=60.0)
        if self._initial_token is not None and Secret(bearer) != self._initial_token:
            self._trail.tell("oauth.register", "failure", caller=caller, reason="initial_token")
            raise OAuthRefused("invalid_token", "registration needs an initial access token")
        client_id = "dyn_" + secrets.token_urlsafe(16)
        client = client_of(client_id, {**metadata, "secret_sha256": ""}, self._limits, "registered")
        kept = {name: metadata[name] for name in _KEPT if name in metadata}
        answer: dict[str, Any] = {
            **kept,
            "client_id": client_id,
            "client_id_issued_at": int(self._clock.wall_s()),
            "client_name": client.name,
            "redirect_uris": list(client.redirect_uris),
            "grant_types": sorted(client.grant_types),
            "response_types": ["code"],
            "token_endpoint_auth_method": metadata.get("token_endpoint_auth_method", "client_secret_basic"),
            "scope": " ".join(sorted(client.scopes)),
        }
        if client.auth == "secret":
            secret = "pcs_" + secrets.token_urlsafe(32)
            kept["secret_sha256"] = hashlib.sha256(secret.encode()).hexdigest()
            answer["client_secret"] = secret
            answer["client_secret_expires_at"] = 0
        await self._grants.keep_client(client_id, client.name, kept)
        self._trail.tell("oauth.register", "success", caller=caller, target=client_id, name=client.name[:200])
        return answer

    async def find(self, client_id: str) -> Client | None:
        """Return a client that registered itself."""
        if not client_id.startswith("dyn_"):
            return None
        metadata = await self._grants.find_client(client_id)
        return None if metadata is None else client_of(client_id, metadata, self._limits, "registered")


FetchDocument = Callable[[str], Awaitable[dict[str, Any]]]
"""Fetch a JSON object from an https address. Raises GatewayError."""


class ClientDocuments:
    """Clients whose id is the address of their metadata (OAuth Client ID Metadata Document), at hosts that are allowed.

    Documents are kept for DOCUMENT_S_MAX; many who ask for the same one at once share one fetch. One that cannot be
    had, or is no metadata of a client, is no client for DOCUMENT_FAULT_S.
    """

    def __init__(
        self,
        fetch: FetchDocument,
        limits: StrangerLimits,
        clock: Clock,
        *,
        hosts: tuple[str, ...],
        is_loopback_allowed: bool = False,
    ) -> None:
        """`hosts`: `app.example.com` or `*.example.com`. Nothing is fetched from anywhere else (design §13.4)."""
        self._fetch = fetch
        self._limits = limits
        self._clock = clock
        self._hosts = hosts
        self._is_loopback_allowed = is_loopback_allowed
        self._kept: OrderedDict[str, tuple[float, Client | None]] = OrderedDict()
        self._flights: dict[str, asyncio.Task[Client | None]] = {}

    async def find(self, client_id: str) -> Client | None:
        if not self.admits(client_id):
            return None
        kept = self._kept.get(client_id)
        if kept is not None and self._clock.monotonic_s() < kept[0]:
            return kept[1]
        flight = self._flights.get(client_id)
        if flight is None:
            flight = self._flights[client_id] = detached(self._load(client_id), name="client document", keep_pool=True)
            flight.add_done_callback(lambda _: self._flights.pop(client_id))
        return await asyncio.shield(flight)

    def admits(self, client_id: str) -> bool:
        """Tell whether an id is an address from which a document may be fetched."""
        if not client_id.startswith(("https://", "http://")) or not client_id.isascii() or not client_id.isprintable():
            return False
        try:
            parts = urlsplit(client_id)
            host = parts.hostname or ""
            is_plain = parts.username is None and parts.password is None and (parts.port or 443) > 0
        except ValueError:
            return False
        segments = parts.path.split("/")
        if not is_plain or "#" in client_id or parts.path in ("", "/") or "." in segments or ".." in segments:
            return False
        if parts.scheme == "http":
            return self._is_loopback_allowed and host in _LOOPBACK
        return any(
            host == allowed or (allowed.startswith("*.") and host.endswith(allowed[1:])) for allowed in self._hosts
        )

    async def _load(self, client_id: str) -> Client | None:
        client: Client | None = None
        try:
            document = await self._fetch(client_id)
            # The document says itself where it lies, or it is another client's.
            if document.get("client_id") == client_id and not _has_secret(document):
                client = client_of(client_id, document, self._limits, "document")
        except GatewayError:
            client = None
        lifetime_s = DOCUMENT_FAULT_S if client is None else DOCUMENT_S_MAX
        self._kept[client_id] = (self._clock.monotonic_s() + lifetime_s, client)
        self._kept.move_to_end(client_id)
        while len(self._kept) > DOCUMENTS_MAX:
            self._kept.popitem(last=False)
        return client


# What is kept of a registration; everything else was not understood.
_KEPT: Final = (
    *("client_name", "client_uri", "redirect_uris", "post_logout_redirect_uris", "grant_types", "response_types"),
    *("scope", "jwks"),
    *("token_endpoint_auth_method", "dpop_bound_access_tokens", "require_pushed_authorization_requests"),
)


def _has_secret(document: Mapping[str, Any]) -> bool:
    """Tell whether a public document speaks of a secret, which it cannot have."""
    method = document.get("token_endpoint_auth_method", "none")
    return "client_secret" in document or (isinstance(method, str) and method.startswith("client_secret"))


def _jwks(metadata: Mapping[str, Any]) -> Mapping[str, Any]:
    jwks = metadata.get("jwks")
    if not isinstance(jwks, dict) or len(str(jwks)) > JWKS_BYTES_MAX:
        raise _invalid("private_key_jwt needs jwks; jwks_uri is not supported")
    try:
        usable = load_jwks(jwks, ASSERTION_ALGORITHMS).handles
    except KeyInvalid:
        usable = ()
    if not usable:
        raise _invalid("jwks holds no key that can be used")
    return jwks


def _text(metadata: Mapping[str, Any], name: str) -> str:
    value = metadata.get(name, "")
    if not isinstance(value, str) or len(value.encode("utf-8", "surrogateescape")) > TEXT_BYTES_MAX:
        raise _invalid(f"{name} is no text, or too long")
    if not value.isprintable():
        raise _invalid(f"{name} holds characters that cannot be shown")
    return value


def _texts(metadata: Mapping[str, Any], name: str, absent: tuple[str, ...]) -> tuple[str, ...]:
    values = metadata.get(name, list(absent))
    if not isinstance(values, list) or not all(
        isinstance(value, str) and 0 < len(value.encode("utf-8", "surrogateescape")) <= TEXT_BYTES_MAX
        for value in values
    ):
        raise _invalid(f"{name} is no list of texts")
    return tuple(dict.fromkeys(values))


def _invalid(message: str) -> OAuthRefused:
    return OAuthRefused("invalid_client_metadata", message)
