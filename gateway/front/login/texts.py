"""Every text that people read on the pages: one file a language, English where a language has none.

An operator's folder may hold files of the same form: they replace texts, or add a language.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Final

SHIPPED: Final = Path(__file__).parent / "languages"
FALLBACK: Final = "en"
FILES_MAX: Final = 100  # in an operator's folder
FILE_BYTES_MAX: Final = 256 * 1024
WISHES_MAX: Final = 16  # of one reader that are looked at
_NAME: Final = re.compile(r"[a-z]{2,3}(?:-[a-z0-9]{2,8})*")
_HOLE: Final = re.compile(r"\{(\w*)\}|[{}]")

Texts = Mapping[str, str]


class Catalogue:
    """All texts in all languages, by lower-case tags of languages (RFC 5646)."""

    def __init__(self, languages: Mapping[str, Texts]) -> None:
        """Every language has every text: `read_catalogue` makes it so."""
        self.languages: Mapping[str, Texts] = MappingProxyType(
            {tag: MappingProxyType(dict(texts)) for tag, texts in languages.items()}
        )

    def texts(self, accept_language: str, language: str = "") -> Texts:
        """Give the texts in the language that the browser likes best of those there are (RFC 9110 §12.5.4).

        `language`: one that was chosen; it goes first, where there is such a one.
        """
        for tag in (language, *_liked(accept_language)):
            found = self._tag(tag)
            if found:
                return self.languages[found]
        return self.languages[FALLBACK]

    def first_of(self, ui_locales: str) -> str:
        """Give the first of several tags that there are texts for, "" for none (OpenID Connect Core §3.1.2.1)."""
        return next(filter(None, map(self._tag, ui_locales.split()[:WISHES_MAX])), "")

    def _tag(self, wanted: str) -> str:
        """Give the tag that is there for one that is wanted: itself, or what is left of it (RFC 4647 §3.4)."""
        tag = wanted.lower()
        while tag and tag not in self.languages:
            tag = tag.rpartition("-")[0]
        return tag


def _liked(accept_language: str) -> Iterator[str]:
    liked: list[tuple[float, str]] = []
    for entry in accept_language.split(",")[:WISHES_MAX]:
        name, _, parameters = entry.strip().partition(";")
        weight = parameters.strip().removeprefix("q=")
        try:
            liked.append((float(weight) if weight else 1.0, name.strip()))
        except ValueError:
            continue
    return (tag for share, tag in sorted(liked, key=lambda each: -each[0]) if share > 0)


def read_catalogue(folder: Path | None = None) -> Catalogue:
    """Read the texts that come with the gateway, and over them those of a folder.

    Raises ValueError for a file that cannot be used, with its name and what is wrong.
    """
    languages = {path.stem: _read(path) for path in sorted(SHIPPED.glob("*.toml"))}
    english = languages[FALLBACK]
    for path in _files(folder):
        tag, own = path.stem.lower(), _read(path)
        _check(path, tag, own, english)
        languages[tag] = {**english, **languages.get(tag, {}), **own, "lang": path.stem}
    return Catalogue(languages)


def _files(folder: Path | None) -> list[Path]:
    if folder is None:
        return []
    if not folder.is_dir():
        raise ValueError(f"there is no folder `{folder}`")
    files = sorted(folder.glob("*.toml"))
    if len(files) > FILES_MAX:
        raise ValueError(f"`{folder}` holds more than {FILES_MAX} files of texts")
    return files


def _read(path: Path) -> dict[str, str]:
    try:
        with path.open("rb") as file:
            data = file.read(FILE_BYTES_MAX + 1)
        if len(data) > FILE_BYTES_MAX:
            raise ValueError(f"`{path}` is larger than {FILE_BYTES_MAX} bytes")
        given = tomllib.loads(data.decode())
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise ValueError(f"`{path}` cannot be read: {error}") from error
    return given


def _check(path: Path, tag: str, own: Mapping[str, object], english: Texts) -> None:
    """Raise ValueError for a file of an operator's that a page could fail by."""
    if not _NAME.fullmatch(tag):
        raise ValueError(f"`{path}` is named after no language: write `de.toml`, or `pt-br.toml`")
    for name, text in own.items():
        if name not in english:
            raise ValueError(f"`{path}` has a text `{name}` that no page shows")
        if not isinstance(text, str):
            raise ValueError(f"`{name}` in `{path}` is no text")
        holes = {hole[1] or hole[0] for hole in _HOLE.finditer(text)}
        if not holes <= set(_HOLE.findall(english[name])):
            raise ValueError(f"`{name}` in `{path}` has holes that nothing fills: {', '.join(sorted(holes))}")
