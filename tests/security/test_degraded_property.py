"""Whatever is slow, down or frozen, in any order: nobody gets in without a proof; levels rise in time and fall late."""

from __future__ import annotations

import asyncio
import itertools

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gateway.errors import GatewayError, NotOffered
from gateway.flows.device_keys import DeviceRefused
from gateway.flows.login import LoggedIn
from gateway.flows.sessions import PROVISIONAL_S
from gateway.resilience.degradation import FALL_S, DegradationSnapshot
from gateway.resilience.health import DEPENDENCIES, DependencyName
from tests.real.soft_device import SoftDevice
from tests.security.degraded_world import CLOCK, ORIGIN, PASSWORD, STATES, TENANT, DegradedWorld, State
from tests.virtual_time import run_virtual

RISE_S = 2.0
WELL_S = 96.0 + 4 * (FALL_S + 2)  # after the longest row of good samples that a relapse asks for, and all steps down
LOOK_S = 1.0  # that the falling level is looked at

FAULT = st.tuples(st.sampled_from(DEPENDENCIES), st.sampled_from(STATES))
DEVICE_ACTS = ("device", "device_key", "device_again", "device_elsewhere", "device_origin", "device_voucher")
ACTS = ("right", "wrong", "unknown", "planted", "forged", "known", "provisional", *DEVICE_ACTS, "device_forget")
ACT = st.sampled_from((*ACTS, "pass"))
STEPS = st.lists(st.one_of(FAULT, ACT, st.floats(0.1, 45.0)), min_size=1, max_size=25)


class Watched:
    """A world, what it was given, and what its level did."""

    def __init__(self, world: DegradedWorld) -> None:
        self.world = world
        self.tries = 0  # with the right password
        self.proofs = 0  # of them, that gave a session
        self.carried_tries = 0  # with an earlier session
        self.device_tries = 0  # with the right key
        self.device_proof = ""  # of the last of them
        self.is_forgotten = False  # the device, for sure
        self.values: list[str] = []
        self.falls: list[tuple[int, float]] = []  # by how much, and when
        world.resilience.degradation.subscribe(self._changed)

    def _changed(self, before: DegradationSnapshot, after: DegradationSnapshot) -> None:
        if after.level < before.level:
            self.falls.append((before.level - after.level, CLOCK.monotonic_s()))

    def check_falls(self) -> None:
        """The level fell by one at a time, with time between."""
        assert all(steps == 1 for steps, _ in self.falls)
        times_s = [at_s for _, at_s in self.falls]
        assert all(later - earlier >= FALL_S - LOOK_S for earlier, later in itertools.pairwise(times_s))

    def least_level(self) -> int:
        """The level that the faults ask for which are in force."""
        states = self.world.faults.states
        gone = [name for name in ("database", "cache") if states[name] in ("down", "frozen")]
        if gone:
            return len(gone) + 1
        ill = [state for name, state in states.items() if state != "up" and (name, state) != ("external_idp", "slow")]
        return 1 if ill else 0

    async def act(self, act: str) -> None:
        world = self.world
        is_offered = world.offers.allows("new_login")
        begun_before = len(world.told("session.begin"))
        try:
            if act == "right":
                self.tries += 1
                outcome = await world.log_in()
                assert is_offered and isinstance(outcome, LoggedIn)
                self.proofs += 1
                self.values.append(outcome.begun.value)
                assert not outcome.begun.session.provisional
            elif act == "wrong":
                assert not isinstance(await world.log_in("correct horse battery stable"), LoggedIn)
            elif act == "unknown":
                assert not isinstance(await world.log_in(PASSWORD, "nobody"), LoggedIn)
            elif act == "planted":
                assert await world.sessions.find(f"local_{'a' * 52}{'b' * 26}") is None
            elif act == "forged" and self.values:
                value = self.values[-1]
                assert await world.sessions.find(value[:-1] + ("a" if value[-1] != "a" else "b")) is None
            elif act == "known" and self.values:
                found = await world.sessions.find(self.values[-1])
                assert found is None or found.subject.id == "usr_alice"
            elif act == "provisional":
                value = self.values[-1] if self.values else "local_x"
                self.carried_tries += bool(self.values)
                begun = await world.provisional.begin(value)
                assert begun is None or (begun.session.provisional and begun.session.requires_reauth and self.values)
            elif act == "device_forget":
                self.is_forgotten |= await world.forget_device()
            elif act in DEVICE_ACTS:
                await self.act_by_device(act)
        except DeviceRefused:
            assert act != "device" or self.is_forgotten or not world.vouchers.is_of(world.voucher, TENANT, "usr_alice")
        except NotOffered:
            pass
        except GatewayError as error:
            assert error.status >= 500, act  # a fault is ours, and never an answer about a credential
        if act not in ("right", "provisional", "device"):
            assert len(world.told("session.begin")) == begun_before
        self.check()

    async def act_by_device(self, act: str) -> None:
        """Go on by the device, or by everything that looks like it."""
        world = self.world
        is_offered = world.offers.allows("provisional_session")
        if act == "device":
            proof = await world.proof()
            self.device_proof = proof
            self.device_tries += 1
            begun = await world.carry(proof)
            assert is_offered and not self.is_forgotten
            session = begun.session
            assert (session.provisional, session.requires_reauth, session.acr) == (True, True, "1fa")
            assert session.subject.id == "usr_alice" and session.expires_s - session.created_s == PROVISIONAL_S
            assert "scope" not in session.attributes
            return
        if act == "device_key":
            await world.carry(await world.proof(SoftDevice(ORIGIN)))
        elif act == "device_again":
            await world.carry(self.device_proof or "x.y.z")
        elif act == "device_elsewhere":
            await world.carry(await world.proof(), holder="another browser")
        elif act == "device_origin":
            await world.carry(await world.proof(aud="https://evil.example"))
        else:
            await world.carry(await world.proof(), voucher=world.voucher[:-2])
        raise AssertionError(f"{act} gave a session")

    def check(self) -> None:
        """Every session began with a proof that was right, and whoever got one above level 0 is told apart."""
        begun = self.world.told("session.begin")
        carried = [each for each in self.world.told("session.provisional") if each.outcome == "degraded"]
        # One whose store answered too late may have begun all the same, by a proof that was right.
        assert self.proofs <= len(begun) <= self.tries + len(carried) + self.carried_tries + self.device_tries
        assert all(each.outcome == "degraded" for each in begun if each.details.get("amr") == "swk")
        assert all(each.actor == "usr_alice" for each in begun)
        for event in self.world.told("login.password"):
            if event.outcome == "degraded":
                assert str(event.details["degradation"])[0] in "123"


