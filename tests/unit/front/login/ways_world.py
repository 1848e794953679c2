"""The pages of log-in with passkeys and one identity provider, in this process, and a browser's client for them."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import httpx2
from starlette.applications import Starlette

from gateway.config import (
    Config,
    DirectoryConfig,
    LoginConfig,
    PasskeysConfig,
    ResilienceConfig,
    SessionsConfig,
    SSOConfig,
)
from gateway.errors import GatewayError
from gateway.flows.revoked_devices import RevokedDevices
from gateway.flows.sessions import Proof, SessionNames, Sessions
from gateway.flows.trail import AuditTrail
from gateway.front.login.part import LoginNeighbours, LoginWish, OpenedLogin
from gateway.front.login.ways import OpenedWays, WaysWish, offered_of
from gateway.front.refusals import gateway_error
from gateway.resilience import Resilience
from gateway.stores import open_directory, open_session_store
from gateway.stores.base import RevocationKind
from gateway.stores.directory import Identity, Tenant, User
from gateway.types import Secret, Subject, SystemClock
from tests.contract.test_directory import Rot
from tests.real.authenticator import SoftAuthenticator
from tests.real.identity_provider import CLIENT_ID, CLIENT_SECRET, RealIdentityProvider
from tests.unit.flows.passkey_world import Events

HOST = "auth.example"
ORIGIN = f"https://{HOST}"
COOKIE = "__Host-portcullis"
TENANT = "default"
CSRF = re.compile(r'name="csrf" value="([^"]+)"')


class WaysWorld:
    """One worker's pages, and a browser at them."""

    def __init__(self, folder: Path, idp: RealIdentityProvider) -> None:
        (folder / "client").write_text(CLIENT_SECRET)
        self.idp = idp
        self.clock = SystemClock()
        self.events = Events()
        self.resilience = Resilience(ResilienceConfig(), clock=self.clock)
        self.revoked = RevokedDevices(self.clock)
        self.directory = open_directory("", folder, Rot())
        self.session_store = open_session_store("memory:", folder, self.clock)
        names = SessionNames("local", Secret(b"k" * 32))
        trail = AuditTrail(self.events, self.clock)
        self.sessions = Sessions(self.session_store, names, clock=self.clock, trail=trail)
        provider = SSOConfig(
            id="corp", name="Corp", issuer=idp.issuer, client_id=CLIENT_ID, client_secret="file:client", timeout_s=1.0
        )
        self.config = Config(
            sessions=SessionsConfig(url="memory:"),
            directory=DirectoryConfig(url="embedded"),
            login=LoginConfig(enabled=True, tenant=TENANT, store_url="memory:", url=ORIGIN),
            passkeys=PasskeysConfig(rp_id=HOST),
            sso=(provider,),
        )
        offered = offered_of(self.config)
        around = LoginNeighbours(
            resilience=self.resilience,
            clock=self.clock,
            auditor=self.events,
            sessions=self.sessions,
            directory=self.directory,
            count=lambda method, outcome: None,
            revoke=self._revoke,
            revoked=self.revoked,
            ways=offered.first,
            second_ways=offered.second,
            account_ways=offered.account,
        )
        wish = LoginWish(
            config=self.config.login,
            sessions=self.config.sessions,
            directory=self.config.directory,
            hosts=("app.example",),
            parameter="rd",
            trusted_proxies=(),
            body_timeout_s=5.0,
            around=around,
        )
        self.login = OpenedLogin(wish, base_dir=folder, run_dir=folder)
        self.ways = OpenedWays(
            WaysWish(
                passkeys=self.config.passkeys,
                sso=self.config.sso,
                login_config=self.config.login,
                origin=ORIGIN,
                session_s=43_200,
                body_timeout_s=5.0,
                login=self.login,
                around=around,
            ),
            base_dir=folder,
        )
        routes = [*self.login.routes(), *self.ways.routes()]
        app = Starlette(routes=routes, exception_handlers={GatewayError: gateway_error})
        self.http = httpx2.AsyncClient(transport=httpx2.ASGITransport(app=app), base_url=ORIGIN)
        self.device = SoftAuthenticator(ORIGIN)
        self.user = User(id="usr_" + "a" * 26, tenant=TENANT, user_name="alice", emails=("alice@corp.example",))

    async def open(self) -> None:
        await self.directory.put_tenant(Tenant(TENANT, "Default"))
        self.user = await self.directory.add_user(self.user)
        await self.directory.link(
            Identity(
                tenant=TENANT, issuer=self.idp.issuer, subject=self.idp.user["sub"], user_id=self.user.id, linked_s=0
            )
        )
        await self.login.start()
        await self.ways.start()

    async def close(self) -> None:
        await self.http.aclose()
        await self.ways.stop()
        await self.login.stop()
        await self.directory.close()
        await self.session_store.close()
        await self.resilience.stop()

    async def _revoke(
        self, kind: RevocationKind, issuer: str, value: str, *, until_s: int, issued_before_s: int = 0
    ) -> None:
        self.revoked.revoke_many([(kind, issuer.encode(), value.encode(), until_s, issued_before_s)])

    # -- the browser

    async def begin_session(self, *, age_s: int = 0) -> None:
        """Have the browser be logged in, by a password that was typed so long ago."""
        begun = await self.sessions.begin(Subject(TENANT, self.user.id), Proof(amr=("pwd",), acr="1fa"))
        self.http.cookies.set(COOKIE, begun.value, domain=HOST, path="/")

    async def csrf(self, path: str = "/login") -> str:
        """Open a page, and return what its forms are tied to the browser by."""
        page = await self.http.get(path)
        found = CSRF.search(page.text)
        assert found is not None, page.text
        return found[1]

    async def post(self, path: str, **body: Any) -> httpx2.Response:
        return await self.http.post(path, json=body)

    async def add_passkey(self) -> None:
        csrf = await self.csrf("/account/passkeys")
        options = (await self.post("/account/passkeys/add/options", csrf=csrf)).json()
        answer = self.device.create(options)
        added = await self.post("/account/passkeys/add", csrf=csrf, name="My phone", answer=answer)
        assert added.json() == {"location": "/account/passkeys"}, added.text

    async def there(self, address: str = "/login/sso/corp") -> str:
        """Go to the provider, and return where it sends the browser."""
        sent = await self.http.get(address)
        assert sent.status_code == 303, sent.text
        return self.idp.authorize(sent.headers["location"])


def query_of(address: str) -> dict[str, str]:
    return dict(parse_qsl(urlsplit(address).query))


@asynccontextmanager
async def ways_world(folder: Path) -> AsyncIterator[WaysWorld]:
    async with RealIdentityProvider() as idp:
        world = WaysWorld(folder, idp)
        await world.open()
        try:
            yield world
        finally:
            await world.close()
