"""What is told of tokens that are out, and how they end."""

from __future__ import annotations

from pathlib import Path

import httpx2
import pytest

from gateway.types import Subject
from tests.unit.flows.oauth.world import ISSUER, SECRET, USER, World, claims_of


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)


async def revoke(world: World, token: str, *, auth: tuple[str, str] | None = None, **form: str) -> httpx2.Response:
    basic = httpx2.USE_CLIENT_DEFAULT if auth is None else httpx2.BasicAuth(*auth)
    data = {"token": token, **({} if auth else {"client_id": "app"}), **form}
    return await world.http.post("/oauth2/revoke", data=data, auth=basic)


async def test_an_access_token_that_is_revoked_is_over_and_its_family_goes_on(world: World) -> None:
    members = await world.log_in()
    assert (await revoke(world, members["access_token"])).status_code == 200
    assert await world.introspect(members["access_token"]) == {"active": False}
    assert (await world.refresh(members["refresh_token"])).status_code == 200
    ((kind, issuer, value, until_s),) = world.revoked
    claims = claims_of(members["access_token"])
    assert (kind, issuer, value, until_s) == ("jti", ISSUER, claims["jti"], claims["exp"] + 60)


async def test_a_refresh_token_that_is_revoked_ends_everything_beside_it(world: World) -> None:
    members = await world.log_in()
    newer = (await world.refresh(members["refresh_token"])).json()
    assert (await revoke(world, newer["refresh_token"], token_type_hint="access_token")).status_code == 200
    for token in (members["access_token"], newer["access_token"], newer["refresh_token"]):
        assert await world.introspect(token) == {"active": False}
    assert (await world.refresh(newer["refresh_token"])).json()["error"] == "invalid_grant"


async def test_a_former_refresh_token_ends_its_family_too(world: World) -> None:
    members = await world.log_in()
    newer = (await world.refresh(members["refresh_token"])).json()
    await revoke(world, members["refresh_token"])
    assert await world.introspect(newer["access_token"]) == {"active": False}


@pytest.mark.parametrize("token", ["x", "pcr_x", "pcr_" + "A" * 22 + ".1." + "A" * 43, "a.b.c", "é"])
async def test_what_is_nobodys_token_is_revoked_already(world: World, token: str) -> None:
    answer = await revoke(world, token)
    assert answer.status_code == 200
    assert not world.revoked


async def test_a_made_up_token_of_a_real_family_ends_nothing(world: World) -> None:
    members = await world.log_in()
    head, _, mac = members["refresh_token"].rpartition(".")
    forged = f"{head}.{'A' if mac[0] != 'A' else 'B'}{mac[1:]}"
    await revoke(world, forged)
    assert (await world.refresh(forged)).json()["error"] == "invalid_grant"
    later = f"{head.rpartition('.')[0]}.7.{mac}"
    assert (await world.refresh(later)).json()["error"] == "invalid_grant"
    assert (await world.refresh(members["refresh_token"])).status_code == 200


async def test_nobody_ends_the_tokens_of_another_client(world: World) -> None:
    members = await world.log_in()
    for token in (members["access_token"], members["refresh_token"]):
        answer = await revoke(world, token, auth=("web", SECRET))
        assert (answer.status_code, answer.json()["error"]) == (400, "unauthorized_client")
    assert (await world.introspect(members["access_token"]))["active"]
    assert [event.reason for event in world.events.of("oauth.revoke")] == ["token_client"] * 2


async def test_who_does_not_prove_itself_ends_nothing(world: World) -> None:
    members = await world.log_in()
    assert (await revoke(world, members["access_token"], auth=("web", "x"))).status_code == 401
    assert (await revoke(world, "")).json()["error"] == "invalid_request"


