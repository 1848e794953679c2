"""The entities of a running worker that are kept elsewhere: their sources, opened, followed and asked.

The hot path decides by what is resident. Where a decision rests on an entity that is not, the door asks here, the
entities are fetched (`policy/attributes.py`), and the door judges again.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from gateway._native.uid import EntityUid
from gateway.config import PolicyConfig, SourceConfig
from gateway.front.attribute_sources import open_configured_source
from gateway.policy.attributes import (
    UNAVAILABLE,
    AttributePrefetcher,
    AttributeUnavailable,
    Judgement,
    SourcedTypes,
)
from gateway.policy.engine import Engine
from gateway.policy.plans import Question
from gateway.stores.attributes import AttributeSource
from gateway.types import Clock

_log = logging.getLogger("portcullis.sources")

FIRST_LOOK_S: Final = 5.0  # a start waits this long for the first look at every log; then it goes on, and refuses
LACKS_MAX: Final = 8  # entities that a door may lack one after another, beyond what the diagnosis needed


@dataclass(frozen=True, slots=True)
class Wanted:
    """What a config says about sources. Equal ones are served by the same opened sources."""

    sources: tuple[SourceConfig, ...]
    fetch_s: float
    resident_max: int

    @classmethod
    def of(cls, config: PolicyConfig) -> Wanted:
        return cls(config.sources, config.fetch_s, config.resident_max)


class OpenedSources:
    """The sources of one config, and what fetches from them. Belongs to one event loop."""

    def __init__(self, wanted: Wanted, sources: list[AttributeSource], prefetcher: AttributePrefetcher) -> None:
        self.wanted = wanted
        self.prefetcher = prefetcher
        self._sources = sources
        self._started = asyncio.Event()

    async def start(self) -> None:
        """Begin to follow; wait for the first look at every log, FIRST_LOOK_S at most."""
        starting = asyncio.ensure_future(self.prefetcher.start())
        _, pending = await asyncio.wait((starting,), timeout=FIRST_LOOK_S)
        for task in pending:
            task.cancel()  # the following goes on; only the waiting ends
        self._started.set()

    async def stop(self) -> None:
        self._started.set()
        await self.prefetcher.stop()
        await asyncio.gather(*(source.close() for source in self._sources))

    async def judge(self, engine: Engine, question: Question) -> Judgement:
        """Decide a question; just after a start or a reload, wait for the sources as long as a decision may take."""
        if not self._started.is_set():
            try:
                async with asyncio.timeout(self.wanted.fetch_s):
                    await self._started.wait()
            except TimeoutError:
                pass  # what is not resident is refused: `judge` says why
        return await self.prefetcher.judge(engine, question)


class EntitySources:
    """Which sources are in force. Belongs to one event loop; made before it runs."""

    def __init__(self, *, base_dir: Path, run_dir: Path, clock: Clock) -> None:
        self._base_dir = base_dir
        self._run_dir = run_dir
        self._clock = clock
        self._now: OpenedSources | None = None
        self._planned: OpenedSources | None = None
        self._is_running = False
        self._tasks: set[asyncio.Task[None]] = set()

    @property
    def now(self) -> OpenedSources | None:
        """The sources in force; None: no entity is kept elsewhere."""
        return self._now

    def of(self, config: PolicyConfig) -> OpenedSources | None:
        """Give the sources of a config, those there are or new ones. Raises ValueError for no usable address."""
        wanted = Wanted.of(config)
        if not wanted.sources:
            return None
        for known in (self._now, self._planned):
            if known is not None and known.wanted == wanted:
                return known
        self._planned = self._open(wanted)
        return self._planned

    def _open(self, wanted: Wanted) -> OpenedSources:
        kept = [
            (config, open_configured_source(config, base_dir=self._base_dir, run_dir=self._run_dir))
            for config in wanted.sources
        ]
        prefetcher = AttributePrefetcher(
            [
                SourcedTypes(source, frozenset(config.types), ttl_s=config.ttl_s, lease_s=config.lease_s)
                for config, source in kept
            ],
            clock=self._clock,
            budget_s=wanted.fetch_s,
            capacity=wanted.resident_max,
        )
        return OpenedSources(wanted, [source for _, source in kept], prefetcher)

    async def question(self, engine: Engine, question: Question) -> bool:
        """Make everything resident that a question rests on; False where that cannot be had in time."""
        now = self._now
        return now is not None and (await now.judge(engine, question)).failure is None

    async def entities(self, engine: Engine, uids: frozenset[EntityUid]) -> bool:
        """Make these entities resident; False where they cannot be had in time."""
        if self._now is None:
            return False
        try:
            await self._now.prefetcher.fetch(engine, uids)
        except AttributeUnavailable as failure:
            _log.warning("%s", failure)
            return False
        return True

    def take(self, wanted: OpenedSources | None) -> None:
        """Put sources in force, and let the former ones go."""
        former, self._now, self._planned = self._now, wanted, None
        if not self._is_running or former is wanted:
            return
        if wanted is not None:
            self._spawn(wanted.start())
        if former is not None:
            self._spawn(former.stop())

    async def start(self) -> None:
        """Begin to follow what is in force; waits for the first look, and not for ever."""
        if not self._is_running:
            self._is_running = True
            if self._now is not None:
                await self._now.start()

    async def stop(self) -> None:
        """End everything."""
        self._is_running = False
        now, self._now = self._now, None
        if now is not None:
            await now.stop()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


class DoorFetcher:
    """Fetch for the doors what the hot path lacks (`front/asking.py`)."""

    __slots__ = ("_engine", "_sources")

    def __init__(self, engine: Callable[[], Engine], sources: Callable[[], OpenedSources | None]) -> None:
        self._engine = engine
        self._sources = sources

    async def fetch(
        self,
        principal: EntityUid,
        action: EntityUid,
        resource: EntityUid,
        context: dict[str, Any],
        overlays: dict[EntityUid, Any] | None,
    ) -> str | None:
        """Fetch what deciding the question needs; give None for "judge again", or the reason to refuse."""
        sources, engine = self._sources(), self._engine()
        if sources is None:
            return UNAVAILABLE  # a reload came in between; the next request is judged by it
        judgement = await sources.judge(engine, Question(principal, action, resource, context, overlays))
        if judgement.failure is not None:
            return UNAVAILABLE
        try:
            for _ in range(LACKS_MAX):
                # A door looks at cheap clauses first, and may lack what the diagnosis did not come to.
                uid = engine.lacks(engine.prepare(principal, action, resource, context, overlays=overlays))
                if uid is None:
                    return None
                await sources.prefetcher.fetch(engine, (uid,))
        except AttributeUnavailable as failure:
            _log.warning("%s", failure)
        return UNAVAILABLE
