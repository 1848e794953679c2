"""Log-in as a part of a worker: opened for a config, kept over reloads that do not change it."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from starlette.middleware import Middleware
from starlette.routing import Route

from gateway.config import DirectoryConfig, LoginConfig, SessionsConfig, resolve_store_url
from gateway.flows.account import Accounts
from gateway.flows.breached import LeakedPasswords, LeakFilter, NothingLeaked
from gateway.flows.deferred import DeferredRunner
from gateway.flows.degraded import Offers
from gateway.flows.device_keys import DeviceKeys
from gateway.flows.devices import KnownBrowsers, RememberedDevices
from gateway.flows.leaving import Revoke
from gateway.flows.login import CountLogin, LoginRules, Logins
from gateway.flows.mfa import SecondFactors
from gateway.flows.password import HashParameters, PasswordHasher, PasswordRules
from gateway.flows.pending import PendingLogins
from gateway.flows.provisional import ProvisionalSessions
from gateway.flows.reckoning import Reckoning
from gateway.flows.revoked_devices import RevokedDevices
from gateway.flows.risk import AddressMap, MaxMindMap, NoAddressMap
from gateway.flows.sessions import Sessions
from gateway.flows.throttling import ThrottleLimits, Throttling
from gateway.flows.trail import Auditor, AuditTrail
from gateway.flows.vouchers import Vouchers
from gateway.flows.whereabouts import Whereabouts
from gateway.front.callers import Callers
from gateway.front.directory import directory_sealer
from gateway.front.login.account import AccountEndpoints
from gateway.front.login.cookies import Forms
from gateway.front.login.devices import DeviceEndpoints
from gateway.front.login.endpoints import LOGIN_PATH, LoginEndpoints
from gateway.front.login.pages import Pages, Way
from gateway.front.login.reader_language import configured_catalogue
from gateway.front.login.targets import Targets
from gateway.front.overload import OverloadGate
from gateway.front.trust import TrustedProxies
from gateway.resilience import BreakerName, Resilience, guarded
from gateway.stores import open_deferred_work, open_token_store
from gateway.stores.directory import Directory
from gateway.stores.grants import TokenStore
from gateway.tokens.sealing import Sealer
from gateway.types import Clock, Secret

_log = logging.getLogger("portcullis.login")

SOON_FILE: Final = "deferred-login.sqlite3"  # in run_dir: what waits until stores can be asked again
IDLE_FILE: Final = "deferred-idle.sqlite3"  # in run_dir: what waits until all is well
_READS: Final = ("look",)
_ONLY: Final = ("keep", "look", "take", "change")


@dataclass(frozen=True, slots=True, kw_only=True)
class LoginNeighbours:
    """What log-in uses of its worker."""

    resilience: Resilience
    clock: Clock
    auditor: Auditor
    sessions: Sessions
    directory: Directory
    count: CountLogin
    revoke: Revoke
    revoked: RevokedDevices  # hears of what `revoke` tells
    ways: Sequence[Way] = ()  # other ways to log in
    second_ways: Sequence[Way] = ()  # other second factors
    account_ways: Sequence[Way] = ()  # other things to look after


@dataclass(frozen=True, slots=True, kw_only=True)
class LoginWish:
    """What log-in is made for."""

    config: LoginConfig
    sessions: SessionsConfig
    directory: DirectoryConfig
    hosts: tuple[str, ...]  # to which browsers may be sent
    parameter: str  # that carries where to
    trusted_proxies: tuple[str, ...]
    body_timeout_s: float
    beside: tuple[
        object, ...
    ] = ()  # other ways in, and the parts that hold sessions and users: with others it is another
    around: LoginNeighbours = field(compare=False)


class OpenedLogin:
    """The pages of one config, and the flows behind them. `logins` and `login` are what other ways in use."""

    def __init__(self, wish: LoginWish, *, base_dir: Path, run_dir: Path) -> None:
        """Connects to nothing. Raises ValueError for a file or an address that cannot be used."""
        config, around = wish.config, wish.around
        self._resilience = around.resilience
        clock, trail = around.clock, AuditTrail(around.auditor, around.clock)
        sealer = directory_sealer(wish.directory, base_dir, run_dir)
        self._store, grants = _grants(wish, base_dir, run_dir)
        self.grants = grants
        sessions_in = _dependency_of(wish.sessions.url, base_dir)
        offers = Offers(
            lambda: around.resilience.degradation.current,
            sessions_gone=lambda: around.resilience.is_gone(sessions_in, "sessions"),
        )
        # In files of this machine, whatever `deferred.url` says: this work is put off because servers are away.
        self._works = [open_deferred_work(f"sqlite:{name}", run_dir, clock) for name in (SOON_FILE, IDLE_FILE)]
        self.deferring = DeferredRunner(self._works[0], {}, clock, ready=lambda: not _stores_down(around.resilience))
        self._idle = DeferredRunner(self._works[1], {}, clock, ready=lambda: offers.allows("behaviour"))
        keys = DeviceKeys(grants, clock)
        vouchers = Vouchers(
            Sealer(Secret(sealer.derive(b"vouchers"))),
            clock,
            around.revoked,
            lifetime_s=config.provisional_device_s,
        )
        devices = RememberedDevices(
            around.directory,
            clock,
            trail,
            lifetime_s=config.remember_s,
            keys=keys,
            vouchers=vouchers,
            revoke=around.revoke,
        )
        self.provisional = ProvisionalSessions(
            self.deferring,
            sessions=around.sessions,
            directory=around.directory,
            offers=offers,
            auditor=around.auditor,
            clock=clock,
            devices=devices,
            keys=keys,
        )
        whereabouts = Whereabouts(
            around.directory, _address_map(config, base_dir), sealer.derive(b"networks"), keep=config.logins_kept
        )
        self.hasher = PasswordHasher(around.resilience.hashing.run, hash_parameters(config))
        self.logins = Logins(
            directory=around.directory,
            pending=PendingLogins(grants, clock),
            sessions=around.sessions,
            hasher=self.hasher,
            passwords=password_rules(config, base_dir),
            throttling=Throttling(
                around.directory,
                clock,
                ThrottleLimits(
                    account_from=config.throttle_account_from,
                    address_from=config.throttle_address_from,
                    pause_s=config.throttle_pause_s,
                    window_s=config.throttle_window_s,
                ),
            ),
            factors=SecondFactors(
                around.directory, clock, trail, issuer=config.name, passkeys=bool(around.second_ways)
            ),
            devices=devices,
            browsers=KnownBrowsers(sealer.derive(b"known browsers")),
            whereabouts=whereabouts,
            rules=LoginRules(
                tenant=config.tenant,
                mfa_required=config.mfa == "required",
                risk_code=config.risk_code,
                risk_refused=config.risk_refused,
            ),
            clock=clock,
            trail=trail,
            count=around.count,
            offers=offers,
            reckoning=Reckoning(
                self._idle,
                sessions=around.sessions,
                whereabouts=whereabouts,
                auditor=around.auditor,
                clock=clock,
                refused=config.risk_refused,
            ),
        )
        self.accounts = Accounts(
            directory=around.directory,
            sessions=around.sessions,
            logins=self.logins,
            clock=clock,
            trail=trail,
        )
        cookie = wish.sessions.cookie
        catalogue = configured_catalogue(config.texts, base_dir)
        self.login = LoginEndpoints(
            self.logins,
            self.accounts,
            pages=Pages(around.ways, around.second_ways, around.account_ways, catalogue),
            forms=Forms(sealer.derive(b"forms"), cookie),
            targets=Targets(wish.hosts, config.home),
            resilience=around.resilience,
            caller_of=Callers(TrustedProxies(wish.trusted_proxies)),
            session_cookie=cookie,
            parameter=wish.parameter,
            body_timeout_s=wish.body_timeout_s,
            provisional=self.provisional,
        )
        self.account = AccountEndpoints(self.accounts, self.login, cookie)
        self._devices = DeviceEndpoints(self.logins, self.provisional, self.login)

    def routes(self) -> Sequence[Route]:
        """Return the routes of all pages."""
        return [*self.login.routes(), *self.account.routes(), *self._devices.routes()]

    def gates(self) -> Sequence[Middleware]:
        """Return what stands before the pages."""
        login, resilience = self.login, self._resilience
        return [
            Middleware(
                OverloadGate,
                paths=login.gated,
                pool="user_auth",
                resilience=resilience,
                refusal=login.busy,
                announces={LOGIN_PATH: resilience.hashing.announce},
            )
        ]

    async def start(self) -> None:
        """Begin to do what was promised."""
        await self.deferring.start()
        await self._idle.start()

    async def stop(self) -> None:
        """End what runs, and close what was opened."""
        await self.deferring.stop()
        await self._idle.stop()
        for work in self._works:
            await work.close()
        await self._store.close()


def _dependency_of(url: str, base_dir: Path) -> BreakerName:
    """Say which dependency sessions lie in."""
    return "cache" if resolve_store_url(url, base_dir).reveal().startswith((b"redis", b"unix")) else "database"


def _stores_down(resilience: Resilience) -> bool:
    health = resilience.degradation.current.health
    return "down" in (health.get("database"), health.get("cache"))


def hash_parameters(config: LoginConfig) -> HashParameters:
    """Give what a password hash costs."""
    return HashParameters(config.argon2_memory_kib, config.argon2_passes, config.argon2_lanes)


def password_rules(config: LoginConfig, base_dir: Path) -> PasswordRules:
    """Give what a new password must be. Raises ValueError for a list of leaked ones that cannot be used."""
    leaked: LeakedPasswords = NothingLeaked()
    if config.leaked_passwords:
        leaked = LeakFilter(base_dir / Path(config.leaked_passwords).expanduser())
    else:
        _log.info("new passwords are not held against leaked ones: login.leaked_passwords names no list")
    return PasswordRules(leaked, config.password_characters)


def _grants(wish: LoginWish, base_dir: Path, run_dir: Path) -> tuple[TokenStore, TokenStore]:
    """Open where log-ins that are under way are kept; give the store, and the store as requests use it."""
    address = resolve_store_url(wish.config.store_url, base_dir).reveal().decode()
    opened = open_token_store("" if address == "embedded" else address, run_dir, wish.around.clock)
    dependency: BreakerName = "cache" if address.startswith(("redis", "unix")) else "database"
    return opened, guarded(opened, wish.around.resilience, dependency, name="log-ins", only=_ONLY, reads=_READS)


def _address_map(config: LoginConfig, base_dir: Path) -> AddressMap:
    return MaxMindMap(base_dir / Path(config.addresses).expanduser()) if config.addresses else NoAddressMap()
