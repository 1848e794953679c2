"""Health is slow to believe: two bad samples of three, several good ones in a row, more after each relapse."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.errors import StoreUnavailable
from gateway.resilience.health import BAD_SAMPLES, EXCUSED_MAX, SAMPLES, DependencyHealth, HealthLimits
from tests.unit.resilience.parts import CLOCK
from tests.virtual_time import run_virtual

LIMITS = HealthLimits()


class Patient:
    """A dependency whose probe does what the test says."""

    def __init__(self) -> None:
        self.error: Exception | None = None
        self.takes_s = 0.0

    async def __call__(self) -> None:
        if self.takes_s:
            await asyncio.sleep(self.takes_s)
        if self.error is not None:
            raise self.error


def new_health(patient: Patient | None) -> DependencyHealth:
    return DependencyHealth("database", probe=patient, limits=LIMITS, clock=CLOCK)


def sampled(bads: list[bool]) -> list[str]:
    """Sample a dependency that is bad as told; give its status after each sample."""

    async def main() -> list[str]:
        patient = Patient()
        health = new_health(patient)
        statuses: list[str] = []
        for bad in bads:
            patient.error = StoreUnavailable() if bad else None
            await health.sample()
            statuses.append(health.status)
            await asyncio.sleep(LIMITS.interval_s)
        return statuses

    return run_virtual(main())


def test_one_bad_sample_is_noise_and_the_second_of_three_is_not() -> None:
    assert sampled([True, False, False, True, False, True]) == ["ok"] * 5 + ["down"]


def test_three_good_samples_in_a_row_are_a_recovery() -> None:
    assert sampled([True, True, False, False, True, False, False, False]) == [*["ok"], *["down"] * 6, *["ok"]]


def test_bad_samples_from_before_a_recovery_do_not_count_against_it() -> None:
    async def main() -> None:
        patient = Patient()
        health = DependencyHealth("database", probe=patient, limits=HealthLimits(good_samples=1), clock=CLOCK)
        statuses = []
        for bad in (True, True, False, True, True):
            patient.error = StoreUnavailable() if bad else None
            await health.sample()
            statuses.append(health.status)
        assert statuses == ["ok", "down", "ok", "ok", "down"]

    run_virtual(main())


def test_each_relapse_asks_for_twice_as_many_good_samples() -> None:
    outage = [True, True]
    statuses = sampled([*outage, *[False] * 3, *outage, *[False] * 6, *outage, *[False] * 12])
    assert [len(list(row)) for status, row in itertools.groupby(statuses) if status == "down"] == [3, 6, 12]


def test_a_relapse_long_ago_is_forgotten() -> None:
    async def main() -> None:
        patient = Patient()
        health = new_health(patient)

        async def outage_s() -> float:
            patient.error = StoreUnavailable()
            while health.state().status != "down":
                await health.sample()
            patient.error = None
            samples = 0
            while health.state().status == "down":
                await health.sample()
                samples += 1
            return samples

        assert [await outage_s(), await outage_s()] == [3, 6]
        await asyncio.sleep(301.0)
        assert await outage_s() == 3

    run_virtual(main())


@given(st.lists(st.booleans(), max_size=60))
def test_down_is_what_the_plain_rule_says(bads: list[bool]) -> None:
    """Within five minutes, so that each relapse counts."""
    statuses = sampled(bads)
    down, since, relapses = False, 0, 0
    for index in range(len(bads)):
        if not down:
            recent = bads[max(since, index + 1 - SAMPLES) : index + 1]
            if sum(recent) >= BAD_SAMPLES:
                down, relapses = True, relapses + 1
        else:
            needed = 3 * 2 ** (min(relapses, 7) - 1)
            row = bads[max(0, index + 1 - needed) : index + 1]
            if len(row) == needed and not any(row):
                down, since = False, index + 1
        assert (statuses[index] == "down") == down


def test_a_probe_that_hangs_and_swallows_its_cancellation_is_bad_in_time() -> None:
    async def hang() -> None:
        end_s = CLOCK.monotonic_s() + 30
        while CLOCK.monotonic_s() < end_s:
            try:
                await asyncio.sleep(end_s - CLOCK.monotonic_s())
            except asyncio.CancelledError:
                continue

    async def main() -> None:
        health = DependencyHealth("database", probe=hang, limits=LIMITS, clock=CLOCK)
        began_s = CLOCK.monotonic_s()
        await health.sample()
        await health.sample()
        assert CLOCK.monotonic_s() - began_s <= 1.0
        assert health.status == "down"
        assert health.state().error == "timeout"
        await asyncio.sleep(60)

    run_virtual(main())


def test_a_probe_that_fails_while_we_are_too_busy_to_listen_says_nothing_for_a_while() -> None:
    async def main() -> None:
        patient = Patient()
        patient.error = StoreUnavailable()
        busy = True
        health = DependencyHealth("database", probe=patient, limits=LIMITS, clock=CLOCK, is_ours=lambda _: busy)
        for _ in range(EXCUSED_MAX):
            await health.sample()
        assert (health.state().status, health.state().error) == ("ok", "")
        busy = False
        for _ in range(2):
            await health.sample()
        assert health.state().status == "down"
        busy = True
        for _ in range(2 * (EXCUSED_MAX + 1)):  # one in nine is believed
            await health.sample()
        assert health.state().status == "down"

    run_virtual(main())


def test_calls_that_fail_count_though_the_probe_is_answered() -> None:
    async def main() -> None:
        health = new_health(Patient())
        for _ in range(2):
            for ok in (False, False, True):
                health.observe(ok, 0.001)
            await health.sample()
        assert (health.status, health.state().error) == ("down", "calls_fail")

    run_virtual(main())


def test_a_single_call_that_fails_says_nothing() -> None:
    async def main() -> None:
        health = new_health(Patient())
        for _ in range(20):
            health.observe(False, 0.001)
            await health.sample()
        assert health.status == "ok"

    run_virtual(main())


@pytest.mark.parametrize("by", ["probe", "calls"])
def test_latency_above_its_threshold_is_slow(by: str) -> None:
    async def main() -> None:
        patient = Patient()
        health = new_health(patient)

        async def sample(latency_s: float) -> str:
            if by == "probe":
                patient.takes_s = latency_s
            else:
                health.observe(True, latency_s)
            await health.sample()
            return health.status

        assert [await sample(0.3) for _ in range(2)] == ["ok", "slow"]
        assert health.state().latency_s == pytest.approx(0.3)
        assert [await sample(0.2) for _ in range(3)] == ["slow", "slow", "ok"]

    run_virtual(main())


def test_down_hides_slow() -> None:
    async def main() -> None:
        patient = Patient()
        health = new_health(patient)
        patient.takes_s = 0.3
        for _ in range(3):
            await health.sample()
        patient.takes_s, patient.error = 0.0, ConnectionRefusedError()
        for _ in range(2):
            await health.sample()
        assert (health.status, health.state().error) == ("down", "ConnectionRefusedError")

    run_virtual(main())


def test_without_a_probe_only_calls_tell_and_silence_heals_after_a_while() -> None:
    async def main() -> None:
        health = new_health(None)

        async def sample(call: Callable[[], None] = lambda: None) -> str:
            call()
            await health.sample()
            await asyncio.sleep(LIMITS.interval_s)
            return health.status

        def failing() -> None:
            for _ in range(3):
                health.observe(False, 0.1)

        assert await sample(failing) == "ok"
        assert await sample(failing) == "down"
        assert {await sample() for _ in range(50)} == {"down"}
        await asyncio.sleep(10)
        assert [await sample() for _ in range(3)] == ["down", "down", "ok"]

    run_virtual(main())


def test_without_a_probe_calls_that_succeed_heal_at_once() -> None:
    async def main() -> None:
        health = new_health(None)
        for ok in (False, False, True, True, True):
            for _ in range(3):
                health.observe(ok, 0.1)
            await health.sample()
        assert health.status == "ok"
        assert health.state().changes == 2

    run_virtual(main())
