"""Devices that are remembered by a key, in a real browser: bound, proved, copied in vain, forgotten."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.journey.test_login import code_of
from tests.journey.test_passkeys import at, log_in, log_out
from tests.real.chromium import Chromium, chromium
from tests.real.gateway import Gateway, gateway, issuer_toml
from tests.real.lines import metric
from tests.real.people import PASSWORD, add_user
from tests.real.postgres import RealPostgres
from tests.real.process import wait_until
from tests.real.redis import RealRedis

pytestmark = pytest.mark.journey

CONFIG = """
[sessions]
url = "embedded"

[directory]
url = "embedded"

[login]
enabled = true
url = "http://localhost:@PORT@"
"""
AWAY = """
[sessions]
url = "REDIS"
key = "env:KEY"

[directory]
url = "env:DATABASE"
encryption_key = "env:KEY"

[login]
enabled = true
url = "http://localhost:@PORT@"
store_url = "REDIS"
provisional_device_s = 3600

[resilience.health]
provisional = true
fall_s = 0.5

[resilience.breaker]
recovery_s = 0.5
recovery_s_max = 1.0
"""
KEYS = """(async () => {
  const opening = indexedDB.open("portcullis", 1);
  const database = await new Promise((done, failed) => {
    opening.onupgradeneeded = () => opening.result.createObjectStore("devices", { keyPath: "id" });
    opening.onsuccess = () => done(opening.result);
    opening.onerror = () => failed(opening.error);
  });
  const asked = database.transaction("devices").objectStore("devices").getAll();
  const kept = await new Promise(done => { asked.onsuccess = () => done(asked.result); });
  database.close();
  const told = [];
  for (const each of kept) {
    let exported = "";
    for (const format of ["jwk", "pkcs8"])
      await crypto.subtle.exportKey(format, each.key).then(() => { exported += format; }, () => {});
    told.push({ id: each.id, type: each.key.type, extractable: each.key.extractable, exported });
  }
  return told;
})()"""


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    folder = tmp_path_factory.mktemp("devices")
    with gateway(folder, issuer_toml(folder) + CONFIG, workers=2) as made:
        yield made


@pytest.fixture
def browser(tmp_path: Path) -> Iterator[Chromium]:
    with chromium(tmp_path) as made:
        yield made


def keys_of(browser: Chromium) -> list[dict[str, Any]]:
    """Give what the browser keeps, and whether the keys can be taken out of it."""
    found: list[dict[str, Any]] = browser.evaluate(KEYS)
    return found


def set_app_up(running: Gateway, browser: Chromium) -> str:
    """Set an authenticator app up; return its key."""
    browser.open(at(running, "/account/mfa"))
    found = re.search(r"\b[A-Z2-7]{32}\b", browser.text)
    assert found is not None
    browser.fill(code=code_of(found[0]))
    browser.click("form button")
    browser.wait("document.querySelectorAll('.codes code').length === 10", "recovery codes")
    return found[0]


def type_password(running: Gateway, browser: Chromium, name: str) -> None:
    browser.open(at(running, "/login"))
    browser.fill(username=name, password=PASSWORD)
    browser.click("form button")


def remember(running: Gateway, browser: Chromium, name: str, app: str) -> None:
    """Log in with a code, and have this browser remembered."""
    type_password(running, browser, name)
    browser.at("/mfa")
    browser.wait("document.readyState === 'complete'", "the page")
    browser.fill(code=code_of(app, 1))  # the one of now was used to set it up
    browser.click("[name=remember]")
    browser.click("form button")
    browser.at("/account")


def bound(running: Gateway, browser: Chromium, name: str) -> str:
    """Add a user whose browser is remembered by a key, and log them out; return the app's key."""
    add_user(running, name)
    log_in(running, browser, name)
    app = set_app_up(running, browser)
    log_out(running, browser)
    remember(running, browser, name, app)
    return app


