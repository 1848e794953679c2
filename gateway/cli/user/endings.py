"""How a command ends what a user has: sessions, refresh tokens, and access tokens that are out in the world."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from gateway.cli.user.people import OPERATOR, Desk
from gateway.types import Secret, Subject, SystemClock

if TYPE_CHECKING:
    from gateway.config import LoadedConfig
    from gateway.stores.directory import User

_MEMORY = "memory:"


async def end_all_of(loaded: LoadedConfig, desk: Desk, user: User) -> int:
    """End all sessions and tokens of a user; return how many sessions. Raises StoreUnavailable."""
    subject = Subject(user.tenant, user.id)
    ended = await _end_sessions(loaded, desk, subject)
    if loaded.config.oauth.issuer:
        await _end_tokens(loaded, desk.run_dir, subject)
    return ended


async def _end_sessions(loaded: LoadedConfig, desk: Desk, subject: Subject) -> int:
    from gateway.config import resolve_secret, resolve_store_url
    from gateway.flows.sessions import SessionNames, Sessions
    from gateway.front.own_keys import own_key
    from gateway.front.sessions import KEY_FILE
    from gateway.stores import open_session_store

    config = loaded.config.sessions
    address = resolve_store_url(config.url, loaded.base_dir).reveal().decode()
    if address in ("", _MEMORY):
        return 0
    clock = SystemClock()
    key = resolve_secret(config.key, loaded.base_dir) if config.key else Secret(own_key(desk.run_dir, KEY_FILE))
    store = open_session_store("" if address == "embedded" else address, desk.run_dir, clock)
    try:
        sessions = Sessions(store, SessionNames(config.region, key), clock=clock, trail=desk.trail)
        return await sessions.end_all(subject, reason="operator", actor=OPERATOR)
    finally:
        await store.close()


async def _end_tokens(loaded: LoadedConfig, run_dir: Path, subject: Subject) -> None:
    from gateway.config import resolve_store_url
    from gateway.flows.oauth.service import longest_access_token_s
    from gateway.stores import RevocationRow, open_store, open_token_store

    config, clock = loaded.config, SystemClock()
    now_s = int(clock.wall_s())
    address = resolve_store_url(config.oauth.store_url, loaded.base_dir).reveal().decode()
    if address != _MEMORY:
        grants = open_token_store("" if address == "embedded" else address, run_dir, clock)
        try:
            await grants.revoke_subject(subject, now_s + 1)
        finally:
            await grants.close()
    address = resolve_store_url(config.store.url, loaded.base_dir).reveal().decode()
    if address != _MEMORY:
        revocations = open_store(address, run_dir, poll_ms=config.store.poll_ms)
        until_s = now_s + longest_access_token_s(config.oauth) + 60
        row = RevocationRow("sub", config.oauth.issuer.encode(), subject.id.encode(), until_s, now_s + 1)
        try:
            await revocations.append([row])
        finally:
            await revocations.close()
