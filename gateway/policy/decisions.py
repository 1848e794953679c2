"""`DecisionCache`: decisions that were made before, where asking for them is cheaper than making them again.

Making one takes less than a microsecond once its entities are resident, so that those are what is kept
(`residency.py`), and most decisions are simply made. Looked up are only

| level | where                  | which                                                         | how long            |
|-------|------------------------|---------------------------------------------------------------|---------------------|
| L1    | this process           | what was found to take 5 µs and more; all with mode="always"  | 60 s, denials 10 s  |
| L2    | a store shared by many | decisions for which an entity would have to be fetched        | 300 s, denials 10 s |

and never longer than the token that asked, or an entity that ends by itself.

Key: `decision_keys.py`; the whole key is compared, not a hash of it. Why an entry of L1 is still right: it names the
version of each entity that the decision could touch, and those are compared at each hit, so that a change of anything
else drops nothing. Where it is known only while deciding what is touched, any change drops it. An entry of L2 is found
only under the epoch that was read before what it rests on, and in the state of `world` and of all sources' logs. A
comparison with a moment holds until it turns: the machine says how far the moments asked for may move (`flip_ms`).

Faults, limits that were hit and attributes that could not be had are never kept. Whoever asks for what is being fetched
waits for it. A store that is away costs L2 and nothing else.
"""

from __future__ import annotations

import asyncio
import hashlib
import time
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Literal, NamedTuple

from gateway._native.cache import ByteCache
from gateway._native.uid import EntityUid
from gateway._native.vm import Answer
from gateway.policy.attributes import UNAVAILABLE_ANSWER, AttributePrefetcher, AttributeUnavailable, Judgement
from gateway.policy.decision_costs import DecisionCosts
from gateway.policy.decision_entries import Entry, rests_on, shared_entry, written
from gateway.policy.decision_keys import decision_key, moment_at, standing_groups
from gateway.policy.plans import EnginePlans, Overlays, Plan, Question
from gateway.resilience import detached
from gateway.stores.decisions import NO_EPOCH, VALUE_BYTES_MAX, DecisionStore, NoDecisionStore
from gateway.stores.following import uniform_random
from gateway.types import Clock

if TYPE_CHECKING:
    from gateway._native.entities import EntityStore
    from gateway.policy.engine import Engine

ENTRIES: Final = 10_000
L1_TTL_S: Final = 60.0
L2_TTL_S: Final = 300.0
DENIED_TTL_S: Final = 10.0  # a right that was just given is not missed for longer
JITTER: Final = 0.9  # of a time to live at least
KEY_BYTES_MAX: Final = 4096  # a request that says more is decided each time
DEPENDENCIES_MAX: Final = 32  # entities by version; what touches more is dropped by any change

Mode = Literal["auto", "always", "off"]
Level = Literal["made", "fetched", "l1", "l2"]  # made: with what was here; fetched: after a source was asked


class Decided(NamedTuple):
    """An answer and how it was come by. `failure`: why attributes could not be had; then it denies.

    Of an answer that was kept, `flip_ms` counts from the moments of the request that it was made for.
    """

    answer: Answer
    level: Level
    failure: AttributeUnavailable | None = None


@dataclass(frozen=True, slots=True)
class DecisionStats:
    """Totals since start, but for `entries` and `bytes`."""

    made: int
    fetched: int
    l1_hits: int
    l1_misses: int
    l1_stale: int  # of the misses: something that the entry rests on has changed
    l1_over: int  # of the misses: its time, or a moment in it, has passed
    l2_hits: int
    l2_misses: int
    l2_damaged: int  # values that could not be read
    shared: int  # requests that waited for a decision that another one had begun
    unkept: int  # decisions that are never kept: too large, with a fault, or over at once
    entries: int
    bytes: int
    evictions: int


COUNTED: Final = tuple(each for each in DecisionStats.__slots__ if each not in ("entries", "bytes", "evictions"))


class _Case(NamedTuple):
    """A question with all that its key says. `groups`: those that stand for the principal in it, or None."""

    engine: Engine
    plan: Plan
    question: Question
    until_s: float | None
    revision: int  # of the store before anything was looked at
    groups: tuple[EntityUid, ...] | None
    moments: tuple[int | None, ...]
    key: bytes | None  # None: it is decided each time

    @property
    def store(self) -> EntityStore:
        return self.engine.store


