/* Cedar's extension types in C: parsers over (bytes, length), and operations that tell of overflow. No Python, no memory.

   What is accepted is what Cedar 4 accepts (docs.cedarpolicy.com, "Data types"): one value may have several spellings
   here (`1.0` and `1.00`), but nothing is guessed. All give 1 for success, 0 for a failure. */
#ifndef PORTCULLIS_EXTENSIONS_H
#define PORTCULLIS_EXTENSIONS_H

#include <stddef.h>
#include <stdint.h>
#include <string.h>

#define MS_PER_SECOND ((int64_t)1000)
#define MS_PER_MINUTE (60 * MS_PER_SECOND)
#define MS_PER_HOUR (60 * MS_PER_MINUTE)
#define MS_PER_DAY (24 * MS_PER_HOUR)

enum { ADDRESS_TEXT_MAX = 43 }; /* bytes of the longest spelling: 39 of an IPv6 address, `/`, three digits */

typedef struct {
    const char *at;
    const char *end;
} Cursor;

static inline int cursor_digit(const Cursor *c) { return c->at < c->end && *c->at >= '0' && *c->at <= '9'; }

static inline int cursor_take(Cursor *c, char wanted) {
    if (c->at < c->end && *c->at == wanted) {
        c->at++;
        return 1;
    }
    return 0;
}

/* Read exactly `count` digits. */
static inline int cursor_number(Cursor *c, int count, int64_t *out) {
    int i;
    *out = 0;
    for (i = 0; i < count; i++) {
        if (!cursor_digit(c)) return 0;
        *out = *out * 10 + (*c->at++ - '0');
    }
    return 1;
}

/* --- decimal: `-?[0-9]+\.[0-9]{1,4}`, 64 bits of units of 0.0001 -------------------------------------------------- */

static int decimal_parse(const char *bytes, size_t length, int64_t *out) {
    Cursor c = {bytes, bytes + length};
    int negative = cursor_take(&c, '-'), digits = 0, i;
    __int128 value = 0;
    if (!cursor_digit(&c)) return 0;
    while (cursor_digit(&c)) {
        value = value * 10 + (*c.at++ - '0');
        if (value > ((__int128)1 << 64)) return 0;
    }
    if (!cursor_take(&c, '.')) return 0;
    while (cursor_digit(&c)) {
        if (++digits > 4) return 0;
        value = value * 10 + (*c.at++ - '0');
    }
    if (digits == 0 || c.at != c.end) return 0;
    for (i = digits; i < 4; i++) value *= 10;
    if (negative) value = -value;
    if (value < INT64_MIN || value > INT64_MAX) return 0;
    *out = (int64_t)value;
    return 1;
}

/* --- ip: an address with an optional prefix ---------------------------------------------------------------------- */

static int address_parse_v4(Cursor *c, uint8_t *out) {
    int i;
    for (i = 0; i < 4; i++) {
        const char *start = c->at;
        int value = 0;
        if (i > 0 && !cursor_take(c, '.')) return 0;
        start = c->at;
        while (cursor_digit(c) && c->at - start < 3) value = value * 10 + (*c->at++ - '0');
        if (c->at == start || value > 255) return 0;
        if (*start == '0' && c->at - start > 1) return 0; /* a leading zero might mean octal */
        out[i] = (uint8_t)value;
    }
    return 1;
}

static inline int hex_value(char c) {
    if (c >= '0' && c <= '9') return c - '0';
    if (c >= 'a' && c <= 'f') return c - 'a' + 10;
    if (c >= 'A' && c <= 'F') return c - 'A' + 10;
    return -1;
}

/* Read up to `most` groups between colons; give how many. */
static int address_groups(Cursor *c, uint16_t *out, int most) {
    int count = 0;
    while (count < most) {
        const char *start = c->at;
        int value = 0, digits = 0;
        if (count > 0 && !cursor_take(c, ':')) break;
        while (c->at < c->end && hex_value(*c->at) >= 0 && digits < 4) {
            value = value * 16 + hex_value(*c->at++);
            digits++;
        }
        if (digits == 0) {
            c->at = start;
            break;
        }
        out[count++] = (uint16_t)value;
    }
    return count;
}

