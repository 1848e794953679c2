"""Names and texts that may not be what they look like are warned of."""

import pytest

from gateway.policy.policy_set import PolicySet
from gateway.policy.validator import validate
from tests.unit.policy.validator.schema_text import PARSED


def warnings(condition: str, scope: str = "principal, action, resource") -> list[str]:
    """Give the codes of what is warned of."""
    report = validate(PolicySet.parse(f"permit({scope}) when {{ {condition} }};"), PARSED)
    return [fault.code for fault in report.warnings]


@pytest.mark.parametrize(
    ("condition", "code"),
    [
        ('principal has name && principal.name == "say_\u04bbello"', "mixed_scripts"),
        ('principal has name && principal.name like "*_\u04bbello"', "mixed_scripts"),
        ('principal has "\u04bbello"', "mixed_scripts"),
        ('principal == User::"say_\u04bbello"', "mixed_scripts"),
        ('{"\u04bba": 1} has x || principal.age > 1', "mixed_scripts"),
        ('principal has name && principal.name == "user\u202e && admin"', "turned_text"),
        ('principal has "admin\u2066"', "turned_text"),
        ('principal has "is\u200bAdmin"', "unusual_character"),
        ('principal has "new\\nline"', "unusual_character"),
        ('principal == User::"a\\0"', "unusual_character"),
        ('principal == User::"\U0001f34c"', "unusual_character"),
        ('principal == User::"\uff21"', "unusual_character"),
    ],
)
def test_what_may_deceive_is_warned_of(condition: str, code: str) -> None:
    assert code in warnings(condition)


def test_entities_of_the_scope_are_looked_at() -> None:
    assert warnings("true", 'principal == User::"say_\u04bbello", action, resource') == ["mixed_scripts"]


@pytest.mark.parametrize(
    "condition",
    [
        'principal == User::"https://www.example.com/test?foo=bar&bar=baz#buz"',
        'principal == User::"get /pets/{petId}"',
        'principal == User::"M\u00fcller"',
        'principal == User::"\u041c\u0430\u0440\u0438\u044f 7"',
        'principal == User::"\u6771\u4eac\u3068\u30ab\u30ca"',
        'principal == User::"\ud55c\u5b57 \u6f22"',
        'principal has name && principal.name == "tabs\\tand\\nlines"',
        'principal has name && principal.name == "\U0001f34c"',
        'principal has name && principal.name like "M\u00fc*"',
    ],
)
def test_what_people_write_is_not_warned_of(condition: str) -> None:
    assert warnings(condition) == []


def test_a_policy_from_json_is_looked_at() -> None:
    text = 'permit(principal == User::"say_\u04bbello", action, resource);'
    policies = PolicySet.from_json(PolicySet.parse(text).to_json())
    assert [fault.code for fault in validate(policies, PARSED).warnings] == ["mixed_scripts"]


def test_a_warning_shows_the_place() -> None:
    text = 'permit(principal, action, resource)\nwhen { principal has "is\u200bAdmin" };'
    fault = next(
        fault for fault in validate(PolicySet.parse(text), PARSED).warnings if fault.code == "unusual_character"
    )
    assert (fault.line, fault.column) == (2, 8)
    assert "U+200B" in fault.message
