"""Entities of a source, kept as rows: the uid is the key, the body the value."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from typing import Final

from gateway._native.uid import EntityUid
from gateway.stores.attributes import (
    AttributeBatch,
    AttributeChanges,
    AttributePage,
    can_be_kept,
    check_read,
    check_write,
)
from gateway.stores.base import Revision
from gateway.stores.rows import LOG_KEPT_S, Key, RowLayout, RowStore, Value

LAYOUT: Final = RowLayout("entity", "entities", ("type", "id"), expires=False)


class RowAttributeSource:
    """A FollowedSource over any RowStore of LAYOUT, which it owns."""

    def __init__(self, rows: RowStore, name: str) -> None:
        self.name = name
        self._rows = rows

    @property
    def shared(self) -> str:
        return self._rows.shared

    async def read(self, uids: Sequence[EntityUid]) -> AttributeBatch:
        check_read(uids)
        found = await self._rows.read([_key(uid) for uid in dict.fromkeys(uids) if can_be_kept(uid)])
        return AttributeBatch({_uid(key): _body(value) for key, value in found.rows.items()}, found.revision)

    async def write(self, upserts: Sequence[tuple[EntityUid, bytes]], removals: Sequence[EntityUid] = ()) -> Revision:
        check_write(upserts, removals)
        puts = [(_key(uid), body.decode()) for uid, body in upserts]
        return await self._rows.write(puts, [_key(uid) for uid in removals])

    async def read_after(self, revision: Revision, limit: int) -> AttributeChanges:
        batch = await self._rows.read_after(revision, limit)
        uids = []
        for change in batch.changes:
            with suppress(ValueError):
                uids.append(_uid(change.key))
        damaged = batch.damaged + len(batch.changes) - len(uids)
        return AttributeChanges(tuple(uids), batch.revision, batch.more, batch.lost, damaged)

    async def read_all(self, cursor: str, limit: int) -> AttributePage:
        page = await self._rows.read_all(cursor, limit)
        entities = []
        for key, value in page.rows:
            with suppress(ValueError):
                entities.append((_uid(key), _body(value)))
        damaged = page.damaged + len(page.rows) - len(entities)
        return AttributePage(tuple(entities), page.revision, page.cursor, damaged)

    async def wait(self, revision: Revision, timeout_s: float) -> None:
        await self._rows.wait(revision, timeout_s)

    async def purge(self, now_s: float, log_kept_s: float = LOG_KEPT_S) -> int:
        return await self._rows.purge(now_s, log_kept_s)

    async def close(self) -> None:
        await self._rows.close()


def _key(uid: EntityUid) -> Key:
    return uid.type, uid.id


def _uid(key: Key) -> EntityUid:
    kind, identifier = key
    return EntityUid(kind, identifier)


def _body(value: Value) -> bytes:
    if not isinstance(value, str):
        raise ValueError("an entity without a body")
    return value.encode()
