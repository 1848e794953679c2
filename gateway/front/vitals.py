"""How a worker is: what its probes say, and the figures that it keeps elsewhere, brought into the metrics."""

from __future__ import annotations

import platform
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING

from gateway import __version__
from gateway._native import verify
from gateway._native.token import TokenValidator
from gateway._native.upstream import UpstreamPool
from gateway.front.endpoints import Dependency
from gateway.front.resilience_vitals import health_dependencies, resilience_detail
from gateway.front.source_vitals import AskDeciding, source_dependencies
from gateway.observability.exposition import exposition
from gateway.observability.metrics import Counter, Metrics
from gateway.resilience import Resilience
from gateway.tokens.control import ControlState
from gateway.tokens.jwks import IssuerState

if TYPE_CHECKING:  # a gateway without policies does without their code
    from gateway.policy.relation_follower import RelationFollower, RelationState

_KEY_STATES = ("starting", "ok", "stale", "unavailable")
_REVOCATION_STATES = {"ok": "ok", "degraded": "degraded", "starting": "starting"}


def issuer_dependency(state: IssuerState) -> Dependency:
    """Show an issuer's keys; one that is down leaves the gateway ready, or it would be unready everywhere at once."""
    detail: dict[str, object] = {"keys": state.keys}
    if state.age_s is not None:
        detail["age_s"] = round(state.age_s, 1)
    if state.error:
        detail["error"] = state.error
    if state.faults:
        detail["faults"] = list(state.faults)
    return Dependency(state.status, state.status != "starting", detail)


def relations_dependency(state: RelationState) -> Dependency:
    """Show relations; a store that is down leaves the gateway ready, or it would be unready everywhere at once.

    Only what can depend on relations is refused then, and says why.
    """
    detail: dict[str, object] = {"revision": state.revision, "shared": state.shared}
    if state.behind_s is not None:
        detail["behind_s"] = round(state.behind_s, 3)
    if state.error:
        detail["error"] = state.error
    for name in ("damaged", "ignored"):
        if count := getattr(state, name):
            detail[name] = count
    return Dependency(state.status, state.status != "starting", detail)


def dependencies_of(state: ControlState, relations: RelationState | None = None) -> dict[str, Dependency]:
    """Show everything that verdicts depend on."""
    revocations = state.revocations
    shown = {f"issuer {issuer.issuer}": issuer_dependency(issuer) for issuer in state.issuers}
    name = _REVOCATION_STATES.get(revocations.status, revocations.status)
    detail: dict[str, object] = {"error": revocations.error} if revocations.error else {}
    shown["revocations"] = Dependency(name, revocations.trusted, detail)
    if relations is not None:
        shown["relations"] = relations_dependency(relations)
    return shown


class Figures:
    """Moves what validator, control plane and pools count by themselves into the shared metrics. Callable."""

    def __init__(
        self,
        metrics: Metrics,
        validator: Callable[[], TokenValidator],
        control: Callable[[], ControlState],
        pools: Callable[[], Iterable[UpstreamPool]],
        relations: Callable[[], RelationFollower | None],
    ) -> None:
        self._metrics = metrics
        self._validator = validator
        self._control = control
        self._pools = pools
        self._relations = relations
        self._totals: dict[tuple[str, ...], int] = {}
        self._counters: dict[tuple[str, ...], Counter] = {}
        self._sources: dict[tuple[str, ...], int] = {}

    def __call__(self) -> None:
        self._sample_tokens()
        self._sample_control()
        self._sample_pools()
        self._sample_relations()

    def _follow(self, total: int, source: object, name: str, **labels: str) -> None:
        """Count what a total grew by; a new `source` (after a reload) begins at 0 again."""
        key = (name, *labels.values())
        counter = self._counters.get(key)
        if counter is None:
            counter = self._counters[key] = self._metrics.counter(name, **labels)
        if self._sources.get(key) != id(source):
            self._sources[key] = id(source)
            counter.follow(0)
        counter.follow(total)

    def _sample_tokens(self) -> None:
        validator = self._validator()
        stats = validator.stats()
        self._follow(stats["hits"], validator, "token_cache_hits_total")
        self._follow(stats["misses"], validator, "token_cache_misses_total")
        self._follow(stats["evictions"], validator, "token_cache_evictions_total")
        self._follow(stats["structure_hits"], validator, "token_structure_hits_total")
        self._metrics.gauge("token_cache_entries").set(stats["entries"])
        self._metrics.gauge("revocations").set(stats["revocations"])

    def _sample_control(self) -> None:
        state = self._control()
        for issuer in state.issuers:
            for name in _KEY_STATES:
                gauge = self._metrics.gauge("jwks_state", state=name, issuer=issuer.issuer)
                gauge.set(int(name == issuer.status))
            self._metrics.gauge("jwks_keys", issuer=issuer.issuer).set(issuer.keys)
        self._metrics.gauge("store_up").set(int(state.revocations.trusted and not state.revocations.error))

    def _sample_pools(self) -> None:
        requests = opened = busy = idle = 0
        for pool in self._pools():
            stats = pool.stats()
            requests += stats["requests"]
            opened += stats["connects"]
            idle += stats["idle"]
            busy += stats["active"]
        self._follow(requests, None, "upstream_requests_total")
        self._follow(opened, None, "upstream_connections_opened_total")
        self._metrics.gauge("upstream_connections", state="busy").set(busy)
        self._metrics.gauge("upstream_connections", state="idle").set(idle)

    def _sample_relations(self) -> None:
        follower = self._relations()
        self._metrics.gauge("relations_up").set(int(follower is None or follower.trusted))
        if follower is not None:
            state = follower.state()
            self._follow(state.changes, follower, "relation_changes_total")
            self._follow(state.expired, follower, "relations_expired_total")
            self._follow(state.resyncs, follower, "relation_readings_total")
            self._follow(state.damaged, follower, "relations_damaged_total")
            self._follow(state.ignored, follower, "relations_ignored_total")


class WorkerVitals:
    """What the probes of one worker answer."""

    def __init__(
        self,
        metrics: Metrics,
        control: Callable[[], ControlState],
        relations: Callable[[], RelationFollower | None],
        resilience: Resilience,
        deciding: AskDeciding,
    ) -> None:
        self._metrics = metrics
        self._deciding = deciding
        self._control = control
        self._relations = relations
        self._resilience = resilience
        self.draining = False

    @property
    def degradation_level(self) -> int:
        """The level in force: 0 to 3."""
        return self._resilience.degradation.current.level

    def dependencies(self) -> Mapping[str, Dependency]:
        follower = self._relations()
        known = dependencies_of(self._control(), None if follower is None else follower.state())
        sources = source_dependencies(self._deciding())
        return {**known, **sources, **health_dependencies(self._resilience.state())}

    def detail(self) -> Mapping[str, object]:
        """Give what `/readyz` shows besides dependencies."""
        return resilience_detail(self._resilience.state())

    def metrics_text(self) -> str:
        """Write all workers' metrics, with this worker's figures as of now."""
        self._metrics.sample()
        build = {
            "version": __version__,
            "python": platform.python_version(),
            "crypto": verify.BACKEND,
            "libcrypto": verify.LIBCRYPTO_VERSION,
        }
        return exposition(self._metrics.map, build)
