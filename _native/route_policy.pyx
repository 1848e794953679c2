# cython: autotestdict=False, auto_pickle=False
"""What a route asks of the policies. See route_policy.pxd; the templates' syntax is in gateway/policy/templates.py."""

cimport cython
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_GET_SIZE
from libc.stdint cimport INT64_MAX, int64_t, uint8_t, uint32_t, uint64_t
from libc.string cimport memcmp, memcpy

import os

from gateway._native.entities cimport (
    VALUE_BOOL, VALUE_IP, VALUE_LONG, VALUE_RECORD, EntityStore, IpAddress, Record, Value, arena_take,
)
from gateway._native.slice cimport Slice, slice_empty, slice_of, slice_sub
from gateway._native.token cimport Identity
from gateway._native.uid cimport EntityUid
from gateway._native.vm cimport Decider, Request, RequestC, Scratch

cdef extern from "extensions.h" nogil:
    int address_parse(const char* bytes, size_t length, uint8_t* version, uint8_t* prefix, uint8_t* out)

# ORDER PIECE, ORDER FIELD, ORDER OUTCOME
PIECES = ("text", "parameter", "method", "host", "path", "scheme", "header", "query", "claim")
FIELDS = ("text", "long", "bool", "ip", "claim")
OUTCOMES = ("allowed", "denied", "incomplete", "away", "claim_invalid")


cdef inline int hex_value(uint8_t c) noexcept nogil:
    if 48 <= c <= 57:
        return c - 48
    c |= 0x20
    return c - 87 if 97 <= c <= 102 else -1


cdef Py_ssize_t decoded(Slice raw, char* out, Py_ssize_t room, bint plus) noexcept nogil:
    """Undo percent-encoding, and `+` for a space where `plus`; give the length, or -1 for a bad escape or no room."""
    cdef Py_ssize_t i = 0, length = 0
    cdef int high, low
    cdef uint8_t c
    while i < raw.len:
        if length == room:
            return -1
        c = <uint8_t>raw.ptr[i]
        if c == c"%":
            if i + 2 >= raw.len:
                return -1
            high = hex_value(<uint8_t>raw.ptr[i + 1])
            low = hex_value(<uint8_t>raw.ptr[i + 2])
            if high < 0 or low < 0:
                return -1
            c = <uint8_t>(high * 16 + low)
            i += 2
        elif plus and c == c"+":
            c = c" "
        out[length] = <char>c
        length += 1
        i += 1
    return length


cdef bint find_query(Slice query, bytes name, Slice* value) noexcept:
    """Find the one parameter of this name, undecoded; False where it is not there, or more than once."""
    cdef Py_ssize_t start = 0, stop, equals
    cdef Py_ssize_t size = PyBytes_GET_SIZE(name)
    cdef bint found = False
    while start <= query.len:
        stop = start
        equals = -1
        while stop < query.len and query.ptr[stop] != c"&":
            if equals < 0 and query.ptr[stop] == c"=":
                equals = stop
            stop += 1
        if equals < 0:
            equals = stop
        if equals - start == size and memcmp(query.ptr + start, PyBytes_AS_STRING(name), <size_t>size) == 0:
            if found:
                return False
            found = True
            value[0] = slice_sub(query, equals + 1, stop)
        start = stop + 1
    return found


cdef bint find_header(const Asked* asked, bytes name, Slice* value) noexcept:
    """Find the one header of this name (lower case); False where it is not there, or more than once."""
    cdef int i
    cdef Py_ssize_t size = PyBytes_GET_SIZE(name)
    cdef bint found = False
    for i in range(asked.header_count):
        if asked.headers[i].name.len == size and memcmp(
            asked.headers[i].name.ptr, PyBytes_AS_STRING(name), <size_t>size
        ) == 0:
            if found:
                return False
            found = True
            value[0] = asked.headers[i].value
    return found


@cython.final
cdef class Piece:
    def __cinit__(self, str kind not None, bytes text=b"", int index=0):
        self.kind = <PieceKind><int>PIECES.index(kind)
        self.text = text
        self.index = index


@cython.final
cdef class ContextField:
    def __cinit__(self, bytes name not None, str kind not None, pieces=(), str claim=""):
        self.name = name
        self.kind = <FieldKind><int>FIELDS.index(kind)
        self.pieces = [<Piece?>piece for piece in pieces]
        self.claim = claim


