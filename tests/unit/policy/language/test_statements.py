from __future__ import annotations

import gc
import random
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.policy import Fault, PolicySyntaxError
from gateway.policy.language import limits, statements
from gateway.policy.language.statements import (
    ParsedStatement,
    parse_expression,
    parse_policies,
    reparse_policies,
    split_policies,
)
from tests.unit.policy.language.texts import HEAD, TRICKY


def faults_of(text: str, file: str | None = None) -> tuple[Fault, ...]:
    with pytest.raises(PolicySyntaxError) as caught:
        parse_policies(text, file=file)
    return caught.value.faults


def when(text: str) -> str:
    return f"{HEAD} when {{ {text} }};"


@pytest.mark.parametrize(
    ("text", "code", "under", "hint"),
    [
        ("permitt (principal, action, resource);", "unexpected_token", "permitt", "did you mean `permit`?"),
        ("permit principal;", "unexpected_token", "principal", "permit (principal, action, resource)"),
        ("permit (action, principal, resource);", "unexpected_token", "action", "in this order"),
        ("permit (principal);", "unexpected_token", ")", "in this order"),
        ("permit (principal, action, resource, context);", "unexpected_token", "context", "nothing more"),
        (HEAD, "unexpected_end", "", "ends with `;`"),
        (f"{HEAD} {HEAD};", "unexpected_token", "permit", "ends with `;`"),
        (f"{HEAD} when true;", "unexpected_token", "true", "in braces"),
        (f"{HEAD} when {{}};", "empty_condition", "}", "leave it out"),
        (f"{HEAD} when {{ true", "unexpected_end", "", "ends with `}`"),
        ("permit (principal.a == 1, action, resource);", "unexpected_token", ".", "belong into `when { … }`"),
        ('permit (principal = A::"b", action, resource);', "unexpected_token", "=", "`==` compares"),
        ("permit (principal == A, action, resource);", "unexpected_token", ",", 'Type::"id"'),
        ("permit (principal == 1, action, resource);", "unexpected_token", "1", "`when { … }`"),
        ('permit (principal in [A::"b"], action, resource);', "set_in_scope", "[", "one policy for each"),
        ('permit (principal is A == A::"b", action, resource);', "unexpected_token", "==", "goes with `in` only"),
        ("permit (principal == ?resource, action, resource);", "wrong_slot", "?resource", "`?principal`"),
        ("permit (principal, action is Action, resource);", "is_in_action", "is", "name actions"),
        ("permit (principal, action == ?action, resource);", "wrong_slot", "?action", "`?principal` and `?resource`"),
        ('permit (principal, action == User::"a", resource);', "no_action", "User", 'Action::"read"'),
        (f"@a @a {HEAD};", "duplicate_annotation", "a", "keep one"),
        (f"@1 {HEAD};", "unexpected_token", "1", '@name("text")'),
        (f"@a(b) {HEAD};", "unexpected_token", "b", '@name("text")'),
        (when("principal.a = 1"), "unexpected_token", "=", "`==` compares"),
        (when("true and false"), "unexpected_token", "and", "`&&`"),
        (when("true or false"), "unexpected_token", "or", "`||`"),
        (when("not true"), "unexpected_token", "not", "`!`"),
        (when("context & true"), "unknown_character", "&", "`&&`"),
        (when("1 < 2 < 3"), "chained_relation", "<", "`a < b && b < c`"),
        (when("context has a + 1"), "unexpected_token", "+", "in brackets"),
        (when("6 / 2"), "unexpected_token", "/", "no division"),
        (when("6 % 2"), "unexpected_token", "%", "no remainder"),
        (when("'a' == context.b"), "unknown_character", "'", "double quotes"),
        (when("context == \u201ca\u201d"), "unknown_character", "\u201c", "straight quotes"),
        (when("context == #"), "unknown_character", "#", ""),
        (when("context == \x07"), "unknown_character", "\x07", ""),
        (when('"abc'), "unclosed_text", '"', '\\"'),
        (when('context like "'), "unclosed_text", '"', '\\"'),
        (when("a == 1"), "unknown_variable", "a", "text stands in quotes"),
        (when("princpal == resource"), "unknown_variable", "princpal", "did you mean `principal`?"),
        (when('"a\\q" == "b"'), "invalid_escape", "\\q", "\\u{1F511}"),
        (when('context like "*\\q"'), "invalid_escape", "\\q", "\\u{1F511}"),
        (when("context like b"), "unexpected_token", "b", "photo-*.jpg"),
        (when('principal is "A"'), "unexpected_token", '"A"', "no quotes"),
        (when("principal.if"), "reserved_name", "if", '["if"]'),
        (when("then == 1"), "reserved_name", "then", "another name"),
        (when('__cedar::"a" == 1'), "reserved_name", "__cedar", "another name"),
        (when("true && if true then true else false"), "reserved_name", "if", "in brackets"),
        (when("?principal == principal"), "slot_in_condition", "?principal", "the head only"),
        (when("9223372036854775808 > 1"), "number_too_large", "9223372036854775808", "9223372036854775807"),
        (when("1.5 > 1"), "no_number", "1.5", 'decimal("1.5")'),
        (when("1_000 > 1"), "no_number", "1_000", "without `_`"),
        (when("-----1 < 1"), "too_many_signs", "-", "is none"),
        (when("[1, 2"), "unexpected_token", "}", "`]` behind the last"),
        (when("(1"), "unexpected_token", "}", "is closed"),
        (when("{a: 1, a: 2} == 1"), "duplicate_attribute", "a", "keep one"),
        (when("{a = 1} == 1"), "unexpected_token", "=", "{name: value, …}"),
        (when("principal.contain(1)"), "unknown_method", "contain", "did you mean `contains`?"),
        (when('ipp("a")'), "unknown_function", "ipp", "did you mean `ip`?"),
        (when('zzz("a")'), "unknown_function", "zzz", "datetime, decimal, duration, ip"),
        (when("isIpv4(context.a)"), "method_as_function", "isIpv4", "….isIpv4(…)"),
        (when('context.decimal("1")'), "function_as_method", "decimal", 'decimal("…")'),
        (when("context.contains()"), "wrong_arguments", "contains", "….contains(…)"),
        (when("context.isEmpty(1)"), "wrong_arguments", "isEmpty", "….isEmpty()"),
        (when("if true then 1"), "unexpected_token", "}", "both ways"),
        (when("principal[a]"), "unexpected_token", "a", 'resource["name"]'),
        (when("principal."), "unexpected_token", "}", '["a b"]'),
        (when("context.a contains 1"), "unexpected_token", "contains", "set.contains(item)"),
        (when('principal == "a\ud800"'), "lone_surrogate", "\ud800", "UTF-8"),
    ],
)
def test_a_fault_has_its_code_its_place_and_a_hint_that_helps(text: str, code: str, under: str, hint: str) -> None:
    [fault] = faults_of("\n  " + text, file="a.cedar")
    assert fault.code == code
    assert (fault.file, fault.line) == ("a.cedar", 2)
    assert fault.column is not None
    assert fault.excerpt == "  " + text
    assert fault.excerpt[fault.column - 1 : fault.column - 1 + fault.length] == under
    assert fault.hint
    assert hint in fault.hint
    assert fault.message[0].islower() or fault.message[0] == "`"
    assert not fault.message.endswith(".")


