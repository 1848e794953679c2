"""Keys of decisions: bytes that are equal for two requests only if the same policies must decide them alike.

What is in one: the tenant, what the candidate policies say, action, principal, resource, and of the context what those
policies read of it, each value with its type. What is not: attributes of the context that nobody reads, and the moment
of which it is only asked whether it is before or after another one (`Plan.windows`; the cache looks at it itself).
Where policies ask nothing of the principal but which groups it is in, the groups stand for it.

The encoding can be read back in one way only: every part begins with what it is, and texts and lists with how long they
are. An attribute that is absent is a part of its own, unlike any value. The order of a record's attributes and of a
set's elements, and how often an element is named, make no difference, as they make none for policies.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final

from gateway._native.extensions import Datetime, Decimal, Duration, IPAddr
from gateway._native.uid import EntityUid
from gateway.policy.compiler.reads import Path

if TYPE_CHECKING:
    from gateway._native.entities import EntityStore
    from gateway.policy.plans import Plan, Question

DEPTH_MAX: Final = 64
_length = struct.Struct("<I").pack
_number = struct.Struct("<q").pack

_ABSENT: Final = b"-"
_PRESENT: Final = b"+"
_BEHIND: Final = b">"  # the way leads through an entity, and on to what that has
_NO_RECORD: Final = b"!"  # the way leads through a value that has no attributes: reading it is an error
_MOMENT: Final = b"~"
_NOTHING: Final = b"\0\0\0\0"  # as many entities are defined by the request
_NUMBERED: Final = {Decimal: b"d", Datetime: b"t", Duration: b"p"}


def canonical(value: Any, depth: int = 0) -> bytes:
    """Spell a value: equal for values that are equal to policies, and only for those.

    Raises ValueError and TypeError for what is no value.
    """
    if depth > DEPTH_MAX:
        raise ValueError(f"nested more than {DEPTH_MAX} times")
    if isinstance(value, bool):
        return b"T" if value else b"F"
    if isinstance(value, int):
        if not -(2**63) <= value < 2**63:
            raise ValueError("the number does not fit into 64 bits")
        return b"i" + _number(value)
    if isinstance(value, str):
        return b"s" + _text(value)
    if isinstance(value, EntityUid):
        return b"e" + spelled_uid(value)
    if isinstance(value, IPAddr):
        return b"a" + bytes((value.version, value.prefix)) + value.packed
    if isinstance(value, Decimal | Datetime | Duration):
        return _NUMBERED[type(value)] + _number(value.number)
    if isinstance(value, Mapping):
        return b"{" + _record(value, depth)
    if isinstance(value, list | tuple | set | frozenset):
        items = sorted({canonical(item, depth + 1) for item in value})
        return b"[" + _length(len(items)) + b"".join(items)
    raise TypeError(f"{type(value).__name__} is no value of a policy")


def _record(value: Mapping[Any, Any], depth: int) -> bytes:
    if not all(isinstance(name, str) for name in value):
        raise TypeError("an attribute's name is text")
    items = [_text(name) + canonical(value[name], depth + 1) for name in sorted(value)]
    return _length(len(items)) + b"".join(items)


def _text(text: str) -> bytes:
    return f"{len(text)}:{text}".encode()


def spelled_uid(uid: EntityUid) -> bytes:
    """Spell an entity's name so that nothing that follows can be taken for a part of it."""
    name, identifier = uid.type, uid.id
    return f"{len(name)}:{name}{len(identifier)}:{identifier}".encode()


def _found(context: Mapping[str, Any], path: Path) -> tuple[bytes, int, Any]:
    """Follow a path below the context: how it ended, after how many names, and with which value.

    An entity on the way is where the context ends: what lies behind it is the entity's, not the request's. How far the
    way led counts: `context.a has b` is false where `a` has no `b`, and an error where there is no `a`.
    """
    value: Any = context
    for depth, name in enumerate(path[1:]):
        if isinstance(value, EntityUid):
            return _BEHIND, depth, value
        if not isinstance(value, Mapping):
            return _NO_RECORD, depth, None
        if name not in value:
            return _ABSENT, depth, None
        value = value[name]
    return _PRESENT, len(path) - 1, value


def _part(context: Mapping[str, Any], path: Path, *, is_window: bool) -> bytes:
    """Spell what the context has at a path; of a moment within a window only that it is one."""
    found, depth, value = _found(context, path)
    if is_window and found == _PRESENT and isinstance(value, Datetime):
        return _MOMENT
    return found + _length(depth) + (canonical(value) if found in (_PRESENT, _BEHIND) else b"")


def moment_at(context: Mapping[str, Any] | None, path: Path) -> int | None:
    """Give the datetime at a path of the context, in ms; None where there is none."""
    found, _, value = _found(context or {}, path)
    return value.number if found == _PRESENT and isinstance(value, Datetime) else None


def standing_groups(plan: Plan, question: Question, store: EntityStore) -> tuple[EntityUid, ...] | None:
    """Give the groups that stand for the principal, ascending; None where it must stand for itself.

    It must where policies ask for more than its groups, or name it, and as long as not all is here that it is in.
    """
    principal = question.principal
    if plan.named is None or not plan.asks_groups_alone or principal in plan.exact or principal in plan.named:
        return None
    starts = [principal]
    overlays = question.overlays or {}
    if principal in overlays:
        if not plan.is_direct or principal in (question.action, question.resource):
            return None  # what the request says of it could be read by another way
        starts += overlays[principal][1]
    if any(store.away(uid) for uid in starts):
        return None
    return tuple(group for group in plan.named if any(store.is_in(uid, group) for uid in starts))


def decision_key(tenant: bytes, plan: Plan, question: Question, groups: tuple[EntityUid, ...] | None) -> bytes:
    """Give the key of a question that `plan` is for; `groups` as `standing_groups` says.

    Raises ValueError and TypeError for a context that holds what is no value.
    """
    if groups is None:
        who = b"P" + spelled_uid(question.principal)
    else:
        who = b"G" + _text(question.principal.type) + _length(len(groups)) + b"".join(map(spelled_uid, groups))
    key = b"".join((_length(len(tenant)), tenant, plan.key_head, who, spelled_uid(question.resource)))
    if plan.reads_context:
        context = question.context or {}
        parts = [_part(context, path, is_window=False) for path in plan.context_paths]
        parts += [_part(context, path, is_window=True) for path in plan.windows]
        parts += [_PRESENT if name in context else _ABSENT for name in plan.presences]
        key += b"".join(parts)
    return key + _defined(question, without_principal=groups is not None) if question.overlays else key + _NOTHING


def _defined(question: Question, *, without_principal: bool) -> bytes:
    """Spell what the request says of entities itself."""
    overlays = dict(question.overlays or {})
    if without_principal:
        overlays.pop(question.principal, None)
    made = [_length(len(overlays))]
    for uid in sorted(overlays):
        attributes, parents = overlays[uid]
        above = sorted(set(parents))
        made += (spelled_uid(uid), canonical(attributes), _length(len(above)), *map(spelled_uid, above))
    return b"".join(made)
