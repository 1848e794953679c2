"""The endpoints of the token service as HTTP: methods, bodies, headers, documents."""

from __future__ import annotations

import asyncio
from pathlib import Path

import joserfc.jwt
import pytest
from authlib.oauth2.rfc7636 import create_s256_code_challenge
from authlib.oauth2.rfc8414 import AuthorizationServerMetadata
from authlib.oidc.discovery import OpenIDProviderMetadata
from joserfc.jwk import KeySet

from gateway.errors import StoreUnavailable
from gateway.front.forms import BODY_BYTES_MAX
from tests.unit.flows.oauth.world import CALLBACK, ISSUER, RESOURCE, VERIFIER, World, query

POSTED = ("/oauth2/token", "/oauth2/par", "/oauth2/revoke")
FORM = {"content-type": "application/x-www-form-urlencoded"}


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)


@pytest.mark.parametrize("path", POSTED)
@pytest.mark.parametrize(
    ("body", "kind", "status"),
    [
        (b"{}", "application/json", 415),
        (b"a=b", "", 415),
        (b"a=b", "multipart/form-data; boundary=x", 415),
        (b"a=" + b"x" * BODY_BYTES_MAX, FORM["content-type"], 413),
        (b"a=%ff", FORM["content-type"], 400),
        (b"a=\xff", FORM["content-type"], 400),
        (b"no pairs", FORM["content-type"], 400),
        (b"&".join(b"a%d=1" % n for n in range(70)), FORM["content-type"], 400),
        (b"", FORM["content-type"], 400),
    ],
)
async def test_a_body_that_is_no_form_is_an_invalid_request(
    world: World, path: str, body: bytes, kind: str, status: int
) -> None:
    answer = await world.http.post(path, content=body, headers={"content-type": kind} if kind else {})
    # An empty form is one: nobody is who sends it, and no token is in it.
    is_form = not body and path != "/oauth2/revoke"
    expected = ("invalid_client" if is_form else "invalid_request", status)
    assert (answer.json()["error"], answer.status_code) == expected


@pytest.mark.parametrize("path", POSTED)
async def test_only_posts_are_taken(world: World, path: str) -> None:
    assert (await world.http.get(path)).status_code == 405


async def test_apps_in_browsers_may_ask_from_anywhere_but_not_authorize(world: World) -> None:
    for path in (*POSTED, "/oauth2/userinfo", "/.well-known/jwks.json", "/.well-known/openid-configuration"):
        ahead = await world.http.request("OPTIONS", path, headers={"origin": "https://spa.example"})
        assert ahead.status_code == 204
        assert ahead.headers["access-control-allow-origin"] == "*"
        assert "DPoP" in ahead.headers["access-control-allow-headers"]
        assert "access-control-allow-credentials" not in ahead.headers
    answer = await world.http.post("/oauth2/token", data={"client_id": "app"})
    assert answer.headers["access-control-allow-origin"] == "*"
    page = await world.http.get("/oauth2/authorize", params=query())
    assert "access-control-allow-origin" not in page.headers


async def test_answers_with_tokens_are_kept_by_nobody(world: World) -> None:
    answer = await world.redeem(await world.code())
    assert answer.headers["cache-control"] == "no-store"
    assert answer.headers["pragma"] == "no-cache"


async def test_an_authorization_request_may_be_posted(world: World) -> None:
    world.browser.log_in()
    answer = await world.http.post("/oauth2/authorize", data=dict(query().multi_items()))
    assert answer.status_code == 303
    assert answer.headers["location"].startswith(CALLBACK)
    assert answer.headers["referrer-policy"] == "no-referrer"


async def test_a_request_that_cannot_be_read_is_shown_a_page(world: World) -> None:
    for target in ("/oauth2/authorize?a=%ff", "/oauth2/authorize?" + "a=b&" * 70, "/oauth2/authorize?a=" + "x" * 17000):
        answer = await world.http.get(target)
        assert answer.status_code in (400, 414)
        assert answer.headers["content-type"].startswith("text/html")
        assert answer.headers["x-request-id"] in answer.text


