"""What is found out about a log-in afterwards, where it was skipped at the time (`complete_auth_metadata`).

At degradation level 1 and above a log-in is not held against earlier ones, and its address is looked up nowhere. Who
has a second factor shows it then, on a remembered device too. The rest is promised before the session begins: when the
level has fallen, the whole is assessed as it would have been, told to the audit log, and a session that would have
been refused ends.
"""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from gateway.flows.deferred import DeferredRunner
from gateway.flows.risk import LoginSigns, Place, Risk, Sighting, assess
from gateway.flows.sessions import Sessions
from gateway.flows.trail import Auditor
from gateway.flows.whereabouts import Whereabouts, sightings_in
from gateway.stores.deferred import Job
from gateway.stores.directory import PastLogin
from gateway.types import AuditEvent, Clock, Session, Subject

KIND: Final = "complete_auth_metadata"
LOGIN: Final = "login_note"  # attribute of a session: the name of what was promised about it
PLACE: Final = "place"  # attribute of a session: where it was begun
_NAME_BYTES: Final = 16


def new_name() -> str:
    """Make a name for what is promised about one log-in."""
    return secrets.token_hex(_NAME_BYTES)


@dataclass(frozen=True, slots=True, kw_only=True)
class LoginNote:
    """What was seen of a log-in, for later. `name` also stands in its session."""

    name: str
    subject: Subject
    address: str
    known_browser: bool
    failures: int


class Reckoning:
    """Promises to assess log-ins, and assesses them."""

    def __init__(
        self,
        deferring: DeferredRunner,
        *,
        sessions: Sessions,
        whereabouts: Whereabouts,
        auditor: Auditor,
        clock: Clock,
        refused: int,
    ) -> None:
        """`refused`: the points from which on nobody gets in."""
        self._deferring = deferring
        self._sessions = sessions
        self._whereabouts = whereabouts
        self._auditor = auditor
        self._clock = clock
        self._refused = refused
        deferring.handle(KIND, self._complete)

    async def promise(self, note: LoginNote) -> None:
        """Have a log-in assessed later; nobody gets in whose assessment could be lost. Raises StoreUnavailable."""
        body = {
            "tenant": note.subject.tenant,
            "user": note.subject.id,
            "address": note.address,
            "known_browser": note.known_browser,
            "failures": note.failures,
            "at_s": self._clock.wall_s(),
        }
        await self._deferring.put(KIND, f"{KIND}:{note.name}", body)

    async def _complete(self, job: Job) -> None:
        body = job.body
        subject = Subject(str(body["tenant"]), str(body["user"]))
        name = job.key.partition(":")[2]
        at_s = float(body["at_s"])
        live = await self._sessions.list_of(subject)
        before = [each for each in live if each.created_s <= at_s and each.attributes.get(LOGIN) != name]
        address = str(body["address"])
        logins = await self._whereabouts.of(subject.id, at_s)
        risk = assess(
            LoginSigns(
                now_s=at_s,
                known_browser=bool(body["known_browser"]),
                failures=int(body["failures"]),
                recent_logins_s=times_of(before, logins),
                place=self._whereabouts.find(address),
                network=self._whereabouts.network(subject.id, address),
                sightings=[*sightings_of(before), *sightings_in(logins)],
            )
        )
        is_refused = risk.points >= self._refused
        if is_refused:
            for session in live:
                if session.attributes.get(LOGIN) == name:
                    await self._sessions.end_hash(session.id_hash, reason="risk")
        else:
            await self._whereabouts.note(subject.id, address, at_s)
        self._tell(job.key, subject, address, risk, is_refused=is_refused)

    def _tell(self, key: str, subject: Subject, address: str, risk: Risk, *, is_refused: bool) -> None:
        event = AuditEvent(
            id=hashlib.sha256(key.encode()).hexdigest()[:32],  # the same when it is done again: recorded once
            at_s=self._clock.wall_s(),
            action="login.risk",
            outcome="refused" if is_refused else "success",
            tenant=subject.tenant,
            actor=subject.id,
            target=subject.id,
            address=address,
            reason="risk" if is_refused else "",
            details={"risk": risk.points, "risk_parts": str(risk), "deferred": True},
        )
        self._auditor.tell(event)


def times_of(sessions: Sequence[Session], logins: Sequence[PastLogin]) -> list[float]:
    """Give when a user logged in of late. A log-in whose session goes on is in both lists, and counts once."""
    return max([each.created_s for each in sessions], [each.at_s for each in logins], key=len)


def sightings_of(sessions: Sequence[Session]) -> list[Sighting]:
    """Give where and when sessions were begun, as far as that is known."""
    return [Sighting(place, each.created_s) for each in sessions if (place := _place_of(each)) is not None]


def _place_of(session: Session) -> Place | None:
    latitude, comma, longitude = session.attributes.get(PLACE, "").partition(",")
    return Place(float(latitude), float(longitude)) if comma else None
