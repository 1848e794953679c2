/* Compiled programs as bytes (gateway/policy/compiler/image.py has the format): reading and verifying them.

   Images come from the compiler and from the cache on disk, so nothing in them is believed: after `image_read` and
   `image_verify` every text is UTF-8 within the image, every number is in its range, every jump leads forward into the
   code, and the stack can neither run over nor under. Only then may a program be bound and run. */
#ifndef PORTCULLIS_VM_IMAGE_H
#define PORTCULLIS_VM_IMAGE_H

#include "opcodes.h"
#include "values.h"

typedef struct {
    const uint8_t *at;
    const uint8_t *end;
} Reader;

typedef struct {
    uint32_t code_count, clause_count, key_count, type_count, constant_count, pattern_count, shape_count;
    uint32_t exact_entry, quick_entry;
    uint32_t stack_max; /* values that the program needs */
    int is_policy;      /* ends with SATISFIED, never with RESULT */
    const uint8_t *code, *spans, *clauses;
    const uint8_t *names; /* keys, then types, constants, patterns, shapes, to the end */
    const uint8_t *end;
} Image;

static inline int read_u32(Reader *reader, uint32_t *out) {
    if (reader->end - reader->at < 4) return 0;
    memcpy(out, reader->at, 4); /* little-endian machines only, as the whole core */
    reader->at += 4;
    return 1;
}

static inline int read_text(Reader *reader, const char **bytes, uint32_t *length) {
    if (!read_u32(reader, length) || (size_t)(reader->end - reader->at) < *length) return 0;
    *bytes = (const char *)reader->at;
    reader->at += *length;
    return 1;
}

static int text_is_utf8(const uint8_t *at, uint32_t length) {
    const uint8_t *end = at + length;
    while (at < end) {
        uint8_t first = *at++;
        uint32_t more, code, least;
        if (first < 0x80) continue;
        if (first >= 0xC2 && first <= 0xDF) { more = 1; code = first & 0x1F; least = 0x80; }
        else if ((first & 0xF0) == 0xE0) { more = 2; code = first & 0x0F; least = 0x800; }
        else if (first >= 0xF0 && first <= 0xF4) { more = 3; code = first & 0x07; least = 0x10000; }
        else return 0;
        if ((size_t)(end - at) < more) return 0;
        while (more--) {
            if ((*at & 0xC0) != 0x80) return 0;
            code = code << 6 | (*at++ & 0x3F);
        }
        if (code < least || code > 0x10FFFF || (code >= 0xD800 && code <= 0xDFFF)) return 0;
    }
    return 1;
}

static inline int check_text(Reader *reader) {
    const char *bytes;
    uint32_t length;
    return read_text(reader, &bytes, &length) && text_is_utf8((const uint8_t *)bytes, length);
}

/* Step over one constant; `nesting` receives how deep it is. */
static int check_constant(Reader *reader, uint32_t depth, uint32_t *nesting) {
    uint32_t count, i, inner, deepest = 0;
    uint8_t tag;
    if (depth > VALUE_DEPTH_MAX || reader->at == reader->end) return 0;
    tag = *reader->at++;
    *nesting = 0;
    switch (tag) {
    case VALUE_BOOL:
        return reader->at < reader->end && *reader->at++ <= 1;
    case VALUE_LONG:
    case VALUE_DECIMAL:
    case VALUE_DATETIME:
    case VALUE_DURATION:
        if (reader->end - reader->at < 8) return 0;
        reader->at += 8;
        return 1;
    case VALUE_STRING:
        return check_text(reader);
    case VALUE_ENTITY:
        return check_text(reader) && check_text(reader);
    case VALUE_IP:
        if (reader->end - reader->at < 18) return 0;
        if (!((reader->at[0] == 4 && reader->at[1] <= 32) || (reader->at[0] == 6 && reader->at[1] <= 128))) return 0;
        if (reader->at[0] == 4)
            for (i = 6; i < 18; i++)
                if (reader->at[i]) return 0;
        reader->at += 18;
        return 1;
    case VALUE_SET:
    case VALUE_RECORD:
        if (!read_u32(reader, &count)) return 0;
        for (i = 0; i < count; i++) { /* each takes a byte at least, so a false count soon meets the end */
            if (tag == VALUE_RECORD && !check_text(reader)) return 0;
            if (!check_constant(reader, depth + 1, &inner)) return 0;
            if (inner > deepest) deepest = inner;
        }
        *nesting = deepest + 1;
        return 1;
    default:
        return 0;
    }
}

