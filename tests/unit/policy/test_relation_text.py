"""Relations are written so that they can be read again, and what is none is told apart."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway._native.uid import EntityUid
from gateway.policy.relation_text import parse_relation, parse_subject, relation_to_text
from gateway.stores.base import UNTIL_S_MAX
from gateway.stores.relations import Relation, Subject, Userset

NAMES = st.sampled_from(["viewers", "_x1", "Members"])
IDS = st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=20)
ENTITIES = st.builds(EntityUid, st.sampled_from(["User", "A::B_1"]), IDS)
SUBJECTS = ENTITIES | st.builds(Userset, ENTITIES, NAMES)
RELATIONS = st.builds(Relation, ENTITIES, NAMES, SUBJECTS, st.none() | st.integers(1, UNTIL_S_MAX))


@given(RELATIONS)
def test_what_is_written_is_read_again(relation: Relation) -> None:
    assert parse_relation(relation_to_text(relation)) == relation


@given(SUBJECTS)
def test_subjects_alone_are_read_again(subject: Subject) -> None:
    assert parse_subject(str(subject)) == subject


def test_the_end_may_be_given_in_any_time_zone() -> None:
    text = 'Doc::"1"#viewers@User::"a" until 1970-01-02T02:00:00+02:00'
    assert parse_relation(text).expires_at_s == 86_400
    assert relation_to_text(parse_relation(text)) == 'Doc::"1"#viewers@User::"a" until 1970-01-02T00:00:00Z'


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("", "is no relation; write it as"),
        ('Doc::"1"', "is no relation; write it as"),
        ('Doc::"1"#viewers', "is no relation; write it as"),
        ("Doc:1#viewers@User:a", "is no relation; write it as"),
        ('Doc::"1"#view-ers@User::"a"', "is no relation; write it as"),
        ('Doc::"1"#viewers@User::"a"#', "is no relation; write it as"),
        ('Doc::"1"#viewers@User::"a" for ever', "is no relation; write it as"),
        ('Doc::"\\q"#viewers@User::"a"', "is no entity"),
        ('Doc::"1"#viewers@User::"\\0"', "no NUL"),
        ('Doc::"1"#viewers@if::"a"', "is no entity"),
        ('Doc::"1"#viewers@User::"a" until tomorrow', "is no time"),
        ('Doc::"1"#viewers@User::"a" until 2026-01-01T00:00:00', "has no time zone"),
        ('Doc::"1"#viewers@User::"a" until 1969-01-01T00:00:00Z', "expires between 1970 and 9999"),
    ],
)
def test_what_is_no_relation_is_told_with_a_remedy(text: str, problem: str) -> None:
    with pytest.raises(ValueError, match=re.escape(problem)):
        parse_relation(text)


def test_nobody_is_told_apart() -> None:
    with pytest.raises(ValueError, match="is nobody"):
        parse_subject("alice")
