"""Each rule of the type system, with what it accepts and what it refuses."""

import pytest

from gateway.policy.language import tree
from gateway.policy.policy_set import Policy, PolicySet
from gateway.policy.validator import validate
from gateway.policy.validator.typecheck import DEPTH_MAX
from tests.unit.policy.validator.schema_text import PARSED, codes, report_of, report_on

ACCEPTED = [
    # known booleans: what is never evaluated is not looked at
    "true", "false && 1", "true || 1", "if true then true else 1", "if false then 1 else true", "!(true && false)",
    "principal is User || principal.nothing", "!(principal is Robot && principal.maker.nothing)",
    "(resource is Folder && resource.nothing) || principal.admin",
    "1 == 2 || principal.admin", '1 != "a" || principal.nothing', "principal.admin || (false && 1)",
    "(principal.admin || true) || 1", "(true && principal.admin) || false",
    # capabilities
    "principal has manager && principal.manager.age > 1",
    "principal has manager && principal.manager has manager && principal.manager.manager.admin",
    "principal has manager.manager && principal.manager.manager.admin",
    "principal has manager.home.zip && principal.manager.home.zip == \"1\"",
    "if principal has manager then principal.manager.admin else false",
    "(if principal has manager then true else false) == true",
    "(principal has manager || (principal has manager && principal.admin)) && principal.manager.admin",
    "(false || principal has manager) && principal.manager.admin",
    "principal has manager && (principal.admin && principal.manager.admin)",
    "context has why && context.why like \"*\"", "principal.home has zip && principal.home.zip == \"8000\"",
    "(principal has manager && true) && principal.manager.admin",
    "(true && principal has manager) && principal.manager.admin",
    'principal.hasTag("a") && principal.getTag("a") == "b"',
    'principal.hasTag(principal.name) && principal.getTag(principal.name) like "x"',
    # `has` that is known
    "principal.home has city", "!(context has nothing && 1)", "principal has name && principal.admin",
    # equality
    "principal == principal", "principal != User::\"a\"", "principal == resource || true", "principal == resource",
    "principal.friends == [principal]", "{a: 1} == {a: 2}", "principal.admin == true", "action == Action::\"read\"",
    "{a: true} == {a: principal.admin}",
    # what Cedar's reader makes one literal of
    "(true && (false || true)) != \"a\"", "(false && false) != 1",
    # order and arithmetic
    "1 < 2", "principal.age >= -1 + 2 * 3 - principal.age", "principal.joined < datetime(\"2024-01-01\")",
    "principal.worked <= duration(\"1h\")",
    # hierarchies
    "principal in Group::\"g\"", "principal in principal.friends", "principal in [Group::\"g\", Group::\"h\"]",
    "!(principal in Folder::\"f\" && 1)", "action in Action::\"readers\"", "action in [Action::\"readers\"]",
    "!(action in Action::\"read\" && 1)", "Action::\"read\" in Action::\"readers\"", "!(action in principal && 1)",
    "!(action in User::\"a\" && 1)", "Other::Action::\"audit\" in Action::\"readers\"",
    "(if principal.admin then Action::\"read\" else Action::\"write\") in Action::\"readers\"",
    # entity types
    "principal is User", "principal is User in Group::\"g\"", "!(principal is Robot in Group::\"g\" && 1)",
    "resource.owner is User && true",
    # sets
    "[1, 2].contains(principal.age)", "principal[\"nick names\"].containsAll([\"a\"])", "[1].containsAny([2])",
    "principal[\"nick names\"].isEmpty()", "[[1], [2]].contains([3])", "[true, principal.admin].contains(false)",
    # texts
    "principal.name like \"a*b\"", "principal.name == \"\"",
    # records
    "{a: 1, b: principal}.b.admin", "{a: {b: true}}.a.b",
    # extension types
    "ip(\"10.0.0.1\").isInRange(ip(\"10.0.0.0/8\"))", "context.ip.isLoopback() || context.ip.isIpv6()",
    "principal.score.lessThan(decimal(\"1.5\"))", "principal.score == decimal(\"1.0\")",
    "principal.joined.offset(duration(\"1d\")).toDate() == principal.joined",
    "principal.joined.durationSince(principal.joined).toHours() > 1", "principal.joined.toTime().toDays() == 0",
    # actions and tags
    "!(action has nothing && 1)", "!(action.hasTag(\"a\") && 1)", "!(resource.hasTag(\"a\") && 1)",
    # enumerated entities
    "resource.level == Level::\"low\"", "[Level::\"low\", Level::\"high\"].contains(resource.level)",
]  # fmt: skip