#define IMAGE_ROUND(size) (((size_t)(size) + 15) & ~(size_t)15)

/* Add up what binding one checked constant takes beyond its Value, in takes of an arena; step over it. */
static size_t measure_constant(Reader *reader) {
    uint32_t count, i, length;
    const char *bytes;
    size_t total = 0;
    uint8_t tag = *reader->at++;
    switch (tag) {
    case VALUE_BOOL:
        reader->at += 1;
        return 0;
    case VALUE_STRING:
        read_text(reader, &bytes, &length);
        return 0;
    case VALUE_ENTITY:
        read_text(reader, &bytes, &length);
        read_text(reader, &bytes, &length);
        return 0;
    case VALUE_IP:
        reader->at += 18;
        return IMAGE_ROUND(sizeof(IpAddress));
    case VALUE_SET:
    case VALUE_RECORD:
        count = 0;
        read_u32(reader, &count);
        for (i = 0; i < count; i++) {
            if (tag == VALUE_RECORD) read_text(reader, &bytes, &length);
            total += measure_constant(reader);
        }
        if (tag == VALUE_RECORD) return total + IMAGE_ROUND(sizeof(Record) + count * sizeof(Field));
        return total + IMAGE_ROUND(sizeof(ValueSet) + count * sizeof(Value));
    default:
        reader->at += 8;
        return 0;
    }
}

/* How many bytes a verified program takes once it is bound: code, constants, patterns, shapes. */
static size_t image_measure(const Image *image) {
    Reader reader;
    uint32_t i, j, count = 0, length;
    const char *bytes;
    size_t total = IMAGE_ROUND(image->code_count * 8) + IMAGE_ROUND(image->constant_count * sizeof(Value)) +
                   IMAGE_ROUND(image->pattern_count * 32) + IMAGE_ROUND(image->shape_count * sizeof(void *)) + 64;
    reader.at = image->names;
    reader.end = image->end;
    for (i = 0; i < image->key_count + image->type_count; i++) read_text(&reader, &bytes, &length);
    for (i = 0; i < image->constant_count; i++) total += measure_constant(&reader);
    for (i = 0; i < image->pattern_count; i++) {
        read_u32(&reader, &count);
        total += IMAGE_ROUND(count * 16);
        for (j = 0; j < count; j++) {
            read_text(&reader, &bytes, &length);
            total += IMAGE_ROUND(length + 1);
        }
    }
    for (i = 0; i < image->shape_count; i++) {
        read_u32(&reader, &count);
        total += IMAGE_ROUND(count * 8 + 1);
        reader.at += (size_t)count * 4;
    }
    return total;
}

