from __future__ import annotations

import time

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from gateway._native.policy_text import shared_ends, split_statements, tokenize
from tests.oracle import policy_text as oracle

PIECES = st.lists(
    st.sampled_from(
        [
            "permit",
            "a",
            "_1",
            "é",
            "🔑",
            "0",
            "12",
            '"',
            '"a;b"',
            '"\\""',
            "\\",
            "//",
            "/",
            ";",
            "\n",
            "\r",
            " ",
            "\t",
            "\x0b",
            "\x1c",
            "\x85",
            "\u2028",
            "\u3000",
            ":",
            "=",
            "!",
            "<",
            ">",
            "&",
            "|",
            "?",
            "{",
            "}",
            "\0",
            ".",
        ]
    ),
    max_size=40,
)
TEXTS = PIECES.map("".join)


@given(TEXTS)
@example('"')
@example('"\\')
@example('"\n;\\\n";a')
@example("a // b\r;c")
def test_statements_are_split_as_the_oracle_splits_them(text: str) -> None:
    assert split_statements(text) == oracle.split_statements(text)


@given(TEXTS)
@example("?a ?1 ? ?_")
@example("===!=<==>=:::&&&|||")
@example('"\\')
def test_tokens_are_the_oracles(text: str) -> None:
    assert tokenize(text) == oracle.tokenize(text)


@given(st.text())
def test_any_text_has_tokens_and_statements(text: str) -> None:
    assert tokenize(text) == oracle.tokenize(text)
    assert split_statements(text) == oracle.split_statements(text)


@given(TEXTS, TEXTS, TEXTS, TEXTS)
def test_what_two_texts_share_is_what_the_oracle_finds(head: str, old: str, new: str, tail: str) -> None:
    first, second = head + old + tail, head + new + tail
    widths = [max((1, *(1 + (ord(c) > 0xFF) + (ord(c) > 0xFFFF) for c in text))) for text in (first, second)]
    expected = oracle.shared_ends(first, second) if widths[0] == widths[1] else (0, 0)
    assert shared_ends(first, second) == expected


@pytest.mark.parametrize("character", ["a", "\u0141", "\U0001f511"])
def test_long_texts_are_compared_in_blocks_and_to_the_character(character: str) -> None:
    text = character * 20_001
    changed = text[:10_000] + character + "b" + text[10_001:]
    head, tail = shared_ends(text, changed)
    assert (head, tail) == (10_001, 10_000)
    assert shared_ends(text, text) == (20_001, 0)
    assert shared_ends(text, "") == (0, 0)


def test_reading_may_begin_between_two_statements_and_stop_behind_one() -> None:
    text = 'a;\n  b "\n" ; c; // d;\ne;'
    whole = split_statements(text)
    assert whole == [(0, 2, 1, 1), (5, 12, 2, 3), (13, 15, 3, 5), (22, 24, 4, 1)]
    assert split_statements(text, 2, 1, 3) == whole[1:]
    assert split_statements(text, 2, 1, 3, 12) == whole[1:2]
    assert split_statements(text, 2, 1, 3, 13) == whole[1:3]
    assert split_statements(text, 0, 1, 1, 0) == whole[:1]


@pytest.mark.parametrize("start", [-1, 4])
def test_a_start_outside_the_text_is_refused(start: int) -> None:
    with pytest.raises(ValueError, match="outside"):
        split_statements("a;b", start)


def test_the_time_is_linear_in_the_text() -> None:
    def best(text: str) -> float:
        times = []
        for _ in range(3):
            began = time.process_time()
            split_statements(text)
            tokenize(text)
            times.append(time.process_time() - began)
        return min(times)

    for piece in ('"', '"\\', "/", "//\n", "a", ";", "\n"):
        assert best(piece * 200_000) < 40 * best(piece * 20_000) + 0.1
