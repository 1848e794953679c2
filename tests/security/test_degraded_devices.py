"""Provisional sessions by a device's key: only at level 2, only by a fresh proof, and void when anything ended it."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import replace

import pytest

from gateway.errors import NotOffered
from gateway.flows.degraded import TABLE
from gateway.flows.device_keys import DeviceRefused
from gateway.flows.login import Browser, LoggedIn
from gateway.flows.pending import Goal
from gateway.flows.sessions import PROVISIONAL_S
from gateway.types import Subject
from tests.real.soft_device import SoftDevice
from tests.security.degraded_world import CLOCK, GOAL, ORIGIN, TENANT, VOUCHER_S, DegradedWorld
from tests.virtual_time import run_virtual

ALICE = Subject(TENANT, "usr_alice")
DEVICE = "dev_" + "a" * 26


def run(work: Callable[[DegradedWorld], Awaitable[None]], *, provisional: bool = True) -> None:
    """Do `work` in a world whose directory is down."""

    async def main() -> None:
        async with DegradedWorld(provisional=provisional) as world:
            await asyncio.sleep(60)
            world.set(database="down")
            await asyncio.sleep(2)
            assert world.level == 2
            await work(world)

    run_virtual(main())


async def is_refused(world: DegradedWorld, reason: str, carry: Awaitable[object]) -> None:
    """It is refused for this, as audit knows, and no session begins."""
    begun = len(world.told("session.begin"))
    with pytest.raises(DeviceRefused) as refused:
        await carry
    assert (refused.value.code, refused.value.status, refused.value.reason) == ("device_refused", 400, reason)
    told = world.events[-1]
    assert (told.action, told.outcome, told.reason) == ("session.provisional", "refused", reason)
    assert len(world.told("session.begin")) == begun


def test_it_is_short_weak_marked_and_recorded_as_degraded() -> None:
    async def work(world: DegradedWorld) -> None:
        assert world.provisional.knows_device(world.voucher)
        session = (await world.carry()).session
        assert session.subject == ALICE and session.device_id == DEVICE
        assert session.provisional and session.requires_reauth
        assert (session.acr, session.amr) == ("1fa", ("swk",))
        assert session.expires_s - session.created_s == PROVISIONAL_S
        assert session.created_s - session.authenticated_s >= 60  # when the user was last seen to be themselves
        told = world.told("session.provisional")[-1]
        assert (told.outcome, told.target, told.details["by"]) == ("degraded", DEVICE, "device")
        assert told.details["degradation_level"] == 2
        assert world.told("session.begin")[-1].outcome == "degraded"
        (job,) = world.work.jobs.values()
        assert (job.body["device"], job.body["user"]) == (DEVICE, ALICE.id)

    run(work)


def test_it_is_off_by_default() -> None:
    async def work(world: DegradedWorld) -> None:
        assert not world.provisional.knows_device(world.voucher)
        with pytest.raises(NotOffered):
            await world.carry("x.y.z")

    run(work, provisional=False)

    async def without_vouchers(world: DegradedWorld) -> None:
        world.vouchers.lifetime_s = 0
        assert not world.provisional.knows_device(world.voucher)
        await is_refused(world, "voucher_absent", world.carry("x.y.z"))

    run(without_vouchers)


def test_it_is_offered_at_level_2_alone() -> None:
    assert TABLE["provisional_session"].at == ("refused", "refused", "provisional", "refused")

    async def main() -> None:
        async with DegradedWorld(provisional=True) as world:
            for states, level in (({}, 0), ({"policy_engine": "down"}, 1), ({"database": "down", "cache": "down"}, 3)):
                world.set(**states)  # type: ignore[arg-type]
                await asyncio.sleep(2)
                assert world.level == level
                assert not world.provisional.knows_device(world.voucher)
                with pytest.raises(NotOffered):
                    await world.carry("x.y.z")
                with pytest.raises(NotOffered):
                    await world.provisional.offer_device(world.browser(), "x")

    run_virtual(main())


def test_nothing_but_a_fresh_proof_by_the_right_key_begins_one() -> None:
    async def work(world: DegradedWorld) -> None:
        used = await world.proof()
        await world.carry(used)
        await is_refused(world, "challenge_spent", world.carry(used))
        await is_refused(world, "signature", world.carry(await world.proof(SoftDevice(ORIGIN))))
        await is_refused(world, "origin", world.carry(await world.proof(aud="https://evil.example")))
        await is_refused(world, "origin", world.carry(await world.proof(), origin="https://evil.example"))
        await is_refused(world, "device", world.carry(await world.proof(sub="dev_" + "b" * 26)))
        await is_refused(world, "challenge_foreign", world.carry(await world.proof(act="log_in")))
        await is_refused(world, "challenge_foreign", world.carry(await world.proof(), holder="another browser"))
        await is_refused(world, "challenge_absent", world.carry(await world.proof(nonce="made-up")))
        await is_refused(world, "key", world.carry(await world.proof(header={"jwk": SoftDevice(ORIGIN).jwk})))
        await is_refused(world, "malformed", world.carry("x.y.z"))
        for voucher, reason in (
            ("", "voucher_absent"),
            (world.voucher[:-3], "voucher_invalid"),
            ("x", "voucher_invalid"),
        ):
            await is_refused(world, reason, world.carry(await world.proof(), voucher=voucher))
        late = await world.proof()
        await asyncio.sleep(121)
        await is_refused(world, "challenge_absent", world.carry(late))

    run(work)


def test_a_voucher_is_over_in_time() -> None:
    async def work(world: DegradedWorld) -> None:
        await asyncio.sleep(VOUCHER_S - 90)
        proof = await world.proof()
        await asyncio.sleep(60)
        await is_refused(world, "voucher_over", world.carry(proof))

    run(work)


def test_what_was_revoked_before_the_outage_or_within_it_begins_none() -> None:
    async def before() -> None:
        async with DegradedWorld(provisional=True) as world:
            assert await world.forget_device()
            world.set(database="down")
            await asyncio.sleep(2)
            await is_refused(world, "device_revoked", world.carry("x.y.z"))

    run_virtual(before())

    async def user(world: DegradedWorld) -> None:
        await world.devices.void(TENANT, ALICE.id)
        await is_refused(world, "user_revoked", world.carry("x.y.z"))

    run(user)

    async def everywhere(world: DegradedWorld) -> None:
        """Sessions were ended by somebody who said it nowhere else: their store knows."""
        await world.sessions.end_all(ALICE, reason="operator")
        await is_refused(world, "user_revoked", world.carry(await world.proof()))

    run(everywhere)

    async def unknown(world: DegradedWorld) -> None:
        world.revoked._trusted = lambda: False
        await is_refused(world, "revocations_unknown", world.carry("x.y.z"))

    run(unknown)


def test_no_session_begins_whose_judgement_could_be_lost() -> None:
    async def work(world: DegradedWorld) -> None:
        async def full(*_: object) -> bool:
            raise OSError("no space left on device")

        world.work.put = full  # type: ignore[assignment]
        begun = len(world.told("session.begin"))
        with pytest.raises(OSError, match="space"):
            await world.carry()
        assert len(world.told("session.begin")) == begun

    run(work)


def test_it_gives_no_other_and_is_no_step_up() -> None:
    async def work(world: DegradedWorld) -> None:
        begun = await world.carry()
        assert await world.provisional.begin(begun.value) is None
        browser = Browser(session=begun.value)
        assert await world.logins.resume(GOAL, browser) is None
        assert await world.logins.resume(Goal(target="/", tenant=TENANT, acr_values=("2fa",)), browser) is None

    run(work)


def test_whoever_logs_in_afterwards_has_a_session_like_any_other() -> None:
    async def work(world: DegradedWorld) -> None:
        begun = await world.carry()
        world.set(database="up")
        await asyncio.sleep(30)
        outcome = await world.logins.password(
            "alice", "correct horse battery staple", GOAL, world.browser(session=begun.value)
        )
        assert isinstance(outcome, LoggedIn)
        session = outcome.begun.session
        assert session.expires_s - session.created_s == 3600 and not session.requires_reauth
        assert session.amr == ("pwd",)
        assert await world.sessions.find(begun.value) is None

    run(work)


def test_it_goes_on_where_the_directory_agrees() -> None:
    async def work(world: DegradedWorld) -> None:
        begun = await world.carry()
        world.set(database="up")
        await asyncio.sleep(30)
        session = await world.sessions.find(begun.value)
        assert session is not None and not session.provisional and session.requires_reauth
        assert [each.outcome for each in world.told("session.reconcile")] == ["success"]

    run(work)


@pytest.mark.parametrize("change", ["inactive", "unknown_user", "password_changed", "device_unknown", "device_key"])
def test_it_ends_where_the_directory_does_not_agree_and_the_next_outage_begins_none(change: str) -> None:
    async def work(world: DegradedWorld) -> None:
        begun = await world.carry()
        users = world.users
        if change == "inactive":
            users.users[ALICE.id] = replace(users.users[ALICE.id], active=False)
        elif change == "unknown_user":
            del users.users[ALICE.id]
        elif change == "password_changed":
            users.passwords[ALICE.id] = replace(users.passwords[ALICE.id], changed_s=CLOCK.wall_s())
        elif change == "device_unknown":
            del users.devices[DEVICE]
        else:
            users.devices[DEVICE] = replace(users.devices[DEVICE], public_key="{}")
        world.set(database="up")
        await asyncio.sleep(30)
        assert await world.sessions.find(begun.value) is None
        assert [(each.outcome, each.reason) for each in world.told("session.reconcile")] == [("refused", change)]
        world.set(database="down")
        await asyncio.sleep(5)
        await is_refused(world, "user_revoked", world.carry("x.y.z"))

    run(work)
