"""SipHash-1-3 in plain Python (Aumasson and Bernstein, 2012), and what a bounded TTL cache may still know."""

from __future__ import annotations

WORD = 2**64 - 1


def _rotate(word: int, by: int) -> int:
    return (word << by | word >> (64 - by)) & WORD


def _round(v: list[int]) -> None:
    """SipRound: figure 2.1 of the paper."""
    v[0] = (v[0] + v[1]) & WORD
    v[2] = (v[2] + v[3]) & WORD
    v[1] = _rotate(v[1], 13) ^ v[0]
    v[3] = _rotate(v[3], 16) ^ v[2]
    v[0] = _rotate(v[0], 32)
    v[2] = (v[2] + v[1]) & WORD
    v[0] = (v[0] + v[3]) & WORD
    v[1] = _rotate(v[1], 17) ^ v[2]
    v[3] = _rotate(v[3], 21) ^ v[0]
    v[2] = _rotate(v[2], 32)


def siphash(data: bytes, k0: int = 0, k1: int = 0, c: int = 1, d: int = 3) -> int:
    """Return SipHash-c-d; c and d other than 1 and 3 serve to check this oracle by the vectors of SipHash-2-4."""
    v = [k0 ^ 0x736F6D6570736575, k1 ^ 0x646F72616E646F6D, k0 ^ 0x6C7967656E657261, k1 ^ 0x7465646279746573]
    padded = data + bytes(7 - len(data) % 8) + bytes([len(data) & 255])
    for at in range(0, len(padded), 8):
        word = int.from_bytes(padded[at : at + 8], "little")
        v[3] ^= word
        for _ in range(c):
            _round(v)
        v[0] ^= word
    v[2] ^= 0xFF
    for _ in range(d):
        _round(v)
    return v[0] ^ v[1] ^ v[2] ^ v[3]


class Cache:
    """Remembers everything, so that it can say what a real cache may still know: it may forget, never err."""

    def __init__(self, entries: int, ttl_s: float) -> None:
        self.entries = entries
        self.ttl_s = ttl_s
        self.now_s = 0.0
        self.known: dict[bytes, tuple[object, float]] = {}

    def put(self, key: bytes, value: object) -> None:
        self.known[key] = (value, self.now_s)

    def may_know(self, key: bytes) -> object | None:
        """Return the only value that may be found for `key`."""
        value, since_s = self.known.get(key, (None, 0.0))
        return value if not self.ttl_s or self.now_s - since_s < self.ttl_s else None
