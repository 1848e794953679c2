"""Who administers: programs, people by session or token, clients; and everybody who does not."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from gateway.flows.admin import Administrator
from gateway.flows.trail import Caller
from gateway.front.admin.callers import AdminCallers, NobodyKnown, TokenUnjudged
from gateway.front.bearers import FailureNotes, KnownTokens
from gateway.stores.directory import Identity
from gateway.types import Secret, Subject
from tests.unit.flows.admin.test_acts import AdminWorld
from tests.unit.flows.people_world import ISSUER
from tests.unit.flows.test_sessions import PASSWORD
from tests.unit.front.test_bearers import request

IDP = "https://idp.test"
TOKEN = "p" * 40
COOKIE = "__Host-portcullis"
GUARD = ("X-Portcullis-Admin", "1")
HERE = Caller("10.0.0.1", "request")


class CallersWorld(AdminWorld):
    """Callers over the directory, and an engine whose verdicts tests say."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.verdict: tuple[Mapping[str, Any] | None, str] = (None, "malformed")
        self.callers = AdminCallers(
            KnownTokens({"pager": Secret(TOKEN)}),
            {"pager": frozenset({"operator"})},
            self.roles,
            directory=self.directory,
            sessions=self.sessions,
            cookie=COOKIE,
            judge=self.judge,
            issuers=frozenset({ISSUER, IDP}),
            own_issuer=ISSUER,
            scope="admin",
            trail=self.trail,
            failures=FailureNotes(self.clock),
        )

    async def judge(self, token: bytes) -> tuple[Mapping[str, Any] | None, str]:
        return self.verdict

    async def by_token(self, **claims: Any) -> Administrator:
        self.verdict = {"iss": ISSUER, "scope": "openid admin", "tenant": "", **claims}, "ok"
        return await self.callers.who(request(("Authorization", "Bearer token")), HERE)


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[CallersWorld]:
    made = CallersWorld(tmp_path)
    await made.open()
    yield made
    await made.close()


async def test_a_program_is_known_by_its_token(world: CallersWorld) -> None:
    admin = await world.callers.who(request(("Authorization", f"Bearer {TOKEN}")), HERE)
    assert (admin.id, admin.kind, sorted(admin.roles)) == ("pager", "program", ["operator"])


async def test_people_are_known_by_their_session_and_have_the_roles_of_their_groups(world: CallersWorld) -> None:
    value = (await world.sessions.begin(Subject("", "usr_helper"), PASSWORD)).value
    admin = await world.callers.who(request(GUARD, cookies=f"{COOKIE}={value}"), HERE)
    assert (admin.id, admin.kind, sorted(admin.roles)) == ("usr_helper", "user", ["helpdesk"])
    assert admin.authenticated_s == int(world.clock.wall_s())
    for headers in ([], [GUARD, ("Sec-Fetch-Site", "cross-site")], [GUARD, ("Sec-Fetch-Site", "same-site")]):
        with pytest.raises(NobodyKnown):
            await world.callers.who(request(*headers, cookies=f"{COOKIE}={value}"), HERE)
    with pytest.raises(NobodyKnown):
        await world.callers.who(request(GUARD, ("Authorization", "Basic x"), cookies=f"{COOKIE}={value}"), HERE)


@pytest.mark.parametrize(
    "subject", [Subject("other", "usr_helper"), Subject("", "usr_gone"), Subject("", "robot", "client")]
)
async def test_sessions_of_others_are_nobodys(world: CallersWorld, subject: Subject) -> None:
    value = (await world.sessions.begin(subject, PASSWORD)).value
    with pytest.raises(NobodyKnown):
        await world.callers.who(request(GUARD, cookies=f"{COOKIE}={value}"), HERE)


async def test_who_is_inactive_administers_nothing(world: CallersWorld) -> None:
    value = (await world.sessions.begin(Subject("", "usr_owner"), PASSWORD)).value
    await world.acts._set_active("usr_owner", False)  # sessions live on: nobody has ended them
    with pytest.raises(NobodyKnown):
        await world.callers.who(request(GUARD, cookies=f"{COOKIE}={value}"), HERE)
    with pytest.raises(NobodyKnown):
        await world.by_token(sub="usr_owner")


async def test_access_tokens_count_with_the_scope(world: CallersWorld) -> None:
    admin = await world.by_token(sub="usr_owner", auth_time=5, acr="2fa")
    assert (admin.kind, sorted(admin.roles), admin.authenticated_s, admin.acr) == ("user", ["owner"], 5.0, "2fa")
    client = await world.by_token(sub="robot", client_id="robot")
    assert (client.kind, sorted(client.roles)) == ("client", ["owner"])
    assert (await world.by_token(sub="usr_owner", provisional=True)).is_doubtful
    assert (await world.by_token(sub="usr_owner")).authenticated_s is None
    for claims in (
        {"sub": "usr_owner", "scope": "openid"},
        {"sub": "usr_owner", "tenant": "other"},
        {"sub": "usr_owner", "iss": "https://stranger.test"},
        {"sub": "usr_owner", "cnf": {"jkt": "x"}},
        {"sub": "usr_nobody"},
    ):
        with pytest.raises(NobodyKnown):
            await world.by_token(**claims)


async def test_an_identity_providers_word_counts_for_users_that_are_linked(world: CallersWorld) -> None:
    with pytest.raises(NobodyKnown):
        await world.by_token(iss=IDP, sub="usr_owner")  # it cannot name our users
    linked = Identity(tenant="", issuer=IDP, subject="ext-7", user_id="usr_owner", linked_s=0)
    await world.directory.link(linked)
    assert (await world.by_token(iss=IDP, sub="ext-7")).id == "usr_owner"
    with pytest.raises(NobodyKnown):
        await world.by_token(iss=IDP, sub="robot")  # nor our clients


async def test_keys_that_cannot_be_had_are_no_verdict(world: CallersWorld) -> None:
    world.verdict = None, "keys_unavailable"
    with pytest.raises(TokenUnjudged):
        await world.callers.who(request(("Authorization", "Bearer token")), HERE)


async def test_failures_are_in_the_audit_log(world: CallersWorld) -> None:
    for _ in range(3):
        with pytest.raises(NobodyKnown):
            await world.callers.who(request(("Authorization", "Bearer wrong")), HERE)
    told = [(event.action, event.reason, event.address) for event in world.events]
    assert told == [("admin.authenticate", "malformed", "10.0.0.1")]
