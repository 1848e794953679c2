/* What json_scan.pyx needs of the machine: long looks at text, one multiplication, and numbers without a locale. */
#ifndef PORTCULLIS_JSON_SCAN_TEXT_H
#define PORTCULLIS_JSON_SCAN_TEXT_H

#include <float.h>
#include <locale.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#if defined(__APPLE__) || defined(__FreeBSD__)
#include <xlocale.h>
#endif
#if defined(__SSE2__)
#include <emmintrin.h>
#endif

static inline int js_is_plain(unsigned char c) { return c >= 0x20 && c < 0x80 && c != '"' && c != '\\'; }

/* Give the first byte of p[0:end] that ends a run of plain string text: a quote, a backslash, a control byte or one
 * beyond ASCII; `end` where there is none. Reads only inside start[0:end], where start <= p <= end.
 * Goal: one 16-byte look for most strings. The last look of a text is moved back so that it ends at `end`; the bytes
 * before p that it sees again are shifted out. */
static inline const char *js_plain_end(const char *p, const char *end, const char *start) {
#if defined(__SSE2__)
    const __m128i quote = _mm_set1_epi8('"');
    const __m128i backslash = _mm_set1_epi8('\\');
    const __m128i space = _mm_set1_epi8(0x20);
#define JS_STOPS(v)                                                                                                    \
    /* Signed: bytes from 0x80 up are negative, so one comparison finds them and the controls. */                      \
    ((unsigned)_mm_movemask_epi8(_mm_or_si128(_mm_or_si128(_mm_cmpeq_epi8(v, quote), _mm_cmpeq_epi8(v, backslash)),     \
                                              _mm_cmplt_epi8(v, space))))
    while (end - p >= 16) {
        __m128i look = _mm_loadu_si128((const __m128i *)p);
        unsigned stops = JS_STOPS(look);
        if (stops)
            return p + __builtin_ctz(stops);
        p += 16;
    }
    if (p < end && end - start >= 16) {
        __m128i look = _mm_loadu_si128((const __m128i *)(end - 16));
        unsigned stops = JS_STOPS(look) >> (16 - (end - p));
        return stops ? p + __builtin_ctz(stops) : end;
    }
#undef JS_STOPS
#elif defined(__BYTE_ORDER__) && __BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__
    /* Eight bytes in one word. A borrow may mark a byte above a true stop too, never below it: the lowest mark counts.
     */
    const uint64_t ones = 0x0101010101010101u, tops = 0x8080808080808080u;
    (void)start;
    while (end - p >= 8) {
        uint64_t v, quote, backslash, stops;
        memcpy(&v, p, 8);
        quote = v ^ (ones * '"');
        backslash = v ^ (ones * '\\');
        stops = (((quote - ones) & ~quote) | ((backslash - ones) & ~backslash) | (v - ones * 0x20) | v) & tops;
        if (stops)
            return p + (__builtin_ctzll(stops) >> 3);
        p += 8;
    }
#else
    (void)start;
#endif
    while (p < end && js_is_plain((unsigned char)*p))
        p++;
    return p;
}

/* Give the length of the UTF-8 sequence at p (a byte beyond ASCII), or 0 where there is none: RFC 3629 §4, so no
 * overlong form, no surrogate, nothing above U+10FFFF. */
static inline int js_utf8_sequence(const char *p, const char *end) {
    const unsigned char *u = (const unsigned char *)p;
    ptrdiff_t left = end - p;
    if (u[0] < 0xC2)
        return 0;
    if (u[0] < 0xE0)
        return left >= 2 && (u[1] & 0xC0) == 0x80 ? 2 : 0;
    if (u[0] < 0xF0) {
        if (left < 3 || (u[1] & 0xC0) != 0x80 || (u[2] & 0xC0) != 0x80)
            return 0;
        if ((u[0] == 0xE0 && u[1] < 0xA0) || (u[0] == 0xED && u[1] > 0x9F))
            return 0;
        return 3;
    }
    if (u[0] > 0xF4 || left < 4 || (u[1] & 0xC0) != 0x80 || (u[2] & 0xC0) != 0x80 || (u[3] & 0xC0) != 0x80)
        return 0;
    if ((u[0] == 0xF0 && u[1] < 0x90) || (u[0] == 0xF4 && u[1] > 0x8F))
        return 0;
    return 4;
}

