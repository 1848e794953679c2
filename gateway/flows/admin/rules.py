"""What each role may do, as Cedar policies over a schema of ours: the built-in ones, or an operator's own."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from gateway._native.uid import EntityUid
from gateway.flows.admin.parties import Administrator
from gateway.policy.engine import Engine
from gateway.policy.entities import Entities
from gateway.policy.faults import PolicyFault
from gateway.policy.policy_set import PolicySet
from gateway.policy.schema import Schema

ROLES: Final = ("reader", "helpdesk", "auditor", "operator", "owner")
READS: Final = ("state.read", "user.read", "session.read", "device.read", "client.read", "grant.read")
ENDS: Final = ("session.end", "session.end_all", "device.forget", "grant.revoke")
MANAGES: Final = ("user.deactivate", "user.reactivate")
ACTIONS: Final = (*READS, "audit.read", *ENDS, *MANAGES)
CHANGES: Final = frozenset({*ENDS, *MANAGES})

SCHEMA: Final = """
entity Role;
entity Administrator in [Role] = { kind: String };
entity Gateway;
entity User in [Gateway] = { administrator: Bool, self: Bool, active: Bool };
entity Client in [Gateway];

action read, change;
action "end" in [change];
action manage in [change];
action "state.read", "audit.read" in [read]
  appliesTo { principal: Administrator, resource: Gateway };
action "user.read" in [read] appliesTo { principal: Administrator, resource: [User, Gateway] };
action "session.read", "device.read", "grant.read" in [read] appliesTo { principal: Administrator, resource: User };
action "client.read" in [read] appliesTo { principal: Administrator, resource: [Client, Gateway] };
action "session.end", "session.end_all", "device.forget", "grant.revoke" in ["end"]
  appliesTo { principal: Administrator, resource: User };
action "user.deactivate", "user.reactivate" in [manage]
  appliesTo { principal: Administrator, resource: User };
"""

POLICIES: Final = """
// Who looks things up: everything but what others did.
@id("reader")
permit (principal in Role::"reader", action in Action::"read", resource)
unless { action == Action::"audit.read" };

// Who helps users that are locked out, or whose device is gone: never administrators, who could be taken over so.
@id("helpdesk-looks")
permit (
  principal in Role::"helpdesk",
  action in [Action::"user.read", Action::"session.read", Action::"device.read", Action::"grant.read"],
  resource
);
@id("helpdesk-ends")
permit (principal in Role::"helpdesk", action in Action::"end", resource)
unless { resource.administrator };

// Who looks at what others did, and can change nothing.
@id("auditor")
permit (
  principal in Role::"auditor",
  action in [Action::"audit.read", Action::"state.read", Action::"user.read"],
  resource
);

// Who runs the service: everything but acts against other administrators.
@id("operator-looks")
permit (principal in Role::"operator", action in Action::"read", resource);
@id("operator-changes")
permit (principal in Role::"operator", action in Action::"change", resource)
unless { resource.administrator };

@id("owner")
permit (principal in Role::"owner", action, resource);

// The last owner must not lock themselves out by mistake.
@id("not-yourself")
forbid (principal, action == Action::"user.deactivate", resource)
when { resource.self };
"""

_GATEWAY: Final = EntityUid("Gateway", "this")


class AdminRules:
    """Decides who may do what. What no policy permits is forbidden; a policy that errs permits nothing."""

    def __init__(self, policies: str = POLICIES, file: str | None = None) -> None:
        """Raises ValueError, with file and line, for policies that do not fit the schema."""
        schema = Schema.parse(SCHEMA)
        try:
            read = PolicySet.parse(policies, file=file, ids="annotation")
            report = read.validate(schema)
        except PolicyFault as error:
            raise ValueError(str(error)) from error
        if not report.ok:
            raise ValueError("\n".join(str(fault) for fault in report.errors))
        self._engine = Engine(read, Entities.from_json([], schema=schema), schema)

    def allows_at_gateway(self, admin: Administrator, action: str) -> bool:
        """Tell whether an administrator may do something to the whole."""
        return self._allows(admin, action, _GATEWAY, {})

    def allows_at_client(self, admin: Administrator, action: str, client_id: str) -> bool:
        """Tell whether an administrator may do something to an OAuth client."""
        return self._allows(admin, action, EntityUid("Client", client_id), {})

    def allows_at_user(
        self, admin: Administrator, action: str, user_id: str, *, is_active: bool, is_admin: bool
    ) -> bool:
        """Tell whether an administrator may do something to a user; `is_admin`: who has a role as well."""
        attributes = {"administrator": is_admin, "self": user_id == admin.id, "active": is_active}
        return self._allows(admin, action, EntityUid("User", user_id), attributes)

    def _allows(self, admin: Administrator, action: str, resource: EntityUid, attributes: Mapping[str, bool]) -> bool:
        principal = EntityUid("Administrator", admin.id)
        overlays: dict[EntityUid, tuple[Mapping[str, Any], list[EntityUid]]] = {
            principal: ({"kind": admin.kind}, [EntityUid("Role", role) for role in sorted(admin.roles)]),
        }
        if resource != _GATEWAY:
            overlays[resource] = dict(attributes), [_GATEWAY]
        request = self._engine.prepare(principal, EntityUid("Action", action), resource, {}, overlays=overlays)
        return self._engine.decide(request)


def read_rules(path: str) -> AdminRules:
    """Give the rules of an operator's file, or the built-in ones for "". Raises ValueError."""
    if not path:
        return AdminRules()
    try:
        return AdminRules(Path(path).read_text(), path)
    except OSError as error:
        raise ValueError(f"`{path}` cannot be read: {(error.strerror or 'refused').lower()}") from error
