"""What `[sessions]` means, beyond its types: what would let a session be taken, or could never begin one."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path as FilePath

from gateway.config.check_parts import logged_store, secret_complaints
from gateway.config.complaints import Complaint
from gateway.config.knobs import Config
from gateway.config.secrets import SecretUnresolved, resolve_store_url

KEY_BYTES_MIN = 32

_COOKIE = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]{1,64}")  # a token (RFC 6265 §4.1.1)
_REGION = re.compile(r"[a-z0-9][a-z0-9-]{0,15}")


def sessions_complaints(config: Config, base_dir: FilePath, env: Mapping[str, str]) -> Iterator[Complaint]:
    """Give everything in `[sessions]` that is wrong or odd, and the routes that need it in vain."""
    sessions = config.sessions
    yield from logged_store(
        sessions.url, ("sessions", "url"), base_dir, env, workers=config.server.workers, what="sessions", several=True
    )
    if not _COOKIE.fullmatch(sessions.cookie):
        hint = "up to 64 letters, digits, `-` and `_`"
        yield Complaint(("sessions", "cookie"), f"`{sessions.cookie}` is no name of a cookie", hint)
    elif not sessions.cookie.startswith("__Host-"):
        yield Complaint(
            ("sessions", "cookie"), "another host of the site could set it", "begin it with `__Host-`", is_warning=True
        )
    if not _REGION.fullmatch(sessions.region):
        hint = "up to 16 lower case letters, digits and `-`"
        yield Complaint(("sessions", "region"), f"`{sessions.region}` is no name of a region", hint)
    if sessions.idle_s > sessions.absolute_s:
        hint = "a session that is not used ends before one that is"
        yield Complaint(("sessions", "idle_s"), "above absolute_s", hint)
    if sessions.key:
        yield from secret_complaints(sessions.key, ("sessions", "key"), base_dir, env, length_min=KEY_BYTES_MIN)
    elif _is_shared(sessions.url, base_dir, env):
        hint = "all gateways that share sessions need one key: `env:NAME` or `file:PATH`"
        yield Complaint(("sessions", "key"), "missing", hint)
    if not sessions.url:
        for index, route in enumerate(config.routes):
            if route.auth == "session":
                hint = 'say where they are kept: `[sessions]`, `url = "embedded"`'
                yield Complaint(("routes", index, "auth"), "there are no sessions", hint)


def _is_shared(url: str, base_dir: FilePath, env: Mapping[str, str]) -> bool:
    """Tell whether gateways on several machines could keep sessions there."""
    try:
        address = resolve_store_url(url, base_dir, env).reveal().decode(errors="replace")
    except SecretUnresolved:
        return False  # that is a complaint of its own
    return address.startswith(("redis://", "rediss://", "postgresql://", "postgres://"))
