"""Canonical request paths, and the tree that finds a route by host, path and method.

**Paths.** A gateway and the app behind it must read a path the same way, or a request is judged as one thing and served as
another. So there is one canonical form, and what some server somewhere reads differently is refused:

| refused | because |
|---|---|
| not beginning with `/` | RFC 9112 §3.2: only origin-form is a path; absolute-form and `*` name something else |
| `.` and `..` segments, also by `%2e` | RFC 3986 §5.2.4 removes them, many apps do not: CVE-2019-9901 (Envoy), CVE-2021-41773 (httpd) |
| `%2f`, `%5c`, backslash | split for one reader, data for the next: CVE-2021-29492 (Envoy) |
| `;`, `%3b` | RFC 3986 §3.3 parameters: servlet containers drop them before they route: CVE-2020-5902 (`/..;/`) |
| `//` | RFC 3986 §3.3 allows it, nginx and others fold it; a leading `//x` is an authority (§4.2) |
| NUL, control bytes, DEL, also encoded | NUL ends the string in C readers (CWE-158), CR and LF split headers (CWE-113) |
| bytes that are not UTF-8 once decoded | decoders replace, drop or fold them; a lenient one reads `%c0%af` as `/`: CVE-2000-0884, RFC 3629 §10 |
| `%` without two hex digits | not RFC 3986 §2.1; readers keep it, drop it or fail |
| `%25` before two hex digits | decoded twice it is another path: RFC 3986 §2.4, CVE-2001-0333 |
| other bytes than `pchar` and `/` unencoded | not RFC 3986 §3.3; readers encode them, cut there (`?`, `#`) or fail |

What remains is one text for one sequence of decoded bytes: a `pchar` stands for itself (RFC 3986 §6.2.2.2 asks this of the
unreserved ones; we do it with sub-delims, `:` and `@` too, since apps decode them before they route), everything else is
`%XX` in upper case (§6.2.2.1).

**Routes.** One tree of segments a host; the literal edges of all trees lie in one hash table. A trailing slash counts: `/a`
and `/a/` are two places. `{name}` takes one segment that is not empty; `{*name}` takes the rest, also an empty one:
`/files/{*path}` answers for `/files/`, not for `/files`. `*.example.com` answers for one or more labels before the suffix,
as nginx and Envoy read it, and not for `example.com`; the longest suffix wins.

The place that host and path find keeps the request: where it lacks the method the answer is 405, and no less specific route
is asked, so that nobody reaches a laxer rule by choosing an odd method (CWE-650). GET answers HEAD too, unless a route of
the same place names HEAD. A route without methods takes those that no other route of its place names.
"""

cimport cython
from cpython.mem cimport PyMem_Calloc, PyMem_Free
from libc.stdint cimport int8_t, uint8_t, uint32_t, uint64_t
from libc.string cimport memchr, memcmp, memcpy

from gateway._native.slice cimport Slice, slice_empty, slice_equal, slice_of

import re

__all__ = [
    "LIMITS",
    "PATH_ERRORS",
    "PathRefused",
    "Route",
    "RouteConflict",
    "RouteInvalid",
    "RouteSnapshot",
    "canonical_path",
]

LIMITS = {
    "PATH_BYTES_MAX": PATH_BYTES_MAX,
    "ROUTES_MAX": ROUTES_MAX,
    "ROUTE_SEGMENTS_MAX": ROUTE_SEGMENTS_MAX,
    "ROUTE_PARAMETERS_MAX": ROUTE_PARAMETERS_MAX,
    "ROUTE_METHODS_MAX": ROUTE_METHODS_MAX,
    "ROUTE_HOST_BYTES_MAX": ROUTE_HOST_BYTES_MAX,
}

# ---------------------------------------------------------------------------------------------------------------- paths

# ORDER PathError: the code at [-error].
PATH_ERRORS = (
    "ok",
    "path_not_absolute",
    "path_too_long",
    "path_dot_segment",
    "path_separator",
    "path_parameter",
    "path_double_slash",
    "path_control",
    "path_utf8",
    "path_escape",
    "path_raw",
)
cdef tuple _error_bytes = tuple([code.encode() for code in PATH_ERRORS])  # what `path_error_code` lends
cdef Slice ERROR_CODES[11]

# What a byte of a raw path is, as bits; 0 is a `pchar` that stands for itself.
cdef enum:
    CLASS_STOP = 1   # the plain pass gives up here
    CLASS_SLASH = 2
    CLASS_DOT = 4    # a `pchar`, but it may begin a dot segment

