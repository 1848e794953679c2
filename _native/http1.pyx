# cython: autotestdict=False, auto_pickle=False
"""HTTP/1.1 as bytes: strict where leniency would let two readers see two messages.

Everything that RFC 9112 lets a recipient either repair or refuse is refused: bare LF, folded lines, white space before
the colon, repeated or odd lengths, a length beside a transfer coding. A gateway that repairs guesses.
"""

cimport cython
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from cpython.object cimport PyObject
from libc.stdint cimport uint8_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free
from libc.string cimport memchr, memcmp, memcpy, memset

from gateway._native.slice cimport Slice, slice_empty, slice_equal_lower, slice_of

# ORDER HTTP1_ERROR
PROBLEMS = (
    "",
    "the status line is malformed",
    "the HTTP version is not 1.0 or 1.1",
    "the status is not within 100 to 599",
    "a line ends in a bare LF",
    "a CR stands alone",
    "the head is longer than 65536 bytes",
    "the head has more than 256 header lines",
    "a header name is malformed",
    "a header value has a control byte",
    "a header line is folded",
    "the content-length is malformed",
    "the content-length is repeated",
    "the transfer-encoding is not `chunked`",
    "there are both a content-length and a transfer-encoding",
    "a chunk size is malformed",
    "the chunk extensions are malformed or longer than 4096 bytes",
    "a chunk does not end where its size says",
    "a trailer line is malformed",
    "the trailer section is longer than 16384 bytes",
)


cdef str problem_of(int code):
    return PROBLEMS[-code] if -len(PROBLEMS) < code <= 0 else "unknown problem"


# -- character classes ------------------------------------------------------------------------------------------------

cdef uint8_t FOLD[256]       # tchar (RFC 9110 §5.6.2) in lower case, `_` as `-`; 0 = may not stand in a name
cdef uint8_t HEX[256]        # value of a hex digit, 255 = none

cdef void _fill_tables() noexcept:
    cdef int c
    cdef const char* extra = b"!#$%&'*+-.^`|~"
    memset(FOLD, 0, sizeof(FOLD))
    memset(HEX, 255, sizeof(HEX))
    for c in range(14):
        FOLD[<uint8_t>extra[c]] = <uint8_t>extra[c]
    for c in range(48, 58):
        FOLD[c] = c
        HEX[c] = c - 48
    for c in range(97, 123):
        FOLD[c] = c
        FOLD[c - 32] = c
    for c in range(97, 103):
        HEX[c] = c - 87
        HEX[c - 32] = c - 87
    FOLD[95] = 45

_fill_tables()


cdef inline bint _word_has_control(const char* at) noexcept nogil:
    """True if one of 8 bytes is below 0x20 or is 0x7f; may be True for others too, never False for these."""
    cdef uint64_t x, t
    memcpy(&x, at, 8)
    t = x ^ 0x7F7F7F7F7F7F7F7FULL
    return (
        (((x - 0x2020202020202020ULL) & ~x) | ((t - 0x0101010101010101ULL) & ~t)) & 0x8080808080808080ULL
    ) != 0


cdef bint value_is_clean(const char* data, Py_ssize_t length) noexcept nogil:
    cdef Py_ssize_t i = 0
    cdef uint8_t c
    while i + 8 <= length and not _word_has_control(data + i):
        i += 8
    while i < length:
        c = <uint8_t>data[i]
        if (c < 32 and c != 9) or c == 127:
            return False
        i += 1
    return True


cdef bint target_is_clean(const char* data, Py_ssize_t length) noexcept nogil:
    cdef Py_ssize_t i
    for i in range(length):
        if not 33 <= <uint8_t>data[i] <= 126:
            return False
    return length > 0


cdef bint token_is_clean(const char* data, Py_ssize_t length) noexcept nogil:
    cdef Py_ssize_t i
    for i in range(length):
        if FOLD[<uint8_t>data[i]] == 0:
            return False
    return length > 0


cdef int length_parse(Slice text, uint64_t* out) noexcept nogil:
    cdef Py_ssize_t i
    cdef uint64_t value = 0
    if text.len < 1 or text.len > LENGTH_DIGITS_MAX:
        return HTTP1_E_LENGTH
    for i in range(text.len):
        if not 48 <= text.ptr[i] <= 57:
            return HTTP1_E_LENGTH
        value = value * 10 + <uint64_t>(text.ptr[i] - 48)
    out[0] = value
    return HTTP1_OK