def test_a_fault_is_shown_with_its_line_and_a_caret() -> None:
    [fault] = faults_of(f"{HEAD}\nwhen {{\n\tprincipal.a = 1\n}};", file="p.cedar")
    assert str(fault) == (
        "p.cedar:3:14: unexpected `=`, `}` or an operator is expected\n"
        "    \tprincipal.a = 1\n"
        "    \t            ^\n"
        "  hint: `==` compares"
    )


def test_several_faults_are_told_in_one_go() -> None:
    faults = faults_of(f'permit (x);\n{HEAD};\nforbid (y); // "\n{when("1 = 2")}')
    assert [(fault.line, fault.code) for fault in faults] == [
        (1, "unexpected_token"),
        (3, "unexpected_token"),
        (4, "unexpected_token"),
    ]


def test_a_statement_torn_by_a_semicolon_is_one_fault() -> None:
    [fault] = faults_of(f"{HEAD} when {{ true; false; true }};\n{HEAD};")
    assert (fault.line, fault.column) == (1, 49)


def test_no_more_faults_are_told_than_the_limit() -> None:
    assert len(faults_of("permit (x);\n" * 50)) == limits.FAULTS_MAX


def test_the_excerpt_of_an_endless_line_is_left_out() -> None:
    [fault] = faults_of(when("1 = 2 " + " " * 1000))
    assert fault.excerpt == ""
    assert fault.column == 47


