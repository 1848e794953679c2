"""Lazy claim scan (RFC 8259): check all of a JSON object, keep only the asked members."""

from typing import Final, TypeAlias

_Value: TypeAlias = bool | int | float | bytes | None

KINDS: Final[tuple[str, ...]]
"""`absent`, `null`, `false`, `true`, `int`, `double`, `string`, `array`, `object`."""
CODES: Final[tuple[str, ...]]
"""Why a text is refused, `ok` first: `syntax`, `not_object`, `duplicate`, `utf8`, `depth`, `members`, `number`."""
NAMES_MAX: Final[int]
MEMBERS_MAX: Final[int]
DEPTH_MAX: Final[int]
__pyx_capi__: Final[dict[str, object]]  # what `json_scan.pxd` offers to other compiled modules

class JsonRefused(ValueError):
    """A text that is no acceptable JSON object; `code` says why, one of CODES."""

    code: str
    def __init__(self, code: str) -> None: ...

def scan(text: bytes, names: tuple[bytes, ...]) -> tuple[tuple[str, _Value], ...]:
    """Return (kind, value) for each of `names` in the JSON object `text`.

    The value is None, a bool, an int, a float, the UTF-8 of a string, or the raw text of an array or object; a name
    that is not there has the kind `absent`. Names are plain UTF-8, at most NAMES_MAX. All of `text` is checked.
    Raises JsonRefused. RFC 8259; duplicate names: RFC 7519 §4 ("JWT parsers MUST either reject [...]").
    """

def items(array: bytes) -> tuple[tuple[str, _Value], ...]:
    """Return (kind, value), as `scan` gives them, for each item of the JSON array `array`. Raises JsonRefused.

    Of text that no scan accepted, only what stands before the first fault counts: `array` is read item by item.
    """

def unescape(raw: bytes) -> bytes:
    """Return the UTF-8 text of a JSON string without its quotes. Raises JsonRefused for a broken escape."""
