"""A data set of relations, of the size and shape that a company's documents have, and what asking it costs.

330,000 objects and subjects, 675,000 tuples: users in groups that are nested four deep, folders five deep and more,
documents in folders; groups and users may view folders, some users documents. Run alone, it prints the figures:

    python -m bench.policy_relations
"""

from __future__ import annotations

import gc
import itertools
import random
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from gateway._native.entities import EntityStore
from gateway._native.uid import EntityUid
from gateway.policy.relation_rules import RelationRules
from gateway.policy.relations import RelationGraph
from gateway.policy.schema import Schema
from gateway.stores.relations import Relation, RelationChange, Userset
from gateway.types import SystemClock

SCHEMA = """
entity User;
entity Group { @relation("Group.members") members: Set<User> };
entity Folder {
  @relation parent: Set<Folder>,
  @relation("Group.members") @inherits("parent.viewers") viewers: Set<User>,
};
entity Doc {
  @relation home: Set<Folder>,
  @relation("Group.members") @inherits("home.viewers") viewers: Set<User>,
};
action view appliesTo { principal: User, resource: Doc };
"""
POLICIES = 'permit (principal, action == Action::"view", resource) when { principal in resource.viewers };'

PAGE = 1000  # tuples in one change, as when they are read from a store


@dataclass(frozen=True, slots=True)
class RelationSet:
    """How many of each kind; the defaults make 330,000 nodes and 675,000 tuples."""

    users: int = 100_000
    groups: int = 10_000
    folders: int = 20_000
    docs: int = 200_000
    groups_of_user: int = 3
    group_levels: int = 4
    groups_of_folder: int = 2
    users_of_folder: int = 1
    direct_grants: int = 86_001
    seed: int = 1

    def tuples(self) -> Iterator[Relation]:
        """Yield all tuples, in a fixed order."""
        chance = random.Random(self.seed)
        user = [EntityUid("User", f"u{number}") for number in range(self.users)]
        group = [EntityUid("Group", f"g{number}") for number in range(self.groups)]
        folder = [EntityUid("Folder", f"f{number}") for number in range(self.folders)]
        doc = [EntityUid("Doc", f"d{number}") for number in range(self.docs)]
        # A tenth of the groups is on top; each other is a member of one of the level above.
        bounds = [
            self.groups * level * (level + 1) // (self.group_levels * (self.group_levels + 1))
            for level in range(self.group_levels + 1)
        ]
        for level in range(1, self.group_levels):
            for number in range(bounds[level], bounds[level + 1]):
                above = chance.randrange(bounds[level - 1], bounds[level])
                yield Relation(group[above], "members", Userset(group[number], "members"))
        for each in user:
            for number in chance.sample(range(self.groups), self.groups_of_user):
                yield Relation(group[number], "members", each)
        for number in range(1, self.folders):
            yield Relation(folder[number], "parent", folder[(number - 1) // 6])  # six to a folder: up to six deep
        for each in folder:
            for number in chance.sample(range(self.groups), self.groups_of_folder):
                yield Relation(each, "viewers", Userset(group[number], "members"))
            for number in chance.sample(range(self.users), self.users_of_folder):
                yield Relation(each, "viewers", user[number])
        for each in doc:
            yield Relation(each, "home", folder[chance.randrange(self.folders)])
        for _ in range(self.direct_grants):
            yield Relation(chance.choice(doc), "viewers", chance.choice(user))

    def asks(self, count: int) -> list[tuple[EntityUid, EntityUid]]:
        """Give pairs of a user and a document. Half are drawn so that the user may see it over several steps."""
        chance = random.Random(self.seed + 1)
        members: dict[EntityUid, list[Relation]] = {}
        viewers: dict[EntityUid, list[Relation]] = {}
        above: dict[EntityUid, EntityUid] = {}
        for each in self.tuples():
            if each.relation in ("parent", "home") and isinstance(each.subject, EntityUid):
                above[each.object] = each.subject
            else:
                (members if each.relation == "members" else viewers).setdefault(each.object, []).append(each)
        made: list[tuple[EntityUid, EntityUid]] = []
        while len(made) < count:
            who = EntityUid("User", f"u{chance.randrange(self.users)}")
            doc = EntityUid("Doc", f"d{chance.randrange(self.docs)}")
            if len(made) % 2:
                ways = [way for place in _up(doc, above) for way in viewers.get(place, ())]
                way = chance.choice(ways)
                while isinstance(way.subject, Userset) and (inner := members.get(way.subject.object)):
                    way = chance.choice(inner)
                if isinstance(way.subject, Userset):
                    continue
                who = way.subject
            made.append((who, doc))
        return made


def _up(place: EntityUid, above: dict[EntityUid, EntityUid]) -> list[EntityUid]:
    found = [place]
    while place in above:
        place = above[place]
        found.append(place)
    return found


@dataclass(frozen=True, slots=True)
class RelationFigures:
    """What was measured. Times of one question from Python, the timer's own share taken off."""

    entities: int
    tuples: int
    load_s: float
    store_bytes_per_tuple: float  # all of the store: entities, their attributes and nodes
    allowed_share: float
    p50_us: float
    p99_us: float
    change_p50_us: float


def load(tuples: Sequence[Relation]) -> RelationGraph:
    """Bring tuples into a new store, page by page as from a store of relations."""
    graph = RelationGraph(RelationRules(Schema.parse(SCHEMA)), EntityStore(), clock=SystemClock())
    for first in range(0, len(tuples), PAGE):
        graph.apply([RelationChange(each) for each in tuples[first : first + PAGE]])
    return graph


def measure(data: RelationSet, *, asks: int = 100_000, changes: int = 1000) -> RelationFigures:
    """Load the data set, ask it and change it."""
    # As a store's pages come: by object, so that one subject is met again and again.
    tuples = sorted(dict.fromkeys(data.tuples()), key=lambda each: (each.object, each.relation))
    gc.freeze()  # the tuples themselves: a store of relations does not keep them in this process
    started = time.perf_counter()
    graph = load(tuples)
    load_s = time.perf_counter() - started
    nodes = [(who, graph.node(doc, "viewers")) for who, doc in data.asks(asks)]
    is_in, clock = graph.store.is_in, time.perf_counter_ns
    allowed = sum(is_in(who, node) for who, node in nodes)  # the answers, and the first touch of each
    spent = []
    gc.disable()
    try:
        for who, node in nodes:
            begun = clock()
            is_in(who, node)
            spent.append(clock() - begun)
        timer = sorted(-(clock() - clock()) for _ in range(10_000))[5000]
    finally:
        gc.enable()
    spent.sort()
    changed = []
    for each in itertools.islice(tuples, 0, None, max(1, len(tuples) // changes)):
        begun = clock()
        graph.apply([RelationChange(each, removed=True)])
        graph.apply([RelationChange(each)])
        changed.append((clock() - begun) / 2)
    return RelationFigures(
        entities=data.users + data.groups + data.folders + data.docs,
        tuples=len(tuples),
        load_s=load_s,
        store_bytes_per_tuple=graph.store.memory_bytes / len(tuples),
        allowed_share=allowed / len(nodes),
        p50_us=(spent[len(spent) // 2] - timer) / 1000,
        p99_us=(spent[len(spent) * 99 // 100] - timer) / 1000,
        change_p50_us=sorted(changed)[len(changed) // 2] / 1000,
    )


if __name__ == "__main__":
    print(measure(RelationSet()))
