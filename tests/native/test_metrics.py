from __future__ import annotations

import mmap
import multiprocessing
import threading
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway._native.metrics import MetricsBlock, histogram_bounds_ns, histogram_bucket_of
from tests.oracle import metrics as oracle

HISTOGRAM_BUCKETS = 98
HISTOGRAM_SLOTS = 99
UINT64_MAX = 2**64 - 1


def block_of(slot_count: int) -> MetricsBlock:
    return MetricsBlock(bytearray(8 * slot_count), 0, slot_count)


def test_the_bounds_are_the_oracles() -> None:
    assert list(histogram_bounds_ns()) == [bound * 10**9 for bound in oracle.bounds_s()]
    assert len(histogram_bounds_ns()) == HISTOGRAM_BUCKETS - 1


@given(st.integers(0, 40).flatmap(lambda bits: st.integers(0, 2**bits)))
def test_a_duration_falls_into_the_oracles_bucket(elapsed_ns: int) -> None:
    assert histogram_bucket_of(elapsed_ns) == oracle.bucket_of(elapsed_ns)


def test_a_bound_belongs_to_its_bucket_and_one_nanosecond_more_to_the_next() -> None:
    for index, bound_ns in enumerate(histogram_bounds_ns()):
        assert histogram_bucket_of(bound_ns) == index
        assert histogram_bucket_of(bound_ns + 1) == index + 1


def test_no_duration_is_too_short_or_too_long_to_be_counted() -> None:
    assert histogram_bucket_of(0) == 0
    assert histogram_bucket_of(UINT64_MAX) == HISTOGRAM_BUCKETS - 1


@given(st.lists(st.integers(0, 10**11)))
def test_an_observed_histogram_holds_every_duration_and_their_sum(durations_ns: list[int]) -> None:
    block = block_of(HISTOGRAM_SLOTS)
    for elapsed_ns in durations_ns:
        block.observe_ns(0, elapsed_ns)
    counts = [0] * HISTOGRAM_BUCKETS
    for elapsed_ns in durations_ns:
        counts[oracle.bucket_of(elapsed_ns)] += 1
    assert [block.get(slot) for slot in range(HISTOGRAM_BUCKETS)] == counts
    assert block.get(HISTOGRAM_BUCKETS) == sum(durations_ns)


def test_gauges_go_down_and_below_zero() -> None:
    block = block_of(1)
    block.add(0, 3)
    block.add(0, -5)
    assert block.get(0) == -2
    block.set(0, -7)
    assert block.get(0) == -7


def test_a_slot_outside_the_block_is_ignored_and_its_neighbours_stay_as_they_are() -> None:
    memory = bytearray(b"\x5a" * 8 * 302)
    block = MetricsBlock(memory, 8, 300)
    before = bytes(memory)
    for slot in (-1, 300, 301, 2**62, -(2**62)):
        block.add(slot, 1)
        block.set(slot, 1)
    for first_slot in (-1, 300 - HISTOGRAM_SLOTS + 1, 300, 2**62, -(2**62)):
        block.observe_ns(first_slot, 1000)
    assert bytes(memory) == before
    block.observe_ns(300 - HISTOGRAM_SLOTS, 1000)
    assert bytes(memory) != before
    with pytest.raises(IndexError, match="outside"):
        block.get(300)


def test_a_histogram_in_a_block_that_is_shorter_than_one_is_ignored() -> None:
    block = block_of(HISTOGRAM_SLOTS - 1)
    block.observe_ns(0, 1000)
    assert [block.get(slot) for slot in range(HISTOGRAM_SLOTS - 1)] == [0] * (HISTOGRAM_SLOTS - 1)


@pytest.mark.parametrize(("offset", "slot_count"), [(0, 3), (8, 2), (-8, 1), (0, -1), (24, 0), (0, 2**61), (4, 1)])
def test_a_block_that_does_not_fit_into_its_map_is_refused(offset: int, slot_count: int) -> None:
    with pytest.raises(ValueError, match=r"fit|aligned"):
        MetricsBlock(bytearray(16), offset, slot_count)


def test_a_map_that_cannot_be_written_is_refused() -> None:
    with pytest.raises(ValueError, match="writable"):
        MetricsBlock(bytes(16), 0, 1)  # type: ignore[arg-type, unused-ignore]


def test_a_map_cannot_be_closed_under_its_block() -> None:
    memory = mmap.mmap(-1, 4096)
    block = MetricsBlock(memory, 0, 8)
    with pytest.raises(BufferError):
        memory.close()
    del block
    memory.close()


def test_threads_lose_no_count() -> None:
    block = block_of(1)

    def count() -> None:
        for _ in range(20_000):
            block.add(0, 1)

    threads = [threading.Thread(target=count) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert block.get(0) == 80_000


def count_in_another_process(path: str, slot: int) -> None:
    with open(path, "r+b") as file:
        block = MetricsBlock(mmap.mmap(file.fileno(), 0), 0, 2)
    for _ in range(1000):
        block.add(slot, 1)


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_another_process_counts_into_the_same_map(method: str, tmp_path: Path) -> None:
    path = tmp_path / "map"
    path.write_bytes(bytes(4096))
    with path.open("r+b") as file:
        block = MetricsBlock(mmap.mmap(file.fileno(), 0), 0, 2)
    context: Any = multiprocessing.get_context(method)
    processes = [context.Process(target=count_in_another_process, args=(str(path), slot)) for slot in (0, 1)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(30)
        assert process.exitcode == 0
    assert (block.get(0), block.get(1)) == (1000, 1000)