cdef uint8_t CLASSES[256]
cdef int8_t HEX_VALUES[256]  # of a hex digit, or -1
cdef const char* HEX_DIGITS = b"0123456789ABCDEF"


cdef int _fill_tables() except -1:
    cdef int byte
    cdef Py_ssize_t i
    for byte in range(256):
        CLASSES[byte] = CLASS_STOP
        HEX_VALUES[byte] = -1
    for byte in b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_~!$&'()*+,=:@":
        CLASSES[byte] = 0
    CLASSES[c"."] = CLASS_DOT
    CLASSES[c"/"] = CLASS_SLASH
    for i, byte in enumerate(b"0123456789abcdef"):
        HEX_VALUES[byte] = <int8_t>i
    for i, byte in enumerate(b"ABCDEF"):
        HEX_VALUES[byte] = <int8_t>(10 + i)
    for i in range(len(PATH_ERRORS)):
        ERROR_CODES[i] = slice_of(<const char*>(<bytes>_error_bytes[i]), len(<bytes>_error_bytes[i]))
    return 0


_fill_tables()


cdef Slice path_error_code(Py_ssize_t error) noexcept nogil:
    if error > 0 or error <= -11:
        return slice_empty()
    return ERROR_CODES[-error]


cdef inline bint _is_pchar(int byte) noexcept nogil:
    return byte >= 0 and CLASSES[<uint8_t>byte] & ~CLASS_DOT == 0


cdef inline int _escape_value(const char* text, Py_ssize_t length, Py_ssize_t at) noexcept nogil:
    """Give the byte that the escape at `at` stands for, or -1 where there is none."""
    cdef int high, low
    if at + 3 > length or text[at] != c"%":
        return -1
    high = HEX_VALUES[<uint8_t>text[at + 1]]
    low = HEX_VALUES[<uint8_t>text[at + 2]]
    return -1 if high < 0 or low < 0 else high << 4 | low


cdef inline int _decoded_hex(const char* text, Py_ssize_t length, Py_ssize_t* at) noexcept nogil:
    """Step over one character, plain or escaped; give 1 when it decodes to a hex digit, else 0."""
    cdef int byte
    if at[0] >= length:
        return 0
    if text[at[0]] == c"%":
        byte = _escape_value(text, length, at[0])
        at[0] += 3
    else:
        byte = <uint8_t>text[at[0]]
        at[0] += 1
    return byte >= 0 and HEX_VALUES[byte] >= 0


cdef inline int _utf8_size(const char* text, Py_ssize_t length, Py_ssize_t at, int lead) noexcept nogil:
    """Give how many escapes from `at` on make one UTF-8 character that begins with `lead`, or -1 (RFC 3629 §4)."""
    cdef int size, lowest = 0x80, highest = 0xBF, i, byte
    if 0xC2 <= lead <= 0xDF:
        size = 2
    elif 0xE0 <= lead <= 0xEF:
        size = 3
        if lead == 0xE0:
            lowest = 0xA0   # shorter forms exist: overlong
        elif lead == 0xED:
            highest = 0x9F  # surrogates
    elif 0xF0 <= lead <= 0xF4:
        size = 4
        if lead == 0xF0:
            lowest = 0x90
        elif lead == 0xF4:
            highest = 0x8F  # beyond U+10FFFF
    else:
        return -1
    for i in range(1, size):
        byte = _escape_value(text, length, at + 3 * i)
        if byte < lowest or byte > highest:
            return -1
        lowest = 0x80
        highest = 0xBF
    return size


@cython.boundscheck(False)
@cython.wraparound(False)
cdef inline bint _is_plain(const char* text, Py_ssize_t length) noexcept nogil:
    """True where the path is its own canonical form, seen in one pass; False where it takes a closer look.

    `i` runs over 0..length-1 only. A slash before a slash or a dot gives up too: it may be `//`, or begin a dot segment.
    """
    cdef Py_ssize_t i
    cdef unsigned int seen = 0, byte_class, before = 0
    for i in range(length):
        byte_class = CLASSES[<uint8_t>text[i]]
        seen |= byte_class & CLASS_STOP
        seen |= (before >> 1) & (byte_class >> 1 | byte_class >> 2)
        before = byte_class & CLASS_SLASH
    return seen & 1 == 0


