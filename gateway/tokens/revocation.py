"""Revocations, from the store into the hot path of this process within a second.

The store's log is the truth. A follower reads it from its origin at start, then waits for news and reads on from the
last place it saw; after any fault it reads on from there too, so a gap closes by itself.

    starting ──whole log read──▶ ok ──fault──▶ degraded ──read again──▶ ok
        └──────────fault──────▶ unavailable ──whole log read──▶ ok

As long as the log was never read whole, nobody may say of any token that it is not revoked: `trusted` is False, the
gateway is not ready and publishes no keys (design §13.1). A fault later on leaves what is known in force and the
gateway in service: tokens expire, and an outage of the store must not be one of every app; the state is shown, and
`behind_s_max` bounds it where that is not acceptable. A row that finds no room makes the list untrusted at once.
"""

from __future__ import annotations

import asyncio
import logging
import math
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Protocol

from gateway.stores.base import ORIGIN, PURGE_SLACK_S, Revision, RevocationKind, RevocationRow, RevocationStore
from gateway.stores.following import Following, NoRoom, Status, uniform_random
from gateway.types import Clock

logger = logging.getLogger(__name__)

PAGE_ROWS = 1000  # read and applied at once; the loop is free between two pages
WAIT_S = 1.0  # then the log is read again without a hint


class RevocationSink(Protocol):
    """Where revocations take effect: a TokenValidator."""

    def revoke_many(self, rows: Iterable[tuple[str, bytes, bytes, int, int]]) -> None:
        """Refuse what the rows name from now on. Raises OverflowError where there is no room for all of them."""


@dataclass(frozen=True, slots=True)
class RevocationState:
    """How the following of the log stands, for `/readyz` and metrics."""

    status: Status
    trusted: bool  # whether "not revoked" can be said of any token
    behind_s: float | None  # since the log was last read to its end; None = never
    error: str  # of the last attempt, "" after a success
    shared: str  # who sees the same revocations: "process", "machine" or "network"
    # totals since start
    learned: Mapping[RevocationKind, int]
    damaged: int  # rows that could not be read
    restarts: int  # times that the log was found to be another one
    overflows: int  # times that rows found no room


class RevocationList:
    """Follow a store's log of revocations, and let `sinks` refuse what it names. Belongs to one event loop."""

    def __init__(
        self,
        store: RevocationStore,
        sinks: Sequence[RevocationSink],
        *,
        clock: Clock,
        on_trust: Callable[[], None] = lambda: None,
        behind_s_max: float = math.inf,
        uniform: Callable[[float, float], float] = uniform_random,
    ) -> None:
        """`on_trust` is called each time that `trusted` has changed."""
        self._store = store
        self._sinks = sinks
        self._clock = clock
        self._revision: Revision = ORIGIN
        self._learned: Counter[RevocationKind] = Counter()
        self._damaged = self._restarts = self._overflows = 0
        self._following = Following(
            "revocations",
            read=self._read_to_end,
            wait=lambda timeout_s: store.wait(self._revision, timeout_s),
            purge=store.purge,
            clock=clock,
            on_trust=on_trust,
            heartbeat_s=WAIT_S,
            behind_s_max=behind_s_max,
            uniform=uniform,
        )

    @property
    def trusted(self) -> bool:
        """Whether the list is whole enough to say of a token that it is not revoked."""
        return self._following.trusted

    async def start(self) -> None:
        """Begin to follow; return after the first attempt to read the whole log, whether or not it succeeded."""
        await self._following.start()

    async def stop(self) -> None:
        """Stop following. What was learned stays in force; the store stays open."""
        await self._following.stop()

    async def revoke(
        self, kind: RevocationKind, issuer: str, value: str, *, until_s: int, issued_before_s: int = 0
    ) -> Revision:
        """Refuse tokens everywhere: here at once, elsewhere within a second. See RevocationRow for the meaning.

        Raises ValueError for a row that could never be honoured. Raises StoreUnavailable where the others could not be
        told: it is refused here all the same, and revoking again is harmless.
        """
        row = RevocationRow(kind, issuer.encode(), value.encode(), until_s, issued_before_s)
        with suppress(OverflowError):  # then nothing is trusted here, and the others are still told
            self._apply((row,))
        return await self._store.append((row,))

    def state(self) -> RevocationState:
        """Say how the following of the log stands."""
        return RevocationState(
            status=self._following.status,
            trusted=self.trusted,
            behind_s=self._following.behind_s,
            error=self._following.error,
            shared=self._store.shared,
            learned={kind: self._learned[kind] for kind in ("jti", "sub", "sid")},
            damaged=self._damaged,
            restarts=self._restarts,
            overflows=self._overflows,
        )

    async def follow(self) -> None:
        """Read to the end of the log once, and take note of how that went."""
        await self._following.follow()

    async def purge(self) -> None:
        """Let the store forget what is over; a store that cannot is tried again later."""
        await self._following.purge()

    async def _read_to_end(self) -> float:
        more = True
        while more:
            asked_at_s = self._clock.monotonic_s()
            batch = await self._store.read_after(self._revision, PAGE_ROWS)
            if batch.restarted:
                self._restarts += 1
                logger.error("the log of revocations is another one; it is read from its beginning")
            if batch.damaged:
                self._damaged += batch.damaged
                logger.error("%d revocations cannot be read and are not in force", batch.damaged)
            over_s = self._clock.wall_s() - PURGE_SLACK_S
            try:
                self._apply([row for row in batch.rows if row.until_s >= over_s])
            except OverflowError as error:
                raise NoRoom(str(error)) from error
            self._learned.update(row.kind for row in batch.rows)
            self._revision, more = batch.revision, batch.more  # only now: a page that found no room is read again
            await asyncio.sleep(0)
        return asked_at_s

    def _apply(self, rows: Sequence[RevocationRow]) -> None:
        if not rows:
            return
        plain = [(row.kind, row.issuer, row.value, row.until_s, row.issued_before_s) for row in rows]
        try:
            for sink in self._sinks:
                sink.revoke_many(plain)
        except OverflowError:
            self._following.whole = False
            self._overflows += 1
            self._following.tell()
            raise
