from __future__ import annotations

import copy
import json
import pickle
import subprocess
import sys
import threading
from typing import Any

import pytest

import gateway.tokens
from gateway._native.token import REASONS
from gateway.errors import GatewayError, KeyInvalid, TokenRejected
from gateway.tokens import Claims, Issuer, TokenError, TokenValidator, verify_jws
from gateway.tokens.reasons import MEANINGS
from tests import forge

NOW = 1_800_000_000
HOME = "https://idp.example.com"
CLAIMS: dict[str, Any] = {
    "iss": HOME,
    "sub": "alice",
    "aud": ["api", "web"],
    "exp": NOW + 300,
    "iat": NOW - 1,
    "nbf": NOW - 2.5,
    "jti": "id-1",
    "sid": "session-1",
    "scope": "read  write",
    "realm": {"roles": ["user"]},
}
SIGNER = forge.ed_signer("ed")


def issuer(**settings: Any) -> Issuer:
    return Issuer(
        **{
            "issuer": HOME,
            "audiences": ["api"],
            "algorithms": ["EdDSA"],
            "jwks": {"keys": [SIGNER.jwk()]},
            **settings,
        }
    )


def refusal(validator: TokenValidator, token: bytes | str, now: float = NOW) -> str:
    with pytest.raises(TokenError) as caught:
        validator.validate(token, now=now)
    return caught.value.code


@pytest.mark.parametrize("form", [bytes, bytes.decode])
def test_validate_gives_the_claims_of_bytes_and_text(form: Any) -> None:
    claims = TokenValidator([issuer()]).validate(form(SIGNER.token(CLAIMS)), now=NOW)
    assert isinstance(claims, Claims)
    assert dict(claims) == CLAIMS
    assert (len(claims), "sub" in claims, claims.get("gone")) == (len(CLAIMS), True, None)


def test_claims_have_names_for_the_registered_ones() -> None:
    claims = TokenValidator([issuer()]).validate(SIGNER.token(CLAIMS), now=NOW)
    assert (claims.subject, claims.issuer, claims.audience) == ("alice", HOME, ("api", "web"))
    assert (claims.expires_at, claims.issued_at, claims.not_before) == (NOW + 300, NOW - 1, NOW - 3)
    assert (claims.token_id, claims.session_id, claims.scopes) == ("id-1", "session-1", ("read", "write"))
    assert json.loads(claims.payload) == CLAIMS
    assert "alice" in repr(claims)


def test_names_of_absent_claims_are_empty() -> None:
    validator = TokenValidator([issuer(audiences=(), any_audience=True)])
    claims = validator.validate(SIGNER.token({"iss": HOME, "exp": NOW + 1}), now=NOW)
    assert (claims.subject, claims.audience, claims.scopes) == (None, (), ())
    assert (claims.issued_at, claims.not_before, claims.token_id, claims.session_id) == (None, None, None, None)
    with pytest.raises(KeyError):
        claims["sub"]


@pytest.mark.parametrize(("members", "scopes"), [({"scp": ["a", "b"]}, ("a", "b")), ({"scp": "a b"}, ("a", "b"))])
def test_scp_stands_for_an_absent_scope(members: dict[str, Any], scopes: tuple[str, ...]) -> None:
    claims = {name: value for name, value in CLAIMS.items() if name != "scope"}
    assert TokenValidator([issuer()]).validate(SIGNER.token(claims | members), now=NOW).scopes == scopes


def test_claims_are_shared_but_what_they_hand_out_is_not() -> None:
    validator = TokenValidator([issuer()])
    token = SIGNER.token(CLAIMS)
    claims = validator.validate(token, now=NOW)
    assert validator.validate(token, now=NOW) is claims
    claims["realm"]["roles"].append("admin")
    dict(claims)["aud"].append("admin")
    assert dict(validator.validate(token, now=NOW)) == CLAIMS
    assert copy.deepcopy(claims) == claims
    assert pickle.loads(pickle.dumps(claims)) == claims


def test_without_a_cache_no_verdict_is_kept() -> None:
    validator = TokenValidator([issuer()], cache=False)
    token = SIGNER.token(CLAIMS)
    assert validator.validate(token, now=NOW) is not validator.validate(token, now=NOW)
    assert validator.stats()["entries"] == 0


def test_an_error_has_a_stable_code_and_a_meaning() -> None:
    validator = TokenValidator([issuer()])
    with pytest.raises(TokenError, match="none of the accepted audiences") as caught:
        validator.validate(SIGNER.token({**CLAIMS, "aud": "other"}), now=NOW)
    error = caught.value
    assert (error.code, error.status, error.retry_after_s) == ("audience", 401, None)
    assert isinstance(error, TokenRejected)
    assert isinstance(error, GatewayError)
    assert pickle.loads(pickle.dumps(error)).code == "audience"


def test_every_reason_has_a_meaning_in_order() -> None:
    assert tuple(MEANINGS) == REASONS
    for reason, meaning in MEANINGS.items():
        assert str(TokenError(reason)) == meaning
        assert meaning == meaning.strip()
        assert not meaning.endswith(".")


def test_keys_that_cannot_be_had_are_not_the_tokens_fault() -> None:
    error = TokenError("keys_unavailable")
    assert (error.status, error.retry_after_s) == (503, 5.0)


def test_the_validators_leeway_counts_where_an_issuer_names_none() -> None:
    other = "https://other.example.com"
    validator = TokenValidator([issuer(), issuer(issuer=other, leeway_s=0)], leeway_s=5)
    assert validator.validate(SIGNER.token(CLAIMS), now=NOW + 304.9)
    assert refusal(validator, SIGNER.token(CLAIMS), NOW + 305) == "expired"
    assert refusal(validator, SIGNER.token({**CLAIMS, "iss": other}), NOW + 300) == "expired"


