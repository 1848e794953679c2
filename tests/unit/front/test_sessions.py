"""Sessions at the doors: learned once, void when they change, and never let in by a store that is away."""

from __future__ import annotations

import asyncio
import contextlib
from pathlib import Path
from typing import Any

import pytest

from gateway._native.token import TokenValidator
from gateway.config import Config, SessionsConfig
from gateway.errors import BulkheadFullError, StoreUnavailable
from gateway.flows.sessions import Proof, Sessions
from gateway.flows.trail import AuditTrail
from gateway.front.sessions import UNAVAILABLE, OpenedSessions, SessionLearner, SessionWish, claims_of
from gateway.resilience import Resilience
from gateway.stores.sessions import SessionStore
from gateway.types import SystemClock
from tests.unit.flows.test_sessions import ALICE, PASSWORD, World

ISSUER = "https://app.test"


class Cut:
    """A store that can be away."""

    def __init__(self, store: SessionStore) -> None:
        self._store = store
        self.away = False

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._store, name)
        if not callable(found) or name == "close":
            return found

        async def call(*arguments: Any) -> Any:
            if self.away:
                raise StoreUnavailable("away")
            return await found(*arguments)

        return call


class Door(World):
    """A learner, and the validator that it teaches."""

    def __init__(self, **options: Any) -> None:
        super().__init__()
        self.cut = Cut(self.store)
        store: Any = self.cut
        self.sessions = Sessions(store, self.names, clock=self.clock, trail=AuditTrail(self, self.clock))
        self.validator = TokenValidator()
        self.learner = SessionLearner(
            self.sessions, store, self.names, self.validator, issuer=ISSUER, clock=self.clock, **options
        )

    async def follow(self) -> None:
        """Read the log to its end, as the loop does."""
        await self.learner._following.follow()

    def judged(self, value: str) -> str:
        return self.validator.judge_token(value.encode(), int(self.clock.wall_s()))[1]


@pytest.fixture
async def door() -> Door:
    made = Door()
    await made.follow()
    return made


async def test_a_session_is_learned_and_then_known(door: Door) -> None:
    begun = await door.sessions.begin(ALICE, PASSWORD, attributes={"scope": "a b", "email": "a@b.test"})
    assert door.judged(begun.value) == "opaque"
    assert await door.learner.ask(begun.value.encode()) is None
    identity, reason = door.validator.judge_token(begun.value.encode(), int(door.clock.wall_s()))
    assert reason == "ok"
    assert identity is not None
    assert (identity.subject, identity.issuer, identity.scopes) == (b"usr_alice", ISSUER.encode(), (b"a", b"b"))


async def test_who_asks_at_once_about_one_session_asks_the_store_once(door: Door) -> None:
    begun = await door.sessions.begin(ALICE, PASSWORD)
    asked = [door.learner.ask(begun.value.encode()) for _ in range(100)]
    assert await asyncio.gather(*asked) == [None] * 100
    assert door.learner.state().learned == 1


async def test_who_gives_up_waiting_takes_the_answer_from_nobody(door: Door) -> None:
    begun = await door.sessions.begin(ALICE, PASSWORD)
    hasty, patient = (asyncio.create_task(door.learner.ask(begun.value.encode())) for _ in range(2))
    await asyncio.sleep(0)
    hasty.cancel()
    assert await patient is None
    assert hasty.cancelled()


async def test_who_waits_while_the_learner_stops_is_told_to_come_again(door: Door) -> None:
    begun = await door.sessions.begin(ALICE, PASSWORD)
    waiting = asyncio.create_task(door.learner.ask(begun.value.encode()))
    await asyncio.sleep(0)
    await door.learner.stop()
    assert await waiting == UNAVAILABLE


async def test_what_the_hot_path_keeps_ends_and_is_learned_again(door: Door) -> None:
    begun = await door.sessions.begin(ALICE, PASSWORD)
    assert await door.learner.ask(begun.value.encode()) is None
    door.clock.move(61)
    await door.follow()
    assert door.judged(begun.value) != "ok"
    assert await door.learner.ask(begun.value.encode()) is None
    assert door.judged(begun.value) == "ok"


@pytest.mark.parametrize("value", [b"", b"nonsense", b"eu-1_" + b"a" * 78, b"\xff\xfe", b"a" * 5000])
async def test_what_is_none_of_ours_asks_no_store(door: Door, value: bytes) -> None:
    door.cut.away = True
    assert await door.learner.ask(value) == "session_invalid"


async def test_a_session_that_never_was_is_refused(door: Door) -> None:
    assert await door.learner.ask(door.names.new().encode()) == "session_invalid"


async def test_a_session_that_ended_is_void_with_the_next_look_at_the_log(door: Door) -> None:
    begun = await door.sessions.begin(ALICE, PASSWORD)
    assert await door.learner.ask(begun.value.encode()) is None
    await door.sessions.end(begun.value)
    await door.follow()
    assert door.judged(begun.value) == "revoked"
    assert await door.learner.ask(begun.value.encode()) == "session_invalid"
    assert door.learner.state().revoked == 1


async def test_a_step_up_voids_the_former_value_only(door: Door) -> None:
    begun = await door.sessions.begin(ALICE, PASSWORD)
    assert await door.learner.ask(begun.value.encode()) is None
    more = await door.sessions.step_up(begun.value, Proof(amr=("otp",), acr="2"))
    assert more is not None
    await door.follow()
    assert door.judged(begun.value) == "revoked"
    assert await door.learner.ask(more.value.encode()) is None
    assert door.judged(more.value) == "ok"


