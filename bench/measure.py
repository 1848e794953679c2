"""How micro benchmarks are timed: contestants take turns, round after round, and their medians are compared.

The clock is the thread's CPU time: what the machine does besides does not count as anybody's. Where more than one
thread works, or single calls are looked at, it is the wall's.
"""

from __future__ import annotations

import gc
import statistics
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

NS_PER_S = 1_000_000_000


@dataclass(slots=True)
class Contestant:
    """Something that can be timed: `run(count)` does the work `count` times and gives the nanoseconds it took.

    It must have proved its answers before (see `proved`): what answers wrongly has no time.
    """

    name: str
    run: Callable[[int], int]
    count: int  # how often in one round
    note: str = ""
    per_op_ns: list[float] = field(default_factory=list)

    @property
    def median_us(self) -> float:
        return statistics.median(self.per_op_ns) / 1000


def calling(call: Callable[[object], object], arguments: Sequence[object]) -> Callable[[int], int]:
    """Make a `run` that calls with each argument in turn, from the first on each time."""

    def run(count: int) -> int:
        whole, rest = divmod(count, len(arguments))
        plan = [arguments] * whole + [arguments[:rest]]
        started_ns = time.thread_time_ns()
        for part in plan:
            for argument in part:
                call(argument)
        return time.thread_time_ns() - started_ns

    return run


def looping(loop: Callable[[int], object]) -> Callable[[int], int]:
    """Make a `run` from something that does the work `count` times by itself, in C."""

    def run(count: int) -> int:
        started_ns = time.thread_time_ns()
        loop(count)
        return time.thread_time_ns() - started_ns

    return run


def calling_fresh(
    prepare: Callable[[], None], call: Callable[[object], object], arguments: Sequence[object]
) -> Callable[[int], int]:
    """The same, but with `prepare` before each pass over the arguments, off the clock: for caches that must be cold."""

    def run(count: int) -> int:
        elapsed_ns = 0
        while count > 0:
            part = arguments[:count]
            prepare()
            started_ns = time.thread_time_ns()
            for argument in part:
                call(argument)
            elapsed_ns += time.thread_time_ns() - started_ns
            count -= len(part)
        return elapsed_ns

    return run


def proved(call: Callable[[object], object], cases: Iterable[tuple[object, object]]) -> Callable[[object], object]:
    """Give `call` back once it has given each expected answer."""
    for argument, expected in cases:
        answer = call(argument)
        assert answer == expected, f"{call!r} gave {answer!r} where {expected!r} is right"
    return call


def race(contestants: Sequence[Contestant], rounds: int, progress: Callable[[], None] = lambda: None) -> None:
    """Time all contestants, taking turns; each round begins with another one."""
    for contestant in contestants:
        contestant.run(max(1, contestant.count // 10))
    gc.collect()
    gc.disable()
    try:
        for round_number in range(rounds):
            for index in range(len(contestants)):
                contestant = contestants[(index + round_number) % len(contestants)]
                elapsed_ns = contestant.run(contestant.count)
                contestant.per_op_ns.append(elapsed_ns / contestant.count)
            progress()
    finally:
        gc.enable()


def ratio(numerator: Contestant, denominator: Contestant) -> float:
    """Give the median of the ratios of each round: two that ran one after another had the same machine."""
    return statistics.median(
        first / second for first, second in zip(numerator.per_op_ns, denominator.per_op_ns, strict=True)
    )


def difference_us(first: Contestant, second: Contestant) -> float:
    """Give the median of the differences of each round."""
    pairs = zip(first.per_op_ns, second.per_op_ns, strict=True)
    return statistics.median(one - other for one, other in pairs) / 1000


@dataclass(frozen=True, slots=True)
class Spread:
    """The distribution of single calls, the clock's own cost taken off."""

    p50_us: float
    p99_us: float
    max_us: float


def median_spread(rounds: Sequence[Spread]) -> Spread:
    """Give the medians of each figure over several rounds."""
    return Spread(
        *(statistics.median(getattr(each, name) for each in rounds) for name in ("p50_us", "p99_us", "max_us"))
    )


def spread_of(
    call: Callable[[object], object], arguments: Sequence[object], prepare: Callable[[], None] = lambda: None
) -> Spread:
    """Time each call alone."""
    clock = time.perf_counter_ns
    empty = []
    for _ in range(2000):
        started_ns = clock()
        empty.append(clock() - started_ns)
    cost_ns = statistics.median(empty)
    prepare()
    gc.collect()
    gc.disable()
    try:
        times = []
        for argument in arguments:
            started_ns = clock()
            call(argument)
            times.append(clock() - started_ns)
    finally:
        gc.enable()
    times.sort()
    at = [times[len(times) // 2], times[len(times) * 99 // 100], times[-1]]
    return Spread(*(max(0.0, value - cost_ns) / 1000 for value in at))
