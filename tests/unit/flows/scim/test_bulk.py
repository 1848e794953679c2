"""Many operations in one request: in an order in which they can be done, each with an answer of its own."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from scim2_models import PayloadTooLargeException, SCIMException

from gateway.flows.scim import ScimLimits
from tests.unit.flows.scim.world import BULK, GROUP, HR, PATCH, USER, ScimWorld


def post(kind: str, bulk_id: str, **data: Any) -> dict[str, Any]:
    schema = USER if kind == "Users" else GROUP
    return {"method": "POST", "path": f"/{kind}", "bulkId": bulk_id, "data": {"schemas": [schema], **data}}


async def run(world: ScimWorld, *operations: dict[str, Any], **more: Any) -> list[dict[str, Any]]:
    reply = await world.bulk.run({"schemas": [BULK], "Operations": list(operations), **more}, HR)
    assert reply.status == 200
    assert reply.body is not None
    made: list[dict[str, Any]] = reply.body["Operations"]
    return made


async def test_each_operation_has_its_answer(world: ScimWorld) -> None:
    there = await world.user("there")
    path = f"/Users/{there['id']}"
    patch = {"schemas": [PATCH], "Operations": [{"op": "add", "path": "title", "value": "Queen"}]}
    answers = await run(
        world,
        post("Users", "a", userName="alice"),
        {"method": "PATCH", "path": path, "version": 'W/"1"', "data": patch},
        {"method": "PATCH", "path": path, "version": 'W/"1"', "data": patch},
        {"method": "put", "path": path, "data": {"schemas": [USER], "userName": "renamed"}},
        {"method": "DELETE", "path": "/Users/usr_nobody"},
        post("Users", "b", userName="ALICE"),
        {"method": "DELETE", "path": path},
    )
    assert [each["status"] for each in answers] == ["201", "200", "412", "200", "404", "409", "204"]
    assert answers[0]["bulkId"] == "a"
    assert answers[0]["version"] == 'W/"1"'
    assert answers[5]["response"]["scimType"] == "uniqueness"
    assert answers[6]["location"].endswith(path)
    assert await world.found("User", "userName pr") == ["alice"]


async def test_each_operation_but_the_first_waits_for_its_turn(world: ScimWorld) -> None:
    """The request had the first turn: many operations in one request leave as much time for others as many requests."""
    answers = await run(world, *(post("Users", f"u{number}", userName=f"user{number}") for number in range(5)))
    assert [each["status"] for each in answers] == ["201"] * 5
    assert world.turns == 4


async def test_operations_wait_for_what_they_name(world: ScimWorld) -> None:
    answers = await run(
        world,
        post("Groups", "g", displayName="staff", members=[{"value": "bulkId:a"}, {"value": "bulkId:b"}]),
        post("Users", "a", userName="alice"),
        post("Users", "b", userName="bob"),
    )
    assert [each["status"] for each in answers] == ["201", "201", "201"]
    group = await world.get("Group", answers[0]["location"].rpartition("/")[2])
    ids = {each["location"].rpartition("/")[2] for each in answers[1:]}
    assert {each["value"] for each in group["members"]} == ids


async def test_groups_that_are_members_of_each_other_are_made(world: ScimWorld) -> None:
    answers = await run(
        world,
        post("Groups", "one", displayName="one", members=[{"value": "bulkId:two"}]),
        post("Groups", "two", displayName="two", members=[{"value": "bulkId:one"}]),
    )
    assert [each["status"] for each in answers] == ["201", "201"]
    ids = [each["location"].rpartition("/")[2] for each in answers]
    for group_id, other in (ids, reversed(ids)):
        shown = await world.get("Group", group_id)
        assert [each["value"] for each in shown["members"]] == [other]
        assert shown["meta"]["version"] == next(each["version"] for each in answers if group_id in each["location"])


async def test_what_names_something_that_was_not_made_is_refused(world: ScimWorld) -> None:
    answers = await run(
        world,
        post("Users", "a", userName="x" * 600),
        {"method": "DELETE", "path": "/Users/bulkId:a"},
        post("Users", "b", userName="bob", title="bulkId:nothing"),
    )
    assert [each["status"] for each in answers] == ["400", "409", "409"]


async def test_after_so_many_errors_nothing_more_is_begun(world: ScimWorld) -> None:
    wrong = [{"method": "DELETE", "path": f"/Users/usr_{number}"} for number in range(3)]
    answers = await run(world, *wrong, post("Users", "a", userName="alice"), failOnErrors=2)
    assert [each["status"] for each in answers] == ["404", "404"]
    assert await world.found("User", "userName pr") == []


async def test_when_the_time_is_over_the_rest_is_told_to_come_again(tmp_path: Path) -> None:
    world = ScimWorld(tmp_path, ScimLimits(bulk_s=0.0))
    answers = await run(world, post("Users", "a", userName="alice"))
    assert [each["status"] for each in answers] == ["503"]
    assert (await world.search("User"))["totalResults"] == 0
    await world.close()


@pytest.mark.parametrize(
    "operation",
    [
        {"method": "GET", "path": "/Users"},
        {"method": "POST", "path": "/Users", "data": {}},
        {"method": "DELETE"},
        {"path": "/Users/1"},
        {"method": "DELETE", "path": "/Users/1", "bulkId": 5},
        "DELETE",
    ],
)
async def test_what_is_no_operation_is_no_bulk_request(world: ScimWorld, operation: Any) -> None:
    with pytest.raises(SCIMException) as refused:
        await run(world, operation)
    assert refused.value.status == 400


@pytest.mark.parametrize("path", ["/Schemas/x", "/Users/1/2", "/", "/Users"])
async def test_only_users_and_groups_are_changed_in_bulk(world: ScimWorld, path: str) -> None:
    (answer,) = await run(world, {"method": "DELETE", "path": path})
    assert answer["status"] == "400"


async def test_a_bulk_request_has_its_limit(tmp_path: Path) -> None:
    world = ScimWorld(tmp_path, ScimLimits(bulk_operations=2))
    deletion = {"method": "DELETE", "path": "/Users/1"}
    assert len(await run(world, deletion, deletion)) == 2
    with pytest.raises(PayloadTooLargeException):
        await run(world, deletion, deletion, deletion)
    backwards: dict[str, Any] = {"schemas": [BULK], "Operations": [], "failOnErrors": -1}
    none: list[Any] = [[], {"Operations": []}, {"schemas": [BULK]}, backwards]
    for payload in none:
        with pytest.raises(SCIMException):
            await world.bulk.run(payload, HR)
    twice = post("Users", "a", userName="alice")
    with pytest.raises(SCIMException, match="one bulkId"):
        await run(world, twice, twice)
    await world.close()
