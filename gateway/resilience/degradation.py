"""How much of its work the gateway does while dependencies are ill: levels 0 to 3, and what each still offers.

| level | name | when | what is left out |
|---|---|---|---|
| 0 | normal | all is well | nothing |
| 1 | essential | something is slow, or policies or IdPs are down | fingerprints, behaviour, detailed audit |
| 2 | cached | database or cache is down | what needs the one that is down |
| 3 | emergency | both are down | all but tokens and sessions already issued, and break-glass |

The source grants access at 2 and 3 by risk or by a cookie; here no level ever accepts what it cannot verify. A level is
a number for people and headers; what a flow may do is asked by feature (`DegradationSnapshot.allows`), and follows from
each dependency's own health: with the cache down but the database well, log-ins go on, with sessions in memory.

The level rises at once (health is slow to believe already) and falls by one each 30 s: load comes back in steps, and
the non-essential last. What needs a dependency is there again as soon as that is well.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, get_args

from gateway.resilience.health import DependencyHealth, DependencyName, HealthState, HealthStatus
from gateway.types import Clock

_log = logging.getLogger("portcullis.resilience")

Level = Literal[0, 1, 2, 3]
LEVEL_NAMES: tuple[str, ...] = ("normal", "essential", "cached", "emergency")
RETRY_AFTER_S: Mapping[Level, float] = {0: 5.0, 1: 5.0, 2: 60.0, 3: 300.0}  # the source's numbers for 2 and 3
FALL_S = 30.0  # between two steps down
FALL_LOOK_S = 1.0

Feature = Literal[
    "fingerprint",
    "behaviour",
    "detailed_audit",
    "new_login",
    "federated_login",
    "step_up",
    "token_refresh",
    "directory_write",
    "provisional_session",
    "shared_cache",
    "policy_decision",
    "session_check",
    "token_validation",
    "break_glass",
]
FEATURES: tuple[Feature, ...] = get_args(Feature)

NON_ESSENTIAL: frozenset[Feature] = frozenset({"fingerprint", "behaviour", "detailed_audit"})
ALWAYS: frozenset[Feature] = frozenset({"session_check", "token_validation", "break_glass"})

# What a feature cannot do without: where one of them is down, it is not offered.
NEEDS: Mapping[Feature, frozenset[DependencyName]] = {
    "new_login": frozenset({"database"}),
    "federated_login": frozenset({"database", "external_idp"}),
    "step_up": frozenset({"database"}),
    "token_refresh": frozenset({"database"}),
    "directory_write": frozenset({"database"}),
    "shared_cache": frozenset({"cache"}),
    "policy_decision": frozenset({"policy_engine"}),
}

Health = Mapping[DependencyName, HealthStatus]


@dataclass(frozen=True, slots=True)
class DegradationSnapshot:
    """How the gateway stands, as requests read it: swapped whole, never changed."""

    level: Level
    features: frozenset[Feature]
    health: Health
    reasons: tuple[str, ...]  # such as `database down`; empty at level 0, and while the level only falls slowly

    def allows(self, feature: Feature) -> bool:
        """Tell whether a feature is offered now."""
        return feature in self.features

    @property
    def retry_after_s(self) -> float:
        """Give when to come again, for who is refused because of the level."""
        return RETRY_AFTER_S[self.level]


def determine_degradation_level(health: Health) -> Level:
    """Give the level that the dependencies' health asks for. One that is absent is not used here, and well."""
    down = {name for name, status in health.items() if status == "down"}
    if {"database", "cache"} <= down:
        return 3
    if {"database", "cache"} & down:
        return 2
    return 1 if any(_reasons(health)) else 0


def _reasons(health: Health) -> tuple[str, ...]:
    # An identity provider that is slow is so by nature, and costs only those who log in there.
    return tuple(
        f"{name} {status}"
        for name, status in health.items()
        if status == "down" or (status == "slow" and name != "external_idp")
    )


def offered_features(health: Health, burden: Level, *, provisional: bool) -> frozenset[Feature]:
    """Give what is offered; `burden` is the level as it falls, without what identity providers add to it."""
    down = {name for name, status in health.items() if status == "down"}
    offered = {*ALWAYS, *(feature for feature, needed in NEEDS.items() if not needed & down)}
    if burden == 0:
        offered |= NON_ESSENTIAL
    if provisional and "database" in down and "cache" not in down:
        offered.add("provisional_session")
    return frozenset(offered)


class HeldLevel:
    """A level that rises at once and falls by one each `fall_s` seconds in which it might."""

    __slots__ = ("_below_since_s", "fall_s", "level")

    def __init__(self, fall_s: float) -> None:
        self.fall_s = fall_s
        self._below_since_s: float | None = None
        self.level: Level = 0

    def follow(self, wanted: Level, now_s: float) -> Level:
        """Take what health asks for now, and return the level in force."""
        if wanted >= self.level:
            self.level = wanted
            self._below_since_s = None
        elif self._below_since_s is None:
            self._below_since_s = now_s
        elif now_s - self._below_since_s >= self.fall_s:
            self.level = _LOWER[self.level]
            self._below_since_s = now_s if wanted < self.level else None
        return self.level


