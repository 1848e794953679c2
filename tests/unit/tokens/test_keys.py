from __future__ import annotations

import math
import random
from collections.abc import Mapping
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway._native.verify import BACKEND, live_objects
from gateway.errors import KeyInvalid
from gateway.tokens import keys
from gateway.tokens.keys import KeyFault, load_jwk, load_jwks, load_secret
from tests.oracle.verify import FIELD, ed_add, ed_decode, ed_encode, ed_multiply
from tests.signers import CURVES, HMAC_NAMES, NAMES, PUBLIC_NAMES, RSA_NAMES, b64, b64_uint, rsa_key, signer

BACKENDS = ("libcrypto", "cryptography") if BACKEND == "libcrypto" else ("cryptography",)
TEXT = b"header.payload"
each_backend = pytest.mark.parametrize("backend", BACKENDS)


def jwk_of(algorithm: str, **changes: object) -> dict[str, object]:
    """Return the algorithm's JWK with members changed, or taken out where the change is None."""
    return {name: value for name, value in {**signer(algorithm).jwk, **changes}.items() if value is not None}


def refusal(jwk: Mapping[str, object], algorithms: tuple[str, ...] = NAMES) -> str:
    """Return why the key is refused; the reasons of both backends are the same."""
    reasons = set()
    for backend in BACKENDS:
        with pytest.raises(KeyInvalid) as caught:
            load_jwk(jwk, algorithms, backend=backend)
        reasons.add(str(caught.value))
    (reason,) = reasons
    return reason


# --- which algorithms a key gets --------------------------------------------------------------------------------------


@each_backend
@pytest.mark.parametrize("algorithm", NAMES)
def test_a_key_with_alg_gives_one_handle_that_verifies(algorithm: str, backend: str) -> None:
    (handle,) = load_jwk(jwk_of(algorithm), NAMES, backend=backend)
    assert (handle.kid, handle.algorithm, handle.backend) == (algorithm.encode(), algorithm, backend)
    assert handle.verify(TEXT, signer(algorithm).sign(TEXT))


@pytest.mark.parametrize(
    ("algorithm", "expected"),
    [
        ("RS256", RSA_NAMES),
        ("ES256", ("ES256",)),
        ("ES384", ("ES384",)),
        ("ES512", ("ES512",)),
        ("EdDSA", ("EdDSA",)),
        ("HS256", ("HS256",)),
        ("HS384", ("HS256", "HS384")),
        ("HS512", HMAC_NAMES),
    ],
)
def test_a_key_without_alg_gives_one_handle_for_each_algorithm_that_fits(
    algorithm: str, expected: tuple[str, ...]
) -> None:
    handles = load_jwk(jwk_of(algorithm, alg=None), NAMES)
    assert tuple(handle.algorithm for handle in handles) == expected
    narrowed = load_jwk(jwk_of(algorithm, alg=None), (expected[0], "none", "RSA-OAEP"))
    assert [handle.algorithm for handle in narrowed] == [expected[0]]


def test_an_algorithm_that_the_issuer_may_not_use_refuses_the_key() -> None:
    assert refusal(jwk_of("PS256"), ("RS256",)) == "none of its algorithms is allowed: `PS256`"
    assert "none of its algorithms is allowed" in refusal(jwk_of("ES256", alg=None), ("RS256", "ES384"))
    assert refusal(jwk_of("RS256"), ())


def test_one_string_is_no_collection_of_algorithms() -> None:
    assert "not a collection" in refusal(jwk_of("HS256"), "HS256")  # type: ignore[arg-type]
    with pytest.raises(KeyInvalid, match="not a collection"):
        load_secret(bytes(32), b"", "HS256,HS512")


def test_es521_in_a_p521_key_is_es512_and_nothing_anywhere_else() -> None:
    (handle,) = load_jwk(jwk_of("ES512", alg="ES521"), ("ES512",))
    assert handle.algorithm == "ES512"
    assert "`ES512` does not go with" in refusal(jwk_of("ES256", alg="ES521"))
    assert "none of its algorithms is allowed" in refusal(jwk_of("ES512"), ("ES521",))


