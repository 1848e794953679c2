"""A proof counts for one request, one key, one token, now (RFC 9449 §4.3)."""

from __future__ import annotations

import base64
import hashlib
import json
from pathlib import Path
from typing import Any

import pytest

from gateway.flows.oauth.dpop import ALGORITHMS, DPoPChecker, Nonces
from gateway.flows.oauth.errors import OAuthRefused
from gateway.tokens.signing import SigningKey, new_key
from tests.unit.flows.oauth.world import ISSUER, World, jkt_of, proof_of
from tests.unit.tokens.fakes import MovedClock

URL = "https://api.example/orders"
KEY = new_key("ES256")


class Checks:
    """A checker with a memory of its own."""

    def __init__(self, *, nonces: bool = False) -> None:
        self.clock = MovedClock()
        self.seen: set[bytes] = set()
        self.nonces = Nonces(b"k" * 32, self.clock, lifetime_s=60) if nonces else None
        self.checker = DPoPChecker(self._first, self.clock, nonces=self.nonces)

    async def _first(self, key: bytes, expires_s: int) -> bool:
        assert expires_s > self.clock.wall_s() + 60
        is_first = key not in self.seen
        self.seen.add(key)
        return is_first

    def claims(self, **changes: Any) -> dict[str, Any]:
        claims = {"jti": "j-1", "htm": "GET", "htu": URL, "iat": int(self.clock.wall_s()), **changes}
        return {name: value for name, value in claims.items() if value is not None}

    async def reason(self, *proofs: str, method: str = "GET", url: str = URL, **more: str) -> str:
        try:
            return await self.checker.check(proofs, method, url, **more)
        except OAuthRefused as refused:
            return refused.reason


@pytest.mark.parametrize("algorithm", [name for name in ALGORITHMS if name not in ("RS384", "RS512", "PS384", "PS512")])
async def test_a_proof_by_any_of_our_algorithms_gives_its_keys_thumbprint(algorithm: str) -> None:
    checks, key = Checks(), new_key(algorithm)
    assert await checks.reason(proof_of(key, checks.claims())) == jkt_of(key)


async def test_the_thumbprint_is_that_of_the_example_in_rfc_9449_section_6_1() -> None:
    from gateway.tokens.signing import thumbprint

    jwk = {
        "kty": "EC",
        "x": "l8tFrhx-34tV3hRICRDY9zCkDlpBhF42UQUfWVAWBFs",
        "y": "9VE4jf_Ok_o64zbTTlcuNJajHmt6v9TDVrU0CdvGRDA",
        "crv": "P-256",
    }
    assert thumbprint(jwk) == "0ZcOCORZNYy-DWpqq30jZyJGHTN0d2HglBV3uiguA4I"


async def test_a_proof_is_accepted_once() -> None:
    checks = Checks()
    proof = proof_of(KEY, checks.claims())
    assert await checks.reason(proof) == jkt_of(KEY)
    assert await checks.reason(proof) == "dpop_replayed"
    assert await checks.reason(proof_of(KEY, checks.claims(jti="j-2"))) == jkt_of(KEY)
    other = new_key("ES256")
    assert await checks.reason(proof_of(other, checks.claims())) == jkt_of(other)  # a `jti` is its key's


@pytest.mark.parametrize(
    ("claims", "reason"),
    [
        ({"htm": "POST"}, "dpop_method"),
        ({"htm": "get"}, "dpop_method"),
        ({"htu": URL + "/1"}, "dpop_url"),
        ({"htu": URL.replace("https", "http")}, "dpop_url"),
        ({"htu": URL.replace("api.", "")}, "dpop_url"),
        ({"htu": "https://api.example:8443/orders"}, "dpop_url"),
        ({"htu": "https://user@api.example/orders"}, "dpop_url"),
        ({"htu": "https://[::1/"}, "dpop_url"),
        ({"jti": None}, "dpop_malformed"),
        ({"jti": ""}, "dpop_malformed"),
        ({"jti": 7}, "dpop_malformed"),
        ({"jti": "j" * 257}, "dpop_malformed"),
        ({"htm": None}, "dpop_malformed"),
        ({"htu": None}, "dpop_malformed"),
        ({"iat": None}, "dpop_malformed"),
        ({"iat": "now"}, "dpop_malformed"),
        ({"nonce": 1}, "dpop_malformed"),
    ],
)
async def test_a_proof_for_something_else_is_refused(claims: dict[str, Any], reason: str) -> None:
    checks = Checks()
    assert await checks.reason(proof_of(KEY, checks.claims(**claims))) == reason
    assert not checks.seen


