# cython: autotestdict=False, auto_pickle=False
"""The engine behind every door, and `FrontDoor`, its ASGI adapter. See front.pxd for the contract."""

cimport cython
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_CheckExact, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from cpython.dict cimport PyDict_GetItem
from cpython.list cimport PyList_CheckExact, PyList_GET_ITEM, PyList_GET_SIZE
from cpython.object cimport PyObject
from cpython.tuple cimport PyTuple_CheckExact, PyTuple_GET_ITEM, PyTuple_GET_SIZE
from cpython.unicode cimport PyUnicode_CheckExact
from libc.stdint cimport int32_t, int64_t, uint8_t, uint64_t
from libc.string cimport memchr, memcmp, memset

import os

from gateway._native.metrics cimport MetricsBlock
from gateway._native.routes cimport (
    AUTH_NONE,
    AUTH_SESSION,
    AUTH_TOKEN,
    PATH_BYTES_MAX,
    ROUTE_FOUND,
    ROUTE_NO_METHOD,
    Route,
    RouteSnapshot,
    path_canonical,
)
from gateway._native.route_policy cimport (
    POLICY_ALLOWED,
    POLICY_AWAY,
    POLICY_CLAIM,
    POLICY_DENIED,
    Asked,
    AskedHeader,
    Decided,
    DeciderCell,
    Known,
    PolicyOutcome,
    RoutePolicy,
    Sampling,
)
from gateway._native.slice cimport Slice, slice_empty, slice_equal, slice_equal_lower, slice_find, slice_of, slice_sub
from gateway._native.token cimport (
    REASON_COUNT,
    REASON_KEYS_UNAVAILABLE,
    REASON_KID_UNKNOWN,
    REASON_OK,
    REASON_OPAQUE,
    REASON_SENDER_CONSTRAINED,
    Identity,
    TokenValidator,
    TokenVerdict,
)

from gateway._native.upstream cimport UpstreamPool
from gateway._native.vm cimport Decider

from gateway._native.token import REASONS as _TOKEN_REASONS
from gateway._native.upstream import UpstreamFault

cdef extern from "Python.h":
    const char* PyUnicode_AsUTF8AndSize(object text, Py_ssize_t* size) except NULL
    PyObject* PyTuple_GET_ITEM_borrowed "PyTuple_GET_ITEM"(object, Py_ssize_t)

cdef extern from "<time.h>" nogil:
    cdef struct timespec:
        long tv_sec
        long tv_nsec
    int clock_gettime(int clock, timespec* now)
    enum:
        CLOCK_MONOTONIC
        CLOCK_REALTIME_COARSE

# ORDER DOOR
DOORS = ("forward", "nginx", "envoy", "proxy")
KINDS = ("allow", "deny", "ask", "native")

# ORDER FRONT_REASON
_FRONT_REASONS = (
    "no_credentials",
    "credentials_malformed",
    "insufficient_scope",
    "no_route",
    "method_not_allowed",
    "path_refused",
    "host_invalid",
    "header_refused",
    "authorization_repeated",
    "headers_too_large",
    "forwarding_header_repeated",
    "original_request_missing",
    "proxy_untrusted",
    "method_invalid",
    "token_inactive",
    "introspection_unavailable",
    "no_upstream",
    "auth_unsupported",
    "internal_error",
    "policy_denied",
    "policy_incomplete",
    "policy_unavailable",
    "attributes_unavailable",
    "session_invalid",
    "session_unavailable",
    "cross_site",
    "policy_claim_invalid",
)

REASONS: tuple[str, ...] = _TOKEN_REASONS + ("",) * (FRONT_REASON_BASE - len(_TOKEN_REASONS)) + _FRONT_REASONS
_REASON_NUMBER = {name: number for number, name in enumerate(REASONS) if name}

assert len(_TOKEN_REASONS) == <int>REASON_COUNT <= <int>FRONT_REASON_BASE
assert len(REASONS) == FRONT_REASON_END

cdef const char* HEX = b"0123456789abcdef"


cdef inline int64_t monotonic_ns() noexcept nogil:
    cdef timespec now
    clock_gettime(CLOCK_MONOTONIC, &now)
    return <int64_t>now.tv_sec * 1_000_000_000 + now.tv_nsec


cdef inline int64_t wall_s() noexcept nogil:
    cdef timespec now
    clock_gettime(CLOCK_REALTIME_COARSE, &now)
    return now.tv_sec


cdef inline bytes bytes_of(Slice s):
    return PyBytes_FromStringAndSize(s.ptr, s.len)


cdef inline Slice borrow(bytes owner) noexcept:
    """Borrow all of `owner`, which the caller keeps alive."""
    return slice_of(PyBytes_AS_STRING(owner), PyBytes_GET_SIZE(owner))


# --- What a request's headers say --------------------------------------------------------------------------------


cdef inline bint _take(Slice* place, Slice value) noexcept nogil:
    """Fill a place once; False when it was filled before."""
    if place.ptr != NULL:
        return False
    place[0] = value
    return True


cdef inline bint _named(Slice name, const char* wanted) noexcept nogil:
    """Compare a name with a literal of the same length."""
    return memcmp(name.ptr, wanted, <size_t>name.len) == 0


cdef uint8_t[256] PLAIN_NAME_BYTE


cdef void _fill_plain_names() noexcept:
    cdef int c
    for c in range(256):
        PLAIN_NAME_BYTE[c] = (97 <= c <= 122) or (48 <= c <= 57) or c == 45


_fill_plain_names()


cdef inline bint is_plain_name(Slice name) noexcept nogil:
    """Tell whether a lower-case header name has letters, digits and `-` only, and at least one byte."""
    cdef Py_ssize_t i
    cdef uint8_t plain = name.len > 0
    for i in range(name.len):
        plain &= PLAIN_NAME_BYTE[<uint8_t>name.ptr[i]]
    return plain


cdef int see_headers(const RequestView* view, Seen* seen, Py_ssize_t bytes_max) noexcept nogil:
    """Check the header table and note what matters; give 0 or the FrontReason of a refusal (design §13, law 2).

    Names of other bytes than letters, digits and `-` are refused: CGI-like servers fold `x_auth_subject`, and some of
    them `x.auth.subject`, into `x-auth-subject`. A header that decides anything may stand there once only: first and last
    are both guesses.
    """
    cdef int i
    cdef int refusal = 0
    cdef Slice name, value
    cdef Py_ssize_t total = 0
    cdef HeaderSlice* headers = view.headers
    memset(seen, 0, sizeof(Seen))
    for i in range(view.header_count):
        name = headers[i].name
        value = headers[i].value
        total += name.len + value.len
        if not is_plain_name(name):
            return FRONT_HEADER_REFUSED
        if name.len == 4:
            if _named(name, b"host") and not _take(&seen.host, value):
                return FRONT_HOST_INVALID
        elif name.len == 6:
            if _named(name, b"accept"):
                _take(&seen.accept, value)
        elif name.len == 13:
            if _named(name, b"authorization") and not _take(&seen.authorization, value):
                return FRONT_AUTHORIZATION_REPEATED
        elif name.len == 14:
            if _named(name, b"x-original-url") and not _take(&seen.original_url, value):
                refusal = FRONT_FORWARDING_REPEATED
            elif _named(name, b"sec-fetch-mode"):
                _take(&seen.fetch_mode, value)
            elif _named(name, b"sec-fetch-site"):
                _take(&seen.fetch_site, value)
        elif name.len == 15:
            if _named(name, b"x-forwarded-uri") and not _take(&seen.forwarded_uri, value):
                refusal = FRONT_FORWARDING_REPEATED
        elif name.len == 16:
            if _named(name, b"x-forwarded-host") and not _take(&seen.forwarded_host, value):
                refusal = FRONT_FORWARDING_REPEATED
        elif name.len == 17:
            if _named(name, b"x-forwarded-proto"):
                if not _take(&seen.forwarded_proto, value):
                    refusal = FRONT_FORWARDING_REPEATED
            elif _named(name, b"x-original-method") and not _take(&seen.original_method, value):
                refusal = FRONT_FORWARDING_REPEATED
        elif name.len == 18:
            if _named(name, b"x-forwarded-method") and not _take(&seen.forwarded_method, value):
                refusal = FRONT_FORWARDING_REPEATED
    if total > bytes_max:
        return FRONT_HEADERS_TOO_LARGE
    if seen.host.ptr == NULL:
        return FRONT_HOST_INVALID
    return refusal


