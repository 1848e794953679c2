"""What each flow does at each degradation level, and how whatever is granted above level 0 is told.

`TABLE` is the law. A flow asks `Offers` before it does anything dear; what is not offered is refused with NotOffered.
Levels are numbers for people: what a flow may do follows from the health of what it needs, so that with the cache down
people log in as long as their sessions lie elsewhere. No entry of the table lets anybody in without a proof.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Final, Literal

from gateway.errors import NotOffered
from gateway.flows.trail import AuditTrail, Outcome
from gateway.resilience import DegradationSnapshot
from gateway.resilience.assembly import LevelChange
from gateway.resilience.degradation import LEVEL_NAMES, Feature
from gateway.types import DETAILS_MAX, AuditEvent

Conduct = Literal["whole", "lean", "if_well", "known", "refused", "provisional"]
"""How a flow is served.

whole: as ever. lean: all that proves something, without what only describes it; that is done later. if_well: lean, as
long as what it needs is not what is down. known: what was issued before goes on. provisional: by an earlier proof that
still holds, where the operator allows it. refused: with 503, `not_offered`, and when to come again.
"""

FlowName = Literal[
    "log_in",
    "log_in_at_provider",
    "second_factor",
    "change_credential",
    "refresh_token",
    "provision",
    "provisional_session",
    "check_session",
    "validate_token",
    "break_glass",
]


@dataclass(frozen=True, slots=True)
class Rule:
    """`feature`: what the flow asks for. `at`: its conduct while health asks for level 0, 1, 2 and 3."""

    feature: Feature
    at: tuple[Conduct, Conduct, Conduct, Conduct]


TABLE: Final[Mapping[FlowName, Rule]] = {
    "log_in": Rule("new_login", ("whole", "lean", "if_well", "refused")),
    "log_in_at_provider": Rule("federated_login", ("whole", "if_well", "if_well", "refused")),
    "second_factor": Rule("step_up", ("whole", "lean", "if_well", "refused")),
    "change_credential": Rule("directory_write", ("whole", "whole", "if_well", "refused")),
    "refresh_token": Rule("token_refresh", ("whole", "whole", "if_well", "refused")),
    "provision": Rule("directory_write", ("whole", "whole", "if_well", "refused")),
    "provisional_session": Rule("provisional_session", ("refused", "refused", "provisional", "refused")),
    "check_session": Rule("session_check", ("whole", "whole", "known", "known")),
    "validate_token": Rule("token_validation", ("whole", "whole", "whole", "whole")),
    "break_glass": Rule("break_glass", ("whole", "whole", "whole", "whole")),
}

_NEEDS_SESSIONS: Final[frozenset[Feature]] = frozenset({"new_login", "federated_login", "step_up"})

GRANTS: Final = frozenset(
    {
        *("login.password", "login.passkey", "login.federated", "login.mfa", "login.recovery_code", "login.device"),
        *("session.begin", "session.step_up", "oauth.authorize", "oauth.token", "device.remember"),
    }
)
"""Acts that give somebody something; above level 0 their events say that it was given then."""


class Offers:
    """What is offered now, as flows ask. `current` gives the snapshot in force."""

    def __init__(
        self, current: Callable[[], DegradationSnapshot], *, sessions_gone: Callable[[], bool] = lambda: False
    ) -> None:
        """`sessions_gone`: whether the store is down without which no session can begin."""
        self._current = current
        self._sessions_gone = sessions_gone

    @property
    def level(self) -> int:
        return self._current().level

    def allows(self, feature: Feature) -> bool:
        """Tell whether a feature is offered now."""
        if feature in _NEEDS_SESSIONS and self._sessions_gone():
            return False
        return self._current().allows(feature)

    def check(self, feature: Feature) -> None:
        """Raise NotOffered where a feature is not offered now."""
        if not self.allows(feature):
            now = self._current()
            why = ", ".join(now.reasons) or "sessions cannot begin"
            raise NotOffered(
                f"`{feature}` is not offered at degradation level {now.level} ({why})", retry_after_s=now.retry_after_s
            )


def all_is_well() -> Offers:
    """Give the offers of a gateway whose dependencies nobody watches: everything is tried."""
    return Offers(lambda: _WELL)


_WELL: Final = DegradationSnapshot(
    0,
    frozenset(rule.feature for rule in TABLE.values() if rule.at[0] == "whole")
    | {"fingerprint", "behaviour", "detailed_audit", "shared_cache", "policy_decision"},
    {},
    (),
)


def level_teller(trail: AuditTrail) -> Callable[[object], None]:
    """Give a listener to events of resilience that records each change of the level."""

    def tell(event: object) -> None:
        if isinstance(event, LevelChange):
            outcome: Outcome = "degraded" if event.after else "success"
            reason = ", ".join(event.reasons) or "recovering"
            trail.tell("degradation.change", outcome, reason=reason, before=event.before, after=event.after)

    return tell


def as_granted(event: AuditEvent, now: DegradationSnapshot) -> AuditEvent:
    """Give an event as it is recorded: what was granted above level 0 says so, with the level and why."""
    if now.level == 0 or event.outcome != "success" or event.action not in GRANTS:
        return event
    if len(event.details) >= DETAILS_MAX:
        return replace(event, outcome="degraded")
    told = f"{now.level} {LEVEL_NAMES[now.level]}: {', '.join(now.reasons) or 'recovering'}"
    return replace(event, outcome="degraded", details={**event.details, "degradation": told})
