"""Keys that sign, and tokens made with them, judged by the gateway's own judge."""

from __future__ import annotations

import base64
import json
from typing import Any

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from gateway.errors import KeyInvalid
from gateway.tokens import Issuer, TokenError, TokenValidator
from gateway.tokens.signing import ALGORITHMS, SigningKey, mint, new_key, public_jwks, read_key
from gateway.types import Secret

ISSUER = "https://idp.example.com"
ASYMMETRIC = [name for name in ALGORITHMS if not name.startswith("HS")]


@pytest.fixture(scope="module")
def keys() -> dict[str, SigningKey]:
    return {algorithm: new_key(algorithm) for algorithm in ALGORITHMS}


def validator(key: SigningKey, algorithm: str) -> TokenValidator:
    if isinstance(key.material, Secret):
        issuer = Issuer(ISSUER, any_audience=True, algorithms=[algorithm], secret=key.material.reveal())
    else:
        issuer = Issuer(ISSUER, any_audience=True, algorithms=[algorithm], jwks=public_jwks([key]))
    return TokenValidator([issuer])


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_what_a_key_signs_its_public_half_verifies(algorithm: str, keys: dict[str, SigningKey]) -> None:
    key = keys[algorithm]
    assert validator(key, algorithm).validate(mint({"iss": ISSUER, "sub": "alice"}, key)).subject == "alice"


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_a_key_of_the_same_kind_does_not_verify_it(algorithm: str, keys: dict[str, SigningKey]) -> None:
    other = new_key(algorithm, kid=keys[algorithm].kid)
    with pytest.raises(TokenError, match="signature"):
        validator(other, algorithm).validate(mint({"iss": ISSUER}, keys[algorithm]))


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_a_private_jwk_gives_the_key_back(algorithm: str, keys: dict[str, SigningKey]) -> None:
    key = keys[algorithm]
    again = read_key(json.dumps(key.private_jwk()).encode())
    assert (again.kid, again.algorithm) == (key.kid, algorithm)
    assert validator(key, algorithm).validate(mint({"iss": ISSUER, "sub": "a"}, again)).subject == "a"


@pytest.mark.parametrize("algorithm", ASYMMETRIC)
def test_pem_gives_the_key_back_under_itsthumbprint(algorithm: str, keys: dict[str, SigningKey]) -> None:
    key = keys[algorithm]
    again = read_key(key.pem(), algorithm)
    assert again.public_jwk() == key.public_jwk()


def test_athumbprint_is_that_of_rfc_7638_section_3_1() -> None:
    modulus = (
        "0vx7agoebGcQSuuPiLJXZptN9nndrQmbXEps2aiAFbWhM78LhWx4cbbfAAtVT86zwu1RK7aPFFxuhDR1L6tSoc_BJECPebWKRXjBZCiFV4n3oknjhMs"
        "tn64tZ_2W-5JsGY4Hc5n9yBXArwl93lqt7_RN5w6Cf0h4QyQ5v-65YGjQR0_FDW2QvzqY368QQMicAtaSqzs8KJZgnYb9c7d0zgdAZHzu6qMQvRL5hajr"
        "n1n91CbOpbISD08qNLyrdkt-bFTWhAI4vMQFh6WeZu0fM4lFd2NcRwr3XPksINHaQ-G_xBniIqbw0Ls1jF44-csFCur-kEgU8awapJzKnqDKgw"
    )
    from gateway.tokens.signing import thumbprint

    assert thumbprint({"kty": "RSA", "n": modulus, "e": "AQAB", "alg": "RS256"}) == (
        "NzbLsXh8uDCcd-6MNwXF4W_7noWXFZAfHkxZsRGC9Xs"
    )


def test_a_bare_secret_needs_to_be_told_what_for() -> None:
    assert read_key(b"k" * 32 + b"\n", "HS256").material == Secret(b"k" * 32)
    with pytest.raises(KeyInvalid, match="neither PEM nor JWK"):
        read_key(b"k" * 32)
    with pytest.raises(KeyInvalid, match="32 bytes at least"):
        read_key(b"k" * 31, "HS256")


