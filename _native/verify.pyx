# cython: autotestdict=False, auto_pickle=False
"""Verification of JWS signatures through the libcrypto that Python itself has loaded, without the GIL.

Goal: everything but the public-key operation costs next to nothing. OpenSSL 3 spends up to 3 µs a call on what could be
kept: it looks digests up by name under a lock, makes contexts, and initialises them. Plan: the digests are fetched once a
process, the key is decoded once, and each key keeps a few contexts that are ready to verify. A thread takes one with an
atomic exchange and puts it back afterwards; a context is never shared by two threads (OpenSSL allows no such thing).

Which libcrypto: the one that `_hashlib` (else `_ssl`) of this interpreter is linked to, OpenSSL 3 or 4, found by asking
the loader for a symbol of a library that is already in the process. So nothing is linked, no headers are needed, and
security updates come from where Python's own come from. Where there is none (an interpreter with a static OpenSSL), or
where the self-test below fails, BACKEND is "cryptography": handles then carry a Python callable that verifies, made by
gateway/tokens/keys.py. `PORTCULLIS_CRYPTO=libcrypto|cryptography` forces one. BACKEND_REASON says why it is what it is.

OpenSSL keeps errors in a queue for each thread, which Python's `ssl` reads too (SSL_get_error(3): "the current thread's
error queue must be empty before the TLS/SSL I/O operation is attempted"). A success leaves nothing there; after a
failure the queue is emptied.
"""

cimport cython
from cpython.bytes cimport PyBytes_FromStringAndSize
from libc.stdint cimport int64_t, uint8_t
from libc.stdlib cimport calloc, free
from libc.string cimport memcmp, memcpy, memset
from posix.time cimport CLOCK_MONOTONIC, clock_gettime, timespec

from gateway._native.slice cimport Slice, slice_of

import hashlib
import importlib
import os


cdef extern from *:
    """
    static inline void *pointer_swap(void **place, void *value) {
        return __atomic_exchange_n(place, value, __ATOMIC_ACQ_REL);
    }
    static inline int pointer_fill(void **place, void *value) {
        void *empty = NULL;
        return __atomic_compare_exchange_n(place, &empty, value, 0, __ATOMIC_ACQ_REL, __ATOMIC_RELAXED);
    }
    static inline void count_add(long *count, long step) {
        __atomic_fetch_add(count, step, __ATOMIC_RELAXED);
    }
    """
    void* pointer_swap(void** place, void* value) noexcept nogil
    bint pointer_fill(void** place, void* value) noexcept nogil
    void count_add(long* count, long step) noexcept nogil

cdef extern from "dlfcn.h" nogil:
    ctypedef struct Dl_info:
        const char* dli_fname
    int RTLD_LAZY
    int RTLD_LOCAL
    int RTLD_NOLOAD
    void* RTLD_DEFAULT
    void* dlopen(const char* path, int mode)
    void* dlsym(void* handle, const char* name)
    int dladdr(const void* address, Dl_info* info)

cdef extern from "Python.h":
    void PyErr_SetInterrupt()

# --- libcrypto --------------------------------------------------------------------------------------------------------

cdef enum:
    RSA_PKCS1_PADDING = 1        # openssl/rsa.h; part of the ABI
    RSA_PKCS1_PSS_PADDING = 6
    OPENSSL_VERSION_TEXT = 0     # openssl/crypto.h

# The prototypes that OpenSSL 3 and 4 document, with `void*` for EVP_PKEY, EVP_PKEY_CTX, EVP_MD and EVP_MD_CTX.
# ORDER LIBCRYPTO: `_SYMBOLS` names the fields in this order.
cdef struct Libcrypto:
    void (*ERR_clear_error)() noexcept nogil
    unsigned long (*OpenSSL_version_num)() noexcept nogil
    const char* (*OpenSSL_version)(int) noexcept nogil
    void (*OPENSSL_cleanse)(void*, size_t) noexcept nogil
    int (*CRYPTO_memcmp)(const void*, const void*, size_t) noexcept nogil
    void* (*EVP_MD_fetch)(void*, const char*, const char*) noexcept nogil
    void* (*EVP_MD_CTX_new)() noexcept nogil
    void (*EVP_MD_CTX_free)(void*) noexcept nogil
    int (*EVP_MD_CTX_copy_ex)(void*, const void*) noexcept nogil
    int (*EVP_DigestInit_ex)(void*, const void*, void*) noexcept nogil
    int (*EVP_DigestUpdate)(void*, const void*, size_t) noexcept nogil
    int (*EVP_DigestFinal_ex)(void*, unsigned char*, unsigned int*) noexcept nogil
    int (*EVP_DigestVerifyInit)(void*, void**, const void*, void*, void*) noexcept nogil
    int (*EVP_DigestVerify)(void*, const unsigned char*, size_t, const unsigned char*, size_t) noexcept nogil
    void* (*d2i_PUBKEY)(void**, const unsigned char**, long) noexcept nogil
    void (*EVP_PKEY_free)(void*) noexcept nogil
    int (*EVP_PKEY_is_a)(const void*, const char*) noexcept nogil
    int (*EVP_PKEY_get_bits)(const void*) noexcept nogil
    void* (*EVP_PKEY_CTX_new)(void*, void*) noexcept nogil
    void (*EVP_PKEY_CTX_free)(void*) noexcept nogil
    int (*EVP_PKEY_CTX_set_signature_md)(void*, const void*) noexcept nogil
    int (*EVP_PKEY_CTX_set_rsa_padding)(void*, int) noexcept nogil
    int (*EVP_PKEY_CTX_set_rsa_pss_saltlen)(void*, int) noexcept nogil
    int (*EVP_PKEY_CTX_set_rsa_mgf1_md)(void*, const void*) noexcept nogil
    int (*EVP_PKEY_verify_init)(void*) noexcept nogil
    int (*EVP_PKEY_verify)(void*, const unsigned char*, size_t, const unsigned char*, size_t) noexcept nogil