cdef int name_fold(Slice name, char* folded, uint32_t* hashed) noexcept nogil:
    cdef Py_ssize_t i
    cdef uint8_t c
    cdef uint32_t h = 2166136261U
    cdef int kind = NAME_PLAIN
    if name.len < 1:
        return NAME_INVALID
    for i in range(name.len):
        c = FOLD[<uint8_t>name.ptr[i]]
        if c == 0:
            return NAME_INVALID
        if name.ptr[i] == c'_':
            kind = NAME_UNDERSCORE
        if i < NAME_BYTES_MAX:
            folded[i] = <char>c
            h = (h ^ c) * 16777619U
    hashed[0] = h
    return kind


cdef class NameTable:
    def __cinit__(self, object actions not None):
        """`actions`: header name (bytes, any spelling) -> int above 0."""
        cdef int size = 64
        cdef NameEntry* entry
        cdef char folded[NAME_BYTES_MAX]
        cdef uint32_t hashed
        cdef bytes name
        cdef bytes lower
        while size < 4 * len(actions):
            size *= 2
        self.mask = size - 1
        self.keep = []
        self.entries = <NameEntry*>calloc(size, sizeof(NameEntry))
        if self.entries == NULL:
            raise MemoryError()
        for name, action in actions.items():
            if PyBytes_GET_SIZE(name) > NAME_BYTES_MAX:
                raise ValueError(f"header name longer than {NAME_BYTES_MAX} bytes: `{name.decode('latin-1')}`")
            if name_fold(slice_of(PyBytes_AS_STRING(name), PyBytes_GET_SIZE(name)), folded, &hashed) == NAME_INVALID:
                raise ValueError(f"no header name: `{name.decode('latin-1')}`")
            lower = PyBytes_FromStringAndSize(folded, PyBytes_GET_SIZE(name))
            entry = self.find(folded, PyBytes_GET_SIZE(name), hashed)
            if entry == NULL:
                entry = &self.entries[hashed & <uint32_t>self.mask]
                while entry.length:
                    hashed += 1
                    entry = &self.entries[hashed & <uint32_t>self.mask]
                self.keep.append(lower)
                name_fold(slice_of(PyBytes_AS_STRING(lower), PyBytes_GET_SIZE(lower)), folded, &entry.hashed)
                entry.length = <int>PyBytes_GET_SIZE(lower)
                entry.name = PyBytes_AS_STRING(lower)
                entry.shared = <void*><PyObject*>lower
            entry.action = action

    def __dealloc__(self):
        free(self.entries)

    cdef NameEntry* find(self, const char* folded, Py_ssize_t length, uint32_t hashed) noexcept nogil:
        # INVARIANT: at most a quarter of the slots is used, so the walk ends at a free one.
        cdef uint32_t at = hashed
        cdef NameEntry* entry
        if length > NAME_BYTES_MAX:
            return NULL
        while True:
            entry = &self.entries[at & <uint32_t>self.mask]
            if entry.length == 0:
                return NULL
            if entry.hashed == hashed and entry.length == length and memcmp(entry.name, folded, <size_t>length) == 0:
                return entry
            at += 1


# -- response heads ---------------------------------------------------------------------------------------------------

cdef Py_ssize_t head_scan(const char* data, Py_ssize_t length, HeadScan* scan) noexcept nogil:
    cdef Py_ssize_t limit = length if length < HEAD_BYTES_MAX else HEAD_BYTES_MAX
    cdef Py_ssize_t at
    cdef const char* found
    if memcmp(data, b"HTTP/1.", <size_t>(limit if limit < 7 else 7)) != 0:
        return HTTP1_E_STATUS_LINE
    while scan.scanned < limit:
        found = <const char*>memchr(data + scan.scanned, 10, <size_t>(limit - scan.scanned))
        if found == NULL:
            scan.scanned = limit
            break
        at = found - data
        scan.scanned = at + 1
        if at == 0 or data[at - 1] != 13:
            return HTTP1_E_BARE_LF
        if at - 1 == scan.line_start:
            return at + 1
        scan.line_start = at + 1
    return HTTP1_E_HEAD_SIZE if length >= HEAD_BYTES_MAX else 0


