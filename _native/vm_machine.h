/* The policy machine: runs one verified program over the values of one request. Pure C, no allocation but from the
   request's arena, no GIL.

   Laws. Programs were verified (`vm_verify.h`): stack heights, operand ranges and jump targets hold, so nothing is
   checked again here. Kinds of values are never trusted, they are checked by each instruction. Code runs forward only;
   what depends on the size of data is charged in steps. A limit that is hit is a fault: see VM_FAULT_FIRST. */
#ifndef PORTCULLIS_VM_MACHINE_H
#define PORTCULLIS_VM_MACHINE_H

#include "entities.h"
#include "opcodes.h"
#include "values.h"
#include "vm_calls.h"

typedef struct {
    Key key;
    uint32_t position; /* of its value among the popped */
} ShapeField;

typedef struct {
    const char *bytes;
    uint32_t length;
} Piece;

/* The texts between the asterisks of a `like`: the first stands at the start, the last at the end. One piece: equal. */
typedef struct {
    uint32_t count;
    uint32_t minimum; /* bytes of all pieces */
    const Piece *pieces;
} Pattern;

/* A program bound to one store: names are numbers, constants are values. Everything it points to lives in `memory` or
   in the store. Immutable but for the hints (`Instruction.b` of ATTR and VAR_ATTR), which are only guesses. */
typedef struct {
    int64_t references;
    Arena memory;
    uint64_t store_token;
    struct Holding *names; /* what it mentions of the store; one for each, or NULL. Owned: `entities.pxd` */
    Instruction *code;
    const Value *constants;
    const Pattern *patterns;
    const ShapeField **shapes;
    uint32_t code_count;
    uint32_t exact_entry; /* clauses in the order of the text: exact results */
    uint32_t quick_entry; /* cheap clauses first: satisfied or not, but not why */
} BoundProgram;

typedef enum { RUN_UNSATISFIED = 0, RUN_SATISFIED = 1, RUN_ERROR = 2, RUN_FAULT = 3 } RunOutcome;

typedef struct {
    Value variables[4]; /* principal, action, resource, context; tag NONE: unknown, reading it is a fault */
    Value *stack;       /* VM_STACK_MAX values */
    Arena *arena;
    const Store *store;
    int64_t steps_left;
    uint32_t error; /* VM_ERROR_…, of the last run */
    uint32_t pc;    /* the instruction that failed, or the clause that did not hold */
    Value result;   /* of RESULT */
    const EntityNode *missing; /* what must be fetched, where that is why the run failed; else NULL */
    int64_t turn_ms; /* no comparison of two datetimes can come out otherwise before one moved so far; INT64_MAX: none was made */
    int overlaid;    /* whether the request defines one of its entities itself */
} Run;

static const Record vm_empty_record; /* of a context that was not given */

/* Give `arena` one chunk of exactly `size` bytes, and no more ever; 0 without memory. */
static int arena_fix(Arena *arena, size_t size) {
    ArenaChunk *chunk = (ArenaChunk *)malloc(sizeof(ArenaChunk) + size);
    if (chunk == NULL) return 0;
    chunk->next = NULL;
    chunk->size = size;
    arena->chunk = chunk;
    arena->used = 0;
    arena->total = arena->limit = size;
    return 1;
}

static inline const Value *machine_find(const Record *record, Key key, Instruction *hint) {
    uint32_t low = 0, high, at = __atomic_load_n(&hint->b, __ATOMIC_RELAXED);
    if (record == NULL) return NULL;
    high = record->count;
    if (at < high && record->fields[at].key == key) return &record->fields[at].value;
    while (low < high) {
        at = low + (high - low) / 2;
        if (record->fields[at].key == key) {
            if (at <= UINT16_MAX) __atomic_store_n(&hint->b, (uint16_t)at, __ATOMIC_RELAXED);
            return &record->fields[at].value;
        }
        if (record->fields[at].key < key) low = at + 1;
        else high = at;
    }
    return NULL;
}

/* How many values a comparison with `value` looks at, at most: all that it holds, at any depth. Strings count by 16
   bytes. Stops soon after `most`. Values are nested VM_NESTING_MAX times at most, and so is this. */
