"""What changes in a source of attributes, told in this process while it can still be trusted.

Nothing is read ahead: the follower begins at the end of the source's log, and whoever keeps what was read hears of
every change after it. A look at the log's end each HEARTBEAT_S is the lease under which that is believed
(`stores/following.py`); when it is lost `trusted` is False, and no decision may rest on what is kept. When the log is
lost (purged, emptied, restored, another server) nobody knows what changed: `on_lost` tells that all may be old.

A read and the log meet without a gap by revisions: what was read is as new as all that was told if `covers` says so of
the batch's revision at the moment that it is put where decisions find it. If not, it is read again.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

from gateway._native.uid import EntityUid
from gateway.errors import StoreUnavailable
from gateway.stores.attributes import FollowedSource
from gateway.stores.base import ORIGIN, Revision, covers
from gateway.stores.following import Following, Status, uniform_random
from gateway.types import Clock

logger = logging.getLogger(__name__)

PAGE: Final = 500  # changes read and told at once; the loop is free between two pages
HEARTBEAT_S: Final = 0.25
LEASE_S: Final = 1.0
AT_LEAST_S: Final = 0.05  # how long a decision waits for a revision that it was asked for


@dataclass(frozen=True, slots=True)
class AttributeState:
    """How the following of one source stands, for `/readyz` and metrics."""

    name: str
    status: Status
    trusted: bool  # whether decisions may rest on what was read of the source
    behind_s: float | None  # since the log was last read to its end; None: not since its beginning is known
    revision: Revision
    error: str  # of the last attempt, "" after a success
    shared: str  # who sees the same entities: "process", "machine" or "network"
    # totals since start
    changes: int
    damaged: int  # entries of the log that could not be read
    losses: int  # times that all that was read may have been old; the start is none


class AttributeFollower:
    """Tell of what changes in one source. Belongs to one event loop."""

    def __init__(
        self,
        source: FollowedSource,
        *,
        clock: Clock,
        on_change: Callable[[Sequence[EntityUid]], None],
        on_lost: Callable[[], None],
        on_trust: Callable[[], None] = lambda: None,
        lease_s: float = LEASE_S,
        uniform: Callable[[float, float], float] = uniform_random,
    ) -> None:
        """`on_change` gets the uids that were written or removed, each once a call; `on_lost`: all may have been.

        Both are called before `revision` moves past what they tell of, and return before anything else happens in the
        loop. One that raises is called again for the same changes. `on_trust` is called after `trusted` has changed.
        """
        self._source = source
        self._clock = clock
        self._on_change = on_change
        self._on_lost = on_lost
        self._revision: Revision = ORIGIN
        self._changes = self._damaged = self._losses = 0
        self._begun = False  # it was told from where on changes are heard of
        self._following = Following(
            f"attributes of `{source.name}`",
            read=self._read,
            wait=lambda timeout_s: source.wait(self._revision, timeout_s),
            purge=source.purge,
            clock=clock,
            on_trust=on_trust,
            heartbeat_s=min(HEARTBEAT_S, lease_s / 4),
            behind_s_max=lease_s,
            uniform=uniform,
        )

    @property
    def trusted(self) -> bool:
        """Whether all changes were told of until `lease_s` ago or later."""
        return self._following.trusted

    @property
    def revision(self) -> Revision:
        """Up to where the log was told of."""
        return self._revision

    def covers(self, revision: Revision) -> bool:
        """Tell whether what was read at `revision` shows all changes that were told of; later ones will be told."""
        return self._following.whole and covers(revision, self._revision)

    async def start(self) -> None:
        """Begin to follow; return after the first attempt to find the log's end, whether or not it succeeded."""
        await self._following.start()

    async def stop(self) -> None:
        """Stop following; the source stays open."""
        await self._following.stop()

    async def follow(self) -> None:
        """Read to the end of the log once, and take note of how that went."""
        await self._following.follow()

    async def at_least(self, revision: Revision, timeout_s: float = AT_LEAST_S) -> None:
        """Return when all changes up to `revision` were told of, at once where they are.

        A revision that cannot be placed (another log's, or nonsense) is covered by any look at the log's end that began
        after it was given. Raises StoreUnavailable where there is none within `timeout_s`.
        """
        if not (self._following.whole and covers(self._revision, revision)):
            await self._following.look(timeout_s)

    def state(self) -> AttributeState:
        """Say how the following stands."""
        return AttributeState(
            name=self._source.name,
            status=self._following.status,
            trusted=self.trusted,
            behind_s=self._following.behind_s if self._following.whole else None,
            revision=self._revision,
            error=self._following.error,
            shared=self._source.shared,
            changes=self._changes,
            damaged=self._damaged,
            losses=self._losses,
        )

    # --- reading

    async def _read(self) -> float:
        if not self._following.whole:
            await self._begin()
        asked_at_s = await self._read_log()
        if asked_at_s is None:
            self._following.whole = False
            logger.error("the log of `%s` is lost; nothing that was read of it counts any more", self._source.name)
            self._following.tell()
            await self._begin()
            asked_at_s = await self._read_log()
            if asked_at_s is None:
                raise StoreUnavailable(f"the log of `{self._source.name}` was lost while its end was looked for")
        return asked_at_s

    async def _begin(self) -> None:
        """Stand at the log's end as it is now; what was read before is of a time of which nobody knows."""
        revision = (await self._source.read(())).revision
        self._on_lost()
        self._losses += self._begun
        self._begun, self._revision = True, revision

    async def _read_log(self) -> float | None:
        """Tell of what follows, and return when the log's end was asked for; None where that is lost."""
        more = True
        while more:
            asked_at_s = self._clock.monotonic_s()
            batch = await self._source.read_after(self._revision, PAGE)
            if batch.damaged:
                self._damaged += batch.damaged
                logger.error("%d changes of `%s` cannot be read", batch.damaged, self._source.name)
            if batch.lost:
                return None
            if batch.damaged:  # something changed, and nobody knows what
                self._on_lost()
                self._losses += 1
            elif batch.uids:
                self._on_change(tuple(dict.fromkeys(batch.uids)))
            self._changes += len(batch.uids)
            self._revision, more = batch.revision, batch.more
            await asyncio.sleep(0)
        return asked_at_s
