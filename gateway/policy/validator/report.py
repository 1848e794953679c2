"""What validation found: findings that know their place within a statement, and the report that people read."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, NamedTuple

from gateway.policy.faults import Fault
from gateway.policy.language.tree import Node, Place, Statement

_MESSAGE_CHARACTERS_MAX: Final = 600
_EXCERPT_CHARACTERS_MAX: Final = 400  # of a line that is shown; a fault beyond has its line and column only


class Finding(NamedTuple):
    """One thing that is wrong with a statement; equal findings of several kinds of requests are told once."""

    code: str
    message: str
    hint: str
    start: int  # characters of the statement's own text; -1: the statement as a whole
    end: int


@dataclass(frozen=True, slots=True)
class Report:
    """Whether policies fit a schema. Warnings tell of what is allowed and probably not meant."""

    errors: tuple[Fault, ...] = ()
    warnings: tuple[Fault, ...] = ()

    @property
    def ok(self) -> bool:
        return not self.errors

    def __str__(self) -> str:
        return "\n".join(str(fault) for fault in (*self.errors, *self.warnings))


class Findings:
    """Collects findings of one statement, in the order of first sight."""

    __slots__ = ("_seen",)

    def __init__(self) -> None:
        self._seen: dict[Finding, None] = {}

    def add(self, code: str, message: str, hint: str = "", at: Node | None = None) -> None:
        start, end = (-1, -1) if at is None else (at.start, at.end)
        self._seen[Finding(code, _cut(message), _cut(hint), start, end)] = None

    def all(self) -> tuple[Finding, ...]:
        return tuple(self._seen)


def _cut(message: str) -> str:
    """Shorten a message that spells an expression or a type of great length."""
    return message if len(message) <= _MESSAGE_CHARACTERS_MAX else message[: _MESSAGE_CHARACTERS_MAX - 1] + "…"


def fault_of(finding: Finding, policy_id: str, statement: Statement, place: Place) -> Fault:
    """Place a finding in its file. A policy that came from JSON has no text: its fault has no line."""
    text = statement.text
    if not text:
        return Fault(finding.code, finding.message, finding.hint, file=place.file, policy_id=policy_id)
    start = min(max(finding.start, 0), len(text))
    line_start = text.rfind("\n", 0, start) + 1
    line_end = text.find("\n", start)
    line_end = line_end if line_end >= 0 else len(text)
    left = place.column - 1 if line_start == 0 else 0
    column = left + start - line_start + 1
    excerpt = ""
    if column <= _EXCERPT_CHARACTERS_MAX:
        # What stands left of the statement is not kept with it; columns count from the line's start all the same.
        excerpt = (" " * left + text[line_start:line_end].rstrip("\r"))[:_EXCERPT_CHARACTERS_MAX]
    end = min(finding.end if finding.start >= 0 else len(text), line_end)
    return Fault(
        finding.code,
        finding.message,
        finding.hint,
        file=place.file,
        line=place.line + text.count("\n", 0, start),
        column=column,
        length=max(1, end - start),
        excerpt=excerpt,
        policy_id=policy_id,
    )
