"""Clients, grants and refresh families as records of one kind, told apart by their keys."""

from __future__ import annotations

import hashlib
import hmac
import logging
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, Final

import msgspec

from gateway.errors import AlreadyExists, StoreUnavailable, VersionConflict
from gateway.stores.grants import (
    BODY_BYTES_MAX,
    LIFETIME_S_MAX,
    LISTED_MAX,
    Client,
    Grant,
    GrantKind,
    RefreshFamily,
    Rotation,
    Taken,
)
from gateway.stores.pools import PoolState
from gateway.stores.records import TIME_S_MAX, Record, RecordKind, RecordStore
from gateway.types import Clock, Subject

logger = logging.getLogger(__name__)

KIND: Final = RecordKind("grant")
HASH_BYTES: Final = 32
ATTEMPTS: Final = 8  # of a rotation; each means that somebody else was faster


class _Subject(msgspec.Struct, array_like=True, frozen=True):
    tenant: str
    id: str
    is_client: bool


class _Client(msgspec.Struct, array_like=True, frozen=True):
    """New fields of these structs come last and have a default: other versions read them too."""

    tenant: str
    client_id: str
    name: str
    secret_hashes: tuple[bytes, ...]
    redirect_uris: tuple[str, ...]
    grant_types: tuple[str, ...]
    scopes: tuple[str, ...]
    auth_method: str
    active: bool
    metadata: dict[str, Any]
    created_s: float


class _Grant(msgspec.Struct, array_like=True, frozen=True):
    kind: GrantKind
    tenant: str
    subject: _Subject | None
    client_id: str
    session: bytes
    family: str
    body: dict[str, Any]


class _Family(msgspec.Struct, array_like=True, frozen=True):
    id: str
    tenant: str
    subject: _Subject
    client_id: str
    current: bytes
    previous: bytes
    rotated_s: float
    generation: int
    sealed: bytes
    session: bytes
    code: bytes
    scopes: tuple[str, ...]
    resources: tuple[str, ...]
    authenticated_s: int
    created_s: float
    body: dict[str, Any]


_encode = msgspec.msgpack.Encoder().encode
_decode_client = msgspec.msgpack.Decoder(_Client).decode
_decode_grant = msgspec.msgpack.Decoder(_Grant).decode
_decode_family = msgspec.msgpack.Decoder(_Family).decode


