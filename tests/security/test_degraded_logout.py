"""A provider's logout that comes while a store is away is promised, and done when that is back."""

from __future__ import annotations

from pathlib import Path

import pytest

from gateway.errors import StoreUnavailable
from gateway.flows.deferred import DeferredRunner
from gateway.flows.federated import Federation
from gateway.flows.federated.accounts import Accounts
from gateway.stores import open_deferred_work
from tests.unit.flows.federated.world import ORIGIN, SSOWorld, sso_world


async def test_a_logout_is_promised_while_sessions_are_away_and_done_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with sso_world(tmp_path) as world:
        await world.link()
        work = open_deferred_work("", tmp_path, world.clock)
        runner = DeferredRunner(work, {}, world.clock)
        federation = _with(world, runner)
        begun = await world.begin_session(await world.go())
        token = world.idp.logout_token()

        async def away(*_: object) -> None:
            raise StoreUnavailable("sessions are away")

        with monkeypatch.context() as patch:
            patch.setattr(world.session_store, "list_of", away)
            with pytest.raises(StoreUnavailable):  # nobody keeps the promise: the provider has to come again
                await world.federation.back_channel_logout("corp", world.idp.logout_token())
            assert await federation.back_channel_logout("corp", token) == 0
            assert (world.events[-1].outcome, world.events[-1].reason) == ("degraded", "deferred")
        assert await world.sessions.find(begun.value) is not None
        await runner.run_once()
        assert await world.sessions.find(begun.value) is None
        assert (world.events[-1].action, world.events[-1].details["sessions"]) == ("sso.logout", 1)
        assert await runner.run_once() == 0
        assert runner.done == 1
        await work.close()


def _with(world: SSOWorld, runner: DeferredRunner) -> Federation:
    return Federation(
        [world.provider],
        origin=ORIGIN,
        accounts=Accounts(world.directory, world.clock),
        sessions=world.sessions,
        grants=world.grants,
        resilience=world.resilience,
        clock=world.clock,
        trail=world.trail,
        session_s=43_200,
        deferring=runner,
    )
