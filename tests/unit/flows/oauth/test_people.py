"""Sessions and users of this gateway, as its token service asks for them."""

from __future__ import annotations

from pathlib import Path
from typing import cast

import pytest

from gateway.errors import StoreUnavailable
from gateway.flows.oauth import LoginWish
from gateway.flows.oauth.people import DirectoryProfiles, NobodyLogsIn, SessionAuthenticator, SessionsOnly
from gateway.flows.sessions import Proof, SessionNames, Sessions, origin_of
from gateway.flows.trail import AuditTrail
from gateway.stores import open_session_store
from gateway.stores.directory import Directory, User
from gateway.types import Secret, Session, Subject
from tests.unit.flows.oauth.world import USER, Events
from tests.unit.tokens.fakes import MovedClock

COOKIE = "__Host-portcullis"


class Ended:
    """Hears what ended."""

    def __init__(self, *, fails: bool = False) -> None:
        self.sessions: list[Session] = []
        self.subjects: list[Subject] = []
        self._fails = fails

    async def ended_session(self, session: Session) -> None:
        self.sessions.append(session)
        if self._fails:
            raise StoreUnavailable("gone")

    async def ended_subject(self, subject: Subject) -> None:
        self.subjects.append(subject)
        if self._fails:
            raise StoreUnavailable("gone")


@pytest.fixture
def sessions() -> Sessions:
    clock = MovedClock()
    store = open_session_store("memory:", Path(), clock)
    names = SessionNames("local", Secret(bytes(range(32))))
    return Sessions(store, names, clock=clock, trail=AuditTrail(Events(), clock))


def authenticator(sessions: Sessions) -> SessionAuthenticator:
    return SessionAuthenticator(sessions, COOKIE, lambda wish: f"/login?rd={wish.return_to}")


async def test_who_is_logged_in_is_known_by_the_cookie(sessions: Sessions) -> None:
    known = authenticator(sessions)
    begun = await sessions.begin(USER, Proof(amr=("pwd",), acr="1"))
    found = await known.current({COOKIE: begun.value, "other": "x"})
    assert found is not None and found.subject == USER
    for cookies in ({}, {COOKIE: ""}, {COOKIE: "x"}, {"other": begun.value}):
        assert await known.current(cookies) is None
    assert known.meets(found, ("1", "2")) and not known.meets(found, ("2",))
    assert known.login_url(LoginWish(return_to="/x")) == "/login?rd=/x"


async def test_a_session_lives_on_under_another_id_and_ends_once(sessions: Sessions) -> None:
    known = authenticator(sessions)
    begun = await sessions.begin(USER, Proof(amr=("pwd",)))
    origin = origin_of(begun.session)
    assert await known.join(begun.session, "app")
    more = await sessions.step_up(begun.value, Proof(amr=("otp",)))
    assert more is not None
    assert await known.is_live(USER, origin)
    assert not await known.is_live(Subject("other", USER.id), origin)
    await known.end(USER, origin)
    assert not await known.is_live(USER, origin)
    assert await sessions.find(more.value) is None
    await known.end(USER, origin)


async def test_who_ends_a_session_ends_what_was_granted_in_it(sessions: Sessions) -> None:
    ended = sessions.grants = Ended()
    begun = [await sessions.begin(USER, Proof(amr=("pwd",))) for _ in range(2)]
    await sessions.end(begun[0].value)
    await sessions.end(begun[0].value)
    assert [each.id_hash for each in ended.sessions] == [begun[0].session.id_hash]
    await sessions.end_all(USER, reason="admin")
    assert ended.subjects == [USER]


async def test_a_session_is_over_although_what_was_granted_could_not_be_ended(sessions: Sessions) -> None:
    sessions.grants = Ended(fails=True)
    begun = await sessions.begin(USER, Proof(amr=("pwd",)))
    assert await sessions.end(begun.value) is not None
    assert await sessions.find(begun.value) is None
    assert await sessions.end_all(USER, reason="admin") == 0


async def test_without_sessions_nobody_is_logged_in() -> None:
    nobody = NobodyLogsIn(lambda wish: "https://login.example")
    session = Session(
        id_hash=bytes(32),
        subject=USER,
        home_region="x",
        created_s=1,
        last_seen_s=1,
        idle_timeout_s=0,
        expires_s=9,
        authenticated_s=1,
        csrf_secret=b"",
    )
    assert await nobody.current({COOKIE: "x"}) is None
    assert not await nobody.is_live(USER, b"") and not await nobody.join(session, "app")
    assert not nobody.meets(session, ("",))
    assert nobody.login_url(LoginWish(return_to="/x")) == "https://login.example"
    await nobody.end(USER, b"")


class Users:
    """A directory of one user."""

    def __init__(self, user: User | None) -> None:
        self._user = user

    async def get_user(self, tenant: str, user_id: str) -> User | None:
        user = self._user
        return user if user is not None and (user.tenant, user.id) == (tenant, user_id) else None


async def claims(user: User | None, *scopes: str, subject: Subject = USER) -> object:
    return await DirectoryProfiles(cast(Directory, Users(user))).claims_of(subject, scopes)


async def test_scopes_open_what_the_directory_knows() -> None:
    alice = User(
        id=USER.id,
        tenant="",
        user_name="alice",
        emails=("alice@example.com", "a@example.com"),
        attributes={"displayName": "Alice A."},
        changed_s=7.9,
    )
    assert await claims(alice) == {}
    assert await claims(alice, "openid", "profile") == {
        "preferred_username": "alice",
        "updated_at": 7,
        "name": "Alice A.",
    }
    assert await claims(alice, "email") == {"email": "alice@example.com"}
    assert await claims(User(id=USER.id, tenant="", user_name="alice"), "email") == {}


async def test_who_is_inactive_gone_or_of_another_tenant_has_no_profile() -> None:
    assert await claims(User(id=USER.id, tenant="", user_name="alice", active=False), "profile") is None
    assert await claims(None, "profile") is None
    assert await claims(User(id=USER.id, tenant="acme", user_name="alice"), "profile") is None
    assert await SessionsOnly().claims_of(USER, ("profile",)) == {}
