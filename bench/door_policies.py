"""What the doors ask policies about: orders of a shop, by role, team and state, for the tokens of the bench."""

from __future__ import annotations

import base64
import json
from collections.abc import Sequence
from typing import Any

ORDER = "4711"  # of the path that the load asks for
OTHER_ORDERS = 1000

SCHEMA = """
entity Role in [Role];
entity User in [Role] = { team: String, level: Long };
entity Order = { team: String, locked: Bool, value: Long };
action view, edit appliesTo { principal: User, resource: Order, context: { channel?: String } };
"""

POLICIES = """
@id("team")
permit (principal in Role::"clerk", action == Action::"view", resource is Order)
when { principal.team == resource.team };

@id("auditors")
permit (principal in Role::"auditor", action == Action::"view", resource);

@id("edit")
permit (principal in Role::"clerk", action == Action::"edit", resource is Order)
when { principal.team == resource.team && principal.level >= 3 && resource.value < 10000 };

@id("locked")
forbid (principal, action, resource is Order)
when { resource.locked }
unless { principal in Role::"auditor" };

@id("kiosk")
forbid (principal, action == Action::"edit", resource)
when { context has channel && context.channel == "kiosk" };
"""

ACTION, RESOURCE = 'Action::"view"', 'Order::"{id}"'
CONTEXT = {"channel": "{header.x-channel}"}
ROUTE_TOML = f"""\
action = '{ACTION}'
resource = '{RESOURCE}'
context = {{ channel = "{CONTEXT["channel"]}" }}
"""


def subject_of(token: bytes) -> str:
    """Read `sub` out of a token."""
    payload = token.split(b".")[1]
    subject: str = json.loads(base64.urlsafe_b64decode(payload + b"=" * (-len(payload) % 4)))["sub"]
    return subject


def _entity(kind: str, name: str, parents: Sequence[str] = (), **attributes: Any) -> dict[str, Any]:
    return {
        "uid": {"type": kind, "id": name},
        "attrs": attributes,
        "parents": [{"type": "Role", "id": parent} for parent in parents],
    }


def entities_for(tokens: Sequence[bytes]) -> list[dict[str, Any]]:
    """Give all entities, in Cedar's JSON: every subject is a clerk of the team whose orders are asked for."""
    made = [_entity("Role", "staff"), _entity("Role", "clerk", ["staff"]), _entity("Role", "auditor", ["staff"])]
    made += [
        _entity("User", subject_of(token), ["clerk"], team="north", level=number % 9)
        for number, token in enumerate(tokens)
    ]
    made += [_entity("Order", ORDER, team="north", locked=False, value=990)]
    made += [
        _entity("Order", f"{number}", team="south", locked=number % 7 == 0, value=number)
        for number in range(OTHER_ORDERS)
    ]
    return made
