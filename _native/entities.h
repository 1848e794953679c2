/* The store of entities as C sees it: what the machine reads while it decides. What changes it is in
   `entities_change.h`.

   Places. A node's `index` is its place. Places are given out one after another, in chunks that never move; a place that
   became free is given out again with another `generation`.

   Ancestors. A type is closed, or walked. A node's ancestors among the closed types are written down with it. Walked
   types are for nodes with very many descendants' ways through them (relations such as `Doc::"1"#viewers`, which would
   make each user's list as long as all documents that they can see): whether something is in a walked node is found by
   walking down from it. INVARIANT: the parents of a walked node are walked, so that no way leads through a walked node
   to a closed one.

   Sourced types. What entities of a sourced type are is kept elsewhere, and here only of those that were asked for. A
   node of one that is not here is away (NODE_AWAY): whatever reads it finds out, instead of taking it for an entity
   without attributes and parents. */
#ifndef PORTCULLIS_ENTITIES_H
#define PORTCULLIS_ENTITIES_H

#include <pthread.h>
#include "values.h"

enum { NODES_OF_CHUNK = 1024, WALK_LOCAL = 48, PIECE_BYTES_MAX = 256, SLAB_BYTES = 64 * 1024, SHARED_PIECES = 4096 };

typedef struct {
    uint32_t hash;
    uint32_t place; /* + 1; 0: never used, SLOT_GONE: used once */
} NodeSlot;
#define SLOT_GONE 0xFFFFFFFFu

/* What a program or a head that was bound to a store mentions of it: nodes, and texts with their lowest bit set. */
typedef struct Holding {
    struct Holding *next; /* among those that were given back */
    void *owner;          /* the Python object that has the store; one reference, until it is given back */
    void **names;         /* owned; each is one reference to the node or text */
    uint32_t count, capacity;
} Holding;

typedef struct {
    uint64_t token;    /* never 0; no two stores of a process have the same */
    uint64_t revision; /* counts changes */
    uint64_t walk_revision; /* the last of them that put something right into a walked node, or took it out */
    uint64_t seed;     /* of hashes: secret, so that nobody can choose ids that collide */
    uint32_t owner;    /* of this store's texts, sets, records and addresses; never 0 */

    EntityNode **chunks; /* owned */
    uint32_t place_count;
    uint32_t chunk_capacity;
    uint32_t *free_places; /* owned; to be given out again */
    uint32_t free_count;
    uint64_t released; /* how many places were ever given back: what was looked up before may be another entity now */
    uint32_t free_capacity;
    uint32_t existing_count;

    NodeSlot *node_slots; /* owned; open addressing by type and id */
    uint32_t node_mask;
    uint32_t node_used; /* slots that are not 0; INVARIANT: at most half */

    Text **text_slots; /* owned; open addressing by bytes; TEXT_GONE: used once */
    uint32_t text_mask;
    uint32_t text_used;

    const Text **keys; /* owned array; the texts are pinned */
    uint32_t key_count;
    uint32_t key_capacity;
    uint32_t *key_slots; /* owned; key + 1 by the name's hash */
    uint32_t key_mask;

    const Text **types; /* owned array; types[0] is NULL: TYPE_OF_REQUEST */
    uint8_t *type_flags; /* owned; NODE_WALKED, or NODE_AWAY for a sourced type: what a new node of the type has */
    uint32_t *type_counts; /* owned; nodes of the type that exist */
    uint32_t type_count;
    uint32_t type_capacity;
    uint32_t sourced_count; /* types whose entities are kept elsewhere */

    uint32_t *stamps; /* owned; by place: the last walk that came by. Guarded by `lock`. */
    uint32_t *queue;  /* owned; room for every place. Guarded by `lock`. */
    uint32_t stamp_capacity;
    uint32_t stamp;
    pthread_mutex_t lock; /* for walks of many nodes: deciders may read without the GIL */

    size_t bytes; /* all that is allocated for this store */

    struct SharedPiece *shared; /* owned; SHARED_PIECES of them, or NULL: lists of parents and ancestors of late */

    void *spare[PIECE_BYTES_MAX / 8 + 1]; /* small pieces that were given back, by eighths of their size: each holds the next */
    char *slab;       /* the rest of the newest slab */
    size_t slab_left;
    void *slabs;      /* owned; each begins with the one before, and its own size */
    size_t slab_bytes; /* of all slabs */
} Store;

