"""Cedar's extension types: immutable, hashable values, spelled as Cedar spells them (`_native/extensions.pyx`)."""

from typing import Final, Self, final

from typing_extensions import disjoint_base

__pyx_capi__: Final[dict[str, object]]

@disjoint_base
class Number:
    """What the types that are a number of 64 bits have in common; of itself it is no value."""

    def __new__(cls, number: int) -> Self: ...
    @property
    def number(self) -> int: ...
    def __eq__(self, value: object, /) -> bool: ...
    def __hash__(self) -> int: ...
    def __reduce__(self) -> tuple[type[Self], tuple[int]]: ...

@final
class Decimal(Number):
    """`decimal("1.5")`; `number` counts units of 0.0001."""

    @staticmethod
    def parse(text: str) -> Decimal:
        """Read `-12.3`: one to four digits after the point. Raises ValueError."""

@final
class Datetime(Number):
    """`datetime("2024-05-01")`; `number` counts milliseconds since 1970-01-01T00:00:00Z."""

    @staticmethod
    def parse(text: str) -> Datetime:
        """Read `2024-05-01` or `2024-05-01T12:00:00.000+0200`. Raises ValueError."""

    @property
    def is_spellable(self) -> bool:
        """False for moments outside of the years 0 to 9999: arithmetic reaches them, no text does."""

@final
class Duration(Number):
    """`duration("1h30m")`; `number` counts milliseconds."""

    @staticmethod
    def parse(text: str) -> Duration:
        """Read `-1d2h3m4s5ms`: at least one part, in this order. Raises ValueError."""

@final
class IPAddr:
    """`ip("10.0.0.0/8")`: an address with its prefix; the bits behind the prefix count in comparisons."""

    def __new__(cls, text: str) -> IPAddr: ...
    @staticmethod
    def parse(text: str) -> IPAddr:
        """Read `10.0.0.1`, `10.0.0.0/8`, `::1`. Raises ValueError."""

    @property
    def version(self) -> int: ...
    @property
    def prefix(self) -> int: ...
    @property
    def packed(self) -> bytes:
        """The address in network order: 4 or 16 bytes."""

    def __eq__(self, value: object, /) -> bool: ...
    def __hash__(self) -> int: ...
    def __reduce__(self) -> tuple[object, tuple[str]]: ...
