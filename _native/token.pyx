# cython: boundscheck=False, wraparound=False, initializedcheck=False, cdivision=True
# cython: auto_pickle=False, autotestdict=False
"""One JWT, judged: split, header, claims, signature, caches; without Python objects until there is a verdict.

The parts, by the names of the source design: `JWTParser` is token_split and header_read (slices of the caller's
bytes, the claims found by one lazy scan); `TokenStructureCache` is `TokenValidator.structures`; `ClaimsValidator` is
claims_judge; `SignatureVerifierPool` is the pool of contexts in each KeyHandle (verify.pyx), which signature_judge
uses.

Which reason wins. A token is refused for the first fault in this order, and nothing after it is looked at:

1. too_large, malformed (segments), opaque;
2. the header: malformed, header_invalid, algorithm (a name that we do not know, `none` too);
3. the payload: malformed;
4. the claims: exp, iat, iss (and with the issuer: its algorithms), aud, nbf, typ, types of the other claims, required
   claims, lifetime, cnf, values that may not stand in a header;
5. keys_unavailable, kid_unknown, algorithm (not the key's);
6. malformed (the signature's text), signature;
7. revoked.

So an expired token with a bad signature is `expired`: nobody pays a public-key operation for what is refused anyway,
and no `kid` of a token that is refused anyway starts a refresh of keys. The price is that a reason of 2 to 5 says
what the token claims, not what is proven. That is sound because every such reason refuses, nothing of the token is
handed out with it, and the doors answer all of them alike; whoever logs a reason must know that strangers choose it.
`revoked` is said only of tokens that are proven. The order is also the order of asking: only a token that would be
accepted but for its key asks.

Bounds: C arrays here are indexed by enums below their sizes, by loop counters over their counts, or by results of
searches in them; text is read through Slice lengths only. That is why bounds checks are off in this file.

The module keeps the GIL: caches and snapshots of a TokenValidator are guarded by it. judge_batch alone releases it,
and reads nothing but immutable plans, a revocation table that is copied when it must change meanwhile, and memory of
its own.
"""

import json

cimport cython
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from libc.math cimport ceil, floor
from libc.stdint cimport INT64_MAX, INT64_MIN, int32_t, int64_t, uint8_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free, malloc
from libc.string cimport memchr, memcmp, memcpy, memset

from gateway._native.base64url cimport b64_decode, b64_decoded_size
from gateway._native.cache cimport (
    CACHE_TICK_NEVER,
    CACHE_TICKS_PER_S,
    CacheC,
    CacheEntry,
    cache_clear,
    cache_extra,
    cache_find,
    cache_free,
    cache_new,
    cache_payload,
    cache_put,
    cache_remove,
    clock_tick,
    secret_hash,
    secret_hash_tweaked,
    token_hash,
)
from gateway._native.json_scan cimport (
    JSON_ABSENT,
    JSON_ARRAY,
    JSON_DOUBLE,
    JSON_INT,
    JSON_NAMES_MAX,
    JSON_NULL,
    JSON_OBJECT,
    JSON_STRING,
    JsonNames,
    JsonValue,
    json_array_next,
    json_scan_object,
    json_unescape,
)
from gateway._native.slice cimport Slice, slice_empty, slice_equal, slice_of, slice_sub
from gateway._native.verify cimport (
    ALG_COUNT,
    ALG_NONE,
    Algorithm,
    KeyC,
    KeyHandle,
    algorithm_of,
    key_of,
    key_verify,
)

cdef extern from *:
    """
    #include <time.h>
    #include <stdint.h>

    #ifdef PORTCULLIS_DEBUG
    static long portcullis_token_live;
    #define TOKEN_LIVE(n) __atomic_fetch_add(&portcullis_token_live, (n), __ATOMIC_RELAXED)
    static long token_live_blocks(void) { return portcullis_token_live; }
    #else
    #define TOKEN_LIVE(n) ((void)0)
    static long token_live_blocks(void) { return -1; }
    #endif

    /* Whole seconds of Unix time; the coarse clock costs a few ns where there is one. */
    #ifdef CLOCK_REALTIME_COARSE
    #define TOKEN_CLOCK CLOCK_REALTIME_COARSE
    #else
    #define TOKEN_CLOCK CLOCK_REALTIME
    #endif
    static inline int64_t token_clock_s(void)
    {
        struct timespec now;
        clock_gettime(TOKEN_CLOCK, &now);
        return (int64_t)now.tv_sec;
    }
    static inline void token_object_hold(void *held) { Py_INCREF((PyObject *)held); }
    static inline void token_object_drop(void *held) { Py_DECREF((PyObject *)held); }
    """
    void TOKEN_LIVE(long) noexcept nogil
    long token_live_blocks() noexcept nogil
    int64_t token_clock_s() noexcept nogil
    void token_object_hold(void*) noexcept nogil
    void token_object_drop(void*) noexcept nogil

cdef extern from "Python.h":
    const char* PyUnicode_AsUTF8AndSize(object text, Py_ssize_t* size) except NULL


# ORDER REASON
cdef tuple REASON_NAMES = (
    "ok",
    "kid_unknown",
    "opaque",
    "keys_unavailable",
    "malformed",
    "too_large",
    "header_invalid",
    "algorithm",
    "type",
    "issuer_unknown",
    "claim_invalid",
    "expired",
    "issued_in_future",
    "not_yet_valid",
    "audience",
    "claim_missing",
    "sender_constrained",
    "signature",
    "revoked",
)
REASONS = REASON_NAMES
assert len(REASONS) == REASON_COUNT

# The claims that every scan asks for. ORDER CLAIM: FIXED_CLAIMS names each of these, in this order.
cdef enum:
    CLAIM_EXP = 0
    CLAIM_IAT
    CLAIM_ISS
    CLAIM_AUD
    CLAIM_NBF
    CLAIM_SUB
    CLAIM_JTI
    CLAIM_SID
    CLAIM_SCOPE
    CLAIM_SCP
    CLAIM_CLIENT_ID
    CLAIM_CNF
    CLAIM_FIXED_COUNT

cdef tuple FIXED_CLAIMS = (
    b"exp", b"iat", b"iss", b"aud", b"nbf", b"sub", b"jti", b"sid", b"scope", b"scp", b"client_id", b"cnf",
)
assert len(FIXED_CLAIMS) == CLAIM_FIXED_COUNT

# Header members. ORDER MEMBER: HEADER_MEMBERS names each of these, in this order.
cdef enum:
    MEMBER_ALG = 0
    MEMBER_KID
    MEMBER_TYP
    MEMBER_CTY
    MEMBER_REFUSED      # this one and all after it: their presence refuses the token
    MEMBER_COUNT = MEMBER_REFUSED + 8

# crit and b64: we understand no extension (RFC 7515 §4.1.11, RFC 7797). enc and zip: JWE. jku, x5u, x5c, jwk: a token
# never says where its key is (design law 4). x5t and x5t#S256 only name a key, as kid does, and are not looked at.
cdef tuple HEADER_MEMBERS = (
    b"alg", b"kid", b"typ", b"cty", b"crit", b"b64", b"enc", b"zip", b"jku", b"x5u", b"x5c", b"jwk",
)
assert len(HEADER_MEMBERS) == MEMBER_COUNT

cdef JsonNames header_names

cdef int names_fill(JsonNames* names, tuple texts) except -1:
    """Point `names` at the bytes objects in `texts`, which the caller keeps alive."""
    cdef int i
    cdef bytes text
    if len(texts) > JSON_NAMES_MAX:
        raise ValueError(f"{len(texts)} different claims are asked for; {<int>JSON_NAMES_MAX} are possible")
    names.count = <int>len(texts)
    for i in range(names.count):
        text = texts[i]
        names.name[i] = slice_of(PyBytes_AS_STRING(text), PyBytes_GET_SIZE(text))
    return 0

names_fill(&header_names, HEADER_MEMBERS)

cdef enum:
    SCOPE_SETS_MAX = 1024    # interned scope texts; at the bound all are forgotten and learned anew


# --- C structs -----------------------------------------------------------------------------------

cdef struct KeyEntry:
    Slice kid            # owner: the KeyHandle, kept by the plan's snapshot
    Algorithm algorithm
    KeyC* key            # owner: the same
    uint32_t serial

cdef struct IssuerC:
    # Owners of all slices: the IssuerRules, kept by the plan's snapshot.
    Slice issuer
    uint64_t tweak
    uint32_t rules_serial
    uint32_t algorithm_mask
    int64_t leeway_s
    int64_t lifetime_max_s
    int64_t usable_until_s
    bint any_audience
    bint allow_sender_constrained
    bint opaque
    bint kidless                # no key of this issuer has a kid
    Slice* audiences            # owned, as are the arrays below
    int audience_count
    Slice* types
    int type_count
    int* required               # claims by their place in PlanC.names
    int required_count
    KeyEntry* keys              # sorted by kid
    int key_count
    int sole_key[ALG_COUNT]     # the only key of an algorithm; -1 none, -2 several

cdef struct PlanC:
    uint32_t generation
    JsonNames names             # owner: JudgePlan.names
    int mapped[HEADER_CLAIMS_MAX]   # claims that become identity headers, by their place in `names`
    int mapped_count
    IssuerC* issuers            # owned
    int issuer_count
    int* by_name                # owned; the issuers' numbers, sorted by issuer
    bint any_opaque

cdef struct RevocationRow:
    uint64_t hash               # 0: a free row
    int64_t until_s             # the row holds up to this second (and the issuer's leeway)
    int64_t issued_before_s     # tokens issued at or after it are spared; INT64_MAX: none are

cdef struct Arena:
    char* base                  # owner: the caller of judge_core
    Py_ssize_t used
    Py_ssize_t capacity

cdef struct Header:
    # Owner of the slices: the arena, or the structure cache. Not used any more once the signature is being verified.
    Algorithm algorithm
    bint cached
    Slice kid                   # empty = none
    Slice type                  # lower case, without "application/"; empty = absent
    Slice block                 # kid and type, one after the other

