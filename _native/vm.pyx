# cython: autotestdict=False, auto_pickle=False
"""The policy machine for Python: programs, rules, and the decider that runs them."""

from collections import namedtuple

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_GET_SIZE
from cpython.unicode cimport PyUnicode_DecodeUTF8
from libc.stdint cimport INT64_MAX, int32_t, int64_t, uint8_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free, malloc, realloc
from libc.string cimport memcpy, memmove, memset

cimport cython

from gateway._native.entities cimport (
    NODE_EXISTS, NODE_REQUEST,
    VALUE_BOOL, VALUE_ENTITY, VALUE_IP, VALUE_LONG, VALUE_NONE, VALUE_RECORD, VALUE_SET, VALUE_STRING,
    Arena, EntityNode, EntityStore, Field, IpAddress, Record, Store, Text, Value, ValueSet,
    arena_free, arena_reset, arena_take, entity_away, key_name, node_expect, request_node, arena_text,
)
from gateway._native.slice cimport Slice, slice_of
from gateway._native.uid cimport EntityUid

cdef extern from "values.h" nogil:
    bint node_equal(const EntityNode* a, const EntityNode* b)

cdef extern from "vm_image.h" nogil:
    bint text_is_utf8(const uint8_t* at, uint32_t length)

# --- the lists ------------------------------------------------------------------------------------------------------

Opcode = namedtuple("Opcode", ("name", "operands", "pops", "pushes", "meaning"))
Opcode.__doc__ = "One instruction of the machine. `pops` is None where an operand says how many."


cdef tuple _opcodes():
    cdef int number
    return tuple([
        Opcode(
            vm_opcode_names[number].decode(),
            vm_opcode_operands[number].decode(),
            None if vm_opcode_pops[number] == POPS_COUNT else vm_opcode_pops[number],
            vm_opcode_pushes[number],
            vm_opcode_meanings[number].decode(),
        )
        for number in range(OP_COUNT)
    ])


OPCODES = _opcodes()
FUNCTIONS = tuple([(vm_function_names[n].decode(), vm_function_counts[n]) for n in range(FUNCTION_COUNT)])
ERRORS = tuple([(vm_error_codes[n].decode(), vm_error_meanings[n].decode()) for n in range(VM_ERROR_COUNT)])
FORMAT = VM_FORMAT
STEPS_MAX = VM_STEPS_MAX
MEMORY_MAX = VM_MEMORY_MAX

# --- programs -------------------------------------------------------------------------------------------------------


@cython.final
cdef class Program:
    """A verified program. Raises ValueError, with what is wrong, for an image that the machine must not run."""

    def __cinit__(self, bytes image not None):
        cdef uint32_t where = 0
        cdef const char* wrong = image_verify(
            <const uint8_t*>PyBytes_AS_STRING(image), <size_t>PyBytes_GET_SIZE(image), &self.c, &where
        )
        if wrong is not NULL:
            raise ValueError(f"{wrong.decode()} (instruction {where})")
        self.image = image

    def __dealloc__(self):
        program_release(self.bound)

    @property
    def code_count(self):
        """How many instructions it has."""
        return self.c.code_count

    @property
    def is_policy(self):
        """True for the conditions of a policy, False for an expression."""
        return bool(self.c.is_policy)

    def __eq__(self, other):
        return isinstance(other, Program) and (<Program>other).image == self.image

    def __hash__(self):
        return hash(self.image)

    def __reduce__(self):
        return Program, (self.image,)


cdef void program_release(ProgramC* program) noexcept:
    if program is NULL:
        return
    program.references -= 1
    if program.references == 0:
        end_holding(program.names)
        arena_free(&program.memory)
        free(program)


cdef inline str decoded(const char* data, uint32_t length):
    return PyUnicode_DecodeUTF8(data, length, NULL)


cdef inline EntityStore ready(EntityStore store):
    """Give the store when nobody reads it without the GIL: giving numbers to new names moves its tables."""
    if store.readers:
        store._wait()
    return store


cdef inline void* take(Arena* memory, size_t size) except NULL:
    cdef void* taken = arena_take(memory, size if size else 1)
    if taken is NULL:
        raise MemoryError()
    return taken


cdef int read_constant(
    EntityStore store, Holding* names, Reader* reader, Arena* memory, Arena* spare, Value* out
) except -1:
    """Read one constant of a verified image into `memory`; `spare` is for what only the reading needs."""
    cdef uint8_t tag = reader.at[0]
    cdef uint32_t count = 0, length = 0, inner = 0, i, j, number
    cdef const char* data
    cdef const char* inner_data
    cdef Value* items
    cdef Record* record
    cdef Field moved
    cdef IpAddress* ip
    reader.at += 1
    out.tag = tag
    if tag == VALUE_BOOL:
        out.number = reader.at[0]
        reader.at += 1
    elif tag == VALUE_STRING:
        read_text(reader, &data, &length)
        out.text = ready(store).held_text(names, data, length)
    elif tag == VALUE_ENTITY:
        read_text(reader, &data, &length)
        read_text(reader, &inner_data, &inner)
        out.entity = ready(store).held_node(names, decoded(data, length), inner_data, inner)
    elif tag == VALUE_IP:
        ip = <IpAddress*>take(memory, sizeof(IpAddress))
        ip.owner = 0
        ip.version = reader.at[0]
        ip.prefix = reader.at[1]
        memcpy(ip.bytes, reader.at + 2, 16)
        reader.at += 18
        out.ip = ip
    elif tag == VALUE_SET:
        read_u32(reader, &count)
        items = <Value*>take(spare, count * sizeof(Value))
        for i in range(count):
            read_constant(store, names, reader, memory, spare, &items[i])
        out.set = machine_set(memory, items, count)
        if out.set is NULL:
            raise MemoryError()
    elif tag == VALUE_RECORD:
        read_u32(reader, &count)
        record = <Record*>take(memory, sizeof(Record) + count * sizeof(Field))
        record.owner = 0
        record.count = count
        for i in range(count):
            read_text(reader, &data, &length)
            number = ready(store).pinned_key(data, length)
            read_constant(store, names, reader, memory, spare, &moved.value)
            moved.key = number
            j = i
            while j > 0 and record.fields[j - 1].key >= moved.key:
                if record.fields[j - 1].key == moved.key:
                    raise ValueError("a record of the program has a name twice")
                record.fields[j] = record.fields[j - 1]
                j -= 1
            record.fields[j] = moved
        out.record = record
    else:
        memcpy(&out.number, reader.at, 8)
        reader.at += 8
    return 0


