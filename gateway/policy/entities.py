"""`Entities`: what the policies speak of, in Cedar's JSON and in the machine's store.

Nothing is kept here but the store: a million entities cost what their values cost.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import Any, Final, Self

from gateway._native.entities import EntityStore
from gateway._native.uid import EntityUid
from gateway.policy.faults import EntityError, Fault
from gateway.policy.json_text import load_json_items
from gateway.policy.json_values import (
    Misfit,
    check_choice,
    check_record,
    check_type,
    check_uid,
    escaped,
    frozen,
    is_action_type,
    near,
    uid_from_json,
    value_from_json,
    value_to_json,
)
from gateway.policy.schema import model

BYTES_MAX: Final = 2 * 1024 * 1024 * 1024  # of one JSON text
ENTITIES_MAX: Final = 20_000_000  # of one JSON text
FAULTS_MAX: Final = 20  # told of one text
_MEMBERS: Final = frozenset(("uid", "attrs", "parents", "tags"))
_BATCH: Final = 8192  # entities that go into the store at once


@dataclass(frozen=True, slots=True)
class Entity:
    """One entity; shapes of values: `gateway/_native/entities.pyi`."""

    uid: EntityUid
    attributes: Mapping[str, Any] = field(default_factory=dict)
    parents: tuple[EntityUid, ...] = ()
    tags: Mapping[str, Any] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """Give Cedar's entity JSON."""
        made: dict[str, Any] = {
            "uid": {"type": self.uid.type, "id": self.uid.id},
            "attrs": {name: value_to_json(value) for name, value in self.attributes.items()},
            "parents": [{"type": parent.type, "id": parent.id} for parent in sorted(self.parents)],
        }
        if self.tags:
            made["tags"] = {name: value_to_json(value) for name, value in self.tags.items()}
        return made


class Entities:
    """Entities by uid. Changes are all or nothing, and seen by every engine that shares them."""

    __slots__ = ("store",)

    def __init__(self, entities: Iterable[Entity] = ()) -> None:
        """Raises EntityError for values that are none, and for entities that would be in themselves."""
        self.store = EntityStore()
        self.upsert(entities)

    @classmethod
    def from_json(cls, data: str | bytes | Sequence[Any], *, schema: model.Schema | None = None) -> Self:
        """Read Cedar's entity JSON, an array of objects with uid, attrs, parents and tags.

        With a schema, values may be in their implicit forms, every entity must fit its declaration, and the schema's
        actions are entities too. A text is read entity by entity, so that a million of them are never there twice.
        An entity may stand twice if it is the same. Raises EntityError with everything that is wrong, FAULTS_MAX at
        most.
        """
        if isinstance(data, str | bytes):
            items = load_json_items(data, BYTES_MAX, EntityError)
        elif isinstance(data, Sequence):
            items = iter(data)
        else:
            raise EntityError([Fault("ill_typed", "an array of entities is expected", pointer="/")])
        made = cls()
        if schema is not None:
            made.declare_actions(schema)
        _Reading(made, schema).read(items)
        return made

    def declare_actions(self, schema: model.Schema) -> None:
        """Make the schema's actions, and their groups, entities."""
        self.upsert(Entity(uid, {}, tuple(action.parents)) for uid, action in schema.actions.items())

    # --- changes

    def upsert(self, entities: Iterable[Entity]) -> int:
        """Define entities, in place of what they were; all or none. Give the revision. Raises EntityError."""
        return self.change(entities, ())

    def remove(self, uids: Iterable[EntityUid]) -> int:
        """Undefine entities; give the revision."""
        return self.change((), uids)

    def change(self, upserts: Iterable[Entity], removals: Iterable[EntityUid]) -> int:
        """Do both at once. Raises EntityError, and changes nothing."""
        try:
            return self.store.apply(
                [(each.uid, dict(each.attributes), each.parents, dict(each.tags)) for each in upserts], list(removals)
            )
        except ValueError as error:
            code = "entity_cycle" if "in itself" in str(error) else "no_value"
            hint = "take one of them out of the circle" if code == "entity_cycle" else ""
            raise EntityError([Fault(code, str(error), hint)]) from None

    # --- reading

    def get(self, uid: EntityUid) -> Entity | None:
        found = self.store.get(uid)
        return None if found is None else Entity(uid, *found)

    def __contains__(self, uid: object) -> bool:
        return uid in self.store

    def __len__(self) -> int:
        return len(self.store)

    def __iter__(self) -> Iterator[EntityUid]:
        return iter(self.store)

    def of_type(self, name: str) -> Iterator[EntityUid]:
        """Yield the uids of the entities of a type."""
        return self.store.uids(name)

    def to_json(self) -> list[dict[str, Any]]:
        """Give Cedar's entity JSON."""
        return [entity.to_json() for uid in self if (entity := self.get(uid)) is not None]

    def validate(self, schema: model.Schema) -> None:
        """Refuse entities that do not fit a schema. Raises EntityError, FAULTS_MAX at most."""
        faults = []
        for uid in self:
            entity = self.get(uid)
            assert entity is not None
            try:
                check_entity(entity, schema, "")
            except Misfit as misfit:
                faults.append(
                    Fault(misfit.code, f"`{uid}`: {misfit.message}", misfit.hint, pointer=misfit.pointer or None)
                )
                if len(faults) == FAULTS_MAX:
                    break
        if faults:
            raise EntityError(faults)


