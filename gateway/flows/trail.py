"""The trail of what matters for security: who did what, told as it happens and never waited for."""

from __future__ import annotations

import secrets
from dataclasses import dataclass
from typing import Literal, Protocol

from gateway.types import AuditEvent, Clock

Outcome = Literal["success", "failure", "refused", "degraded"]


class Auditor(Protocol):
    """Where security-relevant acts are told."""

    def tell(self, event: AuditEvent) -> None:
        """Take note of the event; returns at once."""


@dataclass(frozen=True, slots=True)
class Caller:
    """Where a request comes from, for audit and limits."""

    address: str = ""
    request_id: str = ""


NOBODY = Caller()


class AuditTrail:
    """Make events of acts."""

    def __init__(self, auditor: Auditor, clock: Clock) -> None:
        self._auditor = auditor
        self._clock = clock

    def tell(
        self,
        action: str,
        outcome: Outcome,
        *,
        caller: Caller = NOBODY,
        tenant: str = "",
        actor: str = "",
        target: str = "",
        reason: str = "",
        **details: str | int | bool,
    ) -> None:
        """Tell one act. `details` never hold a secret."""
        event = AuditEvent(
            id=secrets.token_hex(16),
            at_s=self._clock.wall_s(),
            action=action,
            outcome=outcome,
            tenant=tenant,
            actor=actor,
            target=target,
            address=caller.address,
            request_id=caller.request_id,
            reason=reason,
            details=details,
        )
        self._auditor.tell(event)
