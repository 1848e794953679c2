"""Why somebody stands in a relation."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.policy.relation_paths import relation_path
from gateway.policy.relations import RelationGraph
from tests.unit.policy.relation_world import added, new_graph, uid
from tests.unit.policy.test_relations import OBJECTS, TEXTS, USERS


def path(graph: RelationGraph, who: str, target: str) -> list[str] | None:
    object, _, name = target.partition("#")
    found = relation_path(graph, uid(who), uid(object), name)
    return None if found is None else [str(step) for step in found]


def test_each_step_says_what_it_is() -> None:
    graph = new_graph()
    graph.define([(uid("Folder:b"), {"parent": uid("Folder:a")}, (), None)])
    graph.define([(uid("User:carol"), {}, (uid("Role:r"),), None)])
    graph.apply(
        added(
            "Group:inner#members@User:alice",
            "Group:outer#members@Group:inner#members",
            "Folder:a#owners@Group:outer#members",
            "Folder:a#viewers@Role:r",
            "Doc:1#home@Folder:b",
        )
    )
    assert path(graph, "User:alice", "Doc:1#viewers") == [
        'User::"alice" in Group::"inner"#members (relation)',
        'Group::"inner"#members in Group::"outer"#members (relation)',
        'Group::"outer"#members in Folder::"a"#owners (relation)',
        'Folder::"a"#owners in Folder::"a"#viewers (inherits owners)',
        'Folder::"a"#viewers in Folder::"b"#viewers (inherits parent.viewers)',
        'Folder::"b"#viewers in Doc::"1"#viewers (inherits home.viewers)',
    ]
    assert path(graph, "User:carol", "Folder:a#viewers") == [
        'User::"carol" in Role::"r" (entity)',
        'Role::"r" in Folder::"a"#viewers (relation)',
    ]
    assert path(graph, "User:bob", "Doc:1#viewers") is None
    with pytest.raises(ValueError, match="no relation `nonsense`"):
        path(graph, "User:bob", "Doc:1#nonsense")


def test_the_shortest_of_several_ways_is_given() -> None:
    graph = new_graph()
    graph.apply(
        added(
            *("Group:g#members@User:alice", "Doc:1#viewers@Group:g#members", "Doc:1#viewers@User:alice"),
            *("Doc:1#viewers@Doc:2#viewers", "Doc:2#viewers@Doc:1#viewers"),
        )
    )
    assert path(graph, "User:alice", "Doc:1#viewers") == ['User::"alice" in Doc::"1"#viewers (relation)']


@given(st.lists(st.sampled_from(TEXTS), unique=True), st.lists(st.sampled_from("abc"), min_size=3, max_size=3))
def test_there_is_a_path_exactly_where_there_is_a_relation_and_every_step_holds(texts: list[str], above: Any) -> None:
    graph = new_graph()
    graph.define(
        [
            (uid(f"Folder:{name}"), {"parent": uid(f"Folder:{up}")}, (), None)
            for name, up in zip("abc", above, strict=True)
        ]
    )
    graph.apply(added(*texts))
    for object, name in ((uid(text), name) for text in OBJECTS for name in graph.rules.of_type(uid(text).type)):
        for user in USERS:
            found = relation_path(graph, uid(user), object, name)
            assert (found is not None) is graph.store.is_in(uid(user), graph.node(object, name))
            for one, following in zip(found or (), (found or ())[1:], strict=False):
                assert one.upper == following.lower
            if found:
                assert found[0].lower == uid(user)
                assert str(found[-1].upper) == f"{object}#{name}"
