"""Entities that are kept elsewhere: what decisions do where one is not here, and that nothing of it stays behind."""

from __future__ import annotations

from typing import Any

import pytest

from gateway._native.entities import EntityStore
from gateway._native.extensions import Datetime
from gateway._native.uid import EntityUid
from gateway._native.vm import Answer
from tests.policy.machine import decider_of

ALICE, STAFF, WORLD = EntityUid("User", "alice"), EntityUid("Group", "staff"), EntityUid("Group", "world")
VIEW, DOC = EntityUid("Action", "view"), EntityUid("Doc", "d")
NOT_HERE = ("entity_not_resident",)


def store_with(*sourced: str) -> EntityStore:
    store = EntityStore()
    for name in sourced:
        store.source_type(name)
    return store


def ask(store: EntityStore, condition: str, context: dict[str, Any] | None = None) -> Answer:
    text = f"permit(principal, action, resource) when {{ {condition} }};"
    return decider_of(store, text).authorize(ALICE, VIEW, DOC, context)


# --- what is missed


@pytest.mark.parametrize(
    "condition",
    [
        "principal.level == 1",
        "principal.level > 0",
        "principal has level",
        "principal has level.deep",
        'principal.getTag("t") == 1',
        'principal.hasTag("t")',
        'principal in Group::"staff"',
        'principal in [Group::"staff", Group::"world"]',
        'principal is User in Group::"staff"',
        "context.who.level == 1",
        "context.who has level",
        'context.who in Group::"staff"',
    ],
)
def test_whatever_reads_an_entity_that_is_not_here_misses_it(condition: str) -> None:
    store = store_with("User")
    answer = ask(store, condition, {"who": ALICE})
    assert (answer.allowed, answer.faults, answer.missing) == (False, NOT_HERE, ALICE)
    store.settle([ALICE])
    assert ask(store, condition, {"who": ALICE}).missing is None


@pytest.mark.parametrize(
    "condition", ['principal == User::"alice"', "principal is User", "principal in principal", "true"]
)
def test_what_reads_only_the_name_misses_nothing(condition: str) -> None:
    assert ask(store_with("User"), condition) == Answer(True, frozenset({"policy0"}), frozenset())


def test_what_is_above_an_entity_must_be_here_before_it_is_known_to_be_outside() -> None:
    store = store_with("Group")
    store.put(ALICE, {}, [STAFF])
    assert ask(store, 'principal in Group::"staff"').allowed
    assert ask(store, 'principal in Group::"world"').missing == STAFF
    assert store.away(ALICE) == {STAFF}
    store.put(STAFF, {}, [WORLD])
    assert ask(store, 'principal in Group::"world"').allowed
    assert ask(store, 'principal in Group::"other"').missing == WORLD
    store.settle([WORLD])
    assert ask(store, 'principal in Group::"other"') == Answer(False, frozenset(), frozenset())
    assert store.away(ALICE) == frozenset()


def test_heads_that_ask_what_an_entity_is_in_find_their_policies_only_when_it_is_here() -> None:
    store = store_with("User", "Doc")
    many = "".join(f'permit(principal in Group::"g{i}", action, resource);' for i in range(50))
    deciding = decider_of(store, f'{many} forbid(principal, action, resource in Group::"staff");')
    assert deciding.authorize(ALICE, VIEW, DOC).missing == ALICE
    assert not deciding.allows(ALICE, VIEW, DOC)
    store.put(ALICE, {}, [EntityUid("Group", "g7")])
    assert deciding.authorize(ALICE, VIEW, DOC).missing == DOC
    assert not deciding.allows(ALICE, VIEW, DOC)
    store.settle([DOC])
    assert deciding.allows(ALICE, VIEW, DOC)
    assert [each[1] for each in deciding.run_each(deciding.prepare(EntityUid("User", "new"), VIEW, DOC))].count(
        NOT_HERE[0]
    ) == 50


def test_diagnoses_need_every_policy_even_where_a_forbid_decides() -> None:
    forbid, permit = (
        "forbid(principal, action, resource);",
        "permit(principal, action, resource) when { principal.n == 1 };",
    )
    store = store_with("User")
    assert decider_of(store, forbid + permit).authorize(ALICE, VIEW, DOC).missing == ALICE
    store.settle([ALICE])
    answer = decider_of(store, forbid + permit).authorize(ALICE, VIEW, DOC)
    assert answer == Answer(False, frozenset({"policy0"}), frozenset({"policy1"}))


def test_an_entity_that_the_request_defines_is_missed_for_what_it_does_not_say() -> None:
    store = store_with("User")
    deciding = decider_of(
        store, "permit(principal, action, resource) when { principal.level == 1 && principal has name };"
    )
    ready = deciding.prepare(ALICE, VIEW, DOC, overlays={ALICE: ({"level": 1}, [])})
    assert deciding.answer(ready).missing == ALICE
    store.put(ALICE, {"name": "Alice", "level": 7})
    assert deciding.decide(ready)


def test_a_prepared_request_follows_what_is_fetched_and_let_go() -> None:
    store = store_with("User")
    deciding = decider_of(store, "permit(principal, action, resource) when { principal.level == 1 };")
    ready = deciding.prepare(ALICE, VIEW, DOC)
    for _ in range(3):
        assert not deciding.decide(ready)
        store.put(ALICE, {"level": 1})
        assert deciding.decide(ready)
        store.evict([ALICE])
    store.settle([ALICE])
    assert deciding.answer(ready).errors == {"policy0"}


