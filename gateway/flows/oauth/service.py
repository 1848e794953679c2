"""The token service, whole: made from the config and from what the gateway has beside it."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import logging
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Final

import orjson

from gateway.config import OAuthClientConfig, OAuthConfig, resolve_secret
from gateway.errors import KeyInvalid
from gateway.flows.oauth.approval import Approvals, AskConsent, Redirect
from gateway.flows.oauth.authorization import AuthorizationRequests, Parameters
from gateway.flows.oauth.client_auth import ClientAuthentication, ClientProof
from gateway.flows.oauth.context import Authenticator, LevelOf, Profiles, RevokeTokens
from gateway.flows.oauth.dpop import DPoPChecker, Nonces
from gateway.flows.oauth.endings import Endings
from gateway.flows.oauth.errors import OAuthRefused, RequestUnsafe
from gateway.flows.oauth.families import Families
from gateway.flows.oauth.grants import Family, Grants
from gateway.flows.oauth.logout import BackchannelLogout, PutJob, SendNotice
from gateway.flows.oauth.logout_requests import AskLogout, LoggedOut, LogoutRequests
from gateway.flows.oauth.marks import Marks
from gateway.flows.oauth.metadata import Offers, resource_metadata, resource_metadata_path, server_metadata
from gateway.flows.oauth.minting import Mint
from gateway.flows.oauth.parties import GRANT_TYPES, Client, ClientSource, ConfiguredClients, Parties, Resource
from gateway.flows.oauth.questions import TokenQuestions
from gateway.flows.oauth.rate_limit import RateLimit
from gateway.flows.oauth.registration import ClientDocuments, FetchDocument, Registration, StrangerLimits, client_of
from gateway.flows.oauth.tokens import TokenEndpoint, TokenRequest
from gateway.flows.sessions import origin_of
from gateway.flows.trail import Auditor, AuditTrail, Caller
from gateway.resilience import PoolName, Resilience
from gateway.stores.grants import TokenStore
from gateway.tokens.issuer_keys import IssuerKeys, KeySchedule
from gateway.tokens.own import OwnTokens, keys_folder
from gateway.tokens.sealing import Sealer
from gateway.types import Clock, Secret, Session, Subject

_log = logging.getLogger("portcullis.oauth")

KEYS_WATCH_S: Final = 30.0  # how often the folder of keys is looked at, and four times while a key is announced
OVERLAP_SLACK_S: Final = 3600  # a former key is published for longer than its longest token lives
NONCE_S: Final = 60  # a nonce is good for one to two of these

AUTHORIZE_PATH: Final = "/oauth2/authorize"
TOKEN_PATH: Final = "/oauth2/token"  # noqa: S105  (a path)
USERINFO_PATH: Final = "/oauth2/userinfo"
PAR_PATH: Final = "/oauth2/par"
LOGOUT_PATH: Final = "/oauth2/logout"


CountRequest = Callable[[str, str], None]
"""Counts a request for tokens: its grant (of GRANT_TYPES, or `other`), and `success`, `refused`, or `error` of ours."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Surroundings:
    """What the token service uses of the gateway."""

    store: TokenStore  # guarded, where requests must not hang on it
    authenticator: Authenticator
    profiles: Profiles
    auditor: Auditor
    revoke: RevokeTokens
    resilience: Resilience
    clock: Clock
    fetch: FetchDocument  # for client id metadata documents
    level: LevelOf = lambda: 0
    put_job: PutJob | None = None  # None: no client hears of the end of a session
    send_notice: SendNotice | None = None
    session_s: int = 43_200  # how long sessions last at most
    has_sessions: bool = True  # whoever logs in does so here
    count: CountRequest = lambda grant, outcome: None
    ui_locales: Sequence[str] = ()  # the languages of our pages


