"""What administrators are shown of things. Never a secret, nor the hash of one that a person chose."""

from __future__ import annotations

from typing import Any

from gateway.flows.oauth.grants import Family
from gateway.flows.oauth.parties import Client
from gateway.stores.audit_log import AuditEntry
from gateway.stores.directory import Device, User
from gateway.types import Session


def user_shape(user: User) -> dict[str, Any]:
    """Show a user; times are Unix seconds, here and below."""
    return {
        "id": user.id,
        "user_name": user.user_name,
        "active": user.active,
        "external_id": user.external_id,
        "emails": list(user.emails),
        "display_name": str(user.attributes.get("displayName", "")),
        "created_at": user.created_s,
        "changed_at": user.changed_s,
        "version": user.version,
    }


def session_shape(session: Session) -> dict[str, Any]:
    """Show a session; its id is the hash by which stores know it, of which no cookie can be made."""
    return {
        "id": session.id_hash.hex(),
        "region": session.home_region,
        "created_at": session.created_s,
        "last_seen_at": session.last_seen_s,
        "authenticated_at": session.authenticated_s,
        "ends_at": session.ends_s,
        "amr": list(session.amr),
        "acr": session.acr,
        "device": session.device_id,
        "provisional": session.provisional,
    }


def device_shape(device: Device) -> dict[str, Any]:
    """Show a remembered device; `bound`: it is known by a key that it holds."""
    return {
        "id": device.id,
        "name": device.name,
        "bound": bool(device.public_key),
        "created_at": device.created_s,
        "last_seen_at": device.seen_s,
        "ends_at": device.expires_s,
    }


def family_shape(family: Family) -> dict[str, Any]:
    """Show what a client was granted."""
    approval = family.approval
    return {
        "id": family.id,
        "client_id": approval.client_id,
        "scopes": list(approval.scopes),
        "resources": list(approval.resources),
        "offline": family.offline,
        "rotated_at": family.rotated_s,
        "ends_at": family.ends_s,
    }


def client_shape(client: Client) -> dict[str, Any]:
    """Show an OAuth client."""
    return {
        "client_id": client.id,
        "name": client.name,
        "source": client.source,
        "tenant": client.tenant,
        "auth": client.auth,
        "redirect_uris": list(client.redirect_uris),
        "grant_types": sorted(client.grant_types),
        "scopes": sorted(client.scopes),
        "resources": list(client.resources),
        "uri": client.uri,
    }


def audit_shape(entry: AuditEntry) -> dict[str, Any]:
    """Show an entry of the audit log."""
    event = entry.event
    return {
        "chain": entry.chain,
        "number": entry.number,
        "hash": entry.hash,
        "id": event.id,
        "at": event.at_s,
        "action": event.action,
        "outcome": event.outcome,
        "tenant": event.tenant,
        "actor": event.actor,
        "target": event.target,
        "address": event.address,
        "request_id": event.request_id,
        "reason": event.reason,
        "details": dict(event.details),
    }
