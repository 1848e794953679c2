"""The word that was probably meant where a wrong one stands."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from functools import cached_property
from typing import Final

_CHARACTERS_MAX: Final = 100  # of a word that is likely to be misspelled
_WORDS_MAX: Final = 5_000


class Words:
    """Known words, found by what is left of them without one character.

    Two words that differ by one character, one more or less, or two that changed places, have a rest in common. Looking
    that up costs the length of a word, so that a thousand wrong names are told of as quickly as one.
    """

    def __init__(self, known: Iterable[str]) -> None:
        self._known = known

    def hint(self, wrong: str) -> str:
        """Give a question that names the word that was probably meant, "" if none is like it."""
        near = self.nearest(wrong)
        return f"did you mean `{near}`?" if near is not None else ""

    def nearest(self, wrong: str) -> str | None:
        """Give the word that is like the wrong one, None if none is."""
        if len(wrong) > _CHARACTERS_MAX:
            return None
        index = self._index
        return next((index[key] for form in _forms(wrong) for key in (form, *_rests(form)) if key in index), None)

    @cached_property
    def _index(self) -> dict[str, str]:
        names = sorted(name for name in self._known if len(name) <= _CHARACTERS_MAX)[:_WORDS_MAX]
        found: dict[str, str] = {}
        for name in names:
            for form in _forms(name):
                found.setdefault(form, name)
        for name in names:
            for form in _forms(name):
                for rest in _rests(form):
                    found.setdefault(rest, name)
        return found


def _forms(name: str) -> tuple[str, ...]:
    """Give the name in small letters, and without its namespace."""
    folded = name.casefold()
    base = folded.rpartition("::")[2]
    return (folded,) if base == folded else (folded, base)


def _rests(form: str) -> Iterator[str]:
    """Give what is left of a word without one character; of very short words nothing that would tell them."""
    if len(form) >= 3:
        for index in range(len(form)):
            yield form[:index] + form[index + 1 :]
