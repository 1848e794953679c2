"""Bounded TTL caches in C, keyed by the full bytes under a secret SipHash."""

from libc.stdint cimport int64_t, uint32_t, uint64_t

from gateway._native.slice cimport Slice

cdef uint64_t siphash13(uint64_t k0, uint64_t k1, const char* data, Py_ssize_t length) noexcept nogil
"""SipHash-1-3 of `data` (Aumasson and Bernstein, 2012; one compression round a word, three at the end)."""

cdef uint64_t secret_hash(Slice data) noexcept nogil
"""SipHash-1-3 under a key drawn from os.urandom when the module loads: nobody outside can aim for a collision."""
