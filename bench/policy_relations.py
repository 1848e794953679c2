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
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from bench.measure import Spread, median_spread, spread_of
from bench.table import Cell, Part, Table
from gateway._native.uid import EntityUid
from gateway.policy.engine import Engine
from gateway.policy.entities import Entities
from gateway.policy.policy_set import PolicySet
from gateway.policy.related_entities import RelatedEntities
from gateway.policy.relation_rules import RelationRules
from gateway.policy.schema import Schema
from gateway.stores.relations import Relation, RelationChange, Userset

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

VIEW = EntityUid("Action", "view")

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
    """What was measured. Times are of one question from Python, the timer's own share taken off, medians of rounds."""

    entities: int
    tuples: int
    load_s: float
    store_bytes_per_tuple: float  # all of the store: entities, their attributes and nodes
    allowed_share: float
    decision: Spread  # by the engine, of a policy that asks for `principal in resource.viewers`
    question: Spread  # whether somebody is among those who may view, alone
    change_p50_us: float


def load(tuples: Sequence[Relation]) -> RelatedEntities:
    """Bring tuples into a new store, page by page as from a store of relations."""
    entities = RelatedEntities.over(Entities(), RelationRules(Schema.parse(SCHEMA)))
    for first in range(0, len(tuples), PAGE):
        entities.graph.apply([RelationChange(each) for each in tuples[first : first + PAGE]])
    return entities


def measure(data: RelationSet, *, asks: int = 100_000, changes: int = 1000, rounds: int = 3) -> RelationFigures:
    """Load the data set, ask it and change it."""
    # As a store's pages come: by object, so that one subject is met again and again.
    tuples = sorted(dict.fromkeys(data.tuples()), key=lambda each: (each.object, each.relation))
    gc.freeze()  # the tuples themselves: a store of relations does not keep them in this process
    started = time.perf_counter()
    entities = load(tuples)
    load_s = time.perf_counter() - started
    engine, graph = Engine(PolicySet.parse(POLICIES), entities), entities.graph
    pairs = data.asks(asks)
    requests = [engine.prepare(who, VIEW, doc) for who, doc in pairs]
    nodes = [(who, graph.node(doc, "viewers")) for who, doc in pairs]
    allowed = [engine.decide(each) for each in requests]
    assert allowed == [graph.store.is_in(who, node) for who, node in nodes]
    ways: tuple[tuple[Callable[[Any], object], list[Any]], ...] = (
        (engine.decide, requests),
        (lambda pair: graph.store.is_in(pair[0], pair[1]), nodes),
    )
    spreads = [[spread_of(call, arguments) for call, arguments in ways] for _ in range(rounds)]
    decision, question = (median_spread(each) for each in zip(*spreads, strict=True))
    changed = []
    for each in itertools.islice(tuples, 0, None, max(1, len(tuples) // changes)):
        begun = time.perf_counter_ns()
        graph.apply([RelationChange(each, removed=True)])
        graph.apply([RelationChange(each)])
        changed.append((time.perf_counter_ns() - begun) / 2)
    return RelationFigures(
        entities=data.users + data.groups + data.folders + data.docs,
        tuples=len(tuples),
        load_s=load_s,
        store_bytes_per_tuple=graph.store.memory_bytes / len(tuples),
        allowed_share=sum(allowed) / len(allowed),
        decision=decision,
        question=question,
        change_p50_us=sorted(changed)[len(changed) // 2] / 1000,
    )


def part(found: RelationFigures, *, whole: bool) -> Part:
    """Give the figures as tables and, of the `whole` data set, for the bars."""
    rows: list[list[Cell]] = [
        ["a decision: `principal in resource.viewers`", found.decision.p50_us, found.decision.p99_us],
        ["the question alone", found.question.p50_us, found.question.p99_us],
        ["a tuple added or removed", found.change_p50_us, None],
    ]
    title = (
        f"relations: {found.tuples:,} tuples over {found.entities:,} entities, µs; {found.allowed_share * 100:.0f} %"
        f" allowed, loaded in {found.load_s:.1f} s, {found.store_bytes_per_tuple:.0f} bytes a tuple"
    )
    bars = {"relations: p50 µs": found.decision.p50_us, "relations: p99 µs": found.decision.p99_us} if whole else {}
    return Part([Table(title, ("", "p50", "p99"), rows)], bars, {"relations": asdict(found)})


if __name__ == "__main__":
    for table in part(measure(RelationSet()), whole=True).tables:
        table.print()
