from __future__ import annotations

import json
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cedarpy
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway._native.policy_text import tokenize
from gateway._native.uid import EntityUid
from gateway.policy import PolicySet, PolicySyntaxError
from gateway.policy.language import tree
from gateway.policy.language.statements import parse_expression, parse_policies
from gateway.policy.language.tree import (
    And,
    Binary,
    Call,
    GetAttr,
    HasAttr,
    If,
    Is,
    IsEmpty,
    Like,
    Literal,
    Negate,
    Not,
    Or,
    RecordOf,
    SetOf,
    Variable,
)
from tests.unit.policy.language.texts import HEAD, TRICKY

# isort: split
P, R, C = Variable("principal"), Variable("resource"), Variable("context")
ONE, TWO, THREE, YES, NO = Literal(1), Literal(2), Literal(3), Literal(True), Literal(False)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("true", YES),
        ("0042", Literal(42)),
        ("-9223372036854775808", Literal(-(2**63))),
        ("-1", Literal(-1)),
        ("--1", Negate(Literal(-1))),
        ("-(1)", Negate(ONE)),
        ("-1.a", Negate(GetAttr(ONE, "a"))),
        ("!!context", Not(Not(C))),
        (r'"a\n\u{1F511}\x41\0\'"', Literal("a\n\U0001f511A\0'")),
        ('User::"a"', Literal(EntityUid("User", "a"))),
        ('A::B :: "a\\"b"', Literal(EntityUid("A::B", 'a"b'))),
        ('principal::"x"', Literal(EntityUid("principal", "x"))),
        ("1 + 2 * 3", Binary("+", ONE, Binary("*", TWO, THREE))),
        ("1 - 2 - 3", Binary("-", Binary("-", ONE, TWO), THREE)),
        ("(1 - 2) * 3", Binary("*", Binary("-", ONE, TWO), THREE)),
        ("1 + 2 < 3", Binary("<", Binary("+", ONE, TWO), THREE)),
        ("1 - -2", Binary("-", ONE, Literal(-2))),
        ("true && false || true", Or(And(YES, NO), YES)),
        ("true || false && true", Or(YES, And(NO, YES))),
        ("true && false && true", And(And(YES, NO), YES)),
        ("!true == false", Binary("==", Not(YES), NO)),
        ("if true then 1 else if false then 2 else 3", If(YES, ONE, If(NO, TWO, THREE))),
        ("if true then 1 else 2 + 3", If(YES, ONE, Binary("+", TWO, THREE))),
        ("principal.a.b", GetAttr(GetAttr(P, "a"), "b")),
        ('principal["a b"].c', GetAttr(GetAttr(P, "a b"), "c")),
        ("principal has a.b", HasAttr(P, ("a", "b"))),
        ('principal has "a.b"', HasAttr(P, ("a.b",))),
        ("principal.a has b", HasAttr(GetAttr(P, "a"), ("b",))),
        ("principal in resource", Binary("in", P, R)),
        ("principal is A::B", Is(P, "A::B")),
        ("principal is A in resource.g", Is(P, "A", GetAttr(R, "g"))),
        (r'context like "a*\*b**"', Like(C, ("a", None, "*b", None, None))),
        ('context like ""', Like(C, ())),
        ("principal.contains(1)", Binary("contains", P, ONE)),
        ("principal.containsAll([1, 2,])", Binary("containsAll", P, SetOf((ONE, TWO)))),
        ("principal.isEmpty()", IsEmpty(P)),
        ('principal.getTag("a")', Binary("getTag", P, Literal("a"))),
        ('ip("::1").isLoopback()', Call("isLoopback", (Call("ip", (Literal("::1"),)),))),
        ("ip()", Call("ip", ())),
        ('{a: 1, "b c": {}}', RecordOf((("a", ONE), ("b c", RecordOf(()))))),
        ("[]", SetOf(())),
    ],
)
def test_an_expression_becomes_its_tree(text: str, expected: tree.Expr) -> None:
    assert parse_expression(text) == expected


