"""A breaker opens by rate, in a window; lets few probes through; and believes no call of an older generation."""

from __future__ import annotations

import asyncio
import random
from dataclasses import dataclass, field

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from gateway.errors import (
    CircuitOpenError,
    DeadlineExceededError,
    GatewayError,
    ResourceExhaustedError,
    StoreUnavailable,
    TokenRejected,
)
from gateway.resilience.circuit_breaker import (
    SHOWN_MAX,
    BreakerKey,
    BreakerLimits,
    CircuitBreaker,
    CircuitBreakers,
    Outcome,
    Ticket,
    Transition,
    outcome_of,
)
from gateway.resilience.window import SLICES
from tests.unit.resilience.parts import CLOCK
from tests.unit.tokens.fakes import MovedClock
from tests.virtual_time import run_virtual

KEY = BreakerKey("acme", "external_idp", "token")
LIMITS = BreakerLimits()


def in_the_middle(low: float, high: float) -> float:
    return (low + high) / 2


def new_breaker(
    clock: MovedClock, limits: BreakerLimits = LIMITS, told: list[Transition] | None = None
) -> CircuitBreaker:
    on_transition = None if told is None else told.append
    return CircuitBreaker(KEY, limits, clock=clock, on_transition=on_transition, uniform=in_the_middle)


def run(breaker: CircuitBreaker, outcome: Outcome, times: int = 1) -> None:
    for _ in range(times):
        breaker.finish(breaker.admit(), outcome)


def state_of(breaker: CircuitBreaker) -> str:
    """Ask in a way that does not narrow the type of what changes by the next call."""
    return breaker.state


def opened(clock: MovedClock, limits: BreakerLimits = LIMITS, told: list[Transition] | None = None) -> CircuitBreaker:
    breaker = new_breaker(clock, limits, told)
    run(breaker, "failure", limits.calls_min)
    assert state_of(breaker) == "open"
    return breaker


def test_it_opens_when_enough_calls_failed_and_half_of_at_least_ten() -> None:
    clock = MovedClock()
    breaker = new_breaker(clock)
    run(breaker, "success", 5)
    run(breaker, "failure", 4)
    assert state_of(breaker) == "closed"
    run(breaker, "failure")
    assert state_of(breaker) == "open"
    with pytest.raises(CircuitOpenError) as caught:
        breaker.admit()
    assert (caught.value.status, caught.value.retry_after_s) == (503, 30.0)


def test_nine_failures_are_not_ten_calls() -> None:
    breaker = new_breaker(MovedClock())
    run(breaker, "failure", 9)
    assert state_of(breaker) == "closed"
    run(breaker, "success")
    assert state_of(breaker) == "open"  # nine of ten


def test_failures_below_the_threshold_do_not_open_it_at_any_rate() -> None:
    breaker = new_breaker(MovedClock(), BreakerLimits(failure_threshold=5, calls_min=4))
    run(breaker, "failure", 4)
    assert state_of(breaker) == "closed"
    run(breaker, "failure")
    assert state_of(breaker) == "open"


def test_failures_are_forgotten_after_the_window() -> None:
    clock = MovedClock()
    breaker = new_breaker(clock)
    for _ in range(100):
        run(breaker, "failure", 4)
        clock.move(11.0)
    assert state_of(breaker) == "closed"


def test_slow_calls_open_it_though_none_failed() -> None:
    clock = MovedClock()
    breaker = new_breaker(clock, BreakerLimits(slow_call_s=2.0))
    tickets = [breaker.admit() for _ in range(10)]
    clock.move(2.0)
    for ticket in tickets[:9]:
        breaker.finish(ticket, "success")
    assert state_of(breaker) == "closed"
    breaker.finish(tickets[9], "success")
    assert state_of(breaker) == "open"


def test_wrong_passwords_never_open_it() -> None:
    class WrongPassword(GatewayError):
        code = "wrong_password"
        status = 401

    async def main() -> None:
        breaker = CircuitBreaker(KEY, LIMITS, clock=CLOCK)

        async def login() -> None:
            raise WrongPassword

        for _ in range(1000):
            with pytest.raises(WrongPassword):
                await breaker.call(login)
        assert state_of(breaker) == "closed"

    run_virtual(main())


