# cython: autotestdict=False
"""Lazy claim scan (RFC 8259): check all of a JSON object, keep only the asked members, build no Python objects.

One pass, left to right, by bounded recursion (JSON_DEPTH_MAX). The first fault in that order decides the error; names
are compared when their object closes. Every function that reads takes the place `p` to read at and gives the place
behind what it read, or NULL with `Scan.error` set.

Cost on hostile text is linear in its length: each byte is looked at once, each name is hashed once under a secret, and
an object's names meet in a table of at least twice as many places. No heap, unless more than ROOM members are open at
once or a name with escapes is longer than NAME_BYTES.
"""

import os

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from libc.math cimport isfinite
from libc.stdint cimport INT64_MAX, int64_t, uint8_t, uint16_t, uint32_t, uint64_t
from libc.stdlib cimport free, malloc
from libc.string cimport memcmp, memcpy, memset

from gateway._native.slice cimport Slice, slice_empty, slice_of

cdef extern from "json_scan_text.h" nogil:
    uint64_t js_secret[2]
    const char* js_plain_end(const char* p, const char* end, const char* start) noexcept
    int js_utf8_sequence(const char* p, const char* end) noexcept
    uint32_t js_name_hash(const char* p, Py_ssize_t length) noexcept
    bint js_same_bytes(const char* a, const char* b, Py_ssize_t length) noexcept
    bint js_prepare() noexcept
    double js_double(const char* p, Py_ssize_t length, uint64_t mantissa, int digits, int scale) noexcept

cdef enum:
    NUMBER_CHARS_MAX = 64
    INT_DIGITS_MAX = 19            # what a uint64 surely holds; int64 needs no more
    EXPONENT_CAP = 100_000         # beyond any double; keeps the exponent's own digits from overflowing
    DOUBLE_MAGNITUDE = 309         # the largest double is 0.17976… * 10**309
    ROOM = 128                     # members open at once without the heap
    NAME_BYTES = 256               # a name with escapes that is unescaped without the heap
    TABLE_MIN = 32
    TABLE_MAX = 2 * JSON_MEMBERS_MAX
    BUCKETS = 64

# The first digits of 2**1024 - 2**970, from which on a decimal text rounds to infinity. It has 309 digits, the last of
# them not zero, so a number of at most 64 characters that agrees with its beginning is smaller.
cdef const char* INFINITE_FROM = b"1797693134862315807937289714053034150799341327100378269361737789"

cdef struct Member:
    const char* ptr      # owner: the scanned text; the name as it stands there
    Py_ssize_t len
    uint32_t hash        # of the unescaped name
    bint escaped

cdef struct Scan:
    const char* start    # owner: the caller's text, for the time of the call
    const char* end
    int error
    Member* members      # names of the open objects, outermost first; `room`, or owned here when `capacity` > ROOM
    Py_ssize_t count
    Py_ssize_t capacity
    Member room[ROOM]
    uint16_t table[TABLE_MAX]

cdef struct Asked:
    # The asked names by first and last byte and length: chains of positions in `names`, each plus one; 0 ends a chain.
    const JsonNames* names   # owner: the caller
    JsonValue* out           # owner: the caller
    uint8_t head[BUCKETS]
    uint8_t next[JSON_NAMES_MAX]
    int twice                # how many names were asked before already


# ---- text -----------------------------------------------------------------------------------------------------------


cdef inline const char* _fail(Scan* s, int error) noexcept nogil:
    s.error = error
    return NULL


cdef inline const char* _space(const char* p, const char* end) noexcept nogil:
    """Skip insignificant white space (RFC 8259 §2)."""
    while p < end and <uint8_t>p[0] <= 0x20 and (p[0] == c' ' or p[0] == c'\n' or p[0] == c'\r' or p[0] == c'\t'):
        p += 1
    return p


cdef inline int _hex4(const char* p, const char* end) noexcept nogil:
    """Give the value of four hex digits, or -1."""
    cdef int value = 0
    cdef int i
    cdef uint8_t c
    if end - p < 4:
        return -1
    for i in range(4):
        c = <uint8_t>p[i]
        if c'0' <= c <= c'9':
            value = value * 16 + (c - c'0')
        elif c'a' <= (c | 0x20) <= c'f':
            value = value * 16 + ((c | 0x20) - c'a' + 10)
        else:
            return -1
    return value


