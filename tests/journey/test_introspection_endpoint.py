"""`/oauth2/introspect` of a real gateway, as resource servers and strangers use it (RFC 7662)."""

from __future__ import annotations

import base64
import time
from collections.abc import Iterator
from urllib.parse import quote_plus, urlencode

import pytest

from tests.real.gateway import AUDIENCE, ISSUER, Gateway, gateway, issuer_toml, mint
from tests.real.http import Answer, Connection, request_bytes
from tests.real.lines import logged

pytestmark = pytest.mark.journey

CLIENT = "orders api"
SECRET = "s:p%+/é"
FORM = ("Content-Type", "application/x-www-form-urlencoded")


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    folder = tmp_path_factory.mktemp("gateway")
    config = f"""
{issuer_toml(folder)}
[[introspection.clients]]
id = "{CLIENT}"
secret = "env:ORDERS_SECRET"

[[introspection.clients]]
id = "plain"
secret = "env:PLAIN_SECRET"

[[routes]]
path = "/{{*rest}}"
"""
    with gateway(folder, config, env={"ORDERS_SECRET": SECRET, "PLAIN_SECRET": "plain-secret"}) as started:
        yield started


def basic(client: str = CLIENT, secret: str = SECRET) -> tuple[str, str]:
    """RFC 6749 §2.3.1: both are form-encoded before they are joined."""
    pair = f"{quote_plus(client)}:{quote_plus(secret)}".encode()
    return ("Authorization", f"Basic {base64.b64encode(pair).decode()}")


def post(running: Gateway, fields: dict[str, str] | bytes, *headers: tuple[str, str]) -> Answer:
    body = fields if isinstance(fields, bytes) else urlencode(fields).encode()
    return running.ask("POST", "/oauth2/introspect", FORM, *headers, body=body)


def assert_inactive(answer: Answer) -> None:
    """RFC 7662 §2.2: an answer about such a token says nothing else."""
    assert (answer.status, answer.body) == (200, b'{"active":false}')
    assert answer.one("content-type") == "application/json"
    assert answer.one("cache-control") == "no-store"


def test_a_good_token_is_described_to_its_resource_server(running: Gateway) -> None:
    now_s = int(time.time())
    token = mint(jti="t-1", client_id="shop", email="a@example.com", nbf=now_s - 5, exp=now_s + 60, iat=now_s - 5)
    for _ in range(2):
        answer = post(running, {"token": token, "token_type_hint": "access_token"}, basic())
        assert answer.status == 200
        assert answer.one("cache-control") == "no-store"
        assert answer.json == {
            "active": True,
            "token_type": "Bearer",
            "scope": "orders:read",
            "client_id": "shop",
            "exp": now_s + 60,
            "iat": now_s - 5,
            "nbf": now_s - 5,
            "sub": "alice",
            "aud": AUDIENCE,
            "iss": ISSUER,
            "jti": "t-1",
        }


def test_a_hint_that_is_wrong_or_unknown_changes_nothing(running: Gateway) -> None:
    for hint in ("refresh_token", "what", ""):
        assert post(running, {"token": mint(), "token_type_hint": hint}, basic()).json["active"] is True


@pytest.mark.parametrize(
    "token",
    [
        lambda: mint(exp=1),
        lambda: mint(aud="another-api"),
        lambda: mint(iss="https://stranger.test"),
        lambda: mint("stranger"),
        lambda: mint()[:-8] + "AAAAAAAA",
        lambda: mint() + "=",
        lambda: "opaque",
        lambda: "a.b.c",
        lambda: "..",
        lambda: "x" * 9000,
        lambda: "é\n\0",
        lambda: "eyJhbGciOiJub25lIn0.eyJzdWIiOiJhIn0.",
    ],
)
def test_a_token_that_is_not_good_is_inactive_and_nothing_more_is_said(running: Gateway, token: object) -> None:
    assert callable(token)
    assert_inactive(post(running, {"token": token()}, basic()))


def test_a_client_proves_itself_in_the_header_or_in_the_form(running: Gateway) -> None:
    token = mint()
    assert post(running, {"token": token}, basic()).json["active"] is True
    assert post(running, {"token": token}, basic("plain", "plain-secret")).json["active"] is True
    assert post(running, {"token": token, "client_id": CLIENT, "client_secret": SECRET}).json["active"] is True
    assert post(running, {"token": token, "client_id": CLIENT}, basic()).json["active"] is True


