"""Counters and log-linear histograms in shared memory: one block a worker, any worker sums them all."""

cimport cython
from libc.stdint cimport int64_t, uint64_t

# ORDER HISTOGRAM: gateway/observability/catalogue.py holds the same layout; a test compares them.
cdef enum:
    HISTOGRAM_UNIT_NS = 250      # a quarter of the first bucket: four buckets a power of two, from 1 µs
    HISTOGRAM_OCTAVES = 24       # up to 2^24 µs = 16.8 s
    HISTOGRAM_BUCKETS = 98       # ≤ 1 µs, 24 × 4, above
    HISTOGRAM_SLOTS = 99         # the buckets, then the sum in ns

cdef int histogram_bucket(uint64_t elapsed_ns) noexcept nogil
"""The bucket that counts a duration: the first whose upper bound is at least as long."""

@cython.final
cdef class MetricsBlock:
    """One worker's slots in the shared map. Only its worker writes; any process reads.

    Each write is one relaxed atomic operation, so threads without the GIL may write too. A slot outside the block is
    ignored: a wrong number loses a count, never memory.
    """
    cdef uint64_t* slots          # owner: the buffer that `_map` exports; slot i at slots[i]
    cdef readonly Py_ssize_t slot_count
    cdef object _map              # memoryview that keeps the mmap open and `slots` valid
    cpdef void add(self, Py_ssize_t slot, int64_t amount) noexcept nogil
    """Count `amount`; below zero for a gauge that goes down."""
    cpdef void set(self, Py_ssize_t slot, int64_t value) noexcept nogil
    cpdef void observe_ns(self, Py_ssize_t first_slot, uint64_t elapsed_ns) noexcept nogil
    """Count one duration in the histogram whose HISTOGRAM_SLOTS begin at `first_slot`."""
