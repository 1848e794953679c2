"""How the verbs of `portcullis user` reach the directory and what goes with it, from outside the running gateway."""

from __future__ import annotations

import base64
import logging
import secrets
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from gateway.cli.output import fail
from gateway.cli.store_access import with_run_dir
from gateway.types import AuditEvent, SystemClock

if TYPE_CHECKING:
    from gateway.config import LoadedConfig
    from gateway.flows.password import PasswordHasher
    from gateway.stores.directory import Directory, User

T = TypeVar("T")

OPERATOR = "operator"  # the actor in the audit trail: who may run the command

_log = logging.getLogger("portcullis.user")

tenant_option = click.option("--tenant", default="", help="Of this tenant; without it that of `login.tenant`.")
name_argument = click.argument("name", metavar="NAME")


class LoggedTrail:
    """Tells what a command did in the operators' log: the audit log is the running gateway's."""

    def tell(self, event: AuditEvent) -> None:
        """Write it down."""
        _log.info("%s %s: %s", event.action, event.outcome, event.target)


def in_directory(loaded: LoadedConfig, work: Callable[[Directory, Path], Awaitable[T]], as_json: bool) -> T:
    """Run `work` with the directory and the folder of embedded stores, or end with what is wrong."""

    async def working(run_dir: Path) -> T:
        from gateway.front.directory import open_configured_directory

        directory = open_configured_directory(loaded.config.directory, base_dir=loaded.base_dir, run_dir=run_dir)
        try:
            return await work(directory, run_dir)
        finally:
            await directory.close()

    return with_run_dir(loaded, working, as_json)


async def user_of(directory: Directory, tenant: str, name: str) -> User:
    """Give a user by name or id. Raises ValueError where there is none."""
    found = await directory.find_user(tenant, name)
    if found is None and name.startswith("usr_"):
        found = await directory.get_user(tenant, name)
    if found is None:
        raise ValueError(f"there is no user `{name}` in tenant `{tenant}`")
    return found


def new_id(prefix: str) -> str:
    """Make an id that nobody can guess and that is never used again."""
    return f"{prefix}_{base64.b32encode(secrets.token_bytes(16)).rstrip(b'=').decode().lower()}"


def ask_password(as_json: bool) -> str:
    """Read a password: from a pipe its first line, from a terminal twice and unseen."""
    if not sys.stdin.isatty():
        password = sys.stdin.readline().rstrip("\r\n")
    else:
        password = click.prompt("Password", hide_input=True, confirmation_prompt=True)
    if not password:
        fail("no password was given", as_json, status=2)
    return str(password)


async def keep_password(
    directory: Directory, loaded: LoadedConfig, user: User, password: str, *, must_change: bool
) -> None:
    """Keep a user's password. Raises ValueError for one that is not taken."""
    from gateway.front.login.part import password_rules
    from gateway.stores.directory import PasswordHash

    problem = password_rules(loaded.config.login, loaded.base_dir).problem(password, user.user_name)
    if problem is not None:
        raise ValueError(f"this password is not taken: {problem.replace('_', ' ')}")
    made = await _hasher(loaded).hash(password)
    kept = PasswordHash(user_id=user.id, hash=made, changed_s=SystemClock().wall_s(), must_change=must_change)
    await directory.set_password(kept)


def _hasher(loaded: LoadedConfig) -> PasswordHasher:
    from gateway.flows.password import PasswordHasher
    from gateway.front.login.part import hash_parameters

    async def compute(work: Callable[[], Any]) -> Any:
        return work()  # nobody else waits for this loop

    return PasswordHasher(compute, hash_parameters(loaded.config.login))


def document_of(user: User) -> dict[str, object]:
    """Give a user for `--json`."""
    return {
        "id": user.id,
        "tenant": user.tenant,
        "user_name": user.user_name,
        "active": user.active,
        "emails": list(user.emails),
    }
