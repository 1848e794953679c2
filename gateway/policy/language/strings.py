"""String literals and patterns: escapes, as Rust has them (docs.cedarpolicy.com, "Strings")."""

from __future__ import annotations

import re
from typing import Final

from gateway.policy.language.tree import Pattern

_ESCAPE: Final = re.compile(r"\\(?:x([0-9A-Fa-f]{2})|u\{([0-9A-Fa-f_]{1,12})\}|(.))", re.DOTALL)
_SIMPLE: Final = {"n": "\n", "r": "\r", "t": "\t", "\\": "\\", "0": "\0", "'": "'", '"': '"'}


class EscapeError(ValueError):
    """An escape that is none; `offset` counts from the start of the literal's inside."""

    def __init__(self, escape: str, offset: int) -> None:
        super().__init__(f"`{escape}` is no valid escape")
        self.escape = escape
        self.offset = offset


def unescape(raw: str) -> str:
    """Give what the inside of a string literal stands for. Raises EscapeError."""
    if "\\" not in raw:
        return raw
    return _ESCAPE.sub(_plain, raw)


def unescape_pattern(raw: str) -> Pattern:
    """Give the pieces of a pattern: `*` is None, `\\*` a star. Raises EscapeError."""
    pieces: list[str | None] = []
    text = ""
    at = 0
    while at < len(raw):
        character = raw[at]
        if character == "*":
            if text:
                pieces.append(text)
            text = ""
            pieces.append(None)
            at += 1
        elif character != "\\":
            text += character
            at += 1
        elif raw.startswith("\\*", at):
            text += "*"
            at += 2
        else:
            match = _ESCAPE.match(raw, at)
            if match is None:
                raise EscapeError(raw[at : at + 2], at)
            text += _plain(match)
            at = match.end()
    if text:
        pieces.append(text)
    return tuple(pieces)


def _plain(match: re.Match[str]) -> str:
    hexadecimal, unicode, simple = match.groups()
    if simple is not None:
        if simple not in _SIMPLE:
            raise EscapeError(match[0], match.start())
        return _SIMPLE[simple]
    if hexadecimal is not None:
        number = int(hexadecimal, 16)
        if number > 0x7F:
            raise EscapeError(match[0], match.start())
        return chr(number)
    digits = unicode.replace("_", "")
    if not 1 <= len(digits) <= 6 or unicode[0] == "_":
        raise EscapeError(match[0], match.start())
    number = int(digits, 16)
    if number > 0x10FFFF or 0xD800 <= number <= 0xDFFF:
        raise EscapeError(match[0], match.start())
    return chr(number)