@pytest.mark.parametrize(
    "url", [URL + "?page=2", URL + "#top", "HTTPS://API.example/orders", "https://api.example:443/orders"]
)
async def test_addresses_are_compared_without_query_and_normalised(url: str) -> None:
    checks = Checks()
    assert await checks.reason(proof_of(KEY, checks.claims(htu=url))) == jkt_of(KEY)
    assert await checks.reason(proof_of(KEY, checks.claims(jti="2")), url=url) == jkt_of(KEY)


@pytest.mark.parametrize(
    ("age_s", "is_good"), [(0, True), (60, True), (65, True), (66, False), (-5, True), (-6, False)]
)
async def test_a_proof_is_made_just_now(age_s: int, is_good: bool) -> None:
    checks = Checks()
    proof = proof_of(KEY, checks.claims(iat=int(checks.clock.wall_s()) - age_s))
    assert await checks.reason(proof) == (jkt_of(KEY) if is_good else "dpop_time")


@pytest.mark.parametrize(
    ("header", "reason"),
    [
        ({"typ": "JWT"}, "dpop_type"),
        ({"typ": None}, "dpop_type"),
        ({"jwk": None}, "dpop_key_invalid"),
        ({"jwk": {"kty": "oct", "k": "a2V5"}}, "dpop_key_invalid"),
        ({"jwk": {**new_key("ES256").public_jwk()}}, "dpop_signature"),
        ({"jwk": {**KEY.private_jwk()}}, "dpop_key_invalid"),
        ({"crit": ["exp"]}, "dpop_malformed"),
        ({"jku": "https://evil.example/keys"}, "dpop_malformed"),
        ({"x5u": "https://evil.example/keys"}, "dpop_malformed"),
    ],
)
async def test_a_header_that_asks_for_something_else_is_refused(header: dict[str, Any], reason: str) -> None:
    checks = Checks()
    assert await checks.reason(proof_of(KEY, checks.claims(), **header)) == reason


def forged(header: dict[str, Any], claims: dict[str, Any], signature: str = "") -> str:
    def part(value: dict[str, Any]) -> str:
        return base64.urlsafe_b64encode(json.dumps(value).encode()).rstrip(b"=").decode()

    return f"{part(header)}.{part(claims)}.{signature}"


@pytest.mark.parametrize("algorithm", ["none", "HS256", "ES256K", "", 7])
async def test_no_algorithm_but_a_public_one_signs_a_proof(algorithm: object) -> None:
    checks = Checks()
    header = {"typ": "dpop+jwt", "alg": algorithm, "jwk": KEY.public_jwk()}
    assert await checks.reason(forged(header, checks.claims())) in ("dpop_algorithm", "dpop_malformed")


async def test_a_changed_proof_is_refused() -> None:
    checks = Checks()
    head, _, signature = proof_of(KEY, checks.claims()).split(".")
    payload = base64.urlsafe_b64encode(json.dumps(checks.claims(htm="DELETE")).encode()).rstrip(b"=").decode()
    assert await checks.reason(f"{head}.{payload}.{signature}", method="DELETE") == "dpop_signature"


@pytest.mark.parametrize("proof", ["", "x", "a.b", "a.b.c", "a.b.c.d", "é.b.c", "." * 2, "A" * 9000 + ".e30."])
async def test_what_is_no_jwt_is_no_proof(proof: str) -> None:
    assert await Checks().reason(proof) == "dpop_malformed"


async def test_exactly_one_proof_comes_with_a_request() -> None:
    checks = Checks()
    one, other = (proof_of(KEY, checks.claims(jti=jti)) for jti in "ab")
    assert await checks.reason() == "dpop_count"
    assert await checks.reason(one, other) == "dpop_count"
    assert await checks.reason(f"{one}, {other}") == "dpop_count"


async def test_a_proof_with_a_token_is_for_that_token_and_its_key() -> None:
    checks = Checks()
    token_hash = base64.urlsafe_b64encode(hashlib.sha256(b"token").digest()).rstrip(b"=").decode()
    good = checks.claims(ath=token_hash)
    assert await checks.reason(proof_of(KEY, good), token="other") == "dpop_token"
    assert await checks.reason(proof_of(KEY, checks.claims()), token="token") == "dpop_token"
    assert await checks.reason(proof_of(KEY, good), token="token", jkt=jkt_of(new_key("ES256"))) == "dpop_key"
    assert await checks.reason(proof_of(KEY, good), token="token", jkt=jkt_of(KEY)) == jkt_of(KEY)