@pytest.mark.parametrize("member", ["x5c", "x5t", "x5u", "x5t#S256", "nbf", "anything"])
def test_members_that_mean_nothing_here_are_ignored(member: str) -> None:
    assert load_jwk(jwk_of("RS256", **{member: ["garbage", 1, None]}), NAMES)


# --- rules of RFC 7517 and RFC 8725 -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "alg", ["RSA-OAEP", "none", "None", "", "rs256", "HS256", "ES224", "A256KW", "RS256 ", 5, None]
)
def test_an_alg_of_another_kind_refuses_the_key(alg: object) -> None:
    jwk = {**signer("RS256").jwk, "alg": alg}
    assert "`alg`" in refusal(jwk)


def test_kind_curve_and_alg_must_agree() -> None:
    for algorithm in NAMES:
        for other in NAMES:
            kind = {name: signer(name).jwk.get("kty", "") + signer(name).jwk.get("crv", "") for name in NAMES}
            if kind[algorithm] != kind[other]:
                assert "does not go with" in refusal(jwk_of(algorithm, alg=other))


@pytest.mark.parametrize("curve", ["P-384", "P-521", "secp256k1", "Ed25519", "p-256", "", 3, None])
def test_another_curve_refuses_an_ec_key(curve: object) -> None:
    assert refusal({**jwk_of("ES256", alg=None), "crv": curve})


@pytest.mark.parametrize("curve", ["Ed448", "X25519", "P-256", "ed25519", None])
def test_only_ed25519_of_the_okp_curves_is_used(curve: object) -> None:
    assert "`crv`" in refusal({**jwk_of("EdDSA", alg=None), "crv": curve})


@pytest.mark.parametrize("kind", ["", "rsa", "EC", "OKP", "oct", "Rsa", "AES", 1, None, ["RSA"]])
def test_another_kty_refuses_the_key(kind: object) -> None:
    assert refusal({**jwk_of("RS256", alg=None), "kty": kind})
    assert refusal({name: value for name, value in jwk_of("RS256").items() if name != "kty"}) == "`kty` is missing"


def test_ml_dsa_is_refused_by_its_name() -> None:
    jwk = {"kty": "AKP", "alg": "ML-DSA-44", "pub": b64(bytes(1312)), "kid": "pq"}
    assert refusal(jwk) == "ML-DSA keys (`kty` `AKP`, RFC 9964) are not supported"


@pytest.mark.parametrize("use", ["enc", "", "SIG", "sig ", 1, None, ["sig"]])
def test_use_must_be_sig(use: object) -> None:
    assert "`use`" in refusal({**jwk_of("RS256"), "use": use})
    assert load_jwk(jwk_of("RS256", use="sig"), NAMES)


@pytest.mark.parametrize(
    "operations",
    [["sign"], [], ["encrypt", "wrapKey"], ["verify", "verify"], "verify", ["verify", 1], [["verify"]], None],
)
def test_key_ops_must_allow_verify(operations: object) -> None:
    assert "`key_ops`" in refusal({**jwk_of("ES256"), "key_ops": operations})


def test_key_ops_may_allow_more() -> None:
    assert load_jwk(jwk_of("ES256", key_ops=["verify"], use="sig"), NAMES)
    assert load_jwk(jwk_of("HS256", key_ops=["sign", "verify"]), NAMES)


@pytest.mark.parametrize(("algorithm", "member"), [("RS256", "d"), ("RS256", "p"), ("ES256", "d"), ("EdDSA", "d")])
def test_a_private_key_is_refused_and_its_secret_not_shown(algorithm: str, member: str) -> None:
    reason = refusal(jwk_of(algorithm, **{member: "c2VjcmV0"}))
    assert reason == f"a private key (`{member}`): whoever published it must replace it"


@pytest.mark.parametrize("kid", [1, None, ["a"], "\ud800", "a" * 1025])
def test_a_kid_that_no_token_can_name_refuses_the_key(kid: object) -> None:
    assert "`kid`" in refusal({**jwk_of("RS256"), "kid": kid})


