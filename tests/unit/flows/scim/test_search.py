"""The search: filters as the specification has them, whether an index answers or not; order, pages, limits."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scim2_models import SCIMException, ScimFilter

from gateway.flows.scim import ScimCaller, ScimLimits
from gateway.flows.scim.filters import pushed
from gateway.flows.scim.resources import GroupResource, UserResource
from gateway.stores.directory import Condition
from tests.oracle.scim import Both, Compares, Negated, Within, matches
from tests.unit.flows.scim.world import HR, USER, ScimWorld

PEOPLE: list[dict[str, Any]] = [
    {"userName": "alice", "title": "Queen", "externalId": "A1", "active": True},
    {"userName": "Bob", "title": "pawn", "externalId": "a1", "emails": [{"value": "bob@x.test", "type": "work"}]},
    {"userName": "CAROL", "nickName": "Straße", "active": False, "emails": [{"value": "Carol@X.test", "type": "home"}]},
    {
        "userName": "strasse",
        "title": "QUEEN",
        "emails": [{"value": "a@y.test", "type": "home"}, {"value": "bob@x.test"}],
    },
    {"userName": "alicia", "nickName": "ali", "name": {"familyName": "Liddell"}, "externalId": "B2"},
    {"userName": "al%_ice", "title": 'quo"te', "name": {"familyName": "Ωmega"}, "active": False},
]
WORDS = (
    "alice",
    "ALI",
    "bob@x.test",
    "x.test",
    "queen",
    "STRASSE",
    "straße",
    "A1",
    "a1",
    "%",
    "_",
    "liddell",
    "home",
    "",
)
TEXTS = ("userName", "title", "nickName", "externalId", "emails", "emails.value", "emails.type", "name.familyName")
ORDER = ("gt", "ge", "lt", "le")
tests = st.one_of(
    st.builds(Compares, st.sampled_from(TEXTS), st.sampled_from(("eq", "co", "sw", "ew")), st.sampled_from(WORDS)),
    st.builds(
        Compares, st.sampled_from(("title", "userName")), st.sampled_from(("gt", "ge", "lt", "le")), st.just("m")
    ),
    st.builds(Compares, st.sampled_from((*TEXTS, "active", "name")), st.just("pr")),
    st.builds(Compares, st.just("active"), st.just("eq"), st.booleans()),
    st.builds(
        Within,
        st.just("emails"),
        st.builds(Compares, st.sampled_from(("value", "type")), st.sampled_from(("eq", "co")), st.sampled_from(WORDS)),
    ),
)
trees = st.recursive(
    tests,
    lambda inner: st.one_of(st.builds(Both, st.sampled_from(("and", "or")), inner, inner), st.builds(Negated, inner)),
    max_leaves=6,
)


def test_filters_find_what_a_plain_reading_of_the_specification_finds(tmp_path: Path) -> None:
    with asyncio.Runner() as runner:
        world = ScimWorld(tmp_path)
        kept = [runner.run(_added(world, person)) for person in PEOPLE]

        @given(trees)
        @settings(max_examples=150, deadline=None)
        def check(tree: Any) -> None:
            expected = sorted(each["userName"] for each in kept if matches(each, tree))
            assert runner.run(world.found("User", str(tree))) == expected

        check()
        runner.run(world.close())


async def _added(world: ScimWorld, person: dict[str, Any]) -> dict[str, Any]:
    reply = await world.service.create("User", {"schemas": [USER], **person}, HR)
    assert reply.body is not None
    return reply.body


@pytest.mark.parametrize(
    ("kind", "text", "conditions", "whole"),
    [
        ("User", 'userName eq "x"', [Condition("user_name", "eq", "x")], True),
        ("User", 'USERNAME EQ "x"', [Condition("user_name", "eq", "x")], True),
        (
            "User",
            'urn:ietf:params:scim:schemas:core:2.0:User:userName sw "x"',
            [Condition("user_name", "sw", "x")],
            True,
        ),
        ("User", 'externalId eq "x" and active eq true', 2, True),
        ("User", 'emails[value eq "x"] and id eq "usr_1"', 2, True),
        ("User", 'groups eq "grp_1"', [Condition("group", "eq", "grp_1")], True),
        ("Group", 'members eq "usr_1" and displayName co "x"', 2, True),
        ("Group", 'members[value eq "usr_1"]', [Condition("member", "eq", "usr_1")], True),
        ("User", 'userName eq "x" and title eq "y"', [Condition("user_name", "eq", "x")], False),
        ("User", 'userName eq "x" or id eq "y"', [], False),
        ("User", 'not (userName eq "x")', [], False),
        ("User", 'emails[type eq "work" and value eq "x"]', [], False),
        ("User", 'externalId eq ""', [], False),
        ("User", 'externalId sw "x"', [], False),
        ("User", 'meta.lastModified gt "2011-05-13T04:42:34Z"', 1, False),
    ],
)
def test_the_directory_is_asked_for_what_its_indexes_know(kind: Any, text: str, conditions: Any, whole: bool) -> None:
    model: Any = UserResource if kind == "User" else GroupResource
    found: Any = ScimFilter
    asked = pushed(found[model](text), kind)
    assert asked.whole is whole
    if isinstance(conditions, int):
        assert len(asked.conditions) == conditions
    else:
        assert list(asked.conditions) == conditions


async def test_users_are_found_by_their_groups_and_groups_by_their_members(world: ScimWorld) -> None:
    alice, bob = await world.user("alice"), await world.user("bob")
    staff = await world.group("staff", alice["id"], bob["id"])
    await world.group("crew", bob["id"])
    assert await world.found("User", f'groups.value eq "{staff["id"]}" and title pr') == []
    assert await world.found("User", f'groups eq "{staff["id"]}"') == ["alice", "bob"]
    assert await world.found("User", 'groups.display eq "CREW"') == ["bob"]
    assert await world.found("Group", f'members.value eq "{bob["id"]}"') == ["crew", "staff"]
    assert await world.found("Group", f'displayName sw "s" and members[value eq "{bob["id"]}"]') == ["staff"]


async def test_changes_since_a_time_are_found_with_the_times_that_are_shown(world: ScimWorld) -> None:
    first = await world.user("first")
    world.clock.now_s += 10.0004
    second = await world.user("second")
    shown = second["meta"]["lastModified"]
    assert await world.found("User", f'meta.lastModified ge "{shown}"') == ["second"]
    assert await world.found("User", f'meta.lastModified gt "{shown}"') == []
    assert await world.found("User", f'meta.created le "{first["meta"]["created"]}"') == ["first"]


async def test_pages_follow_each_other_and_order_is_kept(world: ScimWorld) -> None:
    for name in ("delta", "Alpha", "charlie", "bravo"):
        await world.user(name, **({} if name == "bravo" else {"title": name[0]}))

    async def names(**parameters: Any) -> tuple[list[str], int, int]:
        page = await world.search("User", **parameters)
        return [each["userName"] for each in page["Resources"]], page["totalResults"], page["itemsPerPage"]

    assert await names(sortBy="userName") == (["Alpha", "bravo", "charlie", "delta"], 4, 4)
    assert (await names(sortBy="userName", sortOrder="descending"))[0] == ["delta", "charlie", "bravo", "Alpha"]
    assert await names(sortBy="userName", startIndex="2", count="2") == (["bravo", "charlie"], 4, 2)
    assert (await names(sortBy="title"))[0] == ["Alpha", "charlie", "delta", "bravo"]  # who has none comes last
    by_two = [await names(startIndex=str(start), count="2") for start in (1, 3, 5)]
    assert [total for _, total, _ in by_two] == [4, 4, 4]
    assert sorted(by_two[0][0] + by_two[1][0]) == ["Alpha", "bravo", "charlie", "delta"]
    assert by_two[2][0] == []
    assert await names(count="0") == ([], 4, 0)
    assert (await names(startIndex="-3", count="-1")) == ([], 4, 0)
    assert len((await names(count="100000"))[0]) == 4


async def test_both_kinds_are_searched_at_once(world: ScimWorld) -> None:
    alice = await world.user("alice", title="Queen")
    await world.group("alice's", alice["id"])
    reply = await world.service.reader.search_all({"filter": f'id eq "{alice["id"]}"'}, HR)
    assert reply.body is not None
    assert [each["meta"]["resourceType"] for each in reply.body["Resources"]] == ["User"]
    everything = (await world.service.reader.search_all({}, HR)).body
    assert everything is not None
    assert (everything["totalResults"], len(everything["Resources"])) == (2, 2)
    titled = (await world.service.reader.search_all({"filter": "title pr or members pr", "count": 1}, HR)).body
    assert titled is not None
    assert (titled["totalResults"], len(titled["Resources"])) == (2, 1)


@pytest.mark.parametrize(
    "parameters",
    [
        {"filter": "userName"},
        {"filter": 'userName eq "x'},
        {"filter": 'userName eq "x" and'},
        {"filter": 'colour eq "red"'},
        {"filter": "active gt true"},
        {"filter": "(" * 11 + 'userName eq "x"' + ")" * 11},
        {"filter": 'userName eq "' + "x" * 3000 + '"'},
        {"filter": " or ".join(['title eq "x"'] * 51)},
        {"filter": "title eq " + "9" * 2000},
        {"sortBy": "colour"},
        {"sortBy": "password"},
        {"sortOrder": "sideways"},
        {"count": "many"},
        {"startIndex": "1.5"},
        {"cursor": "x y"},
    ],
)
async def test_what_cannot_be_looked_for_is_refused(world: ScimWorld, parameters: dict[str, Any]) -> None:
    with pytest.raises(SCIMException) as refused:
        await world.search("User", **parameters)
    assert refused.value.status == 400


async def test_more_than_may_be_looked_through_is_too_many(tmp_path: Path) -> None:
    world = ScimWorld(tmp_path, ScimLimits(scan=3, page=2))
    for number in range(4):
        await world.user(f"user{number}")
    assert (await world.search("User"))["totalResults"] == 4  # an index answers that
    assert len((await world.search("User"))["Resources"]) == 2
    for parameters in ({"filter": "title pr"}, {"sortBy": "userName"}):
        with pytest.raises(SCIMException) as refused:
            await world.search("User", **parameters)
        assert refused.value.scim_type == "tooMany"
    narrow = await world.search("User", filter='userName sw "user0" and not (title pr)')
    assert narrow["totalResults"] == 1
    with pytest.raises(SCIMException):
        await world.service.reader.search_all({}, HR)
    assert (await world.service.reader.search("User", {}, ScimCaller("x", "elsewhere"))).body == {
        "schemas": ["urn:ietf:params:scim:api:messages:2.0:ListResponse"],
        "totalResults": 0,
        "startIndex": 1,
        "itemsPerPage": 0,
        "Resources": [],
    }
    await world.close()
