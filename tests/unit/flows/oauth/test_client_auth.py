"""A client is who it proves to be; whoever fails learns nothing of why."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import httpx2
import pytest

from gateway.config import OAuthClientConfig
from gateway.tokens.signing import mint, new_key
from tests.unit.flows.oauth.world import ISSUER, SECRET, World

FORM = {"grant_type": "client_credentials"}
TYPE = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"
KEY = new_key("ES256", kid="one")


async def ask(world: World, *, auth: tuple[str, str] | None = None, **form: str) -> httpx2.Response:
    return await world.token({**FORM, **form}, auth=auth)


async def test_a_secret_comes_by_basic_or_in_the_form(tmp_path: Path) -> None:
    world = World(tmp_path)
    assert (await ask(world, auth=("job", SECRET))).status_code == 200
    assert (await ask(world, client_id="job", client_secret=SECRET)).status_code == 200
    assert (await ask(world, auth=("job", SECRET), client_id="job")).status_code == 200


async def test_nobody_learns_whether_it_was_the_id_or_the_secret(tmp_path: Path) -> None:
    world = World(tmp_path)
    answers = [
        await ask(world, auth=("job", "wrong")),
        await ask(world, auth=("nobody", SECRET)),
        await ask(world, auth=("", "")),
        await ask(world, auth=("app", SECRET)),
    ]
    assert {answer.status_code for answer in answers} == {401}
    assert len({answer.text for answer in answers}) == 1
    assert answers[0].json()["error"] == "invalid_client"
    assert answers[0].headers["www-authenticate"] == 'Basic realm="oauth2"'
    reasons = [event.reason for event in world.events.of("oauth.client")]
    assert reasons == ["client_secret", "client_unknown", "client_unknown", "client_secret_of_public"]
    assert not [event for event in world.events if SECRET in repr(event)]


async def test_a_wrong_secret_in_the_form_is_answered_without_a_challenge(tmp_path: Path) -> None:
    answer = await ask(World(tmp_path), client_id="job", client_secret="wrong")
    assert (answer.status_code, answer.json()["error"]) == (400, "invalid_client")
    assert "www-authenticate" not in answer.headers


@pytest.mark.parametrize(
    "form", [{"client_id": "job", "client_secret": SECRET}, {"client_id": "web"}, {"client_assertion": "a.b.c"}]
)
async def test_two_ways_at_once_are_refused(tmp_path: Path, form: dict[str, str]) -> None:
    answer = await ask(World(tmp_path), auth=("job", SECRET), **form)
    assert (answer.status_code, answer.json()["error"]) == (400, "invalid_request")


@pytest.mark.parametrize("header", ["Basic", "Basic !!!", "Bearer abc", "Digest x", ""])
async def test_a_header_that_says_nothing_is_no_proof(tmp_path: Path, header: str) -> None:
    world = World(tmp_path)
    answer = await world.http.post(
        "/oauth2/token", data={**FORM, "client_id": "job", "client_secret": SECRET}, headers={"authorization": header}
    )
    assert (answer.status_code, answer.json()["error"]) == (401, "invalid_client")


class Signers:
    """A world with one client that signs its assertions."""

    def __init__(self, folder: Path) -> None:
        folder.joinpath("keys.json").write_text(json.dumps({"keys": [KEY.public_jwk()]}))
        client = OAuthClientConfig(
            id="signer",
            auth="private_key_jwt",
            jwks_file="keys.json",
            grant_types=("client_credentials",),
            scopes=("read",),
        )
        self.world = World(folder, clients=(client,))

    def assertion(self, **changes: Any) -> str:
        now_s = int(self.world.clock.wall_s())
        claims = {
            "iss": "signer",
            "sub": "signer",
            "aud": ISSUER,
            "iat": now_s,
            "exp": now_s + 60,
            "jti": "j-1",
            **changes,
        }
        kept = {name: value for name, value in claims.items() if value is not None}
        key = changes.get("key", KEY)
        kept.pop("key", None)
        return mint(kept, key, typ="JWT", now_s=now_s) if "exp" in kept else _without_exp(kept, now_s)

    async def reason(self, assertion: str, **form: str) -> str:
        proof = {"client_assertion": assertion, "client_assertion_type": TYPE}
        answer = await self.world.token({**FORM, **proof, **form})
        if answer.status_code == 200:
            return "ok"
        assert answer.json()["error"] == "invalid_client"
        return self.world.events.of("oauth.client")[-1].reason


def _without_exp(claims: dict[str, Any], now_s: int) -> str:
    import jwt

    assert now_s
    return jwt.encode(claims, KEY.material, algorithm="ES256", headers={"kid": "one"})  # type: ignore[arg-type]


async def test_an_assertion_proves_a_client_once(tmp_path: Path) -> None:
    signers = Signers(tmp_path)
    assertion = signers.assertion()
    assert await signers.reason(assertion) == "ok"
    assert await signers.reason(assertion) == "assertion_replayed"
    assert await signers.reason(signers.assertion(jti="j-2"), client_id="signer") == "ok"
    assert await signers.reason(signers.assertion(jti="j-3", aud=f"{ISSUER}/oauth2/token")) == "ok"
    assert await signers.reason(signers.assertion(jti="j-4", aud=[ISSUER])) == "ok"


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"iss": "other"}, "assertion_subject"),
        ({"sub": "other", "iss": "other"}, "client_unknown"),
        ({"sub": 7}, "assertion_subject"),
        ({"aud": "https://other.example"}, "assertion_audience"),
        ({"aud": [ISSUER, "https://other.example"]}, "assertion_audience"),
        ({"aud": None}, "assertion_audience"),
        ({"exp": None}, "assertion_times"),
        ({"exp": 1}, "assertion_times"),
        ({"exp": 4_000_000_000}, "assertion_times"),
        ({"exp": "soon"}, "assertion_times"),
        ({"nbf": 4_000_000_000}, "assertion_times"),
        ({"iat": 4_000_000_000}, "assertion_times"),
        ({"jti": None}, "assertion_jti"),
        ({"jti": ""}, "assertion_jti"),
        ({"key": new_key("ES256", kid="one")}, "assertion_signature"),
    ],
)
async def test_an_assertion_that_is_not_whole_proves_nothing(
    tmp_path: Path, changes: dict[str, Any], reason: str
) -> None:
    signers = Signers(tmp_path)
    assert await signers.reason(signers.assertion(**changes)) == reason
    assert await signers.reason(signers.assertion()) == "ok"  # its `jti` was not used up


@pytest.mark.parametrize("assertion", ["", "x", "a.b.c", "a.e30.c", "é.e30.c", "x" * 9000])
async def test_what_is_no_assertion_proves_nothing(tmp_path: Path, assertion: str) -> None:
    assert (await Signers(tmp_path).reason(assertion)).startswith("assertion_")


async def test_an_assertion_of_an_unknown_type_is_refused(tmp_path: Path) -> None:
    signers = Signers(tmp_path)
    answer = await ask(signers.world, client_assertion=signers.assertion(), client_assertion_type="saml")
    assert answer.json()["error"] == "invalid_request"


async def test_a_client_that_signs_has_no_secret(tmp_path: Path) -> None:
    signers = Signers(tmp_path)
    answer = await ask(signers.world, client_id="signer", client_secret="")
    assert answer.json()["error"] == "invalid_client"
