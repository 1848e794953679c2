"""The audit log in files: one folder a chain, in it segments of lines. One process at a time writes a chain."""

from __future__ import annotations

import asyncio
import fcntl
import os
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Final, TypeVar

from gateway.errors import StoreUnavailable
from gateway.stores.audit_log import (
    BATCH_MAX,
    ENTRY_BYTES_MAX,
    ORIGIN_HASH,
    RECENT_IDS,
    AuditEntry,
    AuditHead,
    AuditVerdict,
    Chain,
    Verifier,
    check_chain,
)
from gateway.types import AuditEvent, Secret

T = TypeVar("T")

APPEND_TIMEOUT_S: Final = 5.0  # a disk that syncs slowly
SEGMENT_BYTES: Final = 64 * 1024 * 1024  # then another one is begun
PAGE: Final = 500  # entries handed over at once
TORN: Final = ".torn"  # what a crash left behind the last whole entry lies in a file of this ending


class FileAuditLog:
    """Writes the chain `chain` below `folder`, and reads all that is there."""

    shared = "machine"

    def __init__(
        self, folder: Path, chain: str, key: Secret | None = None, *, segment_bytes: int = SEGMENT_BYTES
    ) -> None:
        check_chain(chain)
        self._folder = folder
        self._name = chain
        self._chain = Chain(key)
        self._segment_bytes = segment_bytes
        self._thread = ThreadPoolExecutor(1, thread_name_prefix=f"audit-{chain}")
        self._reader = ThreadPoolExecutor(1, thread_name_prefix=f"audit-read-{chain}")
        self._head: AuditHead | None = None  # None: to be looked for; here and below used by the thread
        self._handle = -1
        self._lock = -1
        self._size = 0
        self._recent: deque[str] = deque(maxlen=RECENT_IDS)
        self._recent_ids: set[str] = set()

    async def append(self, events: Sequence[AuditEvent]) -> AuditHead:
        if len(events) > BATCH_MAX:
            raise ValueError(f"at most {BATCH_MAX} events at once")
        return await self._call(self._thread, lambda: self._append(events))

    async def read(self, chain: str = "", after: int = 0) -> AsyncIterator[AuditEntry]:
        if chain:
            check_chain(chain)
        lines = self._lines(chain)
        more = True
        while more:
            page = await self._call(self._reader, lambda: [pair for _, pair in zip(range(PAGE), lines, strict=False)])
            more = len(page) == PAGE
            for _, line in page:
                with suppress(ValueError, KeyError, TypeError):
                    entry = self._chain.read(line)
                    if entry.number > after:
                        yield entry

    async def verify(self, known: Sequence[AuditHead] = (), told: Callable[[int], None] | None = None) -> AuditVerdict:
        verifier = Verifier(self._chain, known)
        lines = self._lines("", verifier.begins)

        def look() -> bool:
            more = False
            for _, (chain, line) in zip(range(PAGE), lines, strict=False):
                verifier.look(chain, line)
                more = True
            return more

        while await self._call(self._reader, look):
            if told is not None:
                told(verifier.entries)
        return verifier.verdict()

    async def close(self) -> None:
        with suppress(StoreUnavailable):
            await self._call(self._thread, self._leave)
        self._thread.shutdown(wait=False)
        self._reader.shutdown(wait=False)

    async def _call(self, thread: ThreadPoolExecutor, work: Callable[[], T], timeout_s: float = APPEND_TIMEOUT_S) -> T:
        try:
            async with asyncio.timeout(timeout_s):
                return await asyncio.get_running_loop().run_in_executor(thread, work)
        except TimeoutError as error:
            raise StoreUnavailable(f"`{self._folder}` did not answer within {timeout_s:g} s") from error
        except (OSError, RuntimeError) as error:
            raise StoreUnavailable(f"`{self._folder}` cannot be used: {error}") from error

    # -- in the thread that writes

    def _append(self, events: Sequence[AuditEvent]) -> AuditHead:
        if self._head is None:
            self._enter()
        head = self._head
        assert head is not None
        lines, new_ids = [], []
        for event in events:
            if event.id in self._recent_ids or event.id in new_ids:
                continue
            line, head = self._chain.spell(head, event)
            if len(line) > ENTRY_BYTES_MAX:
                raise ValueError(f"an audit event has at most {ENTRY_BYTES_MAX} bytes")
            lines.append(line + b"\n")
            new_ids.append(event.id)
        if lines:
            self._head = None  # until it is certain: whatever fails now is looked for anew
            text = b"".join(lines)
            self._write(text)
            os.fsync(self._handle)
            self._size += len(text)
            self._head = head
            for each in new_ids:
                self._remember(each)
            if self._size >= self._segment_bytes:
                self._open(head.number + 1)
        return head

    def _write(self, text: bytes) -> None:
        view = memoryview(text)
        while view:
            view = view[os.write(self._handle, view) :]

    def _enter(self) -> None:
        """Take the chain, and find its end; what a crash has torn there is put aside."""
        place = self._folder / self._name
        place.mkdir(mode=0o700, parents=True, exist_ok=True)
        if self._lock < 0:
            lock = os.open(place / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError as error:
                os.close(lock)
                raise StoreUnavailable(f"another process writes the chain `{self._name}`") from error
            self._lock = lock
        if self._handle >= 0:
            os.close(self._handle)
            self._handle = -1
        head = AuditHead(self._name, 0, ORIGIN_HASH)
        self._recent.clear()
        self._recent_ids.clear()
        segments = _segments(place)
        # The last two hold what may have been handed in before a crash and comes again.
        for segment in segments[-2:]:
            whole = 0
            with segment.open("rb") as file:
                for line in file:
                    if not line.endswith(b"\n"):
                        break
                    with suppress(ValueError, KeyError, TypeError):
                        entry = self._chain.read(line)
                        head = AuditHead(self._name, entry.number, entry.hash)
                        self._remember(entry.event.id)
                    whole += len(line)
            if segment == segments[-1]:
                _cut(segment, whole)
        self._open(int(segments[-1].stem) if segments else 1)
        self._head = head

    def _open(self, number: int) -> None:
        """Open the segment that begins with an entry's number."""
        if self._handle >= 0:
            os.close(self._handle)
        path = self._folder / self._name / f"{number:016}.jsonl"
        self._handle = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        self._size = os.fstat(self._handle).st_size
        folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)

    def _remember(self, event_id: str) -> None:
        if len(self._recent) == RECENT_IDS:
            self._recent_ids.discard(self._recent[0])
        self._recent.append(event_id)
        self._recent_ids.add(event_id)

    def _leave(self) -> None:
        for handle in (self._handle, self._lock):
            if handle >= 0:
                os.close(handle)
        self._handle = self._lock = -1
        self._head = None

    # -- in the thread that reads

    def _lines(self, chain: str, begins: Callable[[str, int], None] | None = None) -> Iterator[tuple[str, bytes]]:
        """Give the whole lines of one chain, or of all, each with its chain; tell where a file begins."""
        places = [self._folder / chain] if chain else sorted(each for each in self._folder.glob("*") if each.is_dir())
        for place in places:
            segments = _segments(place)
            for segment in segments:
                if begins is not None:
                    begins(place.name, int(segment.stem))
                with segment.open("rb") as file:
                    for line in file:
                        # The last line of all may be one that is being written, or that a crash has torn.
                        if line.endswith(b"\n") or segment != segments[-1]:
                            yield place.name, line.removesuffix(b"\n")


def _segments(place: Path) -> list[Path]:
    return sorted(each for each in place.glob("*.jsonl") if each.stem.isdigit())


def _cut(segment: Path, whole: int) -> None:
    """Put what stands behind the last whole entry aside, and sync both files."""
    with segment.open("r+b") as file:
        file.seek(whole)
        rest = file.read()
        if rest:
            with segment.with_name(f"{segment.name}{TORN}").open("ab") as torn:
                torn.write(rest + b"\n")
                torn.flush()
                os.fsync(torn.fileno())
            file.truncate(whole)
            file.flush()
            os.fsync(file.fileno())