cdef inline Slice _trim(const char* start, const char* stop) noexcept nogil:
    while start < stop and (start[0] == 32 or start[0] == 9):
        start += 1
    while stop > start and (stop[-1] == 32 or stop[-1] == 9):
        stop -= 1
    return slice_of(start, stop - start)


cdef int _status_line(Slice line, Head* out) noexcept nogil:
    """`HTTP/1.1 200 OK`; a missing space after the status (RFC 9112 §4 asks for it) leaves nothing to guess."""
    cdef int i
    if line.len < 12 or memcmp(line.ptr, b"HTTP/1.", 7) != 0 or line.ptr[8] != 32:
        return HTTP1_E_STATUS_LINE
    if line.ptr[7] != c'0' and line.ptr[7] != c'1':
        return HTTP1_E_VERSION
    out.minor = line.ptr[7] - 48
    out.status = 0
    for i in range(9, 12):
        if not 48 <= line.ptr[i] <= 57:
            return HTTP1_E_STATUS_LINE
        out.status = out.status * 10 + (line.ptr[i] - 48)
    if line.len > 12 and line.ptr[12] != 32:
        return HTTP1_E_STATUS_LINE
    if not 100 <= out.status <= 599:
        return HTTP1_E_STATUS
    if not value_is_clean(line.ptr + 12, line.len - 12):
        return HTTP1_E_BARE_CR if memchr(line.ptr + 12, 13, <size_t>(line.len - 12)) != NULL else HTTP1_E_STATUS_LINE
    return HTTP1_OK


cdef int _connection(Slice value, bint* close, bint* keep) noexcept nogil:
    cdef const char* at = value.ptr
    cdef const char* stop = value.ptr + value.len
    cdef const char* comma
    cdef Slice option
    while at < stop:
        comma = <const char*>memchr(at, c',', <size_t>(stop - at))
        if comma == NULL:
            comma = stop
        option = _trim(at, comma)
        if slice_equal_lower(option, slice_of(b"close", 5)):
            close[0] = True
        elif slice_equal_lower(option, slice_of(b"keep-alive", 10)):
            keep[0] = True
        at = comma + 1
    return HTTP1_OK


cdef int head_parse(Slice head, bint to_head_request, Head* out) noexcept nogil:
    # head_scan has proven: every LF in `head` has its CR before it, and the last line is empty.
    cdef const char* at = head.ptr
    cdef const char* stop = head.ptr + head.len - 2      # before the empty line
    cdef const char* end
    cdef const char* colon
    cdef HeaderLine* line
    cdef bint chunked = False
    cdef bint measured = False
    cdef bint close = False
    cdef bint keep = False
    cdef int code
    out.count = 0
    out.length = 0
    end = <const char*>memchr(at, 10, <size_t>(stop - at))
    if end == NULL:
        return HTTP1_E_STATUS_LINE
    code = _status_line(slice_of(at, end - 1 - at), out)
    if code < 0:
        return code
    at = end + 1
    while at < stop:
        end = <const char*>memchr(at, 10, <size_t>(stop - at))
        if end == NULL:
            return HTTP1_E_BARE_LF
        if at[0] == 32 or at[0] == 9:
            return HTTP1_E_FOLDED
        colon = <const char*>memchr(at, c':', <size_t>(end - at))
        if colon == NULL or not token_is_clean(at, colon - at):
            return HTTP1_E_HEADER_NAME
        if out.count == RESPONSE_HEADERS_MAX:
            return HTTP1_E_HEADER_COUNT
        line = &out.line[out.count]
        out.count += 1
        line.name = slice_of(at, colon - at)
        line.value = _trim(colon + 1, end - 1)
        if not value_is_clean(line.value.ptr, line.value.len):
            return HTTP1_E_BARE_CR if memchr(line.value.ptr, 13, <size_t>line.value.len) != NULL else HTTP1_E_HEADER_VALUE
        at = end + 1
        if line.name.len == 14 and slice_equal_lower(line.name, slice_of(b"content-length", 14)):
            if measured:
                return HTTP1_E_LENGTH_REPEATED
            measured = True
            code = length_parse(line.value, &out.length)
            if code < 0:
                return code
        elif line.name.len == 17 and slice_equal_lower(line.name, slice_of(b"transfer-encoding", 17)):
            if chunked or not slice_equal_lower(line.value, slice_of(b"chunked", 7)):
                return HTTP1_E_TRANSFER_ENCODING
            chunked = True
        elif line.name.len == 10 and slice_equal_lower(line.name, slice_of(b"connection", 10)):
            _connection(line.value, &close, &keep)
    if chunked and measured:
        return HTTP1_E_BOTH_FRAMINGS
    if chunked and out.minor == 0:
        return HTTP1_E_TRANSFER_ENCODING    # RFC 9112 §6.1: faulty framing in an HTTP/1.0 message
    out.keep_alive = not close and (out.minor == 1 or keep)
    if to_head_request or out.status < 200 or out.status == 204 or out.status == 304:
        out.framing = BODY_NONE
    elif chunked:
        out.framing = BODY_CHUNKED
    elif measured:
        out.framing = BODY_LENGTH if out.length else BODY_NONE
    else:
        out.framing = BODY_CLOSE
        out.keep_alive = False
    return HTTP1_OK