cdef inline bint _is_label_byte(uint8_t c) noexcept nogil:
    return (97 <= c <= 122) or (48 <= c <= 57) or c == c"-" or c == c"." or c == c"_"


cdef Py_ssize_t canonical_host(Slice raw, char* target) noexcept nogil:
    """Write the host in lower case without port and final dot; give its length, or -1 (RFC 9110 §7.2, RFC 3986 §3.2.2).

    `target` has room for HOST_BYTES_MAX. Only reg-names of letters, digits, `-`, `.`, `_` and IPv6 literals pass; user
    information, percent escapes and empty hosts do not.
    """
    cdef Py_ssize_t i = 0
    cdef Py_ssize_t length = 0
    cdef uint8_t c
    cdef bint literal = raw.len > 0 and raw.ptr[0] == c"["
    while i < raw.len:
        c = <uint8_t>raw.ptr[i]
        if 65 <= c <= 90:
            c |= 0x20
        if literal:
            if not ((97 <= c <= 102) or (48 <= c <= 57) or c == c":" or c == c"." or c == c"[" or c == c"]"):
                return -1
        elif c == c":":
            break
        elif not _is_label_byte(c):
            return -1
        if length == HOST_BYTES_MAX:
            return -1
        target[length] = <char>c
        length += 1
        i += 1
        if literal and c == c"]":
            break
    if i < raw.len:
        if raw.ptr[i] != c":" or raw.len - i > 6:
            return -1
        i += 1
        while i < raw.len:
            if not 48 <= <uint8_t>raw.ptr[i] <= 57:
                return -1
            i += 1
    if literal:
        return length if length > 3 and target[length - 1] == c"]" else -1
    if length and target[length - 1] == c".":
        length -= 1
    return length if length and target[0] != c"." else -1


cdef bint is_method(Slice method) noexcept nogil:
    """Tell whether `method` is a plausible method: 1 to 32 letters or `-` (RFC 9110 §9.1 allows more than is in use)."""
    cdef Py_ssize_t i
    cdef uint8_t c
    if method.len < 1 or method.len > 32:
        return False
    for i in range(method.len):
        c = <uint8_t>method.ptr[i]
        if not ((65 <= c <= 90) or (97 <= c <= 122) or c == c"-"):
            return False
    return True


cdef inline bint is_space(char c) noexcept nogil:
    return c == c" " or c == c"\t"


cdef int cookie_value(const RequestView* view, Slice wanted, Slice* value) noexcept nogil:
    """Find the cookie of this name: 1 found, 0 not there, -1 there with two values (RFC 6265 §4.2, §5.4).

    Browsers send cookies of one name and several paths or domains in one header; which of them is ours could only be
    guessed, so that two values are none. Two equal ones are one.
    """
    cdef int i, found = 0
    cdef Py_ssize_t start, stop, equals
    cdef Slice text, name, given
    for i in range(view.header_count):
        if view.headers[i].name.len != 6 or not _named(view.headers[i].name, b"cookie"):
            continue
        text = view.headers[i].value
        start = 0
        while start < text.len:
            stop = start
            equals = -1
            while stop < text.len and text.ptr[stop] != c";":
                if equals < 0 and text.ptr[stop] == c"=":
                    equals = stop
                stop += 1
            while start < stop and is_space(text.ptr[start]):
                start += 1
            if equals >= start:
                name = slice_sub(text, start, equals)
                given = slice_sub(text, equals + 1, stop)
                while given.len > 0 and is_space(given.ptr[given.len - 1]):
                    given.len -= 1
                if slice_equal(name, wanted):
                    if found and not slice_equal(given, value[0]):
                        return -1
                    value[0] = given
                    found = 1
            start = stop + 1
    return found


cdef inline bint is_safe_method(Slice method) noexcept nogil:
    """Tell whether a method changes nothing (RFC 9110 §9.2.1)."""
    return (
        slice_equal(method, slice_of(b"GET", 3))
        or slice_equal(method, slice_of(b"HEAD", 4))
        or slice_equal(method, slice_of(b"OPTIONS", 7))
        or slice_equal(method, slice_of(b"TRACE", 5))
    )


cdef int bearer_token(Slice value, Slice* token) noexcept nogil:
    """Find the token of an Authorization header: 1 found, 0 another scheme, -1 malformed (RFC 6750 §2.1)."""
    return token_of(value, slice_of(b"bearer", 6), token)


cdef int token_of(Slice value, Slice scheme, Slice* token) noexcept nogil:
    """Find the token that an Authorization header holds under `scheme`: 1 found, 0 another scheme, -1 malformed.

    A list, a tab, or anything after the token is malformed. Whether the rest is a token at all is the validator's
    question.
    """
    cdef Py_ssize_t i = scheme.len
    if value.len < i or not slice_equal_lower(slice_sub(value, 0, i), scheme):
        return 0
    if value.len == i:
        return -1
    if value.ptr[i] != c" ":
        return -1 if value.ptr[i] == c"\t" or value.ptr[i] == c"," else 0
    while i < value.len and value.ptr[i] == c" ":
        i += 1
    token[0] = slice_sub(value, i, value.len)
    if token.len == 0:
        return -1
    if (
        memchr(token.ptr, c" ", <size_t>token.len) != NULL
        or memchr(token.ptr, c",", <size_t>token.len) != NULL
        or memchr(token.ptr, c"\t", <size_t>token.len) != NULL
    ):
        return -1
    return 1


cdef void split_query(Slice target, Slice* path, Slice* query) noexcept nogil:
    """Split a request target at its first `?`."""
    cdef const char* mark = <const char*>memchr(target.ptr, c"?", <size_t>target.len) if target.len else NULL
    if mark == NULL:
        path[0] = target
        query[0] = slice_empty()
        return
    path[0] = slice_sub(target, 0, mark - target.ptr)
    query[0] = slice_sub(target, mark - target.ptr + 1, target.len)


cdef bint split_url(Slice url, Slice* scheme, Slice* host, Slice* target) noexcept nogil:
    """Split `scheme://host/target`; a URL that begins with `/` has neither scheme nor host. False when it is no URL."""
    cdef Py_ssize_t start
    cdef Slice rest
    if url.len and url.ptr[0] == c"/":
        target[0] = url
        return True
    if url.len > 8 and slice_equal_lower(slice_sub(url, 0, 8), slice_of(b"https://", 8)):
        start = 8
    elif url.len > 7 and slice_equal_lower(slice_sub(url, 0, 7), slice_of(b"http://", 7)):
        start = 7
    else:
        return False
    scheme[0] = slice_sub(url, 0, start - 3)
    rest = slice_sub(url, start, url.len)
    start = slice_find(rest, c"/")
    if start < 1:
        return False
    host[0] = slice_sub(rest, 0, start)
    target[0] = slice_sub(rest, start, rest.len)
    return True