# ORDER LIBCRYPTO
_SYMBOLS = (
    b"ERR_clear_error", b"OpenSSL_version_num", b"OpenSSL_version", b"OPENSSL_cleanse", b"CRYPTO_memcmp",
    b"EVP_MD_fetch", b"EVP_MD_CTX_new", b"EVP_MD_CTX_free", b"EVP_MD_CTX_copy_ex",
    b"EVP_DigestInit_ex", b"EVP_DigestUpdate", b"EVP_DigestFinal_ex", b"EVP_DigestVerifyInit", b"EVP_DigestVerify",
    b"d2i_PUBKEY", b"EVP_PKEY_free", b"EVP_PKEY_is_a", b"EVP_PKEY_get_bits",
    b"EVP_PKEY_CTX_new", b"EVP_PKEY_CTX_free", b"EVP_PKEY_CTX_set_signature_md", b"EVP_PKEY_CTX_set_rsa_padding",
    b"EVP_PKEY_CTX_set_rsa_pss_saltlen", b"EVP_PKEY_CTX_set_rsa_mgf1_md", b"EVP_PKEY_verify_init", b"EVP_PKEY_verify",
)

cdef Libcrypto lib                       # filled by _bind_libcrypto, before any handle of that backend exists
cdef void* digest_sha256 = NULL          # EVP_MD; fetched once, kept as long as the process
cdef void* digest_sha384 = NULL
cdef void* digest_sha512 = NULL
cdef bint libcrypto_ready = False

# --- algorithms -------------------------------------------------------------------------------------------------------

# ORDER ALGORITHM: the enum of verify.pxd.
ALGORITHMS = ("", "RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA", "HS256", "HS384", "HS512")

cdef enum:
    DIGEST_BYTES_MAX = 64
    BLOCK_BYTES_MAX = 128
    SCALAR_BYTES_MAX = 66        # of P-521
    ECDSA_DER_BYTES_MAX = 144    # SEQUENCE of two INTEGERs of 67 bytes: 3 + 2 * (2 + 67)


cdef Algorithm algorithm_of(Slice name) noexcept nogil:
    cdef int family
    if name.len == 7 and memcmp(name.ptr, b"Ed25519", 7) == 0:
        return ALG_EDDSA
    if name.len != 5:
        return ALG_NONE
    if memcmp(name.ptr, b"EdDSA", 5) == 0:
        return ALG_EDDSA
    if memcmp(name.ptr, b"RS", 2) == 0:
        family = ALG_RS256
    elif memcmp(name.ptr, b"PS", 2) == 0:
        family = ALG_PS256
    elif memcmp(name.ptr, b"ES", 2) == 0:
        family = ALG_ES256
    elif memcmp(name.ptr, b"HS", 2) == 0:
        family = ALG_HS256
    else:
        return ALG_NONE
    if memcmp(name.ptr + 2, b"256", 3) == 0:
        return <Algorithm>family
    if memcmp(name.ptr + 2, b"384", 3) == 0:
        return <Algorithm>(family + 1)
    if memcmp(name.ptr + 2, b"512", 3) == 0:
        return <Algorithm>(family + 2)
    return ALG_NONE


cdef inline bint is_rsa(Algorithm alg) noexcept nogil:
    return ALG_RS256 <= alg <= ALG_PS512


cdef inline bint is_pss(Algorithm alg) noexcept nogil:
    return ALG_PS256 <= alg <= ALG_PS512


cdef inline bint is_ecdsa(Algorithm alg) noexcept nogil:
    return ALG_ES256 <= alg <= ALG_ES512


cdef inline bint is_hmac(Algorithm alg) noexcept nogil:
    return ALG_HS256 <= alg <= ALG_HS512


cdef inline int digest_bytes(Algorithm alg) noexcept nogil:
    """Bytes of the algorithm's SHA-2 digest; 0 for EdDSA, which hashes by itself."""
    if alg == ALG_NONE or alg == ALG_EDDSA:
        return 0
    if alg in (ALG_RS256, ALG_PS256, ALG_ES256, ALG_HS256):
        return 32
    if alg in (ALG_RS384, ALG_PS384, ALG_ES384, ALG_HS384):
        return 48
    return 64


cdef inline void* digest_of(Algorithm alg) noexcept nogil:
    cdef int size = digest_bytes(alg)
    return digest_sha256 if size == 32 else digest_sha384 if size == 48 else digest_sha512 if size == 64 else NULL


# --- scalars ----------------------------------------------------------------------------------------------------------

# The orders of the groups: NIST SP 800-186 §3.2.1, big-endian; RFC 8032 §5.1, little-endian.
cdef const unsigned char* P256_ORDER = (
    b"\xff\xff\xff\xff\x00\x00\x00\x00\xff\xff\xff\xff\xff\xff\xff\xff"
    b"\xbc\xe6\xfa\xad\xa7\x17\x9e\x84\xf3\xb9\xca\xc2\xfc\x63\x25\x51"
)
cdef const unsigned char* P384_ORDER = (
    b"\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff"
    b"\xff\xff\xff\xff\xff\xff\xff\xff\xc7\x63\x4d\x81\xf4\x37\x2d\xdf"
    b"\x58\x1a\x0d\xb2\x48\xb0\xa7\x7a\xec\xec\x19\x6a\xcc\xc5\x29\x73"
)
cdef const unsigned char* P521_ORDER = (
    b"\x01\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff"
    b"\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xfa"
    b"\x51\x86\x87\x83\xbf\x2f\x96\x6b\x7f\xcc\x01\x48\xf7\x09\xa5\xd0"
    b"\x3b\xb5\xc9\xb8\x89\x9c\x47\xae\xbb\x6f\xb7\x1e\x91\x38\x64\x09"
)
cdef const unsigned char* ED25519_ORDER = (
    b"\xed\xd3\xf5\x5c\x1a\x63\x12\x58\xd6\x9c\xf7\xa2\xde\xf9\xde\x14"
    b"\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x10"
)


