"""Several questions at once: all by one snapshot, in their order, as far as the semantics goes (§7.1.2)."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

from gateway.front.authzen.evaluation import Decision, failed
from gateway.front.authzen.messages import BadRequest, Batch, Question, Semantic
from gateway.policy.handle import PolicySnapshot

Decide = Callable[[Question, str], Awaitable[Decision]]
"""Answers one question; the text is where it stands in the request, for messages. Raises BadRequest."""


async def decide_batch(snapshot: PolicySnapshot, batch: Batch, decide: Decide) -> dict[str, Any]:
    """Answer a batch; a question that cannot be asked is a denial, also for where the semantics ends it."""
    answers: list[dict[str, Any]] = []
    for index, item in enumerate(batch.items):
        decision = await _decide_item(snapshot, item, decide, f"/evaluations/{index}")
        answers.append(decision.to_json())
        if ends(batch.semantic, decision.allowed):
            break
    return {"evaluations": answers}


def ends(semantic: Semantic, allowed: bool) -> bool:
    """Tell whether nothing after such a decision is looked at."""
    return semantic == ("permit_on_first_permit" if allowed else "deny_on_first_deny")


async def _decide_item(snapshot: PolicySnapshot, item: Any, decide: Decide, pointer: str) -> Decision:
    if isinstance(item, BadRequest):
        return failed(snapshot, item)
    try:
        return await decide(item, pointer)
    except BadRequest as error:
        return failed(snapshot, error)