cdef Door door_of(Slice path) noexcept nogil:
    """Tell by the path of a request which door it knocks at."""
    if path.len < 12 or memcmp(path.ptr, b"/auth/", 6) != 0:
        return DOOR_PROXY
    if path.len == 13 and memcmp(path.ptr, b"/auth/forward", 13) == 0:
        return DOOR_FORWARD
    if path.len == 13 and memcmp(path.ptr, b"/auth/request", 13) == 0:
        return DOOR_NGINX
    if memcmp(path.ptr, b"/auth/envoy/", 12) == 0:
        return DOOR_ENVOY
    return DOOR_PROXY


# --- The engine --------------------------------------------------------------------------------------------------


@cython.final
cdef class RouteSettings:
    def __cinit__(
        self,
        object pool=None,
        *,
        bytes strip_prefix=b"",
        bytes scope_challenge=b"",
        object scope_mask=0,
        RoutePolicy policy=None,
    ):
        self.pool = pool
        self.strip_prefix = strip_prefix
        self.scope_challenge = scope_challenge
        self.scope_mask = scope_mask
        self.policy = policy


@cython.final
cdef class Judgement:
    def __cinit__(self):
        self.view.headers = self.header_slots
        self.view.header_count = 0
        self.asked = {}
        self.asked_before = {}

    cdef Known known_of(self, RoutePolicy policy, Decider decider):
        """Give the part of a policy request that the identity's token makes up: kept for ASKED_MAX of them, or twice.

        Those of the last ASKED_MAX that were met, and what is still here of the ones before: who comes often stays.
        """
        cdef Known known
        if self.asked_store is not decider.store or self.asked_principals is not policy.principals:
            self.asked = {}
            self.asked_before = {}
            self.asked_store = decider.store
            self.asked_principals = policy.principals
        known = <Known>self.asked.get(self.identity)
        if known is not None:
            return known
        known = <Known>self.asked_before.pop(self.identity, None)
        if known is None:
            known = policy.principals.known_of(decider, self.identity)
        if len(self.asked) >= ASKED_MAX:
            self.asked_before = self.asked
            self.asked = {}
        self.asked[self.identity] = known
        return known


