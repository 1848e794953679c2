"""From names to what they stand for.

A name without namespace, in the namespace N, is the common type N::X, else the entity type N::X, else those of the
unnamed namespace, else what Cedar itself has. Nothing in a namespace may hide what the unnamed one declares (RFC 70).
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from typing import Final, NoReturn, TypeVar

from gateway._native.uid import EntityUid
from gateway.policy.schema import model
from gateway.policy.schema.limits import FAULTS_MAX, NESTING_MAX
from gateway.policy.schema.raw import (
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
        self._resolving: list[str] = []
        self.faults: list[SchemaMisread] = []

    def resolve(self) -> tuple[dict[str, model.EntityDeclaration], dict[EntityUid, model.ActionDeclaration]]:
        """Give entities and actions; what is wrong is in `faults` then."""
        self._check_names()
        for name in self._commons:
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
            entities = _with_ancestors(entities)
            actions = self._with_groups(actions)
        return entities, actions

    def _try(self, work: Callable[[], T]) -> T | None:
        if len(self.faults) >= FAULTS_MAX:
            return None
        try:
            return work()
        except SchemaMisread as misread:
            self.faults.append(misread)
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

    def _common(self, name: str) -> model.Type:
        if name not in self._resolved:
            space, raw = self._commons[name]
            if name in self._resolving:
                way = " → ".join([*self._resolving[self._resolving.index(name) :], name])
                mark = space.commons[name.rpartition("::")[2]][1]
                raise SchemaMisread("type_cycle", f"a type is made of itself: {way}", "break the circle", mark)
            self._resolving.append(name)
            try:
                self._resolved[name] = self._type(raw, space.name, len(self._resolving))
            finally:
                self._resolving.pop()
        return self._resolved[name]

    def _type(self, raw: RawType, space: str, depth: int = 0) -> model.Type:
        if depth > NESTING_MAX:
            raise SchemaMisread("too_deep", f"nested more than {NESTING_MAX} times", "", raw.mark)
        if isinstance(raw, RawSet):
            return model.SetType(self._type(raw.element, space, depth + 1))
        if isinstance(raw, RawRecord):
            return model.RecordType(
                {
                    name: model.Attribute(
                        self._type(each.type, space, depth + 1), each.required, _annotations(each.annotations)
                    )
                    for name, each in raw.attributes.items()
                }
            )
        if isinstance(raw, RawExtension):
            if raw.name not in EXTENSIONS:
                raise SchemaMisread("unknown_type", f"no extension type `{raw.name}`", ", ".join(EXTENSIONS), raw.mark)
            return model.ExtensionType(raw.name)
        return self._named(raw, space)

    def _named(self, raw: RawName, space: str) -> model.Type:
        for name in _candidates(raw.name, space):
            if name in self._commons and not raw.entity_only:
                return self._common(name)
            if name in self._entities or name in self._action_types:
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
        for uid, action in actions.items():
            above = _closure(uid, lambda each: actions[each].parents)
            if uid in above:
                mark = self._actions[uid][1].mark
                self.faults.append(
                    SchemaMisread("action_cycle", f"`{uid}` would be in itself", "break the circle", mark)
                )
            found[uid] = model.ActionDeclaration(
                uid, action.parents, above, action.principals, action.resources, action.context, action.annotations
            )
        return found


def _with_ancestors(entities: dict[str, model.EntityDeclaration]) -> dict[str, model.EntityDeclaration]:
    return {
        name: model.EntityDeclaration(
            name,
            each.parents,
            _closure(name, lambda other: entities[other].parents),
            each.attributes,
            each.tags,
            each.choices,
            each.annotations,
        )
        for name, each in entities.items()
    }


def _closure(start: T, parents_of: Callable[[T], Iterable[T]]) -> frozenset[T]:
    """Give all that is above `start`; itself only by a cycle."""
    found: set[T] = set()
    waiting = list(parents_of(start))
    while waiting:
        each = waiting.pop()
        if each not in found:
            found.add(each)
            waiting.extend(parents_of(each))
    return frozenset(found)


def _candidates(name: str, space: str) -> list[str]:
    if "::" in name or not space:
        return [name]
    return [f"{space}::{name}", name]


def _annotations(raw: Mapping[str, str | None]) -> dict[str, str]:
    return {name: value or "" for name, value in raw.items()}
