"""Everything that a login needs, in memory and a file, with a clock that tests move and work that they count."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

from gateway.errors import StoreUnavailable
from gateway.flows.account import Accounts
from gateway.flows.breached import NothingLeaked
from gateway.flows.device_keys import DeviceKeys
from gateway.flows.devices import KnownBrowsers, RememberedDevices
from gateway.flows.login import Browser, LoginRules, Logins, Outcome
from gateway.flows.mfa import SecondFactors
from gateway.flows.password import HashParameters, PasswordHasher, PasswordRules
from gateway.flows.pending import Goal, PendingLogins
from gateway.flows.revoked_devices import RevokedDevices
from gateway.flows.risk import AddressMap, NoAddressMap
from gateway.flows.sessions import SessionNames, Sessions
from gateway.flows.throttling import ThrottleLimits, Throttling
from gateway.flows.trail import AuditTrail, Caller
from gateway.flows.vouchers import Vouchers
from gateway.flows.whereabouts import Whereabouts
from gateway.stores import open_directory, open_session_store, open_token_store
from gateway.stores.base import RevocationKind
from gateway.stores.directory import Tenant, User
from gateway.tokens.sealing import Sealer
from gateway.types import AuditEvent, Secret, Subject
from tests.unit.tokens.fakes import MovedClock

TENANT = "acme"
PASSWORD = "correct horse battery staple"
CHEAP = HashParameters(memory_kib=64, passes=1, lanes=1)
GOAL = Goal(target="/app", tenant=TENANT)
KEY = bytes(range(32))
VOUCHER_S = 7200


class Counted:
    """Another object whose calls are counted by their names."""

    def __init__(self, counted: object) -> None:
        self._counted = counted
        self.calls: Counter[str] = Counter()
        self._left = -2  # calls until one fails; below -1: none does

    def fail_at(self, turn: int) -> None:
        """Have the store be away for one call, after `turn` more."""
        self._left = turn

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._counted, name)
        if not callable(found):
            return found

        def call(*args: Any, **kwargs: Any) -> Any:
            self.calls[name] += 1
            self._left -= 1
            if self._left == -1:
                raise StoreUnavailable("away")
            return found(*args, **kwargs)

        return call


class World:
    """The flows of log-in over real stores."""

    def __init__(
        self,
        folder: Path,
        *,
        rules: LoginRules | None = None,
        parameters: HashParameters = CHEAP,
        addresses: AddressMap | None = None,
        limits: ThrottleLimits | None = None,
    ) -> None:
        self.clock = MovedClock()
        self.events: list[AuditEvent] = []
        self.counts: Counter[tuple[str, str]] = Counter()
        trail = AuditTrail(self, self.clock)
        self.directory: Any = Counted(open_directory("", folder, Sealer(Secret(KEY))))
        self.grants: Any = Counted(open_token_store("memory:", folder, self.clock))
        self.sessions = Sessions(
            open_session_store("memory:", folder, self.clock),
            SessionNames("local", Secret(KEY)),
            clock=self.clock,
            trail=trail,
        )
        self.hasher = PasswordHasher(_at_once, parameters)
        self.factors = SecondFactors(self.directory, self.clock, trail, issuer="Acme")
        self.revoked = RevokedDevices(self.clock)
        self.keys = DeviceKeys(self.grants, self.clock)
        self.vouchers = Vouchers(Sealer(Secret(KEY)), self.clock, self.revoked, lifetime_s=VOUCHER_S)
        self.devices = RememberedDevices(
            self.directory,
            self.clock,
            trail,
            lifetime_s=86_400,
            keys=self.keys,
            vouchers=self.vouchers,
            revoke=self.revoke,
        )
        self.pending = PendingLogins(self.grants, self.clock)
        self.throttling = Throttling(self.directory, self.clock, limits or ThrottleLimits(address_from=100))
        self.logins = Logins(
            directory=self.directory,
            pending=self.pending,
            sessions=self.sessions,
            hasher=self.hasher,
            passwords=PasswordRules(NothingLeaked(), 12),
            throttling=self.throttling,
            factors=self.factors,
            devices=self.devices,
            browsers=KnownBrowsers(KEY),
            whereabouts=Whereabouts(self.directory, addresses or NoAddressMap(), KEY, keep=5),
            rules=rules or LoginRules(tenant=TENANT),
            clock=self.clock,
            trail=trail,
            count=lambda method, outcome: self.counts.update([(method, outcome)]),
        )
        self.accounts = Accounts(
            directory=self.directory,
            sessions=self.sessions,
            logins=self.logins,
            clock=self.clock,
            trail=trail,
        )

    def tell(self, event: AuditEvent) -> None:
        self.events.append(event)

    async def revoke(
        self, kind: RevocationKind, issuer: str, value: str, *, until_s: int, issued_before_s: int = 0
    ) -> None:
        self.revoked.revoke_many([(kind, issuer.encode(), value.encode(), until_s, issued_before_s)])

    async def add(self, name: str, password: str | None = PASSWORD, **fields: Any) -> User:
        """Add a user, with a password where one is given."""
        if await self.directory.get_tenant(TENANT) is None:
            await self.directory.put_tenant(Tenant(TENANT, TENANT))
        user: User = await self.directory.add_user(User(id=f"usr_{name}", tenant=TENANT, user_name=name, **fields))
        if password is not None:
            assert await self.logins.set_password(user, password) is None
        return user

    async def log_in(self, name: str, password: str = PASSWORD, **browser: Any) -> Outcome:
        return await self.logins.password(name, password, GOAL, browser_of(**browser))

    def told(self, action: str) -> list[tuple[str, str]]:
        """Give outcome and reason of each event of an action."""
        return [(event.outcome, event.reason) for event in self.events if event.action == action]

    async def close(self) -> None:
        for store in (self.directory, self.grants):
            store.fail_at(-2)
        await self.directory.close()
        await self.grants.close()


def browser_of(*, address: str = "192.0.2.1", **fields: Any) -> Browser:
    """Give a browser at an address."""
    return Browser(caller=Caller(address=address), **fields)


def subject_of(user: User) -> Subject:
    return Subject(user.tenant, user.id)


async def _at_once(work: Callable[[], Any]) -> Any:
    return work()