@pytest.mark.parametrize(
    ("error", "elapsed_s", "outcome"),
    [
        (TimeoutError(), 1.0, "failure"),
        (TimeoutError(), 0.01, "ignored"),  # a caller in a hurry
        (DeadlineExceededError(), 1.0, "failure"),
        (DeadlineExceededError(), 0.01, "ignored"),
        (ConnectionRefusedError(), 0.0, "failure"),
        (ConnectionResetError(), 0.0, "failure"),
        (StoreUnavailable(), 0.0, "failure"),
        (TokenRejected(), 0.0, "success"),
        (ResourceExhaustedError(), 0.0, "ignored"),  # a refusal of our own
        (CircuitOpenError(), 0.0, "ignored"),
        (asyncio.CancelledError(), 9.0, "ignored"),
        (KeyboardInterrupt(), 0.0, "ignored"),
        (ValueError("a mistake of ours"), 0.0, "ignored"),
    ],
)
def test_only_faults_of_the_dependency_count(error: BaseException, elapsed_s: float, outcome: Outcome) -> None:
    assert outcome_of(error, elapsed_s) == outcome


def test_what_is_ignored_is_not_a_call_either() -> None:
    breaker = new_breaker(MovedClock())
    run(breaker, "ignored", 1000)
    run(breaker, "failure", 9)
    assert state_of(breaker) == "closed"


def test_half_open_lets_exactly_its_probes_through() -> None:
    clock = MovedClock()
    breaker = opened(clock)
    clock.move(29.9)
    with pytest.raises(CircuitOpenError):
        breaker.admit()
    clock.move(0.2)
    probes = [breaker.admit() for _ in range(3)]
    assert state_of(breaker) == "half_open"
    for _ in range(100):
        with pytest.raises(CircuitOpenError):
            breaker.admit()
    for probe in probes[:2]:
        breaker.finish(probe, "success")
        with pytest.raises(CircuitOpenError):
            breaker.admit()  # one that succeeded leaves its place to nobody
    breaker.finish(probes[2], "success")
    assert state_of(breaker) == "closed"


def test_one_failed_probe_opens_it_again_and_the_others_say_nothing_more() -> None:
    clock = MovedClock()
    told: list[Transition] = []
    breaker = opened(clock, told=told)
    clock.move(31.0)
    first, second, third = (breaker.admit() for _ in range(3))
    breaker.finish(first, "success")
    breaker.finish(second, "failure")
    assert state_of(breaker) == "open"
    breaker.finish(third, "success")
    assert state_of(breaker) == "open"
    assert [(t.before, t.after) for t in told] == [("closed", "open"), ("open", "half_open"), ("half_open", "open")]
    assert told[0].reason == "10 of 10 calls failed"


def test_a_breaker_that_closed_begins_with_a_clean_sheet() -> None:
    """Also where it recovered sooner than the window forgets."""
    clock = MovedClock()
    breaker = opened(clock, BreakerLimits(recovery_s=2.0))
    clock.move(3.0)
    run(breaker, "success", 3)
    run(breaker, "failure", 9)
    assert state_of(breaker) == "closed"


def test_a_slow_probe_is_no_good_one() -> None:
    clock = MovedClock()
    breaker = opened(clock, BreakerLimits(slow_call_s=2.0))
    clock.move(31.0)
    probe = breaker.admit()
    clock.move(3.0)
    breaker.finish(probe, "success")
    assert state_of(breaker) == "open"


def test_a_cancelled_probe_gives_its_permit_back() -> None:
    clock = MovedClock()
    breaker = opened(clock)
    clock.move(31.0)
    for _ in range(50):
        run(breaker, "ignored")
    run(breaker, "success", 3)
    assert state_of(breaker) == "closed"


def test_a_probe_that_never_ends_does_not_hold_it_half_open_for_ever() -> None:
    clock = MovedClock()
    breaker = opened(clock)
    clock.move(31.0)
    lost = [breaker.admit() for _ in range(3)]
    clock.move(29.0)
    with pytest.raises(CircuitOpenError):
        breaker.admit()
    assert state_of(breaker) == "half_open"
    clock.move(2.0)
    with pytest.raises(CircuitOpenError):
        breaker.admit()
    assert state_of(breaker) == "open"
    clock.move(61.0)
    run(breaker, "success", 3)
    assert state_of(breaker) == "closed"
    breaker.finish(lost[0], "failure")
    assert state_of(breaker) == "closed"


