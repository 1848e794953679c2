"""Which policies can come out otherwise when relations change, and what is decided while nobody knows relations."""

from __future__ import annotations

from dataclasses import replace
from functools import cached_property
from typing import TYPE_CHECKING

from gateway._native.uid import EntityUid
from gateway.policy.engine import Engine
from gateway.policy.language import tree
from gateway.policy.policy_set import Policy, PolicySet
from gateway.policy.related_entities import RelatedEntities

if TYPE_CHECKING:
    from gateway.policy.relation_rules import RelationRules


class RelationReads:
    """What of an engine's policies depends on relations."""

    def __init__(self, engine: Engine) -> None:
        """Looks at nothing yet: of very many policies that takes long, and is for a thread (`prepare`)."""
        self._engine = engine
        self.cautious: Engine | None = None  # once it was prepared
        self._rules = engine.entities.graph.rules if isinstance(engine.entities, RelatedEntities) else None

    def prepare(self) -> None:
        """Make `cautious`: an engine that allows what this one does whatever relations there are, and denies the rest.

        Each policy that reads relations forbids all that its head speaks of; of the head too, relations are left out.
        Raises PolicyFault where policies must be read for it, and cannot be any more.
        """
        if self.cautious is None:
            self.cautious = self._cautious()

    @cached_property
    def policies(self) -> frozenset[str]:
        """The ids of those that read relations."""
        found = self._engine.policies.policies
        if self._rules is None:
            return frozenset()
        return frozenset(name for name, policy in found.items() if reads_relations(policy, self._rules))

    def concern(self, principal: EntityUid, action: EntityUid, resource: EntityUid) -> bool:
        """Tell whether a policy that could apply to a request may read relations; yes, where nobody has looked yet."""
        if self.cautious is None:
            return True
        candidates = self.cautious.candidates(principal, action, resource)
        return any(self._engine.ids[number] in self.policies for number, _ in candidates)

    def _cautious(self) -> Engine:
        if self._rules is None or not self.policies:
            return self._engine
        known = self._engine.policies
        changed = [
            self._forbidding(policy) if name in self.policies else policy for name, policy in known.policies.items()
        ]
        made = PolicySet(changed, known.templates.values())
        return Engine(made, self._engine.entities, self._engine.schema, like=self._engine)

    def _forbidding(self, policy: Policy) -> Policy:
        assert self._rules is not None
        principal, action, resource = (_without_nodes(each, self._rules) for each in policy.scope())
        statement = replace(
            policy.statement, effect="forbid", principal=principal, action=action, resource=resource, conditions=()
        )
        return Policy(policy.id, statement)


def reads_relations(policy: Policy, rules: RelationRules) -> bool:
    """Tell whether a policy names a relation, as an attribute or as the entity that stands for it.

    By name alone, of whatever type: what holds a relation is then never overlooked, and little else is taken for it.
    Nothing else leads to relations: an entity of the schema is never above a subject because of a tuple.
    """
    names = {rule.relation for rule in rules}
    if any(_is_node(uid, rules) for constraint in policy.scope() for uid in constraint.entities):
        return True
    waiting = [condition.body for condition in policy.statement.conditions]
    while waiting:
        node = waiting.pop()
        match node:
            case tree.GetAttr(_, name) if name in names:
                return True
            case tree.HasAttr(_, path) if not names.isdisjoint(path):
                return True
            case tree.Literal(value) if isinstance(value, EntityUid) and _is_node(value, rules):
                return True
            case _:
                waiting.extend(tree.children(node))
    return False


def _is_node(uid: EntityUid, rules: RelationRules) -> bool:
    return rules.of_node(uid.type) is not None


def _without_nodes(constraint: tree.Constraint, rules: RelationRules) -> tree.Constraint:
    return tree.Constraint() if any(_is_node(uid, rules) for uid in constraint.entities) else constraint
