from __future__ import annotations

import fcntl
import logging
import os
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from gateway.observability.line_writer import ATOMIC_BYTES, BUFFER_BYTES_MAX, LineWriter

DEADLINE_S = 10.0
NEVER_S = 3600.0


class Count:
    """Adds up what a writer reports."""

    def __init__(self) -> None:
        self.lines = 0

    def __call__(self, lines: int) -> None:
        self.lines += lines


def until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + DEADLINE_S
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.002)


@pytest.fixture
def pipe() -> Iterator[tuple[int, int]]:
    reader, writer = os.pipe()
    yield reader, writer
    os.close(reader)
    os.close(writer)


def fill(descriptor: int) -> int:
    """Fill a pipe to the brim; give how much that was."""
    os.set_blocking(descriptor, False)
    size = 0
    try:
        while True:
            size += os.write(descriptor, b"." * 4096)
    except BlockingIOError:
        os.set_blocking(descriptor, True)
        return size


def read_exactly(descriptor: int, size: int) -> bytes:
    data = b""
    while len(data) < size:
        piece = os.read(descriptor, size - len(data))
        assert piece
        data += piece
    return data


def test_lines_are_all_there_after_closing_in_their_order(tmp_path: Path) -> None:
    written = Count()
    writer = LineWriter(str(tmp_path / "log"), name="test", on_written=written, flush_interval_s=NEVER_S)
    for number in range(1000):
        writer.write(b"%d\n" % number)
    writer.close()
    assert (tmp_path / "log").read_bytes() == b"".join(b"%d\n" % number for number in range(1000))
    assert written.lines == 1000


def test_a_line_is_written_after_the_interval_without_another(tmp_path: Path) -> None:
    writer = LineWriter(str(tmp_path / "log"), name="test", flush_interval_s=0.01)
    writer.write(b"one\n")
    until(lambda: (tmp_path / "log").read_bytes() == b"one\n")
    writer.write(b"two\n")
    until(lambda: (tmp_path / "log").read_bytes() == b"one\ntwo\n")
    writer.close()


def test_a_full_buffer_is_written_before_the_interval(tmp_path: Path) -> None:
    writer = LineWriter(str(tmp_path / "log"), name="test", flush_bytes=100, flush_interval_s=NEVER_S)
    writer.write(b"x" * 99)
    writer.write(b"\n")
    until(lambda: (tmp_path / "log").stat().st_size == 100)
    writer.close()


def test_a_file_is_appended_to_and_readable_by_its_group_at_most(tmp_path: Path) -> None:
    for line in (b"one\n", b"two\n"):
        writer = LineWriter(str(tmp_path / "log"), name="test")
        writer.write(line)
        writer.close()
    assert (tmp_path / "log").read_bytes() == b"one\ntwo\n"
    assert (tmp_path / "log").stat().st_mode & 0o137 == 0


def test_a_sink_that_blocks_costs_lines_never_time(pipe: tuple[int, int], caplog: pytest.LogCaptureFixture) -> None:
    reader, descriptor = pipe
    filled = fill(descriptor)
    dropped, written = Count(), Count()
    writer = LineWriter(
        descriptor, name="test", on_dropped=dropped, on_written=written, flush_interval_s=0.0, buffer_bytes_max=1000
    )
    started_s = time.monotonic()
    lines = 10_000
    for _ in range(lines):
        writer.write(b"0123456789\n")
    assert time.monotonic() - started_s < DEADLINE_S / 2
    assert dropped.lines >= lines - 3 * 1000 // 11  # Two batches may be under way, one waits.
    read_exactly(reader, filled)
    until(lambda: written.lines + dropped.lines == lines)
    assert read_exactly(reader, 11 * written.lines) == b"0123456789\n" * written.lines
    with caplog.at_level(logging.WARNING):
        writer.close()
    assert "dropped" in caplog.text


def test_closing_does_not_wait_for_a_sink_that_blocks(pipe: tuple[int, int]) -> None:
    reader, descriptor = pipe
    filled = fill(descriptor)
    dropped, written = Count(), Count()
    writer = LineWriter(descriptor, name="test", on_dropped=dropped, on_written=written, flush_interval_s=0.0)
    writer.write(b"stuck\n")
    until(lambda: writer._lines == [])
    writer.write(b"waits\n")
    writer.close(timeout_s=0.01)
    assert dropped.lines == 1
    read_exactly(reader, filled)
    assert read_exactly(reader, 6) == b"stuck\n"
    until(lambda: written.lines == 1)
    writer.write(b"late\n")
    assert dropped.lines == 2


