"""Lazy claim scan: find the asked members of a JSON object without building Python objects."""

from libc.stdint cimport int64_t, uint32_t, uint64_t

from gateway._native.slice cimport Slice

cdef enum:
    JSON_NAMES_MAX = 64        # names one scan may ask for
    JSON_MEMBERS_MAX = 512     # members (and so names compared for duplicates) of one object
    JSON_DEPTH_MAX = 32        # arrays and objects inside one another, the outermost counted

cdef enum JsonKind:
    JSON_ABSENT = 0
    JSON_NULL
    JSON_FALSE
    JSON_TRUE
    JSON_INT         # exact int64
    JSON_DOUBLE      # finite; fraction, exponent, or beyond int64
    JSON_STRING
    JSON_ARRAY
    JSON_OBJECT

cdef enum JsonError:
    JSON_OK = 0
    JSON_E_SYNTAX = -1         # not RFC 8259, or bytes after the value
    JSON_E_NOT_OBJECT = -2     # a JSON value, but no object
    JSON_E_DUPLICATE = -3      # a member name twice in one object, at any depth, compared after unescaping
    JSON_E_UTF8 = -4           # invalid UTF-8, or an escaped lone surrogate
    JSON_E_DEPTH = -5          # deeper than JSON_DEPTH_MAX
    JSON_E_MEMBERS = -6        # more than JSON_MEMBERS_MAX members in one object
    JSON_E_NUMBER = -7         # not finite as a double (1e400), or longer than 64 characters

cdef struct JsonValue:
    JsonKind kind
    bint escaped     # a string that holds at least one backslash escape
    Slice raw        # owner: the scanned text. Strings without their quotes, everything else as it stands
    int64_t integer  # JSON_INT
    double number    # JSON_INT and JSON_DOUBLE

cdef struct JsonNames:
    # The asked names: plain UTF-8, without escapes. Owner of each: the Python bytes object that its maker keeps.
    Slice name[JSON_NAMES_MAX]
    int count

cdef int json_scan_object(Slice text, const JsonNames* names, JsonValue* out) noexcept nogil
"""Check all of `text` and fill `out[i]` for `names.name[i]`; give JSON_OK or a negative JsonError.

The whole text is checked (syntax, UTF-8, duplicates, depth), also what nobody asked for. Members are matched after
unescaping. `out` must have room for `names.count`; it is undefined after an error.
"""

cdef Py_ssize_t json_unescape(Slice raw, char* target, Py_ssize_t capacity) noexcept nogil
"""Write a scanned string's UTF-8 text; give its length, or -1 when `capacity` is too small (raw.len always suffices)."""

cdef int json_array_next(Slice* rest, JsonValue* item) noexcept nogil
"""Step through a scanned array: 1 and `item` filled, 0 at the end, negative on an error.

Start with `rest` = the array's `raw`; each call moves it on. Only for text that json_scan_object accepted.
"""
