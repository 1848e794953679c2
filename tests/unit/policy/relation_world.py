"""A small schema with every kind of relation, and short names for what stands in it."""

from __future__ import annotations

from gateway._native.entities import EntityStore
from gateway._native.uid import EntityUid
from gateway.policy.relation_rules import RelationRules
from gateway.policy.relations import RelationGraph
from gateway.policy.schema import Schema
from gateway.stores.relations import Relation, RelationChange, Subject, Userset

NOW_S = 1_700_000_000

SCHEMA = """
entity User in [Role];
entity Role;
entity Group {
  @relation("Group.members") members: Set<User>,
};
entity Folder {
  parent?: Folder,
  shared?: Set<Folder>,
  @relation("Group.members, Folder.viewers, Role")
  @inherits("owners, parent.viewers, shared.viewers")
  viewers: Set<User>,
  @relation("Group.members") owners: Set<User>,
};
entity Doc {
  @relation home: Set<Folder>,
  @relation("Group.members, Folder.viewers, Doc.viewers") @inherits("home.viewers") viewers: Set<User>,
  @relation blocked: Set<User>,
  title?: String,
};
action view appliesTo { principal: User, resource: [Doc, Folder], context: {} };
"""

RULES = {  # what SCHEMA says, for the plain search
    ("Group", "members"): (),
    ("Folder", "viewers"): ("owners", "parent.viewers", "shared.viewers"),
    ("Folder", "owners"): (),
    ("Doc", "home"): (),
    ("Doc", "viewers"): ("home.viewers",),
    ("Doc", "blocked"): (),
}


class ManualClock:
    """Time that stands still until it is moved."""

    def __init__(self, wall_s: float = NOW_S) -> None:
        self.now_s = wall_s

    def wall_s(self) -> float:
        return self.now_s

    def monotonic_s(self) -> float:
        return self.now_s

    def move(self, seconds: float) -> None:
        self.now_s += seconds


def uid(text: str) -> EntityUid:
    """Read `Doc:1`."""
    type_name, _, name = text.rpartition(":")
    return EntityUid(type_name, name)


def subject(text: str) -> Subject:
    """Read `User:alice` or `Group:eng#members`."""
    name, hash_sign, relation = text.partition("#")
    return Userset(uid(name), relation) if hash_sign else uid(name)


def relation(text: str, expires_at_s: int | None = None) -> Relation:
    """Read `Doc:1#viewers@User:alice`."""
    target, _, who = text.partition("@")
    object, _, name = target.partition("#")
    return Relation(uid(object), name, subject(who), expires_at_s)


def added(*texts: str) -> list[RelationChange]:
    return [RelationChange(relation(text)) for text in texts]


def removed(*texts: str) -> list[RelationChange]:
    return [RelationChange(relation(text), removed=True) for text in texts]


def new_graph(clock: ManualClock | None = None) -> RelationGraph:
    return RelationGraph(RelationRules(Schema.parse(SCHEMA)), EntityStore(), clock=clock or ManualClock())
