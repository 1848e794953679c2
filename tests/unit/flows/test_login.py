"""From a proof to a session: what each step asks for, and what it gives away."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest

from gateway.errors import StoreUnavailable
from gateway.flows.login import AGENT, LoggedIn, LoginRules, Next, NotGood, Refused
from gateway.flows.password import HashParameters, PasswordHasher
from gateway.flows.pending import new_reset
from gateway.flows.reckoning import PLACE
from gateway.flows.risk import Place
from gateway.flows.sessions import Proof
from gateway.flows.trail import AuditTrail
from gateway.stores.directory import PasswordHash
from tests.unit.flows.login_world import GOAL, PASSWORD, TENANT, World, browser_of, subject_of
from tests.unit.flows.totp import app_of, code_of


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    made = World(tmp_path)
    yield made
    await made.close()


async def begun(world: World, name: str = "alice", **browser: str) -> LoggedIn:
    outcome = await world.log_in(name, **browser)
    assert isinstance(outcome, LoggedIn), outcome
    return outcome


def altered(value: str) -> str:
    """Change one character in the middle of a value."""
    middle = len(value) // 2
    return f"{value[:middle]}{'a' if value[middle] != 'a' else 'b'}{value[middle + 1 :]}"


# --- passwords


async def test_a_password_begins_a_session_that_says_how(world: World) -> None:
    alice = await world.add("alice")
    outcome = await begun(world, agent="Mozilla/5.0 (Windows NT 10.0) Chrome/140.0 Safari/537.36")
    session = outcome.begun.session
    assert outcome.target == "/app"
    assert (session.subject, session.amr, session.acr) == (subject_of(alice), ("pwd",), "1fa")
    assert session.attributes[AGENT] == "Chrome on Windows"
    assert await world.sessions.find(outcome.begun.value) == session
    assert world.counts == {("password", "success"): 1}
    assert world.told("login.password") == [("success", "")]


async def test_a_name_counts_without_regard_to_case_and_form(world: World) -> None:
    await world.add("Zoë")
    assert isinstance(await world.log_in("ZOE\u0308"), LoggedIn)


@pytest.mark.parametrize("who", ["unknown", "inactive", "without a password", "wrong", "impossible", "long"])
async def test_the_work_for_who_is_refused_is_the_same_whoever_it_is(world: World, who: str) -> None:
    """Counted, not timed: the questions to the stores and the hashes are what time is spent on."""
    await world.add("wrong")
    await world.add("inactive", active=False)
    await world.add("without a password", None)
    name = {"impossible": "a\0b", "long": "x" * 5000}.get(who, who)
    await world.log_in("wrong", "not it")  # tables are made, and nobody is the first

    async def work(name: str, password: str) -> tuple[object, dict[str, int], int]:
        world.directory.calls.clear()
        before = world.hasher.computed
        outcome = await world.log_in(name, password)
        return outcome, dict(world.directory.calls), world.hasher.computed - before

    expected = await work("wrong", "not it")
    assert expected == (
        Refused("credentials"),
        {"find_user": 1, "get_throttles": 1, "note_failure": 2, "get_password": 1},
        1,
    )
    assert await work(name, PASSWORD if who == "inactive" else "not it") == expected
    assert await work(name, "x" * 10_000) == expected
    assert world.counts == {("password", "failure"): 4}


async def test_what_was_wrong_is_for_the_operator_alone(world: World) -> None:
    await world.add("alice")
    await world.add("gone", active=False)
    for name, password in (("alice", "no"), ("nobody", "no"), ("gone", PASSWORD)):
        assert await world.log_in(name, password) == Refused("credentials")
    assert [reason for _, reason in world.told("login.password")] == ["credentials", "unknown_user", "inactive"]
    assert [event.actor for event in world.events] == ["usr_alice", "", "usr_gone"]
    assert "nobody" not in repr(world.events)  # it may be somebody's password


async def test_a_tenant_has_users_of_its_own(world: World) -> None:
    await world.add("alice")
    other = replace(GOAL, tenant="other")
    assert await world.logins.password("alice", PASSWORD, other, browser_of()) == Refused("credentials")


async def test_a_hash_that_was_made_with_less_is_made_anew(world: World) -> None:
    alice = await world.add("alice")
    before = (await world.directory.get_password(alice.id)).hash
    world.logins._hasher = PasswordHasher(world.hasher._compute, HashParameters(memory_kib=128, passes=2, lanes=1))
    assert isinstance(await world.log_in("alice"), LoggedIn)
    after = (await world.directory.get_password(alice.id)).hash
    assert "m=64,t=1" in before
    assert "m=128,t=2" in after
    assert isinstance(await world.log_in("alice"), LoggedIn)
    assert (await world.directory.get_password(alice.id)).hash == after


async def test_a_password_that_changes_while_it_is_hashed_anew_is_not_put_back(world: World) -> None:
    alice = await world.add("alice")
    kept = await world.directory.get_password(alice.id)
    await world.directory.set_password(PasswordHash(user_id=alice.id, hash="another", changed_s=2.0))
    await world.logins._rehash(kept, PASSWORD)
    assert (await world.directory.get_password(alice.id)).hash == "another"


# --- guessing


async def test_each_failure_beyond_the_fifth_costs_twice_the_pause(world: World) -> None:
    await world.add("alice")
    waited = []
    for _ in range(9):
        outcome = await world.log_in("alice", "no")
        while isinstance(outcome, Refused) and outcome.code == "throttled":
            waited.append(outcome.retry_after_s)
            assert await world.log_in("alice") == outcome  # the right one is not looked at either
            world.clock.move(outcome.retry_after_s)
            outcome = await world.log_in("alice", "no")
    assert waited == [1.0, 2.0, 4.0, 8.0]


async def test_unknown_names_are_slowed_down_alike(world: World) -> None:
    await world.add("alice")
    outcomes = {}
    for name in ("alice", "nobody"):
        outcomes[name] = [await world.log_in(name, "no", address="") for _ in range(7)]
    assert outcomes["alice"] == outcomes["nobody"]
    assert outcomes["alice"][5] == Refused("throttled", 1.0)


async def test_nobody_is_locked_out_by_strangers(world: World) -> None:
    await world.add("alice")
    known = (await begun(world)).known
    for _ in range(40):
        await world.log_in("alice", "no", address="203.0.113.9")
    assert isinstance(await world.log_in("alice"), Refused)
    assert isinstance(await world.log_in("alice", known=known), LoggedIn)
    assert isinstance(await world.log_in("alice", known=altered(known)), Refused)  # a note that we did not make


async def test_what_is_known_of_one_user_helps_no_other(world: World) -> None:
    await world.add("alice")
    await world.add("bob")
    known = (await begun(world)).known
    for _ in range(8):
        await world.log_in("bob", "no", known=known)
    assert isinstance(await world.log_in("bob", known=known), Refused)


async def test_many_attempts_at_once_are_no_way_around_the_pause(world: World) -> None:
    await world.add("alice")
    outcomes = await asyncio.gather(*(world.log_in("alice", "no") for _ in range(40)))
    assert sum(outcome == Refused("credentials") for outcome in outcomes) <= 6


async def test_an_address_is_slowed_down_over_all_accounts_and_no_login_of_its_own_helps(tmp_path: Path) -> None:
    from gateway.flows.throttling import ThrottleLimits

    world = World(tmp_path, limits=ThrottleLimits(address_from=10))
    await world.add("alice")
    for number in range(10):
        await world.log_in(f"user{number}", "no", address="2001:db8::1")
        if number == 5:
            assert isinstance(await world.log_in("alice", address="2001:db8::2"), LoggedIn)
    assert await world.log_in("alice", address="2001:db8::ffff") == Refused("throttled", 1.0)
    assert isinstance(await world.log_in("alice", address="2001:db8:1::1"), LoggedIn)
    await world.close()


# --- second factors


async def test_a_code_is_asked_for_and_finishes_the_login(world: World) -> None:
    alice = await world.add("alice")
    app = await app_of(world, alice)
    outcome = await world.log_in("alice")
    assert isinstance(outcome, Next)
    assert outcome.step == "code"
    assert await world.logins.code(outcome.value, "000000", browser_of()) == Refused("code")
    done = await world.logins.code(outcome.value, code_of(world, app), browser_of())
    assert isinstance(done, LoggedIn)
    assert (done.begun.session.amr, done.begun.session.acr) == (("pwd", "otp", "mfa"), "2fa")
    assert await world.logins.code(outcome.value, code_of(world, app), browser_of()) == Refused("over")


async def test_of_two_who_finish_one_login_one_gets_a_session(world: World) -> None:
    alice = await world.add("alice")
    await app_of(world, alice)
    codes = await world.factors.new_codes(TENANT, alice.id, browser_of().caller)
    outcome = await world.log_in("alice")
    assert isinstance(outcome, Next)
    both = await asyncio.gather(
        world.logins.code(outcome.value, codes[0], browser_of()),
        world.logins.code(outcome.value, codes[1], browser_of()),
    )
    assert sorted(type(each).__name__ for each in both) == ["LoggedIn", "Refused"]


async def test_guessing_codes_is_slowed_down(world: World) -> None:
    alice = await world.add("alice")
    await app_of(world, alice)
    outcome = await world.log_in("alice")
    assert isinstance(outcome, Next)
    answers = [await world.logins.code(outcome.value, f"{number:06}", browser_of()) for number in range(7)]
    assert Refused("throttled", 1.0) in answers


async def test_what_is_under_way_is_over_after_a_while(world: World) -> None:
    alice = await world.add("alice")
    app = await app_of(world, alice)
    outcome = await world.log_in("alice")
    assert isinstance(outcome, Next)
    world.clock.move(601)
    assert await world.logins.code(outcome.value, code_of(world, app), browser_of()) == Refused("over")


async def test_one_step_cannot_be_taken_for_another(world: World) -> None:
    alice = await world.add("alice")
    await app_of(world, alice)
    outcome = await world.log_in("alice")
    assert isinstance(outcome, Next)
    assert await world.logins.change(outcome.value, "another good password", browser_of()) == Refused("over")
    assert await world.logins.reset(outcome.value, "another good password", browser_of()) == "over"
    assert await world.logins.enrolled(outcome.value, "000000", browser_of()) == Refused("over")


async def test_a_user_who_is_disabled_meanwhile_gets_no_session(world: World) -> None:
    alice = await world.add("alice")
    app = await app_of(world, alice)
    outcome = await world.log_in("alice")
    assert isinstance(outcome, Next)
    await world.directory.change_user(replace(alice, active=False))
    assert await world.logins.code(outcome.value, code_of(world, app), browser_of()) == Refused("credentials")


async def test_who_is_logged_out_everywhere_meanwhile_gets_no_session(world: World) -> None:
    alice = await world.add("alice")
    await world.sessions.end_all(subject_of(alice), reason="test")
    assert await world.log_in("alice") == Refused("over")
    world.clock.move(1)
    assert isinstance(await world.log_in("alice"), LoggedIn)


async def test_a_required_second_factor_is_set_up_on_the_way(tmp_path: Path) -> None:
    world = World(tmp_path, rules=LoginRules(tenant=TENANT, mfa_required=True))
    alice = await world.add("alice")
    outcome = await world.log_in("alice")
    assert isinstance(outcome, Next)
    assert outcome.step == "enrol"
    enrolment = await world.accounts.enrolment(alice)
    assert await world.logins.enrolled(outcome.value, "000000", browser_of()) == Refused("code")
    done = await world.logins.enrolled(outcome.value, code_of(world, enrolment.secret), browser_of())
    assert isinstance(done, LoggedIn)
    assert done.begun.session.acr == "2fa"
    await world.close()


# --- step-up (RFC 9470)


async def test_a_session_that_is_strong_enough_goes_on(world: World) -> None:
    await world.add("alice")
    value = (await begun(world)).begun.value
    outcome = await world.logins.resume(replace(GOAL, acr_values=("1fa",)), browser_of(session=value))
    assert isinstance(outcome, LoggedIn)
    assert outcome.begun.value == value


async def test_a_session_that_is_too_weak_needs_a_code_and_goes_on_under_another_id(world: World) -> None:
    alice = await world.add("alice")
    value = (await begun(world)).begun.value
    app = await app_of(world, alice)
    strong = replace(GOAL, acr_values=("phr", "2fa"))
    outcome = await world.logins.resume(strong, browser_of(session=value))
    assert isinstance(outcome, Next)
    done = await world.logins.code(outcome.value, code_of(world, app), browser_of(session=value))
    assert isinstance(done, LoggedIn)
    assert done.begun.value != value
    assert done.begun.session.acr == "2fa"
    assert await world.sessions.find(value) is None
    assert isinstance(await world.logins.resume(strong, browser_of(session=done.begun.value)), LoggedIn)


async def test_a_step_up_counts_in_its_own_browser_alone(world: World) -> None:
    alice = await world.add("alice")
    value = (await begun(world)).begun.value
    app = await app_of(world, alice)
    outcome = await world.logins.resume(replace(GOAL, acr_values=("2fa",)), browser_of(session=value))
    assert isinstance(outcome, Next)
    assert await world.logins.code(outcome.value, code_of(world, app), browser_of()) == Refused("over")


async def test_a_proof_that_is_too_old_or_not_wanted_is_given_anew(world: World) -> None:
    await world.add("alice")
    browser = browser_of(session=(await begun(world)).begun.value)
    aged = replace(GOAL, max_age_s=60)
    assert isinstance(await world.logins.resume(aged, browser), LoggedIn)
    world.clock.move(61)
    assert await world.logins.resume(aged, browser) is None
    assert await world.logins.resume(replace(GOAL, reauthenticate=True), browser) is None
    assert await world.logins.resume(replace(GOAL, tenant="other"), browser) is None


async def test_a_session_that_asks_for_a_proof_gets_no_further_without(world: World) -> None:
    alice = await world.add("alice")
    weak = await world.sessions.begin(subject_of(alice), Proof(amr=("pwd",), acr="1fa", requires_reauth=True))
    assert await world.logins.resume(GOAL, browser_of(session=weak.value)) is None


async def test_another_users_login_in_the_same_browser_ends_the_first_session(world: World) -> None:
    await world.add("alice")
    await world.add("bob")
    first = (await begun(world)).begun.value
    second = await begun(world, "bob", session=first)
    assert await world.sessions.find(first) is None
    assert second.begun.session.subject.id == "usr_bob"


async def test_a_weaker_proof_makes_no_strong_session_fresh(world: World) -> None:
    """Who logs in anew by a password alone, on a device that is remembered, has shown one factor now, not two."""
    alice = await world.add("alice")
    app = await app_of(world, alice)
    outcome = await world.log_in("alice")
    assert isinstance(outcome, Next)
    strong = await world.logins.code(outcome.value, code_of(world, app), browser_of(), remember=True)
    assert isinstance(strong, LoggedIn)
    again = await begun(world, session=strong.begun.value, known=strong.known, device=strong.device)
    assert again.begun.session.acr == "1fa"


# --- devices and risk


async def test_a_remembered_device_spares_a_code_until_it_is_forgotten_or_over(world: World) -> None:
    alice = await world.add("alice")
    app = await app_of(world, alice)
    outcome = await world.log_in("alice")
    assert isinstance(outcome, Next)
    done = await world.logins.code(outcome.value, code_of(world, app), browser_of(), remember=True)
    assert isinstance(done, LoggedIn)
    cookies = {"known": done.known, "device": done.device}
    assert isinstance(await world.log_in("alice", **cookies), LoggedIn)
    assert isinstance(await world.log_in("alice", device=altered(done.device)), Next)
    wanting = replace(GOAL, acr_values=("2fa",))
    assert isinstance(await world.logins.password("alice", PASSWORD, wanting, browser_of(**cookies)), Next)
    world.clock.move(86_401)
    assert isinstance(await world.log_in("alice", **cookies), Next)


async def test_what_is_odd_asks_for_a_code_on_a_remembered_device_too(world: World) -> None:
    alice = await world.add("alice")
    app = await app_of(world, alice)
    outcome = await world.log_in("alice")
    assert isinstance(outcome, Next)
    done = await world.logins.code(outcome.value, code_of(world, app), browser_of(), remember=True)
    assert isinstance(done, LoggedIn)
    for _ in range(4):
        await world.log_in("alice", "no")
    assert isinstance(await world.log_in("alice", device=done.device), Next)  # 15 for the browser, 16 for failures


class Map:
    """Knows where two addresses are."""

    def find(self, address: str) -> Place | None:
        return {"192.0.2.1": Place(52.5, 13.4), "198.51.100.2": Place(-33.9, 151.2)}.get(address)


async def test_a_journey_that_nobody_makes_is_refused_and_says_why_in_the_trail(tmp_path: Path) -> None:
    world = World(tmp_path, rules=LoginRules(tenant=TENANT, risk_refused=60), addresses=Map())
    await world.add("alice")
    first = await begun(world)
    assert first.begun.session.attributes[PLACE] == "52.5,13.4"
    world.clock.move(1200)
    assert await world.log_in("alice", address="198.51.100.2") == Refused("credentials")
    told = world.events[-1]
    assert (told.outcome, told.reason) == ("refused", "risk")
    assert "impossible_travel 50 (" in str(told.details["risk_parts"])
    world.clock.move(86_400)
    assert isinstance(await world.log_in("alice", address="198.51.100.2"), LoggedIn)
    await world.close()


# --- new passwords


@pytest.mark.parametrize(
    ("password", "problem"),
    [
        ("short", "too_short"),
        ("x" * 1025, "too_long"),
        ("alexandra1234", "like_name"),
    ],
)
async def test_a_password_that_is_no_good_is_not_taken(world: World, password: str, problem: str) -> None:
    alexandra = await world.add("Alexandra")
    assert await world.logins.set_password(alexandra, password) == problem
    assert isinstance(await world.log_in("alexandra"), LoggedIn)


async def test_a_password_that_must_be_changed_is_changed_first(world: World) -> None:
    alice = await world.add("alice", None)
    await world.logins.set_password(alice, PASSWORD, must_change=True)
    outcome = await world.log_in("alice")
    assert isinstance(outcome, Next)
    assert outcome.step == "change"
    assert await world.logins.change(outcome.value, "short", browser_of()) == NotGood("too_short")
    assert isinstance(await world.logins.change(outcome.value, "a new and good one", browser_of()), LoggedIn)
    assert isinstance(await world.log_in("alice", "a new and good one"), LoggedIn)


async def test_a_link_sets_a_password_once_and_ends_everything_else(world: World) -> None:
    alice = await world.add("alice")
    app = await app_of(world, alice)
    outcome = await world.log_in("alice")
    assert isinstance(outcome, Next)
    done = await world.logins.code(outcome.value, code_of(world, app), browser_of(), remember=True)
    assert isinstance(done, LoggedIn)
    link = await new_reset(world.pending, alice, AuditTrail(world, world.clock), actor="operator")
    assert await world.logins.reset(link, "short", browser_of()) == "too_short"
    assert await world.logins.reset(link, "a new and good one", browser_of()) is None
    assert await world.logins.reset(link, "a new and good two", browser_of()) == "over"
    assert await world.sessions.find(done.begun.value) is None
    world.clock.move(1)
    assert await world.log_in("alice") == Refused("credentials")
    # Neither the second factor nor its absence is what a link can change.
    assert isinstance(await world.log_in("alice", "a new and good one", device=done.device), Next)


async def test_a_link_is_over_after_its_time(world: World) -> None:
    alice = await world.add("alice")
    link = await new_reset(world.pending, alice, AuditTrail(world, world.clock), actor="operator", lifetime_s=60)
    world.clock.move(61)
    assert await world.logins.reset(link, "a new and good one", browser_of()) == "over"


# --- faults


@pytest.mark.parametrize("turn", range(12))
@pytest.mark.parametrize("password", [PASSWORD, "not it"])
async def test_no_fault_of_a_store_ever_lets_anybody_in(world: World, turn: int, password: str) -> None:
    """Whichever question goes unanswered, what comes of it is a fault or what would have come of it."""
    await world.add("alice")
    world.directory.fail_at(turn)
    world.grants.fail_at(turn)
    try:
        outcome = await world.log_in("alice", password)
    except StoreUnavailable:
        return
    assert isinstance(outcome, LoggedIn) is (password == PASSWORD)


@pytest.mark.parametrize("turn", range(12))
async def test_no_fault_of_a_store_makes_a_code_needless(world: World, turn: int) -> None:
    alice = await world.add("alice")
    await app_of(world, alice)
    world.directory.fail_at(turn)
    world.grants.fail_at(turn)
    try:
        outcome = await world.log_in("alice")
    except StoreUnavailable:
        return
    assert isinstance(outcome, Next)
    try:
        assert await world.logins.code(outcome.value, "000000", browser_of()) == Refused("code")
    except StoreUnavailable:
        return


async def test_several_people_share_a_browser(world: World) -> None:
    await world.add("alice")
    await world.add("bob")
    known = (await begun(world)).known
    known = (await begun(world, "bob", known=known)).known
    again = await begun(world, known=known)
    assert sorted(again.known.split("~")) == sorted(known.split("~"))
    assert [event.details["risk"] for event in world.events if event.action == "login.password"] == [15, 15, 0]
