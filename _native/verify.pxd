"""Public-key and HMAC verification of JWS signatures through the system's libcrypto, without the GIL."""

from gateway._native.slice cimport Slice

cdef enum Algorithm:
    ALG_NONE = 0     # no algorithm; never verifies
    ALG_RS256 = 1
    ALG_RS384 = 2
    ALG_RS512 = 3
    ALG_PS256 = 4
    ALG_PS384 = 5
    ALG_PS512 = 6
    ALG_ES256 = 7
    ALG_ES384 = 8
    ALG_ES512 = 9
    ALG_EDDSA = 10   # Ed25519 only (RFC 8037, RFC 9864 `Ed25519`)
    ALG_HS256 = 11
    ALG_HS384 = 12
    ALG_HS512 = 13
    ALG_COUNT = 14

cdef enum:
    RSA_BITS_MIN = 2048      # RFC 7518 §3.3
    RSA_BITS_MAX = 8192      # above, one verification costs more than a token may
    POOL_SLOTS_MAX = 256     # contexts that one key keeps

cdef Algorithm algorithm_of(Slice name) noexcept nogil
"""The algorithm that a JOSE `alg` value names, exact bytes (`Ed25519` is EdDSA too); ALG_NONE for any other."""

cdef struct KeyC

cdef class KeyHandle:
    """One key, bound at load to one algorithm. Immutable; shared by snapshots; owns its libcrypto objects."""
    cdef KeyC* c                # owned; freed in __dealloc__
    cdef readonly bytes kid     # the JWK's `kid`, exact bytes; b"" when it has none
    cdef readonly str algorithm
    cdef readonly str backend   # "libcrypto" or "cryptography"
    cdef readonly bytes material  # 32 bytes, equal for equal key material within this process; tells nothing of a secret
    cdef object python_verify   # callable (signature, signed) -> bool of the fallback, or None
    cdef Algorithm alg

cdef bint key_verify(KeyC* key, Slice signed, const unsigned char* signature, Py_ssize_t signature_len) noexcept nogil
"""True only for a valid signature by `key` under the key's own algorithm. Any fault is False.

Safe from many threads at once: contexts come from the key's pool. The owner of `key` (its KeyHandle) must be alive.
Takes the GIL itself for keys of the `cryptography` backend.
"""
cdef KeyC* key_of(KeyHandle handle) noexcept nogil
