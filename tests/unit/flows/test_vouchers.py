"""Vouchers: sealed, for a while, of one device; and void as soon as anything ends that device."""

from __future__ import annotations

import base64
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import orjson
import pytest

from gateway.flows.device_keys import DeviceRefused
from gateway.flows.login import LoggedIn, Next, NotGood, Refused
from gateway.flows.pending import new_reset
from gateway.flows.revoked_devices import ISSUER, ROWS_MAX, RevokedDevices, user_value
from gateway.flows.trail import NOBODY, AuditTrail
from gateway.flows.vouchers import VOUCHER_S_MAX, Vouchers
from gateway.stores.base import PURGE_SLACK_S
from gateway.stores.directory import Device
from gateway.tokens.sealing import Sealer
from gateway.types import Secret
from tests.unit.flows.login_world import GOAL, KEY, PASSWORD, TENANT, VOUCHER_S, World, browser_of
from tests.unit.flows.test_device_keys import Kept, kept
from tests.unit.tokens.fakes import MovedClock


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    made = World(tmp_path)
    yield made
    await made.close()


def why(world: World, value: str) -> str:
    """Give why a voucher counts for nothing, "" where it counts."""
    try:
        world.vouchers.read(value)
    except DeviceRefused as refused:
        return refused.reason
    return ""


def given(alice: Kept) -> str:
    assert alice.done.voucher
    return alice.done.voucher


async def test_a_bound_device_is_given_one_that_says_whose_it_is_and_since_when(world: World) -> None:
    alice = await kept(world)
    voucher = world.vouchers.read(given(alice))
    assert (voucher.tenant, voucher.user, voucher.device) == (TENANT, alice.user.id, alice.id)
    assert orjson.loads(voucher.key) == alice.device.jwk
    assert voucher.proved_s == alice.done.begun.session.authenticated_s
    assert voucher.expires_s == voucher.proved_s + VOUCHER_S
    assert alice.user.id.encode() not in base64.urlsafe_b64decode(given(alice) + "==")


async def test_each_log_in_on_the_device_gives_a_new_one(world: World) -> None:
    alice = await kept(world)
    world.clock.move(VOUCHER_S)
    assert why(world, given(alice)) == "voucher_over"
    done = await alice.prove(await alice.under_way())
    assert isinstance(done, LoggedIn) and done.voucher
    assert why(world, done.voucher) == ""


async def test_none_outlives_its_device_or_what_the_config_says_by_now(world: World) -> None:
    alice = await kept(world)
    row = (await world.directory.devices_of(TENANT, alice.user.id))[0]
    soon = world.vouchers.issue(replace(row, expires_s=world.clock.wall_s() + 10))
    world.clock.move(10)
    assert why(world, soon) == "voucher_over"
    world.vouchers.lifetime_s = 20
    assert why(world, given(alice)) == "voucher_over"
    world.vouchers.lifetime_s = 0
    assert why(world, given(alice)) == "voucher_absent"
    assert world.vouchers.issue(row) == ""


async def test_what_was_changed_or_is_sealed_by_others_is_none(world: World) -> None:
    alice = await kept(world)
    value = given(alice)
    sealed = bytearray(base64.urlsafe_b64decode(value + "=="))
    for at in (0, 5, 20, len(sealed) - 1):
        changed = bytearray(sealed)
        changed[at] ^= 1
        assert why(world, base64.urlsafe_b64encode(bytes(changed)).rstrip(b"=").decode()) == "voucher_invalid"
    other = Vouchers(Sealer(Secret(KEY[::-1])), world.clock, world.revoked, lifetime_s=VOUCHER_S)
    row = (await world.directory.devices_of(TENANT, alice.user.id))[0]
    elsewhere = base64.urlsafe_b64encode(Sealer(Secret(KEY)).encrypt(b"{}", b"something else")).rstrip(b"=").decode()
    odd = base64.urlsafe_b64encode(Sealer(Secret(KEY)).encrypt(b"{}", b"device voucher")).rstrip(b"=").decode()
    for none in (other.issue(row), elsewhere, odd, f"{value}=", value[:-1], "x", "\udc80", "é", "x" * 5000):
        assert why(world, none) == "voucher_invalid", none
    assert why(world, "") == "voucher_absent"


