"""Policy text to tokens, by one regular expression.

The expression matches every text whole, piece by piece, so that the place of a piece is the sum of the lengths before
it, and no match objects are made: that is most of the speed.
"""

from __future__ import annotations

import re
from itertools import accumulate
from typing import Final

_PIECE: Final = re.compile(
    r"""
    [ \t\r\n\f\v\x85\u2028\u2029\u00a0\u1680\u2000-\u200a\u202f\u205f\u3000]+   # white space, as Unicode has it
    | //[^\n\r]*
    | [A-Za-z_][A-Za-z0-9_]*
    | "(?:[^"\\]|\\.)*"
    | [0-9]+
    | :: | == | != | <= | >= | && | \|\|
    | \?[A-Za-z_][A-Za-z0-9_]*
    | .                                          # one character: punctuation, or what is no token at all
    """,
    re.VERBOSE | re.DOTALL,
)
END: Final = ""  # the token after the last one

PUNCTUATION: Final = frozenset("()[]{},;.:<>!+-*@=/%") | {"::", "==", "!=", "<=", ">=", "&&", "||"}


class Tokens:
    """The tokens of one text, without white space and comments; the last one is END."""

    __slots__ = ("ends", "texts")

    def __init__(self, text: str) -> None:
        pieces = _PIECE.findall(text)
        texts: list[str] = []
        ends: list[int] = []
        add, add_end = texts.append, ends.append
        for piece, end in zip(pieces, accumulate(map(len, pieces)), strict=True):
            # Python takes four control characters for white space that Unicode's property leaves out.
            if piece[:2] == "//" or (piece.isspace() and not "\x1c" <= piece[0] <= "\x1f"):
                continue
            add(piece)
            add_end(end)
        texts.append(END)
        ends.append(len(text))
        self.texts = texts
        self.ends = ends

    def start(self, index: int) -> int:
        """Give the offset of a token's first character."""
        return self.ends[index] - len(self.texts[index])


def comments_of(text: str) -> list[tuple[int, str]]:
    """Give offset and text of every comment."""
    found = []
    at = 0
    for piece in _PIECE.findall(text):
        if piece.startswith("//"):
            found.append((at, piece))
        at += len(piece)
    return found
