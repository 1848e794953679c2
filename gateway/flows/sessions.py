"""Sessions: begun when a credential was verified, known by a cookie, ended by time, their owner or an administrator.

The value of the cookie is `REGION_SECRETMAC`: the region that owns the session, 256 random bits, and a MAC over both,
so that nobody makes up a region, and junk is refused without asking a store. Stores know the value's SHA-256 alone. The
value changes with every proof that the user gives (login, step-up), so that one that was planted or seen before is
worth nothing afterwards.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import logging
import re
import secrets
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Final, Protocol

from gateway.errors import GatewayError
from gateway.flows.trail import NOBODY, AuditTrail, Caller
from gateway.stores.sessions import SessionStore
from gateway.types import SESSION_EPOCH, Clock, Secret, Session, Subject

_log = logging.getLogger("portcullis.sessions")

_VALUE: Final = re.compile(r"([a-z0-9][a-z0-9-]{0,15})_([a-z2-7]{52})([a-z2-7]{26})")
_SECRET_BYTES: Final = 32
_MAC_BYTES: Final = 16
KEY_BYTES_MIN: Final = 32
SHOWN_CHARACTERS: Final = 16  # of a session's hash, in the audit trail
TOUCH_SHARE: Final = 20  # a session is noted as seen once in this part of its idle time
TOUCH_S_MAX: Final = 60  # and at least this often
PROVISIONAL_S: Final = 900  # that a provisional session lasts
ORIGIN: Final = "origin"  # attribute: the hash of a session's first id, in hexadecimal, once it has another


@dataclass(frozen=True, slots=True)
class SessionLimits:
    """How long sessions last, in seconds."""

    idle_s: int = 30 * 60
    absolute_s: int = 12 * 3600


@dataclass(frozen=True, slots=True)
class SessionName:
    """What a cookie's value says once its MAC was checked."""

    region: str
    id_hash: bytes


class SessionNames:
    """Makes and reads the values of session cookies. All gateways that share sessions have the same key."""

    def __init__(self, region: str, key: Secret) -> None:
        """Raises ValueError for a region that cannot stand in a value, and for a short key."""
        if len(key.reveal()) < KEY_BYTES_MIN:
            raise ValueError(f"the key of session cookies has {KEY_BYTES_MIN} bytes at least")
        if not re.fullmatch(r"[a-z0-9][a-z0-9-]{0,15}", region):
            raise ValueError(f"`{region}` is no name of a region: up to 16 lower case letters, digits and `-`")
        self.region = region
        self._key = key

    def new(self) -> str:
        """Make a value that nobody can guess."""
        secret = _base32(secrets.token_bytes(_SECRET_BYTES))
        return f"{self.region}_{secret}{self._mac(self.region, secret)}"

    def read(self, value: str) -> SessionName | None:
        """Give what a value says, or None for one that none of us made."""
        match = _VALUE.fullmatch(value)
        if match is None:
            return None
        region, secret, mac = match.groups()
        if not hmac.compare_digest(mac, self._mac(region, secret)):
            return None
        return SessionName(region, hash_of(value))

    def _mac(self, region: str, secret: str) -> str:
        made = hmac.digest(self._key.reveal(), f"session\0{region}\0{secret}".encode(), "sha256")
        return _base32(made[:_MAC_BYTES])


def origin_of(session: Session) -> bytes:
    """Give what stays the same while a session goes on under other ids: the hash of its first one."""
    return bytes.fromhex(session.attributes.get(ORIGIN, "")) or session.id_hash


def hash_of(value: str) -> bytes:
    """Give what stores know a session by."""
    return hashlib.sha256(value.encode()).digest()


def _base32(data: bytes) -> str:
    return base64.b32encode(data).rstrip(b"=").decode().lower()


@contextmanager
def _noted(what: str) -> Iterator[None]:
    """Let a session be over although what hangs on it could not be ended: it is void, and ends when it is used."""
    try:
        yield
    except GatewayError as error:
        _log.error("%s was not ended at once: %s", what, error)


