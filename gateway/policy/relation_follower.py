"""Relations, from a store into this process: read whole once, then followed by the store's log.

    starting ──all read──▶ ok ──fault──▶ degraded ──read again──▶ ok
        └───────fault───▶ unavailable ◀──behind for too long─┘

The log is the truth, `wait` is only a hint; a look at the log each HEARTBEAT_S is the lease under which decisions are
made. It is lost when the last one is more than `behind_s_max` ago: `trusted` is False then, and whoever decides by
relations says so, or refuses. A log that is lost (purged, emptied, restored, another server) is read whole again:
relations that are there no more go, and until that is done nothing is trusted either.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Final, Literal

from gateway.errors import StoreUnavailable
from gateway.policy.relations import RelationGraph, digest
from gateway.stores.base import Revision, covers
from gateway.stores.relations import Relation, RelationChange, RelationStore
from gateway.types import Clock

logger = logging.getLogger(__name__)
_uniform = random.SystemRandom().uniform

PAGE: Final = 500  # relations read and applied at once; the loop is free between two pages
TOGETHER: Final = 10_000  # changes applied as one: what was removed and came back in them is never seen removed
HEARTBEAT_S: Final = 0.25
BEHIND_S_MAX: Final = 1.0
AT_LEAST_S: Final = 0.05  # how long a decision waits for a revision that it was asked for
BACKOFF_MIN_S: Final = 0.1  # after a fault; doubled up to the maximum, with jitter
BACKOFF_MAX_S: Final = 2.0
PURGE_PAUSE_S: Final = 3600.0  # between two clean-ups by this process, with jitter

Status = Literal["starting", "ok", "degraded", "unavailable"]


@dataclass(frozen=True, slots=True)
class RelationState:
    """How the following stands, for `/readyz` and metrics."""

    status: Status
    trusted: bool  # whether decisions may rest on the relations
    behind_s: float | None  # since the log was last read to its end; None: not since all was read
    revision: Revision
    error: str  # of the last attempt, "" after a success
    shared: str  # who sees the same relations: "process", "machine" or "network"
    # totals since start
    changes: int
    expired: int
    damaged: int  # entries that could not be read
    ignored: int  # changes that the schema has no place for
    resyncs: int  # times that all was read, the first included


class RelationFollower:
    """Keep a RelationGraph at the end of a store's log. Belongs to one event loop, as the graph does."""

    def __init__(
        self,
        store: RelationStore,
        graph: RelationGraph,
        *,
        clock: Clock,
        on_change: Callable[[], None] = lambda: None,
        on_trust: Callable[[], None] = lambda: None,
        behind_s_max: float = BEHIND_S_MAX,
        uniform: Callable[[float, float], float] = _uniform,
    ) -> None:
        """`on_change` is called after relations changed in the graph, `on_trust` after `trusted` has changed."""
        self._store = store
        self._graph = graph
        self._clock = clock
        self._on_change = on_change
        self._on_trust = on_trust
        self._behind_s_max = behind_s_max
        self._uniform = uniform
        self._reading = asyncio.Lock()
        self._whole = False  # all was read; what followed is in the graph
        self._read_at_s: float | None = None  # monotonic, when the store was asked and had no more
        self._error = ""
        self._failures = 0
        self._changes = self._expired = self._damaged = self._resyncs = 0
        self._told: tuple[Status, bool] = ("starting", False)
        self._attempted = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []

    @property
    def trusted(self) -> bool:
        """Whether the relations are whole, and no older than `behind_s_max`."""
        behind_s = self._behind_s()
        return behind_s is not None and behind_s <= self._behind_s_max

    @property
    def revision(self) -> Revision:
        """Up to where the log is in the graph: what a decision says that it was made by."""
        return self._graph.revision

    async def start(self) -> None:
        """Begin to follow; return after the first attempt to read everything, whether or not it succeeded."""
        self._tasks = [
            asyncio.create_task(self._follow_for_ever(), name="relations"),
            asyncio.create_task(self._expire_for_ever(), name="relations-expiry"),
            asyncio.create_task(self._purge_for_ever(), name="relations-purge"),
        ]
        await self._attempted.wait()

    async def stop(self) -> None:
        """Stop following. What was learned stays in the graph; the store stays open."""
        tasks, self._tasks = self._tasks, []
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def write(self, adds: list[Relation], removes: list[Relation]) -> Revision:
        """Check relations against the schema and write them; they count here when this returns.

        Raises ValueError for what the schema does not allow. Raises StoreUnavailable where the store could not be
        written, or read again: then it is unknown whether they were.
        """
        for relation in adds:
            self._graph.rules.check(relation)
        revision = await self._store.write(adds, removes)
        await self.at_least(revision, timeout_s=BEHIND_S_MAX)
        return revision

    async def at_least(self, revision: Revision, timeout_s: float = AT_LEAST_S) -> None:
        """Return when the graph is at least as new as `revision`, at once where it is.

        A revision that cannot be placed (another log's, or nonsense) is covered by any look at the log's end that began
        after it was given. Raises StoreUnavailable where there is none within `timeout_s`.
        """
        if self._whole and covers(self._graph.revision, revision):
            return
        try:
            async with asyncio.timeout(timeout_s):
                await self.follow()
        except TimeoutError as error:
            raise StoreUnavailable("the relations are not as new as was asked for") from error
        if self._error:
            raise StoreUnavailable(self._error)

    async def follow(self) -> None:
        """Read to the end of the log once, and take note of how that went."""
        async with self._reading:
            if await self._attempt(self._read_to_end()):
                self._error, self._failures = "", 0
        self._tell()
        self._attempted.set()

    def expire(self) -> None:
        """Drop what has expired by now."""
        count = self._graph.expire()
        if count:
            self._expired += count
            self._on_change()

    def state(self) -> RelationState:
        """Say how the following stands."""
        return RelationState(
            status=self._status(),
            trusted=self.trusted,
            behind_s=self._behind_s(),
            revision=self._graph.revision,
            error=self._error,
            shared=self._store.shared,
            changes=self._changes,
            expired=self._expired,
            damaged=self._damaged,
            ignored=self._graph.ignored,
            resyncs=self._resyncs,
        )

    # --- the loops

    async def _follow_for_ever(self) -> None:
        while True:
            await self.follow()
            if not self._error:
                await self._attempt(self._store.wait(self._graph.revision, HEARTBEAT_S))
                self._tell()
            if self._error:
                backoff_s = min(BACKOFF_MIN_S * 2 ** min(self._failures, 16), BACKOFF_MAX_S)
                await asyncio.sleep(self._uniform(0.5, 1.0) * backoff_s)

    async def _expire_for_ever(self) -> None:
        """Also where the store is away: what was to end ends."""
        while True:
            next_s = self._graph.next_expiry_s
            rest_s = HEARTBEAT_S if next_s is None else next_s - self._clock.wall_s()
            await asyncio.sleep(max(0.001, min(HEARTBEAT_S, rest_s)))
            self.expire()
            self._tell()

    async def _purge_for_ever(self) -> None:
        while True:
            await asyncio.sleep(self._uniform(0.5, 1.5) * PURGE_PAUSE_S)
            try:
                count = await self._store.purge(self._clock.wall_s())
            except StoreUnavailable as error:
                logger.warning("relations that have expired could not be removed: %s", error)
            else:
                logger.info("%d relations had expired and are removed", count)

    # --- reading

    async def _attempt(self, work: Awaitable[None]) -> bool:
        """Await `work` and say whether it succeeded; a fault is remembered and never ends the following."""
        try:
            await work
        except StoreUnavailable as error:
            self._error = str(error)
        except ValueError as error:  # no room: nobody may decide by a part of the relations
            logger.error("the relations do not fit: %s", error)
            self._error, self._whole = str(error), False
        except Exception:  # our own mistake
            logger.exception("the relations could not be read")
            self._error, self._whole = "internal fault", False
        else:
            return True
        self._failures += 1
        return False

    async def _read_to_end(self) -> None:
        if not self._whole:
            await self._read_all()
        if not await self._read_log():
            self._whole = False
            logger.error("the log of relations is lost; all are read again")
            self._tell()
            await self._read_all()
            if not await self._read_log():
                raise StoreUnavailable("the log of relations was lost while they were read")
        self._whole = True

    async def _read_all(self) -> None:
        """Bring the graph to what the store holds: add what is there, then remove what is not."""
        self._resyncs += 1
        seen: set[bytes] | None = None
        cursor, revision = "", None
        while revision is None or cursor:
            page = await self._store.read_all(cursor, PAGE)
            if revision is None:
                revision = page.revision
                seen = set() if any(True for _ in self._graph.relations()) else None
            self._note_damage(page.damaged)
            for first in range(0, len(page.relations), PAGE):
                part = page.relations[first : first + PAGE]
                self._graph.apply([RelationChange(relation) for relation in part])
                if seen is not None:
                    seen.update(digest(relation) for relation in part)
                await asyncio.sleep(0)
            cursor = page.cursor
        if seen is not None:
            for batch in self._graph.absent_from(seen):
                if batch:
                    self._graph.apply(batch)
                await asyncio.sleep(0)
        self._graph.revision = revision
        self._on_change()

    async def _read_log(self) -> bool:
        """Apply what follows the graph's revision; False where that is lost."""
        changes: list[RelationChange] = []
        revision, more = self._graph.revision, True
        while more:
            asked_at_s = self._clock.monotonic_s()
            batch = await self._store.read_after(revision, PAGE)
            if batch.lost:
                return False
            self._note_damage(batch.damaged)
            changes += batch.changes
            revision, more = batch.revision, batch.more
            if (changes or revision != self._graph.revision) and (not more or len(changes) >= TOGETHER):
                self._graph.apply(changes, revision)
                self._changes += len(changes)
                changes = []
                self._on_change()
            await asyncio.sleep(0)
        self._read_at_s = asked_at_s
        return True

    def _note_damage(self, count: int) -> None:
        if count:
            self._damaged += count
            logger.error("%d relations cannot be read and do not count", count)

    # --- telling

    def _behind_s(self) -> float | None:
        if self._read_at_s is None or not self._whole:
            return None
        return max(0.0, self._clock.monotonic_s() - self._read_at_s)

    def _status(self) -> Status:
        if self.trusted:
            return "degraded" if self._error else "ok"
        return "unavailable" if self._attempted.is_set() or self._error else "starting"

    def _tell(self) -> None:
        """Tell the log and the owner what changed."""
        told, self._told = self._told, (self._status(), self.trusted)
        if told[0] != self._told[0]:
            level = logging.INFO if self._told[0] == "ok" else logging.ERROR
            logger.log(level, "relations are %s %s", self._told[0], f"({self._error})" if self._error else "")
        if told[1] != self._told[1]:
            self._on_trust()
