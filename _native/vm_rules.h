/* Policies ready to decide: their heads, and the index over them.

   The index is by action, then by what the head asks of the principal, then of the resource. A request looks only
   where its own entities lead: for each variable "any", its type, itself, and those of its ancestors that some policy
   mentions. A range of few policies is scanned instead. Every policy that is found is still checked by its whole
   head, so the index decides what is looked at and never what holds: it must only be complete.

   Why it is complete: a head `== E` or `in E` can hold only if E is the entity itself or one of its ancestors, `is T`
   only if T is its type (cedar-spec, Lean, `Slice/PolicySlice.lean` proves that such slices lose nothing). */
#ifndef PORTCULLIS_VM_RULES_H
#define PORTCULLIS_VM_RULES_H

#include "vm_machine.h"

typedef enum { BOUND_ANY = 0, BOUND_EQUAL = 1, BOUND_IN = 2, BOUND_IS = 3, BOUND_IS_IN = 4 } BoundOp;

typedef struct {
    uint8_t op; /* BoundOp */
    uint32_t type;            /* of IS, IS_IN */
    const EntityNode *entity; /* of EQUAL, IN, IS_IN; mentioned in the store, so its place stays */
} Bound;

typedef struct {
    int64_t references;
    uint64_t store_token;
    struct Holding *names; /* what its head mentions of the store, or NULL. Owned */
    uint8_t permits;
    uint8_t action_op; /* ANY, EQUAL or IN */
    uint32_t action_count;
    const EntityNode **actions; /* owned */
    Bound principal, resource;
    BoundProgram *program; /* one reference */
} BoundRule;

/* A variable of a request as the index sees it. `place`: index of its name in the store, also where the request
   defines the entity anew; NODE_INDEX_NONE: no policy can mention it. */
typedef struct {
    const EntityNode *node;
    uint32_t place;
} Subject;

typedef struct {
    Subject principal, action, resource;
    Run run;
} DecisionRequest;

static inline int bound_holds(const Store *store, const Bound *bound, const EntityNode *entity) {
    switch (bound->op) {
    case BOUND_ANY: return 1;
    case BOUND_EQUAL: return node_equal(entity, bound->entity);
    case BOUND_IN: return entity_in(store, entity, bound->entity);
    case BOUND_IS: return entity->type == bound->type;
    default: return entity->type == bound->type && entity_in(store, entity, bound->entity);
    }
}

static inline int rule_action_holds(const Store *store, const BoundRule *rule, const EntityNode *action) {
    uint32_t i;
    if (rule->action_op == BOUND_ANY) return 1;
    for (i = 0; i < rule->action_count; i++)
        if (rule->action_op == BOUND_EQUAL ? node_equal(action, rule->actions[i])
                                           : entity_in(store, action, rule->actions[i]))
            return 1;
    return 0;
}

static inline int rule_holds(const Store *store, const BoundRule *rule, const DecisionRequest *request) {
    return bound_holds(store, &rule->principal, request->principal.node) &&
           bound_holds(store, &rule->resource, request->resource.node) &&
           rule_action_holds(store, rule, request->action.node);
}

/* --- the index -------------------------------------------------------------------------------------------------- */

enum { INDEX_SCAN_MAX = 8 }; /* so many policies are looked at as fast as the index is asked */
#define INDEX_NONE 0xFFFFFFFFu

/* What a bound is filed under: kind in the upper half (0 any, 1 type, 2 entity, 3 walked), number in the lower. */
#define FILE_ANY 0ull
#define FILE_TYPE(type) (1ull << 32 | (type))
#define FILE_ENTITY(place) (2ull << 32 | (place))
/* `in E` where E is of a walked type: nobody's ancestors tell of it, so every request looks here. */
#define FILE_WALKED (3ull << 32)

typedef struct {
    uint32_t rule; /* number */
    uint32_t cost;
    uint64_t action, principal, resource; /* filed under; `action`: 0 any, else place + 1 */
} Entry;

/* A range of entries that agree in all keys above its level. */
typedef struct {
    uint64_t key; /* of its level */
    uint32_t first, count;
    uint32_t inner_first, inner_count; /* ranges of the next level, ascending by key; inner_count 0: scan */
    uint8_t has_any, has_type, has_walked; /* whether there are such among them: where not, nobody need ask */
} Range;

typedef struct {
    uint32_t range; /* INDEX_NONE: empty */
    uint32_t outer; /* the range that it is part of */
    uint64_t key;
} Slot;

