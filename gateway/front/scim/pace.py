"""How many requests a worker serves in a second: provisioning may take long, and must leave time for everybody else."""

from __future__ import annotations

from typing import Final

from gateway.errors import OverloadedError
from gateway.types import Clock

WAIT_S_MAX: Final = 1.0  # for one's turn: who asks one thing after the other is slowed down, and never refused
BURST_S: Final = 0.1  # after a quiet while the turns of so long are there at once; people who log in wait behind them


class Pace:
    """A bucket of tokens: so many requests a second, each operation of a bulk request for one."""

    def __init__(self, per_s: float, clock: Clock) -> None:
        self._per_s = per_s
        self._clock = clock
        self._most = max(1.0, per_s * BURST_S)
        self._left = self._most  # below 0: turns that were given to requests that wait for them
        self._at_s = clock.monotonic_s()

    def check(self) -> None:
        """Raise OverloadedError where a turn would be waited for too long: before anything is done for a request."""
        if self._wait_s() > WAIT_S_MAX:
            raise OverloadedError("more requests come than are served in a second", retry_after_s=1.0)

    def take(self) -> float:
        """Take a turn; give how long it is waited for, in seconds."""
        wait_s = self._wait_s()
        self._left -= 1
        return wait_s

    def _wait_s(self) -> float:
        now_s = self._clock.monotonic_s()
        self._left = min(self._most, self._left + (now_s - self._at_s) * self._per_s)
        self._at_s = now_s
        return max(0.0, (1 - self._left) / self._per_s)