REFUSED = [
    ("1", "unexpected_type"), ("principal", "unexpected_type"), ("true && 1", "unexpected_type"),
    ("1 || true", "unexpected_type"), ("!1", "unexpected_type"), ("if 1 then true else true", "unexpected_type"),
    ("principal.admin && 1", "unexpected_type"), ("false || 1", "unexpected_type"),
    # capabilities
    ("principal.manager.admin", "unguarded_attribute"), ("context.why == \"a\"", "unguarded_attribute"),
    ("principal has manager || principal.manager.admin", "unguarded_attribute"),
    ("principal has manager && principal.manager.manager.admin", "unguarded_attribute"),
    ("!(principal has manager) && principal.manager.admin", "unguarded_attribute"),
    ("if principal has manager then true else principal.manager.admin", "unguarded_attribute"),
    ("(principal has manager || principal.admin) && principal.manager.admin", "unguarded_attribute"),
    ("(if principal.admin then principal has manager else true) && principal.manager.admin", "unguarded_attribute"),
    ("principal.manager has manager.age", "unguarded_attribute"),
    ("(if principal has manager then true else false) && principal.manager.admin", "unguarded_attribute"),
    ("principal has manager && resource.owner.manager.admin", "unguarded_attribute"),
    ("principal.getTag(\"a\") == \"b\"", "unguarded_tag"),
    ("principal.hasTag(\"a\") && principal.getTag(\"b\") == \"b\"", "unguarded_tag"),
    ("resource.owner.hasTag(\"a\") && principal.getTag(\"a\") == \"b\"", "unguarded_tag"),
    ("resource.getTag(\"a\") == \"b\"", "undeclared_tags"),
    # attributes
    ("principal.nothing == 1", "undeclared_attribute"), ("principal.home.street == \"\"", "undeclared_attribute"),
    ("context.nothing == 1", "undeclared_attribute"), ("action.nothing == 1", "undeclared_attribute"),
    ("{a: 1}.b == 1", "undeclared_attribute"), ("1.nothing == 1", "unexpected_type"),
    ("principal.name has length", "unexpected_type"), ("[1] has length", "unexpected_type"),
    ("principal has name.length", "unexpected_type"), ("principal.nothing has length", "undeclared_attribute"),
    # equality
    ("principal == 1", "incompatible_types"), ("principal.name == 1", "incompatible_types"),
    ("{a: 1} == {b: 1}", "incompatible_types"), ("{a: 1} == principal", "incompatible_types"),
    ("principal.home == {city: \"a\"}", "incompatible_types"), ("[1] == [\"a\"]", "incompatible_types"),
    ("principal.home == {city: \"a\", zip: \"b\"}", "incompatible_types"),
    ("(!true) == 1", "incompatible_types"), ("(true && principal.admin) == 1", "incompatible_types"),
    # order and arithmetic
    ("1 < \"a\"", "unexpected_type"), ("\"a\" > 1", "unexpected_type"), ("\"a\" < \"b\"", "unexpected_type"),
    ("principal.score < principal.score", "unexpected_type"), ("principal.joined < 1", "unexpected_type"),
    ("principal.joined < principal.worked", "unexpected_type"), ("\"a\" < principal.joined", "unexpected_type"),
    ("principal.joined < \"a\"", "unexpected_type"),
    ("1 + \"a\" == 1", "unexpected_type"), ("\"a\" + 1 == 1", "unexpected_type"),
    ("-principal.name == 1", "unexpected_type"),
    ("true * 1 == 1", "unexpected_type"),
    # hierarchies and entity types
    ("1 in principal", "unexpected_type"), ("principal in 1", "unexpected_type"),
    ("principal in [1]", "unexpected_type"),
    ("principal in []", "empty_set"), ("principal in [User::\"a\", Group::\"b\"]", "incompatible_types"),
    ("1 is User", "unexpected_type"), ("principal is User in 1", "unexpected_type"),
    # sets
    ("[].contains(1)", "empty_set"), ("[1, \"a\"].contains(1)", "incompatible_types"),
    ("[1].contains(\"a\")", "incompatible_types"),
    ("[1].containsAll([\"a\"])", "incompatible_types"), ("[1].containsAny(1)", "unexpected_type"),
    ("principal.name.contains(\"a\")", "unexpected_type"), ("principal.name.isEmpty()", "unexpected_type"),
    ("1 like \"a\"", "unexpected_type"),
    ("(if principal.admin then 1 else \"a\") == 1", "incompatible_types"),
    # extension types
    ("ip(\"10.0.0.256\").isIpv4()", "invalid_literal"), ("decimal(\"1\") == principal.score", "invalid_literal"),
    ("datetime(\"2024-02-30\") == principal.joined", "invalid_literal"),
    ("duration(\"\") == principal.worked", "invalid_literal"),
    ("ip(principal.name).isIpv4()", "computed_literal"), ("ip(1).isIpv4()", "unexpected_type"),
    ("ip(\"::1\", \"::1\").isIpv4()", "wrong_arguments"), ("context.ip.isInRange()", "wrong_arguments"),
    ("context.ip.isInRange(\"::1\")", "unexpected_type"), ("principal.age.isIpv4()", "unexpected_type"),
    ("principal.score.lessThan(1)", "unexpected_type"),
    # tags
    ("1.hasTag(\"a\")", "unexpected_type"), ("principal.hasTag(1)", "unexpected_type"),
    # names
    ("principal is Usr || true", "unknown_entity_type"), ("principal == Usr::\"a\"", "unknown_entity_type"),
    ("action == Action::\"rite\"", "unknown_action"), ("action in Action::\"rite\"", "unknown_action"),
    ("resource.level == Level::\"lo\"", "unknown_entity_id"),
]  # fmt: skip


