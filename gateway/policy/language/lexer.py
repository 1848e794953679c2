"""Policy text to tokens."""

from __future__ import annotations

import re
from typing import Final

from gateway._native.policy_text import tokenize

END: Final = ""  # the token after the last one

PUNCTUATION: Final = frozenset("()[]{},;.:<>!+-*@=/%") | {"::", "==", "!=", "<=", ">=", "&&", "||"}

_STRING_OR_COMMENT: Final = re.compile(r'"(?:[^"\\]|\\.)*"|//[^\n\r]*', re.DOTALL)


class Tokens:
    """The tokens of one text, without white space and comments; the last one is END."""

    __slots__ = ("ends", "texts")

    def __init__(self, text: str) -> None:
        self.texts, self.ends = tokenize(text)

    def start(self, index: int) -> int:
        """Give the offset of a token's first character."""
        return self.ends[index] - len(self.texts[index])


def comments_of(text: str) -> list[tuple[int, str]]:
    """Give offset and text of every comment, in a text whose strings are all closed."""
    return [(match.start(), match[0]) for match in _STRING_OR_COMMENT.finditer(text) if match[0][0] == "/"]
