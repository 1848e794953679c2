"""Tokens that are bound to a key open the doors with a proof for each request, and with nothing else (RFC 9449 §7)."""

from __future__ import annotations

import base64
import hashlib
import secrets
import time
from collections.abc import Iterator
from typing import Any
from urllib.parse import urlencode

import pytest

from gateway.tokens.signing import SigningKey, new_key
from tests.real.gateway import Gateway, gateway
from tests.real.http import Answer
from tests.real.process import wait_until
from tests.unit.flows.oauth.world import proof_of

pytestmark = pytest.mark.journey

ENV = {"SEALING": "s" * 32, "JOB_SECRET": "j" * 32}
KEY, OTHER = new_key("ES256"), new_key("ES256")
CONFIG = """
[oauth]
issuer = "https://auth.test"
encryption_key = "env:SEALING"
algorithm = "ES256"
dpop_nonce = false

[[oauth.clients]]
id = "job"
secret = "env:JOB_SECRET"
grant_types = ["client_credentials"]
scopes = ["orders:read"]

[[routes]]
path = "/orders/{id}"
scopes = ["orders:read"]

[[routes]]
path = "/admin/{id}"
scopes = ["admin"]
"""


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    with gateway(tmp_path_factory.mktemp("proofs"), CONFIG, workers=2, env=ENV) as made:
        yield made


def proof(key: SigningKey, url: str, method: str = "GET", token: str = "", **claims: Any) -> tuple[str, str]:
    made = {"jti": secrets.token_hex(8), "htm": method, "htu": url, "iat": int(time.time()), **claims}
    if token:
        made["ath"] = base64.urlsafe_b64encode(hashlib.sha256(token.encode()).digest()).rstrip(b"=").decode()
    return "dpop", proof_of(key, made)


@pytest.fixture(scope="module")
def token(running: Gateway) -> str:
    form = {"grant_type": "client_credentials", "client_id": "job", "client_secret": ENV["JOB_SECRET"]}
    headers = (
        ("content-type", "application/x-www-form-urlencoded"),
        proof(KEY, "https://auth.test/oauth2/token", "POST"),
    )
    answer = running.ask("POST", "/oauth2/token", *headers, body=urlencode(form).encode())
    assert answer.json["token_type"] == "DPoP", answer.body
    return str(answer.json["access_token"])


def forward(
    running: Gateway, token: str, *headers: tuple[str, str], scheme: str = "DPoP", path: str = "/orders/7"
) -> Answer:
    """Ask as Traefik does: it terminates TLS, and says for whom it asks."""
    told = [("X-Forwarded-Method", "GET"), ("X-Forwarded-Proto", "https"), ("X-Forwarded-Host", "shop.test")]
    asked = ("X-Forwarded-Uri", f"{path}?page=2")
    return running.ask("GET", "/auth/forward", *told, asked, ("Authorization", f"{scheme} {token}"), *headers)


URL = "https://shop.test/orders/7"


def test_a_proof_opens_the_door_once(running: Gateway, token: str) -> None:
    made = proof(KEY, URL, token=token)
    answer = forward(running, token, made)
    assert (answer.status, answer.one("x-auth-subject")) == (200, "job")
    assert [forward(running, token, made).status for _ in range(8)] == [401] * 8
    assert forward(running, token, proof(KEY, URL, token=token)).status == 200


def test_nothing_else_opens_it(running: Gateway, token: str) -> None:
    assert forward(running, token, scheme="Bearer").status == 401
    assert forward(running, token, proof(KEY, URL, token=token), scheme="Bearer").status == 401
    assert forward(running, token).status == 401
    for wrong in (
        proof(OTHER, URL, token=token),
        proof(KEY, URL.replace("https", "http"), token=token),
        proof(KEY, "https://other.test/orders/7", token=token),
        proof(KEY, "https://shop.test/orders/8", token=token),
        proof(KEY, URL, "POST", token=token),
        proof(KEY, URL),
        proof(KEY, URL, token="other"),
        proof(KEY, URL, token=token, iat=int(time.time()) - 1000),
        ("dpop", "nonsense"),
    ):
        assert forward(running, token, wrong).status == 401
    two = proof(KEY, URL, token=token), proof(KEY, URL, token=token)
    assert forward(running, token, *two).status == 401
    changed = token[:-4] + ("AAAA" if token[-4:] != "AAAA" else "BBBB")
    assert forward(running, changed, proof(KEY, URL, token=changed)).status == 401
    assert forward(running, "nonsense", proof(KEY, URL, token="nonsense")).status == 401


def test_scopes_count_as_for_every_token(running: Gateway, token: str) -> None:
    answer = forward(running, token, proof(KEY, "https://shop.test/admin/7", token=token), path="/admin/7")
    assert answer.status == 403


def test_whoever_is_refused_learns_of_both_schemes(running: Gateway, token: str) -> None:
    challenges = forward(running, token).all("www-authenticate")
    assert challenges[0].startswith('Bearer realm="portcullis", error="invalid_token"')
    assert challenges[1].startswith('DPoP algs="')


def test_other_doors_know_the_address_too(running: Gateway, token: str) -> None:
    envoy = running.ask(
        "GET",
        "/auth/envoy/orders/7",
        ("X-Forwarded-Proto", "https"),
        ("Authorization", f"DPoP {token}"),
        proof(KEY, URL, token=token),
        host="shop.test",
    )
    assert envoy.status == 200
    nginx = running.ask(
        "GET",
        "/auth/request",
        ("X-Original-URL", URL),
        ("X-Original-Method", "GET"),
        ("Authorization", f"DPoP {token}"),
        proof(KEY, URL, token=token),
    )
    assert nginx.status == 200


def test_a_revoked_one_is_over_whatever_proof_comes(running: Gateway, token: str) -> None:
    form = {"token": token, "client_id": "job", "client_secret": ENV["JOB_SECRET"]}
    kind = ("content-type", "application/x-www-form-urlencoded")
    assert running.ask("POST", "/oauth2/revoke", kind, body=urlencode(form).encode()).status == 200
    wait_until(
        lambda: [forward(running, token, proof(KEY, URL, token=token)).status for _ in range(8)] == [401] * 8,
        "the token is refused by all",
        2.0,
    )
