"""Who is logged in, and what is known of users: sessions and the directory, as the token service asks for them."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from gateway.flows.oauth.context import LoginWish
from gateway.flows.sessions import Sessions
from gateway.flows.strength import meets
from gateway.flows.trail import Caller
from gateway.stores.directory import Directory
from gateway.types import Session, Subject


class SessionAuthenticator:
    """The Authenticator over this gateway's own sessions."""

    def __init__(self, sessions: Sessions, cookie: str, login_url: Callable[[LoginWish], str]) -> None:
        """`login_url`: the address of the page on which such a login takes place."""
        self._sessions = sessions
        self._cookie = cookie
        self._login_url = login_url

    async def current(self, cookies: Mapping[str, str]) -> Session | None:
        value = cookies.get(self._cookie, "")
        return await self._sessions.find(value) if value else None

    def login_url(self, wish: LoginWish) -> str:
        return self._login_url(wish)

    def meets(self, session: Session, acr_values: tuple[str, ...]) -> bool:
        return meets(session.acr, acr_values)

    async def join(self, session: Session, client_id: str) -> bool:
        return await self._sessions.join(session, client_id)

    async def is_live(self, subject: Subject, origin: bytes) -> bool:
        return await self._sessions.find_by_origin(subject, origin) is not None

    async def end(self, subject: Subject, origin: bytes) -> None:
        session = await self._sessions.find_by_origin(subject, origin)
        if session is not None:
            await self._sessions.end_hash(session.id_hash, reason="tokens_stolen")

    async def log_out(self, session: Session, caller: Caller) -> None:
        await self._sessions.end_hash(session.id_hash, reason="logout", caller=caller)


class NobodyLogsIn:
    """The Authenticator of a gateway without sessions: it sends everybody to a login page that is elsewhere."""

    def __init__(self, login_url: Callable[[LoginWish], str]) -> None:
        self._login_url = login_url

    async def current(self, cookies: Mapping[str, str]) -> Session | None:
        return None

    def login_url(self, wish: LoginWish) -> str:
        return self._login_url(wish)

    def meets(self, session: Session, acr_values: tuple[str, ...]) -> bool:
        return False

    async def join(self, session: Session, client_id: str) -> bool:
        return False

    async def is_live(self, subject: Subject, origin: bytes) -> bool:
        return False

    async def end(self, subject: Subject, origin: bytes) -> None:
        return None

    async def log_out(self, session: Session, caller: Caller) -> None:
        return None


class DirectoryProfiles:
    """The Profiles over the directory: who is inactive or gone gets no token any more."""

    def __init__(self, directory: Directory) -> None:
        self._directory = directory

    async def claims_of(self, subject: Subject, scopes: tuple[str, ...]) -> Mapping[str, object] | None:
        user = await self._directory.get_user(subject.tenant, subject.id)
        if user is None or not user.active:
            return None
        claims: dict[str, object] = {}
        if "profile" in scopes:
            name = user.attributes.get("displayName")
            claims |= {"preferred_username": user.user_name, "updated_at": int(user.changed_s)}
            if isinstance(name, str) and name:
                claims["name"] = name
        if "email" in scopes and user.emails:
            claims["email"] = user.emails[0]
        return claims


class SessionsOnly:
    """The Profiles of a gateway without a directory: of whoever has a session no more is known than who it is."""

    async def claims_of(self, subject: Subject, scopes: tuple[str, ...]) -> Mapping[str, object] | None:
        return {}
