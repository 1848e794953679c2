"""What can be told of `in` before a decision: which hierarchies allow it, and what the groups of actions say."""

from __future__ import annotations

from collections.abc import Sequence

from gateway._native.uid import EntityUid
from gateway.policy.language import tree
from gateway.policy.validator.declared import Declared, is_action_type
from gateway.policy.validator.types import BOOL, FALSE, Bool, Entity, Never, Set, Type, known


def is_container(found: Type) -> bool:
    """Tell whether it may stand right of `in`."""
    element = found.element if isinstance(found, Set) else found
    return isinstance(element, Entity | Never)


def decide(
    declared: Declared, member: tree.Expr, member_type: Type | None, containers: Sequence[tree.Expr], found: Type
) -> Bool:
    """Give the type of `member in containers`, all of which are declared."""
    uid = _uid(member)
    if uid is not None and is_action_type(uid.type):
        uids = [each for each in map(_uid, containers) if each is not None]
        if len(uids) == len(containers):
            return _action_in(declared, uid, uids)
    element = found.element if isinstance(found, Set) else found
    if not isinstance(member_type, Entity) or not isinstance(element, Entity):
        return BOOL
    is_possible = any(declared.may_be_in(one, other) for one in member_type.names for other in element.names)
    return BOOL if is_possible else FALSE


def _action_in(declared: Declared, action: EntityUid, containers: list[EntityUid]) -> Bool:
    """Actions and their groups are all known; an action is in nothing else."""
    return known(any(declared.is_action_in(action, group) for group in containers))


def _uid(node: tree.Expr) -> EntityUid | None:
    return node.value if isinstance(node, tree.Literal) and isinstance(node.value, EntityUid) else None
