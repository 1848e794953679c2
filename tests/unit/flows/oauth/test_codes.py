"""A code is given to who may have it, and gives tokens once."""

from __future__ import annotations

from pathlib import Path

import pytest

from gateway.config import OAuthClientConfig
from gateway.flows.oauth.families import family_id_of
from gateway.tokens.signing import new_key
from tests.unit.flows.oauth.world import (
    CALLBACK,
    ISSUER,
    RESOURCE,
    SECRET,
    VERIFIER,
    World,
    claims_of,
    jkt_of,
    query,
)


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)


async def test_a_code_gives_the_tokens_that_were_asked_for(world: World) -> None:
    members = await world.log_in()
    assert members["token_type"] == "Bearer"
    assert members["expires_in"] == 300
    assert members["scope"] == "openid profile read"
    access, identity = claims_of(members["access_token"]), claims_of(members["id_token"])
    now_s = int(world.clock.wall_s())
    assert access == {
        "iss": ISSUER,
        "sub": "usr_alice",
        "aud": ISSUER,
        "client_id": "app",
        "scope": "openid profile read",
        "iat": now_s,
        "exp": now_s + 300,
        "jti": access["jti"],
        "sid": access["sid"],
        "auth_time": now_s,
        "amr": ["pwd"],
    }
    assert (identity["aud"], identity["nonce"], identity["name"]) == ("app", "n-1", "Alice")
    assert identity["sid"] != access["sid"]


async def test_the_answer_carries_state_and_issuer(world: World) -> None:
    world.browser.log_in()
    answer = await world.authorize()
    assert (answer["state"], answer["iss"]) == ("st&ate=1", ISSUER)
    assert "state" not in await world.authorize(state=None)


async def test_a_redirect_uri_keeps_its_query(tmp_path: Path) -> None:
    uri = "https://app.example/cb?a=1"
    client = OAuthClientConfig(id="app", auth="none", redirect_uris=(uri,), consent="implied")
    world = World(tmp_path, clients=(client,))
    world.browser.log_in()
    answer = await world.authorize(redirect_uri=uri, scope="openid")
    assert answer["a"] == "1" and answer["code"]


async def test_a_code_that_comes_again_ends_what_it_gave(world: World) -> None:
    code = await world.code()
    members = (await world.redeem(code)).json()
    assert (await world.introspect(members["access_token"]))["active"]
    again = await world.redeem(code)
    assert (again.status_code, again.json()["error"]) == (400, "invalid_grant")
    assert not (await world.introspect(members["access_token"]))["active"]
    assert (await world.refresh(members["refresh_token"])).json()["error"] == "invalid_grant"
    assert world.revoked == [("sid", ISSUER, family_id_of(code), int(world.clock.wall_s()) + 360)]
    (event,) = world.events.of("oauth.code.replayed")
    assert (event.outcome, event.reason, event.actor) == ("refused", "code_replayed", "app")


async def test_a_code_is_over_after_its_time(world: World) -> None:
    code = await world.code()
    world.clock.move(60)
    assert (await world.redeem(code)).json()["error"] == "invalid_grant"
    assert world.events.of("oauth.token")[-1].reason == "code_unknown"


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"code_verifier": "w" * 50}, "code_verifier"),
        ({"code_verifier": ""}, "code_verifier"),
        ({"code_verifier": "v" * 42}, "code_verifier"),
        ({"redirect_uri": CALLBACK + "/"}, "code_redirect"),
        ({"redirect_uri": ""}, "code_redirect"),
        ({"client_id": "strict2"}, "code_client"),
    ],
)
async def test_who_gets_it_wrong_has_used_the_code_up(world: World, changes: dict[str, str], reason: str) -> None:
    code = await world.code()
    if "client_id" in changes:
        form = {
            "grant_type": "authorization_code",
            "code": code,
            "redirect_uri": CALLBACK,
            "code_verifier": VERIFIER,
        }
        answer = await world.token(form, auth=("web", SECRET))
    else:
        answer = await world.redeem(code, more=changes)
    assert (answer.status_code, answer.json()["error"]) == (400, "invalid_grant")
    assert world.events.of("oauth.token")[-1].reason == reason
    assert (await world.redeem(code)).json()["error"] == "invalid_grant"


