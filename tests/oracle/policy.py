"""Slow twin of the policy engine: Cedar's evaluator and authorizer, as the specification states them.

Source: docs.cedarpolicy.com ("Authorization", "Operators", "Policy evaluation"). One function, one recursion, plain
Python values: bool, int, str, EntityUid, the extension types, `list` for sets (distinct values), `dict` for records.
Nothing here is shared with the compiler or the machine but the tree.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from gateway._native.extensions import Datetime, Decimal, Duration, IPAddr
from gateway._native.uid import EntityUid
from gateway.policy.language import tree
from tests.oracle import extensions

Value = Any
I64_MIN, I64_MAX = -(2**63), 2**63 - 1


@dataclass(frozen=True)
class Entity:
    """What is known of an entity; `parents` are the direct ones."""

    attributes: Mapping[str, Value] = field(default_factory=dict)
    parents: frozenset[EntityUid] = frozenset()
    tags: Mapping[str, Value] = field(default_factory=dict)


Entities = Mapping[EntityUid, Entity]


@dataclass(frozen=True)
class Request:
    principal: EntityUid
    action: EntityUid
    resource: EntityUid
    context: Mapping[str, Value] = field(default_factory=dict)


@dataclass(frozen=True)
class Verdict:
    allowed: bool
    reasons: frozenset[str]
    errors: frozenset[str]


class Policy(Protocol):
    """What the oracle asks of a policy: `gateway.policy.policy_set.Policy` has it."""

    @property
    def statement(self) -> tree.Statement: ...
    def scope(self) -> tuple[tree.Constraint, tree.Constraint, tree.Constraint]: ...


class EvaluationError(Exception):
    """An expression without a value; `code` says why, by the machine's names."""

    def __init__(self, code: str) -> None:
        super().__init__(code)
        self.code = code


# --- values


def kind(value: Value) -> str:
    """Name the type of a value; `bool` is no number here."""
    match value:
        case bool():
            return "bool"
        case int():
            return "long"
        case str():
            return "string"
        case EntityUid():
            return "entity"
        case list() | tuple() | set() | frozenset():
            return "set"
        case dict():
            return "record"
        case Decimal():
            return "decimal"
        case IPAddr():
            return "ip"
        case Datetime():
            return "datetime"
        case Duration():
            return "duration"
    raise AssertionError(f"no value of Cedar: {value!r}")


def same(a: Value, b: Value) -> bool:
    """Cedar's `==`: false for values of different types, never an error."""
    if kind(a) != kind(b):
        return False
    if kind(a) == "set":
        return all(member(b, item) for item in a) and all(member(a, item) for item in b)
    if kind(a) == "record":
        return a.keys() == b.keys() and all(same(a[name], b[name]) for name in a)
    return bool(a == b)


def member(items: Iterable[Value], wanted: Value) -> bool:
    """Say whether a set has `wanted`."""
    return any(same(item, wanted) for item in items)


def distinct(items: Iterable[Value]) -> list[Value]:
    """Give a set of `items`."""
    made: list[Value] = []
    for item in items:
        if not member(made, item):
            made.append(item)
    return made


def expect(value: Value, *kinds: str) -> Value:
    """Give `value` back if it is of one of the types, else raise the type error."""
    if kind(value) not in kinds:
        raise EvaluationError("type_error")
    return value


def i64(number: int) -> int:
    """Give `number` back if 64 bits hold it, else raise the overflow."""
    if not I64_MIN <= number <= I64_MAX:
        raise EvaluationError("integer_overflow")
    return number


# --- entities


def is_in(a: EntityUid, b: EntityUid, entities: Entities) -> bool:
    """Say whether `b` is `a` or one of its ancestors."""
    if a == b:
        return True
    return a in entities and any(is_in(parent, b, entities) for parent in entities[a].parents)


def is_in_any(a: Value, b: Value, entities: Entities) -> bool:
    """Cedar's `in`: every element of a set must be an entity, also behind the one that matches."""
    expect(a, "entity")
    if kind(expect(b, "entity", "set")) == "entity":
        return is_in(a, b, entities)
    containers = [expect(item, "entity") for item in b]
    return any(is_in(a, container, entities) for container in containers)


def has(value: Value, name: str, entities: Entities) -> bool:
    """Cedar's `has`: false for an entity that is not defined."""
    if kind(expect(value, "record", "entity")) == "record":
        return name in value
    return value in entities and name in entities[value].attributes


def get(value: Value, name: str, entities: Entities) -> Value:
    """Cedar's `.`: an error where there is no such attribute."""
    if kind(expect(value, "record", "entity")) == "record":
        attributes = value
    elif value in entities:
        attributes = entities[value].attributes
    else:
        raise EvaluationError("missing_entity")
    if name not in attributes:
        raise EvaluationError("missing_attribute")
    return attributes[name]


def matches(text: str, pattern: tree.Pattern) -> bool:
    """Cedar's `like`: None stands for any text."""
    reached = {0}  # where in the text the pattern so far may end
    for piece in pattern:
        if piece is None:
            reached = {end for end in range(len(text) + 1) if any(start <= end for start in reached)}
        else:
            reached = {start + len(piece) for start in reached if text.startswith(piece, start)}
    return len(text) in reached