static int64_t machine_weigh(const Value *value, int64_t most) {
    int64_t total = 0;
    uint32_t i;
    if (value->tag == VALUE_STRING) return value->text->length >> 4;
    if (value->tag == VALUE_SET) {
        total = value->set->count;
        for (i = 0; i < value->set->count && total <= most; i++) total += machine_weigh(&value->set->items[i], most);
    } else if (value->tag == VALUE_RECORD) {
        total = value->record->count;
        for (i = 0; i < value->record->count && total <= most; i++)
            total += machine_weigh(&value->record->fields[i].value, most);
    }
    return total;
}

static inline int64_t machine_weight(const Value *value, int64_t most) {
    if (value->tag < VALUE_SET || value->tag > VALUE_RECORD) return value->tag == VALUE_STRING ? value->text->length >> 4 : 0;
    return machine_weigh(value, most);
}

static inline const char *machine_search(const char *at, size_t room, const Piece *piece) {
    if (piece->length == 0) return at;
    return (const char *)memmem(at, room, piece->bytes, piece->length);
}

static int machine_like(const Text *text, const Pattern *pattern) {
    const char *at = text->bytes;
    size_t room = text->length;
    const Piece *piece = pattern->pieces;
    const Piece *last = piece + pattern->count - 1;
    if (room < pattern->minimum) return 0;
    if (pattern->count == 1) return room == piece->length && memcmp(at, piece->bytes, room) == 0;
    if (memcmp(at, piece->bytes, piece->length) != 0) return 0;
    at += piece->length;
    room -= piece->length;
    if (memcmp(text->bytes + text->length - last->length, last->bytes, last->length) != 0) return 0;
    room -= last->length; /* `minimum` keeps the ends from overlapping */
    for (piece++; piece < last; piece++) {
        const char *found = machine_search(at, room, piece);
        if (found == NULL) return 0;
        room -= (size_t)(found - at) + piece->length;
        at = found + piece->length;
    }
    return 1;
}

static const EntityNode *machine_defined(const Run *run, const EntityNode *entity) {
    uint32_t i;
    for (i = 0; i < 3; i++) {
        const EntityNode *own = run->variables[i].entity;
        if (run->variables[i].tag == VALUE_ENTITY && own->flags & NODE_REQUEST && own->flags & NODE_EXISTS &&
            node_equal(own, entity))
            return own;
    }
    return entity;
}

/* Give the entity as the request defines it, by whatever way it was reached. */
static inline const EntityNode *machine_entity(const Run *run, const EntityNode *entity) {
    return run->overlaid ? machine_defined(run, entity) : entity;
}

/* Why an entity has no such attribute or tag: `code`, or that it must be fetched first. */
static uint32_t machine_lacks(Run *run, const EntityNode *entity, uint32_t code) {
    if (!(entity->flags & NODE_AWAY)) return code;
    run->missing = entity;
    return VM_ERROR_NOT_RESIDENT;
}

/* An entity that was not found in something: 0, or VM_ERROR_NOT_RESIDENT where that is not known. */
static inline int machine_outside(Run *run, const EntityNode *entity) {
    const EntityNode *away = entity_away(run->store, entity);
    if (away == NULL) return 0;
    run->missing = away;
    return -VM_ERROR_NOT_RESIDENT;
}

/* `entity in right`: 0 or 1, or an error's negative: of a right side that is neither an entity nor a set of entities,
   of an entity that must be fetched. */
static int machine_in(Run *run, const EntityNode *entity, const Value *right) {
    const ValueSet *set;
    uint32_t i;
    entity = machine_entity(run, entity);
    if (right->tag == VALUE_ENTITY) return entity_in(run->store, entity, right->entity) ? 1 : machine_outside(run, entity);
    if (right->tag != VALUE_SET) return -VM_ERROR_TYPE;
    set = right->set;
    if (set->count == 0) return 0;
    /* Sets are ordered by kind: the ends tell of all elements, before any is looked at (an element that is no entity
       is an error even when another one matches). */
    if (set->items[0].tag != VALUE_ENTITY || set->items[set->count - 1].tag != VALUE_ENTITY) return -VM_ERROR_TYPE;
    run->steps_left -= set->count; /* looked at by the next instruction that charges */
    for (i = 0; i < set->count; i++)
        if (entity_in(run->store, entity, set->items[i].entity)) return 1;
    return machine_outside(run, entity);
}

static int machine_order(const void *a, const void *b) { return value_compare((const Value *)a, (const Value *)b); }

