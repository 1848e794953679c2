"""HTTP/1.1 as bytes (RFC 9112): response heads, chunked bodies, and what may stand in a header. Pure C on slices."""

from libc.stdint cimport uint8_t, uint32_t, uint64_t

from gateway._native.slice cimport Slice

cdef enum:
    HEAD_BYTES_MAX = 65536          # a response's head, status line and final empty line included
    RESPONSE_HEADERS_MAX = 256      # header lines of one response
    CHUNK_EXTENSION_BYTES_MAX = 4096  # extensions of all chunks of one body; a body of many extensions is an attack
    CHUNK_SIZE_DIGITS_MAX = 15      # hex digits: below 2**60, so that sums never overflow
    TRAILER_BYTES_MAX = 16384       # the trailer section, which is checked and dropped
    LENGTH_DIGITS_MAX = 18          # decimal digits of a content-length: below 2**63

# ORDER HTTP1_ERROR: `PROBLEMS` in http1.pyx has a text for each, in this order (negated).
cdef enum Http1Error:
    HTTP1_OK = 0
    HTTP1_E_STATUS_LINE = -1
    HTTP1_E_VERSION = -2
    HTTP1_E_STATUS = -3
    HTTP1_E_BARE_LF = -4
    HTTP1_E_BARE_CR = -5
    HTTP1_E_HEAD_SIZE = -6
    HTTP1_E_HEADER_COUNT = -7
    HTTP1_E_HEADER_NAME = -8
    HTTP1_E_HEADER_VALUE = -9
    HTTP1_E_FOLDED = -10
    HTTP1_E_LENGTH = -11
    HTTP1_E_LENGTH_REPEATED = -12
    HTTP1_E_TRANSFER_ENCODING = -13
    HTTP1_E_BOTH_FRAMINGS = -14
    HTTP1_E_CHUNK_SIZE = -15
    HTTP1_E_CHUNK_EXTENSION = -16
    HTTP1_E_CHUNK_END = -17
    HTTP1_E_TRAILER = -18
    HTTP1_E_TRAILER_SIZE = -19

cdef enum Framing:
    BODY_NONE = 0       # ends with the head (RFC 9112 §6.3 rules 1 and 2)
    BODY_LENGTH = 1     # rule 6
    BODY_CHUNKED = 2    # rule 4
    BODY_CLOSE = 3      # rule 8: until the connection is closed

cdef struct HeaderLine:
    Slice name          # as it came; owner: the parsed head
    Slice value         # without white space around it; owner: the parsed head

cdef struct Head:
    int status
    int minor           # of the HTTP version: 0 or 1
    int count
    Framing framing
    uint64_t length     # of a BODY_LENGTH
    bint keep_alive     # the connection may be used again, as far as the head says
    HeaderLine line[RESPONSE_HEADERS_MAX]

cdef struct HeadScan:
    # Where a search for the head's end goes on when more bytes come. Zero it before the first call.
    Py_ssize_t scanned
    Py_ssize_t line_start

cdef Py_ssize_t head_scan(const char* data, Py_ssize_t length, HeadScan* scan) noexcept nogil
"""Give the head's length (its empty line included), 0 while more bytes are needed, or a negative Http1Error.

Linear over all calls: `data` must begin with the same bytes each time. What cannot become a head (another protocol, a
bare LF, more than HEAD_BYTES_MAX) is refused as soon as it is seen.
"""

cdef int head_parse(Slice head, bint to_head_request, Head* out) noexcept nogil
"""Parse what head_scan delimited; HTTP1_OK or a negative Http1Error. `out` points into `head`."""

cdef enum ChunkPhase:
    CHUNK_SIZE = 0
    CHUNK_EXTENSION
    CHUNK_SIZE_LF
    CHUNK_DATA
    CHUNK_DATA_CR
    CHUNK_DATA_LF
    CHUNK_TRAILER_START     # at the start of a trailer line
    CHUNK_TRAILER_NAME
    CHUNK_TRAILER_VALUE
    CHUNK_TRAILER_LF
    CHUNK_END_LF
    CHUNK_DONE

cdef struct ChunkState:
    # One chunked body. Zero it before the first call.
    ChunkPhase phase
    uint64_t left           # of the current chunk
    int digits
    int extension_bytes     # of the whole body
    int trailer_bytes

cdef enum ChunkResult:
    CHUNK_MORE = 0          # all of the input is used, the body goes on
    CHUNK_SPAN = 1          # `span` holds data; call again for the rest
    CHUNK_FINISHED = 2      # the body ended at `position`

cdef int chunk_next(ChunkState* state, const char* data, Py_ssize_t length, Py_ssize_t* position, Slice* span) noexcept nogil
"""Step through `data` from `position`; a ChunkResult, or a negative Http1Error after which nothing may follow."""

cdef bint value_is_clean(const char* data, Py_ssize_t length) noexcept nogil
"""True without control bytes (HTAB excepted): nothing that could end a header line or hide in one (RFC 9110 §5.5)."""

cdef bint target_is_clean(const char* data, Py_ssize_t length) noexcept nogil
"""True for visible ASCII only: what may stand in a request line."""

cdef bint token_is_clean(const char* data, Py_ssize_t length) noexcept nogil
"""True for a non-empty token (RFC 9110 §5.6.2)."""

cdef int length_parse(Slice text, uint64_t* out) noexcept nogil
"""A content-length: digits only, LENGTH_DIGITS_MAX of them; HTTP1_OK or HTTP1_E_LENGTH."""

cdef enum:
    NAME_BYTES_MAX = 64     # a longer header name is in no NameTable

cdef enum NameFold:
    NAME_INVALID = -1
    NAME_PLAIN = 0
    NAME_UNDERSCORE = 1     # had at least one `_`, which was folded to `-`

cdef int name_fold(Slice name, char* folded, uint32_t* hashed) noexcept nogil
"""Lower-case `name` into folded[NAME_BYTES_MAX] with `_` as `-`, and hash it; a NameFold.

A name longer than NAME_BYTES_MAX is checked whole, folded and hashed in part.
"""

cdef struct NameEntry:
    uint32_t hashed
    int length              # 0 = free
    int action
    char* name              # owned by the table
    void* shared            # borrowed: the name as a bytes object, owner: the table's `keep`

cdef class NameTable:
    """Header names and what is to be done with them. Immutable once made."""
    cdef NameEntry* entries
    cdef int mask
    cdef list keep
    cdef NameEntry* find(self, const char* folded, Py_ssize_t length, uint32_t hashed) noexcept nogil

cdef str problem_of(int code)
