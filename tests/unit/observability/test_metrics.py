from __future__ import annotations

import math
import multiprocessing
import os
import signal
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway._native.metrics import MetricsBlock, histogram_bounds_ns
from gateway.observability.catalogue import (
    HISTOGRAM_BUCKETS,
    HISTOGRAM_SLOTS,
    ISSUERS_MAX,
    OTHER,
    Layout,
    Metric,
    catalogue,
    decision_of,
)
from gateway.observability.exposition import escape_help, escape_label, exposition, process_usage
from gateway.observability.metrics import (
    ISSUER_BYTES_MAX,
    WORKERS_MAX,
    Metrics,
    MetricsMap,
    MetricsUnusable,
    create_map,
)

ROOT = Path(__file__).resolve().parents[3]
parser = pytest.importorskip("prometheus_client.parser", reason="prometheus_client is absent")

DOORS = ("forward", "nginx", "envoy", "proxy")
REASONS = ("ok", "expired", "", "keys_unavailable")
LAYOUT = Layout(catalogue(DOORS, REASONS))
ISSUER = "https://idp.example.com"
DEADLINE_S = 30


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "metrics"
    create_map(path, LAYOUT, 3)
    return path


Start = Callable[..., Metrics]


@pytest.fixture
def start(path: Path) -> Iterator[Start]:
    """Give a function that starts a worker; all of them end with the test."""
    with ExitStack() as started:

        def start_worker(worker: int | None = None) -> Metrics:
            return started.enter_context(closing(Metrics(path, LAYOUT, MetricsBlock, worker)))

        yield start_worker


@pytest.fixture
def metrics(start: Start) -> Metrics:
    return start()


def read(path: Path) -> dict[tuple[str, frozenset[tuple[str, str]]], float]:
    """Parse the exposition with an independent parser; give each sample by its name and labels."""
    with MetricsMap(path, LAYOUT) as reader:
        text = exposition(reader, {"version": "1.2.3", "python": "3.11"})
    samples = {}
    for family in parser.text_string_to_metric_families(text):
        for sample in family.samples:
            key = (sample.name.removeprefix("portcullis_"), frozenset(sample.labels.items()))
            assert sample.name.startswith("portcullis_")
            assert key not in samples, f"{key} stands there twice"
            samples[key] = sample.value
    return samples


def value(path: Path, name: str, **labels: str) -> float | None:
    return read(path).get((name, frozenset(labels.items())))


def holder(path: Path, worker: int) -> int | None:
    with MetricsMap(path, LAYOUT) as reader:
        return reader.pid(worker)


def run(target: Any, *arguments: Any) -> Any:
    process = multiprocessing.get_context("fork").Process(target=target, args=arguments)
    process.start()
    return process


# -- the catalogue ----------------------------------------------------------------------------------------------------


def test_no_two_series_share_a_slot_and_none_lies_outside_the_block() -> None:
    taken: set[int] = set()
    for metric in LAYOUT.metrics.values():
        for row in range(ISSUERS_MAX if metric.by_issuer else 1):
            for values in metric.series:
                first = LAYOUT.slot(metric.name, values, row)
                slots = set(range(first, first + LAYOUT.width(metric)))
                assert not taken & slots
                taken |= slots
    assert taken == set(range(LAYOUT.slot_count))


def test_the_histogram_layout_is_the_compiled_ones() -> None:
    assert len(histogram_bounds_ns()) + 1 == HISTOGRAM_BUCKETS == HISTOGRAM_SLOTS - 1


def test_names_follow_the_conventions_of_prometheus() -> None:
    for metric in LAYOUT.metrics.values():
        assert not metric.name.startswith("portcullis_")
        assert metric.name == metric.name.lower()
        assert metric.help.endswith(".")
        assert (metric.kind == "counter") == metric.name.endswith("_total")
        assert not {"subject", "sub", "path", "kid", "token"} & set(metric.labels)


@pytest.mark.parametrize(
    ("name", "kind", "aggregation"),
    [("a_total", "gauge", "sum"), ("a", "counter", "sum"), ("a_total", "counter", "max")],
)
def test_a_metric_against_the_conventions_is_refused(name: str, kind: Any, aggregation: Any) -> None:
    with pytest.raises(ValueError, match=name):
        Metric(name, "Help.", kind, aggregation=aggregation)


def test_only_ok_is_an_allow() -> None:
    assert decision_of("ok") == "allow"
    assert decision_of("expired") == decision_of("") == decision_of("new_reason") == "deny"
    assert decision_of("keys_unavailable") == decision_of("internal_error") == "unavailable"