cdef int _escape(const char* p, const char* end, unsigned char* target, int* written) noexcept nogil:
    """Read one escape (RFC 8259 §7) at the backslash `p`; give its length in the text, or a negative JsonError.

    `target` gets its UTF-8, at most four bytes.
    """
    cdef int code
    cdef int low
    cdef uint8_t c
    if end - p < 2:
        return JSON_E_SYNTAX
    c = <uint8_t>p[1]
    written[0] = 1
    if c == c'"' or c == c'\\' or c == c'/':
        target[0] = c
        return 2
    if c != c'u':
        if c == c'n':
            target[0] = 0x0A
        elif c == c't':
            target[0] = 0x09
        elif c == c'r':
            target[0] = 0x0D
        elif c == c'b':
            target[0] = 0x08
        elif c == c'f':
            target[0] = 0x0C
        else:
            return JSON_E_SYNTAX
        return 2
    code = _hex4(p + 2, end)
    if code < 0:
        return JSON_E_SYNTAX
    if code < 0x80:
        target[0] = <unsigned char>code
        return 6
    if code < 0x800:
        target[0] = <unsigned char>(0xC0 | code >> 6)
        target[1] = <unsigned char>(0x80 | code & 0x3F)
        written[0] = 2
        return 6
    if code < 0xD800 or code > 0xDFFF:
        target[0] = <unsigned char>(0xE0 | code >> 12)
        target[1] = <unsigned char>(0x80 | code >> 6 & 0x3F)
        target[2] = <unsigned char>(0x80 | code & 0x3F)
        written[0] = 3
        return 6
    # RFC 8259 §8.2 leaves lone surrogates to the reader ("unpredictable"); they name no character, so: refused.
    if code > 0xDBFF or end - p < 8 or p[6] != c'\\' or p[7] != c'u':
        return JSON_E_UTF8
    low = _hex4(p + 8, end)
    if low < 0:
        return JSON_E_SYNTAX
    if low < 0xDC00 or low > 0xDFFF:
        return JSON_E_UTF8
    code = 0x10000 + ((code - 0xD800) << 10) + (low - 0xDC00)
    target[0] = <unsigned char>(0xF0 | code >> 18)
    target[1] = <unsigned char>(0x80 | code >> 12 & 0x3F)
    target[2] = <unsigned char>(0x80 | code >> 6 & 0x3F)
    target[3] = <unsigned char>(0x80 | code & 0x3F)
    written[0] = 4
    return 12


cdef inline const char* _string(Scan* s, const char* p, Slice* raw, bint* escaped) noexcept nogil:
    """Check a string from behind its opening quote; give the place behind the closing one."""
    cdef const char* begin = p
    cdef unsigned char unused[4]
    cdef int written
    cdef int step
    escaped[0] = False
    while True:
        p = js_plain_end(p, s.end, s.start)
        if p == s.end:
            return _fail(s, JSON_E_SYNTAX)
        if p[0] == c'"':
            raw[0] = slice_of(begin, p - begin)
            return p + 1
        if p[0] == c'\\':
            step = _escape(p, s.end, unused, &written)
            if step < 0:
                return _fail(s, step)
            escaped[0] = True
        elif <uint8_t>p[0] < 0x20:
            # "All Unicode characters may be placed within the quotation marks, except for the characters that MUST be
            # escaped: […] the control characters (U+0000 through U+001F)" (RFC 8259 §7).
            return _fail(s, JSON_E_SYNTAX)
        else:
            step = js_utf8_sequence(p, s.end)
            if step == 0:
                return _fail(s, JSON_E_UTF8)
        p += step


cdef Py_ssize_t json_unescape(Slice raw, char* target, Py_ssize_t capacity) noexcept nogil:
    cdef const char* p = raw.ptr
    cdef const char* end = raw.ptr + raw.len
    cdef const char* run
    cdef unsigned char piece[4]
    cdef Py_ssize_t length = 0
    cdef int written
    cdef int step
    while p < end:
        run = p
        while p < end and p[0] != c'\\':
            p += 1
        if p - run > capacity - length:
            return -1
        memcpy(target + length, run, p - run)
        length += p - run
        if p == end:
            break
        step = _escape(p, end, piece, &written)
        if step < 0 or written > capacity - length:
            return -1
        memcpy(target + length, piece, written)
        length += written
        p += step
    return length