def test_a_kid_is_kept_byte_by_byte() -> None:
    for kid in ("", "a", "../../etc/passwd", "' OR 1=1 --", "a\nb\0", "schlüssel", "a" * 1024):
        (handle,) = load_jwk(jwk_of("ES256", kid=kid), NAMES)
        assert handle.kid == kid.encode()
    (handle,) = load_jwk(jwk_of("ES256", kid=None), NAMES)
    assert handle.kid == b""


@pytest.mark.parametrize(
    ("algorithm", "member"),
    [("RS256", "n"), ("RS256", "e"), ("ES256", "x"), ("ES256", "y"), ("EdDSA", "x"), ("HS256", "k")],
)
def test_members_are_canonical_base64url(algorithm: str, member: str) -> None:
    good = signer(algorithm).jwk[member]
    assert refusal(jwk_of(algorithm, **{member: None})) == f"`{member}` is missing"
    for wrong in (good + "=", " " + good, good[:5] + "+" + good[6:], good[:-1] + "\n", good + "é", "", 7, [good]):
        assert refusal({**jwk_of(algorithm), member: wrong})
    if len(good) % 4:
        stray = good[:-1] + chr(ord(good[-1]) + 1)  # the last character's unused bits are not zero
        assert refusal({**jwk_of(algorithm), member: stray}) == f"`{member}` is not base64url"


# --- RSA --------------------------------------------------------------------------------------------------------------


def rsa_jwk(n: int, e: int = 65537) -> dict[str, object]:
    return {"kty": "RSA", "n": b64_uint(n), "e": b64_uint(e)}


