"""What is kept of log-ins: little, coarse, for a while; and that a journey shows by it when no session is left."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest

from gateway.flows.login import LoggedIn, LoginRules, Next, Refused
from gateway.flows.risk import NoAddressMap, Place
from gateway.flows.whereabouts import Whereabouts, sightings_in
from gateway.stores import open_directory
from gateway.tokens.sealing import Sealer
from gateway.types import Secret
from tests.unit.flows.login_world import GOAL, KEY, PASSWORD, TENANT, World, browser_of, subject_of
from tests.unit.flows.totp import app_of, code_of

BERLIN, SYDNEY = Place(52.5244, 13.4105, "DE"), Place(-33.8651, 151.2099, "AU")
HOME, ABROAD = "192.0.2.1", "203.0.113.5"


class Map:
    """Knows where two networks are."""

    def find(self, address: str) -> Place | None:
        if address.startswith("203.0.113."):
            return SYDNEY
        return BERLIN if address.startswith("192.0.2.") else None


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    made = World(tmp_path, rules=LoginRules(tenant=TENANT, risk_refused=60), addresses=Map())
    yield made
    await made.close()


async def begun(world: World, address: str = HOME) -> LoggedIn:
    outcome = await world.log_in("alice", address=address)
    assert isinstance(outcome, LoggedIn)
    return outcome


async def test_a_journey_shows_when_all_sessions_are_over(world: World) -> None:
    alice = await world.add("alice")
    await begun(world)
    world.clock.move(600)
    await world.sessions.end_all(subject_of(alice), reason="logout_everywhere")
    world.clock.move(600)
    assert not await world.sessions.list_of(subject_of(alice))
    assert await world.log_in("alice", address=ABROAD) == Refused("credentials")
    told = world.events[-1]
    assert "impossible_travel 50 (16" in str(told.details["risk_parts"])
    assert "from DE to AU" in str(told.details["risk_parts"])
    world.clock.move(24 * 3600)
    await begun(world, ABROAD)


async def test_who_was_refused_was_not_there(world: World) -> None:
    alice = await world.add("alice")
    await begun(world)
    world.clock.move(1200)
    await world.log_in("alice", address=ABROAD)
    await world.log_in("alice", "wrong", address=ABROAD)
    assert len(await world.directory.logins_of(alice.id)) == 1


async def test_what_is_kept_is_coarse_and_no_address(world: World) -> None:
    alice = await world.add("alice")
    at_s = world.clock.wall_s()
    await begun(world)
    (kept,) = await world.directory.logins_of(alice.id)
    assert (kept.at_s, kept.latitude, kept.longitude, kept.country) == (at_s, 52.5, 13.4, "DE")
    assert len(kept.network) == 16 and HOME.encode() not in kept.network


async def test_only_the_last_ones_are_kept(world: World) -> None:
    alice = await world.add("alice")
    for _ in range(7):
        await begun(world)
        world.clock.move(3600)
    kept = await world.directory.logins_of(alice.id)
    assert len(kept) == 5
    assert kept[0].at_s == world.clock.wall_s() - 3600


async def test_log_ins_of_late_count_though_their_sessions_are_over(world: World) -> None:
    alice = await world.add("alice")
    for _ in range(5):
        done = await begun(world)
        await world.sessions.end(done.begun.value)
        world.clock.move(10)
    await app_of(world, alice)
    assert isinstance(await world.log_in("alice"), Next)
    pending = await world.logins.password("alice", PASSWORD, GOAL, browser_of())
    assert isinstance(pending, Next)
    under_way = await world.logins.pending(pending.value, "code")
    assert under_way is not None and under_way.risk == 15 + 20  # an unknown browser, and five within ten minutes


async def test_a_log_in_of_two_steps_is_noted_once_and_a_step_up_not_at_all(world: World) -> None:
    alice = await world.add("alice")
    app = await app_of(world, alice)
    outcome = await world.log_in("alice")
    assert isinstance(outcome, Next)
    done = await world.logins.code(outcome.value, code_of(world, app), browser_of())
    assert isinstance(done, LoggedIn)
    assert len(await world.directory.logins_of(alice.id)) == 1
    world.clock.move(60)
    stronger = await world.logins.resume(replace(GOAL, acr_values=("phr",)), browser_of(session=done.begun.value))
    assert isinstance(stronger, Next)
    code = code_of(world, app)
    assert isinstance(await world.logins.code(stronger.value, code, browser_of(session=done.begun.value)), LoggedIn)
    assert len(await world.directory.logins_of(alice.id)) == 1


async def test_nothing_is_kept_where_nothing_is_to_be(world: World) -> None:
    alice = await world.add("alice")
    nothing = Whereabouts(world.directory, Map(), KEY, keep=0)
    await nothing.note(alice.id, HOME, 1.0)
    assert not await world.directory.logins_of(alice.id)
    assert not await nothing.of(alice.id, 2.0)
    assert world.directory.calls["note_login"] == 0


async def test_without_a_map_time_and_network_are_kept_and_no_place(world: World) -> None:
    alice = await world.add("alice")
    plain = Whereabouts(world.directory, NoAddressMap(), KEY, keep=5)
    await plain.note(alice.id, HOME, 1.0)
    (kept,) = await plain.of(alice.id, 2.0)
    assert (kept.country, kept.latitude, kept.network) == ("", None, plain.network(alice.id, HOME))
    assert sightings_in([kept]) == []
    assert not await plain.of(alice.id, 1.0)


def test_networks_are_told_apart_and_users_cannot_be_joined_by_them(tmp_path: Path) -> None:
    kept = Whereabouts(open_directory("", tmp_path, Sealer(Secret(KEY))), NoAddressMap(), KEY, keep=5)
    same = [("192.0.2.1", "192.0.2.250"), ("2001:db8:1::1", "2001:db8:1:ffff::2"), ("192.0.2.1", "::ffff:192.0.2.9")]
    for one, other in same:
        assert kept.network("usr_a", one) == kept.network("usr_a", other)
    for one, other in (("192.0.2.1", "192.0.3.1"), ("2001:db8:1::1", "2001:db8:2::1")):
        assert kept.network("usr_a", one) != kept.network("usr_a", other)
    assert kept.network("usr_a", "192.0.2.1") != kept.network("usr_b", "192.0.2.1")
    for none in ("", "unknown", "192.0.2.1:80", "\0"):
        assert kept.network("usr_a", none) == b""
