"""What flows do at each level: log-ins without assessment, provisional sessions, and work that is done later."""

from __future__ import annotations

import asyncio
import itertools
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from gateway.errors import NotOffered, StoreUnavailable
from gateway.flows.deferred import HOLD_S, DeferredRunner, GaveUp
from gateway.flows.degraded import TABLE, Offers, all_is_well, as_granted, level_teller
from gateway.flows.login import LoggedIn
from gateway.flows.risk import Place
from gateway.flows.sessions import PROVISIONAL_S, Proof
from gateway.flows.trail import AuditTrail
from gateway.resilience import DegradationSnapshot
from gateway.resilience.assembly import LevelChange
from gateway.resilience.degradation import Level, determine_degradation_level, offered_features
from gateway.resilience.health import DEPENDENCIES, HealthStatus
from gateway.stores import open_deferred_work
from gateway.stores.deferred import Job
from gateway.types import AuditEvent, Subject
from tests.conftest import ROOT
from tests.security.degraded_world import CLOCK, TENANT, DegradedWorld
from tests.unit.tokens.fakes import MovedClock
from tests.virtual_time import run_virtual

ALICE = Subject(TENANT, "usr_alice")
STATUSES: tuple[HealthStatus, ...] = ("ok", "slow", "down")
EVENT = AuditEvent(id="1" * 32, at_s=1.0, action="login.password", outcome="success")


def snapshot(level: Level = 2) -> DegradationSnapshot:
    return DegradationSnapshot(level, frozenset(), {}, ("database down",) if level else ())


def test_in_every_state_of_health_flows_do_what_the_table_says() -> None:
    for statuses in itertools.product(STATUSES, repeat=len(DEPENDENCIES)):
        health = dict(zip(DEPENDENCIES, statuses, strict=True))
        level = determine_degradation_level(health)
        offered = offered_features(health, level, provisional=True)
        for name, rule in TABLE.items():
            conduct = rule.at[level]
            if conduct in ("whole", "lean", "known"):
                assert rule.feature in offered, (name, health)
            elif conduct == "refused":
                assert rule.feature not in offered, (name, health)


def test_the_table_lets_nobody_in_at_level_3() -> None:
    entering = ("log_in", "log_in_at_provider", "second_factor", "refresh_token", "provisional_session")
    assert {TABLE[name].at[3] for name in entering} == {"refused"}  # type: ignore[index]
    assert TABLE["break_glass"].at == ("whole",) * 4


def test_what_is_not_offered_is_refused_with_when_to_come_again() -> None:
    with pytest.raises(NotOffered, match="level 2") as refused:
        Offers(snapshot).check("new_login")
    assert (refused.value.status, refused.value.retry_after_s) == (503, 60.0)
    all_is_well().check("new_login")
    assert not all_is_well().allows("provisional_session")


def test_no_session_begins_where_its_store_is_gone() -> None:
    well = DegradationSnapshot(0, frozenset({"new_login", "token_validation"}), {}, ())
    offers = Offers(lambda: well, sessions_gone=lambda: True)
    assert not offers.allows("new_login")
    assert offers.allows("token_validation")


def test_what_is_granted_above_level_0_says_so_in_the_audit_log() -> None:
    told = as_granted(EVENT, snapshot())
    assert (told.outcome, told.details["degradation"]) == ("degraded", "2 cached: database down")
    assert as_granted(EVENT, snapshot(0)) is EVENT
    refused = replace(EVENT, outcome="refused")
    assert as_granted(refused, snapshot()) is refused
    full = replace(EVENT, details={str(number): number for number in range(16)})
    assert as_granted(full, snapshot()).outcome == "degraded"


def test_each_change_of_the_level_is_recorded() -> None:
    events: list[AuditEvent] = []

    class Recorder:
        def tell(self, event: AuditEvent) -> None:
            events.append(event)

    tell = level_teller(AuditTrail(Recorder(), MovedClock()))
    tell(LevelChange(0, 2, ("database down",)))
    tell(LevelChange(1, 0, ()))
    tell("a transition of a breaker")
    assert [(each.outcome, each.reason, each.details["after"]) for each in events] == [
        ("degraded", "database down", 2),
        ("success", "recovering", 0),
    ]


