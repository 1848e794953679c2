"""A request at a door is asked about once, at the address that its client sees; whatever goes wrong refuses it."""

from __future__ import annotations

import base64
import hashlib
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from gateway._native.front import PROVEN, Verdict
from gateway.errors import StoreUnavailable
from gateway.front.proofs import DoorProofs, url_of
from gateway.tokens.own import OwnTokens
from gateway.tokens.signing import new_key
from tests.unit.flows.oauth.test_dpop import use
from tests.unit.flows.oauth.world import ISSUER, SECRET, World

KEY = new_key("ES256")


def verdict(**changes: Any) -> Verdict:
    plain = {
        "door": "proxy",
        "method": "GET",
        "scheme": "http",
        "path": "/orders/7",
        "peer_trusted": True,
        "token": b"",
    }
    return cast(Verdict, SimpleNamespace(**{**plain, **changes}))


def scope(*headers: tuple[str, str]) -> dict[str, Any]:
    return {"headers": [(name.encode(), value.encode()) for name, value in headers]}


HOST = ("host", "app.test:8080")
FORWARDED = (("x-forwarded-host", "shop.test"), ("x-forwarded-proto", "https"))


@pytest.mark.parametrize(
    ("changes", "headers", "url"),
    [
        ({}, (HOST,), "http://app.test:8080/orders/7"),
        ({}, (HOST, *FORWARDED), "https://shop.test/orders/7"),
        ({"peer_trusted": False}, (HOST, *FORWARDED), "http://app.test:8080/orders/7"),
        ({}, (HOST, FORWARDED[0], *FORWARDED), "https://app.test:8080/orders/7"),
        ({"door": "forward", "scheme": "https"}, (HOST, *FORWARDED), "https://shop.test/orders/7"),
        ({"door": "envoy", "scheme": "https"}, (HOST, *FORWARDED), "https://app.test:8080/orders/7"),
        ({"door": "nginx"}, (HOST, ("x-original-url", "https://shop.test/a?b")), "https://shop.test/a?b"),
        ({"door": "nginx"}, (HOST,), ""),
        ({"scheme": "wss"}, (HOST,), "https://app.test:8080/orders/7"),
        ({"scheme": "ws"}, (HOST,), "http://app.test:8080/orders/7"),
        ({"path": "/a b/ü"}, (HOST,), "http://app.test:8080/a%20b/%C3%BC"),
        ({}, (), "http:///orders/7"),
    ],
)
def test_the_address_is_the_clients(changes: dict[str, Any], headers: tuple[tuple[str, str], ...], url: str) -> None:
    assert url_of(verdict(**changes), scope(*headers)) == url


class Door:
    """A door that judges the tokens of a world."""

    def __init__(self, folder: Path) -> None:
        self.world = World(folder, dpop_nonce=False)
        self.tokens = OwnTokens(ISSUER, self.world.keys, self.world.clock, audiences=(ISSUER,))
        self.proofs = DoorProofs(self.tokens, self.world.service.resource_dpop, self.world.resilience)

    async def token(self, **form: str) -> str:
        asked = {"grant_type": "client_credentials", "client_id": "job", "client_secret": SECRET, **form}
        return str((await self.world.token(asked, key=KEY)).json()["access_token"])

    async def ask(self, token: str, **claims: Any) -> tuple[str | None, bool]:
        hashed = base64.urlsafe_b64encode(hashlib.sha256(token.encode()).digest()).rstrip(b"=").decode()
        made = self.world.proof(KEY, url="http://app.test/orders/7", method="GET", **{"ath": hashed, **claims})
        asked = scope(("host", "app.test"), ("dpop", made))
        refusal = await self.proofs.ask(verdict(token=token.encode()), asked)
        return refusal, PROVEN in asked


async def test_whose_proof_is_good_goes_on_as_itself(tmp_path: Path) -> None:
    door = Door(tmp_path)
    token = await door.token()
    assert await door.ask(token, jti="one") == (None, True)
    assert await door.ask(token, jti="one") == ("sender_constrained", False)
    assert await door.ask(token, htm="POST") == ("sender_constrained", False)


async def test_a_token_that_does_not_hold_is_refused_for_its_own_reason(tmp_path: Path) -> None:
    door = Door(tmp_path)
    token = await door.token()
    assert await door.ask("nonsense") == ("malformed", False)
    elsewhere = await door.token(resource="https://other.example")
    assert await door.ask(elsewhere) == ("audience", False)
    door.tokens.is_trusted = lambda: False
    assert await door.ask(token) == ("keys_unavailable", False)
    door.tokens.is_trusted = lambda: True
    door.world.clock.move(300)
    assert await door.ask(token) == ("expired", False)


async def test_a_bearer_token_does_not_become_another_by_a_proof(tmp_path: Path) -> None:
    door = Door(tmp_path)
    form = {"grant_type": "client_credentials", "client_id": "job", "client_secret": SECRET}
    bearer = str((await door.world.token(form)).json()["access_token"])
    assert await door.ask(bearer) == ("sender_constrained", False)


async def test_a_store_that_is_away_lets_nobody_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    door = Door(tmp_path)
    token = await door.token()

    async def away(*_: object) -> None:
        raise StoreUnavailable("gone")

    monkeypatch.setattr(door.world.store, "keep", away)
    assert await door.ask(token) == ("introspection_unavailable", False)


async def test_the_same_proof_counts_at_no_other_endpoint(tmp_path: Path) -> None:
    door = Door(tmp_path)
    members = (await door.world.redeem(await door.world.code(), key=KEY)).json()
    assert await use(door.world, members["access_token"], KEY, jti="one") == 200
    assert await use(door.world, members["access_token"], KEY, jti="one") == 401
    assert await door.ask(members["access_token"], jti="one") == ("sender_constrained", False)
