"""What validation found: findings that know their place within a statement, and the report that people read."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from dataclasses import dataclass
from typing import NamedTuple

from gateway.policy.faults import Fault
from gateway.policy.language.tree import Node, Place, Statement


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
        self._seen[Finding(code, message, hint, start, end)] = None

    def all(self) -> tuple[Finding, ...]:
        return tuple(self._seen)


def did_you_mean(wrong: str, known: Iterable[str]) -> str:
    """Give a hint that names the known word that is most like the wrong one, "" if none is."""
    near = nearest(wrong, known)
    return f"did you mean `{near}`?" if near is not None else ""


def nearest(wrong: str, known: Iterable[str]) -> str | None:
    """Give the known word that is most like the wrong one, None if none is."""
    names = list(known)
    found = difflib.get_close_matches(wrong, names, n=1, cutoff=0.6)
    if found:
        return found[0]
    folded = wrong.casefold().rpartition("::")[2]  # letters in another case, a namespace left out
    return next((name for name in names if name.casefold().rpartition("::")[2] == folded), None)


def fault_of(finding: Finding, policy_id: str, statement: Statement, place: Place) -> Fault:
    """Place a finding in its file. A policy that came from JSON has no text: its fault has no line."""
    text = statement.text
    if not text:
        return Fault(finding.code, finding.message, finding.hint, file=place.file, policy_id=policy_id)
    start = min(max(finding.start, 0), len(text))
    line_start = text.rfind("\n", 0, start) + 1
    line_end = text.find("\n", start)
    excerpt = text[line_start : line_end if line_end >= 0 else len(text)].rstrip("\r")
    column = start - line_start + 1
    if line_start == 0 and place.column > 1:
        # What stands left of the statement is not kept with it; columns count from the line's start all the same.
        excerpt = " " * (place.column - 1) + excerpt
        column += place.column - 1
    end = finding.end if finding.start >= 0 else len(text)
    return Fault(
        finding.code,
        finding.message,
        finding.hint,
        file=place.file,
        line=place.line + text.count("\n", 0, start),
        column=column,
        length=max(1, min(end - start, len(excerpt) - column + 1)),
        excerpt=excerpt,
        policy_id=policy_id,
    )
