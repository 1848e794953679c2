"""What is asked after an ASK, in which order, and how often."""

from __future__ import annotations

from typing import Any

import pytest

from gateway._native.front import Engine, Verdict
from gateway._native.route_policy import DeciderCell, Sampling
from gateway._native.uid import EntityUid
from gateway.config import PolicyConfig, RouteConfig
from gateway.front.asking import ASKS_MAX, Asking
from gateway.front.principals import PrincipalClaims
from gateway.front.route_policy import compile_route_policy
from gateway.policy import Engine as PolicyEngine
from gateway.policy import Entities, PolicySet
from tests.native.front_harness import Harness
from tests.real.gateway import bearer, mint

ALICE, READ, ORDER = EntityUid("User", "alice"), EntityUid("Action", "read"), EntityUid("Order", "1")
OWNER_LEADS = "permit (principal, action, resource) when { resource.owner.level == 1 };"


class Door(Harness):
    """A door with one route, whose users and orders are kept elsewhere."""

    def __init__(self, policies: str = OWNER_LEADS, sampling: Sampling | None = None) -> None:
        entities = Entities()
        self.store = entities.store
        for name in ("User", "Order"):
            self.store.source_type(name)
        principals = PrincipalClaims(PolicyConfig(), None)
        super().__init__(
            routes=(RouteConfig(path="/orders/{id}", action='Action::"read"', resource='Order::"{id}"'),),
            policies=DeciderCell(PolicyEngine(PolicySet.parse(policies), entities)),
            policy_of=lambda each, index: compile_route_policy(each, index, principals),
            sampling=sampling,
        )
        self.fetched: list[EntityUid] = []
        self.refusal: str | None = None

    async def ask(self, reason: str, issuer_index: int, token: bytes, engine: Engine | None = None) -> str | None:
        raise AssertionError("nothing is to be learned of the token")

    async def fetch(
        self,
        principal: EntityUid,
        action: EntityUid,
        resource: EntityUid,
        context: dict[str, Any],
        overlays: dict[EntityUid, Any] | None,
    ) -> str | None:
        """Fetch one more entity: the order, then its owner."""
        assert (principal, action, resource, context, overlays) == (ALICE, READ, ORDER, {}, None)
        if not self.store.resident(ORDER):
            self.fetched.append(ORDER)
            self.store.put(ORDER, {"owner": ALICE})
        elif not self.store.resident(ALICE):
            self.fetched.append(ALICE)
            self.store.put(ALICE, {"level": 1})
        return self.refusal

    def asked(self) -> tuple[dict[str, Any], Verdict]:
        scope = self.scope("GET", "/orders/1", [bearer(mint(sub="alice"))])
        return scope, self.door.judge_scope(scope)


async def test_what_was_fetched_may_lead_to_the_next_entity() -> None:
    door = Door()
    scope, verdict = door.asked()
    assert await Asking(door, door).learn(door.door, verdict, scope) == (None, True)
    assert door.fetched == [ORDER, ALICE]
    assert door.door.judge_scope(scope, final=True).kind == "allow"


async def test_a_refusal_ends_the_asking() -> None:
    door = Door()
    door.refusal = "attributes_unavailable"
    scope, verdict = door.asked()
    assert await Asking(door, door).learn(door.door, verdict, scope) == ("attributes_unavailable", True)
    assert door.fetched == [ORDER]


async def test_without_anybody_to_fetch_the_request_is_refused() -> None:
    door = Door()
    scope, verdict = door.asked()
    assert await Asking(door).learn(door.door, verdict, scope) == ("attributes_unavailable", True)


async def test_asking_ends_where_nothing_comes_of_it() -> None:
    door = Door()
    scope, verdict = door.asked()
    calls = 0

    async def fetch(*_: object) -> None:
        nonlocal calls
        calls += 1

    door.fetch = fetch  # type: ignore[method-assign,assignment]
    assert await Asking(door, door).learn(door.door, verdict, scope) == (None, True)
    assert calls == ASKS_MAX
    assert door.door.judge_scope(scope, final=True).reason == "attributes_unavailable"


@pytest.mark.parametrize(("learned", "asks"), [(None, 1), ("kid_unknown", 1)])
async def test_of_a_token_nothing_is_asked_twice(learned: str | None, asks: int) -> None:
    door = Door()
    scope = door.scope("GET", "/orders/1", [bearer(mint("two", sub="alice"))])
    verdict = door.door.judge_scope(scope)
    assert verdict.reason == "kid_unknown"
    reasons: list[str] = []

    class Learner:
        async def ask(self, reason: str, issuer_index: int, token: bytes, engine: Engine | None = None) -> str | None:
            reasons.append(reason)
            return learned

    assert await Asking(Learner()).learn(door.door, verdict, scope) == (learned, False)
    assert reasons == ["kid_unknown"] * asks


@pytest.mark.parametrize(("refusal", "outcome"), [(None, "allowed"), ("attributes_unavailable", "away")])
async def test_the_decision_log_hears_that_entities_were_fetched_and_what_came_of_it(
    refusal: str | None, outcome: str
) -> None:
    door = Door(sampling=Sampling(all=True))
    scope, verdict = door.asked()
    assert door.decided == []
    learned = await Asking(door, door).learn(door.door, verdict, scope)
    # A refusal counts, also where another request fetched the same meanwhile.
    answered = door.door.judge_scope(scope, True, refusal, learned.fetched)
    [(decided, request_id, _, route)] = door.decided
    assert (decided.outcome, decided.fetched) == (outcome, True)
    assert (decided.answer is None) == (refusal is not None)
    assert (request_id, route) == (answered.request_id, "/orders/{id}")
    assert answered.reason == (refusal or "ok")


async def test_a_decision_that_was_overruled_for_the_token_is_none() -> None:
    door = Door("permit (principal, action, resource);", sampling=Sampling(all=True))
    scope = door.scope("GET", "/orders/1", [bearer(mint(sub="alice"))])
    assert door.door.judge_scope(scope, True, "keys_unavailable").reason == "keys_unavailable"
    assert door.decided == []
