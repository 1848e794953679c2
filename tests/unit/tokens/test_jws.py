from __future__ import annotations

import hmac
import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway._native.token import IssuerRules, KeySnapshot, TokenValidator
from gateway._native.verify import BACKEND
from gateway.tokens.jws import verify_jws
from gateway.tokens.keys import load_jwk
from tests.signers import NAMES, PUBLIC_NAMES, b64, signer

BACKENDS = ("libcrypto", "cryptography") if BACKEND == "libcrypto" else ("cryptography",)
PAYLOAD = b'{"sub":"alice"}'
each_backend = pytest.mark.parametrize("backend", BACKENDS)


def compact(algorithm: str, header: bytes | None = None, payload: bytes = PAYLOAD, **members: object) -> str:
    """Return a token that is truly signed by this run's key for `algorithm`, whatever its header says."""
    if header is None:
        header = json.dumps({"alg": algorithm, **members}).encode()
    signed = f"{b64(header)}.{b64(payload)}"
    return f"{signed}.{b64(signer(algorithm).sign(signed.encode()))}"


@each_backend
@pytest.mark.parametrize("algorithm", NAMES)
def test_a_signed_text_verifies_under_its_key_only(algorithm: str, backend: str) -> None:
    token = compact(algorithm, kid=algorithm)
    for form in (token, token.encode()):
        assert verify_jws(form, signer(algorithm).jwk, [algorithm], backend=backend) is True
    assert verify_jws(token, {"keys": [signer(name).jwk for name in PUBLIC_NAMES]}, NAMES, backend=backend) is (
        algorithm in PUBLIC_NAMES  # among public keys a secret is not used
    )
    for other in NAMES:
        if other != algorithm:
            assert verify_jws(token, signer(other).jwk, NAMES, backend=backend) is False
            assert verify_jws(token, signer(algorithm).jwk, [other], backend=backend) is False


@pytest.mark.parametrize("payload", [b"", b"\0\xff", b"not json", b"[" * 5000])
def test_the_payload_may_be_anything(payload: bytes) -> None:
    assert verify_jws(compact("ES256", payload=payload), signer("ES256").jwk, NAMES)


def test_the_kid_must_be_the_keys_where_both_have_one() -> None:
    bare = {name: value for name, value in signer("ES256").jwk.items() if name != "kid"}
    assert verify_jws(compact("ES256"), signer("ES256").jwk, NAMES)
    assert verify_jws(compact("ES256", kid="another"), bare, NAMES)
    assert not verify_jws(compact("ES256", kid="another"), signer("ES256").jwk, NAMES)
    assert not verify_jws(compact("ES256", kid="ES256 "), signer("ES256").jwk, NAMES)


def test_a_public_key_never_serves_as_a_secret() -> None:
    """The classic confusion: HS256 under the bytes of the RSA key (RFC 8725 §2.1)."""
    header = b64(b'{"alg":"HS256"}')
    signed = f"{header}.{b64(PAYLOAD)}"
    for secret in (signer("RS256").spki, json.dumps(signer("RS256").jwk).encode()):
        token = f"{signed}.{b64(hmac.digest(secret, signed.encode(), 'sha256'))}"
        assert not verify_jws(token, signer("RS256").jwk, NAMES)
        assert not verify_jws(token, {"kty": "oct", "k": b64(secret)}, NAMES)


@pytest.mark.parametrize("name", ["none", "None", "NONE", "nOnE", "", "ES256 ", "es256", "ES-256", "HS256"])
def test_another_alg_is_refused_with_and_without_a_signature(name: str) -> None:
    token = compact("ES256", alg=name)
    head, _, _ = token.rpartition(".")
    assert not verify_jws(token, signer("ES256").jwk, [*NAMES, name])
    assert not verify_jws(head + ".", signer("ES256").jwk, [*NAMES, name])


@pytest.mark.parametrize(
    "members",
    [
        {"crit": []},
        {"crit": ["exp"]},
        {"crit": None},
        {"b64": False, "crit": ["b64"]},
        {"b64": False},
        {"b64": True},
        {"enc": "A256GCM"},
        {"zip": "DEF"},
        {"jku": "https://attacker.example/jwks"},
        {"x5u": "https://attacker.example/cert"},
        {"x5c": ["AAAA"]},
        {"jwk": {"kty": "oct", "k": "AAAA"}},
        {"kid": 1},
        {"kid": None},
        {"alg": None},
        {"alg": ["ES256"]},
        {"alg": 256},
        {"cty": "JWT"},
        {"cty": "application/jwt"},
        {"typ": 1},
    ],
    ids=lambda members: "-".join(f"{name}={value!r}"[:24] for name, value in members.items()),
)
def test_headers_that_ask_for_more_than_a_signature_are_refused(members: dict[str, Any]) -> None:
    assert not verify_jws(compact("ES256", **members), signer("ES256").jwk, NAMES)


