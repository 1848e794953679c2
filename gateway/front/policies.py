"""The policies of a running worker: loaded with its config, swapped whole on reload, watched where wanted."""

from __future__ import annotations

import asyncio
import logging
import os
import threading
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

import msgspec
from starlette.routing import Route

from gateway._native.route_policy import RoutePolicy, Sampling
from gateway.config import AuthzenConfig, Config, LogConfig, PolicyConfig, RouteConfig, resolve_secret
from gateway.errors import ConfigError, ConfigFault
from gateway.front.authzen.endpoints import Caller, DecisionApi, Limits
from gateway.front.authzen.mapping import Names
from gateway.front.authzen.paging import PageTokens, page_key
from gateway.front.authzen.search import Searcher, SearchLimits
from gateway.front.deciding import Deciders, Deciding, DoorFetcher, Wanted
from gateway.front.decisions import DecisionRecorder
from gateway.front.principals import PrincipalClaims
from gateway.front.relations import Following, Relations
from gateway.front.route_policy import compile_route_policy
from gateway.front.routing import policies_of_routes
from gateway.observability.decisions import DecisionLog
from gateway.policy.engine import Engine
from gateway.policy.faults import Fault, PolicyFault
from gateway.policy.handle import PolicyHandle
from gateway.policy.related_entities import RelatedEntities
from gateway.policy.relation_follower import RelationFollower
from gateway.policy.relation_reads import RelationReads
from gateway.policy.repository import Loaded, PolicyRepository, Sources
from gateway.policy.residency import misfits
from gateway.resilience import Resilience
from gateway.types import Clock

_log = logging.getLogger("portcullis.policies")

COMPILED_FOLDER: Final = "compiled"  # in the run dir
_RELATIONS_KEY: Final = "policy.relations.url"
REFRESH_S: Final = 0.2  # at most one look in this time, whatever revisions callers ask for


@dataclass(frozen=True, slots=True)
class PoliciesRead:
    """What the files of a config say, compiled. Nothing of it serves."""

    repository: PolicyRepository
    loaded: Loaded


@dataclass(frozen=True, slots=True)
class PolicyPlan:
    """What a config made of policies, not yet in force: `commit` puts it there."""

    repository: PolicyRepository
    handle: PolicyHandle
    loaded: Loaded
    config: PolicyConfig
    principals: PrincipalClaims
    following: Following | None  # of the relations among the entities; None: there are none
    deciding: Deciding

    def route_policy(self, route: RouteConfig, index: int) -> RoutePolicy | None:
        """Compile what a route asks of the policies. Raises ConfigError."""
        return compile_route_policy(route, index, self.principals)