/* Read the head and check all tables. Gives NULL, or what is wrong. */
static const char *image_read(const uint8_t *data, size_t size, Image *image, uint8_t *nestings) {
    Reader reader;
    uint32_t magic, format, i, j, count, key, nesting;
    size_t fixed;
    reader.at = data;
    reader.end = data + size;
    if (!read_u32(&reader, &magic) || magic != 0x4D564350u) return "it is no compiled program";
    if (!read_u32(&reader, &format) || format != VM_FORMAT) return "it was compiled by another version";
    if (!(read_u32(&reader, &image->code_count) && read_u32(&reader, &image->clause_count) &&
          read_u32(&reader, &image->key_count) && read_u32(&reader, &image->type_count) &&
          read_u32(&reader, &image->constant_count) && read_u32(&reader, &image->pattern_count) &&
          read_u32(&reader, &image->shape_count) && read_u32(&reader, &image->exact_entry) &&
          read_u32(&reader, &image->quick_entry)))
        return "its head is cut off";
    if (image->code_count == 0) return "it has no instructions";
    if (image->code_count > VM_CODE_MAX) return "it has more than 65535 instructions";
    if (image->clause_count > VM_CODE_MAX) return "it has more than 65535 clauses";
    if (image->exact_entry != 0 || image->quick_entry >= image->code_count) return "an entry lies outside of the code";
    fixed = (size_t)image->code_count * 16 + (size_t)image->clause_count * 12;
    if ((size_t)(reader.end - reader.at) < fixed) return "its code is cut off";
    image->code = reader.at;
    image->spans = image->code + (size_t)image->code_count * 8;
    image->clauses = image->spans + (size_t)image->code_count * 8;
    image->names = image->code + fixed;
    image->end = reader.end;
    reader.at = image->names;
    if (image->constant_count > VM_CODE_MAX * 8u) return "it has too many constants";
    for (i = 0; i < image->key_count; i++)
        if (!check_text(&reader)) return "a name is malformed";
    for (i = 0; i < image->type_count; i++)
        if (!check_text(&reader)) return "a type is malformed";
    for (i = 0; i < image->constant_count; i++) {
        if (!check_constant(&reader, 0, &nesting)) return "a constant is malformed";
        if (nestings != NULL) nestings[i] = (uint8_t)nesting;
    }
    for (i = 0; i < image->pattern_count; i++) {
        if (!read_u32(&reader, &count) || count == 0) return "a pattern is malformed";
        for (j = 0; j < count; j++)
            if (!check_text(&reader)) return "a pattern is malformed";
    }
    for (i = 0; i < image->shape_count; i++) {
        if (!read_u32(&reader, &count) || count > VM_STACK_MAX) return "a shape is malformed";
        for (j = 0; j < count; j++)
            if (!read_u32(&reader, &key) || key >= image->key_count) return "a shape is malformed";
    }
    if (reader.at != reader.end) return "something follows its end";
    return NULL;
}

/* The head of a policy: gateway/policy/compiler/scopes.py. */
static int check_bound(Reader *reader) {
    uint8_t op;
    if (reader->at == reader->end || (op = *reader->at++) > 4) return 0;
    if (op >= 3 && !check_text(reader)) return 0;
    return op == 0 || op == 3 || (check_text(reader) && check_text(reader));
}

static int check_head(Reader *reader) {
    uint32_t count, i;
    if (reader->at == reader->end || *reader->at++ > 1) return 0;
    if (!check_bound(reader) || !check_bound(reader)) return 0;
    if (reader->at == reader->end || *reader->at > 2) return 0;
    if (*reader->at++ != 0) {
        if (!read_u32(reader, &count)) return 0;
        for (i = 0; i < count; i++)
            if (!check_text(reader) || !check_text(reader)) return 0;
    }
    return reader->at == reader->end;
}

typedef struct {
    uint32_t target;
    int32_t floor; /* what lies below stays as it is until the target */
} Region;

typedef struct {
    int32_t *height;    /* at a jump's target: of the stack; else -1 */
    uint8_t *arriving;  /* at a jump's target: how deep the value is that a JUMP brings there */
    uint8_t *nesting;   /* of each value on the stack */
    uint8_t *constants; /* of each constant */
    uint32_t *shapes;   /* count of each shape */
    Region *regions;
} VerifyMemory;

static const uint8_t verify_pops[] = {
#define VERIFY_POPS(name, operands, pops, pushes, meaning) pops,
    VM_OPCODES(VERIFY_POPS)
#undef VERIFY_POPS
};
static const uint8_t verify_pushes[] = {
#define VERIFY_PUSHES(name, operands, pops, pushes, meaning) pushes,
    VM_OPCODES(VERIFY_PUSHES)
#undef VERIFY_PUSHES
};

