"""The directory of users as a part of a worker: opened for a config, kept over reloads that do not change it."""

from __future__ import annotations

import asyncio
import logging
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from gateway.config import DirectoryConfig, resolve_secret, resolve_store_url
from gateway.errors import GatewayError, KeyInvalid
from gateway.front.own_keys import own_key
from gateway.resilience import Resilience, guarded
from gateway.stores import Connections, open_directory
from gateway.stores.directory import Directory
from gateway.tokens.sealing import Sealer
from gateway.types import Clock, Secret

_log = logging.getLogger("portcullis.directory")

KEY_FILE: Final = "directory.key"  # in run_dir, where the config names none
PART: Final = "directory"  # as which its health is watched; while that is gone nobody asks it
CHANGES: Final = "changes of the directory"  # likewise, but what replicas can tell is asked of them
NOBODY: Final = "-"  # neither a tenant nor a key of throttles
PURGE_S: Final = 3600.0  # between two times that what is over is forgotten
READS: Final = (
    *("get_tenant", "list_tenants", "get_user", "find_user", "find_users", "find_linked", "identities_of"),
    *("get_password", "get_passkey", "passkeys_of", "totps_of", "factors_of", "get_device", "devices_of"),
    *("get_group", "find_groups", "members_of", "groups_of", "get_throttles", "logins_of"),
)


@dataclass(frozen=True, slots=True)
class DirectoryWish:
    """What the directory is opened for."""

    config: DirectoryConfig
    resilience: Resilience = field(compare=False)
    clock: Clock = field(compare=False)


class OpenedDirectory:
    """The directory of one config: `directory` is what requests use, with permits, breakers and deadlines."""

    def __init__(
        self, wish: DirectoryWish, *, base_dir: Path, run_dir: Path, connections: Connections | None = None
    ) -> None:
        """Connects to nothing. Raises ValueError for an address or a key that cannot be used."""
        self._clock = wish.clock
        self._resilience = wish.resilience
        self._has_replicas = resolve_store_url(wish.config.url, base_dir).reveal().startswith(b"postgres")
        self._store = open_configured_directory(
            wish.config, base_dir=base_dir, run_dir=run_dir, connections=connections
        )
        self.directory = guarded(self._store, wish.resilience, "database", name=PART, reads=READS)
        self._tasks: list[asyncio.Task[None]] = []

    async def start(self) -> None:
        """Begin to watch its health, and to forget what is over, from time to time."""
        loop = asyncio.get_running_loop()
        self._tasks = [
            loop.create_task(self._watch(), name="directory health"),
            loop.create_task(self._purge_for_ever(), name="directory"),
        ]

    async def stop(self) -> None:
        """Close it."""
        self._resilience.unwatch("database", part=PART, probe=self._probe)
        self._resilience.unwatch("database", part=CHANGES, probe=self._probe_changes)
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._store.close()

    async def _watch(self) -> None:
        """Have the health of the database followed, once it was opened: that takes longer than a probe may."""
        try:
            await self._store.get_tenant(NOBODY)
        except GatewayError as error:
            _log.warning("the directory cannot be opened: %s", error)
        self._resilience.watch("database", self._probe, part=PART)
        if self._has_replicas:
            self._resilience.watch("database", self._probe_changes, part=CHANGES)

    async def _probe(self) -> None:
        """Look for what nobody has."""
        await self._store.get_tenant(NOBODY)

    async def _probe_changes(self) -> None:
        """Change nothing, in the way in which everything is changed: a replica that answers is not enough."""
        await self._store.forget_failures(NOBODY)

    async def _purge_for_ever(self) -> None:
        while True:
            await asyncio.sleep(PURGE_S)
            try:
                await self._store.purge(self._clock.wall_s())
            except GatewayError as error:
                _log.warning("what is over in the directory was not forgotten: %s", error)


def open_configured_directory(
    config: DirectoryConfig, *, base_dir: Path, run_dir: Path, connections: Connections | None = None
) -> Directory:
    """Open the directory that a config names, as a command does that runs beside the gateway.

    Raises ValueError for an address or a key that cannot be used, and for no address.
    """
    address = resolve_store_url(config.url, base_dir).reveal().decode()
    if not address:
        raise ValueError('there is no directory; say where it is: `[directory]`, `url = "embedded"`')
    sealer = directory_sealer(config, base_dir, run_dir)
    return open_directory("" if address == "embedded" else address, run_dir, sealer, connections=connections)


def directory_sealer(config: DirectoryConfig, base_dir: Path, run_dir: Path) -> Sealer:
    """Give what seals the secrets in the directory, and keys for other things of log-in. Raises ValueError."""
    key = config.encryption_key
    try:
        return Sealer(resolve_secret(key, base_dir) if key else Secret(own_key(run_dir, KEY_FILE)))
    except KeyInvalid as error:
        raise ValueError(str(error)) from error