def picture_of_devices(browser: Chromium) -> None:
    """Picture the end of the account's page, as a phone shows it."""
    phone = {"width": 420, "height": 760, "deviceScaleFactor": 1, "mobile": False}
    browser.command("Emulation.setDeviceMetricsOverride", **phone)
    browser.evaluate("window.scrollTo(0, document.body.scrollHeight)")
    browser.picture("account-device")


def test_a_key_that_never_leaves_the_browser_spares_the_code(running: Gateway, browser: Chromium) -> None:
    bound(running, browser, "alice")
    assert "bound to this browser by a key" in browser.text
    picture_of_devices(browser)
    (kept,) = keys_of(browser)
    assert (kept["type"], kept["extractable"], kept["exported"]) == ("private", False, "")
    log_out(running, browser)
    type_password(running, browser, "alice")
    browser.at("/account")  # over the page for a code, which proved the key
    assert "alice" in browser.text
    assert browser.complaints() == []


def test_its_cookies_in_another_browser_are_worth_nothing(running: Gateway, browser: Chromium, tmp_path: Path) -> None:
    bound(running, browser, "bob")
    log_out(running, browser)
    cookies = browser.command("Network.getCookies", urls=[at(running, "/login")])["cookies"]
    assert "__Host-portcullis-device" in {each["name"] for each in cookies}
    (tmp_path / "thief").mkdir()
    with chromium(tmp_path / "thief") as thief:
        for each in cookies:
            told = {"name": each["name"], "value": each["value"], "secure": True, "httpOnly": True, "path": "/"}
            thief.command("Network.setCookie", url=at(running, "/"), **told)
        type_password(running, thief, "bob")
        thief.at("/mfa")
        thief.evaluate("new Promise(done => setTimeout(done, 500))")
        assert thief.evaluate("location.pathname") == "/mfa"
        assert keys_of(thief) == []


def test_a_device_that_was_forgotten_shows_a_code_again(running: Gateway, browser: Chromium) -> None:
    bound(running, browser, "carol")
    browser.click("form[action='/account/devices/forget'] button")
    browser.wait("document.body.innerText.includes('No device is remembered')", "forgotten")
    log_out(running, browser)
    type_password(running, browser, "carol")
    browser.at("/mfa")
    browser.evaluate("new Promise(done => setTimeout(done, 500))")
    assert browser.evaluate("location.pathname") == "/mfa"


def test_without_scripts_a_device_is_remembered_by_its_cookie(running: Gateway, browser: Chromium) -> None:
    browser.command("Emulation.setScriptExecutionDisabled", value=True)
    bound(running, browser, "dave")
    assert "bound to this browser" not in browser.text and "Remembered devices" in browser.text
    log_out(running, browser)
    type_password(running, browser, "dave")
    browser.at("/account")


def test_a_proof_that_was_overheard_is_not_good_for_another_log_in(running: Gateway, browser: Chromium) -> None:
    bound(running, browser, "erin")
    log_out(running, browser)
    spy = """const real = window.fetch; window.fetch = (path, options) => {
      if (path === "/mfa/device") sessionStorage.setItem("proof", JSON.parse(options.body).proof);
      return real(path, options);
    }"""
    browser.command("Page.addScriptToEvaluateOnNewDocument", source=spy)
    type_password(running, browser, "erin")
    browser.at("/account")
    proof = str(browser.evaluate("sessionStorage.getItem('proof')"))
    assert proof.count(".") == 2
    log_out(running, browser)
    browser.command("Network.setBlockedURLs", urls=["*devices.js*"])
    type_password(running, browser, "erin")
    browser.at("/mfa")
    again = """(async () => {
      const csrf = document.querySelector("[name=csrf]").value;
      const answer = await fetch("/mfa/device", {
        method: "POST", headers: {"content-type": "application/json"}, body: JSON.stringify({csrf, proof: PROOF}) });
      return [answer.status, (await answer.json()).code];
    })()""".replace("PROOF", json.dumps(proof))
    assert browser.evaluate(again) == [400, "device_refused"]


@pytest.fixture
def redis(tmp_path: Path) -> Iterator[RealRedis]:
    server = RealRedis(tmp_path)
    yield server
    server.stop()


