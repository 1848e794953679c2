"""The token service as a part of a worker: opened for a config, kept over reloads that do not change it."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Literal
from urllib.parse import urlencode

from starlette.routing import Route

from gateway._native.token import TokenValidator
from gateway.config import DirectoryConfig, OAuthConfig, SessionsConfig, resolve_store_url
from gateway.errors import GatewayError
from gateway.flows.oauth import (
    Auditor,
    Authenticator,
    LoginWish,
    OAuthService,
    Profiles,
    RevokeTokens,
    Surroundings,
    open_keys,
)
from gateway.flows.oauth.logout import PutJob
from gateway.flows.oauth.metadata import resource_metadata_url
from gateway.flows.oauth.people import DirectoryProfiles, NobodyLogsIn, SessionAuthenticator, SessionsOnly
from gateway.flows.oauth.service import CountRequest
from gateway.flows.sessions import Sessions
from gateway.front.login.reader_language import Languages, configured_catalogue
from gateway.front.oauth.endpoints import CallerOf, OAuthEndpoints
from gateway.front.oauth.pages import OAuthPages
from gateway.front.proofs import DoorProofs
from gateway.resilience import Resilience, guarded
from gateway.stores import Connections, open_token_store
from gateway.stores.directory import Directory
from gateway.stores.fetch import Fetcher
from gateway.tokens.own import OwnTokens, own_issuer
from gateway.types import Clock

_log = logging.getLogger("portcullis.oauth")

DOCUMENT_BYTES_MAX: Final = 16 * 1024  # of a client's metadata
DOCUMENT_TIMEOUT_S: Final = 3.0
PURGE_S: Final = 60.0  # between two times that what is over is forgotten, more or less
NOTICE_TIMEOUT_S: Final = 5.0  # for a client to take the news that a session is over
NOTICE_BYTES_MAX: Final = 16 * 1024  # of its answer, which says nothing
_PART: Final = "grants"  # as which its health is watched
_READS: Final = ("get_client", "list_clients", "look", "get_family", "families_of")


@dataclass(frozen=True, slots=True)
class OAuthWish:
    """What the token service is made for."""

    config: OAuthConfig
    body_timeout_s: float
    login_url: str  # "" = `/login` of our own
    login_parameter: str  # that carries where to come back to
    texts: str  # a folder with texts of the operator's
    trusted_proxies: tuple[str, ...]  # who tells where a request comes from
    sessions: SessionsConfig  # whoever is logged in by other sessions is another
    directory: DirectoryConfig  # what is known of users
    shape: tuple[object, ...]  # what a validator of the doors must know
    around: OAuthNeighbours = field(compare=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class OAuthNeighbours:
    """What the token service uses of its worker."""

    resilience: Resilience
    clock: Clock
    auditor: Auditor
    revoke: RevokeTokens
    sessions: tuple[Sessions, str] | None = None  # and the name of their cookie
    directory: Directory | None = None
    level: Callable[[], int] = lambda: 0
    count: CountRequest = lambda grant, outcome: None
    new_validator: Callable[[], TokenValidator]
    put_job: PutJob | None = None  # None: no client hears of the end of a session
    caller_of: CallerOf


class OpenedOAuth:
    """The token service of one config: its store, its keys, its endpoints."""

    def __init__(
        self, wish: OAuthWish, *, base_dir: Path, run_dir: Path, connections: Connections | None = None
    ) -> None:
        """Connects to nothing, but makes the first signing key where there is none: that blocks.

        Raises ValueError for an address or secret that cannot be used, KeyInvalid for keys that cannot be read.
        """
        config, around = wish.config, wish.around
        self._keys, sealer = open_keys(config, run_dir, base_dir, around.clock)
        address = resolve_store_url(config.store_url, base_dir).reveal().decode()
        where = "" if address == "embedded" else address
        opened = open_token_store(where, run_dir, around.clock, connections=connections)
        self._store = opened
        self._resilience = around.resilience
        self._clock = around.clock
        self._tasks: list[asyncio.Task[None]] = []
        self._fetcher = Fetcher()
        self._permits = around.resilience.permits
        dependency: Literal["cache", "database"] = "cache" if address.startswith(("redis", "unix")) else "database"
        self._dependency = dependency
        languages = Languages(configured_catalogue(wish.texts, base_dir))
        surroundings = Surroundings(
            store=guarded(opened, around.resilience, dependency, name=_PART, reads=_READS),
            authenticator=_authenticator(wish),
            profiles=_profiles(around),
            auditor=around.auditor,
            revoke=around.revoke,
            resilience=around.resilience,
            clock=around.clock,
            fetch=self._fetch,
            level=around.level,
            count=around.count,
            put_job=around.put_job,
            send_notice=self._send_notice,
            session_s=wish.sessions.absolute_s,
            has_sessions=around.sessions is not None,
            ui_locales=languages.tags,
        )
        self.service = OAuthService(config, self._keys, sealer, surroundings, base_dir)
        self._sessions = None if around.sessions is None else around.sessions[0]
        if self._sessions is not None:
            self._sessions.grants = self.service
        self.endpoints = OAuthEndpoints(
            self.service,
            pages=OAuthPages(languages),
            body_timeout_s=wish.body_timeout_s,
            caller_of=around.caller_of,
            session_cookie="" if around.sessions is None else around.sessions[1],
        )
        self.issuer = own_issuer(config, self._keys.jwks_path, self._keys.published)
        self.bound = OwnTokens(
            config.issuer,
            self._keys,
            around.clock,
            validator=around.new_validator(),
            audiences=self.issuer.audiences,
        )
        """Judges tokens that are bound to a key, as the doors do; hears of revocations."""
        self.proofs = DoorProofs(self.bound, self.service.resource_dpop, around.resilience)

    @property
    def own(self) -> OwnTokens:
        """What must hear of revocations, beside the validators of the doors."""
        return self.service.own

    @property
    def resource_metadata_url(self) -> str:
        """Where the only resource is described; "" where there is none, or several: then each host says it itself."""
        addresses = [resource_metadata_url(each) for each in self.service.parties.resources.values()]
        return addresses[0] if len(addresses) == 1 else ""

    def routes(self) -> Sequence[Route]:
        """Return the routes of all endpoints, but introspection, which asks `endpoints`."""
        return self.endpoints.routes()

    async def start(self) -> None:
        """Begin to follow the folder of keys and the health of the store, and to forget what is over."""
        self.service.start()
        loop = asyncio.get_running_loop()
        self._tasks = [
            loop.create_task(self._watch(), name="grants health"),
            loop.create_task(self._purge_for_ever(), name="grants"),
        ]

    async def stop(self) -> None:
        """End everything that was begun."""
        if self._sessions is not None and self._sessions.grants is self.service:
            self._sessions.grants = None  # and not where a successor is in its place
        self._resilience.unwatch(self._dependency, part=_PART, probe=self._probe)
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self.service.stop()
        await self._store.close()
        await self._fetcher.aclose()

    async def _watch(self) -> None:
        """Have the health of the store followed, once it was opened: that takes longer than a probe may."""
        with contextlib.suppress(GatewayError):  # it is told by the health that follows
            await self._probe()
        self._resilience.watch(self._dependency, self._probe, part=_PART)

    async def _purge_for_ever(self) -> None:
        """Have the store forget what is over, soon: each proof of possession leaves something for a few minutes."""
        while True:
            await asyncio.sleep(PURGE_S * random.uniform(0.5, 1.5))  # noqa: S311  (so that workers do not do it at once)
            try:
                await self._store.purge(self._clock.wall_s())
            except GatewayError as error:
                _log.warning("grants that are over were not forgotten: %s", error)

    async def _probe(self) -> None:
        """Look for a grant that nobody has."""
        await self._store.look("proof", bytes(32))

    async def _send_notice(self, url: str, form: Mapping[str, str]) -> None:
        async with self._permits.guard("external_calls"):
            await self._fetcher.post_notice(url, form, timeout_s=NOTICE_TIMEOUT_S, bytes_max=NOTICE_BYTES_MAX)

    async def _fetch(self, url: str) -> dict[str, object]:
        return await self._fetcher.get_json(url, timeout_s=DOCUMENT_TIMEOUT_S, bytes_max=DOCUMENT_BYTES_MAX)


def _authenticator(wish: OAuthWish) -> Authenticator:
    def login_url(asked: LoginWish) -> str:
        query = {wish.login_parameter: _absolute(wish, asked.return_to)}
        if asked.reauthenticate:
            query["prompt"] = "login"
        if asked.acr_values:
            query["acr_values"] = " ".join(asked.acr_values)
        if asked.login_hint:
            query["login_hint"] = asked.login_hint
        if asked.ui_locales:
            query["ui_locales"] = asked.ui_locales
        if asked.tenant:
            query["tenant"] = asked.tenant
        base = wish.login_url or "/login"
        return f"{base}{'&' if '?' in base else '?'}{urlencode(query)}"

    if wish.around.sessions is None:
        return NobodyLogsIn(login_url)
    sessions, cookie = wish.around.sessions
    return SessionAuthenticator(sessions, cookie, login_url)


def _absolute(wish: OAuthWish, path: str) -> str:
    """A login page elsewhere has to be told our host; our own takes paths alone."""
    return wish.config.issuer + path if wish.login_url else path


def _profiles(around: OAuthNeighbours) -> Profiles:
    return SessionsOnly() if around.directory is None else DirectoryProfiles(around.directory)
