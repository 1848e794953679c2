"""Counters and log-linear histograms in shared memory: one block a worker, any worker sums them all."""

from typing import Final, final

from typing_extensions import Buffer  # typeshed has it for every Python; nothing is imported at run time

__pyx_capi__: Final[dict[str, object]]  # what `metrics.pxd` offers to other compiled modules

def histogram_bucket_of(elapsed_ns: int) -> int:
    """Return the number of the bucket that counts a duration: the first whose bound is at least as long."""

def histogram_bounds_ns() -> tuple[int, ...]:
    """Return the inclusive upper bound of each bucket but the last, which has none: 1 µs to 16.8 s."""

@final
class MetricsBlock:
    """One worker's slots in a shared map. Only its worker writes; any process reads.

    Keeps `buffer` exported, so that an mmap cannot be closed under it. Each write is one relaxed atomic operation and
    safe from any thread. A slot outside the block is ignored.
    """

    @property
    def slot_count(self) -> int: ...
    def __new__(cls, buffer: Buffer, offset: int, slot_count: int) -> MetricsBlock:
        """Take `slot_count` slots of 8 bytes from byte `offset` on.

        Raises ValueError where they do not fit, the address is not aligned to 8, or the buffer cannot be written.
        """

    def add(self, slot: int, amount: int) -> None:
        """Count `amount`; below zero for a gauge that goes down."""

    def set(self, slot: int, value: int) -> None:
        """Store a gauge's value."""

    def observe_ns(self, first_slot: int, elapsed_ns: int) -> None:
        """Count one duration in the histogram whose 99 slots begin at `first_slot`: 98 buckets, then the sum."""

    def get(self, slot: int) -> int:
        """Return what a slot holds; raises IndexError outside the block."""