static int address_parse_v6(Cursor *c, uint8_t *out) {
    uint16_t groups[8] = {0}, tail[7];
    int head_count = address_groups(c, groups, 8), tail_count, i;
    if (head_count < 8) {
        if (c->end - c->at < 2 || c->at[0] != ':' || c->at[1] != ':') return 0;
        c->at += 2; /* `::` stands for one group of zeros at least */
        tail_count = address_groups(c, tail, 7 - head_count);
        for (i = 0; i < tail_count; i++) groups[8 - tail_count + i] = tail[i];
    }
    for (i = 0; i < 8; i++) {
        out[2 * i] = (uint8_t)(groups[i] >> 8);
        out[2 * i + 1] = (uint8_t)groups[i];
    }
    return 1;
}

static int address_parse(const char *bytes, size_t length, uint8_t *version, uint8_t *prefix, uint8_t *out) {
    Cursor c = {bytes, bytes + length};
    int64_t wanted;
    memset(out, 0, 16);
    if (length > ADDRESS_TEXT_MAX) return 0;
    if (memchr(bytes, ':', length) != NULL) {
        if (memchr(bytes, '.', length) != NULL || !address_parse_v6(&c, out)) return 0; /* no IPv4 within IPv6 */
        *version = 6;
        *prefix = 128;
    } else {
        if (!address_parse_v4(&c, out)) return 0;
        *version = 4;
        *prefix = 32;
    }
    if (c.at == c.end) return 1;
    if (!cursor_take(&c, '/') || c.end - c.at < 1 || c.end - c.at > (*version == 4 ? 2 : 3)) return 0;
    if (*c.at == '0' && c.end - c.at > 1) return 0;
    if (!cursor_number(&c, (int)(c.end - c.at), &wanted) || wanted > *prefix) return 0;
    *prefix = (uint8_t)wanted;
    return 1;
}

static int address_is_loopback(uint8_t version, uint8_t prefix, const uint8_t *bytes) {
    static const uint8_t one[16] = {0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1};
    return version == 4 ? bytes[0] == 127 && prefix >= 8 : prefix == 128 && memcmp(bytes, one, 16) == 0;
}

static int address_is_multicast(uint8_t version, uint8_t prefix, const uint8_t *bytes) {
    return version == 4 ? (bytes[0] & 0xF0) == 0xE0 && prefix >= 4 : bytes[0] == 0xFF && prefix >= 8;
}

static int address_in_range(
    uint8_t version, uint8_t prefix, const uint8_t *bytes, uint8_t range_version, uint8_t range_prefix, const uint8_t *range
) {
    int whole = range_prefix / 8, rest = range_prefix % 8;
    if (version != range_version || prefix < range_prefix) return 0;
    if (memcmp(bytes, range, (size_t)whole) != 0) return 0;
    return rest == 0 || ((bytes[whole] ^ range[whole]) & (0xFF << (8 - rest)) & 0xFF) == 0;
}

/* --- datetime: `YYYY-MM-DD`, `…Thh:mm:ss[.SSS](Z|±hhmm)` ----------------------------------------------------------- */

/* Days since 1970-01-01 of a date of the proleptic Gregorian calendar. */
static int64_t date_days(int64_t year, int64_t month, int64_t day) {
    int64_t y = month <= 2 ? year - 1 : year, era = (y >= 0 ? y : y - 399) / 400, of_era = y - era * 400;
    int64_t of_year = (153 * (month + (month > 2 ? -3 : 9)) + 2) / 5 + day - 1;
    return era * 146097 + of_era * 365 + of_era / 4 - of_era / 100 + of_year - 719468;
}

static void date_of_days(int64_t days, int64_t *year, int64_t *month, int64_t *day) {
    int64_t shifted = days + 719468, era = (shifted >= 0 ? shifted : shifted - 146096) / 146097;
    int64_t of_era = shifted - era * 146097;
    int64_t years = (of_era - of_era / 1460 + of_era / 36524 - of_era / 146096) / 365;
    int64_t of_year = of_era - (365 * years + years / 4 - years / 100), shifted_month = (5 * of_year + 2) / 153;
    *day = of_year - (153 * shifted_month + 2) / 5 + 1;
    *month = shifted_month + (shifted_month < 10 ? 3 : -9);
    *year = years + era * 400 + (*month <= 2);
}