@cython.final
cdef class Engine:
    def __cinit__(
        self,
        TokenValidator tokens not None,
        RouteSnapshot routes not None,
        *,
        tuple reserved=(),
        Py_ssize_t header_bytes_max=32768,
        int header_count_max=100,
        DeciderCell policies=None,
        TokenValidator sessions=None,
        bytes session_cookie not None=b"__Host-portcullis",
        Sampling sampling=None,
        bint proofs=False,
    ):
        cdef int i
        if not 0 < header_count_max <= HEADERS_MAX:
            raise ValueError(f"header_count_max must lie between 1 and {HEADERS_MAX}")
        if len(reserved) > RESERVED_MAX:
            raise ValueError("too many reserved paths")
        self.tokens = tokens
        self.routes = routes
        self.reserved = reserved
        self.policies = policies
        self.sessions = sessions
        self.session_cookie = session_cookie
        self.sampling = sampling
        self.proofs = proofs
        self.header_bytes_max = header_bytes_max
        self.header_count_max = header_count_max
        self.fixed_now_s = -1
        for i in range(256):
            self.hold_until_s[i] = 0

    def publish(self, RouteSnapshot routes not None, TokenValidator tokens not None):
        """Swap routes and validator in together; a request that is being judged keeps those that it began with."""
        self.routes = routes
        self.tokens = tokens

    def set_now(self, object now_s):
        """Fix the wall clock at `now_s` (Unix time) for tests, or give it back to the system with None."""
        self.fixed_now_s = -1 if now_s is None else now_s

    def hold(self, int issuer_index, int64_t until_s):
        """Deny unknown `kid`s of an issuer without asking until `until_s` (Unix time): a refresh has just been made."""
        if 0 <= issuer_index < 256:
            self.hold_until_s[issuer_index] = until_s

    cdef int judge(self, Judgement j, bint final) except -1:
        """Judge `j.view`. With `final`, what would be an ASK is a DENY. Raises nothing but MemoryError."""
        cdef int refusal
        cdef Slice target
        cdef RequestView* view = &j.view
        j.identity = None
        j.route = None
        j.decided = None
        j.routes = self.routes
        j.tokens = self.tokens
        j.by_session = False
        j.by_proof = False
        j.away = None
        j.from_cache = False
        j.issuer_index = -1
        j.kind = DENY
        j.reason = FRONT_INTERNAL
        j.method = view.method
        j.scheme = view.scheme
        j.query = view.query
        j.token = slice_empty()
        j.path = slice_empty()
        j.host = slice_empty()
        refusal = see_headers(view, &j.seen, self.header_bytes_max)
        target = view.path
        j.door = door_of(target)
        if j.door == DOOR_PROXY:
            if refusal == FRONT_FORWARDING_REPEATED:
                refusal = 0  # these headers decide nothing at the proxy door; the upstream gets ours
        elif refusal == 0:
            refusal = self._find_original(j, &target)
        if refusal == 0 and j.door == DOOR_PROXY and self._is_reserved(target):
            j.kind = NATIVE
            return 0
        if refusal == 0:
            refusal = self._find_route(j, target)
        if refusal == 0:
            refusal = self._authenticate(j, final)
        if refusal == 0 and (<RouteSettings>j.route.extra).policy is not None:
            refusal = self._decide(j, (<RouteSettings>j.route.extra).policy, final)
        if refusal:
            j.reason = refusal
            return 0
        j.reason = REASON_OK
        j.kind = ALLOW
        return 0

    cdef int _find_original(self, Judgement j, Slice* target) noexcept:
        """At a forward-auth endpoint, find method, host, scheme and target of the request that the proxy asks about."""
        cdef Slice whole
        cdef Seen* seen = &j.seen
        if not j.view.peer_trusted:
            return FRONT_PROXY_UNTRUSTED
        if j.door == DOOR_ENVOY:
            target[0] = slice_sub(target[0], 11, target[0].len)
            if seen.forwarded_proto.ptr != NULL:
                j.scheme = seen.forwarded_proto
            return 0
        if j.door == DOOR_FORWARD:
            if seen.forwarded_method.ptr == NULL or seen.forwarded_uri.ptr == NULL:
                return FRONT_ORIGINAL_MISSING
            j.method = seen.forwarded_method
            whole = seen.forwarded_uri
        else:
            if seen.original_method.ptr == NULL or seen.original_url.ptr == NULL:
                return FRONT_ORIGINAL_MISSING
            j.method = seen.original_method
            whole = slice_empty()
        if seen.forwarded_proto.ptr != NULL:
            j.scheme = seen.forwarded_proto
        if seen.forwarded_host.ptr != NULL:
            seen.host = seen.forwarded_host
        if j.door == DOOR_NGINX and not split_url(seen.original_url, &j.scheme, &seen.host, &whole):
            return FRONT_ORIGINAL_MISSING
        split_query(whole, target, &j.query)
        return 0

    cdef bint _is_reserved(self, Slice path) noexcept:
        cdef bytes name
        cdef Slice reserved
        for name in self.reserved:
            reserved = borrow(name)
            if reserved.ptr[reserved.len - 1] == c"/":
                if path.len >= reserved.len and memcmp(path.ptr, reserved.ptr, <size_t>reserved.len) == 0:
                    return True
            elif path.len == reserved.len and memcmp(path.ptr, reserved.ptr, <size_t>reserved.len) == 0:
                return True
        return False

    cdef int _find_route(self, Judgement j, Slice target) except -1:
        """Canonicalise host and path, and find the route; give 0 or the reason of a refusal."""
        cdef Py_ssize_t length
        if not is_method(j.method):
            return FRONT_METHOD_INVALID
        length = canonical_host(j.seen.host, j.host_buffer)
        if length < 0:
            return FRONT_HOST_INVALID
        j.host = slice_of(j.host_buffer, length)
        length = path_canonical(target, j.path_buffer, PATH_BYTES_MAX)
        if length < 0:
            return FRONT_PATH_REFUSED
        j.path = slice_of(j.path_buffer, length)
        j.routes.match(j.host, j.path, j.method, &j.match)
        if j.match.result == ROUTE_NO_METHOD:
            j.allowed = j.match.allowed
            return FRONT_METHOD_NOT_ALLOWED
        if j.match.result != ROUTE_FOUND:
            return FRONT_NO_ROUTE
        j.route = <Route>j.match.route
        return 0

    cdef int _authenticate(self, Judgement j, bint final) except -1:
        """Judge the credentials that the route asks for; give 0 or the reason, with `j.kind` ASK where Python may help."""
        cdef TokenVerdict verdict
        cdef int64_t now_s
        cdef int found
        if j.route.auth == AUTH_NONE:
            return 0
        found = self._find_credentials(j)
        if found:
            return found
        if j.by_proof:
            return self._take_proven(j, final)
        now_s = self.fixed_now_s if self.fixed_now_s >= 0 else wall_s()
        if j.known_only:
            j.identity = j.tokens.judge_kept(j.token, now_s, &verdict)
            if verdict.reason == REASON_COUNT:
                j.tokens.forgive_miss()
                j.kind = ASK
                return FRONT_INTERNAL
        else:
            j.identity = j.tokens.judge(j.token, now_s, &verdict)
        j.from_cache = verdict.from_cache
        j.issuer_index = verdict.issuer_index
        if verdict.reason != REASON_OK:
            # What is kept of a session ends soon, and with each change of it: its store is asked then.
            if not final and (j.by_session or self._may_ask(&verdict, now_s)):
                j.kind = ASK
            elif j.by_session:
                return FRONT_SESSION_INVALID
            return verdict.reason
        return self._check_scopes(j)

    cdef int _check_scopes(self, Judgement j) noexcept:
        cdef uint64_t wanted = (<RouteSettings>j.route.extra).scope_mask
        return FRONT_INSUFFICIENT_SCOPE if j.identity.scope_mask & wanted != wanted else 0

    cdef int _take_proven(self, Judgement j, bint final) noexcept:
        """Take the identity whose proof of possession Python has checked for this very request; ask where it has not.

        Nothing of it is kept: a proof counts for one request (RFC 9449 §4.3).
        """
        if j.proven is None:
            if not final:
                j.kind = ASK
            return REASON_SENDER_CONSTRAINED
        j.identity = j.proven
        return self._check_scopes(j)

    cdef int _decide(self, Judgement j, RoutePolicy policy, bint final) except -1:
        """Ask the policies about a request whose token is good; give 0 or the reason, with `j.kind` ASK where an entity
        must be fetched first. Whatever goes wrong denies."""
        cdef Decider decider = None if self.policies is None else self.policies.decider
        cdef Known known
        cdef Asked asked
        cdef PolicyOutcome outcome
        cdef int64_t started_ns = 0
        cdef bint doubtful = self.policies is not None and self.policies.doubtful
        if decider is None:
            return FRONT_POLICY_UNAVAILABLE
        if j.identity is None:
            return FRONT_POLICY_INCOMPLETE
        asked.method = j.method
        asked.host = j.host
        asked.path = j.path
        asked.scheme = j.scheme
        asked.query = j.query
        asked.match = &j.match
        asked.headers = <const AskedHeader*>j.view.headers
        asked.header_count = j.view.header_count
        if self.sampling is not None:
            started_ns = monotonic_ns()
        try:
            known = j.known_of(policy, decider)
            outcome = policy.decide(decider, known, &asked)
            if outcome == POLICY_AWAY and not final:
                j.away = policy.describe(decider, known, &asked)
                j.kind = ASK
                return FRONT_ATTRIBUTES_UNAVAILABLE
            if doubtful and outcome == POLICY_DENIED:
                return FRONT_POLICY_UNAVAILABLE
            if self.sampling is not None and self.sampling.wants_c(outcome == POLICY_ALLOWED):
                started_ns = monotonic_ns() - started_ns
                j.decided = policy.record(decider, known, &asked, outcome)
                j.decided.elapsed_ns = started_ns
        except ValueError:
            return FRONT_POLICY_INCOMPLETE
        if outcome == POLICY_ALLOWED:
            return 0
        if outcome == POLICY_AWAY:
            return FRONT_ATTRIBUTES_UNAVAILABLE
        if outcome == POLICY_CLAIM:
            return FRONT_POLICY_CLAIM
        return FRONT_POLICY_DENIED if outcome == POLICY_DENIED else FRONT_POLICY_INCOMPLETE

    cdef int _find_credentials(self, Judgement j) noexcept:
        """Find what the route asks for: `j.token`, and in `j.tokens` who judges it; give 0 or the reason."""
        cdef int found
        if j.route.auth == AUTH_SESSION:
            return self._find_session(j)
        if j.route.auth != AUTH_TOKEN:
            return FRONT_UNSUPPORTED_AUTH
        if j.seen.authorization.ptr == NULL:
            return FRONT_NO_CREDENTIALS
        found = bearer_token(j.seen.authorization, &j.token)
        if found == 0 and self.proofs:
            found = token_of(j.seen.authorization, slice_of(b"dpop", 4), &j.token)
            j.by_proof = found > 0
        if found == 0:
            return FRONT_NO_CREDENTIALS
        return 0 if found > 0 else FRONT_CREDENTIALS_MALFORMED

    cdef int _find_session(self, Judgement j) noexcept:
        """Find the session cookie. Sessions have a validator of their own: no token passes for one, nor one for a token.

        A browser sends cookies along with what another site makes it send. `SameSite=Lax` keeps them from requests that
        change something; where the browser says that such a request is another site's, it is refused too.
        """
        cdef int found
        if self.sessions is None:
            return FRONT_UNSUPPORTED_AUTH
        j.tokens = self.sessions
        j.by_session = True
        found = cookie_value(&j.view, borrow(self.session_cookie), &j.token)
        if found == 0 or (found > 0 and j.token.len == 0):
            return FRONT_NO_CREDENTIALS
        if found < 0:
            return FRONT_CREDENTIALS_MALFORMED
        if (
            j.seen.fetch_site.ptr != NULL
            and not is_safe_method(j.method)
            and slice_equal(j.seen.fetch_site, slice_of(b"cross-site", 10))
        ):
            return FRONT_CROSS_SITE
        return 0

    cdef bint _may_ask(self, TokenVerdict* verdict, int64_t now_s) noexcept:
        if verdict.reason == REASON_OPAQUE or verdict.reason == REASON_KEYS_UNAVAILABLE:
            return True
        if verdict.reason != REASON_KID_UNKNOWN:
            return False
        return not (0 <= verdict.issuer_index < 256 and now_s < self.hold_until_s[verdict.issuer_index])


# --- Answers -----------------------------------------------------------------------------------------------------


