"""A queue that stands lets a growing share of new work be refused; one that drains, less and less."""

from __future__ import annotations

import asyncio
import random

import pytest

from gateway.errors import BulkheadFullError, OverloadedError
from gateway.resilience.bulkhead import BulkheadManager, PoolLimits
from gateway.resilience.shedding import LAG_SAMPLES, LAGS_KEPT, SHARE_MAX, LoadShedder, QueueWatch, SheddingLimits
from tests.unit.resilience.parts import CLOCK, new_bulkheads, new_shedder
from tests.unit.tokens.fakes import MovedClock
from tests.virtual_time import run_virtual

LIMITS = SheddingLimits(target_s=0.05, interval_s=0.1)


def standing(watch: QueueWatch, clock: MovedClock, intervals: int, delay_s: float = 0.2) -> None:
    for _ in range(intervals):
        watch.observe(delay_s)
        watch.observe(delay_s + 0.01)
        clock.move(LIMITS.interval_s)


def test_a_burst_that_drains_sheds_nothing() -> None:
    clock = MovedClock()
    watch = QueueWatch(LIMITS, clock)
    for _ in range(50):
        watch.observe(3.0)
        watch.observe(0.0)  # somebody did not wait: the queue was empty in this interval
        clock.move(LIMITS.interval_s)
        assert watch.share() == 0.0


def test_a_queue_that_stands_sheds_more_with_each_interval_and_never_all() -> None:
    clock = MovedClock()
    watch = QueueWatch(LIMITS, clock)
    shares = []
    for _ in range(20):
        standing(watch, clock, 1)
        shares.append(watch.share())
    assert shares == sorted(shares)
    assert shares[0] == pytest.approx(0.4)
    assert shares[-1] == SHARE_MAX


def test_one_that_waited_is_no_queue() -> None:
    """Ten log-ins a second, each of which waits for the one before it: there is time for all of them."""
    clock = MovedClock()
    watch = QueueWatch(LIMITS, clock)
    for _ in range(50):
        watch.observe(0.06)
        clock.move(LIMITS.interval_s)
        assert watch.share() == 0.0


def test_who_waits_for_the_two_before_them_is_in_no_queue_that_stands() -> None:
    clock = MovedClock()
    watch = QueueWatch(LIMITS, clock)
    for _ in range(50):
        watch.observe(0.11, 0.06)
        watch.observe(0.12, 0.06)
        clock.move(LIMITS.interval_s)
        assert watch.share() == 0.0
    clock.move(1.0)
    watch.observe(0.13, 0.06)
    watch.observe(0.14, 0.06)
    clock.move(LIMITS.interval_s)
    assert watch.share() == 0.0  # an interval is as long as two targets, at least
    clock.move(0.15)
    assert watch.share() > 0.0


def test_few_looks_leave_the_share_as_it_is() -> None:
    clock = MovedClock()
    watch = QueueWatch(LIMITS, clock)
    standing(watch, clock, 3)
    before = watch.share()
    watch.observe(0.2)
    clock.move(LIMITS.interval_s)
    assert watch.share() == before > 0


def test_a_queue_that_stands_but_shrinks_sheds_no_more_than_before() -> None:
    clock = MovedClock()
    watch = QueueWatch(LIMITS, clock)
    standing(watch, clock, 1, 0.2)
    before = watch.share()
    standing(watch, clock, 1, 0.15)
    standing(watch, clock, 1, 0.1)
    assert watch.share() == before
    standing(watch, clock, 1, 0.11)
    assert watch.share() > before


def test_a_queue_that_is_gone_is_soon_forgotten_also_when_nobody_comes() -> None:
    clock = MovedClock()
    watch = QueueWatch(LIMITS, clock)
    standing(watch, clock, 20)
    assert watch.share() == SHARE_MAX
    clock.move(60.0)
    assert watch.share() == 0.0


def test_the_critical_are_shed_only_when_more_than_half_of_the_rest_is_and_the_exempt_never() -> None:
    clock = MovedClock()
    shedder = LoadShedder(LIMITS, clock=clock, retry_after_s=lambda: 5.0, random_share=lambda: 0.0)
    watch = shedder.watch("user_auth")
    standing(watch, clock, 1)
    assert 0.0 < shedder.share("user_auth") < 0.5
    shedder.admit("user_auth", "critical")
    with pytest.raises(OverloadedError) as caught:
        shedder.admit("user_auth")
    assert (caught.value.status, caught.value.retry_after_s) == (503, 5.0)
    standing(watch, clock, 10)
    with pytest.raises(OverloadedError):
        shedder.admit("user_auth", "critical")
    shedder.admit("user_auth", "exempt")
    assert shedder.shed == {"user_auth": 2}


def test_the_queue_of_one_pool_sheds_nothing_of_another() -> None:
    clock = MovedClock()
    shedder = LoadShedder(LIMITS, clock=clock, retry_after_s=lambda: 5.0, random_share=lambda: 0.0)
    standing(shedder.watch("scim_provisioning"), clock, 10)
    shedder.watch("user_auth")
    shedder.admit("user_auth")
    with pytest.raises(OverloadedError):
        shedder.admit("scim_provisioning")


class Late:
    """The loop's time, and what something that held the loop added to it."""

    def __init__(self) -> None:
        self.late_s = 0.0

    def monotonic_s(self) -> float:
        return CLOCK.monotonic_s() + self.late_s

    def wall_s(self) -> float:
        return CLOCK.wall_s()


