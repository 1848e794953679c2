"""Slow twin of `_native/extensions.h`: Cedar's extension functions with regular expressions, dates and big integers.

Source: docs.cedarpolicy.com ("Data types", "Operators"). Errors are ValueError.
"""

from __future__ import annotations

import ipaddress
import re
from datetime import date

from gateway._native.extensions import Datetime, Decimal, Duration, IPAddr

I64_MIN, I64_MAX = -(2**63), 2**63 - 1
DAY = 86_400_000
ADDRESS_TEXT_MAX = 43

_DECIMAL = re.compile(r"(-?)([0-9]+)\.([0-9]{1,4})")
_DATE = re.compile(r"([0-9]{4})-([0-9]{2})-([0-9]{2})")
_MOMENT = re.compile(
    _DATE.pattern + r"T([0-9]{2}):([0-9]{2}):([0-9]{2})(?:\.([0-9]{3}))?(?:Z|([+-])([0-9]{2})([0-9]{2}))"
)
_DURATION = re.compile(r"(-?)(?:([0-9]+)d)?(?:([0-9]+)h)?(?:([0-9]+)m)?(?:([0-9]+)s)?(?:([0-9]+)ms)?")
_OCTET = r"(?:0|[1-9][0-9]{0,2})"
_V4 = re.compile(rf"({_OCTET}(?:\.{_OCTET}){{3}})(?:/(0|[1-9][0-9]?))?")
_V6 = re.compile(r"([0-9a-fA-F:]+)(?:/(0|[1-9][0-9]{0,2}))?")


def i64(number: int) -> int:
    """Give `number` back, or raise ValueError when 64 bits do not hold it."""
    if not I64_MIN <= number <= I64_MAX:
        raise ValueError("beyond 64 bits")
    return number


def decimal(text: str) -> Decimal:
    """Read `-12.3`."""
    found = _DECIMAL.fullmatch(text)
    if found is None:
        raise ValueError("no decimal")
    sign, whole, rest = found.groups()
    return Decimal(i64(int(f"{sign}{whole}{rest:0<4}")))


def ip(text: str) -> IPAddr:
    """Read an address with or without a prefix; the value is made from the canonical spelling."""
    found = _V4.fullmatch(text) or _V6.fullmatch(text)
    if found is None or len(text) > ADDRESS_TEXT_MAX:
        raise ValueError("no address")
    address = ipaddress.ip_address(found[1])
    if int(found[2] or 0) > address.max_prefixlen:
        raise ValueError("no prefix")
    return IPAddr(address.exploded + (f"/{found[2]}" if found[2] else ""))


def datetime(text: str) -> Datetime:
    """Read a date, or a moment with its offset from UTC."""
    found = _MOMENT.fullmatch(text) or _DATE.fullmatch(text)
    if found is None:
        raise ValueError("no datetime")
    year, month, day = (int(part) for part in found.groups()[:3])
    # `date` has no year 0; the calendar repeats every 400 years, which are 146,097 days.
    cycles, of_cycle = divmod(year, 400)
    days = date(of_cycle + 400, month, day).toordinal() + (cycles - 1) * 146_097 - date(1970, 1, 1).toordinal()
    if found.re is _DATE:
        return Datetime(days * DAY)
    hour, minute, second, ms = (int(part or 0) for part in found.groups()[3:7])
    sign, offset_hour, offset_minute = found[8], int(found[9] or 0), int(found[10] or 0)
    if hour > 23 or minute > 59 or second > 59 or offset_hour > 23 or offset_minute > 59:
        raise ValueError("no time of day")
    offset = (offset_hour * 60 + offset_minute) * 60_000 * (-1 if sign == "-" else 1)
    return Datetime(days * DAY + ((hour * 60 + minute) * 60 + second) * 1000 + ms - offset)


def duration(text: str) -> Duration:
    """Read `-1d2h3m4s5ms`, with any of the parts left out but not all."""
    found = _DURATION.fullmatch(text)
    if found is None or text in ("", "-"):
        raise ValueError("no duration")
    parts = [int(part or 0) for part in found.groups()[1:]]
    total = sum(part * unit for part, unit in zip(parts, (DAY, 3_600_000, 60_000, 1000, 1), strict=True))
    return Duration(i64(-total if found[1] else total))


def is_in_range(address: IPAddr, network: IPAddr) -> bool:
    """Say whether all addresses of `address` are among those of `network`."""
    if address.version != network.version:
        return False
    inner, outer = (ipaddress.ip_network((a.packed, a.prefix), strict=False) for a in (address, network))
    return int(outer[0]) <= int(inner[0]) and int(inner[-1]) <= int(outer[-1])


def call(function: str, arguments: tuple[object, ...]) -> object:
    """Call an extension function. Raises ValueError for values that it refuses, TypeError for types that it refuses."""
    match function, arguments:
        case "decimal", (str() as text,):
            return decimal(text)
        case "ip", (str() as text,):
            return ip(text)
        case "datetime", (str() as text,):
            return datetime(text)
        case "duration", (str() as text,):
            return duration(text)
        case "lessThan", (Decimal() as a, Decimal() as b):
            return a.number < b.number
        case "lessThanOrEqual", (Decimal() as a, Decimal() as b):
            return a.number <= b.number
        case "greaterThan", (Decimal() as a, Decimal() as b):
            return a.number > b.number
        case "greaterThanOrEqual", (Decimal() as a, Decimal() as b):
            return a.number >= b.number
        case "isIpv4", (IPAddr() as a,):
            return a.version == 4
        case "isIpv6", (IPAddr() as a,):
            return a.version == 6
        case "isLoopback", (IPAddr() as a,):
            return is_in_range(a, IPAddr("127.0.0.0/8" if a.version == 4 else "::1"))
        case "isMulticast", (IPAddr() as a,):
            return is_in_range(a, IPAddr("224.0.0.0/4" if a.version == 4 else "ff00::/8"))
        case "isInRange", (IPAddr() as a, IPAddr() as b):
            return is_in_range(a, b)
        case "offset", (Datetime() as moment, Duration() as span):
            return Datetime(i64(moment.number + span.number))
        case "durationSince", (Datetime() as a, Datetime() as b):
            return Duration(i64(a.number - b.number))
        case "toDate", (Datetime() as moment,):
            return Datetime(i64(moment.number // DAY * DAY))
        case "toTime", (Datetime() as moment,):
            return Duration(moment.number % DAY)
        case ("toMilliseconds" | "toSeconds" | "toMinutes" | "toHours" | "toDays") as name, (Duration() as span,):
            unit = {"Milliseconds": 1, "Seconds": 1000, "Minutes": 60_000, "Hours": 3_600_000, "Days": DAY}[name[2:]]
            # Towards zero.
            return abs(span.number) // unit * (-1 if span.number < 0 else 1)
    raise TypeError(f"`{function}` does not take these types")
