"""RFC 8725, JSON Web Token Best Current Practices: each practice of §3 that applies to a verifier, by its section."""

from __future__ import annotations

import json
from typing import Any

import pytest

from gateway.errors import KeyInvalid
from gateway.tokens import Issuer, TokenError, TokenValidator
from tests import forge

NOW = 1_800_000_000
HOME = "https://idp.example.com"
OTHER = "https://other.example.com"
CLAIMS: dict[str, Any] = {"iss": HOME, "sub": "alice", "aud": "api", "exp": NOW + 300}
SIGNER = forge.ed_signer("ed")


def validator_of(*issuers: Issuer) -> TokenValidator:
    return TokenValidator(issuers or [home()])


def home(*signers: forge.Signer, **settings: Any) -> Issuer:
    keys = [signer.jwk() for signer in signers or (SIGNER,)]
    return Issuer(HOME, **{"audiences": ["api"], "algorithms": ["EdDSA"], "jwks": {"keys": keys}, **settings})


def code_of(validator: TokenValidator, token: bytes) -> str:
    try:
        validator.validate(token, now=NOW)
    except TokenError as error:
        return error.code
    return "ok"


def test_section_3_1_only_configured_algorithms_are_used() -> None:
    """The caller names the algorithms, and no other is used, whatever the token says."""
    hs, rsa = forge.hs_signer("hs"), forge.rsa_signer("rsa")
    validator = validator_of(home(SIGNER, rsa, algorithms=["EdDSA", "RS256"]))
    assert code_of(validator, SIGNER.token(CLAIMS)) == "ok"
    assert code_of(validator, hs.token(CLAIMS)) == "algorithm"
    assert code_of(validator_of(home(algorithms=["EdDSA"])), rsa.token(CLAIMS)) == "algorithm"


def test_section_3_1_each_key_is_used_with_exactly_one_algorithm() -> None:
    pss = forge.rsa_signer("rsa", "PS256")
    validator = validator_of(home(forge.rsa_signer("rsa"), algorithms=["RS256", "PS256"]))
    assert code_of(validator, pss.token(CLAIMS)) == "algorithm"


def test_section_3_1_a_key_without_alg_gets_one_handle_for_each_allowed_algorithm_of_its_kind_only() -> None:
    jwk = forge.rsa_signer("rsa").jwk()
    del jwk["alg"]
    validator = validator_of(home(algorithms=["PS256", "ES256"], jwks={"keys": [jwk]}))
    assert code_of(validator, forge.rsa_signer("rsa", "PS256").token(CLAIMS)) == "ok"
    assert code_of(validator, forge.rsa_signer("rsa").token(CLAIMS)) == "algorithm"


@pytest.mark.parametrize("alg", ["none", "HS1", "RSA1_5", "RS1", "ES256K", "MD5"])
def test_section_3_2_inappropriate_algorithms_do_not_exist(alg: str) -> None:
    """Nobody can switch on `none` or an algorithm of the past, whatever he asks for."""
    with pytest.raises((ValueError, KeyInvalid)):
        validator_of(home(algorithms=[alg]))
    assert code_of(validator_of(), SIGNER.token(CLAIMS, {"alg": alg})) == "algorithm"


def test_section_3_3_every_cryptographic_operation_is_validated() -> None:
    """One failed operation refuses the whole token; nested tokens, of which only the shell would be checked, too."""
    validator = validator_of()
    token = next(token for n in range(9) if (token := SIGNER.token({**CLAIMS, "jti": f"{n}"}))[-86] != token[-85])
    signed, _, signature = token.rpartition(b".")
    assert code_of(validator, signed + b"." + signature[1:2] + signature[:1] + signature[2:]) == "signature"
    assert code_of(validator, SIGNER.token(SIGNER.token(CLAIMS), {"cty": "JWT"})) == "header_invalid"


def test_section_3_4_points_off_the_curve_are_no_keys() -> None:
    ec = forge.ec_signer("ec").jwk()
    with pytest.raises(KeyInvalid):
        validator_of(home(algorithms=["ES256"], jwks={"keys": [ec | {"y": ec["x"]}]}))


def test_section_3_5_short_secrets_are_no_keys() -> None:
    """RFC 7518 §3.2: a secret is at least as long as the hash; a password is none."""
    short = forge.b64(b"password").decode()
    with pytest.raises(KeyInvalid):
        validator_of(home(algorithms=["HS256"], jwks={"keys": [{"kty": "oct", "k": short}]}))
    with pytest.raises(KeyInvalid):
        validator_of(home(algorithms=["HS256"], jwks=None, secret=b"s" * 31))
    assert validator_of(home(algorithms=["HS256"], jwks=None, secret=b"s" * 32))


