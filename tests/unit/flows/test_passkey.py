"""Passkeys: what registers one and what logs in by one, and everything that does not."""

from __future__ import annotations

import asyncio
import hashlib
import json
from collections.abc import AsyncIterator, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.flows.passkey import PasskeyRefused, ProofTooOld
from gateway.stores.directory import Tenant
from tests.real.authenticator import UP, UV, SoftAuthenticator, b64url, unb64url
from tests.unit.flows.passkey_world import ORIGIN, TENANT, PasskeyWorld


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[PasskeyWorld]:
    made = await PasskeyWorld(tmp_path).open()
    yield made
    await made.close()


async def test_who_registered_a_passkey_logs_in_with_it_and_nothing_else(world: PasskeyWorld) -> None:
    kept = await world.register()
    assert (kept.name, kept.transports, kept.user_id) == ("My phone", ("hybrid", "internal"), world.user.id)
    login = await world.log_in()
    assert login.user.id == world.user.id
    assert login.methods == ("pop", "user", "mfa")
    assert [event.action for event in world.events] == ["passkey.register", "passkey.use"]


async def test_a_browser_is_asked_for_what_the_config_says(world: PasskeyWorld) -> None:
    options = await world.passkeys.offer_registration(world.user, world.session())
    assert options["rp"] == {"name": "Example", "id": "auth.example"}
    assert options["authenticatorSelection"]["residentKey"] == "required"
    assert options["attestation"] == "none"
    await world.register()
    again = await world.passkeys.offer_registration(world.user, world.session())
    assert [each["id"] for each in again["excludeCredentials"]] == [b64url(world.device.credentials[0].id)]
    login = await world.passkeys.offer_login(TENANT, "b")
    assert (login["rpId"], login["userVerification"], login["allowCredentials"]) == ("auth.example", "required", [])


FORGERIES: list[tuple[dict[str, Any], str]] = [
    ({"origin": "https://auth.example.evil"}, "assertion_invalid"),
    ({"origin": "http://auth.example"}, "assertion_invalid"),
    ({"rp_id": "evil.example"}, "assertion_invalid"),
    ({"type": "webauthn.create"}, "assertion_invalid"),
    ({"flags": UV}, "assertion_invalid"),  # nobody was there
    ({"flags": UP}, "assertion_invalid"),  # somebody was, but who
    ({"flags": UP | UV | 0x10}, "assertion_invalid"),  # backed up, but cannot be
    ({"signature": b"\x30\x00"}, "assertion_invalid"),
    ({"cross_origin": True}, "cross_origin"),
    ({"challenge": b64url(b"\0" * 32)}, "challenge_absent"),
    ({"user_handle": b"usr_" + b"b" * 26}, "user_handle"),
    ({"user_handle": b""}, "user_handle"),
    ({"sign_count": 1}, "counter"),
    ({"sign_count": 0}, "counter"),
]


@pytest.mark.parametrize(("forged", "reason"), FORGERIES)
async def test_a_forged_assertion_is_refused(world: PasskeyWorld, forged: dict[str, Any], reason: str) -> None:
    await world.register()
    with pytest.raises(PasskeyRefused) as refused:
        await world.log_in(**forged)
    assert refused.value.reason == reason
    assert str(refused.value) == "this passkey was not accepted"
    assert world.events.last() == ("login.passkey", "refused", reason)


@pytest.mark.parametrize(
    "forged",
    [
        {"origin": "https://evil.example"},
        {"rp_id": "evil.example"},
        {"type": "webauthn.get"},
        {"flags": UV},
        {"flags": UP},
        {"flags": UP | UV | 0x10},
    ],
)
async def test_a_forged_registration_is_refused(world: PasskeyWorld, forged: dict[str, Any]) -> None:
    with pytest.raises(PasskeyRefused):
        await world.register(**forged)
    assert world.events.last() == ("passkey.register", "refused", "registration_invalid")
    assert not await world.passkeys.list_of(world.user)


async def test_a_challenge_is_good_once(world: PasskeyWorld) -> None:
    await world.register()
    options = await world.passkeys.offer_login(TENANT, "b-1")
    answer = world.device.get(options)
    await world.passkeys.log_in(TENANT, "b-1", answer)
    with pytest.raises(PasskeyRefused) as refused:
        await world.passkeys.log_in(TENANT, "b-1", answer)
    assert refused.value.reason == "challenge_spent"


async def test_of_many_who_use_one_challenge_at_once_one_is_let_in(world: PasskeyWorld) -> None:
    await world.register()
    options = await world.passkeys.offer_login(TENANT, "b-1")
    answers = [world.device.get(options) for _ in range(8)]
    came = await asyncio.gather(
        *(world.passkeys.log_in(TENANT, "b-1", answer) for answer in answers), return_exceptions=True
    )
    assert sum(not isinstance(each, BaseException) for each in came) == 1


