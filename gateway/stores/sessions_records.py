"""Sessions as records: one kind of them, tagged with their subject and with the clients that were given tokens."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from types import MappingProxyType
from typing import Final

import msgspec

from gateway.errors import AlreadyExists
from gateway.stores.base import Revision
from gateway.stores.pools import PoolState
from gateway.stores.records import Record, RecordKind, RecordStore
from gateway.stores.sessions import LIFETIME_S_MAX, LISTED_MAX, SessionChange, SessionChanges
from gateway.types import Clock, Session, Subject

logger = logging.getLogger(__name__)

KIND: Final = RecordKind("session", logged=True)


class _Body(msgspec.Struct, array_like=True, frozen=True):
    """What is not in the record itself. New fields come last and have a default: other versions read it too."""

    tenant: str
    subject: str
    is_client: bool
    home_region: str
    created_s: int
    authenticated_s: int
    csrf_secret: bytes
    amr: tuple[str, ...]
    acr: str
    device_id: str
    requires_reauth: bool
    provisional: bool
    attributes: dict[str, str]


_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(_Body).decode


class RecordSessionStore:
    """The laws of sessions, in terms of those of records."""

    def __init__(self, records: RecordStore, clock: Clock) -> None:
        self._records = records
        self._clock = clock

    @property
    def shared(self) -> str:
        return self._records.shared

    def pools(self) -> Sequence[PoolState]:
        return self._records.pools()

    async def create(self, session: Session) -> None:
        _check_lifetime(session)
        tags = (_subject_tag(session.subject),)
        if not await self._records.create(_record(session), tags, session.authenticated_s):
            raise AlreadyExists("this id of a session is used up, or its subject was logged out", field="id")

    async def get(self, id_hash: bytes) -> Session | None:
        found = await self._records.get((id_hash,))
        return self._live(found.get(id_hash))

    async def touch(self, session: Session, now_s: float) -> Session | None:
        if session.ended(now_s):
            return None
        tags = (_subject_tag(session.subject),)
        return self._live(await self._records.touch(session.id_hash, int(now_s), tags))

    async def replace(self, session: Session, version: int) -> bool:
        _check_lifetime(session)
        return await self._records.swap(_record(session), version, (_subject_tag(session.subject),))

    async def rotate(self, old: Session, new: Session) -> bool:
        # The new one first: whoever ends all sessions of the subject meanwhile finds both.
        await self.create(new)
        burial = await self._records.bury(old.id_hash, old.expires_s, version=old.version)
        if burial.found == "live":
            return True
        await self._records.bury(new.id_hash, new.expires_s)
        return False

    async def join(self, id_hash: bytes, tenant: str, client_id: str) -> bool:
        now_s = int(self._clock.wall_s())
        return self._live(await self._records.touch(id_hash, now_s, (_client_tag(tenant, client_id),))) is not None

    async def revoke(self, id_hash: bytes) -> Session | None:
        burial = await self._records.bury(id_hash, 1)
        return self._live(burial.record) if burial.found == "live" else None

    async def revoke_subject(self, subject: Subject, before_s: int) -> int:
        return await self._records.bury_all(_subject_tag(subject), before_s, self._far_s())

    async def revoke_client(self, tenant: str, client_id: str) -> int:
        return await self._records.bury_all(_client_tag(tenant, client_id), 0, self._far_s())

    async def list_of(self, subject: Subject) -> Sequence[Session]:
        found = await self._records.find(_subject_tag(subject), LISTED_MAX)
        live = (self._live(record) for record in found)
        own = [session for session in live if session is not None and session.subject == subject]
        return sorted(own, key=lambda session: session.last_seen_s, reverse=True)

    async def apply(self, session: Session) -> bool:
        _check_lifetime(session)
        tags = (_subject_tag(session.subject),)
        return await self._records.merge(_record(session), tags, session.authenticated_s)

    async def apply_revoked(self, id_hash: bytes, version: int, expires_s: int) -> bool:
        burial = await self._records.bury(id_hash, expires_s, absent=True)
        return burial.found in ("live", "absent")

    async def read_after(self, revision: Revision, limit: int) -> SessionChanges:
        batch = await self._records.read_after(revision, limit)
        changes = tuple(SessionChange(change.key, change.version, change.buried) for change in batch.changes)
        return SessionChanges(changes, batch.revision, batch.more, batch.lost)

    async def wait(self, revision: Revision, timeout_s: float) -> None:
        await self._records.wait(revision, timeout_s)

    async def purge(self, now_s: float) -> int:
        return await self._records.purge(now_s)

    async def close(self) -> None:
        await self._records.close()

    def _live(self, record: Record | None) -> Session | None:
        """Return the session that a record holds, unless it is over. One that cannot be read is none."""
        if record is None or record.buried:
            return None
        try:
            session = _session(record)
        except (ValueError, msgspec.MsgspecError):
            logger.error("a session in the store cannot be read; whoever holds it has to log in anew")
            return None
        return None if session.ended(self._clock.wall_s()) else session

    def _far_s(self) -> int:
        """Until when a message about any session of today could come."""
        return int(self._clock.wall_s()) + LIFETIME_S_MAX


def _record(session: Session) -> Record:
    body = _Body(
        session.subject.tenant,
        session.subject.id,
        session.subject.kind == "client",
        session.home_region,
        session.created_s,
        session.authenticated_s,
        session.csrf_secret,
        session.amr,
        session.acr,
        session.device_id,
        session.requires_reauth,
        session.provisional,
        dict(session.attributes),
    )
    return Record(
        session.id_hash,
        session.version,
        _encode(body),
        session.expires_s,
        seen_s=session.last_seen_s,
        idle_s=session.idle_timeout_s,
    )


def _session(record: Record) -> Session:
    """Read a record. Raises ValueError or MsgspecError for one that holds no session."""
    body = _decode(record.body)
    return Session(
        id_hash=record.key,
        subject=Subject(body.tenant, body.subject, "client" if body.is_client else "user"),
        home_region=body.home_region,
        created_s=body.created_s,
        last_seen_s=record.seen_s,
        idle_timeout_s=record.idle_s,
        expires_s=record.expires_s,
        authenticated_s=body.authenticated_s,
        csrf_secret=body.csrf_secret,
        amr=body.amr,
        acr=body.acr,
        device_id=body.device_id,
        version=record.version,
        requires_reauth=body.requires_reauth,
        provisional=body.provisional,
        attributes=MappingProxyType(body.attributes),
    )


def _check_lifetime(session: Session) -> None:
    if session.expires_s - session.created_s > LIFETIME_S_MAX:
        raise ValueError(f"a session lives for at most {LIFETIME_S_MAX} s")


def _subject_tag(subject: Subject) -> str:
    return f"{subject.kind}:{len(subject.tenant)}:{subject.tenant}:{subject.id}"


def _client_tag(tenant: str, client_id: str) -> str:
    return f"given:{len(tenant)}:{tenant}:{client_id}"