/* Walk the code once, forward: jumps lead forward only. Gives NULL, or what is wrong at `*where`. */
static const char *verify_walk(Image *image, VerifyMemory *memory, uint32_t *where) {
    uint32_t at, count = image->code_count, regions = 0;
    int32_t height = 0, floor, popped, i;
    int reached = 1;
    image->stack_max = 0;
    image->is_policy = -1;
    for (at = 0; at < count; at++) memory->height[at] = -1, memory->arriving[at] = 0;
    for (at = 0; at < count; at++) {
        Instruction step;
        uint32_t target, nested = 0;
        int jumps = 0, kept = 0;
        memcpy(&step, image->code + (size_t)at * 8, 8);
        *where = at;
        while (regions && memory->regions[regions - 1].target <= at) regions--;
        if (at != 0 && at == image->quick_entry) {
            if (reached || memory->height[at] >= 0 || regions) return "the quick body is entered from above";
            reached = 1;
            height = 0;
        }
        if (memory->height[at] >= 0) {
            if (reached && height != memory->height[at]) return "paths meet with different stacks";
            height = memory->height[at];
            if (height > 0) {
                if (reached && memory->nesting[height - 1] > memory->arriving[at])
                    memory->arriving[at] = memory->nesting[height - 1];
                memory->nesting[height - 1] = memory->arriving[at];
            }
            reached = 1;
        }
        if (!reached) return "an instruction is never reached";
        if (step.op >= OP_COUNT) return "no such instruction";
        floor = regions ? memory->regions[regions - 1].floor : 0;

        popped = verify_pops[step.op];
        if (popped == POPS_COUNT) popped = step.op == OP_SET ? (int32_t)(step.c > VM_STACK_MAX ? VM_STACK_MAX + 1 : step.c)
                                           : step.op == OP_RECORD ? step.b : step.a;
        if (height - popped < floor) return "the stack runs empty";
        switch (step.op) {
        case OP_CONST:
        case OP_VAR_IN:
            if (step.c >= image->constant_count) return "no such constant";
            nested = step.op == OP_CONST ? memory->constants[step.c] : 0;
            if (step.op == OP_VAR_IN && step.a > 2) return "no such variable";
            break;
        case OP_VAR:
            if (step.a > 3) return "no such variable";
            nested = VALUE_DEPTH_MAX;
            break;
        case OP_VAR_ATTR:
        case OP_VAR_HAS:
        case OP_VAR_ATTR_EQ:
            if (step.a > 3) return "no such variable";
            if (step.op == OP_VAR_ATTR_EQ && step.b >= image->constant_count) return "no such constant";
            /* fall through */
        case OP_ATTR:
        case OP_HAS:
        case OP_HAS_STEP:
            if (step.c >= image->key_count) return "no such name";
            if (step.op == OP_ATTR || step.op == OP_VAR_ATTR || step.op == OP_HAS_STEP) nested = VALUE_DEPTH_MAX;
            if (step.op == OP_ATTR || step.op == OP_HAS_STEP)
                if (memory->nesting[height - 1] > nested) nested = memory->nesting[height - 1]; /* of a built record */
            break;
        case OP_GET_TAG:
            nested = VALUE_DEPTH_MAX;
            break;
        case OP_LIKE:
            if (step.c >= image->pattern_count) return "no such pattern";
            break;
        case OP_IS:
        case OP_IS_STEP:
            if (step.c >= image->type_count) return "no such type";
            break;
        case OP_RECORD:
            if (step.c >= image->shape_count || memory->shapes[step.c] != step.b) return "no such shape";
            /* fall through */
        case OP_SET:
            for (i = height - popped; i < height; i++)
                if (memory->nesting[i] > nested) nested = memory->nesting[i];
            if (++nested > VM_NESTING_MAX) return "sets and records are nested too deeply";
            break;
        case OP_CALL:
            if (step.b >= FUNCTION_COUNT) return "no such function";
            break;
        case OP_CLAUSE:
        case OP_EQ_CLAUSE:
            if (step.a > 1 || step.b >= image->clause_count) return "no such clause";
            if (height != popped) return "a clause ends with values left over";
            break;
        case OP_SATISFIED:
            if (image->is_policy == 0) return "a policy and an expression are mixed";
            image->is_policy = 1;
            if (height != 0) return "the policy ends with values left over";
            break;
        case OP_RESULT:
            if (image->is_policy == 1) return "a policy and an expression are mixed";
            image->is_policy = 0;
            if (height != 1) return "the expression ends with values left over";
            break;
        }
        switch (step.op) {
        case OP_AND:
        case OP_OR:
            kept = 1;
            /* fall through */
        case OP_UNLESS_JUMP:
        case OP_JUMP:
            jumps = 1;
            if (step.c >= count || (target = at + 1 + step.c) >= count) return "a jump leads out of the code";
            break;
        case OP_HAS_STEP:
        case OP_IS_STEP:
            jumps = 1;
            if ((target = at + 1 + step.b) >= count) return "a jump leads out of the code";
            break;
        default:
            target = 0;
        }
        height -= popped;
        for (i = 0; i < verify_pushes[step.op]; i++) {
            if (height >= VM_STACK_MAX) return "it needs more than 4096 values at once";
            if (step.op != OP_IS_STEP) memory->nesting[height] = (uint8_t)nested;
            height++;
        }
        if ((uint32_t)height > image->stack_max) image->stack_max = (uint32_t)height;
        if (jumps) {
            int32_t landing = height + kept;
            int32_t under = landing - 1; /* the floor: what a branch may replace is the uppermost value at its end */
            if (step.op == OP_UNLESS_JUMP) under = height;
            if (under < 0) return "the stack runs empty";
            if (step.op != OP_UNLESS_JUMP && landing < 1) return "the stack runs empty";
            if (target <= image->quick_entry && at >= image->quick_entry && image->quick_entry) return "a jump leads back";
            if (at < image->quick_entry && target >= image->quick_entry) return "a jump leads into the quick body";
            while (regions && memory->regions[regions - 1].target <= at + 1) regions--;
            if (regions && memory->regions[regions - 1].target < target) return "jumps cross";
            if (under < (regions ? memory->regions[regions - 1].floor : 0)) return "the stack runs empty";
            memory->regions[regions].target = target;
            memory->regions[regions].floor = under;
            regions++;
            if (memory->height[target] >= 0 && memory->height[target] != landing) return "paths meet with different stacks";
            memory->height[target] = landing;
            if (step.op == OP_JUMP && memory->nesting[height - 1] > memory->arriving[target])
                memory->arriving[target] = memory->nesting[height - 1];
            /* UNLESS_JUMP lands with the values that lie below; their depth stays what it is. */
            if (step.op == OP_UNLESS_JUMP && landing > 0 && memory->nesting[landing - 1] > memory->arriving[target])
                memory->arriving[target] = memory->nesting[landing - 1];
        }
        if (step.op == OP_JUMP || step.op == OP_SATISFIED || step.op == OP_RESULT) reached = 0;
    }
    if (reached) return "the code runs off its end";
    return NULL;
}

