"""The composition root: from a config to the running application of one worker. Imported by `gateway.cli` only."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import hashlib
import logging
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
from msgspec.structs import replace
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from gateway import __version__
from gateway._native.front import DOORS, REASONS, Engine, FrontDoor
from gateway._native.metrics import MetricsBlock
from gateway._native.token import TokenValidator
from gateway.config import Config, IntrospectionConfig, resolve_secret
from gateway.errors import ConfigError, ConfigFault, GatewayError, KeyInvalid
from gateway.flows.degraded import as_granted, level_teller
from gateway.flows.revoked_devices import RevokedDevices
from gateway.flows.trail import AuditTrail
from gateway.front.answers import deny_answers
from gateway.front.asgi import App as ASGIApp
from gateway.front.asking import Asking
from gateway.front.audit_vitals import AuditCounters
from gateway.front.callers import Callers
from gateway.front.endpoints import admin_app, public_app, reserved_paths
from gateway.front.faults import FaultAnswers
from gateway.front.granian_inline import install as install_inline
from gateway.front.granian_inline import sync_send_type
from gateway.front.in_force import InForce
from gateway.front.introspect import Introspection
from gateway.front.judging import EngineJudge
from gateway.front.learning import ControlLearner
from gateway.front.login_redirect import login_redirect
from gateway.front.request_logs import Logs, RequestLogs
from gateway.front.resilience_vitals import ResilienceFigures, probe_policies
from gateway.front.responses import ProblemResponse
from gateway.front.routing import (
    DECISION_HEADER,
    header_claims_of,
    identity_header_names,
    plan_routes,
    scope_names_of,
)
from gateway.front.socket_relay import SocketRelay
from gateway.front.sockets import SocketDoor
from gateway.front.source_vitals import SourceFigures
from gateway.front.trust import TrustedProxies
from gateway.front.upstreams import PoolPlan, Upstreams
from gateway.front.vitals import Figures, WorkerVitals
from gateway.observability.catalogue import Layout, catalogue, decision_of
from gateway.observability.metrics import Metrics
from gateway.resilience import Resilience
from gateway.stores import Connections, RevocationStore
from gateway.stores.base import RevocationKind
from gateway.stores.figures import StoreFigures
from gateway.stores.pools import DEFAULT
from gateway.tokens.control import ControlState, TokenControl
from gateway.types import AuditEvent, Clock, Secret, Subject, SystemClock, WorkerContext

if TYPE_CHECKING:
    from gateway._native.route_policy import Decided
    from gateway.flows.leaving import Leaving
    from gateway.front.admin.part import AdminWish, OpenedAdmin
    from gateway.front.audit import AuditWish, OpenedAudit
    from gateway.front.deciding import Deciding
    from gateway.front.decisions import DecisionRecorder
    from gateway.front.deferred import DeferredWish, OpenedDeferred
    from gateway.front.directory import DirectoryWish, OpenedDirectory
    from gateway.front.login.part import LoginNeighbours, LoginWish, OpenedLogin
    from gateway.front.login.ways import Offered, OpenedWays, WaysWish
    from gateway.front.oauth.part import OAuthWish, OpenedOAuth
    from gateway.front.policies import Policies, PoliciesRead, PolicyPlan
    from gateway.front.scim.part import OpenedScim, ScimWish
    from gateway.front.sessions import OpenedSessions, SessionWish
    from gateway.policy.relation_follower import RelationFollower
    from gateway.stores.deferred import Job
    from gateway.stores.directory import Directory

_log = logging.getLogger("portcullis.app")

SAMPLE_S = 1.0  # how often figures that are kept elsewhere go into the metrics
SETTLE_S = 5.0  # a reload that needs a new validator waits this long for its keys
SETTLE_STEP_S = 0.02
WATCH_MIN_S = 1.0  # between two looks at the policies' files


def metrics_layout() -> Layout:
    """Give the layout of the shared metrics map; the same in every process of one version."""
    return Layout(catalogue(DOORS, REASONS))


def build_app(config: Config, worker: WorkerContext, *, clock: Clock | None = None) -> App:
    """Build one worker's application. Raises ConfigError for what only shows when the parts are made."""
    return App(config, worker, clock or SystemClock())


def _shape_of(config: Config) -> tuple[object, ...]:
    """Give what a validator is made for: when it changes, another one is needed."""
    return scope_names_of(config), header_claims_of(config), _policy_claims_of(config), config.cache, config.oauth


def _policy_claims_of(config: Config) -> tuple[str, ...]:
    """List the claims that policies are asked about; a gateway without policies does without their code."""
    if not config.policy.path:
        return ()
    from gateway.front.claims import policy_claims_of

    return policy_claims_of(config)


