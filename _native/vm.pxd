"""The policy machine: what it runs, and how other compiled modules ask it."""

from libc.stdint cimport int32_t, int64_t, uint8_t, uint16_t, uint32_t, uint64_t

from gateway._native.entities cimport (
    Arena, EntityNode, EntityStore, Field, Holding, IpAddress, Record, Store, Text, Value, ValueSet, end_holding,
)
from gateway._native.slice cimport Slice
from gateway._native.uid cimport EntityUid

cdef extern from "entities.h" nogil:
    ctypedef struct StorePlaces "Store":   # what `entities.pxd` does not name
        uint32_t free_count
        uint64_t released

cdef extern from "opcodes.h" nogil:
    cdef enum:
        POPS_COUNT
        OP_COUNT
        OP_ATTR
        OP_HAS
        OP_HAS_STEP
        OP_IS
        OP_IS_STEP
        OP_VAR_ATTR
        OP_VAR_HAS
        OP_VAR_ATTR_EQ
        FUNCTION_COUNT
        VM_FORMAT
        VM_STACK_MAX
        VM_STEPS_MAX
        VM_MEMORY_MAX
        VM_ERROR_COUNT
        VM_ERROR_NOT_RESIDENT
    ctypedef struct Instruction:
        uint8_t op
        uint8_t a
        uint16_t b
        uint32_t c

cdef extern from "vm_image.h" nogil:
    ctypedef struct Reader:
        const uint8_t* at
        const uint8_t* end
    ctypedef struct Image:
        uint32_t code_count
        uint32_t clause_count
        uint32_t key_count
        uint32_t type_count
        uint32_t constant_count
        uint32_t pattern_count
        uint32_t shape_count
        uint32_t exact_entry
        uint32_t quick_entry
        int is_policy
        const uint8_t* code
        const uint8_t* names
        const uint8_t* end
    const char* image_verify(const uint8_t* data, size_t size, Image* image, uint32_t* where)
    size_t image_measure(const Image* image)
    int check_head(Reader* reader)
    int read_u32(Reader* reader, uint32_t* out)
    int read_text(Reader* reader, const char** data, uint32_t* length)

cdef extern from "vm_machine.h" nogil:
    ctypedef struct ShapeField:
        uint32_t key
        uint32_t position
    ctypedef struct Piece:
        const char* bytes
        uint32_t length
    ctypedef struct Pattern:
        uint32_t count
        uint32_t minimum
        const Piece* pieces
    ctypedef struct ProgramC "BoundProgram":
        int64_t references
        Arena memory
        uint64_t store_token
        Holding* names
        Instruction* code
        const Value* constants
        const Pattern* patterns
        const ShapeField** shapes
        uint32_t code_count
        uint32_t exact_entry
        uint32_t quick_entry
    ctypedef enum RunOutcome:
        RUN_UNSATISFIED
        RUN_SATISFIED
        RUN_ERROR
        RUN_FAULT
    ctypedef struct Run:
        Value variables[4]
        Value* stack
        Arena* arena
        const Store* store
        int64_t steps_left
        uint32_t error
        uint32_t pc
        Value result
        const EntityNode* missing
        int64_t turn_ms
        int overlaid
    const Record vm_empty_record
    int arena_fix(Arena* arena, size_t size)
    const ValueSet* machine_set(Arena* arena, Value* values, uint32_t count)
    RunOutcome machine_run(Run* run, const ProgramC* program, uint32_t entry)

cdef extern from "vm_rules.h" nogil:
    cdef enum:
        BOUND_ANY
        BOUND_EQUAL
        BOUND_IN
        BOUND_IS
        BOUND_IS_IN
    ctypedef struct Bound:
        uint8_t op
        uint32_t type
        const EntityNode* entity
    ctypedef struct RuleC "BoundRule":
        int64_t references
        uint64_t store_token
        Holding* names
        uint8_t permits
        uint8_t action_op
        uint32_t action_count
        const EntityNode** actions
        Bound principal
        Bound resource
        ProgramC* program
    ctypedef struct Subject:
        const EntityNode* node
        uint32_t place
    ctypedef struct RequestC "DecisionRequest":
        Subject principal
        Subject action
        Subject resource
        Run run
    ctypedef struct RuleIndex:
        RuleC** rules
        uint32_t rule_count
        uint32_t entry_count
    ctypedef struct Finding:
        uint32_t rule
        uint32_t outcome
        uint32_t error
        uint32_t pc
    ctypedef struct Walk:
        const RuleIndex* index
        RequestC* request
        Finding* findings
        uint32_t finding_count
        uint32_t finding_capacity
        int faulted
        int strict
        int traced
    enum:
        LOOK_HEAD
    int index_build(RuleIndex* index)
    void index_free(RuleIndex* index)
    bint bound_holds(const Store* store, const Bound* bound, const EntityNode* entity)
    bint rule_action_holds(const Store* store, const RuleC* rule, const EntityNode* action)
    int walk_effect(Walk* walk, int permits)
    bint walk_decide(Walk* walk)
    bint heads_unknown(const RuleIndex* index, RequestC* request)
    int rules_allow(const RuleIndex* index, RequestC* request, int* fault)
    int rules_allow_strictly(const RuleIndex* index, RequestC* request, int* fault)