typedef struct {
    BoundRule **rules; /* by number; each one reference */
    uint32_t rule_count;
    Entry *entries;
    uint32_t *order; /* rule numbers, as `entries` are ordered: all that a scan reads */
    uint32_t entry_count;
    Range *ranges;
    uint32_t range_count, range_capacity;
    Slot *slots;
    uint32_t slot_mask;
    uint32_t any[2];       /* by effect: range of the policies for any action, or INDEX_NONE */
    uint32_t has_named[2]; /* by effect: whether some policy names an action */
    uint8_t asks_in[3];    /* whether some head asks what principal, action or resource is in */
} RuleIndex;

static inline uint64_t index_hash(uint32_t outer, uint64_t key) {
    uint64_t mixed = (key + 0x9E3779B97F4A7C15ull) * 0xBF58476D1CE4E5B9ull ^ (uint64_t)(outer + 1) * 0x94D049BB133111EBull;
    return mixed ^ mixed >> 29;
}

static inline uint32_t index_find_range(const RuleIndex *index, uint32_t outer, uint64_t key) {
    uint32_t at = (uint32_t)index_hash(outer, key) & index->slot_mask;
    while (index->slots[at].range != INDEX_NONE) {
        if (index->slots[at].key == key && index->slots[at].outer == outer) return index->slots[at].range;
        at = (at + 1) & index->slot_mask;
    }
    return INDEX_NONE;
}

static void index_file_range(RuleIndex *index, uint32_t outer, uint64_t key, uint32_t range) {
    uint32_t at = (uint32_t)index_hash(outer, key) & index->slot_mask;
    while (index->slots[at].range != INDEX_NONE) at = (at + 1) & index->slot_mask;
    index->slots[at].range = range;
    index->slots[at].outer = outer;
    index->slots[at].key = key;
}

static inline uint64_t bound_key(const Bound *bound) {
    if (bound->op == BOUND_ANY) return FILE_ANY;
    if (bound->op == BOUND_IS) return FILE_TYPE(bound->type);
    if (bound->op != BOUND_EQUAL && bound->entity->flags & NODE_WALKED) return FILE_WALKED;
    return FILE_ENTITY(bound->entity->index);
}

static int entry_order(const void *left, const void *right) {
    const Entry *a = (const Entry *)left, *b = (const Entry *)right;
    if (a->action != b->action) return a->action < b->action ? -1 : 1;
    if (a->principal != b->principal) return a->principal < b->principal ? -1 : 1;
    if (a->resource != b->resource) return a->resource < b->resource ? -1 : 1;
    if (a->cost != b->cost) return a->cost < b->cost ? -1 : 1;
    return a->rule < b->rule ? -1 : a->rule > b->rule;
}

static int entry_cost_order(const void *left, const void *right) {
    const Entry *a = (const Entry *)left, *b = (const Entry *)right;
    if (a->cost != b->cost) return a->cost < b->cost ? -1 : 1;
    return a->rule < b->rule ? -1 : a->rule > b->rule;
}

static inline uint64_t entry_key(const Entry *entry, int level) { return level == 0 ? entry->principal : entry->resource; }

/* Append a range and give its number. */
static uint32_t index_range(RuleIndex *index, uint64_t key, uint32_t first, uint32_t count) {
    Range *range;
    if (index->range_count == index->range_capacity) {
        uint32_t capacity = index->range_capacity ? index->range_capacity * 2 : 64;
        Range *grown = (Range *)realloc(index->ranges, capacity * sizeof(Range));
        if (grown == NULL) return INDEX_NONE;
        index->ranges = grown;
        index->range_capacity = capacity;
    }
    range = &index->ranges[index->range_count];
    range->key = key;
    range->first = first;
    range->count = count;
    range->inner_first = range->inner_count = 0;
    range->has_any = range->has_type = range->has_walked = 0;
    return index->range_count++;
}

