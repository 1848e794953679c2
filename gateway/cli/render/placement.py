"""Which app a request goes to: a list that is read from the top, in the order in which the gateway finds routes.

A proxy that chooses the app by another rule than the gateway chooses the route lets requests through to an app that
was not judged. So the list has whole patterns where a prefix would take more than the route, and each host's list goes
on with the routes of the wildcards above it and of any host.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from enum import IntEnum
from typing import TypeVar
from urllib.parse import unquote


class Kind(IntEnum):
    """What a segment takes; the gateway tries them in this order (_native/routes.pyx)."""

    LITERAL = 0
    PARAMETER = 1
    REST = 2


Segment = tuple[Kind, str]
Target = TypeVar("Target")


@dataclass(frozen=True, slots=True)
class Pattern:
    """A route's path by segments; literals are decoded."""

    segments: tuple[Segment, ...]

    @property
    def prefix(self) -> str | None:
        """The text that all its paths begin with, and that no others do; None where there is no such text."""
        *before, last = self.segments
        if last[0] != Kind.REST or any(kind != Kind.LITERAL for kind, _ in before):
            return None
        return "/" + "".join(f"{text}/" for _, text in before)

    @property
    def exact(self) -> str | None:
        """Its only path; None where it has many."""
        if any(kind != Kind.LITERAL for kind, _ in self.segments):
            return None
        return "/" + "/".join(text for _, text in self.segments)

    @property
    def takes_all(self) -> bool:
        return self.prefix == "/"

    def regex(self, spell: Callable[[str], str] = re.escape) -> str:
        """Write it as a regex for whole paths; `spell` writes a literal."""
        pieces = {Kind.PARAMETER: "[^/]+", Kind.REST: ".*"}
        return "/" + "/".join(pieces.get(kind) or spell(text) for kind, text in self.segments)

    def __str__(self) -> str:
        pieces = {Kind.PARAMETER: "{}", Kind.REST: "{*}"}
        return "/" + "/".join(pieces.get(kind) or text for kind, text in self.segments)


def parse_pattern(path: str) -> Pattern:
    """Read the path of a route that was checked."""
    segments: list[Segment] = []
    for text in path[1:].split("/"):
        if text.startswith("{*"):
            segments.append((Kind.REST, ""))
        elif text.startswith("{"):
            segments.append((Kind.PARAMETER, ""))
        else:
            segments.append((Kind.LITERAL, unquote(text)))
    return Pattern(tuple(segments))


ALL = parse_pattern("/{*rest}")


def kinds(pattern: Pattern) -> tuple[Kind, ...]:
    """Give what sorts patterns as the gateway tries them: literal before parameter before rest, segment by segment."""
    return tuple(kind for kind, _ in pattern.segments)


def overlaps(one: Pattern, other: Pattern) -> bool:
    """Tell whether some path is taken by both."""
    for (kind, text), (other_kind, other_text) in zip(one.segments, other.segments, strict=False):
        if Kind.REST in {kind, other_kind}:
            return True
        if kind == other_kind == Kind.LITERAL and text != other_text:
            return False
        if kind != other_kind and not (text or other_text):
            return False  # a parameter takes no empty segment
    return len(one.segments) == len(other.segments)


def covers(wide: Pattern, narrow: Pattern) -> bool:
    """Tell whether `wide` takes every path that `narrow` takes."""
    for (kind, text), (narrow_kind, narrow_text) in zip(wide.segments, narrow.segments, strict=False):
        if kind == Kind.REST:
            return True
        if narrow_kind == Kind.REST or (kind == Kind.LITERAL and (narrow_kind, narrow_text) != (kind, text)):
            return False
        if kind == Kind.PARAMETER and narrow_kind == Kind.LITERAL and not narrow_text:
            return False
    return len(wide.segments) == len(narrow.segments)


def shortest(rules: Sequence[tuple[Pattern, Target]], rest: Target) -> list[tuple[Pattern, Target]]:
    """Leave out what changes nothing. What no rule takes goes to `rest`: the gateway lets none of it through."""
    reachable: list[tuple[Pattern, Target]] = []
    for pattern, target in rules:
        if not any(covers(earlier, pattern) for earlier, _ in reachable):
            reachable.append((pattern, target))
    if not any(pattern.takes_all for pattern, _ in reachable):
        reachable.append((ALL, rest))
    kept: list[tuple[Pattern, Target]] = []
    for pattern, target in reversed(reachable):
        if _changes_something(pattern, target, kept):
            kept.insert(0, (pattern, target))
    return kept


def _changes_something(pattern: Pattern, target: Target, later: Iterable[tuple[Pattern, Target]]) -> bool:
    for other, other_target in later:
        if overlaps(pattern, other):
            if other_target != target:
                return True
            if covers(other, pattern):
                return False
    return True


def any_spelling(text: str) -> str:
    """Write a regex for a literal with any of its characters percent-encoded, for proxies that compare raw paths.

    The gateway judges `/%61pi/x` as `/api/x`, and it must go where that goes.
    """
    return "".join(c if c == "/" else f"(?:{re.escape(c)}|{escaped(c)})" for c in text)


def escaped(character: str) -> str:
    """Write a regex for a character's percent-encoding, in either case."""
    return "".join(re.sub("[A-F]", lambda m: f"[{m[0]}{m[0].lower()}]", f"%{byte:02X}") for byte in character.encode())
