"""Changes of a group's members that need not read all that there are: groups may have very many."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from scim2_models import PatchOp, PatchOperation, ScimFilter
from scim2_models.path.expressions import Comparison, ValuePath

from gateway.flows.scim.resources import member_of
from gateway.stores.directory import Member


@dataclass(frozen=True, slots=True)
class MembersChange:
    """Who is a member from now on, and who no longer."""

    adds: tuple[Member, ...]
    removes: tuple[Member, ...]


def members_change(patch: PatchOp[Any]) -> MembersChange | None:
    """Give the change of a PATCH that adds and removes single members alone; None for any other."""
    wanted: dict[str, tuple[Member, bool]] = {}  # by id, what the last operation on it says
    for operation in patch.operations or ():
        found = _values(operation)
        if found is None:
            return None
        try:
            for value in found:
                wanted[value] = member_of(value), operation.op == PatchOperation.Op.add
        except ValueError:
            return None  # what is wrong with it is told where everything is looked at
    adds = tuple(member for member, is_added in wanted.values() if is_added)
    return MembersChange(adds, tuple(member for member, is_added in wanted.values() if not is_added))


def _values(operation: PatchOperation[Any]) -> list[str] | None:
    """Give the ids of the members that an operation is about; None for one that is about something else."""
    path, value = str(operation.path or ""), operation.value
    if operation.op == PatchOperation.Op.add:
        if not path and isinstance(value, dict) and [name.lower() for name in value] == ["members"]:
            (value,) = value.values()
        elif path.lower() != "members":
            return None
        return _ids(value)
    if operation.op != PatchOperation.Op.remove:
        return None
    if path.lower() == "members" and value is not None:
        return _ids(value)
    if value is None and path.lower().startswith("members[") and path.endswith("]"):
        return list(_filtered(path)) or None
    return None


def _ids(value: Any) -> list[str] | None:
    entries = value if isinstance(value, list) else [value]
    ids = [entry.get("value") if isinstance(entry, dict) else None for entry in entries]
    return [each for each in ids if isinstance(each, str)] if all(isinstance(each, str) for each in ids) else None


def _filtered(path: str) -> Iterator[str]:
    """Give the id in `members[value eq "…"]`, or nothing."""
    tree = ScimFilter[Any](path).ast
    if isinstance(tree, ValuePath) and tree.sub_attr is None and isinstance(tree.val_filter, Comparison):
        inner = tree.val_filter
        if inner.attr_path.attr.lower() == "value" and inner.op.value == "eq" and isinstance(inner.value, str):
            yield inner.value