def test_true_and_one_are_different_literals() -> None:
    assert parse_expression("true") != parse_expression("1")


def test_a_statement_has_its_parts_in_the_order_of_the_text() -> None:
    [parsed] = parse_policies(
        '@id("x") @note forbid (principal is User in Group::"g", action in [Action::"a", N::Action::"b"], resource) '
        "when { true } unless { false };"
    )
    statement = parsed.statement
    assert statement.effect == "forbid"
    assert list(statement.annotations.items()) == [("id", "x"), ("note", None)]
    assert statement.principal == tree.Constraint("is in", (EntityUid("Group", "g"),), "User")
    actions = (EntityUid("Action", "a"), EntityUid("N::Action", "b"))
    assert statement.action == tree.Constraint("in", actions, listed=True)
    assert statement.resource == tree.Constraint()
    assert statement.conditions == (tree.Condition("when", YES), tree.Condition("unless", NO))
    assert statement.slots == ()


def test_slots_stand_in_place_of_entities() -> None:
    [parsed] = parse_policies("permit (principal in ?principal, action, resource is T in ?resource);")
    statement = parsed.statement
    assert statement.slots == (tree.Slot("?principal"), tree.Slot("?resource"))
    assert statement.principal == tree.Constraint("in", (), None, tree.Slot("?principal"))
    assert statement.resource == tree.Constraint("is in", (), "T", tree.Slot("?resource"))


def every_node(node: object) -> Iterator[tree.Node]:
    if isinstance(node, tree.Node):
        yield node
        for name in node.__dataclass_fields__:
            yield from every_node(getattr(node, name))
    elif isinstance(node, tuple):
        for each in node:
            yield from every_node(each)


def test_every_node_knows_its_place() -> None:
    text = (
        'permit (principal == A::"a", action in [Action::"b"], resource is T in ?resource) when {\n'
        '  -principal.a["b"] + -1 - -(2) * 3 < 4 && !(context has a.b) || [if true then [1, {a: "x"}].contains(1) '
        'else ip("a").isInRange(ip("b")), resource is T in A::"b" && "a" like "b*"].isEmpty()\n};'
    )
    [parsed] = parse_policies(text)
    nodes = list(every_node(parsed.statement))
    assert len(nodes) > 40
    for node in nodes:
        assert 0 <= node.start < node.end <= len(text), node
        part = text[node.start : node.end]
        assert part == part.strip()
        if isinstance(node, tree.Binary | tree.And | tree.Or | tree.GetAttr | tree.Call | tree.If | tree.SetOf):
            assert parse_expression(part) == node
    spans = {text[node.start : node.end] for node in nodes}
    assert {'principal == A::"a"', "?resource", "principal.a", '-principal.a["b"]', "(context has a.b)"} <= spans


def test_a_statement_is_the_same_value_wherever_it_stands() -> None:
    first, second = parse_policies(f"{HEAD};\n\n  {HEAD};")
    assert first.statement is second.statement
    assert (second.place.line, second.place.column, second.place.offset) == (3, 3, 41)


def test_a_long_chain_is_balanced_and_stays_shallow() -> None:
    def depth(node: tree.Expr) -> int:
        return 1 + max(map(depth, tree.children(node)), default=0)

    node = parse_expression(" || ".join(f"context == {number}" for number in range(5000)))
    assert depth(node) < 20
    leaves: list[int] = []

    def collect(each: tree.Expr) -> None:
        if isinstance(each, tree.Or):
            collect(each.left)
            collect(each.right)
        elif isinstance(each, tree.Binary) and isinstance(each.right, Literal):
            leaves.append(int(str(each.right.value)))

    collect(node)
    assert leaves == list(range(5000))


# --- the same as Cedar's own parser