cdef inline int _refused_byte(int byte) noexcept nogil:
    """Say why no path may hold `byte`, plain or encoded; PATH_OK where only its spelling matters."""
    if byte < 0x20 or byte == 0x7F:
        return PATH_E_CONTROL
    if byte == c"\\":
        return PATH_E_SEPARATOR
    if byte == c";":
        return PATH_E_PARAMETER
    return PATH_OK


cdef inline Py_ssize_t _put_escape(char* target, Py_ssize_t written, int byte) noexcept nogil:
    target[written] = c"%"
    target[written + 1] = HEX_DIGITS[byte >> 4]
    target[written + 2] = HEX_DIGITS[byte & 15]
    return written + 3


@cython.boundscheck(False)
@cython.wraparound(False)
cdef Py_ssize_t _canonical_at(Slice raw, char* target, Py_ssize_t capacity, Py_ssize_t* offset) noexcept nogil:
    """`path_canonical`, which also says where the first fault begins.

    Bounds: `at` < raw.len wherever text[at] is read, and the escape helpers check the length themselves; each step writes
    at most as many bytes as it reads, so `written` <= `at` <= raw.len <= capacity.
    """
    cdef const char* text = raw.ptr
    cdef Py_ssize_t length = raw.len, at = 1, written = 1
    cdef Py_ssize_t segment_at = 1, segment_written = 1, ahead
    cdef int byte, error, size
    offset[0] = 0
    if length > PATH_BYTES_MAX:
        offset[0] = PATH_BYTES_MAX
        return PATH_E_TOO_LONG
    if length > capacity:
        return PATH_E_TOO_LONG
    if length == 0 or text[0] != c"/":
        return PATH_E_NOT_ABSOLUTE
    if _is_plain(text, length):
        memcpy(target, text, <size_t>length)
        return length

    target[0] = c"/"
    while True:
        offset[0] = at
        if at == length or text[at] == c"/":
            if written - segment_written <= 2 and _all_dots(target, segment_written, written):
                offset[0] = segment_at
                return PATH_E_DOT_SEGMENT
            if at == length:
                return written
            if written == segment_written:
                return PATH_E_DOUBLE_SLASH
            target[written] = c"/"
            written += 1
            at += 1
            segment_at = at
            segment_written = written
        elif text[at] != c"%":
            byte = <uint8_t>text[at]
            if not _is_pchar(byte):
                error = _refused_byte(byte)
                return error if error != PATH_OK else PATH_E_RAW
            target[written] = <char>byte
            written += 1
            at += 1
        else:
            byte = _escape_value(text, length, at)
            if byte < 0:
                return PATH_E_ESCAPE
            error = PATH_E_SEPARATOR if byte == c"/" else _refused_byte(byte)
            if error != PATH_OK:
                return error
            if byte >= 0x80:
                size = _utf8_size(text, length, at, byte)
                if size < 0:
                    return PATH_E_UTF8
                while size > 0:
                    written = _put_escape(target, written, _escape_value(text, length, at))
                    at += 3
                    size -= 1
                continue
            if byte == c"%":
                ahead = at + 3
                if _decoded_hex(text, length, &ahead) and _decoded_hex(text, length, &ahead):
                    return PATH_E_ESCAPE
            if _is_pchar(byte):
                target[written] = <char>byte
                written += 1
            else:
                written = _put_escape(target, written, byte)
            at += 3


cdef inline bint _all_dots(const char* text, Py_ssize_t start, Py_ssize_t stop) noexcept nogil:
    """True for one dot or more and nothing else."""
    cdef Py_ssize_t i
    for i in range(start, stop):
        if text[i] != c".":
            return False
    return stop > start


cdef Py_ssize_t path_canonical(Slice raw, char* target, Py_ssize_t capacity) noexcept nogil:
    cdef Py_ssize_t offset = 0
    return _canonical_at(raw, target, capacity, &offset)


class PathRefused(ValueError):
    """A request path that can be read in two ways. `code` is stable, `offset` is where the fault begins."""

    def __init__(self, code, offset):
        super().__init__(f"{code} at byte {offset}")
        self.code = code
        self.offset = offset


def canonical_path(bytes raw not None):
    """Return the one canonical form of a request path without its query.

    Raises PathRefused for a path that could be read in two ways; the module's docstring says which, and why.
    """
    cdef char target[PATH_BYTES_MAX]
    cdef Py_ssize_t offset = 0
    cdef Py_ssize_t length = _canonical_at(slice_of(<const char*>raw, len(raw)), target, PATH_BYTES_MAX, &offset)
    if length < 0:
        raise PathRefused(PATH_ERRORS[-length], offset)
    return target[:length]


