"""Filters: read within limits, and what of them the directory's indexes answer.

A filter's conjuncts that the directory knows become its conditions. Where all of them do, the directory gives the page
and the total; otherwise what it gives is looked through, resource by resource.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final, Literal

from scim2_models import InvalidFilterException, ScimFilter
from scim2_models.path.expressions import AttrPath, Comparison, FilterNode, LogicalExpr, Not, Present, ValuePath

from gateway.flows.scim.limits import ScimLimits
from gateway.stores.directory import Condition, Operator

Kind = Literal["User", "Group"]

_TEXT: Final = frozenset({"eq", "co", "sw", "ew"})
_EXACT: Final = frozenset({"eq"})
_ORDER: Final = frozenset({"gt", "ge", "lt", "le"})
_CORE: Final = "urn:ietf:params:scim:schemas:core:2.0:"
_ROUNDING_S: Final = 0.001  # clients see milliseconds

# What a path is in the directory, and by which operators it can be looked for there as SCIM means them.
_COMMON: Final[dict[str, tuple[str, frozenset[str]]]] = {
    "id": ("id", _EXACT),
    "externalid": ("external_id", _EXACT),
}
_FIELDS: Final[dict[Kind, dict[str, tuple[str, frozenset[str]]]]] = {
    "User": {
        **_COMMON,
        "username": ("user_name", _TEXT),
        "emails": ("email", _TEXT),
        "emails.value": ("email", _TEXT),
        "groups": ("group", _EXACT),
        "groups.value": ("group", _EXACT),
    },
    "Group": {
        **_COMMON,
        "displayname": ("display_name", _TEXT),
        "members": ("member", _EXACT),
        "members.value": ("member", _EXACT),
    },
}
_TIMES: Final = {"meta.created": "created_s", "meta.lastmodified": "changed_s"}
_QUOTED: Final = re.compile(r'"(?:[^"\\]|\\.)*"?')


@dataclass(frozen=True, slots=True)
class Pushed:
    """What the directory is asked for a filter. `whole`: that is all of the filter."""

    conditions: tuple[Condition, ...]
    whole: bool


def check_text(text: str, limits: ScimLimits) -> None:
    """Refuse a filter or path that is too long or too deep, before anybody reads it. Raises InvalidFilterException."""
    if len(text.encode("utf-8", "surrogatepass")) > limits.filter_bytes:
        raise InvalidFilterException(detail=f"a filter has at most {limits.filter_bytes} bytes")
    depth = deepest = 0
    for mark in _QUOTED.sub("", text):
        if mark in "([":
            depth += 1
            deepest = max(deepest, depth)
        elif mark in ")]":
            depth -= 1
    if deepest > limits.filter_depth:
        raise InvalidFilterException(detail=f"parentheses stand within each other {limits.filter_depth} times at most")


def check_terms(tree: FilterNode, limits: ScimLimits) -> None:
    """Refuse a filter of too many comparisons. Raises InvalidFilterException."""
    if sum(1 for _ in _terms(tree)) > limits.filter_terms:
        raise InvalidFilterException(detail=f"a filter has at most {limits.filter_terms} comparisons")


def _terms(tree: FilterNode) -> Iterator[FilterNode]:
    match tree:
        case LogicalExpr():
            for term in tree.terms:
                yield from _terms(term)
        case Not():
            yield from _terms(tree.expr)
        case ValuePath():
            yield from _terms(tree.val_filter)
        case _:
            yield tree


def names_in(tree: FilterNode) -> frozenset[str]:
    """Give the names of the attributes that a filter looks at, in lower case."""
    match tree:
        case LogicalExpr():
            return frozenset[str]().union(*(names_in(term) for term in tree.terms))
        case Not():
            return names_in(tree.expr)
        case ValuePath() | Comparison() | Present():
            return frozenset({tree.attr_path.attr.lower()})
        case _:
            return frozenset()


def pushed(found: ScimFilter[Any] | None, kind: Kind) -> Pushed:
    """Give what of a filter the directory answers."""
    if found is None:
        return Pushed((), True)
    conditions: list[Condition] = []
    whole = True
    for term in _conjuncts(found.ast):
        condition, is_all = _condition(term, kind)
        if condition is not None:
            conditions.append(condition)
        whole = whole and is_all
    return Pushed(tuple(conditions), whole)


def _conjuncts(tree: FilterNode) -> Iterator[FilterNode]:
    if isinstance(tree, LogicalExpr) and tree.op == "and":
        for term in tree.terms:
            yield from _conjuncts(term)
    else:
        yield tree


def _condition(term: FilterNode, kind: Kind) -> tuple[Condition | None, bool]:
    """Give a condition that holds wherever the term does, and whether the term holds wherever it does."""
    if isinstance(term, ValuePath):
        inner = term.val_filter
        is_plain = isinstance(inner, Comparison) and inner.attr_path.attr.lower() == "value"
        if term.sub_attr or not is_plain:
            return None, False
        assert isinstance(inner, Comparison)
        return _compared(f"{_name(term.attr_path, kind)}.value", inner, kind)
    if isinstance(term, Comparison):
        return _compared(_name(term.attr_path, kind), term, kind)
    return None, False


def _compared(name: str, term: Comparison, kind: Kind) -> tuple[Condition | None, bool]:
    operator, value = str(term.op.value), term.value
    if name in _TIMES and operator in _ORDER | _EXACT and isinstance(value, str):
        return _time_condition(_TIMES[name], operator, value), False
    if name == "active" and kind == "User" and operator in ("eq", "ne") and isinstance(value, bool):
        return Condition("active", "eq" if operator == "eq" else "ne", value), True
    field, operators = _FIELDS[kind].get(name, ("", frozenset[str]()))
    if operator not in operators or not isinstance(value, str) or not value or "\0" in value:
        return None, False
    return Condition(field, _operator(operator), value), True


def _time_condition(field: str, operator: str, value: str) -> Condition | None:
    """Widen by what clients cannot see of a time; the rest is looked at one by one."""
    try:
        at_s = datetime.fromisoformat(value).timestamp()
    except ValueError:
        return None
    if operator in ("gt", "ge", "eq"):
        return Condition(field, "ge", at_s - _ROUNDING_S)
    return Condition(field, "le", at_s + _ROUNDING_S)


def _operator(name: str) -> Operator:
    operators: dict[str, Operator] = {"eq": "eq", "co": "co", "sw": "sw", "ew": "ew"}
    return operators[name]


def _name(path: AttrPath, kind: Kind) -> str:
    """Give the lower-case name of a path; one of another schema has none."""
    if path.uri and path.uri.lower() != f"{_CORE}{kind}".lower():
        return ""
    return path.attr.lower() + (f".{path.sub_attr.lower()}" if path.sub_attr else "")
