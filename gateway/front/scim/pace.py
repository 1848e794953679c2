"""How many requests a worker serves in a second: provisioning may take long, and must leave time for everybody else."""

from __future__ import annotations

from typing import Final

from gateway.errors import OverloadedError
from gateway.types import Clock

WAIT_S_MAX: Final = 1.0  # for one's turn: who asks one thing after the other is slowed down, and never refused


class Pace:
    """A bucket of tokens: so many requests a second, and after a quiet second that many at once."""

    def __init__(self, per_s: float, clock: Clock) -> None:
        self._per_s = per_s
        self._clock = clock
        self._left = per_s  # below 0: turns that were given to requests that wait for them
        self._at_s = clock.monotonic_s()

    def take(self) -> float:
        """Take one turn; give how long it is waited for. Raises OverloadedError where that would be too long."""
        now_s = self._clock.monotonic_s()
        self._left = min(self._per_s, self._left + (now_s - self._at_s) * self._per_s)
        self._at_s = now_s
        wait_s = max(0.0, (1 - self._left) / self._per_s)
        if wait_s > WAIT_S_MAX:
            raise OverloadedError("more requests come than are served in a second", retry_after_s=1.0)
        self._left -= 1
        return wait_s
