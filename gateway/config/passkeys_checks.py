"""What `[passkeys]` means, beyond its types: what no browser would accept, or would let others ask."""

from __future__ import annotations

import re
from collections.abc import Iterator

from gateway.config.check_parts import is_loopback, split_url
from gateway.config.complaints import Complaint
from gateway.config.knobs import Config

_DOMAIN = re.compile(r"localhost|([a-z0-9]([a-z0-9-]*[a-z0-9])?\.)+[a-z]([a-z0-9-]*[a-z0-9])?")


def passkeys_complaints(config: Config) -> Iterator[Complaint]:
    """Give everything in `[passkeys]` that is wrong or odd."""
    passkeys = config.passkeys
    if not passkeys.rp_id:
        if passkeys.origins:
            yield Complaint(("passkeys", "origins"), "there are no passkeys: rp_id is missing", "name it")
        return
    if not _DOMAIN.fullmatch(passkeys.rp_id):
        hint = "a domain in lower case, as in `example.com`; addresses have no passkeys"
        yield Complaint(("passkeys", "rp_id"), f"`{passkeys.rp_id}` is no domain", hint)
    elif "." not in passkeys.rp_id and passkeys.rp_id != "localhost":
        yield Complaint(("passkeys", "rp_id"), f"`{passkeys.rp_id}` is no domain of its own")
    for index, origin in enumerate(passkeys.origins):
        yield from _origin(origin, passkeys.rp_id, index)
    if not config.login.enabled:
        yield Complaint(("passkeys", "rp_id"), "passkeys need the pages of log-in", "`login.enabled = true`")
    for chapter in ("sessions", "directory"):
        if not getattr(config, chapter).url:
            hint = f'say where they are kept: `[{chapter}]`, `url = "embedded"`'
            yield Complaint(("passkeys", "rp_id"), f"passkeys need `{chapter}.url`", hint)


def _origin(origin: str, rp_id: str, index: int) -> Iterator[Complaint]:
    """WebAuthn §5.1.3: the page's domain is the RP ID, or lies below it."""
    path = ("passkeys", "origins", index)
    parts = split_url(origin)
    host = "" if parts is None else parts.hostname or ""
    if parts is None or not host or parts.path or parts.query or "#" in origin or parts.username is not None:
        yield Complaint(path, f"`{origin}` is no origin", "as in `https://login.example.com`, without a slash")
    elif parts.scheme != "https" and not (parts.scheme == "http" and is_loopback(host)):
        yield Complaint(path, "must be https", "browsers offer passkeys on no other page")
    elif host != rp_id and not host.endswith(f".{rp_id}"):
        yield Complaint(path, f"`{host}` is not within `{rp_id}`", "browsers would refuse to ask for a passkey there")
