"""Lines to a file or stream, from a thread of their own: who writes one never waits for a disk or a reader."""

from __future__ import annotations

import logging
import os
import select
import stat
import threading
from collections.abc import Callable, Iterable, Iterator

FLUSH_BYTES = 64 * 1024  # as soon as so much is there, it is written
FLUSH_INTERVAL_S = 0.2  # and after this time in any case
BUFFER_BYTES_MAX = 4 * 1024 * 1024  # what the sink is behind with; the lines after it are dropped and counted
CLOSE_TIMEOUT_S = 2.0  # for what is still there at the end
ATOMIC_BYTES = select.PIPE_BUF  # several workers may write so much into one pipe without mixing lines (pipe(7))

_log = logging.getLogger("portcullis.log")


def _no_count(_lines: int) -> None:
    """Count for nobody."""


class LineWriter:
    """A bounded buffer of lines and the thread that empties it. Safe from any thread; make it after a fork."""

    def __init__(
        self,
        target: str | int,
        *,
        name: str,
        on_written: Callable[[int], None] = _no_count,
        on_dropped: Callable[[int], None] = _no_count,
        flush_bytes: int = FLUSH_BYTES,
        flush_interval_s: float = FLUSH_INTERVAL_S,
        buffer_bytes_max: int = BUFFER_BYTES_MAX,
    ) -> None:
        """Write to the file at `target`, which is appended to, or to an open descriptor, which stays its owner's.

        `name` is how the process's own log speaks of it. Raises OSError where the file cannot be opened.
        """
        self._path = target if isinstance(target, str) else None
        self._descriptor = self._open() if isinstance(target, str) else target
        self._name = name
        self._on_written = on_written
        self._on_dropped = on_dropped
        self._flush_bytes = flush_bytes
        self._flush_interval_s = flush_interval_s
        self._buffer_bytes_max = buffer_bytes_max
        self._lock = threading.Lock()
        self._wake = threading.Condition(self._lock)
        self._lines: list[bytes] = []  # guarded by self._lock, as all below
        self._buffered_bytes = 0
        self._dropped = 0
        self._reopen = False
        self._closing = False
        self._thread: threading.Thread | None = None
        self._cut = False  # the thread's own: the last thing in the sink is half a line

    def write(self, line: bytes) -> None:
        """Take one line, its line feed included; drop it and count it where the buffer is full or the writer closed."""
        with self._lock:
            if self._closing or self._buffered_bytes + len(line) > self._buffer_bytes_max:
                self._dropped += 1
                taken = False
            else:
                before = self._buffered_bytes
                self._lines.append(line)
                self._buffered_bytes += len(line)
                taken = True
                if before == 0 or before < self._flush_bytes <= self._buffered_bytes:
                    self._start()
                    self._wake.notify()
        if not taken:
            self._on_dropped(1)

    def reopen(self) -> None:
        """Open the file anew before the next line: for log rotation. A stream stays as it is."""
        with self._lock:
            self._reopen = self._path is not None
            self._start()
            self._wake.notify()

    def close(self, timeout_s: float = CLOSE_TIMEOUT_S) -> None:
        """Write what is there, for at most `timeout_s`, and end; later lines are dropped. Idempotent."""
        with self._lock:
            self._closing = True
            self._wake.notify()
        if self._thread is not None:
            self._thread.join(timeout_s)
            if self._thread.is_alive():  # The sink blocks; the thread dies with the process.
                with self._lock:
                    left, self._lines, self._buffered_bytes = len(self._lines), [], 0
                if left:
                    self._on_dropped(left)
                return
        if self._path is not None and self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1

    # -- the thread -----------------------------------------------------------------------------------------------

    def _start(self) -> None:
        if self._thread is None and not self._closing:
            self._thread = threading.Thread(target=self._run, name=f"portcullis-{self._name}-log", daemon=True)
            self._thread.start()

    def _run(self) -> None:
        ending = False
        while not ending:
            with self._lock:
                self._wake.wait_for(lambda: self._lines or self._reopen or self._closing)
                self._wake.wait_for(self._is_urgent, self._flush_interval_s)
                lines, self._lines, self._buffered_bytes = self._lines, [], 0
                dropped, self._dropped = self._dropped, 0
                reopen, self._reopen = self._reopen, False
                ending = self._closing
            if reopen:
                self._open_anew()
            self._write_all(lines)
            if dropped:
                _log.warning("%d lines of the %s log were dropped: its sink is too slow", dropped, self._name)

    def _is_urgent(self) -> bool:
        return self._closing or self._reopen or self._buffered_bytes >= self._flush_bytes

    def _open(self) -> int:
        assert self._path is not None
        return os.open(self._path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o640)

    def _open_anew(self) -> None:
        try:
            descriptor = self._open()
        except OSError as error:
            _log.error("the %s log could not be opened anew, the old file is kept: %s", self._name, error.strerror)
            return
        os.close(self._descriptor)
        self._descriptor = descriptor
        self._cut = False

    def _write_all(self, lines: list[bytes]) -> None:
        written = 0
        try:
            for count, chunk in self._chunks(lines):
                self._write_chunk(chunk)
                written += count
        except OSError as error:
            _log.error("%d lines of the %s log were lost: %s", len(lines) - written, self._name, error.strerror)
            self._on_dropped(len(lines) - written)
        if written:
            self._on_written(written)

    def _chunks(self, lines: list[bytes]) -> Iterator[tuple[int, bytes]]:
        """Join lines to what one write may hold: all for a file, ATOMIC_BYTES for a pipe or terminal."""
        if not lines:
            return
        if stat.S_ISREG(os.fstat(self._descriptor).st_mode):
            yield len(lines), b"".join(lines)
        else:
            yield from _joined(lines, ATOMIC_BYTES)

    def _write_chunk(self, chunk: bytes) -> None:
        left = memoryview(b"\n" + chunk if self._cut else chunk)
        while left:
            try:
                count = os.write(self._descriptor, left)
            except BlockingIOError:  # Somebody made the stream non-blocking.
                select.select([], [self._descriptor], [], self._flush_interval_s)
                continue
            self._cut = count < len(left)
            left = left[count:]


def _joined(lines: Iterable[bytes], bytes_max: int) -> Iterator[tuple[int, bytes]]:
    parts: list[bytes] = []
    size = 0
    for line in lines:
        if parts and size + len(line) > bytes_max:
            yield len(parts), b"".join(parts)
            parts, size = [], 0
        parts.append(line)
        size += len(line)
    if parts:
        yield len(parts), b"".join(parts)
