"""The way of events into the audit log: a bounded queue that nobody waits for, written in batches, flushed at the end.

An event that finds the queue full is dropped and counted, and the log itself tells of the gap as soon as it can be
written again. While the store is away events wait in the queue; the batch in hand is handed in again until it is
durable, which is harmless: the log knows an event by its id.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import secrets
from collections import deque
from dataclasses import dataclass, replace
from typing import Final

from gateway.errors import StoreUnavailable
from gateway.stores.audit_log import BATCH_MAX, AuditHead, AuditLog
from gateway.types import AuditEvent, Clock

_log = logging.getLogger("portcullis.audit")

PAUSE_S: Final = 0.25  # between two attempts to write while the store is away; doubled up to PAUSE_S_MAX
PAUSE_S_MAX: Final = 5.0
TEXT_BYTES_MAX: Final = 1024  # of each text of an event
DROPPED: Final = "audit.dropped"

ACTIONS: Final = frozenset(
    {
        # what people do to log in, and what they prove it with
        *("login.password", "login.passkey", "login.federated", "login.mfa", "login.device", "login.recovery_code"),
        *("login.degraded", "login.risk", "login.throttled", "login.step_up", "logout"),
        *("password.change", "password.reset", "password.reset_link", "password.rehash"),
        *("passkey.register", "passkey.use", "passkey.rename", "passkey.remove"),
        *("mfa.enrol", "mfa.remove", "mfa.codes", "mfa.totp", "mfa.passkey", "mfa.recovery_code"),
        *("device.remember", "device.use", "device.forget", "device.forget_all"),
        *("identity.link", "identity.unlink", "sso.verify", "sso.logout"),
        # sessions
        *("session.begin", "session.step_up", "session.end", "session.end_all"),
        *("session.provisional", "session.reconcile"),
        # the token service
        *("oauth.authorize", "oauth.consent", "oauth.token", "oauth.revoke", "oauth.register", "oauth.client"),
        *("oauth.code.replayed", "oauth.refresh.reused", "oauth.family.ended", "oauth.logout"),
        # provisioning
        *("scim.authenticate", "scim.bulk"),
        *("scim.user.create", "scim.user.change", "scim.user.delete", "scim.user.deactivate", "scim.user.reactivate"),
        *("scim.group.create", "scim.group.change", "scim.group.delete"),
        # administration
        *("admin.authenticate", "admin.authorize", "admin.audit.read"),
        *(
            "admin.user.create",
            "admin.user.read",
            "admin.user.change",
            "admin.user.deactivate",
            "admin.user.reactivate",
        ),
        *("admin.session.read", "admin.session.end", "admin.session.end_all"),
        *("admin.device.read", "admin.device.forget"),
        *("admin.client.read", "admin.grant.read", "admin.grant.revoke", "admin.state.read"),
        # the gateway itself
        *("degradation.change", "key.rotate", DROPPED),
    }
)
"""Every action that an event may have. One that is not here is recorded all the same, and complained of."""


@dataclass(frozen=True, slots=True)
class AuditFigures:
    """How the way into the log stands; totals since the start."""

    waiting: int
    written: int
    dropped: int
    failures: int  # attempts to write that failed
    head: AuditHead | None  # what was written last; None: nothing yet


class AuditQueue:
    """An Auditor over an AuditLog. Belongs to one event loop; `tell` may be called before it runs."""

    def __init__(self, log: AuditLog, *, clock: Clock, size_max: int = 10_000, flush_s: float = 5.0) -> None:
        """`flush_s`: how long `stop` waits for the store to take what is left."""
        self._log = log
        self._clock = clock
        self._size_max = size_max
        self._flush_s = flush_s
        self._queue: deque[AuditEvent] = deque()
        self._batch: list[AuditEvent] = []  # in hand: not known to be durable
        self._told = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._is_stopping = False
        self._written = self._dropped = self._failures = 0
        self._untold = 0  # dropped events that no entry of the log tells of yet
        self._head: AuditHead | None = None

    def tell(self, event: AuditEvent) -> None:
        """Take note of the event; returns at once."""
        if event.action not in ACTIONS:
            _log.error("`%s` is no known action of an audit event; it is recorded all the same", event.action)
        if len(self._queue) + len(self._batch) >= self._size_max:
            self._dropped += 1
            self._untold += 1
            if self._untold == 1:
                _log.error("the queue of audit events is full: events are dropped until the log can be written")
            return
        self._queue.append(recordable(event))
        self._told.set()

    def figures(self) -> AuditFigures:
        waiting = len(self._queue) + len(self._batch)
        return AuditFigures(waiting, self._written, self._dropped, self._failures, self._head)

    async def start(self) -> None:
        """Begin to write."""
        self._task = asyncio.get_running_loop().create_task(self._write_for_ever(), name="audit")

    async def stop(self) -> None:
        """Write what is left, within `flush_s`; what cannot be written by then is counted as dropped. Then close."""
        self._is_stopping = True
        self._told.set()
        if self._task is not None:
            try:
                async with asyncio.timeout(self._flush_s):
                    await asyncio.shield(self._task)
            except TimeoutError:
                self._task.cancel()
                with contextlib.suppress(asyncio.CancelledError):
                    await self._task
        lost = len(self._queue) + len(self._batch)
        if lost:
            self._dropped += lost
            _log.error("%d audit events are lost: the log could not be written until the end", lost)
        self._queue.clear()
        self._batch.clear()
        await self._log.close()

    async def _write_for_ever(self) -> None:
        while True:
            await self._told.wait()
            self._told.clear()
            while self._queue or self._batch or self._untold:
                await self._write_batch()
            if self._is_stopping:
                return

    async def _write_batch(self) -> None:
        """Make one batch durable, however often that takes."""
        untold = self._untold
        if untold:
            self._batch.append(self._gap(untold))
        while self._queue and len(self._batch) < BATCH_MAX:
            self._batch.append(self._queue.popleft())
        pause_s = PAUSE_S
        while True:
            try:
                self._head = await self._log.append(self._batch)
                break
            except StoreUnavailable as error:
                self._failures += 1
                if pause_s == PAUSE_S:
                    _log.error("the audit log cannot be written, %d events wait: %s", self.figures().waiting, error)
            await asyncio.sleep(pause_s if not self._is_stopping else PAUSE_S)
            pause_s = min(2 * pause_s, PAUSE_S_MAX)
        self._written += len(self._batch)
        self._untold -= untold
        self._batch.clear()

    def _gap(self, count: int) -> AuditEvent:
        return AuditEvent(
            id=secrets.token_hex(16),
            at_s=self._clock.wall_s(),
            action=DROPPED,
            outcome="failure",
            reason="queue_full",
            details={"events": count},
        )


def recordable(event: AuditEvent) -> AuditEvent:
    """Give an event as every log can hold it: what a client made too long, or no text, is cut and replaced."""
    texts = (event.id, event.tenant, event.actor, event.target, event.address, event.request_id, event.reason)
    details = {_text(name): _text(value) if isinstance(value, str) else value for name, value in event.details.items()}
    if all(_text(text) == text for text in texts) and details == dict(event.details):
        return event
    return replace(
        event,
        tenant=_text(event.tenant),
        actor=_text(event.actor),
        target=_text(event.target),
        address=_text(event.address),
        request_id=_text(event.request_id),
        reason=_text(event.reason),
        details=details,
    )


def _text(text: str) -> str:
    return text.encode("utf-8", "replace")[:TEXT_BYTES_MAX].decode("utf-8", "ignore")
