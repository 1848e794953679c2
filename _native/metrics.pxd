"""Counters and log-linear histograms in shared memory: one block a worker, any worker sums them all."""

from libc.stdint cimport int64_t, uint64_t

cdef class MetricsBlock:
    """One worker's slots in the shared map. Only its worker writes; any process reads."""
    cdef uint64_t* slots          # owned by `_map`; slot i at slots[i]
    cdef Py_ssize_t slot_count
    cdef object _map              # the mmap or buffer that keeps `slots` alive
    cdef void add(self, Py_ssize_t slot, uint64_t amount) noexcept nogil
    """One relaxed atomic add; a slot outside the block is ignored."""
    cdef void set(self, Py_ssize_t slot, uint64_t value) noexcept nogil
    cdef void observe_ns(self, Py_ssize_t first_slot, uint64_t elapsed_ns) noexcept nogil
    """Count one duration in the histogram that begins at `first_slot` (layout: gateway/observability/metrics.py)."""
