"""The bars that the gateway is held to, as ratios within one run, and the verdict on each."""

from __future__ import annotations

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

    def holds(self, value: float) -> bool:
        return value >= self.bound if self.relation == "≥" else value <= self.bound


class Verdicts:
    """Bars, asked of one run's figures. What was not measured has no verdict, and is said so."""

    def __init__(self, bars: Sequence[Bar], measured: Any) -> None:
        self._rows: list[tuple[Bar, float | None]] = []
        for bar in bars:
            try:
                self._rows.append((bar, bar.figure(measured)))
            except (NotMeasured, KeyError):
                self._rows.append((bar, None))

    def print(self) -> None:
        rows = []
        for bar, value in self._rows:
            mark = "not measured" if value is None else "✓" if bar.holds(value) else "✗"
            shown = "" if value is None else f"{value:.2f} {bar.unit}"
            rows.append([bar.name, f"{bar.relation} {bar.bound:g} {bar.unit}", shown, mark])
        print_table("bars", ("", "bar", "measured", ""), rows)

    def as_json(self) -> list[dict[str, object]]:
        return [
            {
                "name": bar.name,
                "bar": f"{bar.relation} {bar.bound:g} {bar.unit}",
                "measured": value,
                "holds": None if value is None else bar.holds(value),
            }
            for bar, value in self._rows
        ]

    def all_hold(self) -> bool:
        return all(value is not None and bar.holds(value) for bar, value in self._rows)


INLINE, PUBLIC = "Portcullis, inline answers", "Portcullis, public interface"
HAPROXY, ENVOY, ENVOY_CACHE = "HAProxy jwt_verify", "Envoy jwt_authn", "Envoy jwt_authn, JWT cache"
SAME, DISTINCT, BAD = "same token", "10,000 tokens", "bad signatures"

Measured = Mapping[tuple[str, str, str], Any]


def _ratio(ours: str, peer: str, door: str, workload: str) -> Callable[[Measured], float]:
    def figure(measured: Measured) -> float:
        mine, theirs = measured[ours, door, workload], measured[peer, door, workload]
        value: float = mine.median("requests_per_s") / theirs.median("requests_per_s")
        return value

    return figure


def _better_proxy(peer: str) -> Callable[[Measured], float]:
    def figure(measured: Measured) -> float:
        found = [_ratio(ours, peer, "proxy", SAME) for ours in (INLINE, PUBLIC) if (ours, "proxy", SAME) in measured]
        if not found:
            raise NotMeasured
        return max(each(measured) for each in found)

    return figure


def _memory(measured: Measured) -> float:
    """One worker against one worker, both with the 10,000 tokens in their caches."""
    mine, theirs = measured[INLINE, "forward", DISTINCT], measured[ENVOY_CACHE, "forward", DISTINCT]
    value: float = mine.median("worker_rss_mb") / theirs.median("worker_rss_mb")
    return value


JOURNEY_BARS = (
    Bar("forward-auth, same token, public interface / Envoy with JWT cache", "≥", 1.05,
        _ratio(PUBLIC, ENVOY_CACHE, "forward", SAME)),
    Bar("forward-auth, same token, public interface / HAProxy", "≥", 1.9, _ratio(PUBLIC, HAPROXY, "forward", SAME)),
    Bar("forward-auth, same token, inline / Envoy with JWT cache", "≥", 1.4,
        _ratio(INLINE, ENVOY_CACHE, "forward", SAME)),
    Bar("forward-auth, same token, inline / HAProxy", "≥", 2.5, _ratio(INLINE, HAPROXY, "forward", SAME)),
    Bar("forward-auth, 10,000 tokens, public interface / Envoy with JWT cache", "≥", 1.15,
        _ratio(PUBLIC, ENVOY_CACHE, "forward", DISTINCT)),
    Bar("forward-auth, 10,000 tokens, inline / Envoy with JWT cache", "≥", 1.6,
        _ratio(INLINE, ENVOY_CACHE, "forward", DISTINCT)),
    Bar("forward-auth, bad signatures, inline / HAProxy", "≥", 0.95, _ratio(INLINE, HAPROXY, "forward", BAD)),
    Bar("forward-auth, bad signatures, inline / Envoy", "≥", 1.1, _ratio(INLINE, ENVOY, "forward", BAD)),
    Bar("forward-auth, bad signatures, public interface / HAProxy", "≥", 0.95,
        _ratio(PUBLIC, HAPROXY, "forward", BAD)),
    Bar("forward-auth, bad signatures, public interface / Envoy", "≥", 1.1, _ratio(PUBLIC, ENVOY, "forward", BAD)),
    Bar("proxy door, same token / Envoy with JWT cache", "≥", 1.2, _better_proxy(ENVOY_CACHE)),
    Bar("proxy door, same token / HAProxy", "≥", 1.4, _better_proxy(HAPROXY)),
    Bar("memory of one worker with 10,000 cached tokens / Envoy's", "≤", 0.6, _memory),
)  # fmt: skip


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
