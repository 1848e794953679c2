"""A program as bytes: what the machine loads, verifies and binds, and what the cache on disk holds.

Numbers are little-endian, 4 bytes where nothing else is said; a text is its length and UTF-8.

| part      | shape                                                                                            |
|-----------|--------------------------------------------------------------------------------------------------|
| head      | `PCVM`, format, then the counts of instructions, clauses, keys, types, constants, patterns, shapes; entry of the clauses in the order of the text (exact), entry of the cheap ones first (quick) |
| code      | 8 bytes an instruction                                                                           |
| spans     | for each instruction start and end of its node in the statement's text (-1: unknown)             |
| clauses   | for each kind (0 `when`, 1 `unless`), start, end                                                 |
| keys      | names of attributes                                                                              |
| types     | names of entity types                                                                            |
| constants | see `constants.py`                                                                               |
| patterns  | count of pieces, and these as texts                                                              |
| shapes    | count of names, and these as numbers of keys                                                     |
"""  # noqa: E501

from __future__ import annotations

import struct
from array import array
from collections.abc import Collection, Iterable, Sequence
from typing import Final

from gateway._native.vm import FORMAT
from gateway.policy.compiler.constants import encode_text
from gateway.policy.language.tree import Pattern

_head = struct.Struct("<4s10I").pack
_length = struct.Struct("<I").pack
MAGIC: Final = b"PCVM"


def _encode_pattern(pattern: Pattern) -> bytes:
    pieces = [""]
    for part in pattern:
        if part is None:
            pieces.append("")
        else:
            pieces[-1] += part
    # Two asterisks in a row mean what one means.
    kept = [piece for place, piece in enumerate(pieces) if piece or place in (0, len(pieces) - 1)]
    return _length(len(kept)) + b"".join(map(encode_text, kept))


def encode_image(
    code: Sequence[int],
    *,
    spans: Sequence[int] = (),
    clauses: Sequence[int] = (),
    keys: Collection[str] = (),
    types: Collection[str] = (),
    constants: Collection[bytes] = (),
    patterns: Collection[Pattern] = (),
    shapes: Collection[Iterable[int]] = (),
    quick_entry: int = 0,
) -> bytes:
    """Put a program together. `spans` has two numbers for each instruction (or is empty), `clauses` three for each."""
    count = len(code)
    parts = [
        _head(
            MAGIC,
            FORMAT,
            count,
            len(clauses) // 3,
            len(keys),
            len(types),
            len(constants),
            len(patterns),
            len(shapes),
            0,
            quick_entry,
        ),
        array("Q", code).tobytes(),
        array("i", spans).tobytes() if spans else b"\xff" * (8 * count),
        array("i", clauses).tobytes(),
    ]
    for name in keys:
        data = name.encode()
        parts.append(_length(len(data)))
        parts.append(data)
    for name in types:
        parts.append(encode_text(name))
    parts.extend(constants)
    for pattern in patterns:
        parts.append(_encode_pattern(pattern))
    for shape in shapes:
        numbers = array("I", shape)
        parts.append(_length(len(numbers)))
        parts.append(numbers.tobytes())
    return b"".join(parts)
