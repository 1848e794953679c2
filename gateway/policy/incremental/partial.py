"""What is left of an expression when only some of a request is known.

Goal: `principal.level >= resource.sensitivity` becomes `7 >= resource.sensitivity` once the principal is known, so that
what is left can be kept and finished for each resource.

The law: for every way to fill the unknown variables, what is left gives the same value, or the same kind of failure,
as the whole. So
- a node whose operands are all values is replaced by its value where it has one; what fails stays, and fails again;
- `false && x` is false and `true || x` is true whatever x is, but `x && false` stays: x may fail;
- `true && x` becomes x only where x is surely a boolean, for `true && 1` fails and `1` does not;
- a variable that is unknown stays.

Values are computed by the machine itself (`evaluate`), never here, so that the two cannot differ.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from gateway._native.extensions import Datetime, Decimal, Duration, IPAddr
from gateway._native.uid import EntityUid
from gateway.policy.language import tree
from gateway.policy.language.tree import Expr

Evaluate = Callable[[Expr], Any]
"""Give the value of an expression without variables; raises what `failures` names."""

_CONSTRUCTORS: Mapping[type, str] = {IPAddr: "ip", Decimal: "decimal", Datetime: "datetime", Duration: "duration"}
_BOOLEAN_NODES = (tree.Not, tree.And, tree.Or, tree.HasAttr, tree.Like, tree.Is, tree.IsEmpty)
_BOOLEAN_OPERATORS = frozenset(
    ("==", "!=", "<", "<=", ">", ">=", "in", "contains", "containsAll", "containsAny", "hasTag")
)
_READING_OPERATORS = frozenset(("in", "getTag", "hasTag"))


def tree_of(value: Any) -> Expr:
    """Spell a value as an expression that gives it."""
    if isinstance(value, bool | int | str | EntityUid):
        return tree.Literal(value)
    if isinstance(value, Mapping):
        return tree.RecordOf(tuple((name, tree_of(item)) for name, item in value.items()))
    if isinstance(value, tuple | list | set | frozenset):
        return tree.SetOf(tuple(tree_of(item) for item in value))
    if isinstance(value, Datetime) and not value.is_spellable:
        epoch = tree.Call("datetime", (tree.Literal("1970-01-01"),))
        return tree.Call("offset", (epoch, tree_of(Duration(value.number))))
    return tree.Call(_CONSTRUCTORS[type(value)], (tree.Literal(str(value)),))


def is_boolean(node: Expr) -> bool:
    """Tell whether `node`, where it gives a value at all, surely gives a boolean."""
    if isinstance(node, tree.Literal):
        return isinstance(node.value, bool)
    if isinstance(node, tree.Binary):
        return node.op in _BOOLEAN_OPERATORS
    if isinstance(node, tree.If):
        return is_boolean(node.then) and is_boolean(node.otherwise)
    return isinstance(node, _BOOLEAN_NODES)


def _is_true(node: Expr) -> bool:
    return isinstance(node, tree.Literal) and node.value is True


def _is_false(node: Expr) -> bool:
    return isinstance(node, tree.Literal) and node.value is False


class Partial:
    """Reduces expressions for one set of known variables.

    `known` gives the values of variables; the others stay. `reads` collects every entity whose attributes, tags or
    ancestors a replaced node was computed from: when none of them changed, what is left is still right.
    """

    def __init__(self, known: Mapping[str, Any], evaluate: Evaluate, failures: tuple[type[Exception], ...]) -> None:
        self._known = {name: tree_of(value) for name, value in known.items()}
        self._evaluate = evaluate
        self._failures = failures
        self.reads: set[EntityUid] = set()

    def reduce(self, node: Expr) -> Expr:
        """Give what is left of `node`; the same object where nothing could be done."""
        return _REDUCE[type(node)](self, node)

    # --- leaves

    def _stays(self, node: Expr) -> Expr:
        return node

    def _variable(self, node: tree.Variable) -> Expr:
        return self._known.get(node.name, node)

    # --- what decides before all operands are looked at

    def _and(self, node: tree.And) -> Expr:
        left = self.reduce(node.left)
        if _is_false(left):
            return left
        right = self.reduce(node.right)
        if _is_true(left) and is_boolean(right):
            return right
        if _is_true(right) and is_boolean(left):
            return left
        return _rebuilt(node, (node.left, node.right), (left, right), lambda: tree.And(left, right))

    def _or(self, node: tree.Or) -> Expr:
        left = self.reduce(node.left)
        if _is_true(left):
            return left
        right = self.reduce(node.right)
        if _is_false(left) and is_boolean(right):
            return right
        if _is_false(right) and is_boolean(left):
            return left
        return _rebuilt(node, (node.left, node.right), (left, right), lambda: tree.Or(left, right))

    def _if(self, node: tree.If) -> Expr:
        test = self.reduce(node.test)
        if _is_true(test):
            return self.reduce(node.then)
        if _is_false(test):
            return self.reduce(node.otherwise)
        then, otherwise = self.reduce(node.then), self.reduce(node.otherwise)
        before, after = (node.test, node.then, node.otherwise), (test, then, otherwise)
        return _rebuilt(node, before, after, lambda: tree.If(test, then, otherwise))

    # --- what needs all operands

    def _not(self, node: tree.Not) -> Expr:
        operand = self.reduce(node.operand)
        return self._finished(_rebuilt(node, (node.operand,), (operand,), lambda: tree.Not(operand)), operand)

    def _negate(self, node: tree.Negate) -> Expr:
        operand = self.reduce(node.operand)
        return self._finished(_rebuilt(node, (node.operand,), (operand,), lambda: tree.Negate(operand)), operand)

    def _binary(self, node: tree.Binary) -> Expr:
        left, right = self.reduce(node.left), self.reduce(node.right)
        made = _rebuilt(node, (node.left, node.right), (left, right), lambda: tree.Binary(node.op, left, right))
        reading = left if node.op in _READING_OPERATORS else None
        return self._finished(made, left, right, reading=reading)

    def _get(self, node: tree.GetAttr) -> Expr:
        inner = self.reduce(node.object)
        made = _rebuilt(node, (node.object,), (inner,), lambda: tree.GetAttr(inner, node.name))
        return self._finished(made, inner, reading=inner)

    def _has(self, node: tree.HasAttr) -> Expr:
        inner = self.reduce(node.object)
        made = _rebuilt(node, (node.object,), (inner,), lambda: tree.HasAttr(inner, node.path))
        if not _is_value(inner):
            return made
        self._note_path(inner, node.path)
        return self._finished(made, inner, reading=inner)

    def _note_path(self, inner: Expr, path: tuple[str, ...]) -> None:
        """Note the entities on the way of `has a.b.c`: each step but the last may lead to another one."""
        step: Expr = inner
        for name in path[:-1]:
            if isinstance(step, tree.Literal) and isinstance(step.value, EntityUid):
                self.reads.add(step.value)
            try:
                step = tree_of(self._evaluate(tree.GetAttr(step, name)))
            except self._failures:
                return
        if isinstance(step, tree.Literal) and isinstance(step.value, EntityUid):
            self.reads.add(step.value)

    def _like(self, node: tree.Like) -> Expr:
        inner = self.reduce(node.object)
        return self._finished(_rebuilt(node, (node.object,), (inner,), lambda: tree.Like(inner, node.pattern)), inner)

    def _is(self, node: tree.Is) -> Expr:
        inner = self.reduce(node.object)
        if node.container is None:
            return self._finished(_rebuilt(node, (node.object,), (inner,), lambda: tree.Is(inner, node.type)), inner)
        container = self.reduce(node.container)
        before, after = (node.object, node.container), (inner, container)
        made = _rebuilt(node, before, after, lambda: tree.Is(inner, node.type, container))
        return self._finished(made, inner, container, reading=inner)

    def _is_empty(self, node: tree.IsEmpty) -> Expr:
        inner = self.reduce(node.object)
        return self._finished(_rebuilt(node, (node.object,), (inner,), lambda: tree.IsEmpty(inner)), inner)

    def _set(self, node: tree.SetOf) -> Expr:
        items = tuple(self.reduce(item) for item in node.items)
        return _rebuilt(node, node.items, items, lambda: tree.SetOf(items))

    def _record(self, node: tree.RecordOf) -> Expr:
        items = tuple((name, self.reduce(item)) for name, item in node.items)
        before, after = tuple(item for _, item in node.items), tuple(item for _, item in items)
        return _rebuilt(node, before, after, lambda: tree.RecordOf(items))

    def _call(self, node: tree.Call) -> Expr:
        arguments = tuple(self.reduce(argument) for argument in node.arguments)
        made = _rebuilt(node, node.arguments, arguments, lambda: tree.Call(node.function, arguments))
        if node.function in _CONSTRUCTORS.values() and all(isinstance(each, tree.Literal) for each in arguments):
            return made  # the spelling of a value already, or of a failure
        return self._finished(made, *arguments)

    def _finished(self, node: Expr, *operands: Expr, reading: Expr | None = None) -> Expr:
        """Replace a node whose operands are all values by its value, where it has one."""
        if not all(_is_value(operand) for operand in operands):
            return node
        if isinstance(reading, tree.Literal) and isinstance(reading.value, EntityUid):
            self.reads.add(reading.value)
        try:
            value = tree_of(self._evaluate(node))
        except self._failures:
            return node
        value.start, value.end = node.start, node.end
        return value


def _rebuilt(node: Expr, before: tuple[Expr, ...], after: tuple[Expr, ...], make: Callable[[], Expr]) -> Expr:
    """Give `node` where no part of it changed, else what `make` makes, in the same place of the text."""
    if all(old is new for old, new in zip(before, after, strict=True)):
        return node
    made = make()
    made.start, made.end = node.start, node.end
    return made


def _is_value(node: Expr) -> bool:
    """Tell whether an expression only spells a value."""
    if isinstance(node, tree.Literal):
        return True
    if isinstance(node, tree.SetOf):
        return all(_is_value(item) for item in node.items)
    if isinstance(node, tree.RecordOf):
        return all(_is_value(item) for _, item in node.items)
    if isinstance(node, tree.Call):
        return node.function in _CONSTRUCTORS.values() and all(
            isinstance(each, tree.Literal) for each in node.arguments
        )
    return False


_REDUCE: Mapping[type, Callable[[Partial, Any], Expr]] = {
    tree.Literal: Partial._stays,
    tree.Slot: Partial._stays,
    tree.Variable: Partial._variable,
    tree.And: Partial._and,
    tree.Or: Partial._or,
    tree.If: Partial._if,
    tree.Not: Partial._not,
    tree.Negate: Partial._negate,
    tree.Binary: Partial._binary,
    tree.GetAttr: Partial._get,
    tree.HasAttr: Partial._has,
    tree.Like: Partial._like,
    tree.Is: Partial._is,
    tree.IsEmpty: Partial._is_empty,
    tree.SetOf: Partial._set,
    tree.RecordOf: Partial._record,
    tree.Call: Partial._call,
}
