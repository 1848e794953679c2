"""Single questions: the decision, and why."""

from __future__ import annotations

import secrets
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from gateway._native.uid import EntityUid
from gateway.front.authzen.mapping import Names, Trust, Unanswerable, ask, prepared
from gateway.front.authzen.messages import BadRequest, Question
from gateway.policy.engine import Answer, Engine
from gateway.policy.handle import PolicySnapshot
from gateway.policy.plans import Question as PolicyQuestion
from gateway.policy.search import may_allow


@dataclass(frozen=True, slots=True)
class Decision:
    """The answer to one question.

    For the decision log: what policies were `asked`, None where it could not be asked; and their `answer`, None where
    they did not come to one.
    """

    allowed: bool
    context: dict[str, Any]
    asked: PolicyQuestion | None = None
    answer: Answer | None = None

    def to_json(self) -> dict[str, Any]:
        return {"decision": self.allowed, "context": self.context}


class Lacking(Exception):
    """A question that rests on entities which are kept elsewhere and must be fetched first."""

    def __init__(self, asked: PolicyQuestion) -> None:
        super().__init__("entities must be fetched first")
        self.asked = asked


def decide(snapshot: PolicySnapshot, names: Names, question: Question, trust: Trust, *, pointer: str = "") -> Decision:
    """Answer one question by one snapshot. Raises BadRequest for values that Cedar does not have, and Lacking."""
    context = _context(snapshot)
    if snapshot.refusal:
        return Decision(False, {**context, "code": snapshot.refusal})
    engine = snapshot.engine
    try:
        principal, resource = names.uid_of(question.subject), names.uid_of(question.resource)
        action = names.action_of(question.action)
        asked = ask(engine, action, question, kinds=(principal.type, resource.type), trust=trust, pointer=pointer)
        about = asked.about(principal, action, resource)
        request = prepared(engine, about)
    except Unanswerable as error:
        return Decision(False, {**context, "code": error.code, "message": str(error)})
    answer = engine.answer(request)
    if answer.missing is not None:
        raise Lacking(about)
    allowed = may_allow(engine, answer)
    context["reasons"] = shown_ids(engine, answer.reasons)
    if answer.errors:
        context["policy_errors"] = shown_ids(engine, answer.errors)
    if answer.faults:
        context["code"] = answer.faults[0]
    elif answer.allowed and not allowed:
        context["code"] = "forbid_not_evaluated"
        context["reasons"] = []
    return Decision(allowed, context, about, answer)


def unavailable(snapshot: PolicySnapshot, code: str, asked: PolicyQuestion) -> Decision:
    """Deny a question for want of something that cannot be had now."""
    return Decision(False, {**_context(snapshot), "code": code}, asked)


def as_named(names: Names, question: Question) -> PolicyQuestion:
    """Give the entities that a question names, as far as they can be, where it could not be asked."""
    subject, resource = question.subject, question.resource
    return PolicyQuestion(
        EntityUid(names.type_of(subject.type) or subject.type, subject.id),
        names.action_of(question.action),
        EntityUid(names.type_of(resource.type) or resource.type, resource.id),
        {},
    )


def _context(snapshot: PolicySnapshot) -> dict[str, Any]:
    return {"decision_id": secrets.token_hex(16), "revision": snapshot.shown_revision, "reasons": []}


def failed(snapshot: PolicySnapshot, error: BadRequest) -> Decision:
    """Deny one malformed question of a batch, and say what is wrong with it."""
    return Decision(False, {"revision": snapshot.shown_revision, "error": {"status": 400, "message": str(error)}})


def shown_ids(engine: Engine, policy_ids: Iterable[str]) -> list[str]:
    """Give what policies are known by: their `@id` where they have one, else their id in the set; in order."""
    policies = engine.policies.policies
    return sorted(policies[each].annotations.get("id") or each for each in policy_ids)
