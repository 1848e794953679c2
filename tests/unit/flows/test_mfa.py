"""Second factors: codes count once, within their time, and recovery codes are hashes from the start."""

from __future__ import annotations

import asyncio
import base64
from collections.abc import AsyncIterator
from pathlib import Path

import pyotp
import pytest

from gateway.flows.mfa import CODES
from gateway.flows.trail import NOBODY
from gateway.stores.directory import TOTPDevice
from tests.unit.flows.login_world import TENANT, World
from tests.unit.flows.totp import app_of, code_of


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    made = World(tmp_path)
    yield made
    await made.close()


@pytest.mark.parametrize(
    ("at_s", "code"),
    [(59, "94287082"), (1111111109, "07081804"), (1234567890, "89005924"), (20000000000, "65353130")],
)
async def test_codes_are_those_of_rfc_6238_appendix_b(world: World, at_s: int, code: str) -> None:
    alice = await world.add("alice")
    secret = b"12345678901234567890"
    world.clock.offset_s = at_s - world.clock.now_s
    await world.directory.add_totp(TOTPDevice(id="otp_x", user_id=alice.id, secret=secret))
    assert pyotp.TOTP(base64.b32encode(secret).decode(), digits=8).at(at_s) == code
    assert await world.factors.confirm(TENANT, alice.id, code[2:], NOBODY)  # the last six digits of the eight


@pytest.mark.parametrize(("steps", "counts"), [(-2, False), (-1, True), (0, True), (1, True), (2, False)])
async def test_a_clock_may_be_wrong_by_one_step(world: World, steps: int, counts: bool) -> None:
    alice = await world.add("alice")
    app = await app_of(world, alice)
    world.clock.move(300)
    assert (await world.factors.verify(alice.id, code_of(world, app, steps)) == "totp") is counts


async def test_a_code_counts_once_and_none_of_before_it_afterwards(world: World) -> None:
    alice = await world.add("alice")
    app = await app_of(world, alice)
    world.clock.move(300)
    code = code_of(world, app)
    together = await asyncio.gather(*(world.factors.verify(alice.id, code) for _ in range(8)))
    assert sorted(map(str, together)) == ["None"] * 7 + ["totp"]
    assert await world.factors.verify(alice.id, code_of(world, app, -1)) is None
    assert await world.factors.verify(alice.id, code_of(world, app, 1)) == "totp"


async def test_an_app_counts_only_once_it_showed_a_code(world: World) -> None:
    alice = await world.add("alice")
    enrolment = await world.factors.begin(alice.id, "alice")
    assert not (await world.factors.of(alice.id)).any
    assert await world.factors.verify(alice.id, code_of(world, enrolment.secret)) is None
    assert not await world.factors.confirm(TENANT, alice.id, "000000", NOBODY)
    assert await world.factors.begun(alice.id, "alice") == enrolment
    assert await world.factors.confirm(TENANT, alice.id, code_of(world, enrolment.secret), NOBODY)
    assert (await world.factors.of(alice.id)).any
    assert await world.factors.begun(alice.id, "alice") is None


async def test_what_was_begun_and_never_confirmed_is_forgotten(world: World) -> None:
    alice = await world.add("alice")
    for _ in range(70):
        await world.factors.begin(alice.id, "alice")
    assert len(await world.directory.totps_of(alice.id)) == 1


async def test_an_app_is_told_whose_code_it_is(world: World) -> None:
    alice = await world.add("alice")
    enrolment = await world.factors.begin(alice.id, "alice@example.com")
    parsed = pyotp.parse_uri(enrolment.uri)
    assert isinstance(parsed, pyotp.TOTP)
    assert (parsed.issuer, parsed.name, parsed.secret) == ("Acme", "alice@example.com", enrolment.secret)


async def test_recovery_codes_count_once_and_only_the_newest_do(world: World) -> None:
    alice = await world.add("alice")
    former = await world.factors.new_codes(TENANT, alice.id, NOBODY)
    codes = await world.factors.new_codes(TENANT, alice.id, NOBODY)
    assert len(set(codes)) == CODES
    assert await world.factors.verify(alice.id, former[0]) is None
    together = await asyncio.gather(*(world.factors.verify(alice.id, codes[0]) for _ in range(8)))
    assert sorted(map(str, together)) == ["None"] * 7 + ["recovery"]
    assert await world.factors.verify(alice.id, codes[1].upper().replace("-", " ")) == "recovery"
    assert (await world.factors.of(alice.id)).recovery_codes == CODES - 2


async def test_a_recovery_code_is_its_users_alone(world: World) -> None:
    alice, bob = await world.add("alice"), await world.add("bob")
    codes = await world.factors.new_codes(TENANT, alice.id, NOBODY)
    assert await world.factors.verify(bob.id, codes[0]) is None


@pytest.mark.parametrize("code", ["", " ", "-", "12345", "1234567", "٠١٢٣٤٥", "x" * 500, "\ud800"])
async def test_what_is_no_code_counts_nothing(world: World, code: str) -> None:
    alice = await world.add("alice")
    await app_of(world, alice)
    assert await world.factors.verify(alice.id, code) is None


async def test_the_last_app_takes_the_recovery_codes_with_it(world: World) -> None:
    alice = await world.add("alice")
    await app_of(world, alice)
    await world.factors.new_codes(TENANT, alice.id, NOBODY)
    (device,) = (await world.factors.of(alice.id)).totp
    assert await world.factors.remove(TENANT, alice.id, device.id, NOBODY)
    assert (await world.directory.factors_of(alice.id)).recovery_codes == 0
    assert not await world.factors.remove(TENANT, alice.id, device.id, NOBODY)


async def test_secrets_lie_sealed_in_the_database(world: World, tmp_path: Path) -> None:
    alice = await world.add("alice")
    app = await app_of(world, alice)
    codes = await world.factors.new_codes(TENANT, alice.id, NOBODY)
    await world.directory.close()
    kept = b"".join(path.read_bytes() for path in tmp_path.iterdir() if path.is_file())
    assert b"alice" in kept
    assert base64.b32decode(app) not in kept
    assert codes[0].replace("-", "").encode() not in kept
