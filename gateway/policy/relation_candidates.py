"""Whom a policy can be about, by the relations that it asks for: list questions begin with those, not with all."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from gateway._native.uid import EntityUid
from gateway.policy.language import tree
from gateway.policy.language.tree import Expr
from gateway.policy.related_entities import RelatedEntities
from gateway.policy.relations import RelationGraph

if TYPE_CHECKING:
    from gateway.policy.entities import Entities
    from gateway.policy.policy_set import Policy


def related_ids(
    entities: Entities, policy: Policy, role: Literal["principal", "resource"], kind: str, other: EntityUid
) -> set[str] | None:
    """Give the ids of all of a type that a policy can hold for, None where its relations do not narrow them.

    `other` is who has the other role. More may be given than the policy holds for, and never less.
    """
    if not isinstance(entities, RelatedEntities) or entities.store.has_sourced_types:
        return None  # where entities are kept elsewhere, somebody may be in a role, and so in a relation, unknown here
    asked = _Asked(entities.graph, role, kind, other)
    for condition in policy.statement.conditions:
        if condition.kind == "when" and (found := asked.of(condition.body)) is not None:
            return found
    return None


class _Asked:
    """A list question, put to one condition."""

    def __init__(
        self, graph: RelationGraph, role: Literal["principal", "resource"], kind: str, other: EntityUid
    ) -> None:
        self._graph = graph
        self._role = role
        self._kind = kind
        self._other = other

    def of(self, node: Expr) -> set[str] | None:
        """Give the ids for which an expression can be true, None for all of them."""
        match node:
            case tree.And(left, right):
                found = self.of(left)
                return self.of(right) if found is None else found
            case tree.Or(left, right):
                return _together([self.of(left), self.of(right)])
            case tree.Binary("in", left, tree.SetOf(items)):
                return _together([self._in(left, item) for item in items])
            case tree.Binary("in", left, right):
                return self._in(left, right)
            case tree.Is(left, _, container) if container is not None:
                return self._in(left, container)
            case tree.Literal(False):
                return set()
            case _:
                return None

    def _in(self, left: Expr, right: Expr) -> set[str] | None:
        """Of `SOMEBODY in resource.RELATION`."""
        if not (isinstance(right, tree.GetAttr) and right.object == tree.Variable("resource")):
            return None
        if self._role == "resource":
            who = self._other if left == tree.Variable("principal") else _literal(left)
            return None if who is None else self._objects(who, right.name)
        rule = self._graph.rules.find(self._other.type, right.name)
        if rule is None or left != tree.Variable("principal"):
            return None
        node = rule.node(self._other.id)
        return {uid.id for uid in self._graph.store.descendants(node) if uid.type == self._kind}

    def _objects(self, who: EntityUid, relation: str) -> set[str] | None:
        rule = self._graph.rules.find(self._kind, relation)
        if rule is None:
            return None  # an attribute of that name, which is no relation of this type
        return {uid.id for uid in self._graph.store.ancestors(who) if uid.type == rule.node_type}


def _together(parts: list[set[str] | None]) -> set[str] | None:
    known = [part for part in parts if part is not None]
    return set().union(*known) if len(known) == len(parts) else None


def _literal(node: Expr) -> EntityUid | None:
    return node.value if isinstance(node, tree.Literal) and isinstance(node.value, EntityUid) else None