cdef ProgramC* program_bind(Program self, EntityStore store) except NULL:
    """Give the program with the store's numbers for its names, and one reference to it."""
    cdef uint64_t token = store.c.token
    cdef ProgramC* program
    cdef Arena spare
    if self.bound is not NULL and self.bound.store_token == token:
        self.bound.references += 1
        return self.bound
    program = <ProgramC*>calloc(1, sizeof(ProgramC))
    if program is NULL:
        raise MemoryError()
    program.references = 1
    program.store_token = token
    memset(&spare, 0, sizeof(Arena))
    spare.limit = <size_t>-1 >> 1
    try:
        if not arena_fix(&program.memory, image_measure(&self.c)):
            raise MemoryError()
        if self.c.constant_count:
            program.names = store.begin_holding()
        program_fill(self, store, program, &spare)
    except:
        program_release(program)
        raise
    finally:
        arena_free(&spare)
    program_release(self.bound)
    self.bound = program
    program.references += 1
    return program


cdef int program_fill(Program self, EntityStore store, ProgramC* program, Arena* spare) except -1:
    cdef Image* image = &self.c
    cdef Reader reader
    cdef Arena* memory = &program.memory
    cdef uint32_t* keys
    cdef uint32_t* types
    cdef Value* constants
    cdef Pattern* patterns
    cdef Piece* pieces
    cdef ShapeField** shapes
    cdef ShapeField* shape
    cdef ShapeField moved
    cdef Instruction* step
    cdef const char* data
    cdef uint32_t i, j, k, count = 0, number = 0, length = 0
    reader.at = image.names
    reader.end = image.end
    program.code = <Instruction*>take(memory, image.code_count * sizeof(Instruction))
    memcpy(program.code, image.code, image.code_count * sizeof(Instruction))
    keys = <uint32_t*>take(spare, image.key_count * sizeof(uint32_t))
    for i in range(image.key_count):
        read_text(&reader, &data, &length)
        keys[i] = ready(store).pinned_key(data, length)
    types = <uint32_t*>take(spare, image.type_count * sizeof(uint32_t))
    for i in range(image.type_count):
        read_text(&reader, &data, &length)
        types[i] = ready(store).type_of(decoded(data, length))
    constants = <Value*>take(memory, image.constant_count * sizeof(Value))
    for i in range(image.constant_count):
        read_constant(store, program.names, &reader, memory, spare, &constants[i])
    patterns = <Pattern*>take(memory, image.pattern_count * sizeof(Pattern))
    for i in range(image.pattern_count):
        read_u32(&reader, &count)
        pieces = <Piece*>take(memory, count * sizeof(Piece))
        patterns[i].count = count
        patterns[i].minimum = 0
        patterns[i].pieces = pieces
        for j in range(count):
            read_text(&reader, &data, &length)
            pieces[j].bytes = <const char*>memcpy(take(memory, length), data, length)
            pieces[j].length = length
            patterns[i].minimum += length
    shapes = <ShapeField**>take(memory, image.shape_count * sizeof(ShapeField*))
    for i in range(image.shape_count):
        read_u32(&reader, &count)
        shape = <ShapeField*>take(memory, count * sizeof(ShapeField))
        shapes[i] = shape
        for j in range(count):
            read_u32(&reader, &number)
            moved.key = keys[number]
            moved.position = j
            k = j
            while k > 0 and shape[k - 1].key >= moved.key:
                if shape[k - 1].key == moved.key:
                    raise ValueError("a record of the program has a name twice")
                shape[k] = shape[k - 1]
                k -= 1
            shape[k] = moved
    for i in range(image.code_count):
        step = &program.code[i]
        if step.op in (OP_ATTR, OP_HAS, OP_HAS_STEP, OP_VAR_ATTR, OP_VAR_HAS, OP_VAR_ATTR_EQ):
            step.c = keys[step.c]
        elif step.op in (OP_IS, OP_IS_STEP):
            step.c = types[step.c]
    program.constants = constants
    program.patterns = patterns
    program.shapes = <const ShapeField**>shapes
    program.code_count = image.code_count
    program.exact_entry = image.exact_entry
    program.quick_entry = image.quick_entry
    return 0


# --- rules ----------------------------------------------------------------------------------------------------------


@cython.final
cdef class Rule:
    """A policy: its head (`gateway/policy/compiler/scopes.py` has the format) and the program of its conditions.

    Raises ValueError for a malformed head and for the program of an expression.
    """

    def __cinit__(self, bytes head not None, Program program not None):
        cdef Reader reader
        if not program.c.is_policy:
            raise ValueError("an expression is no policy")
        self.head = head
        self.program = program
        reader.at = <const uint8_t*>PyBytes_AS_STRING(head)
        reader.end = reader.at + PyBytes_GET_SIZE(head)
        if not check_head(&reader):
            raise ValueError("the head of a policy is malformed")

    def __dealloc__(self):
        rule_release(self.bound)

    @property
    def permits(self):
        """True for `permit`, False for `forbid`."""
        return self.head[0] == 1

    def __reduce__(self):
        return Rule, (self.head, self.program)