def test_section_3_6_compressed_tokens_are_refused() -> None:
    assert code_of(validator_of(), SIGNER.token(CLAIMS, {"zip": "DEF"})) == "header_invalid"


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-32", "latin-1"])
def test_section_3_7_only_utf_8_is_read(encoding: str) -> None:
    payload = json.dumps({**CLAIMS, "name": "Zoë"}, ensure_ascii=False).encode(encoding)
    assert code_of(validator_of(), SIGNER.token(payload)) == "malformed"
    assert code_of(validator_of(), SIGNER.token(payload.decode(encoding).encode())) == "ok"


def test_section_3_8_the_key_belongs_to_the_issuer() -> None:
    """A key verifies its own issuer's tokens only."""
    stranger = forge.rsa_signer("ed")
    validator = validator_of(
        home(algorithms=["EdDSA", "RS256"]),
        Issuer(OTHER, audiences=["api"], algorithms=["RS256"], jwks={"keys": [stranger.jwk()]}),
    )
    assert code_of(validator, stranger.token({**CLAIMS, "iss": OTHER})) == "ok"
    assert code_of(validator, stranger.token(CLAIMS)) == "algorithm"
    assert code_of(validator, SIGNER.token({**CLAIMS, "iss": "https://nobody.example.com"})) == "issuer_unknown"


def test_section_3_8_a_subject_must_be_a_text_where_it_is_required() -> None:
    validator = validator_of(home(required_claims=["sub"]))
    assert code_of(validator, SIGNER.token({**CLAIMS, "sub": 7})) == "claim_invalid"
    assert code_of(validator, SIGNER.token({k: v for k, v in CLAIMS.items() if k != "sub"})) == "claim_missing"


@pytest.mark.parametrize("aud", [None, "web", [], ["web"]])
def test_section_3_9_the_audience_is_validated(aud: object) -> None:
    """An absent audience and one of somebody else are refused alike."""
    claims = {**CLAIMS, "aud": aud}
    if aud is None:
        del claims["aud"]
    assert code_of(validator_of(), SIGNER.token(claims)) == "audience"


def test_section_3_9_leaving_out_the_audience_must_be_said() -> None:
    with pytest.raises(ValueError, match="audiences"):
        validator_of(home(audiences=()))
    assert code_of(validator_of(home(audiences=(), any_audience=True)), SIGNER.token({**CLAIMS, "aud": "x"})) == "ok"


@pytest.mark.parametrize("member", ["jku", "x5u", "x5c", "jwk"])
def test_section_3_10_keys_are_never_taken_from_the_token(member: str) -> None:
    assert code_of(validator_of(), SIGNER.token(CLAIMS, {member: "https://idp.example.com/keys"})) == "header_invalid"


@pytest.mark.parametrize("kid", ["../ed", "ed'--", "ed\0", "*"])
def test_section_3_10_kid_is_an_exact_name_in_a_fixed_table(kid: str) -> None:
    assert code_of(validator_of(), SIGNER.token(CLAIMS, {"kid": kid})) == "kid_unknown"


def test_section_3_11_an_explicit_type_can_be_demanded() -> None:
    validator = validator_of(home(types=["secevent+jwt"]))
    assert code_of(validator, SIGNER.token(CLAIMS, {"typ": "secevent+jwt"})) == "ok"
    assert code_of(validator, SIGNER.token(CLAIMS, {"typ": "application/SECEVENT+jwt"})) == "ok"
    for typ in ("JWT", "at+jwt", None):
        assert code_of(validator, SIGNER.token(CLAIMS, {"typ": typ})) == "type"


def test_section_3_12_kinds_of_tokens_exclude_each_other() -> None:
    """Two uses of one issuer's keys differ in typ, aud and required claims: no token fits both."""
    access = validator_of(home(types=["at+jwt"], required_claims=["client_id"]))
    logout = validator_of(home(types=["logout+jwt"], audiences=["web"], required_claims=["events"]))
    one = SIGNER.token({**CLAIMS, "client_id": "web"}, {"typ": "at+jwt"})
    other = SIGNER.token({**CLAIMS, "aud": "web", "events": {}}, {"typ": "logout+jwt"})
    assert [code_of(access, one), code_of(logout, other)] == ["ok", "ok"]
    assert [code_of(access, other), code_of(logout, one)] == ["audience", "audience"]


def test_section_3_3_duplicate_names_are_refused() -> None:
    """What two parsers may read in two ways is not read at all (RFC 8259 §4, RFC 7519 §4)."""
    payload = json.dumps(CLAIMS).encode()[:-1] + b',"sub":"admin"}'
    assert code_of(validator_of(), SIGNER.token(payload)) == "malformed"