def test_an_issuers_settings_reach_the_judge() -> None:
    strict = issuer(types=["at+jwt"], required_claims=["client_id"], lifetime_max_s=301, audiences=["web"])
    validator = TokenValidator([strict])
    good = {**CLAIMS, "client_id": "c"}
    assert validator.validate(SIGNER.token(good, {"typ": "AT+jwt"}), now=NOW).subject == "alice"
    assert refusal(validator, SIGNER.token(good)) == "type"
    assert refusal(validator, SIGNER.token(CLAIMS, {"typ": "at+jwt"})) == "claim_missing"
    assert refusal(validator, SIGNER.token({**good, "exp": NOW + 301}, {"typ": "at+jwt"})) == "claim_invalid"
    assert refusal(validator, SIGNER.token({**good, "cnf": {}}, {"typ": "at+jwt"})) == "sender_constrained"
    bound = TokenValidator([issuer(allow_sender_constrained=True)])
    assert bound.validate(SIGNER.token({**CLAIMS, "cnf": {}}), now=NOW)["cnf"] == {}


def test_a_secret_is_a_key() -> None:
    signer = forge.hs_signer("any kid", b"s" * 64, "HS512")
    validator = TokenValidator([issuer(jwks=None, secret=b"s" * 64, algorithms=["HS512"])])
    assert validator.validate(signer.token(CLAIMS), now=NOW).subject == "alice"
    assert refusal(validator, forge.hs_signer("x", b"t" * 64, "HS512").token(CLAIMS)) == "signature"
    assert "sss" not in repr(issuer(jwks=None, secret=b"s" * 64))


def test_rotation_keeps_what_still_holds_and_drops_the_rest() -> None:
    old, new = SIGNER, forge.ec_signer("new")
    algorithms = ["EdDSA", "ES256"]
    validator = TokenValidator([issuer(algorithms=algorithms)])
    first = old.token(CLAIMS)
    kept = validator.validate(first, now=NOW)
    validator.publish_issuers([issuer(algorithms=algorithms, jwks={"keys": [old.jwk(), new.jwk()]})])
    assert validator.validate(first, now=NOW) is kept
    assert validator.validate(new.token(CLAIMS), now=NOW).subject == "alice"
    validator.publish_issuers([issuer(algorithms=algorithms, jwks={"keys": [new.jwk()]})])
    assert refusal(validator, first) == "kid_unknown"


@pytest.mark.parametrize(
    "broken",
    [
        [],
        [issuer(jwks={"keys": []})],
        [issuer(jwks={})],
        [issuer(jwks=None)],
        [issuer(secret=b"s" * 64)],
        [issuer(audiences=[])],
        [issuer(), issuer()],
        [issuer(algorithms=["none"])],
    ],
    ids=["nobody", "no keys", "no set", "neither", "both", "no audience", "twice", "none"],
)
def test_what_could_never_work_is_refused_and_changes_nothing(broken: list[Issuer]) -> None:
    with pytest.raises((ValueError, KeyInvalid)):
        TokenValidator(broken)
    validator = TokenValidator([issuer()])
    with pytest.raises((ValueError, KeyInvalid)):
        validator.publish_issuers(broken)
    assert validator.validate(SIGNER.token(CLAIMS), now=NOW).subject == "alice"


def test_one_text_is_no_sequence_of_texts() -> None:
    with pytest.raises(TypeError, match="`audiences` is a sequence of texts"):
        TokenValidator([issuer(audiences="api")])


def test_keys_that_are_not_used_are_named() -> None:
    weak = forge.rsa_signer("weak", bits=1024).jwk()
    validator = TokenValidator([issuer(algorithms=["EdDSA", "RS256"], jwks={"keys": [SIGNER.jwk(), weak]})])
    assert [fault.kid for fault in validator.key_faults[HOME]] == ["weak"]
    with pytest.raises(KeyInvalid, match="`weak`"):
        TokenValidator([issuer(algorithms=["RS256"], jwks={"keys": [weak]})])


def test_one_validator_serves_many_threads() -> None:
    validator = TokenValidator([issuer()], cache_entries=20)
    tokens = {f"user-{n}": SIGNER.token({**CLAIMS, "sub": f"user-{n}"}) for n in range(40)}
    wrong: list[str] = []

    def judge() -> None:
        for _ in range(20):
            wrong.extend(name for name, token in tokens.items() if validator.validate(token, now=NOW).subject != name)

    threads = [threading.Thread(target=judge) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


def test_verify_jws_is_part_of_the_face() -> None:
    assert verify_jws(SIGNER.token(CLAIMS), SIGNER.jwk(), ["EdDSA"])
    assert not verify_jws(SIGNER.token(CLAIMS), SIGNER.jwk(), ["ES256"])


def test_the_face_is_sorted_and_says_where_the_designs_parts_are() -> None:
    assert gateway.tokens.__all__ == sorted(gateway.tokens.__all__)
    for noun in ("JWTParser", "ClaimsValidator", "TokenStructureCache", "SignatureVerifierPool"):
        assert noun in (gateway.tokens.__doc__ or "")


def test_the_library_loads_nothing_that_it_does_not_need() -> None:
    heavy = "{'starlette', 'granian', 'redis', 'httpx2', 'jwt'}"
    code = f"import gateway.tokens, sys; print(sorted({heavy} & set(sys.modules)))"
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert told.stdout.strip() == "[]"