# ---- numbers --------------------------------------------------------------------------------------------------------


cdef bint _is_finite(const char* p, const char* stop, int exponent) noexcept nogil:
    """Tell whether the mantissa p[0:stop] (at most 64 characters, checked) times 10**exponent is a finite double.

    Decided on the decimal digits, so that nobody can make a scan slow with numbers that need a long conversion.
    """
    cdef char digits[NUMBER_CHARS_MAX]
    cdef int count = 0
    cdef int magnitude = exponent   # the value is 0.d1d2d3… * 10**magnitude with d1 != 0
    cdef bint fraction = False
    while p < stop:
        if p[0] == c'.':
            fraction = True
        elif p[0] != c'-':
            if count > 0 or p[0] != c'0':
                digits[count] = p[0]
                count += 1
                if not fraction:
                    magnitude += 1
            elif fraction:
                magnitude -= 1
        p += 1
    if count == 0 or magnitude < DOUBLE_MAGNITUDE:
        return True
    return magnitude == DOUBLE_MAGNITUDE and memcmp(digits, INFINITE_FROM, count) <= 0


cdef const char* _number(Scan* s, const char* p, JsonValue* value) noexcept nogil:
    """Check a number (RFC 8259 §6) and convert it where `value` is not NULL."""
    cdef const char* begin = p
    cdef const char* end = s.end
    cdef const char* stop        # of the mantissa
    cdef const char* first
    cdef uint64_t mantissa = 0   # wraps beyond INT_DIGITS_MAX digits, and is not used then
    cdef int digits
    cdef int exponent = 0
    cdef int scale = 0
    cdef bint negative = p[0] == c'-'
    cdef bint down = False
    cdef bint whole = True
    if negative:
        p += 1
    first = p
    while p < end and c'0' <= p[0] <= c'9':
        mantissa = mantissa * 10 + <uint64_t>(p[0] - c'0')
        p += 1
    # "Leading zeros are not allowed" (RFC 8259 §6).
    if p == first or (first[0] == c'0' and p - first > 1):
        return _fail(s, JSON_E_SYNTAX)
    digits = <int>(p - first) if p - first <= NUMBER_CHARS_MAX else NUMBER_CHARS_MAX + 1
    if p < end and p[0] == c'.':
        whole = False
        p += 1
        first = p
        while p < end and c'0' <= p[0] <= c'9':
            mantissa = mantissa * 10 + <uint64_t>(p[0] - c'0')
            p += 1
        if p == first:
            return _fail(s, JSON_E_SYNTAX)
        scale = -(<int>(p - first) if p - first <= NUMBER_CHARS_MAX else NUMBER_CHARS_MAX + 1)
        digits -= scale
    stop = p
    if p < end and (p[0] | 0x20) == c'e':
        whole = False
        p += 1
        if p < end and (p[0] == c'+' or p[0] == c'-'):
            down = p[0] == c'-'
            p += 1
        first = p
        while p < end and c'0' <= p[0] <= c'9':
            if exponent < EXPONENT_CAP:
                exponent = exponent * 10 + (p[0] - c'0')
            p += 1
        if p == first:
            return _fail(s, JSON_E_SYNTAX)
        if down:
            exponent = -exponent
    if p - begin > NUMBER_CHARS_MAX:
        return _fail(s, JSON_E_NUMBER)
    # Without an exponent 64 characters stay far below the largest double.
    if exponent > 0 and not _is_finite(begin, stop, exponent):
        return _fail(s, JSON_E_NUMBER)
    if value == NULL:
        return p
    value.raw = slice_of(begin, p - begin)
    if whole and digits <= INT_DIGITS_MAX and mantissa <= <uint64_t>INT64_MAX + <uint64_t>negative:
        value.kind = JSON_INT
        # Unsigned negation, since -2**63 has no positive twin.
        value.integer = <int64_t>(0 - mantissa) if negative else <int64_t>mantissa
        value.number = <double>value.integer
        return p
    value.kind = JSON_DOUBLE
    value.number = js_double(begin, p - begin, mantissa, digits, scale + exponent)
    if not isfinite(value.number):
        return _fail(s, JSON_E_NUMBER)
    return p