def cedars(text: str) -> Any:
    """What Cedar makes of a text in JSON, or None if it refuses it."""
    try:
        return with_whole_literals(json.loads(cedarpy.policies_to_json_str(text)))
    except ValueError:
        return None


def ours(text: str) -> Any:
    try:
        return PolicySet.parse(text).to_json()
    except PolicySyntaxError:
        return None


def with_whole_literals(data: Any) -> Any:
    """Join the characters of patterns: Cedar writes each on its own, and reads both."""
    if isinstance(data, list):
        return [with_whole_literals(each) for each in data]
    if not isinstance(data, dict):
        return data
    made = {name: with_whole_literals(each) for name, each in data.items()}
    if isinstance(made.get("pattern"), list) and set(made) == {"left", "pattern"}:
        pieces: list[Any] = []
        for piece in made["pattern"]:
            if piece != "Wildcard" and pieces and pieces[-1] != "Wildcard":
                pieces[-1] = {"Literal": pieces[-1]["Literal"] + piece["Literal"]}
            else:
                pieces.append(piece)
        made["pattern"] = pieces
    return made


@pytest.mark.parametrize("text", TRICKY)
def test_what_is_easy_to_read_wrongly_is_read_as_cedar_reads_it(text: str) -> None:
    assert ours(text) == cedars(text)


MUTATIONS = [
    *"()[]{},.;:!-+*<>=@?", "::", "==", "&&", "||", " in ", " is ", " has ", " like ", "if ", " then ",
    " else ", "when", " principal", " action ", " resource ", " unless ", '"a"', '"*"', "1", " true ",
    "?principal", " A", " ip", "contains", "isEmpty", "\n", "// x\n", '"', "\\", "\r", "\t",
]  # fmt: skip


def mutated(text: str, rnd: random.Random) -> str:
    texts, ends = tokenize(text)
    pieces = []
    at = 0
    for word, end in zip(texts, ends, strict=True):
        pieces += [text[at : end - len(word)], word]
        at = end
    for _ in range(rnd.choice((1, 1, 2, 3))):
        index = rnd.randrange(len(pieces))
        match rnd.randrange(4):
            case 0:
                pieces[index] = ""
            case 1:
                pieces.insert(index, rnd.choice(MUTATIONS))
            case 2:
                pieces[index] = rnd.choice(MUTATIONS)
            case _:
                other = rnd.randrange(len(pieces))
                pieces[index], pieces[other] = pieces[other], pieces[index]
    return "".join(pieces)


@pytest.mark.parametrize("seed", range(4))
def test_mutated_policies_are_read_as_cedar_reads_them(seed: int) -> None:
    rnd = random.Random(seed)
    accepted = 0
    for _ in range(1000):
        text = mutated(rnd.choice(TRICKY), rnd)
        theirs = cedars(text)
        accepted += theirs is not None
        assert ours(text) == theirs, text
    assert 50 < accepted < 950


def test_policies_of_the_corpus_are_read_as_cedar_reads_them(shared: Path) -> None:
    files = sorted((shared / "vectors/cedar").rglob("*.cedar"))
    assert len(files) > 20
    for file in files:
        text = file.read_text()
        theirs = cedars(text)
        assert theirs is not None
        assert ours(text) == theirs, file


# --- hostile texts


@given(st.text())
def test_any_text_is_read_or_refused_with_places(text: str) -> None:
    try:
        parse_policies(text)
    except PolicySyntaxError as error:
        for fault in error.faults:
            assert fault.code
            assert fault.line is not None
            assert fault.column is not None
            assert str(fault)


@given(st.lists(st.sampled_from([*MUTATIONS, HEAD, "permit", "(", "\0", "\ud800", "é"]), max_size=30).map("".join))
def test_any_row_of_words_is_read_or_refused(text: str) -> None:
    for read in (parse_policies, parse_expression):
        try:
            read(text)
        except PolicySyntaxError as error:
            assert 1 <= len(error.faults) <= 20
