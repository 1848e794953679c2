"""RFC 9068, JWT Profile for OAuth 2.0 Access Tokens: what a resource server must check, by section."""

from __future__ import annotations

from typing import Any

import pytest

from gateway.tokens import Issuer, TokenError, TokenValidator
from tests import forge

NOW = 1_800_000_000
HOME = "https://authorization-server.example.com/"
SIGNER = forge.rsa_signer("RjEwOwOA")
CLAIMS: dict[str, Any] = {
    "iss": HOME,
    "sub": "5ba552d67",
    "aud": "https://rs.example.com/",
    "exp": NOW + 3600,
    "client_id": "s6BhdRkqt3",
    "iat": NOW,
    "jti": "dbe39bf3a3ba4238a513f51d6e1691c4",
    "scope": "openid profile reademail",
}
REQUIRED = ("sub", "aud", "client_id", "iat", "jti")


@pytest.fixture(scope="module")
def validator() -> TokenValidator:
    """Return one that follows the profile to the letter."""
    return TokenValidator(
        [
            Issuer(
                HOME,
                audiences=["https://rs.example.com/"],
                algorithms=["RS256"],
                types=["at+jwt"],
                required_claims=REQUIRED,
                jwks={"keys": [SIGNER.jwk()]},
            )
        ]
    )


def access_token(claims: dict[str, Any] | None = None, header: dict[str, Any] | None = None) -> bytes:
    """Sign the claims of §3 with changes; None removes one."""
    changed = {**CLAIMS, **(claims or {})}
    return SIGNER.token({k: v for k, v in changed.items() if v is not None}, {"typ": "at+jwt", **(header or {})})


def code_of(validator: TokenValidator, token: bytes) -> str:
    try:
        validator.validate(token, now=NOW)
    except TokenError as error:
        return error.code
    return "ok"


@pytest.mark.parametrize("typ", ["at+jwt", "application/at+jwt", "AT+JWT", "Application/At+Jwt"])
def test_section_2_1_both_spellings_of_the_type_are_accepted(validator: TokenValidator, typ: str) -> None:
    assert code_of(validator, access_token(header={"typ": typ})) == "ok"


def test_section_2_1_rs256_is_supported_and_none_is_not(validator: TokenValidator) -> None:
    """RS256 is the algorithm that both sides must support, `none` the one that neither may use."""
    assert code_of(validator, access_token()) == "ok"
    assert code_of(validator, access_token(header={"alg": "none"}).rpartition(b".")[0] + b".") == "algorithm"


@pytest.mark.parametrize("name", ["iss", "exp", "aud", "sub", "client_id", "iat", "jti"])
def test_section_2_2_required_claims_are_required(validator: TokenValidator, name: str) -> None:
    code = code_of(validator, access_token({name: None}))
    assert code == ("audience" if name == "aud" else "claim_missing")


def test_section_2_2_1_authentication_claims_are_handed_on(validator: TokenValidator) -> None:
    claims = validator.validate(access_token({"auth_time": NOW - 60, "acr": "urn:x", "amr": ["pwd", "otp"]}), now=NOW)
    assert (claims["auth_time"], claims["acr"], claims["amr"]) == (NOW - 60, "urn:x", ["pwd", "otp"])


def test_section_2_2_2_identity_claims_are_handed_on(validator: TokenValidator) -> None:
    assert validator.validate(access_token({"email": "a@example.com"}), now=NOW)["email"] == "a@example.com"


def test_section_2_2_3_scope_is_a_text_of_scopes_with_spaces(validator: TokenValidator) -> None:
    """RFC 8693 §4.2"""
    assert validator.validate(access_token(), now=NOW).scopes == ("openid", "profile", "reademail")
    assert code_of(validator, access_token({"scope": 7})) == "claim_invalid"


def test_section_2_2_3_1_groups_roles_and_entitlements_are_handed_on(validator: TokenValidator) -> None:
    """RFC 7643 §4.1.2: arrays, as SCIM has them."""
    claims = validator.validate(access_token({"groups": ["a"], "roles": ["b"], "entitlements": ["c"]}), now=NOW)
    assert [claims[name] for name in ("groups", "roles", "entitlements")] == [["a"], ["b"], ["c"]]


@pytest.mark.parametrize("typ", ["JWT", None, "id+jwt", "dpop+jwt", "at+jwt+x", "application/x/at+jwt"])
def test_section_4_another_type_is_rejected(validator: TokenValidator, typ: str | None) -> None:
    """`at+jwt` or `application/at+jwt`, and nothing else, absence included."""
    assert code_of(validator, access_token(header={"typ": typ})) == "type"


@pytest.mark.parametrize("iss", [HOME[:-1], HOME.upper(), HOME + "x"])
def test_section_4_the_issuer_matches_exactly(validator: TokenValidator, iss: str) -> None:
    """Byte for byte: no normalisation of addresses."""
    assert code_of(validator, access_token({"iss": iss})) == "issuer_unknown"


@pytest.mark.parametrize(
    ("aud", "code"),
    [
        ("https://rs.example.com/", "ok"),
        (["https://other.example.com/", "https://rs.example.com/"], "ok"),
        ("https://rs.example.com", "audience"),
        (["https://other.example.com/"], "audience"),
        ([], "audience"),
    ],
)
def test_section_4_the_audience_must_name_the_resource_server(
    validator: TokenValidator, aud: str | list[str], code: str
) -> None:
    """One of the token's audiences is the resource server itself."""
    assert code_of(validator, access_token({"aud": aud})) == code


def test_section_4_the_signature_is_validated_with_the_authorization_servers_keys(validator: TokenValidator) -> None:
    """A key of another with the same kid proves nothing."""
    stranger = forge.rsa_signer(SIGNER.kid, name="stranger")
    assert code_of(validator, stranger.token(CLAIMS, {"typ": "at+jwt"})) == "signature"


@pytest.mark.parametrize(("age_s", "code"), [(29, "ok"), (30, "expired"), (3000, "expired")])
def test_section_4_the_current_time_must_be_before_exp(validator: TokenValidator, age_s: int, code: str) -> None:
    """With a small leeway: 30 s."""
    assert code_of(validator, access_token({"exp": NOW - age_s, "iat": NOW - 9000})) == code


def test_section_4_an_encrypted_token_is_refused_where_none_was_agreed(validator: TokenValidator) -> None:
    jwe = b".".join([forge.segment({"alg": "RSA-OAEP", "enc": "A256GCM", "typ": "at+jwt"}), *[b"AAAA"] * 4])
    assert code_of(validator, jwe) == "malformed"


def test_section_5_an_id_token_of_the_same_issuer_is_no_access_token(validator: TokenValidator) -> None:
    """Cross-JWT confusion: the same key, another kind of token, another audience."""
    id_token = SIGNER.token({**CLAIMS, "aud": "s6BhdRkqt3", "nonce": "n-0S6_WzA2Mj"})
    assert code_of(validator, id_token) == "audience"
    assert code_of(validator, SIGNER.token({**CLAIMS, "nonce": "n-0S6_WzA2Mj"})) == "type"
