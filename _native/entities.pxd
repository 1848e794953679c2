"""The store of entities: what it holds, for the machine (`entities.h`), and its owner, for Python."""

from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t

from gateway._native.uid cimport EntityUid

cdef extern from "pthread.h" nogil:
    ctypedef struct pthread_mutex_t:
        pass
    int pthread_mutex_lock(pthread_mutex_t* mutex)
    int pthread_mutex_unlock(pthread_mutex_t* mutex)

cdef extern from "values.h" nogil:
    cdef enum:
        VALUE_NONE
        VALUE_BOOL
        VALUE_LONG
        VALUE_STRING
        VALUE_ENTITY
        VALUE_SET
        VALUE_RECORD
        VALUE_DECIMAL
        VALUE_IP
        VALUE_DATETIME
        VALUE_DURATION
        VALUE_DEPTH_MAX
        NODE_EXISTS
        NODE_REQUEST
        NODE_WALKED
        NODE_AWAY
        NODE_SETTLED
        NODE_IDLE
        NODE_INDEX_NONE
        TYPE_OF_REQUEST
        KEY_OF_REQUEST
        KEY_NONE
    ctypedef struct Text:
        uint32_t owner
        uint32_t length
        uint32_t references
        uint32_t hash
        char bytes[0]
    ctypedef struct IpAddress:
        uint32_t owner
        uint8_t version
        uint8_t prefix
        uint8_t bytes[16]
    ctypedef struct EntityNode:
        const Text* type_name
        const Text* id
        uint32_t type
        uint32_t index
        uint32_t generation
        uint32_t flags
        uint64_t version
        const Record* attributes
        const Record* tags
        uint32_t* ancestors
        uint32_t* parents
        uint32_t* children
        uint32_t ancestor_count
        uint32_t parent_count
        uint32_t child_count
        uint32_t walked_child_count
        uint32_t references
    ctypedef struct Value:
        uint8_t tag
        int64_t number
        const Text* text
        const EntityNode* entity
        const ValueSet* set
        const Record* record
        const IpAddress* ip
    ctypedef struct ValueSet:
        uint32_t owner
        uint32_t count
        Value items[0]
    ctypedef struct Field:
        uint32_t key
        Value value
    ctypedef struct Record:
        uint32_t owner
        uint32_t count
        Field fields[0]
    ctypedef struct Arena:
        size_t limit
        size_t first_bytes
    int value_compare(const Value* a, const Value* b)
    void* arena_take(Arena* arena, size_t size)
    void arena_reset(Arena* arena)
    void arena_free(Arena* arena)

cdef extern from "entities.h" nogil:
    ctypedef struct Holding:
        Holding* next
        void* owner
    ctypedef struct Store:
        uint64_t token
        uint64_t revision
        uint64_t walk_revision
        uint32_t owner
        uint32_t place_count
        uint32_t existing_count
        uint32_t key_count
        uint32_t type_count
        const Text** keys
        const Text** types
        uint8_t* type_flags
        uint32_t* type_counts
        uint32_t sourced_count
        uint32_t* queue
        uint32_t* stamps
        pthread_mutex_t lock
        size_t bytes
    EntityNode* store_node(const Store* store, uint32_t place)
    uint32_t store_key(const Store* store, const char* bytes, uint32_t length)
    void node_expect(const EntityNode* node)
    EntityNode* store_find(const Store* store, uint32_t type, const char* id, uint32_t length)
    int entity_in(const Store* store, const EntityNode* a, const EntityNode* b)
    const EntityNode* entity_away(const Store* store, const EntityNode* a)
    const Text* arena_text(Arena* arena, const char* bytes, uint32_t length)
    EntityNode* arena_node(
        Arena* arena, uint32_t type, const Text* type_name, uint8_t type_flags, const char* id, uint32_t length
    )
    const EntityNode* request_node(const Store* store, Arena* arena, uint32_t type, const char* id, uint32_t length)
    uint32_t request_key(const Store* store, Arena* arena, const char* bytes, uint32_t length)
    const Text* key_name(const Store* store, const Arena* arena, uint32_t key)