async def test_a_client_learns_of_its_own_tokens_alone(world: World) -> None:
    members = await world.log_in()
    form = {"grant_type": "client_credentials", "scope": "read"}
    own = (await world.token(form, auth=("job", SECRET))).json()["access_token"]

    async def seen(token: str, auth: tuple[str, str]) -> httpx2.Response:
        return await world.http.post("/oauth2/introspect", data={"token": token}, auth=httpx2.BasicAuth(*auth))

    assert (await seen(own, ("job", SECRET))).json()["active"]
    assert (await seen(members["access_token"], ("job", SECRET))).json() == {"active": False}
    assert (await seen(own, ("job", "wrong"))).status_code == 401
    public = await world.http.post("/oauth2/introspect", data={"token": own, "client_id": "app"})
    assert public.json()["error"] == "invalid_client"


async def test_a_refresh_token_is_told_from_an_access_token(world: World) -> None:
    members = await world.log_in()
    seen = await world.introspect(members["refresh_token"])
    assert (seen["active"], seen["token_type"], seen["sub"]) == (True, "refresh_token", "usr_alice")
    await world.refresh(members["refresh_token"])
    assert await world.introspect(members["refresh_token"]) == {"active": False}


async def test_while_it_is_not_known_what_is_revoked_nothing_is_said(world: World) -> None:
    members = await world.log_in()
    world.service.own.is_trusted = lambda: False
    answers = [
        await world.http.post(
            "/oauth2/introspect", data={"token": members["access_token"]}, auth=httpx2.BasicAuth("rs", "rs-secret")
        ),
        await revoke(world, members["access_token"]),
        await world.http.get("/oauth2/userinfo", headers={"authorization": f"Bearer {members['access_token']}"}),
    ]
    assert [answer.status_code for answer in answers] == [503] * 3


async def test_an_id_token_is_no_access_token(world: World) -> None:
    members = await world.log_in()
    assert await world.introspect(members["id_token"]) == {"active": False}
    answer = await world.http.get("/oauth2/userinfo", headers={"authorization": f"Bearer {members['id_token']}"})
    assert answer.status_code == 401


# --- userinfo


async def test_userinfo_tells_what_the_scopes_open(world: World) -> None:
    members = await world.log_in()
    headers = {"authorization": f"Bearer {members['access_token']}"}
    assert (await world.http.get("/oauth2/userinfo", headers=headers)).json() == {"sub": "usr_alice", "name": "Alice"}
    world.people.gone.add("usr_alice")
    assert (await world.http.get("/oauth2/userinfo", headers=headers)).status_code == 401


async def test_userinfo_challenges_who_has_no_token_that_does(world: World) -> None:
    bare = await world.http.get("/oauth2/userinfo")
    assert bare.status_code == 401
    assert bare.headers.get_list("www-authenticate")[0] == 'Bearer realm="oauth2"'
    assert bare.headers.get_list("www-authenticate")[1].startswith('DPoP algs="ES256 ')
    wrong = await world.http.get("/oauth2/userinfo", headers={"authorization": "Bearer x"})
    assert 'error="invalid_token"' in wrong.headers["www-authenticate"]
    members = await world.log_in(scope="read")
    answer = await world.http.get("/oauth2/userinfo", headers={"authorization": f"Bearer {members['access_token']}"})
    assert answer.status_code == 403
    assert 'error="insufficient_scope"' in answer.headers["www-authenticate"]


# --- how families end


async def test_a_family_ends_with_its_session_but_an_offline_one_goes_on(world: World) -> None:
    bound, offline = await world.log_in(), await world.log_in(scope="openid offline_access")
    session = world.browser.session
    assert session is not None
    code = await world.code()
    assert await world.service.ended_session(session) == 1
    assert await world.introspect(bound["access_token"]) == {"active": False}
    assert (await world.introspect(offline["access_token"]))["active"]
    world.browser.session = None
    assert (await world.redeem(code)).json()["error"] == "invalid_grant"
    assert (await world.refresh(bound["refresh_token"])).json()["error"] == "invalid_grant"
    assert (await world.refresh(offline["refresh_token"])).status_code == 200


async def test_a_family_whose_session_ended_unseen_ends_at_its_next_refresh(world: World) -> None:
    members = await world.log_in()
    world.browser.session = None
    assert (await world.refresh(members["refresh_token"])).json()["error"] == "invalid_grant"
    assert await world.introspect(members["access_token"]) == {"active": False}
    assert world.events.of("oauth.family.ended")[-1].reason == "session_over"


