"""How the token service refuses: the error codes of the RFCs for clients, and a finer stable reason for audit."""

from __future__ import annotations

from typing import ClassVar, Final, Literal

from gateway.errors import GatewayError

OAuthErrorCode = Literal[
    # RFC 6749 §5.2
    "invalid_request",
    "invalid_client",
    "invalid_grant",
    "unauthorized_client",
    "unsupported_grant_type",
    "invalid_scope",
    # RFC 6749 §4.1.2.1
    "unsupported_response_type",
    "access_denied",
    "server_error",
    "temporarily_unavailable",
    # RFC 8707, RFC 9449, RFC 7009, RFC 7591, RFC 9101, RFC 6750
    "invalid_target",
    "invalid_dpop_proof",
    "use_dpop_nonce",
    "unsupported_token_type",
    "invalid_redirect_uri",
    "invalid_client_metadata",
    "invalid_request_uri",
    "request_not_supported",
    "invalid_token",
    "insufficient_scope",
    # OpenID Connect Core 1.0 §3.1.2.6; its Unmet Authentication Requirements 1.0
    "login_required",
    "consent_required",
    "unmet_authentication_requirements",
    "slow_down",
]

_STATUS: Final[dict[str, int]] = {
    "invalid_client": 401,
    "invalid_token": 401,
    "insufficient_scope": 403,
    "server_error": 500,
    "temporarily_unavailable": 503,
    "slow_down": 429,
}


class OAuthRefused(GatewayError):
    """A request that a client is answered with an error code of OAuth.

    `error` is what the client reads, `reason` what audit counts; the message is `error_description` and holds nothing
    that the client sent (RFC 6749 §5.2 allows few characters there).
    """

    code: ClassVar[str] = "oauth_refused"
    status: ClassVar[int] = 400

    def __init__(
        self, error: OAuthErrorCode, message: str, *, reason: str = "", retry_after_s: float | None = None
    ) -> None:
        super().__init__(message, retry_after_s=retry_after_s)
        self.error: OAuthErrorCode = error
        self.reason = reason or error
        self.http_status = _STATUS.get(error, 400)


class RequestUnsafe(GatewayError):
    """An authorization request that must not be answered by a redirect: nobody knows whose address that is.

    The browser is shown a page (RFC 6749 §4.1.2.1). `reason` is stable.
    """

    code: ClassVar[str] = "oauth_request_unsafe"
    status: ClassVar[int] = 400

    def __init__(self, message: str, *, reason: str) -> None:
        super().__init__(message)
        self.reason = reason
