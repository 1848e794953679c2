"""How a running worker decides beyond the hot path: entities fetched from their sources, decisions kept.

The hot path decides by what is resident. Where a decision rests on an entity that is not, the door asks here, the
entities are fetched (`policy/attributes.py`), and the door judges again. The decision API asks here for every answer,
and gets one that was made before where that is faster (`policy/decisions.py`).
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from gateway._native.uid import EntityUid
from gateway.config import DecisionCacheConfig, PolicyConfig, SourceConfig, resolve_store_url
from gateway.front.attribute_sources import open_configured_source
from gateway.front.in_force import InForce, first_look
from gateway.policy.attributes import UNAVAILABLE, AttributePrefetcher, AttributeUnavailable, SourcedTypes
from gateway.policy.decisions import Decided, DecisionCache
from gateway.policy.engine import Engine
from gateway.policy.plans import EnginePlans, Question
from gateway.resilience import Resilience, guarded
from gateway.stores import open_decision_store
from gateway.stores.attributes import AttributeSource
from gateway.stores.decisions import DecisionStore
from gateway.types import Clock

_log = logging.getLogger("portcullis.deciding")

BREAKER_SHARE: Final = 0.9  # of what a decision may take: a source that hangs must be a fault before it is given up
LACKS_MAX: Final = 8  # entities that a door may lack one after another, beyond what the diagnosis needed

World = Callable[[Engine], bytes]
"""What decisions of an engine rest on besides its policies and the sources: files of entities, relations."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """What a config says about deciding. Equal ones are served by the same opened parts."""

    sources: tuple[SourceConfig, ...]
    fetch_s: float
    resident_max: int
    cache: DecisionCacheConfig

    @classmethod
    def of(cls, config: PolicyConfig) -> Wanted:
        return cls(config.sources, config.fetch_s, config.resident_max, config.cache)

    @property
    def entities(self) -> tuple[object, ...]:
        """What decides which entities may be in one store."""
        return self.sources, self.fetch_s, self.resident_max


class Deciding:
    """What decides by one config: sources, what fetches from them, and the decisions that are kept.

    Belongs to one event loop. `prefetcher` is None where no entity is kept elsewhere.
    """

    def __init__(
        self,
        wanted: Wanted,
        cache: DecisionCache,
        *,
        prefetcher: AttributePrefetcher | None = None,
        sources: tuple[AttributeSource, ...] = (),
        shared: DecisionStore | None = None,
    ) -> None:
        self.wanted = wanted
        self.cache = cache
        self.prefetcher = prefetcher
        self._sources = sources
        self._shared = shared
        self._started = asyncio.Event()

    async def start(self) -> None:
        """Begin to follow; wait for the first look at every log, FIRST_LOOK_S at most."""
        if self.prefetcher is not None:
            await first_look(self.prefetcher.start())
        if self._shared is not None:
            await self._shared.get_many(())  # connects: the first question need not
        self._started.set()

    async def stop(self) -> None:
        self._started.set()
        await self.cache.close()
        if self.prefetcher is not None:
            await self.prefetcher.stop()
        await asyncio.gather(*(source.close() for source in self._sources))
        if self._shared is not None:
            await self._shared.close()

    async def decide(self, engine: Engine, question: Question, *, until_s: float | None = None) -> Decided:
        """Decide a question; `until_s`: Unix time until which the answer may be kept at most."""
        await self._ready()
        return await self.cache.decide(engine, question, until_s=until_s)

    async def prefetch(self, engine: Engine, questions: Sequence[Question]) -> None:
        """Fetch at once what several questions rest on, so that each of them then finds it.

        What cannot be had is left to them: each answer says so for itself.
        """
        if self.prefetcher is None:
            return
        await self._ready()
        try:
            await self.prefetcher.prefetch(engine, questions)
        except AttributeUnavailable as failure:
            _log.warning("%s", failure)

    async def fetch(self, engine: Engine, question: Question) -> bool:
        """Make everything resident that a question rests on, for a door; False where that cannot be had in time."""
        if self.prefetcher is None:
            return False
        await self._ready()
        judgement = await self.prefetcher.judge(engine, question)
        if judgement.failure is not None:
            return False
        for _ in range(LACKS_MAX):
            # A door looks at cheap clauses first, and may lack what the diagnosis did not come to.
            uid = engine.lacks(
                engine.prepare(
                    question.principal, question.action, question.resource, question.context, overlays=question.overlays
                )
            )
            if uid is None:
                return True
            if not await self.entities(engine, frozenset((uid,))):
                return False
        return False

    async def entities(self, engine: Engine, uids: frozenset[EntityUid]) -> bool:
        """Make these entities resident; False where they cannot be had in time."""
        if self.prefetcher is None:
            return False
        try:
            await self.prefetcher.fetch(engine, uids)
        except AttributeUnavailable as failure:
            _log.warning("%s", failure)
            return False
        return True

    async def _ready(self) -> None:
        """Just after a start or a reload, wait for the sources as long as a decision may take.

        What is not resident after that is refused, and the answer says why.
        """
        if not self._started.is_set():
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self.wanted.fetch_s):
                    await self._started.wait()


class Deciders(InForce[Wanted, Deciding]):
    """Which deciding is in force. Belongs to one event loop; made before it runs."""

    def __init__(
        self, *, base_dir: Path, run_dir: Path, clock: Clock, world: World, resilience: Resilience | None = None
    ) -> None:
        super().__init__(self._open)
        self._resilience = resilience
        self._base_dir = base_dir
        self._run_dir = run_dir
        self._clock = clock
        self._world = world

    def _open(self, wanted: Wanted) -> Deciding:
        sources = tuple(
            open_configured_source(config, base_dir=self._base_dir, run_dir=self._run_dir) for config in wanted.sources
        )
        sources = tuple(self._guarded(source, wanted) for source in sources)
        plans = EnginePlans()
        prefetcher = self._prefetcher(wanted, sources, plans) if sources else None
        shared: DecisionStore | None = None
        if prefetcher is not None and wanted.cache.shared_url:
            shared = open_decision_store(resolve_store_url(wanted.cache.shared_url, self._base_dir).reveal().decode())
        cache = DecisionCache(
            clock=self._clock,
            prefetcher=prefetcher,
            plans=plans,
            mode=wanted.cache.decisions,
            entries=wanted.cache.entries,
            l1_ttl_s=wanted.cache.ttl_s,
            l2_ttl_s=wanted.cache.shared_ttl_s,
            denied_ttl_s=wanted.cache.denied_ttl_s,
            store=shared,
            world=None if shared is None else self._world,
        )
        return Deciding(wanted, cache, prefetcher=prefetcher, sources=sources, shared=shared)

    def _guarded(self, source: AttributeSource, wanted: Wanted) -> AttributeSource:
        """Put a source's reads behind a breaker; who follows its log has a lease, and comes back by itself."""
        if self._resilience is None:
            return source
        limit_s = BREAKER_SHARE * wanted.fetch_s
        return guarded(source, self._resilience, "attribute_source", name=source.name, only=("read",), limit_s=limit_s)

    def _prefetcher(
        self, wanted: Wanted, sources: tuple[AttributeSource, ...], plans: EnginePlans
    ) -> AttributePrefetcher:
        return AttributePrefetcher(
            [
                SourcedTypes(source, frozenset(config.types), ttl_s=config.ttl_s, lease_s=config.lease_s)
                for config, source in zip(wanted.sources, sources, strict=True)
            ],
            clock=self._clock,
            budget_s=wanted.fetch_s,
            capacity=wanted.resident_max,
            plans=plans,
        )


class DoorFetcher:
    """Fetch for the doors what the hot path lacks (`front/asking.py`)."""

    __slots__ = ("_deciding", "_engine")

    def __init__(self, engine: Callable[[], Engine], deciding: Callable[[], Deciding | None]) -> None:
        self._engine = engine
        self._deciding = deciding

    async def fetch(
        self,
        principal: EntityUid,
        action: EntityUid,
        resource: EntityUid,
        context: dict[str, Any],
        overlays: dict[EntityUid, Any] | None,
    ) -> str | None:
        """Fetch what deciding the question needs; give None for "judge again", or the reason to refuse."""
        deciding = self._deciding()  # None: a reload came in between; the next request is judged by it
        question = Question(principal, action, resource, context, overlays)
        if deciding is None or not await deciding.fetch(self._engine(), question):
            return UNAVAILABLE
        return None