async def test_a_user_who_is_gone_gets_no_token_any_more(world: World) -> None:
    members = await world.log_in(scope="openid offline_access")
    world.people.gone.add("usr_alice")
    assert (await world.refresh(members["refresh_token"])).json()["error"] == "invalid_grant"
    assert await world.introspect(members["access_token"]) == {"active": False}
    world.people.gone.clear()
    assert (await world.refresh(members["refresh_token"])).json()["error"] == "invalid_grant"


async def test_everything_of_a_user_ends_at_once_and_of_nobody_else(world: World) -> None:
    members = [await world.log_in(), await world.log_in(scope="offline_access read")]
    world.browser.log_in(Subject("", "usr_bob"))
    other = await world.log_in()
    assert await world.service.ended_subject(USER) == 2
    assert [(await world.introspect(each["access_token"]))["active"] for each in (*members, other)] == [
        False,
        False,
        True,
    ]


async def test_a_stolen_refresh_token_ends_its_session_and_all_that_was_granted_in_it(world: World) -> None:
    stolen, beside = await world.log_in(), await world.log_in(scope="read")
    await world.refresh(stolen["refresh_token"])
    world.clock.move(10)
    assert (await world.refresh(stolen["refresh_token"])).json()["error"] == "invalid_grant"
    assert world.browser.session is None and len(world.browser.ended) == 1
    for token in (stolen["access_token"], beside["access_token"]):
        assert await world.introspect(token) == {"active": False}
    (event,) = world.events.of("oauth.refresh.reused")
    assert (event.outcome, event.reason, event.target) == ("refused", "refresh_reused", "usr_alice")


async def test_a_refresh_token_in_the_hands_of_another_client_ends_its_family(world: World) -> None:
    members = await world.log_in()
    form = {"grant_type": "refresh_token", "refresh_token": members["refresh_token"]}
    assert (await world.token(form, auth=("web", SECRET))).json()["error"] == "invalid_grant"
    assert world.events.of("oauth.refresh.reused")[-1].reason == "refresh_client"
    assert (await world.refresh(members["refresh_token"])).json()["error"] == "invalid_grant"


async def test_a_refresh_token_that_is_not_used_ends(world: World) -> None:
    members = await world.log_in(scope="offline_access read")
    world.clock.move(1_209_600)
    assert (await world.refresh(members["refresh_token"])).json()["error"] == "invalid_grant"


async def test_a_refresh_token_that_is_used_ends_too(tmp_path: Path) -> None:
    world = World(tmp_path, refresh_idle_s=100, refresh_max_s=250)
    token = (await world.log_in(scope="offline_access read"))["refresh_token"]
    for _ in range(2):
        world.clock.move(99)
        token = (await world.refresh(token)).json()["refresh_token"]
    world.clock.move(52)
    assert (await world.refresh(token)).json()["error"] == "invalid_grant"


async def test_scopes_can_be_narrowed_and_come_back_with_the_next(world: World) -> None:
    members = await world.log_in(scope="openid profile read")
    narrow = (await world.refresh(members["refresh_token"], scope="read")).json()
    assert narrow["scope"] == "read" and "id_token" not in narrow
    whole = (await world.refresh(narrow["refresh_token"])).json()
    assert whole["scope"] == "openid profile read"
    assert (await world.refresh(whole["refresh_token"], scope="write")).json()["error"] == "invalid_scope"
    assert (await world.refresh(whole["refresh_token"])).status_code == 200  # nothing was used up by that


async def test_an_id_token_of_a_refresh_is_of_the_same_login(world: World) -> None:
    members = await world.log_in()
    world.clock.move(50)
    again = claims_of((await world.refresh(members["refresh_token"])).json()["id_token"])
    first = claims_of(members["id_token"])
    assert {name: again[name] for name in ("iss", "sub", "aud", "auth_time", "sid")} == {
        name: first[name] for name in ("iss", "sub", "aud", "auth_time", "sid")
    }
    assert "nonce" not in again
