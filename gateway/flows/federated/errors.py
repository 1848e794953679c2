"""How a log-in at an identity provider fails: because of what came, or because it cannot be asked."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal

from gateway.errors import GatewayError

RETRY_AFTER_S: Final = 60.0  # where nothing says better

Option = Literal["local_password", "retry_later"]


class SSORefused(GatewayError):
    """Nobody is logged in by this. `reason` is for the audit trail; users are told what they can do about it."""

    code = "sso_refused"
    status = 403

    def __init__(self, reason: str, message: str = "the sign-in could not be completed") -> None:
        super().__init__(message)
        self.reason = reason


@dataclass(frozen=True, slots=True)
class FallbackResponse:
    """What is left to somebody whose identity provider cannot be asked."""

    options: tuple[Option, ...] = ("local_password", "retry_later")
    retry_after_s: float = RETRY_AFTER_S


class SSOUnavailable(GatewayError):
    """The identity provider does not answer, or is left alone for a while because it did not."""

    code = "sso_unavailable"
    status = 503
    retry_after_s = RETRY_AFTER_S

    def __init__(self, message: str = "", *, retry_after_s: float | None = None) -> None:
        super().__init__(message, retry_after_s=retry_after_s)
        self.fallback = FallbackResponse(retry_after_s=self.retry_after_s or RETRY_AFTER_S)
