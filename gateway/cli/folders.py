"""Where a gateway keeps its files: a lasting folder for what must outlive it, a passing one that goes with it."""

from __future__ import annotations

import contextlib
import fcntl
import logging
import os
import shutil
import stat
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Self

from gateway.errors import ConfigError, ConfigFault

_PREFIX = "portcullis-"
_LOCK = "lock"

_log = logging.getLogger("portcullis.serve")


def lasting_dir(configured: str, env: Mapping[str, str]) -> Path | None:
    """Make and return the folder for what outlives the process, or None where there is no place for one.

    `configured` is `server.run_dir`; without it systemd's `$STATE_DIRECTORY`, then `portcullis` in `$XDG_STATE_HOME` or
    `~/.local/state`. Raises ConfigError for a configured folder that cannot be used, or that others may write to.
    """
    if configured:
        return _private_dir(Path(configured))
    state = env.get("STATE_DIRECTORY", "").partition(":")[0]
    home = env.get("XDG_STATE_HOME", "")
    if state:
        return _private_dir(Path(state))
    path = Path(home) if home.startswith("/") else Path(env.get("HOME") or "/nonexistent") / ".local" / "state"
    try:
        return _private_dir(path / "portcullis")
    except ConfigError as error:
        _log.warning("keys will not be kept over a restart: %s", error.faults[0].problem)
        return None


def _private_dir(path: Path) -> Path:
    """Make a folder for this user only; one that exists may be read by others, but not written to."""
    try:
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
        found = path.stat()
    except OSError as error:
        problem = f"`{path}` cannot be made: {(error.strerror or 'refused').lower()}"
        raise ConfigError([ConfigFault("config", None, "server.run_dir", problem)]) from error
    if found.st_uid != os.geteuid() or found.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        problem = f"`{path}` can be written to by others"
        raise ConfigError([ConfigFault("config", None, "server.run_dir", problem, "chown it, and chmod 700")])
    return path


class PassingDir:
    """A private folder that is removed with the process, in memory where the system has such a place.

    In memory, because its files are written through shared maps: on a disk such a write may wait for the disk. A lock
    on a file inside is held by this process and its children; a folder whose lock is free was left by a process that
    was killed, and is removed by the next one.
    """

    def __init__(self, fallback: Path | None) -> None:
        """Make the folder; `fallback` is where to, when the system has no place in memory and no usable `/tmp`."""
        places = [place for place in (Path("/dev/shm"), Path(tempfile.gettempdir()), fallback) if place]  # noqa: S108
        for place in places:
            with contextlib.suppress(OSError):
                remove_left_behind(place)
                self.path = Path(tempfile.mkdtemp(prefix=_PREFIX, dir=place))
                break
        else:
            problem = f"no folder to write to among {', '.join(f'`{place}`' for place in places)}"
            raise ConfigError([ConfigFault("config", None, "server.run_dir", problem)])
        unlocked = (
            self.path / f"{_LOCK}.new"
        )  # under its name only once it is locked: it may look left behind until then
        self._lock = os.open(unlocked, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        fcntl.flock(self._lock, fcntl.LOCK_SH)
        unlocked.rename(self.path / _LOCK)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        shutil.rmtree(self.path, ignore_errors=True)
        os.close(self._lock)


def remove_left_behind(place: Path) -> None:
    """Remove the folders in `place` whose processes were killed before they could do it."""
    for path in place.glob(f"{_PREFIX}*"):
        with contextlib.suppress(OSError):
            if path.lstat().st_uid != os.geteuid() or not path.is_dir() or path.is_symlink():
                continue
            descriptor = os.open(path / _LOCK, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(path, ignore_errors=True)
            finally:
                os.close(descriptor)
