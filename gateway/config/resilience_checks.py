"""Limits that contradict each other. Each would show only under load, when nobody wants to learn of it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from gateway.config.complaints import Complaint
from gateway.config.knobs import WAITING_PER_PERMIT_MAX, PoolsConfig, ResilienceConfig

POOL_NAMES = PoolsConfig.__struct_fields__
RESOURCE_NAMES = ("db_connections", "redis_connections", "external_calls")


def resilience_complaints(resilience: ResilienceConfig) -> Iterator[Complaint]:
    """Give everything in `[resilience]` that cannot work together."""
    yield from _waits(resilience)
    for name in RESOURCE_NAMES:
        yield from _shares(name, getattr(resilience, name))
    for name in POOL_NAMES:
        yield from _pool(resilience, name)
    for name in ("breaker", "idp_breaker"):
        yield from _breaker(name, getattr(resilience, name), resilience.request_timeout_s)
    yield from _health(resilience)
    if resilience.retry.pause_s > resilience.retry.pause_s_max:
        yield Complaint(("resilience", "retry", "pause_s"), "above pause_s_max")


def _waits(resilience: ResilienceConfig) -> Iterator[Complaint]:
    if resilience.wait_s >= resilience.request_timeout_s:
        yield Complaint(
            ("resilience", "wait_s"),
            "as long as request_timeout_s: who got a place would have no time left",
            "0.25 keeps the answers useful at twice the load",
        )
    if resilience.shedding.target_s >= resilience.wait_s:
        yield Complaint(
            ("resilience", "shedding", "target_s"),
            f"nobody waits so long: wait_s is {resilience.wait_s:g}",
            "a fifth of wait_s lets a queue be noticed before it is full",
        )


def _shares(name: str, shares: Any) -> Iterator[Complaint]:
    total = sum(getattr(shares, pool) for pool in (*POOL_NAMES, "background"))
    if total > shares.total:
        yield Complaint(
            ("resilience", name, "total"),
            f"the shares add up to {total}, which is more than {shares.total}",
            "one pool could take what belongs to another: raise total, or lower a share",
        )


def _pool(resilience: ResilienceConfig, name: str) -> Iterator[Complaint]:
    size, running = getattr(resilience.pools, name), getattr(resilience.running, name)
    permits = sum(getattr(getattr(resilience, resource), name) for resource in RESOURCE_NAMES)
    allowed = permits * (1 + WAITING_PER_PERMIT_MAX)
    if size > allowed:
        yield Complaint(
            ("resilience", "pools", name),
            f"{size} is larger than its permits allow: with {permits} in all, {allowed} can run or wait for one",
            f"raise its shares in {', '.join(RESOURCE_NAMES)}, or make the pool smaller",
        )
    if running > size:
        yield Complaint(
            ("resilience", "running", name), f"{running} cannot run in a pool of {size}", "0 lets all of it run"
        )


def _breaker(name: str, breaker: Any, request_timeout_s: float) -> Iterator[Complaint]:
    path = ("resilience", name)
    if breaker.half_open_requests > breaker.failure_threshold:
        yield Complaint(
            (*path, "half_open_requests"),
            f"more probes than failures that open it: failure_threshold is {breaker.failure_threshold}",
            "a dependency that is ill would get more calls than made it so",
        )
    if breaker.recovery_s > breaker.recovery_s_max:
        yield Complaint((*path, "recovery_s"), "above recovery_s_max")
    if breaker.slow_call_s >= request_timeout_s:
        yield Complaint(
            (*path, "slow_call_s"),
            f"no call takes so long: request_timeout_s is {request_timeout_s:g}",
            "a dependency that hangs would never count as slow",
        )


def _health(resilience: ResilienceConfig) -> Iterator[Complaint]:
    health = resilience.health
    if health.probe_timeout_s > health.interval_s:
        yield Complaint(
            ("resilience", "health", "probe_timeout_s"),
            "above interval_s: looks at a dependency that hangs would come later and later",
        )
    for key in ("database_slow_s", "cache_slow_s", "policy_slow_s"):
        if getattr(health, key) >= health.probe_timeout_s:
            yield Complaint(
                ("resilience", "health", key), "as long as probe_timeout_s: it would be down before it is slow"
            )
