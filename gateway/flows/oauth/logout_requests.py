"""Log-out that an application asks for: OpenID Connect RP-Initiated Logout 1.0.

    request ──▶ somebody logged in? ──no──▶ back to the application
                       │ yes
                       ▼
           an id token of this session? ──yes──▶ it ends ──▶ back to the application
                       │ no
                       ▼
                      page ──log out──▶ it ends ──▶ back to the application

Whoever shows an id token of a session was told of it and may end it; a link alone could be anybody's, and asks. What
is posted from another site brings no cookies (they are SameSite=Lax): it comes again as a link, in which a mark of ours
stands for the id token, as addresses are no place for that.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final
from urllib.parse import urlencode

from gateway.flows.oauth.approval import Redirect
from gateway.flows.oauth.authorization import PARAMETERS_MAX, Parameters, with_query
from gateway.flows.oauth.context import Authenticator
from gateway.flows.oauth.errors import RequestUnsafe
from gateway.flows.oauth.marks import Marks
from gateway.flows.oauth.minting import Mint, public_sid
from gateway.flows.oauth.parties import Client, Parties, matches_redirect
from gateway.flows.sessions import origin_of
from gateway.flows.trail import Caller
from gateway.types import Session

SHOWN: Final = "shown"  # name of the mark in the query
SHOWN_S: Final = 60  # a redirect takes no longer
_SHOWN: Final = b"logout, id token shown"
_FORM: Final = b"logout"


@dataclass(frozen=True, slots=True, kw_only=True)
class AskLogout:
    """Show the page on which the user logs out; its form brings `request` and `csrf` back."""

    client: Client | None
    location: str  # where the browser goes then, "" = nowhere
    request: str  # the parameters, as a query
    csrf: str


@dataclass(frozen=True, slots=True)
class LoggedOut:
    """Nobody is logged in any more in this browser; it goes to `location`, "" = nowhere."""

    location: str


@dataclass(frozen=True, slots=True)
class _Wish:
    client: Client | None
    location: str
    sid: str  # of the session of which an id token was shown, "" = of none


class LogoutRequests:
    """Answer applications that ask for a log-out. Methods raise RequestUnsafe for what only a page may tell."""

    def __init__(self, *, parties: Parties, mint: Mint, authenticator: Authenticator, marks: Marks, path: str) -> None:
        """`path`: of ours, to which what was posted comes again."""
        self._parties = parties
        self._mint = mint
        self._authenticator = authenticator
        self._marks = marks
        self._path = path

    async def posted(self, parameters: Parameters) -> Redirect:
        """Have what was posted come again as a link (§2: both must be taken)."""
        wish = await self._read(parameters)
        brought = _without_hint(parameters, wish)
        if wish.sid:
            brought.append((SHOWN, f"{wish.sid}.{self._marks.stamp(_SHOWN, wish.sid, urlencode(brought))}"))
        return Redirect(f"{self._path}?{urlencode(brought)}")

    async def ask(self, parameters: Parameters, cookies: Mapping[str, str], caller: Caller) -> AskLogout | LoggedOut:
        """Answer a request that a browser brings."""
        wish = await self._read(parameters)
        session = await self._authenticator.current(cookies)
        if session is None:
            return LoggedOut(wish.location)
        if wish.sid and wish.sid == public_sid(origin_of(session)):
            return await self._end(session, wish, caller)
        request = urlencode(_without_hint(parameters, wish))
        csrf = self._marks.form(_FORM, session, request)
        return AskLogout(client=wish.client, location=wish.location, request=request, csrf=csrf)

    async def decide(self, parameters: Parameters, csrf: str, cookies: Mapping[str, str], caller: Caller) -> LoggedOut:
        """Take what the user said on the page of `AskLogout`."""
        wish = await self._read(parameters)
        session = await self._authenticator.current(cookies)
        if session is None:
            return LoggedOut(wish.location)
        if not self._marks.accepts_form(csrf, _FORM, session, urlencode(list(parameters))):
            raise RequestUnsafe("this page is out of date; go back to the application", reason="csrf")
        return await self._end(session, wish, caller)

    async def _end(self, session: Session, wish: _Wish, caller: Caller) -> LoggedOut:
        await self._authenticator.log_out(session, caller)
        return LoggedOut(wish.location)

    async def _read(self, parameters: Parameters) -> _Wish:
        if len(parameters) > PARAMETERS_MAX:
            raise RequestUnsafe("the request is too long", reason="request_too_long")
        if len(dict(parameters)) < len(parameters):
            raise RequestUnsafe("a parameter stands there more than once", reason="repeated")
        given = {name: value for name, value in parameters if value}
        # A token that is none of ours, or that nobody can verify any more, hints at nothing: the user is asked then.
        hint = self._mint.read_hint(given.get("id_token_hint", ""))
        client_id = given.get("client_id", "" if hint is None else hint.client_id)
        if hint is not None and hint.client_id != client_id:
            raise RequestUnsafe("the id token is another application's", reason="client_mismatch")
        client = await self._parties.find(client_id) if client_id else None
        if client is None and client_id:
            raise RequestUnsafe("the application that sent you here is not known", reason="client_unknown")
        sid = self._shown(given.get(SHOWN, ""), parameters) if hint is None else hint.sid
        return _Wish(client, _location(given, client), sid)

    def _shown(self, mark: str, parameters: Parameters) -> str:
        """Return the session whose id token was shown when this was posted, "" where none was."""
        sid, _, stamp = mark.partition(".")
        query = urlencode([(name, value) for name, value in parameters if name != SHOWN])
        return sid if self._marks.stamped_s(stamp, _SHOWN, sid, query, age_s_max=SHOWN_S) is not None else ""


def _without_hint(parameters: Parameters, wish: _Wish) -> list[tuple[str, str]]:
    """Return what comes again: no id token, but whose it was."""
    brought = [(name, value) for name, value in parameters if value and name not in ("id_token_hint", SHOWN)]
    if wish.client is not None and "client_id" not in dict(brought):
        brought.append(("client_id", wish.client.id))
    return brought


def _location(given: Mapping[str, str], client: Client | None) -> str:
    """Return where the browser goes: to an address that the application registered, and nowhere else (§3)."""
    uri = given.get("post_logout_redirect_uri", "")
    if not uri:
        return ""
    if client is None:
        raise RequestUnsafe("nobody says whose the address to go back to is", reason="client_missing")
    if not any(matches_redirect(registered, uri) for registered in client.post_logout_redirect_uris):
        raise RequestUnsafe("the address to go back to is not the application's", reason="redirect_unknown")
    return with_query(uri, {"state": given["state"]} if "state" in given else {})
