"""Devices that are remembered by a key: bound, proved, refused for each thing that can be wrong, and forgotten."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gateway.flows.device_keys import CHALLENGE_S, DeviceKeys, DeviceRefused, Errand
from gateway.flows.login import Binding, LoggedIn, LoginRules, Next, Outcome, Refused
from gateway.flows.trail import NOBODY
from gateway.stores import open_token_store
from gateway.stores.directory import User
from gateway.tokens.signing import new_key, public_jwks
from tests.real.authenticator import b64url
from tests.real.soft_device import SoftDevice
from tests.unit.flows.login_world import GOAL, PASSWORD, TENANT, World, browser_of
from tests.unit.flows.totp import app_of, code_of
from tests.unit.tokens.fakes import MovedClock

ORIGIN = "https://auth.example"


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    made = World(tmp_path)
    yield made
    await made.close()


class Kept:
    """A browser's cookies after its user let it be remembered by a key, and what the key is."""

    def __init__(self, world: World, user: User, done: LoggedIn, device: SoftDevice) -> None:
        self.world = world
        self.user = user
        self.done = done
        self.device = device
        self.id = done.device.partition(".")[0]

    def browser(self, **changes: Any) -> Any:
        cookies = {"known": self.done.known, "device": self.done.device, "origin": ORIGIN}
        return browser_of(**{**cookies, **changes})

    async def under_way(self) -> str:
        """Type the password; return what is under way then."""
        outcome = await self.world.logins.password(self.user.user_name, PASSWORD, GOAL, self.browser())
        assert isinstance(outcome, Next) and outcome.step == "code"
        return outcome.value

    async def prove(self, value: str, **forged: Any) -> Outcome:
        """Ask for a challenge, answer it, and go on."""
        offer = await self.world.logins.offer_device(value, self.browser())
        assert offer is not None
        proof = self.device.prove("log_in", offer.device_id, offer.challenge, **forged)
        return await self.world.logins.device(value, proof, self.browser())

    async def is_refused(self, value: str, reason: str, **forged: Any) -> None:
        """The answer is refused for this, as audit knows; the log-in is still under way, and nobody was logged in."""
        with pytest.raises(DeviceRefused) as refused:
            await self.prove(value, **forged)
        assert (refused.value.code, refused.value.status, refused.value.reason) == ("device_refused", 400, reason)
        told = self.world.events[-1]
        assert (told.action, told.outcome, told.reason) == ("device.use", "refused", reason)
        assert await self.world.logins.pending(value, "code") is not None


async def bind(world: World, user: User, app: str, **forged: Any) -> LoggedIn:
    """Log in by a password and a code, with the wish to be remembered by a key."""
    outcome = await world.log_in(user.user_name)
    assert isinstance(outcome, Next)
    value, browser = outcome.value, browser_of(origin=ORIGIN)
    offer = await world.logins.offer_binding(value, browser)
    assert offer is not None
    device = forged.pop("device", SoftDevice(ORIGIN))
    named = forged.pop("named", offer.device_id)
    proof = forged.pop("proof", "") or device.prove("bind", offer.device_id, offer.challenge, **forged)
    browser = replace(browser, binding=Binding(proof, named))
    done = await world.logins.code(value, code_of(world, app), browser, remember=True)
    assert isinstance(done, LoggedIn)
    world.clock.move(30)  # the app's next code
    return done


async def kept(world: World, name: str = "alice") -> Kept:
    user = await world.add(name)
    device = SoftDevice(ORIGIN)
    done = await bind(world, user, await app_of(world, user), device=device)
    return Kept(world, user, done, device)


async def test_a_device_that_proves_its_key_spares_a_code_and_proves_nothing_else(world: World) -> None:
    alice = await kept(world)
    row = (await world.directory.devices_of(TENANT, alice.user.id))[0]
    assert (row.id, row.public_key) == (alice.id, row.public_key) and '"crv":"P-256"' in row.public_key
    done = await alice.prove(await alice.under_way())
    assert isinstance(done, LoggedIn)
    session = done.begun.session
    assert (session.amr, session.acr, session.device_id) == (("pwd",), "1fa", alice.id)
    assert world.told("device.use") == [("success", "")]
    assert world.told("login.device") == [("success", "")]
    assert world.counts["device", "success"] == 1


