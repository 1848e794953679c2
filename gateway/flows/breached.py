"""Passwords that are known to have leaked, looked for in a file: nothing is ever asked of anybody.

The file is a Bloom filter over SHA-1 hashes, as lists of leaked passwords have them: some 24 bits a password, one wrong
"leaked" in 100,000, and never a wrong "not leaked". It is mapped, not read: workers share its pages.

    b"PCLEAK1\\n" | bits: u64 | count: u64 | hashes: u32 | reserved: u32 | the bits
"""

from __future__ import annotations

import hashlib
import math
import mmap
import os
import struct
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Final, Protocol

MAGIC: Final = b"PCLEAK1\n"
_HEAD: Final = struct.Struct("<8sQQII")
WRONG_SHARE: Final = 1e-5  # passwords that are taken for leaked ones by chance
COUNT_MAX: Final = 4_000_000_000
_HASHES_MAX: Final = 64
_SHA1_CHARACTERS: Final = 40
LINE_BYTES_MAX: Final = 4096


class LeakedPasswords(Protocol):
    """Knows what has leaked."""

    def __contains__(self, password: object) -> bool: ...


class NothingLeaked:
    """Stands where no list was brought."""

    def __contains__(self, password: object) -> bool:
        return False


class LeakFilter:
    """A list of leaked passwords in a file that `write_filter` made."""

    def __init__(self, path: Path) -> None:
        """Raises ValueError for a file that is none, or was cut short."""
        try:
            with path.open("rb") as file:
                size = os.fstat(file.fileno()).st_size
                head = file.read(_HEAD.size)
                if len(head) < _HEAD.size:
                    raise ValueError(f"`{path}` is no list of leaked passwords")
                magic, self._bits, self.count, self._hashes, _ = _HEAD.unpack(head)
                if magic != MAGIC or not 0 < self._hashes <= _HASHES_MAX or not self._bits:
                    raise ValueError(f"`{path}` is no list of leaked passwords; `portcullis user leaked` makes one")
                if size != _HEAD.size + (self._bits + 7) // 8:
                    raise ValueError(f"`{path}` was cut short; make it again")
                self._map = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        except OSError as error:
            raise ValueError(f"cannot read `{path}`: {(error.strerror or 'unreadable').lower()}") from error

    def __contains__(self, password: object) -> bool:
        if not isinstance(password, str):
            return False
        digest = hashlib.sha1(password.encode(), usedforsecurity=False).digest()
        places = _places(digest, self._bits, self._hashes)
        return all(self._map[_HEAD.size + (place >> 3)] >> (place & 7) & 1 for place in places)


def write_filter(hashes: Iterable[bytes], count: int, path: Path, *, wrong_share: float = WRONG_SHARE) -> int:
    """Write the SHA-1 hashes of `count` passwords, or fewer, into a file; return how many there were.

    The file is there whole or not at all. Raises ValueError for a size that cannot be, OSError where it cannot be kept.
    """
    if not 0 < count <= COUNT_MAX or not 0 < wrong_share < 1:
        raise ValueError(f"a list has 1 to {COUNT_MAX} passwords, and errs in a share between 0 and 1")
    bits = max(64, math.ceil(-count * math.log(wrong_share) / math.log(2) ** 2))
    rounds = max(1, min(_HASHES_MAX, round(bits / count * math.log(2))))
    field = bytearray((bits + 7) // 8)
    written = 0
    for digest in hashes:
        if written == count:
            raise ValueError("there are more passwords than were counted")
        for place in _places(digest, bits, rounds):
            field[place >> 3] |= 1 << (place & 7)
        written += 1
    draft = path.with_name(f"{path.name}.{os.getpid()}")
    try:
        with draft.open("wb") as file:
            file.write(_HEAD.pack(MAGIC, bits, written, rounds, 0))
            file.write(field)
            file.flush()
            os.fsync(file.fileno())
        draft.replace(path)
    finally:
        draft.unlink(missing_ok=True)
    return written


def hashes_in(lines: Iterable[bytes], *, seen_min: int = 1) -> Iterator[bytes]:
    """Give the SHA-1 hash of each line: `HASH`, `HASH:COUNT` (those that were seen `seen_min` times), or a password.

    Empty lines, and ones that are too long for a password, are passed over.
    """
    for line in lines:
        text = line.rstrip(b"\r\n")
        if not text or len(text) > LINE_BYTES_MAX:
            continue
        digest, _, seen = text.partition(b":")
        if len(digest) == _SHA1_CHARACTERS and (not seen or seen.strip().isdigit()):
            try:
                found = bytes.fromhex(digest.decode("ascii"))
            except ValueError:
                found = b""
            if found:
                if not seen or int(seen) >= seen_min:
                    yield found
                continue
        yield hashlib.sha1(text, usedforsecurity=False).digest()


def _places(digest: bytes, bits: int, rounds: int) -> Iterator[int]:
    """Kirsch and Mitzenmacher: two hashes make as many as are needed."""
    first = int.from_bytes(digest[:8], "little")
    second = int.from_bytes(digest[8:16], "little") | 1
    return ((first + turn * second) % bits for turn in range(rounds))
