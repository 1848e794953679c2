/* Cedar values as C structs: what the entity store keeps, what a request brings, what the machine computes with.

   Ownership. A `Text`, `ValueSet`, `Record` or `IpAddress` belongs either to the entity store that made it
   (`owner` = the store's number, never 0; freed by the store) or to the arena of one request (`owner` = 0; gone when
   the arena is reset). Values only borrow. A value of a store may stand in a request, never the other way round.

   Texts of one store are interned: two pointers of the same owner are equal only if they are the same. */
#ifndef PORTCULLIS_VALUES_H
#define PORTCULLIS_VALUES_H

#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

enum { VALUE_DEPTH_MAX = 64 }; /* of nested sets and records; readers refuse what is deeper */

/* ORDER TAG: the order between values of different kinds in a canonical set. */
typedef enum {
    VALUE_NONE = 0, /* absent; never an element */
    VALUE_BOOL,
    VALUE_LONG,
    VALUE_STRING,
    VALUE_ENTITY,
    VALUE_SET,
    VALUE_RECORD,
    VALUE_DECIMAL,  /* number: units of 0.0001 */
    VALUE_IP,
    VALUE_DATETIME, /* number: milliseconds since 1970-01-01T00:00:00Z */
    VALUE_DURATION, /* number: milliseconds */
    VALUE_TAG_COUNT
} ValueTag;

typedef struct Text {
    uint32_t owner;
    uint32_t length;     /* bytes */
    uint32_t references; /* of an interned text; TEXT_PINNED: it stays as long as its store */
    uint32_t hash;       /* of an interned text */
    char bytes[];        /* UTF-8, may hold NUL; not terminated */
} Text;
#define TEXT_PINNED 0xFFFFFFFFu

typedef struct {
    uint32_t owner;
    uint8_t version; /* 4 or 6 */
    uint8_t prefix;  /* 0 … 32 or 128 */
    uint8_t bytes[16]; /* network order; IPv4 in the first four, the rest 0 */
} IpAddress;

struct ValueSet;
struct Record;
struct EntityNode;

typedef struct {
    uint8_t tag; /* ValueTag */
    uint8_t reserved[7]; /* a field's key lies in the last four */
    union {
        int64_t number; /* BOOL (0, 1), LONG, DECIMAL, DATETIME, DURATION */
        const Text *text;
        const struct EntityNode *entity;
        const struct ValueSet *set;
        const struct Record *record;
        const IpAddress *ip;
    };
} Value;

typedef struct ValueSet {
    uint32_t owner;
    uint32_t count;
    Value items[]; /* ascending by value_compare, distinct */
} ValueSet;

/* Attribute and tag names are numbered by the store (`SymbolTable`); names that only a request knows are numbered by
   the request, from KEY_OF_REQUEST on, the same name always the same number within it. */
typedef uint32_t Key;
#define KEY_OF_REQUEST 0x80000000u
#define KEY_NONE 0xFFFFFFFFu

/* The key lies where its value has nothing to say: a third less to keep, and to read. Whoever sets the value of a field
   sets its key afterwards. */
typedef union {
    Value value;
    struct {
        uint8_t tag_of_value[4];
        Key key;
    };
} Field;

typedef struct Record {
    uint32_t owner;
    uint32_t count;
    Field fields[]; /* ascending by key, distinct */
} Record;

enum {
    NODE_EXISTS = 1,  /* defined, by the store or by the request; else only mentioned */
    NODE_REQUEST = 2, /* lives in a request's arena; `index` is NODE_INDEX_NONE */
    NODE_WALKED = 4,  /* its ancestors are walked, not stored: see `entity_in` */
    NODE_AWAY = 8,    /* of a sourced type, and not here: what it is must be fetched before anything rests on it */
    NODE_SETTLED = 16, /* of a sourced type, and its source does not know it; holds one of the node's references */
    NODE_IDLE = 32    /* of a sourced type: no decision was about it since it was last marked so */
};
#define NODE_INDEX_NONE 0xFFFFFFFFu
#define TYPE_OF_REQUEST 0u /* a type that the store does not know: compare `type_name` */

enum { PLACES_NEAR = 6 };

/* An entity, defined or only mentioned. Its address holds while its store lives and `generation` is unchanged.

   Most of a million entities are in no cache of the processor, and each line that is not costs as much as the rest of a
   decision. So what every decision reads stands in the first line of 64 bytes: few ancestors themselves, not only where
   they are. What finding by name and changing read stands in the second. */
