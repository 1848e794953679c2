"""Keys of every algorithm that sign, for tests: the JWK, and a function that signs as an issuer would."""

from __future__ import annotations

import base64
import hmac
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from tests.oracle.verify import Key

SHA2: dict[str, hashes.HashAlgorithm] = {"256": hashes.SHA256(), "384": hashes.SHA384(), "512": hashes.SHA512()}
CURVES: dict[str, tuple[str, ec.EllipticCurve]] = {
    "ES256": ("P-256", ec.SECP256R1()),
    "ES384": ("P-384", ec.SECP384R1()),
    "ES512": ("P-521", ec.SECP521R1()),
}
RSA_NAMES = tuple(f"{family}{bits}" for family in ("RS", "PS") for bits in SHA2)
PUBLIC_NAMES = (*RSA_NAMES, *CURVES, "EdDSA")
HMAC_NAMES = ("HS256", "HS384", "HS512")
NAMES = (*PUBLIC_NAMES, *HMAC_NAMES)


@dataclass(frozen=True, slots=True)
class Signer:
    """One key for one algorithm."""

    algorithm: str
    jwk: dict[str, str]  # public, or with the secret
    spki: bytes  # b"" for HMAC
    key: Key  # as the oracle wants it
    sign: Callable[[bytes], bytes]


def b64(octets: bytes) -> str:
    return base64.urlsafe_b64encode(octets).rstrip(b"=").decode()


def b64_uint(number: int) -> str:
    return b64(number.to_bytes((number.bit_length() + 7) // 8, "big"))


@cache
def rsa_key() -> rsa.RSAPrivateKey:
    return rsa.generate_private_key(65537, 2048)


def pss(algorithm: str, salt_bytes: int) -> padding.PSS:
    return padding.PSS(padding.MGF1(SHA2[algorithm[2:]]), salt_bytes)


@cache
def signer(algorithm: str) -> Signer:
    """Return this run's key for `algorithm`; the six RSA algorithms share one."""
    if algorithm.startswith("HS"):
        secret = bytes(range(100, 100 + int(algorithm[2:]) // 8))
        jwk = {"kty": "oct", "k": b64(secret), "alg": algorithm, "kid": algorithm}
        return Signer(algorithm, jwk, b"", secret, lambda text: hmac.digest(secret, text, f"sha{algorithm[2:]}"))
    if algorithm == "EdDSA":
        edwards = Ed25519PrivateKey.generate()
        raw = edwards.public_key().public_bytes_raw()
        jwk = {"kty": "OKP", "crv": "Ed25519", "x": b64(raw), "alg": algorithm, "kid": algorithm}
        return Signer(algorithm, jwk, der(edwards.public_key()), raw, edwards.sign)
    if algorithm in CURVES:
        return _ecdsa_signer(algorithm)
    key, digest = rsa_key(), SHA2[algorithm[2:]]
    fill = pss(algorithm, digest.digest_size) if algorithm.startswith("PS") else padding.PKCS1v15()
    numbers = key.public_key().public_numbers()
    jwk = {"kty": "RSA", "n": b64_uint(numbers.n), "e": b64_uint(numbers.e), "alg": algorithm, "kid": algorithm}
    return Signer(
        algorithm, jwk, der(key.public_key()), (numbers.n, numbers.e), lambda text: key.sign(text, fill, digest)
    )


def _ecdsa_signer(algorithm: str) -> Signer:
    name, curve = CURVES[algorithm]
    key, size = ec.generate_private_key(curve), (curve.key_size + 7) // 8
    numbers = key.public_key().public_numbers()

    def sign(text: bytes) -> bytes:
        r, s = decode_dss_signature(key.sign(text, ec.ECDSA(SHA2[algorithm[2:]])))
        return r.to_bytes(size, "big") + s.to_bytes(size, "big")

    x, y = (b64(number.to_bytes(size, "big")) for number in (numbers.x, numbers.y))
    jwk = {"kty": "EC", "crv": name, "x": x, "y": y, "alg": algorithm, "kid": algorithm}
    return Signer(algorithm, jwk, der(key.public_key()), (numbers.x, numbers.y), sign)


def der(key: rsa.RSAPublicKey | ec.EllipticCurvePublicKey | Ed25519PublicKey) -> bytes:
    return key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
