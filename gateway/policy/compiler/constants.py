"""Constants as bytes: how values stand in a compiled program.

One byte says the kind (`ValueTag` in `_native/values.h`), then, little-endian: BOOL one byte; LONG, DECIMAL, DATETIME,
DURATION 8 bytes; STRING a length of 4 bytes and UTF-8; ENTITY two such texts, type and id; SET a count and values;
RECORD a count and pairs of text and value; IP version, prefix and 16 bytes. The machine reads them, and writes them
when it folds.
"""

from __future__ import annotations

import struct
from typing import Final

from gateway._native.uid import EntityUid

TAG_BOOL: Final = 1
TAG_LONG: Final = 2
TAG_STRING: Final = 3
TAG_ENTITY: Final = 4
TAG_SET: Final = 5
TAG_RECORD: Final = 6

_length = struct.Struct("<I").pack
_long = struct.Struct("<Bq").pack


def encode_text(text: str) -> bytes:
    """Give length and UTF-8. Raises UnicodeEncodeError for a lone surrogate."""
    data = text.encode()
    return _length(len(data)) + data


def encode_entity(uid: EntityUid) -> bytes:
    """Give an entity's name as a constant."""
    return b"\x04" + encode_text(uid.type) + encode_text(uid.id)


def encode_literal(value: bool | int | str | EntityUid) -> bytes:
    """Give the value of a literal as a constant."""
    kind = type(value)
    if kind is str:
        data = value.encode()  # type: ignore[union-attr]
        return b"\x03" + _length(len(data)) + data
    if kind is EntityUid:
        return encode_entity(value)  # type: ignore[arg-type]
    if kind is bool:
        return b"\x01\x01" if value else b"\x01\x00"
    return _long(TAG_LONG, value)


def encode_set(items: list[bytes]) -> bytes:
    """Give a set of encoded values; the machine sorts it and drops duplicates."""
    return b"\x05" + _length(len(items)) + b"".join(items)


def encode_record(items: list[tuple[str, bytes]]) -> bytes:
    """Give a record of encoded values, with distinct names."""
    return b"\x06" + _length(len(items)) + b"".join([encode_text(name) + value for name, value in items])
