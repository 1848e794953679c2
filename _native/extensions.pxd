"""Cedar's extension types: their values for Python, and their parsers and operations for the machine."""

from libc.stdint cimport int64_t, uint8_t

cdef class Number:
    cdef readonly int64_t number           # what one counts, the classes below say

cdef class Decimal(Number):                # units of 0.0001
    pass

cdef class IPAddr:
    cdef readonly uint8_t version          # 4 or 6
    cdef readonly uint8_t prefix           # 0 … 32 or 128
    cdef uint8_t bytes[16]                 # network order; IPv4 in the first four

cdef class Datetime(Number):               # milliseconds since 1970-01-01T00:00:00Z
    pass

cdef class Duration(Number):               # milliseconds
    pass

cdef object decimal_value(int64_t number)
cdef object datetime_value(int64_t number)
cdef object duration_value(int64_t number)
cdef object address_value(uint8_t version, uint8_t prefix, const uint8_t* bytes)