class _Reading:
    """JSON on its way into a store that holds nothing but actions yet."""

    def __init__(self, entities: Entities, schema: model.Schema | None) -> None:
        self._entities = entities
        self._actions = {} if schema is None else schema.actions
        self._schema = schema
        self._seen: dict[EntityUid, tuple[int, Entity]] = {}  # actions of the schema that stand in the text
        self._faults: list[Fault] = []

    def read(self, items: Iterator[Any]) -> None:
        index = 0
        broken: tuple[Fault, ...] = ()
        while len(self._faults) < FAULTS_MAX and not broken:
            batch: list[Any] = []
            try:
                batch.extend(islice(items, _BATCH))  # what stands before a break is in the batch, and told first
            except EntityError as error:
                broken = error.faults
            if not batch:
                break
            self._put(batch, index)
            index += len(batch)
            if index > ENTITIES_MAX:
                self._faults.append(Fault("too_many_entities", f"more than {ENTITIES_MAX:,} entities"))
                break
        self._faults.extend(broken)
        self._check_actions()
        if self._faults:
            raise EntityError(self._faults[:FAULTS_MAX])

    def _put(self, batch: list[Any], first: int) -> None:
        pending: dict[EntityUid, Entity] = {}
        for index, each in enumerate(batch, first):
            try:
                entity = entity_from_json(each, self._schema, f"/{index}")
                uid = entity.uid
                if uid in self._actions:  # the schema's own declaration is what counts
                    _refuse_another(entity, self._seen[uid][1] if uid in self._seen else entity, index)
                    self._seen[uid] = (index, entity)
                    continue
                before = pending.get(uid)
                if before is None and uid in self._entities:
                    before = self._entities.get(uid)
                if before is not None:
                    _refuse_another(entity, before, index)
                    continue
                if self._schema is not None:
                    check_entity(entity, self._schema, f"/{index}")
                pending[uid] = entity
            except Misfit as misfit:
                self._faults.append(misfit.as_fault())
                if len(self._faults) >= FAULTS_MAX:
                    return
        if not self._faults:
            self._entities.upsert(pending.values())

    def _check_actions(self) -> None:
        """Compare actions with the schema by all that is above them: data may say it in steps, or at once."""
        for uid, (index, entity) in self._seen.items():
            above: set[EntityUid] = set()
            waiting = list(entity.parents)
            while waiting:
                parent = waiting.pop()
                if parent not in above:
                    above.add(parent)
                    waiting.extend(self._seen[parent][1].parents if parent in self._seen else ())
            if entity.attributes or entity.tags or above != self._actions[uid].ancestors:
                self._faults.append(_differs(uid, f"/{index}").as_fault())


def _refuse_another(entity: Entity, before: Entity, index: int) -> None:
    """Refuse an entity that stands twice and differs. Raises Misfit."""
    same = (
        set(entity.parents) == set(before.parents)
        and frozen(entity.attributes) == frozen(before.attributes)
        and frozen(entity.tags) == frozen(before.tags)
    )
    if not same:
        message = f"`{entity.uid}` stands here twice, and differs"
        raise Misfit("duplicate_entity", message, f"/{index}", "keep one of them")