class RecordTokenStore:
    """The laws of the token store, in terms of those of records."""

    def __init__(self, records: RecordStore, clock: Clock) -> None:
        self._records = records
        self._clock = clock

    @property
    def shared(self) -> str:
        return self._records.shared

    def pools(self) -> Sequence[PoolState]:
        return self._records.pools()

    # -- clients

    async def add_client(self, client: Client) -> None:
        record = _client_record(replace(client, version=1))
        if not await self._records.create(record, (_text_tag("clients", client.tenant),)):
            raise AlreadyExists(f"there is, or was, a client `{client.client_id}`", field="client_id")

    async def get_client(self, tenant: str, client_id: str) -> Client | None:
        record = await self._get(_client_key(tenant, client_id))
        return None if record is None else _client(record)

    async def change_client(self, client: Client, version: int) -> Client | None:
        kept = replace(client, version=version + 1)
        if await self._records.swap(_client_record(kept), version, (_text_tag("clients", client.tenant),)):
            return kept
        held = await self.get_client(client.tenant, client.client_id)
        if held is None:
            return None
        raise VersionConflict(f"the client is of version {held.version}, not {version}")

    async def remove_client(self, tenant: str, client_id: str) -> bool:
        burial = await self._records.bury(_client_key(tenant, client_id), TIME_S_MAX)
        if burial.found in ("live", "buried"):  # once more where an earlier call ended in between
            await self.revoke_client(tenant, client_id)
        return burial.found == "live"

    async def list_clients(self, tenant: str) -> Sequence[Client]:
        found = [_client(record) for record in await self._records.find(_text_tag("clients", tenant), LISTED_MAX)]
        return sorted(found, key=lambda client: client.client_id)

    # -- grants

    async def keep(self, grant: Grant) -> None:
        self._check_end(grant.expires_s)
        if not await self._records.create(_grant_record(grant), _grant_tags(grant), _begun_s(grant)):
            raise AlreadyExists(f"this {grant.kind.replace('_', ' ')} was used before, or is revoked", field="key")

    async def look(self, kind: GrantKind, key: bytes) -> Grant | None:
        record = await self._get(_grant_key(kind, key))
        return None if record is None else _grant(record)

    async def change(self, grant: Grant, version: int) -> bool:
        self._check_end(grant.expires_s)
        return await self._records.swap(_grant_record(grant), version, _grant_tags(grant))

    async def take(self, kind: GrantKind, key: bytes) -> Taken:
        burial = await self._records.bury(_grant_key(kind, key), 1)
        record = burial.record
        if record is None or self._is_over(record):
            return Taken("absent")
        return Taken("spent") if record.buried else Taken("first", _grant(record))

    # -- refresh tokens

    async def add_family(self, family: RefreshFamily) -> None:
        self._check_end(family.expires_s)
        if not await self._records.create(_family_record(family), _family_tags(family), family.authenticated_s):
            raise AlreadyExists("there was a family of this id, or what it rests on is revoked", field="id")

    async def get_family(self, family_id: str) -> RefreshFamily | None:
        record = await self._get(_family_key(family_id))
        return None if record is None else _family(record)

    async def families_of(self, subject: Subject) -> Sequence[RefreshFamily]:
        found = await self._records.find(_subject_tag(subject), LISTED_MAX)
        return [_family(record) for record in found if record.key.startswith(b"family:") and not self._is_over(record)]

    async def rotate(
        self,
        family_id: str,
        presented: bytes,
        successor: bytes,
        now_s: float,
        *,
        grace_s: float = 0.0,
        sealed: bytes = b"",
        body: Mapping[str, Any] | None = None,
    ) -> Rotation:
        _check_hash(successor)
        for _ in range(ATTEMPTS):
            record = (await self._records.get((_family_key(family_id),))).get(_family_key(family_id))
            if record is None or record.buried or self._is_over(record, now_s):
                return Rotation("unknown")
            held = _family(record)
            replaced = hmac.compare_digest(held.previous, presented)
            if replaced and held.rotated_s == now_s and hmac.compare_digest(held.current, successor):
                return Rotation("rotated", held)  # this very call, made again because its answer was lost
            if not hmac.compare_digest(held.current, presented):
                if replaced and grace_s > 0 and now_s < held.rotated_s + grace_s:
                    return Rotation("grace", held)
                # Whoever names the family had a token of it: what is neither the current nor the former one is older.
                await self.revoke_family(family_id)
                return Rotation("reused", held)
            kept = replace(
                held,
                current=successor,
                previous=presented,
                rotated_s=now_s,
                generation=held.generation + 1,
                sealed=sealed,
                body=held.body if body is None else body,
                version=held.version + 1,
            )
            if await self._records.swap(replace(_family_record(kept), seen_s=int(now_s)), held.version):
                return Rotation("rotated", kept)
        raise StoreUnavailable("a refresh found no moment in which nobody else refreshed")

    # -- ending

    async def revoke_family(self, family_id: str) -> bool:
        burial = await self._records.bury(_family_key(family_id), 1)
        await self._records.bury_all(_text_tag("family", family_id), 0, self._far_s())
        return burial.found == "live"

    async def revoke_subject(self, subject: Subject, before_s: int) -> int:
        return await self._records.bury_all(_subject_tag(subject), before_s, self._far_s())

    async def revoke_client(self, tenant: str, client_id: str) -> int:
        return await self._records.bury_all(_client_tag(tenant, client_id), 0, self._far_s())

    async def revoke_session(self, session: bytes) -> int:
        return await self._records.bury_all(f"session:{session.hex()}", 0, self._far_s())

    async def revoke_code(self, code: bytes) -> int:
        return await self._records.bury_all(f"code:{code.hex()}", self._far_s(), self._far_s())

    async def purge(self, now_s: float) -> int:
        return await self._records.purge(now_s)

    async def close(self) -> None:
        await self._records.close()

    # --

    async def _get(self, key: bytes) -> Record | None:
        record = (await self._records.get((key,))).get(key)
        return None if record is None or record.buried or self._is_over(record) else record

    def _is_over(self, record: Record, now_s: float | None = None) -> bool:
        now_s = self._clock.wall_s() if now_s is None else now_s
        idle = record.idle_s and not record.buried and now_s >= record.seen_s + record.idle_s
        return now_s >= record.expires_s or bool(idle)

    def _check_end(self, expires_s: int) -> None:
        if expires_s > self._far_s():
            raise ValueError(f"what is given lives for at most {LIFETIME_S_MAX} s")

    def _far_s(self) -> int:
        return int(self._clock.wall_s()) + LIFETIME_S_MAX


# -- keys and tags


def _client_key(tenant: str, client_id: str) -> bytes:
    return b"client:" + hashlib.sha256(f"{len(tenant)}:{tenant}:{client_id}".encode()).digest()


def _grant_key(kind: GrantKind, key: bytes) -> bytes:
    _check_hash(key)
    return kind.encode() + b":" + key


def _family_key(family_id: str) -> bytes:
    return b"family:" + hashlib.sha256(family_id.encode()).digest()


def _subject_tag(subject: Subject) -> str:
    return f"{subject.kind}:{len(subject.tenant)}:{subject.tenant}:{subject.id}"


def _client_tag(tenant: str, client_id: str) -> str:
    return f"given:{len(tenant)}:{tenant}:{client_id}"


def _text_tag(kind: str, text: str) -> str:
    return f"{kind}:{text}"


