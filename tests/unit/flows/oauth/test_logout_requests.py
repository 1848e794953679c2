"""Log-out that an application asks for (OpenID Connect RP-Initiated Logout 1.0): by an id token, or by asking."""

from __future__ import annotations

import re
from html import unescape
from pathlib import Path
from urllib.parse import parse_qsl, urlsplit

import httpx2
import pytest

from gateway.flows.oauth.authorization import PARAMETERS_MAX
from gateway.flows.oauth.errors import RequestUnsafe
from gateway.flows.oauth.logout_requests import SHOWN_S
from gateway.flows.sessions import origin_of
from gateway.flows.trail import NOBODY
from gateway.types import Subject
from tests.unit.flows.oauth.world import CALLBACK, COOKIE, GOODBYE, VERIFIER, World

LOGOUT = "/oauth2/logout"


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)


async def tokens(world: World) -> dict[str, str]:
    form = {
        "grant_type": "authorization_code",
        "code": await world.code(scope="openid"),
        "redirect_uri": CALLBACK,
        "code_verifier": VERIFIER,
        "client_id": "app",
    }
    found: dict[str, str] = (await world.token(form)).json()
    return found


async def id_token(world: World) -> str:
    return (await tokens(world))["id_token"]


def is_out(answer: httpx2.Response) -> bool:
    cookie = answer.headers.get("set-cookie", "")
    return cookie.startswith(f'{COOKIE}="";') and "Max-Age=0" in cookie


def form_of(page: httpx2.Response) -> dict[str, str]:
    return {name: unescape(value) for name, value in re.findall(r'name="(\w+)" value="([^"]*)"', page.text)}


async def test_who_shows_an_id_token_of_the_session_ends_it(world: World) -> None:
    token = await id_token(world)
    session = world.browser.session
    assert session is not None
    wanted = {"id_token_hint": token, "post_logout_redirect_uri": GOODBYE, "state": "a b&c"}
    answer = await world.http.get(LOGOUT, params=wanted)
    assert (answer.status_code, answer.headers["location"]) == (303, f"{GOODBYE}?state=a+b%26c")
    assert world.browser.ended == [origin_of(session)]
    assert is_out(answer)
    assert answer.headers["cache-control"] == "no-store"
    # Once more nobody is logged in, and the application hears the same.
    again = await world.http.get(LOGOUT, params=wanted)
    assert (again.status_code, again.headers["location"]) == (303, f"{GOODBYE}?state=a+b%26c")


async def test_an_id_token_holds_also_when_it_is_old_and_its_session_has_another_id(world: World) -> None:
    token = await id_token(world)
    world.clock.move(3 * 3600)
    answer = await world.http.get(LOGOUT, params={"id_token_hint": token})
    assert answer.status_code == 200
    assert "You are logged out." in answer.text
    assert is_out(answer)
    assert len(world.browser.ended) == 1


@pytest.mark.parametrize("who", [Subject("", "usr_alice"), Subject("", "usr_bob")])
async def test_an_id_token_of_another_session_only_asks(world: World, who: Subject) -> None:
    token = await id_token(world)
    world.browser.log_in(who)
    page = await world.http.get(LOGOUT, params={"id_token_hint": token, "post_logout_redirect_uri": GOODBYE})
    assert page.status_code == 200
    assert "The App asks to log you out" in page.text
    assert world.browser.ended == []
    assert not is_out(page)
    assert token not in page.text
    assert "form-action 'self' https://app.example;" in page.headers["content-security-policy"]
    done = await world.http.post("/oauth2/logout/confirm", data=form_of(page))
    assert (done.status_code, done.headers["location"]) == (303, GOODBYE)
    assert is_out(done)
    assert len(world.browser.ended) == 1


@pytest.mark.parametrize("hint", ["", "abc", "a.b.c", "e30.e30."])
async def test_a_link_alone_logs_nobody_out(world: World, hint: str) -> None:
    session = world.browser.log_in()
    page = await world.http.get(LOGOUT, params={"client_id": "app", "id_token_hint": hint, "state": "x"})
    assert page.status_code == 200
    assert world.browser.ended == []
    form = form_of(page)
    assert form["request"] == "client_id=app&state=x"
    for changed in ({**form, "csrf": "x"}, {**form, "request": "client_id=web"}, {"request": form["request"]}):
        refused = await world.http.post("/oauth2/logout/confirm", data=changed)
        assert refused.status_code == 400
        assert not is_out(refused)
    assert world.browser.ended == []
    other = world.browser.log_in()  # whoever has another session was shown another form
    assert (await world.http.post("/oauth2/logout/confirm", data=form)).status_code == 400
    world.browser.session = session
    assert (await world.http.post("/oauth2/logout/confirm", data=form)).status_code == 200
    assert world.browser.ended == [origin_of(session)] != [origin_of(other)]


async def test_nobody_who_is_not_named_is_named_on_the_page(world: World) -> None:
    world.browser.log_in()
    page = await world.http.get(LOGOUT)
    assert "Do you want to log out?" in page.text
    assert (await world.http.post("/oauth2/logout/confirm", data=form_of(page))).status_code == 200


async def test_an_access_token_is_no_id_token(world: World) -> None:
    page = await world.http.get(LOGOUT, params={"id_token_hint": (await tokens(world))["access_token"]})
    assert page.status_code == 200
    assert world.browser.ended == []