/* Make the canonical set of `count` values (which are reordered), or NULL when the arena is at its end. */
static const ValueSet *machine_set(Arena *arena, Value *values, uint32_t count) {
    ValueSet *set;
    uint32_t i, j, kept = 0;
    if (count <= 12) {
        for (i = 1; i < count; i++) {
            Value moved = values[i];
            for (j = i; j > 0 && value_compare(&values[j - 1], &moved) > 0; j--) values[j] = values[j - 1];
            values[j] = moved;
        }
    } else {
        qsort(values, count, sizeof(Value), machine_order);
    }
    set = (ValueSet *)arena_take(arena, sizeof(ValueSet) + count * sizeof(Value));
    if (set == NULL) return NULL;
    for (i = 0; i < count; i++)
        if (kept == 0 || !value_equal(&set->items[kept - 1], &values[i])) set->items[kept++] = values[i];
    set->owner = 0;
    set->count = kept;
    return set;
}

static const Record *machine_record(Arena *arena, const Value *values, const ShapeField *shape, uint32_t count) {
    Record *record = (Record *)arena_take(arena, sizeof(Record) + count * sizeof(Field));
    uint32_t i;
    if (record == NULL) return NULL;
    record->owner = 0;
    record->count = count;
    for (i = 0; i < count; i++) {
        record->fields[i].value = values[shape[i].position];
        record->fields[i].key = shape[i].key;
    }
    return record;
}

/* Note how far one of two datetimes must move before they compare otherwise. */
static inline void machine_turns(Run *run, int64_t a, int64_t b) {
    uint64_t apart = a > b ? (uint64_t)a - (uint64_t)b : (uint64_t)b - (uint64_t)a;
    if (apart == 0) apart = 1;
    if (apart < (uint64_t)run->turn_ms) run->turn_ms = (int64_t)apart;
}

/* -1, 0 or 1; 2 where the values have no order (Cedar orders numbers, datetimes and durations, each among its own). */
static inline int machine_compare(Run *run, const Value *a, const Value *b) {
    if (a->tag != b->tag) return 2;
    if (a->tag == VALUE_DATETIME) machine_turns(run, a->number, b->number);
    else if (a->tag != VALUE_LONG && a->tag != VALUE_DURATION) return 2;
    return (a->number > b->number) - (a->number < b->number);
}

#define MACHINE_FAIL(code) do { error = (code); goto failed; } while (0)
#define MACHINE_NEXT() do { at++; goto *labels[at->op]; } while (0)
#define MACHINE_BOOL(value, truth) \
    do { (value)->tag = VALUE_BOOL; (value)->number = (truth); } while (0)
#define MACHINE_CHARGE(steps) \
    do { \
        run->steps_left -= (steps); \
        if (run->steps_left < 0) MACHINE_FAIL(VM_ERROR_STEPS); \
    } while (0)
#define MACHINE_COMPARE(condition) \
    do { \
        int order = machine_compare(run, top - 2, top - 1); \
        if (order == 2) MACHINE_FAIL(VM_ERROR_TYPE); \
        top--; \
        MACHINE_BOOL(top - 1, condition); \
        MACHINE_NEXT(); \
    } while (0)
#define MACHINE_ARITHMETIC(builtin) \
    do { \
        long long number; \
        if (top[-2].tag != VALUE_LONG || top[-1].tag != VALUE_LONG) MACHINE_FAIL(VM_ERROR_TYPE); \
        if (builtin((long long)top[-2].number, (long long)top[-1].number, &number)) MACHINE_FAIL(VM_ERROR_OVERFLOW); \
        top--; \
        top[-1].number = number; \
        MACHINE_NEXT(); \
    } while (0)

