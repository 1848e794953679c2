/* Extension functions as the machine calls them: kinds of the arguments, the function of `extensions.h`, the result. */
#ifndef PORTCULLIS_VM_CALLS_H
#define PORTCULLIS_VM_CALLS_H

#include "extensions.h"
#include "opcodes.h"
#include "values.h"

static const uint8_t function_arguments[] = {
#define VM_FUNCTION_ARGUMENTS(name, count) count,
    VM_FUNCTIONS(VM_FUNCTION_ARGUMENTS)
#undef VM_FUNCTION_ARGUMENTS
};

static inline uint32_t call_bool(Value *out, int truth) {
    out->tag = VALUE_BOOL;
    out->number = truth != 0;
    return VM_ERROR_NONE;
}

static inline uint32_t call_number(Value *out, ValueTag tag, int64_t number) {
    out->tag = (uint8_t)tag;
    out->number = number;
    return VM_ERROR_NONE;
}

static uint32_t call_ip(const Value *argument, Arena *arena, Value *out) {
    IpAddress *ip;
    if (argument->tag != VALUE_STRING) return VM_ERROR_TYPE;
    ip = (IpAddress *)arena_take(arena, sizeof(IpAddress));
    if (ip == NULL) return VM_ERROR_MEMORY;
    ip->owner = 0;
    if (!address_parse(argument->text->bytes, argument->text->length, &ip->version, &ip->prefix, ip->bytes))
        return VM_ERROR_EXTENSION;
    out->tag = VALUE_IP;
    out->ip = ip;
    return VM_ERROR_NONE;
}

/* Call `function` with `count` values: VM_ERROR_NONE and a value in `out`, or what is wrong. */
static uint32_t machine_call(uint32_t function, const Value *values, uint32_t count, Arena *arena, Value *out) {
    const Value *a = values, *b = values + 1;
    int64_t number;
    if (count != function_arguments[function]) return VM_ERROR_EXTENSION;
    switch (function) {
    case FUNCTION_decimal:
        if (a->tag != VALUE_STRING) return VM_ERROR_TYPE;
        if (!decimal_parse(a->text->bytes, a->text->length, &number)) return VM_ERROR_EXTENSION;
        return call_number(out, VALUE_DECIMAL, number);
    case FUNCTION_datetime:
        if (a->tag != VALUE_STRING) return VM_ERROR_TYPE;
        if (!datetime_parse(a->text->bytes, a->text->length, &number)) return VM_ERROR_EXTENSION;
        return call_number(out, VALUE_DATETIME, number);
    case FUNCTION_duration:
        if (a->tag != VALUE_STRING) return VM_ERROR_TYPE;
        if (!duration_parse(a->text->bytes, a->text->length, &number)) return VM_ERROR_EXTENSION;
        return call_number(out, VALUE_DURATION, number);
    case FUNCTION_ip:
        return call_ip(a, arena, out);

    case FUNCTION_lessThan:
    case FUNCTION_lessThanOrEqual:
    case FUNCTION_greaterThan:
    case FUNCTION_greaterThanOrEqual:
        if (a->tag != VALUE_DECIMAL || b->tag != VALUE_DECIMAL) return VM_ERROR_TYPE;
        if (function == FUNCTION_lessThan) return call_bool(out, a->number < b->number);
        if (function == FUNCTION_lessThanOrEqual) return call_bool(out, a->number <= b->number);
        if (function == FUNCTION_greaterThan) return call_bool(out, a->number > b->number);
        return call_bool(out, a->number >= b->number);

    case FUNCTION_isIpv4:
        return a->tag == VALUE_IP ? call_bool(out, a->ip->version == 4) : VM_ERROR_TYPE;
    case FUNCTION_isIpv6:
        return a->tag == VALUE_IP ? call_bool(out, a->ip->version == 6) : VM_ERROR_TYPE;
    case FUNCTION_isLoopback:
        if (a->tag != VALUE_IP) return VM_ERROR_TYPE;
        return call_bool(out, address_is_loopback(a->ip->version, a->ip->prefix, a->ip->bytes));
    case FUNCTION_isMulticast:
        if (a->tag != VALUE_IP) return VM_ERROR_TYPE;
        return call_bool(out, address_is_multicast(a->ip->version, a->ip->prefix, a->ip->bytes));
    case FUNCTION_isInRange:
        if (a->tag != VALUE_IP || b->tag != VALUE_IP) return VM_ERROR_TYPE;
        return call_bool(out, address_in_range(a->ip->version, a->ip->prefix, a->ip->bytes, b->ip->version, b->ip->prefix,
                                               b->ip->bytes));

    case FUNCTION_offset:
        if (a->tag != VALUE_DATETIME || b->tag != VALUE_DURATION) return VM_ERROR_TYPE;
        if (__builtin_add_overflow(a->number, b->number, &number)) return VM_ERROR_EXTENSION;
        return call_number(out, VALUE_DATETIME, number);
    case FUNCTION_durationSince:
        if (a->tag != VALUE_DATETIME || b->tag != VALUE_DATETIME) return VM_ERROR_TYPE;
        if (__builtin_sub_overflow(a->number, b->number, &number)) return VM_ERROR_EXTENSION;
        return call_number(out, VALUE_DURATION, number);
    case FUNCTION_toDate:
        if (a->tag != VALUE_DATETIME) return VM_ERROR_TYPE;
        if (!datetime_to_date(a->number, &number)) return VM_ERROR_EXTENSION;
        return call_number(out, VALUE_DATETIME, number);
    case FUNCTION_toTime:
        if (a->tag != VALUE_DATETIME) return VM_ERROR_TYPE;
        return call_number(out, VALUE_DURATION, datetime_to_time(a->number));

    case FUNCTION_toMilliseconds:
    case FUNCTION_toSeconds:
    case FUNCTION_toMinutes:
    case FUNCTION_toHours:
    case FUNCTION_toDays: {
        static const int64_t units[] = {1, MS_PER_SECOND, MS_PER_MINUTE, MS_PER_HOUR, MS_PER_DAY};
        if (a->tag != VALUE_DURATION) return VM_ERROR_TYPE;
        return call_number(out, VALUE_LONG, a->number / units[function - FUNCTION_toMilliseconds]);
    }
    default:
        return VM_ERROR_INTERNAL;
    }
}

#endif
