"""Who was told of a session hears of its end, once, in words that pass for nothing else."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import jwt
import pytest

from gateway.flows.deferred import GaveUp
from gateway.flows.oauth.logout import EVENT, JOB, TOKEN_S, BackchannelLogout
from gateway.flows.oauth.minting import public_sid
from gateway.flows.oauth.parties import Client, ConfiguredClients, Parties
from gateway.stores import open_token_store
from gateway.stores.deferred import Job
from gateway.tokens.issuer_keys import IssuerKeys, KeySchedule
from gateway.tokens.sealing import Sealer
from gateway.types import Secret, Session, Subject
from tests.unit.tokens.fakes import MovedClock

ALICE = Subject("", "usr_alice")
ISSUER = "https://auth.test"


def client(name: str, **changes: Any) -> Client:
    usual: dict[str, Any] = {"backchannel_logout_uri": f"https://{name}.test/logout", **changes}
    return Client(
        id=name,
        name=name,
        auth="none",
        grant_types=frozenset({"authorization_code"}),
        scopes=frozenset({"openid"}),
        access_token_s=60,
        refresh_idle_s=60,
        refresh_max_s=60,
        **usual,
    )


class World:
    """Clients, a session, and jobs that are only noted."""

    def __init__(self, folder: Path) -> None:
        self.clock = MovedClock()
        self.store = open_token_store("memory:", folder, self.clock)
        self.put: dict[str, Mapping[str, object]] = {}
        self.sent: list[tuple[str, str]] = []
        self.clients = [client("shop"), client("blog"), client("deaf", backchannel_logout_uri="")]
        schedule = KeySchedule("ES256", every_s=3600, announce_s=60, overlap_s=3600)
        self.keys = IssuerKeys(folder / "keys", Sealer(Secret(bytes(32))), schedule, self.clock)
        self.logout = BackchannelLogout(
            self.store,
            Parties([ConfiguredClients(self.clients)], [], default_audience=ISSUER),
            self.keys,
            put=self._put,
            send=self._send,
            clock=self.clock,
            issuer=ISSUER,
            session_s=3600,
        )
        now_s = int(self.clock.wall_s())
        self.session = Session(
            id_hash=bytes(32),
            subject=ALICE,
            home_region="local",
            created_s=now_s,
            last_seen_s=now_s,
            idle_timeout_s=0,
            expires_s=now_s + 3600,
            authenticated_s=now_s,
            csrf_secret=b"",
        )

    async def _put(self, kind: str, key: str, body: Mapping[str, object]) -> None:
        assert kind == JOB
        self.put.setdefault(key, body)

    async def _send(self, url: str, form: Mapping[str, str]) -> None:
        self.sent.append((url, form["logout_token"]))

    def job(self) -> Job:
        ((key, body),) = self.put.items()
        return Job(key=key, kind=JOB, body=body, attempt=1, put_s=0.0, hold="")


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)


async def test_each_client_that_knows_the_session_is_told_once(world: World) -> None:
    await asyncio.gather(
        *(world.logout.note(ALICE, world.session.id_hash, each) for each in [*world.clients, *world.clients])
    )
    assert await world.logout.ended(world.session) == 2
    await world.logout.ended(world.session)
    assert {body["client_id"] for body in world.put.values()} == {"shop", "blog"}
    assert len(world.put) == 2


async def test_the_session_is_the_same_under_another_id(world: World) -> None:
    await world.logout.note(ALICE, world.session.id_hash, world.clients[0])
    stepped_up = replace(world.session, id_hash=b"x" * 32, attributes={"origin": world.session.id_hash.hex()})
    assert await world.logout.ended(stepped_up) == 1


async def test_nobody_hears_of_a_session_that_nobody_was_told_of(world: World) -> None:
    await world.logout.note(ALICE, b"y" * 32, world.clients[0])
    await world.logout.note(ALICE, b"", world.clients[0])
    assert await world.logout.ended(world.session) == 0
    assert world.put == {}


async def test_the_token_says_whose_session_is_over_and_passes_for_no_other(world: World) -> None:
    await world.logout.note(ALICE, world.session.id_hash, world.clients[0])
    await world.logout.ended(world.session)
    await world.logout.deliver(world.job())
    ((url, token),) = world.sent
    assert url == "https://shop.test/logout"
    assert jwt.get_unverified_header(token)["typ"] == "logout+jwt"
    claims = jwt.decode(token, options={"verify_signature": False})
    now_s = int(world.clock.wall_s())
    assert claims.pop("jti")
    assert claims == {
        "iss": ISSUER,
        "sub": ALICE.id,
        "aud": "shop",
        "iat": now_s,
        "exp": now_s + TOKEN_S,
        "events": {EVENT: {}},
        "sid": public_sid(world.session.id_hash),
    }


async def test_a_token_is_new_each_time_it_is_sent(world: World) -> None:
    await world.logout.note(ALICE, world.session.id_hash, world.clients[0])
    await world.logout.ended(world.session)
    await world.logout.deliver(world.job())
    world.clock.move(600)
    await world.logout.deliver(world.job())
    first, second = (jwt.decode(token, options={"verify_signature": False}) for _, token in world.sent)
    assert second["exp"] - first["exp"] == 600
    assert first["jti"] != second["jti"]


@pytest.mark.parametrize("name", ["gone", "deaf"])
async def test_a_client_that_is_gone_is_given_up(world: World, name: str) -> None:
    job = Job(key="x", kind=JOB, body={"client_id": name, "subject": "s", "sid": "x"}, attempt=1, put_s=0.0, hold="")
    with pytest.raises(GaveUp):
        await world.logout.deliver(job)
