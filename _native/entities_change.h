/* What changes a store of entities. Called under the GIL, with no decider reading; see `entities.h`.

   Functions that may run out of memory give 0 (or NULL) then, and leave the store as it was. */
#ifndef PORTCULLIS_ENTITIES_CHANGE_H
#define PORTCULLIS_ENTITIES_CHANGE_H

#include <sys/mman.h>
#include "entities.h"

/* --- memory ----------------------------------------------------------------------------------------------------- */

/* What is large comes in blocks of their own huge pages: with small ones, finding where in memory a page lies costs a
   decision among a million entities as much again as what it reads there. Small stores have none: a page that is only
   begun counts as a whole. */
enum {
    BLOCK_BYTES = 2 * 1024 * 1024, /* a huge page */
    BLOCKS_FROM = 8 * 1024 * 1024, /* of one kind: what is smaller would waste too much of its last block */
    LINE_BYTES = 64,
    CHUNK_BYTES = NODES_OF_CHUNK * sizeof(EntityNode),
    CHUNKS_OF_BLOCK = BLOCK_BYTES / CHUNK_BYTES,
};
_Static_assert(sizeof(EntityNode) == 2 * LINE_BYTES, "a node is two lines of the cache");
_Static_assert(CHUNKS_OF_BLOCK * CHUNK_BYTES == BLOCK_BYTES, "chunks fill their block");

