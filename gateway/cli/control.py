"""The control block: words of shared memory through which the parent and its workers tell each other where they are.

The parent writes the head, each worker its own row; everybody reads. Every word is 64 bits, aligned, with one writer,
so it is read whole and needs no lock. Workers look at it every 50 ms (`gateway/cli/worker.py`).
"""

from __future__ import annotations

import mmap
import os
from enum import IntEnum
from pathlib import Path
from typing import Self

WORKERS_MAX = 512

_MAGIC = int.from_bytes(b"PCCTRL01", "little")
_HEAD_WORDS = 8
_ROW_WORDS = 8

# ORDER head: the words before the rows.
_AT_MAGIC, _AT_WORKERS, _AT_GENERATION, _AT_DRAINING = range(4)
# ORDER row: the words of one worker.
_PID, _STATE, _APPLIED, _REFUSED = range(4)


class WorkerState(IntEnum):
    """How far a worker is."""

    ABSENT = 0
    STARTING = 1
    READY = 2
    STOPPING = 3


class ControlUnusable(Exception):
    """The file is no control block of this version."""


class ControlBlock:
    """The shared words. `generation` numbers the configs that were published; a row says which one a worker has."""

    __slots__ = ("_memory", "_words", "workers")

    def __init__(self, path: Path) -> None:
        """Map the block at `path`. Raises ControlUnusable where there is none of this version."""
        try:
            with path.open("r+b") as file:
                self._memory = mmap.mmap(file.fileno(), 0)
        except (OSError, ValueError) as error:
            raise ControlUnusable(f"`{path}` cannot be mapped: {error}") from error
        self._words = memoryview(self._memory).cast("Q")
        if len(self._words) < _HEAD_WORDS or self._words[_AT_MAGIC] != _MAGIC:
            raise ControlUnusable(f"`{path}` is no control block of this version")
        self.workers: int = self._words[_AT_WORKERS]

    @classmethod
    def create(cls, path: Path, workers: int) -> Self:
        """Make the block of a parent with `workers` rows, readable by this user only."""
        if not 1 <= workers <= WORKERS_MAX:
            raise ValueError(f"workers must be 1 to {WORKERS_MAX}")
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            os.ftruncate(descriptor, 8 * (_HEAD_WORDS + workers * _ROW_WORDS))
            os.pwrite(descriptor, _MAGIC.to_bytes(8, "little") + workers.to_bytes(8, "little"), 0)
        finally:
            os.close(descriptor)
        return cls(path)

    def close(self) -> None:
        self._words.release()
        self._memory.close()

    # ------------------------------------------------------------------------------------------- written by the parent

    @property
    def generation(self) -> int:
        """The number of the config that all workers shall have."""
        return self._words[_AT_GENERATION]

    @generation.setter
    def generation(self, number: int) -> None:
        self._words[_AT_GENERATION] = number

    @property
    def draining(self) -> bool:
        """Whether workers shall say that they are not ready, and send clients away with `Connection: close`."""
        return self._words[_AT_DRAINING] != 0

    @draining.setter
    def draining(self, value: bool) -> None:
        self._words[_AT_DRAINING] = value

    def clear(self, index: int) -> None:
        """Forget a worker that ended."""
        first = self._row(index)
        for word in range(first, first + _ROW_WORDS):
            self._words[word] = 0

    # ------------------------------------------------------------------------------------------ written by each worker

    def enter(self, index: int, pid: int, generation: int) -> None:
        """Say that a worker has begun to start with the config of `generation`."""
        first = self._row(index)
        self._words[first + _REFUSED] = 0
        self._words[first + _APPLIED] = generation
        self._words[first + _PID] = pid
        self._words[first + _STATE] = WorkerState.STARTING

    def set_state(self, index: int, state: WorkerState) -> None:
        self._words[self._row(index) + _STATE] = state

    def set_applied(self, index: int, generation: int) -> None:
        self._words[self._row(index) + _APPLIED] = generation

    def set_refused(self, index: int, generation: int) -> None:
        self._words[self._row(index) + _REFUSED] = generation

    # ------------------------------------------------------------------------------------------------ read by everybody

    def pid(self, index: int) -> int:
        return self._words[self._row(index) + _PID]

    def state(self, index: int) -> WorkerState:
        return WorkerState(self._words[self._row(index) + _STATE])

    def applied(self, index: int) -> int:
        """Return the generation that a worker serves with."""
        return self._words[self._row(index) + _APPLIED]

    def refused(self, index: int) -> int:
        """Return the last generation that a worker could not take, or 0."""
        return self._words[self._row(index) + _REFUSED]

    def _row(self, index: int) -> int:
        if not 0 <= index < self.workers:
            raise IndexError(f"worker {index} of {self.workers}")
        return _HEAD_WORDS + index * _ROW_WORDS
