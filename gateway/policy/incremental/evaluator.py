"""`IncrementalEvaluator`: residual policies by principal and action, finished for each resource and context.

What: the policies that may still apply once (principal, action) is known, with everything that reads only these two
computed. Key: (principal, action). Why it is right: `partial.py`. How long: until an entity that was read changes; each
residual keeps the versions of those it read, and asks the store again before it is used. Bound: `capacity` residuals,
the one that was not asked for longest goes first.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from gateway._native.uid import EntityUid
from gateway._native.vm import Answer
from gateway.policy.engine import Engine
from gateway.policy.evaluation import EvaluationError, evaluate
from gateway.policy.incremental.partial import Partial
from gateway.policy.language import tree
from gateway.policy.language.tree import Constraint, Expr, Statement
from gateway.policy.policy_set import Policy, PolicySet

CAPACITY = 1000


@dataclass(frozen=True, slots=True)
class Residual:
    """What is left for one principal and action. `reads`: the version of each entity that it was computed from."""

    principal: EntityUid
    action: EntityUid
    engine: Engine
    reads: Mapping[EntityUid, int]

    @property
    def policies(self) -> PolicySet:
        """The policies that may still apply, under their own ids."""
        return self.engine.policies

    def holds(self) -> bool:
        """Tell whether nothing that it was computed from has changed since."""
        version = self.engine.store.version
        return all(version(uid) == seen for uid, seen in self.reads.items())

    @property
    def decided(self) -> bool | None:
        """True or False where the answer is the same for every resource and context, else None."""
        left = self.policies.policies.values()
        if any(_always(policy) and policy.statement.effect == "forbid" for policy in left):
            return False
        permits = [policy for policy in left if policy.statement.effect == "permit"]
        if not permits:
            return False
        if len(permits) == len(left) and any(_always(policy) for policy in permits):
            return True
        return None


def _always(policy: Policy) -> bool:
    return not policy.statement.conditions and all(constraint.op == "any" for constraint in policy.scope())


def _without_true(body: Expr) -> Expr:
    """Take `true &&` away where a condition begins with it: a condition asks for a boolean itself."""
    while isinstance(body, tree.And) and isinstance(body.left, tree.Literal) and body.left.value is True:
        body = body.right
    return body


class IncrementalEvaluator:
    """Decides as its engine does, from residuals. Belongs to one thread at a time."""

    def __init__(self, engine: Engine, *, capacity: int = CAPACITY) -> None:
        if capacity < 1:
            raise ValueError("a capacity of at least 1 is needed")
        self.engine = engine
        self.capacity = capacity
        self.computed = 0  # residuals that were made
        self.reused = 0  # questions that found one that still holds
        self._kept: OrderedDict[tuple[EntityUid, EntityUid], Residual] = OrderedDict()

    def publish(self, engine: Engine) -> None:
        """Go on with another engine; nothing of the former one is kept."""
        self.engine = engine
        self._kept.clear()

    def allows(
        self, principal: EntityUid, action: EntityUid, resource: EntityUid, context: dict[str, Any] | None = None
    ) -> bool:
        """Return what `Engine.allows` would."""
        return self.residual(principal, action).engine.allows(principal, action, resource, context)

    def authorize(
        self, principal: EntityUid, action: EntityUid, resource: EntityUid, context: dict[str, Any] | None = None
    ) -> Answer:
        """Return what `Engine.authorize` would: decision, reasons and errors."""
        return self.residual(principal, action).engine.authorize(principal, action, resource, context)

    def residual(self, principal: EntityUid, action: EntityUid) -> Residual:
        """Give what is left for a principal and an action: what was kept, where nothing that it read has changed."""
        key = principal, action
        kept = self._kept.get(key)
        if kept is not None and kept.holds():
            self._kept.move_to_end(key)
            self.reused += 1
            return kept
        made = self._kept[key] = self._compute(principal, action)
        self._kept.move_to_end(key)
        self.computed += 1
        if len(self._kept) > self.capacity:
            self._kept.popitem(last=False)
        return made

    def _compute(self, principal: EntityUid, action: EntityUid) -> Residual:
        store = self.engine.store

        def value_of(node: Expr) -> Any:
            return evaluate(node, store=store)

        partial = Partial({"principal": principal, "action": action}, value_of, (EvaluationError,))
        partial.reads |= {principal, action}  # heads ask what they are in
        left = []
        policies, ids = self.engine.policies.policies, self.engine.ids
        for number, is_sure in self.engine.candidates(principal, action):
            policy = policies[ids[number]]
            if not is_sure:
                # What the head asks has to be fetched first. The whole policy stays: deciding by it fails.
                partial.reads |= store.away(principal) | store.away(action)
                left.append(policy)
                continue
            statement = self._reduced(policy, partial)
            if statement is not None:
                left.append(Policy(policy.id, statement))
        engine = Engine(PolicySet(left), self.engine.entities)  # the schema's actions are there already
        return Residual(principal, action, engine, {uid: store.version(uid) for uid in partial.reads})

    @staticmethod
    def _reduced(policy: Policy, partial: Partial) -> Statement | None:
        """Give what is left of a policy whose head holds so far; None where it holds for no resource and no context."""
        conditions: list[tree.Condition] = []
        for condition in policy.statement.conditions:
            body = _without_true(partial.reduce(condition.body))
            decided = body.value if isinstance(body, tree.Literal) and isinstance(body.value, bool) else None
            if decided is (condition.kind == "when"):
                continue
            if decided is not None and not conditions:
                return None
            conditions.append(tree.Condition(condition.kind, body, start=condition.start, end=condition.end))
            if decided is not None:
                break  # what follows is never looked at
        statement, of_resource = policy.statement, policy.scope()[2]
        return Statement(
            statement.effect, Constraint(), Constraint(), of_resource, tuple(conditions), statement.annotations
        )
