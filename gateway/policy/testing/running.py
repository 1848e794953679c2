"""Runs tests of policies, and tells which policies they never saw hold or fail to hold."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from gateway._native.uid import EntityUid
from gateway.policy.engine import Engine
from gateway.policy.entities import Entities, Entity
from gateway.policy.faults import Fault, PolicyFault, RequestError
from gateway.policy.language import tree
from gateway.policy.language.statements import parse_expression
from gateway.policy.policy_set import PolicySet
from gateway.policy.related_entities import RelatedEntities
from gateway.policy.requests import parse_context, validate_request
from gateway.policy.schema import Schema
from gateway.policy.testing.cases import Case
from gateway.stores.relations import Relation, RelationChange


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of one case; passed where `problems` is empty."""

    case: Case
    allowed: bool
    reasons: frozenset[str]
    errors: frozenset[str]
    problems: tuple[str, ...]

    @property
    def passed(self) -> bool:
        return not self.problems


@dataclass(frozen=True, slots=True)
class PolicyCoverage:
    """In how many cases a policy was satisfied, was not, and erred."""

    policy_id: str
    satisfied: int
    unsatisfied: int
    erred: int

    @property
    def is_covered(self) -> bool:
        """A policy is covered when tests saw it hold and saw it not hold."""
        return self.satisfied > 0 and self.unsatisfied > 0


@dataclass(frozen=True, slots=True)
class Run:
    """All outcomes, in the order of the cases, and the coverage, in the order of the policies."""

    outcomes: tuple[Outcome, ...]
    coverage: tuple[PolicyCoverage, ...]

    @property
    def passed(self) -> bool:
        return all(outcome.passed for outcome in self.outcomes)


def parse_uid(text: str) -> EntityUid:
    """Read `Type::"id"`. Raises PolicySyntaxError or RequestError."""
    node = parse_expression(text)
    if isinstance(node, tree.Literal) and isinstance(node.value, EntityUid):
        return node.value
    raise RequestError([Fault("no_entity", f"`{text}` is no entity", 'write it as Type::"id"')])


def run_cases(
    policies: PolicySet,
    entities: Entities,
    schema: Schema | None,
    cases: Sequence[Case],
    relations: Sequence[Relation] = (),
) -> Run:
    """Decide every case. With a schema, requests and entities must fit it; `relations` are there in all of them."""
    _relate(entities, relations)
    engine = Engine(policies, entities, schema)
    counts = {policy_id: [0, 0, 0] for policy_id in policies.policies}
    outcomes = tuple(_run(engine, schema, case, counts) for case in cases)
    return Run(outcomes, tuple(PolicyCoverage(name, *count) for name, count in counts.items()))


def _run(engine: Engine, schema: Schema | None, case: Case, counts: dict[str, list[int]]) -> Outcome:
    try:
        with _Defined(engine.entities, schema, case):
            return _decide(engine, schema, case, counts)
    except PolicyFault as error:
        return Outcome(case, False, frozenset(), frozenset(), (str(error),))


def _decide(engine: Engine, schema: Schema | None, case: Case, counts: dict[str, list[int]]) -> Outcome:
    principal, action, resource = (parse_uid(text) for text in (case.principal, case.action, case.resource))
    context = parse_context(case.context, schema, action)
    if schema is not None:
        validate_request(schema, principal, action, resource, context)
    explained = engine.explain(principal, action, resource, context)
    for policy in explained.policies:
        place = {"satisfied": 0, "unsatisfied": 1}.get(policy.outcome, 2)
        counts[policy.policy_id][place] += 1
    answer = explained.answer
    problems = []
    if answer.allowed != case.allowed:
        problems.append(f"{_decision(case.allowed)} is expected, {_decision(answer.allowed)} was decided")
    if case.reasons is not None and answer.reasons != case.reasons:
        problems.append(f"reasons {_listed(case.reasons)} are expected, {_listed(answer.reasons)} decided")
    if answer.errors != case.errors:
        problems.append(f"errors {_listed(case.errors)} are expected, {_listed(answer.errors)} happened")
    problems.extend(f"a limit was hit: {fault}" for fault in answer.faults)
    return Outcome(case, answer.allowed, answer.reasons, answer.errors, tuple(problems))


class _Defined:
    """A case's own entities, put in place for it and taken back after it."""

    def __init__(self, entities: Entities, schema: Schema | None, case: Case) -> None:
        self._entities = entities
        if schema is not None and isinstance(entities, RelatedEntities):
            schema = entities.graph.rules.for_entities(schema)
        read = Entities.from_json(list(case.entities), schema=schema)
        found = (read.get(uid) for uid in read if schema is None or uid not in schema.actions)
        self._own = [entity for entity in found if entity is not None]
        self._former = [(entity.uid, _as_written(entities, entity.uid)) for entity in self._own]
        self._relations = case.relations
        self._related: Sequence[Relation] = ()

    def __enter__(self) -> None:
        self._entities.upsert(self._own)
        try:
            self._related = _relate(self._entities, self._relations)
        except PolicyFault:
            self.__exit__()
            raise

    def __exit__(self, *_: object) -> None:
        if isinstance(self._entities, RelatedEntities):
            self._entities.graph.apply([RelationChange(each, removed=True) for each in self._related])
        self._entities.remove([uid for uid, former in self._former if former is None])
        self._entities.upsert([former for _, former in self._former if former is not None])


def _as_written(entities: Entities, uid: EntityUid) -> Entity | None:
    if not isinstance(entities, RelatedEntities):
        return entities.get(uid)
    found = entities.graph.definition(uid)
    return None if found is None else Entity(uid, *found)


def _relate(entities: Entities, relations: Sequence[Relation]) -> Sequence[Relation]:
    """Add relations; give those that were not there before. Raises RequestError for what the schema does not allow."""
    if not relations:
        return ()
    if not isinstance(entities, RelatedEntities):
        hint = "mark an attribute: `@relation viewers: Set<User>`"
        raise RequestError([Fault("no_relations", "the schema has no relations", hint)])
    graph = entities.graph
    try:
        for relation in relations:
            graph.rules.check(relation)
    except ValueError as error:
        raise RequestError([Fault("relation_refused", str(error))]) from None
    new = [each for each in relations if not graph.holds(each)]
    graph.apply([RelationChange(each) for each in new])
    return new


def _decision(allowed: bool) -> str:
    return "allow" if allowed else "deny"


def _listed(names: Iterable[str]) -> str:
    return "[" + ", ".join(sorted(names)) + "]"