class Policies:
    """Keeps one handle over all reloads, so that revisions grow for as long as the worker lives."""

    def __init__(
        self,
        run_dir: Path,
        clock: Clock,
        *,
        replan: Callable[[PoliciesRead], None] | None = None,
        resilience: Resilience | None = None,
    ) -> None:
        """`replan` plans anew what was planned by a schema, when a watched one is another. It raises ConfigError.

        `resilience` is the worker's, behind whose breakers sources of entities are read.
        """
        self._replan = replan
        self._resilience = resilience
        self._refused: Loaded | None = None  # what was read and could not be put in force; told of once
        self._run_dir = run_dir
        self._clock = clock
        self._lock = threading.Lock()  # a repository belongs to one thread at a time
        self._now: PolicyPlan | None = None
        self._is_started = False
        self._doubted: RelationReads | None = None  # what was looked through last, or is being
        self._doubting: set[asyncio.Task[None]] = set()
        self._relations = Relations(
            base_dir=Path.cwd(), run_dir=run_dir, clock=clock, publish=self._publish, on_trust=self._look_at_trust
        )
        self._deciders = Deciders(
            base_dir=Path.cwd(), run_dir=run_dir, clock=clock, world=self._world, resilience=resilience
        )
        self._looked_s = clock.monotonic_s() - REFRESH_S

    def read(self, config: PolicyConfig) -> PoliciesRead:
        """Load what a config asks for: of many policies the slow part, and for any thread.

        Changes nothing that serves. Raises ConfigError with file and line.
        """
        sources = sources_of(config)
        now = self._now
        with self._lock:
            kept = now is not None and now.repository.sources == sources and _keep_alike(now.config, config)
            repository = now.repository if kept and now is not None else self._repository(sources)
            try:
                loaded = repository.load()
            except PolicyFault as error:
                raise ConfigError([as_config_fault(fault) for fault in error.faults]) from error
        if repository.cache_fault is not None:
            _log.warning("compiled policies are not kept for the next start: %s", repository.cache_fault)
        return PoliciesRead(repository, loaded)

    def plan(self, config: PolicyConfig, read: PoliciesRead | None = None) -> PolicyPlan:
        """Make ready what was `read`, or is read now, changing nothing that serves. Raises ConfigError."""
        now, found = self._now, read or self.read(config)
        loaded = found.loaded
        _refuse_made_by_relations(config, loaded)
        principals = PrincipalClaims(config, loaded.engine.schema)
        following = self._following(loaded, config)
        deciding = self._deciding(loaded, config)
        if now is None:
            follower = None if following is None else following.follower
            sourced = deciding.prefetcher is not None
            handle = PolicyHandle(loaded.engine, loaded.digest, stamp=loaded.stamp, relations=follower, sourced=sourced)
        else:
            handle = now.handle
        return PolicyPlan(found.repository, handle, loaded, config, principals, following, deciding)

    def _repository(self, sources: Sources) -> PolicyRepository:
        """Give what loads policies; what it compiles is kept for workers that start later."""
        return PolicyRepository(sources, cache=self._run_dir / COMPILED_FOLDER, is_start=self._now is None)

    def _following(self, loaded: Loaded, config: PolicyConfig) -> Following | None:
        """Give what keeps the relations of these entities, where the schema has any. Raises ConfigError."""
        entities = loaded.engine.entities
        if not isinstance(entities, RelatedEntities):
            return None
        check_relations(loaded, config)
        try:
            return self._relations.of(config.relations, entities.graph)
        except ValueError as error:
            raise ConfigError([ConfigFault("config", None, _RELATIONS_KEY, str(error))]) from error

    def _deciding(self, loaded: Loaded, config: PolicyConfig) -> Deciding:
        """Give what decides by a config; the entities' store knows then what is kept elsewhere. Raises ConfigError."""
        try:
            deciding = self._deciders.of(Wanted.of(config))
        except ValueError as error:
            raise ConfigError([ConfigFault("config", None, "policy.sources", str(error))]) from error
        check_sources(loaded, config)
        if deciding.prefetcher is not None:
            _tell_of_unread(loaded, config)
            deciding.prefetcher.adopt(loaded.engine)
        return deciding

    def _world(self, engine: Engine) -> bytes:
        """Say what decisions rest on besides policies and sources: the files they came with, and relations."""
        plan = self._now
        if plan is None or plan.handle.now.engine is not engine:
            return os.urandom(16)  # a moment ago it was in force: nobody shares what is decided by it
        follower = plan.handle.now.relations
        return f"{plan.handle.now.digest} {'' if follower is None else follower.standing}".encode()

    def commit(self, plan: PolicyPlan | None) -> None:
        """Put a plan in force; None: the config has no policies any more, and nothing asks them.

        Where all relations have to be read anew, the former plan decides until they are (`front/relations.py`).
        """
        if plan is None:
            plan = self._now
            if plan is not None:
                self._now = replace(plan, config=msgspec.structs.replace(plan.config, watch_s=0.0))
            return
        self._now = plan
        self._relations.take(plan.following)

    def _publish(self) -> None:
        """Have what was committed last decide from now on."""
        plan = self._now
        assert plan is not None
        handle, loaded, following = plan.handle, plan.loaded, plan.following
        self._deciders.take(plan.deciding)
        if handle.now.engine is not loaded.engine:
            follower = None if following is None else following.follower
            sourced = plan.deciding.prefetcher is not None
            handle.publish(loaded.engine, loaded.digest, stamp=loaded.stamp, relations=follower, sourced=sourced)
            _log.info("policies are in force: revision %d, %d policies", handle.revision, len(loaded.engine))
            self._look_at_trust()

    # --- relations

    async def start(self) -> None:
        """Begin to follow relations and sources, where there are any; waits for the first look, and not for ever."""
        self._is_started = True
        await asyncio.gather(self._relations.start(), self._deciders.start())
        self._look_at_trust()

    async def stop(self) -> None:
        """End the following."""
        for task in self._doubting:
            task.cancel()
        await asyncio.gather(*self._doubting, return_exceptions=True)
        await asyncio.gather(self._relations.stop(), self._deciders.stop())

    @property
    def relations(self) -> RelationFollower | None:
        """What keeps the relations that are in force; None: there are none."""
        return self._relations.follower

    @property
    def deciding(self) -> Deciding | None:
        """What decides beyond the hot path; None: no policies are in force."""
        return self._deciders.now

    def fetcher(self, plan: PolicyPlan) -> DoorFetcher:
        """Give what the doors ask for entities that are not here."""
        return DoorFetcher(lambda: plan.handle.now.engine, lambda: self._deciders.now)

    def _look_at_trust(self) -> None:
        if self._now is None:
            return
        self._now.handle.look()
        snapshot = self._now.handle.now
        reads = snapshot.reads
        if self._is_started and snapshot.refusal and reads is not None and reads is not self._doubted:
            self._doubted = reads
            task = asyncio.get_running_loop().create_task(self._doubt(reads), name="policies: doubt")
            self._doubting.add(task)
            task.add_done_callback(self._doubting.discard)

    async def _doubt(self, reads: RelationReads) -> None:
        """Find out what does not depend on relations, and let that be decided while they cannot be trusted."""
        try:
            await asyncio.to_thread(reads.prepare)
        except PolicyFault as error:
            _log.error("nothing is decided without relations: %s", error)
        if self._now is not None:
            self._now.handle.look()

    @staticmethod
    def recorder(config: LogConfig, plan: PolicyPlan, log: DecisionLog | None) -> DecisionRecorder | None:
        """Give what writes decisions to the log that a config asks for; None where it asks for none."""
        if log is None:
            return None
        sampling = Sampling(all=config.decisions == "all", rate=config.decisions_share)
        return DecisionRecorder(plan.handle, log, sampling)

    def routes(
        self, config: Config, plan: PolicyPlan, base_dir: Path, recorder: DecisionRecorder | None = None
    ) -> list[Route]:
        """Give the routes of the decision API; none where nobody may ask. `recorder` writes its decisions down."""
        authzen = config.authzen
        if not authzen.clients and not authzen.open_on_loopback:
            return []
        searcher = Searcher(
            Names(authzen.types, authzen.action_type),
            PageTokens(page_key(self._run_dir), self._clock, lifetime_s=authzen.page_token_s),
            SearchLimits(authzen.page_limit, authzen.search_candidates_max, authzen.search_time_s),
        )
        limits = Limits(
            authzen.body_bytes_max, config.server.body_timeout_s, authzen.evaluations_max, authzen.page_limit_max
        )
        return DecisionApi(
            plan.handle,
            searcher,
            _callers_of(authzen, base_dir),
            limits,
            clock=self._clock,
            open_trust=authzen.open_trust_properties if authzen.open_on_loopback else None,
            base_url=authzen.base_url,
            recorder=recorder,
            refresh=self.refresh if plan.config.watch_s else None,
            deciding=lambda: self._deciders.now,
            serving=self._serving,
            observe=self._observe,
        ).routes()

    def _observe(self, elapsed_s: float) -> None:
        """Tell the health of policies how long a decision took: where that is long, what is not essential is left."""
        if self._resilience is not None:
            self._resilience.degradation.observe("policy_engine", True, elapsed_s)

    def _serving(self) -> AbstractAsyncContextManager[object]:
        """Serve one request of the decision API: like other questions of resource servers."""
        return nullcontext() if self._resilience is None else self._resilience.serving("token_validation")

    # --- watching

    async def look(self) -> None:
        """Look for changed files, where the config in force asks for it, and publish what can serve."""
        plan = self._now
        if plan is not None and plan.config.watch_s:
            await self._change(plan, plan.repository.look)

    async def refresh(self) -> None:
        """Look right now, for a caller that knows of something newer; what cannot serve is logged, and not taken."""
        plan = self._now
        if plan is not None and self._clock.monotonic_s() - self._looked_s >= REFRESH_S:
            self._looked_s = self._clock.monotonic_s()
            await self._change(plan, plan.repository.load)

    async def _change(self, plan: PolicyPlan, load: Callable[[], Loaded | None]) -> None:
        """Load beside the event loop, and commit what is new; a config that came meanwhile goes before."""
        loaded = None
        try:
            loaded = await asyncio.to_thread(self._locked, load)
            if loaded is None or plan is not self._now or loaded is plan.loaded or loaded is self._refused:
                return
            if self._replan is not None and loaded.engine.schema is not plan.loaded.engine.schema:
                self._replan(PoliciesRead(plan.repository, loaded))
            else:
                following, deciding = self._following(loaded, plan.config), self._deciding(loaded, plan.config)
                self.commit(replace(plan, loaded=loaded, following=following, deciding=deciding))
        except (PolicyFault, ConfigError) as error:
            self._refused = loaded
            _log.error("policies were not reloaded, the former ones stay: %s", error)

    async def read_texts(self) -> None:
        """Read what a quick start from the cache left for later."""
        plan = self._now
        if plan is not None:
            await asyncio.to_thread(plan.repository.read_texts)

    def _locked(self, load: Callable[[], Loaded | None]) -> Loaded | None:
        with self._lock:
            return load()


