"""A JSON object read one character at a time (RFC 8259), with the laws of `_native/json_scan.pxd`.

It reads left to right and stops at the first fault, so that also the code of a refusal can be compared.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NoReturn

MEMBERS_MAX = 512
DEPTH_MAX = 32
NUMBER_CHARS_MAX = 64
SIMPLE_ESCAPES = {'"': '"', "\\": "\\", "/": "/", "b": "\b", "f": "\f", "n": "\n", "r": "\r", "t": "\t"}
DIGITS = "0123456789"


class Refused(Exception):
    def __init__(self, code: str) -> None:
        super().__init__(code)
        self.code = code


@dataclass(frozen=True, slots=True)
class Node:
    """One JSON value: its kind, its Python value, its text (strings without quotes), its parts."""

    kind: str
    value: bool | int | float | str | None = None
    raw: bytes = b""
    items: tuple[Node, ...] = ()
    members: tuple[tuple[str, Node], ...] = ()

    def plain(self) -> object:
        """Return what json.loads would make of it."""
        if self.kind == "array":
            return [item.plain() for item in self.items]
        if self.kind == "object":
            return {name: node.plain() for name, node in self.members}
        return self.value


class Reader:
    def __init__(self, text: bytes) -> None:
        self.text = text
        self.at = 0

    def refuse(self, code: str) -> NoReturn:
        raise Refused(code)

    def peek(self) -> str:
        """Return the next byte as a character, or nothing at the end."""
        return chr(self.text[self.at]) if self.at < len(self.text) else ""

    def take(self, wanted: str) -> None:
        if self.peek() != wanted:
            self.refuse("syntax")
        self.at += 1

    def space(self) -> None:
        while self.peek() and self.peek() in " \t\n\r":
            self.at += 1

    def read_value(self, depth: int) -> Node:
        begin = self.at
        first = self.peek()
        if first == '"':
            text, raw = self.read_string()
            return Node("string", text, raw)
        if first and first in DIGITS + "-":
            return self.read_number()
        if first and first in "[{":
            if depth == DEPTH_MAX:
                self.refuse("depth")
            node = self.read_array(depth + 1) if first == "[" else self.read_object(depth + 1)
            return Node(node.kind, None, self.text[begin : self.at], node.items, node.members)
        for word, value in (("true", True), ("false", False), ("null", None)):
            if self.text[self.at : self.at + len(word)] == word.encode():
                self.at += len(word)
                return Node(word, value, word.encode())
        self.refuse("syntax")

    def read_array(self, depth: int) -> Node:
        self.take("[")
        items: list[Node] = []
        self.space()
        if self.peek() == "]":
            self.at += 1
            return Node("array")
        while True:
            items.append(self.read_value(depth))
            self.space()
            if self.peek() == "]":
                self.at += 1
                return Node("array", items=tuple(items))
            self.take(",")
            self.space()

    def read_object(self, depth: int) -> Node:
        self.take("{")
        members: list[tuple[str, Node]] = []
        self.space()
        if self.peek() == "}":
            self.at += 1
            return Node("object")
        while True:
            name, _ = self.read_string()
            if len(members) == MEMBERS_MAX:
                self.refuse("members")
            self.space()
            self.take(":")
            self.space()
            members.append((name, self.read_value(depth)))
            self.space()
            if self.peek() == "}":
                break
            self.take(",")
            self.space()
        if len({name for name, _ in members}) < len(members):
            self.refuse("duplicate")
        self.at += 1
        return Node("object", members=tuple(members))

    def read_string(self) -> tuple[str, bytes]:
        self.take('"')
        begin = self.at
        found = ""
        while True:
            char = self.peek()
            if char == '"':
                self.at += 1
                return found, self.text[begin : self.at - 1]
            if char == "" or char < " ":
                self.refuse("syntax")
            if char == "\\":
                found += self.read_escape()
            elif char < "\x80":
                found += char
                self.at += 1
            else:
                found += self.read_utf8()

    def read_escape(self) -> str:
        self.take("\\")
        char = self.peek()
        self.at += 1
        if char in SIMPLE_ESCAPES:
            return SIMPLE_ESCAPES[char]
        if char != "u":
            self.refuse("syntax")
        high = self.read_hex()
        if not 0xD800 <= high <= 0xDFFF:
            return chr(high)
        if high > 0xDBFF or self.text[self.at : self.at + 2] != b"\\u":
            self.refuse("utf8")
        self.at += 2
        low = self.read_hex()
        if not 0xDC00 <= low <= 0xDFFF:
            self.refuse("utf8")
        return chr(0x10000 + (high - 0xD800) * 0x400 + low - 0xDC00)

    def read_hex(self) -> int:
        digits = self.text[self.at : self.at + 4].decode("latin-1")
        if len(digits) < 4 or any(digit not in "0123456789abcdefABCDEF" for digit in digits):
            self.refuse("syntax")
        self.at += 4
        return int(digits, 16)

    def read_utf8(self) -> str:
        for length in (2, 3, 4):
            try:
                char = self.text[self.at : self.at + length].decode()
            except UnicodeDecodeError:
                continue
            if len(char) == 1:
                self.at += length
                return char
        self.refuse("utf8")

    def read_digits(self) -> None:
        if not self.peek() or self.peek() not in DIGITS:
            self.refuse("syntax")
        while self.peek() and self.peek() in DIGITS:
            self.at += 1

    def read_number(self) -> Node:
        begin = self.at
        if self.peek() == "-":
            self.at += 1
        first = self.at
        self.read_digits()
        if self.text[first : first + 1] == b"0" and self.at - first > 1:
            self.refuse("syntax")
        whole = True
        if self.peek() == ".":
            whole = False
            self.at += 1
            self.read_digits()
        if self.peek() and self.peek() in "eE":
            whole = False
            self.at += 1
            if self.peek() and self.peek() in "+-":
                self.at += 1
            self.read_digits()
        raw = self.text[begin : self.at]
        if len(raw) > NUMBER_CHARS_MAX or not math.isfinite(float(raw)):
            self.refuse("number")
        if whole and -(2**63) <= int(raw) < 2**63:
            return Node("int", int(raw), raw)
        return Node("double", float(raw), raw)


def read(text: bytes) -> Node:
    """Return the JSON object `text`, or raise Refused."""
    reader = Reader(text)
    reader.space()
    node = reader.read_value(0)
    reader.space()
    if reader.at != len(text):
        reader.refuse("syntax")
    if node.kind != "object":
        reader.refuse("not_object")
    return node


def scan(text: bytes, names: tuple[bytes, ...]) -> tuple[tuple[str, object], ...]:
    """Return what `gateway._native.json_scan.scan` must return, or raise Refused."""
    members = {name.encode(): node for name, node in read(text).members}
    return tuple(shown(members[name]) if name in members else ("absent", None) for name in names)


def shown(node: Node) -> tuple[str, object]:
    """Return a node as the compiled module shows it to Python."""
    if node.kind == "string":
        return node.kind, str(node.value).encode()
    if node.kind in ("array", "object"):
        return node.kind, node.raw
    return node.kind, node.value
