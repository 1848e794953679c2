"""A resolved schema back to text and JSON."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from gateway._native.uid import quoted
from gateway.policy.schema import model

_PLAIN = {model.BoolType: "Bool", model.LongType: "Long", model.StringType: "String"}
_PLAIN_JSON = {model.BoolType: "Boolean", model.LongType: "Long", model.StringType: "String"}


def _split(name: str) -> tuple[str, str]:
    namespace, _, plain = name.rpartition("::")
    return namespace, plain


def schema_to_json(schema: model.Schema) -> dict[str, Any]:
    """Give Cedar's JSON syntax."""
    spaces: dict[str, dict[str, Any]] = {}

    def space(name: str) -> dict[str, Any]:
        made = spaces.setdefault(name, {"entityTypes": {}, "actions": {}})
        if schema.namespaces.get(name):
            made["annotations"] = dict(schema.namespaces[name])
        return made

    for name in schema.namespaces:
        space(name)
    for entity in schema.entities.values():
        namespace, plain = _split(entity.name)
        space(namespace)["entityTypes"][plain] = _entity_to_json(entity)
    for action in schema.actions.values():
        space(_split(action.uid.type)[0])["actions"][action.uid.id] = _action_to_json(action)
    return spaces


def _with_annotations(made: dict[str, Any], annotations: Mapping[str, str]) -> dict[str, Any]:
    return {**made, "annotations": dict(annotations)} if annotations else made


def _entity_to_json(entity: model.EntityDeclaration) -> dict[str, Any]:
    if entity.choices is not None:
        return _with_annotations({"enum": list(entity.choices)}, entity.annotations)
    made: dict[str, Any] = {"memberOfTypes": sorted(entity.parents), "shape": _type_to_json(entity.attributes)}
    if entity.tags is not None:
        made["tags"] = _type_to_json(entity.tags)
    return _with_annotations(made, entity.annotations)


def _action_to_json(action: model.ActionDeclaration) -> dict[str, Any]:
    made: dict[str, Any] = {"memberOf": [{"type": uid.type, "id": uid.id} for uid in sorted(action.parents)]}
    if action.principals or action.resources:
        made["appliesTo"] = {
            "principalTypes": sorted(action.principals),
            "resourceTypes": sorted(action.resources),
            "context": _type_to_json(action.context),
        }
    return _with_annotations(made, action.annotations)


def _type_to_json(given: model.Type) -> dict[str, Any]:
    match given:
        case model.EntityType(name):
            return {"type": "Entity", "name": name}
        case model.ExtensionType(name):
            return {"type": "Extension", "name": name}
        case model.SetType(element):
            return {"type": "Set", "element": _type_to_json(element)}
        case model.RecordType(attributes):
            fields = {
                name: _with_annotations({**_type_to_json(each.type), "required": each.required}, each.annotations)
                for name, each in attributes.items()
            }
            return {"type": "Record", "attributes": fields}
        case _:
            return {"type": _PLAIN_JSON[type(given)]}


def schema_to_text(schema: model.Schema) -> str:
    """Give Cedar's text syntax, one declaration after another, a namespace after the unnamed one."""
    spaces: dict[str, list[str]] = {name: [] for name in schema.namespaces}
    for entity in schema.entities.values():
        namespace, plain = _split(entity.name)
        spaces.setdefault(namespace, []).append(_entity_to_text(entity, plain))
    for action in schema.actions.values():
        spaces.setdefault(_split(action.uid.type)[0], []).append(_action_to_text(action))
    pieces = []
    for name in sorted(spaces):
        body = "\n".join(spaces[name])
        if name:
            inner = "\n".join(f"  {line}" if line else line for line in body.split("\n"))
            body = f"{_annotated(schema.namespaces.get(name, {}))}namespace {name} {{\n{inner}\n}}"
        pieces.append(body)
    return "\n\n".join(pieces) + "\n"


def _annotated(annotations: Mapping[str, str], end: str = "\n") -> str:
    return "".join(f"@{name}({quoted(value)}){end}" for name, value in annotations.items())


def _entity_to_text(entity: model.EntityDeclaration, plain: str) -> str:
    text = f"{_annotated(entity.annotations)}entity {plain}"
    if entity.choices is not None:
        return f"{text} enum [{', '.join(map(quoted, entity.choices))}];"
    if entity.parents:
        text += f" in [{', '.join(sorted(entity.parents))}]"
    if entity.attributes.attributes:
        text += f" = {_type_to_text(entity.attributes)}"
    if entity.tags is not None:
        text += f" tags {_type_to_text(entity.tags)}"
    return text + ";"


def _action_to_text(action: model.ActionDeclaration) -> str:
    text = f"{_annotated(action.annotations)}action {quoted(action.uid.id)}"
    if action.parents:
        text += f" in [{', '.join(map(str, sorted(action.parents)))}]"
    if action.principals and action.resources:  # the text has no empty lists: it applies to nothing either way
        text += f" appliesTo {{ principal: [{', '.join(sorted(action.principals))}], "
        text += f"resource: [{', '.join(sorted(action.resources))}], context: {_type_to_text(action.context)} }}"
    return text + ";"


def _type_to_text(given: model.Type) -> str:
    match given:
        case model.EntityType(name):
            return name
        case model.ExtensionType(name):
            return f"__cedar::{name}"
        case model.SetType(element):
            return f"Set<{_type_to_text(element)}>"
        case model.RecordType(attributes):
            fields = (
                f"{_annotated(each.annotations, ' ')}{quoted(name)}{'' if each.required else '?'}: "
                f"{_type_to_text(each.type)}"
                for name, each in attributes.items()
            )
            return "{" + ", ".join(fields) + "}"
        case _:
            return f"__cedar::{_PLAIN[type(given)]}"
