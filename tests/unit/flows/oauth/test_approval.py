"""A code is given to whoever is logged in well enough and agrees; everybody else is sent where that can be had."""

from __future__ import annotations

import re
from html import unescape
from pathlib import Path
from urllib.parse import parse_qsl, urlsplit

import httpx2
import pytest

from gateway.types import Subject
from tests.unit.flows.oauth.world import CALLBACK, RESOURCE, SECRET, World, carried, query

BOB = Subject("", "usr_bob")


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)


async def visit(world: World, **changes: str | None) -> httpx2.Response:
    return await world.http.get("/oauth2/authorize", params=query(**changes))


async def come_back(world: World) -> httpx2.Response:
    """Go where the last login was to end."""
    return await world.http.get(world.browser.wishes[-1].return_to)


def page_form(answer: httpx2.Response) -> dict[str, str]:
    found = re.findall(r'<input type="hidden" name="(\w+)" value="([^"]*)"', answer.text)
    return {name: unescape(value) for name, value in found}


async def decide(world: World, answer: httpx2.Response, decision: str, **changes: str) -> httpx2.Response:
    return await world.http.post("/oauth2/consent", data={**page_form(answer), "decision": decision, **changes})


# --- login


async def test_who_is_not_logged_in_goes_there_and_comes_back(world: World) -> None:
    answer = await visit(world)
    assert (answer.status_code, answer.headers["location"]) == (303, "/login")
    (wish,) = world.browser.wishes
    assert not wish.reauthenticate
    assert wish.return_to.startswith("/oauth2/authorize?")
    world.browser.log_in()
    assert "code" in carried(await come_back(world))


async def test_a_login_that_was_asked_for_long_ago_is_asked_for_again(world: World) -> None:
    world.browser.log_in()
    world.clock.move(10)
    await visit(world, prompt="login")
    world.browser.log_in()
    assert "code" in carried(await come_back(world))
    world.clock.move(3601)
    await come_back(world)
    assert len(world.browser.wishes) == 2


@pytest.mark.parametrize("prompt", ["login", "select_account", "login consent"])
async def test_a_login_that_was_asked_for_takes_place_once(world: World, prompt: str) -> None:
    world.browser.log_in()
    world.clock.move(10)
    await visit(world, prompt=prompt)
    assert world.browser.wishes[-1].reauthenticate
    await come_back(world)  # without having logged in
    assert len(world.browser.wishes) == 2
    world.browser.log_in()
    answer = await come_back(world)
    assert len(world.browser.wishes) == 2
    assert answer.status_code == (200 if "consent" in prompt else 303)


async def test_the_mark_of_a_login_is_for_its_request_alone(world: World) -> None:
    world.browser.log_in()
    world.clock.move(10)
    await visit(world, prompt="login")
    mark = dict(parse_qsl(urlsplit(world.browser.wishes[-1].return_to).query))["asked"]
    world.browser.log_in()
    for changed in (mark, "0." + mark.partition(".")[2], "1.x", "x", ""):
        await visit(world, prompt="login", state="other", asked=changed)
    assert len(world.browser.wishes) == 6


async def test_a_login_that_is_too_old_is_made_anew(world: World) -> None:
    world.browser.log_in()
    world.clock.move(100)
    assert "code" in carried(await visit(world, max_age="100"))
    await visit(world, max_age="99")
    assert world.browser.wishes[-1].reauthenticate
    world.browser.log_in()
    assert "code" in carried(await come_back(world))
    await visit(world, max_age="0")
    world.clock.move(3)
    world.browser.log_in()
    world.clock.move(3)
    assert "code" in carried(await come_back(world))


async def test_a_login_may_have_to_be_stronger(world: World) -> None:
    world.browser.log_in(acr="1")
    await visit(world, acr_values="2 3")
    assert world.browser.wishes[-1].acr_values == ("2", "3")
    world.clock.move(5)
    world.browser.log_in(acr="1")
    assert carried(await come_back(world))["error"] == "unmet_authentication_requirements"
    world.browser.log_in(acr="3")
    assert "code" in carried(await come_back(world))


