"""What the probes and the metrics say of pools, permits, breakers, health and degradation."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from gateway.errors import StoreUnavailable
from gateway.front.endpoints import Dependency
from gateway.observability.metrics import Counter, Metrics
from gateway.resilience import Resilience, ResilienceState

if TYPE_CHECKING:  # a gateway without policies does without their code
    from gateway.front.deciding import Deciding
    from gateway.policy.relation_follower import RelationFollower

_STATES = {"ok": "ok", "slow": "degraded", "down": "unavailable"}


def health_dependencies(state: ResilienceState) -> dict[str, Dependency]:
    """Show each dependency's health; a worker stays ready with any of them down.

    It still judges tokens and sessions, and an orchestrator would otherwise take every worker away at once.
    """
    shown: dict[str, Dependency] = {}
    for health in state.health:
        detail: dict[str, object] = {"latency_ms": round(health.latency_s * 1e3, 1)}
        if health.error:
            detail["error"] = health.error
        shown[health.name] = Dependency(_STATES[health.status], True, detail)
    return shown


def resilience_detail(state: ResilienceState) -> Mapping[str, object]:
    """Show the level, the pools, and the breakers that are not closed, for `/readyz`."""
    degradation = state.degradation
    return {
        "degradation": {"level": degradation.level, "reasons": list(degradation.reasons)},
        "pools": {
            pool.name: {
                "running": pool.running,
                "waiting": pool.waiting,
                "size": pool.size,
                "refused": pool.refused_full + pool.refused_waited + pool.shed,
            }
            for pool in state.pools
        },
        "breakers": [
            {
                "dependency": key.dependency,
                "operation": key.operation,
                "tenant": key.tenant,
                "state": name,
                "retry_in_s": round(retry_in_s, 1),
            }
            for dependency in state.breakers
            for key, name, retry_in_s in dependency.not_closed
        ],
    }


async def probe_policies(relations: RelationFollower | None, deciding: Deciding | None) -> None:
    """Raise StoreUnavailable while decisions are refused, because what they rest on may have changed unseen."""
    if relations is not None and not relations.trusted:
        raise StoreUnavailable("relations are not followed")
    prefetcher = None if deciding is None else deciding.prefetcher
    if prefetcher is not None and not prefetcher.trusted:
        raise StoreUnavailable("a source of entities is not followed")


class ResilienceFigures:
    """Moves what the resilience of a worker counts by itself into the shared metrics. Callable."""

    def __init__(self, metrics: Metrics, resilience: Resilience) -> None:
        self._metrics = metrics
        self._resilience = resilience
        self._counters: dict[tuple[str, ...], Counter] = {}

    def __call__(self) -> None:
        state = self._resilience.state()
        self._sample_pools(state)
        self._sample_permits(state)
        self._sample_breakers(state)
        self._sample_health(state)

    def _follow(self, total: int, name: str, **labels: str) -> None:
        key = (name, *labels.values())
        if key not in self._counters:
            self._counters[key] = self._metrics.counter(name, **labels)
        self._counters[key].follow(total)

    def _sample_pools(self, state: ResilienceState) -> None:
        gauge = self._metrics.gauge
        for pool in state.pools:
            gauge("pool_running", pool=pool.name).set(pool.running)
            gauge("pool_waiting", pool=pool.name).set(pool.waiting)
            gauge("pool_size", pool=pool.name).set(pool.size)
            self._follow(pool.entered, "pool_entered_total", pool=pool.name)
            for reason, total in (("full", pool.refused_full), ("waited", pool.refused_waited), ("shed", pool.shed)):
                self._follow(total, "pool_refused_total", pool=pool.name, reason=reason)

    def _sample_permits(self, state: ResilienceState) -> None:
        gauge = self._metrics.gauge
        for share in state.permits:
            gauge("permits", resource=share.resource, pool=share.pool).set(share.permits)
            gauge("permits_in_use", resource=share.resource, pool=share.pool).set(share.in_use)
            gauge("permits_waiting", resource=share.resource, pool=share.pool).set(share.waiting)
            self._follow(share.refused, "permits_refused_total", resource=share.resource, pool=share.pool)

    def _sample_breakers(self, state: ResilienceState) -> None:
        for each in state.breakers:
            for name in each.breakers:
                gauge = self._metrics.gauge("breakers", dependency=each.dependency, state=name)
                gauge.set(each.breakers[name])
                self._follow(
                    each.transitions[name], "breaker_transitions_total", dependency=each.dependency, state=name
                )
            self._follow(each.refused, "breaker_refused_total", dependency=each.dependency)
        for retry in state.retries:
            self._follow(retry.spent, "retries_total", dependency=retry.dependency, outcome="spent")
            self._follow(retry.denied, "retries_total", dependency=retry.dependency, outcome="denied")

    def _sample_health(self, state: ResilienceState) -> None:
        for health in state.health:
            for status in ("down", "slow"):
                gauge = self._metrics.gauge(f"dependency_{status}", dependency=health.name)
                gauge.set(int(health.status == status))
        self._metrics.gauge("degradation_level").set(state.degradation.level)
        self._metrics.gauge("hash_threads_busy").set(state.hashing.busy)
        self._metrics.gauge("hash_waiting").set(state.hashing.waiting)
        self._follow(state.hashing.refused, "hash_refused_total")
        self._metrics.gauge("abandoned_calls").set(state.abandoned_calls)
