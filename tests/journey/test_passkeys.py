"""Passkeys in a real browser at a real gateway: registered, used, listed, renamed, removed."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.real.chromium import Chromium, chromium
from tests.real.gateway import Gateway, gateway, issuer_toml
from tests.real.people import PASSWORD, add_user

pytestmark = pytest.mark.journey

CONFIG = """
[sessions]
url = "embedded"

[directory]
url = "embedded"

[login]
enabled = true
url = "http://localhost:@PORT@"

[passkeys]
rp_id = "localhost"
name = "Example"
origins = ["http://localhost:@PORT@"]

[[routes]]
path = "/app/{*rest}"
auth = "session"
"""


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    folder = tmp_path_factory.mktemp("passkeys")
    with gateway(folder, issuer_toml(folder) + CONFIG, workers=2) as made:
        yield made


@pytest.fixture
def browser(tmp_path: Path) -> Iterator[Chromium]:
    with chromium(tmp_path) as made:
        yield made


def at(running: Gateway, path: str) -> str:
    return f"http://localhost:{running.port}{path}"


def log_in(running: Gateway, browser: Chromium, name: str) -> None:
    browser.open(at(running, "/login"))
    browser.fill(username=name, password=PASSWORD)
    browser.click("form button")
    browser.at("/account")


def log_out(running: Gateway, browser: Chromium) -> None:
    browser.open(at(running, "/logout"))
    browser.click("form button")
    browser.wait("document.body.innerText.includes('You are logged out')", "logged out")


def without_conditional_ui(browser: Chromium) -> None:
    """Have a browser that does not offer passkeys in fields: it has to be clicked."""
    script = "PublicKeyCredential.isConditionalMediationAvailable = undefined"
    browser.command("Page.addScriptToEvaluateOnNewDocument", source=script)


def add_passkey(running: Gateway, browser: Chromium, name: str = "My phone") -> None:
    browser.open(at(running, "/account/passkeys"))
    browser.fill(name=name)
    browser.click("#passkey-add button")
    browser.wait(
        f"[...document.querySelectorAll('input[name=name]')].some(i => i.defaultValue === '{name}')", "the passkey"
    )


def test_a_passkey_is_registered_and_logs_in_where_the_browser_wanted_to_go(
    running: Gateway, browser: Chromium
) -> None:
    add_user(running, "alice")
    without_conditional_ui(browser)
    browser.add_authenticator()
    log_in(running, browser, "alice")
    add_passkey(running, browser)
    browser.picture("passkeys")
    log_out(running, browser)
    browser.open(at(running, "/login?rd=%2Faccount%2Fpasskeys"))
    browser.picture("login-passkey")
    browser.wait("document.documentElement.classList.contains('has-passkeys')", "the script")
    browser.click("#passkey")
    browser.at("/account/passkeys")
    assert "My phone" in browser.evaluate("[...document.querySelectorAll('input')].map(i => i.value).join()")
    assert browser.complaints() == []


def test_a_passkey_is_offered_in_the_field_and_needs_no_click(running: Gateway, browser: Chromium) -> None:
    add_user(running, "bob")
    browser.add_authenticator()
    log_in(running, browser, "bob")
    add_passkey(running, browser)
    log_out(running, browser)
    browser.open(at(running, "/login"))  # the virtual authenticator picks what the browser would show
    browser.at("/account")
    assert "bob" in browser.text


def test_an_authenticator_that_does_not_know_its_user_logs_nobody_in(running: Gateway, browser: Chromium) -> None:
    add_user(running, "carol")
    authenticator = browser.add_authenticator()
    log_in(running, browser, "carol")
    add_passkey(running, browser)
    log_out(running, browser)
    browser.command("WebAuthn.setUserVerified", authenticatorId=authenticator, isUserVerified=False)
    browser.open(at(running, "/login"))
    browser.click("#passkey")
    browser.evaluate("new Promise(done => setTimeout(done, 300))")
    assert browser.evaluate("location.pathname") == "/login"


def test_a_passkey_is_renamed_and_removed_without_a_script(running: Gateway, browser: Chromium) -> None:
    add_user(running, "dave")
    browser.add_authenticator()
    log_in(running, browser, "dave")
    add_passkey(running, browser)
    browser.command("Emulation.setScriptExecutionDisabled", value=True)
    browser.open(at(running, "/account/passkeys"))
    browser.fill(name="Work")
    browser.click("form[action='/account/passkeys/rename'] button")
    browser.wait("document.querySelector('input[name=name]')?.defaultValue === 'Work'", "the new name")
    browser.click("form[action='/account/passkeys/remove'] button")
    browser.wait("document.body.innerText.includes('You have no passkey yet')", "no passkey")


def test_a_passkey_is_the_second_factor_beside_a_password(running: Gateway, browser: Chromium) -> None:
    add_user(running, "erin")
    without_conditional_ui(browser)
    authenticator = browser.add_authenticator()
    log_in(running, browser, "erin")
    add_passkey(running, browser)
    log_out(running, browser)
    browser.command("WebAuthn.setUserVerified", authenticatorId=authenticator, isUserVerified=False)
    browser.open(at(running, "/login"))
    browser.fill(username="erin", password=PASSWORD)
    browser.click("form button")
    browser.at("/mfa")
    browser.picture("code-passkey")
    browser.click("#passkey")
    browser.at("/account")
    assert "erin" in browser.text
