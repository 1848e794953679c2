# cython: boundscheck=False, wraparound=False, initializedcheck=False, cdivision=True
# cython: auto_pickle=False, autotestdict=False
"""Bounded TTL caches in C, keyed by exact bytes under a secret SipHash.

Goal: a known token must cost one table line and one run of lines, and a stranger must neither push known tokens out
nor slow them down. Plan: seven-way buckets of one cache line; a bucket that is full spills into its neighbour, which
shares its pair of lines; each way has two bits of heat (CLOCK with a counter), so that entries seen once leave before
those in use; eviction looks at a bounded number of entries, so that no insertion is ever slow. Keys are always
compared whole.

Indices into `CacheBucket` arrays come from `range(CACHE_WAYS)`; bucket numbers are masked by `bucket_mask`: that is
why bounds checks are off in this file.
"""

import os

cimport cython
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_GET_SIZE
from libc.stdint cimport uint8_t, uint32_t, uint64_t
from libc.stdlib cimport free, malloc
from libc.string cimport memcpy, memset

from gateway._native.slice cimport Slice, slice_empty, slice_of

cdef extern from *:
    """
    #include <stdlib.h>
    #include <string.h>
    #include <time.h>
    #include <stdint.h>

    #ifdef PORTCULLIS_DEBUG
    static long portcullis_cache_live;
    #define CACHE_LIVE(n) __atomic_fetch_add(&portcullis_cache_live, (n), __ATOMIC_RELAXED)
    static long cache_live_entries(void) { return portcullis_cache_live; }
    #else
    #define CACHE_LIVE(n) ((void)0)
    static long cache_live_entries(void) { return -1; }
    #endif

    #define CACHE_PREFETCH(p) __builtin_prefetch((p), 0, 3)

    /* One accumulator over all bytes and no early exit. The vector type is GCC's and clang's, for any CPU. */
    typedef uint64_t cache_lane __attribute__((vector_size(32), aligned(1), may_alias));
    static inline int cache_equal(const char *a, const char *b, size_t n)
    {
        cache_lane sum0 = {0, 0, 0, 0}, sum1 = {0, 0, 0, 0}, x, y;
        uint64_t rest = 0, p, q;
        size_t i = 0;
        for (; i + 64 <= n; i += 64) {
            memcpy(&x, a + i, 32); memcpy(&y, b + i, 32); sum0 |= x ^ y;
            memcpy(&x, a + i + 32, 32); memcpy(&y, b + i + 32, 32); sum1 |= x ^ y;
        }
        sum0 |= sum1;
        for (; i + 8 <= n; i += 8) { memcpy(&p, a + i, 8); memcpy(&q, b + i, 8); rest |= p ^ q; }
        for (; i < n; i++) rest |= (uint64_t)((unsigned char)a[i] ^ (unsigned char)b[i]);
        return (rest | sum0[0] | sum0[1] | sum0[2] | sum0[3]) == 0;
    }

    static inline uint64_t cache_word(const char *p) { uint64_t w; memcpy(&w, p, 8);
    #if defined(__BYTE_ORDER__) && __BYTE_ORDER__ == __ORDER_BIG_ENDIAN__
        w = __builtin_bswap64(w);
    #endif
        return w; }
    #define CACHE_ROTL(x, n) (((x) << (n)) | ((x) >> (64 - (n))))

    /* Monotonic, whole ticks; the coarse clock costs a few ns where there is one. */
    #ifdef CLOCK_MONOTONIC_COARSE
    #define CACHE_CLOCK CLOCK_MONOTONIC_COARSE
    #else
    #define CACHE_CLOCK CLOCK_MONOTONIC
    #endif
    static inline uint32_t cache_clock_tick(void)
    {
        struct timespec now;
        clock_gettime(CACHE_CLOCK, &now);
        return (uint32_t)((uint64_t)now.tv_sec * 16u + (uint64_t)now.tv_nsec / 62500000u);
    }

    static void *cache_lines(size_t bytes)
    {
        void *lines = NULL;
        if (posix_memalign(&lines, 64, bytes) != 0) return NULL;
        memset(lines, 0, bytes);
        return lines;
    }
    static void cache_object_hold(void *held) { Py_INCREF((PyObject *)held); }
    static void cache_object_drop(void *payload) { PyObject *held = *(PyObject **)payload; Py_DECREF(held); }
    """
    void CACHE_LIVE(long) noexcept nogil
    long cache_live_entries() noexcept nogil
    void CACHE_PREFETCH(const void*) noexcept nogil
    bint cache_equal(const char*, const char*, size_t) noexcept nogil
    uint64_t cache_word(const char*) noexcept nogil
    uint64_t CACHE_ROTL(uint64_t, int) noexcept nogil
    uint32_t cache_clock_tick() noexcept nogil
    void* cache_lines(size_t) noexcept nogil
    void cache_object_hold(void*) noexcept nogil
    void cache_object_drop(void*) noexcept nogil