cdef struct CachedStructure:
    int32_t algorithm
    int32_t kid_len             # the entry's extra bytes are kid, then type
    int32_t type_len
    int32_t unused

cdef struct Judged:
    # What judge_core found out. Owner of the slices: the arena.
    Reason reason
    int issuer_index
    bint structure_hit
    int revocation              # ROW_…
    uint32_t key_serial
    int64_t expires_at_s
    int64_t not_before_s        # the later of nbf and iat, or INT64_MIN
    int64_t issued_at_s         # INT64_MIN = absent
    uint64_t jti_hash           # 0 = absent
    uint64_t sid_hash
    Slice payload
    Slice subject
    Slice jti
    Slice sid
    Slice scopes                # one space between any two
    Slice mapped[HEADER_CLAIMS_MAX]

cdef struct CachedToken:
    # 56 bytes. Times are clamped to 0..2^32-1, each to its strict side: a token beyond 2106 is judged anew each time.
    void* identity              # owned reference to an Identity
    uint64_t jti_hash
    uint64_t sid_hash
    uint32_t not_after_s        # exp and leeway: refused from this second on
    uint32_t not_before_s       # the later of nbf and iat, less leeway
    uint32_t issued_at_s        # 0 = absent
    uint32_t key_serial         # 0 = introspected, no key
    uint32_t rules_serial
    uint32_t generation         # of the plan under which rules and key were last found
    uint32_t revocation_generation
    int32_t issuer_index


# --- small tools ---------------------------------------------------------------------------------

cdef inline int64_t clamp_s(int64_t seconds) noexcept nogil:
    """Keep a time so far from the ends of int64 that leeways can be added and subtracted."""
    cdef int64_t bound = <int64_t>1 << 60
    if seconds > bound:
        return bound
    if seconds < -bound:
        return -bound
    return seconds


cdef inline uint32_t short_s(int64_t seconds) noexcept nogil:
    """Clamp a time into 32 bits."""
    if seconds < 0:
        return 0
    return <uint32_t>(seconds if seconds < 0xffffffffLL else 0xffffffffLL)


cdef inline char* arena_take(Arena* arena, Py_ssize_t size) noexcept nogil:
    """Give room for `size` bytes, or NULL."""
    cdef char* room = arena.base + arena.used
    if size < 0 or size > arena.capacity - arena.used:
        return NULL
    arena.used += size
    return room


cdef inline bint text_of(const JsonValue* value, Arena* arena, Slice* out) noexcept nogil:
    """Give a scanned string's text: as it stands, or unescaped into the arena. False without room."""
    cdef char* room
    cdef Py_ssize_t length
    if not value.escaped:
        out[0] = value.raw
        return True
    room = arena_take(arena, value.raw.len)
    if room is NULL:
        return False
    length = json_unescape(value.raw, room, value.raw.len)
    if length < 0:
        return False
    out[0] = slice_of(room, length)
    return True


cdef inline bint arena_decode(Arena* arena, Slice segment, Slice* out) noexcept nogil:
    """Decode one segment into the arena. False if it is not canonical base64url."""
    cdef Py_ssize_t size = b64_decoded_size(segment.len)
    cdef char* room
    if size < 0:
        return False
    room = arena_take(arena, size)
    if room is NULL or b64_decode(segment.ptr, segment.len, <unsigned char*>room, size) != size:
        return False
    out[0] = slice_of(room, size)
    return True


cdef inline int slice_compare(Slice a, Slice b) noexcept nogil:
    """Order as Python orders bytes."""
    cdef Py_ssize_t common = a.len if a.len < b.len else b.len
    cdef int order = memcmp(a.ptr, b.ptr, <size_t>common)
    if order != 0:
        return order
    return -1 if a.len < b.len else (1 if a.len > b.len else 0)


cdef bint header_safe(Slice text) noexcept nogil:
    """True if `text` can stand in a header: no control bytes, and no space at its ends, which receivers strip."""
    cdef Py_ssize_t i
    cdef uint8_t byte
    cdef uint8_t bad = 0
    if text.len == 0:
        return True
    for i in range(text.len):
        byte = <uint8_t>text.ptr[i]
        bad |= (byte < 0x20) | (byte == 0x7f)
    return not bad and text.ptr[0] != c" " and text.ptr[text.len - 1] != c" "


cdef int numeric_date(const JsonValue* value, bint up, int64_t* out) noexcept nogil:
    """Read a NumericDate (RFC 7519 §2): 1, 0 if absent, -1 if it is no number or beyond exact doubles.

    Fractions count to the strict side: the caller says whether that is up.
    """
    if value.kind == JSON_INT:
        out[0] = clamp_s(value.integer)
        return 1
    if value.kind == JSON_ABSENT:
        return 0
    if value.kind == JSON_DOUBLE and -9007199254740992.0 <= value.number <= 9007199254740992.0:
        out[0] = <int64_t>(ceil(value.number) if up else floor(value.number))
        return 1
    return -1


# --- JWTParser: split and header -----------------------------------------------------------------

cdef bint opaque_text(Slice token) noexcept nogil:
    """True if `token` could be a bearer token that is no JWT: b64token of RFC 6750 §2.1, `=` only at the end."""
    cdef Py_ssize_t i
    cdef uint8_t c
    cdef bint padded = False
    for i in range(token.len):
        c = <uint8_t>token.ptr[i]
        if c == c"=":
            padded = True
            if i == 0:
                return False
        elif padded or not (
            c"a" <= c <= c"z" or c"A" <= c <= c"Z" or c"0" <= c <= c"9"
            or c == c"-" or c == c"." or c == c"_" or c == c"~" or c == c"+" or c == c"/"
        ):
            return False
    return token.len > 0


cdef inline int token_split(Slice token, Slice* header, Slice* payload, Slice* signature) noexcept nogil:
    """Split at exactly two dots; else give how many dots there are, counting no further than 5."""
    cdef const char* end = token.ptr + token.len
    cdef const char* first = <const char*>memchr(token.ptr, c".", <size_t>token.len)
    cdef const char* second
    cdef const char* extra
    cdef int dots
    if first is NULL:
        return 0
    second = <const char*>memchr(first + 1, c".", <size_t>(end - first - 1))
    if second is NULL:
        return 1
    extra = <const char*>memchr(second + 1, c".", <size_t>(end - second - 1))
    if extra is NULL:
        header[0] = slice_of(token.ptr, first - token.ptr)
        payload[0] = slice_of(first + 1, second - first - 1)
        signature[0] = slice_of(second + 1, end - second - 1)
        return 2
    dots = 3
    while dots < 5:
        extra = <const char*>memchr(extra + 1, c".", <size_t>(end - extra - 1))
        if extra is NULL:
            break
        dots += 1
    return dots


cdef Slice media_type(Slice text, char* target) noexcept nogil:
    """Write `typ` or `cty` in lower case and without "application/", which may be left out (RFC 7515 §4.1.9)."""
    cdef Py_ssize_t i
    cdef uint8_t c
    for i in range(text.len):
        c = <uint8_t>text.ptr[i]
        target[i] = <char>(c | 0x20 if c"A" <= c <= c"Z" else c)
    cdef Slice lower = slice_of(target, text.len)
    cdef Slice rest = slice_sub(lower, 12, lower.len)
    if lower.len > 12 and memcmp(lower.ptr, b"application/", 12) == 0:
        if memchr(rest.ptr, c"/", <size_t>rest.len) is NULL:
            return rest
    return lower


cdef Reason header_read(Slice segment, Arena* arena, Header* out) noexcept nogil:
    """Decode, scan and check one header segment.

    RFC 7515 §4, RFC 8725 §3. Every member that would change what the rest means refuses the token.
    """
    cdef Slice text, type_text, lower
    cdef Slice kid = slice_empty()
    cdef JsonValue found[MEMBER_COUNT]
    cdef int i
    cdef char* block
    if not arena_decode(arena, segment, &text):
        return REASON_MALFORMED
    if json_scan_object(text, &header_names, found) < 0:
        return REASON_MALFORMED
    for i in range(MEMBER_REFUSED, MEMBER_COUNT):
        if found[i].kind != JSON_ABSENT:
            return REASON_HEADER_INVALID
    if found[MEMBER_ALG].kind != JSON_STRING or not text_of(&found[MEMBER_ALG], arena, &text):
        return REASON_HEADER_INVALID
    out.algorithm = algorithm_of(text)
    if found[MEMBER_KID].kind != JSON_ABSENT:
        if found[MEMBER_KID].kind != JSON_STRING or not text_of(&found[MEMBER_KID], arena, &kid):
            return REASON_HEADER_INVALID
        if kid.len > KID_BYTES_MAX:
            return REASON_HEADER_INVALID
    # A nested JWT (RFC 7519 §5.2) is not judged by its envelope.
    if found[MEMBER_CTY].kind != JSON_ABSENT:
        if found[MEMBER_CTY].kind != JSON_STRING or not text_of(&found[MEMBER_CTY], arena, &type_text):
            return REASON_HEADER_INVALID
        if type_text.len > TYPE_BYTES_MAX:
            return REASON_HEADER_INVALID
        block = arena_take(arena, type_text.len)
        if block is NULL:
            return REASON_HEADER_INVALID
        lower = media_type(type_text, block)
        if slice_equal(lower, slice_of(b"jwt", 3)):
            return REASON_HEADER_INVALID
    type_text = slice_empty()
    if found[MEMBER_TYP].kind != JSON_ABSENT:
        if found[MEMBER_TYP].kind != JSON_STRING or not text_of(&found[MEMBER_TYP], arena, &type_text):
            return REASON_HEADER_INVALID
        if type_text.len == 0 or type_text.len > TYPE_BYTES_MAX:
            return REASON_HEADER_INVALID
    if out.algorithm == ALG_NONE:
        return REASON_ALGORITHM
    block = arena_take(arena, kid.len + type_text.len)
    if block is NULL:
        return REASON_HEADER_INVALID
    memcpy(block, kid.ptr, <size_t>kid.len)
    lower = media_type(type_text, block + kid.len)
    if lower.ptr != block + kid.len:     # "application/" was left out: close the gap
        for i in range(<int>lower.len):
            block[kid.len + i] = lower.ptr[i]
    out.kid = slice_of(block, kid.len)
    out.type = slice_of(block + kid.len, lower.len)
    out.block = slice_of(block, kid.len + lower.len)
    return REASON_OK


