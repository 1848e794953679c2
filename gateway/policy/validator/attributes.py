"""Attributes and tags: whether they are declared, and whether it was asked that they are there."""

from __future__ import annotations

from typing import TYPE_CHECKING

from gateway.policy.language import tree
from gateway.policy.language.printer import print_expression
from gateway.policy.validator import capabilities
from gateway.policy.validator.answers import (
    A_STRING,
    AN_ENTITY,
    ENTITY_OR_RECORD,
    HAS_HINTS,
    Answer,
    both,
    failed,
)
from gateway.policy.validator.capabilities import NOTHING, Capabilities, shape_of
from gateway.policy.validator.types import BOOL, FALSE, TRUE, Entity, Field, Record, spelled

if TYPE_CHECKING:
    from gateway.policy.validator.typecheck import Checker


def get_attr(checker: Checker, node: tree.GetAttr, holds: Capabilities) -> Answer:
    """Check `object.name`."""
    target = checker.expect(node.object, holds, ENTITY_OR_RECORD)
    if not isinstance(target.type, Entity | Record):
        return failed(None)
    field = _field(checker, node, node.object, node.name, target.type)
    if field is None:
        return failed(None)
    if not field.required and not capabilities.attribute(shape_of(node.object), node.name) <= holds:
        _unguarded(checker, node)
        return failed(field.type)
    return Answer(field.type, NOTHING, target.ok)


def _field(checker: Checker, node: tree.Expr, of: tree.Expr, name: str, found: Entity | Record) -> Field | None:
    """Find an attribute, or tell that it is not there."""
    field = checker.declared.field(found, name)
    if field is None:
        hint = checker.declared.attribute_words(found).hint(name)
        if not hint and checker.declared.may_have(found, name):
            hint = "some of the values that may stand here have it, not all"
        checker.findings.add("undeclared_attribute", f"no attribute `{name}` {_of(checker, of, found)}", hint, node)
    return field


def _of(checker: Checker, of: tree.Expr, found: Entity | Record) -> str:
    if isinstance(found, Entity):
        return f"on `{spelled(found)}`"
    if isinstance(of, tree.Variable):
        return f"in the context of `{checker.environment.action}`"
    return f"in `{print_expression(of)}`"


def _unguarded(checker: Checker, node: tree.GetAttr) -> None:
    guard = print_expression(tree.HasAttr(node.object, (node.name,)))
    message = f"`{print_expression(node)}` may be absent: the attribute is optional"
    checker.findings.add("unguarded_attribute", message, f"ask first: `{guard} && …`", node)


def has_attr(checker: Checker, node: tree.HasAttr, holds: Capabilities) -> Answer:
    """Check `object has a.b`, which is `object has a && object.a has b`."""
    target = checker.expect(node.object, holds, ENTITY_OR_RECORD, HAS_HINTS)
    answer = Answer(TRUE)
    of, found = node.object, target.type
    for index, name in enumerate(node.path):
        if not isinstance(found, Entity | Record):
            if found is not None:
                checker.mistyped(of, ENTITY_OR_RECORD.words, found, HAS_HINTS.get(type(found), ""))
            return failed(BOOL)
        answer = both(answer, _has_one(checker, of, name, found, holds | answer.holds))
        if answer.type is FALSE or index == len(node.path) - 1:
            break
        field = _field(checker, node, of, name, found)
        if field is None:
            return failed(BOOL)
        of, found = tree.GetAttr(of, name, start=node.start, end=node.end), field.type
    return answer if target.ok else failed(answer.type)


def _has_one(checker: Checker, of: tree.Expr, name: str, found: Entity | Record, holds: Capabilities) -> Answer:
    field = checker.declared.field(found, name)
    if field is None:
        return Answer(BOOL if checker.declared.may_have(found, name) else FALSE)
    gained = capabilities.attribute(shape_of(of), name)
    # An entity that a policy speaks of need not exist, and then has no attributes, required ones neither.
    is_there = (field.required and isinstance(found, Record)) or gained <= holds
    return Answer(TRUE if is_there else BOOL, gained)


def has_tag(checker: Checker, node: tree.Binary, holds: Capabilities) -> Answer:
    """Check `object.hasTag(key)`."""
    target, key = checker.expect(node.left, holds, AN_ENTITY), checker.expect(node.right, holds, A_STRING)
    if not isinstance(target.type, Entity):
        return failed(BOOL)
    gained = capabilities.tag(shape_of(node.left), shape_of(node.right))
    has_tags = bool(checker.declared.tags(target.type))
    found = FALSE if not has_tags else TRUE if gained <= holds else BOOL
    return Answer(found, gained) if target.ok and key.ok else failed(found)


def get_tag(checker: Checker, node: tree.Binary, holds: Capabilities) -> Answer:
    """Check `object.getTag(key)`."""
    target, key = checker.expect(node.left, holds, AN_ENTITY), checker.expect(node.right, holds, A_STRING)
    if not isinstance(target.type, Entity):
        return failed(None)
    tags = checker.declared.tags(target.type)
    if not tags:
        checker.findings.add("undeclared_tags", f"entities of `{spelled(target.type)}` have no tags", "", node)
        return failed(None)
    if not capabilities.tag(shape_of(node.left), shape_of(node.right)) <= holds:
        guard = print_expression(tree.Binary("hasTag", node.left, node.right))
        message = f"`{print_expression(node)}` may be absent"
        checker.findings.add("unguarded_tag", message, f"ask first: `{guard} && …`", node)
        return failed(None)
    found = checker.bound(node, tags, "the tags")
    return Answer(found, NOTHING, found is not None and target.ok and key.ok)
