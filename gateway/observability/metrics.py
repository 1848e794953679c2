"""Metrics of all workers in one shared map: made by the parent, written by each worker, summed by any of them.

The file: a head (magic, fingerprint of the catalogue, number of blocks), a table of issuer names, then one page-aligned
block a worker. A block belongs to a worker's *index*: a worker that is started anew continues the counters of the one
that died, and starts its gauges from 0. Who holds which block, and lives, is told by record locks on the file, which
the kernel drops with the process.

    parent   create_map(path, layout, workers)
    worker   metrics = Metrics(path, layout, MetricsBlock)      # takes the first free block
             decisions = metrics.slot("decisions_total", door="proxy", decision="allow", reason="ok")
             metrics.block.add(decisions, 1)                    # from C: one atomic add
    anyone   exposition(MetricsMap(path, layout), …)            # gateway/observability/exposition.py
"""

from __future__ import annotations

import contextlib
import fcntl
import mmap
import os
import struct
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Protocol, Self

from gateway.observability.catalogue import ISSUERS_MAX, OTHER, Layout

WORKERS_MAX = 512
ISSUER_BYTES_MAX = 510  # a longer issuer counts as `other`

_MAGIC = b"PCMETR01"
_HEAD = struct.Struct("=8s32sI")
_PID = struct.Struct("=I")
_NAME = struct.Struct(f"=H{ISSUER_BYTES_MAX}s")
_PIDS_AT = 64
_NAMES_AT = mmap.PAGESIZE
_BLOCKS_AT = _NAMES_AT + -(-ISSUERS_MAX * _NAME.size // mmap.PAGESIZE) * mmap.PAGESIZE

# Bytes of the file that are locked; what they hold does not matter.
_NAMES_LOCK = 0
_FIRST_BLOCK_LOCK = 1

_FLOCK = struct.Struct("hhqqi4x")  # struct flock of 64-bit Linux: l_type, l_whence, l_start, l_len, l_pid


def _lock(file: IO[bytes], command: int, kind: int, byte: int) -> int:
    """Lock, unlock or ask about one byte; give the kind that the kernel answered."""
    answer = fcntl.fcntl(file, command, _FLOCK.pack(kind, os.SEEK_SET, byte, 1, 0))
    answered: int = _FLOCK.unpack(answer)[0]
    return answered


class MetricsUnusable(Exception):
    """The shared map cannot be used: absent, of another version of the catalogue, or without a free block."""


class Block(Protocol):
    """What a worker writes to; `gateway._native.metrics.MetricsBlock`."""

    def add(self, slot: int, amount: int) -> None: ...

    def set(self, slot: int, value: int) -> None: ...

    def observe_ns(self, first_slot: int, elapsed_ns: int) -> None: ...


BlockFactory = Callable[[mmap.mmap, int, int], Block]  # the map, where the block begins, how many slots it has


def _block_bytes(layout: Layout) -> int:
    return -(-layout.slot_count * 8 // mmap.PAGESIZE) * mmap.PAGESIZE


def create_map(path: Path, layout: Layout, workers: int) -> None:
    """Write an empty map for `workers` blocks, readable by this user only; an older file at `path` is replaced.

    To be called before the workers start. Who still has the older file mapped keeps it and disturbs nobody.
    """
    if not 1 <= workers <= WORKERS_MAX:
        raise ValueError(f"workers must be 1 to {WORKERS_MAX}")
    fresh = path.with_name(f"{path.name}.{os.getpid()}.new")
    with contextlib.suppress(FileNotFoundError):
        fresh.unlink()
    descriptor = os.open(fresh, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        os.ftruncate(descriptor, _BLOCKS_AT + workers * _block_bytes(layout))
        os.pwrite(descriptor, _HEAD.pack(_MAGIC, layout.fingerprint, workers), 0)
        os.pwrite(descriptor, _NAME.pack(len(OTHER), OTHER.encode()), _NAMES_AT)
    finally:
        os.close(descriptor)
    fresh.replace(path)


class MetricsMap:
    """The shared map as any process reads it."""

    __slots__ = ("_file", "_naming", "_own_worker", "layout", "memory", "workers")

    def __init__(self, path: Path, layout: Layout) -> None:
        """Open the map at `path`. Raises MetricsUnusable where it is absent or was made for another catalogue."""
        try:
            self._file = path.open("r+b", buffering=0)
        except OSError as error:
            raise MetricsUnusable(f"cannot open `{path}`: {error.strerror}") from error
        head = self._file.read(_HEAD.size)
        magic, fingerprint, workers = _HEAD.unpack(head) if len(head) == _HEAD.size else (b"", b"", 0)
        if (magic, fingerprint) != (_MAGIC, layout.fingerprint):
            self._file.close()
            raise MetricsUnusable(f"`{path}` was made by another version")
        self.layout = layout
        self.workers: int = workers
        self.memory = mmap.mmap(self._file.fileno(), _BLOCKS_AT + workers * _block_bytes(layout))
        self._own_worker: int | None = None
        self._naming = threading.Lock()  # the lock on the file is one for all threads of a process

    def close(self) -> None:
        """Let go of the map and of the block that was claimed; raises BufferError while a Block still uses it."""
        self.memory.close()
        self._file.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def block_offset(self, worker: int) -> int:
        """Give the byte at which a worker's block begins."""
        return _BLOCKS_AT + worker * _block_bytes(self.layout)

    def values(self, worker: int) -> list[int]:
        """Copy a worker's slots, each as it was at one moment."""
        start = self.block_offset(worker)
        end = start + 8 * self.layout.slot_count
        with memoryview(self.memory) as whole, whole[start:end] as block, block.cast("q") as slots:
            return slots.tolist()

    # -- who lives ------------------------------------------------------------------------------------------------

    def claim(self, worker: int | None = None) -> int:
        """Take a worker's block for as long as this object lives, or the first free one; give its index.

        Raises MetricsUnusable where another has it.
        """
        for index in range(self.workers) if worker is None else (worker,):
            if 0 <= index < self.workers:
                with contextlib.suppress(BlockingIOError, PermissionError):
                    _lock(self._file, fcntl.F_OFD_SETLK, fcntl.F_WRLCK, _FIRST_BLOCK_LOCK + index)
                    _PID.pack_into(self.memory, _PIDS_AT + index * _PID.size, os.getpid())
                    self._own_worker = index
                    return index
        raise MetricsUnusable("no block is free" if worker is None else f"block {worker} is not free")

    def pid(self, worker: int) -> int | None:
        """Give the process that holds a worker's block, or None where nobody does."""
        if worker != self._own_worker:
            byte = _FIRST_BLOCK_LOCK + worker
            if _lock(self._file, fcntl.F_OFD_GETLK, fcntl.F_WRLCK, byte) == fcntl.F_UNLCK:
                return None
        pid: int = _PID.unpack_from(self.memory, _PIDS_AT + worker * _PID.size)[0]
        return pid

    # -- the table of issuers -------------------------------------------------------------------------------------

    def issuers(self) -> list[str]:
        """List the names of the table's rows so far; row 0 is `other`."""
        return list(self._names())

    def issuer_row(self, issuer: str) -> int:
        """Give an issuer's row, taking a free one the first time; 0 (`other`) where the table is full."""
        encoded = issuer.encode()
        if not 0 < len(encoded) <= ISSUER_BYTES_MAX:
            return 0
        with self._naming:
            _lock(self._file, fcntl.F_OFD_SETLKW, fcntl.F_WRLCK, _NAMES_LOCK)
            try:
                names = list(self._names())
                if issuer in names:
                    return names.index(issuer)
                if len(names) == ISSUERS_MAX:
                    return 0
                at = _NAMES_AT + len(names) * _NAME.size
                row = _NAME.pack(len(encoded), encoded)
                self.memory[at + 2 : at + len(row)] = row[2:]
                self.memory[at : at + 2] = row[:2]  # The length last: readers take no lock.
                return len(names)
            finally:
                _lock(self._file, fcntl.F_OFD_SETLK, fcntl.F_UNLCK, _NAMES_LOCK)

    def _names(self) -> Iterator[str]:
        for row in range(ISSUERS_MAX):
            length, text = _NAME.unpack_from(self.memory, _NAMES_AT + row * _NAME.size)
            if length == 0:
                return
            yield text[:length].decode()


class Counter:
    """One series that only grows."""

    __slots__ = ("_block", "_seen", "_slot")

    def __init__(self, block: Block, slot: int) -> None:
        self._block = block
        self._slot = slot
        self._seen = 0

    def add(self, amount: int = 1) -> None:
        """Count `amount`, which may not be negative."""
        if amount < 0:
            raise ValueError("a counter cannot go down")
        self._block.add(self._slot, amount)

    def follow(self, total: int) -> None:
        """Count what a total that is kept elsewhere in this process grew by since the last call; it begins at 0."""
        if total > self._seen:
            self._block.add(self._slot, total - self._seen)
        self._seen = total


class Gauge:
    """One series that goes up and down; whole numbers, also below 0."""

    __slots__ = ("_block", "_slot")

    def __init__(self, block: Block, slot: int) -> None:
        self._block = block
        self._slot = slot

    def add(self, amount: int) -> None:
        self._block.add(self._slot, amount)

    def set(self, value: int) -> None:
        self._block.set(self._slot, value)


class Histogram:
    """One series of durations."""

    __slots__ = ("_block", "_slot")

    def __init__(self, block: Block, slot: int) -> None:
        self._block = block
        self._slot = slot

    def observe_s(self, elapsed_s: float) -> None:
        """Count one duration; one below 0 counts as 0."""
        self._block.observe_ns(self._slot, max(0, round(elapsed_s * 1e9)))


class Metrics:
    """One worker's place in the shared map: its block, and handles on series for Python.

    A series is named with all its labels once, when a part is set up; counting is then one call. Safe from any thread.
    """

    __slots__ = ("_samplers", "block", "map", "worker")

    def __init__(self, path: Path, layout: Layout, block: BlockFactory, worker: int | None = None) -> None:
        """Take the block of `worker`, or the first that nobody has. Raises MetricsUnusable."""
        self.map = MetricsMap(path, layout)
        try:
            self.worker = self.map.claim(worker)
        except MetricsUnusable:
            self.map.close()
            raise
        self.block = block(self.map.memory, self.map.block_offset(self.worker), layout.slot_count)
        self._samplers: list[Callable[[], None]] = []
        self._clear_gauges()
        self.counter("worker_starts_total").add()
        self.gauge("worker_start_timestamp_seconds").set(int(time.time()))

    def _clear_gauges(self) -> None:
        """Forget what a dead worker with this index left behind: its gauges say nothing of us, its counters stay."""
        layout = self.map.layout
        for metric in layout.metrics.values():
            if metric.kind == "gauge":
                for row in range(ISSUERS_MAX if metric.by_issuer else 1):
                    for values in metric.series:
                        self.block.set(layout.slot(metric.name, values, row), 0)

    def slot(self, name: str, /, **labels: str) -> int:
        """Give a series' slot in `block`; raises KeyError for what is not in the catalogue."""
        metric = self.map.layout.metrics[name]
        wanted = (*metric.labels, "issuer") if metric.by_issuer else metric.labels
        if set(labels) != set(wanted):
            raise KeyError(f"`{name}` has the labels {wanted!r}")
        row = self.map.issuer_row(labels["issuer"]) if metric.by_issuer else 0
        return self.map.layout.slot(name, tuple(labels[label] for label in metric.labels), row)

    def counter(self, name: str, /, **labels: str) -> Counter:
        self._require(name, "counter")
        return Counter(self.block, self.slot(name, **labels))

    def gauge(self, name: str, /, **labels: str) -> Gauge:
        self._require(name, "gauge")
        return Gauge(self.block, self.slot(name, **labels))

    def histogram(self, name: str, /, **labels: str) -> Histogram:
        self._require(name, "histogram")
        return Histogram(self.block, self.slot(name, **labels))

    def _require(self, name: str, kind: str) -> None:
        if self.map.layout.metrics[name].kind != kind:
            raise KeyError(f"`{name}` is no {kind}")

    def add_sampler(self, sampler: Callable[[], None]) -> None:
        """Have `sampler` called by `sample`; it moves figures that are kept elsewhere into the block."""
        self._samplers.append(sampler)

    def sample(self) -> None:
        """Bring sampled series up to date: each second, and before this worker answers `/metrics`."""
        for sampler in self._samplers:
            sampler()

    def close(self) -> None:
        """Give the block back; nothing may count through this object any more."""
        self._samplers.clear()
        del self.block
        self.map.close()
