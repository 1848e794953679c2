"""Relations in the store of entities: a tuple is an edge, from a subject up to the node of an object and a relation.

Entities come from two sides: some are defined (by a file, by an API), and some are only spoken of by tuples. Both pass
through here, so that neither side undoes the other: `define` for the first, `apply` for the second. All that can be
found again in the store of entities is kept there alone; see `relation_rules.py` for what it looks like.
"""

from __future__ import annotations

import hashlib
import heapq
from collections.abc import Container, Iterable, Iterator, Mapping, Sequence
from typing import Any, Final

from gateway._native.entities import PARENTS_MAX, EntityStore
from gateway._native.uid import EntityUid
from gateway.policy.relation_rules import RelationRule, RelationRules
from gateway.stores.base import ORIGIN, Revision
from gateway.stores.relations import Relation, RelationChange, Subject, Userset
from gateway.types import Clock

Upsert = tuple[EntityUid, Mapping[str, Any], Iterable[EntityUid], Mapping[str, Any] | None]
Key = tuple[EntityUid, str, Subject]
Edge = tuple[EntityUid, EntityUid]  # child, parent

BATCH: Final = 500  # entities that are adopted, or relations that are found to be gone, at once


class RelationGraph:
    """The relations that hold, as edges in a store of entities. Belongs to one thread; changes are seen whole."""

    def __init__(self, rules: RelationRules, store: EntityStore, *, clock: Clock) -> None:
        """Before the store has nodes of relations. `clock`: wall time, for relations that expire."""
        self.rules = rules
        self.store = store
        self.revision: Revision = ORIGIN  # of the log, up to which all changes are in the store
        self.ignored = 0  # changes in all that the schema has no place for
        self.expired_s = 0  # the latest end of a relation that has taken effect: no change of the log says so
        self._clock = clock
        self._expiry: dict[Key, int] = {}  # of the relations that expire
        self._expiry_heap: list[tuple[int, int, Key]] = []  # also of those that were changed since
        self._pushes = 0
        self._extra: dict[Edge, int] = {}  # how many reasons more than one an edge between nodes has
        self._explicit: set[Edge] = set()  # edges between nodes that a tuple gives, where inheritance could too
        self._bare: set[EntityUid] = set()  # defined, without attributes, parents and tags of their own
        for rule in rules:
            if rule.walked:
                store.walk_type(rule.node_type)

    # --- changes

    def define(self, upserts: Iterable[Upsert], removals: Iterable[EntityUid] = ()) -> int:
        """Define and undefine entities, all or none, as `EntityStore.apply` does with cycles refused.

        What tuples say of them stays. Raises ValueError also for entities that contain what only relations make.
        """
        draft = _Draft(self)
        for uid, attributes, parents, tags in upserts:
            draft.define(uid, attributes, parents, tags)
        for uid in removals:
            draft.undefine(uid)
        return draft.commit(cycles="refuse")

    def adopt(self) -> None:
        """Define what the store has already, as if it had come through here. Raises ValueError as `define` does."""
        uids = [uid for uid in self.store.uids() if self.rules.of_node(uid.type) is None]
        for first in range(0, len(uids), BATCH):
            found = ((uid, self.store.get(uid)) for uid in uids[first : first + BATCH])
            self.define([(uid, *held) for uid, held in found if held is not None])

    def apply(self, changes: Iterable[RelationChange], revision: Revision | None = None) -> int:
        """Make changes of relations, all at once; of several of one relation the last counts.

        Gives the store's revision. Raises ValueError where the store has no room for them; then nothing is changed.
        """
        last = {change.relation.key: change for change in changes}
        draft = _Draft(self)
        for change in last.values():
            expires_at_s = change.relation.expires_at_s
            if change.removed:
                draft.remove(change.relation.key)
            elif expires_at_s is not None and expires_at_s <= self._clock.wall_s():
                draft.remove(change.relation.key)
                self.expired_s = max(self.expired_s, expires_at_s)
            else:
                draft.add(change.relation)
        made = draft.commit()
        if revision is not None:
            self.revision = revision
        return made

    def expire(self) -> int:
        """Drop the relations that have expired by now; return how many."""
        now_s = self._clock.wall_s()
        over: dict[Key, None] = {}
        while self._expiry_heap and self._expiry_heap[0][0] <= now_s:
            expires_at_s, _, key = heapq.heappop(self._expiry_heap)
            if self._expiry.get(key) == expires_at_s:
                over[key] = None
                self.expired_s = max(self.expired_s, expires_at_s)
        if over:
            draft = _Draft(self)
            for key in over:
                draft.remove(key)
            draft.commit()
        return len(over)

    @property
    def next_expiry_s(self) -> float | None:
        """The Unix time until which no relation expires: no decision holds for longer. None: none ever does."""
        while self._expiry_heap and self._expiry.get(self._expiry_heap[0][2]) != self._expiry_heap[0][0]:
            heapq.heappop(self._expiry_heap)  # changed since
        return self._expiry_heap[0][0] if self._expiry_heap else None

    # --- reading

    def relations(self) -> Iterator[Relation]:
        """Yield all relations that hold. What changes meanwhile may be missed."""
        for uid in self.store.uids():
            found = self.store.get(uid)
            for parent in found[1] if found is not None else ():
                if self.is_tuple(uid, parent):
                    yield self._relation(uid, parent)

    def absent_from(self, seen: Container[bytes]) -> Iterator[list[RelationChange]]:
        """Yield removals of the relations whose `digest` was not seen, in batches; empty ones leave time for others."""
        batch: list[RelationChange] = []
        for count, relation in enumerate(self.relations(), 1):
            if digest(relation) not in seen:
                batch.append(RelationChange(relation, removed=True))
            if len(batch) == BATCH or count % BATCH == 0:
                yield batch
                batch = []
        yield batch

    def definition(self, uid: EntityUid) -> tuple[dict[str, Any], tuple[EntityUid, ...], dict[str, Any]] | None:
        """Give (attributes, parents, tags) of an entity as it was defined, without what relations make of it.

        None where it is not defined, though tuples may speak of it.
        """
        found = self.store.get(uid)
        if found is None or self.rules.of_node(uid.type) is not None:
            return None
        rules = self.rules.of_type(uid.type)
        attributes = {name: value for name, value in found[0].items() if name not in rules}
        parents = tuple(each for each in found[1] if self.rules.of_node(each.type) is None)
        is_defined = bool(attributes or parents or found[2]) or uid in self._bare
        return (attributes, parents, found[2]) if is_defined else None

    def node(self, object: EntityUid, relation: str) -> EntityUid:
        """Give the node of an object and a relation. Raises ValueError where the schema has no such relation."""
        rule = self.rules.find(object.type, relation)
        if rule is None:
            raise ValueError(f"`{object.type}` has no relation `{relation}`")
        return rule.node(object.id)

    def holds(self, relation: Relation) -> bool:
        """Tell whether this very tuple is there, whenever it ends."""
        rule = self.rules.find(relation.object.type, relation.relation)
        who = relation.subject
        if rule is None or (isinstance(who, Userset) and self.rules.find(who.object.type, who.relation) is None):
            return False
        child = self.node(who.object, who.relation) if isinstance(who, Userset) else who
        parent = rule.node(relation.object.id)
        return self.store.has_parent(child, parent) and self.is_tuple(child, parent)

    def is_tuple(self, child: EntityUid, parent: EntityUid) -> bool:
        """Tell whether an edge of the store is there because a relation says so."""
        if self.rules.of_node(parent.type) is None:
            return False
        if self.rules.of_node(child.type) is None or not self.rules.is_mixed(child.type, parent.type):
            return True
        return (child, parent) in self._explicit

    def _relation(self, child: EntityUid, parent: EntityUid) -> Relation:
        target = self.rules.userset(parent)
        assert target is not None
        key = (target.object, target.relation, self.rules.userset(child) or child)
        return Relation(*key, self._expiry.get(key))

    def _commit(self, draft: _Draft) -> None:
        for edge, count in draft.extra.items():
            if count:
                self._extra[edge] = count
            else:
                self._extra.pop(edge, None)
        for edge, there in draft.explicit.items():
            (self._explicit.add if there else self._explicit.discard)(edge)
        for uid, bare in draft.bare.items():
            (self._bare.add if bare else self._bare.discard)(uid)
        for key, expires_at_s in draft.expiry.items():
            if expires_at_s is None:
                self._expiry.pop(key, None)
            elif self._expiry.get(key) != expires_at_s:
                self._expiry[key] = expires_at_s
                self._pushes += 1
                heapq.heappush(self._expiry_heap, (expires_at_s, self._pushes, key))
        self.ignored += draft.ignored


