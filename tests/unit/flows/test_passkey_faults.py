"""Whatever fails in the stores, nobody is let in by a passkey that was not verified."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.errors import StoreUnavailable
from gateway.flows.passkey import PasskeyRefused
from gateway.stores.directory import Directory
from gateway.stores.grants import TokenStore
from tests.real.authenticator import UP, UV
from tests.unit.flows.passkey_world import TENANT, PasskeyWorld

CALLS = ("get_passkey", "get_user", "use_passkey", "take", "keep", "passkeys_of")
FORGERIES: list[dict[str, Any]] = [
    {},
    {"signature": b"\x30\x06\x02\x01\x01\x02\x01\x01"},
    {"origin": "https://evil.example"},
    {"rp_id": "evil.example"},
    {"flags": UP},
    {"flags": UV},
    {"user_handle": b"usr_somebody_else"},
    {"sign_count": 0},
]


class Failing:
    """A store of which some calls fail: before they do anything, or after."""

    def __init__(self, store: object, failing: dict[str, bool]) -> None:
        self._store = store
        self._failing = failing

    def __getattr__(self, name: str) -> Any:
        call = getattr(self._store, name)

        async def asked(*values: Any) -> Any:
            if name in self._failing and not self._failing[name]:
                raise StoreUnavailable("away")
            done = await call(*values)
            if name in self._failing:
                raise StoreUnavailable("the answer was lost")
            return done

        return asked


@pytest.fixture(scope="module")
def laid(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[asyncio.Runner, PasskeyWorld]]:
    with asyncio.Runner() as runner:
        world = runner.run(PasskeyWorld(tmp_path_factory.mktemp("world")).open())
        runner.run(world.register())
        yield runner, world
        runner.run(world.close())


@given(
    failing=st.dictionaries(st.sampled_from(CALLS), st.booleans()),
    forged=st.sampled_from(FORGERIES),
    is_second=st.booleans(),
)
def test_no_fault_lets_anybody_in(
    laid: tuple[asyncio.Runner, PasskeyWorld], failing: dict[str, bool], forged: dict[str, Any], is_second: bool
) -> None:
    runner, world = laid
    passkeys = world.passkeys

    async def run() -> None:
        if is_second:
            options = await passkeys.offer_second(world.user, b"login")
            assert options is not None
        else:
            options = await passkeys.offer_login(TENANT, "b")
        answer = world.device.get(options, **forged)
        passkeys._directory = cast(Directory, Failing(world.directory, failing))
        passkeys._grants = cast(TokenStore, Failing(world.grants, failing))
        try:
            if is_second:
                login = await passkeys.verify_second(world.user, b"login", answer)
            else:
                login = await passkeys.log_in(TENANT, "b", answer)
            assert forged == {} or (is_second and forged == {"flags": UP})
            assert not failing.keys() & {"get_passkey", "use_passkey", "take"}
            assert login.user.id == world.user.id
        except (PasskeyRefused, StoreUnavailable):
            assert forged or failing
        finally:
            passkeys._directory, passkeys._grants = world.directory, world.grants

    runner.run(run())
