"""The engine behind every door, and `FrontDoor`, its ASGI adapter.

A listener fills a `RequestView` with borrowed slices and calls `Engine.judge`; the answer lies in a `Judgement`, the
listener's own scratch. ASGI is one such listener; nothing in the engine knows of it.
"""

from libc.stdint cimport int64_t, uint64_t

from gateway._native.entities cimport EntityStore
from gateway._native.metrics cimport MetricsBlock
from gateway._native.route_policy cimport Decided, DeciderCell, Known, Principals, RoutePolicy, Sampling
from gateway._native.routes cimport PATH_BYTES_MAX, Route, RouteMatch, RouteSnapshot
from gateway._native.slice cimport Slice
from gateway._native.token cimport Identity, TokenValidator, TokenVerdict
from gateway._native.vm cimport Decider

cdef enum:
    HEADERS_MAX = 256          # slots of a Judgement; config's header_count_max lies below
    HOST_BYTES_MAX = 255       # RFC 1035 §2.3.4
    ASKED_MAX = 16_384         # identities whose part of a policy request a listener keeps: as many as its tokens
    RESERVED_MAX = 128         # paths of our own endpoints; compared with each proxied request, by their lengths first

cdef enum Kind:
    ALLOW = 0
    DENY = 1
    ASK = 2
    NATIVE = 3                 # one of our own endpoints: no verdict, Starlette answers

# ORDER DOOR: `DOORS` in front.pyx names each of these, in this order.
cdef enum Door:
    DOOR_FORWARD = 0           # Traefik, Caddy, HAProxy: X-Forwarded-*
    DOOR_NGINX = 1             # nginx auth_request: X-Original-*
    DOOR_ENVOY = 2             # Envoy ext_authz over HTTP: the path behind the prefix
    DOOR_PROXY = 3             # the request itself
    DOOR_COUNT = 4

# ORDER FRONT_REASON: `_FRONT_REASONS` in front.pyx gives each its name, status and text, in this order.
# Reasons below FRONT_REASON_BASE are those of token.pxd.
cdef enum FrontReason:
    FRONT_REASON_BASE = 32
    FRONT_NO_CREDENTIALS = 32
    FRONT_CREDENTIALS_MALFORMED
    FRONT_INSUFFICIENT_SCOPE
    FRONT_NO_ROUTE
    FRONT_METHOD_NOT_ALLOWED
    FRONT_PATH_REFUSED
    FRONT_HOST_INVALID
    FRONT_HEADER_REFUSED
    FRONT_AUTHORIZATION_REPEATED
    FRONT_HEADERS_TOO_LARGE
    FRONT_FORWARDING_REPEATED
    FRONT_ORIGINAL_MISSING
    FRONT_PROXY_UNTRUSTED
    FRONT_METHOD_INVALID
    FRONT_TOKEN_INACTIVE
    FRONT_INTROSPECTION_UNAVAILABLE
    FRONT_NO_UPSTREAM
    FRONT_UNSUPPORTED_AUTH
    FRONT_INTERNAL
    FRONT_POLICY_DENIED
    FRONT_POLICY_INCOMPLETE
    FRONT_POLICY_UNAVAILABLE
    FRONT_ATTRIBUTES_UNAVAILABLE
    FRONT_SESSION_INVALID
    FRONT_SESSION_UNAVAILABLE
    FRONT_CROSS_SITE
    FRONT_POLICY_CLAIM
    FRONT_REASON_END

cdef struct HeaderSlice:
    Slice name                 # lower case; owner: the listener's request
    Slice value                # owner: the listener's request

cdef struct RequestView:
    # Everything is borrowed from the listener for the time of one `judge`.
    Slice method
    Slice path                 # as received, without the query
    Slice query                # without `?`
    Slice scheme               # of the connection to us
    HeaderSlice* headers       # owner: the Judgement
    int header_count
    bint peer_trusted          # the peer is in trusted_proxies

cdef struct Seen:
    # The headers that matter to a door, found in one pass; ptr is NULL where absent.
    Slice host
    Slice authorization
    Slice accept
    Slice forwarded_method
    Slice forwarded_proto
    Slice forwarded_host
    Slice forwarded_uri
    Slice original_method
    Slice original_url
    Slice fetch_mode
    Slice fetch_site