@pytest.fixture
def postgres(tmp_path: Path) -> Iterator[RealPostgres]:
    server = RealPostgres(tmp_path, options=("max_connections=120",))
    yield server
    server.stop()


def test_while_the_directory_is_away_a_device_that_is_bound_carries_its_user_on(
    tmp_path: Path, redis: RealRedis, postgres: RealPostgres, browser: Chromium
) -> None:
    env = {"KEY": "k" * 32, "DATABASE": postgres.url}
    config = issuer_toml(tmp_path) + AWAY.replace("REDIS", redis.url)
    with gateway(tmp_path, config, env=env, workers=2) as running:
        wait_until(lambda: "database" in running.admin("/readyz").json["dependencies"], "the directory", 20)
        add_user(running, "alice", env=env)
        log_in(running, browser, "alice")
        app = set_app_up(running, browser)
        log_out(running, browser)
        remember(running, browser, "alice", app)
        cookies = {each["name"]: each for each in browser.command("Network.getCookies")["cookies"]}
        assert cookies["__Host-portcullis-voucher"]["httpOnly"]
        browser.command("Network.deleteCookies", name="__Host-portcullis", url=at(running, "/"))  # it was long ago

        postgres.kill()
        try:
            wait_until(lambda: level_of(running) == 2, "level 2", 20)
            shown(running, browser, "/login?rd=%2Faccount", "this device is known by its key")
            browser.picture("provisional-device")
            browser.click("form button")
            browser.wait("location.pathname === '/account'", "a session")
            cookies = {each["name"]: each for each in browser.command("Network.getCookies")["cookies"]}
            assert "__Host-portcullis" in cookies
            assert browser.complaints() == []

            # Who logged out is not carried on, and neither is anybody else.
            browser.command("Network.deleteCookies", name="__Host-portcullis", url=at(running, "/"))
            browser.command("Network.deleteCookies", name="__Host-portcullis-voucher", url=at(running, "/"))
            shown(running, browser, "/login", "Nobody can log in at the moment;")
        finally:
            postgres.start()
        # A worker that is not there yet asks for a code: what it does not look at is no reason to ask for less.
        wait_until(lambda: worst_level_of(running) == 0, "level 0 at both workers", 30)
        told = "".join(path.read_text("utf-8", "replace") for path in tmp_path.rglob("audit*/**/*") if path.is_file())
        assert "session.provisional" in told

        def reconciled() -> bool:
            files = [path for path in tmp_path.rglob("audit*/**/*") if path.is_file()]
            return any("session.reconcile" in path.read_text("utf-8", "replace") for path in files)

        wait_until(reconciled, "the session is judged anew", 20)

        # A device that was forgotten carries nobody on in the next outage, whichever worker is asked.
        type_password(running, browser, "alice")
        browser.at("/account")
        browser.click("form[action='/account/devices/forget'] button")
        browser.wait("document.body.innerText.includes('No device is remembered')", "forgotten")
        browser.command("Network.deleteCookies", name="__Host-portcullis", url=at(running, "/"))
        assert "__Host-portcullis-voucher" in {
            each["name"] for each in browser.command("Network.getCookies")["cookies"]
        }
        postgres.kill()
        wait_until(lambda: level_of(running) == 2, "level 2", 20)
        shown(running, browser, "/login", "Nobody can log in at the moment;")
        for _ in range(8):
            browser.open(at(running, "/login"))
            assert "known by its key" not in browser.text


def shown(running: Gateway, browser: Chromium, path: str, text: str) -> None:
    """Open a page until it shows a text: workers learn one after the other what is down."""

    def shows() -> bool:
        browser.open(at(running, path))
        return text in browser.text

    wait_until(shows, text, 10)


def worst_level_of(running: Gateway) -> float:
    return metric(running.admin("/metrics").body.decode(), "portcullis_degradation_level")


def level_of(running: Gateway) -> int:
    level: int = running.admin("/readyz").json["degradation"]["level"]
    return level