static RunOutcome machine_run(Run *run, const BoundProgram *program, uint32_t entry) {
#define MACHINE_LABEL(name, operands, pops, pushes, meaning) &&op_##name,
    static const void *const labels[] = { VM_OPCODES(MACHINE_LABEL) };
#undef MACHINE_LABEL
    Instruction *at = program->code + entry;
    Value *top = run->stack; /* one beyond the uppermost value */
    uint32_t error;

    run->steps_left -= program->code_count;
    if (run->steps_left < 0) MACHINE_FAIL(VM_ERROR_STEPS);
    goto *labels[at->op];

op_SATISFIED:
    run->error = VM_ERROR_NONE;
    return RUN_SATISFIED;

op_RESULT:
    run->result = top[-1];
    run->error = VM_ERROR_NONE;
    return RUN_SATISFIED;

op_CONST:
    *top++ = program->constants[at->c];
    MACHINE_NEXT();

op_LONG:
    top->tag = VALUE_LONG;
    top->number = (int32_t)at->c;
    top++;
    MACHINE_NEXT();

op_BOOL:
    MACHINE_BOOL(top, at->a != 0);
    top++;
    MACHINE_NEXT();

op_VAR:
    *top = run->variables[at->a];
    if (top->tag == VALUE_NONE) MACHINE_FAIL(VM_ERROR_INTERNAL);
    top++;
    MACHINE_NEXT();

op_VAR_ATTR:
    *top++ = run->variables[at->a];
    /* fall through */
op_ATTR: {
    const Value *found;
    if (top[-1].tag == VALUE_ENTITY) {
        const EntityNode *entity = machine_entity(run, top[-1].entity);
        found = machine_find(entity->attributes, at->c, at);
        if (found == NULL)
            MACHINE_FAIL(machine_lacks(run, entity, entity->flags & NODE_EXISTS ? VM_ERROR_NO_ATTRIBUTE : VM_ERROR_NO_ENTITY));
    } else if (top[-1].tag == VALUE_RECORD) {
        found = machine_find(top[-1].record, at->c, at);
        if (found == NULL) MACHINE_FAIL(VM_ERROR_NO_ATTRIBUTE);
    } else {
        MACHINE_FAIL(top[-1].tag == VALUE_NONE ? VM_ERROR_INTERNAL : VM_ERROR_TYPE);
    }
    top[-1] = *found;
    MACHINE_NEXT();
}

op_VAR_HAS:
    *top++ = run->variables[at->a];
    /* fall through */
op_HAS: {
    const Value *found;
    if (top[-1].tag == VALUE_ENTITY) {
        const EntityNode *entity = machine_entity(run, top[-1].entity);
        found = machine_find(entity->attributes, at->c, at);
        if (found == NULL && entity->flags & NODE_AWAY) MACHINE_FAIL(machine_lacks(run, entity, VM_ERROR_INTERNAL));
    } else if (top[-1].tag == VALUE_RECORD) {
        found = machine_find(top[-1].record, at->c, at);
    } else {
        MACHINE_FAIL(top[-1].tag == VALUE_NONE ? VM_ERROR_INTERNAL : VM_ERROR_TYPE);
    }
    MACHINE_BOOL(top - 1, found != NULL);
    MACHINE_NEXT();
}

op_HAS_STEP: {
    const Value *found;
    if (top[-1].tag == VALUE_ENTITY) {
        const EntityNode *entity = machine_entity(run, top[-1].entity);
        found = record_find(entity->attributes, at->c, 0);
        if (found == NULL && entity->flags & NODE_AWAY) MACHINE_FAIL(machine_lacks(run, entity, VM_ERROR_INTERNAL));
    } else if (top[-1].tag == VALUE_RECORD) {
        found = record_find(top[-1].record, at->c, 0);
    } else {
        MACHINE_FAIL(VM_ERROR_TYPE);
    }
    if (found == NULL) {
        MACHINE_BOOL(top - 1, 0);
        at += at->b;
    } else {
        top[-1] = *found;
    }
    MACHINE_NEXT();
}

op_GET_TAG: {
    const EntityNode *entity;
    const Value *found;
    Key key;
    if (top[-2].tag != VALUE_ENTITY || top[-1].tag != VALUE_STRING) MACHINE_FAIL(VM_ERROR_TYPE);
    entity = machine_entity(run, top[-2].entity);
    if (!(entity->flags & NODE_EXISTS)) MACHINE_FAIL(machine_lacks(run, entity, VM_ERROR_NO_ENTITY));
    key = store_key_of(run->store, top[-1].text);
    found = record_find(entity->tags, key, 0);
    if (found == NULL) MACHINE_FAIL(machine_lacks(run, entity, VM_ERROR_NO_TAG));
    top--;
    top[-1] = *found;
    MACHINE_NEXT();
}

op_HAS_TAG: {
    const EntityNode *entity;
    const Value *found;
    if (top[-2].tag != VALUE_ENTITY || top[-1].tag != VALUE_STRING) MACHINE_FAIL(VM_ERROR_TYPE);
    entity = machine_entity(run, top[-2].entity);
    found = record_find(entity->tags, store_key_of(run->store, top[-1].text), 0);
    if (found == NULL && entity->flags & NODE_AWAY) MACHINE_FAIL(machine_lacks(run, entity, VM_ERROR_INTERNAL));
    top--;
    MACHINE_BOOL(top - 1, found != NULL);
    MACHINE_NEXT();
}

op_NOT:
    if (top[-1].tag != VALUE_BOOL) MACHINE_FAIL(VM_ERROR_TYPE);
    top[-1].number = !top[-1].number;
    MACHINE_NEXT();

op_NEGATE:
    if (top[-1].tag != VALUE_LONG) MACHINE_FAIL(VM_ERROR_TYPE);
    if (top[-1].number == INT64_MIN) MACHINE_FAIL(VM_ERROR_OVERFLOW);
    top[-1].number = -top[-1].number;
    MACHINE_NEXT();

op_ADD:
    MACHINE_ARITHMETIC(__builtin_saddll_overflow);
op_SUBTRACT:
    MACHINE_ARITHMETIC(__builtin_ssubll_overflow);
op_MULTIPLY:
    MACHINE_ARITHMETIC(__builtin_smulll_overflow);

op_EQ:
op_NE: {
    int equal;
    if (top[-1].tag == top[-2].tag) MACHINE_CHARGE(machine_weight(top - 1, run->steps_left));
    equal = value_equal(top - 2, top - 1);
    top--;
    MACHINE_BOOL(top - 1, equal == (at->op == OP_EQ));
    MACHINE_NEXT();
}

op_LT:
    MACHINE_COMPARE(order < 0);
op_LE:
    MACHINE_COMPARE(order <= 0);
op_GT:
    MACHINE_COMPARE(order > 0);
op_GE:
    MACHINE_COMPARE(order >= 0);

op_VAR_IN: {
    int inside;
    if (run->variables[at->a].tag != VALUE_ENTITY) MACHINE_FAIL(VM_ERROR_TYPE);
    inside = machine_in(run, run->variables[at->a].entity, &program->constants[at->c]);
    if (inside < 0) MACHINE_FAIL((uint32_t)-inside);
    MACHINE_BOOL(top, inside);
    top++;
    MACHINE_NEXT();
}

op_IN: {
    int inside;
    if (top[-2].tag != VALUE_ENTITY) MACHINE_FAIL(VM_ERROR_TYPE);
    inside = machine_in(run, top[-2].entity, top - 1);
    if (inside < 0) MACHINE_FAIL((uint32_t)-inside);
    top--;
    MACHINE_BOOL(top - 1, inside);
    MACHINE_NEXT();
}

op_CONTAINS: {
    int found;
    if (top[-2].tag != VALUE_SET) MACHINE_FAIL(VM_ERROR_TYPE);
    MACHINE_CHARGE(4 + 24 * machine_weight(top - 1, run->steps_left)); /* once for each step of a binary search */
    found = set_contains(top[-2].set, top - 1);
    top--;
    MACHINE_BOOL(top - 1, found);
    MACHINE_NEXT();
}

op_CONTAINS_ALL:
op_CONTAINS_ANY: {
    const ValueSet *lower, *upper;
    int any = at->op == OP_CONTAINS_ANY, found = !any;
    uint32_t i;
    if (top[-2].tag != VALUE_SET || top[-1].tag != VALUE_SET) MACHINE_FAIL(VM_ERROR_TYPE);
    lower = top[-2].set;
    upper = top[-1].set;
    if (any && upper->count > lower->count) {
        lower = top[-1].set;
        upper = top[-2].set;
    }
    MACHINE_CHARGE((int64_t)upper->count * 4);
    for (i = 0; i < upper->count; i++) MACHINE_CHARGE(24 * machine_weight(&upper->items[i], run->steps_left));
    for (i = 0; i < upper->count; i++)
        if (set_contains(lower, &upper->items[i]) == any) {
            found = any;
            break;
        }
    top--;
    MACHINE_BOOL(top - 1, found);
    MACHINE_NEXT();
}

op_IS_EMPTY:
    if (top[-1].tag != VALUE_SET) MACHINE_FAIL(VM_ERROR_TYPE);
    MACHINE_BOOL(top - 1, top[-1].set->count == 0);
    MACHINE_NEXT();

op_LIKE:
    if (top[-1].tag != VALUE_STRING) MACHINE_FAIL(VM_ERROR_TYPE);
    MACHINE_CHARGE((int64_t)(top[-1].text->length >> 4) * program->patterns[at->c].count);
    MACHINE_BOOL(top - 1, machine_like(top[-1].text, &program->patterns[at->c]));
    MACHINE_NEXT();

op_IS:
    if (top[-1].tag != VALUE_ENTITY) MACHINE_FAIL(VM_ERROR_TYPE);
    MACHINE_BOOL(top - 1, top[-1].entity->type == at->c);
    MACHINE_NEXT();

op_IS_STEP:
    if (top[-1].tag != VALUE_ENTITY) MACHINE_FAIL(VM_ERROR_TYPE);
    if (top[-1].entity->type != at->c) {
        MACHINE_BOOL(top - 1, 0);
        at += at->b;
    }
    MACHINE_NEXT();

op_SET: {
    const ValueSet *set;
    uint32_t i;
    MACHINE_CHARGE((int64_t)at->c * 4);
    top -= at->c;
    for (i = 0; i < at->c; i++) MACHINE_CHARGE(24 * machine_weight(top + i, run->steps_left)); /* sorting */
    set = machine_set(run->arena, top, at->c);
    if (set == NULL) MACHINE_FAIL(VM_ERROR_MEMORY);
    top->tag = VALUE_SET;
    top->set = set;
    top++;
    MACHINE_NEXT();
}

op_RECORD: {
    const Record *record;
    top -= at->b;
    record = machine_record(run->arena, top, program->shapes[at->c], at->b);
    if (record == NULL) MACHINE_FAIL(VM_ERROR_MEMORY);
    top->tag = VALUE_RECORD;
    top->record = record;
    top++;
    MACHINE_NEXT();
}

op_CALL: {
    Value called;
    top -= at->a;
    error = machine_call(at->b, top, at->a, run->arena, &called);
    if (error != VM_ERROR_NONE) goto failed;
    *top++ = called;
    MACHINE_NEXT();
}

op_AND:
    if (top[-1].tag != VALUE_BOOL) MACHINE_FAIL(VM_ERROR_TYPE);
    if (top[-1].number) top--;
    else at += at->c;
    MACHINE_NEXT();

op_OR:
    if (top[-1].tag != VALUE_BOOL) MACHINE_FAIL(VM_ERROR_TYPE);
    if (top[-1].number) at += at->c;
    else top--;
    MACHINE_NEXT();

op_CHECK:
    if (top[-1].tag != VALUE_BOOL) MACHINE_FAIL(VM_ERROR_TYPE);
    MACHINE_NEXT();

op_UNLESS_JUMP:
    if (top[-1].tag != VALUE_BOOL) MACHINE_FAIL(VM_ERROR_TYPE);
    if (!(--top)->number) at += at->c;
    MACHINE_NEXT();

op_JUMP:
    at += at->c;
    MACHINE_NEXT();

op_CLAUSE:
    if (top[-1].tag != VALUE_BOOL) MACHINE_FAIL(VM_ERROR_TYPE);
    top--;
    if (top->number == at->a) goto unsatisfied;
    MACHINE_NEXT();

op_VAR_ATTR_EQ: {
    const Value *found;
    const Value *held = &run->variables[at->a];
    if (held->tag == VALUE_ENTITY) {
        const EntityNode *entity = held->entity;
        found = record_find(entity->attributes, at->c, 0);
        if (found == NULL)
            MACHINE_FAIL(machine_lacks(run, entity, entity->flags & NODE_EXISTS ? VM_ERROR_NO_ATTRIBUTE : VM_ERROR_NO_ENTITY));
    } else if (held->tag == VALUE_RECORD) {
        found = record_find(held->record, at->c, 0);
        if (found == NULL) MACHINE_FAIL(VM_ERROR_NO_ATTRIBUTE);
    } else {
        MACHINE_FAIL(VM_ERROR_INTERNAL);
    }
    if (found->tag == program->constants[at->b].tag)
        MACHINE_CHARGE(machine_weight(&program->constants[at->b], run->steps_left));
    MACHINE_BOOL(top, value_equal(found, &program->constants[at->b]));
    top++;
    MACHINE_NEXT();
}

op_EQ_CLAUSE:
    if (top[-1].tag == top[-2].tag) MACHINE_CHARGE(machine_weight(top - 1, run->steps_left));
    top -= 2;
    if (value_equal(top, top + 1) == at->a) goto unsatisfied;
    MACHINE_NEXT();

unsatisfied:
    run->error = VM_ERROR_NONE;
    run->pc = (uint32_t)(at - program->code);
    return RUN_UNSATISFIED;

failed:
    run->error = error;
    run->pc = (uint32_t)(at - program->code);
    return error >= VM_FAULT_FIRST ? RUN_FAULT : RUN_ERROR;
}

#endif
