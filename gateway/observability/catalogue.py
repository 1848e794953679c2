"""Every metric of the gateway in one table, and the slot that each of its series has in a worker's block.

Label values are bounded: listed here, handed in by the composition root (doors, reasons), or, for issuers, rows of a
table in the shared map that holds at most ISSUERS_MAX names. Never a subject, a path, a key id or anything else that a
client chooses.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Literal

from gateway.config import PoolsConfig

# ORDER HISTOGRAM: `_native/metrics.pxd` holds the same layout; a test compares them.
HISTOGRAM_BUCKETS = 98
HISTOGRAM_SLOTS = HISTOGRAM_BUCKETS + 1  # the buckets, then the sum in ns

ISSUERS_MAX = 64  # rows of the shared table of issuers; row 0 takes all that do not fit
OTHER = "other"  # the name of row 0

Kind = Literal["counter", "gauge", "histogram"]
Aggregation = Literal[
    "sum",  # over workers
    "max",
    "min",
    "oldest",  # the smallest that is not 0: for time stamps that are 0 until something happened
    "worker",  # one series a worker
]

ASK_KINDS = ("kid_unknown", "opaque", "keys_unavailable")
ATTRIBUTE_FAILURES = (
    "unavailable",
    "too_slow",
    "untrusted",
    "invalid",
    "no_source",
    "too_many",
    "too_deep",
    "internal",
)
DECISION_LEVELS = ("made", "fetched", "l1", "l2")
UPSTREAM_FAULTS = ("unreachable", "protocol", "timeout", "busy", "client_gone")
KEY_STATES = ("starting", "ok", "stale", "unavailable")
REVOCATION_KINDS = ("jti", "sub", "sid")
LIMITS = (
    "token_bytes",
    "header_bytes",
    "header_count",
    "path_bytes",
    "body_bytes",
    "body_timeout",
    "jwks_bytes",
    "jwks_min_refresh",
    "introspection_entries",
    "revocation_entries",
    "upstream_connections",
    "upstream_head_bytes",
    "log_buffer",
)
POOLS = PoolsConfig.__struct_fields__
SHARES = (*POOLS, "background")  # of permits
RESOURCES = ("external_calls", "db_connections", "redis_connections")
BREAKERS = ("database", "cache", "external_idp", "attribute_source")
BREAKER_STATES = ("closed", "half_open", "open")
DEPENDENCIES = ("database", "cache", "external_idp", "policy_engine")
LOGS = ("access", "audit", "decisions")
OUTCOMES = ("ok", "error")
LOGIN_METHODS = ("password", "totp", "recovery", "passkey", "sso", "change", "device")
LOGIN_OUTCOMES = ("success", "more", "failure", "throttled")
TOKEN_GRANTS = ("authorization_code", "client_credentials", "refresh_token", "other")
TOKEN_OUTCOMES = ("success", "refused", "error")
STORE_SERVERS = ("redis", "postgres_primary", "postgres_replica")  # what connections of stores lead to
CONNECTION_STATES = ("open", "busy", "waiting")


@dataclass(frozen=True, slots=True)
class Metric:
    """One family of the exposition. `series` lists the values of its labels, once for each issuer with `by_issuer`."""

    name: str  # without the prefix
    help: str
    kind: Kind
    labels: tuple[str, ...] = ()
    series: tuple[tuple[str, ...], ...] = ((),)
    by_issuer: bool = False  # `issuer` is one more label, before the others
    aggregation: Aggregation = "sum"  # counters and histograms are always summed, dead workers included

    def __post_init__(self) -> None:
        if any(len(values) != len(self.labels) for values in self.series):
            raise ValueError(f"a series of `{self.name}` has not one value a label")
        if self.kind != "gauge" and self.aggregation != "sum":
            raise ValueError(f"`{self.name}` can only be summed")
        if (self.kind == "counter") != self.name.endswith("_total"):
            raise ValueError(f"`{self.name}`: counters, and only they, end in _total")


def _each(*values: Iterable[str]) -> tuple[tuple[str, ...], ...]:
    return tuple(product(*values))


def decision_of(reason: str) -> str:
    """Give the decision that a reason stands for: `allow`, `unavailable` (503, 500) or `deny`."""
    if reason == "ok":
        return "allow"
    return "unavailable" if reason.endswith("_unavailable") or reason == "internal_error" else "deny"


def catalogue(doors: Sequence[str], reasons: Sequence[str]) -> tuple[Metric, ...]:
    """List all metrics; empty reasons are gaps in the numbering and left out."""
    decisions = tuple((door, decision_of(reason), reason) for door in doors for reason in reasons if reason)
    return (
        Metric("decisions_total", "Verdicts given at the doors.", "counter", ("door", "decision", "reason"), decisions),
        Metric(
            "request_duration_seconds",
            "From the first byte of a request that the gateway sees to its verdict, or to the end of the answer where "
            "it came from an upstream.",
            "histogram",
            ("door",),
            _each(doors),
        ),
        Metric("requests_in_flight", "Requests that wait for an upstream, a key set or an introspection.", "gauge"),
        Metric(
            "asks_total", "Requests that the hot path could not judge alone.", "counter", ("kind",), _each(ASK_KINDS)
        ),
        Metric("token_verify_seconds", "Judging a token that was not in the cache.", "histogram"),
        Metric("token_cache_hits_total", "Tokens found in the cache and still good.", "counter"),
        Metric("token_cache_misses_total", "Tokens that had to be verified.", "counter"),
        Metric("token_cache_evictions_total", "Tokens that made room for others.", "counter"),
        Metric("token_cache_entries", "Tokens in the caches of all workers.", "gauge"),
        Metric("token_structure_hits_total", "Token headers found parsed.", "counter"),
        Metric(
            "jwks_state",
            "Workers that see an issuer's key set in this state.",
            "gauge",
            ("state",),
            _each(KEY_STATES),
            by_issuer=True,
        ),
        Metric("jwks_keys", "Usable keys of an issuer.", "gauge", by_issuer=True, aggregation="max"),
        Metric(
            "jwks_fetched_timestamp_seconds",
            "When the worker with the oldest key set of an issuer fetched it.",
            "gauge",
            by_issuer=True,
            aggregation="oldest",
        ),
        Metric(
            "jwks_refreshes_total",
            "Fetches of an issuer's key set.",
            "counter",
            ("outcome",),
            _each(OUTCOMES),
            by_issuer=True,
        ),
        Metric(
            "introspections_total",
            "Opaque tokens that were asked about at their issuer.",
            "counter",
            ("outcome",),
            _each(("active", "inactive", "error")),
            by_issuer=True,
        ),
        Metric(
            "revocations_total", "Revocations learned from the store.", "counter", ("kind",), _each(REVOCATION_KINDS)
        ),
        Metric("revocations", "Revocations in force.", "gauge", aggregation="max"),
        Metric("store_up", "1 where every worker follows the store of revocations.", "gauge", aggregation="min"),
        Metric(
            "relations_up",
            "1 where every worker may decide by its relations, or has none.",
            "gauge",
            aggregation="min",
        ),
        Metric("relation_changes_total", "Changes of relations that workers took in.", "counter"),
        Metric("relation_readings_total", "Times that a worker read all relations.", "counter"),
        Metric("relations_expired_total", "Relations that workers dropped because they had expired.", "counter"),
        Metric("relations_damaged_total", "Relations in the store that cannot be read.", "counter"),
        Metric("relations_ignored_total", "Changes of relations that the schema has no place for.", "counter"),
        *_attributes(),
        *_resilience(),
        *_stores(),
        Metric(
            "logins_total",
            "Proofs that users gave, and what came of them.",
            "counter",
            ("method", "outcome"),
            _each(LOGIN_METHODS, LOGIN_OUTCOMES),
        ),
        Metric(
            "token_requests_total",
            "Requests for tokens of ours, and what came of them.",
            "counter",
            ("grant", "outcome"),
            _each(TOKEN_GRANTS, TOKEN_OUTCOMES),
        ),
        Metric("upstream_requests_total", "Requests sent upstream.", "counter"),
        Metric(
            "upstream_faults_total",
            "Requests that failed between the proxy door and the upstream's answer.",
            "counter",
            ("kind",),
            _each(UPSTREAM_FAULTS),
        ),
        Metric("upstream_connections_opened_total", "Connections made to upstreams.", "counter"),
        Metric("upstream_connections", "Open connections to upstreams.", "gauge", ("state",), _each(("busy", "idle"))),
        Metric("websocket_connections", "Open WebSocket connections.", "gauge"),
        Metric(
            "limits_hit_total", "Input or work refused or dropped by a limit.", "counter", ("limit",), _each(LIMITS)
        ),
        Metric("log_lines_total", "Log lines written.", "counter", ("log",), _each(LOGS)),
        Metric("log_lines_dropped_total", "Log lines that found the buffer full.", "counter", ("log",), _each(LOGS)),
        Metric("audit_events_total", "Events written to the audit log, durably.", "counter"),
        Metric("audit_events_dropped_total", "Events that the audit log will never have.", "counter"),
        Metric("audit_events_waiting", "Events that wait to be written to the audit log.", "gauge"),
        Metric("audit_write_failures_total", "Attempts to write to the audit log that failed.", "counter"),
        Metric("config_reloads_total", "Reloads of the configuration.", "counter", ("outcome",), _each(OUTCOMES)),
        Metric("worker_starts_total", "Starts of a worker process.", "counter"),
        Metric("worker_start_timestamp_seconds", "When a worker started.", "gauge", aggregation="worker"),
    )


def _attributes() -> tuple[Metric, ...]:
    """List what tells of entities that are kept in sources."""
    return (
        Metric(
            "attribute_sources_up",
            "1 where every worker follows all sources of entities that have a log, or has none.",
            "gauge",
            aggregation="min",
        ),
        Metric("attributes_resident", "Entities of sources that workers have at hand.", "gauge"),
        Metric("attribute_waits_total", "Decisions that waited for a source of entities.", "counter"),
        Metric("attribute_reads_total", "Questions to sources of entities.", "counter"),
        Metric("attribute_bytes_total", "What sources of entities answered, in bytes.", "counter"),
        Metric(
            "attributes_fetched_total",
            "Entities that sources were asked for, by whether they knew them.",
            "counter",
            ("known",),
            _each(("true", "false")),
        ),
        Metric(
            "attributes_dropped_total",
            "Entities of sources that workers let go, and why.",
            "counter",
            ("why",),
            _each(("changed", "expired", "evicted")),
        ),
        Metric(
            "attribute_failures_total",
            "Decisions that were denied because entities could not be had, and why.",
            "counter",
            ("reason",),
            _each(ATTRIBUTE_FAILURES),
        ),
        Metric(
            "decisions_answered_total",
            "Decisions beyond the hot path, by how they were come by.",
            "counter",
            ("level",),
            _each(DECISION_LEVELS),
        ),
        Metric("decision_cache_entries", "Decisions that workers keep.", "gauge"),
        Metric("decision_cache_stale_total", "Kept decisions that something changed under.", "counter"),
    )


def _stores() -> tuple[Metric, ...]:
    """List what tells of the connections to databases and Redis."""
    return (
        Metric(
            "store_connections",
            "Connections to servers of stores: open, busy among them, and calls that wait for one.",
            "gauge",
            ("server", "state"),
            _each(STORE_SERVERS, CONNECTION_STATES),
        ),
        Metric(
            "store_connections_max",
            "Connections that the pools to the servers in use may have.",
            "gauge",
            ("server",),
            _each(STORE_SERVERS),
        ),
        Metric(
            "store_replica_lag_bytes",
            "What the PostgreSQL replica that is most behind lacked of its primary's log, at the last look.",
            "gauge",
            aggregation="max",
        ),
        Metric(
            "store_unreplicated_total",
            "Revocations and jobs that no replica of a Redis Cluster had confirmed in time.",
            "counter",
        ),
    )


def _resilience() -> tuple[Metric, ...]:
    """List what tells of pools, permits, breakers, retries, health and degradation."""
    pool, share = ("pool",), ("resource", "pool")
    permits = _each(RESOURCES, SHARES)
    return (
        Metric("pool_running", "Work that runs in a pool.", "gauge", pool, _each(POOLS)),
        Metric("pool_waiting", "Work that waits for its turn in a pool.", "gauge", pool, _each(POOLS)),
        Metric("pool_size", "Work that a pool may have, running and waiting.", "gauge", pool, _each(POOLS)),
        Metric("pool_entered_total", "Work that a pool let in.", "counter", pool, _each(POOLS)),
        Metric(
            "pool_refused_total",
            "Work that was refused: the pool was full, its turn did not come in time, or a queue stood.",
            "counter",
            ("pool", "reason"),
            _each(POOLS, ("full", "waited", "shed")),
        ),
        Metric("permits", "Permits of a pool's share of a resource.", "gauge", share, permits),
        Metric("permits_in_use", "Permits that are taken.", "gauge", share, permits),
        Metric("permits_waiting", "Work that waits for a permit.", "gauge", share, permits),
        Metric("permits_refused_total", "Work that got no permit in time.", "counter", share, permits),
        Metric(
            "breakers",
            "Breakers of a dependency that are in this state.",
            "gauge",
            ("dependency", "state"),
            _each(BREAKERS, BREAKER_STATES),
        ),
        Metric(
            "breaker_transitions_total",
            "Changes of a breaker to this state.",
            "counter",
            ("dependency", "state"),
            _each(BREAKERS, BREAKER_STATES),
        ),
        Metric(
            "breaker_refused_total",
            "Calls that were not made because a breaker was open.",
            "counter",
            ("dependency",),
            _each(BREAKERS),
        ),
        Metric(
            "retries_total",
            "Calls that were repeated, and that were not for want of budget.",
            "counter",
            ("dependency", "outcome"),
            _each(BREAKERS, ("spent", "denied")),
        ),
        Metric("dependency_down", "Workers that see a dependency down.", "gauge", ("dependency",), _each(DEPENDENCIES)),
        Metric("dependency_slow", "Workers that see a dependency slow.", "gauge", ("dependency",), _each(DEPENDENCIES)),
        Metric(
            "degradation_level",
            "0 normal, 1 essential, 2 cached, 3 emergency: of the worker that is worst off.",
            "gauge",
            aggregation="max",
        ),
        Metric("hash_threads_busy", "Threads that compute a password hash.", "gauge"),
        Metric("hash_waiting", "Passwords that wait for a thread.", "gauge"),
        Metric("hash_refused_total", "Passwords that got no thread in time.", "counter"),
        Metric("abandoned_calls", "Calls that were given up and have not ended.", "gauge"),
    )


class Layout:
    """The slots of one block: a number for each series, the same in every process that has the same catalogue."""

    __slots__ = ("_first", "_index", "fingerprint", "metrics", "slot_count")

    def __init__(self, metrics: Sequence[Metric]) -> None:
        self.metrics: Mapping[str, Metric] = {metric.name: metric for metric in metrics}
        if len(self.metrics) != len(metrics):
            raise ValueError("two metrics have one name")
        self._first: dict[str, int] = {}
        self._index: dict[str, dict[tuple[str, ...], int]] = {}
        slot = 0
        for metric in metrics:
            self._first[metric.name] = slot
            self._index[metric.name] = {values: index for index, values in enumerate(metric.series)}
            rows = ISSUERS_MAX if metric.by_issuer else 1
            slot += rows * len(metric.series) * self.width(metric)
        self.slot_count = slot
        described = repr([(m.name, m.kind, m.labels, m.series, m.by_issuer) for m in metrics])
        self.fingerprint = hashlib.sha256(described.encode()).digest()

    @staticmethod
    def width(metric: Metric) -> int:
        """Give how many slots one series takes."""
        return HISTOGRAM_SLOTS if metric.kind == "histogram" else 1

    def slot(self, name: str, values: tuple[str, ...] = (), issuer_row: int = 0) -> int:
        """Give the (first) slot of a series; raises KeyError for a name or a label value that is not in the table."""
        metric = self.metrics[name]
        try:
            index = self._index[name][values]
        except KeyError:
            raise KeyError(f"`{name}` has no series {values!r}") from None
        if not 0 <= issuer_row < (ISSUERS_MAX if metric.by_issuer else 1):
            raise KeyError(f"`{name}` has no row {issuer_row}")
        return self._first[name] + (issuer_row * len(metric.series) + index) * self.width(metric)