class _Parents:
    """The parents of an entity as they are to be: those of the store, which may be very many, and what differs."""

    __slots__ = ("_store", "_uid", "added", "taken")

    def __init__(self, store: EntityStore, uid: EntityUid) -> None:
        self._store = store
        self._uid = uid
        self.added: set[EntityUid] = set()  # that the store does not have
        self.taken: set[EntityUid] = set()  # that it has

    def __contains__(self, parent: EntityUid) -> bool:
        return parent in self.added or (parent not in self.taken and self._store.has_parent(self._uid, parent))

    def __len__(self) -> int:
        return self._store.parent_count(self._uid) + len(self.added) - len(self.taken)

    def add(self, parent: EntityUid) -> None:
        if parent in self.taken:
            self.taken.remove(parent)
        elif not self._store.has_parent(self._uid, parent):
            self.added.add(parent)

    def discard(self, parent: EntityUid) -> None:
        if parent in self.added:
            self.added.remove(parent)
        elif self._store.has_parent(self._uid, parent):
            self.taken.add(parent)

    def all(self) -> set[EntityUid]:
        found = self._store.get(self._uid)
        return {*(() if found is None else found[1])} - self.taken | self.added


class _Entity:
    """An entity as it is to be."""

    __slots__ = ("_own", "_store", "_uid", "changed", "exists", "own_changed", "parents", "rewritten")

    def __init__(self, store: EntityStore, uid: EntityUid) -> None:
        self._store = store
        self._uid = uid
        self._own: tuple[dict[str, Any], dict[str, Any]] | None = None
        self.exists = uid in store
        self.parents = _Parents(store, uid)
        self.changed = False
        self.rewritten = False  # more than its parents changed
        self.own_changed = False  # by its definition: cycles through it are refused

    @property
    def attributes(self) -> dict[str, Any]:
        return self._read()[0]

    @property
    def tags(self) -> dict[str, Any]:
        return self._read()[1]

    def write(self, attributes: dict[str, Any], tags: dict[str, Any]) -> None:
        self._own = attributes, tags
        self.changed = self.rewritten = True

    def _read(self) -> tuple[dict[str, Any], dict[str, Any]]:
        if self._own is None:
            self._own = self._store.own(self._uid) or ({}, {})
        return self._own