async def test_its_cookie_alone_is_worth_nothing(world: World) -> None:
    alice = await kept(world)
    assert isinstance(await world.log_in("alice", device=alice.done.device, known=alice.done.known), Next)


async def test_an_answer_counts_once(world: World) -> None:
    alice = await kept(world)
    value = await alice.under_way()
    offer = await world.logins.offer_device(value, alice.browser())
    assert offer is not None
    proof = alice.device.prove("log_in", offer.device_id, offer.challenge)
    outcomes = await asyncio.gather(
        *(world.logins.device(value, proof, alice.browser()) for _ in range(5)), return_exceptions=True
    )
    assert sum(isinstance(each, LoggedIn) for each in outcomes) == 1
    assert {each.reason for each in outcomes if isinstance(each, DeviceRefused)} <= {"challenge_spent"}
    with pytest.raises(DeviceRefused) as refused:
        await world.logins.device(await alice.under_way(), proof, alice.browser())
    assert refused.value.reason == "challenge_spent"


async def test_an_answer_comes_soon_and_to_a_challenge_of_ours(world: World) -> None:
    alice = await kept(world)
    value = await alice.under_way()
    await alice.is_refused(value, "challenge_absent", nonce="made-up")
    offer = await world.logins.offer_device(value, alice.browser())
    assert offer is not None
    world.clock.move(CHALLENGE_S + 1)
    with pytest.raises(DeviceRefused) as refused:
        await world.logins.device(value, alice.device.prove("log_in", alice.id, offer.challenge), alice.browser())
    assert refused.value.reason == "challenge_absent"


async def test_an_answer_is_to_the_challenge_of_its_own_log_in(world: World) -> None:
    alice = await kept(world)
    one, other = await alice.under_way(), await alice.under_way()
    offer = await world.logins.offer_device(other, alice.browser())
    assert offer is not None
    await alice.is_refused(one, "challenge_foreign", nonce=offer.challenge)
    binding = await world.logins.offer_binding(one, alice.browser())
    assert binding is not None
    await alice.is_refused(one, "challenge_foreign", nonce=binding.challenge)  # for something else


@pytest.mark.parametrize(
    ("forged", "reason"),
    [
        ({"aud": "https://evil.example"}, "origin"),
        ({"sub": "dev_" + "a" * 26}, "device"),
        ({"act": "bind"}, "challenge_foreign"),
        ({"signature": bytes(64)}, "signature"),
        ({"signature": b""}, "signature"),
        ({"header": {"alg": "none"}}, "malformed"),
        ({"header": {"alg": "HS256"}}, "malformed"),
        ({"header": {"typ": "JWT"}}, "malformed"),
        ({"header": {"crit": ["b64"]}}, "malformed"),
        ({"header": {"jwk": {}}}, "key"),
        ({"header": {"jwk": SoftDevice().jwk}}, "key"),  # whose key is known brings none
        ({"more": "x"}, "malformed"),
        ({"nonce": 7}, "malformed"),
    ],
)
async def test_whatever_is_wrong_with_an_answer_has_a_reason(world: World, forged: dict[str, Any], reason: str) -> None:
    alice = await kept(world)
    value = await alice.under_way()
    await alice.is_refused(value, reason, **forged)
    assert isinstance(await alice.prove(value), LoggedIn)  # the right one still does


async def test_a_page_of_another_origin_asks_and_answers_in_vain(world: World) -> None:
    alice = await kept(world)
    value = await alice.under_way()
    offer = await world.logins.offer_device(value, alice.browser())
    assert offer is not None
    proof = alice.device.prove("log_in", offer.device_id, offer.challenge)
    with pytest.raises(DeviceRefused) as refused:
        await world.logins.device(value, proof, alice.browser(origin="https://app.evil.example"))
    assert refused.value.reason == "origin"
    with pytest.raises(DeviceRefused) as refused:
        await world.logins.device(value, proof, alice.browser(origin=""))
    assert refused.value.reason == "challenge_spent"


