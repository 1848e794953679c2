"""Single users and groups by SCIM: what is kept, what is answered, and who is out at once."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from scim2_models import (
    InvalidValueException,
    MutabilityException,
    NotFoundException,
    PreconditionFailedException,
    SCIMException,
    UniquenessException,
)

from gateway.errors import StoreUnavailable
from gateway.flows.scim import Asked, ScimCaller
from gateway.stores.directory import Identity
from gateway.types import Subject
from tests.unit.flows.people_world import ISSUER
from tests.unit.flows.scim.world import BASE, ENTERPRISE, GROUP, HR, USER, ScimWorld
from tests.unit.flows.test_sessions import PASSWORD

# --- users


async def test_a_user_is_kept_and_shown_as_it_was_sent(world: ScimWorld) -> None:
    sent = {
        "schemas": [USER, ENTERPRISE],
        "userName": "Alice",
        "externalId": "42",
        "name": {"givenName": "Alice", "familyName": "Liddell"},
        "emails": [{"value": "alice@corp.local", "type": "work", "primary": True}, {"value": "a@home.test"}],
        ENTERPRISE: {"department": "R&D", "manager": {"value": "usr_boss"}},
    }
    reply = await world.service.create("User", sent, HR)
    assert reply.status == 201
    assert reply.body is not None
    made = reply.body
    assert {name: made[name] for name in sent} == sent
    assert made["active"] is True
    assert made["id"].startswith("usr_")
    assert made["meta"]["location"] == reply.headers["location"] == f"{BASE}/Users/{made['id']}"
    assert made["meta"]["version"] == reply.headers["etag"] == 'W/"1"'
    assert await world.get("User", made["id"]) == made
    kept = await world.directory.get_user("", made["id"])
    assert kept is not None
    assert (kept.user_name, kept.emails, kept.external_id) == ("Alice", ("alice@corp.local", "a@home.test"), "42")
    assert world.told == [("scim.user.create", "")]


async def test_names_are_taken_once_whatever_their_case(world: ScimWorld) -> None:
    await world.user("alice")
    other = await world.user("bob")
    with pytest.raises(UniquenessException, match="userName"):
        await world.user("ALICE")
    with pytest.raises(UniquenessException, match="userName"):
        await world.patch("User", other["id"], {"op": "replace", "path": "userName", "value": "Alice"})


@pytest.mark.parametrize(
    "payload",
    [
        {"schemas": [USER]},
        {"schemas": [USER], "userName": ""},
        {"schemas": [USER], "userName": "x" * 600},
        {"schemas": [USER], "userName": 5},
        {"schemas": [GROUP], "userName": "x"},
        {"schemas": [USER], "userName": "x", "emails": "x@y.z"},
        {"schemas": [USER], "userName": "x", "active": "perhaps"},
        {"schemas": [USER], "userName": "x", "title": "x" * 70_000},
        {"schemas": [USER], "userName": "x", "emails": [{"value": f"{n}@x.test"} for n in range(40)]},
        {},
    ],
)
async def test_what_is_no_user_is_refused_and_nothing_is_kept(world: ScimWorld, payload: dict[str, Any]) -> None:
    with pytest.raises(SCIMException) as refused:
        await world.service.create("User", payload, HR)
    assert refused.value.status == 400
    assert (await world.search("User"))["totalResults"] == 0


async def test_tenants_never_see_each_other(world: ScimWorld) -> None:
    made = await world.user("alice")
    stranger = ScimCaller("other", "elsewhere")
    with pytest.raises(NotFoundException):
        await world.service.get("User", made["id"], stranger)
    with pytest.raises(NotFoundException):
        await world.service.delete("User", made["id"], stranger)
    with pytest.raises(NotFoundException):
        await world.service.replace("User", made["id"], {"schemas": [USER], "userName": "x"}, stranger)
    again = await world.service.create("User", {"schemas": [USER], "userName": "alice"}, stranger)
    assert again.status == 201


async def test_who_becomes_inactive_loses_sessions_and_tokens_before_the_answer(world: ScimWorld) -> None:
    made = await world.user("alice")
    subject = Subject("", made["id"])
    await world.directory.link(
        Identity(tenant="", issuer="https://idp.test", subject="ext-1", user_id=made["id"], linked_s=0)
    )
    begun = await world.sessions.begin(subject, PASSWORD)
    reply = await world.patch("User", made["id"], {"op": "replace", "path": "active", "value": False})
    assert reply.body is not None
    assert reply.body["active"] is False
    assert await world.sessions.find(begun.value) is None
    assert world.revoked == [("sub", ISSUER, made["id"]), ("sub", "https://idp.test", "ext-1")]
    assert world.ended == [subject]
    assert ("scim.user.deactivate", "") in world.told


async def test_a_client_that_got_no_answer_asks_again_and_everything_ends_then(world: ScimWorld) -> None:
    made = await world.user("alice")
    working = world.leaving._revoke

    async def broken(*arguments: Any, **options: Any) -> None:
        raise StoreUnavailable("away")

    world.leaving._revoke = broken
    operation = {"op": "replace", "path": "active", "value": False}
    with pytest.raises(StoreUnavailable):
        await world.patch("User", made["id"], operation)
    world.leaving._revoke = working
    assert world.ended == []
    await world.patch("User", made["id"], operation)
    assert len(world.ended) == 1


@pytest.mark.parametrize("taken", [{"op": "remove", "path": "active"}, None])
async def test_leaving_out_whether_somebody_is_active_lets_nobody_in_again(
    world: ScimWorld, taken: dict[str, Any] | None
) -> None:
    made = await world.user("alice", active=False)
    if taken is not None:
        await world.patch("User", made["id"], taken)
    else:
        await world.service.replace("User", made["id"], {"schemas": [USER], "userName": "alice"}, HR)
    kept = await world.directory.get_user("", made["id"])
    assert kept is not None
    assert kept.active is False
    assert "active" not in await world.get("User", made["id"])
    await world.patch("User", made["id"], {"op": "add", "path": "active", "value": True})
    assert (await world.get("User", made["id"]))["active"] is True
    assert ("scim.user.reactivate", "") in world.told


async def test_who_is_removed_loses_everything_first(world: ScimWorld) -> None:
    made = await world.user("alice")
    begun = await world.sessions.begin(Subject("", made["id"]), PASSWORD)
    assert (await world.service.delete("User", made["id"], HR)).status == 204
    assert await world.sessions.find(begun.value) is None
    assert await world.directory.get_user("", made["id"]) is None
    with pytest.raises(NotFoundException):
        await world.service.delete("User", made["id"], HR)


async def test_a_new_password_is_kept_ends_sessions_and_is_never_shown(world: ScimWorld) -> None:
    made = await world.user("alice", password="correct horse")
    assert "password" not in made
    assert world.passwords.kept == {made["id"]: "hash of correct horse"}
    begun = await world.sessions.begin(Subject("", made["id"]), PASSWORD)
    reply = await world.patch("User", made["id"], {"op": "replace", "path": "password", "value": "battery staple"})
    assert reply.body is not None
    assert "password" not in reply.body
    assert world.passwords.kept == {made["id"]: "hash of battery staple"}
    assert await world.sessions.find(begun.value) is None
    with pytest.raises(InvalidValueException, match="short"):
        await world.user("bob", password="short")
    assert await world.found("User", 'userName eq "bob"') == []


async def test_other_changes_leave_sessions_alone(world: ScimWorld) -> None:
    made = await world.user("alice")
    begun = await world.sessions.begin(Subject("", made["id"]), PASSWORD)
    await world.patch("User", made["id"], {"op": "replace", "path": "title", "value": "Queen"})
    assert await world.sessions.find(begun.value) is not None
    assert world.revoked == []


# --- versions


async def test_a_change_of_another_version_than_meant_is_refused(world: ScimWorld) -> None:
    made = await world.user("alice")
    title = {"op": "replace", "path": "title", "value": "Queen"}
    assert (await world.patch("User", made["id"], title, if_match='W/"1"')).headers["etag"] == 'W/"2"'
    for stale in ('W/"1"', '"1"', 'W/"7", "1"', "nonsense"):
        with pytest.raises(PreconditionFailedException):
            await world.patch("User", made["id"], {**title, "value": "Pawn"}, if_match=stale)
        with pytest.raises(PreconditionFailedException):
            await world.service.delete("User", made["id"], HR, Asked(if_match=stale))
    for good in ('"2"', "*", 'W/"1", W/"2"'):
        assert (await world.patch("User", made["id"], title, if_match=good)).status == 200
    assert (await world.get("User", made["id"]))["title"] == "Queen"


async def test_what_a_client_has_already_is_not_sent_again(world: ScimWorld) -> None:
    made = await world.user("alice")
    same = await world.service.get("User", made["id"], HR, Asked(if_none_match='W/"1"'))
    assert (same.status, same.body) == (304, None)
    assert (await world.service.get("User", made["id"], HR, Asked(if_none_match='W/"2"'))).status == 200


async def test_what_changes_nothing_makes_no_new_version(world: ScimWorld) -> None:
    made = await world.user("alice", title="Queen")
    reply = await world.patch("User", made["id"], {"op": "replace", "path": "title", "value": "Queen"})
    assert (reply.status, reply.headers["etag"]) == (200, 'W/"1"')


async def test_changes_at_the_same_time_all_take_place(world: ScimWorld) -> None:
    made = await world.user("alice")
    names = ("title", "nickName", "displayName", "userType")
    await asyncio.gather(
        *(world.patch("User", made["id"], {"op": "add", "path": name, "value": name}) for name in names)
    )
    shown = await world.get("User", made["id"])
    assert [shown[name] for name in names] == list(names)
    assert shown["meta"]["version"] == 'W/"5"'


# --- groups


async def test_groups_have_members_and_users_show_their_groups(world: ScimWorld) -> None:
    alice, bob = await world.user("alice"), await world.user("bob")
    inner = await world.group("inner", bob["id"])
    outer = await world.group("outer", alice["id"], inner["id"])
    kinds = {each["value"]: (each["type"], each["$ref"]) for each in outer["members"]}
    assert kinds == {
        alice["id"]: ("User", f"{BASE}/Users/{alice['id']}"),
        inner["id"]: ("Group", f"{BASE}/Groups/{inner['id']}"),
    }
    shown = (await world.get("User", alice["id"]))["groups"]
    assert [(each["value"], each["display"], each["type"]) for each in shown] == [(outer["id"], "outer", "direct")]
    with pytest.raises(SCIMException):
        await world.patch("User", alice["id"], {"op": "remove", "path": "groups"})


@pytest.mark.parametrize("member", ["usr_nobody", "nonsense", "", None])
async def test_only_who_is_there_can_be_a_member(world: ScimWorld, member: Any) -> None:
    made = await world.group("staff")
    operation = {"op": "add", "path": "members", "value": [{"value": member}]}
    with pytest.raises(SCIMException) as refused:
        await world.patch("Group", made["id"], operation)
    assert refused.value.status == 400
    assert "members" not in await world.get("Group", made["id"])


async def test_members_come_and_go_without_reading_all_of_them(world: ScimWorld) -> None:
    users = [await world.user(f"user{number}") for number in range(4)]
    ids = [each["id"] for each in users]
    made = await world.group("staff", ids[0], ids[1])
    reply = await world.patch(
        "Group",
        made["id"],
        {"op": "Add", "path": "members", "value": [{"value": ids[2]}, {"value": ids[3]}]},
        {"op": "remove", "path": f'members[value eq "{ids[0]}"]'},
        {"op": "Remove", "path": "members", "value": [{"value": ids[1]}, {"value": ids[3]}]},
    )
    assert (reply.status, reply.headers["etag"]) == (204, 'W/"2"')
    shown = await world.get("Group", made["id"])
    assert [each["value"] for each in shown["members"]] == [ids[2]]


async def test_members_can_be_replaced_and_all_be_removed(world: ScimWorld) -> None:
    alice, bob = await world.user("alice"), await world.user("bob")
    made = await world.group("staff", alice["id"])
    await world.patch("Group", made["id"], {"op": "replace", "path": "members", "value": [{"value": bob["id"]}]})
    assert [each["value"] for each in (await world.get("Group", made["id"]))["members"]] == [bob["id"]]
    await world.patch("Group", made["id"], {"op": "remove", "path": "members"})
    assert "members" not in await world.get("Group", made["id"])


# --- what is shown


async def test_clients_choose_what_they_see(world: ScimWorld) -> None:
    made = await world.user("alice", title="Queen", emails=[{"value": "a@x.test", "type": "work"}])
    some = await world.get("User", made["id"], attributes="userName,emails.type")
    assert some == {
        "schemas": [USER],
        "id": made["id"],
        "userName": "alice",
        "emails": [{"type": "work"}],
    }
    without = await world.get("User", made["id"], excludedAttributes="title,emails")
    assert "title" not in without
    assert "emails" not in without
    assert without["userName"] == "alice"
    with pytest.raises(SCIMException):
        await world.get("User", made["id"], attributes="title", excludedAttributes="emails")


# --- what well-known clients send


@pytest.mark.parametrize(
    ("operation", "path", "expected"),
    [
        ({"op": "Replace", "path": "active", "value": "False"}, ("active",), False),
        ({"op": "Replace", "value": {"active": "False"}}, ("active",), False),
        ({"op": "Add", "value": {"name.familyName": "Liddell"}}, ("name", "familyName"), "Liddell"),
        (
            {"op": "Add", "path": 'emails[type eq "work"].value', "value": "w@x.test"},
            ("emails",),
            [{"type": "work", "value": "w@x.test"}],
        ),
        ({"op": "Add", "path": f"{ENTERPRISE}:manager", "value": "usr_1"}, (ENTERPRISE, "manager", "value"), "usr_1"),
        ({"op": "Add", "value": {f"{ENTERPRISE}:manager": "usr_1"}}, (ENTERPRISE, "manager", "value"), "usr_1"),
        ({"op": "Add", "path": f"{ENTERPRISE}:department", "value": "R&D"}, (ENTERPRISE, "department"), "R&D"),
        ({"op": "replace", "value": {"id": "whatever", "title": "Queen"}}, ("title",), "Queen"),
        (
            {"op": "Add", "path": 'roles[primary eq "True"].value', "value": "x"},
            ("roles",),
            [{"value": "x", "primary": True}],
        ),
        ({"op": "Add", "path": "favouriteColour", "value": "red"}, ("userName",), "alice"),
    ],
)
async def test_what_entra_and_okta_send_is_understood(
    world: ScimWorld, operation: dict[str, Any], path: tuple[str, ...], expected: Any
) -> None:
    made = await world.user("alice")
    await world.patch("User", made["id"], operation)
    shown: Any = await world.get("User", made["id"])
    for name in path:
        shown = shown[name]
    assert shown == expected


async def test_okta_puts_whole_users_and_renames_groups_with_their_id(world: ScimWorld) -> None:
    made = await world.user("alice", title="Queen")
    put = {**made, "title": None, "active": False, "groups": []}
    reply = await world.service.replace("User", made["id"], put, HR)
    assert reply.body is not None
    assert (reply.body["active"], "title" in reply.body) == (False, False)
    group = await world.group("staff")
    rename = {"op": "replace", "value": {"id": group["id"], "displayName": "crew"}}
    await world.patch("Group", group["id"], rename)
    assert (await world.get("Group", group["id"]))["displayName"] == "crew"


@pytest.mark.parametrize(
    ("operation", "kind"),
    [
        ({"op": "replace", "path": "id", "value": "usr_x"}, MutabilityException),
        ({"op": "remove", "path": "userName"}, MutabilityException),
        ({"op": "remove"}, SCIMException),
        ({"op": "fly", "path": "title", "value": "x"}, SCIMException),
        ({"op": "replace", "path": "emails[", "value": "x"}, SCIMException),
        ({"op": "replace", "path": "emails[type eq " + "(" * 20 + "]", "value": "x"}, SCIMException),
        ({"op": "replace", "path": "x" * 5000, "value": "x"}, SCIMException),
    ],
)
async def test_what_cannot_be_patched_is_refused_and_changes_nothing(
    world: ScimWorld, operation: dict[str, Any], kind: type[SCIMException]
) -> None:
    made = await world.user("alice")
    before = await world.get("User", made["id"])
    with pytest.raises(kind) as refused:
        await world.patch("User", made["id"], {"op": "add", "path": "title", "value": "Queen"}, operation)
    assert refused.value.status == 400
    assert await world.get("User", made["id"]) == before