def _differs(uid: EntityUid, pointer: str) -> Misfit:
    message = f"the action `{uid}` differs from its declaration"
    return Misfit("action_differs", message, pointer, "leave actions out: the schema's are used")


def entity_from_json(data: Any, schema: model.Schema | None, pointer: str) -> Entity:
    """Read one entity. Raises Misfit."""
    if type(data) is not dict and not isinstance(data, Mapping):
        raise Misfit("ill_typed", "an entity is an object", pointer)
    if not data.keys() <= _MEMBERS:
        name = str(min(data.keys() - _MEMBERS, key=str))
        hint = near(name, _MEMBERS)
        raise Misfit("unknown_member", f"unknown member `{name[:60]}`", f"{pointer}/{escaped(name)}", hint)
    for name in ("uid", "attrs", "parents"):
        if name not in data:
            raise Misfit("missing_member", f"the member `{name}` is missing", pointer)
    uid = uid_from_json(data["uid"], f"{pointer}/uid")
    declaration = None if schema is None else schema.entities.get(uid.type)
    attributes = _record_from_json(
        data["attrs"], None if declaration is None else declaration.attributes, f"{pointer}/attrs"
    )
    tags_type = None if declaration is None else declaration.tags
    tags_json = data.get("tags", {})
    if type(tags_json) is not dict and not isinstance(tags_json, Mapping):
        raise Misfit("ill_typed", "tags are an object", f"{pointer}/tags")
    tags = {
        name: value_from_json(each, tags_type, f"{pointer}/tags/{escaped(name)}") for name, each in tags_json.items()
    }
    if not isinstance(data["parents"], list):
        raise Misfit("ill_typed", "parents are an array", f"{pointer}/parents")
    parents = tuple(uid_from_json(each, f"{pointer}/parents/{index}") for index, each in enumerate(data["parents"]))
    if is_action_type(uid.type):
        for index, parent in enumerate(parents):
            if not is_action_type(parent.type):
                message = f"the action `{uid}` cannot be in `{parent}`"
                raise Misfit("wrong_parent", message, f"{pointer}/parents/{index}", "groups of actions are actions")
    return Entity(uid, attributes, parents, tags)


def _record_from_json(data: Any, expected: model.RecordType | None, pointer: str) -> dict[str, Any]:
    if type(data) is not dict and not isinstance(data, Mapping):
        raise Misfit("ill_typed", "attributes are an object", pointer)
    types = {} if expected is None else expected.attributes
    return {
        name: value_from_json(each, types[name].type if name in types else None, f"{pointer}/{escaped(name)}")
        for name, each in data.items()
    }


def check_entity(entity: Entity, schema: model.Schema, pointer: str) -> None:
    """Refuse an entity that does not fit its declaration. Raises Misfit."""
    check_uid(entity.uid, schema, f"{pointer}/uid")
    if is_action_type(entity.uid.type):
        if entity.attributes or entity.tags or set(entity.parents) - schema.actions[entity.uid].ancestors:
            raise _differs(entity.uid, pointer)
        return
    declaration = schema.entities[entity.uid.type]
    check_record(entity.attributes, declaration.attributes, schema, f"{pointer}/attrs")
    if entity.tags and declaration.tags is None:
        raise Misfit("undeclared_tags", f"`{entity.uid.type}` has no tags", f"{pointer}/tags")
    for name, value in entity.tags.items():
        assert declaration.tags is not None
        check_type(value, declaration.tags, schema, f"{pointer}/tags/{escaped(name)}")
    for index, parent in enumerate(entity.parents):
        if parent.type not in declaration.ancestors:
            message = f"`{entity.uid.type}` cannot be in `{parent.type}`"
            allowed = ", ".join(sorted(declaration.ancestors)) or "none"
            raise Misfit("wrong_parent", message, f"{pointer}/parents/{index}", f"allowed: {allowed}")
        check_choice(parent, schema, f"{pointer}/parents/{index}")
