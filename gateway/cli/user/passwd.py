"""`portcullis user passwd`: a user's new password, set by an operator."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from gateway.cli.output import as_json_option, config_option, mark, say
from gateway.cli.policy.input import many
from gateway.cli.store_access import load
from gateway.cli.user.endings import end_all_of
from gateway.cli.user.people import (
    OPERATOR,
    Desk,
    ask_password,
    at_desk,
    document_of,
    keep_password,
    name_argument,
    tenant_option,
    user_of,
)

if TYPE_CHECKING:
    from gateway.stores.directory import User


@click.command("passwd")
@name_argument
@click.option("--must-change", is_flag=True, help="It is changed at the next log-in.")
@tenant_option
@config_option
@as_json_option
def command(*, name: str, must_change: bool, tenant: str, file: Path | None, as_json: bool) -> None:
    """Set the password of the user NAME, read from standard input, and log them out everywhere."""
    loaded = load(file, as_json)
    tenant = tenant or loaded.config.login.tenant
    password = ask_password(as_json)

    async def setting(desk: Desk) -> tuple[User, int]:
        found = await user_of(desk.directory, tenant, name)
        await keep_password(desk.directory, loaded, found, password, must_change=must_change)
        desk.trail.tell("password.change", "success", tenant=tenant, actor=OPERATOR, target=found.id)
        return found, await end_all_of(loaded, desk, found)

    changed, ended = at_desk(loaded, setting, as_json)
    document = {"ok": True, "user": document_of(changed), "sessions_ended": ended}
    text = f"{mark(True)} set the password of `{changed.user_name}`, and ended {many(ended, 'session')}"
    say(document, as_json, lambda: click.echo(text))