def test_each_failure_to_recover_doubles_the_pause_up_to_five_minutes() -> None:
    clock = MovedClock()
    breaker = opened(clock)
    pauses = []
    for _ in range(6):
        pauses.append(breaker.retry_in_s)
        clock.move(breaker.retry_in_s)
        run(breaker, "failure")
    assert pauses == [pytest.approx(s) for s in (30.0, 60.0, 120.0, 240.0, 300.0, 300.0)]
    clock.move(301.0)
    run(breaker, "success", 3)
    run(breaker, "failure", 10)
    assert breaker.retry_in_s == pytest.approx(30.0)


def test_workers_do_not_probe_at_once() -> None:
    clock = MovedClock()
    pauses = set()
    for _ in range(50):
        breaker = CircuitBreaker(KEY, LIMITS, clock=clock)
        run(breaker, "failure", 10)
        pauses.add(breaker.retry_in_s)
    assert len(pauses) > 40
    assert all(24.0 <= pause_s <= 36.0 for pause_s in pauses)


def test_a_call_of_an_older_generation_says_nothing() -> None:
    clock = MovedClock()
    breaker = new_breaker(clock)
    old = [breaker.admit() for _ in range(40)]
    run(breaker, "failure", 10)
    until_s = breaker.retry_in_s
    for ticket in old[:20]:
        breaker.finish(ticket, "failure")
    assert breaker.retry_in_s == until_s
    clock.move(31.0)
    run(breaker, "success")
    for ticket in old[20:]:
        breaker.finish(ticket, "failure")
    assert state_of(breaker) == "half_open"
    run(breaker, "success", 2)
    assert state_of(breaker) == "closed"


@pytest.mark.parametrize("steps", range(6))
def test_a_call_that_is_cancelled_at_any_step_leaves_no_probe_behind(steps: int) -> None:
    async def main() -> None:
        breaker = CircuitBreaker(KEY, LIMITS, clock=CLOCK, uniform=in_the_middle)

        async def fail() -> None:
            raise ConnectionResetError

        async def fine() -> None:
            for _ in range(3):
                await asyncio.sleep(0)

        for _ in range(10):
            with pytest.raises(ConnectionResetError):
                await breaker.call(fail)
        await asyncio.sleep(31.0)
        task = asyncio.create_task(breaker.call(fine))
        for _ in range(steps):
            await asyncio.sleep(0)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        assert state_of(breaker) in {"open", "half_open"}
        for _ in range(3):
            await breaker.call(fine)
        assert state_of(breaker) == "closed"

    run_virtual(main())


def test_a_refused_call_is_not_begun() -> None:
    async def main() -> None:
        breaker = CircuitBreaker(KEY, LIMITS, clock=CLOCK)
        run(breaker, "failure", 10)

        async def never() -> None:
            raise AssertionError("it was called")

        with pytest.raises(CircuitOpenError):
            await breaker.call(never)
        assert breaker.refused == 1

    run_virtual(main())


def test_a_tenth_of_a_percent_of_errors_costs_nothing() -> None:
    """600 s at 200 calls a second; the source's sketch serves 49.9 % of them."""
    clock, chance = MovedClock(), random.Random(1)
    breaker = new_breaker(clock)
    served = 0
    for _ in range(600 * 200):
        clock.move(1 / 200)
        try:
            ticket = breaker.admit()
        except CircuitOpenError:
            continue
        is_fault = chance.random() < 0.001
        breaker.finish(ticket, "failure" if is_fault else "success")
        served += not is_fault
    assert served / (600 * 200) >= 0.998


# --------------------------------------------------------------------------------------------------------- many keys