cdef class RouteSettings:
    """What a route means to the doors; hangs on `Route.extra`. Immutable."""
    cdef readonly object pool              # UpstreamPool of the route, or None
    cdef readonly bytes strip_prefix
    cdef readonly bytes scope_challenge    # WWW-Authenticate for a token that lacks a scope (RFC 6750 §3.1)
    cdef uint64_t scope_mask               # bits of TokenValidator's scope_names that the route asks for
    cdef readonly RoutePolicy policy       # what the route asks of the policies, or None

cdef class Judgement:
    """One listener's scratch: the view that is judged, and the verdict. Valid until its next `judge`."""
    cdef RequestView view
    cdef HeaderSlice header_slots[HEADERS_MAX]
    cdef Seen seen
    cdef bint known_only                   # of tokens, judge only those that are known; ASK for all others
    cdef Kind kind
    cdef Door door
    cdef int reason
    cdef int issuer_index
    cdef bint from_cache
    cdef Slice method                      # of the judged request; owner: the listener's request
    cdef Slice scheme                      # of the judged request, "" unknown; owner: the listener's request
    cdef Slice query                       # of the judged request; owner: the listener's request
    cdef Slice token                       # owner: the listener's request
    cdef Slice host                        # points into host_buffer
    cdef Slice path                        # canonical; points into path_buffer
    cdef Slice allowed                     # for METHOD_NOT_ALLOWED; owner: route snapshot `routes`
    cdef RouteSnapshot routes              # keeps the match alive
    cdef TokenValidator tokens             # what judged the credentials: for tokens, or for sessions
    cdef bint by_session                   # `token` is the value of the session cookie
    cdef bint by_proof                     # `token` came under the scheme DPoP
    cdef Identity proven                   # whose proof Python has checked for this very request; or None
    cdef Route route                       # or None
    cdef Identity identity                 # or None
    cdef RouteMatch match
    cdef dict asked                        # Identity -> Known: its part of a policy request; at most ASKED_MAX
    cdef dict asked_before                 # the same, of those that were met earlier; at most ASKED_MAX
    cdef EntityStore asked_store           # what all of these were prepared for, so that no former store stays
    cdef Principals asked_principals       # the same
    cdef tuple away                        # what policies were asked where an entity must be fetched first; see Verdict
    cdef Decided decided                   # what the decision log is told of the request, or None
    cdef bytes body                        # of the answer, where the adapter made one
    cdef int64_t started_ns
    cdef char host_buffer[HOST_BYTES_MAX + 1]
    cdef char path_buffer[PATH_BYTES_MAX]
    cdef Known known_of(self, RoutePolicy policy, Decider decider)

cdef class Engine:
    """Tokens and routes, judged together; no Python on a known token's way. One a worker."""
    cdef readonly TokenValidator tokens    # `tokens` and `routes` are swapped together
    cdef readonly TokenValidator sessions  # judges the values of session cookies, or None: no route may ask for one
    cdef readonly bytes session_cookie     # name of the cookie
    cdef readonly RouteSnapshot routes
    cdef readonly DeciderCell policies     # what decides in force, or None: then no route may ask
    cdef readonly bint proofs              # whether tokens may come under the scheme DPoP; Python checks their proofs
    cdef readonly Sampling sampling        # which decisions are recorded in `Judgement.decided`; None: none
    cdef int64_t fixed_now_s               # tests: the wall clock's second, or -1 for the system's
    cdef int64_t hold_until_s[256]         # per issuer: unknown kids are denied at once until then
    cdef readonly Py_ssize_t header_bytes_max
    cdef readonly int header_count_max
    cdef tuple reserved                    # of bytes: the native endpoints; `/` at the end means everything below
    cdef int judge(self, Judgement j, bint final) except -1
    cdef int _find_original(self, Judgement j, Slice* target) noexcept
    cdef bint _is_reserved(self, Slice path) noexcept
    cdef int _find_route(self, Judgement j, Slice target) except -1
    cdef int _authenticate(self, Judgement j, bint final) except -1
    cdef int _take_proven(self, Judgement j, bint final) noexcept
    cdef int _check_scopes(self, Judgement j) noexcept
    cdef int _find_credentials(self, Judgement j) noexcept
    cdef int _find_session(self, Judgement j) noexcept
    cdef int _decide(self, Judgement j, RoutePolicy policy, bint final) except -1
    cdef bint _may_ask(self, TokenVerdict* verdict, int64_t now_s) noexcept
