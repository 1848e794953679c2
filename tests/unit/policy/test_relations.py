"""Tuples as edges: what is in what, after any order of changes; and what is left in the store when they are gone."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from gateway._native.uid import EntityUid
from gateway.policy.relations import RelationGraph, digest
from gateway.stores.relations import Relation, RelationChange
from tests.oracle.relations import PlainRelations
from tests.unit.policy.relation_world import (
    NOW_S,
    RULES,
    ManualClock,
    added,
    new_graph,
    relation,
    removed,
    subject,
    uid,
)


def stands(graph: RelationGraph, who: str, target: str) -> bool:
    object, _, name = target.partition("#")
    return graph.store.is_in(uid(who), graph.node(uid(object), name))


def next_expiry_s(graph: RelationGraph) -> float | None:
    return graph.next_expiry_s


def contents(graph: RelationGraph) -> dict[EntityUid, Any]:
    """Give all that the store has, whatever the order of parents."""
    found = {each: graph.store.get(each) for each in graph.store}
    return {each: (held[0], set(held[1]), held[2]) for each, held in found.items() if held is not None}


def test_a_tuple_puts_its_subject_into_the_node_that_the_objects_attribute_holds() -> None:
    graph = new_graph()
    graph.apply(added("Doc:1#viewers@User:alice"))
    found = graph.store.get(uid("Doc:1"))
    assert found is not None
    assert found[0]["viewers"] == EntityUid("Relation::Doc::viewers", "1")
    assert graph.store.is_in(uid("User:alice"), found[0]["viewers"])
    assert not graph.store.is_in(uid("User:bob"), found[0]["viewers"])
    assert not stands(graph, "User:alice", "Doc:2#viewers")
    assert not stands(graph, "User:alice", "Doc:1#blocked")


def test_groups_are_nested_and_folders_hand_down() -> None:
    graph = new_graph()
    graph.define([(uid("Folder:b"), {"parent": uid("Folder:a")}, (), None)])
    graph.define([(uid("Folder:c"), {"parent": uid("Folder:b")}, (), None)])
    graph.apply(
        added(
            "Group:inner#members@User:alice",
            "Group:outer#members@Group:inner#members",
            "Folder:a#owners@Group:outer#members",
            "Doc:1#home@Folder:c",
        )
    )
    for target in ("Folder:a#viewers", "Folder:b#viewers", "Folder:c#viewers", "Doc:1#viewers"):
        assert stands(graph, "User:alice", target)
    assert not stands(graph, "User:alice", "Folder:b#owners")
    graph.apply(removed("Group:outer#members@Group:inner#members"))
    assert not stands(graph, "User:alice", "Doc:1#viewers")


@pytest.mark.parametrize("first", ["tuples", "definitions"])
def test_it_does_not_matter_which_side_speaks_of_an_entity_first(first: str) -> None:
    graph = new_graph()
    definitions: list[Any] = [
        (uid("Folder:b"), {"parent": uid("Folder:a")}, (), None),
        (uid("User:alice"), {}, (uid("Role:admin"),), None),
    ]
    tuples = added("Folder:a#viewers@User:alice", "Folder:b#owners@User:bob")
    if first == "definitions":
        graph.define(definitions)
    graph.apply(tuples)
    if first == "tuples":
        graph.define(definitions)
    assert stands(graph, "User:alice", "Folder:b#viewers")
    assert stands(graph, "User:bob", "Folder:b#viewers")
    assert graph.store.is_in(uid("User:alice"), uid("Role:admin"))
    assert set(graph.relations()) == {change.relation for change in tuples}


def test_a_definition_that_changes_moves_what_is_inherited() -> None:
    graph = new_graph()
    graph.apply(added("Folder:a#viewers@User:alice", "Folder:b#viewers@User:bob"))
    graph.define([(uid("Folder:c"), {"parent": uid("Folder:a")}, (), None)])
    assert stands(graph, "User:alice", "Folder:c#viewers")
    graph.define([(uid("Folder:c"), {"parent": uid("Folder:b")}, (), None)])
    assert not stands(graph, "User:alice", "Folder:c#viewers")
    assert stands(graph, "User:bob", "Folder:c#viewers")
    graph.define([], [uid("Folder:c")])
    assert not stands(graph, "User:bob", "Folder:c#viewers")


def test_what_is_given_twice_holds_until_both_are_gone() -> None:
    graph = new_graph()
    graph.apply(added("Folder:a#viewers@User:alice", "Folder:b#viewers@Folder:a#viewers"))
    graph.apply(added("Folder:b#viewers@Folder:a#viewers"))  # again: still one
    for shared in ((), (uid("Folder:a"),)):
        graph.define([(uid("Folder:b"), {"parent": uid("Folder:a"), "shared": shared}, (), None)])
    graph.apply(removed("Folder:b#viewers@Folder:a#viewers"))
    assert stands(graph, "User:alice", "Folder:b#viewers")
    graph.define([(uid("Folder:b"), {"shared": (uid("Folder:a"),)}, (), None)])
    assert stands(graph, "User:alice", "Folder:b#viewers")
    graph.define([(uid("Folder:b"), {}, (), None)])
    assert not stands(graph, "User:alice", "Folder:b#viewers")
    assert list(graph.relations()) == [relation("Folder:a#viewers@User:alice")]


def test_cycles_are_harmless() -> None:
    graph = new_graph()
    graph.define([(uid("Folder:a"), {"parent": uid("Folder:b")}, (), None)])
    graph.define([(uid("Folder:b"), {"parent": uid("Folder:a")}, (), None)])
    graph.apply(
        added(
            "Group:a#members@Group:b#members",
            "Group:b#members@Group:a#members",
            "Group:b#members@User:alice",
            "Folder:a#viewers@Group:a#members",
            "Doc:1#viewers@Doc:1#viewers",
            "Doc:1#viewers@Doc:2#viewers",
            "Doc:2#viewers@Doc:1#viewers",
            "Doc:2#home@Folder:b",
        )
    )
    for target in ("Group:a#members", "Group:b#members", "Folder:b#viewers", "Doc:1#viewers", "Doc:2#viewers"):
        assert stands(graph, "User:alice", target)
        assert not stands(graph, "User:bob", target)
    graph.apply(removed("Group:b#members@User:alice"))
    assert not stands(graph, "User:alice", "Doc:1#viewers")
    # A definition may come into a cycle of relations, and is still held to have none of its own.
    graph.define([(uid("Role:x"), {}, (uid("Role:y"),), None)])
    with pytest.raises(ValueError, match="in itself"):
        graph.define([(uid("Role:y"), {}, (uid("Role:x"),), None)])


def test_whoever_is_in_a_subject_stands_in_its_relations() -> None:
    graph = new_graph()
    graph.define([(uid("User:alice"), {}, (uid("Role:admin"),), None)])
    graph.apply(added("Folder:a#viewers@Role:admin"))
    assert stands(graph, "User:alice", "Folder:a#viewers")
    assert not stands(graph, "User:bob", "Folder:a#viewers")


@given(
    st.integers(min_value=0, max_value=40),
    st.lists(st.sampled_from("abcdefgh"), unique=True),
    st.lists(st.sampled_from("abcdefgh"), unique=True),
)
def test_whoever_has_few_groups_is_found_among_many_viewers(crowd: int, groups: list[str], granted: list[str]) -> None:
    """The store asks from the side that has fewer to look at: the viewers of a folder, or the groups of a user."""
    graph = new_graph()
    graph.apply(
        added(*(f"Folder:a#viewers@User:{number}" for number in range(crowd)), "Folder:b#viewers@Folder:a#viewers")
    )
    graph.apply(added(*(f"Group:{name}#members@User:alice" for name in groups)))
    graph.apply(added(*(f"Folder:a#viewers@Group:{name}#members" for name in granted)))
    for target in ("Folder:a#viewers", "Folder:b#viewers"):
        assert stands(graph, "User:alice", target) is bool(set(groups) & set(granted))
        assert not stands(graph, "User:bob", target)
        assert all(stands(graph, f"User:{number}", target) for number in range(crowd))


def test_relations_expire_on_time_and_their_last_expiry_counts() -> None:
    clock = ManualClock()
    graph = new_graph(clock)
    text = "Doc:1#viewers@User:alice"
    assert next_expiry_s(graph) is None
    graph.apply([RelationChange(relation(text, NOW_S + 10)), RelationChange(relation("Doc:2#viewers@User:alice"))])
    graph.apply([RelationChange(relation(text, NOW_S + 20))])
    assert next_expiry_s(graph) == NOW_S + 20
    clock.move(19.9)
    assert graph.expire() == 0
    assert stands(graph, "User:alice", "Doc:1#viewers")
    clock.move(0.1)
    assert graph.expire() == 1
    assert not stands(graph, "User:alice", "Doc:1#viewers")
    assert stands(graph, "User:alice", "Doc:2#viewers")
    assert next_expiry_s(graph) is None
    graph.apply([RelationChange(relation(text, NOW_S + 20))])  # over already
    assert not stands(graph, "User:alice", "Doc:1#viewers")


def test_an_expiry_that_is_taken_back_does_not_end_the_relation() -> None:
    clock = ManualClock()
    graph = new_graph(clock)
    graph.apply([RelationChange(relation("Doc:1#viewers@User:alice", NOW_S + 10))])
    graph.apply(added("Doc:1#viewers@User:alice"))
    clock.move(100)
    assert graph.expire() == 0
    assert stands(graph, "User:alice", "Doc:1#viewers")


def test_an_addition_that_is_over_ends_what_held_before() -> None:
    graph = new_graph()
    graph.apply(added("Doc:1#viewers@User:alice"))
    graph.apply([RelationChange(relation("Doc:1#viewers@User:alice", NOW_S - 1))])
    assert not stands(graph, "User:alice", "Doc:1#viewers")


def test_of_several_changes_of_one_relation_the_last_counts() -> None:
    graph = new_graph()
    text = "Doc:1#viewers@User:alice"
    graph.apply([*added(text), *removed(text)])
    assert not stands(graph, "User:alice", "Doc:1#viewers")
    graph.apply([*removed(text), *added(text), *removed(text), *added(text)])
    assert stands(graph, "User:alice", "Doc:1#viewers")


def test_what_was_only_spoken_of_goes_with_the_last_tuple() -> None:
    graph = new_graph()
    texts = [
        "Doc:1#viewers@User:alice",
        "Doc:1#viewers@Folder:a#viewers",
        "Doc:1#home@Folder:b",
        "Folder:a#owners@User:bob",
    ]
    graph.apply(added(*texts))
    assert len(graph.store) > 0
    for text in texts:
        graph.apply(removed(text))
    assert list(graph.store) == []
    graph.apply(added(*texts))
    graph.apply(removed(*texts))
    assert list(graph.store) == []


def test_what_is_defined_stays_when_tuples_go_and_the_other_way_round() -> None:
    graph = new_graph()
    graph.define([(uid("User:alice"), {}, (), None), (uid("Doc:1"), {"title": "x"}, (), {"colour": "red"})])
    graph.apply(added("Doc:1#viewers@User:alice"))
    graph.apply(removed("Doc:1#viewers@User:alice"))
    assert {uid("User:alice"), uid("Doc:1")} <= set(graph.store)
    graph.apply(added("Doc:1#viewers@User:alice"))
    graph.define([], [uid("User:alice"), uid("Doc:1")])
    assert stands(graph, "User:alice", "Doc:1#viewers")
    found = graph.store.get(uid("Doc:1"))
    assert found is not None
    assert "title" not in found[0]
    assert found[2] == {}
    graph.apply(removed("Doc:1#viewers@User:alice"))
    assert list(graph.store) == []


@pytest.mark.parametrize(
    "text",
    [
        "Doc:1#editors@User:alice",
        "User:alice#viewers@User:bob",
        "Doc:1#viewers@Group:eng#owners",
        "Doc:1#viewers@Relation::Folder::viewers:a",
        "Group:eng#members@Folder:a#viewers",
    ],
)
def test_a_tuple_that_the_schema_has_no_place_for_is_refused_when_written_and_ignored_when_read(text: str) -> None:
    graph = new_graph()
    with pytest.raises(ValueError, match="`"):
        graph.rules.check(relation(text))
    graph.apply(added(text))
    graph.apply(removed(text))
    assert graph.ignored == 2
    assert list(graph.store) == []


@pytest.mark.parametrize(
    "text", ["Doc:1#viewers@Role:x", "Doc:1#blocked@Group:eng#members", "Group:eng#members@Role:x"]
)
def test_a_subject_that_the_schema_does_not_allow_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="cannot stand in"):
        new_graph().rules.check(relation(text))


@pytest.mark.parametrize(
    ("name", "attributes", "parents"),
    [
        ("Relation::Doc::viewers:1", {}, ()),
        ("User:alice", {}, ("Relation::Doc::viewers:1",)),
        ("Doc:1", {"viewers": EntityUid("Relation::Folder::viewers", "a")}, ()),
    ],
)
def test_nobody_else_may_write_what_relations_make(
    name: str, attributes: dict[str, Any], parents: tuple[str, ...]
) -> None:
    graph = new_graph()
    with pytest.raises(ValueError, match="relations alone"):
        graph.define([(uid(name), attributes, [uid(parent) for parent in parents], None)])
    assert list(graph.store) == []


def test_a_change_that_fails_changes_nothing() -> None:
    graph = new_graph()
    graph.apply(added("Doc:1#viewers@User:alice"))
    before = {each: graph.store.get(each) for each in graph.store}
    with pytest.raises(ValueError, match="in itself"):
        graph.define(
            [
                (uid("Doc:1"), {"title": "new"}, (), None),
                (uid("Role:a"), {}, (uid("Role:b"),), None),
                (uid("Role:b"), {}, (uid("Role:a"),), None),
            ]
        )
    assert {each: graph.store.get(each) for each in graph.store} == before


def test_what_is_absent_from_a_snapshot_is_named() -> None:
    graph = new_graph()
    texts = [f"Doc:{number}#viewers@User:{number % 7}" for number in range(1200)]
    graph.apply(added(*texts, "Doc:1#viewers@Folder:a#viewers"))
    seen = {digest(relation(text)) for text in texts[100:]}
    for batch in graph.absent_from(seen):
        graph.apply(batch)
    assert set(graph.relations()) == {relation(text) for text in texts[100:]}


USERS = ["User:a", "User:b"]
OBJECTS = ["Folder:a", "Folder:b", "Folder:c", "Doc:1", "Doc:2", "Group:g", "Group:h"]
TEXTS = [
    *(f"Group:{one}#members@{who}" for one in "gh" for who in (*USERS, "Group:g#members", "Group:h#members")),
    *(
        f"Folder:{one}#{name}@{who}"
        for one in "abc"
        for name in ("viewers", "owners")
        for who in (*USERS, "Group:g#members")
    ),
    *(f"Folder:{one}#viewers@{who}" for one in "abc" for who in ("Folder:a#viewers", "Folder:b#viewers", "Role:r")),
    *(f"Doc:{one}#home@Folder:{folder}" for one in "12" for folder in "abc"),
    *(
        f"Doc:{one}#viewers@{who}"
        for one in "12"
        for who in (*USERS, "Group:h#members", "Folder:a#viewers", "Folder:b#viewers", "Doc:1#viewers", "Doc:2#viewers")
    ),
]
folders = st.sampled_from(["a", "b", "c"]).map(lambda name: uid(f"Folder:{name}"))


class GraphMachine(RuleBasedStateMachine):
    """Any changes from both sides, in any order: the store says what a plain search says."""

    @initialize()
    def begin(self) -> None:
        self.clock = ManualClock()
        self.graph = new_graph(self.clock)
        self.plain = PlainRelations(RULES)

    @rule(
        changes=st.lists(st.tuples(st.sampled_from(TEXTS), st.sampled_from([None, 1, 2, 5]), st.booleans()), max_size=8)
    )
    def change(self, changes: list[tuple[str, int | None, bool]]) -> None:
        made = []
        for text, expires_s, gone in changes:
            each = relation(text, None if expires_s is None else int(self.clock.now_s) + expires_s)
            made.append(RelationChange(each, gone))
            if gone:
                self.plain.held.pop(each.key, None)
            else:
                self.plain.held[each.key] = each
        self.graph.apply(made)

    @rule(name=st.sampled_from("abc"), parent=st.none() | folders, shared=st.lists(folders, max_size=2))
    def define_folder(self, name: str, parent: EntityUid | None, shared: list[EntityUid]) -> None:
        attributes: dict[str, Any] = {"shared": shared} if shared else {}
        if parent is not None:
            attributes["parent"] = parent
        self.graph.define([(uid(f"Folder:{name}"), attributes, (), None)])
        self.plain.attributes[uid(f"Folder:{name}")] = attributes

    @rule(name=st.sampled_from(USERS), roles=st.booleans())
    def define_user(self, name: str, roles: bool) -> None:
        parents = {uid("Role:r")} if roles else set()
        self.graph.define([(uid(name), {}, parents, None)])
        self.plain.parents[uid(name)] = parents
        self.plain.attributes[uid(name)] = {}

    @rule(name=st.sampled_from([*USERS, *OBJECTS]))
    def undefine(self, name: str) -> None:
        self.graph.define([], [uid(name)])
        self.plain.attributes.pop(uid(name), None)
        self.plain.parents.pop(uid(name), None)

    @rule(seconds=st.sampled_from([0.5, 1, 3]))
    def move(self, seconds: float) -> None:
        self.clock.move(seconds)
        self.graph.expire()

    @rule()
    def remove_all(self) -> None:
        self.graph.apply([RelationChange(each, removed=True) for each in self.plain.held.values()])
        self.plain.held.clear()
        defined = set(self.plain.attributes)
        assert {each for each in self.graph.store if self.graph.rules.of_node(each.type) is None} == defined

    @invariant()
    def agrees(self) -> None:
        now_s = self.clock.now_s
        for object, name in (
            (uid(text), name) for text in OBJECTS for name in self.graph.rules.of_type(uid(text).type)
        ):
            for user in USERS:
                expected = self.plain.is_in(uid(user), object, name, now_s)
                assert self.graph.store.is_in(uid(user), self.graph.node(object, name)) is expected, (
                    user,
                    object,
                    name,
                )
        held = self.plain.holds(now_s)
        assert set(self.graph.relations()) == set(held)
        spoken_of = {each.object for each in held} | {
            each.subject for each in held if isinstance(each.subject, EntityUid)
        }
        for object in spoken_of | set(self.plain.attributes):
            found = self.graph.store.get(object)  # what a policy begins with
            assert found is not None
            own = self.plain.attributes.get(object, {})
            assert found[0].get("parent") == own.get("parent")
            assert set(found[0].get("shared", ())) == set(own.get("shared", ()))
            nodes = {name: self.graph.node(object, name) for name in self.graph.rules.of_type(object.type)}
            assert {name: found[0].get(name) for name in nodes} == nodes


TestGraphMachine = GraphMachine.TestCase


@given(st.lists(st.sampled_from(TEXTS), unique=True), st.randoms(use_true_random=False))
def test_the_order_of_additions_does_not_matter(texts: list[str], shuffler: Any) -> None:
    one, other = new_graph(), new_graph()
    one.apply(added(*texts))
    shuffled = list(texts)
    shuffler.shuffle(shuffled)
    for text in shuffled:
        other.apply(added(text))
    assert contents(one) == contents(other)


def test_digests_differ_where_relations_do() -> None:
    digests = {digest(relation(text)) for text in TEXTS}
    assert len(digests) == len(TEXTS)
    assert digest(Relation(uid("A:1"), "r", subject("B:2#s"))) != digest(Relation(uid("A:1"), "r", subject("B:2s")))


@given(st.lists(st.sampled_from(TEXTS), unique=True), st.lists(st.sampled_from(TEXTS), unique=True))
def test_it_is_known_which_tuples_are_held(texts: list[str], gone: list[str]) -> None:
    graph = new_graph()
    graph.apply(added(*texts))
    graph.apply(removed(*gone))
    assert {text for text in TEXTS if graph.holds(relation(text))} == set(texts) - set(gone)
    assert not graph.holds(relation("User:alice#friends@User:bob"))
    assert not graph.holds(relation("Doc:1#viewers@User:alice#friends"))


def test_a_definition_is_what_was_written_and_not_what_tuples_make_of_it() -> None:
    graph = new_graph()
    graph.apply(added("Doc:1#viewers@User:alice", "Doc:1#home@Folder:top"))
    assert graph.definition(uid("Doc:1")) is None
    assert graph.definition(uid("User:alice")) is None
    graph.define([(uid("Doc:1"), {"title": "x"}, (), None), (uid("User:alice"), {}, (uid("Role:a"),), {"tag": 1})])
    graph.define([(uid("Folder:top"), {}, (), None)])
    assert graph.definition(uid("Doc:1")) == ({"title": "x"}, (), {})
    assert graph.definition(uid("User:alice")) == ({}, (uid("Role:a"),), {"tag": 1})
    assert graph.definition(uid("Folder:top")) == ({}, (), {})
    assert graph.definition(graph.node(uid("Doc:1"), "viewers")) is None
    graph.define([], [uid("Folder:top"), uid("User:alice")])
    assert graph.definition(uid("Folder:top")) is graph.definition(uid("User:alice")) is None


def test_one_user_may_stand_in_very_many_relations() -> None:
    graph = new_graph()
    for first in range(0, 100_000, 1000):
        graph.apply(added(*(f"Doc:{number}#viewers@User:alice" for number in range(first, first + 1000))))
    graph.apply(removed("Doc:5#viewers@User:alice"))
    graph.apply(added("Doc:last#viewers@User:alice", "Doc:0#viewers@User:bob"))
    assert graph.store.parent_count(uid("User:alice")) == 100_000
    assert [stands(graph, "User:alice", f"Doc:{name}#viewers") for name in ("5", "6", "last")] == [False, True, True]
    graph.define([(uid("User:alice"), {}, (uid("Role:a"),), None)])  # told anew, and still in all of them
    assert graph.store.parent_count(uid("User:alice")) == 100_001
    assert stands(graph, "User:alice", "Doc:99999#viewers")
