"""What the verbs of `portcullis audit` share: the log of a config, and how an entry is written down."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from gateway.cli.store_access import load, with_run_dir

if TYPE_CHECKING:
    from gateway.stores.audit_log import AuditEntry, AuditLog

T = TypeVar("T")


def in_log(file: Path | None, work: Callable[[AuditLog], Awaitable[T]], as_json: bool) -> T:
    """Run `work` with the log that the config names, or end with what is wrong."""
    loaded = load(file, as_json)

    async def working(run_dir: Path) -> T:
        from gateway.front.audit import READER, open_configured_audit

        log = open_configured_audit(loaded.config.audit, READER, base_dir=loaded.base_dir, run_dir=run_dir)
        try:
            return await work(log)
        finally:
            await log.close()

    return with_run_dir(loaded, working, as_json)


def document_of(entry: AuditEntry) -> dict[str, Any]:
    """Give an entry for `--json`."""
    event = entry.event
    document: dict[str, Any] = {
        "chain": entry.chain,
        "number": entry.number,
        "hash": entry.hash,
        "id": event.id,
        "at": datetime.fromtimestamp(event.at_s, UTC).isoformat(timespec="milliseconds"),
        "action": event.action,
        "outcome": event.outcome,
    }
    for name in ("tenant", "actor", "target", "address", "request_id", "reason"):
        if value := getattr(event, name):
            document[name] = value
    if event.details:
        document["details"] = dict(event.details)
    return document
