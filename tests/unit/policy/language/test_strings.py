from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway._native.uid import quoted
from gateway.policy.language.strings import EscapeError, unescape, unescape_pattern

CHARACTERS = st.characters(exclude_categories=["Cs"])


@given(st.text(CHARACTERS))
def test_what_was_quoted_reads_back(text: str) -> None:
    assert unescape(quoted(text)[1:-1]) == text


@pytest.mark.parametrize(
    ("raw", "expected"),
    [
        (r"\n\r\t\\\0\'\"", "\n\r\t\\\0'\""),
        (r"\x00\x7F\x7f", "\0\x7f\x7f"),
        (r"\u{0}\u{10FFFF}\u{1_f5_11}\u{41_}", "\0\U0010ffff\U0001f511A"),
        ("plain\nline", "plain\nline"),
    ],
)
def test_escapes_are_those_of_rust(raw: str, expected: str) -> None:
    assert unescape(raw) == expected


@pytest.mark.parametrize(
    ("raw", "escape", "offset"),
    [
        (r"ab\q", r"\q", 2), (r"\*", r"\*", 0), (r"\x80", r"\x80", 0), (r"\xg0", r"\x", 0),
        (r"a\u{110000}", r"\u{110000}", 1),
        (r"\u{d800}", r"\u{d800}", 0), (r"\u{}", r"\u", 0), (r"\u{0000041}", r"\u{0000041}", 0),
        (r"\u{_1}", r"\u{_1}", 0),
        (r"\a", r"\a", 0), (r"\b", r"\b", 0),
    ],
)  # fmt: skip
def test_other_escapes_are_refused_with_their_place(raw: str, escape: str, offset: int) -> None:
    for read in (unescape, unescape_pattern):
        if raw == r"\*" and read is unescape_pattern:
            continue
        with pytest.raises(EscapeError) as caught:
            read(raw)
        assert (caught.value.escape, caught.value.offset) == (escape, offset)


def test_a_pattern_is_pieces_and_wildcards() -> None:
    assert unescape_pattern(r"a*\*b\n**") == ("a", None, "*b\n", None, None)
    assert unescape_pattern("") == ()


@given(st.lists(st.one_of(st.none(), st.text(CHARACTERS, min_size=1))))
def test_what_was_written_as_a_pattern_reads_back(pieces: list[str | None]) -> None:
    joined: list[str | None] = []
    for piece in pieces:
        if piece is not None and joined and joined[-1] is not None:
            joined[-1] += piece
        else:
            joined.append(piece)
    raw = "".join("*" if piece is None else quoted(piece)[1:-1].replace("*", r"\*") for piece in joined)
    assert unescape_pattern(raw) == tuple(joined)
