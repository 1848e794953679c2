"""What may be used once is used once, in whatever order requests come and their calls to the store take place."""

from __future__ import annotations

import asyncio
import json
import secrets
import tempfile
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.config import OAuthClientConfig
from gateway.flows.oauth import ClientProof, OAuthRefused, Redirect, RequestUnsafe, TokenRequest
from gateway.flows.trail import NOBODY
from gateway.stores.grants_records import KIND, RecordTokenStore
from gateway.stores.records_memory import MemoryRecordStore
from gateway.tokens.signing import mint, new_key
from tests.unit.flows.oauth.orderings import Stepwise, every_order, run
from tests.unit.flows.oauth.world import CALLBACK, ISSUER, VERIFIER, World, claims_of, query

Outcome = dict[str, Any] | str  # the members of an answer, or the reason why there is none


@cache
def folder() -> Path:
    """Give one folder for all examples: the signing key in it is made once."""
    return Path(tempfile.mkdtemp(prefix="portcullis-oauth-"))


class Race:
    """A world whose store lets calls go one by one."""

    def __init__(self, **changes: Any) -> None:
        self.stepwise = Stepwise(MemoryRecordStore(KIND))
        self.world = World(folder(), lambda clock: RecordTokenStore(self.stepwise.as_records, clock), **changes)

    async def token(self, form: dict[str, str], dpop: tuple[str, ...] = ()) -> Outcome:
        """Ask for tokens; give the reason instead of raising it."""
        request = TokenRequest(
            form=list(form.items()), proof=ClientProof(id="app"), dpop=dpop, url=f"{ISSUER}/oauth2/token"
        )
        try:
            return await self.world.service.token(request)
        except OAuthRefused as refused:
            return refused.reason

    async def redeem(self, code: str, dpop: tuple[str, ...] = ()) -> Outcome:
        form = {"grant_type": "authorization_code", "code": code, "redirect_uri": CALLBACK, "code_verifier": VERIFIER}
        return await self.token(form, dpop)

    async def refresh(self, token: str) -> Outcome:
        return await self.token({"grant_type": "refresh_token", "refresh_token": token})

    async def log_in(self) -> dict[str, Any]:
        members = await self.redeem(await self.world.code())
        assert isinstance(members, dict)
        return members


def given_of(outcomes: list[Outcome]) -> list[dict[str, Any]]:
    return [outcome for outcome in outcomes if isinstance(outcome, dict)]


def in_every_order(scenario: Callable[[Callable[[int], int]], Any]) -> int:
    count = 0
    for order in every_order():
        asyncio.run(scenario(order))
        count += 1
    return count


def test_two_refreshes_at_once_get_the_same_next_token_in_every_order() -> None:
    async def scenario(order: Callable[[int], int]) -> None:
        race = Race()
        first = (await race.log_in())["refresh_token"]
        works = [lambda: race.refresh(first), lambda: race.refresh(first)]
        outcomes = given_of(await run(race.stepwise, works, order))
        assert len(outcomes) == 2
        (successor,) = {outcome["refresh_token"] for outcome in outcomes}
        assert successor != first
        assert isinstance(await race.refresh(successor), dict)
        # The line went on: what gave its successor twice gives nothing a third time, and ends everything.
        assert await race.refresh(first) == "refresh_reused"
        assert await race.refresh(successor) == "refresh_unknown"

    assert in_every_order(scenario) >= 50


@given(st.integers(3, 5), st.randoms(use_true_random=False), st.sampled_from([0, 5, 10, 11, 1000]))
@settings(max_examples=60)
def test_of_many_refreshes_in_any_order_one_line_of_tokens_comes(count: int, random: Any, late_s: int) -> None:
    async def scenario() -> None:
        race = Race()
        first = (await race.log_in())["refresh_token"]
        works = [lambda: race.refresh(first)] * count
        outcomes = given_of(await run(race.stepwise, works, random.randrange))
        assert len(outcomes) == count
        (successor,) = {outcome["refresh_token"] for outcome in outcomes}
        race.world.clock.move(late_s)
        again = await race.refresh(first)
        if late_s < race.world.config.refresh_grace_s:
            assert isinstance(again, dict) and again["refresh_token"] == successor
        else:
            assert again == "refresh_reused"
            assert await race.refresh(successor) == "refresh_unknown"
            assert [await race.world.introspect(outcome["access_token"]) for outcome in outcomes] == [
                {"active": False}
            ] * count

    asyncio.run(scenario())


def test_a_code_that_two_redeem_gives_nothing_that_lasts_in_every_order() -> None:
    async def scenario(order: Callable[[int], int]) -> None:
        race = Race()
        code = await race.world.code()
        outcomes = await run(race.stepwise, [lambda: race.redeem(code), lambda: race.redeem(code)], order)
        assert len(given_of(outcomes)) <= 1
        assert "code_replayed" in outcomes
        for members in given_of(outcomes):
            assert await race.world.introspect(members["access_token"]) == {"active": False}
            assert not isinstance(await race.refresh(members["refresh_token"]), dict)

    assert in_every_order(scenario) >= 5


