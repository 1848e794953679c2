"""Which kinds of requests a scope lets through, and what is told where there is none."""

import pytest

from gateway.policy.policy_set import PolicySet
from gateway.policy.schema import Schema
from gateway.policy.validator import validate
from tests.unit.policy.validator.schema_text import codes, report_of


@pytest.mark.parametrize(
    "scope",
    [
        "principal, action, resource",
        'principal == User::"a", action, resource',
        'principal in Group::"g", action, resource',
        'principal in User::"a", action, resource',
        "principal is Robot, action, resource",
        'principal is User in Group::"g", action, resource',
        'principal, action == Action::"write", resource is Doc',
        'principal, action in Action::"readers", resource',
        'principal, action in [Action::"read", Action::"write"], resource is Folder',
        'principal, action in [Other::Action::"audit"], resource in Folder::"f"',
    ],
)
def test_a_scope_that_some_request_satisfies_is_accepted(scope: str) -> None:
    report = report_of(f"permit({scope});")
    assert (report.errors, report.warnings) == ((), ())


@pytest.mark.parametrize(
    ("scope", "hint"),
    [
        ('principal == Group::"g", action, resource', "use `in` instead of `==` for the principal"),
        ('principal, action == Action::"write", resource == Folder::"f"', "use `in` instead of `==` for the resource"),
        (
            'principal == Group::"g", action == Action::"write", resource == Folder::"f"',
            "use `in` instead of `==` for the principal and the resource",
        ),
        ('principal is Robot, action == Action::"write", resource', ""),
        ('principal in Doc::"d", action, resource', ""),
        ('principal == Doc::"d", action, resource', ""),
        ("principal is Group, action, resource", ""),
        ('principal is User in Folder::"f", action, resource', ""),
        ('principal, action == Action::"readers", resource', ""),
        ('principal == Action::"read", action, resource', ""),
        ('principal in Action::"read", action, resource', ""),
    ],
)
def test_a_scope_that_no_request_satisfies_is_refused(scope: str, hint: str) -> None:
    report = report_of(f"permit({scope});")
    assert [(fault.code, fault.hint) for fault in report.errors] == [("inapplicable_scope", hint)]
    assert report.warnings == ()


def test_an_empty_list_of_actions_is_refused() -> None:
    assert codes(report_of("permit(principal, action in [], resource);")) == ["empty_set", "inapplicable_scope"]


def test_an_empty_list_of_actions_applies_to_nothing_in_permissive_mode() -> None:
    assert codes(report_of("permit(principal, action in [], resource);", "permissive")) == ["inapplicable_scope"]


def test_actions_of_two_namespaces_in_one_list_are_refused_by_strict_mode_only() -> None:
    text = 'permit(principal, action in [Action::"read", Other::Action::"audit"], resource);'
    assert codes(report_of(text)) == ["incompatible_types"]
    assert report_of(text, "permissive").ok


def test_conditions_are_checked_also_where_a_name_in_the_scope_is_unknown() -> None:
    report = report_of('permit(principal is User, action in Action::"reed", resource) when { principal.agee > 1 };')
    assert codes(report) == ["unknown_action", "inapplicable_scope", "undeclared_attribute"]


def test_conditions_are_not_checked_for_requests_that_the_scope_keeps_out() -> None:
    assert report_of('permit(principal is Robot, action, resource) when { principal.maker == "x" };').ok
    assert report_of('permit(principal in Doc::"d", action, resource) when { principal.nothing };').errors[0].code == (
        "inapplicable_scope"
    )


def test_a_schema_without_requests_lets_nothing_through() -> None:
    report = validate(PolicySet.parse("permit(principal, action, resource);"), Schema.parse("entity User;"))
    assert codes(report) == ["inapplicable_scope"]


def test_an_action_that_is_in_a_group_of_another_namespace_is_reached_through_it() -> None:
    text = 'permit(principal, action in Action::"readers", resource) when { action == Other::Action::"audit" };'
    assert (report_of(text).errors, report_of(text).warnings) == ((), ())
