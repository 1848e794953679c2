"""HTTP/1.1 as bytes: strict where leniency would let two readers see two messages."""

from typing import Final

from typing_extensions import disjoint_base

PROBLEMS: Final[tuple[str, ...]]
"""What can be wrong with a message, in the order of the compiled module's error codes."""

__pyx_capi__: Final[dict[str, object]]  # what `http1.pxd` offers to other compiled modules

class Malformed(ValueError):
    """Bytes that are no HTTP/1.1 message, or one that could be read in two ways."""

def parse_response_head(
    data: bytes, to_head_request: bool = False
) -> tuple[int, list[tuple[bytes, bytes]], str, int, bool, int] | None:
    """Return (status, headers, framing, length, keep_alive, head's size), or None while bytes are missing.

    `framing`: `none`, `length`, `chunked` or `close` (RFC 9112 §6.3). Names are in lower case. Raises Malformed.
    """

@disjoint_base
class NameTable:
    """Header names and what is to be done with them; for other compiled modules. Immutable once made."""

    def __new__(cls, actions: dict[bytes, int]) -> NameTable: ...

@disjoint_base
class HeadScanner:
    """Find the end of a head that comes in pieces."""

    def __new__(cls) -> HeadScanner: ...
    def feed(self, data: bytes) -> int:
        """Return the head's size once its end is there, else 0. Raises Malformed."""

@disjoint_base
class ChunkedDecoder:
    """Decode one chunked body that comes in pieces (RFC 9112 §7.1)."""

    def __new__(cls) -> ChunkedDecoder: ...
    @property
    def finished(self) -> bool: ...
    def feed(self, data: bytes) -> tuple[bytes, int]:
        """Return (decoded bytes, number of input bytes that belong to the body). Raises Malformed, then ever after."""

def fold_name(name: bytes) -> bytes | None:
    """Return a header name as filters compare it (lower case, `_` as `-`, 64 bytes), or None for what is no name."""

def is_clean_value(value: bytes) -> bool:
    """True if the bytes may stand in a header's value: no control byte but HTAB."""