class _Flight(NamedTuple):
    decided: Decided
    entry: Entry | None  # None: nobody else can tell whether it holds


class DecisionCache:
    """Decides, by what was decided before where that is faster. Belongs to one event loop."""

    def __init__(
        self,
        *,
        clock: Clock,
        prefetcher: AttributePrefetcher | None = None,
        plans: EnginePlans | None = None,
        tenant: str = "",
        mode: Mode = "auto",
        entries: int = ENTRIES,
        l1_ttl_s: float = L1_TTL_S,
        l2_ttl_s: float = L2_TTL_S,
        denied_ttl_s: float = DENIED_TTL_S,
        store: DecisionStore | None = None,
        world: Callable[[Engine], bytes] | None = None,
        timer_ns: Callable[[], int] = time.perf_counter_ns,
        uniform: Callable[[float, float], float] = uniform_random,
    ) -> None:
        """`store` is L2; it stays its owner's. `world` says, for all who share it, what decisions rest on besides the
        sources of `prefetcher`: digests of entities that are read from files, revisions of relations. It is asked
        before a decision is made. Raises ValueError for a store without a world, and for sizes that make no sense.
        """
        if store is not None and (world is None or prefetcher is None):
            raise ValueError("a store of decisions needs sources, and to be told what else decisions rest on")
        if l1_ttl_s <= 0 or l2_ttl_s <= 0 or denied_ttl_s <= 0:
            raise ValueError("times to live are above 0")
        self._clock = clock
        self._prefetcher = prefetcher
        self._plans = plans or EnginePlans()
        self._tenant = tenant.encode()
        self._mode = mode
        self._l1_ttl_s = l1_ttl_s
        self._l2_ttl_s = l2_ttl_s
        self._denied_ttl_s = denied_ttl_s
        self._store: DecisionStore = store or NoDecisionStore()
        self._world = world
        self._uniform = uniform
        self._timer_ns = timer_ns
        self._costs = DecisionCosts()
        self._l1 = ByteCache(entries, l1_ttl_s)
        self._entities: EntityStore | None = None  # to which the versions in L1 belong
        self._flights: dict[tuple[int, bytes], asyncio.Task[_Flight]] = {}  # by id of the store, which they keep alive
        self._counts: Counter[str] = Counter()
        self._invalidating: asyncio.Task[None] | None = None
        self._invalid = False  # something changed since the invalidation that is under way began

    # --- asking

    async def authorize(
        self,
        engine: Engine,
        principal: EntityUid,
        action: EntityUid,
        resource: EntityUid,
        context: dict[str, Any] | None = None,
        *,
        overlays: Overlays | None = None,
        until_s: float | None = None,
    ) -> Answer:
        """Return what `engine.authorize` would with everything resident; see `AttributePrefetcher.authorize`.

        `until_s`: Unix time at which the token that asks is over; nothing made for it is kept beyond that.
        """
        question = Question(principal, action, resource, context, overlays)
        return (await self.decide(engine, question, until_s=until_s)).answer

    async def decide(self, engine: Engine, question: Question, *, until_s: float | None = None) -> Decided:
        """Decide, as `authorize`, and say how that was come by."""
        if self._prefetcher is not None:
            self._prefetcher.sweep()
        case: _Case | None = None
        if self._mode == "always" or (self._mode == "auto" and self._costs.are_dear(engine, question)):
            case = self._case(engine, question, until_s)
        entry = None if case is None else self._find(case)
        if entry is not None:
            if self._prefetcher is not None:
                self._prefetcher.touch(engine, (question.principal, question.resource))
            return Decided(entry.answer, "l1")
        answer = self._try(engine, question)
        if answer is not None:
            if case is not None:
                self._keep(case, self._entry(case, answer, case.revision))
            return Decided(answer, "made")
        keep = case is not None
        if case is None and self._mode != "off":
            case = self._case(engine, question, until_s)
        if case is None:
            return await self._fetch(engine, question)
        return await self._together(case, keep=keep)

    def clear(self) -> None:
        """Forget all that this process keeps."""
        self._l1.clear()

    def changed(self) -> None:
        """Let nothing be found that others keep: what `world` does not show has changed. Soon, in the background."""
        self._invalid = True
        if self._invalidating is None:
            self._invalidating = asyncio.get_running_loop().create_task(self._invalidate(), name="decisions: epoch")

    async def close(self) -> None:
        """End what is under way; whoever waits for it is refused. The store stays open."""
        tasks = [*self._flights.values(), *([] if self._invalidating is None else [self._invalidating])]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def stats(self) -> DecisionStats:
        """Give the counters."""
        native = self._l1.stats()
        kept = {name: native[name] for name in ("entries", "bytes", "evictions")}
        return DecisionStats(**{name: self._counts[name] for name in COUNTED}, **kept)

    # --- making

    def _try(self, engine: Engine, question: Question) -> Answer | None:
        """Decide with what is here; None where something must be fetched."""
        begin_ns = self._timer_ns()
        if self._prefetcher is None:
            answer = question.answered_by(engine)
        else:
            judged = self._prefetcher.judge_now(engine, question)
            if judged is None:
                return None
            answer = judged.answer
        self._costs.note(engine, question, self._timer_ns() - begin_ns)
        self._counts["made"] += 1
        return answer

    async def _fetch(self, engine: Engine, question: Question) -> Decided:
        return self._fetched(await self._source.judge(engine, question))

    def _fetched(self, judged: Judgement) -> Decided:
        self._counts["fetched"] += 1
        return Decided(judged.answer, "fetched", judged.failure)

    @property
    def _source(self) -> AttributePrefetcher:
        assert self._prefetcher is not None  # nothing is ever missing without one
        return self._prefetcher

    async def _together(self, case: _Case, *, keep: bool) -> Decided:
        """Decide what needs a source: by L2, or by what another request has begun already."""
        if case.key is None:
            return await self._fetch(case.engine, case.question)
        place = id(case.store), case.key
        flight = self._flights.get(place)
        joined = flight is not None
        if flight is None:
            flight = detached(self._fly(case, keep=keep), name="decisions: flight")
            self._flights[place] = flight
            flight.add_done_callback(lambda _: self._flights.pop(place, None))
        try:
            made = await asyncio.shield(flight)
        except asyncio.CancelledError:
            if not flight.cancelled():
                raise  # it is us who are not wanted any more
            return Decided(UNAVAILABLE_ANSWER, "fetched", AttributeUnavailable("", "unavailable"))
        if not joined or made.decided.failure is not None:
            return made.decided
        entry = made.entry
        if entry is not None and entry.holds_at(case.moments) and (entry.is_shared or entry.holds_in(case.store)):
            self._counts["shared"] += 1
            return made.decided
        return await self._fetch(case.engine, case.question)

    async def _fly(self, case: _Case, *, keep: bool) -> _Flight:
        epoch, whole, name = NO_EPOCH, b"", b""
        if self._world is not None and self._source.trusted:
            whole = self._whole_key(case)
            name = hashlib.blake2b(whole, digest_size=32).digest()
            (value,), epoch = await self._store.get_many((name,))
            found = None if value is None else self._read(value, whole, case)
            if found is not None and self._source.trusted:
                self._counts["l2_hits"] += 1
                return _Flight(Decided(found.answer, "l2"), found)
            self._counts["l2_misses"] += 1
        judged = await self._source.judge(case.engine, case.question)
        # From here on nothing else runs in the loop.
        entry = self._entry(case, judged.answer, judged.revision)
        if keep:
            self._keep(case, entry)
        if entry is not None and epoch != NO_EPOCH and whole == self._whole_key(case):
            self._share(case, name, whole, entry, epoch)
        return _Flight(self._fetched(judged), entry)

    # --- keys and entries

    def _case(self, engine: Engine, question: Question, until_s: float | None) -> _Case | None:
        """Give the question with its key; None as long as it is not known what one is made of."""
        plan = self._plans.at_hand(engine, *question.types)
        if plan is None:
            return None
        revision = engine.store.revision
        moments = tuple(moment_at(question.context, path) for path in plan.windows)
        groups = standing_groups(plan, question, engine.store)
        key: bytes | None = None
        with suppress(TypeError, ValueError):  # the context is none: deciding says so
            key = decision_key(self._tenant, plan, question, groups)
        if key is not None and len(key) > KEY_BYTES_MAX:
            key = None
        return _Case(engine, plan, question, until_s, revision, groups, moments, key)

    def _entry(self, case: _Case, answer: Answer, revision: int) -> Entry | None:
        """Say what an answer rests on, which was made at a revision of the store; None where it must not be kept."""
        entry = self._entry_of(case, answer)
        # What another thread changed since may be in the versions, and not in the answer.
        if entry is None or case.store.revision != revision:
            self._counts["unkept"] += 1
            return None
        return entry

    def _entry_of(self, case: _Case, answer: Answer) -> Entry | None:
        plan, question, store = case.plan, case.question, case.store
        if answer.faults or (case.until_s is not None and case.until_s <= self._clock.wall_s()):
            return None
        if self._plans.of(case.engine).known(*question.types) is not plan:
            return None  # other policies are candidates now than those that the key speaks of
        if case.groups is not None and standing_groups(plan, question, store) != case.groups:
            return None
        ttl_s = self._l1_ttl_s if answer.allowed else min(self._l1_ttl_s, self._denied_ttl_s)
        until_s = self._clock.monotonic_s() + ttl_s * self._uniform(JITTER, 1.0)
        touched = plan.touched(question, store)
        members = touched.members
        if case.groups is not None:  # what the principal is in stands in the key
            members -= {question.principal, *(question.overlays or {}).get(question.principal, ({}, ()))[1]}
        uids = touched.read | members
        known = not plan.reads.dynamic and len(uids) <= DEPENDENCIES_MAX
        return Entry(
            answer,
            until_s,
            case.moments,
            answer.flip_ms,
            case.until_s,
            revision=None if known else store.revision,
            versions=tuple((uid, store.version(uid)) for uid in uids) if known else (),
            members=tuple(members) if known and self._prefetcher is not None else (),
        )

    # --- L1

    def _find(self, case: _Case) -> Entry | None:
        if self._entities is not case.store:
            self._l1.clear()
            self._entities = case.store
        entry: Entry | None = None if case.key is None else self._l1.get(case.key)
        if entry is not None and not self._is_in_time(entry, case):
            self._counts["l1_over"] += 1
            entry = None
        elif entry is not None and not entry.holds_in(case.store):
            self._counts["l1_stale"] += 1
            entry = None
        self._counts["l1_misses" if entry is None else "l1_hits"] += 1
        return entry

    def _is_in_time(self, entry: Entry, case: _Case) -> bool:
        token_until_s = entry.token_until_s
        return (
            self._clock.monotonic_s() < entry.until_s
            and (token_until_s is None or self._clock.wall_s() < token_until_s)
            and entry.holds_at(case.moments)
        )

    def _keep(self, case: _Case, entry: Entry | None) -> None:
        if entry is not None and case.key is not None and self._entities is case.store:
            self._l1.put(case.key, entry)

    # --- L2

    def _whole_key(self, case: _Case) -> bytes:
        """Give the key under which all who share the store look: with the state of all that a decision rests on."""
        assert case.key is not None
        assert self._world is not None
        parts = [self._world(case.engine), case.key]
        for name, revision in sorted(self._source.revisions().items()):
            parts += (name.encode(), revision.encode())
        return b"".join(len(part).to_bytes(4, "little") + part for part in parts)

    def _share(self, case: _Case, name: bytes, whole: bytes, entry: Entry, epoch: str) -> None:
        ttl_s = self._l2_ttl_s if entry.answer.allowed else min(self._l2_ttl_s, self._denied_ttl_s)
        ttl_s *= self._uniform(JITTER, 1.0)
        if entry.token_until_s is not None:
            ttl_s = min(ttl_s, entry.token_until_s - self._clock.wall_s())
        uids = None if entry.revision is not None else rests_on(entry, case.store)
        end_s = self._source.end_s(case.engine, uids)
        if end_s is not None:
            ttl_s = min(ttl_s, end_s - self._clock.monotonic_s())
        value = written(whole, entry)
        if ttl_s > 0 and len(value) <= VALUE_BYTES_MAX:
            self._store.put(name, value, ttl_s, epoch)

    def _read(self, value: bytes, whole: bytes, case: _Case) -> Entry | None:
        """Give what others have written, where it holds for the case."""
        try:
            entry = shared_entry(value, whole, len(case.moments))
        except (ValueError, KeyError, TypeError, RecursionError):
            self._counts["l2_damaged"] += 1
            return None
        over = entry.token_until_s is not None and entry.token_until_s <= self._clock.wall_s()
        return None if over or not entry.holds_at(case.moments) else entry

    async def _invalidate(self) -> None:
        try:
            while self._invalid:
                self._invalid = False
                await self._store.invalidate()
        finally:
            self._invalidating = None