class TwoCities:
    """A map of two addresses that are far apart."""

    def find(self, address: str) -> Place | None:
        return Place(52.5, 13.4) if address.startswith("192.0.2.") else Place(-33.9, 151.2)


def test_a_log_in_at_level_1_is_assessed_once_when_the_level_has_fallen() -> None:
    async def main() -> None:
        async with DegradedWorld(addresses=TwoCities()) as world:
            first = await world.log_in()
            assert isinstance(first, LoggedIn)
            assert not world.idle_work.jobs  # assessed at once
            world.set(policy_engine="down")
            await asyncio.sleep(2)
            assert world.level == 1
            lean = await world.log_in(address="198.51.100.1")
            assert isinstance(lean, LoggedIn)
            assert "place" not in lean.begun.session.attributes
            assert world.told("login.password")[-1].outcome == "degraded"
            await asyncio.sleep(20)
            assert len(world.idle_work.jobs) == 1
            assert not world.told("login.risk")
            assert len(world.users.logins) == 1  # that of level 0
            world.set(policy_engine="up")
            await asyncio.sleep(60)
            (told,) = world.told("login.risk")
            assert "impossible_travel" in str(told.details["risk_parts"])
            assert told.outcome == "success"  # odd, but not as odd as what nobody gets in with
            assert [each.latitude for each in world.users.logins] == [-33.9, 52.5]  # noted as it was
            assert world.users.logins[0].at_s < told.at_s - 20
            assert await world.sessions.find(lean.begun.value) is not None

    run_virtual(main())


def test_a_session_that_would_have_been_refused_ends_afterwards() -> None:
    async def main() -> None:
        async with DegradedWorld(addresses=TwoCities()) as world:
            for _ in range(5):
                await world.log_in()
            world.set(policy_engine="down")
            await asyncio.sleep(2)
            for _ in range(2):  # each is a device of its own
                outcome = await world.log_in(address="198.51.100.1")
                assert isinstance(outcome, LoggedIn)
            key = next(iter(world.idle_work.jobs))
            job = world.idle_work.jobs[key]
            world.idle_work.jobs[key] = replace(job, body={**job.body, "failures": 5})  # 15 + 20 + 20 + 50 points
            world.set(policy_engine="up")
            await asyncio.sleep(60)
            assert sorted(each.outcome for each in world.told("login.risk")) == ["refused", "success"]
            (ended,) = [each for each in world.told("session.end") if each.reason == "risk"]
            assert ended.actor == ALICE.id

    run_virtual(main())


async def _until_directory_is_down(world: DegradedWorld) -> str:
    begun = await world.sessions.begin(ALICE, Proof(amr=("pwd",), acr="1fa"), attributes={"scope": "admin"})
    await asyncio.sleep(3600 - PROVISIONAL_S / 2)  # it ends soon
    world.set(database="down")
    await asyncio.sleep(2)
    return begun.value


def test_provisional_sessions_are_off_by_default() -> None:
    async def main() -> None:
        async with DegradedWorld() as world:
            value = await _until_directory_is_down(world)
            assert await world.provisional.earlier(value) is None
            with pytest.raises(NotOffered):
                await world.provisional.begin(value)

    run_virtual(main())


def test_a_provisional_session_is_short_weak_marked_and_gives_no_other() -> None:
    async def main() -> None:
        async with DegradedWorld(provisional=True) as world:
            value = await _until_directory_is_down(world)
            proved_s = world.told("session.begin")[0].at_s
            begun = await world.provisional.begin(value)
            assert begun is not None
            session = begun.session
            assert session.provisional and session.requires_reauth and session.acr == "1fa"
            assert session.expires_s - session.created_s == PROVISIONAL_S
            assert session.authenticated_s == int(proved_s)  # nobody proved anything since
            assert "scope" not in session.attributes
            assert await world.provisional.begin(begun.value) is None  # no chain of them
            for nothing in ("", "local_x", begun.value[:-1] + "7"):
                assert await world.provisional.begin(nothing) is None
            assert [each.outcome for each in world.told("session.provisional")] == ["degraded", *["refused"] * 4]

    run_virtual(main())


