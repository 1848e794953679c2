"""Counts over the last seconds, in memory that does not grow with what is counted."""

from __future__ import annotations

from gateway.types import Clock

SLICES = 10  # of a window: a count is forgotten within a tenth of the window after its time


class SlidingCounts:
    """Counts of `kinds` kinds of events over the slice of `span_s` / 10 that runs and the nine before it."""

    __slots__ = ("_clock", "_slice", "_slice_s", "_slices", "_totals")

    def __init__(self, kinds: int, span_s: float, *, clock: Clock) -> None:
        self._clock = clock
        self._slice_s = span_s / SLICES
        self._slices = [[0] * kinds for _ in range(SLICES)]
        self._totals = [0] * kinds
        self._slice = self._number()

    def add(self, kind: int) -> None:
        """Count one event now."""
        self._advance()
        self._slices[self._slice % SLICES][kind] += 1
        self._totals[kind] += 1

    def total(self, kind: int) -> int:
        """Give how many events of a kind there were in the window."""
        self._advance()
        return self._totals[kind]

    def clear(self) -> None:
        """Forget everything."""
        for counts in self._slices:
            counts[:] = [0] * len(counts)
        self._totals = [0] * len(self._totals)

    def _number(self) -> int:
        return int(self._clock.monotonic_s() / self._slice_s)

    def _advance(self) -> None:
        number = self._number()
        for passed in range(self._slice + 1, min(number, self._slice + SLICES) + 1):
            counts = self._slices[passed % SLICES]
            self._totals = [total - count for total, count in zip(self._totals, counts, strict=True)]
            counts[:] = [0] * len(counts)
        self._slice = max(number, self._slice)
