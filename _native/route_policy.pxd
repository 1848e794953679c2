"""What a route asks of the policies: a Cedar request made of the judged request, without Python objects."""

from libc.stdint cimport int64_t, uint64_t

from gateway._native.entities cimport EntityStore, Value
from gateway._native.routes cimport RouteMatch
from gateway._native.slice cimport Slice
from gateway._native.token cimport Identity
from gateway._native.vm cimport Answer, Decider, Request, RequestC, Scratch

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
    PIECE_CLAIM

# ORDER FIELD: `FIELDS` in route_policy.pyx.
cdef enum FieldKind:
    FIELD_TEXT = 0
    FIELD_LONG
    FIELD_BOOL
    FIELD_IP
    FIELD_CLAIM                # a claim as a whole, of any type

# ORDER OUTCOME: `OUTCOMES` in route_policy.pyx.
cdef enum PolicyOutcome:
    POLICY_ALLOWED = 0
    POLICY_DENIED
    POLICY_INCOMPLETE          # a hole that nothing fills, or what fills it is none of its kind
    POLICY_AWAY                # an entity is kept elsewhere and must be fetched first; until then denied
    POLICY_CLAIM               # a claim that is not of its type

# How far a request could be filled in: what `give` and `fill` answer with.
cdef enum Filled:
    FILLED = 0
    FILLED_NOT = -1            # a hole that nothing fills, no room, or none of its kind
    FILLED_CLAIM = -2          # a claim that is not of its type

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
    cdef str claim             # of FIELD_CLAIM: the value's name among those of a Definition

cdef class DeciderCell:
    """The decider that is in force; None: none yet. Swapped whole, by whoever publishes policies.

    `doubtful`: it denies whatever could rest on what is not known now, so that a denial means nothing.
    """
    cdef public Decider decider
    cdef public bint doubtful

cdef class Principals:
    """Who tokens speak for: the entity type, and what is made of their claims. One a config, shared by its routes."""
    cdef readonly str type
    cdef public object define  # callable (identity.claims) -> Definition; None where no claim is asked for
    cdef Known known_of(self, Decider decider, Identity identity)
    """Make what `RoutePolicy.decide` begins from. To be kept with the identity, for the store of the decider."""

cdef class Known:
    """One token's part of a policy request. It belongs to one thread at a time."""
    cdef Request like          # its principal, with what its claims define; its context: the values that routes take
    cdef bytes subject
    cdef tuple texts           # of bytes; None: absent; False: no text. As PIECE_CLAIM numbers them
    cdef object invalid        # frozenset of names of values that are not of their type
    cdef bint refused          # what defines the principal is not of its type: nothing is decided
    cdef readonly object definition   # as `Principals.define` gave it, or None

cdef class Decided:
    """What was asked and decided, for the decision log. Immutable once it is filled in."""
    cdef readonly str outcome              # one of OUTCOMES
    cdef readonly Answer answer            # or None where policies were not asked
    cdef readonly Decider decider
    cdef readonly object definition        # of the principal; or None
    cdef readonly object entity_revision   # of the store, int
    cdef readonly str principal_type
    cdef readonly bytes subject
    cdef readonly str action_type
    cdef readonly bytes action_id          # None where it could not be filled in
    cdef readonly str resource_type
    cdef readonly bytes resource_id        # the same
    cdef readonly dict context             # attribute -> (kind, bytes or name of a value); what was filled in
    cdef readonly int64_t elapsed_ns       # of the decision alone; set by whoever measured it
    cdef readonly bint fetched             # entities were fetched for it; set by whoever knows
    cdef int lack(self) except -1

cdef class Sampling:
    """Which decisions a log wants."""
    cdef readonly bint all                 # False: denials only
    cdef readonly double rate              # of allows
    cdef uint64_t state
    cdef uint64_t bound                    # an allow is taken where the next random number lies below
    cdef bint wants_c(self, bint allowed) noexcept

cdef class RoutePolicy:
    """Templates of one route. Immutable but for what it knows of the store that it was bound to last."""
    cdef readonly Principals principals
    cdef readonly str action_type
    cdef readonly str resource_type
    cdef list action                       # of Piece
    cdef list resource
    cdef list context                      # of ContextField
    cdef EntityStore store                 # the numbers below are its
    cdef unsigned int action_number
    cdef unsigned int resource_number
    cdef list keys                         # of int, as `context`
    cdef list claim_keys                   # of int, as `context`: of a FIELD_CLAIM in the context of `Known.like`
    cdef int bind(self, EntityStore store) except -1
    cdef PolicyOutcome decide(self, Decider decider, Known known, const Asked* asked) except *
    cdef tuple describe(self, Decider decider, Known known, const Asked* asked)
    """Give the question that `decide` answers: (principal, action, resource, context, overlays), as `prepare` takes it."""
    cdef Decided record(self, Decider decider, Known known, const Asked* asked, PolicyOutcome outcome)
    """Say what was asked and which policies decided, after `decide` and before anything else runs."""
    cdef int give(
        self, Decider decider, Known known, RequestC* request, Scratch* scratch, const Asked* asked
    ) except -3
    """Fill in action, resource and context; one of `Filled`."""
    cdef bint convert(self, Scratch* scratch, FieldKind kind, const char* text, Py_ssize_t length, Value* out) noexcept