cdef Reason header_find(CacheC* structures, Slice segment, uint64_t* hash, Arena* arena, Header* out) noexcept nogil:
    """Give the parsed header of exactly this segment from the structure cache, or read it."""
    cdef CacheEntry* entry
    cdef CachedStructure* known
    cdef Slice extra
    out.cached = False
    if structures is not NULL and segment.len <= STRUCTURE_BYTES_MAX:
        hash[0] = secret_hash(segment)
        entry = cache_find(structures, segment, hash[0], 0)
        if entry is not NULL:
            known = <CachedStructure*>cache_payload(entry)
            extra = cache_extra(entry)
            out.cached = True
            out.algorithm = <Algorithm>known.algorithm
            out.kid = slice_sub(extra, 0, known.kid_len)
            out.type = slice_sub(extra, known.kid_len, extra.len)
            out.block = extra
            return REASON_OK
    return header_read(segment, arena, out)


cdef void structure_keep(CacheC* structures, Slice segment, uint64_t hash, const Header* header) noexcept nogil:
    """Remember a header. Only after a token with it was verified: strangers cannot push out what is in use."""
    cdef CachedStructure known
    if structures is NULL or header.cached or segment.len > STRUCTURE_BYTES_MAX:
        return
    known.algorithm = header.algorithm
    known.kid_len = <int32_t>header.kid.len
    known.type_len = <int32_t>header.type.len
    known.unused = 0
    cache_put(structures, segment, hash, CACHE_TICK_NEVER, &known, header.block)


# --- ClaimsValidator -----------------------------------------------------------------------------

cdef int issuer_find(const PlanC* plan, Slice issuer) noexcept nogil:
    """Give the number of the issuer with exactly this name, or -1."""
    cdef int low = 0, high = plan.issuer_count, middle, order
    while low < high:
        middle = (low + high) >> 1
        order = slice_compare(plan.issuers[plan.by_name[middle]].issuer, issuer)
        if order == 0:
            return plan.by_name[middle]
        if order < 0:
            low = middle + 1
        else:
            high = middle
    return -1


cdef inline bint slice_among(Slice wanted, const Slice* some, int count) noexcept nogil:
    cdef int i
    for i in range(count):
        if slice_equal(wanted, some[i]):
            return True
    return False


cdef Reason audience_judge(const IssuerC* issuer, const JsonValue* aud, Arena* arena) noexcept nogil:
    """`aud` is one string or an array of strings (RFC 7519 §4.1.3); one of them, byte for byte, must be ours."""
    cdef Slice rest, text
    cdef JsonValue item
    cdef Py_ssize_t mark = arena.used
    cdef bint found = issuer.any_audience
    cdef int step
    if aud.kind == JSON_ABSENT:
        return REASON_OK if found else REASON_AUDIENCE
    if aud.kind == JSON_STRING:
        if not text_of(aud, arena, &text):
            return REASON_CLAIM_INVALID
        if not found and not slice_among(text, issuer.audiences, issuer.audience_count):
            return REASON_AUDIENCE
        return REASON_OK
    if aud.kind != JSON_ARRAY:
        return REASON_CLAIM_INVALID
    rest = aud.raw
    while True:
        step = json_array_next(&rest, &item)
        if step == 0:
            return REASON_OK if found else REASON_AUDIENCE
        if step < 0 or item.kind != JSON_STRING or not text_of(&item, arena, &text):
            return REASON_CLAIM_INVALID
        if not found:
            found = slice_among(text, issuer.audiences, issuer.audience_count)
        arena.used = mark


cdef bint scopes_read(const JsonValue* claim, Arena* arena, Slice* out) noexcept nogil:
    """Give scopes with one space between any two: from a string with spaces (RFC 8693 §4.2) or an array of strings.

    False for another type, more than SCOPES_MAX, control bytes, or an array element that is empty or holds a space.
    """
    cdef Slice text = slice_empty()
    cdef Slice rest
    cdef JsonValue item
    cdef char* room
    cdef Py_ssize_t i, length = 0, mark
    cdef int count = 0, step
    cdef uint8_t c
    cdef bint tidy = True, inside = False
    if claim.kind == JSON_ABSENT:
        out[0] = text
        return True
    if claim.kind == JSON_STRING:
        if not text_of(claim, arena, &text):
            return False
        for i in range(text.len):
            c = <uint8_t>text.ptr[i]
            if c < 0x20 or c == 0x7f:
                return False
            if c == c" ":
                tidy = tidy and inside
                inside = False
            elif not inside:
                inside = True
                count += 1
        if count > SCOPES_MAX:
            return False
        if tidy and (inside or text.len == 0):
            out[0] = text
            return True
        room = arena_take(arena, text.len)
        if room is NULL:
            return False
        inside = False
        for i in range(text.len):
            if text.ptr[i] == c" ":
                inside = False
                continue
            if not inside and length > 0:
                room[length] = c" "
                length += 1
            inside = True
            room[length] = text.ptr[i]
            length += 1
        out[0] = slice_of(room, length)
        return True
    if claim.kind != JSON_ARRAY:
        return False
    room = arena_take(arena, claim.raw.len)   # quotes and commas make the array longer than its joined text
    if room is NULL:
        return False
    rest = claim.raw
    while True:
        mark = arena.used
        step = json_array_next(&rest, &item)
        if step == 0:
            out[0] = slice_of(room, length)
            return True
        if step < 0 or item.kind != JSON_STRING or not text_of(&item, arena, &text) or text.len == 0:
            return False
        count += 1
        if count > SCOPES_MAX or length + text.len + 1 > claim.raw.len:
            return False
        if length > 0:
            room[length] = c" "
            length += 1
        for i in range(text.len):
            c = <uint8_t>text.ptr[i]
            if c <= 0x20 or c == 0x7f:
                return False
            room[length + i] = text.ptr[i]
        length += text.len
        arena.used = mark


cdef Slice json_compact(Slice raw, char* target) noexcept nogil:
    """Write scanned JSON without the white space between its tokens."""
    cdef Py_ssize_t i, length = 0
    cdef bint inside = False, escaped = False
    cdef char c
    for i in range(raw.len):
        c = raw.ptr[i]
        if inside:
            if escaped:
                escaped = False
            elif c == c"\\":
                escaped = True
            elif c == c'"':
                inside = False
        elif c == c'"':
            inside = True
        elif c == c" " or c == c"\t" or c == c"\n" or c == c"\r":
            continue
        target[length] = c
        length += 1
    return slice_of(target, length)


cdef bint claim_render(const JsonValue* value, Arena* arena, Slice* out) noexcept nogil:
    """Give a claim as the value of an identity header; empty for an absent claim and for null.

    Strings as they are; numbers, true and false as JSON; an array of these joined by commas; other arrays and objects
    as compact JSON. False where a value cannot be carried unchanged: control bytes, a space at an end, or an array
    element that is empty, has a space at an end or a comma in it (a role "a,b" must not become two).
    """
    cdef Slice rest, text
    cdef JsonValue item
    cdef char* room
    cdef Py_ssize_t length = 0, mark
    cdef bint first = True
    cdef int step
    if value.kind == JSON_ABSENT or value.kind == JSON_NULL:
        out[0] = slice_empty()
        return True
    if value.kind == JSON_STRING:
        return text_of(value, arena, out) and header_safe(out[0])
    if value.kind != JSON_ARRAY and value.kind != JSON_OBJECT:
        out[0] = value.raw
        return True
    room = arena_take(arena, value.raw.len)
    if room is NULL:
        return False
    if value.kind == JSON_ARRAY:
        rest = value.raw
        while True:
            mark = arena.used
            step = json_array_next(&rest, &item)
            if step == 0:
                out[0] = slice_of(room, length)
                return True
            if step < 0 or item.kind == JSON_NULL:
                return False
            if item.kind == JSON_ARRAY or item.kind == JSON_OBJECT:
                break
            if item.kind != JSON_STRING:
                text = item.raw
            elif not text_of(&item, arena, &text) or not header_safe(text) or text.len == 0:
                return False
            elif memchr(text.ptr, c",", <size_t>text.len) is not NULL:
                return False
            if length + text.len + 1 > value.raw.len:
                return False
            if not first:
                room[length] = c","
                length += 1
            first = False
            memcpy(room + length, text.ptr, <size_t>text.len)
            length += text.len
            arena.used = mark
    out[0] = json_compact(value.raw, room)
    return header_safe(out[0])


cdef inline Reason text_claim(const JsonValue* value, Arena* arena, Slice* out) noexcept nogil:
    """A registered claim that must be a string where it is there at all."""
    if value.kind == JSON_ABSENT:
        out[0] = slice_empty()
        return REASON_OK
    if value.kind != JSON_STRING or not text_of(value, arena, out):
        return REASON_CLAIM_INVALID
    return REASON_OK


