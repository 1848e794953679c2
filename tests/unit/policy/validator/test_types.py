"""Subtypes and least upper bounds."""

import pytest

from gateway.policy.schema import model
from gateway.policy.validator.types import (
    BOOL,
    FALSE,
    LONG,
    NEVER,
    STRING,
    TRUE,
    Entity,
    Field,
    Mismatch,
    Record,
    Set,
    Type,
    are_disjoint,
    extension,
    from_schema,
    is_subtype,
    least_upper_bound,
    spelled,
)

A, B = Entity(frozenset("A")), Entity(frozenset("B"))
AB = Entity(frozenset("AB"))
X = Record({"x": Field(LONG)})
X_MAYBE = Record({"x": Field(LONG, False)})
XY = Record({"x": Field(LONG), "y": Field(STRING)})
OPEN_X = Record({"x": Field(LONG)}, is_open=True)
IP = extension("ipaddr")


@pytest.mark.parametrize("mode", [True, False])
@pytest.mark.parametrize(
    ("low", "high"),
    [
        (NEVER, LONG), (TRUE, BOOL), (FALSE, BOOL), (LONG, LONG), (Set(TRUE), Set(BOOL)), (Set(NEVER), Set(A)),
        (A, A), (X, X), (IP, IP), (Record({"x": Field(TRUE)}), Record({"x": Field(BOOL)})),
    ],
)  # fmt: skip
def test_subtypes_of_both_modes(low: Type, high: Type, mode: bool) -> None:
    assert is_subtype(low, high, mode)


@pytest.mark.parametrize("mode", [True, False])
@pytest.mark.parametrize(
    ("low", "high"),
    [
        (LONG, NEVER), (BOOL, TRUE), (TRUE, FALSE), (LONG, STRING), (Set(BOOL), Set(TRUE)), (A, B), (A, X), (X, A),
        (X, XY), (X_MAYBE, X), (XY, X), (OPEN_X, X), (IP, extension("decimal")), (AB, A),
    ],
)  # fmt: skip
def test_no_subtypes_in_either_mode(low: Type, high: Type, mode: bool) -> None:
    assert not is_subtype(low, high, mode)


@pytest.mark.parametrize(("low", "high"), [(A, AB), (X, X_MAYBE), (XY, OPEN_X), (X, OPEN_X)])
def test_subtypes_of_permissive_mode(low: Type, high: Type) -> None:
    assert is_subtype(low, high, strict=False)


@pytest.mark.parametrize(("low", "high"), [(A, AB), (X, X_MAYBE), (XY, OPEN_X)])
def test_strict_mode_has_no_width_no_union_and_no_change_of_optional(low: Type, high: Type) -> None:
    assert not is_subtype(low, high, strict=True)


@pytest.mark.parametrize(
    ("one", "other", "strict", "permissive"),
    [
        (TRUE, FALSE, BOOL, BOOL),
        (TRUE, TRUE, TRUE, TRUE),
        (NEVER, LONG, LONG, LONG),
        (LONG, STRING, Mismatch.OTHER, Mismatch.OTHER),
        (Set(TRUE), Set(FALSE), Set(BOOL), Set(BOOL)),
        (Set(LONG), Set(STRING), Mismatch.OTHER, Mismatch.OTHER),
        (A, B, Mismatch.ENTITY, AB),
        (A, X, Mismatch.ENTITY_RECORD, Mismatch.ENTITY_RECORD),
        (X, XY, Mismatch.WIDTH, OPEN_X),
        (X, X_MAYBE, Mismatch.QUALIFIER, X_MAYBE),
        (X, Record({"x": Field(STRING)}), Mismatch.OTHER, Record({}, is_open=True)),
        (
            Record({"x": Field(TRUE)}),
            Record({"x": Field(FALSE)}),
            Record({"x": Field(BOOL)}),
            Record({"x": Field(BOOL)}),
        ),
    ],
)
def test_least_upper_bounds(one: Type, other: Type, strict: Type | Mismatch, permissive: Type | Mismatch) -> None:
    assert least_upper_bound(one, other, strict=True) == strict
    assert least_upper_bound(other, one, strict=True) == strict
    assert least_upper_bound(one, other, strict=False) == permissive
    assert least_upper_bound(other, one, strict=False) == permissive


def test_entities_without_a_common_type_are_disjoint() -> None:
    assert are_disjoint(A, B)
    assert not are_disjoint(A, AB)
    assert not are_disjoint(LONG, STRING)


def test_types_are_spelled_as_in_a_schema() -> None:
    declared = model.RecordType(
        {
            "a": model.Attribute(model.SetType(model.EntityType("N::T"))),
            "b": model.Attribute(model.ExtensionType("ipaddr"), required=False),
            "c": model.Attribute(model.BoolType()),
            "d": model.Attribute(model.LongType()),
            "e": model.Attribute(model.StringType()),
        }
    )
    assert spelled(from_schema(declared)) == "{a: Set<N::T>, b?: ipaddr, c: Bool, d: Long, e: String}"
    assert spelled(OPEN_X) == "{x: Long, …}"
    assert spelled(AB) == "A or B"
    assert spelled(Set(NEVER)) == "Set<nothing>"
