"""From AuthZEN's parties to Cedar's entities, and the trust in what callers say about them.

| AuthZEN                     | Cedar                                                                        |
|-----------------------------|------------------------------------------------------------------------------|
| `type` and `id`             | an entity; the type by `[authzen] types`, else itself                        |
| `action.name`               | an action of the type `[authzen] action_type`                                |
| `subject.properties`        | attributes for this request, before stored ones: trusted callers only        |
| `resource.properties`       | the same                                                                     |
| `action.properties`         | `context.action`: Cedar's actions have no attributes                         |
| `context`                   | `context`, without `at_least`                                                |
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal

from gateway._native.uid import EntityUid
from gateway.front.authzen.messages import ActionName, BadRequest, Party, Question, SearchQuestion
from gateway.front.authzen.values import check_members, record_of
from gateway.policy.engine import Engine, Request
from gateway.policy.faults import RequestError
from gateway.policy.json_values import escaped
from gateway.policy.plans import Question as PolicyQuestion
from gateway.policy.related_entities import RelatedEntities
from gateway.policy.requests import validate_request
from gateway.policy.schema import model

Trust = Literal["none", "resource", "all"]

_NAME: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]*(?:::[A-Za-z_][A-Za-z0-9_]*)*")


class Unanswerable(Exception):
    """A question that policies cannot be asked: the answer is no. `code` is stable."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code


@dataclass(frozen=True, slots=True)
class Names:
    """What the config says about names."""

    types: Mapping[str, str]
    action_type: str

    def type_of(self, name: str) -> str | None:
        """Give the Cedar type, or None for a name that cannot be one."""
        mapped = self.types.get(name)
        if mapped is not None:
            return mapped
        return name if _NAME.fullmatch(name) else None

    def uid_of(self, party: Party) -> EntityUid:
        """Raises Unanswerable."""
        kind = self.type_of(party.type)
        if kind is None:
            raise Unanswerable("type_unknown", f"there is no type `{party.type}`")
        return EntityUid(kind, party.id)

    def action_of(self, action: ActionName) -> EntityUid:
        return EntityUid(self.action_type, action.name)


@dataclass(frozen=True, slots=True)
class Asked:
    """A question about one action, with everything that its requests share."""

    engine: Engine
    context: dict[str, Any]
    overlays: dict[str, dict[str, Any]]  # by "subject" and "resource": attributes that go before stored ones
    trust: Trust

    def about(self, principal: EntityUid, action: EntityUid, resource: EntityUid) -> PolicyQuestion:
        """Give what policies are asked. Raises Unanswerable for what the schema does not foresee."""
        if self.engine.schema is not None:
            try:
                validate_request(self.engine.schema, principal, action, resource, self.context)
            except RequestError as error:
                raise Unanswerable(error.faults[0].code, error.faults[0].message) from None
        given: dict[EntityUid, tuple[dict[str, Any], tuple[EntityUid, ...]]] = {}
        for role, uid in (("subject", principal), ("resource", resource)):
            attributes = self.overlays.get(role)
            if attributes and not (uid == principal and self.trust == "resource"):
                # A subject that acts on itself is one entity: what is said of either holds for both. Whose word does
                # not count about subjects cannot speak of one as a resource either.
                given[uid] = {**given.get(uid, ({}, ()))[0], **attributes}, ()
        return PolicyQuestion(principal, action, resource, self.context, given or None)

    def prepare(self, principal: EntityUid, action: EntityUid, resource: EntityUid) -> Request:
        """Look a request up. Raises Unanswerable for one that the schema does not foresee, or that is too large."""
        return prepared(self.engine, self.about(principal, action, resource))


def prepared(engine: Engine, question: PolicyQuestion) -> Request:
    """Look up what a question names. Raises Unanswerable for one that is too large."""
    try:
        return engine.prepare(
            question.principal, question.action, question.resource, question.context, overlays=question.overlays
        )
    except ValueError as error:
        raise Unanswerable("request_too_large", str(error)) from None


def ask(
    engine: Engine,
    action: EntityUid | None,
    question: Question | SearchQuestion,
    *,
    kinds: tuple[str, str],
    trust: Trust,
    pointer: str = "",
) -> Asked:
    """Convert what comes with a question; `kinds` are the Cedar types of subject and resource. Raises BadRequest.

    Properties of what is searched for are of nobody, and ignored.
    """
    schema = engine.schema
    declared: model.RecordType | None = None
    if schema is not None:
        found = None if action is None else schema.actions.get(action)
        declared = model.RecordType() if found is None else found.context
    values = record_of(question.context, declared, f"{pointer}/context")
    if question.action is not None and question.action.properties:
        members = _action_members(declared)
        if declared is None or members is not None:
            values["action"] = record_of(question.action.properties, members, f"{pointer}/action/properties")
    searched = question.target if isinstance(question, SearchQuestion) else None
    overlays = {}
    for role, party, kind in (("subject", question.subject, kinds[0]), ("resource", question.resource, kinds[1])):
        if party.properties and trust in {"all", role} and role != searched:
            _refuse_relations(engine, kind, party.properties, f"{pointer}/{role}/properties")
            overlays[role] = _attributes(schema, kind, party.properties, f"{pointer}/{role}/properties")
    return Asked(engine, values, overlays, trust)


def _action_members(declared: model.RecordType | None) -> model.RecordType | None:
    attribute = None if declared is None else declared.attributes.get("action")
    return attribute.type if attribute is not None and isinstance(attribute.type, model.RecordType) else None


def _refuse_relations(engine: Engine, kind: str, properties: Mapping[str, Any], pointer: str) -> None:
    """Raise BadRequest for attributes that relations make: a caller's word would open what no relation opens."""
    if isinstance(engine.entities, RelatedEntities):
        for name in engine.entities.graph.rules.of_type(kind):
            if properties.get(name) is not None:
                raise BadRequest("is made by relations alone", f"{pointer}/{escaped(name)}")


def _attributes(schema: model.Schema | None, kind: str, properties: Mapping[str, Any], pointer: str) -> dict[str, Any]:
    if schema is None:
        return record_of(properties, None, pointer)
    declaration = schema.entities.get(kind)
    if declaration is None:
        return {}
    made = record_of(properties, declaration.attributes, pointer)
    check_members(made, declaration.attributes, schema, pointer)
    return made
