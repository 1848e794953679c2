"""What a schema declares, in the form that checking asks for: types of attributes, hierarchies, kinds of requests."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Final

from gateway._native.uid import EntityUid
from gateway.policy.schema.model import ActionDeclaration, Schema
from gateway.policy.validator.hints import Words
from gateway.policy.validator.types import (
    Entity,
    Field,
    Mismatch,
    Record,
    Type,
    from_schema,
    least_upper_bound,
    record_from_schema,
)

_NO_FIELDS: Final = Record({})
_WORDS_KEPT_MAX: Final = 1_000  # records whose names are ready for hints


@dataclass(frozen=True, slots=True, eq=False)
class Environment:
    """One kind of request that the schema allows: an action, with types of its principal and resource."""

    principal: Entity
    action: EntityUid
    action_type: Entity
    resource: Entity
    context: Record  # the same object for contexts that are the same
    principal_name: str
    resource_name: str


def is_action_type(name: str) -> bool:
    """Tell whether a type of this name is one of actions: `Action`, or `Action` in a namespace."""
    return name == "Action" or name.endswith("::Action")


class Declared:
    """A schema, indexed. Attribute types are translated when they are first asked for."""

    def __init__(self, schema: Schema) -> None:
        self.schema = schema
        self._entities: dict[frozenset[str], Entity] = {}
        self._attributes: dict[frozenset[str], Record] = {}
        self._tags: dict[str, Type | None] = {}
        self._words: dict[int, tuple[Record, Words]] = {}  # the record is held, as it is known by its address

    # --- types

    def entity(self, name: str) -> Entity:
        """Give the type of references to entities of one type."""
        names = frozenset((name,))
        found = self._entities.get(names)
        if found is None:
            found = self._entities[names] = Entity(names)
        return found

    def literal(self, uid: EntityUid) -> Entity | None:
        """Give the type of an entity that a policy names, None if its type, or the action, is not declared."""
        is_declared = uid in self.schema.actions if is_action_type(uid.type) else uid.type in self.schema.entities
        return self.entity(uid.type) if is_declared else None

    def attributes(self, kind: Entity) -> Record:
        """Give what is known of the attributes of an entity of one of several types."""
        found = self._attributes.get(kind.names)
        if found is None:
            found = self._attributes[kind.names] = self._find_attributes(kind.names)
        return found

    def _find_attributes(self, names: frozenset[str]) -> Record:
        first, *others = sorted(names)
        if not others:
            declaration = self.schema.entities.get(first)  # actions have none
            return _NO_FIELDS if declaration is None else record_from_schema(declaration.attributes)
        bound: Type | Mismatch = self.attributes(self.entity(first))
        for name in others:
            assert isinstance(bound, Record)  # permissive bounds of records always exist
            bound = least_upper_bound(bound, self.attributes(self.entity(name)), strict=False)
        assert isinstance(bound, Record)
        return bound

    def field(self, of: Entity | Record, name: str) -> Field | None:
        """Give the type of an attribute, None if it is not there or nothing is known of it."""
        return (of if isinstance(of, Record) else self.attributes(of)).fields.get(name)

    def may_have(self, of: Entity | Record, name: str) -> bool:
        """Tell whether a value may have the attribute; True is not to say that `field` knows its type."""
        if isinstance(of, Record):
            return of.is_open or name in of.fields
        return any(name in self.attributes(self.entity(each)).fields for each in of.names)

    def tags(self, kind: Entity) -> list[Type]:
        """Give the types that a tag may have: one for each entity type that has tags."""
        found = []
        for name in sorted(kind.names):
            if name not in self._tags:
                declaration = self.schema.entities.get(name)
                has_tags = declaration is not None and declaration.tags is not None
                self._tags[name] = from_schema(declaration.tags) if has_tags else None  # type: ignore[union-attr, arg-type]
            if (declared := self._tags[name]) is not None:
                found.append(declared)
        return found

    # --- hints

    @cached_property
    def entity_words(self) -> Words:
        """Names of entity types, for hints."""
        return Words(self.schema.entities)

    @cached_property
    def actions_by_id(self) -> dict[str, list[EntityUid]]:
        """Actions by their ids, which several namespaces may use."""
        found: dict[str, list[EntityUid]] = {}
        for uid in self.schema.actions:
            found.setdefault(uid.id, []).append(uid)
        return found

    @cached_property
    def action_words(self) -> Words:
        """Ids of actions, for hints."""
        return Words(self.actions_by_id)

    def attribute_words(self, of: Entity | Record) -> Words:
        """Names of attributes, for hints."""
        record = of if isinstance(of, Record) else self.attributes(of)
        if len(self._words) >= _WORDS_KEPT_MAX:
            self._words.clear()
        kept = self._words.setdefault(id(record), (record, Words(record.fields)))
        return kept[1]

    # --- hierarchies

    def may_be_in(self, name: str, container: str) -> bool:
        """Tell whether some entity of the type `name` can be in one of the type `container`."""
        if name == container:
            return True
        declaration = self.schema.entities.get(name)
        if declaration is not None:
            return container in declaration.ancestors
        return (name, container) in self._action_types_in

    @cached_property
    def _action_types_in(self) -> frozenset[tuple[str, str]]:
        """(type of an action, type of a group that it is in), where they differ."""
        return frozenset(
            (uid.type, group.type)
            for uid, declaration in self.schema.actions.items()
            for group in declaration.ancestors
            if group.type != uid.type
        )

    def is_action_in(self, action: EntityUid, group: EntityUid) -> bool:
        """Tell whether a declared action is this group, or in it."""
        return action == group or group in self.schema.actions[action].ancestors

    # --- requests

    @cached_property
    def _environments_by_action(self) -> dict[EntityUid, tuple[Environment, ...]]:
        contexts: dict[str, Record] = {}
        return {
            uid: tuple(self._environments_for(uid, declaration, contexts))
            for uid, declaration in self.schema.actions.items()
        }

    @cached_property
    def environments(self) -> tuple[Environment, ...]:
        """Every kind of request that the schema allows."""
        return tuple(each for found in self._environments_by_action.values() for each in found)

    def environments_of(self, action: EntityUid) -> tuple[Environment, ...]:
        """Give those of one action; none if it is not declared, or a mere group."""
        return self._environments_by_action.get(action, ())

    def _environments_for(
        self, uid: EntityUid, declaration: ActionDeclaration, contexts: dict[str, Record]
    ) -> Iterator[Environment]:
        key = repr(declaration.context)
        context = contexts.get(key)
        if context is None:
            context = contexts[key] = record_from_schema(declaration.context)
        kind = self.entity(uid.type)
        for principal in sorted(declaration.principals):
            for resource in sorted(declaration.resources):
                yield Environment(
                    self.entity(principal), uid, kind, self.entity(resource), context, principal, resource
                )