@pytest.mark.parametrize(
    ("fields", "headers"),
    [
        ({}, []),
        ({}, [basic(secret="wrong")]),
        ({}, [basic(client="nobody")]),
        ({}, [basic("plain", SECRET)]),
        ({}, [basic(secret="")]),
        ({}, [basic(client="", secret="")]),
        ({"client_id": CLIENT}, []),
        ({"client_secret": SECRET}, []),
        ({"client_id": CLIENT, "client_secret": ""}, []),
        ({"client_id": CLIENT, "client_secret": "wrong"}, []),
        ({"client_id": CLIENT, "client_secret": SECRET}, [basic()]),  # two ways at once (RFC 6749 §2.3)
        ({}, [("Authorization", "Basic")]),
        ({}, [("Authorization", "Basic !!!")]),
        ({}, [("Authorization", "Basic \xe9\xff")]),
        ({}, [("Authorization", "Basic " + base64.b64encode(b"no-colon").decode())]),
        ({}, [("Authorization", "Basic " + base64.b64encode(b"\xff:\xff").decode())]),
    ],
)
def test_who_does_not_prove_itself_learns_nothing(
    running: Gateway, fields: dict[str, str], headers: list[tuple[str, str]]
) -> None:
    answers = [post(running, {"token": token, **fields}, *headers) for token in (mint(), "nonsense")]
    for answer in answers:
        assert (answer.status, answer.json["code"]) == (401, "invalid_client")
        assert answer.one("www-authenticate") == 'Basic realm="introspection"'
        assert answer.one("cache-control") == "no-store"
        line = logged(running.server, logger="portcullis.introspection", request_id=answer.json["request_id"])
        assert line["level"] == "warning"


def test_a_token_is_no_credential_of_a_resource_server(running: Gateway) -> None:
    """Somebody's access token must not tell about other tokens."""
    answer = post(running, {"token": mint()}, ("Authorization", f"Bearer {mint()}"))
    assert (answer.status, answer.json["code"]) == (401, "invalid_client")


def test_two_authorizations_are_refused(running: Gateway) -> None:
    for pair in ([basic(), basic()], [basic(secret="wrong"), basic()]):
        assert post(running, {"token": mint()}, *pair).status == 400


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"token=",
        b"toke=x",
        b"token=a&token=b",
        b"token=a&token_type_hint=x&token_type_hint=y",
        b"token",
        b"=",
        b"&&",
        b"\xff\xfe",
        b"a=1&" * 40 + b"token=x",
        b'{"token": "x"}',
    ],
)
def test_a_form_that_cannot_be_read_in_one_way_is_a_400(running: Gateway, body: bytes) -> None:
    answer = post(running, body, basic())
    assert (answer.status, answer.json["code"]) == (400, "invalid_request")


def test_a_form_has_a_limit(running: Gateway) -> None:
    fits = b"token=" + b"x" * (32 * 1024 - 6)
    assert_inactive(post(running, fits, basic()))
    answer = post(running, fits + b"x", basic())
    assert (answer.status, answer.json["code"]) == (413, "body_too_large")


@pytest.mark.parametrize(
    "kind",
    ["application/json", "text/plain", "multipart/form-data; boundary=x", "", "application/x-www-form-urlencoded2"],
)
def test_another_content_type_is_a_415(running: Gateway, kind: str) -> None:
    answer = running.ask("POST", "/oauth2/introspect", ("Content-Type", kind), basic(), body=b"token=x")
    assert (answer.status, answer.json["code"]) == (415, "unsupported_media_type")


def test_parameters_of_the_content_type_do_not_matter(running: Gateway) -> None:
    for kind in ("application/x-www-form-urlencoded; charset=UTF-8", "Application/X-WWW-Form-URLEncoded"):
        headers = [("Content-Type", kind), basic()]
        answer = running.ask("POST", "/oauth2/introspect", *headers, body=urlencode({"token": mint()}).encode())
        assert answer.json["active"] is True


@pytest.mark.parametrize("method", ["GET", "PUT", "DELETE", "PATCH", "OPTIONS", "TRACE"])
def test_only_post_is_served_so_that_no_token_stands_in_an_address(running: Gateway, method: str) -> None:
    """RFC 7662 §4: tokens must not leak by URLs and logs."""
    token = mint(jti="in-an-address")
    answer = running.ask(method, f"/oauth2/introspect?token={token}", basic())
    assert (answer.status, answer.json["code"]) == (405, "method_not_allowed")
    assert answer.one("allow") == "POST"
    assert token.split(".")[1] not in running.server.output


@pytest.mark.parametrize(
    "target", ["/oauth2/introspect/", "/oauth2//introspect", "/oauth2/introspec%74", "/OAUTH2/introspect"]
)
def test_another_spelling_of_the_address_is_not_the_endpoint(running: Gateway, target: str) -> None:
    answer = running.ask("POST", target, FORM, basic(), body=urlencode({"token": mint()}).encode())
    assert answer.status in {400, 401, 404}
    assert b"active" not in answer.body


def test_forms_in_pieces_and_many_on_one_connection(running: Gateway) -> None:
    body = urlencode({"token": mint()}).encode()
    with Connection(running.port) as connection:
        for _ in range(3):
            connection.send(
                request_bytes("POST", "/oauth2/introspect", [FORM, basic(), ("Transfer-Encoding", "chunked")])
            )
            for byte in body[:10]:
                connection.send(b"1\r\n" + bytes([byte]) + b"\r\n")
            connection.send(b"%x\r\n%b\r\n0\r\n\r\n" % (len(body) - 10, body[10:]))
            assert connection.read_answer().json["active"] is True
            assert connection.request("POST", "/oauth2/introspect", [FORM], b"token=x").status == 401


def test_nothing_of_it_was_an_error_of_ours(running: Gateway) -> None:
    post(running, {"token": mint()}, ("Authorization", "Basic \xe9"))
    assert '"level":"error"' not in running.server.output
    assert SECRET not in running.server.output
