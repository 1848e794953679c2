"""The bars that the gateway is held to, as ratios within one run, and the verdict on each."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from bench.table import print_table


class NotMeasured(Exception):
    """A figure that a bar needs is not there: a peer was left out, or the run was for something else."""


@dataclass(frozen=True, slots=True)
class Bar:
    """One claim: `figure` of all that was measured must be at least, or at most, `bound`."""

    name: str
    relation: Literal["≥", "≤"]
    bound: float
    figure: Callable[[Any], float]
    unit: str = "×"
    by_cpu: Callable[[Any], float] | None = None  # the same ratio by CPU time, which a busy machine disturbs less

    def holds(self, value: float) -> bool:
        return value >= self.bound if self.relation == "≥" else value <= self.bound


def _asked(figure: Callable[[Any], float] | None, measured: Any) -> float | None:
    if figure is None:
        return None
    try:
        return figure(measured)
    except (NotMeasured, KeyError):
        return None


def _shown(value: float | None, unit: str) -> str:
    return "" if value is None else f"{value:,.0f} {unit}" if value >= 1000 else f"{value:.2f} {unit}"


class Verdicts:
    """Bars, asked of one run's figures. What was not measured has no verdict, and is said so."""

    def __init__(self, bars: Sequence[Bar], measured: Any) -> None:
        self._rows = [(bar, _asked(bar.figure, measured), _asked(bar.by_cpu, measured)) for bar in bars]

    def print(self) -> None:
        with_cpu = any(by_cpu is not None for _, _, by_cpu in self._rows)
        rows = []
        for bar, value, by_cpu in self._rows:
            mark = "not measured" if value is None else "✓" if bar.holds(value) else "✗"
            row = [bar.name, f"{bar.relation} {bar.bound:,.6g} {bar.unit}", _shown(value, bar.unit), mark]
            rows.append([*row, _shown(by_cpu, bar.unit)] if with_cpu else row)
        print_table("bars", ("", "bar", "measured", "", *(["by CPU time"] if with_cpu else [])), rows)

    def as_json(self) -> list[dict[str, object]]:
        return [
            {
                "name": bar.name,
                "bar": f"{bar.relation} {bar.bound:g} {bar.unit}",
                "measured": value,
                "holds": None if value is None else bar.holds(value),
                "by_cpu": by_cpu,
            }
            for bar, value, by_cpu in self._rows
        ]

    def all_hold(self) -> bool:
        return all(value is not None and bar.holds(value) for bar, value, _ in self._rows)


INLINE, PUBLIC = "Portcullis, inline answers", "Portcullis, public interface"
POLICY = "Portcullis, inline answers, policy"
HAPROXY, ENVOY, ENVOY_CACHE = "HAProxy jwt_verify", "Envoy jwt_authn", "Envoy jwt_authn, JWT cache"
SAME, DISTINCT, BAD = "same token", "10,000 tokens", "bad signatures"

Measured = Mapping[tuple[str, str, str], Any]


def _requests(mine: Any, theirs: Any) -> float:
    value: float = mine.median("requests_per_s") / theirs.median("requests_per_s")
    return value


def _cpu(mine: Any, theirs: Any) -> float:
    value: float = theirs.median("cpu_us") / mine.median("cpu_us")
    return value


def _paired(name: str, bound: float, door: str, workload: str) -> Bar:
    """Make a bar for the gateway with policies beside itself without, each pair of runs compared for itself."""

    def by(compare: Callable[[Any, Any, int], float]) -> Callable[[Measured], float]:
        def figure(measured: Measured) -> float:
            mine, theirs = measured[POLICY, door, workload], measured[INLINE, door, workload]
            runs = min(len(mine.cpu_us), len(theirs.cpu_us))
            return statistics.median(compare(mine, theirs, run) for run in range(runs))

        return figure

    return Bar(
        name,
        "≥",
        bound,
        by(lambda mine, theirs, run: mine.requests_per_s[run] / theirs.requests_per_s[run]),
        by_cpu=by(lambda mine, theirs, run: theirs.cpu_us[run] / mine.cpu_us[run]),
    )


def _faster(name: str, bound: float, ours: Sequence[str], peer: str, door: str, workload: str) -> Bar:
    """Make a bar for requests per second: the best of `ours` against a peer."""

    def by(compare: Callable[[Any, Any], float]) -> Callable[[Measured], float]:
        def figure(measured: Measured) -> float:
            theirs = measured[peer, door, workload]
            found = [
                compare(measured[mine, door, workload], theirs) for mine in ours if (mine, door, workload) in measured
            ]
            if not found:
                raise NotMeasured
            return max(found)

        return figure

    return Bar(name, "≥", bound, by(_requests), by_cpu=by(_cpu))