# ---- names ----------------------------------------------------------------------------------------------------------


cdef inline int _bucket(const char* p, Py_ssize_t length) noexcept nogil:
    if length == 0:
        return 0
    return (<int>(length & 63) * 11 + <uint8_t>p[0] + 3 * <uint8_t>p[length - 1]) & (BUCKETS - 1)


cdef void _ask(Asked* asked, const JsonNames* names, JsonValue* out) noexcept nogil:
    """File the asked names; one that was asked before is left out and counted."""
    cdef int i
    cdef int bucket
    asked.names = names
    asked.out = out
    asked.twice = 0
    memset(asked.head, 0, sizeof(asked.head))
    for i in range(names.count):
        if _find_asked(asked, names.name[i].ptr, names.name[i].len) >= 0:
            asked.twice += 1
            continue
        bucket = _bucket(names.name[i].ptr, names.name[i].len)
        asked.next[i] = asked.head[bucket]
        asked.head[bucket] = <uint8_t>(i + 1)


cdef inline int _find_asked(const Asked* asked, const char* p, Py_ssize_t length) noexcept nogil:
    """Give the position of an unescaped name among the asked ones, or -1."""
    cdef int i = asked.head[_bucket(p, length)]
    while i != 0:
        i -= 1
        if asked.names.name[i].len == length and js_same_bytes(asked.names.name[i].ptr, p, length):
            return i
        i = asked.next[i]
    return -1


cdef bint _grow(Scan* s) noexcept nogil:
    """Move the open members to twice the room. False where there is no memory."""
    cdef Member* wider = <Member*>malloc(<size_t>s.capacity * 2 * sizeof(Member))
    if wider == NULL:
        return False
    memcpy(wider, s.members, <size_t>s.count * sizeof(Member))
    if s.capacity > ROOM:
        free(s.members)
    s.members = wider
    s.capacity *= 2
    return True


cdef bint _hash_escaped(Slice name, const Asked* asked, uint32_t* hash, int* found) noexcept nogil:
    """Hash and look up a name that holds escapes. False where there is no memory for a long one."""
    cdef char small[NAME_BYTES]
    cdef char* plain = small
    cdef Py_ssize_t length
    if name.len > NAME_BYTES:
        plain = <char*>malloc(<size_t>name.len)
        if plain == NULL:
            return False
    length = json_unescape(name, plain, name.len)
    hash[0] = js_name_hash(plain, length)
    if asked != NULL:
        found[0] = _find_asked(asked, plain, length)
    if plain != small:
        free(plain)
    return True


cdef inline bint _keep_name(Scan* s, Slice name, bint escaped, const Asked* asked, int* found) noexcept nogil:
    """Add a name to those of the open object; `found` gets its position among the asked ones, or -1.

    False where there is no memory.
    """
    cdef Member* member
    found[0] = -1
    if s.count == s.capacity and not _grow(s):
        return False
    member = &s.members[s.count]
    member.ptr = name.ptr
    member.len = name.len
    member.escaped = escaped
    s.count += 1
    if escaped:
        return _hash_escaped(name, asked, &member.hash, found)
    member.hash = js_name_hash(name.ptr, name.len)
    if asked != NULL:
        found[0] = _find_asked(asked, name.ptr, name.len)
    return True


cdef bint _same_escaped(const Member* a, const Member* b) noexcept nogil:
    """Tell whether two names are equal once unescaped, a piece at a time."""
    cdef const char* p = a.ptr
    cdef const char* q = b.ptr
    cdef const char* p_end = a.ptr + a.len
    cdef const char* q_end = b.ptr + b.len
    cdef unsigned char one[4]
    cdef unsigned char other[4]
    cdef int one_len = 0
    cdef int other_len = 0
    cdef int one_at = 0
    cdef int other_at = 0
    while True:
        if one_at == one_len:
            if p == p_end:
                return other_at == other_len and q == q_end
            p += _piece(p, p_end, one, &one_len)
            one_at = 0
        if other_at == other_len:
            if q == q_end:
                return False
            q += _piece(q, q_end, other, &other_len)
            other_at = 0
        if one[one_at] != other[other_at]:
            return False
        one_at += 1
        other_at += 1


