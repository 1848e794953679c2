from __future__ import annotations

from pathlib import Path

import pytest

from gateway.cli.control import WORKERS_MAX, ControlBlock, ControlUnusable, WorkerState


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "control"


def test_what_the_parent_writes_each_worker_reads(path: Path) -> None:
    parent = ControlBlock.create(path, 3)
    worker = ControlBlock(path)
    assert (worker.workers, worker.generation, worker.draining) == (3, 0, False)
    parent.generation = 2**40 + 7
    parent.draining = True
    assert (worker.generation, worker.draining) == (2**40 + 7, True)


def test_what_a_worker_writes_the_parent_reads_in_that_row_only(path: Path) -> None:
    parent = ControlBlock.create(path, 3)
    worker = ControlBlock(path)
    worker.enter(1, 4711, 5)
    assert (parent.pid(1), parent.state(1), parent.applied(1), parent.refused(1)) == (4711, WorkerState.STARTING, 5, 0)
    worker.set_state(1, WorkerState.READY)
    worker.set_applied(1, 6)
    worker.set_refused(1, 7)
    assert (parent.state(1), parent.applied(1), parent.refused(1)) == (WorkerState.READY, 6, 7)
    for other in (0, 2):
        assert (parent.pid(other), parent.state(other), parent.applied(other)) == (0, WorkerState.ABSENT, 0)
    parent.clear(1)
    assert (worker.pid(1), worker.state(1), worker.applied(1), worker.refused(1)) == (0, WorkerState.ABSENT, 0, 0)


def test_a_worker_that_starts_anew_has_refused_nothing_yet(path: Path) -> None:
    block = ControlBlock.create(path, 1)
    block.set_refused(0, 3)
    block.enter(0, 1, 3)
    assert block.refused(0) == 0


def test_only_this_user_may_read_it(path: Path) -> None:
    ControlBlock.create(path, 1).close()
    assert path.stat().st_mode & 0o777 == 0o600


def test_an_older_file_is_not_taken_over(path: Path) -> None:
    path.touch()
    with pytest.raises(FileExistsError):
        ControlBlock.create(path, 1)


@pytest.mark.parametrize("content", [b"", b"\0" * 8, b"\0" * 4096, b"PCCTRL99" + b"\0" * 120])
def test_a_file_that_is_no_control_block_is_refused(path: Path, content: bytes) -> None:
    path.write_bytes(content)
    with pytest.raises(ControlUnusable):
        ControlBlock(path)


def test_an_absent_file_is_refused(path: Path) -> None:
    with pytest.raises(ControlUnusable, match="cannot be mapped"):
        ControlBlock(path)


def test_there_may_be_512_workers_and_not_one_more(path: Path) -> None:
    block = ControlBlock.create(path, WORKERS_MAX)
    block.enter(WORKERS_MAX - 1, 9, 1)
    assert block.pid(WORKERS_MAX - 1) == 9
    for index in (-1, WORKERS_MAX):
        with pytest.raises(IndexError):
            block.pid(index)
    for count in (0, WORKERS_MAX + 1):
        with pytest.raises(ValueError, match="1 to 512"):
            ControlBlock.create(path.with_name("other"), count)