class OAuthService:
    """The flows of OAuth 2 and OpenID Connect, each in its pool. Belongs to one event loop.

    Every method raises OAuthRefused for what the client is told, and other GatewayErrors (503 and the like) for what
    is wrong with us; `authorize` and `decide` raise RequestUnsafe for what only a page may tell.
    """

    def __init__(self, config: OAuthConfig, keys: IssuerKeys, sealer: Sealer, around: Surroundings, base: Path) -> None:
        """`keys` and `sealer` as `open_keys` gives them; relative paths start at `base`. Raises KeyInvalid."""
        clock = around.clock
        self.issuer = config.issuer
        self.keys = keys
        self.own = OwnTokens(config.issuer, keys, clock)
        self._config = config
        self._resilience = around.resilience
        self._count = around.count
        self._task: asyncio.Task[None] | None = None
        self._running = 0  # requests
        self._idle = asyncio.Event()
        self._idle.set()
        grants = self._grants = Grants(around.store, clock)
        trail = self._trail = AuditTrail(around.auditor, clock)
        limits = self._limits = _stranger_limits(config)
        self._registration: Registration | None = None
        self._configured = [client_of_config(each, config, base) for each in config.clients]
        sources: list[ClientSource] = [ConfiguredClients(self._configured)]
        if config.strangers.registration != "off":
            token = config.strangers.initial_token
            self._registration = Registration(
                grants,
                limits,
                trail,
                clock,
                rate=RateLimit(config.strangers.per_minute, clock),
                initial_token=resolve_secret(token, base) if token else None,
            )
            sources.append(self._registration)
        if config.strangers.document_hosts:
            hosts = config.strangers.document_hosts
            is_local = "localhost" in hosts
            sources.append(ClientDocuments(around.fetch, limits, clock, hosts=hosts, is_loopback_allowed=is_local))
        self.parties = Parties(
            sources,
            [Resource(id=each.id, name=each.name or each.id, scopes=each.scopes) for each in config.resources],
            default_audience=config.audience or config.issuer,
        )
        self._offers = Offers(
            self._registration is not None,
            bool(config.strangers.document_hosts),
            backchannel_logout=around.put_job is not None,
            logout=around.has_sessions,
            ui_locales=around.ui_locales,
        )
        proof_use = partial(grants.first_use, "proof")
        nonces = Nonces(sealer.derive(b"dpop nonce"), clock, lifetime_s=NONCE_S) if config.dpop_nonce else None
        self._dpop = DPoPChecker(proof_use, clock, nonces=nonces, lifetime_s=config.dpop_proof_s)
        self.resource_dpop = DPoPChecker(proof_use, clock, nonces=None, lifetime_s=config.dpop_proof_s)
        """Checks proofs that come with access tokens, for doors."""
        mint = Mint(
            config.issuer,
            keys,
            clock,
            default_audience=self.parties.default_audience,
            id_token_s=config.id_token_s,
            level=around.level,
        )
        families = Families(grants, sealer.derive(b"refresh tokens"), clock, grace_s=config.refresh_grace_s)
        self.endings = Endings(
            grants, around.revoke, clock, issuer=config.issuer, access_token_s_max=longest_access_token_s(config)
        )
        self.logout: BackchannelLogout | None = None
        if around.put_job is not None and around.send_notice is not None:
            self.logout = BackchannelLogout(
                around.store,
                self.parties,
                keys,
                put=around.put_job,
                send=around.send_notice,
                clock=clock,
                issuer=config.issuer,
                session_s=around.session_s,
            )
        self._clients = ClientAuthentication(
            self.parties,
            partial(grants.first_use, "assertion"),
            clock,
            audiences=(config.issuer, config.issuer + TOKEN_PATH, config.issuer + PAR_PATH),
        )
        marks = Marks(sealer.derive(b"authorization pages"), clock)
        self._logouts = LogoutRequests(
            parties=self.parties, mint=mint, authenticator=around.authenticator, marks=marks, path=LOGOUT_PATH
        )
        self._approvals = Approvals(
            AuthorizationRequests(self.parties, config.issuer),
            parties=self.parties,
            mint=mint,
            grants=grants,
            authenticator=around.authenticator,
            trail=trail,
            clock=clock,
            marks=marks,
            path=AUTHORIZE_PATH,
            code_s=config.code_s,
        )
        self._tokens = TokenEndpoint(
            clients=self._clients,
            parties=self.parties,
            grants=grants,
            families=families,
            endings=self.endings,
            mint=mint,
            dpop=self._dpop,
            authenticator=around.authenticator,
            profiles=around.profiles,
            trail=trail,
            clock=clock,
            note=None if self.logout is None else self.logout.note,
        )
        self._questions = TokenQuestions(
            own=self.own,
            families=families,
            endings=self.endings,
            profiles=around.profiles,
            dpop=self.resource_dpop,
            trail=trail,
            issuer=config.issuer,
        )

    # -- life ---------------------------------------------------------------------------------------------------------

    def start(self) -> None:
        """Begin to follow the folder of keys, and to make new ones when they are due."""
        self._tell_key(self.keys.first)
        self._task = asyncio.get_running_loop().create_task(self._follow_keys(), name="oauth keys")

    async def stop(self) -> None:
        """End the following, and let what is under way come to its end. The store is whose it was."""
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task
        # A code is used up by the request that redeems it: whoever is cut off there has to log in again.
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self._resilience.config.request_timeout_s):
                await self._idle.wait()

    @contextlib.asynccontextmanager
    async def _serving(self, pool: PoolName, *, critical: bool = False) -> AsyncIterator[None]:
        """Serve one request in its pool and within its time, and know of it."""
        self._running += 1
        self._idle.clear()
        try:
            async with self._resilience.serving(pool, critical=critical):
                yield
        finally:
            self._running -= 1
            if not self._running:
                self._idle.set()

    @contextlib.asynccontextmanager
    async def _browsing(self, action: str, caller: Caller) -> AsyncIterator[None]:
        """Serve a browser in the pool of log-in; what only a page may tell is told to the audit log, too."""
        async with self._serving("user_auth"):
            try:
                yield
            except RequestUnsafe as unsafe:
                self._trail.tell(action, "refused", caller=caller, reason=unsafe.reason)
                raise

    async def _follow_keys(self) -> None:
        while True:
            await asyncio.sleep(min(KEYS_WATCH_S, self._config.key_announce_s / 4))
            try:
                self._tell_key(await asyncio.to_thread(self.keys.refresh))
            except (KeyInvalid, OSError) as error:
                _log.error("the signing keys were not refreshed, the former ones stay: %s", error)

    def _tell_key(self, kid: str) -> None:
        if kid:
            self._trail.tell("key.rotate", "success", target=kid, announced=kid != self.keys.first)

    # -- for browsers -------------------------------------------------------------------------------------------------

    async def authorize(
        self, parameters: Parameters, cookies: Mapping[str, str], caller: Caller
    ) -> Redirect | AskConsent:
        """Answer an authorization request."""
        async with self._browsing("oauth.authorize", caller):
            return await self._approvals.authorize(parameters, cookies, caller)

    async def decide(
        self, parameters: Parameters, csrf: str, *, allowed: bool, cookies: Mapping[str, str], caller: Caller
    ) -> Redirect:
        """Take the answer of the page that asks for consent."""
        async with self._browsing("oauth.authorize", caller):
            return await self._approvals.decide(parameters, csrf, allowed=allowed, cookies=cookies, caller=caller)

    async def leave(
        self, parameters: Parameters, cookies: Mapping[str, str], caller: Caller, *, posted: bool
    ) -> Redirect | AskLogout | LoggedOut:
        """Answer an application that asks for a log-out."""
        async with self._browsing("oauth.logout", caller):
            if posted:
                return await self._logouts.posted(parameters)
            return await self._logouts.ask(parameters, cookies, caller)

    async def decide_leaving(
        self, parameters: Parameters, csrf: str, cookies: Mapping[str, str], caller: Caller
    ) -> LoggedOut:
        """Take the answer of the page that asks before a log-out."""
        async with self._browsing("oauth.logout", caller):
            return await self._logouts.decide(parameters, csrf, cookies, caller)

    # -- for clients --------------------------------------------------------------------------------------------------

    async def push(self, request: TokenRequest) -> dict[str, Any]:
        """Keep a pushed authorization request, and return the members of the answer (RFC 9126 §2.2)."""
        async with self._serving("user_auth"):
            client = await self._clients.identify(request.proof)
            jkt = ""
            if request.dpop:
                jkt = await self._dpop.check(request.dpop, request.method, request.url)
            lifetime_s = self._config.request_s
            uri = await self._approvals.push(request.form, client, lifetime_s, dpop_jkt=jkt)
            return {"request_uri": uri, "expires_in": lifetime_s}

    async def token(self, request: TokenRequest) -> dict[str, Any]:
        """Give tokens, and return the members of the answer. Refreshing goes before new logins."""
        kind = dict(request.form).get("grant_type", "")
        outcome = "error"
        try:
            async with self._serving("token_validation", critical=kind == "refresh_token"):
                members = await self._tokens.give(request)
            outcome = "success"
        except OAuthRefused:
            outcome = "refused"
            raise
        finally:
            self._count(kind if kind in GRANT_TYPES else "other", outcome)
        return members

    async def revoke(self, token: str, proof: ClientProof, caller: Caller) -> None:
        """End a token of the client that asks for it."""
        async with self._serving("token_validation", critical=True):
            client = await self._clients.identify(proof)
            await self._questions.revoke(token, client, caller)

    async def identify(self, proof: ClientProof) -> Client:
        """Return the client that proves itself, as at the token endpoint."""
        async with self._serving("token_validation", critical=True):
            return await self._clients.identify(proof)

    async def describe(self, token: str, client: Client | None = None) -> Mapping[str, Any] | None:
        """Return what introspection tells of a token of ours, None where it does not hold; see TokenQuestions."""
        async with self._serving("token_validation", critical=True):
            return await self._questions.describe(token, client)

    async def userinfo(self, scheme: str, token: str, proofs: Sequence[str], method: str) -> Mapping[str, object]:
        """Return what a token tells of its user."""
        async with self._serving("token_validation"):
            return await self._questions.userinfo(scheme, token, proofs, method, self.issuer + USERINFO_PATH)

    async def register(self, metadata: Mapping[str, Any], bearer: str, caller: Caller) -> dict[str, Any]:
        """Register a client."""
        if self._registration is None:
            raise OAuthRefused("invalid_request", "clients cannot register here")
        async with self._serving("user_auth"):
            return await self._registration.register(metadata, bearer, caller)

    def nonce(self) -> str:
        """Return the nonce that the next proof at our endpoints must hold, "" where none is asked for."""
        return self._dpop.nonce()

    # -- for everybody ------------------------------------------------------------------------------------------------

    @property
    def logs_out(self) -> bool:
        """Whether applications can ask for a log-out: sessions are ours."""
        return self._offers.logout

    @property
    def registers(self) -> bool:
        """Whether clients can register."""
        return self._registration is not None

    def metadata(self) -> dict[str, Any]:
        """Return the metadata of the authorization server (RFC 8414)."""
        return server_metadata(self.issuer, self.parties, self.keys.algorithm, self._offers)

    def resource_documents(self) -> Mapping[str, list[dict[str, Any]]]:
        """Return the metadata of our resources by the path at which it lies; several where only the host differs."""
        found: dict[str, list[dict[str, Any]]] = {}
        for resource in self.parties.resources.values():
            path = resource_metadata_path(resource)
            if path:
                found.setdefault(path, []).append(resource_metadata(resource, self.issuer))
        return found

    async def listed_clients(self) -> list[Client]:
        """List the clients of the config, then those that registered themselves."""
        kept = await self._grants.store.list_clients("")
        registered = [client_of(each.client_id, each.metadata, self._limits, "registered") for each in kept]
        return [*self._configured, *registered]

    async def granted_by(self, subject: Subject) -> list[Family]:
        """List what a user has granted and what is not over."""
        return await self._grants.families_of(subject)

    async def ended_session(self, session: Session) -> int:
        """End what was granted within a session: called by whoever ends the session. Returns how many families."""
        ended = await self.endings.end_session(session.subject, origin_of(session))
        if self.logout is not None:
            await self.logout.ended(session)
        return ended

    async def ended_subject(self, subject: Subject) -> int:
        """End everything that was granted by a user who is logged out everywhere, or gone."""
        return await self.endings.end_subject(subject)


