"""Entities of a schema with relations: they are written without, and read with what relations make of them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, Self

from gateway._native.uid import EntityUid
from gateway.policy.entities import Entities, Entity
from gateway.policy.faults import EntityError, Fault
from gateway.policy.relation_rules import RelationRules
from gateway.policy.relations import RelationGraph
from gateway.policy.schema import model
from gateway.types import Clock, SystemClock


class RelatedEntities(Entities):
    """Entities and the graph of their relations, in one store. All changes of entities go through the graph."""

    __slots__ = ("graph",)

    def __init__(self, graph: RelationGraph) -> None:
        """Take over the graph's store, with all that it has."""
        self.store = graph.store
        self.graph = graph
        self._held(graph.adopt)

    @classmethod
    def over(cls, entities: Entities, rules: RelationRules, *, clock: Clock | None = None) -> Self:
        """Let entities have relations. They were read with `rules.for_entities`; whoever holds them writes here now.

        Raises EntityError for entities that contain what relations make.
        """
        return cls(RelationGraph(rules, entities.store, clock=clock or SystemClock()))

    @classmethod
    def from_json(cls, data: str | bytes | Sequence[Any], *, schema: model.Schema | None = None) -> Self:
        """Read entities as `Entities.from_json` does; `schema` as it is written, with its relations."""
        if schema is None:
            return cls.over(Entities.from_json(data), RelationRules(model.Schema({}, {})))
        rules = RelationRules(schema)
        return cls.over(Entities.from_json(data, schema=rules.for_entities(schema)), rules)

    def change(self, upserts: Iterable[Entity], removals: Iterable[EntityUid]) -> int:
        made = [(each.uid, each.attributes, each.parents, each.tags) for each in upserts]
        self._held(lambda: self.graph.define(made, removals))
        return self.store.revision

    @staticmethod
    def _held(work: Any) -> None:
        try:
            work()
        except ValueError as error:
            cycle = "in itself" in str(error)
            code = "entity_cycle" if cycle else "relation_written" if "relations alone" in str(error) else "no_value"
            hint = "take one of them out of the circle" if cycle else ""
            raise EntityError([Fault(code, str(error), hint)]) from None