def test_tenants_dependencies_and_operations_fail_apart() -> None:
    breakers = CircuitBreakers({"external_idp": LIMITS, "database": LIMITS}, clock=MovedClock(), keys_max=10)
    run(breakers.of("external_idp", "token", "acme"), "failure", 10)
    breakers.of("external_idp", "token", "other").admit()
    breakers.of("external_idp", "jwks", "acme").admit()
    breakers.of("database", "token", "acme").admit()
    with pytest.raises(CircuitOpenError):
        breakers.of("external_idp", "token", "acme").admit()


def test_the_number_of_breakers_is_bounded_and_an_open_one_is_kept_longest() -> None:
    breakers = CircuitBreakers({"external_idp": LIMITS}, clock=MovedClock(), keys_max=5)
    run(breakers.of("external_idp", "token", "broken"), "failure", 10)
    with pytest.raises(CircuitOpenError):
        breakers.of("external_idp", "token", "broken").admit()
    for number in range(1000):
        run(breakers.of("external_idp", "token", f"tenant{number}"), "success")
        assert len(breakers) <= 5
    with pytest.raises(CircuitOpenError):
        breakers.of("external_idp", "token", "broken").admit()
    for number in range(10):
        run(breakers.of("external_idp", "token", f"open{number}"), "failure", 10)
    assert len(breakers) == 5
    (state,) = breakers.state()
    assert state.breakers == {"closed": 0, "half_open": 0, "open": 5}
    assert state.transitions["open"] == 11
    assert state.refused == 2  # by one that is gone


def test_the_breaker_that_goes_is_the_one_that_was_used_longest_ago() -> None:
    breakers = CircuitBreakers({"cache": LIMITS}, clock=MovedClock(), keys_max=2)
    first, second = breakers.of("cache", "first"), breakers.of("cache", "second")
    assert breakers.of("cache", "first") is first
    breakers.of("cache", "third")
    assert breakers.of("cache", "first") is first
    assert breakers.of("cache", "second") is not second


def test_what_is_shown_of_breakers_is_bounded_too() -> None:
    clock = MovedClock()
    breakers = CircuitBreakers({"external_idp": LIMITS, "cache": LIMITS}, clock=clock, keys_max=1000, uniform=max)
    for number in range(100):
        run(breakers.of("external_idp", "token", f"t{number}"), "failure", 10)
    idp, cache = breakers.state()
    assert len(idp.not_closed) == SHOWN_MAX
    key, state, retry_in_s = idp.not_closed[0]
    assert (key, state) == (BreakerKey("t0", "external_idp", "token"), "open")
    assert retry_in_s == pytest.approx(36.0)
    assert (cache.dependency, cache.not_closed) == ("cache", ())


def test_transitions_are_told_with_their_key() -> None:
    told: list[Transition] = []
    breakers = CircuitBreakers({"cache": LIMITS}, clock=MovedClock(), keys_max=5, on_transition=told.append)
    run(breakers.of("cache", "get"), "failure", 10)
    assert told == [Transition(BreakerKey("", "cache", "get"), "closed", "open", "10 of 10 calls failed")]


def test_a_dependency_that_was_not_named_is_a_mistake() -> None:
    with pytest.raises(ValueError, match="unknown dependency `printer`"):
        CircuitBreakers({}, clock=MovedClock(), keys_max=5).of("printer", "print")


# ---------------------------------------------------------------------------------------------------- against a model

MODEL_LIMITS = BreakerLimits(
    failure_threshold=3, recovery_s=20.0, half_open_requests=2, calls_min=4, slow_call_s=5.0, recovery_s_max=50.0
)


