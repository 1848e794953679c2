"""What an answer of a provider and its id token have to be, beside what the judge of tokens sees to."""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Mapping
from typing import Any

import orjson

from gateway._native import base64url
from gateway.flows.federated.accounts import subject_of
from gateway.flows.federated.bindings import text_of
from gateway.flows.federated.errors import SSORefused
from gateway.flows.federated.provider import Endpoints, Provider
from gateway.stores.grants import Grant


def check_issuer(provider: Provider, endpoints: Endpoints, answer: Mapping[str, str]) -> None:
    """RFC 9207 §2.4: compared wherever it is there, and it must be there where the provider says that it is."""
    issuer = answer.get("iss")
    if issuer is None:
        if endpoints.names_itself:
            raise SSORefused("answer_without_issuer")
    elif issuer != provider.issuer:
        raise SSORefused("answer_of_another_issuer")


def check_id_token(provider: Provider, grant: Grant, claims: Mapping[str, Any], nonce: str) -> None:
    """OIDC Core §3.1.3.7, as far as the judge of tokens does not do it: it knows nothing of this log-in."""
    subject_of(claims)
    held = claims.get("nonce")
    if not isinstance(held, str) or not hmac.compare_digest(held.encode(), nonce.encode()):
        raise SSORefused("token_nonce")
    if "events" in claims:
        raise SSORefused("token_kind")  # a logout token is no log-in
    config = provider.config
    audience = claims.get("aud")
    party = claims.get("azp")
    if (isinstance(audience, list) and len(audience) > 1 and party is None) or party not in (
        None,
        config.client_id,
    ):
        raise SSORefused("token_party")
    issued_s = claims.get("iat")
    if not isinstance(issued_s, int | float) or issued_s < int(grant.body["began_s"]) - config.leeway_s:
        raise SSORefused("token_age")
    _check_authentication(provider, grant, claims)


def check_access_token(id_token: str, claims: Mapping[str, Any], access_token: str) -> None:
    """OIDC Core §3.1.3.8: where the id token says which access token came with it, it is this one."""
    said = claims.get("at_hash")
    if said is None or not access_token:
        return
    header = orjson.loads(base64url.decode(id_token.partition(".")[0].encode()))  # verified, so it can be read
    digest = hashlib.new(_hash_name(header["alg"]), access_token.encode()).digest()
    half = text_of(digest[: len(digest) // 2])
    if not isinstance(said, str) or not hmac.compare_digest(said.encode(), half.encode()):
        raise SSORefused("token_at_hash")


def _check_authentication(provider: Provider, grant: Grant, claims: Mapping[str, Any]) -> None:
    """What was asked for about how the user proved to be it has to be so, and not only to have been asked for."""
    config = provider.config
    age_s_max = grant.body.get("age_s_max")
    if age_s_max is not None:
        proved_s = claims.get("auth_time")
        since_s = int(grant.body["began_s"]) - age_s_max - config.leeway_s
        if not isinstance(proved_s, int | float) or proved_s < since_s:
            raise SSORefused("token_auth_time")
    if config.acr_values and claims.get("acr") not in config.acr_values:
        raise SSORefused("token_acr")


def _hash_name(algorithm: str) -> str:
    """Return the hash that goes with an algorithm; with EdDSA that is SHA-512, its curve's own."""
    return "sha512" if algorithm == "EdDSA" else f"sha{algorithm[2:]}"