typedef struct EntityNode {
    uint32_t type;       /* number of the type in the store, from 1; or TYPE_OF_REQUEST */
    uint32_t index;      /* of the node in the store */
    uint32_t generation; /* counts how often this place was given to another entity */
    uint32_t flags;
    uint32_t *ancestors; /* node indices, ascending, distinct, without itself and without walked ones; or `near` */
    uint32_t ancestor_count;
    uint32_t parent_count;
    const Record *attributes; /* NULL: none */
    uint32_t near[PLACES_NEAR]; /* the ancestors, where they are no more; of a walked node, which has none, the children */

    const Text *id;
    const Text *type_name;
    const Record *tags;       /* NULL: none */
    uint64_t version;    /* the store's revision at which attributes, tags, parents or ancestors changed last */
    uint32_t *parents;   /* node indices, ascending, distinct; the direct ones */
    uint32_t *children;  /* node indices of which this is a direct parent: first the walked ones, then the others; or `near` */
    uint32_t child_count;
    uint32_t child_capacity;
    uint32_t walked_child_count;
    uint32_t references; /* of a store's node: values and programs that name it; so many that it stays: NODE_PINNED */
} EntityNode;
#define NODE_PINNED 0xFFFFFFFFu

/* --- comparing ------------------------------------------------------------------------------------------------ */

static inline int text_equal(const Text *a, const Text *b) {
    if (a == b) return 1;
    if (a->owner == b->owner && a->owner != 0) return 0;
    return a->length == b->length && memcmp(a->bytes, b->bytes, a->length) == 0;
}

static inline int text_compare(const Text *a, const Text *b) {
    if (a == b) return 0;
    if (a->length != b->length) return a->length < b->length ? -1 : 1;
    return memcmp(a->bytes, b->bytes, a->length);
}

static inline int node_equal(const EntityNode *a, const EntityNode *b) {
    if (a == b) return 1;
    if (!((a->flags | b->flags) & NODE_REQUEST)) return 0;
    if (a->type != b->type) return 0;
    if (a->type == TYPE_OF_REQUEST && !text_equal(a->type_name, b->type_name)) return 0;
    return text_equal(a->id, b->id);
}

/* A total order over values: that of canonical sets. 0 exactly for equal values, -1 or 1 else. */
static int value_compare(const Value *a, const Value *b) {
    uint32_t i;
    int c;
    if (a->tag != b->tag) return a->tag < b->tag ? -1 : 1;
    switch (a->tag) {
    case VALUE_STRING:
        c = text_compare(a->text, b->text);
        return (c > 0) - (c < 0);
    case VALUE_ENTITY:
        if (node_equal(a->entity, b->entity)) return 0;
        c = text_compare(a->entity->type_name, b->entity->type_name);
        if (c == 0) c = text_compare(a->entity->id, b->entity->id);
        return (c > 0) - (c < 0);
    case VALUE_SET:
        if (a->set == b->set) return 0;
        if (a->set->count != b->set->count) return a->set->count < b->set->count ? -1 : 1;
        for (i = 0; i < a->set->count; i++) {
            c = value_compare(&a->set->items[i], &b->set->items[i]);
            if (c) return c;
        }
        return 0;
    case VALUE_RECORD:
        if (a->record == b->record) return 0;
        if (a->record->count != b->record->count) return a->record->count < b->record->count ? -1 : 1;
        for (i = 0; i < a->record->count; i++) {
            const Field *f = &a->record->fields[i], *g = &b->record->fields[i];
            if (f->key != g->key) return f->key < g->key ? -1 : 1;
            c = value_compare(&f->value, &g->value);
            if (c) return c;
        }
        return 0;
    case VALUE_IP:
        if (a->ip == b->ip) return 0;
        if (a->ip->version != b->ip->version) return a->ip->version < b->ip->version ? -1 : 1;
        c = memcmp(a->ip->bytes, b->ip->bytes, 16);
        if (c == 0) c = (int)a->ip->prefix - (int)b->ip->prefix;
        return (c > 0) - (c < 0);
    default: /* NONE has number 0 */
        return (a->number > b->number) - (a->number < b->number);
    }
}

static inline int value_equal(const Value *a, const Value *b) {
    if (a->tag != b->tag) return 0;
    if (a->number == b->number) return 1; /* the same number, or the same pointer */
    switch (a->tag) {
    case VALUE_STRING: return text_equal(a->text, b->text);
    case VALUE_ENTITY: return node_equal(a->entity, b->entity);
    case VALUE_SET:
    case VALUE_RECORD:
    case VALUE_IP: return value_compare(a, b) == 0;
    default: return 0;
    }
}