#define TEXT_GONE ((Text *)1)

static inline EntityNode *store_node(const Store *store, uint32_t place) {
    return &store->chunks[place / NODES_OF_CHUNK][place % NODES_OF_CHUNK];
}

/* --- hashing ---------------------------------------------------------------------------------------------------- */

static inline uint64_t hash_mix(uint64_t a, uint64_t b) {
    unsigned __int128 product = (unsigned __int128)a * b;
    return (uint64_t)product ^ (uint64_t)(product >> 64);
}

/* A keyed hash of `length` bytes: multiply and fold, eight bytes a step. */
static inline uint32_t bytes_hash(uint64_t seed, const char *bytes, size_t length) {
    uint64_t state = seed ^ hash_mix(length ^ 0x9E3779B97F4A7C15u, 0xD1B54A32D192ED03u), word;
    while (length >= 8) {
        memcpy(&word, bytes, 8);
        state = hash_mix(state ^ word, 0xA0761D6478BD642Fu ^ seed);
        bytes += 8;
        length -= 8;
    }
    word = 0;
    memcpy(&word, bytes, length);
    state = hash_mix(state ^ word, 0xE7037ED1A0B428DBu ^ seed);
    return (uint32_t)(state ^ (state >> 32));
}

static inline uint32_t node_hash(const Store *store, uint32_t type, uint32_t id_hash) {
    uint64_t state = hash_mix(store->seed ^ ((uint64_t)type << 32 | id_hash), 0x8EBC6AF09C88C6E3u);
    return (uint32_t)(state ^ (state >> 32));
}

/* --- finding ---------------------------------------------------------------------------------------------------- */

/* Find the number of an attribute's or tag's name, or KEY_NONE where no entity and no policy has one. */
static inline Key store_key(const Store *store, const char *bytes, uint32_t length) {
    uint32_t hash = bytes_hash(store->seed, bytes, length), at = hash & store->key_mask;
    while (store->key_slots[at] != 0) {
        const Text *name = store->keys[store->key_slots[at] - 1];
        if (name->hash == hash && name->length == length && memcmp(name->bytes, bytes, length) == 0)
            return store->key_slots[at] - 1;
        at = (at + 1) & store->key_mask;
    }
    return KEY_NONE;
}

static inline Key store_key_of(const Store *store, const Text *name) {
    return store_key(store, name->bytes, name->length);
}

/* Have what a decision reads of an entity fetched into the caches, while other things are done. */
static inline void node_expect(const EntityNode *node) {
    __builtin_prefetch(node->attributes);
    if (node->ancestors != node->near) __builtin_prefetch(node->ancestors);
}

/* Find the node of an entity that is defined or mentioned, or NULL. */
static inline EntityNode *store_find(const Store *store, uint32_t type, const char *id, uint32_t length) {
    uint32_t hash = node_hash(store, type, bytes_hash(store->seed, id, length)), at = hash & store->node_mask;
    if (type == TYPE_OF_REQUEST) return NULL;
    while (store->node_slots[at].place != 0) {
        if (store->node_slots[at].hash == hash && store->node_slots[at].place != SLOT_GONE) {
            EntityNode *node = store_node(store, store->node_slots[at].place - 1);
            if (node->type == type && node->id->length == length && memcmp(node->id->bytes, id, length) == 0)
                return node;
        }
        at = (at + 1) & store->node_mask;
    }
    return NULL;
}

/* --- a request's own entities --------------------------------------------------------------------------------------- */

/* Copy bytes into the arena as a text; NULL when it is full. */
static inline const Text *arena_text(Arena *arena, const char *bytes, uint32_t length) {
    Text *text = (Text *)arena_take(arena, sizeof(Text) + length);
    if (text == NULL) return NULL;
    text->owner = 0;
    text->length = length;
    text->references = 0;
    text->hash = 0;
    memcpy(text->bytes, bytes, length);
    return text;
}

