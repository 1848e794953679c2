"""`ShortCircuitEvaluator`: decides with as little work as the answer allows, and shows what work that was.

The order is the machine's own (`_native/vm_rules.h`), for every door and every call that decides:

1. The index picks the policies: those filed under the request's action or a group of it, then under "any", the type,
   the principal itself or what it is in, then the same of the resource. The others are never looked at.
2. Forbids first. The first one that is satisfied ends it: no permit is looked at.
3. Of each policy the head before the conditions: who, which action, which resource. Where that does not hold, and that
   costs a few comparisons, nothing of its conditions is run.
4. Of policies that the index keeps together the cheap before the dear, and of one policy the cheap clauses first; the
   first clause that does not hold ends it.
5. The first permit that is satisfied ends it.

Why that is allowed: the answer of a set does not depend on the order of its policies, nor that of a policy on the order
of its clauses, since a clause that fails and one that is false both mean "not satisfied". Only which policies are named
as reasons does; so `Engine.authorize`, which names all of them, runs every policy that the index picks, and what only
asks whether (`allows`, `decide`, the doors) stops as soon as it is known.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from gateway._native.uid import EntityUid
from gateway.policy.plans import Overlays

if TYPE_CHECKING:
    from gateway.policy.engine import Engine

Outcome = Literal["head", "unsatisfied", "satisfied", "error", "fault"]


@dataclass(frozen=True, slots=True)
class Look:
    """A policy that was looked at. `head`: it stopped there, and its conditions were not run."""

    policy_id: str
    effect: Literal["permit", "forbid"]
    outcome: Outcome


@dataclass(frozen=True, slots=True)
class Evaluation:
    """One decision and the way to it. `policies`: how many there are; `fault`: code of what made it deny, or None."""

    allowed: bool
    looks: tuple[Look, ...]
    policies: int
    fault: str | None = None

    @property
    def decided_by(self) -> str | None:
        """The policy that ended it; None where none was satisfied, or a fault denied."""
        last = self.looks[-1] if self.looks else None
        return last.policy_id if last is not None and last.outcome == "satisfied" else None

    @property
    def run(self) -> tuple[str, ...]:
        """The policies whose conditions were run, in that order."""
        return tuple(look.policy_id for look in self.looks if look.outcome != "head")


class ShortCircuitEvaluator:
    """Decides as its engine does. Safe to use from many threads, as the engine is."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine

    def allows(
        self, principal: EntityUid, action: EntityUid, resource: EntityUid, context: dict[str, Any] | None = None
    ) -> bool:
        """Return whether the request is allowed, and nothing else: the fast way."""
        return self.engine.allows(principal, action, resource, context)

    def evaluate(
        self,
        principal: EntityUid,
        action: EntityUid,
        resource: EntityUid,
        context: dict[str, Any] | None = None,
        *,
        overlays: Overlays | None = None,
    ) -> Evaluation:
        """Decide in the same order as `allows`, by the same code, and tell what was looked at until it was known."""
        engine = self.engine
        request = engine.prepare(principal, action, resource, context, overlays=overlays)
        allowed, looks, fault = engine.trace(request)
        policies = engine.policies.policies
        return Evaluation(
            allowed,
            tuple(Look(policy_id, policies[policy_id].statement.effect, outcome) for policy_id, outcome in looks),
            len(policies),
            fault,
        )
