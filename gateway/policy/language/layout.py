"""Documents that know where they may break, and their layout within a width.

The shape is Wadler's ("A prettier printer"): a group is written flat where it fits, and breaks all its own lines where
it does not. Comments are part of the document: they end a line, so nothing that holds one is written flat.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, TypeAlias

Doc: TypeAlias = "str | Line | Comments | Indent | Group | tuple[Doc, ...]"


@dataclass(frozen=True, slots=True)
class Line:
    """A break: a new line where its group breaks, else `flat`. `hard` breaks always."""

    flat: str = " "
    hard: bool = False


@dataclass(frozen=True, slots=True)
class Comments:
    """Comments that stand here: each with whether it follows its predecessor on the same line."""

    items: tuple[tuple[str, bool], ...]


@dataclass(frozen=True, slots=True)
class Indent:
    """Lines that break within stand one step further right."""

    inner: Doc


@dataclass(frozen=True, slots=True)
class Group:
    """Flat, or broken, as a whole."""

    inner: Doc


SPACE: Final = Line()
SOFT: Final = Line("")
HARD: Final = Line("", hard=True)


def render(doc: Doc, *, width: int, indent: int) -> str:
    """Write a document in lines of at most `width` characters, where it has breaks enough for that."""
    return _Renderer(width, indent).render(doc)


class _Renderer:
    def __init__(self, width: int, indent: int) -> None:
        self._width = width
        self._step = indent
        self._out: list[str] = []
        self._column = 0
        self._fresh = True  # nothing but indentation stands on the line
        self._ended = False  # a comment ended the line; nothing but a new line may follow

    def render(self, doc: Doc) -> str:
        waiting: list[tuple[int, bool, Doc]] = [(0, False, doc)]  # indentation, flat, document
        while waiting:
            depth, flat, item = waiting.pop()
            if isinstance(item, str):
                self._write(item, depth)
            elif isinstance(item, tuple):
                waiting.extend((depth, flat, part) for part in reversed(item))
            elif isinstance(item, Indent):
                waiting.append((depth + self._step, flat, item.inner))
            elif isinstance(item, Group):
                waiting.append((depth, flat or self._fits(item.inner, waiting), item.inner))
            elif isinstance(item, Comments):
                self._comments(item, depth)
            elif isinstance(item, Line):
                if flat and not item.hard:
                    self._write(item.flat, depth)
                else:
                    self._break(depth)
        return "".join(self._out)

    def _write(self, text: str, depth: int) -> None:
        if not text:
            return
        if self._ended:
            self._break(depth)
        if self._fresh:
            text = text.lstrip(" ")
        self._out.append(text)
        self._fresh = False
        newline = text.rfind("\n")  # within a string literal
        self._column = self._column + len(text) if newline < 0 else len(text) - newline - 1

    def _break(self, depth: int) -> None:
        if self._fresh and not self._ended:
            # No two in a row; the later one knows how far to the right the next word stands.
            if self._out:
                self._out[-1] = "\n" + " " * depth
                self._column = depth
            return
        self._drop_space()
        self._out.append("\n" + " " * depth)
        self._column = depth
        self._fresh = True
        self._ended = False

    def _drop_space(self) -> None:
        if self._out and self._out[-1] == " ":
            self._out.pop()

    def _comments(self, comments: Comments, depth: int) -> None:
        for text, trailing in comments.items:
            if self._ended or not trailing:
                self._break(depth)
            self._drop_space()
            self._out.append(text if self._fresh else " " + text)
            self._fresh = False
            self._ended = True

    def _fits(self, doc: Doc, rest: list[tuple[int, bool, Doc]]) -> bool:
        """Tell whether `doc`, flat, and what follows up to the next break, fit into the line."""
        if self._ended:
            return False
        left = self._width - self._column
        waiting: list[tuple[bool, Doc]] = [(True, doc)]
        behind = len(rest)
        while left >= 0:
            if waiting:
                flat, item = waiting.pop()
            elif behind:
                behind -= 1
                _, flat, item = rest[behind]
            else:
                return True
            if isinstance(item, str):
                left -= len(item)
            elif isinstance(item, tuple):
                waiting.extend((flat, part) for part in reversed(item))
            elif isinstance(item, Indent | Group):
                waiting.append((flat, item.inner))
            elif isinstance(item, Comments):
                if item.items:
                    return not flat  # one that stands behind ends the line
            elif isinstance(item, Line):
                if item.hard or not flat:
                    return not flat
                left -= len(item.flat)
        return False