def _claims_factory(config: Config) -> Callable[[bytes], object] | None:
    """Give what keeps the claims of a verified token that policies are asked about; None where there are none."""
    names = _policy_claims_of(config)
    if not names:
        return None
    from gateway.front.claims import ClaimPicker

    return ClaimPicker(names)


def _new_validator(config: Config) -> TokenValidator:
    cache = config.cache
    return TokenValidator(
        entries=cache.tokens_entries,
        ttl_s=cache.tokens_ttl_s,
        structures=cache.structures_entries,
        token_bytes_max=cache.token_bytes_max,
        scope_names=scope_names_of(config),
        header_claims=header_claims_of(config),
        claims_factory=_claims_factory(config),
    )


@dataclass(frozen=True, slots=True)
class _Generation:
    """Everything that one config made. Published whole; the former one ends when nobody uses it any more."""

    config: Config
    validator: TokenValidator
    control: TokenControl
    door: FrontDoor
    pools: PoolPlan
    policies: PolicyPlan | None  # None where the config has none
    sessions: OpenedSessions | None  # the same
    directory: OpenedDirectory | None  # the same
    oauth: OpenedOAuth | None  # the same
    scim: OpenedScim | None  # None where the config has none
    admin: OpenedAdmin | None  # the same
    judge: EngineJudge
    audit: OpenedAudit | None  # None where nothing that it tells of is there, or it is off
    login: OpenedLogin | None  # the same
    ways: OpenedWays | None  # the same
    deferred: OpenedDeferred | None  # None where nothing is put off
    logs: RequestLogs


