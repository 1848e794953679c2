"""All of this chapter for one worker, made from the config; and one way to ask a dependency that uses all of it."""

from __future__ import annotations

import asyncio
import logging
import math
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, nullcontext
from dataclasses import dataclass, replace
from types import TracebackType
from typing import Literal, TypeVar, get_args

from gateway.config import BreakerConfig, IdpBreakerConfig, ResilienceConfig
from gateway.errors import DeadlineExceededError
from gateway.resilience.bulkhead import BulkheadManager, PoolLimits, PoolPlace, PoolState
from gateway.resilience.circuit_breaker import (
    BreakerLimits,
    BreakersState,
    CircuitBreakers,
    Classify,
    Outcome,
    Transition,
    outcome_of,
)
from gateway.resilience.deadlines import abandoned_calls, deadline, remaining_s, within
from gateway.resilience.degradation import DegradationMonitor, DegradationSnapshot, Level
from gateway.resilience.health import BAD_SAMPLES, DependencyHealth, DependencyName, HealthLimits, HealthState, Probe
from gateway.resilience.limiter import WaitLimits
from gateway.resilience.permits import (
    RESOURCES,
    PermitState,
    ResourceGuard,
    ResourceName,
    ResourceSemaphores,
    Shares,
)
from gateway.resilience.pools import BACKGROUND, POOLS, PoolName
from gateway.resilience.retry import Retry, RetryLimits, jittered
from gateway.resilience.shedding import LoadShedder, SheddingLimits
from gateway.resilience.threads import ThreadsState, WorkThreads
from gateway.types import Clock

_log = logging.getLogger("portcullis.resilience")

T = TypeVar("T")

BreakerName = Literal["database", "cache", "external_idp", "attribute_source"]
"""What breakers are made for. `external_idp` also stands for key sets and introspection at issuers."""
BREAKERS: tuple[BreakerName, ...] = get_args(BreakerName)

TIMER_S = 0.005  # loops round timers to milliseconds: so much may be left when one fires
SOURCE_RECOVERY_S = 2.0  # at most, for sources of entities
SOURCE_RECOVERY_S_MAX = 30.0

# What a call needs a permit of, and whose health it tells of. Sources of entities have limits of their own.
_RESOURCE: Mapping[BreakerName, ResourceName] = {
    "database": "db_connections",
    "cache": "redis_connections",
    "external_idp": "external_calls",
}
_HEALTH: Mapping[BreakerName, DependencyName] = {
    "database": "database",
    "cache": "cache",
    "external_idp": "external_idp",
}


@dataclass(frozen=True, slots=True)
class RetryState:
    """Retries of one dependency since the start."""

    dependency: BreakerName
    spent: int
    denied: int


@dataclass(frozen=True, slots=True)
class ResilienceState:
    """How everything stands, for metrics and `/readyz`."""

    pools: tuple[PoolState, ...]
    permits: tuple[PermitState, ...]
    breakers: tuple[BreakersState, ...]
    retries: tuple[RetryState, ...]
    health: tuple[HealthState, ...]
    degradation: DegradationSnapshot
    hashing: ThreadsState
    abandoned_calls: int


@dataclass(frozen=True, slots=True)
class LevelChange:
    """A change of the degradation level, and why."""

    before: Level
    after: Level
    reasons: tuple[str, ...]


Event = Transition | LevelChange


class Serving:
    """One request in its pool, and in its time."""

    __slots__ = ("_deadline", "_place")

    def __init__(self, limit: deadline, place: PoolPlace) -> None:
        self._deadline = limit
        self._place = place

    async def __aenter__(self) -> None:
        await self._deadline.__aenter__()
        try:
            await self._place.__aenter__()
        except BaseException as error:
            await self._deadline.__aexit__(type(error), error, error.__traceback__)
            raise

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._place.__aexit__(kind, error, trace)
        await self._deadline.__aexit__(kind, error, trace)


