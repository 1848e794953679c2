"""The Prometheus text format 0.0.4 of all workers' metrics, written by whichever process is asked.

Counters and histograms are summed over all blocks, those of dead workers included, so they never go back. Gauges speak
of living workers only, and are put together as the catalogue says. Histograms are exposed with one bucket a power of
two; the blocks hold four.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from gateway.observability.catalogue import HISTOGRAM_BUCKETS, ISSUERS_MAX, Metric
from gateway.observability.metrics import MetricsMap

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
PREFIX = "portcullis_"

# ORDER HISTOGRAM: each fourth bucket ends at a power of two of 1 µs.
_BOUNDS = tuple(f"{2**octave / 1e6:.12g}" for octave in range((HISTOGRAM_BUCKETS - 2) // 4 + 1))
_TICKS_PER_S = os.sysconf("SC_CLK_TCK")

Labels = Sequence[tuple[str, str]]


def escape_label(value: str) -> str:
    """Escape a label's value: backslash, quote and line feed."""
    return value.replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n")


def escape_help(text: str) -> str:
    """Escape a help text: backslash and line feed."""
    return text.replace("\\", r"\\").replace("\n", r"\n")


def _series(name: str, labels: Labels) -> str:
    if not labels:
        return PREFIX + name
    inside = ",".join(f'{label}="{escape_label(value)}"' for label, value in labels)
    return f"{PREFIX}{name}{{{inside}}}"


def _head(name: str, help_text: str, kind: str) -> Iterator[str]:
    yield f"# HELP {PREFIX}{name} {escape_help(help_text)}"
    yield f"# TYPE {PREFIX}{name} {kind}"


def _histogram(name: str, labels: Labels, slots: Sequence[int]) -> Iterator[str]:
    counted, next_bucket = 0, 0
    for octave, bound in enumerate(_BOUNDS):
        end = 4 * octave + 1
        counted += sum(slots[next_bucket:end])
        next_bucket = end
        yield f"{_series(f'{name}_bucket', (*labels, ('le', bound)))} {counted}"
    counted += sum(slots[next_bucket:HISTOGRAM_BUCKETS])
    yield f"{_series(f'{name}_bucket', (*labels, ('le', '+Inf')))} {counted}"
    yield f"{_series(f'{name}_sum', labels)} {slots[HISTOGRAM_BUCKETS] / 1e9!r}"
    yield f"{_series(f'{name}_count', labels)} {counted}"


def _aggregate(metric: Metric, values: Sequence[int]) -> int:
    match metric.aggregation:
        case "max":
            return max(values, default=0)
        case "min":
            return min(values, default=0)
        case "oldest":
            return min((value for value in values if value), default=0)
        case _:
            return sum(values)


class _Snapshot:
    """All blocks, copied once."""

    def __init__(self, metrics_map: MetricsMap) -> None:
        self.layout = metrics_map.layout
        self.blocks = [metrics_map.values(worker) for worker in range(metrics_map.workers)]
        self.pids = [metrics_map.pid(worker) for worker in range(metrics_map.workers)]
        self.living = [worker for worker, pid in enumerate(self.pids) if pid is not None]
        self.issuers = metrics_map.issuers()

    def lines(self, metric: Metric) -> Iterator[str]:
        yield from _head(metric.name, metric.help, metric.kind)
        # Row 0 collects what found no row: shown only when the table is full.
        first_row = 0 if len(self.issuers) == ISSUERS_MAX else 1
        rows = range(first_row, len(self.issuers)) if metric.by_issuer else range(1)
        for row in rows:
            issuer = (("issuer", self.issuers[row]),) if metric.by_issuer else ()
            for values in metric.series:
                labels = (*issuer, *zip(metric.labels, values, strict=True))
                slot = self.layout.slot(metric.name, values, row)
                yield from self._samples(metric, labels, slot)

    def _samples(self, metric: Metric, labels: Labels, slot: int) -> Iterator[str]:
        if metric.kind == "histogram":
            end = slot + self.layout.width(metric)
            slots = [sum(column) for column in zip(*(block[slot:end] for block in self.blocks), strict=True)]
            yield from _histogram(metric.name, labels, slots)
        elif metric.kind == "counter":
            yield f"{_series(metric.name, labels)} {sum(block[slot] for block in self.blocks)}"
        elif metric.aggregation == "worker":
            for worker in self.living:
                yield f"{_series(metric.name, (*labels, ('worker', str(worker))))} {self.blocks[worker][slot]}"
        else:
            value = _aggregate(metric, [self.blocks[worker][slot] for worker in self.living])
            yield f"{_series(metric.name, labels)} {value}"

    def processes(self) -> Iterator[str]:
        """Tell of the worker processes themselves what the kernel knows."""
        yield from _head("worker_up", "1 for a worker that is running.", "gauge")
        for worker, pid in enumerate(self.pids):
            yield f"{_series('worker_up', [('worker', str(worker))])} {int(pid is not None)}"
        usage = {worker: use for worker in self.living if (use := process_usage(self.pids[worker] or 0)) is not None}
        yield from _head("worker_resident_memory_bytes", "Resident memory of a worker.", "gauge")
        for worker, (_, resident_bytes) in usage.items():
            yield f"{_series('worker_resident_memory_bytes', [('worker', str(worker))])} {resident_bytes}"
        yield from _head("worker_cpu_seconds_total", "CPU time of a worker's present process.", "counter")
        for worker, (cpu_s, _) in usage.items():
            yield f"{_series('worker_cpu_seconds_total', [('worker', str(worker))])} {cpu_s!r}"


def process_usage(pid: int) -> tuple[float, int] | None:
    """Give a process's CPU seconds and resident bytes, or None when it is gone (proc(5), /proc/pid/stat)."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return None
    # The command may hold spaces and parentheses: the numbered fields begin after the last `)`, with field 3.
    fields = text[text.rindex(")") + 2 :].split()
    return (int(fields[11]) + int(fields[12])) / _TICKS_PER_S, int(fields[21]) * os.sysconf("SC_PAGESIZE")


def exposition(metrics_map: MetricsMap, build: Mapping[str, str]) -> str:
    """Write all metrics as text; `build` gives the labels of `build_info` (version, python, libcrypto)."""
    snapshot = _Snapshot(metrics_map)
    lines = [*_head("build_info", "What runs here; always 1.", "gauge")]
    lines.append(f"{_series('build_info', list(build.items()))} 1")
    lines += snapshot.processes()
    for metric in metrics_map.layout.metrics.values():
        lines += snapshot.lines(metric)
    return "\n".join(lines) + "\n"