/* --- looking up ----------------------------------------------------------------------------------------------- */

static inline int set_contains(const ValueSet *set, const Value *wanted) {
    uint32_t low = 0, high = set->count, i;
    if (high <= 8) {
        for (i = 0; i < high; i++)
            if (value_equal(&set->items[i], wanted)) return 1;
        return 0;
    }
    while (low < high) {
        uint32_t middle = low + (high - low) / 2;
        int c = value_compare(&set->items[middle], wanted);
        if (c == 0) return 1;
        if (c < 0) low = middle + 1;
        else high = middle;
    }
    return 0;
}

/* Find a field, or NULL. `hint`: where the field stood in a record of the same kind; any number is allowed. */
static inline const Value *record_find(const Record *record, Key key, uint32_t hint) {
    uint32_t low = 0, high;
    if (record == NULL) return NULL;
    high = record->count;
    if (hint < high && record->fields[hint].key == key) return &record->fields[hint].value;
    while (low < high) {
        uint32_t middle = low + (high - low) / 2;
        Key found = record->fields[middle].key;
        if (found == key) return &record->fields[middle].value;
        if (found < key) low = middle + 1;
        else high = middle;
    }
    return NULL;
}

enum { INDICES_FEW = 16 };

static inline int index_find(const uint32_t *sorted, uint32_t count, uint32_t wanted) {
    uint32_t low = 0, high = count, found = 0;
    if (count <= INDICES_FEW) { /* without branches that nobody can foretell */
        for (; low < high; low++) found |= sorted[low] == wanted;
        return (int)found;
    }
    while (low < high) {
        uint32_t middle = low + (high - low) / 2;
        if (sorted[middle] == wanted) return 1;
        if (sorted[middle] < wanted) low = middle + 1;
        else high = middle;
    }
    return 0;
}

/* --- one request's memory -------------------------------------------------------------------------------------- */

typedef struct ArenaChunk {
    struct ArenaChunk *next; /* the one that was filled before */
    size_t size;
    char bytes[];
} ArenaChunk;

/* Bump allocator. The first chunk stays for the next request; `limit` bounds what one request may take. */
typedef struct {
    ArenaChunk *chunk;
    size_t used;  /* of `chunk` */
    size_t total; /* of all chunks */
    size_t limit;
    size_t first_bytes; /* of the first chunk; 0: ARENA_CHUNK_BYTES. For what is kept in great numbers */
    const Text **names; /* of KEY_OF_REQUEST, KEY_OF_REQUEST + 1, …; in this arena's own memory */
    uint32_t name_count;
    uint32_t name_capacity;
} Arena;

enum { ARENA_CHUNK_BYTES = 16 * 1024 };

/* Give `size` bytes aligned to 16, or NULL when memory or the limit is at its end (then nothing is changed). */
static inline void *arena_take(Arena *arena, size_t size) {
    ArenaChunk *chunk = arena->chunk;
    size_t wanted, start;
    if (size > arena->limit) return NULL;
    size = (size + 15) & ~(size_t)15;
    if (chunk != NULL && size <= chunk->size - arena->used) {
        start = arena->used;
        arena->used += size;
        return chunk->bytes + start;
    }
    wanted = chunk == NULL && arena->first_bytes ? arena->first_bytes : ARENA_CHUNK_BYTES;
    if (size > wanted) wanted = size;
    if (arena->total + wanted > arena->limit && arena->total + size > arena->limit) return NULL;
    chunk = (ArenaChunk *)malloc(sizeof(ArenaChunk) + wanted);
    if (chunk == NULL) return NULL;
    chunk->next = arena->chunk;
    chunk->size = wanted;
    arena->chunk = chunk;
    arena->used = size;
    arena->total += wanted;
    return chunk->bytes;
}

/* Give everything back. */
static inline void arena_free(Arena *arena) {
    ArenaChunk *chunk = arena->chunk;
    while (chunk != NULL) {
        ArenaChunk *next = chunk->next;
        free(chunk);
        chunk = next;
    }
    arena->chunk = NULL;
    arena->names = NULL;
    arena->used = arena->total = 0;
    arena->name_count = arena->name_capacity = 0;
}

/* Forget everything that was taken; keep one chunk of the usual size. */
static inline void arena_reset(Arena *arena) {
    ArenaChunk *chunk = arena->chunk;
    arena->names = NULL;
    arena->name_count = arena->name_capacity = 0;
    if (chunk != NULL && chunk->next == NULL && chunk->size <= ARENA_CHUNK_BYTES) {
        arena->used = 0;
        return;
    }
    arena_free(arena);
}

#endif