/* Part a range by `level` (0: by principal, 1: by resource, 2: no further), and its parts by the next. */
static int index_split(RuleIndex *index, uint32_t number, int level) {
    uint32_t first = index->ranges[number].first, count = index->ranges[number].count, at, parts = 0, inner;
    if (count <= INDEX_SCAN_MAX || level == 2) {
        qsort(index->entries + first, count, sizeof(Entry), entry_cost_order);
        return 1;
    }
    for (at = first; at < first + count; at++)
        if (at == first || entry_key(&index->entries[at], level) != entry_key(&index->entries[at - 1], level)) parts++;
    inner = index->range_count;
    /* The parts stand side by side, before the parts of any of them. */
    for (at = first; at < first + count;) {
        uint32_t end = at + 1;
        while (end < first + count && entry_key(&index->entries[end], level) == entry_key(&index->entries[at], level)) end++;
        if (index_range(index, entry_key(&index->entries[at], level), at, end - at) == INDEX_NONE) return 0;
        at = end;
    }
    index->ranges[number].inner_first = inner;
    index->ranges[number].inner_count = parts;
    for (at = inner; at < inner + parts; at++) {
        uint64_t kind = index->ranges[at].key >> 32;
        index->ranges[number].has_any |= kind == FILE_ANY >> 32;
        index->ranges[number].has_type |= kind == FILE_TYPE(0) >> 32;
        index->ranges[number].has_walked |= kind == FILE_WALKED >> 32;
    }
    for (at = inner; at < inner + parts; at++)
        if (!index_split(index, at, level + 1)) return 0;
    return 1;
}

static void index_free(RuleIndex *index) {
    free(index->entries);
    free(index->order);
    free(index->ranges);
    free(index->slots);
    index->entries = NULL;
    index->order = NULL;
    index->ranges = NULL;
    index->slots = NULL;
}

/* Slots of named actions are filed under an outer range beyond all others, by effect. */
#define INDEX_ACTIONS(permits) (0xFFFFFFF0u + (permits))

/* Build over `index->rules`; 1, or 0 without memory (then index_free is still due). */
static int index_build(RuleIndex *index) {
    uint32_t i, j, at, effect, total = 0, slots = 16, outer_count;
    uint32_t *outer = NULL;
    for (i = 0; i < index->rule_count; i++) {
        const BoundRule *rule = index->rules[i];
        total += rule->action_op == BOUND_ANY ? 1 : rule->action_count;
        index->asks_in[0] |= rule->principal.op == BOUND_IN || rule->principal.op == BOUND_IS_IN;
        index->asks_in[1] |= rule->action_op == BOUND_IN;
        index->asks_in[2] |= rule->resource.op == BOUND_IN || rule->resource.op == BOUND_IS_IN;
    }
    index->entry_count = total;
    index->entries = (Entry *)malloc((total + 1) * sizeof(Entry));
    index->order = (uint32_t *)malloc((total + 1) * sizeof(uint32_t));
    if (index->entries == NULL || index->order == NULL) return 0;
    index->any[0] = index->any[1] = INDEX_NONE;
    index->has_named[0] = index->has_named[1] = 0;
    at = 0;
    for (effect = 0; effect < 2; effect++) {
        uint32_t begin = at, first;
        for (i = 0; i < index->rule_count; i++) {
            const BoundRule *rule = index->rules[i];
            uint32_t count = rule->action_op == BOUND_ANY ? 1 : rule->action_count;
            if (rule->permits != effect) continue;
            for (j = 0; j < count; j++) {
                Entry *entry = &index->entries[at++];
                entry->rule = i;
                entry->cost = rule->program->code_count;
                /* A group of a walked type is not among anybody's ancestors: such a policy is looked at always. */
                entry->action = rule->action_op == BOUND_ANY || rule->actions[j]->flags & NODE_WALKED
                                    ? 0 : (uint64_t)rule->actions[j]->index + 1;
                entry->principal = bound_key(&rule->principal);
                entry->resource = bound_key(&rule->resource);
            }
        }
        qsort(index->entries + begin, at - begin, sizeof(Entry), entry_order);
        for (first = begin; first < at;) {
            uint32_t end = first + 1, range;
            while (end < at && index->entries[end].action == index->entries[first].action) end++;
            range = index_range(index, index->entries[first].action, first, end - first);
            if (range == INDEX_NONE) return 0;
            if (index->entries[first].action == 0) index->any[effect] = range;
            else index->has_named[effect] = 1;
            first = end;
        }
    }
    /* Ranges of actions first, then all that are part of them: files refer to them by number. */
    outer_count = index->range_count;
    outer = (uint32_t *)malloc((outer_count + 1) * sizeof(uint32_t));
    if (outer == NULL) return 0;
    for (i = 0; i < outer_count; i++) {
        outer[i] = index->rules[index->entries[index->ranges[i].first].rule]->permits;
        if (!index_split(index, i, 0)) {
            free(outer);
            return 0;
        }
    }
    while (slots < index->range_count * 2 + 2) slots *= 2;
    index->slots = (Slot *)malloc(slots * sizeof(Slot));
    if (index->slots == NULL) {
        free(outer);
        return 0;
    }
    index->slot_mask = slots - 1;
    for (i = 0; i < slots; i++) index->slots[i].range = INDEX_NONE;
    for (i = 0; i < outer_count; i++)
        if (index->ranges[i].key != 0) index_file_range(index, INDEX_ACTIONS(outer[i]), index->ranges[i].key, i);
    free(outer);
    for (i = 0; i < index->range_count; i++)
        for (j = 0; j < index->ranges[i].inner_count; j++)
            index_file_range(index, i, index->ranges[index->ranges[i].inner_first + j].key, index->ranges[i].inner_first + j);
    for (i = 0; i < total; i++) index->order[i] = index->entries[i].rule;
    free(index->entries);
    index->entries = NULL;
    return 1;
}

