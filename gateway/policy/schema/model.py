"""What a schema says, resolved: qualified names only, common types replaced by what they stand for.

Made by the readers of both syntaxes (`text.py`, `json_syntax.py`), read by the validator, by schema-guided parsing of
entities and by the compiler. docs.cedarpolicy.com, "Schema".
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from gateway._native.uid import EntityUid


@dataclass(frozen=True, slots=True)
class BoolType:
    pass


@dataclass(frozen=True, slots=True)
class LongType:
    pass


@dataclass(frozen=True, slots=True)
class StringType:
    pass


@dataclass(frozen=True, slots=True)
class EntityType:
    """A reference to an entity of the type `name`."""

    name: str


@dataclass(frozen=True, slots=True)
class ExtensionType:
    """`ipaddr`, `decimal`, `datetime` or `duration`."""

    name: str


@dataclass(frozen=True, slots=True)
class SetType:
    element: Type


@dataclass(frozen=True, slots=True)
class Attribute:
    type: Type
    required: bool = True
    annotations: Mapping[str, str] = field(default_factory=dict, compare=False)


@dataclass(frozen=True, slots=True)
class RecordType:
    """Closed: a value has no attributes but these."""

    attributes: Mapping[str, Attribute] = field(default_factory=dict)


Type = BoolType | LongType | StringType | EntityType | ExtensionType | SetType | RecordType


@dataclass(frozen=True, slots=True)
class EntityDeclaration:
    name: str  # qualified
    parents: frozenset[str] = frozenset()  # `in [...]`: the types that its direct parents may have
    ancestors: frozenset[str] = frozenset()  # all types above it; itself only by a cycle
    attributes: RecordType = RecordType()
    tags: Type | None = None  # None: no tags
    choices: tuple[str, ...] | None = None  # an enumerated entity's ids, else None
    annotations: Mapping[str, str] = field(default_factory=dict, compare=False)


@dataclass(frozen=True, slots=True)
class ActionDeclaration:
    uid: EntityUid  # type is `Action` or `NS::Action`
    parents: frozenset[EntityUid] = frozenset()  # direct groups
    ancestors: frozenset[EntityUid] = frozenset()  # all groups, without itself
    principals: frozenset[str] = frozenset()  # of appliesTo; empty (with `resources`): a mere group
    resources: frozenset[str] = frozenset()
    context: RecordType = RecordType()
    annotations: Mapping[str, str] = field(default_factory=dict, compare=False)


@dataclass(frozen=True, slots=True)
class Schema:
    """Everything that is declared. `gateway.policy.Schema` is the public face: `Schema.parse`, `Schema.from_json`."""

    entities: Mapping[str, EntityDeclaration]
    actions: Mapping[EntityUid, ActionDeclaration]
    namespaces: Mapping[str, Mapping[str, str]] = field(default_factory=dict)  # name -> annotations