cdef inline Py_ssize_t scalar_bytes(Algorithm alg) noexcept nogil:
    """Bytes of one of ECDSA's two numbers (RFC 7518 §3.4)."""
    return 32 if alg == ALG_ES256 else 48 if alg == ALG_ES384 else SCALAR_BYTES_MAX


cdef bint scalar_in_range(const unsigned char* scalar, Py_ssize_t size, const unsigned char* order) noexcept nogil:
    """True for 0 < scalar < order; both are big-endian and `size` bytes long."""
    cdef Py_ssize_t i
    cdef unsigned char any_bit = 0
    for i in range(size):
        any_bit |= scalar[i]
    return any_bit != 0 and memcmp(scalar, order, <size_t>size) < 0


cdef bint signature_in_range(Algorithm alg, const unsigned char* signature) noexcept nogil:
    """Refuse what no honest signer makes: r or s of 0 or >= n (CVE-2022-21449), an Ed25519 S >= L (RFC 8032 §5.1.7).

    The length was checked before. OpenSSL looks at all this too; the answer must not depend on who verifies.
    """
    cdef Py_ssize_t size, i
    cdef const unsigned char* order
    if is_ecdsa(alg):
        size = scalar_bytes(alg)
        order = P256_ORDER if alg == ALG_ES256 else P384_ORDER if alg == ALG_ES384 else P521_ORDER
        return scalar_in_range(signature, size, order) and scalar_in_range(signature + size, size, order)
    if alg == ALG_EDDSA:
        for i in range(31, -1, -1):
            if signature[32 + i] != ED25519_ORDER[i]:
                return signature[32 + i] < ED25519_ORDER[i]
        return False
    return True


cdef Py_ssize_t der_integer(const unsigned char* scalar, Py_ssize_t size, unsigned char* target) noexcept nogil:
    """Write a positive big-endian number as a minimal DER INTEGER; give its length, 3 + size at most."""
    cdef Py_ssize_t skip = 0, length
    while skip < size - 1 and scalar[skip] == 0:
        skip += 1
    length = size - skip
    target[0] = 0x02
    if scalar[skip] & 0x80:
        target[1] = <unsigned char>(length + 1)
        target[2] = 0
        memcpy(target + 3, scalar + skip, <size_t>length)
        return length + 3
    target[1] = <unsigned char>length
    memcpy(target + 2, scalar + skip, <size_t>length)
    return length + 2


cdef Py_ssize_t ecdsa_der(const unsigned char* signature, Py_ssize_t size, unsigned char* target) noexcept nogil:
    """Write r || s as the DER that EVP_PKEY_verify wants (RFC 3279 §2.2.3); `target` has ECDSA_DER_BYTES_MAX bytes."""
    cdef unsigned char body[ECDSA_DER_BYTES_MAX]
    cdef Py_ssize_t length = der_integer(signature, size, body)
    cdef Py_ssize_t head = 2
    length += der_integer(signature + size, size, body + length)
    target[0] = 0x30
    if length < 128:
        target[1] = <unsigned char>length
    else:
        target[1] = 0x81
        target[2] = <unsigned char>length
        head = 3
    memcpy(target + head, body, <size_t>length)
    return head + length


# --- keys and their contexts ------------------------------------------------------------------------------------------

cdef struct Slot:
    # What one verification works with. Used by one thread at a time.
    void* digest      # EVP_MD_CTX: the digest of what was signed; for EdDSA the initialised verification itself
    void* verifier    # EVP_PKEY_CTX, initialised for the key and its algorithm; NULL for EdDSA and HMAC

cdef struct KeyC:
    Algorithm alg
    Py_ssize_t signature_len   # exact; -1 where only the fallback's own library knows it
    void* python_verify        # borrowed PyObject; owner: the KeyHandle's python_verify. NULL for the libcrypto backend
    void* public_key           # EVP_PKEY; owned
    void* digest_md            # EVP_MD; owned by the process
    unsigned int digest_len
    void* inner                # EVP_MD_CTX after the padded secret (RFC 2104 §4); owned, only read after construction
    void* outer
    void** slots               # slot_count places that hold a Slot or NULL; owned; touched by atomic operations only
    int slot_count

cdef long live_keys = 0
cdef long live_slots = 0


cdef void slot_free(Slot* slot) noexcept nogil:
    if slot == NULL:
        return
    lib.EVP_MD_CTX_free(slot.digest)
    lib.EVP_PKEY_CTX_free(slot.verifier)
    free(slot)
    count_add(&live_slots, -1)


