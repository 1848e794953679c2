"""Where a configured issuer publishes its keys: OpenID Connect Discovery 1.0 §4, RFC 8414 §3."""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from gateway.stores.fetch import Fetcher, FetchFailed, check_address, is_loopback, origin

METADATA_BYTES_MAX = 256 * 1024
OPENID_SUFFIX = "/.well-known/openid-configuration"
OAUTH_SUFFIX = "/.well-known/oauth-authorization-server"


@dataclass(frozen=True, slots=True)
class IssuerMetadata:
    """What of an issuer's metadata is used here."""

    issuer: str
    jwks_uri: str


def metadata_addresses(issuer: str) -> tuple[str, str]:
    """Return where the metadata of `issuer` may lie, in the order in which to look.

    OIDC Discovery §4.1 appends its suffix to the issuer; RFC 8414 §3.1 inserts its own between host and path:
    `https://example.com/a` gives `https://example.com/.well-known/oauth-authorization-server/a`.
    """
    parts = urlsplit(issuer)
    path = parts.path.rstrip("/")
    host = f"{parts.scheme}://{parts.netloc}"
    return f"{host}{path}{OPENID_SUFFIX}", f"{host}{OAUTH_SUFFIX}{path}"


async def discover(fetcher: Fetcher, issuer: str, *, timeout_s: float) -> IssuerMetadata:
    """Fetch what of the issuer's metadata tells of its keys. Raises FetchFailed."""
    document = await fetch_metadata(fetcher, issuer, timeout_s=timeout_s)
    jwks_uri = document.get("jwks_uri")
    if not isinstance(jwks_uri, str):
        raise FetchFailed("no_jwks_uri", f"the metadata of `{issuer}` names no jwks_uri")
    return IssuerMetadata(issuer, check_named_address(jwks_uri, issuer))


async def fetch_metadata(fetcher: Fetcher, issuer: str, *, timeout_s: float) -> dict[str, Any]:
    """Fetch the issuer's metadata, the OpenID form first; it is for this issuer. Raises FetchFailed.

    The second address is asked only where the first answers that it has nothing: whatever else is wrong with the
    first is wrong with the host.
    """
    first, second = metadata_addresses(check_issuer(issuer))
    try:
        document = await fetcher.get_json(
            first, timeout_s=timeout_s, bytes_max=METADATA_BYTES_MAX, same_origin_redirects=True
        )
    except FetchFailed as error:
        if error.problem != "status" or not 400 <= error.http_status < 500:
            raise
        document = await fetcher.get_json(
            second, timeout_s=timeout_s, bytes_max=METADATA_BYTES_MAX, same_origin_redirects=True
        )
    # OIDC Discovery §4.3: "The issuer value returned MUST be identical to the Issuer URL that was directly used to
    # retrieve the configuration information"; RFC 8414 §3.3 says the same. Without it, one tenant could speak for
    # another.
    if document.get("issuer") != issuer:
        raise FetchFailed("issuer_mismatch", f"the metadata of `{issuer}` names another issuer")
    return document


def check_issuer(issuer: str) -> str:
    """Return `issuer` if metadata can be asked of it: an address without a query (RFC 8414 §2)."""
    if check_address(issuer).query or "?" in issuer:
        raise FetchFailed("address", f"the issuer `{issuer}` has a query")
    return issuer


def check_named_address(url: str, issuer: str) -> str:
    """Return `url`, which the metadata of `issuer` names, if it may be fetched.

    Another host is fine (large providers serve keys from one of their own); what is not: this machine or a bare
    address of a private network, unless the issuer lies there itself. TLS guards every name: an inner service cannot
    show a certificate for it.
    """
    parts, own = check_address(url), check_address(issuer)
    if origin(parts)[1] == origin(own)[1]:
        return url
    host = parts.hostname or ""
    if (is_loopback(host) or _is_private(host)) and not is_loopback(own.hostname or ""):
        raise FetchFailed("address", f"the metadata of `{issuer}` names the inner address `{host}`")
    return url


def _is_private(host: str) -> bool:
    try:
        return not ipaddress.ip_address(host).is_global
    except ValueError:
        return False