@cython.final
cdef class DenyAnswer:
    """One refusal, ready to send: its status, fixed headers, and bodies that lack only the request's id."""

    cdef readonly int status
    cdef readonly int nginx_status            # what nginx's auth_request can pass on: 401 or 403
    cdef readonly tuple headers               # ((name, value), …), without content-type
    cdef readonly bytes problem_head          # problem+json before the request id
    cdef readonly bytes problem_tail
    cdef readonly bytes page_head             # HTML before the request id
    cdef readonly bytes page_tail
    cdef tuple status_header                  # X-Auth-Status for the nginx door

    def __cinit__(
        self,
        int status,
        *,
        int nginx_status,
        tuple headers,
        bytes problem_head not None,
        bytes problem_tail not None,
        bytes page_head not None,
        bytes page_tail not None,
    ):
        self.status = status
        self.nginx_status = nginx_status
        self.headers = headers
        self.problem_head = problem_head
        self.problem_tail = problem_tail
        self.page_head = page_head
        self.page_tail = page_tail
        self.status_header = (b"x-auth-status", str(status).encode())


@cython.final
cdef class Verdict:
    """A copy of one judgement that outlives the request's buffers: for what Python does with it."""

    cdef readonly str kind
    cdef readonly str door
    cdef readonly str reason
    cdef readonly str request_id
    cdef readonly str method
    cdef readonly str scheme
    cdef readonly str host
    cdef readonly str path
    cdef readonly bytes query
    cdef readonly bytes token
    cdef readonly int issuer_index
    cdef readonly bint cached
    cdef readonly bint by_session     # `token` is the value of the session cookie
    cdef readonly bint by_proof       # `token` came under the scheme DPoP: it needs its proof
    cdef readonly bint peer_trusted
    cdef readonly Route route
    cdef readonly Identity identity
    cdef readonly dict parameters
    cdef readonly tuple away          # the question of an ASK for entities (see RoutePolicy.describe), or None

    @property
    def target(self):
        """What goes upstream: the canonical path that was judged, less the route's `strip_prefix`, and the query."""
        cdef bytes path = self.path.encode()
        cdef bytes prefix = b""
        if self.route is not None and isinstance(self.route.extra, RouteSettings):
            prefix = (<RouteSettings>self.route.extra).strip_prefix
        return join_target(stripped(borrow(path), borrow(prefix)), borrow(self.query))

    def __repr__(self):
        return f"Verdict({self.kind} {self.reason} at {self.door}: {self.method} {self.host}{self.path})"


# --- The ASGI adapter --------------------------------------------------------------------------------------------


cdef str _PROVEN = "portcullis.proven"
PROVEN = _PROVEN


cdef Identity proven_in(dict scope):
    """Give the identity that Python put into a scope after it has checked a proof; no client can reach a scope's keys."""
    cdef PyObject* item = PyDict_GetItem(scope, _PROVEN)
    return <Identity>item if item != NULL and isinstance(<object>item, Identity) else None


cdef bint view_scope(RequestView* view, dict scope, int header_count_max) except -1:
    """Fill `view` with slices of an ASGI scope's objects, which the caller keeps alive. False when it has too many headers.

    Every field is set then, too: none may point into an earlier request.
    """
    cdef PyObject* item
    cdef PyObject* pair
    cdef list headers
    cdef Py_ssize_t count, i
    cdef Py_ssize_t size = 0
    item = PyDict_GetItem(scope, "method")
    if item == NULL:
        view.method = slice_of(b"GET", 3)  # websocket scopes have none
    else:
        view.method.ptr = PyUnicode_AsUTF8AndSize(<object>item, &size)
        view.method.len = size
    item = PyDict_GetItem(scope, "raw_path")
    if item == NULL or not PyBytes_CheckExact(<object>item):
        raise ValueError("the server gives no raw_path")
    split_query(slice_of(PyBytes_AS_STRING(<object>item), PyBytes_GET_SIZE(<object>item)), &view.path, &view.query)
    item = PyDict_GetItem(scope, "query_string")
    if item == NULL or not PyBytes_CheckExact(<object>item):
        raise ValueError("the server gives no query_string")
    view.query = slice_of(PyBytes_AS_STRING(<object>item), PyBytes_GET_SIZE(<object>item))
    item = PyDict_GetItem(scope, "scheme")
    if item == NULL or not PyUnicode_CheckExact(<object>item):
        view.scheme = slice_empty()
    else:
        view.scheme.ptr = PyUnicode_AsUTF8AndSize(<object>item, &size)
        view.scheme.len = size
    item = PyDict_GetItem(scope, "headers")
    if item == NULL or not PyList_CheckExact(<object>item):
        headers = list(scope["headers"])
        scope["headers"] = headers
    else:
        headers = <list>item
    count = PyList_GET_SIZE(headers)
    if count > header_count_max:
        view.header_count = 0
        return False
    for i in range(count):
        pair = PyList_GET_ITEM(headers, i)
        if not PyTuple_CheckExact(<object>pair) or PyTuple_GET_SIZE(<object>pair) != 2:
            headers[i] = tuple(<object>pair)
            pair = PyList_GET_ITEM(headers, i)
            if PyTuple_GET_SIZE(<object>pair) != 2:
                raise ValueError("a header is not a pair")
        item = PyTuple_GET_ITEM_borrowed(<object>pair, 0)
        if not PyBytes_CheckExact(<object>item):
            raise TypeError("header names are bytes")
        view.headers[i].name = slice_of(PyBytes_AS_STRING(<object>item), PyBytes_GET_SIZE(<object>item))
        item = PyTuple_GET_ITEM_borrowed(<object>pair, 1)
        if not PyBytes_CheckExact(<object>item):
            raise TypeError("header values are bytes")
        view.headers[i].value = slice_of(PyBytes_AS_STRING(<object>item), PyBytes_GET_SIZE(<object>item))
    view.header_count = <int>count
    return True


cdef dict NO_BODY = {"type": "http.response.body", "body": b""}  # servers that complete `send` at once keep no message


cdef enum Inline:
    # What FrontDoor.answer_inline did, or leaves to do.
    INLINE_ANSWERED = 1
    INLINE_RELAY = 2           # allowed, and for an upstream: the loop's thread serves it
    INLINE_SCHEDULE = 3        # all else: as the server does it


