"""Key sets on disk, so that a restart works while an issuer is down.

What: the public keys of one issuer as last fetched, and when. Key: the issuer and the configured address of its keys.
Bound: the issuer's `stale_s`, counted from the fetch. Invalidation: the next successful fetch replaces it.

Whoever can write such a file can make tokens. So a file counts only if it belongs to this user, is writable by nobody
else, and names the issuer and address that the configuration names today.
"""

from __future__ import annotations

import hashlib
import os
import secrets
import stat
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson

VERSION = 1
FILE_BYTES_MAX = 1024 * 1024
CLOCK_SLACK_S = 60.0  # a set from further in the future has no age that could be known

# The public members of a JWK (RFC 7517 §4, RFC 7518 §6.2.1 and §6.3.1, RFC 8037 §2). A symmetric key has none.
PUBLIC_MEMBERS = frozenset({"kty", "kid", "use", "key_ops", "alg", "crv", "x", "y", "n", "e", "pub"})
# A key that was published with one of these is refused when it is loaded; it must not come back without them.
PRIVATE_MEMBERS = frozenset({"d", "p", "q", "dp", "dq", "qi", "oth", "k", "priv"})


@dataclass(frozen=True, slots=True)
class StoredKeySet:
    """A key set as it was fetched at `fetched_at_s`, Unix time."""

    document: Mapping[str, Any]
    fetched_at_s: float


class KeySetSnapshots:
    """One small file an issuer in `folder`, replaced whole. Safe for several processes at once; calls block briefly."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def path(self, issuer: str, address: str) -> Path:
        """Return where the keys of `issuer` lie; `address` is the configured jwks_uri, or "" for a discovered one."""
        digest = hashlib.sha256(f"{len(issuer)}:{issuer}{address}".encode()).hexdigest()
        return self.folder / f"jwks-{digest[:32]}.json"

    def save(self, issuer: str, address: str, document: Mapping[str, Any], fetched_at_s: float) -> None:
        """Replace the issuer's file, durably and readable by this user only. Raises OSError."""
        content = {
            "version": VERSION,
            "issuer": issuer,
            "address": address,
            "fetched_at_s": fetched_at_s,
            "keys": public_keys(document),
        }
        self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        target = self.path(issuer, address)
        draft = target.with_suffix(f".{os.getpid()}-{secrets.token_hex(4)}.tmp")
        try:
            handle = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
            with os.fdopen(handle, "wb") as file:
                file.write(orjson.dumps(content))
                file.flush()
                os.fsync(file.fileno())
            draft.replace(target)
        except BaseException:
            with suppress(OSError):
                draft.unlink()
            raise
        # The new name is durable only once its folder is.
        folder = os.open(self.folder, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)

    def load(self, issuer: str, address: str, now_s: float) -> StoredKeySet | None:
        """Return the issuer's set as last saved, or None where there is none that can be trusted."""
        try:
            raw = self._read(self.path(issuer, address))
            content = orjson.loads(raw)
        except (OSError, ValueError):
            return None
        if not isinstance(content, dict) or content.get("version") != VERSION:
            return None
        if content.get("issuer") != issuer or content.get("address") != address:
            return None
        fetched_at_s, keys = content.get("fetched_at_s"), content.get("keys")
        if type(fetched_at_s) is not float or not isinstance(keys, list) or fetched_at_s > now_s + CLOCK_SLACK_S:
            return None
        return StoredKeySet({"keys": public_keys({"keys": keys})}, min(fetched_at_s, now_s))

    def _read(self, path: Path) -> bytes:
        handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
        with os.fdopen(handle, "rb") as file:
            status = os.fstat(handle)
            if not stat.S_ISREG(status.st_mode) or status.st_uid != os.geteuid() or status.st_mode & 0o022:
                raise PermissionError(f"`{path}` may be written by others")
            raw = file.read(FILE_BYTES_MAX + 1)
        if len(raw) > FILE_BYTES_MAX:
            raise ValueError(f"`{path}` is larger than {FILE_BYTES_MAX} bytes")
        return raw


def public_keys(document: Mapping[str, Any]) -> Sequence[Mapping[str, Any]]:
    """Return the keys of a set with their public members only; symmetric and private keys are left out."""
    keys = document.get("keys")
    if not isinstance(keys, list):
        return []
    return [
        {name: value for name, value in key.items() if name in PUBLIC_MEMBERS}
        for key in keys
        if isinstance(key, dict) and key.get("kty") != "oct" and not PRIVATE_MEMBERS & key.keys()
    ]
