/* The instruction set of the policy machine: the one list.

   It feeds the enum below, the dispatch table of `vm_machine.h`, the verifier and disassembler in `vm.pyx`
   (`portcullis policy compile --listing`) and the docs (`gateway._native.vm.OPCODES`).

   An instruction is 8 bytes, { u8 op, u8 a, u16 b, u32 c }. Columns: name; what its operands mean; how many values it
   pops; how many it pushes; what it does. Operands by letter:
     key c     number of an attribute's name        const c   number of a constant
     type c    number of a type's name              pattern c number of a pattern of `like`
     var a     0 principal, 1 action, 2 resource, 3 context
     jump c    so many instructions beyond the next one: code runs forward only, so every program ends
     count c   how many values it takes from the stack
   "boolean" in a meaning is a check: anything else is a type error. */
#ifndef PORTCULLIS_OPCODES_H
#define PORTCULLIS_OPCODES_H

#include <stdint.h>

typedef struct {
    uint8_t op;
    uint8_t a;
    uint16_t b;
    uint32_t c;
} Instruction;

enum { POPS_COUNT = 255 }; /* pops as many values as `c` says (RECORD: as `b`, CALL: as `a`) */

/* ORDER OP: the numbers are in compiled files on disk; a change here needs a new VM_FORMAT. */
#define VM_OPCODES(X) \
    X(SATISFIED, "", 0, 0, "end of a policy: every clause held") \
    X(RESULT, "", 1, 0, "end of an expression: its value is the result") \
    X(CONST, "const c", 0, 1, "push a constant") \
    X(LONG, "number c", 0, 1, "push a signed number of 32 bits") \
    X(BOOL, "flag a", 0, 1, "push true or false") \
    X(VAR, "var a", 0, 1, "push a variable of the request") \
    X(ATTR, "key c", 1, 1, "replace an entity or record by its attribute") \
    X(HAS, "key c", 1, 1, "push whether an entity or record has the attribute") \
    X(HAS_STEP, "jump b, key c", 1, 1, "replace by the attribute; where it is absent by false, then jump") \
    X(GET_TAG, "", 2, 1, "replace an entity and a name by the entity's tag") \
    X(HAS_TAG, "", 2, 1, "replace an entity and a name by whether the entity has the tag") \
    X(NOT, "", 1, 1, "turn a boolean round") \
    X(NEGATE, "", 1, 1, "negate a number; overflow is an error") \
    X(ADD, "", 2, 1, "add two numbers; overflow is an error") \
    X(SUBTRACT, "", 2, 1, "subtract the upper number from the lower; overflow is an error") \
    X(MULTIPLY, "", 2, 1, "multiply two numbers; overflow is an error") \
    X(EQ, "", 2, 1, "push whether two values are equal; values of different kinds are not") \
    X(NE, "", 2, 1, "push whether two values differ") \
    X(LT, "", 2, 1, "lower < upper, of two numbers, datetimes or durations") \
    X(LE, "", 2, 1, "lower <= upper") \
    X(GT, "", 2, 1, "lower > upper") \
    X(GE, "", 2, 1, "lower >= upper") \
    X(IN, "", 2, 1, "push whether an entity is, or is below, an entity or one of a set of entities") \
    X(CONTAINS, "", 2, 1, "push whether the lower, a set, has the upper as an element") \
    X(CONTAINS_ALL, "", 2, 1, "push whether the lower set has all elements of the upper") \
    X(CONTAINS_ANY, "", 2, 1, "push whether the sets share an element") \
    X(IS_EMPTY, "", 1, 1, "push whether a set has no elements") \
    X(LIKE, "pattern c", 1, 1, "push whether a string matches the pattern") \
    X(IS, "type c", 1, 1, "push whether an entity is of the type") \
    X(IS_STEP, "jump b, type c", 1, 1, "keep an entity of the type; replace another by false, then jump") \
    X(SET, "count c", POPS_COUNT, 1, "make a set of the upper values") \
    X(RECORD, "count b, shape c", POPS_COUNT, 1, "make a record of the upper values under the names of the shape") \
    X(CALL, "count a, function b", POPS_COUNT, 1, "call an extension function") \
    X(AND, "jump c", 1, 0, "boolean; false: keep it and jump; true: drop it and go on") \
    X(OR, "jump c", 1, 0, "boolean; true: keep it and jump; false: drop it and go on") \
    X(CHECK, "", 1, 1, "boolean") \
    X(UNLESS_JUMP, "jump c", 1, 0, "pop a boolean; jump where it is false") \
    X(JUMP, "jump c", 0, 0, "jump") \
    X(CLAUSE, "negated a, clause b", 1, 0, "pop a boolean; the policy ends unsatisfied where it is `a`") \
    X(VAR_ATTR, "var a, key c", 0, 1, "VAR a, ATTR c") \
    X(VAR_HAS, "var a, key c", 0, 1, "VAR a, HAS c") \
    X(VAR_IN, "var a, const c", 0, 1, "VAR a, CONST c, IN") \
    X(VAR_ATTR_EQ, "var a, const b, key c", 0, 1, "VAR a, ATTR c, CONST b, EQ") \
    X(EQ_CLAUSE, "negated a, clause b", 2, 0, "EQ, CLAUSE a b")

