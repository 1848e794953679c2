# cython: autotestdict=False, auto_pickle=False
"""Cedar's extension types for Python: immutable values, spelled as Cedar spells them. Parsing: `extensions.h`."""

cimport cython
from libc.stdint cimport INT64_MAX, INT64_MIN, int64_t, uint8_t
from libc.string cimport memcmp, memcpy

import ipaddress

cdef extern from "Python.h":
    const char* PyUnicode_AsUTF8AndSize(object text, Py_ssize_t* size) except NULL

cdef extern from "extensions.h" nogil:
    int decimal_parse(const char* bytes, size_t length, int64_t* out) noexcept
    int address_parse(const char* bytes, size_t length, uint8_t* version, uint8_t* prefix, uint8_t* out)
    int datetime_parse(const char* bytes, size_t length, int64_t* out) noexcept
    int duration_parse(const char* bytes, size_t length, int64_t* out) noexcept
    void date_of_days(int64_t days, int64_t* year, int64_t* month, int64_t* day)


ctypedef int (*parser)(const char* bytes, size_t length, int64_t* out) noexcept nogil


cdef object valued(type kind, int64_t number):
    cdef Number made = kind.__new__(kind, 0)
    made.number = number
    return made


cdef object decimal_value(int64_t number):
    return valued(Decimal, number)


cdef object datetime_value(int64_t number):
    return valued(Datetime, number)


cdef object duration_value(int64_t number):
    return valued(Duration, number)


cdef object parsed(type kind, parser parse, str text, str wanted):
    cdef Py_ssize_t size = 0
    cdef const char* bytes = PyUnicode_AsUTF8AndSize(text, &size)
    cdef int64_t number = 0
    if not parse(bytes, <size_t>size, &number):
        raise ValueError(wanted)
    return valued(kind, number)


cdef object address_value(uint8_t version, uint8_t prefix, const uint8_t* bytes):
    cdef IPAddr made = IPAddr.__new__(IPAddr, "0.0.0.0")
    made.version = version
    made.prefix = prefix
    memcpy(made.bytes, bytes, 16)
    return made


cdef class Number:
    """What the types that are a number of 64 bits have in common; of itself it is no value."""

    def __cinit__(self, number):
        if type(self) is Number:
            raise TypeError("no value is only a number")
        if not INT64_MIN <= number <= INT64_MAX:
            raise ValueError("a number beyond 64 bits")
        self.number = number

    def __repr__(self):
        return f"{type(self).__name__}({self.number})"

    def __eq__(self, other):
        return self.number == (<Number>other).number if type(other) is type(self) else NotImplemented

    def __hash__(self):
        return hash((type(self), self.number))

    def __reduce__(self):
        return type(self), (self.number,)


@cython.final
cdef class Decimal(Number):
    @staticmethod
    def parse(str text not None):
        """Read `-12.3`: one to four digits after the point. Raises ValueError."""
        return parsed(
            Decimal, decimal_parse, text, "no decimal: digits, a point, one to four digits, within 64 bits"
        )

    def __str__(self):
        sign = "-" if self.number < 0 else ""
        whole, rest = divmod(abs(<object>self.number), 10_000)
        text = f"{rest:04}".rstrip("0") or "0"
        return f"{sign}{whole}.{text}"


@cython.final
cdef class Datetime(Number):
    @staticmethod
    def parse(str text not None):
        """Read `2024-05-01` or `2024-05-01T12:00:00.000+0200`. Raises ValueError."""
        return parsed(
            Datetime, datetime_parse, text, "no datetime: YYYY-MM-DD, or YYYY-MM-DDThh:mm:ss[.SSS] with Z or +hhmm"
        )

    @property
    def is_spellable(self):
        """False for moments outside of the years 0 to 9999: arithmetic reaches them, no text does."""
        return -62_167_219_200_000 <= <object>self.number < 253_402_300_800_000

    def __str__(self):
        cdef int64_t year = 0, month = 0, day = 0
        cdef object days, rest
        days, rest = divmod(<object>self.number, 86_400_000)
        date_of_days(days, &year, &month, &day)
        if not 0 <= year <= 9999:
            return f"{self.number} ms since 1970"
        seconds, ms = divmod(rest, 1000)
        return (
            f"{year:04}-{month:02}-{day:02}T{seconds // 3600:02}:{seconds // 60 % 60:02}:{seconds % 60:02}.{ms:03}Z"
        )


@cython.final
cdef class Duration(Number):
    @staticmethod
    def parse(str text not None):
        """Read `-1d2h3m4s5ms`: at least one part, in this order. Raises ValueError."""
        return parsed(
            Duration, duration_parse, text, "no duration: parts such as 1d2h3m4s5ms in this order, within 64 bits"
        )

    def __str__(self):
        return f"{self.number}ms"


@cython.final
cdef class IPAddr:
    def __cinit__(self, str text not None):
        cdef Py_ssize_t size = 0
        cdef const char* bytes = PyUnicode_AsUTF8AndSize(text, &size)
        if not address_parse(bytes, <size_t>size, &self.version, &self.prefix, self.bytes):
            raise ValueError("no address: IPv4 or IPv6, without leading zeros, with or without a prefix")

    @staticmethod
    def parse(str text not None):
        """Read `10.0.0.1`, `10.0.0.0/8`, `::1`. Raises ValueError."""
        return IPAddr(text)

    @property
    def packed(self):
        """The address in network order: 4 or 16 bytes."""
        return (<const char*>self.bytes)[:4 if self.version == 4 else 16]

    def __str__(self):
        address = ipaddress.ip_address(self.packed)
        full = 32 if self.version == 4 else 128
        # Never the spelling of IPv4 within IPv6, which Cedar refuses.
        text = str(address)
        if self.version == 6 and "." in text:
            text = address.exploded
        return text if self.prefix == full else f"{text}/{self.prefix}"

    def __repr__(self):
        return f"IPAddr({str(self)!r})"

    def __eq__(self, other):
        if not isinstance(other, IPAddr):
            return NotImplemented
        cdef IPAddr that = <IPAddr>other
        return (
            self.version == that.version and self.prefix == that.prefix and memcmp(self.bytes, that.bytes, 16) == 0
        )

    def __hash__(self):
        return hash((self.version, self.prefix, self.packed))

    def __reduce__(self):
        return IPAddr, (str(self),)