# -- the map ----------------------------------------------------------------------------------------------------------


def test_the_map_is_readable_by_its_user_only(path: Path) -> None:
    assert path.stat().st_mode & 0o777 == 0o600


def test_a_map_of_another_catalogue_is_refused(path: Path) -> None:
    with pytest.raises(MetricsUnusable, match="another version"):
        MetricsMap(path, Layout(catalogue(DOORS, (*REASONS, "new"))))


@pytest.mark.parametrize("content", [b"", b"PCMETR01", b"x" * 4096])
def test_a_file_that_is_no_map_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "metrics").write_bytes(content)
    with pytest.raises(MetricsUnusable):
        MetricsMap(tmp_path / "metrics", LAYOUT)


def test_an_absent_map_is_refused(tmp_path: Path) -> None:
    with pytest.raises(MetricsUnusable, match="cannot open"):
        MetricsMap(tmp_path / "metrics", LAYOUT)


@pytest.mark.parametrize("workers", [0, -1, WORKERS_MAX + 1])
def test_a_number_of_workers_out_of_bounds_is_refused(tmp_path: Path, workers: int) -> None:
    with pytest.raises(ValueError, match="workers"):
        create_map(tmp_path / "metrics", LAYOUT, workers)


def test_as_many_workers_as_the_bound_says_have_a_block(tmp_path: Path) -> None:
    small = Layout(
        [
            Metric("worker_starts_total", "Starts.", "counter"),
            Metric("worker_start_timestamp_seconds", "Start.", "gauge", aggregation="worker"),
        ]
    )
    create_map(tmp_path / "metrics", small, WORKERS_MAX)
    with closing(Metrics(tmp_path / "metrics", small, MetricsBlock, WORKERS_MAX - 1)) as last:
        assert last.map.values(WORKERS_MAX - 1)[0] == 1
        assert last.map.pid(WORKERS_MAX - 1) == os.getpid()
        assert last.map.pid(WORKERS_MAX - 2) is None


def test_workers_take_different_blocks_until_none_is_free(start: Start) -> None:
    workers = [start() for _ in range(3)]
    assert [metrics.worker for metrics in workers] == [0, 1, 2]
    with pytest.raises(MetricsUnusable, match="no block is free"):
        start()
    with pytest.raises(MetricsUnusable, match="block 1 is not free"):
        start(1)


def test_a_block_that_was_given_back_is_free(path: Path, start: Start) -> None:
    Metrics(path, LAYOUT, MetricsBlock, 1).close()
    assert start(1).worker == 1


def test_a_worker_outside_the_map_is_refused(start: Start) -> None:
    for worker in (-1, 3):
        with pytest.raises(MetricsUnusable, match=f"block {worker} is not free"):
            start(worker)


def test_reading_the_map_does_not_cost_a_worker_its_block(metrics: Metrics, path: Path) -> None:
    read(path)
    assert holder(path, metrics.worker) == os.getpid()


# -- counting ---------------------------------------------------------------------------------------------------------


def test_all_workers_are_summed_and_any_of_them_answers(path: Path, start: Start) -> None:
    for count in (1, 2, 3):
        metrics = start()
        metrics.counter("decisions_total", door="proxy", decision="allow", reason="ok").add(count)
        metrics.gauge("token_cache_entries").set(10 * count)
        metrics.gauge("store_up").set(1 if count < 3 else 0)
        metrics.gauge("revocations").set(count)
    assert value(path, "decisions_total", door="proxy", decision="allow", reason="ok") == 6
    assert value(path, "decisions_total", door="proxy", decision="deny", reason="expired") == 0
    assert value(path, "token_cache_entries") == 60
    assert value(path, "store_up") == 0
    assert value(path, "revocations") == 3
    assert value(path, "worker_up", worker="2") == 1
    assert value(path, "build_info", version="1.2.3", python="3.11") == 1


def test_a_slot_is_what_compiled_code_counts_into(metrics: Metrics, path: Path) -> None:
    slot = metrics.slot("decisions_total", door="nginx", decision="deny", reason="expired")
    metrics.block.add(slot, 2)
    assert value(path, "decisions_total", door="nginx", decision="deny", reason="expired") == 2


