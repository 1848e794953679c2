# cython: autotestdict=False, auto_pickle=False
"""Cedar's extension types for Python: immutable values, spelled as Cedar spells them. Parsing: `extensions.h`."""

cimport cython
from libc.stdint cimport INT64_MAX, INT64_MIN, int64_t, uint8_t
from libc.string cimport memcmp, memcpy

import ipaddress

cdef extern from "Python.h":
    const char* PyUnicode_AsUTF8AndSize(object text, Py_ssize_t* size) except NULL

cdef extern from "extensions.h" nogil:
    int decimal_parse(const char* bytes, size_t length, int64_t* out)
    int address_parse(const char* bytes, size_t length, uint8_t* version, uint8_t* prefix, uint8_t* out)
    int datetime_parse(const char* bytes, size_t length, int64_t* out)
    int duration_parse(const char* bytes, size_t length, int64_t* out)
    void date_of_days(int64_t days, int64_t* year, int64_t* month, int64_t* day)


cdef int64_t checked(object number) except? -1:
    if not INT64_MIN <= number <= INT64_MAX:
        raise ValueError("a number beyond 64 bits")
    return number


cdef object decimal_value(int64_t number):
    cdef Decimal made = Decimal.__new__(Decimal, 0)
    made.number = number
    return made


cdef object datetime_value(int64_t number):
    cdef Datetime made = Datetime.__new__(Datetime, 0)
    made.number = number
    return made


cdef object duration_value(int64_t number):
    cdef Duration made = Duration.__new__(Duration, 0)
    made.number = number
    return made


cdef object address_value(uint8_t version, uint8_t prefix, const uint8_t* bytes):
    cdef IPAddr made = IPAddr.__new__(IPAddr, "0.0.0.0")
    made.version = version
    made.prefix = prefix
    memcpy(made.bytes, bytes, 16)
    return made


@cython.final
cdef class Decimal:
    def __cinit__(self, number):
        self.number = checked(number)

    @staticmethod
    def parse(str text not None):
        """Read `-12.3`: one to four digits after the point. Raises ValueError."""
        cdef Py_ssize_t size = 0
        cdef const char* bytes = PyUnicode_AsUTF8AndSize(text, &size)
        cdef int64_t number = 0
        if not decimal_parse(bytes, <size_t>size, &number):
            raise ValueError("no decimal: digits, a point, one to four digits, within 64 bits")
        return decimal_value(number)

    def __str__(self):
        sign = "-" if self.number < 0 else ""
        whole, rest = divmod(abs(<object>self.number), 10_000)
        text = f"{rest:04}".rstrip("0") or "0"
        return f"{sign}{whole}.{text}"

    def __repr__(self):
        return f"Decimal({self.number})"

    def __eq__(self, other):
        return self.number == (<Decimal>other).number if isinstance(other, Decimal) else NotImplemented

    def __hash__(self):
        return hash(("decimal", self.number))

    def __reduce__(self):
        return Decimal, (self.number,)


@cython.final
cdef class Datetime:
    def __cinit__(self, number):
        self.number = checked(number)

    @staticmethod
    def parse(str text not None):
        """Read `2024-05-01` or `2024-05-01T12:00:00.000+0200`. Raises ValueError."""
        cdef Py_ssize_t size = 0
        cdef const char* bytes = PyUnicode_AsUTF8AndSize(text, &size)
        cdef int64_t number = 0
        if not datetime_parse(bytes, <size_t>size, &number):
            raise ValueError("no datetime: YYYY-MM-DD, or YYYY-MM-DDThh:mm:ss[.SSS] with Z or +hhmm")
        return datetime_value(number)

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

    def __repr__(self):
        return f"Datetime({self.number})"

    def __eq__(self, other):
        return self.number == (<Datetime>other).number if isinstance(other, Datetime) else NotImplemented

    def __hash__(self):
        return hash(("datetime", self.number))

    def __reduce__(self):
        return Datetime, (self.number,)


@cython.final
cdef class Duration:
    def __cinit__(self, number):
        self.number = checked(number)

    @staticmethod
    def parse(str text not None):
        """Read `-1d2h3m4s5ms`: at least one part, in this order. Raises ValueError."""
        cdef Py_ssize_t size = 0
        cdef const char* bytes = PyUnicode_AsUTF8AndSize(text, &size)
        cdef int64_t number = 0
        if not duration_parse(bytes, <size_t>size, &number):
            raise ValueError("no duration: parts such as 1d2h3m4s5ms in this order, within 64 bits")
        return duration_value(number)

    def __str__(self):
        return f"{self.number}ms"

    def __repr__(self):
        return f"Duration({self.number})"

    def __eq__(self, other):
        return self.number == (<Duration>other).number if isinstance(other, Duration) else NotImplemented

    def __hash__(self):
        return hash(("duration", self.number))

    def __reduce__(self):
        return Duration, (self.number,)


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