cdef Reason claims_judge(
    const PlanC* plan, const JsonValue* claims, const Header* header, int64_t now_s, Arena* arena, Judged* out
) noexcept nogil:
    """Judge the claims: exp, iat, iss, aud, then the rest; the first fault decides.

    design §6; RFC 7519 §4.1, RFC 8725 §3.8–3.12, RFC 9068 §4.
    """
    cdef Slice text
    cdef const IssuerC* issuer = NULL
    cdef int64_t leeway_s = LEEWAY_DEFAULT_S
    cdef int64_t issued_strict_s = INT64_MIN
    cdef int found, i
    cdef Reason reason

    if claims[CLAIM_ISS].kind == JSON_STRING and text_of(&claims[CLAIM_ISS], arena, &text):
        out.issuer_index = issuer_find(plan, text)
        if out.issuer_index >= 0:
            issuer = &plan.issuers[out.issuer_index]
            leeway_s = issuer.leeway_s

    # "on or after which the JWT MUST NOT be accepted" (RFC 7519 §4.1.4)
    found = numeric_date(&claims[CLAIM_EXP], False, &out.expires_at_s)
    if found < 0:
        return REASON_CLAIM_INVALID
    if found == 0:
        return REASON_CLAIM_MISSING
    if now_s - leeway_s >= out.expires_at_s:
        return REASON_EXPIRED
    found = numeric_date(&claims[CLAIM_IAT], False, &out.issued_at_s)
    if found < 0:
        return REASON_CLAIM_INVALID
    if found == 0:
        out.issued_at_s = INT64_MIN
    else:
        numeric_date(&claims[CLAIM_IAT], True, &issued_strict_s)
        if issued_strict_s > now_s + leeway_s:
            return REASON_ISSUED_IN_FUTURE
    if issuer is NULL:
        if claims[CLAIM_ISS].kind == JSON_ABSENT:
            return REASON_CLAIM_MISSING
        return REASON_ISSUER_UNKNOWN if claims[CLAIM_ISS].kind == JSON_STRING else REASON_CLAIM_INVALID
    if not (issuer.algorithm_mask >> <int>header.algorithm) & 1:
        return REASON_ALGORITHM
    reason = audience_judge(issuer, &claims[CLAIM_AUD], arena)
    if reason != REASON_OK:
        return reason
    found = numeric_date(&claims[CLAIM_NBF], True, &out.not_before_s)
    if found < 0:
        return REASON_CLAIM_INVALID
    if found == 0:
        out.not_before_s = INT64_MIN
    elif out.not_before_s > now_s + leeway_s:
        return REASON_NOT_YET_VALID
    if issued_strict_s > out.not_before_s:
        out.not_before_s = issued_strict_s
    if not slice_among(header.type, issuer.types, issuer.type_count):
        return REASON_TYPE

    if text_claim(&claims[CLAIM_SUB], arena, &out.subject) != REASON_OK or not header_safe(out.subject):
        return REASON_CLAIM_INVALID
    if text_claim(&claims[CLAIM_JTI], arena, &out.jti) != REASON_OK:
        return REASON_CLAIM_INVALID
    if text_claim(&claims[CLAIM_SID], arena, &out.sid) != REASON_OK:
        return REASON_CLAIM_INVALID
    if text_claim(&claims[CLAIM_CLIENT_ID], arena, &text) != REASON_OK:
        return REASON_CLAIM_INVALID
    i = CLAIM_SCP if claims[CLAIM_SCOPE].kind == JSON_ABSENT else CLAIM_SCOPE
    if not scopes_read(&claims[i], arena, &out.scopes):
        return REASON_CLAIM_INVALID
    for i in range(issuer.required_count):
        if claims[issuer.required[i]].kind == JSON_ABSENT or claims[issuer.required[i]].kind == JSON_NULL:
            return REASON_CLAIM_MISSING
    if issuer.lifetime_max_s > 0:
        if out.issued_at_s == INT64_MIN:
            return REASON_CLAIM_MISSING
        if out.expires_at_s - out.issued_at_s > issuer.lifetime_max_s:
            return REASON_CLAIM_INVALID
    if claims[CLAIM_CNF].kind != JSON_ABSENT and not issuer.allow_sender_constrained:
        return REASON_SENDER_CONSTRAINED
    for i in range(plan.mapped_count):
        if not claim_render(&claims[plan.mapped[i]], arena, &out.mapped[i]):
            return REASON_CLAIM_INVALID
    return REASON_OK


# --- keys and signature --------------------------------------------------------------------------

cdef int key_first(const IssuerC* issuer, Slice kid) noexcept nogil:
    """Give the place of the first key that does not sort before `kid`."""
    cdef int low = 0, high = issuer.key_count, middle
    while low < high:
        middle = (low + high) >> 1
        if slice_compare(issuer.keys[middle].kid, kid) < 0:
            low = middle + 1
        else:
            high = middle
    return low


cdef Reason signature_judge(
    const IssuerC* issuer, const Header* header, Slice signed, Slice signature, Arena* arena, Judged* out
) noexcept nogil:
    """Choose the key by the configured issuer's keys, then verify.

    With a `kid`: the keys of exactly this kid whose own algorithm is the token's. Without one, or at an issuer none
    of whose keys has a kid: the key of that algorithm, if there is exactly one.
    """
    cdef KeyEntry* candidate[SAME_KID_MAX]
    cdef int count = 0, place
    cdef bint known = False
    cdef Slice proof
    if header.kid.len == 0 or issuer.kidless:
        place = issuer.sole_key[<int>header.algorithm]
        if place < 0:
            return REASON_KID_UNKNOWN
        candidate[0] = &issuer.keys[place]
        count = 1
    else:
        place = key_first(issuer, header.kid)
        while place < issuer.key_count and slice_equal(issuer.keys[place].kid, header.kid):
            known = True
            if issuer.keys[place].algorithm == header.algorithm and count < SAME_KID_MAX:
                candidate[count] = &issuer.keys[place]
                count += 1
            place += 1
        if count == 0:
            return REASON_ALGORITHM if known else REASON_KID_UNKNOWN
    if not arena_decode(arena, signature, &proof):
        return REASON_MALFORMED
    for place in range(count):
        if key_verify(candidate[place].key, signed, <const unsigned char*>proof.ptr, proof.len):
            out.key_serial = candidate[place].serial
            return REASON_OK
    return REASON_SIGNATURE


# --- RevocationList ------------------------------------------------------------------------------

cdef enum:
    # Mixed into the hash of a row.
    REVOKED_JTI = 1
    REVOKED_SUB = 2
    REVOKED_SID = 3

cdef dict REVOCATION_KINDS = {"jti": <int>REVOKED_JTI, "sub": <int>REVOKED_SUB, "sid": <int>REVOKED_SID}


cdef inline uint64_t revocation_hash(int kind, uint64_t tweak, Slice value) noexcept nogil:
    """Hash of what a row names; 0 for an empty value, which names nothing."""
    cdef uint64_t hash
    if value.len == 0:
        return 0
    hash = secret_hash_tweaked(tweak + <uint64_t>kind, value)
    return hash if hash != 0 else 1


cdef RevocationRow* revocation_place(RevocationRow* rows, Py_ssize_t slots, uint64_t hash) noexcept nogil:
    """Give the row of `hash`, or the free row where it belongs. There always is a free row (count * 2 <= slots)."""
    cdef uint64_t mask = <uint64_t>(slots - 1)
    cdef uint64_t place = hash & mask
    while rows[place].hash != 0 and rows[place].hash != hash:
        place = (place + 1) & mask
    return &rows[place]


cdef enum:
    ROW_NONE = 0
    ROW_SPARES = 1      # there is a row; at this time it does not refuse
    ROW_REVOKES = 2


cdef int revocation_row(
    RevocationRow* rows, Py_ssize_t slots, uint64_t hash, const IssuerC* issuer, int64_t issued_at_s, int64_t now_s
) noexcept nogil:
    cdef RevocationRow* row
    if hash == 0:
        return ROW_NONE
    row = revocation_place(rows, slots, hash)
    if row.hash == 0:
        return ROW_NONE
    # A row that ends with the token's exp must reach as far as the leeway does. An absent iat is INT64_MIN: revoked.
    if now_s <= row.until_s + issuer.leeway_s and issued_at_s < row.issued_before_s:
        return ROW_REVOKES
    return ROW_SPARES


cdef int revocation_find(
    RevocationRow* rows,
    Py_ssize_t slots,
    uint64_t jti_hash,
    uint64_t sid_hash,
    Slice subject,
    const IssuerC* issuer,
    int64_t issued_at_s,
    int64_t now_s,
) noexcept nogil:
    """Look for rows against a token: the strongest of its jti's, its sid's and its subject's."""
    cdef int found = revocation_row(rows, slots, jti_hash, issuer, issued_at_s, now_s)
    found |= revocation_row(rows, slots, sid_hash, issuer, issued_at_s, now_s)
    found |= revocation_row(
        rows, slots, revocation_hash(REVOKED_SUB, issuer.tweak, subject), issuer, issued_at_s, now_s
    )
    return ROW_REVOKES if found & ROW_REVOKES else found


cdef class RevocationTable:
    def __cinit__(self, Py_ssize_t slots=64):
        self.slots = slots
        self.rows = <RevocationRow*>calloc(<size_t>slots, sizeof(RevocationRow))
        if self.rows is NULL:
            raise MemoryError()
        TOKEN_LIVE(1)

    def __dealloc__(self):
        if self.rows is not NULL:
            free(self.rows)
            TOKEN_LIVE(-1)

    cdef RevocationTable copy(self, Py_ssize_t slots, int64_t now_s):
        """Give a table of `slots` with the rows that still hold at `now_s` under any leeway."""
        cdef RevocationTable other = RevocationTable(slots)
        cdef Py_ssize_t i
        for i in range(self.slots):
            if self.rows[i].hash != 0 and now_s <= self.rows[i].until_s + LEEWAY_MAX_S:
                revocation_place(other.rows, other.slots, self.rows[i].hash)[0] = self.rows[i]
                other.count += 1
        return other


# --- the judge -----------------------------------------------------------------------------------