@cython.final
cdef class DeciderCell:
    def __cinit__(self, Decider decider=None):
        self.decider = decider


@cython.final
cdef class Known:
    def __cinit__(self):
        self.texts = ()
        self.invalid = frozenset()
        self.refused = False


@cython.final
cdef class Principals:
    def __cinit__(self, str type not None, object define=None):
        self.type = type
        self.define = define

    cdef Known known_of(self, Decider decider, Identity identity):
        cdef Known known = Known.__new__(Known)
        cdef EntityUid principal = EntityUid(self.type, identity.subject.decode())
        cdef object definition = None
        cdef dict overlays = None
        cdef dict values = None
        known.subject = identity.subject
        if self.define is not None:
            definition = self.define(identity.claims)
            known.definition = definition
            known.texts = <tuple?>definition.texts
            known.invalid = definition.invalid_values
            known.refused = definition.refused
            values = <dict?>definition.values
            if definition.attributes or definition.parents:
                overlays = {principal: (definition.attributes, definition.parents)}
        # Action and resource are each route's own: any entity holds their places until then.
        known.like = decider.prepare(principal, principal, principal, values, overlays=overlays)
        return known


@cython.final
cdef class Decided:
    cdef int lack(self) except -1:
        """What it rests on could not be had: whatever policies said counts for nothing."""
        self.outcome = OUTCOMES[<int>POLICY_AWAY]
        self.answer = None
        return 0


@cython.final
cdef class Sampling:
    def __cinit__(self, *, bint all, double rate=1.0):
        if not 0.0 <= rate <= 1.0:
            raise ValueError("a rate lies between 0 and 1")
        self.all = all
        self.rate = rate
        self.state = int.from_bytes(os.urandom(8), "big") | 1
        self.bound = <uint64_t>(rate * 18446744073709549568.0)     # the greatest double below 2**64

    cdef bint wants_c(self, bint allowed) noexcept:
        if not allowed:
            return True
        if not self.all or self.rate >= 1.0:
            return self.all
        # xorshift64 (Marsaglia 2003): nobody gains by guessing which line is kept.
        self.state ^= self.state << 13
        self.state ^= self.state >> 7
        self.state ^= self.state << 17
        return self.state < self.bound

    def wants(self, bint allowed):
        """Tell whether a decision is to be logged: every denial, and of allows as many as `rate` says."""
        return self.wants_c(allowed)


cdef Py_ssize_t fill(list pieces, Known known, const Asked* asked, char* out) except -3:
    """Write what the pieces give; its length, or one of `Filled` where that is not to be had."""
    cdef Piece piece
    cdef Slice part
    cdef object claim
    cdef Py_ssize_t length = 0, more
    for piece in pieces:
        part = slice_empty()
        if piece.kind == PIECE_TEXT:
            part = slice_of(PyBytes_AS_STRING(piece.text), PyBytes_GET_SIZE(piece.text))
        elif piece.kind == PIECE_PARAMETER:
            if piece.index >= asked.match.parameter_count:
                return FILLED_NOT
            part = asked.match.parameter[piece.index]
        elif piece.kind == PIECE_METHOD:
            part = asked.method
        elif piece.kind == PIECE_HOST:
            part = asked.host
        elif piece.kind == PIECE_PATH:
            part = asked.path
        elif piece.kind == PIECE_SCHEME:
            if asked.scheme.len == 0:
                return FILLED_NOT
            part = asked.scheme
        elif piece.kind == PIECE_HEADER:
            if not find_header(asked, piece.text, &part):
                return FILLED_NOT
        elif piece.kind == PIECE_CLAIM:
            claim = known.texts[piece.index] if piece.index < len(known.texts) else None
            if claim is None:
                return FILLED_NOT
            if claim is False:
                return FILLED_CLAIM
            part = slice_of(PyBytes_AS_STRING(<bytes?>claim), PyBytes_GET_SIZE(<bytes>claim))  # `known` keeps it
        elif not find_query(asked.query, piece.text, &part):
            return FILLED_NOT
        if piece.kind == PIECE_PARAMETER or piece.kind == PIECE_QUERY:
            more = decoded(part, out + length, POLICY_TEXT_MAX - length, piece.kind == PIECE_QUERY)
            if more < 0:
                return FILLED_NOT
        else:
            more = part.len
            if more > POLICY_TEXT_MAX - length:
                return FILLED_NOT
            memcpy(out + length, part.ptr, <size_t>more)
        length += more
    return length