cdef void rule_release(RuleC* rule) noexcept:
    if rule is NULL:
        return
    rule.references -= 1
    if rule.references == 0:
        end_holding(rule.names)
        free(rule.actions)
        program_release(rule.program)
        free(rule)


cdef int bind_bound(EntityStore store, Holding* names, Reader* reader, Bound* bound) except -1:
    cdef const char* data
    cdef const char* inner_data
    cdef uint32_t length = 0, inner = 0
    bound.op = reader.at[0]
    reader.at += 1
    if bound.op in (BOUND_IS, BOUND_IS_IN):
        read_text(reader, &data, &length)
        bound.type = ready(store).type_of(decoded(data, length))
    if bound.op in (BOUND_EQUAL, BOUND_IN, BOUND_IS_IN):
        read_text(reader, &data, &length)
        read_text(reader, &inner_data, &inner)
        bound.entity = ready(store).held_node(names, decoded(data, length), inner_data, inner)
    return 0


cdef RuleC* rule_bind(Rule self, EntityStore store) except NULL:
    """Give the rule with the store's entities, and one reference to it."""
    cdef uint64_t token = store.c.token
    cdef RuleC* rule
    if self.bound is not NULL and self.bound.store_token == token:
        self.bound.references += 1
        return self.bound
    rule = <RuleC*>calloc(1, sizeof(RuleC))
    if rule is NULL:
        raise MemoryError()
    rule.references = 1
    rule.store_token = token
    try:
        rule_fill(self, store, rule)
    except:
        rule_release(rule)
        raise
    rule_release(self.bound)
    self.bound = rule
    rule.references += 1
    return rule


cdef int rule_fill(Rule self, EntityStore store, RuleC* rule) except -1:
    cdef Reader reader
    cdef const char* data
    cdef const char* inner_data
    cdef uint32_t length = 0, inner = 0, i, count = 0
    reader.at = <const uint8_t*>PyBytes_AS_STRING(self.head)
    reader.end = reader.at + PyBytes_GET_SIZE(self.head)
    rule.permits = reader.at[0]
    reader.at += 1
    rule.names = store.begin_holding()
    bind_bound(store, rule.names, &reader, &rule.principal)
    bind_bound(store, rule.names, &reader, &rule.resource)
    rule.action_op = reader.at[0]
    reader.at += 1
    if rule.action_op != BOUND_ANY:
        read_u32(&reader, &count)
        rule.actions = <const EntityNode**>malloc((count + 1) * sizeof(void*))
        if rule.actions is NULL:
            raise MemoryError()
        for i in range(count):
            read_text(&reader, &data, &length)
            read_text(&reader, &inner_data, &inner)
            rule.actions[i] = ready(store).held_node(rule.names, decoded(data, length), inner_data, inner)
        rule.action_count = count
    rule.program = program_bind(self.program, store)
    return 0


# --- requests -------------------------------------------------------------------------------------------------------

cdef Scratch* spare_scratch = NULL    # guarded by the GIL


cdef dict LOOKS = {
    LOOK_HEAD: "head", RUN_UNSATISFIED: "unsatisfied", RUN_SATISFIED: "satisfied", RUN_ERROR: "error", RUN_FAULT: "fault"
}


cdef Scratch* scratch_take() except NULL:
    """Give working memory; the caller gives it back with scratch_give."""
    global spare_scratch
    cdef Scratch* scratch = spare_scratch
    if scratch is not NULL:
        spare_scratch = scratch.next
        return scratch
    scratch = <Scratch*>calloc(1, sizeof(Scratch))
    if scratch is NULL:
        raise MemoryError()
    scratch.arena.limit = VM_MEMORY_MAX
    return scratch


cdef inline void scratch_give(Scratch* scratch) noexcept:
    global spare_scratch
    arena_reset(&scratch.arena)
    scratch.next = spare_scratch
    spare_scratch = scratch


cdef inline bint is_defined_here(const Value* variable) noexcept nogil:
    """Tell whether a variable is an entity that its request defines."""
    return variable.tag == VALUE_ENTITY and variable.entity.flags & (NODE_REQUEST | NODE_EXISTS) == (
        NODE_REQUEST | NODE_EXISTS
    )


cdef inline void run_start(Run* run, const Store* store, Arena* arena, Scratch* scratch, int64_t steps) noexcept nogil:
    """Make a run ready, whose variables are set already."""
    run.stack = scratch.stack
    run.arena = arena
    run.store = store
    run.steps_left = steps
    run.missing = NULL
    run.turn_ms = INT64_MAX
    run.overlaid = (
        is_defined_here(&run.variables[0]) or is_defined_here(&run.variables[1]) or is_defined_here(&run.variables[2])
    )


cdef enum:
    FILL_TRIES = 100     # times that a request is read anew because entities changed meanwhile
    REQUEST_BYTES = 1024  # room that a prepared request begins with


cdef inline void stamp_fill(const Store* store, Stamp* stamp) noexcept nogil:
    stamp.revision = store.revision
    stamp.places = store.place_count
    stamp.free_places = (<const StorePlaces*>store).free_count
    stamp.released = (<const StorePlaces*>store).released
    stamp.types = store.type_count
    stamp.keys = store.key_count


cdef inline bint stamp_holds(const Store* store, const Stamp* stamp) noexcept nogil:
    return (
        stamp.revision == store.revision
        and stamp.places == store.place_count
        and stamp.free_places == (<const StorePlaces*>store).free_count
        and stamp.released == (<const StorePlaces*>store).released
        and stamp.types == store.type_count
        and stamp.keys == store.key_count
    )