cdef void judge_core(
    const PlanC* plan,
    CacheC* structures,
    RevocationRow* rows,
    Py_ssize_t slots,
    Slice token,
    int64_t now_s,
    Arena* arena,
    Judged* out,
) noexcept nogil:
    """Judge one token from its bytes alone; the reason is in `out`, the rest of it is filled for REASON_OK only.

    Takes no lock and needs no GIL: everything it changes (`structures`, `arena`, `out`) belongs to the caller.
    """
    cdef Slice header_text, payload_text, signature_text
    cdef Header header
    cdef JsonValue claims[JSON_NAMES_MAX]
    cdef const IssuerC* issuer
    cdef uint64_t header_hash = 0
    cdef int dots
    out.issuer_index = -1
    out.structure_hit = False
    arena.used = 0
    dots = token_split(token, &header_text, &payload_text, &signature_text)
    if dots != 2:
        # Five segments are a JWE, which is refused, never introspected.
        out.reason = REASON_OPAQUE if plan.any_opaque and dots != 4 and opaque_text(token) else REASON_MALFORMED
        return
    out.reason = header_find(structures, header_text, &header_hash, arena, &header)
    if out.reason != REASON_OK:
        return
    out.structure_hit = header.cached
    if not arena_decode(arena, payload_text, &out.payload) or json_scan_object(out.payload, &plan.names, claims) < 0:
        out.reason = REASON_MALFORMED
        return
    out.reason = claims_judge(plan, claims, &header, now_s, arena, out)
    if out.reason != REASON_OK:
        return
    issuer = &plan.issuers[out.issuer_index]
    if now_s > issuer.usable_until_s:
        out.reason = REASON_KEYS_UNAVAILABLE
        return
    # The signing input is the first two segments and the dot between them (RFC 7515 §5.2).
    out.reason = signature_judge(
        issuer, &header, slice_of(token.ptr, header_text.len + 1 + payload_text.len), signature_text, arena, out
    )
    if out.reason != REASON_OK:
        return
    structure_keep(structures, header_text, header_hash, &header)
    out.jti_hash = revocation_hash(REVOKED_JTI, issuer.tweak, out.jti)
    out.sid_hash = revocation_hash(REVOKED_SID, issuer.tweak, out.sid)
    out.revocation = revocation_find(
        rows, slots, out.jti_hash, out.sid_hash, out.subject, issuer, out.issued_at_s, now_s
    )
    if out.revocation == ROW_REVOKES:
        out.reason = REASON_REVOKED


# --- rules, keys, plan ---------------------------------------------------------------------------

cdef Slice slice_of_bytes(bytes text):
    # Owner: `text`, which the caller keeps.
    return slice_of(PyBytes_AS_STRING(text), PyBytes_GET_SIZE(text))


cdef bytes bytes_of(Slice text):
    return PyBytes_FromStringAndSize(text.ptr, text.len)


cdef tuple bytes_tuple(object values, str name):
    """Check that `values` is an iterable of bytes, and give a tuple of it."""
    cdef tuple items = tuple(values)
    for item in items:
        if type(item) is not bytes:
            raise TypeError(f"`{name}` must hold bytes, not {type(item).__name__}")
    return items


cdef bytes media_type_bytes(bytes text):
    cdef bytes room
    cdef Slice source = slice_of_bytes(text)
    if source.len > TYPE_BYTES_MAX:
        raise ValueError(f"a `typ` may have {<int>TYPE_BYTES_MAX} bytes")
    room = PyBytes_FromStringAndSize(NULL, source.len)
    return bytes_of(media_type(source, PyBytes_AS_STRING(room)))


@cython.final
cdef class IssuerRules:
    """How the tokens of one issuer are judged. Immutable; equal settings make equal rules.

    `audiences`: one of them must be in `aud`; none is refused unless `any_audience`. `algorithms`: names of RFC 7518
    and 8037; the only ones that a token may use. `types`: accepted `typ` values, b"" for its absence (RFC 9068 §4:
    only `at+jwt`). `required_claims`: besides exp and iss. `lifetime_max_s`: refuse exp - iat above it; 0 = no bound.
    `opaque`: the issuer offers introspection, so a token that is no JWT asks instead of being malformed. Raises
    ValueError for settings that could never work or are unsafe.
    """

    def __cinit__(
        self,
        bytes issuer not None,
        *,
        audiences,
        bint any_audience=False,
        algorithms,
        int64_t leeway_s=LEEWAY_DEFAULT_S,
        types=(b"at+jwt", b"jwt", b""),
        required_claims=(),
        bint allow_sender_constrained=False,
        int64_t lifetime_max_s=0,
        bint opaque=False,
    ):
        cdef Algorithm algorithm
        cdef bytes name
        cdef Slice text = slice_of_bytes(issuer)
        if text.len == 0 or not header_safe(text):
            raise ValueError("an issuer must be a non-empty text without control bytes")
        self.issuer = issuer
        self.audiences = bytes_tuple(audiences, "audiences")
        self.any_audience = any_audience
        if not self.audiences and not any_audience:
            raise ValueError("no `audiences`: name at least one, or say any_audience")
        self.algorithms = tuple(algorithms)
        for item in self.algorithms:
            name = item.encode()
            algorithm = algorithm_of(slice_of_bytes(name))
            if algorithm == ALG_NONE:
                raise ValueError(f"unknown algorithm `{item}`")
            self.algorithm_mask |= <uint32_t>1 << <int>algorithm
        if self.algorithm_mask == 0 and not opaque:
            raise ValueError("no `algorithms`: name at least one")
        if not 0 <= leeway_s <= LEEWAY_MAX_S:
            raise ValueError(f"`leeway_s` must lie between 0 and {<int>LEEWAY_MAX_S}")
        if lifetime_max_s < 0:
            raise ValueError("`lifetime_max_s` must not be negative")
        self.leeway_s = leeway_s
        self.types = tuple([media_type_bytes(item) for item in bytes_tuple(types, "types")])
        if not self.types:
            raise ValueError("no `types`: name at least one")
        self.required_claims = bytes_tuple(required_claims, "required_claims")
        self.allow_sender_constrained = allow_sender_constrained
        self.lifetime_max_s = clamp_s(lifetime_max_s)
        self.opaque = opaque
        self.tweak = secret_hash(text)
        self.settings = (
            issuer, self.audiences, any_audience, self.algorithms, leeway_s, self.types, self.required_claims,
            allow_sender_constrained, lifetime_max_s, opaque,
        )

    def __eq__(self, other):
        return isinstance(other, IssuerRules) and self.settings == (<IssuerRules>other).settings

    def __hash__(self):
        return hash(self.settings)

    def __repr__(self):
        return f"IssuerRules({self.issuer!r}, algorithms={self.algorithms!r})"


@cython.final
cdef class KeySnapshot:
    """The issuers, their rules and their keys at one moment. Immutable.

    The three tuples are parallel: `usable_until_s` is the Unix second after which the keys of that issuer may not be
    used any more (0 = never loaded). Raises ValueError for unequal lengths or an issuer that comes twice.
    """

    def __cinit__(self, rules, keys, usable_until_s):
        cdef IssuerRules item
        self.rules = tuple(rules)
        self.keys = tuple([tuple(some) for some in keys])
        self.usable_until_s = tuple([int(second) for second in usable_until_s])
        if not len(self.rules) == len(self.keys) == len(self.usable_until_s):
            raise ValueError("`rules`, `keys` and `usable_until_s` must be equally long")
        seen = set()
        for some in self.rules:
            if type(some) is not IssuerRules:
                raise TypeError(f"`rules` must hold IssuerRules, not {type(some).__name__}")
            item = <IssuerRules>some
            if item.issuer in seen:
                raise ValueError(f"the issuer `{item.issuer.decode('utf-8', 'replace')}` comes twice")
            seen.add(item.issuer)
        for some in self.keys:
            for key in some:
                if type(key) is not KeyHandle:
                    raise TypeError(f"`keys` must hold KeyHandles, not {type(key).__name__}")


def _by_kid(KeyHandle key not None):
    return key.kid


cdef void* plan_array(Py_ssize_t count, size_t size) except NULL:
    cdef void* array = calloc(<size_t>(count if count > 0 else 1), size)
    if array is NULL:
        raise MemoryError()
    return array


cdef Slice* slices_of(tuple texts) except NULL:
    """Give an array of slices of the bytes objects in `texts`, which the caller keeps alive."""
    cdef Slice* array = <Slice*>plan_array(len(texts), sizeof(Slice))
    cdef Py_ssize_t i
    for i in range(len(texts)):
        array[i] = slice_of_bytes(texts[i])
    return array


