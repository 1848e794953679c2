"""Provisional sessions: while the directory is away, a session that still holds may carry its user a little further.

Off by default. What it rests on is the earlier session itself, found in its store, begun by a proof and not over: never
a remembered device, a known browser, a score or an application's wish. It lasts 15 minutes, has no scopes, is worth one
factor, says `provisional` and `requires_reauth`, and gives no other. That it has to be judged anew is promised
before it begins: when the directory is back, a user who is inactive, gone or has another password loses it.
"""

from __future__ import annotations

import hashlib
from typing import Final

from gateway.errors import StoreUnavailable
from gateway.flows.deferred import DeferredRunner
from gateway.flows.degraded import Offers
from gateway.flows.reckoning import new_name
from gateway.flows.sessions import PROVISIONAL_S, Begun, Proof, Sessions
from gateway.flows.strength import ONE_FACTOR
from gateway.flows.trail import NOBODY, Auditor, AuditTrail, Caller
from gateway.stores.deferred import Job
from gateway.stores.directory import Directory
from gateway.types import AuditEvent, Clock, Session, Subject

KIND: Final = "reconcile_provisional"
NAME: Final = "provisional_note"  # attribute of a session: the name of what was promised about it
SCOPE: Final = "scope"  # attribute of a session whose words are its scopes
BEGUN_WITHIN_S: Final = 30.0  # a job that finds no session may have come before it


class ProvisionalSessions:
    """Begins provisional sessions, and judges them when the directory is back."""

    def __init__(
        self,
        deferring: DeferredRunner,
        *,
        sessions: Sessions,
        directory: Directory,
        offers: Offers,
        auditor: Auditor,
        clock: Clock,
    ) -> None:
        self._deferring = deferring
        self._sessions = sessions
        self._directory = directory
        self._offers = offers
        self._auditor = auditor
        self._trail = AuditTrail(auditor, clock)
        self._clock = clock
        deferring.handle(KIND, self._reconcile)

    @property
    def is_offered(self) -> bool:
        return self._offers.allows("provisional_session")

    async def earlier(self, value: str) -> Session | None:
        """Give the session of a browser that could be carried further; None where there is none, or no need.

        Raises StoreUnavailable.
        """
        session = await self._sessions.find(value) if value and self.is_offered else None
        if session is None or session.provisional or session.requires_reauth:
            return None
        return session if session.expires_s - self._clock.wall_s() < PROVISIONAL_S else None

    async def begin(self, value: str, *, caller: Caller = NOBODY) -> Begun | None:
        """Begin a provisional session for who has a session that ends soon; None where nothing proves that.

        The earlier one ends by itself. Raises NotOffered, StoreUnavailable, AlreadyExists.
        """
        self._offers.check("provisional_session")
        earlier = await self.earlier(value)
        if earlier is None:
            self._trail.tell("session.provisional", "refused", caller=caller, reason="no_proof")
            return None
        subject, name = earlier.subject, new_name()
        body = {"tenant": subject.tenant, "user": subject.id, "at_s": self._clock.wall_s()}
        await self._deferring.put(KIND, f"{KIND}:{name}", body)
        proof = Proof(
            amr=earlier.amr,
            acr=ONE_FACTOR,
            requires_reauth=True,
            provisional=True,
            proved_s=earlier.authenticated_s,
        )
        kept = {key: text for key, text in earlier.attributes.items() if key != SCOPE}
        begun = await self._sessions.begin(subject, proof, attributes={**kept, NAME: name}, caller=caller)
        self._trail.tell(
            "session.provisional",
            "degraded",
            caller=caller,
            tenant=subject.tenant,
            actor=subject.id,
            target=subject.id,
            degradation_level=self._offers.level,
        )
        return begun

    # -- when the directory is back -----------------------------------------------------------------------------------

    async def _reconcile(self, job: Job) -> None:
        subject = Subject(str(job.body["tenant"]), str(job.body["user"]))
        name = job.key.partition(":")[2]
        found = next((s for s in await self._sessions.list_of(subject) if s.attributes.get(NAME) == name), None)
        if found is None:
            if self._clock.wall_s() - float(job.body["at_s"]) < BEGUN_WITHIN_S:
                raise StoreUnavailable("the session may not have begun yet")
            return
        reason = await self._fault_of(found)
        if reason:
            await self._sessions.end_hash(found.id_hash, reason=reason)
        elif found.provisional and not await self._sessions.settle(found):
            raise StoreUnavailable("the session changed meanwhile")
        self._tell(job.key, subject, reason)

    async def _fault_of(self, session: Session) -> str:
        """Say why a session should not have been given, "" where it may go on."""
        subject = session.subject
        user = await self._directory.get_user(subject.tenant, subject.id)
        if user is None or not user.active:
            return "unknown_user" if user is None else "inactive"
        password = await self._directory.get_password(subject.id)
        if password is not None and password.changed_s > session.authenticated_s:
            return "password_changed"
        return ""

    def _tell(self, key: str, subject: Subject, reason: str) -> None:
        event = AuditEvent(
            id=hashlib.sha256(key.encode()).hexdigest()[:32],  # the same when it is done again: recorded once
            at_s=self._clock.wall_s(),
            action="session.reconcile",
            outcome="refused" if reason else "success",
            tenant=subject.tenant,
            actor=subject.id,
            target=subject.id,
            reason=reason,
        )
        self._auditor.tell(event)
