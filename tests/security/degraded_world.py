"""The flows of log-in over stores in memory that can be slow or gone, with the real resilience, on a virtual loop."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

from gateway.config import ResilienceConfig
from gateway.config.knobs import HealthConfig
from gateway.errors import StoreUnavailable
from gateway.flows.breached import NothingLeaked
from gateway.flows.deferred import DeferredRunner
from gateway.flows.degraded import Offers, as_granted
from gateway.flows.device_keys import DeviceKeys
from gateway.flows.devices import KnownBrowsers, RememberedDevices
from gateway.flows.login import Browser, LoginRules, Logins, Outcome
from gateway.flows.mfa import SecondFactors
from gateway.flows.password import HashParameters, PasswordHasher, PasswordRules
from gateway.flows.pending import Goal, PendingLogins
from gateway.flows.provisional import ProvisionalSessions
from gateway.flows.reckoning import Reckoning
from gateway.flows.revoked_devices import RevokedDevices
from gateway.flows.risk import AddressMap, NoAddressMap
from gateway.flows.sessions import Begun, SessionLimits, SessionNames, Sessions
from gateway.flows.throttling import ThrottleLimits, Throttling
from gateway.flows.trail import NOBODY, AuditTrail, Caller
from gateway.flows.vouchers import Vouchers
from gateway.flows.whereabouts import Whereabouts
from gateway.resilience import Resilience, guarded
from gateway.resilience.health import DEPENDENCIES, DependencyName
from gateway.stores import open_session_store, open_token_store
from gateway.stores.base import RevocationKind
from gateway.stores.deferred import Backlog, Job
from gateway.stores.directory import Device, KeptFactors, PasswordHash, PastLogin, Throttle, User
from gateway.tokens.sealing import Sealer
from gateway.types import AuditEvent, Secret
from tests.real.soft_device import SoftDevice
from tests.virtual_time import LoopClock

State = Literal["up", "slow", "down", "frozen"]
STATES: tuple[State, ...] = ("up", "slow", "down", "frozen")
CLOCK = LoopClock()
TENANT = "acme"
PASSWORD = "correct horse battery staple"
GOAL = Goal(target="/app", tenant=TENANT)
KEY = "k" * 32
ORIGIN = "https://auth.example"
HOLDER = "what the browser is known by"
VOUCHER_S = 7200
SLOW_S = 0.35
LIMIT_S = 1.0  # of one call to a store


class Faults:
    """How each dependency is."""

    def __init__(self) -> None:
        self.states: dict[DependencyName, State] = dict.fromkeys(DEPENDENCIES, "up")

    async def meet(self, name: DependencyName) -> None:
        """Take as long as the dependency takes now, and fail where it fails."""
        state = self.states[name]
        if state == "slow":
            await asyncio.sleep(SLOW_S)
        elif state == "frozen":
            await asyncio.sleep(1e6)
        elif state == "down":
            raise StoreUnavailable(f"`{name}` is down")


def cut(store: Any, name: DependencyName, faults: Faults) -> Any:
    """Give a store that is as ill as a dependency: every call meets that first."""

    def wrap(method: str) -> Callable[..., Any]:
        async def call(self: Any, *args: Any, **kwargs: Any) -> Any:
            await faults.meet(name)
            return await getattr(store, method)(*args, **kwargs)

        return call

    names = [each for each in dir(type(store)) if not each.startswith("_")]
    coroutines = [each for each in names if asyncio.iscoroutinefunction(getattr(type(store), each))]
    return type("Cut", (), {each: wrap(each) for each in coroutines})()


class MemoryUsers:
    """The directory, as far as a log-in by password asks for it."""

    def __init__(self) -> None:
        self.users: dict[str, User] = {}
        self.passwords: dict[str, PasswordHash] = {}
        self.devices: dict[str, Device] = {}
        self.logins: list[PastLogin] = []

    async def find_user(self, tenant: str, name: str) -> User | None:
        return next((each for each in self.users.values() if (each.tenant, each.user_name) == (tenant, name)), None)

    async def get_user(self, tenant: str, user_id: str) -> User | None:
        return self.users.get(user_id)

    async def get_password(self, user_id: str) -> PasswordHash | None:
        return self.passwords.get(user_id)

    async def set_password(self, made: PasswordHash, replaces: str | None = None) -> None:
        self.passwords[made.user_id] = made

    async def get_device(self, tenant: str, device_id: str) -> Device | None:
        return self.devices.get(device_id)

    async def add_device(self, device: Device) -> None:
        self.devices[device.id] = device

    async def remove_device(self, tenant: str, user_id: str, device_id: str) -> bool:
        return self.devices.pop(device_id, None) is not None

    async def note_login(self, login: PastLogin, keep: int) -> bool:
        if login.at_s in {each.at_s for each in self.logins}:
            return False
        self.logins = sorted([*self.logins, login], key=lambda each: -each.at_s)[:keep]
        return True

    async def logins_of(self, user_id: str) -> Sequence[PastLogin]:
        return self.logins

    async def get_throttles(self, keys: Sequence[str]) -> Mapping[str, Throttle]:
        return {}

    async def note_failure(self, key: str, now_s: float, **limits: float) -> Throttle:
        return Throttle(1, now_s, 0.0)

    async def forget_failures(self, key: str) -> None:
        """Nothing is counted here: throttling has tests of its own."""

    async def factors_of(self, user_id: str) -> KeptFactors:
        return KeptFactors((), 0, 0)


class MemoryWork:
    """Deferred work in a dict, by the laws of its protocol as far as they are asked for here."""

    shared = "process"

    def __init__(self) -> None:
        self.jobs: dict[str, Job] = {}
        self.due: dict[str, float] = {}
        self.completed: list[str] = []
        self.dead_keys: list[str] = []

    async def put(self, kind: str, key: str, body: Mapping[str, Any], due_s: float = 0.0) -> bool:
        if key in self.jobs or key in self.completed:
            return False
        self.jobs[key] = Job(key, kind, dict(body), 0, CLOCK.wall_s(), "")
        self.due[key] = due_s
        return True

    async def claim(self, limit: int, hold_s: float) -> Sequence[Job]:
        now_s = CLOCK.wall_s()
        free = [key for key in self.jobs if self.due[key] <= now_s][:limit]
        for key in free:
            self.jobs[key] = replace(self.jobs[key], attempt=self.jobs[key].attempt + 1)
            self.due[key] = now_s + hold_s
        return [self.jobs[key] for key in free]

    async def complete(self, job: Job) -> bool:
        if self.jobs.pop(job.key, None) is None:
            return False
        self.completed.append(job.key)
        return True

    async def retry(self, job: Job, due_s: float, error: str) -> bool:
        self.due[job.key] = due_s
        return True

    async def give_up(self, job: Job, error: str) -> bool:
        del self.jobs[job.key]
        self.dead_keys.append(job.key)
        return True

    async def dead(self) -> Sequence[Any]:
        return ()

    async def revive(self, key: str) -> bool:
        return False

    async def backlog(self) -> Backlog:
        return Backlog(len(self.jobs), len(self.dead_keys), None)

    async def purge(self) -> int:
        return 0

    async def close(self) -> None:
        """Nothing is open."""


class DegradedWorld:
    """To be made, started and stopped on a virtual loop."""

    def __init__(self, *, provisional: bool = False, addresses: AddressMap | None = None) -> None:
        self.faults = Faults()
        self.events: list[AuditEvent] = []
        config = ResilienceConfig(health=HealthConfig(provisional=provisional))
        self.resilience = Resilience(config, clock=CLOCK)
        self.users = MemoryUsers()
        directory = self._guarded(self.users, "database", "directory")
        here = Path()
        sessions = self._guarded(open_session_store("memory:", here, CLOCK), "cache", "sessions")
        grants = self._guarded(open_token_store("memory:", here, CLOCK), "cache", "log-ins")
        trail = AuditTrail(self, CLOCK)
        limits = SessionLimits(idle_s=0, absolute_s=3600)
        self.sessions = Sessions(sessions, SessionNames("local", Secret(KEY)), clock=CLOCK, trail=trail, limits=limits)
        self.offers = Offers(
            lambda: self.resilience.degradation.current,
            sessions_gone=lambda: self.resilience.is_gone("cache", "sessions"),
        )
        self.work, self.idle_work = MemoryWork(), MemoryWork()
        self.deferring = DeferredRunner(self.work, {}, CLOCK, ready=self._is_well)
        self.idle = DeferredRunner(self.idle_work, {}, CLOCK, ready=lambda: self.offers.allows("behaviour"))
        whereabouts = Whereabouts(directory, addresses or NoAddressMap(), KEY.encode(), keep=5)
        rules = LoginRules(tenant=TENANT)
        self.reckoning = Reckoning(
            self.idle,
            sessions=self.sessions,
            whereabouts=whereabouts,
            auditor=self,
            clock=CLOCK,
            refused=rules.risk_refused,
        )
        self.revoked = RevokedDevices(CLOCK)
        self.vouchers = Vouchers(Sealer(Secret(KEY)), CLOCK, self.revoked, lifetime_s=VOUCHER_S)
        self.keys = DeviceKeys(grants, CLOCK)
        self.devices = RememberedDevices(
            directory,
            CLOCK,
            trail,
            lifetime_s=86_400,
            keys=self.keys,
            vouchers=self.vouchers,
            revoke=self._revoke,
        )
        self.provisional = ProvisionalSessions(
            self.deferring,
            sessions=self.sessions,
            directory=directory,
            offers=self.offers,
            auditor=self,
            clock=CLOCK,
            devices=self.devices,
            keys=self.keys,
        )
        self.device = SoftDevice(ORIGIN)
        self.voucher = ""
        self.logins = Logins(
            directory=directory,
            pending=PendingLogins(grants, CLOCK),
            sessions=self.sessions,
            hasher=PasswordHasher(_at_once, HashParameters(memory_kib=64, passes=1, lanes=1)),
            passwords=PasswordRules(NothingLeaked(), 12),
            throttling=Throttling(directory, CLOCK, ThrottleLimits()),
            factors=SecondFactors(directory, CLOCK, trail, issuer="Acme"),
            devices=self.devices,
            browsers=KnownBrowsers(KEY.encode()),
            whereabouts=whereabouts,
            rules=rules,
            clock=CLOCK,
            trail=trail,
            offers=self.offers,
            reckoning=self.reckoning,
        )

    def _guarded(self, store: Any, name: Literal["database", "cache"], part: str) -> Any:
        self.resilience.watch(name, lambda: self.faults.meet(name), part=part)
        return guarded(cut(store, name, self.faults), self.resilience, name, name=part, limit_s=LIMIT_S)

    def _is_well(self) -> bool:
        health = self.resilience.degradation.current.health
        return "down" not in (health.get("database"), health.get("cache"))

    async def __aenter__(self) -> DegradedWorld:
        for name in ("external_idp", "policy_engine"):
            self.resilience.watch(name, lambda name=name: self.faults.meet(name))  # type: ignore[misc]
        self.resilience.start()
        await self.deferring.start()
        await self.idle.start()
        user = User(id="usr_alice", tenant=TENANT, user_name="alice")
        self.users.users[user.id] = user
        assert await self.logins.set_password(user, PASSWORD) is None
        await self.vouch()
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self.deferring.stop()
        await self.idle.stop()
        await self.resilience.stop()

    @property
    def level(self) -> int:
        return self.resilience.degradation.current.level

    def tell(self, event: AuditEvent) -> None:
        self.events.append(as_granted(event, self.resilience.degradation.current))

    def told(self, action: str) -> list[AuditEvent]:
        return [each for each in self.events if each.action == action]

    async def log_in(self, password: str = PASSWORD, name: str = "alice", address: str = "192.0.2.1") -> Outcome:
        async with self.resilience.serving("user_auth"):
            return await self.logins.password(name, password, GOAL, Browser(caller=Caller(address=address)))

    # -- the user's device

    async def _revoke(
        self, kind: RevocationKind, issuer: str, value: str, *, until_s: int, issued_before_s: int = 0
    ) -> None:
        self.revoked.revoke_many([(kind, issuer.encode(), value.encode(), until_s, issued_before_s)])

    async def vouch(self) -> None:
        """Let a device of the user's be bound by its key, and vouched for, as a log-in does that remembers it."""
        key = json.dumps(self.device.jwk, separators=(",", ":"))
        now_s = CLOCK.wall_s()
        device = Device(
            id="dev_" + "a" * 26,
            tenant=TENANT,
            user_id="usr_alice",
            secret_hash=bytes(32),
            public_key=key,
            created_s=now_s,
            seen_s=now_s,
            expires_s=now_s + 86_400,
        )
        await self.users.add_device(device)
        self.voucher = self.vouchers.issue(device)

    def browser(self, **changes: Any) -> Browser:
        usual: dict[str, Any] = {"voucher": self.voucher, "origin": ORIGIN, "caller": Caller(address="192.0.2.1")}
        return Browser(**{**usual, **changes})

    async def proof(self, device: SoftDevice | None = None, **forged: Any) -> str:
        """Ask for a challenge, and answer it."""
        offer = await self.provisional.offer_device(self.browser(), HOLDER)
        return (device or self.device).prove("carry", offer.device_id, offer.challenge, **forged)

    async def carry(self, proof: str = "", holder: str = HOLDER, **browser: Any) -> Begun:
        """Go on by the device, where that is offered."""
        made = proof or await self.proof()
        async with self.resilience.serving("user_auth"):
            return await self.provisional.begin_by_device(self.browser(**browser), made, holder)

    async def forget_device(self) -> bool:
        async with self.resilience.serving("user_auth"):
            return await self.devices.forget(TENANT, "usr_alice", "dev_" + "a" * 26, NOBODY)

    def set(self, **states: State) -> None:
        self.faults.states.update(states)  # type: ignore[arg-type]


async def _at_once(work: Callable[[], Any]) -> Any:
    return work()
