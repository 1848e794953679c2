"""Whole policy sets: templates and links, impossible policies, modes, and what is not done twice."""

import time
from typing import Any

import pytest

from gateway._native.uid import EntityUid
from gateway.policy.language.tree import Statement
from gateway.policy.policy_set import PolicySet
from gateway.policy.schema import Schema
from gateway.policy.validator import Validator, validate
from tests.unit.policy.validator.schema_text import PARSED, codes, report_of


@pytest.mark.parametrize(
    "text",
    [
        "permit(principal == ?principal, action, resource);",
        "permit(principal in ?principal, action, resource == ?resource);",
        "permit(principal is User in ?principal, action, resource in ?resource) when { principal.admin };",
    ],
)
def test_a_template_that_fits_is_accepted(text: str) -> None:
    report = report_of(text)
    assert (report.errors, report.warnings) == ((), ())


def test_a_template_is_checked_as_if_its_slots_held_what_fits() -> None:
    report = report_of("permit(principal == ?principal, action, resource) when { principal.admin };")
    assert [fault.message for fault in report.errors] == ["no attribute `admin` on `Robot`"]
    assert codes(report_of("permit(principal is Group in ?principal, action, resource);")) == ["inapplicable_scope"]


def _linked(uid: EntityUid, slot: str = "?principal", op: str = "==") -> PolicySet:
    variable = slot[1:]
    sides = {"principal": "principal", "resource": "resource", variable: f"{variable} {op} {slot}"}
    text = f"permit({sides['principal']}, action, {sides['resource']});"
    return PolicySet.parse(text).link("policy0", "link", {slot: uid})


def test_a_link_that_fits_is_accepted() -> None:
    assert validate(_linked(EntityUid("User", "a")), PARSED).ok
    assert validate(_linked(EntityUid("Folder", "a"), "?resource", "in"), PARSED).ok


@pytest.mark.parametrize(
    ("uid", "wanted"),
    [
        (EntityUid("Usr", "a"), ["unknown_entity_type", "inapplicable_scope"]),
        (EntityUid("Group", "a"), ["inapplicable_scope"]),
        (EntityUid("Level", "none"), ["unknown_entity_id", "inapplicable_scope"]),
        (EntityUid("Action", "none"), ["unknown_action", "inapplicable_scope"]),
    ],
)
def test_a_link_with_an_entity_that_does_not_fit_is_refused(uid: EntityUid, wanted: list[str]) -> None:
    report = validate(_linked(uid), PARSED)
    assert codes(report) == wanted
    assert {fault.policy_id for fault in report.errors} == {"link"}


def test_a_link_is_not_told_of_what_is_wrong_with_its_template() -> None:
    policies = PolicySet.parse("permit(principal == ?principal, action, resource) when { principal.nothing };")
    report = validate(policies.link("policy0", "link", {"?principal": EntityUid("User", "a")}), PARSED)
    assert {fault.policy_id for fault in report.errors} == {"policy0"}


@pytest.mark.parametrize(
    "text",
    [
        "permit(principal, action, resource) when { false };",
        "permit(principal, action, resource) unless { true };",
        "permit(principal is User, action, resource) when { principal is Robot };",
        'permit(principal, action == Action::"write", resource) when { action in Action::"read" };',
        "permit(principal, action, resource) when { true } when { 1 == 2 };",
        'permit(principal, action, resource) when { User::"a" == Doc::"b" };',
    ],
)
def test_a_policy_that_never_applies_is_warned_of(text: str) -> None:
    report = report_of(text)
    assert report.ok
    assert [fault.code for fault in report.warnings] == ["impossible_policy"]


@pytest.mark.parametrize(
    "text",
    [
        "permit(principal, action, resource) when { principal is Robot };",
        "permit(principal, action, resource) when { 1 };",
        "permit(principal, action, resource) when { true };",
    ],
)
def test_a_policy_that_applies_somewhere_or_is_in_error_is_not_warned_of(text: str) -> None:
    assert report_of(text).warnings == ()


