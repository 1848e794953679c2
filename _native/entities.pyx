# cython: autotestdict=False, auto_pickle=False
"""The store of entities: their values for Python, and how they change. See `entities.h` for what the machine reads."""

cimport cython
from cpython.bool cimport PyBool_Check
from cpython.long cimport PyLong_Check
from cpython.ref cimport Py_DECREF, Py_INCREF
from cpython.unicode cimport PyUnicode_Check, PyUnicode_DecodeUTF8
from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free, malloc, qsort
from libc.string cimport memcpy, memset

import os
import threading

from gateway._native.extensions cimport (
    Datetime, Decimal, Duration, IPAddr, address_value, datetime_value, decimal_value, duration_value,
)
from gateway._native.uid cimport EntityUid

cdef extern from "Python.h":
    const char* PyUnicode_AsUTF8AndSize(object text, Py_ssize_t* size) except NULL
    long long PyLong_AsLongLongAndOverflow(object number, int* overflow) except? -1

cdef extern from "entities_change.h" nogil:
    enum:
        NODE_PINNED
    int store_open(Store* store, uint64_t token, uint32_t owner, uint64_t seed)
    void store_close(Store* store)
    void* store_take(Store* store, size_t size)
    void store_give(Store* store, void* taken, size_t size)
    Text* text_intern(Store* store, const char* bytes, uint32_t length)
    uint32_t key_intern(Store* store, const char* bytes, uint32_t length)
    uint32_t type_append(Store* store, const char* bytes, uint32_t length)
    EntityNode* node_intern(Store* store, uint32_t type, const char* id, uint32_t length)
    void node_release(Store* store, EntityNode* node)
    int holding_room(Holding* holding)
    void holding_add_node(Holding* holding, EntityNode* node)
    void holding_add_text(Holding* holding, Text* text)
    void holding_free(Store* store, Holding* holding)
    void node_mention(EntityNode* node)
    void node_unsettle(Store* store, EntityNode* node)
    size_t set_bytes(uint32_t count)
    size_t record_bytes(uint32_t count)
    void value_free(Store* store, const Value* value)
    void record_free(Store* store, const Record* record)
    void records_merge(Record* out, const Record* over, const Record* under)
    int place_compare(const void* a, const void* b)
    uint32_t stamp_next(Store* store)
    int parents_move(Change* change)
    int index_find(const uint32_t* places, uint32_t count, uint32_t place)
    ctypedef enum ChangeOutcome:
        CHANGED
        CHANGE_NO_MEMORY
        CHANGE_TOO_DEEP
    enum:
        ANCESTORS_LIMIT
    ChangeOutcome store_commit(Store* store, const Change* changes, size_t count)

# Limits: what one entity may hold. Hit, each is a ValueError that names it.
SET_ITEMS_MAX = 1 << 20
RECORD_FIELDS_MAX = 1 << 16
TEXT_BYTES_MAX = 1 << 26
VALUES_MAX = 1 << 22          # of one entity, or of what one request says: nested lists may share items without end
PARENTS_MAX = 1 << 20
ANCESTORS_MAX = ANCESTORS_LIMIT
DEPTH_MAX = VALUE_DEPTH_MAX

cdef uint32_t SET_LIMIT = SET_ITEMS_MAX
cdef uint32_t FIELD_LIMIT = RECORD_FIELDS_MAX
cdef Py_ssize_t TEXT_LIMIT = TEXT_BYTES_MAX
cdef uint32_t PARENT_LIMIT = PARENTS_MAX
cdef uint32_t CYCLE_NAMES = 8      # that a message spells out

cdef uint64_t last_token = 0
cdef int64_t values_left = 0  # of VALUES_MAX; under the GIL


cdef inline const char* utf8(str text, uint32_t* length) except NULL:
    """Borrow a text's bytes. Raises ValueError for lone surrogates and endless texts."""
    cdef Py_ssize_t size = 0
    cdef const char* bytes = PyUnicode_AsUTF8AndSize(text, &size)
    if size > TEXT_LIMIT:
        raise ValueError(f"a text of more than {TEXT_BYTES_MAX} bytes")
    length[0] = <uint32_t>size
    return bytes


cdef inline str text_of(const Text* text):
    return PyUnicode_DecodeUTF8(text.bytes, text.length, NULL)


cdef int compare_values(const void* a, const void* b) noexcept nogil:
    return value_compare(<const Value*>a, <const Value*>b)


cdef int compare_fields(const void* a, const void* b) noexcept nogil:
    cdef uint32_t x = (<const Field*>a).key
    cdef uint32_t y = (<const Field*>b).key
    return (x > y) - (x < y)


