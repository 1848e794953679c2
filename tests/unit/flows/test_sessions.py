"""Sessions: what makes one, what ends one, and that nobody makes one up."""

from __future__ import annotations

from pathlib import Path

import pytest

from gateway.errors import AlreadyExists
from gateway.flows.sessions import Proof, SessionLimits, SessionNames, Sessions, hash_of, origin_of
from gateway.flows.trail import AuditTrail
from gateway.stores import open_session_store
from gateway.types import AuditEvent, Secret, Subject
from tests.unit.tokens.fakes import MovedClock

ALICE = Subject("", "usr_alice")
PASSWORD = Proof(amr=("pwd",), acr="1")
KEY = Secret(bytes(range(32)))


class World:
    """Sessions in memory, with a clock that tests move."""

    def __init__(self) -> None:
        self.clock = MovedClock()
        self.store = open_session_store("memory:", Path(), self.clock)
        self.names = SessionNames("eu-1", KEY)
        self.events: list[AuditEvent] = []
        self.sessions = Sessions(
            self.store,
            self.names,
            clock=self.clock,
            trail=AuditTrail(self, self.clock),
            limits=SessionLimits(idle_s=600, absolute_s=3600),
        )

    def tell(self, event: AuditEvent) -> None:
        self.events.append(event)

    @property
    def told(self) -> list[tuple[str, str]]:
        return [(event.action, event.reason) for event in self.events]


@pytest.fixture
def world() -> World:
    return World()


# --- names


def test_a_name_says_its_region_and_hash_and_is_new_each_time(world: World) -> None:
    one, other = world.names.new(), world.names.new()
    assert one != other
    name = world.names.read(one)
    assert name is not None
    assert (name.region, name.id_hash) == ("eu-1", hash_of(one))


def test_no_changed_character_makes_a_name(world: World) -> None:
    value = world.names.new()
    for at, character in enumerate(value):
        for other in "a2-_z":
            if other != character:
                assert world.names.read(value[:at] + other + value[at + 1 :]) is None
    for wrong in ("", value[:-1], value + "a", value.upper(), f" {value}", f"{value}\n", f"us_{value[5:]}"):
        assert world.names.read(wrong) is None


def test_another_key_reads_nothing(world: World) -> None:
    assert SessionNames("eu-1", Secret(bytes(32))).read(world.names.new()) is None


@pytest.mark.parametrize("region", ["", "EU", "eu_1", "-eu", "x" * 17, "eu.1", "../x"])
def test_a_region_stands_in_names_as_it_is(region: str) -> None:
    with pytest.raises(ValueError, match="is no name of a region"):
        SessionNames(region, KEY)
    with pytest.raises(ValueError, match="32 bytes"):
        SessionNames("eu", Secret(bytes(31)))


# --- life


async def test_a_session_is_found_by_its_value_until_its_time_is_over(world: World) -> None:
    begun = await world.sessions.begin(ALICE, PASSWORD, attributes={"scope": "orders"})
    found = await world.sessions.find(begun.value)
    assert found == begun.session
    assert (found.subject, found.amr, found.home_region) == (ALICE, ("pwd",), "eu-1")
    world.clock.move(599)
    assert await world.sessions.find(begun.value) is not None  # and was seen
    world.clock.move(599)
    assert await world.sessions.find(begun.value) is not None
    world.clock.move(601)
    assert await world.sessions.find(begun.value) is None


async def test_however_much_it_is_used_it_ends(world: World) -> None:
    begun = await world.sessions.begin(ALICE, PASSWORD)
    for _ in range(7):
        world.clock.move(500)
        assert await world.sessions.find(begun.value) is not None
    world.clock.move(101)
    assert await world.sessions.find(begun.value) is None


async def test_it_is_noted_as_seen_now_and_then_only(world: World) -> None:
    begun = await world.sessions.begin(ALICE, PASSWORD)
    world.clock.move(29)
    seen = await world.sessions.find(begun.value)
    assert seen is not None
    assert seen.last_seen_s == begun.session.created_s
    world.clock.move(1)
    seen = await world.sessions.find(begun.value)
    assert seen is not None
    assert seen.last_seen_s == begun.session.created_s + 30


