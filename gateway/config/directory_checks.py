"""What `[directory]` means, beyond its types."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path as FilePath

from gateway.config.check_parts import postgres_address, secret_complaints, store_address
from gateway.config.complaints import Complaint
from gateway.config.knobs import Config

KEY_BYTES_MIN = 32


def directory_complaints(config: Config, base_dir: FilePath, env: Mapping[str, str]) -> Iterator[Complaint]:
    """Give everything in `[directory]` that is wrong or odd."""
    directory = config.directory
    address = yield from store_address(directory.url, ("directory", "url"), base_dir, env, several=True)
    is_shared = address is not None and address.startswith(("postgresql://", "postgres://"))
    if address is not None and is_shared:
        yield from postgres_address(address, directory.url, ("directory", "url"))
    elif address is not None and address not in {"", "embedded"} and not address.startswith("sqlite:"):
        hint = "write `embedded`, `sqlite:PATH` or `postgresql://…`"
        yield Complaint(("directory", "url"), "no directory of users", hint)
    if directory.encryption_key:
        yield from secret_complaints(
            directory.encryption_key, ("directory", "encryption_key"), base_dir, env, length_min=KEY_BYTES_MIN
        )
    elif is_shared:
        hint = "all gateways that share a directory need one key: `env:NAME` or `file:PATH`"
        yield Complaint(("directory", "encryption_key"), "missing", hint)
