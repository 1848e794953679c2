"""`AttributePrefetcher`: fetches the entities that a decision needs and that are not here, then decides.

A decision is tried first: the machine says when it rests on an entity that is kept in a source and not resident. Only
then the plan is asked what the decision can touch, all of that is read (one read a source, the sources side by side),
and the decision is tried again; what it reaches next, `principal.manager.manager`, is read in the next round. A whole
decision has one time budget. Whatever goes wrong denies, with the fault `attributes_unavailable`.

What is read and how long it stays: `residency.py`. Of a source with a log (`FollowedSource`) every change is followed
(`attribute_follower.py`), and while the log cannot be read nothing of the source counts. Of a source without one an
entity is believed for `ttl_s`. Several requests that need one entity wait for one read. Faults are never kept.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from gateway._native.uid import EntityUid
from gateway._native.vm import Answer
from gateway.policy.attribute_follower import AttributeState
from gateway.policy.attribute_origins import UNAVAILABLE, AttributeUnavailable, Origin, Reason, SourcedTypes
from gateway.policy.attribute_reading import AttributeReading
from gateway.policy.plans import EnginePlans, Overlays, Question
from gateway.policy.residency import Residency
from gateway.stores.attributes import READ_MAX
from gateway.stores.base import Revision
from gateway.stores.following import uniform_random
from gateway.types import Clock

if TYPE_CHECKING:
    from gateway.policy.engine import Engine

__all__ = [
    "UNAVAILABLE",
    "AttributePrefetcher",
    "AttributeUnavailable",
    "Judgement",
    "PrefetchStats",
    "Reason",
    "SourcedTypes",
]

BUDGET_S: Final = 0.25  # of one decision, all rounds together
ROUNDS_MAX: Final = 8  # of one decision: so far apart may what it reads be
WANTED_MAX: Final = 10_000  # entities of one round: a principal in more groups than that is refused
CAPACITY: Final = 100_000
SWEEP_S: Final = 0.25
NOT_RESIDENT: Final = "entity_not_resident"

UNAVAILABLE_ANSWER: Final = Answer(False, frozenset(), frozenset(), (UNAVAILABLE,))


class Judgement(NamedTuple):
    """An answer, the store's revision when it was made, and why it is none where attributes could not be had."""

    answer: Answer
    revision: int
    with_io: bool = False
    failure: AttributeUnavailable | None = None


@dataclass(frozen=True, slots=True)
class PrefetchStats:
    """Totals since start, but for `resident`."""

    without_io: int  # decisions for which everything was here
    with_io: int  # decisions that waited for a source, successful or not
    rounds: int
    reads: int  # of sources
    fetched: int  # entities
    absent: int  # entities that their source did not know
    bytes: int
    refreshed: int  # entities that were read again before anybody had to wait
    changed: int  # entities that went because they changed
    expired: int
    evicted: int  # entities that made room
    failures: Mapping[tuple[str, Reason], int]  # decisions denied, by source and reason
    invalid: int  # entities that did not fit
    resident: int