@pytest.mark.parametrize(
    ("changes", "error"),
    [
        ({}, "login_required"),
        ({"max_age": "0"}, "login_required"),
        ({"acr_values": "9"}, "unmet_authentication_requirements"),
    ],
)
async def test_without_a_prompt_nobody_is_shown_anything(world: World, changes: dict[str, str], error: str) -> None:
    if changes:
        world.browser.log_in()
        world.clock.move(5)
    answer = await visit(world, prompt="none", **changes)
    assert carried(answer)["error"] == error
    assert not world.browser.wishes


async def test_a_user_who_is_hinted_at_is_the_one_who_is_logged_in(world: World) -> None:
    hint = (await world.log_in())["id_token"]
    world.clock.move(100_000)  # it is old by now
    world.browser.log_in()
    assert "code" in carried(await visit(world, id_token_hint=hint))
    world.browser.log_in(BOB)
    assert carried(await visit(world, id_token_hint=hint, prompt="none"))["error"] == "login_required"
    await visit(world, id_token_hint=hint)
    assert world.browser.wishes[-1].reauthenticate
    world.browser.log_in(BOB)
    assert carried(await come_back(world))["error"] == "login_required"
    world.browser.log_in()
    assert "code" in carried(await come_back(world))
    access = (await world.log_in())["access_token"]
    world.browser.log_in(BOB)
    for other in (access, hint[:-4] + "AAAA", "nonsense", "a.b.c"):
        assert "code" in carried(await visit(world, id_token_hint=other))  # which hints at nobody


async def test_an_application_of_one_tenant_is_not_for_users_of_another(tmp_path: Path) -> None:
    from gateway.config import OAuthClientConfig

    client = OAuthClientConfig(id="app", auth="none", redirect_uris=(CALLBACK,), consent="implied", tenant="acme")
    world = World(tmp_path, clients=(client,))
    world.browser.log_in(Subject("other", "usr_alice"))
    await visit(world, scope="openid")
    assert world.browser.wishes[-1].tenant == "acme"
    world.clock.move(1)
    world.browser.log_in(Subject("other", "usr_alice"))
    assert carried(await come_back(world))["error"] == "access_denied"
    world.browser.log_in(Subject("acme", "usr_alice"))
    assert "code" in carried(await come_back(world))


# --- consent


async def test_a_user_is_asked_once_for_what_an_application_may_do(world: World) -> None:
    world.browser.log_in()
    web = {"client_id": "web", "scope": "openid read", "resource": RESOURCE}
    page = await visit(world, **web)
    assert page.status_code == 200
    for text in ("Web asks for access", "Know that it is you", "Use Tools for you", "app.example"):
        assert text in page.text
    assert "code" in carried(await decide(world, page, "allow"))
    assert "code" in carried(await visit(world, **web))
    assert (await visit(world, **{**web, "scope": "openid profile read"})).status_code == 200
    assert (await visit(world, prompt="consent", **web)).status_code == 200
    world.browser.log_in(BOB)
    assert (await visit(world, **web)).status_code == 200
    assert [event.actor for event in world.events.of("oauth.consent")] == ["usr_alice"]


async def test_what_was_allowed_adds_up(world: World) -> None:
    world.browser.log_in()
    for scope in ("openid", "read"):
        await decide(world, await visit(world, client_id="web", scope=scope), "allow")
    assert "code" in carried(await visit(world, client_id="web", scope="openid read"))


async def test_a_user_may_say_no(world: World) -> None:
    world.browser.log_in()
    answer = await decide(world, await visit(world, client_id="web", scope="read"), "deny")
    assert carried(answer)["error"] == "access_denied"
    assert carried(answer)["state"] == "st&ate=1"
    assert (await visit(world, client_id="web", scope="read")).status_code == 200
    assert world.events.of("oauth.authorize")[-1].reason == "consent_denied"


async def test_without_a_prompt_consent_is_required(world: World) -> None:
    world.browser.log_in()
    assert carried(await visit(world, client_id="web", scope="read", prompt="none"))["error"] == "consent_required"


async def test_nobody_agrees_for_somebody_else(world: World) -> None:
    world.browser.log_in()
    page = await visit(world, client_id="web", scope="read")
    form = page_form(page)
    more = form["request"].replace("scope=read", "scope=read+profile")
    assert more != form["request"]
    for changes in ({"csrf": ""}, {"csrf": "x" * 43}, {"request": more}, {"request": ""}):
        answer = await decide(world, page, "allow", **changes)
        assert answer.status_code == 400 and "location" not in answer.headers
    world.browser.log_in()  # the same user in another session
    assert (await decide(world, page, "allow")).status_code == 400
    world.browser.session = None
    assert (await decide(world, page, "allow")).status_code == 400
    assert not world.events.of("oauth.consent")