async def test_another_accounts_key_opens_nothing(world: World) -> None:
    alice, bob = await kept(world), await kept(world, "bob")
    value = await alice.under_way()
    own, alice.device = alice.device, bob.device
    await alice.is_refused(value, "signature")
    alice.device = own
    for cookie in (bob.done.device, f"{alice.id}.{bob.done.device.partition('.')[2]}", "", "dev_x"):
        with pytest.raises(DeviceRefused) as refused:
            await world.logins.offer_device(value, alice.browser(device=cookie))
        assert refused.value.reason == "device_unknown"


async def test_a_device_that_was_forgotten_is_refused_also_in_the_middle(world: World) -> None:
    alice = await kept(world)
    value = await alice.under_way()
    offer = await world.logins.offer_device(value, alice.browser())
    assert offer is not None
    assert await world.accounts.forget_device(alice.user, alice.id, NOBODY)
    with pytest.raises(DeviceRefused) as refused:
        await world.logins.device(value, alice.device.prove("log_in", alice.id, offer.challenge), alice.browser())
    assert refused.value.reason == "device_unknown"
    assert world.told("device.use") == [("refused", "device_unknown")]
    with pytest.raises(DeviceRefused):
        await world.logins.offer_device(value, alice.browser())


async def test_a_device_that_is_over_is_refused(world: World) -> None:
    alice = await kept(world)
    world.clock.move(86_400)
    with pytest.raises(DeviceRefused) as refused:
        await world.logins.offer_device(await alice.under_way(), alice.browser())
    assert refused.value.reason == "device_unknown"


async def test_what_asks_for_a_second_factor_gets_one(world: World) -> None:
    alice = await kept(world)
    wanting = replace(GOAL, acr_values=("2fa",))
    outcome = await world.logins.password("alice", PASSWORD, wanting, alice.browser())
    assert isinstance(outcome, Next)
    pending = await world.logins.pending(outcome.value, "code")
    assert pending is not None and not world.logins.asks_device(pending, alice.browser())
    for ask in (world.logins.offer_device(outcome.value, alice.browser()), alice.prove(outcome.value)):
        with pytest.raises(DeviceRefused) as refused:
            await ask
        assert refused.value.reason == "not_enough"


async def test_what_is_odd_asks_for_a_code_on_a_bound_device_too(tmp_path: Path) -> None:
    world = World(tmp_path, rules=LoginRules(tenant=TENANT, risk_code=15))
    alice = await kept(world)
    outcome = await world.logins.password("alice", PASSWORD, GOAL, alice.browser(known=""))
    assert isinstance(outcome, Next)
    with pytest.raises(DeviceRefused) as refused:
        await world.logins.offer_device(outcome.value, alice.browser())
    assert refused.value.reason == "not_enough"
    await world.close()


async def test_a_user_who_was_disabled_meanwhile_is_out(world: World) -> None:
    alice = await kept(world)
    value = await alice.under_way()
    await world.directory.change_user(replace(alice.user, active=False))
    assert await alice.prove(value) == Refused("credentials")


PART = st.one_of(
    st.binary(max_size=40).map(b64url),
    st.dictionaries(
        st.sampled_from(["typ", "alg", "jwk", "act", "aud", "sub", "nonce", "crit"]),
        st.one_of(
            st.text(max_size=8),
            st.integers(),
            st.none(),
            st.sampled_from(["device-proof+jwt", "ES256", "log_in"]),
            st.dictionaries(st.sampled_from(["kty", "crv", "x", "y", "d"]), st.text(max_size=8)),
        ),
    ).map(lambda made: b64url(json.dumps(made).encode())),
    st.text(max_size=10),
)


@settings(max_examples=300, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.one_of(st.text(max_size=60), st.lists(PART, min_size=3, max_size=3).map(".".join)))
def test_whatever_comes_as_a_proof_is_refused_and_nothing_else_happens(tmp_path: Path, proof: str) -> None:
    async def main() -> None:
        clock = MovedClock()
        keys = DeviceKeys(open_token_store("memory:", tmp_path, clock), clock)
        errand = Errand(act="log_in", holder="h", tenant=TENANT, device_id="dev_x", origin=ORIGIN)
        with pytest.raises(DeviceRefused):
            await keys.check(proof, errand, json.dumps(SoftDevice().jwk))

    asyncio.run(main())


