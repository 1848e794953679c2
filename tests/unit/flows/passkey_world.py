"""Everything around passkeys in memory or a file of the test's own, and a user with a session."""

from __future__ import annotations

import secrets
from dataclasses import replace
from pathlib import Path
from typing import Any

from gateway.flows.passkey import PasskeyLogin, PasskeyParty, Passkeys
from gateway.flows.trail import AuditTrail
from gateway.stores import open_directory
from gateway.stores.directory import Passkey, Tenant, User
from gateway.stores.grants_records import KIND, RecordTokenStore
from gateway.stores.records_memory import MemoryRecordStore
from gateway.types import AuditEvent, Session, Subject
from tests.contract.test_directory import Rot
from tests.real.authenticator import SoftAuthenticator
from tests.unit.tokens.fakes import MovedClock

ORIGIN = "https://auth.example"
PARTY = PasskeyParty("auth.example", "Example", (ORIGIN,))
TENANT = "acme"


class Events(list[AuditEvent]):
    """The Auditor: a list."""

    def tell(self, event: AuditEvent) -> None:
        self.append(event)

    def last(self) -> tuple[str, str, str]:
        event = self[-1]
        return event.action, event.outcome, event.reason


class PasskeyWorld:
    """One gateway's passkeys. To be opened in the loop that uses it, and closed there."""

    def __init__(self, folder: Path, **changes: Any) -> None:
        self.clock = MovedClock()
        self.events = Events()
        self.grants = RecordTokenStore(MemoryRecordStore(KIND), self.clock)
        self.directory = open_directory("", folder, Rot())
        self.passkeys = Passkeys(
            replace(PARTY, **changes),
            directory=self.directory,
            grants=self.grants,
            clock=self.clock,
            trail=AuditTrail(self.events, self.clock),
        )
        self.device = SoftAuthenticator(ORIGIN)
        self.user = User(id="usr_" + "a" * 26, tenant=TENANT, user_name="alice")

    async def open(self) -> PasskeyWorld:
        await self.directory.put_tenant(Tenant(TENANT, "Acme"))
        self.user = await self.directory.add_user(self.user)
        return self

    async def close(self) -> None:
        await self.directory.close()
        await self.grants.close()

    def session(self, **changes: Any) -> Session:
        now_s = int(self.clock.wall_s())
        made = Session(
            id_hash=secrets.token_bytes(32),
            subject=Subject(TENANT, self.user.id),
            home_region="local",
            created_s=now_s,
            last_seen_s=now_s,
            idle_timeout_s=0,
            expires_s=now_s + 86_400,
            authenticated_s=now_s,
            csrf_secret=b"c" * 32,
            amr=("pwd",),
        )
        return replace(made, **changes)

    async def register(self, **forged: Any) -> Passkey:
        session = self.session()
        options = await self.passkeys.offer_registration(self.user, session)
        return await self.passkeys.register(self.user, session, self.device.create(options, **forged), "My phone")

    async def log_in(self, browser: str = "b-1", **forged: Any) -> PasskeyLogin:
        options = await self.passkeys.offer_login(TENANT, "b-1")
        return await self.passkeys.log_in(TENANT, browser, self.device.get(options, **forged))