@pytest.mark.parametrize(
    "wanted",
    [
        {"client_id": "nobody"},
        {"post_logout_redirect_uri": GOODBYE},  # whose?
        {"client_id": "app", "post_logout_redirect_uri": "https://evil.example/"},
        {"client_id": "app", "post_logout_redirect_uri": f"{GOODBYE}/"},
        {"client_id": "app", "post_logout_redirect_uri": CALLBACK},  # for codes, not for this
        {"client_id": "web", "post_logout_redirect_uri": GOODBYE},  # another's
        {"client_id": ["app", "app"]},
    ],
)
@pytest.mark.parametrize("method", ["GET", "POST"])
async def test_what_leads_elsewhere_ends_nothing(world: World, method: str, wanted: dict[str, str]) -> None:
    world.browser.log_in()
    if method == "GET":
        page = await world.http.get(LOGOUT, params=wanted)
    else:
        page = await world.http.post(LOGOUT, data=wanted)
    assert page.status_code == 400
    assert "This cannot go on" in page.text
    assert "location" not in page.headers
    assert world.browser.ended == []
    assert [event.outcome for event in world.events.of("oauth.logout")] == ["refused"]


async def test_an_id_token_of_another_application_is_refused(world: World) -> None:
    token = await id_token(world)
    page = await world.http.get(LOGOUT, params={"id_token_hint": token, "client_id": "web"})
    assert page.status_code == 400
    assert world.browser.ended == []


async def test_the_query_of_an_address_is_kept(world: World) -> None:
    wanted = {"client_id": "app", "post_logout_redirect_uri": "https://app.example/bye?x=1", "state": "s"}
    answer = await world.http.get(LOGOUT, params=wanted)
    assert answer.headers["location"] == "https://app.example/bye?x=1&state=s"


async def test_what_is_posted_comes_again_as_a_link_without_the_id_token(world: World) -> None:
    token = await id_token(world)
    session = world.browser.session
    assert session is not None
    wanted = {"id_token_hint": token, "post_logout_redirect_uri": GOODBYE, "state": "s"}
    sent = await world.http.post(LOGOUT, data=wanted)
    assert sent.status_code == 303
    assert world.browser.ended == []
    where = urlsplit(sent.headers["location"])
    assert where.path == LOGOUT
    carried = dict(parse_qsl(where.query))
    assert token not in sent.headers["location"]
    assert carried["client_id"] == "app"
    for changed in ({**carried, "state": "t"}, {**carried, "shown": "x" + carried["shown"]}):
        page = await world.http.get(LOGOUT, params=changed)
        assert page.status_code == 200
        assert "asks to log you out" in page.text
    assert world.browser.ended == []
    done = await world.http.get(sent.headers["location"])
    assert (done.status_code, done.headers["location"]) == (303, f"{GOODBYE}?state=s")
    assert world.browser.ended == [origin_of(session)]


@pytest.mark.parametrize("method", ["GET", "POST"])
async def test_a_client_id_without_a_value_was_not_sent(world: World, method: str) -> None:
    wanted = {"id_token_hint": await id_token(world), "client_id": "", "post_logout_redirect_uri": GOODBYE}
    if method == "GET":
        world.browser.log_in()
        page = await world.http.get(LOGOUT, params=wanted)
        done = await world.http.post("/oauth2/logout/confirm", data=form_of(page))
    else:
        sent = await world.http.post(LOGOUT, data=wanted)
        done = await world.http.get(sent.headers["location"])
    assert (done.status_code, done.headers["location"]) == (303, GOODBYE)
    assert len(world.browser.ended) == 1


async def test_more_than_a_request_has_is_refused(world: World) -> None:
    many = [(f"p{number}", "x") for number in range(PARAMETERS_MAX + 1)]
    with pytest.raises(RequestUnsafe):
        await world.service.leave(many, {}, NOBODY, posted=False)
    assert [event.reason for event in world.events.of("oauth.logout")] == ["request_too_long"]


async def test_the_mark_of_what_was_posted_is_soon_over(world: World) -> None:
    sent = await world.http.post(LOGOUT, data={"id_token_hint": await id_token(world)})
    world.clock.move(SHOWN_S + 1)
    page = await world.http.get(sent.headers["location"])
    assert page.status_code == 200
    assert world.browser.ended == []


async def test_the_pages_are_in_their_readers_language(world: World) -> None:
    world.browser.log_in()
    page = await world.http.get(LOGOUT, params={"client_id": "app"}, headers={"accept-language": "fr"})
    assert "The App demande à vous déconnecter" in page.text
    assert '<html lang="fr">' in page.text
    unsafe = await world.http.get(LOGOUT, params={"client_id": "nobody"}, headers={"accept-language": "es"})
    assert "No se puede continuar" in unsafe.text
    page = await world.http.get(LOGOUT, params={"client_id": "app", "ui_locales": "xx de-AT"})
    assert "The App möchte Sie abmelden" in page.text
    assert "__Host-portcullis-language=de;" in page.headers["set-cookie"]


async def test_the_metadata_say_where(world: World) -> None:
    found = (await world.http.get("/.well-known/openid-configuration")).json()
    assert found["end_session_endpoint"] == "https://auth.example/oauth2/logout"


async def test_without_sessions_of_ours_nobody_is_logged_out_here(tmp_path: Path) -> None:
    world = World(tmp_path, has_sessions=False)
    found = (await world.http.get("/.well-known/openid-configuration")).json()
    assert "end_session_endpoint" not in found
    assert (await world.http.get(LOGOUT)).status_code == 404
