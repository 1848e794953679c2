"""Cedar's JSON policy format ("EST"), both ways. docs.cedarpolicy.com, "JSON policy format"."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping
from typing import Any, Final, NoReturn

from gateway._native.uid import EntityUid
from gateway.policy.faults import Fault, PolicySyntaxError
from gateway.policy.language import limits, tree
from gateway.policy.language.functions import FUNCTIONS, METHODS, VARIABLES, is_name, is_plain_name
from gateway.policy.language.tree import Constraint, Expr, Statement

_LONG_MIN, _LONG_MAX = -(2**63), 2**63 - 1
_BINARY: Final = frozenset(
    (
        "==",
        "!=",
        "<",
        "<=",
        ">",
        ">=",
        "in",
        "+",
        "-",
        "*",
        "contains",
        "containsAll",
        "containsAny",
        "getTag",
        "hasTag",
    )
)


# --- from the tree ---------------------------------------------------------------------------------------------------


def statement_to_json(statement: Statement) -> dict[str, Any]:
    """Give a policy or template in Cedar's JSON policy format."""
    made: dict[str, Any] = {
        "effect": statement.effect,
        "principal": _constraint_to_json(statement.principal),
        "action": _constraint_to_json(statement.action),
        "resource": _constraint_to_json(statement.resource),
        "conditions": [
            {"kind": condition.kind, "body": expression_to_json(condition.body)} for condition in statement.conditions
        ],
    }
    if statement.annotations:
        made["annotations"] = dict(statement.annotations)
    return made


def _entity_to_json(uid: EntityUid) -> dict[str, str]:
    return {"type": uid.type, "id": uid.id}


def _constraint_to_json(constraint: Constraint) -> dict[str, Any]:
    bound: dict[str, Any] = {}
    if constraint.slot is not None:
        bound = {"slot": constraint.slot.name}
    elif constraint.listed and len(constraint.entities) != 1:
        bound = {"entities": [_entity_to_json(uid) for uid in constraint.entities]}
    elif constraint.entities:
        bound = {"entity": _entity_to_json(constraint.entities[0])}
    if constraint.op == "any":
        return {"op": "All"}
    if constraint.op == "is":
        return {"op": "is", "entity_type": constraint.type}
    if constraint.op == "is in":
        return {"op": "is", "entity_type": constraint.type, "in": bound}
    return {"op": constraint.op, **bound}


def expression_to_json(node: Expr) -> dict[str, Any]:
    """Give an expression in Cedar's JSON policy format; `has a.b` becomes `has a && … has b`, as Cedar writes it."""
    match node:
        case tree.Literal(value):
            return {"Value": {"__entity": _entity_to_json(value)} if isinstance(value, EntityUid) else value}
        case tree.Variable(name):
            return {"Var": name}
        case tree.Slot(name):
            return {"Slot": name}
        case tree.If(test, then, otherwise):
            parts = {"if": test, "then": then, "else": otherwise}
            return {"if-then-else": {name: expression_to_json(part) for name, part in parts.items()}}
        case tree.And(left, right):
            return _pair_to_json("&&", left, right)
        case tree.Or(left, right):
            return _pair_to_json("||", left, right)
        case tree.Not(operand):
            return {"!": {"arg": expression_to_json(operand)}}
        case tree.Negate(operand):
            return {"neg": {"arg": expression_to_json(operand)}}
        case tree.IsEmpty(inner):
            return {"isEmpty": {"arg": expression_to_json(inner)}}
        case tree.Binary(op, left, right):
            return _pair_to_json(op, left, right)
        case tree.GetAttr(inner, name):
            return {".": {"left": expression_to_json(inner), "attr": name}}
        case tree.HasAttr(inner, path):
            return _has_to_json(inner, path)
        case tree.Like(inner, pattern):
            pieces = ["Wildcard" if piece is None else {"Literal": piece} for piece in pattern]
            return {"like": {"left": expression_to_json(inner), "pattern": pieces}}
        case tree.Is(inner, entity_type, container):
            made = {"left": expression_to_json(inner), "entity_type": entity_type}
            return {"is": made if container is None else {**made, "in": expression_to_json(container)}}
        case tree.SetOf(items):
            return {"Set": [expression_to_json(item) for item in items]}
        case tree.RecordOf(fields):
            return {"Record": {name: expression_to_json(item) for name, item in fields}}
        case tree.Call(function, arguments):
            return {function: [expression_to_json(argument) for argument in arguments]}