@cython.final
cdef class EntityStore:
    def __cinit__(self):
        global last_token
        last_token += 1
        if not store_open(&self.c, last_token, <uint32_t>(last_token & 0x7FFFFFFF) or 1,
                          int.from_bytes(os.urandom(8), "little") | 1):
            raise MemoryError()
        self.type_numbers = {}
        self.readers = 0
        self.writers = 0

    def __dealloc__(self):
        cdef Holding* holding
        while self.returned is not NULL:
            holding = self.returned
            self.returned = holding.next
            holding_free(NULL, holding)
        store_close(&self.c)

    # --- for whoever decides

    cdef Holding* begin_holding(self) except NULL:
        cdef Holding* holding
        if not self.readers:
            self._give_back()
        holding = <Holding*>calloc(1, sizeof(Holding))
        if holding is NULL:
            raise MemoryError()
        holding.owner = <void*>self
        Py_INCREF(self)
        return holding

    cdef const Text* held_text(self, Holding* holding, const char* bytes, uint32_t length) except NULL:
        cdef Text* text = text_intern(&self.c, bytes, length) if holding_room(holding) else NULL
        if text is NULL:
            raise MemoryError()
        holding_add_text(holding, text)
        return text

    cdef uint32_t pinned_key(self, const char* bytes, uint32_t length) except? 0xFFFFFFFF:
        cdef uint32_t key = store_key(&self.c, bytes, length)
        if key != KEY_NONE:
            return key
        self._wait()
        key = key_intern(&self.c, bytes, length)
        if key == KEY_NONE:
            raise MemoryError()
        return key

    cdef uint32_t type_of(self, str name) except 0:
        cdef object known = self.type_numbers.get(name)
        cdef uint32_t length = 0, number
        cdef const char* bytes
        if known is not None:
            return known
        bytes = utf8(name, &length)
        self._wait()
        known = self.type_numbers.get(name)     # others may have run meanwhile
        if known is not None:
            return known
        number = type_append(&self.c, bytes, length)
        if number == TYPE_OF_REQUEST:
            raise MemoryError()
        self.type_numbers[name] = number
        return number

    cdef const EntityNode* held_node(self, Holding* holding, str type, const char* id, uint32_t length) except NULL:
        cdef uint32_t number = self.type_of(type)
        cdef EntityNode* node
        if not holding_room(holding):
            raise MemoryError()
        node = store_find(&self.c, number, id, length)
        if node is NULL:
            self._wait()
            node = node_intern(&self.c, number, id, length)
        if node is NULL:
            raise MemoryError()
        holding_add_node(holding, node)
        return node

    cdef EntityNode* find(self, EntityUid uid) except? NULL:
        cdef EntityNode* node
        cdef object number
        cdef uint32_t length = 0
        cdef const char* id
        if uid is None:
            raise TypeError("an EntityUid is wanted, not None")
        if uid.store_token == self.c.token:
            node = store_node(&self.c, uid.node_index)
            if node.generation == uid.node_generation:
                return node
        number = self.type_numbers.get(uid.type)
        if number is None:
            return NULL
        id = utf8(uid.id, &length)
        node = store_find(&self.c, number, id, length)
        if node is not NULL:
            uid.store_token = self.c.token
            uid.node_index = node.index
            uid.node_generation = node.generation
        return node

    cdef const EntityNode* node_of_request(self, EntityUid uid, Arena* arena) except NULL:
        cdef const EntityNode* node = self.find(uid)
        cdef object number
        cdef const char* bytes
        cdef uint32_t length = 0
        cdef const Text* type_name
        if node is not NULL:
            return node
        number = self.type_numbers.get(uid.type)
        if number is None:
            bytes = utf8(uid.type, &length)
            type_name = arena_text(arena, bytes, length)
            number = TYPE_OF_REQUEST
        else:
            type_name = self.c.types[<uint32_t>number]
        bytes = utf8(uid.id, &length)
        if type_name is not NULL:
            node = arena_node(arena, number, type_name, self.c.type_flags[<uint32_t>number], bytes, length)
        if node is NULL:
            raise ValueError("the request is too large")
        return node

    cdef const EntityNode* overlay(self, EntityUid uid, object attributes, object parents, Arena* arena) except NULL:
        cdef const EntityNode* stored
        cdef const EntityNode* parent
        cdef const EntityNode** others          # parents that only the request knows, and walked ones
        cdef EntityNode* node
        cdef Value given
        cdef Record* merged
        cdef uint32_t i, j, count, total = 0
        cdef uint32_t* found
        global values_left
        values_left = VALUES_MAX
        self._convert_record(attributes, &given, arena, 0)
        uids = tuple(parents)
        count = <uint32_t>len(uids)
        if count > PARENT_LIMIT:
            raise ValueError(f"more than {PARENTS_MAX} parents")
        others = <const EntityNode**>arena_take(arena, (count + 1) * sizeof(void*))
        node = <EntityNode*>arena_take(arena, sizeof(EntityNode))
        if others is NULL or node is NULL:
            raise ValueError("the request is too large")
        # From here on nothing runs that could change the store.
        stored = self.node_of_request(uid, arena)
        memcpy(node, stored, sizeof(EntityNode))
        node.flags = NODE_REQUEST | NODE_EXISTS | (stored.flags & NODE_AWAY)
        node.attributes = given.record
        node.parents = NULL
        node.children = <uint32_t*>others
        node.parent_count = node.child_count = node.walked_child_count = 0
        if stored.attributes is not NULL:
            merged = <Record*>arena_take(arena, record_bytes(stored.attributes.count + given.record.count))
            if merged is NULL:
                raise ValueError("the request is too large")
            records_merge(merged, given.record, stored.attributes)
            node.attributes = merged
        for i in range(count):
            parent = self.node_of_request(uids[i], arena)
            if parent.flags & (NODE_REQUEST | NODE_WALKED):
                others[node.child_count] = parent
                node.child_count += 1
            else:
                total += 1 + parent.ancestor_count
        if total == 0:
            return node
        found = <uint32_t*>arena_take(arena, (<size_t>total + stored.ancestor_count) * sizeof(uint32_t))
        if found is NULL:
            raise ValueError("the request is too large")
        if stored.ancestor_count:                   # C allows no NULL here, not even for nothing
            memcpy(found, stored.ancestors, stored.ancestor_count * sizeof(uint32_t))
        total = stored.ancestor_count
        for i in range(count):
            parent = self.node_of_request(uids[i], arena)
            if not parent.flags & (NODE_REQUEST | NODE_WALKED):
                found[total] = parent.index
                if parent.ancestor_count:
                    memcpy(found + total + 1, parent.ancestors, parent.ancestor_count * sizeof(uint32_t))
                total += 1 + parent.ancestor_count
        qsort(found, total, sizeof(uint32_t), place_compare)
        j = 0
        for i in range(total):
            if j == 0 or found[i] != found[j - 1]:
                found[j] = found[i]
                j += 1
        node.ancestors = found
        node.ancestor_count = j
        return node

    cdef const Text* _arena_text(self, str text, Arena* arena) except NULL:
        cdef uint32_t length = 0
        cdef const char* bytes = utf8(text, &length)
        cdef const Text* made = arena_text(arena, bytes, length)
        if made is NULL:
            raise ValueError("the request is too large")
        return made

    cdef int value_of_request(self, object item, Value* out, Arena* arena) except -1:
        global values_left
        values_left = VALUES_MAX
        return self._convert(item, out, arena, 0)

    cdef void hold(self) noexcept:
        self.readers += 1

    cdef void release(self) noexcept:
        self.readers -= 1

    # --- values

    cdef int _convert(self, object item, Value* out, Arena* arena, int depth) except -1:
        """Convert a value: into the arena, or, where that is NULL, into the store, which owns it then."""
        cdef int overflow = 0
        cdef uint32_t length = 0
        cdef const char* bytes
        cdef IpAddress* address
        cdef const EntityNode* node
        global values_left
        if depth > VALUE_DEPTH_MAX:
            raise ValueError(f"nested more than {VALUE_DEPTH_MAX} times")
        values_left -= 1
        if values_left < 0:
            raise ValueError(f"more than {VALUES_MAX} values")
        if PyUnicode_Check(item):
            bytes = utf8(item, &length)
            out.text = text_intern(&self.c, bytes, length) if arena is NULL else arena_text(arena, bytes, length)
            if out.text is NULL:
                raise MemoryError() if arena is NULL else ValueError("the request is too large")
            out.tag = VALUE_STRING
        elif PyBool_Check(item):
            out.tag = VALUE_BOOL
            out.number = item is True
        elif PyLong_Check(item):
            out.number = PyLong_AsLongLongAndOverflow(item, &overflow)
            if overflow:
                raise ValueError("a number beyond 64 bits")
            out.tag = VALUE_LONG
        elif isinstance(item, EntityUid):
            if arena is NULL:
                node = self._intern(item)
                node_mention(<EntityNode*>node)
            else:
                node = self.node_of_request(item, arena)
            out.entity = node
            out.tag = VALUE_ENTITY
        elif isinstance(item, dict):
            self._convert_record(item, out, arena, depth)
        elif isinstance(item, (list, tuple, set, frozenset)):
            self._convert_set(item, out, arena, depth)
        elif isinstance(item, Decimal):
            out.number = (<Decimal>item).number
            out.tag = VALUE_DECIMAL
        elif isinstance(item, Datetime):
            out.number = (<Datetime>item).number
            out.tag = VALUE_DATETIME
        elif isinstance(item, Duration):
            out.number = (<Duration>item).number
            out.tag = VALUE_DURATION
        elif isinstance(item, IPAddr):
            if arena is NULL:
                address = <IpAddress*>store_take(&self.c, sizeof(IpAddress))
            else:
                address = <IpAddress*>arena_take(arena, sizeof(IpAddress))
            if address is NULL:
                raise MemoryError() if arena is NULL else ValueError("the request is too large")
            memset(address, 0, sizeof(IpAddress))
            address.owner = self.c.owner if arena is NULL else 0
            address.version = (<IPAddr>item).version
            address.prefix = (<IPAddr>item).prefix
            memcpy(address.bytes, (<IPAddr>item).bytes, 16)
            out.ip = address
            out.tag = VALUE_IP
        else:
            raise ValueError(f"no Cedar value: {type(item).__name__}")
        return 0

    cdef int _convert_set(self, object items, Value* out, Arena* arena, int depth) except -1:
        cdef uint32_t total = 0, count = 0, i
        cdef Value* values = NULL
        cdef ValueSet* made
        if len(items) > SET_LIMIT:
            raise ValueError(f"a set of more than {SET_ITEMS_MAX} items")
        total = <uint32_t>len(items)
        values = <Value*>calloc(total if total else 1, sizeof(Value))
        if values is NULL:
            raise MemoryError()
        try:
            for item in items:
                if count == total:
                    raise ValueError("a set that changes while it is read")
                self._convert(item, &values[count], arena, depth + 1)
                count += 1
            qsort(values, count, sizeof(Value), compare_values)
            total = count
            count = 0
            for i in range(total):
                if count and value_compare(&values[count - 1], &values[i]) == 0:
                    if arena is NULL:
                        value_free(&self.c, &values[i])
                    continue
                values[count] = values[i]
                count += 1
            if arena is NULL:
                made = <ValueSet*>store_take(&self.c, set_bytes(count))
            else:
                made = <ValueSet*>arena_take(arena, set_bytes(count))
            if made is NULL:
                raise MemoryError() if arena is NULL else ValueError("the request is too large")
            made.owner = self.c.owner if arena is NULL else 0
            made.count = count
            memcpy(made.items, values, count * sizeof(Value))
            out.set = made
            out.tag = VALUE_SET
        except BaseException:
            if arena is NULL:
                for i in range(count):
                    value_free(&self.c, &values[i])
            raise
        finally:
            free(values)
        return 0

    cdef int _convert_record(self, object fields, Value* out, Arena* arena, int depth) except -1:
        cdef uint32_t count = 0, length = 0, i, key, total
        cdef const char* bytes
        cdef Record* made
        if len(fields) > FIELD_LIMIT:
            raise ValueError(f"a record of more than {RECORD_FIELDS_MAX} attributes")
        total = <uint32_t>len(fields)
        if arena is NULL:
            made = <Record*>store_take(&self.c, record_bytes(total))
        else:
            made = <Record*>arena_take(arena, record_bytes(total))
        if made is NULL:
            raise MemoryError() if arena is NULL else ValueError("the request is too large")
        made.owner = self.c.owner if arena is NULL else 0
        made.count = total
        try:
            for name, item in fields.items():
                if count == total:
                    raise ValueError("a record that changes while it is read")
                if not PyUnicode_Check(name):
                    raise ValueError("an attribute's name is text")
                bytes = utf8(name, &length)
                if arena is NULL:
                    key = self.pinned_key(bytes, length)
                else:
                    key = request_key(&self.c, arena, bytes, length)
                    if key == KEY_NONE:
                        raise ValueError("the request has too many attributes")
                memset(&made.fields[count].value, 0, sizeof(Value))
                self._convert(item, &made.fields[count].value, arena, depth + 1)
                made.fields[count].key = key
                count += 1
            if count != total:
                raise ValueError("a record that changes while it is read")
        except BaseException:
            if arena is NULL:
                for i in range(count):
                    value_free(&self.c, &made.fields[i].value)
                store_give(&self.c, made, record_bytes(total))
            raise
        qsort(made.fields, total, sizeof(Field), compare_fields)
        out.record = made
        out.tag = VALUE_RECORD
        return 0

    cdef object python_value(self, const Value* value, const Arena* arena):
        cdef uint32_t i
        if value.tag == VALUE_BOOL:
            return bool(value.number)
        if value.tag == VALUE_LONG:
            return value.number
        if value.tag == VALUE_STRING:
            return text_of(value.text)
        if value.tag == VALUE_ENTITY:
            return self._uid(value.entity)
        if value.tag == VALUE_SET:
            return tuple([self.python_value(&value.set.items[i], arena) for i in range(value.set.count)])
        if value.tag == VALUE_RECORD:
            return {
                text_of(key_name(&self.c, arena, value.record.fields[i].key)): self.python_value(
                    &value.record.fields[i].value, arena
                )
                for i in range(value.record.count)
            }
        if value.tag == VALUE_DECIMAL:
            return decimal_value(value.number)
        if value.tag == VALUE_DATETIME:
            return datetime_value(value.number)
        if value.tag == VALUE_DURATION:
            return duration_value(value.number)
        if value.tag == VALUE_IP:
            return address_value(value.ip.version, value.ip.prefix, value.ip.bytes)
        raise ValueError("no value")

    cdef object _uid(self, const EntityNode* node):
        # All of the node is read first: what is made then may wake the collector, and that others who change the store.
        cdef str type = text_of(node.type_name)
        cdef str id = text_of(node.id)
        cdef bint is_kept = not node.flags & NODE_REQUEST
        cdef uint32_t index = node.index, generation = node.generation
        cdef EntityUid uid = EntityUid(type, id)
        if is_kept:
            uid.store_token = self.c.token
            uid.node_index = index
            uid.node_generation = generation
        return uid

    cdef EntityNode* _intern(self, EntityUid uid) except NULL:
        cdef EntityNode* node = self.find(uid)
        cdef uint32_t length = 0, number
        cdef const char* id
        if node is not NULL:
            return node
        number = self.type_of(uid.type)
        id = utf8(uid.id, &length)
        self._wait()
        node = node_intern(&self.c, number, id, length)
        if node is NULL:
            raise MemoryError()
        return node

    # --- changes

    def walk_type(self, str name not None):
        """Let entities of this type be found by walking down from them; see `entities.h`. Before the first of them."""
        cdef uint32_t number = self.type_of(name), i
        if self.c.type_flags[number] & NODE_WALKED:
            return
        for i in range(self.c.place_count):
            if store_node(&self.c, i).type == number:
                raise ValueError(f"the type `{name}` is in use already")
        self.c.type_flags[number] |= NODE_WALKED

    def source_type(self, str name not None, bint sourced=True):
        """Say that entities of this type are kept elsewhere, and here only after they were fetched; or no more.

        Entities of the type that are defined stay. Raises ValueError for a type that is walked.
        """
        cdef uint32_t number = self.type_of(name), i
        cdef EntityNode* node
        if self.c.type_flags[number] & NODE_WALKED:
            raise ValueError(f"the type `{name}` is walked, and cannot be kept elsewhere")
        self._wait()
        if sourced == ((self.c.type_flags[number] & NODE_AWAY) != 0):
            return
        self.c.type_flags[number] ^= NODE_AWAY
        self.c.sourced_count += 1 if sourced else -1
        self.c.revision += 1
        for i in range(self.c.place_count):
            node = store_node(&self.c, i)
            if node.type != number or node.flags & NODE_EXISTS:
                continue
            node.version = self.c.revision
            if sourced:
                node.flags |= NODE_AWAY
            else:
                node.flags &= ~NODE_AWAY
                self._unsettle(node)

    @property
    def has_sourced_types(self):
        """Whether entities of any type are kept elsewhere."""
        return self.c.sourced_count > 0

    def is_sourced(self, str name not None):
        """Tell whether entities of this type are kept elsewhere."""
        return name in self.type_numbers and bool(self.c.type_flags[<uint32_t>self.type_numbers[name]] & NODE_AWAY)

    def resident(self, EntityUid uid not None):
        """Tell whether decisions may rest on what is here of the entity: always, but for one that must be fetched."""
        cdef EntityNode* node = self.find(uid)
        return not node.flags & NODE_AWAY if node is not NULL else not self.is_sourced(uid.type)

    def away(self, EntityUid uid not None):
        """Give what must be fetched before it is known what the entity is in: itself, and what is above it."""
        cdef EntityNode* node = self.find(uid)
        cdef EntityNode* above
        cdef uint32_t i
        if node is NULL:
            return frozenset([uid]) if self.is_sourced(uid.type) else frozenset()
        found = []
        self.hold()         # what is made here may wake the collector, and that other threads
        try:
            if node.flags & NODE_AWAY:
                found.append(uid)
            for i in range(node.ancestor_count):
                above = store_node(&self.c, node.ancestors[i])
                if above.flags & NODE_AWAY:
                    found.append(self._uid(above))
        finally:
            self.release()
        return frozenset(found)

    def settle(self, uids):
        """Say of entities that their source does not know them: they are here, and undefined; give the new revision.

        Those that are defined are undefined first. Raises ValueError for one whose type is kept nowhere else.
        """
        cdef EntityNode* node
        cdef EntityUid uid
        cdef list named = list(uids)
        for uid in named:
            if not self.is_sourced(uid.type):
                raise ValueError(f"{uid} is kept nowhere else")
        self.apply((), [uid for uid in named if uid in self])
        for uid in named:
            self._wait()
            node = self._intern(uid)
            if node.flags & NODE_EXISTS:    # others defined it meanwhile: they know more
                continue
            if not node.flags & NODE_SETTLED:
                node_mention(node)
                node.flags |= NODE_SETTLED
            node.flags &= ~NODE_AWAY
            self.c.revision += 1
            node.version = self.c.revision
        return self.c.revision

    def idle(self, uids):
        """Mark entities: `is_idle` is true of them from now on, until a decision is about them."""
        cdef EntityNode* node
        cdef list named = list(uids)
        self._wait()        # whoever decides without the GIL takes marks away
        for uid in named:
            node = self.find(<EntityUid?>uid)
            if node is not NULL:
                node.flags |= NODE_IDLE

    def is_idle(self, EntityUid uid not None):
        """Tell whether no decision had the entity as principal or resource since it was marked by `idle`.

        False for an entity that nothing defines or names. Only decisions of a store with sourced types count.
        """
        cdef const EntityNode* node = self.find(uid)
        return node is not NULL and bool(node.flags & NODE_IDLE)

    def evict(self, uids):
        """Let go what is here of entities that are kept elsewhere; give the new revision.

        Raises ValueError for one whose type is kept nowhere else.
        """
        cdef EntityNode* node
        cdef EntityUid uid
        cdef list named = list(uids)
        for uid in named:
            if not self.is_sourced(uid.type):
                raise ValueError(f"{uid} is kept nowhere else")
        self.apply((), [uid for uid in named if uid in self])
        for uid in named:
            self._wait()
            node = self.find(uid)
            if node is NULL or not node.flags & NODE_SETTLED:
                continue
            node.flags |= NODE_AWAY
            self.c.revision += 1
            node.version = self.c.revision
            self._unsettle(node)
        return self.c.revision

    cdef int _unsettle(self, EntityNode* node) noexcept:
        """Take back that a source does not know an entity; where nothing else names it, its place is given back."""
        node_unsettle(&self.c, node)
        return 0

    def put(self, EntityUid uid not None, attributes, parents=(), tags=None, *, str cycles="refuse"):
        """Define one entity, in place of what it was; give the new revision. See `apply`."""
        return self.apply([(uid, attributes, parents, tags)], (), cycles=cycles)

    def remove(self, EntityUid uid not None):
        """Undefine one entity; give the new revision."""
        return self.apply((), (uid,))

    def apply(self, upserts, deletes=(), moves=(), *, str cycles="refuse"):
        """Define and undefine entities, all or none; give the new revision.

        `upserts`: (uid, attributes, parents, tags or None) each; `moves`: (uid, parents that are added, parents that
        are taken out). With cycles="refuse", ValueError names an entity that would be in itself; with "allow" cycles
        are harmless. Raises ValueError for values that are none.
        """
        cdef Py_ssize_t total = len(upserts) + len(deletes) + len(moves)
        cdef Py_ssize_t count = 0, i
        cdef Change* changes
        cdef ChangeOutcome outcome
        if cycles not in ("refuse", "allow"):
            raise ValueError("cycles is `refuse` or `allow`")
        self._wait()
        changes = <Change*>calloc(total if total else 1, sizeof(Change))
        if changes is NULL:
            raise MemoryError()
        try:
            for uid, attributes, parents, tags in upserts:
                if count == total:
                    raise ValueError("upserts that change while they are read")
                self._prepare(&changes[count], uid, attributes, parents, tags)
                count += 1
            for uid in deletes:
                if count == total:
                    raise ValueError("deletes that change while they are read")
                changes[count].node = self._intern(uid)
                node_mention(changes[count].node)
                count += 1
            for uid, added, taken in moves:
                if count == total:
                    raise ValueError("moves that change while they are read")
                prepare_move(self, &changes[count], uid, added, taken)
                count += 1
            self._wait()
            make_moves(self, changes, count)
            if cycles == "refuse":
                self._refuse_cycles(changes, count)
            outcome = store_commit(&self.c, changes, count)
            if outcome == CHANGE_NO_MEMORY:
                raise MemoryError()
            if outcome == CHANGE_TOO_DEEP:
                raise ValueError(f"an entity would be in more than {ANCESTORS_MAX} others")
        except BaseException:
            for i in range(count):
                record_free(&self.c, changes[i].attributes)
                record_free(&self.c, changes[i].tags)
                end_change(self, &changes[i])
            free(changes)
            raise
        for i in range(count):
            end_change(self, &changes[i])
        free(changes)
        return self.c.revision

    cdef int _wait(self) except -1:
        """Wait for deciders that read without the GIL."""
        if self.readers:
            self.writers += 1
            try:
                while self.readers:
                    threading.Event().wait(0.0001)
            finally:
                self.writers -= 1
        self._give_back()
        return 0

    cdef void _give_back(self) noexcept:
        """Let go of what ended holdings mention. Nobody reads the store without the GIL meanwhile."""
        cdef Holding* holding
        while self.returned is not NULL:
            holding = self.returned
            self.returned = holding.next
            holding_free(&self.c, holding)

    cdef int give_way(self) except -1:
        while self.writers:
            threading.Event().wait(0.0001)
        return 0

    cdef int _unmention(self, const uint32_t* places, uint32_t count) noexcept:
        cdef uint32_t i
        cdef EntityNode* node
        for i in range(count):
            node = store_node(&self.c, places[i])
            if node.references < NODE_PINNED - 1:
                node.references -= 1
                node_release(&self.c, node)
        return 0

    cdef int _prepare(self, Change* change, EntityUid uid, attributes, parents, tags) except -1:
        """Convert one upsert; all that it points at is mentioned once, so that nothing of it goes in between."""
        cdef Value value
        cdef EntityNode* parent
        cdef uint32_t count = 0, i, kept = 0
        cdef Py_ssize_t total
        global values_left
        values_left = VALUES_MAX
        if not isinstance(attributes, dict) or not (tags is None or isinstance(tags, dict)):
            raise ValueError("attributes and tags are records")
        total = len(parents)
        if total > PARENT_LIMIT:
            raise ValueError(f"more than {PARENTS_MAX} parents")
        change.exists = True
        change.node = self._intern(uid)
        node_mention(change.node)
        try:
            change.parents = <uint32_t*>malloc((total + 1) * sizeof(uint32_t))
            if change.parents is NULL:
                raise MemoryError()
            for name in parents:
                if count == total:
                    raise ValueError("parents that change while they are read")
                parent = self._intern(name)
                node_mention(parent)
                change.parents[count] = parent.index
                count += 1
                if change.node.flags & NODE_WALKED and not parent.flags & NODE_WALKED:
                    raise ValueError(f"{uid} is of a walked type and cannot be in {name}, which is not")
            qsort(change.parents, count, sizeof(uint32_t), place_compare)
            for i in range(count):
                if kept and change.parents[kept - 1] == change.parents[i]:
                    self._unmention(&change.parents[i], 1)
                    continue
                change.parents[kept] = change.parents[i]
                kept += 1
            count = kept
            change.parent_count = kept
            if attributes:
                self._convert_record(attributes, &value, NULL, 0)
                change.attributes = value.record
            if tags:
                self._convert_record(tags, &value, NULL, 0)
                change.tags = value.record
        except BaseException:
            record_free(&self.c, change.attributes)
            self._unmention(change.parents, count)
            free(change.parents)
            self._unmention(&change.node.index, 1)
            memset(change, 0, sizeof(Change))
            raise
        return 0

    cdef int _refuse_cycles(self, Change* changes, Py_ssize_t count) except -1:
        """Refuse changes that would put an entity that changes into itself; cycles among others are not theirs.

        Goes up from the entities that change, by their parents to be, and finds the strongly connected components
        (R. Tarjan, Depth-first search and linear graph algorithms, 1972) without recursion.
        """
        cdef uint32_t places = self.c.place_count, place, parent, depth, number = 0, open_count = 0
        cdef uint32_t* numbers                 # in the order of being met, from 1; 0: not yet
        cdef uint32_t* lowest                  # the lowest number that it leads back to; 0: its component is done
        cdef uint32_t* change_of               # + 1
        cdef uint32_t* way                     # places from the start up
        cdef uint32_t* next_of                 # which parent of each on the way is next
        cdef uint32_t* opened                  # those whose component is not done
        cdef const uint32_t* parents
        cdef uint32_t parent_count, changed
        cdef Py_ssize_t i
        cdef bint any_parents = False, cyclic
        for i in range(count):
            if changes[i].parent_count:
                any_parents = True
        if not any_parents:
            return 0
        if count == 1:
            if self._is_cyclic(changes):
                raise ValueError(self._cycle(changes, 1, changes[0].node.index))
            return 0
        numbers = <uint32_t*>calloc(places, sizeof(uint32_t))
        lowest = <uint32_t*>calloc(places, sizeof(uint32_t))
        change_of = <uint32_t*>calloc(places, sizeof(uint32_t))
        way = <uint32_t*>malloc(places * sizeof(uint32_t))
        next_of = <uint32_t*>malloc(places * sizeof(uint32_t))
        opened = <uint32_t*>malloc(places * sizeof(uint32_t))
        try:
            if (
                numbers is NULL or lowest is NULL or change_of is NULL or way is NULL or next_of is NULL
                or opened is NULL
            ):
                raise MemoryError()
            for i in range(count):
                change_of[changes[i].node.index] = <uint32_t>i + 1
            for i in range(count):
                place = changes[i].node.index
                depth = 0
                if numbers[place] == 0:
                    number += 1
                    numbers[place] = lowest[place] = number
                    way[0] = opened[open_count] = place
                    open_count += 1
                    next_of[0] = 0
                    depth = 1
                while depth:
                    place = way[depth - 1]
                    self._parents_to_be(changes, change_of[place], place, &parents, &parent_count)
                    if next_of[depth - 1] < parent_count:
                        parent = parents[next_of[depth - 1]]
                        next_of[depth - 1] += 1
                        if parent == place and change_of[place]:
                            raise ValueError(self._cycle(changes, count, place))
                        if numbers[parent] == 0:
                            number += 1
                            numbers[parent] = lowest[parent] = number
                            way[depth] = opened[open_count] = parent
                            open_count += 1
                            next_of[depth] = 0
                            depth += 1
                        elif lowest[parent] and numbers[parent] < lowest[place]:
                            lowest[place] = numbers[parent]
                        continue
                    depth -= 1
                    if depth and lowest[place] < lowest[way[depth - 1]]:
                        lowest[way[depth - 1]] = lowest[place]
                    if lowest[place] != numbers[place]:
                        continue
                    cyclic = opened[open_count - 1] != place
                    while True:
                        open_count -= 1
                        parent = opened[open_count]
                        lowest[parent] = 0
                        if cyclic and change_of[parent]:
                            raise ValueError(self._cycle(changes, count, parent))
                        if parent == place:
                            break
        finally:
            free(numbers)
            free(lowest)
            free(change_of)
            free(way)
            free(next_of)
            free(opened)
        return 0

    cdef void _parents_to_be(
        self, const Change* changes, uint32_t change, uint32_t place, const uint32_t** parents, uint32_t* count
    ) noexcept:
        """Give the parents of a place after its change, if `change` is not 0: the number of the change + 1."""
        if change:
            parents[0] = changes[change - 1].parents
            count[0] = changes[change - 1].parent_count
        else:
            parents[0] = store_node(&self.c, place).parents
            count[0] = store_node(&self.c, place).parent_count

    cdef bint _is_cyclic(self, const Change* change) noexcept:
        """Tell whether one change would put its entity into itself: it is found on the way up from its parents."""
        cdef uint32_t stamp = stamp_next(&self.c), head = 0, tail = 0, i
        cdef const uint32_t* parents = change.parents
        cdef uint32_t count = change.parent_count
        while True:
            for i in range(count):
                if parents[i] == change.node.index:
                    return True
                if self.c.stamps[parents[i]] != stamp:
                    self.c.stamps[parents[i]] = stamp
                    self.c.queue[tail] = parents[i]
                    tail += 1
            if head == tail:
                return False
            parents = store_node(&self.c, self.c.queue[head]).parents
            count = store_node(&self.c, self.c.queue[head]).parent_count
            head += 1

    cdef str _cycle(self, const Change* changes, Py_ssize_t count, uint32_t begin):
        """Name the shortest cycle that `begin` would be in."""
        cdef const uint32_t* parents
        cdef uint32_t parent_count, i, place
        cdef Py_ssize_t at
        cdef dict change_of = {changes[at].node.index: at + 1 for at in range(count)}
        cdef dict below = {}               # place -> the place that led up to it
        cdef list waiting = [begin]
        for found in waiting:
            place = found
            self._parents_to_be(changes, change_of.get(place, 0), place, &parents, &parent_count)
            for i in range(parent_count):
                if parents[i] not in below:
                    below[parents[i]] = place
                    waiting.append(parents[i])
            if begin in below:
                break
        way = [begin, below[begin]]
        while way[-1] != begin:
            way.append(below[way[-1]])
        way.reverse()                      # from `begin` up to itself
        names = [str(self._uid(store_node(&self.c, way[i]))) for i in range(len(way))]
        if len(names) > CYCLE_NAMES:
            names[CYCLE_NAMES:-1] = ["…"]
        return f"{names[0]} would be in itself: {' in '.join(names)}"

    # --- reading

    @property
    def revision(self):
        """Counts changes; that of `put` and `apply`."""
        return self.c.revision

    @property
    def memory_bytes(self):
        """What is allocated for this store, without the allocator's own overhead."""
        return self.c.bytes

    def __len__(self):
        return self.c.existing_count

    def __contains__(self, uid):
        return isinstance(uid, EntityUid) and self._existing(uid) is not NULL

    cdef EntityNode* _existing(self, EntityUid uid) except? NULL:
        cdef EntityNode* node = self.find(uid)
        return node if node is not NULL and node.flags & NODE_EXISTS else NULL

    def get(self, EntityUid uid not None):
        """Give (attributes, parents, tags) of a defined entity, or None."""
        cdef EntityNode* node = self._existing(uid)
        cdef uint32_t i
        if node is NULL:
            return None
        self.hold()         # what is made here may wake the collector, and that other threads
        try:
            parents = tuple([self._uid(store_node(&self.c, node.parents[i])) for i in range(node.parent_count)])
            attributes, tags = own_of(self, node)
        finally:
            self.release()
        return attributes, parents, tags

    def has_parent(self, EntityUid uid not None, EntityUid parent not None):
        """Tell whether an entity is directly in another."""
        cdef const EntityNode* node = self.find(uid)
        cdef const EntityNode* above = self.find(parent)
        return node is not NULL and above is not NULL and bool(
            index_find(node.parents, node.parent_count, above.index)
        )

    def parent_count(self, EntityUid uid not None):
        """Give how many parents an entity has."""
        cdef const EntityNode* node = self.find(uid)
        return 0 if node is NULL else node.parent_count

    def own(self, EntityUid uid not None):
        """Give (attributes, tags) of a defined entity, or None: what `get` gives, without its parents."""
        cdef EntityNode* node = self._existing(uid)
        if node is NULL:
            return None
        self.hold()
        try:
            return own_of(self, node)
        finally:
            self.release()

    def version(self, EntityUid uid not None):
        """Give the revision at which the entity, or what it is in, changed last; 0 for one that was never there."""
        cdef EntityNode* node = self.find(uid)
        return 0 if node is NULL else node.version

    def uids(self, str type=None):
        """Yield the uids of all defined entities, or of those of a type; what changes meanwhile may be missed."""
        cdef uint32_t place = 0, number = 0
        cdef EntityNode* node
        if type is not None:
            if type not in self.type_numbers:
                return
            number = self.type_numbers[type]
        while place < self.c.place_count:
            node = store_node(&self.c, place)
            place += 1
            if node.flags & NODE_EXISTS and (number == 0 or node.type == number):
                yield self._uid(node)

    def count_of(self, str type not None):
        """Give how many entities of a type are defined."""
        return self.c.type_counts[<uint32_t>self.type_numbers[type]] if type in self.type_numbers else 0

    def types(self):
        """Give the types that have defined entities."""
        return [name for name, number in self.type_numbers.items() if self.c.type_counts[<uint32_t>number]]

    def __iter__(self):
        return self.uids()

    def is_in(self, EntityUid uid not None, EntityUid container not None):
        """Tell whether `uid` is `container`, or below it."""
        cdef EntityNode* a = self.find(uid)
        cdef EntityNode* b = self.find(container)
        if a is NULL or b is NULL:
            return uid == container
        return bool(entity_in(&self.c, a, b))

    def ancestors(self, EntityUid uid not None):
        """Give all that the entity is in, but for itself: also what is found by walking."""
        return self._closure(uid, True)

    def descendants(self, EntityUid uid not None):
        """Give all that is in the entity, but for itself."""
        return self._closure(uid, False)

    def children(self, EntityUid uid not None):
        """Give the entities of which this is a direct parent."""
        cdef EntityNode* node = self.find(uid)
        cdef uint32_t i
        if node is NULL:
            return frozenset()
        return self._uids(node.children, node.child_count)

    cdef object _uids(self, const uint32_t* places, uint32_t count):
        """Name entities. `places` may go with any change of the store, which waits until all are named."""
        cdef uint32_t i
        self.hold()
        try:
            return frozenset([self._uid(store_node(&self.c, places[i])) for i in range(count)])
        finally:
            self.release()

    cdef object _closure(self, EntityUid uid, bint up):
        cdef EntityNode* node = self.find(uid)
        cdef uint32_t head = 0, tail = 0, i, place, count, stamp
        cdef uint32_t* found
        cdef const uint32_t* places
        if node is NULL:
            return frozenset()
        found = <uint32_t*>malloc((<size_t>self.c.place_count + 1) * sizeof(uint32_t))
        if found is NULL:
            raise MemoryError()
        pthread_mutex_lock(&self.c.lock)        # deciders that read without the GIL walk too
        stamp = stamp_next(&self.c)
        self.c.stamps[node.index] = stamp
        found[tail] = node.index
        tail += 1
        while head < tail:
            node = store_node(&self.c, found[head])
            head += 1
            places = node.parents if up else node.children
            count = node.parent_count if up else node.child_count
            for i in range(count):
                place = places[i]
                if self.c.stamps[place] != stamp:
                    self.c.stamps[place] = stamp
                    found[tail] = place
                    tail += 1
        pthread_mutex_unlock(&self.c.lock)
        try:
            return self._uids(found + 1, tail - 1)
        finally:
            free(found)


