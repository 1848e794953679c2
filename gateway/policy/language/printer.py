"""Trees to text: what policy JSON, or a tree that was made, says in Cedar's syntax.

Brackets stand only where the tree needs them, so that reading the text gives the same tree.
"""

from __future__ import annotations

from typing import Final

from gateway._native.uid import EntityUid, quoted
from gateway.policy.language import tree
from gateway.policy.language.format import format_policies
from gateway.policy.language.functions import FUNCTIONS, OPERATORS, is_plain_name
from gateway.policy.language.tree import Constraint, Expr, Statement

# How tightly an expression binds; an operand that binds less tightly than its place asks for stands in brackets.
_IF, _OR, _AND, _RELATION, _SUM, _PRODUCT, _UNARY, _MEMBER = range(8)
_POWERS: Final = {
    **dict.fromkeys(("==", "!=", "<", "<=", ">", ">=", "in"), _RELATION),
    **dict.fromkeys(("+", "-"), _SUM),
    "*": _PRODUCT,
}
_SIGNS_MAX: Final = 4  # in a row, as the grammar has it


def print_statement(statement: Statement, *, width: int = 80) -> str:
    """Give a policy or template as text, laid out as `format_policies` does, without the line's end."""
    head = (
        _constraint("principal", statement.principal),
        _constraint("action", statement.action),
        _constraint("resource", statement.resource),
    )
    parts = [
        f"@{name}" if value is None else f"@{name}({quoted(value)})" for name, value in statement.annotations.items()
    ]
    parts.append(f"{statement.effect} ({', '.join(head)})")
    parts += [f"{condition.kind} {{ {print_expression(condition.body)} }}" for condition in statement.conditions]
    return format_policies(" ".join(parts) + ";", width=width).rstrip("\n")


def print_expression(node: Expr) -> str:
    """Give an expression as text on one line."""
    return _print(node, _IF)


def _constraint(name: str, constraint: Constraint) -> str:
    bound: str
    if constraint.slot is not None:
        bound = constraint.slot.name
    elif constraint.listed:
        bound = f"[{', '.join(map(str, constraint.entities))}]"
    else:
        bound = str(constraint.entities[0]) if constraint.entities else ""
    match constraint.op:
        case "any":
            return name
        case "is":
            return f"{name} is {constraint.type}"
        case "is in":
            return f"{name} is {constraint.type} in {bound}"
        case op:
            return f"{name} {op} {bound}"


def _print(node: Expr, power_min: int) -> str:
    text, power = _spell(node)
    return text if power >= power_min else f"({text})"


def _spell(node: Expr) -> tuple[str, int]:
    """Give the text of a node, and how tightly it binds."""
    match node:
        case tree.Literal(value):
            return _literal(value)
        case tree.Variable(name) | tree.Slot(name):
            return name, _MEMBER
        case tree.If(test, then, otherwise):
            parts = (print_expression(part) for part in (test, then, otherwise))
            return "if {} then {} else {}".format(*parts), _IF
        case tree.Or(left, right):
            return f"{_print(left, _OR)} || {_print(right, _AND)}", _OR
        case tree.And(left, right):
            return f"{_print(left, _AND)} && {_print(right, _RELATION)}", _AND
        case tree.Not():
            return _signed(node, "!"), _UNARY
        case tree.Negate():
            return _signed(node, "-"), _UNARY
        case tree.Binary(op, left, right):
            return _binary(op, left, right)
        case tree.HasAttr(inner, path):
            return _has(inner, path)
        case tree.Like(inner, pattern):
            return f"{_print(inner, _SUM)} like {_pattern(pattern)}", _RELATION
        case tree.Is(inner, entity_type, container):
            within = "" if container is None else f" in {_print(container, _SUM)}"
            return f"{_print(inner, _SUM)} is {entity_type}{within}", _RELATION
        case tree.GetAttr(inner, name):
            access = f".{name}" if is_plain_name(name) else f"[{quoted(name)}]"
            return _print(inner, _MEMBER) + access, _MEMBER
        case tree.IsEmpty(inner):
            return f"{_print(inner, _MEMBER)}.isEmpty()", _MEMBER
        case tree.SetOf(items):
            return f"[{_several(items)}]", _MEMBER
        case tree.RecordOf(fields):
            inside = ", ".join(
                f"{name if is_plain_name(name) else quoted(name)}: {print_expression(item)}" for name, item in fields
            )
            return f"{{{inside}}}", _MEMBER
        case tree.Call(function, arguments):
            if function in FUNCTIONS:
                return f"{function}({_several(arguments)})", _MEMBER
            return f"{_print(arguments[0], _MEMBER)}.{function}({_several(arguments[1:])})", _MEMBER


def _literal(value: bool | int | str | EntityUid) -> tuple[str, int]:
    if isinstance(value, bool):
        return ("true" if value else "false"), _MEMBER
    if isinstance(value, int):
        return str(value), _MEMBER if value >= 0 else _UNARY
    return (quoted(value) if isinstance(value, str) else str(value)), _MEMBER


def _signed(node: tree.Not | tree.Negate, sign: str) -> str:
    """Spell a run of the same sign, at most as many as the grammar takes in a row."""
    kind = type(node)
    count = 0
    inner: Expr = node
    while isinstance(inner, kind) and count < _SIGNS_MAX:
        count += 1
        inner = inner.operand
    if sign == "-" and isinstance(inner, tree.Literal) and type(inner.value) is int:
        # A sign before digits belongs to them: `-(1)` negates 1, `--1` negates -1.
        return sign * count + (str(inner.value) if inner.value < 0 and count < _SIGNS_MAX else f"({inner.value})")
    return sign * count + _print(inner, _MEMBER)


def _binary(op: str, left: Expr, right: Expr) -> tuple[str, int]:
    if op in OPERATORS:
        return f"{_print(left, _MEMBER)}.{op}({print_expression(right)})", _MEMBER
    power = _POWERS[op]
    # Comparisons do not chain; `+`, `-` and `*` nest to the left.
    return f"{_print(left, _SUM if power == _RELATION else power)} {op} {_print(right, power + 1)}", power


def _has(inner: Expr, path: tuple[str, ...]) -> tuple[str, int]:
    if len(path) == 1 and not is_plain_name(path[0]):
        return f"{_print(inner, _SUM)} has {quoted(path[0])}", _RELATION
    return f"{_print(inner, _SUM)} has {'.'.join(path)}", _RELATION


def _pattern(pattern: tree.Pattern) -> str:
    inside = ("*" if piece is None else quoted(piece)[1:-1].replace("*", "\\*") for piece in pattern)
    return f'"{"".join(inside)}"'


def _several(items: tuple[Expr, ...]) -> str:
    return ", ".join(map(print_expression, items))