def _pair_to_json(op: str, left: Expr, right: Expr) -> dict[str, Any]:
    return {op: {"left": expression_to_json(left), "right": expression_to_json(right)}}


def _has_to_json(inner: Expr, path: tuple[str, ...]) -> dict[str, Any]:
    step = expression_to_json(inner)
    made: dict[str, Any] = {"has": {"left": step, "attr": path[0]}}
    for before, name in itertools.pairwise(path):
        step = {".": {"left": step, "attr": before}}
        made = {"&&": {"left": made, "right": {"has": {"left": step, "attr": name}}}}
    return made


# --- to the tree -----------------------------------------------------------------------------------------------------


def statement_from_json(data: Any) -> Statement:
    """Read a policy or template. Raises PolicySyntaxError with the place as a JSON pointer."""
    return _Reader().statement(data)


def expression_from_json(data: Any) -> Expr:
    """Read an expression. Raises PolicySyntaxError with the place as a JSON pointer."""
    return _Reader().expression(data, "", 0)


def entity_from_json(data: Any) -> EntityUid:
    """Read `{"type", "id"}`, also within `__entity`. Raises PolicySyntaxError with the place as a JSON pointer."""
    return _Reader().entity(data, "")


def _fail(pointer: str, code: str, message: str, hint: str = "") -> NoReturn:
    raise PolicySyntaxError([Fault(code, message, hint, pointer=pointer or "/")])


def _escaped(name: str) -> str:
    """Spell a member's name in a pointer (RFC 6901 §3)."""
    return name.replace("~", "~0").replace("/", "~1")


