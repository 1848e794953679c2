"""The token service of two workers over one store: what one has done the other knows, in every backend."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path

import pytest

from gateway.config import OAuthStrangersConfig
from gateway.tokens.signing import new_key
from tests.contract.test_token_store import (  # noqa: F401  (fixtures)
    Opener,
    open_another,
    postgres,
)
from tests.unit.flows.oauth.world import CALLBACK, SECRET, World, carried, query
from tests.unit.tokens.fakes import MovedClock


@pytest.fixture
def clock() -> MovedClock:
    """The time of both workers and of the store; real servers forget what is over by their own clock."""
    clock = MovedClock()
    clock.offset_s = time.time() - clock.now_s
    return clock


class Workers:
    """Two workers of one gateway, and a browser that is known to both."""

    def __init__(self, folder: Path, opener: Opener, clock: MovedClock) -> None:
        strangers = OAuthStrangersConfig(registration="open")
        self.one, self.other = (World(folder, lambda _: opener(), clock=clock, strangers=strangers) for _ in range(2))
        self.one.browser.log_in()
        self.other.browser.session = self.one.browser.session


@pytest.fixture
def workers(tmp_path: Path, open_another: Opener, clock: MovedClock) -> Workers:  # noqa: F811
    return Workers(tmp_path, open_another, clock)


async def test_a_login_goes_on_at_whichever_worker(workers: Workers) -> None:
    code = await workers.one.code(scope="openid read")
    members = (await workers.other.redeem(code)).json()
    newer = (await workers.one.refresh(members["refresh_token"])).json()
    assert (await workers.other.introspect(newer["refresh_token"]))["active"]
    assert (await workers.other.introspect(members["refresh_token"])) == {"active": False}
    form = {"token": newer["refresh_token"], "client_id": "app"}
    assert (await workers.other.http.post("/oauth2/revoke", data=form)).status_code == 200
    assert (await workers.one.refresh(newer["refresh_token"])).json()["error"] == "invalid_grant"


async def test_many_refreshes_at_once_get_one_next_token(workers: Workers) -> None:
    token = (await workers.one.log_in())["refresh_token"]
    for _ in range(3):
        answers = await asyncio.gather(
            *(world.refresh(token) for _ in range(5) for world in (workers.one, workers.other))
        )
        assert {answer.status_code for answer in answers} == {200}
        (token,) = {answer.json()["refresh_token"] for answer in answers}
    assert token.split(".")[1] == "4"


async def test_a_refresh_token_that_comes_again_ends_its_family_at_both(workers: Workers, clock: MovedClock) -> None:
    first = (await workers.one.log_in())["refresh_token"]
    second = (await workers.one.refresh(first)).json()["refresh_token"]
    clock.move(10)
    assert (await workers.other.refresh(first)).json()["error"] == "invalid_grant"
    workers.other.browser.session = workers.one.browser.session
    assert (await workers.one.refresh(second)).json()["error"] == "invalid_grant"


async def test_a_code_that_many_redeem_gives_at_most_one_and_then_nothing(workers: Workers) -> None:
    code = await workers.one.code()
    answers = await asyncio.gather(*(world.redeem(code) for _ in range(4) for world in (workers.one, workers.other)))
    given = [answer.json() for answer in answers if answer.status_code == 200]
    assert len(given) <= 1
    for members in given:
        assert (await workers.other.refresh(members["refresh_token"])).json()["error"] == "invalid_grant"


async def test_a_proof_counts_at_one_worker_only(workers: Workers) -> None:
    key = new_key("ES256")
    proof = workers.one.proof(key, nonce=workers.other.service.nonce())
    form = {"grant_type": "client_credentials", "client_id": "job", "client_secret": SECRET}
    answers = await asyncio.gather(
        *(
            world.http.post("/oauth2/token", data=form, headers={"dpop": proof})
            for _ in range(4)
            for world in (workers.one, workers.other)
        )
    )
    assert sorted(answer.status_code for answer in answers) == [200] + [400] * 7
    assert {answer.json()["error"] for answer in answers if answer.status_code == 400} == {"invalid_dpop_proof"}


async def test_a_pushed_request_is_answered_once(workers: Workers) -> None:
    pushed = await workers.one.http.post("/oauth2/par", data=dict(query().multi_items()))
    where = query(request_uri=pushed.json()["request_uri"])
    answers = [await world.http.get("/oauth2/authorize", params=where) for world in (workers.other, workers.one)]
    assert answers[0].headers["location"].startswith(CALLBACK) and "code" in carried(answers[0])
    assert answers[1].status_code == 400


async def test_a_client_that_registered_and_a_consent_are_known_to_both(workers: Workers) -> None:
    metadata = {"redirect_uris": [CALLBACK], "token_endpoint_auth_method": "none"}
    client_id = (await workers.one.http.post("/oauth2/register", json=metadata)).json()["client_id"]
    where = query(client_id=client_id, scope="read")
    page = await workers.other.http.get("/oauth2/authorize", params=where)
    assert page.status_code == 200
    form = {name: page.text.partition(f'name="{name}" value="')[2].partition('"')[0] for name in ("request", "csrf")}
    form = {name: value.replace("&amp;", "&") for name, value in form.items()}
    allowed = await workers.other.http.post("/oauth2/consent", data={**form, "decision": "allow"})
    assert "code" in carried(allowed)
    assert "code" in carried(await workers.one.http.get("/oauth2/authorize", params=where))