def _memory(measured: Measured) -> float:
    """One worker against one worker, both with the 10,000 tokens in their caches."""
    mine, theirs = measured[INLINE, "forward", DISTINCT], measured[ENVOY_CACHE, "forward", DISTINCT]
    value: float = mine.median("worker_rss_mb") / theirs.median("worker_rss_mb")
    return value


FORWARD = "forward-auth"
# What asking the policies costs a whole request, beside the same gateway that asks none.
DOOR_POLICY_BARS = (
    _paired(f"{FORWARD}, {SAME}, with policy / without", 0.9, "forward", SAME),
    _paired(f"{FORWARD}, {DISTINCT}, with policy / without", 0.9, "forward", DISTINCT),
    _paired(f"proxy door, {SAME}, with policy / without", 0.9, "proxy", SAME),
    _paired(f"proxy door, {DISTINCT}, with policy / without", 0.9, "proxy", DISTINCT),
)
JOURNEY_BARS = (
    _faster(f"{FORWARD}, {SAME}, public interface / Envoy, JWT cache", 1.05, [PUBLIC], ENVOY_CACHE, "forward", SAME),
    _faster(f"{FORWARD}, {SAME}, public interface / HAProxy", 1.9, [PUBLIC], HAPROXY, "forward", SAME),
    _faster(f"{FORWARD}, {SAME}, inline / Envoy, JWT cache", 1.4, [INLINE], ENVOY_CACHE, "forward", SAME),
    _faster(f"{FORWARD}, {SAME}, inline / HAProxy", 2.5, [INLINE], HAPROXY, "forward", SAME),
    _faster(
        f"{FORWARD}, {DISTINCT}, public interface / Envoy, JWT cache", 1.15, [PUBLIC], ENVOY_CACHE, "forward", DISTINCT
    ),
    _faster(f"{FORWARD}, {DISTINCT}, inline / Envoy, JWT cache", 1.6, [INLINE], ENVOY_CACHE, "forward", DISTINCT),
    _faster(f"{FORWARD}, {BAD}, inline / HAProxy", 0.95, [INLINE], HAPROXY, "forward", BAD),
    _faster(f"{FORWARD}, {BAD}, inline / Envoy", 1.1, [INLINE], ENVOY, "forward", BAD),
    _faster(f"{FORWARD}, {BAD}, public interface / HAProxy", 0.95, [PUBLIC], HAPROXY, "forward", BAD),
    _faster(f"{FORWARD}, {BAD}, public interface / Envoy", 1.1, [PUBLIC], ENVOY, "forward", BAD),
    _faster(f"proxy door, {SAME} / Envoy, JWT cache", 1.2, [INLINE, PUBLIC], ENVOY_CACHE, "proxy", SAME),
    _faster(f"proxy door, {SAME} / HAProxy", 1.4, [INLINE, PUBLIC], HAPROXY, "proxy", SAME),
    Bar("memory of one worker with 10,000 cached tokens / Envoy's", "≤", 0.6, _memory),
    *DOOR_POLICY_BARS,
)


def _named(name: str) -> Callable[[Mapping[str, float]], float]:
    return lambda measured: measured[name]


_CHEAP_REJECTS = ("garbage", "alg none", "unknown kid")
MICRO_BARS = (
    Bar("RS256, new token / bare libcrypto", "≤", 1.12, _named("new / bare libcrypto")),
    Bar("RS256, PyJWT / new token", "≥", 4.5, _named("PyJWT / new")),
    Bar("RS256, fastest Rust-backed library / new token", "≥", 1.6, _named("Rust / new")),
    Bar("the same token again", "≤", 0.30, _named("known µs"), "µs"),
    Bar("RS256, everything but the public-key operation", "≤", 1.2, _named("all but the signature µs"), "µs"),
    Bar("two threads with batches / one", "≥", 1.85, _named("two threads / one")),
    Bar("refusing an expired token, PyJWT / ours", "≥", 100, _named("reject expired")),
    Bar("refusing a wrong audience, PyJWT / ours", "≥", 100, _named("reject wrong audience")),
    *(Bar(f"refusing {name}, PyJWT / ours", "≥", 40, _named(f"reject {name}")) for name in _CHEAP_REJECTS),
    Bar("p99 of a new token / its median", "≤", 2, _named("p99 new / median")),
    Bar("p99 of a known token", "≤", 1.5, _named("p99 known µs"), "µs"),
)

