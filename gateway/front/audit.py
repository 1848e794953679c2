"""The audit log as a part of a worker: opened for a config, kept over reloads that do not change it."""

from __future__ import annotations

import re
import socket
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from gateway.config import AuditConfig, resolve_secret, resolve_store_url
from gateway.flows.audit import AuditFigures, AuditQueue
from gateway.stores import Connections, open_audit_log
from gateway.stores.audit_log import AuditLog
from gateway.types import AuditEvent, Clock

READER: Final = "reader"  # the chain that a process has which only reads; nothing is ever written to it
_HOST_CHARACTERS_MAX: Final = 48


@dataclass(frozen=True, slots=True)
class AuditWish:
    """What the audit log is opened for."""

    config: AuditConfig
    worker: int  # each has a chain of its own
    clock: Clock = field(compare=False)


class OpenedAudit:
    """The audit log of one config, an Auditor."""

    def __init__(
        self, wish: AuditWish, *, base_dir: Path, run_dir: Path, connections: Connections | None = None
    ) -> None:
        """Opens nothing yet. Raises ValueError for an address or a key that cannot be used."""
        config = wish.config
        chain = chain_of(config, wish.worker)
        self.log = open_configured_audit(config, chain, base_dir=base_dir, run_dir=run_dir, connections=connections)
        self._queue = AuditQueue(self.log, clock=wish.clock, size_max=config.queue_max, flush_s=config.flush_s)

    def tell(self, event: AuditEvent) -> None:
        """Take note of the event; returns at once."""
        self._queue.tell(event)

    def figures(self) -> AuditFigures:
        return self._queue.figures()

    async def start(self) -> None:
        """Begin to write."""
        await self._queue.start()

    async def stop(self) -> None:
        """Write what is left, and close."""
        await self._queue.stop()


def open_configured_audit(
    config: AuditConfig, chain: str, *, base_dir: Path, run_dir: Path, connections: Connections | None = None
) -> AuditLog:
    """Open the audit log that a config names. Raises ValueError for what cannot be used, and for none."""
    address = resolve_store_url(config.url, base_dir).reveal().decode()
    if address == "off":
        raise ValueError('there is no audit log; say where it is: `[audit]`, `url = "embedded"`')
    key = resolve_secret(config.key, base_dir) if config.key else None
    if address.startswith("folder:"):
        address = "file:" + address.removeprefix("folder:")  # in a config `file:` names a file that holds the address
    return open_audit_log("" if address == "embedded" else address, run_dir, chain, key, connections=connections)


def chain_of(config: AuditConfig, worker: int) -> str:
    """Name a worker's chain: all machines that share a log have chains of their own."""
    name = config.name or re.sub(r"[^A-Za-z0-9_-]", "-", socket.gethostname())[:_HOST_CHARACTERS_MAX] or "gateway"
    return f"{name}-{worker}"
