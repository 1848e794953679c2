"""A whole policy text to statements, each with its place; what was read before is not read again."""

from __future__ import annotations

import re
from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from dataclasses import dataclass

from gateway._native.policy_text import shared_ends, split_statements
from gateway.policy.collection import without_collection
from gateway.policy.faults import Fault, PolicySyntaxError
from gateway.policy.language import limits, tree
from gateway.policy.language.parser import Misread, Parser
from gateway.policy.language.tree import Place, Statement

_KEPT_MAX = 50_000  # statements that are not read again when their text comes back unchanged
_KEPT_CHARACTERS_MAX = 4096  # longer ones are not kept
_kept: dict[str, Statement] = {}


@dataclass(slots=True)
class ParsedStatement:
    """One statement of a text. INVARIANT: never changed (not `frozen`, which makes it three times as dear)."""

    statement: Statement
    file: str | None
    start: int  # offset in the text; `end` is behind its `;`
    end: int
    line: int
    column: int

    @property
    def place(self) -> Place:
        """Where its first character stands."""
        return Place(self.file, self.line, self.column, self.start)


def split_policies(text: str) -> list[tuple[int, int, int, int]]:
    """Give (start, end, line, column) of each statement without reading it."""
    return split_statements(text)


def parse_policies(text: str, *, file: str | None = None) -> list[ParsedStatement]:
    """Read a policy text. Raises PolicySyntaxError with everything that is wrong, FAULTS_MAX at most.

    Statements are values: the same text gives the same object, as long as it is among the last that were read.
    """
    if len(text) > limits.TEXT_CHARACTERS_MAX:
        raise _beyond("text_too_large", f"more than {limits.TEXT_CHARACTERS_MAX:,} characters", file)
    pieces = split_statements(text)
    if len(pieces) > limits.STATEMENTS_MAX:
        raise _beyond("too_many_policies", f"more than {limits.STATEMENTS_MAX:,} policies in one text", file)
    return _parse(text, pieces, file)


def reparse_policies(
    text: str, before: str, parsed: Sequence[ParsedStatement], *, file: str | None = None
) -> tuple[list[ParsedStatement], int, int]:
    """Read a text again of which `before` is an earlier state, read as `parsed` under the same `file`.

    Gives what `parse_policies` gives, and how many of its first and last statements are the earlier ones: the last ones
    are new objects where they stand elsewhere now. Takes a time of what changed and moved, not of the whole.
    Raises PolicySyntaxError.
    """
    if len(text) > limits.TEXT_CHARACTERS_MAX:
        raise _beyond("text_too_large", f"more than {limits.TEXT_CHARACTERS_MAX:,} characters", file)
    head, tail = shared_ends(before, text)
    first = bisect_right(parsed, head, key=_end)
    at, line, column = _behind(before, *_piece(parsed[first - 1])) if first else (0, 1, 1)
    moved = len(text) - len(before)
    pieces: list[tuple[int, int, int, int]] = []
    behind = len(parsed)
    stop = max(len(text) - tail, at)
    while True:
        pieces += split_statements(text, at, line, column, stop)
        if not pieces or pieces[-1][1] < stop:
            break  # the text ends
        at = pieces[-1][1]
        # Behind a `;` that ended a statement before as well, with the same text to follow, all is as it was.
        known = bisect_left(parsed, at - moved, key=_end)
        if known < len(parsed) and parsed[known].end == at - moved:
            behind = known + 1
            break
        if at == len(text):
            break
        _, line, column = _behind(text, *pieces[-1])
        stop = at + 1
    if first + len(pieces) + len(parsed) - behind > limits.STATEMENTS_MAX:
        raise _beyond("too_many_policies", f"more than {limits.STATEMENTS_MAX:,} policies in one text", file)
    changed = _parse(text, pieces, file)
    rest = list(parsed[behind:])
    if rest:
        _, line, column = _behind(text, *pieces[-1])
        _, line_before, column_before = _behind(before, *_piece(parsed[behind - 1]))
        rest = _moved(rest, moved, line - line_before, line_before, column - column_before)
    return [*parsed[:first], *changed, *rest], first, len(rest)


def _end(parsed: ParsedStatement) -> int:
    return parsed.end