static const char *image_verify(const uint8_t *data, size_t size, Image *image, uint32_t *where) {
    VerifyMemory memory;
    const char *wrong;
    char *block;
    Reader reader;
    uint32_t i, j, count;
    const char *bytes;
    size_t code, constants, shapes;
    *where = 0;
    wrong = image_read(data, size, image, NULL);
    if (wrong != NULL) return wrong;
    code = image->code_count;
    constants = image->constant_count;
    shapes = image->shape_count;
    block = (char *)malloc(code * (4 + 1 + sizeof(Region)) + constants + shapes * 4 + VM_STACK_MAX + 64);
    if (block == NULL) return "there is no memory to check it";
    memory.regions = (Region *)block;
    memory.height = (int32_t *)(block + code * sizeof(Region));
    memory.shapes = (uint32_t *)(memory.height + code);
    memory.arriving = (uint8_t *)(memory.shapes + shapes);
    memory.constants = memory.arriving + code;
    memory.nesting = memory.constants + constants;
    image_read(data, size, image, memory.constants);
    reader.at = image->names;
    reader.end = image->end;
    for (i = 0; i < image->key_count + image->type_count; i++) read_text(&reader, &bytes, &count);
    for (i = 0; i < constants; i++) check_constant(&reader, 0, &count);
    for (i = 0; i < image->pattern_count; i++) {
        uint32_t pieces;
        read_u32(&reader, &pieces);
        for (j = 0; j < pieces; j++) read_text(&reader, &bytes, &count);
    }
    for (i = 0; i < shapes; i++) {
        read_u32(&reader, &count);
        memory.shapes[i] = count;
        reader.at += (size_t)count * 4;
    }
    wrong = verify_walk(image, &memory, where);
    free(block);
    return wrong;
}

#endif