static inline uint64_t js_load8(const char *p) {
    uint64_t v;
    memcpy(&v, p, 8);
    return v;
}

static inline uint64_t js_load4(const char *p) {
    uint32_t v;
    memcpy(&v, p, 4);
    return v;
}

static inline uint64_t js_mix(uint64_t a, uint64_t b) {
#if defined(__SIZEOF_INT128__)
    unsigned __int128 product = (unsigned __int128)a * b;
    return (uint64_t)product ^ (uint64_t)(product >> 64);
#else
    a = (a ^ (b >> 32)) * 0x9E3779B97F4A7C15u;
    b = (b ^ (a >> 29)) * 0xBF58476D1CE4E5B9u;
    return a ^ b ^ (b >> 31);
#endif
}

/* Drawn when the module loads: names that collide here by design cannot be prepared outside. */
static uint64_t js_secret[2];

static inline uint32_t js_name_hash(const char *p, ptrdiff_t length) {
    uint64_t low = 0, high = 0, sum = (uint64_t)length;
    while (length > 16) {
        sum = js_mix(js_load8(p) ^ js_secret[0] ^ sum, js_load8(p + 8) ^ js_secret[1]);
        p += 16;
        length -= 16;
    }
    if (length >= 8) {
        low = js_load8(p);
        high = js_load8(p + length - 8);
    } else if (length >= 4) {
        low = js_load4(p) | js_load4(p + length - 4) << 32;
    } else if (length > 0) {
        low = (uint64_t)(unsigned char)p[0] | (uint64_t)(unsigned char)p[length >> 1] << 8 |
              (uint64_t)(unsigned char)p[length - 1] << 16;
    }
    sum = js_mix(low ^ js_secret[0], high ^ js_secret[1] ^ sum);
    return (uint32_t)(sum ^ sum >> 32);
}

static inline int js_same_bytes(const char *a, const char *b, ptrdiff_t length) {
    if (length >= 8) {
        if (length <= 16)
            return js_load8(a) == js_load8(b) && js_load8(a + length - 8) == js_load8(b + length - 8);
        return memcmp(a, b, (size_t)length) == 0;
    }
    if (length >= 4)
        return js_load4(a) == js_load4(b) && js_load4(a + length - 4) == js_load4(b + length - 4);
    while (length > 0) {
        length--;
        if (a[length] != b[length])
            return 0;
    }
    return 1;
}

/* strtod reads `,` for the decimal point where the embedding program chose such a locale; this one never does. */
static locale_t js_c_locale;

static int js_prepare(void) {
    js_c_locale = newlocale(LC_ALL_MASK, "C", (locale_t)0);
    return js_c_locale != (locale_t)0;
}

/* Give the double of a checked JSON number of at most 64 characters. `mantissa` is all its digits as one integer where
 * `digits` <= 19, and the value is mantissa * 10**scale.
 * Up to 15 digits and 10**22 both factors are exact doubles, so one multiplication or division rounds once, as strtod
 * would (Clinger, 1990); it needs doubles that are not computed in a wider register. */
static inline double js_double(const char *p, ptrdiff_t length, uint64_t mantissa, int digits, int scale) {
    static const double power[] = {1e0,  1e1,  1e2,  1e3,  1e4,  1e5,  1e6,  1e7,  1e8,  1e9,  1e10, 1e11,
                                   1e12, 1e13, 1e14, 1e15, 1e16, 1e17, 1e18, 1e19, 1e20, 1e21, 1e22};
    char copy[65];
#if defined(FLT_EVAL_METHOD) && FLT_EVAL_METHOD == 0
    if (digits <= 15 && scale >= -22 && scale <= 22) {
        double value = (double)mantissa;
        value = scale < 0 ? value / power[-scale] : value * power[scale];
        return *p == '-' ? -value : value;
    }
#else
    (void)mantissa, (void)digits, (void)scale, (void)power;
#endif
    memcpy(copy, p, (size_t)length);
    copy[length] = 0;
    return strtod_l(copy, NULL, js_c_locale);
}

#endif