cdef inline int _piece(const char* p, const char* end, unsigned char* piece, int* length) noexcept nogil:
    """Give the next byte, or the bytes of the next escape, of a checked string, and how far they reach in the text."""
    if p[0] == c'\\':
        return _escape(p, end, piece, length)
    piece[0] = <unsigned char>p[0]
    length[0] = 1
    return 1


cdef inline bint _same_name(const Member* a, const Member* b) noexcept nogil:
    if a.hash != b.hash:
        return False
    if a.escaped or b.escaped:
        return _same_escaped(a, b)
    return a.len == b.len and js_same_bytes(a.ptr, b.ptr, a.len)


cdef bint _has_duplicate(Scan* s, Py_ssize_t base) noexcept nogil:
    """Tell whether two names of the innermost open object, members[base:count], are equal."""
    cdef const Member* members = s.members + base
    cdef int count = <int>(s.count - base)   # at most JSON_MEMBERS_MAX, so the table is at most half full
    cdef int size = TABLE_MIN
    cdef int i
    cdef uint32_t place
    while size < 2 * count:
        size *= 2
    memset(s.table, 0, <size_t>size * sizeof(uint16_t))
    for i in range(count):
        place = members[i].hash & <uint32_t>(size - 1)
        while s.table[place] != 0:
            if _same_name(&members[s.table[place] - 1], &members[i]):
                return True
            place = (place + 1) & <uint32_t>(size - 1)
        s.table[place] = <uint16_t>(i + 1)
    return False


# ---- values ---------------------------------------------------------------------------------------------------------


cdef inline const char* _literal(
    Scan* s, const char* p, const char* word, Py_ssize_t length, JsonKind kind, JsonValue* value
) noexcept nogil:
    if s.end - p < length or memcmp(p, word, length) != 0:
        return _fail(s, JSON_E_SYNTAX)
    if value != NULL:
        value.kind = kind
        value.raw = slice_of(p, length)
    return p + length


cdef const char* _value(Scan* s, const char* p, int depth, JsonValue* value) noexcept nogil:
    """Check one value inside `depth` arrays and objects; fill `value` where it is not NULL."""
    cdef const char* begin = p
    cdef Slice raw
    cdef bint escaped
    cdef char c
    if p == s.end:
        return _fail(s, JSON_E_SYNTAX)
    c = p[0]
    if c == c'"':
        p = _string(s, p + 1, &raw, &escaped)
        if p != NULL and value != NULL:
            value.kind = JSON_STRING
            value.escaped = escaped
            value.raw = raw
        return p
    if c == c'-' or c'0' <= c <= c'9':
        return _number(s, p, value)
    if c == c'{' or c == c'[':
        if depth == JSON_DEPTH_MAX:
            return _fail(s, JSON_E_DEPTH)
        p = _object(s, p + 1, depth + 1, NULL) if c == c'{' else _array(s, p + 1, depth + 1)
        if p != NULL and value != NULL:
            value.kind = JSON_OBJECT if c == c'{' else JSON_ARRAY
            value.raw = slice_of(begin, p - begin)
        return p
    if c == c't':
        return _literal(s, p, b"true", 4, JSON_TRUE, value)
    if c == c'f':
        return _literal(s, p, b"false", 5, JSON_FALSE, value)
    if c == c'n':
        return _literal(s, p, b"null", 4, JSON_NULL, value)
    return _fail(s, JSON_E_SYNTAX)


cdef const char* _array(Scan* s, const char* p, int depth) noexcept nogil:
    """Check an array from behind its bracket."""
    cdef const char* end = s.end
    p = _space(p, end)
    if p < end and p[0] == c']':
        return p + 1
    while True:
        p = _value(s, p, depth, NULL)
        if p == NULL:
            return NULL
        p = _space(p, end)
        if p == end:
            return _fail(s, JSON_E_SYNTAX)
        if p[0] == c']':
            return p + 1
        if p[0] != c',':
            return _fail(s, JSON_E_SYNTAX)
        p = _space(p + 1, end)