cdef inline Filled unfilled(Py_ssize_t length) noexcept nogil:
    """Give why `fill` gave no length."""
    return FILLED_CLAIM if length == FILLED_CLAIM else FILLED_NOT


cdef const Value* find_field(const Value* record, uint32_t key) noexcept nogil:
    """Find an attribute of a context; NULL where it has none of this key."""
    cdef uint32_t i
    if record.tag != VALUE_RECORD:
        return NULL
    for i in range(record.record.count):
        if record.record.fields[i].key == key:
            return &record.record.fields[i].value
    return NULL


cdef bint long_of(const char* text, Py_ssize_t length, int64_t* out) noexcept nogil:
    """Read a whole number of 64 bits: digits, with a minus before them or not."""
    cdef Py_ssize_t i = 1 if length > 0 and text[0] == c"-" else 0
    cdef bint negative = i == 1
    cdef int64_t value = 0
    cdef int digit
    if i == length or length > 20:
        return False
    while i < length:
        digit = text[i] - 48
        if digit < 0 or digit > 9 or value > (INT64_MAX - digit) // 10:
            return False
        value = value * 10 + digit
        i += 1
    out[0] = -value if negative else value
    return True


@cython.final
cdef class RoutePolicy:
    def __cinit__(
        self,
        Principals principals not None,
        str action_type not None,
        action,
        str resource_type not None,
        resource,
        context=(),
    ):
        self.principals = principals
        self.action_type = action_type
        self.action = [<Piece?>piece for piece in action]
        self.resource_type = resource_type
        self.resource = [<Piece?>piece for piece in resource]
        self.context = [<ContextField?>field for field in context]
        self.store = None
        self.keys = []
        self.claim_keys = []

    cdef int bind(self, EntityStore store) except -1:
        """Learn the numbers that a store has for our names."""
        cdef ContextField field
        cdef bytes claim
        cdef list keys = []
        cdef list claim_keys = []
        self.store = None
        self.action_number = store.type_of(self.action_type)
        self.resource_number = store.type_of(self.resource_type)
        for field in self.context:
            keys.append(store.pinned_key(PyBytes_AS_STRING(field.name), <uint32_t>PyBytes_GET_SIZE(field.name)))
            claim = field.claim.encode()
            claim_keys.append(
                store.pinned_key(PyBytes_AS_STRING(claim), <uint32_t>PyBytes_GET_SIZE(claim))
                if field.kind == FIELD_CLAIM else 0
            )
        self.keys = keys
        self.claim_keys = claim_keys
        self.store = store
        return 0

    cdef PolicyOutcome decide(self, Decider decider, Known known, const Asked* asked) except *:
        cdef RequestC request
        cdef Scratch* scratch
        cdef int filled = FILLED_NOT
        cdef bint allowed
        if known.refused:
            return POLICY_CLAIM
        if self.store is not decider.store:
            self.bind(decider.store)
        scratch = decider.open_request(&request, known.like)
        try:
            filled = self.give(decider, known, &request, scratch, asked)
        except ValueError:
            filled = FILLED_NOT  # bytes that are no text, or too many of them
        finally:
            allowed = decider.close_request(&request, scratch, filled == FILLED)
        if filled == FILLED:
            if allowed:
                return POLICY_ALLOWED
            return POLICY_DENIED if request.run.missing is NULL else POLICY_AWAY
        return POLICY_CLAIM if filled == FILLED_CLAIM else POLICY_INCOMPLETE

    cdef tuple describe(self, Decider decider, Known known, const Asked* asked):
        cdef RequestC request
        cdef Scratch* scratch = decider.open_request(&request, known.like)
        try:
            self.give(decider, known, &request, scratch, asked)
            decider.store.hold()        # what is made here may wake the collector, and that others who change the store
            try:
                # Names that only this request has were given by the values of claims: they lie with these.
                return (
                    decider.store._uid(request.principal.node),
                    decider.store._uid(request.action.node),
                    decider.store._uid(request.resource.node),
                    decider.store.python_value(&request.run.variables[3], &known.like.arena),
                    None if known.like.overlays is None else dict(known.like.overlays),
                )
            finally:
                decider.store.release()
        finally:
            decider.close_request(&request, scratch, False)

    cdef int give(
        self, Decider decider, Known known, RequestC* request, Scratch* scratch, const Asked* asked
    ) except -3:
        """Fill in action, resource and context."""
        cdef char text[POLICY_TEXT_MAX]
        cdef Py_ssize_t length, i
        cdef ContextField field
        cdef const Value* claim
        cdef Value value
        length = fill(self.action, known, asked, text)
        if length < 0:
            return unfilled(length)
        decider.name_entity(request, scratch, 1, self.action_number, slice_of(text, length))
        length = fill(self.resource, known, asked, text)
        if length < 0:
            return unfilled(length)
        decider.name_entity(request, scratch, 2, self.resource_number, slice_of(text, length))
        if not self.context and known.definition is None:
            return FILLED
        decider.open_context(request, scratch, <uint32_t>len(self.context))
        for i in range(len(self.context)):
            field = self.context[i]
            if field.kind == FIELD_CLAIM:
                if field.claim in known.invalid:
                    return FILLED_CLAIM
                claim = find_field(&known.like.c.run.variables[3], self.claim_keys[i])
                if claim is not NULL:
                    decider.give_value(request, scratch, self.keys[i], claim)
                continue
            length = fill(field.pieces, known, asked, text)
            if length == FILLED_CLAIM:
                return FILLED_CLAIM
            if length < 0:
                continue  # the attribute is absent: policies ask with `has`
            if field.kind == FIELD_TEXT:
                decider.give_text(request, scratch, self.keys[i], slice_of(text, length))
                continue
            if not self.convert(scratch, field.kind, text, length, &value):
                return FILLED_NOT
            decider.give_value(request, scratch, self.keys[i], &value)
        return FILLED

    cdef Decided record(self, Decider decider, Known known, const Asked* asked, PolicyOutcome outcome):
        cdef char text[POLICY_TEXT_MAX]
        cdef RequestC request
        cdef Scratch* scratch
        cdef Decided made = Decided.__new__(Decided)
        cdef ContextField field
        cdef Py_ssize_t length
        made.outcome = OUTCOMES[<int>outcome]
        made.decider = decider
        made.definition = known.definition
        made.entity_revision = decider.store.c.revision
        made.principal_type = self.principals.type
        made.subject = known.subject
        made.action_type = self.action_type
        made.resource_type = self.resource_type
        made.context = {}
        if outcome == POLICY_ALLOWED or outcome == POLICY_DENIED or outcome == POLICY_AWAY:
            scratch = decider.open_request(&request, known.like)
            try:
                self.give(decider, known, &request, scratch, asked)
                decider.start(&request.run, &scratch.arena, scratch)
                made.answer = decider.collect(&request, scratch)
            finally:
                decider.close_request(&request, scratch, False)
        length = fill(self.action, known, asked, text)
        made.action_id = text[:length] if length >= 0 else None
        length = fill(self.resource, known, asked, text)
        made.resource_id = text[:length] if length >= 0 else None
        for field in self.context:
            if field.kind == FIELD_CLAIM:
                if known.definition is not None and field.claim in known.definition.values:
                    made.context[field.name] = ("claim", field.claim)
                continue
            length = fill(field.pieces, known, asked, text)
            if length >= 0:
                made.context[field.name] = (FIELDS[<int>field.kind], text[:length])
        return made

    cdef bint convert(self, Scratch* scratch, FieldKind kind, const char* text, Py_ssize_t length, Value* out) noexcept:
        """Read a value of the kind that the schema asks for; False for a text that is none."""
        cdef IpAddress* address
        cdef int64_t number = 0
        if kind == FIELD_LONG:
            out.tag = VALUE_LONG
            if not long_of(text, length, &number):
                return False
            out.number = number
            return True
        if kind == FIELD_BOOL:
            out.tag = VALUE_BOOL
            if length == 4 and memcmp(text, b"true", 4) == 0:
                out.number = 1
                return True
            out.number = 0
            return length == 5 and memcmp(text, b"false", 5) == 0
        address = <IpAddress*>arena_take(&scratch.arena, sizeof(IpAddress))
        if address is NULL or not address_parse(
            text, <size_t>length, &address.version, &address.prefix, address.bytes
        ):
            return False
        address.owner = 0
        out.tag = VALUE_IP
        out.ip = address
        return True
