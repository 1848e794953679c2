"""What a workload brings: policies, schema, entities and questions, in Cedar's formats and in those of the peers."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

Uid = tuple[str, str]  # type and id


@dataclass(frozen=True, slots=True)
class Ask:
    """One question."""

    principal: Uid
    action: str
    resource: Uid
    context: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Workload:
    """One model with one store of entities, and questions to it.

    `casbin_matcher` and `casbin_rules` say the same policies to casbin, where `within(sub, obj, name)` is "sub is, or
    is in, what obj's attribute `name` holds" and `value(obj, name)` an attribute; `rego` says them to a Rego engine,
    which finds `data.above[sub]` (all that sub is in, itself included) and `data.attributes[obj]`. Entities are
    spelled `Type::id` there.
    """

    name: str
    policies: str
    schema: str
    entities: list[dict[str, Any]]  # Cedar's entity JSON
    asks: list[Ask]
    casbin_fields: str  # of a rule
    casbin_matcher: str
    casbin_rules: list[tuple[str, ...]]
    rego: str


class Builder:
    """Collects entities; spells references as Cedar's JSON asks for."""

    def __init__(self) -> None:
        self._entities: dict[Uid, dict[str, Any]] = {}

    def add(self, uid: Uid, parents: Sequence[Uid] = (), /, **attributes: Any) -> Uid:
        """Add an entity; a tuple among `attributes` is a reference."""
        self._entities[uid] = {
            "uid": {"type": uid[0], "id": uid[1]},
            "attrs": {name: _spelled(value) for name, value in attributes.items()},
            "parents": [{"type": kind, "id": name} for kind, name in parents],
        }
        return uid

    def link(self, child: Uid, parent: Uid) -> None:
        """Make `parent` a parent of `child`, once."""
        reference = {"type": parent[0], "id": parent[1]}
        parents = self._entities[child]["parents"]
        if reference not in parents:
            parents.append(reference)

    def entities(self) -> list[dict[str, Any]]:
        return list(self._entities.values())


def _spelled(value: Any) -> Any:
    if isinstance(value, tuple):
        return {"__entity": {"type": value[0], "id": value[1]}}
    if isinstance(value, list):
        return [_spelled(item) for item in value]
    return value


def some(chooser: random.Random, choices: list[Uid], most: int) -> list[Uid]:
    """Choose 0 to `most` of `choices`, without repetition."""
    return chooser.sample(choices, min(len(choices), chooser.randint(0, most)))
