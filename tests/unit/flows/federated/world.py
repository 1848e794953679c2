"""A gateway's log-in at one real identity provider on loopback, and a browser that goes there and back."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import msgspec

from gateway.config import IdpBreakerConfig, ResilienceConfig, SSOConfig
from gateway.flows.federated import Accounts, Federation, Provider, SSOLogin, SSOStart
from gateway.flows.sessions import Begun, Proof, SessionNames, Sessions
from gateway.flows.trail import AuditTrail
from gateway.resilience import Resilience
from gateway.stores import open_directory, open_session_store
from gateway.stores.directory import Identity, Tenant, User
from gateway.stores.fetch import Fetcher
from gateway.stores.grants_records import KIND, RecordTokenStore
from gateway.stores.records_memory import MemoryRecordStore
from gateway.types import Clock, Secret, Session, Subject, SystemClock
from tests.contract.test_directory import Rot
from tests.real.identity_provider import CLIENT_ID, CLIENT_SECRET, RealIdentityProvider
from tests.unit.flows.passkey_world import Events

ORIGIN = "https://auth.example"
TENANT = "acme"
BROWSER = "the-secret-of-a-browser"

Pairs = list[tuple[str, str]]


class SSOWorld:
    """One gateway with one provider. `go` is the whole way there and back."""

    def __init__(self, folder: Path, idp: RealIdentityProvider, clock: Clock, config: SSOConfig) -> None:
        self.idp = idp
        self.clock = clock
        self.events = Events()
        self.trail = AuditTrail(self.events, clock)
        breaker = IdpBreakerConfig(calls_min=3, failure_threshold=3)
        self.resilience = Resilience(ResilienceConfig(idp_breaker=breaker), clock=clock)
        self.grants = RecordTokenStore(MemoryRecordStore(KIND), clock)
        self.directory = open_directory("", folder, Rot())
        self.fetcher = Fetcher()
        names = SessionNames("local", Secret(b"k" * 32))
        self.session_store = open_session_store("memory:", folder, clock)
        self.sessions = Sessions(self.session_store, names, clock=clock, trail=self.trail)
        (folder / "client").write_text(CLIENT_SECRET)
        self.provider = Provider(config, fetcher=self.fetcher, resilience=self.resilience, clock=clock, base_dir=folder)
        self.federation = Federation(
            [self.provider],
            origin=ORIGIN,
            accounts=Accounts(self.directory, clock),
            sessions=self.sessions,
            grants=self.grants,
            resilience=self.resilience,
            clock=clock,
            trail=self.trail,
            session_s=43_200,
        )
        self.user = User(id="usr_" + "a" * 26, tenant=TENANT, user_name="alice", emails=("alice@corp.example",))

    async def start(self, **options: Any) -> str:
        return await self.federation.begin("corp", SSOStart(**{"browser": BROWSER, "return_to": "/app"} | options))

    async def answer(self, **options: Any) -> Pairs:
        """Go there, and return what the browser brings back."""
        back = self.idp.authorize(await self.start(**options))
        assert back.startswith(f"{ORIGIN}/login/sso/corp/callback?")
        return parse_qsl(urlsplit(back).query)

    async def complete(
        self, answer: Pairs, browser: str = BROWSER, provider: str = "corp", current: Subject | None = None
    ) -> SSOLogin:
        return await self.federation.complete(provider, answer, browser, current=current)

    async def go(self, **options: Any) -> SSOLogin:
        links: Session | None = options.get("links")
        return await self.complete(await self.answer(**options), current=None if links is None else links.subject)

    async def link(self) -> None:
        await self.directory.link(
            Identity(
                tenant=TENANT, issuer=self.idp.issuer, subject=self.idp.user["sub"], user_id=self.user.id, linked_s=0.0
            )
        )

    async def begin_session(self, login: SSOLogin) -> Begun:
        return await self.sessions.begin(
            Subject(TENANT, login.user.id), Proof(amr=login.methods), attributes=login.attributes
        )


@asynccontextmanager
async def sso_world(
    folder: Path, *, idp: RealIdentityProvider | None = None, clock: Clock | None = None, **changes: Any
) -> AsyncIterator[SSOWorld]:
    """Start a provider and a gateway that knows it; the user `alice` is there, and linked to nothing."""
    used = clock or SystemClock()
    async with idp or RealIdentityProvider() as running:
        running.now_s = used.wall_s
        config = SSOConfig(
            id="corp",
            issuer=running.issuer,
            client_id=CLIENT_ID,
            client_secret="file:client",
            tenant=TENANT,
            timeout_s=1.0,
        )
        world = SSOWorld(folder, running, used, msgspec.structs.replace(config, **changes))
        await world.directory.put_tenant(Tenant(TENANT, "Acme"))
        world.user = await world.directory.add_user(world.user)
        await world.provider.start()
        try:
            yield world
        finally:
            await world.provider.stop()
            await world.fetcher.aclose()
            await world.directory.close()
            await world.session_store.close()
            await world.resilience.stop()