def rough_modulus(bits: int, multiple_of: int = 1) -> int:
    """Return a number of exactly `bits` bits with `multiple_of`, and no other small factor or special shape."""
    chooser = random.Random(bits)
    primes = math.prod(number for number in range(2, 1001) if all(number % d for d in range(2, number)))
    while True:
        n = (chooser.getrandbits(bits) | 1 << (bits - 1) | 1) // multiple_of * multiple_of
        if n.bit_length() == bits and n % 2 and math.gcd(n // multiple_of, primes) == 1:
            return n


def test_rsa_keys_have_2048_to_8192_bits() -> None:
    for bits in (2048, 2049, 3072, 8192):
        assert load_jwk(rsa_jwk(rough_modulus(bits)), ("RS256",))
    for bits in (512, 1024, 2047, 8193, 16384):
        assert refusal(rsa_jwk(rough_modulus(bits))) == f"an RSA key needs 2048 to 8192 bits; this one has {bits}"


@pytest.mark.parametrize("exponent", [1, 2, 3, 4, 65536, 2**64 + 1, 2**2047 + 1])
def test_rsa_exponents_that_are_small_even_or_long_are_refused(exponent: int) -> None:
    assert "exponent" in refusal(rsa_jwk(rough_modulus(2048), exponent))


@pytest.mark.parametrize("exponent", [5, 17, 257, 65537, 2**32 + 15, 2**64 - 1])
def test_other_rsa_exponents_are_used(exponent: int) -> None:
    assert load_jwk(rsa_jwk(rough_modulus(2048), exponent), ("RS256", "PS256"))


@pytest.mark.parametrize("factor", [3, 7, 997])
def test_a_modulus_with_a_small_factor_is_refused(factor: int) -> None:
    assert refusal(rsa_jwk(rough_modulus(2048, factor))) == "the RSA modulus has a small factor"
    assert refusal(rsa_jwk(2**2048 - 2)) == "the RSA modulus has a small factor"


def test_a_leading_zero_octet_is_refused_as_rfc_7518_asks() -> None:
    n = rough_modulus(2048)
    assert "zero octet" in refusal({**rsa_jwk(n), "n": b64(b"\0" + n.to_bytes(256, "big"))})
    assert "zero octet" in refusal({**rsa_jwk(n), "e": b64(b"\0\x01\0\x01")})


def test_a_modulus_of_the_roca_generator_is_refused() -> None:
    """Build one as that generator did: both factors are k * M + (65537 ** a mod M)."""
    primorial = math.prod(number for number in range(2, 702) if all(number % d for d in range(2, number)))
    chooser = random.Random(15361)

    def factor() -> int:
        while True:
            k = chooser.getrandbits(1024 - primorial.bit_length())
            p = k * primorial + pow(65537, chooser.getrandbits(200), primorial)
            if p.bit_length() == 1024 and p >> 1022 == 3 and pow(2, p - 1, p) == 1:
                return p

    assert "ROCA" in refusal(rsa_jwk(factor() * factor()))


def test_ordinary_keys_have_no_roca_shape() -> None:
    assert not any(keys._has_roca_shape(rough_modulus(bits)) for bits in range(2048, 2560))


# --- elliptic curves --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("algorithm", CURVES)
def test_ec_coordinates_have_full_size_and_lie_on_the_curve(algorithm: str) -> None:
    _, curve = CURVES[algorithm]
    size = (curve.key_size + 7) // 8
    x, y = signer(algorithm).key
    assert isinstance(x, int)
    assert isinstance(y, int)
    zero = b64(bytes(size))
    for changes in (
        {"x": b64(b"\0" + x.to_bytes(size, "big"))},
        {"y": b64(y.to_bytes(size, "big")[1:])},
        {"x": "", "y": ""},
    ):
        assert refusal(jwk_of(algorithm, **changes)) == "`x` or `y` has not the size of a coordinate"
    for changes in (
        {"x": zero, "y": zero},
        {"x": b64(y.to_bytes(size, "big")), "y": b64(x.to_bytes(size, "big"))},
        {"y": b64((y ^ 1).to_bytes(size, "big"))},
        {"x": b64(b"\xff" * size), "y": b64(b"\xff" * size)},
    ):
        assert refusal(jwk_of(algorithm, **changes)) == "the point does not lie on the curve"


def test_a_coordinate_that_begins_with_zero_octets_is_used() -> None:
    for private in range(1, 5000):
        numbers = ec.derive_private_key(private, ec.SECP256R1()).public_key().public_numbers()
        if numbers.x < 2**248:
            jwk = {"kty": "EC", "crv": "P-256", "x": b64(numbers.x.to_bytes(32)), "y": b64(numbers.y.to_bytes(32))}
            assert load_jwk(jwk, ("ES256",))
            return
    raise AssertionError("no such key among 5000")


def small_order_points() -> list[bytes]:
    """The eight points whose order divides 8: multiples of one of order 8, found by clearing the large factor."""
    order = 2**252 + 27742317777372353535851937790883648493
    for y in range(2, 100):
        point = ed_decode(y.to_bytes(32, "little"))
        generator = point and ed_multiply(order, point)
        if generator and ed_multiply(4, generator) != (0, 1):
            return [ed_encode(ed_multiply(number, generator)) for number in range(8)]
    raise AssertionError("no point of order 8")


def test_ed25519_keys_of_small_order_are_refused() -> None:
    points = small_order_points()
    assert len(set(points)) == 8
    for point in points:
        assert refusal(jwk_of("EdDSA", x=b64(point))) == "`x` is no point of Ed25519, or one of small order"


def test_an_ed25519_key_with_a_small_order_part_only_beside_a_large_one_is_used() -> None:
    raw = signer("EdDSA").key
    assert isinstance(raw, bytes)
    point, torsion = ed_decode(raw), ed_decode(small_order_points()[1])
    assert point is not None
    assert torsion is not None
    assert load_jwk(jwk_of("EdDSA", x=b64(ed_encode(ed_add(point, torsion)))), NAMES)


def test_ed25519_encodings_of_no_point_are_refused() -> None:
    off_curve = next(y for y in range(2, 100) if ed_decode(y.to_bytes(32, "little")) is None)
    for number in (off_curve, FIELD, FIELD + 1, FIELD + 3, 2**255 - 1, 1 + 2**255, FIELD - 1 + 2**255):
        assert "no point" in refusal(jwk_of("EdDSA", x=b64(number.to_bytes(32, "little"))))
    for size in (0, 31, 33, 57):
        assert refusal(jwk_of("EdDSA", x=b64(bytes(size)))) == "`x` of an Ed25519 key has 32 bytes"


@given(st.binary(min_size=32, max_size=32))
@settings(max_examples=60)
def test_the_ed25519_check_agrees_with_the_oracle(octets: bytes) -> None:
    point = ed_decode(octets)
    assert keys._is_strong_edwards_point(octets) == (point is not None and ed_multiply(8, point) != (0, 1))


# --- secrets ----------------------------------------------------------------------------------------------------------


def test_secrets_shorter_than_the_digest_are_refused() -> None:
    for algorithm in HMAC_NAMES:
        size = int(algorithm[2:]) // 8
        assert load_secret(bytes(size), b"k", [algorithm])
        with pytest.raises(KeyInvalid, match=f"the secret has {size - 1} bytes; `{algorithm}` needs {size}"):
            load_secret(bytes(size - 1), b"k", [algorithm])
    with pytest.raises(KeyInvalid, match="empty"):
        load_secret(b"", b"", HMAC_NAMES)


def test_a_secret_gives_the_algorithms_that_it_is_long_enough_for() -> None:
    assert [handle.algorithm for handle in load_secret(bytes(48), b"", NAMES)] == ["HS256", "HS384"]
    with pytest.raises(KeyInvalid, match="HS256, HS384 and HS512 only"):
        load_secret(bytes(64), b"", PUBLIC_NAMES)


def test_secrets_of_1024_bytes_at_most() -> None:
    assert load_secret(bytes(1024), b"", ["HS256"])
    with pytest.raises(KeyInvalid, match="more than 1024"):
        load_secret(bytes(1025), b"", ["HS256"])


def public_key_texts() -> list[bytes]:
    """What somebody may take for a secret, each in the form that some tool prints (CVE-2023-48223, CVE-2026-34950)."""
    texts = []
    for key in (rsa_key().public_key(), ec.generate_private_key(ec.SECP256R1()).public_key()):
        pem = key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
        texts += [pem, b"\n \t" + pem, b"\xef\xbb\xbf" + pem, pem.replace(b"\n", b"\r\n")]
        texts.append(key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo))
        texts.append(key.public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH))
    texts.append(rsa_key().public_key().public_bytes(Encoding.PEM, PublicFormat.PKCS1))
    return [*texts, b' {"kty": "RSA", "n": "AQAB", "e": "AQAB", "kid": "a-long-kid"}']