@pytest.mark.parametrize("condition", ACCEPTED)
def test_a_condition_that_fits_is_accepted(condition: str) -> None:
    assert report_on(condition).errors == ()


@pytest.mark.parametrize(("condition", "code"), REFUSED)
def test_a_condition_that_does_not_fit_is_refused(condition: str, code: str) -> None:
    assert set(codes(report_on(condition))) == {code}


@pytest.mark.parametrize(
    "condition",
    [
        "[].isEmpty()",
        "principal in []",
        "[1, 2].containsAll([])",
        "principal == 1",
        "[1].contains(principal)",
        "[1].containsAny([principal])",
        "{a: 1} == {b: 2}",
        "ip(principal.name).isIpv4()",
        'principal in [User::"a", Group::"b"]',
        "(if principal.admin then principal else resource.owner).admin",
        '(if principal.admin then User::"a" else Robot::"b").age > 1',
        '(if principal.admin then User::"a" else Robot::"b") is User',
        '(if principal.admin then User::"a" else Robot::"b") has maker',
        '[User::"a", Robot::"b"].contains(principal)',
        "(if principal.admin then {a: 1, b: 2} else {a: 3}).a > 1",
        "(if principal.admin then {a: 1, b: 2} else {a: 3}) has b",
        '(if principal.admin then User::"a" else Doc::"b") == principal',
    ],
)
def test_permissive_mode_accepts_types_that_differ_without_harm(condition: str) -> None:
    assert report_on(condition, "permissive").errors == ()


