"""What users do with their own account: passwords, second factors, sessions and devices.

Whoever changes how the account is got into proves anew that it is theirs: a session that was left open is not enough.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from gateway.flows.login import ADDRESS, AGENT, Browser, Logins, NotGood, Refused
from gateway.flows.mfa import Enrolment, Factors
from gateway.flows.sessions import Begun, Proof, Sessions, origin_of
from gateway.flows.strength import KNOWN
from gateway.flows.trail import AuditTrail, Caller
from gateway.stores.directory import Device, Directory, User
from gateway.types import Clock, Session, Subject

FRESH_S: Final = 600  # a proof is new for so long
_SHOWN_HEX: Final = 64
_ID: Final = re.compile(r"[a-z]{3}_[a-z2-7]{26}")  # of a device: nothing else is asked for in a store


@dataclass(frozen=True, slots=True)
class SessionRow:
    """A session as its owner sees it. `id` ends it, and is of no use to get at it."""

    id: str
    agent: str
    address: str
    created_s: int
    seen_s: int
    is_this: bool


@dataclass(frozen=True, slots=True)
class Overview:
    """An account as its owner sees it."""

    user: User
    session: Session
    factors: Factors
    sessions: tuple[SessionRow, ...]
    devices: tuple[Device, ...]


class Accounts:
    """Looks after the account of whoever is logged in. Methods raise StoreUnavailable and DeadlineExceededError."""

    def __init__(
        self,
        *,
        directory: Directory,
        sessions: Sessions,
        logins: Logins,
        clock: Clock,
        trail: AuditTrail,
    ) -> None:
        self._directory = directory
        self._sessions = sessions
        self._logins = logins
        self._clock = clock
        self._trail = trail

    async def find(self, browser: Browser) -> tuple[User, Session] | None:
        """Give who is logged in; None where nobody is, or a user who must not be."""
        session = await self._sessions.find(browser.session) if browser.session else None
        if session is None:
            return None
        user = await self.user(session.subject)
        return None if user is None else (user, session)

    async def has_session(self, browser: Browser) -> bool:
        """Tell whether the browser has a session, whoever's it is; the directory is not asked."""
        return bool(browser.session) and await self._sessions.find(browser.session) is not None

    async def user(self, subject: Subject) -> User | None:
        """Give a subject's user, None for one who is gone or must not log in."""
        user = await self._directory.get_user(subject.tenant, subject.id)
        return None if user is None or not user.active else user

    def is_fresh(self, session: Session) -> bool:
        """Tell whether the proof behind a session is new enough for what changes the account."""
        return not session.requires_reauth and self._clock.wall_s() - session.authenticated_s < FRESH_S

    async def overview(self, user: User, session: Session) -> Overview:
        """Give everything that the owner sees."""
        live = await self._sessions.list_of(session.subject)
        rows = tuple(
            SessionRow(
                id=each.id_hash.hex(),
                agent=each.attributes.get(AGENT, ""),
                address=each.attributes.get(ADDRESS, ""),
                created_s=each.created_s,
                seen_s=each.last_seen_s,
                is_this=each.id_hash == session.id_hash,
            )
            for each in live
        )
        devices = await self._logins.devices.list_of(user.tenant, user.id)
        return Overview(user, session, await self._logins.factors.of(user.id), rows, tuple(devices))

    # -- sessions -----------------------------------------------------------------------------------------------------

    async def log_out(self, browser: Browser) -> bool:
        """End the browser's session; tell whether it had one."""
        if not browser.session:
            return False
        return await self._sessions.end(browser.session, caller=browser.caller) is not None

    async def end(self, session: Session, row_id: str, caller: Caller) -> bool:
        """End one of the sessions of whoever is logged in; nobody else's."""
        wanted = bytes.fromhex(row_id) if len(row_id) == _SHOWN_HEX and _is_hex(row_id) else b""
        for each in await self._sessions.list_of(session.subject):
            if each.id_hash == wanted:
                await self._end((each,), "owner", caller)
                return True
        return False

    async def log_out_everywhere(self, subject: Subject, caller: Caller, *, reason: str = "logout_everywhere") -> int:
        """End all sessions of a subject, also ones that are being begun at this moment."""
        return await self._sessions.end_all(subject, reason=reason, caller=caller)

    # -- password -----------------------------------------------------------------------------------------------------

    async def change_password(
        self, user: User, session: Session, former: str, password: str, browser: Browser
    ) -> Begun | NotGood | Refused:
        """Set another password, end all other sessions, and go on in this one under another id."""
        refused = await self._logins.check_password(user, former, browser)
        if refused is not None:
            return refused
        problem = await self._logins.set_password(user, password, former=former)
        if problem is not None:
            return NotGood(problem)
        caller = browser.caller
        origin = origin_of(session)
        others = [each for each in await self._sessions.list_of(session.subject) if origin_of(each) != origin]
        await self._end(others, "password_change", caller)
        await self._logins.devices.void(user.tenant, user.id)
        self._trail.tell("password.change", "success", caller=caller, tenant=user.tenant, actor=user.id, target=user.id)
        begun = await self._sessions.step_up(browser.session, Proof(amr=(KNOWN,), acr=session.acr), caller=caller)
        return Refused("over") if begun is None else begun

    # -- second factors and devices -----------------------------------------------------------------------------------

    async def factors(self, user: User) -> Factors:
        """Give the second factors that a user has."""
        return await self._logins.factors.of(user.id)

    async def enrolment(self, user: User, *, anew: bool = False) -> Enrolment:
        """Give what an app must be told: the one that was begun, or a new one."""
        begun = None if anew else await self._logins.factors.begun(user.id, user.user_name)
        return begun or await self._logins.factors.begin(user.id, user.user_name)

    async def confirm(self, user: User, code: str, browser: Browser) -> bool:
        """Have the app count from now on. Its codes are counted like those of a login."""
        return await self._logins.factors.confirm(user.tenant, user.id, code, browser.caller)

    async def remove_factor(self, user: User, device_id: str, caller: Caller) -> bool:
        """Remove an app, and forget the devices that were remembered thanks to it."""
        removed = _ID.fullmatch(device_id) is not None and await self._logins.factors.remove(
            user.tenant, user.id, device_id, caller
        )
        if removed:
            await self._logins.devices.forget_all(user.tenant, user.id)
        return removed

    async def new_codes(self, user: User, caller: Caller) -> tuple[str, ...]:
        """Make recovery codes in place of all that there were."""
        return await self._logins.factors.new_codes(user.tenant, user.id, caller)

    async def forget_device(self, user: User, device_id: str, caller: Caller) -> bool:
        """Forget a device that was remembered."""
        if _ID.fullmatch(device_id) is None:
            return False
        return await self._logins.devices.forget(user.tenant, user.id, device_id, caller)

    async def _end(self, sessions: Sequence[Session], reason: str, caller: Caller) -> None:
        for each in sessions:
            await self._sessions.end_hash(each.id_hash, reason=reason, caller=caller)


def _is_hex(text: str) -> bool:
    return all(character in "0123456789abcdef" for character in text)
