"""Attacks on tokens, each a case of its own: the rule, and where there is one, the CVE of somebody who got it wrong.

Every attack is signed as well as its attacker could, so that the fault in its name is the only one. It must be
refused with its code, twice, in a batch too, without opening a socket, and leave nothing in any cache.
"""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature

from gateway._native.token import IssuerRules, KeySnapshot
from gateway._native.token import TokenValidator as NativeTokenValidator
from gateway.errors import KeyInvalid
from gateway.tokens import Issuer, TokenError, TokenValidator
from tests import forge

NOW = 1_800_000_000
HOME = "https://idp.example.com"
OTHER = "https://idp.other.example.com"
SECRETS = "https://hmac.example.com"
CLAIMS: dict[str, Any] = {
    "iss": HOME,
    "sub": "alice",
    "aud": "api",
    "exp": NOW + 300,
    "iat": NOW,
    "jti": "id-1",
    "sid": "session-1",
    "scope": "read",
}
RSA = forge.rsa_signer("rsa")
EC = forge.ec_signer("ec")
ED = forge.ed_signer("ed")
HS = forge.hs_signer("hs", b"h" * 32)
OTHER_RSA = forge.rsa_signer("rsa", name="other")  # the same kid at another issuer
PUBLIC_PEM = serialization.load_der_public_key(RSA.spki).public_bytes(
    serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
)
P256_ORDER = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551
ED25519_ORDER = 2**252 + 27742317777372353535851937790883648493


def make_validator(**settings: Any) -> TokenValidator:
    home = [signer.jwk() for signer in (RSA, EC, ED)]
    return TokenValidator(
        [
            Issuer(HOME, audiences=["api"], algorithms=["RS256", "PS256", "ES256", "EdDSA"], jwks={"keys": home}),
            Issuer(OTHER, audiences=["api"], algorithms=["RS256"], jwks={"keys": [OTHER_RSA.jwk()]}),
            Issuer(SECRETS, audiences=["api"], algorithms=["HS256", "RS256"], jwks={"keys": [HS.jwk()]}),
        ],
        **settings,
    )