cdef void end_holding(Holding* holding) noexcept:
    cdef EntityStore store
    if holding is NULL:
        return
    # Not at once: this may be the collector's work, in the middle of a decision that has borrowed nodes.
    store = <EntityStore>holding.owner
    holding.next = store.returned
    store.returned = holding
    Py_DECREF(store)


cdef tuple own_of(EntityStore store, const EntityNode* node):
    """Give (attributes, tags) of a node. The caller holds the store: what is made here may wake the collector."""
    cdef Value value
    value.tag = VALUE_RECORD
    value.record = node.attributes
    attributes = {} if node.attributes is NULL else store.python_value(&value, NULL)
    value.record = node.tags
    return attributes, {} if node.tags is NULL else store.python_value(&value, NULL)


# --- changes of parents alone


cdef int prepare_move(EntityStore store, Change* change, EntityUid uid, added, taken) except -1:
    """Convert one move; all that it points at is mentioned once, so that nothing of it goes in between."""
    cdef EntityNode* parent
    cdef Py_ssize_t total
    cdef uint32_t count = 0
    if uid is None:
        raise TypeError("an entity is expected")
    total = len(added) + len(taken)
    change.exists = change.moves = True
    change.node = store._intern(uid)
    node_mention(change.node)
    try:
        change.moved = <uint32_t*>malloc(<size_t>(total + 1) * sizeof(uint32_t))
        if change.moved is NULL:
            raise MemoryError()
        for is_added, names in ((True, added), (False, taken)):
            for name in names:
                if count == total:
                    raise ValueError("parents that change while they are read")
                parent = store._intern(name)
                node_mention(parent)
                change.moved[count] = parent.index
                count += 1
                if is_added:
                    change.added_count += 1
                    if change.node.flags & NODE_WALKED and not parent.flags & NODE_WALKED:
                        raise ValueError(f"{uid} is of a walked type and cannot be in {name}, which is not")
                else:
                    change.taken_count += 1
        qsort(change.moved, change.added_count, sizeof(uint32_t), place_compare)
        qsort(change.moved + change.added_count, change.taken_count, sizeof(uint32_t), place_compare)
    except BaseException:
        store._unmention(change.moved, count)
        free(change.moved)
        store._unmention(&change.node.index, 1)
        memset(change, 0, sizeof(Change))
        raise
    return 0


