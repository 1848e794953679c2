"""What is under way between two pages of a login, and links to a new password: good for a while, and for one use."""

from __future__ import annotations

import base64
import hashlib
import secrets
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Literal

from gateway.flows.trail import NOBODY, AuditTrail, Caller
from gateway.stores.directory import User
from gateway.stores.grants import Grant, TokenStore
from gateway.types import Clock, Subject

PENDING_S: Final = 600  # between two pages of one login
RESET_S: Final = 3600  # a link to a new password

StepKind = Literal["code", "enrol", "change", "reset"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Goal:
    """What a login is for."""

    target: str  # where the browser goes afterwards; it was checked
    acr_values: tuple[str, ...] = ()  # RFC 9470: one of these, or stronger
    reauthenticate: bool = False  # a session is not enough
    max_age_s: int | None = None  # a proof that is older is not enough either
    tenant: str = ""
    remember: bool = False  # the user asks for it


@dataclass(frozen=True, slots=True, kw_only=True)
class Pending:
    """A login of several steps that is under way: what was proved, and what comes next."""

    step: StepKind
    subject: Subject
    goal: Goal
    methods: tuple[str, ...]
    session: str = ""  # the hash of the session that is stepped up, in hexadecimal
    attributes: Mapping[str, str] = field(default_factory=dict, hash=False)  # that the session will have
    risk: int = 0


class PendingLogins:
    """Keeps what is under way; its browser has the name of it, no more. Every method raises StoreUnavailable."""

    def __init__(self, grants: TokenStore, clock: Clock) -> None:
        self._grants = grants
        self._clock = clock

    async def keep(self, pending: Pending, lifetime_s: int = PENDING_S) -> str:
        """Keep it; return its name, which nobody can guess."""
        value = base64.urlsafe_b64encode(secrets.token_bytes(32)).rstrip(b"=").decode()
        goal = pending.goal
        body: dict[str, Any] = {
            "step": pending.step,
            "target": goal.target,
            "acr_values": list(goal.acr_values),
            "tenant": goal.tenant,
            "remember": goal.remember,
            "methods": list(pending.methods),
            "session": pending.session,
            "attributes": dict(pending.attributes),
            "risk": pending.risk,
        }
        await self._grants.keep(
            Grant(
                kind="login",
                key=_key(value),
                tenant=pending.subject.tenant,
                expires_s=int(self._clock.wall_s()) + lifetime_s,
                subject=pending.subject,
                body=body,
            )
        )
        return value

    async def find(self, value: str, *steps: StepKind) -> Pending | None:
        """Give what is under way by its name, where it is at one of `steps`."""
        grant = await self._grants.look("login", _key(value)) if value else None
        found = None if grant is None else _read(grant)
        return found if found is not None and found.step in steps else None

    async def take(self, value: str) -> bool:
        """Use it up. Of many at once one goes on."""
        return (await self._grants.take("login", _key(value))).found == "first"


async def new_reset(
    pending: PendingLogins,
    user: User,
    trail: AuditTrail,
    *,
    actor: str,
    lifetime_s: int = RESET_S,
    caller: Caller = NOBODY,
) -> str:
    """Make the secret of a link by which a user sets a new password, once."""
    goal = Goal(target="", tenant=user.tenant)
    value = await pending.keep(
        Pending(step="reset", subject=Subject(user.tenant, user.id), goal=goal, methods=()), lifetime_s
    )
    trail.tell("password.reset_link", "success", caller=caller, tenant=user.tenant, actor=actor, target=user.id)
    return value


def _key(value: str) -> bytes:
    return hashlib.sha256(b"login\0" + value.encode("utf-8", "surrogatepass")).digest()


def _read(grant: Grant) -> Pending | None:
    body: Mapping[str, Any] = grant.body
    if grant.subject is None or "step" not in body:
        return None  # another chapter's
    return Pending(
        step=body["step"],
        subject=grant.subject,
        goal=Goal(
            target=str(body["target"]),
            acr_values=tuple(body["acr_values"]),
            tenant=str(body["tenant"]),
            remember=bool(body["remember"]),
        ),
        methods=tuple(body["methods"]),
        session=str(body["session"]),
        attributes={str(name): str(value) for name, value in body["attributes"].items()},
        risk=int(body["risk"]),
    )