async def run(steps: list[tuple[DependencyName, State] | str | float]) -> None:
    async with DegradedWorld(provisional=True) as world:
        watched = Watched(world)
        await watched.act("right")
        for step in steps:
            if isinstance(step, float):
                await asyncio.sleep(step)
            elif isinstance(step, str):
                await watched.act(step)
            else:
                world.faults.states[step[0]] = step[1]
                await asyncio.sleep(RISE_S)
                assert world.level >= watched.least_level(), world.resilience.degradation.current
        for name in DEPENDENCIES:
            world.faults.states[name] = "up"
        await asyncio.sleep(WELL_S)
        assert world.level == 0
        watched.check_falls()
        await watched.act("right")
        assert watched.proofs >= 2  # recovered, without a restart
        await asyncio.sleep(2.0)
        assert not world.idle_work.jobs and not world.work.jobs
        assert not world.idle_work.dead_keys and not world.work.dead_keys
        done = [*world.idle_work.completed, *world.work.completed]
        assert len(done) == len(set(done))


@settings(max_examples=60, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
@given(STEPS)
def test_no_order_of_faults_lets_anybody_in_without_a_proof(
    steps: list[tuple[DependencyName, State] | str | float],
) -> None:
    run_virtual(run(steps))


COMBINATIONS = list(itertools.product(STATES, repeat=3))


@pytest.mark.parametrize(("database", "cache", "other"), COMBINATIONS)
def test_every_combination_of_faults(database: State, cache: State, other: State) -> None:
    """Two that flows need, and what they do not need, all at once: each act is tried, then all is well again."""
    acts = [*ACTS[:-1]]
    faults: list[tuple[DependencyName, State]] = [
        ("database", database),
        ("cache", cache),
        ("external_idp", other),
        ("policy_engine", other),
    ]
    run_virtual(run([*acts, *faults, *acts, 5.0, *acts, "device_forget", *DEVICE_ACTS]))
