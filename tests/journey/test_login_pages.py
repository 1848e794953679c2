"""The pages of log-in in a real browser, without scripts, on a small phone: every one is seen, used and pictured.

`PORTCULLIS_PICTURES=1` keeps the pictures for the handbook.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlencode

import pytest

from tests.conftest import ROOT
from tests.journey.test_login import code_of
from tests.real.chromium import Chromium, chromium
from tests.real.gateway import Gateway, gateway, issuer_toml
from tests.real.people import PASSWORD, add_user, portcullis

pytestmark = pytest.mark.journey

CONFIG = """
[sessions]
url = "embedded"

[directory]
url = "embedded"

[login]
enabled = true
url = "http://localhost"

[oauth]
issuer = "http://localhost:@PORT@"
encryption_key = "file:sealing.key"
algorithm = "ES256"

[[oauth.clients]]
id = "photos"
name = "Holiday Photos"
auth = "none"
redirect_uris = ["http://127.0.0.1/back"]
post_logout_redirect_uris = ["http://127.0.0.1/goodbye"]

[[oauth.resources]]
id = "http://localhost:@PORT@/app"
name = "The Album"
scopes = ["album:read"]

[[routes]]
path = "/app/{*rest}"
auth = "session"
"""
ASKED = {
    "response_type": "code",
    "client_id": "photos",
    "redirect_uri": "http://127.0.0.1/back",
    "scope": "openid profile email offline_access",
    "code_challenge": "a" * 42 + "A",
    "code_challenge_method": "S256",
}
PICTURES = ROOT / "docs" / "login"
NARROW = 320  # CSS pixels: WCAG 2.2 §1.4.10 (reflow)
TARGET = 24  # WCAG 2.2 §2.5.8: the least size of what is touched

# What people who cannot see a page, or not well, need of it.
FAULTS = """(() => {
  const faults = [];
  const visible = element => element.type !== 'hidden' && element.getClientRects().length > 0;
  for (const field of document.querySelectorAll('input'))
    if (visible(field) && !field.labels.length) faults.push('no label: ' + field.name);
  for (const element of document.querySelectorAll('button, a.button, input')) {
    const box = element.getBoundingClientRect();
    if (visible(element) && Math.min(box.width, box.height) < TARGET && !element.closest('label'))
      faults.push('too small: ' + element.outerHTML);
  }
  for (const button of document.querySelectorAll('button, a'))
    if (!button.innerText.trim()) faults.push('no name: ' + button.outerHTML);
  if (document.querySelectorAll('h1').length !== 1) faults.push('not one h1');
  if (!document.documentElement.lang) faults.push('no language');
  if (!document.title) faults.push('no title');
  if (document.documentElement.scrollWidth > window.innerWidth) faults.push('wider than the screen');
  return faults;
})()""".replace("TARGET", str(TARGET))


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    folder = tmp_path_factory.mktemp("pages")
    (folder / "sealing.key").write_text("s" * 40)
    (folder / "sealing.key").chmod(0o600)
    with gateway(folder, issuer_toml(folder) + CONFIG) as made:
        yield made


class Reader:
    """Somebody with a small phone and without scripts, who looks at every page."""

    def __init__(self, browser: Chromium, origin: str) -> None:
        self.browser = browser
        self.origin = origin
        browser.command("Emulation.setScriptExecutionDisabled", value=True)

    def open(self, path: str) -> None:
        self.browser.open(self.origin + path)

    def send(self, to: str, *, form: str = "form", **fields: str) -> None:
        """Fill in the form of the page, and wait for the one at `to`."""
        self.browser.fill(**fields)
        self.browser.evaluate("window.left = true")
        self.browser.click(f"{form} button")
        self.browser.wait("window.left === undefined && document.readyState === 'complete'", "another page")
        self.browser.at(to)

    def see(self, name: str, *, height: int = 760) -> None:
        """Look at the page in the dark and in the light, narrow and wide; take its picture."""
        for dark in (True, False):
            scheme = "dark" if dark else "light"
            self.browser.command(
                "Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": scheme}]
            )
            self._measure(NARROW, name)
        if os.environ.get("PORTCULLIS_PICTURES"):
            PICTURES.mkdir(exist_ok=True)
            self.browser.screenshot(PICTURES / f"{name}.png", width=420, height=height)
            self.browser.screenshot(PICTURES / f"{name}-dark.png", width=420, height=height, dark=True)

    def _measure(self, width: int, name: str) -> None:
        self.browser.command(
            "Emulation.setDeviceMetricsOverride", width=width, height=640, deviceScaleFactor=1, mobile=False
        )
        assert self.browser.evaluate(FAULTS) == [], name


@pytest.mark.parametrize("language", ["de", "es", "fr"])
def test_every_language_fits_on_a_small_phone(running: Gateway, tmp_path: Path, language: str) -> None:
    name = f"reader-{language}"
    add_user(running, name)
    with chromium(tmp_path) as browser:
        reader = Reader(browser, f"http://localhost:{running.port}")
        reader.open(f"/login?ui_locales={language}")
        reader.send("/account", username=name, password=PASSWORD)  # the language stays
        consent, leaving = f"/oauth2/authorize?{urlencode(ASKED)}", "/oauth2/logout?client_id=photos"
        own = ("/account", "/account/mfa", "/account/password", "/logout", "/login?prompt=login", "/login/reset")
        for path in (*own, consent, leaving, "/oauth2/authorize"):
            reader.open(path)
            assert browser.evaluate("document.documentElement.lang") == language, path
            reader._measure(NARROW, path)
        if language == "de" and os.environ.get("PORTCULLIS_PICTURES"):
            reader.open("/login?prompt=login")
            reader.see("login-german")


def test_every_page_works_without_scripts_on_a_small_phone(running: Gateway, tmp_path: Path) -> None:
    add_user(running, "alice")
    with chromium(tmp_path) as browser:
        reader = Reader(browser, f"http://localhost:{running.port}")
        reader.open("/app/orders")
        browser.at("/login")
        reader.see("login-password")
        reader.send("/login", username="alice", password="not it")
        assert "These credentials are not accepted." in browser.text
        reader.see("login-refused")
        reader.open("/login")
        reader.send("/account", username="alice", password=PASSWORD)
        reader.see("account-first")

        reader.open("/account/mfa")
        reader.see("enrol", height=900)
        secret = str(browser.evaluate("document.querySelector('code').innerText"))
        assert browser.evaluate("document.querySelector('svg.qr path:last-child').getBBox().width") > 20
        reader.send("/account/mfa", code="000000")
        assert "This code does not count." in browser.text
        reader.send("/account/mfa", code=code_of(secret, -1))
        reader.see("recovery-codes")
        codes = str(browser.evaluate("[...document.querySelectorAll('code')].map(c => c.innerText).join()")).split(",")
        assert len(codes) == 10

        reader.open("/account/password")
        reader.see("password")
        reader.send("/account/password", current=PASSWORD, new="short", repeat="short")
        reader.see("password-refused")
        reader.open("/logout")
        reader.see("logout")
        reader.send("/logout")
        reader.see("logged-out")

        reader.open("/login")
        reader.send("/mfa", username="alice", password=PASSWORD)
        reader.see("code")
        browser.evaluate("document.querySelector('[name=remember]').checked = true")
        reader.send("/account", code=codes[0])
        assert "Chrome on Linux" in browser.text
        reader.see("account", height=1000)
        reader.send("/account", form="form[action='/account/devices/forget']")
        assert "No device is remembered." in browser.text
        reader.send("/account/sessions/end-all", form="form[action='/account/sessions/end-all']")

        link = portcullis(running, "user", "reset", "alice")["link"].removeprefix("http://localhost")
        reader.open(link)
        browser.at("/login/reset")
        assert "token" not in browser.address
        reader.see("reset")
        reader.send("/login/reset", new="seven wet otters in a boat", repeat="seven wet otters in a boat")
        assert "Your new password is set." in browser.text
        reader.see("reset-done")
        reader.open(link)
        reader.see("link-over")
        assert browser.complaints() == []


def test_an_application_asks_for_access_and_for_a_logout(running: Gateway, tmp_path: Path) -> None:
    add_user(running, "carol")
    with chromium(tmp_path) as browser:
        reader = Reader(browser, f"http://localhost:{running.port}")
        resource = {"resource": f"http://localhost:{running.port}/app"}
        reader.open(f"/oauth2/authorize?{urlencode({**ASKED, **resource})}")
        reader.send("/oauth2/authorize", username="carol", password=PASSWORD)
        assert "Holiday Photos asks for access" in browser.text
        assert "Use The Album for you" in browser.text
        reader.see("consent")
        reader.open(f"/oauth2/authorize?{urlencode({**ASKED, 'redirect_uri': 'http://127.0.0.1/elsewhere'})}")
        assert "The address to go back to is not the application's." in browser.text
        reader.see("not-back")
        reader.open("/oauth2/logout?client_id=photos")
        assert "Holiday Photos asks to log you out." in browser.text
        reader.see("application-logout")
        reader.send("/oauth2/logout/confirm")
        assert "You are logged out." in browser.text
        reader._measure(NARROW, "goodbye")
        reader.open("/account")
        browser.at("/login")
        assert browser.complaints() == []


def test_a_second_factor_that_is_required_is_set_up_on_the_way(running: Gateway, tmp_path: Path) -> None:
    portcullis(running, "user", "add", "bob", "--must-change", given=f"{PASSWORD}\n")
    with chromium(tmp_path) as browser:
        reader = Reader(browser, f"http://localhost:{running.port}")
        reader.open("/login?acr_values=2fa")
        reader.send("/login/change", username="bob", password=PASSWORD)
        reader.see("change")
        reader.send("/mfa/enrol", new="a pebble in a new shoe", repeat="a pebble in a new shoe")
        reader.see("enrol-required", height=900)
        secret = str(browser.evaluate("document.querySelector('code').innerText"))
        reader.send("/mfa/enrol", code=code_of(secret))
        browser.evaluate("window.left = true")
        browser.click("a.button.main")
        browser.at("/account")
        assert browser.complaints() == []