@pytest.mark.parametrize(
    "header",
    [
        b'{"alg":"ES256","alg":"ES256"}',
        b'{"alg":"none","\\u0061lg":"ES256"}',
        b'{"alg":"ES256","x":{"a":1,"a":2}}',
        b'["ES256"]',
        b'"ES256"',
        b"",
        b"{}",
        b'{"alg":"ES256"} ',
        b'\xef\xbb\xbf{"alg":"ES256"}',
        b'{"alg":"ES256","x":"\xff"}',
        b'{"alg":"ES256","x":"\\ud800"}',
        b'{"alg":"ES256","x":NaN}',
        b'{"alg":"ES256","x":1e400}',
        b'{"alg":"ES256","x":' + b"[" * 10_000 + b"]" * 10_000 + b"}",
        b"{'alg':'ES256'}",
        b'{"alg":"ES256"',
        b'{"alg":"ES256"}x',
    ],
)
def test_headers_that_are_no_plain_json_object_are_refused(header: bytes) -> None:
    accepted = header.strip() == b'{"alg":"ES256"}'  # white space around the object is JSON too
    assert verify_jws(compact("ES256", header), signer("ES256").jwk, NAMES) is accepted


def test_only_three_canonical_segments_are_read() -> None:
    token = compact("ES256")
    header, payload, signature = token.split(".")
    jwk = signer("ES256").jwk
    assert verify_jws(token, jwk, NAMES)
    for wrong in (
        "",
        ".",
        "..",
        "...",
        header,
        f"{header}.{payload}",
        f"{token}.",
        f".{token}",
        f"{token}.{payload}",
        f"{header}..{signature}",
        f".{payload}.{signature}",
        f"{header}.{payload}.",
        f"{token}=",
        f"{header}=.{payload}.{signature}",
        f" {token}",
        f"{token}\n",
        f"{header}.{payload}. {signature}",
        token.replace(".", ". "),
        token.replace(".", "。"),
        "é" + token,
        token + "\ud800",
        token[:-1] + ("B" if token[-1] == "A" else "A" if token[-1] == "Q" else chr(ord(token[-1]) + 1)),
        json.dumps({"protected": header, "payload": payload, "signature": signature}),
        "A" * 2_000_000,
    ):
        assert verify_jws(wrong, jwk, NAMES) is False


@pytest.mark.parametrize(
    "jwk", [{}, {"keys": []}, {"keys": 5}, {"kty": "RSA"}, {"kty": ["EC"]}, {"kty": "EC", "crv": 5}]
)
def test_what_is_no_key_verifies_nothing(jwk: dict[str, object]) -> None:
    assert verify_jws(compact("ES256"), jwk, NAMES) is False


hostile_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8) | st.binary(max_size=4),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=5,
)


@given(st.text() | st.binary(), st.dictionaries(st.text(max_size=5), hostile_values, max_size=6))
@settings(max_examples=200)
def test_no_input_raises(text: str | bytes, jwk: dict[str, object]) -> None:
    assert verify_jws(text, signer("ES256").jwk, NAMES) is False
    assert verify_jws(compact("ES256"), jwk, NAMES) is False


@given(st.data())
@settings(max_examples=200)
def test_no_changed_character_leaves_a_text_valid(data: st.DataObject) -> None:
    token = compact("EdDSA").encode()
    place = data.draw(st.integers(0, len(token) - 1))
    byte = data.draw(st.integers(0, 255).filter(lambda value: value != token[place]))
    changed = token[:place] + bytes([byte]) + token[place + 1 :]
    assert not verify_jws(changed, signer("EdDSA").jwk, NAMES)


def doors(jwk: dict[str, str]) -> TokenValidator:
    """Return what the doors judge by, with this key and few rules that are not about signature and header."""
    algorithms = ("ES256",)
    rules = IssuerRules(b"https://idp.example", audiences=(), any_audience=True, algorithms=algorithms)
    validator = TokenValidator()
    validator.publish(KeySnapshot((rules,), (load_jwk(jwk, algorithms),), (2**40,)))
    return validator


plain_headers: st.SearchStrategy[dict[str, object]] = st.fixed_dictionaries(
    {"alg": st.sampled_from(["ES256"] * 6 + ["none", "es256", "", None, 1])},
    optional={
        "kid": st.sampled_from(["ES256"] * 6 + ["es256", "", 1, None, "k" * 1024, "k" * 1025]),
        "typ": st.sampled_from(["JWT", "jwt", "at+jwt", "application/at+jwt", "", 1, None, [], "t" * 129]),
        "cty": st.sampled_from(["JWT", "application/JWT", "jwt+x", "", 1, None, "application/x/jwt", "c" * 129]),
        "x5t": st.sampled_from(["AAAA", None, 1]),
    },
)
refused_members: st.SearchStrategy[dict[str, object]] = st.dictionaries(
    st.sampled_from(["crit", "b64", "enc", "zip", "jku", "x5u", "x5c", "jwk"]),
    st.sampled_from([None, [], "x"]),
    max_size=1,
)


@given(plain_headers, refused_members, st.booleans())
@settings(max_examples=400)
def test_the_doors_judge_headers_in_the_same_way(
    header: dict[str, object], more: dict[str, object], has_kid: bool
) -> None:
    jwk = {name: value for name, value in signer("ES256").jwk.items() if has_kid or name != "kid"}
    payload = json.dumps({"iss": "https://idp.example", "sub": "alice", "exp": 2**35}).encode()
    token = compact("ES256", json.dumps({**header, **more}).encode(), payload)
    identity, reason = doors(jwk).judge_token(token.encode())
    assert verify_jws(token, jwk, ["ES256"]) is (identity is not None), reason
