"""`Residency`: which entities of sources are in a store now, since when, and which of them go first.

What: an entity as its source told it, or that the source does not know it. Key: the uid. How long: without a log of
changes until its time is over; with one until it changes. Bound: `capacity`; those that nothing used for longest go
first. What goes is evicted from the store too, so that no decision rests on it any more.

Most decisions are made without anybody being asked here. What they are about, principal and resource, is marked by the
store (`EntityStore.is_idle`); their groups, and the entities in their attributes, count as used with them.
"""

from __future__ import annotations

import heapq
from collections import Counter, OrderedDict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING, Any, Final
from weakref import WeakSet

from gateway._native.uid import EntityUid
from gateway.policy.entities import Entity, check_entity, entity_from_json
from gateway.policy.faults import EntityError, Fault, PolicyFault
from gateway.policy.json_text import load_json
from gateway.policy.json_values import Misfit, frozen, is_action_type, near
from gateway.policy.related_entities import RelatedEntities
from gateway.stores.attributes import BODY_BYTES_MAX

if TYPE_CHECKING:
    from asyncio import Task

    from gateway._native.entities import EntityStore
    from gateway.policy.engine import Engine
    from gateway.policy.relation_rules import RelationRules

LOOKED_AT: Final = 4  # times as many as are to go are looked at, to spare those in use
LOOK_AT: Final = 0.4  # of its time: what is used from then on,
REFRESH_AT: Final = 0.8  # and until then, is read again before it is over
_MEMBERS: Final = frozenset(("attrs", "parents", "tags"))
_SLACK: Final = 1000  # superseded entries that the heap may hold beside as many as there are entities


class SourcesMisfit(PolicyFault):
    """Types that cannot be kept in sources, by what policies, schema and relations say of them."""

    code = "sources_misfit"


def misfits(engine: Engine, types: Iterable[str]) -> dict[str, Fault]:
    """Give those of `types` that cannot be kept in sources, and why."""
    return {name: fault for name in types if (fault := _misfit(engine, name)) is not None}


def _misfit(engine: Engine, name: str) -> Fault | None:
    if is_action_type(name):
        return Fault("sourced_action", f"`{name}`: actions cannot be kept in a source", "the schema names them")
    if engine.schema is not None and name not in engine.schema.entities:
        return Fault("undeclared_type", f"undeclared entity type `{name}`", near(name, engine.schema.entities))
    rules = _rules_of(engine)
    # Whoever stands in a tuple is defined by it, and would pass for fetched.
    if rules is not None and (
        rules.of_node(name) is not None or any(name in (rule.object_type, *rule.subjects) for rule in rules)
    ):
        hint = "keep the type with the other entities, or take it out of the relations"
        return Fault("sourced_relation", f"`{name}` stands in relations and cannot be kept in a source", hint)
    return None


def _rules_of(engine: Engine) -> RelationRules | None:
    return engine.entities.graph.rules if isinstance(engine.entities, RelatedEntities) else None


@dataclass(frozen=True, slots=True, eq=False)
class Held:
    """One entity that is in the store, or is known to be absent. `until_s`, on the monotonic clock; None: no end.

    Those without an end share one of these: one each would be 100,000 objects that the collector looks through again
    and again, and everybody waits for it, measured 50 ms.
    """

    origin: str  # name of its source
    until_s: float | None
    absent: bool
    refresh_s: float = 0.0  # when it is read again if it is in use