async def test_nothing_under_way_is_over(world: World) -> None:
    assert await world.logins.offer_device("", browser_of(origin=ORIGIN)) is None
    assert await world.logins.offer_binding("x", browser_of(origin=ORIGIN)) is None
    assert await world.logins.device("x", "", browser_of(origin=ORIGIN)) == Refused("over")


def other_key(algorithm: str) -> dict[str, Any]:
    """Give a public key of another kind."""
    (jwk,) = public_jwks([new_key(algorithm)])["keys"]
    return {"jwk": jwk}


@pytest.mark.parametrize(
    ("forged", "reason"),
    [
        ({"aud": "https://evil.example"}, "origin"),
        ({"sub": "dev_" + "a" * 26}, "device"),
        ({"named": "dev_" + "a" * 26}, "device"),
        ({"named": "../../x"}, "malformed"),
        ({"signature": bytes(64)}, "signature"),
        ({"header": {"jwk": SoftDevice().jwk}}, "signature"),  # another's key
        ({"header": {"jwk": {**SoftDevice().jwk, "d": "AA"}}}, "key"),
        ({"header": {"jwk": {**SoftDevice().jwk, "x": SoftDevice().jwk["x"]}}}, "key"),  # not on the curve
        ({"header": other_key("ES384")}, "key"),
        ({"header": other_key("EdDSA")}, "key"),
        ({"header": {"jwk": None}}, "key"),
        ({"nonce": "made-up"}, "challenge_absent"),
        ({"proof": "a.b.c"}, "malformed"),
        ({"proof": "x" * 5000}, "malformed"),
        ({"proof": "\udc80.\udc80.\udc80"}, "malformed"),
    ],
)
async def test_a_key_that_is_not_proved_binds_nothing_and_its_user_is_logged_in_all_the_same(
    world: World, forged: dict[str, Any], reason: str
) -> None:
    alice = await world.add("alice")
    done = await bind(world, alice, await app_of(world, alice), **forged)
    assert (done.device, done.voucher) == ("", None)
    assert world.told("device.remember") == [("refused", reason)]
    assert not await world.directory.devices_of(TENANT, alice.id)


async def test_nobody_is_bound_by_the_challenge_of_another_log_in(world: World) -> None:
    alice, bob = await world.add("alice"), await world.add("bob")
    outcome = await world.log_in("bob")
    assert isinstance(outcome, LoggedIn)
    await app_of(world, bob)
    outcome = await world.log_in("bob")
    assert isinstance(outcome, Next)
    offer = await world.logins.offer_binding(outcome.value, browser_of(origin=ORIGIN))
    assert offer is not None
    proof = SoftDevice(ORIGIN).prove("bind", offer.device_id, offer.challenge)
    await bind(world, alice, await app_of(world, alice), proof=proof, named=offer.device_id)
    assert world.told("device.remember") == [("refused", "challenge_foreign")]


async def test_where_no_device_is_remembered_none_is_bound(world: World) -> None:
    alice = await world.add("alice")
    await app_of(world, alice)
    outcome = await world.log_in("alice")
    assert isinstance(outcome, Next)
    world.devices.lifetime_s = 0
    with pytest.raises(DeviceRefused):
        await world.logins.offer_binding(outcome.value, browser_of(origin=ORIGIN))


async def test_one_known_by_its_cookie_alone_is_asked_for_no_key(world: World) -> None:
    alice = await world.add("alice")
    app = await app_of(world, alice)
    outcome = await world.log_in("alice")
    assert isinstance(outcome, Next)
    done = await world.logins.code(outcome.value, code_of(world, app), browser_of(), remember=True)
    assert isinstance(done, LoggedIn) and done.voucher is None
    outcome = await world.log_in("alice", device="")
    assert isinstance(outcome, Next)
    with pytest.raises(DeviceRefused) as refused:
        await world.logins.offer_device(outcome.value, browser_of(device=done.device, known=done.known, origin=ORIGIN))
    assert refused.value.reason == "device_unbound"
