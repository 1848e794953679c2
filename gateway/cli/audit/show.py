"""`portcullis audit show`: entries of the audit log, the oldest first."""

from __future__ import annotations

import json
from collections import deque
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import click

from gateway.cli.audit.log import document_of, in_log
from gateway.cli.output import as_json_option, config_option

if TYPE_CHECKING:
    from gateway.stores.audit_log import AuditEntry, AuditLog


@click.command("show")
@click.option("--chain", default="", help="Of this chain alone.")
@click.option("--after", default=0, type=click.IntRange(0), help="Each chain from the entry after this number.")
@click.option("--action", default="", help="Of this action, or of all that begin with it: `login.`")
@click.option("--actor", default="", help="What this user or client did.")
@click.option("--target", default="", help="What was done to this user, session, client or group.")
@click.option("--outcome", type=click.Choice(["success", "failure", "refused", "degraded"]), help="So it ended.")
@click.option("--last", type=click.IntRange(1, 100_000), default=100, show_default=True, help="So many, the latest.")
@config_option
@as_json_option
def command(
    *,
    chain: str,
    after: int,
    action: str,
    actor: str,
    target: str,
    outcome: str | None,
    last: int,
    file: Path | None,
    as_json: bool,
) -> None:
    """Print entries in the order of their time; with --json one document a line."""

    def is_wanted(entry: AuditEntry) -> bool:
        event = entry.event
        return (
            event.action.startswith(action)
            and (not actor or event.actor == actor)
            and (not target or event.target == target)
            and (outcome is None or event.outcome == outcome)
        )

    async def read(log: AuditLog) -> list[AuditEntry]:
        kept: dict[str, deque[AuditEntry]] = {}
        async for entry in log.read(chain, after):
            if is_wanted(entry):
                kept.setdefault(entry.chain, deque(maxlen=last)).append(entry)
        found = [entry for each in kept.values() for entry in each]
        return sorted(found, key=lambda entry: entry.event.at_s)[-last:]

    for entry in in_log(file, read, as_json):
        click.echo(json.dumps(document_of(entry)) if as_json else _line(entry))


def _line(entry: AuditEntry) -> str:
    event = entry.event
    at = datetime.fromtimestamp(event.at_s, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    parts = [at, f"{entry.chain}:{entry.number}", event.action, event.outcome]
    for name in ("tenant", "actor", "target", "address", "reason"):
        if value := getattr(event, name):
            parts.append(f"{name}={json.dumps(value) if ' ' in value else value}")
    parts += [f"{name}={value}" for name, value in event.details.items()]
    return " ".join(parts)