cdef bint verifier_init(KeyC* key, void* verifier) noexcept nogil:
    """Make an EVP_PKEY_CTX ready for any number of EVP_PKEY_verify calls."""
    if lib.EVP_PKEY_verify_init(verifier) != 1:
        return False
    if is_rsa(key.alg):
        if lib.EVP_PKEY_CTX_set_rsa_padding(verifier, RSA_PKCS1_PSS_PADDING if is_pss(key.alg) else RSA_PKCS1_PADDING) != 1:
            return False
    if lib.EVP_PKEY_CTX_set_signature_md(verifier, key.digest_md) != 1:
        return False
    if is_pss(key.alg):
        # RFC 7518 §3.5: "The size of the salt value is the same size as the hash function output", MGF1 with the same hash.
        if lib.EVP_PKEY_CTX_set_rsa_mgf1_md(verifier, key.digest_md) != 1:
            return False
        if lib.EVP_PKEY_CTX_set_rsa_pss_saltlen(verifier, <int>key.digest_len) != 1:
            return False
    return True


cdef Slot* slot_new(KeyC* key) noexcept nogil:
    cdef Slot* slot = <Slot*>calloc(1, sizeof(Slot))
    cdef bint ready
    if slot == NULL:
        return NULL
    count_add(&live_slots, 1)
    slot.digest = lib.EVP_MD_CTX_new()
    ready = slot.digest != NULL
    if ready and key.alg == ALG_EDDSA:
        ready = lib.EVP_DigestVerifyInit(slot.digest, NULL, NULL, NULL, key.public_key) == 1
    elif ready and not is_hmac(key.alg):
        slot.verifier = lib.EVP_PKEY_CTX_new(key.public_key, NULL)
        ready = slot.verifier != NULL and verifier_init(key, slot.verifier)
    if not ready:
        slot_free(slot)
        lib.ERR_clear_error()
        return NULL
    return slot


cdef Slot* slot_take(KeyC* key) noexcept nogil:
    """Take a free slot out of the key's pool, or make one where none is free; NULL where that fails."""
    cdef int i
    cdef void* slot
    for i in range(key.slot_count):
        slot = pointer_swap(&key.slots[i], NULL)
        if slot != NULL:
            return <Slot*>slot
    return slot_new(key)


cdef void slot_give(KeyC* key, Slot* slot) noexcept nogil:
    """Put a slot into a free place of the pool; free it where all places are taken."""
    cdef int i
    for i in range(key.slot_count):
        if pointer_fill(&key.slots[i], slot):
            return
    slot_free(slot)


cdef bint hmac_init(KeyC* key, const unsigned char* secret, Py_ssize_t secret_len) noexcept nogil:
    """Digest the padded secret once, so that each verification starts behind it (RFC 2104 §4)."""
    cdef unsigned char block[BLOCK_BYTES_MAX]
    cdef int i
    cdef size_t block_len = 64 if key.digest_len == 32 else 128
    cdef bint ready
    memset(block, 0, BLOCK_BYTES_MAX)
    key.inner = lib.EVP_MD_CTX_new()
    key.outer = lib.EVP_MD_CTX_new()
    ready = key.inner != NULL and key.outer != NULL
    if ready and <size_t>secret_len > block_len:
        ready = (
            lib.EVP_DigestInit_ex(key.inner, key.digest_md, NULL) == 1
            and lib.EVP_DigestUpdate(key.inner, secret, <size_t>secret_len) == 1
            and lib.EVP_DigestFinal_ex(key.inner, block, NULL) == 1
        )
    elif ready:
        memcpy(block, secret, <size_t>secret_len)
    for i in range(BLOCK_BYTES_MAX):
        block[i] ^= 0x36
    ready = (
        ready
        and lib.EVP_DigestInit_ex(key.inner, key.digest_md, NULL) == 1
        and lib.EVP_DigestUpdate(key.inner, block, block_len) == 1
    )
    for i in range(BLOCK_BYTES_MAX):
        block[i] ^= 0x36 ^ 0x5C
    ready = (
        ready
        and lib.EVP_DigestInit_ex(key.outer, key.digest_md, NULL) == 1
        and lib.EVP_DigestUpdate(key.outer, block, block_len) == 1
    )
    lib.OPENSSL_cleanse(block, BLOCK_BYTES_MAX)
    return ready


cdef KeyC* key_new(Algorithm alg, int slot_count) noexcept nogil:
    cdef KeyC* key = <KeyC*>calloc(1, sizeof(KeyC))
    if key == NULL:
        return NULL
    key.slots = <void**>calloc(<size_t>slot_count, sizeof(void*))
    if key.slots == NULL:
        free(key)
        return NULL
    key.alg = alg
    key.slot_count = slot_count
    key.digest_len = <unsigned int>digest_bytes(alg)
    key.signature_len = -1
    if is_ecdsa(alg):
        key.signature_len = 2 * scalar_bytes(alg)
    elif alg == ALG_EDDSA:
        key.signature_len = 64
    elif is_hmac(alg):
        key.signature_len = key.digest_len
    count_add(&live_keys, 1)
    return key


cdef void key_free(KeyC* key) noexcept nogil:
    """Free a key that no thread uses any more. Contexts of libcrypto cleanse what they hold."""
    cdef int i
    if key == NULL:
        return
    for i in range(key.slot_count):
        slot_free(<Slot*>key.slots[i])
    free(key.slots)
    if key.inner != NULL:
        lib.EVP_MD_CTX_free(key.inner)
    if key.outer != NULL:
        lib.EVP_MD_CTX_free(key.outer)
    if key.public_key != NULL:
        lib.EVP_PKEY_free(key.public_key)
    free(key)
    count_add(&live_keys, -1)


# --- verification -----------------------------------------------------------------------------------------------------

cdef enum Outcome:
    OUTCOME_FAULT = -1       # libcrypto could not even try; the slot is not to be trusted any more
    OUTCOME_INVALID = 0
    OUTCOME_VALID = 1


