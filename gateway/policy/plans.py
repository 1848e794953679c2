"""`Plans`: what deciding a request of given types can read, so that it is fetched beforehand and nothing else is.

A plan is made for (principal's type, action, resource's type). It names the policies whose heads could hold for such a
request, what those read, and follows that through what is resident: `principal.manager.level` reads the principal
first, and only then is it known who the manager is. So whoever fetches does it in rounds, a level each.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from itertools import product
from typing import TYPE_CHECKING, Any, Final
from weakref import WeakKeyDictionary, ref

from gateway._native.uid import EntityUid
from gateway.policy.compiler.reads import Path, Reads, reads_of, reads_together
from gateway.policy.compiler.scopes import encode_scope
from gateway.policy.decision_keys import spelled_uid

if TYPE_CHECKING:
    from gateway._native.entities import EntityStore
    from gateway._native.vm import Answer
    from gateway.policy.engine import Engine
    from gateway.policy.language.tree import Constraint, Statement
    from gateway.policy.policy_set import Policy

logger = logging.getLogger(__name__)

PLANS_MAX: Final = 4096  # kept of one engine: types and actions come with requests, and those may be anything
AT_ONCE_MAX: Final = 256  # policies of an engine whose plans are made while somebody waits: some 10 ms at most
MAKING_MAX: Final = 4  # plans made at once in the background; the others are asked for again
STEP: Final = 64  # policies that are read before others have their turn: about 2 ms
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


class Plans:
    """The plans of one engine, made when first asked for. They do not keep it alive. Belongs to one thread at a time.

    `like`: the plans of the engine before it, of which the read-sets of statements that stayed are taken over.
    """

    def __init__(self, engine: Engine, *, like: Plans | None = None) -> None:
        self._engine = ref(engine)  # who keeps plans by engine must not keep the engine alive by them
        self._plans: dict[tuple[str, EntityUid, str], tuple[int, Plan]] = {}
        self._reads: dict[int, tuple[Statement, Reads]] = {}  # by the statement's id, which the statement keeps
        self._former = {} if like is None else like._reads
        self._filed: dict[tuple[str, EntityUid | None], list[tuple[int, Policy]]] | None = None  # by head's action
        self._heads: frozenset[str] = frozenset()  # variables of which any head asks what they are in

    @property
    def engine(self) -> Engine:
        engine = self._engine()
        if engine is None:
            raise RuntimeError("the engine of these plans is gone")
        return engine

    def of(self, principal_type: str, action: EntityUid, resource_type: str) -> Plan:
        """Give the plan; the same object while neither the policies nor the action's groups change.

        With thousands of policies that could hold for the types, the first time takes a good part of a second.
        """
        kept = self.known(principal_type, action, resource_type)
        if kept is not None:
            return kept
        *_, made = self._making(principal_type, action, resource_type)
        assert made is not None
        return made

    async def prepared(self, principal_type: str, action: EntityUid, resource_type: str) -> Plan:
        """Give the plan, as `of`; while it is made, the event loop goes on."""
        kept = self.known(principal_type, action, resource_type)
        if kept is not None:
            return kept
        engine = self.engine
        if self._filed is None:
            await asyncio.to_thread(lambda: engine.policies)  # one that was not compiled here has yet to read them
        made: Plan | None = None
        for made in self._making(principal_type, action, resource_type):
            if made is None:
                await asyncio.sleep(0)
        assert made is not None
        return made

    def known(self, principal_type: str, action: EntityUid, resource_type: str) -> Plan | None:
        """Give the plan if it is made, and as it would be made now."""
        kept = self._plans.get((principal_type, action, resource_type))
        return kept[1] if kept is not None and kept[0] == self.engine.store.version(action) else None

    def _making(self, principal_type: str, action: EntityUid, resource_type: str) -> Iterator[Plan | None]:
        """Yield None after each step, and in the end the plan."""
        engine = self.engine
        version = engine.store.version(action)
        yield from self._file(engine)
        candidates = []
        for number, policy in enumerate(self._for_action(engine, action), 1):
            principal, _, resource = policy.scope()
            if _may_hold(principal, principal_type) and _may_hold(resource, resource_type):
                candidates.append(policy)
            if number % (STEP * 16) == 0:
                yield None
        parts: list[Reads] = []
        digest = hashlib.blake2b(digest_size=32)
        exact: set[EntityUid] = set()
        named: set[EntityUid] = set()
        for first in range(0, len(candidates), STEP):
            some = candidates[first : first + STEP]
            parts.append(reads_together([self._reads_of(policy.statement) for policy in some]))
            for policy in some:
                _digest(digest, policy, engine)
                head = policy.scope()[0]
                (exact if head.op == "==" else named).update(head.entities)
            yield None
        reads = reads_together(parts)
        named.update(uid for variable, uid in reads.containers if variable == "principal")
        made = Plan(
            action,
            tuple(policy.id for policy in candidates),
            reads,
            digest.digest(),
            frozenset(exact),
            tuple(sorted(named)) if len(named) <= NAMED_MAX else None,
            _tree(reads, self._heads),
        )
        key = principal_type, action, resource_type
        self._plans.pop(key, None)
        if len(self._plans) >= PLANS_MAX:
            del self._plans[next(iter(self._plans))]  # the oldest
        self._plans[key] = version, made
        yield made

    def _for_action(self, engine: Engine, action: EntityUid) -> list[Policy]:
        """Give the policies whose heads hold for an action, each once, in the order of the set."""
        assert self._filed is not None
        is_in = engine.store.is_in
        groups = [key for key in self._filed if key[0] == "in" and key[1] is not None and is_in(action, key[1])]
        found: dict[int, Policy] = {}
        for key in (("any", None), ("==", action), *groups):
            found.update(self._filed.get(key, ()))
        return [found[number] for number in sorted(found)]

    def _file(self, engine: Engine) -> Iterator[None]:
        if self._filed is not None:
            return
        filed: dict[tuple[str, EntityUid | None], list[tuple[int, Policy]]] = {}
        heads: set[str] = set()
        for number, policy in enumerate(engine.policies.policies.values()):
            principal, action, resource = policy.scope()
            for uid in action.entities if action.op != "any" else (None,):
                filed.setdefault((action.op, uid), []).append((number, policy))
            scopes = (("principal", principal), ("action", action), ("resource", resource))
            heads.update(name for name, scope in scopes if scope.op in ("in", "is in"))
            if number % (STEP * 4) == STEP:
                yield
        self._filed, self._heads = filed, frozenset(heads)

    def _reads_of(self, statement: Statement) -> Reads:
        key = id(statement)
        found = self._reads.get(key) or self._former.get(key)
        if found is None or found[0] is not statement:
            found = statement, reads_of(statement)
        self._reads[key] = found
        return found[1]


def _digest(digest: Any, policy: Policy, engine: Engine) -> None:
    """Add what a policy says, and its id, which answers name."""
    head = encode_scope(policy.statement.effect, *policy.scope())
    for part in (policy.id.encode(), head, engine.program(policy.id).image):
        digest.update(len(part).to_bytes(8, "little"))
        digest.update(part)


class EnginePlans:
    """The plans of each engine that is alive. Belongs to one thread at a time."""

    def __init__(self) -> None:
        self._by_engine: WeakKeyDictionary[Engine, Plans] = WeakKeyDictionary()
        self._newest: Plans | None = None
        self._making: dict[tuple[int, str, EntityUid, str], asyncio.Task[Plan]] = {}  # by id of the plans it belongs to

    def at_hand(self, engine: Engine, principal_type: str, action: EntityUid, resource_type: str) -> Plan | None:
        """Give the plan if it is made, or is made at once; else None, and make it meanwhile.

        What one request can do without is not worth to hold up all others.
        """
        plans = self.of(engine)
        known = plans.known(principal_type, action, resource_type)
        if known is not None or len(engine) <= AT_ONCE_MAX:
            return known or plans.of(principal_type, action, resource_type)
        key = id(plans), principal_type, action, resource_type
        if key not in self._making and len(self._making) < MAKING_MAX:
            task = asyncio.get_running_loop().create_task(
                plans.prepared(principal_type, action, resource_type), name="policy: plan"
            )
            self._making[key] = task
            task.add_done_callback(lambda made: self._made(key, made))
        return None

    def _made(self, key: tuple[int, str, EntityUid, str], made: asyncio.Task[Plan]) -> None:
        del self._making[key]
        if not made.cancelled() and made.exception() is not None:
            logger.error("a plan could not be made", exc_info=made.exception())

    def of(self, engine: Engine) -> Plans:
        """Give an engine's plans; read-sets of statements that it shares with the engine before it are taken over."""
        found = self._by_engine.get(engine)
        if found is None:
            found = self._newest = self._by_engine[engine] = Plans(engine, like=self._newest)
        return found


def _may_hold(constraint: Constraint, type_name: str) -> bool:
    """Tell whether a head could hold for some entity of a type; what `in` leads to is known only with the entity."""
    if constraint.op == "==":
        return constraint.entities[0].type == type_name
    return constraint.type is None or constraint.type == type_name


def _tree(reads: Reads, heads: frozenset[str]) -> dict[str | EntityUid, _Step]:
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
