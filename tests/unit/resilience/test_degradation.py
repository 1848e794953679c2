"""Levels follow health, rise at once and fall slowly; features follow each dependency, and none is ever made up."""

from __future__ import annotations

import asyncio
import itertools

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from gateway.errors import StoreUnavailable
from gateway.resilience.degradation import (
    ALWAYS,
    FALL_S,
    FEATURES,
    NEEDS,
    NON_ESSENTIAL,
    DegradationMonitor,
    DegradationSnapshot,
    Health,
    HeldLevel,
    Level,
    determine_degradation_level,
    offered_features,
)
from gateway.resilience.health import DEPENDENCIES, DependencyHealth, DependencyName, HealthLimits, HealthStatus
from tests.unit.resilience.parts import CLOCK
from tests.unit.tokens.fakes import MovedClock
from tests.virtual_time import run_virtual

STATUSES: tuple[HealthStatus, ...] = ("ok", "slow", "down")
ALL_HEALTH: list[Health] = [
    dict(zip(DEPENDENCIES, statuses, strict=True)) for statuses in itertools.product(STATUSES, repeat=len(DEPENDENCIES))
]


@pytest.mark.parametrize(
    ("health", "level"),
    [
        ({}, 0),
        ({"database": "ok", "cache": "ok", "external_idp": "ok", "policy_engine": "ok"}, 0),
        ({"policy_engine": "slow"}, 1),
        ({"policy_engine": "down"}, 1),  # the source has no level for it
        ({"external_idp": "down"}, 1),  # nor for it
        ({"external_idp": "slow"}, 0),
        ({"database": "slow"}, 1),
        ({"cache": "slow"}, 1),
        ({"database": "down"}, 2),
        ({"cache": "down"}, 2),
        ({"cache": "down", "policy_engine": "down", "external_idp": "down"}, 2),
        ({"database": "down", "cache": "slow"}, 2),
        ({"database": "down", "cache": "down"}, 3),
    ],
)
def test_the_level_for_a_state_of_health(health: Health, level: Level) -> None:
    assert determine_degradation_level(health) == level


def test_worse_health_never_gives_a_lower_level_or_another_feature() -> None:
    rank = {status: number for number, status in enumerate(STATUSES)}
    for health in ALL_HEALTH:
        for name in DEPENDENCIES:
            for worse in STATUSES[rank[health[name]] + 1 :]:
                ill = {**health, name: worse}
                assert determine_degradation_level(ill) >= determine_degradation_level(health)
                before = offered_features(health, determine_degradation_level(health), provisional=False)
                assert offered_features(ill, determine_degradation_level(ill), provisional=False) <= before


def test_in_no_state_of_health_is_anything_offered_that_needs_what_is_down() -> None:
    for health, burden, provisional in itertools.product(ALL_HEALTH, (0, 1, 2, 3), (False, True)):
        offered = offered_features(health, burden, provisional=provisional)  # type: ignore[arg-type]
        down = {name for name, status in health.items() if status == "down"}
        assert offered >= ALWAYS
        for feature, needed in NEEDS.items():
            assert (feature in offered) == (not needed & down)
        assert offered >= NON_ESSENTIAL if burden == 0 else not NON_ESSENTIAL & offered
        assert ("provisional_session" in offered) == (provisional and down & {"database", "cache"} == {"database"})


def test_every_feature_has_its_rule() -> None:
    assert {*ALWAYS, *NEEDS, *NON_ESSENTIAL, "provisional_session"} == set(FEATURES)


def test_with_the_cache_down_log_ins_go_on() -> None:
    offered = offered_features({"cache": "down", "database": "ok"}, 2, provisional=False)
    assert {"new_login", "token_refresh", "directory_write"} <= offered
    assert "shared_cache" not in offered


def test_a_level_falls_by_one_each_half_minute() -> None:
    held = HeldLevel(FALL_S)
    assert held.follow(3, 0.0) == 3
    levels = [(now_s, held.follow(0, now_s)) for now_s in (1.0, 30.9, 31.0, 60.9, 61.0, 91.0, 200.0)]
    assert levels == [(1.0, 3), (30.9, 3), (31.0, 2), (60.9, 2), (61.0, 1), (91.0, 0), (200.0, 0)]


def test_a_relapse_begins_the_half_minute_anew() -> None:
    held = HeldLevel(FALL_S)
    held.follow(2, 0.0)
    held.follow(0, 1.0)
    held.follow(2, 30.0)
    assert held.follow(0, 32.0) == 2
    assert held.follow(0, 61.9) == 2
    assert held.follow(0, 62.0) == 1


def test_a_level_that_health_asks_for_is_no_time_towards_the_next_step() -> None:
    held = HeldLevel(FALL_S)
    held.follow(2, 0.0)
    held.follow(1, 1.0)
    assert held.follow(1, 31.0) == 1
    assert held.follow(0, 61.0) == 1
    assert held.follow(0, 91.0) == 0


# --------------------------------------------------------------------------------------------------------- the monitor


class World:
    """Dependencies that are ill as told, sampled by a monitor."""

    def __init__(self, names: tuple[DependencyName, ...] = DEPENDENCIES, *, provisional: bool = False) -> None:
        self.down: set[DependencyName] = set()
        self.hanging: set[DependencyName] = set()
        self.told: list[DegradationSnapshot] = []
        self.monitor = DegradationMonitor(
            [
                DependencyHealth(name, probe=lambda name=name: self._probe(name), limits=HealthLimits(), clock=CLOCK)  # type: ignore[misc]
                for name in names
            ],
            clock=CLOCK,
            provisional=provisional,
        )
        self.monitor.subscribe(lambda _before, after: self.told.append(after))

    async def _probe(self, name: DependencyName) -> None:
        if name in self.hanging:
            await asyncio.sleep(3600)
        if name in self.down:
            raise StoreUnavailable


