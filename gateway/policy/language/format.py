"""The formatter: the same policies and comments, in one layout.

It works on the tokens, not on the tree, so that brackets, escapes and comments stay as they were written; only white
space and commas behind a last item change. Where a token has a comment before it that would tear it from what it
follows (`,`, `;`, an operator), the comment moves behind it.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from gateway.policy.language.layout import HARD, SOFT, SPACE, Comments, Doc, Group, Indent, Line, render
from gateway.policy.language.lexer import END, Tokens, comments_of
from gateway.policy.language.statements import parse_policies

_OR, _AND, _RELATION, _SUM, _PRODUCT = 1, 2, 3, 4, 5
_POWERS: Final = {
    "||": _OR,
    "&&": _AND,
    **dict.fromkeys(("==", "!=", "<", "<=", ">", ">=", "in", "has", "like", "is"), _RELATION),
    **dict.fromkeys(("+", "-"), _SUM),
    "*": _PRODUCT,
}
_OPENING: Final = frozenset("([{")
_NONE: Final = Comments(())


def format_policies(text: str, *, width: int = 80, indent: int = 2, file: str | None = None) -> str:
    """Give the text in the one layout; formatting that again changes nothing.

    Raises PolicySyntaxError for a text that cannot be read.
    """
    parse_policies(text, file=file)
    return _Formatter(text, width, indent).text()


@dataclass(frozen=True, slots=True)
class _Chain(Group):
    """Operands of `&&` or `||` that stand below each other where they do not fit into a line."""


def _indented(operand: Doc) -> Doc:
    """Move a chain within something else to the right; whatever else breaks does that for itself."""
    return Indent(operand) if isinstance(operand, _Chain) else operand


class _Formatter:
    """Walks over the tokens of a text that is known to be right."""

    def __init__(self, text: str, width: int, indent: int) -> None:
        tokens = Tokens(text)
        self._texts = tokens.texts
        self._gaps, self._blank_before = _gaps(text, tokens)
        self._width = width
        self._indent = indent
        self._i = 0

    def text(self) -> str:
        """Lay out all statements and what stands between them."""
        out: list[str] = []
        carried: list[_Comment] = []  # comments from before a `;`, which now stand behind it
        while True:
            out.append(self._between(carried, first=not out))
            if self._texts[self._i] == END:
                return "".join(out)
            document, carried = self._statement()
            out.append(render(document, width=self._width, indent=self._indent))

    def _between(self, carried: list[_Comment], *, first: bool) -> str:
        """Write what stands before a statement: an empty line, comments, at most one empty line between them."""
        comments = carried + self._gaps[self._i]
        self._gaps[self._i] = []
        is_end = self._texts[self._i] == END
        text = ""
        if not first:
            if comments and comments[0].trailing:
                text = f" {comments.pop(0).text}"
            text += "\n" if is_end and not comments else "\n\n"
        for index, comment in enumerate(comments):
            text += "\n" if index and comment.blank else ""
            text += comment.text + "\n"
        return text + ("\n" if comments and self._blank_before[self._i] and not is_end else "")

    # --- tokens

    def _gap(self) -> Comments:
        """Give the comments before the next token; they are given once."""
        gap = self._gaps[self._i]
        if not gap:
            return _NONE
        self._gaps[self._i] = []
        return Comments(tuple((comment.text, comment.trailing) for comment in gap))

    def _token(self) -> Doc:
        """Take a token, and the comments before it."""
        gap = self._gap()
        self._i += 1
        word = self._texts[self._i - 1]
        return (gap, word) if gap.items else word

    def _tight(self) -> Doc:
        """Take a token that stays with what precedes it, and the comments on both of its sides, behind it."""
        before = self._gap()
        self._i += 1
        return self._texts[self._i - 1], before, self._gap()

    # --- statements

    def _statement(self) -> tuple[Doc, list[_Comment]]:
        parts: list[Doc] = []
        while self._texts[self._i] == "@":
            parts += [self._token(), self._token()]
            if self._texts[self._i] == "(":
                parts += [self._token(), self._token(), self._token()]
            parts += [self._gap(), HARD]
        parts += [self._token(), " ", self._scope()]
        while self._texts[self._i] != ";":
            parts += [self._gap(), HARD, self._token(), " ", self._body()]
        carried, self._gaps[self._i] = self._gaps[self._i], []
        self._i += 1
        return (*parts, ";"), carried

    def _scope(self) -> Doc:
        return self._listed(")", self._constraint, SOFT)

    def _constraint(self) -> Doc:
        return self._binary(_RELATION)

    def _body(self) -> Doc:
        opening = self._tight()
        body = self._binary(_OR)
        return Group((opening, Indent((SPACE, body, self._gap())), SPACE, self._token()))

    # --- expressions

    def _binary(self, power_min: int) -> Doc:
        """Lay out an operand and the operators behind it that bind at least as tightly as `power_min`."""
        left = self._unary()
        while True:
            power = _POWERS.get(self._texts[self._i], 0)
            if power < power_min or power == 0:
                return left
            left = self._chain(left, power) if power <= _AND else self._operation(left, power)

    def _chain(self, first: Doc, power: int) -> Doc:
        """Lay out a chain of `&&` or `||`: all on one line, or each on its own."""
        parts: list[Doc] = [_indented(first)]
        while _POWERS.get(self._texts[self._i]) == power:
            parts += [" ", self._tight(), SPACE, _indented(self._binary(power + 1))]
        return _Chain(tuple(parts))

    def _operation(self, left: Doc, power: int) -> Doc:
        parts: list[Doc] = []
        while _POWERS.get(self._texts[self._i]) == power:
            op = self._texts[self._i]
            parts += [" ", self._tight()]
            if op in {"is", "has"}:
                parts += [" ", self._path()]
            elif self._texts[self._i] in _OPENING:
                parts += [" ", self._binary(power + 1)]
            else:
                parts.append(Indent((SPACE, self._binary(power + 1))))
        return Group((left, *parts))

    def _path(self) -> Doc:
        parts = [self._token()]
        while self._texts[self._i] in {".", "::"}:
            parts += [self._token(), self._token()]
        return tuple(parts)

    def _unary(self) -> Doc:
        if self._texts[self._i] == "if":
            return self._if()
        signs: list[Doc] = []
        while self._texts[self._i] in {"!", "-"}:
            signs.append(self._token())
        return (*signs, self._member())

    def _if(self) -> Doc:
        parts: list[Doc] = []
        for number in range(3):  # if, then, else
            parts += [self._gap(), SPACE] if number else []
            parts += [self._token(), " ", self._gap(), _indented(self._binary(_OR))]
        return Group(tuple(parts))

    def _member(self) -> Doc:
        parts = [self._primary()]
        while self._texts[self._i] in {".", "[", "(", "::"}:
            if self._texts[self._i] in {".", "::"}:
                parts += [self._token(), self._token()]
            else:
                closing = ")" if self._texts[self._i] == "(" else "]"
                parts.append(self._listed(closing, self._whole, SOFT))
        return tuple(parts)

    def _primary(self) -> Doc:
        word = self._texts[self._i]
        if word == "(":
            return self._listed(")", self._whole, SOFT)
        if word == "[":
            return self._listed("]", self._whole, SOFT)
        if word == "{":
            return self._listed("}", self._field, SPACE)
        return self._token()

    def _whole(self) -> Doc:
        return self._binary(_OR)

    def _field(self) -> Doc:
        return (self._token(), self._tight(), " ", self._whole())

    def _listed(self, closing: str, item: Callable[[], Doc], edge: Line) -> Doc:
        """Lay out items between brackets: all on one line, or each on its own."""
        opening = self._tight()
        if self._texts[self._i] == closing:
            return Group((opening, self._token()))
        inner: list[Doc] = [edge]
        while True:
            inner.append(item())
            if self._texts[self._i] != ",":
                break
            if self._texts[self._i + 1] == closing:
                inner.append(self._gap())
                self._i += 1
                break
            inner += [self._tight(), SPACE]
        return Group((opening, Indent((*inner, self._gap())), edge, self._token()))


@dataclass(frozen=True, slots=True)
class _Comment:
    text: str
    trailing: bool  # follows a token on the same line
    blank: bool  # an empty line stands before it


def _gaps(text: str, tokens: Tokens) -> tuple[list[list[_Comment]], list[bool]]:
    """Give for each token the comments before it, and whether an empty line stands directly before it."""
    starts = [tokens.start(index) for index in range(len(tokens.texts))]
    gaps: list[list[_Comment]] = [[] for _ in starts]
    ends = [0] * len(starts)  # of what stands before the token
    for index in range(1, len(starts)):
        ends[index] = tokens.ends[index - 1]
    for offset, comment in comments_of(text):
        index = bisect_left(starts, offset)
        white = text[ends[index] : offset]
        ends[index] = offset + len(comment)
        trailing = index > 0 and not gaps[index] and _line_ends(white) == 0
        gaps[index].append(_Comment(comment.rstrip(), trailing, _line_ends(white) > 1))
    return gaps, [_line_ends(text[end:start]) > 1 for start, end in zip(starts, ends, strict=True)]


def _line_ends(white: str) -> int:
    return white.count("\n") or white.count("\r")