def _grant_tags(grant: Grant) -> list[str]:
    tags = []
    if grant.subject is not None:
        tags.append(_subject_tag(grant.subject))
    if grant.client_id:
        tags.append(_client_tag(grant.tenant, grant.client_id))
    if grant.session:
        tags.append(f"session:{grant.session.hex()}")
    if grant.family:
        tags.append(_text_tag("family", grant.family))
    return tags


def _family_tags(family: RefreshFamily) -> list[str]:
    tags = [_subject_tag(family.subject), _client_tag(family.tenant, family.client_id)]
    if family.session:
        tags.append(f"session:{family.session.hex()}")
    if family.code:
        tags.append(f"code:{family.code.hex()}")
    return tags


def _begun_s(grant: Grant) -> int | None:
    """Return when the proof was given on which a grant rests; None where it rests on none."""
    begun_s = grant.body.get("authenticated_s")
    return int(begun_s) if isinstance(begun_s, int | float) else None


# -- records


def _client_record(client: Client) -> Record:
    body = _Client(
        client.tenant,
        client.client_id,
        client.name,
        client.secret_hashes,
        client.redirect_uris,
        client.grant_types,
        client.scopes,
        client.auth_method,
        client.active,
        dict(client.metadata),
        client.created_s,
    )
    return Record(_client_key(client.tenant, client.client_id), client.version, _encoded(body), TIME_S_MAX)


def _client(record: Record) -> Client:
    body = _read(_decode_client, record)
    return Client(
        tenant=body.tenant,
        client_id=body.client_id,
        name=body.name,
        secret_hashes=body.secret_hashes,
        redirect_uris=body.redirect_uris,
        grant_types=body.grant_types,
        scopes=body.scopes,
        auth_method=body.auth_method,
        active=body.active,
        metadata=body.metadata,
        created_s=body.created_s,
        version=record.version,
    )


def _grant_record(grant: Grant) -> Record:
    subject = None if grant.subject is None else _spelled(grant.subject)
    body = _Grant(grant.kind, grant.tenant, subject, grant.client_id, grant.session, grant.family, dict(grant.body))
    return Record(_grant_key(grant.kind, grant.key), grant.version, _encoded(body), grant.expires_s)


def _grant(record: Record) -> Grant:
    body = _read(_decode_grant, record)
    return Grant(
        kind=body.kind,
        key=record.key[-HASH_BYTES:],
        tenant=body.tenant,
        expires_s=record.expires_s,
        subject=None if body.subject is None else _subject(body.subject),
        client_id=body.client_id,
        session=body.session,
        family=body.family,
        body=body.body,
        version=record.version,
    )


def _family_record(family: RefreshFamily) -> Record:
    _check_hash(family.current)
    body = _Family(
        family.id,
        family.tenant,
        _spelled(family.subject),
        family.client_id,
        family.current,
        family.previous,
        family.rotated_s,
        family.generation,
        family.sealed,
        family.session,
        family.code,
        family.scopes,
        family.resources,
        family.authenticated_s,
        family.created_s,
        dict(family.body),
    )
    seen_s = int(max(family.created_s, family.rotated_s))
    key = _family_key(family.id)
    return Record(key, family.version, _encoded(body), family.expires_s, seen_s, family.idle_timeout_s)


def _family(record: Record) -> RefreshFamily:
    body = _read(_decode_family, record)
    return RefreshFamily(
        id=body.id,
        tenant=body.tenant,
        subject=_subject(body.subject),
        client_id=body.client_id,
        current=body.current,
        previous=body.previous,
        rotated_s=body.rotated_s,
        generation=body.generation,
        sealed=body.sealed,
        session=body.session,
        code=body.code,
        scopes=body.scopes,
        resources=body.resources,
        authenticated_s=body.authenticated_s,
        created_s=body.created_s,
        expires_s=record.expires_s,
        idle_timeout_s=record.idle_s,
        body=body.body,
        version=record.version,
    )


def _spelled(subject: Subject) -> _Subject:
    return _Subject(subject.tenant, subject.id, subject.kind == "client")


def _subject(said: _Subject) -> Subject:
    return Subject(said.tenant, said.id, "client" if said.is_client else "user")


def _encoded(body: msgspec.Struct) -> bytes:
    try:
        spelled = _encode(body)
    except (TypeError, ValueError, OverflowError) as error:
        raise ValueError("what is kept with a grant is JSON, or bytes") from error
    if len(spelled) > BODY_BYTES_MAX:
        raise ValueError(f"what is kept with a grant has at most {BODY_BYTES_MAX} bytes")
    return spelled


def _read(decode: Any, record: Record) -> Any:
    try:
        return decode(record.body)
    except msgspec.MsgspecError as error:
        raise StoreUnavailable("a grant in the store cannot be read") from error


def _check_hash(key: bytes) -> None:
    if len(key) != HASH_BYTES:
        raise ValueError("grants are kept under SHA-256 hashes")