async def test_a_proof_without_a_fresh_nonce_is_asked_for_one_and_not_used_up() -> None:
    checks = Checks(nonces=True)
    assert checks.nonces is not None
    nonce = checks.checker.nonce()
    for wrong in (None, "", "x", nonce[:-4] + "AAA=", nonce.upper()):
        assert await checks.reason(proof_of(KEY, checks.claims(nonce=wrong))) == "use_dpop_nonce"
    assert not checks.seen
    assert await checks.reason(proof_of(KEY, checks.claims(nonce=nonce))) == jkt_of(KEY)
    checks.clock.move(60)
    assert await checks.reason(proof_of(KEY, checks.claims(jti="2", nonce=nonce))) == jkt_of(KEY)
    checks.clock.move(60)
    assert await checks.reason(proof_of(KEY, checks.claims(jti="3", nonce=nonce))) == "use_dpop_nonce"
    again = Nonces(b"k" * 32, checks.clock, lifetime_s=60)
    assert again.current() == checks.checker.nonce()  # another process gives out the same
    assert not Nonces(b"x" * 32, checks.clock, lifetime_s=60).accepts(checks.checker.nonce())


# --- at the endpoints


async def test_a_client_that_must_prove_possession_gets_nothing_without(tmp_path: Path) -> None:
    world = World(tmp_path)
    world.browser.log_in()
    form = {"client_id": "strict", "grant_type": "authorization_code", "code": "x"}
    answer = await world.token(form)
    assert (answer.status_code, answer.json()["error"]) == (400, "invalid_dpop_proof")


async def test_the_token_endpoint_gives_a_nonce_with_every_answer(tmp_path: Path) -> None:
    world = World(tmp_path)
    key = new_key("ES256")
    form = {"grant_type": "refresh_token", "client_id": "app", "refresh_token": "x"}
    first = await world.http.post("/oauth2/token", data=form, headers={"dpop": world.proof(key)})
    assert (first.status_code, first.json()["error"]) == (400, "use_dpop_nonce")
    second = await world.http.post(
        "/oauth2/token", data=form, headers={"dpop": world.proof(key, nonce=first.headers["dpop-nonce"])}
    )
    assert second.json()["error"] == "invalid_grant"
    assert not [event for event in world.events if event.reason == "use_dpop_nonce"]


async def use(world: World, token: str, key: SigningKey, *, scheme: str = "DPoP", **claims: Any) -> int:
    token_hash = base64.urlsafe_b64encode(hashlib.sha256(token.encode()).digest()).rstrip(b"=").decode()
    proof = world.proof(key, url=f"{ISSUER}/oauth2/userinfo", method="GET", **{"ath": token_hash, **claims})
    headers = {"authorization": f"{scheme} {token}", "dpop": proof}
    return (await world.http.get("/oauth2/userinfo", headers=headers)).status_code


async def test_a_bound_token_is_used_with_its_key_only(tmp_path: Path) -> None:
    world = World(tmp_path)
    key, other = new_key("ES256"), new_key("ES256")
    members = (await world.redeem(await world.code(), key=key)).json()
    token = members["access_token"]
    assert await use(world, token, key) == 200
    assert await use(world, token, other) == 401
    assert await use(world, token, key, ath="x") == 401
    assert await use(world, token, key, scheme="Bearer") == 401
    bearer = (await world.log_in())["access_token"]
    assert await use(world, bearer, key) == 401
    assert (await world.introspect(token))["cnf"] == {"jkt": jkt_of(key)}
    assert (await world.introspect(token))["token_type"] == "DPoP"


async def test_the_refresh_tokens_of_a_public_client_are_bound_to_its_key(tmp_path: Path) -> None:
    world = World(tmp_path)
    key, other = new_key("ES256"), new_key("ES256")
    members = (await world.redeem(await world.code(), key=key)).json()
    for thief in (other, None):
        answer = await world.refresh(members["refresh_token"], key=thief)
        assert answer.json()["error"] == "invalid_dpop_proof"
    assert (await world.refresh(members["refresh_token"], key=key)).json()["token_type"] == "DPoP"