_LOWER: Mapping[Level, Level] = {0: 0, 1: 0, 2: 1, 3: 2}
Subscriber = Callable[[DegradationSnapshot, DegradationSnapshot], None]


class DegradationMonitor:
    """Watches the dependencies and publishes a snapshot whenever something changes. Belongs to one event loop."""

    def __init__(
        self,
        dependencies: Sequence[DependencyHealth],
        *,
        clock: Clock,
        provisional: bool = False,
        fall_s: float = FALL_S,
    ) -> None:
        """`provisional`: whether a still-valid earlier proof may give a short session while the database is down."""
        self.dependencies: dict[DependencyName, DependencyHealth] = {each.name: each for each in dependencies}
        self._clock = clock
        self._provisional = provisional
        self._held = HeldLevel(fall_s)
        self._burden = HeldLevel(fall_s)  # without identity providers, whose outage is no reason to skip anything else
        self._subscribers: list[Subscriber] = []
        self._tasks: dict[DependencyName, asyncio.Task[None]] | None = None  # None: not started
        self._falling: asyncio.Task[None] | None = None
        self.current = self._snapshot()

    def subscribe(self, subscriber: Subscriber) -> None:
        """Have `subscriber(before, after)` called on each change, in the loop's thread; it must not raise or wait."""
        self._subscribers.append(subscriber)

    def relimit(self, *, provisional: bool, fall_s: float) -> None:
        """Have other limits from now on; the level stays until health or time change it."""
        self._provisional = provisional
        self._held.fall_s = self._burden.fall_s = fall_s
        self.update()

    def watch(self, dependency: DependencyHealth) -> None:
        """Follow one more dependency, or another of the same name in place of the one that was followed."""
        self.dependencies[dependency.name] = dependency
        if self._tasks is not None:
            former = self._tasks.pop(dependency.name, None)
            if former is not None:
                former.cancel()
            self._follow(dependency)
        self.update()

    def unwatch(self, name: DependencyName) -> None:
        """Follow a dependency no more; it counts as well."""
        self.dependencies.pop(name, None)
        task = None if self._tasks is None else self._tasks.pop(name, None)
        if task is not None:
            task.cancel()
        self.update()

    def observe(self, name: DependencyName, ok: bool, elapsed_s: float) -> None:
        """Take note of a request's call; one to a dependency that is not watched says nothing."""
        watched = self.dependencies.get(name)
        if watched is not None:
            watched.observe(ok, elapsed_s)

    def states(self) -> tuple[HealthState, ...]:
        """Say how each dependency stands."""
        return tuple(each.state() for each in self.dependencies.values())

    def update(self) -> None:
        """Make the snapshot anew, and publish it where it differs."""
        before, after = self.current, self._snapshot()
        if after == before:
            return
        self.current = after
        if after.level != before.level:
            level = logging.WARNING if after.level > before.level else logging.INFO
            _log.log(
                level,
                "degradation level %d (%s), was %d: %s",
                after.level,
                LEVEL_NAMES[after.level],
                before.level,
                ", ".join(after.reasons) or "all is well",
            )
        for subscriber in self._subscribers:
            subscriber(before, after)

    def _snapshot(self) -> DegradationSnapshot:
        now_s = self._clock.monotonic_s()
        health: dict[DependencyName, HealthStatus] = {name: each.status for name, each in self.dependencies.items()}
        level = self._held.follow(determine_degradation_level(health), now_s)
        others: Health = {name: status for name, status in health.items() if name != "external_idp"}
        burden = self._burden.follow(determine_degradation_level(others), now_s)
        features = offered_features(health, burden, provisional=self._provisional)
        return DegradationSnapshot(level, features, health, _reasons(health))

    def start(self) -> None:
        """Begin to sample, each dependency by itself: one that hangs holds up no other."""
        self._tasks = {}
        self._falling = asyncio.create_task(self._fall(), name="degradation")
        for each in self.dependencies.values():
            self._follow(each)

    def _follow(self, each: DependencyHealth) -> None:
        assert self._tasks is not None
        self._tasks[each.name] = asyncio.create_task(self._watch(each), name=f"health-{each.name}")

    async def stop(self) -> None:
        """End the sampling; the last snapshot stays."""
        tasks, self._tasks = list((self._tasks or {}).values()), None
        if self._falling is not None:
            tasks.append(self._falling)
            self._falling = None
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _fall(self) -> None:
        """Let the level fall when its time has come, also where nothing is watched any more."""
        while True:
            await asyncio.sleep(FALL_LOOK_S)
            self.update()

    async def _watch(self, each: DependencyHealth) -> None:
        while True:
            began_s = self._clock.monotonic_s()
            await each.sample()
            self.update()
            spent_s = self._clock.monotonic_s() - began_s
            await asyncio.sleep(max(0.0, each.limits.interval_s - spent_s))
