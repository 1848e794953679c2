"""How many requests a worker serves in a second: provisioning may take long, and must leave time for everybody else."""

from __future__ import annotations

from gateway.errors import OverloadedError
from gateway.types import Clock


class Pace:
    """A bucket of tokens: so many requests a second, and after a quiet second that many at once."""

    def __init__(self, per_s: float, clock: Clock) -> None:
        self._per_s = per_s
        self._clock = clock
        self._left = per_s
        self._at_s = clock.monotonic_s()

    def take(self) -> None:
        """Take one request's turn. Raises OverloadedError where there is none left now."""
        now_s = self._clock.monotonic_s()
        self._left = min(self._per_s, self._left + (now_s - self._at_s) * self._per_s)
        self._at_s = now_s
        if self._left < 1:
            raise OverloadedError("more requests come than are served in a second", retry_after_s=1.0)
        self._left -= 1
