"""Count the bytes that each fuzz target leaves behind: `python -m tests.sanitize.leaks` under `asan.py`.

The same inputs run again and again; once caches are warm, the heap must not grow. This finds lost memory as well as
lost references, needs no ptrace, and is not disturbed by what the interpreter keeps for itself.
"""

from __future__ import annotations

import ctypes
import gc
import random
import sys
from collections.abc import Callable

from tests import fuzz
from tests.fuzz.mutate import mutate

INPUTS = 200
WARM_ROUNDS = 3
ROUNDS = 4
# Python's own caches and the counting itself move by a few hundred bytes; one lost 16-byte block in twelve calls is
# already more than this.
GROWTH_BYTES_MAX = 1024
TRIES = 12  # a target of many Python objects takes some rounds until all that is kept once is kept


def allocated_bytes() -> Callable[[], int]:
    """Return the sanitizer's count of bytes in use."""
    try:
        count = ctypes.CDLL(None).__sanitizer_get_current_allocated_bytes
    except AttributeError:
        sys.exit("portcullis: no AddressSanitizer in this process; run tests/sanitize/asan.py")
    count.restype = ctypes.c_size_t
    return lambda: int(count())


def inputs_of(target: fuzz.Target) -> list[bytes]:
    """Return the target's seeds and mutations of them, the same in each run."""
    chooser = random.Random(target.name)
    seeds = list(target.seeds())
    return seeds + [mutate(chooser, seeds, target.words) for _ in range(INPUTS)]


def growth_bytes(target: fuzz.Target, count: Callable[[], int]) -> int:
    """Return by how much the heap grows in ROUNDS rounds, at the least of TRIES."""
    inputs = inputs_of(target)

    def play(rounds: int) -> int:
        for _ in range(rounds):
            for data in inputs:
                target.run(data)
        gc.collect()
        return count()

    play(WARM_ROUNDS)
    smallest = sys.maxsize
    for _ in range(TRIES):
        before = play(1)
        smallest = min(smallest, play(ROUNDS) - before)
        if smallest <= GROWTH_BYTES_MAX:
            break
    return smallest


def main() -> int:
    count = allocated_bytes()
    leaking = 0
    for name in fuzz.names():
        target = fuzz.load(name)
        growth = growth_bytes(target, count)
        leaks = growth > GROWTH_BYTES_MAX
        leaking += leaks
        print(f"leaks: {name:<12} {max(growth, 0):>8} bytes more after {ROUNDS} rounds{'  LEAK' if leaks else ''}")
    return 1 if leaking else 0


if __name__ == "__main__":
    sys.exit(main())