static int64_t days_of_month(int64_t year, int64_t month) {
    static const int8_t days[12] = {31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31};
    int leap = (year % 4 == 0 && year % 100 != 0) || year % 400 == 0;
    return month == 2 && leap ? 29 : days[month - 1];
}

static int datetime_parse(const char *bytes, size_t length, int64_t *out) {
    Cursor c = {bytes, bytes + length};
    int64_t year, month, day, hour, minute, second, ms = 0, offset_hour = 0, offset_minute = 0;
    int sign = 0;
    if (!cursor_number(&c, 4, &year) || !cursor_take(&c, '-') || !cursor_number(&c, 2, &month) ||
        !cursor_take(&c, '-') || !cursor_number(&c, 2, &day))
        return 0;
    if (month < 1 || month > 12 || day < 1 || day > days_of_month(year, month)) return 0;
    *out = date_days(year, month, day) * MS_PER_DAY;
    if (c.at == c.end) return 1;
    if (!cursor_take(&c, 'T') || !cursor_number(&c, 2, &hour) || !cursor_take(&c, ':') ||
        !cursor_number(&c, 2, &minute) || !cursor_take(&c, ':') || !cursor_number(&c, 2, &second))
        return 0;
    if (hour > 23 || minute > 59 || second > 59) return 0;
    if (cursor_take(&c, '.') && !cursor_number(&c, 3, &ms)) return 0;
    if (!cursor_take(&c, 'Z')) {
        sign = cursor_take(&c, '+') ? 1 : cursor_take(&c, '-') ? -1 : 0;
        if (sign == 0 || !cursor_number(&c, 2, &offset_hour) || !cursor_number(&c, 2, &offset_minute)) return 0;
        if (offset_hour > 23 || offset_minute > 59) return 0;
    }
    if (c.at != c.end) return 0;
    *out += hour * MS_PER_HOUR + minute * MS_PER_MINUTE + second * MS_PER_SECOND + ms;
    *out -= sign * (offset_hour * MS_PER_HOUR + offset_minute * MS_PER_MINUTE);
    return 1;
}

/* The day that a moment lies in, as a moment: rounds down, also before 1970. */
static int datetime_to_date(int64_t ms, int64_t *out) {
    int64_t rest = ms % MS_PER_DAY;
    if (rest < 0) rest += MS_PER_DAY;
    return !__builtin_sub_overflow(ms, rest, out);
}

static int64_t datetime_to_time(int64_t ms) {
    int64_t rest = ms % MS_PER_DAY;
    return rest < 0 ? rest + MS_PER_DAY : rest;
}

/* --- duration: `-?` and days, hours, minutes, seconds, milliseconds in this order, at least one of them ------------ */

static int duration_parse(const char *bytes, size_t length, int64_t *out) {
    static const struct {
        const char *name;
        int64_t ms;
    } units[] = {{"d", MS_PER_DAY}, {"h", MS_PER_HOUR}, {"m", MS_PER_MINUTE}, {"s", MS_PER_SECOND}, {"ms", 1}};
    Cursor c = {bytes, bytes + length};
    int negative = cursor_take(&c, '-'), unit = 0;
    __int128 total = 0, limit = (__int128)1 << 63;
    if (c.at == c.end) return 0;
    while (c.at < c.end) {
        __int128 value = 0;
        size_t name_length = 0;
        if (!cursor_digit(&c)) return 0;
        while (cursor_digit(&c)) {
            value = value * 10 + (*c.at++ - '0');
            if (value > limit) return 0;
        }
        while (c.at + name_length < c.end && !(c.at[name_length] >= '0' && c.at[name_length] <= '9')) name_length++;
        while (unit < 5 && !(strlen(units[unit].name) == name_length && memcmp(units[unit].name, c.at, name_length) == 0))
            unit++;
        if (unit == 5) return 0;
        c.at += name_length;
        total += value * units[unit++].ms;
        if (total > limit) return 0;
    }
    if (negative) total = -total;
    if (total > INT64_MAX) return 0;
    *out = (int64_t)total;
    return 1;
}

#endif