/* Make a node of the arena: an entity that only the request knows. `type_name` outlives the arena; `type_flags` are the
   store's. NULL when it is full. */
static inline EntityNode *arena_node(
    Arena *arena, uint32_t type, const Text *type_name, uint8_t type_flags, const char *id, uint32_t length
) {
    EntityNode *node = (EntityNode *)arena_take(arena, sizeof(EntityNode));
    if (node == NULL) return NULL;
    memset(node, 0, sizeof(EntityNode));
    node->type_name = type_name;
    node->type = type;
    node->index = NODE_INDEX_NONE;
    node->flags = NODE_REQUEST | (type_flags & NODE_AWAY);
    node->id = arena_text(arena, id, length);
    return node->id == NULL ? NULL : node;
}

/* Give the node of an entity that a request names by a type of the store: the store's, or one of the arena. */
static inline const EntityNode *request_node(
    const Store *store, Arena *arena, uint32_t type, const char *id, uint32_t length
) {
    const EntityNode *node = store_find(store, type, id, length);
    return node != NULL ? node : arena_node(arena, type, store->types[type], store->type_flags[type], id, length);
}

enum { REQUEST_NAMES_MAX = 1024 }; /* attribute names of one request that nobody else has */

/* Give the number of an attribute's name in a request: the store's, or one of the arena's own, the same name the same
   number. KEY_NONE when there are too many, or no memory. */
static inline Key request_key(const Store *store, Arena *arena, const char *bytes, uint32_t length) {
    Key key = store_key(store, bytes, length);
    uint32_t i;
    const Text *name;
    if (key != KEY_NONE) return key;
    for (i = 0; i < arena->name_count; i++)
        if (arena->names[i]->length == length && memcmp(arena->names[i]->bytes, bytes, length) == 0)
            return KEY_OF_REQUEST + i;
    if (arena->name_count == REQUEST_NAMES_MAX) return KEY_NONE;
    if (arena->name_count == arena->name_capacity) {
        uint32_t capacity = arena->name_capacity ? arena->name_capacity * 2 : 8;
        const Text **names = (const Text **)arena_take(arena, capacity * sizeof(Text *));
        if (names == NULL) return KEY_NONE;
        if (arena->name_count > 0) memcpy((void *)names, (void *)arena->names, arena->name_count * sizeof(Text *));
        arena->names = names;
        arena->name_capacity = capacity;
    }
    name = arena_text(arena, bytes, length);
    if (name == NULL) return KEY_NONE;
    arena->names[arena->name_count] = name;
    return KEY_OF_REQUEST + arena->name_count++;
}

/* Give the name that a number stands for. */
static inline const Text *key_name(const Store *store, const Arena *arena, Key key) {
    return key < KEY_OF_REQUEST ? store->keys[key] : arena->names[key - KEY_OF_REQUEST];
}

/* --- being in --------------------------------------------------------------------------------------------------- */

static inline int below_directly(const EntityNode *a, uint32_t place) {
    return a->index == place || index_find(a->ancestors, a->ancestor_count, place);
}

/* Is `a`, or one of its ancestors, directly below `node` by a closed type? Asked from the side that has fewer to look at:
   a node may have very many children (all who may see a folder), and so may `a` have ancestors. */
static inline int closed_below(const Store *store, const EntityNode *a, const EntityNode *node) {
    uint32_t i;
    if (node->child_count - node->walked_child_count <= a->ancestor_count + 4u) {
        for (i = node->walked_child_count; i < node->child_count; i++)
            if (below_directly(a, node->children[i])) return 1;
        return 0;
    }
    if (a->index != NODE_INDEX_NONE) { /* by what the store says, also where a request says more of it */
        const EntityNode *stored = store_node(store, a->index);
        if (index_find(stored->parents, stored->parent_count, node->index)) return 1;
    }
    for (i = 0; i < a->ancestor_count; i++) {
        const EntityNode *above = store_node(store, a->ancestors[i]);
        if (index_find(above->parents, above->parent_count, node->index)) return 1;
    }
    return 0;
}