cdef inline void subject_set(Subject* subject, Value* variable, const EntityNode* node) noexcept nogil:
    # A node that the request defines anew has the place of the store's node of that name.
    node_expect(node)
    subject.node = node
    subject.place = node.index
    variable.tag = VALUE_ENTITY
    variable.entity = node


cdef inline const EntityNode* known_node(const RequestC* request, const EntityNode* node) noexcept nogil:
    """Give the request's own node of the entity, which it may define, where it is its principal or action."""
    if node_equal(node, request.principal.node):
        return request.principal.node
    if node_equal(node, request.action.node):
        return request.action.node
    return node


cdef inline int context_fill(EntityStore store, Arena* arena, context, Value* out) except -1:
    if context is None:
        out.tag = VALUE_RECORD
        out.record = &vm_empty_record
        return 0
    if not isinstance(context, dict):
        raise ValueError("a context is a record")
    return store.value_of_request(context, out, arena)


cdef inline int request_fill(
    EntityStore store, RequestC* request, Arena* arena, EntityUid principal, EntityUid action, EntityUid resource,
    context,
) except -1:
    """Look up the entities of a request and convert its context into `arena`.

    Converting may run Python code (a context of a class of its own), and with it another thread that changes the
    store: then a place that was found may be another entity's, so all of it is done again.
    """
    cdef Stamp stamp
    cdef int tries
    for tries in range(FILL_TRIES):
        stamp_fill(&store.c, &stamp)
        subject_set(&request.principal, &request.run.variables[0], store.node_of_request(principal, arena))
        subject_set(&request.action, &request.run.variables[1], store.node_of_request(action, arena))
        subject_set(&request.resource, &request.run.variables[2], store.node_of_request(resource, arena))
        context_fill(store, arena, context, &request.run.variables[3])
        if stamp_holds(&store.c, &stamp):
            return 0
        arena_reset(arena)
    raise RuntimeError("entities change faster than a request can be read")


@cython.final
cdef class Request:
    """A request whose entities were looked up and whose context was converted: made by `Decider.prepare`.

    It can be decided by every decider of the same store, again and again; where entities changed meanwhile it is
    looked up anew. It belongs to one thread at a time.
    """

    def __cinit__(self):
        self.arena.limit = VM_MEMORY_MAX
        self.arena.first_bytes = REQUEST_BYTES      # thousands are kept, one a token

    def __dealloc__(self):
        arena_free(&self.arena)

    cdef int overlay(self, EntityUid uid, attributes, parents) except -1:
        """Define one of the three entities for this request."""
        cdef const EntityNode* node
        cdef bint principal = uid is self.principal or uid == self.principal
        cdef bint action = uid is self.action or uid == self.action
        cdef bint resource = uid is self.resource or uid == self.resource
        if not (principal or action or resource):
            raise ValueError(f"{uid} is not part of the request")
        node = self.store.overlay(uid, attributes, parents, &self.arena)
        if principal:
            subject_set(&self.c.principal, &self.c.run.variables[0], node)
        if action:
            subject_set(&self.c.action, &self.c.run.variables[1], node)
        if resource:
            subject_set(&self.c.resource, &self.c.run.variables[2], node)
        return 0

    cdef int fill(self) except -1:
        """Look everything up, after preparing and after each change of the store."""
        cdef Stamp stamp
        arena_reset(&self.arena)
        self.stamp.revision = <uint64_t>-1          # until all is done
        stamp_fill(&self.store.c, &stamp)
        request_fill(self.store, &self.c, &self.arena, self.principal, self.action, self.resource, self.context)
        if self.overlays is not None:
            for uid, (attributes, parents) in self.overlays.items():
                self.overlay(uid, attributes, parents)
        self.stamp = stamp                          # of the beginning: what changed meanwhile is noticed
        return 0


@cython.final
cdef class Answer:
    """What was decided: `allowed`, and which policies decided (`reasons`), erred (`errors`) or hit a limit (`faults`).

    `reasons` are the satisfied forbids if there is one, else the satisfied permits. `errors` are policies that could
    not be evaluated, and so counted as not satisfied. `faults` are codes of limits that were hit, or
    `entity_not_resident`: then the request is denied, whatever the policies say. See vm.pyi for `missing` and `flip_ms`,
    which say how it was decided and are no part of what the answer is.
    """

    __match_args__ = ("allowed", "reasons", "errors", "faults")

    def __cinit__(self, bint allowed, frozenset reasons, frozenset errors, tuple faults=()):
        self.allowed = allowed
        self.reasons = reasons
        self.errors = errors
        self.faults = faults

    def __eq__(self, other):
        if not isinstance(other, Answer):
            return NotImplemented
        cdef Answer that = <Answer>other
        return (
            self.allowed == that.allowed
            and self.reasons == that.reasons
            and self.errors == that.errors
            and self.faults == that.faults
        )

    def __hash__(self):
        return hash((self.allowed, self.reasons, self.errors, self.faults))

    def __repr__(self):
        return (
            f"Answer(allowed={bool(self.allowed)}, reasons={set(self.reasons)}, errors={set(self.errors)}, "
            f"faults={self.faults})"
        )

    def __reduce__(self):
        return Answer, (self.allowed, self.reasons, self.errors, self.faults)


# --- deciding -------------------------------------------------------------------------------------------------------