# --------------------------------------------------------------------------------------------------------------- routes

cdef enum SegmentKind:
    SEGMENT_LITERAL = 0
    SEGMENT_PARAMETER = 1
    SEGMENT_REST = 2

_PARAMETER = re.compile(r"\{(\*?)([A-Za-z_][A-Za-z0-9_]*)\}")
_METHOD = re.compile(r"[A-Z][A-Z0-9_-]{0,31}")
_HOST = re.compile(r"(\*\.)?([a-z0-9_]([a-z0-9_-]*[a-z0-9_])?\.)*[a-z0-9_]([a-z0-9_-]*[a-z0-9_])?")
_HOST_V6 = re.compile(r"\[[0-9a-f:.]+\]")
_SCOPE = re.compile(r"[\x21\x23-\x5b\x5d-\x7e]+")  # RFC 6749 §3.3 scope-token: safe inside a quoted header parameter
_AUTH = {"token": AUTH_TOKEN, "none": AUTH_NONE, "session": AUTH_SESSION}


class RouteInvalid(ValueError):
    """A route that cannot be compiled: its pattern, host, method or scope is not one."""


class RouteConflict(ValueError):
    """Two routes that match the same host, path and method: `first` and `second`, in the config's order."""

    def __init__(self, first, second, method):
        super().__init__(
            f"{_shown(first)} and {_shown(second)} both match "
            + (f"method `{method}`" if method else "every method that no other route names")
        )
        self.first = first
        self.second = second
        self.method = method


def _shown(Route route):
    host = f" on host `{route.host}`" if route.host else ""
    return f"route {route.index} `{route.name}`{host}"


def _literal(str text, str pattern):
    """Return the canonical bytes of one literal segment; non-ASCII may stand in a pattern as it is."""
    if "{" in text or "}" in text:
        raise RouteInvalid(f"`{pattern}`: `{text}`: a parameter is a whole segment, `{{name}}` or `{{*name}}`")
    try:
        spelled = "".join([c if c < "\x80" else "".join([f"%{b:02X}" for b in c.encode()]) for c in text])
        return canonical_path(b"/" + spelled.encode())[1:]
    except UnicodeEncodeError:
        raise RouteInvalid(f"`{pattern!a}`: a lone surrogate is no text") from None
    except PathRefused as refused:
        raise RouteInvalid(f"`{pattern}`: no request path can hold `{text}` ({refused.code})") from None


def _parse_pattern(str pattern):
    """Return ((kind, canonical literal), …) and the parameters' names."""
    if not pattern.startswith("/"):
        raise RouteInvalid(f"`{pattern}`: a path begins with `/`")
    if len(pattern) > PATH_BYTES_MAX:
        raise RouteInvalid(f"`{pattern[:64]}…`: longer than {PATH_BYTES_MAX} characters")
    texts = pattern[1:].split("/")
    if len(texts) > ROUTE_SEGMENTS_MAX:
        raise RouteInvalid(f"`{pattern}`: more than {ROUTE_SEGMENTS_MAX} segments")
    segments = []
    names = []
    for position, text in enumerate(texts):
        last = position == len(texts) - 1
        found = _PARAMETER.fullmatch(text)
        if found is None:
            if not text and not last:
                raise RouteInvalid(f"`{pattern}`: `//` is refused in request paths (path_double_slash)")
            segments.append((SEGMENT_LITERAL, _literal(text, pattern)))
            continue
        star, name = found.groups()
        if star and not last:
            raise RouteInvalid(f"`{pattern}`: `{text}` takes the rest, so nothing can follow it")
        if name in names:
            raise RouteInvalid(f"`{pattern}`: two parameters are named `{name}`")
        names.append(name)
        segments.append((SEGMENT_REST if star else SEGMENT_PARAMETER, b""))
    if len(names) > ROUTE_PARAMETERS_MAX:
        raise RouteInvalid(f"`{pattern}`: more than {ROUTE_PARAMETERS_MAX} parameters")
    return tuple(segments), tuple(names)


def _parse_host(str host):
    """Return a host pattern in lower case without a trailing dot."""
    lower = host.lower()
    if lower.endswith("."):
        lower = lower[:-1]
    if len(lower) > ROUTE_HOST_BYTES_MAX:
        raise RouteInvalid(f"`{host[:64]}…`: longer than {ROUTE_HOST_BYTES_MAX} characters")
    if host and not lower.isascii():
        raise RouteInvalid(f"`{host}`: write the host as it is sent, `xn--…` (RFC 5891)")
    if host and _HOST.fullmatch(lower) is None and _HOST_V6.fullmatch(lower) is None:
        raise RouteInvalid(f"`{host}`: neither a host without a port nor `*.` and a suffix")
    return lower