async def test_the_page_runs_no_script_and_is_in_no_frame(tmp_path: Path) -> None:
    from gateway.config import OAuthClientConfig

    client = OAuthClientConfig(id="app", name="<script>alert(1)</script>", auth="none", redirect_uris=(CALLBACK,))
    world = World(tmp_path, clients=(client,))
    world.browser.log_in()
    page = await visit(world, scope="openid", state='"><script>alert(2)</script>')
    assert "<script" not in page.text
    policy = page.headers["content-security-policy"]
    assert "default-src 'none'" in policy and "frame-ancestors 'none'" in policy
    assert "form-action 'self' https://app.example;" in policy
    assert page.headers["cache-control"] == "no-store"


# --- pushed requests


async def push(world: World, **changes: str | None) -> httpx2.Response:
    return await world.http.post("/oauth2/par", data=dict(query(**changes).multi_items()))


async def test_a_pushed_request_stands_for_what_was_pushed(world: World) -> None:
    answer = await push(world, scope="read")
    assert answer.status_code == 201
    assert answer.json()["expires_in"] == 600
    world.browser.log_in()
    uri = answer.json()["request_uri"]
    got = await visit(world, request_uri=uri, scope="write", redirect_uri="https://evil.example", state="other")
    assert got.headers["location"].startswith(CALLBACK)
    assert carried(got)["state"] == "st&ate=1"
    members = (await world.redeem(carried(got)["code"])).json()
    assert members["scope"] == "read"
    again = await visit(world, request_uri=uri)
    assert again.status_code == 400 and "location" not in again.headers


async def test_a_pushed_request_is_over_after_its_time_and_for_its_client_alone(world: World) -> None:
    world.browser.log_in()
    uri = (await push(world)).json()["request_uri"]
    assert (await visit(world, request_uri=uri, client_id="web")).status_code == 400
    assert (await visit(world, request_uri="urn:ietf:params:oauth:request_uri:x")).status_code == 400
    assert (await visit(world, request_uri="https://evil.example/request")).status_code == 400
    world.clock.move(600)
    assert (await visit(world, request_uri=uri)).status_code == 400
    told = [(event.outcome, event.reason) for event in world.events.of("oauth.authorize")]
    reasons = ("request_uri_client", "request_uri_over", "request_uri", "request_uri_over")
    assert told == [("refused", reason) for reason in reasons]


async def test_a_pushed_request_survives_the_login(world: World) -> None:
    uri = (await push(world, prompt="login")).json()["request_uri"]
    await visit(world, request_uri=uri)
    world.browser.log_in()
    assert "code" in carried(await come_back(world))


async def test_a_client_that_must_push_gets_nothing_otherwise(world: World) -> None:
    world.browser.log_in()
    answer = await visit(world, client_id="strict", scope="openid")
    assert carried(answer)["error"] == "invalid_request"
    uri = (await push(world, client_id="strict", scope="openid")).json()["request_uri"]
    assert "code" in carried(await visit(world, client_id="strict", request_uri=uri))


@pytest.mark.parametrize(
    ("changes", "error"),
    [
        ({"redirect_uri": "https://evil.example"}, "invalid_request"),
        ({"scope": "admin"}, "invalid_scope"),
        ({"code_challenge": None}, "invalid_request"),
        ({"request_uri": "urn:x"}, "invalid_request"),
        ({"client_id": "web"}, "invalid_client"),
        ({"client_id": "nobody"}, "invalid_client"),
    ],
)
async def test_a_pushed_request_is_judged_at_once(world: World, changes: dict[str, str | None], error: str) -> None:
    answer = await push(world, **changes)
    assert (answer.status_code, answer.json()["error"]) == (400, error)


async def test_a_confidential_client_pushes_with_its_secret(world: World) -> None:
    form = dict(query(client_id="web", scope="read").multi_items())
    answer = await world.http.post("/oauth2/par", data=form, auth=("web", SECRET))
    assert answer.status_code == 201
    form["client_id"] = "app"
    answer = await world.http.post("/oauth2/par", data=form, auth=("web", SECRET))
    assert answer.json()["error"] == "invalid_request"
