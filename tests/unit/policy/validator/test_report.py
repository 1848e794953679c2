"""Findings stand where they are in the file."""

from gateway.policy.policy_set import PolicySet
from gateway.policy.validator import Report, validate
from tests.unit.policy.validator.schema_text import PARSED, report_of


def test_a_fault_names_file_line_column_and_shows_the_line() -> None:
    scope = "permit(principal is User, action, resource)"
    text = f"\n\n// a comment\n{scope}\nwhen {{\n\tprincipal.admin &&\n\tprincipal.agee > 1\n}};"
    (fault,) = report_of(text).errors
    assert (fault.file, fault.line, fault.column, fault.length) == ("a.cedar", 7, 2, len("principal.agee"))
    assert str(fault) == (
        "a.cedar:7:2: policy `policy0`: no attribute `agee` on `User`\n"
        "    \tprincipal.agee > 1\n"
        "    \t^^^^^^^^^^^^^^\n"
        "  hint: did you mean `age`?"
    )


def test_a_statement_that_does_not_begin_its_line_keeps_its_columns() -> None:
    text = "permit(principal, action, resource); permit(principal is Usr, action, resource);"
    fault = report_of(text).errors[0]
    assert (fault.policy_id, fault.line, fault.column) == ("policy1", 1, text.index("principal is Usr") + 1)
    assert fault.excerpt.index("principal is Usr") + 1 == fault.column


def test_a_fault_over_several_lines_is_marked_to_the_end_of_its_first() -> None:
    text = "permit(principal is User, action, resource) when { [1,\n  true].contains(1) };"
    (fault,) = report_of(text).errors
    assert (fault.line, fault.column, fault.length) == (1, text.index("[1") + 1, len("[1,"))


def test_a_fault_of_the_whole_policy_stands_at_its_beginning() -> None:
    fault = report_of('// first\n@id("x")\npermit(principal == Group::"g", action, resource);').errors[0]
    assert (fault.code, fault.line, fault.column, fault.excerpt) == ("inapplicable_scope", 2, 1, '@id("x")')


def test_a_policy_from_json_has_faults_without_a_line() -> None:
    policies = PolicySet.from_json(PolicySet.parse("permit(principal is Usr, action, resource);").to_json())
    fault = validate(policies, PARSED).errors[0]
    assert (fault.line, fault.excerpt, fault.policy_id) == (None, "", "policy0")
    assert str(fault).startswith("policy `policy0`: unknown entity type `Usr`")


def test_a_fault_that_several_kinds_of_requests_have_is_told_once() -> None:
    report = report_of("permit(principal, action, resource) when { 1 < true };")
    assert len(report.errors) == 1


def test_a_report_without_errors_is_ok_and_warnings_do_not_change_that() -> None:
    assert Report().ok
    report = report_of("permit(principal, action, resource) when { false };")
    assert report.ok
    assert [fault.code for fault in report.warnings] == ["impossible_policy"]
    assert "the policy never applies" in str(report)


def test_a_fault_far_to_the_right_has_a_place_and_no_excerpt() -> None:
    text = "permit(principal, action, resource); " * 100 + "permit(principal is Usr, action, resource);"
    fault = report_of(text).errors[0]
    assert (fault.line, fault.column, fault.excerpt) == (1, text.index("principal is Usr") + 1, "")


def test_a_long_line_is_cut_after_what_is_shown() -> None:
    text = "permit(principal is Usr, action, resource) when { " + " || ".join(["true"] * 1000) + " };"
    fault = report_of(text).errors[0]
    assert text.startswith(fault.excerpt)
    assert len(fault.excerpt) == 400


def test_a_message_about_a_very_long_expression_is_cut() -> None:
    fields = ", ".join(f"a{n}: {n}" for n in range(1000))
    report = report_of(f"permit(principal, action, resource) when {{ {{{fields}}}.b == 1 && {{{fields}}} == 1 }};")
    assert [fault.code for fault in report.errors] == ["undeclared_attribute", "incompatible_types"]
    assert all(len(fault.message) == 600 for fault in report.errors)
