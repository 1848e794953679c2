"""The sources of attributes that a config names."""

from __future__ import annotations

from pathlib import Path

from gateway.config import SourceConfig, resolve_secret, resolve_store_url
from gateway.stores import open_attribute_source
from gateway.stores.attributes import AttributeSource


def open_configured_source(config: SourceConfig, *, base_dir: Path, run_dir: Path) -> AttributeSource:
    """Give the source that a config names; it connects when it is first asked.

    Raises SecretUnresolved (a ValueError) where a secret is missing, and ValueError for an address that is none.
    """
    address = resolve_store_url(config.url, base_dir).reveal().decode()
    is_service = address.startswith(("https://", "http://"))  # which alone has a deadline and a credential of ours
    return open_attribute_source(
        "" if address == "embedded" else address,
        run_dir,
        name=config.name,
        secret=resolve_secret(config.secret, base_dir) if config.secret else None,
        timeout_s=config.timeout_s if is_service else None,
        poll_ms=config.poll_ms,
    )
