"""The index over heads only decides what is looked at: what it finds is what looking at every policy finds."""

from __future__ import annotations

import random
import threading
from typing import Any

import pytest

from gateway._native.entities import EntityStore
from gateway._native.uid import EntityUid
from gateway._native.vm import Decider, Request
from tests.policy.machine import decider_of, rules_of

USERS = [EntityUid("User", f"u{n}") for n in range(12)]
TEAMS = [EntityUid("Team", f"t{n}") for n in range(12)]
DOCS = [EntityUid("Doc", f"d{n}") for n in range(12)]
FOLDERS = [EntityUid("Folder", f"f{n}") for n in range(12)]
LISTS = [EntityUid("List", f"l{n}") for n in range(6)]  # of a walked type
ACTIONS = [EntityUid("Action", f"a{n}") for n in range(6)]
GROUPS = [EntityUid("Action", f"g{n}") for n in range(3)]
Overlays = dict[EntityUid, tuple[dict[str, int], list[EntityUid]]]
UNKNOWN = EntityUid("User", "nobody"), EntityUid("Stranger", "x")


def entities(source: random.Random) -> EntityStore:
    store = EntityStore()
    store.walk_type("List")
    for number, uid in enumerate(LISTS):
        store.put(uid, {}, source.sample(LISTS[:number], source.randint(0, min(2, number))))
    for kinds, parents in ((TEAMS, TEAMS), (FOLDERS, FOLDERS), (GROUPS, GROUPS)):
        for number, uid in enumerate(kinds):
            store.put(uid, {}, source.sample(parents[:number], source.randint(0, min(2, number))))
    for uid in USERS:
        store.put(uid, {"n": source.randint(0, 3)}, source.sample(TEAMS + LISTS, source.randint(0, 4)))
    for uid in DOCS:
        store.put(uid, {"n": source.randint(0, 3)}, source.sample(FOLDERS + LISTS, source.randint(0, 3)))
    for uid in ACTIONS:
        store.put(uid, {}, source.sample(GROUPS, source.randint(0, 2)))
    return store


def bound(source: random.Random, name: str, kind: str, things: list[EntityUid]) -> str:
    match source.randrange(7):
        case 0 | 1:
            return name
        case 2:
            return f"{name} is {kind}"
        case 3:
            return f"{name} == {source.choice(things)}"
        case 4:
            return f"{name} is {kind} in {source.choice(things)}"
    return f"{name} in {source.choice(things)}"


def policy(source: random.Random) -> str:
    effect = source.choice(("permit", "permit", "permit", "forbid"))
    action = source.choice(
        (
            "action",
            f"action == {source.choice(ACTIONS + GROUPS)}",
            f"action in {source.choice(ACTIONS + GROUPS)}",
            f"action in [{', '.join(map(str, source.sample(ACTIONS + GROUPS, source.randint(0, 3))))}]",
        )
    )
    principal = bound(source, "principal", "User", USERS + TEAMS + LISTS)
    resource = bound(source, "resource", "Doc", DOCS + FOLDERS + LISTS)
    condition = source.choice(
        (
            "",
            "",
            "when { principal.n > 1 }",
            "unless { resource.n == context.n }",
            "when { context.nope }",
            "when { principal.nope == 1 }",
        )
    )
    return f"{effect}({principal}, {action}, {resource}) {condition};"


def by_hand(
    decider: Decider, rules_permit: list[bool], request: Request
) -> tuple[bool, frozenset[str], frozenset[str]]:
    satisfied: dict[bool, set[str]] = {True: set(), False: set()}
    errors = set()
    for name, permits, (head, code, holds, _) in zip(decider.ids, rules_permit, decider.run_each(request), strict=True):
        if code is not None:
            errors.add(name)
        elif head is None and holds:
            satisfied[permits].add(name)
    decided_by = satisfied[False] or satisfied[True]
    return not satisfied[False] and bool(satisfied[True]), frozenset(decided_by), frozenset(errors)