@pytest.fixture(autouse=True)
def no_sockets(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is fetched because a token says so (design law 4)."""

    def refuse(*args: object, **options: object) -> None:
        raise AssertionError("a token opened a socket")

    monkeypatch.setattr(socket, "socket", refuse)


def refusal(validator: TokenValidator, token: bytes | str, now_s: int = NOW) -> str:
    """Return the code with which `token` is refused, or "accepted"."""
    try:
        validator.validate(token, now=now_s)
    except TokenError as error:
        assert error.status == 401
        return error.code
    return "accepted"


@dataclass(frozen=True)
class Attack:
    row: int  # of notes on JWTs §5, 0 = of the attack list alone
    name: str
    token: bytes
    code: str


ATTACKS: list[Attack] = []
alg: object
kid: object
odd: object
value: object
aud: object
iss: object
cnf: object


def attack(row: int, name: str, token: bytes, code: str) -> None:
    ATTACKS.append(Attack(row, name, token, code))


def resign(token: bytes, signature: bytes) -> bytes:
    return token.rpartition(b".")[0] + b"." + forge.b64(signature)


def raw_json(**members: Any) -> bytes:
    return json.dumps({**CLAIMS, **members}).encode()


def spliced(text: bytes, more: bytes) -> bytes:
    """Put `more` before the last brace of a JSON object."""
    return text.rstrip()[:-1] + b"," + more + b"}"


# --- 1: no algorithm --------------------------------------------------------------------------------------------------
for alg in ("none", "None", "NONE", "nOnE", "none ", "", "RS256 ", "rs256", "HS", "RS1", "ES256K"):
    attack(1, f"alg is {alg!r}, good signature", RSA.token(CLAIMS, {"alg": alg}), "algorithm")
    attack(1, f"alg is {alg!r}, no signature", resign(RSA.token(CLAIMS, {"alg": alg}), b""), "algorithm")
for odd in (0, ["RS256"], {"RS256": 1}, True):
    attack(1, f"alg is {odd!r}", RSA.token(CLAIMS, {"alg": odd}), "header_invalid")
attack(1, "alg is absent", RSA.token(CLAIMS, {"alg": None}), "header_invalid")
attack(1, "alg is null", RSA.token(CLAIMS, b'{"alg":null,"kid":"rsa"}'), "header_invalid")
attack(1, "alg is none, by escapes", RSA.token(CLAIMS, b'{"\\u0061lg":"n\\u006fne","kid":"rsa"}'), "algorithm")
attack(1, "the signature is empty (CVE-2020-28042)", resign(RSA.token(CLAIMS), b""), "signature")
attack(1, "the signature is one zero byte", resign(RSA.token(CLAIMS), b"\0"), "signature")
attack(1, "the signature is all zeros", resign(RSA.token(CLAIMS), bytes(256)), "signature")

# --- 2: a public key as HMAC secret (CVE-2023-48223, CVE-2026-34950, CVE-2026-48526) ----------------------------------
for name, secret in {
    "PEM": PUBLIC_PEM,
    "PEM without its last newline": PUBLIC_PEM.rstrip(),
    "PEM after white space": b" \n" + PUBLIC_PEM,
    "DER": RSA.spki,
    "JWK": json.dumps(RSA.jwk()).encode(),
    "modulus": str(RSA.jwk()["n"]).encode(),
    "nothing": b"",
}.items():
    forged = forge.hs_signer("rsa", secret)
    attack(2, f"HS256 with the public key as secret: {name}", forged.token(CLAIMS), "algorithm")
    claims = {**CLAIMS, "iss": SECRETS}
    attack(2, f"the same at an issuer that has secrets: {name}", forged.token(claims, {"kid": "hs"}), "signature")

# --- 3: the header's algorithm is not the key's (CVE-2026-48523) ------------------------------------------------------
PSS = forge.Signer("rsa", "PS256", forge.rsa_signer("rsa", "PS256").sign)
attack(3, "PS256 under the kid of an RS256 key", PSS.token(CLAIMS), "algorithm")
attack(3, "RS256 under the kid of an ES256 key", RSA.token(CLAIMS, {"kid": "ec"}), "algorithm")
attack(3, "EdDSA under the kid of an RS256 key", ED.token(CLAIMS, {"kid": "rsa"}), "algorithm")
attack(3, "ES256 under the name of RS256", EC.token(CLAIMS, {"alg": "RS256", "kid": "rsa"}), "signature")
attack(3, "RS384, which the issuer does not use", forge.rsa_signer("rsa", "RS384").token(CLAIMS), "algorithm")

# --- 4: kid -----------------------------------------------------------------------------------------------------------
for kid in (
    "../../dev/null",
    "/etc/passwd",
    "rsa' OR '1'='1",
    "rsa; DROP TABLE keys",
    "rsa\n",
    "rsa\r\nx-admin: 1",
    "rsa\0",
    "\0rsa",
    "RSA",
    " rsa",
    "rs",
    "rsaa",
    "http://evil.example/key",
    "| whoami",
    "r\u0455a",
):
    attack(4, f"kid is {kid!r}", RSA.token(CLAIMS, {"kid": kid}), "kid_unknown")
attack(4, "kid of 10 kB", RSA.token(CLAIMS, {"kid": "k" * 10_000}), "too_large")
attack(4, "kid of 2 kB", RSA.token(CLAIMS, {"kid": "k" * 2000}), "header_invalid")
for odd in (7, ["rsa"], {"rsa": 1}, True):
    attack(4, f"kid is {odd!r}", RSA.token(CLAIMS, {"kid": odd}), "header_invalid")

# --- 5: keys out of the token (CVE-2018-0114, CVE-2026-48522) ---------------------------------------------------------
EVIL = forge.rsa_signer("evil", name="evil")
for member, value in {
    "jku": "http://127.0.0.1:1/jwks.json",
    "x5u": "file:///etc/passwd",
    "x5c": ["MIIB"],
    "jwk": EVIL.jwk(),
}.items():
    attack(5, f"{member}, signed by the key it names", EVIL.token(CLAIMS, {member: value}), "header_invalid")
    attack(5, f"{member}, signed by the right key", RSA.token(CLAIMS, {member: value}), "header_invalid")
attack(5, "a key of nobody", EVIL.token(CLAIMS, {"kid": "rsa"}), "signature")
attack(
    5,
    "x5t of another certificate with another's signature",
    EVIL.token(CLAIMS, {"kid": "rsa", "x5t": "AAAA"}),
    "signature",
)

# --- 6: other serializations ------------------------------------------------------------------------------------------
head, body, proof = RSA.token(CLAIMS).decode().split(".")
attack(
    6,
    "flattened JSON serialization",
    json.dumps({"protected": head, "payload": body, "signature": proof}).encode(),
    "malformed",
)
attack(
    6,
    "general JSON serialization",
    json.dumps({"payload": body, "signatures": [{"protected": head, "signature": proof}]}).encode(),
    "malformed",
)
attack(6, "unprotected header beside a compact token", f'{head}.{body}.{proof}.{{"alg":"none"}}'.encode(), "malformed")

# --- 7: ECDSA (CVE-2022-21449) ----------------------------------------------------------------------------------------
GOOD_EC = EC.token(CLAIMS)
R, S = (int.from_bytes(EC.sign(GOOD_EC.rpartition(b".")[0])[at : at + 32], "big") for at in (0, 32))


def pair(r: int, s: int, size: int = 32) -> bytes:
    return r.to_bytes(size, "big") + s.to_bytes(size, "big")


for name, signature in {
    "r and s are 0": pair(0, 0),
    "r is 0": pair(0, S),
    "s is 0": pair(R, 0),
    "r is the order": pair(P256_ORDER, S),
    "s is the order": pair(R, P256_ORDER),
    "r and s are the order": pair(P256_ORDER, P256_ORDER),
    "r is 2^256 - 1": pair(2**256 - 1, S),
    "r and s are 1": pair(1, 1),
    "r and s change places": pair(S, R),
    "one byte short": pair(R, S)[:-1],
    "one byte long": pair(R, S) + b"\0",
    "33 bytes each": pair(R, S, 33),
    "DER": encode_dss_signature(R, S),
    "64 zeros and more": bytes(96),
    "empty": b"",
}.items():
    attack(7, f"ES256: {name}", resign(GOOD_EC, signature), "signature")

# --- 9, 10: crit and b64 (CVE-2026-32597, CVE-2025-59420, CVE-2026-48525) ---------------------------------------------
for value in (["exp"], ["unknown"], [], ["b64"], ["alg"], "b64", None, ["a", "a"], {"a": 1}, True):
    header = json.dumps({"alg": "RS256", "kid": "rsa", "crit": value}).encode()
    attack(9, f"crit is {value!r}", RSA.token(CLAIMS, header), "header_invalid")
for value in (False, True, None, "false"):
    header = json.dumps({"alg": "RS256", "kid": "rsa", "b64": value}).encode()
    attack(10, f"b64 is {value!r}", RSA.token(CLAIMS, header), "header_invalid")
attack(10, "b64 is false, and critical", RSA.token(CLAIMS, {"b64": False, "crit": ["b64"]}), "header_invalid")

# --- 11: names twice --------------------------------------------------------------------------------------------------
HEADER = b'{"alg":"RS256","kid":"rsa"}'
for name, more in {
    "alg": b'"alg":"RS256"',
    "alg none first": b'"\\u0061lg":"none"',
    "kid": b'"kid":"rsa"',
    "kid by an escape": b'"k\\u0069d":"rsa"',
    "something unknown": b'"x":1,"x":1',
}.items():
    attack(11, f"header names twice: {name}", RSA.token(CLAIMS, spliced(HEADER, more)), "malformed")
for name, more in {
    "exp": b'"exp":1900000000',
    "exp by an escape": b'"\\u0065xp":1900000000',
    "sub": b'"sub":"admin"',
    "iss": b'"iss":"https://idp.example.com"',
    "something unknown": b'"x":1,"x":2',
    "deep inside": b'"x":{"y":[{"z":1,"\\u007a":2}]}',
}.items():
    attack(11, f"payload names twice: {name}", RSA.token(spliced(raw_json(), more)), "malformed")

# --- 12: numbers ------------------------------------------------------------------------------------------------------
for name in ("exp", "nbf", "iat"):
    for value in (str(NOW + 300), True, False, None, [NOW + 300], {"x": NOW}, 2**63, -(2**63) - 1, 1e300, 2.0**53 + 2):
        attack(12, f"{name} is {value!r}", RSA.token(raw_json(**{name: value})), "claim_invalid")
    for text in (
        b"1e400",
        b"-1e400",
        b"9" * 65,
        b"NaN",
        b"Infinity",
        b"-Infinity",
        b"0x7f",
        b"01",
        b"+1",
        b"1.",
        b".5",
        b"1e",
    ):
        payload = raw_json(**{name: "HERE"}).replace(b'"HERE"', text)
        attack(12, f"{name} is written {text[:20]!r}", RSA.token(payload), "malformed")
attack(12, "exp is negative", RSA.token({**CLAIMS, "exp": -1}), "expired")
attack(12, "exp is zero", RSA.token({**CLAIMS, "exp": 0}), "expired")
attack(12, "exp is a float of the past", RSA.token({**CLAIMS, "exp": NOW - 300.5}), "expired")
attack(12, "exp is absent", RSA.token({k: v for k, v in CLAIMS.items() if k != "exp"}), "claim_missing")
attack(12, "nbf lies in the future", RSA.token({**CLAIMS, "nbf": NOW + 31}), "not_yet_valid")
attack(12, "iat lies in the future", RSA.token({**CLAIMS, "iat": NOW + 31}), "issued_in_future")

# --- 13: sizes --------------------------------------------------------------------------------------------------------
attack(13, "a token of 1 MB", RSA.token({**CLAIMS, "x": "y" * 750_000}), "too_large")
attack(13, "1 MB of nothing", b"A" * 1_000_000, "too_large")
attack(13, "8,193 bytes", b"A" * 8193, "too_large")
attack(13, "8 kB of dots", b"." * 8192, "malformed")
attack(13, "600 members", RSA.token({**CLAIMS, **{f"m{n}": 0 for n in range(600)}}), "malformed")
attack(13, "depth 2,000", RSA.token(spliced(raw_json(), b'"x":' + b"[" * 2000 + b"]" * 2000)), "malformed")
attack(13, "depth 10,000", RSA.token(spliced(raw_json(), b'"x":' + b"[" * 10_000)), "too_large")
attack(13, "depth 33", RSA.token(spliced(raw_json(), b'"x":' + b"[" * 32 + b"]" * 32)), "malformed")

# --- 14: encrypted, nested, compressed (CVE-2024-28102, CVE-2026-39373, CVE-2023-52428) -------------------------------
JWE_HEADER = {"alg": "RSA-OAEP", "enc": "A256GCM"}
attack(14, "a JWE", b".".join([forge.segment(JWE_HEADER), b"AAAA", b"AAAA", b"AAAA", b"AAAA"]), "malformed")
attack(14, "a JWE of empty segments", forge.segment(JWE_HEADER) + b"....", "malformed")
attack(14, "enc in a JWS", RSA.token(CLAIMS, {"enc": "A256GCM"}), "header_invalid")
attack(14, "zip in a JWS", RSA.token(CLAIMS, {"zip": "DEF"}), "header_invalid")
attack(14, "PBES2 with a billion rounds", RSA.token(CLAIMS, {"alg": "PBES2-HS256+A128KW", "p2c": 10**9}), "algorithm")
attack(14, "dir", RSA.token(CLAIMS, {"alg": "dir"}), "algorithm")
for cty in ("JWT", "jwt", "application/jwt"):
    attack(14, f"nested, cty {cty}", RSA.token(CLAIMS, {"cty": cty}), "header_invalid")
attack(14, "the payload is a token", RSA.token(RSA.token(CLAIMS)), "malformed")

# --- 15: base64url ----------------------------------------------------------------------------------------------------
GOOD = RSA.token(CLAIMS)
FIRST, SECOND, THIRD = GOOD.split(b".")


def loose(text: bytes) -> bytes:
    """Set a trailing bit that must be zero."""
    alphabet = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
    assert len(text) % 4 in (2, 3)
    return text[:-1] + alphabet[alphabet.index(text[-1]) | 1 :][:1]


for number, part in enumerate(("header", "payload", "signature")):
    for name, twist in {
        "padding =": b"=",
        "padding ==": b"==",
        "a space": b" ",
        "a newline": b"\n",
        "a NUL": b"\0",
        "a plus": b"+",
        "a slash": b"/",
        "a high byte": b"\xff",
        "a full-width A": "\uff21".encode(),
    }.items():
        parts = [FIRST, SECOND, THIRD]
        parts[number] += twist
        attack(15, f"{name} after the {part}", b".".join(parts), "malformed")
        parts[number] = twist + [FIRST, SECOND, THIRD][number]
        attack(15, f"{name} before the {part}", b".".join(parts), "malformed")
attack(15, "trailing bits of the signature", b".".join([FIRST, SECOND, loose(THIRD)]), "malformed")
for filling in range(3):  # some length gives each segment spare bits
    long_header = forge.b64(json.dumps({"alg": "EdDSA", "kid": "ed", "x": "y" * filling}).encode())
    if len(long_header) % 4:
        signed = loose(long_header) + b"." + SECOND
        attack(15, f"trailing bits of the header ({filling})", signed + b"." + forge.b64(ED.sign(signed)), "malformed")
    long_payload = forge.b64(raw_json(x="y" * filling))
    if len(long_payload) % 4:
        signed = ED.token(CLAIMS).split(b".")[0] + b"." + loose(long_payload)
        attack(15, f"trailing bits of the payload ({filling})", signed + b"." + forge.b64(ED.sign(signed)), "malformed")

# --- 16: another kind of token ----------------------------------------------------------------------------------------
for typ in (
    "dpop+jwt",
    "logout+jwt",
    "secevent+jwt",
    "id+jwt",
    "application/token-introspection+jwt",
    "at+jwt ",
    "JWT\0",
    "JOSE",
):
    attack(16, f"typ is {typ!r}", RSA.token(CLAIMS, {"typ": typ}), "type")
for odd in ("", 7, ["JWT"]):
    attack(16, f"typ is {odd!r}", RSA.token(CLAIMS, {"typ": odd}), "header_invalid")

# --- 17: iss and aud --------------------------------------------------------------------------------------------------
for iss in (
    HOME + "/",
    HOME[:-1],
    HOME.upper(),
    HOME + ".evil.example",
    HOME + "\0",
    " " + HOME,
    "http://idp.example.com",
    "",
    f"{HOME} {OTHER}",
    "https://idp.example.com:443",
):
    attack(17, f"iss is {iss!r}", RSA.token({**CLAIMS, "iss": iss}), "issuer_unknown")
for odd in (7, None, [HOME], {"iss": HOME}, True):
    attack(17, f"iss is {odd!r}", RSA.token(raw_json(iss=odd)), "claim_invalid")
attack(17, "iss is absent", RSA.token({k: v for k, v in CLAIMS.items() if k != "iss"}), "claim_missing")
for aud in ("ap", "apis", "API", "api ", "", "web api", [], ["web"], ["ap", "i"], "*", ".*", "api\0"):
    attack(17, f"aud is {aud!r}", RSA.token({**CLAIMS, "aud": aud}), "audience")
attack(17, "aud is absent", RSA.token({k: v for k, v in CLAIMS.items() if k != "aud"}), "audience")
for odd in (7, None, {"api": 1}, ["api", 7], [["api"]], ["api", None], True):
    attack(17, f"aud is {odd!r}", RSA.token(raw_json(aud=odd)), "claim_invalid")

# --- 18: one issuer's key for another's claims ------------------------------------------------------------------------
attack(18, "issuer A signs for issuer B", EC.token({**CLAIMS, "iss": OTHER}), "algorithm")
attack(18, "issuer B signs for issuer A with a kid that both have", OTHER_RSA.token(CLAIMS), "signature")
attack(18, "issuer A signs for issuer B with a kid that both have", RSA.token({**CLAIMS, "iss": OTHER}), "signature")
attack(18, "a secret of one issuer signs for another", HS.token(CLAIMS), "algorithm")

# --- 23: bound to its sender ------------------------------------------------------------------------------------------
for cnf in ({"jkt": "0ZcOCORZNYy-DWpqq30jZyJGHTN0d2HglBV3uiguA4I"}, {"x5t#S256": "AAAA"}, {}, None, "x"):
    attack(23, f"cnf is {cnf!r}", RSA.token(raw_json(cnf=cnf)), "sender_constrained")

# --- 24: Ed25519 ------------------------------------------------------------------------------------------------------
GOOD_ED = ED.token(CLAIMS)
ED_SIGNATURE = ED.sign(GOOD_ED.rpartition(b".")[0])
ED_S = int.from_bytes(ED_SIGNATURE[32:], "little")
for name, signature in {
    "S + L": ED_SIGNATURE[:32] + (ED_S + ED25519_ORDER).to_bytes(32, "little"),
    "S is L": ED_SIGNATURE[:32] + ED25519_ORDER.to_bytes(32, "little"),
    "S is 2^256 - 1": ED_SIGNATURE[:32] + b"\xff" * 32,
    "zeros": bytes(64),
    "R is a point of small order": bytes([1]) + bytes(31) + bytes(32),
    "63 bytes": ED_SIGNATURE[:-1],
    "65 bytes": ED_SIGNATURE + b"\0",
    "empty": b"",
}.items():
    attack(24, f"EdDSA: {name}", resign(GOOD_ED, signature), "signature")

# --- the rest of the attack list --------------------------------------------------------------------------------------
for name, payload in {
    "an array": b"[]",
    "a text": b'"x"',
    "null": b"null",
    "a number": b"1",
    "empty": b"",
    "two objects": b"{}{}",
    "an object and a comma": b"{},",
    "a byte order mark": b"\xef\xbb\xbf" + raw_json(),
    "single quotes": b"{'iss': 1}",
    "a comment": spliced(raw_json(), b'"x":/**/1'),
    "a trailing comma": raw_json()[:-1] + b",}",
    "NaN": spliced(raw_json(), b'"x":NaN'),
    "Infinity": spliced(raw_json(), b'"x":Infinity'),
    "a lone high surrogate": spliced(raw_json(), b'"x":"\\ud800"'),
    "a lone low surrogate": spliced(raw_json(), b'"x":"\\udc00"'),
    "surrogates in the wrong order": spliced(raw_json(), b'"x":"\\udc00\\ud800"'),
    "a surrogate as UTF-8": spliced(raw_json(), b'"x":"\xed\xa0\x80"'),
    "invalid UTF-8": spliced(raw_json(), b'"x":"\xff"'),
    "overlong UTF-8": spliced(raw_json(), b'"x":"\xc0\xaf"'),
    "a raw newline in a text": spliced(raw_json(), b'"x":"\n"'),
    "UTF-16": json.dumps(CLAIMS).encode("utf-16"),
}.items():
    attack(0, f"the payload is or has {name}", RSA.token(payload), "malformed")
    if name not in ("a byte order mark", "UTF-16"):
        attack(0, f"the header is or has {name}", RSA.token(CLAIMS, payload), "malformed")
for name, text in {
    "one segment": FIRST,
    "two segments": FIRST + b"." + SECOND,
    "four segments": GOOD + b"." + THIRD,
    "six segments": GOOD + b"...",
    "no header": b"." + SECOND + b"." + THIRD,
    "no payload": FIRST + b".." + THIRD,
    "nothing but dots": b"..",
    "one dot": b".",
    "nothing": b"",
    "a space before": b" " + GOOD,
    "a space after": GOOD + b" ",
    "a newline after": GOOD + b"\n",
    "a scheme before": b"Bearer " + GOOD,
    "quotes around": b'"' + GOOD + b'"',
    "two tokens and a comma": GOOD + b"," + GOOD,
    "lower case": GOOD.lower(),
    "URL-encoded dots": GOOD.replace(b".", b"%2e"),
}.items():
    attack(0, f"the token is or has {name}", text, "malformed")
for name, value in {
    "a newline": "a\r\nx-auth-subject: admin",
    "a NUL": "a\0",
    "DEL": "a\x7f",
    "a space at its end": "admin ",
}.items():
    attack(0, f"sub has {name}", RSA.token({**CLAIMS, "sub": value}), "claim_invalid")
    attack(0, f"scope has {name}", RSA.token({**CLAIMS, "scope": [value]}), "claim_invalid")
for name in ("sub", "jti", "sid", "client_id"):
    for odd in (7, None, ["x"], {"x": 1}, True):
        attack(0, f"{name} is {odd!r}", RSA.token(raw_json(**{name: odd})), "claim_invalid")


@pytest.fixture(scope="module")
def validator() -> Iterator[TokenValidator]:
    made = make_validator()
    yield made
    assert made.stats()["accepted"] == made.stats()["entries"] == made.stats()["structures"] == 0


@pytest.mark.parametrize("case", ATTACKS, ids=lambda case: f"{case.row}: {case.name}")
def test_an_attack_is_refused(case: Attack, validator: TokenValidator) -> None:
    assert refusal(validator, case.token) == case.code
    assert refusal(validator, case.token) == case.code
    assert validator.judge_batch([case.token], NOW) == [case.code]
    try:
        text = case.token.decode()
    except UnicodeDecodeError:
        return
    assert refusal(validator, text) == case.code


def test_the_attacks_have_names_of_their_own() -> None:
    names = [(case.row, case.name) for case in ATTACKS]
    assert len(set(names)) == len(names)


@pytest.mark.parametrize("signer", [RSA, EC, ED, forge.Signer("hs", "HS256", HS.sign)], ids=lambda one: one.algorithm)
def test_without_the_attack_the_token_is_good(signer: forge.Signer) -> None:
    claims = {**CLAIMS, "iss": SECRETS} if signer.algorithm == "HS256" else CLAIMS
    fresh = make_validator()
    for header in (
        {},
        {"typ": "at+jwt"},
        {"typ": "application/AT+JWT"},
        {"typ": None},
        {"x5t": "AAAA"},
        {"cty": "json"},
    ):
        assert fresh.validate(signer.token(claims, header), now=NOW).subject == "alice"
    assert fresh.validate(signer.token(claims | {"nbf": NOW, "aud": ["web", "api"]}), now=NOW)["nbf"] == NOW


# --- 8: weak keys never become keys -----------------------------------------------------------------------------------


def rsa_jwk(bits: int, exponent: int) -> dict[str, object]:
    jwk = forge.rsa_signer("weak", bits=bits, name="weak").jwk()
    return jwk | {"e": forge.b64(exponent.to_bytes(max(1, (exponent.bit_length() + 7) // 8), "big")).decode()}


@pytest.mark.parametrize(
    "jwk",
    [
        rsa_jwk(1024, 65537),
        rsa_jwk(2048, 1),
        rsa_jwk(2048, 3),
        rsa_jwk(2048, 65536),
        rsa_jwk(2048, 0),
        forge.hs_signer("weak", b"s" * 31).jwk(),
        HS.jwk(k=""),
        forge.hs_signer("weak", PUBLIC_PEM).jwk(),
        RSA.jwk(use="enc"),
        RSA.jwk(key_ops=["encrypt"]),
        RSA.jwk(alg="none"),
        RSA.jwk(kty="oct"),
        EC.jwk(crv="P-384"),
        EC.jwk(x=EC.jwk()["y"]),
    ],
    ids=["RSA 1024", "e 1", "e 3", "e even", "e 0", "HMAC 31 bytes", "HMAC empty", "HMAC is a PEM", "use enc",
         "key_ops encrypt", "alg none", "kty oct", "another curve", "not on the curve"],
)  # fmt: skip
def test_a_weak_or_foreign_key_is_refused_at_load(jwk: dict[str, object]) -> None:
    with pytest.raises(KeyInvalid):
        TokenValidator([Issuer(HOME, audiences=["api"], algorithms=["RS256", "ES256", "HS256"], jwks={"keys": [jwk]})])


def test_a_public_key_is_no_secret() -> None:
    with pytest.raises(KeyInvalid):
        TokenValidator([Issuer(HOME, audiences=["api"], algorithms=["HS256"], secret=PUBLIC_PEM)])


# --- 19: a flood of unknown kids --------------------------------------------------------------------------------------


def test_a_flood_of_unknown_kids_leaves_nothing_behind() -> None:
    """It asks for keys, never more: what a refresh costs is bounded by JWKSCache (GHSA-fhv5-28vv-h8m8)."""
    fresh = make_validator()
    good = RSA.token(CLAIMS)
    fresh.validate(good, now=NOW)
    before = {name: fresh.stats()[name] for name in ("entries", "structures", "accepted")}
    for number in range(2000):
        assert fresh.judge_token(EVIL.token(CLAIMS, {"kid": f"kid-{number}"}) if number < 20 else
                                 unsigned({"kid": f"kid-{number}"}), NOW)[1] == "kid_unknown"  # fmt: skip
    assert {name: fresh.stats()[name] for name in before} == before
    assert fresh.judge_closely(good, NOW)[3]


def unsigned(header: dict[str, object]) -> bytes:
    return forge.Signer("rsa", "RS256", lambda signed: bytes(256)).token(CLAIMS, header)


# --- 20 to 22: the cache ----------------------------------------------------------------------------------------------


def test_tokens_whose_cache_keys_collide_do_not_answer_for_each_other() -> None:
    """GHSA-rp9m-7r4c-75qg: keys of caches that collide gave one user's claims to another."""
    native = NativeTokenValidator(hash_bits=0)
    rules = IssuerRules(SECRETS.encode(), audiences=[b"api"], algorithms=["HS256"])
    native.publish(KeySnapshot([rules], [[HS.handle()]], [2**61]))
    tokens = {name: HS.token({**CLAIMS, "iss": SECRETS, "sub": name}) for name in ("alice", "mallo")}
    assert len(set(map(len, tokens.values()))) == 1
    for _ in range(3):
        for name, token in tokens.items():
            identity, reason = native.judge_token(token, NOW)
            assert identity is not None, reason
            assert identity.subject == name.encode()
    forged = tokens["alice"].split(b".")[0] + b"." + tokens["mallo"].split(b".", 1)[1][:-4] + b"AAAA"
    assert native.judge_token(forged, NOW)[0] is None


@pytest.fixture
def warm() -> tuple[TokenValidator, bytes]:
    """Return a validator that knows the token."""
    fresh = make_validator()
    token = RSA.token(CLAIMS)
    for _ in range(2):
        fresh.validate(token, now=NOW)
    assert fresh.stats()["hits"] == 1
    return fresh, token


def home(*signers: forge.Signer, **settings: Any) -> Issuer:
    return Issuer(HOME, **{"audiences": ["api"], "jwks": {"keys": [signer.jwk() for signer in signers]}, **settings})


def test_a_cached_token_ends_with_its_exp(warm: tuple[TokenValidator, bytes]) -> None:
    assert refusal(*warm, NOW + 330) == "expired"


def test_a_cached_token_ends_when_its_key_is_removed(warm: tuple[TokenValidator, bytes]) -> None:
    warm[0].publish_issuers([home(forge.rsa_signer("new", name="new"))])
    assert refusal(*warm) == "kid_unknown"


def test_a_cached_token_ends_when_its_kid_gets_another_key(warm: tuple[TokenValidator, bytes]) -> None:
    warm[0].publish_issuers([home(forge.rsa_signer("rsa", name="new"))])
    assert refusal(*warm) == "signature"


def test_a_cached_token_ends_when_its_issuer_goes(warm: tuple[TokenValidator, bytes]) -> None:
    warm[0].publish_issuers([Issuer(OTHER, audiences=["api"], jwks={"keys": [OTHER_RSA.jwk()]})])
    assert refusal(*warm) == "issuer_unknown"


def test_a_cached_token_ends_when_the_configuration_forbids_it(warm: tuple[TokenValidator, bytes]) -> None:
    warm[0].publish_issuers([home(RSA, audiences=["another"])])
    assert refusal(*warm) == "audience"


@pytest.mark.parametrize(("kind", "value"), [("jti", b"id-1"), ("sub", b"alice"), ("sid", b"session-1")])
def test_a_cached_token_ends_when_it_is_revoked(kind: str, value: bytes, warm: tuple[TokenValidator, bytes]) -> None:
    warm[0].revoke(kind, HOME.encode(), value, until_s=NOW + 300, now_s=NOW)
    assert refusal(*warm) == "revoked"


def test_a_cached_token_is_not_extended_by_a_clock_that_is_set_back(warm: tuple[TokenValidator, bytes]) -> None:
    validator, token = warm
    validator._advance(61)
    validator.validate(token, now=NOW - 20)
    assert validator.stats()["misses"] == 2  # verified again after its 60 s, whatever the wall clock says
    assert refusal(validator, token, NOW - 100) == "issued_in_future"


def test_a_refusal_is_never_remembered() -> None:
    """fast-jwt keeps errors by token by default: a token that was early once stays refused."""
    fresh = make_validator()
    token = RSA.token({**CLAIMS, "nbf": NOW + 60})
    assert refusal(fresh, token) == "not_yet_valid"
    assert refusal(fresh, token, NOW + 30) == "accepted"


def test_what_a_caller_does_to_claims_does_not_reach_the_next_caller() -> None:
    fresh = make_validator()
    token = RSA.token({**CLAIMS, "roles": ["user"], "realm": {"roles": ["user"]}})
    claims = fresh.validate(token, now=NOW)
    claims["roles"].append("admin")
    claims["realm"]["roles"].append("admin")
    with pytest.raises(TypeError):
        claims["sub"] = "admin"  # type: ignore[index]
    again = fresh.validate(token, now=NOW)
    assert (again["roles"], again["realm"], again.subject) == (["user"], {"roles": ["user"]}, "alice")


def test_an_error_tells_nothing_of_the_token() -> None:
    fresh = make_validator()
    token = RSA.token({**CLAIMS, "aud": "secret-audience"})
    with pytest.raises(TokenError) as caught:
        fresh.validate(token, now=NOW)
    shown = f"{caught.value!s} {caught.value!r} {caught.value.__cause__} {caught.value.__context__}"
    for part in (*token.decode().split("."), "secret-audience", "alice"):
        assert part not in shown


def test_every_length_cut_from_a_good_token_is_refused() -> None:
    fresh = make_validator()
    token = ED.token(CLAIMS)
    for length in range(len(token)):
        assert fresh.judge_token(token[:length], NOW)[0] is None


def test_every_bit_flipped_in_a_good_token_is_refused() -> None:
    fresh = make_validator()
    token = ED.token(CLAIMS)
    for place in range(len(token)):
        for bit in range(8):
            twisted = bytearray(token)
            twisted[place] ^= 1 << bit
            assert fresh.judge_token(bytes(twisted), NOW)[0] is None
    assert fresh.judge_token(token, NOW)[1] == "ok"


def test_numbers_of_any_width_do_no_harm() -> None:
    fresh = make_validator()
    for exponent in range(1, 400):
        for sign in ("", "-"):
            for text in (f"{sign}1e{exponent}", f"{sign}1e-{exponent}", f"{sign}{'9' * min(exponent, 80)}"):
                payload = raw_json(exp="HERE").replace(b'"HERE"', text.encode())
                reason = fresh.judge_token(forge.Signer("ed", "EdDSA", lambda signed: bytes(64)).token(payload), NOW)[1]
                assert reason in ("malformed", "claim_invalid", "expired", "signature")
