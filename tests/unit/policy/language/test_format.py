from __future__ import annotations

import random
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway._native.policy_text import tokenize
from gateway.policy import PolicySyntaxError
from gateway.policy.language.format import format_policies
from gateway.policy.language.lexer import comments_of
from gateway.policy.language.statements import parse_policies
from tests.unit.policy.language.texts import HEAD, TRICKY


def test_the_layout_is_as_documented() -> None:
    text = """// who may read

@id("read")@advice // trailing
permit(principal in Group::"readers",action in[Action::"read",Action::"list"],// both
  resource is Document in Folder::"f", ) when { // open
  principal.clearance>=3&& // enough
  // whole line
  principal.department==resource.department||(context has mfa&&context.mfa)
  // before close
  };


forbid(principal,action,resource)unless{true} // why
; // after
permit(principal,action,resource) when { ["aaaaaaaaaaaaaaaaaaaaaaaaa","bbbbbbbbbbbbbbbbbbbbbbbbbbbbbb","ccccccccccccc"]
.containsAll(principal.a) &&
(if principal.a == 1 then context.aaaaaaaaaaaaaaaaaaaaa else context.bbbbbbbbbbbbbbbbbbbbb) };
// the end"""
    assert (
        format_policies(text)
        == """// who may read

@id("read")
@advice // trailing
permit (
  principal in Group::"readers",
  action in [Action::"read", Action::"list"], // both
  resource is Document in Folder::"f"
)
when { // open
  principal.clearance >= 3 && // enough
    // whole line
    principal.department == resource.department ||
  (context has mfa && context.mfa)
  // before close
};

forbid (principal, action, resource)
unless { true }; // why

// after
permit (principal, action, resource)
when {
  [
    "aaaaaaaaaaaaaaaaaaaaaaaaa",
    "bbbbbbbbbbbbbbbbbbbbbbbbbbbbbb",
    "ccccccccccccc"
  ].containsAll(principal.a) &&
  (
    if principal.a == 1
    then context.aaaaaaaaaaaaaaaaaaaaa
    else context.bbbbbbbbbbbbbbbbbbbbb
  )
};

// the end
"""
    )


COMMENTS = [" // c\n", "\n// c \n", "\n\n  // c\n\n", " // c\r", "// c\r\n// d\n", "\n", "\n\n\n"]


def with_comments(text: str, rnd: random.Random) -> str:
    """The same text with comments and line ends where nobody expects them."""
    texts, ends = tokenize(text)
    pieces = []
    at = 0
    for word, end in zip(texts, ends, strict=True):
        pieces.append(text[at : end - len(word)])
        if rnd.random() < 0.15:
            pieces.append(rnd.choice(COMMENTS))
        pieces.append(word)
        at = end
    return "".join(pieces)


def check(text: str, width: int) -> str:
    formatted = format_policies(text, width=width)
    assert [each.statement for each in parse_policies(formatted)] == [each.statement for each in parse_policies(text)]
    assert format_policies(formatted, width=width) == formatted
    assert [comment for _, comment in comments_of(formatted)] == [comment.rstrip() for _, comment in comments_of(text)]
    return formatted


def readable() -> list[str]:
    found = []
    for text in TRICKY:
        try:
            parse_policies(text)
        except PolicySyntaxError:
            continue
        found.append(text)
    return found


@pytest.mark.parametrize("width", [10, 40, 80, 120])
def test_formatting_keeps_what_is_said_and_every_comment_and_is_done_once(width: int) -> None:
    rnd = random.Random(width)
    for text in readable():
        check(text, width)
        check(with_comments(text, rnd), width)


def test_policies_of_the_corpus_are_formatted(shared: Path) -> None:
    rnd = random.Random(1)
    for file in sorted((shared / "vectors/cedar").rglob("*.cedar")):
        check(file.read_text(), 80)
        check(with_comments(file.read_text(), rnd), 80)


@given(
    st.lists(st.sampled_from([f"{HEAD};", "// a\n", "\n", "\n\n", "  ", "\r\n", "// b\r", f"@x {HEAD};"])).map("".join)
)
def test_statements_are_apart_by_one_empty_line(text: str) -> None:
    formatted = check(text, 80)
    assert "\n\n\n" not in formatted
    assert not formatted or formatted.endswith("\n")
    assert not formatted.startswith(("\n", " "))
    assert all(line == line.rstrip() for line in formatted.split("\n"))


def test_lines_are_as_wide_as_asked_where_there_are_breaks() -> None:
    text = f"{HEAD} when {{ {' && '.join(f'context.a{number} == {number}' for number in range(40))} }};"
    for width in (30, 60, 100):
        assert max(map(len, format_policies(text, width=width).split("\n"))) <= width
    assert len(format_policies(text, width=10_000).split("\n")) == 3


def test_the_indentation_is_as_asked() -> None:
    text = f'{HEAD} when {{ "{"a" * 80}" == "b" }};'
    assert format_policies(text, indent=4).split("\n")[2].startswith('    "a')


@pytest.mark.parametrize("text", ["", " \n", "\r\n"])
def test_nothing_stays_nothing(text: str) -> None:
    assert format_policies(text) == ""


def test_a_faulty_text_is_refused_and_not_changed() -> None:
    with pytest.raises(PolicySyntaxError) as caught:
        format_policies("permit (x);", file="a.cedar")
    assert caught.value.faults[0].file == "a.cedar"


def test_deep_and_long_policies_are_formatted() -> None:
    deep = "(" * 70 + "true" + ")" * 70
    check(f"{HEAD} when {{ {deep} }};", 80)
    check(f"{HEAD} when {{ {' || '.join(['context.a'] * 3000)} }};", 80)
