"""Cedar's extension types: immutable, hashable values, spelled as Cedar spells them (`_native/extensions.pyx`)."""

from typing import Final, final

__pyx_capi__: Final[dict[str, object]]

@final
class Decimal:
    """`decimal("1.5")`; `number` counts units of 0.0001."""

    def __new__(cls, number: int) -> Decimal: ...
    @staticmethod
    def parse(text: str) -> Decimal:
        """Read `-12.3`: one to four digits after the point. Raises ValueError."""

    @property
    def number(self) -> int: ...
    def __eq__(self, value: object, /) -> bool: ...
    def __hash__(self) -> int: ...
    def __reduce__(self) -> tuple[object, tuple[int]]: ...

@final
class Datetime:
    """`datetime("2024-05-01")`; `number` counts milliseconds since 1970-01-01T00:00:00Z."""

    def __new__(cls, number: int) -> Datetime: ...
    @staticmethod
    def parse(text: str) -> Datetime:
        """Read `2024-05-01` or `2024-05-01T12:00:00.000+0200`. Raises ValueError."""

    @property
    def number(self) -> int: ...
    @property
    def is_spellable(self) -> bool:
        """False for moments outside of the years 0 to 9999: arithmetic reaches them, no text does."""

    def __eq__(self, value: object, /) -> bool: ...
    def __hash__(self) -> int: ...
    def __reduce__(self) -> tuple[object, tuple[int]]: ...

@final
class Duration:
    """`duration("1h30m")`; `number` counts milliseconds."""

    def __new__(cls, number: int) -> Duration: ...
    @staticmethod
    def parse(text: str) -> Duration:
        """Read `-1d2h3m4s5ms`: at least one part, in this order. Raises ValueError."""

    @property
    def number(self) -> int: ...
    def __eq__(self, value: object, /) -> bool: ...
    def __hash__(self) -> int: ...
    def __reduce__(self) -> tuple[object, tuple[int]]: ...

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
