"""The world of the Zipf run: users of whom few ask most, objects of which few are asked for most, and their rights.

A `watched` user may read everything until a right is taken away: by an attribute, or by membership of a group.
"""

from __future__ import annotations

import itertools
import json
import random
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

from gateway._native.uid import EntityUid
from gateway.policy import Engine, Entities, PolicySet, Schema

SCHEMA = """
entity Group in [Group];
entity User in [Group] = { active: Bool, level: Long, department: String };
entity Object = { owner: User, minimum: Long, department: String };
action read appliesTo { principal: User, resource: Object };
"""
POLICIES = """
@id("level")
permit (principal in Group::"staff", action == Action::"read", resource is Object)
when { principal.level >= resource.minimum };

@id("owner")
permit (principal, action == Action::"read", resource is Object)
when { resource.owner == principal };

@id("department")
permit (principal in Group::"everybody", action == Action::"read", resource is Object)
when { principal.department == resource.department };

@id("off")
forbid (principal, action, resource)
unless { principal.active && principal in Group::"staff" };
"""
TYPES = frozenset(("User", "Group", "Object"))  # all of it is kept in the source
READ = EntityUid("Action", "read")
STAFF = EntityUid("Group", "staff")

Right = Literal["whole", "inactive", "no member"]


@dataclass(frozen=True, slots=True)
class World:
    """How many of each; users and objects are asked for by Zipf's law, the first of them most."""

    users: int = 20_000
    objects: int = 50_000
    groups: int = 200
    skew: float = 1.05
    watched: int = 200
    seed: int = 1

    def user(self, number: int) -> EntityUid:
        return EntityUid("User", f"user{number}")

    def thing(self, number: int) -> EntityUid:
        return EntityUid("Object", f"object{number}")

    def user_body(self, number: int, right: Right = "whole") -> bytes:
        """Give what the source says of a user whose right is whole, or was taken away in one of two ways."""
        groups = [f"group{number % self.groups}"] + ["staff"] * (right != "no member")
        return _body(
            groups,
            active=right != "inactive",
            level=4 if number < self.watched else number % 5,
            department=f"d{number % 20}",
        )

    def entities(self) -> Iterator[tuple[EntityUid, bytes]]:
        """Give all that the source knows at the beginning."""
        yield EntityUid("Group", "everybody"), _body(())
        yield STAFF, _body(("everybody",))
        for number in range(self.groups):
            yield EntityUid("Group", f"group{number}"), _body(("everybody",))
        for number in range(self.users):
            yield self.user(number), self.user_body(number)
        for number in range(self.objects):
            owner = {"type": "User", "id": f"user{number * 7 % self.users}"}
            yield self.thing(number), _body((), owner=owner, minimum=number % 5, department=f"d{number % 23}")

    def asks(self, count: int, seed: object) -> Iterator[tuple[int, int]]:
        """Draw numbers of a user and of an object, again and again."""
        chooser = random.Random(f"{self.seed} {seed}")
        users, objects = (_weights(size, self.skew) for size in (self.users, self.objects))
        while count > 0:
            part = min(count, 10_000)
            yield from zip(
                chooser.choices(range(self.users), cum_weights=users, k=part),
                chooser.choices(range(self.objects), cum_weights=objects, k=part),
                strict=True,
            )
            count -= part


def engine() -> Engine:
    """Make an engine that knows no entity yet."""
    schema = Schema.parse(SCHEMA)
    policies = PolicySet.parse(POLICIES)
    assert policies.validate(schema).ok
    return Engine(policies, Entities(), schema)


def _weights(count: int, skew: float) -> list[float]:
    return list(itertools.accumulate(rank**-skew for rank in range(1, count + 1)))


def _body(groups: tuple[str, ...] | list[str], **attributes: Any) -> bytes:
    parents = [{"type": "Group", "id": name} for name in groups]
    return json.dumps({"attrs": attributes, "parents": parents}).encode()
