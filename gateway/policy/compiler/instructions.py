"""Numbers of the machine's instructions and functions, by name, from the machine's own list."""

from __future__ import annotations

from typing import Final

from gateway._native.vm import FUNCTIONS as _FUNCTIONS
from gateway._native.vm import OPCODES as _OPCODES

OP: Final[dict[str, int]] = {opcode.name: number for number, opcode in enumerate(_OPCODES)}
FUNCTION: Final[dict[str, tuple[int, int]]] = {name: (number, count) for number, (name, count) in enumerate(_FUNCTIONS)}
"""Number and count of arguments of each extension function."""

VARIABLE: Final[dict[str, int]] = {"principal": 0, "action": 1, "resource": 2, "context": 3}

A: Final = 1 << 8  # the operands' places in an instruction's 64 bits: `op | a * A | b * B | c * C`
B: Final = 1 << 16
C: Final = 1 << 32