class Residency:
    """The sourced entities of one store. Belongs to one event loop."""

    def __init__(self, engine: Engine, types: Iterable[str], capacity: int) -> None:
        """Mark `types` in the engine's store; what is there of them goes. Raises SourcesMisfit."""
        self.store: EntityStore = engine.store
        self.engines: WeakSet[Engine] = WeakSet([engine])  # those that decide by the store
        self.flights: dict[EntityUid, Task[Any]] = {}  # reads under way, by what they read
        self.capacity = capacity
        self.evicted = 0  # to make room, in all
        self._schema = engine.schema
        self._rules = _rules_of(engine)
        self._held: OrderedDict[EntityUid, Held] = OrderedDict()  # the coldest first
        self._used: set[EntityUid] = set()  # of what is held: since it was read, or was last looked at, as told here
        self._endless: dict[tuple[str, bool], Held] = {}  # by source and whether absent
        self._count_of: Counter[str] = Counter()  # of what is held, by source
        self._due: list[tuple[float, int, EntityUid, Held]] = []  # a heap
        self._pushes = 0
        names = sorted(types)
        faults = misfits(engine, names)
        if faults:
            raise SourcesMisfit(list(faults.values()))
        for name in names:
            self.store.source_type(name)
            self.store.evict(list(self.store.uids(name)))

    def __len__(self) -> int:
        return len(self._held)

    # --- reading

    def entity(self, uid: EntityUid, body: bytes) -> Entity:
        """Read what a source said of an entity. Raises EntityError for what fits neither Cedar nor the schema."""
        data = load_json(body, BODY_BYTES_MAX, EntityError)
        try:
            if not isinstance(data, Mapping) or not data.keys() <= _MEMBERS:
                raise Misfit("ill_typed", "an object of `attrs`, `parents` and `tags` is expected", "")
            made = entity_from_json({"attrs": {}, "parents": [], **data, "uid": uid}, self._schema, "")
            if self._schema is not None:
                check_entity(made, self._schema, "")
            for index, parent in enumerate(made.parents):
                if self._rules is not None and self._rules.of_node(parent.type) is not None:
                    raise Misfit("wrong_parent", f"`{parent}` is made by relations alone", f"/parents/{index}")
        except Misfit as misfit:
            raise EntityError([misfit.as_fault()]) from None
        return made

    def _was_used(self, uid: EntityUid) -> bool:
        return uid in self._used or not self.store.is_idle(uid)

    def _pass_on(self, uid: EntityUid) -> None:
        """Let what an entity that is used leads to count as used."""
        found = self.store.get(uid)
        if found is not None:
            attributes, parents, _ = found
            for other in (*parents, *(value for value in attributes.values() if isinstance(value, EntityUid))):
                if other in self._held:
                    self._used.add(other)

    def touch(self, uids: Iterable[EntityUid]) -> None:
        """Note that entities were used: they stay longer than others, and are read again before their time is over."""
        for uid in uids:
            if uid in self._held:
                self._used.add(uid)
                self._held.move_to_end(uid)

    def held_of(self, uids: Iterable[EntityUid], origin: str) -> list[EntityUid]:
        """Give those of `uids` that are here of a source."""
        return [uid for uid in uids if (held := self._held.get(uid)) is not None and held.origin == origin]

    def end_s(self, uids: Iterable[EntityUid] | None) -> float | None:
        """Give when the first of `uids`, or of all, is over, on the monotonic clock; None: none has an end."""
        held = self._held.values() if uids is None else map(self._held.get, uids)
        return min((each.until_s for each in held if each is not None and each.until_s is not None), default=None)

    # --- changing

    def put(
        self,
        origin: str,
        found: Sequence[Entity],
        absent: Sequence[EntityUid],
        *,
        now_s: float,
        ends: Callable[[bool], float | None],
    ) -> dict[EntityUid, str]:
        """Bring what was read into the store. `ends` says until when, by whether it is absent.

        Gives those that the store refused, with the reason: they are not here then.
        """
        refused = self._define([entity for entity in found if not self._says_the_same(entity)])
        self.evict([uid for uid in refused if uid in self._held])
        self.store.settle([uid for uid in absent if not self._is_held_absent(uid)])
        for uid, is_absent in [*((entity.uid, False) for entity in found), *((uid, True) for uid in absent)]:
            if uid in refused:
                continue
            self._forget(uid)
            held = self._held[uid] = self._made(origin, ends(is_absent), absent=is_absent, now_s=now_s)
            self._count_of[origin] += 1
            if held.until_s is not None:
                self._push(now_s + (held.until_s - now_s) * LOOK_AT, uid, held)
        self.store.idle([uid for uid in (*(entity.uid for entity in found), *absent) if uid not in refused])
        self._make_room()
        return refused

    def _made(self, origin: str, until_s: float | None, *, absent: bool, now_s: float) -> Held:
        if until_s is not None:
            return Held(origin, until_s, absent, now_s + (until_s - now_s) * REFRESH_AT)
        return self._endless.setdefault((origin, absent), Held(origin, None, absent))

    def _define(self, entities: Sequence[Entity]) -> dict[EntityUid, str]:
        made = [(one.uid, dict(one.attributes), one.parents, dict(one.tags) or None) for one in entities]
        try:
            self.store.apply(made)
        except ValueError as error:
            if len(entities) == 1:
                return {entities[0].uid: str(error)}
            # One of them spoils all: the others are put one by one.
            return {uid: why for entity in entities for uid, why in self._define([entity]).items()}
        return {}

    def _says_the_same(self, entity: Entity) -> bool:
        """Whether an entity is here just so: then it keeps its version, and with it what was computed from it."""
        held = self._held.get(entity.uid)
        known = None if held is None or held.absent else self.store.get(entity.uid)
        return known is not None and (
            set(known[1]) == set(entity.parents)
            and frozen(known[0]) == frozen(entity.attributes)
            and frozen(known[2]) == frozen(entity.tags)
        )

    def _is_held_absent(self, uid: EntityUid) -> bool:
        held = self._held.get(uid)
        return held is not None and held.absent

    def evict(self, uids: Sequence[EntityUid]) -> None:
        """Let entities go."""
        if uids:
            self.store.evict(uids)
            for uid in uids:
                self._forget(uid)

    def _forget(self, uid: EntityUid) -> None:
        held = self._held.pop(uid, None)
        if held is not None:
            self._count_of[held.origin] -= 1
            self._used.discard(uid)

    def evict_origin(self, origin: str) -> int:
        """Let everything of a source go; give how much that was."""
        if not self._count_of[origin]:
            return 0
        gone = [uid for uid, held in self._held.items() if held.origin == origin]
        self.evict(gone)
        return len(gone)

    def _make_room(self) -> None:
        surplus = len(self._held) - self.capacity
        if surplus <= 0:
            return
        count = min(surplus + self.capacity // 100, len(self._held))  # some more: not every read has to make room
        looked_at = list(islice(self._held, LOOKED_AT * count))
        for uid in looked_at:
            if self._was_used(uid):
                self._pass_on(uid)
        used = [uid for uid in looked_at if self._was_used(uid)]
        unused = [uid for uid in looked_at if not self._was_used(uid)]
        gone = [*unused, *used][:count]  # where nearly all are in use, the coldest of them go all the same
        spared = used[max(0, count - len(unused)) :]
        for uid in spared:
            self._used.discard(uid)
            self._held.move_to_end(uid)
        self.store.idle(spared)
        self.evict(gone)
        self.evicted += count

    # --- time

    def _push(self, when_s: float, uid: EntityUid, held: Held) -> None:
        self._pushes += 1
        heapq.heappush(self._due, (when_s, self._pushes, uid, held))
        if len(self._due) > 2 * len(self._held) + _SLACK:
            self._due = [each for each in self._due if self._held.get(each[2]) is each[3]]
            heapq.heapify(self._due)

    @property
    def next_s(self) -> float | None:
        """When `expire` has something to do next; None: not before something is put."""
        return self._due[0][0] if self._due else None

    def expire(self, now_s: float) -> tuple[int, dict[str, list[EntityUid]]]:
        """Let go what is over; give how much that was, and by source what was used and will soon be over."""
        over: list[EntityUid] = []
        idle: list[EntityUid] = []
        soon: dict[str, list[EntityUid]] = {}
        while self._due and self._due[0][0] <= now_s:
            _, _, uid, held = heapq.heappop(self._due)
            if self._held.get(uid) is not held or held.until_s is None:
                continue
            if held.until_s <= now_s:
                over.append(uid)
                continue
            if now_s < held.refresh_s:  # what it was read for, once, tells nothing: use counts from now on
                idle.append(uid)
                self._push(held.refresh_s, uid, held)
                continue
            self._push(held.until_s, uid, held)
            if self._was_used(uid):
                self._pass_on(uid)
                soon.setdefault(held.origin, []).append(uid)
        self._used.difference_update(idle)
        self.store.idle(idle)
        self.evict(over)
        return len(over), soon