cdef struct CacheBucket:
    # 64 bytes. A way is free when its entry is NULL.
    CacheEntry* entry[CACHE_WAYS]   # owned
    uint8_t mark[CACHE_WAYS]        # six bits of the hash, two bits of heat
    uint8_t spilled                 # an entry that belongs here may lie in the neighbour (bucket number ^ 1)


# The per-process secret. Never shown, never stored.
cdef uint64_t secret_k0 = int.from_bytes(os.urandom(8), "little")
cdef uint64_t secret_k1 = int.from_bytes(os.urandom(8), "little")


cdef uint64_t siphash13(uint64_t k0, uint64_t k1, const char* data, Py_ssize_t length) noexcept nogil:
    cdef uint64_t v0 = k0 ^ <uint64_t>0x736f6d6570736575
    cdef uint64_t v1 = k1 ^ <uint64_t>0x646f72616e646f6d
    cdef uint64_t v2 = k0 ^ <uint64_t>0x6c7967656e657261
    cdef uint64_t v3 = k1 ^ <uint64_t>0x7465646279746573
    cdef uint64_t word
    cdef Py_ssize_t i = 0
    cdef int shift, step
    while i + 8 <= length:
        word = cache_word(data + i)
        v3 ^= word
        v0 += v1; v1 = CACHE_ROTL(v1, 13); v1 ^= v0; v0 = CACHE_ROTL(v0, 32)
        v2 += v3; v3 = CACHE_ROTL(v3, 16); v3 ^= v2
        v0 += v3; v3 = CACHE_ROTL(v3, 21); v3 ^= v0
        v2 += v1; v1 = CACHE_ROTL(v1, 17); v1 ^= v2; v2 = CACHE_ROTL(v2, 32)
        v0 ^= word
        i += 8
    word = <uint64_t>length << 56
    shift = 0
    while i < length:
        word |= <uint64_t>(<uint8_t>data[i]) << shift
        shift += 8
        i += 1
    v3 ^= word
    for step in range(4):
        v0 += v1; v1 = CACHE_ROTL(v1, 13); v1 ^= v0; v0 = CACHE_ROTL(v0, 32)
        v2 += v3; v3 = CACHE_ROTL(v3, 16); v3 ^= v2
        v0 += v3; v3 = CACHE_ROTL(v3, 21); v3 ^= v0
        v2 += v1; v1 = CACHE_ROTL(v1, 17); v1 ^= v2; v2 = CACHE_ROTL(v2, 32)
        if step == 0:
            v0 ^= word
            v2 ^= 0xff
    return v0 ^ v1 ^ v2 ^ v3


cdef uint64_t secret_hash(Slice data) noexcept nogil:
    return siphash13(secret_k0, secret_k1, data.ptr, data.len)


cdef uint64_t secret_hash_tweaked(uint64_t tweak, Slice data) noexcept nogil:
    return siphash13(secret_k0 ^ tweak, secret_k1, data.ptr, data.len)


cdef uint64_t token_hash(Slice token) noexcept nogil:
    cdef char sample[56]
    cdef uint64_t length = <uint64_t>token.len
    if token.len <= 64:
        return secret_hash(token)
    memcpy(sample, &length, 8)
    memcpy(sample + 8, token.ptr + token.len - 32, 32)
    memcpy(sample + 40, token.ptr + (token.len >> 1), 16)
    return siphash13(secret_k0, secret_k1, sample, 56)


cdef uint32_t clock_tick() noexcept nogil:
    return cache_clock_tick()


cdef CacheC* cache_new(Py_ssize_t capacity, uint32_t payload_bytes, cache_drop drop, int hash_bits) noexcept nogil:
    cdef CacheC* cache
    cdef Py_ssize_t buckets = 2
    if capacity < 1 or capacity > (<Py_ssize_t>1 << 32) or payload_bytes % 8 != 0:
        return NULL
    while buckets * 4 < capacity:   # at most four of seven ways in the mean: a full pair of buckets is rare
        buckets *= 2
    cache = <CacheC*>malloc(sizeof(CacheC))
    if cache is NULL:
        return NULL
    memset(cache, 0, sizeof(CacheC))
    cache.buckets = <CacheBucket*>cache_lines(<size_t>buckets * sizeof(CacheBucket))
    if cache.buckets is NULL:
        free(cache)
        return NULL
    cache.bucket_mask = <uint64_t>(buckets - 1)
    cache.hash_mask = ~<uint64_t>0 if hash_bits >= 64 else (<uint64_t>1 << hash_bits) - 1
    cache.capacity = capacity
    cache.payload_bytes = payload_bytes
    cache.drop = drop
    return cache


