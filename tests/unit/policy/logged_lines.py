"""Lines of a decision log, as the gateway writes them, and policies that decided them."""

from __future__ import annotations

import json
from typing import Any

from gateway.policy import Engine, Entities, Entity, EntityUid, PolicySet

POLICIES = """
@id("own") permit (principal, action, resource) when { principal == resource.owner };
@id("admins") permit (principal in Role::"admin", action, resource);
"""
BLOCKED = '@id("tenant") forbid (principal, action, resource) when { context has tenant && context.tenant == "x" };'
ORDER = EntityUid("Order", "1")


def engine(policies: str = POLICIES) -> Engine:
    owner = {"owner": EntityUid("User", "alice")}
    return Engine(PolicySet.parse(policies, ids="annotation"), Entities([Entity(ORDER, owner)]))


def line(subject: str = "alice", decision: str = "allow", **changes: Any) -> bytes:
    """Give a line; a change to `...` takes the member out."""
    fields = {
        "ts": "2026-11-25T12:00:00Z",
        "id": "6f1c",
        "door": "forward",
        "route": "/orders/{id}",
        "principal": {"type": "User", "id": subject},
        "action": {"type": "Action", "id": "read"},
        "resource": {"type": "Order", "id": "1"},
        "context": {},
        "given": {},
        "decision": decision,
        "reason": "ok" if decision == "allow" else "policy_denied",
        "policies": ["own"] if decision == "allow" else [],
        "errors": [],
        "faults": [],
        "revision": 7,
        "digest": "abc",
        "entities": 3,
        "relations": None,
        "cache": "resident",
        "duration_us": 1.5,
        **changes,
    }
    return json.dumps({name: value for name, value in fields.items() if value is not ...}).encode() + b"\n"


def admin() -> dict[str, Any]:
    """Give what the claims of an administrator's token define."""
    return {"principal": {"attrs": {"level": 3}, "parents": [{"type": "Role", "id": "admin"}]}}
