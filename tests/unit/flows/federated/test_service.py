"""Logging in at an identity provider: what gets in, and everything that does not."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from gateway.flows.federated import SSORefused, SSOUnavailable
from gateway.types import Session, Subject
from tests.forge import rsa_signer
from tests.real.identity_provider import CLIENT_ID, RealIdentityProvider
from tests.unit.flows.federated.world import BROWSER, ORIGIN, TENANT, SSOWorld, sso_world
from tests.unit.tokens.fakes import MovedClock


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[SSOWorld]:
    async with sso_world(tmp_path) as made:
        await made.link()
        yield made


async def refusal(world: SSOWorld, work: Any) -> str:
    """Return why `work` was refused; the audit trail says the same."""
    with pytest.raises(SSORefused) as refused:
        await work
    event = world.events[-1]
    assert (event.action, event.outcome, event.reason) == ("login.federated", "refused", refused.value.reason)
    return refused.value.reason


async def test_who_is_linked_logs_in(world: SSOWorld) -> None:
    login = await world.go()
    assert (login.user.id, login.return_to, login.methods) == (world.user.id, "/app", ("fed",))
    assert login.attributes["idp"] == "corp"
    assert login.found.how == "linked"
    assert [event.action for event in world.events] == ["sso.verify"]


async def test_the_request_is_pushed_and_holds_everything_that_binds_the_answer(world: SSOWorld) -> None:
    address = await world.start()
    assert "nonce" not in address
    assert "state" not in address
    world.idp.authorize(address)
    request = world.idp.requests[-1]
    assert request["redirect_uri"] == f"{ORIGIN}/login/sso/corp/callback"
    assert request["code_challenge_method"] == "S256"
    assert request["scope"] == "openid profile email"
    assert len({request["state"], request["nonce"], request["code_challenge"]}) == 3


async def test_without_pushed_requests_the_browser_carries_the_request(tmp_path: Path) -> None:
    async with sso_world(tmp_path, idp=RealIdentityProvider(pushes=False)) as world:
        await world.link()
        assert "code_challenge=" in await world.start()
        assert (await world.go()).user.id == world.user.id
    async with sso_world(tmp_path / "..", idp=RealIdentityProvider(pushes=False), pushed_requests="always") as world:
        assert await refusal(world, world.start()) == "idp_no_par"


async def test_an_answer_is_good_once_and_for_the_browser_that_asked(world: SSOWorld) -> None:
    answer = await world.answer()
    await world.complete(answer)
    assert await refusal(world, world.complete(answer)) == "state_spent"
    assert await refusal(world, world.complete(await world.answer(), "another")) == "state_of_another_browser"
    assert await refusal(world, world.complete(await world.answer(), "")) == "state_missing"
    assert len(world.idp.used) == 1


async def test_of_many_who_bring_one_answer_at_once_one_is_let_in(world: SSOWorld) -> None:
    answer = await world.answer()
    came = await asyncio.gather(*(world.complete(answer) for _ in range(8)), return_exceptions=True)
    assert sum(not isinstance(each, BaseException) for each in came) == 1
    assert len(world.idp.used) == 1


async def test_a_code_is_never_presented_twice_by_us(world: SSOWorld) -> None:
    answer = await world.answer()
    world.idp.modes["/token"] = "500"
    with pytest.raises(SSOUnavailable):
        await world.complete(answer)
    assert world.idp.fetches["/token"] == 1


async def test_a_state_is_over_after_its_time(tmp_path: Path) -> None:
    clock = MovedClock()
    async with sso_world(tmp_path, clock=clock) as world:
        await world.link()
        answer = await world.answer()
        clock.move(601)
        assert await refusal(world, world.complete(answer)) in {"state_absent", "state_spent"}


@pytest.mark.parametrize(
    ("forged", "reason"),
    [
        ({"state": "made-up"}, "state_absent"),
        ({"state": None}, "state_missing"),
        ({"iss": "https://evil.example"}, "answer_of_another_issuer"),
        ({"iss": None}, "answer_without_issuer"),
        ({"code": None}, "answer_without_code"),
        ({"code": "made-up"}, "idp_status"),
        ({"error": "access_denied"}, "idp_access_denied"),
        ({"error": "<script>"}, "idp_other"),
    ],
)
async def test_a_forged_answer_is_refused(world: SSOWorld, forged: dict[str, str | None], reason: str) -> None:
    world.idp.forge_answer = forged
    assert await refusal(world, world.go()) == reason


async def test_an_answer_that_says_something_twice_is_refused(world: SSOWorld) -> None:
    answer = await world.answer()
    assert await refusal(world, world.complete([*answer, ("state", "x")])) == "answer_repeats"


async def test_an_error_of_another_issuer_is_not_believed(world: SSOWorld) -> None:
    world.idp.forge_answer = {"error": "access_denied", "iss": "https://evil.example"}
    assert await refusal(world, world.go()) == "answer_of_another_issuer"


CLAIMS: list[tuple[Callable[[dict[str, Any]], dict[str, Any]], str]] = [
    (lambda c: c | {"nonce": "another"}, "token_nonce"),
    (lambda c: c | {"nonce": None}, "token_nonce"),
    (lambda c: c | {"aud": "another"}, "token_audience"),
    (lambda c: c | {"aud": [CLIENT_ID, "another"]}, "token_party"),
    (lambda c: c | {"aud": [CLIENT_ID], "azp": "another"}, "token_party"),
    (lambda c: c | {"iss": "https://evil.example"}, "token_issuer_unknown"),
    (lambda c: c | {"exp": c["iat"] - 100}, "token_expired"),
    (lambda c: c | {"iat": c["iat"] - 3600}, "token_age"),
    (lambda c: c | {"sub": None}, "token_subject"),
    (lambda c: c | {"sub": ""}, "token_subject"),
    (lambda c: c | {"at_hash": "AAAA"}, "token_at_hash"),
    (lambda c: c | {"events": {}}, "token_kind"),
]


@pytest.mark.parametrize(("forge", "reason"), CLAIMS)
async def test_a_forged_id_token_is_refused(
    world: SSOWorld, forge: Callable[[dict[str, Any]], dict[str, Any]], reason: str
) -> None:
    world.idp.forge_claims = forge
    found = await refusal(world, world.go())
    assert found == reason


async def test_an_id_token_of_another_key_is_refused(world: SSOWorld) -> None:
    world.idp.signer = rsa_signer("idp", name="another")
    assert await refusal(world, world.go()) == "token_signature"


async def test_a_logout_token_is_no_id_token(world: SSOWorld) -> None:
    def forge(claims: dict[str, Any]) -> dict[str, Any]:
        return claims | {"events": {"http://schemas.openid.net/event/backchannel-logout": {}}, "nonce": None}

    world.idp.forge_claims = forge
    assert await refusal(world, world.go()) == "token_nonce"


async def test_a_new_key_is_learned_when_it_is_needed(tmp_path: Path) -> None:
    clock = MovedClock()
    async with sso_world(tmp_path, clock=clock) as world:
        await world.link()
        await world.go()
        world.idp.signer, world.idp.kid = rsa_signer("next", name="next"), "next"
        world.idp.keys = [world.idp.signer.jwk()]
        clock.move(2)  # keys are asked for once in a second at most
        assert (await world.go()).user.id == world.user.id


# -- whose account it is


async def test_nobody_is_let_in_whom_nobody_linked(tmp_path: Path) -> None:
    async with sso_world(tmp_path) as world:
        assert await refusal(world, world.go()) == "account_unknown"
        assert world.idp.fetches["/userinfo"] == 0


async def test_a_verified_address_links_where_the_config_lets_it(tmp_path: Path) -> None:
    async with sso_world(tmp_path, link_email=True, email_domains=("corp.example",)) as world:
        assert (await world.go()).found.how == "link_email"
        assert (await world.go()).found.how == "linked"


@pytest.mark.parametrize(
    "told",
    [
        {"email_verified": False},
        {"email_verified": "true"},
        {"email_verified": None},
        {"email": "alice@other.example"},
        {"email": "alice@corp.example.evil.example"},
        {"email": "mallory@corp.example"},
        {"email": ["alice@corp.example"]},
    ],
)
async def test_an_address_that_proves_nothing_links_nobody(tmp_path: Path, told: dict[str, Any]) -> None:
    async with sso_world(tmp_path, link_email=True, email_domains=("corp.example",)) as world:
        world.idp.told |= told
        assert await refusal(world, world.go()) == "account_unknown"


async def test_an_address_of_two_users_links_neither(tmp_path: Path) -> None:
    async with sso_world(tmp_path, link_email=True, email_domains=("corp.example",)) as world:
        await world.directory.add_user(replace(world.user, id="usr_" + "b" * 26, user_name="bob"))
        assert await refusal(world, world.go()) == "email_ambiguous"


async def test_what_userinfo_tells_of_another_user_is_refused(tmp_path: Path) -> None:
    async with sso_world(tmp_path, link_email=True, email_domains=("corp.example",)) as world:
        world.idp.told["sub"] = "another"
        assert await refusal(world, world.go()) == "userinfo_of_another"


async def test_a_user_is_made_where_the_config_lets_it_and_never_in_anothers_name(tmp_path: Path) -> None:
    async with sso_world(tmp_path, provision=True, email_domains=("corp.example",)) as world:
        world.idp.told |= {"preferred_username": "carol", "email": "carol@corp.example"}
        login = await world.go()
        assert (login.found.how, login.user.user_name, login.user.emails) == (
            "provision",
            "carol",
            ("carol@corp.example",),
        )
        assert (await world.go()).user.id == login.user.id
        world.idp.user["sub"] = "another"
        world.idp.told["preferred_username"] = "ALICE"
        assert await refusal(world, world.go()) == "user_name_taken"


async def test_the_first_user_of_a_tenant_may_come_from_there(tmp_path: Path) -> None:
    async with sso_world(tmp_path, provision=True, tenant="fresh") as world:
        login = await world.go()
        assert (login.user.tenant, login.user.user_name) == ("fresh", world.idp.user["sub"])


async def test_an_address_that_it_may_not_speak_for_is_not_kept_of_a_user_that_is_made(tmp_path: Path) -> None:
    async with sso_world(tmp_path, provision=True, email_domains=("corp.example",)) as world:
        world.idp.told |= {"preferred_username": "carol", "email": "victim@other.example"}
        assert (await world.go()).user.emails == ()


async def test_who_is_inactive_does_not_get_in(world: SSOWorld) -> None:
    await world.directory.change_user(replace(world.user, active=False))
    assert await refusal(world, world.go()) == "user_inactive"


async def test_somebody_who_is_logged_in_links_an_account_once(tmp_path: Path) -> None:
    async with sso_world(tmp_path) as world:
        session = _session(world)
        login = await world.go(links=session)
        assert login.links_only
        assert (await world.go()).user.id == world.user.id
        assert await world.federation.linked(world.user) == {world.idp.issuer}
        bob = await world.directory.add_user(replace(world.user, id="usr_" + "b" * 26, user_name="bob"))
        other = replace(session, subject=Subject(TENANT, bob.id))
        assert await refusal(world, world.go(links=other)) == "linked_otherwise"
        answer = await world.answer(links=session)
        assert await refusal(world, world.complete(answer, current=other.subject)) == "session_other"
        assert await refusal(world, world.complete(await world.answer(links=session))) == "session_other"
        assert await world.federation.unlink("corp", world.user)
        assert not await world.federation.unlink("corp", world.user)
        assert await refusal(world, world.go()) == "account_unknown"


def _session(world: SSOWorld) -> Session:
    now_s = int(world.clock.wall_s())
    return Session(
        id_hash=b"s" * 32,
        subject=Subject(TENANT, world.user.id),
        home_region="local",
        created_s=now_s,
        last_seen_s=now_s,
        idle_timeout_s=0,
        expires_s=now_s + 3600,
        authenticated_s=now_s,
        csrf_secret=b"c" * 32,
    )


# -- what was asked for


async def test_a_proof_that_was_asked_for_anew_has_to_be_new(world: SSOWorld) -> None:
    await world.go(reauthenticate=True)
    assert (world.idp.requests[-1]["prompt"], world.idp.requests[-1]["max_age"]) == ("login", "0")
    world.idp.forge_claims = lambda claims: claims | {"auth_time": claims["iat"] - 3600}
    assert await refusal(world, world.go(reauthenticate=True)) == "token_auth_time"
    world.idp.forge_claims = lambda claims: claims | {"auth_time": None}
    assert await refusal(world, world.go(reauthenticate=True)) == "token_auth_time"


async def test_a_proof_may_be_only_as_old_as_whoever_asks_lets_it(world: SSOWorld) -> None:
    world.idp.forge_claims = lambda claims: claims | {"auth_time": claims["iat"] - 500}
    assert (await world.go(auth_age_max_s=600)).user.id == world.user.id
    assert world.idp.requests[-1]["max_age"] == "600"
    assert await refusal(world, world.go(auth_age_max_s=60)) == "token_auth_time"


async def test_a_class_that_was_asked_for_has_to_be_there(tmp_path: Path) -> None:
    async with sso_world(tmp_path, acr_values=("gold",), trust_mfa=True) as world:
        await world.link()
        assert await refusal(world, world.go()) == "token_acr"
        world.idp.user |= {"acr": "gold", "amr": ["pwd", "mfa"]}
        assert (await world.go()).methods == ("fed", "mfa")


async def test_what_it_says_of_second_factors_counts_only_where_it_is_trusted(world: SSOWorld) -> None:
    world.idp.user["amr"] = ["pwd", "mfa"]
    assert (await world.go()).methods == ("fed",)


# -- logging out


async def test_a_logout_there_ends_the_sessions_that_began_there(world: SSOWorld) -> None:
    first = await world.begin_session(await world.go())
    world.idp.user["sid"] = "s-2"
    second = await world.begin_session(await world.go())
    assert await world.federation.back_channel_logout("corp", world.idp.logout_token(sid="s-1")) == 1
    assert await world.sessions.find(first.value) is None
    assert await world.sessions.find(second.value) is not None
    assert await world.federation.back_channel_logout("corp", world.idp.logout_token()) == 1
    assert await world.sessions.find(second.value) is None


async def test_a_logout_may_name_the_session_alone(world: SSOWorld) -> None:
    for _ in range(2):  # the same session there, and another one here
        begun = await world.begin_session(await world.go())
    assert await world.federation.back_channel_logout("corp", world.idp.logout_token(sub=None, sid="s-1")) == 2
    assert await world.sessions.find(begun.value) is None
    assert await world.federation.back_channel_logout("corp", world.idp.logout_token(sub=None, sid="s-9")) == 0


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"events": None}, "token_kind"),
        ({"events": {}}, "token_kind"),
        ({"nonce": "n"}, "token_kind"),
        ({"sub": None}, "token_subject"),
        ({"jti": None}, "token_id"),
        ({"iat": 1_000_000_000}, "token_age"),
        ({"aud": "another"}, "token_audience"),
    ],
)
async def test_a_forged_logout_token_ends_nothing(world: SSOWorld, changes: dict[str, Any], reason: str) -> None:
    begun = await world.begin_session(await world.go())
    with pytest.raises(SSORefused) as refused:
        await world.federation.back_channel_logout("corp", world.idp.logout_token(**changes))
    assert refused.value.reason == reason
    assert await world.sessions.find(begun.value) is not None


async def test_a_logout_token_counts_once(world: SSOWorld) -> None:
    token = world.idp.logout_token()
    await world.federation.back_channel_logout("corp", token)
    with pytest.raises(SSORefused) as refused:
        await world.federation.back_channel_logout("corp", token)
    assert refused.value.reason == "token_replayed"


async def test_who_logs_out_here_is_sent_there(world: SSOWorld) -> None:
    begun = await world.begin_session(await world.go())
    assert world.federation.logout_url(begun.session) == f"{world.idp.issuer}/end?client_id={CLIENT_ID}"
    assert world.federation.logout_url(replace(begun.session, attributes={})) is None


async def test_two_browsers_never_share_a_nonce(world: SSOWorld) -> None:
    for browser in (BROWSER, "another"):
        world.idp.authorize(await world.start(browser=browser))
    first, second = world.idp.requests
    assert first["nonce"] != second["nonce"]
