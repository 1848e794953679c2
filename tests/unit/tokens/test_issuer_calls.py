"""Issuers are asked in their pools, with permits, behind a breaker each, and always back in time."""

from __future__ import annotations

import asyncio

import pytest

from gateway.config import Config
from gateway.resilience import Resilience
from gateway.resilience.deadlines import GRACE_S
from gateway.stores.fetch import FetchFailed, Problem
from gateway.tokens.issuer_calls import DirectCalls, GuardedCalls, outcome_of_fetch
from tests.virtual_time import LoopClock, run_virtual

CLOCK = LoopClock()
A, B = "https://a.example.com", "https://b.example.com"


def new_resilience() -> Resilience:
    return Resilience(Config().resilience, clock=CLOCK)


async def fine() -> str:
    return "fine"


async def refused_connection() -> str:
    raise FetchFailed("unreachable", "no connection")


async def hang() -> str:
    """Swallow cancellation for a minute."""
    end_s = CLOCK.monotonic_s() + 60.0
    while CLOCK.monotonic_s() < end_s:
        try:
            await asyncio.sleep(end_s - CLOCK.monotonic_s())
        except asyncio.CancelledError:
            continue
    return "late"


@pytest.mark.parametrize("guarded", [True, False])
def test_an_issuer_that_hangs_holds_nobody_beyond_the_deadline(guarded: bool) -> None:
    async def main() -> None:
        calls = GuardedCalls(new_resilience()) if guarded else DirectCalls()
        assert await calls.ask(A, "jwks", fine, 5.0) == "fine"
        with pytest.raises(FetchFailed) as caught:
            await calls.ask(A, "jwks", hang, 0.2)
        assert caught.value.problem == "timeout"

    run_virtual(main())


def test_an_issuer_that_fails_is_left_alone_and_others_are_not() -> None:
    async def main() -> None:
        calls = GuardedCalls(new_resilience())
        problems = []
        for _ in range(12):
            with pytest.raises(FetchFailed) as caught:
                await calls.ask(A, "introspect", refused_connection, 5.0)
            problems.append(caught.value.problem)
        assert problems == ["unreachable"] * 10 + ["circuit_open"] * 2
        assert await calls.ask(B, "introspect", fine, 5.0) == "fine"
        assert await calls.ask(A, "jwks", fine, 5.0) == "fine"
        await asyncio.sleep(73.0)
        assert await calls.ask(A, "introspect", fine, 5.0) == "fine"

    run_virtual(main())


def test_a_flood_of_opaque_tokens_leaves_room_for_keys() -> None:
    async def main() -> None:
        resilience = new_resilience()
        calls = GuardedCalls(resilience)
        flood = [asyncio.create_task(calls.ask(A, "introspect", hang, 5.0)) for _ in range(500)]
        await asyncio.sleep(0.01)
        assert await calls.ask(B, "jwks", fine, 5.0) == "fine"
        results = await asyncio.gather(*flood, return_exceptions=True)
        problems = [result.problem for result in results if isinstance(result, FetchFailed)]
        permits = Config().resilience.external_calls.token_validation
        assert (problems.count("timeout"), problems.count("no_room")) == (permits, 500 - permits)
        assert not any(pool.running or pool.waiting for pool in resilience.state().pools)
        await asyncio.sleep(60.0)

    run_virtual(main())


@pytest.mark.parametrize(
    ("problem", "http_status", "outcome"),
    [
        ("timeout", 0, "failure"),
        ("unreachable", 0, "failure"),
        ("tls", 0, "failure"),
        ("broken", 0, "failure"),
        ("status", 503, "failure"),
        ("status", 404, "success"),
        ("not_json", 0, "success"),
        ("too_large", 0, "success"),
    ],
)
def test_only_faults_on_the_way_and_of_the_server_count(problem: Problem, http_status: int, outcome: str) -> None:
    assert outcome_of_fetch(FetchFailed(problem, "", http_status), 0.0) == outcome


def test_what_is_no_fetch_is_judged_as_everywhere() -> None:
    assert outcome_of_fetch(asyncio.CancelledError(), 9.0) == "ignored"
    assert outcome_of_fetch(ConnectionResetError(), 0.0) == "failure"


def test_the_deadline_is_met_though_the_call_goes_on() -> None:
    async def main() -> None:
        calls = GuardedCalls(new_resilience())
        began_s = CLOCK.monotonic_s()
        with pytest.raises(FetchFailed):
            await calls.ask(A, "introspect", hang, 2.0)
        assert CLOCK.monotonic_s() - began_s <= 2.0 + GRACE_S + 0.001
        await asyncio.sleep(60.0)

    run_virtual(main())
