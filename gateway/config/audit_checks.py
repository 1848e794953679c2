"""What `[audit]` means, beyond its types."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path as FilePath

from gateway.config.check_parts import parent_exists, secret_complaints, store_address
from gateway.config.complaints import Complaint
from gateway.config.knobs import Config

KEY_BYTES_MIN = 32

_NAME = re.compile(r"[A-Za-z0-9_-]{1,48}")


def audit_complaints(config: Config, base_dir: FilePath, env: Mapping[str, str]) -> Iterator[Complaint]:
    """Give everything in `[audit]` that is wrong or odd."""
    audit = config.audit
    path = ("audit", "url")
    address = yield from store_address(audit.url, path, base_dir, env, several=True)
    hint = "write `embedded`, `folder:PATH`, `redis://…`, `kafka://…/TOPIC` or `off`"
    if address is not None and address.startswith("folder:"):
        folder = address.removeprefix("folder:")
        if not folder or not parent_exists(base_dir, folder):
            yield Complaint(path, "its folder does not exist", "write `folder:PATH`")
    elif address is not None and not address.startswith(("redis://", "rediss://", "unix://", "kafka://", "kafkas://")):
        if address == "off":
            yield from _missed(config)
        elif address != "embedded":
            yield Complaint(path, "no audit log", hint)
    if audit.key:
        yield from secret_complaints(audit.key, ("audit", "key"), base_dir, env, length_min=KEY_BYTES_MIN)
    if audit.name and not _NAME.fullmatch(audit.name):
        yield Complaint(
            ("audit", "name"), f"`{audit.name}` is no name of a chain", "up to 48 letters, digits, `-` and `_`"
        )


def _missed(config: Config) -> Iterator[Complaint]:
    """Who administers must leave a trace."""
    if config.admin.tokens or config.admin.roles:
        yield Complaint(("audit", "url"), "nobody would know what administrators did", "write `embedded`")
    elif config.scim.base_url or config.oauth.issuer or config.sessions.url:
        yield Complaint(
            ("audit", "url"), "nobody will know who logged in, or was changed", "write `embedded`", is_warning=True
        )