def test_a_histogram_is_cumulative_and_ends_with_its_count(metrics: Metrics, path: Path) -> None:
    durations_s = (0, 1e-6, 1.1e-6, 2e-6, 0.5e-3, 16.7, 16.8, 100)
    histogram = metrics.histogram("request_duration_seconds", door="proxy")
    for elapsed_s in durations_s:
        histogram.observe_s(elapsed_s)
    samples = read(path)
    buckets = {
        float(dict(labels)["le"]): count
        for (name, labels), count in samples.items()
        if name == "request_duration_seconds_bucket" and ("door", "proxy") in labels
    }
    assert len(buckets) == 26
    for bound, count in buckets.items():
        assert count == sum(elapsed_s <= bound for elapsed_s in durations_s), bound
    assert buckets[math.inf] == samples["request_duration_seconds_count", frozenset({("door", "proxy")})] == 8
    total_s = samples["request_duration_seconds_sum", frozenset({("door", "proxy")})]
    assert total_s == pytest.approx(sum(durations_s))


def test_a_counter_follows_a_total_that_is_kept_elsewhere(metrics: Metrics, path: Path) -> None:
    hits = metrics.counter("token_cache_hits_total")
    for total in (5, 5, 9):
        hits.follow(total)
    assert value(path, "token_cache_hits_total") == 9
    hits.follow(2)  # The source began anew.
    hits.follow(3)
    assert value(path, "token_cache_hits_total") == 10


def test_samplers_bring_series_up_to_date(metrics: Metrics, path: Path) -> None:
    entries = metrics.gauge("token_cache_entries")
    metrics.add_sampler(lambda: entries.set(7))
    assert value(path, "token_cache_entries") == 0
    metrics.sample()
    assert value(path, "token_cache_entries") == 7


def test_a_counter_cannot_go_down(metrics: Metrics) -> None:
    with pytest.raises(ValueError, match="cannot go down"):
        metrics.counter("token_cache_hits_total").add(-1)


@pytest.mark.parametrize(
    ("name", "labels"),
    [
        ("nothing_total", {}),
        ("asks_total", {}),
        ("asks_total", {"kind": "unheard_of"}),
        ("asks_total", {"kind": "opaque", "more": "x"}),
        ("jwks_refreshes_total", {"outcome": "ok"}),
    ],
)
def test_what_is_not_in_the_catalogue_cannot_be_counted(metrics: Metrics, name: str, labels: dict[str, str]) -> None:
    with pytest.raises(KeyError):
        metrics.slot(name, **labels)


def test_a_metric_of_another_kind_is_refused(metrics: Metrics) -> None:
    for handle in (metrics.gauge, metrics.histogram):
        with pytest.raises(KeyError, match="is no"):
            handle("token_cache_hits_total")


# -- issuers ----------------------------------------------------------------------------------------------------------


def test_an_issuer_has_one_row_in_all_workers_whatever_the_order(path: Path, start: Start) -> None:
    one, two = start(), start()
    one.counter("jwks_refreshes_total", issuer="https://a.example", outcome="ok").add()
    two.counter("jwks_refreshes_total", issuer="https://b.example", outcome="ok").add(2)
    two.counter("jwks_refreshes_total", issuer="https://a.example", outcome="ok").add(3)
    assert value(path, "jwks_refreshes_total", issuer="https://a.example", outcome="ok") == 4
    assert value(path, "jwks_refreshes_total", issuer="https://b.example", outcome="ok") == 2
    assert value(path, "jwks_refreshes_total", issuer=OTHER, outcome="ok") is None


def test_the_oldest_key_set_counts_and_one_never_fetched_does_not(path: Path, start: Start) -> None:
    for fetched_s in (2_000, 0, 1_000):
        metrics = start()
        metrics.gauge("jwks_fetched_timestamp_seconds", issuer=ISSUER).set(fetched_s)
        metrics.gauge("jwks_state", issuer=ISSUER, state="ok" if fetched_s else "starting").set(1)
    assert value(path, "jwks_fetched_timestamp_seconds", issuer=ISSUER) == 1_000
    assert value(path, "jwks_state", issuer=ISSUER, state="ok") == 2
    assert value(path, "jwks_state", issuer=ISSUER, state="starting") == 1


def test_issuers_beyond_the_table_share_one_row(metrics: Metrics, path: Path) -> None:
    for number in range(ISSUERS_MAX + 4):
        metrics.counter("jwks_refreshes_total", issuer=f"https://{number}.example", outcome="ok").add()
    last = ISSUERS_MAX - 2  # Row 0 is `other`.
    assert value(path, "jwks_refreshes_total", issuer=f"https://{last}.example", outcome="ok") == 1
    assert value(path, "jwks_refreshes_total", issuer=f"https://{last + 1}.example", outcome="ok") is None
    assert value(path, "jwks_refreshes_total", issuer=OTHER, outcome="ok") == 5


