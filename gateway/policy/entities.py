"""`Entities`: what the policies speak of, in Cedar's JSON and in the machine's store.

Nothing is kept here but the store: a million entities cost what their values cost.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Self

from gateway._native.entities import EntityStore
from gateway._native.uid import EntityUid
from gateway.policy.faults import EntityError, Fault
from gateway.policy.json_text import load_json
from gateway.policy.json_values import (
    Misfit,
    check_choice,
    check_record,
    check_type,
    escaped,
    uid_from_json,
    value_from_json,
    value_to_json,
)
from gateway.policy.schema import model

BYTES_MAX: Final = 2 * 1024 * 1024 * 1024  # of one JSON text
ENTITIES_MAX: Final = 20_000_000  # of one JSON text
FAULTS_MAX: Final = 20  # told of one text
_BATCH: Final = 50_000


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
            "parents": [{"type": parent.type, "id": parent.id} for parent in self.parents],
        }
        if self.tags:
            made["tags"] = {name: value_to_json(value) for name, value in self.tags.items()}
        return made


def is_action_type(name: str) -> bool:
    """Tell whether entities of this type are actions."""
    return name == "Action" or name.endswith("::Action")


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
        actions are entities too. Raises EntityError with everything that is wrong, FAULTS_MAX at most.
        """
        if isinstance(data, str | bytes):
            data = load_json(data, BYTES_MAX, EntityError)
        if not isinstance(data, Sequence):
            raise EntityError([Fault("ill_typed", "an array of entities is expected", pointer="/")])
        if len(data) > ENTITIES_MAX:
            raise EntityError([Fault("too_many_entities", f"more than {ENTITIES_MAX:,} entities", pointer="/")])
        return cls()._read(data, schema)

    def _read(self, data: Sequence[Any], schema: model.Schema | None) -> Self:
        found: dict[EntityUid, int] = {}
        batch: list[Entity] = []
        faults: list[Fault] = []
        waiting: list[Entity] = []
        for index, each in enumerate(data):
            try:
                entity = entity_from_json(each, schema, f"/{index}")
                if entity.uid in found:
                    other = entity_from_json(data[found[entity.uid]], schema, f"/{found[entity.uid]}")
                    if not _same(entity, other):
                        raise Misfit("duplicate_entity", f"`{entity.uid}` stands here twice, and differs", f"/{index}")
                    continue
                found[entity.uid] = index
                if schema is not None and is_action_type(entity.uid.type):
                    _check_action(entity, schema, f"/{index}")
                    continue  # the schema's own declaration is what counts
                if schema is not None:
                    check_entity(entity, schema, f"/{index}")
            except Misfit as misfit:
                faults.append(misfit.as_fault())
                if len(faults) == FAULTS_MAX:
                    break
                continue
            batch.append(entity)
            if len(batch) == _BATCH:
                waiting.extend(batch)
                batch = []
        if faults:
            raise EntityError(faults)
        self.upsert([*waiting, *batch])
        if schema is not None:
            self.declare_actions(schema)
            self._check_ancestors(schema, found)
        return self

    def _check_ancestors(self, schema: model.Schema, found: Mapping[EntityUid, int]) -> None:
        faults = []
        for uid, index in found.items():
            if is_action_type(uid.type):
                continue
            allowed = schema.entities[uid.type].ancestors
            for above in self.store.ancestors(uid):
                if above.type not in allowed:
                    message = f"`{uid}` is in `{above}`, which its type does not allow"
                    faults.append(Fault("wrong_parent", message, pointer=f"/{index}/parents"))
                    break
            if len(faults) == FAULTS_MAX:
                break
        if faults:
            raise EntityError(faults)

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
            raise EntityError([Fault(code, str(error))]) from None

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
                if is_action_type(uid.type):
                    _check_action(entity, schema, "")
                else:
                    check_entity(entity, schema, "")
            except Misfit as misfit:
                faults.append(
                    Fault(misfit.code, f"`{uid}`: {misfit.message}", misfit.hint, pointer=misfit.pointer or None)
                )
                if len(faults) == FAULTS_MAX:
                    break
        if faults:
            raise EntityError(faults)
        self._check_ancestors(schema, dict.fromkeys(self, 0))


def _same(one: Entity, other: Entity) -> bool:
    scratch = EntityStore()
    scratch.put(one.uid, dict(one.attributes), one.parents, dict(one.tags), cycles="allow")
    first = scratch.get(one.uid)
    scratch.put(other.uid, dict(other.attributes), other.parents, dict(other.tags), cycles="allow")
    return first == scratch.get(other.uid)


def entity_from_json(data: Any, schema: model.Schema | None, pointer: str) -> Entity:
    """Read one entity. Raises Misfit."""
    if not isinstance(data, Mapping):
        raise Misfit("ill_typed", "an entity is an object", pointer)
    for name in data:
        if name not in ("uid", "attrs", "parents", "tags"):
            raise Misfit("unknown_member", f"unknown member `{name}`", f"{pointer}/{escaped(name)}")
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
    if not isinstance(tags_json, Mapping):
        raise Misfit("ill_typed", "tags are an object", f"{pointer}/tags")
    tags = {
        name: value_from_json(each, tags_type, f"{pointer}/tags/{escaped(name)}") for name, each in tags_json.items()
    }
    if not isinstance(data["parents"], list):
        raise Misfit("ill_typed", "parents are an array", f"{pointer}/parents")
    parents = tuple(uid_from_json(each, f"{pointer}/parents/{index}") for index, each in enumerate(data["parents"]))
    return Entity(uid, attributes, parents, tags)


def _record_from_json(data: Any, expected: model.RecordType | None, pointer: str) -> dict[str, Any]:
    if not isinstance(data, Mapping):
        raise Misfit("ill_typed", "attributes are an object", pointer)
    types = {} if expected is None else expected.attributes
    return {
        name: value_from_json(each, types[name].type if name in types else None, f"{pointer}/{escaped(name)}")
        for name, each in data.items()
    }


def check_entity(entity: Entity, schema: model.Schema, pointer: str) -> None:
    """Refuse an entity that does not fit its declaration. Raises Misfit."""
    declaration = schema.entities.get(entity.uid.type)
    if declaration is None:
        import difflib

        near = difflib.get_close_matches(entity.uid.type, schema.entities, n=1)
        hint = f"did you mean `{near[0]}`?" if near else ""
        raise Misfit("undeclared_type", f"undeclared entity type `{entity.uid.type}`", f"{pointer}/uid", hint)
    check_choice(entity.uid, schema, f"{pointer}/uid")
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


def _check_action(entity: Entity, schema: model.Schema, pointer: str) -> None:
    declaration = schema.actions.get(entity.uid)
    if declaration is None:
        raise Misfit("undeclared_action", f"undeclared action `{entity.uid}`", f"{pointer}/uid")
    if entity.attributes or entity.tags or not set(entity.parents) <= declaration.ancestors:
        message = f"the action `{entity.uid}` differs from its declaration"
        raise Misfit("action_differs", message, pointer, "leave actions out: the schema's are used")