cdef Outcome verify_hmac(KeyC* key, Slot* slot, Slice signed, const unsigned char* signature) noexcept nogil:
    cdef unsigned char mac[DIGEST_BYTES_MAX]
    cdef void* work = slot.digest
    if (
        lib.EVP_MD_CTX_copy_ex(work, key.inner) != 1
        or lib.EVP_DigestUpdate(work, signed.ptr, <size_t>signed.len) != 1
        or lib.EVP_DigestFinal_ex(work, mac, NULL) != 1
        or lib.EVP_MD_CTX_copy_ex(work, key.outer) != 1
        or lib.EVP_DigestUpdate(work, mac, key.digest_len) != 1
        or lib.EVP_DigestFinal_ex(work, mac, NULL) != 1
    ):
        return OUTCOME_FAULT
    return OUTCOME_VALID if lib.CRYPTO_memcmp(mac, signature, key.digest_len) == 0 else OUTCOME_INVALID


cdef inline Outcome verify_public(
    KeyC* key, Slot* slot, Slice signed, const unsigned char* signature, Py_ssize_t signature_len
) noexcept nogil:
    """Check an RSA signature, or an ECDSA one that is already DER."""
    cdef unsigned char digest[DIGEST_BYTES_MAX]
    if (
        lib.EVP_DigestInit_ex(slot.digest, key.digest_md, NULL) != 1
        or lib.EVP_DigestUpdate(slot.digest, signed.ptr, <size_t>signed.len) != 1
        or lib.EVP_DigestFinal_ex(slot.digest, digest, NULL) != 1
    ):
        return OUTCOME_FAULT
    # Only 1 is a valid signature (EVP_PKEY_verify(3)); 0 and everything negative is not.
    if lib.EVP_PKEY_verify(slot.verifier, signature, <size_t>signature_len, digest, key.digest_len) != 1:
        return OUTCOME_INVALID
    return OUTCOME_VALID


cdef inline Outcome verify_eddsa(Slot* slot, Slice signed, const unsigned char* signature) noexcept nogil:
    # OpenSSL 3.5 allows one EVP_DigestVerify after each initialisation; without a key it starts again with the last one.
    if lib.EVP_DigestVerifyInit(slot.digest, NULL, NULL, NULL, NULL) != 1:
        return OUTCOME_FAULT
    if lib.EVP_DigestVerify(slot.digest, signature, 64, <const unsigned char*>signed.ptr, <size_t>signed.len) != 1:
        return OUTCOME_INVALID
    return OUTCOME_VALID


cdef bint verify_python(KeyC* key, Slice signed, const unsigned char* signature, Py_ssize_t signature_len) noexcept with gil:
    """Ask the fallback's callable. Only the answer True counts; an exception is a no (fail closed)."""
    try:
        verdict = (<object>key.python_verify)(
            PyBytes_FromStringAndSize(<const char*>signature, signature_len), PyBytes_FromStringAndSize(signed.ptr, signed.len)
        )
        return verdict is True
    except KeyboardInterrupt:
        PyErr_SetInterrupt()  # this function cannot raise: the interrupt comes again in whoever called
        return False
    except BaseException:
        return False


cdef bint key_verify(KeyC* key, Slice signed, const unsigned char* signature, Py_ssize_t signature_len) noexcept nogil:
    cdef unsigned char der[ECDSA_DER_BYTES_MAX]
    cdef Slot* slot
    cdef Outcome outcome
    if key == NULL or signed.len < 0 or signature_len <= 0:
        return False
    # INVARIANT: from here on ECDSA, EdDSA and HMAC signatures have exactly the bytes that the code below reads.
    if key.signature_len >= 0 and signature_len != key.signature_len:
        return False
    if not signature_in_range(key.alg, signature):
        return False
    if key.python_verify != NULL:
        return verify_python(key, signed, signature, signature_len)
    slot = slot_take(key)
    if slot == NULL:
        return False
    if is_rsa(key.alg):
        outcome = verify_public(key, slot, signed, signature, signature_len)
    elif is_ecdsa(key.alg):
        outcome = verify_public(key, slot, signed, der, ecdsa_der(signature, scalar_bytes(key.alg), der))
    elif key.alg == ALG_EDDSA:
        outcome = verify_eddsa(slot, signed, signature)
    else:
        outcome = verify_hmac(key, slot, signed, signature)
    if outcome != OUTCOME_VALID:
        lib.ERR_clear_error()
    if outcome == OUTCOME_FAULT:
        slot_free(slot)
    else:
        slot_give(key, slot)
    return outcome == OUTCOME_VALID


cdef KeyC* key_of(KeyHandle handle) noexcept nogil:
    return handle.c


# --- handles ----------------------------------------------------------------------------------------------------------

# What comes before the point in the SubjectPublicKeyInfo of each curve (RFC 5480 §2; RFC 8410 §4). Exact bytes leave no
# room for explicit curve parameters (CVE-2020-0601), compressed points, or a key of another kind.
_SPKI_HEADS = {
    ALG_ES256: (bytes.fromhex("3059301306072a8648ce3d020106082a8648ce3d03010703420004"), 64),
    ALG_ES384: (bytes.fromhex("3076301006072a8648ce3d020106052b8104002203620004"), 96),
    ALG_ES512: (bytes.fromhex("30819b301006072a8648ce3d020106052b810400230381860004"), 132),
    ALG_EDDSA: (bytes.fromhex("302a300506032b6570032100"), 32),
}

# So that `material` of a secret, if it ever gets out, cannot be used to guess the secret.
_MATERIAL_KEY = os.urandom(32)


