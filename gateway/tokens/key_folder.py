"""A folder of signing keys: one private file a key, and `jwks.json`, the set to publish.

The set is also the folder's index: its members `iat` and `exp` (OpenID Federation 1.0, "Federation Historical Keys")
say since when a key exists and, once another has taken over, until when it must still be published, so that tokens it
signed can be verified to their end. The newest key without `exp` signs. A key whose `nbf` is still to come is
announced: whoever keeps the set has it before the first token is signed with it, and until then the former one signs.
"""

from __future__ import annotations

import fcntl
import json
import os
import re
import secrets
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from gateway.errors import KeyInvalid
from gateway.tokens.sealing import Sealer
from gateway.tokens.signing import SigningKey, read_key

KEY_BYTES_MAX = 64 * 1024  # a longer file is no key
JWKS_NAME = "jwks.json"
_KID = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9_.-]{0,127}")  # becomes a file's name

_SEALED = ".sealed"

FileFormat = Literal["jwk", "pem"]
State = Literal["announced", "signing", "verifying", "retired"]


@dataclass(frozen=True, slots=True)
class FolderKey:
    """One key of a folder, as its set describes it."""

    kid: str
    algorithm: str
    created_at_s: int
    retires_at_s: int  # 0 = not decided
    has_private: bool
    jwk: dict[str, Any]
    signs_from_s: int = 0  # 0 = since it was made

    def state(self, now_s: int) -> State:
        """Tell what the key is good for."""
        if not self.retires_at_s:
            return "signing" if self.signs_from_s <= now_s else "announced"
        return "verifying" if now_s < self.retires_at_s else "retired"


class KeyFolder:
    """The keys in one folder. Changes are made under a lock, and files appear whole or not at all."""

    def __init__(self, path: Path, sealer: Sealer | None = None) -> None:
        """With a `sealer`, private files are sealed by it, whatever format is asked for."""
        self.path = path
        self._sealer = sealer

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
            int(jwk.get("nbf", 0)),
        )

    def signing_key(self, now_s: int | None = None) -> SigningKey:
        """Read the key that signs now. Raises KeyInvalid where there is none."""
        now_s = int(time.time()) if now_s is None else now_s
        ready = [key for key in self.published() if key.signs_from_s <= now_s]
        for index, key in enumerate(ready):
            # One that retires signs as long as all newer ones are only announced.
            may_sign = not key.retires_at_s or (index == 0 and now_s < key.retires_at_s)
            path = self._private_path(key.kid) if may_sign else None
            if path is not None:
                return self._read_private(path, key)
        raise KeyInvalid(f"`{self.path}` has no key that signs; `portcullis keys new` makes one")

    def _read_private(self, path: Path, key: FolderKey) -> SigningKey:
        if path.suffix != _SEALED:
            return read_key_file(path, key.algorithm, key.kid)
        if self._sealer is None:
            raise KeyInvalid(f"`{path}` is sealed, and there is no key to open it")
        try:
            return read_key(self._sealer.decrypt(path.read_bytes(), key.kid.encode()), key.algorithm, key.kid)
        except OSError as error:
            raise KeyInvalid(f"`{path}` cannot be read: {(error.strerror or 'unreadable').lower()}") from None
        except KeyInvalid as fault:
            raise KeyInvalid(f"`{path}`: {fault}") from None

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
            return self._rotate(key, now_s, overlap_s, file_format, now_s)

    def keep_fresh(
        self,
        new_key: Callable[[], SigningKey],
        *,
        algorithm: str,
        now_s: int,
        every_s: int,
        announce_s: int,
        overlap_s: int,
    ) -> bool:
        """Have a key that signs, and the next one where the newest is older than `every_s`. Tells whether it made one.

        The next is announced for `announce_s` before it signs; then the former one verifies for `overlap_s` more.
        What is over goes. Of many processes that call this at once, one makes the key.
        """
        with self._locked():
            held = self.published()
            if not held:
                self._add(new_key(), now_s, "jwk", [])
                return True
            newest = held[0]
            if newest.algorithm == algorithm and now_s < newest.created_at_s + every_s:
                self._drop_retired(held, now_s)
                return False
            self._rotate(new_key(), now_s, announce_s + overlap_s, "jwk", now_s + announce_s)
            return True

    def _rotate(
        self, key: SigningKey, now_s: int, retires_in_s: int, file_format: FileFormat, signs_from_s: int
    ) -> list[FolderKey]:
        kept, retired = [], []
        for old in self.published():
            retires_at_s = old.retires_at_s or now_s + retires_in_s
            if retires_at_s <= now_s:
                retired.append(old)
            else:
                kept.append(replace(old, retires_at_s=retires_at_s, jwk={**old.jwk, "exp": retires_at_s}))
        self._add(key, now_s, file_format, kept, signs_from_s)
        self._unlink(retired)
        return retired

    def _drop_retired(self, held: list[FolderKey], now_s: int) -> None:
        retired = [key for key in held if key.state(now_s) == "retired"]
        if retired:
            _write(self.jwks_path, _json({"keys": [key.jwk for key in held if key not in retired]}), 0o644)
            self._unlink(retired)

    def _unlink(self, keys: list[FolderKey]) -> None:
        for key in keys:
            path = self._private_path(key.kid)
            if path is not None:
                path.unlink()

    def _add(
        self,
        key: SigningKey,
        now_s: int,
        file_format: FileFormat,
        others: list[FolderKey],
        signs_from_s: int = 0,
    ) -> Path:
        if not _KID.fullmatch(key.kid):
            raise KeyInvalid(f"`{key.kid}` cannot name a file; letters, digits, `-`, `_` and `.`")
        if self._private_path(key.kid) is not None or any(other.kid == key.kid for other in others):
            raise KeyInvalid(f"`{key.kid}` is in `{self.path}` already")
        jwk = {**key.public_jwk(), "iat": now_s}
        if signs_from_s > now_s:
            jwk["nbf"] = signs_from_s
        private = key.pem() if file_format == "pem" else _json(key.private_jwk())
        ending = ".pem" if file_format == "pem" else ".json"
        if self._sealer is not None:
            private, ending = self._sealer.encrypt(_json(key.private_jwk()), key.kid.encode()), _SEALED
        path = self.path / (key.kid + ending)
        # The private half first: a published key that nobody has would only confuse.
        write_private(path, private)
        _write(self.jwks_path, _json({"keys": [jwk, *(other.jwk for other in others)]}), 0o644)
        return path

    def _private_path(self, kid: str) -> Path | None:
        if not _KID.fullmatch(kid):
            return None
        return next(
            (path for ending in (".json", ".pem", _SEALED) if (path := self.path / (kid + ending)).is_file()), None
        )

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