def test_a_door_may_lack_another_entity_than_the_diagnosis() -> None:
    store = store_with("User", "Doc")
    clauses = "when { [1, 2, 3].contains(principal.n + 1 - 1) } when { resource has owner }"
    deciding = decider_of(store, f"permit(principal, action, resource) {clauses};")
    ready = deciding.prepare(ALICE, VIEW, DOC)
    assert deciding.answer(ready).missing == ALICE
    assert deciding.lacks(ready) == DOC  # `has` is cheap
    store.settle([DOC])
    assert deciding.lacks(ready) is None  # it is denied, whoever she is
    store.put(DOC, {"owner": 1})
    assert deciding.lacks(ready) == ALICE
    store.put(ALICE, {"n": 2})
    assert deciding.lacks(ready) is None
    assert deciding.decide(ready)


# --- the store


def test_an_entity_is_resident_while_it_is_defined_or_known_to_be_absent() -> None:
    store = store_with("User")
    assert not store.resident(ALICE)
    assert store.resident(DOC)
    store.put(ALICE, {"n": 1})
    assert store.resident(ALICE)
    store.remove(ALICE)
    assert not store.resident(ALICE)
    store.settle([ALICE, ALICE])
    assert store.resident(ALICE)
    assert ALICE not in store
    store.put(ALICE, {"n": 2})
    store.settle([ALICE])
    assert (store.resident(ALICE), store.get(ALICE)) == (True, None)
    store.evict([ALICE, EntityUid("User", "never seen")])
    assert not store.resident(ALICE)


def test_every_change_of_what_is_known_is_a_new_version() -> None:
    store = store_with("User")
    store.put(DOC, {"owner": ALICE})  # names her, so that her place stays
    versions = [store.version(ALICE)]
    for change in (store.settle, store.evict, store.settle):
        assert change([ALICE]) == store.version(ALICE)
        versions.append(store.version(ALICE))
    versions.append(store.put(ALICE, {}))
    versions.append(store.evict([ALICE]))
    assert versions == sorted(set(versions))


def test_a_type_becomes_sourced_and_no_more() -> None:
    store = EntityStore()
    store.put(DOC, {"owner": ALICE})
    store.put(EntityUid("User", "bob"), {})
    assert store.resident(ALICE)
    store.source_type("User")
    assert (store.is_sourced("User"), store.is_sourced("Doc"), store.is_sourced("Nothing")) == (True, False, False)
    assert not store.resident(ALICE)
    assert store.resident(EntityUid("User", "bob"))
    store.settle([ALICE])
    revision = store.revision
    store.source_type("User")
    assert store.revision == revision
    store.source_type("User", False)
    assert store.resident(ALICE)
    assert store.resident(EntityUid("User", "never seen"))


def test_what_is_settled_and_let_go_leaves_no_memory_behind() -> None:
    store = store_with("User")

    def round_trip() -> None:
        for first in range(0, 1000, 10):
            uids = [EntityUid("User", f"u{number}") for number in range(first, first + 10)]
            store.settle(uids)
            store.apply([(uid, {"n": 1}, [STAFF], None) for uid in uids[:5]])
            store.settle(uids[:2])
            store.evict(uids)

    round_trip()
    before = store.memory_bytes
    for _ in range(20):
        round_trip()
    assert store.memory_bytes == before
    assert len(store) == 0


def test_what_makes_no_sense_is_refused() -> None:
    store = store_with("User")
    for change in (store.settle, store.evict):
        with pytest.raises(ValueError, match="is kept nowhere else"):
            change([ALICE, DOC])
    store.walk_type("Relation")
    with pytest.raises(ValueError, match="is walked"):
        store.source_type("Relation")


# --- how long an answer holds

NOON = Datetime.parse("2026-11-25T12:00:00Z")


@pytest.mark.parametrize(
    ("condition", "flip_ms"),
    [
        ('context.now < datetime("2026-11-25T12:00:01Z")', 1000),
        ('context.now >= datetime("2026-11-25T11:59:59.990Z")', 10),
        ('context.now <= datetime("2026-11-25T12:00:00Z")', 1),
        ('datetime("2026-11-26") > context.now', 43_200_000),
        ('context.now < datetime("2026-11-25T12:00:01Z") && context.now > datetime("2026-11-25T11:59:59.900Z")', 100),
        ('context.now > datetime("2027-01-01") && context.now > datetime("2026-11-25T11:59:59.900Z")', 3_153_600_000),
        ("1 < 2", None),
        ('context.now == datetime("2026-11-25T12:00:00Z")', None),
        ('context.now.toTime() < duration("13h")', None),
    ],
)
def test_an_answer_says_how_long_its_comparisons_of_time_hold(condition: str, flip_ms: int | None) -> None:
    assert ask(EntityStore(), condition, {"now": NOON}).flip_ms == flip_ms


def test_times_as_far_apart_as_can_be_do_not_overflow() -> None:
    answer = ask(EntityStore(), "context.a < context.b", {"a": Datetime(-(2**63)), "b": Datetime(2**63 - 1)})
    assert answer.allowed
    assert answer.flip_ms is None  # longer than 64 bits of milliseconds