# -- chunked bodies ---------------------------------------------------------------------------------------------------

cdef int chunk_next(
    ChunkState* state, const char* data, Py_ssize_t length, Py_ssize_t* position, Slice* span
) noexcept nogil:
    cdef Py_ssize_t at = position[0]
    cdef Py_ssize_t size
    cdef uint8_t c
    cdef uint8_t digit
    while at < length:
        if state.phase == CHUNK_DATA:
            size = length - at
            if <uint64_t>size > state.left:
                size = <Py_ssize_t>state.left
            span[0] = slice_of(data + at, size)
            state.left -= <uint64_t>size
            if state.left == 0:
                state.phase = CHUNK_DATA_CR
            position[0] = at + size
            return CHUNK_SPAN
        c = <uint8_t>data[at]
        at += 1
        if state.phase == CHUNK_SIZE:
            digit = HEX[c]
            if digit != 255:
                state.digits += 1
                if state.digits > CHUNK_SIZE_DIGITS_MAX:
                    return HTTP1_E_CHUNK_SIZE
                state.left = (state.left << 4) | digit
            elif state.digits == 0:
                return HTTP1_E_CHUNK_SIZE
            elif c == 13:
                state.phase = CHUNK_SIZE_LF
            elif c == c';':
                state.phase = CHUNK_EXTENSION
            else:
                return HTTP1_E_CHUNK_SIZE
        elif state.phase == CHUNK_EXTENSION:
            if c == 13:
                state.phase = CHUNK_SIZE_LF
            elif (c < 32 and c != 9) or c == 127:
                return HTTP1_E_CHUNK_EXTENSION
            else:
                state.extension_bytes += 1
                if state.extension_bytes > CHUNK_EXTENSION_BYTES_MAX:
                    return HTTP1_E_CHUNK_EXTENSION
        elif state.phase == CHUNK_SIZE_LF:
            if c != 10:
                return HTTP1_E_BARE_CR
            state.phase = CHUNK_DATA if state.left else CHUNK_TRAILER_START
            state.digits = 0
        elif state.phase == CHUNK_DATA_CR:
            if c != 13:
                return HTTP1_E_CHUNK_END
            state.phase = CHUNK_DATA_LF
        elif state.phase == CHUNK_DATA_LF:
            if c != 10:
                return HTTP1_E_CHUNK_END
            state.phase = CHUNK_SIZE
        elif state.phase == CHUNK_END_LF:
            if c != 10:
                return HTTP1_E_BARE_CR
            state.phase = CHUNK_DONE
            position[0] = at
            return CHUNK_FINISHED
        elif state.phase == CHUNK_DONE:
            position[0] = at - 1
            return CHUNK_FINISHED
        else:
            if state.phase == CHUNK_TRAILER_START and c == 13:
                state.phase = CHUNK_END_LF
                continue
            state.trailer_bytes += 1
            if state.trailer_bytes > TRAILER_BYTES_MAX:
                return HTTP1_E_TRAILER_SIZE
            if state.phase == CHUNK_TRAILER_START:
                if FOLD[c] == 0:
                    return HTTP1_E_TRAILER
                state.phase = CHUNK_TRAILER_NAME
            elif state.phase == CHUNK_TRAILER_NAME:
                if c == c':':
                    state.phase = CHUNK_TRAILER_VALUE
                elif FOLD[c] == 0:
                    return HTTP1_E_TRAILER
            elif state.phase == CHUNK_TRAILER_VALUE:
                if c == 13:
                    state.phase = CHUNK_TRAILER_LF
                elif (c < 32 and c != 9) or c == 127:
                    return HTTP1_E_TRAILER
            else:
                if c != 10:
                    return HTTP1_E_BARE_CR
                state.phase = CHUNK_TRAILER_START
    position[0] = at
    return CHUNK_FINISHED if state.phase == CHUNK_DONE else CHUNK_MORE


