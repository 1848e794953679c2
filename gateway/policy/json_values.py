"""Cedar values in JSON, guided by a type where there is one. docs.cedarpolicy.com, "Entities & context syntax".

Explicit forms are `{"__entity": {"type", "id"}}` and `{"__extn": {"fn", "arg"}}`. Where the schema says what stands
there, the bare `{"type", "id"}` and the bare text of an extension value are understood too: a schema is part of
reading.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterable, Mapping
from functools import lru_cache
from typing import Any, Final

from gateway._native.entities import DEPTH_MAX
from gateway._native.extensions import Datetime, Decimal, Duration, IPAddr
from gateway._native.uid import EntityUid
from gateway.policy.faults import Fault
from gateway.policy.json_text import kind_of
from gateway.policy.language.functions import is_plain_name
from gateway.policy.schema import model

_LONG_MIN, _LONG_MAX = -(2**63), 2**63 - 1
_DAY_MS: Final = 86_400_000
_TEXT: Final = model.StringType()
_DATETIME: Final = model.ExtensionType("datetime")
_DURATION: Final = model.ExtensionType("duration")

# What `fn` may name: the types of the arguments, and what it makes of them. Numbers beyond 64 bits raise.
_FUNCTIONS: Final[Mapping[str, tuple[tuple[model.Type, ...], Callable[..., Any]]]] = {
    "ip": ((_TEXT,), IPAddr.parse),
    "decimal": ((_TEXT,), Decimal.parse),
    "datetime": ((_TEXT,), Datetime.parse),
    "duration": ((_TEXT,), Duration.parse),
    "offset": ((_DATETIME, _DURATION), lambda moment, span: Datetime(moment.number + span.number)),
    "durationSince": ((_DATETIME, _DATETIME), lambda end, start: Duration(end.number - start.number)),
    "toDate": ((_DATETIME,), lambda moment: Datetime(moment.number // _DAY_MS * _DAY_MS)),
    "toTime": ((_DATETIME,), lambda moment: Duration(moment.number % _DAY_MS)),
}
_SPELLINGS: Final[Mapping[str, str]] = {
    "ip": "as 10.0.0.1, 10.0.0.0/8 or ::1",
    "decimal": "one to four digits stand behind the point: 1.50",
    "datetime": "as 2024-05-01 or 2024-05-01T12:00:00Z",
    "duration": "as 1d2h3m4s5ms, in this order",
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


@lru_cache(maxsize=4096)  # a type is read as often as there are entities of it
def is_type_name(name: str) -> bool:
    """Tell whether `name` is identifiers joined by `::`, none of them a word of the language."""
    return all(is_plain_name(part) for part in name.split("::"))


def uid_from_json(data: Any, pointer: str) -> EntityUid:
    """Read `{"type", "id"}`, bare or within `__entity`; an EntityUid is taken as it is. Raises Misfit."""
    if type(data) is dict and len(data) == 2:  # nearly all of them: without the questions below
        kind, name = data.get("type"), data.get("id")
        if type(kind) is str and type(name) is str and is_type_name(kind):
            return EntityUid(kind, name)
    if isinstance(data, EntityUid):
        return data
    if isinstance(data, Mapping) and data.keys() == {"__entity"}:
        return uid_from_json(data["__entity"], f"{pointer}/__entity")
    exact = isinstance(data, Mapping) and data.keys() == {"type", "id"}
    if exact and isinstance(data["type"], str) and isinstance(data["id"], str):
        kind = data["type"]
        if not is_type_name(kind):
            hint = "a type is names joined by `::`: Photos::Album"
            raise Misfit("no_type_name", f"`{kind[:60]}` is no name of an entity type", f"{pointer}/type", hint)
        return EntityUid(kind, data["id"])
    raise Misfit("no_entity", f"{kind_of(data)} is no entity", pointer, 'write {"type": "User", "id": "alice"}')


def value_from_json(data: Any, expected: model.Type | None, pointer: str, depth: int = 0) -> Any:
    """Give the value of JSON, or of Python; `expected` guides the reading, `check_type` is asked after it.

    Python's values are those of `gateway/_native/entities.pyi`: EntityUid, Decimal, tuples, sets and so on stand for
    themselves. Raises Misfit.
    """
    if depth > DEPTH_MAX:
        raise Misfit("too_deep", f"nested more than {DEPTH_MAX} times", pointer, "make it flatter")
    if isinstance(data, str):
        if isinstance(expected, model.ExtensionType):
            return _made(_FUNCTION_OF[expected.name], [data], pointer)
        return data
    if isinstance(data, bool | EntityUid | Decimal | IPAddr | Datetime | Duration):
        return data
    if isinstance(data, int):
        if not _LONG_MIN <= data <= _LONG_MAX:
            raise Misfit("number_too_large", "the number does not fit into 64 bits", pointer, "write it as text")
        return data
    if isinstance(data, list | tuple | set | frozenset):
        element = expected.element if isinstance(expected, model.SetType) else None
        return [value_from_json(each, element, f"{pointer}/{index}", depth + 1) for index, each in enumerate(data)]
    if isinstance(data, Mapping):
        return _from_object(data, expected, pointer, depth)
    hint = "leave an attribute out that has none"
    if isinstance(data, float):
        hint = 'numbers are whole; a decimal is {"__extn": {"fn": "decimal", "arg": "1.5"}}'
    raise Misfit("no_value", f"{kind_of(data)} is no Cedar value", pointer, hint)


def _from_object(data: Mapping[str, Any], expected: model.Type | None, pointer: str, depth: int) -> Any:
    types = expected.attributes if isinstance(expected, model.RecordType) else {}
    if isinstance(expected, model.EntityType) and "__entity" not in data:
        return uid_from_json(data, pointer)
    if isinstance(expected, model.ExtensionType) and "fn" in data:
        return _call(data, pointer, depth, guided=True)
    for name in ("__entity", "__extn", "__expr"):
        # A malformed one is a slip. To take it for a record would change what policies see.
        if name in data and name not in types:
            return _from_escape(name, data, expected is not None, pointer, depth)
    made = {}
    for name, each in data.items():
        if not isinstance(name, str):
            raise Misfit("no_value", "an attribute's name is text", pointer)
        attribute = types.get(name)
        inner = None if attribute is None else attribute.type
        made[name] = value_from_json(each, inner, f"{pointer}/{escaped(name)}", depth + 1)
    return made


def _from_escape(name: str, data: Mapping[str, Any], guided: bool, pointer: str, depth: int) -> Any:
    if name == "__expr":
        raise Misfit("no_value", "`__expr` is not understood any more", pointer, "write `__entity` or `__extn`")
    if len(data) != 1:
        raise Misfit("no_value", f"`{name}` stands alone in its object", pointer, "take the other members out")
    if name == "__entity":
        return uid_from_json(data, pointer)
    return _call(data[name], f"{pointer}/__extn", depth + 1, guided=guided)


def _call(data: Any, pointer: str, depth: int, *, guided: bool) -> Any:
    if depth > DEPTH_MAX:
        raise Misfit("too_deep", f"nested more than {DEPTH_MAX} times", pointer, "make it flatter")
    exact = isinstance(data, Mapping) and data.keys() in ({"fn", "arg"}, {"fn", "args"})
    if not exact or not isinstance(data["fn"], str):
        raise Misfit("no_value", "a call has `fn` and `arg`", pointer, 'write {"fn": "decimal", "arg": "1.5"}')
    function = data["fn"]
    if function not in _FUNCTIONS:
        hint = f"there are {', '.join(_FUNCTIONS)}"
        raise Misfit("unknown_function", f"unknown function `{function[:60]}`", f"{pointer}/fn", hint)
    types, _ = _FUNCTIONS[function]
    given = data["args"] if "args" in data else [data["arg"]]
    if not isinstance(given, list | tuple) or len(given) != len(types):
        raise Misfit("wrong_arguments", f"`{function}` takes {len(types)} argument(s)", pointer)
    arguments = []
    for index, (each, wanted) in enumerate(zip(given, types, strict=True)):
        at = f"{pointer}/args/{index}" if "args" in data else f"{pointer}/arg"
        argument = value_from_json(each, wanted if guided else None, at, depth + 1)
        if not isinstance(argument, _CLASS_OF[wanted.name] if isinstance(wanted, model.ExtensionType) else str):
            raise Misfit("wrong_arguments", f"`{function}` takes {_named(wanted)} here", at)
        arguments.append(argument)
    return _made(function, arguments, pointer)


def _made(function: str, arguments: list[Any], pointer: str) -> Any:
    try:
        return _FUNCTIONS[function][1](*arguments)
    except (ValueError, OverflowError) as error:
        message = f"`{str(arguments[0])[:60]}` is no {function}: {error}"
        raise Misfit("extension_value", message, pointer, _SPELLINGS.get(function, "")) from None


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
                check_uid(value, schema, pointer)
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
        raise Misfit("wrong_type", f"{_named(expected)} is expected here, not {_shown(value)}", pointer)


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


def check_uid(uid: EntityUid, schema: model.Schema, pointer: str) -> None:
    """Refuse an entity that cannot be: of no declared type, none of its choices, or an undeclared action.

    Raises Misfit.
    """
    if uid.type in schema.entities:
        check_choice(uid, schema, pointer)
    elif is_action_type(uid.type):
        if uid not in schema.actions:
            hint = near(str(uid), map(str, schema.actions))
            raise Misfit("undeclared_action", f"undeclared action `{uid}`", pointer, hint)
    else:
        hint = near(uid.type, schema.entities)
        raise Misfit("undeclared_type", f"undeclared entity type `{uid.type}`", pointer, hint)


def is_action_type(name: str) -> bool:
    """Tell whether entities of this type are actions."""
    return name == "Action" or name.endswith("::Action")


def near(name: str, names: Iterable[str]) -> str:
    """Give a hint that names what was probably meant, or nothing."""
    known = list(names)
    # Beyond that many the search would cost more than all the rest.
    if len(known) > 2000 or len(name) > 200:
        return ""
    found = difflib.get_close_matches(name, known, n=1)
    return f"did you mean `{found[0]}`?" if found else ""


def frozen(value: Any) -> object:
    """Give something hashable that is equal for equal values: sets have no order, and True is not 1."""
    if isinstance(value, Mapping):
        return frozenset((name, frozen(each)) for name, each in value.items())
    if isinstance(value, list | tuple | set | frozenset):
        return tuple, frozenset(frozen(each) for each in value)
    return type(value), value


def _shown(value: Any) -> str:
    if isinstance(value, EntityUid):
        return f"`{str(value)[:80]}`"
    for name, kind in _CLASS_OF.items():
        if isinstance(value, kind):
            return f"a value of type `{name}`"
    if isinstance(value, list | tuple | set | frozenset):
        return "a set"
    return "a record" if isinstance(value, Mapping) else kind_of(value)


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
