"""Relations, from a store into this process: read whole once, then followed by the store's log.

A look at the log's end each HEARTBEAT_S is the lease under which decisions are made (`stores/following.py`). When it is
lost `trusted` is False, and whoever decides by relations says so, or refuses. A log that is lost (purged, emptied,
restored, another server) is read whole again: relations that are there no more go, and until that is done nothing is
trusted either.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from gateway.errors import StoreUnavailable
from gateway.policy.relations import RelationGraph, digest
from gateway.stores.base import Revision, covers
from gateway.stores.following import Following, NoRoom, Status, uniform_random
from gateway.stores.relations import Relation, RelationChange, RelationStore
from gateway.types import Clock

logger = logging.getLogger(__name__)

PAGE: Final = 200  # relations read at once: in another thread, which takes turns with the loop
STEP: Final = 50  # relations applied at once where all are read: less than a millisecond, then the loop is free
TOGETHER: Final = 10_000  # changes applied as one: what was removed and came back in them is never seen removed
HEARTBEAT_S: Final = 0.25
BEHIND_S_MAX: Final = 1.0
AT_LEAST_S: Final = 0.05  # how long a decision waits for a revision that it was asked for


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
        uniform: Callable[[float, float], float] = uniform_random,
    ) -> None:
        """`on_change` is called after relations changed in the graph, `on_trust` after `trusted` has changed."""
        self._store = store
        self._graph = graph
        self._clock = clock
        self._on_change = on_change
        self._changes = self._expired = self._damaged = self._resyncs = 0
        self._expiring: asyncio.Task[None] | None = None
        self._following = Following(
            "relations",
            read=self._read,
            wait=lambda timeout_s: store.wait(graph.revision, timeout_s),
            purge=store.purge,
            clock=clock,
            on_trust=on_trust,
            heartbeat_s=HEARTBEAT_S,
            behind_s_max=behind_s_max,
            uniform=uniform,
        )

    @property
    def trusted(self) -> bool:
        """Whether the relations are whole, and no older than `behind_s_max`."""
        return self._following.trusted

    @property
    def revision(self) -> Revision:
        """Up to where the log is in the graph: what a decision says that it was made by."""
        return self._graph.revision

    @property
    def standing(self) -> str:
        """Which relations count now: of all that follow one log, those that say the same decide by the same ones.

        Besides the revision it says which relations have ended by themselves; nothing that was decided before goes by
        the same name.
        """
        return f"{self._graph.revision} {self._graph.expired_s}"

    async def start(self) -> None:
        """Begin to follow; return after the first attempt to read everything, whether or not it succeeded."""
        self._expiring = asyncio.create_task(self._expire_for_ever(), name="relations-expiry")
        await self._following.start()

    async def stop(self) -> None:
        """Stop following. What was learned stays in the graph; the store stays open."""
        expiring, self._expiring = self._expiring, None
        if expiring is not None:
            expiring.cancel()
            await asyncio.gather(expiring, return_exceptions=True)
        await self._following.stop()

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
        if not (self._following.whole and covers(self._graph.revision, revision)):
            await self._following.look(timeout_s)

    async def follow(self) -> None:
        """Read to the end of the log once, and take note of how that went."""
        await self._following.follow()

    def expire(self) -> None:
        """Drop what has expired by now."""
        count = self._graph.expire()
        if count:
            self._expired += count
            self._on_change()

    def state(self) -> RelationState:
        """Say how the following stands."""
        return RelationState(
            status=self._following.status,
            trusted=self.trusted,
            behind_s=self._following.behind_s if self._following.whole else None,
            revision=self._graph.revision,
            error=self._following.error,
            shared=self._store.shared,
            changes=self._changes,
            expired=self._expired,
            damaged=self._damaged,
            ignored=self._graph.ignored,
            resyncs=self._resyncs,
        )

    async def _expire_for_ever(self) -> None:
        """Also where the store is away: what was to end ends."""
        while True:
            next_s = self._graph.next_expiry_s
            rest_s = HEARTBEAT_S if next_s is None else next_s - self._clock.wall_s()
            await asyncio.sleep(max(0.001, min(HEARTBEAT_S, rest_s)))
            self.expire()

    # --- reading

    async def _read(self) -> float:
        try:
            return await self._read_to_end()
        except StoreUnavailable:
            raise
        except Exception as error:  # also one of our own mistakes: nobody knows what of the batch is in the graph
            self._following.whole = False
            if isinstance(error, ValueError):
                raise NoRoom(str(error)) from error
            raise

    async def _read_to_end(self) -> float:
        if not self._following.whole:
            await self._read_all()
        asked_at_s = await self._read_log()
        if asked_at_s is None:
            self._following.whole = False
            logger.error("the log of relations is lost; all are read again")
            self._following.tell()
            await self._read_all()
            asked_at_s = await self._read_log()
            if asked_at_s is None:
                raise StoreUnavailable("the log of relations was lost while they were read")
        return asked_at_s

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
            for first in range(0, len(page.relations), STEP):
                part = page.relations[first : first + STEP]
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

    async def _read_log(self) -> float | None:
        """Apply what follows the graph's revision, and return when its end was asked for; None where that is lost."""
        changes: list[RelationChange] = []
        revision, more = self._graph.revision, True
        while more:
            asked_at_s = self._clock.monotonic_s()
            batch = await self._store.read_after(revision, PAGE)
            if batch.lost:
                return None
            self._note_damage(batch.damaged)
            changes += batch.changes
            revision, more = batch.revision, batch.more
            if (changes or revision != self._graph.revision) and (not more or len(changes) >= TOGETHER):
                self._graph.apply(changes, revision)
                self._changes += len(changes)
                changes = []
                self._on_change()
            await asyncio.sleep(0)
        return asked_at_s

    def _note_damage(self, count: int) -> None:
        if count:
            self._damaged += count
            logger.error("%d relations cannot be read and do not count", count)