cdef class Decider:
    """Policies bound to a store of entities: an immutable snapshot.

    `rules` and `ids` have the same order; ids are distinct. Each decision takes at most `steps_max` steps and
    `VM_MEMORY_MAX` bytes: what goes beyond is a fault and denies.
    """

    def __cinit__(self, EntityStore store not None, rules, ids, *, int64_t steps_max=VM_STEPS_MAX):
        cdef Rule rule
        cdef list bound = list(rules)
        self.ids = tuple(ids)
        if len(self.ids) != len(bound):
            raise ValueError("as many ids as rules are needed")
        self.store = store
        self.steps_max = steps_max
        self.index.rules = <RuleC**>calloc(len(bound) + 1, sizeof(void*))
        if self.index.rules is NULL:
            raise MemoryError()
        for rule in bound:
            self.index.rules[self.index.rule_count] = rule_bind(rule, store)
            self.index.rule_count += 1
        if not index_build(&self.index):
            raise MemoryError()

    def __dealloc__(self):
        cdef uint32_t number
        for number in range(self.index.rule_count):
            rule_release(self.index.rules[number])
        free(self.index.rules)
        index_free(&self.index)

    def allows(self, EntityUid principal not None, EntityUid action not None, EntityUid resource not None, context=None):
        """Return whether the request is allowed: the fast way, without diagnostics.

        `context` is a dict of values, or None for an empty one. Raises TypeError or ValueError for a context that is
        none.
        """
        cdef Scratch* scratch = scratch_take()
        cdef RequestC request
        cdef int fault = 0
        try:
            request_fill(self.store, &request, &scratch.arena, principal, action, resource, context)
            self.start(&request.run, &scratch.arena, scratch)
            return <bint>rules_allow(&self.index, &request, &fault)
        finally:
            scratch_give(scratch)

    cdef inline void start(self, Run* run, Arena* arena, Scratch* scratch) noexcept nogil:
        run_start(run, &self.store.c, arena, scratch, self.steps_max)

    def authorize(
        self, EntityUid principal not None, EntityUid action not None, EntityUid resource not None, context=None
    ):
        """Return the Answer: the decision with the policies that made it, and those that erred."""
        cdef Scratch* scratch = scratch_take()
        cdef RequestC request
        try:
            request_fill(self.store, &request, &scratch.arena, principal, action, resource, context)
            self.start(&request.run, &scratch.arena, scratch)
            return self.collect(&request, scratch)
        finally:
            scratch_give(scratch)

    cdef int begin_walk(self, Walk* walk, RequestC* request, Scratch* scratch) except -1:
        """Let a walk note what it finds in `scratch`."""
        if scratch.finding_capacity <= self.index.entry_count:
            free(scratch.findings)
            scratch.finding_capacity = 0
            scratch.findings = <Finding*>malloc((self.index.entry_count + 1) * sizeof(Finding))
            if scratch.findings is NULL:
                raise MemoryError()
            scratch.finding_capacity = self.index.entry_count + 1
        walk.index = &self.index
        walk.request = request
        walk.findings = scratch.findings
        walk.finding_count = 0
        walk.finding_capacity = scratch.finding_capacity
        walk.faulted = 0
        walk.strict = 0
        walk.traced = 0
        return 0

    cdef Answer collect(self, RequestC* request, Scratch* scratch):
        """Run every policy that may apply, in the order of its text."""
        cdef Walk walk
        cdef Finding* finding
        cdef uint32_t number, forbids_end
        cdef Answer answer
        cdef EntityUid missing = None
        cdef list permits, forbids, errors
        cdef tuple faults = ()
        self.begin_walk(&walk, request, scratch)
        if heads_unknown(&self.index, request):
            walk.faulted = VM_ERROR_NOT_RESIDENT
        elif not walk_effect(&walk, 0):
            walk_effect(&walk, 1)
        if walk.faulted and request.run.missing is not NULL:
            missing = self.store._uid(request.run.missing)
        # Only now: what Python makes may wake the collector, and that others who change the store.
        permits, forbids, errors = [], [], []
        for number in range(walk.finding_count):
            finding = &walk.findings[number]
            if finding.outcome == RUN_SATISFIED:
                if self.index.rules[finding.rule].permits:
                    permits.append(self.ids[finding.rule])
                else:
                    forbids.append(self.ids[finding.rule])
            elif finding.outcome == RUN_ERROR:
                errors.append(self.ids[finding.rule])
        if walk.faulted:
            faults = (vm_error_codes[walk.faulted].decode(),)
            answer = Answer(False, frozenset(), frozenset(errors), faults)
            answer.missing = missing
        elif forbids:
            answer = Answer(False, frozenset(forbids), frozenset(errors))
        else:
            answer = Answer(bool(permits), frozenset(permits), frozenset(errors))
        if request.run.turn_ms != INT64_MAX:
            answer.flip_ms = request.run.turn_ms
        return answer

    def prepare(
        self, EntityUid principal not None, EntityUid action not None, EntityUid resource not None, context=None,
        *, overlays=None
    ):
        """Return a Request that `decide` and `answer` take: its entities looked up, its context converted.

        `overlays` defines principal, action or resource for this request alone: by uid, (attributes, parents). What is
        given goes before what the store has of the entity. `context` is kept, and must not change.
        """
        cdef Request request = Request.__new__(Request)
        request.store = self.store
        request.principal = principal
        request.action = action
        request.resource = resource
        request.context = context
        if overlays:
            request.overlays = dict(overlays)
        request.fill()
        return request

    cdef inline int check_request(self, Request request) except -1:
        if request.store is not self.store:
            raise ValueError("the request was prepared for other entities")
        cdef int tries
        if stamp_holds(&self.store.c, &request.stamp):
            return 0
        for tries in range(FILL_TRIES):
            request.fill()
            if stamp_holds(&self.store.c, &request.stamp):
                return 0
        raise RuntimeError("entities change faster than a request can be read")

    def decide(self, Request request not None):
        """Return whether a prepared request is allowed."""
        cdef Scratch* scratch
        cdef int fault = 0
        cdef bint allowed
        self.check_request(request)
        scratch = scratch_take()
        self.start(&request.c.run, &scratch.arena, scratch)
        allowed = rules_allow(&self.index, &request.c, &fault)
        scratch_give(scratch)
        return allowed

    def answer(self, Request request not None):
        """Return the Answer to a prepared request."""
        cdef Scratch* scratch
        self.check_request(request)
        scratch = scratch_take()
        try:
            self.start(&request.c.run, &scratch.arena, scratch)
            return self.collect(&request.c, scratch)
        finally:
            scratch_give(scratch)

    def trace(self, Request request not None):
        """Decide a prepared request as `decide` does, and say how: (allowed, looks, fault).

        `looks` are the policies that were looked at, in the order in which they were: (id, outcome), the outcome one of
        `head` (it does not hold, so that the conditions were not run), `unsatisfied`, `satisfied`, `error`, `fault`.
        `fault` is the code of a limit that was hit, or of an entity that must be fetched, else None.
        """
        cdef Walk walk
        cdef Scratch* scratch
        cdef uint32_t number
        cdef bint allowed
        cdef list looks = []
        self.check_request(request)
        scratch = scratch_take()
        try:
            self.start(&request.c.run, &scratch.arena, scratch)
            self.begin_walk(&walk, &request.c, scratch)
            walk.traced = 1
            allowed = walk_decide(&walk)
            for number in range(walk.finding_count):
                looks.append((self.ids[walk.findings[number].rule], LOOKS[walk.findings[number].outcome]))
            return allowed, looks, vm_error_codes[walk.faulted].decode() if walk.faulted else None
        finally:
            scratch_give(scratch)

    def lacks(self, Request request not None):
        """Return the entity that must be fetched before a door can decide a prepared request; None where it can.

        Doors look at cheap clauses first, so it may be another one than `Answer.missing`.
        """
        cdef Scratch* scratch
        cdef int fault = 0
        self.check_request(request)
        scratch = scratch_take()
        try:
            self.start(&request.c.run, &scratch.arena, scratch)
            rules_allow_strictly(&self.index, &request.c, &fault)
            return None if request.c.run.missing is NULL else self.store._uid(request.c.run.missing)
        finally:
            scratch_give(scratch)

    def decide_all(self, list requests not None):
        """Return whether each of several prepared requests is allowed, in their order; releases the GIL meanwhile."""
        cdef Py_ssize_t count = len(requests), at
        cdef RequestC** pointers = <RequestC**>malloc((count + 1) * sizeof(void*))
        cdef bint* allowed = <bint*>malloc((count + 1) * sizeof(bint))
        cdef Scratch* scratch = NULL
        cdef Request request
        cdef int fault = 0
        cdef list kept = list(requests)
        try:
            if pointers is NULL or allowed is NULL:
                raise MemoryError()
            scratch = scratch_take()
            self.store.give_way()
            self.store.hold()               # from here on nothing changes
            try:
                for at in range(count):
                    request = kept[at]
                    self.check_request(request)
                    pointers[at] = &request.c
                with nogil:
                    for at in range(count):
                        arena_reset(&scratch.arena)
                        self.start(&pointers[at].run, &scratch.arena, scratch)
                        allowed[at] = rules_allow(&self.index, pointers[at], &fault)
            finally:
                self.store.release()
            return [bool(allowed[at]) for at in range(count)]
        finally:
            free(pointers)
            free(allowed)
            if scratch is not NULL:
                scratch_give(scratch)

    cdef Scratch* open_request(self, RequestC* out, Request like) except NULL:
        cdef Scratch* scratch
        self.check_request(like)
        scratch = scratch_take()
        scratch.context = NULL
        memcpy(out, &like.c, sizeof(RequestC))
        return scratch

    cdef int name_entity(self, RequestC* request, Scratch* scratch, int variable, uint32_t type, Slice id) except -1:
        cdef const EntityNode* node
        cdef Subject* subject = &request.principal if variable == 0 else (
            &request.action if variable == 1 else &request.resource
        )
        if id.len < 0 or id.len > VM_MEMORY_MAX or type == 0 or type >= self.store.c.type_count:
            raise ValueError("no name of an entity")
        if not text_is_utf8(<const uint8_t*>id.ptr, <uint32_t>id.len):
            raise ValueError("an id that is no text")
        node = request_node(&self.store.c, &scratch.arena, type, id.ptr, <uint32_t>id.len)
        if node is NULL:
            raise ValueError("the request is too large")
        subject_set(subject, &request.run.variables[variable], known_node(request, node))
        return 0

    cdef int open_context(self, RequestC* request, Scratch* scratch, uint32_t fields_max) except -1:
        scratch.context = <Record*>arena_take(&scratch.arena, sizeof(Record) + fields_max * sizeof(Field))
        if scratch.context is NULL:
            raise ValueError("the request is too large")
        scratch.context_room = fields_max
        scratch.context.owner = 0
        scratch.context.count = 0
        request.run.variables[3].tag = VALUE_RECORD
        request.run.variables[3].record = scratch.context
        return 0

    cdef int give_value(self, RequestC* request, Scratch* scratch, uint32_t key, const Value* value) except -1:
        cdef Record* context = scratch.context
        cdef uint32_t at
        if context is NULL or context.count == scratch.context_room:
            raise ValueError("more attributes than the context was opened for")
        at = context.count
        while at > 0 and context.fields[at - 1].key >= key:
            if context.fields[at - 1].key == key:
                raise ValueError("an attribute is given twice")
            at -= 1
        memmove(&context.fields[at + 1], &context.fields[at], (context.count - at) * sizeof(Field))
        context.fields[at].value = value[0]
        context.fields[at].key = key
        context.count += 1
        return 0

    cdef int give_text(self, RequestC* request, Scratch* scratch, uint32_t key, Slice text) except -1:
        cdef Value value
        if text.len < 0 or text.len > VM_MEMORY_MAX or not text_is_utf8(<const uint8_t*>text.ptr, <uint32_t>text.len):
            raise ValueError("an attribute that is no text")
        value.tag = VALUE_STRING
        value.text = arena_text(&scratch.arena, text.ptr, <uint32_t>text.len)
        if value.text is NULL:
            raise ValueError("the request is too large")
        return self.give_value(request, scratch, key, &value)

    cdef bint close_request(self, RequestC* request, Scratch* scratch, bint complete) noexcept:
        cdef int fault = 0
        cdef bint allowed = False
        if complete:
            self.start(&request.run, &scratch.arena, scratch)
            allowed = rules_allow_strictly(&self.index, request, &fault)
        scratch_give(scratch)
        return allowed

    def decide_for(self, Request like not None, EntityUid resource not None, context=None):
        """Return whether `like`, a prepared request, is allowed for another resource and context.

        Its principal and action are looked up, and what they define converted, once for many questions.
        """
        cdef RequestC request
        cdef Scratch* scratch
        cdef int fault = 0
        scratch = self.open_request(&request, like)
        try:
            subject_set(
                &request.resource,
                &request.run.variables[2],
                known_node(&request, self.store.node_of_request(resource, &scratch.arena)),
            )
            context_fill(self.store, &scratch.arena, context, &request.run.variables[3])
            if not stamp_holds(&self.store.c, &like.stamp):     # reading the context changed the store
                raise RuntimeError("entities changed while the request was read")
            self.start(&request.run, &scratch.arena, scratch)
            return <bint>rules_allow(&self.index, &request, &fault)
        finally:
            scratch_give(scratch)

    def allows_like(self, Request like not None, str resource_type not None, bytes resource_id not None, dict texts=None):
        """Return whether `like` with another resource, and a context of texts, is allowed: as the front door asks.

        Raises ValueError for what is no text, or too large.
        """
        cdef RequestC request
        cdef Scratch* scratch
        cdef uint32_t type = ready(self.store).type_of(resource_type)
        cdef bint complete = False
        cdef list fields = []
        for name, text in (texts or {}).items():
            data = name.encode()
            fields.append((ready(self.store).pinned_key(data, <uint32_t>len(data)), text))
        scratch = self.open_request(&request, like)
        try:
            self.name_entity(&request, scratch, 2, type, slice_of(resource_id, len(resource_id)))
            if texts is not None:
                self.open_context(&request, scratch, <uint32_t>len(fields))
                for key, text in fields:
                    self.give_text(&request, scratch, key, slice_of(text, len(text)))
            complete = True
        finally:
            complete = self.close_request(&request, scratch, complete)
        return complete

    def run_each(self, Request request not None):
        """Run every policy alone, without the index, in the order of its text.

        Returns for each, in the order of `ids`, (head, code, satisfied, pc): the part of its head that does not hold
        (`principal`, `action`, `resource`) or None; the code of its error or fault, or None; whether it is satisfied;
        the instruction that failed, or that ended it.
        """
        cdef Scratch* scratch
        cdef uint32_t number
        cdef const RuleC* rule
        cdef RunOutcome outcome
        cdef list found = []
        self.check_request(request)
        scratch = scratch_take()
        try:
            for number in range(self.index.rule_count):
                rule = self.index.rules[number]
                self.start(&request.c.run, &scratch.arena, scratch)
                if bound_unknown(request.c.run.store, &rule.principal, request.c.principal.node) or bound_unknown(
                    request.c.run.store, &rule.resource, request.c.resource.node
                ):
                    found.append((None, vm_error_codes[VM_ERROR_NOT_RESIDENT].decode(), False, 0))
                elif not bound_holds(request.c.run.store, &rule.principal, request.c.principal.node):
                    found.append(("principal", None, False, 0))
                elif not rule_action_holds(request.c.run.store, rule, request.c.action.node):
                    found.append(("action", None, False, 0))
                elif not bound_holds(request.c.run.store, &rule.resource, request.c.resource.node):
                    found.append(("resource", None, False, 0))
                else:
                    outcome = machine_run(&request.c.run, rule.program, rule.program.exact_entry)
                    code = None
                    if outcome >= RUN_ERROR:
                        code = vm_error_codes[request.c.run.error].decode()
                    found.append((None, code, outcome == RUN_SATISFIED, request.c.run.pc))
                arena_reset(&scratch.arena)
            return found
        finally:
            scratch_give(scratch)

    def candidates(self, EntityUid principal, EntityUid action not None, EntityUid resource=None):
        """Return (number, is sure) of each policy whose head can hold for these; None: whoever, or whatever, it is.

        Not sure is a head that asks what one of them is in, where that must be fetched first.
        """
        cdef Scratch* scratch = scratch_take()
        cdef const Store* store = &self.store.c
        cdef const RuleC* rule
        cdef const EntityNode* who = NULL
        cdef const EntityNode* act
        cdef const EntityNode* what = NULL
        cdef uint32_t number
        cdef bint is_unsure
        cdef list found = []
        self.store.hold()       # what is made here may wake the collector, and that other threads
        try:
            if principal is not None:
                who = self.store.node_of_request(principal, &scratch.arena)
            if resource is not None:
                what = self.store.node_of_request(resource, &scratch.arena)
            act = self.store.node_of_request(action, &scratch.arena)
            for number in range(self.index.rule_count):
                rule = self.index.rules[number]
                is_unsure = False
                if who is not NULL and not bound_holds(store, &rule.principal, who):
                    if not bound_unknown(store, &rule.principal, who):
                        continue
                    is_unsure = True
                if what is not NULL and not bound_holds(store, &rule.resource, what):
                    if not bound_unknown(store, &rule.resource, what):
                        continue
                    is_unsure = True
                if not rule_action_holds(store, rule, act):
                    if rule.action_op != BOUND_IN or entity_away(store, act) is NULL:
                        continue
                    is_unsure = True
                found.append((number, not is_unsure))
            return found
        finally:
            self.store.release()
            scratch_give(scratch)

    def evaluate(self, Program program not None, Request request not None):
        """Run the program of an expression; return (code, value, pc): code is None where there is a value."""
        cdef Scratch* scratch = NULL
        cdef ProgramC* bound = bind_expression(program, self.store)
        try:
            self.check_request(request)     # after binding, which may give numbers to names that the request has
            scratch = scratch_take()
            self.start(&request.c.run, &scratch.arena, scratch)
            return run_value(self.store, bound, &request.c.run, &request.arena)
        finally:
            program_release(bound)
            if scratch is not NULL:
                scratch_give(scratch)

    def __len__(self):
        return self.index.rule_count