cdef void cache_free(CacheC* cache) noexcept nogil:
    if cache is NULL:
        return
    cache_clear(cache)
    free(cache.buckets)
    free(cache)


cdef inline size_t entry_size(const CacheEntry* entry) noexcept nogil:
    return sizeof(CacheEntry) + entry.payload_bytes + entry.key_len + entry.extra_len


cdef inline CacheEntry* bucket_unlink(CacheC* cache, CacheBucket* bucket, int way) noexcept nogil:
    """Take an entry out of the table; the caller must hand it to entry_release when the table is whole again."""
    cdef CacheEntry* entry = bucket.entry[way]
    bucket.entry[way] = NULL
    bucket.mark[way] = 0
    cache.count -= 1
    cache.entry_bytes -= <Py_ssize_t>entry_size(entry)
    return entry


cdef inline void entry_release(CacheC* cache, CacheEntry* entry) noexcept nogil:
    # `drop` may run Python code that comes back to this cache: the entry must be unlinked, and nothing half done.
    if entry is NULL:
        return
    if cache.drop is not NULL:
        cache.drop(cache_payload(entry))
    free(entry)
    CACHE_LIVE(-1)


cdef inline int bucket_find(const CacheBucket* bucket, Slice key, uint8_t tag) noexcept nogil:
    """Give the way that holds `key`, or -1."""
    cdef int way
    cdef CacheEntry* entry
    cdef const char* line
    cdef const char* end
    for way in range(CACHE_WAYS):
        if (bucket.mark[way] & 0xfc) != tag or bucket.entry[way] is NULL:
            continue
        entry = bucket.entry[way]
        line = <const char*>entry
        end = line + sizeof(CacheEntry) + key.len + 96
        while line < end:           # a prefetch of a wrong address is harmless
            CACHE_PREFETCH(line)
            line += 64
        if entry.key_len != <uint64_t>key.len:
            continue
        # The payload begins with a pointer where it owns an object: fetch that while the keys are compared.
        CACHE_PREFETCH((<void**>cache_payload(entry))[0])
        if cache_equal(cache_key(entry).ptr, key.ptr, <size_t>key.len):
            return way
    return -1


cdef inline uint8_t tag_of(uint64_t hash) noexcept nogil:
    return <uint8_t>((hash >> 56) & 0xfc)


cdef CacheEntry* cache_find(CacheC* cache, Slice key, uint64_t hash, uint32_t tick) noexcept nogil:
    cdef uint64_t home
    cdef CacheBucket* bucket
    cdef CacheEntry* entry
    cdef int way
    hash &= cache.hash_mask
    home = hash & cache.bucket_mask
    bucket = &cache.buckets[home]
    way = bucket_find(bucket, key, tag_of(hash))
    if way < 0 and bucket.spilled:
        bucket = &cache.buckets[home ^ 1]
        way = bucket_find(bucket, key, tag_of(hash))
    if way < 0:
        cache.misses += 1
        return NULL
    entry = bucket.entry[way]
    if tick >= entry.deadline_tick:
        cache.misses += 1
        entry_release(cache, bucket_unlink(cache, bucket, way))
        return NULL
    if (bucket.mark[way] & 3) < CACHE_HEAT_MAX:
        bucket.mark[way] += 1
    cache.hits += 1
    return entry


cdef inline int bucket_free_way(const CacheBucket* bucket) noexcept nogil:
    cdef int way
    for way in range(CACHE_WAYS):
        if bucket.entry[way] is NULL:
            return way
    return -1


cdef CacheEntry* bucket_evict(CacheC* cache, CacheBucket* bucket) noexcept nogil:
    """Unlink the coldest entry of a full bucket, and let the others cool."""
    cdef int way, coldest = 0
    for way in range(1, CACHE_WAYS):
        if (bucket.mark[way] & 3) < (bucket.mark[coldest] & 3):
            coldest = way
    for way in range(CACHE_WAYS):
        if bucket.mark[way] & 3:
            bucket.mark[way] -= 1
    cache.evictions += 1
    return bucket_unlink(cache, bucket, coldest)


