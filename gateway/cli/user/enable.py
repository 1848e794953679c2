"""`portcullis user enable`: somebody who may log in again."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import click

from gateway.cli.output import as_json_option, config_option, mark, say
from gateway.cli.store_access import load
from gateway.cli.user.people import document_of, in_directory, name_argument, tenant_option, user_of

if TYPE_CHECKING:
    from gateway.stores.directory import Directory, User


@click.command("enable")
@name_argument
@tenant_option
@config_option
@as_json_option
def command(*, name: str, tenant: str, file: Path | None, as_json: bool) -> None:
    """Let the user NAME in again. What was ended stays so."""
    loaded = load(file, as_json)
    tenant = tenant or loaded.config.login.tenant

    async def enabling(directory: Directory, _run_dir: Path) -> User:
        changed = await directory.change_user(replace(await user_of(directory, tenant, name), active=True))
        if changed is None:
            raise ValueError(f"there is no user `{name}` any more")
        return changed

    enabled = in_directory(loaded, enabling, as_json)
    document = {"ok": True, "user": document_of(enabled)}
    say(document, as_json, lambda: click.echo(f"{mark(True)} enabled `{enabled.user_name}`"))