@each_backend
def test_a_public_key_is_no_secret(backend: str) -> None:
    for text in public_key_texts():
        with pytest.raises(KeyInvalid, match="a public key is no secret"):
            load_secret(text, b"", HMAC_NAMES, backend=backend)
        with pytest.raises(KeyInvalid, match="a public key is no secret"):
            load_jwk({"kty": "oct", "k": b64(text)}, HMAC_NAMES, backend=backend)


@each_backend
def test_secret_and_jwk_of_it_are_the_same_key(backend: str) -> None:
    secret = signer("HS256").key
    assert isinstance(secret, bytes)
    (handle,) = load_secret(secret, b"HS256", ["HS256"], backend=backend)
    (other,) = load_jwk(jwk_of("HS256"), ["HS256"], backend=backend)
    assert handle.material == other.material
    assert handle.verify(TEXT, signer("HS256").sign(TEXT))
    assert not handle.verify(TEXT, signer("HS256").sign(TEXT + b"."))


def test_no_refusal_shows_the_secret() -> None:
    secret = b"correct horse battery"
    reasons = [refusal({"kty": "oct", "k": b64(secret) + more}) for more in ("", "!")]
    with pytest.raises(KeyInvalid) as caught:
        load_secret(secret, b"", HMAC_NAMES)
    for reason in (*reasons, str(caught.value)):
        assert "horse" not in reason
        assert b64(secret) not in reason


# --- key sets ---------------------------------------------------------------------------------------------------------