cdef class FrontDoor:
    """The ASGI application: judges each request, answers what it can at once, and hands on the rest.

    `app` answers our own endpoints and the lifespan; `ask(door, verdict, scope, receive, send)` and
    `websocket(door, verdict, scope, receive, send)` are coroutine functions; `fault(kind, message, request_id, route, html,
    started)` gives the messages that answer an upstream's fault, or None. `drop` names the headers that never go
    upstream from a client. `sync_send` is the type whose bound `send` completes at once (granian's protocol), or None.
    One event loop a door.
    """

    cdef readonly Engine engine
    cdef Judgement scratch                     # of the event loop's thread
    cdef Judgement inline_scratch              # of the server's own thread
    cdef object app
    cdef object ask
    cdef object websocket
    cdef object fault                          # callable: what an upstream's fault is answered with
    cdef frozenset drop                        # names of headers that never come from a client
    cdef object access                         # callable, or None
    cdef object audit                          # callable, or None
    cdef object decisions                      # callable: Decided, request id, door, route name; or None
    cdef object is_trusted                     # callable: peer address -> bool
    cdef object sync_send
    cdef object login                          # callable: Verdict -> bytes | None, or None
    cdef dict trusted                          # peer address -> bool, bounded
    cdef list answers                          # DenyAnswer by reason, of the proxy door
    cdef list forward_answers                  # the same of the forward-auth doors
    cdef tuple blank_identity                  # identity headers with empty values
    cdef MetricsBlock metrics
    cdef int32_t decision_slots[DOOR_COUNT][FRONT_REASON_END]
    cdef int32_t duration_slots[DOOR_COUNT]
    cdef uint64_t random_high
    cdef uint64_t random_low
    cdef bint decision_id
    cdef public bint draining

    def __cinit__(
        self,
        Engine engine not None,
        *,
        object app,
        object ask,
        object websocket,
        object fault,
        frozenset drop=frozenset(),
        object is_trusted,
        object answers,
        object forward_answers,
        tuple blank_identity=(),
        MetricsBlock metrics=None,
        object decision_slot=None,
        object duration_slot=None,
        object access=None,
        object audit=None,
        object decisions=None,
        object login=None,
        object sync_send=None,
        bint decision_id=True,
    ):
        cdef int door, reason
        self.engine = engine
        self.scratch = Judgement()
        self.inline_scratch = Judgement()
        self.inline_scratch.known_only = True
        self.app = app
        self.ask = ask
        self.websocket = websocket
        self.fault = fault
        self.drop = drop
        self.is_trusted = is_trusted
        self.answers = list(answers)
        self.forward_answers = list(forward_answers)
        if len(self.answers) != FRONT_REASON_END or len(self.forward_answers) != FRONT_REASON_END:
            raise ValueError("an answer for each reason is needed")
        self.blank_identity = blank_identity
        self.metrics = metrics
        self.access = access
        self.audit = audit
        self.decisions = decisions
        self.login = login
        self.sync_send = sync_send
        self.decision_id = decision_id
        self.draining = False
        self.trusted = {}
        self.random_high = int.from_bytes(os.urandom(8), "big")
        self.random_low = int.from_bytes(os.urandom(8), "big")
        for door in range(DOOR_COUNT):
            self.duration_slots[door] = -1 if duration_slot is None else duration_slot(DOORS[door])
            for reason in range(FRONT_REASON_END):
                self.decision_slots[door][reason] = -1
                if decision_slot is not None and REASONS[reason]:
                    self.decision_slots[door][reason] = decision_slot(DOORS[door], REASONS[reason])

    def publish(self, FrontDoor other not None):
        """Take over everything that `other` was made with, whole: what a reload builds is swapped in here.

        A request that is being answered goes on with what it began with. Whether we are draining stays as it is.
        """
        cdef tuple former = (
            self.engine, self.app, self.ask, self.websocket, self.fault, self.drop, self.access, self.audit,
            self.decisions, self.is_trusted, self.login, self.trusted, self.answers, self.forward_answers,
            self.blank_identity,
        )  # kept until all is swapped, so that no finaliser runs in between
        self.engine = other.engine
        self.app = other.app
        self.ask = other.ask
        self.websocket = other.websocket
        self.fault = other.fault
        self.drop = other.drop
        self.access = other.access
        self.audit = other.audit
        self.decisions = other.decisions
        self.is_trusted = other.is_trusted
        self.login = other.login
        self.trusted = {}
        self.answers = other.answers
        self.forward_answers = other.forward_answers
        self.blank_identity = other.blank_identity
        self.decision_id = other.decision_id
        del former

    # -- the three ways in ----------------------------------------------------------------------------------------

    def __call__(self, dict scope not None, object receive, object send):
        """Answer one ASGI connection; gives an awaitable, finished already where the answer was at hand."""
        cdef object kind = scope["type"]
        if kind == "http":
            return self._serve(scope, receive, send, 0, False)
        if kind == "websocket":
            return self.websocket(self, self.judge_scope(scope), scope, receive, send)
        return self.app(scope, receive, send)

    def finish(self, dict scope not None, object receive, object send, str reason=None, bint fetched=False):
        """Judge once more after an ASK, for good; with `reason`, refuse for that reason. Gives an awaitable.

        `fetched`: entities were fetched meanwhile, as the decision log will say.
        """
        return self._serve(scope, receive, send, 0 if reason is None else _REASON_NUMBER[reason], True, fetched)

    def judge_scope(self, dict scope not None, bint final=False, str reason=None, bint fetched=False):
        """Judge a scope without answering it: for WebSocket handshakes, tests and `explain`. See `finish`."""
        cdef Judgement j = Judgement()
        cdef bytes request_id = self._new_id()
        self._judge(j, scope, final)
        self._overrule(j, 0 if reason is None else _REASON_NUMBER[reason], fetched)
        self._count(j)
        if j.decided is not None:
            self._note_decision(j, request_id)
        return self._copy(j, request_id)

    def judge_again(self, dict scope not None):
        """Judge a scope of which something was learned after an ASK: it may be an ASK for something else. Counts nothing."""
        cdef Judgement j = Judgement()
        self._judge(j, scope, False)
        return self._copy(j, self._new_id())

    cdef int _judge(self, Judgement j, dict scope, bint final) except -1:
        """Judge `scope` into `j`; a scope that cannot be read is a DENY."""
        cdef bint readable
        j.started_ns = monotonic_ns()
        try:
            j.view.peer_trusted = self._peer_is_trusted(scope)
            j.proven = proven_in(scope) if self.engine.proofs else None
            readable = view_scope(&j.view, scope, self.engine.header_count_max)
        except (KeyError, TypeError, ValueError, UnicodeError):
            j.kind = DENY
            j.door = DOOR_PROXY
            j.reason = FRONT_INTERNAL
            j.proven = None
            j.identity = None
            j.route = None
            j.decided = None
            j.host = j.path = j.token = j.method = j.query = j.scheme = slice_empty()
            memset(&j.seen, 0, sizeof(Seen))
            return 0
        self.engine.judge(j, final)
        if not readable:
            j.kind = DENY
            j.reason = FRONT_HEADERS_TOO_LARGE
            j.identity = None
            j.route = None
            j.decided = None
        return 0

    cdef bint _peer_is_trusted(self, dict scope) except -1:
        cdef object client = scope.get("client")
        cdef object known
        cdef object address = client[0] if client else ""
        cdef dict trusted = self.trusted  # while `is_trusted` runs, `publish` may put another one in its place
        known = trusted.get(address)
        if known is None:
            known = bool(self.is_trusted(address))
            if len(trusted) >= 4096:
                trusted.clear()
            trusted[address] = known
        return known

    cdef int _overrule(self, Judgement j, int override, bint fetched) except -1:
        """Refuse for the reason `override`, unless it is 0; say of a decision that entities were fetched for it."""
        if override and j.kind != NATIVE:
            j.kind = DENY
            j.reason = override
            j.identity = None
            if override != FRONT_ATTRIBUTES_UNAVAILABLE:
                j.decided = None  # whatever policies said counts for nothing
            elif j.decided is not None:
                j.decided.lack()
        if j.decided is not None:
            j.decided.fetched = fetched
        return 0

    cdef object _serve(self, dict scope, object receive, object send, int override, bint final, bint fetched=False):
        cdef Judgement j = self.scratch
        self._judge(j, scope, final)
        self._overrule(j, override, fetched)
        if j.kind == NATIVE:
            return self.app(scope, receive, send)
        if j.kind == ASK:
            return self.ask(self, self._copy(j, self._new_id()), scope, receive, send)
        if j.kind == ALLOW and j.door == DOOR_PROXY:
            return self._forward(j, scope, receive, send)
        return self._answer(j, scope, send)

    cdef object _answer(self, Judgement j, dict scope, object send):
        """Send an ALLOW of forward-auth or a DENY."""
        cdef bytes request_id = self._new_id()
        cdef dict start = self._start(j, request_id)
        cdef dict rest = {"type": "http.response.body", "body": j.body}
        self._account(j, start["status"], request_id)
        if self.sync_send is not None and type(getattr(send, "__self__", None)) is self.sync_send:
            send(start)
            return send(rest)
        return _send_both(send, start, rest)

    cdef int answer_inline(self, object watcher) except -1:
        """Answer a server's request on its own thread where no Python and no upstream is needed; tell what to do else.

        New tokens go to the loop: a public-key operation here would hold up the server's threads, and measured 8 % more
        CPU time a request.
        """
        cdef Judgement j = self.inline_scratch
        cdef object scope = watcher.scope
        cdef object send
        cdef bytes request_id
        cdef dict start
        if type(scope) is not dict or PyDict_GetItem(scope, "method") == NULL:
            return INLINE_SCHEDULE
        self._judge(j, scope, False)
        if j.kind == ASK or j.kind == NATIVE:
            return INLINE_SCHEDULE
        if j.kind == ALLOW and j.door == DOOR_PROXY:
            return INLINE_RELAY
        request_id = self._new_id()
        start = self._start(j, request_id)
        self._account(j, start["status"], request_id)
        send = watcher.proto.send
        send(start)
        send(NO_BODY if j.kind == ALLOW else {"type": "http.response.body", "body": j.body})
        watcher.done()
        return INLINE_ANSWERED

    # -- the answers ----------------------------------------------------------------------------------------------

    cdef dict _start(self, Judgement j, bytes request_id):
        cdef list headers
        if j.kind == ALLOW:
            headers = list(self.blank_identity if j.identity is None else j.identity.headers)
            if self.decision_id:
                headers.append((b"x-auth-decision-id", request_id))
            if self.draining:
                headers.append((b"connection", b"close"))
            j.body = b""
            return {"type": "http.response.start", "status": 200, "headers": headers}
        return self._refusal(j, request_id)

    cdef dict _refusal(self, Judgement j, bytes request_id):
        cdef DenyAnswer answer = (self.answers if j.door == DOOR_PROXY else self.forward_answers)[j.reason]
        cdef int status = answer.status
        cdef list headers = list(answer.headers)
        cdef bytes location = self._login_location(j, request_id)
        cdef tuple status_header = answer.status_header
        if location is not None:
            status = 302
            status_header = (b"x-auth-status", b"302")
            headers.append((b"location" if j.door != DOOR_NGINX else b"x-auth-login", location))
        elif j.reason == FRONT_INSUFFICIENT_SCOPE:
            headers.append((b"www-authenticate", (<RouteSettings>j.route.extra).scope_challenge))
        if j.door == DOOR_NGINX:
            headers.append(status_header)
            status = 401 if location is not None else answer.nginx_status
        elif j.door == DOOR_PROXY and j.reason == FRONT_METHOD_NOT_ALLOWED:
            headers.append((b"allow", bytes_of(j.allowed)))
        headers.append((b"x-request-id", request_id))
        if self.draining:
            headers.append((b"connection", b"close"))
        if slice_accepts_html(j.seen.accept):
            headers.append((b"content-type", b"text/html; charset=utf-8"))
            headers.append((b"content-security-policy", b"default-src 'none'; style-src 'unsafe-inline'"))
            j.body = answer.page_head + request_id + answer.page_tail
        else:
            headers.append((b"content-type", b"application/problem+json"))
            j.body = answer.problem_head + request_id + answer.problem_tail
        return {"type": "http.response.start", "status": status, "headers": headers}

    cdef bytes _login_location(self, Judgement j, bytes request_id):
        """Where a browser without a valid token is sent, or None (RFC 6750 answers are for API clients)."""
        if self.login is None or j.route is None or self.answers[j.reason].status != 401:
            return None
        if not slice_accepts_html(j.seen.accept):
            return None
        if j.seen.fetch_mode.ptr != NULL and not slice_equal_lower(j.seen.fetch_mode, slice_of(b"navigate", 8)):
            return None
        return self.login(self._copy(j, request_id))

    cdef object _forward(self, Judgement j, dict scope, object receive, object send):
        """Hand an allowed request to its upstream; gives an awaitable."""
        cdef RouteSettings settings = <RouteSettings>j.route.extra
        cdef UpstreamPool pool
        cdef Relayed relayed
        cdef tuple identity
        cdef Slice target
        cdef bytes joined
        if settings.pool is None:
            j.kind = DENY
            j.reason = FRONT_NO_UPSTREAM
            j.identity = None
            return self._answer(j, scope, send)
        pool = <UpstreamPool?>settings.pool
        relayed = Relayed.__new__(Relayed)
        relayed.door = self
        relayed.request_id = self._new_id()
        relayed.route = j.route
        relayed.door_number = j.door
        relayed.html = slice_accepts_html(j.seen.accept)
        relayed.started_ns = j.started_ns
        relayed.send = send
        self._count(j)
        if j.decided is not None:
            self._note_decision(j, relayed.request_id)
        identity = self.blank_identity if j.identity is None else j.identity.headers
        if self.decision_id:
            identity = identity + ((b"x-auth-decision-id", relayed.request_id),)
        target = stripped(j.path, borrow(settings.strip_prefix))
        if j.query.len or target.len == 0 or target.ptr[0] != c"/":
            joined = join_target(target, j.query)
            target = borrow(joined)
        if self.access is not None:
            relayed.verdict = self._copy(j, relayed.request_id)
        relayed.exchange = pool.forward_c(scope, receive, send, target, identity, self.drop, j.view.peer_trusted)
        relayed.steps = relayed.exchange.__await__()
        if self.sync_send is not None and type(getattr(send, "__self__", None)) is self.sync_send:
            return relayed
        return _await_relayed(relayed)

    cdef object _relay_ended(self, Relayed relayed):
        cdef int64_t elapsed_ns = monotonic_ns() - relayed.started_ns
        cdef int32_t slot = self.duration_slots[relayed.door_number]
        if slot >= 0:
            self.metrics.observe_ns(slot, <uint64_t>elapsed_ns)
        if relayed.verdict is not None:
            self.access(relayed.verdict, relayed.status or relayed.exchange.status, elapsed_ns)

    # -- what is kept about a request -----------------------------------------------------------------------------

    cdef bytes _new_id(self):
        """A 128-bit identifier as 32 hex digits (SplitMix64 from os.urandom: unique, not secret)."""
        cdef uint64_t z, high, low
        cdef int i
        cdef char text[32]
        self.random_low += 0x9E3779B97F4A7C15ULL
        z = self.random_low
        z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9ULL
        z = (z ^ (z >> 27)) * 0x94D049BB133111EBULL
        low = z ^ (z >> 31)
        high = self.random_high
        for i in range(16):
            text[i] = HEX[(high >> (60 - 4 * i)) & 15]
            text[16 + i] = HEX[(low >> (60 - 4 * i)) & 15]
        return PyBytes_FromStringAndSize(text, 32)

    cdef Verdict _copy(self, Judgement j, bytes request_id):
        cdef Verdict v = Verdict.__new__(Verdict)
        cdef int i
        v.kind = KINDS[<int>j.kind]
        v.door = DOORS[<int>j.door]
        v.reason = REASONS[j.reason]
        v.request_id = request_id.decode()
        v.method = bytes_of(j.method).decode("ascii", "replace")
        v.scheme = bytes_of(j.scheme).decode("ascii", "replace")
        v.host = bytes_of(j.host).decode("ascii", "replace")
        v.path = bytes_of(j.path).decode("ascii", "replace")
        v.query = bytes_of(j.query)
        v.token = bytes_of(j.token)
        v.issuer_index = -1 if j.by_session else j.issuer_index
        v.cached = j.from_cache
        v.by_session = j.by_session
        v.by_proof = j.by_proof
        v.peer_trusted = j.view.peer_trusted
        v.route = j.route
        v.identity = j.identity
        v.away = j.away
        v.parameters = {}
        if j.route is not None:
            for i in range(j.match.parameter_count):
                v.parameters[j.route.parameter_names[i]] = bytes_of(j.match.parameter[i]).decode("ascii", "replace")
        return v

    cdef inline void _count(self, Judgement j) noexcept:
        cdef int32_t slot
        if self.metrics is not None:
            slot = self.decision_slots[<int>j.door][j.reason]
            if slot >= 0:
                self.metrics.add(slot, 1)

    cdef object _note_decision(self, Judgement j, bytes request_id):
        """Hand what the policies decided to the decision log, once for each request that is answered."""
        cdef Decided decided = j.decided
        j.decided = None
        if self.decisions is not None:
            self.decisions(decided, request_id.decode(), DOORS[<int>j.door], j.route.name)

    cdef object _account(self, Judgement j, int status, bytes request_id):
        """Count one answer; write its log lines where they are wanted."""
        cdef int64_t elapsed_ns
        cdef int32_t slot
        self._count(j)
        if j.decided is not None:
            self._note_decision(j, request_id)
        if self.metrics is not None or self.access is not None:
            elapsed_ns = monotonic_ns() - j.started_ns
            slot = self.duration_slots[<int>j.door]
            if slot >= 0:
                self.metrics.observe_ns(slot, <uint64_t>elapsed_ns)
            if self.access is not None:
                self.access(self._copy(j, request_id), status, elapsed_ns)
        if self.audit is not None and j.kind == DENY:
            self.audit(self._copy(j, request_id), status)


