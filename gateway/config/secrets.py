"""Secrets stand in the config by reference only: `env:NAME` or `file:PATH`."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

from gateway.types import Secret

SECRET_BYTES_MAX = 64 * 1024  # a longer file is not a secret but a mistake


class SecretUnresolved(ValueError):
    """A reference that gives no secret; the message never holds what was found."""


def resolve_secret(reference: str, base_dir: Path, env: Mapping[str, str] | None = None) -> Secret:
    """Return what `env:NAME` or `file:PATH` refers to; a relative path starts at `base_dir`.

    One newline at the end of a file is not part of the secret. `env` None means the process's environment. Raises
    SecretUnresolved (a ValueError) for a literal, a missing name or file, and an empty secret.
    """
    kind, _, place = reference.partition(":")
    if kind == "env" and place:
        return _from_env(place, os.environ if env is None else env)
    if kind == "file" and place:
        return _from_file(base_dir / Path(place).expanduser(), place)
    raise SecretUnresolved("a secret is written as `env:NAME` or `file:PATH`, never as itself")


def _from_env(name: str, env: Mapping[str, str]) -> Secret:
    if name not in env:
        raise SecretUnresolved(f"the environment has no `{name}`")
    if not env[name]:
        raise SecretUnresolved(f"`{name}` is empty in the environment")
    return Secret(env[name])


def _from_file(path: Path, shown: str) -> Secret:
    try:
        with path.open("rb") as file:
            value = file.read(SECRET_BYTES_MAX + 1)
    except OSError as error:
        raise SecretUnresolved(f"cannot read `{shown}`: {(error.strerror or 'unreadable').lower()}") from None
    if len(value) > SECRET_BYTES_MAX:
        raise SecretUnresolved(f"`{shown}` is longer than {SECRET_BYTES_MAX} bytes")
    value = value.removesuffix(b"\n").removesuffix(b"\r")
    if not value:
        raise SecretUnresolved(f"`{shown}` is empty")
    return Secret(value)


def secret_file_mode(reference: str, base_dir: Path) -> int | None:
    """Return the permission bits of a `file:` reference's file, or None where there is no such file."""
    kind, _, place = reference.partition(":")
    if kind != "file" or not place:
        return None
    try:
        return (base_dir / Path(place).expanduser()).stat().st_mode & 0o777
    except OSError:
        return None


def resolve_store_url(url: str, base_dir: Path, env: Mapping[str, str] | None = None) -> Secret:
    """Return the store's address as a Secret: it may hold a password, and may itself be `env:NAME` or `file:PATH`."""
    if url.startswith(("env:", "file:")):
        return resolve_secret(url, base_dir, env)
    return Secret(url)
