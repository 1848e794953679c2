"""A folder of signing keys: one private file a key, and `jwks.json`, the set to publish.

The set is also the folder's index: its members `iat` and `exp` (OpenID Federation 1.0, "Federation Historical Keys")
say since when a key exists and, once another has taken over, until when it must still be published, so that tokens it
signed can be verified to their end. The newest key without `exp` signs.
"""

from __future__ import annotations

import fcntl
import json
import os
import re
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from gateway.errors import KeyInvalid
from gateway.tokens.signing import SigningKey, read_key

KEY_BYTES_MAX = 64 * 1024  # a longer file is no key
JWKS_NAME = "jwks.json"
_KID = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9_.-]{0,127}")  # becomes a file's name

FileFormat = Literal["jwk", "pem"]
State = Literal["signing", "verifying", "retired"]


@dataclass(frozen=True, slots=True)
class FolderKey:
    """One key of a folder, as its set describes it."""

    kid: str
    algorithm: str
    created_at_s: int
    retires_at_s: int  # 0 = not decided
    has_private: bool
    jwk: dict[str, Any]

    def state(self, now_s: int) -> State:
        """Tell what the key is good for."""
        if not self.retires_at_s:
            return "signing"
        return "verifying" if now_s < self.retires_at_s else "retired"


class KeyFolder:
    """The keys in one folder. Changes are made under a lock, and files appear whole or not at all."""

    def __init__(self, path: Path) -> None:
        self.path = path

    @property
    def jwks_path(self) -> Path:
        return self.path / JWKS_NAME

    def published(self) -> list[FolderKey]:
        """List the published keys, newest first. Raises KeyInvalid where the set cannot be read."""
        if not self.jwks_path.exists():
            return []
        try:
            document = json.loads(self.jwks_path.read_bytes())
            return [self._described(jwk) for jwk in document["keys"]]
        except (OSError, ValueError, TypeError, KeyError):
            raise KeyInvalid(f"`{self.jwks_path}` is no key set of ours") from None

    def _described(self, jwk: dict[str, Any]) -> FolderKey:
        kid = str(jwk["kid"])
        return FolderKey(
            kid,
            str(jwk.get("alg", "")),
            int(jwk.get("iat", 0)),
            int(jwk.get("exp", 0)),
            self._private_path(kid) is not None,
            jwk,
        )

    def signing_key(self) -> SigningKey:
        """Read the key that signs now. Raises KeyInvalid where there is none."""
        for key in self.published():
            path = self._private_path(key.kid)
            if not key.retires_at_s and path is not None:
                return read_key_file(path, key.algorithm, key.kid)
        raise KeyInvalid(f"`{self.path}` has no key that signs; `portcullis keys new` makes one")

    def add(self, key: SigningKey, *, now_s: int, file_format: FileFormat = "jwk") -> Path:
        """Write a new key and publish it beside the others; it signs from now on. Returns the private file's path."""
        with self._locked():
            return self._add(key, now_s, file_format, self.published())

    def rotate(
        self, key: SigningKey, *, now_s: int, overlap_s: int, file_format: FileFormat = "jwk"
    ) -> list[FolderKey]:
        """Let a new key sign; older ones stay published for `overlap_s` more. Returns those that are gone now.

        What goes out of the set goes whole: its private file is deleted too.
        """
        with self._locked():
            kept, retired = [], []
            for old in self.published():
                retires_at_s = old.retires_at_s or now_s + overlap_s
                if retires_at_s <= now_s:
                    retired.append(old)
                else:
                    jwk = {**old.jwk, "exp": retires_at_s}
                    kept.append(FolderKey(old.kid, old.algorithm, old.created_at_s, retires_at_s, old.has_private, jwk))
            self._add(key, now_s, file_format, kept)
            for old in retired:
                path = self._private_path(old.kid)
                if path is not None:
                    path.unlink()
            return retired

    def _add(self, key: SigningKey, now_s: int, file_format: FileFormat, others: list[FolderKey]) -> Path:
        if not _KID.fullmatch(key.kid):
            raise KeyInvalid(f"`{key.kid}` cannot name a file; letters, digits, `-`, `_` and `.`")
        if self._private_path(key.kid) is not None or any(other.kid == key.kid for other in others):
            raise KeyInvalid(f"`{key.kid}` is in `{self.path}` already")
        jwk = {**key.public_jwk(), "iat": now_s}
        path = self.path / f"{key.kid}{'.pem' if file_format == 'pem' else '.json'}"
        # The private half first: a published key that nobody has would only confuse.
        write_private(path, key.pem() if file_format == "pem" else _json(key.private_jwk()))
        _write(self.jwks_path, _json({"keys": [jwk, *(other.jwk for other in others)]}), 0o644)
        return path

    def _private_path(self, kid: str) -> Path | None:
        if not _KID.fullmatch(kid):
            return None
        return next((path for ending in (".json", ".pem") if (path := self.path / (kid + ending)).is_file()), None)

    @contextmanager
    def _locked(self) -> Iterator[None]:
        self.path.mkdir(parents=True, exist_ok=True)
        folder = os.open(self.path, os.O_RDONLY | os.O_DIRECTORY)
        try:
            fcntl.flock(folder, fcntl.LOCK_EX)
            yield
        finally:
            os.close(folder)


def read_key_file(path: Path, algorithm: str = "", kid: str = "") -> SigningKey:
    """Read a key from a file, or the signing key of a folder. Raises KeyInvalid, also for a file that is not there."""
    if path.is_dir():
        return KeyFolder(path).signing_key()
    try:
        with path.open("rb") as file:
            data = file.read(KEY_BYTES_MAX + 1)
    except OSError as error:
        raise KeyInvalid(f"`{path}` cannot be read: {(error.strerror or 'unreadable').lower()}") from None
    if len(data) > KEY_BYTES_MAX:
        raise KeyInvalid(f"`{path}` is too long for a key")
    try:
        return read_key(data, algorithm, kid)
    except KeyInvalid as fault:
        raise KeyInvalid(f"`{path}`: {fault}") from None


def write_private(path: Path, data: bytes) -> None:
    """Create a file that its owner alone can read. Raises FileExistsError rather than overwriting a key."""
    if path.exists():
        raise FileExistsError(path)
    _write(path, data, 0o600)


def _write(path: Path, data: bytes, mode: int) -> None:
    """Put a whole file in place at once."""
    draft = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    number = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, mode)
    try:
        with os.fdopen(number, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        draft.replace(path)
    except BaseException:
        draft.unlink(missing_ok=True)
        raise


def _json(document: dict[str, Any]) -> bytes:
    return json.dumps(document, indent=2).encode() + b"\n"