def test_an_issuer_as_long_as_the_bound_has_a_row_and_a_longer_one_has_not(metrics: Metrics) -> None:
    assert metrics.map.issuer_row("x" * ISSUER_BYTES_MAX) == 1
    assert metrics.map.issuers() == [OTHER, "x" * ISSUER_BYTES_MAX]
    assert metrics.map.issuer_row("x" * (ISSUER_BYTES_MAX + 1)) == metrics.map.issuer_row("") == 0


@given(st.text())
def test_any_label_value_survives_the_parser(text: str) -> None:
    line = f'x{{issuer="{escape_label(text)}"}} 1\n'
    (family,) = parser.text_string_to_metric_families("# HELP x a\n" + line)
    assert family.samples[0].labels == {"issuer": text}


def test_a_help_text_is_escaped() -> None:
    assert escape_help("a\\b\nc") == "a\\\\b\\nc"


# -- death and return -------------------------------------------------------------------------------------------------


def work_and_hang(path: Path, ready: Any) -> None:
    metrics = Metrics(path, LAYOUT, MetricsBlock)
    metrics.counter("token_cache_hits_total").add(5)
    metrics.gauge("requests_in_flight").add(3)
    ready.set()
    signal.pause()


def test_a_killed_worker_keeps_its_counters_and_loses_its_gauges(path: Path, start: Start) -> None:
    ready = multiprocessing.get_context("fork").Event()
    process = run(work_and_hang, path, ready)
    assert ready.wait(DEADLINE_S)
    assert value(path, "requests_in_flight") == 3
    assert value(path, "worker_up", worker="0") == 1
    assert holder(path, 0) == process.pid
    process.kill()
    process.join(DEADLINE_S)
    assert value(path, "worker_up", worker="0") == 0
    assert value(path, "requests_in_flight") == 0
    assert value(path, "token_cache_hits_total") == 5
    heir = start()
    assert heir.worker == 0
    heir.counter("token_cache_hits_total").add(2)
    assert value(path, "token_cache_hits_total") == 7
    assert value(path, "requests_in_flight") == 0
    assert value(path, "worker_starts_total") == 2


def claim_and_report(path: Path, barrier: Any, queue: Any) -> None:
    barrier.wait(DEADLINE_S)
    metrics = Metrics(path, LAYOUT, MetricsBlock)
    row = metrics.map.issuer_row(f"https://{metrics.worker}.example")
    queue.put((metrics.worker, row))
    barrier.wait(DEADLINE_S)


def test_workers_that_start_at_once_take_different_blocks_and_rows(path: Path) -> None:
    context = multiprocessing.get_context("fork")
    barrier, queue = context.Barrier(3), context.Queue()
    processes = [run(claim_and_report, path, barrier, queue) for _ in range(3)]
    reports = [queue.get(timeout=DEADLINE_S) for _ in processes]
    for process in processes:
        process.join(DEADLINE_S)
        assert process.exitcode == 0
    assert {worker for worker, _ in reports} == {0, 1, 2}
    assert {row for _, row in reports} == {1, 2, 3}


def test_a_worker_tells_its_memory_and_cpu_time(metrics: Metrics, path: Path) -> None:
    memory = value(path, "worker_resident_memory_bytes", worker="0")
    assert memory is not None and memory > 1_000_000
    assert value(path, "worker_cpu_seconds_total", worker="0") is not None
    assert process_usage(2**22 + 1) is None


def test_the_handbook_describes_every_metric_as_the_catalogue_does() -> None:
    from gateway._native.front import DOORS as doors
    from gateway._native.front import REASONS as reasons

    handbook = (ROOT / "docs" / "observability.md").read_text()
    for metric in catalogue(doors, reasons):
        (row,) = (line for line in handbook.splitlines() if line.startswith(f"| `portcullis_{metric.name}` |"))
        cells = [cell.strip() for cell in row.strip("| ").split("|")]
        issuer = ("issuer",) if metric.by_issuer else ()
        worker = ("worker",) if metric.aggregation == "worker" else ()
        labels = ", ".join(f"`{label}`" for label in (*issuer, *metric.labels, *worker))
        aggregation = metric.aggregation if metric.kind == "gauge" else ""
        assert cells[1:] == [metric.kind, labels, aggregation, metric.help]
