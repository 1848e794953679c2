"""List questions: who may act on this, on what may this subject act, what may this subject do here.

Candidates come from the policies' scopes (only what some `permit` could be about), in the order of their ids, and each
is decided as a request of its own, so that an answer never differs from that to the single question. Work is bounded by
time and count; what was not looked at yet is the rest of the answer, by `Found.resume`, and never left out.
"""

from __future__ import annotations

import bisect
import itertools
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Literal

from gateway._native.uid import EntityUid

if TYPE_CHECKING:
    from gateway.policy.engine import Answer, Engine, Request
    from gateway.policy.language.tree import Constraint

BATCH: Final = 128  # requests that are decided at once

Prepare = Callable[[EntityUid], "Request | None"]


@dataclass(frozen=True, slots=True)
class Found:
    """Allowed entities in order; `resume` is the id behind which to go on, None where everything was looked at."""

    uids: tuple[EntityUid, ...]
    resume: str | None
    looked_at: int


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
        policies = engine.policies.policies.values()
        self._permits = [policy.scope() for policy in policies if policy.statement.effect == "permit"]
        self._named = {uid for policy in policies for constraint in policy.scope() for uid in constraint.entities}

    # --- candidates

    def entities(
        self, role: Literal["principal", "resource"], kind: str, action: EntityUid, *, after: str | None = None
    ) -> Iterator[EntityUid]:
        """Yield the entities of a type that a `permit` for the action could be about, in order, behind an id."""
        ids = self._narrowed(role, kind, action)
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

    def _narrowed(self, role: Literal["principal", "resource"], kind: str, action: EntityUid) -> list[str] | None:
        """Give what the scopes leave of a type, or None where that is all of it."""
        store = self.engine.store
        ids: set[str] = set()
        for principal, actions, resource in self._permits:
            if not self._covers(actions, action):
                continue
            constraint = principal if role == "principal" else resource
            if constraint.type is not None and constraint.type != kind:
                continue
            if not constraint.entities:  # `any`, or `is` this type
                return None
            for named in constraint.entities:
                if named.type == kind:
                    ids.add(named.id)
                if constraint.op != "==":
                    ids.update(uid.id for uid in store.descendants(named) if uid.type == kind)
        return sorted(ids)

    def _covers(self, constraint: Constraint, action: EntityUid) -> bool:
        if constraint.op == "any":
            return True
        if constraint.op == "==":
            return action in constraint.entities
        return any(self.engine.store.is_in(action, group) for group in constraint.entities)

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
        self, candidates: Iterator[EntityUid], prepare: Prepare, *, limit: int, count_max: int, time_s: float
    ) -> Found:
        """Decide candidates until `limit` are allowed, `count_max` were looked at or `time_s` is over.

        `prepare` gives a candidate's request, or None where there can be none. At least one batch is looked at, so
        that who resumes always comes to an end.
        """
        until = self._clock() + time_s
        found: list[EntityUid] = []
        looked_at = 0
        last: str | None = None
        while True:
            batch = list(itertools.islice(candidates, max(1, min(BATCH, count_max - looked_at))))
            if not batch:
                return Found(tuple(found), None, looked_at)
            for uid, allowed in self._decided(batch, prepare):
                if allowed and len(found) == limit:
                    return Found(tuple(found), last, looked_at)
                looked_at += 1
                last = uid.id
                if allowed:
                    found.append(uid)
            if looked_at >= count_max or self._clock() >= until:
                return Found(tuple(found), last, looked_at)

    def _decided(self, batch: list[EntityUid], prepare: Prepare) -> Iterator[tuple[EntityUid, bool]]:
        prepared = [prepare(uid) for uid in batch]
        requests = [request for request in prepared if request is not None]
        decisions = iter(self.engine.decide_all(requests))
        for uid, request in zip(batch, prepared, strict=True):
            # The fast way only says no for good: an allow may rest on a `forbid` that could not be evaluated.
            likely = request is not None and next(decisions)
            yield uid, likely and request is not None and may_allow(self.engine, self.engine.answer(request))