def _keep_alike(one: PolicyConfig, other: PolicyConfig) -> bool:
    """Tell whether two configs keep entities in the same places, so that one store serves both."""
    return one.relations == other.relations and Wanted.of(one).entities == Wanted.of(other).entities


def check_fit(config: Config, loaded: Loaded) -> None:
    """Raise ConfigError with what of a config does not fit its policies, as serving it would."""
    check_relations(loaded, config.policy)
    check_sources(loaded, config.policy)
    _refuse_made_by_relations(config.policy, loaded)
    principals = PrincipalClaims(config.policy, loaded.engine.schema)
    policies_of_routes(config, lambda route, index: compile_route_policy(route, index, principals))


def check_relations(loaded: Loaded, config: PolicyConfig) -> None:
    """Raise ConfigError for a schema that has relations where the config keeps none.

    Nobody would stand in any of them, and a `forbid` that asks for one would never hold.
    """
    if isinstance(loaded.engine.entities, RelatedEntities) and not config.relations.url:
        problem = "the schema has relations, and nothing keeps them"
        hint = 'say where they are kept: `[policy.relations]`, `url = "embedded"`'
        raise ConfigError([ConfigFault("config", None, _RELATIONS_KEY, problem, hint)])


def check_sources(loaded: Loaded, config: PolicyConfig) -> None:
    """Raise ConfigError for types that cannot be kept in sources, by what schema and relations say of them."""
    faults = [
        ConfigFault("config", None, f"policy.sources[{index}].types", fault.message, fault.hint)
        for index, source in enumerate(config.sources)
        for fault in misfits(loaded.engine, source.types).values()
    ]
    if faults:
        raise ConfigError(faults)


