"""Canonical paths, and the radix tree over host, path and method."""

from libc.stdint cimport uint32_t

from gateway._native.slice cimport Slice

cdef enum:
    PATH_BYTES_MAX = 4096       # a longer path is refused
    ROUTE_SEGMENTS_MAX = 64
    ROUTE_PARAMETERS_MAX = 16

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

Unreserved characters are decoded (RFC 3986 §6.2.2.2), what must stay encoded is encoded with upper-case hex; `raw` has
no query. What can be read in two ways is refused, never guessed (see PathError). Idempotent. The upstream gets this form.
`raw.len` is always enough room (decoding never lengthens, bytes are never newly encoded).
"""

cdef enum Auth:
    AUTH_TOKEN = 0
    AUTH_NONE = 1
    AUTH_SESSION = 2

cdef class Route:
    """One `[[routes]]` entry, compiled. Immutable."""
    cdef readonly str name               # the place in the config, for logs and metrics: the path pattern
    cdef readonly int index              # position in the config
    cdef readonly Auth auth
    cdef readonly tuple scopes           # of bytes: all of them are required
    cdef readonly bytes scope_text       # the scopes joined by spaces, for WWW-Authenticate
    cdef readonly object upstream        # opaque to this module: what the proxy door forwards through, or None
    cdef readonly object extra           # opaque to this module: settings of the door
    cdef readonly tuple parameter_names  # of str, in the pattern's order

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

cdef class RouteSnapshot:
    cdef void match(self, Slice host, Slice path, Slice method, RouteMatch* out) noexcept
    """Find the most specific route: exact host before `*.suffix` before any host; literal before {name} before {*name}.

    `path` must be canonical; `host` is lower case without a port. Does not allocate.
    """
