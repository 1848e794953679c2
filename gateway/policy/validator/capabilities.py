"""What a test that held has shown: attributes and tags that are known to be there.

After `principal has manager && …` the right side may read `principal.manager`. The type of an expression comes with the
set of what is known once it is true; it is handed to the right of `&&`, into `then`, and nowhere else. An expression is
recognised by its shape: two of the same shape have the same value, as nothing changes during a decision.
"""

from __future__ import annotations

from collections.abc import Hashable
from typing import Final

from gateway.policy.language import tree

Capabilities = frozenset[tuple[str, Hashable, Hashable]]
NOTHING: Final[Capabilities] = frozenset()


def attribute(target: Hashable, name: str) -> Capabilities:
    """Know that the expression of the shape `target` has the attribute."""
    return frozenset((("attribute", target, name),))


def tag(target: Hashable, key: Hashable) -> Capabilities:
    """Know that the entity of the shape `target` has the tag whose key has the shape `key`."""
    return frozenset((("tag", target, key),))


def shape_of(node: tree.Expr) -> Hashable:
    """Give a value that is equal for expressions of one shape, wherever they stand.

    Operators that are written with others are told by these, as Cedar does: `a != b` is `!(a == b)`, `a > b` is
    `!(a <= b)`, `e is T in c` is `e is T && e in c`.
    """
    match node:
        case tree.Variable(name):
            return name
        case tree.Literal(value):
            return (type(value).__name__, value)  # True, 1 and "1" differ
        case tree.GetAttr(inner, name):
            return ("get", shape_of(inner), name)
        case tree.HasAttr(inner, path):
            return _has_shape(shape_of(inner), path)
        case tree.And() | tree.Or():
            return (type(node).__name__, *_operands(node, type(node)))
        case tree.Not(inner):
            return ("!", shape_of(inner))
        case tree.Binary(op, left, right):
            return _binary_shape(op, shape_of(left), shape_of(right))
        case tree.Is(inner, name, container):
            test = ("is", shape_of(inner), name)
            return test if container is None else ("And", test, ("in", shape_of(inner), shape_of(container)))
        case tree.Like(inner, pattern):
            return ("like", shape_of(inner), pattern)
        case tree.RecordOf(items):
            return ("record", frozenset((name, shape_of(item)) for name, item in items))
        case tree.Call(function, arguments):
            return ("call", function, *map(shape_of, arguments))
    return (type(node).__name__, *map(shape_of, tree.children(node)))


def _operands(node: tree.And | tree.Or, kind: type[tree.And] | type[tree.Or]) -> list[Hashable]:
    """Give the operands of a chain in their order: the reader is free to nest it to either side."""
    found: list[Hashable] = []
    waiting: list[tree.Expr] = [node]
    while waiting:
        each = waiting.pop()
        if isinstance(each, kind):
            waiting += (each.right, each.left)
        else:
            found.append(shape_of(each))
    return found


def _binary_shape(op: tree.BinaryOp, left: Hashable, right: Hashable) -> Hashable:
    if op == "!=":
        return ("!", ("==", left, right))
    if op == ">":
        return ("!", ("<=", left, right))
    if op == ">=":
        return ("!", ("<", left, right))
    return (op, left, right)


def _has_shape(target: Hashable, path: tuple[str, ...]) -> Hashable:
    steps: list[Hashable] = []
    for name in path:
        steps.append(("has", target, name))
        target = ("get", target, name)
    return steps[0] if len(steps) == 1 else ("And", *steps)
