"""List questions: who may act on this, on what may this subject act, what may this subject do here.

Candidates come from the policies' scopes and relations (only what some `permit` could be about), in the order of their
ids, and each is decided as a request of its own, so that an answer never differs from that to the single question. Work
is bounded by time and count; what was not looked at yet is the rest of the answer, by `Found.resume`, and never left
out.
"""

from __future__ import annotations

import bisect
import itertools
import threading
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Literal

from gateway._native.uid import EntityUid
from gateway.policy.incremental import IncrementalEvaluator, Residual
from gateway.policy.relation_candidates import related_ids

if TYPE_CHECKING:
    from gateway.policy.engine import Answer, Engine, Request
    from gateway.policy.policy_set import Policy

BATCH: Final = 128  # requests that are decided at once
RESIDUAL_POLICIES_MAX: Final = 64  # more are not computed anew for one principal: that takes longer than it saves
RESIDUALS_MAX: Final = 256  # principals, by action, whose residuals are kept
NARROWED_MAX: Final = 8  # lists of candidates that are kept for the next page

Prepare = Callable[[EntityUid], "Request | None"]
Role = Literal["principal", "resource"]


@dataclass(frozen=True, slots=True)
class Found:
    """Allowed entities in order; `resume` is the id behind which to go on, None where everything was looked at."""

    uids: tuple[EntityUid, ...]
    resume: str | None
    looked_at: int


class EntitiesAway(Exception):
    """A search that rests on entities which are kept elsewhere and must be fetched first: then it is begun again."""

    def __init__(self, uids: frozenset[EntityUid]) -> None:
        super().__init__(f"{len(uids)} entities must be fetched first")
        self.uids = uids


def may_allow(engine: Engine, answer: Answer) -> bool:
    """Tell whether an answer may be acted on as an allow.

    Cedar skips a policy that cannot be evaluated. A `forbid` that was skipped might have held, so here it denies.
    """
    if not answer.allowed or answer.faults:
        return False
    policies = engine.policies.policies
    return all(policies[policy_id].statement.effect == "permit" for policy_id in answer.errors)