cdef inline bint bound_unknown(const Store* store, const Bound* bound, const EntityNode* node) noexcept nogil:
    """Tell whether a head asks what an entity is in, and that must be fetched first."""
    return bound.op in (BOUND_IN, BOUND_IS_IN) and not bound_holds(store, bound, node) and (
        entity_away(store, node) is not NULL
    )


cdef ProgramC* bind_expression(Program program, EntityStore store) except NULL:
    if program.c.is_policy:
        raise ValueError("a policy has no value")
    return program_bind(program, store)


cdef tuple run_value(EntityStore store, const ProgramC* program, Run* run, const Arena* names):
    """Run an expression; give (code, value, pc). `names`: the arena that the context was converted into."""
    if machine_run(run, program, 0) == RUN_SATISFIED:
        store.hold()        # what is made here may wake the collector, and that others who change the store
        try:
            return None, store.python_value(&run.result, names), 0
        finally:
            store.release()
    return vm_error_codes[run.error].decode(), None, run.pc


def run_expression(
    Program program not None, EntityStore store not None, EntityUid principal, EntityUid action, EntityUid resource,
    context,
):
    """Run the program of an expression; return (code, value, pc): code is None where there is a value.

    A variable that is None is unknown: reading it is the fault `internal_fault`.
    """
    cdef ProgramC* bound = bind_expression(program, store)
    cdef Scratch* scratch = NULL
    cdef Subject subject
    cdef Run run
    cdef int number
    try:
        scratch = scratch_take()
        for number in range(4):
            run.variables[number].tag = VALUE_NONE
            run.variables[number].number = 0
        for number, uid in enumerate((principal, action, resource)):
            if uid is not None:
                subject_set(&subject, &run.variables[number], store.node_of_request(uid, &scratch.arena))
        if context is not None:
            context_fill(store, &scratch.arena, context, &run.variables[3])
        run_start(&run, &store.c, &scratch.arena, scratch, VM_STEPS_MAX)
        return run_value(store, bound, &run, &scratch.arena)
    finally:
        program_release(bound)
        if scratch is not NULL:
            scratch_give(scratch)


