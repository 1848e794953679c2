"""Logging in at an identity provider, as a relying party of OpenID Connect."""

from gateway.flows.federated.accounts import Accounts
from gateway.flows.federated.errors import FallbackResponse, SSORefused, SSOUnavailable
from gateway.flows.federated.provider import Provider
from gateway.flows.federated.service import Federation, SSOLogin, SSOStart

__all__ = [
    "Accounts",
    "FallbackResponse",
    "Federation",
    "Provider",
    "SSOLogin",
    "SSORefused",
    "SSOStart",
    "SSOUnavailable",
]