@pytest.mark.parametrize("seed", range(12))
def test_the_index_loses_no_policy(seed: int) -> None:
    source = random.Random(seed)
    store = entities(source)
    texts = [policy(source) for _ in range((1, 8, 9, 40, 150, 400)[seed % 6])]
    rules = rules_of("\n".join(texts))
    decider = decider_of(store, rules)
    permits = [rule.permits for rule in rules]
    for _ in range(150):
        principal = source.choice([*USERS, *TEAMS, *LISTS, *UNKNOWN])
        resource = source.choice([*DOCS, *FOLDERS, *LISTS, *UNKNOWN])
        action = source.choice([*ACTIONS, *GROUPS, EntityUid("Action", "other")])
        overlays = None
        if source.random() < 0.3:
            overlays = {principal: ({"n": source.randint(0, 3)}, source.sample(TEAMS, 2))}
        request = decider.prepare(principal, action, resource, {"n": 1}, overlays=overlays)
        answer = decider.answer(request)
        assert (answer.allowed, answer.reasons, answer.errors) == by_hand(decider, permits, request)
        assert decider.decide(request) is answer.allowed
        if overlays is None:
            assert decider.allows(principal, action, resource, {"n": 1}) is answer.allowed


def test_entities_that_change_after_binding_are_seen() -> None:
    source = random.Random(7)
    store = entities(source)
    text = "\n".join(f'permit(principal in Team::"t{n}", action in Action::"g{n % 3}", resource);' for n in range(12))
    decider = decider_of(store, rules_of(text))
    new, action = EntityUid("User", "new"), EntityUid("Action", "new")
    request = decider.prepare(new, action, DOCS[0])
    assert decider.decide(request) is False
    store.put(action, {}, [GROUPS[0]])
    assert decider.decide(request) is False
    store.put(new, {}, [TEAMS[3]])
    assert decider.decide(request) is True
    assert "policy3" in decider.answer(request).reasons
    store.remove(new)
    assert decider.decide(request) is False
    assert decider.allows(new, action, DOCS[0]) is False


def test_a_prepared_request_does_not_take_another_entity_for_its_own() -> None:
    """A place of the store that became free is given to another entity; the request must not see that one."""
    store = EntityStore()
    one, two, view = EntityUid("User", "one"), EntityUid("User", "two"), EntityUid("Action", "view")
    store.put(one, {"ok": False})
    store.put(view, {})
    decider = decider_of(store, rules_of("permit(principal, action, resource) when { principal.ok };"))
    request = decider.prepare(one, view, one, {"who": one})
    store.remove(one)
    store.put(two, {"ok": True})
    assert decider.decide(request) is False
    assert decider.answer(request).errors == {"policy0"}
    assert decider.decide(decider.prepare(two, view, two)) is True


def test_an_overlay_defines_the_principal_for_its_request_alone() -> None:
    store = EntityStore()
    alice, team, view = EntityUid("User", "alice"), EntityUid("Team", "a"), EntityUid("Action", "view")
    top = EntityUid("Team", "top")
    store.put(team, {}, [top])
    text = 'permit(principal in Team::"top", action, resource) when { principal.level > 2 };'
    decider = decider_of(store, rules_of(text))
    request = decider.prepare(alice, view, alice, overlays={alice: ({"level": 3}, [team])})
    assert decider.decide(request) is True
    assert decider.allows(alice, view, alice) is False
    assert decider.decide(decider.prepare(alice, view, alice, overlays={alice: ({"level": 2}, [team])})) is False
    assert decider.decide(decider.prepare(alice, view, alice, overlays={alice: ({"level": 3}, [])})) is False
    store.put(team, {}, [])
    assert decider.decide(request) is False
    with pytest.raises(ValueError, match="not part of the request"):
        decider.prepare(alice, view, alice, overlays={team: ({}, [])})


def test_the_front_doors_way_of_asking_gives_the_same_decisions() -> None:
    source = random.Random(3)
    store = entities(source)
    text = """
        permit(principal in Team::"t1", action, resource is Doc) when { context.method == "GET" };
        permit(principal, action, resource in Folder::"f1") when { context.path like "/a/*" };
        permit(principal, action, resource in Team::"t1");
        forbid(principal, action, resource) when { context has blocked };
    """
    decider = decider_of(store, rules_of(text))
    for _ in range(300):
        principal, action = source.choice([*USERS, *UNKNOWN]), source.choice(ACTIONS)
        resource = source.choice([*DOCS, *FOLDERS, EntityUid("Doc", "ü"), EntityUid("Other", "x"), principal])
        texts = {"method": source.choice(("GET", "PUT")), "path": source.choice(("/a/ü", "/b")), "other": "x"}
        if source.random() < 0.2:
            texts["blocked"] = ""
        overlays: Overlays | None = {principal: ({}, [TEAMS[1]])} if source.random() < 0.3 else None
        like = decider.prepare(principal, action, action, overlays=overlays)
        asked = decider.allows_like(
            like, resource.type, resource.id.encode(), {name: value.encode() for name, value in texts.items()}
        )
        assert asked is decider.decide(decider.prepare(principal, action, resource, texts, overlays=overlays))
        assert decider.decide_for(like, resource, texts) is asked


