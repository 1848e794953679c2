# cython: autotestdict=False, auto_pickle=False
"""Counters and log-linear histograms in shared memory: one block a worker, any worker sums them all."""

cimport cython
from cpython.memoryview cimport PyMemoryView_GET_BUFFER

cdef extern from *:
    """
    static inline void metrics_add(uint64_t *slot, uint64_t amount) {
        __atomic_fetch_add(slot, amount, __ATOMIC_RELAXED);
    }
    static inline void metrics_store(uint64_t *slot, uint64_t value) {
        __atomic_store_n(slot, value, __ATOMIC_RELAXED);
    }
    static inline uint64_t metrics_load(const uint64_t *slot) {
        return __atomic_load_n(slot, __ATOMIC_RELAXED);
    }
    static inline int metrics_bit_length(uint64_t value) { return value ? 64 - __builtin_clzll(value) : 0; }
    """
    void metrics_add(uint64_t* slot, uint64_t amount) noexcept nogil
    void metrics_store(uint64_t* slot, uint64_t value) noexcept nogil
    uint64_t metrics_load(const uint64_t* slot) noexcept nogil
    int metrics_bit_length(uint64_t value) noexcept nogil


cdef int histogram_bucket(uint64_t elapsed_ns) noexcept nogil:
    # Whole units below the duration. Bounds are inclusive (`le`), hence the 1; a duration of 0 belongs to the first.
    cdef uint64_t units = 0 if elapsed_ns == 0 else (elapsed_ns - 1) // HISTOGRAM_UNIT_NS
    cdef int octave
    if units < 4:
        return 0
    # The three leading bits choose: the first gives the octave, the next two the quarter of it.
    octave = metrics_bit_length(units) - 3
    if octave >= HISTOGRAM_OCTAVES:
        return HISTOGRAM_BUCKETS - 1
    return 1 + 4 * octave + <int>((units >> octave) & 3)


def histogram_bucket_of(uint64_t elapsed_ns):
    return histogram_bucket(elapsed_ns)


def histogram_bounds_ns():
    # Bucket 1 + 4 * octave + quarter ends at (5 + quarter) << octave units; the last has no end.
    cdef int bucket
    bounds = [4 * HISTOGRAM_UNIT_NS]
    for bucket in range(HISTOGRAM_BUCKETS - 2):
        bounds.append(((5 + bucket % 4) << (bucket // 4)) * HISTOGRAM_UNIT_NS)
    return tuple(bounds)


@cython.final
cdef class MetricsBlock:

    def __cinit__(self, object buffer not None, Py_ssize_t offset, Py_ssize_t slot_count):
        cdef Py_buffer* view
        self._map = memoryview(buffer)
        if self._map.readonly or not self._map.c_contiguous:
            raise ValueError("the map must be writable and contiguous")
        view = PyMemoryView_GET_BUFFER(self._map)
        if offset < 0 or slot_count < 0 or offset > view.len or slot_count > (view.len - offset) // 8:
            raise ValueError(f"{slot_count} slots from byte {offset} do not fit into {view.len} bytes")
        self.slots = <uint64_t*>(<char*>view.buf + offset)
        if <size_t>self.slots % 8:
            raise ValueError(f"byte {offset} is not aligned to 8")
        self.slot_count = slot_count

    cpdef void add(self, Py_ssize_t slot, int64_t amount) noexcept nogil:
        if 0 <= slot < self.slot_count:
            metrics_add(&self.slots[slot], <uint64_t>amount)

    cpdef void set(self, Py_ssize_t slot, int64_t value) noexcept nogil:
        if 0 <= slot < self.slot_count:
            metrics_store(&self.slots[slot], <uint64_t>value)

    cpdef void observe_ns(self, Py_ssize_t first_slot, uint64_t elapsed_ns) noexcept nogil:
        if 0 <= first_slot <= self.slot_count - HISTOGRAM_SLOTS:
            metrics_add(&self.slots[first_slot + histogram_bucket(elapsed_ns)], 1)
            metrics_add(&self.slots[first_slot + HISTOGRAM_BUCKETS], elapsed_ns)

    def get(self, Py_ssize_t slot):
        if not 0 <= slot < self.slot_count:
            raise IndexError(f"slot {slot} is outside 0..{self.slot_count - 1}")
        return <int64_t>metrics_load(&self.slots[slot])