async def test_a_challenge_is_over_after_its_time(world: PasskeyWorld) -> None:
    await world.register()
    options = await world.passkeys.offer_login(TENANT, "b-1")
    world.clock.move(301)
    with pytest.raises(PasskeyRefused) as refused:
        await world.passkeys.log_in(TENANT, "b-1", world.device.get(options))
    assert refused.value.reason in {"challenge_absent", "challenge_spent"}


async def test_a_challenge_is_good_for_its_browser_tenant_and_purpose_alone(world: PasskeyWorld) -> None:
    await world.register()
    with pytest.raises(PasskeyRefused, match="not accepted"):
        await world.log_in(browser="b-2")
    assert world.events.last() == ("login.passkey", "refused", "challenge_foreign")
    await world.directory.put_tenant(Tenant("other", "Other"))
    options = await world.passkeys.offer_login(TENANT, "b-1")
    with pytest.raises(PasskeyRefused) as refused:
        await world.passkeys.log_in("other", "b-1", world.device.get(options))
    assert refused.value.reason == "challenge_foreign"
    second = await world.passkeys.offer_second(world.user, b"b-1")
    assert second is not None
    with pytest.raises(PasskeyRefused) as refused:
        await world.passkeys.log_in(TENANT, "b-1", world.device.get(second))
    assert refused.value.reason == "challenge_foreign"


async def test_a_challenge_of_registration_is_bound_to_its_session_but_survives_its_change_of_id(
    world: PasskeyWorld,
) -> None:
    session = world.session()
    options = await world.passkeys.offer_registration(world.user, session)
    with pytest.raises(PasskeyRefused) as refused:
        await world.passkeys.register(world.user, world.session(), world.device.create(options))
    assert refused.value.reason == "challenge_foreign"
    options = await world.passkeys.offer_registration(world.user, session)
    later = replace(session, id_hash=b"n" * 32, attributes={"origin": session.id_hash.hex()})
    assert await world.passkeys.register(world.user, later, world.device.create(options))


async def test_a_copied_authenticator_is_noticed_by_its_counter(world: PasskeyWorld) -> None:
    await world.register()
    for _ in range(3):
        await world.log_in()
    world.device.credentials[0].sign_count = 1  # the copy was made then
    with pytest.raises(PasskeyRefused) as refused:
        await world.log_in()
    assert refused.value.reason == "counter"


async def test_an_authenticator_that_counts_nothing_logs_in_again_and_again(world: PasskeyWorld) -> None:
    world.device = SoftAuthenticator(ORIGIN, counts=False)
    await world.register()
    for _ in range(3):
        assert (await world.log_in()).user.id == world.user.id


async def test_a_second_factor_needs_nobody_verified_and_takes_the_users_own_passkeys_alone(
    world: PasskeyWorld,
) -> None:
    assert await world.passkeys.offer_second(world.user, b"login") is None
    await world.register()
    options = await world.passkeys.offer_second(world.user, b"login")
    assert options is not None
    device = world.device
    device.verifies = False
    done = await world.passkeys.verify_second(world.user, b"login", device.get(options))
    assert done.methods == ("pop", "user")
    other = await world.directory.add_user(replace(world.user, id="usr_" + "b" * 26, user_name="bob"))
    options = await world.passkeys.offer_second(world.user, b"login")
    assert options is not None
    with pytest.raises(PasskeyRefused):
        await world.passkeys.verify_second(other, b"login", device.get(options))


async def test_somebody_elses_passkey_is_no_second_factor(world: PasskeyWorld) -> None:
    await world.register()
    alice, alices = world.user, world.device
    world.user = await world.directory.add_user(replace(alice, id="usr_" + "b" * 26, user_name="bob"))
    world.device = SoftAuthenticator(ORIGIN)
    await world.register()
    options = await world.passkeys.offer_second(world.user, b"login")
    assert options is not None
    with pytest.raises(PasskeyRefused) as refused:
        await world.passkeys.verify_second(world.user, b"login", alices.get(options, alices.credentials[0]))
    assert refused.value.reason == "credential_foreign"


async def test_a_challenge_of_registration_is_none_of_a_second_factor(world: PasskeyWorld) -> None:
    await world.register()
    session = world.session(id_hash=hashlib.sha256(b"login").digest())  # so that both are bound to the same
    options = await world.passkeys.offer_registration(world.user, session)
    with pytest.raises(PasskeyRefused) as refused:
        await world.passkeys.verify_second(world.user, b"login", world.device.get(options))
    assert refused.value.reason == "challenge_foreign"


async def test_who_is_inactive_or_gone_does_not_log_in(world: PasskeyWorld) -> None:
    await world.register()
    await world.directory.change_user(replace(world.user, active=False))
    with pytest.raises(PasskeyRefused) as refused:
        await world.log_in()
    assert refused.value.reason == "user_inactive"
    await world.directory.remove_user(TENANT, world.user.id)
    with pytest.raises(PasskeyRefused) as refused:
        await world.log_in()
    assert refused.value.reason == "credential_unknown"


