"""Names that programs mention live in the store as long as the programs do, and no longer."""

from __future__ import annotations

import gc
import sys
import threading

import pytest

from gateway._native.entities import EntityStore
from gateway._native.uid import EntityUid
from gateway._native.vm import Decider
from gateway.policy.evaluation import evaluate
from gateway.policy.language.statements import parse_expression
from tests.policy.machine import decider_of, rules_of

ALICE, VIEW, DOC = EntityUid("User", "alice"), EntityUid("Action", "view"), EntityUid("Doc", "d")


@pytest.mark.parametrize(
    "text",
    [
        'permit (principal == User::"N", action == Action::"N", resource in Doc::"N");',
        'permit (principal is User in Group::"N", action in [Action::"N", Action::"Nb"], resource);',
        'permit (principal, action, resource) when { principal == User::"N" && resource.a == "N and more" };',
        'permit (principal, action, resource) when { [User::"N", "N"].contains(context.a) };',
        'permit (principal, action, resource) when { {a: ["N", {b: Doc::"N"}], c: "N"} == context.a };',
    ],
)
def test_a_store_does_not_grow_by_policies_that_went(text: str) -> None:
    store = EntityStore()
    sizes = []
    for number in range(2_000):
        decider = decider_of(store, text.replace("N", f"{number:06}"))
        assert not decider.allows(ALICE, VIEW, DOC)
        del decider
        sizes.append(store.memory_bytes)
    assert max(sizes[1_000:]) == max(sizes[100:1_000])


def test_what_expressions_mention_goes_with_them() -> None:
    store = EntityStore()
    store.put(ALICE, {"friends": [EntityUid("User", "bob")]})
    wanted = 'User::"alice".friends.contains(User::"bob")'
    sizes = []
    for number in range(1_000, 3_000):
        text = f'User::"{number}" == User::"x{number}" || "t{number}" == "u"'
        assert evaluate(parse_expression(text), store=store) is False
        assert evaluate(parse_expression(wanted), store=store) is True
        sizes.append(store.memory_bytes)
    assert max(sizes[1_000:]) == max(sizes[100:1_000])


def test_a_name_that_two_programs_mention_stays_for_the_second() -> None:
    store = EntityStore()
    first = decider_of(store, 'permit (principal == User::"alice", action, resource);')
    second = decider_of(store, 'permit (principal, action, resource) when { principal == User::"alice" };')
    del first
    store.put(EntityUid("User", "other"), {})  # gives back what went
    assert second.allows(ALICE, VIEW, DOC)
    assert not second.allows(EntityUid("User", "other"), VIEW, DOC)


def test_a_program_that_is_bound_again_is_right_after_its_names_went() -> None:
    store = EntityStore()
    rules = rules_of('permit (principal in Group::"g", action, resource);')
    assert not Decider(store, rules, ["a"]).allows(ALICE, VIEW, DOC)
    elsewhere = EntityStore()
    assert not Decider(elsewhere, rules, ["a"]).allows(ALICE, VIEW, DOC)  # binds the rule to another store
    for number in range(10):
        store.put(EntityUid("Group", f"g{number}"), {})  # may take the place that the name had
    store.put(ALICE, {}, [EntityUid("Group", "g")])
    assert Decider(store, rules, ["a"]).allows(ALICE, VIEW, DOC)
    store.put(ALICE, {}, [EntityUid("Group", "g0")])
    assert not Decider(store, rules, ["a"]).allows(ALICE, VIEW, DOC)


def test_a_prepared_request_is_not_mistaken_for_who_took_its_place() -> None:
    """Alice is known by a program only. Its place goes to Bob, at the same revision, with as many free places."""
    store = EntityStore()
    bob = EntityUid("User", "bob")
    decider = decider_of(store, 'permit (principal == User::"alice", action, resource);')
    request = decider.prepare(ALICE, VIEW, DOC)
    assert decider.decide(request)
    del decider
    others = decider_of(store, 'permit (principal == User::"bob", action, resource);')
    assert not others.decide(request)
    assert others.allows(bob, VIEW, DOC)
    assert others.answer(request).reasons == frozenset()


def test_a_store_lives_as_long_as_what_mentions_its_names() -> None:
    store = EntityStore()
    [rule] = rules_of('permit (principal == User::"alice", action, resource);')
    held = sys.getrefcount(store)
    assert Decider(store, [rule], ["a"]).allows(ALICE, VIEW, DOC)
    assert sys.getrefcount(store) == held + 1  # the rule goes on mentioning its names
    del rule
    assert sys.getrefcount(store) == held


def test_names_go_while_others_decide_without_the_lock() -> None:
    store = EntityStore()
    for number in range(50):
        store.put(EntityUid("Group", f"g{number}"), {}, [EntityUid("Group", f"g{number - 1}")] if number else [])
    store.put(ALICE, {"name": "alice"}, [EntityUid("Group", "g49")])
    decider = decider_of(
        store, 'permit (principal in Group::"g0", action, resource) when { principal.name == "alice" };'
    )
    requests = [decider.prepare(ALICE, VIEW, EntityUid("Doc", f"d{number}")) for number in range(200)]
    wrong: list[int] = []
    done = threading.Event()

    def decide_often() -> None:
        while not done.is_set():
            wrong.extend([1] * decider.decide_all(requests).count(False))

    thread = threading.Thread(target=decide_often)
    thread.start()
    try:
        for number in range(500):
            text = f'permit (principal == User::"u{number}", action, resource) when {{ resource.a == "t{number}" }};'
            assert not decider_of(store, text).allows(ALICE, VIEW, DOC)
            store.put(EntityUid("Doc", f"e{number % 7}"), {"a": f"t{number}"})
    finally:
        done.set()
        thread.join()
    assert wrong == []


def test_an_answer_names_what_was_missing_though_the_collector_wakes_others_who_change_the_store() -> None:
    store = EntityStore()
    store.source_type("User")
    bob = EntityUid("User", "bob")
    store.put(DOC, {"owner": bob})
    decider = decider_of(store, "permit (principal, action, resource) when { resource.owner.level > 1 };")
    changes: list[str] = []

    def change(phase: str, _: object) -> None:
        if phase == "start" and not changes:
            changes.append(phase)
            store.remove(DOC)  # nobody names Bob any more
            store.put(EntityUid("Doc", "other"), {"owner": EntityUid("User", "carol")})  # whose place is Bob's

    thresholds = gc.get_threshold()
    gc.collect()
    gc.callbacks.append(change)
    gc.set_threshold(1)
    try:
        answer = decider.authorize(ALICE, VIEW, DOC)
    finally:
        gc.set_threshold(*thresholds)
        gc.callbacks.remove(change)
    assert changes
    assert answer.missing == bob
    store.put(EntityUid("User", "carol"), {"level": 3})
    assert store.get(answer.missing) is None
