"""Names of entities behave as values: equal by both parts, hashable, ordered, and spelled as Cedar spells them."""

from __future__ import annotations

import pickle

import pytest

from gateway._native.uid import EntityUid, quoted


def test_equal_by_type_and_id() -> None:
    assert EntityUid("User", "alice") == EntityUid("User", "alice")
    assert hash(EntityUid("User", "alice")) == hash(EntityUid("User", "alice"))
    assert EntityUid("User", "alice") != EntityUid("User", "bob")
    assert EntityUid("User", "alice") != EntityUid("Group", "alice")
    assert EntityUid("User", "alice") != 'User::"alice"'


def test_ordered_by_type_then_id() -> None:
    uids = [EntityUid("B", "1"), EntityUid("A", "2"), EntityUid("A", "1")]
    assert [str(uid) for uid in sorted(uids)] == ['A::"1"', 'A::"2"', 'B::"1"']


def test_cannot_be_changed() -> None:
    with pytest.raises(AttributeError):
        EntityUid("User", "alice").id = "bob"  # type: ignore[misc]


def test_survives_pickling() -> None:
    assert pickle.loads(pickle.dumps(EntityUid("Shop::User", "a"))) == EntityUid("Shop::User", "a")


def test_matches_by_position() -> None:
    match EntityUid("User", "alice"):
        case EntityUid(type, id):
            assert (type, id) == ("User", "alice")
        case _:
            pytest.fail("no match")


@pytest.mark.parametrize(
    ("text", "spelled"),
    [
        ("plain", '"plain"'),
        ('a"b\\c', '"a\\"b\\\\c"'),
        ("\n\r\t\0", '"\\n\\r\\t\\0"'),
        ("\x07", '"\\u{7}"'),
        ("žluťoučký 🐎", '"žluťoučký 🐎"'),
    ],
)
def test_quoted_as_cedar_quotes(text: str, spelled: str) -> None:
    assert quoted(text) == spelled
