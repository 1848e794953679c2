"""Canonical paths, and the radix tree over host, path and method."""

from libc.stdint cimport uint32_t, uint64_t

from gateway._native.slice cimport Slice

cdef enum:
    PATH_BYTES_MAX = 4096       # a longer path is refused
    ROUTES_MAX = 65536          # of one snapshot
    ROUTE_SEGMENTS_MAX = 64     # of one pattern; also the depth of the search
    ROUTE_PARAMETERS_MAX = 16   # of one pattern
    ROUTE_METHODS_MAX = 32      # of one route
    ROUTE_HOST_BYTES_MAX = 255  # RFC 1035 §2.3.4

cdef enum PathError:
    PATH_OK = 0
    PATH_E_NOT_ABSOLUTE = -1    # does not begin with `/` (also `*` and absolute-form)
    PATH_E_TOO_LONG = -2
    PATH_E_DOT_SEGMENT = -3     # `.` or `..` as a segment, plain or encoded
    PATH_E_SEPARATOR = -4       # encoded `/`, plain or encoded `\`
    PATH_E_PARAMETER = -5       # `;`, plain or encoded
    PATH_E_DOUBLE_SLASH = -6    # an empty segment inside the path
    PATH_E_CONTROL = -7         # NUL or another control byte, DEL, plain or encoded
    PATH_E_UTF8 = -8            # invalid UTF-8 after decoding
    PATH_E_ESCAPE = -9          # `%` without two hex digits, or a decoded text that still holds an escape (double encoding)
    PATH_E_RAW = -10            # a byte that may not stand in a path unencoded (space, `"`, `<`, `>`, `#`, `?`, non-ASCII…)

cdef Py_ssize_t path_canonical(Slice raw, char* target, Py_ssize_t capacity) noexcept nogil
"""Write the one canonical form of a request path; give its length, or a negative PathError.

Every byte that may stand in a path as it is (RFC 3986 §3.3 `pchar`) is decoded, every other stays encoded with upper-case
hex; `raw` has no query. So two accepted paths have the same form exactly when they decode to the same bytes. What can be
read in two ways is refused, never guessed (see PathError). Idempotent. The upstream gets this form.
`raw.len` is always enough room (decoding never lengthens, bytes are never newly encoded); less is PATH_E_TOO_LONG.
"""

cdef Slice path_error_code(Py_ssize_t error) noexcept nogil
"""The stable name of a PathError, for logs and problem+json: `path_dot_segment`…; lives as long as the module."""

cdef enum Auth:
    AUTH_TOKEN = 0
    AUTH_NONE = 1
    AUTH_SESSION = 2

cdef class Route:
    """One `[[routes]]` entry, compiled. Immutable."""
    cdef readonly str name               # the place in the config, for logs and metrics: the path pattern
    cdef readonly str host               # "", `app.example.com` or `*.example.com`; lower case
    cdef readonly int index              # position in the config
    cdef readonly tuple methods          # of str, as configured; () = any
    cdef readonly Auth auth
    cdef readonly tuple scopes           # of bytes: all of them are required
    cdef readonly bytes scope_text       # the scopes joined by spaces, for WWW-Authenticate
    cdef readonly object upstream        # opaque to this module: what the proxy door forwards through, or None
    cdef readonly object extra           # opaque to this module: settings of the door
    cdef readonly tuple parameter_names  # of str, in the pattern's order
    cdef tuple segments                  # of (SegmentKind, canonical literal bytes)

cdef enum RouteResult:
    ROUTE_FOUND = 0
    ROUTE_NO_HOST_OR_PATH = 1
    ROUTE_NO_METHOD = 2

cdef struct RouteMatch:
    RouteResult result
    void* route                                  # borrowed Route; owner: the RouteSnapshot
    int parameter_count
    Slice parameter[ROUTE_PARAMETERS_MAX]        # owner: the canonical path that was matched
    Slice allowed                                # for ROUTE_NO_METHOD: `GET, POST`; owner: the RouteSnapshot
    uint32_t visited                             # tree nodes that the search looked at: at most the nodes of three host trees

cdef struct Node
cdef struct Leaf
cdef struct Edge
cdef struct MethodEntry

cdef struct Tree:
    # All arrays are owned by the RouteSnapshot and never change once it is made.
    const Edge* edges            # open addressing; slot_mask + 1 of them, at most half are used
    uint32_t slot_mask
    const Node* nodes
    const Leaf* leaves
    const MethodEntry* methods
    Py_ssize_t literal_len_max   # no edge's text is longer

cdef class RouteSnapshot:
    cdef Tree tree
    cdef bint by_host                    # some route names a host
    cdef readonly int route_count
    cdef readonly int node_count
    cdef readonly tuple routes           # keeps every Route alive that `tree` borrows
    cdef list texts                      # keeps the bytes alive that `tree` borrows
    cdef Slice _keep(self, bytes text)
    cdef int _take_edges(self, object builder) except -1
    cdef int _take_leaves(self, object builder) except -1
    cdef void match(self, Slice host, Slice path, Slice method, RouteMatch* out) noexcept
    """Find the most specific route: exact host before `*.suffix` before any host; literal before {name} before {*name}.

    `path` must be canonical; `host` comes without a port (case and one trailing dot do not matter). Does not allocate.
    Host and path pick the place; only then its methods are asked: a method that it lacks is ROUTE_NO_METHOD, never a
    less specific route.
    """