cdef extern from "entities_change.h" nogil:
    ctypedef struct Change:
        EntityNode* node
        const Record* attributes
        const Record* tags
        uint32_t* parents
        uint32_t parent_count
        bint exists
        bint moves
        uint32_t* moved
        uint32_t added_count
        uint32_t taken_count

cdef class EntityStore:
    """Entities by their uids, laid out for the machine. Changed under the GIL only, never while somebody `hold`s it."""
    cdef Store c                           # owned
    cdef dict type_numbers                 # str -> number
    cdef Py_ssize_t readers                # deciders that read it without the GIL; changed under the GIL
    cdef Py_ssize_t writers                # changes that wait for them; changed under the GIL
    cdef Holding* returned                 # owned; their names are given back before the next change

    # For whoever decides. What is held lives until the holding ends; what is pinned, as long as the store.
    cdef Holding* begin_holding(self) except NULL
    """Begin to mention names. Nobody may hold borrowed nodes or texts of the store across this call."""
    cdef const Text* held_text(self, Holding* holding, const char* bytes, uint32_t length) except NULL
    cdef uint32_t pinned_key(self, const char* bytes, uint32_t length) except? 0xFFFFFFFF
    cdef uint32_t type_of(self, str name) except 0
    cdef const EntityNode* held_node(self, Holding* holding, str type, const char* id, uint32_t length) except NULL
    cdef EntityNode* find(self, EntityUid uid) except? NULL
    """Give the node of an entity that is defined or mentioned, or NULL."""
    cdef const EntityNode* node_of_request(self, EntityUid uid, Arena* arena) except NULL
    """Give the store's node, or a new one of the arena: an entity that only the request knows."""
    cdef const EntityNode* overlay(self, EntityUid uid, object attributes, object parents, Arena* arena) except NULL
    """Define an entity for one request: a node of the arena, over what the store has of it.

    Attributes of the request go before those of the store. It is in what the store has it in, and in the parents given
    here and what those are in. What the store has below it stays where it is.
    """
    cdef int value_of_request(self, object item, Value* out, Arena* arena) except -1
    """Convert a Python value (see `gateway/_native/entities.pyi`) into the arena. Raises ValueError."""
    cdef object python_value(self, const Value* value, const Arena* arena)
    cdef void hold(self) noexcept
    cdef void release(self) noexcept

    cdef const Text* _arena_text(self, str text, Arena* arena) except NULL
    cdef int _wait(self) except -1
    cdef void _give_back(self) noexcept
    cdef int give_way(self) except -1
    """Let changes that wait go first. Whoever will `hold` the store for long calls this before: else deciders that
    overlap could keep a change waiting for ever."""
    cdef int _unmention(self, const uint32_t* places, uint32_t count) noexcept
    cdef int _prepare(self, Change* change, EntityUid uid, attributes, parents, tags) except -1
    cdef int _refuse_cycles(self, Change* changes, Py_ssize_t count) except -1
    cdef bint _is_cyclic(self, const Change* change) noexcept
    cdef void _parents_to_be(
        self, const Change* changes, uint32_t change, uint32_t place, const uint32_t** parents, uint32_t* count
    ) noexcept
    cdef str _cycle(self, const Change* changes, Py_ssize_t count, uint32_t begin)
    cdef object _uids(self, const uint32_t* places, uint32_t count)
    cdef EntityNode* _existing(self, EntityUid uid) except? NULL
    cdef object _closure(self, EntityUid uid, bint up)
    cdef int _convert(self, object item, Value* out, Arena* arena, int depth) except -1
    cdef int _convert_set(self, object items, Value* out, Arena* arena, int depth) except -1
    cdef int _convert_record(self, object fields, Value* out, Arena* arena, int depth) except -1
    cdef int _unsettle(self, EntityNode* node) noexcept
    cdef EntityNode* _intern(self, EntityUid uid) except NULL
    cdef object _uid(self, const EntityNode* node)

cdef void end_holding(Holding* holding) noexcept
"""End what `begin_holding` began, or do nothing for NULL. Needs the GIL; its names go at the store's next change."""
