"""Relations, kept as rows: who, in which relation and to what is the key; the value is when it expires."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from typing import Final

from gateway._native.uid import EntityUid
from gateway.stores.base import Revision
from gateway.stores.relations import Relation, RelationBatch, RelationChange, RelationPage, Userset
from gateway.stores.rows import LOG_KEPT_S, Key, RowLayout, RowStore, Value

LAYOUT: Final = RowLayout(
    "relation",
    "relations",
    # The last is "" where the subject is the entity itself.
    ("object_type", "object_id", "relation", "subject_type", "subject_id", "subject_relation"),
    expires=True,
)


class RowRelationStore:
    """A RelationStore over any RowStore of LAYOUT, which it owns."""

    def __init__(self, rows: RowStore) -> None:
        self._rows = rows

    @property
    def shared(self) -> str:
        return self._rows.shared

    async def write(self, adds: Sequence[Relation], removes: Sequence[Relation] = ()) -> Revision:
        puts = [(_key(relation), relation.expires_at_s) for relation in adds]
        return await self._rows.write(puts, [_key(relation) for relation in removes])

    async def read_after(self, revision: Revision, limit: int) -> RelationBatch:
        batch = await self._rows.read_after(revision, limit)
        changes = []
        for change in batch.changes:
            with suppress(ValueError):
                changes.append(RelationChange(_relation(change.key, change.value), change.removed))
        damaged = batch.damaged + len(batch.changes) - len(changes)
        return RelationBatch(tuple(changes), batch.revision, batch.more, batch.lost, damaged)

    async def read_all(self, cursor: str, limit: int) -> RelationPage:
        page = await self._rows.read_all(cursor, limit)
        relations = []
        for key, value in page.rows:
            with suppress(ValueError):
                relations.append(_relation(key, value))
        damaged = page.damaged + len(page.rows) - len(relations)
        return RelationPage(tuple(relations), page.revision, page.cursor, damaged)

    async def wait(self, revision: Revision, timeout_s: float) -> None:
        await self._rows.wait(revision, timeout_s)

    async def purge(self, now_s: float, log_kept_s: float = LOG_KEPT_S) -> int:
        return await self._rows.purge(now_s, log_kept_s)

    async def close(self) -> None:
        await self._rows.close()


def _key(relation: Relation) -> Key:
    subject, name = relation.subject, ""
    if isinstance(subject, Userset):
        name, subject = subject.relation, subject.object
    return relation.object.type, relation.object.id, relation.relation, subject.type, subject.id, name


def _relation(key: Key, expires_at_s: Value) -> Relation:
    """Read a row. Raises ValueError for what is no relation."""
    object_type, object_id, name, subject_type, subject_id, subject_name = key
    if isinstance(expires_at_s, str):
        raise ValueError("no time of expiry")
    subject = EntityUid(subject_type, subject_id)
    return Relation(
        EntityUid(object_type, object_id),
        name,
        Userset(subject, subject_name) if subject_name else subject,
        expires_at_s,
    )
