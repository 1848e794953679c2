"""A pool counts running and waiting work together, keeps its last tenth for the critical, and never loses a place."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from gateway.errors import BulkheadFullError, DeadlineExceededError, OverloadedError
from gateway.resilience.bulkhead import BulkheadManager, PoolLimits, PoolState
from gateway.resilience.deadlines import deadline
from gateway.resilience.limiter import WaitLimits
from gateway.resilience.pools import current_pool
from gateway.resilience.shedding import SheddingLimits
from tests.unit.resilience.parts import CLOCK, RETRY_AFTER_S, new_bulkheads, new_permits, new_shedder
from tests.virtual_time import VirtualLoop, run_virtual

WAIT_S = 0.25


class Work:
    """Work that enters a pool, stays until told to end, and writes down what became of it."""

    def __init__(self, bulkheads: BulkheadManager, *, critical: bool = False, log: list[object] | None = None) -> None:
        self.outcome = "waiting"
        self._end = asyncio.Event()
        self._log = log
        self.task = asyncio.ensure_future(self._run(bulkheads, critical))

    async def _run(self, bulkheads: BulkheadManager, critical: bool) -> None:
        try:
            async with bulkheads.pool("user_auth", critical=critical):
                self.outcome = "running"
                if self._log is not None:
                    self._log.append(self)
                await self._end.wait()
                self.outcome = "done"
        except BulkheadFullError:
            self.outcome = "refused"
        except asyncio.CancelledError:
            self.outcome = "cancelled"

    def end(self) -> None:
        self._end.set()


async def settle() -> None:
    for _ in range(6):
        await asyncio.sleep(0)


def user_pool(bulkheads: BulkheadManager) -> PoolState:
    return bulkheads.state()[0]


def pool_of(size: int, running_max: int | None = None, reserved: int = 0) -> BulkheadManager:
    limits = PoolLimits(size=size, running_max=size if running_max is None else running_max, reserved=reserved)
    return new_bulkheads({"user_auth": limits})


def test_at_nine_tenths_of_its_size_a_pool_refuses_at_once() -> None:
    async def main() -> None:
        bulkheads = pool_of(100, reserved=10)
        works = [Work(bulkheads) for _ in range(100)]
        began_s = CLOCK.monotonic_s()
        await settle()
        outcomes = [work.outcome for work in works]
        assert outcomes == ["running"] * 90 + ["refused"] * 10
        assert CLOCK.monotonic_s() == began_s
        for work in works:
            work.end()
        await settle()
        assert user_pool(bulkheads).running == 0

    run_virtual(main())


def test_the_last_tenth_is_for_the_critical_alone() -> None:
    async def main() -> None:
        bulkheads = pool_of(10, reserved=1)
        normal = [Work(bulkheads) for _ in range(10)]
        await settle()
        critical = [Work(bulkheads, critical=True) for _ in range(2)]
        await settle()
        assert [work.outcome for work in normal] == ["running"] * 9 + ["refused"]
        assert [work.outcome for work in critical] == ["running", "refused"]
        for work in (*normal, *critical):
            work.end()
        await settle()

    run_virtual(main())


def test_running_and_waiting_work_is_counted_together() -> None:
    async def main() -> None:
        bulkheads = pool_of(6, running_max=2)
        works = [Work(bulkheads) for _ in range(7)]
        await settle()
        assert [work.outcome for work in works] == ["running"] * 2 + ["waiting"] * 4 + ["refused"]
        await asyncio.sleep(WAIT_S + 0.01)
        assert [work.outcome for work in works] == ["running"] * 2 + ["refused"] * 5
        state = user_pool(bulkheads)
        assert (state.refused_full, state.refused_waited, state.waiting) == (1, 4, 0)
        for work in works:
            work.end()
        await settle()

    run_virtual(main())


def test_who_waits_gets_in_by_the_order_of_arrival_and_the_critical_first() -> None:
    async def main() -> None:
        log: list[object] = []
        bulkheads = pool_of(20, running_max=1)
        first = Work(bulkheads, log=log)
        await settle()
        normal = [Work(bulkheads, log=log) for _ in range(3)]
        await settle()
        critical = [Work(bulkheads, critical=True, log=log) for _ in range(2)]
        await settle()
        order = [first, *critical, *normal]
        for work in order:
            work.end()
            await settle()
        assert log == order

    run_virtual(main())


def test_nobody_who_comes_later_overtakes_who_waits() -> None:
    async def main() -> None:
        log: list[object] = []
        bulkheads = pool_of(20, running_max=1)
        first, second = Work(bulkheads, log=log), Work(bulkheads, log=log)
        await settle()
        first.end()
        third = Work(bulkheads, log=log)  # comes in the same round in which the place is given back
        await settle()
        assert log == [first, second]
        second.end()
        await settle()
        assert log == [first, second, third]
        third.end()
        await settle()

    run_virtual(main())


def test_the_deadline_shortens_the_wait() -> None:
    async def main() -> None:
        bulkheads = pool_of(20, running_max=1)
        holder = Work(bulkheads)
        await settle()
        began_s = CLOCK.monotonic_s()
        with pytest.raises(DeadlineExceededError):
            async with deadline(0.1, clock=CLOCK), bulkheads.pool("user_auth"):
                pass
        assert CLOCK.monotonic_s() - began_s == pytest.approx(0.1)
        holder.end()
        await settle()

    run_virtual(main())


def test_who_could_not_finish_after_the_wait_does_not_wait() -> None:
    async def main() -> None:
        bulkheads = pool_of(20, running_max=1)
        for _ in range(100):  # work of this pool takes a second: the running mean comes near it
            async with bulkheads.pool("user_auth"):
                await asyncio.sleep(1.0)
        assert user_pool(bulkheads).service_s == pytest.approx(1.0, rel=0.01)
        holder = Work(bulkheads)
        await settle()
        began_s = CLOCK.monotonic_s()
        async with deadline(1.0, clock=CLOCK):
            with pytest.raises(BulkheadFullError):
                async with bulkheads.pool("user_auth"):
                    pass
        assert CLOCK.monotonic_s() - began_s < 0.01
        holder.end()
        await settle()

    run_virtual(main())


def test_no_wait_is_longer_than_five_seconds_whatever_is_configured() -> None:
    assert WaitLimits(wait_s=60.0).allowed_s(0.0) == 5.0
    assert WaitLimits(wait_s=60.0).allowed_s(0.0, 9.0) == 5.0
    assert WaitLimits().allowed_s(0.0, 9.0) == 0.25
    assert WaitLimits().allowed_s(0.0, 0.1) == 0.1


def test_work_whose_time_is_over_does_not_begin() -> None:
    async def main() -> None:
        bulkheads = pool_of(20)
        with pytest.raises(DeadlineExceededError):
            async with deadline(1.0, clock=CLOCK):
                try:
                    await asyncio.sleep(2.0)
                except asyncio.CancelledError:
                    async with bulkheads.pool("user_auth"):
                        raise AssertionError("it began") from None
        assert user_pool(bulkheads).entered == 0

    run_virtual(main())


def test_a_refusal_says_when_to_come_again() -> None:
    async def main() -> None:
        bulkheads = pool_of(1)
        holder = Work(bulkheads)
        await settle()
        with pytest.raises(BulkheadFullError, match="`user_auth` is full") as caught:
            await bulkheads.execute("user_auth", settle)
        assert (caught.value.status, caught.value.retry_after_s) == (503, RETRY_AFTER_S)
        holder.end()
        await settle()

    run_virtual(main())


def test_a_pool_that_nobody_made_is_a_mistake() -> None:
    async def main() -> None:
        with pytest.raises(ValueError, match="unknown pool `cellar`"):
            pool_of(1).pool("cellar")  # type: ignore[arg-type]

    run_virtual(main())


def test_a_place_is_taken_once() -> None:
    async def main() -> None:
        bulkheads = pool_of(5)
        place = bulkheads.pool("user_auth")
        async with place:
            with pytest.raises(RuntimeError, match="once"):
                await place.__aenter__()
        assert user_pool(bulkheads).running == 0

    run_virtual(main())


def test_work_that_is_in_the_pool_takes_no_second_place() -> None:
    async def main() -> None:
        bulkheads = pool_of(1)
        async with bulkheads.pool("user_auth"):
            async with bulkheads.pool("user_auth"):
                assert user_pool(bulkheads).running == 1
            assert user_pool(bulkheads).running == 1
            assert current_pool() == "user_auth"
        assert user_pool(bulkheads).running == 0

    run_virtual(main())


def test_an_error_inside_gives_the_place_back_and_passes() -> None:
    async def fail() -> None:
        assert current_pool() == "user_auth"
        raise ValueError("no")

    async def main() -> None:
        bulkheads = pool_of(5)
        with pytest.raises(ValueError, match="no"):
            await bulkheads.execute("user_auth", fail)
        assert user_pool(bulkheads).running == 0
        assert current_pool() == "background"

    run_virtual(main())


@pytest.mark.parametrize("steps", range(14))
def test_cancellation_at_any_step_gives_the_place_back(steps: int) -> None:
    """The steps go through waiting, the hand-over, running, and the end."""

    async def main() -> None:
        bulkheads = pool_of(4, running_max=1)
        holder = Work(bulkheads)
        await settle()

        async def work() -> None:
            async with bulkheads.pool("user_auth"):
                for _ in range(4):
                    await asyncio.sleep(0)

        task = asyncio.create_task(work())
        for step in range(steps):
            if step == 4:
                holder.end()
            await asyncio.sleep(0)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        holder.end()
        await settle()
        state = user_pool(bulkheads)
        assert (state.running, state.waiting) == (0, 0)
        async with bulkheads.pool("user_auth"):
            assert user_pool(bulkheads).running == 1

    run_virtual(main())


def test_a_place_handed_to_who_is_cancelled_in_the_same_moment_goes_to_the_next() -> None:
    async def main() -> None:
        bulkheads = pool_of(4, running_max=1)
        holder, second, third = (Work(bulkheads) for _ in range(3))
        await settle()
        holder.end()
        while second.outcome == "waiting" and user_pool(bulkheads).waiting == 2:
            await asyncio.sleep(0)  # until the place is handed over, before its new owner runs
        second.task.cancel()
        await settle()
        assert (second.outcome, third.outcome) == ("cancelled", "running")
        third.end()
        await settle()
        assert user_pool(bulkheads).running == 0

    run_virtual(main())


def test_a_flooded_pool_takes_nothing_of_another() -> None:
    async def main() -> None:
        limits = PoolLimits(size=30, running_max=30, reserved=3)
        bulkheads = new_bulkheads({"scim_provisioning": limits, "user_auth": limits})

        async def hold(name: Any) -> str:
            try:
                async with bulkheads.pool(name):
                    await asyncio.sleep(10)
            except BulkheadFullError:
                return "refused"
            return "done"

        flood = [asyncio.create_task(hold("scim_provisioning")) for _ in range(300)]
        await settle()
        assert await hold("user_auth") == "done"
        outcomes = await asyncio.gather(*flood)
        assert (outcomes.count("done"), outcomes.count("refused")) == (27, 273)

    run_virtual(main())


def test_a_pool_that_grows_lets_in_who_waits_and_one_that_shrinks_throws_nobody_out() -> None:
    async def main() -> None:
        bulkheads = pool_of(10, running_max=1)
        works = [Work(bulkheads) for _ in range(4)]
        await settle()
        bulkheads.resize({"user_auth": PoolLimits(size=10, running_max=3, reserved=0)})
        await settle()
        assert [work.outcome for work in works] == ["running"] * 3 + ["waiting"]
        bulkheads.resize({"user_auth": PoolLimits(size=2, running_max=1, reserved=0)})
        await settle()
        assert user_pool(bulkheads).running == 3
        for work in works[:3]:
            work.end()
        await settle()
        assert works[3].outcome == "running"
        works[3].end()
        await settle()
        assert user_pool(bulkheads).running == 0

    run_virtual(main())


def test_shed_work_does_not_enter_but_admin_does() -> None:
    async def main() -> None:
        shedder = new_shedder(SheddingLimits(target_s=0.01, interval_s=0.1), random_share=0.0)
        limits = PoolLimits(size=10, running_max=10, reserved=1)
        bulkheads = new_bulkheads(
            {"user_auth": limits, "admin_auth": limits}, permits=new_permits(shedder=shedder), shedder=shedder
        )
        for watch in (shedder.watch("user_auth"), shedder.watch("admin_auth")):
            watch.observe(1.0)
            watch.observe(1.0)
        await asyncio.sleep(0.11)
        with pytest.raises(OverloadedError):
            await bulkheads.execute("user_auth", settle)
        await bulkheads.execute("user_auth", settle, critical=True)
        await bulkheads.execute("admin_auth", settle)
        assert user_pool(bulkheads).shed == 1

    run_virtual(main())


# ---------------------------------------------------------------------------------------------------- against a model

SIZE, RUNNING_MAX, RESERVED = 6, 2, 2


@dataclass
class ModelPool:
    """What a pool does, as plainly as it can be said."""

    running: list[int] = field(default_factory=list)
    critical: list[tuple[int, float]] = field(default_factory=list)  # who waits, and until when
    normal: list[tuple[int, float]] = field(default_factory=list)
    outcomes: dict[int, str] = field(default_factory=dict)

    def arrive(self, name: int, critical: bool, now_s: float) -> None:
        inside = len(self.running) + len(self.critical) + len(self.normal)
        if inside >= (SIZE if critical else SIZE - RESERVED):
            self.outcomes[name] = "refused"
        elif len(self.running) < RUNNING_MAX:
            self._run(name)
        else:
            (self.critical if critical else self.normal).append((name, now_s + WAIT_S))
            self.outcomes[name] = "waiting"

    def end(self, name: int) -> None:
        self.running.remove(name)
        self.outcomes[name] = "done"
        self._fill()

    def cancel(self, name: int) -> None:
        self.outcomes[name] = "cancelled"
        if name in self.running:
            self.running.remove(name)
        self.critical = [entry for entry in self.critical if entry[0] != name]
        self.normal = [entry for entry in self.normal if entry[0] != name]
        self._fill()

    def pass_time(self, now_s: float) -> None:
        for name, until_s in (*self.critical, *self.normal):
            if until_s <= now_s:
                self.outcomes[name] = "refused"
        self.critical = [entry for entry in self.critical if entry[1] > now_s]
        self.normal = [entry for entry in self.normal if entry[1] > now_s]

    def _fill(self) -> None:
        while len(self.running) < RUNNING_MAX and (self.critical or self.normal):
            name, _ = (self.critical or self.normal).pop(0)
            self._run(name)

    def _run(self, name: int) -> None:
        self.running.append(name)
        self.outcomes[name] = "running"


class PoolAgainstModel(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.loop = VirtualLoop()
        self.model = ModelPool()
        self.works: dict[int, Work] = {}
        self.bulkheads = self.loop.run_until_complete(self._made())

    async def _made(self) -> BulkheadManager:
        return pool_of(SIZE, running_max=RUNNING_MAX, reserved=RESERVED)

    def _state(self) -> PoolState:
        async def asking() -> PoolState:
            return user_pool(self.bulkheads)

        return self.loop.run_until_complete(asking())

    def _do(self, act: Any) -> None:
        async def acting() -> None:
            act()
            await settle()

        self.loop.run_until_complete(acting())

    def _alive(self, *outcomes: str) -> list[int]:
        return [name for name, outcome in self.model.outcomes.items() if outcome in outcomes]

    @rule(critical=st.booleans(), count=st.integers(1, 3))
    def arrive(self, critical: bool, count: int) -> None:
        for _ in range(count):
            name = len(self.works)
            self.model.arrive(name, critical, self.loop.time())
            self._do(lambda name=name: self.works.update({name: Work(self.bulkheads, critical=critical)}))

    @precondition(lambda self: self._alive("running"))
    @rule(data=st.data())
    def end(self, data: st.DataObject) -> None:
        name = data.draw(st.sampled_from(self._alive("running")))
        self.model.end(name)
        self._do(self.works[name].end)

    @precondition(lambda self: self._alive("running", "waiting"))
    @rule(data=st.data())
    def cancel(self, data: st.DataObject) -> None:
        name = data.draw(st.sampled_from(self._alive("running", "waiting")))
        self.model.cancel(name)
        self._do(self.works[name].task.cancel)

    @precondition(lambda self: self._alive("running") and self._alive("waiting"))
    @rule(data=st.data())
    def end_one_and_cancel_who_waits_in_the_same_moment(self, data: st.DataObject) -> None:
        ended = data.draw(st.sampled_from(self._alive("running")))
        waiting = data.draw(st.sampled_from(self._alive("waiting")))
        self.model.cancel(waiting)
        self.model.end(ended)

        def both() -> None:
            self.works[ended].end()
            self.works[waiting].task.cancel()

        self._do(both)

    @rule(tenths=st.integers(1, 4))
    def pass_time(self, tenths: int) -> None:
        """A wait ends between two tenths, so that no two things happen at one time."""
        self.loop.run_until_complete(asyncio.sleep(tenths / 10))
        self.loop.run_until_complete(settle())
        self.model.pass_time(self.loop.time())

    @invariant()
    def each_piece_of_work_is_where_the_model_has_it(self) -> None:
        assert {name: work.outcome for name, work in self.works.items()} == self.model.outcomes
        state = self._state()
        assert state.running == len(self.model.running)
        assert state.waiting == len(self.model.critical) + len(self.model.normal)
        assert state.running + state.waiting <= SIZE

    def teardown(self) -> None:
        for work in self.works.values():
            work.end()
            work.task.cancel()
        self.loop.run_until_complete(settle())
        self.loop.run_until_complete(asyncio.sleep(1))
        state = self._state()
        self.loop.close()
        assert (state.running, state.waiting) == (0, 0)


PoolAgainstModel.TestCase.settings = settings(max_examples=60, stateful_step_count=40)
TestPoolAgainstModel = PoolAgainstModel.TestCase
