"""What a policy's head asks, as bytes that the scope index reads (`_native/vm_rules.h`).

Effect (0 forbid, 1 permit); then principal and resource, each an operator (0 any, 1 `==`, 2 `in`, 3 `is`, 4 `is in`)
followed by a type (3, 4) and an entity (1, 2, 4); then the action: 0 any, or 1 with the count of entities and the
entities, of which it must be in one. Texts have a length of 4 bytes before them.
"""

from __future__ import annotations

import struct

from gateway.policy.compiler.constants import encode_text
from gateway.policy.language.tree import Constraint, Effect

_OPERATORS = {"any": b"\0", "==": b"\1", "in": b"\2", "is": b"\3", "is in": b"\4"}
_EFFECTS = {"forbid": b"\0", "permit": b"\1"}
_length = struct.Struct("<I").pack


def _bound(constraint: Constraint) -> bytes:
    op = constraint.op
    if op == "any":
        return b"\0"
    out = _OPERATORS[op]
    if constraint.type is not None:
        out += encode_text(constraint.type)
    if op != "is":
        (uid,) = constraint.entities
        out += encode_text(uid.type) + encode_text(uid.id)
    return out


def _action(constraint: Constraint) -> bytes:
    if constraint.op == "any":
        return b"\0"
    # `action == A` asks for A alone, `in` for what is below it too: kept apart by the operator.
    entities = [encode_text(uid.type) + encode_text(uid.id) for uid in constraint.entities]
    return _OPERATORS[constraint.op] + _length(len(entities)) + b"".join(entities)


def encode_scope(effect: Effect, principal: Constraint, action: Constraint, resource: Constraint) -> bytes:
    """Give the head of a policy whose slots are filled. Raises ValueError for one with a hole."""
    return _EFFECTS[effect] + _bound(principal) + _bound(resource) + _action(action)
