"""The endpoints of devices that are remembered by a key: what the script asks, what pages show, and bad input."""

from __future__ import annotations

import base64
import re
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pyotp
import pytest

from gateway.flows.devices import DeviceOffer
from gateway.front.login.cookies import DEVICE, VOUCHER
from gateway.front.login.endpoints import DEVICE_SCRIPT
from gateway.stores.directory import PasswordHash, TOTPDevice
from tests.real.soft_device import SoftDevice
from tests.unit.front.login.ways_world import COOKIE, HOST, ORIGIN, TENANT, WaysWorld, ways_world

PASSWORD = "correct horse battery staple"
SECRET = b"s" * 20


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[WaysWorld]:
    async with ways_world(tmp_path) as made:
        made.http.headers["origin"] = ORIGIN
        made_hash = await made.login.hasher.hash(PASSWORD)
        await made.directory.set_password(PasswordHash(user_id=made.user.id, hash=made_hash, changed_s=0))
        await made.directory.add_totp(TOTPDevice(id="otp_x", user_id=made.user.id, secret=SECRET))
        await made.directory.use_totp(made.user.id, "otp_x", 1)
        yield made


def code() -> str:
    return pyotp.TOTP(base64.b32encode(SECRET).decode()).at(int(time.time()))


async def typed(world: WaysWorld) -> str:
    """Type the password; return what the page for a code is tied to the browser by."""
    form = {"csrf": await world.csrf(), "username": "alice", "password": PASSWORD}
    sent = await world.http.post("/login", data=form)
    assert (sent.status_code, sent.headers["location"]) == (303, "/mfa"), sent.text
    return await world.csrf("/mfa")


async def offered(world: WaysWorld, path: str, csrf: str) -> DeviceOffer:
    asked = await world.post(path, csrf=csrf)
    assert asked.status_code == 200, asked.text
    return DeviceOffer(asked.json()["device"], asked.json()["challenge"])


async def remembered(world: WaysWorld, device: SoftDevice, **forged: Any) -> None:
    """Log in with a code, and be remembered by a key; then forget the session."""
    csrf = await typed(world)
    offer = await offered(world, "/mfa/device/new", csrf)
    proof = device.prove("bind", offer.device_id, offer.challenge, **forged)
    form = {"csrf": csrf, "code": code(), "remember": "yes", "device_id": offer.device_id, "device_proof": proof}
    done = await world.http.post("/mfa", data=form)
    assert done.status_code == 303, done.text
    world.http.cookies.delete(COOKIE)


async def test_a_device_is_bound_and_spares_the_code_later(world: WaysWorld) -> None:
    device = SoftDevice(ORIGIN)
    await remembered(world, device)
    csrf = await typed(world)
    page = await world.http.get("/mfa")
    assert 'data-device="/mfa/device" data-act="log_in"' in page.text
    offer = await offered(world, "/mfa/device/options", csrf)
    done = await world.post("/mfa/device", csrf=csrf, proof=device.prove("log_in", offer.device_id, offer.challenge))
    assert done.json() == {"location": "/account"}
    session = await world.sessions.find(world.http.cookies[COOKIE])
    assert session is not None and (session.acr, session.device_id) == ("1fa", offer.device_id)
    page = await world.http.get("/account")
    assert "bound to this browser by a key" in page.text
    assert VOUCHER not in world.http.cookies  # off by default


async def test_without_a_script_it_is_remembered_by_its_cookie(world: WaysWorld) -> None:
    csrf = await typed(world)
    done = await world.http.post("/mfa", data={"csrf": csrf, "code": code(), "remember": "yes"})
    assert done.status_code == 303 and DEVICE in world.http.cookies
    assert "bound to this browser" not in (await world.http.get("/account")).text
    world.http.cookies.delete(COOKIE)
    form = {"csrf": await world.csrf(), "username": "alice", "password": PASSWORD}
    assert (await world.http.post("/login", data=form)).headers["location"] == "/account"


async def test_a_proof_that_is_wrong_is_refused_in_the_same_words_and_the_code_still_counts(world: WaysWorld) -> None:
    device = SoftDevice(ORIGIN)
    await remembered(world, device)
    csrf = await typed(world)
    told = set()
    forgeries: list[dict[str, Any]] = [{"aud": "https://evil.example"}, {"sub": "dev_x"}, {"signature": bytes(64)}]
    for forged in forgeries:
        offer = await offered(world, "/mfa/device/options", csrf)
        proof = device.prove("log_in", offer.device_id, offer.challenge, **forged)
        refused = await world.post("/mfa/device", csrf=csrf, proof=proof)
        told.add((refused.status_code, refused.json()["code"], refused.json()["detail"]))
    for odd in ("", 7, None, "a.b.c", "x" * 5000):
        refused = await world.post("/mfa/device", csrf=csrf, proof=odd)
        told.add((refused.status_code, refused.json()["code"], refused.json()["detail"]))
    assert told == {(400, "device_refused", "this device was not accepted")}
    assert COOKIE not in world.http.cookies
    reasons = [each.reason for each in world.events if each.action == "device.use"]
    assert reasons == ["origin", "device", "signature", *["malformed"] * 5]


