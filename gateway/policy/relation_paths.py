"""Why somebody stands in a relation: the chain of tuples and inheritances, for explanations."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

from gateway._native.uid import EntityUid
from gateway.policy.relations import RelationGraph
from gateway.stores.relations import Subject


@dataclass(frozen=True, slots=True)
class PathStep:
    """One step up: `lower` is in `upper`.

    `how`: "relation" (a tuple says so), "entity" (`lower` has `upper` as a parent), or what is inherited, as the schema
    spells it: "parent.viewers".
    """

    lower: Subject
    upper: Subject
    how: str

    def __str__(self) -> str:
        how = self.how if self.how in ("relation", "entity") else f"inherits {self.how}"
        return f"{self.lower} in {self.upper} ({how})"


def relation_path(
    graph: RelationGraph, subject: EntityUid, object: EntityUid, relation: str
) -> tuple[PathStep, ...] | None:
    """Give a shortest chain from `subject` up to `relation` of `object`; None where the subject does not stand in it.

    Raises ValueError where the schema has no such relation. Looks only at what the subject is in: the cost is that of
    the ways up from it, and of looking at each of the members on them.
    """
    target = graph.node(object, relation)
    if not graph.store.is_in(subject, target):
        return None
    above: dict[EntityUid, EntityUid] = {}
    waiting = deque([target])
    while subject not in above and waiting:
        node = waiting.popleft()
        for child in sorted(graph.store.children(node)):
            if child not in above and child != target and graph.store.is_in(subject, child):
                above[child] = node
                waiting.append(child)
    steps = []
    at = subject
    while at != target:
        steps.append(_step(graph, at, above[at]))
        at = above[at]
    return tuple(steps)


def _step(graph: RelationGraph, child: EntityUid, parent: EntityUid) -> PathStep:
    lower, upper = graph.rules.userset(child) or child, graph.rules.userset(parent) or parent
    rule = graph.rules.of_node(parent.type)
    if rule is None:
        return PathStep(lower, upper, "entity")
    if graph.is_tuple(child, parent):
        return PathStep(lower, upper, "relation")
    below = graph.rules.of_node(child.type)
    assert below is not None
    same = below.object_type == rule.object_type and child.id == parent.id
    for item in rule.inherits:
        if item.relation == below.relation and (same or item.via):
            return PathStep(lower, upper, str(item))
    raise AssertionError(f"{child} is in {parent} for no reason")