cdef struct Scratch:
    Scratch* next
    Record* context             # in `arena`, while a front door fills it
    uint32_t context_room
    Arena arena                 # of one decision
    Finding* findings           # owned
    uint32_t finding_capacity
    Value stack[VM_STACK_MAX]

cdef class Program:
    """A verified program of a policy or an expression, and its form for the store that bound it last."""
    cdef readonly bytes image
    cdef Image c                # borrowed pointers into `image`
    cdef ProgramC* bound        # one reference; or NULL

cdef class Rule:
    """A policy: its head and the program of its conditions."""
    cdef readonly bytes head
    cdef readonly Program program
    cdef RuleC* bound           # one reference; or NULL

cdef struct Stamp:
    # What a store had when a request was filled: while nothing of this changed, its nodes are the same.
    uint64_t revision
    uint32_t places
    uint32_t free_places
    uint64_t released
    uint32_t types
    uint32_t keys

cdef class Request:
    """A prepared request. INVARIANT: `c` points into `arena` and into `store` only, and only while `stamp` holds."""
    cdef EntityStore store
    cdef Arena arena
    cdef RequestC c
    cdef Stamp stamp
    cdef EntityUid principal
    cdef EntityUid action
    cdef EntityUid resource
    cdef object context         # dict or None
    cdef dict overlays          # uid -> (attributes, parents), or None
    cdef int fill(self) except -1
    cdef int overlay(self, EntityUid uid, attributes, parents) except -1

cdef class Answer:
    """What was decided, and by which policies."""
    cdef readonly bint allowed
    cdef readonly frozenset reasons
    cdef readonly frozenset errors
    cdef readonly tuple faults
    cdef readonly EntityUid missing
    cdef readonly object flip_ms  # int or None

cdef class Decider:
    """Policies bound to a store."""
    cdef readonly EntityStore store
    cdef readonly tuple ids     # by number of the rule
    cdef RuleIndex index        # owned
    cdef int64_t steps_max
    cdef void start(self, Run* run, Arena* arena, Scratch* scratch) noexcept nogil
    """Make a run ready. Afterwards `run.missing` is what must be fetched, where a decision failed for want of it."""
    cdef int begin_walk(self, Walk* walk, RequestC* request, Scratch* scratch) except -1
    cdef Answer collect(self, RequestC* request, Scratch* scratch)
    cdef int check_request(self, Request request) except -1

    # For the front door: a decision without Python objects. Needs the GIL, runs no Python code. Between open_request
    # and close_request nothing of the store may change, and close_request must be called once, whatever happened.
    cdef Scratch* open_request(self, RequestC* out, Request like) except NULL
    """Begin a request as a copy of `like`, a prepared one (its principal, say, with what its claims define)."""
    cdef int name_entity(self, RequestC* request, Scratch* scratch, int variable, uint32_t type, Slice id) except -1
    """Set principal (0), action (1) or resource (2); `type` is the store's number (`EntityStore.type_of`)."""
    cdef int open_context(self, RequestC* request, Scratch* scratch, uint32_t fields_max) except -1
    """Begin a context of at most `fields_max` attributes in place of that of `like`."""
    cdef int give_value(self, RequestC* request, Scratch* scratch, uint32_t key, const Value* value) except -1
    """Add an attribute; `key` is the store's number (`EntityStore.pinned_key`). Its second value is an error."""
    cdef int give_text(self, RequestC* request, Scratch* scratch, uint32_t key, Slice text) except -1
    """Add an attribute that is text; the bytes are copied, and must be UTF-8."""
    cdef bint close_request(self, RequestC* request, Scratch* scratch, bint complete) noexcept
    """Decide if all that was asked for is `complete`, else deny; give the working memory back.

    Stricter than Cedar where Cedar is lenient: a forbid that cannot be evaluated denies.
    """

cdef Scratch* scratch_take() except NULL
"""Give working memory for one decision; the caller gives it back with scratch_give. Needs the GIL."""

cdef void scratch_give(Scratch* scratch) noexcept

cdef extern from "vm_names.h" nogil:
    const char* const vm_opcode_names[]
    const char* const vm_opcode_operands[]
    const int vm_opcode_pops[]
    const int vm_opcode_pushes[]
    const char* const vm_opcode_meanings[]
    const char* const vm_error_codes[]
    const char* const vm_error_meanings[]
    const char* const vm_function_names[]
    const int vm_function_counts[]