cdef CacheEntry* cache_sweep(CacheC* cache) noexcept nogil:
    """Unlink the first cold entry after the hand, or the coldest of CACHE_SWEEP_MAX; what the hand passes cools.

    Bounded work: whole buckets are looked at until one holds an entry without heat or CACHE_SWEEP_MAX entries were seen.
    Gives NULL for an empty cache only.
    """
    cdef Py_ssize_t buckets_left = <Py_ssize_t>cache.bucket_mask + 1
    cdef CacheBucket* bucket
    cdef CacheBucket* coldest_bucket = NULL
    cdef int coldest_way = 0, coldest_heat = CACHE_HEAT_MAX + 1, seen = 0, way, heat
    while buckets_left > 0 and seen < CACHE_SWEEP_MAX and coldest_heat > 0:
        bucket = &cache.buckets[cache.hand]
        for way in range(CACHE_WAYS):
            if bucket.entry[way] is NULL:
                continue
            seen += 1
            heat = bucket.mark[way] & 3
            if heat < coldest_heat:
                coldest_bucket = bucket
                coldest_way = way
                coldest_heat = heat
        if coldest_heat > 0:        # nothing cold here: this bucket cools
            for way in range(CACHE_WAYS):
                if bucket.mark[way] & 3:
                    bucket.mark[way] -= 1
        cache.hand = (cache.hand + 1) & <Py_ssize_t>cache.bucket_mask
        buckets_left -= 1
    if coldest_bucket is NULL:
        return NULL
    cache.evictions += 1
    return bucket_unlink(cache, coldest_bucket, coldest_way)


cdef int cache_put(
    CacheC* cache, Slice key, uint64_t hash, uint32_t deadline_tick, const void* payload, Slice extra
) noexcept nogil:
    cdef uint64_t home
    cdef CacheBucket* bucket
    cdef CacheBucket* neighbour
    cdef CacheEntry* entry
    cdef CacheEntry* replaced = NULL
    cdef CacheEntry* evicted = NULL
    cdef int way
    if key.len < 0 or key.len > 0x7fffffff or extra.len < 0 or extra.len > 0x7fffffff:
        return -1
    entry = <CacheEntry*>malloc(sizeof(CacheEntry) + cache.payload_bytes + <size_t>key.len + <size_t>extra.len)
    if entry is NULL:
        return -1
    CACHE_LIVE(1)
    entry.key_len = <uint32_t>key.len
    entry.extra_len = <uint32_t>extra.len
    entry.deadline_tick = deadline_tick
    entry.payload_bytes = cache.payload_bytes
    memcpy(cache_payload(entry), payload, cache.payload_bytes)
    memcpy(<char*>cache_key(entry).ptr, key.ptr, <size_t>key.len)
    memcpy(<char*>cache_extra(entry).ptr, extra.ptr, <size_t>extra.len)

    hash &= cache.hash_mask
    home = hash & cache.bucket_mask
    bucket = &cache.buckets[home]
    neighbour = &cache.buckets[home ^ 1]
    way = bucket_find(bucket, key, tag_of(hash))
    if way >= 0:
        replaced = bucket_unlink(cache, bucket, way)
    elif bucket.spilled:
        way = bucket_find(neighbour, key, tag_of(hash))
        if way >= 0:
            replaced = bucket_unlink(cache, neighbour, way)
    way = bucket_free_way(bucket)
    if way < 0:
        way = bucket_free_way(neighbour)
        if way >= 0:
            bucket.spilled = 1
            bucket = neighbour
    if way < 0:
        evicted = bucket_evict(cache, bucket)
        way = bucket_free_way(bucket)
    elif cache.count >= cache.capacity:
        evicted = cache_sweep(cache)
    bucket.entry[way] = entry
    bucket.mark[way] = tag_of(hash)
    cache.count += 1
    cache.entry_bytes += <Py_ssize_t>entry_size(entry)
    entry_release(cache, replaced)
    entry_release(cache, evicted)
    return 0


cdef bint cache_remove(CacheC* cache, Slice key, uint64_t hash) noexcept nogil:
    cdef uint64_t home
    cdef CacheBucket* bucket
    cdef int way
    hash &= cache.hash_mask
    home = hash & cache.bucket_mask
    bucket = &cache.buckets[home]
    way = bucket_find(bucket, key, tag_of(hash))
    if way < 0 and bucket.spilled:
        bucket = &cache.buckets[home ^ 1]
        way = bucket_find(bucket, key, tag_of(hash))
    if way < 0:
        return False
    entry_release(cache, bucket_unlink(cache, bucket, way))
    return True


