"""Makes tokens for tests, good ones and such as no library would make: any header, any payload, any signature.

Keys are made once a process. Signing goes through `cryptography` and `hmac`, never through the code under test.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any

from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature

from gateway._native.verify import KeyHandle

Sign = Callable[[bytes], bytes]
_HASHES = {"256": hashes.SHA256(), "384": hashes.SHA384(), "512": hashes.SHA512()}
_CURVES = {"ES256": (ec.SECP256R1(), 32), "ES384": (ec.SECP384R1(), 48), "ES512": (ec.SECP521R1(), 66)}


def b64(data: bytes) -> bytes:
    return base64.urlsafe_b64encode(data).rstrip(b"=")


def segment(value: Mapping[str, Any] | bytes) -> bytes:
    """Encode one segment: JSON of a mapping, or bytes as they are."""
    return b64(value if isinstance(value, bytes) else json.dumps(value, separators=(",", ":")).encode())


@dataclass(frozen=True)
class Signer:
    """A private key bound to one algorithm, and what a verifier needs of it."""

    kid: str
    algorithm: str
    sign: Sign
    spki: bytes = b""
    secret: bytes = b""

    def handle(self, kid: str | None = None) -> KeyHandle:
        name = (self.kid if kid is None else kid).encode()
        if self.secret:
            return KeyHandle(name, self.algorithm, secret=self.secret)
        return KeyHandle(name, self.algorithm, spki=self.spki)

    def jwk(self, **members: object) -> dict[str, object]:
        """Return the public JWK (the whole one of a secret)."""
        if self.secret:
            material: dict[str, object] = {"kty": "oct", "k": b64(self.secret).decode()}
        else:
            material = _public_jwk(self.spki)
        return {"kid": self.kid, "alg": self.algorithm, **material, **members}

    def token(self, payload: Mapping[str, Any] | bytes, header: Mapping[str, Any] | bytes | None = None) -> bytes:
        """Sign `payload`; `header` replaces or adds to alg, kid and typ, and None removes one. Bytes stay."""
        if not isinstance(header, bytes):
            members = {"alg": self.algorithm, "kid": self.kid or None, "typ": "JWT", **(header or {})}
            header = segment({name: value for name, value in members.items() if value is not None})
        else:
            header = segment(header)
        signed = header + b"." + segment(payload)
        return signed + b"." + b64(self.sign(signed))


@cache
def rsa_signer(kid: str = "rsa", algorithm: str = "RS256", bits: int = 2048, name: str = "") -> Signer:
    """Return a signer of an RSA key; `name` tells keys of the same size apart."""
    return _rsa_signer(_rsa_key(bits, name), kid, algorithm)


@cache
def _rsa_key(bits: int, name: str) -> rsa.RSAPrivateKey:
    return rsa.generate_private_key(65537, bits)


def _rsa_signer(key: rsa.RSAPrivateKey, kid: str, algorithm: str) -> Signer:
    digest = _HASHES[algorithm[2:]]
    scheme: padding.AsymmetricPadding = padding.PKCS1v15()
    if algorithm.startswith("PS"):
        scheme = padding.PSS(padding.MGF1(digest), digest.digest_size)
    return Signer(kid, algorithm, lambda signed: key.sign(signed, scheme, digest), spki_of(key))


@cache
def ec_signer(kid: str = "ec", algorithm: str = "ES256") -> Signer:
    curve, size = _CURVES[algorithm]
    key = ec.generate_private_key(curve)

    def sign(signed: bytes) -> bytes:
        r, s = decode_dss_signature(key.sign(signed, ec.ECDSA(_HASHES[algorithm[2:]])))
        return r.to_bytes(size, "big") + s.to_bytes(size, "big")

    return Signer(kid, algorithm, sign, spki_of(key))


@cache
def ed_signer(kid: str = "ed") -> Signer:
    key = ed25519.Ed25519PrivateKey.generate()
    return Signer(kid, "EdDSA", key.sign, spki_of(key))


def hs_signer(kid: str = "hs", secret: bytes = b"k" * 64, algorithm: str = "HS256") -> Signer:
    digest = getattr(hashlib, f"sha{algorithm[2:]}")
    return Signer(kid, algorithm, lambda signed: hmac.new(secret, signed, digest).digest(), secret=secret)


def spki_of(key: rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey) -> bytes:
    return key.public_key().public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)


def _public_jwk(spki: bytes) -> dict[str, object]:
    key = serialization.load_der_public_key(spki)
    if isinstance(key, rsa.RSAPublicKey):
        numbers = key.public_numbers()
        size = (key.key_size + 7) // 8
        return {"kty": "RSA", "n": b64(numbers.n.to_bytes(size, "big")).decode(), "e": b64(b"\1\0\1").decode()}
    if isinstance(key, ec.EllipticCurvePublicKey):
        point = key.public_numbers()
        size = (key.curve.key_size + 7) // 8
        x, y = (b64(number.to_bytes(size, "big")).decode() for number in (point.x, point.y))
        return {"kty": "EC", "crv": {256: "P-256", 384: "P-384", 521: "P-521"}[key.curve.key_size], "x": x, "y": y}
    assert isinstance(key, ed25519.Ed25519PublicKey)
    return {"kty": "OKP", "crv": "Ed25519", "x": b64(key.public_bytes_raw()).decode()}
