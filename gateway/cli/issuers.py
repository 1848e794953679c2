"""The keys of a config's issuers, loaded once by the code that serves."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from gateway.config import Config, IssuerConfig, resolve_secret
from gateway.stores.fetch import Fetcher
from gateway.tokens.jwks import IssuerState, JWKSCache, PublishedKeys
from gateway.types import SystemClock

if TYPE_CHECKING:
    from gateway._native.token import KeySnapshot

LoadedIssuers = list[tuple[PublishedKeys, IssuerState]]


def is_local(issuer: IssuerConfig) -> bool:
    """Tell whether an issuer's keys lie on this machine."""
    return bool(issuer.jwks_file or issuer.secret)


def trusted_issuers(config: Config, base_dir: Path) -> tuple[IssuerConfig, ...]:
    """List the issuers that a gateway with this config trusts: those that it names, and its own once that has a key."""
    if not config.oauth.issuer:
        return config.issuers
    from gateway.cli.folders import lasting_dir
    from gateway.tokens.key_folder import KeyFolder
    from gateway.tokens.own import keys_folder, own_issuer

    run_dir = lasting_dir(config.server.run_dir, os.environ)
    if run_dir is None:
        return config.issuers
    folder = KeyFolder(keys_folder(config.oauth, run_dir, base_dir))
    published = [key.jwk for key in folder.published()]
    return (*config.issuers, own_issuer(config.oauth, folder.jwks_path, published)) if published else config.issuers


def load_issuers(issuers: Sequence[IssuerConfig], base_dir: Path) -> LoadedIssuers:
    """Load the keys of all these issuers, from files, secrets and addresses; each ends within its `fetch_timeout_s`."""
    return asyncio.run(_load(issuers, base_dir))


async def _load(issuers: Sequence[IssuerConfig], base_dir: Path) -> LoadedIssuers:
    published: tuple[PublishedKeys, ...] = ()

    def take(parts: tuple[PublishedKeys, ...]) -> None:
        nonlocal published
        published = parts

    fetcher = Fetcher()
    cache = JWKSCache(
        issuers,
        publish=take,
        fetcher=fetcher,
        clock=SystemClock(),
        base_dir=base_dir,
        read_secret=lambda reference: resolve_secret(reference, base_dir),
    )
    try:
        await cache.start()
        await cache.settle()
        return list(zip(published, cache.states(), strict=True))
    finally:
        await cache.stop()
        await fetcher.aclose()


def snapshot_of(issuers: Sequence[IssuerConfig], loaded: LoadedIssuers) -> KeySnapshot:
    """Lay out all issuers for a validator; those that were not loaded have no keys."""
    from gateway._native.token import KeySnapshot
    from gateway.tokens.control import rules_of

    parts = {part.config.issuer: part for part, _ in loaded}
    found = [parts.get(issuer.issuer) for issuer in issuers]
    return KeySnapshot(
        [rules_of(issuer) for issuer in issuers],
        [part.handles if part else () for part in found],
        [part.usable_until_s if part else 0 for part in found],
    )