cdef void cache_clear(CacheC* cache) noexcept nogil:
    cdef Py_ssize_t number
    cdef CacheBucket* bucket
    cdef int way
    for number in range(<Py_ssize_t>cache.bucket_mask + 1):
        bucket = &cache.buckets[number]
        bucket.spilled = 0
        for way in range(CACHE_WAYS):
            if bucket.entry[way] is not NULL:
                entry_release(cache, bucket_unlink(cache, bucket, way))


cdef void drop_object(void* payload) noexcept nogil:
    # Law: caches whose payload is an object are used with the GIL held.
    cache_object_drop(payload)


@cython.final
cdef class ByteCache:
    """A cache from bytes to objects, bounded in number (`entries`) and time (`ttl_s`).

    The coldest of a few entries looked at leaves first; one lookup heats an entry, up to three. Needs the GIL; may be
    used from many threads. `hash_bits` below 64 makes keys collide: for tests.
    """

    def __cinit__(self, Py_ssize_t entries, double ttl_s=0.0, *, int hash_bits=64):
        if entries < 1 or entries > 1 << 31:
            raise ValueError("`entries` must lie between 1 and 2147483648")
        if not 0 <= ttl_s <= 1e8:
            raise ValueError("`ttl_s` must lie between 0 (no end) and 100000000")
        if not 0 <= hash_bits <= 64:
            raise ValueError("`hash_bits` must lie between 0 and 64")
        self.ttl_ticks = <uint32_t>(ttl_s * CACHE_TICKS_PER_S)
        if ttl_s > 0 and self.ttl_ticks == 0:
            self.ttl_ticks = 1
        self.c = cache_new(entries, sizeof(void*), drop_object, hash_bits)
        if self.c is NULL:
            raise MemoryError()

    def __dealloc__(self):
        cache_free(self.c)

    def get(self, bytes key not None, default=None):
        """Return the value kept for exactly `key`, or `default`."""
        cdef Slice name = slice_of(PyBytes_AS_STRING(key), PyBytes_GET_SIZE(key))
        cdef CacheEntry* entry = cache_find(self.c, name, secret_hash(name), clock_tick() + self.skipped_ticks)
        if entry is NULL:
            return default
        return <object>((<void**>cache_payload(entry))[0])

    def put(self, bytes key not None, value):
        """Keep `value` for `key`, in place of an older one."""
        cdef Slice name = slice_of(PyBytes_AS_STRING(key), PyBytes_GET_SIZE(key))
        cdef uint32_t deadline_tick = CACHE_TICK_NEVER
        cdef void* held = <void*>value
        if self.ttl_ticks:
            deadline_tick = clock_tick() + self.skipped_ticks + self.ttl_ticks
        cache_object_hold(held)
        if cache_put(self.c, name, secret_hash(name), deadline_tick, &held, slice_empty()) < 0:
            cache_object_drop(&held)
            raise MemoryError()

    def discard(self, bytes key not None):
        """Forget `key`; True if it was there."""
        cdef Slice name = slice_of(PyBytes_AS_STRING(key), PyBytes_GET_SIZE(key))
        return cache_remove(self.c, name, secret_hash(name))

    def clear(self):
        """Forget everything."""
        cache_clear(self.c)

    def advance(self, double seconds):
        """Move this cache's own clock ahead: for tests."""
        self.skipped_ticks += <uint32_t>(seconds * CACHE_TICKS_PER_S)

    def stats(self):
        """Return counts: entries, capacity, bytes (of the entries), table_bytes, hits, misses, evictions."""
        return {
            "entries": self.c.count,
            "capacity": self.c.capacity,
            "bytes": self.c.entry_bytes,
            "table_bytes": <Py_ssize_t>(self.c.bucket_mask + 1) * <Py_ssize_t>sizeof(CacheBucket),
            "hits": self.c.hits,
            "misses": self.c.misses,
            "evictions": self.c.evictions,
        }

    def __len__(self):
        return self.c.count


def siphash(bytes data not None, Py_ssize_t k0=0, Py_ssize_t k1=0):
    """Return SipHash-1-3 of `data` under the key (`k0`, `k1`): for tests of the function that the caches use."""
    return siphash13(<uint64_t>k0, <uint64_t>k1, PyBytes_AS_STRING(data), PyBytes_GET_SIZE(data))


def live_entries():
    """Return how many entries of all caches are alive, or -1 unless built with PORTCULLIS_DEBUG=1."""
    return cache_live_entries()
