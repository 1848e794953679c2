"""Bounded TTL caches in C, keyed by exact bytes under a secret SipHash.

One shape for every cache of the hot path (verified tokens, token headers): a fixed table of 64-byte buckets with
seven ways, each way a pointer to one allocation that holds a small head, the caller's payload, the whole key and, if
asked, some more bytes. A hit costs one bucket line and one run of consecutive lines, which are prefetched together.
"""

from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t

from gateway._native.slice cimport Slice

cdef enum:
    CACHE_WAYS = 7               # pointers of one bucket: with their tags they fill one cache line
    CACHE_HEAT_MAX = 3           # how many sweeps a much-used entry outlives
    CACHE_SWEEP_MAX = 64         # entries that one insertion looks at, at most, to find the coldest
    CACHE_TICKS_PER_S = 16       # unit of deadlines: 1/16 s; 32 bits last for 8 years of uptime
    CACHE_TICK_NEVER = 0xffffffff

cdef uint64_t siphash13(uint64_t k0, uint64_t k1, const char* data, Py_ssize_t length) noexcept nogil
"""SipHash-1-3 of `data` (Aumasson and Bernstein, 2012; one compression round a word, three at the end)."""

cdef uint64_t secret_hash(Slice data) noexcept nogil
"""SipHash-1-3 under a key drawn from os.urandom when the module loads: nobody outside can aim for a collision."""

cdef uint64_t secret_hash_tweaked(uint64_t tweak, Slice data) noexcept nogil
"""The same under a key that `tweak` alters: families of values that never share a hash by design."""

cdef uint64_t token_hash(Slice token) noexcept nogil
"""Secret hash of a token's length, its last 32 bytes and 16 from its middle; of all of it up to 64 bytes.

The end of a signed token is its signature, which differs for any two. Only a place to look: the cache compares whole
keys, and holds only what was verified, so nobody can pile entries onto one bucket by choosing bytes.
"""

cdef uint32_t clock_tick() noexcept nogil
"""Monotonic time in ticks of 1/16 s. It never goes back and does not follow the wall clock."""

cdef struct CacheEntry:
    uint32_t key_len
    uint32_t extra_len
    uint32_t deadline_tick       # at this tick the entry is gone
    uint32_t payload_bytes
    # then payload_bytes of payload, key_len of key, extra_len of extra

# Called once for each payload that leaves the cache, after it was unlinked; may free or decref what the payload owns.
ctypedef void (*cache_drop)(void* payload) noexcept nogil

cdef struct CacheBucket

cdef struct CacheC:
    CacheBucket* buckets         # owned; 64-byte aligned
    uint64_t bucket_mask
    uint64_t hash_mask           # all ones; tests cut it down to force collisions
    Py_ssize_t capacity
    Py_ssize_t count             # INVARIANT: count <= capacity
    Py_ssize_t entry_bytes       # what the entries take, without the table
    uint32_t payload_bytes
    Py_ssize_t hand              # bucket at which the next sweep goes on
    cache_drop drop              # NULL: payloads own nothing
    uint64_t hits
    uint64_t misses
    uint64_t evictions

cdef CacheC* cache_new(Py_ssize_t capacity, uint32_t payload_bytes, cache_drop drop, int hash_bits) noexcept nogil
"""Make an empty cache for `capacity` entries, or NULL without memory. The caller frees it with cache_free.

A cache has one user at a time: whoever shares one brings a lock (here: the GIL). `payload_bytes` must be a multiple
of 8.
"""

cdef void cache_free(CacheC* cache) noexcept nogil

cdef CacheEntry* cache_find(CacheC* cache, Slice key, uint64_t hash, uint32_t tick) noexcept nogil
"""Give the live entry with exactly these key bytes, or NULL. Valid until the cache is changed.

Keys are compared in time that depends on their length alone.
"""

cdef int cache_put(
    CacheC* cache, Slice key, uint64_t hash, uint32_t deadline_tick, const void* payload, Slice extra
) noexcept nogil
"""Keep copies of key, payload and extra; 0, or -1 when nothing was kept (no capacity or memory; `drop` is not called).

An entry of the same key is replaced. At the bound, the coldest entry among those looked at makes room.
"""

cdef bint cache_remove(CacheC* cache, Slice key, uint64_t hash) noexcept nogil

cdef void cache_clear(CacheC* cache) noexcept nogil

cdef inline void* cache_payload(CacheEntry* entry) noexcept nogil:
    return <char*>entry + sizeof(CacheEntry)

cdef inline Slice cache_key(CacheEntry* entry) noexcept nogil:
    cdef Slice key
    key.ptr = <char*>entry + sizeof(CacheEntry) + entry.payload_bytes
    key.len = entry.key_len
    return key

cdef inline Slice cache_extra(CacheEntry* entry) noexcept nogil:
    cdef Slice extra
    extra.ptr = <char*>entry + sizeof(CacheEntry) + entry.payload_bytes + entry.key_len
    extra.len = entry.extra_len
    return extra

cdef class ByteCache:
    """The same cache for Python: bytes to objects, bounded in number and time."""
    cdef CacheC* c               # owned; freed in __dealloc__
    cdef uint32_t ttl_ticks
    cdef uint32_t skipped_ticks  # how far `advance` moved this cache's clock
