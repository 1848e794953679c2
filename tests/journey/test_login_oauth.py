"""Applications log people in through the gateway's pages, ask for more where they need it, and hear when it is over."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import json
import os
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from signal import SIGKILL
from typing import Any
from urllib.parse import parse_qs, urlencode, urlsplit

import jwt
import pytest

from gateway.stores import open_deferred_work
from gateway.types import SystemClock
from tests.journey.test_login import code_of, secret_of
from tests.real.browser import Browser, Page
from tests.real.gateway import Gateway, gateway
from tests.real.people import PASSWORD, add_user
from tests.real.process import free_port, wait_until

pytestmark = pytest.mark.journey

ENV = {"SEALING": "s" * 32, "SHOP_SECRET": "x" * 32}
EVENT = "http://schemas.openid.net/event/backchannel-logout"
VERIFIER = "v" * 43
BACK = "https://shop.test/back"
CONFIG = """
[sessions]
url = "embedded"

[directory]
url = "embedded"

[login]
enabled = true

[oauth]
issuer = "https://app.test"
encryption_key = "env:SEALING"

[[oauth.clients]]
id = "shop"
secret = "env:SHOP_SECRET"
redirect_uris = ["https://shop.test/back"]
consent = "implied"
backchannel_logout_uri = "http://127.0.0.1:PORT/logout"
"""


class Shop:
    """An application that hears when sessions are over."""

    def __init__(self, port: int = 0) -> None:
        self.told: list[dict[str, list[str]]] = []
        shop = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["content-length"]))
                shop.told.append(parse_qs(body.decode()))
                self.send_response(204)
                self.end_headers()

            def log_message(self, format: str, *args: Any) -> None:
                """Say nothing."""

        self._server = HTTPServer(("127.0.0.1", port), Handler)
        self.port = self._server.server_port
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)
        self._thread.start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


@pytest.fixture(scope="module")
def shop() -> Iterator[Shop]:
    made = Shop()
    yield made
    made.close()


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory, shop: Shop) -> Iterator[Gateway]:
    folder: Path = tmp_path_factory.mktemp("oauth")
    with gateway(folder, CONFIG.replace("PORT", str(shop.port)), workers=2, env=ENV) as made:
        yield made


def authorize(**more: str) -> str:
    challenge = base64.urlsafe_b64encode(hashlib.sha256(VERIFIER.encode()).digest()).rstrip(b"=").decode()
    asked = {
        "response_type": "code",
        "client_id": "shop",
        "redirect_uri": BACK,
        "scope": "openid profile",
        "state": "s",
        "code_challenge": challenge,
        "code_challenge_method": "S256",
        **more,
    }
    return f"/oauth2/authorize?{urlencode(asked)}"


def redeemed(running: Gateway, page: Page) -> dict[str, Any]:
    """Redeem the code that a browser brought to the shop; return the claims of the id token."""
    assert page.address.startswith(f"{BACK}?"), page.text
    (code,) = parse_qs(urlsplit(page.address).query)["code"]
    basic = base64.b64encode(f"shop:{ENV['SHOP_SECRET']}".encode()).decode()
    form = {"grant_type": "authorization_code", "code": code, "redirect_uri": BACK, "code_verifier": VERIFIER}
    answer = running.ask(
        "POST",
        "/oauth2/token",
        ("Authorization", f"Basic {basic}"),
        ("Content-Type", "application/x-www-form-urlencoded"),
        body=urlencode(form).encode(),
    )
    assert answer.status == 200, answer.body
    claims: dict[str, Any] = jwt.decode(answer.json["id_token"], options={"verify_signature": False})
    return claims


def test_an_application_logs_somebody_in_asks_for_more_and_hears_when_it_is_over(running: Gateway, shop: Shop) -> None:
    user_id = add_user(running, "alice", env=ENV)
    browser = Browser(running.port)
    page = browser.get(authorize())
    page = browser.submit(page, "/login", username="alice", password=PASSWORD)
    assert page.refresh.startswith("/oauth2/authorize?")
    first = redeemed(running, browser.get(page.refresh))
    assert (first["sub"], first["amr"], first["acr"]) == (user_id, ["pwd"], "1fa")

    # RFC 9470: two factors, which alice has to set up first.
    page = browser.get(authorize(acr_values="2fa"))
    secret = secret_of(page)
    page = browser.submit(page, "/mfa/enrol", code=code_of(secret, -1))
    (target,) = [link for link in page.links if link.startswith("/oauth2/authorize?")]
    second = redeemed(running, browser.get(target))
    assert (second["amr"], second["acr"]) == (["pwd", "otp", "mfa"], "2fa")
    assert second["sid"] == first["sid"]  # it is the same session, whatever its id is now

    # `prompt=login`: a password is asked for although there is a session.
    page = browser.get(authorize(prompt="login"))
    page = browser.submit(page, "/login", username="alice", password=PASSWORD)
    page = browser.submit(page, "/mfa", code=code_of(secret))
    third = redeemed(running, browser.get(page.refresh))
    assert third["auth_time"] >= second["auth_time"]

    browser.submit(browser.get("/logout"), "/logout")
    wait_until(lambda: bool(shop.told), "the shop is told")
    ((token,),) = [told["logout_token"] for told in shop.told]
    published = running.ask("GET", "/.well-known/jwks.json").json
    key = jwt.PyJWKSet.from_dict(published)[jwt.get_unverified_header(token)["kid"]]
    claims = jwt.decode(token, key, algorithms=["RS256"], audience="shop", issuer="https://app.test")
    assert jwt.get_unverified_header(token)["typ"] == "logout+jwt"
    assert (claims["sub"], claims["sid"], claims["events"]) == (user_id, first["sid"], {EVENT: {}})
    assert "nonce" not in claims
    metadata = json.loads(running.ask("GET", "/.well-known/openid-configuration").body)
    assert metadata["backchannel_logout_supported"] is True


def test_nobody_is_told_who_does_not_know_the_session(running: Gateway, shop: Shop) -> None:
    add_user(running, "bob", env=ENV)
    before = len(shop.told)
    stranger = Browser(running.port)
    stranger.submit(stranger.get("/login"), "/login", username="bob", password=PASSWORD)
    stranger.submit(stranger.get("/logout"), "/logout")
    known = Browser(running.port)
    page = known.submit(known.get(authorize()), "/login", username="bob", password=PASSWORD)
    redeemed(running, known.get(page.refresh))
    known.submit(known.get("/account"), "/account/sessions/end-all")
    wait_until(lambda: len(shop.told) > before, "the shop is told")
    assert len(shop.told) == before + 1


def left_to_do(run_dir: Path) -> tuple[int, int]:
    """Tell how many jobs wait, and how many were set aside; those that were done are never done again."""

    async def look() -> tuple[int, int]:
        work = open_deferred_work("", run_dir, SystemClock())
        try:
            backlog = await work.backlog()
            return backlog.waiting, backlog.dead
        finally:
            await work.close()

    return asyncio.run(look())


def test_a_notice_survives_the_gateway_that_promised_it_and_comes_once(tmp_path: Path) -> None:
    port = free_port()  # where nobody listens yet
    with gateway(tmp_path, CONFIG.replace("PORT", str(port)), workers=2, env=ENV) as running:
        add_user(running, "carol", env=ENV)
        browser = Browser(running.port)
        page = browser.submit(browser.get(authorize()), "/login", username="carol", password=PASSWORD)
        known = redeemed(running, browser.get(page.refresh))
        browser.submit(browser.get("/logout"), "/logout")
        os.killpg(running.server.process.pid, SIGKILL)
        running.server.process.wait()
        running.restart()
        shop = Shop(port)
        try:
            wait_until(lambda: bool(shop.told), "the shop is told", 90.0)
            wait_until(lambda: left_to_do(tmp_path / "run") == (0, 0), "the notice is done with")
            ((token,),) = [told["logout_token"] for told in shop.told]
            assert jwt.decode(token, options={"verify_signature": False})["sid"] == known["sid"]
        finally:
            shop.close()
