"""Strict base64url (RFC 4648 §5): one value has one spelling, everything else is refused."""

from typing import Final

IMPLEMENTATION: Final[str]
"""What `decode` uses on this machine: `scalar`, `avx2` or `avx512vbmi`."""
IMPLEMENTATIONS: Final[tuple[str, ...]]
"""All that this machine could use, slowest first."""

__pyx_capi__: Final[dict[str, object]]  # what `base64url.pxd` offers to other compiled modules

def decode(data: bytes) -> bytes:
    """Return the bytes that canonical, unpadded base64url stands for.

    Raises ValueError for a byte outside the alphabet (also `=` and white space), a length of 1 modulo 4, or trailing
    bits that are not zero. RFC 4648 §5, §3.5; RFC 7515 §2 ("with all trailing '=' characters omitted").
    """

def decode_with(name: str, data: bytes) -> bytes:
    """Return `decode(data)` by the implementation `name`, one of IMPLEMENTATIONS; for tests and benchmarks."""
