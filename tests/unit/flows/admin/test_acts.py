"""What administrators do: decided, proved anew where it changes something, done, and told."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from gateway.errors import StoreUnavailable
from gateway.flows.admin import (
    AdminActs,
    Administrator,
    AdminRefused,
    AdminRules,
    NothingThere,
    RoleAssignments,
    RoleOf,
    StepUpNeeded,
)
from gateway.flows.devices import RememberedDevices
from gateway.flows.revoked_devices import ISSUER
from gateway.stores.audit_log import ORIGIN_HASH, AuditEntry
from gateway.stores.directory import Condition, Device, Group, Member, User
from gateway.types import Subject
from tests.unit.flows.people_world import PeopleWorld
from tests.unit.flows.test_sessions import PASSWORD

STEP_UP_S = 900


class AdminWorld(PeopleWorld):
    """Two users, of whom one is in the group of the helpdesk."""

    def __init__(self, folder: Path, acr_values: tuple[str, ...] = ()) -> None:
        super().__init__(folder)
        self.vouchers_ended: list[tuple[str, str, str]] = []
        self.roles = RoleAssignments(
            [
                RoleOf("helpdesk", groups=frozenset({"grp_help"})),
                RoleOf("owner", users=frozenset({"usr_owner"}), clients=frozenset({"robot"})),
            ],
            self.directory,
            "",
        )
        self.acts = AdminActs(
            AdminRules(),
            self.roles,
            directory=self.directory,
            leaving=self.leaving,
            devices=RememberedDevices(self.directory, self.clock, self.trail, lifetime_s=0, revoke=self._end_voucher),
            sessions=self.sessions,
            granted=None,
            read_audit=self.read_audit,
            state=lambda: {"degradation": {"level": 0}},
            trail=self.trail,
            clock=self.clock,
            step_up_s=STEP_UP_S,
            acr_values=acr_values,
        )

    async def open(self, tenant: str = "") -> None:
        await super().open(tenant)
        for name in ("alice", "helper", "owner"):
            await self.directory.add_user(User(id=f"usr_{name}", tenant="", user_name=name, emails=(f"{name}@x.test",)))
        await self.directory.add_group(Group(id="grp_help", tenant="", display_name="help"), [Member(id="usr_helper")])

    async def read_audit(self, chain: str, after: int) -> AsyncIterator[AuditEntry]:
        for number, event in enumerate(self.events[after:], after + 1):
            yield AuditEntry(chain or "here-0", number, ORIGIN_HASH, ORIGIN_HASH, event)

    async def _end_voucher(self, kind: str, issuer: str, value: str, *, until_s: int, issued_before_s: int = 0) -> None:
        self.vouchers_ended.append((kind, issuer, value))

    def human(self, *roles: str, **more: Any) -> Administrator:
        """Give somebody who has just proved who they are."""
        fresh = {"authenticated_s": self.clock.wall_s(), "acr": "1"}
        return Administrator(id="usr_admin", kind="user", roles=frozenset(roles), **{**fresh, **more})


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[AdminWorld]:
    made = AdminWorld(tmp_path)
    await made.open()
    yield made
    await made.close()


async def test_roles_come_from_groups_users_and_clients(world: AdminWorld) -> None:
    assert await world.roles.of_user("usr_helper") == {"helpdesk"}
    assert await world.roles.of_user("usr_owner") == {"owner"}
    assert await world.roles.of_user("usr_alice") == set()
    assert world.roles.of_client("robot") == {"owner"}
    assert not world.roles.of_client("usr_owner")


async def test_who_is_deactivated_is_out_at_once_and_the_log_says_by_whom(world: AdminWorld) -> None:
    begun = await world.sessions.begin(Subject("", "usr_alice"), PASSWORD)
    shown = await world.acts.deactivate(world.human("operator"), "usr_alice")
    assert (shown["active"], shown["ended_sessions"]) == (False, 1)
    assert await world.sessions.find(begun.value) is None
    assert world.ended == [Subject("", "usr_alice")]
    last = world.events[-1]
    assert (last.action, last.actor, last.target) == ("admin.user.deactivate", "usr_admin", "usr_alice")
    again = await world.acts.deactivate(world.human("operator"), "usr_alice")
    assert again["version"] == shown["version"]
    assert (await world.acts.reactivate(world.human("operator"), "usr_alice"))["active"] is True


async def test_what_was_interrupted_is_done_when_it_is_asked_for_again(world: AdminWorld) -> None:
    working = world.leaving._revoke

    async def broken(*arguments: Any, **options: Any) -> None:
        raise StoreUnavailable("away")

    world.leaving._revoke = broken
    with pytest.raises(StoreUnavailable):
        await world.acts.deactivate(world.human("operator"), "usr_alice")
    world.leaving._revoke = working
    await world.acts.deactivate(world.human("operator"), "usr_alice")
    assert world.ended == [Subject("", "usr_alice")]


@pytest.mark.parametrize(
    "doubt",
    [{"authenticated_s": None}, {"authenticated_s": 0.0}, {"is_doubtful": True}],
)
async def test_people_prove_themselves_anew_before_they_change_something(
    world: AdminWorld, doubt: dict[str, Any]
) -> None:
    stale = world.human("owner", **doubt)
    for act in (world.acts.deactivate, world.acts.reactivate, world.acts.end_sessions):
        with pytest.raises(StepUpNeeded):
            await act(stale, "usr_alice")
    assert world.events[-1].reason == "step_up"
    if "is_doubtful" not in doubt:
        assert (await world.acts.user(stale, "usr_alice"))["id"] == "usr_alice"  # looking needs no new proof


async def test_a_session_that_was_given_while_the_directory_was_away_is_no_administrators(world: AdminWorld) -> None:
    doubtful = world.human("owner", is_doubtful=True)
    with pytest.raises(StepUpNeeded):
        await world.acts.user(doubtful, "usr_alice")
    with pytest.raises(StepUpNeeded):
        await world.acts.clients(doubtful)
    told = world.events[-1]
    assert (told.action, told.outcome, told.reason) == ("admin.authorize", "refused", "step_up")


async def test_a_device_that_was_lost_is_forgotten_and_what_it_was_given_with_it(world: AdminWorld) -> None:
    now_s = world.clock.wall_s()
    for name, owner, ends_s in (
        ("lost", "alice", 60.0),
        ("stays", "alice", 60.0),
        ("old", "alice", 0.0),
        ("x", "owner", 60.0),
    ):
        await world.directory.add_device(
            Device(
                id=f"dev_{name}", tenant="", user_id=f"usr_{owner}", secret_hash=bytes(32), name=name,
                created_s=now_s, seen_s=now_s - len(name), expires_s=now_s + ends_s,
            )
        )  # fmt: skip
    admin = world.human("helpdesk")
    shown = (await world.acts.devices(admin, "usr_alice"))["devices"]
    assert [(each["id"], each["bound"]) for each in shown] == [("dev_lost", False), ("dev_stays", False)]
    await world.acts.forget_device(admin, "usr_alice", "dev_lost")
    assert world.vouchers_ended == [("jti", ISSUER, "dev_lost")]
    assert [each["id"] for each in (await world.acts.devices(admin, "usr_alice"))["devices"]] == ["dev_stays"]
    told = [(event.action, event.actor, event.target) for event in world.events if "device.forget" in event.action]
    assert told == [("device.forget", "usr_admin", "dev_lost"), ("admin.device.forget", "usr_admin", "usr_alice")]
    for device in ("dev_lost", "dev_x", "dev_nobody"):
        with pytest.raises(NothingThere):
            await world.acts.forget_device(admin, "usr_alice", device)
    with pytest.raises(AdminRefused):  # an administrator's device
        await world.acts.forget_device(admin, "usr_owner", "dev_x")
    with pytest.raises(StepUpNeeded):
        await world.acts.forget_device(world.human("helpdesk", authenticated_s=None), "usr_alice", "dev_stays")
    assert await world.directory.get_device("", "dev_x") is not None


async def test_a_proof_is_new_for_so_long(world: AdminWorld) -> None:
    owner = world.human("owner")
    world.clock.now_s += STEP_UP_S
    await world.acts.end_sessions(owner, "usr_alice")
    world.clock.now_s += 1
    with pytest.raises(StepUpNeeded):
        await world.acts.end_sessions(owner, "usr_alice")
    program = Administrator(id="robot", kind="program", roles=frozenset({"owner"}))
    await world.acts.end_sessions(program, "usr_alice")  # its secret came with the request


async def test_a_proof_is_as_strong_as_asked_for(tmp_path: Path) -> None:
    world = AdminWorld(tmp_path, acr_values=("2fa",))
    await world.open()
    with pytest.raises(StepUpNeeded):
        await world.acts.end_sessions(world.human("owner", acr="1fa"), "usr_alice")
    for strong in ("2fa", "phr"):
        await world.acts.end_sessions(world.human("owner", acr=strong), "usr_alice")
    await world.close()


async def test_who_may_not_is_asked_for_no_proof_and_told_nothing(world: AdminWorld) -> None:
    stale = world.human("reader", authenticated_s=None)
    with pytest.raises(AdminRefused):
        await world.acts.end_sessions(stale, "usr_alice")
    assert (world.events[-1].action, world.events[-1].reason) == ("admin.authorize", "policy")
    with pytest.raises(AdminRefused):
        await world.acts.user(world.human(), "usr_nobody")  # without a role nobody learns who exists
    with pytest.raises(NothingThere):
        await world.acts.user(world.human("reader"), "usr_nobody")


async def test_helpdesk_does_nothing_to_administrators(world: AdminWorld) -> None:
    helper = world.human("helpdesk")
    await world.acts.end_sessions(helper, "usr_alice")
    for target in ("usr_helper", "usr_owner"):
        with pytest.raises(AdminRefused):
            await world.acts.end_sessions(helper, target)


async def test_sessions_are_listed_and_ended_one_by_one(world: AdminWorld) -> None:
    subject = Subject("", "usr_alice")
    first, second = [await world.sessions.begin(subject, PASSWORD) for _ in range(2)]
    shown = (await world.acts.sessions(world.human("reader"), "usr_alice"))["sessions"]
    assert {each["id"] for each in shown} == {first.session.id_hash.hex(), second.session.id_hash.hex()}
    assert not any(first.value in str(each) for each in shown)
    await world.acts.end_session(world.human("helpdesk"), "usr_alice", first.session.id_hash.hex())
    assert await world.sessions.find(first.value) is None
    assert await world.sessions.find(second.value) is not None
    other = await world.sessions.begin(Subject("", "usr_owner"), PASSWORD)
    with pytest.raises(NothingThere):  # it is somebody else's
        await world.acts.end_session(world.human("helpdesk"), "usr_alice", other.session.id_hash.hex())
    assert await world.sessions.find(other.value) is not None


async def test_users_are_looked_for_and_shown_without_secrets(world: AdminWorld) -> None:
    found = await world.acts.users(world.human("reader"), [Condition("user_name", "sw", "a")], 0, 10)
    assert (found["total"], [each["user_name"] for each in found["users"]]) == (1, ["alice"])
    shown = await world.acts.user(world.human("reader"), "usr_helper")
    assert shown["groups"] == [{"id": "grp_help", "name": "help"}]
    assert (shown["roles"], shown["has_password"], shown["passkeys"]) == (["helpdesk"], False, 0)


async def test_the_audit_log_is_read_by_what_is_wanted(world: AdminWorld) -> None:
    await world.acts.end_sessions(world.human("owner"), "usr_alice")
    with pytest.raises(AdminRefused):
        await world.acts.end_sessions(world.human("reader"), "usr_alice")
    auditor = world.human("auditor")
    told = (await world.acts.audit(auditor, wanted={"action": "admin.", "target": "usr_alice"}))["entries"]
    assert [each["action"] for each in told] == ["admin.session.end_all", "admin.authorize"]
    assert [each["action"] for each in (await world.acts.audit(auditor, limit=1))["entries"]] == ["admin.audit.read"]
    assert (await world.acts.audit(auditor, wanted={"outcome": "refused"}))["entries"][0]["details"] == {
        "wanted": "session.end_all"
    }
    with pytest.raises(AdminRefused):
        await world.acts.audit(world.human("reader"))


async def test_without_a_token_service_there_is_nothing_granted(world: AdminWorld) -> None:
    owner = world.human("owner")
    assert await world.acts.clients(owner) == {"clients": []}
    assert await world.acts.grants(owner, "usr_alice") == {"grants": []}
    with pytest.raises(NothingThere):
        await world.acts.client(owner, "app")
    with pytest.raises(NothingThere):
        await world.acts.revoke_grant(owner, "usr_alice", "family")


async def test_everybody_is_told_what_they_may_do(world: AdminWorld) -> None:
    shown = await world.acts.me(world.human("helpdesk"))
    assert shown["roles"] == ["helpdesk"]
    assert "session.end" in shown["actions"]
    assert "audit.read" not in shown["actions"]
    assert (await world.acts.me(world.human()))["actions"] == []
    assert await world.acts.state(world.human("reader")) == {"degradation": {"level": 0}}