async def test_a_store_that_is_away_is_temporary(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    code = await world.code()

    async def away(*_: object, **__: object) -> None:
        raise StoreUnavailable("gone")

    for method in ("take", "keep", "look"):
        monkeypatch.setattr(world.store, method, away)
    answer = await world.redeem(code)
    assert (answer.status_code, answer.json()["error"]) == (503, "temporarily_unavailable")
    assert answer.json()["code"] == "store_unavailable"
    assert int(answer.headers["retry-after"]) >= 1
    page = await world.http.get("/oauth2/authorize", params=query())
    assert page.status_code == 503
    assert "location" not in page.headers


async def test_a_full_pool_refuses_logins_and_goes_on_refreshing(world: World) -> None:
    members = await world.log_in()
    hold, held = asyncio.Event(), []

    async def occupy() -> None:
        async with world.resilience.bulkheads.pool("token_validation"):
            held.append(1)
            await hold.wait()

    tasks = [asyncio.create_task(occupy()) for _ in range(180)]  # 90 % of 200: what is left is for refreshes
    while len(held) < 180:
        await asyncio.sleep(0)
    refused = await world.token({"grant_type": "client_credentials", "client_id": "app"})
    assert (refused.status_code, refused.json()["code"]) == (503, "pool_full")
    assert (await world.refresh(members["refresh_token"])).status_code == 200
    hold.set()
    await asyncio.gather(*tasks)


# --- documents


async def test_the_metadata_is_right_by_the_reading_of_others(tmp_path: Path) -> None:
    world = World(tmp_path, algorithm="RS256")
    one = (await world.http.get("/.well-known/openid-configuration")).json()
    other = (await world.http.get("/.well-known/oauth-authorization-server")).json()
    assert one == other
    OpenIDProviderMetadata(one).validate()
    AuthorizationServerMetadata(other).validate()
    for name, address in one.items():
        if name.endswith(("_endpoint", "_uri")):
            answer = await world.http.request("OPTIONS", address)
            assert answer.status_code in (204, 405), name


async def test_tokens_verify_by_the_reading_of_others(world: World) -> None:
    members = await world.log_in()
    answer = await world.http.get("/.well-known/jwks.json")
    assert answer.headers["cache-control"] == "public, max-age=300"
    keys = KeySet.import_key_set(answer.json())
    for name, kind in (("access_token", "at+jwt"), ("id_token", "JWT")):
        token = joserfc.jwt.decode(members[name], keys, algorithms=["ES256"])
        assert token.header["typ"] == kind
        assert token.claims["iss"] == ISSUER
    assert create_s256_code_challenge(VERIFIER) == query()["code_challenge"]


async def test_the_metadata_of_a_resource_lies_at_its_own_host(world: World) -> None:
    path = "/.well-known/oauth-protected-resource"
    answer = await world.http.get(f"https://mcp.example{path}/mcp")
    assert answer.json() == {
        "resource": RESOURCE,
        "authorization_servers": [ISSUER],
        "bearer_methods_supported": ["header"],
        "resource_name": "Tools",
        "dpop_signing_alg_values_supported": answer.json()["dpop_signing_alg_values_supported"],
        "scopes_supported": ["read"],
    }
    assert (await world.http.get(f"https://other.example{path}")).json()["resource"] == "https://other.example"
    for wrong in (f"https://evil.example{path}/mcp", f"https://mcp.example{path}", f"https://other.example{path}/mcp"):
        assert (await world.http.get(wrong)).status_code == 404


async def test_a_gateway_without_resources_has_no_metadata_of_them(tmp_path: Path) -> None:
    world = World(tmp_path, resources=())
    assert (await world.http.get("/.well-known/oauth-protected-resource")).status_code == 404


async def test_who_sends_slowly_holds_no_place(world: World) -> None:
    async def drip() -> object:
        yield b"grant_type="
        pool = next(state for state in world.resilience.state().pools if state.name == "token_validation")
        assert pool.running == 0
        yield b"x&client_id=app"

    answer = await world.http.post("/oauth2/token", content=drip(), headers=FORM)  # type: ignore[arg-type]
    assert answer.json()["error"] == "unsupported_grant_type"
