"""How the verbs of `portcullis user` reach the directory and what goes with it, from outside the running gateway."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from gateway.cli.output import fail, mark
from gateway.cli.store_access import with_run_dir
from gateway.errors import StoreUnavailable
from gateway.types import AuditEvent, SystemClock

if TYPE_CHECKING:
    from gateway.config import LoadedConfig
    from gateway.flows.password import PasswordHasher
    from gateway.flows.trail import AuditTrail
    from gateway.stores.directory import Directory, User

T = TypeVar("T")

APPENDS_MAX = 10  # to the audit log, before a command gives up
APPEND_PAUSE_S = 0.1
OPERATOR = "operator"  # the actor in the audit trail: who may run the command

tenant_option = click.option("--tenant", default="", help="Of this tenant; without it that of `login.tenant`.")
name_argument = click.argument("name", metavar="NAME")


class CommandTrail:
    """Keeps what a command did, to be written into the audit log at its end."""

    def __init__(self) -> None:
        self.events: list[AuditEvent] = []

    def tell(self, event: AuditEvent) -> None:
        """Take note of the event."""
        self.events.append(event)


@dataclass(frozen=True, slots=True)
class Desk:
    """What a command works with."""

    directory: Directory
    run_dir: Path  # of embedded stores
    trail: AuditTrail


def at_desk(loaded: LoadedConfig, work: Callable[[Desk], Awaitable[T]], as_json: bool) -> T:
    """Run `work`, and note in the audit log what it did; or end with what is wrong."""

    async def working(run_dir: Path) -> T:
        from gateway.flows.trail import AuditTrail
        from gateway.front.directory import open_configured_directory

        heard = CommandTrail()
        directory = open_configured_directory(loaded.config.directory, base_dir=loaded.base_dir, run_dir=run_dir)
        try:
            return await work(Desk(directory, run_dir, AuditTrail(heard, SystemClock())))
        finally:
            await directory.close()
            await _write_down(loaded, run_dir, heard.events)

    return with_run_dir(loaded, working, as_json)


async def _write_down(loaded: LoadedConfig, run_dir: Path, events: Sequence[AuditEvent]) -> None:
    """Append to the chain that all commands on this machine share. What took place is not undone where that fails."""
    from gateway.front.audit import chain_of, open_configured_audit

    config = loaded.config.audit
    if not events or config.url == "off":
        return
    machine = chain_of(config, 0).rpartition("-")[0]
    log = open_configured_audit(config, f"{machine}-command", base_dir=loaded.base_dir, run_dir=run_dir)
    try:
        for _ in range(APPENDS_MAX):
            try:
                await log.append(events)
            except StoreUnavailable as error:
                fault = error
                await asyncio.sleep(APPEND_PAUSE_S)  # another command may be writing
            else:
                return
        click.echo(f"{mark(False)} this is not in the audit log: {fault}", err=True)
    finally:
        await log.close()


async def user_of(directory: Directory, tenant: str, name: str) -> User:
    """Give a user by name or id. Raises ValueError where there is none."""
    found = await directory.find_user(tenant, name)
    if found is None and name.startswith("usr_"):
        found = await directory.get_user(tenant, name)
    if found is None:
        raise ValueError(f"there is no user `{name}` in tenant `{tenant}`")
    return found


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