class App:
    """One worker's application: the doors, what stands behind them, and how both are swapped."""

    def __init__(self, config: Config, worker: WorkerContext, clock: Clock) -> None:
        self._worker = worker
        self._clock = clock
        self._metrics = Metrics(worker.metrics_path, metrics_layout(), MetricsBlock, worker.index)
        assert isinstance(self._metrics.block, MetricsBlock)
        self._block = self._metrics.block
        self._upstreams = Upstreams()
        self._resilience = Resilience(config.resilience, clock=clock)
        self._vitals = WorkerVitals(
            self._metrics, self._control_state, self._relations, self._resilience, self._deciding
        )
        self._logs = Logs(config.log, worker.run_dir, self._metrics)
        self._learner = ControlLearner(lambda: self._now.control, self._metrics, clock, self._resilience)
        self._turn = asyncio.Lock()  # held by the reload that is read and planned
        self._reloads = asyncio.Lock()
        self._stop = asyncio.Event()  # set when draining: long-lived conversations end
        self._wanted = 0  # number of the newest reload; an older one that still waits for keys is given up
        self._tasks: set[asyncio.Task[None]] = set()
        self._policies: Policies | None = None
        self._connections = Connections(DEFAULT.shared_by(worker.worker_count))  # stores of one server share them
        self._sessions: InForce[SessionWish, OpenedSessions] = InForce(self._open_sessions)
        self._directory: InForce[DirectoryWish, OpenedDirectory] = InForce(self._open_directory)
        self._oauth: InForce[OAuthWish, OpenedOAuth] = InForce(self._open_oauth)
        self._audit: InForce[AuditWish, OpenedAudit] = InForce(self._open_audit)
        self._deferred: InForce[DeferredWish, OpenedDeferred] = InForce(self._open_deferred)
        self._login: InForce[LoginWish, OpenedLogin] = InForce(self._open_login)
        self._admin: InForce[AdminWish, OpenedAdmin] = InForce(self._open_admin)
        self._scim: InForce[ScimWish, OpenedScim] = InForce(self._open_scim)
        self._ways: InForce[WaysWish, OpenedWays] = InForce(self._open_ways)
        self._is_started = False
        config = self._trusting(config)
        validator = _new_validator(config)
        self._now = self._generation(config, validator, self._new_control(config, validator))
        self._commit_policies(self._now)
        self._sessions.take(self._now.sessions)
        self._directory.take(self._now.directory)
        self._oauth.take(self._now.oauth)
        self._audit.take(self._now.audit)
        self._login.take(self._now.login)
        self._scim.take(self._now.scim)
        self._ways.take(self._now.ways)
        self._admin.take(self._now.admin)
        self._deferred.take(self._now.deferred)
        self.asgi: FrontDoor = self._now.door
        self.admin_asgi: ASGIApp = admin_app(self._vitals, self._administer)
        figures = Figures(
            self._metrics, lambda: self._now.validator, self._control_state, self._upstreams.pools, self._relations
        )
        self._metrics.add_sampler(figures)
        self._metrics.add_sampler(ResilienceFigures(self._metrics, self._resilience))
        self._metrics.add_sampler(SourceFigures(self._metrics, self._deciding))
        self._metrics.add_sampler(StoreFigures(self._metrics, self._connections))
        self._metrics.add_sampler(AuditCounters(self._metrics, lambda: self._audit.now))
        if config.server.inline:
            install_inline(self.asgi)

    # -- parts --------------------------------------------------------------------------------------------------------

    @functools.cached_property
    def _revoked_devices(self) -> RevokedDevices:
        """What log-in hears of revocations; it stays, whatever config is in force."""
        return RevokedDevices(self._clock, lambda: self._now.control.trusted)

    def _new_control(
        self, config: Config, validator: TokenValidator, store: RevocationStore | None = None
    ) -> TokenControl:
        oauth = self._plan_oauth(config)
        with _faults_at("issuers"):
            return TokenControl(
                config,
                base_dir=Path.cwd(),
                run_dir=self._worker.run_dir,
                validators=(validator,),
                clock=self._clock,
                store=store,
                resilience=self._resilience,
                sinks=(self._revoked_devices, *(() if oauth is None else (oauth.own, oauth.bound))),
            )

    def _generation(
        self, config: Config, validator: TokenValidator, control: TokenControl, read: PoliciesRead | None = None
    ) -> _Generation:
        """Make everything that a config asks for, changing nothing that serves. Raises ConfigError.

        `read`: its policies, where they were read already.
        """
        pools = self._upstreams.plan(config.server)
        logs = self._logs.of_issuers([issuer.issuer for issuer in config.issuers], config.log)
        policies, more, recorder = self._plan_policies(config, logs, read)
        with _faults_at("routes"):
            plan = plan_routes(config, pools.pool_of, None if policies is None else policies.route_policy)
        sessions = self._plan_sessions(config)
        directory = self._plan_directory(config)
        oauth = self._plan_oauth(config)
        audit = self._plan_audit(config)
        if oauth is not None:
            more = [*more, *oauth.routes()]
        login = self._plan_login(config)
        deferred = self._plan_deferred(config)
        if login is not None:
            more = [*more, *login.routes()]
        scim = self._plan_scim(config)
        if scim is not None:
            more = [*more, *scim.routes()]
        ways = self._plan_ways(config, login)
        if ways is not None:
            more = [*more, *ways.routes()]
        introspects = bool(config.introspection.clients) or oauth is not None
        engine = Engine(
            validator,
            plan.snapshot,
            reserved=reserved_paths(introspects, more),
            header_bytes_max=config.server.header_bytes_max,
            header_count_max=config.server.header_count_max,
            policies=None if policies is None else policies.handle.cell,
            sessions=None if sessions is None else sessions.validator,
            session_cookie=config.sessions.cookie.encode(),
            sampling=None if recorder is None else recorder.sampling,
            proofs=oauth is not None,
        )
        judge = EngineJudge(engine, self._learner)
        with _faults_at("introspection.clients"):
            introspection = None
            if introspects:
                secrets = _secrets_of(config.introspection)
                introspection = Introspection(
                    judge,
                    secrets,
                    body_timeout_s=config.server.body_timeout_s,
                    resilience=self._resilience,
                    own=None if oauth is None else oauth.endpoints,
                )
        fetcher = None if self._policies is None or policies is None else self._policies.fetcher(policies)
        decisions = None if recorder is None else recorder.route
        asking = Asking(
            self._learner,
            fetcher,
            None if sessions is None else sessions.learner,
            None if oauth is None else oauth.proofs,
        )
        door = self._new_door(config, engine, introspection, more, asking=asking, logs=logs, decisions=decisions)
        return _Generation(
            config,
            validator,
            control,
            door,
            pools,
            policies,
            sessions,
            directory,
            oauth,
            scim,
            self._plan_admin(config, audit),
            judge,
            audit,
            login,
            ways,
            deferred,
            logs,
        )

    def _plan_sessions(self, config: Config) -> OpenedSessions | None:
        """Give the sessions of a config, where it has any. Raises ConfigError."""
        if not config.sessions.url:
            return None
        from gateway.front.sessions import SessionWish  # a gateway without sessions does without their code

        issuer = config.sessions.issuer or config.oauth.issuer or "portcullis"
        with _faults_at("sessions"):
            return self._sessions.of(
                SessionWish(config.sessions, issuer, _shape_of(config), lambda: _new_validator(config))
            )

    def _open_sessions(self, wish: SessionWish) -> OpenedSessions:
        from gateway.front.sessions import OpenedSessions

        return OpenedSessions(
            wish,
            base_dir=Path.cwd(),
            run_dir=self._worker.run_dir,
            clock=self._clock,
            auditor=self,
            resilience=self._resilience,
            connections=self._connections,
        )

    def _plan_directory(self, config: Config) -> OpenedDirectory | None:
        """Give the directory of a config, where it has one. Raises ConfigError."""
        if not config.directory.url:
            return None
        from gateway.front.directory import DirectoryWish  # a gateway without a directory does without its code

        with _faults_at("directory"):
            return self._directory.of(DirectoryWish(config.directory, self._resilience, self._clock))

    def _open_directory(self, wish: DirectoryWish) -> OpenedDirectory:
        from gateway.front.directory import OpenedDirectory

        places = {"base_dir": Path.cwd(), "run_dir": self._worker.run_dir}
        return OpenedDirectory(wish, **places, connections=self._connections)

    def _plan_login(self, config: Config) -> OpenedLogin | None:
        """Give the pages of log-in of a config, where it has them. Raises ConfigError."""
        sessions, directory = self._plan_sessions(config), self._plan_directory(config)
        if not config.login.enabled or sessions is None or directory is None:
            return None
        from gateway.front.login.part import LoginWish
        from gateway.front.login.ways import offered_of

        with _faults_at("passkeys"):
            offered = offered_of(config)
        around = self._login_neighbours(sessions, directory, offered)
        wish = LoginWish(
            config=config.login,
            sessions=config.sessions,
            directory=config.directory,
            hosts=config.forward_auth.login_hosts,
            parameter=config.forward_auth.login_parameter,
            trusted_proxies=config.server.trusted_proxies,
            body_timeout_s=config.server.body_timeout_s,
            beside=(offered, sessions, directory),
            around=around,
        )
        with _faults_at("login"):
            return self._login.of(wish)

    def _login_neighbours(
        self, sessions: OpenedSessions, directory: OpenedDirectory, offered: Offered
    ) -> LoginNeighbours:
        from gateway.front.login.part import LoginNeighbours

        return LoginNeighbours(
            resilience=self._resilience,
            clock=self._clock,
            auditor=self,
            sessions=sessions.sessions,
            directory=directory.directory,
            count=lambda method, outcome: self._metrics.counter("logins_total", method=method, outcome=outcome).add(),
            revoke=self._revoke,
            revoked=self._revoked_devices,
            ways=offered.first,
            second_ways=offered.second,
            account_ways=offered.account,
        )

    def _plan_ways(self, config: Config, login: OpenedLogin | None) -> OpenedWays | None:
        """Give the other ways to log in of a config, where it has any. Raises ConfigError."""
        if login is None or not (config.passkeys.rp_id or config.sso):
            return None
        from gateway.front.login.ways import WaysWish, offered_of

        sessions, directory = self._plan_sessions(config), self._plan_directory(config)
        assert sessions is not None and directory is not None
        wish = WaysWish(
            passkeys=config.passkeys,
            sso=config.sso,
            login_config=config.login,
            origin=config.login.url or config.oauth.issuer,
            session_s=config.sessions.absolute_s,
            body_timeout_s=config.server.body_timeout_s,
            login=login,
            around=self._login_neighbours(sessions, directory, offered_of(config)),
        )
        with _faults_at("sso"):
            return self._ways.of(wish)

    def _open_ways(self, wish: WaysWish) -> OpenedWays:
        from gateway.front.login.ways import OpenedWays

        return OpenedWays(wish, base_dir=Path.cwd())

    def _open_login(self, wish: LoginWish) -> OpenedLogin:
        from gateway.front.login.part import OpenedLogin

        return OpenedLogin(wish, base_dir=Path.cwd(), run_dir=self._worker.run_dir)

    def _plan_deferred(self, config: Config) -> OpenedDeferred | None:
        """Give the deferred work of a config, where anything is put off. Raises ConfigError."""
        if not _has_backchannel(config):
            return None
        from gateway.front.deferred import DeferredWish

        with _faults_at("deferred"):
            return self._deferred.of(DeferredWish(config.deferred, self._clock))

    def _open_deferred(self, wish: DeferredWish) -> OpenedDeferred:
        from gateway.flows.oauth.logout import JOB
        from gateway.front.deferred import OpenedDeferred

        handlers = {JOB: self._tell_client}
        return OpenedDeferred(wish, handlers, base_dir=Path.cwd(), run_dir=self._worker.run_dir)

    async def _put_job(self, kind: str, key: str, body: Mapping[str, object]) -> None:
        deferred = self._now.deferred
        assert deferred is not None  # whoever puts something off was made for a config that has it
        await deferred.runner.put(kind, key, body)

    async def _tell_client(self, job: Job) -> None:
        """Tell a client that a session is over."""
        oauth = self._now.oauth
        if oauth is None or oauth.service.logout is None:
            from gateway.flows.deferred import GaveUp

            raise GaveUp("there is no token service any more")
        await oauth.service.logout.deliver(job)

    def _trusting(self, config: Config) -> Config:
        """Give a config as it is served: our own tokens are trusted without anybody writing that down."""
        oauth = self._plan_oauth(config)
        return config if oauth is None else replace(config, issuers=(*config.issuers, oauth.issuer))

    def _plan_oauth(self, config: Config) -> OpenedOAuth | None:
        """Give the token service of a config, where it has one. Raises ConfigError."""
        if not config.oauth.issuer:
            return None
        from gateway.front.oauth.part import OAuthNeighbours, OAuthWish

        sessions = self._plan_sessions(config)
        directory = self._plan_directory(config)
        around = OAuthNeighbours(
            resilience=self._resilience,
            clock=self._clock,
            auditor=self,
            revoke=self._revoke,
            sessions=None if sessions is None else (sessions.sessions, sessions.cookie),
            directory=None if directory is None else directory.directory,
            level=lambda: self._vitals.degradation_level,
            count=lambda grant, outcome: self._metrics.counter(
                "token_requests_total", grant=grant, outcome=outcome
            ).add(),
            new_validator=lambda: _new_validator(config),
            put_job=self._put_job if _has_backchannel(config) else None,
            caller_of=Callers(TrustedProxies(config.server.trusted_proxies)),
        )
        wish = OAuthWish(
            config.oauth,
            config.server.body_timeout_s,
            config.forward_auth.login_url,
            config.forward_auth.login_parameter,
            config.login.texts,
            config.server.trusted_proxies,
            config.sessions,
            config.directory,
            _shape_of(config),
            around,
        )
        with _faults_at("oauth"):
            return self._oauth.of(wish)

    def _open_oauth(self, wish: OAuthWish) -> OpenedOAuth:
        from gateway.front.oauth.part import OpenedOAuth

        try:
            places = {"base_dir": Path.cwd(), "run_dir": self._worker.run_dir}
            opened = OpenedOAuth(wish, **places, connections=self._connections)
        except (KeyInvalid, OSError) as error:
            raise ValueError(str(error)) from error
        opened.own.is_trusted = opened.bound.is_trusted = lambda: self._now.control.trusted
        return opened

    def _plan_scim(self, config: Config) -> OpenedScim | None:
        """Give the SCIM of a config, where it has it. Raises ConfigError."""
        directory = self._plan_directory(config)
        if not config.scim.base_url or directory is None:
            return None
        with _faults_at("scim"):
            try:
                from gateway.front.scim.part import ScimNeighbours, ScimWish
            except ModuleNotFoundError as error:
                raise ValueError(f"{error.name} is missing; `pip install portcullis-gateway[scim]`") from error
            around = ScimNeighbours(
                resilience=self._resilience,
                clock=self._clock,
                auditor=self,
                directory=directory.directory,
                leaving=self._new_leaving(config, directory.directory),
                judge=self._judge,
                where=Callers(TrustedProxies(config.server.trusted_proxies)),
            )
            wish = ScimWish(
                config=config.scim,
                login=config.login,
                directory=config.directory,
                sessions=config.sessions,
                issuer=config.oauth.issuer,
                trusted_proxies=config.server.trusted_proxies,
                body_timeout_s=config.server.body_timeout_s,
                around=around,
            )
            return self._scim.of(wish)

    def _open_scim(self, wish: ScimWish) -> OpenedScim:
        from gateway.front.scim.part import OpenedScim

        return OpenedScim(wish, base_dir=Path.cwd())

    def _plan_admin(self, config: Config, audit: OpenedAudit | None) -> OpenedAdmin | None:
        """Give the admin API of a config, where somebody may use it. Raises ConfigError."""
        directory, sessions, oauth = self._plan_directory(config), self._plan_sessions(config), self._plan_oauth(config)
        if directory is None or not (config.admin.tokens or config.admin.roles):
            return None
        from gateway.front.admin.part import AdminNeighbours, AdminWish, GrantedByUs

        around = AdminNeighbours(
            resilience=self._resilience,
            clock=self._clock,
            auditor=self,
            directory=directory.directory,
            leaving=self._new_leaving(config, directory.directory),
            revoke=self._revoke,
            judge=self._judge,
            where=Callers(TrustedProxies(config.server.trusted_proxies)),
            state=self._state_shown,
            sessions=None if sessions is None else sessions.sessions,
            granted=None if oauth is None else GrantedByUs(oauth.service),
            read_audit=None if audit is None else audit.log.read,
        )
        wish = AdminWish(
            config=config.admin,
            directory=config.directory,
            sessions=config.sessions,
            oauth=config.oauth,
            audit=config.audit,
            digest=hashlib.sha256(msgspec.json.encode(config, order="deterministic")).hexdigest(),
            trusted_proxies=config.server.trusted_proxies,
            around=around,
        )
        with _faults_at("admin"):
            return self._admin.of(wish)

    def _open_admin(self, wish: AdminWish) -> OpenedAdmin:
        from gateway.front.admin.part import OpenedAdmin

        return OpenedAdmin(wish, base_dir=Path.cwd())

    async def _administer(self, request: Request) -> Response:
        """Answer the admin API by the config in force; without it there is nothing at its addresses."""
        admin = self._admin.now
        if admin is None:
            return ProblemResponse(404, "not_found", "Not found", "there is nothing at this address")
        return await admin.endpoint(request)

    def _state_shown(self) -> Mapping[str, object]:
        """Give what administrators see of this worker."""
        vitals = self._vitals
        dependencies = {name: {"state": each.state, **each.detail} for name, each in vitals.dependencies().items()}
        return {
            **vitals.detail(),
            "version": __version__,
            "worker": self._worker.index,
            "draining": vitals.draining,
            "dependencies": dependencies,
        }

    def _new_leaving(self, config: Config, directory: Directory) -> Leaving:
        """Give what ends everything that a user has."""
        from gateway.flows.leaving import Leaving

        sessions = self._plan_sessions(config)
        return Leaving(
            directory,
            self._revoke,
            clock=self._clock,
            sessions=None if sessions is None else sessions.sessions,
            end_grants=self._end_grants,
            issuer=config.oauth.issuer,
            devices=config.login.enabled and config.login.provisional_device_s > 0,
        )

    async def _end_grants(self, subject: Subject) -> int:
        oauth = self._now.oauth
        return 0 if oauth is None else await oauth.service.ended_subject(subject)

    async def _judge(self, token: bytes) -> tuple[Mapping[str, Any] | None, str]:
        """Judge an access token as the doors do that are in force."""
        return await self._now.judge.judge(token)

    def _plan_audit(self, config: Config) -> OpenedAudit | None:
        """Give the audit log of a config, where there is anything that it tells of. Raises ConfigError."""
        told = config.sessions.url or config.directory.url or config.oauth.issuer
        if config.audit.url == "off" or not (told or config.admin.tokens or config.admin.roles):
            return None
        from gateway.front.audit import AuditWish  # a gateway without flows does without its code

        with _faults_at("audit"):
            return self._audit.of(AuditWish(config.audit, self._worker.index, self._clock))

    def _open_audit(self, wish: AuditWish) -> OpenedAudit:
        from gateway.front.audit import OpenedAudit

        places = {"base_dir": Path.cwd(), "run_dir": self._worker.run_dir}
        return OpenedAudit(wish, **places, connections=self._connections)

    async def _revoke(
        self, kind: RevocationKind, issuer: str, value: str, *, until_s: int, issued_before_s: int = 0
    ) -> None:
        await self._now.control.revoke(kind, issuer, value, until_s=until_s, issued_before_s=issued_before_s)

    def tell(self, event: AuditEvent) -> None:
        """Note what matters for security in the audit log of the config in force, and in its lines."""
        event = as_granted(event, self._resilience.degradation.current)
        lines, log = self._now.logs.audit, self._audit.now
        if lines is not None:
            lines.tell(event)
        if log is not None:
            log.tell(event)

    def _own_policies(self) -> Policies:
        from gateway.front.policies import Policies  # a gateway without policies does without their code

        if self._policies is None:
            self._policies = Policies(
                self._worker.run_dir, self._clock, replan=self._replan, resilience=self._resilience
            )
        return self._policies

    def _read_policies(self, config: Config) -> PoliciesRead | None:
        """Read and compile the policies: what takes long, for a thread. Raises ConfigError with files and lines."""
        return self._own_policies().read(config.policy) if config.policy.path else None

    def _plan_policies(
        self, config: Config, logs: RequestLogs, read: PoliciesRead | None
    ) -> tuple[PolicyPlan | None, list[Route], DecisionRecorder | None]:
        """Plan the policies, give the endpoints that ask them, and what writes their decisions down.

        Raises ConfigError with their files and lines.
        """
        if not config.policy.path:
            return None, [], None
        policies = self._own_policies()
        plan = policies.plan(config.policy, read)
        recorder = policies.recorder(config.log, plan, logs.decisions)
        with _faults_at("authzen"):
            return plan, policies.routes(config, plan, Path.cwd(), recorder), recorder

    def _commit_policies(self, generation: _Generation) -> None:
        if self._policies is not None:
            self._policies.commit(generation.policies)
            if "policy_engine" not in self._resilience.degradation.dependencies:
                self._resilience.watch("policy_engine", lambda: probe_policies(self._relations(), self._deciding()))
            if self._is_started:
                self._spawn(self._policies.start())  # of no effect but where these are the first policies

    def _new_door(
        self,
        config: Config,
        engine: Engine,
        introspection: Introspection | None,
        more: list[Route],
        *,
        asking: Asking,
        logs: RequestLogs,
        decisions: Callable[[Decided, str, str, str], None] | None,
    ) -> FrontDoor:
        names = identity_header_names(config)
        drop = frozenset(names) | {DECISION_HEADER}
        blank = tuple((name, b"") for name in names)
        relay = SocketRelay(
            drop,
            blank,
            decision_id=config.identity.decision_id,
            stop=self._stop,
            open_sockets=self._metrics.gauge("websocket_connections"),
        )
        oauth, login = self._plan_oauth(config), self._plan_login(config)
        metadata = "" if oauth is None else oauth.resource_metadata_url
        gates = () if login is None else login.gates()
        return FrontDoor(
            engine,
            app=public_app(self._vitals, introspection, self._lifespan, more, gates),
            ask=asking,
            websocket=SocketDoor(asking, relay, config.server.realm),
            fault=FaultAnswers(self._count_fault),
            drop=drop,
            is_trusted=TrustedProxies(config.server.trusted_proxies),
            answers=deny_answers(config.server.realm, resource_metadata=metadata, proofs=oauth is not None),
            forward_answers=deny_answers(
                config.server.realm, forward=True, resource_metadata=metadata, proofs=oauth is not None
            ),
            blank_identity=blank,
            metrics=self._block,
            decision_slot=self._decision_slot,
            duration_slot=lambda door: self._metrics.slot("request_duration_seconds", door=door),
            access=logs.access,
            audit=logs.audit,
            decisions=decisions,
            login=login_redirect(config.forward_auth, own_pages=config.login.enabled),
            sync_send=sync_send_type(),
            decision_id=config.identity.decision_id,
        )

    def _decision_slot(self, door: str, reason: str) -> int:
        return self._metrics.slot("decisions_total", door=door, decision=decision_of(reason), reason=reason)

    def _count_fault(self, kind: str) -> None:
        with contextlib.suppress(KeyError):  # faults that are the client's own are not in the catalogue
            self._metrics.counter("upstream_faults_total", kind=kind).add()

    def _relations(self) -> RelationFollower | None:
        return None if self._policies is None else self._policies.relations

    def _deciding(self) -> Deciding | None:
        return None if self._policies is None else self._policies.deciding

    def _control_state(self) -> ControlState:
        return self._now.control.state()

    # -- life ---------------------------------------------------------------------------------------------------------

    @contextlib.asynccontextmanager
    async def _lifespan(self, _app: Starlette) -> AsyncIterator[None]:
        self._upstreams.commit(self._now.pools)
        self._is_started = True
        self._resilience.subscribe(level_teller(AuditTrail(self, self._clock)))
        self._resilience.start()
        starts = [self._now.control.start()]
        starts.append(self._sessions.start())
        starts.append(self._directory.start())
        starts.append(self._oauth.start())
        starts.append(self._audit.start())
        starts.append(self._login.start())
        starts.append(self._scim.start())
        starts.append(self._ways.start())
        starts.append(self._admin.start())
        starts.append(self._deferred.start())
        if self._policies is not None:
            starts.append(self._policies.start())
        await asyncio.gather(*starts)
        own = [
            asyncio.create_task(self._sample_for_ever(), name="metrics"),
            asyncio.create_task(self._watch_policies(), name="policies"),
        ]
        try:
            yield
        finally:
            for task in (*own, *self._tasks):
                task.cancel()
            await asyncio.gather(*own, *self._tasks, return_exceptions=True)
            if self._policies is not None:
                await self._policies.stop()
            await self._admin.stop()
            await self._scim.stop()
            await self._ways.stop()
            await self._deferred.stop()
            await self._login.stop()
            await self._oauth.stop()
            await self._sessions.stop()
            await self._directory.stop()
            await self._audit.stop()  # after everything that has something to tell
            await self._upstreams.aclose()
            await self._now.control.stop()
            await self._resilience.stop()
            self._logs.close()

    async def _sample_for_ever(self) -> None:
        while True:
            self._metrics.sample()
            await asyncio.sleep(SAMPLE_S)

    async def _watch_policies(self) -> None:
        """Follow the policies' files, where the config in force asks for it."""
        if self._policies is not None:
            await self._policies.read_texts()
        while True:
            await asyncio.sleep(max(WATCH_MIN_S, self._now.config.policy.watch_s))
            if self._policies is not None:
                await self._policies.look()

    @property
    def draining(self) -> bool:
        """Whether this worker sends its clients away; readiness goes first, then connections close."""
        return self._vitals.draining

    @draining.setter
    def draining(self, value: bool) -> None:
        self._vitals.draining = value
        self.asgi.draining = value
        if value:
            self._stop.set()
            self._upstreams.drain()

    # -- reload -------------------------------------------------------------------------------------------------------

    async def reload(self, config: Config) -> None:
        """Serve by another config from now on. Raises ConfigError, and changes nothing, where that cannot be.

        Policies are read and compiled beside the event loop: requests are answered meanwhile, by the former config.
        Where scopes, identity headers or cache sizes changed, tokens are judged by a new validator: it gets its keys
        first (at most SETTLE_S), and the former config serves until then. Everything else changes at once.
        """
        async with self._turn:
            config = self._trusting(config)
            read = await asyncio.to_thread(self._read_policies, config)
            if _shape_of(config) == _shape_of(self._now.config):
                following = self._generation(config, self._now.validator, self._now.control, read)
                self._wanted += 1
                self._publish(following)
                self._spawn(self._reload_control(following, self._wanted))
            else:
                validator = _new_validator(config)
                store = self._now.control.store if config.store == self._now.config.store else None
                control = self._new_control(config, validator, store)
                following = self._generation(config, validator, control, read)
                self._wanted += 1
                self._spawn(self._replace(following, self._wanted))

    def _replan(self, read: PoliciesRead) -> None:
        """Serve by policies of another schema, by which the routes are planned anew. Raises ConfigError."""
        now = self._now
        self._publish(self._generation(now.config, now.validator, now.control, read))

    def _publish(self, generation: _Generation) -> None:
        """Swap a generation in whole."""
        self._upstreams.commit(generation.pools)
        self._resilience.reload(generation.config.resilience)
        self._commit_policies(generation)
        self._sessions.take(generation.sessions)
        self._directory.take(generation.directory)
        self._oauth.take(generation.oauth)
        self._audit.take(generation.audit)
        self._login.take(generation.login)
        self._scim.take(generation.scim)
        self._ways.take(generation.ways)
        self._admin.take(generation.admin)
        self._deferred.take(generation.deferred)
        self._now = generation
        self.asgi.publish(generation.door)

    async def _reload_control(self, generation: _Generation, number: int) -> None:
        """Have the control plane follow a config whose routes are published already."""
        async with self._reloads:
            if self._wanted != number:
                return  # another reload came after this one
            try:
                await generation.control.reload(generation.config)
            except (GatewayError, ValueError) as error:
                _log.error("issuers and store were not reloaded, the former ones stay: %s", error)

    async def _replace(self, generation: _Generation, number: int) -> None:
        """Start a generation with a control plane of its own, and publish it when it can judge."""
        async with self._reloads:
            gone = generation.control
            if self._wanted == number:
                await generation.control.start()
                await self._settle(generation, number)
            if self._wanted == number:
                gone = self._now.control
                self._publish(generation)
            await gone.stop(keep_store=gone.store is self._now.control.store)

    async def _settle(self, generation: _Generation, number: int) -> None:
        """Wait until a generation can judge, for SETTLE_S at most, or until another reload makes it pointless."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(SETTLE_S):
                while self._wanted == number and not generation.control.state().ready:  # noqa: ASYNC110  (a reload)
                    await asyncio.sleep(SETTLE_STEP_S)

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


def _has_backchannel(config: Config) -> bool:
    return any(client.backchannel_logout_uri for client in config.oauth.clients)


def _secrets_of(config: IntrospectionConfig) -> dict[str, Secret]:
    return {client.id: resolve_secret(client.secret, Path.cwd()) for client in config.clients}


@contextlib.contextmanager
def _faults_at(key: str) -> Iterator[None]:
    """Turn what the parts refuse into a fault of the config."""
    try:
        yield
    except ValueError as error:
        raise ConfigError([ConfigFault("config", None, key, str(error))]) from error
