"""Borrowed bytes, and the one place where their bounds are checked.

A `Slice` never frees. Whoever stores one names its owner in a comment beside the field, and keeps the owner alive.
"""

from libc.stdint cimport uint8_t
from libc.string cimport memcmp

cdef struct Slice:
    const char* ptr  # owner: named where the slice is stored
    Py_ssize_t len


cdef inline Slice slice_of(const char* ptr, Py_ssize_t length) noexcept nogil:
    cdef Slice s
    s.ptr = ptr
    s.len = length
    return s


cdef inline Slice slice_empty() noexcept nogil:
    return slice_of(<const char*>b"", 0)


cdef inline Slice slice_sub(Slice s, Py_ssize_t start, Py_ssize_t stop) noexcept nogil:
    """Give `s[start:stop]`; bounds that lie outside are clamped, so the result never leaves `s`."""
    if start < 0:
        start = 0
    if stop > s.len:
        stop = s.len
    if start >= stop:
        return slice_of(s.ptr, 0)
    return slice_of(s.ptr + start, stop - start)


cdef inline int slice_at(Slice s, Py_ssize_t index) noexcept nogil:
    """Give the byte at `index` as 0..255, or -1 outside."""
    if index < 0 or index >= s.len:
        return -1
    return <uint8_t>s.ptr[index]


cdef inline bint slice_equal(Slice a, Slice b) noexcept nogil:
    return a.len == b.len and memcmp(a.ptr, b.ptr, <size_t>a.len) == 0


cdef inline bint slice_equal_lower(Slice a, Slice lower) noexcept nogil:
    """Compare without regard to ASCII case; `lower` must already be lower case."""
    cdef Py_ssize_t i
    cdef uint8_t c
    if a.len != lower.len:
        return False
    for i in range(a.len):
        c = <uint8_t>a.ptr[i]
        if 65 <= c <= 90:
            c = c | 0x20
        if c != <uint8_t>lower.ptr[i]:
            return False
    return True


cdef inline Py_ssize_t slice_find(Slice s, char wanted) noexcept nogil:
    """Give the index of the first `wanted`, or -1."""
    cdef Py_ssize_t i
    for i in range(s.len):
        if s.ptr[i] == wanted:
            return i
    return -1
