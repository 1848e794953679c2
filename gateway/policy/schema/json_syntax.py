"""The JSON syntax of schemas. docs.cedarpolicy.com, "JSON schema format"."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, NoReturn

from gateway.policy.language.functions import RESERVED
from gateway.policy.schema.limits import DECLARATIONS_MAX, NESTING_MAX
from gateway.policy.schema.raw import (
    Mark,
    RawAction,
    RawAppliesTo,
    RawAttribute,
    RawEntity,
    RawExtension,
    RawName,
    RawNamespace,
    RawRecord,
    RawReference,
    RawSet,
    RawType,
)
from gateway.policy.schema.text import RESERVED_COMMONS, Annotations, SchemaMisread

_PATH = re.compile(r"[A-Za-z_][A-Za-z0-9_]*(?:::[A-Za-z_][A-Za-z0-9_]*)*")
_WORDS = RESERVED - {"__cedar"}
_BUILT_IN = {"String": "String", "Long": "Long", "Boolean": "Bool", "Bool": "Bool"}


def read_json(data: Any) -> list[RawNamespace]:
    """Read a whole schema. Raises SchemaMisread with a JSON pointer."""
    found = []
    count = 0
    for name, body in _object(data, "").items():
        if name:
            _path(name, f"/{_escaped(name)}")
        pointer = f"/{_escaped(name)}"
        members = _members(body, pointer, {"entityTypes", "actions"}, {"commonTypes", "annotations"})
        space = RawNamespace(name, Mark(pointer=pointer), annotations=_annotations(members, pointer))
        if not name and space.annotations:
            _fail(f"{pointer}/annotations", "no_namespace", "what stands in no namespace has no annotations as a whole")
        for key, each in _object(members["entityTypes"], f"{pointer}/entityTypes").items():
            space.entities[_plain(key, f"{pointer}/entityTypes")] = _entity(
                each, f"{pointer}/entityTypes/{_escaped(key)}"
            )
        for key, each in _object(members["actions"], f"{pointer}/actions").items():
            space.actions[key] = _action(each, f"{pointer}/actions/{_escaped(key)}")
        for key, each in _object(members.get("commonTypes", {}), f"{pointer}/commonTypes").items():
            at = f"{pointer}/commonTypes/{_escaped(key)}"
            if key in RESERVED_COMMONS:
                _fail(at, "reserved_name", f"`{key}` is reserved", "choose another name")
            space.commons[_plain(key, f"{pointer}/commonTypes")] = _type(each, at, 0, {"annotations"}), Mark(pointer=at)
        count += len(space.entities) + len(space.actions) + len(space.commons)
        if count > DECLARATIONS_MAX:
            _fail(pointer, "too_many_declarations", f"more than {DECLARATIONS_MAX} declarations")
        found.append(space)
    return found


def _entity(data: Any, pointer: str) -> RawEntity:
    members = _members(data, pointer, set(), {"memberOfTypes", "shape", "tags", "enum", "annotations"})
    mark = Mark(pointer=pointer)
    annotations = _annotations(members, pointer)
    if "enum" in members:
        choices = _texts(members["enum"], f"{pointer}/enum")
        if not choices or set(members) - {"enum", "annotations"}:
            _fail(pointer, "ill_formed_enum", "an enumerated entity has ids, and nothing else")
        return RawEntity(mark, choices=choices, annotations=annotations)
    parents = _names(members.get("memberOfTypes", []), f"{pointer}/memberOfTypes")
    shape = _type(members["shape"], f"{pointer}/shape", 0) if "shape" in members else None
    tags = _type(members["tags"], f"{pointer}/tags", 0) if "tags" in members else None
    return RawEntity(mark, parents, shape, tags, annotations=annotations)


def _action(data: Any, pointer: str) -> RawAction:
    members = _members(data, pointer, set(), {"memberOf", "appliesTo", "attributes", "annotations"})
    if members.get("attributes") is not None:
        _fail(f"{pointer}/attributes", "action_attributes", "actions have no attributes", "put it into the context")
    groups = []
    given = [] if members.get("memberOf") is None else members["memberOf"]
    if not isinstance(given, list):
        _fail(f"{pointer}/memberOf", "ill_typed", "an array is expected here")
    for index, each in enumerate(given):
        at = f"{pointer}/memberOf/{index}"
        group = _members(each, at, {"id"}, {"type"})
        kind = group.get("type")
        if kind is not None:
            kind = _path(_text(kind, f"{at}/type"), f"{at}/type")
        groups.append(RawReference(kind, _text(group["id"], f"{at}/id"), Mark(pointer=at)))
    applies_to = None
    if members.get("appliesTo") is not None:
        at = f"{pointer}/appliesTo"
        applies = _members(members["appliesTo"], at, {"principalTypes", "resourceTypes"}, {"context"})
        context = _type(applies["context"], f"{at}/context", 0) if "context" in applies else None
        applies_to = RawAppliesTo(
            _names(applies["principalTypes"], f"{at}/principalTypes"),
            _names(applies["resourceTypes"], f"{at}/resourceTypes"),
            context,
        )
    return RawAction(Mark(pointer=pointer), tuple(groups), applies_to, _annotations(members, pointer))


def _type(data: Any, pointer: str, depth: int, more: set[str] = frozenset()) -> RawType:  # type: ignore[assignment]
    if depth > NESTING_MAX:
        _fail(pointer, "too_deep", f"nested more than {NESTING_MAX} times", "name the inner type")
    mark = Mark(pointer=pointer)
    kind = _text(_object(data, pointer).get("type"), f"{pointer}/type")
    if kind == "Set":
        return RawSet(
            _type(_members(data, pointer, {"type", "element"}, more)["element"], f"{pointer}/element", depth + 1), mark
        )
    if kind == "Record":
        members = _members(data, pointer, {"type", "attributes"}, {"additionalAttributes"} | more)
        if members.get("additionalAttributes"):
            _fail(f"{pointer}/additionalAttributes", "open_record", "records are closed", "leave it out")
        attributes = {}
        for name, each in _object(members["attributes"], f"{pointer}/attributes").items():
            at = f"{pointer}/attributes/{_escaped(name)}"
            required = _object(each, at).get("required", True)
            if not isinstance(required, bool):
                _fail(f"{at}/required", "ill_typed", "true or false is expected here")
            made = _type(each, at, depth + 1, {"required", "annotations"})
            attributes[name] = RawAttribute(made, required, _annotations(each, at))
        return RawRecord(attributes, mark)
    if kind in ("Entity", "EntityOrCommon", "Extension"):
        name = _text(_members(data, pointer, {"type", "name"}, more)["name"], f"{pointer}/name")
        if kind == "Extension":
            return RawExtension(name, mark)
        return RawName(_path(name, f"{pointer}/name"), mark, entity_only=kind == "Entity")
    _members(data, pointer, {"type"}, more)
    if kind in _BUILT_IN:
        return RawName(f"__cedar::{_BUILT_IN[kind]}", mark)
    return RawName(_path(kind, f"{pointer}/type"), mark, common_only=True)


def _names(data: Any, pointer: str) -> tuple[RawName, ...]:
    return tuple(
        RawName(_path(name, f"{pointer}/{index}"), Mark(pointer=f"{pointer}/{index}"), entity_only=True)
        for index, name in enumerate(_texts(data, pointer))
    )


def _texts(data: Any, pointer: str) -> tuple[str, ...]:
    if not isinstance(data, list):
        _fail(pointer, "ill_typed", "an array is expected here")
    return tuple(_text(each, f"{pointer}/{index}") for index, each in enumerate(data))


def _text(data: Any, pointer: str) -> str:
    if not isinstance(data, str):
        _fail(pointer, "ill_typed", "a text is expected here")
    return data


def _path(name: str, pointer: str) -> str:
    if not _PATH.fullmatch(name) or not _WORDS.isdisjoint(name.split("::")):
        _fail(pointer, "no_name", f"`{name[:60]}` is no name", "names are identifiers joined by `::`")
    return name


def _plain(name: str, pointer: str) -> str:
    at = f"{pointer}/{_escaped(name)}"
    if "::" in name:
        _fail(at, "no_name", f"`{name[:60]}` is no plain name", "the namespace around it is part of its name already")
    if name == "__cedar":
        _fail(at, "reserved_name", "`__cedar` is reserved", "choose another name")
    return _path(name, at)


def _annotations(members: Mapping[str, Any], pointer: str) -> Annotations:
    found = members.get("annotations", {})
    if not isinstance(found, Mapping) or not all(isinstance(each, str | None) for each in found.values()):
        _fail(f"{pointer}/annotations", "ill_typed", "annotations are an object of texts")
    for name in found:
        if not _PATH.fullmatch(name) or "::" in name:
            _fail(f"{pointer}/annotations/{_escaped(name)}", "no_name", f"`{name[:60]}` is no name of an annotation")
    return dict(found)


def _object(data: Any, pointer: str) -> Mapping[str, Any]:
    if not isinstance(data, Mapping):
        _fail(pointer, "ill_typed", "an object is expected here")
    return data


def _members(data: Any, pointer: str, needed: set[str], allowed: set[str]) -> Mapping[str, Any]:
    members = _object(data, pointer)
    for name in sorted(needed - members.keys()):
        _fail(pointer, "missing_member", f"the member `{name}` is missing")
    for name in sorted(map(str, members.keys() - needed - allowed)):
        _fail(f"{pointer}/{_escaped(name)}", "unknown_member", f"unknown member `{name}`")
    return members


def _escaped(name: str) -> str:
    return name.replace("~", "~0").replace("/", "~1")


def _fail(pointer: str, code: str, message: str, hint: str = "") -> NoReturn:
    raise SchemaMisread(code, message, hint, Mark(pointer=pointer or "/"))
