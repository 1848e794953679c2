"""The word that was probably meant."""

import pytest

from gateway.policy.validator.hints import Words


@pytest.mark.parametrize(
    ("wrong", "meant"),
    [
        ("raed", "read"), ("reed", "read"), ("rea", "read"), ("reads", "read"), ("READ", "read"), ("read", "read"),
        ("App::User", "User"), ("user", "User"), ("Role", "Org::Role"), ("Org::Rule", "Org::Role"),
    ],
)  # fmt: skip
def test_a_word_that_is_off_by_little_is_found(wrong: str, meant: str) -> None:
    words = Words(["read", "write", "User", "Org::Role"])
    assert words.nearest(wrong) == meant
    assert words.hint(wrong) == f"did you mean `{meant}`?"


@pytest.mark.parametrize("wrong", ["", "x", "zebra", "r", "read" * 50])
def test_a_word_that_is_like_none_has_no_hint(wrong: str) -> None:
    words = Words(["read", "write", "a", "ab"])
    assert words.nearest(wrong) is None
    assert words.hint(wrong) == ""


def test_a_word_that_is_the_same_but_for_its_case_comes_before_one_that_is_like_it() -> None:
    assert Words(["reads", "Read"]).nearest("read") == "Read"


def test_of_words_that_are_equally_near_the_first_by_name_is_told() -> None:
    assert Words(["isIpv6", "isIpv4"]).nearest("isIpv5") == "isIpv4"