class _Draft:
    """One change of the graph, worked out before anything is touched."""

    def __init__(self, graph: RelationGraph) -> None:
        self.extra: dict[Edge, int] = {}
        self.explicit: dict[Edge, bool] = {}
        self.bare: dict[EntityUid, bool] = {}
        self.expiry: dict[Key, int | None] = {}
        self.ignored = 0
        self._graph = graph
        self._rules = graph.rules
        self._entities: dict[EntityUid, _Entity] = {}
        self._filled: set[EntityUid] = set()  # nodes that something was put into
        self._loose: dict[EntityUid, None] = {}  # may have nothing left to exist for

    # --- tuples

    def add(self, relation: Relation) -> None:
        found = self._place(relation.key)
        if found is None:
            self.ignored += 1
            return
        rule, child, parent = found
        self.expiry[relation.key] = relation.expires_at_s
        self._ensure(relation.object)
        if isinstance(relation.subject, Userset):
            if self._rules.is_mixed(child.type, parent.type):
                if self._is_explicit((child, parent)):
                    return
                self.explicit[child, parent] = True
                self._link(child, parent)
            else:
                self._put(child, parent)
            return
        self._ensure(relation.subject)
        if self._put(child, parent):
            self._inherit(rule, relation.object, relation.subject, self._link)

    def remove(self, key: Key) -> None:
        found = self._place(key)
        if found is None:
            self.ignored += 1
            return
        rule, child, parent = found
        object, _, subject = key
        self.expiry[key] = None
        if parent not in self._entity(child).parents:
            return
        if isinstance(subject, Userset):
            if self._rules.is_mixed(child.type, parent.type):
                if not self._is_explicit((child, parent)):
                    return
                self.explicit[child, parent] = False
                self._unlink(child, parent)
            else:
                self._take(child, parent)
        else:
            self._loose[subject] = None
            self._take(child, parent)
            self._inherit(rule, object, subject, self._unlink)
        self._loose[object] = None

    def _place(self, key: Key) -> tuple[RelationRule, EntityUid, EntityUid] | None:
        """Give the rule and the edge of a tuple; None where the schema has no place for it."""
        object, relation, subject = key
        rule = self._rules.find(object.type, relation)
        if rule is None:
            return None
        if isinstance(subject, EntityUid):
            child, below = subject, None
            if self._rules.of_node(subject.type) is not None:
                return None  # a node is spoken of by its object and relation alone
        else:
            below = self._rules.find(subject.object.type, subject.relation)
            if below is None or (below.walked and not rule.walked):
                return None
            child = below.node(subject.object.id)
        return rule, child, rule.node(object.id)

    # --- definitions

    def define(
        self,
        uid: EntityUid,
        attributes: Mapping[str, Any],
        parents: Iterable[EntityUid],
        tags: Mapping[str, Any] | None,
    ) -> None:
        own = set(parents)
        for each in (uid, *own):
            if self._rules.of_node(each.type) is not None:
                raise ValueError(f"{each} is made by relations alone")
        rules = self._rules.of_type(uid.type)
        for name in rules:
            if name in attributes:
                raise ValueError(f"`{name}` of {uid} is made by relations alone")
        if rules:
            self._ensure(uid)
        entity = self._entity(uid)
        self._inherit_by_attributes(uid, entity.attributes, self._unlink)
        self._inherit_by_attributes(uid, attributes, self._link)
        entity.write({**attributes, **{name: rule.node(uid.id) for name, rule in rules.items()}}, dict(tags or {}))
        self._replace_own_parents(entity, own)
        entity.exists = entity.own_changed = True
        self.bare[uid] = not (attributes or own or tags)

    def undefine(self, uid: EntityUid) -> None:
        if self._rules.of_node(uid.type) is not None:
            raise ValueError(f"{uid} is made by relations alone")
        entity = self._entity(uid)
        self._inherit_by_attributes(uid, entity.attributes, self._unlink)
        derived = self._rules.of_type(uid.type)
        entity.write({name: value for name, value in entity.attributes.items() if name in derived}, {})
        self._replace_own_parents(entity, set())
        self.bare[uid] = False
        self._loose[uid] = None

    def _replace_own_parents(self, entity: _Entity, own: set[EntityUid]) -> None:
        for each in entity.parents.all() - own:
            if self._rules.of_node(each.type) is None:
                entity.parents.discard(each)
        for each in own:
            entity.parents.add(each)

    # --- the end

    def commit(self, cycles: str = "allow") -> int:
        """Bring the draft into the store. With cycles="refuse" entities that were defined are held to it."""
        for uid in self._loose:
            self._settle(uid)
        store = self._graph.store
        first: list[Any] = []
        then: list[Any] = []
        moves: list[Any] = []
        deletes = []
        for uid, entity in self._entities.items():
            if not entity.changed:
                continue
            if len(entity.parents) > PARENTS_MAX:
                raise ValueError(f"{uid} would be in more than {PARENTS_MAX} others directly")
            if self._rules.of_node(uid.type) is not None and not len(entity.parents):
                if entity.exists:
                    deletes.append(uid)  # it is enough for a node to be named
            elif not entity.exists:
                deletes.append(uid)
            elif entity.rewritten:
                made = (uid, entity.attributes, entity.parents.all(), entity.tags or None)
                (first if cycles == "refuse" and entity.own_changed else then).append(made)
            else:
                moves.append((uid, entity.parents.added, entity.parents.taken))
        if first:  # nodes may be in each other; entities that are defined may not, and they are never above a node
            store.apply(first, cycles="refuse")
        if then or deletes or moves:
            store.apply(then, deletes, moves, cycles="allow")
        self._graph._commit(self)
        return store.revision

    def _settle(self, uid: EntityUid) -> None:
        """Let an entity go that is not defined, that is in nothing, and to which nobody stands in any relation."""
        entity = self._entity(uid)
        rules = self._rules.of_type(uid.type)
        if not entity.exists or len(entity.parents) or entity.tags or entity.attributes.keys() - rules.keys():
            return
        if self.bare.get(uid, uid in self._graph._bare):
            return
        nodes = {rule.node(uid.id) for rule in rules.values()}
        if any(self._has_child(node, nodes) for node in nodes):
            return
        self._link_itself(uid, self._unlink)
        entity.write({}, {})
        entity.exists = False

    def _has_child(self, node: EntityUid, own: set[EntityUid]) -> bool:
        """Tell whether anything is in a node, apart from what the nodes of one object inherit from each other."""

        def counts(child: EntityUid) -> bool:
            return (
                child not in own or not self._rules.is_mixed(child.type, node.type) or self._is_explicit((child, node))
            )

        for child in self._graph.store.children(node):
            if counts(child) and (child not in self._entities or node in self._entities[child].parents):
                return True
        return node in self._filled and any(
            node in entity.parents and counts(uid) for uid, entity in self._entities.items()
        )

    # --- edges

    def _entity(self, uid: EntityUid) -> _Entity:
        found = self._entities.get(uid)
        if found is None:
            found = self._entities[uid] = _Entity(self._graph.store, uid)
        return found

    def _ensure(self, object: EntityUid) -> None:
        """Let an object be an entity whose attributes hold its nodes."""
        rules = self._rules.of_type(object.type)
        if not rules:
            return
        entity = self._entity(object)
        if entity.exists and rules.keys() <= entity.attributes.keys():
            return
        entity.write({**entity.attributes, **{name: rule.node(object.id) for name, rule in rules.items()}}, entity.tags)
        entity.exists = True
        self._link_itself(object, self._link)

    def _link_itself(self, object: EntityUid, do: Any) -> None:
        """Link or unlink the nodes of one object that inherit from each other."""
        rules = self._rules.of_type(object.type)
        for rule in rules.values():
            for item in rule.inherits:
                if not item.via:
                    do(rules[item.relation].node(object.id), rule.node(object.id))

    def _inherit(self, via: RelationRule, object: EntityUid, subject: EntityUid, do: Any) -> None:
        """Link or unlink what an object inherits from a subject of its relation `via`."""
        for rule in self._rules.of_type(object.type).values():
            for item in rule.inherits:
                source = self._rules.find(subject.type, item.relation)
                if item.via == via.relation and source is not None:
                    do(source.node(subject.id), rule.node(object.id))

    def _inherit_by_attributes(self, object: EntityUid, attributes: Mapping[str, Any], do: Any) -> None:
        """Link or unlink what an object inherits from those that its attributes name."""
        rules = self._rules.of_type(object.type)
        for rule in rules.values():
            for item in rule.inherits:
                if item.via and item.via not in rules:
                    for named in _uids(attributes.get(item.via)):
                        source = self._rules.find(named.type, item.relation)
                        if source is not None:
                            do(source.node(named.id), rule.node(object.id))

    def _link(self, child: EntityUid, parent: EntityUid) -> None:
        if not self._put(child, parent):
            self.extra[child, parent] = self._count((child, parent)) + 1

    def _unlink(self, child: EntityUid, parent: EntityUid) -> None:
        count = self._count((child, parent))
        if count:
            self.extra[child, parent] = count - 1
        else:
            self._take(child, parent)

    def _put(self, child: EntityUid, parent: EntityUid) -> bool:
        """Put an edge; False where there is one."""
        entity = self._entity(child)
        if parent in entity.parents:
            return False
        entity.parents.add(parent)
        self._filled.add(parent)
        entity.exists = entity.changed = True
        return True

    def _take(self, child: EntityUid, parent: EntityUid) -> None:
        entity = self._entity(child)
        entity.parents.discard(parent)
        entity.changed = True

    def _count(self, edge: Edge) -> int:
        return self.extra.get(edge, self._graph._extra.get(edge, 0))

    def _is_explicit(self, edge: Edge) -> bool:
        return self.explicit.get(edge, edge in self._graph._explicit)


def digest(relation: Relation) -> bytes:
    """Give 16 bytes that stand for a relation's key: two relations that share them could not be made on purpose."""
    subject, name = relation.subject, ""
    if isinstance(subject, Userset):
        name, subject = subject.relation, subject.object
    texts: Sequence[str] = (
        *(relation.object.type, relation.object.id, relation.relation, subject.type, subject.id, name),
    )
    return hashlib.blake2b("\0".join(texts).encode(), digest_size=16).digest()  # no text of a relation has a NUL


def _uids(value: Any) -> set[EntityUid]:
    """Give the entities that an attribute's value names, itself or as a set."""
    if isinstance(value, EntityUid):
        return {value}
    if isinstance(value, list | tuple | set | frozenset):
        return {each for each in value if isinstance(each, EntityUid)}
    return set()
