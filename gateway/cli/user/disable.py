"""`portcullis user disable`: somebody who logs in no more, and whose sessions and tokens end now."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import click

from gateway.cli.output import as_json_option, config_option, mark, say
from gateway.cli.policy.input import many
from gateway.cli.store_access import load
from gateway.cli.user.endings import end_all_of
from gateway.cli.user.people import OPERATOR, Desk, at_desk, document_of, name_argument, tenant_option, user_of

if TYPE_CHECKING:
    from gateway.stores.directory import User


@click.command("disable")
@name_argument
@tenant_option
@config_option
@as_json_option
def command(*, name: str, tenant: str, file: Path | None, as_json: bool) -> None:
    """Let the user NAME in no more. Sessions, refresh tokens and access tokens end at every gateway within a second."""
    loaded = load(file, as_json)
    tenant = tenant or loaded.config.login.tenant

    async def disabling(desk: Desk) -> tuple[User, int]:
        found = await user_of(desk.directory, tenant, name)
        changed = await desk.directory.change_user(replace(found, active=False))
        if changed is None:
            raise ValueError(f"there is no user `{name}` any more")
        desk.trail.tell("admin.user.deactivate", "success", tenant=tenant, actor=OPERATOR, target=found.id)
        return changed, await end_all_of(loaded, desk, changed)

    disabled, ended = at_desk(loaded, disabling, as_json)
    document = {"ok": True, "user": document_of(disabled), "sessions_ended": ended}
    text = f"{mark(True)} disabled `{disabled.user_name}`, and ended {many(ended, 'session')}"
    say(document, as_json, lambda: click.echo(text))