def test_the_front_door_denies_what_it_cannot_read() -> None:
    store = EntityStore()
    decider = decider_of(store, rules_of("permit(principal, action, resource);"))
    like = decider.prepare(USERS[0], ACTIONS[0], ACTIONS[0], {"kept": 1})
    assert decider.allows_like(like, "Doc", b"d")
    with pytest.raises(ValueError, match="no text"):
        decider.allows_like(like, "Doc", b"\xff")
    with pytest.raises(ValueError, match="no text"):
        decider.allows_like(like, "Doc", b"d", {"a": b"\xc0\x80"})
    with pytest.raises(ValueError, match="too large"):
        decider.allows_like(like, "Doc", b"d", {name: b"x" * 3_000_000 for name in ("a", "b")})
    assert decider.allows_like(like, "Doc", b"d", {})


def test_a_store_that_changes_while_a_context_is_read_is_read_again() -> None:
    """Reading a context may run code that changes entities: the principal's place must not become another's."""
    store = EntityStore()
    one, two, view = EntityUid("User", "one"), EntityUid("User", "two"), EntityUid("Action", "view")
    decider = decider_of(
        store, rules_of("permit(principal, action, resource) when { principal.ok && context.a == 1 };")
    )

    class Changing(dict[str, int]):
        def items(self) -> Any:
            store.remove(one)
            if two not in store:
                store.put(two, {"ok": True})
            return super().items()

    for ask in (decider.allows, lambda *request: decider.decide(decider.prepare(*request))):
        store.put(one, {"ok": False})
        store.put(view, {})
        assert ask(one, view, one, {"a": 1}) is False
        with pytest.raises(RuntimeError, match="faster"):
            ask(one, view, one, Changing(a=1))
        store.remove(two)


def test_deciders_are_bound_while_others_decide_without_the_lock() -> None:
    """New names move the store's tables: binding waits for readers, who find what they found before."""
    source = random.Random(5)
    store = entities(source)
    decider = decider_of(store, rules_of('permit(principal in List::"l1", action, resource) when { principal.n > 0 };'))
    requests = [decider.prepare(source.choice(USERS), ACTIONS[0], source.choice(DOCS)) for _ in range(2000)]
    expected = [decider.decide(request) for request in requests]
    rounds: list[bool] = []
    done = threading.Event()

    def decide_often() -> None:
        while not done.is_set():
            rounds.append(decider.decide_all(requests) == expected)

    thread = threading.Thread(target=decide_often)
    thread.start()
    try:
        for number in range(30):
            name = f"new{number}"
            text = f'permit(principal == User::"{name}", action, resource) when {{ context.{name} }};'
            decider_of(store, rules_of(text))
    finally:
        done.set()
        thread.join()
    assert decider.decide_all(requests) == expected
    assert rounds
    assert all(rounds)


@pytest.mark.parametrize("seed", range(20))
def test_candidates_are_all_whose_heads_hold_as_far_as_is_known(seed: int) -> None:
    source = random.Random(seed)
    store = entities(source)
    decider = decider_of(store, [rule for _ in range(60) for rule in rules_of(policy(source))])

    def heads(who: EntityUid, what: EntityUid, where: EntityUid) -> list[object]:
        return [part for part, *_ in decider.run_each(decider.prepare(who, what, where))]

    asked = [(source.choice(USERS), source.choice(ACTIONS), source.choice(DOCS)) for _ in range(20)]
    for who, what, where in [*asked, (EntityUid("Nobody", "x"), EntityUid("Nothing", "y"), EntityUid("None", "z"))]:
        said = heads(who, what, where)
        whole = [(number, True) for number, part in enumerate(said) if part not in ("principal", "action", "resource")]
        assert decider.candidates(who, what, where) == whole
        some = [(number, True) for number, part in enumerate(said) if part not in ("principal", "action")]
        assert decider.candidates(who, what) == some
        others = {number for user in [*USERS, who] for number, _ in decider.candidates(user, what, where)}
        assert others <= {number for number, _ in decider.candidates(None, what, where)}
        assert set(whole) == set(some) & set(decider.candidates(None, what, where))
