"""From names to what they stand for.

A name without namespace, in the namespace N, is the common type N::X, else the entity type N::X, else those of the
unnamed namespace, else what Cedar itself has. Nothing in a namespace may hide what the unnamed one declares (RFC 70).
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import partial
from graphlib import CycleError, TopologicalSorter
from typing import Final, NoReturn, TypeVar

from gateway._native.uid import EntityUid
from gateway.policy.schema import model
from gateway.policy.schema.limits import ANCESTORS_MAX, FAULTS_MAX, NESTING_MAX, TYPE_DEPTH_MAX, TYPE_PARTS_MAX
from gateway.policy.schema.raw import (
    Mark,
    RawAction,
    RawEntity,
    RawExtension,
    RawName,
    RawNamespace,
    RawRecord,
    RawReference,
    RawSet,
    RawType,
    action_uid,
    qualified,
)
from gateway.policy.schema.text import SchemaMisread

T = TypeVar("T")

EXTENSIONS: Final = ("ipaddr", "decimal", "datetime", "duration")
_BUILT_IN: Final[Mapping[str, model.Type]] = {
    "Bool": model.BoolType(),
    "Long": model.LongType(),
    "String": model.StringType(),
    **{name: model.ExtensionType(name) for name in EXTENSIONS},
}


class _Told(Exception):
    """What is wrong here is told elsewhere."""


class Resolver:
    """Resolves the namespaces of one schema, and collects what is wrong with them."""

    def __init__(self, namespaces: Iterable[RawNamespace]) -> None:
        self._spaces = {space.name: space for space in namespaces}
        self._entities = {
            qualified(space.name, name): (space, raw)
            for space in self._spaces.values()
            for name, raw in space.entities.items()
        }
        self._commons = {
            qualified(space.name, name): (space, raw)
            for space in self._spaces.values()
            for name, (raw, _) in space.commons.items()
        }
        self._actions = {
            action_uid(space.name, name): (space, raw)
            for space in self._spaces.values()
            for name, raw in space.actions.items()
        }
        # Actions have a type as well: attributes may refer to them, parents and `appliesTo` may not.
        self._action_types = {uid.type for uid in self._actions}
        self._resolved: dict[str, model.Type] = {}
        # By id: (the type, kept so that the id stays its own, its depth, its parts).
        self._measures: dict[int, tuple[model.Type, int, int]] = {}
        self.faults: list[SchemaMisread] = []

    def resolve(self) -> tuple[dict[str, model.EntityDeclaration], dict[EntityUid, model.ActionDeclaration]]:
        """Give entities and actions; what is wrong is in `faults` then."""
        self._check_names()
        for name in self._order():
            self._try(partial(self._common, name))
        entities = {}
        for name, (space, raw) in self._entities.items():
            made = self._try(partial(self._entity, name, space, raw))
            if made is not None:
                entities[name] = made
        actions = {}
        for uid, (space, raw_action) in self._actions.items():
            action = self._try(partial(self._action, uid, space, raw_action))
            if action is not None:
                actions[uid] = action
        if not self.faults:
            entities = self._try(lambda: _with_ancestors(entities)) or entities
            actions = self._try(lambda: self._with_groups(actions)) or actions
        return entities, actions

    def _try(self, work: Callable[[], T]) -> T | None:
        if len(self.faults) >= FAULTS_MAX:
            return None
        try:
            return work()
        except SchemaMisread as misread:
            self.faults.append(misread)
            return None
        except _Told:
            return None

    def _check_names(self) -> None:
        unnamed = self._spaces.get("")
        for space in self._spaces.values():
            if "__cedar" in space.name.split("::"):
                hint = "it belongs to the language; choose another name"
                self.faults.append(SchemaMisread("reserved_name", "`__cedar` is reserved", hint, space.mark))
            for name, raw in space.entities.items():
                if name == "Action":
                    self.faults.append(
                        SchemaMisread(
                            "reserved_name", "`Action` is the type of actions", "choose another name", raw.mark
                        )
                    )
            if unnamed is None or space is unnamed:
                continue
            taken = unnamed.entities.keys() | unnamed.commons.keys()
            marks = {name: raw.mark for name, raw in space.entities.items()}
            marks |= {name: mark for name, (_, mark) in space.commons.items()}
            for name in sorted(taken & marks.keys()):
                message = f"`{space.name}::{name}` hides `{name}` of the unnamed namespace"
                self.faults.append(SchemaMisread("shadowed_name", message, "choose another name", marks[name]))
            for name in sorted(unnamed.actions.keys() & space.actions.keys()):
                message = f"the action `{name}` hides that of the unnamed namespace"
                self.faults.append(
                    SchemaMisread("shadowed_name", message, "choose another name", space.actions[name].mark)
                )

    # --- types

    def _order(self) -> list[str]:
        """Give the common types, each behind those it names, so that resolving them never nests."""
        sorter: TopologicalSorter[str] = TopologicalSorter()
        for name, (space, raw) in self._commons.items():
            found = (self._common_name(each, space.name) for each in _names_in(raw))
            sorter.add(name, *(each for each in found if each is not None))
        try:
            return list(sorter.static_order())
        except CycleError as error:
            names: list[str] = error.args[1]
            space, _ = self._commons[names[0]]
            mark = space.commons[names[0].rpartition("::")[2]][1]
            way = " → ".join(reversed(names))
            self.faults.append(
                SchemaMisread("type_cycle", f"a type is made of itself: {way}", "break the circle", mark)
            )
            return []

    def _common_name(self, raw: RawName, space: str) -> str | None:
        if raw.entity_only:
            return None
        for name in _candidates(raw.name, space):
            if name in self._commons:
                return name
            if name in self._entities and not raw.common_only:
                return None
        return None

    def _common(self, name: str) -> model.Type:
        space, raw = self._commons[name]
        made = self._resolved[name] = self._type(raw, space.name)
        return made

    def _type(self, raw: RawType, space: str, depth: int = 0) -> model.Type:
        if depth > NESTING_MAX:
            raise SchemaMisread("too_deep", f"nested more than {NESTING_MAX} times", "", raw.mark)
        if isinstance(raw, RawSet):
            return self._measured(model.SetType(self._type(raw.element, space, depth + 1)), raw.mark)
        if isinstance(raw, RawRecord):
            attributes = {
                name: model.Attribute(
                    self._type(each.type, space, depth + 1), each.required, _annotations(each.annotations)
                )
                for name, each in raw.attributes.items()
            }
            return self._measured(model.RecordType(attributes), raw.mark)
        if isinstance(raw, RawExtension):
            if raw.name not in EXTENSIONS:
                raise SchemaMisread("unknown_type", f"no extension type `{raw.name}`", ", ".join(EXTENSIONS), raw.mark)
            return model.ExtensionType(raw.name)
        return self._named(raw, space)

    def _measured(self, made: model.SetType | model.RecordType, mark: Mark) -> model.Type:
        """Refuse a type that would be too deep or too large written out: small texts can say huge types."""
        inner = [made.element] if isinstance(made, model.SetType) else [each.type for each in made.attributes.values()]
        depth, parts = 1, 1
        for each in inner:
            _, inner_depth, inner_parts = self._measures.get(id(each), (each, 0, 1))
            depth = max(depth, inner_depth + 1)
            parts += inner_parts
        if depth > TYPE_DEPTH_MAX:
            message = f"nested more than {TYPE_DEPTH_MAX} times, its common types written out"
            raise SchemaMisread("too_deep", message, "no value can be nested so deep", mark)
        if parts > TYPE_PARTS_MAX:
            message = f"more than {TYPE_PARTS_MAX:,} parts, its common types written out"
            raise SchemaMisread("too_large", message, "put entities in the place of records", mark)
        self._measures[id(made)] = (made, depth, parts)
        return made

    def _named(self, raw: RawName, space: str) -> model.Type:
        for name in _candidates(raw.name, space):
            if name in self._commons and not raw.entity_only:
                if name not in self._resolved:  # it has a fault of its own, which is told already
                    raise _Told
                return self._resolved[name]
            if not raw.common_only and (name in self._entities or name in self._action_types):
                return model.EntityType(name)
        plain = raw.name.removeprefix("__cedar::")
        if plain in _BUILT_IN and not raw.entity_only:
            return _BUILT_IN[plain]
        self._unknown(raw, [*self._commons, *self._entities, *_BUILT_IN])

    def _entity_type(self, raw: RawName, space: str) -> str:
        for name in _candidates(raw.name, space):
            if name in self._entities:
                return name
        self._unknown(raw, self._entities)

    def _unknown(self, raw: RawName, known: Iterable[str]) -> NoReturn:
        near = difflib.get_close_matches(raw.name, list(known), n=1)
        hint = f"did you mean `{near[0]}`?" if near else "declare it, or write its namespace before it"
        raise SchemaMisread("unknown_type", f"undeclared type `{raw.name}`", hint, raw.mark)

    def _record(self, raw: RawType | None, space: str, what: str) -> model.RecordType:
        if raw is None:
            return model.RecordType()
        made = self._type(raw, space)
        if not isinstance(made, model.RecordType):
            raise SchemaMisread("no_record", f"{what} is no record", "write { … }, or name a record type", raw.mark)
        return made

    # --- declarations

    def _entity(self, name: str, space: RawNamespace, raw: RawEntity) -> model.EntityDeclaration:
        return model.EntityDeclaration(
            name,
            frozenset(self._entity_type(parent, space.name) for parent in raw.parents),
            frozenset(),
            self._record(raw.shape, space.name, f"what `{name}` has"),
            None if raw.tags is None else self._type(raw.tags, space.name),
            raw.choices,
            _annotations(raw.annotations),
        )

    def _action(self, uid: EntityUid, space: RawNamespace, raw: RawAction) -> model.ActionDeclaration:
        groups = frozenset(self._group(group, space.name) for group in raw.groups)
        applies = raw.applies_to
        if applies is None:
            return model.ActionDeclaration(uid, groups, annotations=_annotations(raw.annotations))
        return model.ActionDeclaration(
            uid,
            groups,
            frozenset(),
            frozenset(self._entity_type(each, space.name) for each in applies.principals),
            frozenset(self._entity_type(each, space.name) for each in applies.resources),
            self._record(applies.context, space.name, "the context"),
            _annotations(raw.annotations),
        )

    def _group(self, raw: RawReference, space: str) -> EntityUid:
        for kind in _candidates(raw.type or "Action", space):
            uid = EntityUid(kind, raw.id)
            if uid in self._actions:
                return uid
        near = difflib.get_close_matches(raw.id, [uid.id for uid in self._actions], n=1)
        hint = f"did you mean `{near[0]}`?" if near else "groups of actions are declared as actions"
        raise SchemaMisread("unknown_action", f"undeclared action `{raw.id}`", hint, raw.mark)

    def _with_groups(
        self, actions: dict[EntityUid, model.ActionDeclaration]
    ) -> dict[EntityUid, model.ActionDeclaration]:
        found = {}
        groups = _closures({uid: action.parents for uid, action in actions.items()})
        for uid, action in actions.items():
            above = groups[uid]
            if uid in above:
                mark = self._actions[uid][1].mark
                self.faults.append(
                    SchemaMisread("action_cycle", f"`{uid}` would be in itself", "break the circle", mark)
                )
            found[uid] = model.ActionDeclaration(
                uid, action.parents, above, action.principals, action.resources, action.context, action.annotations
            )
        return found


def _names_in(raw: RawType) -> Iterator[RawName]:
    waiting = [raw]
    while waiting:
        each = waiting.pop()
        if isinstance(each, RawName):
            yield each
        elif isinstance(each, RawSet):
            waiting.append(each.element)
        elif isinstance(each, RawRecord):
            waiting.extend(attribute.type for attribute in each.attributes.values())


def _with_ancestors(entities: dict[str, model.EntityDeclaration]) -> dict[str, model.EntityDeclaration]:
    above = _closures({name: each.parents for name, each in entities.items()})
    return {
        name: model.EntityDeclaration(
            name,
            each.parents,
            above[name],
            each.attributes,
            each.tags,
            each.choices,
            each.annotations,
        )
        for name, each in entities.items()
    }


def _closures(parents: Mapping[T, Iterable[T]]) -> dict[T, frozenset[T]]:
    """Give all that is above each; itself only by a cycle. Raises SchemaMisread where that is too much."""
    found: dict[T, frozenset[T]] = {}
    total = 0
    for start, direct in parents.items():
        above: set[T] = set()
        waiting = list(direct)
        while waiting:
            each = waiting.pop()
            if each not in above:
                above.add(each)
                waiting.extend(parents[each])
        found[start] = frozenset(above)
        total += len(above)
        if total > ANCESTORS_MAX:
            message = f"hierarchies of more than {ANCESTORS_MAX:,} pairs of a member and one above it"
            raise SchemaMisread("too_large", message, "make them flatter", Mark(0))
    return found


def _candidates(name: str, space: str) -> list[str]:
    if "::" in name or not space:
        return [name]
    return [f"{space}::{name}", name]


def _annotations(raw: Mapping[str, str | None]) -> dict[str, str]:
    return {name: value or "" for name, value in raw.items()}
