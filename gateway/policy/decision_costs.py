"""What decisions take: measured, since what a plan could cost says little where an index leaves most of it out."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final
from weakref import ref

from gateway._native.uid import EntityUid

if TYPE_CHECKING:
    from gateway.policy.engine import Engine
    from gateway.policy.plans import Question

DEAR_NS: Final = 5000  # below it a decision is made about as fast as one is found (measured 2026-11)
SAMPLES: Final = 8  # decisions of which the fastest tells what one takes: whatever was interrupted is none
COSTS_MAX: Final = 4096  # types and actions of which that is known


class DecisionCosts:
    """Which decisions are dear, by the types and the action that they are about; of the engine that was asked last."""

    def __init__(self) -> None:
        self._engine: ref[Engine] | None = None
        self._dear: set[tuple[str, EntityUid, str]] = set()
        self._fastest: dict[tuple[str, EntityUid, str], tuple[int, int]] = {}  # samples so far, the least of them in ns

    def are_dear(self, engine: Engine, question: Question) -> bool:
        """Tell whether decisions like this one take DEAR_NS and more."""
        return bool(self._dear) and question.types in self._dear and self._is_of(engine)

    def note(self, engine: Engine, question: Question, taken_ns: int) -> None:
        """Note what one took."""
        if not self._is_of(engine):
            self._engine = ref(engine)
            self._dear.clear()
            self._fastest.clear()
        types = question.types
        count, least_ns = self._fastest.get(types, (0, taken_ns))
        if count + 1 < SAMPLES:
            if not count and len(self._fastest) >= COSTS_MAX:
                del self._fastest[next(iter(self._fastest))]
            self._fastest[types] = count + 1, min(least_ns, taken_ns)
            return
        del self._fastest[types]
        if min(least_ns, taken_ns) >= DEAR_NS and len(self._dear) < COSTS_MAX:
            self._dear.add(types)
        else:
            self._dear.discard(types)

    def _is_of(self, engine: Engine) -> bool:
        return self._engine is not None and self._engine() is engine
