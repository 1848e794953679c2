"""What is shed is told so before anything is done for it, and chance decides once."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.types import Receive, Scope, Send

from gateway.config import ResilienceConfig
from gateway.errors import BulkheadFullError, GatewayError, OverloadedError, ResourceExhaustedError
from gateway.front.overload import OverloadGate
from gateway.resilience import Resilience
from gateway.resilience.threads import Coming
from gateway.types import SystemClock


class Place:
    """A gate, and the pages behind it."""

    def __init__(self, resilience: Resilience, announce: Callable[[], Coming] | None = None) -> None:
        self.resilience = resilience
        self.served = 0
        self.entered = 0
        self.refusals: list[GatewayError] = []
        self.gate = OverloadGate(
            self._pages,
            paths=frozenset({"/login"}),
            pool="user_auth",
            resilience=resilience,
            refusal=self._refusal,
            announces={"/login": announce or resilience.hashing.announce},
        )

    async def _pages(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.served += 1
        async with self.resilience.serving("user_auth"):
            self.entered += 1
        await PlainTextResponse("a page")(scope, receive, send)

    def _refusal(self, request: Request, error: GatewayError) -> Response:
        self.refusals.append(error)
        return PlainTextResponse("busy", 503)

    async def ask(self, path: str = "/login", method: str = "GET") -> int:
        statuses: list[int] = []

        async def receive() -> dict[str, Any]:
            raise AssertionError("nothing is read of what is refused")

        async def send(message: Any) -> None:
            if message["type"] == "http.response.start":
                statuses.append(message["status"])

        await self.gate({"type": "http", "path": path, "method": method, "headers": []}, receive, send)
        return statuses[0]


@pytest.fixture
def resilience() -> Resilience:
    return Resilience(ResilienceConfig(), clock=SystemClock())


async def test_what_is_let_in_is_not_asked_again_by_its_pool(resilience: Resilience) -> None:
    asked: list[str] = []
    admit = resilience.shedder.admit

    def counting(pool: str, *urgency: Any) -> None:
        asked.append(pool)
        admit(pool, *urgency)

    resilience.shedder.admit = counting  # type: ignore[assignment,method-assign]
    place = Place(resilience)
    assert await place.ask() == 200
    assert (asked, place.entered) == (["user_auth"], 1)


async def test_what_is_shed_is_refused_before_anything_is_done_for_it(resilience: Resilience) -> None:
    def shed(pool: str, *_: Any) -> None:
        raise OverloadedError("there is more work than can be done", retry_after_s=5.0)

    resilience.shedder.admit = shed  # type: ignore[assignment,method-assign]
    place = Place(resilience)
    assert await place.ask() == 503
    assert place.served == 0
    assert place.refusals[0].code == "overloaded"


async def test_a_full_pool_refuses_at_the_gate_and_counts_it(resilience: Resilience) -> None:
    place, is_over = Place(resilience), asyncio.Event()

    async def other() -> None:
        async with resilience.bulkheads.pool("user_auth"):
            await is_over.wait()

    others = [asyncio.create_task(other()) for _ in range(90)]
    await asyncio.sleep(0)
    assert await place.ask() == 503
    is_over.set()
    await asyncio.gather(*others)
    assert isinstance(place.refusals[0], BulkheadFullError)
    state = next(pool for pool in resilience.bulkheads.state() if pool.name == "user_auth")
    assert state.refused_full == 1


async def test_what_posts_need_is_asked_of_posts_alone(resilience: Resilience) -> None:
    def no_thread() -> Coming:
        raise ResourceExhaustedError("no thread came free", retry_after_s=5.0)

    place = Place(resilience, no_thread)
    assert await place.ask() == 200
    assert await place.ask(method="POST") == 503
    assert place.served == 1
    assert place.refusals[0].code == "resource_exhausted"


async def test_other_paths_are_none_of_its_business(resilience: Resilience) -> None:
    def shed(pool: str, *_: Any) -> None:
        raise OverloadedError("there is more work than can be done", retry_after_s=5.0)

    place = Place(resilience)
    resilience.shedder.admit = shed  # type: ignore[assignment,method-assign]
    with pytest.raises(OverloadedError):  # from its own pool, as before
        await place.ask("/mfa")
    assert place.refusals == []


async def test_who_is_on_the_way_to_a_thread_is_counted_until_they_are_there_or_done(resilience: Resilience) -> None:
    place = Place(resilience)
    hashing = resilience.hashing
    counted: list[int] = []

    async def hash_something(scope: Scope, receive: Receive, send: Send) -> None:
        counted.append(hashing._coming)
        await hashing.run(lambda: None)
        counted.append(hashing._coming)
        await hashing.run(lambda: None)  # another one: it was not announced
        counted.append(hashing._coming)
        await PlainTextResponse("a page")(scope, receive, send)

    place.gate._app = hash_something
    assert await place.ask(method="POST") == 200
    assert counted == [1, 0, 0]
    place.gate._app = place._pages
    assert await place.ask(method="POST") == 200  # one that never came
    assert hashing._coming == 0