/* --- deciding --------------------------------------------------------------------------------------------------- */

/* What became of one policy that was looked at. */
enum { LOOK_HEAD = 16 }; /* beside RunOutcome: its head does not hold, and it was not run */
typedef struct {
    uint32_t rule;
    uint32_t outcome; /* RunOutcome, or LOOK_HEAD where that is noted too */
    uint32_t error;
    uint32_t pc;
} Finding;

typedef struct {
    const RuleIndex *index;
    DecisionRequest *request;
    Finding *findings; /* NULL: stop at the first satisfied policy; else every policy is run, and noted here */
    uint32_t finding_count, finding_capacity;
    int faulted;       /* VM_ERROR_… of a limit that was hit, or 0 */
    int strict;        /* a forbid that cannot be evaluated counts as a fault: what skips it might have been forbidden */
    int traced;        /* stop at the first satisfied policy, and note in `findings` what was looked at until then */
} Walk;

/* 0: no room, which cannot be, since there is some for every entry. */
static int walk_note(Walk *walk, uint32_t rule, uint32_t outcome) {
    Finding *finding;
    if (walk->finding_count == walk->finding_capacity) {
        walk->faulted = VM_ERROR_INTERNAL;
        return 0;
    }
    finding = &walk->findings[walk->finding_count++];
    finding->rule = rule;
    finding->outcome = outcome;
    finding->error = walk->request->run.error;
    finding->pc = walk->request->run.pc;
    return 1;
}

/* 1: stop, something was decided. */
static int walk_scan(Walk *walk, const Range *range) {
    const uint32_t *number = walk->index->order + range->first, *end = number + range->count;
    DecisionRequest *request = walk->request;
    for (; number < end; number++) {
        const BoundRule *rule = walk->index->rules[*number];
        RunOutcome outcome;
        if (number + 1 < end) __builtin_prefetch(walk->index->rules[number[1]]);
        if (!rule_holds(request->run.store, rule, request)) {
            if (walk->traced && !walk_note(walk, *number, LOOK_HEAD)) return 1;
            continue;
        }
        if (walk->findings == NULL || walk->traced) {
            int exactly = walk->strict && !rule->permits; /* in the order of the text, so that no error hides */
            outcome = machine_run(
                &request->run, rule->program, exactly ? rule->program->exact_entry : rule->program->quick_entry
            );
            if (walk->traced && !walk_note(walk, *number, outcome)) return 1;
            if (outcome == RUN_SATISFIED) return 1;
            if (exactly && outcome == RUN_ERROR) outcome = RUN_FAULT;
        } else {
            outcome = machine_run(&request->run, rule->program, rule->program->exact_entry);
            if (!walk_note(walk, *number, outcome)) return 1;
        }
        if (outcome == RUN_FAULT) {
            walk->faulted = (int)request->run.error;
            return 1;
        }
    }
    return 0;
}

static int walk_range(Walk *walk, uint32_t number, int level);

static inline int walk_key(Walk *walk, uint32_t outer, uint64_t key, int level) {
    uint32_t found = index_find_range(walk->index, outer, key);
    return found != INDEX_NONE && walk_range(walk, found, level + 1);
}