cdef const char* _object(Scan* s, const char* p, int depth, const Asked* asked) noexcept nogil:
    """Check an object from behind its brace; fill what is asked of it where `asked` is not NULL."""
    cdef const char* end = s.end
    cdef Py_ssize_t base = s.count
    cdef Slice name
    cdef bint escaped
    cdef int found
    p = _space(p, end)
    if p < end and p[0] == c'}':
        return p + 1
    while True:
        if p == end or p[0] != c'"':
            return _fail(s, JSON_E_SYNTAX)
        p = _string(s, p + 1, &name, &escaped)
        if p == NULL:
            return NULL
        if s.count - base == JSON_MEMBERS_MAX:
            return _fail(s, JSON_E_MEMBERS)
        if not _keep_name(s, name, escaped, asked, &found):
            # No memory for that many names is the same to the caller as too many of them.
            return _fail(s, JSON_E_MEMBERS)
        p = _space(p, end)
        if p == end or p[0] != c':':
            return _fail(s, JSON_E_SYNTAX)
        p = _space(p + 1, end)
        p = _value(s, p, depth, &asked.out[found] if found >= 0 else NULL)
        if p == NULL:
            return NULL
        p = _space(p, end)
        if p == end:
            return _fail(s, JSON_E_SYNTAX)
        if p[0] == c'}':
            break
        if p[0] != c',':
            return _fail(s, JSON_E_SYNTAX)
        p = _space(p + 1, end)
    if s.count - base > 1 and _has_duplicate(s, base):
        return _fail(s, JSON_E_DUPLICATE)
    s.count = base
    return p + 1


cdef inline void _open(Scan* s, Slice text) noexcept nogil:
    s.start = text.ptr
    s.end = text.ptr + text.len
    s.error = JSON_OK
    s.members = s.room
    s.count = 0
    s.capacity = ROOM


cdef inline void _close(Scan* s) noexcept nogil:
    if s.capacity > ROOM:
        free(s.members)


# ---- what json_scan.pxd offers --------------------------------------------------------------------------------------


cdef void _fill_twice(const Asked* asked) noexcept nogil:
    """Give each name that was asked before the value of its first asking."""
    cdef const JsonNames* names = asked.names
    cdef int i
    cdef int first
    for i in range(names.count):
        first = _find_asked(asked, names.name[i].ptr, names.name[i].len)
        if first != i:
            asked.out[i] = asked.out[first]


cdef int json_scan_object(Slice text, const JsonNames* names, JsonValue* out) noexcept nogil:
    cdef Scan s
    cdef Asked asked
    cdef const char* p
    cdef bint is_object
    if names.count < 0 or names.count > JSON_NAMES_MAX:
        return JSON_E_MEMBERS
    memset(out, 0, <size_t>names.count * sizeof(JsonValue))   # JSON_ABSENT is 0
    _open(&s, text)
    p = _space(s.start, s.end)
    is_object = p < s.end and p[0] == c'{'
    if is_object:
        _ask(&asked, names, out)
        p = _object(&s, p + 1, 1, &asked)
    else:
        p = _value(&s, p, 0, NULL)
    if p != NULL and _space(p, s.end) != s.end:
        s.error = JSON_E_SYNTAX
    _close(&s)
    if s.error != JSON_OK:
        return s.error
    if not is_object:
        return JSON_E_NOT_OBJECT
    if asked.twice > 0:
        _fill_twice(&asked)
    return JSON_OK


cdef int json_array_next(Slice* rest, JsonValue* item) noexcept nogil:
    # Between two calls `rest` begins with the `,` or `]` behind the last item, before the first with the array's `[`.
    cdef Scan s
    cdef const char* p = rest.ptr
    if rest.len < 1:
        return JSON_E_SYNTAX
    _open(&s, rest[0])
    memset(item, 0, sizeof(JsonValue))
    if p[0] == c'[':
        p = _space(p + 1, s.end)
        if p < s.end and p[0] == c']':
            rest[0] = slice_of(p, s.end - p)
    elif p[0] == c',':
        p = _space(p + 1, s.end)
    elif p[0] != c']':
        return JSON_E_SYNTAX
    if rest.ptr[0] == c']':
        return 0 if rest.len == 1 else JSON_E_SYNTAX
    p = _value(&s, p, 1, item)
    if p != NULL:
        p = _space(p, s.end)
        rest[0] = slice_of(p, s.end - p)
    _close(&s)
    return 1 if s.error == JSON_OK else s.error