@dataclass(frozen=True, slots=True)
class Begun:
    """A session, and the value of the cookie by which its browser is known."""

    value: str
    session: Session


@dataclass(frozen=True, slots=True, kw_only=True)
class Proof:
    """What a user has just proved. `amr`: how (RFC 8176); `acr`: what that is worth."""

    amr: tuple[str, ...]
    acr: str = ""
    device_id: str = ""
    requires_reauth: bool = False
    provisional: bool = False
    proved_s: int = 0  # where it is provisional: when the earlier proof was given that it rests on


class GrantEnder(Protocol):
    """Ends what was granted to applications: the token service."""

    async def ended_session(self, session: Session) -> object:
        """End what was granted within a session that is over."""

    async def ended_subject(self, subject: Subject) -> object:
        """End everything that a subject has granted."""


class Sessions:
    """Begins, finds and ends sessions. Every method raises StoreUnavailable where the store cannot be asked."""

    def __init__(
        self,
        store: SessionStore,
        names: SessionNames,
        *,
        clock: Clock,
        trail: AuditTrail,
        limits: SessionLimits | None = None,
    ) -> None:
        self._store = store
        self._names = names
        self._clock = clock
        self._trail = trail
        self._limits = limits or SessionLimits()
        self.grants: GrantEnder | None = None
        """Hears of every session that ends here. What it cannot end at once ends at its next use (`find_by_origin`)."""

    async def begin(
        self,
        subject: Subject,
        proof: Proof,
        *,
        attributes: Mapping[str, str] | None = None,
        former: str = "",
        caller: Caller = NOBODY,
    ) -> Begun:
        """Begin a session for who has just proved to be `subject`; `former`, the browser's value until now, ends.

        One that is provisional lasts PROVISIONAL_S, and says when its user really proved something. Raises
        AlreadyExists where the subject was logged out everywhere meanwhile.
        """
        if former:
            await self.end(former, reason="replaced", caller=caller)
        value = self._names.new()
        session = self._made(value, subject, proof, attributes or {})
        if proof.provisional:
            expires_s = min(session.expires_s, session.created_s + PROVISIONAL_S)
            session = replace(session, expires_s=expires_s, authenticated_s=proof.proved_s)
        await self._store.create(session)
        self._told("session.begin", session, caller=caller, amr=" ".join(proof.amr))
        return Begun(value, session)

    async def find(self, value: str) -> Session | None:
        """Give the session of a cookie's value, and note that it was seen; None where it is over, or none of ours."""
        name = self._names.read(value)
        session = None if name is None else await self._store.get(name.id_hash)
        now_s = self._clock.wall_s()
        if session is None or session.ended(now_s):
            return None
        if self._is_due(session, now_s):
            return await self._store.touch(session, now_s)
        return session

    async def step_up(self, value: str, proof: Proof, *, caller: Caller = NOBODY) -> Begun | None:
        """Go on under a new value after another proof; None where the session is over, or was changed meanwhile.

        What was proved before is kept; it lasts as long as it would have.
        """
        old = await self.find(value)
        if old is None:
            return None
        fresh = self._names.new()
        now_s = int(self._clock.wall_s())
        new = replace(
            old,
            id_hash=hash_of(fresh),
            last_seen_s=now_s,
            authenticated_s=now_s,
            csrf_secret=secrets.token_bytes(32),
            amr=tuple(dict.fromkeys((*old.amr, *proof.amr))),
            acr=proof.acr or old.acr,
            device_id=proof.device_id or old.device_id,
            requires_reauth=proof.requires_reauth,
            provisional=proof.provisional,
            attributes={**old.attributes, ORIGIN: origin_of(old).hex()},
        )
        if not await self._store.rotate(old, new):
            return None
        self._told("session.step_up", new, caller=caller, amr=" ".join(proof.amr))
        return Begun(fresh, new)

    async def settle(self, session: Session) -> bool:
        """Let a provisional session be none any more; a credential is still to be verified. False where it changed."""
        return await self._store.replace(
            replace(session, provisional=False, version=session.version + 1), session.version
        )

    async def end(self, value: str, *, reason: str = "logout", caller: Caller = NOBODY) -> Session | None:
        """End a session; give it where it was this call that ended it."""
        name = self._names.read(value)
        return None if name is None else await self.end_hash(name.id_hash, reason=reason, caller=caller)

    async def end_hash(
        self, id_hash: bytes, *, reason: str, actor: str = "", caller: Caller = NOBODY
    ) -> Session | None:
        """End a session by what stores know it by: from a list of sessions, or for an administrator."""
        ended = await self._store.revoke(id_hash)
        if ended is not None:
            self._told("session.end", ended, actor=actor, reason=reason, caller=caller)
            if self.grants is not None:
                with _noted("what was granted in a session"):
                    await self.grants.ended_session(ended)
        return ended

    async def end_all(self, subject: Subject, *, reason: str, actor: str = "", caller: Caller = NOBODY) -> int:
        """Log a subject out everywhere; what was verified before now begins no session any more."""
        # Who was told of a session hears that it is over; one that begins meanwhile nobody was told of yet.
        live = () if self.grants is None else await self._store.list_of(subject)
        count = await self._store.revoke_subject(subject, int(self._clock.wall_s()) + 1)
        self._trail.tell(
            "session.end_all",
            "success",
            caller=caller,
            tenant=subject.tenant,
            actor=actor or subject.id,
            target=subject.id,
            reason=reason,
            sessions=count,
        )
        if self.grants is not None:
            for session in live:
                with _noted("what was granted in a session"):
                    await self.grants.ended_session(session)
            with _noted("what a subject has granted"):
                await self.grants.ended_subject(subject)
        return count

    async def join(self, session: Session, client_id: str) -> bool:
        """Note that a client is given tokens within a session. False where it is over."""
        return await self._store.join(session.id_hash, session.subject.tenant, client_id)

    async def find_by_origin(self, subject: Subject, origin: bytes) -> Session | None:
        """Give the session of a subject that began with this id, whatever its id is now; None where it is over."""
        return next((each for each in await self.list_of(subject) if origin_of(each) == origin), None)

    async def list_of(self, subject: Subject) -> Sequence[Session]:
        """Give the sessions of a subject that are not over, the latest first."""
        return await self._store.list_of(subject)

    def _made(self, value: str, subject: Subject, proof: Proof, attributes: Mapping[str, str]) -> Session:
        now_s = int(self._clock.wall_s())
        return Session(
            id_hash=hash_of(value),
            subject=subject,
            home_region=self._names.region,
            created_s=now_s,
            last_seen_s=now_s,
            idle_timeout_s=self._limits.idle_s,
            expires_s=now_s + self._limits.absolute_s,
            authenticated_s=now_s,
            csrf_secret=secrets.token_bytes(32),
            amr=proof.amr,
            acr=proof.acr,
            device_id=proof.device_id,
            version=SESSION_EPOCH + 1,
            requires_reauth=proof.requires_reauth,
            provisional=proof.provisional,
            attributes=attributes,
        )

    @staticmethod
    def _is_due(session: Session, now_s: float) -> bool:
        """Whether to note that a session was seen: not with each request, or a store would do nothing but write."""
        if not session.idle_timeout_s:
            return False
        return now_s - session.last_seen_s >= min(TOUCH_S_MAX, session.idle_timeout_s / TOUCH_SHARE)

    def _told(
        self,
        action: str,
        session: Session,
        *,
        caller: Caller,
        actor: str = "",
        reason: str = "",
        **details: str | int | bool,
    ) -> None:
        self._trail.tell(
            action,
            "degraded" if session.provisional else "success",
            caller=caller,
            tenant=session.subject.tenant,
            actor=actor or session.subject.id,
            target=session.id_hash.hex()[:SHOWN_CHARACTERS],
            reason=reason,
            **details,
        )