async def test_whatever_ends_a_device_ends_its_voucher(world: World) -> None:
    alice = await kept(world)
    bob = await kept(world, "bob")
    assert await world.accounts.forget_device(alice.user, alice.id, NOBODY)
    assert why(world, given(alice)) == "device_revoked"
    assert why(world, given(bob)) == ""
    assert not await world.accounts.forget_device(alice.user, bob.id, NOBODY)  # nobody ends another's
    assert why(world, given(bob)) == ""
    link = await new_reset(world.pending, bob.user, AuditTrail(world, world.clock), actor="operator")
    assert await world.logins.reset(link, "a new and good one", browser_of()) is None
    assert why(world, given(bob)) == "user_revoked"


async def test_a_new_password_ends_those_that_were_given_before(world: World) -> None:
    alice = await kept(world)
    outcome = await world.accounts.change_password(
        alice.user, alice.done.begun.session, PASSWORD, "a new and good one", alice.browser(session="")
    )
    assert not isinstance(outcome, NotGood) and outcome == Refused("over")  # without a session nothing goes on
    assert why(world, given(alice)) == "user_revoked"
    world.clock.move(1)
    next_one = await world.logins.password("alice", "a new and good one", GOAL, alice.browser())
    assert isinstance(next_one, Next)
    done = await alice.prove(next_one.value)
    assert isinstance(done, LoggedIn) and done.voucher
    assert why(world, done.voucher) == ""


async def test_a_browser_keeps_its_own_users_and_nobody_elses(world: World) -> None:
    alice, bob = await kept(world), await world.add("bob")
    mine = await world.log_in("bob", voucher=given(alice))
    assert isinstance(mine, LoggedIn) and mine.voucher == ""  # it has to go
    assert world.devices.voucher(None, given(alice), TENANT, alice.user.id) is None  # it stays as it is
    assert world.devices.voucher(None, "", TENANT, bob.id) is None


async def test_nothing_counts_while_nobody_knows_what_is_revoked(world: World) -> None:
    alice = await kept(world)
    world.revoked._trusted = lambda: False
    assert why(world, given(alice)) == "revocations_unknown"


def test_rows_of_tokens_are_none_of_ours_and_the_strictest_one_holds() -> None:
    clock = MovedClock()
    revoked = RevokedDevices(clock)
    value = user_value(TENANT, "usr_a").encode()
    until_s = int(clock.wall_s()) + VOUCHER_S_MAX
    revoked.revoke_many([("sub", b"https://issuer.example", value, until_s, 100)])
    revoked.revoke_many([("jti", b"https://issuer.example", b"dev_a", until_s, 0)])
    assert revoked.ended(TENANT, "usr_a", "dev_a", 50) == ""
    issuer = ISSUER.encode()
    revoked.revoke_many([("sub", issuer, value, until_s, 100), ("sub", issuer, value, until_s, 90)])
    assert [revoked.ended(TENANT, "usr_a", "dev_a", at_s) for at_s in (99, 100)] == ["user_revoked", ""]
    assert revoked.ended(f"{TENANT}x", "usr_a", "dev_a", 50) == ""


def test_what_finds_no_room_is_told_and_what_is_over_makes_room() -> None:
    clock = MovedClock()
    revoked = RevokedDevices(clock)
    until_s = int(clock.wall_s()) + 10
    rows = [("jti", ISSUER.encode(), str(number).encode(), until_s, 0) for number in range(ROWS_MAX)]
    revoked.revoke_many(rows)
    more = ("jti", ISSUER.encode(), b"more", until_s + 1000, 0)
    with pytest.raises(OverflowError):
        revoked.revoke_many([more])
    clock.move(11 + PURGE_SLACK_S)
    revoked.revoke_many([more])
    assert revoked.ended("", "", "more", 0) == "device_revoked"
    assert revoked.ended("", "", "7", 0) == ""


def test_a_device_without_a_key_is_given_none() -> None:
    clock = MovedClock()
    vouchers = Vouchers(Sealer(Secret(KEY)), clock, RevokedDevices(clock), lifetime_s=VOUCHER_S)
    device = Device(id="dev_a", tenant=TENANT, user_id="usr_a", secret_hash=b"", expires_s=clock.wall_s() + 100)
    assert vouchers.issue(device) == ""