def test_the_buffer_takes_its_limit_and_not_one_line_more(pipe: tuple[int, int]) -> None:
    _, descriptor = pipe
    fill(descriptor)
    dropped = Count()
    writer = LineWriter(descriptor, name="test", on_dropped=dropped, flush_interval_s=0.0)
    writer.write(b"stuck\n")
    until(lambda: writer._lines == [])
    for _ in range(BUFFER_BYTES_MAX // 1024):
        writer.write(b"x" * 1023 + b"\n")
    assert dropped.lines == 0
    writer.write(b"\n")
    assert dropped.lines == 1
    writer.close(timeout_s=0.0)
    assert dropped.lines == 1 + BUFFER_BYTES_MAX // 1024


def test_rotation_moves_later_lines_to_the_new_file(tmp_path: Path) -> None:
    path = tmp_path / "log"
    writer = LineWriter(str(path), name="test", flush_interval_s=0.0)
    writer.write(b"old\n")
    until(lambda: path.read_bytes() == b"old\n")
    path.rename(tmp_path / "log.1")
    writer.reopen()
    until(path.exists)
    writer.write(b"new\n")
    writer.close()
    assert (tmp_path / "log.1").read_bytes() == b"old\n"
    assert path.read_bytes() == b"new\n"


def test_a_rotation_that_fails_keeps_the_old_file(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "logs" / "log"
    path.parent.mkdir()
    writer = LineWriter(str(path), name="test")
    path.parent.rename(tmp_path / "gone")
    writer.reopen()
    writer.write(b"kept\n")
    writer.close()
    assert (tmp_path / "gone" / "log").read_bytes() == b"kept\n"
    assert "could not be opened anew" in caplog.text


def test_a_file_that_cannot_be_opened_is_an_error_at_once(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        LineWriter(str(tmp_path / "absent" / "log"), name="test")


def test_lines_that_a_broken_sink_refuses_are_counted(caplog: pytest.LogCaptureFixture) -> None:
    reader, descriptor = os.pipe()
    os.close(reader)
    dropped = Count()
    writer = LineWriter(descriptor, name="test", on_dropped=dropped)
    writer.write(b"one\n")
    writer.write(b"two\n")
    writer.close()
    os.close(descriptor)
    assert dropped.lines == 2
    assert "2 lines of the test log were lost" in caplog.text


def test_a_non_blocking_stream_gets_every_line(pipe: tuple[int, int]) -> None:
    reader, descriptor = pipe
    filled = fill(descriptor)
    os.set_blocking(descriptor, False)
    writer = LineWriter(descriptor, name="test", flush_interval_s=0.001)
    writer.write(b"line\n")
    read_exactly(reader, filled)
    assert read_exactly(reader, 5) == b"line\n"
    writer.close()


def test_workers_that_share_a_pipe_do_not_mix_their_lines(pipe: tuple[int, int]) -> None:
    reader, descriptor = pipe
    size = fcntl.fcntl(descriptor, fcntl.F_GETPIPE_SZ)
    writers = [LineWriter(descriptor, name=f"test{i}", flush_interval_s=0.0) for i in range(4)]
    lines = 4 * size // 100

    def write(writer: LineWriter, letter: bytes) -> None:
        for _ in range(lines):
            writer.write(letter * 99 + b"\n")

    threads = [threading.Thread(target=write, args=(writer, b"abcd"[i : i + 1])) for i, writer in enumerate(writers)]
    for thread in threads:
        thread.start()
    data = read_exactly(reader, 4 * lines * 100)
    for thread in threads:
        thread.join()
    for writer in writers:
        writer.close()
    assert all(line in {b"a" * 99, b"b" * 99, b"c" * 99, b"d" * 99} for line in data.splitlines())


def test_a_line_longer_than_an_atomic_write_is_written_whole(pipe: tuple[int, int]) -> None:
    reader, descriptor = pipe
    writer = LineWriter(descriptor, name="test", flush_interval_s=0.0)
    for line in (b"a" * ATOMIC_BYTES + b"\n", b"b\n"):
        writer.write(line)
    assert read_exactly(reader, ATOMIC_BYTES + 3) == b"a" * ATOMIC_BYTES + b"\nb\n"
    writer.close()


def test_closing_twice_and_closing_unused_are_fine(tmp_path: Path) -> None:
    writer = LineWriter(str(tmp_path / "log"), name="test")
    writer.close()
    writer.close()
    assert (tmp_path / "log").read_bytes() == b""