def test_a_set_gives_its_usable_keys_in_order_and_names_the_faults_of_the_others() -> None:
    document = {
        "keys": [
            jwk_of("ES256"),
            {"kty": "AKP", "alg": "ML-DSA-44", "pub": "AA", "kid": "pq"},
            jwk_of("RS256", use="enc", kid="encrypts"),
            jwk_of("RS256", d="AQAB", kid="private"),
            "not a key",
            {"kty": "BLS", "kid": "x" * 500},
            {},
            jwk_of("EdDSA"),
        ],
        "more": "is ignored",
    }
    loaded = load_jwks(document, PUBLIC_NAMES)
    assert [handle.algorithm for handle in loaded.handles] == ["ES256", "EdDSA"]
    assert loaded.faults == (
        KeyFault("pq", "ML-DSA keys (`kty` `AKP`, RFC 9964) are not supported"),
        KeyFault("encrypts", "`use` is `enc`, not `sig`"),
        KeyFault("private", "a private key (`d`): whoever published it must replace it"),
        KeyFault("", "not an object"),
        KeyFault("x" * 80 + "…", "unknown `kty` `BLS`"),
        KeyFault("", "`kty` is missing"),
    )


@pytest.mark.parametrize("document", [{}, {"keys": None}, {"keys": {}}, {"keys": "RS256"}, {"jwks": []}])
def test_what_is_no_key_set_is_an_error(document: dict[str, object]) -> None:
    with pytest.raises(KeyInvalid, match="not a key set"):
        load_jwks(document, NAMES)


def test_a_set_has_256_keys_at_most() -> None:
    key = jwk_of("ES256", kid=None)
    assert len(load_jwks({"keys": [key] * 256}, NAMES).handles) == 1  # all the same
    with pytest.raises(KeyInvalid, match="a key set of 257 keys"):
        load_jwks({"keys": [key] * 257}, NAMES)
    assert load_jwks({"keys": []}, NAMES).handles == ()


def other_rsa_jwk(**changes: object) -> dict[str, object]:
    numbers = OTHER_RSA.public_key().public_numbers()
    return {"kty": "RSA", "n": b64_uint(numbers.n), "e": b64_uint(numbers.e), **changes}


OTHER_RSA = rsa.generate_private_key(65537, 2048)


def test_two_different_keys_of_one_kid_are_both_refused() -> None:
    document = {"keys": [jwk_of("RS256", kid="a"), other_rsa_jwk(kid="a", alg="RS256"), jwk_of("ES256", kid="b")]}
    loaded = load_jwks(document, NAMES)
    assert [handle.kid for handle in loaded.handles] == [b"b"]
    assert loaded.faults == (KeyFault("a", "different keys claim this `kid` for `RS256`"),) * 2


def test_a_key_that_is_published_twice_or_for_two_algorithms_is_no_fault() -> None:
    document = {"keys": [jwk_of("RS256", kid="a"), jwk_of("RS256", kid="a"), jwk_of("PS256", kid="a")]}
    loaded = load_jwks(document, NAMES)
    assert [(handle.kid, handle.algorithm) for handle in loaded.handles] == [(b"a", "RS256"), (b"a", "PS256")]
    assert loaded.faults == ()


def test_keys_of_different_kinds_may_share_a_kid() -> None:
    """RFC 7517 §4.5: "[…] different "kty" (key type) values but are considered to be equivalent alternatives"."""
    loaded = load_jwks({"keys": [jwk_of("RS256", kid="a"), jwk_of("ES256", kid="a")]}, NAMES)
    assert [handle.algorithm for handle in loaded.handles] == ["RS256", "ES256"]


@pytest.mark.parametrize(
    "changes",
    [{"n": "!"}, {"d": "AQAB"}, {"e": "AQ"}, {"n": "AQAB"}, {"key_ops": ["verify", "verify"]}],
    ids=lambda changes: next(iter(changes)),
)
def test_a_broken_weak_or_private_key_takes_its_namesake_down(changes: dict[str, object]) -> None:
    loaded = load_jwks({"keys": [jwk_of("RS256", kid="a"), other_rsa_jwk(**{"kid": "a", **changes})]}, NAMES)
    assert loaded.handles == ()
    assert loaded.faults[-1] == KeyFault("a", "a key that may not be used claims this `kid` as well")