def test_the_times_are_made_and_claims_win() -> None:
    key = new_key("ES256")
    payload = json.loads(base64.urlsafe_b64decode(mint({"a": 1}, key, now_s=1000, lifetime_s=10).split(".")[1] + "=="))
    assert payload == {"iat": 1000, "exp": 1010, "a": 1}
    payload = json.loads(base64.urlsafe_b64decode(mint({"exp": 5}, key, now_s=1000).split(".")[1] + "=="))
    assert payload == {"iat": 1000, "exp": 5}


def test_the_header_names_key_and_type() -> None:
    def header(token: str) -> Any:
        part, _, _ = token.partition(".")
        return json.loads(base64.urlsafe_b64decode(part + "=" * (-len(part) % 4)))

    key = new_key("ES256", kid="one")
    assert header(mint({}, key)) == {"alg": "ES256", "kid": "one", "typ": "at+jwt"}
    assert header(mint({}, key, typ="")) == {"alg": "ES256", "kid": "one"}
    assert "kid" not in header(mint({}, new_key("HS256")))


def test_a_secret_is_never_public() -> None:
    key = new_key("HS256")
    with pytest.raises(KeyInvalid, match="no public half"):
        public_jwks([key])
    with pytest.raises(KeyInvalid):
        key.pem()


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_no_private_part_is_shown_or_published(algorithm: str, keys: dict[str, SigningKey]) -> None:
    key = keys[algorithm]
    private = key.private_jwk()
    secret = private.get("d") or private["k"]
    assert secret not in repr(key)
    if not key.is_symmetric:
        assert secret not in json.dumps(key.public_jwk())


def pem_of(key: Any, encryption: serialization.KeySerializationEncryption | None = None) -> bytes:
    return key.private_bytes(  # type: ignore[no-any-return]
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        encryption or serialization.NoEncryption(),
    )


@pytest.mark.parametrize(
    ("data", "algorithm", "problem"),
    [
        (b"-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n", "", "no private key in PEM"),
        (b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n", "", "no private key in PEM"),
        (b"{", "", "no private JWK"),
        (b"{}", "", "a public key"),
        (b"[]", "", "neither PEM nor JWK"),
        (b'{"kty": "RSA", "d": "AQAB"}', "", "no private JWK"),
        (b'{"kty": "RSA", "d": 1}', "", "no private JWK"),
        (b'{"kty": "XYZ", "d": "AQAB"}', "", "`kty` is none of"),
        (b'{"kty": "oct"}', "HS256", "no private JWK"),
        (b'{"kty": "oct", "k": "AAAA", "alg": "HS256"}', "", "32 bytes at least"),
        (b'{"kty": "oct", "k": "AAAA", "alg": "RS256"}', "", "a secret cannot sign"),
        (b'{"kty": "EC", "d": "AAAA", "alg": "ES256"}', "ES384", "not for `ES384`"),
        (b'{"kty": "EC", "d": "AAAA", "alg": 5}', "", "is no string"),
        (b"", "", "neither PEM nor JWK"),
    ],
)
def test_what_is_no_key_is_refused(data: bytes, algorithm: str, problem: str) -> None:
    with pytest.raises(KeyInvalid, match=problem):
        read_key(data, algorithm)


def test_weak_foreign_and_encrypted_keys_are_refused() -> None:
    weak = rsa.generate_private_key(65537, 1024)
    with pytest.raises(KeyInvalid, match="1024 bits is too weak"):
        read_key(pem_of(weak))
    with pytest.raises(KeyInvalid, match="too weak"):
        new_key("RS256", rsa_bits=1024)
    with pytest.raises(KeyInvalid, match="nor on the curves"):
        read_key(pem_of(ec.generate_private_key(ec.SECP256K1())))
    with pytest.raises(KeyInvalid, match="encrypted"):
        read_key(pem_of(ec.generate_private_key(ec.SECP256R1()), serialization.BestAvailableEncryption(b"pw")))
    with pytest.raises(KeyInvalid, match="cannot be used with `ES384`"):
        read_key(pem_of(ec.generate_private_key(ec.SECP256R1())), "ES384")
    with pytest.raises(KeyInvalid, match="`none` is none of"):
        new_key("none")