async def test_a_changed_session_is_learned_anew(door: Door) -> None:
    from dataclasses import replace

    begun = await door.sessions.begin(ALICE, PASSWORD)
    assert await door.learner.ask(begun.value.encode()) is None
    changed = replace(begun.session, version=begun.session.version + 1, attributes={"scope": "more"})
    assert await door.store.replace(changed, begun.session.version)
    await door.follow()
    assert door.judged(begun.value) == "revoked"  # what was kept, that is
    assert await door.learner.ask(begun.value.encode()) is None
    identity, reason = door.validator.judge_token(begun.value.encode(), int(door.clock.wall_s()))
    assert (reason, identity is not None and identity.scopes) == ("ok", (b"more",))


async def test_known_sessions_go_on_while_the_store_is_away_and_no_other_begins(door: Door) -> None:
    known = await door.sessions.begin(ALICE, PASSWORD)
    unknown = await door.sessions.begin(ALICE, PASSWORD)
    assert await door.learner.ask(known.value.encode()) is None
    door.cut.away = True
    for _ in range(4):
        door.clock.move(60)
        await door.follow()
        assert door.judged(known.value) != "ok"
        assert await door.learner.ask(known.value.encode()) is None
        assert door.judged(known.value) == "ok"
    assert await door.learner.ask(unknown.value.encode()) == "session_unavailable"
    assert door.learner.state().offline == 4
    door.clock.move(61)
    assert await door.learner.ask(known.value.encode()) == "session_unavailable"  # for too long
    door.cut.away = False
    assert await door.learner.ask(known.value.encode()) is None


async def test_without_news_of_revocations_nothing_is_kept_for_long(door: Door) -> None:
    begun = await door.sessions.begin(ALICE, PASSWORD)
    assert await door.learner.ask(begun.value.encode()) is None
    door.cut.away = True
    door.clock.move(2)
    await door.follow()
    assert door.judged(begun.value) == "opaque"
    assert await door.learner.ask(begun.value.encode()) is None
    door.clock.move(2)
    assert door.judged(begun.value) != "ok"


async def test_a_session_whose_time_is_over_does_not_go_on_without_the_store() -> None:
    door = Door(offline_s=10**9)
    await door.follow()
    begun = await door.sessions.begin(ALICE, PASSWORD)
    assert await door.learner.ask(begun.value.encode()) is None
    door.cut.away = True
    door.clock.move(30 * 60)
    assert await door.learner.ask(begun.value.encode()) == "session_invalid"


async def test_a_revocation_that_was_seen_counts_while_the_store_is_away(door: Door) -> None:
    begun = await door.sessions.begin(ALICE, PASSWORD)
    assert await door.learner.ask(begun.value.encode()) is None
    await door.sessions.end(begun.value)
    await door.follow()
    door.cut.away = True
    assert await door.learner.ask(begun.value.encode()) == "session_unavailable"
    assert door.judged(begun.value) != "ok"


async def test_claims_say_what_was_proved(door: Door) -> None:
    proof = Proof(amr=("pwd", "otp"), acr="2", provisional=True, requires_reauth=True)
    begun = await door.sessions.begin(ALICE, proof, attributes={"email": "a@b.test"})
    assert claims_of(begun.session) == {
        "sub": "usr_alice",
        "auth_time": begun.session.authenticated_s,
        "amr": ["pwd", "otp"],
        "acr": "2",
        "email": "a@b.test",
        "provisional": True,
        "requires_reauth": True,
    }


class Full(contextlib.AbstractAsyncContextManager[None]):
    """A pool that takes nobody."""

    async def __aenter__(self) -> None:
        raise BulkheadFullError

    async def __aexit__(self, *_: object) -> None:
        pass


async def test_a_full_pool_is_as_good_as_a_store_that_is_away() -> None:
    """Who was known goes on; who is not cannot be let in, and is told to come again."""
    door = Door()
    await door.follow()
    known, unknown = await door.sessions.begin(ALICE, PASSWORD), await door.sessions.begin(ALICE, PASSWORD)
    assert await door.learner.ask(known.value.encode()) is None
    door.learner._serving = Full
    door.validator.forget_all()
    assert await door.learner.ask(known.value.encode()) is None
    assert door.judged(known.value) == "ok"
    assert await door.learner.ask(unknown.value.encode()) == UNAVAILABLE


async def test_the_health_of_the_store_is_watched_while_its_sessions_are_in_force(tmp_path: Path) -> None:
    resilience = Resilience(Config().resilience, clock=SystemClock())
    wish = SessionWish(SessionsConfig(url="memory:"), ISSUER, (), TokenValidator)
    opened = [
        OpenedSessions(
            wish, base_dir=tmp_path, run_dir=tmp_path, clock=SystemClock(), auditor=World(), resilience=resilience
        )
        for _ in range(2)
    ]
    for each in opened:
        await each.start()
    await resilience.degradation.dependencies["database"].sample()
    (health,) = resilience.state().health
    assert (health.name, health.status, health.error) == ("database", "ok", "")
    await opened[0].stop()
    assert "database" in resilience.degradation.dependencies  # the second one's
    await opened[1].stop()
    assert "database" not in resilience.degradation.dependencies
