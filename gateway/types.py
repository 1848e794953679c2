"""Values that cross chapters."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol


class Clock(Protocol):
    """Where time comes from. Durations use `monotonic_s`; only `exp`, `iat` and logs use `wall_s`."""

    def monotonic_s(self) -> float: ...

    def wall_s(self) -> float: ...


class SystemClock:
    """The machine's own clocks."""

    __slots__ = ()

    def monotonic_s(self) -> float:
        return time.monotonic()

    def wall_s(self) -> float:
        return time.time()


class Secret:
    """A password, key or token that must not be shown: its `repr` and `str` are blank, `reveal` gives the bytes."""

    __slots__ = ("_value",)

    def __init__(self, value: bytes | str) -> None:
        self._value = value.encode() if isinstance(value, str) else value

    def reveal(self) -> bytes:
        return self._value

    def __repr__(self) -> str:
        return "Secret(…)"

    __str__ = __repr__

    def __bool__(self) -> bool:
        return bool(self._value)

    def __eq__(self, other: object) -> bool:
        import hmac

        return isinstance(other, Secret) and hmac.compare_digest(self._value, other._value)

    def __hash__(self) -> int:
        return hash(self._value)


@dataclass(frozen=True, slots=True)
class WorkerContext:
    """What one worker process knows about itself and the processes that it serves with."""

    index: int  # 0 … worker_count - 1; a worker that is started anew keeps the index of the one that died
    worker_count: int
    control_path: Path  # shared by the parent and all workers: reloads, draining, states (gateway/cli/control.py)
    metrics_path: Path  # shared by all workers: metrics; made by the parent
    run_dir: Path  # private to this user, outlives the process: snapshots of keys, embedded stores
