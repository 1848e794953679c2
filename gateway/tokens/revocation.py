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
import random
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Literal, Protocol

from gateway.errors import StoreUnavailable
from gateway.stores.base import ORIGIN, PURGE_SLACK_S, Revision, RevocationKind, RevocationRow, RevocationStore
from gateway.types import Clock

logger = logging.getLogger(__name__)
_uniform = random.SystemRandom().uniform

PAGE_ROWS = 1000  # read and applied at once; the loop is free between two pages
WAIT_S = 1.0  # then the log is read again without a hint
BACKOFF_MIN_S = 0.1  # after a fault; doubled up to the maximum, with jitter
BACKOFF_MAX_S = 2.0
PURGE_PAUSE_S = 3600.0  # between two clean-ups by this process, with jitter

Status = Literal["starting", "ok", "degraded", "unavailable"]


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
        uniform: Callable[[float, float], float] = _uniform,
    ) -> None:
        """`on_trust` is called each time that `trusted` has changed."""
        self._store = store
        self._sinks = sinks
        self._clock = clock
        self._on_trust = on_trust
        self._behind_s_max = behind_s_max
        self._uniform = uniform
        self._revision: Revision = ORIGIN
        self._read_at_s: float | None = None  # monotonic, when the end of the log was last seen
        self._error = ""
        self._full = False
        self._failures = 0
        self._learned: Counter[RevocationKind] = Counter()
        self._damaged = self._restarts = self._overflows = 0
        self._told: tuple[Status, bool] = ("starting", False)
        self._attempted = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []

    @property
    def trusted(self) -> bool:
        """Whether the list is whole enough to say of a token that it is not revoked."""
        behind_s = self._behind_s()
        return behind_s is not None and behind_s <= self._behind_s_max and not self._full

    async def start(self) -> None:
        """Begin to follow; return after the first attempt to read the whole log, whether or not it succeeded."""
        self._tasks = [
            asyncio.create_task(self._follow_for_ever(), name="revocations"),
            asyncio.create_task(self._purge_for_ever(), name="revocations-purge"),
        ]
        await self._attempted.wait()

    async def stop(self) -> None:
        """Stop following. What was learned stays in force; the store stays open."""
        tasks, self._tasks = self._tasks, []
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

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
            status=self._status(),
            trusted=self.trusted,
            behind_s=self._behind_s(),
            error=self._error,
            shared=self._store.shared,
            learned={kind: self._learned[kind] for kind in ("jti", "sub", "sid")},
            damaged=self._damaged,
            restarts=self._restarts,
            overflows=self._overflows,
        )

    async def follow(self) -> None:
        """Read to the end of the log once, and take note of how that went."""
        if await self._attempt(self._read_to_end()):
            self._read_at_s, self._error, self._failures, self._full = self._clock.monotonic_s(), "", 0, False
        self._tell()
        self._attempted.set()

    async def _follow_for_ever(self) -> None:
        while True:
            await self.follow()
            if not self._error:
                await self._attempt(self._store.wait(self._revision, WAIT_S))
                self._tell()
            if self._error:
                backoff_s = min(BACKOFF_MIN_S * 2 ** min(self._failures, 16), BACKOFF_MAX_S)
                await asyncio.sleep(self._uniform(0.5, 1.0) * backoff_s)

    async def _attempt(self, work: Awaitable[None]) -> bool:
        """Await `work` and say whether it succeeded; a fault is remembered and never ends the following."""
        try:
            await work
        except (StoreUnavailable, OverflowError) as error:
            self._error = str(error)
        except Exception:  # our own mistake
            logger.exception("the revocations could not be read")
            self._error = "internal fault"
        else:
            return True
        self._failures += 1
        return False

    async def _read_to_end(self) -> None:
        more = True
        while more:
            batch = await self._store.read_after(self._revision, PAGE_ROWS)
            if batch.restarted:
                self._restarts += 1
                logger.error("the log of revocations is another one; it is read from its beginning")
            if batch.damaged:
                self._damaged += batch.damaged
                logger.error("%d revocations cannot be read and are not in force", batch.damaged)
            over_s = self._clock.wall_s() - PURGE_SLACK_S
            self._apply([row for row in batch.rows if row.until_s >= over_s])
            self._learned.update(row.kind for row in batch.rows)
            self._revision, more = batch.revision, batch.more  # only now: a page that found no room is read again
            await asyncio.sleep(0)

    def _apply(self, rows: Sequence[RevocationRow]) -> None:
        if not rows:
            return
        plain = [(row.kind, row.issuer, row.value, row.until_s, row.issued_before_s) for row in rows]
        try:
            for sink in self._sinks:
                sink.revoke_many(plain)
        except OverflowError:
            self._full = True
            self._overflows += 1
            self._tell()
            raise

    def _behind_s(self) -> float | None:
        return None if self._read_at_s is None else max(0.0, self._clock.monotonic_s() - self._read_at_s)

    def _status(self) -> Status:
        if self.trusted:
            return "degraded" if self._error else "ok"
        return "unavailable" if self._attempted.is_set() or self._error else "starting"

    def _tell(self) -> None:
        """Tell the log and the owner what changed."""
        told, self._told = self._told, (self._status(), self.trusted)
        if told[0] != self._told[0]:
            level = logging.INFO if self._told[0] == "ok" else logging.ERROR
            logger.log(level, "revocations are %s %s", self._told[0], f"({self._error})" if self._error else "")
        if told[1] != self._told[1]:
            self._on_trust()

    async def _purge_for_ever(self) -> None:
        while True:
            await asyncio.sleep(self._uniform(0.5, 1.5) * PURGE_PAUSE_S)
            await self.purge()

    async def purge(self) -> None:
        """Let the store forget what is over; a store that cannot is tried again later."""
        try:
            count = await self._store.purge(self._clock.wall_s())
        except StoreUnavailable as error:
            logger.warning("revocations that are over could not be removed: %s", error)
        else:
            logger.info("%d revocations were over and are removed", count)
