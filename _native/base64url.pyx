# cython: autotestdict=False
"""Strict base64url (RFC 4648 §5): one value has one spelling, everything else is refused.

The decoders themselves are in `base64url_simd.h`; this file owns the bounds, the choice between them, and the Python
face.
"""

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE

cdef extern from "base64url_simd.h" nogil:
    enum:
        B64_SCALAR
        B64_AVX2
        B64_VBMI
        B64_WAYS
    void b64_prepare() noexcept
    bint b64_available(int way) noexcept
    bint b64_run(int way, const unsigned char* source, Py_ssize_t length, unsigned char* target) noexcept


cdef int _way = B64_SCALAR  # INVARIANT: always one that b64_available; set once, below


cdef Py_ssize_t b64_decoded_size(Py_ssize_t encoded_len) noexcept nogil:
    cdef Py_ssize_t rest = encoded_len & 3
    if encoded_len < 0 or rest == 1:
        return -1
    return (encoded_len >> 2) * 3 + (rest - 1 if rest else 0)


cdef Py_ssize_t b64_decode(
    const char* source, Py_ssize_t source_len, unsigned char* target, Py_ssize_t capacity
) noexcept nogil:
    return _decode(_way, source, source_len, target, capacity)


cdef inline Py_ssize_t _decode(
    int way, const char* source, Py_ssize_t source_len, unsigned char* target, Py_ssize_t capacity
) noexcept nogil:
    cdef Py_ssize_t size = b64_decoded_size(source_len)
    if size < 0 or size > capacity:
        return -1
    if not b64_run(way, <const unsigned char*>source, source_len, target):
        return -1
    return size


cdef bytes _decode_bytes(int way, bytes data):
    cdef Py_ssize_t size = b64_decoded_size(PyBytes_GET_SIZE(data))
    cdef bytes target
    cdef unsigned char* room
    if size < 0:
        raise ValueError("not canonical base64url: no text has this length")
    target = PyBytes_FromStringAndSize(NULL, size)
    room = <unsigned char*>PyBytes_AS_STRING(target)
    if _decode(way, PyBytes_AS_STRING(data), PyBytes_GET_SIZE(data), room, size) < 0:
        raise ValueError("not canonical base64url")
    return target


def decode(bytes data not None):
    """Return the bytes that canonical, unpadded base64url stands for.

    Raises ValueError for a byte outside the alphabet (also `=` and white space), a length of 1 modulo 4, or trailing
    bits that are not zero. RFC 4648 §5, §3.5; RFC 7515 §2 ("with all trailing '=' characters omitted").
    """
    return _decode_bytes(_way, data)


def decode_with(str name not None, bytes data not None):
    """Return `decode(data)` by the implementation `name`, one of IMPLEMENTATIONS; for tests and benchmarks."""
    if name not in IMPLEMENTATIONS:
        raise LookupError(f"no implementation `{name}` on this machine")
    return _decode_bytes(_NAMES.index(name), data)


_NAMES = ("scalar", "avx2", "avx512vbmi")  # by B64_ number
b64_prepare()
IMPLEMENTATIONS = tuple([name for way, name in enumerate(_NAMES) if b64_available(way)])
_way = _NAMES.index(IMPLEMENTATIONS[len(IMPLEMENTATIONS) - 1])
IMPLEMENTATION = _NAMES[_way]
