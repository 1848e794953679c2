"""The token service: OAuth 2 and OpenID Connect. `service.OAuthService` is all of it; nothing here knows HTTP."""

from gateway.flows.oauth.approval import AskConsent, Redirect
from gateway.flows.oauth.client_auth import ClientProof
from gateway.flows.oauth.context import Authenticator, LoginWish, Profiles, RevokeTokens
from gateway.flows.oauth.dpop import DPoPChecker
from gateway.flows.oauth.errors import OAuthRefused, RequestUnsafe
from gateway.flows.oauth.logout_requests import AskLogout, LoggedOut
from gateway.flows.oauth.service import OAuthService, Surroundings, open_keys
from gateway.flows.oauth.tokens import TokenRequest
from gateway.flows.trail import Auditor, Caller

__all__ = [
    "AskConsent",
    "AskLogout",
    "Auditor",
    "Authenticator",
    "Caller",
    "ClientProof",
    "DPoPChecker",
    "LoggedOut",
    "LoginWish",
    "OAuthRefused",
    "OAuthService",
    "Profiles",
    "Redirect",
    "RequestUnsafe",
    "RevokeTokens",
    "Surroundings",
    "TokenRequest",
    "open_keys",
]
