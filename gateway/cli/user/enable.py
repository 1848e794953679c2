"""`portcullis user enable`: somebody who may log in again."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import click

from gateway.cli.output import as_json_option, config_option, mark, say
from gateway.cli.store_access import load
from gateway.cli.user.people import OPERATOR, Desk, at_desk, document_of, name_argument, tenant_option, user_of

if TYPE_CHECKING:
    from gateway.stores.directory import User


@click.command("enable")
@name_argument
@tenant_option
@config_option
@as_json_option
def command(*, name: str, tenant: str, file: Path | None, as_json: bool) -> None:
    """Let the user NAME in again. What was ended stays so."""
    loaded = load(file, as_json)
    tenant = tenant or loaded.config.login.tenant

    async def enabling(desk: Desk) -> User:
        changed = await desk.directory.change_user(replace(await user_of(desk.directory, tenant, name), active=True))
        if changed is None:
            raise ValueError(f"there is no user `{name}` any more")
        desk.trail.tell("admin.user.reactivate", "success", tenant=tenant, actor=OPERATOR, target=changed.id)
        return changed

    enabled = at_desk(loaded, enabling, as_json)
    document = {"ok": True, "user": document_of(enabled)}
    say(document, as_json, lambda: click.echo(f"{mark(True)} enabled `{enabled.user_name}`"))