cdef KeyC* _key_from_spki(Algorithm alg, bytes spki, int slot_count) except NULL:
    cdef const unsigned char* cursor = spki
    cdef const unsigned char* end = cursor + len(spki)
    cdef KeyC* key
    cdef int bits
    if alg in _SPKI_HEADS:
        head, point_bytes = _SPKI_HEADS[alg]
        if not spki.startswith(head) or len(spki) != len(head) + point_bytes:
            raise ValueError(f"the key is not of the kind that `{ALGORITHMS[alg]}` needs")
    key = key_new(alg, slot_count)
    if key == NULL:
        raise MemoryError
    key.digest_md = digest_of(alg)
    key.public_key = lib.d2i_PUBKEY(NULL, &cursor, len(spki))
    try:
        if key.public_key == NULL or cursor != end:
            raise ValueError("the key cannot be decoded")
        if is_rsa(alg):
            if lib.EVP_PKEY_is_a(key.public_key, b"RSA") != 1:
                raise ValueError(f"the key is not of the kind that `{ALGORITHMS[alg]}` needs")
            bits = lib.EVP_PKEY_get_bits(key.public_key)
            if not RSA_BITS_MIN <= bits <= RSA_BITS_MAX:
                raise ValueError(f"an RSA key must have {RSA_BITS_MIN} to {RSA_BITS_MAX} bits; this one has {bits}")
            key.signature_len = (bits + 7) // 8
        # The first context is made now: a key that libcrypto cannot use shall fail here and not at the first token.
        key.slots[0] = slot_new(key)
        if key.slots[0] == NULL:
            raise ValueError("libcrypto cannot verify with the key")
    except BaseException:
        lib.ERR_clear_error()
        key_free(key)
        raise
    return key


cdef KeyC* _key_from_secret(Algorithm alg, bytes secret, int slot_count) except NULL:
    cdef KeyC* key = key_new(alg, slot_count)
    if key == NULL:
        raise MemoryError
    key.digest_md = digest_of(alg)
    if not hmac_init(key, secret, len(secret)):
        lib.ERR_clear_error()
        key_free(key)
        raise ValueError("libcrypto cannot verify with the secret")
    return key


@cython.final
@cython.no_gc_clear  # the C side borrows python_verify until __dealloc__
cdef class KeyHandle:
    def __cinit__(
        self,
        bytes kid not None,
        str algorithm not None,
        *,
        bytes spki=None,
        bytes secret=None,
        object python_verify=None,
        int pool=0,
    ):
        cdef bytes name = algorithm.encode()
        cdef int slot_count = pool if pool > 0 else 2 * (os.cpu_count() or 1)
        self.alg = algorithm_of(slice_of(name, len(name)))
        if self.alg == ALG_NONE:
            raise ValueError(f"unknown algorithm `{algorithm}`")
        if spki is not None and (secret is not None or is_hmac(self.alg)):
            raise ValueError(f"`{algorithm}` does not verify with a public key")
        if secret is not None and not is_hmac(self.alg):
            raise ValueError(f"`{algorithm}` does not verify with a secret")
        if spki is None and secret is None and python_verify is None:
            raise ValueError("a key needs `spki`, `secret` or `python_verify`")
        # RFC 7518 §3.2: "A key of the same size as the hash output […] or larger MUST be used with this algorithm."
        if secret is not None and len(secret) < digest_bytes(self.alg):
            raise ValueError(f"a secret for `{algorithm}` needs at least {digest_bytes(self.alg)} bytes")
        if not 0 <= pool <= POOL_SLOTS_MAX:
            raise ValueError(f"`pool` must lie between 0 and {POOL_SLOTS_MAX}")
        self.kid = kid
        self.algorithm = ALGORITHMS[self.alg]
        self.python_verify = python_verify
        if spki is not None:
            self.material = hashlib.sha256(spki).digest()
        elif secret is not None:
            self.material = hashlib.blake2b(secret, key=_MATERIAL_KEY, digest_size=32).digest()
        else:
            self.material = os.urandom(32)
        if python_verify is not None:
            self.backend = "cryptography"
            self.c = key_new(self.alg, 1)
            if self.c == NULL:
                raise MemoryError
            self.c.python_verify = <void*>python_verify
            return
        if not libcrypto_ready:
            raise ValueError("there is no libcrypto to verify with; give `python_verify`")
        self.backend = "libcrypto"
        if spki is not None:
            self.c = _key_from_spki(self.alg, spki, min(slot_count, POOL_SLOTS_MAX))
        else:
            self.c = _key_from_secret(self.alg, secret, min(slot_count, POOL_SLOTS_MAX))

    def __dealloc__(self):
        key_free(self.c)

    def __repr__(self):
        return f"KeyHandle(kid={self.kid!r}, algorithm={self.algorithm!r}, backend={self.backend!r})"

    def verify(self, bytes signed not None, bytes signature not None):
        cdef Slice text = slice_of(signed, len(signed))
        cdef const unsigned char* signature_ptr = signature
        cdef Py_ssize_t signature_len = len(signature)
        cdef bint valid
        with nogil:
            valid = key_verify(self.c, text, signature_ptr, signature_len)
        return valid


def live_objects():
    return {"keys": live_keys, "slots": live_slots}


