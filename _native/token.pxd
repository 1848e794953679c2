"""One JWT, judged: split, header, claims, signature, caches; without Python objects until there is a verdict."""

from libc.stdint cimport int64_t, uint32_t, uint64_t

from gateway._native.slice cimport Slice

# ORDER REASON: `REASONS` in token.pyx names each of these, in this order; gateway/errors.py documents them.
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

cdef class TokenValidator:
    """Judge tokens against the published KeySnapshot. One a process; methods need the GIL unless named nogil."""
    cdef Identity judge(self, Slice token, int64_t now_s, TokenVerdict* verdict)
    """Give the Identity and reason OK, or None and the reason. Never raises.

    `token` is borrowed for the call. A cached verdict re-checks exp, nbf, the key's presence in the snapshot, the age
    bound of the issuer's keys and the revocation generation.
    """