class Resilience:
    """The pools, permits, breakers, retries, shedder and degradation of one worker. Belongs to one event loop."""

    def __init__(self, config: ResilienceConfig, *, clock: Clock) -> None:
        self._clock = clock
        self._parts: dict[DependencyName, dict[str, _Part]] = {}
        self._listeners: list[Callable[[Event], None]] = []
        self.config = config

        def retry_after_s() -> float:
            return jittered(self.config.retry_after_s)()

        self.shedder = LoadShedder(_shedding(config), clock=clock, retry_after_s=retry_after_s)
        waits = waits_of(config)
        self.permits = ResourceSemaphores(
            shares_of(config), waits=waits, shedder=self.shedder, retry_after_s=retry_after_s, clock=clock
        )
        self.hashing = WorkThreads(
            "password-hashing",
            threads=config.hash_threads,
            waiting_max=config.pools.user_auth,
            waits=waits,
            retry_after_s=retry_after_s,
            clock=clock,
        )
        self.bulkheads = BulkheadManager(
            pools_of(config),
            permits=self.permits,
            waits=waits,
            shedder=self.shedder,
            retry_after_s=retry_after_s,
            clock=clock,
        )
        self.breakers = CircuitBreakers(
            breaker_limits_of(config),
            clock=clock,
            keys_max=config.breakers_max,
            on_transition=self._tell,
        )
        self.retries: Mapping[BreakerName, Retry] = {
            name: Retry(retry_limits_of(config), clock=clock) for name in BREAKERS
        }
        self.degradation = DegradationMonitor(
            (), clock=clock, provisional=config.health.provisional, fall_s=config.health.fall_s
        )
        self.degradation.subscribe(self._tell_level)

    def subscribe(self, listener: Callable[[Event], None]) -> None:
        """Have `listener` told of each breaker's transition and each change of level, in the loop's thread.

        It must not wait; what it raises is logged and goes no further.
        """
        self._listeners.append(listener)

    def watch(self, name: DependencyName, probe: Probe | None = None, *, part: str = "") -> None:
        """Have a dependency's health followed from now on; `probe` as in DependencyHealth.

        Where several parts use it, each on a server of its own, each watches under its name: the dependency is as ill
        as the worst of them. The same part again replaces its former probe.
        """
        self._parts.setdefault(name, {})[part] = _Part(probe)
        self._follow(name)

    def unwatch(self, name: DependencyName, *, part: str = "", probe: Probe | None = None) -> None:
        """Have a part's probe asked no more; a dependency that nobody watches is not shown, and counts as well.

        With `probe`, only where it is still that one: a successor of the part may have begun already.
        """
        parts = self._parts.get(name, {})
        if part in parts and probe in (None, parts[part].probe):
            del parts[part]
            self._follow(name)

    def _follow(self, name: DependencyName) -> None:
        parts = self._parts[name]
        if not parts:
            self.degradation.unwatch(name)
            return
        asked = [part for part in parts.values() if part.probe is not None]
        limits = health_limits_of(self.config, name)
        health = DependencyHealth(
            name,
            probe=(lambda: self._all_of(asked)) if asked else None,
            limits=limits,
            clock=self._clock,
            is_ours=self.shedder.is_ours,
        )
        self.degradation.watch(health)

    async def _all_of(self, parts: Sequence[_Part]) -> None:
        """Ask all at once, and raise what the first of them that failed did."""
        for result in await asyncio.gather(*(self._ask(part) for part in parts), return_exceptions=True):
            if isinstance(result, BaseException):
                raise result

    async def _ask(self, part: _Part) -> None:
        """Ask for one part; to be given up counts as a failure too."""
        assert part.probe is not None
        began_s = self._clock.monotonic_s()
        try:
            await part.probe()
        except BaseException:
            if not self.shedder.is_ours(began_s):
                part.failures += 1
            raise
        part.failures = 0

    def serving(self, pool: PoolName, *, critical: bool = False, limit_s: float | None = None) -> Serving:
        """Return what serves one request: `async with`, in its pool and within `limit_s` (None: request_timeout_s).

        To be entered when the request's body was read: whoever sends slowly would hold a place meanwhile. Raises
        BulkheadFullError, OverloadedError and DeadlineExceededError.
        """
        bound_s = self.config.request_timeout_s if limit_s is None else limit_s
        return Serving(deadline(bound_s, clock=self._clock), self.bulkheads.pool(pool, critical=critical))

    async def call(
        self,
        dependency: BreakerName,
        operation: str,
        work: Callable[[], Awaitable[T]],
        *,
        limit_s: float | None = None,
        tenant: str = "",
        part: str = "",
        idempotent: bool = False,
        classify: Classify | None = None,
        worth: Callable[[Exception], bool] | None = None,
    ) -> T:
        """Await `work()` with a permit of the caller's pool, behind the breaker, within a hard deadline.

        The deadline is the least of `limit_s` for each attempt (None: request_timeout_s) and what the request has left;
        what is `idempotent` is repeated within the budget. How it went is told to breaker and health: `classify` says
        what an error means there (`outcome_of`), and `worth` which ones a retry may cure. Where probes of `part` (see
        `watch`) found its server gone, it is not asked: nobody waits for what is known to be down. Raises
        CircuitOpenError, ResourceExhaustedError, DeadlineExceededError, and what `work` raises.
        """

        bound_s = self.config.request_timeout_s if limit_s is None else limit_s

        def judge(error: BaseException, elapsed_s: float) -> Outcome:
            if isinstance(error, asyncio.CancelledError) and remaining_s() <= TIMER_S:
                # Not its client gave up: the request's own time was over before the call's, because of the call.
                error = DeadlineExceededError("the time for this request is over")
            outcome = (classify or outcome_of)(error, elapsed_s)
            is_ours = outcome == "failure" and self.shedder.is_ours(self._clock.monotonic_s() - elapsed_s)
            return "ignored" if is_ours else outcome

        async def attempt() -> T:
            breaker = self.breakers.of(dependency, operation, tenant)
            if self.is_gone(dependency, part):
                breaker.refuse(self.config.health.interval_s)
            breaker.check()  # before anybody waits for a permit that would be of no use
            async with self._permit(dependency) as permit:
                with breaker.guard(judge, lambda outcome, elapsed_s: self._observe(dependency, outcome, elapsed_s)):
                    return await within(bound_s, lambda: _holding(permit, work), clock=self._clock)

        return await self.retries[dependency].call(attempt, idempotent=idempotent, worth=worth)

    def is_gone(self, dependency: BreakerName, part: str) -> bool:
        """Tell whether probes of `part` found its server gone; False where nobody probes it."""
        name = _HEALTH.get(dependency)
        watched = None if name is None else self._parts.get(name, {}).get(part)
        return watched is not None and watched.failures >= BAD_SAMPLES

    def _permit(self, dependency: BreakerName) -> AbstractAsyncContextManager[ResourceGuard | None]:
        resource = _RESOURCE.get(dependency)
        return nullcontext() if resource is None else self.permits.guard(resource)

    def _observe(self, dependency: BreakerName, outcome: Outcome, elapsed_s: float) -> None:
        name = _HEALTH.get(dependency)
        if name is not None and outcome != "ignored":
            self.degradation.observe(name, outcome == "success", elapsed_s)

    def _tell(self, transition: Transition) -> None:
        key = transition.key
        level = logging.WARNING if transition.after == "open" else logging.INFO
        tenant = f" for tenant `{key.tenant}`" if key.tenant else ""
        _log.log(
            level,
            "breaker of `%s` %s%s is %s: %s",
            key.dependency,
            key.operation,
            tenant,
            transition.after,
            transition.reason,
        )
        self._publish(transition)

    def _tell_level(self, before: DegradationSnapshot, after: DegradationSnapshot) -> None:
        if before.level != after.level:
            self._publish(LevelChange(before.level, after.level, after.reasons))

    def _publish(self, event: Event) -> None:
        for listener in self._listeners:
            try:
                listener(event)
            except Exception:  # a call to a dependency must not fail because somebody cannot be told of it
                _log.exception("a listener to events of resilience failed")

    def reload(self, config: ResilienceConfig) -> None:
        """Serve by other limits from now on; what runs, waits or is open stays so. The number of threads stays, too."""
        self.config = config
        waits = waits_of(config)
        self.permits.resize(shares_of(config), waits)
        self.bulkheads.resize(pools_of(config), waits)
        self.hashing.waits = waits
        self.shedder.relimit(_shedding(config))
        self.breakers.relimit(breaker_limits_of(config), config.breakers_max)
        for retry in self.retries.values():
            retry.relimit(retry_limits_of(config))
        for name, health in self.degradation.dependencies.items():
            health.limits = health_limits_of(config, name)
        self.degradation.relimit(provisional=config.health.provisional, fall_s=config.health.fall_s)

    def state(self) -> ResilienceState:
        """Say how everything stands."""
        return ResilienceState(
            pools=self.bulkheads.state(),
            permits=self.permits.state(),
            breakers=self.breakers.state(),
            retries=tuple(
                RetryState(name, each.budget.spent, each.budget.denied) for name, each in self.retries.items()
            ),
            health=self.degradation.states(),
            degradation=self.degradation.current,
            hashing=self.hashing.state(),
            abandoned_calls=abandoned_calls(),
        )

    def start(self) -> None:
        """Begin to watch the loop and the dependencies."""
        self.shedder.start()
        self.degradation.start()

    async def stop(self) -> None:
        """End the watching, and the threads. Everything else can still be used."""
        await self.shedder.stop()
        await self.degradation.stop()
        self.hashing.close()


