"""Several questions at once: all by one snapshot, in their order, as far as the semantics goes (§7.1.2)."""

from __future__ import annotations

from typing import Any

from gateway.front.authzen.evaluation import Decision, decide, failed
from gateway.front.authzen.mapping import Names, Trust
from gateway.front.authzen.messages import BadRequest, Batch, Semantic
from gateway.policy.handle import PolicySnapshot


def decide_batch(snapshot: PolicySnapshot, names: Names, batch: Batch, trust: Trust) -> dict[str, Any]:
    """Answer a batch; a question that cannot be asked is a denial, also for where the semantics ends it."""
    answers: list[dict[str, Any]] = []
    for index, item in enumerate(batch.items):
        decision = _decide_item(snapshot, names, item, trust, f"/evaluations/{index}")
        answers.append(decision.to_json())
        if ends(batch.semantic, decision.allowed):
            break
    return {"evaluations": answers}


def ends(semantic: Semantic, allowed: bool) -> bool:
    """Tell whether nothing after such a decision is looked at."""
    return semantic == ("permit_on_first_permit" if allowed else "deny_on_first_deny")


def _decide_item(snapshot: PolicySnapshot, names: Names, item: Any, trust: Trust, pointer: str) -> Decision:
    if isinstance(item, BadRequest):
        return failed(snapshot, item)
    try:
        return decide(snapshot, names, item, trust, pointer=pointer)
    except BadRequest as error:
        return failed(snapshot, error)
