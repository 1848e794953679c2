"""A whole policy text to statements, each with its place; what was read before is not read again."""

from __future__ import annotations

import re
from dataclasses import dataclass

from gateway._native.policy_text import split_statements
from gateway.policy.faults import Fault, PolicySyntaxError
from gateway.policy.language import limits, tree
from gateway.policy.language.parser import Misread, Parser
from gateway.policy.language.tree import Place, Statement

_KEPT_MAX = 50_000  # statements that are not read again when their text comes back unchanged
_KEPT_CHARACTERS_MAX = 4096  # longer ones are not kept
_kept: dict[str, Statement] = {}


@dataclass(frozen=True, slots=True)
class ParsedStatement:
    """One statement of a text."""

    statement: Statement
    place: Place  # of its first character


def split_policies(text: str) -> list[tuple[int, int, int, int]]:
    """Give (start, end, line, column) of each statement without reading it."""
    return split_statements(text)


def parse_policies(text: str, *, file: str | None = None) -> list[ParsedStatement]:
    """Read a policy text. Raises PolicySyntaxError with everything that is wrong, FAULTS_MAX at most.

    Statements are values: the same text gives the same object, as long as it is among the last that were read.
    """
    if len(text) > limits.TEXT_CHARACTERS_MAX:
        raise _beyond("text_too_large", f"more than {limits.TEXT_CHARACTERS_MAX:,} characters", file)
    places = split_statements(text)
    if len(places) > limits.STATEMENTS_MAX:
        raise _beyond("too_many_policies", f"more than {limits.STATEMENTS_MAX:,} policies in one text", file)
    found: list[ParsedStatement] = []
    faults: list[Fault] = []
    for start, end, line, column in places:
        own = text[start:end]
        statement = _kept.get(own)
        if statement is None:
            try:
                statement = _read(own)
            except Misread as misread:
                faults.append(fault_of(misread, own, Place(file, line, column, start), text))
                if len(faults) == limits.FAULTS_MAX:
                    break
                continue
        found.append(ParsedStatement(statement, Place(file, line, column, start)))
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
