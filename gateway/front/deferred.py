"""Deferred work as a part of a worker: its store, and what takes jobs from it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from gateway.config import DeferredConfig, resolve_store_url
from gateway.flows.deferred import DeferredRunner, Handle
from gateway.stores import open_deferred_work
from gateway.types import Clock


@dataclass(frozen=True, slots=True)
class DeferredWish:
    """What deferred work is opened for."""

    config: DeferredConfig
    clock: Clock = field(compare=False)


class OpenedDeferred:
    """The deferred work of one config; `runner` takes new jobs."""

    def __init__(self, wish: DeferredWish, handlers: Mapping[str, Handle], *, base_dir: Path, run_dir: Path) -> None:
        """Connects to nothing. Raises ValueError for an address that cannot be used."""
        address = resolve_store_url(wish.config.url, base_dir).reveal().decode()
        self._store = open_deferred_work("" if address == "embedded" else address, run_dir, wish.clock)
        self.runner = DeferredRunner(self._store, handlers, wish.clock)

    async def start(self) -> None:
        """Begin to do what is due."""
        await self.runner.start()

    async def stop(self) -> None:
        """End, and close the store."""
        await self.runner.stop()
        await self._store.close()