/* Give memory that begins with a line, or NULL. From BLOCK_BYTES on, `size` is a multiple of it, and all is 0. */
static void *block_take(size_t size) {
    void *taken = NULL;
    char *mapped, *aligned;
    if (size < BLOCK_BYTES) return posix_memalign(&taken, LINE_BYTES, size) == 0 ? taken : NULL;
    mapped = (char *)mmap(NULL, size + BLOCK_BYTES, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (mapped == (char *)MAP_FAILED) return NULL;
    aligned = (char *)(((uintptr_t)mapped + BLOCK_BYTES - 1) & ~(uintptr_t)(BLOCK_BYTES - 1));
    if (aligned > mapped) munmap(mapped, (size_t)(aligned - mapped));
    if (aligned < mapped + BLOCK_BYTES) munmap(aligned + size, (size_t)(mapped + BLOCK_BYTES - aligned));
#ifdef MADV_HUGEPAGE
    madvise(aligned, size, MADV_HUGEPAGE); /* where the system has none, it stays as it is */
#endif
    return aligned;
}

static void block_give(void *taken, size_t size) {
    if (size < BLOCK_BYTES) free(taken);
    else munmap(taken, size);
}

/* Are the nodes of this chunk the first of a block, or alone? Others lie in the block of the chunk before. */
static size_t chunk_block(uint32_t chunk) {
    if ((size_t)chunk * CHUNK_BYTES < BLOCKS_FROM) return CHUNK_BYTES;
    return chunk % CHUNKS_OF_BLOCK == 0 ? BLOCK_BYTES : 0;
}

/* Small pieces come out of slabs, without `malloc`'s 8 to 24 bytes each: of a million entities that is a tenth. What is
   given back is used again for the same size. Under the sanitizer each piece has red zones of its own instead. */
#if defined(__SANITIZE_ADDRESS__)
static int piece_is_small(size_t size) { (void)size; return 0; }
#else
static int piece_is_small(size_t size) { return size <= PIECE_BYTES_MAX && size > 0; }
#endif

static void *store_take(Store *store, size_t size) {
    size_t rounded = (size + 7) & ~(size_t)7;
    void *taken;
    if (!piece_is_small(size)) {
        taken = malloc(size);
    } else if (store->spare[rounded / 8] != NULL) {
        taken = store->spare[rounded / 8];
        memcpy(&store->spare[rounded / 8], taken, sizeof(void *));
    } else {
        if (store->slab_left < rounded) { /* what is left of the old one is too small to matter */
            size_t slab_size = store->slab_bytes < BLOCKS_FROM ? SLAB_BYTES : BLOCK_BYTES;
            char *slab = (char *)block_take(slab_size);
            if (slab == NULL) return NULL;
            store->slab_bytes += slab_size;
            memcpy(slab, &store->slabs, sizeof(void *));
            memcpy(slab + sizeof(void *), &slab_size, sizeof(size_t));
            store->slabs = slab;
            store->slab = slab + 16;
            store->slab_left = slab_size - 16;
        }
        taken = store->slab;
        store->slab += rounded;
        store->slab_left -= rounded;
    }
    if (taken != NULL) store->bytes += size;
    return taken;
}

static void store_give(Store *store, void *taken, size_t size) {
    if (taken == NULL) return;
    store->bytes -= size;
    if (piece_is_small(size)) {
        void **spare = &store->spare[(size + 7) / 8];
        memcpy(taken, spare, sizeof(void *));
        *spare = taken;
    } else {
        free(taken);
    }
}

/* Tables are never small pieces: the first ones come from `calloc`. */
static void table_give(Store *store, void *table, size_t size) {
    store->bytes -= size;
    free(table);
}

/* Make room for one more of `count` things of `size` bytes in `*array`. */
static int store_room(Store *store, void **array, uint32_t count, uint32_t *capacity, size_t size) {
    uint32_t wanted;
    void *grown;
    if (count < *capacity) return 1;
    if (*capacity > 0x7FFFFFFFu / 2) return 0;
    wanted = *capacity ? *capacity * 2 : 8;
    grown = realloc(*array, wanted * size);
    if (grown == NULL) return 0;
    store->bytes += (wanted - *capacity) * size;
    *array = grown;
    *capacity = wanted;
    return 1;
}

/* --- texts ------------------------------------------------------------------------------------------------------ */

static int texts_grow(Store *store) {
    uint32_t capacity = (store->text_mask + 1) * 2, i, live = 0;
    Text **slots;
    for (i = 0; i <= store->text_mask; i++)
        live += store->text_slots[i] != NULL && store->text_slots[i] != TEXT_GONE;
    if (live * 4 <= store->text_mask + 1) capacity = store->text_mask + 1; /* mostly gone ones: only clean up */
    slots = (Text **)calloc(capacity, sizeof(Text *));
    if (slots == NULL) return 0;
    for (i = 0; i <= store->text_mask; i++) {
        Text *text = store->text_slots[i];
        uint32_t at;
        if (text == NULL || text == TEXT_GONE) continue;
        at = text->hash & (capacity - 1);
        while (slots[at] != NULL) at = (at + 1) & (capacity - 1);
        slots[at] = text;
    }
    store->bytes += (size_t)capacity * sizeof(Text *);
    table_give(store, store->text_slots, (size_t)(store->text_mask + 1) * sizeof(Text *));
    store->text_slots = slots;
    store->text_mask = capacity - 1;
    store->text_used = live;
    return 1;
}

/* Give the store's one text of these bytes, with one more reference; NULL without memory. */
static Text *text_intern(Store *store, const char *bytes, uint32_t length) {
    uint32_t hash = bytes_hash(store->seed, bytes, length), at, place = 0;
    int free_found = 0;
    Text *text;
    if (store->text_used * 2 > store->text_mask && !texts_grow(store)) return NULL;
    at = hash & store->text_mask;
    while ((text = store->text_slots[at]) != NULL) {
        if (text == TEXT_GONE) {
            if (!free_found) place = at;
            free_found = 1;
        } else if (text->hash == hash && text->length == length && memcmp(text->bytes, bytes, length) == 0) {
            if (text->references < TEXT_PINNED - 1) text->references++;
            return text;
        }
        at = (at + 1) & store->text_mask;
    }
    text = (Text *)store_take(store, sizeof(Text) + length);
    if (text == NULL) return NULL;
    text->owner = store->owner;
    text->length = length;
    text->references = 1;
    text->hash = hash;
    memcpy(text->bytes, bytes, length);
    if (!free_found) {
        place = at;
        store->text_used++;
    }
    store->text_slots[place] = text;
    return text;
}

static inline void text_pin(const Text *text) { ((Text *)text)->references = TEXT_PINNED; }

/* A text with 2^32 - 2 references stays for good: better than to count wrongly. */
static void text_release(Store *store, const Text *given) {
    Text *text = (Text *)given;
    uint32_t at;
    if (text->references >= TEXT_PINNED - 1 || --text->references > 0) return;
    at = text->hash & store->text_mask;
    while (store->text_slots[at] != text) at = (at + 1) & store->text_mask;
    store->text_slots[at] = TEXT_GONE;
    store_give(store, text, sizeof(Text) + text->length);
}

/* --- names of attributes and types ------------------------------------------------------------------------------- */

/* Give the number of a name, a new one where it has none; KEY_NONE without memory. Numbers stay for good. */
static Key key_intern(Store *store, const char *bytes, uint32_t length) {
    Key key = store_key(store, bytes, length);
    const Text *name;
    uint32_t at;
    if (key != KEY_NONE) return key;
    if (store->key_count >= KEY_OF_REQUEST - 1) return KEY_NONE;
    if (store->key_count * 2 >= store->key_mask) {
        uint32_t capacity = (store->key_mask + 1) * 2, i;
        uint32_t *slots = (uint32_t *)calloc(capacity, sizeof(uint32_t));
        if (slots == NULL) return KEY_NONE;
        for (i = 0; i < store->key_count; i++) {
            at = store->keys[i]->hash & (capacity - 1);
            while (slots[at] != 0) at = (at + 1) & (capacity - 1);
            slots[at] = i + 1;
        }
        store->bytes += (size_t)capacity * sizeof(uint32_t);
        table_give(store, store->key_slots, (size_t)(store->key_mask + 1) * sizeof(uint32_t));
        store->key_slots = slots;
        store->key_mask = capacity - 1;
    }
    if (!store_room(store, (void **)&store->keys, store->key_count, &store->key_capacity, sizeof(Text *)))
        return KEY_NONE;
    name = text_intern(store, bytes, length);
    if (name == NULL) return KEY_NONE;
    text_pin(name);
    at = name->hash & store->key_mask;
    while (store->key_slots[at] != 0) at = (at + 1) & store->key_mask;
    store->key_slots[at] = store->key_count + 1;
    store->keys[store->key_count] = name;
    return store->key_count++;
}

/* Find the number of a type, or TYPE_OF_REQUEST. There are few types: the caller in Python keeps a dict. */
static uint32_t type_append(Store *store, const char *bytes, uint32_t length) {
    uint32_t capacity = store->type_capacity;
    const Text *name;
    if (store->type_count == capacity) {
        const Text **types;
        uint8_t *flags;
        uint32_t *counts;
        if (capacity >= 0x10000000u) return TYPE_OF_REQUEST;
        types = (const Text **)realloc((void *)store->types, (size_t)capacity * 2 * sizeof(Text *));
        if (types == NULL) return TYPE_OF_REQUEST;
        store->types = types;
        flags = (uint8_t *)realloc(store->type_flags, (size_t)capacity * 2);
        if (flags == NULL) return TYPE_OF_REQUEST;
        store->type_flags = flags;
        counts = (uint32_t *)realloc(store->type_counts, (size_t)capacity * 2 * sizeof(uint32_t));
        if (counts == NULL) return TYPE_OF_REQUEST;
        store->type_counts = counts;
        store->bytes += (size_t)capacity * (sizeof(Text *) + 1 + sizeof(uint32_t));
        store->type_capacity = capacity * 2;
    }
    name = text_intern(store, bytes, length);
    if (name == NULL) return TYPE_OF_REQUEST;
    text_pin(name);
    store->types[store->type_count] = name;
    store->type_flags[store->type_count] = 0;
    store->type_counts[store->type_count] = 0;
    return store->type_count++;
}

/* --- nodes ------------------------------------------------------------------------------------------------------ */

static size_t slots_bytes(uint32_t mask) { return ((size_t)mask + 1) * sizeof(NodeSlot); }

static int nodes_grow(Store *store) {
    uint32_t capacity = (store->node_mask + 1) * 2, i, live = 0;
    NodeSlot *slots;
    for (i = 0; i <= store->node_mask; i++)
        live += store->node_slots[i].place != 0 && store->node_slots[i].place != SLOT_GONE;
    if (live * 4 <= store->node_mask + 1) capacity = store->node_mask + 1;
    slots = (NodeSlot *)block_take(slots_bytes(capacity - 1));
    if (slots == NULL) return 0;
    if (slots_bytes(capacity - 1) < BLOCK_BYTES) memset(slots, 0, slots_bytes(capacity - 1));
    for (i = 0; i <= store->node_mask; i++) {
        NodeSlot slot = store->node_slots[i];
        uint32_t at;
        if (slot.place == 0 || slot.place == SLOT_GONE) continue;
        at = slot.hash & (capacity - 1);
        while (slots[at].place != 0) at = (at + 1) & (capacity - 1);
        slots[at] = slot;
    }
    store->bytes += slots_bytes(capacity - 1) - slots_bytes(store->node_mask);
    block_give(store->node_slots, slots_bytes(store->node_mask));
    store->node_slots = slots;
    store->node_mask = capacity - 1;
    store->node_used = live;
    return 1;
}

/* Let walks have a stamp and a place in the queue for every place. */
static int stamps_grow(Store *store, uint32_t wanted) {
    uint32_t *stamps, *queue;
    if (wanted <= store->stamp_capacity) return 1;
    stamps = (uint32_t *)realloc(store->stamps, (size_t)wanted * sizeof(uint32_t));
    if (stamps == NULL) return 0;
    store->stamps = stamps;
    queue = (uint32_t *)realloc(store->queue, (size_t)wanted * sizeof(uint32_t));
    if (queue == NULL) return 0;
    store->queue = queue;
    memset(stamps + store->stamp_capacity, 0, (size_t)(wanted - store->stamp_capacity) * sizeof(uint32_t));
    store->bytes += (size_t)(wanted - store->stamp_capacity) * 2 * sizeof(uint32_t);
    store->stamp_capacity = wanted;
    return 1;
}

static int place_take(Store *store, uint32_t *place) {
    uint32_t chunk = store->place_count / NODES_OF_CHUNK;
    if (store->free_count > 0) {
        *place = store->free_places[--store->free_count];
        return 1;
    }
    if (store->place_count >= 0x7FFFFFF0u) return 0;
    if (store->place_count % NODES_OF_CHUNK == 0) {
        EntityNode *nodes;
        if (!store_room(store, (void **)&store->chunks, chunk, &store->chunk_capacity, sizeof(EntityNode *))) return 0;
        if (!stamps_grow(store, (chunk + 1) * NODES_OF_CHUNK)) return 0;
        if (chunk_block(chunk) > 0) {
            nodes = (EntityNode *)block_take(chunk_block(chunk));
            if (nodes == NULL) return 0;
            store->bytes += chunk_block(chunk);
        } else {
            nodes = store->chunks[chunk - 1] + NODES_OF_CHUNK;
        }
        store->chunks[chunk] = nodes;
    }
    *place = store->place_count++;
    store_node(store, *place)->generation = 0;
    return 1;
}

/* Give the node of an entity, a mentioned one where there is none; NULL without memory. */
static EntityNode *node_intern(Store *store, uint32_t type, const char *id, uint32_t length) {
    EntityNode *node = store_find(store, type, id, length);
    const Text *name;
    uint32_t at, place, generation, hash;
    if (node != NULL) return node;
    if (store->node_used * 2 > store->node_mask && !nodes_grow(store)) return NULL;
    /* Room for its own place among the free ones, so that giving it back cannot fail. */
    if (!store_room(store, (void **)&store->free_places, store->place_count, &store->free_capacity, sizeof(uint32_t)))
        return NULL;
    name = text_intern(store, id, length);
    if (name == NULL) return NULL;
    if (!place_take(store, &place)) {
        text_release(store, name);
        return NULL;
    }
    node = store_node(store, place);
    generation = node->generation;
    memset(node, 0, sizeof(EntityNode));
    node->generation = generation;
    node->type_name = store->types[type];
    node->id = name;
    node->type = type;
    node->index = place;
    node->flags = store->type_flags[type];
    hash = node_hash(store, type, name->hash);
    at = hash & store->node_mask;
    while (store->node_slots[at].place != 0 && store->node_slots[at].place != SLOT_GONE)
        at = (at + 1) & store->node_mask;
    if (store->node_slots[at].place == 0) store->node_used++;
    store->node_slots[at].hash = hash;
    store->node_slots[at].place = place + 1;
    return node;
}

static void relatives_free(Store *store, EntityNode *node);

static void children_give(Store *store, EntityNode *node) {
    if (node->children != node->near) store_give(store, node->children, (size_t)node->child_capacity * sizeof(uint32_t));
}

/* Give a node's place back when nothing defines or mentions it. */
static void node_release(Store *store, EntityNode *node) {
    uint32_t at, hash, place = node->index;
    if (node->flags & NODE_EXISTS || node->references > 0 || node->child_count > 0 || node->id == NULL) return;
    hash = node_hash(store, node->type, node->id->hash);
    at = hash & store->node_mask;
    while (store->node_slots[at].place != place + 1) at = (at + 1) & store->node_mask;
    store->node_slots[at].place = SLOT_GONE;
    text_release(store, node->id);
    relatives_free(store, node);
    children_give(store, node);
    node->children = NULL;
    node->child_capacity = 0;
    node->id = NULL;
    node->flags = 0;
    node->type = TYPE_OF_REQUEST;
    node->generation++;
    store->free_places[store->free_count++] = place;
    store->released++;
}

static inline void node_mention(EntityNode *node) {
    if (node->references < NODE_PINNED - 1) node->references++;
}

static void node_forget(Store *store, EntityNode *node) {
    if (node->references >= NODE_PINNED - 1) return;
    node->references--;
    node_release(store, node);
}

/* Make room for one more name; 0 without memory. */
static int holding_room(Holding *holding) {
    void **names;
    uint32_t capacity = holding->capacity ? holding->capacity * 2 : 4;
    if (holding->count < holding->capacity) return 1;
    names = (void **)realloc(holding->names, capacity * sizeof(void *));
    if (names == NULL) return 0;
    holding->names = names;
    holding->capacity = capacity;
    return 1;
}

static inline void holding_add_node(Holding *holding, EntityNode *node) {
    node_mention(node);
    holding->names[holding->count++] = node;
}

/* The text has one reference for the holding already. */
static inline void holding_add_text(Holding *holding, Text *text) {
    holding->names[holding->count++] = (void *)((uintptr_t)text | 1);
}

/* Free a holding; where `store` is not NULL, also give back what it mentions there. */
static void holding_free(Store *store, Holding *holding) {
    uint32_t i;
    for (i = 0; store != NULL && i < holding->count; i++) {
        uintptr_t name = (uintptr_t)holding->names[i];
        if (name & 1) text_release(store, (const Text *)(name & ~(uintptr_t)1));
        else node_forget(store, (EntityNode *)name);
    }
    free(holding->names);
    free(holding);
}

/* Undo what says that the node's source does not know it. The caller mentions the node meanwhile, or defines it. */
static void node_unsettle(Store *store, EntityNode *node) {
    if (!(node->flags & NODE_SETTLED)) return;
    node->flags &= ~NODE_SETTLED;
    node_forget(store, node);
}

/* --- values ------------------------------------------------------------------------------------------------------ */

static size_t set_bytes(uint32_t count) { return sizeof(ValueSet) + (size_t)count * sizeof(Value); }
static size_t record_bytes(uint32_t count) { return sizeof(Record) + (size_t)count * sizeof(Field); }

/* Give back a value of the store and all that it holds. `depth` is bounded by VALUE_DEPTH_MAX when it was made. */
static void value_free(Store *store, const Value *value) {
    uint32_t i;
    switch (value->tag) {
    case VALUE_STRING:
        text_release(store, value->text);
        break;
    case VALUE_ENTITY:
        node_forget(store, (EntityNode *)value->entity);
        break;
    case VALUE_SET:
        for (i = 0; i < value->set->count; i++) value_free(store, &value->set->items[i]);
        store_give(store, (void *)value->set, set_bytes(value->set->count));
        break;
    case VALUE_RECORD:
        for (i = 0; i < value->record->count; i++) value_free(store, &value->record->fields[i].value);
        store_give(store, (void *)value->record, record_bytes(value->record->count));
        break;
    case VALUE_IP:
        store_give(store, (void *)value->ip, sizeof(IpAddress));
        break;
    default:
        break;
    }
}

static void record_free(Store *store, const Record *record) {
    Value value;
    if (record == NULL) return;
    value.tag = VALUE_RECORD;
    value.record = record;
    value_free(store, &value);
}

/* Merge two records; where both have a field, `over` has it. `out` has room for both, and no owner: it is a request's. */
static void records_merge(Record *out, const Record *over, const Record *under) {
    uint32_t i = 0, j = 0, count = 0;
    while (i < over->count || j < under->count) {
        if (j == under->count || (i < over->count && over->fields[i].key <= under->fields[j].key)) {
            if (j < under->count && over->fields[i].key == under->fields[j].key) j++;
            out->fields[count++] = over->fields[i++];
        } else {
            out->fields[count++] = under->fields[j++];
        }
    }
    out->owner = 0;
    out->count = count;
}

/* --- relatives --------------------------------------------------------------------------------------------------- */

/* Parents and ancestors lie in one piece: first the parents. Before them stands how many nodes share it: many entities
   are in the same groups. */
typedef struct SharedPiece {
    uint32_t *places;
    uint32_t parent_count;
    uint32_t ancestor_count;
} SharedPiece;

static size_t piece_bytes(uint32_t parent_count, uint32_t ancestor_count) {
    return (1 + (size_t)parent_count + ancestor_count) * sizeof(uint32_t);
}

enum { SHARED_PARENTS_MAX = 256 }; /* more are nobody else's too, and not worth being looked for */

/* Make a piece; `ancestors` may be NULL where there are none. NULL without memory. */
static uint32_t *piece_make(
    Store *store, const uint32_t *parents, uint32_t parent_count, const uint32_t *ancestors, uint32_t ancestor_count
) {
    uint32_t *made = (uint32_t *)store_take(store, piece_bytes(parent_count, ancestor_count));
    if (made == NULL) return NULL;
    *made++ = 1;
    if (parent_count > 0) memcpy(made, parents, parent_count * sizeof(uint32_t));
    if (ancestor_count > 0) memcpy(made + parent_count, ancestors, ancestor_count * sizeof(uint32_t));
    return made;
}

static SharedPiece *piece_slot(const Store *store, const uint32_t *parents, uint32_t parent_count) {
    return &store->shared[bytes_hash(store->seed, (const char *)parents, parent_count * sizeof(uint32_t)) % SHARED_PIECES];
}

/* The same, or one of late that says the same, with one more reference. */
static uint32_t *piece_share(
    Store *store, const uint32_t *parents, uint32_t parent_count, const uint32_t *ancestors, uint32_t ancestor_count
) {
    SharedPiece *slot;
    uint32_t *made;
    if (parent_count > SHARED_PARENTS_MAX) return piece_make(store, parents, parent_count, ancestors, ancestor_count);
    if (store->shared == NULL) {
        store->shared = (SharedPiece *)calloc(SHARED_PIECES, sizeof(SharedPiece));
        if (store->shared == NULL) return piece_make(store, parents, parent_count, ancestors, ancestor_count);
        store->bytes += SHARED_PIECES * sizeof(SharedPiece);
    }
    slot = piece_slot(store, parents, parent_count);
    if (slot->places != NULL && slot->parent_count == parent_count && slot->ancestor_count == ancestor_count &&
        memcmp(slot->places, parents, parent_count * sizeof(uint32_t)) == 0 &&
        (ancestor_count == 0 ||
         memcmp(slot->places + parent_count, ancestors, ancestor_count * sizeof(uint32_t)) == 0)) {
        slot->places[-1]++;
        return slot->places;
    }
    made = piece_make(store, parents, parent_count, ancestors, ancestor_count);
    if (made == NULL) return NULL;
    slot->places = made;
    slot->parent_count = parent_count;
    slot->ancestor_count = ancestor_count;
    return made;
}

static void piece_give(Store *store, uint32_t *places, uint32_t parent_count, uint32_t ancestor_count) {
    if (places == NULL || --places[-1] > 0) return;
    if (store->shared != NULL && parent_count <= SHARED_PARENTS_MAX) {
        SharedPiece *slot = piece_slot(store, places, parent_count);
        if (slot->places == places) slot->places = NULL;
    }
    store_give(store, places - 1, piece_bytes(parent_count, ancestor_count));
}

static void relatives_free(Store *store, EntityNode *node) {
    piece_give(store, node->parents, node->parent_count, node->ancestor_count);
    node->parents = node->ancestors = NULL;
    node->parent_count = node->ancestor_count = 0;
}

/* Make room among the children of `parent`; linking cannot fail after this. */
static int child_room(Store *store, EntityNode *parent, uint32_t more) {
    uint32_t wanted = parent->child_count + more, capacity = parent->child_capacity;
    uint32_t *grown;
    if (wanted <= capacity) return 1;
    if (wanted > 0x7FFFFFFFu) return 0;
    if (capacity == 0 && wanted <= PLACES_NEAR && parent->flags & NODE_WALKED) {
        parent->children = parent->near;
        parent->child_capacity = PLACES_NEAR;
        return 1;
    }
    capacity = capacity + capacity / 2 + 2;
    if (capacity < wanted) capacity = wanted;
    grown = (uint32_t *)store_take(store, (size_t)capacity * sizeof(uint32_t));
    if (grown == NULL) return 0;
    if (parent->child_count > 0) memcpy(grown, parent->children, parent->child_count * sizeof(uint32_t));
    children_give(store, parent);
    parent->children = grown;
    parent->child_capacity = capacity;
    return 1;
}

static void child_link(EntityNode *parent, const EntityNode *child) {
    uint32_t at = parent->child_count++;
    if (child->flags & NODE_WALKED) { /* the walked ones come first */
        parent->children[at] = parent->children[parent->walked_child_count];
        at = parent->walked_child_count++;
    }
    parent->children[at] = child->index;
}

static void child_unlink(EntityNode *parent, const EntityNode *child) {
    uint32_t at = 0;
    while (at < parent->child_count && parent->children[at] != child->index) at++;
    if (at == parent->child_count) return;
    if (at < parent->walked_child_count) {
        parent->walked_child_count--;
        parent->children[at] = parent->children[parent->walked_child_count];
        at = parent->walked_child_count;
    }
    parent->child_count--;
    parent->children[at] = parent->children[parent->child_count];
}

static int place_compare(const void *a, const void *b) {
    uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;
    return (x > y) - (x < y);
}

/* Begin a walk of the store: places that were seen carry the stamp that is given. */
static uint32_t stamp_next(Store *store) {
    if (++store->stamp == 0) {
        memset(store->stamps, 0, store->stamp_capacity * sizeof(uint32_t));
        store->stamp = 1;
    }
    return store->stamp;
}

/* --- changes ------------------------------------------------------------------------------------------------------ */

enum { ANCESTORS_LIMIT = 1 << 14 }; /* closed ancestors of one node */

typedef enum { CHANGED = 0, CHANGE_NO_MEMORY, CHANGE_TOO_DEEP } ChangeOutcome;

/* What becomes of one node. All that it names is mentioned (`node_mention`), so that it stays while others change. */
typedef struct {
    EntityNode *node;
    const Record *attributes; /* of the store; the node owns them afterwards */
    const Record *tags;
    uint32_t *parents; /* ascending, distinct; taken by `malloc` */
    uint32_t parent_count;
    int exists; /* 0: the entity goes */
    int moves;  /* only the parents change: by `moved`, places that are added and then places that are taken out, each
                   ascending, taken by `malloc` and mentioned in place of `parents`, which come of them in the end */
    uint32_t *moved;
    uint32_t added_count;
    uint32_t taken_count;
} Change;

/* The piece of parents and ancestors that a node had, or shall have. */
typedef struct {
    EntityNode *node;
    uint32_t *places;
    uint32_t parent_count;
    uint32_t ancestor_count;
} Relatives;

static void relatives_give(Store *store, const Relatives *piece) {
    piece_give(store, piece->places, piece->parent_count, piece->ancestor_count);
}

static Relatives relatives_swap(EntityNode *node, Relatives piece) {
    Relatives old = {node, node->parents, node->parent_count, node->ancestor_count};
    node->parents = piece.places;
    node->parent_count = piece.parent_count;
    node->ancestors = piece.places == NULL ? NULL : piece.places + piece.parent_count;
    node->ancestor_count = piece.ancestor_count;
    if (piece.ancestor_count > 0 && piece.ancestor_count <= PLACES_NEAR) {
        memcpy(node->near, node->ancestors, piece.ancestor_count * sizeof(uint32_t));
        node->ancestors = node->near;
    }
    return old;
}

/* Find all closed ancestors of a node, up from its parents. */
static ChangeOutcome ancestors_find(Store *store, EntityNode *node, Relatives *out) {
    uint32_t stamp = stamp_next(store), head = 0, tail = 0, i;
    const EntityNode *above = node;
    store->stamps[node->index] = stamp;
    for (;;) {
        for (i = 0; i < above->parent_count; i++) {
            uint32_t parent = above->parents[i];
            if (store->stamps[parent] == stamp || store_node(store, parent)->flags & NODE_WALKED) continue;
            if (tail == ANCESTORS_LIMIT) return CHANGE_TOO_DEEP;
            store->stamps[parent] = stamp;
            store->queue[tail++] = parent;
        }
        if (head == tail) break;
        above = store_node(store, store->queue[head++]);
    }
    if (tail > 0) qsort(store->queue, tail, sizeof(uint32_t), place_compare);
    out->node = node;
    out->parent_count = node->parent_count;
    out->ancestor_count = tail;
    out->places = NULL;
    if (node->parent_count == 0) return CHANGED;
    out->places = piece_share(store, node->parents, node->parent_count, store->queue, tail);
    return out->places == NULL ? CHANGE_NO_MEMORY : CHANGED;
}

static int same_parents(const EntityNode *node, const Change *change) {
    return node->parent_count == change->parent_count &&
           (node->parent_count == 0 ||
            memcmp(node->parents, change->parents, node->parent_count * sizeof(uint32_t)) == 0);
}

/* Give the parents of a node after a change that moves it: what it has, with `moved` put in and taken out. What is both
   stays in. The result has the owner of `parents`; 0 without memory. */
static int parents_move(Change *change) {
    const uint32_t *had = change->node->parents, *added = change->moved, *taken = change->moved + change->added_count;
    uint32_t had_count = change->node->parent_count, i = 0, j = 0, k = 0, count = 0;
    uint32_t *made = (uint32_t *)malloc(((size_t)had_count + change->added_count + 1) * sizeof(uint32_t));
    if (made == NULL) return 0;
    while (i < had_count || j < change->added_count) {
        uint32_t place;
        int stays = j < change->added_count && (i == had_count || added[j] <= had[i]);
        place = stays ? added[j] : had[i];
        while (i < had_count && had[i] == place) i++;
        while (j < change->added_count && added[j] == place) j++;
        while (k < change->taken_count && taken[k] < place) k++;
        if (stays || k == change->taken_count || taken[k] != place) made[count++] = place;
    }
    change->parents = made;
    change->parent_count = count;
    return 1;
}

/* What relinking one node did: the piece that it had, and which parents it gained and lost, for it may keep very many. */
typedef struct {
    Relatives had;
    uint32_t *gained; /* then those that are lost; taken by `malloc` */
    uint32_t gained_count;
    uint32_t lost_count;
    int closed; /* closed ones are among them: then its ancestors may be others too */
} Link;

/* Copy the places of one ascending list that are not in another, which has `but_count` of them; give how many. */
static uint32_t places_only(const uint32_t *of, uint32_t of_count, const uint32_t *but, uint32_t but_count, uint32_t *out) {
    uint32_t i, j = 0, count = 0;
    for (i = 0; i < of_count; i++) {
        while (j < but_count && but[j] < of[i]) j++;
        if (j == but_count || but[j] != of[i]) out[count++] = of[i];
    }
    return count;
}

/* Find what a change gives a node and takes from it. Where it is moved, only what moves is looked at. */
static int link_find(const Store *store, const Change *change, Link *link) {
    const EntityNode *node = change->node;
    uint32_t i, *gained, *lost;
    size_t room = change->moves ? (size_t)change->added_count + change->taken_count
                                : (size_t)change->parent_count + node->parent_count;
    gained = link->gained = (uint32_t *)malloc((room + 1) * sizeof(uint32_t));
    link->gained_count = link->lost_count = 0;
    link->closed = 0;
    if (gained == NULL) return 0;
    if (change->moves) {
        const uint32_t *added = change->moved, *taken = change->moved + change->added_count;
        for (i = 0; i < change->added_count; i++)
            if ((i == 0 || added[i] != added[i - 1]) && !index_find(node->parents, node->parent_count, added[i]))
                gained[link->gained_count++] = added[i];
        lost = gained + link->gained_count;
        for (i = 0; i < change->taken_count; i++)
            if ((i == 0 || taken[i] != taken[i - 1]) && index_find(node->parents, node->parent_count, taken[i]) &&
                !index_find(added, change->added_count, taken[i]))
                lost[link->lost_count++] = taken[i];
    } else {
        link->gained_count =
            places_only(change->parents, change->parent_count, node->parents, node->parent_count, gained);
        lost = gained + link->gained_count;
        link->lost_count = places_only(node->parents, node->parent_count, change->parents, change->parent_count, lost);
    }
    for (i = 0; i < link->gained_count + link->lost_count && !link->closed; i++)
        link->closed = !(store_node(store, gained[i])->flags & NODE_WALKED);
    return 1;
}

/* Put a node under its new parents. 0 without memory, then nothing is changed. */
static int relink(Store *store, const Change *change, Link *link) {
    EntityNode *node = change->node;
    Relatives made = {node, NULL, change->parent_count, 0};
    uint32_t i;
    if (!link_find(store, change, link)) return 0;
    for (i = 0; i < link->gained_count; i++)
        if (!child_room(store, store_node(store, link->gained[i]), 1)) goto fail;
    if (!link->closed) made.ancestor_count = node->ancestor_count; /* else they are found later */
    if (change->parent_count > 0) {
        made.places = piece_share(store, change->parents, change->parent_count, node->ancestors, made.ancestor_count);
        if (made.places == NULL) goto fail;
    }
    for (i = 0; i < link->lost_count; i++)
        child_unlink(store_node(store, link->gained[link->gained_count + i]), node);
    link->had = relatives_swap(node, made);
    for (i = 0; i < link->gained_count; i++) child_link(store_node(store, link->gained[i]), node);
    return 1;
fail:
    free(link->gained);
    return 0;
}

/* Undo `relink`. Undone in reverse order, each finds the room among its old parents' children that it left. */
static void unlink_again(Store *store, Link *link) {
    EntityNode *node = link->had.node;
    Relatives made;
    uint32_t i;
    for (i = 0; i < link->gained_count; i++) child_unlink(store_node(store, link->gained[i]), node);
    made = relatives_swap(node, link->had);
    relatives_give(store, &made);
    for (i = 0; i < link->lost_count; i++)
        child_link(store_node(store, link->gained[link->gained_count + i]), node);
    free(link->gained);
}

/* Add to the queue what lies below its nodes from `head` on; nodes that carry the stamp are in it already. */
static uint32_t below_add(Store *store, uint32_t head, uint32_t tail, uint32_t stamp) {
    uint32_t i;
    while (head < tail) {
        const EntityNode *node = store_node(store, store->queue[head++]);
        for (i = 0; i < node->child_count; i++) {
            uint32_t child = node->children[i];
            if (store->stamps[child] == stamp) continue;
            store->stamps[child] = stamp;
            store->queue[tail++] = child;
        }
    }
    return tail;
}

/* Make changes, all or none: links first, then the ancestors of all that lies below into new pieces, and only when
   nothing can fail any more the rest. A later change of the same node goes before an earlier one. */
static ChangeOutcome store_commit(Store *store, const Change *changes, size_t count) {
    Link *links = NULL;
    Relatives *fresh = NULL;
    uint32_t *below = NULL;
    size_t i, linked = 0, made = 0, renewed = 0, touched = 0;
    uint32_t stamp, tail = 0, j;
    ChangeOutcome outcome = CHANGE_NO_MEMORY;
    links = (Link *)malloc((count + 1) * sizeof(Link));
    if (links == NULL) return CHANGE_NO_MEMORY;
    linked = 0;
    for (i = 0; i < count; i++) {
        if (same_parents(changes[i].node, &changes[i])) continue;
        if (!relink(store, &changes[i], &links[linked])) goto undo;
        linked++;
    }
    stamp = stamp_next(store);
    for (i = 0; i < linked; i++) {
        EntityNode *node = links[i].had.node;
        if (node->flags & NODE_WALKED || !links[i].closed || store->stamps[node->index] == stamp) continue;
        store->stamps[node->index] = stamp;
        store->queue[tail++] = node->index;
    }
    tail = below_add(store, 0, tail, stamp);
    renewed = tail; /* closed: there is nothing walked below a closed node */
    for (i = 0; i < linked; i++) {
        EntityNode *node = links[i].had.node;
        if (store->stamps[node->index] == stamp) continue;
        store->stamps[node->index] = stamp;
        store->queue[tail++] = node->index;
    }
    tail = below_add(store, (uint32_t)renewed, tail, stamp);
    touched = tail;
    below = (uint32_t *)malloc((touched + 1) * sizeof(uint32_t));
    fresh = (Relatives *)malloc((renewed + 1) * sizeof(Relatives));
    if (below == NULL || fresh == NULL) goto undo;
    if (touched > 0) memcpy(below, store->queue, touched * sizeof(uint32_t));
    for (; made < renewed; made++) {
        outcome = ancestors_find(store, store_node(store, below[made]), &fresh[made]);
        if (outcome != CHANGED) goto undo;
    }

    outcome = CHANGED; /* nothing fails from here on */
    store->revision++;
    for (i = 0; i < made; i++) {
        Relatives old = relatives_swap(fresh[i].node, fresh[i]);
        relatives_give(store, &old);
    }
    for (i = 0; i < touched; i++) store_node(store, below[i])->version = store->revision;
    for (i = 0; i < linked; i++) {
        Link *link = &links[i];
        for (j = 0; j < link->gained_count + link->lost_count; j++) {
            EntityNode *parent = store_node(store, link->gained[j]);
            if (parent->flags & NODE_WALKED) store->walk_revision = store->revision;
            node_release(store, parent);
        }
        free(link->gained);
        relatives_give(store, &link->had);
    }
    for (i = 0; i < count; i++) {
        EntityNode *node = changes[i].node;
        if (!(node->flags & NODE_EXISTS) != !changes[i].exists) {
            node->flags ^= NODE_EXISTS;
            store->existing_count += changes[i].exists ? 1 : -1;
            store->type_counts[node->type] += changes[i].exists ? 1 : -1;
        }
        if (changes[i].exists) {
            node->flags &= ~NODE_AWAY;
            node_unsettle(store, node);
        } else if (!(node->flags & NODE_SETTLED)) {
            node->flags |= store->type_flags[node->type] & NODE_AWAY;
        }
        node->version = store->revision;
        if (changes[i].moves) continue;
        record_free(store, node->attributes);
        record_free(store, node->tags);
        node->attributes = changes[i].attributes;
        node->tags = changes[i].tags;
    }
    free(links);
    free(below);
    free(fresh);
    return CHANGED;

undo:
    for (i = 0; i < made; i++) relatives_give(store, &fresh[i]);
    while (linked > 0) unlink_again(store, &links[--linked]);
    free(links);
    free(below);
    free(fresh);
    return outcome;
}

/* --- the whole --------------------------------------------------------------------------------------------------- */

static int store_open(Store *store, uint64_t token, uint32_t owner, uint64_t seed) {
    memset(store, 0, sizeof(Store));
    store->token = token;
    store->owner = owner;
    store->seed = seed;
    store->node_slots = (NodeSlot *)calloc(64, sizeof(NodeSlot));
    store->text_slots = (Text **)calloc(64, sizeof(Text *));
    store->key_slots = (uint32_t *)calloc(64, sizeof(uint32_t));
    store->types = (const Text **)calloc(8, sizeof(Text *));
    store->type_flags = (uint8_t *)calloc(8, 1);
    store->type_counts = (uint32_t *)calloc(8, sizeof(uint32_t));
    store->node_mask = store->text_mask = store->key_mask = 63;
    store->type_capacity = 8;
    store->type_count = 1;
    store->bytes = 64 * (sizeof(NodeSlot) + sizeof(Text *) + sizeof(uint32_t)) + 8 * (sizeof(Text *) + 1 + sizeof(uint32_t));
    pthread_mutex_init(&store->lock, NULL);
    return store->node_slots != NULL && store->text_slots != NULL && store->key_slots != NULL && store->types != NULL &&
           store->type_flags != NULL && store->type_counts != NULL;
}

/* Free a piece of a store that is going as a whole: small ones go with their slabs. */
static void piece_drop(void *piece, size_t size) {
    if (!piece_is_small(size)) free(piece);
}

static void value_drop(const Value *value) { /* texts and nodes go by themselves */
    uint32_t i;
    if (value->tag == VALUE_SET) {
        for (i = 0; i < value->set->count; i++) value_drop(&value->set->items[i]);
        piece_drop((void *)value->set, set_bytes(value->set->count));
    } else if (value->tag == VALUE_RECORD) {
        for (i = 0; i < value->record->count; i++) value_drop(&value->record->fields[i].value);
        piece_drop((void *)value->record, record_bytes(value->record->count));
    } else if (value->tag == VALUE_IP) {
        piece_drop((void *)value->ip, sizeof(IpAddress));
    }
}

static void record_drop(const Record *record) {
    Value value;
    if (record == NULL) return;
    value.tag = VALUE_RECORD;
    value.record = record;
    value_drop(&value);
}

static void store_close(Store *store) {
    uint32_t i;
    for (i = 0; i < store->place_count; i++) {
        EntityNode *node = store_node(store, i);
        record_drop(node->attributes);
        record_drop(node->tags);
        relatives_free(store, node);
        if (node->children != node->near) piece_drop(node->children, (size_t)node->child_capacity * sizeof(uint32_t));
    }
    for (i = 0; i < (store->place_count + NODES_OF_CHUNK - 1) / NODES_OF_CHUNK; i++)
        if (chunk_block(i) > 0) block_give(store->chunks[i], chunk_block(i));
    if (store->text_slots != NULL)
        for (i = 0; i <= store->text_mask; i++)
            if (store->text_slots[i] != NULL && store->text_slots[i] != TEXT_GONE)
                piece_drop(store->text_slots[i], sizeof(Text) + store->text_slots[i]->length);
    while (store->slabs != NULL) {
        void *slab = store->slabs;
        size_t slab_size;
        memcpy(&store->slabs, slab, sizeof(void *));
        memcpy(&slab_size, (char *)slab + sizeof(void *), sizeof(size_t));
        block_give(slab, slab_size);
    }
    free(store->shared);
    free(store->chunks);
    free(store->free_places);
    block_give(store->node_slots, slots_bytes(store->node_mask));
    free(store->text_slots);
    free((void *)store->keys);
    free(store->key_slots);
    free((void *)store->types);
    free(store->type_flags);
    free(store->type_counts);
    free(store->stamps);
    free(store->queue);
    pthread_mutex_destroy(&store->lock);
    memset(store, 0, sizeof(Store));
}

#endif