async def test_the_former_session_of_a_browser_ends_with_a_login(world: World) -> None:
    first = await world.sessions.begin(ALICE, PASSWORD)
    second = await world.sessions.begin(ALICE, PASSWORD, former=first.value)
    assert first.value != second.value
    assert await world.sessions.find(first.value) is None
    assert await world.sessions.find(second.value) is not None
    planted = world.names.new()  # fixation: a value that was never a session's
    third = await world.sessions.begin(ALICE, PASSWORD, former=planted)
    assert third.value != planted
    assert await world.sessions.find(planted) is None


async def test_a_step_up_goes_on_under_a_new_value(world: World) -> None:
    begun = await world.sessions.begin(ALICE, PASSWORD)
    world.clock.move(100)
    more = await world.sessions.step_up(begun.value, Proof(amr=("otp",), acr="2"))
    assert more is not None
    assert await world.sessions.find(begun.value) is None
    assert (more.session.amr, more.session.acr) == (("pwd", "otp"), "2")
    assert more.session.expires_s == begun.session.expires_s
    assert more.session.authenticated_s == begun.session.authenticated_s + 100
    assert more.session.csrf_secret != begun.session.csrf_secret
    assert await world.sessions.step_up(begun.value, PASSWORD) is None
    assert await world.sessions.step_up("nonsense", PASSWORD) is None


async def test_a_session_is_found_by_what_it_began_as_whatever_its_id_is_now(world: World) -> None:
    begun = await world.sessions.begin(ALICE, PASSWORD)
    origin = origin_of(begun.session)
    value = begun.value
    for _ in range(3):
        more = await world.sessions.step_up(value, Proof(amr=("otp",)))
        assert more is not None and origin_of(more.session) == origin
        value = more.value
    found = await world.sessions.find_by_origin(ALICE, origin)
    assert found is not None and found.id_hash == hash_of(value)
    assert await world.sessions.join(found, "app")
    assert await world.sessions.find_by_origin(Subject("", "usr_bob"), origin) is None
    await world.sessions.end(value)
    assert await world.sessions.find_by_origin(ALICE, origin) is None
    assert not await world.sessions.join(found, "app")


async def test_logging_out_ends_one_and_everywhere_ends_all(world: World) -> None:
    begun = [await world.sessions.begin(ALICE, PASSWORD) for _ in range(3)]
    assert (await world.sessions.end(begun[0].value)) is not None
    assert (await world.sessions.end(begun[0].value)) is None
    assert len(await world.sessions.list_of(ALICE)) == 2
    assert await world.sessions.end_all(ALICE, reason="password changed") == 2
    assert [await world.sessions.find(each.value) for each in begun] == [None] * 3
    with pytest.raises(AlreadyExists):
        await world.sessions.begin(ALICE, PASSWORD)  # verified before it was said
    world.clock.move(1)
    await world.sessions.begin(ALICE, PASSWORD)


async def test_every_act_is_told_without_the_value(world: World) -> None:
    begun = await world.sessions.begin(ALICE, PASSWORD)
    more = await world.sessions.step_up(begun.value, Proof(amr=("otp",)))
    assert more is not None
    await world.sessions.end(more.value)
    await world.sessions.end_all(ALICE, reason="admin", actor="usr_root")
    assert world.told == [
        ("session.begin", ""),
        ("session.step_up", ""),
        ("session.end", "logout"),
        ("session.end_all", "admin"),
    ]
    for event in world.events:
        assert begun.value not in repr(event)
        assert begun.session.id_hash.hex() not in repr(event)
    assert world.events[-1].actor == "usr_root"
    provisional = await world.sessions.begin(Subject("", "usr_bob"), Proof(amr=("swk",), provisional=True))
    assert provisional.session.provisional
    assert world.events[-1].outcome == "degraded"