async def _holding(permit: ResourceGuard | None, work: Callable[[], Awaitable[T]]) -> T:
    """Do the work with a permit that is given back when the work has ended, also where nobody waits for it any more.

    A call that was left behind still has its connection.
    """
    if permit is None:
        return await work()
    permit.keep()
    try:
        return await work()
    finally:
        permit.release()


class _Part:
    """What one part of the gateway knows of a dependency."""

    __slots__ = ("failures", "probe")

    def __init__(self, probe: Probe | None) -> None:
        self.probe = probe
        self.failures = 0  # in a row


def pools_of(config: ResilienceConfig) -> dict[PoolName, PoolLimits]:
    """Give each pool's limits."""
    limits: dict[PoolName, PoolLimits] = {}
    for name in POOLS:
        size: int = getattr(config.pools, name)
        running: int = getattr(config.running, name)
        open_to_all = math.ceil(round(size * config.soft_limit, 6))  # 0.9 of 100 is 90, whatever floats say
        limits[name] = PoolLimits(size=size, running_max=running or size, reserved=size - open_to_all)
    return limits


def shares_of(config: ResilienceConfig) -> Shares:
    """Give each pool's share of each resource."""
    return {
        resource: {pool: getattr(getattr(config, resource), pool) for pool in (*POOLS, BACKGROUND)}
        for resource in RESOURCES
    }