def test_a_provisional_session_stays_where_the_directory_agrees() -> None:
    async def main() -> None:
        async with DegradedWorld(provisional=True) as world:
            begun = await world.provisional.begin(await _until_directory_is_down(world))
            assert begun is not None
            world.set(database="up")
            await asyncio.sleep(30)
            session = await world.sessions.find(begun.value)
            assert session is not None and not session.provisional and session.requires_reauth
            assert [each.outcome for each in world.told("session.reconcile")] == ["success"]

    run_virtual(main())


@pytest.mark.parametrize("change", ["inactive", "unknown_user", "password_changed"])
def test_a_provisional_session_ends_where_the_directory_does_not_agree(change: str) -> None:
    async def main() -> None:
        async with DegradedWorld(provisional=True) as world:
            begun = await world.provisional.begin(await _until_directory_is_down(world))
            assert begun is not None
            user = world.users.users[ALICE.id]
            if change == "inactive":
                world.users.users[ALICE.id] = replace(user, active=False)
            elif change == "unknown_user":
                del world.users.users[ALICE.id]
            else:
                kept = world.users.passwords[ALICE.id]
                world.users.passwords[ALICE.id] = replace(kept, changed_s=CLOCK.wall_s())
            world.set(database="up")
            await asyncio.sleep(30)
            assert await world.sessions.find(begun.value) is None
            assert [(each.outcome, each.reason) for each in world.told("session.reconcile")] == [("refused", change)]

    run_virtual(main())


# -- work that is done later -------------------------------------------------------------------------------------------

DYING = """
import asyncio, os, signal, sys
from pathlib import Path
from gateway.flows.deferred import DeferredRunner
from gateway.stores import open_deferred_work
from gateway.types import SystemClock

async def main():
    clock = SystemClock()
    runner = DeferredRunner(open_deferred_work("", Path(sys.argv[1]), clock), {}, clock)
    for number in range(30):
        await runner.put("back_channel_logout", f"k{number}", {"n": number})
    async def work(job):
        if job.key == "k20":
            os.kill(os.getpid(), signal.SIGKILL)  # in the middle of the second batch
    runner.handle("back_channel_logout", work)
    while await runner.run_once():
        pass

asyncio.run(main())
"""


async def test_promised_work_survives_a_kill_and_each_job_is_completed_exactly_once(tmp_path: Path) -> None:
    died = subprocess.run([sys.executable, "-c", DYING, str(tmp_path)], cwd=ROOT, check=False)
    assert died.returncode == -9
    clock = MovedClock()
    clock.offset_s = 4_000_000_000.0  # long after the dead one's hold is over
    works = [open_deferred_work("", tmp_path, clock) for _ in range(2)]
    runners = [DeferredRunner(work, {}, clock) for work in works]
    done: list[str] = []

    async def work(job: Job) -> None:
        await asyncio.sleep(0)
        done.append(job.key)

    for runner in runners:
        runner.handle("back_channel_logout", work)
    try:
        await asyncio.gather(*(each.run_once() for each in runners))
        assert len(done) == len(set(done)) == sum(each.done for each in runners)
        assert {f"k{number}" for number in range(20, 30)} >= set(done) >= {"k20"}  # the first batch was done before
        backlog = await works[0].backlog()
        assert (backlog.waiting, backlog.dead) == (0, 0)
    finally:
        for each in works:
            await each.close()


async def test_a_job_waits_for_what_it_needs_is_tried_again_and_set_aside_where_it_never_can_be_done(
    tmp_path: Path,
) -> None:
    clock = MovedClock()
    work = open_deferred_work("", tmp_path, clock)
    is_ready = [False]
    runner = DeferredRunner(work, {}, clock, ready=lambda: is_ready[0])
    tries: list[int] = []

    async def flaky(job: Job) -> None:
        tries.append(job.attempt)
        if len(tries) == 1:
            raise StoreUnavailable("not yet")
        if len(tries) == 2:
            raise KeyError("a fault of ours ends no runner")
        raise GaveUp("never")

    runner.handle("k", flaky)
    await runner.put("k", "one", {})
    await runner.run_once()
    assert tries == []  # not while what it needs is down
    is_ready[0] = True
    for _ in range(3):
        await runner.run_once()
        clock.now_s += HOLD_S
    assert tries == [1, 2, 3]
    assert [each.key for each in await work.dead()] == ["one"]
    await work.close()
