"""One worker's resilience from its config, and a call that uses all of it at once."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import msgspec
import pytest

from gateway.config import (
    BreakerConfig,
    Config,
    HealthConfig,
    PoolsConfig,
    ResilienceConfig,
    RetryConfig,
    RunningConfig,
    SheddingConfig,
)
from gateway.errors import (
    BulkheadFullError,
    CircuitOpenError,
    DeadlineExceededError,
    ResourceExhaustedError,
    StoreUnavailable,
    TokenRejected,
)
from gateway.resilience.assembly import Event, LevelChange, Resilience, ResilienceState, breaker_limits_of, pools_of
from gateway.resilience.circuit_breaker import BreakerKey, CircuitBreaker, Transition
from gateway.resilience.deadlines import GRACE_S, current_deadline, deadline, remaining_s
from gateway.resilience.pools import current_pool
from tests.unit.resilience.parts import CLOCK
from tests.virtual_time import run_virtual

DEFAULTS = Config().resilience


def new_resilience(config: ResilienceConfig = DEFAULTS) -> Resilience:
    return Resilience(config, clock=CLOCK)


async def fine() -> str:
    return "fine"


def idle(state: ResilienceState) -> bool:
    return not any(pool.running or pool.waiting for pool in state.pools) and not any(
        share.in_use or share.waiting for share in state.permits
    )


def test_pools_refuse_at_the_source_s_nine_tenths() -> None:
    limits = pools_of(DEFAULTS)
    assert {name: each.size - each.reserved for name, each in limits.items()} == {
        "user_auth": 90,
        "admin_auth": 18,
        "token_validation": 180,
        "scim_provisioning": 27,
        "external_idp": 45,
    }
    assert all(each.running_max == each.size for each in limits.values())


@pytest.mark.parametrize("size", range(1, 30))
def test_no_pool_is_so_small_that_nothing_gets_in(size: int) -> None:
    limits = pools_of(msgspec.structs.replace(DEFAULTS, pools=PoolsConfig(admin_auth=size)))
    assert 1 <= limits["admin_auth"].size - limits["admin_auth"].reserved <= size


def test_a_call_takes_a_permit_of_its_pool_and_gives_everything_back() -> None:
    async def main() -> None:
        resilience = new_resilience()
        seen: list[tuple[str, str]] = []

        async def look() -> str:
            seen.extend((share.resource, share.pool) for share in resilience.permits.state() if share.in_use)
            return "looked"

        async with resilience.bulkheads.pool("user_auth"):
            assert await resilience.call("database", "read", look) == "looked"
        assert await resilience.call("cache", "get", look) == "looked"
        assert await resilience.call("external_idp", "jwks", look) == "looked"
        assert await resilience.call("attribute_source", "read", look) == "looked"
        assert seen == [
            ("db_connections", "user_auth"),
            ("redis_connections", "background"),
            ("external_calls", "background"),
        ]
        assert idle(resilience.state())

    run_virtual(main())


def test_a_dependency_that_hangs_holds_its_callers_until_the_deadline_and_then_not_at_all() -> None:
    async def hang() -> None:
        """Swallow cancellation for a minute."""
        end_s = CLOCK.monotonic_s() + 60.0
        while CLOCK.monotonic_s() < end_s:
            try:
                await asyncio.sleep(end_s - CLOCK.monotonic_s())
            except asyncio.CancelledError:
                continue

    async def main() -> None:
        resilience = new_resilience()

        async def one() -> None:
            began_s = CLOCK.monotonic_s()
            async with resilience.bulkheads.pool("external_idp"):
                with pytest.raises(DeadlineExceededError):
                    await resilience.call("external_idp", "token", hang, limit_s=2.0, tenant="acme")
            assert CLOCK.monotonic_s() - began_s <= 2.0 + GRACE_S + 0.001

        await asyncio.gather(*(one() for _ in range(10)))
        began_s = CLOCK.monotonic_s()
        with pytest.raises(CircuitOpenError):
            await resilience.call("external_idp", "token", fine, tenant="acme")
        assert CLOCK.monotonic_s() == began_s
        assert await resilience.call("external_idp", "token", fine, tenant="other") == "fine"
        # Nobody waits any more, but ten connections are still in use.
        assert not any(pool.running for pool in resilience.state().pools)
        assert sum(share.in_use for share in resilience.state().permits) == 10
        assert resilience.state().abandoned_calls == 10
        await asyncio.sleep(60.0)
        assert resilience.state().abandoned_calls == 0
        assert idle(resilience.state())

    run_virtual(main())


def test_a_call_that_takes_all_of_its_request_s_time_counts_and_one_whose_client_left_does_not() -> None:
    async def main() -> None:
        resilience = new_resilience()

        async def request(limit_s: float) -> None:
            async with resilience.serving("external_idp", limit_s=limit_s):
                await resilience.call("external_idp", "token", forever, limit_s=2.0, tenant="acme")

        async def forever() -> None:
            await asyncio.sleep(3600)

        left = [asyncio.create_task(request(60.0)) for _ in range(10)]
        await asyncio.sleep(1.0)
        for each in left:
            each.cancel()
        await asyncio.gather(*left, return_exceptions=True)
        assert await resilience.call("external_idp", "token", fine, tenant="acme") == "fine"
        # The request's own time ends first: by as little as its beginning was earlier than the call's.
        over = await asyncio.gather(*(request(2.0) for _ in range(12)), return_exceptions=True)
        assert all(isinstance(each, DeadlineExceededError) for each in over)
        with pytest.raises(CircuitOpenError):
            await resilience.call("external_idp", "token", fine, tenant="acme")

    run_virtual(main())


def test_wrong_passwords_open_nothing_and_are_not_repeated() -> None:
    calls = 0

    async def wrong() -> None:
        nonlocal calls
        calls += 1
        raise TokenRejected

    async def main() -> None:
        resilience = new_resilience()
        for _ in range(100):
            with pytest.raises(TokenRejected):
                await resilience.call("external_idp", "token", wrong, idempotent=True)
        assert calls == 100
        assert resilience.state().breakers[2].breakers == {"closed": 1, "half_open": 0, "open": 0}

    run_virtual(main())


def test_what_may_be_repeated_is_and_each_attempt_counts() -> None:
    async def main() -> None:
        resilience = new_resilience()
        attempts: list[int] = []

        async def down() -> None:
            attempts.append(1)
            raise StoreUnavailable

        for _ in range(4):
            with pytest.raises((StoreUnavailable, CircuitOpenError)):
                await resilience.call("database", "read", down, idempotent=True)
        assert len(attempts) == 10  # three attempts each, and the tenth opened the breaker
        state = resilience.state()
        assert state.breakers[0].transitions["open"] == 1
        assert (state.retries[0].dependency, state.retries[0].spent) == ("database", 7)

    run_virtual(main())


def test_a_permit_that_is_not_there_says_nothing_of_the_dependency() -> None:
    async def main() -> None:
        resilience = new_resilience()
        slow = [
            asyncio.create_task(resilience.call("database", "read", lambda: asyncio.sleep(0.9, "done")))
            for _ in range(5)
        ]
        await asyncio.sleep(0)
        refused = await asyncio.gather(
            *(resilience.call("database", "read", fine) for _ in range(40)), return_exceptions=True
        )
        assert {type(each) for each in refused} == {ResourceExhaustedError}
        assert await asyncio.gather(*slow) == ["done"] * 5
        assert resilience.state().breakers[0].breakers["closed"] == 1

    run_virtual(main())


def test_timeouts_of_a_worker_that_is_too_busy_open_no_breaker_and_make_nobody_ill() -> None:
    async def main() -> None:
        resilience = new_resilience()
        resilience.shedder.is_ours = lambda began_s: True  # type: ignore[method-assign]
        resilience.watch("cache", lambda: asyncio.sleep(3600), part="sessions")
        for _ in range(6):
            await resilience.degradation.dependencies["cache"].sample()
        for _ in range(30):
            with pytest.raises(DeadlineExceededError):
                await resilience.call(
                    "cache", "get", lambda: asyncio.sleep(3600), limit_s=0.5, part="sessions", tenant="x"
                )
        state = resilience.state()
        assert state.breakers[1].breakers == {"closed": 1, "half_open": 0, "open": 0}
        assert state.health[0].status == "ok"
        assert await resilience.call("cache", "get", fine, part="sessions") == "fine"

    run_virtual(main())


def test_nobody_waits_for_a_permit_to_be_refused_by_a_breaker() -> None:
    async def main() -> None:
        resilience = new_resilience()
        breaker = resilience.breakers.of("database", "read")
        for _ in range(10):
            breaker.finish(breaker.admit(), "failure")
        holders = [
            asyncio.create_task(resilience.call("database", "other", lambda: asyncio.sleep(5.0))) for _ in range(5)
        ]
        await asyncio.sleep(0.1)
        began_s = CLOCK.monotonic_s()
        with pytest.raises(CircuitOpenError):
            await resilience.call("database", "read", fine)
        assert CLOCK.monotonic_s() == began_s
        await asyncio.gather(*holders)

    run_virtual(main())


def test_our_own_mistakes_say_nothing_of_a_dependency_s_health() -> None:
    async def mistaken() -> None:
        raise ValueError("ours")

    async def main() -> None:
        resilience = new_resilience()
        resilience.watch("database")
        for _ in range(5):
            for _ in range(5):
                with pytest.raises(ValueError, match="ours"):
                    await resilience.call("database", "read", mistaken)
            await resilience.degradation.dependencies["database"].sample()
        assert resilience.state().health[0].status == "ok"

    run_virtual(main())


@pytest.mark.parametrize("steps", range(12))
def test_a_call_cancelled_at_any_step_leaves_nothing_behind(steps: int) -> None:
    async def work() -> None:
        for _ in range(4):
            await asyncio.sleep(0)

    async def main() -> None:
        resilience = new_resilience()

        async def whole() -> None:
            async with deadline(5.0, clock=CLOCK), resilience.bulkheads.pool("user_auth"):
                await resilience.call("database", "read", work, idempotent=True)

        task = asyncio.create_task(whole())
        for _ in range(steps):
            await asyncio.sleep(0)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        await asyncio.sleep(1.0)
        assert idle(resilience.state())
        assert resilience.state().abandoned_calls == 0
        assert asyncio.all_tasks() == {asyncio.current_task()}

    run_virtual(main())


def test_calls_tell_the_health_of_what_they_asked() -> None:
    async def down() -> None:
        raise StoreUnavailable

    async def main() -> None:
        resilience = new_resilience()
        resilience.watch("database")
        resilience.start()
        for _ in range(6):
            for _ in range(3):
                with pytest.raises((StoreUnavailable, CircuitOpenError)):
                    await resilience.call("database", "read", down)
            await asyncio.sleep(0.5)
        state = resilience.state()
        assert (state.degradation.level, state.health[0].status) == (2, "down")
        await resilience.stop()
        assert asyncio.all_tasks() == {asyncio.current_task()}

    run_virtual(main())


def test_a_dependency_that_comes_later_is_followed_too_and_another_takes_its_place() -> None:
    async def down() -> None:
        raise StoreUnavailable

    async def answer() -> None:
        pass

    async def main() -> None:
        resilience = new_resilience()
        resilience.start()
        assert resilience.degradation.current.level == 0
        resilience.watch("cache", down)
        await asyncio.sleep(2.0)
        level: int = resilience.degradation.current.level
        assert level == 2
        resilience.watch("cache", answer)
        assert resilience.degradation.current.allows("shared_cache")
        await asyncio.sleep(120.0)
        assert resilience.degradation.current.level == 0
        await resilience.stop()

    run_virtual(main())


def test_a_request_is_served_in_its_pool_and_in_its_time() -> None:
    async def main() -> None:
        resilience = new_resilience()
        began_s = CLOCK.monotonic_s()
        with pytest.raises(DeadlineExceededError):
            async with resilience.serving("user_auth"):
                assert current_pool() == "user_auth"
                assert remaining_s() == DEFAULTS.request_timeout_s
                await asyncio.sleep(3600)
        assert CLOCK.monotonic_s() - began_s == pytest.approx(DEFAULTS.request_timeout_s)
        async with resilience.serving("user_auth", limit_s=0.5):
            assert remaining_s() == 0.5
        assert idle(resilience.state())

    run_virtual(main())


def test_a_request_that_waits_for_its_pool_until_its_time_is_over_leaves_nothing_behind() -> None:
    async def main() -> None:
        resilience = new_resilience(msgspec.structs.replace(DEFAULTS, running=RunningConfig(user_auth=1)))

        async def hold() -> None:
            async with resilience.serving("user_auth"):
                await asyncio.sleep(1.0)

        holder = asyncio.create_task(hold())
        await asyncio.sleep(0)
        began_s = CLOCK.monotonic_s()
        with pytest.raises(DeadlineExceededError):
            async with resilience.serving("user_auth", limit_s=0.1):
                raise AssertionError("it began")
        assert CLOCK.monotonic_s() - began_s == pytest.approx(0.1)
        assert current_deadline() is None
        await holder
        assert idle(resilience.state())

    run_virtual(main())


def test_breakers_and_levels_are_told_as_events_and_a_listener_that_fails_harms_nobody() -> None:
    async def down() -> None:
        raise StoreUnavailable

    def clumsy(_event: Event) -> None:
        raise ValueError("dropped")

    async def main() -> None:
        resilience = new_resilience()
        told: list[Event] = []
        resilience.subscribe(clumsy)
        resilience.subscribe(told.append)
        resilience.watch("cache", down, part="elsewhere")
        resilience.start()
        await asyncio.sleep(2.0)
        for _ in range(10):
            with pytest.raises(StoreUnavailable):
                await resilience.call("cache", "get", down)
        assert told == [
            LevelChange(0, 2, ("cache down",)),
            Transition(BreakerKey("", "cache", "get"), "closed", "open", "10 of 10 calls failed"),
        ]
        await resilience.stop()

    run_virtual(main())


def test_what_probes_found_gone_is_not_asked_and_is_again_when_it_is_back() -> None:
    ill = {"sessions"}
    asked: list[str] = []

    async def probe() -> None:
        if ill:
            await asyncio.sleep(3600)

    async def work() -> str:
        asked.append("work")
        return "fine"

    async def main() -> None:
        resilience = new_resilience()
        resilience.start()
        resilience.watch("cache", probe, part="sessions")
        await asyncio.sleep(2.0)
        began_s = CLOCK.monotonic_s()
        with pytest.raises(CircuitOpenError) as caught:
            await resilience.call("cache", "get", work, part="sessions", idempotent=True)
        assert (CLOCK.monotonic_s(), asked, caught.value.retry_after_s) == (began_s, [], 0.5)
        assert resilience.state().breakers[1].refused == 1
        assert await resilience.call("cache", "get", work, part="decisions") == "fine"  # another server
        assert await resilience.call("database", "get", work, part="sessions") == "fine"
        ill.clear()
        await asyncio.sleep(1.0)
        assert await resilience.call("cache", "get", work, part="sessions") == "fine"
        await resilience.stop()

    run_virtual(main())


def test_a_dependency_is_as_ill_as_the_worst_of_its_parts() -> None:
    ill: set[str] = set()

    def probe_of(part: str) -> Callable[[], Awaitable[None]]:
        async def probe() -> None:
            if part in ill:
                raise StoreUnavailable

        return probe

    async def main() -> None:
        resilience = new_resilience(msgspec.structs.replace(DEFAULTS, health=HealthConfig(fall_s=0.1)))
        resilience.start()
        for part in ("sessions", "directory"):
            resilience.watch("database", probe_of(part), part=part)

        async def status() -> str:
            await asyncio.sleep(3.0)
            return resilience.state().health[0].status

        assert await status() == "ok"
        ill.add("sessions")
        assert await status() == "down"
        ill.add("directory")
        resilience.unwatch("database", part="directory", probe=probe_of("directory"))  # another one by now
        resilience.unwatch("database", part="sessions")
        assert await status() == "down"
        ill.remove("directory")
        assert await status() == "ok"
        ill.add("directory")
        assert await status() == "down"
        resilience.unwatch("database", part="directory")
        resilience.unwatch("database", part="directory")
        assert resilience.state().health == ()
        await asyncio.sleep(5.0)
        assert resilience.degradation.current.level == 0
        await resilience.stop()
        assert asyncio.all_tasks() == {asyncio.current_task()}

    run_virtual(main())


def test_a_reload_changes_pools_while_work_is_in_them() -> None:
    async def main() -> None:
        resilience = new_resilience()
        work = resilience.bulkheads.execute("scim_provisioning", lambda: asyncio.sleep(10))
        holder = asyncio.create_task(work)
        await asyncio.sleep(1)
        resilience.reload(msgspec.structs.replace(DEFAULTS, pools=PoolsConfig(scim_provisioning=1)))
        with pytest.raises(BulkheadFullError):
            await resilience.bulkheads.execute("scim_provisioning", fine)
        await holder
        assert await resilience.bulkheads.execute("scim_provisioning", fine) == "fine"

    run_virtual(main())


def test_a_reload_reaches_every_limit_and_leaves_every_state() -> None:
    async def down() -> None:
        raise StoreUnavailable

    async def main() -> None:
        resilience = new_resilience()
        resilience.watch("cache", down, part="elsewhere")
        resilience.start()
        await asyncio.sleep(2.0)
        for _ in range(10):
            with pytest.raises(StoreUnavailable):
                await resilience.call("cache", "get", down)
        resilience.reload(
            ResilienceConfig(
                request_timeout_s=7.0,
                wait_s=0.5,
                retry_after_s=60.0,
                breakers_max=2,
                breaker=BreakerConfig(failure_threshold=1, calls_min=1, window_s=20.0, half_open_requests=1),
                retry=RetryConfig(retries_max=0),
                shedding=SheddingConfig(target_s=0.2),
                health=HealthConfig(fall_s=1.0, good_samples=1, provisional=True),
            )
        )
        state = resilience.state()
        assert state.degradation.level == 2
        assert state.breakers[1].breakers["open"] == 1
        attempts = []

        async def fail() -> None:
            attempts.append(1)
            raise StoreUnavailable

        with pytest.raises(StoreUnavailable):
            await resilience.call("database", "read", fail, idempotent=True)
        assert len(attempts) == 1
        with pytest.raises(CircuitOpenError):
            await resilience.call("database", "read", fail)
        await resilience.call("database", "other", fine)
        assert len(resilience.breakers) == 2
        async with resilience.serving("user_auth"):
            assert remaining_s() == 7.0
        resilience.watch("cache", fine_probe, part="elsewhere")
        await asyncio.sleep(5.0)
        assert resilience.degradation.current.level == 0
        resilience.watch("database", down)
        await asyncio.sleep(2.0)
        assert resilience.degradation.current.allows("provisional_session")
        await resilience.stop()

    async def fine_probe() -> None:
        pass

    run_virtual(main())


def test_each_dependency_has_the_breaker_that_the_config_says_and_sources_are_looked_at_soon() -> None:
    limits = breaker_limits_of(DEFAULTS)
    assert {
        name: (each.failure_threshold, each.recovery_s, each.half_open_requests) for name, each in limits.items()
    } == {
        "database": (5, 30.0, 3),
        "cache": (5, 30.0, 3),
        "external_idp": (3, 60.0, 3),
        "attribute_source": (5, 2.0, 3),
    }
    assert limits["attribute_source"].recovery_s_max == 30.0


def test_a_check_takes_no_probe_s_place() -> None:
    async def main() -> None:
        resilience = new_resilience()
        breaker: CircuitBreaker = resilience.breakers.of("cache", "get")
        for _ in range(10):
            breaker.finish(breaker.admit(), "failure")
        with pytest.raises(CircuitOpenError):
            breaker.check()
        await asyncio.sleep(40.0)
        for _ in range(10):
            breaker.check()
        assert [await resilience.call("cache", "get", fine) for _ in range(3)] == ["fine"] * 3

    run_virtual(main())