cdef int make_moves(EntityStore store, Change* changes, Py_ssize_t count) except -1:
    """Give the parents that moves lead to, by what the store has now. Nothing else may run between this and the commit.

    Raises ValueError for an entity that is moved and changed at once: one of both would be lost.
    """
    cdef uint32_t stamp = 0
    cdef Py_ssize_t i
    for i in range(count):
        if changes[i].moves:
            stamp = stamp_next(&store.c)
            break
    if not stamp:
        return 0
    for i in range(count):
        if not changes[i].moves:
            store.c.stamps[changes[i].node.index] = stamp
    for i in range(count):
        if not changes[i].moves:
            continue
        if store.c.stamps[changes[i].node.index] == stamp:
            raise ValueError(f"{store._uid(changes[i].node)} is changed twice at once")
        store.c.stamps[changes[i].node.index] = stamp
        if not parents_move(&changes[i]):
            raise MemoryError()
        if changes[i].parent_count > PARENT_LIMIT:
            raise ValueError(f"more than {PARENTS_MAX} parents")
    return 0


cdef void end_change(EntityStore store, Change* change) noexcept:
    """Let go of what a change mentions."""
    if change.moves:
        store._unmention(change.moved, change.added_count + change.taken_count)
        free(change.moved)
    else:
        store._unmention(change.parents, change.parent_count)
    free(change.parents)
    store._unmention(&change.node.index, 1)
