"""Keys that sign, and tokens made with them: for the demo, for tests, and for operators' own small issuers."""

from __future__ import annotations

import base64
import hashlib
import json
import secrets
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import jwt
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from jwt.algorithms import ECAlgorithm, OKPAlgorithm, RSAAlgorithm

from gateway.errors import KeyInvalid
from gateway.types import Secret

PrivateKey = rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey

RSA_BITS = 2048  # RFC 7518 §3.3: "A key of size 2048 bits or larger MUST be used"
_RSA_EXPONENT = 65537
_CURVES: Mapping[str, ec.EllipticCurve] = {"ES256": ec.SECP256R1(), "ES384": ec.SECP384R1(), "ES512": ec.SECP521R1()}
_SECRET_BYTES: Mapping[str, int] = {"HS256": 32, "HS384": 48, "HS512": 64}  # RFC 7518 §3.2
_RSA_NAMES = ("RS256", "RS384", "RS512", "PS256", "PS384", "PS512")
ALGORITHMS = (*_RSA_NAMES, *_CURVES, "EdDSA", *_SECRET_BYTES)

# RFC 7638 §3.2: the members that make a key what it is.
_THUMBPRINT_MEMBERS = {"RSA": ("e", "kty", "n"), "EC": ("crv", "kty", "x", "y"), "OKP": ("crv", "kty", "x")}


@dataclass(frozen=True, slots=True)
class SigningKey:
    """A private key or a secret, bound to one algorithm. Its `repr` does not show it."""

    kid: str
    algorithm: str
    material: PrivateKey | Secret

    @property
    def is_symmetric(self) -> bool:
        return isinstance(self.material, Secret)

    def public_jwk(self) -> dict[str, Any]:
        """Return the public half as a JWK (RFC 7517 §4). Raises KeyInvalid for a secret, which has none."""
        if isinstance(self.material, Secret):
            raise KeyInvalid("a secret has no public half")
        return {**_jwk_of(self.material.public_key()), "kid": self.kid, "alg": self.algorithm, "use": "sig"}

    def private_jwk(self) -> dict[str, Any]:
        """Return all of it as a JWK. Whoever holds it can make tokens."""
        if isinstance(self.material, Secret):
            encoded = base64.urlsafe_b64encode(self.material.reveal()).rstrip(b"=").decode()
            return {"kty": "oct", "k": encoded, "kid": self.kid, "alg": self.algorithm, "use": "sig"}
        return {**_jwk_of(self.material), "kid": self.kid, "alg": self.algorithm, "use": "sig"}

    def pem(self) -> bytes:
        """Return the private key as unencrypted PKCS #8 PEM (RFC 5958), which keeps neither `kid` nor algorithm."""
        if isinstance(self.material, Secret):
            raise KeyInvalid("a secret is no PKCS #8 key")
        return self.material.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )


def new_key(algorithm: str, *, kid: str = "", rsa_bits: int = RSA_BITS) -> SigningKey:
    """Make a key for `algorithm`; without a `kid` it is named by its thumbprint (RFC 7638).

    Raises KeyInvalid for an algorithm that is not ours, and for RSA keys below RSA_BITS.
    """
    material: PrivateKey | Secret
    if algorithm in _RSA_NAMES:
        if rsa_bits < RSA_BITS:
            raise KeyInvalid(f"an RSA key of {rsa_bits} bits is too weak; {RSA_BITS} at least (RFC 7518 §3.3)")
        material = rsa.generate_private_key(_RSA_EXPONENT, rsa_bits)
    elif algorithm in _CURVES:
        material = ec.generate_private_key(_CURVES[algorithm])
    elif algorithm == "EdDSA":
        material = ed25519.Ed25519PrivateKey.generate()
    elif algorithm in _SECRET_BYTES:
        return SigningKey(kid, algorithm, Secret(secrets.token_urlsafe(_SECRET_BYTES[algorithm])))
    else:
        raise KeyInvalid(f"`{algorithm}` is none of {', '.join(ALGORITHMS)}")
    return SigningKey(kid or thumbprint(_jwk_of(material.public_key())), algorithm, material)


def read_key(data: bytes, algorithm: str = "", kid: str = "") -> SigningKey:
    """Read a private key from PKCS #8 PEM or a private JWK, or with an HS `algorithm` the secret itself.

    `algorithm` and `kid` stand in where the file names none; an algorithm that the key cannot be used with is refused.
    Raises KeyInvalid, without a word of what the file holds.
    """
    text = data.strip()
    if text.startswith(b"-----BEGIN"):
        material = _pem_key(text)
    elif text.startswith(b"{"):
        return _jwk_key(text, algorithm, kid)
    elif algorithm in _SECRET_BYTES:
        return _secret_key(data.removesuffix(b"\n"), algorithm, kid)
    else:
        raise KeyInvalid("neither PEM nor JWK; a bare secret needs an HS algorithm")
    return _bound(material, algorithm, kid)


