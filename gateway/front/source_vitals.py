"""What the probes and the metrics say of sources of entities, and of what is fetched from them."""

from __future__ import annotations

from collections import Counter as Tally
from collections.abc import Callable
from typing import TYPE_CHECKING

from gateway.front.endpoints import Dependency
from gateway.observability.metrics import Counter, Metrics

if TYPE_CHECKING:  # a gateway without policies does without their code
    from gateway.front.deciding import Deciding
    from gateway.policy.attribute_follower import AttributeState
    from gateway.policy.attributes import AttributePrefetcher

AskDeciding = Callable[[], "Deciding | None"]
"""Gives what decides beyond the hot path; None: there are no policies."""


def source_dependencies(deciding: Deciding | None) -> dict[str, Dependency]:
    """Show each source that is followed; one that is down leaves the gateway ready.

    Only what rests on its entities is refused then, and says why.
    """
    if deciding is None or deciding.prefetcher is None:
        return {}
    return {f"source {state.name}": _dependency(state) for state in deciding.prefetcher.states()}


def _dependency(state: AttributeState) -> Dependency:
    detail: dict[str, object] = {"revision": state.revision, "shared": state.shared}
    if state.behind_s is not None:
        detail["behind_s"] = round(state.behind_s, 3)
    if state.error:
        detail["error"] = state.error
    if state.damaged:
        detail["damaged"] = state.damaged
    return Dependency(state.status, state.status != "starting", detail)


class SourceFigures:
    """Moves what prefetcher and cache of decisions count by themselves into the shared metrics. Callable."""

    def __init__(self, metrics: Metrics, deciding: AskDeciding) -> None:
        self._metrics = metrics
        self._deciding = deciding
        self._counted: Deciding | None = None  # what the totals are of; a reload may bring another one
        self._counters: dict[tuple[str, ...], Counter] = {}

    def __call__(self) -> None:
        deciding = self._deciding()
        if deciding is not self._counted:
            self._counted = deciding
            for counter in self._counters.values():
                counter.follow(0)
        self._sample_sources(None if deciding is None else deciding.prefetcher)
        if deciding is not None:
            self._sample_decisions(deciding)

    def _sample_sources(self, prefetcher: AttributePrefetcher | None) -> None:
        up = prefetcher is None or all(state.trusted for state in prefetcher.states())
        self._metrics.gauge("attribute_sources_up").set(int(up))
        if prefetcher is None:
            self._metrics.gauge("attributes_resident").set(0)
            return
        stats = prefetcher.stats()
        self._metrics.gauge("attributes_resident").set(stats.resident)
        self._follow(stats.with_io, "attribute_waits_total")
        self._follow(stats.reads, "attribute_reads_total")
        self._follow(stats.bytes, "attribute_bytes_total")
        self._follow(stats.fetched, "attributes_fetched_total", known="true")
        self._follow(stats.absent, "attributes_fetched_total", known="false")
        self._follow(stats.changed, "attributes_dropped_total", why="changed")
        self._follow(stats.expired, "attributes_dropped_total", why="expired")
        self._follow(stats.evicted, "attributes_dropped_total", why="evicted")
        by_reason: Tally[str] = Tally()
        for (_, why), count in stats.failures.items():
            by_reason[why] += count
        for reason, count in by_reason.items():
            self._follow(count, "attribute_failures_total", reason=reason)

    def _sample_decisions(self, deciding: Deciding) -> None:
        stats = deciding.cache.stats()
        self._metrics.gauge("decision_cache_entries").set(stats.entries)
        self._follow(stats.l1_stale, "decision_cache_stale_total")
        levels = {"made": stats.made, "fetched": stats.fetched, "l1": stats.l1_hits, "l2": stats.l2_hits}
        for level, count in levels.items():
            self._follow(count, "decisions_answered_total", level=level)

    def _follow(self, total: int, name: str, **labels: str) -> None:
        key = (name, *labels.values())
        if key not in self._counters:
            self._counters[key] = self._metrics.counter(name, **labels)
            self._counters[key].follow(0)
        self._counters[key].follow(total)
