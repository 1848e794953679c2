"""Keys, judged before they may judge tokens: JWKs, key sets and secrets become `KeyHandle`s, each for one algorithm.

What a key may do is settled here, from the key and the configuration: kind, curve, `use`, `key_ops` and `alg` must
agree (RFC 8725 §3.1: "Each key MUST be used with exactly one algorithm"), and weak or compromised keys are refused.
Nothing of a token is known here. Errors and faults never hold key material.
"""

from __future__ import annotations

import hashlib
import hmac
import math
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass
from functools import cache

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature

from gateway._native import base64url
from gateway._native.verify import BACKEND, KeyHandle
from gateway.errors import KeyInvalid

RSA_BITS_MIN = 2048  # RFC 7518 §3.3
RSA_BITS_MAX = 8192  # above, one signature costs more than a token may
RSA_EXPONENT_MIN = 5  # 1 verifies anything, 3 has a history of forgeries, even ones are no exponents
RSA_EXPONENT_BITS_MAX = 64  # as OpenSSL for large moduli; a long exponent makes each signature dear
RSA_FACTOR_MAX = 1000  # a modulus with a prime factor up to here is broken or damaged
SECRET_BYTES_MAX = 1024
KID_BYTES_MAX = 1024  # as in token.pxd: no token can name a key with a longer `kid`
SHOWN_CHARACTERS_MAX = 80  # of an untrusted value, in a message
JWKS_KEYS_MAX = 256  # keys of one set; a real one has a handful

Verify = Callable[[bytes, bytes], bool]
PublicKey = rsa.RSAPublicKey | ec.EllipticCurvePublicKey | Ed25519PublicKey


@dataclass(frozen=True, slots=True)
class KeyFault:
    """Why one key of a set is not used. `kid` is empty where the key has none that can be read."""

    kid: str
    problem: str


@dataclass(frozen=True, slots=True)
class LoadedKeys:
    """What a key set gave: usable handles in the set's order, and the reasons why the others are not used."""

    handles: tuple[KeyHandle, ...]
    faults: tuple[KeyFault, ...]


# --- what each algorithm needs ----------------------------------------------------------------------------------------

_SHA2: Mapping[str, hashes.HashAlgorithm] = {"256": hashes.SHA256(), "384": hashes.SHA384(), "512": hashes.SHA512()}

# RFC 7518 §3.1, RFC 8037 §3.1: algorithm -> (`kty`, `crv`).
_KINDS: Mapping[str, tuple[str, str]] = {
    **{f"{family}{bits}": ("RSA", "") for family in ("RS", "PS") for bits in _SHA2},
    "ES256": ("EC", "P-256"),
    "ES384": ("EC", "P-384"),
    "ES512": ("EC", "P-521"),
    "EdDSA": ("OKP", "Ed25519"),
    **{f"HS{bits}": ("oct", "") for bits in _SHA2},
}

_CURVES: Mapping[str, ec.EllipticCurve] = {"P-256": ec.SECP256R1(), "P-384": ec.SECP384R1(), "P-521": ec.SECP521R1()}

# RFC 7518 §6.2.2, §6.3.2; RFC 8037 §2; RFC 9964 §3. `k` of a symmetric key is judged with its kind.
_PRIVATE_MEMBERS = frozenset({"d", "p", "q", "dp", "dq", "qi", "oth", "priv"})


# Other names for the same: RFC 9864's `Ed25519`; and `ES521`, by which some call ES512 in keys on its curve P-521.
_KEY_ALIASES: Mapping[str, str] = {"Ed25519": "EdDSA", "ES521": "ES512"}


class _OtherPurpose(KeyInvalid):
    """A key that is published for something else, so it does not compete with one that is ours."""


# --- loading ----------------------------------------------------------------------------------------------------------


def load_jwk(
    jwk: Mapping[str, object], algorithms: Collection[str], *, backend: str = BACKEND
) -> tuple[KeyHandle, ...]:
    """Return a handle for each of `algorithms` that the key may be used with, in one fixed order.

    A key with an `alg` gives one handle, a key without gives one for each algorithm of its kind. `x5c`, `x5t` and the
    like are ignored: trust comes from where the key was published. `backend` is for tests.
    Raises KeyInvalid for a key that may not be used, with the reason. RFC 7517 §4, RFC 7518 §6, RFC 8037 §2.
    """
    kid = _kid(jwk)
    kind = _text(jwk, "kty")
    if kind == "AKP":
        raise KeyInvalid("ML-DSA keys (`kty` `AKP`, RFC 9964) are not supported")
    if kind not in ("RSA", "EC", "OKP", "oct"):
        raise KeyInvalid(f"unknown `kty` `{_shown(kind)}`")
    published = sorted(_PRIVATE_MEMBERS & jwk.keys())
    if published:
        raise KeyInvalid(f"a private key (`{published[0]}`): whoever published it must replace it")
    _check_use(jwk)
    usable = _usable_algorithms(jwk, kind, algorithms)
    if kind == "oct":
        return _secret_handles(kid, _octets(jwk, "k"), usable, backend)
    key: PublicKey = _rsa_key(jwk) if kind == "RSA" else _ec_key(jwk) if kind == "EC" else _ed25519_key(jwk)
    return tuple(_public_handle(kid, key, algorithm, backend) for algorithm in usable)


