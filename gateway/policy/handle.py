"""The engine that is in force, and how new it is: what decides holds one snapshot, whoever publishes swaps it whole."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from gateway._native.route_policy import DeciderCell
from gateway.policy.relation_reads import RelationReads
from gateway.types import Clock

if TYPE_CHECKING:
    from gateway._native.uid import EntityUid
    from gateway.policy.engine import Engine
    from gateway.policy.relation_follower import RelationFollower

_STEP_S: Final = 0.002
REVISIONS_PART: Final = "~"  # between the revision of policies and that of relations


@dataclass(frozen=True, slots=True)
class PolicySnapshot:
    """An engine with the number of its policies' generation. `digest` names the files that it was made of."""

    engine: Engine
    digest: str
    offset: int
    relations: RelationFollower | None = None  # what keeps the relations among the engine's entities
    sourced: bool = False  # whether entities are fetched while deciding
    reads: RelationReads | None = None  # where there are relations: what of the policies depends on them

    @property
    def revision(self) -> int:
        """How new policies and entities are: grows with each change of either, and never falls in one process.

        Where there are relations or sources, only policies and files of entities count: each process makes changes of
        relations in steps of its own and fetches entities of its own, and the revision that all share is the stores'.
        """
        return self.offset + _counted(self.engine, self.relations, self.sourced)

    @property
    def shown_revision(self) -> int | str:
        """What callers are told, and may ask for: with relations a text of both revisions."""
        if self.relations is None:
            return self.revision
        return f"{self.revision}{REVISIONS_PART}{self.relations.revision}"

    @property
    def refusal(self) -> str:
        """Why what depends on relations may not be decided now, as a code; "" where it may."""
        return "" if self.relations is None or self.relations.trusted else "relations_unavailable"

    def refusal_of(self, principal: EntityUid, action: EntityUid, resource: EntityUid) -> str:
        """Why this may not be decided now: `refusal`, but for what no policy about relations could apply to."""
        refusal = self.refusal
        return refusal if refusal and (self.reads is None or self.reads.concern(principal, action, resource)) else ""


class PolicyHandle:
    """Holds the current snapshot. Reading `now` once a request gives one state of policies for all of it."""

    __slots__ = ("_now", "cell")

    def __init__(
        self,
        engine: Engine,
        digest: str,
        *,
        stamp: int = 1,
        relations: RelationFollower | None = None,
        sourced: bool = False,
    ) -> None:
        """Begin at the revision `stamp`: of files, the newest change in ms, so that a restart does not fall behind."""
        self._now = _snapshot(engine, digest, max(1, stamp), relations, sourced)
        self.cell = DeciderCell()  # what the compiled doors read
        self.look()

    @property
    def now(self) -> PolicySnapshot:
        return self._now

    @property
    def revision(self) -> int:
        return self._now.revision

    def publish(
        self,
        engine: Engine,
        digest: str,
        *,
        stamp: int = 0,
        relations: RelationFollower | None = None,
        sourced: bool = False,
    ) -> PolicySnapshot:
        """Put another engine in force; its revision is above the former one's."""
        self._now = _snapshot(engine, digest, max(self._now.revision + 1, stamp), relations, sourced)
        self.look()
        return self._now

    def look(self) -> None:
        """Let the compiled doors decide, or not: called whenever `refusal` may have changed.

        While relations cannot be trusted, they allow what does not depend on any, once that is prepared (`reads`).
        """
        now = self._now
        if now.refusal:
            self.cell.doubtful = True
            self.cell.decider = None if now.reads is None else now.reads.cautious
        else:
            self.cell.decider = now.engine
            self.cell.doubtful = False

    async def reach(self, revision: int, *, clock: Clock, within_s: float) -> bool:
        """Wait until the revision is reached, for `within_s` at most; tell whether it was."""
        until = clock.monotonic_s() + within_s
        while self._now.revision < revision:
            if clock.monotonic_s() >= until:
                return False
            await asyncio.sleep(_STEP_S)
        return True


def _snapshot(
    engine: Engine, digest: str, revision: int, relations: RelationFollower | None, sourced: bool
) -> PolicySnapshot:
    reads = None if relations is None else RelationReads(engine)
    return PolicySnapshot(engine, digest, revision - _counted(engine, relations, sourced), relations, sourced, reads)


def _counted(engine: Engine, relations: RelationFollower | None, sourced: bool) -> int:
    return engine.store.revision if relations is None and not sourced else 0