@cython.final
cdef class Route:
    """One `[[routes]]` entry, compiled. Immutable.

    `methods` are upper case, () means any; `scopes` are all required; `upstream` and `extra` are handed through
    untouched. Raises RouteInvalid with the offending text.
    """

    def __cinit__(
        self,
        str pattern not None,
        *,
        int index,
        str host not None="",
        tuple methods not None=(),
        str auth not None="token",
        tuple scopes not None=(),
        object upstream=None,
        object extra=None,
    ):
        self.name = pattern
        self.index = index
        self.segments, self.parameter_names = _parse_pattern(pattern)
        self.host = _parse_host(host)
        for method in methods:
            if _METHOD.fullmatch(method) is None:
                raise RouteInvalid(f"`{method}`: no method; methods are in upper case (RFC 9110 §9.1)")
        if len(set(methods)) != len(methods):
            raise RouteInvalid(f"`{pattern}`: a method is named twice")
        if len(methods) > ROUTE_METHODS_MAX:
            raise RouteInvalid(f"`{pattern}`: more than {ROUTE_METHODS_MAX} methods")
        self.methods = methods
        if auth not in _AUTH:
            raise RouteInvalid(f"`{auth}`: auth is `token`, `session` or `none`")
        self.auth = <Auth><int>_AUTH[auth]
        for scope in scopes:
            if _SCOPE.fullmatch(scope) is None:
                raise RouteInvalid(f"`{scope!a}`: no scope (RFC 6749 §3.3)")
        self.scopes = tuple([scope.encode() for scope in scopes])
        self.scope_text = b" ".join(self.scopes)
        self.upstream = upstream
        self.extra = extra

    def __repr__(self):
        methods = f", methods={self.methods!r}" if self.methods else ""
        host = f", host={self.host!r}" if self.host else ""
        return f"Route({self.name!r}, index={self.index}{host}{methods})"


# Numbers of nodes and leaves: 0 means none (node 0 is a host's pseudo-parent, leaf 0 is never used).
cdef enum:
    NODE_EXACT_HOSTS = 0   # its edges are the hosts, each leads to a root
    NODE_HOST_SUFFIXES = 1  # its edges are `example.com` of `*.example.com`
    NODE_ANY_HOST = 2      # the root for every host
    NODE_FIRST_FREE = 3

cdef struct Edge:
    uint64_t hash
    const char* text        # owner: RouteSnapshot.texts
    uint32_t text_len
    uint32_t parent
    uint32_t child          # 0: this slot is free

cdef struct Node:
    uint32_t literal_count  # edges that leave this node
    uint32_t parameter      # node after a {name}
    uint32_t leaf           # where the path ends here
    uint32_t rest           # leaf of a {*name} here

cdef struct MethodEntry:
    Slice name              # owner: RouteSnapshot.texts
    void* route             # owner: RouteSnapshot.routes

cdef struct Leaf:
    uint32_t method_first
    uint32_t method_count
    void* any_route         # for methods that nobody names, or NULL; owner: RouteSnapshot.routes
    Slice allowed           # owner: RouteSnapshot.texts


cdef inline uint64_t _edge_hash(uint32_t parent, const char* text, Py_ssize_t length) noexcept nogil:
    """FNV-1a, finished by a mix. Keys come from the config, so a client can only aim at the longest run of slots."""
    cdef uint64_t h = <uint64_t>0xCBF29CE484222325 ^ parent
    cdef Py_ssize_t i
    for i in range(length):
        h = (h ^ <uint8_t>text[i]) * <uint64_t>0x100000001B3
    h ^= h >> 32
    h *= <uint64_t>0x9E3779B97F4A7C15
    return h ^ h >> 29


cdef inline uint32_t _edge_find(const Tree* tree, uint32_t parent, const char* text, Py_ssize_t length) noexcept nogil:
    """Give the node that `text` leads to from `parent`, or 0. Ends: at least half of the slots are free."""
    cdef uint64_t h
    cdef uint32_t slot
    cdef const Edge* edge
    if length > tree.literal_len_max or tree.nodes[parent].literal_count == 0:
        return 0
    h = _edge_hash(parent, text, length)
    slot = <uint32_t>h & tree.slot_mask
    while True:
        edge = &tree.edges[slot]
        if edge.child == 0:
            return 0
        if (
            edge.hash == h
            and edge.parent == parent
            and <Py_ssize_t>edge.text_len == length
            and memcmp(edge.text, text, <size_t>length) == 0
        ):
            return edge.child
        slot = slot + 1 & tree.slot_mask