def waits_of(config: ResilienceConfig) -> WaitLimits:
    """Give how long work may wait."""
    return WaitLimits(wait_s=config.wait_s)


def retry_limits_of(config: ResilienceConfig) -> RetryLimits:
    """Give the limits of retries, of each dependency."""
    retry = config.retry
    return RetryLimits(
        retries_max=retry.retries_max,
        pause_s=retry.pause_s,
        pause_s_max=retry.pause_s_max,
        budget_share=retry.budget_share,
        budget_per_s=retry.budget_per_s,
    )


def health_limits_of(config: ResilienceConfig, name: DependencyName) -> HealthLimits:
    """Give how a dependency's health is found out."""
    health = config.health
    slow_s: dict[DependencyName, float] = {
        "database": health.database_slow_s,
        "cache": health.cache_slow_s,
        "external_idp": health.idp_slow_s,
        "policy_engine": health.policy_slow_s,
    }
    return HealthLimits(
        interval_s=health.interval_s,
        probe_timeout_s=health.probe_timeout_s,
        slow_s=slow_s[name],
        good_samples=health.good_samples,
    )


def breaker_limits_of(config: ResilienceConfig) -> dict[str, BreakerLimits]:
    """Give the limits of each dependency's breakers."""
    usual = breaker_limits(config.breaker)
    # Decisions are refused while a source is left alone, so it is looked at again soon.
    sources = replace(
        usual,
        recovery_s=min(usual.recovery_s, SOURCE_RECOVERY_S),
        recovery_s_max=min(usual.recovery_s_max, SOURCE_RECOVERY_S_MAX),
    )
    return {
        "database": usual,
        "cache": usual,
        "external_idp": breaker_limits(config.idp_breaker),
        "attribute_source": sources,
    }


def breaker_limits(config: BreakerConfig | IdpBreakerConfig) -> BreakerLimits:
    """Give the limits that a section of the config says."""
    return BreakerLimits(
        failure_threshold=config.failure_threshold,
        recovery_s=config.recovery_s,
        half_open_requests=config.half_open_requests,
        window_s=config.window_s,
        calls_min=config.calls_min,
        failure_rate=config.failure_rate,
        slow_call_s=config.slow_call_s,
        recovery_s_max=config.recovery_s_max,
    )


def _shedding(config: ResilienceConfig) -> SheddingLimits:
    return SheddingLimits(target_s=config.shedding.target_s, interval_s=config.shedding.interval_s)