async def test_a_code_gives_nothing_when_its_session_or_user_is_gone(world: World) -> None:
    code = await world.code()
    world.browser.session = None
    assert (await world.redeem(code)).json()["error"] == "invalid_grant"
    assert world.events.of("oauth.token")[-1].reason == "session_over"
    code = await world.code()
    world.people.gone.add("usr_alice")
    assert (await world.redeem(code)).json()["error"] == "invalid_grant"
    assert world.events.of("oauth.token")[-1].reason == "user_inactive"


@pytest.mark.parametrize(
    ("changes", "error"),
    [
        ({"response_type": "token"}, "unsupported_response_type"),
        ({"response_type": None}, "invalid_request"),
        ({"code_challenge": None}, "invalid_request"),
        ({"code_challenge_method": "plain"}, "invalid_request"),
        ({"code_challenge_method": None}, "invalid_request"),
        ({"code_challenge": "short"}, "invalid_request"),
        ({"scope": "admin"}, "invalid_scope"),
        ({"scope": 'a"b'}, "invalid_scope"),
        ({"resource": "https://unknown.example"}, "invalid_target"),
        ({"resource": [RESOURCE, "https://unknown.example"]}, "invalid_target"),
        ({"request": "eyJ.e.f"}, "request_not_supported"),
        ({"response_mode": "fragment"}, "invalid_request"),
        ({"prompt": "none login"}, "invalid_request"),
        ({"max_age": "-1"}, "invalid_request"),
        ({"dpop_jkt": "x"}, "invalid_request"),
        ({"nonce": ["a", "b"]}, "invalid_request"),
        ({"state": ["a", "b"]}, "invalid_request"),
    ],
)
async def test_a_client_is_told_what_is_wrong_with_its_request(
    world: World, changes: dict[str, str | None], error: str
) -> None:
    world.browser.log_in()
    answer = await world.authorize(**changes)
    assert (answer["error"], answer["iss"]) == (error, ISSUER)
    assert answer.get("state") == (None if isinstance(changes.get("state"), list) else "st&ate=1")
    assert "code" not in answer


@pytest.mark.parametrize(
    "changes",
    [
        {"client_id": "nobody"},
        {"client_id": None},
        {"client_id": ["app", "app"]},
        {"redirect_uri": "https://evil.example/callback"},
        {"redirect_uri": CALLBACK + "?x=1"},
        {"redirect_uri": CALLBACK.replace("https", "http")},
        {"redirect_uri": [CALLBACK, CALLBACK]},
        {"redirect_uri": None},
        {"redirect_uri": "http://127.0.0.1.evil.example:80/back"},
        {"redirect_uri": "http://127.0.0.1:80@evil.example/back"},
        {"redirect_uri": "http://127.0.0.1:8000/other"},
        {"redirect_uri": "http://localhost:8000/back"},
        {"state": "x" * 5000},
    ],
)
async def test_nobody_is_sent_to_an_address_that_is_not_the_clients(
    world: World, changes: dict[str, str | None]
) -> None:
    world.browser.log_in()
    answer = await world.http.get("/oauth2/authorize", params=query(**changes))
    assert answer.status_code == 400
    assert "location" not in answer.headers
    assert "This cannot go on" in answer.text


async def test_on_the_users_own_machine_any_port_will_do(world: World) -> None:
    world.browser.log_in()
    uri = "http://127.0.0.1:50123/back"
    got = await world.authorize(redirect_uri=uri)
    assert (await world.redeem(got["code"], redirect_uri=uri)).status_code == 200


