"""Where an issuer's keys come from: an address, a file, or a shared secret. Each gives a JWKS (RFC 7517 §5)."""

from __future__ import annotations

import asyncio
import base64
import os
import stat
from pathlib import Path
from typing import Any, Protocol

import orjson

from gateway.config import IssuerConfig
from gateway.stores.fetch import Fetcher, FetchFailed
from gateway.tokens.discovery import discover
from gateway.tokens.issuer_calls import DirectCalls, IssuerCalls
from gateway.types import Secret

FILE_WATCH_S = 2.0  # how often a key file is looked at


class KeySource(Protocol):
    """One issuer's source of keys."""

    lasting: bool
    """True where keys do not age: what this machine holds is as true tomorrow, until it is changed or gone."""

    refresh_s: float
    """How long a set is taken to be fresh."""

    algorithms: tuple[str, ...]
    """What the keys of this source may be used for."""

    async def fetch(self) -> dict[str, Any] | None:
        """Return the document as it is now, or None for "unchanged since the last time".

        Raises FetchFailed; ends within the issuer's `fetch_timeout_s`.
        """

    def forget(self) -> None:
        """Take note that the last attempt was of no use: the next one starts from scratch, and never answers None."""


class RemoteKeys:
    """The key set at an issuer's `jwks_uri`: the configured one, or the one that its metadata names."""

    lasting = False

    def __init__(self, config: IssuerConfig, fetcher: Fetcher, calls: IssuerCalls | None = None) -> None:
        self._calls = calls or DirectCalls()
        self.refresh_s = config.jwks_refresh_s
        self._config = config
        self._fetcher = fetcher
        # A secret that travels is none: symmetric keys count only where they lie on this machine (design §6).
        self.algorithms: tuple[str, ...] = tuple(name for name in config.algorithms if not name.startswith("HS"))
        self._discovered = ""

    async def fetch(self) -> dict[str, Any]:
        await self._fetcher.open()
        return await self._calls.ask(self._config.issuer, "jwks", self._fetch, self._config.fetch_timeout_s)

    def forget(self) -> None:
        self._discovered = ""  # an issuer that moved its keys is found again

    async def _fetch(self) -> dict[str, Any]:
        config = self._config
        address = config.jwks_uri or self._discovered
        if not address:
            metadata = await discover(self._fetcher, config.issuer, timeout_s=config.fetch_timeout_s)
            address = self._discovered = metadata.jwks_uri
        return await self._fetcher.get_json(address, timeout_s=config.fetch_timeout_s, bytes_max=config.jwks_bytes_max)


class FileKeys:
    """A JWKS on disk, read again when its time, size or inode changes."""

    lasting = True
    refresh_s = FILE_WATCH_S

    def __init__(self, path: Path, config: IssuerConfig) -> None:
        self.algorithms: tuple[str, ...] = config.algorithms
        self._path = path
        self._bytes_max = config.jwks_bytes_max
        self._seen: tuple[int, int, int] | None = None

    async def fetch(self) -> dict[str, Any] | None:
        return await asyncio.to_thread(self._read_if_changed)

    def forget(self) -> None:
        self._seen = None

    def _read_if_changed(self) -> dict[str, Any] | None:
        try:
            # Not blocking, so that a pipe under this name cannot hold a thread for ever.
            with os.fdopen(os.open(self._path, os.O_RDONLY | os.O_NONBLOCK), "rb") as file:
                status = os.fstat(file.fileno())
                if not stat.S_ISREG(status.st_mode):
                    raise FetchFailed("unreadable", f"`{self._path}` is not a file")
                now = (status.st_mtime_ns, status.st_size, status.st_ino)
                if now == self._seen:
                    return None
                raw = file.read(self._bytes_max + 1)
        except OSError as error:
            raise FetchFailed("unreadable", f"`{self._path}` cannot be read: {error.strerror}") from error
        if len(raw) > self._bytes_max:
            raise FetchFailed("too_large", f"`{self._path}` has more than {self._bytes_max} bytes")
        try:
            document = orjson.loads(raw)
        except orjson.JSONDecodeError as error:
            raise FetchFailed("not_json", f"`{self._path}` is not JSON") from error
        if not isinstance(document, dict):
            raise FetchFailed("not_json", f"`{self._path}` holds no JSON object")
        self._seen = now
        return document


class SecretKey:
    """A secret shared with the issuer, as the symmetric key that it is (RFC 7518 §6.4)."""

    lasting = True
    refresh_s = float("inf")

    def __init__(self, secret: Secret, config: IssuerConfig) -> None:
        self.algorithms: tuple[str, ...] = config.algorithms
        self._secret = secret

    async def fetch(self) -> dict[str, Any]:
        encoded = base64.urlsafe_b64encode(self._secret.reveal()).rstrip(b"=").decode()
        return {"keys": [{"kty": "oct", "k": encoded}]}

    def forget(self) -> None:
        pass
