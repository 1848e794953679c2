"""Keys and tokens that all contestants share: realistic claims, 700 to 900 bytes, each token distinct."""

from __future__ import annotations

import base64
import json
import random
import time
import uuid
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import jwt
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
)

ISSUER = "https://idp.bench.example/realms/main"
AUDIENCE = "orders-api"
LIFETIME_S = 86_400
TOKEN_BYTES_MIN, TOKEN_BYTES_MAX = 700, 900
SECRET = b"a secret of the bench that is long enough for HS512, sixty-four bytes and more"
ALGORITHMS = ("RS256", "PS256", "ES256", "EdDSA", "HS256")

_PADDING = {"ES256": 190, "EdDSA": 190, "HS256": 222}  # signatures are shorter than RSA's; tokens shall not be
_SCOPES = ("orders:read", "orders:write", "customers:read", "invoices:read", "profile", "email", "offline_access")
_FIRST = ("Anna", "Bernd", "Chiara", "Dmitri", "Elif", "Farid", "Greta", "Hugo", "Ines", "Jonas", "Kaya", "Lena")
_LAST = ("Albrecht", "Brandt", "Castillo", "Duarte", "Eriksen", "Fontaine", "Garcia", "Hoffmann", "Ivanova", "Jansen")


def _b64(number: int) -> str:
    return base64.urlsafe_b64encode(number.to_bytes((number.bit_length() + 7) // 8, "big")).rstrip(b"=").decode()


def _claims(chooser: random.Random, now_s: int) -> dict[str, Any]:
    name, family = chooser.choice(_FIRST), chooser.choice(_LAST)
    return {
        "iss": ISSUER,
        "sub": str(uuid.UUID(int=chooser.getrandbits(128), version=4)),
        "aud": AUDIENCE,  # not a list: HAProxy 2.6 finds nothing in one
        "exp": now_s + LIFETIME_S,
        "iat": now_s,
        "jti": chooser.randbytes(12).hex(),
        "azp": "web-shop",
        "sid": chooser.randbytes(12).hex(),
        "scope": " ".join(chooser.sample(_SCOPES, 3)),
        "preferred_username": f"{name}.{family}".lower(),
    }


def _sign_many(pem: bytes | None, algorithm: str, kid: str, claims: Sequence[dict[str, Any]]) -> list[bytes]:
    key: Any = load_pem_private_key(pem, None) if pem is not None else SECRET
    headers = {"kid": kid}
    return [jwt.encode(each, key, algorithm=algorithm, headers=headers).encode() for each in claims]


@dataclass(frozen=True)
class Issuer:
    """One key of one algorithm, in every form that a contestant wants it in."""

    algorithm: str
    kid: str
    private_pem: bytes | None  # None for HS256
    spki: bytes | None  # DER
    jwk: dict[str, str]

    @cached_property
    def public_pem(self) -> bytes:
        assert self.private_pem is not None
        key = load_pem_private_key(self.private_pem, None)
        return key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)

    def write_jwks(self, path: Path) -> None:
        path.write_text(json.dumps({"keys": [self.jwk]}))

    def tokens(
        self, count: int, seed: int = 1, *, change: Callable[[dict[str, Any]], None] | None = None
    ) -> list[bytes]:
        """Make `count` distinct valid tokens, or ones whose claims `change` altered first."""
        chooser = random.Random(f"{self.algorithm} {seed}")
        now_s = int(time.time())
        claims = [_claims(chooser, now_s) for _ in range(count)]
        for each in claims:
            if self.algorithm in _PADDING:
                each["note"] = "x" * _PADDING[self.algorithm]
            if change is not None:
                change(each)
        sign = (self.private_pem, self.algorithm, self.kid)
        if count < 1000:
            return _sign_many(*sign, claims)
        quarter = -(-count // 4)
        with ProcessPoolExecutor(2) as pool:
            parts = [pool.submit(_sign_many, *sign, claims[at : at + quarter]) for at in range(0, count, quarter)]
            return [token for part in parts for token in part.result()]


def make_issuer(algorithm: str) -> Issuer:
    """Make a new key: RSA of 2048 bits, P-256, Ed25519, or the shared secret."""
    kid = f"bench-{algorithm.lower()}-2026"
    jwk = {"kid": kid, "alg": algorithm, "use": "sig"}
    private: rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey
    if algorithm == "HS256":
        encoded = base64.urlsafe_b64encode(SECRET).rstrip(b"=").decode()
        return Issuer(algorithm, kid, None, None, {**jwk, "kty": "oct", "k": encoded})
    if algorithm in {"RS256", "PS256"}:
        private = rsa.generate_private_key(65537, 2048)
        numbers = private.public_key().public_numbers()
        jwk |= {"kty": "RSA", "n": _b64(numbers.n), "e": _b64(numbers.e)}
    elif algorithm == "ES256":
        private = ec.generate_private_key(ec.SECP256R1())
        point = private.public_key().public_bytes(Encoding.X962, PublicFormat.UncompressedPoint)
        coordinates = [base64.urlsafe_b64encode(part).rstrip(b"=").decode() for part in (point[1:33], point[33:])]
        jwk |= {"kty": "EC", "crv": "P-256", "x": coordinates[0], "y": coordinates[1]}
    else:
        private = ed25519.Ed25519PrivateKey.generate()
        raw = private.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)
        jwk |= {"kty": "OKP", "crv": "Ed25519", "x": base64.urlsafe_b64encode(raw).rstrip(b"=").decode()}
    pem = private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    spki = private.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    return Issuer(algorithm, kid, pem, spki, jwk)


def with_bad_signature(token: bytes) -> bytes:
    """Change one bit in the middle of the signature; the token stays canonical base64url."""
    signed, _, signature = token.rpartition(b".")
    middle = len(signature) // 2
    other = b"B" if signature[middle : middle + 1] == b"A" else b"A"
    return signed + b"." + signature[:middle] + other + signature[middle + 1 :]


def check_sizes(tokens: Sequence[bytes]) -> None:
    """Stop where a token has not the size that the tables claim, or two are equal."""
    assert len(set(tokens)) == len(tokens), "two tokens are equal"
    sizes = sorted({len(token) for token in tokens})
    assert sizes[0] >= TOKEN_BYTES_MIN, f"a token of {sizes[0]} bytes"
    assert sizes[-1] <= TOKEN_BYTES_MAX, f"a token of {sizes[-1]} bytes"