def raw_verify_loop(str algorithm not None, bytes spki not None, bytes signed not None, bytes signature not None, Py_ssize_t count):
    cdef KeyHandle handle = KeyHandle(b"", algorithm, spki=spki, pool=1)
    cdef KeyC* key = handle.c
    cdef Slot* slot = <Slot*>key.slots[0]
    cdef Slice text = slice_of(signed, len(signed))
    cdef unsigned char der[ECDSA_DER_BYTES_MAX]
    cdef const unsigned char* proof = signature
    cdef Py_ssize_t proof_len = len(signature), i
    cdef bint valid = True
    cdef timespec start, stop
    if proof_len != key.signature_len or count < 1:
        raise ValueError("the signature has another length, or there is nothing to count")
    if is_ecdsa(key.alg):
        proof_len = ecdsa_der(signature, scalar_bytes(key.alg), der)
        proof = der
    with nogil:
        clock_gettime(CLOCK_MONOTONIC, &start)
        if key.alg == ALG_EDDSA:
            for i in range(count):
                valid = valid and verify_eddsa(slot, text, proof) == OUTCOME_VALID
        else:
            for i in range(count):
                valid = valid and verify_public(key, slot, text, proof, proof_len) == OUTCOME_VALID
        clock_gettime(CLOCK_MONOTONIC, &stop)
    if not valid:
        lib.ERR_clear_error()
        raise ValueError("the signature is not valid")
    return (stop.tv_sec - start.tv_sec) * 1_000_000_000 + (stop.tv_nsec - start.tv_nsec)


# --- which backend ----------------------------------------------------------------------------------------------------

LIBCRYPTO_PATH = ""
LIBCRYPTO_VERSION = ""


cdef void* _find_libcrypto() except? NULL:
    """Give the loader's handle of the libcrypto that Python uses, or NULL; loads nothing. Sets LIBCRYPTO_PATH."""
    global LIBCRYPTO_PATH
    cdef void* module_handle
    cdef void* symbol
    cdef void* library
    cdef Dl_info info
    cdef int mode = RTLD_LAZY | RTLD_LOCAL | RTLD_NOLOAD
    for name in ("_hashlib", "_ssl"):
        try:
            module = importlib.import_module(name)
        except ImportError:
            continue
        path = getattr(module, "__file__", None)
        if not path:
            continue  # built into the interpreter, OpenSSL too: nothing to borrow
        module_handle = dlopen(os.fsencode(path), mode)
        if module_handle == NULL:
            continue
        # The loader's own order for the module's symbols: what is global first (the program, LD_PRELOAD), then what the
        # module is linked to. So this is the libcrypto that the module calls, whatever its file is named.
        symbol = dlsym(RTLD_DEFAULT, b"EVP_PKEY_verify")
        if symbol == NULL:
            symbol = dlsym(module_handle, b"EVP_PKEY_verify")
        if symbol == NULL or dladdr(symbol, &info) == 0 or info.dli_fname == NULL:
            continue
        library = dlopen(info.dli_fname, mode)
        LIBCRYPTO_PATH = os.fsdecode(info.dli_fname)
        return library if library != NULL else module_handle
    return NULL


cdef str _bind_libcrypto():
    """Fill `lib` and the digests; give "" or what stands against it."""
    global LIBCRYPTO_VERSION, libcrypto_ready, digest_sha256, digest_sha384, digest_sha512
    cdef void* handle = _find_libcrypto()
    cdef void** fields = <void**>&lib
    if handle == NULL:
        return "python's own modules are linked to no shared libcrypto"
    if sizeof(Libcrypto) != len(_SYMBOLS) * sizeof(void*):
        return "the table of functions and its names differ"
    for i, name in enumerate(_SYMBOLS):
        fields[i] = dlsym(handle, <bytes>name)
        if fields[i] == NULL:
            return f"`{LIBCRYPTO_PATH}` has no `{name.decode()}`"
    LIBCRYPTO_VERSION = lib.OpenSSL_version(OPENSSL_VERSION_TEXT).decode(errors="replace")
    if not 3 <= lib.OpenSSL_version_num() >> 28 < 5:  # OPENSSL_VERSION_NUMBER(3): 0xMNN00PP0
        return f"`{LIBCRYPTO_VERSION}` is not OpenSSL 3 or 4"
    digest_sha256 = lib.EVP_MD_fetch(NULL, b"SHA2-256", NULL)
    digest_sha384 = lib.EVP_MD_fetch(NULL, b"SHA2-384", NULL)
    digest_sha512 = lib.EVP_MD_fetch(NULL, b"SHA2-512", NULL)
    if digest_sha256 == NULL or digest_sha384 == NULL or digest_sha512 == NULL:
        lib.ERR_clear_error()
        return f"`{LIBCRYPTO_VERSION}` offers no SHA-2"
    libcrypto_ready = True
    return ""