# --- folding --------------------------------------------------------------------------------------------------------

cdef EntityStore fold_store = None
cdef int fold_uses = 0


def fold(bytes image not None):
    """Run the program of an expression without variables; return its value as an encoded constant.

    None where it has no value, or one that does not fold (entities keep their instructions).
    """
    global fold_store, fold_uses
    cdef Program program = Program(image)
    cdef Scratch* scratch
    cdef ProgramC* bound
    cdef Run run
    cdef bytearray out
    cdef int number
    # A store of its own, now and then a new one: it keeps every name that it ever saw.
    if fold_store is None or fold_uses > 1000:
        fold_store = EntityStore()
        fold_uses = 0
    fold_uses += 1
    bound = program_bind(program, fold_store)
    scratch = scratch_take()
    try:
        for number in range(4):
            run.variables[number].tag = VALUE_NONE
            run.variables[number].number = 0
        run_start(&run, &fold_store.c, &scratch.arena, scratch, VM_STEPS_MAX)
        if machine_run(&run, bound, 0) != RUN_SATISFIED:
            return None
        out = bytearray()
        encode_value(fold_store, &run.result, out)
        return bytes(out)
    finally:
        scratch_give(scratch)
        program_release(bound)


cdef int encode_text(const char* data, uint32_t length, bytearray out) except -1:
    out += (<const char*>&length)[:4]
    out += data[:length]
    return 0


