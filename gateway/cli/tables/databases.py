"""The databases of a config, each once, with what lies in it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

if TYPE_CHECKING:
    from gateway.config import LoadedConfig


@dataclass(frozen=True, slots=True)
class Database:
    """One database: "sqlite:PATH" or "postgresql://…" with everything, and how it may be shown."""

    address: str
    shown: str  # without a password
    holds: tuple[str, ...]

    @property
    def is_missing(self) -> bool:
        """Whether it is a file that nobody has made yet."""
        return self.address.startswith("sqlite:") and not Path(self.address.removeprefix("sqlite:")).exists()


def databases(loaded: LoadedConfig, run_dir: Path) -> list[Database]:
    """Give the databases of the stores that are in use; those in memory and in Redis have no tables."""
    from gateway.config import resolve_store_url
    from gateway.stores import DIRECTORY_FILE, GRANTS_FILE, SESSIONS_FILE

    config = loaded.config
    used = []
    if config.directory.url:
        used.append(("users", config.directory.url, DIRECTORY_FILE))
    if config.sessions.url:
        used.append(("sessions", config.sessions.url, SESSIONS_FILE))
    if config.oauth.issuer:
        used.append(("clients and tokens", config.oauth.store_url, GRANTS_FILE))
    if config.login.enabled:
        used.append(("logins under way", config.login.store_url, GRANTS_FILE))
    found: dict[str, list[str]] = {}
    for what, url, file in used:
        address = resolve_store_url(url, loaded.base_dir).reveal().decode()
        if address in ("", "embedded"):
            address = f"sqlite:{run_dir / file}"
        elif address.startswith("sqlite:"):
            address = f"sqlite:{run_dir / address.removeprefix('sqlite:')}"
        elif not address.startswith(("postgresql://", "postgres://")):
            continue
        found.setdefault(address, []).append(what)
    return [Database(address, _shown(address), tuple(holds)) for address, holds in found.items()]


def _shown(address: str) -> str:
    if address.startswith("sqlite:"):
        return address
    parts = urlsplit(address)
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"
