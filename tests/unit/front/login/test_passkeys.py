"""The endpoints of passkeys: what the script asks, what people see without it, and bad input."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from gateway.front.login import passkeys as module
from tests.unit.front.login.ways_world import COOKIE, TENANT, WaysWorld, ways_world


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[WaysWorld]:
    async with ways_world(tmp_path) as made:
        yield made


async def logged_out_with_passkey(world: WaysWorld) -> str:
    """Register a passkey, log out, and return what the page of log-in is tied to the browser by."""
    await world.begin_session()
    await world.add_passkey()
    world.http.cookies.delete(COOKIE)
    return await world.csrf("/login?rd=/app")


async def answer_of(world: WaysWorld, csrf: str, **forged: Any) -> dict[str, Any]:
    options = (await world.post("/login/passkey/options", csrf=csrf)).json()
    return world.device.get(options, **forged)


async def test_a_passkey_logs_in_and_the_browser_goes_where_it_wanted(world: WaysWorld) -> None:
    csrf = await logged_out_with_passkey(world)
    done = await world.post("/login/passkey", csrf=csrf, rd="/app", answer=await answer_of(world, csrf))
    assert done.json() == {"location": "/app"}
    cookie = next(line for line in done.headers.get_list("set-cookie") if line.startswith(f"{COOKIE}="))
    assert {"Secure", "HttpOnly", "SameSite=lax", "Path=/"} <= set(cookie.split("; "))
    session = await world.sessions.find(world.http.cookies[COOKIE])
    assert session is not None
    assert (session.subject.id, session.acr, set(session.amr)) == (world.user.id, "phr", {"pop", "user", "mfa"})


async def test_a_target_elsewhere_is_not_gone_to(world: WaysWorld) -> None:
    csrf = await logged_out_with_passkey(world)
    answer = await answer_of(world, csrf)
    done = await world.post("/login/passkey", csrf=csrf, rd="https://evil.example/", answer=answer)
    assert done.json() == {"location": "/account"}


async def test_whatever_is_wrong_with_an_answer_is_told_in_the_same_words(world: WaysWorld) -> None:
    csrf = await logged_out_with_passkey(world)
    told = set()
    forgeries: list[dict[str, Any]] = [{"signature": b"\0"}, {"origin": "https://evil.example"}, {"user_handle": b"x"}]
    for forged in forgeries:
        refused = await world.post("/login/passkey", csrf=csrf, answer=await answer_of(world, csrf, **forged))
        problem = refused.json()
        told.add((refused.status_code, problem["code"], problem["detail"]))
    refused = await world.post("/login/passkey", csrf=csrf, answer={})
    told.add((refused.status_code, refused.json()["code"], refused.json()["detail"]))
    assert told == {(400, "passkey_refused", "this passkey was not accepted")}


async def test_an_answer_counts_once_and_from_one_browser(world: WaysWorld) -> None:
    csrf = await logged_out_with_passkey(world)
    answer = await answer_of(world, csrf)
    assert (await world.post("/login/passkey", csrf=csrf, answer=answer)).status_code == 200
    world.http.cookies.delete(COOKIE)
    csrf = await world.csrf()
    assert (await world.post("/login/passkey", csrf=csrf, answer=answer)).status_code == 400
    answer = await answer_of(world, csrf)
    world.http.cookies.clear()
    csrf = await world.csrf()  # another browser
    assert (await world.post("/login/passkey", csrf=csrf, answer=answer)).status_code == 400


@pytest.mark.parametrize("path", ["/login/passkey", "/login/passkey/options", "/mfa/passkey", "/account/passkeys/add"])
async def test_bad_input_has_a_stable_code(world: WaysWorld, path: str) -> None:
    csrf = await world.csrf()
    cases = [
        (await world.http.post(path, content=b"{", headers={"content-type": "application/json"}), 400),
        (await world.http.post(path, content=b"[]", headers={"content-type": "application/json"}), 400),
        (await world.http.post(path, content=b'{"a":1,"a":2}', headers={"content-type": "application/json"}), 400),
        (await world.post(path, csrf=csrf, answer="x" * 40_000), 413),
        (await world.post(path), 403),
        (await world.post(path, csrf="made-up"), 403),
        (await world.http.post(path, json={"csrf": csrf}, headers={"origin": "https://evil.example"}), 403),
        (await world.http.post(path, json={"csrf": csrf}, headers={"sec-fetch-site": "cross-site"}), 403),
    ]
    assert [each.status_code for each, _ in cases] == [status for _, status in cases]
    assert all(each.json()["code"] for each, _ in cases)


async def test_people_without_a_script_are_told_what_to_do(world: WaysWorld) -> None:
    await world.begin_session()
    for path in ("/login/passkey", "/mfa/passkey", "/account/passkeys/add"):
        page = await world.http.get(path)
        assert (page.status_code, "Passkeys need JavaScript" in page.text) == (200, True)


async def test_the_script_is_short_and_the_only_one_that_may_run(world: WaysWorld) -> None:
    page = await world.http.get("/login")
    policy = page.headers["content-security-policy"]
    assert "script-src 'self'" in policy
    assert "unsafe" not in policy
    address = module.passkey_way().script
    assert f'<script src="{address}" defer></script>' in page.text
    script = await world.http.get(address)
    assert script.headers["content-type"] == "text/javascript; charset=utf-8"
    assert len(script.text.splitlines()) <= 120
    assert "innerHTML" not in script.text
    without = await world.http.get("/logout")
    assert "script-src" not in without.headers["content-security-policy"]


async def test_who_is_not_logged_in_has_no_passkeys_to_see_or_add(world: WaysWorld) -> None:
    listed = await world.http.get("/account/passkeys")
    assert (listed.status_code, listed.headers["location"]) == (303, "/login?rd=%2Faccount%2Fpasskeys")
    csrf = await world.csrf()
    for path in ("/account/passkeys/add", "/account/passkeys/add/options"):
        refused = await world.post(path, csrf=csrf, answer={})
        assert (refused.status_code, refused.json()["code"]) == (403, "reauthentication_required")


async def test_names_are_shown_as_texts_and_others_passkeys_are_nobodys(world: WaysWorld) -> None:
    await world.begin_session()
    await world.add_passkey()
    csrf = await world.csrf("/account/passkeys")
    held = (await world.directory.passkeys_of(world.user.id))[0]
    row = module._encoded(held.credential_id)
    form = {"csrf": csrf, "id": row, "name": '"><script>alert(1)</script>'}
    assert (await world.http.post("/account/passkeys/rename", data=form)).status_code == 303
    page = await world.http.get("/account/passkeys")
    assert "<script>alert" not in page.text
    for bad in ("", "!", "AAAA"):
        form = {"csrf": csrf, "id": bad, "name": "x"}
        assert (await world.http.post("/account/passkeys/rename", data=form)).status_code == 400
        assert (await world.http.post("/account/passkeys/remove", data=form)).status_code == 303
    assert len(await world.directory.passkeys_of(world.user.id)) == 1
    assert world.user.tenant == TENANT


async def test_a_passkey_is_a_second_factor_beside_what_was_proved(world: WaysWorld) -> None:
    await world.begin_session()
    await world.add_passkey()
    world.http.cookies.delete(COOKIE)
    back = await world.there()
    sent = await world.http.get(back)
    assert sent.headers["location"] == "/mfa"
    csrf = await world.csrf("/mfa")
    options = (await world.post("/mfa/passkey/options", csrf=csrf)).json()
    assert len(options["allowCredentials"]) == 1
    done = await world.post("/mfa/passkey", csrf=csrf, answer=world.device.get(options))
    assert done.json() == {"location": "/account"}
    session = await world.sessions.find(world.http.cookies[COOKIE])
    assert session is not None
    assert (session.attributes["idp"], session.acr) == ("corp", "phr")
    again = await world.post("/mfa/passkey", csrf=csrf, answer=world.device.get(options))
    assert again.status_code == 403  # the form was of the browser before it was logged in