@pytest.mark.parametrize(
    ("condition", "code"),
    [
        ('(if principal.admin then User::"a" else Robot::"b").maker == ""', "undeclared_attribute"),
        ('(if principal.admin then User::"a" else Robot::"b").name == ""', "unguarded_attribute"),
        ("(if principal.admin then {a: 1, b: 2} else {a: 3}).b > 1", "undeclared_attribute"),
        ("(if principal.admin then {a: 1, b: {c: 1}} else {a: 3}) has b.c", "undeclared_attribute"),
        ("(if principal.admin then 1 else true) == 1", "incompatible_types"),
        ("[1, true].isEmpty()", "incompatible_types"),
        ("(if principal.admin then {a: 1} else principal) == principal", "incompatible_types"),
        ("principal.manager.admin", "unguarded_attribute"),
        ('decimal("x") == principal.score', "invalid_literal"),
        ("1 + true == 2", "unexpected_type"),
        ("[1 < true].isEmpty()", "unexpected_type"),
    ],
)
def test_permissive_mode_refuses_what_may_fail_at_a_decision(condition: str, code: str) -> None:
    assert set(codes(report_on(condition, "permissive"))) == {code}


def test_every_error_of_a_condition_is_told() -> None:
    report = report_on("principal.nothing == 1 && context.why == 2 && 1 < true")
    assert codes(report) == ["undeclared_attribute", "unguarded_attribute", "incompatible_types", "unexpected_type"]


def test_what_one_when_has_shown_holds_in_the_next() -> None:
    assert report_of(
        "permit(principal is User, action, resource) when { principal has manager } when { principal.manager.admin };"
    ).ok


def test_what_an_unless_has_shown_does_not_hold_in_the_next() -> None:
    report = report_of(
        "permit(principal is User, action, resource) unless { principal has manager } when { principal.manager.admin };"
    )
    assert codes(report) == ["unguarded_attribute"]


def test_a_condition_has_to_fit_every_kind_of_request_that_the_scope_lets_through() -> None:
    assert report_of('permit(principal, action == Action::"read", resource) when { principal.age > 1 };').ok
    report = report_of('permit(principal, action == Action::"read", resource) when { principal.admin };')
    assert [fault.message for fault in report.errors] == ["no attribute `admin` on `Robot`"]


def test_a_test_of_the_type_narrows_what_is_looked_at() -> None:
    assert report_of("permit(principal, action, resource) when { principal is User && principal.admin };").ok


def test_a_slot_in_a_condition_of_a_tree_made_by_hand_is_refused() -> None:
    condition = tree.Condition("when", tree.Binary("==", tree.Variable("principal"), tree.Slot("?principal")))
    anything = tree.Constraint()
    statement = tree.Statement("permit", anything, anything, anything, (condition,), {})
    assert "misplaced_slot" in codes(validate(PolicySet([Policy("a", statement)]), PARSED))


def test_an_unknown_function_of_a_tree_made_by_hand_is_refused() -> None:
    condition = tree.Condition("when", tree.Call("isIpv5", (tree.Literal("a"),)))
    anything = tree.Constraint()
    statement = tree.Statement("permit", anything, anything, anything, (condition,), {})
    report = validate(PolicySet([Policy("a", statement)]), PARSED)
    assert report.errors[0].code == "unknown_function"
    assert report.errors[0].hint.startswith("did you mean `isIpv")


def test_an_expression_that_is_nested_too_deeply_is_refused_and_does_not_exhaust_the_stack() -> None:
    body: tree.Expr = tree.Literal(True)
    for _ in range(DEPTH_MAX * 50):
        body = tree.Not(body)
    anything = tree.Constraint()
    statement = tree.Statement("permit", anything, anything, anything, (tree.Condition("when", body),), {})
    assert codes(validate(PolicySet([Policy("a", statement)]), PARSED)) == ["too_deep"]


def test_a_chain_of_many_operands_is_no_depth() -> None:
    assert report_on(" && ".join(["principal.admin"] * 5000)).ok
    assert report_on(" || ".join(["principal.admin"] * 5000)).ok
