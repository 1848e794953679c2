"""`Plan`: what deciding requests of given types reads, followed through what is resident, and what makes no difference.

`principal.manager.level` reads the principal first, and only then is it known who the manager is: what is behind an
entity that is not resident is told when it is. So whoever fetches does it in rounds, a level each.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from itertools import product
from typing import TYPE_CHECKING, Any, Final

from gateway._native.uid import EntityUid
from gateway.policy.compiler.reads import Path, Reads
from gateway.policy.decision_keys import spelled_uid

if TYPE_CHECKING:
    from gateway._native.entities import EntityStore
    from gateway._native.vm import Answer
    from gateway.policy.engine import Engine

NAMED_MAX: Final = 64  # containers that a principal is asked to be in; with more it stands for itself in keys

Overlays = Mapping[EntityUid, tuple[Mapping[str, Any], Collection[EntityUid]]]
"""Entities that a request defines itself: attributes and parents by uid, as `Decider.prepare` takes them."""


@dataclass(frozen=True, slots=True)
class Question:
    """One request. `context` is kept, and must not change."""

    principal: EntityUid
    action: EntityUid
    resource: EntityUid
    context: dict[str, Any] | None = None
    overlays: Overlays | None = None

    @property
    def types(self) -> tuple[str, EntityUid, str]:
        """What a plan is made for: the principal's type, the action, the resource's type."""
        return self.principal.type, self.action, self.resource.type

    def answered_by(self, engine: Engine) -> Answer:
        """Decide now, by what is resident."""
        if not self.overlays:
            return engine.authorize(self.principal, self.action, self.resource, self.context)
        return engine.answer(
            engine.prepare(self.principal, self.action, self.resource, self.context, overlays=self.overlays)
        )


@dataclass(frozen=True, slots=True)
class Touched:
    """Entities that a decision can touch: those `read`, and the `members`, of which the ancestors are asked."""

    read: frozenset[EntityUid]
    members: frozenset[EntityUid]

    @property
    def uids(self) -> frozenset[EntityUid]:
        return self.read | self.members

    def away(self, store: EntityStore) -> frozenset[EntityUid]:
        """Give those of which the store must know, and does not: of members also what is above them."""
        found = {uid for uid in self.read if not store.resident(uid)}
        for uid in self.members:
            found |= store.away(uid)
        return frozenset(found)


class _Step:
    """What is read of the value at one place of the tree of all paths."""

    __slots__ = ("member", "names", "tags")

    def __init__(self) -> None:
        self.names: dict[str, _Step] = {}
        self.tags = False
        self.member = False

    def at(self, names: Iterable[str]) -> _Step:
        step = self
        for name in names:
            step = step.names.setdefault(name, _Step())
        return step


@dataclass(frozen=True, eq=False)
class Plan:
    """What the candidate policies of one (principal's type, action, resource's type) read.

    `policies`: their ids, in the order of the set. `cost`: about nanoseconds. `exact`: entities that some head asks the
    principal to be; such a one is told from others by more than what it is in.
    """

    action: EntityUid
    policies: tuple[str, ...]
    reads: Reads
    digest: bytes  # of the candidates' ids and programs: equal ones decide equally
    exact: frozenset[EntityUid]
    named: tuple[EntityUid, ...] | None  # what the principal is asked to be in, ascending; None: more than NAMED_MAX
    _roots: dict[str | EntityUid, _Step] = field(repr=False, default_factory=dict)

    @property
    def cost(self) -> int:
        return self.reads.cost

    @cached_property
    def windows(self) -> tuple[Path, ...]:
        """Paths of the context that are compared with moments and not read otherwise, ascending.

        What a decision owes to such a value holds as long as the value stays within `Answer.flip_ms`.
        """
        plain = self.reads.plain
        timed = {each.path for each in self.reads.times}
        return tuple(sorted(path for path in timed if not any(path[:n] in plain for n in range(1, len(path) + 1))))

    @cached_property
    def context_paths(self) -> tuple[Path, ...]:
        """Paths of the context whose values can make a difference, ascending; without those below another one."""
        found = {path for path in self.reads.plain if path[0] == "context"}
        return tuple(sorted(path for path in found if not any(path[:n] in found for n in range(1, len(path)))))

    @cached_property
    def presences(self) -> tuple[str, ...]:
        """Attributes of the context of which only `has` is asked, ascending; not those where another path begins."""
        told = {path[1] for path in (*self.windows, *self.context_paths) if len(path) > 1}
        asked = {path[1] for path in self.reads.attributes if path[0] == "context" and len(path) == 2}
        return () if ("context",) in self.context_paths else tuple(sorted(map(str, asked - told)))

    @cached_property
    def shape(self) -> bytes:
        """What a key of this plan's decisions is made of: equal ones have the same parts, and decide equally."""
        made = hashlib.blake2b(self.digest, digest_size=32)
        for paths in (self.context_paths, self.windows, tuple((name,) for name in self.presences)):
            made.update(len(paths).to_bytes(4, "little"))
            for path in paths:
                made.update(len(path).to_bytes(4, "little"))
                for name in path:
                    text = str(name).encode()
                    made.update(len(text).to_bytes(4, "little") + text)
        return made.digest()

    @cached_property
    def key_head(self) -> bytes:
        """The part of a key that all of this plan's decisions have in common."""
        return self.shape + spelled_uid(self.action)

    @cached_property
    def reads_context(self) -> bool:
        return bool(self.context_paths or self.windows or self.presences)

    @cached_property
    def is_direct(self) -> bool:
        """Whether nothing is read of entities but what the request names them as."""
        reads = self.reads
        ends = [*reads.memberships, *(path for path, _ in reads.tags)]
        return (
            not reads.dynamic
            and all(len(path) <= 2 and isinstance(path[0], str) for path in reads.attributes)
            and all(len(path) == 1 and isinstance(path[0], str) for path in ends)
        )

    @cached_property
    def asks_groups_alone(self) -> bool:
        """Whether a principal makes no difference but by its type, and by which of `named` it is in."""
        reads = self.reads
        paths = [*reads.attributes, *(path for path, _ in reads.tags)]
        return (
            self.named is not None
            and "principal" not in reads.identities
            and not any(path[0] == "principal" for path in paths)
        )

    def touched(self, question: Question, store: EntityStore) -> Touched:
        """Give what a decision can touch, as far as the store tells: nothing is known behind what is not resident.

        Whatever a policy finds only while it decides (`Reads.dynamic`) is not in it.
        """
        walk = _Following(store, question.overlays or {})
        for root, step in self._roots.items():
            if isinstance(root, EntityUid):
                walk.follow(root, step)
            else:
                walk.follow((question.context or {}) if root == "context" else getattr(question, root), step)
        return Touched(frozenset(walk.read), frozenset(walk.members))

    def uids(self, question: Question, store: EntityStore) -> frozenset[EntityUid]:
        """Give the entities to fetch in the next round; none where all that can be told beforehand is resident."""
        return self.touched(question, store).away(store)


