"""Which relations a policy asks about in one request, and over which steps the asker stands in them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from gateway._native.uid import EntityUid
from gateway._native.vm import Request
from gateway.policy.compiler.policies import compile_expression
from gateway.policy.engine import Engine
from gateway.policy.language import tree
from gateway.policy.language.printer import print_expression
from gateway.policy.language.tree import Expr
from gateway.policy.policy_set import Policy
from gateway.policy.related_entities import RelatedEntities
from gateway.policy.relation_paths import PathStep, relation_path
from gateway.stores.relations import Userset


@dataclass(frozen=True, slots=True)
class RelationTest:
    """One `in` of a policy that asks for a relation: `path` is the way up, None where there is none."""

    text: str  # as the policy writes it
    subject: EntityUid
    asked: Userset
    path: tuple[PathStep, ...] | None


def relation_tests(engine: Engine, policy: Policy, request: Request) -> tuple[RelationTest, ...]:
    """Give every `in` of the conditions that asks whether an entity stands in a relation, in the order of the text.

    What has no value in this request (an attribute is missing, a set is empty) asks nothing, and is left out.
    """
    entities = engine.entities
    if not isinstance(entities, RelatedEntities):
        return ()
    found: dict[tuple[EntityUid, Userset], RelationTest] = {}
    for node, left, right in _memberships(policy.statement):
        subject = _value(engine, left, request)
        containers = _value(engine, right, request)
        for container in containers if isinstance(containers, tuple) else (containers,):
            asked = entities.graph.rules.userset(container) if isinstance(container, EntityUid) else None
            if asked is None or not isinstance(subject, EntityUid):
                continue
            path = relation_path(entities.graph, subject, asked.object, asked.relation)
            found.setdefault((subject, asked), RelationTest(_text(policy.statement, node), subject, asked, path))
    return tuple(found.values())


def _memberships(statement: tree.Statement) -> Iterator[tuple[Expr, Expr, Expr]]:
    """Yield each `a in b` and `a is T in b` as (itself, a, b)."""
    waiting: list[Expr] = [condition.body for condition in reversed(statement.conditions)]
    while waiting:
        node = waiting.pop()
        match node:
            case tree.Binary("in", left, right):
                yield node, left, right
            case tree.Is(left, _, container) if container is not None:
                yield node, left, container
        waiting.extend(reversed(list(tree.children(node))))


def _value(engine: Engine, node: Expr, request: Request) -> Any:
    code, value, _ = engine.evaluate(compile_expression(node), request)
    return None if code is not None else value


def _text(statement: tree.Statement, node: Expr) -> str:
    if node.start >= 0 and statement.text:
        return statement.text[node.start : node.end]
    return print_expression(node)
