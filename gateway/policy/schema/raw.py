"""What both syntaxes of a schema are read into, before names are resolved; every piece knows where it stands."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from gateway._native.uid import EntityUid


@dataclass(frozen=True, slots=True)
class Mark:
    """A place: in a text by offset, in JSON by pointer (RFC 6901); `source` counts the texts that are read together."""

    offset: int = -1
    length: int = 1
    pointer: str | None = None
    source: int = 0


@dataclass(frozen=True, slots=True)
class RawName:
    """A type by its name, as it is written: common type, entity type or built-in, unless it says which."""

    name: str
    mark: Mark
    entity_only: bool = False
    common_only: bool = False  # or built-in


@dataclass(frozen=True, slots=True)
class RawExtension:
    """An extension type that JSON names as such."""

    name: str
    mark: Mark


@dataclass(frozen=True, slots=True)
class RawSet:
    element: RawType
    mark: Mark


@dataclass(frozen=True, slots=True)
class RawAttribute:
    type: RawType
    required: bool
    annotations: Mapping[str, str | None]


@dataclass(frozen=True, slots=True)
class RawRecord:
    attributes: Mapping[str, RawAttribute]
    mark: Mark


RawType = RawName | RawExtension | RawSet | RawRecord


@dataclass(frozen=True, slots=True)
class RawEntity:
    mark: Mark
    parents: tuple[RawName, ...] = ()
    shape: RawType | None = None
    tags: RawType | None = None
    choices: tuple[str, ...] | None = None
    annotations: Mapping[str, str | None] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class RawReference:
    """A group that an action is in: by its id, or with the type that is written before it."""

    type: str | None
    id: str
    mark: Mark


@dataclass(frozen=True, slots=True)
class RawAppliesTo:
    principals: tuple[RawName, ...]
    resources: tuple[RawName, ...]
    context: RawType | None


@dataclass(frozen=True, slots=True)
class RawAction:
    mark: Mark
    groups: tuple[RawReference, ...] = ()
    applies_to: RawAppliesTo | None = None
    annotations: Mapping[str, str | None] = field(default_factory=dict)


@dataclass(slots=True)
class RawNamespace:
    """One namespace; the name of the unnamed one is ""."""

    name: str
    mark: Mark = Mark()
    entities: dict[str, RawEntity] = field(default_factory=dict)
    actions: dict[str, RawAction] = field(default_factory=dict)
    commons: dict[str, tuple[RawType, Mark]] = field(default_factory=dict)
    annotations: Mapping[str, str | None] = field(default_factory=dict)


def qualified(namespace: str, name: str) -> str:
    """Give a name with its namespace before it."""
    return f"{namespace}::{name}" if namespace else name


def action_uid(namespace: str, name: str) -> EntityUid:
    """Give the entity that a declared action is."""
    return EntityUid(qualified(namespace, "Action"), name)