_NOTHING: Final[tuple[Mapping[str, Any], tuple[EntityUid, ...]]] = {}, ()


class _Following:
    """One way through the entities of a store, along the paths of a plan."""

    def __init__(self, store: EntityStore, overlays: Overlays) -> None:
        self._store = store
        self._overlays = overlays
        self._known: dict[EntityUid, Mapping[str, Any]] = {}
        self.read: set[EntityUid] = set()
        self.members: set[EntityUid] = set()

    def follow(self, value: Any, step: _Step) -> None:
        waiting = [(value, step)]
        while waiting:
            value, step = waiting.pop()
            if isinstance(value, EntityUid):
                self._note(value, step)
                attributes: Mapping[str, Any] = self._attributes(value) if step.names else {}
            elif isinstance(value, Mapping):
                attributes = value
            else:
                continue
            waiting += [(attributes[name], below) for name, below in step.names.items() if name in attributes]

    def _note(self, uid: EntityUid, step: _Step) -> None:
        given, parents = self._overlays.get(uid, _NOTHING)
        if step.tags or not step.names.keys() <= given.keys():  # what the request gives is not looked for elsewhere
            self.read.add(uid)
        if step.member:
            self.members.add(uid)
            self.members.update(parents)

    def _attributes(self, uid: EntityUid) -> Mapping[str, Any]:
        if uid not in self._known:
            found = self._store.get(uid)
            self._known[uid] = {**({} if found is None else found[0]), **self._overlays.get(uid, _NOTHING)[0]}
        return self._known[uid]


def tree_of(reads: Reads, heads: frozenset[str]) -> dict[str | EntityUid, _Step]:
    """Put all paths together, so that what several have in common is followed once."""
    roots: dict[str | EntityUid, _Step] = {}

    def at(path: Path) -> _Step:
        return roots.setdefault(path[0], _Step()).at(map(str, path[1:]))

    for path in reads.attributes:
        at(path)
    for path, _ in reads.tags:
        at(path).tags = True
    for path in (*reads.memberships, *product(heads)):
        at(path).member = True
    return roots
