"""Clients that nobody configured: what they may have, and what they may not."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import httpx2
import pytest

from gateway.config import OAuthStrangersConfig
from gateway.flows.oauth.errors import OAuthRefused
from gateway.flows.oauth.rate_limit import SHARE_OF_ALL, RateLimit
from gateway.flows.oauth.registration import check_redirect
from gateway.tokens.signing import new_key
from tests.unit.flows.oauth.world import CALLBACK, SECRET, World, query
from tests.unit.tokens.fakes import MovedClock

DOCUMENT = "https://app.example/client.json"
METADATA: dict[str, Any] = {
    "client_name": "Stranger",
    "redirect_uris": [CALLBACK],
    "grant_types": ["authorization_code", "refresh_token"],
    "token_endpoint_auth_method": "none",
}


def strangers(folder: Path, **changes: Any) -> World:
    return World(folder, strangers=OAuthStrangersConfig(**{"registration": "open", **changes}))


async def register(world: World, token: str = "", **changes: Any) -> httpx2.Response:
    headers = {"authorization": f"Bearer {token}"} if token else {}
    metadata = {name: value for name, value in {**METADATA, **changes}.items() if value is not None}
    return await world.http.post("/oauth2/register", json=metadata, headers=headers)


async def test_nobody_registers_where_it_is_off(tmp_path: Path) -> None:
    world = World(tmp_path)
    assert (await register(world)).status_code == 404
    assert "registration_endpoint" not in (await world.http.get("/.well-known/openid-configuration")).json()


async def test_a_client_registers_and_its_users_are_asked(tmp_path: Path) -> None:
    world = strangers(tmp_path)
    answer = await register(world)
    assert answer.status_code == 201
    client = answer.json()
    assert client["client_id"].startswith("dyn_") and "client_secret" not in client
    assert client["scope"] == "offline_access openid profile read write"
    world.browser.log_in()
    page = await world.http.get(
        "/oauth2/authorize", params=query(client_id=client["client_id"], scope="openid profile")
    )
    assert page.status_code == 200
    assert "Stranger asks for access" in page.text and "not known to whoever runs this site" in page.text


async def test_a_client_says_where_browsers_go_after_a_logout(tmp_path: Path) -> None:
    world = strangers(tmp_path)
    goodbye = "https://app.example/goodbye"
    client = (await register(world, post_logout_redirect_uris=[goodbye])).json()
    assert client["post_logout_redirect_uris"] == [goodbye]
    wanted = {"client_id": client["client_id"], "post_logout_redirect_uri": goodbye}
    answer = await world.http.get("/oauth2/logout", params=wanted)
    assert (answer.status_code, answer.headers["location"]) == (303, goodbye)


async def test_a_client_with_a_secret_is_told_it_once(tmp_path: Path) -> None:
    world = strangers(tmp_path)
    client = (await register(world, token_endpoint_auth_method=None)).json()
    assert client["token_endpoint_auth_method"] == "client_secret_basic"
    assert client["client_secret_expires_at"] == 0
    form = {"grant_type": "refresh_token", "refresh_token": "x"}
    right = await world.token(form, auth=(client["client_id"], client["client_secret"]))
    assert right.json()["error"] == "invalid_grant"
    wrong = await world.token(form, auth=(client["client_id"], "pcs_wrong"))
    assert wrong.json()["error"] == "invalid_client"
    kept = await world.store.get_client("", client["client_id"])
    assert kept is not None and client["client_secret"] not in repr(kept)


async def test_where_it_needs_a_token_only_who_has_it_registers(tmp_path: Path) -> None:
    world = strangers(tmp_path, registration="token", initial_token="file:secret")
    for token in ("", "wrong"):
        answer = await register(world, token)
        assert answer.status_code == 401
        assert 'error="invalid_token"' in answer.headers["www-authenticate"]
    assert (await register(world, SECRET)).status_code == 201


@pytest.mark.parametrize(
    ("changes", "error"),
    [
        ({"redirect_uris": None}, "invalid_redirect_uri"),
        ({"redirect_uris": []}, "invalid_redirect_uri"),
        ({"redirect_uris": ["http://app.example/cb"]}, "invalid_redirect_uri"),
        ({"redirect_uris": [CALLBACK] * 1 + [f"{CALLBACK}/{n}" for n in range(16)]}, "invalid_redirect_uri"),
        ({"redirect_uris": "x"}, "invalid_client_metadata"),
        ({"post_logout_redirect_uris": ["http://app.example/bye"]}, "invalid_redirect_uri"),
        ({"post_logout_redirect_uris": [f"{CALLBACK}/{n}" for n in range(17)]}, "invalid_redirect_uri"),
        ({"post_logout_redirect_uris": "x"}, "invalid_client_metadata"),
        ({"redirect_uris": [7]}, "invalid_client_metadata"),
        ({"grant_types": ["client_credentials"]}, "invalid_client_metadata"),
        ({"grant_types": ["implicit"]}, "invalid_client_metadata"),
        ({"response_types": ["token"]}, "invalid_client_metadata"),
        ({"token_endpoint_auth_method": "tls_client_auth"}, "invalid_client_metadata"),
        ({"token_endpoint_auth_method": "private_key_jwt"}, "invalid_client_metadata"),
        ({"token_endpoint_auth_method": "private_key_jwt", "jwks": {"keys": []}}, "invalid_client_metadata"),
        ({"client_name": "a\u202eb"}, "invalid_client_metadata"),
        ({"client_name": "x" * 2000}, "invalid_client_metadata"),
        ({"client_name": 7}, "invalid_client_metadata"),
        ({"client_uri": "javascript:alert(1)"}, "invalid_client_metadata"),
    ],
)
async def test_metadata_that_cannot_be_is_refused(tmp_path: Path, changes: dict[str, Any], error: str) -> None:
    answer = await register(strangers(tmp_path), **changes)
    assert (answer.status_code, answer.json()["error"]) == (400, error)


async def test_a_client_may_register_a_key(tmp_path: Path) -> None:
    key = new_key("ES256", kid="k")
    answer = await register(
        strangers(tmp_path), token_endpoint_auth_method="private_key_jwt", jwks={"keys": [key.public_jwk()]}
    )
    assert answer.status_code == 201


async def test_scopes_that_strangers_may_not_have_are_left_out(tmp_path: Path) -> None:
    answer = await register(strangers(tmp_path), scope="openid admin")
    assert answer.json()["scope"] == "openid"


async def test_an_address_registers_so_many_a_minute(tmp_path: Path) -> None:
    world = strangers(tmp_path, per_minute=2)
    assert [(await register(world)).status_code for _ in range(3)] == [201, 201, 429]
    answer = await register(world)
    assert answer.headers["retry-after"] == "60"
    world.clock.move(30)
    assert [(await register(world)).status_code for _ in range(2)] == [201, 429]


def test_all_together_do_as_much_as_ten() -> None:
    clock = MovedClock()
    limit = RateLimit(1, clock)
    assert sum(limit.take(f"10.0.0.{n}") for n in range(100)) == SHARE_OF_ALL
    clock.move(6)
    assert limit.take("10.0.1.1") and not limit.take("10.0.1.2")


@pytest.mark.parametrize(
    "uri",
    [
        "https://app.example/cb",
        "https://app.example:8443/cb?x=1",
        "http://127.0.0.1:1234/cb",
        "http://[::1]/cb",
        "http://localhost:3000/cb",
        "com.example.app:/cb",
    ],
)
def test_addresses_that_are_their_clients_own_are_taken(uri: str) -> None:
    check_redirect(uri)


@pytest.mark.parametrize(
    "uri",
    [
        "",
        "/cb",
        "https:///cb",
        "https://*.example/cb",
        "https://app.example/cb#x",
        "https://user@app.example/cb",
        "https://app.example\\@evil.example/cb",
        "https://app.example:99999/cb",
        "https://app.example:0/cb",
        "https://äpp.example/cb",
        "https://app.example/c b",
        "http://app.example/cb",
        "http://127.0.0.1.evil.example/cb",
        "javascript:alert(1)",
        "data:text/html,x",
        "file:///etc/passwd",
        "myapp:/cb",
    ],
)
def test_addresses_that_may_be_anybodys_are_refused(uri: str) -> None:
    with pytest.raises(OAuthRefused) as refused:
        check_redirect(uri)
    assert refused.value.error == "invalid_redirect_uri"


def test_schemes_of_apps_may_be_allowed_by_name() -> None:
    check_redirect("cursor://callback", {"cursor"})


# --- client id metadata documents


def documented(folder: Path, **changes: Any) -> World:
    world = World(folder, strangers=OAuthStrangersConfig(document_hosts=("app.example", "*.apps.example")))
    world.documents[DOCUMENT] = {
        "client_id": DOCUMENT,
        "client_name": "Documented",
        "redirect_uris": [CALLBACK],
        "grant_types": ["authorization_code", "refresh_token"],
        **changes,
    }
    return world


async def find(world: World, client_id: str = DOCUMENT) -> bool:
    return await world.service.parties.find(client_id) is not None


async def test_a_clients_id_may_be_the_address_of_its_metadata(tmp_path: Path) -> None:
    world = documented(tmp_path)
    assert (await world.http.get("/.well-known/oauth-authorization-server")).json()[
        "client_id_metadata_document_supported"
    ]
    world.browser.log_in()
    page = await world.http.get("/oauth2/authorize", params=query(client_id=DOCUMENT, scope="read"))
    assert "Documented asks for access" in page.text


@pytest.mark.parametrize(
    "changes",
    [
        {"client_id": DOCUMENT + "2"},
        {"client_id": None},
        {"client_secret": "x"},
        {"token_endpoint_auth_method": "client_secret_basic"},
        {"redirect_uris": []},
        {"redirect_uris": ["http://evil.example"]},
    ],
)
async def test_a_document_that_is_not_its_clients_is_none(tmp_path: Path, changes: dict[str, Any]) -> None:
    assert not await find(documented(tmp_path, **changes))


@pytest.mark.parametrize(
    "client_id",
    [
        "https://evil.example/client.json",
        "https://app.example.evil.example/client.json",
        "https://apps.example/client.json",
        "http://app.example/client.json",
        "https://app.example",
        "https://app.example/",
        "https://app.example/a/../client.json",
        "https://app.example/client.json#x",
        "https://user:pw@app.example/client.json",
        "https://app.example:0x/client.json",
        "http://127.0.0.1/client.json",
        "https://[::1]/client.json",
        "https://app.example\\@evil.example/x",
        "ftp://app.example/client.json",
    ],
)
async def test_nothing_is_fetched_from_elsewhere(tmp_path: Path, client_id: str) -> None:
    world = documented(tmp_path)
    world.documents[client_id] = {**world.documents[DOCUMENT], "client_id": client_id}
    assert not await find(world, client_id)
    assert world.fetched == []


async def test_hosts_below_a_name_may_be_allowed(tmp_path: Path) -> None:
    world = documented(tmp_path)
    address = "https://one.apps.example/client.json"
    world.documents[address] = {**world.documents[DOCUMENT], "client_id": address}
    assert await find(world, address)


async def test_a_document_is_kept_for_an_hour_and_a_fault_for_half_a_minute(tmp_path: Path) -> None:
    world = documented(tmp_path)
    document = world.documents.pop(DOCUMENT)
    assert not await find(world)
    world.documents[DOCUMENT] = document
    assert not await find(world)
    world.clock.move(30)
    assert await find(world)
    assert len(world.fetched) == 2
    world.clock.move(3599)
    assert await find(world)
    assert len(world.fetched) == 2
    world.clock.move(1)
    assert all(await asyncio.gather(*(find(world) for _ in range(10))))
    assert len(world.fetched) == 3