#define VM_OPCODE_ENUM(name, operands, pops, pushes, meaning) OP_##name,
enum { VM_OPCODES(VM_OPCODE_ENUM) OP_COUNT };
#undef VM_OPCODE_ENUM

/* Why an expression has no value. Cedar's evaluation errors; the names are `EvaluationError.code`. */
#define VM_ERRORS(X) \
    X(NONE, "none", "no error") \
    X(TYPE, "type_error", "an operand is of the wrong type") \
    X(OVERFLOW, "integer_overflow", "a number beyond 64 bits") \
    X(NO_ATTRIBUTE, "missing_attribute", "the entity or record has no such attribute") \
    X(NO_TAG, "missing_tag", "the entity has no such tag") \
    X(NO_ENTITY, "missing_entity", "the entity is not defined") \
    X(EXTENSION, "extension_error", "an extension function refused its arguments") \
    X(STEPS, "steps_limit", "evaluating took more steps than a decision may take") \
    X(MEMORY, "memory_limit", "evaluating took more memory than a decision may take") \
    X(INTERNAL, "internal_fault", "the machine met a state that cannot be") \
    X(NOT_RESIDENT, "entity_not_resident", "an entity is kept elsewhere, and was not fetched")

#define VM_ERROR_ENUM(name, code, meaning) VM_ERROR_##name,
enum { VM_ERRORS(VM_ERROR_ENUM) VM_ERROR_COUNT };
#undef VM_ERROR_ENUM
enum { VM_FAULT_FIRST = VM_ERROR_STEPS }; /* from here on: no property of the policy, so the whole decision denies */

/* Extension functions: name in Cedar, name in C, number of arguments. ORDER FUNCTION: as with ORDER OP. */
#define VM_FUNCTIONS(X) \
    X(decimal, 1) X(lessThan, 2) X(lessThanOrEqual, 2) X(greaterThan, 2) X(greaterThanOrEqual, 2) \
    X(ip, 1) X(isIpv4, 1) X(isIpv6, 1) X(isLoopback, 1) X(isMulticast, 1) X(isInRange, 2) \
    X(datetime, 1) X(duration, 1) X(offset, 2) X(durationSince, 2) X(toDate, 1) X(toTime, 1) \
    X(toMilliseconds, 1) X(toSeconds, 1) X(toMinutes, 1) X(toHours, 1) X(toDays, 1)

#define VM_FUNCTION_ENUM(name, count) FUNCTION_##name,
enum { VM_FUNCTIONS(VM_FUNCTION_ENUM) FUNCTION_COUNT };
#undef VM_FUNCTION_ENUM

enum {
    VM_FORMAT = 1,          /* of compiled programs; another number is another compiler's */
    VM_CODE_MAX = 65535,    /* instructions of one program: jumps of 16 bits reach everywhere */
    VM_STACK_MAX = 4096,    /* values */
    VM_NESTING_MAX = 192,   /* of sets and records that a program can build, constants and attributes included */
    VM_STEPS_MAX = 4000000, /* of one decision: some tens of milliseconds */
    VM_MEMORY_MAX = 4 << 20 /* bytes of one decision: its context, and what its programs build */
};

#endif