def open_keys(config: OAuthConfig, run_dir: Path, base: Path, clock: Clock) -> tuple[IssuerKeys, Sealer]:
    """Open the issuer's keys, and make the first where there is none. Blocks. Raises KeyInvalid, SecretUnresolved."""
    sealer = Sealer(resolve_secret(config.encryption_key, base))
    schedule = KeySchedule(
        config.algorithm,
        every_s=config.key_rotation_s,
        announce_s=config.key_announce_s,
        overlap_s=max(longest_access_token_s(config), config.id_token_s) + OVERLAP_SLACK_S,
    )
    return IssuerKeys(keys_folder(config, run_dir, base), sealer, schedule, clock), sealer


def longest_access_token_s(config: OAuthConfig) -> int:
    """Return how long the longest access token lives."""
    return max(config.access_token_s, *(client.access_token_s for client in config.clients), 0)


def client_of_config(client: OAuthClientConfig, config: OAuthConfig, base: Path) -> Client:
    """Make a client of what the config says. Raises KeyInvalid, SecretUnresolved."""
    secret: Secret | None = resolve_secret(client.secret, base) if client.secret else None
    return Client(
        id=client.id,
        name=client.name or client.id,
        auth=client.auth,
        secret_hash=b"" if secret is None else hashlib.sha256(secret.reveal()).digest(),
        jwks=_read_jwks(base / Path(client.jwks_file).expanduser()) if client.jwks_file else None,
        grant_types=frozenset(client.grant_types),
        scopes=frozenset(client.scopes),
        redirect_uris=client.redirect_uris,
        resources=client.resources,
        tenant=client.tenant,
        ask_consent=client.consent == "ask",
        access_token_s=client.access_token_s or config.access_token_s,
        refresh_idle_s=client.refresh_idle_s or config.refresh_idle_s,
        refresh_max_s=client.refresh_max_s or config.refresh_max_s,
        needs_dpop=client.dpop,
        needs_par=client.par,
        backchannel_logout_uri=client.backchannel_logout_uri,
        post_logout_redirect_uris=client.post_logout_redirect_uris,
    )


def _read_jwks(path: Path) -> Mapping[str, Any]:
    try:
        document = orjson.loads(path.read_bytes())
    except (OSError, ValueError):
        raise KeyInvalid(f"`{path}` is no key set that can be read") from None
    if not isinstance(document, dict):
        raise KeyInvalid(f"`{path}` holds no JSON object")
    return document


def _stranger_limits(config: OAuthConfig) -> StrangerLimits:
    scopes = {*config.strangers.scopes, *(scope for resource in config.resources for scope in resource.scopes)}
    return StrangerLimits(
        scopes=frozenset(scopes),
        access_token_s=config.access_token_s,
        refresh_idle_s=config.refresh_idle_s,
        refresh_max_s=config.refresh_max_s,
        schemes=frozenset(config.strangers.schemes),
    )
