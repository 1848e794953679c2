"""Names that calls may have, by how they are written."""

from __future__ import annotations

import re
from typing import Final

# Methods that are operators of the language, with their count of arguments.
OPERATORS: Final = {"contains": 1, "containsAll": 1, "containsAny": 1, "isEmpty": 0, "getTag": 1, "hasTag": 1}

FUNCTIONS: Final = frozenset(("ip", "decimal", "datetime", "duration"))

METHODS: Final = frozenset(
    (
        "isIpv4", "isIpv6", "isLoopback", "isMulticast", "isInRange",
        "lessThan", "lessThanOrEqual", "greaterThan", "greaterThanOrEqual",
        "offset", "durationSince", "toDate", "toTime",
        "toMilliseconds", "toSeconds", "toMinutes", "toHours", "toDays",
    )
)  # fmt: skip

RESERVED: Final = frozenset(("true", "false", "if", "then", "else", "in", "is", "like", "has", "__cedar"))

VARIABLES: Final = frozenset(("principal", "action", "resource", "context"))

_NAME: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


def is_name(name: str) -> bool:
    """Tell whether `name` is an identifier, reserved or not."""
    return _NAME.fullmatch(name) is not None


def is_plain_name(name: str) -> bool:
    """Tell whether `name` may stand without quotes as an attribute's name."""
    return _NAME.fullmatch(name) is not None and name not in RESERVED