# --- limits


def test_a_text_beyond_the_limit_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "TEXT_CHARACTERS_MAX", 100)
    assert parse_policies(" " * 100) == []
    [fault] = faults_of(" " * 101)
    assert (fault.code, fault.line) == ("text_too_large", 1)
    with pytest.raises(PolicySyntaxError, match="characters"):
        reparse_policies(" " * 101, "", [])


def test_too_many_statements_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "STATEMENTS_MAX", 3)
    known = parse_policies(f"{HEAD};" * 3)
    assert faults_of(f"{HEAD};" * 4)[0].code == "too_many_policies"
    with pytest.raises(PolicySyntaxError, match="more than 3 policies"):
        reparse_policies(f"{HEAD};" * 4, f"{HEAD};" * 3, known)


def test_a_statement_beyond_the_limit_is_refused_and_not_others() -> None:
    long = '"' + "a" * limits.STATEMENT_CHARACTERS_MAX + '"'
    [fault] = faults_of(f"{HEAD};\n{when(long)}\n{HEAD};")
    assert (fault.code, fault.line) == ("policy_too_large", 2)
    with pytest.raises(PolicySyntaxError, match="characters"):
        parse_expression(long)


@pytest.mark.parametrize(
    ("opening", "inner", "closing"),
    [
        ("(", "1", ")"), ("[", "1", "]"), ("{a: ", "1", "}"), ("if ", "true", " then 1 else 1"),
        ("[].contains(", "1", ")"), ("ip(", "1", ")"), ("!(", "1", ")"),
        ("-(", "1", ")"), ("1 + (", "1", ")"), ("true && (", "true", ")"),
        ("if true then 1 else ", "1", ""),
    ],
)  # fmt: skip
def test_nesting_is_bounded_and_never_overflows_the_stack(opening: str, inner: str, closing: str) -> None:
    def nested(depth: int) -> str:
        return opening * depth + inner + closing * depth

    parse_expression(nested(limits.NESTING_MAX - 1))
    for depth in (limits.NESTING_MAX, 5_000, 100_000):
        with pytest.raises(PolicySyntaxError) as caught:
            parse_expression(nested(depth))
        assert [fault.code for fault in caught.value.faults] in (["too_deep"], ["policy_too_large"])


def test_brackets_in_a_scope_are_bounded() -> None:
    def scope(depth: int) -> str:
        return f'permit (principal == {"(" * depth}A::"b"{")" * depth}, action, resource);'

    parse_policies(scope(limits.NESTING_MAX))
    assert faults_of(scope(limits.NESTING_MAX + 1))[0].code == "too_deep"
    assert faults_of(scope(50_000))[0].code == "too_deep"


@pytest.mark.parametrize(
    ("head", "more", "most"),
    [
        ("1", " + 1", limits.CHAIN_MAX),
        ("1", " - 1", limits.CHAIN_MAX),
        ("1", " * 1", limits.CHAIN_MAX),
        ("context", ".a", limits.CHAIN_MAX),
        ("context", '["a"]', limits.CHAIN_MAX),
        ("context", ".isEmpty()", limits.CHAIN_MAX),
        ("context has a", ".a", limits.CHAIN_MAX - 1),
        ("true", " && true", limits.OPERANDS_MAX - 1),
        ("true", " || true", limits.OPERANDS_MAX - 1),
    ],
)
def test_chains_are_bounded(head: str, more: str, most: int) -> None:
    parse_expression(head + more * most)
    with pytest.raises(PolicySyntaxError) as caught:
        parse_expression(head + more * (most + 1))
    assert caught.value.faults[0].code == "too_long"


def test_items_are_bounded() -> None:
    items = "1," * limits.OPERANDS_MAX
    parse_expression(f"[{items}]")
    with pytest.raises(PolicySyntaxError) as caught:
        parse_expression(f"[{items}1]")
    assert caught.value.faults[0].code == "too_long"