def load_jwks(
    document: Mapping[str, object],
    algorithms: Collection[str],
    previous: Iterable[KeyHandle] = (),
    *,
    backend: str = BACKEND,
) -> LoadedKeys:
    """Return the usable keys of a JWK Set, and why the others are not used.

    A bad key costs no good one of another `kid` (RFC 7517 §5: "Implementations SHOULD ignore JWKs within a JWK Set that
    use "kty" (key type) values that are not understood by them"). Where two keys of a kind claim one `kid`, and they
    differ or one of them is broken, weak or private, none of them is used: nobody could say which is meant. Secrets
    beside public keys are not used either: a published set holds no secret.
    A handle of `previous` for the same `kid`, algorithm and key is returned again, so that cached verdicts stay valid.
    Raises KeyInvalid where the document is no key set, or holds more than JWKS_KEYS_MAX keys.
    """
    keys = document.get("keys")
    if not isinstance(keys, list | tuple):
        raise KeyInvalid("not a key set: `keys` is no array")
    if len(keys) > JWKS_KEYS_MAX:
        raise KeyInvalid(f"a key set of {len(keys)} keys; at most {JWKS_KEYS_MAX} are read")
    has_public = any(isinstance(jwk, Mapping) and jwk.get("kty") in ("RSA", "EC", "OKP", "AKP") for jwk in keys)
    faults: list[KeyFault] = []
    loaded: dict[tuple[bytes, str, bytes], KeyHandle] = {}
    spoiled: set[tuple[str, str]] = set()  # (kid, kty) of keys that claim a `kid` and are not to be used
    for jwk in keys:
        if not isinstance(jwk, Mapping):
            faults.append(KeyFault("", "not an object"))
            continue
        try:
            if has_public and jwk.get("kty") == "oct":
                raise KeyInvalid("a secret among public keys")
            for handle in load_jwk(jwk, algorithms, backend=backend):
                loaded.setdefault((handle.kid, handle.algorithm, handle.material), handle)
        except KeyInvalid as fault:
            kid = jwk.get("kid", "")
            faults.append(KeyFault(_shown(kid), str(fault)))
            if isinstance(kid, str) and not isinstance(fault, _OtherPurpose):
                spoiled.add((kid, str(jwk.get("kty"))))
    claims = Counter((handle.kid, handle.algorithm) for handle in loaded.values())
    known = {(old.kid, old.algorithm, old.material): old for old in previous if old.backend == backend}
    handles = []
    for identity, handle in loaded.items():
        named = handle.kid.decode()  # keys without a `kid` claim nothing
        if named and claims[handle.kid, handle.algorithm] > 1:
            faults.append(KeyFault(_shown(named), f"different keys claim this `kid` for `{handle.algorithm}`"))
        elif named and (named, _KINDS[handle.algorithm][0]) in spoiled:
            faults.append(KeyFault(_shown(named), "a key that may not be used claims this `kid` as well"))
        else:
            handles.append(known.get(identity, handle))
    return LoadedKeys(tuple(handles), tuple(faults))


def load_secret(
    secret: bytes, kid: bytes, algorithms: Collection[str], *, backend: str = BACKEND
) -> tuple[KeyHandle, ...]:
    """Return a handle for each HS algorithm of `algorithms` that `secret` is long enough for.

    Raises KeyInvalid where there is none, and for a "secret" that is a public key: whoever configured it would let
    everybody who has that key make tokens (RFC 8725 §2.1). RFC 7518 §3.2.
    """
    _check_names(algorithms)
    usable = [name for name, (kind, _) in _KINDS.items() if kind == "oct" and name in algorithms]
    if not usable:
        raise KeyInvalid("a secret verifies HS256, HS384 and HS512 only, and none of them is allowed")
    return _secret_handles(kid, secret, usable, backend)


