"""JWS signatures checked with Python's integers: slow, obvious, sharing no code with what it judges.

A key is what its JWK says: (n, e) for RSA, (x, y) for ECDSA, 32 bytes for Ed25519, the secret for HMAC.
"""

from __future__ import annotations

import hashlib
import hmac
from dataclasses import dataclass

Key = tuple[int, int] | bytes
Point = tuple[int, int] | None  # None is the neutral element


@dataclass(frozen=True, slots=True)
class Curve:
    """y² = x³ - 3x + b over the prime field `p`, with the base point and its order (NIST SP 800-186 §3.2.1)."""

    p: int
    b: int
    base: tuple[int, int]
    order: int

    @property
    def size(self) -> int:
        return (self.p.bit_length() + 7) // 8

    def add(self, first: Point, second: Point) -> Point:
        if first is None or second is None:
            return first or second
        (x1, y1), (x2, y2) = first, second
        if x1 == x2 and (y1 + y2) % self.p == 0:
            return None
        rise, run = (3 * x1 * x1 - 3, 2 * y1) if first == second else (y2 - y1, x2 - x1)
        slope = rise * pow(run, -1, self.p)
        x3 = (slope * slope - x1 - x2) % self.p
        return x3, (slope * (x1 - x3) - y1) % self.p

    def multiply(self, factor: int, point: Point) -> Point:
        result: Point = None
        while factor:
            if factor & 1:
                result = self.add(result, point)
            point = self.add(point, point)
            factor >>= 1
        return result


CURVES = {
    "ES256": Curve(
        0xFFFFFFFF00000001000000000000000000000000FFFFFFFFFFFFFFFFFFFFFFFF,
        0x5AC635D8AA3A93E7B3EBBD55769886BC651D06B0CC53B0F63BCE3C3E27D2604B,
        (
            0x6B17D1F2E12C4247F8BCE6E563A440F277037D812DEB33A0F4A13945D898C296,
            0x4FE342E2FE1A7F9B8EE7EB4A7C0F9E162BCE33576B315ECECBB6406837BF51F5,
        ),
        0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551,
    ),
    "ES384": Curve(
        2**384 - 2**128 - 2**96 + 2**32 - 1,
        0xB3312FA7E23EE7E4988E056BE3F82D19181D9C6EFE8141120314088F5013875AC656398D8A2ED19D2A85C8EDD3EC2AEF,
        (
            0xAA87CA22BE8B05378EB1C71EF320AD746E1D3B628BA79B9859F741E082542A385502F25DBF55296C3A545E3872760AB7,
            0x3617DE4A96262C6F5D9E98BF9292DC29F8F41DBD289A147CE9DA3113B5F0B8C00A60B1CE1D7E819D7A431D7C90EA0E5F,
        ),
        0xFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFC7634D81F4372DDF581A0DB248B0A77AECEC196ACCC52973,
    ),
    "ES512": Curve(
        2**521 - 1,
        int(
            "51953EB9618E1C9A1F929A21A0B68540EEA2DA725B99B315F3B8B489918EF109E1"
            "56193951EC7E937B1652C0BD3BB1BF073573DF883D2C34F1EF451FD46B503F00",
            16,
        ),
        (
            int(
                "C6858E06B70404E9CD9E3ECB662395B4429C648139053FB521F828AF606B4D3DBA"
                "A14B5E77EFE75928FE1DC127A2FFA8DE3348B3C1856A429BF97E7E31C2E5BD66",
                16,
            ),
            int(
                "11839296A789A3BC0045C8A5FB42C7D1BD998F54449579B446817AFBD17273E662"
                "C97EE72995EF42640C550B9013FAD0761353C7086A272C24088BE94769FD16650",
                16,
            ),
        ),
        int(
            "1FFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFF"
            "A51868783BF2F966B7FCC0148F709A5D03BB5C9B8899C47AEBB6FB71E91386409",
            16,
        ),
    ),
}


def verify(algorithm: str, key: Key, signed: bytes, signature: bytes) -> bool:
    """Say whether `signature` is that of `key` over `signed` (RFC 7518 §3, RFC 8037 §3.1)."""
    digest_name = f"sha{algorithm[2:]}"
    if algorithm == "EdDSA":
        assert isinstance(key, bytes)
        return verify_ed25519(key, signed, signature)
    if algorithm.startswith("HS"):
        assert isinstance(key, bytes)
        return hmac.new(key, signed, digest_name).digest() == signature
    assert isinstance(key, tuple)
    if algorithm.startswith("ES"):
        return verify_ecdsa(CURVES[algorithm], key, hashlib.new(digest_name, signed).digest(), signature)
    if algorithm.startswith("RS"):
        return verify_rsa_pkcs1(key, digest_name, signed, signature)
    return verify_rsa_pss(key, digest_name, signed, signature)


# --- RFC 8017 ---------------------------------------------------------------------------------------------------------

# The DER of DigestInfo before the digest itself (RFC 8017 §9.2, note 1).
DIGEST_INFO = {
    "sha256": "3031300d060960864801650304020105000420",
    "sha384": "3041300d060960864801650304020205000430",
    "sha512": "3051300d060960864801650304020305000440",
}