@pytest.mark.parametrize("changes", [{"use": "enc"}, {"key_ops": ["encrypt"]}, {"alg": "RSA-OAEP"}, {"alg": "PS512"}])
def test_a_key_for_another_purpose_leaves_its_namesake_alone(changes: dict[str, object]) -> None:
    loaded = load_jwks({"keys": [jwk_of("RS256", kid="a"), other_rsa_jwk(kid="a", **changes)]}, ("RS256",))
    assert [handle.kid for handle in loaded.handles] == [b"a"]
    assert len(loaded.faults) == 1


def test_keys_without_a_kid_do_not_compete() -> None:
    document = {"keys": [jwk_of("RS256", kid=None), other_rsa_jwk(alg="RS256"), {"kty": "RSA"}]}
    assert len(load_jwks(document, NAMES).handles) == 2


def test_secrets_beside_public_keys_are_not_used() -> None:
    loaded = load_jwks({"keys": [jwk_of("HS256"), jwk_of("ES256")]}, NAMES)
    assert [handle.algorithm for handle in loaded.handles] == ["ES256"]
    assert loaded.faults == (KeyFault("HS256", "a secret among public keys"),)
    assert load_jwks({"keys": [jwk_of("HS256"), jwk_of("HS512")]}, NAMES).faults == ()


@each_backend
def test_handles_are_used_again_for_equal_kid_algorithm_and_key_only(backend: str) -> None:
    def load(keys_now: list[dict[str, object]], before: tuple[Any, ...] = ()) -> tuple[Any, ...]:
        return load_jwks({"keys": keys_now}, NAMES, before, backend=backend).handles

    first = load([jwk_of("RS256", kid="a"), jwk_of("ES256", kid="b")])
    same = load([jwk_of("ES256", kid="b", x5t="new"), jwk_of("RS256", kid="a")], first)
    assert same[0] is first[1]
    assert same[1] is first[0]
    (renamed,) = load([jwk_of("RS256", kid="c")], first)
    (replaced,) = load([other_rsa_jwk(kid="a", alg="RS256")], first)
    (other_algorithm,) = load([jwk_of("PS256", kid="a")], first)
    assert not {id(renamed), id(replaced), id(other_algorithm)} & {id(handle) for handle in first}


def test_a_handle_of_the_other_backend_is_not_used_again() -> None:
    before = load_jwks({"keys": [jwk_of("ES256")]}, NAMES, backend="cryptography").handles
    (handle,) = load_jwks({"keys": [jwk_of("ES256")]}, NAMES, before).handles
    assert handle.backend == BACKEND


def test_reloading_a_set_many_times_keeps_no_more_than_one_set() -> None:
    document = {"keys": [jwk_of(name) for name in PUBLIC_NAMES]}
    handles = load_jwks(document, NAMES).handles
    before = live_objects()
    for _ in range(20):
        handles = load_jwks(document, NAMES, handles).handles
    assert live_objects() == before


def test_a_fault_shows_little_of_hostile_values() -> None:
    loaded = load_jwks({"keys": [{"kty": "\n\x1b[31m\ud800" + "x" * 10_000, "kid": "\r\nset-cookie: a\0"}]}, NAMES)
    (fault,) = loaded.faults
    assert fault.kid == "\ufffd\ufffdset-cookie: a\ufffd"
    assert fault.problem == f"unknown `kty` `\ufffd\ufffd[31m\ufffd{'x' * 73}…`"


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=4,
)


@given(
    st.sampled_from(NAMES),
    st.dictionaries(
        st.sampled_from(["kty", "crv", "alg", "use", "key_ops", "kid", "n", "e", "x", "y", "k", "d"]), json_values
    ),
)
@settings(max_examples=300)
def test_whatever_a_set_holds_gives_handles_or_faults_and_never_another_error(
    algorithm: str, changes: dict[str, object]
) -> None:
    loaded = load_jwks({"keys": [{**signer(algorithm).jwk, **changes}]}, NAMES)
    assert len(loaded.handles) or len(loaded.faults)
    for handle in loaded.handles:
        # Whatever else was changed: the key is still the key.
        assert handle.algorithm != algorithm or handle.verify(TEXT, signer(algorithm).sign(TEXT))