# ---- the Python face ------------------------------------------------------------------------------------------------

KINDS = ("absent", "null", "false", "true", "int", "double", "string", "array", "object")   # by JsonKind
CODES = ("ok", "syntax", "not_object", "duplicate", "utf8", "depth", "members", "number")   # by -JsonError
NAMES_MAX = JSON_NAMES_MAX
MEMBERS_MAX = JSON_MEMBERS_MAX
DEPTH_MAX = JSON_DEPTH_MAX


class JsonRefused(ValueError):
    """A text that is no acceptable JSON object; `code` says why, one of CODES."""

    def __init__(self, code):
        super().__init__(f"refused JSON: {code}")
        self.code = code


cdef Slice _slice_bytes(bytes text):
    return slice_of(PyBytes_AS_STRING(text), PyBytes_GET_SIZE(text))


cdef bytes _unescaped(Slice raw):
    cdef bytes room = PyBytes_FromStringAndSize(NULL, raw.len)
    cdef Py_ssize_t length = json_unescape(raw, PyBytes_AS_STRING(room), raw.len)
    if length < 0:
        raise JsonRefused("syntax")
    return room[:length]


cdef tuple _as_python(const JsonValue* value):
    if value.kind == JSON_TRUE or value.kind == JSON_FALSE:
        given = value.kind == JSON_TRUE
    elif value.kind == JSON_INT:
        given = value.integer
    elif value.kind == JSON_DOUBLE:
        given = value.number
    elif value.kind == JSON_STRING:
        given = _unescaped(value.raw) if value.escaped else value.raw.ptr[:value.raw.len]
    elif value.kind == JSON_ARRAY or value.kind == JSON_OBJECT:
        given = value.raw.ptr[:value.raw.len]
    else:
        given = None
    return KINDS[<int>value.kind], given


def scan(bytes text not None, tuple names not None):
    """Return (kind, value) for each of `names` in the JSON object `text`.

    The value is None, a bool, an int, a float, the UTF-8 of a string, or the raw text of an array or object; a name
    that is not there has the kind `absent`. Names are plain UTF-8, at most NAMES_MAX. All of `text` is checked.
    Raises JsonRefused. RFC 8259; duplicate names: RFC 7519 §4 ("JWT parsers MUST either reject [...]").
    """
    cdef JsonNames asked
    cdef JsonValue out[JSON_NAMES_MAX]
    cdef Slice whole = _slice_bytes(text)
    cdef int error
    cdef int i
    if len(names) > JSON_NAMES_MAX:
        raise ValueError(f"{len(names)} names asked, but one scan takes at most {JSON_NAMES_MAX}")
    asked.count = 0
    for name in names:
        if not isinstance(name, bytes):
            raise TypeError("names are bytes")
        asked.name[asked.count] = _slice_bytes(name)   # owner: `names`
        asked.count += 1
    with nogil:
        error = json_scan_object(whole, &asked, out)
    if error != JSON_OK:
        raise JsonRefused(CODES[-error])
    return tuple([_as_python(&out[i]) for i in range(asked.count)])


def items(bytes array not None):
    """Return (kind, value), as `scan` gives them, for each item of the JSON array `array`. Raises JsonRefused.

    Of text that no scan accepted, only what stands before the first fault counts: `array` is read item by item.
    """
    cdef Slice rest = _slice_bytes(array)
    cdef JsonValue item
    cdef int step
    found = []
    while True:
        step = json_array_next(&rest, &item)
        if step < 0:
            raise JsonRefused(CODES[-step])
        if step == 0:
            return tuple(found)
        found.append(_as_python(&item))


def unescape(bytes raw not None):
    """Return the UTF-8 text of a JSON string without its quotes. Raises JsonRefused for a broken escape."""
    return _unescaped(_slice_bytes(raw))


cdef bytes _secret = os.urandom(16)
memcpy(js_secret, PyBytes_AS_STRING(_secret), 16)
_secret = None
if not js_prepare():
    raise MemoryError("no C locale")
