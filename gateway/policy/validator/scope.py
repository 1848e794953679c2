"""Which kinds of requests a scope lets through.

Scopes are checked by what they can say, not as expressions: many policies have scopes that differ in ids only, and
share the answer.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable
from typing import Literal, NamedTuple

from gateway._native.uid import EntityUid
from gateway.policy.language.tree import Constraint
from gateway.policy.validator.declared import Declared, Environment
from gateway.policy.validator.report import Findings

_Side = Literal["principal", "resource"]


class Reach(NamedTuple):
    """What a scope lets through."""

    environments: tuple[Environment, ...]  # in which the conditions are to be checked
    is_action_read: bool  # whether the principal passes in any; if not, the rest of the scope is never read
    is_applicable: bool  # whether the schema has a request for it at all
    hint: str  # where it is not applicable


class Scopes:
    """Answers for scopes of one schema."""

    def __init__(self, declared: Declared, strict: bool) -> None:
        self._declared = declared
        self._strict = strict
        self._known: dict[Hashable, Reach] = {}

    def reach(self, principal: Constraint, action: Constraint, resource: Constraint) -> Reach:
        """Give the kinds of requests that a scope lets through."""
        key = (self._key(principal), action.op, action.entities, action.listed, self._key(resource))
        found = self._known.get(key)
        if found is None:
            found = self._known[key] = self._find(principal, action, resource)
        return found

    def _key(self, constraint: Constraint) -> Hashable:
        if not constraint.entities:
            return (constraint.op, constraint.type, constraint.slot is not None)
        uid = constraint.entities[0]
        return (constraint.op, constraint.type, uid.type, self._declared.literal(uid) is None)

    def _find(self, principal: Constraint, action: Constraint, resource: Constraint) -> Reach:
        candidates = [each for each in self._candidates(action) if self._may_pass(principal, each.principal_name)]
        environments = tuple(
            each
            for each in candidates
            if self._may_be_action(action, each.action) and self._may_pass(resource, each.resource_name)
        )
        # What is not declared is told of by its name; here it counts as what no request has.
        is_applicable = any(
            self._is_passable(principal, each.principal_name)
            and self._is_passable(resource, each.resource_name)
            and self._applies(action, each.action)
            for each in environments
        )
        hint = "" if is_applicable else self._hint(principal, action, resource)
        return Reach(environments, bool(candidates), is_applicable, hint)

    def _candidates(self, action: Constraint) -> Iterable[Environment]:
        if action.op == "==":
            return self._declared.environments_of(action.entities[0])
        return self._declared.environments

    def _may_pass(self, constraint: Constraint, name: str) -> bool:
        """Tell whether a principal or resource of this type may pass; True for a literal of an unknown type."""
        if constraint.type is not None and constraint.type != name:
            return False
        if not constraint.entities or self._declared.literal(constraint.entities[0]) is None:
            return True  # a slot may hold what fits
        return self._is_passable(constraint, name)

    def _is_passable(self, constraint: Constraint, name: str) -> bool:
        """Tell the same of a type that may pass, now with False for a literal of an unknown type."""
        if not constraint.entities:
            return True
        wanted = constraint.entities[0].type
        return wanted == name if constraint.op == "==" else self._declared.may_be_in(name, wanted)

    def _applies(self, constraint: Constraint, action: EntityUid) -> bool:
        """Tell whether the constraint on actions lets this one through; it must not name undeclared ones."""
        if constraint.op == "any" or (constraint.op == "==" and constraint.entities[0] == action):
            return True
        if constraint.op == "==" or not self._are_actions_declared(constraint):
            return False
        return any(self._declared.is_action_in(action, group) for group in constraint.entities)

    def _may_be_action(self, constraint: Constraint, action: EntityUid) -> bool:
        if constraint.op == "in" and (self._is_ill_typed(constraint) or not self._are_actions_declared(constraint)):
            return True  # told of as such; the conditions are checked all the same
        return self._applies(constraint, action)

    def _are_actions_declared(self, action: Constraint) -> bool:
        return all(uid in self._declared.schema.actions for uid in action.entities)

    def _is_ill_typed(self, action: Constraint) -> bool:
        """Tell whether the list of actions is none that strict mode accepts."""
        return self._strict and action.op == "in" and len({uid.type for uid in action.entities}) != 1

    # --- findings

    def check_actions(self, action: Constraint, reach: Reach, findings: Findings) -> None:
        """Tell of a list of actions that is empty, or mixes actions of several namespaces."""
        if not self._is_ill_typed(action) or not reach.is_action_read:
            return
        if not action.entities:
            findings.add("empty_set", "an empty set has no type of elements", "name the actions", action)
            return
        one, other, *_ = sorted({uid.type for uid in action.entities})
        message = f"the elements of a set have different types: `{one}` and `{other}`"
        findings.add("incompatible_types", message, "write a policy for each namespace", action)

    def check_applicable(self, reach: Reach, findings: Findings) -> None:
        """Tell of a scope for which the schema has no request."""
        if not reach.is_applicable:
            findings.add("inapplicable_scope", "no action of the schema applies to this scope", reach.hint)

    def _hint(self, principal: Constraint, action: Constraint, resource: Constraint) -> str:
        sides = [
            side
            for side, constraint in (("principal", principal), ("resource", resource))
            if self._would_in_help(side, constraint, action)  # type: ignore[arg-type]
        ]
        return f"use `in` instead of `==` for the {' and the '.join(sides)}" if sides else ""

    def _would_in_help(self, side: _Side, constraint: Constraint, action: Constraint) -> bool:
        """Tell whether the entity is a group of those that the action applies to."""
        if constraint.op != "==" or not constraint.entities:
            return False
        wanted = constraint.entities[0].type
        names = {
            each.principal_name if side == "principal" else each.resource_name
            for each in self._declared.environments
            if self._applies(action, each.action)
        }
        return wanted not in names and any(self._declared.may_be_in(name, wanted) for name in names)