def test_a_loop_that_is_late_sheds_of_all_pools() -> None:
    async def main() -> None:
        clock = Late()
        shedder = LoadShedder(LIMITS, clock=clock, retry_after_s=lambda: 5.0, random_share=lambda: 0.0)
        shedder.start()
        await asyncio.sleep(1.0)
        shedder.admit("user_auth")
        for _ in range(40):
            clock.late_s += 0.2
            await asyncio.sleep(0.026)
        with pytest.raises(OverloadedError):
            shedder.admit("user_auth")
        await asyncio.sleep(5.0)
        shedder.admit("user_auth")
        await shedder.stop()
        assert asyncio.all_tasks() == {asyncio.current_task()}

    run_virtual(main())


@pytest.mark.parametrize("times", [1, LAG_SAMPLES - 1])
def test_a_loop_that_was_late_a_few_times_sheds_nothing(times: int) -> None:
    """A gateway that has just begun, or whose machine was taken away for a moment, is not overloaded."""

    async def main() -> None:
        clock = Late()
        shedder = LoadShedder(LIMITS, clock=clock, retry_after_s=lambda: 5.0, random_share=lambda: 0.0)
        shedder.start()
        await asyncio.sleep(0.2)
        for _ in range(5):
            for _ in range(times):
                clock.late_s += 0.5
                await asyncio.sleep(0.0251)
                shedder.admit("scim_provisioning")
            await asyncio.sleep(0.0251)
        for _ in range(20):
            await asyncio.sleep(0.01)
            shedder.admit("scim_provisioning")
        await shedder.stop()

    run_virtual(main())


def test_while_the_loop_stands_bulk_work_gives_way_before_people_do() -> None:
    clock = MovedClock()
    shedder = LoadShedder(LIMITS, clock=clock, retry_after_s=lambda: 5.0)
    shares = []
    for _ in range(30):
        shares.append((shedder.share("scim_provisioning"), shedder.share("user_auth")))
        standing(shedder._loop_watch, clock, 1, 0.06)  # a little above the target: the share grows slowly
    assert shares[0] == (0.0, 0.0)
    assert (0.3 < shares[1][0] < 0.4) and shares[1][1] == 0.0
    first = next(index for index, (_, people) in enumerate(shares) if people > 0)
    assert shares[first][0] == SHARE_MAX
    assert shares[-1][1] > 0.8
    assert all(bulk >= people for bulk, people in shares)


def test_time_that_the_loop_spent_elsewhere_is_ours_and_no_peers() -> None:
    async def main() -> None:
        clock = Late()
        shedder = LoadShedder(LIMITS, clock=clock, retry_after_s=lambda: 5.0)
        shedder.start()
        began_s = clock.monotonic_s()
        await asyncio.sleep(0.5)
        assert not shedder.is_ours(began_s)  # half a second of waiting for a peer
        began_s = clock.monotonic_s()
        clock.late_s += 0.3  # something held the loop
        await asyncio.sleep(0.1)
        assert shedder.is_ours(began_s)
        await asyncio.sleep(0.5)
        assert not shedder.is_ours(began_s)  # since then the peer had time enough
        assert not shedder.is_ours(clock.monotonic_s())
        for _ in range(10_000):
            await asyncio.sleep(0.025)
        assert len(shedder._lags) == LAGS_KEPT
        await shedder.stop()

    run_virtual(main())


def test_stopping_what_never_began_is_harmless() -> None:
    async def main() -> None:
        await new_shedder().stop()

    run_virtual(main())


@pytest.mark.parametrize("load", [0.5, 1.0, 2.0, 10.0])
def test_under_overload_the_useful_answers_stay_at_capacity(load: float) -> None:
    """Open loop: a pool that runs 10 pieces of work of 20 ms at once, 500 a second, behind queue and shedder."""
    capacity, length_s = 500.0, 4.0
    chance = random.Random(7)
    useful: list[float] = []
    refused: list[float] = []

    async def request(bulkheads: BulkheadManager) -> None:
        began_s = CLOCK.monotonic_s()
        try:
            async with bulkheads.pool("user_auth"):
                await asyncio.sleep(0.02)
        except (BulkheadFullError, OverloadedError):
            refused.append(CLOCK.monotonic_s() - began_s)
        else:
            useful.append(CLOCK.monotonic_s() - began_s)

    async def main() -> None:
        shedder = LoadShedder(LIMITS, clock=CLOCK, retry_after_s=lambda: 5.0, random_share=chance.random)
        limits = PoolLimits(size=200, running_max=10, reserved=20)
        bulkheads = new_bulkheads({"user_auth": limits}, shedder=shedder)
        requests = []
        end_s = CLOCK.monotonic_s() + length_s
        while CLOCK.monotonic_s() < end_s:
            await asyncio.sleep(chance.expovariate(load * capacity))
            requests.append(asyncio.create_task(request(bulkheads)))
        await asyncio.gather(*requests)

    run_virtual(main())
    assert len(useful) >= 0.9 * min(load, 1.0) * capacity * length_s
    assert max(useful) <= 0.25 + 0.02 + 0.001
    if load == 10.0:
        assert sorted(refused)[len(refused) // 2] <= 0.02
