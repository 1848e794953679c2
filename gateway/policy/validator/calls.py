"""Extension functions: their types, and the literals that constructors take."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, NamedTuple

from gateway._native.extensions import Datetime, Decimal, Duration, IPAddr
from gateway._native.uid import quoted
from gateway.policy.language import tree
from gateway.policy.validator.report import Findings
from gateway.policy.validator.types import BOOL, LONG, STRING, Type, extension

_IP: Final = extension("ipaddr")
_DECIMAL: Final = extension("decimal")
_DATETIME: Final = extension("datetime")
_DURATION: Final = extension("duration")


class Signature(NamedTuple):
    """Types of a function. `parse` is a constructor's reader of its text; it raises ValueError."""

    arguments: tuple[Type, ...]
    result: Type
    parse: Callable[[str], object] | None = None
    example: str = ""


SIGNATURES: Final = {
    "ip": Signature((STRING,), _IP, IPAddr.parse, 'ip("10.0.0.0/8")'),
    "decimal": Signature((STRING,), _DECIMAL, Decimal.parse, 'decimal("1.25")'),
    "datetime": Signature((STRING,), _DATETIME, Datetime.parse, 'datetime("2024-05-01T12:00:00Z")'),
    "duration": Signature((STRING,), _DURATION, Duration.parse, 'duration("1h30m")'),
    "isInRange": Signature((_IP, _IP), BOOL),
    "offset": Signature((_DATETIME, _DURATION), _DATETIME),
    "durationSince": Signature((_DATETIME, _DATETIME), _DURATION),
    "toDate": Signature((_DATETIME,), _DATETIME),
    "toTime": Signature((_DATETIME,), _DURATION),
    **dict.fromkeys(("isIpv4", "isIpv6", "isLoopback", "isMulticast"), Signature((_IP,), BOOL)),
    **dict.fromkeys(
        ("lessThan", "lessThanOrEqual", "greaterThan", "greaterThanOrEqual"), Signature((_DECIMAL, _DECIMAL), BOOL)
    ),
    **dict.fromkeys(("toMilliseconds", "toSeconds", "toMinutes", "toHours", "toDays"), Signature((_DURATION,), LONG)),
}


def has_fitting_arguments(node: tree.Call, signature: Signature, strict: bool, findings: Findings) -> bool:
    """Check what can be told of arguments before their types: their count, and the literal of a constructor."""
    wanted, given = len(signature.arguments), len(node.arguments)
    ok = wanted == given
    if not ok:
        message = f"`{node.function}` takes {wanted} argument{'s' * (wanted != 1)}, not {given}"
        hint = f"such as `{signature.example}`" if signature.parse else "the value before the dot is the first"
        findings.add("wrong_arguments", message, hint, node)
    if signature.parse is None:
        return ok
    first = node.arguments[0] if ok else None
    if isinstance(first, tree.Literal) and isinstance(first.value, str):
        try:
            signature.parse(first.value)
        except ValueError as error:
            hint = f"such as `{signature.example}`"
            findings.add("invalid_literal", f"cannot read `{quoted(first.value)}`: {error}", hint, first)
            ok = False
    if strict and not all(isinstance(argument, tree.Literal) for argument in node.arguments):
        # Whether such a call fails would be known at the decision only.
        hint = "let entities and contexts carry values of this type"
        findings.add("computed_literal", f"`{node.function}` is called with what is no literal", hint, node)
        ok = False
    return ok