class AttributePrefetcher:
    """Decides with entities from sources. Belongs to one event loop; engines are handed in, newest last."""

    def __init__(
        self,
        sources: Sequence[SourcedTypes],
        *,
        clock: Clock,
        budget_s: float = BUDGET_S,
        capacity: int = CAPACITY,
        plans: EnginePlans | None = None,
        uniform: Callable[[float, float], float] = uniform_random,
    ) -> None:
        """Raises ValueError for a type or a name of two sources, and for sizes that make no sense."""
        if capacity < READ_MAX:
            raise ValueError(f"a capacity of at least {READ_MAX} is needed")
        if budget_s <= 0 or any(each.ttl_s <= 0 for each in sources):
            raise ValueError("times are above 0")
        self._clock = clock
        self._budget_s = budget_s
        self._capacity = capacity
        self._plans = plans or EnginePlans()
        self._origins = [
            Origin(each, clock=clock, on_change=self._changed, on_doubt=self._distrusted) for each in sources
        ]
        self._by_type: dict[str, Origin] = {}
        for origin, each in zip(self._origins, sources, strict=True):
            for name in each.types:
                if self._by_type.setdefault(name, origin) is not origin:
                    raise ValueError(f"`{name}` is kept in two sources")
        if len({origin.name for origin in self._origins}) < len(self._origins):
            raise ValueError("two sources have one name")
        self._residencies: list[Residency] = []  # of the stores by which some engine decides
        self._counts: Counter[str] = Counter()
        self._reading = AttributeReading(
            self._by_type, clock=clock, limit_s=budget_s, uniform=uniform, counts=self._counts
        )
        self._sweeping: asyncio.Task[None] | None = None
        self._failures: Counter[tuple[str, Reason]] = Counter()

    # --- life

    async def start(self) -> None:
        """Begin to follow the sources that have logs; return after the first look at each, and when all are open."""
        self._sweeping = asyncio.create_task(self._sweep_for_ever(), name="attributes: sweep")
        await asyncio.gather(*(origin.start() for origin in self._origins))

    async def stop(self) -> None:
        """Stop following and reading. The sources stay open, and belong to whoever opened them."""
        await asyncio.gather(*(origin.follower.stop() for origin in self._origins if origin.follower is not None))
        await self._reading.stop()
        if self._sweeping is not None:
            self._sweeping.cancel()
            await asyncio.gather(self._sweeping, return_exceptions=True)

    async def follow(self) -> None:
        """Look at the end of every log now."""
        await asyncio.gather(*(origin.follower.follow() for origin in self._origins if origin.follower is not None))

    def adopt(self, engine: Engine) -> None:
        """Make the engine's store know which types are kept in sources. Before the engine decides anything.

        Raises SourcesMisfit for types that cannot be: then the engine must not be used.
        """
        self._residency_of(engine)

    @property
    def types(self) -> frozenset[str]:
        """The types that are kept in sources."""
        return frozenset(self._by_type)

    def states(self) -> list[AttributeState]:
        """Say how the following of each source that has a log stands."""
        return [origin.follower.state() for origin in self._origins if origin.follower is not None]

    def stats(self) -> PrefetchStats:
        """Give the counters."""
        counts = self._counts
        return PrefetchStats(
            without_io=counts["without_io"],
            with_io=counts["with_io"],
            rounds=counts["rounds"],
            reads=counts["reads"],
            fetched=counts["fetched"],
            absent=counts["absent"],
            bytes=counts["bytes"],
            refreshed=counts["refreshed"],
            changed=counts["changed"],
            expired=counts["expired"],
            evicted=counts["evicted"] + sum(each.evicted for each in self._residencies),
            failures=dict(self._failures),
            invalid=counts["invalid"],
            resident=sum(map(len, self._residencies)),
        )

    # --- deciding

    async def authorize(
        self,
        engine: Engine,
        principal: EntityUid,
        action: EntityUid,
        resource: EntityUid,
        context: dict[str, Any] | None = None,
        *,
        overlays: Overlays | None = None,
    ) -> Answer:
        """Return what `engine.authorize` would with everything resident.

        Where that cannot be had in time the Answer denies, with the fault `attributes_unavailable`.
        """
        return (await self.judge(engine, Question(principal, action, resource, context, overlays))).answer

    async def judge(self, engine: Engine, question: Question) -> Judgement:
        """Decide a question, as `authorize`, and say what the answer rests on."""
        self.sweep()
        residency = self._residency_of(engine)
        now = self._decided_now(engine, residency, question)
        if NOT_RESIDENT not in now.answer.faults:
            return now
        self._counts["with_io"] += 1
        revision, missing = now.revision, now.answer.missing
        until_s = self._clock.monotonic_s() + self._budget_s
        try:
            for _ in range(ROUNDS_MAX):
                await self._round(residency, self._wanted(engine, question, missing), until_s)
                revision = engine.store.revision
                answer = question.answered_by(engine)
                if NOT_RESIDENT not in answer.faults:
                    return Judgement(answer, revision, with_io=True)
                missing = answer.missing
            raise AttributeUnavailable("", "too_deep")
        except AttributeUnavailable as failure:
            # The plan foresees more than a decision may come to rest on: what else was brought may be enough.
            revision = engine.store.revision
            answer = question.answered_by(engine)
            if NOT_RESIDENT not in answer.faults:
                return Judgement(answer, revision, with_io=True)
            self._failures[failure.source, failure.reason] += 1
            return Judgement(UNAVAILABLE_ANSWER, revision, with_io=True, failure=failure)

    def judge_now(self, engine: Engine, question: Question) -> Judgement | None:
        """Decide with what is here; None where something must be fetched. What is over must have been swept."""
        made = self._decided_now(engine, self._residency_of(engine), question)
        return None if NOT_RESIDENT in made.answer.faults else made

    def _decided_now(self, engine: Engine, residency: Residency, question: Question) -> Judgement:
        revision = engine.store.revision
        answer = question.answered_by(engine)
        if NOT_RESIDENT not in answer.faults:
            self._counts["without_io"] += 1
            residency.touch((question.principal, question.resource))
        return Judgement(answer, revision)

    def touch(self, engine: Engine, uids: Iterable[EntityUid]) -> None:
        """Note that entities are in use, by a decision that was not made here."""
        self._residency_of(engine).touch(uids)

    async def prefetch(self, engine: Engine, questions: Sequence[Question]) -> None:
        """Make resident what deciding these questions rests on: in each round one read a source for all of them.

        A question that cannot be asked is passed over: deciding it says why. Raises AttributeUnavailable where what is
        needed cannot be had in time.
        """
        residency = self._residency_of(engine)
        self.sweep()
        until_s = self._clock.monotonic_s() + self._budget_s
        for _ in range(ROUNDS_MAX):
            wanted: set[EntityUid] = set()
            waiting = []
            for question in questions:
                with suppress(TypeError, ValueError):
                    answer = question.answered_by(engine)
                    if NOT_RESIDENT in answer.faults:
                        waiting.append(question)
                        wanted |= self._wanted(engine, question, answer.missing)
            if not waiting:
                return
            questions = waiting
            await self._round(residency, wanted, until_s)
        raise AttributeUnavailable("", "too_deep")

    async def fetch(self, engine: Engine, uids: Collection[EntityUid]) -> None:
        """Make `uids` resident: what a plan does not foresee, and only a decision met.

        Raises AttributeUnavailable where they cannot be had in time.
        """
        residency = self._residency_of(engine)
        await self._reading.fetch(residency, uids, self._clock.monotonic_s() + self._budget_s)
        residency.touch(uids)

    def end_s(self, engine: Engine, uids: Iterable[EntityUid] | None) -> float | None:
        """Give when, on the monotonic clock, the first of `uids` is believed no more; None: none has an end.

        Without uids: the first of anything that is here.
        """
        return self._residency_of(engine).end_s(uids)

    @property
    def trusted(self) -> bool:
        """Whether every source that has a log is followed now."""
        return all(origin.trusted for origin in self._origins)

    def revisions(self) -> dict[str, Revision]:
        """Give, by source with a log, up to where its changes are in force here."""
        return {each.name: each.follower.revision for each in self._origins if each.follower is not None}

    def _wanted(self, engine: Engine, question: Question, missing: EntityUid | None) -> set[EntityUid]:
        """Give what is known to be needed and is not here: what the machine misses, and what the plan foresees."""
        plan = self._plans.at_hand(engine, *question.types)
        wanted = set() if plan is None else set(plan.uids(question, engine.store))
        if missing is not None:
            wanted.add(missing)
        return wanted

    async def _round(self, residency: Residency, wanted: set[EntityUid], until_s: float) -> None:
        if len(wanted) > WANTED_MAX:
            raise AttributeUnavailable("", "too_many")
        self._counts["rounds"] += 1
        await self._reading.fetch(residency, wanted, until_s)
        residency.touch(wanted)

    def _residency_of(self, engine: Engine) -> Residency:
        for residency in self._residencies:
            if residency.store is engine.store:
                residency.engines.add(engine)
                return residency
        made = Residency(engine, self._by_type, self._capacity)
        self._residencies.append(made)
        return made

    # --- what ends

    def sweep(self) -> None:
        """Let go what is over or trusted no more, and read again what was used and soon will be over."""
        now_s = self._clock.monotonic_s()
        for origin in self._origins:
            if not origin.trusted:  # it may have ceased to be just now, before anybody was told
                self._distrusted(origin)
        for residency in self._residencies:
            next_s = residency.next_s
            if next_s is None or next_s > now_s:
                continue
            count, soon = residency.expire(now_s)
            self._counts["expired"] += count
            for origin in self._origins:
                self._reading.read_again(residency, origin, soon.get(origin.name, ()))

    async def _sweep_for_ever(self) -> None:
        while True:
            self.sweep()
            for gone in [each for each in self._residencies if not each.engines]:
                self._counts["evicted"] += gone.evicted
                self._residencies.remove(gone)
            due_s = [each.next_s for each in self._residencies if each.next_s is not None]
            rest_s = min([SWEEP_S, *(when_s - self._clock.monotonic_s() for when_s in due_s)])
            await asyncio.sleep(max(0.001, rest_s))

    def _changed(self, origin: Origin, uids: Sequence[EntityUid]) -> None:
        """Let go what changed, at once; as much as one read brings is read again before anybody asks."""
        for residency in self._residencies:
            held = residency.held_of(uids, origin.name)
            residency.evict(held)
            self._counts["changed"] += len(held)
            self._reading.read_again(residency, origin, held[:READ_MAX])

    def _distrusted(self, origin: Origin) -> None:
        """Let everything of a source go: nobody knows whether it is still so."""
        for residency in self._residencies:
            self._counts["changed"] += residency.evict_origin(origin.name)
