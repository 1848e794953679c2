"""An identity provider that hangs, drips, floods or breaks off: nobody waits for it longer than its time."""

from __future__ import annotations

import asyncio
import time
import tracemalloc
from collections.abc import Awaitable
from pathlib import Path
from typing import Any

import pytest

from gateway.flows.federated import FallbackResponse, SSORefused, SSOUnavailable
from tests.real.issuer import Mode
from tests.unit.flows.federated.world import SSOWorld, sso_world

TIMEOUT_S = 0.5
SLACK_S = 0.1  # what the machine may take beside
FAULTS: list[Mode] = ["hang", "drip", "drip_head", "huge", "bomb", "reset", "cut", "garbage", "500"]


class ShiftedClock:
    """The machine's clocks, and what a test adds to them."""

    def __init__(self) -> None:
        self.added_s = 0.0

    def monotonic_s(self) -> float:
        return time.monotonic() + self.added_s

    def wall_s(self) -> float:
        return time.time() + self.added_s


async def held_s(work: Awaitable[object]) -> float:
    """Return how long `work` took to say that the provider is not available, or that its answer is none."""
    began_s = time.perf_counter()
    with pytest.raises((SSOUnavailable, SSORefused)):
        await work
    return time.perf_counter() - began_s


async def open_breaker(world: SSOWorld, mode: Mode = "reset") -> None:
    world.idp.mode = mode
    for _ in range(3):
        with pytest.raises(SSOUnavailable):
            await world.start()


@pytest.mark.parametrize("mode", FAULTS)
@pytest.mark.parametrize("path", ["/.well-known/openid-configuration", "/par", "/token", "/userinfo", "/jwks"])
async def test_a_worker_is_held_no_longer_than_the_deadline(tmp_path: Path, path: str, mode: Mode) -> None:
    changes: dict[str, Any] = {"timeout_s": TIMEOUT_S, "link_email": True, "email_domains": ("corp.example",)}
    async with sso_world(tmp_path, **changes) as world:
        if path != "/jwks":
            await world.fetcher.open()
        world.idp.modes[path] = mode
        world.provider._due_s = 0.0
        if path in ("/.well-known/openid-configuration", "/par"):
            assert await held_s(world.start()) <= TIMEOUT_S + SLACK_S
            return
        answer = await world.answer()
        if path == "/jwks":
            world.idp.kid = "unknown"  # so that keys have to be asked for
        tracemalloc.start()
        assert await held_s(world.complete(answer)) <= TIMEOUT_S + SLACK_S
        _, peak_bytes = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert peak_bytes < 8_000_000


@pytest.mark.parametrize("mode", ["hang", "drip", "huge", "reset"])
async def test_after_its_threshold_nobody_waits_at_all(tmp_path: Path, mode: Mode) -> None:
    async with sso_world(tmp_path, timeout_s=TIMEOUT_S) as world:
        await world.start()
        await open_breaker(world, mode)
        asked = world.idp.total
        began_s = time.perf_counter()
        with pytest.raises(SSOUnavailable) as refused:
            await world.start()
        assert time.perf_counter() - began_s < 0.05
        assert world.idp.total == asked
        fallback = refused.value.fallback
        assert fallback.options == ("local_password", "retry_later")
        assert 0 < fallback.retry_after_s <= 72
        assert (world.events[-1].outcome, world.events[-1].reason) == ("refused", "sso_unavailable")


async def test_no_user_closes_the_log_in_of_others_by_what_is_told_of_them(tmp_path: Path) -> None:
    """A profile that is too long is its user's; what is pushed is nobody's."""
    async with sso_world(tmp_path, timeout_s=TIMEOUT_S, link_email=True, email_domains=("corp.example",)) as world:
        world.idp.modes["/userinfo"] = "huge"
        for _ in range(8):
            with pytest.raises(SSORefused):
                await world.complete(await world.answer())
        await world.start()


async def test_a_breaker_that_is_half_open_lets_three_probes_through(tmp_path: Path) -> None:
    clock = ShiftedClock()
    async with sso_world(tmp_path, clock=clock, timeout_s=TIMEOUT_S) as world:
        await world.start()
        await open_breaker(world)
        clock.added_s += 80  # the pause is 60 s, a fifth more at most
        world.idp.mode = "hang"
        asked = world.idp.fetches["/par"]
        came = await asyncio.gather(*(world.start() for _ in range(20)), return_exceptions=True)
        assert all(isinstance(each, SSOUnavailable) for each in came)
        assert 1 <= world.idp.fetches["/par"] - asked <= 3


async def test_it_is_asked_again_once_it_is_well(tmp_path: Path) -> None:
    clock = ShiftedClock()
    async with sso_world(tmp_path, clock=clock, timeout_s=TIMEOUT_S) as world:
        await world.link()
        await world.start()
        await open_breaker(world)
        world.idp.mode = "ok"
        clock.added_s += 80
        for _ in range(3):
            assert (await world.go()).user.id == world.user.id
        assert world.resilience.breakers.of("external_idp", "sso", world.idp.issuer).state == "closed"


async def test_what_people_do_wrong_never_opens_a_breaker(tmp_path: Path) -> None:
    async with sso_world(tmp_path, timeout_s=TIMEOUT_S) as world:
        for forged in ({"code": "made-up"}, {"error": "access_denied"}, {"error": "login_required"}):
            world.idp.forge_answer = dict(forged)
            for _ in range(5):
                with pytest.raises(SSORefused):
                    await world.go()
        world.idp.forge_answer = {}
        world.idp.forge_claims = lambda claims: claims | {"nonce": "another"}
        for _ in range(10):
            with pytest.raises(SSORefused):
                await world.go()
        assert world.resilience.breakers.of("external_idp", "sso", world.idp.issuer).state == "closed"


async def test_what_was_learned_of_it_serves_while_it_cannot_be_asked_again(tmp_path: Path) -> None:
    clock = ShiftedClock()
    async with sso_world(tmp_path, clock=clock, timeout_s=TIMEOUT_S) as world:
        await world.link()
        await world.go()
        clock.added_s += 3601
        world.idp.modes["/.well-known/openid-configuration"] = "reset"
        assert (await world.go()).user.id == world.user.id
        clock.added_s += 86_400
        with pytest.raises(SSOUnavailable):
            await world.start()


async def test_who_waits_for_it_fills_its_pool_alone(tmp_path: Path) -> None:
    async with sso_world(tmp_path, timeout_s=TIMEOUT_S) as world:
        await world.start()
        world.idp.mode = "hang"
        waiting = [asyncio.create_task(world.start()) for _ in range(60)]
        await asyncio.sleep(0.05)
        state = {pool.name: pool for pool in world.resilience.bulkheads.state()}
        assert state["external_idp"].running > 0
        assert state["user_auth"].running == 0
        async with world.resilience.serving("user_auth"):
            pass
        came = await asyncio.gather(*waiting, return_exceptions=True)
        assert all(isinstance(each, SSOUnavailable) for each in came)


def test_what_is_left_is_a_password_or_patience() -> None:
    assert FallbackResponse() == FallbackResponse(("local_password", "retry_later"), 60.0)
