"""Log-in at an identity provider that others wrote (npm `oidc-provider`), in a real browser, at a real gateway."""

from __future__ import annotations

import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.real.browser import Browser
from tests.real.chromium import Chromium, chromium
from tests.real.gateway import Gateway, gateway, issuer_toml
from tests.real.http import Answer
from tests.real.oidc_provider import OtherProvider
from tests.real.people import PASSWORD, portcullis
from tests.real.process import free_port, wait_until

pytestmark = pytest.mark.journey

SECRET = "a+secret/of the:client"
TIMEOUT_S = 1.0
CONFIG = """
[sessions]
url = "embedded"

[directory]
url = "embedded"

[login]
enabled = true
url = "http://localhost:@PORT@"

[resilience.idp_breaker]
calls_min = 3
recovery_s = 1.0

[[sso]]
id = "corp"
name = "Example Corp"
issuer = "ISSUER"
client_id = "portcullis"
client_secret = "file:FOLDER/client"
link_email = true
email_domains = ["corp.example"]
pushed_requests = "always"
logout_uri = "http://localhost:@PORT@/login"
timeout_s = 1.0

[[routes]]
path = "/app/{*rest}"
auth = "session"

[identity.headers]
x-auth-idp = "idp"
"""
COOKIE = "__Host-portcullis"


class Place:
    """The gateway, and the provider that it knows."""

    def __init__(self, running: Gateway, provider: OtherProvider) -> None:
        self.running = running
        self.provider = provider

    def at(self, path: str) -> str:
        return f"http://localhost:{self.running.port}{path}"

    def forwarded(self, cookie: str) -> Answer:
        """Ask as a proxy does whether a session may have a page."""
        told = [("X-Forwarded-Method", "GET"), ("X-Forwarded-Uri", "/app/x"), ("X-Forwarded-Host", "app.test")]
        return self.running.ask("GET", "/auth/forward", *told, ("Cookie", f"{COOKIE}={cookie}"))


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    folder = tmp_path_factory.mktemp("sso")
    port = free_port()
    config = issuer_toml(folder) + CONFIG.replace("ISSUER", f"http://127.0.0.1:{port}").replace("FOLDER", str(folder))
    (folder / "client").write_text(SECRET)
    (folder / "client").chmod(0o600)
    with gateway(folder, config, workers=2) as running:
        provider = OtherProvider(folder, f"http://localhost:{running.port}", SECRET, port=port)
        try:
            running.restart()  # so that it finds the provider at once
            yield Place(running, provider)
        finally:
            provider.stop()


@pytest.fixture
def browser(tmp_path: Path) -> Iterator[Chromium]:
    with chromium(tmp_path) as made:
        yield made


def add(place: Place, name: str) -> None:
    words = ("user", "add", name, "--email", f"{name}@corp.example")
    portcullis(place.running, *words, given=f"{PASSWORD}\n")


def log_in_there(browser: Chromium, name: str) -> None:
    """Log in at the provider, and let it tell us."""
    browser.wait("document.querySelector('input[name=login]') !== null", "the provider's page")
    browser.fill(login=name, password="anything")
    browser.click("form button")
    browser.wait("document.body.innerText.includes('Authorize')", "the provider's question")
    browser.click("form button")


def session_of(browser: Chromium) -> str:
    cookies = browser.command("Network.getAllCookies")["cookies"]
    return next(str(each["value"]) for each in cookies if each["name"] == COOKIE)


def test_somebody_who_is_known_there_logs_in_here_and_goes_where_they_wanted(place: Place, browser: Chromium) -> None:
    add(place, "alice")
    browser.open(place.at("/login?rd=%2Faccount%2Fsso"))
    browser.picture("login-sso")
    browser.click("a.way")
    log_in_there(browser, "alice")
    browser.at("/account/sso")
    assert "connected" in browser.text
    browser.picture("connected-accounts")
    answer = place.forwarded(session_of(browser))
    assert (answer.status, answer.one("x-auth-idp")) == (200, "corp")
    assert browser.complaints() == []


def test_somebody_who_is_not_known_here_is_told_so(place: Place, browser: Chromium) -> None:
    browser.open(place.at("/login/sso/corp"))
    log_in_there(browser, "mallory")
    browser.wait("document.body.innerText.includes('There is no account here for you')", "a refusal")


def test_who_says_no_there_comes_back_to_the_page_of_login(place: Place, browser: Chromium) -> None:
    browser.open(place.at("/login/sso/corp"))
    browser.wait("document.querySelector('input[name=login]') !== null", "the provider's page")
    browser.click("a[href$='/abort']")
    browser.wait("document.querySelector('input[name=username]') !== null", "the page of log-in")
    assert "could not be completed" in browser.text


def test_a_log_out_there_ends_the_session_here_within_a_second(place: Place, browser: Chromium) -> None:
    add(place, "bob")
    browser.open(place.at("/login/sso/corp"))
    log_in_there(browser, "bob")
    browser.at("/account")
    cookie = session_of(browser)
    assert place.forwarded(cookie).status == 200
    browser.open(f"{place.provider.issuer}/session/end")
    browser.click("button[name=logout]")
    began_s = time.monotonic()
    wait_until(lambda: all(place.forwarded(cookie).status != 200 for _ in range(8)), "the session is over")
    assert time.monotonic() - began_s < 4.0  # a second is the law; the machine of a test may be busy


def test_who_logs_out_here_is_sent_there_and_comes_back(place: Place, browser: Chromium) -> None:
    add(place, "carol")
    browser.open(place.at("/login/sso/corp"))
    log_in_there(browser, "carol")
    browser.at("/account")
    browser.open(place.at("/logout"))
    browser.click("form button")
    browser.wait("document.querySelector('button[name=logout]') !== null", "the provider asks")
    browser.click("button[name=logout]")
    browser.at("/login")


def test_while_it_hangs_people_are_told_in_time_and_log_in_with_their_password(place: Place, browser: Chromium) -> None:
    add(place, "dave")
    begin = Browser(place.running.port)
    place.provider.server.signal(signal.SIGSTOP)
    try:
        for _ in range(8):  # two workers, each with a breaker of its own
            began_s = time.monotonic()
            answer = begin.ask("GET", "/login/sso/corp")
            assert answer.status == 503
            assert int(answer.one("retry-after")) >= 1
            assert time.monotonic() - began_s < TIMEOUT_S + 0.5
        browser.open(place.at("/login/sso/corp"))
        assert "Use your password, or try again in" in browser.text
        browser.picture("login-sso-away")
        browser.fill(username="dave", password=PASSWORD)
        browser.click("form button")
        browser.at("/account")
    finally:
        place.provider.server.signal(signal.SIGCONT)
    wait_until(lambda: begin.ask("GET", "/login/sso/corp").status == 303, "it is asked again")
