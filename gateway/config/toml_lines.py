"""Where each key of a TOML document stands: `tomllib` gives values without places, and a fault needs its line.

The scanner runs over documents that `tomllib` has accepted, so it looks for the ends of things only and judges nothing.
TOML 1.0.0.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterator

Path = tuple[str | int, ...]

_BLANK = re.compile(r"[ \t]*")
_GAP = re.compile(r"(?:[ \t\r\n]|#[^\n]*)*")
_BARE_KEY = re.compile(r"[A-Za-z0-9_-]+")
_BASIC_STRING = re.compile(r'"(?:[^"\\]|\\.)*"')
_LITERAL_STRING = re.compile(r"'[^']*'")
# The first three quotes end a multi-line string, and up to two more belong to it (TOML 1.0.0, "String").
_BASIC_BLOCK = re.compile(r'"""(?:[^\\]|\\.)*?"{3,5}', re.DOTALL)
_LITERAL_BLOCK = re.compile(r"'''.*?'{3,5}", re.DOTALL)
_SCALAR = re.compile(r"[^,\]}#\r\n]*")


class TomlLines:
    """The line of every table, key and array element of one document, by its path: `("routes", 0, "path")`."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._at = 0
        self._line = 1
        self._line_end = 0  # how far newlines are counted into _line
        self._lines: dict[Path, int] = {}
        self._lengths: dict[Path, int] = {}  # arrays of tables: how many elements so far
        self._scan()

    def __contains__(self, path: Path) -> bool:
        return path in self._lines

    def find(self, path: Path) -> int | None:
        """Return the line of `path`, or that of the innermost thing around it which stands in the text."""
        for length in range(len(path), 0, -1):
            line = self._lines.get(path[:length])
            if line is not None:
                return line
        return None

    def paths(self) -> Iterator[tuple[Path, int]]:
        """Give every path with its line, in the order of the text."""
        yield from self._lines.items()

    def _scan(self) -> None:
        table: Path = ()
        while True:
            self._skip(_GAP)
            if self._at >= len(self._text):
                return
            if self._text.startswith("[[", self._at):
                table = self._header("[[", "]]", array=True)
            elif self._text[self._at] == "[":
                table = self._header("[", "]", array=False)
            else:
                self._pair(table)

    def _header(self, opening: str, closing: str, *, array: bool) -> Path:
        line = self._line_here()
        self._at += len(opening)
        *parents, name = self._key()
        self._at += len(closing)
        path = (*self._inside((), parents, line), name)
        if array:
            index = self._lengths.get(path, 0)
            self._lengths[path] = index + 1
            self._lines.setdefault(path, line)
            path = (*path, index)
        else:
            path = self._latest(path)
        # A table may be opened by a dotted key of a child before its own header: the header is the better place.
        self._lines[path] = line
        return path

    def _pair(self, table: Path) -> None:
        line = self._line_here()
        *parents, name = self._key()
        self._at += 1  # the `=`
        self._skip(_BLANK)
        path = (*self._inside(table, parents, line), name)
        self._lines[path] = line
        self._value(path)

    def _inside(self, table: Path, parents: list[str], line: int) -> Path:
        """Step through the tables that a dotted key names; those that it makes stand on its line."""
        for parent in parents:
            table = self._latest((*table, parent))
            self._lines.setdefault(table, line)
        return table

    def _latest(self, path: Path) -> Path:
        """Inside an array of tables, a name means its last element (TOML 1.0.0, "Array of Tables")."""
        return (*path, self._lengths[path] - 1) if path in self._lengths else path

    def _value(self, path: Path) -> None:
        opening = self._text[self._at : self._at + 1]
        if opening == "[":
            self._array(path)
        elif opening == "{":
            self._inline_table(path)
        else:
            self._skip(self._string_or_scalar())

    def _array(self, path: Path) -> None:
        self._at += 1
        index = 0
        while True:
            self._skip(_GAP)
            if self._text[self._at] == "]":
                self._at += 1
                return
            if self._text[self._at] == ",":
                self._at += 1
                continue
            self._lines[(*path, index)] = self._line_here()
            self._value((*path, index))
            index += 1

    def _inline_table(self, path: Path) -> None:
        self._at += 1
        while True:
            self._skip(_GAP)
            if self._text[self._at] == "}":
                self._at += 1
                return
            if self._text[self._at] == ",":
                self._at += 1
                continue
            self._pair(path)

    def _key(self) -> list[str]:
        names = []
        while True:
            self._skip(_BLANK)
            start = self._at
            quote = self._text[start]
            self._skip({'"': _BASIC_STRING, "'": _LITERAL_STRING}.get(quote, _BARE_KEY))
            name = self._text[start : self._at]
            names.append(_unquoted(name) if quote in "\"'" else name)
            self._skip(_BLANK)
            if self._text[self._at] != ".":
                return names
            self._at += 1

    def _string_or_scalar(self) -> re.Pattern[str]:
        for opening, pattern in (
            ('"""', _BASIC_BLOCK),
            ("'''", _LITERAL_BLOCK),
            ('"', _BASIC_STRING),
            ("'", _LITERAL_STRING),
        ):
            if self._text.startswith(opening, self._at):
                return pattern
        return _SCALAR

    def _skip(self, pattern: re.Pattern[str]) -> None:
        found = pattern.match(self._text, self._at)
        if found is None:
            raise ValueError(f"no TOML at offset {self._at}")
        self._at = found.end()

    def _line_here(self) -> int:
        self._line += self._text.count("\n", self._line_end, self._at)
        self._line_end = self._at
        return self._line


def _unquoted(key: str) -> str:
    """Return what a quoted key stands for, escapes resolved."""
    [name] = tomllib.loads(f"{key} = 0")
    return name