def mint(
    claims: Mapping[str, Any],
    key: SigningKey,
    *,
    typ: str = "at+jwt",
    lifetime_s: int = 3600,
    now_s: int | None = None,
) -> str:
    """Return `claims` as a signed JWT. `iat` is now and `exp` is `lifetime_s` later, where the claims do not say.

    `typ` is `at+jwt` for access tokens (RFC 9068 §2.1); "" leaves it away.
    """
    issued_at_s = int(time.time()) if now_s is None else now_s
    payload = {"iat": issued_at_s, "exp": issued_at_s + lifetime_s, **claims}
    headers: dict[str, Any] = {"typ": typ or None}
    if key.kid:
        headers["kid"] = key.kid
    material = key.material.reveal() if isinstance(key.material, Secret) else key.material
    return jwt.encode(payload, material, algorithm=key.algorithm, headers=headers)


def public_jwks(keys: Iterable[SigningKey]) -> dict[str, list[dict[str, Any]]]:
    """Return the public halves as a JWK Set (RFC 7517 §5), ready to be published."""
    return {"keys": [key.public_jwk() for key in keys]}


def _jwk_of(
    key: PrivateKey | rsa.RSAPublicKey | ec.EllipticCurvePublicKey | ed25519.Ed25519PublicKey,
) -> dict[str, Any]:
    if isinstance(key, rsa.RSAPrivateKey | rsa.RSAPublicKey):
        found = RSAAlgorithm.to_jwk(key, as_dict=True)
    elif isinstance(key, ec.EllipticCurvePrivateKey | ec.EllipticCurvePublicKey):
        found = ECAlgorithm.to_jwk(key, as_dict=True)
    else:
        found = OKPAlgorithm.to_jwk(key, as_dict=True)
    found.pop("key_ops", None)  # beside `use` it would say the same twice (RFC 7517 §4.3)
    return found


def thumbprint(jwk: Mapping[str, Any]) -> str:
    """Return the SHA-256 thumbprint of a JWK (RFC 7638). Raises KeyError for a kind of key that is not ours."""
    members = {name: jwk[name] for name in _THUMBPRINT_MEMBERS[jwk["kty"]]}
    digest = hashlib.sha256(json.dumps(members, sort_keys=True, separators=(",", ":")).encode()).digest()
    return base64.urlsafe_b64encode(digest).rstrip(b"=").decode()


def _pem_key(text: bytes) -> object:
    try:
        return serialization.load_pem_private_key(text, password=None)
    except TypeError:
        raise KeyInvalid("the key is encrypted; decrypt it first (`openssl pkey`)") from None
    except (ValueError, UnsupportedAlgorithm):
        raise KeyInvalid("no private key in PEM that can be read") from None


def _jwk_key(text: bytes, algorithm: str, kid: str) -> SigningKey:
    try:
        jwk = json.loads(text)
        kind, named = jwk.get("kty"), jwk.get("alg", algorithm)
        if not isinstance(named, str) or not isinstance(jwk.get("kid", kid), str):
            raise KeyInvalid("`alg` or `kid` is no string")
        if algorithm and named != algorithm:
            raise KeyInvalid(f"the key is for `{named}`, not for `{algorithm}`")
        if kind == "oct":
            secret = base64.urlsafe_b64decode(jwk["k"] + "=" * (-len(jwk["k"]) % 4))
            return _secret_key(secret, named or "HS256", jwk.get("kid", kid))
        if "d" not in jwk:
            raise KeyInvalid("a public key; it takes the private one to sign")
        readers: dict[object, Callable[..., object]] = {
            "RSA": RSAAlgorithm.from_jwk,
            "EC": ECAlgorithm.from_jwk,
            "OKP": OKPAlgorithm.from_jwk,
        }
        if kind not in readers:
            raise KeyInvalid("`kty` is none of `RSA`, `EC`, `OKP`, `oct`")
        material = readers[kind](jwk)
    except (ValueError, TypeError, KeyError, AttributeError, jwt.InvalidKeyError):
        raise KeyInvalid("no private JWK that can be read") from None
    return _bound(material, named, jwk.get("kid", kid))


def _secret_key(secret: bytes, algorithm: str, kid: str) -> SigningKey:
    if algorithm not in _SECRET_BYTES:
        raise KeyInvalid(f"a secret cannot sign with `{algorithm}`")
    if len(secret) < _SECRET_BYTES[algorithm]:
        raise KeyInvalid(f"a secret for `{algorithm}` has {_SECRET_BYTES[algorithm]} bytes at least (RFC 7518 §3.2)")
    return SigningKey(kid, algorithm, Secret(secret))


def _bound(material: object, algorithm: str, kid: str) -> SigningKey:
    """Bind a key to its algorithm: the one asked for, or the usual one of its kind."""
    if isinstance(material, rsa.RSAPrivateKey):
        usable: tuple[str, ...] = _RSA_NAMES
        if material.key_size < RSA_BITS:
            raise KeyInvalid(f"an RSA key of {material.key_size} bits is too weak (RFC 7518 §3.3)")
    elif isinstance(material, ec.EllipticCurvePrivateKey):
        usable = tuple(name for name, curve in _CURVES.items() if curve.name == material.curve.name)
    elif isinstance(material, ed25519.Ed25519PrivateKey):
        usable = ("EdDSA",)
    else:
        usable = ()
    if not usable:
        raise KeyInvalid("neither RSA, nor Ed25519, nor on the curves P-256, P-384, P-521")
    if algorithm and algorithm not in usable:
        raise KeyInvalid(f"the key cannot be used with `{algorithm}`; it can with {', '.join(usable)}")
    assert isinstance(material, rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey)
    return SigningKey(kid or thumbprint(_jwk_of(material.public_key())), algorithm or usable[0], material)
