"""Programs in words: what `portcullis policy compile --listing` prints."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass

from gateway._native.uid import quoted
from gateway._native.vm import FUNCTIONS, OPCODES, Program
from gateway.policy.compiler.instructions import VARIABLE

_VARIABLES = {number: name for name, number in VARIABLE.items()}
_u32 = struct.Struct("<I")


@dataclass(frozen=True, slots=True)
class Instruction:
    """One instruction, with its operands in words and its node's place in the statement's text (-1: none)."""

    at: int
    name: str
    operands: tuple[str, ...]
    start: int
    end: int

    def __str__(self) -> str:
        return f"{self.at:04}  {self.name:<13} {', '.join(self.operands)}".rstrip()


@dataclass(frozen=True, slots=True)
class Clause:
    """One condition that must hold: `when` or `unless`, and where it stands in the statement's text."""

    kind: str
    start: int
    end: int


@dataclass(frozen=True, slots=True)
class Listing:
    """A program taken apart. `quick_entry`: where the body with the cheap clauses first begins; 0: there is none."""

    instructions: tuple[Instruction, ...]
    clauses: tuple[Clause, ...]
    quick_entry: int

    def __str__(self) -> str:
        lines = []
        for instruction in self.instructions:
            if instruction.at == self.quick_entry and self.quick_entry:
                lines.append("quick:")
            lines.append(str(instruction))
        return "\n".join(lines)


def list_program(program: Program) -> Listing:
    """Take a verified program apart."""
    return _Reader(program.image).listing()


_HEAD = 44


class _Reader:
    """Reads an image that was verified, so that nothing needs checking here."""

    def __init__(self, image: bytes) -> None:
        self.image = image
        head = struct.unpack_from("<4s10I", image)
        self.code_count, clause_count, keys, types, constants, patterns, shapes = head[2:9]
        self.quick_entry = head[10]
        self.at = _HEAD + 16 * self.code_count + 12 * clause_count
        self.keys = [self._text() for _ in range(keys)]
        self.types = [self._text() for _ in range(types)]
        self.constants = [self._constant() for _ in range(constants)]
        self.patterns = [self._pattern() for _ in range(patterns)]
        self.shapes = [self._shape() for _ in range(shapes)]

    def _number(self) -> int:
        (number,) = _u32.unpack_from(self.image, self.at)
        self.at += 4
        return int(number)

    def _text(self) -> str:
        length = self._number()
        self.at += length
        return self.image[self.at - length : self.at].decode()

    def _signed(self) -> int:
        self.at += 8
        return int.from_bytes(self.image[self.at - 8 : self.at], "little", signed=True)

    def _constant(self) -> str:
        tag = self.image[self.at]
        self.at += 1
        match tag:
            case 1:
                self.at += 1
                return "true" if self.image[self.at - 1] else "false"
            case 2:
                return str(self._signed())
            case 3:
                return quoted(self._text())
            case 4:
                return f"{self._text()}::{quoted(self._text())}"
            case 5:
                return f"[{', '.join([self._constant() for _ in range(self._number())])}]"
            case 6:
                pairs = [f"{quoted(self._text())}: {self._constant()}" for _ in range(self._number())]
                return f"{{{', '.join(pairs)}}}"
            case 7:
                number = self._signed()
                sign, magnitude = "-" if number < 0 else "", abs(number)
                return f'decimal("{sign}{magnitude // 10000}.{magnitude % 10000:04}")'
            case 8:
                return self._address()
            case 9:
                return f"datetime({self._signed()} ms)"
        return f"duration({self._signed()} ms)"

    def _address(self) -> str:
        from ipaddress import IPv4Address, IPv6Address

        version, prefix = self.image[self.at], self.image[self.at + 1]
        data = self.image[self.at + 2 : self.at + 18]
        self.at += 18
        address = IPv4Address(data[:4]) if version == 4 else IPv6Address(data)
        return f'ip("{address}/{prefix}")'

    def _pattern(self) -> str:
        pieces = [quoted(self._text())[1:-1].replace("*", "\\*") for _ in range(self._number())]
        return f'"{"*".join(pieces)}"'

    def _shape(self) -> str:
        return f"{{{', '.join([quoted(self.keys[self._number()]) for _ in range(self._number())])}}}"

    def _operands(self, spec: str, at: int, operands: dict[str, int]) -> Iterator[str]:
        for part in spec.split(", ") if spec else ():
            kind, place = part.split()
            number = operands[place]
            match kind:
                case "key":
                    yield quoted(self.keys[number])
                case "const":
                    yield self.constants[number]
                case "type":
                    yield self.types[number]
                case "pattern":
                    yield self.patterns[number]
                case "shape":
                    yield self.shapes[number]
                case "var":
                    yield _VARIABLES[number]
                case "function":
                    yield FUNCTIONS[number][0]
                case "jump":
                    yield f"-> {at + 1 + number:04}"
                case "flag" | "negated":
                    yield "true" if number else "false"
                case "number":
                    yield str(number - 0x100000000 if number & 0x80000000 else number)
                case _:
                    yield f"{kind} {number}"

    def listing(self) -> Listing:
        instructions = []
        for at in range(self.code_count):
            op, a, b, c = struct.unpack_from("<BBHI", self.image, _HEAD + 8 * at)
            start, end = struct.unpack_from("<ii", self.image, _HEAD + 8 * self.code_count + 8 * at)
            opcode = OPCODES[op]
            words = tuple(self._operands(opcode.operands, at, {"a": a, "b": b, "c": c}))
            instructions.append(Instruction(at, opcode.name, words, start, end))
        clause_count = _u32.unpack_from(self.image, 12)[0]
        places = [
            struct.unpack_from("<3i", self.image, _HEAD + 16 * self.code_count + 12 * number)
            for number in range(clause_count)
        ]
        clauses = tuple(Clause("unless" if kind else "when", start, end) for kind, start, end in places)
        return Listing(tuple(instructions), clauses, self.quick_entry)