# One signature a family over `_SELF_TEST_TEXT`, made once for this purpose; the private keys were thrown away.
_SELF_TEST_TEXT = b"portcullis self-test"
_RSA_SPKI = bytes.fromhex(
    "30820122300d06092a864886f70d01010105000382010f003082010a0282010100abb2078e89ce2727222ff132fc855152f84bb4"
    "76477fd0ad75d8d4c886e355deaa4bb1477c0f28744e86183470bed413a49cc6752d409ec17f0d9e9e5f25817451db2677acb9d3"
    "fae0f9a47c3bc7e2615834e11474fa26226699ff7198acbc45eb71804e5f1e637f258e2a0473ca8a0a4457e1b6bcc48fa449018b"
    "a6a32441ab594c99d72896f41fdcdc789c4136ba567b4aceac9b31c7931071d2200c13b4b3b9ef46d380485be6f2de7426046318"
    "3a1ffa14f13139b01345d34f6c172d097e6e075249516ed560f658eb38ace0fcd761b3df400e00b2b6bc2e228a3d949219e5d54a"
    "3f6f41421759f21dffd6cf578fff0e3ca026e12f6599aafae1336fbf390203010001"
)
_RS256 = bytes.fromhex(
    "4983c727581a435907a4e7b1522955e29c6236deede83d005817ebf70f42daaf43ee617c97332aa1acb529fc6c481eb61c46e727"
    "8e746f11e9d0f1801adbc46f145159a5c31b513bd21335c9e7aeae276f272b3a83ecc3878e3b8a985c374a0c954d2caf478e4e9a"
    "bf75a04a5b67046ceeccbf7d8a1486f3071facdb28119e3474e414d08a56e4f81c39dbf1660bb695c1cd18d57eb4bce4e7a455a0"
    "bf434f4ab44a40bcd55b55f0ba272bc0817858cb17e537840cb8b0e1f23f60ac7a890cc6097341110397f7d8a164aa589bd9b6c6"
    "5d973e0ede16e21ac4af937e38c7a68ce9b21ebbfd29138d9386a91781f638d6bb01a1a00a8da10c501816d5214b26ec"
)
_PS256 = bytes.fromhex(
    "42e71102553bd16e277d4a927f8fe795e4544f389ef61ffc51d28acdd385d3f25ae65d4f36d8a092985a79dc8508faf799184a8c"
    "3029e779dd89b83ca30c19acdefd14ef67b20e39cdbb3688c0c501fca3930a53344ad278a937236054e5c240fe893e7c7e84a041"
    "505bec66f62c47562daf3f3ded75ea06d95c2493dc04e6392c031d41c309ca5ffbd26cd4e933fa76b71aa340222203f72213481f"
    "ac62a4fe074d91eb601757174a589a2a356b6ea417091627d8a95e5c96e07b282be55d5fec0024e3a2776cb609112fd7943a6669"
    "02f18365af2a5de6c5b05b4f785aeecd2788a152477fe3366fc7690acb2748a6de3f8c14e94a939e80f6172019aa27db"
)
_EC_SPKI = bytes.fromhex(
    "3059301306072a8648ce3d020106082a8648ce3d030107034200040068eb95b58620a00849ef23874377379f8b75490aa6301b81"
    "b4feb85ee7125b9fb124968648742b03ad362ecd96a19993cc347286c00a0681b3ea798624a11e"
)
_ES256 = bytes.fromhex(
    "d8a190fc18325ebb17b4d688f57c60d98f13ff6eea518909dc643cc668765e765cd0d850a1c8b16a8601976416d1175a742329a4"
    "76341a747201c96ea3bb9ffc"
)
_ED_SPKI = bytes.fromhex(
    "302a300506032b65700321008e759da79d9911431987f20bead0fee3dd4e1d127a3bb33ac4ef9d99ea323ebd"
)
_EDDSA = bytes.fromhex(
    "b375031ee19833d9c522ac77038ad0ad3c766ccfb9eca189ac9ffd8afb7522c51c3ff9406ea52d2f8022b907b369764f8a8242ae"
    "9e095678f98234b9cf616609"
)
_HS256 = bytes.fromhex("2315a2a1d5dccb1161504f015e685b6f88020b08822dcfaaf4e266eb323572f6")
_HS384 = bytes.fromhex(
    "7147026bb94c6ac8783ba4a19fccf753428d36475edf57963c5720b3578075ee60a10db3b0ccd1bed4fe26c9e11cda75"
)
_HS512 = bytes.fromhex(
    "f450f95f2c516ae3701286c28d948d0359a4901b96fe533dd3bcb46f6f307abca8ca43b498c7d0a0461e90b00121dde6231d9115"
    "774e0947ac447bc05a9a138a"
)


def _self_test():
    """Verify one good and two bad signatures of each family through the bound pointers; give "" or what went wrong."""
    secret = hashlib.sha512(_SELF_TEST_TEXT).digest()
    for algorithm, key, signature in (
        ("RS256", {"spki": _RSA_SPKI}, _RS256),
        ("PS256", {"spki": _RSA_SPKI}, _PS256),
        ("ES256", {"spki": _EC_SPKI}, _ES256),
        ("EdDSA", {"spki": _ED_SPKI}, _EDDSA),
        ("HS256", {"secret": secret}, _HS256),
        ("HS384", {"secret": secret}, _HS384),
        ("HS512", {"secret": secret}, _HS512),
    ):
        try:
            handle = KeyHandle(b"", algorithm, pool=1, **key)
        except ValueError as fault:
            return f"`{LIBCRYPTO_VERSION}`: {algorithm}: {fault}"
        forged = signature[:8] + bytes([signature[8] ^ 1]) + signature[9:]
        # The good one last as well: a context must still work after a failure.
        answers = [
            handle.verify(_SELF_TEST_TEXT, signature),
            handle.verify(_SELF_TEST_TEXT, forged),
            handle.verify(_SELF_TEST_TEXT + b".", signature),
            handle.verify(_SELF_TEST_TEXT, signature),
        ]
        if answers != [True, False, False, True]:
            return f"`{LIBCRYPTO_VERSION}`: self-test failed for {algorithm}"
    return ""


def _choose_backend():
    """Give BACKEND and its reason; leaves libcrypto unusable where it was not chosen."""
    global libcrypto_ready
    wanted = os.environ.get("PORTCULLIS_CRYPTO", "")
    if wanted not in ("", "libcrypto", "cryptography"):
        raise ImportError(f"PORTCULLIS_CRYPTO must be `libcrypto` or `cryptography`, not `{wanted}`")
    if wanted == "cryptography":
        return "cryptography", "PORTCULLIS_CRYPTO asks for it"
    problem = _bind_libcrypto() or _self_test()
    if not problem:
        return "libcrypto", f"`{LIBCRYPTO_PATH}`, {LIBCRYPTO_VERSION}"
    libcrypto_ready = False
    if wanted == "libcrypto":
        raise ImportError(f"PORTCULLIS_CRYPTO asks for libcrypto, which cannot be used: {problem}")
    return "cryptography", problem


BACKEND, BACKEND_REASON = _choose_backend()