def test_a_refresh_beside_the_end_of_its_family_gives_nothing_that_lasts_in_every_order() -> None:
    async def scenario(order: Callable[[int], int]) -> None:
        race = Race()
        members = await race.log_in()
        family = claims_of(members["access_token"])["sid"]

        async def end() -> Outcome:
            await race.world.service.endings.end_family(family)
            return "ended"

        outcomes = await run(race.stepwise, [lambda: race.refresh(members["refresh_token"]), end], order)
        for given_members in given_of(outcomes):
            assert await race.world.introspect(given_members["access_token"]) == {"active": False}
            assert not isinstance(await race.refresh(given_members["refresh_token"]), dict)

    assert in_every_order(scenario) >= 5


def test_a_proof_counts_once_in_every_order() -> None:
    async def scenario(order: Callable[[int], int]) -> None:
        race = Race()
        key = new_key("EdDSA")
        proof = (race.world.proof(key, nonce=race.world.service.nonce()),)
        codes = [await race.world.code(), await race.world.code()]
        works = [lambda: race.redeem(codes[0], proof), lambda: race.redeem(codes[1], proof)]
        outcomes = await run(race.stepwise, works, order)
        assert len(given_of(outcomes)) == 1
        assert "dpop_replayed" in outcomes

    assert in_every_order(scenario) >= 2


def test_a_pushed_request_gives_one_code_in_every_order() -> None:
    async def scenario(order: Callable[[int], int]) -> None:
        race = Race()
        race.world.browser.log_in()
        pushed = await race.world.service.push(TokenRequest(form=query().multi_items(), proof=ClientProof(id="app")))
        parameters = [("client_id", "app"), ("request_uri", pushed["request_uri"])]

        async def authorize() -> str:
            try:
                answer = await race.world.service.authorize(parameters, {}, NOBODY)
            except RequestUnsafe as unsafe:
                return unsafe.reason
            assert isinstance(answer, Redirect)
            return answer.location

        locations = await run(race.stepwise, [authorize, authorize], order)
        assert sum("code=" in location for location in locations) == 1
        assert sum("error=invalid_request" in each or each == "request_uri_over" for each in locations) == 1

    assert in_every_order(scenario) >= 5


def test_an_assertion_counts_once_in_every_order() -> None:
    async def scenario(order: Callable[[int], int]) -> None:
        jwks = folder() / "assertion.jwks.json"
        key = new_key("ES256", kid="k")
        jwks.write_text(json.dumps({"keys": [key.public_jwk()]}))
        signer = OAuthClientConfig(
            id="signer", auth="private_key_jwt", jwks_file=str(jwks), grant_types=("client_credentials",)
        )
        race = Race(clients=(signer,))
        now_s = int(race.world.clock.wall_s())
        claims = {"iss": "signer", "sub": "signer", "aud": ISSUER, "exp": now_s + 60, "jti": secrets.token_hex(8)}
        proof = ClientProof(
            assertion_type="urn:ietf:params:oauth:client-assertion-type:jwt-bearer",
            assertion=mint(claims, key, typ="", now_s=now_s),
        )

        async def ask() -> Outcome:
            try:
                return await race.world.service.token(
                    TokenRequest(form=[("grant_type", "client_credentials")], proof=proof)
                )
            except OAuthRefused as refused:
                return refused.reason

        outcomes = await run(race.stepwise, [ask, ask], order)
        assert len(given_of(outcomes)) == 1
        assert "assertion_replayed" in outcomes

    assert in_every_order(scenario) >= 2


@given(st.lists(st.tuples(st.integers(0, 6), st.sampled_from([0, 3, 20])), min_size=1, max_size=12))
@settings(max_examples=60)
def test_over_any_history_a_refresh_token_is_used_once_outside_its_grace(steps: list[tuple[int, int]]) -> None:
    """Use any token that was ever given, at any time; a model says what must come of it."""

    async def scenario() -> None:
        race = Race()
        tokens = [(await race.log_in())["refresh_token"]]
        rotated_s, is_over = race.world.clock.wall_s(), False
        for which, wait_s in steps:
            race.world.clock.move(wait_s)
            used = tokens[which % len(tokens)]
            outcome = await race.refresh(used)
            age = len(tokens) - 1 - tokens.index(used)
            in_grace = age == 1 and race.world.clock.wall_s() - rotated_s < race.world.config.refresh_grace_s
            if is_over:
                assert outcome == "refresh_unknown"
            elif age == 0:
                assert isinstance(outcome, dict)
                tokens.append(outcome["refresh_token"])
                rotated_s = race.world.clock.wall_s()
            elif in_grace:
                assert isinstance(outcome, dict) and outcome["refresh_token"] == tokens[-1]
            else:
                assert outcome == "refresh_reused"
                is_over = True
                race.world.browser.log_in()
        assert len(set(tokens)) == len(tokens)

    asyncio.run(scenario())
