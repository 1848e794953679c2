"""Verification of JWS signatures through the libcrypto that Python itself has loaded, or through `cryptography`.

`PORTCULLIS_CRYPTO=libcrypto|cryptography` forces a backend; importing fails where the forced one cannot be had.
"""

from collections.abc import Callable
from typing import Final, final

ALGORITHMS: Final[tuple[str, ...]]
"""The JOSE names (RFC 7518 §3.1, RFC 8037 §3.1) by their number in `verify.pxd`; the first is empty."""
BACKEND: Final[str]
"""`libcrypto`, or `cryptography` where no libcrypto can be borrowed or its self-test failed."""
BACKEND_REASON: Final[str]
"""The library that was found, or why none is used; one line for operators."""
LIBCRYPTO_PATH: Final[str]
"""The library's file; empty where none was found or asked for."""
LIBCRYPTO_VERSION: Final[str]
"""The library's own name for its version, like `OpenSSL 3.0.19 27 Jan 2026`; empty where none was found."""

__pyx_capi__: Final[dict[str, object]]  # what `verify.pxd` offers to other compiled modules

@final
class KeyHandle:
    """One key, bound for life to one algorithm. Immutable; safe from many threads at once."""

    kid: Final[bytes]
    """The JWK's `kid`, exact bytes; empty where it has none."""
    algorithm: Final[str]
    """One of ALGORITHMS; `Ed25519` (RFC 9864) is kept as `EdDSA`."""
    backend: Final[str]
    """Who verifies: `libcrypto` or `cryptography`."""
    material: Final[bytes]
    """32 bytes that are equal for equal keys of this process, and different otherwise.

    SHA-256 of `spki`; for a secret a digest under a key of this process, which tells nothing of it; random where
    there is neither.
    """

    def __new__(
        cls,
        kid: bytes,
        algorithm: str,
        *,
        spki: bytes | None = None,
        secret: bytes | None = None,
        python_verify: Callable[[bytes, bytes], bool] | None = None,
        pool: int = 0,
    ) -> KeyHandle:
        """Take a DER SubjectPublicKeyInfo, or for HS* the secret.

        `python_verify(signature, signed)` makes it a handle of the `cryptography` backend: only the answer True
        counts, and an exception is a no; `spki` or `secret` then only give `material`. ECDSA signatures reach it raw,
        as r || s. `pool` is how many initialised contexts are kept for the threads that verify at once (0: two for each
        CPU, at most 256); more threads than that still verify, with contexts of their own.

        Raises ValueError for an unknown algorithm, a key of another kind than the algorithm's, RSA outside 2048 to 8192
        bits, a secret shorter than the digest (RFC 7518 §3.2, §3.3), and a key that libcrypto does not decode. This is
        the last line of defence; gateway/tokens/keys.py judges keys in full.
        """

    def verify(self, signed: bytes, signature: bytes) -> bool:
        """Say whether `signature` is this key's over `signed`; never raises. Releases the GIL."""

def live_objects() -> dict[str, int]:
    """Count the `keys` and the `slots` (initialised contexts) that exist now, so that tests can balance them."""

def raw_verify_loop(algorithm: str, spki: bytes, signed: bytes, signature: bytes, count: int) -> int:
    """Give the nanoseconds that `count` bare verifications take: the digest and EVP_PKEY_verify on one reused context.

    The floor that `KeyHandle.verify` is measured against, in the same process and library. The GIL is released.
    Raises ValueError where the signature is not valid (so a wrong one is never timed), where there is no libcrypto, and
    for HS*, which has no public key.
    """
