"""Passkeys and an identity provider at a real gateway, with what nobody honest would send."""

from __future__ import annotations

import json
import re
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.real.authenticator import SoftAuthenticator
from tests.real.browser import HOST, Browser
from tests.real.gateway import Gateway, gateway, issuer_toml
from tests.real.http import Answer, ask
from tests.real.identity_provider import CLIENT_SECRET, RealIdentityProvider
from tests.real.issuer_thread import IssuerThread
from tests.real.people import PASSWORD, portcullis
from tests.real.process import free_port, wait_until

pytestmark = pytest.mark.journey

ORIGIN = f"https://{HOST}"
COOKIE = "__Host-portcullis"
CONFIG = """
[sessions]
url = "embedded"

[directory]
url = "embedded"

[login]
enabled = true
url = "https://app.test"

[passkeys]
rp_id = "app.test"

[[sso]]
id = "corp"
issuer = "ISSUER"
client_id = "portcullis"
client_secret = "file:FOLDER/client"
link_email = true
email_domains = ["corp.example"]

[[routes]]
path = "/app/{*rest}"
auth = "session"
"""


@pytest.fixture(scope="module")
def provider() -> Iterator[RealIdentityProvider]:
    thread = IssuerThread(free_port(), [])
    idp = RealIdentityProvider()
    idp.issuer, thread.issuer = thread.issuer.issuer, idp
    with thread:
        yield idp


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory, provider: RealIdentityProvider) -> Iterator[Gateway]:
    folder: Path = tmp_path_factory.mktemp("ways")
    (folder / "client").write_text(CLIENT_SECRET)
    (folder / "client").chmod(0o600)
    config = CONFIG.replace("ISSUER", provider.issuer).replace("FOLDER", str(folder))
    with gateway(folder, issuer_toml(folder) + config, workers=2) as started:
        portcullis(started, "user", "add", "alice", "--email", "alice@corp.example", given=f"{PASSWORD}\n")
        yield started


def post_json(browser: Browser, path: str, body: object, *headers: tuple[str, str]) -> Answer:
    """Send what the script would."""
    cookie = "; ".join(f"{name}={value}" for name, value in browser.cookies.items())
    sent = [("Cookie", cookie), ("Content-Type", "application/json"), *headers]
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    answer = ask(browser.port, "POST", path, sent, data, HOST)
    for line in answer.all("set-cookie"):
        name, _, value = line.partition(";")[0].partition("=")
        browser.cookies[name] = value.strip('"')
    return answer


def csrf_of(browser: Browser, path: str) -> str:
    found = re.search(r'name="csrf" value="([^"]+)"', browser.get(path).text)
    assert found is not None
    return found[1]


def members(answer: Answer) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(answer.body)
    return found


def there_and_back(browser: Browser, provider: RealIdentityProvider, start: str = "/login/sso/corp") -> str:
    """Go to the provider; return the address that it sends the browser to, on this host."""
    sent = browser.ask("GET", start)
    assert sent.status == 303, sent.body
    return provider.authorize(sent.one("location")).removeprefix(ORIGIN)


@pytest.fixture(scope="module")
def device(running: Gateway) -> SoftAuthenticator:
    """An authenticator with a passkey of alice."""
    made = SoftAuthenticator(ORIGIN)
    browser = Browser(running.port)
    browser.submit(browser.get("/login"), "/login", username="alice", password=PASSWORD)
    csrf = csrf_of(browser, "/account/passkeys")
    options = members(post_json(browser, "/account/passkeys/add/options", {"csrf": csrf}))
    done = post_json(browser, "/account/passkeys/add", {"csrf": csrf, "name": "x", "answer": made.create(options)})
    assert done.status == 200, done.body
    return made


def test_a_passkey_logs_in_once_whichever_worker_is_asked(running: Gateway, device: SoftAuthenticator) -> None:
    browser = Browser(running.port)
    csrf = csrf_of(browser, "/login")
    options = members(post_json(browser, "/login/passkey/options", {"csrf": csrf}))
    body = {"csrf": csrf, "answer": device.get(options)}
    before = dict(browser.cookies)
    assert post_json(browser, "/login/passkey", body).status == 200
    assert browser.get("/account").status == 200
    for _ in range(6):
        browser.cookies = dict(before)
        again = post_json(browser, "/login/passkey", body)
        assert (again.status, members(again)["code"]) == (400, "passkey_refused")
        assert COOKIE not in browser.cookies