def _piece(parsed: ParsedStatement) -> tuple[int, int, int, int]:
    return parsed.start, parsed.end, parsed.line, parsed.column


def _behind(text: str, start: int, end: int, line: int, column: int) -> tuple[int, int, int]:
    """Give offset, line and column behind a statement."""
    lines = text.count("\n", start, end)
    if not lines:
        return end, line, column + end - start
    return end, line + lines, end - text.rfind("\n", start, end)


def _moved(
    rest: list[ParsedStatement], characters: int, lines: int, first_line: int, columns: int
) -> list[ParsedStatement]:
    """Give statements at their new places; those that begin on `first_line` move sideways as well."""
    if not characters and not lines and not columns:
        return rest
    return [
        ParsedStatement(
            each.statement,
            each.file,
            each.start + characters,
            each.end + characters,
            each.line + lines,
            each.column + columns if each.line == first_line else each.column,
        )
        for each in rest
    ]


def _parse(text: str, pieces: list[tuple[int, int, int, int]], file: str | None) -> list[ParsedStatement]:
    found: list[ParsedStatement] = []
    faults: list[Fault] = []
    is_torn = False  # the piece before ended too early, at a `;` in its middle: this one is the rest of it
    with without_collection():
        for start, end, line, column in pieces:
            own = text[start:end]
            if is_torn and not own.startswith(("permit", "forbid", "@")):
                continue
            statement = _kept.get(own)
            if statement is None:
                try:
                    statement = _read(own)
                except Misread as misread:
                    is_torn = misread.end == len(own)
                    faults.append(fault_of(misread, own, Place(file, line, column, start), text))
                    if len(faults) == limits.FAULTS_MAX:
                        break
                    continue
            is_torn = False
            found.append(ParsedStatement(statement, file, start, end, line, column))
    if faults:
        raise PolicySyntaxError(faults)
    return found


def parse_expression(text: str) -> tree.Expr:
    """Read one expression. Raises PolicySyntaxError."""
    try:
        if len(text) > limits.STATEMENT_CHARACTERS_MAX:
            raise Misread("policy_too_large", f"more than {limits.STATEMENT_CHARACTERS_MAX:,} characters", "", 0, 1)
        _check_characters(text)
        return Parser(text).expression()
    except Misread as misread:
        raise PolicySyntaxError([fault_of(misread, text, Place(None, 1, 1, 0), text)]) from None


def _read(own: str) -> Statement:
    if len(own) > limits.STATEMENT_CHARACTERS_MAX:
        hint = "split it, or use groups"
        raise Misread("policy_too_large", f"more than {limits.STATEMENT_CHARACTERS_MAX:,} characters", hint, 0, 1)
    _check_characters(own)
    statement = Parser(own).statement()
    if len(own) <= _KEPT_CHARACTERS_MAX:
        if len(_kept) >= _KEPT_MAX:
            _kept.clear()
        _kept[own] = statement
    return statement


def _check_characters(own: str) -> None:
    """Refuse what is no Unicode text: no encoder takes it, so it must not get further than here."""
    if own.isascii():
        return
    half = re.search("[\ud800-\udfff]", own)
    if half is not None:
        raise Misread(
            "lone_surrogate", "half of a character stands here", "save the file as UTF-8", half.start(), half.end()
        )


def fault_of(misread: Misread, own: str, place: Place, text: str) -> Fault:
    """Place a fault of a statement in the whole text."""
    start = min(misread.start, len(own))
    before = own[:start]
    lines = before.count("\n")
    column = start - before.rfind("\n") if lines else place.column + start
    offset = place.offset + start
    line_start = text.rfind("\n", 0, offset) + 1
    line_end = text.find("\n", offset)
    excerpt = text[line_start : line_end if line_end >= 0 else len(text)].rstrip("\r")
    return Fault(
        misread.code,
        misread.message,
        misread.hint,
        file=place.file,
        line=place.line + lines,
        column=column,
        length=max(1, misread.end - misread.start),
        excerpt=excerpt if len(excerpt) <= 400 else "",
    )


def _beyond(code: str, message: str, file: str | None) -> PolicySyntaxError:
    return PolicySyntaxError([Fault(code, message, "split it", file=file, line=1, column=1)])
