"""One JWT, judged: split, header, claims, signature, caches; without Python objects until there is a verdict."""

from libc.stdint cimport int64_t, uint32_t, uint64_t

from gateway._native.cache cimport CacheC
from gateway._native.slice cimport Slice
from gateway._native.verify cimport Algorithm

cdef enum:
    TOKEN_BYTES_LIMIT = 1 << 20    # what token_bytes_max may be set to, at most
    KID_BYTES_MAX = 1024           # a longer `kid` is refused
    TYPE_BYTES_MAX = 128           # a longer `typ` or `cty` is refused
    STRUCTURE_BYTES_MAX = 1024     # a header segment longer than this is parsed each time
    SCOPES_MAX = 256               # scopes of one token
    SCOPE_NAMES_MAX = 64           # scopes that routes may name: one bit each
    HEADER_CLAIMS_MAX = 32         # claims mapped to identity headers
    SAME_KID_MAX = 4               # keys with one kid and algorithm that are tried
    LEEWAY_DEFAULT_S = 30          # for tokens of nobody we know: they are refused either way
    LEEWAY_MAX_S = 3600            # what an issuer's leeway may be set to
    REVOCATIONS_MAX = 1 << 20      # rows; one more is an error, never a forgotten revocation
    BATCH_STRUCTURES = 16          # parsed headers that one judge_batch call keeps

# ORDER REASON: `REASONS` in token.pyx names each of these, in this order; gateway/tokens/reasons.py documents them.
cdef enum Reason:
    REASON_OK = 0
    # asks: Python may learn something and judge again
    REASON_KID_UNKNOWN          # no such key at the issuer (yet)
    REASON_OPAQUE               # not in JWT form; an issuer offers introspection
    REASON_KEYS_UNAVAILABLE     # the issuer's keys were never loaded, or are older than stale_s
    # denials of the form
    REASON_MALFORMED            # not three segments, not canonical base64url, not a JSON object, duplicate names…
    REASON_TOO_LARGE
    REASON_HEADER_INVALID       # crit, b64, zip, wrong member types, JWE members…
    REASON_ALGORITHM            # not one of the issuer's, or not the key's
    REASON_TYPE                 # `typ` is of another kind (RFC 8725 §3.11, RFC 9068 §4)
    # denials of the claims
    REASON_ISSUER_UNKNOWN
    REASON_CLAIM_INVALID        # a registered claim of the wrong JSON type or out of range
    REASON_EXPIRED
    REASON_ISSUED_IN_FUTURE
    REASON_NOT_YET_VALID
    REASON_AUDIENCE
    REASON_CLAIM_MISSING        # exp, or a claim that the issuer's rules require
    REASON_SENDER_CONSTRAINED   # `cnf` without its proof (RFC 9449 §7.1, RFC 8705 §3)
    # denials of proof
    REASON_SIGNATURE
    REASON_REVOKED
    REASON_COUNT

cdef class Identity:
    """Who a verified token speaks for, ready for headers. Immutable; shared by cache, requests and logs."""
    cdef readonly bytes subject            # `sub`, UTF-8
    cdef readonly bytes issuer
    cdef readonly tuple scopes             # of bytes, in the token's order
    cdef readonly tuple headers            # ((name, value), …) of bytes: the identity headers, decision id excepted
    cdef readonly object claims            # the library's Claims, or None where nobody asked for it
    cdef readonly int64_t expires_at_s     # Unix time
    cdef readonly int issuer_index
    cdef uint64_t scope_mask               # bit i: the token holds the validator's scope_names[i]

cdef struct TokenVerdict:
    Reason reason
    int issuer_index        # which issuer's rules applied, or -1
    bint from_cache

cdef class IssuerRules:
    """How the tokens of one issuer are judged. Immutable; equal rules compare equal."""
    cdef readonly bytes issuer
    cdef readonly tuple audiences          # of bytes
    cdef readonly bint any_audience
    cdef readonly tuple algorithms         # of str
    cdef readonly int64_t leeway_s
    cdef readonly tuple types              # of bytes: lower case, without "application/"; b"" = absent
    cdef readonly tuple required_claims    # of bytes
    cdef readonly bint allow_sender_constrained
    cdef readonly int64_t lifetime_max_s
    cdef readonly bint opaque
    cdef uint32_t algorithm_mask           # bit a: Algorithm a may sign
    cdef uint64_t tweak                    # of this issuer's revocation hashes
    cdef tuple settings                    # all of the above, for comparing

cdef class KeySnapshot:
    """The issuers, their rules and their keys at one moment. Immutable; published whole."""
    cdef readonly tuple rules              # of IssuerRules
    cdef readonly tuple keys               # of tuples of KeyHandle, per issuer
    cdef readonly tuple usable_until_s     # of int, per issuer