cdef uint32_t _walk(
    const Tree* tree, uint32_t number, const char* path, Py_ssize_t at, Py_ssize_t length, int parameters, RouteMatch* out
) noexcept nogil:
    """Give the leaf for path[at:], the segment after a slash, from node `number`; 0 for none.

    `at` = length + 1 says that no segment is left. A branch that leads nowhere falls back to the next less specific one.
    Each node has one way from its root, so one search visits it at most once; the depth is that of the longest pattern,
    at most ROUTE_SEGMENTS_MAX. `parameters` counts those on the way, which every pattern below here also has: in bounds.
    """
    cdef const Node* node = &tree.nodes[number]
    cdef const char* slash
    cdef Py_ssize_t end
    cdef uint32_t child, leaf
    out.visited += 1
    if at > length:
        out.parameter_count = parameters
        return node.leaf
    if node.literal_count != 0 or node.parameter != 0:
        slash = <const char*>memchr(path + at, c"/", <size_t>(length - at))
        end = length if slash == NULL else slash - path
        child = _edge_find(tree, number, path + at, end - at)
        if child != 0:
            leaf = _walk(tree, child, path, end + 1, length, parameters, out)
            if leaf != 0:
                return leaf
        if node.parameter != 0 and end > at:
            out.parameter[parameters] = slice_of(path + at, end - at)
            leaf = _walk(tree, node.parameter, path, end + 1, length, parameters + 1, out)
            if leaf != 0:
                return leaf
    if node.rest != 0:
        out.parameter[parameters] = slice_of(path + at, length - at)
        out.parameter_count = parameters + 1
    return node.rest


cdef uint32_t _walk_hosts(const Tree* tree, Slice host, Slice path, RouteMatch* out) noexcept nogil:
    """Give the leaf under the host itself, else under its longest suffix that has the path, else 0."""
    cdef char lower[ROUTE_HOST_BYTES_MAX]
    cdef Py_ssize_t i
    cdef uint32_t root, leaf
    # `app.example.com.` is the same host as without its dot (RFC 3986 §3.2.2): it must not slip past the host's routes.
    if host.len > 0 and host.ptr[host.len - 1] == c".":
        host.len -= 1
    if host.len == 0 or host.len > ROUTE_HOST_BYTES_MAX:
        return 0
    for i in range(host.len):
        lower[i] = host.ptr[i] | 0x20 if c"A" <= host.ptr[i] <= c"Z" else host.ptr[i]
    root = _edge_find(tree, NODE_EXACT_HOSTS, lower, host.len)
    if root != 0:
        leaf = _walk(tree, root, path.ptr, 1, path.len, 0, out)
        if leaf != 0:
            return leaf
    for i in range(1, host.len):
        if lower[i] == c".":
            root = _edge_find(tree, NODE_HOST_SUFFIXES, lower + i + 1, host.len - i - 1)
            if root != 0:
                leaf = _walk(tree, root, path.ptr, 1, path.len, 0, out)
                if leaf != 0:
                    return leaf
    return 0


cdef void _match(const Tree* tree, bint by_host, Slice host, Slice path, Slice method, RouteMatch* out) noexcept nogil:
    cdef uint32_t leaf_number = 0, i
    cdef const Leaf* leaf
    out.result = ROUTE_NO_HOST_OR_PATH
    out.route = NULL
    out.parameter_count = 0
    out.allowed = slice_empty()
    out.visited = 0
    if path.len == 0 or path.ptr[0] != c"/":
        return
    if by_host:
        leaf_number = _walk_hosts(tree, host, path, out)
    if leaf_number == 0:
        leaf_number = _walk(tree, NODE_ANY_HOST, path.ptr, 1, path.len, 0, out)
    if leaf_number == 0:
        out.parameter_count = 0
        return
    leaf = &tree.leaves[leaf_number]
    for i in range(leaf.method_first, leaf.method_first + leaf.method_count):
        if slice_equal(tree.methods[i].name, method):
            out.route = tree.methods[i].route
            out.result = ROUTE_FOUND
            return
    if leaf.any_route != NULL:
        out.route = leaf.any_route
        out.result = ROUTE_FOUND
        return
    out.allowed = leaf.allowed
    out.result = ROUTE_NO_METHOD