@pytest.mark.parametrize("kind", ["down", "hanging"])
@pytest.mark.parametrize(
    ("lost", "level"), [({"cache"}, 2), ({"database"}, 2), ({"database", "cache"}, 3), ({"policy_engine"}, 1)]
)
@pytest.mark.parametrize("moment_s", [0.001, 0.25, 0.499])
def test_the_right_level_is_there_within_two_seconds(
    kind: str, lost: set[DependencyName], level: Level, moment_s: float
) -> None:
    async def main() -> None:
        world = World()
        world.monitor.start()
        await asyncio.sleep(5.0 + moment_s)
        assert world.monitor.current.level == 0
        getattr(world, kind).update(lost)
        await asyncio.sleep(2.0)
        assert world.monitor.current.level == level
        assert world.monitor.current.reasons == tuple(f"{name} down" for name in DEPENDENCIES if name in lost)
        await world.monitor.stop()
        assert asyncio.all_tasks() == {asyncio.current_task()}

    run_virtual(main())


def test_what_was_lost_is_back_in_two_seconds_and_the_non_essential_last() -> None:
    async def main() -> None:
        world = World()
        world.monitor.start()
        world.down = {"database", "cache"}
        await asyncio.sleep(60.0)
        assert world.monitor.current.features == ALWAYS | {"policy_decision"}
        assert world.monitor.current.retry_after_s == 300.0
        world.down = set()
        await asyncio.sleep(2.0)
        current = world.monitor.current
        assert current.level == 3
        assert current.reasons == ()
        assert current.allows("new_login")
        assert not current.allows("fingerprint")
        await asyncio.sleep(95.0)
        assert world.monitor.current.level == 0
        assert world.monitor.current.features == set(FEATURES) - {"provisional_session"}
        assert [snapshot.level for snapshot in world.told][-3:] == [2, 1, 0]
        await world.monitor.stop()

    run_virtual(main())


def test_an_identity_provider_that_is_down_costs_only_those_who_log_in_there() -> None:
    async def main() -> None:
        world = World()
        world.monitor.start()
        world.down = {"external_idp"}
        await asyncio.sleep(3.0)
        current = world.monitor.current
        assert current.level == 1
        assert set(FEATURES) - current.features == {"federated_login", "provisional_session"}
        await world.monitor.stop()

    run_virtual(main())


def test_one_dependency_that_hangs_delays_no_news_of_another() -> None:
    async def main() -> None:
        world = World()
        world.hanging = {"external_idp"}
        world.monitor.start()
        await asyncio.sleep(10.0)
        world.down = {"database"}
        await asyncio.sleep(1.1)
        assert world.monitor.current.level == 2
        await world.monitor.stop()

    run_virtual(main())


def test_calls_of_requests_reach_the_dependency_that_they_are_about() -> None:
    async def main() -> None:
        world = World(("database",))
        world.monitor.start()
        for _ in range(8):
            for _ in range(5):
                world.monitor.observe("database", False, 0.1)
                world.monitor.observe("cache", False, 0.1)  # is not used here
            await asyncio.sleep(0.5)
        assert {state.name: state.status for state in world.monitor.states()} == {"database": "down"}
        await world.monitor.stop()

    run_virtual(main())


def test_nothing_is_published_when_nothing_changes() -> None:
    async def main() -> None:
        world = World()
        first = world.monitor.current
        world.monitor.start()
        await asyncio.sleep(600.0)
        assert world.told == []
        assert world.monitor.current is first
        await world.monitor.stop()

    run_virtual(main())


# ---------------------------------------------------------------------------------------------------- against a model


class MonitorAgainstModel(RuleBasedStateMachine):
    """The level in force, against a plain reading of the rule over the list of what was wanted when."""

    @initialize()
    def begin(self) -> None:
        self.clock = MovedClock()
        self.healths = {name: DependencyHealth(name, clock=self.clock) for name in DEPENDENCIES}
        self.monitor = DegradationMonitor(list(self.healths.values()), clock=self.clock)
        self.level = 0
        self.below_since_s: float | None = None

    @rule(name=st.sampled_from(DEPENDENCIES), status=st.sampled_from(STATUSES))
    def change(self, name: DependencyName, status: HealthStatus) -> None:
        health = self.healths[name]
        health._down.bad, health._slow.bad = status == "down", status == "slow"
        self._look()

    @rule(seconds=st.sampled_from([0.5, 7.0, 29.5, 30.0, 31.0, 100.0]))
    def pass_time(self, seconds: float) -> None:
        self.clock.move(seconds)
        self._look()

    def _look(self) -> None:
        self.monitor.update()
        wanted = determine_degradation_level({name: each.status for name, each in self.healths.items()})
        now_s = self.clock.now_s
        if wanted >= self.level:
            self.level, self.below_since_s = wanted, None
        elif self.below_since_s is None:
            self.below_since_s = now_s
        elif now_s - self.below_since_s >= FALL_S:
            self.level -= 1
            self.below_since_s = None if wanted == self.level else now_s

    @invariant()
    def the_level_is_the_model_s_and_never_below_what_health_asks_for(self) -> None:
        if hasattr(self, "monitor"):
            current = self.monitor.current
            assert current.level == self.level
            assert current.level >= determine_degradation_level(current.health)
            if "database" in {name for name, status in current.health.items() if status == "down"}:
                assert not current.features & {"new_login", "step_up", "directory_write", "federated_login"}


MonitorAgainstModel.TestCase.settings = settings(max_examples=60, stateful_step_count=40)
TestMonitorAgainstModel = MonitorAgainstModel.TestCase
