"""Who stands in a relation, found plainly: by following tuples, attributes and parents one after another."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from gateway._native.uid import EntityUid
from gateway.stores.relations import Relation, Userset

Rules = Mapping[tuple[str, str], tuple[str, ...]]  # (type, relation) -> what it inherits, as the schema spells it
Target = tuple[EntityUid, str]


class PlainRelations:
    """Tuples by key, and entities with their attributes and parents."""

    def __init__(self, rules: Rules) -> None:
        self.rules = rules
        self.held: dict[Any, Relation] = {}
        self.attributes: dict[EntityUid, dict[str, Any]] = {}
        self.parents: dict[EntityUid, set[EntityUid]] = {}

    def holds(self, now_s: float) -> list[Relation]:
        return [each for each in self.held.values() if each.expires_at_s is None or each.expires_at_s > now_s]

    def is_in(self, subject: EntityUid, object: EntityUid, relation: str, now_s: float) -> bool:
        """Tell whether the subject, or something that it is in, stands in the relation."""
        above = {subject}
        waiting = [subject]
        while waiting:
            for parent in self.parents.get(waiting.pop(), ()):
                if parent not in above:
                    above.add(parent)
                    waiting.append(parent)
        held = self.holds(now_s)
        seen: set[Target] = {(object, relation)}
        targets = [(object, relation)]
        while targets:
            object, relation = targets.pop()
            found: list[Target] = []
            for each in held:
                if (each.object, each.relation) == (object, relation):
                    if isinstance(each.subject, Userset):
                        found.append((each.subject.object, each.subject.relation))
                    elif each.subject in above:
                        return True
            for item in self.rules[object.type, relation]:
                via, dot, name = item.rpartition(".")
                sources = self._named(held, object, via) if dot else {object}
                found += [(source, name) for source in sources if (source.type, name) in self.rules]
            for target in found:
                if target[0].type and target not in seen and (target[0].type, target[1]) in self.rules:
                    seen.add(target)
                    targets.append(target)
        return False

    def _named(self, held: list[Relation], object: EntityUid, via: str) -> set[EntityUid]:
        if (object.type, via) in self.rules:
            return {
                each.subject
                for each in held
                if (each.object, each.relation) == (object, via) and isinstance(each.subject, EntityUid)
            }
        value = self.attributes.get(object, {}).get(via)
        return {value} if isinstance(value, EntityUid) else set(value or ())
