"""Why an administrator is not given what they ask for."""

from __future__ import annotations

from gateway.errors import GatewayError


class AdminRefused(GatewayError):
    """The policies do not let this administrator do this to that."""

    code = "admin_forbidden"
    status = 403


class StepUpNeeded(GatewayError):
    """Changes need a newer, or a stronger, proof of who asks (RFC 9470)."""

    code = "insufficient_user_authentication"
    status = 401


class NothingThere(GatewayError):
    """There is no such user, session, client or grant."""

    code = "not_found"
    status = 404
