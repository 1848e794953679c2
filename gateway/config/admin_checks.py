"""What `[admin]` means, beyond its types: who would administer that should not, or could never."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path as FilePath

from gateway.config.check_parts import repeated, secret_complaints
from gateway.config.complaints import Complaint
from gateway.config.knobs import Config

TOKEN_BYTES_MIN = 32
BUILT_IN_ROLES = ("reader", "helpdesk", "auditor", "operator", "owner")


def admin_complaints(config: Config, base_dir: FilePath, env: Mapping[str, str]) -> Iterator[Complaint]:
    """Give everything in `[admin]` that is wrong or odd."""
    admin = config.admin
    if not (admin.tokens or admin.roles):
        if admin.policies:
            yield Complaint(("admin", "policies"), "nobody administers", "name who does: `[[admin.roles]]`")
        return
    key = "tokens" if admin.tokens else "roles"
    if not config.server.admin_listen:
        yield Complaint(("admin", key), "there is no listener to administer at", "say one: `server.admin_listen`")
    elif config.server.public_admin:
        yield Complaint(
            ("server", "public_admin"),
            "whoever reaches it may try tokens of administrators, and reads them where there is no TLS",
            "keep it on loopback, or behind a proxy with TLS",
            is_warning=True,
        )
    if not config.directory.url:
        hint = 'say where they are: `[directory]`, `url = "embedded"`'
        yield Complaint(("admin", key), "there are no users to administer", hint)
    for index, token in enumerate(admin.tokens):
        path = ("admin", "tokens", index)
        yield from secret_complaints(token.token, (*path, "token"), base_dir, env, length_min=TOKEN_BYTES_MIN)
        if not token.id or len(token.id) > 128 or not token.id.isprintable() or token.id.startswith("usr_"):
            yield Complaint((*path, "id"), "no name of a program", "1 to 128 plain characters; `usr_` is for users")
        if not token.roles:
            yield Complaint((*path, "roles"), "it may do nothing", f"as in `{BUILT_IN_ROLES[0]}`")
        for role in token.roles:
            yield from _role(role, config, (*path, "roles"))
    yield from repeated(((one.id, ("admin", "tokens", at, "id")) for at, one in enumerate(admin.tokens)), "program")
    for index, one in enumerate(admin.roles):
        path = ("admin", "roles", index)
        yield from _role(one.role, config, (*path, "role"))
        if not (one.groups or one.users or one.clients):
            yield Complaint((*path, "role"), "nobody has it", "name `groups`, `users` or `clients`")
    if config.scim.base_url and any(one.groups for one in admin.roles):
        yield Complaint(
            ("admin", "roles"),
            "whoever provisions groups by SCIM decides who administers",
            "name `users`, or trust your SCIM clients as administrators",
            is_warning=True,
        )
    known = {issuer.issuer for issuer in config.issuers} | {config.oauth.issuer}
    for index, issuer in enumerate(admin.issuers):
        if issuer not in known:
            yield Complaint(("admin", "issuers", index), f"`{issuer}` is no issuer of `[[issuers]]`", "add it there")
    if not admin.scope or " " in admin.scope:
        yield Complaint(("admin", "scope"), f"`{admin.scope}` is no scope", "one word")
    if admin.policies and not (base_dir / admin.policies).is_file():
        yield Complaint(("admin", "policies"), f"`{admin.policies}` is no file")


def _role(role: str, config: Config, path: tuple[str | int, ...]) -> Iterator[Complaint]:
    if not config.admin.policies and role not in BUILT_IN_ROLES:
        known = ", ".join(f"`{each}`" for each in BUILT_IN_ROLES)
        yield Complaint(path, f"`{role}` is no role of the built-in policies", f"known: {known}")