def _shown(value: object) -> str:
    """Return what a message may hold of an untrusted value: short, and fit for every log."""
    if not isinstance(value, str):
        return ""
    start = "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in value[:SHOWN_CHARACTERS_MAX])
    return start + ("…" if len(value) > SHOWN_CHARACTERS_MAX else "")


# --- members ----------------------------------------------------------------------------------------------------------


def _kid(jwk: Mapping[str, object]) -> bytes:
    """Return the exact bytes of `kid`, b"" where there is none."""
    kid = jwk.get("kid", "")
    if not isinstance(kid, str):
        raise KeyInvalid("`kid` is no string")
    try:
        encoded = kid.encode()
    except UnicodeEncodeError:
        raise KeyInvalid("`kid` holds a lone surrogate") from None
    if len(encoded) > KID_BYTES_MAX:
        raise KeyInvalid(f"`kid` is longer than {KID_BYTES_MAX} bytes")
    return encoded


def _text(jwk: Mapping[str, object], name: str) -> str:
    value = jwk.get(name)
    if not isinstance(value, str):
        raise KeyInvalid(f"`{name}` is no string" if name in jwk else f"`{name}` is missing")
    return value


def _octets(jwk: Mapping[str, object], name: str) -> bytes:
    """Return the bytes of a canonical base64url member (RFC 7515 §2)."""
    try:
        return base64url.decode(_text(jwk, name).encode("ascii"))
    except ValueError:
        raise KeyInvalid(f"`{name}` is not base64url") from None


def _unsigned(jwk: Mapping[str, object], name: str) -> int:
    """Return a Base64urlUInt: "MUST utilize the minimum number of octets needed" (RFC 7518 §2)."""
    octets = _octets(jwk, name)
    if not octets or octets[0] == 0:
        raise KeyInvalid(f"`{name}` is empty or begins with a zero octet")
    return int.from_bytes(octets, "big")


def _check_names(algorithms: Collection[str]) -> None:
    """Refuse one string for a collection of names: `in` would find parts of it."""
    if isinstance(algorithms, str):
        raise KeyInvalid("the allowed algorithms are one string, not a collection of names")


def _check_use(jwk: Mapping[str, object]) -> None:
    """Refuse a key that is published for something else than verifying signatures (RFC 7517 §4.2, §4.3)."""
    if "use" in jwk and _text(jwk, "use") != "sig":
        raise _OtherPurpose(f"`use` is `{_shown(jwk['use'])}`, not `sig`")
    if "key_ops" not in jwk:
        return
    operations = jwk["key_ops"]
    if not isinstance(operations, list | tuple) or not all(isinstance(operation, str) for operation in operations):
        raise KeyInvalid("`key_ops` is no array of strings")
    if len(set(operations)) != len(operations):
        raise KeyInvalid("`key_ops` names an operation twice")
    if "verify" not in operations:
        raise _OtherPurpose("`key_ops` does not allow `verify`")


def _usable_algorithms(jwk: Mapping[str, object], kind: str, allowed: Collection[str]) -> list[str]:
    """Return what the key's kind, curve and `alg` leave of `allowed`; never nothing."""
    _check_names(allowed)
    curve = _text(jwk, "crv") if kind in ("EC", "OKP") else ""
    fitting = [name for name, needs in _KINDS.items() if needs == (kind, curve)]
    if not fitting:
        raise KeyInvalid(f"unsupported `crv` `{_shown(curve)}`")
    if "alg" in jwk:
        wanted = _KEY_ALIASES.get(_text(jwk, "alg"), _text(jwk, "alg"))
        if wanted not in fitting:
            raise _OtherPurpose(
                f"`alg` `{_shown(wanted)}` does not go with a key of kind `{' '.join((kind, curve)).strip()}`"
            )
        fitting = [wanted]
    usable = [name for name in fitting if name in allowed or (name == "EdDSA" and "Ed25519" in allowed)]
    if not usable:
        raise _OtherPurpose(f"none of its algorithms is allowed: {', '.join(f'`{name}`' for name in fitting)}")
    return usable


# --- RSA --------------------------------------------------------------------------------------------------------------


