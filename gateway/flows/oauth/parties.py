"""Who takes part: clients that ask for tokens, and the resources that tokens are for."""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Literal, Protocol, get_args
from urllib.parse import urlsplit

from gateway.flows.oauth.errors import OAuthRefused

GrantType = Literal["authorization_code", "client_credentials", "refresh_token"]
GRANT_TYPES: Final[tuple[GrantType, ...]] = get_args(GrantType)
ClientAuth = Literal["secret", "private_key_jwt", "none"]
Source = Literal["config", "registered", "document"]

CLIENT_ID_BYTES_MAX: Final = 512
_LOOPBACK: Final = frozenset({"127.0.0.1", "::1"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Client:
    """An application that is given tokens. Times are seconds."""

    id: str
    name: str
    auth: ClientAuth
    grant_types: frozenset[GrantType]
    scopes: frozenset[str]
    redirect_uris: tuple[str, ...] = ()
    secret_hash: bytes = field(default=b"", repr=False)  # SHA-256; secrets of clients are random, not chosen
    jwks: Mapping[str, Any] | None = None  # public keys of one that signs its assertions
    resources: tuple[str, ...] = ()  # what it may have tokens for; none = whatever is configured
    tenant: str = ""
    ask_consent: bool = True
    access_token_s: int
    refresh_idle_s: int
    refresh_max_s: int
    needs_dpop: bool = False
    needs_par: bool = False
    source: Source = "config"
    uri: str = ""  # its home page, for the page that asks for consent
    backchannel_logout_uri: str = ""  # where it hears that a session is over
    post_logout_redirect_uris: tuple[str, ...] = ()  # where the browser may go after a log-out that it asked for

    @property
    def is_public(self) -> bool:
        """Whether it cannot prove who it is: an app on a phone, or in a browser."""
        return self.auth == "none"

    def knows(self, secret: str) -> bool:
        """Tell whether this is its secret."""
        given = hashlib.sha256(secret.encode("utf-8", "surrogateescape")).digest()
        return bool(self.secret_hash) and hmac.compare_digest(self.secret_hash, given)


@dataclass(frozen=True, slots=True, kw_only=True)
class Resource:
    """A service that takes our tokens (RFC 8707): `id` is in their `aud`."""

    id: str
    name: str
    scopes: tuple[str, ...] = ()


class ClientSource(Protocol):
    """Where clients are found."""

    async def find(self, client_id: str) -> Client | None:
        """Return the client, or None where there is none of that id here."""


class ConfiguredClients:
    """Those that the operator named."""

    def __init__(self, clients: Iterable[Client]) -> None:
        self._clients = {client.id: client for client in clients}

    async def find(self, client_id: str) -> Client | None:
        return self._clients.get(client_id)


class Parties:
    """All clients, whoever named them, and all resources."""

    def __init__(
        self, sources: Iterable[ClientSource], resources: Iterable[Resource], *, default_audience: str
    ) -> None:
        """`sources` are asked in order; `default_audience` is for tokens that were asked for without `resource`."""
        self._sources = tuple(sources)
        self.resources: Mapping[str, Resource] = {resource.id: resource for resource in resources}
        self.default_audience = default_audience

    @property
    def audiences(self) -> tuple[str, ...]:
        """Everything that our tokens can be for."""
        return tuple(dict.fromkeys((self.default_audience, *self.resources)))

    async def find(self, client_id: str) -> Client | None:
        """Return the client of that id, or None."""
        if not 0 < len(client_id.encode()) <= CLIENT_ID_BYTES_MAX or "\0" in client_id:
            return None
        for source in self._sources:
            client = await source.find(client_id)
            if client is not None:
                return client
        return None

    def scopes_supported(self, own: Iterable[str]) -> list[str]:
        """List the scopes of all resources, besides our `own`."""
        return sorted({*own, *(scope for resource in self.resources.values() for scope in resource.scopes)})


def take_scopes(text: str, client: Client) -> tuple[str, ...]:
    """Read a `scope` parameter (RFC 6749 §3.3) into what the client may ask for; "" stands for its defaults.

    Raises OAuthRefused.
    """
    if not text:
        return tuple(sorted(client.scopes - {"openid", "offline_access"}))
    scopes = tuple(dict.fromkeys(text.split(" ")))
    if not all(scope and all("!" <= c <= "~" and c not in '"\\' for c in scope) for scope in scopes):
        raise OAuthRefused("invalid_scope", "the scope is malformed")
    if not client.scopes.issuperset(scopes):
        raise OAuthRefused("invalid_scope", "the client may not ask for one of these scopes")
    return scopes


def take_resources(given: tuple[str, ...], client: Client, parties: Parties) -> tuple[str, ...]:
    """Read `resource` parameters (RFC 8707 §2) into what tokens may be for. Raises OAuthRefused."""
    found = []
    for text in given:
        # A slash at the end of an address without a path says nothing (RFC 3986 §6.2.3), and many clients add it.
        known = next((each for each in (text, text.removesuffix("/")) if each in parties.resources), None)
        if known is None or (client.resources and known not in client.resources):
            raise OAuthRefused("invalid_target", "tokens for one of these resources are not given to this client")
        found.append(known)
    return tuple(dict.fromkeys(found))


def matches_redirect(registered: str, given: str) -> bool:
    """Tell whether `given` is a registered redirect URI: the same text (RFC 9700 §4.1.3).

    On this machine's own addresses the port may be another: an app takes what is free (RFC 8252 §7.3).
    """
    if registered == given:
        return True
    try:
        one, other = urlsplit(registered), urlsplit(given)
        if one.scheme != "http" or one.hostname not in _LOOPBACK or other.username is not None or other.port is None:
            return False
        return (one.scheme, one.hostname, one.path, one.query) == (
            other.scheme,
            other.hostname,
            other.path,
            other.query,
        ) and not other.fragment
    except ValueError:
        return False
