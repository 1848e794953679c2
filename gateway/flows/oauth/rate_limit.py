"""So many a minute, for each who comes and for all together."""

from __future__ import annotations

from collections import OrderedDict
from typing import Final

from gateway.types import Clock

CALLERS_MAX: Final = 10_000
SHARE_OF_ALL: Final = 10  # all together may do as much as this many callers


class RateLimit:
    """Token buckets of one worker, in bounded memory: whoever was not seen longest is forgotten."""

    def __init__(self, per_minute: int, clock: Clock) -> None:
        self._per_minute = per_minute
        self._clock = clock
        self._buckets: OrderedDict[str, tuple[float, float]] = OrderedDict()  # caller -> (left, as of)
        self._all = (float(per_minute * SHARE_OF_ALL), clock.monotonic_s())

    def take(self, caller: str) -> bool:
        """Tell whether `caller` may do it once more now, and count it."""
        now_s = self._clock.monotonic_s()
        own = self._left(self._buckets.get(caller, (float(self._per_minute), now_s)), self._per_minute, now_s)
        of_all = self._left(self._all, self._per_minute * SHARE_OF_ALL, now_s)
        may = own >= 1 and of_all >= 1
        self._all = (of_all - may, now_s)
        self._buckets[caller] = (own - may, now_s)
        self._buckets.move_to_end(caller)
        if len(self._buckets) > CALLERS_MAX:
            self._buckets.popitem(last=False)
        return may

    @staticmethod
    def _left(bucket: tuple[float, float], per_minute: int, now_s: float) -> float:
        left, as_of_s = bucket
        return min(float(per_minute), left + (now_s - as_of_s) * per_minute / 60)