def _rsa_key(jwk: Mapping[str, object]) -> rsa.RSAPublicKey:
    modulus, exponent = _unsigned(jwk, "n"), _unsigned(jwk, "e")
    if not RSA_BITS_MIN <= modulus.bit_length() <= RSA_BITS_MAX:
        raise KeyInvalid(f"an RSA key needs {RSA_BITS_MIN} to {RSA_BITS_MAX} bits; this one has {modulus.bit_length()}")
    if exponent < RSA_EXPONENT_MIN or exponent % 2 == 0 or exponent.bit_length() > RSA_EXPONENT_BITS_MAX:
        raise KeyInvalid(
            f"an RSA exponent is odd, at least {RSA_EXPONENT_MIN} and of {RSA_EXPONENT_BITS_MAX} bits at most"
        )
    if math.gcd(modulus, _small_primes_product()) != 1:
        raise KeyInvalid("the RSA modulus has a small factor")
    if _has_roca_shape(modulus):
        raise KeyInvalid("an RSA key of a broken generator (ROCA, CVE-2017-15361)")
    try:
        return rsa.RSAPublicNumbers(exponent, modulus).public_key()
    except (ValueError, UnsupportedAlgorithm):
        raise KeyInvalid("not an RSA key") from None


def _primes(limit: int) -> list[int]:
    return [n for n in range(2, limit + 1) if all(n % divisor for divisor in range(2, math.isqrt(n) + 1))]


@cache
def _small_primes_product() -> int:
    return math.prod(_primes(RSA_FACTOR_MAX))


@cache
def _roca_residues() -> tuple[tuple[int, frozenset[int]], ...]:
    """Return (prime, powers of 65537 modulo it) for the primes of the generator's smallest primorial, 39 odd ones."""
    return tuple((p, frozenset(pow(65537, power, p) for power in range(p - 1))) for p in _primes(167) if p > 2)


def _has_roca_shape(modulus: int) -> bool:
    """Tell a modulus of the generator of CVE-2017-15361 by its residues.

    Its primes are k * M + (65537 ** a mod M), with M a product of the first primes, so modulo each of these primes the
    modulus is a power of 65537. For others that happens once in about 2**27 (Nemec et al., "The Return of
    Coppersmith's Attack", CCS 2017, §2.2).
    """
    return all(modulus % prime in powers for prime, powers in _roca_residues())


# --- elliptic curves --------------------------------------------------------------------------------------------------


def _ec_key(jwk: Mapping[str, object]) -> ec.EllipticCurvePublicKey:
    """Return the point; "the length of this octet string MUST be the full size of a coordinate" (RFC 7518 §6.2.1.2)."""
    curve = _CURVES[_text(jwk, "crv")]
    x, y = _octets(jwk, "x"), _octets(jwk, "y")
    if not len(x) == len(y) == (curve.key_size + 7) // 8:
        raise KeyInvalid("`x` or `y` has not the size of a coordinate")
    try:
        numbers = ec.EllipticCurvePublicNumbers(int.from_bytes(x, "big"), int.from_bytes(y, "big"), curve)
        return numbers.public_key()
    except (ValueError, UnsupportedAlgorithm):
        raise KeyInvalid("the point does not lie on the curve") from None


_FIELD = 2**255 - 19  # RFC 8032 §5.1
_EDWARDS_D = -121665 * pow(121666, -1, _FIELD) % _FIELD


def _ed25519_key(jwk: Mapping[str, object]) -> Ed25519PublicKey:
    octets = _octets(jwk, "x")
    if len(octets) != 32:
        raise KeyInvalid("`x` of an Ed25519 key has 32 bytes")
    if not _is_strong_edwards_point(octets):
        raise KeyInvalid("`x` is no point of Ed25519, or one of small order")
    try:
        return Ed25519PublicKey.from_public_bytes(octets)
    except (ValueError, UnsupportedAlgorithm):
        raise KeyInvalid("not an Ed25519 key") from None


