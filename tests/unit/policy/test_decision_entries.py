"""A kept decision says what it rests on, and reads back as it was written, or not at all."""

from __future__ import annotations

import pytest

from gateway._native.entities import EntityStore
from gateway._native.vm import Answer
from gateway.policy.decision_entries import Entry, rests_on, shared_entry, written
from tests.unit.policy.relation_world import uid

ALICE, BOB, STAFF, ALL = uid("User:alice"), uid("User:bob"), uid("Group:staff"), uid("Group:all")
ANSWER = Answer(True, frozenset(["b", "a"]), frozenset(["é"]))
WHOLE = b"whole key"


def store_of_staff() -> EntityStore:
    store = EntityStore()
    store.apply([(ALICE, {}, (STAFF,), None), (STAFF, {}, (ALL,), None), (ALL, {}, (), None), (BOB, {}, (), None)])
    return store


def test_it_holds_while_its_versions_do_and_its_groups_are_here() -> None:
    store = store_of_staff()
    entry = Entry(ANSWER, 0.0, (), None, versions=((ALICE, store.version(ALICE)),), members=(ALICE,))
    store.apply([(BOB, {"a": 1}, (), None)])
    assert entry.holds_in(store)
    assert rests_on(entry, store) == {ALICE, STAFF, ALL}
    store.source_type("Group")
    assert entry.holds_in(store)
    store.evict([ALL])
    assert not entry.holds_in(store)
    store.apply([(ALL, {}, (), None)])
    assert entry.holds_in(store)
    store.apply([(ALICE, {"a": 1}, (STAFF,), None)])
    assert not entry.holds_in(store)


def test_where_it_is_not_known_what_it_rests_on_it_holds_until_anything_changes() -> None:
    store = store_of_staff()
    entry = Entry(ANSWER, 0.0, (), None, revision=store.revision)
    assert entry.holds_in(store)
    store.remove(BOB)
    assert not entry.holds_in(store)


@pytest.mark.parametrize(
    ("flip_ms", "then", "now", "holds"),
    [
        (None, (5,), (10**15,), True),
        (10, (100,), (109,), True),
        (10, (100,), (110,), False),
        (10, (100,), (91,), True),
        (10, (100,), (90,), False),
        (10, (100, 5), (100, 50), False),
        (10, (100, None), (100, None), True),
        (1, (100,), (100,), True),
    ],
)
def test_moments_may_move_by_less_than_until_a_comparison_turns(
    flip_ms: int | None, then: tuple[int | None, ...], now: tuple[int | None, ...], holds: bool
) -> None:
    assert Entry(ANSWER, 0.0, then, flip_ms).holds_at(now) is holds


@pytest.mark.parametrize("flip_ms", [None, 7])
@pytest.mark.parametrize("until_s", [None, 17.5])
def test_it_reads_back_as_it_was_written(flip_ms: int | None, until_s: float | None) -> None:
    entry = Entry(ANSWER, 9.0, (1, None), flip_ms, until_s)
    read = shared_entry(written(WHOLE, entry), WHOLE, 2)
    assert read.answer == ANSWER
    assert (read.moments, read.flip_ms, read.token_until_s, read.is_shared) == ((1, None), flip_ms, until_s, True)


def test_under_another_key_it_is_none() -> None:
    value = written(WHOLE, Entry(ANSWER, 9.0, (), None))
    for other in (b"", b"whole", WHOLE + b"y"):
        with pytest.raises(ValueError, match="another key"):
            shared_entry(value, other, 0)
