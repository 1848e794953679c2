"""Other ways to log in than by a password, as a part of a worker: passkeys, and identity providers."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from msgspec.structs import replace
from starlette.routing import Route

from gateway.config import Config, LoginConfig, PasskeysConfig, SSOConfig
from gateway.flows.trail import AuditTrail
from gateway.front.login.pages import Way
from gateway.front.login.part import LoginNeighbours, OpenedLogin
from gateway.stores.fetch import Fetcher

if TYPE_CHECKING:
    from gateway.flows.federated import Provider
    from gateway.types import Session


@dataclass(frozen=True, slots=True)
class Offered:
    """The buttons that a config adds to the pages of log-in."""

    first: tuple[Way, ...] = ()
    second: tuple[Way, ...] = ()
    account: tuple[Way, ...] = ()


def offered_of(config: Config) -> Offered:
    """Return the buttons for the ways that a config has; what it does not have is not imported.

    Raises ValueError where a library is missing.
    """
    offered = Offered()
    if config.passkeys.rp_id:
        try:
            from gateway.front.login.passkeys import passkey_account_way, passkey_second_way, passkey_way
        except ModuleNotFoundError as error:
            raise ValueError(f"{error.name} is missing; `pip install portcullis-gateway[passkeys]`") from error

        offered = Offered((passkey_way(),), (passkey_second_way(),), (passkey_account_way(),))
    if config.sso:
        from gateway.front.login.sso import sso_account_way, sso_way

        first = (sso_way(each.id, each.name or each.id) for each in config.sso)
        offered = Offered((*offered.first, *first), offered.second, (*offered.account, sso_account_way()))
    return offered


@dataclass(frozen=True, slots=True, kw_only=True)
class WaysWish:
    """What the other ways are made for; other pages of log-in are others."""

    passkeys: PasskeysConfig
    sso: tuple[SSOConfig, ...]
    login_config: LoginConfig
    origin: str  # ours, as identity providers know it
    session_s: int
    body_timeout_s: float
    login: OpenedLogin
    around: LoginNeighbours = field(compare=False)


class OpenedWays:
    """The other ways of one config, and their endpoints."""

    def __init__(self, wish: WaysWish, *, base_dir: Path) -> None:
        """Connects to nothing. Raises ValueError for a secret that cannot be read."""
        self._wish = wish
        self._fetcher = Fetcher()
        self._providers: list[Provider] = []
        self._routes: list[Route] = []
        self._part = f"sso {secrets.token_hex(4)}"  # another one's end is not that of this one's watch
        self.logout_address: Callable[[Session], str | None] = lambda session: None
        if wish.passkeys.rp_id:
            self._open_passkeys()
        if wish.sso:
            self._open_sso(base_dir)

    def routes(self) -> Sequence[Route]:
        """Return the routes of all ways."""
        return self._routes

    async def start(self) -> None:
        """Begin to learn what providers publish; waits for none of them."""
        self._wish.login.login.leave = self.logout_address
        if self._providers:
            self._wish.around.resilience.watch("external_idp", part=self._part)  # by how its calls go
        await asyncio.gather(*(each.start() for each in self._providers))

    async def stop(self) -> None:
        """End everything that was begun."""
        self._wish.around.resilience.unwatch("external_idp", part=self._part)
        await asyncio.gather(*(each.stop() for each in self._providers))
        await self._fetcher.aclose()

    def _open_passkeys(self) -> None:
        from gateway.flows.passkey import PasskeyParty, Passkeys
        from gateway.front.login.passkeys import PasskeyEndpoints

        wish, config, around = self._wish, self._wish.passkeys, self._wish.around
        party = PasskeyParty(
            config.rp_id,
            config.name or config.rp_id,
            config.origins or (f"https://{config.rp_id}",),
            verification=config.user_verification,
            challenge_s=config.challenge_s,
            fresh_s=config.fresh_s,
            count_max=config.count_max,
        )
        passkeys = Passkeys(
            party,
            directory=around.directory,
            grants=wish.login.grants,
            clock=around.clock,
            trail=AuditTrail(around.auditor, around.clock),
        )
        endpoints = PasskeyEndpoints(
            passkeys,
            logins=wish.login.logins,
            accounts=wish.login.accounts,
            login=wish.login.login,
            account=wish.login.account,
        )
        self._routes += endpoints.routes()

    def _open_sso(self, base_dir: Path) -> None:
        from gateway.flows.federated import Accounts, Federation, Provider
        from gateway.front.login.sso import SSOEndpoints

        wish, around = self._wish, self._wish.around
        tenant = wish.login_config.tenant
        self._providers = [
            Provider(
                config if config.tenant else replace(config, tenant=tenant),
                fetcher=self._fetcher,
                resilience=around.resilience,
                clock=around.clock,
                base_dir=base_dir,
            )
            for config in wish.sso
        ]
        federation = Federation(
            self._providers,
            origin=wish.origin,
            accounts=Accounts(around.directory, around.clock),
            sessions=around.sessions,
            grants=wish.login.grants,
            resilience=around.resilience,
            clock=around.clock,
            trail=AuditTrail(around.auditor, around.clock),
            session_s=wish.session_s,
            deferring=wish.login.deferring,
        )
        endpoints = SSOEndpoints(
            federation,
            logins=wish.login.logins,
            accounts=wish.login.accounts,
            login=wish.login.login,
            account=wish.login.account,
            resilience=around.resilience,
            body_timeout_s=wish.body_timeout_s,
        )
        self.logout_address = endpoints.logout_address
        self._routes += endpoints.routes()