def _is_strong_edwards_point(octets: bytes) -> bool:
    """Say whether the bytes are the one encoding of a point whose order is not 1, 2, 4 or 8.

    Under a key of small order anybody can sign: 8 * A is the neutral element. RFC 8032 §5.1.3 (decoding), §8.4.
    """
    encoded = int.from_bytes(octets, "little")
    sign, y = encoded >> 255, encoded & (2**255 - 1)
    if y >= _FIELD:
        return False
    y2 = y * y % _FIELD
    x2 = (y2 - 1) * pow(_EDWARDS_D * y2 + 1, -1, _FIELD) % _FIELD
    if pow(x2, (_FIELD - 1) // 2, _FIELD) not in (0, 1) or (x2 == 0 and sign):
        return False
    # Doubling needs the squares only: y' = (y² + x²) / (1 - d·x²·y²), x'² = 4·x²·y² / (1 + d·x²·y²)².
    for _ in range(3):
        product = _EDWARDS_D * x2 * y2
        y = (y2 + x2) * pow(1 - product, -1, _FIELD) % _FIELD
        x2 = 4 * x2 * y2 * pow(1 + product, -2, _FIELD) % _FIELD
        y2 = y * y % _FIELD
    return (x2, y) != (0, 1)


# --- secrets ----------------------------------------------------------------------------------------------------------


def _secret_handles(kid: bytes, secret: bytes, usable: Iterable[str], backend: str) -> tuple[KeyHandle, ...]:
    if not secret:
        raise KeyInvalid("an empty secret")
    if len(secret) > SECRET_BYTES_MAX:
        raise KeyInvalid(f"a secret of more than {SECRET_BYTES_MAX} bytes")
    if _is_public_key(secret):
        raise KeyInvalid("a public key is no secret")
    # RFC 7518 §3.2: "A key of the same size as the hash output […] or larger MUST be used with this algorithm."
    long_enough = [name for name in usable if len(secret) >= _digest_bytes(name)]
    if not long_enough:
        raise KeyInvalid(f"the secret has {len(secret)} bytes; `{min(usable)}` needs {_digest_bytes(min(usable))}")
    return tuple(_secret_handle(kid, secret, name, backend) for name in long_enough)


def _is_public_key(secret: bytes) -> bool:
    """Recognise what is sometimes configured by mistake: PEM, OpenSSH, a JWK, or a DER public key or certificate."""
    text = secret.strip()
    if b"-----BEGIN" in text or text.startswith((b"ssh-", b"ecdsa-sha2-", b"sk-ssh-")):
        return True
    if text.startswith(b"{") and b'"kty"' in text:
        return True
    try:
        serialization.load_der_public_key(secret)
    except (ValueError, UnsupportedAlgorithm):
        return False
    return True


# --- handles ----------------------------------------------------------------------------------------------------------


def _digest_bytes(algorithm: str) -> int:
    return int(algorithm[2:]) // 8


def _public_handle(kid: bytes, key: PublicKey, algorithm: str, backend: str) -> KeyHandle:
    spki = key.public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
    verify = None if backend == "libcrypto" else _public_verify(key, algorithm)
    try:
        return KeyHandle(kid, algorithm, spki=spki, python_verify=verify)
    except ValueError as error:
        raise KeyInvalid(str(error)) from error


def _secret_handle(kid: bytes, secret: bytes, algorithm: str, backend: str) -> KeyHandle:
    verify = None if backend == "libcrypto" else _secret_verify(secret, algorithm)
    try:
        return KeyHandle(kid, algorithm, secret=secret, python_verify=verify)
    except ValueError as error:
        raise KeyInvalid(str(error)) from error


def _public_verify(key: PublicKey, algorithm: str) -> Verify:
    """Return the verifier of the `cryptography` backend: (signature, signed) -> bool."""
    if isinstance(key, Ed25519PublicKey):
        return _checked(key.verify)
    digest = _SHA2[algorithm[2:]]
    if isinstance(key, ec.EllipticCurvePublicKey):
        scalar_bytes, scheme = (key.curve.key_size + 7) // 8, ec.ECDSA(digest)

        def verify_ecdsa(signature: bytes, signed: bytes) -> None:
            r = int.from_bytes(signature[:scalar_bytes], "big")
            s = int.from_bytes(signature[scalar_bytes:], "big")
            key.verify(encode_dss_signature(r, s), signed, scheme)

        return _checked(verify_ecdsa)
    # RFC 7518 §3.5: the salt is as long as the digest, MGF1 uses the same hash.
    fill = padding.PSS(padding.MGF1(digest), digest.digest_size) if algorithm.startswith("PS") else padding.PKCS1v15()
    signature_bytes = (key.key_size + 7) // 8

    def verify_rsa(signature: bytes, signed: bytes) -> None:
        # RFC 8017 §8.1.2, step 1. For PSS the library takes a signature without its leading zeros as well, which would
        # give one token many spellings.
        if len(signature) != signature_bytes:
            raise InvalidSignature
        key.verify(signature, signed, fill, digest)

    return _checked(verify_rsa)


def _checked(verify: Callable[[bytes, bytes], None]) -> Verify:
    def answer(signature: bytes, signed: bytes) -> bool:
        try:
            verify(signature, signed)
        except InvalidSignature:
            return False
        return True

    return answer


def _secret_verify(secret: bytes, algorithm: str) -> Verify:
    name = hashlib.new(f"sha{algorithm[2:]}").name

    def answer(signature: bytes, signed: bytes) -> bool:
        return hmac.compare_digest(hmac.digest(secret, signed, name), signature)

    return answer
