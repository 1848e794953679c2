"""What the token service needs of the rest of the gateway."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Literal, Protocol

from gateway.flows.trail import Caller
from gateway.types import Session, Subject


@dataclass(frozen=True, slots=True, kw_only=True)
class LoginWish:
    """What an authorization request asks of a login."""

    return_to: str  # a path of ours, to which the browser comes back
    reauthenticate: bool = False  # a session is not enough: a credential has to be verified now
    acr_values: tuple[str, ...] = ()  # RFC 9470: one of these, the best first
    login_hint: str = ""
    ui_locales: str = ""  # languages, the best first (OpenID Connect Core §3.1.2.1)
    tenant: str = ""


class Authenticator(Protocol):
    """Who is logged in: sessions, as the token service sees them."""

    async def current(self, cookies: Mapping[str, str]) -> Session | None:
        """Return the session of the browser that sent these cookies, None where there is none that holds."""

    def login_url(self, wish: LoginWish) -> str:
        """Say where to send the browser so that somebody logs in there and comes back."""

    def meets(self, session: Session, acr_values: tuple[str, ...]) -> bool:
        """Tell whether the session was begun as strongly as one of `acr_values` says."""

    async def join(self, session: Session, client_id: str) -> bool:
        """Note that a client is given tokens within the session. False where it is over."""

    async def is_live(self, subject: Subject, origin: bytes) -> bool:
        """Tell whether a session of `subject` with this origin still holds."""

    async def end(self, subject: Subject, origin: bytes) -> None:
        """End a session whose tokens were stolen."""

    async def log_out(self, session: Session, caller: Caller) -> None:
        """End the session of whoever wants to leave."""


class Profiles(Protocol):
    """What is known of users."""

    async def claims_of(self, subject: Subject, scopes: tuple[str, ...]) -> Mapping[str, object] | None:
        """Return the claims that `scopes` open (OIDC Core §5.4), None for who is gone or must not log in."""


class RevokeTokens(Protocol):
    """The log of revocations that the doors of every worker follow."""

    def __call__(
        self, kind: Literal["jti", "sub", "sid"], issuer: str, value: str, *, until_s: int
    ) -> Awaitable[object]: ...


LevelOf = Callable[[], int]
"""The degradation level, 0 to 3."""