class _Place:
    """While a snapshot is built: the routes of one host and path shape, by method."""

    __slots__ = ("any_route", "methods")

    def __init__(self):
        self.any_route = None
        self.methods = {}

    def add(self, Route route):
        """Take a route in; raises RouteConflict where another holds its method already."""
        if not route.methods:
            if self.any_route is not None:
                raise RouteConflict(self.any_route, route, "")
            self.any_route = route
        for method in route.methods:
            if method in self.methods:
                raise RouteConflict(self.methods[method], route, method)
            self.methods[method] = route

    def by_method(self):
        """Return the routes by method, HEAD added where only GET is named (RFC 9110 §9.3.2)."""
        if "GET" in self.methods and "HEAD" not in self.methods:
            return self.methods | {"HEAD": self.methods["GET"]}
        return self.methods


class _Builder:
    """While a snapshot is built: nodes and edges as lists and dicts, with the numbers that the C arrays will have."""

    __slots__ = ("edges", "leaves", "nodes", "places")

    def __init__(self):
        self.nodes = [[0, 0, 0] for _ in range(NODE_FIRST_FREE)]  # parameter, leaf, rest
        self.edges = {}                                           # (parent, literal) -> child
        self.leaves = [None]

    def node(self):
        self.nodes.append([0, 0, 0])
        return len(self.nodes) - 1

    def child(self, int parent, bytes literal):
        """Return the node that `literal` leads to from `parent`; a new one where there was none."""
        number = self.edges.get((parent, literal))
        if number is None:
            number = self.edges[parent, literal] = self.node()
        return number

    def place(self, int number, int slot):
        """Return the place at a node's leaf (slot 1) or rest (slot 2)."""
        if self.nodes[number][slot] == 0:
            self.leaves.append(_Place())
            self.nodes[number][slot] = len(self.leaves) - 1
        return self.leaves[self.nodes[number][slot]]

    def add(self, Route route):
        if not route.host:
            number = NODE_ANY_HOST
        elif route.host.startswith("*."):
            number = self.child(NODE_HOST_SUFFIXES, route.host[2:].encode())
        else:
            number = self.child(NODE_EXACT_HOSTS, route.host.encode())
        for kind, literal in route.segments:
            if kind == SEGMENT_LITERAL:
                number = self.child(number, literal)
            elif kind == SEGMENT_PARAMETER:
                if self.nodes[number][0] == 0:
                    self.nodes[number][0] = self.node()
                number = self.nodes[number][0]
            else:
                self.place(number, 2).add(route)
                return
        self.place(number, 1).add(route)