cdef struct PlanC
cdef struct IssuerC
cdef struct CachedToken
cdef struct Judged
cdef class TokenValidator

cdef class JudgePlan:
    """A published snapshot, laid out for the judge. Immutable, so that it may be read without the GIL."""
    cdef PlanC* c                          # owned; freed in __dealloc__
    cdef KeySnapshot snapshot              # keeps alive what `c` points into
    cdef tuple names                       # of bytes: the claims asked for, in the order of one scan
    cdef tuple issuer_pairs                # the prebuilt (b"x-auth-issuer", issuer), per issuer
    cdef dict rules_serials                # IssuerRules -> serial
    cdef dict key_serials                  # KeyHandle -> serial
    cdef int lay_out(self, TokenValidator validator, KeySnapshot snapshot, JudgePlan previous) except -1
    cdef int lay_out_keys(self, IssuerC* issuer, TokenValidator validator, list keys, JudgePlan previous) except -1
    cdef bint still_holds(self, CachedToken* kept) noexcept

cdef struct RevocationRow

cdef class RevocationTable:
    """Rows by secret hash of (kind, issuer, value). Changed in place only while nobody reads it without the GIL."""
    cdef RevocationRow* rows               # owned; `slots` of them, open addressing
    cdef Py_ssize_t slots                  # a power of two
    cdef Py_ssize_t count                  # INVARIANT: count * 2 <= slots
    cdef Py_ssize_t readers                # judge_batch calls that read it now; changed under the GIL
    cdef RevocationTable copy(self, Py_ssize_t slots, int64_t now_s)

cdef class TokenValidator:
    """Judge tokens against the published KeySnapshot. One a process; methods need the GIL unless named nogil."""
    # settings
    cdef Py_ssize_t token_bytes_max
    cdef uint32_t ttl_ticks
    cdef tuple scope_names                 # of bytes; bit i of Identity.scope_mask
    cdef tuple header_names                # of bytes: the mapped identity headers
    cdef tuple header_claim_names          # of bytes: their claims, in the same order
    cdef object claims_factory             # callable (payload) -> object, or None
    cdef object error_factory              # callable (reason) -> exception, or None
    # state
    cdef JudgePlan plan                    # None until the first publish
    cdef uint32_t serial                   # the last one given to rules or a key; never given twice
    cdef RevocationTable revocations
    cdef uint32_t revocation_generation    # moves with every revocation
    cdef CacheC* tokens                    # owned; payload CachedToken; NULL where nothing is kept
    cdef CacheC* structures                # owned; payload CachedStructure; NULL where nothing is kept
    cdef char* scratch                     # owned; the arena of `judge`
    cdef Py_ssize_t scratch_bytes
    cdef bint scratch_busy                 # a judge on another thread waits for a `cryptography` key: use another arena
    cdef dict scope_sets                   # scope text -> (scopes, header pair, mask); at most SCOPE_SETS_MAX
    cdef uint32_t skipped_ticks            # how far `_advance` moved the age clock
    cdef uint64_t judged, structure_hits, accepted

    cdef Identity judge(self, Slice token, int64_t now_s, TokenVerdict* verdict)
    """Give the Identity and reason OK, or None and the reason. Never raises.

    `token` is borrowed for the call. A cached verdict re-checks exp, nbf, the key's presence in the snapshot, the age
    bound of the issuer's keys and the revocation generation.
    """
    cdef Identity judge_kept(self, Slice token, int64_t now_s, TokenVerdict* verdict)
    """The same for a token that is known: no signature is looked at. REASON_COUNT where it is not known, or not any more."""
    cdef void forgive_miss(self) noexcept
    """Do not count the miss that judge_kept has just had: the token is judged once more, and counted then."""
    cdef Identity judge_new(self, Slice token, int64_t now_s, TokenVerdict* verdict)
    cdef int kept_revocation(self, CachedToken* kept, IssuerC* issuer, int64_t now_s) noexcept
    cdef Identity identity_of(self, JudgePlan plan, Judged* judged)
    cdef tuple scope_set_of(self, Slice text)
    cdef int keep(
        self, JudgePlan plan, Slice token, Identity identity, Judged* judged, uint32_t revocation_generation
    ) except -1
    cdef uint32_t serial_of(self, object item, dict serials, dict previous) except 0
    cdef int revoke_one(
        self, object kind, bytes issuer, bytes value, int64_t until_s, int64_t issued_before_s, int64_t now_s
    ) except -1
    cdef RevocationTable make_room(self, RevocationTable table, int64_t now_s)