async def test_a_key_that_is_not_proved_leaves_the_browser_unremembered(world: WaysWorld) -> None:
    await remembered(world, SoftDevice(ORIGIN), aud="https://evil.example")
    assert DEVICE not in world.http.cookies
    assert not await world.directory.devices_of(TENANT, world.user.id)


async def test_a_device_that_was_forgotten_on_the_account_page_shows_a_code_again(world: WaysWorld) -> None:
    device = SoftDevice(ORIGIN)
    await remembered(world, device)
    (row,) = await world.directory.devices_of(TENANT, world.user.id)
    await world.begin_session()
    csrf = await world.csrf("/account")
    assert (await world.http.post("/account/devices/forget", data={"csrf": csrf, "id": row.id})).status_code == 303
    world.http.cookies.delete(COOKIE)
    refused = await world.post("/mfa/device/options", csrf=await typed(world))
    assert (refused.status_code, refused.json()["code"]) == (400, "device_refused")
    assert world.revoked.ended(TENANT, world.user.id, row.id, 0) == "device_revoked"


@pytest.mark.parametrize(
    "path",
    [
        *("/mfa/device", "/mfa/device/options", "/mfa/device/new"),
        *("/login/provisional/device", "/login/provisional/device/options"),
    ],
)
async def test_bad_input_has_a_stable_code(world: WaysWorld, path: str) -> None:
    csrf = await world.csrf()
    cases = [
        (await world.http.post(path, content=b"{", headers={"content-type": "application/json"}), 400),
        (await world.http.post(path, content=b'{"a":1,"a":2}', headers={"content-type": "application/json"}), 400),
        (await world.http.post(path, data={"csrf": csrf}), 415),
        (await world.post(path, csrf=csrf, proof="x" * 40_000), 413),
        (await world.post(path), 403),
        (await world.http.post(path, json={"csrf": csrf}, headers={"origin": "https://evil.example"}), 403),
        (await world.http.post(path, json={"csrf": csrf}, headers={"sec-fetch-site": "cross-site"}), 403),
        (await world.post(path, csrf=csrf), 503 if "provisional" in path else 401),
    ]
    assert [each.status_code for each, _ in cases] == [status for _, status in cases]
    assert all(each.json()["code"] for each, _ in cases)
    assert (await world.http.get(path)).status_code == 405


async def test_the_script_is_short_ours_and_there_only_where_a_device_can_be_remembered(world: WaysWorld) -> None:
    await typed(world)
    page = await world.http.get("/mfa")
    assert f'<script src="{DEVICE_SCRIPT.address}" defer></script>' in page.text
    policy = page.headers["content-security-policy"]
    assert "script-src 'self'; connect-src 'self'" in policy and "unsafe" not in policy
    assert re.search(r'<form method="post" action="/mfa" data-bind="/mfa/device/new">', page.text)
    script = await world.http.get(DEVICE_SCRIPT.address)
    assert script.headers["content-type"] == "text/javascript; charset=utf-8"
    assert len(script.text.splitlines()) <= 120
    assert "innerHTML" not in script.text and "false, [" in script.text  # a key that cannot be taken out
    world.login.logins.devices.lifetime_s = 0
    assert DEVICE_SCRIPT.address not in (await world.http.get("/mfa")).text


async def test_a_log_out_has_the_browser_forget_its_voucher(world: WaysWorld) -> None:
    await world.begin_session()
    world.http.cookies.set(VOUCHER, "x", domain=HOST, path="/")
    csrf = await world.csrf("/logout")
    await world.http.post("/logout", data={"csrf": csrf})
    assert VOUCHER not in world.http.cookies


@pytest.mark.parametrize(
    ("path", "code", "told"),
    [
        ("/mfa/device", "login_refused", "Das hat zu lange gedauert oder ist schon erledigt. Beginnen Sie von vorn."),
        ("/login/passkey", "passkey_refused", "Dieser Passkey wurde nicht anerkannt."),
        ("/login/provisional/device", "not_offered", "Zurzeit kann sich niemand anmelden;"),
        ("/account/passkeys/add", "reauthentication_required", "Melden Sie sich noch einmal an"),
    ],
)
async def test_scripts_are_refused_in_the_readers_language_by_the_same_code(
    world: WaysWorld, path: str, code: str, told: str
) -> None:
    csrf = await world.csrf()
    english = await world.post(path, csrf=csrf)
    world.http.headers["accept-language"] = "de"
    german = await world.post(path, csrf=csrf)
    assert (german.status_code, german.json()["code"]) == (english.status_code, english.json()["code"])
    assert german.json()["code"] == code
    assert german.json()["detail"].startswith(told)
    assert not english.json()["detail"].startswith(told)