async def test_a_passkey_that_is_known_already_is_nobody_elses(world: PasskeyWorld) -> None:
    session = world.session()
    answer = world.device.create(await world.passkeys.offer_registration(world.user, session))
    await world.passkeys.register(world.user, session, answer)
    options = await world.passkeys.offer_registration(world.user, session)
    forged = json.loads(json.dumps(answer))  # the same credential under a new challenge
    client_data = {"type": "webauthn.create", "challenge": options["challenge"], "origin": ORIGIN, "crossOrigin": False}
    forged["response"]["clientDataJSON"] = b64url(json.dumps(client_data).encode())
    with pytest.raises(PasskeyRefused) as refused:
        await world.passkeys.register(world.user, session, forged)
    assert refused.value.reason == "credential_known"


async def test_passkeys_are_added_and_removed_only_by_who_proved_to_be_it_a_moment_ago(world: PasskeyWorld) -> None:
    kept = await world.register()
    old = world.session(authenticated_s=int(world.clock.wall_s()) - 901)
    for weak in (old, world.session(requires_reauth=True), world.session(provisional=True)):
        with pytest.raises(ProofTooOld):
            await world.passkeys.offer_registration(world.user, weak)
        with pytest.raises(ProofTooOld):
            await world.passkeys.remove(world.user, weak, kept.credential_id)
    assert await world.passkeys.remove(world.user, world.session(), kept.credential_id)
    assert not await world.passkeys.remove(world.user, world.session(), kept.credential_id)
    assert world.events.last() == ("passkey.remove", "success", "")


async def test_a_passkey_has_the_name_that_its_user_gives_it(world: PasskeyWorld) -> None:
    kept = await world.register()
    assert await world.passkeys.rename(world.user, kept.credential_id, "  Work\u202e key\0 ")
    assert [each.name for each in await world.passkeys.list_of(world.user)] == ["Work key"]
    assert not await world.passkeys.rename(world.user, kept.credential_id, " \t")
    other = replace(world.user, id="usr_" + "b" * 26)
    assert not await world.passkeys.rename(other, kept.credential_id, "Mine")


async def test_there_are_only_so_many_passkeys_of_one_user(tmp_path: Path) -> None:
    world = await PasskeyWorld(tmp_path, count_max=2).open()
    await world.register()
    await world.register()
    with pytest.raises(PasskeyRefused, match="remove one first"):
        await world.register()
    await world.close()


JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**40), 2**40)
    | st.text(max_size=12)
    | st.binary(max_size=40).map(b64url),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=6,
)
PLACES = [
    *("id", "rawId", "type", "response", "authenticatorAttachment"),
    *(f"response.{name}" for name in ("clientDataJSON", "authenticatorData", "signature", "userHandle", "transports")),
    "response.attestationObject",
]


@pytest.fixture(scope="module")
def laid(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[asyncio.Runner, PasskeyWorld]]:
    """A world for many examples, with the loop that it belongs to; a passkey is registered."""
    with asyncio.Runner() as runner:
        world = runner.run(PasskeyWorld(tmp_path_factory.mktemp("world"), count_max=64).open())
        runner.run(world.register())
        yield runner, world
        runner.run(world.close())


@given(place=st.sampled_from(PLACES), value=JSON, removes=st.booleans(), registers=st.booleans())
def test_whatever_stands_in_an_answer_it_is_refused_or_means_the_same(
    laid: tuple[asyncio.Runner, PasskeyWorld], place: str, value: Any, removes: bool, registers: bool
) -> None:
    runner, world = laid

    async def run() -> None:
        session = world.session()
        if registers:
            answer = world.device.create(await world.passkeys.offer_registration(world.user, session))
            del world.device.credentials[1:]
        else:
            answer = world.device.get(await world.passkeys.offer_login(TENANT, "b"))
        target, _, name = place.rpartition(".")
        holder = answer[target] if target else answer
        holder.pop(name, None)
        if not removes:
            holder[name] = value
        try:
            if registers:
                added = await world.passkeys.register(world.user, session, answer)
                await world.passkeys.remove(world.user, session, added.credential_id)
            else:
                login = await world.passkeys.log_in(TENANT, "b", answer)
                assert login.user.id == world.user.id
                assert place in {"authenticatorAttachment", "response.transports", "response.attestationObject"}
        except PasskeyRefused:
            pass

    runner.run(run())


@given(which=st.sampled_from(["authenticatorData", "clientDataJSON", "signature"]), place=st.integers(0, 10_000))
def test_no_bit_of_what_was_signed_can_be_turned(
    laid: tuple[asyncio.Runner, PasskeyWorld], which: str, place: int
) -> None:
    runner, world = laid

    async def run() -> None:
        answer = world.device.get(await world.passkeys.offer_login(TENANT, "b"))
        raw = bytearray(unb64url(answer["response"][which]))
        bit = place % (len(raw) * 8)
        raw[bit // 8] ^= 1 << bit % 8
        answer["response"][which] = b64url(bytes(raw))
        with pytest.raises(PasskeyRefused):
            await world.passkeys.log_in(TENANT, "b", answer)

    runner.run(run())