@pytest.mark.parametrize(
    "forged",
    [{"origin": "https://evil.test"}, {"rp_id": "evil.test"}, {"signature": b"x"}, {"flags": 1}, {"sign_count": 0}],
)
def test_a_forged_passkey_logs_nobody_in(running: Gateway, device: SoftAuthenticator, forged: dict[str, Any]) -> None:
    browser = Browser(running.port)
    csrf = csrf_of(browser, "/login")
    options = members(post_json(browser, "/login/passkey/options", {"csrf": csrf}))
    refused = post_json(browser, "/login/passkey", {"csrf": csrf, "answer": device.get(options, **forged)})
    assert (refused.status, members(refused)["code"]) == (400, "passkey_refused")
    assert COOKIE not in browser.cookies


@pytest.mark.parametrize(
    ("body", "headers", "status"),
    [
        (b"{", (), 400),
        (b'{"csrf": "a", "csrf": "b"}', (), 400),
        (b'{"csrf": "' + b"x" * 40_000 + b'"}', (), 413),
        ({}, (), 403),
        ({"csrf": "made-up"}, (), 403),
        ({"csrf": "@"}, (("Origin", "https://evil.test"),), 403),
        ({"csrf": "@"}, (("Sec-Fetch-Site", "cross-site"),), 403),
    ],
)
def test_an_odd_question_of_a_script_is_refused(
    running: Gateway, body: Any, headers: tuple[tuple[str, str], ...], status: int
) -> None:
    browser = Browser(running.port)
    csrf = csrf_of(browser, "/login")
    sent = {"csrf": csrf} if body == {"csrf": "@"} else body
    refused = post_json(browser, "/login/passkey/options", sent, *headers)
    assert (refused.status, bool(members(refused)["code"])) == (status, True)


def test_an_answer_of_a_provider_counts_once_and_in_its_browser(
    running: Gateway, provider: RealIdentityProvider
) -> None:
    browser = Browser(running.port)
    back = there_and_back(browser, provider, "/login/sso/corp?rd=/app/x")
    other = Browser(running.port)
    other.get("/login")
    assert other.ask("GET", back).status == 403
    assert COOKIE not in other.cookies
    back = there_and_back(browser, provider, "/login/sso/corp?rd=/app/x")
    done = browser.ask("GET", back)
    # The passkey of alice is asked for as a second factor, where she has one already.
    assert (done.status, done.one("location") in {"/app/x", "/mfa"}) == (303, True)
    for _ in range(4):
        assert browser.ask("GET", back).status == 403


@pytest.mark.parametrize(
    "forged",
    [
        {"iss": "https://evil.test"},
        {"iss": None},
        {"state": "made-up"},
        {"code": "made-up"},
        {"code": None},
        {"error": "access_denied"},
    ],
)
def test_a_forged_answer_of_a_provider_logs_nobody_in(
    running: Gateway, provider: RealIdentityProvider, forged: dict[str, str | None]
) -> None:
    browser = Browser(running.port)
    provider.forge_answer = forged
    try:
        refused = browser.ask("GET", there_and_back(browser, provider))
    finally:
        provider.forge_answer = {}
    assert refused.status == 403
    assert COOKIE not in browser.cookies


def test_an_odd_logout_token_is_refused_in_the_words_of_the_standard(running: Gateway) -> None:
    browser = Browser(running.port)
    for form in ({"logout_token": "a.b.c"}, {}, {"logout_token": "x" * 40_000}):
        refused = browser.ask("POST", "/login/sso/corp/backchannel", form=form)
        assert (refused.status, members(refused)["error"]) == (400, "invalid_request")


def test_a_reload_changes_the_ways_and_ends_none_that_is_under_way(
    running: Gateway, provider: RealIdentityProvider
) -> None:
    browser = Browser(running.port)
    back = there_and_back(browser, provider)
    text = running.path.read_text()
    running.path.write_text(text.replace('id = "corp"', 'id = "corp"\nname = "Another Name"'))
    running.server.signal(signal.SIGHUP)
    try:
        wait_until(
            lambda: all("Another Name" in Browser(running.port).get("/login").text for _ in range(6)), "the new name"
        )
        assert browser.ask("GET", back).status == 303
    finally:
        running.path.write_text(text)
        running.server.signal(signal.SIGHUP)
