"""What the metrics say of the way into the audit log."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from gateway.observability.metrics import Metrics

if TYPE_CHECKING:  # a gateway without flows does without their code
    from gateway.front.audit import OpenedAudit


class AuditCounters:
    """Moves what the queue counts by itself into the shared metrics. Callable."""

    def __init__(self, metrics: Metrics, audit: Callable[[], OpenedAudit | None]) -> None:
        self._audit = audit
        self._counted: OpenedAudit | None = None  # what the totals are of; a reload may bring another one
        self._written = metrics.counter("audit_events_total")
        self._dropped = metrics.counter("audit_events_dropped_total")
        self._failures = metrics.counter("audit_write_failures_total")
        self._waiting = metrics.gauge("audit_events_waiting")

    def __call__(self) -> None:
        audit = self._audit()
        if audit is not self._counted:
            self._counted = audit
            for counter in (self._written, self._dropped, self._failures):
                counter.follow(0)
        if audit is None:
            self._waiting.set(0)
            return
        figures = audit.figures()
        self._written.follow(figures.written)
        self._dropped.follow(figures.dropped)
        self._failures.follow(figures.failures)
        self._waiting.set(figures.waiting)
