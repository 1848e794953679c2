/* Strict base64url (RFC 4648 §5) in three ways of equal result: portable, AVX2, AVX-512 VBMI.
 *
 * Each b64_body_* decodes as many leading characters as it likes (always a multiple of four), reports how many, and
 * gives 0 where it met a byte outside the alphabet. The rest goes through b64_scalar, which alone knows about the end
 * of the text: length modulo four and trailing bits. No function reads outside source[0:length], nor writes outside
 * target[0:decoded size]: every store below is exactly as wide as what it decoded.
 *
 * The functions carry their own target attribute, so the file needs no -m flag and the module still loads on a CPU
 * without these instructions; b64_choose asks the CPU (and the kernel, for the wide registers) once.
 */
#ifndef PORTCULLIS_BASE64URL_SIMD_H
#define PORTCULLIS_BASE64URL_SIMD_H

#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#if defined(__x86_64__) && (defined(__GNUC__) || defined(__clang__))
#define B64_X86 1
#include <immintrin.h>
#else
#define B64_X86 0
#endif

enum { B64_SCALAR = 0, B64_AVX2 = 1, B64_VBMI = 2, B64_WAYS = 3 };

static const char B64_ALPHABET[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";

/* Four tables give each character's six bits already in place, so that a quantum is four loads and three ORs. A byte
 * outside the alphabet sets B64_BAD, which no sum of good ones reaches. Filled once by b64_prepare. */
#define B64_BAD 0x01000000u
static uint32_t b64_place[4][256];
/* The same for one VBMI lookup: index is the low seven bits, 0x80 marks a byte outside the alphabet. */
static uint8_t b64_value[128];

static void b64_prepare(void) {
    for (int i = 0; i < 256; i++)
        for (int place = 0; place < 4; place++)
            b64_place[place][i] = B64_BAD;
    for (int i = 0; i < 128; i++)
        b64_value[i] = 0x80;
    for (uint32_t sextet = 0; sextet < 64; sextet++) {
        unsigned char c = (unsigned char)B64_ALPHABET[sextet];
        b64_value[c] = (uint8_t)sextet;
        for (int place = 0; place < 4; place++)
            b64_place[place][c] = sextet << (18 - 6 * place);
    }
}

/* Decode all of source[0:length]; `length` modulo 4 is not 1. Bad bytes are summed up and judged at the end, so the
 * time depends on the length alone. */
static int b64_scalar(const unsigned char *source, ptrdiff_t length, unsigned char *target) {
    uint32_t bad = 0;
    uint32_t word;
    while (length >= 4) {
        word = b64_place[0][source[0]] | b64_place[1][source[1]] | b64_place[2][source[2]] | b64_place[3][source[3]];
        bad |= word;
        target[0] = (unsigned char)(word >> 16);
        target[1] = (unsigned char)(word >> 8);
        target[2] = (unsigned char)word;
        source += 4;
        target += 3;
        length -= 4;
    }
    if (length == 2) {
        word = b64_place[0][source[0]] | b64_place[1][source[1]];
        /* RFC 4648 §3.5: "Implementations MAY chose to [...] reject the encoding if the pad bits have not been set to
         * zero": here one value has one spelling, so they must be. */
        if (word & 0xFFFF)
            bad |= B64_BAD;
        bad |= word;
        target[0] = (unsigned char)(word >> 16);
    } else if (length == 3) {
        word = b64_place[0][source[0]] | b64_place[1][source[1]] | b64_place[2][source[2]];
        if (word & 0xFF)
            bad |= B64_BAD;
        bad |= word;
        target[0] = (unsigned char)(word >> 16);
        target[1] = (unsigned char)(word >> 8);
    }
    return (bad & B64_BAD) == 0;
}

#if B64_X86

/* 32 characters to 24 bytes a step. A character is in the alphabet when the class of its high nibble is among the
 * classes that its low nibble belongs to; the high nibble also tells what to add to reach its six bits (`_` alone
 * needs 33 more). The idea of nibble lookups is Wojciech Muła's and Daniel Lemire's (2018). */
__attribute__((target("avx2"))) static int b64_body_avx2(const unsigned char *source, ptrdiff_t length,
                                                         unsigned char *target, ptrdiff_t *done) {
    /* Classes by high nibble: 2 -> 1, 3 -> 2, 4 and 6 -> 4, 5 -> 8, 7 -> 16, others none. */
    const __m256i class_of_high = _mm256_setr_epi8(0, 0, 1, 2, 4, 8, 4, 16, 0, 0, 0, 0, 0, 0, 0, 0,
                                                   0, 0, 1, 2, 4, 8, 4, 16, 0, 0, 0, 0, 0, 0, 0, 0);
    /* Low nibbles: 1 holds d; 2 holds 0-9; 4 holds 1-f; 8 holds 0-a and f; 16 holds 0-a. */
    const __m256i classes_of_low = _mm256_setr_epi8(26, 30, 30, 30, 30, 30, 30, 30, 30, 30, 28, 4, 4, 5, 4, 12,
                                                    26, 30, 30, 30, 30, 30, 30, 30, 30, 30, 28, 4, 4, 5, 4, 12);
    const __m256i shift_of_high = _mm256_setr_epi8(0, 0, 17, 4, -65, -65, -71, -71, 0, 0, 0, 0, 0, 0, 0, 0,
                                                   0, 0, 17, 4, -65, -65, -71, -71, 0, 0, 0, 0, 0, 0, 0, 0);
    const __m256i pack = _mm256_setr_epi8(2, 1, 0, 6, 5, 4, 10, 9, 8, 14, 13, 12, -1, -1, -1, -1,
                                          2, 1, 0, 6, 5, 4, 10, 9, 8, 14, 13, 12, -1, -1, -1, -1);
    const __m256i join = _mm256_setr_epi32(0, 1, 2, 4, 5, 6, 3, 7);
    const __m256i nibble = _mm256_set1_epi8(0x0F);
    __m256i bad = _mm256_setzero_si256();
    ptrdiff_t at = 0;
    for (; length - at >= 32; at += 32) {
        __m256i text = _mm256_loadu_si256((const __m256i *)(source + at));
        __m256i high = _mm256_and_si256(_mm256_srli_epi32(text, 4), nibble);
        __m256i low = _mm256_and_si256(text, nibble);
        __m256i both = _mm256_and_si256(_mm256_shuffle_epi8(class_of_high, high),
                                        _mm256_shuffle_epi8(classes_of_low, low));
        bad = _mm256_or_si256(bad, _mm256_cmpeq_epi8(both, _mm256_setzero_si256()));
        __m256i underscore = _mm256_cmpeq_epi8(text, _mm256_set1_epi8('_'));
        __m256i shift = _mm256_add_epi8(_mm256_shuffle_epi8(shift_of_high, high),
                                        _mm256_and_si256(underscore, _mm256_set1_epi8(33)));
        __m256i sextets = _mm256_add_epi8(text, shift);
        __m256i twelve = _mm256_maddubs_epi16(sextets, _mm256_set1_epi32(0x01400140));
        __m256i words = _mm256_madd_epi16(twelve, _mm256_set1_epi32(0x00011000));
        __m256i bytes = _mm256_permutevar8x32_epi32(_mm256_shuffle_epi8(words, pack), join);
        _mm_storeu_si128((__m128i *)target, _mm256_castsi256_si128(bytes));
        _mm_storel_epi64((__m128i *)(target + 16), _mm256_extracti128_si256(bytes, 1));
        target += 24;
    }
    *done = at;
    return _mm256_testz_si256(bad, bad);
}

/* 64 characters to 48 bytes a step; the last whole quanta by masked load and store, so that little or nothing is left
 * for b64_scalar. The lookup takes the low seven bits; the character's own eighth bit is judged with the table's. */
__attribute__((target("avx512f,avx512bw,avx512vbmi"))) static int b64_body_vbmi(const unsigned char *source,
                                                                                ptrdiff_t length,
                                                                                unsigned char *target,
                                                                                ptrdiff_t *done) {
    const __m512i value_low = _mm512_loadu_si512((const void *)b64_value);
    const __m512i value_high = _mm512_loadu_si512((const void *)(b64_value + 64));
    const __m512i pack = _mm512_set_epi8(
        0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0,
        60, 61, 62, 56, 57, 58, 52, 53, 54, 48, 49, 50, 44, 45, 46, 40,
        41, 42, 36, 37, 38, 32, 33, 34, 28, 29, 30, 24, 25, 26, 20, 21,
        22, 16, 17, 18, 12, 13, 14, 8, 9, 10, 4, 5, 6, 0, 1, 2);
    __m512i bad = _mm512_setzero_si512();
    ptrdiff_t whole = length & ~(ptrdiff_t)3;
    ptrdiff_t at = 0;
    while (at < whole) {
        ptrdiff_t step = whole - at < 64 ? whole - at : 64;
        __mmask64 load = ~(__mmask64)0 >> (64 - step);
        __mmask64 store = ~(__mmask64)0 >> (64 - step / 4 * 3);
        __m512i text = _mm512_mask_loadu_epi8(_mm512_set1_epi8('A'), load, source + at);
        __m512i sextets = _mm512_permutex2var_epi8(value_low, text, value_high);
        bad = _mm512_or_si512(bad, _mm512_or_si512(sextets, text));
        __m512i twelve = _mm512_maddubs_epi16(sextets, _mm512_set1_epi32(0x01400140));
        __m512i words = _mm512_madd_epi16(twelve, _mm512_set1_epi32(0x00011000));
        _mm512_mask_storeu_epi8(target, store, _mm512_permutexvar_epi8(pack, words));
        target += 48;
        at += step;
    }
    *done = whole;
    return _mm512_movepi8_mask(bad) == 0;
}

#endif

static int b64_available(int way) {
    if (way == B64_SCALAR)
        return 1;
#if B64_X86
    __builtin_cpu_init();
    if (way == B64_AVX2)
        return __builtin_cpu_supports("avx2") != 0;
    if (way == B64_VBMI)
        return __builtin_cpu_supports("avx512f") != 0 && __builtin_cpu_supports("avx512bw") != 0 &&
               __builtin_cpu_supports("avx512vbmi") != 0;
#endif
    return 0;
}

/* Decode source[0:length] in the given way, which must be available; `length` modulo 4 is not 1, and `target` has room.
 * Gives 1, or 0 for a text that is not canonical. */
static int b64_run(int way, const unsigned char *source, ptrdiff_t length, unsigned char *target) {
    ptrdiff_t done = 0;
    int good = 1;
#if B64_X86
    if (way == B64_VBMI)
        good = b64_body_vbmi(source, length, target, &done);
    else if (way == B64_AVX2)
        good = b64_body_avx2(source, length, target, &done);
#else
    (void)way;
#endif
    return b64_scalar(source + done, length - done, target + done / 4 * 3) & good;
}

#endif