@dataclass
class ModelBreaker:
    """What a breaker does, from a list of everything that happened in this generation."""

    state: str = "closed"
    generation: int = 0
    until_s: float = 0.0
    pause_s: float = MODEL_LIMITS.recovery_s
    events: list[tuple[int, str, bool]] = field(default_factory=list)  # second, outcome, slow
    probes: dict[int, float] = field(default_factory=dict)  # by number of the call: when it began
    succeeded: int = 0

    def admit(self, call: int, now_s: float) -> bool:
        if self.state == "open" and now_s >= self.until_s:
            self._become("half_open")
        if self.state == "half_open":
            if len(self.probes) + self.succeeded < MODEL_LIMITS.half_open_requests:
                self.probes[call] = now_s
                self.newest_s = now_s
            elif now_s >= self.newest_s + MODEL_LIMITS.recovery_s:
                self._reopen(now_s)
                return False
            else:
                return False
        return self.state != "open"

    def finish(self, call: int, generation: int, outcome: str, slow: bool, now_s: float) -> None:
        if generation != self.generation:
            return
        if self.state == "closed" and outcome != "ignored":
            self.events.append((int(now_s), outcome, slow))
            recent = [event for event in self.events if event[0] > int(now_s) - SLICES]
            failed = sum(event[1] == "failure" for event in recent)
            slow_ones = sum(event[2] for event in recent)
            if len(recent) >= MODEL_LIMITS.calls_min and any(
                bad >= MODEL_LIMITS.failure_threshold and bad * 2 >= len(recent) for bad in (failed, slow_ones)
            ):
                self._become("open")
                self.until_s = now_s + self.pause_s
        elif self.state == "half_open":
            del self.probes[call]
            if outcome == "failure" or (outcome == "success" and slow):
                self._reopen(now_s)
            elif outcome == "success":
                self.succeeded += 1
                if self.succeeded == MODEL_LIMITS.half_open_requests:
                    self.pause_s = MODEL_LIMITS.recovery_s
                    self.events = []
                    self._become("closed")

    def _reopen(self, now_s: float) -> None:
        self.pause_s = min(self.pause_s * 2, MODEL_LIMITS.recovery_s_max)
        self._become("open")
        self.until_s = now_s + self.pause_s

    def _become(self, state: str) -> None:
        self.state, self.probes, self.succeeded = state, {}, 0
        self.generation += 1


class BreakerAgainstModel(RuleBasedStateMachine):
    @initialize()
    def begin(self) -> None:
        self.clock = MovedClock()
        self.told: list[Transition] = []
        self.breaker = new_breaker(self.clock, MODEL_LIMITS, self.told)
        self.model = ModelBreaker()
        self.running: dict[int, Ticket] = {}
        self.calls = 0

    @rule()
    def call(self) -> None:
        self.calls += 1
        let_through = self.model.admit(self.calls, self.clock.now_s)
        try:
            self.running[self.calls] = self.breaker.admit()
        except CircuitOpenError as error:
            assert error.retry_after_s is not None
            assert error.retry_after_s >= 1.0
        assert (self.calls in self.running) == let_through

    @precondition(lambda self: bool(getattr(self, "running", None)))
    @rule(data=st.data(), outcome=st.sampled_from(["success", "failure", "failure", "ignored"]))
    def finish(self, data: st.DataObject, outcome: Outcome) -> None:
        call = data.draw(st.sampled_from(sorted(self.running)))
        ticket = self.running.pop(call)
        slow = self.clock.now_s - ticket.began_s >= MODEL_LIMITS.slow_call_s
        self.model.finish(call, ticket.generation, outcome, slow, self.clock.now_s)
        self.breaker.finish(ticket, outcome)

    @rule(outcome=st.sampled_from(["success", "failure"]), times=st.integers(1, 5))
    def call_and_finish(self, outcome: Outcome, times: int) -> None:
        for _ in range(times):
            self.calls += 1
            let_through = self.model.admit(self.calls, self.clock.now_s)
            if let_through:
                ticket = self.breaker.admit()
                self.model.finish(self.calls, ticket.generation, outcome, False, self.clock.now_s)
                self.breaker.finish(ticket, outcome)
            else:
                with pytest.raises(CircuitOpenError):
                    self.breaker.admit()

    @rule(seconds=st.sampled_from([0.5, 1.0, 6.0, 11.0, 20.0, 45.0]))
    def pass_time(self, seconds: float) -> None:
        self.clock.move(seconds)

    @invariant()
    def it_is_in_the_model_s_state(self) -> None:
        if hasattr(self, "model"):
            assert (self.breaker.state, self.breaker.generation) == (self.model.state, self.model.generation)
            assert len(self.told) == self.model.generation
            assert all(a.after == b.before for a, b in zip(self.told, self.told[1:], strict=False))


BreakerAgainstModel.TestCase.settings = settings(max_examples=100, stateful_step_count=50)
TestBreakerAgainstModel = BreakerAgainstModel.TestCase