@cython.final
cdef class RouteSnapshot:
    """All routes, ready to be asked; immutable, so it is swapped in whole.

    Raises RouteConflict, which names both, for two routes that match the same host, path and method. Safe to ask from
    any number of threads.
    """

    def __cinit__(self, routes):
        cdef Route route
        self.routes = tuple(routes)
        self.texts = []
        if len(self.routes) > ROUTES_MAX:
            raise RouteInvalid(f"{len(self.routes)} routes are more than {ROUTES_MAX}")
        builder = _Builder()
        for route in self.routes:
            builder.add(route)
            self.by_host = self.by_host or route.host != ""
        self.route_count = len(self.routes)
        self.node_count = len(builder.nodes)
        self._take_edges(builder)
        self._take_leaves(builder)

    def __dealloc__(self):
        PyMem_Free(<void*>self.tree.edges)
        PyMem_Free(<void*>self.tree.nodes)
        PyMem_Free(<void*>self.tree.leaves)
        PyMem_Free(<void*>self.tree.methods)

    cdef Slice _keep(self, bytes text):
        """Lend `text` to the tree; this snapshot keeps it alive."""
        self.texts.append(text)
        return slice_of(<const char*>text, len(text))

    cdef int _take_edges(self, object builder) except -1:
        """Copy nodes and literal edges into C arrays. A slot is found as `_edge_find` will look for it."""
        cdef uint32_t slots = 8, slot, parent, child
        cdef uint64_t h
        cdef Edge* edges
        cdef Node* nodes
        cdef Slice text
        cdef Py_ssize_t i
        while slots < 2 * len(builder.edges):
            slots *= 2
        edges = <Edge*>PyMem_Calloc(slots, sizeof(Edge))
        self.tree.edges = edges
        nodes = <Node*>PyMem_Calloc(len(builder.nodes), sizeof(Node))
        self.tree.nodes = nodes
        if edges == NULL or nodes == NULL:
            raise MemoryError
        self.tree.slot_mask = slots - 1
        for i, (parameter, leaf, rest) in enumerate(builder.nodes):
            nodes[i].parameter = parameter
            nodes[i].leaf = leaf
            nodes[i].rest = rest
        for (parent_number, literal), child_number in builder.edges.items():
            parent = parent_number
            child = child_number
            text = self._keep(literal)
            h = _edge_hash(parent, text.ptr, text.len)
            slot = <uint32_t>h & self.tree.slot_mask
            while edges[slot].child != 0:
                slot = slot + 1 & self.tree.slot_mask
            edges[slot].hash = h
            edges[slot].text = text.ptr
            edges[slot].text_len = <uint32_t>text.len
            edges[slot].parent = parent
            edges[slot].child = child
            nodes[parent].literal_count += 1
            self.tree.literal_len_max = max(self.tree.literal_len_max, text.len)
        return 0

    cdef int _take_leaves(self, object builder) except -1:
        """Copy the places and their methods into C arrays; the routes stay borrowed from `self.routes`."""
        cdef Leaf* leaves
        cdef MethodEntry* methods
        cdef uint32_t number, used = 0
        by_place = [{} if place is None else place.by_method() for place in builder.leaves]
        leaves = <Leaf*>PyMem_Calloc(len(by_place), sizeof(Leaf))
        self.tree.leaves = leaves
        methods = <MethodEntry*>PyMem_Calloc(max(1, sum([len(routes) for routes in by_place])), sizeof(MethodEntry))
        self.tree.methods = methods
        if leaves == NULL or methods == NULL:
            raise MemoryError
        for number in range(1, len(by_place)):
            leaves[number].method_first = used
            leaves[number].method_count = <uint32_t>len(by_place[number])
            for method, route in sorted(by_place[number].items()):
                methods[used].name = self._keep(method.encode())
                methods[used].route = <void*>route
                used += 1
            if builder.leaves[number].any_route is not None:
                leaves[number].any_route = <void*>builder.leaves[number].any_route
            leaves[number].allowed = self._keep(", ".join(sorted(by_place[number])).encode())
        return 0

    cdef void match(self, Slice host, Slice path, Slice method, RouteMatch* out) noexcept:
        _match(&self.tree, self.by_host, host, path, method, out)

    def find(self, bytes host not None, bytes path not None, bytes method not None):
        """Return the route and its parameters (as they stand in the path), or "no_route", or "no_method".

        Arguments as for `match`: a canonical path, a host without a port.
        """
        cdef RouteMatch found
        cdef Route route
        cdef int i
        self.match(
            slice_of(<const char*>host, len(host)),
            slice_of(<const char*>path, len(path)),
            slice_of(<const char*>method, len(method)),
            &found,
        )
        if found.result == ROUTE_NO_HOST_OR_PATH:
            return "no_route"
        if found.result == ROUTE_NO_METHOD:
            return "no_method"
        route = <Route>found.route
        values = [found.parameter[i].ptr[:found.parameter[i].len].decode("ascii", "replace") for i in range(found.parameter_count)]
        return route, dict(zip(route.parameter_names, values))

    def allowed_methods(self, bytes host not None, bytes path not None):
        """Return the `Allow` value for a request that `find` answers with "no_method"; "" for any other."""
        cdef RouteMatch found
        self.match(slice_of(<const char*>host, len(host)), slice_of(<const char*>path, len(path)), slice_empty(), &found)
        return found.allowed.ptr[:found.allowed.len].decode()

    def visited_nodes(self, bytes host not None, bytes path not None):
        """Return how many nodes of the tree the search for a path looks at."""
        cdef RouteMatch found
        self.match(slice_of(<const char*>host, len(host)), slice_of(<const char*>path, len(path)), slice_empty(), &found)
        return found.visited

    def bench(self, bytes host not None, bytes path not None, bytes method not None, int rounds):
        """Search `rounds` times in C; for benchmarks, which time the call."""
        cdef RouteMatch found
        cdef Slice h = slice_of(<const char*>host, len(host))
        cdef Slice p = slice_of(<const char*>path, len(path))
        cdef Slice m = slice_of(<const char*>method, len(method))
        cdef int i
        for i in range(rounds):
            self.match(h, p, m, &found)
        return found.result == ROUTE_FOUND