cdef bint slice_accepts_html(Slice accept) noexcept:
    """Tell whether an Accept header names text/html outright, as browsers do for pages and no API client does."""
    cdef Py_ssize_t i
    for i in range(accept.len - 8):
        if accept.ptr[i] == c"t" and memcmp(accept.ptr + i, b"text/html", 9) == 0:
            return True
    return False


async def _send_both(send, dict start, dict rest):
    await send(start)
    await send(rest)


cdef inline Slice stripped(Slice path, Slice prefix) noexcept nogil:
    """Take `prefix` from the front of a path where it ends at a segment's end."""
    if prefix.len == 0 or path.len < prefix.len or memcmp(path.ptr, prefix.ptr, <size_t>prefix.len) != 0:
        return path
    if prefix.ptr[prefix.len - 1] == c"/":
        return slice_sub(path, prefix.len - 1, path.len)
    if path.len > prefix.len and path.ptr[prefix.len] != c"/":
        return path
    return slice_sub(path, prefix.len, path.len)


cdef bytes join_target(Slice path, Slice query):
    """Write path and query as a request target; a path that lost its first slash to `strip_prefix` gets one."""
    cdef bytes target = bytes_of(path) if path.len and path.ptr[0] == c"/" else b"/" + bytes_of(path)
    return target + b"?" + bytes_of(query) if query.len else target