@cython.final
cdef class JudgePlan:
    def __cinit__(self):
        self.c = <PlanC*>plan_array(1, sizeof(PlanC))
        TOKEN_LIVE(1)

    def __dealloc__(self):
        cdef int i
        if self.c is NULL:
            return
        if self.c.issuers is not NULL:
            for i in range(self.c.issuer_count):
                free(self.c.issuers[i].audiences)
                free(self.c.issuers[i].types)
                free(self.c.issuers[i].required)
                free(self.c.issuers[i].keys)
            free(self.c.issuers)
        free(self.c.by_name)
        free(self.c)
        TOKEN_LIVE(-1)

    cdef int lay_out(self, TokenValidator validator, KeySnapshot snapshot, JudgePlan previous) except -1:
        """Fill the C side: serials are taken over from `previous` for equal rules and for the same key objects."""
        cdef list names = list(FIXED_CLAIMS)
        cdef IssuerRules rules
        cdef IssuerC* issuer
        cdef int i, k
        cdef PlanC* c = self.c
        self.snapshot = snapshot
        self.rules_serials = {}
        self.key_serials = {}
        c.generation = 1 if previous is None else previous.c.generation + 1
        for name in validator.header_claim_names:
            if name not in names:
                names.append(name)
        for some in snapshot.rules:
            for name in (<IssuerRules>some).required_claims:
                if name not in names:
                    names.append(name)
        self.names = tuple(names)
        names_fill(&c.names, self.names)
        c.mapped_count = <int>len(validator.header_claim_names)
        for i in range(c.mapped_count):
            c.mapped[i] = names.index(validator.header_claim_names[i])

        c.issuers = <IssuerC*>plan_array(len(snapshot.rules), sizeof(IssuerC))
        c.issuer_count = <int>len(snapshot.rules)
        for i in range(c.issuer_count):
            rules = snapshot.rules[i]
            issuer = &c.issuers[i]
            issuer.issuer = slice_of_bytes(rules.issuer)
            issuer.tweak = rules.tweak
            issuer.algorithm_mask = rules.algorithm_mask
            issuer.leeway_s = rules.leeway_s
            issuer.lifetime_max_s = rules.lifetime_max_s
            issuer.any_audience = rules.any_audience
            issuer.allow_sender_constrained = rules.allow_sender_constrained
            issuer.opaque = rules.opaque
            c.any_opaque = c.any_opaque or rules.opaque
            issuer.usable_until_s = clamp_s(max(INT64_MIN, min(INT64_MAX, snapshot.usable_until_s[i])))
            issuer.rules_serial = validator.serial_of(
                rules, self.rules_serials, None if previous is None else previous.rules_serials
            )
            issuer.audiences = slices_of(rules.audiences)
            issuer.audience_count = <int>len(rules.audiences)
            issuer.types = slices_of(rules.types)
            issuer.type_count = <int>len(rules.types)
            issuer.required = <int*>plan_array(len(rules.required_claims), sizeof(int))
            issuer.required_count = <int>len(rules.required_claims)
            for k in range(issuer.required_count):
                issuer.required[k] = names.index(rules.required_claims[k])
            self.lay_out_keys(issuer, validator, sorted(snapshot.keys[i], key=_by_kid), previous)
        self.issuer_pairs = tuple([(b"x-auth-issuer", (<IssuerRules>some).issuer) for some in snapshot.rules])
        c.by_name = <int*>plan_array(c.issuer_count, sizeof(int))
        order = sorted([((<IssuerRules>some).issuer, n) for n, some in enumerate(snapshot.rules)])
        for i in range(c.issuer_count):
            c.by_name[i] = order[i][1]
        return 0

    cdef int lay_out_keys(self, IssuerC* issuer, TokenValidator validator, list keys, JudgePlan previous) except -1:
        cdef KeyHandle handle
        cdef int k
        for k in range(<int>ALG_COUNT):
            issuer.sole_key[k] = -1
        issuer.keys = <KeyEntry*>plan_array(len(keys), sizeof(KeyEntry))
        issuer.key_count = <int>len(keys)
        issuer.kidless = issuer.key_count > 0
        for k in range(issuer.key_count):
            handle = keys[k]
            issuer.keys[k].kid = slice_of_bytes(handle.kid)
            issuer.keys[k].algorithm = handle.alg
            issuer.keys[k].key = key_of(handle)
            issuer.keys[k].serial = validator.serial_of(
                handle, self.key_serials, None if previous is None else previous.key_serials
            )
            if issuer.keys[k].kid.len > 0:
                issuer.kidless = False
            if 0 < <int>handle.alg < <int>ALG_COUNT:
                issuer.sole_key[<int>handle.alg] = k if issuer.sole_key[<int>handle.alg] == -1 else -2
        return 0

    cdef bint still_holds(self, CachedToken* kept) noexcept:
        """True if the rules and the key of a cached verdict are still the issuer's; it then belongs to this plan."""
        cdef IssuerC* issuer
        cdef int k
        if not 0 <= kept.issuer_index < self.c.issuer_count:
            return False
        issuer = &self.c.issuers[kept.issuer_index]
        if issuer.rules_serial != kept.rules_serial:
            return False
        if kept.key_serial == 0:
            kept.generation = self.c.generation
            return True
        for k in range(issuer.key_count):
            if issuer.keys[k].serial == kept.key_serial:
                kept.generation = self.c.generation
                return True
        return False


# --- the validator -------------------------------------------------------------------------------

@cython.final
@cython.no_gc
@cython.freelist(64)
cdef class Identity:
    """Who a verified token speaks for, ready for headers. Immutable; made by a TokenValidator only."""

    def __init__(self):
        raise TypeError("a TokenValidator makes identities")

    def __repr__(self):
        return f"Identity(subject={self.subject!r}, issuer={self.issuer!r})"


cdef void drop_token(void* payload) noexcept nogil:
    # Law: token caches are used with the GIL held.
    token_object_drop((<CachedToken*>payload).identity)


cdef bint field_name(bytes name):
    """True for a header name as we send it: a token of RFC 9110 §5.6.2 in lower case, without `_`."""
    cdef uint8_t c
    if not name:
        return False
    for c in name:
        if not (c"a" <= c <= c"z" or c"0" <= c <= c"9" or c == c"-"):
            return False
    return True


