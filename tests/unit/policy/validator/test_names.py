"""Names that the schema does not declare are told of, with the name that was probably meant."""

import time

import pytest

from gateway.policy.policy_set import PolicySet
from gateway.policy.schema import Schema
from gateway.policy.validator import validate
from tests.unit.policy.validator.schema_text import report_of


@pytest.mark.parametrize(
    ("text", "code", "message", "hint"),
    [
        ('permit(principal == Usr::"a", action, resource);', "unknown_entity_type", "`Usr`", "did you mean `User`?"),
        ("permit(principal is user, action, resource);", "unknown_entity_type", "`user`", "did you mean `User`?"),
        ("permit(principal is X::User, action, resource);", "unknown_entity_type", "`X::User`", "did you mean `User`?"),
        ("permit(principal is GROUP, action, resource);", "unknown_entity_type", "`GROUP`", "did you mean `Group`?"),
        ("permit(principal is Zebra, action, resource);", "unknown_entity_type", "`Zebra`", ""),
        (
            'permit(principal, action == Action::"raed", resource);',
            "unknown_action",
            '`Action::"raed"`',
            'did you mean `Action::"read"`?',
        ),
        (
            'permit(principal, action in [Action::"read", Action::"audit"], resource);',
            "unknown_action",
            '`Action::"audit"`',
            'did you mean `Other::Action::"audit"`?',
        ),
        (
            'permit(principal, action, resource is Doc) when { resource.level == Level::"hihg" };',
            "unknown_entity_id",
            '`"hihg"`',
            "did you mean `high`?",
        ),
        (
            'permit(principal, action, resource is Doc) when { resource.level == Level::"medium" };',
            "unknown_entity_id",
            '`"medium"`',
            'one of "low", "high"',
        ),
        (
            "permit(principal, action, resource) when { resource is Dock };",
            "unknown_entity_type",
            "`Dock`",
            "did you mean `Doc`?",
        ),
    ],
)
def test_an_unknown_name_is_told_of_with_a_hint(text: str, code: str, message: str, hint: str) -> None:
    fault = report_of(text).errors[0]
    assert (fault.code, fault.hint) == (code, hint)
    assert message in fault.message


def test_an_unknown_name_in_what_is_never_evaluated_is_told_of_all_the_same() -> None:
    report = report_of('permit(principal, action, resource) when { false && User::"a" == Usr::"b" };')
    assert [fault.code for fault in report.errors] == ["unknown_entity_type"]


def test_an_unknown_attribute_is_told_of_with_the_one_that_is_meant() -> None:
    report = report_of("permit(principal is User, action, resource) when { principal.Age > 1 };")
    assert [(fault.code, fault.hint) for fault in report.errors] == [("undeclared_attribute", "did you mean `age`?")]


def test_an_unguarded_attribute_comes_with_the_guard_to_write() -> None:
    report = report_of('permit(principal is User, action, resource) when { principal.home.zip == "1" };')
    assert [fault.hint for fault in report.errors] == ["ask first: `principal.home has zip && …`"]


def test_an_unguarded_tag_comes_with_the_guard_to_write() -> None:
    report = report_of('permit(principal is User, action, resource) when { principal.getTag("a") == "1" };')
    assert [fault.hint for fault in report.errors] == ['ask first: `principal.hasTag("a") && …`']


def test_ten_thousand_unknown_names_are_told_of_in_seconds() -> None:
    schema = Schema.parse(
        "entity U; " + "".join(f"action do_{n} appliesTo {{principal: U, resource: U}};" for n in range(500))
    )
    policies = PolicySet.parse(
        "".join(f'permit(principal, action == Action::"do{n}_", resource);' for n in range(10_000))
    )
    began_s = time.process_time()
    report = validate(policies, schema)
    assert len(report.errors) == 20_000
    assert time.process_time() - began_s < 5


def test_a_very_long_name_has_no_hint() -> None:
    report = report_of(f"permit(principal is {'User' * 1000}, action, resource);")
    assert [fault.hint for fault in report.errors if fault.code == "unknown_entity_type"] == [""]
