"""Entities in plain dicts: closures are walked anew for every question."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from gateway._native.uid import EntityUid

Upsert = tuple[EntityUid, dict[str, Any], list[EntityUid], dict[str, Any] | None]
Move = tuple[EntityUid, list[EntityUid], list[EntityUid]]  # parents that are added, and taken out


class Refused(ValueError):
    """What the native store refuses with a ValueError."""


def frozen(value: Any) -> Any:
    """Give a value in a form that is equal only to what Cedar calls equal: kinds apart, sets without order."""
    if isinstance(value, (list, tuple, set, frozenset)):
        return "set", frozenset(frozen(item) for item in value)
    if isinstance(value, Mapping):
        return "record", frozenset((name, frozen(item)) for name, item in value.items())
    return type(value).__name__, value


def mentioned(value: Any) -> Iterator[EntityUid]:
    """Yield the entities that a value names."""
    if isinstance(value, EntityUid):
        yield value
    elif isinstance(value, Mapping):
        for item in value.values():
            yield from mentioned(item)
    elif isinstance(value, (list, tuple, set, frozenset)):
        for item in value:
            yield from mentioned(item)


class Store:
    """What is defined, and when each entity that is defined or named changed last."""

    def __init__(self, walked: Iterable[str] = ()) -> None:
        self.walked = frozenset(walked)
        self.entities: dict[EntityUid, tuple[dict[str, Any], frozenset[EntityUid], dict[str, Any]]] = {}
        self.versions: dict[EntityUid, int] = {}
        self.revision = 0

    def apply(
        self, upserts: list[Upsert], deletes: list[EntityUid], moves: Sequence[Move] = (), *, cycles: str
    ) -> None:
        """Change all or nothing. Raises Refused."""
        new = dict(self.entities)
        moved = set()
        changed = set()
        for uid, attributes, parents, tags in upserts:
            if uid.type in self.walked and any(parent.type not in self.walked for parent in parents):
                raise Refused("a closed parent of a walked entity")
            moved |= {uid} if frozenset(parents) != self._parents(new, uid) else set()
            changed.add(uid)
            new[uid] = attributes, frozenset(parents), tags or {}
        for uid in deletes:
            moved |= {uid} if self._parents(new, uid) else set()
            changed.add(uid)
            new.pop(uid, None)
        for uid, added, taken in moves:
            if uid.type in self.walked and any(parent.type not in self.walked for parent in added):
                raise Refused("a closed parent of a walked entity")
            if uid in changed:
                raise Refused("changed twice")
            changed.add(uid)
            own, had, own_tags = new.get(uid, ({}, frozenset(), {}))
            new[uid] = own, (had - {*taken}) | {*added}, own_tags
            moved |= {uid} if new[uid][1] != had else set()
        if cycles == "refuse" and any(uid in self._above(new, self._parents(new, uid)) for uid in changed):
            raise Refused("a cycle")
        self.entities = new
        self.revision += 1
        for uid in [*new, *self.named()]:
            if uid in changed or self._above(new, [uid]) & moved:
                self.versions[uid] = self.revision
        self.versions = {uid: self.versions.get(uid, 0) for uid in [*new, *self.named()]}

    def named(self) -> set[EntityUid]:
        """Give what the entities that are defined name: as parents, or in their values."""
        found: set[EntityUid] = set()
        for attributes, parents, tags in self.entities.values():
            found |= {*parents, *mentioned(attributes), *mentioned(tags)}
        return found

    @staticmethod
    def _parents(entities: Mapping[EntityUid, Any], uid: EntityUid) -> frozenset[EntityUid]:
        return entities[uid][1] if uid in entities else frozenset()

    @classmethod
    def _above(cls, entities: Mapping[EntityUid, Any], begin: Iterable[EntityUid]) -> set[EntityUid]:
        """Give `begin`, and all that these are in."""
        found: set[EntityUid] = set()
        waiting = list(begin)
        while waiting:
            uid = waiting.pop()
            if uid not in found:
                found.add(uid)
                waiting += cls._parents(entities, uid)
        return found

    def is_in(self, uid: EntityUid, container: EntityUid) -> bool:
        return container in self._above(self.entities, [uid])

    def ancestors(self, uid: EntityUid) -> set[EntityUid]:
        return self._above(self.entities, [uid]) - {uid}

    def descendants(self, uid: EntityUid) -> set[EntityUid]:
        return {other for other in self.entities if other != uid and self.is_in(other, uid)}

    def children(self, uid: EntityUid) -> set[EntityUid]:
        return {other for other, (_, parents, _) in self.entities.items() if uid in parents}
