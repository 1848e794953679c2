"""Change one input into another: bytes, pieces, words, and splices of two."""

from __future__ import annotations

import random
from collections.abc import Sequence

STEPS_MAX = 4
PIECE_MAX = 32


def mutate(chooser: random.Random, pool: Sequence[bytes], words: Sequence[bytes]) -> bytes:
    """Return a child of a random member of `pool`."""
    data = chooser.choice(pool)
    for _ in range(chooser.randint(1, STEPS_MAX)):
        data = step(chooser, data, pool, words)
    return data


def step(chooser: random.Random, data: bytes, pool: Sequence[bytes], words: Sequence[bytes]) -> bytes:
    start = chooser.randint(0, len(data))
    stop = min(len(data), start + chooser.randint(0, PIECE_MAX))
    match chooser.randrange(8):
        case 0:  # another byte
            return data[:start] + chooser.randbytes(1) + data[start + 1 :]
        case 1:  # a byte more
            return data[:start] + chooser.randbytes(1) + data[start:]
        case 2:  # a bit flipped
            return (
                data[:start]
                + bytes(byte ^ 1 << chooser.randrange(8) for byte in data[start : start + 1])
                + data[start + 1 :]
            )
        case 3:  # a piece less
            return data[:start] + data[stop:]
        case 4:  # a piece again, up to many times
            return data[:start] + data[start:stop] * chooser.choice((2, 2, 3, 40)) + data[stop:]
        case 5 if words:  # a word, in place of a piece or between
            return data[:start] + chooser.choice(words) + data[chooser.choice((start, stop)) :]
        case 6:  # the head of this, the tail of another
            other = chooser.choice(pool)
            return data[:start] + other[chooser.randint(0, len(other)) :]
        case _:  # a neighbour of a byte
            return (
                data[:start]
                + bytes((byte + chooser.choice((-1, 1))) & 0xFF for byte in data[start : start + 1])
                + data[start + 1 :]
            )