/* Walk down from a walked node that has more than WALK_LOCAL walked ones below it. */
static int walk_far(Store *store, const EntityNode *a, const EntityNode *b) {
    uint32_t head = 0, tail = 0, i;
    int found = 0;
    pthread_mutex_lock(&store->lock);
    if (++store->stamp == 0) {
        memset(store->stamps, 0, store->stamp_capacity * sizeof(uint32_t));
        store->stamp = 1;
    }
    store->queue[tail++] = b->index;
    store->stamps[b->index] = store->stamp;
    while (head < tail && !found) {
        const EntityNode *node = store_node(store, store->queue[head++]);
        found = closed_below(store, a, node);
        for (i = 0; i < node->walked_child_count && !found; i++) {
            uint32_t child = node->children[i];
            if (child == a->index) found = 1;
            else if (store->stamps[child] != store->stamp) {
                store->stamps[child] = store->stamp;
                store->queue[tail++] = child;
            }
        }
    }
    pthread_mutex_unlock(&store->lock);
    return found;
}

/* Walk down from `b`: is `a`, or one of its ancestors, below it? Breadth first, each node once, so cycles end. */
static int walk_down(Store *store, const EntityNode *a, const EntityNode *b) {
    uint32_t seen[WALK_LOCAL], head = 0, tail = 0, i, j;
    seen[tail++] = b->index;
    while (head < tail) {
        const EntityNode *node = store_node(store, seen[head++]);
        if (closed_below(store, a, node)) return 1;
        for (i = 0; i < node->walked_child_count; i++) {
            uint32_t child = node->children[i];
            if (child == a->index) return 1;
            for (j = 0; j < tail && seen[j] != child; j++) {}
            if (j < tail) continue;
            if (tail == WALK_LOCAL) return walk_far(store, a, b);
            seen[tail++] = child;
        }
    }
    return 0;
}

static inline int node_in(const Store *store, const EntityNode *a, const EntityNode *b) {
    if (node_equal(a, b)) return 1;
    if (b->flags & NODE_REQUEST) {
        if (b->index == NODE_INDEX_NONE) return 0;
        b = store_node(store, b->index); /* what is in it is what the store says */
    }
    if (b->flags & NODE_WALKED) return walk_down((Store *)store, a, b);
    return index_find(a->ancestors, a->ancestor_count, b->index);
}

/* Which parents of a request's own entity are not among its `ancestors`: those that only the request knows, and walked
   ones. They stand where a store's node has its children, which it cannot have. */
static inline const EntityNode *const *request_parents(const EntityNode *node) {
    return (const EntityNode *const *)node->children;
}

/* `a in b`: 1 or 0. An entity that only the request knows is in itself, and, where the request defines it, in its
   parents and what they are in. What the request says of an entity does not move what the store has below it. */
static inline int entity_in(const Store *store, const EntityNode *a, const EntityNode *b) {
    uint32_t i;
    if (node_in(store, a, b)) return 1;
    if (a->flags & NODE_REQUEST)
        for (i = 0; i < a->child_count; i++)
            if (node_in(store, request_parents(a)[i], b)) return 1;
    return 0;
}

static const EntityNode *away_above(const Store *store, const EntityNode *a) {
    uint32_t i;
    if (a->flags & NODE_AWAY) return a;
    for (i = 0; i < a->ancestor_count; i++)
        if (store_node(store, a->ancestors[i])->flags & NODE_AWAY) return store_node(store, a->ancestors[i]);
    return NULL;
}

/* What must be fetched before it is known that `a` is not in something: `a` or an entity above it, or NULL. */
static inline const EntityNode *entity_away(const Store *store, const EntityNode *a) {
    const EntityNode *away;
    uint32_t i;
    if (store->sourced_count == 0) return NULL;
    away = away_above(store, a);
    if (a->flags & NODE_REQUEST)
        for (i = 0; i < a->child_count && away == NULL; i++) away = away_above(store, request_parents(a)[i]);
    return away;
}

#endif