class Lister:
    """Answers list questions for one engine. Safe to use from many threads."""

    def __init__(self, engine: Engine, *, clock: Callable[[], float]) -> None:
        """`clock` gives seconds that only grow."""
        self.engine = engine
        self._clock = clock
        self._lock = threading.Lock()
        self._ordered: dict[str, tuple[int, list[str]]] = {}  # by type: revision of the store, ids
        self._found: dict[tuple[Role, str, EntityUid, EntityUid], tuple[int, list[str]]] = {}  # the same, of questions
        policies = engine.policies.policies.values()
        self._named = {uid for policy in policies for constraint in policy.scope() for uid in constraint.entities}
        self._evaluator = IncrementalEvaluator(engine, capacity=RESIDUALS_MAX)  # guarded by self._computing
        self._computing = threading.Lock()

    # --- candidates

    def resources(
        self, principal: EntityUid, action: EntityUid, kind: str, *, after: str | None = None
    ) -> tuple[Iterator[EntityUid], Residual | None]:
        """Yield what `entities` does of resources, but for those that no `permit` for this principal could be about.

        For requests that do not define the principal anew. With it comes the residual to decide them by, where it is
        worth one. That is for few policies of a principal who is stored: a store keeps the types of all it hears of.
        """
        if len(self.engine.candidates(principal, action)) > RESIDUAL_POLICIES_MAX or principal not in self.engine.store:
            return self.entities("resource", kind, action, principal, after=after), None
        with self._computing:
            residual = self._evaluator.residual(principal, action)
        left = () if residual.decided is False else residual.policies.policies.values()
        return self._behind(self._narrowed("resource", kind, left, action, principal), kind, after), residual

    def entities(
        self, role: Role, kind: str, action: EntityUid, other: EntityUid, *, after: str | None = None
    ) -> Iterator[EntityUid]:
        """Yield the entities of a type that a `permit` for the action could be about, in order, behind an id.

        `other` is who has the other role: the principal where resources are asked for, and the other way round.
        """
        principal, resource = (None, other) if role == "principal" else (other, None)
        policies, ids = self.engine.policies.policies, self.engine.ids
        numbers = self.engine.candidates(principal, action, resource)
        about = [policies[ids[number]] for number, _ in numbers]
        return self._behind(self._narrowed(role, kind, about, action, other), kind, after)

    def _behind(self, ids: list[str] | None, kind: str, after: str | None) -> Iterator[EntityUid]:
        if ids is None:
            ids = self._all_of(kind)
        start = 0 if after is None else bisect.bisect_right(ids, after)
        return (EntityUid(kind, ids[at]) for at in range(start, len(ids)))

    def actions(self, kind: str, *, after: str | None = None) -> Iterator[EntityUid]:
        """Yield the actions of a type, in order, behind an id.

        With a schema they are those that apply to something; without, those that policies name or that are stored.
        """
        schema = self.engine.schema
        if schema is not None:
            ids = {uid.id for uid, declared in schema.actions.items() if uid.type == kind and declared.principals}
        else:
            ids = {uid.id for uid in self._named if uid.type == kind}
            ids.update(uid.id for uid in self.engine.store.uids(kind))
        return (EntityUid(kind, each) for each in sorted(ids) if after is None or each > after)

    def _narrowed(
        self, role: Role, kind: str, policies: Iterable[Policy], action: EntityUid, other: EntityUid
    ) -> list[str] | None:
        """Give what the permits among policies leave of a type by their scopes, and by the relations that they ask for.

        None where that is all of it. `policies` are those for the action, and for `other` in the other role.
        """
        key, revision = (role, kind, action, other), self.engine.store.revision
        with self._lock:
            kept = self._found.get(key)
            if kept is not None and kept[0] == revision:
                return kept[1]
        ids = self._permitted(role, kind, policies, other)
        if ids is not None and self.engine.store.revision == revision:
            with self._lock:
                self._found.pop(key, None)
                self._found[key] = revision, ids
                while len(self._found) > NARROWED_MAX:
                    del self._found[next(iter(self._found))]
        return ids

    def _permitted(self, role: Role, kind: str, policies: Iterable[Policy], other: EntityUid) -> list[str] | None:
        store = self.engine.store
        ids: set[str] = set()
        for policy in policies:
            if policy.statement.effect != "permit":
                continue
            principal, _, resource = policy.scope()
            constraint = principal if role == "principal" else resource
            if constraint.type is not None and constraint.type != kind:
                continue
            if not constraint.entities:  # `any`, or `is` this type
                related = related_ids(self.engine.entities, policy, role, kind, other)
                if related is None:
                    return None
                ids |= related
            for named in constraint.entities:
                if named.type == kind:
                    ids.add(named.id)
                if constraint.op != "==" and store.has_sourced_types:
                    return None  # what lies between the two may be kept elsewhere
                if constraint.op != "==":
                    ids.update(uid.id for uid in store.descendants(named) if uid.type == kind)
        return sorted(ids)

    def _all_of(self, kind: str) -> list[str]:
        """Give the ids of all entities of a type that are stored, declared by choice, or named in a scope, in order."""
        store = self.engine.store
        revision = store.revision
        with self._lock:
            kept = self._ordered.get(kind)
            if kept is not None and kept[0] == revision:
                return kept[1]
        ids = {uid.id for uid in store.uids(kind)}
        ids.update(uid.id for uid in self._named if uid.type == kind)
        schema = self.engine.schema
        declared = None if schema is None else schema.entities.get(kind)
        if declared is not None and declared.choices is not None:
            ids.update(declared.choices)
        ordered = sorted(ids)
        if store.revision == revision:
            with self._lock:
                if kept is not None or ordered:  # types that nobody has must not fill the memory
                    self._ordered[kind] = revision, ordered
        return ordered

    # --- decisions

    def find(
        self,
        candidates: Iterator[EntityUid],
        prepare: Prepare,
        *,
        limit: int,
        count_max: int,
        time_s: float,
        residual: Residual | None = None,
    ) -> Found:
        """Decide candidates until `limit` are allowed, `count_max` were looked at or `time_s` is over.

        `prepare` gives a candidate's request, or None where there can be none. At least one batch is looked at, so
        that who resumes always comes to an end. A `residual` decides as long as it holds. Raises EntitiesAway.
        """
        until = self._clock() + time_s
        found: list[EntityUid] = []
        looked_at = 0
        last: str | None = None
        while True:
            batch = list(itertools.islice(candidates, max(1, min(BATCH, count_max - looked_at))))
            if not batch:
                return Found(tuple(found), None, looked_at)
            engine = residual.engine if residual is not None and residual.holds() else self.engine
            for uid, allowed in _decided(engine, batch, prepare):
                if allowed and len(found) == limit:
                    return Found(tuple(found), last, looked_at)
                looked_at += 1
                last = uid.id
                if allowed:
                    found.append(uid)
            if looked_at >= count_max or self._clock() >= until:
                return Found(tuple(found), last, looked_at)


def _decided(engine: Engine, batch: list[EntityUid], prepare: Prepare) -> Iterator[tuple[EntityUid, bool]]:
    prepared = [prepare(uid) for uid in batch]
    requests = [request for request in prepared if request is not None]
    if engine.store.has_sourced_types:
        away = frozenset(uid for request in requests if (uid := engine.answer(request).missing) is not None)
        if away:
            raise EntitiesAway(away)
    decisions = iter(engine.decide_all(requests))
    for uid, request in zip(batch, prepared, strict=True):
        # The fast way only says no for good: an allow may rest on a `forbid` that could not be evaluated.
        likely = request is not None and next(decisions)
        yield uid, likely and request is not None and may_allow(engine, engine.answer(request))
