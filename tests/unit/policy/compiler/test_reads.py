from __future__ import annotations

import pytest

from gateway._native.uid import EntityUid
from gateway.policy.compiler.reads import Reads, path_of, reads_of, reads_of_expression, reads_together
from gateway.policy.language.statements import parse_expression, parse_policies

CONFIG = EntityUid("Config", "main")


def reads(text: str) -> Reads:
    return reads_of_expression(parse_expression(text))


ATTRIBUTES = {
    "principal.level > 3": {("principal", "level")},
    "principal.manager.level > 3": {("principal", "manager", "level")},
    "principal == resource.owner": {("resource", "owner")},
    'principal["a b"] == 1': {("principal", "a b")},
    "context.ip.isLoopback()": {("context", "ip")},
    "context has a.b.c": {("context", "a"), ("context", "a", "b"), ("context", "a", "b", "c")},
    "resource.meta has x": {("resource", "meta", "x")},
    "context == {a: 1}": {("context",)},
    'Config::"main".open': {(CONFIG, "open")},
    "if context.a then principal.x == 1 else resource.y == 1": {
        ("context", "a"),
        ("principal", "x"),
        ("resource", "y"),
    },
    "[principal.a, {b: context.c}].contains(1)": {("principal", "a"), ("context", "c")},
}


@pytest.mark.parametrize("text", ATTRIBUTES)
def test_every_path_that_is_read_is_named(text: str) -> None:
    found = reads(text)
    assert found.attributes == ATTRIBUTES[text]
    assert not found.dynamic


@pytest.mark.parametrize(
    "text",
    [
        "(if context.a then principal else resource).level == 1",
        'principal.getTag("manager").level == 1',
        "(if context.a then principal else resource) has level",
        '(if context.a then principal else resource) in Team::"a"',
        '(if context.a then principal else resource).hasTag("x")',
    ],
)
def test_reading_an_entity_known_only_while_deciding_is_dynamic(text: str) -> None:
    assert reads(text).dynamic


def test_tags_are_named_where_their_name_is_written() -> None:
    found = reads('principal.hasTag("a") && principal.getTag(context.key) == resource.owner.getTag("b")')
    assert found.tags == {(("principal",), "a"), (("principal",), None), (("resource", "owner"), "b")}
    assert ("context", "key") in found.attributes


def test_memberships_are_those_of_the_head_and_of_the_conditions() -> None:
    text = """permit(principal in Team::"a", action in [Action::"x"], resource is Doc)
        when { resource.owner in principal.team && resource is Doc in Folder::"f" };"""
    found = reads_of(parse_policies(text)[0].statement)
    assert found.memberships == {("principal",), ("action",), ("resource", "owner"), ("resource",)}


def test_comparisons_with_a_moment_are_kept_whichever_side_it_stands_on() -> None:
    found = reads(
        'context.now < datetime("2026-01-01") && datetime("2025-01-01").offset(duration("1d")) <= context.now'
        " && context.now < context.end && context.count < 3"
    )
    assert {(t.path, t.op) for t in found.times} == {(("context", "now"), "<"), (("context", "now"), ">=")}


def test_several_read_sets_become_one() -> None:
    both = reads_together([reads("principal.a == 1"), reads("context.b && principal.c in resource.d")])
    assert both.attributes == {("principal", "a"), ("context", "b"), ("principal", "c"), ("resource", "d")}
    assert both.context_paths() == {("context", "b")}
    assert both.cost > reads("principal.a == 1").cost


def test_only_names_from_a_variable_or_an_entity_are_a_path() -> None:
    assert path_of(parse_expression("principal.a.b")) == ("principal", "a", "b")
    assert path_of(parse_expression('Config::"main".a')) == (CONFIG, "a")
    assert path_of(parse_expression("{a: 1}.a")) is None
    assert path_of(parse_expression('"text"')) is None


PLAIN = {
    "context has now": set(),
    'context has now && context.now < datetime("2026-01-01")': set(),
    'context.now < datetime("2026-01-01") && context.now == context.start': {("context", "now"), ("context", "start")},
    'context.now.toDate() == datetime("2026-01-01")': {("context", "now")},
    "context has a.b": {("context", "a"), ("context", "a", "b")},
    "context.now < context.end": {("context", "now"), ("context", "end")},
    "context == {a: 1}": {("context",)},
    "principal has level": {("principal", "level")},
}


@pytest.mark.parametrize("text", PLAIN)
def test_paths_of_which_only_presence_or_a_moment_is_asked_are_not_plain(text: str) -> None:
    found = reads(text)
    assert found.plain == PLAIN[text]
    assert found.plain <= found.attributes


IDENTITIES: dict[str, set[str]] = {
    'principal in Team::"a" && principal is User': set(),
    'principal in [Team::"a", Team::"b"] && resource is Doc in Folder::"f"': set(),
    "principal.level > 3 && principal has manager": set(),
    "resource.owner == principal": {"principal"},
    "resource in principal.folders": {"resource"},
    'User::"alice" in [principal]': {"principal"},
    '[principal, resource].contains(User::"alice")': {"principal", "resource"},
    'principal in [Team::"a", 1]': {"principal"},
    'action == Action::"view"': {"action"},
}


@pytest.mark.parametrize("text", IDENTITIES)
def test_a_variable_asked_for_type_attributes_and_named_containers_only_has_no_identity(text: str) -> None:
    assert reads(text).identities == IDENTITIES[text]


def test_containers_are_named_with_the_variable() -> None:
    found = reads(
        'principal in [Team::"a", Team::"b"] && resource is Doc in Folder::"f" && resource.owner in Team::"c"'
    )
    team_a, team_b, folder = EntityUid("Team", "a"), EntityUid("Team", "b"), EntityUid("Folder", "f")
    assert found.containers == {("principal", team_a), ("principal", team_b), ("resource", folder)}
