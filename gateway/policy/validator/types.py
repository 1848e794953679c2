"""Types that expressions have: the lattice of Cedar's validation, with subtypes and least upper bounds.

Larger than the types of a schema by what only checking needs: the type of nothing (`Never`, below all others), booleans
that are known to be true or false, references to one of several entity types, and records that may hold more than is
told. docs.cedarpolicy.com, "Cedar policy validation"; cedar-spec, `Validation/Types.lean` and `Subtyping.lean`.

Strict mode knows no subtypes but those of booleans; permissive mode has width and depth of records, unions of entity
types and optional attributes.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Final

from gateway.policy.schema import model


@dataclass(frozen=True, slots=True)
class Never:
    """No value has it: the elements of `[]`."""


@dataclass(frozen=True, slots=True)
class Bool:
    """`value` is None where it may be either."""

    value: bool | None = None


@dataclass(frozen=True, slots=True)
class Long:
    pass


@dataclass(frozen=True, slots=True)
class String:
    pass


@dataclass(frozen=True, slots=True)
class Extension:
    name: str


@dataclass(frozen=True, slots=True)
class Set:
    element: Type


@dataclass(frozen=True, slots=True)
class Entity:
    """A reference to an entity of one of these types; never empty. Strict mode makes no unions."""

    names: frozenset[str]


@dataclass(frozen=True, slots=True)
class Field:
    type: Type
    required: bool = True


@dataclass(frozen=True, slots=True)
class Record:
    """`is_open`: a value may have attributes that are not told here."""

    fields: Mapping[str, Field]
    is_open: bool = False

    __hash__ = None  # type: ignore[assignment]  # a mapping has none


Type = Never | Bool | Long | String | Extension | Set | Entity | Record

NEVER: Final = Never()
BOOL: Final = Bool()
TRUE: Final = Bool(True)
FALSE: Final = Bool(False)
LONG: Final = Long()
STRING: Final = String()
_EXTENSIONS: Final = {name: Extension(name) for name in ("ipaddr", "decimal", "datetime", "duration")}


class Mismatch(Enum):
    """Why two types have no least upper bound; the value is advice for a person."""

    OTHER = "types must be equal to be compatible"
    QUALIFIER = "an attribute must be required in both records, or optional in both"
    WIDTH = "records must have the same attributes to be compatible"
    ENTITY = "different entity types are not compatible, whatever their attributes"
    ENTITY_RECORD = "an entity and a record are not compatible, whatever their attributes"


def known(value: bool) -> Bool:
    """Give the type of a boolean whose value is known."""
    return TRUE if value else FALSE


def extension(name: str) -> Extension:
    """Give an extension type; raises KeyError for a name that Cedar does not have."""
    return _EXTENSIONS[name]


def from_schema(declared: model.Type) -> Type:
    """Translate a type of a schema."""
    match declared:
        case model.BoolType():
            return BOOL
        case model.LongType():
            return LONG
        case model.StringType():
            return STRING
        case model.EntityType(name):
            return Entity(frozenset((name,)))
        case model.ExtensionType(name):
            return extension(name)
        case model.SetType(element):
            return Set(from_schema(element))
        case model.RecordType():
            return record_from_schema(declared)


def record_from_schema(declared: model.RecordType) -> Record:
    """Translate a record type of a schema, such as an entity's attributes or a context."""
    return Record({name: Field(from_schema(item.type), item.required) for name, item in declared.attributes.items()})


def is_subtype(low: Type, high: Type, strict: bool) -> bool:
    """Tell whether every value of `low` may stand where `high` is asked for."""
    if low is high or isinstance(low, Never):
        return True
    match low, high:
        case Bool(), Bool(value):
            return value is None or low == high
        case Set(mine), Set(theirs):
            return is_subtype(mine, theirs, strict)
        case Entity(mine), Entity(theirs):
            return mine == theirs if strict else mine <= theirs
        case Record(), Record():
            return _is_subrecord(low, high, strict)
    return low == high


def _is_subrecord(low: Record, high: Record, strict: bool) -> bool:
    if low.is_open and not high.is_open:
        return False
    if (strict or not high.is_open) and low.fields.keys() != high.fields.keys():
        return False
    for name, theirs in high.fields.items():
        mine = low.fields.get(name)
        if mine is None or not is_subtype(mine.type, theirs.type, strict):
            return False
        if mine.required != theirs.required and (strict or theirs.required):
            return False
    return True


def least_upper_bound(one: Type, other: Type, strict: bool) -> Type | Mismatch:
    """Give the smallest type that has the values of both, or say why there is none."""
    if is_subtype(one, other, strict):
        return other
    if is_subtype(other, one, strict):
        return one
    match one, other:
        case Bool(), Bool():
            return BOOL
        case Set(mine), Set(theirs):
            element = least_upper_bound(mine, theirs, strict)
            return element if isinstance(element, Mismatch) else Set(element)
        case Entity(mine), Entity(theirs):
            return Mismatch.ENTITY if strict else Entity(mine | theirs)
        case Record(), Record():
            return _record_bound(one, other, strict)
        case (Entity(), Record()) | (Record(), Entity()):
            return Mismatch.ENTITY_RECORD
    return Mismatch.OTHER


def _record_bound(one: Record, other: Record, strict: bool) -> Record | Mismatch:
    if strict and one.fields.keys() != other.fields.keys():
        return Mismatch.WIDTH
    fields: dict[str, Field] = {}
    for name, mine in one.fields.items():
        theirs = other.fields.get(name)
        if theirs is None:
            continue
        bound = least_upper_bound(mine.type, theirs.type, strict)
        if isinstance(bound, Mismatch):
            if strict:
                return bound
            continue  # an attribute that nothing can be said of
        if strict and mine.required != theirs.required:
            return Mismatch.QUALIFIER
        fields[name] = Field(bound, mine.required and theirs.required)
    is_whole = fields.keys() == one.fields.keys() | other.fields.keys()
    return Record(fields, one.is_open or other.is_open or not is_whole)


def are_disjoint(one: Type, other: Type) -> bool:
    """Tell whether it is certain that no value has both types. Sets never are: both may be empty."""
    return isinstance(one, Entity) and isinstance(other, Entity) and one.names.isdisjoint(other.names)


def spelled(shown: Type) -> str:
    """Give a type as a schema would spell it."""
    match shown:
        case Never():
            return "nothing"
        case Bool():
            return "Bool"
        case Long():
            return "Long"
        case String():
            return "String"
        case Extension(name):
            return name
        case Set(element):
            return f"Set<{spelled(element)}>"
        case Entity(names):
            return " or ".join(sorted(names))
        case Record(fields, is_open):
            items = [f"{name}{'' if item.required else '?'}: {spelled(item.type)}" for name, item in fields.items()]
            return "{" + ", ".join(items + ["…"] * is_open) + "}"
