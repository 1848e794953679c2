"""The endpoints of log-in at identity providers: where browsers are sent, and what is refused."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest

from gateway.front.endpoints import reserved_paths
from tests.unit.front.login.ways_world import COOKIE, ORIGIN, WaysWorld, ways_world


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[WaysWorld]:
    async with ways_world(tmp_path) as made:
        yield made


async def test_a_browser_goes_there_and_back_and_where_it_wanted(world: WaysWorld) -> None:
    back = await world.there("/login/sso/corp?rd=" + quote("https://app.example/x"))
    assert back.startswith(f"{ORIGIN}/login/sso/corp/callback?")
    done = await world.http.get(back)
    assert (done.status_code, done.headers["location"]) == (303, "https://app.example/x")
    session = await world.sessions.find(world.http.cookies[COOKIE])
    assert session is not None
    assert (session.subject.id, session.amr, session.acr) == (world.user.id, ("fed",), "1fa")
    assert [event.action for event in world.events if event.action.startswith(("sso", "login"))] == [
        "sso.verify",
        "login.federated",
    ]


@pytest.mark.parametrize(
    "target", ["https://evil.example/", "//evil.example", "/\\evil.example", "javascript:alert(1)"]
)
async def test_a_target_elsewhere_is_not_gone_to(world: WaysWorld, target: str) -> None:
    done = await world.http.get(await world.there("/login/sso/corp?rd=" + quote(target)))
    assert done.headers["location"] == "/account"


async def test_the_button_carries_where_the_browser_wanted_to_go(world: WaysWorld) -> None:
    page = await world.http.get("/login?rd=/app%3Fa%3D1%26b&acr_values=2fa")
    assert 'href="/login/sso/corp?rd=%2Fapp%3Fa%3D1%26b&amp;acr_values=2fa"' in page.text
    assert "Continue with Corp" in page.text


async def test_the_same_answer_logs_in_nobody_a_second_time(world: WaysWorld) -> None:
    back = await world.there()
    assert (await world.http.get(back)).status_code == 303
    again = await world.http.get(back)
    assert (again.status_code, "could not be completed" in again.text) == (403, True)


async def test_another_browsers_answer_logs_in_nobody(world: WaysWorld) -> None:
    back = await world.there()
    world.http.cookies.clear()  # somebody was sent this link
    refused = await world.http.get(back)
    assert refused.status_code == 403
    assert COOKIE not in world.http.cookies
    assert world.events[-1].reason == "state_of_another_browser"


@pytest.mark.parametrize(
    "query",
    ["", "?state=x", "?code=x", "?state=x&state=y&code=z", "?" + "&".join(f"a{n}=1" for n in range(60)), "?%FF=%FF"],
)
async def test_an_odd_answer_is_refused_by_a_page(world: WaysWorld, query: str) -> None:
    page = await world.http.get(f"/login/sso/corp/callback{query}")
    assert (page.status_code, "Log in" in page.text) == (403, True)


async def test_what_a_provider_says_of_an_error_is_not_shown(world: WaysWorld) -> None:
    world.idp.forge_answer = {"error": "access_denied", "error_description": "<b>call this number</b>"}
    page = await world.http.get(await world.there())
    assert page.status_code == 403
    assert "call this number" not in page.text


async def test_while_it_is_away_the_password_is_offered_at_once(world: WaysWorld) -> None:
    await world.there()
    world.idp.mode = "reset"
    for _ in range(12):
        page = await world.http.get("/login/sso/corp?rd=/app")
        assert page.status_code == 503
    began_s = time.perf_counter()
    page = await world.http.get("/login/sso/corp?rd=/app")
    assert time.perf_counter() - began_s < 0.05
    assert (page.status_code, int(page.headers["retry-after"]) > 0) == (503, True)
    assert "Use your password, or try again in" in page.text
    assert 'name="password"' in page.text
    assert 'name="rd" value="/app"' in page.text


async def test_an_account_is_connected_by_a_form_of_ours_alone(world: WaysWorld) -> None:
    await world.begin_session()
    csrf = await world.csrf("/account/sso")
    assert (await world.http.post("/account/sso/unlink", data={"csrf": csrf, "id": "corp"})).status_code == 303
    assert "not connected" in (await world.http.get("/account/sso")).text
    forged = await world.http.post("/account/sso/corp", data={"csrf": "made-up"})
    assert (forged.status_code, forged.headers["location"].startswith("/login?")) == (303, True)
    page = await world.http.post("/account/sso/corp", data={"csrf": csrf})
    assert page.status_code == 200
    address = page.text.partition("url=")[2].partition('"')[0].replace("&amp;", "&")
    done = await world.http.get(world.idp.authorize(address))
    assert done.headers["location"] == "/account/sso"
    assert [event.action for event in world.events[-2:]] == ["identity.link", "sso.verify"]


async def test_an_account_is_not_connected_to_whoever_is_logged_in_meanwhile(world: WaysWorld) -> None:
    await world.begin_session()
    csrf = await world.csrf("/account/sso")
    page = await world.http.post("/account/sso/corp", data={"csrf": csrf})
    address = page.text.partition("url=")[2].partition('"')[0].replace("&amp;", "&")
    back = world.idp.authorize(address)
    world.http.cookies.delete(COOKIE)
    assert (await world.http.get(back)).status_code == 403
    assert world.events[-1].reason == "session_other"


async def test_who_logs_out_here_is_sent_there(world: WaysWorld) -> None:
    await world.http.get(await world.there())
    value = world.http.cookies[COOKIE]
    csrf = await world.csrf("/logout")
    page = await world.http.post("/logout", data={"csrf": csrf})
    assert f"url={world.idp.issuer}/end?client_id=portcullis" in page.text
    assert await world.sessions.find(value) is None


async def test_a_logout_there_ends_the_session_here(world: WaysWorld) -> None:
    await world.http.get(await world.there())
    value = world.http.cookies[COOKIE]
    token = world.idp.logout_token()
    done = await world.http.post("/login/sso/corp/backchannel", data={"logout_token": token})
    assert (done.status_code, done.headers["cache-control"]) == (200, "no-store")
    assert await world.sessions.find(value) is None
    assert [event.reason for event in world.events if event.action == "session.end"] == ["back_channel_logout"]


@pytest.mark.parametrize(
    "sent", [{"data": {"logout_token": "x.y.z"}}, {"data": {}}, {"json": {}}, {"data": {"a": "b" * 40_000}}]
)
async def test_an_odd_logout_token_is_refused_in_the_words_of_the_standard(
    world: WaysWorld, sent: dict[str, Any]
) -> None:
    refused = await world.http.post("/login/sso/corp/backchannel", **sent)
    assert (refused.status_code, refused.json()["error"]) == (400, "invalid_request")


async def test_however_many_providers_there_are_they_take_one_path_of_the_proxied_site(world: WaysWorld) -> None:
    paths = reserved_paths(introspection=True, more=[*world.login.routes(), *world.ways.routes()])
    assert paths.count(b"/login/sso/") == 1
    assert not [path for path in paths if path.startswith(b"/login/sso/") and path != b"/login/sso/"]
    assert {b"/login", b"/login/passkey", b"/login/passkey/", b"/account/sso", b"/account/sso/"} <= set(paths)
    assert b"/login/" not in paths