static int walk_range(Walk *walk, uint32_t number, int level) {
    const RuleIndex *index = walk->index;
    const Range *range = &index->ranges[number];
    const Subject *subject;
    const EntityNode *node;
    uint32_t i;
    if (range->inner_count == 0) return walk_scan(walk, range);
    subject = level == 0 ? &walk->request->principal : &walk->request->resource;
    node = subject->node;
    if (range->has_any && walk_key(walk, number, FILE_ANY, level)) return 1;
    if (range->has_type && node->type != TYPE_OF_REQUEST && walk_key(walk, number, FILE_TYPE(node->type), level)) return 1;
    if (subject->place != NODE_INDEX_NONE && walk_key(walk, number, FILE_ENTITY(subject->place), level)) return 1;
    if (range->has_walked && walk_key(walk, number, FILE_WALKED, level)) return 1;
    if (node->ancestor_count > range->inner_count) {
        for (i = 0; i < range->inner_count; i++) {
            const Range *inner = &index->ranges[range->inner_first + i];
            if (inner->key >> 32 != 2 || (uint32_t)inner->key == subject->place) continue;
            if (!index_find(node->ancestors, node->ancestor_count, (uint32_t)inner->key)) continue;
            if (walk_range(walk, range->inner_first + i, level + 1)) return 1;
        }
    } else {
        for (i = 0; i < node->ancestor_count; i++)
            if (node->ancestors[i] != subject->place && walk_key(walk, number, FILE_ENTITY(node->ancestors[i]), level))
                return 1;
    }
    return 0;
}

/* Run the policies of one effect. 1: stopped at a satisfied policy, or at a fault. */
static int walk_effect(Walk *walk, int permits) {
    const RuleIndex *index = walk->index;
    const Subject *action = &walk->request->action;
    uint32_t found, i;
    if (index->any[permits] != INDEX_NONE && walk_range(walk, index->any[permits], 0)) return 1;
    if (!index->has_named[permits]) return 0;
    if (action->place != NODE_INDEX_NONE) {
        found = index_find_range(index, INDEX_ACTIONS(permits), (uint64_t)action->place + 1);
        if (found != INDEX_NONE && walk_range(walk, found, 0)) return 1;
    }
    for (i = 0; i < action->node->ancestor_count; i++) {
        if (action->node->ancestors[i] == action->place) continue;
        found = index_find_range(index, INDEX_ACTIONS(permits), (uint64_t)action->node->ancestors[i] + 1);
        if (found != INDEX_NONE && walk_range(walk, found, 0)) return 1;
    }
    return 0;
}

static int away_of_heads(const RuleIndex *index, DecisionRequest *request) {
    const Subject *subjects[3] = {&request->principal, &request->action, &request->resource};
    int i;
    for (i = 0; i < 3 && request->run.missing == NULL; i++)
        if (index->asks_in[i]) request->run.missing = entity_away(request->run.store, subjects[i]->node);
    return request->run.missing != NULL;
}

/* Note that a decision is about an entity. Several threads may do so at once: all of them take the same bit away, and
   nobody changes the store meanwhile. */
static inline void node_asked(const Store *store, const EntityNode *node) {
    if (node->flags & NODE_REQUEST && node->index != NODE_INDEX_NONE) node = store_node(store, node->index);
    if (node->flags & NODE_IDLE) ((EntityNode *)node)->flags &= ~(uint32_t)NODE_IDLE;
}

/* Whether what the request's entities are in must be fetched before policies can be found by it. */
static inline int heads_unknown(const RuleIndex *index, DecisionRequest *request) {
    if (request->run.store->sourced_count == 0) return 0;
    node_asked(request->run.store, request->principal.node);
    node_asked(request->run.store, request->resource.node);
    return away_of_heads(index, request);
}

/* Whether the request is allowed: no forbid is satisfied, and some permit is. A fault denies. */
static inline int walk_decide(Walk *walk) {
    if (heads_unknown(walk->index, walk->request)) {
        walk->faulted = VM_ERROR_NOT_RESIDENT;
        return 0;
    }
    if (walk_effect(walk, 0)) return 0;
    return walk_effect(walk, 1) && !walk->faulted;
}

static inline int rules_decide(const RuleIndex *index, DecisionRequest *request, int strict, int *fault) {
    Walk walk;
    int allowed;
    walk.index = index;
    walk.request = request;
    walk.findings = NULL;
    walk.finding_count = walk.finding_capacity = 0;
    walk.faulted = 0;
    walk.strict = strict;
    walk.traced = 0;
    allowed = walk_decide(&walk);
    *fault = walk.faulted;
    return allowed;
}

/* By Cedar's rules: a policy that cannot be evaluated is left out. */
static inline int rules_allow(const RuleIndex *index, DecisionRequest *request, int *fault) {
    return rules_decide(index, request, 0, fault);
}

/* As a door decides: a forbid that cannot be evaluated denies. */
static inline int rules_allow_strictly(const RuleIndex *index, DecisionRequest *request, int *fault) {
    return rules_decide(index, request, 1, fault);
}

#endif