def test_every_policy_of_a_set_is_checked_under_its_id() -> None:
    report = report_of(
        '@id("a")\npermit(principal is Usr, action, resource);\n'
        "permit(principal, action, resource);\n"
        "forbid(principal, action, resource) when { 1 };\n"
    )
    assert [(fault.policy_id, fault.code, fault.line) for fault in report.errors] == [
        ("policy0", "unknown_entity_type", 2),
        ("policy0", "inapplicable_scope", 1),
        ("policy2", "unexpected_type", 4),
    ]


def test_the_same_statement_twice_is_told_of_at_both_places() -> None:
    report = report_of("permit(principal, action, resource) when { 1 };\n" * 2)
    assert [(fault.policy_id, fault.line) for fault in report.errors] == [("policy0", 1), ("policy1", 2)]


def test_only_findings_of_the_last_set_are_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    instance = Validator(PARSED)
    checked: list[Statement] = []
    check = instance._check

    def counting(statement: Statement) -> Any:
        checked.append(statement)
        return check(statement)

    monkeypatch.setattr(instance, "_check", counting)
    texts = [f"permit(principal, action, resource) when {{ {n} }};" for n in range(5)]
    assert len(instance.validate(PolicySet.parse("".join(texts))).errors) == 5
    assert len(instance.validate(PolicySet.parse("".join([*texts[:4], texts[3]]))).errors) == 5
    assert len(checked) == 5
    assert len(instance._kept) == 4
    instance.validate(PolicySet.parse("".join(texts)))
    assert len(checked) == 6


def test_policies_that_passed_elsewhere_are_not_checked_again() -> None:
    instance = Validator(PARSED)
    known = PolicySet.parse("permit(principal, action, resource) when { 1 };")
    instance.suppose_valid(known)
    assert instance.validate(known).ok
    changed = PolicySet.parse("permit(principal, action, resource) when { 2 };")
    assert not instance.validate(PolicySet.merge([known.renamed("a"), changed])).ok


def test_an_unknown_mode_is_refused() -> None:
    with pytest.raises(ValueError, match="no validation mode `lenient`"):
        Validator(PARSED, "lenient")  # type: ignore[arg-type]


def test_a_set_validates_itself() -> None:
    assert PolicySet.parse("permit(principal, action, resource);").validate(PARSED).ok
    assert not PolicySet.parse("permit(principal, action, resource) when { [] == [] };").validate(PARSED).ok
    assert PolicySet.parse("permit(principal, action, resource) when { [] == [] };").validate(PARSED, "permissive").ok


def test_contexts_of_several_actions_are_told_apart() -> None:
    text = 'permit(principal is User, action, resource is Doc) when { context has why && context.why == "x" };'
    assert report_of(text).ok
    text = "permit(principal is User, action, resource is Doc) when { context.ip.isIpv4() };"
    assert [fault.message for fault in report_of(text).errors] == [
        'no attribute `ip` in the context of `Other::Action::"audit"`'
    ]


def test_ten_thousand_policies_take_seconds_and_one_that_changed_a_fraction() -> None:
    schema = Schema.parse(
        "entity Group in [Group]; entity User in [Group] {age: Long}; entity Folder in [Folder];"
        "entity Doc in [Folder];"
        + "".join(f"action a{i} appliesTo {{principal: User, resource: [Doc, Folder]}};" for i in range(50))
    )
    policies = PolicySet.parse(
        "".join(
            f'permit(principal in Group::"g{i}", action == Action::"a{i % 50}", resource in Folder::"f{i}") '
            f"when {{ principal.age > {i} && resource is Doc }};"
            for i in range(10_000)
        )
    )
    validator = Validator(schema)
    began_s = time.process_time()
    assert validator.validate(policies).ok
    first_s = time.process_time() - began_s
    changed = policies.with_policy("policy5", "permit(principal, action, resource) when { principal.agee > 1 };")
    began_s = time.process_time()
    assert codes(validator.validate(changed)) == ["undeclared_attribute"]
    again_s = time.process_time() - began_s
    assert first_s < 5.0
    assert again_s < first_s / 4