cdef int encode_value(EntityStore store, const Value* value, bytearray out) except -1:
    """Append `value` as a constant (gateway/policy/compiler/constants.py)."""
    cdef uint32_t i
    cdef const Text* name
    out.append(value.tag)
    if value.tag == VALUE_BOOL:
        out.append(value.number != 0)
    elif value.tag == VALUE_STRING:
        encode_text(value.text.bytes, value.text.length, out)
    elif value.tag == VALUE_ENTITY:
        encode_text(value.entity.type_name.bytes, value.entity.type_name.length, out)
        encode_text(value.entity.id.bytes, value.entity.id.length, out)
    elif value.tag == VALUE_IP:
        out.append(value.ip.version)
        out.append(value.ip.prefix)
        out += (<const char*>value.ip.bytes)[:16]
    elif value.tag == VALUE_SET:
        out += (<const char*>&value.set.count)[:4]
        for i in range(value.set.count):
            encode_value(store, &value.set.items[i], out)
    elif value.tag == VALUE_RECORD:
        out += (<const char*>&value.record.count)[:4]
        for i in range(value.record.count):
            name = key_name(&store.c, NULL, value.record.fields[i].key)
            encode_text(name.bytes, name.length, out)
            encode_value(store, &value.record.fields[i].value, out)
    else:
        out += (<const char*>&value.number)[:8]
    return 0
