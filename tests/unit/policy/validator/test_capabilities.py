"""Expressions of one shape are the same, wherever they stand and however they are bracketed."""

import pytest

from gateway.policy.language.statements import parse_expression
from gateway.policy.validator.capabilities import shape_of


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("principal.a.b", 'principal["a"] . b'),
        ('a::B::"c".d', 'a::B::"c".d'),
        ("(1 + 2) * 3", "(1+2)*3"),
        ("principal != resource", "!(principal == resource)"),
        ("1 > 2", "!(1 <= 2)"),
        ("1 >= 2", "!(1 < 2)"),
        ("true && (false && 1 == 2)", "(true && false) && 1 == 2"),
        ("true || (false || 1 == 2)", "true || false || 1 == 2"),
        ("principal is A in resource", "principal is A && principal in resource"),
        ("principal has a.b", "principal has a && principal.a has b"),
        ("{a: 1, b: 2}", "{b: 2, a: 1}"),
        ("if true then [1] else [2]", "(if (true) then [1] else [2])"),
        ('ip("::1").isIpv4()', 'ip("::1").isIpv4()'),
        ('"a" like "b*"', '"a" like "b*"'),
        ("-principal.a", "- principal.a"),
        ("principal.a.isEmpty()", "principal.a . isEmpty()"),
    ],
)
def test_one_shape(one: str, other: str) -> None:
    assert shape_of(parse_expression(one)) == shape_of(parse_expression(other))
    assert hash(shape_of(parse_expression(one))) == hash(shape_of(parse_expression(other)))


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("1", "true"),
        ("1", '"1"'),
        ("principal.a", "resource.a"),
        ("principal.a", "principal has a"),
        ("principal.a.b", "principal.b.a"),
        ("[1, 2]", "[2, 1]"),
        ("true && false", "true || false"),
        ("true && false", "false && true"),
        ("1 < 2", "1 <= 2"),
        ('"a" like "b*"', '"a" like "b\\\\*"'),
        ("principal is A", "principal is B"),
        ("-principal.a", "!principal.a"),
        ('ip("::1")', 'decimal("::1")'),
    ],
)
def test_different_shapes(one: str, other: str) -> None:
    assert shape_of(parse_expression(one)) != shape_of(parse_expression(other))