class _Reader:
    """Checks as it reads: nothing passes that the text syntax could not say."""

    def statement(self, data: Any) -> Statement:
        members = self._object(data, "", {"effect", "principal", "action", "resource", "conditions"}, {"annotations"})
        effect = members["effect"]
        if effect not in ("permit", "forbid"):
            _fail("/effect", "unknown_effect", f"`{effect}` is no effect", "write permit or forbid")
        conditions = members["conditions"]
        if not isinstance(conditions, list):
            _fail("/conditions", "ill_typed", "conditions are an array")
        return Statement(
            effect,
            self._constraint(members["principal"], "principal"),
            self._constraint(members["action"], "action"),
            self._constraint(members["resource"], "resource"),
            tuple(self._condition(each, f"/conditions/{index}") for index, each in enumerate(conditions)),
            self._annotations(members.get("annotations", {})),
        )

    def _annotations(self, data: Any) -> dict[str, str | None]:
        if not isinstance(data, Mapping):
            _fail("/annotations", "ill_typed", "annotations are an object")
        for name, value in data.items():
            if not isinstance(value, str | None) or not isinstance(name, str) or not is_name(name):
                _fail(f"/annotations/{_escaped(str(name))}", "ill_typed", "an annotation has a plain name and a text")
            self._text(value or "", f"/annotations/{_escaped(name)}", "an annotation's value")
        return dict(data)

    def _condition(self, data: Any, pointer: str) -> tree.Condition:
        members = self._object(data, pointer, {"kind", "body"})
        if members["kind"] not in ("when", "unless"):
            _fail(f"{pointer}/kind", "unknown_kind", f"`{members['kind']}` is no kind", "write when or unless")
        return tree.Condition(members["kind"], self.expression(members["body"], f"{pointer}/body", 0))

    def _constraint(self, data: Any, name: str) -> Constraint:
        pointer = f"/{name}"
        op = data.get("op") if isinstance(data, Mapping) else None
        if op in ("All", "all"):
            self._object(data, pointer, {"op"})
            return Constraint()
        if op == "is" and name != "action":
            members = self._object(data, pointer, {"op", "entity_type"}, {"in"})
            made = Constraint("is", (), self._type(members["entity_type"], f"{pointer}/entity_type"))
            if "in" in members:
                made.op = "is in"
                self._bound(made, members["in"], f"{pointer}/in", name)
            return made
        if op in ("==", "in"):
            made = Constraint(op)
            self._bound(made, {key: value for key, value in data.items() if key != "op"}, pointer, name)
            return made
        _fail(f"{pointer}/op", "unknown_operator", f"`{op}` is no operator of a scope", "All, ==, in or is")

    def _bound(self, made: Constraint, data: Any, pointer: str, name: str) -> None:
        keys = set(data) if isinstance(data, Mapping) else set()
        if keys == {"entity"}:
            made.entities = (self.entity(data["entity"], f"{pointer}/entity"),)
        elif keys == {"slot"} and name != "action":
            if data["slot"] != "?" + name:
                _fail(f"{pointer}/slot", "wrong_slot", f"the slot of {name} is `?{name}`")
            made.slot = tree.Slot("?principal" if name == "principal" else "?resource")
        elif keys == {"entities"} and name == "action" and made.op == "in" and isinstance(data["entities"], list):
            made.listed = True
            made.entities = tuple(
                self.entity(each, f"{pointer}/entities/{index}") for index, each in enumerate(data["entities"])
            )
        else:
            _fail(pointer, "ill_formed_json", "a constraint names one `entity` or one `slot`")
        if name == "action":
            for uid in made.entities:
                if uid.type != "Action" and not uid.type.endswith("::Action"):
                    _fail(pointer, "no_action", f"`{uid}` is no action", 'actions have the type Action: Action::"read"')

    def entity(self, data: Any, pointer: str) -> EntityUid:
        """Read `{"type", "id"}`, also within `__entity`."""
        if isinstance(data, Mapping) and set(data) == {"__entity"}:
            data, pointer = data["__entity"], f"{pointer}/__entity"
        members = self._object(data, pointer, {"type", "id"})
        uid = self._text(members["id"], f"{pointer}/id", "an entity's id")
        return EntityUid(self._type(members["type"], f"{pointer}/type"), uid)

    def _text(self, data: Any, pointer: str, what: str) -> str:
        if not isinstance(data, str):
            _fail(pointer, "ill_typed", f"{what} is text")
        if not data.isascii() and any("\ud800" <= character <= "\udfff" for character in data):
            _fail(pointer, "lone_surrogate", f"{what} holds half of a character", "half a surrogate pair is no text")
        return data

    def _key(self, name: Any, pointer: str) -> str:
        return self._text(name, pointer, "an attribute's name")

    def _type(self, data: Any, pointer: str) -> str:
        if not isinstance(data, str) or not all(is_plain_name(part) for part in data.split("::")):
            _fail(pointer, "no_type", f"`{data}` is no entity type", "names joined by `::`")
        return data

    def _object(self, data: Any, pointer: str, needed: set[str], allowed: set[str] = frozenset()) -> Mapping[str, Any]:  # type: ignore[assignment]
        if not isinstance(data, Mapping):
            _fail(pointer, "ill_typed", "an object is expected here")
        for name in sorted(needed - data.keys()):
            _fail(pointer, "missing_member", f"the member `{name}` is missing")
        for name in sorted(map(str, data.keys() - needed - allowed)):
            _fail(f"{pointer}/{_escaped(name)}", "unknown_member", f"unknown member `{name}`")
        return data

    def expression(self, data: Any, pointer: str, depth: int) -> Expr:
        """Read the object with one member that an expression is."""
        if depth > limits.JSON_NESTING_MAX:
            _fail(pointer, "too_deep", f"nested more than {limits.JSON_NESTING_MAX} times", "split the policy")
        if not isinstance(data, Mapping) or len(data) != 1:
            _fail(pointer, "ill_formed_json", "an expression is an object with one member")
        [(op, body)] = data.items()
        here = f"{pointer}/{_escaped(str(op))}"
        if op in _BINARY or op in ("&&", "||"):
            return self._binary(op, body, here, depth)
        read = _READERS.get(op)
        if read is not None:
            return read(self, body, here, depth)
        if op in FUNCTIONS or op in METHODS:
            if not isinstance(body, list) or (op in METHODS and not body):
                _fail(here, "ill_typed", "arguments are an array")
            return tree.Call(op, self._many(body, here, depth))
        _fail(here, "unknown_operator", f"no operator or function `{op}`")

    def _many(self, data: list[Any], pointer: str, depth: int) -> tuple[Expr, ...]:
        if len(data) > limits.OPERANDS_MAX:
            _fail(pointer, "too_long", f"more than {limits.OPERANDS_MAX} items", "use a group")
        return tuple(self.expression(each, f"{pointer}/{index}", depth + 1) for index, each in enumerate(data))

    def _binary(self, op: Any, data: Any, pointer: str, depth: int) -> Expr:
        members = self._object(data, pointer, {"left", "right"})
        left = self.expression(members["left"], f"{pointer}/left", depth + 1)
        right = self.expression(members["right"], f"{pointer}/right", depth + 1)
        if op == "&&":
            return tree.And(left, right)
        return tree.Or(left, right) if op == "||" else tree.Binary(op, left, right)

    def _value(self, data: Any, pointer: str, depth: int) -> Expr:
        """Read a constant; `Value` may also hold sets and records of constants, and `__extn`."""
        if depth > limits.JSON_NESTING_MAX:
            _fail(pointer, "too_deep", f"nested more than {limits.JSON_NESTING_MAX} times", "split the policy")
        if isinstance(data, bool):
            return tree.Literal(data)
        if isinstance(data, str):
            return tree.Literal(self._text(data, pointer, "a value"))
        if isinstance(data, int):
            if not _LONG_MIN <= data <= _LONG_MAX:
                _fail(pointer, "number_too_large", f"`{str(data)[:40]}` does not fit into 64 bits")
            return tree.Literal(data)
        if isinstance(data, list):
            items = (self._value(each, f"{pointer}/{index}", depth + 1) for index, each in enumerate(data))
            return tree.SetOf(tuple(items))
        if isinstance(data, Mapping):
            if set(data) == {"__entity"}:
                return tree.Literal(self.entity(data, pointer))
            if set(data) == {"__extn"}:
                return self._extension(data["__extn"], f"{pointer}/__extn")
            fields = (
                (self._key(name, pointer), self._value(each, f"{pointer}/{_escaped(str(name))}", depth + 1))
                for name, each in data.items()
            )
            return tree.RecordOf(tuple(fields))
        _fail(pointer, "ill_typed", "a value is true, false, an integer, a text, an array or an object")

    def _extension(self, data: Any, pointer: str) -> Expr:
        members = self._object(data, pointer, {"fn", "arg"})
        function = members["fn"]
        if not isinstance(function, str) or function not in FUNCTIONS:
            _fail(pointer, "unknown_function", f"`{function}` makes no value of a text", ", ".join(sorted(FUNCTIONS)))
        argument = self._text(members["arg"], f"{pointer}/arg", "what makes the value")
        return tree.Call(function, (tree.Literal(argument),))

    def _variable(self, data: Any, pointer: str, _depth: int) -> Expr:
        if not isinstance(data, str) or data not in VARIABLES:
            _fail(pointer, "unknown_variable", f"no variable `{data}`")
        return tree.Variable(data)  # type: ignore[arg-type]

    def _slot(self, data: Any, pointer: str, _depth: int) -> Expr:
        _fail(pointer, "slot_in_condition", f"the slot `{data}` stands in a condition", "slots fill the head only")

    def _if(self, data: Any, pointer: str, depth: int) -> Expr:
        members = self._object(data, pointer, {"if", "then", "else"})
        test, then, otherwise = (
            self.expression(members[name], f"{pointer}/{name}", depth + 1) for name in ("if", "then", "else")
        )
        return tree.If(test, then, otherwise)

    def _one(self, data: Any, pointer: str, depth: int) -> Expr:
        return self.expression(self._object(data, pointer, {"arg"})["arg"], f"{pointer}/arg", depth + 1)

    def _left(self, members: Mapping[str, Any], pointer: str, depth: int) -> Expr:
        return self.expression(members["left"], f"{pointer}/left", depth + 1)

    def _attribute(self, data: Any, pointer: str, depth: int) -> tuple[Expr, str]:
        members = self._object(data, pointer, {"left", "attr"})
        name = self._text(members["attr"], f"{pointer}/attr", "an attribute's name")
        return self._left(members, pointer, depth), name

    def _get(self, data: Any, pointer: str, depth: int) -> Expr:
        return tree.GetAttr(*self._attribute(data, pointer, depth))

    def _has(self, data: Any, pointer: str, depth: int) -> Expr:
        inner, name = self._attribute(data, pointer, depth)
        return tree.HasAttr(inner, (name,))

    def _like(self, data: Any, pointer: str, depth: int) -> Expr:
        members = self._object(data, pointer, {"left", "pattern"})
        pieces: list[str | None] = []
        for piece in members["pattern"] if isinstance(members["pattern"], list) else [0]:
            if piece == "Wildcard":
                pieces.append(None)
            elif isinstance(piece, Mapping) and set(piece) == {"Literal"} and isinstance(piece["Literal"], str):
                before = pieces.pop() if pieces and pieces[-1] is not None else ""
                pieces.append((before or "") + self._text(piece["Literal"], f"{pointer}/pattern", "a pattern"))
            else:
                _fail(f"{pointer}/pattern", "ill_formed_json", 'a pattern is an array of "Wildcard" and {"Literal": …}')
        return tree.Like(self._left(members, pointer, depth), tuple(piece for piece in pieces if piece != ""))

    def _is(self, data: Any, pointer: str, depth: int) -> Expr:
        members = self._object(data, pointer, {"left", "entity_type"}, {"in"})
        entity_type = self._type(members["entity_type"], f"{pointer}/entity_type")
        container = self.expression(members["in"], f"{pointer}/in", depth + 1) if "in" in members else None
        return tree.Is(self._left(members, pointer, depth), entity_type, container)

    def _set(self, data: Any, pointer: str, depth: int) -> Expr:
        if not isinstance(data, list):
            _fail(pointer, "ill_typed", "a set is an array")
        return tree.SetOf(self._many(data, pointer, depth))

    def _record(self, data: Any, pointer: str, depth: int) -> Expr:
        if not isinstance(data, Mapping):
            _fail(pointer, "ill_typed", "a record is an object")
        if len(data) > limits.OPERANDS_MAX:
            _fail(pointer, "too_long", f"more than {limits.OPERANDS_MAX} fields")
        fields = (
            (self._key(name, pointer), self.expression(each, f"{pointer}/{_escaped(str(name))}", depth + 1))
            for name, each in data.items()
        )
        return tree.RecordOf(tuple(fields))


_READERS: Final[Mapping[str, Callable[[_Reader, Any, str, int], Expr]]] = {
    "Value": _Reader._value,
    "Var": _Reader._variable,
    "Slot": _Reader._slot,
    "if-then-else": _Reader._if,
    "!": lambda reader, data, pointer, depth: tree.Not(reader._one(data, pointer, depth)),
    "neg": lambda reader, data, pointer, depth: tree.Negate(reader._one(data, pointer, depth)),
    "isEmpty": lambda reader, data, pointer, depth: tree.IsEmpty(reader._one(data, pointer, depth)),
    ".": _Reader._get,
    "has": _Reader._has,
    "like": _Reader._like,
    "is": _Reader._is,
    "Set": _Reader._set,
    "Record": _Reader._record,
}