@cython.final
cdef class Relayed:
    """The awaitable of one relayed request: the upstream's own steps, and our answer where these end in a fault.

    Awaited by the server directly where its `send` completes at once; no coroutine is needed then.
    """

    cdef FrontDoor door
    cdef object exchange
    cdef object steps                          # iterator of the exchange
    cdef object send                           # the server's
    cdef Route route
    cdef Verdict verdict                       # for the access log, or None
    cdef bytes request_id
    cdef int door_number
    cdef int status                            # of an answer of ours; 0 = the exchange knows
    cdef bint html
    cdef int64_t started_ns
    cdef object watcher                        # granian's, where no coroutine awaits us

    def ended(self, object exchange):
        """Tell granian how the exchange ended: its done callback where nobody awaits it."""
        cdef object error
        try:
            error = exchange.exception()
        except BaseException as cancelled:
            error = cancelled
        if error is None:
            self.door._relay_ended(self)
        elif not isinstance(error, UpstreamFault) or not self._answered(error):
            self.watcher.err(error)
            return
        self.watcher.done()

    def __await__(self):
        return self

    def __iter__(self):
        return self

    def __next__(self):
        try:
            return next(self.steps)
        except StopIteration:
            self.door._relay_ended(self)
            raise
        except UpstreamFault as fault:
            self._settle(fault)

    def throw(self, object kind, object value=None, object traceback=None):
        """Take what the scheduler throws in when the exchange failed or was cancelled."""
        cdef object error = value if value is not None else kind if isinstance(kind, BaseException) else kind()
        if not isinstance(error, UpstreamFault):
            raise error
        self._settle(error)

    cdef object _settle(self, object fault):
        """Answer a fault and end; raises StopIteration, or the fault where an answer is under way and must be cut."""
        if not self._answered(fault):
            raise fault
        raise StopIteration

    cdef bint _answered(self, object fault) except -1:
        """Send what a fault is answered with, if anybody is there; False where an answer is under way and must be cut."""
        cdef object answer = self.answer_to(fault)
        if answer is None:
            return not fault.started
        self.send(answer[0])
        self.send(answer[1])
        return True

    cdef object answer_to(self, object fault):
        """Give the messages for a fault, or None; count and log it."""
        cdef object answer = self.door.fault(
            fault.kind, str(fault), self.request_id.decode(), self.route.name, self.html, fault.started
        )
        if answer is not None:
            self.status = answer[0]["status"]
        self.door._relay_ended(self)
        return answer


async def _await_relayed(Relayed relayed):
    cdef object answer
    try:
        await relayed.exchange
    except UpstreamFault as fault:
        answer = relayed.answer_to(fault)
        if answer is None:
            if fault.started:
                raise
            return
        await relayed.send(answer[0])
        await relayed.send(answer[1])
        return
    relayed.door._relay_ended(relayed)


@cython.final
cdef class InlineSchedule:
    """What granian's callback scheduler calls for each request: answer at once, or schedule.

    Runs on granian's own Python thread, under the GIL. `fallback` is granian's own schedule function; `fault` is called
    with an exception that should not have been.
    """

    cdef FrontDoor door
    cdef object call_soon                      # the loop's call_soon_threadsafe
    cdef object context
    cdef object fallback
    cdef object fault
    cdef readonly uint64_t answered            # on this thread
    cdef readonly uint64_t relayed             # handed to the loop without a task

    def __cinit__(self, FrontDoor door not None, object loop, object context, object fallback, object fault):
        self.door = door
        self.call_soon = loop.call_soon_threadsafe
        self.context = context
        self.fallback = fallback
        self.fault = fault
        self.answered = 0
        self.relayed = 0

    def __call__(self, object watcher):
        cdef int outcome
        try:
            outcome = self.door.answer_inline(watcher)
        except Exception as error:
            self.fault(error)
            watcher.err(error)
            return
        if outcome == INLINE_ANSWERED:
            self.answered += 1
        elif outcome == INLINE_RELAY:
            self.relayed += 1
            self.call_soon(self.relay, watcher, context=self.context)
        else:
            self.fallback(watcher)

    def relay(self, object watcher):
        """Serve one request to an upstream, on the loop's thread, where it is judged once more.

        A reload in between may have made something else of it: then it goes the usual way.
        """
        cdef FrontDoor door = self.door
        cdef Judgement j = door.scratch
        cdef dict scope = watcher.scope
        cdef object proto
        cdef object relayed
        try:
            door._judge(j, scope, False)
            if j.kind != ALLOW or j.door != DOOR_PROXY or (<RouteSettings>j.route.extra).pool is None:
                self.fallback(watcher)
                return
            proto = watcher.proto
            relayed = door._forward(j, scope, proto.receive, proto.send)
        except Exception as error:
            self.fault(error)
            watcher.err(error)
            return
        (<Relayed?>relayed).watcher = watcher
        (<Relayed>relayed).exchange.add_done_callback((<Relayed>relayed).ended)