# --- expressions


def evaluate(expr: tree.Expr, request: Request, entities: Entities) -> Value:
    """Give the value of `expr`. Raises EvaluationError."""

    def value(inner: tree.Expr) -> Value:
        return evaluate(inner, request, entities)

    def truth(inner: tree.Expr) -> bool:
        return bool(expect(value(inner), "bool"))

    match expr:
        case tree.Literal(literal):
            return literal
        case tree.Variable(name):
            return getattr(request, name)
        case tree.If(test, then, otherwise):
            return value(then) if truth(test) else value(otherwise)
        case tree.And(left, right):
            return truth(left) and truth(right)
        case tree.Or(left, right):
            return truth(left) or truth(right)
        case tree.Not(operand):
            return not truth(operand)
        case tree.Negate(operand):
            return i64(-expect(value(operand), "long"))
        case tree.Binary(op, left, right):
            return binary(op, value(left), value(right), entities)
        case tree.GetAttr(inner, name):
            return get(value(inner), name, entities)
        case tree.HasAttr(inner, path):
            found = value(inner)
            for name in path[:-1]:
                if not has(found, name, entities):
                    return False
                found = get(found, name, entities)
            return has(found, path[-1], entities)
        case tree.Like(inner, pattern):
            return matches(expect(value(inner), "string"), pattern)
        case tree.Is(inner, type_name, container):
            subject = expect(value(inner), "entity")
            if subject.type != type_name:
                return False
            return container is None or is_in_any(subject, value(container), entities)
        case tree.IsEmpty(inner):
            return len(expect(value(inner), "set")) == 0
        case tree.SetOf(items):
            return distinct([value(item) for item in items])
        case tree.RecordOf(pairs):
            return {name: value(item) for name, item in pairs}
        case tree.Call(function, arguments):
            values = tuple(value(argument) for argument in arguments)
            try:
                return extensions.call(function, values)
            except TypeError:
                raise EvaluationError("type_error") from None
            except ValueError:
                raise EvaluationError("extension_error") from None
    raise AssertionError(f"no expression: {expr!r}")


def binary(op: tree.BinaryOp, a: Value, b: Value, entities: Entities) -> Value:
    """Apply an operator to two values. Raises EvaluationError."""
    match op:
        case "==":
            return same(a, b)
        case "!=":
            return not same(a, b)
        case "<" | "<=" | ">" | ">=":
            if kind(expect(a, "long", "datetime", "duration")) != kind(b):
                raise EvaluationError("type_error")
            x, y = (a, b) if kind(a) == "long" else (a.number, b.number)
            return {"<": x < y, "<=": x <= y, ">": x > y, ">=": x >= y}[op]
        case "+":
            return i64(expect(a, "long") + expect(b, "long"))
        case "-":
            return i64(expect(a, "long") - expect(b, "long"))
        case "*":
            return i64(expect(a, "long") * expect(b, "long"))
        case "in":
            return is_in_any(a, b, entities)
        case "contains":
            return member(expect(a, "set"), b)
        case "containsAll":
            a, b = expect(a, "set"), expect(b, "set")
            return all(member(a, item) for item in b)
        case "containsAny":
            a, b = expect(a, "set"), expect(b, "set")
            return any(member(a, item) for item in b)
        case "hasTag":
            expect(a, "entity"), expect(b, "string")
            return a in entities and b in entities[a].tags
        case "getTag":
            expect(a, "entity"), expect(b, "string")
            if a not in entities:
                raise EvaluationError("missing_entity")
            if b not in entities[a].tags:
                raise EvaluationError("missing_tag")
            return entities[a].tags[b]


# --- policies


def in_scope(constraint: tree.Constraint, uid: EntityUid, entities: Entities) -> bool:
    """Say whether a scope's constraint lets `uid` in."""
    if constraint.type is not None and uid.type != constraint.type:
        return False
    match constraint.op:
        case "==":
            return uid == constraint.entities[0]
        case "in" | "is in":
            return any(is_in(uid, entity, entities) for entity in constraint.entities)
    return True


def satisfied(policy: Policy, request: Request, entities: Entities) -> bool:
    """Say whether a policy's scope and all its conditions hold. Raises EvaluationError."""
    principal, action, resource = policy.scope()
    if not (
        in_scope(principal, request.principal, entities)
        and in_scope(action, request.action, entities)
        and in_scope(resource, request.resource, entities)
    ):
        return False
    for condition in policy.statement.conditions:
        held = expect(evaluate(condition.body, request, entities), "bool")
        if held is not (condition.kind == "when"):
            return False
    return True


def authorize(policies: Mapping[str, Policy], request: Request, entities: Entities) -> Verdict:
    """Decide: no forbid and at least one permit. A policy with an error is left out, and named."""
    found: dict[str, set[str]] = {"permit": set(), "forbid": set()}
    errors = set()
    for policy_id, policy in policies.items():
        try:
            if satisfied(policy, request, entities):
                found[policy.statement.effect].add(policy_id)
        except EvaluationError:
            errors.add(policy_id)
    reasons = found["forbid"] or found["permit"]
    return Verdict(bool(found["permit"]) and not found["forbid"], frozenset(reasons), frozenset(errors))
