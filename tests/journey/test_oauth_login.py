"""A user logs in at the real pages for an application, agrees, and takes it all back by logging out."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Iterator
from urllib.parse import parse_qsl, urlencode, urlsplit

import pytest

from tests.real.browser import Browser, Page
from tests.real.gateway import Gateway, bearer, gateway
from tests.real.http import Answer
from tests.real.people import PASSWORD, add_user, portcullis
from tests.real.process import wait_until

pytestmark = pytest.mark.journey

CALLBACK = "https://client.test/callback"
VERIFIER = "v" * 64
CONFIG = f"""
[sessions]
url = "embedded"

[directory]
url = "embedded"

[login]
enabled = true
url = "https://app.test"
throttle_address_from = 1000

[oauth]
issuer = "https://app.test"
encryption_key = "file:sealing.key"
algorithm = "ES256"

[[oauth.clients]]
id = "client"
name = "The Client"
auth = "none"
redirect_uris = ["{CALLBACK}"]
scopes = ["openid", "profile", "offline_access", "orders:read"]

[[oauth.resources]]
id = "https://app.test/orders"
scopes = ["orders:read"]

[[routes]]
path = "/orders/{{id}}"
scopes = ["orders:read"]
"""


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    folder = tmp_path_factory.mktemp("oauth-login")
    (folder / "sealing.key").write_text("s" * 40)
    (folder / "sealing.key").chmod(0o600)
    with gateway(folder, CONFIG, workers=2) as made:
        yield made


def asked(**changes: str) -> str:
    challenge = base64.urlsafe_b64encode(hashlib.sha256(VERIFIER.encode()).digest()).rstrip(b"=").decode()
    query = {
        "response_type": "code",
        "client_id": "client",
        "redirect_uri": CALLBACK,
        "scope": "openid orders:read",
        "state": "s-1",
        "code_challenge": challenge,
        "code_challenge_method": "S256",
        **changes,
    }
    return "/oauth2/authorize?" + urlencode(query)


def after_login(browser: Browser, page: Page, name: str) -> Page:
    page = browser.submit(page, "/login", username=name, password=PASSWORD)
    return browser.get(page.refresh) if page.refresh else page


def carried(page: Page) -> dict[str, str]:
    assert page.address.startswith(CALLBACK), (page.address, page.text)
    return dict(parse_qsl(urlsplit(page.address).query))


def post(running: Gateway, path: str, **form: str) -> Answer:
    kind = ("content-type", "application/x-www-form-urlencoded")
    return running.ask("POST", path, kind, body=urlencode({"client_id": "client", **form}).encode())


def tokens(running: Gateway, code: str) -> dict[str, str]:
    answer = post(
        running,
        "/oauth2/token",
        grant_type="authorization_code",
        code=code,
        redirect_uri=CALLBACK,
        code_verifier=VERIFIER,
    )
    assert answer.status == 200, answer.body
    members: dict[str, str] = json.loads(answer.body)
    return members


def opens(running: Gateway, members: dict[str, str]) -> bool:
    return any(
        running.ask("GET", "/auth/envoy/orders/1", bearer(members["access_token"])).status == 200 for _ in "1234"
    )


def log_in(running: Gateway, name: str, **changes: str) -> tuple[Browser, dict[str, str], str]:
    user_id = add_user(running, name)
    browser = Browser(running.port)
    page = after_login(browser, browser.get(asked(**changes)), name)
    assert "The Client asks for access" in page.text
    page = browser.submit(page, "/oauth2/consent", decision="allow")
    got = carried(page)
    assert (got["state"], got["iss"]) == ("s-1", "https://app.test")
    return browser, tokens(running, got["code"]), user_id


def test_from_nothing_to_a_token_that_opens_a_door_and_back_by_logging_out(running: Gateway) -> None:
    browser, members, user_id = log_in(running, "alice")
    answer = running.ask("GET", "/auth/envoy/orders/1", bearer(members["access_token"]))
    assert (answer.status, answer.one("x-auth-subject")) == (200, user_id)
    info = running.ask("GET", "/oauth2/userinfo", bearer(members["access_token"]))
    assert info.json == {"sub": user_id}
    # Once more: neither the password nor the question comes again.
    assert "code" in carried(browser.get(asked()))

    browser.submit(browser.get("/logout"), "/logout")
    wait_until(lambda: not opens(running, members), "the tokens of the session are refused", 2.0)
    refused = post(running, "/oauth2/token", grant_type="refresh_token", refresh_token=members["refresh_token"])
    assert refused.json["error"] == "invalid_grant"
    assert browser.get(asked()).form("/login")


def test_what_was_used_once_is_used_up_and_ends_what_it_gave(running: Gateway) -> None:
    browser, first, _ = log_in(running, "erin")
    code = carried(browser.get(asked()))["code"]
    members = tokens(running, code)
    form = {"code": code, "redirect_uri": CALLBACK, "code_verifier": VERIFIER}
    again = post(running, "/oauth2/token", grant_type="authorization_code", **form)
    assert again.json["error"] == "invalid_grant"
    wait_until(lambda: not opens(running, members), "the tokens of the code are refused", 2.0)
    assert opens(running, first)
    for used in (code[:-1], code + "x", "pcc_x", "x" * 5000, "\u2603"):
        form["code"] = used
        assert post(running, "/oauth2/token", grant_type="authorization_code", **form).json["error"] == "invalid_grant"


def test_a_login_that_was_asked_for_anew_takes_place(running: Gateway) -> None:
    browser, _, _ = log_in(running, "bob")
    page = browser.get(asked(prompt="login"))
    assert page.form("/login")
    assert browser.get(asked(prompt="login")).form("/login")
    assert "code" in carried(after_login(browser, page, "bob"))
    assert carried(browser.get(asked(prompt="none"))).get("code")
    assert carried(Browser(running.port).get(asked(prompt="none")))["error"] == "login_required"


def test_who_is_disabled_has_no_tokens_any_more_not_even_offline(running: Gateway) -> None:
    _, members, _ = log_in(running, "carol", scope="openid offline_access orders:read")
    assert opens(running, members)
    portcullis(running, "user", "disable", "carol")
    wait_until(lambda: not opens(running, members), "the tokens of the user are refused", 2.0)
    refused = post(running, "/oauth2/token", grant_type="refresh_token", refresh_token=members["refresh_token"])
    assert refused.json["error"] == "invalid_grant"


def test_a_user_may_say_no(running: Gateway) -> None:
    add_user(running, "dave")
    browser = Browser(running.port)
    page = after_login(browser, browser.get(asked()), "dave")
    got = carried(browser.submit(page, "/oauth2/consent", decision="deny"))
    assert (got["error"], got["state"]) == ("access_denied", "s-1")
