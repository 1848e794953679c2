"""What a route asks of the policies: a Cedar request made of the judged request, without Python objects."""

from gateway._native.entities cimport EntityStore, Value
from gateway._native.routes cimport RouteMatch
from gateway._native.slice cimport Slice
from gateway._native.vm cimport Decider, Request, RequestC, Scratch

cdef enum:
    POLICY_TEXT_MAX = 8192     # bytes of one id or context attribute

# ORDER PIECE: `PIECES` in route_policy.pyx names each of these, in this order.
cdef enum PieceKind:
    PIECE_TEXT = 0
    PIECE_PARAMETER
    PIECE_METHOD
    PIECE_HOST
    PIECE_PATH
    PIECE_SCHEME
    PIECE_HEADER
    PIECE_QUERY

# ORDER FIELD: `FIELDS` in route_policy.pyx.
cdef enum FieldKind:
    FIELD_TEXT = 0
    FIELD_LONG
    FIELD_BOOL
    FIELD_IP

cdef enum PolicyOutcome:
    POLICY_ALLOWED = 0
    POLICY_DENIED
    POLICY_INCOMPLETE          # a hole that nothing fills, or what fills it is none of its kind
    POLICY_AWAY                # an entity is kept elsewhere and must be fetched first; until then denied

cdef struct AskedHeader:
    Slice name
    Slice value

cdef struct Asked:
    # Borrowed from the listener's request and scratch for one decision.
    Slice method
    Slice host
    Slice path
    Slice scheme
    Slice query
    const RouteMatch* match
    const AskedHeader* headers
    int header_count

cdef class Piece:
    cdef PieceKind kind
    cdef bytes text
    cdef int index

cdef class ContextField:
    cdef bytes name
    cdef FieldKind kind
    cdef list pieces

cdef class DeciderCell:
    """The decider that is in force; None: none yet. Swapped whole, by whoever publishes policies."""
    cdef public Decider decider

cdef class RoutePolicy:
    """Templates of one route. Immutable but for what it knows of the store that it was bound to last."""
    cdef readonly str principal_type
    cdef readonly str action_type
    cdef readonly str resource_type
    cdef list action                       # of Piece
    cdef list resource
    cdef list context                      # of ContextField
    cdef EntityStore store                 # the numbers below are its
    cdef unsigned int action_number
    cdef unsigned int resource_number
    cdef list keys                         # of int, as `context`
    cdef int bind(self, EntityStore store) except -1
    cdef Request principal_of(self, Decider decider, bytes subject)
    """Make what `decide` begins from: the principal's part of a request, to be kept with the token's identity."""
    cdef PolicyOutcome decide(self, Decider decider, Request like, const Asked* asked) except *
    cdef tuple describe(self, Decider decider, Request like, const Asked* asked)
    """Give the request that `decide` decides: (principal, action, resource, context), as `Decider.authorize` takes it."""
    cdef bint give(self, Decider decider, RequestC* request, Scratch* scratch, const Asked* asked) except -1
    cdef bint convert(self, Scratch* scratch, FieldKind kind, const char* text, Py_ssize_t length, Value* out) noexcept