def _tell_of_unread(loaded: Loaded, config: PolicyConfig) -> None:
    """Warn of entities in the file that do not count, since their type is kept in a source."""
    store = loaded.engine.store
    for source in config.sources:
        for name in source.types:
            count = 0 if store.is_sourced(name) else store.count_of(name)
            if count:
                _log.warning(
                    "%d entities of `%s` in the file do not count: the type is kept in `%s`", count, name, source.name
                )


def sources_of(config: PolicyConfig) -> Sources:
    """Give where the policies of a config are."""
    return Sources(
        Path(config.path),
        Path(config.schema) if config.schema else None,
        Path(config.entities) if config.entities else None,
        config.validation,
        config.policy_bytes_max,
        config.entity_bytes_max,
    )


def _refuse_made_by_relations(config: PolicyConfig, loaded: Loaded) -> None:
    """Raise ConfigError for claims that would define what relations make: a token would open what none opens."""
    entities = loaded.engine.entities
    if not isinstance(entities, RelatedEntities):
        return
    rules = entities.graph.rules
    faults = [
        ConfigFault("config", None, f"policy.principal_claims.{name}", "relations make this attribute", "map another")
        for name in config.principal_claims
        if name in rules.of_type(config.principal)
    ] + [
        ConfigFault("config", None, f"policy.principal_parents.{claim}", f"relations make `{kind}`", "map another type")
        for claim, kind in config.principal_parents.items()
        if rules.of_node(kind) is not None
    ]
    if faults:
        raise ConfigError(faults)


def as_config_fault(fault: Fault) -> ConfigFault:
    """Show a fault of policies as one of the config, at its own file and line."""
    place = f" at `{fault.pointer}`" if fault.pointer else ""
    return ConfigFault(fault.file or "policies", fault.line, "", fault.message + place, fault.hint)


def _callers_of(authzen: AuthzenConfig, base_dir: Path) -> dict[str, Caller]:
    return {
        client.id: Caller(resolve_secret(client.secret, base_dir), client.trust_properties)
        for client in authzen.clients
    }