def rsa_message(key: tuple[int, int], signature: bytes) -> bytes | None:
    """RSAVP1 of §5.2.2 between §8.1.2's two conversions."""
    modulus, exponent = key
    size = (modulus.bit_length() + 7) // 8
    number = int.from_bytes(signature, "big")
    if len(signature) != size or number >= modulus:
        return None
    return pow(number, exponent, modulus).to_bytes(size, "big")


def verify_rsa_pkcs1(key: tuple[int, int], digest_name: str, signed: bytes, signature: bytes) -> bool:
    """§8.2.2: encode as the signer must have, and compare."""
    message = rsa_message(key, signature)
    if message is None:
        return False
    tail = bytes.fromhex(DIGEST_INFO[digest_name]) + hashlib.new(digest_name, signed).digest()
    return message == b"\x00\x01" + b"\xff" * (len(message) - len(tail) - 3) + b"\x00" + tail


def verify_rsa_pss(key: tuple[int, int], digest_name: str, signed: bytes, signature: bytes) -> bool:
    """§8.1.2 and §9.1.2, with a salt as long as the digest (RFC 7518 §3.5). For a modulus of whole octets."""
    assert key[0].bit_length() % 8 == 0
    encoded = rsa_message(key, signature)
    if encoded is None:
        return False
    size = hashlib.new(digest_name).digest_size
    masked, digest, trailer = encoded[: -size - 1], encoded[-size - 1 : -1], encoded[-1]
    if trailer != 0xBC or masked[0] & 0x80:
        return False
    mask, counter = b"", 0
    while len(mask) < len(masked):
        mask += hashlib.new(digest_name, digest + counter.to_bytes(4, "big")).digest()
        counter += 1
    block = bytes(a ^ b for a, b in zip(masked, mask, strict=False))
    block = bytes([block[0] & 0x7F]) + block[1:]
    if block[: -size - 1] != bytes(len(block) - size - 1) or block[-size - 1] != 1:
        return False
    inner = hashlib.new(digest_name, signed).digest()
    return hashlib.new(digest_name, bytes(8) + inner + block[-size:]).digest() == digest


# --- FIPS 186-5 §6.4.2 ------------------------------------------------------------------------------------------------


def verify_ecdsa(curve: Curve, key: tuple[int, int], digest: bytes, signature: bytes) -> bool:
    """Raw r || s of exactly two scalars (RFC 7518 §3.4)."""
    if len(signature) != 2 * curve.size:
        return False
    r, s = int.from_bytes(signature[: curve.size], "big"), int.from_bytes(signature[curve.size :], "big")
    if not (0 < r < curve.order and 0 < s < curve.order):
        return False
    number = int.from_bytes(digest, "big") >> max(0, 8 * len(digest) - curve.order.bit_length())
    inverse = pow(s, -1, curve.order)
    point = curve.add(
        curve.multiply(number * inverse % curve.order, curve.base), curve.multiply(r * inverse % curve.order, key)
    )
    return point is not None and point[0] % curve.order == r


# --- RFC 8032 §5.1.7 --------------------------------------------------------------------------------------------------

FIELD = 2**255 - 19
D = -121665 * pow(121666, -1, FIELD) % FIELD
ED_ORDER = 2**252 + 27742317777372353535851937790883648493


def ed_add(first: tuple[int, int], second: tuple[int, int]) -> tuple[int, int]:
    (x1, y1), (x2, y2) = first, second
    product = D * x1 * x2 * y1 * y2
    return (
        (x1 * y2 + x2 * y1) * pow(1 + product, -1, FIELD) % FIELD,
        (y1 * y2 + x1 * x2) * pow(1 - product, -1, FIELD) % FIELD,
    )


def ed_multiply(factor: int, point: tuple[int, int]) -> tuple[int, int]:
    result = (0, 1)
    while factor:
        if factor & 1:
            result = ed_add(result, point)
        point = ed_add(point, point)
        factor >>= 1
    return result


def ed_decode(octets: bytes) -> tuple[int, int] | None:
    """§5.1.3."""
    encoded = int.from_bytes(octets, "little")
    sign, y = encoded >> 255, encoded % 2**255
    if y >= FIELD:
        return None
    square = (y * y - 1) * pow(D * y * y + 1, -1, FIELD) % FIELD
    x = pow(square, (FIELD + 3) // 8, FIELD)
    if x * x % FIELD != square:
        x = x * pow(2, (FIELD - 1) // 4, FIELD) % FIELD
    if x * x % FIELD != square or (x == 0 and sign):
        return None
    return (x if x % 2 == sign else FIELD - x), y


def ed_encode(point: tuple[int, int]) -> bytes:
    return (point[1] + ((point[0] & 1) << 255)).to_bytes(32, "little")


ED_BASE = ed_decode((4 * pow(5, -1, FIELD) % FIELD).to_bytes(32, "little"))


def verify_ed25519(key: bytes, signed: bytes, signature: bytes) -> bool:
    """The equation without the cofactor, compared as encoded, as OpenSSL does; §5.1.7 allows it."""
    scalar = int.from_bytes(signature[32:], "little")
    public = ed_decode(key)
    assert ED_BASE is not None
    if len(signature) != 64 or scalar >= ED_ORDER or public is None:
        return False
    challenge = int.from_bytes(hashlib.sha512(signature[:32] + key + signed).digest(), "little") % ED_ORDER
    negated = (FIELD - public[0], public[1])
    return ed_encode(ed_add(ed_multiply(scalar, ED_BASE), ed_multiply(challenge, negated))) == signature[:32]
