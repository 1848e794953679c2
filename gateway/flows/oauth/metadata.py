"""What clients and resources read before they ask: RFC 8414, OpenID Connect Discovery, RFC 9728."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import urlsplit

from gateway.flows.oauth.client_auth import ASSERTION_ALGORITHMS
from gateway.flows.oauth.dpop import ALGORITHMS as DPOP_ALGORITHMS
from gateway.flows.oauth.parties import Parties, Resource

OWN_SCOPES: Final = ("openid", "profile", "email", "offline_access")
RESOURCE_METADATA: Final = "/.well-known/oauth-protected-resource"


@dataclass(frozen=True, slots=True)
class Offers:
    """What is switched on."""

    registration: bool
    client_documents: bool
    acr_values: Sequence[str] = ()
    backchannel_logout: bool = False
    logout: bool = False  # sessions are ours
    ui_locales: Sequence[str] = ()


def server_metadata(issuer: str, parties: Parties, algorithm: str, offers: Offers) -> dict[str, Any]:
    """Return the metadata of the authorization server, which is that of the OpenID provider too."""
    methods = ["client_secret_basic", "client_secret_post", "private_key_jwt"]
    metadata: dict[str, Any] = {
        "issuer": issuer,
        "authorization_endpoint": f"{issuer}/oauth2/authorize",
        "token_endpoint": f"{issuer}/oauth2/token",
        "userinfo_endpoint": f"{issuer}/oauth2/userinfo",
        "jwks_uri": f"{issuer}/.well-known/jwks.json",
        "revocation_endpoint": f"{issuer}/oauth2/revoke",
        "introspection_endpoint": f"{issuer}/oauth2/introspect",
        "pushed_authorization_request_endpoint": f"{issuer}/oauth2/par",
        "response_types_supported": ["code"],
        "response_modes_supported": ["query"],
        "grant_types_supported": ["authorization_code", "client_credentials", "refresh_token"],
        "code_challenge_methods_supported": ["S256"],
        "token_endpoint_auth_methods_supported": [*methods, "none"],
        # RFC 8414 §2: each of the three "MUST be present" beside private_key_jwt.
        **{
            f"{endpoint}_endpoint_auth_signing_alg_values_supported": list(ASSERTION_ALGORITHMS)
            for endpoint in ("token", "revocation", "introspection")
        },
        "revocation_endpoint_auth_methods_supported": [*methods, "none"],
        "introspection_endpoint_auth_methods_supported": methods,
        "scopes_supported": parties.scopes_supported(OWN_SCOPES),
        "subject_types_supported": ["public"],
        "id_token_signing_alg_values_supported": [algorithm],
        "claims_supported": ["iss", "sub", "aud", "exp", "iat", "auth_time", "nonce", "acr", "amr", "sid"],
        "prompt_values_supported": ["none", "login", "consent", "select_account"],
        "dpop_signing_alg_values_supported": list(DPOP_ALGORITHMS),
        "authorization_response_iss_parameter_supported": True,
        "request_parameter_supported": False,
        "request_uri_parameter_supported": False,
        "require_pushed_authorization_requests": False,
        "claims_parameter_supported": False,
        "backchannel_logout_supported": offers.backchannel_logout,
        "backchannel_logout_session_supported": offers.backchannel_logout,
    }
    if offers.logout:
        metadata["end_session_endpoint"] = f"{issuer}/oauth2/logout"
    if offers.ui_locales:
        metadata["ui_locales_supported"] = list(offers.ui_locales)
    if offers.registration:
        metadata["registration_endpoint"] = f"{issuer}/oauth2/register"
    if offers.client_documents:
        metadata["client_id_metadata_document_supported"] = True
    if offers.acr_values:
        metadata["acr_values_supported"] = list(offers.acr_values)
    return metadata


def resource_metadata(resource: Resource, issuer: str) -> dict[str, Any]:
    """Return the metadata of a protected resource (RFC 9728 §2)."""
    metadata: dict[str, Any] = {
        "resource": resource.id,
        "authorization_servers": [issuer],
        "bearer_methods_supported": ["header"],
        "resource_name": resource.name,
        "dpop_signing_alg_values_supported": list(DPOP_ALGORITHMS),
    }
    if resource.scopes:
        metadata["scopes_supported"] = list(resource.scopes)
    return metadata


def resource_metadata_url(resource: Resource) -> str:
    """Return the address of a resource's metadata, "" where it has no host."""
    parts = urlsplit(resource.id)
    path = resource_metadata_path(resource)
    return f"{parts.scheme}://{parts.netloc}{path}" if path else ""


def resource_metadata_path(resource: Resource) -> str:
    """Return the path at which a resource's metadata lies on its host (RFC 9728 §3.1), "" where it has no host."""
    parts = urlsplit(resource.id)
    if parts.scheme not in ("https", "http") or not parts.netloc:
        return ""
    return RESOURCE_METADATA + parts.path.removesuffix("/")