# -- the Python face, for tests and fuzzing ---------------------------------------------------------------------------

class Malformed(ValueError):
    """Bytes that are no HTTP/1.1 message, or one that could be read in two ways."""


_FRAMINGS = ("none", "length", "chunked", "close")

cdef bytes _bytes(Slice s):
    return PyBytes_FromStringAndSize(s.ptr, s.len)


def parse_response_head(bytes data not None, bint to_head_request=False):
    """Return (status, headers, framing, length, keep_alive, head's size), or None while bytes are missing."""
    cdef HeadScan scan
    cdef Head head
    cdef int i
    cdef Py_ssize_t size
    cdef int code = HTTP1_OK
    cdef Slice text = slice_of(PyBytes_AS_STRING(data), PyBytes_GET_SIZE(data))
    memset(&scan, 0, sizeof(scan))
    with nogil:
        size = head_scan(text.ptr, text.len, &scan)
        if size > 0:
            code = head_parse(slice_of(text.ptr, size), to_head_request, &head)
    if size < 0:
        raise Malformed(problem_of(<int>size))
    if size == 0:
        return None
    if code < 0:
        raise Malformed(problem_of(code))
    headers = [(_bytes(head.line[i].name).lower(), _bytes(head.line[i].value)) for i in range(head.count)]
    return head.status, headers, _FRAMINGS[<int>head.framing], head.length, bool(head.keep_alive), size


cdef class HeadScanner:
    """Find the end of a head that comes in pieces."""

    cdef HeadScan scan
    cdef bytearray held

    def __cinit__(self):
        memset(&self.scan, 0, sizeof(HeadScan))
        self.held = bytearray()

    def feed(self, bytes data not None):
        """Return the head's size once its end is there, else 0. Raises Malformed."""
        cdef Py_ssize_t size
        cdef char* held
        self.held += data
        held = self.held
        size = head_scan(held, len(self.held), &self.scan)
        if size < 0:
            raise Malformed(problem_of(<int>size))
        return size


cdef class ChunkedDecoder:
    """Decode one chunked body that comes in pieces (RFC 9112 §7.1)."""

    cdef ChunkState state
    cdef int broken

    def __cinit__(self):
        memset(&self.state, 0, sizeof(ChunkState))

    @property
    def finished(self):
        return self.state.phase == CHUNK_DONE

    def feed(self, bytes data not None):
        """Return (decoded bytes, number of input bytes that belong to the body). Raises Malformed."""
        cdef Py_ssize_t position = 0
        cdef Slice span = slice_empty()
        cdef int code = self.broken
        cdef list spans = []
        while code >= 0:
            code = chunk_next(&self.state, PyBytes_AS_STRING(data), PyBytes_GET_SIZE(data), &position, &span)
            if code != CHUNK_SPAN:
                break
            spans.append(_bytes(span))
        if code < 0:
            self.broken = code
            raise Malformed(problem_of(code))
        return b"".join(spans), position


def fold_name(bytes name not None):
    """Return a header name as filters compare it, or None for what is no name."""
    cdef char folded[NAME_BYTES_MAX]
    cdef uint32_t hashed
    if name_fold(slice_of(PyBytes_AS_STRING(name), PyBytes_GET_SIZE(name)), folded, &hashed) == NAME_INVALID:
        return None
    return PyBytes_FromStringAndSize(folded, min(PyBytes_GET_SIZE(name), NAME_BYTES_MAX))


def is_clean_value(bytes value not None):
    """True if the bytes may stand in a header's value: no control byte but HTAB."""
    return bool(value_is_clean(PyBytes_AS_STRING(value), PyBytes_GET_SIZE(value)))
