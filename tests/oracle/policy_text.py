"""Policy text as pieces, by regular expressions."""

from __future__ import annotations

import re
from itertools import takewhile

_WHITE = r"[ \t\r\n\f\v\x85\u2028\u2029\u00a0\u1680\u2000-\u200a\u202f\u205f\u3000]"
_PIECE = re.compile(
    rf"""
    (?P<skipped> {_WHITE}+ | //[^\n\r]*)
    | [A-Za-z_][A-Za-z0-9_]*
    | "(?:[^"\\]|\\.)*"
    | [0-9]+
    | :: | == | != | <= | >= | && | \|\|
    | \?[A-Za-z_][A-Za-z0-9_]*
    | .
    """,
    re.VERBOSE | re.DOTALL,
)


def tokenize(text: str) -> tuple[list[str], list[int]]:
    found = [match for match in _PIECE.finditer(text) if match["skipped"] is None]
    return [match[0] for match in found] + [""], [match.end() for match in found] + [len(text)]


def split_statements(text: str) -> list[tuple[int, int, int, int]]:
    found = []
    start = None
    # A string that is not closed goes on to the end of the text, semicolons and all.
    pieces = re.compile(_PIECE.pattern.replace('*"', '*(?:"|\\\\?\\Z)', 1), re.VERBOSE | re.DOTALL)
    for match in pieces.finditer(text):
        if match["skipped"] is not None:
            continue
        start = match.start() if start is None else start
        if match[0] == ";":
            found.append((start, match.end()))
            start = None
    if start is not None:
        found.append((start, len(text)))
    return [(start, end, 1 + text.count("\n", 0, start), start - text.rfind("\n", 0, start)) for start, end in found]


def shared_ends(old: str, new: str) -> tuple[int, int]:
    head = _equal(old, new)
    return head, _equal(old[head:][::-1], new[head:][::-1])


def _equal(old: str, new: str) -> int:
    return sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(old, new, strict=False)))