_POLICY_WORKLOADS = ("gdrive", "github", "tinytodo", "source mix")
ZIPF_BARS = (
    Bar("Zipf 1.05, decided without I/O, cold start included", "≥", 90, _named("zipf: cold %"), "%"),
    Bar("Zipf 1.05, decided without I/O, steady", "≥", 99, _named("zipf: steady %"), "%"),
    Bar("Zipf 1.05, allows later than 250 ms after a revocation", "≤", 0, _named("zipf: stale"), "allows"),
    Bar("Zipf 1.05, denials by such revocations, each worker", "≥", 1, _named("zipf: denied"), "denials"),
)

_CORPUS = "shared corpus: validation, decision, reasons, errors"
POLICY_BARS = (
    *(Bar(name, "≥", 100, _named(name), "%") for name in (_CORPUS, "AuthZEN Todo")),
    Bar("equal to cedarpy's", "≥", 100_000, _named("generated requests equal to cedarpy's"), "requests"),
    *(Bar(f"{name}, cedarpy / ours", "≥", 50, _named(f"{name}: cedarpy / ours")) for name in _POLICY_WORKLOADS),
    *(Bar(f"{name}, cedarpy's core / ours", "≥", 20, _named(f"{name}: core / ours")) for name in _POLICY_WORKLOADS),
    *(Bar(f"{name}, the machine alone", "≤", 0.25, _named(f"{name}: machine µs"), "µs") for name in _POLICY_WORKLOADS),
    Bar("10,000 policies / 10", "≤", 2, _named("policies: most / fewest")),
    Bar("1,000,000 entities / 100, prepared", "≤", 2, _named("entities: most / fewest")),
    Bar("1,000,000 entities / 100, four arguments", "≤", 2, _named("entities: most / fewest, four arguments")),
    Bar("an entity", "≤", 400, _named("bytes an entity"), "bytes"),
    Bar("10,000 policies, compiled cold", "≤", 1500, _named("10,000 policies cold ms"), "ms"),
    Bar("one of 10,000 policies changed", "≤", 5, _named("one of 10,000 changed ms"), "ms"),
    Bar("10,000 policies from the bytecode cache", "≤", 100, _named("10,000 policies warm ms"), "ms"),
    Bar("a principal from claims", "≤", 0.5, _named("a principal from claims costs µs more"), "µs"),
    Bar("front door, token known + policy, 1 and 500 tokens", "≤", 1, _named("token known + policy: µs more"), "µs"),
    Bar("front door, the same, 10,000 tokens", "≤", 1, _named("token known + policy, of many: µs more"), "µs"),
    *DOOR_POLICY_BARS,
    Bar("relations, 675,000 tuples, p50", "≤", 1, _named("relations: p50 µs"), "µs"),
    Bar("relations, 675,000 tuples, p99", "≤", 3, _named("relations: p99 µs"), "µs"),
    *ZIPF_BARS,
)

FLOW_BARS = (
    Bar("forward-auth, session / token, requests a second", "≥", 0.8, _named("session / token")),
    Bar("log-in without argon2id, at 80 % of what the pool does with it, p99", "≤", 20, _named("login p99 ms"), "ms"),
    Bar("introspection, at 80 % of what it can do, p99", "≤", 10, _named("introspection p99 ms"), "ms"),
    Bar("SCIM flooded, log-in p99 / unflooded", "≤", 1.5, _named("scim: login p99 flooded / calm")),
    Bar("SCIM flooded, refused in other pools", "≤", 0, _named("scim: refused elsewhere"), "requests"),
    Bar("SCIM flooded, refused without Retry-After", "≤", 0, _named("scim: without Retry-After"), "requests"),
    Bar("SCIM flooded, refused there", "≥", 1, _named("scim: refused"), "requests"),
    *(
        bar
        for mode in ("hangs", "drips", "sends 1 GB", "resets")
        for bar in (
            Bar(f"provider {mode}: held beyond its deadline", "≤", 100, _named(f"{mode}: beyond deadline ms"), "ms"),
            Bar(f"provider {mode}: told at once when left alone, p99", "≤", 50, _named(f"{mode}: told ms"), "ms"),
            Bar(f"provider {mode}: other flows' p99 / with a good one", "≤", 1.2, _named(f"{mode}: p99 / good")),
        )
    ),
    *(
        bar
        for times in (2, 10)
        for bar in (
            Bar(f"{times} × overload, useful / capacity", "≥", 0.9, _named(f"{times} ×: useful / capacity")),
            Bar(f"{times} × overload, the slowest health probe", "≤", 100, _named(f"{times} ×: probe ms"), "ms"),
            Bar(f"{times} × overload, memory", "≤", 1.2, _named(f"{times} ×: memory")),
        )
    ),
)
