from __future__ import annotations

import random
from pathlib import Path

import pytest

from gateway.policy import EntityUid, PolicySyntaxError
from gateway.policy.language import tree
from gateway.policy.language.printer import print_expression, print_statement
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
from tests.unit.policy.language.texts import TRICKY


@pytest.mark.parametrize("text", TRICKY)
def test_what_is_printed_reads_back_as_the_same_statement(text: str) -> None:
    try:
        parsed = parse_policies(text)
    except PolicySyntaxError:
        return
    for each in parsed:
        [again] = parse_policies(print_statement(each.statement))
        assert again.statement == each.statement


def test_policies_of_the_corpus_are_printed_and_read_back(shared: Path) -> None:
    for file in sorted((shared / "vectors/cedar").rglob("*.cedar")):
        for each in parse_policies(file.read_text()):
            [again] = parse_policies(print_statement(each.statement))
            assert again.statement == each.statement


@pytest.mark.parametrize(
    "text",
    [
        "-5", "-(5)", "--5", "----5", "-(-9223372036854775808)", "!!!!true", "!(!(!(!(!true))))", "(-5).a", "-(5).a",
        "-5 - -5", "1 - (2 - 3)", "1 - 2 - 3", "(1 + 2) * 3", "1 + 2 * 3", "(1 < 2) == true", "!(1 < 2)",
        "(true || false) && true", "true || false && true", "true && (true && true)",
        "(if true then 1 else 2) + 3", "if true then 1 else 2 + 3",
        "[if true then 1 else 2]", 'principal["a b"].c["if"].d', "principal has a.b", 'principal has "a b"',
        "(principal has a).b", "(1 + 2).a", "!principal.a", "(!principal).a", 'context.a like "*\\*\\n"',
        '{a: 1, "if": 2, "a b": [3]}', "principal is A::B in resource.c", "(principal is A) == true",
        'ip("::1").isInRange(ip("::/8"))', "principal.tags.contains(1).isEmpty()", 'A::"\\u{1}".a',
        "(principal in resource) has a",
    ],
)  # fmt: skip
def test_brackets_stand_where_they_are_needed(text: str) -> None:
    printed = print_expression(parse_expression(text))
    assert parse_expression(printed) == parse_expression(text)
    assert print_expression(parse_expression(printed)) == printed
    assert len(printed) <= len(text)


def test_a_statement_is_laid_out() -> None:
    text = '@id("a\\"b")@x permit(principal==A::"b",action in[Action::"c"],resource)when{true}unless{false};'
    [parsed] = parse_policies(text)
    assert print_statement(parsed.statement) == (
        '@id("a\\"b")\n'
        "@x\n"
        'permit (principal == A::"b", action in [Action::"c"], resource)\n'
        "when { true }\n"
        "unless { false };"
    )


def random_expression(rnd: random.Random, depth: int) -> tree.Expr:
    """Any tree, also such as no text without brackets has."""
    if depth == 0 or rnd.random() < 0.1:
        leaves: list[tree.Expr] = [
            Literal(rnd.choice([True, False, 0, 1, -1, 2**63 - 1, -(2**63)])),
            Literal(rnd.choice(["", 'a"\\*', "\n\0\x7f\u2028", "é"])),
            Literal(EntityUid("A::B", 'x"')),
            Variable(rnd.choice(["principal", "action", "resource", "context"])),
        ]
        return rnd.choice(leaves)

    def sub() -> tree.Expr:
        return random_expression(rnd, depth - 1)

    kind = rnd.randrange(14)
    name = rnd.choice(["a", "if", "a b", "principal", "é", ""])
    match kind:
        case 0:
            return If(sub(), sub(), sub())
        case 1:
            return And(sub(), sub())
        case 2:
            return Or(sub(), sub())
        case 3:
            return Not(sub())
        case 4:
            return Negate(sub())
        case 5:
            return GetAttr(sub(), name)
        case 6:
            return HasAttr(sub(), rnd.choice([(name,), ("a", "b", "c")]))
        case 7:
            return Like(sub(), rnd.choice([(), (None,), ("a*", None, None, '"\\')]))
        case 8:
            return Is(sub(), "A::B", rnd.choice([None, sub()]))
        case 9:
            return IsEmpty(sub())
        case 10:
            return SetOf(tuple(sub() for _ in range(rnd.randrange(3))))
        case 11:
            return RecordOf(tuple((key, sub()) for key in rnd.sample(["a", "if", "a b", "é"], rnd.randrange(4))))
        case 12:
            return rnd.choice([Call("ip", (sub(),)), Call("lessThan", (sub(), sub())), Call("isIpv4", (sub(),))])
        case _:
            operators: list[tree.BinaryOp] = [
                "==", "!=", "<", "<=", ">", ">=", "in", "+", "-", "*", "contains", "containsAll", "getTag", "hasTag",
            ]  # fmt: skip
            return Binary(rnd.choice(operators), sub(), sub())


@pytest.mark.parametrize("seed", range(8))
def test_any_tree_is_printed_and_read_back(seed: int) -> None:
    rnd = random.Random(seed)
    for _ in range(300):
        node = random_expression(rnd, rnd.randrange(1, 6))
        assert parse_expression(print_expression(node)) == node