async def test_tokens_are_for_the_resources_that_were_asked_for(world: World) -> None:
    members = await world.log_in(resource=[RESOURCE, "https://other.example/"])
    assert claims_of(members["access_token"])["aud"] == [RESOURCE, "https://other.example"]
    narrowed = await world.refresh(members["refresh_token"], resource=RESOURCE)
    assert claims_of(narrowed.json()["access_token"])["aud"] == RESOURCE
    more = await world.refresh(narrowed.json()["refresh_token"], resource=ISSUER)
    assert more.json()["error"] == "invalid_target"


async def test_a_code_may_be_bound_to_a_key(world: World) -> None:
    key, other = new_key("ES256"), new_key("ES256")
    answer = await world.redeem(await world.code(dpop_jkt=jkt_of(key)), key=key)
    assert answer.json()["token_type"] == "DPoP"
    assert claims_of(answer.json()["access_token"])["cnf"] == {"jkt": jkt_of(key)}
    for stranger in (other, None):
        refused = await world.redeem(await world.code(dpop_jkt=jkt_of(key)), key=stranger)
        assert refused.json()["error"] == "invalid_grant"


async def test_a_weaker_session_gets_no_refresh_token_and_tokens_say_so(world: World) -> None:
    world.browser.log_in(requires_reauth=True)
    members = await world.log_in()
    assert "refresh_token" not in members
    assert claims_of(members["access_token"])["requires_reauth"] is True


async def test_tokens_made_while_degraded_say_so(world: World) -> None:
    assert "degradation_level" not in claims_of((await world.log_in())["access_token"])
    world.level = 2
    assert claims_of((await world.log_in())["access_token"])["degradation_level"] == 2


async def test_a_client_that_is_itself_the_subject_has_no_user(world: World) -> None:
    form = {"grant_type": "client_credentials", "scope": "read", "resource": RESOURCE}
    answer = await world.token(form, auth=("job", SECRET))
    assert set(answer.json()) == {"access_token", "token_type", "expires_in", "scope"}
    claims = claims_of(answer.json()["access_token"])
    assert (claims["sub"], claims["client_id"], claims["aud"]) == ("job", "job", RESOURCE)
    assert "sid" not in claims and "auth_time" not in claims


@pytest.mark.parametrize(
    ("form", "error"),
    [
        ({}, "invalid_request"),
        ({"grant_type": "password", "username": "u", "password": "p"}, "unsupported_grant_type"),
        ({"grant_type": "client_credentials"}, "unauthorized_client"),
        ({"grant_type": "authorization_code"}, "invalid_request"),
        ({"grant_type": "refresh_token"}, "invalid_request"),
        ({"grant_type": "refresh_token", "refresh_token": "x"}, "invalid_grant"),
        ({"grant_type": "authorization_code", "code": "x", "code_verifier": VERIFIER}, "invalid_grant"),
    ],
)
async def test_the_token_endpoint_refuses_by_the_codes_of_rfc_6749_section_5_2(
    world: World, form: dict[str, str], error: str
) -> None:
    answer = await world.token({"client_id": "app", **form})
    assert (answer.status_code, answer.json()["error"]) == (400, error)
    assert answer.headers["cache-control"] == "no-store"
    assert not set(answer.json()["error_description"]) & set('"\\')


async def test_a_field_that_stands_there_twice_is_refused(world: World) -> None:
    answer = await world.token({"client_id": "app", "grant_type": ["refresh_token", "refresh_token"]})
    assert answer.json()["error"] == "invalid_request"


async def test_tokens_of_a_provisional_session_say_so_and_cannot_be_refreshed(world: World) -> None:
    world.browser.log_in(provisional=True)
    members = await world.log_in()
    assert "refresh_token" not in members
    said = claims_of(members["access_token"])
    assert (said["provisional"], said["requires_reauth"]) == (True, True)