@pytest.mark.parametrize("piece", [*'([{"\\/@!-;\n', "permit", "a.", "::", '"\\'])
def test_a_long_hostile_text_is_refused_in_linear_time(piece: str) -> None:
    began = time.process_time()
    try:
        parse_policies(piece * (500_000 // len(piece)))
    except PolicySyntaxError as error:
        assert error.faults
    assert time.process_time() - began < 5


# --- what was read before


def test_statements_that_were_read_before_are_the_same_objects() -> None:
    first = parse_policies(f"{when('1 == 1')}\n{when('2 == 2')}")
    second = parse_policies(f"{when('2 == 2')}\n{when('3 == 3')}")
    assert second[0].statement is first[1].statement
    assert second[0].place.line == 1


def test_what_is_kept_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(statements, "_KEPT_MAX", 10)
    parse_policies("\n".join(when(f"{number} == 1") for number in range(100)))
    assert len(statements._kept) <= 10


def test_the_cycle_collector_is_left_as_it_was() -> None:
    assert gc.isenabled()
    faults_of("permit;")
    assert gc.isenabled()
    gc.disable()
    try:
        parse_policies(f"{HEAD};")
        assert not gc.isenabled()
    finally:
        gc.enable()


def test_splitting_gives_the_places_that_parsing_gives() -> None:
    text = f"// a;\n{HEAD}; {when('1 == 1')}\n\n{HEAD};"
    places = [(parsed.start, parsed.end, parsed.line, parsed.column) for parsed in parse_policies(text)]
    assert split_policies(text) == places


def spots(parsed: list[ParsedStatement]) -> list[tuple[int, int, int, int, object]]:
    return [(each.start, each.end, each.line, each.column, each.statement) for each in parsed]


PIECES = [f"{HEAD};", f"forbid{HEAD[6:]};", when("1 == 1"), when('"a;\n" == "//"'), "// c\n", "// ;\r", " ", "\n"]


@given(st.lists(st.sampled_from(PIECES), max_size=12), st.data())
def test_reading_again_gives_what_reading_gives(pieces: list[str], data: st.DataObject) -> None:
    before = "".join(pieces)
    known = parse_policies(before)
    start = data.draw(st.integers(0, len(pieces)))
    end = data.draw(st.integers(start, len(pieces)))
    inserted = data.draw(st.lists(st.sampled_from(PIECES), max_size=4))
    text = "".join([*pieces[:start], *inserted, *pieces[end:]])
    again, first, rest = reparse_policies(text, before, known)
    assert spots(again) == spots(parse_policies(text))
    assert first + rest <= min(len(known), len(again))
    assert all(old is new for old, new in zip(known[:first], again[:first], strict=True))


def test_reading_again_after_any_small_change_gives_what_reading_gives() -> None:
    rnd = random.Random(7)
    whole = "\n".join(text for text in TRICKY if not is_faulty(text))
    known = parse_policies(whole)
    read = refused = 0
    for _ in range(800):
        at = rnd.randrange(len(whole))
        text = whole[:at] + rnd.choice(["", " ", "\n", ";", '"', "//", "\r", "a"]) + whole[at + rnd.randrange(3) :]
        try:
            expected = parse_policies(text)
        except PolicySyntaxError as error:
            refused += 1
            with pytest.raises(PolicySyntaxError) as caught:
                reparse_policies(text, whole, known)
            assert caught.value.faults == error.faults
        else:
            read += 1
            assert spots(reparse_policies(text, whole, known)[0]) == spots(expected)
    assert read > 50
    assert refused > 50


def is_faulty(text: str) -> bool:
    try:
        parse_policies(text)
    except PolicySyntaxError:
        return True
    return not text.rstrip().endswith(";")


def test_one_changed_statement_of_many_is_read_alone() -> None:
    before = "\n".join(when(f"{number} == 1") for number in range(1000))
    known = parse_policies(before)
    text = before.replace("500 == 1", "500 == 2")
    again, first, rest = reparse_policies(text, before, known)
    assert (first, rest) == (500, 499)
    assert sum(old is new for old, new in zip(known, again, strict=True)) == 999
