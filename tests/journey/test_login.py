"""People log in at a real gateway, go where they wanted, and are gone within a second after they logged out."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.real.browser import Browser, Page
from tests.real.gateway import Gateway, gateway, issuer_toml
from tests.real.http import Answer
from tests.real.people import PASSWORD, add_user
from tests.real.process import wait_until

pytestmark = pytest.mark.journey

CONFIG = """
[sessions]
url = "embedded"

[directory]
url = "embedded"

[login]
enabled = true
url = "https://app.test"

[forward_auth]
login_hosts = ["app.test"]

[[routes]]
path = "/app/{*rest}"
auth = "session"
"""
COOKIE = "__Host-portcullis"
WITHIN_S = 4.0  # a second is the law; the machine of a test may be busy with something else


@pytest.fixture
def running(tmp_path: Path) -> Iterator[Gateway]:
    with gateway(tmp_path, issuer_toml(tmp_path) + CONFIG, workers=2) as made:
        yield made


def forwarded(running: Gateway, browser: Browser) -> Answer:
    """Ask as a proxy does whether the browser may have a page."""
    told = [("X-Forwarded-Method", "GET"), ("X-Forwarded-Uri", "/app/x"), ("X-Forwarded-Host", "app.test")]
    cookie = "; ".join(f"{name}={value}" for name, value in browser.cookies.items())
    sent = [*told, ("X-Forwarded-Proto", "https"), ("Accept", "text/html"), ("Sec-Fetch-Mode", "navigate")]
    return running.ask("GET", "/auth/forward", *sent, *([("Cookie", cookie)] if cookie else []))


def logged_in(
    running: Gateway, name: str = "alice", password: str = PASSWORD, address: str = "/login"
) -> tuple[Browser, Page]:
    browser = Browser(running.port)
    page = browser.get(address)
    return browser, browser.submit(page, "/login", username=name, password=password)


def test_a_browser_logs_in_goes_where_it_wanted_and_is_out_within_a_second(running: Gateway) -> None:
    user_id = add_user(running, "alice")
    browser = Browser(running.port)
    sent_away = forwarded(running, browser)
    assert sent_away.status == 302
    page = browser.get(sent_away.one("location"))
    assert page.status == 200
    page = browser.submit(page, "/login", username="alice", password=PASSWORD)
    assert page.refresh == "https://app.test/app/x"
    answer = forwarded(running, browser)
    assert (answer.status, answer.one("x-auth-subject")) == (200, user_id)

    stolen = Browser(running.port)
    stolen.cookies = dict(browser.cookies)
    page = browser.get("/logout")
    browser.submit(page, "/logout")
    assert COOKIE not in browser.cookies
    out_s = time.monotonic()
    # Each worker has to hear of it; which one answers is chance.
    wait_until(lambda: all(forwarded(running, stolen).status == 302 for _ in range(8)), "the session is over")
    assert time.monotonic() - out_s < WITHIN_S
