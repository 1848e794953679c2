"""Bounded TTL caches in C, keyed by exact bytes under a secret SipHash.

`ByteCache` is the Python face of the cache behind TokenValidator; the sources in `_native/cache.pyx` say how it
works.
"""

from typing import Any, Final, final

__pyx_capi__: Final[dict[str, object]]  # what `cache.pxd` offers to other compiled modules

@final
class ByteCache:
    """A cache from bytes to objects, bounded in number (`entries`) and time (`ttl_s`; 0 = no end).

    The coldest of a few entries looked at leaves first; one lookup heats an entry, up to three. Needs the GIL; may be
    used from many threads. `hash_bits` below 64 makes keys collide: for tests. Raises ValueError for sizes that make
    no sense.
    """

    def __new__(cls, entries: int, ttl_s: float = 0.0, *, hash_bits: int = 64) -> ByteCache: ...
    def get(self, key: bytes, default: Any = None) -> Any:
        """Return the value kept for exactly `key`, or `default`."""

    def put(self, key: bytes, value: object) -> None:
        """Keep `value` for `key`, in place of an older one."""

    def discard(self, key: bytes) -> bool:
        """Forget `key`; True if it was there."""

    def clear(self) -> None:
        """Forget everything."""

    def advance(self, seconds: float) -> None:
        """Move this cache's own clock ahead: for tests."""

    def stats(self) -> dict[str, int]:
        """Return counts: entries, capacity, bytes (of the entries), table_bytes, hits, misses, evictions."""

    def __len__(self) -> int: ...

def siphash(data: bytes, k0: int = 0, k1: int = 0) -> int:
    """Return SipHash-1-3 of `data` under the key (`k0`, `k1`): for tests of the function that the caches use."""

def live_entries() -> int:
    """Return how many entries of all caches are alive, or -1 unless built with PORTCULLIS_DEBUG=1."""