cdef class TokenValidator:
    """Judge tokens against the published KeySnapshot, and keep the verdicts of verified ones.

    `entries` verified tokens are kept, each for `ttl_s` at most; 0 entries: none is. `structures`: parsed headers. A
    token above `token_bytes_max` is refused unread. `scope_names`: the scopes that routes ask for, a bit each in
    Identity.scope_mask, at most 64. `header_claims`: pairs of (header name, claim name) that become identity headers
    besides x-auth-subject, -issuer and -scopes. `claims_factory(payload)` makes Identity.claims;
    `error_factory(reason)` makes what `validate` raises. `hash_bits` below 64 makes cache keys collide: for tests.

    Until the first `publish` every token is refused as keys_unavailable. Safe to share between threads.
    """

    def __cinit__(
        self,
        *,
        Py_ssize_t entries=16384,
        double ttl_s=60.0,
        Py_ssize_t structures=1000,
        Py_ssize_t token_bytes_max=8192,
        scope_names=(),
        header_claims=(),
        claims_factory=None,
        error_factory=None,
        int hash_bits=64,
    ):
        if not 0 <= entries <= 1 << 28:
            raise ValueError("`entries` must lie between 0 and 268435456")
        if not 0 < ttl_s <= 86400.0:
            raise ValueError("`ttl_s` must lie above 0, and at 86400 at most")
        if not 0 <= structures <= 1 << 20:
            raise ValueError("`structures` must lie between 0 and 1048576")
        if not 64 <= token_bytes_max <= TOKEN_BYTES_LIMIT:
            raise ValueError(f"`token_bytes_max` must lie between 64 and {<int>TOKEN_BYTES_LIMIT}")
        if not 0 <= hash_bits <= 64:
            raise ValueError("`hash_bits` must lie between 0 and 64")
        self.scope_names = bytes_tuple(scope_names, "scope_names")
        if len(self.scope_names) > SCOPE_NAMES_MAX:
            raise ValueError(f"{len(self.scope_names)} scopes are named; {<int>SCOPE_NAMES_MAX} are possible")
        for name in self.scope_names:
            if not name or b" " in name:
                raise ValueError("a scope must be a text without spaces")
        self.header_names = bytes_tuple([pair[0] for pair in header_claims], "header_claims")
        self.header_claim_names = bytes_tuple([pair[1] for pair in header_claims], "header_claims")
        if len(self.header_names) > HEADER_CLAIMS_MAX:
            raise ValueError(f"{len(self.header_names)} claims are mapped; {<int>HEADER_CLAIMS_MAX} are possible")
        taken = {b"x-auth-subject", b"x-auth-issuer", b"x-auth-scopes"}
        for name in self.header_names:
            if not field_name(name) or name in taken:
                raise ValueError(f"`{name.decode('latin-1')}` cannot be an identity header, or comes twice")
            taken.add(name)
        self.token_bytes_max = token_bytes_max
        self.ttl_ticks = <uint32_t>(ttl_s * CACHE_TICKS_PER_S)
        if self.ttl_ticks == 0:
            self.ttl_ticks = 1
        self.claims_factory = claims_factory
        self.error_factory = error_factory
        self.revocations = RevocationTable()
        self.scope_sets = {}
        if entries:
            self.tokens = cache_new(entries, sizeof(CachedToken), drop_token, hash_bits)
            if self.tokens is NULL:
                raise MemoryError()
        if structures:
            self.structures = cache_new(structures, sizeof(CachedStructure), NULL, hash_bits)
            if self.structures is NULL:
                raise MemoryError()
        # Room for three decoded segments (3/4 of the token) and every string twice: see arena_take.
        self.scratch_bytes = 3 * token_bytes_max + 64
        self.scratch = <char*>malloc(<size_t>self.scratch_bytes)
        if self.scratch is NULL:
            raise MemoryError()
        TOKEN_LIVE(1)

    def __dealloc__(self):
        cache_free(self.tokens)
        cache_free(self.structures)
        if self.scratch is not NULL:
            free(self.scratch)
            TOKEN_LIVE(-1)

    cdef uint32_t serial_of(self, object item, dict serials, dict previous) except 0:
        """Give the number of rules or a key: the one of the previous plan, or one that was never given before."""
        known = serials.get(item)
        if known is None and previous is not None:
            known = previous.get(item)
        if known is None:
            if self.serial == 0xffffffff:
                raise OverflowError("no serial numbers are left for rules and keys")
            self.serial += 1
            known = self.serial
        serials[item] = known
        return known

    def publish(self, KeySnapshot snapshot not None):
        """Judge by `snapshot` from now on.

        Verdicts that are kept stay valid only if equal rules and the same KeyHandle object are still the issuer's.
        """
        cdef JudgePlan plan = JudgePlan()
        plan.lay_out(self, snapshot, self.plan)
        self.plan = plan

    # -- judging

    cdef Identity judge(self, Slice token, int64_t now_s, TokenVerdict* verdict):
        cdef Identity identity = self.judge_kept(token, now_s, verdict)
        if verdict.reason == REASON_COUNT:
            self.judged += 1
            return self.judge_new(token, clamp_s(now_s), verdict)
        return identity

    cdef Identity judge_kept(self, Slice token, int64_t now_s, TokenVerdict* verdict):
        cdef JudgePlan plan = self.plan
        cdef CacheEntry* entry
        cdef CachedToken* kept
        cdef IssuerC* issuer
        cdef uint64_t hash
        cdef int row
        verdict.reason = REASON_KEYS_UNAVAILABLE
        verdict.issuer_index = -1
        verdict.from_cache = False
        if token.len > self.token_bytes_max:
            self.judged += 1
            verdict.reason = REASON_TOO_LARGE
            return None
        if plan is None:
            return None
        now_s = clamp_s(now_s)
        if memchr(token.ptr, c".", <size_t>token.len) is NULL and not plan.c.any_opaque:
            verdict.reason = REASON_MALFORMED
            return None
        if self.tokens is NULL:
            verdict.reason = REASON_COUNT
            return None
        hash = token_hash(token)
        entry = cache_find(self.tokens, token, hash, clock_tick() + self.skipped_ticks)
        if entry is NULL:
            verdict.reason = REASON_COUNT
            return None
        kept = <CachedToken*>cache_payload(entry)
        if (
            (kept.generation != plan.c.generation and not plan.still_holds(kept))
            or now_s >= kept.not_after_s
            or now_s < kept.not_before_s
        ):
            cache_remove(self.tokens, token, hash)
            verdict.reason = REASON_COUNT
            return None
        issuer = &plan.c.issuers[kept.issuer_index]
        self.judged += 1
        verdict.issuer_index = kept.issuer_index
        verdict.from_cache = True
        if kept.key_serial != 0 and now_s > issuer.usable_until_s:
            return None
        if kept.revocation_generation != self.revocation_generation:
            row = self.kept_revocation(kept, issuer, now_s)
            if row == ROW_REVOKES:
                # Kept, so that the next request with it costs no signature either.
                verdict.reason = REASON_REVOKED
                return None
            # A row that spares it now may not at another time (a clock set back): look again on the next hit.
            if row == ROW_NONE:
                kept.revocation_generation = self.revocation_generation
        verdict.reason = REASON_OK
        return <Identity><object>kept.identity

    cdef void forgive_miss(self) noexcept:
        if self.tokens is not NULL and self.tokens.misses > 0:
            self.tokens.misses -= 1

    cdef int kept_revocation(self, CachedToken* kept, IssuerC* issuer, int64_t now_s) noexcept:
        cdef RevocationTable table = self.revocations
        return revocation_find(
            table.rows,
            table.slots,
            kept.jti_hash,
            kept.sid_hash,
            slice_of_bytes((<Identity><object>kept.identity).subject),
            issuer,
            kept.issued_at_s if kept.issued_at_s != 0 else INT64_MIN,
            now_s,
        )

    cdef Identity judge_new(self, Slice token, int64_t now_s, TokenVerdict* verdict):
        cdef JudgePlan plan = self.plan                       # kept: a `cryptography` key lets other threads publish
        cdef RevocationTable table = self.revocations
        cdef uint32_t revocation_generation = self.revocation_generation
        cdef Identity identity
        cdef Judged judged
        cdef Arena arena
        cdef bint borrowed = not self.scratch_busy
        arena.capacity = self.scratch_bytes
        arena.base = self.scratch if borrowed else <char*>malloc(<size_t>arena.capacity)
        if arena.base is NULL:
            verdict.reason = REASON_KEYS_UNAVAILABLE
            return None
        self.scratch_busy = True
        try:
            judge_core(plan.c, self.structures, table.rows, table.slots, token, now_s, &arena, &judged)
            verdict.issuer_index = judged.issuer_index
            self.structure_hits += judged.structure_hit
            if judged.reason != REASON_OK:
                verdict.reason = judged.reason
                return None
            identity = self.identity_of(plan, &judged)
            self.keep(plan, token, identity, &judged, revocation_generation)
            self.accepted += 1
            verdict.reason = REASON_OK
            return identity
        except BaseException as error:
            # No memory, or a fault of claims_factory: not the token's fault, so "come again", never "allowed".
            _report(error)
            verdict.reason = REASON_KEYS_UNAVAILABLE
            return None
        finally:
            if borrowed:
                self.scratch_busy = False
            else:
                free(arena.base)

    cdef Identity identity_of(self, JudgePlan plan, Judged* judged):
        """Build the Identity of a judged token."""
        cdef Identity identity = Identity.__new__(Identity)
        cdef tuple scope_set = self.scope_set_of(judged.scopes)
        cdef tuple issuer_pair = <tuple>plan.issuer_pairs[judged.issuer_index]
        cdef tuple subject_pair
        cdef list headers
        cdef int i
        identity.subject = bytes_of(judged.subject)
        identity.issuer = <bytes>issuer_pair[1]
        identity.scopes = <tuple>scope_set[0]
        identity.scope_mask = <uint64_t>scope_set[2]
        identity.expires_at_s = judged.expires_at_s
        identity.issuer_index = judged.issuer_index
        subject_pair = (b"x-auth-subject", identity.subject)
        if self.header_names:
            headers = [subject_pair, issuer_pair, scope_set[1]]
            for i in range(<int>len(self.header_names)):
                headers.append((self.header_names[i], bytes_of(judged.mapped[i])))
            identity.headers = tuple(headers)
        else:
            identity.headers = (subject_pair, issuer_pair, scope_set[1])
        if self.claims_factory is not None:
            identity.claims = self.claims_factory(bytes_of(judged.payload))
        return identity

    cdef tuple scope_set_of(self, Slice text):
        """Give (scopes, header pair, mask) of normalised scopes: shared by all tokens that have the same."""
        cdef bytes key = bytes_of(text)
        cdef object known = self.scope_sets.get(key)
        cdef uint64_t mask = 0
        cdef tuple scopes
        cdef int i
        if known is not None:
            return <tuple>known
        scopes = tuple(key.split(b" ")) if key else ()
        for i in range(<int>len(self.scope_names)):
            if self.scope_names[i] in scopes:
                mask |= <uint64_t>1 << i
        if len(self.scope_sets) >= SCOPE_SETS_MAX:
            self.scope_sets.clear()
        known = (scopes, (b"x-auth-scopes", key), mask)
        self.scope_sets[key] = known
        return <tuple>known

    cdef int keep(
        self, JudgePlan plan, Slice token, Identity identity, Judged* judged, uint32_t revocation_generation
    ) except -1:
        """Remember a verdict under the plan and the revocations by which it was judged."""
        cdef CachedToken kept
        cdef IssuerC* issuer = &plan.c.issuers[judged.issuer_index]
        cdef uint32_t deadline_tick = clock_tick() + self.skipped_ticks + self.ttl_ticks
        if self.tokens is NULL:
            return 0
        kept.identity = <void*>identity
        kept.not_after_s = short_s(judged.expires_at_s + issuer.leeway_s)
        kept.not_before_s = short_s(max(judged.not_before_s, 0) - issuer.leeway_s)
        kept.issued_at_s = short_s(judged.issued_at_s)
        kept.jti_hash = judged.jti_hash
        kept.sid_hash = judged.sid_hash
        kept.key_serial = judged.key_serial
        kept.rules_serial = issuer.rules_serial
        kept.generation = plan.c.generation
        # With a row that spares the token for now, the first hit looks again.
        kept.revocation_generation = revocation_generation - (1 if judged.revocation != ROW_NONE else 0)
        kept.issuer_index = judged.issuer_index
        token_object_hold(kept.identity)
        if cache_put(self.tokens, token, token_hash(token), deadline_tick, &kept, slice_empty()) < 0:
            token_object_drop(kept.identity)
        return 0

    # -- the Python face

    def judge_token(self, bytes token not None, now_s=None):
        """Return (Identity, "ok"), or (None, reason): one of REASONS. Never raises for any token.

        `now_s` is Unix time in seconds; the machine's clock by default.
        """
        cdef TokenVerdict verdict
        cdef Identity identity = self.judge(
            slice_of_bytes(token), token_clock_s() if now_s is None else <int64_t>now_s, &verdict
        )
        return (identity, <object>REASON_NAMES[<int>verdict.reason])

    def judge_closely(self, bytes token not None, now_s=None):
        """Return (Identity or None, reason, issuer_index, from_cache); issuer_index is -1 where no issuer was found."""
        cdef TokenVerdict verdict
        cdef Identity identity = self.judge(
            slice_of_bytes(token), token_clock_s() if now_s is None else <int64_t>now_s, &verdict
        )
        return (identity, REASON_NAMES[<int>verdict.reason], verdict.issuer_index, bool(verdict.from_cache))

    def validate(self, token, *, now=None):
        """Return the claims of `token` (bytes or str), or its Identity where there is no `claims_factory`.

        Raises what `error_factory` makes of the reason for any token that is refused. `now` is Unix time in seconds.
        """
        cdef TokenVerdict verdict
        cdef Identity identity
        cdef Slice text
        if type(token) is bytes:
            text = slice_of_bytes(<bytes>token)
        elif isinstance(token, str):
            try:
                text.ptr = PyUnicode_AsUTF8AndSize(token, &text.len)
            except UnicodeEncodeError:
                text = slice_empty()    # lone surrogates: no token
        else:
            raise TypeError(f"a token is bytes or str, not {type(token).__name__}")
        identity = self.judge(text, token_clock_s() if now is None else <int64_t>floor(now), &verdict)
        if identity is None:
            raise self._refusal(REASON_NAMES[<int>verdict.reason])
        return identity if self.claims_factory is None else identity.claims

    def _refusal(self, str reason):
        return ValueError(reason) if self.error_factory is None else self.error_factory(reason)

    def judge_batch(self, tokens, now_s=None):
        """Return the reason for each of `tokens` (bytes), without caches and identities, and without the GIL meanwhile.

        Threads that judge batches at the same time use one core each.
        """
        cdef tuple held = bytes_tuple(tokens, "tokens")
        cdef Py_ssize_t count = len(held), i
        cdef JudgePlan plan = self.plan
        cdef RevocationTable table = self.revocations
        cdef int64_t clock_s = clamp_s(token_clock_s() if now_s is None else <int64_t>now_s)
        cdef Slice* texts = NULL
        cdef uint8_t* reasons = NULL
        cdef CacheC* structures = NULL
        cdef Py_ssize_t token_bytes_max = self.token_bytes_max
        cdef Arena arena
        cdef Judged judged
        if plan is None:
            return [REASON_NAMES[<int>REASON_KEYS_UNAVAILABLE]] * count
        arena.capacity = self.scratch_bytes
        arena.base = NULL
        try:
            texts = <Slice*>malloc(<size_t>(count + 1) * sizeof(Slice))
            reasons = <uint8_t*>malloc(<size_t>(count + 1))
            structures = cache_new(BATCH_STRUCTURES, sizeof(CachedStructure), NULL, 64)
            arena.base = <char*>malloc(<size_t>arena.capacity)
            if texts is NULL or reasons is NULL or structures is NULL or arena.base is NULL:
                raise MemoryError()
            for i in range(count):
                texts[i] = slice_of_bytes(<bytes>held[i])
            table.readers += 1
            with nogil:
                for i in range(count):
                    if texts[i].len > token_bytes_max:
                        reasons[i] = REASON_TOO_LARGE
                        continue
                    judge_core(plan.c, structures, table.rows, table.slots, texts[i], clock_s, &arena, &judged)
                    reasons[i] = <uint8_t>judged.reason
            table.readers -= 1
            return [REASON_NAMES[reasons[i]] for i in range(count)]
        finally:
            free(texts)
            free(reasons)
            free(arena.base)
            cache_free(structures)

    # -- revocation

    def revoke(
        self,
        str kind not None,
        bytes issuer not None,
        bytes value not None,
        *,
        int64_t until_s,
        int64_t issued_before_s=0,
        now_s=None,
    ):
        """Refuse tokens of `issuer` whose `kind` ("jti", "sub" or "sid") is `value`, from now on and in every cache.

        The row holds up to `until_s` (give the latest exp of the tokens meant; leeway is added). `sub` and `sid`
        spare tokens issued at or after `issued_before_s`, 0 spares none; a token without iat is never spared. Raises
        ValueError for another kind or an empty value, OverflowError when REVOCATIONS_MAX rows hold: then nothing is
        forgotten silently.
        """
        self.revoke_many(((kind, issuer, value, until_s, issued_before_s),), now_s)

    def revoke_many(self, rows, now_s=None):
        """Take many rows (kind, issuer, value, until_s, issued_before_s) at once; see `revoke`.

        Where one is refused, those before it hold.
        """
        cdef int64_t clock_s = clamp_s(token_clock_s() if now_s is None else <int64_t>now_s)
        try:
            for kind, issuer, value, until_s, issued_before_s in rows:
                self.revoke_one(kind, issuer, value, clamp_s(until_s), clamp_s(issued_before_s), clock_s)
        finally:
            self.revocation_generation += 1

    cdef int revoke_one(
        self, object kind, bytes issuer, bytes value, int64_t until_s, int64_t issued_before_s, int64_t now_s
    ) except -1:
        cdef RevocationTable table = self.revocations
        cdef RevocationRow* row
        cdef uint64_t hash
        cdef int number = REVOCATION_KINDS.get(kind, 0)
        if number == 0:
            raise ValueError(f"unknown kind of revocation `{kind}`")
        if not issuer or not value:
            raise ValueError("a revocation needs an issuer and a value")
        if issued_before_s == 0 or number == REVOKED_JTI:
            issued_before_s = INT64_MAX
        if table.readers > 0 or (table.count + 1) * 2 > table.slots:
            table = self.make_room(table, now_s)
        hash = revocation_hash(number, secret_hash(slice_of_bytes(issuer)), slice_of_bytes(value))
        row = revocation_place(table.rows, table.slots, hash)
        if row.hash == 0:
            row.hash = hash
            row.until_s = until_s
            row.issued_before_s = issued_before_s
            table.count += 1
            return 0
        if now_s > row.until_s + LEEWAY_MAX_S:
            row.until_s = until_s
            row.issued_before_s = issued_before_s
            return 0
        # Two rows for one thing: what either refuses stays refused.
        row.until_s = max(row.until_s, until_s)
        row.issued_before_s = max(row.issued_before_s, issued_before_s)
        return 0

    cdef RevocationTable make_room(self, RevocationTable table, int64_t now_s):
        """Put a copy in the table's place, without rows that are over, with room for one more."""
        cdef Py_ssize_t slots = table.slots
        cdef RevocationTable other = table.copy(slots, now_s)
        if (other.count + 1) * 2 > slots:
            if slots >= 2 * <Py_ssize_t>REVOCATIONS_MAX:
                raise OverflowError(f"{<int>REVOCATIONS_MAX} revocations hold already")
            slots *= 2
            other = other.copy(slots, now_s)
        self.revocations = other
        return other

    # -- the rest

    def remember(
        self,
        bytes token not None,
        *,
        int issuer_index,
        bytes subject not None,
        scopes,
        int64_t expires_at_s,
        claims,
        bytes jti not None=b"",
        bytes sid not None=b"",
        int64_t issued_at_s=0,
        now_s=None,
    ):
        """Keep an introspected opaque token like a verified one, up to `expires_at_s`; return its Identity.

        `claims` are the members of the introspection answer (JSON values), from which mapped headers are made.
        Returns None where the token has expired already or is revoked. Raises ValueError for values that may not
        stand in a header, and IndexError for an issuer that the published snapshot does not have.
        """
        cdef JudgePlan plan = self.plan
        cdef int64_t clock_s = clamp_s(token_clock_s() if now_s is None else <int64_t>now_s)
        cdef JsonValue found[JSON_NAMES_MAX]
        cdef IssuerC* issuer
        cdef RevocationTable table = self.revocations
        cdef Identity identity
        cdef Judged judged
        cdef Arena arena
        cdef bytes scope_text, payload
        cdef int i
        if plan is None or not 0 <= issuer_index < plan.c.issuer_count:
            raise IndexError(f"no issuer {issuer_index} is published")
        issuer = &plan.c.issuers[issuer_index]
        scope_text = b" ".join(bytes_tuple(scopes, "scopes"))
        payload = json.dumps(dict(claims), ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode()
        memset(&judged, 0, sizeof(Judged))
        judged.issuer_index = issuer_index
        judged.expires_at_s = clamp_s(expires_at_s)
        judged.not_before_s = INT64_MIN
        judged.issued_at_s = issued_at_s if issued_at_s > 0 else INT64_MIN
        judged.subject = slice_of_bytes(subject)
        judged.jti = slice_of_bytes(jti)
        judged.sid = slice_of_bytes(sid)
        judged.scopes = slice_of_bytes(scope_text)
        judged.payload = slice_of_bytes(payload)
        judged.jti_hash = revocation_hash(REVOKED_JTI, issuer.tweak, judged.jti)
        judged.sid_hash = revocation_hash(REVOKED_SID, issuer.tweak, judged.sid)
        if not header_safe(judged.subject) or not header_safe(judged.scopes) or b"  " in scope_text:
            raise ValueError("the subject or the scopes may not stand in a header")
        arena.capacity = 2 * len(payload) + 64
        arena.used = 0
        arena.base = <char*>malloc(<size_t>arena.capacity)
        if arena.base is NULL:
            raise MemoryError()
        try:
            if json_scan_object(judged.payload, &plan.c.names, found) < 0:
                raise ValueError("the claims are no JSON object within our limits")
            for i in range(plan.c.mapped_count):
                if not claim_render(&found[plan.c.mapped[i]], &arena, &judged.mapped[i]):
                    name = self.header_claim_names[i].decode("utf-8", "replace")
                    raise ValueError(f"the claim `{name}` may not stand in a header")
            if clock_s >= judged.expires_at_s + issuer.leeway_s:
                return None
            judged.revocation = revocation_find(
                table.rows,
                table.slots,
                judged.jti_hash,
                judged.sid_hash,
                judged.subject,
                issuer,
                judged.issued_at_s,
                clock_s,
            )
            if judged.revocation == ROW_REVOKES:
                return None
            identity = self.identity_of(plan, &judged)
            if len(token) <= self.token_bytes_max:
                self.keep(plan, slice_of_bytes(token), identity, &judged, self.revocation_generation)
            return identity
        finally:
            free(arena.base)

    def forget_all(self):
        """Drop every kept verdict and parsed header. Revocations stay."""
        if self.tokens is not NULL:
            cache_clear(self.tokens)
        if self.structures is not NULL:
            cache_clear(self.structures)
        self.scope_sets.clear()

    def stats(self):
        """Return counts; `hits` and `misses` are those of the cache of verified tokens."""
        return {
            "judged": self.judged,
            "accepted": self.accepted,
            "entries": 0 if self.tokens is NULL else self.tokens.count,
            "entry_bytes": 0 if self.tokens is NULL else self.tokens.entry_bytes,
            "hits": 0 if self.tokens is NULL else self.tokens.hits,
            "misses": 0 if self.tokens is NULL else self.tokens.misses,
            "evictions": 0 if self.tokens is NULL else self.tokens.evictions,
            "structures": 0 if self.structures is NULL else self.structures.count,
            "structure_hits": self.structure_hits,
            "revocations": self.revocations.count,
            "revocation_generation": self.revocation_generation,
            "snapshot_generation": 0 if self.plan is None else self.plan.c.generation,
        }

    def _advance(self, double seconds):
        """Move the clock of the caches' ages ahead: for tests."""
        self.skipped_ticks += <uint32_t>(seconds * CACHE_TICKS_PER_S)


def _report(error):
    import sys

    sys.unraisablehook(_Unraisable(error))


class _Unraisable:
    """What sys.unraisablehook expects."""

    err_msg = "exception ignored while judging a token"
    object = None

    def __init__(self, error):
        self.exc_type = type(error)
        self.exc_value = error
        self.exc_traceback = error.__traceback__


def live_blocks():
    """Return how many plans, tables and validators are alive, or -1 unless built with PORTCULLIS_DEBUG=1."""
    return token_live_blocks()
