"""Single questions: the decision, and why."""

from __future__ import annotations

import secrets
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from gateway._native.uid import EntityUid
from gateway.front.authzen.mapping import Names, Trust, Unanswerable, ask
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


def question_of(
    snapshot: PolicySnapshot, names: Names, question: Question, trust: Trust, *, pointer: str = ""
) -> PolicyQuestion:
    """Give what policies are asked. Raises BadRequest for values that Cedar does not have, and Unanswerable."""
    principal, resource = names.uid_of(question.subject), names.uid_of(question.resource)
    action = names.action_of(question.action)
    kinds = principal.type, resource.type
    asked = ask(snapshot.engine, action, question, kinds=kinds, trust=trust, pointer=pointer)
    return asked.about(principal, action, resource)


def decision_of(snapshot: PolicySnapshot, asked: PolicyQuestion, answer: Answer) -> Decision:
    """Say what an answer of the policies comes to, and why."""
    engine, context = snapshot.engine, _context(snapshot)
    allowed = may_allow(engine, answer)
    context["reasons"] = shown_ids(engine, answer.reasons)
    if answer.errors:
        context["policy_errors"] = shown_ids(engine, answer.errors)
    if answer.faults:
        context["code"] = answer.faults[0]
    elif answer.allowed and not allowed:
        context["code"] = "forbid_not_evaluated"
        context["reasons"] = []
    return Decision(allowed, context, asked, answer)


def refused(snapshot: PolicySnapshot, code: str) -> Decision:
    """Deny a question while nothing may be decided."""
    return Decision(False, {**_context(snapshot), "code": code})


def unanswerable(snapshot: PolicySnapshot, error: Unanswerable) -> Decision:
    """Deny a question that policies cannot be asked."""
    return Decision(False, {**_context(snapshot), "code": error.code, "message": str(error)})


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
