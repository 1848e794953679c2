"""The engine that is in force, and how new it is: what decides holds one snapshot, whoever publishes swaps it whole."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from gateway._native.route_policy import DeciderCell
from gateway.types import Clock

if TYPE_CHECKING:
    from gateway.policy.engine import Engine

_STEP_S: Final = 0.002


@dataclass(frozen=True, slots=True)
class PolicySnapshot:
    """An engine with the number of its policies' generation. `digest` names the files that it was made of."""

    engine: Engine
    digest: str
    offset: int

    @property
    def revision(self) -> int:
        """How new policies and entities are: grows with each change of either, and never falls in one process."""
        return self.offset + self.engine.store.revision


class PolicyHandle:
    """Holds the current snapshot. Reading `now` once a request gives one state of policies for all of it."""

    __slots__ = ("_now", "cell")

    def __init__(self, engine: Engine, digest: str, *, stamp: int = 1) -> None:
        """Begin at the revision `stamp`: of files, the newest change in ms, so that a restart does not fall behind."""
        self._now = PolicySnapshot(engine, digest, max(1, stamp) - engine.store.revision)
        self.cell = DeciderCell(engine)  # what the compiled doors read

    @property
    def now(self) -> PolicySnapshot:
        return self._now

    @property
    def revision(self) -> int:
        return self._now.revision

    def publish(self, engine: Engine, digest: str, *, stamp: int = 0) -> PolicySnapshot:
        """Put another engine in force; its revision is above the former one's."""
        revision = max(self._now.revision + 1, stamp)
        self._now = PolicySnapshot(engine, digest, revision - engine.store.revision)
        self.cell.decider = engine
        return self._now

    async def reach(self, revision: int, *, clock: Clock, within_s: float) -> bool:
        """Wait until the revision is reached, for `within_s` at most; tell whether it was."""
        until = clock.monotonic_s() + within_s
        while self._now.revision < revision:
            if clock.monotonic_s() >= until:
                return False
            await asyncio.sleep(_STEP_S)
        return True
