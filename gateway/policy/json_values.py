"""Cedar values in JSON, guided by a type where there is one. docs.cedarpolicy.com, "Entities & context syntax".

Explicit forms are `{"__entity": {"type", "id"}}` and `{"__extn": {"fn", "arg"}}`. Where the schema says what stands
there, the bare `{"type", "id"}` and the bare text of an extension value are understood too: a schema is part of
reading.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from gateway._native.entities import DEPTH_MAX
from gateway._native.extensions import Datetime, Decimal, Duration, IPAddr
from gateway._native.uid import EntityUid
from gateway.policy.faults import Fault
from gateway.policy.schema import model

_LONG_MIN, _LONG_MAX = -(2**63), 2**63 - 1
_CONSTRUCTORS: Final = {
    "ip": IPAddr.parse,
    "decimal": Decimal.parse,
    "datetime": Datetime.parse,
    "duration": Duration.parse,
}
_FUNCTION_OF: Final = {"ipaddr": "ip", "decimal": "decimal", "datetime": "datetime", "duration": "duration"}
_CLASS_OF: Final[Mapping[str, type]] = {
    "ipaddr": IPAddr,
    "decimal": Decimal,
    "datetime": Datetime,
    "duration": Duration,
}


class Misfit(Exception):
    """A value that is none, or not of its type, at a JSON pointer."""

    def __init__(self, code: str, message: str, pointer: str, hint: str = "") -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.pointer = pointer
        self.hint = hint

    def as_fault(self) -> Fault:
        return Fault(self.code, self.message, self.hint, pointer=self.pointer or "/")


def escaped(name: str) -> str:
    """Spell a name within a pointer (RFC 6901 §3)."""
    return name.replace("~", "~0").replace("/", "~1")


def uid_from_json(data: Any, pointer: str) -> EntityUid:
    """Read `{"type", "id"}`, bare or within `__entity`. Raises Misfit."""
    if isinstance(data, Mapping) and set(data) == {"__entity"}:
        return uid_from_json(data["__entity"], f"{pointer}/__entity")
    if isinstance(data, Mapping) and isinstance(data.get("type"), str) and isinstance(data.get("id"), str):
        return EntityUid(data["type"], data["id"])
    raise Misfit("no_entity", 'an entity is {"type": …, "id": …}', pointer)


def value_from_json(data: Any, expected: model.Type | None, pointer: str, depth: int = 0) -> Any:
    """Give the value; `expected` guides the reading, and `check_type` is asked after it. Raises Misfit."""
    if depth > DEPTH_MAX:
        raise Misfit("too_deep", f"nested more than {DEPTH_MAX} times", pointer)
    if isinstance(data, bool):
        return data
    if isinstance(data, int):
        if not _LONG_MIN <= data <= _LONG_MAX:
            raise Misfit("number_too_large", f"`{str(data)[:40]}` does not fit into 64 bits", pointer)
        return data
    if isinstance(data, str):
        if isinstance(expected, model.ExtensionType):
            return _extension(_FUNCTION_OF[expected.name], data, pointer)
        return data
    if isinstance(data, list):
        element = expected.element if isinstance(expected, model.SetType) else None
        return [value_from_json(each, element, f"{pointer}/{index}", depth + 1) for index, each in enumerate(data)]
    if isinstance(data, Mapping):
        return _from_object(data, expected, pointer, depth)
    shown = "null" if data is None else f"a {type(data).__name__}"
    raise Misfit("no_value", f"{shown} is no Cedar value", pointer, "leave an attribute out that has none")


def _from_object(data: Mapping[str, Any], expected: model.Type | None, pointer: str, depth: int) -> Any:
    if set(data) == {"__entity"}:
        return uid_from_json(data, pointer)
    if set(data) == {"__extn"}:
        return _call(data["__extn"], f"{pointer}/__extn", depth)
    if "__expr" in data:
        raise Misfit("no_value", "`__expr` is not understood any more", pointer, "write `__entity` or `__extn`")
    if isinstance(expected, model.EntityType):
        return uid_from_json(data, pointer)
    if isinstance(expected, model.ExtensionType):
        return _call(data, pointer, depth)
    types = expected.attributes if isinstance(expected, model.RecordType) else {}
    made = {}
    for name, each in data.items():
        attribute = types.get(name)
        inner = None if attribute is None else attribute.type
        made[name] = value_from_json(each, inner, f"{pointer}/{escaped(name)}", depth + 1)
    return made


def _call(data: Any, pointer: str, depth: int) -> Any:
    if isinstance(data, Mapping) and isinstance(data.get("fn"), str):
        function = data["fn"]
        if set(data) == {"fn", "arg"}:
            arguments = [data["arg"]]
        elif set(data) == {"fn", "args"} and isinstance(data["args"], list):
            arguments = data["args"]
        else:
            raise Misfit("no_value", 'a call is {"fn": …, "arg": …}', pointer)
        if function in _CONSTRUCTORS and len(arguments) == 1 and isinstance(arguments[0], str):
            return _extension(function, arguments[0], pointer)
        if function == "offset" and len(arguments) == 2:
            moment, span = (
                value_from_json(each, None, f"{pointer}/args/{index}", depth + 1)
                for index, each in enumerate(arguments)
            )
            if isinstance(moment, Datetime) and isinstance(span, Duration):
                try:
                    return Datetime(moment.number + span.number)
                except ValueError as error:
                    raise Misfit("extension_value", str(error), pointer) from None
        raise Misfit("no_value", f"`{function}` makes no value of this", pointer, ", ".join(_CONSTRUCTORS))
    raise Misfit("no_value", 'a call is {"fn": …, "arg": …}', pointer)


def _extension(function: str, text: str, pointer: str) -> Any:
    try:
        return _CONSTRUCTORS[function](text)
    except ValueError as error:
        raise Misfit("extension_value", f"`{text[:60]}` is {error}", pointer) from None


def value_to_json(value: Any) -> Any:
    """Give the explicit form of a value."""
    if isinstance(value, EntityUid):
        return {"__entity": {"type": value.type, "id": value.id}}
    if isinstance(value, Mapping):
        return {name: value_to_json(each) for name, each in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [value_to_json(each) for each in value]
    for name, kind in _CLASS_OF.items():
        if isinstance(value, kind):
            if isinstance(value, Datetime) and not value.is_spellable:
                epoch = {"__extn": {"fn": "datetime", "arg": "1970-01-01"}}
                return {"__extn": {"fn": "offset", "args": [epoch, value_to_json(Duration(value.number))]}}
            return {"__extn": {"fn": _FUNCTION_OF[name], "arg": str(value)}}
    return value


def check_type(value: Any, expected: model.Type, schema: model.Schema, pointer: str) -> None:
    """Refuse a value that is not of its type. Raises Misfit."""
    match expected:
        case model.BoolType():
            fits = isinstance(value, bool)
        case model.LongType():
            fits = isinstance(value, int) and not isinstance(value, bool)
        case model.StringType():
            fits = isinstance(value, str)
        case model.ExtensionType(name):
            fits = isinstance(value, _CLASS_OF[name])
        case model.EntityType(name):
            fits = isinstance(value, EntityUid) and value.type == name
            if fits:
                check_choice(value, schema, pointer)
        case model.SetType(element):
            fits = isinstance(value, list | tuple | set | frozenset)
            if fits:
                for index, each in enumerate(value):
                    check_type(each, element, schema, f"{pointer}/{index}")
        case model.RecordType():
            fits = isinstance(value, Mapping)
            if fits:
                check_record(value, expected, schema, pointer)
    if not fits:
        raise Misfit("wrong_type", f"{_named(expected)} is expected here", pointer)


def check_record(value: Mapping[str, Any], expected: model.RecordType, schema: model.Schema, pointer: str) -> None:
    """Refuse a record that lacks a required attribute, has an undeclared one, or one of another type. Raises Misfit."""
    for name, attribute in expected.attributes.items():
        if name in value:
            check_type(value[name], attribute.type, schema, f"{pointer}/{escaped(name)}")
        elif attribute.required:
            raise Misfit("missing_attribute", f"the attribute `{name}` is missing", pointer)
    for name in value:
        if name not in expected.attributes:
            declared = ", ".join(sorted(expected.attributes)) or "none"
            raise Misfit(
                "undeclared_attribute",
                f"undeclared attribute `{name}`",
                f"{pointer}/{escaped(name)}",
                f"declared: {declared}",
            )


def check_choice(uid: EntityUid, schema: model.Schema, pointer: str) -> None:
    """Refuse an entity of an enumerated type that is none of its choices. Raises Misfit."""
    declaration = schema.entities.get(uid.type)
    if declaration is not None and declaration.choices is not None and uid.id not in declaration.choices:
        hint = f"one of: {', '.join(declaration.choices[:10])}"
        raise Misfit("unknown_choice", f"`{uid}` is none of the enumerated ids", pointer, hint)


def _named(expected: model.Type) -> str:
    match expected:
        case model.EntityType(name):
            return f"an entity of type `{name}`"
        case model.ExtensionType(name):
            return f"a value of type `{name}`"
        case model.SetType():
            return "a set"
        case model.RecordType():
            return "a record"
        case _:
            return f"a {type(expected).__name__.removesuffix('Type')}"
